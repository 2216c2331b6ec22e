/* int8 convolution and max pooling with the processor's dot-product instructions (VNNI), or with
 * AVX2's 16-bit products where it has none.
 *
 * Exact: products of unsigned activations (value + 128) and signed weights are summed in
 * 32-bit integers without saturation; the caller guarantees that no sum leaves that range
 * and folds the +128 into `offset`. See c_kernels.py for the contract of every argument.
 */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* acc += 4 products per lane. Inline assembly, because GCC 12 copies every sum around the
   intrinsic of this instruction and so spills them. */
#if defined(__AVX512VNNI__) && defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define DOT(acc, a, w) __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(w))
#define INSTRUCTIONS "AVX512-VNNI"
typedef __m512i vec;
#define LANES 16
#define WIDEST 4 /* of 32 registers: 6 x 4 sums, 4 weights, 1 activation */
#define LOAD(p) _mm512_loadu_si512((const void *)(p))
#define SPREAD(v) _mm512_set1_epi32(v)
#define SHIFT_RIGHT(a, n) _mm512_sra_epi32(a, n)
#define MAX(a, b) _mm512_max_epi32(a, b)
#define MIN(a, b) _mm512_min_epi32(a, b)
INLINE void store_bytes(int8_t *out, vec v, int64_t count)
{
    const __m128i bytes = _mm512_cvtepi32_epi8(v);
    if (count >= LANES) _mm_storeu_si128((__m128i *)out, bytes);
    else _mm_mask_storeu_epi8(out, (__mmask16)((1u << count) - 1), bytes);
}
#elif defined(__AVX2__)
#if defined(__AVXVNNI__)
#define DOT(acc, a, w) __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(a), "x"(w))
#define INSTRUCTIONS "AVX-VNNI"
#else
/* Bytes 0 and 2, then 1 and 3 of each lane as 16-bit numbers: pairs of products of 255 and 128 fit
   in 32 bits. (vpmaddubsw would need half as many instructions, but it saturates.) */
INLINE __m256i dot_by_words(__m256i acc, __m256i a, __m256i w)
{
    const __m256i even_a = _mm256_and_si256(a, _mm256_set1_epi32(0x00FF00FF)), odd_a = _mm256_srli_epi16(a, 8);
    const __m256i even_w = _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8), odd_w = _mm256_srai_epi16(w, 8);
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(even_a, even_w));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(odd_a, odd_w));
}
#define DOT(acc, a, w) ((acc) = dot_by_words(acc, a, w))
#define INSTRUCTIONS "AVX2"
#endif
typedef __m256i vec;
#define LANES 8
#define WIDEST 2 /* of 16 registers: 6 x 2 sums, 2 weights, 1 activation */
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define SPREAD(v) _mm256_set1_epi32(v)
#define SHIFT_RIGHT(a, n) _mm256_sra_epi32(a, n)
#define MAX(a, b) _mm256_max_epi32(a, b)
#define MIN(a, b) _mm256_min_epi32(a, b)
INLINE void store_bytes(int8_t *out, vec v, int64_t count)
{
    int32_t lanes[LANES];
    _mm256_storeu_si256((__m256i *)lanes, v);
    for (int i = 0; i < (count < LANES ? count : LANES); i++) out[i] = (int8_t)lanes[i];
}
#else
#error "neither VNNI nor AVX2"
#endif

int lanes(void) { return LANES; }

const char *instructions(void) { return INSTRUCTIONS; }

/* `wide` for each 32 bytes at `b`, then `narrow` for 16, the last of which may do some bytes again; `single`
   bytes where there are fewer than 16. The compiler's own loops go byte by byte over so few channels. */
#define BYTES(count, wide, narrow, single) \
    do { \
        int64_t b = 0; \
        for (; b + 32 <= (count); b += 32) wide; \
        if ((count) < 16) \
            for (; b < (count); b++) single; \
        for (; b < (count); b += 16) { \
            if (b + 16 > (count)) b = (count) - 16; \
            narrow; \
        } \
    } while (0)
