/* What follows a product, on a block that has just left the tiles.
 *
 * GELU without an exponential: with Q(a) = 1 - Phi(a),
 *   gelu(x)  = max(x, 0) - |x| Q(|x|)
 *   gelu'(x) = R(|x|) for x < 0, else 1 - R(|x|),  R(a) = Q(a) - a phi(a).
 * Q and R are interpolated by polynomials of degree 4 around the multiples of 1/5, 31 of them;
 * beyond 6.1 both count as zero. A coefficient is looked up by one permutation of two registers.
 * The absolute error of Q is below 1e-8, of R below 5e-8: less than fp32's rounding of 1. */
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

static const float center_distance = 0.2f;
static table table_q, table_r;

static double tail_probability(double a) { return 0.5 * erfc(a * 0.70710678118654752440); }

static double tail_gradient(double a)
{
    return tail_probability(a) - a * 0.39894228040143267794 * exp(-0.5 * a * a);
}

/* The polynomial through five Chebyshev points around each center: Newton's divided
 * differences, then expanded into powers of the distance from the center. */
static void fill_table(table *out, double (*function)(double))
{
    const double pi = 3.14159265358979323846;
    memset(out, 0, sizeof *out); /* the last entry stays zero: the far tail */
    for (int center = 0; center < N_CENTERS - 1; center++) {
        double at[N_COEFFICIENTS], value[N_COEFFICIENTS], power[N_COEFFICIENTS] = {0};
        for (int i = 0; i < N_COEFFICIENTS; i++) {
            at[i] = 0.5 * (double)center_distance * cos(pi * (2 * i + 1) / (2 * N_COEFFICIENTS));
            value[i] = function((double)center_distance * center + at[i]);
        }
        for (int order = 1; order < N_COEFFICIENTS; order++)
            for (int i = N_COEFFICIENTS - 1; i >= order; i--)
                value[i] = (value[i] - value[i - 1]) / (at[i] - at[i - order]);
        for (int i = N_COEFFICIENTS - 1; i >= 0; i--) {
            for (int j = N_COEFFICIENTS - 1; j > 0; j--) power[j] = power[j - 1] - at[i] * power[j];
            power[0] = value[i] - at[i] * power[0];
        }
        for (int j = 0; j < N_COEFFICIENTS; j++) out->coefficient[j][center] = (float)power[j];
    }
}

static void fill_tables(void)
{
    fill_table(&table_q, tail_probability);
    fill_table(&table_r, tail_gradient);
}

static void tables_init(void)
{
    static pthread_once_t filled = PTHREAD_ONCE_INIT;
    pthread_once(&filled, fill_tables);
}

static inline __m512 look_up(const table *t, __m512 magnitude)
{
    const __m512 distance = _mm512_set1_ps(center_distance);
    const __m512 to_integer = _mm512_set1_ps(0x1.8p23f); /* rounds, integer in the low bits */
    __m512 a = _mm512_min_ps(magnitude, _mm512_mul_ps(distance, _mm512_set1_ps(N_CENTERS - 1)));
    __m512 shifted = _mm512_fmadd_ps(a, _mm512_set1_ps(1.0f / 0.2f), to_integer);
    __m512i index = _mm512_castps_si512(shifted);
    __m512 offset = _mm512_fnmadd_ps(_mm512_sub_ps(shifted, to_integer), distance, a);
    __m512 sum = _mm512_permutex2var_ps(_mm512_load_ps(t->coefficient[N_COEFFICIENTS - 1]), index,
                                        _mm512_load_ps(t->coefficient[N_COEFFICIENTS - 1] + 16));
    for (int j = N_COEFFICIENTS - 2; j >= 0; j--) {
        __m512 c = _mm512_permutex2var_ps(_mm512_load_ps(t->coefficient[j]), index,
                                          _mm512_load_ps(t->coefficient[j] + 16));
        sum = _mm512_fmadd_ps(sum, offset, c);
    }
    return sum;
}

/* ---- activations ----------------------------------------------------------------------- */

static inline __m512 gelu(__m512 x)
{
    __m512 magnitude = _mm512_abs_ps(x);
    return _mm512_fnmadd_ps(magnitude, look_up(&table_q, magnitude),
                            _mm512_max_ps(x, _mm512_setzero_ps()));
}

static inline __m512 gelu_gradient(__m512 x)
{
    __m512 r = look_up(&table_r, _mm512_abs_ps(x));
    __mmask16 negative = _mm512_movepi32_mask(_mm512_castps_si512(x));
    __m512 result = _mm512_mask_sub_ps(r, _mm512_knot(negative), _mm512_set1_ps(1), r);
    return _mm512_mask_mov_ps(result, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x); /* NaN */
}

