#include "kernels/onednn/rows.h"

#include <string.h>

/* Threads worth waking for this many bytes. */
static int threads_for(const dip_exec *exec, int64_t n_bytes)
{
    int64_t useful = 1 + n_bytes / (256 << 10);
    return useful < exec->n_threads ? (int)useful : exec->n_threads;
}

static dip_status gather(dip_exec *exec, char *out, const char *x, const int32_t *index,
                         int64_t n_out, int64_t row_bytes)
{
#pragma omp parallel for num_threads(threads_for(exec, n_out *row_bytes))
    for (int64_t b = 0; b < n_out; b++)
        memcpy(out + b * row_bytes, x + index[b] * row_bytes, (size_t)row_bytes);
    return DIP_OK;
}

static dip_status scatter(dip_exec *exec, char *d_x, const char *d_out, const int32_t *index,
                          int64_t n_out, int64_t n_rows, int64_t row_bytes)
{
    const int n_threads = threads_for(exec, n_rows * row_bytes);
#pragma omp parallel num_threads(n_threads)
    {
#pragma omp for
        for (int64_t n = 0; n < n_rows; n++) memset(d_x + n * row_bytes, 0, (size_t)row_bytes);
#pragma omp for
        for (int64_t b = 0; b < n_out; b++)
            memcpy(d_x + index[b] * row_bytes, d_out + b * row_bytes, (size_t)row_bytes);
    }
    return DIP_OK;
}

dip_status dip_onednn_rows_gather_f32(dip_exec *exec, void *out, const void *x,
                                      const int32_t *index, int64_t n_out, int64_t c)
{
    return gather(exec, out, x, index, n_out, c * (int64_t)sizeof(float));
}

dip_status dip_onednn_rows_gather_bf16(dip_exec *exec, void *out, const void *x,
                                       const int32_t *index, int64_t n_out, int64_t c)
{
    return gather(exec, out, x, index, n_out, c * (int64_t)sizeof(dip_bf16));
}

dip_status dip_onednn_rows_scatter_f32(dip_exec *exec, void *d_x, const void *d_out,
                                       const int32_t *index, int64_t n_out, int64_t n_rows,
                                       int64_t c)
{
    return scatter(exec, d_x, d_out, index, n_out, n_rows, c * (int64_t)sizeof(float));
}

dip_status dip_onednn_rows_scatter_bf16(dip_exec *exec, void *d_x, const void *d_out,
                                        const int32_t *index, int64_t n_out, int64_t n_rows,
                                        int64_t c)
{
    return scatter(exec, d_x, d_out, index, n_out, n_rows, c * (int64_t)sizeof(dip_bf16));
}
