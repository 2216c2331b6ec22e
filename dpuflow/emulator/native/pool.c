/* Pooling. Padding is never read: a window is cut to the map. */
#include "epilogue.h"

typedef struct {
    int64_t first, end; /* of the map's rows or columns */
} Span;

INLINE Span window(int64_t at, int64_t stride, int64_t pad, int64_t kernel, int64_t size)
{
    const int64_t first = at * stride - pad;
    return (Span){greater(first, 0), smaller(first + kernel, size)};
}

void max_pool(const Frame *f, const Step *s, int64_t part, int64_t parts)
{
    const Map *in = f->maps + s->inputs[0], *out = f->maps + s->output;
    const int64_t lines = f->n * out->h, end = FIRST(lines, part + 1, parts);
    const uint8_t *table = s->table;
    for (int64_t line = FIRST(lines, part, parts); line < end; line++) {
        const int64_t image = line / out->h, oh = line % out->h;
        const Span rows = window(oh, s->stride_h, s->pad_top, s->kernel_h, in->h);
        for (int64_t ow = 0; ow < out->w; ow++) {
            const Span columns = window(ow, s->stride_w, s->pad_left, s->kernel_w, in->w);
            const uint8_t *x = f->arena + in->at + image * in->image + rows.first * in->row + columns.first * in->pixel;
            uint8_t *to = f->arena + out->at + image * out->image + oh * out->row + ow * out->pixel;
            for (int64_t c = 0; c < out->c; c += BYTES) {
                vec most = ZERO();
                const uint8_t *row = x + c;
                for (int64_t r = rows.first; r < rows.end; r++, row += in->row) {
                    const uint8_t *pixel = row;
                    for (int64_t w = columns.first; w < columns.end; w++, pixel += in->pixel)
                        most = V(max_epu8)(most, LOAD(pixel));
                }
                store_some(to + c, table ? look_up(table, most) : most, out->c - c);
            }
        }
    }
}

#define SOME 64 /* channels whose sums are kept at once */

void average_pool(const Frame *f, const Step *s, int64_t part, int64_t parts)
{
    const Map *in = f->maps + s->inputs[0], *out = f->maps + s->output;
    const int64_t blocks = (out->c + SOME - 1) / SOME, units = f->n * out->h * out->w * blocks;
    const int64_t end = FIRST(units, part + 1, parts);
    for (int64_t unit = FIRST(units, part, parts); unit < end; unit++) {
        const int64_t channel = unit % blocks * SOME, at = unit / blocks;
        const int64_t ow = at % out->w, oh = at / out->w % out->h, image = at / out->w / out->h;
        const Span rows = window(oh, s->stride_h, s->pad_top, s->kernel_h, in->h);
        const Span columns = window(ow, s->stride_w, s->pad_left, s->kernel_w, in->w);
        int64_t shift = s->shift, multiplier = s->multiplier;
        if (s->factors) {
            const int64_t *own = s->factors + 2 * ((rows.end - rows.first) * (s->kernel_w + 1) + columns.end - columns.first);
            multiplier = own[0];
            shift += own[1];
        }
        const int32_t half = shift ? 1 << (shift - 1) : 0, factor = (int32_t)multiplier;
        int32_t sums[SOME];
        const int32_t zeros = (int32_t)(-ZERO_POINT * greater(rows.end - rows.first, 0) * greater(columns.end - columns.first, 0));
        for (int c = 0; c < SOME; c++) sums[c] = zeros;
        for (int64_t r = rows.first; r < rows.end; r++)
            for (int64_t w = columns.first; w < columns.end; w++) {
                const uint8_t *x = f->arena + in->at + image * in->image + r * in->row + w * in->pixel + channel;
                for (int c = 0; c < SOME; c++) sums[c] += x[c];
            }
        uint8_t *to = f->arena + out->at + image * out->image + oh * out->row + ow * out->pixel + channel;
        uint8_t bytes[SOME];
        for (int c = 0; c < SOME; c++) {
            int32_t value = (sums[c] * factor + half) >> shift;
            value = value < -128 ? -128 : value > 127 ? 127 : value;
            bytes[c] = (uint8_t)(value + ZERO_POINT);
        }
        memcpy(to, bytes, (size_t)smaller(SOME, out->c - channel));
    }
}
