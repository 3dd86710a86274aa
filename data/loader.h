/* loader.h - batches of decoded pairs, in an order that depends on (seed, epoch) alone.
 *
 * A global batch is a window of the epoch's order (data/order.h) of batch_size * n_ranks positions;
 * this rank's part of it begins at rank * batch_size. Workers decode ahead and the consumer takes
 * results in order, so the number of workers, and of ranks at the same global batch, changes the
 * speed and nothing else. In training a sample that cannot be used is counted, and a spare from the
 * end of the order is put in its slot. Evaluation (last_batch KEEP) leaves it out: batches may
 * be shorter.
 *
 * The way of a sample: loader_workers.c claims its position and has it filled (fill.h);
 * loader_batch.c takes it into a batch or passes it by; account.h counts it. loader.c opens, starts
 * and closes.
 *
 * Usage:   dip_loader_open; dip_loader_start(epoch, position, n_spares); dip_loader_next until
 *          DIP_END; again for the next epoch; dip_loader_close.
 * Owns:    workers, and never more than n_prefetch * batch_size images: all but one batch of them
 *          in slots, that one for spares decoded ahead in training (4 + batch_size / 32, at most
 *          64). Where images are mixed, each worker has one more. A batch is valid until the next
 *          dip_loader_next.
 * Threads: n_workers of its own; one consumer.
 * Ranks:   each process has a loader of its own with the same options but for `rank`; all call
 *          start and next alike. An error of one is an error of all.
 * Faults:  a bad sample enters the ledger when a batch passes it by, not when it is decoded ahead:
 *          the ledger agrees with dip_loader_position. Each rank has a ledger of its own part.
 * Errors:  dip_loader_next: DIP_END after the last batch; DIP_FORMAT when more than
 *          max_bad_fraction of the samples of this epoch up to here were bad (checked from the
 *          hundredth on, and at the end). DIP_CONFIG for impossible options.                    */
#ifndef DIP_DATA_LOADER_H
#define DIP_DATA_LOADER_H

#include <stdint.h>

#include "core/plan.h"
#include "core/status.h"
#include "data/account.h"
#include "data/augment/augment.h"
#include "data/caption/caption.h"
#include "data/image/image.h"
#include "data/order.h"
#include "data/samples.h"

/* Tokenise one caption of n bytes: write at most max_ids ids, return how many (>= 1). Called
 * from several threads at once. */
typedef int dip_encode_fn(void *context, int32_t *ids, int max_ids, const char *text, size_t n);

/* Give every rank the n numbers of all of them: all [n_ranks][n], in the order of ranks. Called by
 * every rank alike, at least once a batch. */
typedef dip_status dip_loader_agree_fn(void *context, const int64_t *mine, int64_t *all, int n);

typedef enum dip_last_batch {
    DIP_LAST_KEEP, /* evaluation: no spares either */
    DIP_LAST_DROP,
    DIP_LAST_WRAP /* fill it from the beginning of what comes next */
} dip_last_batch;

typedef struct dip_loader_options {
    const dip_samples *samples;
    dip_faults *faults;
    int64_t batch_size; /* of this rank */
    int image_size;     /* pixels, square */
    int n_workers;      /* >= 1 */
    int n_prefetch;     /* batches of images held at most, the one handed out among them, >= 2 */
    /* of images and groups; must outlive the loader. NULL: malloc */
    const dip_memory_source *memory;
    uint64_t seed;
    double max_bad_fraction; /* 1 = never stop */
    /* the order, see data/order.h; read by dip_loader_open alone */
    int shuffle; /* 0: storage order */
    dip_last_batch last_batch;
    const dip_order_source *sources; /* NULL: all samples, once */
    int n_sources;
    int resample;
    int64_t epoch_samples;      /* 0: all of them */
    int rank, n_ranks;          /* n_ranks 0: 1 */
    dip_loader_agree_fn *agree; /* n_ranks > 1 */
    void *agree_context;
    /* image */
    dip_decode_options decode;
    const dip_augmentation *augmentation; /* NULL: as for evaluation, one view */
    dip_filter filter;
    dip_resize_mode resize_mode;
    /* text; encode == NULL: images (and labels) only */
    dip_encode_fn *encode;
    void *encode_context;
    int context_length;
    dip_caption_options caption;
} dip_loader_options;

typedef struct dip_batch {
    int64_t n; /* samples; == batch_size unless last_batch is KEEP */
    int n_views;
    const uint8_t *images;  /* [n][n_views][size][size][3] */
    const int32_t *tokens;  /* [offsets[n]] packed */
    const int32_t *offsets; /* [n + 1]; all 0 without encode */
    const int32_t *group;   /* [n]: equal numbers <=> equal token sequences in this batch;
                               the number is the index of the first such sample. Without
                               encode every sample is its own group */
    const int64_t *index;   /* [n] sample numbers */
    const int64_t *labels;  /* [n], -1 where the sample has none or none was asked for */
    /* [n]; NULL unless the augmentation mixes images, see fill.h */
    const int64_t *mixed_with;
    const float *mix_share;
} dip_batch;

/* The order that a loader with these options goes by: for its length, before there is one. */
dip_order_options dip_loader_order(const dip_loader_options *options);

typedef struct dip_loader dip_loader;

dip_status dip_loader_open(dip_loader **loader, const dip_loader_options *options);
void dip_loader_close(dip_loader *loader); /* accepts NULL; stops the workers */

/* Begin an epoch: at 0, 0 or where the first two numbers below said it stood. They may come from a
 * loader with other workers, or other ranks at the same global batch. */
dip_status dip_loader_start(dip_loader *loader, int64_t epoch, int64_t position, int64_t n_spares);

/* Behind dip_loader_start amid an epoch: the third number, for max_bad_fraction. Without it every
 * spare that is used counts as a bad sample; where samples repeat, some were only passed over. */
void dip_loader_resume_bad(dip_loader *loader, int64_t n_bad);

dip_status dip_loader_next(dip_loader *loader, dip_batch *batch);

/* Behind the batch handed out last: the end of its window, how many spares are used, and how many
 * samples were bad, of all ranks. */
int64_t dip_loader_position(const dip_loader *loader);
int64_t dip_loader_n_spares(const dip_loader *loader);
int64_t dip_loader_n_bad(const dip_loader *loader);

/* Full batches an epoch has if no sample is bad (with KEEP, the last partial one too), and how many
 * of them may still come in the one that is on. */
int64_t dip_loader_batches_per_epoch(const dip_loader *loader);
int64_t dip_loader_batches_left(const dip_loader *loader);

/* What became of every sample up to now, exact whenever the consumer looks. `account` must be open
 * for the samples' shards. */
void dip_loader_account(dip_loader *loader, dip_account *account);
/* Go on counting from an account of a run before: trained and dropped; no epoch may be on. */
void dip_loader_resume_account(dip_loader *loader, const dip_account *account);

#endif
