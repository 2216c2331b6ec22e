/* From sums to bytes: rounding, saturation, activation. */
#ifndef EPILOGUE_H
#define EPILOGUE_H

#include "program.h"
#include "vectors.h"

/* The larger of value and value * slope, each rounded once: the slope is below 1 and rounding is monotone. */
INLINE vec leaky_round(const Step *s, vec sum, const int32_t *bias)
{
    const vec value = V(add_epi32)(V(sll_epi32)(sum, _mm_cvtsi64_si128(s->fraction)), LOAD(bias));
    const int64_t bits = s->shift + s->fraction;
    const vec half = V(set1_epi32)(bits ? 1 << (bits - 1) : 0), leaked_half = V(set1_epi32)(1 << (bits + 7));
    const vec plain = V(sra_epi32)(V(add_epi32)(value, half), _mm_cvtsi64_si128(bits));
    const vec product = V(add_epi32)(V(mullo_epi32)(value, V(set1_epi32)((int32_t)s->multiplier)), leaked_half);
    return V(max_epi32)(plain, V(sra_epi32)(product, _mm_cvtsi64_si128(bits + 8)));
}

/* Each byte looked up. */
INLINE void through_table(const uint8_t *table, uint8_t *out, int64_t count)
{
    for (int64_t i = 0; i < count; i++) out[i] = table[out[i]];
}

/* Two vectors of sums, interleaved by fours, as bytes in order; `left` channels are there. */
INLINE void finish_two(const Step *s, vec a, vec b, const int32_t *bias, uint8_t *out, int64_t left)
{
    if (__builtin_expect(s->leaky, 0)) {
        a = leaky_round(s, a, bias);
        b = leaky_round(s, b, bias + LANES);
    } else {
        const __m128i shift = _mm_cvtsi64_si128(s->shift);
        a = V(sra_epi32)(a, shift);
        b = V(sra_epi32)(b, shift);
    }
    HALF bytes = words_to_bytes(V(packs_epi32)(a, b));
    bytes = HALF_MIN(HALF_MAX(bytes, HALF_SPREAD((char)s->low)), HALF_SPREAD((char)s->high));
    bytes = HALF_XOR(bytes, HALF_SPREAD((char)ZERO_POINT));
    if (__builtin_expect(s->table != 0, 0)) {
        uint8_t kept[2 * LANES];
        store_half(kept, bytes, 2 * LANES);
        through_table(s->table, kept, 2 * LANES);
        memcpy(out, kept, (size_t)smaller(left, 2 * LANES));
    } else
        store_half(out, bytes, left);
}

/* One vector of sums in order. */
INLINE void finish_one(const Step *s, vec a, const int32_t *bias, uint8_t *out, int64_t left)
{
    if (__builtin_expect(s->leaky, 0)) a = leaky_round(s, a, bias);
    else a = V(sra_epi32)(a, _mm_cvtsi64_si128(s->shift));
    __m128i bytes = numbers_to_bytes(a);
    bytes = _mm_min_epi8(_mm_max_epi8(bytes, _mm_set1_epi8((char)s->low)), _mm_set1_epi8((char)s->high));
    bytes = _mm_xor_si128(bytes, _mm_set1_epi8((char)ZERO_POINT));
    if (__builtin_expect(s->table != 0, 0)) {
        uint8_t kept[16];
        _mm_storeu_si128((__m128i *)kept, bytes);
        through_table(s->table, kept, LANES);
        memcpy(out, kept, (size_t)smaller(left, LANES));
    } else
        store_quarter(out, bytes, left);
}

/* Four vectors of sums, each fourth of a lane another, as bytes in order. */
INLINE void finish_four(const Step *s, const vec *sums, const int32_t *bias, uint8_t *out, int64_t left)
{
    vec a[4];
    UNROLL for (int j = 0; j < 4; j++)
        a[j] = __builtin_expect(s->leaky, 0) ? leaky_round(s, sums[j], bias + j * LANES)
                                             : V(sra_epi32)(sums[j], _mm_cvtsi64_si128(s->shift));
    vec bytes = V(packs_epi16)(V(packs_epi32)(a[0], a[1]), V(packs_epi32)(a[2], a[3]));
    bytes = V(min_epi8)(V(max_epi8)(bytes, V(set1_epi8)((char)s->low)), V(set1_epi8)((char)s->high));
    bytes = XOR(bytes, V(set1_epi8)((char)ZERO_POINT));
    if (__builtin_expect(s->table != 0, 0)) {
        uint8_t kept[BYTES];
        STORE(kept, bytes);
        through_table(s->table, kept, BYTES);
        memcpy(out, kept, (size_t)smaller(left, BYTES));
    } else
        store_some(out, bytes, left);
}

#endif
