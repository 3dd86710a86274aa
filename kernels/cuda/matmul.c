/* Matrix products as cuBLASLt computes them: our row-major [N, C] is its column-major [C, N], so
 * every product is written with its operands swapped and nothing is moved.
 *
 * Bias and residual are part of the product. Activations are not (matmul_kernels.h says why): the
 * product is written to `pre`, and an elementwise kernel goes over it. */
#include <stddef.h>

#include "kernels/cuda/fp8.h"
#include "kernels/cuda/matmul_kernels.h"
#include "kernels/cuda/matmul_plan.h"

enum { ALIGNMENT = 256 };

size_t dip_cuda_matmul_workspace(const dip_exec *exec, dip_matmul_shape shape)
{
    (void)exec, (void)shape; /* cuBLASLt's and the partials are the executor's own */
    return 0;
}

static dip_cuda_matmul *matmul_of(const dip_exec *exec)
{
    return dip_cuda_of(exec)->matmul;
}

/* x [n_rows, from] times the weights, forward or (backward: transposed) back. */
static dip_cuda_product rows_times_weights(dip_dtype dtype, int64_t n_rows, dip_matmul_shape shape,
                                           bool backward)
{
    const bool is_bf16 = dtype == DIP_BF16;
    return (dip_cuda_product){
        .m = backward ? shape.c_in : shape.c_out,
        .n = n_rows,
        .k = backward ? shape.c_out : shape.c_in,
        .inputs_bf16 = is_bf16,
        .outputs_bf16 = is_bf16,
        .transpose_a = (shape.layout == DIP_OUT_IN) != backward,
    };
}

/* A product with a weight that may be one of those in fp8. */
static dip_status run(dip_exec *exec, dip_fp8_pass pass, const void *weight,
                      dip_weight_layout layout, dip_cuda_product product,
                      dip_cuda_operands operands)
{
    dip_cuda_fp8_take(exec, pass, weight, layout, &product, &operands);
    return dip_cuda_product_run(matmul_of(exec), product, operands);
}

/* ---- forward ---------------------------------------------------------------------------- */

/* act(x W + bias) + residual where the residual is in `out` and nobody wants `pre`: a few rows at a
 * time by way of the partials, behind a copy of the bias if there is one. */
