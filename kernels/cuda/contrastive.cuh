/* contrastive.cuh - what the files of the contrastive loss share.
 *
 * Files:   contrastive_tile.cuh      products in tiles
 *          contrastive.cu            workspace, what both passes begin with, and the loss
 *          contrastive_forward.cu    forward
 *          contrastive_backward.cu   backward
 *
 * Products: u and v are first copied to the workspace as rows of T, padded with zeros to whole
 *          steps of a product. A tile holds dot products d = u_i . v_j; L = scale * d.
 * Units:   exponentials are powers of 2 for bf16, which the device has an instruction for, and
 *          of e for float, where it would cost accuracy; "units" are logarithms to that base.
 * Memory:  in bytes, with E' = E padded to 128 bytes of T (64 of bf16), B' = B padded to PADDING:
 *              2 B E' sizeof(T) + 4 B + the larger of
 *          forward   8 B' + (8 + 4) R B' / N + 8 B' R / M    R = min(B', BAND), tiles of M x N
 *          backward  min(B', SIDE)^2 sizeof(T)
 *          For bf16 at B = 262,144, E = 512: 537 MB + 134 MB. Whatever B is, gradients of the
 *          logits are in memory for a part of SIDE x SIDE pairs at most.
 */
#ifndef DIP_KERNELS_CUDA_CONTRASTIVE_CUH
#define DIP_KERNELS_CUDA_CONTRASTIVE_CUH

#include <math.h>

#include "kernels/cuda/contrastive_tile.cuh"

/* Tests on an emulated GPU make these smaller, so that small batches go through all of the code. */
#ifndef DIP_CONTRASTIVE_SMALL
#define DIP_CONTRASTIVE_SMALL 1024
#endif
#ifndef DIP_CONTRASTIVE_BAND
#define DIP_CONTRASTIVE_BAND 4096
#endif
#ifndef DIP_CONTRASTIVE_SIDE
#define DIP_CONTRASTIVE_SIDE 8192
#endif
#ifndef DIP_CONTRASTIVE_BLOCKS
#define DIP_CONTRASTIVE_BLOCKS 1024
#endif

