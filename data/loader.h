/* loader.h - batches of decoded pairs, in an order that depends on (seed, epoch) alone.
 *
 * The order of an epoch is a permutation of all samples; workers decode ahead in that order
 * and the consumer takes results in that order, so the number of workers changes speed and
 * nothing else. A sample that cannot be used is counted and the next takes its place. The last
 * partial batch of a training epoch is dropped (evaluation keeps it: drop_last = 0).
 *
 * Usage:   dip_loader_open; dip_loader_start(epoch, position); dip_loader_next until DIP_END;
 *          again for the next epoch; dip_loader_close.
 * Owns:    workers, slots, batches. A batch is valid until the next dip_loader_next.
 * Threads: the only file of data/ with threads; one consumer.
 * Faults:  a bad sample enters the ledger when a batch passes it by, not when it is decoded ahead:
 *          the ledger agrees with dip_loader_position.
 * Errors:  dip_loader_next: DIP_END after the last batch; DIP_FORMAT when more than
 *          max_bad_fraction of the samples of this epoch up to here were bad (those before the
 *          position of dip_loader_start count as good; checked from the hundredth on, and at
 *          the end). DIP_CONFIG for impossible options.  */
#ifndef DIP_DATA_LOADER_H
#define DIP_DATA_LOADER_H

#include <stdint.h>

#include "core/plan.h"
#include "core/status.h"
#include "data/image.h"
#include "data/samples.h"

/* Tokenise one caption of n bytes: write at most max_ids ids, return how many (>= 1). Called
 * from several threads at once. */
typedef int dip_encode_fn(void *context, int32_t *ids, int max_ids, const char *text, size_t n);

typedef struct dip_loader_options {
    const dip_samples *samples;
    dip_faults *faults;
    int64_t batch_size;
    int image_size; /* pixels, square */
    int n_workers;  /* >= 1 */
    int n_prefetch; /* batches decoded ahead, >= 1 */
    int shuffle;    /* 0: storage order */
    int drop_last;
    const dip_memory_source
        *memory; /* of images and groups; must outlive the loader. NULL: malloc */
    uint64_t seed;
    int64_t max_pixels;
    double max_bad_fraction; /* 1 = never stop */
    /* image */
    int random_crop; /* 0: dip_resize_for_eval */
    double crop_scale[2], crop_ratio[2];
    double flip_probability;
    dip_filter filter;
    dip_resize_mode resize_mode;
    /* text; encode == NULL: images (and labels) only */
    dip_encode_fn *encode;
    void *encode_context;
    int context_length;
    int random_caption_line; /* of several lines: 0 the first, 1 drawn per epoch */
} dip_loader_options;

typedef struct dip_batch {
    int64_t n;              /* samples; == batch_size unless the last of drop_last == 0 */
    const uint8_t *images;  /* [n][size][size][3] */
    const int32_t *tokens;  /* [offsets[n]] packed */
    const int32_t *offsets; /* [n + 1]; all 0 without encode */
    const int32_t *group;   /* [n]: equal numbers <=> equal token sequences in this batch;
                               the number is the index of the first such sample. Without
                               encode every sample is its own group */
    const int64_t *index;   /* [n] sample numbers */
    const int64_t *labels;  /* [n], -1 where the sample has none */
} dip_batch;

typedef struct dip_loader dip_loader;

dip_status dip_loader_open(dip_loader **loader, const dip_loader_options *options);
void dip_loader_close(dip_loader *loader); /* accepts NULL; stops the workers */

/* Begin an epoch at a position (0, or what dip_loader_position said when it was saved). */
dip_status dip_loader_start(dip_loader *loader, int64_t epoch, int64_t position);

dip_status dip_loader_next(dip_loader *loader, dip_batch *batch);

/* How many samples of the epoch's order have been consumed (used or dropped) by the batches
 * handed out so far: pass it to dip_loader_start to go on from here. */
int64_t dip_loader_position(const dip_loader *loader);

/* Full batches an epoch has if no sample is bad. */
int64_t dip_loader_batches_per_epoch(const dip_loader *loader);

#endif
