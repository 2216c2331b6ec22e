/* Convolution: 8-bit dot products straight from the maps, without unfolding windows.
 *
 * A tile is two runs of up to seven pixels, each run of one row, times two vectors of output channels (or one);
 * its sums stay in registers. Weights lie as the tiles read them: for every block of channels, tap and four input
 * channels two vectors. Their channels are interleaved by fours, so that packing the sums to bytes puts them
 * in order.
 */
#include "epilogue.h"

typedef struct {
    const Step *step;
    int64_t in_step, out_step; /* bytes from one pixel of a run to the next */
} Kernel;

/* RUNS runs of PIXELS pixels times BLOCK vectors of channels. The sizes are constants of the preprocessor and
   the loops are unrolled, so that all sums stay in registers. */
#define TILE(RUNS, PIXELS, BLOCK) \
static void tile_##RUNS##_##PIXELS##_##BLOCK(const Kernel *k, const uint8_t *const *x, const int8_t *w, \
                                             const int32_t *offset, const int32_t *bias, uint8_t *const *out, \
                                             int64_t left) \
{ \
    vec sum[RUNS][PIXELS][BLOCK]; \
    UNROLL for (int r = 0; r < RUNS; r++) \
        UNROLL for (int p = 0; p < PIXELS; p++) \
            UNROLL for (int b = 0; b < BLOCK; b++) sum[r][p][b] = LOAD(offset + b * LANES); \
    const Step *s = k->step; \
    const int64_t step = k->in_step, quads = s->quads; \
    for (int64_t t = 0; t < s->tap_count; t++) { \
        const uint8_t *from[RUNS]; \
        UNROLL for (int r = 0; r < RUNS; r++) from[r] = x[r] + s->taps[t]; \
        for (int64_t q = 0; q < quads; q++, w += BLOCK * BYTES) { \
            vec weight[BLOCK]; \
            UNROLL for (int b = 0; b < BLOCK; b++) weight[b] = LOAD(w + b * BYTES); \
            UNROLL for (int r = 0; r < RUNS; r++) { \
                UNROLL for (int p = 0; p < PIXELS; p++) { \
                    const vec a = V(set1_epi32)(load_four(from[r] + p * step)); \
                    UNROLL for (int b = 0; b < BLOCK; b++) DOT(sum[r][p][b], a, weight[b]); \
                } \
                from[r] += 4; \
            } \
        } \
    } \
    const Ending e = ending_of(s); \
    const int64_t out_step = k->out_step; \
    if (BLOCK == 2 && left >= 2 * LANES && !e.leaky && !e.table) { \
        UNROLL for (int r = 0; r < RUNS; r++) { \
            uint8_t *to = out[r]; \
            UNROLL for (int p = 0; p < PIXELS; p++, to += out_step) \
                finish_plain(&e, sum[r][p][0], sum[r][p][BLOCK - 1], to); \
        } \
        return; \
    } \
    UNROLL for (int r = 0; r < RUNS; r++) \
        UNROLL for (int p = 0; p < PIXELS; p++) \
            if (BLOCK == 2) finish_two(&e, sum[r][p][0], sum[r][p][BLOCK - 1], bias, out[r] + p * out_step, left); \
            else finish_one(&e, sum[r][p][0], bias, out[r] + p * out_step, left); \
}

#if LANES == 16
#define LONGEST 7 /* of 32 registers: 2 x 7 x 2 sums, 2 weights, 1 activation */
#define EACH(MAKE, RUNS, BLOCK) \
    MAKE(RUNS, 1, BLOCK) MAKE(RUNS, 2, BLOCK) MAKE(RUNS, 3, BLOCK) MAKE(RUNS, 4, BLOCK) MAKE(RUNS, 5, BLOCK) \
    MAKE(RUNS, 6, BLOCK) MAKE(RUNS, 7, BLOCK)
#else
#define LONGEST 3 /* of 16 registers: 2 x 3 x 2 sums, 2 weights, 1 activation */
#define EACH(MAKE, RUNS, BLOCK) MAKE(RUNS, 1, BLOCK) MAKE(RUNS, 2, BLOCK) MAKE(RUNS, 3, BLOCK)
#endif

EACH(TILE, 1, 1) EACH(TILE, 1, 2) EACH(TILE, 2, 1) EACH(TILE, 2, 2)

typedef void (*Tile)(const Kernel *, const uint8_t *const *, const int8_t *, const int32_t *, const int32_t *,
                     uint8_t *const *, int64_t);
#define NAME(RUNS, PIXELS, BLOCK) tile_##RUNS##_##PIXELS##_##BLOCK,
static const Tile tiles[2][2][LONGEST] = {{{EACH(NAME, 1, 1)}, {EACH(NAME, 1, 2)}},
                                          {{EACH(NAME, 2, 1)}, {EACH(NAME, 2, 2)}}};

int64_t longest_run(void) { return LONGEST; }

#define NEAR (96 << 10) /* bytes of activations that stay in the nearer caches while all weights go by */

typedef struct {
    int64_t lines, length, of_image; /* lines of pixels with equal distances, their pixels, lines of an image */
    int64_t in_image, in_line, out_image, out_line;
} Lines;

