/* gemm_blocks.h - what the files of the blocked products (gemm_*_amx.c) share.
 *
 * A product C[M, N] = A[M, K] B[K, N] is cut into blocks of 32 x 32. A block of an operand is
 * two tiles of 16 rows of 64 bytes, stored one after the other:
 *   A  tile t, row i:       the 32 values A[16 t + i][k .. k + 31]
 *   B  tile t, row i:       the pairs (B[k + 2 i][n], B[k + 2 i + 1][n]), n = 16 t .. 16 t + 15
 * Blocks along K follow each other, so one C block walks through memory. Edges are zeros.
 * A float operand is three such blocks, its parts x1 + x2 + x3 = x in bf16 ("planes").
 *
 * The *_amx.c files are compiled for AMX and AVX-512 BF16; those without tile instructions
 * (all but gemm_tiles_amx.c) also serve CPUs that have only the latter.                     */
#ifndef DIP_KERNELS_ONEDNN_GEMM_BLOCKS_H
#define DIP_KERNELS_ONEDNN_GEMM_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/ops.h"

enum {
    GEMM_BLOCK = 32,         /* rows, columns and depth of a block */
    GEMM_TILE_BYTES = 1024,  /* 16 rows of 64 bytes */
    GEMM_BLOCK_BYTES = 2048, /* one plane of a block */
    GEMM_SPLIT_PLANES = 3,   /* bf16 parts of a float */
    GEMM_WEIGHT_ROWS = 256   /* rows of a batch summed at a time in backward_weight */
};

static inline int64_t dip_gemm_n_blocks(int64_t n)
{
    return (n + GEMM_BLOCK - 1) / GEMM_BLOCK;
}
static inline size_t dip_gemm_round_up(size_t n_bytes)
{
    return (n_bytes + 63) & ~(size_t)63;
}

/* ---- packing (gemm_pack_amx.c) --------------------------------------------------------- */

/* Which operand a block becomes, and what its rows in memory run over. */
typedef enum dip_gemm_format {
    GEMM_A_ROWS,    /* memory is A[m][k] */
    GEMM_A_COLUMNS, /* memory is A^T[k][m] */
    GEMM_B_ROWS,    /* memory is B[k][n] */
    GEMM_B_COLUMNS  /* memory is B^T[n][k] */
} dip_gemm_format;

/* Pack n_rows x n_cols (both <= 32) at `src`, rows `ld` elements apart, into 1 (bf16) or 3 (f32)
 * planes at `dst`. column_sums, if not NULL: [32], += the sums over the rows, in order. */
typedef void dip_gemm_pack_fn(uint8_t *dst, float *column_sums, const void *src, int64_t ld,
                              int n_rows, int n_cols, dip_gemm_format format);
dip_gemm_pack_fn dip_gemm_pack_bf16, dip_gemm_pack_f32;

/* ---- after the product (gemm_epilogue_amx.c) ------------------------------------------- */

typedef struct dip_gemm_epilogue dip_gemm_epilogue;

/* Finish the n_rows x n_cols corner of a block: c has 32 columns a row; (row, col) is its
 * first element's place in the output. */
typedef void dip_gemm_epilogue_fn(const dip_gemm_epilogue *epilogue, const float *c, int64_t row,
                                  int64_t col, int n_rows, int n_cols);

struct dip_gemm_epilogue {
    dip_gemm_epilogue_fn *run;
    void *out, *pre;      /* [M, N]; pre NULL: not saved */
    const void *residual; /* [M, N] or NULL */
    const void *act_pre;  /* [M, N]: the pre-activation that a gradient is multiplied by */
    const float *bias;    /* N rounded up to blocks; zeros when there is none */
    int64_t ld;           /* N */
};

/* `gradient`: multiply by act'(act_pre) instead of applying act. */
dip_gemm_epilogue_fn *dip_gemm_epilogue_for(dip_dtype dtype, dip_activation act, bool gradient);

/* ---- one block of C -------------------------------------------------------------------- */

/* A finished block that waits for its epilogue: the tile unit and the vector unit work at the
 * same time if a kernel does some of its rows after each step along K. */
typedef struct dip_gemm_pending {
    const dip_gemm_epilogue *epilogue;
    const float *c;
    int64_t row, col;
    int n_rows, n_cols, n_done; /* nothing waits when n_done == n_rows */
} dip_gemm_pending;

