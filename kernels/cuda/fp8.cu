/* 8-bit copies of tensors, straight or turned, and the scales they are made with (fp8.h).
 *
 * A block makes one tile of TILE_ROWS x TILE_COLUMNS. A thread reads ROWS_AT_ONCE rows of
 * PACK columns, 16 bytes each, so that a column of what it has is a word of the turned tile, which
 * goes through shared memory and is written 16 bytes at a time. Both accesses to shared memory are
 * free of bank conflicts: column group g keeps its chunk q at place q ^ g.
 *
 * A maximum does not depend on the order in which it is taken, so the atomics on the bits of
 * non-negative floats always leave the same.                                                   */
#include <cuda_fp8.h>

#include "kernels/cuda/access.cuh"
#include "kernels/cuda/fp8.h"

enum {
    THREADS = 256,
    WARPS = THREADS / WARP,
    PACK = 8,         /* bf16 elements in 16 bytes */
    ROWS_AT_ONCE = 4, /* bytes in a word */
    CHUNK_ROWS = 16,  /* bytes in 16 bytes */
    GROUPS = 8,       /* of PACK columns */
    TILE_COLUMNS = GROUPS * PACK,
    TILE_ROWS = THREADS / GROUPS * ROWS_AT_ONCE,
    CHUNKS = TILE_ROWS / CHUNK_ROWS,
    MAX_BLOCKS = 256 /* that look for a maximum */
};

static_assert(CHUNKS == GROUPS, "a chunk's place is its number ^ its column's group");

/* The largest power of two that takes `maximum` to no more than `largest`; 1 for a tensor of zeros.
 */
__device__ __forceinline__ float scale_of(float largest, float maximum)
{
    const float most = 8.507059173023462e37f /* 2^126: its inverse is a normal number */;
    if (maximum == 0.0f) return 1.0f;
    return __uint_as_float(__float_as_uint(fminf(largest / maximum, most)) & 0x7f800000u);
}

/* Take the largest of the block's magnitudes into the scaling; every thread of the block calls. */
__device__ __forceinline__ void note_maximum(dip_fp8_scaling *scaling, float maximum)
{
    __shared__ float of_warp[WARPS];
    maximum = warp_max(maximum);
    if (threadIdx.x % WARP == 0) of_warp[threadIdx.x / WARP] = maximum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int i = 1; i < WARPS; i++) maximum = fmaxf(maximum, of_warp[i]);
    /* Most blocks see that there is nothing to do: an old value can only be smaller. */
    if (__float_as_uint(maximum) > scaling->max_bits)
        atomicMax(&scaling->max_bits, __float_as_uint(maximum));
}

__device__ __forceinline__ void load(float (&x)[PACK], const __nv_bfloat16 *in)
{
    unpack(x, load_pack<__nv_bfloat16, PACK>(in));
}

__device__ __forceinline__ float largest_finite(float maximum, const float (&x)[PACK])
{
#pragma unroll
    for (int j = 0; j < PACK; j++)
        if (isfinite(x[j])) maximum = fmaxf(maximum, fabsf(x[j]));
    return maximum;
}

/* ---- the maximum of a tensor that has no history ------------------------------------------ */

static __global__ void __launch_bounds__(THREADS)
    find_maxima(dip_fp8_copy first, dip_fp8_copy second)
{
    dip_fp8_scaling *const scaling = blockIdx.y == 0 ? first.scaling : second.scaling;
    const void *const in = blockIdx.y == 0 ? first.in : second.in;
    const int64_t n = blockIdx.y == 0 ? first.rows * first.columns : second.rows * second.columns;
    float maximum = 0.0f;
    if (scaling->scale != 0.0f) return;
    for (int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * PACK; i < n;
         i += (int64_t)gridDim.x * THREADS * PACK) {
        float x[PACK];
        load(x, static_cast<const __nv_bfloat16 *>(in) + i);
        maximum = largest_finite(maximum, x);
    }
    note_maximum(scaling, maximum);
}

/* ---- copies ------------------------------------------------------------------------------- */

/* PACK bytes, x[0] the lowest. */
__device__ __forceinline__ uint2 quantise(const float (&x)[PACK], float scale, bool is_e5m2)
{
    uint32_t pairs[PACK / 2];
#pragma unroll
    for (int i = 0; i < PACK / 2; i++) {
        /* An infinity would saturate. */
        const float a = isfinite(x[2 * i]) ? x[2 * i] * scale : x[2 * i] - x[2 * i];
        const float b = isfinite(x[2 * i + 1]) ? x[2 * i + 1] * scale : x[2 * i + 1] - x[2 * i + 1];
        const float2 both = make_float2(a, b);
        pairs[i] = is_e5m2 ? __nv_cvt_float2_to_fp8x2(both, __NV_SATFINITE, __NV_E5M2)
                           : __nv_cvt_float2_to_fp8x2(both, __NV_SATFINITE, __NV_E4M3);
    }
    return make_uint2(pairs[0] | pairs[1] << 16, pairs[2] | pairs[3] << 16);
}

/* Byte `column` of every row's PACK bytes. */
__device__ __forceinline__ uint32_t column_word(const uint2 (&bytes)[ROWS_AT_ONCE], int column)
{
    uint32_t word = 0;
#pragma unroll
    for (int row = 0; row < ROWS_AT_ONCE; row++) {
        const uint32_t half = column < 4 ? bytes[row].x : bytes[row].y;
        word |= (half >> (column % 4 * 8) & 0xff) << (8 * row);
    }
    return word;
}

