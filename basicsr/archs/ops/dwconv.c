/* Depthwise 3x3 convolution with one to three results, each a part of the channels, or with one:
   gelu(gate) * value of its two halves. Gradients of both.

   The convolution has zero padding. Images are channels last, float32 or bfloat16: x is
   images x height x width x parts * C, gates before values, and results have C channels. Weights,
   biases and their gradients are float32.

   Images, bands of rows, parts and blocks of channels are distributed over threads. A thread
   processes its band row by row, and keeps the three rows of a 3x3 neighbourhood in a ring buffer,
   which stays in the core's cache: memory is read and written once, in whole lines of the cache if
   blocks are wide. While it computes a row, it fetches the row to read next. */

#include <stdlib.h>
#include <string.h>

#include "vectors.h"

enum { COLUMNS = 4, TAPS = 9, SUMS = TAPS + 1, GATE = 0, VALUE = 1 };
enum { MOST_PARTS = 3, MOST_CHANNELS = 192 /* of a block */ };

typedef struct {
    const void *x;
    const float *weight, *bias; /* bias: NULL for none */
    void *out[MOST_PARTS];      /* the result, or its gradient; of a gate only the first */
    void *dx;
    float *sums; /* see below */
    long images, height, width, channels, parts, bands, gated;
    long block; /* channels of a task, or fewer in the last block; a multiple of LANES */
} Job;

/* Rows [top, bottom) of an image, `count` channels from `channel` on, of a part or of two halves. */
typedef struct {
    long image, band, top, bottom, part, halves, channel, count;
    float weight[2][TAPS][MOST_CHANNELS], bias[2][MOST_CHANNELS], sums[2][SUMS][MOST_CHANNELS];
} Task;

/* The task's first channel of a half among all channels of x. */
static long channel_of_x(const Job *job, const Task *task, long half)
{
    return (task->part + half) * job->channels + task->channel;
}

static long blocks_of(const Job *job) { return (job->channels + job->block - 1) / job->block; }

static long results_of(const Job *job) { return job->gated ? 1 : job->parts; }

static long tasks_of(const Job *job)
{
    return job->images * job->bands * results_of(job) * blocks_of(job);
}

static Task task_of(const Job *job, long number)
{
    const long blocks = blocks_of(job), parts = results_of(job);
    Task task = {.channel = number % blocks * job->block, .halves = job->gated ? 2 : 1};
    const long left = job->channels - task.channel;
    task.count = left < job->block ? left : job->block;
    task.part = number / blocks % parts;
    task.band = number / blocks / parts % job->bands;
    task.image = number / blocks / parts / job->bands;
    task.top = task.band * job->height / job->bands;
    task.bottom = (task.band + 1) * job->height / job->bands;
    for (long half = 0; half < task.halves; half++)
        for (long i = 0; i < task.count; i++) {
            const long channel = channel_of_x(job, &task, half) + i;
            for (long tap = 0; tap < TAPS; tap++)
                task.weight[half][tap][i] = job->weight[channel * TAPS + tap];
            task.bias[half][i] = job->bias ? job->bias[channel] : 0.0f;
        }
    return task;
}

/* Index of `channel` of the first pixel of a row, in images with `width` channels. */
static long index_of(const Job *job, const Task *task, long row, long channel, long width)
{
    return (task->image * job->height + row) * job->width * width + channel;
}

/* A ring has three rows of each half, padded with zeros at both ends. */
static long ring_stride(const Job *job) { return (job->width + 2 + COLUMNS) * job->block; }

static float *ring_row(const Job *job, float *ring, long half, long row)
{
    return ring + (3 * half + (row + 3) % 3) * ring_stride(job);
}

static void rows_around(const Job *job, float *ring, long half, long row, float *rows[3])
{
    for (long i = 0; i < 3; i++)
        rows[i] = ring_row(job, ring, half, row + i - 1);
}

static int outside(const Job *job, long row) { return row < 0 || row >= job->height; }

static void clear_row(const Job *job, const Task *task, float *ring, long row)
{
    for (long half = 0; half < task->halves; half++)
        memset(ring_row(job, ring, half, row), 0, ring_stride(job) * sizeof(float));
}

