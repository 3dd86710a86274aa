/* The activation functions alone, by the code that follows a product: a value gets the bits that
 * matmul_forward would have given it. */
#include "kernels/onednn/gemm.h"
#include "kernels/onednn/gemm_blocks.h"

#include <string.h>

enum { CHUNK = 2048 }; /* values a thread takes at a time; a multiple of GEMM_BLOCK */

static void load(float *x, const void *src, int64_t at, int64_t n, dip_dtype dtype)
{
    if (dtype == DIP_F32) {
        memcpy(x, (const float *)src + at, (size_t)n * sizeof *x);
    } else {
        const dip_bf16 *values = (const dip_bf16 *)src + at;
        for (int64_t i = 0; i < n; i++) x[i] = dip_bf16_to_float(values[i]);
    }
}

/* As rows of one block. */
static void blocked(void *out, const float *x, dip_activation act, int64_t n, dip_dtype dtype)
{
    static const _Alignas(64) float no_bias[GEMM_BLOCK] = {0};
    const dip_gemm_epilogue epilogue = {
        .run = dip_gemm_epilogue_for(dtype, act, false),
        .out = out,
        .bias = no_bias,
        .ld = GEMM_BLOCK,
    };
    const int64_t n_rows = n / GEMM_BLOCK, n_left = n % GEMM_BLOCK;
    if (n_rows > 0) epilogue.run(&epilogue, x, 0, 0, (int)n_rows, GEMM_BLOCK);
    if (n_left > 0) epilogue.run(&epilogue, x + n_rows * GEMM_BLOCK, n_rows, 0, 1, (int)n_left);
}

static dip_status activate(dip_dtype dtype, dip_exec *exec, void *out, const void *pre,
                           dip_activation act, int64_t n)
{
    const bool has_blocks = dip_gemm_method_for(dtype) != NULL;
    const int64_t n_chunks = (n + CHUNK - 1) / CHUNK;
    const int n_threads = n_chunks < exec->n_threads ? (int)n_chunks : exec->n_threads;
    if (n == 0) return DIP_OK;
    if (act == DIP_ACT_NONE) {
        memcpy(out, pre, (size_t)n * dip_dtype_bytes(dtype));
        return DIP_OK;
    }
#pragma omp parallel for num_threads(n_threads)
    for (int64_t chunk = 0; chunk < n_chunks; chunk++) {
        _Alignas(64) float x[CHUNK];
        const int64_t at = chunk * CHUNK, length = n - at < CHUNK ? n - at : CHUNK;
        void *chunk_out = (char *)out + (size_t)at * dip_dtype_bytes(dtype);
        load(x, pre, at, length, dtype);
        if (has_blocks) {
            blocked(chunk_out, x, act, length, dtype);
        } else {
            const dip_gemm_rows_job job = {.m = 1, .n = length, .act = act, .out = chunk_out};
            dip_gemm_finish_for_cpu()(&job, dtype, x, 0);
        }
    }
    return DIP_OK;
}

dip_status dip_onednn_activation_forward_f32(dip_exec *exec, void *out, const void *pre,
                                             dip_activation act, int64_t n)
{
    return activate(DIP_F32, exec, out, pre, act, n);
}

dip_status dip_onednn_activation_forward_bf16(dip_exec *exec, void *out, const void *pre,
                                              dip_activation act, int64_t n)
{
    return activate(DIP_BF16, exec, out, pre, act, n);
}
