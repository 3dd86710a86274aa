/* Forward: log-sum-exps of rows and columns in one sweep of the tiles. A tile gives each of its
 * rows and columns a pair (reference, sum); those of a band of rows are merged in a fixed order,
 * and the columns' results so far wait for the next band. */
#include "kernels/cuda/contrastive.cuh"

namespace contrastive
{
/* A tile's own: a row's pairs by warp from left to right, a column's by warp from top to bottom. */
template <class S> struct tile_results {
    float2 rows[S::WARPS_N][S::M], columns[S::WARPS_M][S::N];
    float positives[S::WARPS_N][S::M];
};

template <class S> struct sweep_arguments {
    matrix<typename S::T> u, v;
    pair_rules rules;
    const float *factors;
    int top;               /* first row of the band */
    int n_column_tiles;    /* of the batch */
    int n_tiles;           /* of a block */
    int64_t row_stride;    /* of row_partials and positives */
    int64_t column_stride; /* of column_partials */
    float2 *row_partials, *column_partials;
    float *positives, *target;
};

/* Sum x[0 .. N) over the lanes whose numbers differ in the bits HIGH .. LOW. Each of them is left
 * with its share of the sums in x[0 ..): those from share_begin on. Half of what is left changes
 * hands at each bit, so this takes few shuffles. */
template <int HIGH, int LOW, int N> __device__ __forceinline__ void sum_lanes(float *x)
{
    if constexpr (HIGH >= LOW) {
        const bool upper = ((int)threadIdx.x & HIGH) != 0;
#pragma unroll
        for (int i = 0; i < N / 2; i++) {
            const float give = upper ? x[i] : x[i + N / 2], keep = upper ? x[i + N / 2] : x[i];
            x[i] = keep + __shfl_xor_sync(ALL_LANES, give, HIGH);
        }
        sum_lanes<HIGH / 2, LOW, N / 2>(x);
    }
}

template <int HIGH, int LOW, int N> __device__ __forceinline__ int share_begin()
{
    if constexpr (HIGH >= LOW)
        return ((int)threadIdx.x & HIGH ? N / 2 : 0) + share_begin<HIGH / 2, LOW, N / 2>();
    else
        return 0;
}

/* Lanes of one g hold a row together, those of one t a column. */
enum { ROW_HIGH = 2, ROW_LOW = 1, COLUMN_HIGH = 16, COLUMN_LOW = 4 };

/* A lane's share of a warp's rows and columns. */
template <class S> struct tile_share {
    static constexpr int ROWS = S::M16 / 2, COLUMNS = S::N8 / 4;
    float2 rows[ROWS], columns[COLUMNS];
};

/* `sum` of exponentials against a reference that is not larger than those before. */
template <typename T>
__device__ __forceinline__ void take_sum(float2 &pair, float reference, float sum)
{
    if (pair.y == 0.0f)
        pair = make_float2(sum == 0.0f ? LOWEST : reference, sum);
    else
        pair.y += sum * power<T>(reference - pair.x);
}

/* Add the exponentials against one reference: all of them or, leaving the others in d, those in a
 * window below it. Returns the largest d this thread has left. */
template <class S, bool ALL>
__device__ __forceinline__ float sum_window(tile_share<S> &share, tile_sums<S> &d, float units,
                                            float reference)
{
    typedef typename S::T T;
    constexpr int ROWS = 2 * S::M16, COLUMNS = 2 * S::N8;
    constexpr float LIMIT = -WINDOW * (float)exp_base<T>::UNITS;
    float rows[ROWS], columns[COLUMNS];
    float left = LOWEST;
#pragma unroll
    for (int i = 0; i < ROWS; i++) rows[i] = 0.0f;
#pragma unroll
    for (int j = 0; j < COLUMNS; j++) columns[j] = 0.0f;
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
            float &of_pair = d[i / 2][j / 2][i % 2 * 2 + j % 2];
            const float x = fmaf(of_pair, units, -reference);
            float y = power<T>(x);
            if (!ALL) {
                const bool below = x <= LIMIT;
                y = below ? 0.0f : y;
                of_pair = below ? of_pair : NOT_A_PAIR;
                left = fmaxf(left, of_pair);
            }
            rows[i] += y;
            columns[j] += y;
        }
    sum_lanes<ROW_HIGH, ROW_LOW, ROWS>(rows);
    sum_lanes<COLUMN_HIGH, COLUMN_LOW, COLUMNS>(columns);
#pragma unroll
    for (int i = 0; i < tile_share<S>::ROWS; i++) take_sum<T>(share.rows[i], reference, rows[i]);
#pragma unroll
    for (int j = 0; j < tile_share<S>::COLUMNS; j++)
        take_sum<T>(share.columns[j], reference, columns[j]);
    return left;
}

