/* Products in 8-bit floats: their values and sums, the scales they learn, and what they do with
 * numbers that are not finite. On a GPU that has them, or the emulated one. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/rng.h"
#include "kernels/ops.h"

#ifdef DIPTYCH_EMULATED_GPU
#include "core/scratch.h"
#include "kernels/cuda/fp8.h"
#include "kernels/cuda/matmul_choices.h"
/* Sums are in float. */
#define SUM_ERROR 0x1p-20
#else
/* Tensor cores keep 14 bits of what they add. */
#define SUM_ERROR 0x1p-12
#endif

/* ---- 8-bit floats ------------------------------------------------------------------------- */

typedef struct format {
    int mantissa, smallest; /* bits; exponent of the smallest normal number */
    double largest;
} format;

static const format e4m3 = {3, -6, 448}, e5m2 = {2, -14, 57344};

/* The nearest number of the format, the largest for what is beyond it. */
static double nearest(double x, format f)
{
    if (x == 0 || isnan(x)) return x;
    if (fabs(x) >= f.largest) return copysign(f.largest, x);
    const int exponent = ilogb(x) > f.smallest ? ilogb(x) : f.smallest;
    const double unit = ldexp(1, exponent - f.mantissa);
    const double rounded = nearbyint(x / unit) * unit;
    return fabs(rounded) > f.largest ? copysign(f.largest, x) : rounded;
}

static double scale_for(double maximum, format f)
{
    return maximum > 0 ? exp2(floor(log2(f.largest / maximum))) : 1;
}

static double largest_of(const double *x, int64_t n)
{
    double largest = 0;
    for (int64_t i = 0; i < n; i++)
        if (isfinite(x[i])) largest = fmax(largest, fabs(x[i]));
    return largest;
}

/* What the copy of x stands for. */
static double *dequantised(const double *x, int64_t n, double scale, format f)
{
    double *out = malloc((size_t)n * sizeof *out);
    assert_non_null(out);
    for (int64_t i = 0; i < n; i++) out[i] = nearest(x[i] * scale, f) / scale;
    return out;
}

/* With the scale of its own maximum. */
static double *first_copy(const double *x, int64_t n, format f)
{
    return dequantised(x, n, scale_for(largest_of(x, n), f), f);
}

/* ---- memory ------------------------------------------------------------------------------- */

static dip_exec exec;

static int opens(void)
{
    if (exec.ops) return 1;
    if (dip_exec_open(&exec, "cuda", DIP_BF16, 1) != DIP_OK ||
        dip_exec_use_fp8(&exec, NULL, 0, 0) != DIP_OK) {
        print_message("SKIPPED: %s\n", dip_error());
        dip_exec_close(&exec);
        return 0;
    }
    return 1;
}

static void *book(size_t n_bytes)
{
    void *out;
    assert_int_equal(exec.device->allocate(exec.device, &out, n_bytes), DIP_OK);
    return out;
}

static void drop(void *memory)
{
    exec.device->release(exec.device, memory);
}

static void put(void *device, const double *x, int64_t n)
{
    dip_bf16 *host = malloc((size_t)n * sizeof *host);
    for (int64_t i = 0; i < n; i++) host[i] = dip_bf16_from_float((float)x[i]);
    assert_int_equal(exec.device->upload(&exec, device, host, (size_t)n * sizeof *host), DIP_OK);
    free(host);
}

static void put_float(void *device, const double *x, int64_t n)
{
    float *host = malloc((size_t)n * sizeof *host);
    for (int64_t i = 0; i < n; i++) host[i] = (float)x[i];
    assert_int_equal(exec.device->upload(&exec, device, host, (size_t)n * sizeof *host), DIP_OK);
    free(host);
}

static double *get(const void *device, int64_t n)
{
    dip_bf16 *host = malloc((size_t)n * sizeof *host);
    double *out = malloc((size_t)n * sizeof *out);
    assert_int_equal(exec.device->download(&exec, host, device, (size_t)n * sizeof *host), DIP_OK);
    for (int64_t i = 0; i < n; i++) out[i] = (double)dip_bf16_to_float(host[i]);
    free(host);
    return out;
}