/* The pixels of all images as few long lines as the maps' layout allows. */
static Lines lines_of(const Frame *f, const Step *s, const Map *in, const Map *out, Kernel *k)
{
    k->in_step = s->stride_w * in->pixel;
    k->out_step = out->pixel;
    if (out->h == 1 && out->w == 1) { /* one window an image: the images are the pixels */
        k->in_step = in->image;
        k->out_step = out->image;
        return (Lines){1, f->n, 1, 0, 0, 0, 0};
    }
    const int in_flat = s->stride_h == 1 && s->stride_w == 1 && in->h == out->h && in->w == out->w &&
                        in->row == in->w * in->pixel && in->image == in->h * in->row;
    const int out_flat = out->row == out->w * out->pixel && out->image == out->h * out->row;
    if (in_flat && out_flat) return (Lines){1, f->n * out->h * out->w, 1, 0, 0, 0, 0};
    return (Lines){f->n * out->h, out->w, out->h, in->image, s->stride_h * in->row, out->image, out->row};
}

/* Where the next run is. */
typedef struct {
    int64_t image, row, run;
    const uint8_t *in;
    uint8_t *out;
} Place;

static Place place_of(const Lines *lines, int64_t run, int64_t per_line, const uint8_t *x, uint8_t *y)
{
    const int64_t line = run / per_line;
    Place p = {line / lines->of_image, line % lines->of_image, run % per_line, 0, 0};
    p.in = x + p.image * lines->in_image + p.row * lines->in_line;
    p.out = y + p.image * lines->out_image + p.row * lines->out_line;
    return p;
}

INLINE void next_run(Place *p, const Lines *lines, int64_t per_line)
{
    if (++p->run < per_line) return;
    p->run = 0;
    p->in += lines->in_line;
    p->out += lines->out_line;
    if (++p->row < lines->of_image) return;
    p->row = 0;
    p->in += lines->in_image - lines->of_image * lines->in_line;
    p->out += lines->out_image - lines->of_image * lines->out_line;
}

/* How a convolution is done: its lines, runs of so many pixels, two of them a tile; and a worker's part of it. */
typedef struct {
    Lines lines;
    int64_t pixels, per_line, runs;
    int64_t first_tile, end_tile, first_block, end_block;
} Share;

static Share share_of(const Frame *f, const Step *s, Kernel *k, int64_t part, int64_t parts)
{
    const Map *in = f->maps + s->inputs[0], *out = f->maps + s->output;
    Share h = {lines_of(f, s, in, out, k), 0, 0, 0, 0, 0, 0, 0};
    if (!h.lines.lines || !h.lines.length) return h; /* nothing to compute; there is no such map in a checked graph */
    h.pixels = smaller(h.lines.length, smaller(s->run, LONGEST));
    h.per_line = (h.lines.length + h.pixels - 1) / h.pixels;
    h.runs = h.lines.lines * h.per_line;
    const int64_t tiles = (h.runs + 1) / 2, blocks = (out->c + 2 * LANES - 1) / (2 * LANES);
    /* some of the tiles, or where they are few, some of the channels */
    const int by_channels = tiles < 4 * parts && blocks >= parts;
    h.first_tile = by_channels ? 0 : FIRST(tiles, part, parts);
    h.end_tile = by_channels ? tiles : FIRST(tiles, part + 1, parts);
    h.first_block = by_channels ? FIRST(blocks, part, parts) : 0;
    h.end_block = by_channels ? FIRST(blocks, part + 1, parts) : blocks;
    return h;
}

Rows convolved_rows(const Frame *f, const Step *s, int64_t part, int64_t parts)
{
    Kernel k = {s, 0, 0};
    const Share h = share_of(f, s, &k, part, parts);
    const int64_t first = 2 * h.first_tile, end = smaller(2 * h.end_tile, h.runs), w = f->maps[s->output].w;
    if (h.lines.lines > 1) return (Rows){first / h.per_line, (end - 1) / h.per_line + 1};
    return (Rows){smaller(first * h.pixels, h.lines.length - h.pixels) / w,
                  (smaller(end * h.pixels, h.lines.length) + w - 1) / w};
}

void convolve(const Frame *f, const Step *s, int64_t part, int64_t parts)
{
    const Map *in = f->maps + s->inputs[0], *out = f->maps + s->output;
    Kernel k = {s, 0, 0};
    const Share h = share_of(f, s, &k, part, parts);
    if (!h.runs) return;
    const Lines lines = h.lines;
    const int64_t pixels = h.pixels, per_line = h.per_line, panel = s->tap_count * s->quads * 2 * BYTES;
    const uint8_t *x = f->arena + in->at - s->pad_top * in->row - s->pad_left * in->pixel;
    uint8_t *y = f->arena + out->at;

    const int64_t near = greater(1, NEAR / (2 * pixels * s->stride_h * s->stride_w * in->c));
    for (int64_t from = h.first_tile; from < h.end_tile; from += near)
        for (int64_t b = h.first_block; b < h.end_block; b++) {
            const int64_t channel = b * 2 * LANES, left = out->c - channel;
            const int wide = left > LANES;
            Place place = place_of(&lines, 2 * from, per_line, x, y);
            for (int64_t t = from; t < smaller(from + near, h.end_tile); t++) {
                const uint8_t *windows[2];
                uint8_t *results[2];
                const int two = 2 * t + 1 < h.runs;
                for (int64_t r = 0; r <= two; r++) {
                    /* the last run of a line may do some pixels again */
                    const int64_t pixel = smaller(place.run * pixels, lines.length - pixels);
                    windows[r] = place.in + pixel * k.in_step;
                    results[r] = place.out + pixel * k.out_step + channel;
                    next_run(&place, &lines, per_line);
                }
                tiles[two][wide][pixels - 1](&k, windows, s->weights + b * panel, s->offset + channel,
                                             s->bias + channel, results, left);
            }
        }
}
