/* 3x3 convolution with zero padding in float32, and its gradients, by Winograd's algorithm
   (Lavin and Gray, CVPR 2016): a tile of 4 x 4 results takes 36 multiplications for each pair of
   channels instead of 144.

   Pixels and weights are transformed to 6 x 6 points, and their products at the points to results.
   The points are 0, +-3/4, +-3/2 and infinity in either direction. Rounding errors are about half
   of those with the usual 0, +-1, +-2 and infinity, and two to four times those of a direct
   convolution. In its rounding, a result depends on every pixel of its tile, and a pixel that is
   infinite or not a number makes the tile not a number.

   Images are images x height x width x channels. Tiles are numbered through all images, and
   consecutive ones are a block. A thread transforms a block, multiplies it at each point with the
   weights of GROUP output channels, and transforms the products. All of it stays in the core's
   cache. */

#include <stdlib.h>

#include "vectors.h"

enum { TILE = 4, SIDE = TILE + 2, POINTS = SIDE * SIDE, TAPS = 9, OUTSIDE = -1, LINE = 64 };
enum { VECTORS = 2, GROUP = VECTORS * LANES, BLOCK = 48 /* tiles */, FEW = 2 /* blocks */ };
enum { ROWS = LANES == 16 ? 12 : 6, GRADIENT_ROWS = LANES == 16 ? 8 : 4 }; /* fit the registers */

#define A 0.75f /* the points are 0, A, -A, B, -B and infinity */
#define B 1.5f
/* One over the product of a point's distances to the others. */
#define WEIGHT_0 (1.0f / (A * A * B * B))
#define WEIGHT_A (0.5f / (A * A * (A * A - B * B)))
#define WEIGHT_B (0.5f / (B * B * (B * B - A * A)))

typedef struct {
    const float *x, *weight, *bias; /* weight: outputs x inputs x 3 x 3; bias: NULL for none */
    float *out;                     /* the result, or its gradient */
    float *d_weights;               /* chunks x outputs x inputs x 3 x 3: each chunk's sums */
    long images, height, width, inputs, outputs;
    long flipped;       /* weight is inputs x outputs x 3 x 3, and turned by 180 degrees */
    long parts, chunks; /* of the output channels, and for gradients of the tiles; a task has one */
} Job;

static long larger(long a, long b) { return a > b ? a : b; }
static long smaller(long a, long b) { return a < b ? a : b; }
static long divided(long count, long by) { return (count + by - 1) / by; }
static long padded(long channels) { return divided(channels, LANES) * LANES; }
static long groups_of(const Job *job) { return divided(job->outputs, GROUP); }
static long rows_of(const Job *job) { return divided(job->height, TILE); }
static long columns_of(const Job *job) { return divided(job->width, TILE); }
static long tiles_of(const Job *job) { return job->images * rows_of(job) * columns_of(job); }
static long blocks_of(const Job *job) { return divided(tiles_of(job), BLOCK); }
static long weights_of_group(const Job *job) { return POINTS * job->inputs * GROUP; }

/* Whether weights are transformed before the blocks. For a few blocks it is faster to transform
   those of a group anew, which stay in the cache, than to write and read those of all groups. */
static int is_shared(const Job *job) { return blocks_of(job) > FEW; }

/* A thread's. */
typedef struct {
    float *x, *products, *weights; /* at each point */
} Buffers;

/* Five transforms, in place. This one takes the coefficients of a polynomial, x[0] to x[3], to its
   values at the points. */
INLINE void evaluate(vec x[SIDE])
{
    const vec even_a = x[0] + A * A * x[2], odd_a = A * x[1] + A * A * A * x[3];
    const vec even_b = x[0] + B * B * x[2], odd_b = B * x[1] + B * B * B * x[3];
    x[5] = x[3];
    x[1] = even_a + odd_a;
    x[2] = even_a - odd_a;
    x[3] = even_b + odd_b;
    x[4] = even_b - odd_b;
}