static double *get_float(const void *device, int64_t n)
{
    float *host = malloc((size_t)n * sizeof *host);
    double *out = malloc((size_t)n * sizeof *out);
    assert_int_equal(exec.device->download(&exec, host, device, (size_t)n * sizeof *host), DIP_OK);
    for (int64_t i = 0; i < n; i++) out[i] = (double)host[i];
    free(host);
    return out;
}

/* Numbers of bf16. */
static double *random_numbers(uint64_t seed, int64_t n, double spread)
{
    dip_rng rng;
    double *out = malloc((size_t)n * sizeof *out);
    dip_rng_init(&rng, seed, dip_rng_stream(DIP_RNG_TEST, 0, 0));
    for (int64_t i = 0; i < n; i++)
        out[i] = (double)dip_bf16_to_float(
            dip_bf16_from_float((float)(spread * dip_rng_range(&rng, -1, 1))));
    return out;
}

/* One weight [c_out, c_in] and all that its products take. */
typedef struct bench {
    dip_matmul_shape shape;
    void *w, *x, *out, *pre, *bias, *d_out, *d_x;
    float *d_w, *d_bias;
    dip_update *update;
    double *scalars; /* lr, loss, sum of squares */
} bench;

static void bench_open(bench *b, int64_t n_rows, int64_t c_in, int64_t c_out)
{
    const double scalars[3] = {1, 1, 1};
    const dip_update update = {0};
    b->shape = (dip_matmul_shape){n_rows, c_in, c_out, DIP_OUT_IN};
    b->w = book((size_t)(c_in * c_out) * 2);
    b->x = book((size_t)(n_rows * c_in) * 2);
    b->d_x = book((size_t)(n_rows * c_in) * 2);
    b->out = book((size_t)(n_rows * c_out) * 2);
    b->pre = book((size_t)(n_rows * c_out) * 2);
    b->d_out = book((size_t)(n_rows * c_out) * 2);
    b->bias = book((size_t)c_out * 2);
    b->d_w = book((size_t)(c_in * c_out) * sizeof(float));
    b->d_bias = book((size_t)c_out * sizeof(float));
    b->update = book(sizeof *b->update);
    b->scalars = book(sizeof scalars);
    assert_int_equal(exec.device->upload(&exec, b->scalars, scalars, sizeof scalars), DIP_OK);
    assert_int_equal(exec.device->upload(&exec, b->update, &update, sizeof update), DIP_OK);
    const dip_fp8_weight weight = {b->w, b->d_w, c_out, c_in};
    assert_int_equal(dip_exec_use_fp8(&exec, &weight, 1, n_rows), DIP_OK);
}

static void bench_close(bench *b)
{
    void *const all[] = {b->w,    b->x,   b->d_x,    b->out,    b->pre,    b->d_out,
                         b->bias, b->d_w, b->d_bias, b->update, b->scalars};
    assert_int_equal(dip_exec_use_fp8(&exec, NULL, 0, 0), DIP_OK);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) drop(all[i]);
}

static void forward(const bench *b)
{
    assert_int_equal(exec.ops->matmul_forward(&exec, b->out, NULL, b->x, b->w, NULL, NULL,
                                              DIP_ACT_NONE, b->shape),
                     DIP_OK);
}

static void end_step(const bench *b)
{
    assert_int_equal(exec.ops->update_begin(&exec, b->update, b->scalars, b->scalars + 1,
                                            b->scalars + 2, (dip_adamw_hyper){.beta1 = 0.5}),
                     DIP_OK);
}

/* ---- sums --------------------------------------------------------------------------------- */

/* c [n, m] = sum_k a(n, k) b(m, k), and the sums of the magnitudes. */
typedef struct matrix {
    const double *at;
    int64_t row, column; /* steps */
} matrix;

static void multiply(double *c, double *magnitude, matrix a, matrix b, int64_t n, int64_t m,
                     int64_t k)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++) {
            double sum = 0, size = 0;
            for (int64_t l = 0; l < k; l++) {
                const double term = a.at[i * a.row + l * a.column] * b.at[j * b.row + l * b.column];
                sum += term;
                size += fabs(term);
            }
            c[i * m + j] = sum;
            magnitude[i * m + j] = size;
        }
}

