#ifndef T
#include "kernels/cpu/reference.h"

size_t dip_reference_matmul_workspace(const dip_exec *exec, dip_matmul_shape shape)
{
    (void)exec, (void)shape;
    return 0;
}

/* Distance in memory between weights of neighbouring inputs, and of neighbouring outputs. */
static int64_t input_stride(dip_matmul_shape shape)
{
    return shape.layout == DIP_OUT_IN ? 1 : shape.c_out;
}

static int64_t output_stride(dip_matmul_shape shape)
{
    return shape.layout == DIP_OUT_IN ? shape.c_in : 1;
}

#define EACH_TYPE_FILE "kernels/cpu/matmul.c"
#include "kernels/cpu/each_type.h"
#else

#define multiply LOCAL(multiply)

/* sums[j] = sum_k a[k a_step] b[k b_step + j b_column], j < n_columns <= STRIP.
 * Each sum starts at 0 and adds k = 0, 1, ... in this order. */
static void multiply(float *sums, const T *a, int64_t a_step, const T *b, int64_t b_step,
                     int64_t b_column, int64_t n_columns, int64_t n_k)
{
    for (int64_t j = 0; j < n_columns; j++) sums[j] = 0.0f;
    for (int64_t k = 0; k < n_k; k++) {
        float a_k = LOAD(a[k * a_step]);
        for (int64_t j = 0; j < n_columns; j++) sums[j] += a_k * LOAD(b[k * b_step + j * b_column]);
    }
}

dip_status OP(matmul_forward)(dip_exec *exec, void *out, void *pre, const void *x, const void *w,
                              const void *bias, const void *residual, dip_activation act,
                              dip_matmul_shape shape)
{
    const int64_t c_in = shape.c_in, c_out = shape.c_out;
    const T *weights = w, *biases = bias;
    const int n_threads = threads_for(exec, shape.n_rows * c_in * c_out);
#pragma omp parallel for num_threads(n_threads)
    for (int64_t n = 0; n < shape.n_rows; n++) {
        const T *x_row = (const T *)x + n * c_in;
        const T *residual_row = residual ? (const T *)residual + n * c_out : NULL;
        T *pre_row = pre ? (T *)pre + n * c_out : NULL;
        T *out_row = (T *)out + n * c_out;
        for (int64_t first = 0; first < c_out; first += STRIP) {
            float sums[STRIP];
            int64_t n_columns = smaller(STRIP, c_out - first);
            multiply(sums, x_row, 1, weights + first * output_stride(shape), input_stride(shape),
                     output_stride(shape), n_columns, c_in);
            for (int64_t j = 0; j < n_columns; j++) {
                int64_t o = first + j;
                float value = biases ? sums[j] + LOAD(biases[o]) : sums[j];
                if (pre_row) pre_row[o] = ROUND(value);
                value = dip_activate(act, value);
                out_row[o] = ROUND(residual_row ? value + LOAD(residual_row[o]) : value);
            }
        }
    }
    return DIP_OK;
}

dip_status OP(matmul_backward_input)(dip_exec *exec, void *d_x, const void *d_out, const void *w,
                                     const void *pre, dip_activation act, dip_matmul_shape shape)
{
    const int64_t c_in = shape.c_in, c_out = shape.c_out;
    const T *weights = w;
    const int n_threads = threads_for(exec, shape.n_rows * c_in * c_out);
#pragma omp parallel for num_threads(n_threads)
    for (int64_t n = 0; n < shape.n_rows; n++) {
        const T *d_out_row = (const T *)d_out + n * c_out;
        const T *pre_row = act != DIP_ACT_NONE ? (const T *)pre + n * c_in : NULL;
        T *d_x_row = (T *)d_x + n * c_in;
        for (int64_t first = 0; first < c_in; first += STRIP) {
            float sums[STRIP];
            int64_t n_columns = smaller(STRIP, c_in - first);
            multiply(sums, d_out_row, 1, weights + first * input_stride(shape),
                     output_stride(shape), input_stride(shape), n_columns, c_out);
            for (int64_t j = 0; j < n_columns; j++) {
                int64_t i = first + j;
                float slope = pre_row ? dip_activate_derivative(act, LOAD(pre_row[i])) : 1.0f;
                d_x_row[i] = ROUND(sums[j] * slope);
            }
        }
    }
    return DIP_OK;
}

dip_status OP(matmul_backward_weight)(dip_exec *exec, float *d_w, float *d_bias, const void *d_out,
                                      const void *x, dip_matmul_shape shape)
{
    const int64_t c_in = shape.c_in, c_out = shape.c_out;
    const T *inputs = x, *d_outputs = d_out;
    const int n_threads = threads_for(exec, shape.n_rows * c_in * c_out);
#pragma omp parallel for num_threads(n_threads)
    for (int64_t i = 0; i < c_in; i++) {
        for (int64_t first = 0; first < c_out; first += STRIP) {
            float sums[STRIP];
            int64_t n_columns = smaller(STRIP, c_out - first);
            multiply(sums, inputs + i, c_in, d_outputs + first, c_out, 1, n_columns, shape.n_rows);
            for (int64_t j = 0; j < n_columns; j++)
                d_w[i * input_stride(shape) + (first + j) * output_stride(shape)] += sums[j];
        }
    }
    if (!d_bias) return DIP_OK;
    for (int64_t o = 0; o < c_out; o++) {
        float sum = 0.0f;
        for (int64_t n = 0; n < shape.n_rows; n++) sum += LOAD(d_outputs[n * c_out + o]);
        d_bias[o] += sum;
    }
    return DIP_OK;
}

#endif
