/* Executing a program. All work is cut into tickets, which workers draw in order: first blocks of images, which a
 * worker does alone in an arena of its own; then for each image that is left, step by step, parts of the step. Such a
 * ticket waits for the tickets that it needs, which are those of the steps before its own, but for the last ones of the
 * step right before, whose rows it may not read (bands.c). Who comes late or is held up delays the others no more than by
 * the ticket it holds.
 */
#include "run.h"

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

/* Until all tickets before `end` are done, for a worker who has drawn `end` or a later one. */
static void wait_for(Run *run, int64_t end)
{
    for (int64_t worker = 0; worker < run->workers; worker++)
        for (int64_t spins = 0; atomic_load_explicit(&run->held[worker].ticket, memory_order_acquire) < end; spins++)
            if (spins < 2000) _mm_pause();
            else sched_yield();
}

static void execute(const Frame *f, const Step *s, int64_t part, int64_t parts)
{
    functions[s->kind](f, s, part, parts);
    if (s->kind != 1 && part == 0) fill_border(f, f->maps + s->output);
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

void part_of_image(const Run *run, int64_t image, int64_t number)
{
    const Ticket *t = run->tickets + number;
    const Frame f = {run->shared, run->steps, run->count, run->arenas[0], 1, image, run->sources, run->targets};
    execute(&f, run->steps + t->step, t->part, run->steps[t->step].parts);
}

/* What a worker holds is never later than the ticket that it does: it says what will be drawn at least before it draws,
   and the ticket itself afterwards. */
void work(Run *run, int64_t worker)
{
    Frame f = {run->maps, run->steps, run->count, run->arenas[worker], 0, 0, run->sources, run->targets};
    const int64_t blocks = (run->together + run->block - 1) / run->block;
    const int64_t all = blocks + (run->n - run->together) * run->ticket_count;
    _Atomic int64_t *held = &run->held[worker].ticket;
    for (;;) {
        atomic_store(held, atomic_load(&run->next));
        const int64_t ticket = atomic_fetch_add(&run->next, 1);
        if (ticket >= all) break;
        if (ticket < blocks) {
            f.first = ticket * run->block;
            f.n = smaller(run->block, run->together - f.first);
            execute_block(run, &f);
            continue;
        }
        const int64_t image = (ticket - blocks) / run->ticket_count, number = (ticket - blocks) % run->ticket_count;
        const int64_t needed = ticket - number + run->tickets[number].needed;
        atomic_store_explicit(held, ticket, memory_order_release);
        wait_for(run, needed);
        part_of_image(run, run->together + image, number);
    }
    atomic_store(held, NOTHING);
    if (worker == 0) wait_for(run, all);
}