#define LOAD32(p) _mm256_loadu_si256((const __m256i *)(p))
#define LOAD16(p) _mm_loadu_si128((const __m128i *)(p))
#define STORE32(p, v) _mm256_storeu_si256((__m256i *)(p), v)
#define STORE16(p, v) _mm_storeu_si128((__m128i *)(p), v)

typedef struct {
    const int64_t *start; /* for each group of 4 weights: its bytes' distance from the window's first */
    int64_t groups;
    int64_t channels; /* of the output */
    int32_t shift, low, high;
} Kernel;

INLINE int32_t load_four(const uint8_t *from)
{
    int32_t four;
    memcpy(&four, from, 4);
    return four;
}

/* PIXELS windows times BLOCKS vectors of output channels. The sizes are constants of the
   preprocessor and the loops are unrolled, so that all sums stay in registers. */
#define UNROLL _Pragma("GCC unroll 16")
#define TILE(PIXELS, BLOCKS) \
static void tile_##PIXELS##_##BLOCKS(const Kernel *k, const uint8_t *const *x, const int8_t *weights, \
                                     int64_t step, const int32_t *offset, int8_t *out, int64_t left) \
{ \
    vec sum[PIXELS][BLOCKS]; \
    UNROLL for (int p = 0; p < PIXELS; p++) \
        UNROLL for (int b = 0; b < BLOCKS; b++) sum[p][b] = LOAD(offset + b * LANES); \
    for (int64_t g = 0; g < k->groups; g++, weights += step) { \
        const int64_t at = k->start[g]; \
        vec w[BLOCKS]; \
        UNROLL for (int b = 0; b < BLOCKS; b++) w[b] = LOAD(weights + b * 4 * LANES); \
        UNROLL for (int p = 0; p < PIXELS; p++) { \
            const vec a = SPREAD(load_four(x[p] + at)); \
            UNROLL for (int b = 0; b < BLOCKS; b++) DOT(sum[p][b], a, w[b]); \
        } \
    } \
    const __m128i shift = _mm_cvtsi32_si128(k->shift); \
    const vec low = SPREAD(k->low), high = SPREAD(k->high); \
    UNROLL for (int p = 0; p < PIXELS; p++) \
        UNROLL for (int b = 0; b < BLOCKS; b++) \
            store_bytes(out + p * k->channels + b * LANES, \
                        MAX(MIN(SHIFT_RIGHT(sum[p][b], shift), high), low), left - b * LANES); \
}

#define MANY 6
TILE(6, 1) TILE(1, 1) TILE(6, 2) TILE(1, 2)
#if WIDEST == 4
TILE(6, 3) TILE(1, 3) TILE(6, 4) TILE(1, 4)
#endif

typedef void (*Tile)(const Kernel *, const uint8_t *const *, const int8_t *, int64_t, const int32_t *,
                     int8_t *, int64_t);
#if WIDEST == 4
static const Tile many[] = {0, tile_6_1, tile_6_2, tile_6_3, tile_6_4};
static const Tile one[] = {0, tile_1_1, tile_1_2, tile_1_3, tile_1_4};
#else
static const Tile many[] = {0, tile_6_1, tile_6_2}, one[] = {0, tile_1_1, tile_1_2};
#endif

