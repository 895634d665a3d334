/* The three passes of a transformer block over images, without gradients.

   All begin alike: pixels are normalised over their channels, a 1x1 convolution leads to hidden
   channels, and a depthwise 3x3 convolution with zero padding follows. These hidden channels are

   - queries and keys, whose products and squares are summed over the pixels (GRAM),
   - or values, from which a 1x1 convolution leads back to the image's channels (VALUES),
   - or gates and values, of which gelu(gate) * value is led back likewise (GATES).

   What is led back is added to the image. Images are images x height x width x channels, float32 or
   bfloat16. With bfloat16 images, normalised pixels and hidden channels are rounded to bfloat16,
   and multiplied in pairs, if the processor can do so.

   A thread computes tiles: bands of rows, as wide as the core's cache allows. It goes down a tile
   by two rows at a time. The hidden channels of the last four rows stay in the cache (for pairs as
   words of two rows), and nothing but the results is written to memory. */

#include <stdlib.h>

#include "products.h"

typedef enum { GRAM, VALUES, GATES } Pass;
enum { COLUMNS = 4, ROWS = 2, TAPS = 9, PAIRED_TAPS = 12 };
enum { TOGETHER = 4 }; /* pixels that are normalised together */
enum { SPARE = MOST_PIXELS }; /* columns that are computed beyond a tile, and not used */

typedef struct {
    const void *x;
    void *out;                              /* not of GRAM */
    const float *norm_weight, *norm_bias;   /* the bias: NULL for a norm that does not centre */
    const float *point_weight, *point_bias; /* 1x1 convolution to hidden channels */
    const float *depth_weight, *depth_bias; /* 3x3 */
    const float *last_weight, *last_bias;   /* 1x1 convolution back; not of GRAM */
    float *sums;                            /* of each tile, of GRAM: see below */
    long images, height, width, channels;   /* of x */
    long top, bottom;                       /* rows to compute; the others are only read */
    long hidden, heads;                     /* hidden channels: gates, values, queries or keys */
    long bands, tiles;                      /* of an image's height and width */
    long last_weights;                      /* 1, or one matrix for every image */
    float epsilon;
} Job;

typedef struct {                     /* weights in the order in which they are multiplied */
    long parts, vectors, last_vectors; /* vectors of hidden channels, and of the result */
    long x_words, x_depth;             /* words of a pixel: in memory, and to multiply */
    long hidden_words, hidden_depth;
    long column_words; /* of two rows of hidden channels */
    float *is_channel, *norm_weight, *norm_bias, *point_bias, *depth, *last_bias;
    word *point, *last;
} Weights;

typedef struct {
    long image, top, bottom, left, right, columns; /* columns: with one more at either side */
    word *x, *ring[2], *middle; /* two rows; hidden channels of the two rows before, and of two */
    float *pixels, *sums;
} Tile;

INLINE vec gelu(vec x, int rough)
{
    vec density;
    return x * (rough ? rough_normal(x) : normal(x, &density));
}

/* Sums over the lanes of four vectors: the four sums, repeated in every four lanes. */
INLINE vec sums_of(const vec x[TOGETHER])
{
#ifdef HAS_AVX512
#define PICK(a, b, c, d)                                                                          \
    (ints){a,     b,     c,     d,     a + 4,  b + 4,  c + 4,  d + 4,                             \
           a + 8, b + 8, c + 8, d + 8, a + 12, b + 12, c + 12, d + 12}
    const ints turned[2] = {{4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3},
                            {8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7}};
#else
#define PICK(a, b, c, d) (ints){a, b, c, d, a + 4, b + 4, c + 4, d + 4}
    const ints turned[1] = {{4, 5, 6, 7, 0, 1, 2, 3}};
#endif
    const ints even = PICK(0, LANES, 2, LANES + 2), odd = PICK(1, LANES + 1, 3, LANES + 3);
    const ints low = PICK(0, 1, LANES, LANES + 1), high = PICK(2, 3, LANES + 2, LANES + 3);
    const vec a = __builtin_shuffle(x[0], x[1], even) + __builtin_shuffle(x[0], x[1], odd);
    const vec b = __builtin_shuffle(x[2], x[3], even) + __builtin_shuffle(x[2], x[3], odd);
    vec sums = __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
    for (int i = 0; i < LANES / 8; i++)
        sums += __builtin_shuffle(sums, turned[i]);
    return sums;
}

