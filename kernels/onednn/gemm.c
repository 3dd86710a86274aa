/* The matrix products' entry points: which operand is which, workspace, and the way to compute. */
#include "kernels/onednn/gemm.h"

#include "kernels/onednn/gemm_blocks.h"
#include "kernels/onednn/onednn.h"

const dip_gemm_method *dip_gemm_method_for(dip_dtype dtype)
{
    static const dip_gemm_method tiles_bf16 = {DIP_BF16,
                                               1,
                                               dip_gemm_pack_bf16,
                                               dip_gemm_kernel_tiles_bf16,
                                               dip_gemm_tiles_begin,
                                               dip_gemm_tiles_end},
                                 tiles_split = {DIP_F32,
                                                GEMM_SPLIT_PLANES,
                                                dip_gemm_pack_f32,
                                                dip_gemm_kernel_tiles_split,
                                                dip_gemm_tiles_begin,
                                                dip_gemm_tiles_end},
                                 dot_bf16 = {
                                     DIP_BF16, 1,   dip_gemm_pack_bf16, dip_gemm_kernel_dot_bf16,
                                     NULL,     NULL};
    dip_cpu_isa_level isa = dip_cpu_isa();
    if (isa >= DIP_ISA_AMX) return dtype == DIP_BF16 ? &tiles_bf16 : &tiles_split;
    if (isa >= DIP_ISA_AVX512_BF16 && dtype == DIP_BF16) return &dot_bf16;
    return NULL;
}

/* ---- workspace ------------------------------------------------------------------------- */

static int thread_count(const dip_exec *exec)
{
    return exec->n_threads > 1 ? exec->n_threads : 1;
}

static size_t rows_bytes(dip_dtype dtype, const dip_exec *exec, int64_t n, int64_t k)
{
    const dip_gemm_method *method = dip_gemm_method_for(dtype);
    return method != NULL ? dip_gemm_rows_bytes(method->n_planes, n, k, thread_count(exec))
                          : dip_gemm_sgemm_rows_bytes(dtype, n, k, thread_count(exec));
}

static size_t weight_bytes(dip_dtype dtype, int64_t p, int64_t q)
{
    const dip_gemm_method *method = dip_gemm_method_for(dtype);
    return method != NULL ? dip_gemm_weight_bytes(method->n_planes, p, q)
                          : dip_gemm_sgemm_weight_bytes(dtype, p, q);
}

/* The number of rows does not matter; more columns never need less. */
static size_t workspace_bytes(dip_dtype dtype, const dip_exec *exec, dip_matmul_shape shape)
{
    size_t need[] = {rows_bytes(dtype, exec, shape.c_out, shape.c_in),
                     rows_bytes(dtype, exec, shape.c_in, shape.c_out),
                     weight_bytes(dtype, shape.c_in, shape.c_out)};
    size_t most = 0;
    for (size_t i = 0; i < sizeof need / sizeof need[0]; i++)
        if (need[i] > most) most = need[i];
    return most + 64; /* to align it */
}

size_t dip_onednn_matmul_workspace_f32(const dip_exec *exec, dip_matmul_shape shape)
{
    return workspace_bytes(DIP_F32, exec, shape);
}

size_t dip_onednn_matmul_workspace_bf16(const dip_exec *exec, dip_matmul_shape shape)
{
    return workspace_bytes(DIP_BF16, exec, shape);
}

/* *out = the executor's workspace, aligned to 64 bytes, with room for n_bytes. */
static dip_status take_workspace(void **out, const dip_exec *exec, dip_matmul_shape shape,
                                 size_t n_bytes)
{
    uintptr_t begin = (uintptr_t)exec->workspace;
    size_t skip = (size_t)((64 - begin % 64) % 64);
    if (exec->workspace == NULL || exec->workspace_bytes < n_bytes + skip)
        return dip_fail(DIP_NOMEM,
                        "a matrix product of %lld rows, %lld to %lld columns needs %zu bytes of "
                        "workspace but the executor has %zu",
                        (long long)shape.n_rows, (long long)shape.c_in, (long long)shape.c_out,
                        n_bytes + skip, exec->workspace == NULL ? 0 : exec->workspace_bytes);
    *out = (char *)exec->workspace + skip;
    return DIP_OK;
}