template <class S> __device__ __forceinline__ float largest_of(const tile_sums<S> &d)
{
    float largest = LOWEST;
#pragma unroll
    for (int i = 0; i < S::M16; i++)
#pragma unroll
        for (int j = 0; j < S::N8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) largest = fmaxf(largest, d[i][j][e]);
    return warp_max(largest);
}

template <class S> __device__ __forceinline__ float smallest_of(const tile_sums<S> &d)
{
    float smallest = -LOWEST;
#pragma unroll
    for (int i = 0; i < S::M16; i++)
#pragma unroll
        for (int j = 0; j < S::N8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) smallest = fminf(smallest, d[i][j][e]);
    return -warp_max(-smallest);
}

/* One warp's part of a tile: pairs of its rows and its columns; d is used up. largest and smallest
 * are the ends of a range that d lies in, but for pairs that do not count.
 *
 * One exponential serves both the row and the column of a logit, because they have the same
 * reference. If the logits are spread more widely than WINDOW, that would make nothing of those of
 * a row that are all small: then there are several references, each for what lies in the window
 * below it. */
template <class S>
__device__ __forceinline__ void sum_exponentials(tile_results<S> &out, const tile_place<S> &at,
                                                 tile_sums<S> &d, float scale, float units,
                                                 float largest, float smallest)
{
    tile_share<S> share;
#pragma unroll
    for (float2 &pair : share.rows) pair = make_float2(LOWEST, 0.0f);
#pragma unroll
    for (float2 &pair : share.columns) pair = make_float2(LOWEST, 0.0f);
    if ((largest - smallest) * scale < WINDOW) {
        sum_window<S, true>(share, d, units, largest * units);
    } else {
        float left = largest_of<S>(d);
        do {
            left = warp_max(sum_window<S, false>(share, d, units, left * units));
        } while (left > LOWEST);
    }
    const int row = share_begin<ROW_HIGH, ROW_LOW, 2 * S::M16>();
    const int column = share_begin<COLUMN_HIGH, COLUMN_LOW, 2 * S::N8>();
#pragma unroll
    for (int i = 0; i < tile_share<S>::ROWS; i++)
        out.rows[at.warp_n][at.row(row + i)] = share.rows[i];
#pragma unroll
    for (int j = 0; j < tile_share<S>::COLUMNS; j++)
        out.columns[at.warp_m][at.column(column + j)] = share.columns[j];
}

/* Positives go where they belong, and pairs that do not count out of d. */
template <class S>
__device__ __forceinline__ void treat_pairs(tile_results<S> &out, tile_sums<S> &d,
                                            const sweep_arguments<S> &x, const tile_place<S> &at,
                                            int top, int left, float scale)
{
    constexpr int ROWS = 2 * S::M16;
    tile_pairs<S> pairs(x.rules, at, left);
    float sums[ROWS]; /* of positives */
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        sums[i] = 0.0f;
        pairs.set_row(top + at.row(i));
#pragma unroll
        for (int j = 0; j < 2 * S::N8; j++) {
            float &of_pair = d[i / 2][j / 2][i % 2 * 2 + j % 2];
            bool counts, positive;
            pairs.get(j, counts, positive);
            sums[i] += positive ? of_pair : 0.0f;
            of_pair = counts ? of_pair : NOT_A_PAIR;
        }
    }
    if (x.rules.positive) {
        sum_lanes<ROW_HIGH, ROW_LOW, ROWS>(sums);
        const int begin = share_begin<ROW_HIGH, ROW_LOW, ROWS>();
#pragma unroll
        for (int i = 0; i < ROWS / 4; i++) out.positives[at.warp_n][at.row(begin + i)] = sums[i];
    } else {
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            const int row = top + at.row(i), column = row - left - at.column(0) + 2 * at.t;
            const bool own = column >= 0 && column < S::N8 * 8 && column % 8 / 2 == at.t;
            if (own && row < x.rules.batch) x.target[row] = scale * sums[i];
        }
    }
}

struct pair_sum {
    float reference;
    double sum;
};

template <typename T>
__device__ __forceinline__ void merge(pair_sum &into, float reference, double sum)
{
    if (reference > into.reference) {
        into.sum = into.sum * (double)power<T>(into.reference - reference) + sum;
        into.reference = reference;
    } else {
        into.sum += sum * (double)power<T>(reference - into.reference);
    }
}