/* Normalises four pixels, which begin at the indices of x. */
INLINE void normalise(const Job *job, const Weights *weights, const Tile *tile,
                      const long index[TOGETHER], word *const to[TOGETHER], Type type, int pairs)
{
    const long channels = job->channels, padded = up_to_multiple(channels, LANES);
    vec sums[TOGETHER], squares[TOGETHER];
#pragma GCC unroll 4
    for (int p = 0; p < TOGETHER; p++) {
        float *values = tile->pixels + p * padded;
        sums[p] = (vec){0};
        for (long c = 0; c < channels; c += LANES) {
            const vec x = load_some(job->x, index[p] + c, channels - c, type);
            store(values + c, x);
            sums[p] += x;
        }
    }
    const vec means = sums_of(sums) / (float)channels;
#pragma GCC unroll 4
    for (int p = 0; p < TOGETHER; p++) {
        const float *values = tile->pixels + p * padded;
        squares[p] = (vec){0};
        for (long c = 0; c < channels; c += LANES) {
            const vec centred = (load(values + c) - means[p]) * load(weights->is_channel + c);
            squares[p] += centred * centred;
        }
    }
    const vec variances = sums_of(squares) / (float)channels + job->epsilon;
    float scales[TOGETHER];
    for (int p = 0; p < TOGETHER; p++)
        scales[p] = 1.0f / __builtin_sqrtf(variances[p]);
#pragma GCC unroll 4
    for (int p = 0; p < TOGETHER; p++) {
        const float *values = tile->pixels + p * padded;
        const float shift = job->norm_bias ? means[p] : 0.0f;
        for (long c = 0; c < channels; c += LANES) {
            const vec x = (load(values + c) - shift) * scales[p];
            const vec result = x * load(weights->norm_weight + c) + load(weights->norm_bias + c);
            store_channels(to[p], c, result, pairs);
        }
    }
}

/* Normalises two rows of a tile, with a column more at either side. */
INLINE void normalise_rows(const Job *job, const Weights *weights, const Tile *tile, long row,
                           Type type, int pairs)
{
    const long first = larger(0, tile->left - 1), last = smaller(job->width, tile->right + 1);
    for (long r = 0; r < ROWS; r++) {
        if (row + r < 0 || row + r >= job->height)
            continue;
        const long start = (tile->image * job->height + row + r) * job->width;
        for (long column = first; column < last; column += TOGETHER) {
            long index[TOGETHER];
            word *to[TOGETHER];
            for (long p = 0; p < TOGETHER; p++) { /* beyond the last column, the last one again */
                const long at = smaller(column + p, last - 1);
                index[p] = (start + at) * job->channels;
                to[p] = tile->x + ((at - tile->left + 1) * ROWS + r) * weights->x_words;
            }
            normalise(job, weights, tile, index, to, type, pairs);
        }
    }
}

/* Computes some vectors of the hidden channels of two rows; those of rows not to `keep` are 0. */
INLINE void expand(int vectors, const Weights *weights, const Tile *tile, word *ring, long first,
                   const ints keep[ROWS], int pairs)
{
    const int pixels = pixels_of(vectors, pairs);
    const word *point = weights->point + first * LANES * weights->x_depth;
    for (long column = 0; column < tile->columns; column += pixels / ROWS) {
        vec sums[MOST_PIXELS][WIDEST];
        begin_sums(sums, pixels, vectors, weights->point_bias + first * LANES);
        add_products(sums, pixels, vectors, tile->x + column * ROWS * weights->x_words,
                     weights->x_words, 1, point, vectors * LANES, weights->x_depth, pairs);
        word *to = ring + column * weights->column_words + first * LANES;
#pragma GCC unroll 16
        for (int p = 0; p < pixels; p += ROWS)
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) {
                const vec upper = (vec)((ints)sums[p][v] & keep[0]);
                const vec lower = (vec)((ints)sums[p + 1][v] & keep[1]);
                word *at = to + p / ROWS * weights->column_words + v * LANES;
                if (pairs) {
                    store_words(at, pairs_of(upper, lower));
                } else {
                    store_words(at, upper);
                    store_words(at + weights->vectors * LANES, lower);
                }
            }
    }
}

