/* Attention without tensor cores: for float, and for bf16 rows whose sizes or addresses tensor
 * cores do not take. A warp owns a row of the result. It computes the scores of 32 other rows at a
 * time, a lane a row, and then all lanes walk these rows together, each for its columns. */
#include "kernels/cuda/attention.cuh"

enum { WARPS = 4, COLUMNS = PLAIN_LARGEST_HEAD / WARP }; /* of a lane: lane, lane + 32, ... */

/* The row of this warp, in the sequence. */
static __device__ __forceinline__ int row_of_warp()
{
    return (int)blockIdx.y * WARPS + warp_of_thread();
}

/* A row in shared memory, as float, for all lanes of a warp. */
template <typename T>
static __device__ __forceinline__ void share_row(float *shared, const T *row, int head_size)
{
    for (int d = lane_of_thread(); d < head_size; d += WARP) shared[d] = to_float(row[d]);
}

template <typename T> static __device__ __forceinline__ float dot(const float *a, const T *b, int n)
{
    float sum = 0.0f;
    for (int d = 0; d < n; d++) sum = fmaf(a[d], to_float(b[d]), sum);
    return sum;
}

template <typename T>
static __device__ __forceinline__ float dot_rows(const T *a, const T *b, int n)
{
    float sum = 0.0f;
    for (int d = 0; d < n; d++) sum = fmaf(to_float(a[d]), to_float(b[d]), sum);
    return sum;
}

/* sum += sum_j weight_j rows[j] over n rows; weight_j is lane j's. */
template <typename T>
static __device__ __forceinline__ void add_rows(float (&sum)[COLUMNS], float weight, const T *rows,
                                                int stride, int n, int head_size)
{
    for (int j = 0; j < n; j++) {
        const float factor = __shfl_sync(ALL_LANES, weight, j);
        const T *const row = rows + (int64_t)j * stride;
#pragma unroll
        for (int i = 0; i < COLUMNS; i++) {
            const int d = lane_of_thread() + WARP * i;
            if (d < head_size) sum[i] = fmaf(factor, to_float(row[d]), sum[i]);
        }
    }
}

template <typename T>
static __device__ __forceinline__ void store_columns(T *row, const float (&sum)[COLUMNS],
                                                     float factor, int head_size)
{
#pragma unroll
    for (int i = 0; i < COLUMNS; i++) {
        const int d = lane_of_thread() + WARP * i;
        if (d < head_size) row[d] = from_float<T>(sum[i] * factor);
    }
}

/* ---- kernels ------------------------------------------------------------------------------ */

template <typename T>
__global__ void __launch_bounds__(WARPS *WARP)
    plain_forward(T *__restrict__ out, float *__restrict__ lse, const T *__restrict__ qkv,
                  const int32_t *__restrict__ offsets, attention_sizes sizes)
{
    __shared__ float q_rows[WARPS][PLAIN_LARGEST_HEAD];
    const attention_head at = head_of_block(offsets, sizes);
    const int row = row_of_warp(), lane = lane_of_thread(), stride = 3 * at.c;
    if (row >= at.length) return;
    const T *const q = qkv + at.in_qkv, *const k = q + at.c, *const v = k + at.c;
    float *const q_row = q_rows[warp_of_thread()];
    share_row(q_row, q + (int64_t)row * stride, sizes.head_size);
    __syncwarp();

    const int end = sizes.causal ? row + 1 : at.length;
    float largest = -INFINITY, sum = 0.0f; /* the sum is over the keys of this lane alone */
    float columns[COLUMNS] = {0.0f};
    for (int first = 0; first < end; first += WARP) {
        const int key = first + lane;
        const float score =
            key < end ? sizes.scale * dot(q_row, k + (int64_t)key * stride, sizes.head_size)
                      : -INFINITY;
        const float larger = fmaxf(largest, warp_max(score));
        const float shrink = expf(largest - larger), p = expf(score - larger);
        largest = larger;
        sum = fmaf(sum, shrink, p);
#pragma unroll
        for (int i = 0; i < COLUMNS; i++) columns[i] *= shrink;
        add_rows(columns, p, v + (int64_t)first * stride, stride, min(WARP, end - first),
                 sizes.head_size);
    }
    sum = warp_sum(sum);
    store_columns(out + at.in_out + (int64_t)row * at.c, columns, 1.0f / sum, sizes.head_size);
    if (lane == 0) lse[at.in_lse + (int64_t)row * at.n_heads] = largest + logf(sum);
}

/* d_q: the warp's row is a query, the lanes' rows are keys. */
template <typename T>
__global__ void __launch_bounds__(WARPS *WARP)
    plain_backward_queries(T *__restrict__ d_qkv, const T *__restrict__ d_out,
                           const T *__restrict__ qkv, const T *__restrict__ out,
                           const float *__restrict__ lse, const int32_t *__restrict__ offsets,
                           attention_sizes sizes)
{
    __shared__ float q_rows[WARPS][PLAIN_LARGEST_HEAD], d_out_rows[WARPS][PLAIN_LARGEST_HEAD];
    const attention_head at = head_of_block(offsets, sizes);
    const int row = row_of_warp(), stride = 3 * at.c, d_head = sizes.head_size;
    if (row >= at.length) return;
    const T *const q = qkv + at.in_qkv, *const k = q + at.c, *const v = k + at.c;
    const int64_t in_qkv = at.in_qkv + (int64_t)row * stride;
    const int64_t in_out = at.in_out + (int64_t)row * at.c;
    float *const q_row = q_rows[warp_of_thread()], *const d_out_row = d_out_rows[warp_of_thread()];
    share_row(q_row, q + (int64_t)row * stride, d_head);
    share_row(d_out_row, d_out + in_out, d_head);
    __syncwarp();
    const float row_lse = lse[at.in_lse + (int64_t)row * at.n_heads];
    const float delta = dot(d_out_row, out + in_out, d_head); /* sum_j p_j d_p_j */

    const int end = sizes.causal ? row + 1 : at.length;
    float d_q[COLUMNS] = {0.0f};
    for (int first = 0; first < end; first += WARP) {
        const int key = first + lane_of_thread();
        float d_s = 0.0f;
        if (key < end) {
            const float s = sizes.scale * dot(q_row, k + (int64_t)key * stride, d_head);
            const float d_p = dot(d_out_row, v + (int64_t)key * stride, d_head);
            d_s = expf(s - row_lse) * (d_p - delta);
        }
        add_rows(d_q, d_s, k + (int64_t)first * stride, stride, min(WARP, end - first), d_head);
    }
    store_columns(d_qkv + in_qkv, d_q, sizes.scale, d_head);
}

