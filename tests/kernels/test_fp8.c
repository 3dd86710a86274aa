/* Products in 8-bit floats: their values and sums, and what is not computed in them. On a GPU that
 * has them, or the emulated one. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>

#include "kernels/fp8_bench.h"

#ifdef DIPTYCH_EMULATED_GPU
/* Sums are in float. */
#define SUM_ERROR 0x1p-20
#else
/* Tensor cores keep 14 bits of what they add. */
#define SUM_ERROR 0x1p-12
#endif

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_a_cpu),
        cmocka_unit_test(refuses_what_cannot),
        cmocka_unit_test(multiplies),
        cmocka_unit_test(leaves_other_products),
    };
    return cmocka_run_group_tests(tests, NULL, close_all);
}
