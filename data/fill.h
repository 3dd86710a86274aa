/* fill.h - one sample of a batch: from the shard's bytes to pixels and tokens.
 *
 * Everything random is drawn, in this order, from one stream of (seed, epoch, index, repeat): the
 * caption; then view by view the cut, the flip and the other operations in the list's order. Where
 * a sample is mixed in, its draws stand between those of the operation: whether, which, its own cut
 * and changes, the share.
 *
 * One view is decoded as far as its cut needs; several share one whole decoding, without
 * dip_decode_options.scale_in_dct.
 *
 * Usage:   one filler per thread: dip_filler_open, dip_filler_sample, dip_filler_close.
 * Owns:    the decoder's, the resizer's, the captioner's memory; borrows the options.
 * Errors:  DIP_FORMAT: the sample cannot be used; DIP_IO: none can be read; DIP_NOMEM; at open also
 *          DIP_CONFIG.                                                                    */
#ifndef DIP_DATA_FILL_H
#define DIP_DATA_FILL_H

#include <stdint.h>

#include "core/status.h"
#include "data/loader.h"

typedef struct dip_filler dip_filler;

typedef struct dip_filled {
    int32_t n_tokens;   /* 0 without encode */
    int64_t mixed_with; /* the sample whose pixels were mixed in; -1: none */
    float mix_share;    /* share of the pixels that are this sample's own; 1: all */
    dip_fault_kind fault;
} dip_filled;

dip_status dip_filler_open(dip_filler **filler, const dip_loader_options *options);
void dip_filler_close(dip_filler *filler); /* accepts NULL */

/* images [n_views][size][size][3]; tokens [context_length]. `repeat` counts the sample's earlier
 * appearances in the epoch: 0 the first time. A sample that should be mixed in but cannot be used
 * is not: this one stays unmixed. DIP_FORMAT: filled->fault is the ledger's line, dip_error() the
 * detail. */
dip_status dip_filler_sample(dip_filler *filler, uint8_t *images, int32_t *tokens,
                             dip_filled *filled, int64_t epoch, int64_t index, int repeat);

/* Ask the system to read a sample's bytes ahead; see data/samples.h. */
void dip_filler_prefetch(dip_filler *filler, int64_t index);

#endif
