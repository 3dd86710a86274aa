/* Packing of operands into 32 x 32 blocks of bf16, floats split into three parts.
 *
 * A block is first staged: 32 rows of 32 bf16, zeros outside the matrix. Three shuffles then
 * give every format from it: nothing (A from rows), pairs of rows interleaved (B from rows), a
 * transposition of 16 x 16 pairs (B from columns), or both (A from columns). */
#include "kernels/onednn/gemm_blocks.h"

#include <immintrin.h>

typedef struct plane {
    _Alignas(64) uint16_t row[GEMM_BLOCK][GEMM_BLOCK];
} plane;

/* ---- staging --------------------------------------------------------------------------- */

static __m512 bf16_low_to_float(__m512i x)
{
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(x)), 16));
}

static __m512 bf16_high_to_float(__m512i x)
{
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(x, 1)), 16));
}

static void stage_bf16(plane *out, float *column_sums, const void *src, int64_t ld, int n_rows,
                       int n_cols)
{
    const uint16_t *x = src;
    __mmask32 mask = (__mmask32)(0xffffffffu >> (GEMM_BLOCK - n_cols));
    for (int i = 0; i < n_rows; i++)
        _mm512_store_si512(out->row[i], _mm512_maskz_loadu_epi16(mask, x + i * ld));
    for (int i = n_rows; i < GEMM_BLOCK; i++)
        _mm512_store_si512(out->row[i], _mm512_setzero_si512());
    if (column_sums == NULL) return;
    __m512 low = _mm512_loadu_ps(column_sums), high = _mm512_loadu_ps(column_sums + 16);
    for (int i = 0; i < n_rows; i++) {
        __m512i row = _mm512_load_si512(out->row[i]);
        low = _mm512_add_ps(low, bf16_low_to_float(row));
        high = _mm512_add_ps(high, bf16_high_to_float(row));
    }
    _mm512_storeu_ps(column_sums, low);
    _mm512_storeu_ps(column_sums + 16, high);
}

/* To the nearest number of 8 significant bits (ties away from zero), as a float. */
static inline __m512 round_to_8_bits(__m512 x)
{
    __m512i bits = _mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000));
    return _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32((int)0xffff0000)));
}

/* The bits of |x| from where rounding up to 8 bits gives infinity. */
static inline __mmask16 is_huge(__m512 x)
{
    return _mm512_cmpge_epu32_mask(_mm512_castps_si512(_mm512_abs_ps(x)),
                                   _mm512_set1_epi32(0x7f7f8000));
}

/* part[0] + part[1] + part[2] = x: 8 bits each cover the 24 of a float. */
static inline void split(__m512 part[3], __m512 x)
{
    part[0] = round_to_8_bits(x);
    __m512 rest = _mm512_sub_ps(x, part[0]);
    part[1] = round_to_8_bits(rest);
    part[2] = _mm512_sub_ps(rest, part[1]);
}

/* The same for any x: what is too large to be rounded up is cut off instead; infinity and NaN
 * stay in the first part alone. */
static void split_any(__m512 part[3], __m512 x)
{
    const __m512i bits = _mm512_castps_si512(x);
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    __mmask16 infinite = _mm512_cmpeq_epi32_mask(_mm512_castps_si512(_mm512_abs_ps(x)),
                                                 _mm512_set1_epi32(0x7f800000));
    __m512i cut = _mm512_and_si512(bits, _mm512_set1_epi32((int)0xffff0000));
    cut = _mm512_mask_or_epi32(cut, nan, cut, _mm512_set1_epi32(0x00400000));
    split(part, x);
    part[0] = _mm512_mask_mov_ps(part[0], is_huge(x), _mm512_castsi512_ps(cut));
    __m512 rest = _mm512_sub_ps(x, part[0]);
    rest = _mm512_maskz_mov_ps(_knot_mask16(_kor_mask16(nan, infinite)), rest);
    part[1] = round_to_8_bits(rest);
    part[2] = _mm512_sub_ps(rest, part[1]);
}

static void stage_f32(plane out[GEMM_SPLIT_PLANES], float *column_sums, const void *src, int64_t ld,
                      int n_rows, int n_cols)
{
    const float *x = src;
    uint32_t mask = 0xffffffffu >> (GEMM_BLOCK - n_cols);
    __m512 low_sum = _mm512_setzero_ps(), high_sum = low_sum;
    if (column_sums != NULL) {
        low_sum = _mm512_loadu_ps(column_sums);
        high_sum = _mm512_loadu_ps(column_sums + 16);
    }
    for (int i = 0; i < n_rows; i++) {
        __m512 low_part[3], high_part[3];
        __m512 low = _mm512_maskz_loadu_ps((__mmask16)mask, x + i * ld);
        __m512 high = _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), x + i * ld + 16);
        low_sum = _mm512_add_ps(low_sum, low);
        high_sum = _mm512_add_ps(high_sum, high);
        if (__builtin_expect(_kor_mask16(is_huge(low), is_huge(high)) != 0, 0)) {
            split_any(low_part, low);
            split_any(high_part, high);
        } else {
            split(low_part, low);
            split(high_part, high);
        }
        for (int p = 0; p < GEMM_SPLIT_PLANES; p++)
            _mm512_store_si512(out[p].row[i],
                               (__m512i)_mm512_cvtne2ps_pbh(high_part[p], low_part[p]));
    }
    for (int p = 0; p < GEMM_SPLIT_PLANES; p++)
        for (int i = n_rows; i < GEMM_BLOCK; i++)
            _mm512_store_si512(out[p].row[i], _mm512_setzero_si512());
    if (column_sums != NULL) {
        _mm512_storeu_ps(column_sums, low_sum);
        _mm512_storeu_ps(column_sums + 16, high_sum);
    }
}

