/* vector_avx512.h - the vector operations of vector.h for AVX-512: 16 floats. */
#ifndef DIP_KERNELS_ONEDNN_VECTOR_AVX512_H
#define DIP_KERNELS_ONEDNN_VECTOR_AVX512_H

#include <immintrin.h>

#include "core/dtype.h"

#define ISA(name) dip_avx512_##name

typedef __m512 vec;

enum {
    LANES = 16,
    MAX_BLOCK_ROWS = 6, /* a product's accumulators: 6 x 4 of the 32 registers */
    MAX_BLOCK_VECS = 4
};

static inline __mmask16 vec_mask(int64_t n)
{
    return (__mmask16)((1u << n) - 1);
}

static inline vec vec_zero(void)
{
    return _mm512_setzero_ps();
}
static inline vec vec_all(float x)
{
    return _mm512_set1_ps(x);
}
static inline vec vec_add(vec a, vec b)
{
    return _mm512_add_ps(a, b);
}
static inline vec vec_sub(vec a, vec b)
{
    return _mm512_sub_ps(a, b);
}
static inline vec vec_mul(vec a, vec b)
{
    return _mm512_mul_ps(a, b);
}
static inline vec vec_div(vec a, vec b)
{
    return _mm512_div_ps(a, b);
}
static inline vec vec_sqrt(vec a)
{
    return _mm512_sqrt_ps(a);
}
static inline vec vec_max(vec a, vec b)
{
    return _mm512_max_ps(a, b);
}
static inline vec vec_fma(vec a, vec b, vec c)
{
    return _mm512_fmadd_ps(a, b, c);
}

static inline vec vec_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
static inline void vec_store(float *p, vec x)
{
    _mm512_storeu_ps(p, x);
}
static inline vec vec_load_n(const float *p, int64_t n)
{
    return _mm512_maskz_loadu_ps(vec_mask(n), p);
}
static inline void vec_store_n(float *p, vec x, int64_t n)
{
    _mm512_mask_storeu_ps(p, vec_mask(n), x);
}
static inline vec vec_keep_n(vec x, int64_t n)
{
    return _mm512_maskz_mov_ps(vec_mask(n), x);
}

static inline vec vec_widen(__m256i x)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}
static inline __m256i vec_narrow(vec x)
{
    const __m512i one = _mm512_set1_epi32(1), half = _mm512_set1_epi32(0x7fff);
    __m512i bits = _mm512_castps_si512(x), high = _mm512_srli_epi32(bits, 16);
    __m512i round = _mm512_add_epi32(half, _mm512_and_epi32(high, one));
    __m512i out = _mm512_srli_epi32(_mm512_add_epi32(bits, round), 16);
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    out = _mm512_mask_or_epi32(out, nan, high, _mm512_set1_epi32(0x40));
    return _mm512_cvtepi32_epi16(out);
}
static inline vec vec_load_bf16(const dip_bf16 *p)
{
    return vec_widen(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
static inline void vec_store_bf16(dip_bf16 *p, vec x)
{
    _mm256_storeu_si256((__m256i *)(void *)p, vec_narrow(x));
}
static inline vec vec_load_bf16_n(const dip_bf16 *p, int64_t n)
{
    return vec_widen(_mm256_maskz_loadu_epi16(vec_mask(n), p));
}
static inline void vec_store_bf16_n(dip_bf16 *p, vec x, int64_t n)
{
    _mm256_mask_storeu_epi16(p, vec_mask(n), vec_narrow(x));
}

/* Lanes 0 and 8, 1 and 9, ... then halves again: a fixed order. */
static inline float vec_sum(vec x)
{
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
static inline float vec_largest(vec x)
{
    __m256 a = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

/* 2^n for whole n, through every overflow and underflow, times x. */
static inline vec vec_times_power_of_2(vec x, vec n)
{
    return _mm512_scalef_ps(x, n);
}
static inline vec vec_round(vec x)
{
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* A sum in double of float lanes. */
typedef struct wide {
    __m512d low, high;
} wide;

static inline wide wide_zero(void)
{
    return (wide){_mm512_setzero_pd(), _mm512_setzero_pd()};
}
/* sum + a * b, the product exact */
static inline wide wide_add_product(wide sum, vec a, vec b)
{
    __m512d a_low = _mm512_cvtps_pd(_mm512_castps512_ps256(a));
    __m512d b_low = _mm512_cvtps_pd(_mm512_castps512_ps256(b));
    __m512d a_high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1));
    __m512d b_high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(b, 1));
    sum.low = _mm512_fmadd_pd(a_low, b_low, sum.low);
    sum.high = _mm512_fmadd_pd(a_high, b_high, sum.high);
    return sum;
}
static inline double wide_sum(wide x)
{
    double lanes[8], sum = 0.0;
    _mm512_storeu_pd(lanes, _mm512_add_pd(x.low, x.high));
    for (int i = 0; i < 8; i++) sum += lanes[i];
    return sum;
}

/* Transpose LANES x LANES 32-bit values; `rows` in, columns out. */
static inline void vec_transpose(vec x[LANES])
{
    vec y[LANES];
    for (int i = 0; i < 16; i += 2) {
        y[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        __m512d a = _mm512_castps_pd(y[i]), b = _mm512_castps_pd(y[i + 1]);
        __m512d c = _mm512_castps_pd(y[i + 2]), d = _mm512_castps_pd(y[i + 3]);
        x[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        x[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        x[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        x[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
    for (int i = 0; i < 4; i++) {
        y[i] = _mm512_shuffle_f32x4(x[i], x[i + 4], 0x88);
        y[i + 4] = _mm512_shuffle_f32x4(x[i], x[i + 4], 0xdd);
        y[i + 8] = _mm512_shuffle_f32x4(x[i + 8], x[i + 12], 0x88);
        y[i + 12] = _mm512_shuffle_f32x4(x[i + 8], x[i + 12], 0xdd);
    }
    for (int i = 0; i < 8; i++) {
        x[i] = _mm512_shuffle_f32x4(y[i], y[i + 8], 0x88);
        x[i + 8] = _mm512_shuffle_f32x4(y[i], y[i + 8], 0xdd);
    }
}

#endif
