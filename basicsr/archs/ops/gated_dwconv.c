/* gelu(gate) * value of the two halves of a depthwise 3x3 convolution, and its gradients.

   The convolution has zero padding. Images are channels last, float32 or bfloat16: x is
   images x height x width x 2C, gates first, and the result has C channels. Weights, biases and
   their gradients are float32.

   Images, bands of rows and blocks of channels are distributed over threads. A thread processes its
   band row by row, and keeps the three rows of a 3x3 neighbourhood in a ring buffer, which stays in
   the core's cache: memory is read and written once. */

#include <stdlib.h>
#include <string.h>

#include "vectors.h"

enum { BLOCK = 16, COLUMNS = 4, TAPS = 9, SUMS = TAPS + 1, GATE = 0, VALUE = 1 };

typedef struct {
    const void *x, *d_out;      /* d_out: the result's gradient */
    const float *weight, *bias; /* bias: NULL for none */
    void *out;                  /* the result, or the gradient of x */
    float *sums;                /* see below */
    long images, height, width, channels, bands;
} Job;

typedef struct { /* rows [top, bottom) of an image, `count` channels from `channel` on */
    long image, band, top, bottom, channel, count;
    float weight[2][TAPS][BLOCK], bias[2][BLOCK], sums[2][SUMS][BLOCK];
} Task;

static Task task_of(const Job *job, long number)
{
    const long blocks = (job->channels + BLOCK - 1) / BLOCK;
    Task task = {.channel = number % blocks * BLOCK};
    task.count = job->channels - task.channel < BLOCK ? job->channels - task.channel : BLOCK;
    task.band = number / blocks % job->bands;
    task.image = number / blocks / job->bands;
    task.top = task.band * job->height / job->bands;
    task.bottom = (task.band + 1) * job->height / job->bands;
    for (long half = GATE; half <= VALUE; half++)
        for (long i = 0; i < task.count; i++) {
            const long channel = half * job->channels + task.channel + i;
            for (long tap = 0; tap < TAPS; tap++)
                task.weight[half][tap][i] = job->weight[channel * TAPS + tap];
            task.bias[half][i] = job->bias ? job->bias[channel] : 0.0f;
        }
    return task;
}

/* Index of `row` of the task's image and channels, in images of `width` channels. */
static long row_start(const Job *job, const Task *task, long row, long width)
{
    return (task->image * job->height + row) * job->width * width + task->channel;
}

/* A ring has three rows of gates and three of values, each padded with zeros at both ends. */
static long ring_stride(const Job *job) { return (job->width + 2 + COLUMNS) * BLOCK; }

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

static void clear_row(const Job *job, float *ring, long row)
{
    for (long half = GATE; half <= VALUE; half++)
        memset(ring_row(job, ring, half, row), 0, ring_stride(job) * sizeof(float));
}

INLINE void read_row(const Job *job, const Task *task, float *ring, long row, Type type)
{
    const long columns = job->width, width = 2 * job->channels, count = task->count;
    const long size = type == BFLOAT16 ? 2 : 4;
    if (outside(job, row)) {
        clear_row(job, ring, row);
        return;
    }
    for (long half = GATE; half <= VALUE; half++) {
        float *to = ring_row(job, ring, half, row) + BLOCK;
        long from = row_start(job, task, row, width) + half * job->channels;
        for (long column = 0; column < columns; column++, from += width) {
            __builtin_prefetch((const char *)job->x + (from + columns * width) * size); /* next row */
            for (long i = 0; i < count; i += LANES)
                store(to + column * BLOCK + i, load_some(job->x, from + i, count - i, type));
        }
    }
}

/* The convolution at COLUMNS pixels from `column` on. */
INLINE void convolve(const Task *task, long half, float *const rows[3], long column, long i,
                     vec results[COLUMNS])
{
    for (long k = 0; k < COLUMNS; k++)
        results[k] = load(task->bias[half] + i);
#pragma GCC unroll 3
    for (long row = 0; row < 3; row++) {
        vec x[COLUMNS + 2];
        for (long k = 0; k < COLUMNS + 2; k++)
            x[k] = keep(rows[row] + (column + k) * BLOCK + i);
#pragma GCC unroll 3
        for (long j = 0; j < 3; j++) {
            const vec factor = keep(task->weight[half][3 * row + j] + i);
            for (long k = 0; k < COLUMNS; k++)
                results[k] += x[k + j] * factor;
        }
    }
}

INLINE void write_result(const Job *job, const Task *task, float *ring, long row, Type type)
{
    const long columns = job->width, width = job->channels, count = task->count;
    const long start = row_start(job, task, row, width);
    float *rows[2][3];
    for (long half = GATE; half <= VALUE; half++)
        rows_around(job, ring, half, row, rows[half]);
    for (long i = 0; i < count; i += LANES)
        for (long column = 0; column < columns; column += COLUMNS) {
            vec gates[COLUMNS], values[COLUMNS], slope;
            convolve(task, GATE, rows[GATE], column, i, gates);
            convolve(task, VALUE, rows[VALUE], column, i, values);
            for (long k = 0; k < COLUMNS; k++)
                values[k] *= gates[k] * normal_and_slope(gates[k], &slope, type);
            for (long k = 0; k < COLUMNS && column + k < columns; k++)
                store_some(job->out, start + (column + k) * width + i, count - i, values[k], type);
        }
}

