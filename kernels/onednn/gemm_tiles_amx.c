/* One 32 x 32 block of C, accumulated in tiles 0-3 of 16 x 16 floats; tiles 4, 5 hold A and
 * tiles 6, 7 hold B. Within a tile product the sum over 32 values of k is added to C once, so
 * C is rounded once per 32 terms. */
#include "kernels/onednn/gemm_blocks.h"

#include <immintrin.h>

void dip_gemm_tiles_begin(void)
{
    static const _Alignas(64) struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t n_rows[16];
    } config = {
        .palette = 1,
        .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
        .n_rows = {16, 16, 16, 16, 16, 16, 16, 16},
    };
    _tile_loadconfig(&config);
}

void dip_gemm_tiles_end(void)
{
    _tile_release();
}

static inline void begin_block(const float *c, int64_t c_ld, bool accumulate)
{
    /* The loads below are opaque to the compiler: what was stored before must be in memory. */
    __asm__ volatile("" ::: "memory");
    if (accumulate) {
        size_t stride = (size_t)c_ld * sizeof *c;
        _tile_loadd(0, c, stride);
        _tile_loadd(1, c + 16, stride);
        _tile_loadd(2, c + 16 * c_ld, stride);
        _tile_loadd(3, c + 16 * c_ld + 16, stride);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
}

static inline void end_block(float *c, int64_t c_ld)
{
    size_t stride = (size_t)c_ld * sizeof *c;
    _tile_stored(0, c, stride);
    _tile_stored(1, c + 16, stride);
    _tile_stored(2, c + 16 * c_ld, stride);
    _tile_stored(3, c + 16 * c_ld + 16, stride);
}

static inline void load_a(const uint8_t *a, const dip_gemm_panel *panel)
{
    _tile_loadd(4, a, panel->row_bytes);
    _tile_loadd(5, a + panel->tile_bytes, panel->row_bytes);
}

static inline void load_b(const uint8_t *b)
{
    _tile_loadd(6, b, 64);
    _tile_loadd(7, b + GEMM_TILE_BYTES, 64);
}

static inline void multiply(void)
{
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

/* The pending epilogue, spread evenly over the places between tile products: long stretches of
 * either kind of work would leave the other unit waiting. */
typedef struct spread {
    dip_gemm_pending *pending;
    int64_t n_pairs, n_places, balance;
} spread;

static inline spread spread_over(dip_gemm_pending *pending, int64_t n_places)
{
    spread s = {pending, 0, n_places, 0};
    if (pending == NULL) return s;
    if (n_places == 0) dip_gemm_pending_run(pending, GEMM_BLOCK);
    s.n_pairs = (pending->n_rows - pending->n_done + 1) / 2;
    return s;
}

static inline void place(spread *s)
{
    s->balance += s->n_pairs;
    while (s->balance >= s->n_places) {
        s->balance -= s->n_places;
        dip_gemm_pending_run(s->pending, 2);
    }
}

void dip_gemm_kernel_tiles_bf16(float *c, int64_t c_ld, bool accumulate, const dip_gemm_panel *a,
                                const uint8_t *b, int64_t n_steps, dip_gemm_pending *pending)
{
    spread epilogue = spread_over(pending, 4 * n_steps);
    const uint8_t *a_block = a->base;
    begin_block(c, c_ld, accumulate);
    for (int64_t step = 0; step < n_steps; step++) {
        _tile_loadd(6, b, 64);
        _tile_loadd(4, a_block, a->row_bytes);
        _tile_dpbf16ps(0, 4, 6);
        place(&epilogue);
        _tile_loadd(7, b + GEMM_TILE_BYTES, 64);
        _tile_dpbf16ps(1, 4, 7);
        place(&epilogue);
        _tile_loadd(5, a_block + a->tile_bytes, a->row_bytes);
        _tile_dpbf16ps(2, 5, 6);
        place(&epilogue);
        _tile_dpbf16ps(3, 5, 7);
        place(&epilogue);
        a_block += a->step_bytes;
        b += GEMM_BLOCK_BYTES;
    }
    end_block(c, c_ld);
}

/* Six of the nine products of parts, ordered so that each loads one operand anew, small ones
 * first as far as that goes. The three left out are below 2^-26 of the whole. */
void dip_gemm_kernel_tiles_split(float *c, int64_t c_ld, bool accumulate, const dip_gemm_panel *a,
                                 const uint8_t *b, int64_t n_steps, dip_gemm_pending *pending)
{
    spread epilogue = spread_over(pending, 6 * n_steps);
    const uint8_t *a1 = a->base;
    begin_block(c, c_ld, accumulate);
    for (int64_t step = 0; step < n_steps; step++) {
        const uint8_t *a2 = a1 + GEMM_BLOCK_BYTES, *a3 = a2 + GEMM_BLOCK_BYTES;
        const uint8_t *b2 = b + GEMM_BLOCK_BYTES, *b3 = b2 + GEMM_BLOCK_BYTES;
        load_a(a3, a);
        load_b(b);
        multiply(); /* a3 b1 */
        place(&epilogue);
        load_a(a2, a);
        multiply(); /* a2 b1 */
        place(&epilogue);
        load_b(b2);
        multiply(); /* a2 b2 */
        place(&epilogue);
        load_a(a1, a);
        multiply(); /* a1 b2 */
        place(&epilogue);
        load_b(b3);
        multiply(); /* a1 b3 */
        place(&epilogue);
        load_b(b);
        multiply(); /* a1 b1 */
        place(&epilogue);
        a1 += a->step_bytes;
        b += GEMM_SPLIT_PLANES * GEMM_BLOCK_BYTES;
    }
    end_block(c, c_ld);
}
