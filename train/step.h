/* step.h - one training step, readable as the diagram:
 *
 *   batch -> image features -> text features -> loss -> backward -> optimizer
 *
 * The state of training lives here: parameters, gradients, optimizer, and the memory of the two
 * towers' passes, all booked in one plan before the first step. After step 1 nothing is allocated.
 *
 * With several micro-batches the features of all are computed first, the loss gives all their
 * gradients, and each micro-batch is run again to be differentiated: the big batch's gradient,
 * exactly (the last one is still in memory and needs no second run).
 *
 * Usage:   dip_step_open, dip_step_init_weights (or fill host arrays and dip_step_upload),
 *          dip_step_run per batch, dip_step_close.
 * Errors:  DIP_NOMEM with the plan's sizes; what ops and towers report.                      */
#ifndef DIP_TRAIN_STEP_H
#define DIP_TRAIN_STEP_H

#include <stdbool.h>
#include <stdint.h>

#include "core/plan.h"
#include "data/loader.h"
#include "loss/loss.h"
#include "model/clip.h"
#include "train/optimizer.h"

typedef struct dip_step_options {
    const char *device; /* for dip_exec_open */
    dip_dtype dtype;
    int n_threads;
    int64_t micro_batch; /* pairs computed at once */
    int64_t n_micro;     /* micro-batches a step (open_clip's accum_freq) */
    const dip_loss *loss;
    dip_duplicates duplicates;
    dip_optimizer optimizer; /* hyper-parameters only */
} dip_step_options;

typedef struct dip_step_times {
    double image_ms, text_ms, loss_ms, backward_ms, optimizer_ms;
} dip_step_times;

typedef struct dip_step_result {
    double loss, grad_norm, logit_scale; /* scale: exp, after the step */
    bool applied;                        /* false: not finite, nothing was changed */
    dip_step_times times;
} dip_step_result;

enum { DIP_STEP_REGIONS = 11 };

typedef struct dip_step {
    const dip_clip *clip;
    dip_step_options options;
    dip_exec exec;
    dip_plan *plan;
    dip_param_set params;
    dip_optimizer optimizer;
    dip_vision_pass *vision_pass;
    dip_text_pass *text_pass;
    /* the whole batch, on the device */
    float *u, *v, *d_u, *d_v, *d_logit_scale, *loss_stats;
    int32_t *group;
    uint8_t *images;        /* one micro-batch of pixels */
    int32_t *micro_offsets; /* host [micro_batch + 1] */
    dip_region regions[DIP_STEP_REGIONS];
} dip_step;

dip_status dip_step_open(dip_step *step, const dip_clip *clip, const dip_step_options *options);
void dip_step_close(dip_step *step); /* a zeroed struct is fine */

/* Fresh weights from the seed. */
dip_status dip_step_init_weights(dip_step *step, uint64_t seed);

/* Make device parameters (masters, their copies in T, the average) from host values [n_values];
 * `ema` NULL: the average starts at the values. */
dip_status dip_step_upload(dip_step *step, const float *master, const float *ema);

/* One step on a batch of exactly micro_batch * n_micro pairs. */
dip_status dip_step_run(dip_step *step, dip_step_result *result, const dip_batch *batch, double lr);

/* Features of at most micro_batch pairs, for evaluation: u, v [n, E] on the host. Either may be
 * NULL. */
dip_status dip_step_encode(dip_step *step, float *u, float *v, const dip_batch *batch);

/* The value of the logit scale parameter (log). */
dip_status dip_step_logit_scale(dip_step *step, float *log_scale);

/* Floating point operations of one whole step (forward and backward: three times forward) of the
 * model as open_clip counts it, at `mean_length` tokens a text. */
double dip_step_flops(const dip_step *step, double mean_length);

#endif
