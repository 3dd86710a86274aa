/* Threads prepare the samples of a window of positions; they come out in the order of positions, so
 * the number of threads changes nothing but the speed. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/threads.h"
#include "tools/shard.h"

enum { SLOTS_PER_JOB = 4 };

typedef struct slot {
    shard_sample sample;
    int64_t position;
    bool ready;
} slot;

struct shard_jobs {
    const shard_options *options;
    const shard_plan *plan;
    const dip_pairs *pairs;
    pthread_mutex_t lock;
    pthread_cond_t room, ready;
    slot *slots; /* number n of those prepared lies in slot n % n_slots */
    int64_t n_slots;
    int64_t next_position;
    int64_t n_claimed, n_taken;
    bool stop, holds_last; /* the slot before n_taken is still the caller's */
    pthread_t *threads;
    int n_threads;
};

/* With the lock held: the next position that is not done; plan->n when there is none. */
static int64_t next_open_position(shard_jobs *jobs)
{
    const shard_plan *plan = jobs->plan;
    while (jobs->next_position < plan->n &&
           jobs->next_position < plan->outputs[plan->output_of[jobs->next_position]].done)
        jobs->next_position++;
    return jobs->next_position;
}

/* With the lock held: the slot for the next position; NULL: there is nothing left to do. */
static slot *claim(shard_jobs *jobs)
{
    while (!jobs->stop && jobs->n_claimed - jobs->n_taken >= jobs->n_slots - jobs->holds_last)
        pthread_cond_wait(&jobs->room, &jobs->lock);
    int64_t position = next_open_position(jobs);
    if (jobs->stop || position >= jobs->plan->n) return NULL;
    slot *s = &jobs->slots[jobs->n_claimed++ % jobs->n_slots];
    s->position = position;
    s->ready = false;
    jobs->next_position++;
    return s;
}

static void *work(void *argument)
{
    shard_jobs *jobs = argument;
    shard_checker *checker = NULL;
    dip_status status = shard_checker_open(&checker, jobs->options, jobs->pairs);
    pthread_mutex_lock(&jobs->lock);
    for (slot *s; (s = claim(jobs));) {
        pthread_mutex_unlock(&jobs->lock);
        if (checker) {
            shard_check(checker, &s->sample, jobs->plan->index[s->position]);
        } else {
            s->sample.status = status;
            snprintf(s->sample.detail, sizeof s->sample.detail, "%s", dip_error());
        }
        pthread_mutex_lock(&jobs->lock);
        s->ready = true;
        pthread_cond_signal(&jobs->ready);
    }
    pthread_mutex_unlock(&jobs->lock);
    shard_checker_close(checker);
    return NULL;
}

dip_status shard_jobs_open(shard_jobs **out, const shard_options *o, const shard_plan *plan,
                           const dip_pairs *pairs)
{
    int n = o->jobs > 0 ? (int)o->jobs : dip_core_count();
    *out = NULL;
    shard_jobs *jobs = calloc(1, sizeof *jobs);
    if (!jobs) return dip_fail(DIP_NOMEM, "no memory for %d threads", n);
    *jobs = (shard_jobs){
        .options = o, .plan = plan, .pairs = pairs, .n_slots = (int64_t)n * SLOTS_PER_JOB + 1};
    pthread_mutex_init(&jobs->lock, NULL);
    pthread_cond_init(&jobs->room, NULL);
    pthread_cond_init(&jobs->ready, NULL);
    jobs->slots = calloc((size_t)jobs->n_slots, sizeof *jobs->slots);
    jobs->threads = calloc((size_t)n, sizeof *jobs->threads);
    dip_status status =
        jobs->slots && jobs->threads ? DIP_OK : dip_fail(DIP_NOMEM, "no memory for %d threads", n);
    while (status == DIP_OK && jobs->n_threads < n) {
        if (pthread_create(&jobs->threads[jobs->n_threads], NULL, work, jobs) != 0)
            status = dip_fail(DIP_NOMEM, "thread %d of --jobs %d cannot be started",
                              jobs->n_threads + 1, n);
        else
            jobs->n_threads++;
    }
    if (status != DIP_OK) {
        shard_jobs_close(jobs);
        return status;
    }
    *out = jobs;
    return DIP_OK;
}

void shard_jobs_close(shard_jobs *jobs)
{
    if (!jobs) return;
    pthread_mutex_lock(&jobs->lock);
    jobs->stop = true;
    pthread_cond_broadcast(&jobs->room);
    pthread_mutex_unlock(&jobs->lock);
    for (int i = 0; i < jobs->n_threads; i++) pthread_join(jobs->threads[i], NULL);
    for (int64_t i = 0; jobs->slots && i < jobs->n_slots; i++)
        dip_pair_free(&jobs->slots[i].sample.pair);
    free(jobs->slots);
    free(jobs->threads);
    pthread_cond_destroy(&jobs->room);
    pthread_cond_destroy(&jobs->ready);
    pthread_mutex_destroy(&jobs->lock);
    free(jobs);
}

dip_status shard_jobs_next(shard_jobs *jobs, int64_t *position, shard_sample **sample)
{
    pthread_mutex_lock(&jobs->lock);
    if (jobs->holds_last) {
        dip_pair_free(&jobs->slots[(jobs->n_taken - 1) % jobs->n_slots].sample.pair);
        jobs->holds_last = false;
        pthread_cond_signal(&jobs->room);
    }
    bool more = jobs->n_taken < jobs->n_claimed || next_open_position(jobs) < jobs->plan->n;
    slot *s = &jobs->slots[jobs->n_taken % jobs->n_slots];
    if (more) {
        while (jobs->n_taken == jobs->n_claimed || !s->ready)
            pthread_cond_wait(&jobs->ready, &jobs->lock);
        jobs->n_taken++;
        jobs->holds_last = true;
        *position = s->position;
        *sample = &s->sample;
    }
    pthread_mutex_unlock(&jobs->lock);
    return more ? DIP_OK : DIP_END;
}
