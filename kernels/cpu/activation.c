#ifndef T
#define EACH_TYPE_FILE "kernels/cpu/activation.c"
#include "kernels/cpu/each_type.h"
#else

dip_status OP(activation_forward)(dip_exec *exec, void *out, const void *pre, dip_activation act,
                                  int64_t n)
{
    const int n_threads = threads_for(exec, n);
#pragma omp parallel for num_threads(n_threads)
    for (int64_t i = 0; i < n; i++)
        ((T *)out)[i] = ROUND(dip_activate(act, LOAD(((const T *)pre)[i])));
    return DIP_OK;
}

#endif
