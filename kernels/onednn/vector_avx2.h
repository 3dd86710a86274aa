/* vector_avx2.h - the vector operations of vector.h for AVX2 and FMA: 8 floats. */
#ifndef DIP_KERNELS_ONEDNN_VECTOR_AVX2_H
#define DIP_KERNELS_ONEDNN_VECTOR_AVX2_H

#include <immintrin.h>
#include <string.h>

#include "core/dtype.h"

#define ISA(name) dip_avx2_##name

typedef __m256 vec;

enum {
    LANES = 8,
    MAX_BLOCK_ROWS = 6, /* a product's accumulators: 6 x 2 of the 16 registers */
    MAX_BLOCK_VECS = 2
};

static inline __m256i vec_mask(int64_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline vec vec_zero(void)
{
    return _mm256_setzero_ps();
}
static inline vec vec_all(float x)
{
    return _mm256_set1_ps(x);
}
static inline vec vec_add(vec a, vec b)
{
    return _mm256_add_ps(a, b);
}
static inline vec vec_sub(vec a, vec b)
{
    return _mm256_sub_ps(a, b);
}
static inline vec vec_mul(vec a, vec b)
{
    return _mm256_mul_ps(a, b);
}
static inline vec vec_div(vec a, vec b)
{
    return _mm256_div_ps(a, b);
}
static inline vec vec_sqrt(vec a)
{
    return _mm256_sqrt_ps(a);
}
static inline vec vec_max(vec a, vec b)
{
    return _mm256_max_ps(a, b);
}
static inline vec vec_fma(vec a, vec b, vec c)
{
    return _mm256_fmadd_ps(a, b, c);
}

static inline vec vec_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
static inline void vec_store(float *p, vec x)
{
    _mm256_storeu_ps(p, x);
}
static inline vec vec_load_n(const float *p, int64_t n)
{
    return _mm256_maskload_ps(p, vec_mask(n));
}
static inline void vec_store_n(float *p, vec x, int64_t n)
{
    _mm256_maskstore_ps(p, vec_mask(n), x);
}
static inline vec vec_keep_n(vec x, int64_t n)
{
    return _mm256_and_ps(x, _mm256_castsi256_ps(vec_mask(n)));
}

static inline vec vec_widen(__m128i x)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
static inline __m128i vec_narrow(vec x)
{
    const __m256i one = _mm256_set1_epi32(1), half = _mm256_set1_epi32(0x7fff);
    __m256i bits = _mm256_castps_si256(x), high = _mm256_srli_epi32(bits, 16);
    __m256i round = _mm256_add_epi32(half, _mm256_and_si256(high, one));
    __m256i out = _mm256_srli_epi32(_mm256_add_epi32(bits, round), 16);
    __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    out = _mm256_blendv_epi8(out, quiet, nan);
    return _mm_packus_epi32(_mm256_castsi256_si128(out), _mm256_extracti128_si256(out, 1));
}
static inline vec vec_load_bf16(const dip_bf16 *p)
{
    return vec_widen(_mm_loadu_si128((const __m128i *)(const void *)p));
}
static inline void vec_store_bf16(dip_bf16 *p, vec x)
{
    _mm_storeu_si128((__m128i *)(void *)p, vec_narrow(x));
}
static inline vec vec_load_bf16_n(const dip_bf16 *p, int64_t n)
{
    dip_bf16 lanes[LANES] = {0};
    memcpy(lanes, p, (size_t)n * sizeof *p);
    return vec_load_bf16(lanes);
}
static inline void vec_store_bf16_n(dip_bf16 *p, vec x, int64_t n)
{
    dip_bf16 lanes[LANES];
    vec_store_bf16(lanes, x);
    memcpy(p, lanes, (size_t)n * sizeof *p);
}

/* Lanes 0 and 4, 1 and 5, ... then halves again: a fixed order. */
static inline float vec_sum(vec x)
{
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
static inline float vec_largest(vec x)
{
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

static inline vec vec_round(vec x)
{
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* 2^n for whole n, times x in [1/2, 2]: in two halves, so that results near the ends of the
 * range of floats come out right; n beyond +-300 is as good as +-300. A NaN in x stays. */
static inline vec vec_times_power_of_2(vec x, vec n)
{
    n = _mm256_min_ps(_mm256_max_ps(n, vec_all(-300.0f)), vec_all(300.0f));
    __m256i whole = _mm256_cvtps_epi32(n), first = _mm256_srai_epi32(whole, 1);
    first =
        _mm256_max_epi32(_mm256_min_epi32(first, _mm256_set1_epi32(127)), _mm256_set1_epi32(-126));
    __m256i second = _mm256_sub_epi32(whole, first), bias = _mm256_set1_epi32(127);
    second =
        _mm256_max_epi32(_mm256_min_epi32(second, _mm256_set1_epi32(127)), _mm256_set1_epi32(-126));
    vec low = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(first, bias), 23));
    vec high = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(second, bias), 23));
    return vec_mul(vec_mul(x, low), high);
}

/* A sum in double of float lanes. */
typedef struct wide {
    __m256d low, high;
} wide;

static inline wide wide_zero(void)
{
    return (wide){_mm256_setzero_pd(), _mm256_setzero_pd()};
}
/* sum + a * b, the product exact */
static inline wide wide_add_product(wide sum, vec a, vec b)
{
    __m256d a_low = _mm256_cvtps_pd(_mm256_castps256_ps128(a));
    __m256d b_low = _mm256_cvtps_pd(_mm256_castps256_ps128(b));
    __m256d a_high = _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1));
    __m256d b_high = _mm256_cvtps_pd(_mm256_extractf128_ps(b, 1));
    sum.low = _mm256_fmadd_pd(a_low, b_low, sum.low);
    sum.high = _mm256_fmadd_pd(a_high, b_high, sum.high);
    return sum;
}
static inline double wide_sum(wide x)
{
    double lanes[4], sum = 0.0;
    _mm256_storeu_pd(lanes, _mm256_add_pd(x.low, x.high));
    for (int i = 0; i < 4; i++) sum += lanes[i];
    return sum;
}

/* Transpose LANES x LANES 32-bit values; `rows` in, columns out. */
static inline void vec_transpose(vec x[LANES])
{
    vec y[LANES];
    for (int i = 0; i < 8; i += 2) {
        y[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
        y[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        x[i] = _mm256_shuffle_ps(y[i], y[i + 2], 0x44);
        x[i + 1] = _mm256_shuffle_ps(y[i], y[i + 2], 0xee);
        x[i + 2] = _mm256_shuffle_ps(y[i + 1], y[i + 3], 0x44);
        x[i + 3] = _mm256_shuffle_ps(y[i + 1], y[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        y[i] = _mm256_permute2f128_ps(x[i], x[i + 4], 0x20);
        y[i + 4] = _mm256_permute2f128_ps(x[i], x[i + 4], 0x31);
    }
    for (int i = 0; i < 8; i++) x[i] = y[i];
}

#endif
