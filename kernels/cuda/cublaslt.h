/* cublaslt.h - the functions of cuBLASLt that are used, loaded at run time.
 *
 * The library is half a gigabyte and lies only where there is a CUDA toolkit or runtime, so the
 * program does not link it: a machine without a GPU runs the same file, and `diptych tokenizer`
 * does not load it.
 *
 * Usage:   dip_cublaslt_load(&blas) once or more (the second time is free). It looks where the
 *          loader does, then where toolkits are installed; the environment variable
 * DIPTYCH_CUBLASLT names the file instead. */
#ifndef DIP_KERNELS_CUDA_CUBLASLT_H
#define DIP_KERNELS_CUDA_CUBLASLT_H

#include <cublasLt.h>

#include "core/status.h"

#ifdef __cplusplus
extern "C" {
#define DIP_CUBLASLT_GLOBAL(function) ::function
#else
#define DIP_CUBLASLT_GLOBAL(function) function
#endif

#define DIP_CUBLASLT_FUNCTIONS(X)                                                                  \
    X(cublasLtCreate)                                                                              \
    X(cublasLtDestroy)                                                                             \
    X(cublasLtGetVersion)                                                                          \
    X(cublasLtGetStatusString)                                                                     \
    X(cublasLtMatmul)                                                                              \
    X(cublasLtMatmulDescCreate)                                                                    \
    X(cublasLtMatmulDescDestroy)                                                                   \
    X(cublasLtMatmulDescSetAttribute)                                                              \
    X(cublasLtMatrixLayoutCreate)                                                                  \
    X(cublasLtMatrixLayoutDestroy)                                                                 \
    X(cublasLtMatmulPreferenceCreate)                                                              \
    X(cublasLtMatmulPreferenceDestroy)                                                             \
    X(cublasLtMatmulPreferenceSetAttribute)                                                        \
    X(cublasLtMatmulAlgoGetHeuristic)                                                              \
    X(cublasLtMatmulAlgoCheck)

typedef struct dip_cublaslt {
#define DIP_CUBLASLT_FIELD(function) __typeof__(&DIP_CUBLASLT_GLOBAL(function)) function;
    DIP_CUBLASLT_FUNCTIONS(DIP_CUBLASLT_FIELD)
#undef DIP_CUBLASLT_FIELD
} dip_cublaslt;

/* DIP_UNSUPPORTED naming the files that were tried. */
dip_status dip_cublaslt_load(const dip_cublaslt **blas);

#ifdef __cplusplus
}
#endif
#endif
