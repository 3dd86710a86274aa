/* One 32 x 32 block of C by dot products of bf16 pairs: for CPUs with AVX-512 BF16 but no tiles.
 * Eight rows of C at a time stay in 16 registers. */
#include "kernels/onednn/gemm_blocks.h"

#include <immintrin.h>
#include <string.h>

enum { ROWS = 8 };

static inline __m512bh pair_of(const uint8_t *a)
{
    int pair;
    memcpy(&pair, a, sizeof pair);
    return (__m512bh)_mm512_set1_epi32(pair);
}

void dip_gemm_kernel_dot_bf16(float *c, int64_t c_ld, bool accumulate, const dip_gemm_panel *a,
                              const uint8_t *b, int64_t n_steps, dip_gemm_pending *pending)
{
    if (pending != NULL) dip_gemm_pending_run(pending, GEMM_BLOCK);
    for (int first = 0; first < GEMM_BLOCK; first += ROWS) {
        const uint8_t *a_rows =
            a->base + (size_t)(first / 16) * a->tile_bytes + (size_t)(first % 16) * a->row_bytes;
        float *c_rows = c + first * c_ld;
        __m512 sum[ROWS][2];
        for (int r = 0; r < ROWS; r++)
            for (int h = 0; h < 2; h++)
                sum[r][h] =
                    accumulate ? _mm512_loadu_ps(c_rows + r * c_ld + 16 * h) : _mm512_setzero_ps();
        for (int64_t step = 0; step < n_steps; step++) {
            const uint8_t *a_block = a_rows + (size_t)step * a->step_bytes;
            const uint8_t *b_block = b + step * GEMM_BLOCK_BYTES;
            for (int i = 0; i < 16; i++) {
                __m512bh b0 = (__m512bh)_mm512_load_si512(b_block + i * 64);
                __m512bh b1 = (__m512bh)_mm512_load_si512(b_block + GEMM_TILE_BYTES + i * 64);
                for (int r = 0; r < ROWS; r++) {
                    __m512bh pair = pair_of(a_block + (size_t)r * a->row_bytes + i * 4);
                    sum[r][0] = _mm512_dpbf16_ps(sum[r][0], pair, b0);
                    sum[r][1] = _mm512_dpbf16_ps(sum[r][1], pair, b1);
                }
            }
        }
        for (int r = 0; r < ROWS; r++)
            for (int h = 0; h < 2; h++) _mm512_storeu_ps(c_rows + r * c_ld + 16 * h, sum[r][h]);
    }
}
