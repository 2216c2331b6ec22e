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

/* Bytes looked up in a table of 256. */
#ifdef __AVX512VBMI__
INLINE vec look_up(const uint8_t *table, vec bytes)
{
    const vec low = _mm512_permutex2var_epi8(LOAD(table), bytes, LOAD(table + 64));
    const vec high = _mm512_permutex2var_epi8(LOAD(table + 128), bytes, LOAD(table + 192));
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(bytes), low, high);
}
#else
INLINE vec look_up(const uint8_t *table, vec bytes)
{
    uint8_t kept[sizeof(vec)];
    STORE(kept, bytes);
    for (int i = 0; i < (int)sizeof(vec); i++) kept[i] = table[kept[i]];
    return LOAD(kept);
}
#endif

INLINE void through_table(const uint8_t *table, const uint8_t *from, uint8_t *out, int64_t count)
{
    for (int64_t i = 0; i < count; i += BYTES) store_some(out + i, look_up(table, LOAD(from + i)), count - i);
}

/* What is done to sums, held in registers: results that are stored could otherwise be the step's own bytes. */
typedef struct {
    const Step *step;
    const uint8_t *table;
    int leaky;
    __m128i shift;
    vec low, high, flip;
} Ending;

INLINE Ending ending_of(const Step *s)
{
    return (Ending){s, s->table, (int)s->leaky, _mm_cvtsi64_si128(s->shift), V(set1_epi8)((char)s->low),
                    V(set1_epi8)((char)s->high), V(set1_epi8)((char)ZERO_POINT)};
}

INLINE vec rounded(const Ending *e, vec sum, const int32_t *bias)
{
    return __builtin_expect(e->leaky, 0) ? leaky_round(e->step, sum, bias) : V(sra_epi32)(sum, e->shift);
}

/* Clipped, as unsigned bytes, through the table. */
INLINE vec ended(const Ending *e, vec bytes)
{
    bytes = XOR(V(min_epi8)(V(max_epi8)(bytes, e->low), e->high), e->flip);
    return __builtin_expect(e->table != 0, 0) ? look_up(e->table, bytes) : bytes;
}

/* Two vectors of sums, interleaved by fours, as bytes in order; `left` channels are there. */
INLINE void finish_two(const Ending *e, vec a, vec b, const int32_t *bias, uint8_t *out, int64_t left)
{
    const vec words = V(packs_epi32)(rounded(e, a, bias), rounded(e, b, bias + LANES));
    store_half(out, LOWER_HALF(ended(e, WIDER(words_to_bytes(words)))), left);
}

/* The same for all channels of both, without leaky ReLU and table. */
INLINE void finish_plain(const Ending *e, vec a, vec b, uint8_t *out)
{
    const vec words = V(packs_epi32)(V(sra_epi32)(a, e->shift), V(sra_epi32)(b, e->shift));
    const vec bytes = V(min_epi8)(V(max_epi8)(WIDER(words_to_bytes(words)), e->low), e->high);
    store_half(out, LOWER_HALF(XOR(bytes, e->flip)), 2 * LANES);
}

/* One vector of sums in order. */
INLINE void finish_one(const Ending *e, vec a, const int32_t *bias, uint8_t *out, int64_t left)
{
    store_quarter(out, LOWER_QUARTER(ended(e, WIDEST(numbers_to_bytes(rounded(e, a, bias))))), left);
}

/* Four vectors of sums, each fourth of a lane another, as bytes in order. */
INLINE vec finish_four(const Ending *e, const vec *sums, const int32_t *bias)
{
    vec a[4];
    UNROLL for (int j = 0; j < 4; j++) a[j] = rounded(e, sums[j], bias + j * LANES);
    return ended(e, V(packs_epi16)(V(packs_epi32)(a[0], a[1]), V(packs_epi32)(a[2], a[3])));
}

#endif