INLINE void expand_rows(const Job *job, const Weights *weights, const Tile *tile, word *ring,
                        long row, int pairs)
{
    ints keep[ROWS];
    for (long r = 0; r < ROWS; r++)
        keep[r] = (ints){0} - (row + r >= 0 && row + r < job->height);
    begin_products(weights->x_depth, pairs);
    for (long first = 0; first < weights->vectors;) {
        const int vectors = vectors_of(weights->vectors - first);
        WITH_VECTORS(vectors, expand, weights, tile, ring, first, keep, pairs);
        first += vectors;
    }
    const long bytes = weights->column_words * sizeof(word);
    if (tile->left == 0)
        memset(ring, 0, bytes);
    if (tile->right == job->width)
        memset(ring + (tile->columns - 1) * weights->column_words, 0, bytes);
}

/* Convolves a vector of channels of two rows, at COLUMNS columns. Words of two rows reach both
   results: those of the upper pair of rows, then those of the lower pair. */
INLINE void convolve_pairs(const Weights *weights, const Tile *tile, const float *taps,
                           long vector, long column, vec results[ROWS][COLUMNS])
{
#pragma GCC unroll 2
    for (int pair = 0; pair < 2; pair++) {
        const word *from = tile->ring[pair] + column * weights->column_words + vector * LANES;
#pragma GCC unroll 6
        for (int c = 0; c < COLUMNS + 2; c++) {
            const vec x = load_words(from + c * weights->column_words);
#pragma GCC unroll 3
            for (int j = 0; j < 3; j++)
#pragma GCC unroll 2
                for (int r = 0; r < ROWS; r++)
                    if (c - j >= 0 && c - j < COLUMNS)
                        results[r][c - j] =
                            add_product(results[r][c - j],
                                        load(taps + ((pair * ROWS + r) * 3 + j) * LANES), x, 1);
        }
    }
}

INLINE void convolve_floats(const Weights *weights, const Tile *tile, const float *taps,
                            long vector, long column, vec results[ROWS][COLUMNS])
{
#pragma GCC unroll 4
    for (int row = 0; row < ROWS + 2; row++) {
        const word *from = tile->ring[row / 2] + column * weights->column_words +
                           (row % 2 * weights->vectors + vector) * LANES;
#pragma GCC unroll 6
        for (int c = 0; c < COLUMNS + 2; c++) {
            const vec x = load_words(from + c * weights->column_words);
#pragma GCC unroll 3
            for (int j = 0; j < 3; j++)
#pragma GCC unroll 2
                for (int r = 0; r < ROWS; r++)
                    if (row - r >= 0 && row - r < 3 && c - j >= 0 && c - j < COLUMNS)
                        results[r][c - j] += load(taps + ((row - r) * 3 + j) * LANES) * x;
        }
    }
}

INLINE void convolve(const Weights *weights, const Tile *tile, long vector, long column,
                     vec results[ROWS][COLUMNS], int pairs)
{
    const long count = pairs ? PAIRED_TAPS : TAPS;
    const float *taps = weights->depth + vector * (count + 1) * LANES;
    const vec bias = load(taps + count * LANES);
    for (int k = 0; k < COLUMNS; k++)
        results[0][k] = results[1][k] = bias;
    if (pairs)
        convolve_pairs(weights, tile, taps, vector, column, results);
    else
        convolve_floats(weights, tile, taps, vector, column, results);
}

/* A tile's sums: for every head, the products of each query and of all keys, in whole vectors; then
   the squares of queries and keys, each in whole vectors. */

