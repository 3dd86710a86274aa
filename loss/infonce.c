/* The symmetric in-batch InfoNCE of CLIP (Radford et al. 2021; open_clip's ClipLoss):
 *     L = s u v^T,  loss = (CE over rows + CE over columns) / 2,  s = exp(logit_scale).
 * Identical captions in a batch are negatives of each other there; `duplicates` can make them
 * positives (targets 1/n over the n identical ones) or leave them out.                        */
#include "loss/loss.h"

#include <stddef.h>

static int64_t stats_floats(int64_t batch)
{
    return 3 * batch;
}

static size_t workspace(const dip_exec *exec, int64_t batch, int64_t embed,
                        dip_duplicates duplicates)
{
    static const int32_t some_group; /* that there will be groups matters, not which */
    return exec->ops->contrastive_workspace(
        exec, (dip_contrastive_shape){.batch = batch,
                                      .embed = embed,
                                      .group = duplicates == DIP_DUP_NEGATIVE ? NULL : &some_group,
                                      .duplicates = duplicates});
}

static dip_status forward_backward(dip_exec *exec, dip_loss_output *out, const dip_loss_input *in)
{
    const dip_contrastive_shape shape = {.batch = in->batch,
                                         .embed = in->embed,
                                         .group = in->group,
                                         .duplicates = in->duplicates,
                                         .log_scale = in->log_scale};
    float *row_lse = out->stats, *col_lse = row_lse + in->batch, *target = col_lse + in->batch;
    DIP_TRY(exec->ops->contrastive_forward(exec, row_lse, col_lse, target, in->u, in->v, shape));
    if (out->d_u)
        DIP_TRY(exec->ops->contrastive_backward(exec, out->d_u, out->d_v, out->d_logit_scale, in->u,
                                                in->v, row_lse, col_lse, shape));
    return exec->ops->contrastive_loss(exec, out->loss, row_lse, col_lse, target, in->batch);
}

const dip_loss dip_loss_infonce = {
    .name = "infonce",
    .stats_floats = stats_floats,
    .workspace = workspace,
    .forward_backward = forward_backward,
};
