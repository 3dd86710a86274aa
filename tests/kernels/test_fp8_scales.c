/* The scales of 8-bit floats: how they are learnt, recorded and called, what they do with numbers
 * that are not finite, and the copies made with them. On a GPU that has them, or the emulated one.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>

#ifdef DIPTYCH_EMULATED_GPU
#include "core/scratch.h"
#include "kernels/cuda/fp8.h"
#include "kernels/cuda/matmul_choices.h"
#endif
#include "kernels/fp8_bench.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
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