INLINE long head_vectors(const Job *job)
{
    return up_to_multiple(job->hidden / job->heads, LANES) / LANES;
}

INLINE long sums_of_tile(const Job *job, const Weights *weights)
{
    return (job->hidden * head_vectors(job) + weights->vectors) * LANES;
}

INLINE float *squares_of(const Job *job, const Tile *tile)
{
    return tile->sums + job->hidden * head_vectors(job) * LANES;
}

/* Factors of the sums over pixels: words of both rows or, without pairs, a word of each. For TILES
   the words of a query are contiguous, and those of keys follow. */
typedef struct {
    word *queries, *keys;
    long query_step, key_step; /* from word to word */
    long query_row;            /* from query to query */
} Factors;

INLINE Factors factors_of(const Weights *weights, const Tile *tile, int pairs)
{
    const long half = weights->vectors * LANES / 2, columns = tile->columns + SPARE;
    if (pairs > PAIRS)
        return (Factors){tile->middle, tile->middle + half * columns, 1, half, columns};
    return (Factors){tile->middle, tile->middle + half, 2 * half, 2 * half, 1};
}

/* Writes LANES queries or keys (a vector) at COLUMNS columns; returns the sums of their squares over
   the columns before `width`. */
INLINE vec write_factors(const Weights *weights, const Tile *tile, long vector, long column,
                         long width, vec results[ROWS][COLUMNS], int pairs)
{
    const Factors factors = factors_of(weights, tile, pairs);
    const long queries = weights->vectors / 2, within = vector % queries * LANES;
    vec words[COLUMNS] = {0}, squares = {0};
    for (int k = 0; k < COLUMNS && column + k < width; k++) {
        const vec upper = results[0][k], lower = results[1][k];
        words[k] = pairs ? pairs_of(upper, lower) : upper;
        squares = add_product(squares, words[k], words[k], pairs);
        if (!pairs)
            squares += lower * lower;
    }
    if (pairs > PAIRS && vector < queries) {
        store_transposed(factors.queries + within * factors.query_row + column, factors.query_row,
                         words);
        return squares;
    }
    word *to = (vector < queries ? factors.queries : factors.keys) + within;
    for (int k = 0; k < COLUMNS && column + k < width; k++) {
        word *at = to + (column + k) * (pairs ? 1 : ROWS) * factors.key_step;
        store_words(at, words[k]);
        if (!pairs)
            store_words(at + factors.key_step, results[1][k]);
    }
    return squares;
}

/* Convolves two rows and writes the factors of the next product: channels of pixels or, for sums
   over pixels, queries and keys. */
INLINE void convolve_rows(const Job *job, const Weights *weights, const Tile *tile, long row,
                          Pass pass, int pairs)
{
    const long width = tile->right - tile->left, words = weights->hidden_words;
    const long vectors = pass == GATES ? weights->vectors / 2 : weights->vectors;
    for (long v = 0; v < vectors; v++) {
        vec squares = {0};
        for (long column = 0; column < width; column += COLUMNS) {
            vec results[ROWS][COLUMNS], values[ROWS][COLUMNS];
            convolve(weights, tile, v, column, results, pairs);
            if (pass == GATES) {
                convolve(weights, tile, vectors + v, column, values, pairs);
                for (int r = 0; r < ROWS; r++)
                    for (int k = 0; k < COLUMNS; k++)
                        results[r][k] = gelu(results[r][k], pairs) * values[r][k];
            }
            if (pass == GRAM) {
                for (int k = 0; k < COLUMNS && row + 1 >= tile->bottom; k++)
                    results[1][k] = (vec){0};
                squares += write_factors(weights, tile, v, column, width, results, pairs);
                continue;
            }
            for (int k = 0; k < COLUMNS && column + k < width; k++) {
                word *to = tile->middle + (column + k) * ROWS * words;
                store_channels(to, v * LANES, results[0][k], pairs);
                store_channels(to + words, v * LANES, results[1][k], pairs);
            }
        }
        if (pass == GRAM) {
            float *sums = squares_of(job, tile) + v * LANES;
            store(sums, load(sums) + squares);
        }
    }
}

