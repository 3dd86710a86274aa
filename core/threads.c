#include "core/threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

struct dip_queue {
    pthread_mutex_t lock;
    pthread_cond_t not_empty, not_full;
    void **ring;
    size_t capacity, first, n_items;
    bool shut;
};

dip_status dip_queue_open(dip_queue **out, size_t capacity)
{
    *out = NULL;
    if (capacity < 1) return dip_fail(DIP_CONFIG, "a queue needs room for at least 1 item, not 0");
    dip_queue *queue = calloc(1, sizeof *queue);
    void **ring =
        queue && capacity <= PTRDIFF_MAX / sizeof *ring ? calloc(capacity, sizeof *ring) : NULL;
    if (!ring) {
        free(queue);
        return dip_fail(DIP_NOMEM, "no memory for a queue of %zu items", capacity);
    }
    queue->ring = ring;
    queue->capacity = capacity;
    /* With default attributes these only fill in the structs. */
    pthread_mutex_init(&queue->lock, NULL);
    pthread_cond_init(&queue->not_empty, NULL);
    pthread_cond_init(&queue->not_full, NULL);
    *out = queue;
    return DIP_OK;
}

dip_status dip_queue_push(dip_queue *queue, void *item)
{
    dip_status status = DIP_END;
    pthread_mutex_lock(&queue->lock);
    while (!queue->shut && queue->n_items == queue->capacity)
        pthread_cond_wait(&queue->not_full, &queue->lock);
    if (!queue->shut) {
        queue->ring[(queue->first + queue->n_items) % queue->capacity] = item;
        queue->n_items++;
        status = DIP_OK;
        pthread_cond_signal(&queue->not_empty);
    }
    pthread_mutex_unlock(&queue->lock);
    return status;
}

dip_status dip_queue_pop(dip_queue *queue, void **item)
{
    dip_status status = DIP_END;
    *item = NULL;
    pthread_mutex_lock(&queue->lock);
    while (!queue->shut && queue->n_items == 0) pthread_cond_wait(&queue->not_empty, &queue->lock);
    if (queue->n_items > 0) {
        *item = queue->ring[queue->first];
        queue->first = (queue->first + 1) % queue->capacity;
        queue->n_items--;
        status = DIP_OK;
        pthread_cond_signal(&queue->not_full);
    }
    pthread_mutex_unlock(&queue->lock);
    return status;
}

void dip_queue_shut(dip_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    queue->shut = true;
    pthread_cond_broadcast(&queue->not_empty);
    pthread_cond_broadcast(&queue->not_full);
    pthread_mutex_unlock(&queue->lock);
}

void dip_queue_close(dip_queue *queue)
{
    if (!queue) return;
    pthread_cond_destroy(&queue->not_full);
    pthread_cond_destroy(&queue->not_empty);
    pthread_mutex_destroy(&queue->lock);
    free(queue->ring);
    free(queue);
}

int dip_core_count(void)
{
    /* The kernel refuses a mask smaller than its own with EINVAL, so grow until it fits. */
    for (int n_cpus = 1024; n_cpus <= 1 << 16; n_cpus *= 2) {
        cpu_set_t *set = CPU_ALLOC((size_t)n_cpus);
        if (!set) break;
        size_t n_bytes = CPU_ALLOC_SIZE((size_t)n_cpus);
        int count = 0;
        if (sched_getaffinity(0, n_bytes, set) == 0) count = CPU_COUNT_S(n_bytes, set);
        CPU_FREE(set);
        if (count > 0) return count;
    }
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online >= 1 ? (int)online : 1;
}
