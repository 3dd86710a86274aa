/* A (sequence, head) at a time, by one thread: its q, k, v are copied to float, k (and v) also
 * transposed, and the scores are made for QUERIES rows at once. The workspace of a thread grows
 * with the length of a sequence, not with its square. */
#ifndef VECTOR_ONCE
#include "kernels/onednn/attention_layout.h"
#include "kernels/onednn/vector_product.h"
#endif

/* [rows, d] T to float, rows `to` floats apart. */
static void LOCAL(copy)(float *out, int64_t to, const T *in, int64_t from, int64_t rows, int64_t d)
{
    for (int64_t i = 0; i < rows; i++, out += to, in += from) {
        int64_t j = 0;
        for (; j + LANES <= d; j += LANES) vec_store(out + j, LOAD(in + j));
        if (j < d) vec_store(out + j, LOAD_N(in + j, d - j));
    }
}

/* The same transposed: out [d, rows], rows of out `to` floats apart, padded to whole vectors. */
static void LOCAL(transpose)(float *out, int64_t to, const T *in, int64_t from, int64_t rows,
                             int64_t d)
{
    for (int64_t i = 0; i < rows; i += LANES) {
        const int64_t n = smaller(LANES, rows - i);
        for (int64_t j = 0; j < d; j += LANES) {
            vec x[LANES];
            for (int64_t l = 0; l < LANES; l++) {
                const T *p = in + (i + l) * from + j;
                if (l >= n)
                    x[l] = vec_zero();
                else
                    x[l] = d - j >= LANES ? LOAD(p) : LOAD_N(p, d - j);
            }
            vec_transpose(x);
            for (int64_t l = 0; l < LANES; l++) vec_store(out + (j + l) * to + i, x[l]);
        }
    }
}

/* [rows, d] floats to T. */
static void LOCAL(put)(T *out, int64_t to, const float *x, int64_t from, int64_t rows, int64_t d)
{
    for (int64_t i = 0; i < rows; i++, out += to, x += from) {
        int64_t j = 0;
        for (; j + LANES <= d; j += LANES) STORE(out + j, vec_load(x + j));
        if (j < d) STORE_N(out + j, vec_load_n(x + j, d - j), d - j);
    }
}

static float LOCAL(dot)(const T *a, const T *b, int64_t d)
{
    vec sum = vec_zero();
    int64_t j = 0;
    for (; j + LANES <= d; j += LANES) sum = vec_fma(LOAD(a + j), LOAD(b + j), sum);
    if (j < d) sum = vec_fma(LOAD_N(a + j, d - j), LOAD_N(b + j, d - j), sum);
    return vec_sum(sum);
}

#ifndef VECTOR_ONCE

/* Scores to unnormalised probabilities, zero from n_seen to n_keys; returns log-sum-exp. */
static float softmax_row(float *s, float scale, int64_t n_seen, int64_t n_keys, float *sum_out)
{
    const vec factor = vec_all(scale);
    vec most = vec_all(-INFINITY), total = vec_zero();
    int64_t j = 0;
    for (; j + LANES <= n_seen; j += LANES) most = vec_max(most, vec_load(s + j));
    float largest = vec_largest(most);
    for (; j < n_seen; j++) largest = s[j] > largest ? s[j] : largest;
    largest *= scale;
    const vec shift = vec_all(-largest);
    for (j = 0; j + LANES <= n_seen; j += LANES) {
        vec p = vec_exp(vec_fma(vec_load(s + j), factor, shift));
        total = vec_add(total, p);
        vec_store(s + j, p);
    }
    if (j < n_seen) {
        vec p = vec_exp(vec_fma(vec_load(s + j), factor, shift));
        p = vec_keep_n(p, n_seen - j);
        total = vec_add(total, p);
        vec_store(s + j, p);
        j += LANES;
    }
    for (; j < n_keys; j += LANES) vec_store(s + j, vec_zero());
    *sum_out = vec_sum(total);
    return largest + logf(*sum_out);
}

