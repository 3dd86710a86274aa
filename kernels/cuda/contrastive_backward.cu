/* Backward: for a part of the pairs at a time, at most SIDE x SIDE, first
 *     g = softmax over rows + softmax over columns - 2 T        (2 B G, from logits made again)
 * rounded to T, then d_u += f g v and d_v += f g^T u with f = scale / (2 B), plain products. A
 * part's g goes through memory once; in exchange the logits are made once for both gradients and
 * not twice, and every product is made of tiles in which tensor cores are what one waits for. */
#include "kernels/cuda/contrastive.cuh"

namespace contrastive
{
/* ---- gradients of the logits -------------------------------------------------------------- */

template <class S> struct gradient_arguments {
    matrix<typename S::T> u, v;
    pair_rules rules;
    const float *factors, *row_lse, *col_lse;
    int top, left, n_column_tiles; /* of the part */
    int n_tiles;                   /* of a block */
    typename S::T *gradients; /* [.., stride]; written in whole tiles, 0 where there is no pair */
    int64_t stride;
    double *sums;    /* [blocks] sum of g d */
    bool accumulate; /* to sums */
};

/* Two neighbours in a row for each lane: sums j and j + 1 of one row, in columns 8 j + 2 t .. and
 * 8 (j + 1) + 2 t .. */
__device__ __forceinline__ void put_pairs(float *row, int t, float2 low, float2 high)
{
    *(float2 *)(row + 2 * t) = low;
    *(float2 *)(row + 8 + 2 * t) = high;
}

/* For bf16, two lanes exchange halves so that each has four neighbours and the four lanes of a row
 * write 32 bytes together. */
__device__ __forceinline__ void put_pairs(__nv_bfloat16 *row, int t, float2 low, float2 high)
{
    const pack<__nv_bfloat16, 2> packed[2] = {
        {{__float2bfloat16_rn(low.x), __float2bfloat16_rn(low.y)}},
        {{__float2bfloat16_rn(high.x), __float2bfloat16_rn(high.y)}}};
    uint32_t words[2];
    memcpy(words, packed, sizeof words);
    const bool odd = t % 2 != 0;
    const uint32_t got = __shfl_xor_sync(ALL_LANES, odd ? words[0] : words[1], 1);
    const uint2 out = odd ? make_uint2(got, words[1]) : make_uint2(words[0], got);
    *(uint2 *)(row + (odd ? 8 : 0) + t / 2 * 4) = out;
}

/* Log-sum-exps of this thread's rows and columns in a tile, in units. */
template <class S> struct tile_lse {
    float rows[2 * S::M16], columns[2 * S::N8];
    float largest, smallest; /* of the warp */

    __device__ __forceinline__ tile_lse(const gradient_arguments<S> &x, const tile_place<S> &at,
                                        int top, int left)
    {
        const float units = (float)exp_base<typename S::T>::UNITS;
        const int last = x.rules.batch - 1;
        largest = -INFINITY;
        smallest = INFINITY;
#pragma unroll
        for (int i = 0; i < 2 * S::M16; i++) {
            const int row = top + at.row(i);
            rows[i] = __ldg(x.row_lse + (row < last ? row : last)) * units;
            largest = fmaxf(largest, rows[i]);
            smallest = fminf(smallest, rows[i]);
        }
#pragma unroll
        for (int j = 0; j < 2 * S::N8; j++) {
            const int column = left + at.column(j);
            columns[j] = __ldg(x.col_lse + (column < last ? column : last)) * units;
            largest = fmaxf(largest, columns[j]);
            smallest = fminf(smallest, columns[j]);
        }
        largest = warp_max(largest);
        smallest = -warp_max(-smallest);
    }
};

/* Dot products d of a tile become gradients in memory. Returns this thread's sum of g d.
 *
 * exp(L - r) + exp(L - c), with log-sum-exps r of the row and c of the column, is
 * exp(L - m) (exp(m - r) + exp(m - c)). NARROW: all r and c of the warp are close together, and m
 * is the largest of them; then one exponential for each pair does. SPECIAL: there are positives, or
 * pairs that do not count. */
template <class S, bool NARROW, bool SPECIAL>
__device__ __forceinline__ float put_gradients(const gradient_arguments<S> &x,
                                               const tile_place<S> &at, const tile_sums<S> &d,
                                               tile_lse<S> &lse, int first_row, int first_column)
{
    typedef typename S::T T;
    constexpr int ROWS = 2 * S::M16, COLUMNS = 2 * S::N8;
    const float units = x.factors[1];
    tile_pairs<S> pairs(x.rules, at, x.left + first_column);
    float sum = 0.0f;
    if (NARROW)
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) lse.columns[j] = power<T>(lse.largest - lse.columns[j]);
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        const int row = first_row + at.row(i);
        float g[COLUMNS], target = 2.0f;
        if (NARROW) lse.rows[i] = power<T>(lse.largest - lse.rows[i]);
        if (SPECIAL) {
            pairs.set_row(x.top + row);
            if (x.rules.positive && x.top + row < x.rules.batch)
                target *= __ldg(x.rules.inv_counts + x.top + row);
        }
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
            const float of_pair = d[i / 2][j / 2][i % 2 * 2 + j % 2];
            if (NARROW)
                g[j] =
                    power<T>(fmaf(of_pair, units, -lse.largest)) * (lse.rows[i] + lse.columns[j]);
            else
                g[j] = power<T>(fmaf(of_pair, units, -lse.rows[i])) +
                       power<T>(fmaf(of_pair, units, -lse.columns[j]));
            if (SPECIAL) {
                bool counts, positive;
                pairs.get(j, counts, positive);
                g[j] = counts ? g[j] - (positive ? target : 0.0f) : 0.0f;
            }
            sum = fmaf(g[j], of_pair, sum);
        }
        T *out = x.gradients + row * x.stride + first_column + at.warp_n * S::N8 * 8;