static inline void dip_gemm_pending_run(dip_gemm_pending *pending, int n_rows)
{
    int left = pending->n_rows - pending->n_done;
    if (n_rows > left) n_rows = left;
    if (n_rows <= 0) return;
    pending->epilogue->run(pending->epilogue, pending->c + pending->n_done * GEMM_BLOCK,
                           pending->row + pending->n_done, pending->col, n_rows, pending->n_cols);
    pending->n_done += n_rows;
}

/* Where the A blocks of a row of blocks lie: packed, or (bf16) in place. */
typedef struct dip_gemm_panel {
    const uint8_t *base;
    size_t row_bytes;  /* between rows of a tile */
    size_t tile_bytes; /* between the two tiles of a block */
    size_t step_bytes; /* between blocks along K */
} dip_gemm_panel;

/* c (rows c_ld floats apart) = or += the product of n_steps blocks. `pending`, if any, is
 * completed before c is written: it may wait for the same block. */
typedef void dip_gemm_kernel_fn(float *c, int64_t c_ld, bool accumulate, const dip_gemm_panel *a,
                                const uint8_t *b, int64_t n_steps, dip_gemm_pending *pending);
dip_gemm_kernel_fn dip_gemm_kernel_tiles_bf16, dip_gemm_kernel_tiles_split,
    dip_gemm_kernel_dot_bf16;

typedef struct dip_gemm_method {
    dip_dtype dtype;
    int n_planes;
    dip_gemm_pack_fn *pack;
    dip_gemm_kernel_fn *kernel;
    void (*thread_begin)(void), (*thread_end)(void); /* tile configuration; may be NULL */
} dip_gemm_method;

/* The blocked method for this CPU, or NULL. */
const dip_gemm_method *dip_gemm_method_for(dip_dtype dtype);

void dip_gemm_tiles_begin(void), dip_gemm_tiles_end(void); /* gemm_tiles_amx.c */

/* ---- whole products -------------------------------------------------------------------- */

/* out = epilogue(A B), all rows of a batch: forward and backward_input. */
typedef struct dip_gemm_rows_job {
    const void *a, *b;
    const void *bias; /* [n] T or NULL */
    int64_t m, n, k;
    bool b_transposed; /* b is [n][k] in memory, else [k][n] */
    bool gradient;     /* residual, bias, pre unused; act' of act_pre */
    dip_activation act;
    void *out, *pre;
    const void *residual, *act_pre;
    int n_threads;
    void *workspace;
} dip_gemm_rows_job;

/* d_w [p, q] += l^T r, summed over n rows; d_bias += column sums of l or of r. */
typedef struct dip_gemm_weight_job {
    const void *l, *r; /* [n, p], [n, q] */
    float *d_w, *d_bias;
    bool bias_from_l;
    int64_t n, p, q;
    int n_threads;
    void *workspace;
} dip_gemm_weight_job;

/* gemm_rows_amx.c, gemm_weight_amx.c */
void dip_gemm_rows(const dip_gemm_method *method, const dip_gemm_rows_job *job);
void dip_gemm_weight(const dip_gemm_method *method, const dip_gemm_weight_job *job);
size_t dip_gemm_rows_bytes(int n_planes, int64_t n, int64_t k, int n_threads);
size_t dip_gemm_weight_bytes(int n_planes, int64_t p, int64_t q);

/* gemm_finish*.c: one row of the job's output from the product's sums c [n]. */
typedef void dip_gemm_finish_fn(const dip_gemm_rows_job *job, dip_dtype dtype, const float *c,
                                int64_t row);
dip_gemm_finish_fn dip_gemm_finish_base, dip_gemm_finish_avx2, dip_gemm_finish_avx512;

dip_gemm_finish_fn *dip_gemm_finish_for_cpu(void); /* gemm_sgemm.c */

/* gemm_sgemm.c: the same without blocks. DIP_UNSUPPORTED, DIP_NOMEM: oneDNN refused. */
dip_status dip_gemm_sgemm_rows(dip_dtype dtype, const dip_gemm_rows_job *job);
dip_status dip_gemm_sgemm_weight(dip_dtype dtype, const dip_gemm_weight_job *job);
size_t dip_gemm_sgemm_rows_bytes(dip_dtype dtype, int64_t n, int64_t k, int n_threads);
size_t dip_gemm_sgemm_weight_bytes(dip_dtype dtype, int64_t p, int64_t q);

#endif
