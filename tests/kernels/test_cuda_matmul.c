/* How the CUDA backend chooses algorithms of matrix products: plans made once, what it remembers,
 * measuring that leaves no trace in the results. On the emulated GPU. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#ifndef DIPTYCH_EMULATED_GPU

int main(void)
{
    print_message("SKIPPED: this is not a build for the emulated GPU\n");
    return 0;
}

#else

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/matmul_kernels.h"
#include "kernels/cuda/matmul_plan.h"
#include "kernels/cuda_choices.h"

static int set_up(void **state)
{
    (void)state;
    return choices_set_up("cuda_matmul");
}

enum { M = 48, N = 40, K = 32 };

typedef struct operands {
    float *x, *w, *out;  /* [N, K], [M, K], [N, M] on the device */
    float result[N * M]; /* of the last run */
} operands;

static void open_cuda(dip_exec *exec)
{
    if (dip_exec_open(exec, "cuda", DIP_F32, 1) != DIP_OK) fail_msg("%s", dip_error());
}

static dip_cuda_matmul *matmul_of(const dip_exec *exec)
{
    return dip_cuda_of(exec)->matmul;
}

static float *make_matrix(dip_exec *exec, int64_t n, int step)
{
    static float host[4096];
    void *pointer;
    assert_true(n <= 4096);
    for (int64_t i = 0; i < n; i++) host[i] = (float)(i * step % 17 - 8);
    assert_int_equal(exec->device->allocate(exec->device, &pointer, (size_t)n * sizeof(float)),
                     DIP_OK);
    assert_int_equal(exec->device->upload(exec, pointer, host, (size_t)n * sizeof(float)), DIP_OK);
    return pointer;
}

static void make_operands(dip_exec *exec, operands *o)
{
    o->x = make_matrix(exec, N * K, 5);
    o->w = make_matrix(exec, M * K, 7);
    o->out = make_matrix(exec, N * M, 3);
}

static void free_operands(dip_exec *exec, operands *o)
{
    exec->device->release(exec->device, o->x);
    exec->device->release(exec->device, o->w);
    exec->device->release(exec->device, o->out);
}

static float x_at(int64_t n, int64_t k)
{
    return (float)((n * K + k) * 5 % 17 - 8);
}

/* The numbers are small integers: exact in every order. `before` is what out held. */
static void assert_product(const operands *o, float before_factor)
{
    for (int64_t n = 0; n < N; n++)
        for (int64_t m = 0; m < M; m++) {
            float sum = before_factor * (float)((n * M + m) * 3 % 17 - 8);
            for (int64_t k = 0; k < K; k++) sum += x_at(n, k) * (float)((m * K + k) * 7 % 17 - 8);
            assert_true(o->result[n * M + m] == sum);
        }
}

static dip_status forward(dip_exec *exec, operands *o)
{
    const dip_matmul_shape shape = {N, K, M, DIP_OUT_IN};
    DIP_TRY(
        exec->ops->matmul_forward(exec, o->out, NULL, o->x, o->w, NULL, NULL, DIP_ACT_NONE, shape));
    return exec->device->download(exec, o->result, o->out, sizeof o->result);
}

/* out += x W^T, in place. */
static dip_status accumulate(dip_exec *exec, operands *o)
{
    const dip_matmul_shape shape = {N, K, M, DIP_OUT_IN};
    DIP_TRY(exec->ops->matmul_forward(exec, o->out, NULL, o->x, o->w, NULL, o->out, DIP_ACT_NONE,
                                      shape));
    return exec->device->download(exec, o->result, o->out, sizeof o->result);
}

static const dip_cuda_plan *only_plan(const dip_exec *exec)
{
    const dip_cuda_plan *found = NULL;
    for (int i = 0; i < DIP_CUDA_PLAN_SLOTS; i++)
        if (matmul_of(exec)->plans[i]) {
            assert_null(found);
            found = matmul_of(exec)->plans[i];
        }
    assert_non_null(found);
    return found;
}

