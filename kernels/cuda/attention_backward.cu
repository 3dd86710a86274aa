/* Backward on tensor cores.
 *
 * With p = exp(scale q k - lse), delta = sum_d d_out out and d_s = p (d_out v - delta):
 *   d_v = p^T d_out,  d_k = scale d_s^T q,  d_q = scale d_s k.
 *
 * A warp that owns a tile of keys walks the queries and computes transposed scores, whose fragments
 * are at once the operands of d_v and d_k; nothing is added up between warps. What remains is d_q:
 *   whole    The sequence's d_s (bf16) stays in shared memory; after a barrier warps own tiles of
 *            queries and multiply it with K. Five products a pair of tiles, memory read once. For
 *            sequences whose d_s fits: on Hopper 257 tokens of 64.
 *   chunked  A second kernel owns tiles of queries and computes d_s again: seven products.
 *
 * Shared memory of the first kernel:
 *   queries [n][query_stride]  a row is q, d_out, and in the 16 bytes of padding lse (times log2 e)
 *                              and delta; without room for K, K takes the place of q for d_q
 *   d_s^T   [keys][n + 8]      whole; before d_s exists, and in chunks, rows of out lie there
 *   K       [n][row_stride]    whole, where there is room                                     */
#include "kernels/cuda/attention.cuh"

enum { LONG_WARPS = 8, LONG_CHUNK = 64 };

/* What the registers allow: the accumulators of d_k and d_v, the fragments of K and V. */
static __host__ __device__ constexpr int max_warps(int head_size)
{
    return head_size <= 64 ? 16 : head_size <= 80 ? 12 : 8;
}

static __host__ __device__ constexpr int query_stride(int head_size)
{
    return 2 * head_size + 8;
}

static __host__ __device__ constexpr int d_s_stride(int n_rows)
{
    return n_rows + 8;
}

/* Elements of the region that holds out and then, whole, d_s^T. */
static __host__ __device__ constexpr int d_s_elements(int n_rows, int head_size, bool whole)
{
    return n_rows * (whole && n_rows > head_size ? d_s_stride(n_rows) : row_stride(head_size));
}

/* ---- lse and delta of queries ------------------------------------------------------------- */

template <int D> static __device__ __forceinline__ float2 *row_terms(const __nv_bfloat16 *query)
{
    return (float2 *)(query + 2 * D);
}

/* Rows that do not exist get an lse for which every probability is 0. */
template <int D>
static __device__ __forceinline__ void fill_lse(__nv_bfloat16 *queries, const float *lse,
                                                int n_heads, int first, int n_rows, int length)
{
    for (int row = (int)threadIdx.x; row < n_rows; row += (int)blockDim.x)
        row_terms<D>(queries + row * query_stride(D))->x =
            first + row < length ? LOG2_E * lse[(int64_t)(first + row) * n_heads] : INFINITY;
}

static __device__ __forceinline__ float add_products(float sum, uint32_t a, uint32_t b)
{
    const float2 x = floats_of_pair(a), y = floats_of_pair(b);
    return fmaf(x.y, y.y, fmaf(x.x, y.x, sum));
}

/* From d_out and out in shared memory; four lanes a row, n_rows a multiple of 16. */
template <int D>
static __device__ __forceinline__ void fill_delta(__nv_bfloat16 *queries, const __nv_bfloat16 *out,
                                                  int n_rows)
{
    for (int row = (int)(threadIdx.x / 4); row < n_rows; row += (int)(blockDim.x / 4)) {
        __nv_bfloat16 *const query = queries + row * query_stride(D);
        float delta = 0.0f;
#pragma unroll
        for (int first = 0; first < D; first += 32) {
            const int column = first + 8 * lane_t();
            if (column < D) {
                const uint4 x = *reinterpret_cast<const uint4 *>(query + D + column);
                const uint4 y =
                    *reinterpret_cast<const uint4 *>(out + row * row_stride(D) + column);
                delta = add_products(delta, x.x, y.x);
                delta = add_products(delta, x.y, y.y);
                delta = add_products(delta, x.z, y.z);
                delta = add_products(delta, x.w, y.w);
            }
        }
        delta = quad_sum(delta);
        if (lane_t() == 0) row_terms<D>(query)->y = delta;
    }
}

/* ---- d_k and d_v: a warp's tile of keys ---------------------------------------------------- */

template <int D> struct key_tile {
    int first; /* key */
    uint32_t k[D / 16][4], v[D / 16][4];
    float d_k[D / 8][4], d_v[D / 8][4];
};

