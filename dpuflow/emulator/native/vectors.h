/* The processor's vectors under one set of names: 512 bits with VNNI, else 256 bits, with VNNI or with
 * AVX2's 16-bit products. All byte and word operations work lane by lane of 128 bits, as the processor's do.
 */
#ifndef VECTORS_H
#define VECTORS_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* DOT(acc, a, w): acc += 4 products per lane, unsigned bytes a times signed bytes w, without saturation.
   Inline assembly, because GCC 12 copies every sum around the intrinsic of this instruction and so spills
   them. */
#if defined(__AVX512VNNI__) && defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define DOT(acc, a, w) __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(w))
#define INSTRUCTIONS "AVX512-VNNI"
typedef __m512i vec;
#define LANES 16
#define V(name) _mm512_##name
#define LOAD(p) _mm512_loadu_si512((const void *)(p))
#define STORE(p, v) _mm512_storeu_si512((void *)(p), v)
#define XOR(a, b) _mm512_xor_si512(a, b)
#define ZERO() _mm512_setzero_si512()

/* The lowest `count` bytes (at most 64) of v, or all. */
INLINE void store_some(uint8_t *out, vec v, int64_t count)
{
    if (count >= 64) STORE(out, v);
    else _mm512_mask_storeu_epi8(out, ((__mmask64)1 << count) - 1, v);
}

/* 32 words as bytes, saturated. */
INLINE __m256i words_to_bytes(vec words) { return _mm512_cvtsepi16_epi8(words); }
INLINE __m128i numbers_to_bytes(vec numbers) { return _mm512_cvtsepi32_epi8(numbers); }
INLINE void store_half(uint8_t *out, __m256i v, int64_t count)
{
    if (count >= 32) _mm256_storeu_si256((__m256i *)out, v);
    else _mm256_mask_storeu_epi8(out, (__mmask32)((1ull << count) - 1), v);
}
INLINE void store_quarter(uint8_t *out, __m128i v, int64_t count)
{
    if (count >= 16) _mm_storeu_si128((__m128i *)out, v);
    else _mm_mask_storeu_epi8(out, (__mmask16)((1u << count) - 1), v);
}
#define WIDER(v) _mm512_castsi256_si512(v)
#define WIDEST(v) _mm512_castsi128_si512(v)
#define LOWER_HALF(v) _mm512_castsi512_si256(v)
#define LOWER_QUARTER(v) _mm512_castsi512_si128(v)

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
#define V(name) _mm256_##name
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define STORE(p, v) _mm256_storeu_si256((__m256i *)(p), v)
#define XOR(a, b) _mm256_xor_si256(a, b)
#define ZERO() _mm256_setzero_si256()

INLINE void store_some(uint8_t *out, vec v, int64_t count)
{
    uint8_t bytes[32];
    if (count >= 32) {
        STORE(out, v);
        return;
    }
    STORE(bytes, v);
    memcpy(out, bytes, (size_t)count);
}
INLINE __m128i words_to_bytes(vec words)
{
    return _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}
INLINE __m128i numbers_to_bytes(vec numbers)
{
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(numbers), _mm256_extracti128_si256(numbers, 1));
    return _mm_packs_epi16(words, words);
}
INLINE void store_half(uint8_t *out, __m128i v, int64_t count)
{
    uint8_t bytes[16];
    if (count >= 16) {
        _mm_storeu_si128((__m128i *)out, v);
        return;
    }
    _mm_storeu_si128((__m128i *)bytes, v);
    memcpy(out, bytes, (size_t)count);
}
INLINE void store_quarter(uint8_t *out, __m128i v, int64_t count) { store_half(out, v, count < 8 ? count : 8); }
#define WIDER(v) _mm256_castsi128_si256(v)
#define WIDEST(v) _mm256_castsi128_si256(v)
#define LOWER_HALF(v) _mm256_castsi256_si128(v)
#define LOWER_QUARTER(v) _mm256_castsi256_si128(v)
#else
#error "neither VNNI nor AVX2"
#endif

#define BYTES ((int64_t)sizeof(vec))

INLINE int32_t load_four(const uint8_t *from)
{
    int32_t four;
    memcpy(&four, from, 4);
    return four;
}

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t greater(int64_t a, int64_t b) { return a > b ? a : b; }

#endif
