/* fill.h - one sample of a batch: from the shard's bytes to pixels and tokens.
 *
 * Usage:   one filler per thread: dip_filler_open, dip_filler_sample, dip_filler_close.
 * Owns:    the decoder's and the resizer's memory; borrows the options.
 * Errors:  DIP_FORMAT: the sample cannot be used; DIP_NOMEM.                             */
#ifndef DIP_DATA_FILL_H
#define DIP_DATA_FILL_H

#include <stdint.h>

#include "core/status.h"
#include "data/loader.h"

typedef struct dip_filler dip_filler;

dip_status dip_filler_open(dip_filler **filler, const dip_loader_options *options);
void dip_filler_close(dip_filler *filler); /* accepts NULL */

/* image [size][size][3]; tokens [context_length], *n_tokens of them (0 without encode). All that
 * is random is drawn from a stream of (seed, epoch, index), so that it depends on nothing else.
 * DIP_FORMAT: *fault is the ledger's line, dip_error() the detail. */
dip_status dip_filler_sample(dip_filler *filler, uint8_t *image, int32_t *tokens, int32_t *n_tokens,
                             dip_fault_kind *fault, int64_t epoch, int64_t index);

#endif
