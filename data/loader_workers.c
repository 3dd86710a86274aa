/* The loader's workers, the ring and the reserve they fill: loader_internal.h has the picture. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "data/loader_internal.h"

/* ---- a worker ---------------------------------------------------------------------------- */

/* Under the lock. Workers stop in order: what is not claimed is not begun. */
static dip_slot *claim_in_ring(dip_loader *loader)
{
    if (loader->claimed >= loader->held + loader->n_slots) return NULL;
    const int64_t position = dip_loader_place(loader, loader->claimed);
    if (position >= loader->limit) return NULL;
    dip_slot *slot = dip_loader_slot(loader, loader->claimed++);
    slot->position = position;
    return slot;
}

static dip_slot *claim_in_reserve(dip_loader *loader)
{
    for (int i = 0; i < loader->n_reserve; i++) {
        dip_slot *slot = &loader->reserve[i];
        if (slot->position >= 0 && !slot->busy && !slot->done) return slot;
    }
    return NULL;
}

static dip_slot *claim(dip_loader *loader)
{
    if (!loader->running) return NULL;
    dip_slot *slot = loader->urgent ? claim_in_reserve(loader) : NULL;
    if (!slot) slot = claim_in_ring(loader);
    return slot ? slot : claim_in_reserve(loader);
}

/* Without the lock. */
static void fill(dip_worker *w, dip_slot *slot)
{
    const dip_loader *loader = w->loader;
    const int64_t repeat = dip_order_repeat(loader->order, slot->position);
    slot->index = dip_order_sample(loader->order, slot->position);
    slot->status = dip_filler_sample(w->filler, slot->image, slot->tokens, &slot->filled,
                                     loader->epoch, slot->index, (int)repeat);
    slot->detail = slot->status == DIP_OK ? NULL : strdup(dip_error());
}

/* The bytes of the sample that will be claimed a while from now. */
static void read_ahead(dip_worker *w, int64_t local)
{
    const dip_loader *loader = w->loader;
    const int64_t ahead = 16 + 4 * (int64_t)loader->options.n_workers;
    const int64_t position = dip_loader_place(loader, local + ahead);
    if (position < dip_order_length(loader->order))
        dip_filler_prefetch(w->filler, dip_order_sample(loader->order, position));
}

static void forget(dip_slot *slot)
{
    free(slot->detail);
    slot->detail = NULL;
    slot->position = slot->index = -1;
    slot->done = slot->unwanted = false;
}

/* Under the lock. */
static void finish(dip_loader *loader, dip_slot *slot)
{
    slot->busy = false;
    if (slot->unwanted) {
        forget(slot);
    } else {
        slot->done = true;
        dip_loader_row(loader, slot->index)->read++;
    }
    while (loader->ready < loader->claimed && dip_loader_slot(loader, loader->ready)->done)
        loader->ready++;
    if (loader->urgent || loader->ready >= loader->wanted)
        pthread_cond_signal(&loader->may_consume);
    if (--loader->n_busy == 0) pthread_cond_signal(&loader->may_start);
}

static void *work(void *argument)
{
    dip_worker *w = argument;
    dip_loader *loader = w->loader;
    pthread_mutex_lock(&loader->lock);
    for (;;) {
        dip_slot *slot = NULL;
        while (!loader->stop && !(slot = claim(loader)))
            pthread_cond_wait(&loader->may_claim, &loader->lock);
        if (loader->stop) break;
        const int64_t next = loader->claimed;
        slot->busy = true;
        loader->n_busy++;
        pthread_mutex_unlock(&loader->lock);

        if (slot < loader->reserve) read_ahead(w, next);
        fill(w, slot);

        pthread_mutex_lock(&loader->lock);
        finish(loader, slot);
    }
    pthread_mutex_unlock(&loader->lock);
    return NULL;
}

