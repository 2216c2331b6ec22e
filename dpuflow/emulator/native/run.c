/* Executing a program. All work is cut into tickets, which workers draw in order: first blocks of images, which a
 * worker does alone in an arena of its own; then for each image that is left, step by step, parts of the step.
 * A ticket waits until all tickets of the steps before its own are done. Who comes late or is held up delays
 * the others no more than by the ticket it holds.
 */
#include <sched.h>
#include <stdatomic.h>

#include "epilogue.h"

typedef struct {
    const Map *maps; /* as often as there are images in a block, each time those of the next image */
    const Step *steps;
    int64_t map_count, count;
    int64_t n, block; /* images; how many a worker takes at once */
    int64_t together; /* from this image on all work together */
    const int8_t *const *sources;
    int8_t *const *targets;
    uint8_t *const *arenas; /* of each worker */
    _Atomic int64_t next, done;
} Run;

typedef void (*Function)(const Frame *, const Step *, int64_t, int64_t);
static const Function functions[] = {load, store, convolve, depthwise, max_pool, average_pool, add, multiply, copy,
                                     pick, blend, shuffle, spread};

int64_t lanes(void) { return LANES; }
const char *instructions(void) { return INSTRUCTIONS; }

/* Zeros around the part of a map. */
static void fill_border(const Frame *f, const Map *m)
{
    if (!(m->left | m->right | m->top | m->bottom)) return;
    for (int64_t i = 0; i < f->n; i++) {
        uint8_t *first = f->arena + m->at + i * m->image;
        const int whole = m->pixel == m->c;
        for (int64_t r = -m->top; r < m->h + m->bottom; r++) {
            uint8_t *row = first + r * m->row;
            const int outside = r < 0 || r >= m->h;
            const int64_t from = -m->left, middle = outside ? m->w : 0, end = m->w + m->right;
            const int64_t starts[2] = {from, m->w}, ends[2] = {middle, end};
            for (int side = 0; side < 2; side++) {
                if (whole) {
                    if (ends[side] > starts[side])
                        memset(row + starts[side] * m->pixel, ZERO_POINT, (size_t)((ends[side] - starts[side]) * m->c));
                } else
                    for (int64_t w = starts[side]; w < ends[side]; w++)
                        memset(row + w * m->pixel, ZERO_POINT, (size_t)m->c);
            }
        }
    }
}

static void wait_for(Run *run, int64_t tickets)
{
    for (int64_t spins = 0; atomic_load_explicit(&run->done, memory_order_acquire) < tickets; spins++)
        if (spins < 2000) _mm_pause();
        else sched_yield();
}

static void execute(const Frame *f, const Step *s, int64_t part, int64_t parts)
{
    functions[s->kind](f, s, part, parts);
    if (s->kind != 1 && part == parts - 1) fill_border(f, f->maps + s->output);
}

/* All steps for a block of images. Neighbouring steps with large maps are done image by image, while the maps
   are in the caches; those with small maps for all images, so that weights are read once. */
static void execute_block(const Run *run, const Frame *block)
{
    for (int64_t i = 0; i < run->count;) {
        if (run->steps[i].at_once) {
            execute(block, run->steps + i++, 0, 1);
            continue;
        }
        int64_t end = i;
        while (end < run->count && !run->steps[end].at_once) end++;
        for (int64_t image = 0; image < block->n; image++) {
            Frame f = *block;
            f.maps += image * run->map_count;
            f.first += image;
            f.n = 1;
            for (int64_t j = i; j < end; j++) execute(&f, run->steps + j, 0, 1);
        }
        i = end;
    }
}

/* The work of one of the workers; the first one returns when all is done, the others when nothing is left. */
void work(Run *run, int64_t worker)
{
    Frame f = {run->maps, run->steps, run->count, run->arenas[worker], 0, 0, run->sources, run->targets};
    const int64_t blocks = (run->together + run->block - 1) / run->block;
    int64_t parts = 0; /* of all steps of an image */
    for (int64_t i = 0; i < run->count; i++) parts += run->steps[i].parts;
    const int64_t all = blocks + (run->n - run->together) * parts;
    int64_t step = 0, start = blocks; /* the step that a ticket was last drawn for, and its first ticket */
    int64_t ticket;
    while ((ticket = atomic_fetch_add_explicit(&run->next, 1, memory_order_relaxed)) < all) {
        if (ticket < blocks) {
            f.first = ticket * run->block;
            f.n = smaller(run->block, run->together - f.first);
            execute_block(run, &f);
        } else {
            while (ticket >= start + run->steps[step].parts) {
                start += run->steps[step].parts;
                step = step + 1 == run->count ? 0 : step + 1;
            }
            wait_for(run, start);
            f.arena = run->arenas[0];
            f.first = run->together + (ticket - blocks) / parts;
            f.n = 1;
            execute(&f, run->steps + step, ticket - start, run->steps[step].parts);
        }
        atomic_fetch_add_explicit(&run->done, 1, memory_order_acq_rel);
    }
    if (worker == 0) wait_for(run, all);
}
