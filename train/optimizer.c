#include "train/optimizer.h"

#include <math.h>

void dip_optimizer_plan(dip_optimizer *optimizer, dip_plan *plan, const dip_param_table *table)
{
    const size_t bytes = (size_t)table->n_values * sizeof(float);
    optimizer->m_region = dip_plan_book(plan, "exp_avg", DIP_SPACE_STATE, bytes);
    optimizer->v_region = dip_plan_book(plan, "exp_avg_sq", DIP_SPACE_STATE, bytes);
    optimizer->ema_region =
        optimizer->ema_decay > 0 ? dip_plan_book(plan, "ema", DIP_SPACE_STATE, bytes) : -1;
}

void dip_optimizer_bind(dip_optimizer *optimizer, const dip_plan *plan)
{
    optimizer->m = dip_plan_ptr(plan, optimizer->m_region);
    optimizer->v = dip_plan_ptr(plan, optimizer->v_region);
    optimizer->ema = dip_plan_ptr(plan, optimizer->ema_region);
}

dip_status dip_optimizer_step(dip_exec *exec, dip_optimizer *optimizer, const dip_param_set *set,
                              double lr, double *grad_norm, bool *applied)
{
    const dip_param_table *table = set->table;
    double sum;
    DIP_TRY(exec->ops->sum_of_squares(exec, &sum, set->grads, table->n_values));
    *grad_norm = sqrt(sum);
    *applied = isfinite(sum);
    if (!*applied) return DIP_OK;

    const double t = (double)++optimizer->n_updates;
    const bool clip = optimizer->clip_norm > 0 && *grad_norm > optimizer->clip_norm;
    dip_adamw_hyper hyper = {
        .lr = (float)lr,
        .beta1 = (float)optimizer->beta1,
        .beta2 = (float)optimizer->beta2,
        .eps = (float)optimizer->eps,
        /* torch.nn.utils.clip_grad_norm_'s factor */
        .grad_scale = clip ? (float)(optimizer->clip_norm / (*grad_norm + 1e-6)) : 1.0f,
        .bias_correction1 = (float)(1.0 - pow(optimizer->beta1, t)),
        .bias_correction2 = (float)(1.0 - pow(optimizer->beta2, t)),
    };
    const size_t t_bytes = dip_dtype_bytes(set->dtype);
    const int64_t begins[3] = {0, table->n_decayed, table->n_values};
    for (int group = 0; group < 2; group++) {
        const int64_t at = begins[group], n = begins[group + 1] - at;
        hyper.weight_decay = group == 0 ? (float)optimizer->weight_decay : 0.0f;
        DIP_TRY(exec->ops->adamw(exec, set->master + at, (char *)set->values + (size_t)at * t_bytes,
                                 optimizer->m + at, optimizer->v + at, set->grads + at, hyper, n));
    }
    return DIP_OK;
}

dip_status dip_optimizer_average(dip_exec *exec, const dip_optimizer *optimizer,
                                 const dip_param_set *set)
{
    if (!optimizer->ema) return DIP_OK;
    return exec->ops->ema(exec, optimizer->ema, set->master, (float)optimizer->ema_decay,
                          set->table->n_values);
}
