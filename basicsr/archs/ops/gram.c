/* Sums over pixels of products of channels, and their gradients.

   q and k are images x pixels x channels, float32 or bfloat16; sums and their gradients are float32.
   The channels of each head are multiplied with each other. Heads and parts of an image's pixels are
   distributed over threads, which copy CHUNK pixels of one head at a time into the cache.

   With `pairs`, bfloat16 values are multiplied as such: for the sums those of two pixels, and for
   the gradients those of two channels, with gradients of sums rounded to bfloat16. */

#include <stdlib.h>

#include "products.h"

enum { CHUNK = 64, ROWS = 8, VECTORS = 2, COLUMNS = VECTORS * LANES };

typedef struct {
    const void *q, *k;
    long images, pixels, channels, heads, parts;
    Type type;
} Job;

static long head_width(const Job *job) { return job->channels / job->heads; }

/* Channels of a head, with room for whole blocks of COLUMNS. */
static long padded_width(const Job *job) { return (head_width(job) + COLUMNS - 1) / COLUMNS * COLUMNS; }

/* results += sum over t < depth of a[r * a_row + t * a_step] * b[t * b_step + column], for ROWS
   rows r and COLUMNS columns. */
INLINE void multiply(const word *a, long a_row, long a_step, const word *b, long b_step,
                     long depth, float *results, long results_step, int pairs)
{
    vec sums[MOST_PIXELS][WIDEST]; /* of a chunk alone, which is more exact than one long sum */
    begin_sums(sums, ROWS, VECTORS, NULL);
    add_products(sums, ROWS, VECTORS, a, a_row, a_step, b, b_step, depth, pairs);
    for (long r = 0; r < ROWS; r++)
        for (long v = 0; v < VECTORS; v++) {
            float *to = results + r * results_step + v * LANES;
            store(to, load(to) + sums[r][v]);
        }
}

/* Index of a pixel's channels of a head. */
static long start_of(const Job *job, long image, long head, long pixel)
{
    return (image * job->pixels + pixel) * job->channels + head * head_width(job);
}

/* Copies pixels as rows of words, of one pixel or of two. Returns the number of rows. */
INLINE long read_pixels(const Job *job, const void *from, long start, long count, word *to,
                        int pairs)
{
    const long width = head_width(job), padded = padded_width(job), next = job->channels;
    const long together = pairs ? 2 : 1, rows = (count + together - 1) / together;
    for (long row = 0; row < rows; row++)
        for (long i = 0; i < width; i += LANES) {
            const long at = start + row * together * next + i;
            vec x = load_some(from, at, width - i, job->type);
            if (pairs)
                x = pairs_of(x, row * 2 + 1 < count
                                    ? load_some(from, at + next, width - i, job->type)
                                    : all(0.0f));
            store_words(to + row * padded + i, x);
        }
    return rows;
}

/* Copies pixels with words of one channel or of two. */
INLINE void read_channels(const Job *job, const void *from, long start, long count, word *to,
                          int pairs)
{
    const long width = head_width(job), padded = padded_width(job);
    for (long pixel = 0; pixel < count; pixel++)
        for (long i = 0; i < width; i += LANES)
            store_channels(to + pixel * padded, i,
                           load_some(from, start + pixel * job->channels + i, width - i, job->type),
                           pairs);
}

INLINE void add_squares(const word *pixels, long rows, long padded, float *squares, int pairs)
{
    for (long i = 0; i < padded; i += LANES) {
        vec sum = {0};
        for (long row = 0; row < rows; row++) {
            const vec x = load_words(pixels + row * padded + i);
            sum = add_product(sum, x, x, pairs);
        }
        store(squares + i, load(squares + i) + sum);
    }
}

/* Sums of one part of an image's pixels: (products, squares of q, squares of k) of a head. */
INLINE void sum_part(const Job *job, long image, long head, long part, word *work, float *sums,
                     int pairs)
{
    const long width = head_width(job), padded = padded_width(job);
    const long last = (part + 1) * job->pixels / job->parts;
    word *q = work, *k = q + CHUNK * padded;
    float *products = (float *)(k + CHUNK * padded), *squares = products + padded * padded;
    memset(products, 0, (padded * padded + 2 * padded) * sizeof(float));
    for (long pixel = part * job->pixels / job->parts; pixel < last; pixel += CHUNK) {
        const long count = smaller(last - pixel, CHUNK);
        const long start = start_of(job, image, head, pixel);
        const long rows = read_pixels(job, job->q, start, count, q, pairs);
        read_pixels(job, job->k, start, count, k, pairs);
        add_squares(q, rows, padded, squares, pairs);
        add_squares(k, rows, padded, squares + padded, pairs);
        for (long i = 0; i < width; i += ROWS)
            for (long j = 0; j < width; j += COLUMNS)
                multiply(q + i, 1, padded, k + j, padded, rows, products + i * padded + j, padded,
                         pairs);
    }
    for (long row = 0; row < width; row++)
        memcpy(sums + row * width, products + row * padded, width * sizeof(float));
    for (long i = 0; i < 2; i++)
        memcpy(sums + (width + i) * width, squares + i * padded, width * sizeof(float));
}

