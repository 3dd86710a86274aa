#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "data/faults.h"

static char *printed(const dip_faults *faults)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    assert_non_null(out);
    dip_faults_print(faults, out);
    fclose(out);
    return text;
}

static void counts_by_kind_once(void **state)
{
    (void)state;
    dip_faults *faults;
    assert_int_equal(dip_faults_open(&faults), DIP_OK);
    char *text = printed(faults);
    assert_string_equal(text, "");
    free(text);

    dip_faults_add(faults, DIP_FAULT_IMAGE_BROKEN, "0.tar: 1", "cut");
    dip_faults_add(faults, DIP_FAULT_IMAGE_BROKEN, "0.tar: 1", "cut"); /* a second epoch */
    dip_faults_add(faults, DIP_FAULT_IMAGE_BROKEN, "0.tar: 2", "cut");
    dip_faults_add(faults, DIP_FAULT_CAPTION_EMPTY, "0.tar: 1", "");
    assert_int_equal(dip_faults_count(faults, DIP_FAULT_IMAGE_BROKEN), 2);
    assert_int_equal(dip_faults_count(faults, DIP_FAULT_CAPTION_EMPTY), 1);
    assert_int_equal(dip_faults_count(faults, DIP_FAULT_TAR), 0);
    assert_int_equal(dip_faults_total(faults), 3);

    text = printed(faults);
    assert_string_equal(text, "3 samples could not be used:\n"
                              "  2 x broken or truncated image\n"
                              "      0.tar: 1 (cut)\n"
                              "      0.tar: 2 (cut)\n"
                              "  1 x empty caption\n"
                              "      0.tar: 1\n");
    free(text);
    dip_faults_close(faults);
    dip_faults_close(NULL);
}

static void names_are_made_printable(void **state)
{
    (void)state;
    dip_faults *faults;
    assert_int_equal(dip_faults_open(&faults), DIP_OK);
    dip_faults_add(faults, DIP_FAULT_TAR, "a\nb\x1b[2J", "\x7f\xc3\xa9");
    char *text = printed(faults);
    assert_non_null(strstr(text, "a\\x0ab\\x1b[2J (\\x7f\xc3\xa9)"));
    free(text);

    char *big = malloc(100001);
    memset(big, 'x', 100000);
    big[100000] = 0;
    dip_faults_add(faults, DIP_FAULT_TAR, big, big);
    text = printed(faults);
    assert_true(strlen(text) < 2000);
    assert_non_null(strstr(text, "xxx..."));
    free(text);
    free(big);
    dip_faults_close(faults);
}

enum { N_THREADS = 4, N_NAMES = 5000 };

static void *add_many(void *faults)
{
    for (int i = 0; i < N_NAMES; i++) {
        char where[32];
        snprintf(where, sizeof where, "shard: %d", i);
        dip_faults_add(faults, (dip_fault_kind)(i % DIP_N_FAULT_KINDS), where, "detail");
    }
    return NULL;
}

static void threads_add_the_same_names(void **state)
{
    (void)state;
    dip_faults *faults;
    pthread_t threads[N_THREADS];
    assert_int_equal(dip_faults_open(&faults), DIP_OK);
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, add_many, faults), 0);
    for (int i = 0; i < N_THREADS; i++) pthread_join(threads[i], NULL);
    assert_int_equal(dip_faults_total(faults), N_NAMES);
    char *text = printed(faults);
    assert_non_null(strstr(text, "5000 samples"));
    assert_non_null(strstr(text, "and 452 more")); /* 455 of the first kind, 3 shown */
    free(text);
    dip_faults_close(faults);
}

static void first_twenty_are_logged(void **state)
{
    (void)state;
    static const char path[] = TEST_BINARY_DIR "/scratch/faults.log";
    assert_int_equal(dip_make_dirs(TEST_BINARY_DIR "/scratch"), DIP_OK);
    assert_int_equal(dip_file_write(path, "", 0), DIP_OK);
    assert_int_equal(dip_log_open_file(path), DIP_OK);
    dip_faults *faults;
    assert_int_equal(dip_faults_open(&faults), DIP_OK);
    for (int i = 0; i < 50; i++) {
        char where[32];
        snprintf(where, sizeof where, "key%02d", i);
        dip_faults_add(faults, DIP_FAULT_LABEL, where, "");
    }
    dip_faults_close(faults);
    dip_log_close_file();

    char *text;
    size_t n;
    assert_int_equal(dip_file_read(&text, &n, path, 1 << 20), DIP_OK);
    assert_non_null(strstr(text, "unreadable class label: key00"));
    assert_non_null(strstr(text, "unreadable class label: key19"));
    assert_null(strstr(text, "key20"));
    assert_non_null(strstr(text, "further"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_by_kind_once),
        cmocka_unit_test(names_are_made_printable),
        cmocka_unit_test(threads_add_the_same_names),
        cmocka_unit_test(first_twenty_are_logged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