/* blockIdx.x: a tile's rows of the band; blockIdx.y: n_tiles tiles beside each other. */
template <class S>
static __global__ void __launch_bounds__(S::THREADS) sweep(const sweep_arguments<S> x)
{
    typedef typename S::T T;
    DIP_DYNAMIC_SHARED(shared);
    __shared__ tile_results<S> results;
    const tile_place<S> at;
    const float scale = x.factors[0], units = x.factors[1];
    const int row_tile = (int)blockIdx.x, top = x.top + row_tile * S::M;
    const int first = (int)blockIdx.y * x.n_tiles;
    const int n_tiles = x.n_column_tiles - first < x.n_tiles ? x.n_column_tiles - first : x.n_tiles;
    tile_pipeline<S, false, false> tiles(shared, x.u, x.v, top, first * S::N, x.u.n_columns,
                                         n_tiles);
    for (int tile = first; tile < first + n_tiles; tile++) {
        const int left = tile * S::N;
        tile_sums<S> d;
        tiles.next(d);
        const float largest = largest_of<S>(d), smallest = smallest_of<S>(d);
        if (has_special_pairs<S>(x.rules, top, left))
            treat_pairs<S>(results, d, x, at, top, left, scale);
        sum_exponentials<S>(results, at, d, scale, units, largest, smallest);
        __syncthreads();

        for (int i = (int)threadIdx.x; i < S::M + S::N; i += S::THREADS) {
            const bool is_row = i < S::M;
            pair_sum all = {LOWEST, 0.0};
            for (int w = 0; w < (is_row ? S::WARPS_N : S::WARPS_M); w++) {
                const float2 pair = is_row ? results.rows[w][i] : results.columns[w][i - S::M];
                merge<T>(all, pair.x, (double)pair.y);
            }
            const float2 out = make_float2(all.reference, (float)all.sum);
            if (is_row)
                x.row_partials[tile * x.row_stride + row_tile * S::M + i] = out;
            else
                x.column_partials[row_tile * x.column_stride + left + i - S::M] = out;
            if (is_row && x.rules.positive) {
                float sum = 0.0f;
                for (int w = 0; w < S::WARPS_N; w++) sum += results.positives[w][i];
                x.positives[tile * x.row_stride + row_tile * S::M + i] = sum;
            }
        }
    }
}

enum { MERGE_SLICES = 8, MERGE_THREADS = MERGE_SLICES * WARP };

struct merge_arguments {
    float *lse;             /* [n], or NULL: not all partials are there yet */
    float2 *running;        /* [n] what was merged before, and will be; or NULL */
    bool is_first;          /* nothing was merged before */
    const float2 *partials; /* [n_partials, stride] */
    int64_t stride;
    int n_partials, n;
    float *target;           /* [n] if there are positives to sum, else NULL */
    const float *positives;  /* [n_partials, stride] */
    const float *inv_counts; /* [n] */
    const float *factors;
};

/* Merge the partials of n rows or columns: a lane each, every eighth partial by one warp. */
template <typename T>
static __global__ void __launch_bounds__(MERGE_THREADS) merge_partials(const merge_arguments x)
{
    __shared__ float references[MERGE_SLICES][WARP];
    __shared__ double sums[MERGE_SLICES][WARP], positives[MERGE_SLICES][WARP];
    const int slice = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    const int i = (int)blockIdx.x * WARP + lane;
    pair_sum all = {LOWEST, 0.0};
    double positive = 0.0;
    if (i < x.n) {
        for (int p = slice; p < x.n_partials; p += MERGE_SLICES) {
            const float2 pair = x.partials[p * x.stride + i];
            merge<T>(all, pair.x, (double)pair.y);
            if (x.target) positive += (double)x.positives[p * x.stride + i];
        }
    }
    references[slice][lane] = all.reference;
    sums[slice][lane] = all.sum;
    positives[slice][lane] = positive;
    __syncthreads();
    if (slice > 0 || i >= x.n) return;
    for (int s = 1; s < MERGE_SLICES; s++) {
        merge<T>(all, references[s][lane], sums[s][lane]);
        positive += positives[s][lane];
    }
    if (x.running && !x.is_first) merge<T>(all, x.running[i].x, (double)x.running[i].y);
    if (x.running) x.running[i] = make_float2(all.reference, (float)all.sum);
    if (x.lse) x.lse[i] = (float)((double)all.reference / exp_base<T>::UNITS + log(all.sum));
    if (x.target) x.target[i] = (float)((double)x.factors[0] * positive * (double)x.inv_counts[i]);
}