/* This lane's places in 16 queries of the chunk. */
struct query_places {
    const __nv_bfloat16 *by_rows, *by_columns, *terms;
};

template <int D>
static __device__ __forceinline__ query_places places_of_lane(const __nv_bfloat16 *queries, int row)
{
    queries += row * query_stride(D);
    return {lane_by_rows(queries, query_stride(D)), lane_by_columns(queries, query_stride(D)),
            queries + 2 * lane_t() * query_stride(D)};
}

template <int D> static __device__ __forceinline__ void next_tile(query_places &at)
{
    at.by_rows += TILE * query_stride(D);
    at.by_columns += TILE * query_stride(D);
    at.terms += TILE * query_stride(D);
}

/* p and d_s of a tile of keys and 16 queries, transposed (a row a key). */
template <int D>
static __device__ __forceinline__ void transposed_scores(float (&p)[2][4], float (&d_s)[2][4],
                                                         const key_tile<D> &keys, query_places at,
                                                         float factor)
{
    clear(p);
    clear(d_s);
    multiply_rows<D>(p, keys.k, at.by_rows);
    multiply_rows<D>(d_s, keys.v, at.by_rows + D);
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const float2 terms = *row_terms<D>(at.terms + (8 * j + e) * query_stride(D));
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float &probability = p[j][2 * half + e], &gradient = d_s[j][2 * half + e];
                probability = power_of_two(fmaf(probability, factor, -terms.x));
                gradient = probability * (gradient - terms.y);
            }
        }
}

/* Zero where a key does not exist or, on the diagonal, comes after its query. */
static __device__ __forceinline__ void hide_pairs(float (&p)[2][4], float (&d_s)[2][4], int n_keys,
                                                  bool diagonal)
{
#pragma unroll
    for (int j = 0; j < 2; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int key = lane_g() + e / 2 * 8, query = 8 * j + 2 * lane_t() + e % 2;
            if (key >= n_keys || (diagonal && key > query)) p[j][e] = d_s[j][e] = 0.0f;
        }
}

/* A fragment of d_s^T goes to shared memory; at: this lane's place. */
static __device__ __forceinline__ void keep_fragment(__nv_bfloat16 *at, int stride,
                                                     const uint32_t (&a)[4])
{
    *reinterpret_cast<uint32_t *>(at) = a[0];
    *reinterpret_cast<uint32_t *>(at + 8 * stride) = a[1];
    *reinterpret_cast<uint32_t *>(at + 8) = a[2];
    *reinterpret_cast<uint32_t *>(at + 8 * stride + 8) = a[3];
}

/* All queries of a chunk of n_rows, which begins with query `first`. KEEP: the tile's rows of d_s^T
 * go to d_s, d_s_stride apart. */
template <int D, bool KEEP>
static __device__ __forceinline__ void
walk_queries(key_tile<D> &keys, __nv_bfloat16 *d_s_rows, int stride, const __nv_bfloat16 *queries,
             int first, int n_rows, int length, int causal, float factor)
{
    int row = causal ? max(0, keys.first - first) : 0;
    query_places at = places_of_lane<D>(queries, row);
    __nv_bfloat16 *kept = d_s_rows + lane_g() * stride + 2 * lane_t() + row;
#pragma unroll 1
    for (; row < n_rows; row += TILE) {
        float p[2][4], d_s[2][4];
        uint32_t a[4];
        transposed_scores<D>(p, d_s, keys, at, factor);
        const bool diagonal = causal && first + row == keys.first;
        if (diagonal || keys.first + TILE > length)
            hide_pairs(p, d_s, length - keys.first, diagonal);
        fragment_of(a, p[0], p[1]);
        multiply_columns<D>(keys.d_v, a, at.by_columns + D);
        fragment_of(a, d_s[0], d_s[1]);
        if (KEEP) {
            keep_fragment(kept, stride, a);
            kept += TILE;
        }
        multiply_columns<D>(keys.d_k, a, at.by_columns);
        next_tile<D>(at);
    }
}

/* ---- d_q of a whole sequence -------------------------------------------------------------- */

