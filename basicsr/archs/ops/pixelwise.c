/* Operations on each pixel alone, and their gradients: channel normalisation, and the gate
   gelu(gate) * value. Images are channels last, float32 or bfloat16; parameters are float32. */

#include <math.h>
#include <stdlib.h>

#include "vectors.h"

enum { CHUNK = 4096 };

static inline long least(long a, long b) { return a < b ? a : b; }

void gelu_gate(const void *gate, const void *value, void *out, long count, long type)
{
#pragma omp parallel for
    for (long start = 0; start < count; start += CHUNK)
        for (long i = start; i < least(start + CHUNK, count); i += LANES) {
            vec x = load_some(gate, i, count - i, type), density;
            store_some(out, i, count - i,
                       x * normal(x, &density) * load_some(value, i, count - i, type), type);
        }
}

void gelu_gate_backward(const void *gate, const void *value, const void *d_out, void *d_gate,
                        void *d_value, long count, long type)
{
#pragma omp parallel for
    for (long start = 0; start < count; start += CHUNK)
        for (long i = start; i < least(start + CHUNK, count); i += LANES) {
            const vec x = load_some(gate, i, count - i, type);
            const vec d = load_some(d_out, i, count - i, type);
            vec density, below = normal(x, &density);
            store_some(d_value, i, count - i, d * x * below, type);
            store_some(d_gate, i, count - i,
                       d * load_some(value, i, count - i, type) * (below + x * density), type);
        }
}

typedef struct {
    const void *x;
    const float *weight, *bias; /* bias: NULL for values that are not centred */
    long channels;
    float eps;
    Type type;
} Norm;

/* The statistics of the pixel whose channels begin at `start`. */
static inline void statistics(const Norm *norm, long start, float *mean, float *scale)
{
    const long channels = norm->channels;
    vec sum = {0}, squares = {0};
    for (long i = 0; i < channels; i += LANES)
        sum += load_some(norm->x, start + i, channels - i, norm->type);
    *mean = total(sum) / channels;
    for (long i = 0; i < channels; i += LANES) {
        vec x = load_some(norm->x, start + i, channels - i, norm->type) - *mean;
        if (channels - i < LANES)
            x = first(x, channels - i);
        squares += x * x;
    }
    *scale = 1.0f / sqrtf(total(squares) / channels + norm->eps);
}

void channel_norm(const void *x, const float *weight, const float *bias, void *out, long pixels,
                  long channels, float eps, long type)
{
    const Norm norm = {x, weight, bias, channels, eps, type};
#pragma omp parallel for
    for (long pixel = 0; pixel < pixels; pixel++) {
        const long start = pixel * channels;
        float mean, scale;
        statistics(&norm, start, &mean, &scale);
        for (long i = 0; i < channels; i += LANES) {
            const long count = channels - i;
            vec y = load_some(x, start + i, count, type);
            y = bias ? (y - mean) * scale : y * scale;
            y *= load_some(weight, i, count, FLOAT32);
            if (bias)
                y += load_some(bias, i, count, FLOAT32);
            store_some(out, start + i, count, y, type);
        }
    }
}

static void pixel_gradient(const Norm *norm, const void *d_out, void *dx, float *d_weight,
                           float *d_bias, long start)
{
    const long channels = norm->channels;
    float mean, scale;
    statistics(norm, start, &mean, &scale);
    const float centre = norm->bias ? mean : 0.0f;
    vec sum = {0}, product = {0};
    for (long i = 0; i < channels; i += LANES) {
        const long count = channels - i;
        const vec d = load_some(d_out, start + i, count, norm->type);
        const vec values = (load_some(norm->x, start + i, count, norm->type) - centre) * scale;
        const vec d_values = d * load_some(norm->weight, i, count, FLOAT32);
        sum += d_values;
        product += d_values * values;
        store_some(d_weight, i, count, load_some(d_weight, i, count, FLOAT32) + d * values, FLOAT32);
        store_some(d_bias, i, count, load_some(d_bias, i, count, FLOAT32) + d, FLOAT32);
    }
    /* The gradient through the scale, which depends only on the deviations from the mean. */
    const float shrinking = total(product) / channels * scale;
    const float shift = norm->bias ? total(sum) / channels : 0.0f;
    for (long i = 0; i < channels; i += LANES) {
        const long count = channels - i;
        const vec deviations = load_some(norm->x, start + i, count, norm->type) - mean;
        vec d = load_some(d_out, start + i, count, norm->type);
        d = d * load_some(norm->weight, i, count, FLOAT32) - deviations * shrinking - shift;
        store_some(dx, start + i, count, d * scale, norm->type);
    }
}

/* `sums`, parts x 2 x channels zeros, receive the gradients of weight and bias of each part of the
   pixels. */
void channel_norm_backward(const void *x, const float *weight, const float *bias,
                           const void *d_out, void *dx, float *sums, long pixels, long channels,
                           long parts, float eps, long type)
{
    const Norm norm = {x, weight, bias, channels, eps, type};
#pragma omp parallel for
    for (long part = 0; part < parts; part++) {
        float *d_weight = sums + 2 * part * channels, *d_bias = d_weight + channels;
        for (long pixel = part * pixels / parts; pixel < (part + 1) * pixels / parts; pixel++)
            pixel_gradient(&norm, d_out, dx, d_weight, d_bias, pixel * channels);
    }
}
