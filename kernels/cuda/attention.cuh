/* attention.cuh - what the files of attention share: the shape as kernels get it, and tiles of bf16
 * rows between memory, registers and tensor cores.
 *
 * Files:   attention.cu           the ops: which kernel serves which shape; forward on tensor cores
 *          attention_backward.cu  backward on tensor cores
 *          attention_plain.cu     both for float, and for bf16 rows that tensor cores cannot take
 *
 * Blocks:  one (sequence, head) each, heads next to each other, because heads of one row are
 *          neighbours in memory. A warp works on a tile: TILE queries or keys.
 * Tiles:   in shared memory rows have row_stride(D) elements: the 16 bytes of padding make the
 *          stride an odd number of 16 bytes, so that the eight rows an ldmatrix reads lie in
 *          different banks. In registers tiles are fragments of mma 16 x 8 x 16 (ptx.cuh); a
 *          lane's place in one is (lane / 4, lane % 4) = (g, t) throughout.                   */
#ifndef DIP_KERNELS_CUDA_ATTENTION_CUH
#define DIP_KERNELS_CUDA_ATTENTION_CUH

#include <math.h>
#include <string.h>

#include "kernels/cuda/access.cuh"
#include "kernels/cuda/ptx.cuh"

enum { TILE = 16 };

__host__ __device__ constexpr int row_stride(int head_size)
{
    return head_size + 8;
}

static inline int n_tiles_of(int64_t length)
{
    return (int)ceil_div(length, TILE);
}

static inline size_t rows_bytes(int n_rows, int head_size)
{
    return (size_t)n_rows * (size_t)row_stride(head_size) * sizeof(__nv_bfloat16);
}

/* What kernels are told of a dip_attention_shape. */
struct attention_sizes {
    int n_heads, head_size;
    int causal;
    float scale; /* 1 / sqrt(D) */
};

static inline attention_sizes sizes_of(dip_attention_shape shape)
{
    return {shape.n_heads, shape.head_size, shape.causal, 1.0f / sqrtf((float)shape.head_size)};
}

/* The (sequence, head) of a block. */
struct attention_head {
    int length;                     /* tokens of the sequence */
    int n_heads;                    /* H, the width of a row of lse */
    int c;                          /* C, of a row of out; rows of qkv are three times as wide */
    int64_t in_qkv, in_out, in_lse; /* where this head's token 0 is in the three tensors */
};

__device__ __forceinline__ attention_head head_of_block(const int32_t *offsets,
                                                        attention_sizes sizes)
{
    attention_head at;
    const unsigned n_heads = (unsigned)sizes.n_heads;
    const unsigned sequence = blockIdx.x / n_heads, head = blockIdx.x % n_heads;
    const int64_t first = offsets[sequence];
    at.length = offsets[sequence + 1] - (int)first;
    at.n_heads = sizes.n_heads;
    at.c = sizes.n_heads * sizes.head_size;
    at.in_qkv = first * (3 * at.c) + head * (unsigned)sizes.head_size;
    at.in_out = first * at.c + head * (unsigned)sizes.head_size;
    at.in_lse = first * sizes.n_heads + head;
    return at;
}

/* A thread's place: its warp in the block, its lane, and the lane's place in a fragment. */
__device__ __forceinline__ int warp_of_thread()
{
    return (int)(threadIdx.x / WARP);
}

__device__ __forceinline__ int lane_of_thread()
{
    return (int)(threadIdx.x % WARP);
}

__device__ __forceinline__ int lane_g()
{
    return (int)(threadIdx.x % WARP / 4);
}

__device__ __forceinline__ int lane_t()
{
    return (int)(threadIdx.x % 4);
}

/* ---- which kernels ---------------------------------------------------------------------- */

/* On tensor cores, for head sizes 32, 64, 80, 96 and 128 and pointers that are multiples of 16. */
dip_status attention_forward_tiles(dip_exec *exec, void *out, float *lse, const void *qkv,
                                   const int32_t *offsets, dip_attention_shape shape);
