/* Forward on tensor cores, and which kernels serve which shape.
 *
 * K and V of a whole sequence lie in shared memory where two blocks of them fit a multiprocessor;
 * a warp takes a tile of queries, keeps it and its output in registers, and walks the keys with a
 * running maximum and sum. Longer sequences take several blocks, and their keys come in chunks. */
#include "kernels/cuda/attention.cuh"

enum { LONG_WARPS = 8, LONG_CHUNK = 128 };

/* Registers allow two blocks of so many warps on a multiprocessor (one where D = 128). 257 queries
 * are 17 tiles: nine warps take them in two turns. */
static __host__ __device__ constexpr int max_warps(int head_size)
{
    return head_size <= 64 ? 9 : 8;
}

/* Tiles of keys at a time: their scores, the queries and the outputs share the registers. */
static __host__ __device__ constexpr int step_tiles(int head_size)
{
    return head_size <= 64 ? 4 : 2;
}

/* ---- a warp's queries --------------------------------------------------------------------- */

template <int D> struct running_softmax {
    float out[D / 8][4]; /* sum of p v, p relative to the largest score so far */
    float largest[2];    /* q . k of rows g and g + 8, before the scale */
    float sum[2];        /* of p, over the keys of this lane alone */
};

template <int D> static __device__ __forceinline__ void begin_softmax(running_softmax<D> &state)
{
    clear(state.out);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        state.largest[half] = -INFINITY;
        state.sum[half] = 0.0f;
    }
}

/* Which keys a tile of queries sees. */
struct visible_keys {
    int length, causal;
    int first_row; /* of the tile, in the sequence */
};

/* Do all rows see all keys before `end`? */
static __device__ __forceinline__ bool all_visible(visible_keys keys, int end)
{
    return end <= keys.length && !(keys.causal && end > keys.first_row + 1);
}

/* Scores of keys that rows do not see become -infinity. first: the key of s[0]. */
template <int N>
static __device__ __forceinline__ void hide_keys(float (&s)[N][4], visible_keys keys, int first)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = keys.first_row + lane_g() + 8 * half;
        const int end = keys.causal ? min(keys.length, row + 1) : keys.length;
        const int n = end - first - 2 * lane_t(); /* visible from this lane's first key on */
#pragma unroll
        for (int j = 0; j < N; j++) {
            if (8 * j >= n) s[j][2 * half] = -INFINITY;
            if (8 * j + 1 >= n) s[j][2 * half + 1] = -INFINITY;
        }
    }
}

/* Scores become p = 2^(factor (s - largest)), and what was summed before is brought to the new
 * largest. Every row has seen a key by now, so that `largest` is finite. */
template <int D, int N>
static __device__ __forceinline__ void to_probabilities(running_softmax<D> &state, float (&s)[N][4],
                                                        float factor)
{
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float largest = state.largest[half];
#pragma unroll
        for (int j = 0; j < N; j++)
            largest = fmaxf(largest, fmaxf(s[j][2 * half], s[j][2 * half + 1]));
        largest = quad_max(largest);
        const float shift = largest * factor;
        const float shrink = power_of_two(fmaf(state.largest[half], factor, -shift));
        float sum = state.sum[half] * shrink;
#pragma unroll
        for (int j = 0; j < N; j++)
#pragma unroll
            for (int e = 2 * half; e < 2 * half + 2; e++) {
                s[j][e] = power_of_two(fmaf(s[j][e], factor, -shift));
                sum += s[j][e];
            }
        state.largest[half] = largest;
        state.sum[half] = sum;
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
            state.out[j][2 * half] *= shrink;
            state.out[j][2 * half + 1] *= shrink;
        }
    }
}

