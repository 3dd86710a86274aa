/* The writer against files that numpy.save wrote (tests/golden/npy_make.py). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "model/npy.h"

#define SCRATCH TEST_BINARY_DIR "/scratch/test_npy"

static void check_same(size_t n_rows, size_t n_columns)
{
    float *values = malloc((n_rows * n_columns + 1) * sizeof *values);
    for (size_t i = 0; i < n_rows; i++)
        for (size_t j = 0; j < n_columns; j++) values[i * n_columns + j] = (float)i - (float)j / 4;
    char *golden =
        dip_format("%s/tests/golden/npy_%zux%zu.npy", TEST_SOURCE_DIR, n_rows, n_columns);
    assert_int_equal(dip_npy_write(SCRATCH "/out.npy", values, n_rows, n_columns), DIP_OK);

    char *expected, *written;
    size_t n_expected, n_written;
    assert_int_equal(dip_file_read(&expected, &n_expected, golden, 1 << 20), DIP_OK);
    assert_int_equal(dip_file_read(&written, &n_written, SCRATCH "/out.npy", 1 << 20), DIP_OK);
    assert_int_equal(n_written, n_expected);
    assert_memory_equal(written, expected, n_expected);
    free(written);
    free(expected);
    free(golden);
    free(values);
}

static void test_same_bytes_as_numpy(void **state)
{
    (void)state;
    check_same(2, 3);
    check_same(0, 4);
    check_same(12, 1);
}

static void test_failure_leaves_nothing(void **state)
{
    (void)state;
    float value = 1;
    assert_int_equal(dip_npy_write(SCRATCH "/missing/out.npy", &value, 1, 1), DIP_IO);
    assert_non_null(strstr(dip_error(), "missing/out.npy"));
    assert_false(dip_path_exists(SCRATCH "/missing"));
}

static int set_up(void **state)
{
    (void)state;
    return dip_remove_tree(SCRATCH) != DIP_OK || dip_make_dirs(SCRATCH) != DIP_OK;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bytes_as_numpy),
        cmocka_unit_test(test_failure_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
