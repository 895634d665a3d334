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
    Type type;
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

static inline void prefetch(const void *array, long index, Type type)
{
    __builtin_prefetch((const char *)array + index * (type == BFLOAT16 ? 2 : 4));
}

/* Offset of `row` of the task's image and channels, in images of `width` channels. */
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

static void read_row(const Job *job, const Task *task, float *ring, long row)
{
    const long columns = job->width, width = 2 * job->channels, count = task->count;
    if (outside(job, row)) {
        clear_row(job, ring, row);
        return;
    }
    for (long half = GATE; half <= VALUE; half++) {
        float *to = ring_row(job, ring, half, row) + BLOCK;
        const long start = row_start(job, task, row, width) + half * job->channels;
        for (long column = 0; column < columns; column++) {
            const long from = start + column * width;
            prefetch(job->x, from + columns * width, job->type); /* the next row */
            for (long i = 0; i < count; i += LANES)
                store(to + column * BLOCK + i, load_some(job->x, from + i, count - i, job->type));
        }
    }
}

/* The convolution at COLUMNS pixels from `column` on; with `back`, that of its input's gradient. */
static inline void convolve(float *const rows[3], const float (*weight)[BLOCK], int back, vec bias,
                            long column, long i, vec results[COLUMNS])
{
    for (long k = 0; k < COLUMNS; k++)
        results[k] = bias;
#pragma GCC unroll 3
    for (long row = 0; row < 3; row++) {
        vec x[COLUMNS + 2];
        for (long k = 0; k < COLUMNS + 2; k++)
            x[k] = load(rows[row] + (column + k) * BLOCK + i);
        for (long j = 0; j < 3; j++) {
            const long tap = 3 * row + j;
            const vec factor = load(weight[back ? TAPS - 1 - tap : tap] + i);
            for (long k = 0; k < COLUMNS; k++)
                results[k] += x[k + j] * factor;
        }
    }
}

static inline void gates_and_values(const Task *task, float *rows[2][3], long column, long i,
                                    vec gates[COLUMNS], vec values[COLUMNS])
{
    convolve(rows[GATE], task->weight[GATE], 0, load(task->bias[GATE] + i), column, i, gates);
    convolve(rows[VALUE], task->weight[VALUE], 0, load(task->bias[VALUE] + i), column, i, values);
}

static void write_result(const Job *job, const Task *task, float *ring, long row)
{
    const long columns = job->width, width = job->channels, count = task->count;
    const long start = row_start(job, task, row, width);
    float *rows[2][3];
    for (long half = GATE; half <= VALUE; half++)
        rows_around(job, ring, half, row, rows[half]);
    for (long i = 0; i < count; i += LANES)
        for (long column = 0; column < columns; column += COLUMNS) {
            vec gates[COLUMNS], values[COLUMNS], density;
            gates_and_values(task, rows, column, i, gates, values);
            for (long k = 0; k < COLUMNS; k++)
                values[k] *= gates[k] * normal(gates[k], &density);
            for (long k = 0; k < COLUMNS && column + k < columns; k++)
                store_some(job->out, start + (column + k) * width + i, count - i, values[k],
                           job->type);
        }
}

/* Computes the gradient of a row of the convolution's result. */
static void gate_gradient(const Job *job, const Task *task, float *ring, float *d_ring, long row)
{
    const long columns = job->width, width = job->channels, count = task->count;
    const long start = row_start(job, task, row, width);
    float *rows[2][3], *d_gate = ring_row(job, d_ring, GATE, row) + BLOCK,
                       *d_value = ring_row(job, d_ring, VALUE, row) + BLOCK;
    for (long half = GATE; half <= VALUE; half++)
        rows_around(job, ring, half, row, rows[half]);
    for (long i = 0; i < count; i += LANES)
        for (long column = 0; column < columns; column += COLUMNS) {
            vec gates[COLUMNS], values[COLUMNS], below[COLUMNS], density[COLUMNS];
            gates_and_values(task, rows, column, i, gates, values);
            for (long k = 0; k < COLUMNS; k++)
                below[k] = normal(gates[k], &density[k]);
            for (long k = 0; k < COLUMNS && column + k < columns; k++) {
                const vec d = load_some(job->d_out, start + (column + k) * width + i, count - i,
                                        job->type);
                const vec slope = below[k] + gates[k] * density[k];
                store(d_gate + (column + k) * BLOCK + i, d * values[k] * slope);
                store(d_value + (column + k) * BLOCK + i, d * gates[k] * below[k]);
            }
        }
}