/* One step: 16 TILES keys from key `first` on. k, v: this lane's place in their rows. */
template <int D, int TILES>
static __device__ __forceinline__ void
attend_to(running_softmax<D> &state, const uint32_t (&q)[D / 16][4], const __nv_bfloat16 *k,
          const __nv_bfloat16 *v, int first, visible_keys keys, float factor)
{
    float s[2 * TILES][4];
    clear(s);
#pragma unroll
    for (int tile = 0; tile < TILES; tile++)
        multiply_rows<D>(s + 2 * tile, q, k + TILE * tile * row_stride(D));
    if (!all_visible(keys, first + TILE * TILES)) hide_keys(s, keys, first);
    to_probabilities(state, s, factor);
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
        uint32_t p[4];
        fragment_of(p, s[2 * tile], s[2 * tile + 1]);
        multiply_columns<D>(state.out, p, v + TILE * tile * row_stride(D));
    }
}

/* The keys of a chunk, n_keys from key `first` on, that any row of the tile sees. */
template <int D>
static __device__ __forceinline__ void
attend_to_chunk(running_softmax<D> &state, const uint32_t (&q)[D / 16][4],
                const __nv_bfloat16 *k_tile, const __nv_bfloat16 *v_tile, int first, int n_keys,
                visible_keys keys, float factor)
{
    constexpr int STEP = step_tiles(D) * TILE;
    const int seen = keys.causal ? min(keys.length, keys.first_row + TILE) : keys.length;
    const int end = min(first + n_keys, seen);
    const __nv_bfloat16 *k = lane_by_rows(k_tile, row_stride(D));
    const __nv_bfloat16 *v = lane_by_columns(v_tile, row_stride(D));
    int key = first;
#pragma unroll 1
    for (; key + STEP - TILE < end; key += STEP) {
        attend_to<D, step_tiles(D)>(state, q, k, v, key, keys, factor);
        k += STEP * row_stride(D);
        v += STEP * row_stride(D);
    }
#pragma unroll 1
    for (; key < end; key += TILE) {
        attend_to<D, 1>(state, q, k, v, key, keys, factor);
        k += TILE * row_stride(D);
        v += TILE * row_stride(D);
    }
}

template <int D>
static __device__ __forceinline__ void finish_softmax(__nv_bfloat16 *out, float *lse,
                                                      running_softmax<D> &state, int tile,
                                                      attention_head at, float scale)
{
    const int row = TILE * tile + lane_g();
    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float sum = quad_sum(state.sum[half]);
        inverse[half] = __fdividef(1.0f, sum);
        if (lane_t() == 0 && row + 8 * half < at.length)
            lse[at.in_lse + (int64_t)(row + 8 * half) * at.n_heads] =
                fmaf(state.largest[half], scale, logf(sum));
    }
    store_tile<D>(out + at.in_out, at.c, TILE * tile, at.length, state.out, inverse);
}

/* ---- the kernel --------------------------------------------------------------------------- */

/* Block (x, y) takes (sequence, head) x and a tile of queries per warp: WHOLE, all tiles of the
 * sequence in turns, whose keys fit the chunk; else the tiles from y * warps on, and the keys come
 * chunk after chunk. */
template <int D, bool WHOLE>
__global__ void __launch_bounds__(max_warps(D) * WARP, D <= 96 ? 2 : 1)
    forward_tiles(__nv_bfloat16 *__restrict__ out, float *__restrict__ lse,
                  const __nv_bfloat16 *__restrict__ qkv, const int32_t *__restrict__ offsets,
                  attention_sizes sizes, int chunk)
{
    DIP_DYNAMIC_SHARED(shared);
    __nv_bfloat16 *const k_tile = reinterpret_cast<__nv_bfloat16 *>(shared);
    __nv_bfloat16 *const v_tile = k_tile + chunk * row_stride(D);
    const attention_head at = head_of_block(offsets, sizes);
    const __nv_bfloat16 *const q_head = qkv + at.in_qkv;
    const int stride = 3 * at.c;
    const int n_warps = (int)(blockDim.x / WARP);
    const int n_tiles = (at.length + TILE - 1) / TILE;
    const int first_turn = WHOLE ? 0 : (int)blockIdx.y * n_warps;
    const int end_turn = WHOLE ? n_tiles : min(n_tiles, first_turn + n_warps);

    for (int turn = first_turn; turn < end_turn; turn += n_warps) {
        const int tile = turn + warp_of_thread();
        const visible_keys keys = {at.length, sizes.causal, TILE * tile};
        /* Keys that no warp of the block sees are not loaded. */
        const int n_keys =
            WHOLE || !sizes.causal ? at.length : min(at.length, TILE * (turn + n_warps));
        uint32_t q[D / 16][4];
        running_softmax<D> state;
        begin_softmax(state);
        for (int first = 0; first == 0 || (!WHOLE && first < n_keys); first += chunk) {
            const bool load = !WHOLE || turn == 0;
            if (load) {
                const int n_rows = min(chunk, (n_keys - first + TILE - 1) / TILE * TILE);
                if (first > 0) __syncthreads(); /* nobody reads the chunk before */
                start_rows<D>(k_tile, q_head + at.c, stride, first, n_rows, at.length);
                start_rows<D>(v_tile, q_head + 2 * at.c, stride, first, n_rows, at.length);
                cp_async_commit();
            }
            if (first == 0) load_fragments<D>(q, q_head, stride, TILE * tile, at.length);
            if (load) {
                cp_async_wait<0>();
                __syncthreads();
            }
            if (tile < n_tiles)
                attend_to_chunk<D>(state, q, k_tile, v_tile, first, chunk, keys,
                                   sizes.scale * LOG2_E);
        }
        if (tile < n_tiles) finish_softmax<D>(out, lse, state, tile, at, sizes.scale);
    }
}

