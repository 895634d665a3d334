/* A step of a convolutional LSTM: i, f, o and g are the parts of a 3x3 convolution of x and h, and
   the new state is c = sigmoid(f) c + sigmoid(i) tanh(g), h = sigmoid(o) tanh(c).

   Images are images x height x width x channels, float32 or bfloat16. `lstm` computes all in one
   pass, with zero padding; with `pairs`, x and h are rounded to bfloat16. `update` takes the
   convolution's result, and `update_backward` computes the gradients of `update`.

   In `lstm`, a thread computes tiles of some columns in bands of rows, and goes down a tile by two
   rows at a time. The rows of x and h stay in the core's cache, and so do the sums of the
   convolution. */

#include <stdlib.h>

#include "products.h"

enum { ROWS = 2, TAPS = 3, EDGE = 1 };
enum { SPARE = MOST_PIXELS }; /* columns that are computed beyond a tile, and not used */
enum { I, F, O, G, GATES };

typedef struct {
    const void *x, *h, *c;        /* h, c: NULL for zeros */
    const float *weight, *bias;   /* 4 channels x 3 x 3 x channels of x and h */
    void *next_h, *next_c;
    long x_type, h_type, c_type, next_type;
    long images, height, width, channels; /* channels of each image */
    long bands, tiles;
} Job;

typedef struct {
    long part, vectors, depth; /* channels of a gate, vectors of all gates, words of a pixel */
    word *products;
    float *bias;
} Weights;

typedef struct {
    long image, top, bottom, left, right;
    word *ring;  /* rows x columns x depth, with a column more at either side */
    float *sums; /* rows x columns x vectors */
    long columns;
} Tile;

INLINE word *ring_row(const Weights *weights, const Tile *tile, long row)
{
    const long slots = ROWS + 2 * EDGE;
    return tile->ring + (row + slots) % slots * tile->columns * weights->depth;
}

/* Reads a row of x and h, with zeros around the images. */
static void read_row(const Job *job, const Weights *weights, const Tile *tile, long row, int pairs)
{
    word *to = ring_row(weights, tile, row);
    const long channels = job->channels, width = tile->right - tile->left + 2 * EDGE;
    const long first = larger(0, EDGE - tile->left);
    const long last = smaller(width, job->width - tile->left + EDGE);
    const long elements = weights->depth * (pairs ? 2 : 1);
    const long start = (tile->image * job->height + row) * job->width + tile->left - EDGE;
    const Type type = pairs ? BFLOAT16 : FLOAT32;
    memset(to, 0, width * weights->depth * sizeof(word));
    if (row < 0 || row >= job->height)
        return;
    for (long column = first; column < last; column++)
        for (long c = 0; c < channels; c += LANES) {
            const long index = (start + column) * channels + c, at = column * elements + c;
            store_some(to, at, channels - c, load_some(job->x, index, channels - c, job->x_type),
                       type);
            if (job->h)
                store_some(to, at + channels, channels - c,
                           load_some(job->h, index, channels - c, job->h_type), type);
        }
}

/* Convolves two rows, for some vectors of channels. */
INLINE void multiply(int vectors, const Weights *weights, const Tile *tile, long row, long first,
                     int pairs)
{
    const int pixels = pixels_of(vectors, pairs);
    const long width = tile->right - tile->left, depth = TAPS * weights->depth;
    const word *products = weights->products + first * LANES * TAPS * depth;
    for (long r = 0; r < ROWS; r++)
        for (long column = 0; column < width; column += pixels) {
            vec sums[MOST_PIXELS][WIDEST];
            begin_sums(sums, pixels, vectors, weights->bias + first * LANES);
            for (long tap = 0; tap < TAPS; tap++)
                add_products(sums, pixels, vectors,
                             ring_row(weights, tile, row + r + tap - EDGE) +
                                 column * weights->depth,
                             weights->depth, 1, products + tap * depth * vectors * LANES,
                             vectors * LANES, depth, pairs);
            float *to = tile->sums + (r * tile->columns + column) * weights->vectors * LANES;
#pragma GCC unroll 16
            for (int p = 0; p < pixels; p++)
#pragma GCC unroll 4
                for (int v = 0; v < vectors; v++)
                    store(to + (p * weights->vectors + first + v) * LANES, sums[p][v]);
        }
}

INLINE vec sigmoid(vec x)
{
    const vec e = exponential(-magnitude(x));
    return choose(x < 0.0f, e, all(1.0f)) / (e + 1.0f);
}

