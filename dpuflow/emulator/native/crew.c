/* Threads that help: one crew for the process. A helper that has nothing to do looks for the next call for a moment,
 * because networks are called image after image, and then sleeps. Nobody waits for a helper that has not begun: who
 * calls does all the work, if need be. A process that was forked begins with no helpers.
 */
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "run.h"

#define LOOKING 100000 /* nanoseconds */
#define MOST_HELPERS 255

static struct {
    pthread_mutex_t call;   /* held by the one call that is helped */
    pthread_mutex_t asleep; /* guards falling asleep */
    pthread_cond_t wake;
    Run *_Atomic run;
    _Atomic int64_t calls, sleepers, active;
    int64_t helpers;
    int forks_watched;
} crew = {.call = PTHREAD_MUTEX_INITIALIZER, .asleep = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static int64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ll + now.tv_nsec;
}

/* Until there is another call than the one that was seen last. */
static void wait_for_call(int64_t seen)
{
    const int64_t end = nanoseconds() + LOOKING;
    for (int64_t spins = 1; atomic_load(&crew.calls) == seen; spins++) {
        _mm_pause();
        if (spins % 64) continue;
        if (nanoseconds() > end) break;
        sched_yield();
    }
    if (atomic_load(&crew.calls) != seen) return;
    pthread_mutex_lock(&crew.asleep);
    atomic_fetch_add(&crew.sleepers, 1);
    while (atomic_load(&crew.calls) == seen) pthread_cond_wait(&crew.wake, &crew.asleep);
    atomic_fetch_sub(&crew.sleepers, 1);
    pthread_mutex_unlock(&crew.asleep);
}

static void *helper(void *number)
{
    const int64_t worker = (int64_t)number;
    for (int64_t seen = 0;;) {
        wait_for_call(seen);
        seen = atomic_load(&crew.calls);
        atomic_fetch_add(&crew.active, 1); /* before looking: the caller withdraws the call, then waits for who is active */
        Run *run = atomic_load(&crew.run);
        if (run && worker < run->workers) work(run, worker);
        atomic_fetch_sub(&crew.active, 1);
    }
    return 0;
}

static void forget(void)
{
    pthread_mutex_init(&crew.call, 0);
    pthread_mutex_init(&crew.asleep, 0);
    pthread_cond_init(&crew.wake, 0);
    crew.helpers = 0;
    atomic_store(&crew.run, 0);
    atomic_store(&crew.calls, 0);
    atomic_store(&crew.sleepers, 0);
    atomic_store(&crew.active, 0);
}

/* So many helpers, or as many as can be had; signals are for the threads that were there before. */
static void hire(int64_t count)
{
    if (!crew.forks_watched) crew.forks_watched = !pthread_atfork(0, 0, forget);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (crew.helpers < smaller(count, MOST_HELPERS)) {
        pthread_t thread;
        if (pthread_create(&thread, 0, helper, (void *)(crew.helpers + 1))) break;
        pthread_detach(thread);
        crew.helpers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, 0);
}

/* All of a call's work; helped by others, unless these help another call. */
void perform(Run *run)
{
    for (int64_t worker = 0; worker < run->workers; worker++) atomic_store(&run->held[worker].ticket, NOTHING);
    if (run->workers < 2 || pthread_mutex_trylock(&crew.call)) {
        work(run, 0);
        return;
    }
    hire(run->workers - 1);
    atomic_store(&crew.run, run);
    atomic_fetch_add(&crew.calls, 1);
    if (atomic_load(&crew.sleepers)) {
        pthread_mutex_lock(&crew.asleep);
        pthread_cond_broadcast(&crew.wake);
        pthread_mutex_unlock(&crew.asleep);
    }
    work(run, 0);
    atomic_store(&crew.run, 0);
    for (int64_t spins = 0; atomic_load(&crew.active); spins++)
        if (spins < 2000) _mm_pause();
        else sched_yield();
    pthread_mutex_unlock(&crew.call);
}