/* ---- host --------------------------------------------------------------------------------- */

struct forward_plan {
    int chunk, n_warps, n_blocks; /* rows of K and V at a time; of a block; of a sequence */
    size_t shared_bytes;
};

template <int D, bool WHOLE>
static dip_status launch_forward_tiles(dip_exec *exec, void *out, float *lse, const void *qkv,
                                       const int32_t *offsets, dip_attention_shape shape,
                                       forward_plan plan)
{
    const dim3 grid((unsigned)(shape.n_sequences * shape.n_heads), (unsigned)plan.n_blocks);
    /* Both towers launch it, with different sizes: never less than a recorded launch needs. */
    DIP_TRY_CUDA(DIP_ALLOW_SHARED((forward_tiles<D, WHOLE>), dip_cuda_of(exec)->max_shared_bytes));
    DIP_LAUNCH((forward_tiles<D, WHOLE>), grid, plan.n_warps * WARP, plan.shared_bytes,
               dip_cuda_of(exec)->stream)
    (static_cast<__nv_bfloat16 *>(out), lse, static_cast<const __nv_bfloat16 *>(qkv), offsets,
     sizes_of(shape), plan.chunk);
    return DIP_OK;
}

template <int D>
static dip_status launch_forward(dip_exec *exec, void *out, float *lse, const void *qkv,
                                 const int32_t *offsets, dip_attention_shape shape)
{
    const int n_tiles = n_tiles_of(shape.max_length);
    const size_t whole_bytes = 2 * rows_bytes(TILE * n_tiles, D);
    if (whole_bytes <= (size_t)dip_cuda_of(exec)->max_shared_bytes / 2) {
        const int64_t n_turns = ceil_div(n_tiles, max_warps(D));
        return launch_forward_tiles<D, true>(
            exec, out, lse, qkv, offsets, shape,
            {TILE * n_tiles, (int)ceil_div(n_tiles, n_turns), 1, whole_bytes});
    }
    return launch_forward_tiles<D, false>(exec, out, lse, qkv, offsets, shape,
                                          {LONG_CHUNK, LONG_WARPS,
                                           (int)ceil_div(n_tiles, LONG_WARPS),
                                           2 * rows_bytes(LONG_CHUNK, D)});
}

dip_status attention_forward_tiles(dip_exec *exec, void *out, float *lse, const void *qkv,
                                   const int32_t *offsets, dip_attention_shape shape)
{
    switch (shape.head_size) {
    case 32:
        return launch_forward<32>(exec, out, lse, qkv, offsets, shape);
    case 64:
        return launch_forward<64>(exec, out, lse, qkv, offsets, shape);
    case 80:
        return launch_forward<80>(exec, out, lse, qkv, offsets, shape);
    case 96:
        return launch_forward<96>(exec, out, lse, qkv, offsets, shape);
    default:
        return launch_forward<128>(exec, out, lse, qkv, offsets, shape);
    }
}

