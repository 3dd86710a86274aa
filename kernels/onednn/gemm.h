/* gemm.h - matrix products of the optimised CPU backend. Contracts: kernels/ops.h.
 *
 * Three ways, chosen by dip_cpu_isa():
 *   AMX           bf16: 32x32 blocks of bf16 tile products, everything that follows a product
 *                 (bias, GELU, residual, rounding) applied to the block while it is hot.
 *                 fp32: the same on numbers split into three bf16 parts, six products a block;
 *                 as exact as fp32 multiply-adds, several times as fast. AMX takes denormals
 *                 for zero, so parts below 2^-126 are lost.
 *   AVX-512 BF16  bf16: the same blocks by dot products of pairs. fp32: oneDNN's sgemm.
 *   otherwise     oneDNN's sgemm on row blocks, bf16 operands widened to float first.
 *
 * Threads: outputs are shared out, sums never are: the thread count does not change a bit.  */
#ifndef DIP_KERNELS_ONEDNN_GEMM_H
#define DIP_KERNELS_ONEDNN_GEMM_H

#include "kernels/ops.h"

dip_matmul_forward_fn dip_onednn_matmul_forward_f32, dip_onednn_matmul_forward_bf16;
dip_matmul_backward_input_fn dip_onednn_matmul_backward_input_f32,
    dip_onednn_matmul_backward_input_bf16;
dip_matmul_backward_weight_fn dip_onednn_matmul_backward_weight_f32,
    dip_onednn_matmul_backward_weight_bf16;
dip_activation_forward_fn dip_onednn_activation_forward_f32, dip_onednn_activation_forward_bf16;

/* Bytes that any of the three products of a shape up to this one may need. */
size_t dip_onednn_matmul_workspace_f32(const dip_exec *exec, dip_matmul_shape shape);
size_t dip_onednn_matmul_workspace_bf16(const dip_exec *exec, dip_matmul_shape shape);

#endif