/* The transpose of `evaluate`: products at the points to four results. */
INLINE void results(vec x[SIDE])
{
    const vec even_a = x[1] + x[2], odd_a = x[1] - x[2];
    const vec even_b = x[3] + x[4], odd_b = x[3] - x[4];
    x[0] = x[0] + even_a + even_b;
    x[1] = A * odd_a + B * odd_b;
    x[2] = A * A * even_a + B * B * even_b;
    x[3] = A * A * A * odd_a + B * B * B * odd_b + x[5];
}

/* Three weights to the values of their polynomial at the points, times WEIGHT_0, _A or _B. */
INLINE void evaluate_weights(vec x[SIDE])
{
    const vec even_a = WEIGHT_A * x[0] + A * A * WEIGHT_A * x[2], odd_a = A * WEIGHT_A * x[1];
    const vec even_b = WEIGHT_B * x[0] + B * B * WEIGHT_B * x[2], odd_b = B * WEIGHT_B * x[1];
    x[5] = x[2];
    x[0] = WEIGHT_0 * x[0];
    x[1] = even_a + odd_a;
    x[2] = even_a - odd_a;
    x[3] = even_b + odd_b;
    x[4] = even_b - odd_b;
}

/* The transpose of `evaluate_weights`. */
INLINE void weight_gradients(vec x[SIDE])
{
    const vec even_a = WEIGHT_A * (x[1] + x[2]), odd_a = WEIGHT_A * (x[1] - x[2]);
    const vec even_b = WEIGHT_B * (x[3] + x[4]), odd_b = WEIGHT_B * (x[3] - x[4]);
    x[0] = WEIGHT_0 * x[0] + even_a + even_b;
    x[1] = A * odd_a + B * odd_b;
    x[2] = A * A * even_a + B * B * even_b + x[5];
}

/* Six pixels to the points: the transpose of interpolation, but for WEIGHT_0, _A and _B. */
INLINE void transform_pixels(vec x[SIDE])
{
    const vec even_a = x[4] - B * B * x[2], odd_a = A * (x[3] - B * B * x[1]);
    const vec even_b = x[4] - A * A * x[2], odd_b = B * (x[3] - A * A * x[1]);
    x[0] = A * A * B * B * x[0] - (A * A + B * B) * x[2] + x[4];
    x[5] = A * A * B * B * x[1] - (A * A + B * B) * x[3] + x[5];
    x[1] = even_a + odd_a;
    x[2] = even_a - odd_a;
    x[3] = even_b + odd_b;
    x[4] = even_b - odd_b;
}

/* Transforms columns, and then rows, from `from` x `from` values to `to` x `to`. */
#define TRANSFORM(transform, values, from, to)                                                     \
    do {                                                                                           \
        _Pragma("GCC unroll 6") for (long column = 0; column < (from); column++) {                 \
            vec line[SIDE];                                                                        \
            for (long i = 0; i < (from); i++)                                                      \
                line[i] = values[i][column];                                                       \
            transform(line);                                                                       \
            for (long i = 0; i < (to); i++)                                                        \
                values[i][column] = line[i];                                                       \
        }                                                                                          \
        _Pragma("GCC unroll 6") for (long i = 0; i < (to); i++) transform(values[i]);              \
    } while (0)

/* Stores the values at the points, `step` apart. */
INLINE void store_points(float *to, long step, vec values[SIDE][SIDE])
{
    for (long i = 0; i < SIDE; i++)
        for (long j = 0; j < SIDE; j++)
            store(to + (i * SIDE + j) * step, values[i][j]);
}

INLINE void load_points(const float *from, long step, vec values[SIDE][SIDE])
{
    for (long i = 0; i < SIDE; i++)
        for (long j = 0; j < SIDE; j++)
            values[i][j] = load(from + (i * SIDE + j) * step);
}

/* Transforms the weights of a group of output channels, for one input channel after another. Points
   are `inputs` of them apart. */
