/* order_pass.h - one pass over the data, laid out for data/order.c.
 *
 * Usage:   dip_pass_open; dip_pass_make for any pass; dip_pass_close.
 * Owns:    the sizes of the parts; borrows the options, whose sources have been checked.
 * Errors:  DIP_CONFIG: it cannot be laid out; DIP_NOMEM.                                      */
#ifndef DIP_DATA_ORDER_PASS_H
#define DIP_DATA_ORDER_PASS_H

#include "data/order.h"

typedef struct dip_pass_plan {
    const dip_order_options *options; /* with sources */
    int64_t n;                        /* samples of a pass, repeated ones counted */
    int n_parts;
    int64_t *parts; /* [n_parts] samples of each part, of the pass made last */
    uint32_t *held; /* [n_slots] a set: what a batch that two parts share has already */
    int64_t n_slots;
} dip_pass_plan;

dip_status dip_pass_open(dip_pass_plan *plan, const dip_order_options *options);
void dip_pass_close(dip_pass_plan *plan); /* a zeroed struct is fine */

/* items [plan->n], which begins `offset` samples behind the beginning of a batch. joined: what lies
 * before items (offset % batch of them) belongs to its first batch, and no sample of it is put
 * there. Nothing but the first `batch` items of a part depend on what lies before it. */
dip_status dip_pass_make(dip_pass_plan *plan, uint32_t *items, int64_t pass, int64_t offset,
                         bool joined);

#endif
