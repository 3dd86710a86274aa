/* reference.h - the plain-C backend: the definition of every op, readable before fast.
 *
 * For each op of DIP_OPS there are two functions, dip_reference_<op>_f32 and _bf16. They are
 * declared from the list, so an op without its reference does not link. Other CPU backends may
 * put them in their own tables for ops they do not override.                              */
#ifndef DIP_KERNELS_CPU_REFERENCE_H
#define DIP_KERNELS_CPU_REFERENCE_H

#include "kernels/ops.h"

#define DIP_REFERENCE_DECLARE(name)                                                                \
    dip_##name##_fn dip_reference_##name##_f32, dip_reference_##name##_bf16;
DIP_OPS(DIP_REFERENCE_DECLARE)
#undef DIP_REFERENCE_DECLARE

extern const dip_ops dip_ops_reference_f32, dip_ops_reference_bf16;

/* The workspace of the reference functions is the same for both dtypes. */
size_t dip_reference_matmul_workspace(const dip_exec *exec, dip_matmul_shape shape);
size_t dip_reference_attention_workspace(const dip_exec *exec, dip_attention_shape shape);
size_t dip_reference_layernorm_workspace(const dip_exec *exec, int64_t n_rows, int64_t c);
size_t dip_reference_contrastive_workspace(const dip_exec *exec, dip_contrastive_shape shape);

/* DIP_NOMEM, with a sentence, when the executor has less than n_bytes of workspace. */
dip_status dip_reference_need(const dip_exec *exec, const char *op, size_t n_bytes);

#endif