static void transform_weights(const Job *job, long group, long first, long last, float *to)
{
    const long in_step = job->flipped ? job->outputs * TAPS : TAPS;
    const long out_step = job->flipped ? TAPS : job->inputs * TAPS;
    for (long input = first; input < last; input++)
        for (long v = 0; v < VECTORS; v++) {
            const long channel = group * GROUP + v * LANES, left = job->outputs - channel;
            const float *from = job->weight + input * in_step + channel * out_step;
            vec values[SIDE][SIDE];
            for (long tap = 0; tap < TAPS; tap++) {
                const long place = job->flipped ? TAPS - 1 - tap : tap;
                values[place / 3][place % 3] = gather(from + tap, out_step, left);
            }
            TRANSFORM(evaluate_weights, values, 3, SIDE);
            store_points(to + input * GROUP + v * LANES, job->inputs * GROUP, values);
        }
}

/* Finds the `side` x `side` pixels of a tile from `before` pixels above and left of it on: their
   indices in images with `channels`, or OUTSIDE. */
static void find_pixels(const Job *job, long tile, long before, long side, long channels,
                        long pixels[SIDE][SIDE])
{
    const long image = tile / columns_of(job) / rows_of(job);
    const long top = tile / columns_of(job) % rows_of(job) * TILE - before;
    const long left = tile % columns_of(job) * TILE - before;
    for (long y = top; y < top + side; y++)
        for (long x = left; x < left + side; x++) {
            const int inside = y >= 0 && y < job->height && x >= 0 && x < job->width;
            const long pixel = (image * job->height + y) * job->width + x;
            pixels[y - top][x - left] = inside ? pixel * channels : OUTSIDE;
        }
}

/* Reads channels of `side` x `side` pixels; outside of images they are zero. */
INLINE void read_pixels(const float *images, const long pixels[SIDE][SIDE], long side, long channel,
                        long count, vec values[SIDE][SIDE])
{
    static const float zeros[LANES];
    for (long i = 0; i < side; i++)
        for (long j = 0; j < side; j++) {
            const long at = pixels[i][j];
            const float *from = at == OUTSIDE ? zeros : images + at + channel;
            values[i][j] = load_some(from, 0, count, FLOAT32);
        }
}

/* Transforms x around a tile: at each point, the channels. Points are BLOCK tiles apart. */
static void read_x(const Job *job, long tile, float *to)
{
    const long channels = job->inputs, width = padded(channels);
    long pixels[SIDE][SIDE];
    find_pixels(job, tile, 1, SIDE, channels, pixels);
    for (long c = 0; c < channels; c += LANES) {
        vec values[SIDE][SIDE];
        read_pixels(job->x, pixels, SIDE, c, channels - c, values);
        TRANSFORM(transform_pixels, values, SIDE, SIDE);
        store_points(to + c, BLOCK * width, values);
    }
}

/* Transforms a group's channels of the result's gradient in a tile. */
static void read_gradient(const Job *job, long tile, long group, float *to)
{
    long pixels[SIDE][SIDE];
    find_pixels(job, tile, 0, TILE, job->outputs, pixels);
    for (long v = 0; v < VECTORS; v++) {
        const long channel = group * GROUP + v * LANES, left = job->outputs - channel;
        vec values[SIDE][SIDE];
        read_pixels(job->out, pixels, TILE, channel, larger(left, 0), values);
        TRANSFORM(evaluate, values, TILE, SIDE);
        store_points(to + v * LANES, BLOCK * GROUP, values);
    }
}

