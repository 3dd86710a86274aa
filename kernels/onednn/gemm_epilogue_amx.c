/* What follows a product, on a block that has just left the tiles.
 *
 * GELU without an exponential, from functions of a = |x| that vanish far out: with
 * Q(a) = 1 - Phi(a),
 *   gelu(x)  = max(x, 0) - S(a),                   S(a) = a Q(a)
 *   gelu'(x) = R(a) for x < 0, else 1 - R(a),      R(a) = Q(a) - a phi(a)
 * S and R are interpolated around the multiples of 1/4 from 0 to 30/4 and taken for zero
 * beyond, by polynomials of degree 4 whose error is that of fp32's rounding. A coefficient is
 * looked up by one permutation of two registers. gelu(-inf) is 0; NaN stays NaN. */
#include "kernels/onednn/gemm_blocks.h"

#include <immintrin.h>
#include <math.h>
#include <pthread.h>
#include <string.h>

/* ---- the tables ------------------------------------------------------------------------ */

enum { N_CENTERS = 32, N_COEFFICIENTS = 5 };

typedef struct table {
    _Alignas(64) float coefficient[N_COEFFICIENTS][N_CENTERS];
} table;

#define CENTER_DISTANCE 0.25f
static table table_s, table_r;

static double tail_probability(double a)
{
    return 0.5 * erfc(a * 0.70710678118654752440);
}

static double s_function(double a)
{
    return a * tail_probability(a);
}

static double r_function(double a)
{
    return tail_probability(a) - a * 0.39894228040143267794 * exp(-0.5 * a * a);
}

/* The polynomial through n Chebyshev points around each center: Newton's divided differences,
 * then expanded into powers of the distance from the center. Around 0,
 * where a >= 0 uses one half only and S is judged relative to a, one of the points is 0 itself. */
static void fill_table(table *out, double (*function)(double))
{
    const int n = N_COEFFICIENTS;
    const double pi = 3.14159265358979323846;
    memset(out, 0, sizeof *out); /* the last entry stays zero: the far tail */
    for (int center = 0; center < N_CENTERS - 1; center++) {
        double at[N_COEFFICIENTS], value[N_COEFFICIENTS], power[N_COEFFICIENTS] = {0};
        for (int i = 0; i < n; i++) {
            at[i] = 0.5 * (double)CENTER_DISTANCE * cos(pi * (2 * i + 1) / (2 * n));
            if (center == 0) at[i] = 0.25 * (double)CENTER_DISTANCE * (1 - cos(pi * i / n));
            value[i] = function((double)CENTER_DISTANCE * center + at[i]);
        }
        for (int order = 1; order < n; order++)
            for (int i = n - 1; i >= order; i--)
                value[i] = (value[i] - value[i - 1]) / (at[i] - at[i - order]);
        for (int i = n - 1; i >= 0; i--) {
            for (int j = n - 1; j > 0; j--) power[j] = power[j - 1] - at[i] * power[j];
            power[0] = value[i] - at[i] * power[0];
        }
        for (int j = 0; j < n; j++) out->coefficient[j][center] = (float)power[j];
    }
}

static void fill_tables(void)
{
    fill_table(&table_s, s_function);
    fill_table(&table_r, r_function);
}

static void tables_init(void)
{
    static pthread_once_t filled = PTHREAD_ONCE_INIT;
    pthread_once(&filled, fill_tables);
}

/* ---- activations ----------------------------------------------------------------------- */

/* Vectors go through every step together, up to four of them: a single one would mostly wait for
 * its own results. */
enum { MAX_VECTORS = 4 };
#define EACH   for (int v = 0; v < n_vectors; v++)
#define INLINE static inline __attribute__((always_inline))

/* out = the table's function at magnitude = |x| or less, if |x| is beyond the last center. */
INLINE void look_up(__m512 *out, const table *t, __m512 *magnitude, int n_vectors)
{
    const int n = N_COEFFICIENTS;
    /* Added to a number, leaves its nearest multiple of 1/4 in the low bits. */
    const __m512 to_quarters = _mm512_set1_ps(0x1.8p21f);
    __m512i center[MAX_VECTORS];
    EACH center[v] = _mm512_castps_si512(_mm512_add_ps(magnitude[v], to_quarters));
    EACH magnitude[v] = _mm512_reduce_ps(magnitude[v], 2 << 4); /* distance from the center */
    for (int j = n - 1; j >= 0; j--) {
        const __m512 low = _mm512_load_ps(t->coefficient[j]);
        const __m512 high = _mm512_load_ps(t->coefficient[j] + 16);
        EACH
        {
            __m512 c = _mm512_permutex2var_ps(low, center[v], high);
            out[v] = j == n - 1 ? c : _mm512_fmadd_ps(out[v], magnitude[v], c);
        }
    }
}