/* k: rows of K, k_stride apart. */
template <int D>
static __device__ __forceinline__ void
query_gradients(__nv_bfloat16 *d_q_head, int stride, const __nv_bfloat16 *d_s, int d_s_stride,
                const __nv_bfloat16 *k, int k_stride, int length, int causal, float scale)
{
    const int n_tiles = (length + TILE - 1) / TILE;
    const float factors[2] = {scale, scale};
    for (int tile = warp_of_thread(); tile < n_tiles; tile += (int)(blockDim.x / WARP)) {
        const __nv_bfloat16 *weights = lane_by_rows(d_s, d_s_stride) + TILE * tile;
        const __nv_bfloat16 *by_columns = lane_by_columns(k, k_stride);
        float d_q[D / 8][4];
        clear(d_q);
#pragma unroll 1
        for (int left = causal ? tile + 1 : n_tiles; left > 0; left--) {
            uint32_t a[4];
            ldmatrix_x4_transposed(a, weights);
            multiply_columns<D>(d_q, a, by_columns);
            weights += TILE * d_s_stride;
            by_columns += TILE * k_stride;
        }
        store_tile<D>(d_q_head, stride, TILE * tile, length, d_q, factors);
    }
}

/* ---- the kernels -------------------------------------------------------------------------- */

struct backward_tensors {
    __nv_bfloat16 *d_qkv;
    const __nv_bfloat16 *d_out, *qkv, *out;
    const float *lse;
    const int32_t *offsets;
};

/* Block (x, y) takes (sequence, head) x and a tile of keys per warp: WHOLE, all tiles in turns and
 * then d_q; else the tiles from y * warps on. */
template <int D, bool WHOLE>
__global__ void __launch_bounds__(max_warps(D) * WARP)
    backward_keys(backward_tensors tensors, attention_sizes sizes, int chunk, bool k_has_room)
{
    DIP_DYNAMIC_SHARED(shared);
    __nv_bfloat16 *const queries = reinterpret_cast<__nv_bfloat16 *>(shared);
    __nv_bfloat16 *const d_s = queries + chunk * query_stride(D);
    __nv_bfloat16 *const k = k_has_room ? d_s + d_s_elements(chunk, D, WHOLE) : queries;

    const attention_head at = head_of_block(tensors.offsets, sizes);
    const __nv_bfloat16 *const q_head = tensors.qkv + at.in_qkv;
    const __nv_bfloat16 *const d_out_head = tensors.d_out + at.in_out;
    const __nv_bfloat16 *const out_head = tensors.out + at.in_out;
    __nv_bfloat16 *const d_q_head = tensors.d_qkv + at.in_qkv;
    const float *const lse = tensors.lse + at.in_lse;
    const int stride = 3 * at.c, n_warps = (int)(blockDim.x / WARP);
    const int n_tiles = (at.length + TILE - 1) / TILE, n_padded = TILE * n_tiles;
    const int first_turn = WHOLE ? 0 : (int)blockIdx.y * n_warps;
    const int end_turn = WHOLE ? n_tiles : min(n_tiles, first_turn + n_warps);

    for (int turn = first_turn; turn < end_turn; turn += n_warps) {
        key_tile<D> keys;
        keys.first = TILE * (turn + warp_of_thread());
        clear(keys.d_k);
        clear(keys.d_v);
        /* Queries before the block's keys see none of them. */
        const int begin = !WHOLE && sizes.causal ? TILE * turn : 0;
        for (int first = begin; first == begin || (!WHOLE && first < n_padded); first += chunk) {
            const int n_rows = WHOLE ? n_padded : min(chunk, n_padded - first);
            const bool load = !WHOLE || turn == 0;
            if (load) {
                if (first > begin) __syncthreads(); /* nobody reads the chunk before */
                start_rows<D, query_stride(D)>(queries, q_head, stride, first, n_rows, at.length);
                start_rows<D, query_stride(D)>(queries + D, d_out_head, at.c, first, n_rows,
                                               at.length);
                start_rows<D>(d_s, out_head, at.c, first, n_rows, at.length);
                if (k_has_room) start_rows<D>(k, q_head + at.c, stride, first, n_rows, at.length);
                cp_async_commit();
                fill_lse<D>(queries, lse, at.n_heads, first, n_rows, at.length);
            }
            if (first == begin) {
                load_fragments<D>(keys.k, q_head + at.c, stride, keys.first, at.length);
                load_fragments<D>(keys.v, q_head + 2 * at.c, stride, keys.first, at.length);
            }
            if (load) {
                cp_async_wait<0>();
                __syncthreads();
                fill_delta<D>(queries, d_s, n_rows);
                __syncthreads();
            }
            if (keys.first < at.length)
                walk_queries<D, WHOLE>(keys, d_s + keys.first * d_s_stride(chunk),
                                       d_s_stride(chunk), queries, first, n_rows, at.length,
                                       sizes.causal, sizes.scale * LOG2_E);
        }
        if (keys.first < at.length) {
            const float k_factors[2] = {sizes.scale, sizes.scale}, v_factors[2] = {1.0f, 1.0f};
            store_tile<D>(d_q_head + at.c, stride, keys.first, at.length, keys.d_k, k_factors);
            store_tile<D>(d_q_head + 2 * at.c, stride, keys.first, at.length, keys.d_v, v_factors);
        }
    }
    if (!WHOLE) return;

    __syncthreads(); /* d_s is complete */
    if (!k_has_room) {
        start_rows<D, query_stride(D)>(k, q_head + at.c, stride, 0, n_padded, at.length);
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
    }
    query_gradients<D>(d_q_head, stride, d_s, d_s_stride(chunk), k,
                       k_has_room ? row_stride(D) : query_stride(D), at.length, sizes.causal,
                       sizes.scale);
}