#pragma unroll
        for (int j = 0; j < COLUMNS; j += 4)
            put_pairs(out + 4 * j, at.t, make_float2(g[j], g[j + 1]),
                      make_float2(g[j + 2], g[j + 3]));
    }
    return sum;
}

/* blockIdx.x: a tile's rows of the part; blockIdx.y: n_tiles tiles beside each other. */
template <class S>
static __global__ void __launch_bounds__(S::THREADS) logit_gradients(const gradient_arguments<S> x)
{
    DIP_DYNAMIC_SHARED(shared);
    __shared__ double of_warps[S::THREADS / WARP];
    const tile_place<S> at;
    const int first_row = (int)blockIdx.x * S::M, first = (int)blockIdx.y * x.n_tiles;
    const int n_tiles = x.n_column_tiles - first < x.n_tiles ? x.n_column_tiles - first : x.n_tiles;
    const int top = x.top + first_row;
    tile_pipeline<S, false, false> tiles(shared, x.u, x.v, top, x.left + first * S::N,
                                         x.u.n_columns, n_tiles);
    double total = 0.0;
    for (int tile = first; tile < first + n_tiles; tile++) {
        const int first_column = tile * S::N, left = x.left + first_column;
        tile_sums<S> d;
        float sum;
        tiles.next(d);
        tile_lse<S> lse(x, at, top, left);
        if (has_special_pairs<S>(x.rules, top, left))
            sum = put_gradients<S, false, true>(x, at, d, lse, first_row, first_column);
        else if (lse.largest - lse.smallest < NARROW_WINDOW * (float)exp_base<typename S::T>::UNITS)
            sum = put_gradients<S, true, false>(x, at, d, lse, first_row, first_column);
        else
            sum = put_gradients<S, false, false>(x, at, d, lse, first_row, first_column);
        total += (double)sum;
    }

    total = warp_sum(total);
    if (threadIdx.x % WARP == 0) of_warps[threadIdx.x / WARP] = total;
    __syncthreads();
    if (threadIdx.x > 0) return;
    double *sum = x.sums + blockIdx.y * gridDim.x + blockIdx.x;
    total = x.accumulate ? *sum : 0.0;
    for (int w = 0; w < S::THREADS / WARP; w++) total += of_warps[w];
    *sum = total;
}

/* ---- gradients of the features ------------------------------------------------------------ */

/* out[i] (+)= factor * (row or column i of g) . features. */
template <typename T> struct feature_gradient {
    float *out; /* [n, embed] */
    int n;
    matrix<T> features;
    bool accumulate;
};

template <typename T> struct feature_arguments {
    matrix<T> gradients; /* of the part, whole tiles */
    feature_gradient<T> u, v;
    int embed;
    bool in_pairs; /* two floats of a row may be written at once */
    const float *factors;
    float per_pair; /* 1 / (2 B) */
    unsigned n_u_blocks;
};

