/* gemm_finish.h - what follows a product on CPUs without AVX-512 BF16, in plain C.
 *
 * Included by gemm_finish.c, gemm_finish_avx2.c and gemm_finish_avx512.c, which define FINISH
 * (the name of the function) and are compiled for their instructions: the loops are written so
 * that the compiler can vectorise them.                                                     */
#ifndef FINISH
#error "define FINISH before including gemm_finish.h"
#endif

#include "kernels/onednn/gemm_blocks.h"

#include <string.h>

enum { STRIP = 128 }; /* columns at a time */

static inline float smaller(float a, float b)
{
    return a < b ? a : b;
}

/* e^x for x <= 0, by 2^n 2^f with f in [-1/2, 1/2] and the Taylor series of 2^f. NaN stays. */
static inline float exp_of_negative(float x)
{
    float t = x * 1.44269504088896341f;
    t = t < -126.0f ? -126.0f : t;
    float shifted = t + 0x1.8p23f; /* rounds to an integer, which lies in the low bits */
    float f = t - (shifted - 0x1.8p23f);
    float p = 1.5252733804e-5f;
    p = p * f + 1.5403530393e-4f;
    p = p * f + 1.3333558146e-3f;
    p = p * f + 9.6181291076e-3f;
    p = p * f + 5.5504108665e-2f;
    p = p * f + 2.4022650696e-1f;
    p = p * f + 6.9314718056e-1f;
    p = p * f + 1.0f;
    uint32_t bits, power;
    memcpy(&bits, &shifted, sizeof bits);
    power = (bits + 127u) << 23;
    float scale;
    memcpy(&scale, &power, sizeof scale);
    return p * scale;
}

/* 1 - Phi(a), a >= 0: exp(-a^2 / 2) P(1 / (1 + 0.4 a)), P fitted on [0, 13] to 1.2e-7
 * relative. `density` is exp(-a^2 / 2). */
static inline float tail_probability(float a, float density)
{
    float t = 1.0f / (1.0f + 0.4f * smaller(a, 13.0f));
    float p = -3.94692235e-2f;
    p = p * t + 2.00064391e-1f;
    p = p * t - 3.72806127e-1f;
    p = p * t + 2.50244798e-1f;
    p = p * t - 1.20685767e-2f;
    p = p * t + 1.58354162e-1f;
    p = p * t + 1.55786903e-1f;
    p = p * t + 1.59905811e-1f;
    p = p * t - 1.21478336e-5f;
    return p * density;
}

static inline float magnitude_of(float x)
{
    return x < 0 ? -x : x;
}

static inline float gelu(float x)
{
    float a = magnitude_of(x);
    float q = tail_probability(a, exp_of_negative(-0.5f * a * a));
    return (x > 0 ? x : 0.0f) - a * q;
}

static inline float gelu_gradient(float x)
{
    float a = magnitude_of(x), density = exp_of_negative(-0.5f * a * a);
    float r = tail_probability(a, density) - smaller(a, 20.0f) * 0.39894228040143268f * density;
    return x < 0 ? r : 1.0f - r;
}

static inline float sigmoid_1702(float x)
{
    float e = exp_of_negative(-1.702f * magnitude_of(x));
    return (x < 0 ? e : 1.0f) / (1.0f + e);
}

static inline float quickgelu(float x)
{
    return x * sigmoid_1702(x);
}

static inline float quickgelu_gradient(float x)
{
    float s = sigmoid_1702(x);
    return s + 1.702f * smaller(x, 100.0f) * s * (1.0f - s);
}

static inline void load_strip(float *out, const void *src, int64_t at, int n, dip_dtype dtype)
{
    if (dtype == DIP_F32) {
        memcpy(out, (const float *)src + at, (size_t)n * sizeof *out);
    } else {
        const dip_bf16 *x = (const dip_bf16 *)src + at;
        for (int j = 0; j < n; j++) out[j] = dip_bf16_to_float(x[j]);
    }
}

static inline void store_strip(void *dst, int64_t at, const float *x, int n, dip_dtype dtype)
{
    if (dtype == DIP_F32) {
        memcpy((float *)dst + at, x, (size_t)n * sizeof *x);
    } else {
        dip_bf16 *out = (dip_bf16 *)dst + at;
        for (int j = 0; j < n; j++) out[j] = dip_bf16_from_float(x[j]);
    }
}

/* One row of the job's output from the product's sums c [n]. */
void FINISH(const dip_gemm_rows_job *job, dip_dtype dtype, const float *c, int64_t row)
{
    float x[STRIP], other[STRIP];
    for (int64_t first = 0; first < job->n; first += STRIP) {
        int n = job->n - first < STRIP ? (int)(job->n - first) : STRIP;
        int64_t at = row * job->n + first;
        memcpy(x, c + first, (size_t)n * sizeof *x);
        if (job->gradient) {
            if (job->act != DIP_ACT_NONE) load_strip(other, job->act_pre, at, n, dtype);
            if (job->act == DIP_ACT_GELU)
                for (int j = 0; j < n; j++) x[j] *= gelu_gradient(other[j]);
            else if (job->act == DIP_ACT_QUICKGELU)
                for (int j = 0; j < n; j++) x[j] *= quickgelu_gradient(other[j]);
            store_strip(job->out, at, x, n, dtype);
            continue;
        }
        if (job->bias != NULL) {
            load_strip(other, job->bias, first, n, dtype);
            for (int j = 0; j < n; j++) x[j] += other[j];
        }
        if (job->pre != NULL) store_strip(job->pre, at, x, n, dtype);
        if (job->act == DIP_ACT_GELU)
            for (int j = 0; j < n; j++) x[j] = gelu(x[j]);
        else if (job->act == DIP_ACT_QUICKGELU)
            for (int j = 0; j < n; j++) x[j] = quickgelu(x[j]);
        if (job->residual != NULL) {
            load_strip(other, job->residual, at, n, dtype);
            for (int j = 0; j < n; j++) x[j] += other[j];
        }
        store_strip(job->out, at, x, n, dtype);
    }
}
