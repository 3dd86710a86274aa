/* AVX2: two rows (one a 128-bit lane) by two taps per multiply-add; see resize_kernels.h. */
#include "data/image/resize_kernels.h"

#if defined(__AVX2__) && defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

/* Two 16-bit weights, or the two high parts, in every 32-bit element. */
static inline __m256i pair(const int16_t *weights)
{
    int32_t both;
    memcpy(&both, weights, sizeof both);
    return _mm256_set1_epi32(both);
}

static inline __m256i add_products(__m256i sum, __m256i pixels, __m256i weights)
{
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pixels, weights));
}

/* low + high * 2^15, without the fraction. */
static inline __m256i finish(__m256i low, __m256i high)
{
    __m256i sum = _mm256_add_epi32(low, _mm256_slli_epi32(high, DIP_RESIZE_LOW_BITS));
    return _mm256_srai_epi32(sum, DIP_RESIZE_BITS);
}

/* One column of two rows: [r g b 0] as 32-bit values in each lane. */
static inline __m256i column(const uint8_t *row_a, const uint8_t *row_b, const dip_taps *taps)
{
    const __m256i first_two = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1));
    const __m256i last_two = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1));
    __m256i low = _mm256_set1_epi32(1 << (DIP_RESIZE_BITS - 1)), high = _mm256_setzero_si256();
    size_t at = 3 * (size_t)taps->first;
    const int16_t *weights = taps->packed;
    for (int k = 0; k < taps->n; k += DIP_RESIZE_GROUP, at += 12, weights += 8) {
        __m256i pixels = _mm256_inserti128_si256(
            _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(row_a + at))),
            _mm_loadu_si128((const __m128i *)(row_b + at)), 1);
        __m256i a = _mm256_shuffle_epi8(pixels, first_two);
        __m256i b = _mm256_shuffle_epi8(pixels, last_two);
        low = add_products(low, a, pair(weights));
        low = add_products(low, b, pair(weights + 2));
        high = add_products(high, a, pair(weights + 4));
        high = add_products(high, b, pair(weights + 6));
    }
    return finish(low, high);
}

static inline void store_twelve(uint8_t *dst, __m128i bytes)
{
    uint32_t last = (uint32_t)_mm_extract_epi32(bytes, 2);
    _mm_storel_epi64((__m128i *)dst, bytes);
    memcpy(dst + 8, &last, sizeof last);
}

static void horizontal(uint8_t *const dst[4], const uint8_t *const rows[4],
                       const dip_columns *columns)
{
    const dip_taps *taps = columns->taps;
    const int n_cols = columns->n, flip = columns->flip;
    if (n_cols < 4) {
        dip_resize_kernels_c()->horizontal(dst, rows, columns);
        return;
    }
    const __m256i forwards = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
    const __m256i backwards = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(12, 13, 14, 8, 9, 10, 4, 5, 6, 0, 1, 2, -1, -1, -1, -1));
    const __m256i order = flip ? backwards : forwards;
    for (int r = 0; r < 4; r += 2) {
        const uint8_t *a = rows[r], *b = rows[r + 1];
        for (int x = 0; x < n_cols; x += 4) {
            if (x > n_cols - 4) x = n_cols - 4; /* the last four overlap the ones before */
            __m256i front = _mm256_packs_epi32(column(a, b, taps + x), column(a, b, taps + x + 1));
            __m256i back =
                _mm256_packs_epi32(column(a, b, taps + x + 2), column(a, b, taps + x + 3));
            __m256i out = _mm256_shuffle_epi8(_mm256_packus_epi16(front, back), order);
            size_t at = 3 * (size_t)(flip ? n_cols - 4 - x : x);
            store_twelve(dst[r] + at, _mm256_castsi256_si128(out));
            store_twelve(dst[r + 1] + at, _mm256_extracti128_si256(out, 1));
        }
    }
}

static void vertical(uint8_t *dst, const uint8_t *src, size_t src_stride, size_t n_bytes,
                     const dip_taps *taps)
{
    if (n_bytes < 32) {
        dip_resize_kernels_c()->vertical(dst, src, src_stride, n_bytes, taps);
        return;
    }
    const __m256i zero = _mm256_setzero_si256();
    src += (size_t)taps->first * src_stride;
    for (size_t i = 0; i < n_bytes; i += 32) {
        if (i > n_bytes - 32) i = n_bytes - 32; /* the last block overlaps the one before */
        __m256i low[4], high[4];
        for (int j = 0; j < 4; j++) {
            low[j] = _mm256_set1_epi32(1 << (DIP_RESIZE_BITS - 1));
            high[j] = zero;
        }
        const uint8_t *row = src + i;
        for (int k = 0; k < taps->n; k += 2, row += 2 * src_stride) {
            const int16_t *weights = taps->packed + 8 * (k / 4) + k % 4;
            __m256i w_low = pair(weights), w_high = pair(weights + 4);
            __m256i a = _mm256_loadu_si256((const __m256i *)row), b = zero;
            if (k + 1 < taps->n) b = _mm256_loadu_si256((const __m256i *)(row + src_stride));
            __m256i ab[2] = {_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b)};
            for (int j = 0; j < 4; j++) {
                __m256i pixels = j % 2 ? _mm256_unpackhi_epi8(ab[j / 2], zero)
                                       : _mm256_unpacklo_epi8(ab[j / 2], zero);
                low[j] = add_products(low[j], pixels, w_low);
                high[j] = add_products(high[j], pixels, w_high);
            }
        }
        for (int j = 0; j < 4; j++) low[j] = finish(low[j], high[j]);
        __m256i out = _mm256_packus_epi16(_mm256_packs_epi32(low[0], low[1]),
                                          _mm256_packs_epi32(low[2], low[3]));
        _mm256_storeu_si256((__m256i *)(dst + i), out);
    }
}

const dip_resize_kernels *dip_resize_kernels_avx2(void)
{
    static const dip_resize_kernels kernels = {.name = "avx2",
                                               .reads_packed = true,
                                               .weigh = dip_resize_weigh_c,
                                               .horizontal = horizontal,
                                               .vertical = vertical};
    return __builtin_cpu_supports("avx2") ? &kernels : NULL;
}

#else

const dip_resize_kernels *dip_resize_kernels_avx2(void)
{
    return NULL;
}

#endif
