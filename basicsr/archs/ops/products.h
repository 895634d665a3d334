/* Products of pixels' channels and matrices of weights, on words of 32 bits.

   A word holds one float32 value or, where the processor multiplies bfloat16 (PAIRS), two bfloat16
   values, which are multiplied with those of another word and added up in float32. With AMX
   (TILES), it multiplies such words by tiles of 16 x 16. */

#ifndef PRODUCTS_H
#define PRODUCTS_H

#include "vectors.h"

#ifdef __AVX512BF16__
enum { PAIRS = 1, TILES };
#else
enum { PAIRS = 0 };
#endif

#if defined __AVX512BF16__ && defined __AMX_BF16__ && defined __linux__
#define HAS_TILES
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* Sums are kept in registers: of at most WIDEST vectors of channels and MOST_PIXELS pixels. */
enum { WIDEST = LANES == 16 ? 4 : 2, MOST_PIXELS = 16 };
enum { LINE = 64 }; /* bytes of a line of the cache */

typedef uint32_t word;

INLINE long up_to_multiple(long count, long of) { return (count + of - 1) / of * of; }
INLINE long smaller(long a, long b) { return a < b ? a : b; }
INLINE long larger(long a, long b) { return a > b ? a : b; }

INLINE vec load_words(const word *at) { return load((const float *)at); }
INLINE void store_words(word *at, vec values) { store((float *)at, values); }
INLINE vec everywhere(word value) { return (vec)(value - (bits){0}); }

INLINE uint16_t rounded_to_bfloat16(float value)
{
    word number;
    memcpy(&number, &value, sizeof number);
    return value != value ? 0x7fc0 : (number + 0x7fff + (number >> 16 & 1)) >> 16;
}

/* The word of the first value, or of the first two. */
INLINE word word_of(const float *values, long count, int pairs)
{
    word number;
    memcpy(&number, values, sizeof number);
    if (pairs) {
        number = rounded_to_bfloat16(values[0]);
        number |= count > 1 ? (word)rounded_to_bfloat16(values[1]) << 16 : 0;
    }
    return number;
}

INLINE vec pairs_of(vec low, vec high)
{
    const bits lower = __builtin_convertvector(to_bfloat16(low), bits);
    return (vec)(lower | __builtin_convertvector(to_bfloat16(high), bits) << 16);
}

/* Writes LANES channels of a pixel as words; with `pairs` these are half as many. */
INLINE void store_channels(word *pixel, long channel, vec values, int pairs)
{
    if (pairs)
        *(halves *)(pixel + channel / 2) = to_bfloat16(values);
    else
        store_words(pixel + channel, values);
}

/* sum + a * b for every channel, of float32 values or of pairs of bfloat16 values. */
INLINE vec add_product(vec sum, vec a, vec b, int pairs)
{
#ifdef __AVX512BF16__
    if (pairs)
        return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#endif
    (void)pairs;
    return sum + a * b;
}

#ifdef HAS_TILES