/* Computes some vectors of the result of two rows. */
INLINE void reduce(int vectors, const Job *job, const Weights *weights, const Tile *tile, long row,
                   long first, Type type, int pairs)
{
    const int pixels = pixels_of(vectors, pairs);
    const long channels = job->channels, width = tile->right - tile->left;
    const long matrix = job->last_weights > 1 ? tile->image : 0;
    const word *last =
        weights->last + (matrix * weights->last_vectors + first) * LANES * weights->hidden_depth;
    const long start = (tile->image * job->height + row) * job->width + tile->left;
    for (long column = 0; column < width; column += pixels / ROWS) {
        vec sums[MOST_PIXELS][WIDEST];
        begin_sums(sums, pixels, vectors, weights->last_bias + first * LANES);
        add_products(sums, pixels, vectors, tile->middle + column * ROWS * weights->hidden_words,
                     weights->hidden_words, 1, last, vectors * LANES, weights->hidden_depth,
                     pairs);
#pragma GCC unroll 16
        for (int p = 0; p < pixels; p++) {
            if (column + p / ROWS >= width || row + p % ROWS >= tile->bottom)
                continue;
            const long pixel = start + p % ROWS * job->width + column + p / ROWS;
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) {
                const long channel = (first + v) * LANES, index = pixel * channels + channel;
                const vec x = load_some(job->x, index, channels - channel, type);
                store_some(job->out, index, channels - channel, x + sums[p][v], type);
            }
        }
    }
}

INLINE void reduce_rows(const Job *job, const Weights *weights, const Tile *tile, long row,
                        Type type, int pairs)
{
    begin_products(weights->hidden_depth, pairs);
    for (long first = 0; first < weights->last_vectors;) {
        const int vectors = vectors_of(weights->last_vectors - first);
        WITH_VECTORS(vectors, reduce, job, weights, tile, row, first, type, pairs);
        first += vectors;
    }
}

/* Adds the products of a head's queries and of some vectors of its keys, over two rows. */
INLINE void multiply_head(int vectors, const Job *job, const Weights *weights, const Tile *tile,
                          long head, long first, long depth, int pairs)
{
    const int queries = pixels_of(vectors, pairs);
    const long channels = job->hidden / job->heads;
    const Factors factors = factors_of(weights, tile, pairs);
    const word *q = factors.queries + head * channels * factors.query_row;
    const word *k = factors.keys + head * channels + first * LANES;
    for (long query = 0; query < channels; query += queries) {
        vec sums[MOST_PIXELS][WIDEST];
        begin_sums(sums, queries, vectors, NULL);
        add_products(sums, queries, vectors, q + query * factors.query_row, factors.query_row,
                     factors.query_step, k, factors.key_step, depth, pairs);
#pragma GCC unroll 16
        for (int p = 0; p < queries; p++) {
            if (query + p >= channels)
                break;
            float *to = tile->sums +
                        ((head * channels + query + p) * head_vectors(job) + first) * LANES;
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                store(to + v * LANES, load(to + v * LANES) + sums[p][v]);
        }
    }
}

INLINE void multiply_rows(const Job *job, const Weights *weights, const Tile *tile, int pairs)
{
    const long depth = (tile->right - tile->left) * (pairs ? 1 : ROWS);
    begin_products(depth, pairs);
    for (long head = 0; head < job->heads; head++)
        for (long first = 0; first < head_vectors(job);) {
            const int vectors = vectors_of(head_vectors(job) - first);
            WITH_VECTORS(vectors, multiply_head, job, weights, tile, head, first, depth, pairs);
            first += vectors;
        }
}

