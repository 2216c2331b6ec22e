/* Executing a program: workers take blocks of images, each with an arena of its own; the images that are left,
 * fewer than workers, are done by all of them together, one image at a time, step by step.
 */
#include <sched.h>
#include <stdatomic.h>

#include "epilogue.h"

typedef struct {
    const Map *maps;
    const Step *steps;
    int64_t count, workers;
    int64_t n, block; /* images; how many a worker takes at once */
    int64_t together; /* from this image on all work together */
    const int8_t *const *sources;
    int8_t *const *targets;
    uint8_t *const *arenas; /* of each worker */
    _Atomic int64_t next;
    _Atomic int64_t arrived, round;
} Run;

typedef void (*Function)(const Frame *, const Step *, int64_t, int64_t);
static const Function functions[] = {load, store, convolve, depthwise, max_pool, average_pool, add, multiply, copy,
                                     pick};

int64_t lanes(void) { return LANES; }
int64_t vector_bytes(void) { return BYTES; }
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

static void barrier(Run *run)
{
    const int64_t round = atomic_load_explicit(&run->round, memory_order_acquire);
    if (atomic_fetch_add_explicit(&run->arrived, 1, memory_order_acq_rel) + 1 == run->workers) {
        atomic_store_explicit(&run->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&run->round, round + 1, memory_order_release);
        return;
    }
    for (int64_t spins = 0; atomic_load_explicit(&run->round, memory_order_acquire) == round; spins++)
        if (spins < 4000) _mm_pause();
        else sched_yield();
}

/* The work of one of the run's workers, 0 to workers - 1; every worker calls it once. */
void work(Run *run, int64_t worker)
{
    Frame f = {run->maps, run->steps, run->count, run->arenas[worker], 0, 0, run->sources, run->targets};
    for (;;) {
        f.first = atomic_fetch_add(&run->next, run->block);
        if (f.first >= run->together) break;
        f.n = smaller(run->block, run->together - f.first);
        for (int64_t i = 0; i < run->count; i++) {
            const Step *s = run->steps + i;
            functions[s->kind](&f, s, 0, 1);
            if (s->kind != 1) fill_border(&f, run->maps + s->output);
        }
    }
    f.arena = run->arenas[0];
    f.n = 1;
    for (f.first = run->together; f.first < run->n; f.first++) {
        barrier(run); /* the first worker may still use its arena */
        for (int64_t i = 0; i < run->count; i++) {
            const Step *s = run->steps + i;
            functions[s->kind](&f, s, worker, run->workers);
            if (s->kind != 1 && worker == run->workers - 1) fill_border(&f, run->maps + s->output);
            barrier(run);
        }
    }
}
