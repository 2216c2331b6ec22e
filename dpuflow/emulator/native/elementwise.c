/* Addition, multiplication, copies: pixel by pixel, or longer pieces where maps have no gaps. */
#include "epilogue.h"

#define MOST_INPUTS 16

/* Equal pieces of bytes of the output, and where the inputs' are. */
typedef struct {
    int64_t rows, row_pieces, bytes; /* rows of one image, pieces of one row, bytes of one piece */
} Pieces;

static int dense(const Map *m) { return m->row == m->w * m->pixel; }
static int same_shape(const Map *a, const Map *b) { return a->h == b->h && a->w == b->w && a->c == b->c; }

static int is_number(const Map *m) { return m->h * m->w * m->c == 1; }

static Pieces pieces_of(const Frame *f, const Step *s)
{
    const Map *out = f->maps + s->output;
    int pixels = out->pixel == out->c, rows = dense(out);
    for (int64_t i = 0; i < s->count; i++) {
        const Map *in = f->maps + s->inputs[i];
        if (is_number(in)) continue;
        pixels = pixels && in->pixel == in->c && same_shape(in, out);
        rows = rows && dense(in);
    }
    if (pixels && rows) return (Pieces){1, 1, out->h * out->w * out->c};
    if (pixels) return (Pieces){out->h, 1, out->w * out->c};
    return (Pieces){out->h, out->w, out->c};
}

/* A map of one pixel, row or channel is spread over those of the output. */
INLINE int64_t place(const Map *m, int64_t image, int64_t row, int64_t column)
{
    return m->at + image * m->image + (m->h == 1 ? 0 : row * m->row) + (m->w == 1 ? 0 : column * m->pixel);
}

typedef void (*Work)(const Step *s, const uint8_t *const *x, const int64_t *steps, uint8_t *out, int64_t count);

static void each_piece(const Frame *f, const Step *s, int64_t part, int64_t parts, Work work)
{
    const Map *out = f->maps + s->output;
    const Pieces pieces = pieces_of(f, s);
    int64_t cuts = 1; /* few long pieces are cut, so that all workers have some */
    if (pieces.rows == 1 && parts > 1) cuts = parts;
    const int64_t units = f->n * pieces.rows * cuts, end = FIRST(units, part + 1, parts);
    int64_t steps[MOST_INPUTS];
    for (int64_t i = 0; i < s->count; i++) {
        const Map *in = f->maps + s->inputs[i];
        steps[i] = is_number(in) || (in->c == 1 && out->c > 1) ? 0 : 1;
    }
    for (int64_t unit = FIRST(units, part, parts); unit < end; unit++) {
        const int64_t cut = unit % cuts, row = unit / cuts % pieces.rows, image = unit / cuts / pieces.rows;
        const int64_t from = FIRST(pieces.bytes, cut, cuts), bytes = FIRST(pieces.bytes, cut + 1, cuts) - from;
        for (int64_t w = 0; w < pieces.row_pieces; w++) {
            const uint8_t *x[MOST_INPUTS];
            for (int64_t i = 0; i < s->count; i++)
                x[i] = f->arena + place(f->maps + s->inputs[i], image, row, w) + from * steps[i];
            work(s, x, steps, f->arena + place(out, image, row, w) + from, bytes);
        }
    }
}

#define SOME 64 /* values that are done at once, where there are so many */
#define FEW 16

/* value * 2**bits; C leaves it open what << makes of a negative number. */
INLINE int32_t left_by(int32_t value, int32_t bits) { return (int32_t)((uint32_t)value << bits); }