/* d_q alone, for sequences that are not whole above. Block (x, y) takes (sequence, head) x and a
 * tile of queries per warp, from y * warps on; K and V come in chunks. */
template <int D>
__global__ void __launch_bounds__(LONG_WARPS *WARP)
    backward_queries(backward_tensors tensors, attention_sizes sizes)
{
    DIP_DYNAMIC_SHARED(shared);
    __nv_bfloat16 *const k = reinterpret_cast<__nv_bfloat16 *>(shared);
    __nv_bfloat16 *const v = k + LONG_CHUNK * row_stride(D);
    const attention_head at = head_of_block(tensors.offsets, sizes);
    const __nv_bfloat16 *const q_head = tensors.qkv + at.in_qkv;
    const int stride = 3 * at.c, first_query = TILE * LONG_WARPS * (int)blockIdx.y;
    if (first_query >= at.length) return;
    const int query = first_query + TILE * warp_of_thread();
    const float factor = sizes.scale * LOG2_E;

    uint32_t q[D / 16][4], d_out[D / 16][4], out[D / 16][4];
    load_fragments<D>(q, q_head, stride, query, at.length);
    load_fragments<D>(d_out, tensors.d_out + at.in_out, at.c, query, at.length);
    load_fragments<D>(out, tensors.out + at.in_out, at.c, query, at.length);
    float lse[2], delta[2]; /* of rows g and g + 8 */
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = query + lane_g() + 8 * half;
        lse[half] = row < at.length ? LOG2_E * tensors.lse[at.in_lse + (int64_t)row * at.n_heads]
                                    : INFINITY;
        delta[half] = 0.0f;
#pragma unroll
        for (int s = 0; s < D / 16; s++) {
            delta[half] = add_products(delta[half], d_out[s][half], out[s][half]);
            delta[half] = add_products(delta[half], d_out[s][2 + half], out[s][2 + half]);
        }
        delta[half] = quad_sum(delta[half]);
    }

    float d_q[D / 8][4];
    clear(d_q);
    const int end_of_block =
        sizes.causal ? min(at.length, first_query + TILE * LONG_WARPS) : at.length;
    const int end = sizes.causal ? min(at.length, query + TILE) : at.length;
    for (int first = 0; first < end_of_block; first += LONG_CHUNK) {
        if (first > 0) __syncthreads();
        start_rows<D>(k, q_head + at.c, stride, first, LONG_CHUNK, at.length);
        start_rows<D>(v, q_head + 2 * at.c, stride, first, LONG_CHUNK, at.length);
        cp_async_commit();
        cp_async_wait<0>();
        __syncthreads();
        if (query >= at.length) continue;
#pragma unroll 1
        for (int row = 0; row < LONG_CHUNK && first + row < end; row += TILE) {
            float d_s[2][4], d_p[2][4];
            clear(d_s);
            clear(d_p);
            multiply_rows<D>(d_s, q, lane_by_rows(k + row * row_stride(D), row_stride(D)));
            multiply_rows<D>(d_p, d_out, lane_by_rows(v + row * row_stride(D), row_stride(D)));
#pragma unroll
            for (int j = 0; j < 2; j++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const int key = first + row + 8 * j + 2 * lane_t() + e % 2;
                    const int last = sizes.causal ? query + lane_g() + e / 2 * 8 : at.length - 1;
                    const float p = power_of_two(fmaf(d_s[j][e], factor, -lse[e / 2]));
                    d_s[j][e] =
                        key <= last && key < at.length ? p * (d_p[j][e] - delta[e / 2]) : 0.0f;
                }
            uint32_t a[4];
            fragment_of(a, d_s[0], d_s[1]);
            multiply_columns<D>(d_q, a, lane_by_columns(k + row * row_stride(D), row_stride(D)));
        }
    }
    const float factors[2] = {sizes.scale, sizes.scale};
    if (query < at.length)
        store_tile<D>(tensors.d_qkv + at.in_qkv, stride, query, at.length, d_q, factors);
}

