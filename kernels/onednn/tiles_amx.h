/* tiles_amx.h - bf16 matrix products with AMX tiles, and the forms of a matrix they want.
 * Contract of the forms: attention_amx.h.                                                 */
#ifndef DIP_KERNELS_ONEDNN_TILES_AMX_H
#define DIP_KERNELS_ONEDNN_TILES_AMX_H

#include <stdint.h>
#include <string.h>

#include "kernels/onednn/vector_avx512.h"

/* Tiles 0-3 hold a 2 x 2 block of C, 4-5 rows of A, 6-7 pairs of B; all 16 rows of 64 bytes. */
static inline void tiles_begin(void)
{
    /* Constant memory: the intrinsic does not tell every compiler that it reads all 64 bytes. */
    static const struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1,
                .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
                .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
    _tile_loadconfig(&config);
}

static inline void tiles_end(void)
{
    _tile_release();
}

static inline void tile_block(float *c, int64_t c_row, const dip_bf16 *a, int64_t a_row,
                              const uint32_t *b, int64_t b_row, int64_t k, int accumulate,
                              int second_row, int second_column)
{
    const size_t c_stride = (size_t)c_row * sizeof(float), b_stride = (size_t)b_row * 4;
    const size_t a_stride = (size_t)a_row * sizeof(dip_bf16);
    const int all = second_row && second_column;
    if (accumulate) {
        _tile_loadd(0, c, c_stride);
        if (second_column) _tile_loadd(1, c + 16, c_stride);
        if (second_row) _tile_loadd(2, c + 16 * c_row, c_stride);
        if (all) _tile_loadd(3, c + 16 * c_row + 16, c_stride);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int64_t p = 0; p < k; p += 32) {
        const uint32_t *b_p = b + p / 2 * b_row;
        _tile_loadd(4, a + p, a_stride);
        _tile_loadd(6, b_p, b_stride);
        _tile_dpbf16ps(0, 4, 6);
        if (second_column) {
            _tile_loadd(7, b_p + 16, b_stride);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (second_row) {
            _tile_loadd(5, a + 16 * a_row + p, a_stride);
            _tile_dpbf16ps(2, 5, 6);
        }
        if (all) _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, c_stride);
    if (second_column) _tile_stored(1, c + 16, c_stride);
    if (second_row) _tile_stored(2, c + 16 * c_row, c_stride);
    if (all) _tile_stored(3, c + 16 * c_row + 16, c_stride);
}

/* C [m, n] float = or += A [m, k] B [k, n]: A in rows, B in pairs (b_row pairs to the next). m and
 * n are multiples of 16, k of 32. */
static inline void tile_product(float *c, int64_t c_row, const dip_bf16 *a, int64_t a_row,
                                const uint32_t *b, int64_t b_row, int64_t m, int64_t n, int64_t k,
                                int accumulate)
{
    for (int64_t j = 0; j < n; j += 32)
        for (int64_t i = 0; i < m; i += 32)
            tile_block(c + i * c_row + j, c_row, a + i * a_row, a_row, b + j, b_row, k, accumulate,
                       i + 16 < m, j + 16 < n);
}

/* Rows of `in`, `from` values apart, to rows of `out`, `to` apart: zeros after the columns up to
 * `to` and after the rows up to padded_rows. `to` is a multiple of 32. */
static inline void tile_rows(dip_bf16 *out, int64_t to, const dip_bf16 *in, int64_t from,
                             int64_t n_rows, int64_t padded_rows, int64_t n_columns)
{
    const int64_t whole = n_columns / 32 * 32;
    const __mmask32 tail = (__mmask32)((1ull << (n_columns - whole)) - 1);
    for (int64_t i = 0; i < n_rows; i++, out += to, in += from) {
        int64_t j = 0;
        for (; j < whole; j += 32) _mm512_store_si512(out + j, _mm512_loadu_si512(in + j));
        if (tail) _mm512_store_si512(out + j, _mm512_maskz_loadu_epi16(tail, in + j));
    }
    if (padded_rows > n_rows) memset(out, 0, (size_t)((padded_rows - n_rows) * to) * sizeof *out);
}

static inline __m512i tile_pair(__m256i even, __m256i odd)
{
    return _mm512_or_si512(_mm512_cvtepu16_epi32(even),
                           _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16));
}

/* Rows [n_rows, width] to pairs [n_rows / 2, width]; n_rows is even, width a multiple of 16. */
static inline void tile_pairs(uint32_t *out, const dip_bf16 *rows, int64_t n_rows, int64_t width)
{
    for (int64_t i = 0; i < n_rows; i += 2, out += width)
        for (int64_t j = 0; j < width; j += 16) {
            const void *even = rows + i * width + j, *odd = rows + (i + 1) * width + j;
            _mm512_store_si512(out + j, tile_pair(_mm256_load_si256(even), _mm256_load_si256(odd)));
        }
}

/* Rows [n_rows, width] to the pairs of their transpose, [width / 2, n_rows], `to` apart; n_rows is
 * a multiple of 16, width of 32. */
static inline void tile_across(uint32_t *out, int64_t to, const dip_bf16 *rows, int64_t n_rows,
                               int64_t width)
{
    for (int64_t i = 0; i < n_rows; i += 16)
        for (int64_t j = 0; j < width; j += 32) {
            vec x[LANES];
            for (int64_t l = 0; l < 16; l++)
                x[l] = _mm512_castsi512_ps(_mm512_load_si512(rows + (i + l) * width + j));
            vec_transpose(x);
            for (int64_t l = 0; l < 16; l++)
                _mm512_store_si512(out + (j / 2 + l) * to + i, _mm512_castps_si512(x[l]));
        }
}

/* 32 floats to bf16, 64 bytes. */
static inline void tile_store_two(dip_bf16 *out, vec low, vec high)
{
    _mm512_storeu_si512(out, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

#endif
