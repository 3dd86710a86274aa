/* contrastive_tile.cuh - the products of the contrastive loss, a tile at a time.
 *
 * A block makes tiles of C = A B of M x N floats, one after the other, which stay in its registers
 * for the caller to look at. Their k steps are one pipeline: while a step is multiplied, those
 * after it are on their way to shared memory, also across the end of a tile.
 *
 * Usage:   tile_pipeline<S, ...> tiles(shared, a, b, ...); tiles.next(c) once for each tile.
 * Matrices: A is read as [m][k] or, TRANSPOSED, as [k][m]; B as [n][k] or, TRANSPOSED, as [k][n].
 * Sums:    each element is one sum over k in order, whatever the tile it lies in.
 *
 * Shared:  a step of A and of B; a row of chunks of 16 bytes for each row of memory (an m or n, or
 *          a k when TRANSPOSED). Chunk c of row r lies at c ^ (r % 8): eight rows at the same
 *          chunk, which is what ldmatrix reads, are in different banks; so are eight chunks of a
 *          row.
 * Lanes:   lane = 4 g + t, as in ptx.cuh. Of its warp's part of a tile a lane holds, in c[i][j][e],
 *          row 16 i + g + 8 (e / 2), column 8 j + 2 t + e % 2; tile_place says which.           */
#ifndef DIP_KERNELS_CUDA_CONTRASTIVE_TILE_CUH
#define DIP_KERNELS_CUDA_CONTRASTIVE_TILE_CUH

#include "kernels/cuda/access.cuh"
#include "kernels/cuda/ptx.cuh"

