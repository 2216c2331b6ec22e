/* Depthwise convolution: every channel has a window of its own.
 *
 * Four rows of the window are interleaved byte by byte, so that one dot product does a column of four taps of
 * LANES channels. The interleaved columns of a piece of a row are kept in the nearest cache, because
 * neighbouring windows share them.
 */
#include "epilogue.h"

#define PIECE 16 /* output pixels of a row whose columns are interleaved at once */
#define MOST_COLUMNS 96
#define MOST_GROUPS 4

/* Rows a, b, c, d of BYTES channels as four vectors of LANES channels times four rows. */
INLINE void interleave(vec *out, vec a, vec b, vec c, vec d)
{
    const vec low_ab = V(unpacklo_epi8)(a, b), high_ab = V(unpackhi_epi8)(a, b);
    const vec low_cd = V(unpacklo_epi8)(c, d), high_cd = V(unpackhi_epi8)(c, d);
    out[0] = V(unpacklo_epi16)(low_ab, low_cd);
    out[1] = V(unpackhi_epi16)(low_ab, low_cd);
    out[2] = V(unpacklo_epi16)(high_ab, high_cd);
    out[3] = V(unpackhi_epi16)(high_ab, high_cd);
}

/* One output pixel from its interleaved columns; kernel_w and groups may be constants. */
INLINE void pixel_of(const Step *s, const vec *columns, int64_t column_step, const vec *weights, int64_t kernel_w,
                     int64_t groups, const int32_t *offset, const int32_t *bias, uint8_t *out, int64_t left)
{
    vec sum[4];
    UNROLL for (int j = 0; j < 4; j++) sum[j] = LOAD(offset + j * LANES);
    for (int64_t g = 0; g < groups; g++)
        for (int64_t w = 0; w < kernel_w; w++) {
            const vec *column = columns + w * column_step + g * 4, *weight = weights + (g * kernel_w + w) * 4;
            UNROLL for (int j = 0; j < 4; j++) DOT(sum[j], column[j], weight[j]);
        }
    finish_four(s, sum, bias, out, left);
}

void depthwise(const Frame *f, const Step *s, int64_t part, int64_t parts)
{
    const Map *in = f->maps + s->inputs[0], *out = f->maps + s->output;
    const int64_t groups = (s->kernel_h + 3) / 4, blocks = (out->c + BYTES - 1) / BYTES;
    const int64_t extent = (s->kernel_w - 1) * s->dilation_w + 1, panel = groups * s->kernel_w * 4 * BYTES;
    const int64_t piece = smaller(PIECE, (MOST_COLUMNS - extent) / s->stride_w + 1);
    const int64_t column_step = s->dilation_w * groups * 4;
    const uint8_t *x = f->arena + in->at - s->pad_top * in->row - s->pad_left * in->pixel;
    vec columns[MOST_COLUMNS * MOST_GROUPS * 4];
    const int64_t units = f->n * out->h * blocks, end = FIRST(units, part + 1, parts);
    for (int64_t unit = FIRST(units, part, parts); unit < end; unit++) {
        const int64_t line = unit / blocks, block = unit % blocks, image = line / out->h, oh = line % out->h;
        const int64_t channel = block * BYTES, left = out->c - channel;
        const uint8_t *from = x + image * in->image + oh * s->stride_h * in->row + channel;
        uint8_t *to = f->arena + out->at + image * out->image + oh * out->row + channel;
        const vec *weights = (const vec *)(s->weights + block * panel);
        const int32_t *offset = s->offset + channel, *bias = s->bias + channel;
        for (int64_t ow = 0; ow < out->w; ow += piece) {
            const int64_t count = smaller(piece, out->w - ow), width = (count - 1) * s->stride_w + extent;
            const uint8_t *start = from + ow * s->stride_w * in->pixel;
            for (int64_t g = 0; g < groups; g++) {
                const uint8_t *row[4];
                for (int64_t r = 0; r < 4; r++) /* what is beyond the window meets weights of zero */
                    row[r] = start + smaller(4 * g + r, s->kernel_h - 1) * s->dilation_h * in->row;
                for (int64_t w = 0; w < width; w++) {
                    const int64_t at = w * in->pixel;
                    interleave(columns + (w * groups + g) * 4, LOAD(row[0] + at), LOAD(row[1] + at),
                               LOAD(row[2] + at), LOAD(row[3] + at));
                }
            }
            for (int64_t p = 0; p < count; p++) {
                const vec *first = columns + p * s->stride_w * groups * 4;
                uint8_t *pixel = to + (ow + p) * out->pixel;
                if (groups == 1 && s->kernel_w == 3)
                    pixel_of(s, first, column_step, weights, 3, 1, offset, bias, pixel, left);
                else
                    pixel_of(s, first, column_step, weights, s->kernel_w, groups, offset, bias, pixel, left);
            }
        }
    }
}