template <typename T> static void launch_merge(cudaStream_t stream, const merge_arguments &x)
{
    DIP_LAUNCH(merge_partials<T>, (unsigned)ceil_div(x.n, WARP), MERGE_THREADS, 0, stream)(x);
}

/* Bands of rows, one after the other: all columns for BAND rows. */
template <class S>
static dip_status sweep_bands(dip_exec *exec, float *row_lse, float *col_lse, float *target,
                              const workspace<typename S::T> &at, const pair_rules &rules)
{
    typedef typename S::T T;
    const cudaStream_t stream = dip_cuda_of(exec)->stream;
    const int batch = rules.batch, band = (int)equal_parts(batch, BAND);
    const int n_column_tiles = (int)ceil_div(batch, S::N);
    const matrix<T> u = {at.u, at.stride, batch, at.stride};
    const matrix<T> v = {at.v, at.stride, batch, at.stride};
    sweep_arguments<S> x = {};
    x.u = u;
    x.v = v;
    x.rules = rules;
    x.factors = at.factors;
    x.n_column_tiles = n_column_tiles;
    x.row_stride = band;
    x.column_stride = padded(batch, PADDING);
    x.row_partials = at.row_partials;
    x.column_partials = at.column_partials;
    x.positives = at.positives;
    x.target = target;
    DIP_TRY_CUDA(DIP_ALLOW_SHARED(sweep<S>, S::SHARED_BYTES));
    for (int top = 0; top < batch; top += band) {
        const int n_rows = batch - top < band ? batch - top : band;
        const int n_row_tiles = (int)ceil_div(n_rows, S::M);
        x.top = top;
        x.n_tiles = tiles_a_block((int64_t)n_row_tiles * n_column_tiles);
        const dim3 grid((unsigned)n_row_tiles, (unsigned)ceil_div(n_column_tiles, x.n_tiles));
        DIP_LAUNCH(sweep<S>, grid, S::THREADS, S::SHARED_BYTES, stream)(x);

        merge_arguments rows = {};
        rows.lse = row_lse + top;
        rows.partials = at.row_partials;
        rows.stride = x.row_stride;
        rows.n_partials = n_column_tiles;
        rows.n = n_rows;
        if (rules.positive) {
            rows.target = target + top;
            rows.positives = at.positives;
            rows.inv_counts = rules.inv_counts + top;
            rows.factors = at.factors;
        }
        launch_merge<T>(stream, rows);
        merge_arguments columns = {};
        columns.lse = top + n_rows == batch ? col_lse : NULL;
        columns.running = at.running;
        columns.is_first = top == 0;
        columns.partials = at.column_partials;
        columns.stride = x.column_stride;
        columns.n_partials = n_row_tiles;
        columns.n = batch;
        launch_merge<T>(stream, columns);
    }
    return DIP_OK;
}

template <typename T>
static dip_status forward(dip_exec *exec, float *row_lse, float *col_lse, float *target,
                          const float *u, const float *v, dip_contrastive_shape shape)
{
    if (shape.batch == 0) return DIP_OK;
    workspace<T> at;
    pair_rules rules;
    DIP_TRY(prepare<T>(exec, "contrastive_forward", &at, &rules, u, v, shape));
    if constexpr (sizeof(T) == sizeof(float))
        DIP_TRY(sweep_bands<float_tile>(exec, row_lse, col_lse, target, at, rules));
    else if (uses_large_tiles(exec, shape.batch))
        DIP_TRY(sweep_bands<large_tile>(exec, row_lse, col_lse, target, at, rules));
    else
        DIP_TRY(sweep_bands<small_tile>(exec, row_lse, col_lse, target, at, rules));
    return DIP_CUDA_LAUNCHED(exec, "contrastive_forward", "[%lld, %lld]", (long long)shape.batch,
                             (long long)shape.embed);
}

} // namespace contrastive

extern "C" {

dip_status dip_cuda_contrastive_forward_f32(dip_exec *exec, float *row_lse, float *col_lse,
                                            float *target, const float *u, const float *v,
                                            dip_contrastive_shape shape)
{
    return contrastive::forward<float>(exec, row_lse, col_lse, target, u, v, shape);
}

dip_status dip_cuda_contrastive_forward_bf16(dip_exec *exec, float *row_lse, float *col_lse,
                                             float *target, const float *u, const float *v,
                                             dip_contrastive_shape shape)
{
    return contrastive::forward<__nv_bfloat16>(exec, row_lse, col_lse, target, u, v, shape);
}

} /* extern "C" */