template <class S, bool OF_V>
__device__ __forceinline__ void make_feature_gradient(unsigned char *shared,
                                                      const feature_arguments<typename S::T> &x,
                                                      unsigned block)
{
    const feature_gradient<typename S::T> &of = OF_V ? x.v : x.u;
    const tile_place<S> at;
    const unsigned n_across = (unsigned)((x.embed + S::N - 1) / S::N);
    const int top = (int)(block / n_across) * S::M, left = (int)(block % n_across) * S::N;
    tile_pipeline<S, OF_V, true> tiles(shared, x.gradients, of.features, top, left,
                                       OF_V ? x.u.n : x.v.n, 1);
    tile_sums<S> sums;
    tiles.next(sums);

    const float factor = x.factors[0] * x.per_pair;
#pragma unroll
    for (int i = 0; i < 2 * S::M16; i++) {
        const int row = top + at.row(i);
        if (row >= of.n) continue;
        float *out = of.out + (int64_t)row * x.embed;
#pragma unroll
        for (int j = 0; j < S::N8; j++) {
            const int column = left + at.column(2 * j);
            const float *pair = &sums[i / 2][j][i % 2 * 2];
            if (x.in_pairs && column < x.embed) {
                float2 value = make_float2(factor * pair[0], factor * pair[1]);
                if (of.accumulate) {
                    const float2 before = *(const float2 *)(out + column);
                    value.x += before.x;
                    value.y += before.y;
                }
                *(float2 *)(out + column) = value;
            } else if (!x.in_pairs) {
#pragma unroll
                for (int e = 0; e < 2; e++)
                    if (column + e < x.embed)
                        out[column + e] =
                            (of.accumulate ? out[column + e] : 0.0f) + factor * pair[e];
            }
        }
    }
}

/* The tiles of both, those of d_u first; tiles of the same rows are neighbours. */
template <class S>
static __global__ void __launch_bounds__(S::THREADS)
    feature_gradients(const feature_arguments<typename S::T> x)
{
    DIP_DYNAMIC_SHARED(shared);
    if (blockIdx.x < x.n_u_blocks)
        make_feature_gradient<S, false>(shared, x, blockIdx.x);
    else
        make_feature_gradient<S, true>(shared, x, blockIdx.x - x.n_u_blocks);
}