/* Reads a row of a half from `channel` on, of images with `width` channels. */
INLINE void read_half(const Job *job, const Task *task, const void *images, long channel,
                      long width, long half, float *ring, long row, Type type)
{
    const long columns = job->width, count = task->count;
    float *to = ring_row(job, ring, half, row) + job->block;
    long from = index_of(job, task, row, channel, width);
    for (long column = 0; column < columns; column++, from += width, to += job->block)
        for (long i = 0; i < count; i += LANES)
            store(to + i, load_some(images, from + i, count - i, type));
}

INLINE void read_row(const Job *job, const Task *task, float *ring, long row, Type type)
{
    if (outside(job, row)) {
        clear_row(job, task, ring, row);
        return;
    }
    for (long half = 0; half < task->halves; half++)
        read_half(job, task, job->x, channel_of_x(job, task, half), job->parts * job->channels,
                  half, ring, row, type);
}

/* Fetches COLUMNS pixels of a row from memory, from `channel` of images with `width` channels on. */
INLINE void fetch(const Job *job, const Task *task, const void *images, long channel, long width,
                  long row, long column, Type type)
{
    const long from = index_of(job, task, row, channel, width), size = type == BFLOAT16 ? 2 : 4;
    for (long k = column; k < column + COLUMNS; k++)
        __builtin_prefetch((const char *)images + (from + k * width) * size);
}

/* Fetches the task's channels of x, from its channel i on. */
INLINE void fetch_x(const Job *job, const Task *task, long row, long column, long i, Type type)
{
    for (long half = 0; half < task->halves; half++)
        fetch(job, task, job->x, channel_of_x(job, task, half) + i, job->parts * job->channels, row,
              column, type);
}

/* Fetches those channels of the result's gradient. */
INLINE void fetch_d_out(const Job *job, const Task *task, long row, long column, long i, Type type)
{
    fetch(job, task, job->out[task->part], task->channel + i, job->channels, row, column, type);
}

/* The convolution at COLUMNS pixels from `column` on. */
INLINE void convolve(const Job *job, const Task *task, long half, float *const rows[3],
                     long column, long i, vec results[COLUMNS])
{
    for (long k = 0; k < COLUMNS; k++)
        results[k] = load(task->bias[half] + i);
#pragma GCC unroll 3
    for (long row = 0; row < 3; row++) {
        vec x[COLUMNS + 2];
        for (long k = 0; k < COLUMNS + 2; k++)
            x[k] = keep(rows[row] + (column + k) * job->block + i);
#pragma GCC unroll 3
        for (long j = 0; j < 3; j++) {
            const vec factor = keep(task->weight[half][3 * row + j] + i);
            for (long k = 0; k < COLUMNS; k++)
                results[k] += x[k + j] * factor;
        }
    }
}

INLINE void write_part(const Job *job, const Task *task, float *ring, long row, Type type)
{
    const long columns = job->width, width = job->channels, count = task->count;
    const long start = index_of(job, task, row, task->channel, width);
    float *rows[3];
    rows_around(job, ring, 0, row, rows);
    for (long i = 0; i < count; i += LANES)
        for (long column = 0; column < columns; column += COLUMNS) {
            vec results[COLUMNS];
            fetch_x(job, task, row + 2, column, i, type);
            convolve(job, task, 0, rows, column, i, results);
            for (long k = 0; k < COLUMNS && column + k < columns; k++)
                store_some(job->out[task->part], start + (column + k) * width + i, count - i,
                           results[k], type);
        }
}

INLINE void write_gated(const Job *job, const Task *task, float *ring, long row, Type type)
{
    const long columns = job->width, width = job->channels, count = task->count;
    const long start = index_of(job, task, row, task->channel, width);
    float *rows[2][3];
    for (long half = GATE; half <= VALUE; half++)
        rows_around(job, ring, half, row, rows[half]);
    for (long i = 0; i < count; i += LANES)
        for (long column = 0; column < columns; column += COLUMNS) {
            vec gates[COLUMNS], values[COLUMNS], slope;
            fetch_x(job, task, row + 2, column, i, type);
            convolve(job, task, GATE, rows[GATE], column, i, gates);
            convolve(job, task, VALUE, rows[VALUE], column, i, values);
            for (long k = 0; k < COLUMNS; k++)
                values[k] *= gates[k] * normal_and_slope(gates[k], &slope, type);
            for (long k = 0; k < COLUMNS && column + k < columns; k++)
                store_some(job->out[0], start + (column + k) * width + i, count - i, values[k],
                           type);
        }
}