/* ---- shuffles -------------------------------------------------------------------------- */

/* Transpose 16 x 16 dwords in place. */
static inline void transpose(__m512i r[16])
{
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    /* r[4 g + j] now holds, in its 128-bit lane L, rows 4 g .. 4 g + 3 of column 4 L + j. */
    for (int j = 0; j < 4; j++) {
        t[j] = _mm512_shuffle_i32x4(r[j], r[4 + j], 0x88);
        t[4 + j] = _mm512_shuffle_i32x4(r[j], r[4 + j], 0xdd);
        t[8 + j] = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0x88);
        t[12 + j] = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0xdd);
    }
    for (int j = 0; j < 4; j++) {
        r[j] = _mm512_shuffle_i32x4(t[j], t[8 + j], 0x88);
        r[8 + j] = _mm512_shuffle_i32x4(t[j], t[8 + j], 0xdd);
        r[4 + j] = _mm512_shuffle_i32x4(t[4 + j], t[12 + j], 0x88);
        r[12 + j] = _mm512_shuffle_i32x4(t[4 + j], t[12 + j], 0xdd);
    }
}

/* Rows are n, pairs of k lie side by side: transpose the pairs. */
static void transpose_pairs(uint8_t *dst, const plane *in)
{
    for (int tile = 0; tile < 2; tile++) {
        __m512i r[16];
        for (int i = 0; i < 16; i++) r[i] = _mm512_load_si512(in->row[16 * tile + i]);
        transpose(r);
        for (int i = 0; i < 16; i++)
            _mm512_store_si512(dst + tile * GEMM_TILE_BYTES + i * 64, r[i]);
    }
}

/* Rows are k: a pair is made of two rows. */
static void interleave(uint8_t *dst, const plane *in)
{
    const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    const __m512i second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    for (int i = 0; i < 16; i++) {
        __m512i even = _mm512_load_si512(in->row[2 * i]),
                odd = _mm512_load_si512(in->row[2 * i + 1]);
        __m512i low = _mm512_unpacklo_epi16(even, odd), high = _mm512_unpackhi_epi16(even, odd);
        _mm512_store_si512(dst + i * 64, _mm512_permutex2var_epi64(low, first, high));
        _mm512_store_si512(dst + GEMM_TILE_BYTES + i * 64,
                           _mm512_permutex2var_epi64(low, second, high));
    }
}

/* Rows are k, and the tile wants m: make pairs, then transpose them. Unpacking leaves columns
 * 8 L .. 8 L + 3 (low) and 8 L + 4 .. 8 L + 7 (high) in lane L, hence the row computed below. */
static void interleave_transpose(uint8_t *dst, const plane *in)
{
    for (int half = 0; half < 2; half++) {
        __m512i r[16];
        for (int i = 0; i < 16; i++) {
            __m512i even = _mm512_load_si512(in->row[2 * i]),
                    odd = _mm512_load_si512(in->row[2 * i + 1]);
            r[i] = half == 0 ? _mm512_unpacklo_epi16(even, odd) : _mm512_unpackhi_epi16(even, odd);
        }
        transpose(r);
        for (int i = 0; i < 16; i++)
            _mm512_store_si512(dst + (i / 4 * 8 + half * 4 + i % 4) * 64, r[i]);
    }
}

static void shuffle(uint8_t *dst, const plane *in, dip_gemm_format format)
{
    switch (format) {
    case GEMM_A_ROWS: /* staged in place */
        break;
    case GEMM_A_COLUMNS:
        interleave_transpose(dst, in);
        break;
    case GEMM_B_ROWS:
        interleave(dst, in);
        break;
    case GEMM_B_COLUMNS:
        transpose_pairs(dst, in);
        break;
    }
}

void dip_gemm_pack_bf16(uint8_t *dst, float *column_sums, const void *src, int64_t ld, int n_rows,
                        int n_cols, dip_gemm_format format)
{
    plane block, *staged = format == GEMM_A_ROWS ? (plane *)(void *)dst : &block;
    stage_bf16(staged, column_sums, src, ld, n_rows, n_cols);
    shuffle(dst, staged, format);
}

void dip_gemm_pack_f32(uint8_t *dst, float *column_sums, const void *src, int64_t ld, int n_rows,
                       int n_cols, dip_gemm_format format)
{
    plane block[GEMM_SPLIT_PLANES], *staged = format == GEMM_A_ROWS ? (plane *)(void *)dst : block;
    stage_f32(staged, column_sums, src, ld, n_rows, n_cols);
    for (int p = 0; p < GEMM_SPLIT_PLANES; p++)
        shuffle(dst + p * GEMM_BLOCK_BYTES, &staged[p], format);
}
