/* bf16 attention on tiles: a (sequence, head) at a time by one thread. Probabilities and their
 * gradients are rounded to bf16 before they are multiplied, sums are float. */
#include "kernels/onednn/attention_amx.h"
#include "kernels/onednn/tiles_amx.h"
#include "kernels/onednn/vector_common.h"

static const float log2_e = 0x1.715476p+0f;

/* 2^x to 2^-23 for x well inside the range of exponents: what is rounded to bf16 needs no more. */
static inline vec exp2_vec(vec x)
{
    vec n = vec_round(x), r = vec_sub(x, n);
    vec p = vec_all(0x1.5ca85ap-10f);
    p = vec_fma(p, r, vec_all(0x1.3cdbd4p-7f));
    p = vec_fma(p, r, vec_all(0x1.c6b3b0p-5f));
    p = vec_fma(p, r, vec_all(0x1.ebf9f0p-3f));
    p = vec_fma(p, r, vec_all(0x1.62e430p-1f));
    p = vec_fma(p, r, vec_all(1.0f));
    return vec_times_power_of_2(p, n);
}

size_t dip_amx_attention_workspace_bf16(const dip_exec *exec, dip_attention_shape shape)
{
    return (size_t)exec->n_threads * tile_layout_of(shape).n_bytes;
}

/* Scores to unnormalised probabilities, zero from n_seen to `width`, a multiple of 32; returns
 * log-sum-exp. A store is a whole row of a tile, as tiles are loaded soon after. */
static float softmax_row(dip_bf16 *p_out, const float *s, float scale, int64_t n_seen,
                         int64_t width, float *sum_out)
{
    const int64_t whole = n_seen / LANES * LANES, tail = n_seen - whole;
    vec most = vec_all(-INFINITY), total = vec_zero();
    for (int64_t j = 0; j < whole; j += LANES) most = vec_max(most, vec_load(s + j));
    if (tail) most = _mm512_mask_max_ps(most, vec_mask(tail), most, vec_load(s + whole));
    const float largest = vec_largest(most) * scale;
    const vec factor = vec_all(scale * log2_e), shift = vec_all(-largest * log2_e);
    int64_t j = 0;
    for (; j + 2 * LANES <= n_seen; j += 2 * LANES) {
        vec low = exp2_vec(vec_fma(vec_load(s + j), factor, shift));
        vec high = exp2_vec(vec_fma(vec_load(s + j + LANES), factor, shift));
        total = vec_add(vec_add(total, low), high);
        tile_store_two(p_out + j, low, high);
    }
    if (j < n_seen) {
        const __mmask32 seen = (__mmask32)((1ull << (n_seen - j)) - 1);
        vec low = exp2_vec(vec_fma(vec_load(s + j), factor, shift)), high = vec_zero();
        if (n_seen - j > LANES) high = exp2_vec(vec_fma(vec_load(s + j + LANES), factor, shift));
        low = _mm512_maskz_mov_ps((__mmask16)seen, low);
        high = _mm512_maskz_mov_ps((__mmask16)(seen >> 16), high);
        total = vec_add(vec_add(total, low), high);
        tile_store_two(p_out + j, low, high);
        j += 2 * LANES;
    }
    for (; j < width; j += 2 * LANES) tile_store_two(p_out + j, vec_zero(), vec_zero());
    *sum_out = vec_sum(total);
    return largest + logf(*sum_out);
}

/* [rows, d] floats, each row times its own factor (or 1), to bf16. */
static void put(dip_bf16 *out, int64_t to, const float *x, int64_t from, int64_t rows, int64_t d,
                const float *factors)
{
    const int64_t whole = d / 32 * 32, tail = d - whole;
    const __mmask32 rest = (__mmask32)((1ull << tail) - 1);
    for (int64_t i = 0; i < rows; i++, out += to, x += from) {
        const vec factor = vec_all(factors ? factors[i] : 1.0f);
        for (int64_t j = 0; j < whole; j += 32)
            tile_store_two(out + j, vec_mul(vec_load(x + j), factor),
                           vec_mul(vec_load(x + j + LANES), factor));
        if (tail) {
            vec low = vec_mul(vec_load(x + whole), factor);
            vec high = tail > LANES ? vec_mul(vec_load(x + whole + LANES), factor) : vec_zero();
            _mm512_mask_storeu_epi16(out + whole, rest, (__m512i)_mm512_cvtne2ps_pbh(high, low));
        }
    }
}