/* Whether the system lets this process use the tile registers; it must be asked for them. */
static inline int tiles_allowed(void)
{
    enum { REQUEST = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}

/* Gives the tile registers their shapes for products of `depth` words: 0 to 3 are sums, 4 words of
   pixels and 5 of weights, 6 and 7 the last of these, if they are fewer than LANES. */
static inline void shape_tiles(long depth)
{
    const long rest = depth % LANES ? depth % LANES : LANES;
    struct {
        uint8_t palette, start, unused[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } shapes = {.palette = 1};
    for (long i = 0; i < 8; i++) {
        shapes.bytes[i] = (i == 6 ? rest : LANES) * sizeof(word);
        shapes.rows[i] = i == 7 ? rest : LANES;
    }
    __asm__ volatile("" ::"r"(&shapes) : "memory");
    _tile_loadconfig(&shapes);
}

/* `add_products` of LANES pixels. */
INLINE void add_tile_products(vec sums[MOST_PIXELS][WIDEST], int vectors, const word *x,
                              long pixel_stride, const word *weights, long weight_stride,
                              long depth)
{
    const long step = weight_stride * sizeof(word);
    __asm__ volatile("" ::"r"(sums) : "memory"); /* GCC does not know what tiles read */
#define IF_USED(v, work)                                                                          \
    if (vectors > v)                                                                              \
    work
#define BEGIN(v) IF_USED(v, _tile_loadd(v, sums[0] + v, sizeof sums[0]))
#define END(v) IF_USED(v, _tile_stored(v, sums[0] + v, sizeof sums[0]))
#define MULTIPLY(v, words, factors)                                                               \
    IF_USED(v, {                                                                                  \
        _tile_loadd(factors, weights + k * weight_stride + v * LANES, step);                      \
        _tile_dpbf16ps(v, words, factors);                                                        \
    })
#define OF_ALL(work, ...)                                                                         \
    do {                                                                                          \
        work(0, ##__VA_ARGS__);                                                                   \
        work(1, ##__VA_ARGS__);                                                                   \
        work(2, ##__VA_ARGS__);                                                                   \
        work(3, ##__VA_ARGS__);                                                                   \
    } while (0)
    OF_ALL(BEGIN);
    long k = 0;
    for (; k + LANES <= depth; k += LANES) {
        _tile_loadd(4, x + k, pixel_stride * sizeof(word));
        OF_ALL(MULTIPLY, 4, 5);
    }
    if (k < depth) {
        _tile_loadd(6, x + k, pixel_stride * sizeof(word));
        OF_ALL(MULTIPLY, 6, 7);
    }
    OF_ALL(END);
#undef IF_USED
#undef BEGIN
#undef END
#undef MULTIPLY
#undef OF_ALL
}

#endif

/* Writes the words of four vectors so that those of a lane are contiguous. */
INLINE void store_transposed(word *to, long stride, const vec words[4])
{
#ifdef HAS_TILES
    const __m512i x[4] = {(__m512i)words[0], (__m512i)words[1], (__m512i)words[2],
                          (__m512i)words[3]};
    const __m512i low[2] = {_mm512_unpacklo_epi32(x[0], x[1]), _mm512_unpacklo_epi32(x[2], x[3])};
    const __m512i high[2] = {_mm512_unpackhi_epi32(x[0], x[1]), _mm512_unpackhi_epi32(x[2], x[3])};
    const __m512i lanes[4] = { /* lanes i, i + 4, i + 8 and i + 12 */
        _mm512_unpacklo_epi64(low[0], low[1]), _mm512_unpackhi_epi64(low[0], low[1]),
        _mm512_unpacklo_epi64(high[0], high[1]), _mm512_unpackhi_epi64(high[0], high[1])};
#define STORE(i, quarter)                                                                         \
    _mm_storeu_si128((__m128i *)(to + (4 * quarter + i) * stride),                                \
                     _mm512_extracti32x4_epi32(lanes[i], quarter))
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        STORE(i, 0);
        STORE(i, 1);
        STORE(i, 2);
        STORE(i, 3);
    }
#undef STORE
#endif
    (void)to, (void)stride, (void)words;
}

/* Prepares the processor for products of `depth` words; before `add_products`. */
INLINE void begin_products(long depth, int pairs)
{
#ifdef HAS_TILES
    if (pairs == TILES)
        shape_tiles(depth);
#endif
    (void)depth, (void)pairs;
}

/* Undoes `begin_products`, after all products of a thread. */
INLINE void end_products(int pairs)
{
#ifdef HAS_TILES
    if (pairs == TILES)
        _tile_release();
#endif
    (void)pairs;
}

/* Adds to sums[pixel][vector] the products of `depth` words of each of `pixels` pixels with as many
   rows of weights. Strides are in words: from pixel to pixel, from word to word of a pixel, and
   from row to row of the weights. With TILES, words of a pixel are contiguous. */
INLINE void add_products(vec sums[MOST_PIXELS][WIDEST], int pixels, int vectors, const word *x,
                         long pixel_stride, long word_stride, const word *weights,
                         long weight_stride, long depth, int pairs)
{
#ifdef HAS_TILES
    if (pairs == TILES) {
        add_tile_products(sums, vectors, x, pixel_stride, weights, weight_stride, depth);
        return;
    }
#endif
    for (long k = 0; k < depth; k++) {
        vec w[WIDEST];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            w[v] = load_words(weights + k * weight_stride + v * LANES);
#pragma GCC unroll 16
        for (int p = 0; p < pixels; p++) {
            const vec value = everywhere(x[p * pixel_stride + k * word_stride]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                sums[p][v] = add_product(sums[p][v], w[v], value, pairs);
        }
    }
}

INLINE void begin_sums(vec sums[MOST_PIXELS][WIDEST], int pixels, int vectors, const float *bias)
{
#pragma GCC unroll 16
    for (int p = 0; p < pixels; p++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            sums[p][v] = bias ? load(bias + v * LANES) : (vec){0};
}

/* Pixels whose sums, of that many vectors, fit into the registers; an even number. */
INLINE int pixels_of(int vectors, int pairs)
{
    if (pairs > PAIRS)
        return LANES;
    if (LANES == 16)
        return vectors == 1 ? 16 : vectors == 2 ? 12 : vectors == 3 ? 8 : 6;
    return vectors == 1 ? 8 : 6;
}

/* Vectors to compute together when so many are left. */
INLINE int vectors_of(long left)
{
    return left >= WIDEST && left != WIDEST + 1 ? WIDEST : left > WIDEST ? WIDEST - 1 : left;
}

/* Calls `work` with the number of vectors as a constant. */
#define WITH_VECTORS(vectors, work, ...)                                                          \
    do {                                                                                          \
        switch (vectors) {                                                                        \
        case 1:                                                                                   \
            work(1, __VA_ARGS__);                                                                 \
            break;                                                                                \
        case 2:                                                                                   \
            work(2, __VA_ARGS__);                                                                 \
            break;                                                                                \
        case 3:                                                                                   \
            work(WIDEST - 1, __VA_ARGS__);                                                        \
            break;                                                                                \
        default:                                                                                  \
            work(WIDEST, __VA_ARGS__);                                                            \
        }                                                                                         \
    } while (0)

/* Packs weights, outputs x taps x inputs, by vectors of outputs that are computed together: taps x
   words x vectors x LANES. Outputs are `parts` times `part` channels, and every part begins with a
   vector. Called by all threads. */
static inline void pack_products(word *to, const float *weights, long parts, long part,
                                 long taps, long inputs, int pairs)
{
    const long group = pairs ? 2 : 1, depth = (inputs + group - 1) / group;
    const long part_vectors = up_to_multiple(part, LANES) / LANES, vectors = parts * part_vectors;
#pragma omp for schedule(dynamic) nowait
    for (long vector = 0; vector < vectors; vector++) {
        long first = 0; /* of the vectors that are computed together */
        int together = vectors_of(vectors);
        while (first + together <= vector) {
            first += together;
            together = vectors_of(vectors - first);
        }
        word *panel = to + first * LANES * taps * depth + (vector - first) * LANES;
        for (long lane = 0; lane < LANES; lane++) {
            const long within = vector % part_vectors * LANES + lane;
            const long output = vector / part_vectors * part + within;
            for (long i = 0; i < taps * depth; i++) {
                const long input = i % depth * group;
                const float *from = weights + (output * taps + i / depth) * inputs + input;
                panel[i * together * LANES + lane] =
                    within < part ? word_of(from, inputs - input, pairs) : 0;
            }
        }
    }
}

/* Copies one value for every output, in the order of `pack_products`; NULL stands for zeros. */
static inline void pack_channels(float *to, const float *values, long parts, long part)
{
    const long padded = up_to_multiple(part, LANES);
    for (long i = 0; i < parts * padded; i++) {
        const long within = i % padded;
        to[i] = values && within < part ? values[i / padded * part + within] : 0.0f;
    }
}

/* Takes `count` words from a block of memory; with a block of NULL it only counts. */
static inline void *take(char *block, long *used, long count)
{
    char *at = block ? block + *used : NULL;
    *used += up_to_multiple(count * sizeof(word), LINE);
    return at;
}

#endif