dip_status attention_backward_tiles(dip_exec *exec, void *d_qkv, const void *d_out, const void *qkv,
                                    const void *out, const float *lse, const int32_t *offsets,
                                    dip_attention_shape shape);

/* For head sizes up to PLAIN_LARGEST_HEAD. T is float or __nv_bfloat16. */
enum { PLAIN_LARGEST_HEAD = 128 };
template <typename T>
dip_status attention_forward_plain(dip_exec *exec, void *out, float *lse, const void *qkv,
                                   const int32_t *offsets, dip_attention_shape shape);
template <typename T>
dip_status attention_backward_plain(dip_exec *exec, void *d_qkv, const void *d_out, const void *qkv,
                                    const void *out, const float *lse, const int32_t *offsets,
                                    dip_attention_shape shape);

/* ---- numbers ---------------------------------------------------------------------------- */

#define LOG2_E 1.44269504088896341f

/* Two bf16 in a register, the first one low. */
__device__ __forceinline__ uint32_t pair_of(float low, float high)
{
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}

__device__ __forceinline__ float2 floats_of_pair(uint32_t bits)
{
    return make_float2(__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000u));
}

/* ---- global memory to tiles and back ------------------------------------------------------ */

/* Row `row` of a head whose tokens are `stride` elements apart. */
template <typename T> __device__ __forceinline__ T *row_of(T *head, int row, int stride)
{
    return head + (uint64_t)(unsigned)row * (unsigned)stride;
}

/* How many lanes copy a row, 16 bytes each: a power of two, so that a lane stays in its column. */
__host__ __device__ constexpr int copy_lanes(int head_size)
{
    return head_size <= 32 ? 4 : head_size <= 64 ? 8 : 16;
}

/* The block copies rows first .. first + n_rows - 1 of a head (token i at `head` + i * stride) to
 * `tile`, TILE_STRIDE apart; rows from `length` on become zeros. To be followed by cp_async_wait
 * and a barrier. */
template <int D, int TILE_STRIDE = row_stride(D)>
__device__ __forceinline__ void start_rows(__nv_bfloat16 *tile, const __nv_bfloat16 *head,
                                           int stride, int first, int n_rows, int length)
{
    constexpr unsigned LANES = copy_lanes(D);
    const int column = (int)(threadIdx.x % LANES * 8), step = (int)(blockDim.x / LANES);
    if (column >= D) return;
    for (int row = (int)(threadIdx.x / LANES); row < n_rows; row += step) {
        const bool exists = first + row < length;
        cp_async_16(tile + row * TILE_STRIDE + column,
                    row_of(head, exists ? first + row : 0, stride) + column, exists);
    }
}

/* The A fragments of rows first .. first + 15 of a head: a[s] has columns 16 s .. 16 s + 15. Rows
 * from `length` on are zeros. Whole sectors are read: an even lane takes four columns of the left
 * eight, its odd neighbour the same of the right eight, and then they trade. */
template <int D>
__device__ __forceinline__ void load_fragments(uint32_t (&a)[D / 16][4], const __nv_bfloat16 *head,
                                               int stride, int first, int length)
{
    const int t = lane_t();
    const bool odd = t % 2 != 0;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = first + lane_g() + 8 * half;
        const bool exists = row < length;
        const uint2 *const from = reinterpret_cast<const uint2 *>(
            row_of(head, exists ? row : 0, stride) + 2 * t + (odd ? 6 : 0));
#pragma unroll
        for (int s = 0; s < D / 16; s++) {
            const uint2 x = exists ? __ldg(from + 4 * s) : make_uint2(0, 0);
            const uint32_t got = __shfl_xor_sync(ALL_LANES, odd ? x.x : x.y, 1);
            a[s][half] = odd ? got : x.x;
            a[s][2 + half] = odd ? x.y : got;
        }
    }
}

/* Rows first .. first + 15 of a head, those before `length`, become the accumulators, c[j] for
 * columns 8 j .. 8 j + 7, times the factor of rows g and g + 8. Neighbours trade as above. */
