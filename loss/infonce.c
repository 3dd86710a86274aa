/* The symmetric in-batch InfoNCE of CLIP (Radford et al. 2021; open_clip's ClipLoss):
 *     L = s u v^T,  loss = (CE over rows + CE over columns) / 2,  s = exp(logit_scale).
 * Identical captions in a batch are negatives of each other there; `duplicates` can make them
 * positives (targets 1/n over the n identical ones) or leave them out.                        */
#include "loss/loss.h"

#include <math.h>

enum { HOST_CHUNK = 1024 };

static dip_contrastive_shape shape_of(const dip_loss_input *in)
{
    return (dip_contrastive_shape){.batch = in->batch,
                                   .embed = in->embed,
                                   .group = in->group,
                                   .duplicates = in->duplicates,
                                   .scale = expf(in->logit_scale)};
}

static int64_t stats_floats(int64_t batch)
{
    return 3 * batch;
}

static size_t workspace(const dip_exec *exec, int64_t batch, int64_t embed)
{
    return exec->ops->contrastive_workspace(
        exec, (dip_contrastive_shape){.batch = batch, .embed = embed, .scale = 1.0f});
}

/* Sum of n device floats, in double, in order. */
static dip_status sum(dip_exec *exec, double *out, const float *x, int64_t n)
{
    float chunk[HOST_CHUNK];
    *out = 0;
    for (int64_t begin = 0; begin < n; begin += HOST_CHUNK) {
        const int64_t length = n - begin < HOST_CHUNK ? n - begin : HOST_CHUNK;
        DIP_TRY(exec->device->download(exec, chunk, x + begin, (size_t)length * sizeof(float)));
        for (int64_t i = 0; i < length; i++) *out += chunk[i];
    }
    return DIP_OK;
}

static dip_status forward_backward(dip_exec *exec, dip_loss_output *out, const dip_loss_input *in)
{
    const dip_contrastive_shape shape = shape_of(in);
    float *row_lse = out->stats, *col_lse = row_lse + in->batch, *target = col_lse + in->batch;
    double rows, cols, targets;
    DIP_TRY(exec->ops->contrastive_forward(exec, row_lse, col_lse, target, in->u, in->v, shape));
    if (out->d_u)
        DIP_TRY(exec->ops->contrastive_backward(exec, out->d_u, out->d_v, out->d_logit_scale, in->u,
                                                in->v, row_lse, col_lse, shape));
    DIP_TRY(sum(exec, &rows, row_lse, in->batch));
    DIP_TRY(sum(exec, &cols, col_lse, in->batch));
    DIP_TRY(sum(exec, &targets, target, in->batch));
    out->loss = ((rows + cols) / 2 - targets) / (double)in->batch;
    return DIP_OK;
}

const dip_loss dip_loss_infonce = {
    .name = "infonce",
    .stats_floats = stats_floats,
    .workspace = workspace,
    .forward_backward = forward_backward,
};
