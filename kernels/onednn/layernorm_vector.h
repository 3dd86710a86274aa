/* A row stays in L1 while it is read two or three times. Parameter gradients are summed over
 * blocks of BLOCK_ROWS rows, then over blocks, both in order. */
#ifndef VECTOR_ONCE

#include "kernels/onednn/layernorm_layout.h"

/* The sum over blocks of one half (gamma or beta) of the partial sums. */
static void add_partials(float *d_param, const float *partials, int64_t stride, int64_t n_blocks,
                         int64_t c)
{
    int64_t i = 0;
    for (; i + LANES <= c; i += LANES) {
        vec sum = vec_zero();
        for (int64_t b = 0; b < n_blocks; b++)
            sum = vec_add(sum, vec_load(partials + b * stride + i));
        vec_store(d_param + i, vec_add(vec_load(d_param + i), sum));
    }
    for (; i < c; i++) {
        float sum = 0.0f;
        for (int64_t b = 0; b < n_blocks; b++) sum += partials[b * stride + i];
        d_param[i] += sum;
    }
}

#endif

static void LOCAL(row_forward)(T *out, float *mean_out, float *rstd_out, const T *x, const T *gamma,
                               const T *beta, float eps, int64_t c)
{
    const int64_t whole = c / LANES * LANES, tail = c - whole;
    vec sum = vec_zero(), squares = vec_zero();
    for (int64_t i = 0; i < whole; i += LANES) sum = vec_add(sum, LOAD(x + i));
    if (tail) sum = vec_add(sum, LOAD_N(x + whole, tail));
    const float mean = vec_sum(sum) / (float)c;

    const vec minus_mean = vec_all(-mean);
    for (int64_t i = 0; i < whole; i += LANES) {
        vec centred = vec_add(LOAD(x + i), minus_mean);
        squares = vec_fma(centred, centred, squares);
    }
    if (tail) {
        vec centred = vec_keep_n(vec_add(LOAD_N(x + whole, tail), minus_mean), tail);
        squares = vec_fma(centred, centred, squares);
    }
    const float rstd = 1.0f / sqrtf(vec_sum(squares) / (float)c + eps);

    const vec scale = vec_all(rstd);
    for (int64_t i = 0; i < whole; i += LANES) {
        vec normal = vec_mul(vec_add(LOAD(x + i), minus_mean), scale);
        STORE(out + i, vec_fma(normal, LOAD(gamma + i), LOAD(beta + i)));
    }
    if (tail) {
        vec normal = vec_mul(vec_add(LOAD_N(x + whole, tail), minus_mean), scale);
        vec y = vec_fma(normal, LOAD_N(gamma + whole, tail), LOAD_N(beta + whole, tail));
        STORE_N(out + whole, y, tail);
    }
    *mean_out = mean;
    *rstd_out = rstd;
}

dip_status OP(layernorm_forward)(dip_exec *exec, void *out, float *mean, float *rstd, const void *x,
                                 const void *gamma, const void *beta, float eps, int64_t n_rows,
                                 int64_t c)
{
#pragma omp parallel for num_threads(threads_for(exec, n_rows *c))
    for (int64_t n = 0; n < n_rows; n++) LOCAL(row_forward)
    ((T *)out + n * c, mean + n, rstd + n, (const T *)x + n * c, gamma, beta, eps, c);
    return DIP_OK;
}

/* With g = d_out * gamma and y = (x - mean) rstd: d_x = rstd (g - mean(g) - y mean(g y)).
 * d_gamma and d_beta are the block's partial sums. d_x may be d_residual. */
