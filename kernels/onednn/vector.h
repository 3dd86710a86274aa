/* vector.h - the ops written once over vectors, and compiled for AVX2 and for AVX-512.
 *
 * An op's code is foo_vector.h. foo_avx2.c and foo_avx512.c each include the vector operations of
 * their instruction set (vector_avx2.h, vector_avx512.h: the same names) and then that file once
 * for each dtype, through each_type.h. Nothing here asks whether the CPU can: the table does.
 *
 * Lanes only ever hold different elements, or partial sums that are added in a fixed order, and
 * threads own whole outputs: the result does not depend on the number of threads.        */
#ifndef DIP_KERNELS_ONEDNN_VECTOR_H
#define DIP_KERNELS_ONEDNN_VECTOR_H

#include "kernels/ops.h"

#define DIP_VECTOR_OPS(X)                                                                          \
    X(attention_forward)                                                                           \
    X(attention_backward)                                                                          \
    X(layernorm_forward)                                                                           \
    X(layernorm_backward)                                                                          \
    X(patchify)                                                                                    \
    X(image_embed_forward)                                                                         \
    X(image_embed_backward)                                                                        \
    X(text_embed_forward)                                                                          \
    X(text_embed_backward)                                                                         \
    X(l2norm_forward)                                                                              \
    X(l2norm_backward)                                                                             \
    X(contrastive_forward)                                                                         \
    X(contrastive_backward)                                                                        \
    X(sum_of_squares)                                                                              \
    X(adamw)                                                                                       \
    X(ema)                                                                                         \
    X(cast_from_float)                                                                             \
    X(cast_to_float)

#define DIP_VECTOR_DECLARE(name)                                                                   \
    dip_##name##_fn dip_avx2_##name##_f32, dip_avx2_##name##_bf16;                                 \
    dip_##name##_fn dip_avx512_##name##_f32, dip_avx512_##name##_bf16;
DIP_VECTOR_OPS(DIP_VECTOR_DECLARE)
#undef DIP_VECTOR_DECLARE

/* The workspace of the vector ops is the same for both instruction sets and dtypes. */
size_t dip_vector_attention_workspace(const dip_exec *exec, dip_attention_shape shape);
size_t dip_vector_layernorm_workspace(const dip_exec *exec, int64_t n_rows, int64_t c);
size_t dip_vector_contrastive_workspace(const dip_exec *exec, dip_contrastive_shape shape);

/* bf16 with tiles (attention_amx.c, contrastive_amx.c). */
dip_attention_forward_fn dip_amx_attention_forward_bf16;
dip_attention_backward_fn dip_amx_attention_backward_bf16;
size_t dip_amx_attention_workspace_bf16(const dip_exec *exec, dip_attention_shape shape);

#endif