/* s: scores to probabilities; d_p: their gradients to those of q . k. Zero beyond n_seen. */
static void softmax_row_backward(float *s, float *d_p, float scale, float lse, float mean_d_p,
                                 int64_t n_seen, int64_t n_keys)
{
    const vec factor = vec_all(scale), shift = vec_all(-lse), mean = vec_all(mean_d_p);
    for (int64_t j = 0; j < n_keys; j += LANES) {
        if (j >= n_seen) {
            vec_store(s + j, vec_zero());
            vec_store(d_p + j, vec_zero());
            continue;
        }
        vec p = vec_exp(vec_fma(vec_load(s + j), factor, shift));
        vec d_s = vec_mul(vec_mul(p, vec_sub(vec_load(d_p + j), mean)), factor);
        if (n_seen - j < LANES) {
            p = vec_keep_n(p, n_seen - j);
            d_s = vec_keep_n(d_s, n_seen - j);
        }
        vec_store(s + j, p);
        vec_store(d_p + j, d_s);
    }
}

#endif

static void LOCAL(forward_head)(T *out, float *lse, const T *qkv, float *scratch, int64_t length,
                                dip_attention_shape shape)
{
    const int64_t d = shape.head_size, c = shape.n_heads * d, row = 3 * c;
    const attention_layout at = attention_layout_of(shape);
    float *q = scratch + at.q, *k_t = scratch + at.k_t, *v = scratch + at.v;
    float *s = scratch + at.s, *o = scratch + at.o;
    const float scale = 1.0f / sqrtf((float)d);
    LOCAL(copy)(q, at.d, qkv, row, length, d);
    LOCAL(transpose)(k_t, at.keys, qkv + c, row, length, d);
    LOCAL(copy)(v, at.d, qkv + 2 * c, row, length, d);

    for (int64_t first = 0; first < length; first += QUERIES) {
        const int64_t n = smaller(QUERIES, length - first);
        const int64_t n_keys = shape.causal ? first + n : length;
        product(s, at.keys, (strided){q + first * at.d, at.d, 1}, k_t, at.keys, n,
                round_up(n_keys, LANES), d, 0);
        float sums[QUERIES];
        for (int64_t i = 0; i < n; i++) {
            const int64_t n_seen = shape.causal ? first + i + 1 : length;
            lse[(first + i) * shape.n_heads] =
                softmax_row(s + i * at.keys, scale, n_seen, n_keys, &sums[i]);
        }
        product(o, at.d, (strided){s, at.keys, 1}, v, at.d, n, round_up(d, LANES), n_keys, 0);
        for (int64_t i = 0; i < n; i++) {
            float *o_row = o + i * at.d;
            const vec sum = vec_all(sums[i]);
            for (int64_t j = 0; j < d; j += LANES)
                vec_store(o_row + j, vec_div(vec_load(o_row + j), sum));
        }
        LOCAL(put)(out + first * c, c, o, at.d, n, d);
    }
}

dip_status OP(attention_forward)(dip_exec *exec, void *out, float *lse, const void *qkv,
                                 const int32_t *offsets, dip_attention_shape shape)
{
    const int64_t d = shape.head_size, c = shape.n_heads * d;
    const int64_t n_tasks = shape.n_sequences * shape.n_heads;
    const size_t stride = attention_layout_of(shape).n_floats;
    DIP_TRY(need_workspace(exec, "attention_forward", dip_vector_attention_workspace(exec, shape)));
#pragma omp parallel for schedule(dynamic, 2)                                                      \
    num_threads(threads_for(exec, shape.n_rows *c *shape.max_length / 16))
    for (int64_t task = 0; task < n_tasks; task++) {
        const int64_t b = task / shape.n_heads, h = task % shape.n_heads, first = offsets[b];
        LOCAL(forward_head)
        ((T *)out + first * c + h * d, lse + first * shape.n_heads + h,
         (const T *)qkv + first * 3 * c + h * d,
         (float *)exec->workspace + (size_t)omp_get_thread_num() * stride, offsets[b + 1] - first,
         shape);
    }
    return DIP_OK;
}