/* Computes the gradient of a row of the convolution's result from that of the gated one. */
INLINE void gate_gradient(const Job *job, const Task *task, float *ring, float *d_ring, long row,
                          Type type)
{
    const long columns = job->width, width = job->channels, count = task->count;
    const long start = index_of(job, task, row, task->channel, width);
    float *rows[2][3], *d_gate = ring_row(job, d_ring, GATE, row) + job->block,
                       *d_value = ring_row(job, d_ring, VALUE, row) + job->block;
    for (long half = GATE; half <= VALUE; half++)
        rows_around(job, ring, half, row, rows[half]);
    for (long i = 0; i < count; i += LANES)
        for (long column = 0; column < columns; column += COLUMNS) {
            vec gates[COLUMNS], values[COLUMNS];
            fetch_x(job, task, row + 2, column, i, type);
            fetch_d_out(job, task, row + 1, column, i, type);
            convolve(job, task, GATE, rows[GATE], column, i, gates);
            convolve(job, task, VALUE, rows[VALUE], column, i, values);
            for (long k = 0; k < COLUMNS && column + k < columns; k++) {
                const long at = start + (column + k) * width + i;
                const vec d = load_some(job->out[0], at, count - i, type);
                vec slope, below = normal_and_slope(gates[k], &slope, type);
                store(d_gate + (column + k) * job->block + i, d * values[k] * slope);
                store(d_value + (column + k) * job->block + i, d * gates[k] * below);
            }
        }
}

/* Computes the gradient of a row of x, and adds its part to the gradients of weight and bias. */
INLINE void write_gradient(const Job *job, Task *task, long half, float *ring, float *d_ring,
                           long row, Type type)
{
    const long columns = job->width, width = job->parts * job->channels, count = task->count;
    const long start = index_of(job, task, row, channel_of_x(job, task, half), width);
    const float *x = ring_row(job, ring, half, row) + job->block;
    float *rows[3];
    rows_around(job, d_ring, half, row, rows);
    for (long i = 0; i < count; i += LANES) {
        vec sums[SUMS];
        for (long k = 0; k < SUMS; k++)
            sums[k] = load(task->sums[half][k] + i);
        for (long column = 0; column < columns; column += COLUMNS) {
            vec values[COLUMNS], results[COLUMNS] = {0};
            if (!job->gated) {
                fetch_x(job, task, row + 2, column, i, type);
                fetch_d_out(job, task, row + 2, column, i, type);
            }
            for (long k = 0; k < COLUMNS; k++)
                values[k] = keep(x + (column + k) * job->block + i);
#pragma GCC unroll 3
            for (long above = 0; above < 3; above++) {
                vec d[COLUMNS + 2];
                for (long k = 0; k < COLUMNS + 2; k++)
                    d[k] = keep(rows[above] + (column + k) * job->block + i);
#pragma GCC unroll 3
                for (long j = 0; j < 3; j++) {
                    const long tap = TAPS - 1 - 3 * above - j; /* leads from x to this output */
                    const vec factor = keep(task->weight[half][tap] + i);
                    for (long k = 0; k < COLUMNS; k++) {
                        results[k] += d[k + j] * factor;
                        sums[tap] += d[k + j] * values[k];
                    }
                }
                for (long k = 0; above == 1 && k < COLUMNS; k++)
                    sums[TAPS] += d[k + 1];
            }
            for (long k = 0; k < COLUMNS && column + k < columns; k++)
                store_some(job->dx, start + (column + k) * width + i, count - i, results[k], type);
        }
        for (long k = 0; k < SUMS; k++)
            store(task->sums[half][k] + i, sums[k]);
    }
}

static void write_sums(const Job *job, const Task *task)
{
    const long width = job->parts * job->channels;
    float *band = job->sums + (task->image * job->bands + task->band) * SUMS * width;
    for (long half = 0; half < task->halves; half++)
        for (long k = 0; k < SUMS; k++)
            memcpy(band + k * width + channel_of_x(job, task, half), task->sums[half][k],
                   task->count * sizeof(float));
}

