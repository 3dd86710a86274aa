/* Weights on disk: a round trip, the kinds of files others write, and every way not to fit. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/file.h"
#include "model/clip.h"
#include "model/safetensors.h"

#define SCRATCH TEST_BINARY_DIR "/scratch/test_weights"
#define PATH    SCRATCH "/weights.safetensors"

static void make_table(dip_param_table *table)
{
    const int64_t matrix[2] = {3, 5}, vector[1] = {7};
    *table = (dip_param_table){0};
    dip_param_add(table, DIP_INIT_NORMAL, 1, true, 2, matrix, "a.weight");
    dip_param_add(table, DIP_INIT_NORMAL, 1, false, 1, vector, "a.bias");
    dip_param_add(table, DIP_INIT_CONSTANT, 2.5, false, 0, NULL, "logit_scale");
    assert_int_equal(dip_param_table_layout(table), DIP_OK);
}

static void test_round_trip(void **state)
{
    (void)state;
    dip_param_table table;
    make_table(&table);
    size_t n_bytes = (size_t)table.n_values * sizeof(float);
    float *values = malloc(n_bytes), *back = malloc(n_bytes);
    dip_param_table_init_values(&table, values, 1);
    memset(back, 0x7f, n_bytes);
    assert_int_equal(dip_weights_write(PATH, &table, values), DIP_OK);
    assert_int_equal(dip_weights_read(back, &table, PATH), DIP_OK);
    assert_memory_equal(back, values, n_bytes); /* the padding is zero in both */

    dip_safetensors *file;
    assert_int_equal(dip_safetensors_open(&file, PATH), DIP_OK);
    size_t n;
    dip_safetensors_tensors(file, &n);
    assert_int_equal(n, 3);
    const dip_tensor *scale = dip_safetensors_find(file, "logit_scale");
    assert_non_null(scale);
    assert_int_equal(scale->n_dims, 0);
    assert_int_equal(scale->dtype, DIP_ST_F32);
    const dip_tensor *weight = dip_safetensors_find(file, "a.weight");
    assert_int_equal(weight->shape[0], 3);
    assert_int_equal(weight->shape[1], 5);
    dip_safetensors_close(file);
    free(back);
    free(values);
    dip_param_table_free(&table);
}

/* bf16 weights and a logit_scale of shape [1] are what other programs write. */
static void test_other_writers(void **state)
{
    (void)state;
    dip_param_table table;
    make_table(&table);
    dip_bf16 weight[15];
    float bias[7], scale = 3;
    for (int i = 0; i < 15; i++) weight[i] = dip_bf16_from_float((float)i / 4);
    for (int i = 0; i < 7; i++) bias[i] = (float)i;
    const dip_tensor tensors[] = {
        {"a.weight", DIP_ST_BF16, 2, {3, 5}, weight, sizeof weight},
        {"a.bias", DIP_ST_F32, 1, {7}, bias, sizeof bias},
        {"logit_scale", DIP_ST_F32, 1, {1}, &scale, sizeof scale},
    };
    assert_int_equal(dip_safetensors_write(PATH, tensors, 3), DIP_OK);
    float *back = malloc((size_t)table.n_values * sizeof *back);
    assert_int_equal(dip_weights_read(back, &table, PATH), DIP_OK);
    for (int i = 0; i < 15; i++) assert_true(back[table.params[0].offset + i] == (float)i / 4);
    for (int i = 0; i < 7; i++) assert_true(back[table.params[1].offset + i] == (float)i);
    assert_true(back[table.params[2].offset] == 3);
    free(back);
    dip_param_table_free(&table);
}

static void test_all_differences_at_once(void **state)
{
    (void)state;
    dip_param_table table;
    make_table(&table);
    float weight[15] = {0}, extra[2] = {0};
    int64_t scale = 1;
    const dip_tensor tensors[] = {
        {"a.weight", DIP_ST_F32, 2, {5, 3}, weight, sizeof weight},
        {"logit_scale", DIP_ST_I64, 0, {0}, &scale, sizeof scale},
        {"b\nextra", DIP_ST_F32, 1, {2}, extra, sizeof extra},
    };
    assert_int_equal(dip_safetensors_write(PATH, tensors, 3), DIP_OK);
    float *back = malloc((size_t)table.n_values * sizeof *back);
    assert_int_equal(dip_weights_read(back, &table, PATH), DIP_FORMAT);
    const char *e = dip_error();
    assert_non_null(strstr(e, "4 tensors differ"));
    assert_non_null(strstr(e, "a.weight has the shape [5, 3], the model has [3, 5]"));
    assert_non_null(strstr(e, "a.bias [7] is missing"));
    assert_non_null(strstr(e, "logit_scale is not of type"));
    assert_non_null(strstr(e, "b?extra [2] is unknown"));
    free(back);
    dip_param_table_free(&table);
}

static void test_many_differences_fit(void **state)
{
    (void)state;
    dip_param_table table = {0};
    const int64_t shape[1] = {1};
    for (int i = 0; i < 500; i++)
        dip_param_add(&table, DIP_INIT_CONSTANT, 0, false, 1, shape, "a.rather.long.name.%d", i);
    assert_int_equal(dip_param_table_layout(&table), DIP_OK);
    assert_int_equal(dip_safetensors_write(PATH, NULL, 0), DIP_OK);
    float *back = malloc((size_t)table.n_values * sizeof *back);
    assert_int_equal(dip_weights_read(back, &table, PATH), DIP_FORMAT);
    assert_non_null(strstr(dip_error(), "500 tensors differ"));
    assert_non_null(strstr(dip_error(), " more"));
    free(back);
    dip_param_table_free(&table);
}

static void test_not_finite(void **state)
{
    (void)state;
    dip_param_table table;
    make_table(&table);
    float *values = malloc((size_t)table.n_values * sizeof *values);
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        dip_param_table_init_values(&table, values, 1);
        values[table.params[1].offset + 2] = bad[i];
        assert_int_equal(dip_weights_write(PATH, &table, values), DIP_OK);
        assert_int_equal(dip_weights_read(values, &table, PATH), DIP_FORMAT);
        assert_non_null(strstr(dip_error(), "element 2 of a.bias"));
    }
    free(values);
    dip_param_table_free(&table);
}

static void test_cut_and_missing(void **state)
{
    (void)state;
    dip_param_table table;
    make_table(&table);
    float *values = malloc((size_t)table.n_values * sizeof *values);
    dip_param_table_init_values(&table, values, 1);
    assert_int_equal(dip_weights_write(PATH, &table, values), DIP_OK);
    char *data;
    size_t n;
    assert_int_equal(dip_file_read(&data, &n, PATH, 1 << 20), DIP_OK);
    assert_int_equal(dip_file_write(PATH, data, n - 1), DIP_OK);
    assert_int_equal(dip_weights_read(values, &table, PATH), DIP_FORMAT);
    assert_int_equal(dip_weights_read(values, &table, SCRATCH "/none"), DIP_IO);
    free(data);
    free(values);
    dip_param_table_free(&table);
}

static int set_up(void **state)
{
    (void)state;
    return dip_remove_tree(SCRATCH) != DIP_OK || dip_make_dirs(SCRATCH) != DIP_OK;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_other_writers),
        cmocka_unit_test(test_all_differences_at_once),
        cmocka_unit_test(test_many_differences_fit),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_cut_and_missing),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