/* ---- host --------------------------------------------------------------------------------- */

/* Bytes of shared memory of backward_keys for chunks of n_rows queries. */
static size_t backward_bytes(int n_rows, int head_size, bool whole, bool k_has_room)
{
    const int elements = n_rows * query_stride(head_size) + d_s_elements(n_rows, head_size, whole) +
                         (k_has_room ? n_rows * row_stride(head_size) : 0);
    return (size_t)elements * sizeof(__nv_bfloat16);
}

template <int D>
static dip_status launch_whole(dip_exec *exec, backward_tensors tensors, dip_attention_shape shape)
{
    const dip_cuda *cuda = dip_cuda_of(exec);
    const int n_tiles = n_tiles_of(shape.max_length), n_rows = TILE * n_tiles;
    const int n_warps = (int)ceil_div(n_tiles, ceil_div(n_tiles, max_warps(D)));
    const bool k_has_room = backward_bytes(n_rows, D, true, true) <= (size_t)cuda->max_shared_bytes;
    const size_t shared_bytes = backward_bytes(n_rows, D, true, k_has_room);
    /* Both towers launch it, with different sizes: never less than a recorded launch needs. */
    DIP_TRY_CUDA(DIP_ALLOW_SHARED((backward_keys<D, true>), cuda->max_shared_bytes));
    DIP_LAUNCH((backward_keys<D, true>), (unsigned)(shape.n_sequences * shape.n_heads),
               n_warps * WARP, shared_bytes, cuda->stream)
    (tensors, sizes_of(shape), n_rows, k_has_room);
    return DIP_OK;
}

template <int D>
static dip_status launch_chunked(dip_exec *exec, backward_tensors tensors,
                                 dip_attention_shape shape)
{
    const cudaStream_t stream = dip_cuda_of(exec)->stream;
    const dim3 grid((unsigned)(shape.n_sequences * shape.n_heads),
                    (unsigned)ceil_div(n_tiles_of(shape.max_length), LONG_WARPS));
    const size_t keys_bytes = backward_bytes(LONG_CHUNK, D, false, false);
    const size_t queries_bytes = 2 * rows_bytes(LONG_CHUNK, D);
    DIP_TRY_CUDA(DIP_ALLOW_SHARED((backward_keys<D, false>), keys_bytes));
    DIP_LAUNCH((backward_keys<D, false>), grid, LONG_WARPS * WARP, keys_bytes, stream)
    (tensors, sizes_of(shape), LONG_CHUNK, false);
    DIP_TRY_CUDA(DIP_ALLOW_SHARED(backward_queries<D>, queries_bytes));
    DIP_LAUNCH(backward_queries<D>, grid, LONG_WARPS * WARP, queries_bytes, stream)
    (tensors, sizes_of(shape));
    return DIP_OK;
}

template <int D>
static dip_status launch_backward(dip_exec *exec, backward_tensors tensors,
                                  dip_attention_shape shape)
{
    const int64_t n_rows = TILE * (int64_t)n_tiles_of(shape.max_length);
    const bool fits = n_rows < 4096 && backward_bytes((int)n_rows, D, true, false) <=
                                           (size_t)dip_cuda_of(exec)->max_shared_bytes;
    return fits ? launch_whole<D>(exec, tensors, shape) : launch_chunked<D>(exec, tensors, shape);
}

dip_status attention_backward_tiles(dip_exec *exec, void *d_qkv, const void *d_out, const void *qkv,
                                    const void *out, const float *lse, const int32_t *offsets,
                                    dip_attention_shape shape)
{
    const backward_tensors tensors = {static_cast<__nv_bfloat16 *>(d_qkv),
                                      static_cast<const __nv_bfloat16 *>(d_out),
                                      static_cast<const __nv_bfloat16 *>(qkv),
                                      static_cast<const __nv_bfloat16 *>(out),
                                      lse,
                                      offsets};
    switch (shape.head_size) {
    case 32:
        return launch_backward<32>(exec, tensors, shape);
    case 64:
        return launch_backward<64>(exec, tensors, shape);
    case 80:
        return launch_backward<80>(exec, tensors, shape);
    case 96:
        return launch_backward<96>(exec, tensors, shape);
    default:
        return launch_backward<128>(exec, tensors, shape);
    }
}
