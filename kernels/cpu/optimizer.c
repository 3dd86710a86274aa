#ifndef T
#define EACH_TYPE_FILE "kernels/cpu/optimizer.c"
#include "kernels/cpu/each_type.h"
#else

dip_status OP(sum_of_squares)(dip_exec *exec, double *out, const float *x, int64_t n)
{
    enum { N_BLOCKS = 64 }; /* always as many: the split depends on n alone */
    const int64_t block = (n + N_BLOCKS - 1) / N_BLOCKS;
    double sums[N_BLOCKS];
    const int n_threads = threads_for(exec, n);
#pragma omp parallel for num_threads(n_threads)
    for (int64_t b = 0; b < N_BLOCKS; b++) {
        double sum = 0.0;
        for (int64_t i = b * block; i < smaller((b + 1) * block, n); i++)
            sum += (double)x[i] * (double)x[i];
        sums[b] = sum;
    }
    double total = 0.0;
    for (int b = 0; b < N_BLOCKS; b++) total += sums[b];
    *out = total;
    return DIP_OK;
}

dip_status OP(update_begin)(dip_exec *exec, dip_update *update, const double *lr,
                            const double *loss, const double *sum, dip_adamw_hyper hyper)
{
    const double norm = sqrt(*sum);
    const int applied = isfinite(*sum) && isfinite(*loss);
    const int clip = applied && hyper.clip_norm > 0.0 && norm > hyper.clip_norm;
    const int64_t t = update->n_updates + applied;
    (void)exec;
    *update = (dip_update){
        .n_updates = t,
        .loss = *loss,
        .grad_norm = norm,
        .lr = (float)*lr,
        .grad_scale = clip ? (float)(hyper.clip_norm / (norm + 1e-6)) : 1.0f,
        .bias_correction1 = (float)(1.0 - pow(hyper.beta1, (double)t)),
        .bias_correction2 = (float)(1.0 - pow(hyper.beta2, (double)t)),
        .applied = applied,
    };
    return DIP_OK;
}

dip_status OP(adamw)(dip_exec *exec, float *master, void *param, float *m, float *v, float *average,
                     const float *grad, const dip_update *update, dip_adamw_hyper hyper, int64_t n)
{
    const dip_update u = *update;
    if (!u.applied) return DIP_OK;
    const float beta1 = (float)hyper.beta1, beta2 = (float)hyper.beta2, eps = (float)hyper.eps;
    const float decay = (float)hyper.ema_decay;
    const float keep = 1.0f - u.lr * (float)hyper.weight_decay;
    const int n_threads = threads_for(exec, n);
#pragma omp parallel for num_threads(n_threads)
    for (int64_t i = 0; i < n; i++) {
        float g = grad[i] * u.grad_scale;
        m[i] = beta1 * m[i] + (1.0f - beta1) * g;
        v[i] = beta2 * v[i] + (1.0f - beta2) * g * g;
        float step = m[i] / u.bias_correction1 / (sqrtf(v[i] / u.bias_correction2) + eps);
        master[i] = master[i] * keep - u.lr * step;
        ((T *)param)[i] = ROUND(master[i]);
        if (average) average[i] = decay * average[i] + (1.0f - decay) * master[i];
    }
    return DIP_OK;
}

dip_status OP(clamp)(dip_exec *exec, float *master, void *param, const dip_update *update,
                     float low, float high, int64_t n)
{
    (void)exec;
    if (!update->applied) return DIP_OK;
    for (int64_t i = 0; i < n; i++) {
        master[i] = fminf(fmaxf(master[i], low), high);
        ((T *)param)[i] = ROUND(master[i]);
    }
    return DIP_OK;
}

dip_status OP(ema)(dip_exec *exec, float *average, const float *master, const dip_update *update,
                   float decay, int64_t n)
{
    if (!update->applied) return DIP_OK;
    const int n_threads = threads_for(exec, n);
#pragma omp parallel for num_threads(n_threads)
    for (int64_t i = 0; i < n; i++) average[i] = decay * average[i] + (1.0f - decay) * master[i];
    return DIP_OK;
}

#endif