/* exp(-y) by 2^n 2^f, f in [-1/2, 1/2], the Taylor series of 2^f to degree 7. */
static inline __m512 exp_negative(__m512 y)
{
    /* The limits keep 2^n finite and leave NaN alone. */
    __m512 t = _mm512_mul_ps(y, _mm512_set1_ps(-1.44269504088896341f));
    t = _mm512_max_ps(_mm512_set1_ps(-140), _mm512_min_ps(_mm512_set1_ps(127), t));
    __m512 n = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 f = _mm512_sub_ps(t, n);
    __m512 p = _mm512_set1_ps(1.5252733804e-5f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.5403530393e-4f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.3333558146e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.6181291076e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5504108665e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022650696e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314718056e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

static inline __m512 sigmoid_1702(__m512 x)
{
    __m512 e = exp_negative(_mm512_mul_ps(x, _mm512_set1_ps(1.702f)));
    return _mm512_div_ps(_mm512_set1_ps(1), _mm512_add_ps(_mm512_set1_ps(1), e));
}

static inline __m512 quickgelu(__m512 x) { return _mm512_mul_ps(x, sigmoid_1702(x)); }

/* (x s)' = s + 1.702 x s (1 - s) */
static inline __m512 quickgelu_gradient(__m512 x)
{
    __m512 s = sigmoid_1702(x);
    __m512 slope = _mm512_mul_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.702f)), s);
    return _mm512_fmadd_ps(slope, _mm512_sub_ps(_mm512_set1_ps(1), s), s);
}

static inline __m512 activate(__m512 x, dip_activation act)
{
    return act == DIP_ACT_GELU ? gelu(x) : act == DIP_ACT_QUICKGELU ? quickgelu(x) : x;
}

static inline __m512 activation_gradient(__m512 x, dip_activation act)
{
    return act == DIP_ACT_GELU ? gelu_gradient(x) : quickgelu_gradient(x);
}

/* ---- rows of 32 ------------------------------------------------------------------------ */

typedef struct row32 {
    __m512 low, high;
} row32;

static inline row32 load_row(const void *base, int64_t at, __mmask32 mask, dip_dtype dtype)
{
    row32 x;
    if (dtype == DIP_F32) {
        const float *p = (const float *)base + at;
        x.low = _mm512_maskz_loadu_ps((__mmask16)mask, p);
        x.high = _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), p + 16);
        return x;
    }
    __m512i packed = _mm512_maskz_loadu_epi16(mask, (const uint16_t *)base + at);
    __m512i low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(packed));
    __m512i high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(packed, 1));
    x.low = _mm512_castsi512_ps(_mm512_slli_epi32(low, 16));
    x.high = _mm512_castsi512_ps(_mm512_slli_epi32(high, 16));
    return x;
}

static inline void store_row(void *base, int64_t at, __mmask32 mask, row32 x, dip_dtype dtype)
{
    if (dtype == DIP_F32) {
        float *p = (float *)base + at;
        _mm512_mask_storeu_ps(p, (__mmask16)mask, x.low);
        _mm512_mask_storeu_ps(p + 16, (__mmask16)(mask >> 16), x.high);
    } else {
        _mm512_mask_storeu_epi16((uint16_t *)base + at, mask,
                                 (__m512i)_mm512_cvtne2ps_pbh(x.high, x.low));
    }
}

static inline __attribute__((always_inline)) void
forward_rows(const dip_gemm_epilogue *e, const float *c, int64_t row, int64_t col, int n_rows,
             int n_cols, dip_activation act, dip_dtype dtype)
{
    __mmask32 mask = (__mmask32)(0xffffffffu >> (GEMM_BLOCK - n_cols));
    __m512 low_bias = _mm512_load_ps(e->bias + col), high_bias = _mm512_load_ps(e->bias + col + 16);
    for (int i = 0; i < n_rows; i++) {
        int64_t at = (row + i) * e->ld + col;
        row32 x = {_mm512_add_ps(_mm512_load_ps(c + i * GEMM_BLOCK), low_bias),
                   _mm512_add_ps(_mm512_load_ps(c + i * GEMM_BLOCK + 16), high_bias)};
        if (e->pre != NULL) store_row(e->pre, at, mask, x, dtype);
        x.low = activate(x.low, act);
        x.high = activate(x.high, act);
        if (e->residual != NULL) {
            row32 r = load_row(e->residual, at, mask, dtype);
            x.low = _mm512_add_ps(x.low, r.low);
            x.high = _mm512_add_ps(x.high, r.high);
        }
        store_row(e->out, at, mask, x, dtype);
    }
}

static inline __attribute__((always_inline)) void
gradient_rows(const dip_gemm_epilogue *e, const float *c, int64_t row, int64_t col, int n_rows,
              int n_cols, dip_activation act, dip_dtype dtype)
{
    __mmask32 mask = (__mmask32)(0xffffffffu >> (GEMM_BLOCK - n_cols));
    for (int i = 0; i < n_rows; i++) {
        int64_t at = (row + i) * e->ld + col;
        row32 x = load_row(e->act_pre, at, mask, dtype);
        x.low = _mm512_mul_ps(activation_gradient(x.low, act), _mm512_load_ps(c + i * GEMM_BLOCK));
        x.high = _mm512_mul_ps(activation_gradient(x.high, act),
                               _mm512_load_ps(c + i * GEMM_BLOCK + 16));
        store_row(e->out, at, mask, x, dtype);
    }
}

#define EPILOGUE(name, body, act, dtype)                                                           \
    static void name(const dip_gemm_epilogue *e, const float *c, int64_t row, int64_t col,         \
                     int n_rows, int n_cols)                                                       \
    {                                                                                              \
        body(e, c, row, col, n_rows, n_cols, act, dtype);                                          \
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
