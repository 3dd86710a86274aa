#ifndef T
#define EACH_TYPE_FILE "kernels/cpu/rows.c"
#include "kernels/cpu/each_type.h"
#else

dip_status OP(rows_gather)(dip_exec *exec, void *out, const void *x, const int32_t *index,
                           int64_t n_out, int64_t c)
{
    (void)exec;
    for (int64_t b = 0; b < n_out; b++)
        memcpy((T *)out + b * c, (const T *)x + index[b] * c, (size_t)c * sizeof(T));
    return DIP_OK;
}

dip_status OP(rows_scatter)(dip_exec *exec, void *d_x, const void *d_out, const int32_t *index,
                            int64_t n_out, int64_t n_rows, int64_t c)
{
    (void)exec;
    if (n_rows > 0) memset(d_x, 0, (size_t)(n_rows * c) * sizeof(T));
    for (int64_t b = 0; b < n_out; b++)
        memcpy((T *)d_x + index[b] * c, (const T *)d_out + b * c, (size_t)c * sizeof(T));
    return DIP_OK;
}

#endif