static void measures_once_and_for_all(void **state)
{
    (void)state;
    dip_exec exec;
    operands o;
    open_cuda(&exec);
    make_operands(&exec, &o);
    for (int i = 0; i < 3; i++) assert_int_equal(forward(&exec, &o), DIP_OK);
    assert_product(&o, 0.0f);
    const dip_cuda_plan plan = *only_plan(&exec);
    assert_int_equal(matmul_of(&exec)->choices.n, 1);
    assert_false(dip_path_exists(choices_file));
    free_operands(&exec, &o);
    dip_exec_close(&exec);
    assert_true(dip_path_exists(choices_file));

    open_cuda(&exec); /* the next run knows it, without measuring */
    make_operands(&exec, &o);
    assert_int_equal(matmul_of(&exec)->choices.n, 1);
    assert_int_equal(forward(&exec, &o), DIP_OK);
    assert_product(&o, 0.0f);
    assert_memory_equal(&only_plan(&exec)->algo, &plan.algo, sizeof plan.algo);
    assert_false(matmul_of(&exec)->choices.is_new);
    free_operands(&exec, &o);
    dip_exec_close(&exec);
}

/* Measuring runs a product many times, adding each time. */
static void measuring_adds_once(void **state)
{
    (void)state;
    for (int tune = 0; tune < 2; tune++) {
        dip_exec exec;
        operands o;
        setenv("DIPTYCH_CUDA_TUNE", tune ? "1" : "0", 1);
        open_cuda(&exec);
        make_operands(&exec, &o);
        assert_int_equal(accumulate(&exec, &o), DIP_OK);
        assert_product(&o, 1.0f);
        assert_int_equal(matmul_of(&exec)->choices.n, tune);
        free_operands(&exec, &o);
        dip_exec_close(&exec);
        assert_int_equal(dip_path_exists(choices_file), tune);
    }
}

/* Where there is no room to measure beside the result, nothing is measured. */
static void does_without_measuring(void **state)
{
    (void)state;
    dip_exec exec;
    operands o;
    size_t available, total;
    void *rest;
    open_cuda(&exec);
    make_operands(&exec, &o);
    assert_int_equal(exec.device->memory(exec.device, &available, &total), DIP_OK);
    assert_int_equal(exec.device->allocate(exec.device, &rest, available), DIP_OK);
    assert_int_equal(accumulate(&exec, &o), DIP_OK);
    assert_product(&o, 1.0f);
    assert_int_equal(matmul_of(&exec)->choices.n, 0);
    exec.device->release(exec.device, rest);
    free_operands(&exec, &o);
    dip_exec_close(&exec);
    assert_false(dip_path_exists(choices_file));
}

static void recording_does_not_measure(void **state)
{
    (void)state;
    dip_exec exec;
    operands o;
    dip_graph *graph;
    const dip_matmul_shape shape = {N, K, M, DIP_OUT_IN};
    open_cuda(&exec);
    make_operands(&exec, &o);
    assert_int_equal(exec.device->capture_begin(&exec), DIP_OK);
    assert_int_equal(
        exec.ops->matmul_forward(&exec, o.out, NULL, o.x, o.w, NULL, o.out, DIP_ACT_NONE, shape),
        DIP_OK);
    assert_int_equal(exec.device->capture_end(&exec, &graph), DIP_OK);
    assert_int_equal(exec.device->graph_launch(&exec, graph), DIP_OK);
    assert_int_equal(exec.device->download(&exec, o.result, o.out, sizeof o.result), DIP_OK);
    assert_product(&o, 1.0f);
    assert_int_equal(matmul_of(&exec)->choices.n, 0);
    exec.device->graph_free(&exec, graph);
    free_operands(&exec, &o);
    dip_exec_close(&exec);
}

/* A remembered algorithm is used, whatever the heuristic thinks; one that the library refuses is
 * not. */
static void checks_what_it_remembers(void **state)
{
    (void)state;
    dip_exec exec;
    operands o;
    open_cuda(&exec);
    make_operands(&exec, &o);
    assert_int_equal(forward(&exec, &o), DIP_OK);
    dip_cuda_choice choice = {
        .product = only_plan(&exec)->product, .nanoseconds = 1, .algo = only_plan(&exec)->algo};
    free_operands(&exec, &o);
    dip_exec_close(&exec);

    const cublasLtMatmulAlgo_t first = choice.algo;
    for (int refused = 0; refused < 2; refused++) {
        dip_cuda_choices choices = {0};
        if (refused)
            memset(&choice.algo, 0x5a, sizeof choice.algo);
        else
            choice.algo.data[1] = first.data[1] == 4 ? 3 : 4; /* another one of the emulation */
        assert_int_equal(dip_cuda_choices_add(&choices, &choice), DIP_OK);
        assert_int_equal(dip_cuda_choices_write(&choices, choices_file), DIP_OK);
        dip_cuda_choices_free(&choices);

        open_cuda(&exec);
        make_operands(&exec, &o);
        assert_int_equal(forward(&exec, &o), DIP_OK);
        assert_product(&o, 0.0f);
        const int differs = memcmp(&only_plan(&exec)->algo, &choice.algo, sizeof choice.algo) != 0;
        assert_int_equal(differs, refused);
        assert_int_equal(matmul_of(&exec)->choices.is_new, refused); /* measured again */
        free_operands(&exec, &o);
        dip_exec_close(&exec);
    }
}