static void LOCAL(backward_head)(T *d_qkv, const T *d_out, const T *qkv, const T *out,
                                 const float *lse, float *scratch, int64_t length,
                                 dip_attention_shape shape)
{
    const int64_t d = shape.head_size, c = shape.n_heads * d, row = 3 * c;
    const attention_layout at = attention_layout_of(shape);
    float *q = scratch + at.q, *k = scratch + at.k, *k_t = scratch + at.k_t;
    float *v_t = scratch + at.v, *d_o = scratch + at.d_o;
    float *d_k = scratch + at.d_k, *d_v = scratch + at.d_v;
    float *s = scratch + at.s, *d_p = scratch + at.d_p, *d_q = scratch + at.o;
    const float scale = 1.0f / sqrtf((float)d);
    const int64_t width = round_up(d, LANES);
    LOCAL(copy)(q, at.d, qkv, row, length, d);
    LOCAL(copy)(k, at.d, qkv + c, row, length, d);
    LOCAL(copy)(d_o, at.d, d_out, c, length, d);
    LOCAL(transpose)(k_t, at.keys, qkv + c, row, length, d);
    LOCAL(transpose)(v_t, at.keys, qkv + 2 * c, row, length, d);
    memset(d_k, 0, (size_t)(length * at.d) * sizeof *d_k);
    memset(d_v, 0, (size_t)(length * at.d) * sizeof *d_v);

    for (int64_t first = 0; first < length; first += QUERIES) {
        const int64_t n = smaller(QUERIES, length - first);
        const int64_t n_keys = shape.causal ? first + n : length;
        const int64_t padded = round_up(n_keys, LANES);
        const float *q_block = q + first * at.d, *d_o_block = d_o + first * at.d;
        product(s, at.keys, (strided){q_block, at.d, 1}, k_t, at.keys, n, padded, d, 0);
        product(d_p, at.keys, (strided){d_o_block, at.d, 1}, v_t, at.keys, n, padded, d, 0);
        for (int64_t i = 0; i < n; i++) {
            const int64_t token = first + i;
            float mean_d_p = LOCAL(dot)(d_out + token * c, out + token * c, d);
            softmax_row_backward(s + i * at.keys, d_p + i * at.keys, scale,
                                 lse[token * shape.n_heads], mean_d_p,
                                 shape.causal ? token + 1 : length, n_keys);
        }
        product(d_v, at.d, (strided){s, 1, at.keys}, d_o_block, at.d, n_keys, width, n, 1);
        product(d_k, at.d, (strided){d_p, 1, at.keys}, q_block, at.d, n_keys, width, n, 1);
        product(d_q, at.d, (strided){d_p, at.keys, 1}, k, at.d, n, width, n_keys, 0);
        LOCAL(put)(d_qkv + first * row, row, d_q, at.d, n, d);
    }
    LOCAL(put)(d_qkv + c, row, d_k, at.d, length, d);
    LOCAL(put)(d_qkv + 2 * c, row, d_v, at.d, length, d);
}

dip_status OP(attention_backward)(dip_exec *exec, void *d_qkv, const void *d_out, const void *qkv,
                                  const void *out, const float *lse, const int32_t *offsets,
                                  dip_attention_shape shape)
{
    const int64_t d = shape.head_size, c = shape.n_heads * d;
    const int64_t n_tasks = shape.n_sequences * shape.n_heads;
    const size_t stride = attention_layout_of(shape).n_floats;
    DIP_TRY(
        need_workspace(exec, "attention_backward", dip_vector_attention_workspace(exec, shape)));
#pragma omp parallel for schedule(dynamic, 2)                                                      \
    num_threads(threads_for(exec, shape.n_rows *c *shape.max_length / 16))
    for (int64_t task = 0; task < n_tasks; task++) {
        const int64_t b = task / shape.n_heads, h = task % shape.n_heads, first = offsets[b];
        LOCAL(backward_head)
        ((T *)d_qkv + first * 3 * c + h * d, (const T *)d_out + first * c + h * d,
         (const T *)qkv + first * 3 * c + h * d, (const T *)out + first * c + h * d,
         lse + first * shape.n_heads + h,
         (float *)exec->workspace + (size_t)omp_get_thread_num() * stride, offsets[b + 1] - first,
         shape);
    }
    return DIP_OK;
}
