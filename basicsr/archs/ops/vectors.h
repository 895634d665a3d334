/* Vectors of floats, and arrays of float32 or bfloat16, which are computed in float32.

   Vectors have the width of the processor's registers, which with AVX-512 is 16 floats. */

#ifndef VECTORS_H
#define VECTORS_H

#include <stdint.h>
#include <string.h>

#if defined __AVX512F__ && defined __AVX512BW__ && defined __AVX512VL__
#define HAS_AVX512
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

/* Load into a register. GCC repeats a plain load for each use instead. */
static inline vec keep(const float *at)
{
    vec values = load(at);
#ifdef HAS_AVX512
    __asm__("" : "+v"(values));
#endif
    return values;
}

static inline vec all(float value) { return value - (vec){0}; }

static inline vec choose(ints where, vec yes, vec no)
{
    return (vec)((where & (ints)yes) | (~where & (ints)no));
}

/* For functions whose last arguments become constants in the functions that they are inlined into. */
#define INLINE __attribute__((always_inline)) static inline

#ifdef HAS_AVX512
static inline vec smallest(vec a, vec b) { return (vec)_mm512_min_ps((__m512)a, (__m512)b); }
static inline vec largest(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); }
#else
static inline vec smallest(vec a, vec b) { return choose(a < b, a, b); }
static inline vec largest(vec a, vec b) { return choose(a > b, a, b); }
#endif

static inline vec magnitude(vec x) { return (vec)((ints)x & 0x7fffffff); }

/* Rounds to the nearest number, and to the even one of two. */
static inline halves to_bfloat16(vec values)
{
#ifdef __AVX512BF16__
    return (halves)_mm512_cvtneps_pbh((__m512)values);
#else
    const bits all_bits = (bits)values, rounded = all_bits + 0x7fff + ((all_bits >> 16) & 1);
    const bits not_a_number = (bits)(values != values); /* must not become infinity */
    return __builtin_convertvector(((rounded & ~not_a_number) | not_a_number) >> 16, halves);
#endif
}

#ifdef HAS_AVX512

/* Elements [index, index + count) of an array, then zeros; all lanes if `count` is larger. */
static inline vec load_some(const void *array, long index, long count, Type type)
{
    const __mmask16 lanes = count < LANES ? (1u << count) - 1 : 0xffff;
    if (type == FLOAT32)
        return (vec)_mm512_maskz_loadu_ps(lanes, (const float *)array + index);
    const __m256i values = _mm256_maskz_loadu_epi16(lanes, (const uint16_t *)array + index);
    return (vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(values), 16);
}

/* Stores `count` lanes; all if `count` is larger. */
static inline void store_some(void *array, long index, long count, vec values, Type type)
{
    const __mmask16 lanes = count < LANES ? (1u << count) - 1 : 0xffff;
    if (type == FLOAT32) {
        _mm512_mask_storeu_ps((float *)array + index, lanes, (__m512)values);
        return;
    }
    _mm256_mask_storeu_epi16((uint16_t *)array + index, lanes, (__m256i)to_bfloat16(values));
}

#else

static inline vec load_some(const void *array, long index, long count, Type type)
{
    float values[LANES] = {0};
    if (type == FLOAT32) {
        const float *from = (const float *)array + index;
        if (count >= LANES)
            return load(from);
        memcpy(values, from, count * sizeof(float));
        return load(values);
    }
    halves bfloat16 = {0};
    const uint16_t *from = (const uint16_t *)array + index;
    if (count >= LANES)
        bfloat16 = *(const halves *)from;
    else
        memcpy(&bfloat16, from, count * sizeof(uint16_t));
    return (vec)(__builtin_convertvector(bfloat16, bits) << 16);
}

static inline void store_some(void *array, long index, long count, vec values, Type type)
{
    if (type == FLOAT32) {
        float *to = (float *)array + index;
        if (count >= LANES)
            store(to, values);
        else
            memcpy(to, &values, count * sizeof(float));
        return;
    }
    uint16_t *to = (uint16_t *)array + index;
    const halves rounded = to_bfloat16(values);
    if (count >= LANES)
        *(halves *)to = rounded;
    else
        memcpy(to, &rounded, count * sizeof(uint16_t));
}

#endif

/* `count` numbers, `step` apart, then zeros; all lanes if `count` is larger. */
static inline vec gather(const float *from, long step, long count)
{
    vec values = {0};
#ifdef HAS_AVX512
    if (count >= LANES) {
        const ints lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        return (vec)_mm512_i32gather_ps((__m512i)(lanes * (int32_t)step), from, sizeof(float));
    }
#endif
    for (long i = 0; i < LANES && i < count; i++)
        values[i] = from[i * step];
    return values;
}

/* Stores `count` lanes `step` apart; all if `count` is larger. */
static inline void scatter(float *to, long step, long count, vec values)
{
    for (long i = 0; i < LANES && i < count; i++)
        to[i * step] = values[i];
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
#ifdef HAS_AVX512
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

/* The normal distribution's cumulative function, for results in bfloat16: a polynomial, which is 0
   below -4.3, and within 4e-6 of 1 above 4.3. For x up to 10, x * rough_normal(x) is within 6e-5 of
   the GELU (least squares, reweighted). The last coefficient is not 1/2, so that rounding leaves no
   rest. */
static inline vec rough_normal(vec x)
{
    x = largest(all(-4.3f), smallest(all(4.3f), x)); /* NaN stays */
    const vec square = x * x;
    vec value = all(5.38178030e-11f);
    value = value * square - 5.25119698e-9f;
    value = value * square + 2.25650131e-7f;
    value = value * square - 5.68349943e-6f;
    value = value * square + 9.46914006e-5f;
    value = value * square - 1.12130990e-3f;
    value = value * square + 9.88035430e-3f;
    value = value * square - 6.64970980e-2f;
    value = value * square + 3.99028113e-1f;
    return largest(value * x + 0.499998f, all(0.0f));
}

/* The normal distribution's cumulative function at x, and the slope of x times it. In bfloat16 the
   slope is a polynomial within 8e-5 (least squares, reweighted for the maximum), constant beyond -4
   and 4; where it is not used, it is not computed. */
static inline vec normal_and_slope(vec x, vec *slope, Type type)
{
    if (type == FLOAT32) {
        vec density, below = normal(x, &density);
        *slope = below + x * density;
        return below;
    }
    const vec below = rough_normal(x);
    x = largest(all(-4.0f), smallest(all(4.0f), x)); /* NaN stays */
    const vec square = x * x;
    vec rise = all(-5.24776499e-11f);
    rise = rise * square + 4.92695060e-09f;
    rise = rise * square - 2.07031381e-07f;
    rise = rise * square + 5.18398214e-06f;
    rise = rise * square - 8.70309102e-05f;
    rise = rise * square + 1.04357707e-03f;
    rise = rise * square - 9.20868799e-03f;
    rise = rise * square + 5.94156429e-02f;
    rise = rise * square - 2.65671538e-01f;
    rise = rise * square + 7.97826062e-01f;
    *slope = rise * x + 0.5f;
    return below;
}

#endif