/* No algorithm whose sums depend on who comes first; the emulation has one. */
static void takes_deterministic_algorithms(void **state)
{
    (void)state;
    for (int i = 0; i < 8; i++) {
        dip_exec exec;
        operands o;
        set_up(NULL);
        open_cuda(&exec);
        make_operands(&exec, &o);
        assert_int_equal(accumulate(&exec, &o), DIP_OK);
        assert_int_not_equal(only_plan(&exec)->algo.data[1], 1);
        free_operands(&exec, &o);
        dip_exec_close(&exec);
    }
}

static void plans_know_alignment(void **state)
{
    (void)state;
    dip_exec exec;
    float *x, *w, *out, results[3][8 * 8];
    const dip_matmul_shape shape = {8, 16, 8, DIP_IN_OUT};
    open_cuda(&exec);
    x = make_matrix(&exec, 8 * 16 + 4, 0);
    w = make_matrix(&exec, 16 * 8, 11);
    out = make_matrix(&exec, 8 * 8, 1);
    static const int offsets[] = {0, 1, 4};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(exec.ops->matmul_forward(&exec, out, NULL, x + offsets[i], w, NULL, NULL,
                                                  DIP_ACT_NONE, shape),
                         DIP_OK);
        assert_int_equal(matmul_of(&exec)->n_plans, i + 1);
        assert_int_equal(exec.device->download(&exec, results[i], out, sizeof results[i]), DIP_OK);
        assert_memory_equal(results[i], results[0], sizeof results[i]);
    }
    exec.device->release(exec.device, x);
    exec.device->release(exec.device, w);
    exec.device->release(exec.device, out);
    dip_exec_close(&exec);
}

/* The library does not ask how a bias is aligned, and has kernels that need 16 bytes. */
static void moves_a_bias_that_is_not_aligned(void **state)
{
    (void)state;
    dip_exec exec;
    const dip_matmul_shape shape = {2, 3, 5, DIP_OUT_IN};
    float result[2][10];
    open_cuda(&exec);
    float *x = make_matrix(&exec, 6, 5), *w = make_matrix(&exec, 15, 7);
    float *bias = make_matrix(&exec, 9, 3), *out = make_matrix(&exec, 10, 0);
    for (int offset = 0; offset < 4; offset++) {
        for (int in_place = 0; in_place < 2; in_place++) { /* and by way of the partials */
            assert_int_equal(exec.device->zero(&exec, out, sizeof result[0]), DIP_OK);
            assert_int_equal(exec.ops->matmul_forward(&exec, out, NULL, x, w, bias + offset,
                                                      in_place ? out : NULL, DIP_ACT_QUICKGELU,
                                                      shape),
                             DIP_OK);
            assert_int_equal(exec.device->download(&exec, result[in_place], out, sizeof result[0]),
                             DIP_OK);
        }
        for (int i = 0; i < 10; i++) assert_true(result[0][i] == result[1][i]);
        for (int n = 0; n < 2; n++)
            for (int m = 0; m < 5; m++) {
                double sum = (offset + m) * 3 % 17 - 8;
                for (int k = 0; k < 3; k++)
                    sum += ((n * 3 + k) * 5 % 17 - 8) * ((m * 3 + k) * 7 % 17 - 8);
                const double got = (double)result[0][n * 5 + m];
                assert_true(fabs(got - sum / (1.0 + exp(-1.702 * sum))) <= 1e-6 * fabs(sum));
            }
    }
    exec.device->release(exec.device, x);
    exec.device->release(exec.device, w);
    exec.device->release(exec.device, bias);
    exec.device->release(exec.device, out);
    dip_exec_close(&exec);
}

static float d_out_at(int64_t i)
{
    return (float)(i * 31 % 13 - 6);
}