static void forward_head(dip_bf16 *out, float *lse, const dip_bf16 *qkv, char *scratch,
                         int64_t length, dip_attention_shape shape)
{
    const int64_t d = shape.head_size, c = shape.n_heads * d, row = 3 * c;
    const tile_layout at = tile_layout_of(shape);
    const int64_t padded = round_up(length, 32), width = round_up(d, 16);
    dip_bf16 *q = (void *)(scratch + at.q), *rows = (void *)(scratch + at.k);
    uint32_t *k_across = (void *)(scratch + at.v), *v_pairs = (void *)(scratch + at.k_pairs);
    float *s = (void *)(scratch + at.s), *o = (void *)(scratch + at.d_q);
    dip_bf16 *p = (void *)(scratch + at.p);
    const float scale = 1.0f / sqrtf((float)d);
    tile_rows(q, at.d, qkv, row, length, padded, d);
    tile_rows(rows, at.d, qkv + c, row, length, padded, d);
    tile_across(k_across, at.keys, rows, padded, at.d);
    tile_rows(rows, at.d, qkv + 2 * c, row, length, padded, d);
    tile_pairs(v_pairs, rows, padded, at.d);

    for (int64_t first = 0; first < length; first += STRIP) {
        const int64_t n = smaller(STRIP, length - first), m = round_up(n, 16);
        const int64_t n_keys = shape.causal ? first + n : length, k = round_up(n_keys, 32);
        tile_product(s, at.keys, q + first * at.d, at.d, k_across, at.keys, m, round_up(n_keys, 16),
                     at.d, 0);
        float inverse_sums[STRIP];
        for (int64_t i = 0; i < n; i++) {
            float sum;
            lse[(first + i) * shape.n_heads] =
                softmax_row(p + i * at.keys, s + i * at.keys, scale,
                            shape.causal ? first + i + 1 : length, k, &sum);
            inverse_sums[i] = 1.0f / sum;
        }
        tile_product(o, at.d, p, at.keys, v_pairs, at.d, m, width, k, 0);
        put(out + first * c, c, o, at.d, n, d, inverse_sums);
    }
}

/* Per query, for a block of them: what softmax' needs. */
typedef struct query_block {
    float shift[MAX_BLOCK];    /* lse in units of log 2 */
    float mean_d_p[MAX_BLOCK]; /* sum_j p d_p = d_out . out */
    int64_t first, n;
} query_block;

/* Gradient of one strip of STRIP keys (rows) by the block's queries (columns): scores to
 * probabilities and their gradients to those of the scores, both as rows; the latter also
 * transposed into d_s_rows. Masked and padded pairs become 0. */
static void softmax_strip_backward(const tile_layout *at, char *scratch, const query_block *block,
                                   int64_t key, int64_t n_keys, float scale, int causal)
{
    const float *s = (void *)(scratch + at->s), *d_p = (void *)(scratch + at->d_p);
    dip_bf16 *p = (void *)(scratch + at->p), *d_s = (void *)(scratch + at->d_s);
    dip_bf16 *d_s_rows = (void *)(scratch + at->d_s_rows);
    const vec factor = vec_all(scale * log2_e), scale_vec = vec_all(scale);
    for (int64_t i = 0; i < block->n; i += 2 * LANES) {
        vec shift[2], mean[2], pairs[2][LANES];
        __m512i even = _mm512_setzero_si512();
        for (int64_t half = 0; half < 2; half++) {
            shift[half] = vec_load(block->shift + i + half * LANES);
            mean[half] = vec_load(block->mean_d_p + i + half * LANES);
        }
        for (int64_t l = 0; l < STRIP; l++) {
            /* The first queries do not see this key. Columns past the block are zero in what p
             * and d_s multiply, and exist to the next multiple of 16 alone. */
            const int64_t hidden = causal ? key + l - (block->first + i) : 0;
            __m512i p_l = _mm512_setzero_si512(), d_s_l = _mm512_setzero_si512();
            if (key + l < n_keys && hidden < 2 * LANES) {
                uint32_t seen = hidden > 0 ? 0xffffffffu << hidden : 0xffffffffu;
                if (block->n - i <= LANES) seen &= 0xffffu;
                vec x[2], d_x[2];
                for (int64_t half = 0; half < 2; half++) {
                    const int64_t at_li = l * MAX_BLOCK + i + half * LANES;
                    const __mmask16 mask = (__mmask16)(seen >> (half * LANES));
                    vec score = _mm512_maskz_loadu_ps(mask, s + at_li);
                    vec d_score = _mm512_maskz_loadu_ps(mask, d_p + at_li);
                    vec e = exp2_vec(_mm512_fmsub_ps(score, factor, shift[half]));
                    x[half] = _mm512_maskz_mov_ps(mask, e);
                    d_x[half] = vec_mul(vec_mul(x[half], vec_sub(d_score, mean[half])), scale_vec);
                    d_x[half] = _mm512_maskz_mov_ps(mask, d_x[half]);
                }
                p_l = (__m512i)_mm512_cvtne2ps_pbh(x[1], x[0]);
                d_s_l = (__m512i)_mm512_cvtne2ps_pbh(d_x[1], d_x[0]);
            }
            _mm512_store_si512(p + l * MAX_BLOCK + i, p_l);
            _mm512_store_si512(d_s + l * MAX_BLOCK + i, d_s_l);
            if (l % 2 == 0) {
                even = d_s_l;
                continue;
            }
            pairs[0][l / 2] = _mm512_castsi512_ps(
                tile_pair(_mm512_castsi512_si256(even), _mm512_castsi512_si256(d_s_l)));
            pairs[1][l / 2] = _mm512_castsi512_ps(
                tile_pair(_mm512_extracti64x4_epi64(even, 1), _mm512_extracti64x4_epi64(d_s_l, 1)));
        }
        for (int64_t half = 0; half < 2; half++) {
            dip_bf16 *rows = d_s_rows + (i + half * LANES) * at->keys + key;
            vec_transpose(pairs[half]);
            for (int64_t l = 0; l < LANES; l++)
                _mm512_store_si512(rows + l * at->keys, _mm512_castps_si512(pairs[half][l]));
        }
    }
}

