/* A row of scores at a time, never a matrix of them: every thread owns three rows of scratch as
 * long as the longest sequence. Backward walks the scores twice, by rows for d_q and by columns
 * for d_k and d_v, so that each gradient is one sum in index order. */
#ifndef T
#include "kernels/cpu/reference.h"

enum { SCRATCH_ROWS = 3 };

/* Floats of one scratch row: whole cache lines, so that threads do not share one. */
static size_t scratch_stride(dip_attention_shape shape)
{
    return ((size_t)shape.max_length + 15) / 16 * 16;
}

size_t dip_reference_attention_workspace(const dip_exec *exec, dip_attention_shape shape)
{
    return (size_t)exec->n_threads * SCRATCH_ROWS * scratch_stride(shape) * sizeof(float);
}

static int64_t attention_work(dip_attention_shape shape)
{
    return shape.n_rows * shape.max_length * shape.n_heads * shape.head_size;
}

#define EACH_TYPE_FILE "kernels/cpu/attention.c"
#include "kernels/cpu/each_type.h"
#else

#define dot LOCAL(dot)

static float dot(const T *a, const T *b, int n)
{
    float sum = 0.0f;
    for (int i = 0; i < n; i++) sum += LOAD(a[i]) * LOAD(b[i]);
    return sum;
}

dip_status OP(attention_forward)(dip_exec *exec, void *out, float *lse, const void *qkv,
                                 const int32_t *offsets, dip_attention_shape shape)
{
    const int n_heads = shape.n_heads, d_head = shape.head_size;
    const int64_t c = (int64_t)n_heads * d_head;
    const float scale = 1.0f / sqrtf((float)d_head);
    DIP_TRY(dip_reference_need(exec, "attention_forward",
                               dip_reference_attention_workspace(exec, shape)));
    float *workspace = exec->workspace;

    const int n_threads = threads_for(exec, attention_work(shape));
#pragma omp parallel for collapse(2) num_threads(n_threads)
    for (int64_t b = 0; b < shape.n_sequences; b++) {
        for (int h = 0; h < n_heads; h++) {
            float *p =
                workspace + (size_t)omp_get_thread_num() * SCRATCH_ROWS * scratch_stride(shape);
            const int64_t first = offsets[b], length = offsets[b + 1] - first;
            const T *q = (const T *)qkv + first * 3 * c + (int64_t)h * d_head;
            const T *k = q + c, *v = q + 2 * c;
            assert(length <= shape.max_length);
            for (int64_t i = 0; i < length; i++) {
                const int64_t n_seen = shape.causal ? i + 1 : length;
                float largest = -INFINITY, sum = 0.0f;
                for (int64_t j = 0; j < n_seen; j++) {
                    p[j] = scale * dot(q + i * 3 * c, k + j * 3 * c, d_head);
                    if (p[j] > largest) largest = p[j];
                }
                for (int64_t j = 0; j < n_seen; j++) {
                    p[j] = expf(p[j] - largest);
                    sum += p[j];
                }
                lse[(first + i) * n_heads + h] = largest + logf(sum);
                T *out_row = (T *)out + (first + i) * c + (int64_t)h * d_head;
                for (int d = 0; d < d_head; d++) {
                    float value = 0.0f;
                    for (int64_t j = 0; j < n_seen; j++) value += p[j] * LOAD(v[j * 3 * c + d]);
                    out_row[d] = ROUND(value / sum);
                }
            }
        }
    }
    return DIP_OK;
}

dip_status OP(attention_backward)(dip_exec *exec, void *d_qkv, const void *d_out, const void *qkv,
                                  const void *out, const float *lse, const int32_t *offsets,
                                  dip_attention_shape shape)
{
    const int n_heads = shape.n_heads, d_head = shape.head_size;
    const int64_t c = (int64_t)n_heads * d_head;
    const float scale = 1.0f / sqrtf((float)d_head);
    DIP_TRY(dip_reference_need(exec, "attention_backward",
                               dip_reference_attention_workspace(exec, shape)));
    float *workspace = exec->workspace;

    const int n_threads = threads_for(exec, attention_work(shape));
#pragma omp parallel for collapse(2) num_threads(n_threads)
    for (int64_t b = 0; b < shape.n_sequences; b++) {
        for (int h = 0; h < n_heads; h++) {
            const size_t stride = scratch_stride(shape);
            float *p = workspace + (size_t)omp_get_thread_num() * SCRATCH_ROWS * stride;
            float *d_s = p + stride;        /* gradient of q . k / sqrt(D) */
            float *mean_d_p = d_s + stride; /* sum_j p_ij d_p_ij = d_out_i . out_i */
            const int64_t first = offsets[b], length = offsets[b + 1] - first;
            const T *q = (const T *)qkv + first * 3 * c + (int64_t)h * d_head;
            const T *k = q + c, *v = q + 2 * c;
            T *d_q = (T *)d_qkv + first * 3 * c + (int64_t)h * d_head;
            T *d_k = d_q + c, *d_v = d_q + 2 * c;
            const T *d_o = (const T *)d_out + first * c + (int64_t)h * d_head;
            const T *o = (const T *)out + first * c + (int64_t)h * d_head;
            const float *lse_row = lse + first * n_heads + h;
            assert(length <= shape.max_length);

            for (int64_t i = 0; i < length; i++) {
                const int64_t n_seen = shape.causal ? i + 1 : length;
                mean_d_p[i] = dot(d_o + i * c, o + i * c, d_head);
                for (int64_t j = 0; j < n_seen; j++) {
                    float s = scale * dot(q + i * 3 * c, k + j * 3 * c, d_head);
                    float d_p = dot(d_o + i * c, v + j * 3 * c, d_head);
                    d_s[j] = expf(s - lse_row[i * n_heads]) * (d_p - mean_d_p[i]);
                }
                for (int d = 0; d < d_head; d++) {
                    float sum = 0.0f;
                    for (int64_t j = 0; j < n_seen; j++) sum += d_s[j] * LOAD(k[j * 3 * c + d]);
                    d_q[i * 3 * c + d] = ROUND(scale * sum);
                }
            }
            for (int64_t j = 0; j < length; j++) {
                const int64_t first_seen = shape.causal ? j : 0;
                for (int64_t i = first_seen; i < length; i++) {
                    float s = scale * dot(q + i * 3 * c, k + j * 3 * c, d_head);
                    float d_p = dot(d_o + i * c, v + j * 3 * c, d_head);
                    p[i] = expf(s - lse_row[i * n_heads]);
                    d_s[i] = p[i] * (d_p - mean_d_p[i]);
                }
                for (int d = 0; d < d_head; d++) {
                    float sum_k = 0.0f, sum_v = 0.0f;
                    for (int64_t i = first_seen; i < length; i++) {
                        sum_k += d_s[i] * LOAD(q[i * 3 * c + d]);
                        sum_v += p[i] * LOAD(d_o[i * c + d]);
                    }
                    d_k[j * 3 * c + d] = ROUND(scale * sum_k);
                    d_v[j * 3 * c + d] = ROUND(sum_v);
                }
            }
        }
    }
    return DIP_OK;
}

#endif
