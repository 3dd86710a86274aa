/* The file in which the CUDA backend remembers algorithms of matrix products, and its damages. On
 * the emulated GPU. */
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

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "kernels/cuda_choices.h"

static int set_up(void **state)
{
    (void)state;
    return choices_set_up("cuda_choices");
}

static dip_cuda_choice choice_number(int i)
{
    dip_cuda_choice choice = {
        .product = {.m = 768 + i,
                    .n = 51200,
                    .k = 3072,
                    .inputs_bf16 = i % 2,
                    .outputs_bf16 = i % 4 == 1,
                    .transpose_a = i % 3 == 0,
                    .transpose_b = i % 5 == 0,
                    .has_bias = i % 7 == 0,
                    .has_c = i % 2,
                    .align_a = 256,
                    .align_b = 16,
                    .align_c = 4,
                    .align_d = 2},
        .nanoseconds = 1000000 + i,
    };
    for (int j = 0; j < 8; j++) choice.algo.data[j] = 0x123456789abcdef0u * (uint64_t)(i + j + 1);
    return choice;
}

static void assert_choice(const dip_cuda_choices *choices, int i)
{
    const dip_cuda_choice expected = choice_number(i);
    const dip_cuda_choice *found = dip_cuda_choices_find(choices, &expected.product);
    assert_non_null(found);
    assert_int_equal(found->nanoseconds, expected.nanoseconds);
    assert_memory_equal(&found->algo, &expected.algo, sizeof expected.algo);
}

static void add_number(dip_cuda_choices *choices, int i)
{
    const dip_cuda_choice choice = choice_number(i);
    assert_int_equal(dip_cuda_choices_add(choices, &choice), DIP_OK);
}

static void write_numbers(int first, int end)
{
    dip_cuda_choices choices = {0};
    for (int i = first; i < end; i++) add_number(&choices, i);
    assert_int_equal(dip_cuda_choices_write(&choices, choices_file), DIP_OK);
    dip_cuda_choices_free(&choices);
}

static void names_the_file_by_device_and_version(void **state)
{
    (void)state;
    char *path = dip_cuda_choices_path("NVIDIA H100 80GB/HBM3", 130100);
    char *expected = dip_format("%s/diptych/cublaslt-NVIDIA_H100_80GB_HBM3-130100.txt", cache);
    assert_string_equal(path, expected);
    free(path);
    free(expected);
    setenv("XDG_CACHE_HOME", "relative", 1); /* as its specification wants it: ignored */
    setenv("HOME", "/home/me", 1);
    path = dip_cuda_choices_path("A", 1);
    assert_string_equal(path, "/home/me/.cache/diptych/cublaslt-A-1.txt");
    free(path);
    unsetenv("HOME");
    assert_null(dip_cuda_choices_path("A", 1));
}

static void remembers_choices(void **state)
{
    (void)state;
    dip_cuda_choices choices = {0};
    assert_int_equal(dip_cuda_choices_write(&choices, choices_file), DIP_OK);
    assert_false(dip_path_exists(choices_file)); /* nothing new, nothing written */
    write_numbers(0, 100);
    write_numbers(100, 103); /* joins what is there */
    assert_int_equal(dip_cuda_choices_read(&choices, choices_file), DIP_OK);
    assert_int_equal(choices.n, 103);
    for (int i = 0; i < 103; i++) assert_choice(&choices, i);
    dip_cuda_choice other = choice_number(5);
    other.product.align_d = 16;
    assert_null(dip_cuda_choices_find(&choices, &other.product));

    /* A new measurement replaces the old one, in memory and in the file. */
    other = choice_number(7);
    other.nanoseconds = 5;
    assert_int_equal(dip_cuda_choices_add(&choices, &other), DIP_OK);
    assert_int_equal(choices.n, 103);
    assert_int_equal(dip_cuda_choices_write(&choices, choices_file), DIP_OK);
    dip_cuda_choices_free(&choices);
    assert_int_equal(dip_cuda_choices_read(&choices, choices_file), DIP_OK);
    assert_int_equal(choices.n, 103);
    assert_int_equal(dip_cuda_choices_find(&choices, &other.product)->nanoseconds, 5);
    dip_cuda_choices_free(&choices);
}

/* Without the care for a power failure that dip_file_write takes: there are thousands. */
static void write_text(const char *text, size_t n)
{
    FILE *file = fopen(choices_file, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

/* Every byte of a line matters: whichever is changed or lost, the line is passed over and its
 * neighbours are not. */
static void passes_over_damaged_lines(void **state)
{
    (void)state;
    char *text;
    size_t n;
    write_numbers(0, 3);
    assert_int_equal(dip_file_read(&text, &n, choices_file, 1 << 20), DIP_OK);
    const size_t begin = (size_t)(strchr(text, '\n') + 1 - text);
    const size_t end = (size_t)(strchr(text + begin, '\n') - text);
    static const char replacements[] = {'\0', '0', '1', ' ', '\n', 'x', (char)0xff};
    for (size_t at = begin; at < end; at++) {
        for (size_t i = 0; i < sizeof replacements; i++) {
            const char before = text[at];
            dip_cuda_choices choices = {0};
            if (before == replacements[i]) continue;
            text[at] = replacements[i];
            write_text(text, n);
            text[at] = before;
            assert_int_equal(dip_cuda_choices_read(&choices, choices_file), DIP_OK);
            assert_int_equal(choices.n, 2);
            assert_choice(&choices, 0);
            assert_choice(&choices, 2);
            dip_cuda_choices_free(&choices);
        }
    }
    for (size_t length = begin; length <= end; length++) { /* as after a full disk */
        dip_cuda_choices choices = {0};
        write_text(text, length);
        assert_int_equal(dip_cuda_choices_read(&choices, choices_file), DIP_OK);
        assert_int_equal(choices.n, length == end ? 2 : 1);
        dip_cuda_choices_free(&choices);
    }
    free(text);
}

static void says_when_the_file_cannot_be_written(void **state)
{
    (void)state;
    dip_cuda_choices choices = {0};
    char *path = dip_format("%s/file/below/x.txt", cache),
         *in_the_way = dip_format("%s/file", cache);
    add_number(&choices, 1);
    assert_int_equal(dip_file_write(in_the_way, "x", 1), DIP_OK);
    assert_int_equal(dip_cuda_choices_write(&choices, path), DIP_IO);
    dip_cuda_choices_free(&choices);
    free(path);
    free(in_the_way);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, choices_tear_down)
        TEST(names_the_file_by_device_and_version),
        TEST(remembers_choices),
        TEST(passes_over_damaged_lines),
        TEST(says_when_the_file_cannot_be_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
