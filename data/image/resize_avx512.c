/* AVX-512 with VNNI: four rows (one a 128-bit lane) by two taps per dot product; see
 * resize_kernels.h. */
#include "data/image/resize_kernels.h"

#if defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))

TARGET static inline __m512d each(double x)
{
    return _mm512_set1_pd(x);
}

/* The filters of resize_c.c. */
TARGET static inline __m512d filter(__m512d x, bool is_cubic)
{
    if (!is_cubic) {
        const __mmask8 inside = _mm512_cmp_pd_mask(x, each(1.0), _CMP_LT_OQ);
        return _mm512_maskz_sub_pd(inside, each(1.0), x);
    }
    __m512d near = _mm512_sub_pd(_mm512_mul_pd(each(1.5), x), each(2.5));
    near = _mm512_add_pd(_mm512_mul_pd(_mm512_mul_pd(near, x), x), each(1.0));
    __m512d far = _mm512_add_pd(_mm512_mul_pd(_mm512_sub_pd(x, each(5.0)), x), each(8.0));
    far = _mm512_mul_pd(_mm512_sub_pd(_mm512_mul_pd(far, x), each(4.0)), each(-0.5));
    const __mmask8 is_near = _mm512_cmp_pd_mask(x, each(1.0), _CMP_LT_OQ);
    const __mmask8 inside = _mm512_cmp_pd_mask(x, each(2.0), _CMP_LT_OQ);
    return _mm512_maskz_mov_pd(inside, _mm512_mask_mov_pd(far, is_near, near));
}

/* Rounded weight / total, in fixed point. The product with the reciprocal is the quotient but for
 * some 2^-29; only where a rounding border is nearer than 2^-20 are they divided. */