/* Computes the gradient of a row of the convolution's result. */
INLINE void gate_gradient(const Job *job, const Task *task, float *ring, float *d_ring, long row,
                          Type type)
{
    const long columns = job->width, width = job->channels, count = task->count;
    const long start = row_start(job, task, row, width);
    float *rows[2][3], *d_gate = ring_row(job, d_ring, GATE, row) + BLOCK,
                       *d_value = ring_row(job, d_ring, VALUE, row) + BLOCK;
    for (long half = GATE; half <= VALUE; half++)
        rows_around(job, ring, half, row, rows[half]);
    for (long i = 0; i < count; i += LANES)
        for (long column = 0; column < columns; column += COLUMNS) {
            vec gates[COLUMNS], values[COLUMNS];
            convolve(task, GATE, rows[GATE], column, i, gates);
            convolve(task, VALUE, rows[VALUE], column, i, values);
            for (long k = 0; k < COLUMNS && column + k < columns; k++) {
                const long at = start + (column + k) * width + i;
                const vec d = load_some(job->d_out, at, count - i, type);
                vec slope, below = normal_and_slope(gates[k], &slope, type);
                store(d_gate + (column + k) * BLOCK + i, d * values[k] * slope);
                store(d_value + (column + k) * BLOCK + i, d * gates[k] * below);
            }
        }
}

/* Computes the gradient of a row of x, and adds its part to the gradients of weight and bias. */
INLINE void write_gradient(const Job *job, Task *task, long half, float *ring, float *d_ring,
                           long row, Type type)
{
    const long columns = job->width, width = 2 * job->channels, count = task->count;
    const long start = row_start(job, task, row, width) + half * job->channels;
    const float *x = ring_row(job, ring, half, row) + BLOCK;
    float *rows[3];
    rows_around(job, d_ring, half, row, rows);
    for (long i = 0; i < count; i += LANES) {
        vec sums[SUMS];
        for (long k = 0; k < SUMS; k++)
            sums[k] = load(task->sums[half][k] + i);
        for (long column = 0; column < columns; column += COLUMNS) {
            vec values[COLUMNS], results[COLUMNS] = {0};
            for (long k = 0; k < COLUMNS; k++)
                values[k] = keep(x + (column + k) * BLOCK + i);
#pragma GCC unroll 3
            for (long above = 0; above < 3; above++) {
                vec d[COLUMNS + 2];
                for (long k = 0; k < COLUMNS + 2; k++)
                    d[k] = keep(rows[above] + (column + k) * BLOCK + i);
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
                store_some(job->out, start + (column + k) * width + i, count - i, results[k], type);
        }
        for (long k = 0; k < SUMS; k++)
            store(task->sums[half][k] + i, sums[k]);
    }
}

static void write_sums(const Job *job, const Task *task)
{
    const long width = 2 * job->channels;
    float *band = job->sums + (task->image * job->bands + task->band) * SUMS * width;
    for (long half = GATE; half <= VALUE; half++)
        for (long k = 0; k < SUMS; k++)
            memcpy(band + k * width + half * job->channels + task->channel, task->sums[half][k],
                   task->count * sizeof(float));
}

INLINE void forward(const Job *job, Task *task, float *ring, Type type)
{
    for (long row = task->top - 1; row <= task->bottom; row++) {
        read_row(job, task, ring, row, type);
        if (row > task->top)
            write_result(job, task, ring, row - 1, type);
    }
}

INLINE void backward(const Job *job, Task *task, float *ring, Type type)
{
    float *d_ring = ring + 6 * ring_stride(job);
    for (long row = task->top - 2; row <= task->bottom + 1; row++) {
        read_row(job, task, ring, row, type);
        if (row < task->top)
            continue;
        if (outside(job, row - 1))
            clear_row(job, d_ring, row - 1);
        else
            gate_gradient(job, task, ring, d_ring, row - 1, type);
        for (long half = GATE; row >= task->top + 2 && half <= VALUE; half++)
            write_gradient(job, task, half, ring, d_ring, row - 2, type);
    }
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
    const long tasks = job->images * job->bands * ((job->channels + BLOCK - 1) / BLOCK);
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

int gated_dwconv(const void *x, const float *weight, const float *bias, void *out, long images,
                 long height, long width, long channels, long bands, long type)
{
    const Job job = {x, NULL, weight, bias, out, NULL, images, height, width, channels, bands};
    return run(&job, type == BFLOAT16 ? forward_bfloat16 : forward_float32, 1);
}

/* dx has the shape of x. `sums` receive each band's part of the gradients of the nine weights and
   the bias of every channel: images x bands x 10 x 2C. */
int gated_dwconv_backward(const void *x, const float *weight, const float *bias, const void *d_out,
                          void *dx, float *sums, long images, long height, long width,
                          long channels, long bands, long type)
{
    const Job job = {x, d_out, weight, bias, dx, sums, images, height, width, channels, bands};
    return run(&job, type == BFLOAT16 ? backward_bfloat16 : backward_float32, 2);
}