INLINE void gelu(__m512 *x, int n_vectors)
{
    const __m512 last = _mm512_set1_ps((N_CENTERS - 1) * CENTER_DISTANCE);
    __m512 s[MAX_VECTORS], magnitude[MAX_VECTORS];
    EACH magnitude[v] = _mm512_range_ps(x[v], last, 0xa); /* the smaller magnitude, positive */
    look_up(s, &table_s, magnitude, n_vectors);
    EACH x[v] = _mm512_sub_ps(_mm512_max_ps(_mm512_setzero_ps(), x[v]), s[v]); /* NaN stays */
}

INLINE void gelu_gradient(__m512 *x, int n_vectors)
{
    const __m512 last = _mm512_set1_ps((N_CENTERS - 1) * CENTER_DISTANCE);
    __m512 r[MAX_VECTORS], magnitude[MAX_VECTORS];
    EACH magnitude[v] = _mm512_min_ps(last, _mm512_abs_ps(x[v])); /* NaN stays */
    look_up(r, &table_r, magnitude, n_vectors);
    EACH
    {
        __mmask16 positive = _knot_mask16(_mm512_movepi32_mask(_mm512_castps_si512(x[v])));
        x[v] = _mm512_mask_sub_ps(r[v], positive, _mm512_set1_ps(1), r[v]);
    }
}

/* 1 / (1 + exp(-1.702 x)); the power by 2^n 2^f, f in [-1/2, 1/2], and the Taylor series of 2^f. */
INLINE void sigmoid_1702(__m512 *out, const __m512 *x, int n_vectors)
{
    static const float taylor[] = {
        1.5252733804e-5f, 1.5403530393e-4f, 1.3333558146e-3f, 9.6181291076e-3f,
        5.5504108665e-2f, 2.4022650696e-1f, 6.9314718056e-1f, 1.0f};
    const int n_terms = sizeof taylor / sizeof taylor[0];
    const __m512 scale = _mm512_set1_ps(-1.702f * 1.44269504088896341f);
    const __m512 one = _mm512_set1_ps(1), two = _mm512_set1_ps(2);
    __m512 y[MAX_VECTORS], f[MAX_VECTORS];
    EACH
    {
        /* The limits keep 2^n finite; written so that a NaN stays one. */
        y[v] = _mm512_min_ps(_mm512_set1_ps(120), _mm512_mul_ps(x[v], scale));
        y[v] = _mm512_max_ps(_mm512_set1_ps(-120), y[v]);
        f[v] = _mm512_reduce_ps(y[v], 0);
        out[v] = _mm512_set1_ps(taylor[0]);
    }
    for (int j = 1; j < n_terms; j++)
        EACH out[v] = _mm512_fmadd_ps(out[v], f[v], _mm512_set1_ps(taylor[j]));
    EACH
    {
        __m512 sum = _mm512_add_ps(one, _mm512_scalef_ps(out[v], _mm512_sub_ps(y[v], f[v])));
        out[v] = _mm512_rcp14_ps(sum);
        out[v] = _mm512_mul_ps(out[v], _mm512_fnmadd_ps(sum, out[v], two)); /* Newton's step */
    }
}

INLINE void quickgelu(__m512 *x, int n_vectors)
{
    __m512 s[MAX_VECTORS];
    sigmoid_1702(s, x, n_vectors);
    EACH x[v] = _mm512_mul_ps(x[v], s[v]);
}

/* (x s)' = s + 1.702 x s (1 - s) */
INLINE void quickgelu_gradient(__m512 *x, int n_vectors)
{
    __m512 s[MAX_VECTORS];
    sigmoid_1702(s, x, n_vectors);
    EACH
    {
        __m512 slope = _mm512_mul_ps(_mm512_mul_ps(x[v], _mm512_set1_ps(1.702f)), s[v]);
        x[v] = _mm512_fmadd_ps(slope, _mm512_sub_ps(_mm512_set1_ps(1), s[v]), s[v]);
    }
}

/* ---- rows of 32 ------------------------------------------------------------------------ */

/* x[0], x[1] = 32 values. */
INLINE void load_row(__m512 *x, const void *base, int64_t at, __mmask32 mask, dip_dtype dtype)
{
    if (dtype == DIP_F32) {
        const float *p = (const float *)base + at;
        x[0] = _mm512_maskz_loadu_ps((__mmask16)mask, p);
        x[1] = _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), p + 16);
        return;
    }
    __m512i packed = _mm512_maskz_loadu_epi16(mask, (const uint16_t *)base + at);
    __m512i low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(packed));
    __m512i high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(packed, 1));
    x[0] = _mm512_castsi512_ps(_mm512_slli_epi32(low, 16));
    x[1] = _mm512_castsi512_ps(_mm512_slli_epi32(high, 16));
}

INLINE void store_row(void *base, int64_t at, __mmask32 mask, const __m512 *x, dip_dtype dtype)
{
    if (dtype == DIP_F32) {
        float *p = (float *)base + at;
        _mm512_mask_storeu_ps(p, (__mmask16)mask, x[0]);
        _mm512_mask_storeu_ps(p + 16, (__mmask16)(mask >> 16), x[1]);
    } else {
        _mm512_mask_storeu_epi16((uint16_t *)base + at, mask,
                                 (__m512i)_mm512_cvtne2ps_pbh(x[1], x[0]));
    }
}