/* got is the product of the 8-bit operands plus `more` (or NULL), and near that of the whole ones,
 * but not as near as a product of bf16 would be. */
static void compare(const char *what, const double *got, const double *more, bool is_bf16,
                    matrix a[2], matrix b[2], int64_t n, int64_t m, int64_t k)
{
    const size_t n_bytes = (size_t)(n * m) * sizeof(double);
    double *sum = malloc(n_bytes), *size = malloc(n_bytes), worst = 0, error = 0, all = 0;
    multiply(sum, size, a[0], b[0], n, m, k);
    for (int64_t i = 0; i < n * m; i++) {
        const double exact = sum[i] + (more ? more[i] : 0);
        const double bound =
            SUM_ERROR * (size[i] + fabs(exact)) + (is_bf16 ? 0x1.01p-8 * fabs(exact) : 0) + 1e-30;
        if (!(fabs(got[i] - exact) <= bound))
            fail_msg("%s [%lld, %lld]: %.9g, not %.9g (by %.2g)", what, (long long)(i / m),
                     (long long)(i % m), got[i], exact, bound);
        worst = fmax(worst, fabs(got[i] - exact) / bound);
    }
    multiply(sum, size, a[1], b[1], n, m, k);
    for (int64_t i = 0; i < n * m; i++) {
        const double exact = sum[i] + (more ? more[i] : 0);
        error += (got[i] - exact) * (got[i] - exact);
        all += sum[i] * sum[i];
    }
    print_message(
        "%-20s [%4lld, %4lld, %4lld]: %.2f of the bound, %.2f %% of what bf16 multiplies\n", what,
        (long long)n, (long long)m, (long long)k, worst, 100 * sqrt(error / all));
    assert_true(sqrt(error / all) < 0.08);
    assert_true(sqrt(error / all) > 0.01);
    free(sum);
    free(size);
}

static double gelu(double x)
{
    return 0.5 * x * (1 + erf(x * sqrt(0.5)));
}

static void check_products(int64_t rows, int64_t in, int64_t out, double spread)
{
    bench b;
    bench_open(&b, rows, in, out);
    double *const w = random_numbers(1, out * in, 0.02), *const x = random_numbers(2, rows * in, 3);
    double *const d_out = random_numbers(3, rows * out, spread);
    double *const more = random_numbers(4, rows * out, 0.5), *const bias =
                                                                 random_numbers(5, out, 1);
    double *const d_w = random_numbers(6, out * in, spread);
    double *const w8 = first_copy(w, out * in, e4m3), *const x8 = first_copy(x, rows * in, e4m3);
    double *const d_out8 = first_copy(d_out, rows * out, e5m2);
    put(b.w, w, out * in);
    put(b.x, x, rows * in);
    put(b.d_out, d_out, rows * out);
    put(b.bias, bias, out);
    put(b.out, more, rows * out);
    put_float(b.d_w, d_w, out * in);
    put_float(b.d_bias, bias, out);

    /* out = x w^T + bias + residual, in place */
    assert_int_equal(exec.ops->matmul_forward(&exec, b.out, NULL, b.x, b.w, b.bias, b.out,
                                              DIP_ACT_NONE, b.shape),
                     DIP_OK);
    double *got = get(b.out, rows * out);
    for (int64_t i = 0; i < rows * out; i++) more[i] += bias[i % out];
    compare("forward", got, more, true, (matrix[2]){{x8, in, 1}, {x, in, 1}},
            (matrix[2]){{w8, in, 1}, {w, in, 1}}, rows, out, in);
    free(got);

    /* pre, and what is made of it */
    assert_int_equal(
        exec.ops->matmul_forward(&exec, b.out, b.pre, b.x, b.w, NULL, NULL, DIP_ACT_GELU, b.shape),
        DIP_OK);
    got = get(b.pre, rows * out);
    compare("pre", got, NULL, true, (matrix[2]){{x8, in, 1}, {x, in, 1}},
            (matrix[2]){{w8, in, 1}, {w, in, 1}}, rows, out, in);
    double *act = get(b.out, rows * out);
    for (int64_t i = 0; i < rows * out; i++)
        assert_true(fabs(act[i] - gelu(got[i])) <= 0.005 * fabs(gelu(got[i])) + 1e-6);
    free(act);
    free(got);

    /* d_x = d_out w */
    assert_int_equal(
        exec.ops->matmul_backward_input(&exec, b.d_x, b.d_out, b.w, NULL, DIP_ACT_NONE, b.shape),
        DIP_OK);
    got = get(b.d_x, rows * in);
    compare("backward input", got, NULL, true, (matrix[2]){{d_out8, out, 1}, {d_out, out, 1}},
            (matrix[2]){{w8, 1, in}, {w, 1, in}}, rows, in, out);
    free(got);

    /* d_w += d_out^T x */
    assert_int_equal(
        exec.ops->matmul_backward_weight(&exec, b.d_w, b.d_bias, b.d_out, b.x, b.shape), DIP_OK);
    got = get_float(b.d_w, out * in);
    compare("backward weight", got, d_w, false, (matrix[2]){{d_out8, 1, out}, {d_out, 1, out}},
            (matrix[2]){{x8, 1, in}, {x, 1, in}}, out, in, rows);
    free(got);
    got = get_float(b.d_bias, out); /* of the whole gradient */
    for (int64_t c = 0; c < out; c++) {
        double sum = bias[c];
        for (int64_t i = 0; i < rows; i++) sum += d_out[i * out + c];
        assert_true(fabs(got[c] - sum) <= 1e-4 * (1 + spread));
    }
    free(got);

    double *const all[] = {w, x, d_out, more, bias, d_w, w8, x8, d_out8};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
    bench_close(&b);
}

