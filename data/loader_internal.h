/* loader_internal.h - what the three files of the loader share.
 *
 * Local position p counts this rank's slots since dip_loader_start: slot p % batch_size of window
 * p / batch_size. It lives in ring slot p % n_slots:
 *
 *     held ......... given ....... ready ....... claimed ....... held + n_slots
 *        | with the    | decoded     | at work     | free
 *        | consumer    |             | (with gaps) |
 *
 * Workers claim positions one by one and may finish in any order; `ready` is the end of the part
 * without gaps, and the consumer waits for it alone. The reserve is a few slots beside the ring for
 * spares: the consumer says which positions of the order they are for, workers fill them when the
 * ring has nothing for them to do, or first of all when the consumer waits.                  */
#ifndef DIP_DATA_LOADER_INTERNAL_H
#define DIP_DATA_LOADER_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>

#include "data/fill.h"
#include "data/loader.h"

enum { DIP_MAX_RESERVE = 64 };

/* One decoded sample, or why there is none. */
typedef struct dip_slot {
    int64_t position; /* of the order; in the reserve -1: free */
    int64_t index;    /* of the sample; -1: the slot has none */
    uint8_t *image;   /* all views */
    int32_t *tokens;  /* [context_length] */
    dip_filled filled;
    bool busy;         /* a worker is at it */
    bool done;         /* and has finished: buffered, until a batch has it */
    bool unwanted;     /* in the reserve: busy, but for nothing */
    dip_status status; /* DIP_OK; DIP_FORMAT: a bad sample; others stop the run */
    char *detail;      /* malloc'd sentence unless DIP_OK; NULL when there was no memory */
} dip_slot;

typedef struct dip_worker {
    dip_loader *loader;
    pthread_t thread;
    dip_filler *filler;
} dip_worker;

struct dip_loader {
    dip_loader_options options;
    dip_order *order;
    int64_t global_batch;
    int64_t epoch, start; /* of the epoch that is on: where local position 0 lies */
    int n_views;
    size_t image_bytes; /* of all views of a sample */
    bool fills;         /* slots without a sample get a spare */

    dip_slot *slots;      /* [n_slots], then [n_reserve] */
    dip_slot *reserve;    /* behind them */
    uint8_t *images;      /* [n_slots][image_bytes] */
    uint8_t *spares;      /* [n_reserve][image_bytes] */
    int32_t *slot_tokens; /* [n_slots + n_reserve][context_length] */
    int64_t n_slots;
    int n_reserve;

    dip_worker *workers;
    int n_workers; /* started */
    pthread_mutex_t lock;
    pthread_cond_t may_claim, may_consume, may_start;
    /* under the lock */
    bool stop;    /* threads end */
    bool running; /* an epoch is on */
    bool urgent;  /* the consumer waits for the reserve */
    int n_busy;   /* workers that hold a slot */
    int64_t held, given, ready, claimed;
    int64_t wanted;      /* the consumer sleeps until ready reaches it */
    int64_t limit;       /* positions of the order from here on are used as spares */
    dip_account account; /* `buffered` is counted when somebody asks */

    /* the consumer's own */
    int64_t position, n_spares, n_bad_behind; /* behind the batch handed out last */
    bool ended;                               /* the epoch is over */
    int64_t n_seen, n_bad;                    /* of all ranks */
    dip_status failed;
    char *failed_detail;
    int64_t *needs;      /* [batch_size] slots of the window that lack a sample */
    int64_t *candidates; /* [batch_size] positions of the spares for them */
    int64_t *agreed;     /* [n_ranks][3] */
    int32_t *tokens, *offsets, *group, *table;
    int64_t *index, *labels, *mixed_with;
    float *mix_share;
    size_t n_table;
};

static inline dip_slot *dip_loader_slot(const dip_loader *loader, int64_t local)
{
    return &loader->slots[local % loader->n_slots];
}

/* Where a local position lies in the order. */
static inline int64_t dip_loader_place(const dip_loader *loader, int64_t local)
{
    const int64_t batch = loader->options.batch_size;
    return loader->start + local / batch * loader->global_batch + loader->options.rank * batch +
           local % batch;
}

static inline dip_account_row *dip_loader_row(dip_loader *loader, int64_t index)
{
    return &loader->account.shards[dip_samples_get(loader->options.samples, index).shard_index];
}

/* loader_workers.c */

dip_status dip_workers_start(dip_loader *loader);
void dip_workers_stop(dip_loader *loader);

/* Let workers begin at local position 0, or make them stop and forget what they have decoded. */
void dip_workers_run(dip_loader *loader);
void dip_workers_halt(dip_loader *loader);

/* Wait until everything before the local position `needed` is decoded. What was claimed from there
 * up to `end` has become a spare in the meantime and is forgotten: the slots are empty. */
void dip_ring_wait(dip_loader *loader, int64_t needed, int64_t end);
/* Give back what lies before a local position. */
void dip_ring_release(dip_loader *loader, int64_t local);

/* Wait for n <= n_reserve spares; slots[i] is that of positions[i]. */
void dip_reserve_wait(dip_loader *loader, dip_slot **slots, const int64_t *positions, int n);
void dip_reserve_free(dip_loader *loader, dip_slot *slot);
/* Have those decoded that will probably be next. */
void dip_reserve_look_ahead(dip_loader *loader);

#endif
