/* memory.h - what a training step needs, booked by name, and whether there is so much.
 *
 * Before anything is allocated the plan is compared with what may be used. A plan that is too large
 * is tried again with more of the activations forgotten and computed anew (--recompute auto); when
 * none fits, the refusal says what is needed, what the device has or --memory allows, and the
 * largest batch that would fit with each --recompute.
 *
 * Usage:   dip_step_allocate in dip_step_open, with clip, options, exec and the optimizer's
 *          constants in place; it leaves every pointer of the step bound.
 * Errors:  DIP_NOMEM, DIP_CONFIG (more rows than can be counted).                            */
#ifndef DIP_TRAIN_MEMORY_H
#define DIP_TRAIN_MEMORY_H

#include "train/step.h"

dip_status dip_step_allocate(dip_step *step);

/* Bytes of the plan and the workspace for such a step; nothing is allocated. */
dip_status dip_step_bytes(size_t *n_bytes, const dip_step *step, int64_t micro_batch,
                          dip_recompute recompute);

/* "none", "mlp", "block"; and back, anything else being NONE. */
const char *dip_recompute_name(dip_recompute recompute);
dip_recompute dip_recompute_named(const char *name);

#endif