static void multiplies(void **state)
{
    (void)state;
    if (!opens()) skip();
    check_products(16, 16, 16, 1);
    check_products(144, 80, 48, 1e-6);
    check_products(32, 64, 192, 1e4);
    check_products(272, 208, 32, 1e-3);
}

/* ---- what is not in fp8 --------------------------------------------------------------------- */

static void assert_same(const double *a, const double *b, int64_t n, bool same)
{
    assert_int_equal(memcmp(a, b, (size_t)n * sizeof *a) == 0, same);
}

/* A product as it is, and the same with fp8 paused: equal bits mean that it was in bf16. */
static void check_same(const bench *b, dip_matmul_shape shape, const void *w, bool same)
{
    const int64_t n = shape.n_rows * shape.c_out;
    double *out[2];
    for (int i = 0; i < 2; i++) {
        dip_exec_pause_fp8(&exec, i);
        assert_int_equal(
            exec.ops->matmul_forward(&exec, b->out, NULL, b->x, w, NULL, NULL, DIP_ACT_NONE, shape),
            DIP_OK);
        out[i] = get(b->out, n);
    }
    dip_exec_pause_fp8(&exec, 0);
    assert_same(out[0], out[1], n, same);
    free(out[0]);
    free(out[1]);
}

static void leaves_other_products(void **state)
{
    (void)state;
    if (!opens()) skip();
    bench b;
    bench_open(&b, 64, 48, 48);
    double *const w = random_numbers(1, 48 * 48, 1), *const x = random_numbers(2, 64 * 48, 1);
    void *other = book(48 * 48 * 2);
    put(b.w, w, 48 * 48);
    put(other, w, 48 * 48);
    put(b.x, x, 64 * 48);
    check_same(&b, (dip_matmul_shape){64, 48, 48, DIP_OUT_IN}, b.w, false);
    check_same(&b, (dip_matmul_shape){32, 48, 48, DIP_OUT_IN}, b.w, false);
    check_same(&b, (dip_matmul_shape){24, 48, 48, DIP_OUT_IN}, b.w, true);
    check_same(&b, (dip_matmul_shape){64, 48, 48, DIP_IN_OUT}, b.w, true);
    check_same(&b, (dip_matmul_shape){64, 48, 48, DIP_OUT_IN}, other, true);
    drop(other);
    free(w);
    free(x);
    bench_close(&b);
}

static void refuses_a_cpu(void **state)
{
    (void)state;
    dip_exec other;
    assert_int_equal(dip_exec_open(&other, "cpu", DIP_BF16, 1), DIP_OK);
    assert_int_equal(dip_exec_use_fp8(&other, NULL, 0, 0), DIP_UNSUPPORTED);
    assert_non_null(strstr(dip_error(), "not device cpu"));
    dip_exec_pause_fp8(&other, 1); /* nothing to pause */
    dip_exec_close(&other);
}