/* x: padded input, value + 128, [n][in_h][in_w][c]; out: [n][out_h][out_w][channels]. */
void convolve(const uint8_t *x, const int8_t *weights, const int32_t *offset, int8_t *out,
              const int64_t *start, int64_t groups, int64_t n, int64_t image_bytes, int64_t row_bytes,
              int64_t column_bytes, int64_t out_h, int64_t out_w, int64_t channels, int32_t shift,
              int32_t low, int32_t high)
{
    const Kernel k = {start, groups, channels, shift, low, high};
    const int64_t blocks = (channels + LANES - 1) / LANES, pixels = n * out_h * out_w;
    const int64_t step = blocks * 4 * LANES;
    const int64_t next_row = row_bytes - out_w * column_bytes, next_image = image_bytes - out_h * row_bytes;
    int64_t row = 0, column = 0;
    const uint8_t *window = x;
    for (int64_t p = 0; p < pixels; p += MANY) {
        const int64_t count = pixels - p < MANY ? pixels - p : MANY;
        const uint8_t *windows[MANY];
        for (int64_t i = 0; i < count; i++) {
            windows[i] = window;
            window += column_bytes;
            if (++column < out_w) continue;
            column = 0;
            window += next_row;
            if (++row < out_h) continue;
            row = 0;
            window += next_image;
        }
        for (int64_t b = 0; b < blocks; b += WIDEST) {
            const int64_t width = blocks - b < WIDEST ? blocks - b : WIDEST, from = b * LANES;
            const int8_t *w = weights + b * 4 * LANES;
            if (count == MANY)
                many[width](&k, windows, w, step, offset + from, out + p * channels + from, channels - from);
            else
                for (int64_t i = 0; i < count; i++)
                    one[width](&k, windows + i, w, step, offset + from, out + (p + i) * channels + from,
                               channels - from);
        }
    }
}

/* int8 [n][h][bytes] into rows that lie row_bytes apart, each value + 128. */
void shift_into(const int8_t *x, uint8_t *out, int64_t n, int64_t h, int64_t bytes, int64_t image_bytes,
                int64_t row_bytes)
{
    const __m256i sign32 = _mm256_set1_epi8(-128);
    const __m128i sign16 = _mm_set1_epi8(-128);
    for (int64_t i = 0; i < n; i++)
        for (int64_t r = 0; r < h; r++, x += bytes) {
            uint8_t *to = out + i * image_bytes + r * row_bytes;
            BYTES(bytes, STORE32(to + b, _mm256_xor_si256(LOAD32(x + b), sign32)),
                  STORE16(to + b, _mm_xor_si128(LOAD16(x + b), sign16)), to[b] = (uint8_t)x[b] ^ 0x80);
        }
}

INLINE int8_t larger(int8_t a, int8_t b) { return a > b ? a : b; }

/* out = max(out, x), c bytes each */
INLINE void raise_to(int8_t *out, const int8_t *x, int64_t c)
{
    BYTES(c, STORE32(out + b, _mm256_max_epi8(LOAD32(out + b), LOAD32(x + b))),
          STORE16(out + b, _mm_max_epi8(LOAD16(out + b), LOAD16(x + b))), out[b] = larger(out[b], x[b]));
}

/* Maximum of two pixels of a row and the two below, c bytes each */
INLINE void largest_of_four(int8_t *out, const int8_t *row, const int8_t *below, int64_t c)
{
#define BYTE(p) (*(p))
#define LARGEST(max, load) \
    max(max(load(row + b), load(row + c + b)), max(load(below + b), load(below + c + b)))
    BYTES(c, STORE32(out + b, LARGEST(_mm256_max_epi8, LOAD32)),
          STORE16(out + b, LARGEST(_mm_max_epi8, LOAD16)), out[b] = LARGEST(larger, BYTE));
}

/* Maximum over kernel_h x kernel_w windows without padding, int8 [n][h][w][c]. */
void max_pool(const int8_t *restrict x, int8_t *restrict out, int64_t n, int64_t h, int64_t w, int64_t c,
              int64_t out_h, int64_t out_w, int64_t kernel_h, int64_t kernel_w, int64_t stride_h,
              int64_t stride_w)
{
    for (int64_t i = 0; i < n; i++, x += h * w * c)
        for (int64_t oh = 0; oh < out_h; oh++)
            for (int64_t ow = 0; ow < out_w; ow++, out += c) {
                const int8_t *window = x + (oh * stride_h * w + ow * stride_w) * c;
                if (kernel_h == 2 && kernel_w == 2) {
                    largest_of_four(out, window, window + w * c, c);
                    continue;
                }
                memcpy(out, window, (size_t)c);
                for (int64_t kh = 0; kh < kernel_h; kh++)
                    for (int64_t kw = 0; kw < kernel_w; kw++)
                        raise_to(out, window + (kh * w + kw) * c, c);
            }
}
