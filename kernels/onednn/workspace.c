/* How much workspace the vector ops need: their layouts, once, for every instruction set. */
#include "kernels/onednn/attention_layout.h"
#include "kernels/onednn/contrastive_layout.h"
#include "kernels/onednn/layernorm_layout.h"

size_t dip_vector_attention_workspace(const dip_exec *exec, dip_attention_shape shape)
{
    return (size_t)exec->n_threads * attention_layout_of(shape).n_floats * sizeof(float);
}

size_t dip_vector_layernorm_workspace(const dip_exec *exec, int64_t n_rows, int64_t c)
{
    (void)exec;
    const size_t n_blocks = (size_t)(n_rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    return n_blocks * (size_t)partials_stride(c) * sizeof(float);
}

size_t dip_vector_contrastive_workspace(const dip_exec *exec, dip_contrastive_shape shape)
{
    const contrastive_layout at = contrastive_layout_of(shape);
    return at.threads + (size_t)exec->n_threads * at.thread_bytes;
}