INLINE vec hyperbolic_tangent(vec x)
{
    const vec e = exponential(magnitude(x) * -2.0f), size = (1.0f - e) / (1.0f + e);
    return choose(x < 0.0f, -size, size);
}

/* Reads LANES channels of the gates from `index` on, where each gate has `part` channels. */
INLINE void read_gates(const void *gates, long index, long part, long count, Type type,
                       vec values[GATES])
{
    for (long gate = 0; gate < GATES; gate++) {
        const vec x = load_some(gates, index + gate * part, count, type);
        values[gate] = gate == G ? hyperbolic_tangent(x) : sigmoid(x);
    }
}

/* The new c from the gates and the last c. */
INLINE vec next_c(const Job *job, const vec gates[GATES], vec last)
{
    vec c = gates[I] * gates[G];
    if (job->c)
        c += gates[F] * last;
    return c;
}

INLINE vec last_c(const Job *job, long index, long count)
{
    return job->c ? load_some(job->c, index, count, job->c_type) : all(0.0f);
}

/* Updates pixels [first, last) from their gates, each with `part` channels. */
INLINE void update_pixels(const Job *job, long first, long last, const void *gates, long part,
                          Type type)
{
    for (long pixel = first; pixel < last; pixel++)
        for (long channel = 0; channel < job->channels; channel += LANES) {
            const long index = pixel * job->channels + channel, count = job->channels - channel;
            vec x[GATES];
            read_gates(gates, (pixel - first) * GATES * part + channel, part, count, type, x);
            const vec c = next_c(job, x, last_c(job, index, count));
            store_some(job->next_c, index, count, c, job->next_type);
            store_some(job->next_h, index, count, x[O] * hyperbolic_tangent(c), job->next_type);
        }
}

INLINE void compute(const Job *job, const Weights *weights, const Tile *tile, int pairs)
{
    for (long row = tile->top - EDGE; row < tile->top + EDGE; row++)
        read_row(job, weights, tile, row, pairs);
    for (long row = tile->top; row < tile->bottom; row += ROWS) {
        for (long r = 0; r < ROWS; r++)
            read_row(job, weights, tile, row + EDGE + r, pairs);
        begin_products(TAPS * weights->depth, pairs);
        for (long first = 0; first < weights->vectors;) {
            const int vectors = vectors_of(weights->vectors - first);
            WITH_VECTORS(vectors, multiply, weights, tile, row, first, pairs);
            first += vectors;
        }
        for (long r = 0; r < ROWS && row + r < tile->bottom; r++) {
            const long start = (tile->image * job->height + row + r) * job->width;
            update_pixels(job, start + tile->left, start + tile->right,
                          tile->sums + r * tile->columns * weights->vectors * LANES,
                          weights->part, FLOAT32);
        }
    }
}

INLINE long inputs_of(const Job *job) { return job->channels * (job->h ? 2 : 1); }

static long lay_out_weights(const Job *job, Weights *weights, char *block, int pairs)
{
    long used = 0;
    weights->part = up_to_multiple(job->channels, LANES);
    weights->vectors = GATES * weights->part / LANES;
    weights->depth = pairs ? (inputs_of(job) + 1) / 2 : inputs_of(job);
    weights->bias = take(block, &used, weights->vectors * LANES);
    weights->products =
        take(block, &used, weights->vectors * LANES * TAPS * TAPS * weights->depth);
    return used;
}

static long lay_out_tile(const Job *job, const Weights *weights, Tile *tile, char *block)
{
    long used = 0;
    tile->columns = (job->width + job->tiles - 1) / job->tiles + 2 * EDGE + SPARE;
    tile->ring = take(block, &used, (ROWS + 2 * EDGE) * tile->columns * weights->depth);
    tile->sums = take(block, &used, ROWS * tile->columns * weights->vectors * LANES);
    return used;
}

static Tile tile_of(const Job *job, long number, Tile tile)
{
    const long column = number % job->tiles, band = number / job->tiles % job->bands;
    tile.image = number / job->tiles / job->bands;
    tile.top = band * job->height / job->bands;
    tile.bottom = (band + 1) * job->height / job->bands;
    tile.left = column * job->width / job->tiles;
    tile.right = (column + 1) * job->width / job->tiles;
    return tile;
}

typedef void Compute(const Job *job, const Weights *weights, const Tile *tile);

/* Returns the number of allocations that failed. `compute_tile` is a function of its own, as in the
   parallel region the compiler takes arguments for variables. */