/* d_log_scale = scale / (2 B) sum of g d; 0 for no sums at all. */
static __global__ void __launch_bounds__(SUM_THREADS)
    finish_log_scale(float *__restrict__ d_log_scale, const double *__restrict__ sums, int n_sums,
                     const float *__restrict__ factors, double per_pair)
{
    double sum = 0.0;
    for (int i = (int)threadIdx.x; i < n_sums; i += SUM_THREADS) sum += sums[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        d_log_scale[0] = n_sums > 0 ? (float)(sum * (double)factors[0] * per_pair) : 0.0f;
}

/* ---- host ------------------------------------------------------------------------------- */

struct part {
    int top, left, n_rows, n_columns;
};

/* One part, from the arguments that all have in common. */
template <class S>
static void launch_part(cudaStream_t stream, const part &at, gradient_arguments<S> logits,
                        feature_arguments<typename S::T> features)
{
    const int n_row_tiles = (int)ceil_div(at.n_rows, S::M);
    const int n_column_tiles = (int)ceil_div(at.n_columns, S::N);
    logits.top = at.top;
    logits.left = at.left;
    logits.n_column_tiles = n_column_tiles;
    logits.accumulate = at.top + at.left > 0;
    const dim3 grid((unsigned)n_row_tiles, (unsigned)ceil_div(n_column_tiles, logits.n_tiles));
    DIP_LAUNCH(logit_gradients<S>, grid, S::THREADS, S::SHARED_BYTES, stream)(logits);

    features.gradients.n_rows = n_row_tiles * S::M;
    features.gradients.n_columns = n_column_tiles * S::N;
    features.u.out += (int64_t)at.top * features.embed;
    features.u.n = at.n_rows;
    features.u.features.at += (int64_t)at.left * features.u.features.stride;
    features.u.features.n_rows = at.n_columns;
    features.u.accumulate = at.left > 0;
    features.v.out += (int64_t)at.left * features.embed;
    features.v.n = at.n_columns;
    features.v.features.at += (int64_t)at.top * features.v.features.stride;
    features.v.features.n_rows = at.n_rows;
    features.v.accumulate = at.top > 0;
    const int64_t n_across = ceil_div(features.embed, S::N);
    features.n_u_blocks = (unsigned)(n_row_tiles * n_across);
    const unsigned n_v_blocks = (unsigned)(ceil_div(at.n_columns, S::M) * n_across);
    DIP_LAUNCH(feature_gradients<S>, features.n_u_blocks + n_v_blocks, S::THREADS, S::SHARED_BYTES,
               stream)
    (features);
}

template <class S>
static dip_status backward_parts(dip_exec *exec, float *d_u, float *d_v, float *d_log_scale,
                                 const float *row_lse, const float *col_lse,
                                 const workspace<typename S::T> &at, const pair_rules &rules,
                                 int embed)
{
    typedef typename S::T T;
    const cudaStream_t stream = dip_cuda_of(exec)->stream;
    const int batch = rules.batch, side = (int)equal_parts(batch, SIDE);
    const matrix<T> u = {at.u, at.stride, batch, at.stride};
    const matrix<T> v = {at.v, at.stride, batch, at.stride};
    static_assert((SIDE / S::M) * (SIDE / S::N) * sizeof(double) <= DIP_CUDA_PARTIALS_BYTES, "");
    double *sums = (double *)dip_cuda_of(exec)->partials;

    /* The first part is the largest; its blocks have as many sums as there are. */
    const int64_t n_row_tiles = ceil_div(batch < side ? batch : side, S::M);
    const int64_t n_column_tiles = ceil_div(batch < side ? batch : side, S::N);
    gradient_arguments<S> logits = {};
    logits.u = u;
    logits.v = v;
    logits.rules = rules;
    logits.factors = at.factors;
    logits.row_lse = row_lse;
    logits.col_lse = col_lse;
    logits.n_tiles = tiles_a_block(n_row_tiles * n_column_tiles);
    logits.gradients = at.gradients;
    logits.stride = side;
    logits.sums = sums;
    feature_arguments<T> features = {};
    features.gradients.at = at.gradients;
    features.gradients.stride = side;
    features.u.out = d_u;
    features.u.features = v;
    features.v.out = d_v;
    features.v.features = u;
    features.embed = embed;
    features.in_pairs = embed % 2 == 0 && aligned(d_u, d_v);
    features.factors = at.factors;
    features.per_pair = 0.5f / (float)batch;

    DIP_TRY_CUDA(DIP_ALLOW_SHARED(logit_gradients<S>, S::SHARED_BYTES));
    DIP_TRY_CUDA(DIP_ALLOW_SHARED(feature_gradients<S>, S::SHARED_BYTES));
    for (int top = 0; top < batch; top += side)
        for (int left = 0; left < batch; left += side) {
            const int n_rows = batch - top < side ? batch - top : side;
            const int n_columns = batch - left < side ? batch - left : side;
            launch_part<S>(stream, part{top, left, n_rows, n_columns}, logits, features);
        }
    const int n_sums = (int)(n_row_tiles * ceil_div(n_column_tiles, logits.n_tiles));
    DIP_LAUNCH(finish_log_scale, 1, SUM_THREADS, 0, stream)
    (d_log_scale, sums, n_sums, at.factors, 0.5 / (double)batch);
    return DIP_OK;
}

template <typename T>
static dip_status backward(dip_exec *exec, float *d_u, float *d_v, float *d_log_scale,
                           const float *u, const float *v, const float *row_lse,
                           const float *col_lse, dip_contrastive_shape shape)
{
    if (shape.batch == 0) {
        DIP_LAUNCH(finish_log_scale, 1, SUM_THREADS, 0, dip_cuda_of(exec)->stream)
        (d_log_scale, NULL, 0, NULL, 0.0);
        return DIP_CUDA_LAUNCHED(exec, "contrastive_backward", "[0, %lld]", (long long)shape.embed);
    }
    workspace<T> at;
    pair_rules rules;
    const int embed = (int)shape.embed;
    DIP_TRY(prepare<T>(exec, "contrastive_backward", &at, &rules, u, v, shape));
    if constexpr (sizeof(T) == sizeof(float))
        DIP_TRY(backward_parts<float_tile>(exec, d_u, d_v, d_log_scale, row_lse, col_lse, at, rules,
                                           embed));
    else if (uses_large_tiles(exec, shape.batch))
        DIP_TRY(backward_parts<large_tile>(exec, d_u, d_v, d_log_scale, row_lse, col_lse, at, rules,
                                           embed));
    else
        DIP_TRY(backward_parts<small_tile>(exec, d_u, d_v, d_log_scale, row_lse, col_lse, at, rules,
                                           embed));
    return DIP_CUDA_LAUNCHED(exec, "contrastive_backward", "[%lld, %lld]", (long long)shape.batch,
                             (long long)shape.embed);
}

} // namespace contrastive

/* ---- the ops ---------------------------------------------------------------------------- */

extern "C" {

dip_status dip_cuda_contrastive_backward_f32(dip_exec *exec, float *d_u, float *d_v,
                                             float *d_log_scale, const float *u, const float *v,
                                             const float *row_lse, const float *col_lse,
                                             dip_contrastive_shape shape)
{
    return contrastive::backward<float>(exec, d_u, d_v, d_log_scale, u, v, row_lse, col_lse, shape);
}

dip_status dip_cuda_contrastive_backward_bf16(dip_exec *exec, float *d_u, float *d_v,
                                              float *d_log_scale, const float *u, const float *v,
                                              const float *row_lse, const float *col_lse,
                                              dip_contrastive_shape shape)
{
    return contrastive::backward<__nv_bfloat16>(exec, d_u, d_v, d_log_scale, u, v, row_lse, col_lse,
                                                shape);
}

} /* extern "C" */