/* Transforms the products of a tile, and writes them to a group's channels of the result. */
static void write_results(const Job *job, long tile, long group, const float *products)
{
    long pixels[SIDE][SIDE];
    find_pixels(job, tile, 0, TILE, job->outputs, pixels);
    for (long v = 0; v < VECTORS; v++) {
        const long channel = group * GROUP + v * LANES, left = job->outputs - channel;
        if (left <= 0)
            return;
        const vec bias = job->bias ? load_some(job->bias, channel, left, FLOAT32) : all(0.0f);
        vec values[SIDE][SIDE];
        load_points(products + v * LANES, BLOCK * GROUP, values);
        TRANSFORM(results, values, SIDE, TILE);
        for (long i = 0; i < TILE; i++)
            for (long j = 0; j < TILE; j++)
                if (pixels[i][j] != OUTSIDE)
                    store_some(job->out, pixels[i][j] + channel, left, values[i][j] + bias,
                               FLOAT32);
    }
}

/* products = x * weights, for ROWS tiles at a point. */
INLINE void multiply(const float *x, long width, const float *weights, long inputs, float *products)
{
    vec sums[ROWS][VECTORS] = {0};
    for (long c = 0; c < inputs; c++) {
        vec factors[VECTORS];
        for (long v = 0; v < VECTORS; v++)
            factors[v] = keep(weights + c * GROUP + v * LANES);
#pragma GCC unroll 12
        for (long row = 0; row < ROWS; row++)
            for (long v = 0; v < VECTORS; v++)
                sums[row][v] += x[row * width + c] * factors[v];
    }
    for (long row = 0; row < ROWS; row++)
        for (long v = 0; v < VECTORS; v++)
            store(products + row * GROUP + v * LANES, sums[row][v]);
}

/* sums += x^T * gradient, for GRADIENT_ROWS input channels and `tiles` tiles at a point. */
INLINE void add_products(const float *x, long width, const float *gradient, long tiles, float *to)
{
    vec sums[GRADIENT_ROWS][VECTORS];
    for (long row = 0; row < GRADIENT_ROWS; row++)
        for (long v = 0; v < VECTORS; v++)
            sums[row][v] = load(to + row * GROUP + v * LANES);
    for (long tile = 0; tile < tiles; tile++) {
        vec factors[VECTORS];
        for (long v = 0; v < VECTORS; v++)
            factors[v] = keep(gradient + tile * GROUP + v * LANES);
#pragma GCC unroll 8
        for (long row = 0; row < GRADIENT_ROWS; row++)
            for (long v = 0; v < VECTORS; v++)
                sums[row][v] += x[tile * width + row] * factors[v];
    }
    for (long row = 0; row < GRADIENT_ROWS; row++)
        for (long v = 0; v < VECTORS; v++)
            store(to + row * GROUP + v * LANES, sums[row][v]);
}

static float *allocate(long count)
{
    return aligned_alloc(LINE, divided(count * sizeof(float), LINE) * LINE);
}

/* Computes a part of the groups for a block of tiles. */
static void convolve(const Job *job, long task, const Buffers *buffers)
{
    const long width = padded(job->inputs), part = task % job->parts, size = weights_of_group(job);
    const long first = task / job->parts * BLOCK;
    const long tiles = smaller(BLOCK, tiles_of(job) - first);
    for (long tile = 0; tile < tiles; tile++)
        read_x(job, first + tile, buffers->x + tile * width);
    for (long group = part * groups_of(job) / job->parts;
         group < (part + 1) * groups_of(job) / job->parts; group++) {
        float *weights = buffers->weights;
        if (is_shared(job))
            weights += group * size;
        else
            transform_weights(job, group, 0, job->inputs, weights);
        for (long point = 0; point < POINTS; point++)
            for (long tile = 0; tile < tiles; tile += ROWS)
                multiply(buffers->x + (point * BLOCK + tile) * width, width,
                         weights + point * job->inputs * GROUP, job->inputs,
                         buffers->products + (point * BLOCK + tile) * GROUP);
        for (long tile = 0; tile < tiles; tile++)
            write_results(job, first + tile, group, buffers->products + tile * GROUP);
    }
}