static void LOCAL(row_backward)(T *d_x, float *d_gamma, float *d_beta, const T *d_out, const T *x,
                                float mean, float rstd, const T *gamma, const T *d_residual,
                                int64_t c)
{
    const int64_t whole = c / LANES * LANES, tail = c - whole;
    const vec minus_mean = vec_all(-mean), scale = vec_all(rstd);
    vec sum_g = vec_zero(), sum_gy = vec_zero();
    for (int64_t i = 0; i < whole; i += LANES) {
        vec d = LOAD(d_out + i), y = vec_mul(vec_add(LOAD(x + i), minus_mean), scale);
        vec g = vec_mul(d, LOAD(gamma + i));
        sum_g = vec_add(sum_g, g);
        sum_gy = vec_fma(g, y, sum_gy);
        vec_store(d_gamma + i, vec_fma(d, y, vec_load(d_gamma + i)));
        vec_store(d_beta + i, vec_add(d, vec_load(d_beta + i)));
    }
    if (tail) {
        const int64_t i = whole;
        vec d = LOAD_N(d_out + i, tail);
        vec y = vec_mul(vec_add(LOAD_N(x + i, tail), minus_mean), scale);
        vec g = vec_mul(d, LOAD_N(gamma + i, tail));
        sum_g = vec_add(sum_g, g);
        sum_gy = vec_fma(g, y, sum_gy);
        vec_store_n(d_gamma + i, vec_fma(d, y, vec_load_n(d_gamma + i, tail)), tail);
        vec_store_n(d_beta + i, vec_add(d, vec_load_n(d_beta + i, tail)), tail);
    }
    const vec mean_g = vec_all(vec_sum(sum_g) / (float)c);
    const vec mean_gy = vec_all(vec_sum(sum_gy) / (float)c);

    for (int64_t i = 0; i < whole; i += LANES) {
        vec y = vec_mul(vec_add(LOAD(x + i), minus_mean), scale);
        vec g = vec_sub(vec_mul(LOAD(d_out + i), LOAD(gamma + i)), mean_g);
        vec value = vec_mul(scale, vec_sub(g, vec_mul(y, mean_gy)));
        if (d_residual) value = vec_add(value, LOAD(d_residual + i));
        STORE(d_x + i, value);
    }
    if (tail) {
        const int64_t i = whole;
        vec y = vec_mul(vec_add(LOAD_N(x + i, tail), minus_mean), scale);
        vec g = vec_sub(vec_mul(LOAD_N(d_out + i, tail), LOAD_N(gamma + i, tail)), mean_g);
        vec value = vec_mul(scale, vec_sub(g, vec_mul(y, mean_gy)));
        if (d_residual) value = vec_add(value, LOAD_N(d_residual + i, tail));
        STORE_N(d_x + i, value, tail);
    }
}

dip_status OP(layernorm_backward)(dip_exec *exec, void *d_x, float *d_gamma, float *d_beta,
                                  const void *d_out, const void *x, const float *mean,
                                  const float *rstd, const void *gamma, const void *d_residual,
                                  int64_t n_rows, int64_t c)
{
    DIP_TRY(need_workspace(exec, "layernorm_backward",
                           dip_vector_layernorm_workspace(exec, n_rows, c)));
    const int64_t n_blocks = (n_rows + BLOCK_ROWS - 1) / BLOCK_ROWS, stride = partials_stride(c);
    float *partials = exec->workspace;
#pragma omp parallel for num_threads(threads_for(exec, n_rows *c))
    for (int64_t b = 0; b < n_blocks; b++) {
        float *block = partials + b * stride;
        memset(block, 0, (size_t)stride * sizeof *block);
        for (int64_t n = b * BLOCK_ROWS; n < smaller(n_rows, (b + 1) * BLOCK_ROWS); n++)
            LOCAL(row_backward)
        ((T *)d_x + n * c, block, block + stride / 2, (const T *)d_out + n * c,
         (const T *)x + n * c, mean[n], rstd[n], gamma,
         d_residual ? (const T *)d_residual + n * c : NULL, c);
    }
    if (n_blocks == 0) return DIP_OK;
    add_partials(d_gamma, partials, stride, n_blocks, c);
    add_partials(d_beta, partials + stride / 2, stride, n_blocks, c);
    return DIP_OK;
}