static int run(const Job *job, int pairs, Compute *compute_tile)
{
    Weights weights;
    int failures = 0;
    char *packed = aligned_alloc(LINE, lay_out_weights(job, &weights, NULL, pairs));
    if (!packed)
        return 1;
    lay_out_weights(job, &weights, packed, pairs);
    pack_channels(weights.bias, job->bias, GATES, job->channels);
#pragma omp parallel reduction(+ : failures)
    {
        Tile memory;
        const long bytes = lay_out_tile(job, &weights, &memory, NULL);
        char *block = aligned_alloc(LINE, bytes);
        failures += block == NULL;
        if (block) {
            memset(block, 0, bytes); /* pixels that are computed, but not used, are numbers */
            lay_out_tile(job, &weights, &memory, block);
        }
        pack_products(weights.products, job->weight, GATES, job->channels, TAPS * TAPS,
                      inputs_of(job), pairs);
#pragma omp barrier
#pragma omp for schedule(dynamic)
        for (long number = 0; number < job->images * job->bands * job->tiles; number++)
            if (block) {
                const Tile tile = tile_of(job, number, memory);
                compute_tile(job, &weights, &tile);
            }
        end_products(pairs);
        free(block);
    }
    free(packed);
    return failures;
}

static void compute_pairs(const Job *job, const Weights *weights, const Tile *tile)
{
    compute(job, weights, tile, PAIRS);
}

#ifdef HAS_TILES
static void compute_tiles(const Job *job, const Weights *weights, const Tile *tile)
{
    compute(job, weights, tile, TILES);
}
#endif

/* Inputs and results of `update_backward`, all of one type. */
typedef struct {
    const void *gates, *d_h, *d_c;
    void *d_gates, *d_last; /* d_last: NULL without a last c */
} Gradients;

INLINE void update_of_type(const Job *job, const void *gates, Type type)
{
    const long rows = job->images * job->height, size = type == BFLOAT16 ? 2 : 4;
#pragma omp parallel for
    for (long row = 0; row < rows; row++) {
        const long first = row * job->width;
        update_pixels(job, first, first + job->width,
                      (const char *)gates + first * GATES * job->channels * size, job->channels,
                      type);
    }
}

INLINE void gradients_of_type(const Job *job, const Gradients *gradients, Type type)
{
    const long pixels = job->images * job->height * job->width, channels = job->channels;
#pragma omp parallel for
    for (long pixel = 0; pixel < pixels; pixel++)
        for (long channel = 0; channel < channels; channel += LANES) {
            const long index = pixel * channels + channel, count = channels - channel;
            const long gates = pixel * GATES * channels + channel;
            vec x[GATES], d[GATES] = {0};
            read_gates(gradients->gates, gates, channels, count, type, x);
            const vec last = last_c(job, index, count);
            const vec h = hyperbolic_tangent(next_c(job, x, last));
            const vec d_h = load_some(gradients->d_h, index, count, type);
            const vec d_c = load_some(gradients->d_c, index, count, type) +
                            d_h * x[O] * (1.0f - h * h);
            d[I] = d_c * x[G] * x[I] * (1.0f - x[I]);
            if (job->c)
                d[F] = d_c * last * x[F] * (1.0f - x[F]);
            d[O] = d_h * h * x[O] * (1.0f - x[O]);
            d[G] = d_c * x[I] * (1.0f - x[G] * x[G]);
            for (long gate = 0; gate < GATES; gate++)
                store_some(gradients->d_gates, gates + gate * channels, count, d[gate], type);
            if (gradients->d_last)
                store_some(gradients->d_last, index, count, d_c * x[F], type);
        }
}

/* The new state from the gates, images x height x width x 4 channels. All arrays have the type
   `next_type`. */
void update(const Job *job, const void *gates)
{
    if (job->next_type == BFLOAT16)
        update_of_type(job, gates, BFLOAT16);
    else
        update_of_type(job, gates, FLOAT32);
}

/* The gradients of the gates and of the last c, from those of the new state. */
void update_backward(const Job *job, const Gradients *gradients)
{
    if (job->next_type == BFLOAT16)
        gradients_of_type(job, gradients, BFLOAT16);
    else
        gradients_of_type(job, gradients, FLOAT32);
}

int lstm(const Job *job)
{
#ifdef HAS_TILES
    if (tiles_allowed())
        return run(job, TILES, compute_tiles);
#endif
    return run(job, PAIRS, compute_pairs);
}