INLINE void compute(const Job *job, const Weights *weights, Tile *tile, Pass pass, Type type,
                    int pairs)
{
    for (long row = tile->top - 1; row <= tile->bottom; row += ROWS) {
        word *ring = tile->ring[0];
        tile->ring[0] = tile->ring[1];
        tile->ring[1] = ring;
        normalise_rows(job, weights, tile, row, type, pairs);
        expand_rows(job, weights, tile, ring, row, pairs);
        if (row < tile->top)
            continue;
        convolve_rows(job, weights, tile, row - 1, pass, pairs);
        if (pass == GRAM)
            multiply_rows(job, weights, tile, pairs);
        else
            reduce_rows(job, weights, tile, row - 1, type, pairs);
    }
}

/* Depthwise weights: for every vector of channels its taps, then its bias. Paired taps are words:
   by pairs of rows, results and columns, the weights of the pair's two rows, or 0. */
static void pack_depthwise(float *to, const float *weights, const float *bias, long parts,
                           long part, int pairs)
{
    const long padded = up_to_multiple(part, LANES), count = pairs ? PAIRED_TAPS : TAPS;
    for (long i = 0; i < parts * padded; i++) {
        float *taps = to + i / LANES * (count + 1) * LANES + i % LANES;
        const long channel = i / padded * part + i % padded;
        const int exists = i % padded < part;
        for (long tap = 0; tap < count; tap++) {
            float values[2] = {0};
            if (exists && !pairs)
                values[0] = weights[channel * TAPS + tap];
            for (long r = 0; exists && pairs && r < ROWS; r++) {
                const long row = tap / 6 * ROWS + r - tap / 3 % ROWS;
                if (row >= 0 && row < 3)
                    values[r] = weights[channel * TAPS + row * 3 + tap % 3];
            }
            const word packed = word_of(values, 2, pairs);
            memcpy(taps + tap * LANES, &packed, sizeof packed);
        }
        taps[count * LANES] = exists && bias ? bias[channel] : 0.0f;
    }
}

static long lay_out_weights(const Job *job, Weights *weights, char *block, Pass pass, int pairs)
{
    const long group = pairs ? 2 : 1, channels = up_to_multiple(job->channels, LANES);
    const long hidden = up_to_multiple(job->hidden, LANES);
    long used = 0;
    weights->parts = pass == VALUES ? 1 : 2;
    weights->vectors = weights->parts * hidden / LANES;
    weights->last_vectors = pass == GRAM ? 0 : channels / LANES;
    weights->x_words = channels / group;
    weights->x_depth = (job->channels + group - 1) / group;
    weights->hidden_words = pass == GRAM ? weights->vectors * LANES : hidden / group;
    weights->hidden_depth = (job->hidden + group - 1) / group;
    weights->column_words = weights->vectors * LANES * ROWS / group;
    weights->is_channel = take(block, &used, channels);
    weights->norm_weight = take(block, &used, channels);
    weights->norm_bias = take(block, &used, channels);
    weights->point_bias = take(block, &used, weights->vectors * LANES);
    weights->last_bias = take(block, &used, channels);
    weights->depth = take(block, &used, weights->vectors * (PAIRED_TAPS + 1) * LANES);
    weights->point = take(block, &used, weights->vectors * LANES * weights->x_depth);
    weights->last = take(block, &used, job->last_weights * channels * weights->hidden_depth);
    return used;
}

static void pack_small_weights(const Job *job, const Weights *weights, int pairs)
{
    for (long c = 0; c < up_to_multiple(job->channels, LANES); c++)
        weights->is_channel[c] = c < job->channels;
    pack_channels(weights->norm_weight, job->norm_weight, 1, job->channels);
    pack_channels(weights->norm_bias, job->norm_bias, 1, job->channels);
    pack_channels(weights->point_bias, job->point_bias, weights->parts, job->hidden);
    pack_channels(weights->last_bias, job->last_bias, 1, job->channels);
    pack_depthwise(weights->depth, job->depth_weight, job->depth_bias, weights->parts, job->hidden,
                   pairs);
}

static void pack_matrices(const Job *job, const Weights *weights, Pass pass, int pairs)
{
    const long size = job->channels * job->hidden;
    const long packed_size = weights->last_vectors * LANES * weights->hidden_depth;
    pack_products(weights->point, job->point_weight, weights->parts, job->hidden, 1,
                  job->channels, pairs);
    for (long i = 0; i < job->last_weights && pass != GRAM; i++)
        pack_products(weights->last + i * packed_size, job->last_weight + i * size, 1,
                      job->channels, 1, job->hidden, pairs);
}