INLINE void forward(const Job *job, Task *task, float *ring, Type type)
{
    for (long row = task->top - 1; row <= task->bottom; row++) {
        read_row(job, task, ring, row, type);
        if (row > task->top && job->gated)
            write_gated(job, task, ring, row - 1, type);
        else if (row > task->top)
            write_part(job, task, ring, row - 1, type);
    }
}

INLINE void backward_of_gate(const Job *job, Task *task, float *ring, Type type)
{
    float *d_ring = ring + 6 * ring_stride(job);
    for (long row = task->top - 2; row <= task->bottom + 1; row++) {
        read_row(job, task, ring, row, type);
        if (row < task->top)
            continue;
        if (outside(job, row - 1))
            clear_row(job, task, d_ring, row - 1);
        else
            gate_gradient(job, task, ring, d_ring, row - 1, type);
        for (long half = GATE; row >= task->top + 2 && half <= VALUE; half++)
            write_gradient(job, task, half, ring, d_ring, row - 2, type);
    }
}

INLINE void backward_of_part(const Job *job, Task *task, float *ring, Type type)
{
    float *d_ring = ring + 6 * ring_stride(job);
    for (long row = task->top - 1; row <= task->bottom; row++) {
        if (outside(job, row))
            clear_row(job, task, d_ring, row);
        else
            read_half(job, task, job->out[task->part], task->channel, job->channels, 0, d_ring, row,
                      type);
        read_row(job, task, ring, row, type);
        if (row > task->top)
            write_gradient(job, task, 0, ring, d_ring, row - 1, type);
    }
}

INLINE void backward(const Job *job, Task *task, float *ring, Type type)
{
    if (job->gated)
        backward_of_gate(job, task, ring, type);
    else
        backward_of_part(job, task, ring, type);
    write_sums(job, task);
}

static void forward_float32(const Job *job, Task *task, float *ring)
{
    forward(job, task, ring, FLOAT32);
}

static void forward_bfloat16(const Job *job, Task *task, float *ring)
{
    forward(job, task, ring, BFLOAT16);
}

static void backward_float32(const Job *job, Task *task, float *ring)
{
    backward(job, task, ring, FLOAT32);
}

static void backward_bfloat16(const Job *job, Task *task, float *ring)
{
    backward(job, task, ring, BFLOAT16);
}

/* Returns the number of threads that could not allocate their rings. */
static int run(const Job *job, void (*work)(const Job *, Task *, float *), long rings)
{
    int failures = 0;
    const long tasks = tasks_of(job);
#pragma omp parallel reduction(+ : failures)
    {
        float *ring = calloc(rings * 6 * ring_stride(job), sizeof(float));
        failures += ring == NULL;
#pragma omp for schedule(dynamic)
        for (long number = 0; number < tasks; number++)
            if (ring) {
                Task task = task_of(job, number);
                work(job, &task, ring);
            }
        free(ring);
    }
    return failures;
}

/* `gated` has two parts, and one result. */
int dwconv(const void *x, const float *weight, const float *bias, void *first, void *second,
           void *third, long images, long height, long width, long channels, long parts, long bands,
           long block, long gated, long type)
{
    const Job job = {x,     weight,   bias,  {first, second, third}, NULL,  NULL, images, height,
                     width, channels, parts, bands,                  gated, block};
    return run(&job, type == BFLOAT16 ? forward_bfloat16 : forward_float32, 1);
}

/* `first`, `second` and `third` are the gradients of the results. dx has the shape of x. `sums`
   receive each band's part of the gradients of the nine weights and the bias of every channel:
   images x bands x 10 x parts * C. */
int dwconv_backward(const void *x, const float *weight, const float *bias, void *first,
                    void *second, void *third, void *dx, float *sums, long images, long height,
                    long width, long channels, long parts, long bands, long block, long gated,
                    long type)
{
    const Job job = {x,     weight,   bias,  {first, second, third}, dx,    sums, images, height,
                     width, channels, parts, bands,                  gated, block};
    return run(&job, type == BFLOAT16 ? backward_bfloat16 : backward_float32, 2);
}