static void refuses_what_cannot(void **state)
{
    (void)state;
    dip_exec other;
    if (!opens()) skip();
    assert_int_equal(dip_exec_open(&other, "cuda", DIP_F32, 1), DIP_OK);
    assert_int_equal(dip_exec_use_fp8(&other, NULL, 0, 0), DIP_UNSUPPORTED);
    assert_non_null(strstr(dip_error(), "not of fp32"));
    dip_exec_close(&other);
#ifdef DIPTYCH_EMULATED_GPU
    assert_int_equal(setenv("DIPTYCH_EMULATED_CAPABILITY", "80", 1), 0);
    assert_int_equal(dip_exec_open(&other, "cuda", DIP_BF16, 1), DIP_OK);
    assert_int_equal(dip_exec_use_fp8(&other, NULL, 0, 0), DIP_UNSUPPORTED);
    assert_non_null(strstr(dip_error(), "need compute capability 8.9"));
    assert_non_null(strstr(dip_error(), "has 8.0"));
    dip_exec_close(&other);
    assert_int_equal(unsetenv("DIPTYCH_EMULATED_CAPABILITY"), 0);
#endif
}

/* ---- scales --------------------------------------------------------------------------------- */

enum { SIDE = 32, AREA = SIDE * SIDE };

/* w the unit matrix: products are the copies themselves. */
static void unit_open(bench *b)
{
    double unit[AREA] = {0};
    for (int i = 0; i < SIDE; i++) unit[i * SIDE + i] = 1;
    bench_open(b, SIDE, SIDE, SIDE);
    put(b->w, unit, AREA);
}

/* Forward on x [AREA]: copies with `scale`, exactly. */
static void check_copy(const bench *b, const double *x, double scale)
{
    put(b->x, x, AREA);
    forward(b);
    double *const got = get(b->out, AREA), *const expected = dequantised(x, AREA, scale, e4m3);
    for (int i = 0; i < AREA; i++)
        if (!(got[i] == expected[i]))
            fail_msg("element %d, %.9g: %.9g, not %.9g", i, x[i], got[i], expected[i]);
    free(got);
    free(expected);
}

static void learns_scales(void **state)
{
    (void)state;
    if (!opens()) skip();
    bench b;
    unit_open(&b);
    double *const x = random_numbers(1, AREA, 1), *const large = random_numbers(2, AREA, 20);
    double *const tiny = random_numbers(3, AREA, 1e-5);
    const double by_x = scale_for(largest_of(x, AREA), e4m3);
    const double by_large = scale_for(largest_of(large, AREA), e4m3);
    const double by_tiny = scale_for(largest_of(tiny, AREA), e4m3);
    assert_true(by_large < by_x && by_x < by_tiny);

    check_copy(&b, tiny, by_tiny); /* no history: its own */
    check_copy(&b, x, by_x);       /* and in the same step that of what has been seen */
    check_copy(&b, tiny, by_x);
    end_step(&b);
    check_copy(&b, tiny, by_x);
    check_copy(&b, large, by_x); /* saturates once */
    end_step(&b);
    check_copy(&b, x, by_large);
    for (int i = 0; i < 15; i++) { /* fifteen more steps, and `large` is still remembered */
        check_copy(&b, tiny, by_large);
        end_step(&b);
    }
    check_copy(&b, tiny, by_large);
    for (int i = 0; i < 3; i++) end_step(&b); /* the sixteenth; those without it are no steps */
    check_copy(&b, tiny, by_x);               /* x was in one of the sixteen */
    end_step(&b);
    check_copy(&b, tiny, by_tiny);
    /* Paused, nothing is seen. */
    dip_exec_pause_fp8(&exec, 1);
    put(b.x, large, AREA);
    forward(&b);
    dip_exec_pause_fp8(&exec, 0);
    end_step(&b);
    check_copy(&b, tiny, by_tiny);
    free(x);
    free(large);
    free(tiny);
    bench_close(&b);
}

