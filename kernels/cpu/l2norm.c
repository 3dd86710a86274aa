#ifndef T
#define EACH_TYPE_FILE "kernels/cpu/l2norm.c"
#include "kernels/cpu/each_type.h"
#else

dip_status OP(l2norm_forward)(dip_exec *exec, float *y, float *inv_norm, const void *x,
                              int64_t n_rows, int64_t e)
{
    const int n_threads = threads_for(exec, n_rows * e);
#pragma omp parallel for num_threads(n_threads)
    for (int64_t n = 0; n < n_rows; n++) {
        const T *x_row = (const T *)x + n * e;
        float squares = 0.0f;
        for (int64_t i = 0; i < e; i++) squares += LOAD(x_row[i]) * LOAD(x_row[i]);
        float norm = sqrtf(squares);
        if (norm < 1e-12f) norm = 1e-12f; /* a NaN stays a NaN */
        inv_norm[n] = 1.0f / norm;
        for (int64_t i = 0; i < e; i++) y[n * e + i] = LOAD(x_row[i]) / norm;
    }
    return DIP_OK;
}

dip_status OP(l2norm_backward)(dip_exec *exec, void *d_x, const float *d_y, const float *y,
                               const float *inv_norm, int64_t n_rows, int64_t e)
{
    const int n_threads = threads_for(exec, n_rows * e);
#pragma omp parallel for num_threads(n_threads)
    for (int64_t n = 0; n < n_rows; n++) {
        const float *y_row = y + n * e, *d_y_row = d_y + n * e;
        float along = 0.0f; /* the part of d_y along y does not change a unit vector */
        for (int64_t i = 0; i < e; i++) along += y_row[i] * d_y_row[i];
        for (int64_t i = 0; i < e; i++)
            ((T *)d_x)[n * e + i] = ROUND((d_y_row[i] - y_row[i] * along) * inv_norm[n]);
    }
    return DIP_OK;
}

#endif
