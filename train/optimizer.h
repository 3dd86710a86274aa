/* optimizer.h - AdamW over a parameter set: two groups (decayed, not decayed), clipping, finite
 * check, EMA; and the logit scale, which stays between 0 and ln 100.
 *
 * All of it happens on the device: what a step does (dip_update) is decided there, and a step whose
 * loss or gradient is not finite changes nothing, without anybody waiting to look.
 *
 * Usage:   dip_optimizer_plan, _bind, _reset; per step dip_optimizer_step.
 * Memory:  exp_avg, exp_avg_sq (and the average) float [n_values] in DIP_SPACE_STATE.           */
#ifndef DIP_TRAIN_OPTIMIZER_H
#define DIP_TRAIN_OPTIMIZER_H

#include <stdint.h>

#include "core/plan.h"
#include "kernels/ops.h"
#include "nn/params.h"

typedef struct dip_optimizer {
    dip_adamw_hyper hyper; /* ema_decay 0: no average */
    int logit_scale;       /* parameter number */
    dip_region m_region, v_region, ema_region, update_region, sum_region;
    float *m, *v, *ema; /* [n_values]; ema NULL when off */
    dip_update *update; /* [1]: of the last step, and how many were applied */
    double *sum;        /* [1]: of the squared gradients */
} dip_optimizer;

void dip_optimizer_plan(dip_optimizer *optimizer, dip_plan *plan, const dip_param_table *table);
void dip_optimizer_bind(dip_optimizer *optimizer, const dip_plan *plan);

/* As before the first step. */
dip_status dip_optimizer_reset(dip_exec *exec, const dip_optimizer *optimizer,
                               const dip_param_table *table);

/* One update from set->grads; lr and loss double [1] on the device. When the loss or the gradient
 * is not finite nothing but *optimizer->update is changed. */
dip_status dip_optimizer_step(dip_exec *exec, const dip_optimizer *optimizer,
                              const dip_param_set *set, const double *lr, const double *loss);

/* Steps applied so far: t of the bias correction. Both wait for the device. */
dip_status dip_optimizer_n_updates(dip_exec *exec, const dip_optimizer *optimizer,
                                   int64_t *n_updates);
dip_status dip_optimizer_set_n_updates(dip_exec *exec, const dip_optimizer *optimizer,
                                       int64_t n_updates);

#endif