static float dot(const dip_bf16 *a, const dip_bf16 *b, int64_t d)
{
    const int64_t whole = d / LANES * LANES, tail = d - whole;
    vec sum = vec_zero();
    for (int64_t j = 0; j < whole; j += LANES)
        sum = vec_fma(vec_load_bf16(a + j), vec_load_bf16(b + j), sum);
    if (tail)
        sum = vec_fma(vec_load_bf16_n(a + whole, tail), vec_load_bf16_n(b + whole, tail), sum);
    return vec_sum(sum);
}

static void backward_block(dip_bf16 *d_qkv, const dip_bf16 *d_out, const dip_bf16 *out,
                           const float *lse, char *scratch, int64_t first, int64_t n,
                           int64_t length, dip_attention_shape shape)
{
    const int64_t d = shape.head_size, c = shape.n_heads * d;
    const tile_layout at = tile_layout_of(shape);
    const int64_t n_keys = shape.causal ? first + n : length, width = round_up(d, 16);
    const int64_t n_16 = round_up(n, 16), n_32 = round_up(n, 32);
    const dip_bf16 *q = (dip_bf16 *)(void *)(scratch + at.q) + first * at.d;
    const dip_bf16 *k = (void *)(scratch + at.k), *v = (void *)(scratch + at.v);
    const uint32_t *k_pairs = (void *)(scratch + at.k_pairs);
    float *d_k = (void *)(scratch + at.d_k), *d_v = (void *)(scratch + at.d_v);
    dip_bf16 *d_o = (void *)(scratch + at.d_o);
    uint32_t *q_across = (void *)(scratch + at.q_across), *q_pairs = (void *)(scratch + at.q_pairs);
    uint32_t *d_o_across = (void *)(scratch + at.d_o_across);
    uint32_t *d_o_pairs = (void *)(scratch + at.d_o_pairs);
    float *d_q = (void *)(scratch + at.d_q);
    float *s = (void *)(scratch + at.s), *d_p = (void *)(scratch + at.d_p);
    const dip_bf16 *p = (void *)(scratch + at.p), *d_s = (void *)(scratch + at.d_s);
    const dip_bf16 *d_s_rows = (void *)(scratch + at.d_s_rows);
    const float scale = 1.0f / sqrtf((float)d);

    query_block block = {.first = first, .n = n};
    for (int64_t i = 0; i < n; i++) {
        block.shift[i] = lse[(first + i) * shape.n_heads] * log2_e;
        block.mean_d_p[i] = dot(d_out + (first + i) * c, out + (first + i) * c, d);
    }
    tile_rows(d_o, at.d, d_out + first * c, c, n, n_32, d);
    tile_across(q_across, MAX_BLOCK, q, n_32, at.d);
    tile_across(d_o_across, MAX_BLOCK, d_o, n_32, at.d);
    tile_pairs(q_pairs, q, n_32, at.d);
    tile_pairs(d_o_pairs, d_o, n_32, at.d);

    for (int64_t key = 0; key < n_keys; key += STRIP) {
        const int64_t m = smaller(STRIP, round_up(n_keys - key, 16));
        tile_product(s, MAX_BLOCK, k + key * at.d, at.d, q_across, MAX_BLOCK, m, n_16, at.d, 0);
        tile_product(d_p, MAX_BLOCK, v + key * at.d, at.d, d_o_across, MAX_BLOCK, m, n_16, at.d, 0);
        softmax_strip_backward(&at, scratch, &block, key, n_keys, scale, shape.causal);
        /* Blocks before this one saw all keys, or with a causal mask those before `first`. */
        const int add = shape.causal ? key < first : first > 0;
        tile_product(d_v + key * at.d, at.d, p, MAX_BLOCK, d_o_pairs, at.d, m, width, n_32, add);
        tile_product(d_k + key * at.d, at.d, d_s, MAX_BLOCK, q_pairs, at.d, m, width, n_32, add);
    }
    tile_product(d_q, at.d, d_s_rows, at.keys, k_pairs, at.d, n_16, width, round_up(n_keys, 32), 0);
    put(d_qkv + first * 3 * c, 3 * c, d_q, at.d, n, d, NULL);
}

