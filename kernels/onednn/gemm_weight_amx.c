/* d_w [p, q] += l^T r, summed over the rows of a batch: backward_weight.
 *
 * Rows are taken 256 at a time (16 KiB of a column of blocks): both operands are packed by all
 * threads, then every thread adds to its blocks of d_w. Two packing buffers take turns, so one
 * barrier a turn is enough: whoever packs into a buffer has passed the barrier that all reached
 * after they last read it. The sum of an element is always taken in the same order.
 *
 * Workspace: two of [l: block, step][r: block, step] */
#include "kernels/onednn/gemm_blocks.h"

#include <string.h>

enum { N_STEPS = GEMM_WEIGHT_ROWS / GEMM_BLOCK, PANEL_BLOCKS = 16 };

static size_t block_bytes(int n_planes)
{
    return (size_t)N_STEPS * (size_t)n_planes * GEMM_BLOCK_BYTES;
}

size_t dip_gemm_weight_bytes(int n_planes, int64_t p, int64_t q)
{
    return 2 * (size_t)(dip_gemm_n_blocks(p) + dip_gemm_n_blocks(q)) * block_bytes(n_planes);
}

static int at_most_block(int64_t n)
{
    return n < GEMM_BLOCK ? (int)n : GEMM_BLOCK;
}

/* Pack 32 columns of l or r, n_rows (<= 256) rows from `row` on, and sum them for the bias. */
static void pack_columns(uint8_t *dst, const dip_gemm_method *method,
                         const dip_gemm_weight_job *job, bool is_l, int64_t col, int64_t row,
                         int64_t n_rows)
{
    const uint8_t *src = is_l ? job->l : job->r;
    int64_t width = is_l ? job->p : job->q;
    int n_cols = at_most_block(width - col);
    bool with_bias = job->d_bias != NULL && job->bias_from_l == is_l;
    float sums[GEMM_BLOCK] = {0};
    for (int64_t i = 0; i < n_rows; i += GEMM_BLOCK) {
        size_t at = (size_t)((row + i) * width + col) * dip_dtype_bytes(method->dtype);
        method->pack(dst, with_bias ? sums : NULL, src + at, width, at_most_block(n_rows - i),
                     n_cols, is_l ? GEMM_A_COLUMNS : GEMM_B_ROWS);
        dst += (size_t)method->n_planes * GEMM_BLOCK_BYTES;
    }
    if (with_bias)
        for (int i = 0; i < n_cols; i++) job->d_bias[col + i] += sums[i];
}

static void add_block(const dip_gemm_method *method, const dip_gemm_weight_job *job,
                      const uint8_t *l, const uint8_t *r, int64_t n_steps, int64_t p, int64_t q)
{
    const dip_gemm_panel a = {l, 64, GEMM_TILE_BYTES, (size_t)method->n_planes * GEMM_BLOCK_BYTES};
    float *d_w = job->d_w + p * job->q + q;
    int n_rows = at_most_block(job->p - p), n_cols = at_most_block(job->q - q);
    if (n_rows == GEMM_BLOCK && n_cols == GEMM_BLOCK) {
        method->kernel(d_w, job->q, true, &a, r, n_steps, NULL);
        return;
    }
    _Alignas(64) float edge[GEMM_BLOCK][GEMM_BLOCK] = {0};
    for (int i = 0; i < n_rows; i++)
        memcpy(edge[i], d_w + i * job->q, (size_t)n_cols * sizeof *d_w);
    method->kernel(edge[0], GEMM_BLOCK, true, &a, r, n_steps, NULL);
    for (int i = 0; i < n_rows; i++)
        memcpy(d_w + i * job->q, edge[i], (size_t)n_cols * sizeof *d_w);
}

void dip_gemm_weight(const dip_gemm_method *method, const dip_gemm_weight_job *job)
{
    const int64_t p_blocks = dip_gemm_n_blocks(job->p), q_blocks = dip_gemm_n_blocks(job->q);
    const size_t one = block_bytes(method->n_planes);
    const int64_t n_panels = (q_blocks + PANEL_BLOCKS - 1) / PANEL_BLOCKS;
#pragma omp parallel num_threads(job->n_threads)
    {
        uint8_t *buffer = job->workspace;
        uint8_t *other = buffer + (size_t)(p_blocks + q_blocks) * one;
        if (method->thread_begin != NULL) method->thread_begin();
        for (int64_t row = 0; row < job->n; row += GEMM_WEIGHT_ROWS) {
            int64_t n_rows = job->n - row < GEMM_WEIGHT_ROWS ? job->n - row : GEMM_WEIGHT_ROWS;
            uint8_t *l = buffer, *r = buffer + (size_t)p_blocks * one;
#pragma omp for schedule(static)
            for (int64_t i = 0; i < p_blocks + q_blocks; i++) {
                bool is_l = i < p_blocks;
                pack_columns(buffer + (size_t)i * one, method, job, is_l,
                             (is_l ? i : i - p_blocks) * GEMM_BLOCK, row, n_rows);
            }
#pragma omp for schedule(static) nowait
            for (int64_t i = 0; i < n_panels * p_blocks; i++) {
                /* A panel of r stays in the cache while the blocks of l pass by. */
                int64_t p = i % p_blocks, q = i / p_blocks * PANEL_BLOCKS;
                int64_t q_end = q + PANEL_BLOCKS < q_blocks ? q + PANEL_BLOCKS : q_blocks;
                for (; q < q_end; q++)
                    add_block(method, job, l + (size_t)p * one, r + (size_t)q * one,
                              dip_gemm_n_blocks(n_rows), p * GEMM_BLOCK, q * GEMM_BLOCK);
            }
            uint8_t *swap = buffer;
            buffer = other;
            other = swap;
        }
        if (method->thread_end != NULL) method->thread_end();
    }
}