/* Sums or products of `some` values, a constant: rounded, clipped, written as bytes. */
INLINE void finish(const Step *s, const int32_t *value, uint8_t *out, int64_t count, const int some)
{
    uint8_t bytes[SOME];
    const int32_t shift = (int32_t)s->shift, half = shift ? 1 << (shift - 1) : 0, left = (int32_t)s->fraction;
    const int32_t low = (int32_t)s->low, high = (int32_t)s->high, slope = (int32_t)s->multiplier;
    if (s->leaky) {
        for (int i = 0; i < some; i++) {
            int32_t v = (left_by(value[i], left) + half) >> shift;
            const int32_t leaked = (left_by(value[i], left) * slope + (1 << (shift + 7))) >> (shift + 8);
            v = v > leaked ? v : leaked;
            v = v < low ? low : v > high ? high : v;
            bytes[i] = (uint8_t)(v + ZERO_POINT);
        }
    } else
        for (int i = 0; i < some; i++) {
            int32_t v = (left_by(value[i], left) + half) >> shift;
            v = v < low ? low : v > high ? high : v;
            bytes[i] = (uint8_t)(v + ZERO_POINT);
        }
    if (s->table) through_table(s->table, bytes, bytes, some);
    memcpy(out, bytes, (size_t)smaller(count, some));
}

/* value of input i: floor(x * 2**shifts[i]), `some` of them. */
INLINE void gather(int32_t *value, const uint8_t *x, int64_t step, int64_t shift, const int some)
{
    const int32_t left = shift > 0 ? (int32_t)shift : 0, right = shift < 0 ? (int32_t)-shift : 0;
    if (step)
        for (int i = 0; i < some; i++) value[i] = left_by((int32_t)x[i] - ZERO_POINT, left) >> right;
    else
        for (int i = 0; i < some; i++) value[i] = left_by((int32_t)x[0] - ZERO_POINT, left) >> right;
}

INLINE void add_width(const Step *s, const uint8_t *const *x, const int64_t *steps, uint8_t *out, int64_t count,
                      const int some)
{
    for (int64_t at = 0; at < count; at += some) {
        int32_t sum[SOME] = {0}, value[SOME];
        for (int64_t i = 0; i < s->count; i++) {
            gather(value, x[i] + at * steps[i], steps[i], s->shifts[i], some);
            for (int j = 0; j < some; j++) sum[j] += value[j];
        }
        finish(s, sum, out + at, count - at, some);
    }
}

static void add_some(const Step *s, const uint8_t *const *x, const int64_t *steps, uint8_t *out, int64_t count)
{
    if (count <= FEW) add_width(s, x, steps, out, count, FEW);
    else add_width(s, x, steps, out, count, SOME);
}

/* Two inputs in 16 bits: x * 2**7 at most, so that their sum fits. `shift` > 0. */
static void add_two(const Step *s, const uint8_t *const *x, const int64_t *steps, uint8_t *out, int64_t count)
{
    const vec flip = V(set1_epi8)((char)ZERO_POINT), zero = ZERO(), one = V(set1_epi16)(1);
    const vec low = V(set1_epi8)((char)s->low), high = V(set1_epi8)((char)s->high);
    /* unpacking puts a byte into the upper half of a word: x * 2**8 */
    const __m128i a_shift = _mm_cvtsi64_si128(smaller(8 - s->shifts[0], 15));
    const __m128i b_shift = _mm_cvtsi64_si128(smaller(8 - s->shifts[1], 15)), shift = _mm_cvtsi64_si128(s->shift - 1);
    for (int64_t at = 0; at < count; at += BYTES) {
        const vec a = XOR(LOAD(x[0] + at), flip), b = XOR(LOAD(x[1] + at), flip);
        vec first = V(add_epi16)(V(sra_epi16)(V(unpacklo_epi8)(zero, a), a_shift),
                                 V(sra_epi16)(V(unpacklo_epi8)(zero, b), b_shift));
        vec second = V(add_epi16)(V(sra_epi16)(V(unpackhi_epi8)(zero, a), a_shift),
                                  V(sra_epi16)(V(unpackhi_epi8)(zero, b), b_shift));
        /* floor((floor(t / 2**(n - 1)) + 1) / 2) = floor((t + 2**(n - 1)) / 2**n), without leaving 16 bits */
        first = V(srai_epi16)(V(adds_epi16)(V(sra_epi16)(first, shift), one), 1);
        second = V(srai_epi16)(V(adds_epi16)(V(sra_epi16)(second, shift), one), 1);
        const vec bytes = V(min_epi8)(V(max_epi8)(V(packs_epi16)(first, second), low), high);
        store_some(out + at, XOR(bytes, flip), count - at);
        (void)steps;
    }
}

