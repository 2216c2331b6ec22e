/* Resizing: pixels taken whole, or mixed of four. */
#include "epilogue.h"

#define SOME 64 /* channels that are done at once, where there are so many */
#define FEW 16

/* Pixels of the input, by row and column, each so many-th channel of them (`multiplier`; 0: all). */
void pick(const Frame *f, const Step *s, int64_t part, int64_t parts)
{
    const Map *in = f->maps + s->inputs[0], *out = f->maps + s->output;
    const int64_t lines = f->n * out->h, end = FIRST(lines, part + 1, parts);
    for (int64_t line = FIRST(lines, part, parts); line < end; line++) {
        const int64_t image = line / out->h, row = line % out->h;
        const uint8_t *from = f->arena + in->at + image * in->image + s->rows[row] * in->row;
        uint8_t *to = f->arena + out->at + image * out->image + row * out->row;
        for (int64_t w = 0; w < out->w; w++, to += out->pixel) {
            const uint8_t *pixel = from + s->columns[w] * in->pixel;
            if (s->multiplier > 1)
                for (int64_t c = 0; c < out->c; c++) {
                    const uint8_t value = pixel[c * s->multiplier];
                    to[c] = s->table ? s->table[value] : value;
                }
            else if (s->table) through_table(s->table, pixel, to, out->c);
            else memcpy(to, pixel, (size_t)out->c);
        }
    }
}

/* `some` values of a pixel, a constant, mixed of two of float32: each operation rounds, as NumPy's do. */
INLINE void mix(float *out, const float *lower, const float *upper, float share, const int some)
{
    for (int i = 0; i < some; i++) out[i] = lower[i] + (upper[i] - lower[i]) * share;
}

INLINE void mix_pixels(float *out, const uint8_t *lower, const uint8_t *upper, float share, const int some)
{
    float a[SOME], b[SOME];
    for (int i = 0; i < some; i++) a[i] = (float)((int32_t)lower[i] - ZERO_POINT);
    for (int i = 0; i < some; i++) b[i] = (float)((int32_t)upper[i] - ZERO_POINT);
    mix(out, a, b, share, some);
}

INLINE void blend_pixel(const uint8_t *top, const uint8_t *bottom, int64_t left, int64_t right, float across,
                        float down, double factor, uint8_t *out, int64_t count, const int some)
{
    for (int64_t c = 0; c < count; c += some) {
        float above[SOME], below[SOME], mixed[SOME];
        uint8_t bytes[SOME];
        mix_pixels(above, top + left + c, top + right + c, across, some);
        mix_pixels(below, bottom + left + c, bottom + right + c, across, some);
        mix(mixed, above, below, down, some);
        for (int i = 0; i < some; i++) {
            const double value = __builtin_floor((double)mixed[i] * factor + 0.5);
            bytes[i] = (uint8_t)((int32_t)(value < -128 ? -128 : value > 127 ? 127 : value) + ZERO_POINT);
        }
        memcpy(out + c, bytes, (size_t)smaller(some, count - c));
    }
}

/* Bilinear: along the columns, then along the rows, rounded once. */
void blend(const Frame *f, const Step *s, int64_t part, int64_t parts)
{
    const Map *in = f->maps + s->inputs[0], *out = f->maps + s->output;
    const int64_t lines = f->n * out->h, end = FIRST(lines, part + 1, parts);
    const double factor = s->shift < 0 ? (double)(1ll << -s->shift) : 1.0 / (double)(1ll << s->shift);
    for (int64_t line = FIRST(lines, part, parts); line < end; line++) {
        const int64_t image = line / out->h, row = line % out->h;
        const uint8_t *x = f->arena + in->at + image * in->image;
        const uint8_t *top = x + s->rows[row] * in->row, *bottom = x + s->upper_rows[row] * in->row;
        uint8_t *to = f->arena + out->at + image * out->image + row * out->row;
        for (int64_t w = 0; w < out->w; w++, to += out->pixel) {
            const int64_t left = s->columns[w] * in->pixel, right = s->upper_columns[w] * in->pixel;
            const float across = s->column_shares[w], down = s->row_shares[row];
            if (out->c <= FEW) blend_pixel(top, bottom, left, right, across, down, factor, to, out->c, FEW);
            else blend_pixel(top, bottom, left, right, across, down, factor, to, out->c, SOME);
        }
    }
}

/* Channels to pixels (`multiplier` is 1), or back; `shift` is the side of a block of pixels. */
void shuffle(const Frame *f, const Step *s, int64_t part, int64_t parts)
{
    const Map *in = f->maps + s->inputs[0], *out = f->maps + s->output;
    const int64_t scale = s->shift, block = scale * scale, up = s->multiplier;
    const Map *small = up ? in : out; /* the one with few pixels of many channels */
    const int64_t lines = f->n * small->h, end = FIRST(lines, part + 1, parts);
    for (int64_t line = FIRST(lines, part, parts); line < end; line++) {
        const int64_t image = line / small->h, row = line % small->h;
        for (int64_t w = 0; w < small->w; w++)
            for (int64_t place = 0; place < block; place++) {
                const int64_t r = up ? row : row * scale + place / scale, c = up ? w : w * scale + place % scale;
                const int64_t to_r = up ? row * scale + place / scale : row, to_c = up ? w * scale + place % scale : w;
                const uint8_t *from = f->arena + in->at + image * in->image + r * in->row + c * in->pixel;
                uint8_t *to = f->arena + out->at + image * out->image + to_r * out->row + to_c * out->pixel;
                const int64_t step = up ? 1 : block, from_step = up ? block : 1, count = up ? out->c : in->c;
                from += up ? place : 0;
                to += up ? 0 : place;
                for (int64_t i = 0; i < count; i++) {
                    const uint8_t value = from[i * from_step];
                    to[i * step] = s->table ? s->table[value] : value;
                }
            }
    }
}

/* The input's pixels stride_h rows and stride_w columns apart, zeros between. */
void spread(const Frame *f, const Step *s, int64_t part, int64_t parts)
{
    const Map *in = f->maps + s->inputs[0], *out = f->maps + s->output;
    const int64_t lines = f->n * out->h, end = FIRST(lines, part + 1, parts);
    for (int64_t line = FIRST(lines, part, parts); line < end; line++) {
        const int64_t image = line / out->h, row = line % out->h;
        const uint8_t *from = f->arena + in->at + image * in->image + row / s->stride_h * in->row;
        uint8_t *to = f->arena + out->at + image * out->image + row * out->row;
        for (int64_t w = 0; w < out->w; w++, to += out->pixel)
            if (row % s->stride_h || w % s->stride_w) memset(to, ZERO_POINT, (size_t)out->c);
            else memcpy(to, from + w / s->stride_w * in->pixel, (size_t)out->c);
    }
}
