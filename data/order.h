/* order.h - which samples an epoch gives, in which order: a function of (seed, epoch).
 *
 * An epoch is an array of positions; position p holds the number of a sample. A batch takes a
 * window of `batch` positions and no sample stands twice in one. The windows of an epoch begin at
 * 0, batch, 2 batch, ... and never move: a slot whose sample is bad gets a spare, the k-th spare of
 * an epoch being the k-th position from its end, and the epoch is over when the windows meet the
 * spares. So two numbers say where an epoch stands: the position behind the last window, and how
 * many spares are used.
 *
 * Without replacement (resample = false), one pass of the data holds every sample `factor` times;
 * of a factor's fraction f, f * n samples chosen anew each pass. Where factors are above 1, a pass
 * is laid out in as many parts as its largest factor, none of which holds a sample twice, so that
 * the copies of a sample lie apart. A pass of a single part is the plain shuffle of Fisher and
 * Yates. With epoch_samples = 0 an epoch is a pass. With epoch_samples = N passes follow one
 * another without end, and an epoch is the next N samples of them, rounded to whole batches (down;
 * with `wrap` up).
 *
 * With replacement (resample), each position draws a source with a probability in proportion to
 * factor * n, then one of its samples, all alike; drawn again if the batch has it. That is what
 * open_clip does with shards (P = factor * shards of the source), sample by sample. epoch_samples
 * is needed and rounded as above.
 *
 * With `wrap`, the last batch of an epoch is filled from the beginning of what comes next. The next
 * epoch begins where it would have begun.
 *
 * Usage:   dip_order_open; dip_order_make(epoch); dip_order_sample; for each batch
 *          dip_order_window, then dip_order_spare once for every slot without a sample;
 *          dip_order_close.
 * Threads: dip_order_sample and dip_order_repeat from any thread, even while the thread that
 *          made the order calls the others; dip_order_make from one, while nobody looks.
 * Errors:  DIP_CONFIG: what is asked for cannot be laid out; DIP_NOMEM.                        */
#ifndef DIP_DATA_ORDER_H
#define DIP_DATA_ORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/status.h"

/* Samples [first, first + n), each `factor` times a pass. */
typedef struct dip_order_source {
    int64_t first, n;
    double factor;
} dip_order_source;

typedef struct dip_order_options {
    int64_t n_samples;               /* of the index, at most UINT32_MAX */
    const dip_order_source *sources; /* read by dip_order_open alone; NULL: all samples, once */
    int n_sources;
    int64_t batch;         /* of all ranks together */
    int64_t epoch_samples; /* 0: a pass */
    bool shuffle;          /* false: storage order; the rest is not looked at */
    bool resample, wrap;
    uint64_t seed;
} dip_order_options;

typedef struct dip_order dip_order;

dip_status dip_order_open(dip_order **order, const dip_order_options *options);
void dip_order_close(dip_order *order); /* accepts NULL */

/* Samples of an epoch, what `wrap` adds not counted: the same for every epoch. */
int64_t dip_order_length(const dip_order *order);
/* Batches of an epoch if no sample is bad, whole ones or with the last partial one. */
int64_t dip_order_batches(const dip_order *order, bool partial);

dip_status dip_order_make(dip_order *order, int64_t epoch);

/* The sample at a position, and how often the epoch had it before. */
int64_t dip_order_sample(const dip_order *order, int64_t position);
int64_t dip_order_repeat(const dip_order *order, int64_t position);

/* Begin the window at `begin`, `n_spares` spares being used. Returns its positions: `batch`, or
 * what is left, or 0. */
int64_t dip_order_window(dip_order *order, int64_t begin, int64_t n_spares);
/* The position that takes the place of the next slot without a sample; -1 when there is none. A
 * spare whose sample the batch has already is passed over. */
int64_t dip_order_spare(dip_order *order);
int64_t dip_order_n_spares(const dip_order *order); /* used up to now */
/* Where the i-th spare from now (0: the next) will probably be; -1: nowhere. */
int64_t dip_order_spare_ahead(const dip_order *order, int64_t i);

#endif
