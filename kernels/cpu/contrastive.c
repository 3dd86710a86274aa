/* One logit at a time: L_ij is computed where it is used and forgotten. The features are float
 * for either activation dtype. */
#ifndef T
#include <math.h>

#include "kernels/cpu/reference.h"

size_t dip_reference_contrastive_workspace(const dip_exec *exec, dip_contrastive_shape shape)
{
    (void)exec;
    return (size_t)shape.batch * sizeof(double); /* backward: a row's part of d_log_scale */
}

static float logit(const float *u, const float *v, int64_t i, int64_t j, int64_t embed, float scale)
{
    float sum = 0.0f;
    for (int64_t e = 0; e < embed; e++) sum += u[i * embed + e] * v[j * embed + e];
    return scale * sum;
}

static int same_group(int64_t i, int64_t j, dip_contrastive_shape shape)
{
    return i == j || (shape.group && shape.group[i] == shape.group[j]);
}

static int is_masked(int64_t i, int64_t j, dip_contrastive_shape shape)
{
    return shape.duplicates == DIP_DUP_MASK && i != j && same_group(i, j, shape);
}

static int is_positive(int64_t i, int64_t j, dip_contrastive_shape shape)
{
    return shape.duplicates == DIP_DUP_POSITIVE ? same_group(i, j, shape) : i == j;
}

static int64_t count_positives(int64_t i, dip_contrastive_shape shape)
{
    int64_t n = 0;
    for (int64_t j = 0; j < shape.batch; j++) n += is_positive(i, j, shape);
    return n;
}

static int64_t contrastive_work(dip_contrastive_shape shape)
{
    return shape.batch * shape.batch * shape.embed;
}

/* log sum exp of values given one by one: exp(largest) * sum so far. */
typedef struct running_lse {
    float largest, sum;
} running_lse;

static void lse_add(running_lse *lse, float x)
{
    if (x > lse->largest) {
        lse->sum = lse->sum * expf(lse->largest - x) + 1.0f;
        lse->largest = x;
    } else {
        lse->sum += expf(x - lse->largest);
    }
}

/* G_ij of ops.h, with 1/|group| of i (and of j: they share it when T_ij is not 0). */
static float gradient(float l_ij, const float *row_lse, const float *col_lse, int64_t i, int64_t j,
                      float inv_positives, dip_contrastive_shape shape)
{
    if (is_masked(i, j, shape)) return 0.0f;
    float probabilities = expf(l_ij - row_lse[i]) + expf(l_ij - col_lse[j]);
    float t_ij = is_positive(i, j, shape) ? inv_positives : 0.0f;
    return (probabilities - 2.0f * t_ij) / (2.0f * (float)shape.batch);
}

#define EACH_TYPE_FILE "kernels/cpu/contrastive.c"
#include "kernels/cpu/each_type.h"
#else

dip_status OP(contrastive_forward)(dip_exec *exec, float *row_lse, float *col_lse, float *target,
                                   const float *u, const float *v, dip_contrastive_shape shape)
{
    const int64_t batch = shape.batch, embed = shape.embed;
    const float scale = expf(*shape.log_scale);
    const int n_threads = threads_for(exec, contrastive_work(shape));
#pragma omp parallel for num_threads(n_threads)
    for (int64_t i = 0; i < batch; i++) {
        running_lse row = {-INFINITY, 0.0f}, col = {-INFINITY, 0.0f};
        float positives = 0.0f;
        for (int64_t j = 0; j < batch; j++) {
            if (is_masked(i, j, shape)) continue;
            float l_ij = logit(u, v, i, j, embed, scale);
            lse_add(&row, l_ij);
            lse_add(&col, logit(u, v, j, i, embed, scale));
            if (is_positive(i, j, shape)) positives += l_ij;
        }
        row_lse[i] = row.largest + logf(row.sum);
        col_lse[i] = col.largest + logf(col.sum);
        target[i] = positives / (float)count_positives(i, shape);
    }
    return DIP_OK;
}

dip_status OP(contrastive_loss)(dip_exec *exec, double *loss, const float *row_lse,
                                const float *col_lse, const float *target, int64_t batch)
{
    double rows = 0.0, cols = 0.0, targets = 0.0;
    (void)exec;
    for (int64_t i = 0; i < batch; i++) {
        rows += (double)row_lse[i];
        cols += (double)col_lse[i];
        targets += (double)target[i];
    }
    *loss = batch > 0 ? ((rows + cols) / 2.0 - targets) / (double)batch : 0.0;
    return DIP_OK;
}

dip_status OP(contrastive_backward)(dip_exec *exec, float *d_u, float *d_v, float *d_log_scale,
                                    const float *u, const float *v, const float *row_lse,
                                    const float *col_lse, dip_contrastive_shape shape)
{
    const int64_t batch = shape.batch, embed = shape.embed;
    const float scale = expf(*shape.log_scale);
    DIP_TRY(dip_reference_need(exec, "contrastive_backward",
                               dip_reference_contrastive_workspace(exec, shape)));
    double *row_sums = exec->workspace;

    const int n_threads = threads_for(exec, contrastive_work(shape));
    /* Row i of d_u and of d_v, each one sum over the batch in order. */
#pragma omp parallel for num_threads(n_threads)
    for (int64_t i = 0; i < batch; i++) {
        const float inv_positives = 1.0f / (float)count_positives(i, shape);
        float *d_u_row = d_u + i * embed, *d_v_row = d_v + i * embed;
        double row_sum = 0.0;
        for (int64_t e = 0; e < embed; e++) d_u_row[e] = d_v_row[e] = 0.0f;
        for (int64_t j = 0; j < batch; j++) {
            float l_ij = logit(u, v, i, j, embed, scale), l_ji = logit(u, v, j, i, embed, scale);
            float g_ij = gradient(l_ij, row_lse, col_lse, i, j, inv_positives, shape);
            float g_ji = gradient(l_ji, row_lse, col_lse, j, i, inv_positives, shape);
            row_sum += (double)g_ij * (double)l_ij;
            for (int64_t e = 0; e < embed; e++) {
                d_u_row[e] += g_ij * v[j * embed + e];
                d_v_row[e] += g_ji * u[j * embed + e];
            }
        }
        for (int64_t e = 0; e < embed; e++) {
            d_u_row[e] *= scale;
            d_v_row[e] *= scale;
        }
        row_sums[i] = row_sum;
    }

    double total = 0.0;
    for (int64_t i = 0; i < batch; i++) total += row_sums[i];
    *d_log_scale = (float)total;
    return DIP_OK;
}

#endif
