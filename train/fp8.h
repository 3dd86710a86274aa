/* fp8.h - which products of a step are computed in 8-bit floats (kernels/device.h): those with the
 * four matrices of every block of both towers. The patch embedding, the projections into the common
 * space and the loss stay as they are.
 *
 * Usage:   dip_step_fp8_workspace while planning; dip_step_use_fp8 once parameters have addresses.
 * State:   the ranges that were learned are not in checkpoints: a resumed run learns them again,
 * and differs from one that was not interrupted by the rounding of a few steps. */
#ifndef DIP_TRAIN_FP8_H
#define DIP_TRAIN_FP8_H

#include "train/step.h"

/* Of micro-batches as in step->options. */
size_t dip_step_fp8_workspace(const dip_step *step);

/* DIP_UNSUPPORTED where the device cannot; DIP_NOMEM. */
dip_status dip_step_use_fp8(dip_step *step);

#endif