/* ---- the ops ------------------------------------------------------------------------------ */

static bool has_tiles(int head_size)
{
    return head_size == 32 || head_size == 64 || head_size == 80 || head_size == 96 ||
           head_size == 128;
}

static dip_status check_head_size(int head_size)
{
    if (head_size <= PLAIN_LARGEST_HEAD) return DIP_OK;
    return dip_fail(DIP_UNSUPPORTED, "attention on CUDA: head size %d, the largest is %d",
                    head_size, PLAIN_LARGEST_HEAD);
}

static bool is_empty(dip_attention_shape shape)
{
    return shape.n_rows == 0 || shape.n_sequences == 0 || shape.max_length == 0;
}

static dip_status launched(dip_exec *exec, const char *op, dip_attention_shape shape, int line)
{
    return dip_cuda_launched(
        exec, op, __FILE__, line, "[%lld, %lld], %lld sequences up to %lld, %d heads of %d",
        (long long)shape.n_rows, (long long)shape.n_heads * shape.head_size,
        (long long)shape.n_sequences, (long long)shape.max_length, shape.n_heads, shape.head_size);
}

template <typename T>
static dip_status forward(dip_exec *exec, void *out, float *lse, const void *qkv,
                          const int32_t *offsets, dip_attention_shape shape)
{
    DIP_TRY(check_head_size(shape.head_size));
    if (is_empty(shape)) return DIP_OK;
    if (sizeof(T) == 2 && has_tiles(shape.head_size) && aligned(out, qkv))
        DIP_TRY(attention_forward_tiles(exec, out, lse, qkv, offsets, shape));
    else
        DIP_TRY(attention_forward_plain<T>(exec, out, lse, qkv, offsets, shape));
    return launched(exec, "attention_forward", shape, __LINE__);
}

template <typename T>
static dip_status backward(dip_exec *exec, void *d_qkv, const void *d_out, const void *qkv,
                           const void *out, const float *lse, const int32_t *offsets,
                           dip_attention_shape shape)
{
    DIP_TRY(check_head_size(shape.head_size));
    if (is_empty(shape)) return DIP_OK;
    if (sizeof(T) == 2 && has_tiles(shape.head_size) && aligned(d_qkv, d_out, qkv, out))
        DIP_TRY(attention_backward_tiles(exec, d_qkv, d_out, qkv, out, lse, offsets, shape));
    else
        DIP_TRY(attention_backward_plain<T>(exec, d_qkv, d_out, qkv, out, lse, offsets, shape));
    return launched(exec, "attention_backward", shape, __LINE__);
}

extern "C" {

size_t dip_cuda_attention_workspace(const dip_exec *exec, dip_attention_shape shape)
{
    (void)exec;
    (void)shape;
    return 0;
}

dip_status dip_cuda_attention_forward_f32(dip_exec *exec, void *out, float *lse, const void *qkv,
                                          const int32_t *offsets, dip_attention_shape shape)
{
    return forward<float>(exec, out, lse, qkv, offsets, shape);
}

dip_status dip_cuda_attention_forward_bf16(dip_exec *exec, void *out, float *lse, const void *qkv,
                                           const int32_t *offsets, dip_attention_shape shape)
{
    return forward<__nv_bfloat16>(exec, out, lse, qkv, offsets, shape);
}

dip_status dip_cuda_attention_backward_f32(dip_exec *exec, void *d_qkv, const void *d_out,
                                           const void *qkv, const void *out, const float *lse,
                                           const int32_t *offsets, dip_attention_shape shape)
{
    return backward<float>(exec, d_qkv, d_out, qkv, out, lse, offsets, shape);
}

dip_status dip_cuda_attention_backward_bf16(dip_exec *exec, void *d_qkv, const void *d_out,
                                            const void *qkv, const void *out, const float *lse,
                                            const int32_t *offsets, dip_attention_shape shape)
{
    return backward<__nv_bfloat16>(exec, d_qkv, d_out, qkv, out, lse, offsets, shape);
}
}