/* Gradients: e5m2, a scale of their own, and turned for the weight's gradient. */
static void scales_gradients(void **state)
{
    (void)state;
    if (!opens()) skip();
    bench b;
    unit_open(&b);
    double unit[AREA] = {0};
    double *const d_out = random_numbers(1, AREA, 3e-7), *const larger = random_numbers(2, AREA, 1);
    const double scale = scale_for(largest_of(d_out, AREA), e5m2);
    for (int step = 0; step < 2; step++) {
        const double *gradient = step == 0 ? d_out : larger; /* the second saturates */
        double *const expected = dequantised(gradient, AREA, scale, e5m2);
        put(b.d_out, gradient, AREA);
        assert_int_equal(exec.ops->matmul_backward_input(&exec, b.d_x, b.d_out, b.w, NULL,
                                                         DIP_ACT_NONE, b.shape),
                         DIP_OK);
        for (int i = 0; i < SIDE; i++) unit[i * SIDE + i] = 1;
        put(b.x, unit, AREA);
        assert_int_equal(exec.device->zero(&exec, b.d_w, AREA * sizeof(float)), DIP_OK);
        assert_int_equal(
            exec.ops->matmul_backward_weight(&exec, b.d_w, NULL, b.d_out, b.x, b.shape), DIP_OK);
        double *const d_x = get(b.d_x, AREA), *const d_w = get_float(b.d_w, AREA);
        for (int i = 0; i < AREA; i++) {
            assert_true(d_x[i] == expected[i]);
            assert_true(d_w[i % SIDE * SIDE + i / SIDE] == expected[i]);
        }
        free(d_x);
        free(d_w);
        free(expected);
        end_step(&b);
    }
    free(d_out);
    free(larger);
    bench_close(&b);
}

static void passes_on_what_is_not_finite(void **state)
{
    (void)state;
    if (!opens()) skip();
    static const double poisons[3] = {INFINITY, -INFINITY, NAN};
    for (int p = 0; p < 3; p++) {
        bench b;
        unit_open(&b);
        double *const x = random_numbers(1, AREA, 1), *const bad = random_numbers(1, AREA, 1);
        const double scale = scale_for(largest_of(x, AREA), e4m3);
        const int at = 5 * SIDE + 7;
        for (int step = 0; step < 2; step++) { /* without a history, and with one */
            bad[at] = poisons[p];
            put(b.x, bad, AREA);
            forward(&b);
            double *const got = get(b.out, AREA);
            for (int i = 0; i < AREA; i++)
                if (i / SIDE == at / SIDE)
                    assert_true(isnan(got[i]));
                else
                    assert_true(got[i] == nearest(x[i] * scale, e4m3) / scale);
            free(got);
            end_step(&b);
            check_copy(&b, x, scale);
        }
        /* Nothing but that: the history stays as it is. */
        for (int i = 0; i < AREA; i++) bad[i] = poisons[p];
        put(b.x, bad, AREA);
        end_step(&b);
        forward(&b);
        end_step(&b);
        check_copy(&b, x, scale);
        free(x);
        free(bad);
        bench_close(&b);
    }
}

/* A recorded step learns as one that is called. */
static void learns_in_graphs(void **state)
{
    (void)state;
    if (!opens()) skip();
    if (!exec.device->capture_begin) skip();
    bench b;
    dip_graph *graph;
    unit_open(&b);
    double *const numbers[3] = {random_numbers(1, AREA, 1), random_numbers(2, AREA, 50),
                                random_numbers(3, AREA, 50)};
    double maximum = 0;
    put(b.x, numbers[0], AREA);
    forward(&b); /* chooses an algorithm */
    assert_int_equal(exec.device->capture_begin(&exec), DIP_OK);
    forward(&b);
    end_step(&b);
    assert_int_equal(exec.device->capture_end(&exec, &graph), DIP_OK);
    for (int i = 0; i < 3; i++) {
        maximum = fmax(maximum, largest_of(numbers[i > 0 ? i - 1 : 0], AREA));
        put(b.x, numbers[i], AREA);
        assert_int_equal(exec.device->graph_launch(&exec, graph), DIP_OK);
        double *const got = get(b.out, AREA);
        double *const expected = dequantised(numbers[i], AREA, scale_for(maximum, e4m3), e4m3);
        assert_same(got, expected, AREA, true);
        free(got);
        free(expected);
    }
    exec.device->graph_free(&exec, graph);
    for (int i = 0; i < 3; i++) free(numbers[i]);
    bench_close(&b);
}

