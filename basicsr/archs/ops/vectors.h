/* Vectors of floats, and arrays of float32 or bfloat16, which are computed in float32.

   Vectors have the width of the processor's registers, which with AVX-512 is 16 floats. */

#ifndef VECTORS_H
#define VECTORS_H

#include <stdint.h>
#include <string.h>

#ifdef __AVX512F__
#include <immintrin.h>
enum { LANES = 16 };
#else
enum { LANES = 8 };
#endif

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t bits __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

typedef enum { FLOAT32, BFLOAT16 } Type; /* of the elements of an array */

static inline vec load(const float *at) { return *(const vec *)at; }
static inline void store(float *at, vec values) { *(vec *)at = values; }
static inline vec all(float value) { return value - (vec){0}; }

static inline vec choose(ints where, vec yes, vec no)
{
    return (vec)((where & (ints)yes) | (~where & (ints)no));
}

static inline vec magnitude(vec x) { return (vec)((ints)x & 0x7fffffff); }

static inline vec from_bfloat16(halves values)
{
    return (vec)(__builtin_convertvector(values, bits) << 16);
}

/* Rounds to the nearest number, and to the even one of two. */
static inline halves to_bfloat16(vec values)
{
#ifdef __AVX512BF16__
    return (halves)_mm512_cvtneps_pbh((__m512)values);
#else
    const bits all_bits = (bits)values, rounded = all_bits + 0x7fff + ((all_bits >> 16) & 1);
    const bits not_a_number = (bits)(values != values); /* must not become infinity */
    return __builtin_convertvector((rounded & ~not_a_number | not_a_number) >> 16, halves);
#endif
}

/* Elements [index, index + LANES) of an array. */
static inline vec load_from(const void *array, long index, Type type)
{
    if (type == BFLOAT16)
        return from_bfloat16(*(const halves *)((const uint16_t *)array + index));
    return load((const float *)array + index);
}

static inline void store_to(void *array, long index, vec values, Type type)
{
    if (type == BFLOAT16)
        *(halves *)((uint16_t *)array + index) = to_bfloat16(values);
    else
        store((float *)array + index, values);
}

/* Elements [index, index + count) of an array, then zeros. */
static inline vec load_some(const void *array, long index, long count, Type type)
{
    if (count >= LANES)
        return load_from(array, index, type);
#ifdef __AVX512BW__
    const uint32_t mask = (1u << count) - 1;
    if (type == BFLOAT16)
        return from_bfloat16((halves)_mm256_maskz_loadu_epi16(mask, (const uint16_t *)array + index));
    return (vec)_mm512_maskz_loadu_ps(mask, (const float *)array + index);
#else
    float values[LANES] = {0};
    for (long i = 0; i < count; i++) {
        if (type == BFLOAT16) {
            const uint32_t value = (uint32_t)((const uint16_t *)array)[index + i] << 16;
            memcpy(values + i, &value, sizeof value);
        } else {
            values[i] = ((const float *)array)[index + i];
        }
    }
    return load(values);
#endif
}

static inline void store_some(void *array, long index, long count, vec values, Type type)
{
    if (count >= LANES) {
        store_to(array, index, values, type);
        return;
    }
#ifdef __AVX512BW__
    const uint32_t mask = (1u << count) - 1;
    if (type == BFLOAT16)
        _mm256_mask_storeu_epi16((uint16_t *)array + index, mask, (__m256i)to_bfloat16(values));
    else
        _mm512_mask_storeu_ps((float *)array + index, mask, (__m512)values);
#else
    const halves rounded = to_bfloat16(values);
    if (type == BFLOAT16)
        memcpy((uint16_t *)array + index, &rounded, count * sizeof(uint16_t));
    else
        memcpy((float *)array + index, &values, count * sizeof(float));
#endif
}

/* The first `count` lanes, and zeros. */
static inline vec first(vec values, long count)
{
    for (long i = count; i < LANES; i++)
        values[i] = 0.0f;
    return values;
}

/* The sum of all lanes. */
static inline float total(vec values)
{
#ifdef __AVX512F__
    return _mm512_reduce_add_ps((__m512)values);
#else
    float sums[LANES];
    store(sums, values);
    for (long half = LANES / 2; half > 0; half /= 2)
        for (long i = 0; i < half; i++)
            sums[i] += sums[i + half];
    return sums[0];
#endif
}

/* exp(x) of x <= 0: 2^whole * 2^part, a polynomial for [-1/2, 1/2] within 2e-8 of it. */
static inline vec exponential(vec x)
{
    const vec shift = all(12582912.0f); /* 1.5 * 2^23: adding it rounds to whole numbers */
    vec power = x * 1.44269504f;
    power = choose(power < -126.0f, all(-126.0f), power);
    vec whole = (power + shift) - shift, part = power - whole;
    vec value = all(1.53458216e-4f);
    value = value * part + 1.33999344e-3f;
    value = value * part + 9.61848907e-3f;
    value = value * part + 5.55032864e-2f;
    value = value * part + 2.40226462e-1f;
    value = value * part + 6.93147182e-1f;
    value = value * part + 1.0f;
    return value * (vec)((__builtin_convertvector(whole, ints) + 127) << 23);
}

/* The normal distribution's density and cumulative function at x. The latter is
   exp(-x^2 / 2) * erfcx(|x| / sqrt(2)) / 2 below zero; erfcx(z) is a polynomial in
   1 / (1 + 0.4 z), within 3e-8 of it for z < 7 (least squares, reweighted for the maximum). */
static inline vec normal(vec x, vec *density)
{
    vec size = magnitude(x);
    vec bell = exponential(size * size * -0.5f);
    vec t = 1.0f / (size * 0.282842712f + 1.0f);
    vec tail = all(8.10915232e-2f);
    tail = tail * t - 4.31110561e-1f;
    tail = tail * t + 7.68753767e-1f;
    tail = tail * t - 4.82847422e-1f;
    tail = tail * t + 4.94542807e-1f;
    tail = tail * t + 9.75562260e-2f;
    tail = tail * t + 2.48993143e-1f;
    tail = tail * t + 2.22874731e-1f;
    tail = tail * t + 1.45759201e-4f;
    tail = tail * bell * 0.5f;
    *density = bell * 0.398942280f;
    return choose(x < 0.0f, tail, 1.0f - tail);
}

#endif