TARGET static inline __m256i normalise(__m512d weights, __m512d total, __m512d reciprocal)
{
    const __m512d one = each(1 << DIP_RESIZE_BITS);
    __m512d quotient = _mm512_mul_pd(weights, reciprocal);
    const __m512d whole =
        _mm512_roundscale_pd(quotient, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512d off = _mm512_abs_pd(_mm512_sub_pd(quotient, whole));
    if (_mm512_cmp_pd_mask(off, each(0.5 - 0x1p-20), _CMP_GT_OQ))
        quotient = _mm512_mul_pd(_mm512_div_pd(weights, total), one);
    const __mmask8 negative = _mm512_cmp_pd_mask(quotient, _mm512_setzero_pd(), _CMP_LT_OQ);
    const __m512d half = _mm512_mask_mov_pd(each(0.5), negative, each(-0.5));
    return _mm512_cvttpd_epi32(_mm512_add_pd(quotient, half));
}

/* An output a lane: the same operations in the same order. */
TARGET void dip_resize_weigh_avx512(dip_taps *taps, int32_t *weights, double *scratch,
                                    const dip_outputs *o)
{
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i places = _mm256_mullo_epi32(lanes, _mm256_set1_epi32((int)o->stride));
    const int n_taps = (int)o->stride;
    for (int i = 0; i < o->n; i += DIP_RESIZE_LANES) {
        const int n = o->n - i < DIP_RESIZE_LANES ? o->n - i : DIP_RESIZE_LANES;
        const __mmask8 asked = (__mmask8)((1u << n) - 1);
        __m512d centre = _mm512_add_pd(each((double)(o->first + i)), _mm512_cvtepi32_pd(lanes));
        centre = _mm512_mul_pd(_mm512_add_pd(centre, each(0.5)), each(o->scale));
        centre = _mm512_add_pd(each(o->from), centre);
        __m512d border = _mm512_add_pd(_mm512_sub_pd(centre, each(o->support)), each(0.5));
        const __m256i low = _mm256_max_epi32(_mm512_cvttpd_epi32(border), _mm256_setzero_si256());
        border = _mm512_add_pd(_mm512_add_pd(centre, each(o->support)), each(0.5));
        const __m256i high =
            _mm256_min_epi32(_mm512_cvttpd_epi32(border), _mm256_set1_epi32(o->in));
        const __m256i n_each = _mm256_sub_epi32(high, low);
        const __m512d first = _mm512_cvtepi32_pd(low);
        const int most = _mm512_reduce_max_epi32(_mm512_zextsi256_si512(n_each));
        __m512d total = _mm512_setzero_pd();
        for (int k = 0; k < most; k++) {
            __m512d x = _mm512_sub_pd(_mm512_add_pd(first, each(k)), centre);
            x = _mm512_mul_pd(_mm512_add_pd(x, each(0.5)), each(o->stretch));
            const __mmask8 inside = _mm256_cmpgt_epi32_mask(n_each, _mm256_set1_epi32(k));
            x = _mm512_maskz_mov_pd(inside, filter(_mm512_abs_pd(x), o->is_cubic));
            total = _mm512_add_pd(total, x);
            _mm512_storeu_pd(scratch + (size_t)k * DIP_RESIZE_LANES, x);
        }
        const __m512d reciprocal = _mm512_div_pd(each(1 << DIP_RESIZE_BITS), total);
        for (int k = 0; k < most; k++) {
            const __m512d x = _mm512_loadu_pd(scratch + (size_t)k * DIP_RESIZE_LANES);
            _mm256_mask_i32scatter_epi32(weights + k, asked, places,
                                         normalise(x, total, reciprocal), sizeof *weights);
        }
        for (int k = most; k < n_taps; k++)
            _mm256_mask_i32scatter_epi32(weights + k, asked, places, _mm256_setzero_si256(),
                                         sizeof *weights);
        int32_t firsts[DIP_RESIZE_LANES], counts[DIP_RESIZE_LANES];
        _mm256_storeu_si256((__m256i *)firsts, low);
        _mm256_storeu_si256((__m256i *)counts, n_each);
        for (int j = 0; j < n; j++, weights += o->stride)
            taps[i + j] = (dip_taps){.first = firsts[j], .n = counts[j], .weights = weights};
    }
}

/* Two 16-bit weights, or the two high parts, in every 32-bit element. */
TARGET static inline __m512i pair(const int16_t *weights)
{
    int32_t both;
    memcpy(&both, weights, sizeof both);
    return _mm512_set1_epi32(both);
}

/* low + high * 2^15, without the fraction. */
TARGET static inline __m512i finish(__m512i low, __m512i high)
{
    __m512i sum = _mm512_add_epi32(low, _mm512_slli_epi32(high, DIP_RESIZE_LOW_BITS));
    return _mm512_srai_epi32(sum, DIP_RESIZE_BITS);
}

/* One column of four rows: [r g b 0] as 32-bit values in each lane. */
TARGET static inline __m512i column(const uint8_t *const rows[4], const dip_taps *taps)
{
    const __m512i first_two = _mm512_broadcast_i32x4(
        _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1));
    const __m512i last_two = _mm512_broadcast_i32x4(
        _mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1));
    __m512i low = _mm512_set1_epi32(1 << (DIP_RESIZE_BITS - 1)), high = _mm512_setzero_si512();
    size_t at = 3 * (size_t)taps->first;
    const int16_t *weights = taps->packed;
    for (int k = 0; k < taps->n; k += DIP_RESIZE_GROUP, at += 12, weights += 8) {
        __m512i pixels = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(rows[0] + at)));
        pixels = _mm512_inserti32x4(pixels, _mm_loadu_si128((const __m128i *)(rows[1] + at)), 1);
        pixels = _mm512_inserti32x4(pixels, _mm_loadu_si128((const __m128i *)(rows[2] + at)), 2);
        pixels = _mm512_inserti32x4(pixels, _mm_loadu_si128((const __m128i *)(rows[3] + at)), 3);
        __m512i a = _mm512_shuffle_epi8(pixels, first_two);
        __m512i b = _mm512_shuffle_epi8(pixels, last_two);
        low = _mm512_dpwssd_epi32(low, a, pair(weights));
        low = _mm512_dpwssd_epi32(low, b, pair(weights + 2));
        high = _mm512_dpwssd_epi32(high, a, pair(weights + 4));
        high = _mm512_dpwssd_epi32(high, b, pair(weights + 6));
    }
    return finish(low, high);
}