/* Sums [c] of rows [n, c] of small integers, which are exact in every order and type. */
static void sum_columns(dip_exec *exec, dip_dtype dtype, int64_t n, int64_t c)
{
    const dip_device *device = exec->device;
    const size_t n_bytes = (size_t)(n * c) * dip_dtype_bytes(dtype), sum_bytes = (size_t)c * 4;
    void *rows = malloc(n_bytes), *device_rows, *device_sums;
    float *sums = malloc(sum_bytes), *got = malloc(sum_bytes);
    assert_true(rows && sums && got);
    for (int64_t i = 0; i < n * c; i++) {
        if (dtype == DIP_BF16)
            ((dip_bf16 *)rows)[i] = dip_bf16_from_float(d_out_at(i));
        else
            ((float *)rows)[i] = d_out_at(i);
    }
    for (int64_t j = 0; j < c; j++) sums[j] = (float)(j % 7);
    assert_int_equal(device->allocate(device, &device_rows, n_bytes), DIP_OK);
    assert_int_equal(device->allocate(device, &device_sums, sum_bytes), DIP_OK);
    assert_int_equal(device->upload(exec, device_rows, rows, n_bytes), DIP_OK);
    assert_int_equal(device->upload(exec, device_sums, sums, sum_bytes), DIP_OK);
    dip_cuda_column_sums(exec, dtype, device_sums, device_rows, n, c);
    assert_int_equal(DIP_CUDA_LAUNCHED(exec, "column_sums", "[%d]", (int)c), DIP_OK);
    assert_int_equal(device->download(exec, got, device_sums, sum_bytes), DIP_OK);
    for (int64_t i = 0; i < n * c; i++) sums[i % c] += d_out_at(i);
    assert_memory_equal(got, sums, sum_bytes);
    device->release(device, device_rows);
    device->release(device, device_sums);
    free(rows);
    free(sums);
    free(got);
}

/* In one chunk, in as many as fill the partials, and with more columns than they hold; the
 * checkers' shapes have few rows. */
static void adds_up_bias_gradients(void **state)
{
    (void)state;
    dip_exec exec;
    open_cuda(&exec);
    sum_columns(&exec, DIP_F32, 1, 5);
    sum_columns(&exec, DIP_F32, 33, 5);
    sum_columns(&exec, DIP_BF16, 3001, 5);
    sum_columns(&exec, DIP_F32, 2999, 264);
    sum_columns(&exec, DIP_BF16, 70001, 1);
    sum_columns(&exec, DIP_BF16, 2838, 3072);
    sum_columns(&exec, DIP_F32, 3, DIP_CUDA_PARTIALS_BYTES / 4 + 8);
    dip_exec_close(&exec);
}

static void forgets_plans_when_there_are_too_many(void **state)
{
    (void)state;
    enum { MORE = DIP_CUDA_PLAN_SLOTS + 100 };
    dip_exec exec;
    float got[MORE];
    setenv("DIPTYCH_CUDA_TUNE", "0", 1);
    open_cuda(&exec);
    float *x = make_matrix(&exec, MORE, 1), *w = make_matrix(&exec, 1, 1);
    float *out = make_matrix(&exec, MORE, 0);
    for (int n = 1; n <= MORE; n++) {
        const dip_matmul_shape shape = {n, 1, 1, DIP_OUT_IN};
        assert_int_equal(
            exec.ops->matmul_forward(&exec, out, NULL, x, w, NULL, NULL, DIP_ACT_NONE, shape),
            DIP_OK);
        assert_true(matmul_of(&exec)->n_plans < DIP_CUDA_PLAN_SLOTS);
    }
    assert_int_equal(exec.device->download(&exec, got, out, sizeof got), DIP_OK);
    for (int i = 0; i < MORE; i++) assert_true(got[i] == -8.0f * (float)(i % 17 - 8));
    exec.device->release(exec.device, x);
    exec.device->release(exec.device, w);
    exec.device->release(exec.device, out);
    dip_exec_close(&exec);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, choices_tear_down)
        TEST(measures_once_and_for_all), TEST(measuring_adds_once),
        TEST(does_without_measuring),    TEST(recording_does_not_measure),
        TEST(checks_what_it_remembers),  TEST(takes_deterministic_algorithms),
        TEST(plans_know_alignment),      TEST(moves_a_bias_that_is_not_aligned),
        TEST(adds_up_bias_gradients),    TEST(forgets_plans_when_there_are_too_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