/* Packs the rows of a matrix as words of one row or of two: row i, column j is at i * row + j *
   column. */
INLINE void pack(const float *matrix, long row, long column, long width, long padded, word *to,
                 int pairs)
{
    const long together = pairs ? 2 : 1;
    for (long i = 0; i < width; i += together)
        for (long j = 0; j < width; j++) {
            const float *at = matrix + i * row + j * column;
            const float values[2] = {at[0], pairs && i + 1 < width ? at[row] : 0.0f};
            to[i / together * padded + j] = word_of(values, 2, pairs);
        }
}

/* Gradient of x of a chunk: other @ factors + 2 * x * d_squares. */
INLINE void write_chunk(const Job *job, const void *x, const word *other, const word *factors,
                        const float *d_squares, float *results, void *to, long start, long count,
                        int pairs)
{
    const long width = head_width(job), padded = padded_width(job);
    const long depth = pairs ? (width + 1) / 2 : width;
    memset(results, 0, CHUNK * padded * sizeof(float));
    for (long pixel = 0; pixel < count; pixel += ROWS)
        for (long j = 0; j < width; j += COLUMNS)
            multiply(other + pixel * padded, padded, 1, factors + j, padded, depth,
                     results + pixel * padded + j, padded, pairs);
    for (long pixel = 0; pixel < count; pixel++)
        for (long i = 0; i < width; i += LANES) {
            const long at = start + pixel * job->channels + i;
            const vec own = load_some(x, at, width - i, job->type);
            store_some(to, at, width - i,
                       load(results + pixel * padded + i) + 2.0f * own * load(d_squares + i),
                       job->type);
        }
}

INLINE void gradients_of_part(const Job *job, long image, long head, long part,
                              const float *d_sums, word *work, void *dq, void *dk, int pairs)
{
    const long width = head_width(job), padded = padded_width(job);
    const long last = (part + 1) * job->pixels / job->parts;
    word *q = work, *k = q + CHUNK * padded, *of_q = k + CHUNK * padded;
    word *of_k = of_q + padded * padded;
    float *squares = (float *)(of_k + padded * padded), *results = squares + 2 * padded;
    pack(d_sums, 1, width, width, padded, of_q, pairs);
    pack(d_sums, width, 1, width, padded, of_k, pairs);
    for (long i = 0; i < 2; i++)
        memcpy(squares + i * padded, d_sums + (width + i) * width, width * sizeof(float));
    for (long pixel = part * job->pixels / job->parts; pixel < last; pixel += CHUNK) {
        const long count = smaller(last - pixel, CHUNK);
        const long start = start_of(job, image, head, pixel);
        read_channels(job, job->q, start, count, q, pairs);
        read_channels(job, job->k, start, count, k, pairs);
        write_chunk(job, job->q, k, of_q, squares, results, dq, start, count, pairs);
        write_chunk(job, job->k, q, of_k, squares + padded, results, dk, start, count, pairs);
    }
}

/* Where `sums` are, and the gradients; see `gram`. */
typedef struct {
    float *sums;
    void *dq, *dk;
} Results;

INLINE void compute(const Job *job, const Results *results, long number, word *work, int pairs)
{
    const long part = number % job->parts, head = number / job->parts % job->heads;
    const long image = number / job->parts / job->heads;
    const long size = (head_width(job) + 2) * head_width(job);
    if (results->dq)
        gradients_of_part(job, image, head, part, results->sums + number / job->parts * size, work,
                          results->dq, results->dk, pairs);
    else
        sum_part(job, image, head, part, work, results->sums + number * size, pairs);
}

static void compute_values(const Job *job, const Results *results, long number, word *work)
{
    compute(job, results, number, work, 0);
}

static void compute_pairs(const Job *job, const Results *results, long number, word *work)
{
    compute(job, results, number, work, PAIRS);
}

/* `sums`, images x heads x parts x (c + 2) x c for the c channels of a head: the products of
   channels of q and k, and the squares of q and of k, of each part of the pixels. With `dq`, `sums`
   are the gradients of the whole images' sums, images x heads x (c + 2) x c, and the gradients of q
   and k are computed. Returns the number of threads that could not allocate their memory. */
int gram(const void *q, const void *k, float *sums, void *dq, void *dk, long images, long pixels,
         long channels, long heads, long parts, long type)
{
    const Job job = {q, k, images, pixels, channels, heads, parts, type};
    const Results results = {sums, dq, dk};
    const long padded = padded_width(&job);
    int failures = 0;
#pragma omp parallel reduction(+ : failures)
    {
        word *work = calloc((3 * CHUNK + 2 * padded + 2) * padded, sizeof(word));
        failures += work == NULL;
#pragma omp for
        for (long number = 0; number < images * heads * parts; number++)
            if (work)
                (type == BFLOAT16 ? compute_pairs : compute_values)(&job, &results, number, work);
        free(work);
    }
    return failures;
}
