/* Sums over pixels of products of channels, and their gradients.

   q and k are images x pixels x channels, float32 or bfloat16; sums and their gradients are
   float32. The channels of each head are multiplied with each other. Heads and parts of an image's
   pixels are distributed over threads, which copy CHUNK pixels of one head at a time into the
   cache. With `pairs`, a word of this copy holds the bfloat16 values of two pixels, whose products
   are added. */

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
static long padded_width(const Job *job) { return up_to_multiple(head_width(job), COLUMNS); }

/* results += sum over t < count of a[r * a_row + t * a_step] * b[t * b_step + column], for ROWS
   rows r and COLUMNS columns. */
INLINE void multiply(const word *a, long a_row, long a_step, const word *b, long b_step,
                     long count, float *results, long results_step, int pairs)
{
    vec sums[ROWS][VECTORS] = {0}; /* of a chunk alone, which is more exact than one long sum */
    for (long t = 0; t < count; t++) {
        vec factors[VECTORS];
        for (long v = 0; v < VECTORS; v++)
            factors[v] = keep((const float *)(b + t * b_step + v * LANES));
        for (long r = 0; r < ROWS; r++) {
            const word *value = a + r * a_row + t * a_step;
            const vec values = pairs ? everywhere(*value) : all(*(const float *)value);
            for (long v = 0; v < VECTORS; v++)
                sums[r][v] = add_product(sums[r][v], values, factors[v], pairs);
        }
    }
    for (long r = 0; r < ROWS; r++)
        for (long v = 0; v < VECTORS; v++)
            store(results + r * results_step + v * LANES,
                  load(results + r * results_step + v * LANES) + sums[r][v]);
}

/* Index of a pixel's channels of a head. */
static long start_of(const Job *job, long image, long head, long pixel)
{
    return (image * job->pixels + pixel) * job->channels + head * head_width(job);
}

/* Copies pixels as rows of words, of one pixel or of two. Returns the number of rows. */
INLINE long read_chunk(const Job *job, const void *from, long start, long count, word *to,
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

INLINE void add_squares(const word *chunk, long rows, long padded, float *squares, int pairs)
{
    for (long i = 0; i < padded; i += LANES) {
        vec sum = {0};
        for (long row = 0; row < rows; row++) {
            const vec x = load_words(chunk + row * padded + i);
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
        const long rows = read_chunk(job, job->q, start, count, q, pairs);
        read_chunk(job, job->k, start, count, k, pairs);
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

/* Gradient of x of a chunk: other @ factors + 2 * x * d_squares. */
static void write_chunk(const Job *job, const word *x, const word *other, const word *factors,
                        const float *d_squares, float *results, void *to, long start, long count)
{
    const long width = head_width(job), padded = padded_width(job);
    memset(results, 0, CHUNK * padded * sizeof(float));
    for (long pixel = 0; pixel < count; pixel += ROWS)
        for (long j = 0; j < width; j += COLUMNS)
            multiply(other + pixel * padded, padded, 1, factors + j, padded, width,
                     results + pixel * padded + j, padded, 0);
    for (long pixel = 0; pixel < count; pixel++)
        for (long i = 0; i < width; i += LANES) {
            const long at = pixel * padded + i;
            store_some(to, start + pixel * job->channels + i, width - i,
                       load(results + at) + 2.0f * load_words(x + at) * load(d_squares + i),
                       job->type);
        }
}

static void gradients_of_part(const Job *job, long image, long head, long part,
                              const float *d_sums, word *work, void *dq, void *dk)
{
    const long width = head_width(job), padded = padded_width(job);
    const long last = (part + 1) * job->pixels / job->parts;
    word *q = work, *k = q + CHUNK * padded, *factors = k + CHUNK * padded;
    word *transposed = factors + padded * padded;
    float *squares = (float *)(transposed + padded * padded), *results = squares + 2 * padded;
    for (long i = 0; i < width; i++)
        for (long j = 0; j < width; j++)
            factors[i * padded + j] = transposed[j * padded + i] =
                word_of(d_sums + i * width + j, 1, 0);
    for (long i = 0; i < 2; i++)
        memcpy(squares + i * padded, d_sums + (width + i) * width, width * sizeof(float));
    for (long pixel = part * job->pixels / job->parts; pixel < last; pixel += CHUNK) {
        const long count = smaller(last - pixel, CHUNK);
        const long start = start_of(job, image, head, pixel);
        read_chunk(job, job->q, start, count, q, 0);
        read_chunk(job, job->k, start, count, k, 0);
        write_chunk(job, q, k, transposed, squares, results, dq, start, count);
        write_chunk(job, k, q, factors, squares + padded, results, dk, start, count);
    }
}

/* `sums`, images x heads x parts x (c + 2) x c for the c channels of a head: the products of
   channels of q and k, and the squares of q and of k, of each part of the pixels. With `dq`, `sums`
   are the gradients of the whole images' sums, images x heads x (c + 2) x c, and the gradients of q
   and k are computed. Returns the number of threads that could not allocate their memory. */
int gram(const void *q, const void *k, float *sums, void *dq, void *dk, long images, long pixels,
         long channels, long heads, long parts, long type)
{
    const Job job = {q, k, images, pixels, channels, heads, parts, type};
    const long width = head_width(&job), padded = padded_width(&job);
    int failures = 0;
#pragma omp parallel reduction(+ : failures)
    {
        word *work = calloc((3 * CHUNK + 2 * padded + 2) * padded, sizeof(word));
        failures += work == NULL;
#pragma omp for
        for (long number = 0; number < images * heads * parts; number++) {
            const long part = number % parts, head = number / parts % heads;
            const long image = number / parts / heads;
            float *own = sums + number * (width + 2) * width;
            if (work && dq)
                gradients_of_part(&job, image, head, part,
                                  sums + number / parts * (width + 2) * width, work, dq, dk);
            else if (work && PAIRS && type == BFLOAT16)
                sum_part(&job, image, head, part, work, own, PAIRS);
            else if (work)
                sum_part(&job, image, head, part, work, own, 0);
        }
        free(work);
    }
    return failures;
}