namespace contrastive
{
enum {
    SMALL = DIP_CONTRASTIVE_SMALL,   /* largest batch for which small tiles are better */
    BAND = DIP_CONTRASTIVE_BAND,     /* rows whose partial sums are in memory at a time */
    SIDE = DIP_CONTRASTIVE_SIDE,     /* of the part whose gradients are in memory at a time */
    BLOCKS = DIP_CONTRASTIVE_BLOCKS, /* of a launch that balance the work well */
    PADDING = 256                    /* a multiple of the sides of every tile */
};
static_assert(BAND % PADDING == 0 && SIDE % PADDING == 0, "");

/* In the place of the dot product of a pair that does not count: its power is 0, whatever finite
 * reference is subtracted. And a reference below every other one that is still above that. */
static constexpr float NOT_A_PAIR = -1e30f, LOWEST = -1e29f;

/* ---- exponentials ----------------------------------------------------------------------- */

static constexpr double LOG2_E = 1.4426950408889634;

/* Units in a natural logarithm of 1. */
template <typename T> struct exp_base;
template <> struct exp_base<float> {
    static constexpr double UNITS = 1.0;
};
template <> struct exp_base<__nv_bfloat16> {
    static constexpr double UNITS = LOG2_E;
};

template <typename T> __device__ __forceinline__ float power(float x);
template <> __device__ __forceinline__ float power<float>(float x)
{
    return expf(x);
}
template <> __device__ __forceinline__ float power<__nv_bfloat16>(float x)
{
    return power_of_two(x);
}

/* A factor that exponentials of a tile have in common may be this many natural logarithms away from
 * another one: products and sums then stay far from the ends of float's range. */
static constexpr float WINDOW = 60.0f, NARROW_WINDOW = 28.0f;

/* ---- pairs ------------------------------------------------------------------------------ */

/* How a pair (i, j) is to be treated, by group and `duplicates`. */
struct pair_rules {
    const int32_t *group;    /* [B], NULL when only own pairs are special */
    bool positive;           /* DIP_DUP_POSITIVE, else DIP_DUP_MASK; if there is a group */
    const float *inv_counts; /* [B] 1 / |group| if positive, else NULL */
    int batch;
};

/* Does a tile with this corner need pair by pair attention? The same for all threads. */
template <class S>
__device__ __forceinline__ bool has_special_pairs(const pair_rules &rules, int top, int left)
{
    const bool whole = top + S::M <= rules.batch && left + S::N <= rules.batch;
    const bool own = top < left + S::N && left < top + S::M;
    return rules.group || own || !whole;
}

/* The pairs of this thread in a tile, by row. */
template <class S> class tile_pairs
{
    const pair_rules &rules;
    const int first, n_columns;   /* column of index 0, and how many there are from it on */
    int column_groups[2 * S::N8]; /* without groups, never that of the row */
    int own, group;               /* of the row: its own pair's distance from column index 0 */
    bool row_exists;

    static __device__ __forceinline__ int distance(int j) { return j / 2 * 8 + j % 2; }

  public:
    __device__ __forceinline__ tile_pairs(const pair_rules &pair_rules_, const tile_place<S> &at,
                                          int left)
        : rules(pair_rules_), first(left + at.column(0)), n_columns(rules.batch - first)
    {
#pragma unroll
        for (int j = 0; j < 2 * S::N8; j++) {
            column_groups[j] = 0;
            if (rules.group && distance(j) < n_columns)
                column_groups[j] = rules.group[first + distance(j)];
        }
    }
    __device__ __forceinline__ void set_row(int row)
    {
        row_exists = row < rules.batch;
        own = row - first;
        group = 1;
        if (rules.group && row_exists) group = rules.group[row];
    }
    /* Does the pair in column index j count at all, and is it a positive? */
    __device__ __forceinline__ void get(int j, bool &counts, bool &positive) const
    {
        const bool is_own = own == distance(j), alike = group == column_groups[j];
        const bool exists = row_exists & (distance(j) < n_columns);
        counts = exists & (is_own | rules.positive | !alike);
        positive = exists & (is_own | (rules.positive & alike));
    }
};

/* ---- sums ------------------------------------------------------------------------------- */

enum { SUM_THREADS = 1024 };

/* Of a block of SUM_THREADS, in a fixed order; thread 0 gets it. */
__device__ __forceinline__ double block_sum(double x)
{
    __shared__ double of_warps[SUM_THREADS / WARP];
    x = warp_sum(x);
    if (threadIdx.x % WARP == 0) of_warps[threadIdx.x / WARP] = x;
    __syncthreads();
    return threadIdx.x < WARP ? warp_sum(of_warps[threadIdx.x]) : 0.0;
}

/* ---- what both passes begin with, in contrastive.cu ------------------------------------- */

/* Where things are in the workspace. */
template <typename T> struct workspace {
    T *u, *v; /* [B, stride] */
    int stride;
    float *factors; /* [2]: scale, and scale in units */
    float *inv_counts;
    /* forward; a pair is (reference, sum): what has been summed is sum * base^reference */
    float2 *running;         /* [B'] of columns, over the bands so far */
    float2 *row_partials;    /* [tiles of a row of tiles, R] */
    float2 *column_partials; /* [tiles of a column of a band, B'] */
    float *positives;        /* [tiles of a row of tiles, R] sums of dot products */
    /* backward, in the same place */
    T *gradients; /* [R, R], R = min(B', SIDE) */
    size_t n_bytes;
};

/* Type and size alone decide, and whether large tiles fit. */
bool uses_large_tiles(const dip_exec *exec, int64_t batch);

/* Bind the workspace, copy the features, count the groups. */
template <typename T>
dip_status prepare(dip_exec *exec, const char *op, workspace<T> *out, pair_rules *rules,
                   const float *u, const float *v, dip_contrastive_shape shape);

/* Tiles a block makes: several when there are many, to keep its pipeline full. */
static inline int tiles_a_block(int64_t n_tiles)
{
    const int64_t n = n_tiles / BLOCKS;
    return n < 1 ? 1 : n > 4 ? 4 : (int)n;
}

static inline int64_t padded(int64_t n, int64_t unit)
{
    return ceil_div(n, unit) * unit;
}

/* `n` cut into equal parts of at most `largest`, rounded up to PADDING. */
static inline int64_t equal_parts(int64_t n, int64_t largest)
{
    const int64_t n_parts = ceil_div(n, largest);
    return padded(ceil_div(n, n_parts), PADDING);
}

} // namespace contrastive

#endif