/* ---- copies --------------------------------------------------------------------------------- */

#ifdef DIPTYCH_EMULATED_GPU

static double decoded(uint8_t bits, format f)
{
    const int magnitude = bits & 0x7f, exponent = magnitude >> f.mantissa;
    const int mantissa = magnitude & ((1 << f.mantissa) - 1);
    double value;
    if (magnitude == 0x7f)
        value = NAN;
    else if (exponent == 0)
        value = ldexp(mantissa, f.smallest - f.mantissa);
    else
        value = ldexp(mantissa + (1 << f.mantissa), exponent - 1 + f.smallest - f.mantissa);
    return bits & 0x80 ? -value : value;
}

/* Straight and turned at once, beside a tensor of another size; what lies behind is untouched. */
static void makes_copies(void **state)
{
    (void)state;
    if (!opens()) skip();
    enum { ROWS = 272, COLUMNS = 208, N = ROWS * COLUMNS, SMALL = 256, GUARD = 64 };
    static uint8_t straight[N + GUARD], turned[N + GUARD], small[SMALL];
    dip_fp8_scaling host[2] = {{.largest = DIP_E5M2_LARGEST, .scale = 0x1p10f},
                               {.largest = DIP_E4M3_LARGEST}};
    double *const x = random_numbers(1, N, 1), *const y = random_numbers(2, SMALL, 1000);
    x[0] = INFINITY, x[N - 1] = NAN, x[1] = 100, x[2] = -1000, x[3] = 1e-9, x[4] = -0.0;
    void *const in = book(N * 2), *const in_small = book(SMALL * 2);
    uint8_t *const out = book(sizeof straight), *const out_turned = book(sizeof turned);
    uint8_t *const out_small = book(SMALL);
    dip_fp8_scaling *const scalings = book(sizeof host);
    put(in, x, N);
    put(in_small, y, SMALL);
    memset(straight, 0xee, sizeof straight);
    assert_int_equal(exec.device->upload(&exec, out, straight, sizeof straight), DIP_OK);
    assert_int_equal(exec.device->upload(&exec, out_turned, straight, sizeof straight), DIP_OK);
    assert_int_equal(exec.device->upload(&exec, scalings, host, sizeof host), DIP_OK);
    const dip_fp8_copy copies[2] = {
        {in, ROWS, COLUMNS, out, out_turned, &scalings[0], 1},
        {in_small, 16, 16, NULL, out_small, &scalings[1], 0},
    };
    dip_cuda_fp8_make_copies(&exec, copies);
    assert_int_equal(exec.device->download(&exec, straight, out, sizeof straight), DIP_OK);
    assert_int_equal(exec.device->download(&exec, turned, out_turned, sizeof turned), DIP_OK);
    assert_int_equal(exec.device->download(&exec, small, out_small, sizeof small), DIP_OK);
    assert_int_equal(exec.device->download(&exec, host, scalings, sizeof host), DIP_OK);
    for (int i = 0; i < N; i++) {
        const double rounded = (double)dip_bf16_to_float(dip_bf16_from_float((float)x[i]));
        const double got = decoded(straight[i], e5m2);
        const double expected = isfinite(x[i]) ? nearest(rounded * 1024, e5m2) : NAN;
        if (!(got == expected || (isnan(got) && isnan(expected))))
            fail_msg("copy of element %d, %.9g: %.9g, not %.9g", i, x[i], got, expected);
        assert_int_equal(turned[i % COLUMNS * ROWS + i / COLUMNS], straight[i]);
    }
    for (int i = N; i < N + GUARD; i++) assert_true(straight[i] == 0xee && turned[i] == 0xee);
    assert_true(host[0].inverse == 0x1p-10f && host[0].scale == 0x1p10f);
    float maximum;
    memcpy(&maximum, &host[0].max_bits, sizeof maximum);
    assert_true(maximum == 1000.0f);
    const double scale = scale_for(largest_of(y, SMALL), e4m3);
    assert_true((double)host[1].inverse == 1 / scale && host[1].scale == 0.0f);
    for (int i = 0; i < SMALL; i++)
        assert_true(decoded(small[i % 16 * 16 + i / 16], e4m3) == nearest(y[i] * scale, e4m3));
    void *const all[] = {in, in_small, out, out_turned, out_small, scalings};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) drop(all[i]);
    free(x);
    free(y);
}

