/* d_w [p, q] += l^T r, summed over the rows of a batch: backward_weight.
 *
 * A turn: both operands of some thousand rows are packed by all threads, then every thread adds to
 * its blocks of d_w, 256 rows at a time, so that a column of blocks (16 KiB a plane) stays in the
 * first-level cache. Two packing buffers take turns, so one barrier a turn is enough: whoever
 * packs into a buffer has passed the barrier that all reached after they last read it. How many
 * rows make a turn depends on the shape alone, and an element's sum is always taken in row order.
 *
 * Workspace: two of [256 rows: [block of l or r][step along the rows]] */
#include "kernels/onednn/gemm_blocks.h"

#include <omp.h>
#include <string.h>

enum {
    N_STEPS = GEMM_WEIGHT_ROWS / GEMM_BLOCK,
    PANEL_BLOCKS = 16,
    TURN_BYTES = 4 << 20 /* packed, unless 256 rows already need more */
};

typedef struct layout {
    int64_t p_blocks, q_blocks;
    int64_t turn_rows;
    size_t column_bytes, chunk_bytes, turn_bytes; /* of 256 rows: one block column, all of them */
} layout;

static layout layout_of(int n_planes, int64_t p, int64_t q)
{
    layout y = {.p_blocks = dip_gemm_n_blocks(p), .q_blocks = dip_gemm_n_blocks(q)};
    y.column_bytes = (size_t)N_STEPS * (size_t)n_planes * GEMM_BLOCK_BYTES;
    y.chunk_bytes = (size_t)(y.p_blocks + y.q_blocks) * y.column_bytes;
    size_t n_chunks = y.chunk_bytes > 0 ? TURN_BYTES / y.chunk_bytes : 1;
    if (n_chunks < 1) n_chunks = 1;
    y.turn_rows = (int64_t)n_chunks * GEMM_WEIGHT_ROWS;
    /* Not less for smaller shapes: a workspace serves all shapes up to the one asked for. */
    y.turn_bytes = y.chunk_bytes > TURN_BYTES ? y.chunk_bytes : TURN_BYTES;
    return y;
}

size_t dip_gemm_weight_bytes(int n_planes, int64_t p, int64_t q)
{
    return 2 * layout_of(n_planes, p, q).turn_bytes;
}

static int64_t at_most(int64_t n, int64_t limit)
{
    return n < limit ? n : limit;
}

/* Pack 32 x 32 values of l or r (n_rows of them, at `row`, `col`) and sum them for the bias. */
static void pack_block(uint8_t *dst, const dip_gemm_method *method, const dip_gemm_weight_job *job,
                       bool is_l, int64_t col, int64_t row, int64_t n_rows)
{
    const uint8_t *src = is_l ? job->l : job->r;
    int64_t width = is_l ? job->p : job->q;
    int n_cols = (int)at_most(width - col, GEMM_BLOCK);
    bool with_bias = job->d_bias != NULL && job->bias_from_l == is_l;
    float sums[GEMM_BLOCK] = {0};
    size_t at = (size_t)(row * width + col) * dip_dtype_bytes(method->dtype);
    method->pack(dst, with_bias ? sums : NULL, src + at, width, (int)at_most(n_rows, GEMM_BLOCK),
                 n_cols, is_l ? GEMM_A_COLUMNS : GEMM_B_ROWS);
    if (with_bias)
        for (int i = 0; i < n_cols; i++) job->d_bias[col + i] += sums[i];
}

/* This thread's share of a turn's packing: a range of block columns, all rows. It goes along the
 * rows of the matrices, so that memory is read in long runs; down one block column after the other
 * it would be 64 or 128 bytes from each row. */
static void pack_turn(uint8_t *buffer, const layout *y, const dip_gemm_method *method,
                      const dip_gemm_weight_job *job, int64_t turn, int64_t end)
{
    const int64_t n = y->p_blocks + y->q_blocks, thread = omp_get_thread_num();
    const int64_t n_threads = omp_get_num_threads();
    const int64_t first = n * thread / n_threads, last = n * (thread + 1) / n_threads;
    const size_t block_bytes = (size_t)method->n_planes * GEMM_BLOCK_BYTES;
    for (int64_t row = turn; row < end; row += GEMM_BLOCK) {
        const size_t chunk = (size_t)((row - turn) / GEMM_WEIGHT_ROWS),
                     step = (size_t)((row - turn) / GEMM_BLOCK % N_STEPS);
        for (int64_t i = first; i < last; i++) {
            const bool is_l = i < y->p_blocks;
            pack_block(
                buffer + chunk * y->chunk_bytes + (size_t)i * y->column_bytes + step * block_bytes,
                method, job, is_l, (is_l ? i : i - y->p_blocks) * GEMM_BLOCK, row, end - row);
        }
    }
}

static void add_block(const dip_gemm_method *method, const dip_gemm_weight_job *job,
                      const uint8_t *l, const uint8_t *r, int64_t n_steps, int64_t p, int64_t q)
{
    const dip_gemm_panel a = {l, 64, GEMM_TILE_BYTES, (size_t)method->n_planes * GEMM_BLOCK_BYTES};
    float *d_w = job->d_w + p * job->q + q;
    int n_rows = (int)at_most(job->p - p, GEMM_BLOCK),
        n_cols = (int)at_most(job->q - q, GEMM_BLOCK);
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
    const layout y = layout_of(method->n_planes, job->p, job->q);
    const int64_t n_panels = (y.q_blocks + PANEL_BLOCKS - 1) / PANEL_BLOCKS;
#pragma omp parallel num_threads(job->n_threads)
    {
        uint8_t *buffer = job->workspace, *other = buffer + y.turn_bytes;
        if (method->thread_begin != NULL) method->thread_begin();
        for (int64_t turn = 0; turn < job->n; turn += y.turn_rows) {
            int64_t end = turn + at_most(job->n - turn, y.turn_rows);
            pack_turn(buffer, &y, method, job, turn, end);
#pragma omp barrier
            const uint8_t *l = buffer, *r = buffer + (size_t)y.p_blocks * y.column_bytes;
            for (int64_t row = turn; row < end; row += GEMM_WEIGHT_ROWS) {
                int64_t n_steps = dip_gemm_n_blocks(at_most(end - row, GEMM_WEIGHT_ROWS));
#pragma omp for schedule(static) nowait
                for (int64_t i = 0; i < n_panels * y.p_blocks; i++) {
                    /* A panel of r stays in the cache while the blocks of l pass by. */
                    int64_t p = i % y.p_blocks, q = i / y.p_blocks * PANEL_BLOCKS;
                    int64_t q_end = at_most(q + PANEL_BLOCKS, y.q_blocks);
                    for (; q < q_end; q++)
                        add_block(method, job, l + (size_t)p * y.column_bytes,
                                  r + (size_t)q * y.column_bytes, n_steps, p * GEMM_BLOCK,
                                  q * GEMM_BLOCK);
                }
                l += y.chunk_bytes;
                r += y.chunk_bytes;
            }
            uint8_t *swap = buffer;
            buffer = other;
            other = swap;
        }
        if (method->thread_end != NULL) method->thread_end();
    }
}
