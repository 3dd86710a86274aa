/* optimizer.h - AdamW over a parameter set: two groups (decayed, not decayed), clipping, finite
 * check, EMA.
 *
 * Usage:   dip_optimizer_plan, _bind; per step dip_optimizer_step, then _average. The moments are
 * zero at first. Memory:  exp_avg, exp_avg_sq (and the average) float [n_values] in
 * DIP_SPACE_STATE.        */
#ifndef DIP_TRAIN_OPTIMIZER_H
#define DIP_TRAIN_OPTIMIZER_H

#include <stdbool.h>
#include <stdint.h>

#include "core/plan.h"
#include "nn/params.h"
#include "kernels/ops.h"

typedef struct dip_optimizer {
    double beta1, beta2, eps, weight_decay, clip_norm, ema_decay;
    dip_region m_region, v_region, ema_region;
    float *m, *v, *ema; /* [n_values]; ema NULL when off */
    int64_t n_updates;  /* steps applied: t of the bias correction */
} dip_optimizer;

void dip_optimizer_plan(dip_optimizer *optimizer, dip_plan *plan, const dip_param_table *table);
void dip_optimizer_bind(dip_optimizer *optimizer, const dip_plan *plan);

/* One update from set->grads. *grad_norm: before clipping. When it is not finite nothing is changed
 * and *applied is false. */
dip_status dip_optimizer_step(dip_exec *exec, dip_optimizer *optimizer, const dip_param_set *set,
                              double lr, double *grad_norm, bool *applied);

/* Move the average towards the weights as they now are; nothing when it is off. */
dip_status dip_optimizer_average(dip_exec *exec, const dip_optimizer *optimizer,
                                 const dip_param_set *set);

#endif
