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
 * A step is handed in and its result fetched later: on a device that runs beside the host, the next
 * batch is brought there while this one is computed, and the host never waits for what it does not
 * read. Such a step is recorded once a size and replayed (train/graphs.h).
 *
 * Usage:   dip_step_open, dip_step_init_weights (or fill host arrays and dip_step_upload);
 *          dip_step_submit per batch, dip_step_collect whenever dip_step_in_flight has reached
 *          dip_step_in_flight_limit, and until none is left before anything else is asked of the
 *          step; dip_step_close. dip_step_run does both and waits.
 * Errors:  DIP_NOMEM: train/memory.h; what ops, towers and the device report.               */
#ifndef DIP_TRAIN_STEP_H
#define DIP_TRAIN_STEP_H

#include <stdbool.h>
#include <stdint.h>

#include "core/plan.h"
#include "data/loader.h"
#include "loss/loss.h"
#include "model/clip.h"
#include "train/graphs.h"
#include "train/optimizer.h"

typedef struct dip_step_options {
    const char *device; /* for dip_exec_open */
    dip_dtype dtype;
    bool fp8; /* products of the blocks in 8-bit floats (train/fp8.h); dtype is bf16 */
    int n_threads;
    int64_t micro_batch; /* pairs computed at once */
    int64_t n_micro;     /* micro-batches a step (open_clip's accum_freq) */
    const dip_loss *loss;
    dip_duplicates duplicates;
    dip_adamw_hyper optimizer;
    /* memory */
    size_t memory_bytes;     /* to be used at most; 0: what a GPU has, on a CPU no limit */
    dip_recompute recompute; /* what backward computes again; or ... */
    bool choose_recompute;   /* ... the least that fits; then options.recompute of the open step */
    /* comparisons */
    bool all_rows;            /* nn/stack.h */
    dip_text_padding padding; /* text/layout.h */
    bool graphs;              /* record steps, where the device can */
    bool time_parts;          /* wait after every part of a step, to know its time */
} dip_step_options;

/* Of a device that runs beside the host the parts are known with time_parts only, else 0. */
typedef struct dip_step_times {
    double image_ms, text_ms, loss_ms, backward_ms, optimizer_ms;
    double step_ms; /* since the step was handed in, or since the result before, if that is later */
} dip_step_times;

typedef struct dip_step_result {
    double loss, grad_norm, logit_scale; /* scale: exp, after the step */
    bool applied;                        /* false: not finite, nothing was changed */
    dip_step_times times;
} dip_step_result;

/* What the device says about a step, at its end. */
typedef struct dip_step_outcome {
    dip_update update;
    float log_scale;
} dip_step_outcome;

/* The inputs of the step, or the micro-batch, in a slot; all but `text` on the device. */
typedef struct dip_step_inputs {
    uint8_t *images;         /* [micro_batch, size, size, 3] */
    int32_t *group;          /* [micro_batch * n_micro] */
    double *lr;              /* [1] */
    dip_step_outcome *after; /* [1] */
    dip_text_input text;
} dip_step_inputs;

/* A step that was handed in. */
typedef struct dip_flight {
    int slot; /* of its outcome */
    double began_ms, mark_ms;
    dip_step_times times;
} dip_flight;

enum { DIP_STEP_BUFFERS = 10, DIP_STEP_REGIONS = DIP_STEP_BUFFERS + 4 * DIP_N_SLOTS };

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
    const float *log_scale; /* [1]: the parameter's master */
    double *loss;           /* [1] */
    dip_region regions[DIP_STEP_REGIONS];
    int32_t *micro_offsets; /* host [micro_batch + 1] */
    /* steps on their way */
    int n_slots; /* 1 where ops have run when they return */
    dip_step_inputs inputs[DIP_N_SLOTS];
    dip_step_outcome *outcomes; /* host [DIP_N_SLOTS], page-locked, then ... */
    double *rates;              /* ... [DIP_N_SLOTS]: learning rates on their way */
    dip_flight flights[DIP_N_SLOTS];
    int64_t n_submitted, n_collected, n_passes;
    double collected_ms; /* when the last result came */
    dip_graphs graphs;
} dip_step;

dip_status dip_step_open(dip_step *step, const dip_clip *clip, const dip_step_options *options);
void dip_step_close(dip_step *step); /* a zeroed struct is fine */

/* Fresh weights from the seed. */
dip_status dip_step_init_weights(dip_step *step, uint64_t seed);

/* Make device parameters (masters, their copies in T, the average) from host values [n_values];
 * `ema` NULL: the average starts at the values. */
dip_status dip_step_upload(dip_step *step, const float *master, const float *ema);

/* Hand in one step on a batch of exactly micro_batch * n_micro pairs; the batch may go when this
 * returns. Not beyond the limit. */
dip_status dip_step_submit(dip_step *step, const dip_batch *batch, double lr);
/* Wait for the oldest step that was handed in. */
dip_status dip_step_collect(dip_step *step, dip_step_result *result);

int dip_step_in_flight(const dip_step *step);
int dip_step_in_flight_limit(const dip_step *step);

/* Submit and collect; no other step may be on its way. */
dip_status dip_step_run(dip_step *step, dip_step_result *result, const dip_batch *batch, double lr);

/* Features of at most micro_batch pairs, for evaluation: u, v [n, E] on the host. Either may be
 * NULL. No step may be on its way. Never in fp8, so that training does not depend on how often it
 * is evaluated. */
dip_status dip_step_encode(dip_step *step, float *u, float *v, const dip_batch *batch);

/* Floating point operations of one whole step (forward and backward: three times forward) of the
 * model as open_clip counts it, at `mean_length` tokens a text. */
double dip_step_flops(const dip_step *step, double mean_length);

#endif