static long lay_out_tile(const Job *job, const Weights *weights, Tile *tile, char *block)
{
    const long columns = (job->width + job->tiles - 1) / job->tiles + 2 + SPARE;
    long used = 0;
    tile->x = take(block, &used, columns * ROWS * weights->x_words);
    for (long i = 0; i < 2; i++)
        tile->ring[i] = take(block, &used, columns * weights->column_words);
    tile->middle = take(block, &used, columns * ROWS * weights->hidden_words);
    tile->pixels = take(block, &used, TOGETHER * up_to_multiple(job->channels, LANES));
    return used;
}

static Tile tile_of(const Job *job, const Weights *weights, long number, Tile tile)
{
    const long column = number % job->tiles, band = number / job->tiles % job->bands;
    const long rows = job->bottom - job->top;
    tile.image = number / job->tiles / job->bands;
    tile.top = job->top + band * rows / job->bands;
    tile.bottom = job->top + (band + 1) * rows / job->bands;
    tile.left = column * job->width / job->tiles;
    tile.right = (column + 1) * job->width / job->tiles;
    tile.columns = tile.right - tile.left + 2;
    tile.sums = job->sums + number * sums_of_tile(job, weights);
    return tile;
}

typedef void Compute(const Job *job, const Weights *weights, Tile *tile);

/* Returns the number of allocations that failed. `compute_tile` is a function of its own, as in the
   parallel region the compiler takes arguments for variables. */
static int run(const Job *job, Pass pass, int pairs, Compute *compute_tile)
{
    Weights weights;
    int failures = 0;
    char *packed = aligned_alloc(LINE, lay_out_weights(job, &weights, NULL, pass, pairs));
    if (!packed)
        return 1;
    lay_out_weights(job, &weights, packed, pass, pairs);
    pack_small_weights(job, &weights, pairs);
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
        pack_matrices(job, &weights, pass, pairs);
#pragma omp barrier
#pragma omp for schedule(dynamic)
        for (long number = 0; number < job->images * job->bands * job->tiles; number++)
            if (block) {
                Tile tile = tile_of(job, &weights, number, memory);
                compute_tile(job, &weights, &tile);
            }
        end_products(pairs);
        free(block);
    }
    free(packed);
    return failures;
}

const int lanes = LANES;

#define COMPUTE(name, pass, type, pairs)                                                          \
    static void name(const Job *job, const Weights *weights, Tile *tile)                          \
    {                                                                                             \
        compute(job, weights, tile, pass, type, pairs);                                           \
    }

#ifdef HAS_TILES
#define BFLOAT16_PASS(name, pass)                                                                 \
    COMPUTE(compute_##name##_pairs, pass, BFLOAT16, PAIRS)                                        \
    COMPUTE(compute_##name##_tiles, pass, BFLOAT16, TILES)                                        \
    int name##_bfloat16(const Job *job)                                                           \
    {                                                                                             \
        return tiles_allowed() ? run(job, pass, TILES, compute_##name##_tiles)                    \
                               : run(job, pass, PAIRS, compute_##name##_pairs);                   \
    }
#else
#define BFLOAT16_PASS(name, pass)                                                                 \
    COMPUTE(compute_##name##_pairs, pass, BFLOAT16, PAIRS)                                        \
    int name##_bfloat16(const Job *job) { return run(job, pass, PAIRS, compute_##name##_pairs); }
#endif

#define PASS(name, pass)                                                                          \
    BFLOAT16_PASS(name, pass)                                                                     \
    COMPUTE(compute_##name##_floats, pass, FLOAT32, 0)                                            \
    int name##_float32(const Job *job) { return run(job, pass, 0, compute_##name##_floats); }

PASS(gram_sums, GRAM)
PASS(add_values, VALUES)
PASS(add_gates, GATES)