template <int D>
__device__ __forceinline__ void store_tile(__nv_bfloat16 *head, int stride, int first, int length,
                                           const float (&c)[D / 8][4], const float (&factor)[2])
{
    const int t = lane_t();
    const bool odd = t % 2 != 0;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = first + lane_g() + 8 * half;
        uint2 *const to =
            reinterpret_cast<uint2 *>(row_of(head, row, stride) + 2 * t + (odd ? 6 : 0));
#pragma unroll
        for (int j = 0; j < D / 8; j += 2) {
            const uint32_t left =
                pair_of(c[j][2 * half] * factor[half], c[j][2 * half + 1] * factor[half]);
            const uint32_t right =
                pair_of(c[j + 1][2 * half] * factor[half], c[j + 1][2 * half + 1] * factor[half]);
            const uint32_t got = __shfl_xor_sync(ALL_LANES, odd ? left : right, 1);
            if (row < length) to[2 * j] = odd ? make_uint2(got, right) : make_uint2(left, got);
        }
    }
}

/* ---- products ----------------------------------------------------------------------------- */

/* What this lane tells ldmatrix of the 16 x 16 block at `block`, whose rows are `stride` elements
 * apart: its four matrices in the order (0, 0), (0, 8), (8, 0), (8, 8) ... */
__device__ __forceinline__ const __nv_bfloat16 *lane_by_rows(const __nv_bfloat16 *block, int stride)
{
    const int lane = lane_of_thread();
    return block + (lane / 16 * 8 + lane % 8) * stride + lane / 8 % 2 * 8;
}

/* ... or (0, 0), (8, 0), (0, 8), (8, 8). */
__device__ __forceinline__ const __nv_bfloat16 *lane_by_columns(const __nv_bfloat16 *block,
                                                                int stride)
{
    const int lane = lane_of_thread();
    return block + (lane / 8 % 2 * 8 + lane % 8) * stride + lane / 16 * 8;
}

/* c (16 x 16, two accumulators) += A B^T with A (16 x D) in fragments and B 16 rows of a tile;
 * by_rows: this lane's place in the first of them. */
template <int D>
__device__ __forceinline__ void multiply_rows(float (*c)[4], const uint32_t (&a)[D / 16][4],
                                              const __nv_bfloat16 *by_rows)
{
#pragma unroll
    for (int s = 0; s < D / 16; s++) {
        uint32_t b[4];
        ldmatrix_x4(b, by_rows + 16 * s);
        mma_bf16_16x8x16(c[0], a[s], b);
        mma_bf16_16x8x16(c[1], a[s], b + 2);
    }
}

/* c (16 x D) += A B with A (16 x 16) a fragment and B (16 x D) rows of a tile; by_columns: this
 * lane's place in them. */
template <int D>
__device__ __forceinline__ void multiply_columns(float (&c)[D / 8][4], const uint32_t (&a)[4],
                                                 const __nv_bfloat16 *by_columns)
{
#pragma unroll
    for (int s = 0; s < D / 16; s++) {
        uint32_t b[4];
        ldmatrix_x4_transposed(b, by_columns + 16 * s);
        mma_bf16_16x8x16(c[2 * s], a, b);
        mma_bf16_16x8x16(c[2 * s + 1], a, b + 2);
    }
}

/* Accumulators of 16 x 16, rounded, as the A fragment of the next product. */
__device__ __forceinline__ void fragment_of(uint32_t (&a)[4], const float (&left)[4],
                                            const float (&right)[4])
{
    a[0] = pair_of(left[0], left[1]);
    a[1] = pair_of(left[2], left[3]);
    a[2] = pair_of(right[0], right[1]);
    a[3] = pair_of(right[2], right[3]);
}

template <int N> __device__ __forceinline__ void clear(float (&c)[N][4])
{
#pragma unroll
    for (int j = 0; j < N; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) c[j][e] = 0.0f;
}

/* ---- what the four lanes of a row share ---------------------------------------------------- */

__device__ __forceinline__ float quad_sum(float x)
{
    x += __shfl_xor_sync(ALL_LANES, x, 1);
    return x + __shfl_xor_sync(ALL_LANES, x, 2);
}

__device__ __forceinline__ float quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}

#endif
