#ifndef T
#define EACH_TYPE_FILE "kernels/cpu/pool.c"
#include "kernels/cpu/each_type.h"
#else

dip_status OP(mean_pool_forward)(dip_exec *exec, void *out, const void *x, const int32_t *offsets,
                                 int64_t skip, int64_t n_sequences, int64_t c)
{
    const int n_threads = threads_for(exec, offsets[n_sequences] * c);
    /* Rows are added in order, then divided once. */
#pragma omp parallel for num_threads(n_threads)
    for (int64_t b = 0; b < n_sequences; b++) {
        const int64_t begin = offsets[b] + skip, end = offsets[b + 1];
        for (int64_t first = 0; first < c; first += STRIP) {
            float sums[STRIP] = {0};
            const int64_t n_columns = smaller(STRIP, c - first);
            for (int64_t n = begin; n < end; n++)
                for (int64_t j = 0; j < n_columns; j++)
                    sums[j] += LOAD(((const T *)x)[n * c + first + j]);
            for (int64_t j = 0; j < n_columns; j++)
                ((T *)out)[b * c + first + j] = ROUND(sums[j] / (float)(end - begin));
        }
    }
    return DIP_OK;
}

dip_status OP(mean_pool_backward)(dip_exec *exec, void *d_x, const void *d_out,
                                  const int32_t *offsets, int64_t skip, int64_t n_sequences,
                                  int64_t c)
{
    const int n_threads = threads_for(exec, offsets[n_sequences] * c);
#pragma omp parallel for num_threads(n_threads)
    for (int64_t b = 0; b < n_sequences; b++) {
        const int64_t begin = offsets[b] + skip, end = offsets[b + 1];
        const T *d_out_row = (const T *)d_out + b * c;
        memset((T *)d_x + offsets[b] * c, 0, (size_t)(skip * c) * sizeof(T));
        for (int64_t n = begin; n < end; n++)
            for (int64_t i = 0; i < c; i++)
                ((T *)d_x)[n * c + i] = ROUND(LOAD(d_out_row[i]) / (float)(end - begin));
    }
    return DIP_OK;
}

#endif