static dip_status forward_in_place(dip_exec *exec, dip_dtype dtype, void *out, const void *x,
                                   const void *w, const void *bias, dip_activation act,
                                   dip_matmul_shape shape)
{
    const int64_t element = (int64_t)dip_dtype_bytes(dtype);
    const int64_t row_bytes = shape.c_out * element;
    const int64_t bias_bytes = bias ? (row_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT : 0;
    const int64_t rows_at_once = (DIP_CUDA_PARTIALS_BYTES - bias_bytes) / row_bytes;
    char *const rows = (char *)dip_cuda_of(exec)->partials + bias_bytes;
    if (rows_at_once < 1)
        return dip_fail(DIP_UNSUPPORTED,
                        "an activation before a residual in place: %lld columns "
                        "are too many",
                        (long long)shape.c_out);
    for (int64_t first = 0; first < shape.n_rows; first += rows_at_once) {
        const int64_t left = shape.n_rows - first;
        const int64_t n_rows = left < rows_at_once ? left : rows_at_once;
        char *out_rows = (char *)out + first * row_bytes;
        DIP_TRY(dip_cuda_product_run(
            matmul_of(exec), rows_times_weights(dtype, n_rows, shape, false),
            (dip_cuda_operands){.a = w,
                                .b = (const char *)x + first * shape.c_in * element,
                                .bias = bias,
                                .d = rows}));
        dip_cuda_activate(exec, dtype, out_rows, rows, out_rows, act, n_rows * shape.c_out);
    }
    return DIP_OK;
}

static dip_status forward(dip_exec *exec, dip_dtype dtype, void *out, void *pre, const void *x,
                          const void *w, const void *bias, const void *residual, dip_activation act,
                          dip_matmul_shape shape)
{
    if (shape.n_rows == 0) return DIP_OK;
    if (act != DIP_ACT_NONE && !pre && residual == out && residual) {
        DIP_TRY(forward_in_place(exec, dtype, out, x, w, bias, act, shape));
    } else {
        const bool has_act = act != DIP_ACT_NONE;
        void *product = has_act && pre ? pre : out;
        DIP_TRY(
            run(exec, DIP_FP8_FORWARD, w, shape.layout,
                rows_times_weights(dtype, shape.n_rows, shape, false),
                (dip_cuda_operands){
                    .a = w, .b = x, .c = has_act ? NULL : residual, .bias = bias, .d = product}));
        if (has_act)
            dip_cuda_activate(exec, dtype, out, product, residual, act, shape.n_rows * shape.c_out);
    }
    return DIP_CUDA_LAUNCHED(exec, "matmul_forward", "[%lld, %lld] x [%lld, %lld]",
                             (long long)shape.n_rows, (long long)shape.c_in, (long long)shape.c_in,
                             (long long)shape.c_out);
}

/* ---- backward --------------------------------------------------------------------------- */

static dip_status backward_input(dip_exec *exec, dip_dtype dtype, void *d_x, const void *d_out,
                                 const void *w, const void *pre, dip_activation act,
                                 dip_matmul_shape shape)
{
    if (shape.n_rows == 0) return DIP_OK;
    DIP_TRY(run(exec, DIP_FP8_INPUT_GRADIENT, w, shape.layout,
                rows_times_weights(dtype, shape.n_rows, shape, true),
                (dip_cuda_operands){.a = w, .b = d_out, .d = d_x}));
    if (act != DIP_ACT_NONE)
        dip_cuda_activate_backward(exec, dtype, d_x, pre, act, shape.n_rows * shape.c_in);
    return DIP_CUDA_LAUNCHED(exec, "matmul_backward_input", "[%lld, %lld] x [%lld, %lld]",
                             (long long)shape.n_rows, (long long)shape.c_out,
                             (long long)shape.c_out, (long long)shape.c_in);
}

static dip_status backward_weight(dip_exec *exec, dip_dtype dtype, float *d_w, float *d_bias,
                                  const void *d_out, const void *x, dip_matmul_shape shape)
{
    if (shape.n_rows == 0) return DIP_OK;
    /* d_W [C_out, C_in] in rows is [C_in, C_out] in columns: x^T times d_out; and the other layout
     * the other way round. */
    const bool out_in = shape.layout == DIP_OUT_IN;
    const dip_cuda_product product = {
        .m = out_in ? shape.c_in : shape.c_out,
        .n = out_in ? shape.c_out : shape.c_in,
        .k = shape.n_rows,
        .inputs_bf16 = dtype == DIP_BF16,
        .transpose_b = true,
    };
    DIP_TRY(run(
        exec, DIP_FP8_WEIGHT_GRADIENT, d_w, shape.layout, product,
        (dip_cuda_operands){.a = out_in ? x : d_out, .b = out_in ? d_out : x, .c = d_w, .d = d_w}));
    if (d_bias) dip_cuda_column_sums(exec, dtype, d_bias, d_out, shape.n_rows, shape.c_out);
    return DIP_CUDA_LAUNCHED(exec, "matmul_backward_weight", "[%lld, %lld] x [%lld, %lld]",
                             (long long)shape.c_out, (long long)shape.n_rows,
                             (long long)shape.n_rows, (long long)shape.c_in);
}

/* ---- both types ------------------------------------------------------------------------- */

#define BOTH_TYPES(T, dtype)                                                                       \
    dip_status dip_cuda_matmul_forward_##T(dip_exec *exec, void *out, void *pre, const void *x,    \
                                           const void *w, const void *bias, const void *residual,  \
                                           dip_activation act, dip_matmul_shape shape)             \
    {                                                                                              \
        return forward(exec, dtype, out, pre, x, w, bias, residual, act, shape);                   \
    }                                                                                              \
    dip_status dip_cuda_matmul_backward_input_##T(dip_exec *exec, void *d_x, const void *d_out,    \
                                                  const void *w, const void *pre,                  \
                                                  dip_activation act, dip_matmul_shape shape)      \
    {                                                                                              \
        return backward_input(exec, dtype, d_x, d_out, w, pre, act, shape);                        \
    }                                                                                              \
    dip_status dip_cuda_matmul_backward_weight_##T(dip_exec *exec, float *d_w, float *d_bias,      \
                                                   const void *d_out, const void *x,               \
                                                   dip_matmul_shape shape)                         \
    {                                                                                              \
        return backward_weight(exec, dtype, d_w, d_bias, d_out, x, shape);                         \
    }

BOTH_TYPES(f32, DIP_F32)
BOTH_TYPES(bf16, DIP_BF16)