/* Returns the number of allocations that failed. */
int conv3x3(const Job *job)
{
    const long inputs = job->inputs, groups = groups_of(job), size = weights_of_group(job);
    float *shared = is_shared(job) ? allocate(groups * size) : NULL;
    int failures = 0;
#pragma omp parallel reduction(+ : failures)
    {
        const Buffers buffers = {.x = allocate(POINTS * BLOCK * padded(inputs)),
                                 .products = allocate(POINTS * BLOCK * GROUP),
                                 .weights = is_shared(job) ? shared : allocate(size)};
        const int ready = buffers.x && buffers.products && buffers.weights;
        failures += !ready;
#pragma omp for collapse(2)
        for (long group = 0; group < groups; group++)
            for (long input = 0; input < inputs; input++)
                if (shared)
                    transform_weights(job, group, input, input + 1, shared + group * size);
#pragma omp for schedule(dynamic)
        for (long task = 0; task < blocks_of(job) * job->parts; task++)
            if (ready)
                convolve(job, task, &buffers);
        free(buffers.x);
        free(buffers.products);
        if (buffers.weights != shared)
            free(buffers.weights);
    }
    free(shared);
    return failures;
}

/* Writes the gradients of a part of the groups' weights over a chunk of the tiles. */
static void add_weight_gradients(const Job *job, long task, float *x, float *gradient, float *sums)
{
    const long width = padded(job->inputs), groups = groups_of(job);
    const long part = task % job->parts, chunk = task / job->parts;
    const long from = part * groups / job->parts, to = (part + 1) * groups / job->parts;
    const long last = (chunk + 1) * tiles_of(job) / job->chunks;
    memset(sums, 0, (to - from) * POINTS * width * GROUP * sizeof(float));
    for (long first = chunk * tiles_of(job) / job->chunks; first < last; first += BLOCK) {
        const long tiles = smaller(BLOCK, last - first);
        for (long tile = 0; tile < tiles; tile++)
            read_x(job, first + tile, x + tile * width);
        for (long group = from; group < to; group++) {
            for (long tile = 0; tile < tiles; tile++)
                read_gradient(job, first + tile, group, gradient + tile * GROUP);
            for (long point = 0; point < POINTS; point++)
                for (long c = 0; c < job->inputs; c += GRADIENT_ROWS)
                    add_products(x + point * BLOCK * width + c, width,
                                 gradient + point * BLOCK * GROUP, tiles,
                                 sums + (((group - from) * POINTS + point) * width + c) * GROUP);
        }
    }
    for (long group = from; group < to; group++)
        for (long c = 0; c < job->inputs; c++)
            for (long v = 0; v < VECTORS; v++) {
                vec values[SIDE][SIDE];
                load_points(sums + ((group - from) * POINTS * width + c) * GROUP + v * LANES,
                            width * GROUP, values);
                TRANSFORM(weight_gradients, values, SIDE, 3);
                const long channel = group * GROUP + v * LANES, step = job->inputs * TAPS;
                float *to = job->d_weights + (chunk * job->outputs + channel) * step + c * TAPS;
                for (long tap = 0; tap < TAPS; tap++)
                    scatter(to + tap, step, job->outputs - channel, values[tap / 3][tap % 3]);
            }
}

/* Returns the number of allocations that failed. */
int conv3x3_weight_gradient(const Job *job)
{
    const long width = padded(job->inputs), groups = divided(groups_of(job), job->parts);
    int failures = 0;
#pragma omp parallel reduction(+ : failures)
    {
        float *pixels = allocate(POINTS * BLOCK * width);
        float *gradient = allocate(POINTS * BLOCK * GROUP);
        float *products = allocate(groups * POINTS * width * GROUP);
        const int ready = pixels && gradient && products;
        failures += !ready;
#pragma omp for schedule(dynamic)
        for (long task = 0; task < job->parts * job->chunks; task++)
            if (ready)
                add_weight_gradients(job, task, pixels, gradient, products);
        free(pixels);
        free(gradient);
        free(products);
    }
    return failures;
}

/* Output channels that are computed together. */
int conv3x3_group(void) { return GROUP; }