namespace contrastive
{
enum { CHUNK_BYTES = 16, STEP_BYTES = 128, N_STAGES = 3 };

/* WARPS_M_ x WARPS_N_ warps, each with M16_ x N8_ fragments of 16 x 8. */
template <typename T_, int WARPS_M_, int WARPS_N_, int M16_, int N8_> struct tile_shape {
    typedef T_ T;
    static constexpr int WARPS_M = WARPS_M_, WARPS_N = WARPS_N_, M16 = M16_, N8 = N8_;
    static constexpr int THREADS = WARPS_M * WARPS_N * WARP;
    static constexpr int M = WARPS_M * M16 * 16, N = WARPS_N * N8 * 8;
    static constexpr int K = STEP_BYTES / (int)sizeof(T); /* of a step */
    static constexpr int A_BYTES = M * STEP_BYTES, STAGE_BYTES = (M + N) * STEP_BYTES;
    static constexpr int SHARED_BYTES = N_STAGES * STAGE_BYTES;
};

/* Enough arithmetic for each byte read that tensor cores and not shared memory or L2 are what a
 * large batch waits for; 8 warps with 128 sums a lane fill a multiprocessor. */
typedef tile_shape<__nv_bfloat16, 2, 4, 4, 8> large_tile;
/* More blocks of a small batch; fits where shared memory is 100 KB. */
typedef tile_shape<__nv_bfloat16, 2, 2, 2, 4> small_tile;
typedef tile_shape<float, 2, 2, 2, 4> float_tile;

template <class S> using tile_sums = float[S::M16][S::N8][4];

/* Where in a tile this thread's sums are. */
template <class S> struct tile_place {
    int warp_m, warp_n, g, t;

    __device__ __forceinline__ tile_place()
    {
        const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
        warp_m = warp / S::WARPS_N;
        warp_n = warp % S::WARPS_N;
        g = lane / 4;
        t = lane % 4;
    }
    /* Of c[i][..][2 h ..]: with index = 2 i + h, 0 .. 2 M16 - 1. */
    __device__ __forceinline__ int row(int index) const
    {
        return warp_m * S::M16 * 16 + index / 2 * 16 + index % 2 * 8 + g;
    }
    /* Of c[..][j][.. e]: with index = 2 j + e, 0 .. 2 N8 - 1. */
    __device__ __forceinline__ int column(int index) const
    {
        return warp_n * S::N8 * 8 + index / 2 * 8 + 2 * t + index % 2;
    }
};

/* ---- memory to shared memory ------------------------------------------------------------ */

/* Rows `stride` elements apart, of which n_rows x n_columns exist; beyond them it reads as zero.
 * Columns come in whole chunks, and rows begin at multiples of 16 bytes. */
template <typename T> struct matrix {
    const T *at;
    int stride, n_rows, n_columns;
};

/* This thread's share of the copies of one operand: WIDTH m or n, a step of k at a time. It takes
 * every ROW_STEP-th row, always at the same place of eight, so that one address and one offset lead
 * to all. */
template <class S, bool TRANSPOSED, int WIDTH> class operand_copy
{
    typedef typename S::T T;
    static constexpr int PER_CHUNK = CHUNK_BYTES / (int)sizeof(T);
    static constexpr int ROWS = TRANSPOSED ? S::K : WIDTH;
    static constexpr int CHUNKS = TRANSPOSED ? WIDTH / PER_CHUNK : STEP_BYTES / CHUNK_BYTES;
    static constexpr int ROW_STEP = S::THREADS / CHUNKS;
    static_assert(CHUNKS % 8 == 0 && ROW_STEP % 8 == 0 && ROWS % ROW_STEP == 0, "");

    const T *at; /* the first chunk of the step */
    int stride;  /* of rows */
    int n_rows;  /* that exist from the first one of the step on */
    int offset;  /* of the first chunk in shared memory */

  public:
    /* From m or n `first` on. */
    __device__ __forceinline__ operand_copy(const matrix<T> &from, int first)
    {
        const int r = (int)threadIdx.x / CHUNKS, c = (int)threadIdx.x % CHUNKS;
        const int row = TRANSPOSED ? r : first + r;
        const int column = (TRANSPOSED ? first : 0) + c * PER_CHUNK;
        stride = from.stride;
        at = from.at + (int64_t)row * stride + column;
        n_rows = column < from.n_columns ? from.n_rows - row : 0;
        offset = (r * CHUNKS + (c ^ (r % 8))) * CHUNK_BYTES;
    }

    __device__ __forceinline__ void copy(unsigned char *shared) const
    {
        const T *row = at;
#pragma unroll
        for (int i = 0; i < ROWS / ROW_STEP; i++) {
            cp_async_16(shared + offset + i * ROW_STEP * CHUNKS * CHUNK_BYTES, row,
                        i * ROW_STEP < n_rows);
            row += (int64_t)ROW_STEP * stride;
        }
    }

    __device__ __forceinline__ void next_step()
    {
        if (TRANSPOSED) {
            at += (int64_t)S::K * stride;
            n_rows -= S::K;
        } else {
            at += S::K;
        }
    }

    /* The first step of the next m or n; not for TRANSPOSED ones. */
    __device__ __forceinline__ void next_tile(int n_steps)
    {
        static_assert(!TRANSPOSED, "");
        at += (int64_t)WIDTH * stride - n_steps * S::K;
        n_rows -= WIDTH;
    }
    __device__ __forceinline__ void same_tile(int n_steps)
    {
        static_assert(!TRANSPOSED, "");
        at -= n_steps * S::K;
    }
};

/* ---- shared memory to registers, and the product --------------------------------------------- */

/* Operands of one substep for a warp's part of the tile: 16 k for bf16. */
template <class S, typename T = typename S::T> struct fragments {
    static constexpr int SUBSTEPS = S::K / 16;
    uint32_t a[S::M16][4], b[S::N8][2];

    /* Both operands are matrices of 8 x 8 in groups of four, which lane groups of eight address:
     * two along m or n, two along k. `tall` has the second one below the first, `wide` beside it.
     */
    template <bool A_TRANSPOSED, bool B_TRANSPOSED>
    __device__ __forceinline__ void load(const unsigned char *stage, int substep)
    {
        const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
        const int first_a = warp / S::WARPS_N * S::M16 * 16,
                  first_b = warp % S::WARPS_N * S::N8 * 8;
        const int r = lane % 8, low = lane / 8 % 2, high = lane / 16;
#pragma unroll
        for (int i = 0; i < S::M16; i++) {
            const int m = first_a + 16 * i;
            if (A_TRANSPOSED)
                ldmatrix_x4_transposed(
                    a[i], chunk<S::M / 8>(stage, 16 * substep + 8 * high, m / 8 + low, r));
            else
                ldmatrix_x4(a[i], chunk<8>(stage, m + 8 * low, 2 * substep + high, r));
        }
        const unsigned char *stage_b = stage + S::A_BYTES;
#pragma unroll
        for (int j = 0; j < S::N8; j += 2) {
            const int n = first_b + 8 * j;
            uint32_t pair[4];
            if (B_TRANSPOSED)
                ldmatrix_x4_transposed(
                    pair, chunk<S::N / 8>(stage_b, 16 * substep + 8 * low, n / 8 + high, r));
            else
                ldmatrix_x4(pair, chunk<8>(stage_b, n + 8 * high, 2 * substep + low, r));
            b[j][0] = pair[0];
            b[j][1] = pair[1];
            b[j + 1][0] = pair[2];
            b[j + 1][1] = pair[3];
        }
    }

    /* Row r of the 8 x 8 matrix whose first row is `row`, a multiple of 8. */
    template <int CHUNKS>
    static __device__ __forceinline__ const unsigned char *chunk(const unsigned char *shared,
                                                                 int row, int column, int r)
    {
        return shared + ((row + r) * CHUNKS + (column ^ r)) * CHUNK_BYTES;
    }

    __device__ __forceinline__ void multiply(tile_sums<S> &c) const
    {
#pragma unroll
        for (int i = 0; i < S::M16; i++)
#pragma unroll
            for (int j = 0; j < S::N8; j++) mma_bf16_16x8x16(c[i][j], a[i], b[j]);
    }
};

/* One k for float, in the same places of the tile. */
template <class S> struct fragments<S, float> {
    static constexpr int SUBSTEPS = S::K;
    float a[2 * S::M16], b[2 * S::N8];

    template <bool A_TRANSPOSED, bool B_TRANSPOSED>
    __device__ __forceinline__ void load(const unsigned char *stage, int substep)
    {
        const tile_place<S> at;
#pragma unroll
        for (int i = 0; i < 2 * S::M16; i++)
            a[i] = A_TRANSPOSED ? element<S::M / 4>(stage, substep, at.row(i))
                                : element<8>(stage, at.row(i), substep);
        const unsigned char *stage_b = stage + S::A_BYTES;
#pragma unroll
        for (int j = 0; j < 2 * S::N8; j++)
            b[j] = B_TRANSPOSED ? element<S::N / 4>(stage_b, substep, at.column(j))
                                : element<8>(stage_b, at.column(j), substep);
    }

    template <int CHUNKS>
    static __device__ __forceinline__ float element(const unsigned char *shared, int row,
                                                    int column)
    {
        return ((const float *)(shared +
                                (row * CHUNKS + (column / 4 ^ row % 8)) * CHUNK_BYTES))[column % 4];
    }

    __device__ __forceinline__ void multiply(tile_sums<S> &c) const
    {
#pragma unroll
        for (int i = 0; i < S::M16; i++)
#pragma unroll
            for (int j = 0; j < S::N8; j++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    c[i][j][e] = fmaf(a[2 * i + e / 2], b[2 * j + e % 2], c[i][j][e]);
    }
};

/* ---- the pipeline ----------------------------------------------------------------------- */

/* Tiles beside each other: rows first_m .. of A with columns first_n, first_n + N, .. of B. More
 * than one only when neither is TRANSPOSED. */
template <class S, bool A_TRANSPOSED, bool B_TRANSPOSED> class tile_pipeline
{
    typedef typename S::T T;
    static constexpr bool ONE_TILE = A_TRANSPOSED || B_TRANSPOSED;

    unsigned char *const shared;
    operand_copy<S, A_TRANSPOSED, S::M> a;
    operand_copy<S, B_TRANSPOSED, S::N> b;
    const int n_steps;  /* of a tile */
    int to_fetch;       /* steps of all tiles that have not been asked for */
    int fetch_step = 0; /* of the tile that is being fetched */
    int stage = 0;      /* of the step that is multiplied */

  public:
    /* `shared` has S::SHARED_BYTES; n_k, n_tiles > 0. */
    __device__ __forceinline__ tile_pipeline(unsigned char *shared_memory,
                                             const matrix<T> &a_matrix, const matrix<T> &b_matrix,
                                             int first_m, int first_n, int n_k, int n_tiles)
        : shared(shared_memory), a(a_matrix, first_m), b(b_matrix, first_n),
          n_steps((n_k + S::K - 1) / S::K), to_fetch(n_steps * n_tiles)
    {
#pragma unroll
        for (int i = 0; i < N_STAGES - 1; i++) fetch(i);
        arrive();
    }

    /* The next tile. Inside it, after every thread has entered, the block passes a barrier. */
    __device__ __forceinline__ void next(tile_sums<S> &c)
    {
        constexpr int SUBSTEPS = fragments<S>::SUBSTEPS;
        fragments<S> operands[2]; /* of this substep and of the next */
        operands[0].template load<A_TRANSPOSED, B_TRANSPOSED>(shared + stage * S::STAGE_BYTES, 0);
#pragma unroll
        for (int i = 0; i < S::M16; i++)
#pragma unroll
            for (int j = 0; j < S::N8; j++)
#pragma unroll
                for (int e = 0; e < 4; e++) c[i][j][e] = 0.0f;
#pragma unroll 1
        for (int step = 0; step < n_steps; step++) {
            /* Into the stage of the step before, which every warp has read. */
            fetch(stage > 0 ? stage - 1 : N_STAGES - 1);
            const unsigned char *present = shared + stage * S::STAGE_BYTES;
            stage = stage + 1 < N_STAGES ? stage + 1 : 0;
#pragma unroll
            for (int i = 0; i < SUBSTEPS; i++) {
                if (i == SUBSTEPS - 1) { /* the first operands of the next step */
                    arrive();
                    operands[(i + 1) % 2].template load<A_TRANSPOSED, B_TRANSPOSED>(
                        shared + stage * S::STAGE_BYTES, 0);
                } else {
                    operands[(i + 1) % 2].template load<A_TRANSPOSED, B_TRANSPOSED>(present, i + 1);
                }
                operands[i % 2].multiply(c);
            }
        }
    }

  private:
    __device__ __forceinline__ void fetch(int into_stage)
    {
        if (to_fetch > 0) {
            to_fetch--;
            unsigned char *into = shared + into_stage * S::STAGE_BYTES;
            a.copy(into);
            b.copy(into + S::A_BYTES);
            a.next_step();
            b.next_step();
            if constexpr (!ONE_TILE)
                if (++fetch_step == n_steps) {
                    fetch_step = 0;
                    a.same_tile(n_steps);
                    b.next_tile(n_steps);
                }
        }
        cp_async_commit();
    }

    /* The step after the present one is in shared memory, and the present stage has been read. */
    __device__ __forceinline__ void arrive()
    {
        cp_async_wait<N_STAGES - 2>();
        __syncthreads();
    }
};

} // namespace contrastive

#endif