void add(const Frame *f, const Step *s, int64_t part, int64_t parts)
{
    const Map *out = f->maps + s->output;
    int small = s->count == 2 && !s->leaky && !s->table && !s->fraction && s->shift > 0;
    for (int64_t i = 0; i < s->count; i++)
        small = small && s->shifts[i] <= 7 && same_shape(f->maps + s->inputs[i], out);
    each_piece(f, s, part, parts, small ? add_two : add_some);
}

INLINE void multiply_width(const Step *s, const uint8_t *const *x, const int64_t *steps, uint8_t *out,
                           int64_t count, const int some)
{
    for (int64_t at = 0; at < count; at += some) {
        int32_t product[SOME], value[SOME];
        gather(product, x[0] + at * steps[0], steps[0], 0, some);
        for (int64_t i = 1; i < s->count; i++) {
            gather(value, x[i] + at * steps[i], steps[i], 0, some);
            for (int j = 0; j < some; j++) product[j] *= value[j];
        }
        finish(s, product, out + at, count - at, some);
    }
}

static void multiply_some(const Step *s, const uint8_t *const *x, const int64_t *steps, uint8_t *out, int64_t count)
{
    if (count <= FEW) multiply_width(s, x, steps, out, count, FEW);
    else multiply_width(s, x, steps, out, count, SOME);
}

void multiply(const Frame *f, const Step *s, int64_t part, int64_t parts)
{
    each_piece(f, s, part, parts, multiply_some);
}

static void copy_some(const Step *s, const uint8_t *const *x, const int64_t *steps, uint8_t *out, int64_t count)
{
    (void)steps;
    if (s->table) through_table(s->table, x[0], out, count);
    else
        memcpy(out, x[0], (size_t)count);
}

/* A map of equal shape into another layout, through a table if there is one. */
void copy(const Frame *f, const Step *s, int64_t part, int64_t parts) { each_piece(f, s, part, parts, copy_some); }

/* Between the caller's int8 arrays, which have no gaps, and maps. */
INLINE void flip(const uint8_t *from, uint8_t *to, int64_t count)
{
    for (int64_t i = 0; i < count; i++) to[i] = from[i] ^ ZERO_POINT;
}

static void exchange(const Frame *f, const Step *s, const Map *m, int in, uint8_t *outside, int64_t part, int64_t parts)
{
    const int64_t images = s->constant ? 0 : 1; /* how far from one image to the next: a constant is one for all */
    const int whole = m->pixel == m->c;
    const int64_t lines = f->n * m->h, end = FIRST(lines, part + 1, parts), bytes = whole ? m->w * m->c : m->c;
    uint8_t *array = outside + images * f->first * m->h * m->w * m->c;
    for (int64_t line = FIRST(lines, part, parts); line < end; line++)
        for (int64_t w = 0; w < (whole ? 1 : m->w); w++) {
            uint8_t *inside = f->arena + place(m, line / m->h, line % m->h, w), *there = array + ((images ? line : line % m->h) * m->w + w) * m->c;
            if (in) flip(there, inside, bytes);
            else flip(inside, there, bytes);
        }
}

void load(const Frame *f, const Step *s, int64_t part, int64_t parts)
{
    exchange(f, s, f->maps + s->output, 1, (uint8_t *)f->sources[s->external], part, parts);
}

void store(const Frame *f, const Step *s, int64_t part, int64_t parts)
{
    exchange(f, s, f->maps + s->inputs[0], 0, (uint8_t *)f->targets[s->external], part, parts);
}