static void backward_head(dip_bf16 *d_qkv, const dip_bf16 *d_out, const dip_bf16 *qkv,
                          const dip_bf16 *out, const float *lse, char *scratch, int64_t length,
                          dip_attention_shape shape)
{
    const int64_t d = shape.head_size, c = shape.n_heads * d, row = 3 * c;
    const tile_layout at = tile_layout_of(shape);
    const int64_t padded = round_up(length, 32);
    dip_bf16 *q = (void *)(scratch + at.q), *k = (void *)(scratch + at.k);
    dip_bf16 *v = (void *)(scratch + at.v);
    float *d_k = (void *)(scratch + at.d_k), *d_v = (void *)(scratch + at.d_v);
    tile_rows(q, at.d, qkv, row, length, padded, d);
    tile_rows(k, at.d, qkv + c, row, length, padded, d);
    tile_rows(v, at.d, qkv + 2 * c, row, length, padded, d);
    tile_pairs((void *)(scratch + at.k_pairs), k, padded, at.d);

    const int64_t step = length <= MAX_BLOCK ? MAX_BLOCK : 64;
    for (int64_t first = 0; first < length; first += step)
        backward_block(d_qkv, d_out, out, lse, scratch, first, smaller(step, length - first),
                       length, shape);
    put(d_qkv + c, row, d_k, at.d, length, d, NULL);
    put(d_qkv + 2 * c, row, d_v, at.d, length, d, NULL);
}

static int threads_worth(const dip_exec *exec, dip_attention_shape shape)
{
    return threads_for(exec, shape.n_rows * shape.n_heads * shape.head_size *
                                 (shape.max_length / 32 + 1));
}

dip_status dip_amx_attention_forward_bf16(dip_exec *exec, void *out, float *lse, const void *qkv,
                                          const int32_t *offsets, dip_attention_shape shape)
{
    const int64_t d = shape.head_size, c = shape.n_heads * d;
    const size_t stride = tile_layout_of(shape).n_bytes;
    DIP_TRY(
        need_workspace(exec, "attention_forward", dip_amx_attention_workspace_bf16(exec, shape)));
#pragma omp parallel num_threads(threads_worth(exec, shape))
    {
        tiles_begin();
#pragma omp for schedule(dynamic, 2)
        for (int64_t task = 0; task < shape.n_sequences * shape.n_heads; task++) {
            const int64_t b = task / shape.n_heads, h = task % shape.n_heads, first = offsets[b];
            forward_head((dip_bf16 *)out + first * c + h * d, lse + first * shape.n_heads + h,
                         (const dip_bf16 *)qkv + first * 3 * c + h * d,
                         (char *)exec->workspace + (size_t)omp_get_thread_num() * stride,
                         offsets[b + 1] - first, shape);
        }
        tiles_end();
    }
    return DIP_OK;
}

dip_status dip_amx_attention_backward_bf16(dip_exec *exec, void *d_qkv, const void *d_out,
                                           const void *qkv, const void *out, const float *lse,
                                           const int32_t *offsets, dip_attention_shape shape)
{
    const int64_t d = shape.head_size, c = shape.n_heads * d;
    const size_t stride = tile_layout_of(shape).n_bytes;
    DIP_TRY(
        need_workspace(exec, "attention_backward", dip_amx_attention_workspace_bf16(exec, shape)));
#pragma omp parallel num_threads(threads_worth(exec, shape))
    {
        tiles_begin();
#pragma omp for schedule(dynamic, 2)
        for (int64_t task = 0; task < shape.n_sequences * shape.n_heads; task++) {
            const int64_t b = task / shape.n_heads, h = task % shape.n_heads, first = offsets[b];
            backward_head((dip_bf16 *)d_qkv + first * 3 * c + h * d,
                          (const dip_bf16 *)d_out + first * c + h * d,
                          (const dip_bf16 *)qkv + first * 3 * c + h * d,
                          (const dip_bf16 *)out + first * c + h * d,
                          lse + first * shape.n_heads + h,
                          (char *)exec->workspace + (size_t)omp_get_thread_num() * stride,
                          offsets[b + 1] - first, shape);
        }
        tiles_end();
    }
    return DIP_OK;
}