/* Computes the gradient of a row of x. */
static void write_gradient(const Job *job, const Task *task, float *d_ring, long row)
{
    const long columns = job->width, width = 2 * job->channels, count = task->count;
    for (long half = GATE; half <= VALUE; half++) {
        const long start = row_start(job, task, row, width) + half * job->channels;
        float *rows[3];
        rows_around(job, d_ring, half, row, rows);
        for (long i = 0; i < count; i += LANES)
            for (long column = 0; column < columns; column += COLUMNS) {
                vec results[COLUMNS];
                convolve(rows, task->weight[half], 1, (vec){0}, column, i, results);
                for (long k = 0; k < COLUMNS && column + k < columns; k++)
                    store_some(job->out, start + (column + k) * width + i, count - i, results[k],
                               job->type);
            }
    }
}

/* Adds the part of a row of x to the gradients of weight and bias. */
static void add_to_sums(const Job *job, Task *task, float *ring, float *d_ring, long row)
{
    const long columns = job->width, count = task->count;
    for (long half = GATE; half <= VALUE; half++) {
        const float *x = ring_row(job, ring, half, row) + BLOCK;
        float *rows[3];
        rows_around(job, d_ring, half, row, rows);
        for (long i = 0; i < count; i += LANES) {
            vec sums[SUMS] = {0};
            for (long column = 0; column < columns; column++) {
                const vec values = load(x + column * BLOCK + i);
#pragma GCC unroll 9
                for (long tap = 0; tap < TAPS; tap++) {
                    const long to = TAPS - 1 - tap; /* the output that x reaches through `tap` */
                    sums[tap] += values * load(rows[to / 3] + (column + to % 3) * BLOCK + i);
                }
                sums[TAPS] += load(rows[1] + (column + 1) * BLOCK + i);
            }
            for (long k = 0; k < SUMS; k++)
                store(task->sums[half][k] + i, load(task->sums[half][k] + i) + sums[k]);
        }
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

static void forward(const Job *job, Task *task, float *ring)
{
    for (long row = task->top - 1; row <= task->bottom; row++) {
        read_row(job, task, ring, row);
        if (row > task->top)
            write_result(job, task, ring, row - 1);
    }
}

static void backward(const Job *job, Task *task, float *ring)
{
    float *d_ring = ring + 6 * ring_stride(job);
    for (long row = task->top - 2; row <= task->bottom + 1; row++) {
        read_row(job, task, ring, row);
        if (row < task->top)
            continue;
        if (outside(job, row - 1))
            clear_row(job, d_ring, row - 1);
        else
            gate_gradient(job, task, ring, d_ring, row - 1);
        if (row >= task->top + 2) {
            write_gradient(job, task, d_ring, row - 2);
            add_to_sums(job, task, ring, d_ring, row - 2);
        }
    }
    write_sums(job, task);
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
    const Job job = {x,      NULL,  weight,   bias,  out, NULL, images,
                     height, width, channels, bands, type};
    return run(&job, forward, 1);
}

/* dx has the shape of x. `sums` receive each band's part of the gradients of the nine weights and
   the bias of every channel: images x bands x 10 x 2C. */
int gated_dwconv_backward(const void *x, const float *weight, const float *bias, const void *d_out,
                          void *dx, float *sums, long images, long height, long width,
                          long channels, long bands, long type)
{
    const Job job = {x,      d_out, weight,   bias,  dx, sums, images,
                     height, width, channels, bands, type};
    return run(&job, backward, 2);
}
