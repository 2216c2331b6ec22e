/* One call of a program, and who works on it; filled in by c_kernels.py. */
#ifndef RUN_H
#define RUN_H

#include <sched.h>
#include <stdatomic.h>

#include "epilogue.h"

/* A part of a step of an image that workers do together. */
typedef struct {
    int64_t step, part;
    int64_t needed; /* tickets of the image, from its first one, that must be done before */
} Ticket;

/* What a worker does, alone in its line of the cache. */
typedef struct {
    _Atomic int64_t ticket;
    int64_t unused[7];
} Held;
#define NOTHING INT64_MAX

typedef struct {
    const Map *maps; /* as often as there are images in a block, each time those of the next image */
    const Step *steps;
    int64_t map_count, count;
    const Map *shared; /* of an image that workers do together */
    const Ticket *tickets;
    int64_t ticket_count;
    int64_t n, block; /* images; how many a worker takes at once */
    int64_t together; /* from this image on all work together */
    int64_t workers;
    const int8_t *const *sources;
    int8_t *const *targets;
    uint8_t *const *arenas; /* of each worker */
    Held *held;             /* by each worker */
    _Atomic int64_t next;
} Run;

#pragma GCC visibility push(hidden)
/* The work of one of the workers; the first one returns when all is done, the others when nothing is left. */
void work(Run *run, int64_t worker);
#pragma GCC visibility pop

#endif
