#include "kernels/onednn/onednn.h"

#include <pthread.h>

#include "kernels/cpu/reference.h"
#include "kernels/onednn/gemm.h"
#include "kernels/onednn/isa.h"
#include "kernels/onednn/rows.h"
#include "kernels/onednn/vector.h"

static pthread_once_t tables_built = PTHREAD_ONCE_INIT;
static dip_ops table_f32, table_bf16;

static void use_vector_workspaces(dip_ops *ops)
{
    ops->attention_workspace = dip_vector_attention_workspace;
    ops->layernorm_workspace = dip_vector_layernorm_workspace;
    ops->contrastive_workspace = dip_vector_contrastive_workspace;
}

static void build_tables(void)
{
    const dip_cpu_isa_level isa = dip_cpu_isa();
    table_f32 = dip_ops_reference_f32;
    table_bf16 = dip_ops_reference_bf16;
    table_f32.backend = table_bf16.backend = "cpu";

    if (isa >= DIP_ISA_AVX2) {
        use_vector_workspaces(&table_f32);
        use_vector_workspaces(&table_bf16);
    }
#define USE(isa_name, name)                                                                        \
    table_f32.name = dip_##isa_name##_##name##_f32;                                                \
    table_bf16.name = dip_##isa_name##_##name##_bf16;
#define USE_AVX2(name)   USE(avx2, name)
#define USE_AVX512(name) USE(avx512, name)
    if (isa >= DIP_ISA_AVX512) {
        DIP_VECTOR_OPS(USE_AVX512)
    } else if (isa >= DIP_ISA_AVX2) {
        DIP_VECTOR_OPS(USE_AVX2)
    }
    if (isa >= DIP_ISA_AMX) {
        table_bf16.attention_forward = dip_amx_attention_forward_bf16;
        table_bf16.attention_backward = dip_amx_attention_backward_bf16;
        table_bf16.attention_workspace = dip_amx_attention_workspace_bf16;
    }

#define USE_ONEDNN(name) USE(onednn, name)
    USE_ONEDNN(matmul_forward)
    USE_ONEDNN(matmul_backward_input)
    USE_ONEDNN(matmul_backward_weight)
    USE_ONEDNN(matmul_workspace)
    USE_ONEDNN(activation_forward)
    USE_ONEDNN(rows_gather)
    USE_ONEDNN(rows_scatter)
}

const dip_ops *dip_onednn_ops(dip_dtype dtype)
{
    pthread_once(&tables_built, build_tables);
    return dtype == DIP_BF16 ? &table_bf16 : &table_f32;
}

dip_status dip_onednn_exec_init(dip_exec *exec)
{
    const char *unknown = dip_cpu_isa_unknown_word();
    if (unknown != NULL)
        return dip_fail(
            DIP_CONFIG,
            "DIPTYCH_CPU_ISA is \"%s\", it may be amx, avx512bf16, avx512, avx2 or base", unknown);
    exec->state = NULL; /* the tables, the workspace and n_threads are all there is */
    return DIP_OK;
}

void dip_onednn_exec_free(dip_exec *exec)
{
    exec->state = NULL;
}
