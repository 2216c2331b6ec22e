/* Depthwise convolution: every channel has a window of its own.
 *
 * Four rows of the window are interleaved byte by byte, so that one dot product does a column of four taps of
 * LANES channels. Neighbouring windows share columns: for 3 x 3 and 5 x 5 a column is added to the sums of all windows
 * that it is part of, which stay in registers; for other kernels the interleaved columns of a piece of a row
 * are kept in the nearest cache.
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

/* One row, or two rows of at most half a vector of channels side by side in it. */
typedef struct {
    const uint8_t *in[2]; /* the first window's first pixel */
    uint8_t *out[2];
    int64_t row, pixel, out_pixel; /* bytes from one to the next */
    int64_t count, left;           /* output pixels, channels */
    const vec *weights;
    const int32_t *offset, *bias;
} Line;

#if LANES == 16
#define PAIRS 1
INLINE vec load_pixel(const Line *l, int64_t at, int paired)
{
    if (!paired) return LOAD(l->in[0] + at);
    const __m256i first = _mm256_loadu_si256((const __m256i *)(l->in[0] + at));
    return _mm512_inserti64x4(_mm512_castsi256_si512(first), _mm256_loadu_si256((const __m256i *)(l->in[1] + at)), 1);
}
INLINE void store_pixel(const Line *l, vec bytes, int64_t at, int paired)
{
    if (!paired) {
        store_some(l->out[0] + at, bytes, l->left);
        return;
    }
    store_half(l->out[0] + at, LOWER_HALF(bytes), l->left);
    store_half(l->out[1] + at, _mm512_extracti64x4_epi64(bytes, 1), l->left);
}
#else
#define PAIRS 0
INLINE vec load_pixel(const Line *l, int64_t at, int paired)
{
    (void)paired;
    return LOAD(l->in[0] + at);
}
INLINE void store_pixel(const Line *l, vec bytes, int64_t at, int paired)
{
    (void)paired;
    store_some(l->out[0] + at, bytes, l->left);
}
#endif

/* All but the step, the line and `dilation` are constants. Column c of the line is tap k of window (c - k) / stride,
   whose sums are in slot window % slots; after `slots * stride` columns everything is as before. */
INLINE void line_of(const Step *s, const Line *line, const int kernel, const int stride, const int paired)
{
    const Line l = *line;
    const Ending e = ending_of(s);
    const int groups = (kernel + 3) / 4, slots = (kernel + stride - 1) / stride, cycle = slots * stride;
    const int64_t columns = (l.count - 1) * stride + kernel;
    vec sum[5][4];
    UNROLL for (int i = 0; i < 5; i++)
        UNROLL for (int j = 0; j < 4; j++) sum[i][j] = ZERO();
    for (int64_t first = 0;; first += cycle) {
        UNROLL for (int u = 0; u < cycle; u++) {
            const int64_t at = (first + u) * l.pixel;
            if (first + u >= columns) return;
            UNROLL for (int g = 0; g < groups; g++) {
                vec row[4], column[4];
                UNROLL for (int r = 0; r < 4; r++)
                    row[r] = 4 * g + r < kernel ? load_pixel(&l, at + (4 * g + r) * l.row, paired) : row[r - 1];
                interleave(column, row[0], row[1], row[2], row[3]);
                UNROLL for (int k = 0; k < kernel; k++) {
                    if ((u - k + cycle) % stride) continue;
                    const int slot = (u - k + cycle) / stride % slots;
                    if (k == 0 && g == 0) {
                        UNROLL for (int j = 0; j < 4; j++) sum[slot][j] = LOAD(l.offset + j * LANES);
                    }
                    UNROLL for (int j = 0; j < 4; j++)
                        DOT(sum[slot][j], column[j], l.weights[(g * kernel + k) * 4 + j]);
                }
            }
            if ((u - kernel + 1 + cycle) % stride == 0) {
                const int64_t window = (first + u - kernel + 1) / stride;
                const vec *sums = sum[(u - kernel + 1 + cycle) / stride % slots];
                if (first + u >= kernel - 1)
                    store_pixel(&l, finish_four(&e, sums, l.bias), window * l.out_pixel, paired);
            }
        }
    }
}