/* Magnitudes at the ends of float have scales too; every place of the history counts. */
static void scales_of_extremes(void **state)
{
    (void)state;
    if (!opens()) skip();
    static const float maxima[5] = {3.0e38f, 1e-38f, 448.0f, 1.0f, 1.0f};
    static const float scales[5] = {0x1p-120f, 0x1p126f, 1.0f, 256.0f, 128.0f};
    dip_fp8_scaling host[5];
    memset(host, 0, sizeof host);
    host[4].history[DIP_FP8_HISTORY - 1] = 2.0f;
    for (int i = 0; i < 5; i++) {
        host[i].largest = DIP_E4M3_LARGEST;
        memcpy(&host[i].max_bits, &maxima[i], sizeof maxima[i]);
    }
    dip_fp8_scaling *const scalings = book(sizeof host);
    assert_int_equal(exec.device->upload(&exec, scalings, host, sizeof host), DIP_OK);
    dip_cuda_fp8_push_maxima(&exec, scalings, 5);
    assert_int_equal(exec.device->download(&exec, host, scalings, sizeof host), DIP_OK);
    for (int i = 0; i < 5; i++) {
        if (host[i].scale != scales[i])
            fail_msg("of %g: scale %g, not %g", (double)maxima[i], (double)host[i].scale,
                     (double)scales[i]);
        assert_int_equal(host[i].n_steps, 1);
        assert_int_equal(host[i].max_bits, 0);
    }
    drop(scalings);
}

/* Algorithms of products that differ in their 8-bit formats alone are not confused, also after they
 * were written to a file. */
static void remembers_formats(void **state)
{
    (void)state;
    static const dip_fp8_format formats[4][2] = {{DIP_FP8_NONE, DIP_FP8_NONE},
                                                 {DIP_FP8_E4M3, DIP_FP8_E4M3},
                                                 {DIP_FP8_E4M3, DIP_FP8_E5M2},
                                                 {DIP_FP8_E5M2, DIP_FP8_E4M3}};
    char *path = dip_format("%s/choices.txt", scratch_init("fp8"));
    dip_cuda_choices choices = {0}, again = {0};
    dip_cuda_choice choice[4];
    memset(choice, 0, sizeof choice);
    for (int i = 0; i < 4; i++) {
        choice[i].product = (dip_cuda_product){
            .m = 16, .n = 16, .k = 16, .a_fp8 = formats[i][0], .b_fp8 = formats[i][1]};
        choice[i].algo.data[0] = (uint64_t)i + 1;
        assert_int_equal(dip_cuda_choices_add(&choices, &choice[i]), DIP_OK);
    }
    assert_int_equal(dip_cuda_choices_write(&choices, path), DIP_OK);
    assert_int_equal(dip_cuda_choices_read(&again, path), DIP_OK);
    assert_int_equal(again.n, 4);
    for (int i = 0; i < 4; i++) {
        const dip_cuda_choice *found = dip_cuda_choices_find(&again, &choice[i].product);
        assert_non_null(found);
        assert_memory_equal(&found->algo, &choice[i].algo, sizeof found->algo);
    }
    dip_cuda_choices_free(&choices);
    dip_cuda_choices_free(&again);
    free(path);
}

#endif

static int close_all(void **state)
{
    (void)state;
    dip_exec_close(&exec);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_a_cpu),
        cmocka_unit_test(refuses_what_cannot),
        cmocka_unit_test(multiplies),
        cmocka_unit_test(leaves_other_products),
        cmocka_unit_test(learns_scales),
        cmocka_unit_test(scales_gradients),
        cmocka_unit_test(passes_on_what_is_not_finite),
        cmocka_unit_test(learns_in_graphs),
#ifdef DIPTYCH_EMULATED_GPU
        cmocka_unit_test(makes_copies),
        cmocka_unit_test(scales_of_extremes),
        cmocka_unit_test(remembers_formats),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, close_all);
}
