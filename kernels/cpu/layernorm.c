#ifndef T
#include "kernels/cpu/reference.h"

size_t dip_reference_layernorm_workspace(const dip_exec *exec, int64_t n_rows, int64_t c)
{
    (void)exec, (void)n_rows, (void)c;
    return 0;
}

#define EACH_TYPE_FILE "kernels/cpu/layernorm.c"
#include "kernels/cpu/each_type.h"
#else

dip_status OP(layernorm_forward)(dip_exec *exec, void *out, float *mean, float *rstd, const void *x,
                                 const void *gamma, const void *beta, float eps, int64_t n_rows,
                                 int64_t c)
{
    const T *weights = gamma, *biases = beta;
    const int n_threads = threads_for(exec, n_rows * c);
    /* Two passes over a row, in column order: the variance is that of the centred values. */
#pragma omp parallel for num_threads(n_threads)
    for (int64_t n = 0; n < n_rows; n++) {
        const T *x_row = (const T *)x + n * c;
        T *out_row = (T *)out + n * c;
        float sum = 0.0f, squares = 0.0f;
        for (int64_t i = 0; i < c; i++) sum += LOAD(x_row[i]);
        mean[n] = sum / (float)c;
        for (int64_t i = 0; i < c; i++) {
            float centred = LOAD(x_row[i]) - mean[n];
            squares += centred * centred;
        }
        rstd[n] = 1.0f / sqrtf(squares / (float)c + eps);
        for (int64_t i = 0; i < c; i++) {
            float normal = (LOAD(x_row[i]) - mean[n]) * rstd[n];
            out_row[i] = ROUND(normal * LOAD(weights[i]) + LOAD(biases[i]));
        }
    }
    return DIP_OK;
}

#define row_backward LOCAL(row_backward)

/* With g = d_out * gamma and y = (x - mean) rstd:
 *   d_x = rstd (g - mean(g) - y mean(g y)), means over the row. */
static void row_backward(T *d_x, const T *d_out, const T *x, float mean, float rstd, const T *gamma,
                         const T *d_residual, int64_t c)
{
    float sum_g = 0.0f, sum_gy = 0.0f;
    for (int64_t i = 0; i < c; i++) {
        float g = LOAD(d_out[i]) * LOAD(gamma[i]);
        sum_g += g;
        sum_gy += g * ((LOAD(x[i]) - mean) * rstd);
    }
    const float mean_g = sum_g / (float)c, mean_gy = sum_gy / (float)c;
    for (int64_t i = 0; i < c; i++) {
        float g = LOAD(d_out[i]) * LOAD(gamma[i]);
        float y = (LOAD(x[i]) - mean) * rstd;
        float value = rstd * (g - mean_g - y * mean_gy);
        d_x[i] = ROUND(d_residual ? value + LOAD(d_residual[i]) : value);
    }
}

dip_status OP(layernorm_backward)(dip_exec *exec, void *d_x, float *d_gamma, float *d_beta,
                                  const void *d_out, const void *x, const float *mean,
                                  const float *rstd, const void *gamma, const void *d_residual,
                                  int64_t n_rows, int64_t c)
{
    const int n_threads = threads_for(exec, n_rows * c);
#pragma omp parallel for num_threads(n_threads)
    for (int64_t n = 0; n < n_rows; n++) {
        row_backward((T *)d_x + n * c, (const T *)d_out + n * c, (const T *)x + n * c, mean[n],
                     rstd[n], gamma, d_residual ? (const T *)d_residual + n * c : NULL, c);
    }

    /* Parameters: a thread owns whole columns and adds rows in order. */
#pragma omp parallel for num_threads(n_threads)
    for (int64_t first = 0; first < c; first += STRIP) {
        float sum_gamma[STRIP] = {0}, sum_beta[STRIP] = {0};
        const int64_t n_columns = smaller(STRIP, c - first);
        for (int64_t n = 0; n < n_rows; n++) {
            const T *d_out_row = (const T *)d_out + n * c + first;
            const T *x_row = (const T *)x + n * c + first;
            for (int64_t j = 0; j < n_columns; j++) {
                float d = LOAD(d_out_row[j]);
                sum_gamma[j] += d * ((LOAD(x_row[j]) - mean[n]) * rstd[n]);
                sum_beta[j] += d;
            }
        }
        for (int64_t j = 0; j < n_columns; j++) {
            d_gamma[first + j] += sum_gamma[j];
            d_beta[first + j] += sum_beta[j];
        }
    }
    return DIP_OK;
}

#endif