TARGET void dip_resize_horizontal_avx512(uint8_t *const dst[4], const uint8_t *const rows[4],
                                         const dip_columns *columns)
{
    const dip_taps *taps = columns->taps;
    const int n_cols = columns->n, flip = columns->flip;
    if (n_cols < 4) {
        dip_resize_kernels_c()->horizontal(dst, rows, columns);
        return;
    }
    const __m512i forwards = _mm512_broadcast_i32x4(
        _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
    const __m512i backwards = _mm512_broadcast_i32x4(
        _mm_setr_epi8(12, 13, 14, 8, 9, 10, 4, 5, 6, 0, 1, 2, -1, -1, -1, -1));
    const __m512i order = flip ? backwards : forwards;
    for (int x = 0; x < n_cols; x += 4) {
        if (x > n_cols - 4) x = n_cols - 4; /* the last four overlap the ones before */
        __m512i ab = _mm512_packs_epi32(column(rows, taps + x), column(rows, taps + x + 1));
        __m512i cd = _mm512_packs_epi32(column(rows, taps + x + 2), column(rows, taps + x + 3));
        __m512i out = _mm512_shuffle_epi8(_mm512_packus_epi16(ab, cd), order);
        size_t at = 3 * (size_t)(flip ? n_cols - 4 - x : x);
        const __mmask16 twelve = 0x0fff;
        _mm_mask_storeu_epi8(dst[0] + at, twelve, _mm512_castsi512_si128(out));
        _mm_mask_storeu_epi8(dst[1] + at, twelve, _mm512_extracti32x4_epi32(out, 1));
        _mm_mask_storeu_epi8(dst[2] + at, twelve, _mm512_extracti32x4_epi32(out, 2));
        _mm_mask_storeu_epi8(dst[3] + at, twelve, _mm512_extracti32x4_epi32(out, 3));
    }
}

TARGET void dip_resize_vertical_avx512(uint8_t *dst, const uint8_t *src, size_t src_stride,
                                       size_t n_bytes, const dip_taps *taps)
{
    const __m512i zero = _mm512_setzero_si512();
    src += (size_t)taps->first * src_stride;
    for (size_t i = 0; i < n_bytes; i += 64) {
        __mmask64 mask = n_bytes - i >= 64 ? ~0ull : (1ull << (n_bytes - i)) - 1;
        __m512i low[4], high[4];
        for (int j = 0; j < 4; j++) {
            low[j] = _mm512_set1_epi32(1 << (DIP_RESIZE_BITS - 1));
            high[j] = zero;
        }
        const uint8_t *row = src + i;
        for (int k = 0; k < taps->n; k += 2, row += 2 * src_stride) {
            const int16_t *weights = taps->packed + 8 * (k / 4) + k % 4;
            __m512i w_low = pair(weights), w_high = pair(weights + 4);
            __m512i a = _mm512_maskz_loadu_epi8(mask, row);
            __m512i b = k + 1 < taps->n ? _mm512_maskz_loadu_epi8(mask, row + src_stride) : zero;
            __m512i ab[2] = {_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b)};
            for (int j = 0; j < 4; j++) {
                __m512i pixels = j % 2 ? _mm512_unpackhi_epi8(ab[j / 2], zero)
                                       : _mm512_unpacklo_epi8(ab[j / 2], zero);
                low[j] = _mm512_dpwssd_epi32(low[j], pixels, w_low);
                high[j] = _mm512_dpwssd_epi32(high[j], pixels, w_high);
            }
        }
        for (int j = 0; j < 4; j++) low[j] = finish(low[j], high[j]);
        __m512i out = _mm512_packus_epi16(_mm512_packs_epi32(low[0], low[1]),
                                          _mm512_packs_epi32(low[2], low[3]));
        _mm512_mask_storeu_epi8(dst + i, mask, out);
    }
}

const dip_resize_kernels *dip_resize_kernels_avx512(void)
{
    static const dip_resize_kernels kernels = {.name = "avx512",
                                               .reads_packed = true,
                                               .weigh = dip_resize_weigh_avx512,
                                               .horizontal = dip_resize_horizontal_avx512,
                                               .vertical = dip_resize_vertical_avx512};
    int has = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
              __builtin_cpu_supports("avx512vnni");
    return has ? &kernels : NULL;
}

#else

const dip_resize_kernels *dip_resize_kernels_avx512(void)
{
    return NULL;
}

#endif
