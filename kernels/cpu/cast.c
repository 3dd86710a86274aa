#ifndef T
#define EACH_TYPE_FILE "kernels/cpu/cast.c"
#include "kernels/cpu/each_type.h"
#else

dip_status OP(cast_from_float)(dip_exec *exec, void *out, const float *x, int64_t n)
{
    const int n_threads = threads_for(exec, n);
#pragma omp parallel for num_threads(n_threads)
    for (int64_t i = 0; i < n; i++) ((T *)out)[i] = ROUND(x[i]);
    return DIP_OK;
}

dip_status OP(cast_to_float)(dip_exec *exec, float *out, const void *x, int64_t n)
{
    const int n_threads = threads_for(exec, n);
#pragma omp parallel for num_threads(n_threads)
    for (int64_t i = 0; i < n; i++) out[i] = LOAD(((const T *)x)[i]);
    return DIP_OK;
}

#endif
