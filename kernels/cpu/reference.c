#include "kernels/cpu/reference.h"

#define FIELD_F32(name)  .name = dip_reference_##name##_f32,
#define FIELD_BF16(name) .name = dip_reference_##name##_bf16,
#define WORKSPACES                                                                                 \
    .matmul_workspace = dip_reference_matmul_workspace,                                            \
    .attention_workspace = dip_reference_attention_workspace,                                      \
    .layernorm_workspace = dip_reference_layernorm_workspace,                                      \
    .contrastive_workspace = dip_reference_contrastive_workspace

const dip_ops dip_ops_reference_f32 = {
    .backend = "reference", .dtype = DIP_F32, DIP_OPS(FIELD_F32) WORKSPACES};

const dip_ops dip_ops_reference_bf16 = {
    .backend = "reference", .dtype = DIP_BF16, DIP_OPS(FIELD_BF16) WORKSPACES};

dip_status dip_reference_need(const dip_exec *exec, const char *op, size_t n_bytes)
{
    if (n_bytes <= exec->workspace_bytes) return DIP_OK;
    return dip_fail(DIP_NOMEM, "%s needs %zu bytes of workspace, the executor has %zu", op, n_bytes,
                    exec->workspace_bytes);
}
