/* In place of kernels/cuda/cublaslt.c, which opens the library of a CUDA toolkit. */
#include "kernels/cuda/cublaslt.h"

dip_status dip_cublaslt_load(const dip_cublaslt **blas)
{
    static const dip_cublaslt table = {
#define ENTRY(function) .function = function,
        DIP_CUBLASLT_FUNCTIONS(ENTRY)
#undef ENTRY
    };
    *blas = &table;
    return DIP_OK;
}