/* d_k and d_v: the warp's row is a key, the lanes' rows are queries. */
template <typename T>
__global__ void __launch_bounds__(WARPS *WARP)
    plain_backward_keys(T *__restrict__ d_qkv, const T *__restrict__ d_out,
                        const T *__restrict__ qkv, const T *__restrict__ out,
                        const float *__restrict__ lse, const int32_t *__restrict__ offsets,
                        attention_sizes sizes)
{
    __shared__ float k_rows[WARPS][PLAIN_LARGEST_HEAD], v_rows[WARPS][PLAIN_LARGEST_HEAD];
    const attention_head at = head_of_block(offsets, sizes);
    const int row = row_of_warp(), stride = 3 * at.c, d_head = sizes.head_size;
    if (row >= at.length) return;
    const T *const q = qkv + at.in_qkv;
    const int64_t in_qkv = at.in_qkv + (int64_t)row * stride;
    float *const k_row = k_rows[warp_of_thread()], *const v_row = v_rows[warp_of_thread()];
    share_row(k_row, qkv + in_qkv + at.c, d_head);
    share_row(v_row, qkv + in_qkv + 2 * at.c, d_head);
    __syncwarp();

    float d_k[COLUMNS] = {0.0f}, d_v[COLUMNS] = {0.0f};
    for (int first = sizes.causal ? row : 0; first < at.length; first += WARP) {
        const int query = first + lane_of_thread();
        const int64_t first_out = at.in_out + (int64_t)first * at.c;
        float p = 0.0f, d_s = 0.0f;
        if (query < at.length) {
            const int64_t query_out = at.in_out + (int64_t)query * at.c;
            const float s = sizes.scale * dot(k_row, q + (int64_t)query * stride, d_head);
            const float d_p = dot(v_row, d_out + query_out, d_head);
            const float delta = dot_rows(d_out + query_out, out + query_out, d_head);
            p = expf(s - lse[at.in_lse + (int64_t)query * at.n_heads]);
            d_s = p * (d_p - delta);
        }
        const int n = min(WARP, at.length - first);
        add_rows(d_k, d_s, q + (int64_t)first * stride, stride, n, d_head);
        add_rows(d_v, p, d_out + first_out, at.c, n, d_head);
    }
    store_columns(d_qkv + in_qkv + at.c, d_k, sizes.scale, d_head);
    store_columns(d_qkv + in_qkv + 2 * at.c, d_v, 1.0f, d_head);
}

/* ---- host --------------------------------------------------------------------------------- */

static dim3 grid_of(dip_attention_shape shape)
{
    return dim3((unsigned)(shape.n_sequences * shape.n_heads),
                (unsigned)ceil_div(shape.max_length, WARPS));
}

template <typename T>
dip_status attention_forward_plain(dip_exec *exec, void *out, float *lse, const void *qkv,
                                   const int32_t *offsets, dip_attention_shape shape)
{
    DIP_LAUNCH(plain_forward<T>, grid_of(shape), WARPS * WARP, 0, dip_cuda_of(exec)->stream)
    (static_cast<T *>(out), lse, static_cast<const T *>(qkv), offsets, sizes_of(shape));
    return DIP_OK;
}

template <typename T>
dip_status attention_backward_plain(dip_exec *exec, void *d_qkv, const void *d_out, const void *qkv,
                                    const void *out, const float *lse, const int32_t *offsets,
                                    dip_attention_shape shape)
{
    const cudaStream_t stream = dip_cuda_of(exec)->stream;
    const dim3 grid = grid_of(shape);
    T *const d_in = static_cast<T *>(d_qkv);
    const T *const in = static_cast<const T *>(qkv), *const result = static_cast<const T *>(out);
    const T *const d_result = static_cast<const T *>(d_out);
    DIP_LAUNCH(plain_backward_queries<T>, grid, WARPS * WARP, 0, stream)
    (d_in, d_result, in, result, lse, offsets, sizes_of(shape));
    DIP_LAUNCH(plain_backward_keys<T>, grid, WARPS * WARP, 0, stream)
    (d_in, d_result, in, result, lse, offsets, sizes_of(shape));
    return DIP_OK;
}

#define INSTANTIATE(T)                                                                             \
    template dip_status attention_forward_plain<T>(dip_exec *, void *, float *, const void *,      \
                                                   const int32_t *, dip_attention_shape);          \
    template dip_status attention_backward_plain<T>(dip_exec *, void *, const void *,              \
                                                    const void *, const void *, const float *,     \
                                                    const int32_t *, dip_attention_shape);
INSTANTIATE(float)
INSTANTIATE(__nv_bfloat16)