dip_status dip_workers_start(dip_loader *loader)
{
    /* Signals are the main thread's business. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    dip_status status = DIP_OK;
    for (int i = 0; i < loader->options.n_workers && status == DIP_OK; i++) {
        dip_worker *w = &loader->workers[i];
        w->loader = loader;
        status = dip_filler_open(&w->filler, &loader->options);
        if (status != DIP_OK) break;
        int error = pthread_create(&w->thread, NULL, work, w);
        if (error)
            status = dip_fail(DIP_NOMEM, "loader: worker %d of %d cannot start: %s", i + 1,
                              loader->options.n_workers, strerror(error));
        else
            loader->n_workers++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return status;
}

void dip_workers_stop(dip_loader *loader)
{
    pthread_mutex_lock(&loader->lock);
    loader->stop = true;
    pthread_cond_broadcast(&loader->may_claim);
    pthread_mutex_unlock(&loader->lock);
    for (int i = 0; i < loader->n_workers; i++) pthread_join(loader->workers[i].thread, NULL);
    if (!loader->workers) return;
    for (int i = 0; i < loader->options.n_workers; i++) dip_filler_close(loader->workers[i].filler);
}

/* ---- an epoch ---------------------------------------------------------------------------- */

void dip_workers_run(dip_loader *loader)
{
    pthread_mutex_lock(&loader->lock);
    loader->held = loader->given = loader->ready = loader->claimed = loader->wanted = 0;
    loader->limit = dip_order_length(loader->order) - loader->n_spares;
    loader->running = true;
    pthread_cond_broadcast(&loader->may_claim);
    pthread_mutex_unlock(&loader->lock);
}

void dip_workers_halt(dip_loader *loader)
{
    pthread_mutex_lock(&loader->lock);
    loader->running = false;
    while (loader->n_busy > 0) pthread_cond_wait(&loader->may_start, &loader->lock);
    for (int64_t i = 0; i < loader->n_slots + loader->n_reserve; i++) {
        dip_slot *slot = &loader->slots[i];
        if (slot->done) dip_loader_row(loader, slot->index)->read--;
        forget(slot);
    }
    loader->held = loader->given = loader->ready = loader->claimed = 0;
    pthread_mutex_unlock(&loader->lock);
}

/* ---- the ring, seen from the consumer ----------------------------------------------------- */

void dip_ring_wait(dip_loader *loader, int64_t needed, int64_t end)
{
    pthread_mutex_lock(&loader->lock);
    loader->wanted = loader->claimed < end ? loader->claimed : end;
    if (loader->wanted < needed) loader->wanted = needed;
    while (loader->ready < loader->wanted) pthread_cond_wait(&loader->may_consume, &loader->lock);
    for (int64_t p = needed; p < loader->wanted; p++) {
        dip_slot *slot = dip_loader_slot(loader, p);
        dip_loader_row(loader, slot->index)->read--;
        forget(slot);
    }
    pthread_mutex_unlock(&loader->lock);
}

void dip_ring_release(dip_loader *loader, int64_t local)
{
    pthread_mutex_lock(&loader->lock);
    for (int64_t p = loader->held; p < local; p++) forget(dip_loader_slot(loader, p));
    loader->held = local;
    pthread_cond_broadcast(&loader->may_claim);
    pthread_mutex_unlock(&loader->lock);
}

/* ---- the reserve --------------------------------------------------------------------------- */

static bool is_among(int64_t position, const int64_t *positions, int n)
{
    for (int i = 0; i < n; i++)
        if (positions[i] == position) return true;
    return false;
}

/* Under the lock. What is not among the positions makes room, at once or when it is done. */
static void make_room(dip_loader *loader, const int64_t *positions, int n)
{
    for (int i = 0; i < loader->n_reserve; i++) {
        dip_slot *slot = &loader->reserve[i];
        if (slot->position < 0 || is_among(slot->position, positions, n)) continue;
        if (slot->done) dip_loader_row(loader, slot->index)->read--;
        if (slot->busy)
            slot->unwanted = true;
        else
            forget(slot);
    }
}

/* Under the lock. The slot that is for a position; NULL: there is no room yet. */
static dip_slot *reserve_for(dip_loader *loader, int64_t position)
{
    dip_slot *room = NULL;
    for (int i = 0; i < loader->n_reserve; i++) {
        dip_slot *slot = &loader->reserve[i];
        if (slot->position == position && !slot->unwanted) return slot;
        if (slot->position < 0) room = slot;
    }
    if (!room) return NULL;
    room->position = position;
    pthread_cond_signal(&loader->may_claim);
    return room;
}

void dip_reserve_wait(dip_loader *loader, dip_slot **slots, const int64_t *positions, int n)
{
    pthread_mutex_lock(&loader->lock);
    make_room(loader, positions, n);
    loader->urgent = true;
    for (;;) {
        int n_done = 0;
        for (int i = 0; i < n; i++) {
            slots[i] = reserve_for(loader, positions[i]);
            n_done += slots[i] && slots[i]->done;
        }
        if (n_done == n) break;
        pthread_cond_wait(&loader->may_consume, &loader->lock);
    }
    loader->urgent = false;
    pthread_mutex_unlock(&loader->lock);
}

void dip_reserve_free(dip_loader *loader, dip_slot *slot)
{
    pthread_mutex_lock(&loader->lock);
    forget(slot);
    pthread_mutex_unlock(&loader->lock);
}

void dip_reserve_look_ahead(dip_loader *loader)
{
    int64_t positions[DIP_MAX_RESERVE] = {0};
    int n = 0;
    while (n < loader->n_reserve && (positions[n] = dip_order_spare_ahead(loader->order, n)) >= 0)
        n++;
    pthread_mutex_lock(&loader->lock);
    loader->limit = dip_order_length(loader->order) - loader->n_spares;
    make_room(loader, positions, n);
    for (int i = 0; i < n; i++) reserve_for(loader, positions[i]);
    pthread_mutex_unlock(&loader->lock);
}
