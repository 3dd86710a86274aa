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

dip_status OP(adamw)(dip_exec *exec, float *master, void *param, float *m, float *v,
                     const float *grad, dip_adamw_hyper hyper, int64_t n)
{
    const float keep = 1.0f - hyper.lr * hyper.weight_decay;
    const int n_threads = threads_for(exec, n);
#pragma omp parallel for num_threads(n_threads)
    for (int64_t i = 0; i < n; i++) {
        float g = grad[i] * hyper.grad_scale;
        m[i] = hyper.beta1 * m[i] + (1.0f - hyper.beta1) * g;
        v[i] = hyper.beta2 * v[i] + (1.0f - hyper.beta2) * g * g;
        float step =
            m[i] / hyper.bias_correction1 / (sqrtf(v[i] / hyper.bias_correction2) + hyper.eps);
        master[i] = master[i] * keep - hyper.lr * step;
        ((T *)param)[i] = ROUND(master[i]);
    }
    return DIP_OK;
}

dip_status OP(ema)(dip_exec *exec, float *average, const float *master, float decay, int64_t n)
{
    const int n_threads = threads_for(exec, n);
#pragma omp parallel for num_threads(n_threads)
    for (int64_t i = 0; i < n; i++) average[i] = decay * average[i] + (1.0f - decay) * master[i];
    return DIP_OK;
}

#endif