/* Blocks from 0 are the tiles of the first copy, those from n_first the second's. */
static __global__ void __launch_bounds__(THREADS)
    copy_tiles(dip_fp8_copy first, dip_fp8_copy second, int64_t n_first)
{
    __shared__ uint32_t turned_tile[TILE_COLUMNS][TILE_ROWS / ROWS_AT_ONCE];
    const bool is_first = blockIdx.x < n_first;
    const int64_t tile = is_first ? blockIdx.x : blockIdx.x - n_first;
    const int64_t rows = is_first ? first.rows : second.rows;
    const int64_t columns = is_first ? first.columns : second.columns;
    const void *const in = is_first ? first.in : second.in;
    uint8_t *const straight = is_first ? first.straight : second.straight;
    uint8_t *const turned = is_first ? first.turned : second.turned;
    dip_fp8_scaling *const scaling = is_first ? first.scaling : second.scaling;
    const bool is_e5m2 = is_first ? first.is_e5m2 : second.is_e5m2;

    const float kept = scaling->scale;
    const float scale =
        kept != 0.0f ? kept : scale_of(scaling->largest, __uint_as_float(scaling->max_bits));
    if (tile == 0 && threadIdx.x == 0) scaling->inverse = 1.0f / scale;

    const int64_t tiles_a_row = (columns + TILE_COLUMNS - 1) / TILE_COLUMNS;
    const int64_t tile_row = tile / tiles_a_row * TILE_ROWS;
    const int64_t tile_column = tile % tiles_a_row * TILE_COLUMNS;
    const int group = threadIdx.x % GROUPS, place = threadIdx.x / GROUPS;
    const int64_t row = tile_row + place * ROWS_AT_ONCE, column = tile_column + group * PACK;
    float maximum = 0.0f;
    if (row < rows && column < columns) { /* all of it: the sizes are multiples of 16 */
        uint2 bytes[ROWS_AT_ONCE];
        float x[ROWS_AT_ONCE][PACK];
#pragma unroll
        for (int i = 0; i < ROWS_AT_ONCE; i++)
            load(x[i], static_cast<const __nv_bfloat16 *>(in) + (row + i) * columns + column);
#pragma unroll
        for (int i = 0; i < ROWS_AT_ONCE; i++) {
            maximum = largest_finite(maximum, x[i]);
            bytes[i] = quantise(x[i], scale, is_e5m2);
        }
        if (straight) {
#pragma unroll
            for (int i = 0; i < ROWS_AT_ONCE; i++)
                *reinterpret_cast<uint2 *>(straight + (row + i) * columns + column) = bytes[i];
        }
        const int word = (place / 4 ^ group) * 4 + place % 4;
#pragma unroll
        for (int j = 0; j < PACK; j++) turned_tile[group * PACK + j][word] = column_word(bytes, j);
    }
    note_maximum(scaling, maximum); /* has a barrier, which the tile needs too */
    if (!turned) return;
#pragma unroll
    for (int i = 0; i < TILE_COLUMNS * CHUNKS / THREADS; i++) {
        const int chunk = threadIdx.x % CHUNKS;
        const int at = i * (THREADS / CHUNKS) + threadIdx.x / CHUNKS;
        const int64_t turned_row = tile_column + at, first_row = tile_row + chunk * CHUNK_ROWS;
        if (turned_row >= columns || first_row >= rows) continue;
        const uint32_t *const words = &turned_tile[at][(chunk ^ at / PACK) * 4];
        *reinterpret_cast<uint4 *>(turned + turned_row * rows + first_row) =
            make_uint4(words[0], words[1], words[2], words[3]);
    }
}

static int64_t tiles_of(const dip_fp8_copy &copy)
{
    return ceil_div(copy.rows, TILE_ROWS) * ceil_div(copy.columns, TILE_COLUMNS);
}

void dip_cuda_fp8_make_copies(dip_exec *exec, const dip_fp8_copy copies[2])
{
    const cudaStream_t stream = dip_cuda_of(exec)->stream;
    const int64_t n_first = tiles_of(copies[0]), n = n_first + tiles_of(copies[1]);
    int64_t n_packs = 0;
    for (int i = 0; i < 2; i++) {
        const int64_t packs = copies[i].rows * copies[i].columns / PACK;
        if (packs > n_packs) n_packs = packs;
    }
    const int64_t most = ceil_div(n_packs, THREADS);
    const dim3 grid((unsigned)(most < (int64_t)MAX_BLOCKS ? most : (int64_t)MAX_BLOCKS), 2);
    DIP_LAUNCH(find_maxima, grid, THREADS, 0, stream)(copies[0], copies[1]);
    DIP_LAUNCH(copy_tiles, (unsigned)n, THREADS, 0, stream)(copies[0], copies[1], n_first);
}

/* ---- history ------------------------------------------------------------------------------ */

static __global__ void __launch_bounds__(THREADS)
    push_maxima(dip_fp8_scaling *scalings, int n_scalings)
{
    const int i = (int)(blockIdx.x * THREADS + threadIdx.x);
    if (i >= n_scalings) return;
    dip_fp8_scaling *const scaling = &scalings[i];
    if (scaling->max_bits == 0) return; /* not used in this step, or nothing finite in it */
    scaling->history[scaling->n_steps++ % DIP_FP8_HISTORY] = __uint_as_float(scaling->max_bits);
    scaling->max_bits = 0;
    float maximum = 0.0f;
    for (int j = 0; j < DIP_FP8_HISTORY; j++) maximum = fmaxf(maximum, scaling->history[j]);
    scaling->scale = scale_of(scaling->largest, maximum);
}

void dip_cuda_fp8_push_maxima(dip_exec *exec, dip_fp8_scaling *scalings, int n_scalings)
{
    if (n_scalings == 0) return;
    DIP_LAUNCH(push_maxima, (unsigned)ceil_div(n_scalings, THREADS), THREADS, 0,
               dip_cuda_of(exec)->stream)
    (scalings, n_scalings);
}
