/* matmul_kernels.h - what cuBLASLt does not do for a product: activations by their exact formulas
 * (its GELU is the tanh approximation), their slopes, and bias gradients.
 *
 * These launch and return; the op that calls them ends with DIP_CUDA_LAUNCHED. Empty extents launch
 * nothing. `dtype` says what T is. */
#ifndef DIP_KERNELS_CUDA_MATMUL_KERNELS_H
#define DIP_KERNELS_CUDA_MATMUL_KERNELS_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* out = act(pre) + residual   [n] T; residual may be NULL; out may be pre or residual. act is not
 * DIP_ACT_NONE. */
void dip_cuda_activate(dip_exec *exec, dip_dtype dtype, void *out, const void *pre,
                       const void *residual, dip_activation act, int64_t n);

/* d_x *= act'(pre)   [n] T; act is not DIP_ACT_NONE. */
void dip_cuda_activate_backward(dip_exec *exec, dip_dtype dtype, void *d_x, const void *pre,
                                dip_activation act, int64_t n);

/* sums[c] += sum_n x[n, c]   x [N, C] T, sums [C] float. Uses exec's partials. */
void dip_cuda_column_sums(dip_exec *exec, dip_dtype dtype, float *sums, const void *x,
                          int64_t n_rows, int64_t c);

#ifdef __cplusplus
}
#endif
#endif
