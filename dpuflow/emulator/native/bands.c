/* Which rows of a map a part of a step writes and reads, so that a step can begin before the one before it is done. */
#include "run.h"

enum { LOAD_KIND, STORE_KIND, CONVOLVE, DEPTHWISE, MAX_POOL, AVERAGE_POOL, ADD, MULTIPLY, COPY };

static int64_t up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Rows of the output. All but convolutions divide units of two rows or less, in order, among the parts. */
static Rows written(const Frame *f, const Step *s, int64_t part)
{
    if (s->kind == CONVOLVE) return convolved_rows(f, s, part, s->parts);
    const int64_t h = f->maps[s->kind == STORE_KIND ? s->inputs[0] : s->output].h;
    return (Rows){greater(0, h * part / s->parts - 2), smaller(h, up(h * (part + 1), s->parts) + 1)};
}

/* How many rows of an input, from its first one, are read for the output's rows before `end`. */
static int64_t read(const Step *s, const Map *in, int64_t out_h, int64_t end)
{
    switch (s->kind) {
    case CONVOLVE:
    case DEPTHWISE:
    case MAX_POOL:
    case AVERAGE_POOL:
        return smaller(in->h, (end - 1) * s->stride_h - s->pad_top + (s->kernel_h - 1) * s->dilation_h + 1);
    case STORE_KIND:
    case ADD:
    case MULTIPLY:
    case COPY:
        return in->h == out_h ? end : in->h;
    default:
        return in->h;
    }
}

/* Parts of the step before that must be done before a part of a step, which reads that one's output as its input
 * `input`, row for row. */
int64_t parts_before(const Run *run, int64_t step, int64_t part, int64_t input)
{
    const Step *s = run->steps + step, *before = s - 1;
    const Frame f = {run->shared, run->steps, run->count, 0, 1, 0, 0, 0};
    const Map *in = run->shared + s->inputs[input];
    const int64_t out_h = run->shared[s->kind == STORE_KIND ? s->inputs[0] : s->output].h;
    const int64_t rows = read(s, in, out_h, written(&f, s, part).end);
    int64_t parts = 1; /* the first one fills the border */
    while (parts < before->parts && written(&f, before, parts).first < rows) parts++;
    return parts;
}