#define LINE(KERNEL, STRIDE) \
    static void line_##KERNEL##_##STRIDE(const Step *s, const Line *l) { line_of(s, l, KERNEL, STRIDE, 0); } \
    static void pair_##KERNEL##_##STRIDE(const Step *s, const Line *l) { line_of(s, l, KERNEL, STRIDE, PAIRS); }
LINE(3, 1) LINE(3, 2) LINE(5, 1) LINE(5, 2)

typedef void (*Work)(const Step *s, const Line *l);
static const Work works[2][2][2] = {{{line_3_1, pair_3_1}, {line_3_2, pair_3_2}},
                                    {{line_5_1, pair_5_1}, {line_5_2, pair_5_2}}};

static int is_common(const Step *s)
{
    return s->kernel_h == s->kernel_w && (s->kernel_w == 3 || s->kernel_w == 5) && s->dilation_w == 1 &&
           (s->stride_w == 1 || s->stride_w == 2);
}

static void common(const Frame *f, const Step *s, const Map *in, const Map *out, int64_t part, int64_t parts)
{
    const int64_t blocks = (out->c + BYTES - 1) / BYTES, panel = (s->kernel_h + 3) / 4 * s->kernel_w * 4 * BYTES;
    const int64_t pairs = (out->h + 1) / 2, units = f->n * pairs, end = FIRST(units, part + 1, parts);
    const uint8_t *x = f->arena + in->at - s->pad_top * in->row - s->pad_left * in->pixel;
    for (int64_t unit = FIRST(units, part, parts); unit < end; unit++) {
        const int64_t image = unit / pairs, first = unit % pairs * 2, second = smaller(first + 1, out->h - 1);
        const uint8_t *from = x + image * in->image;
        uint8_t *to = f->arena + out->at + image * out->image;
        for (int64_t b = 0; b < blocks; b++) {
            const int64_t channel = b * BYTES;
            const int paired = s->paired && b == blocks - 1;
            Line l = {{from + first * s->stride_h * in->row + channel, from + second * s->stride_h * in->row + channel},
                      {to + first * out->row + channel, to + second * out->row + channel},
                      s->dilation_h * in->row, in->pixel, out->pixel, out->w, out->c - channel,
                      (const vec *)(s->weights + b * panel), s->offset + channel, s->bias + channel};
            const Work work = works[s->kernel_w == 5][s->stride_w == 2][paired];
            work(s, &l);
            if (paired || second == first) continue;
            l.in[0] = l.in[1];
            l.out[0] = l.out[1];
            work(s, &l);
        }
    }
}

/* One output pixel from its interleaved columns. */
INLINE void pixel_of(const Step *s, const Ending *e, const vec *columns, int64_t column_step, const vec *weights, int64_t groups,
                     const int32_t *offset, const int32_t *bias, uint8_t *out, int64_t left)
{
    vec sum[4];
    UNROLL for (int j = 0; j < 4; j++) sum[j] = LOAD(offset + j * LANES);
    for (int64_t g = 0; g < groups; g++)
        for (int64_t w = 0; w < s->kernel_w; w++) {
            const vec *column = columns + w * column_step + g * 4, *weight = weights + (g * s->kernel_w + w) * 4;
            UNROLL for (int j = 0; j < 4; j++) DOT(sum[j], column[j], weight[j]);
        }
    store_some(out, finish_four(e, sum, bias), left);
}

void depthwise(const Frame *f, const Step *s, int64_t part, int64_t parts)
{
    const Map *in = f->maps + s->inputs[0], *out = f->maps + s->output;
    if (is_common(s)) {
        common(f, s, in, out, part, parts);
        return;
    }
    const int64_t groups = (s->kernel_h + 3) / 4, blocks = (out->c + BYTES - 1) / BYTES;
    const int64_t extent = (s->kernel_w - 1) * s->dilation_w + 1, panel = groups * s->kernel_w * 4 * BYTES;
    const int64_t piece = smaller(PIECE, (MOST_COLUMNS - extent) / s->stride_w + 1);
    const int64_t column_step = s->dilation_w * groups * 4;
    const uint8_t *x = f->arena + in->at - s->pad_top * in->row - s->pad_left * in->pixel;
    const Ending e = ending_of(s);
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
                pixel_of(s, &e, first, column_step, weights, groups, offset, bias, pixel, left);
            }
        }
    }
}
