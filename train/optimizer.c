#include "train/optimizer.h"

#include <assert.h>

void dip_optimizer_plan(dip_optimizer *optimizer, dip_plan *plan, const dip_param_table *table)
{
    const size_t bytes = (size_t)table->n_values * sizeof(float);
    optimizer->m_region = dip_plan_book(plan, "exp_avg", DIP_SPACE_STATE, bytes);
    optimizer->v_region = dip_plan_book(plan, "exp_avg_sq", DIP_SPACE_STATE, bytes);
    optimizer->ema_region =
        optimizer->hyper.ema_decay > 0 ? dip_plan_book(plan, "ema", DIP_SPACE_STATE, bytes) : -1;
    optimizer->update_region =
        dip_plan_book(plan, "update", DIP_SPACE_STATE, sizeof *optimizer->update);
    optimizer->sum_region =
        dip_plan_book(plan, "gradient_squares", DIP_SPACE_STATE, sizeof *optimizer->sum);
}

void dip_optimizer_bind(dip_optimizer *optimizer, const dip_plan *plan)
{
    optimizer->m = dip_plan_ptr(plan, optimizer->m_region);
    optimizer->v = dip_plan_ptr(plan, optimizer->v_region);
    optimizer->ema = dip_plan_ptr(plan, optimizer->ema_region);
    optimizer->update = dip_plan_ptr(plan, optimizer->update_region);
    optimizer->sum = dip_plan_ptr(plan, optimizer->sum_region);
}

dip_status dip_optimizer_reset(dip_exec *exec, const dip_optimizer *optimizer,
                               const dip_param_table *table)
{
    const size_t bytes = (size_t)table->n_values * sizeof(float);
    DIP_TRY(exec->device->zero(exec, optimizer->m, bytes));
    DIP_TRY(exec->device->zero(exec, optimizer->v, bytes));
    return exec->device->zero(exec, optimizer->update, sizeof *optimizer->update);
}

/* ---- a step ---------------------------------------------------------------------------- */

/* Values begin .. end - 1, which are of one group. */
static dip_status update_range(dip_exec *exec, const dip_optimizer *optimizer,
                               const dip_param_set *set, float *average, int64_t begin, int64_t end)
{
    dip_adamw_hyper hyper = optimizer->hyper;
    if (begin == end) return DIP_OK;
    if (begin >= set->table->n_decayed) hyper.weight_decay = 0;
    return exec->ops->adamw(exec, set->master + begin,
                            (char *)set->values + (size_t)begin * dip_dtype_bytes(set->dtype),
                            optimizer->m + begin, optimizer->v + begin,
                            average ? average + begin : NULL, set->grads + begin, optimizer->update,
                            hyper, end - begin);
}

/* open_clip clamps the parameter to [0, ln 100] after every step; the average follows what is left.
 */
static dip_status update_logit_scale(dip_exec *exec, const dip_optimizer *optimizer,
                                     const dip_param_set *set, int64_t begin, int64_t end)
{
    const float limit = 4.6051702f; /* ln 100 */
    DIP_TRY(update_range(exec, optimizer, set, NULL, begin, end));
    DIP_TRY(exec->ops->clamp(exec, set->master + begin,
                             (char *)set->values + (size_t)begin * dip_dtype_bytes(set->dtype),
                             optimizer->update, 0, limit, end - begin));
    if (!optimizer->ema) return DIP_OK;
    return exec->ops->ema(exec, optimizer->ema + begin, set->master + begin, optimizer->update,
                          (float)optimizer->hyper.ema_decay, end - begin);
}

dip_status dip_optimizer_step(dip_exec *exec, const dip_optimizer *optimizer,
                              const dip_param_set *set, const double *lr, const double *loss)
{
    const dip_param_table *table = set->table;
    const dip_param *scale = &table->params[optimizer->logit_scale];
    /* Between parameters lie zeros, which stay zeros: a range may end anywhere before the next. */
    const int64_t at = scale->offset, end = at + DIP_PARAM_ALIGN;
    assert(scale->n_elements == 1 && at >= table->n_decayed && end <= table->n_values);
    DIP_TRY(exec->ops->sum_of_squares(exec, optimizer->sum, set->grads, table->n_values));
    DIP_TRY(exec->ops->update_begin(exec, optimizer->update, lr, loss, optimizer->sum,
                                    optimizer->hyper));
    float *average = optimizer->ema;
    DIP_TRY(update_range(exec, optimizer, set, average, 0, table->n_decayed));
    DIP_TRY(update_range(exec, optimizer, set, average, table->n_decayed, at));
    DIP_TRY(update_logit_scale(exec, optimizer, set, at, end));
    return update_range(exec, optimizer, set, average, end, table->n_values);
}

/* ---- the count ------------------------------------------------------------------------- */

dip_status dip_optimizer_n_updates(dip_exec *exec, const dip_optimizer *optimizer,
                                   int64_t *n_updates)
{
    dip_update update;
    DIP_TRY(exec->device->download(exec, &update, optimizer->update, sizeof update));
    *n_updates = update.n_updates;
    return DIP_OK;
}

dip_status dip_optimizer_set_n_updates(dip_exec *exec, const dip_optimizer *optimizer,
                                       int64_t n_updates)
{
    const dip_update update = {.n_updates = n_updates};
    return exec->device->upload(exec, optimizer->update, &update, sizeof update);
}