/* n_rows (1 or 2) rows of 32; `at`: of the first element in the output. */
INLINE void forward_rows(const dip_gemm_epilogue *e, const float *c, int64_t at, int64_t col,
                         __mmask32 mask, int n_rows, dip_activation act, dip_dtype dtype)
{
    const int n_vectors = 2 * n_rows;
    __m512 x[MAX_VECTORS];
    EACH x[v] =
        _mm512_add_ps(_mm512_load_ps(c + 16 * v), _mm512_load_ps(e->bias + col + v % 2 * 16));
    if (e->pre != NULL)
        for (int i = 0; i < n_rows; i++) store_row(e->pre, at + i * e->ld, mask, x + 2 * i, dtype);
    if (act == DIP_ACT_GELU) gelu(x, n_vectors);
    if (act == DIP_ACT_QUICKGELU) quickgelu(x, n_vectors);
    if (e->residual != NULL) {
        __m512 r[MAX_VECTORS];
        for (int i = 0; i < n_rows; i++)
            load_row(r + 2 * i, e->residual, at + i * e->ld, mask, dtype);
        EACH x[v] = _mm512_add_ps(x[v], r[v]);
    }
    for (int i = 0; i < n_rows; i++) store_row(e->out, at + i * e->ld, mask, x + 2 * i, dtype);
}

INLINE void gradient_rows(const dip_gemm_epilogue *e, const float *c, int64_t at, int64_t col,
                          __mmask32 mask, int n_rows, dip_activation act, dip_dtype dtype)
{
    const int n_vectors = 2 * n_rows;
    __m512 x[MAX_VECTORS];
    (void)col;
    for (int i = 0; i < n_rows; i++) load_row(x + 2 * i, e->act_pre, at + i * e->ld, mask, dtype);
    if (act == DIP_ACT_GELU)
        gelu_gradient(x, n_vectors);
    else
        quickgelu_gradient(x, n_vectors);
    EACH x[v] = _mm512_mul_ps(x[v], _mm512_load_ps(c + 16 * v));
    for (int i = 0; i < n_rows; i++) store_row(e->out, at + i * e->ld, mask, x + 2 * i, dtype);
}

#define EPILOGUE(name, body, act, dtype)                                                           \
    static void name(const dip_gemm_epilogue *e, const float *c, int64_t row, int64_t col,         \
                     int n_rows, int n_cols)                                                       \
    {                                                                                              \
        const __mmask32 mask = (__mmask32)(0xffffffffu >> (GEMM_BLOCK - n_cols));                  \
        int64_t at = row * e->ld + col;                                                            \
        for (; n_rows >= 2; n_rows -= 2) {                                                         \
            body(e, c, at, col, mask, 2, act, dtype);                                              \
            c += 2 * GEMM_BLOCK;                                                                   \
            at += 2 * e->ld;                                                                       \
        }                                                                                          \
        if (n_rows == 1) body(e, c, at, col, mask, 1, act, dtype);                                 \
    }
EPILOGUE(forward_none_f32, forward_rows, DIP_ACT_NONE, DIP_F32)
EPILOGUE(forward_gelu_f32, forward_rows, DIP_ACT_GELU, DIP_F32)
EPILOGUE(forward_quick_f32, forward_rows, DIP_ACT_QUICKGELU, DIP_F32)
EPILOGUE(forward_none_bf16, forward_rows, DIP_ACT_NONE, DIP_BF16)
EPILOGUE(forward_gelu_bf16, forward_rows, DIP_ACT_GELU, DIP_BF16)
EPILOGUE(forward_quick_bf16, forward_rows, DIP_ACT_QUICKGELU, DIP_BF16)
EPILOGUE(gradient_gelu_f32, gradient_rows, DIP_ACT_GELU, DIP_F32)
EPILOGUE(gradient_quick_f32, gradient_rows, DIP_ACT_QUICKGELU, DIP_F32)
EPILOGUE(gradient_gelu_bf16, gradient_rows, DIP_ACT_GELU, DIP_BF16)
EPILOGUE(gradient_quick_bf16, gradient_rows, DIP_ACT_QUICKGELU, DIP_BF16)

dip_gemm_epilogue_fn *dip_gemm_epilogue_for(dip_dtype dtype, dip_activation act, bool gradient)
{
    static dip_gemm_epilogue_fn *const forward[2][3] = {
        [DIP_F32] = {forward_none_f32, forward_gelu_f32, forward_quick_f32},
        [DIP_BF16] = {forward_none_bf16, forward_gelu_bf16, forward_quick_bf16},
    };
    static dip_gemm_epilogue_fn *const backward[2][3] = {
        [DIP_F32] = {forward_none_f32, gradient_gelu_f32, gradient_quick_f32},
        [DIP_BF16] = {forward_none_bf16, gradient_gelu_bf16, gradient_quick_bf16},
    };
    tables_init();
    return gradient ? backward[dtype][act] : forward[dtype][act];
}
