/* Layer normalisation over the channels of every pixel, and its gradients.

   Images are channels last, float32 or bfloat16; parameters and their gradients are float32. */

#include "vectors.h"

enum { CHUNK = 1024, GROUP = 4 }; /* pixels of a task; pixels that are computed at the same time */

typedef struct {
    const void *x, *d_out;      /* d_out: the result's gradient */
    const float *weight, *bias; /* bias: NULL for values that are not centred */
    void *out;                  /* the result, or the gradient of x */
    long channels;
    float eps;
} Norm;

typedef struct {
    float mean, scale;
} Statistics;

/* Statistics of `group` pixels, whose channels begin at `start`. */
INLINE void compute_statistics(const Norm *norm, long start, Statistics *of, long group, Type type)
{
    const long channels = norm->channels;
    vec sums[GROUP] = {0}, squares[GROUP] = {0};
    for (long i = 0; i < channels; i += LANES)
        for (long k = 0; k < group; k++)
            sums[k] += load_some(norm->x, start + k * channels + i, channels - i, type);
    for (long k = 0; k < group; k++)
        of[k].mean = total(sums[k]) / channels;
    for (long i = 0; i < channels; i += LANES)
        for (long k = 0; k < group; k++) {
            vec x = load_some(norm->x, start + k * channels + i, channels - i, type) - of[k].mean;
            if (channels - i < LANES)
                x = first(x, channels - i);
            squares[k] += x * x;
        }
    for (long k = 0; k < group; k++)
        of[k].scale = 1.0f / __builtin_sqrtf(total(squares[k]) / channels + norm->eps);
}

INLINE void normalise(const Norm *norm, long start, long group, Type type)
{
    const long channels = norm->channels;
    Statistics of[GROUP];
    compute_statistics(norm, start, of, group, type);
    for (long i = 0; i < channels; i += LANES) {
        const long count = channels - i;
        const vec weight = load_some(norm->weight, i, count, FLOAT32);
        const vec bias = norm->bias ? load_some(norm->bias, i, count, FLOAT32) : (vec){0};
        for (long k = 0; k < group; k++) {
            const long at = start + k * channels + i;
            const vec x = load_some(norm->x, at, count, type) - (norm->bias ? of[k].mean : 0.0f);
            store_some(norm->out, at, count, x * of[k].scale * weight + bias, type);
        }
    }
}

/* Computes the gradient of x, and adds those of weight and bias to the two halves of `sums`. */
INLINE void differentiate(const Norm *norm, long start, float *sums, long group, Type type)
{
    const long channels = norm->channels;
    Statistics of[GROUP];
    vec means[GROUP] = {0}, products[GROUP] = {0};
    float shrinking[GROUP], shift[GROUP];
    compute_statistics(norm, start, of, group, type);
    for (long i = 0; i < channels; i += LANES) {
        const long count = channels - i;
        const vec weight = load_some(norm->weight, i, count, FLOAT32);
        vec d_weight = load_some(sums, i, count, FLOAT32);
        vec d_bias = load_some(sums, channels + i, count, FLOAT32);
        for (long k = 0; k < group; k++) {
            const long at = start + k * channels + i;
            const vec d = load_some(norm->d_out, at, count, type), d_values = d * weight;
            vec values = load_some(norm->x, at, count, type) - (norm->bias ? of[k].mean : 0.0f);
            values *= of[k].scale;
            means[k] += d_values;
            products[k] += d_values * values;
            d_weight += d * values;
            d_bias += d;
        }
        store_some(sums, i, count, d_weight, FLOAT32);
        store_some(sums, channels + i, count, d_bias, FLOAT32);
    }
    for (long k = 0; k < group; k++) {
        /* The gradient through the scale, which depends only on the deviations from the mean. */
        shrinking[k] = total(products[k]) / channels * of[k].scale;
        shift[k] = norm->bias ? total(means[k]) / channels : 0.0f;
    }
    for (long i = 0; i < channels; i += LANES) {
        const long count = channels - i;
        const vec weight = load_some(norm->weight, i, count, FLOAT32);
        for (long k = 0; k < group; k++) {
            const long at = start + k * channels + i;
            const vec deviations = load_some(norm->x, at, count, type) - of[k].mean;
            const vec d = load_some(norm->d_out, at, count, type) * weight;
            const vec dx = (d - deviations * shrinking[k] - shift[k]) * of[k].scale;
            store_some(norm->out, at, count, dx, type);
        }
    }
}

INLINE void normalise_all(const Norm *norm, long pixel, long last, Type type)
{
    for (; pixel + GROUP <= last; pixel += GROUP)
        normalise(norm, pixel * norm->channels, GROUP, type);
    for (; pixel < last; pixel++)
        normalise(norm, pixel * norm->channels, 1, type);
}

INLINE void differentiate_all(const Norm *norm, long pixel, long last, float *sums, Type type)
{
    for (; pixel + GROUP <= last; pixel += GROUP)
        differentiate(norm, pixel * norm->channels, sums, GROUP, type);
    for (; pixel < last; pixel++)
        differentiate(norm, pixel * norm->channels, sums, 1, type);
}

void channel_norm(const void *x, const float *weight, const float *bias, void *out, long pixels,
                  long channels, float eps, long type)
{
    const Norm norm = {x, NULL, weight, bias, out, channels, eps};
#pragma omp parallel for
    for (long start = 0; start < pixels; start += CHUNK) {
        const long last = start + CHUNK < pixels ? start + CHUNK : pixels;
        if (type == BFLOAT16)
            normalise_all(&norm, start, last, BFLOAT16);
        else
            normalise_all(&norm, start, last, FLOAT32);
    }
}

/* `sums`, parts x 2 x channels zeros, receive the gradients of weight and bias of each part of the
   pixels. */
void channel_norm_backward(const void *x, const float *weight, const float *bias,
                           const void *d_out, void *dx, float *sums, long pixels, long channels,
                           long parts, float eps, long type)
{
    const Norm norm = {x, d_out, weight, bias, dx, channels, eps};
#pragma omp parallel for
    for (long part = 0; part < parts; part++) {
        const long start = part * pixels / parts, last = (part + 1) * pixels / parts;
        float *own = sums + 2 * part * channels;
        if (type == BFLOAT16)
            differentiate_all(&norm, start, last, own, BFLOAT16);
        else
            differentiate_all(&norm, start, last, own, FLOAT32);
    }
}