/* ---- the products ---------------------------------------------------------------------- */

static dip_status run_rows(dip_dtype dtype, dip_exec *exec, dip_gemm_rows_job *job,
                           dip_matmul_shape shape)
{
    if (job->m == 0 || job->n == 0) return DIP_OK;
    job->n_threads = thread_count(exec);
    DIP_TRY(take_workspace(&job->workspace, exec, shape, rows_bytes(dtype, exec, job->n, job->k)));
    const dip_gemm_method *method = dip_gemm_method_for(dtype);
    if (method != NULL)
        dip_gemm_rows(method, job);
    else
        return dip_gemm_sgemm_rows(dtype, job);
    return DIP_OK;
}

static dip_status forward(dip_dtype dtype, dip_exec *exec, void *out, void *pre, const void *x,
                          const void *w, const void *bias, const void *residual, dip_activation act,
                          dip_matmul_shape shape)
{
    dip_gemm_rows_job job = {
        .a = x,
        .b = w,
        .bias = bias,
        .m = shape.n_rows,
        .n = shape.c_out,
        .k = shape.c_in,
        .b_transposed = shape.layout == DIP_OUT_IN,
        .act = act,
        .out = out,
        .pre = pre,
        .residual = residual,
    };
    return run_rows(dtype, exec, &job, shape);
}

static dip_status backward_input(dip_dtype dtype, dip_exec *exec, void *d_x, const void *d_out,
                                 const void *w, const void *pre, dip_activation act,
                                 dip_matmul_shape shape)
{
    dip_gemm_rows_job job = {
        .a = d_out,
        .b = w,
        .m = shape.n_rows,
        .n = shape.c_in,
        .k = shape.c_out,
        .b_transposed = shape.layout == DIP_IN_OUT,
        .gradient = true,
        .act = act,
        .out = d_x,
        .act_pre = pre,
    };
    return run_rows(dtype, exec, &job, shape);
}

static dip_status backward_weight(dip_dtype dtype, dip_exec *exec, float *d_w, float *d_bias,
                                  const void *d_out, const void *x, dip_matmul_shape shape)
{
    bool out_in = shape.layout == DIP_OUT_IN;
    dip_gemm_weight_job job = {
        .l = out_in ? d_out : x,
        .r = out_in ? x : d_out,
        .d_w = d_w,
        .d_bias = d_bias,
        .bias_from_l = out_in,
        .n = shape.n_rows,
        .p = out_in ? shape.c_out : shape.c_in,
        .q = out_in ? shape.c_in : shape.c_out,
        .n_threads = thread_count(exec),
    };
    if (job.n == 0 || shape.c_out == 0) return DIP_OK;
    DIP_TRY(take_workspace(&job.workspace, exec, shape, weight_bytes(dtype, job.p, job.q)));
    const dip_gemm_method *method = dip_gemm_method_for(dtype);
    if (method == NULL) return dip_gemm_sgemm_weight(dtype, &job);
    dip_gemm_weight(method, &job);
    return DIP_OK;
}

#define ENTRY_POINTS(suffix, dtype)                                                                \
    dip_status dip_onednn_matmul_forward_##suffix(                                                 \
        dip_exec *exec, void *out, void *pre, const void *x, const void *w, const void *bias,      \
        const void *residual, dip_activation act, dip_matmul_shape shape)                          \
    {                                                                                              \
        return forward(dtype, exec, out, pre, x, w, bias, residual, act, shape);                   \
    }                                                                                              \
    dip_status dip_onednn_matmul_backward_input_##suffix(                                          \
        dip_exec *exec, void *d_x, const void *d_out, const void *w, const void *pre,              \
        dip_activation act, dip_matmul_shape shape)                                                \
    {                                                                                              \
        return backward_input(dtype, exec, d_x, d_out, w, pre, act, shape);                        \
    }                                                                                              \
    dip_status dip_onednn_matmul_backward_weight_##suffix(dip_exec *exec, float *d_w,              \
                                                          float *d_bias, const void *d_out,        \
                                                          const void *x, dip_matmul_shape shape)   \
    {                                                                                              \
        return backward_weight(dtype, exec, d_w, d_bias, d_out, x, shape);                         \
    }
ENTRY_POINTS(f32, DIP_F32)
ENTRY_POINTS(bf16, DIP_BF16)
