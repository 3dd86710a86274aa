#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
    char *text = printed(faults), more[32];
    assert_non_null(strstr(text, "5000 samples"));
    const int n_first = (N_NAMES + DIP_N_FAULT_KINDS - 1) / DIP_N_FAULT_KINDS;
    snprintf(more, sizeof more, "and %d more", n_first - 3); /* of the first kind, 3 shown */
    assert_non_null(strstr(text, more));
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

/* The file. */

static char *lines_of(const char *path)
{
    char *text;
    size_t n;
    assert_int_equal(dip_file_read(&text, &n, path, 1 << 20), DIP_OK);
    return text;
}

static void add_sample(dip_faults *faults, dip_fault_kind kind, const char *key, int64_t offset)
{
    const dip_fault_place place = {"d/0.tar", key, offset};
    dip_faults_add_at(faults, kind, &place, "cut");
}

static void every_fault_is_a_line(void **state)
{
    (void)state;
    static const char path[] = TEST_BINARY_DIR "/scratch/faults.jsonl";
    dip_faults *faults;
    assert_int_equal(dip_faults_open(&faults), DIP_OK);
    add_sample(faults, DIP_FAULT_LABEL, "before", 1024); /* is not forgotten */
    assert_int_equal(dip_faults_recorded(faults), 0);
    assert_int_equal(dip_faults_record(faults, path, 0, 100), DIP_OK);
    add_sample(faults, DIP_FAULT_IMAGE_BROKEN, "a", 512);
    add_sample(faults, DIP_FAULT_IMAGE_BROKEN, "a", 512);
    add_sample(faults, DIP_FAULT_TAR, NULL, 77);
    add_sample(faults, DIP_FAULT_TAR, NULL, -1);
    add_sample(faults, DIP_FAULT_CHECKSUM, "q\"\\\n\xe9", -1);
    add_sample(faults, DIP_FAULT_CHECKSUM, "q\"\\\n\xc3\xa9", -1);
    dip_faults_add(faults, DIP_FAULT_DUPLICATE, "x.tar: \xff", "of \x01");
    assert_int_equal(dip_faults_recorded(faults), 7);
    dip_faults_close(faults);
    char *text = lines_of(path);
    assert_string_equal(
        text, "{\"shard\":\"d/0.tar\",\"offset\":1024,\"key\":\"before\","
              "\"reason\":\"unreadable class label\",\"detail\":\"cut\"}\n"
              "{\"shard\":\"d/0.tar\",\"offset\":512,\"key\":\"a\","
              "\"reason\":\"broken or truncated image\",\"detail\":\"cut\"}\n"
              "{\"shard\":\"d/0.tar\",\"offset\":77,\"key\":null,"
              "\"reason\":\"damaged or truncated tar\",\"detail\":\"cut\"}\n"
              "{\"shard\":\"d/0.tar\",\"offset\":null,\"key\":null,"
              "\"reason\":\"damaged or truncated tar\",\"detail\":\"cut\"}\n"
              "{\"shard\":\"d/0.tar\",\"offset\":null,\"key\":\"q\\\"\\\\x5c\\\\x0a\\\\xe9\","
              "\"reason\":\"bytes differ from the index\",\"detail\":\"cut\"}\n"
              "{\"shard\":\"d/0.tar\",\"offset\":null,\"key\":\"q\\\"\\\\x5c\\\\x0a\xc3\xa9\","
              "\"reason\":\"bytes differ from the index\",\"detail\":\"cut\"}\n"
              "{\"shard\":\"x.tar: \\\\xff\",\"offset\":null,\"key\":null,"
              "\"reason\":\"duplicate of another sample\",\"detail\":\"of \\\\x01\"}\n");
    free(text);

    assert_int_equal(dip_faults_open(&faults), DIP_OK);
    assert_int_equal(dip_faults_record(faults, TEST_BINARY_DIR, 0, 10), DIP_IO);
    assert_int_equal(dip_faults_record(faults, TEST_BINARY_DIR "/none/f", 0, 10), DIP_IO);
    add_sample(faults, DIP_FAULT_TAR, "a", 1); /* counted all the same */
    assert_int_equal(dip_faults_total(faults), 1);
    dip_faults_close(faults);
}

/* A run of 12 faults, of which the first 3 come while the shards are opened. Keys are long, so that
 * they are cut, and alike up to there. */
static void run(const char *path, int64_t *n_kept, int stop_at, int64_t max_lines, bool late)
{
    dip_faults *faults;
    char key[1000], number[16];
    memset(key, 'k', sizeof key);
    assert_int_equal(dip_faults_open(&faults), DIP_OK);
    if (!late) assert_int_equal(dip_faults_record(faults, path, *n_kept, max_lines), DIP_OK);
    const int64_t n_before = *n_kept;
    for (int i = 0; i < stop_at; i++) {
        if (late && i == 3)
            assert_int_equal(dip_faults_record(faults, path, *n_kept, max_lines), DIP_OK);
        if (i >= 3 && i < n_before) continue; /* a resumed run does not come by these again */
        snprintf(number, sizeof number, "%08d", i);
        memcpy(key + sizeof key - 9, number, 9);
        add_sample(faults, i % 2 ? DIP_FAULT_IMAGE_BROKEN : DIP_FAULT_CAPTION_UTF8, key, 512 * i);
    }
    assert_int_equal(dip_faults_total(faults), stop_at);
    *n_kept = dip_faults_recorded(faults);
    for (int i = 0; i < 2; i++) add_sample(faults, DIP_FAULT_TAR, "after the state was saved", i);
    dip_faults_close(faults);
}

static void a_resumed_file_is_that_of_an_uninterrupted_run(void **state)
{
    (void)state;
    static const char path[] = TEST_BINARY_DIR "/scratch/resumed.jsonl";
    for (int64_t max_lines = 12; max_lines <= 100; max_lines += 88) {
        int64_t n_whole = 0;
        run(path, &n_whole, 12, max_lines, false);
        assert_int_equal(n_whole, 12);
        char *whole = lines_of(path);
        for (int stop_at = 3; stop_at <= 12; stop_at++) {
            for (int late = 0; late < 2; late++) {
                int64_t n_kept = 0;
                run(path, &n_kept, stop_at, max_lines, false);
                assert_int_equal(n_kept, stop_at);
                run(path, &n_kept, 12, max_lines, late);
                char *resumed = lines_of(path);
                assert_string_equal(resumed, whole);
                free(resumed);
            }
        }
        free(whole);
    }
}

static void the_file_is_bounded(void **state)
{
    (void)state;
    static const char path[] = TEST_BINARY_DIR "/scratch/bounded.jsonl";
    dip_faults *faults;
    int64_t n_kept = 0;
    for (int pass = 0; pass < 2; pass++) { /* the second goes on with the full file */
        assert_int_equal(dip_faults_open(&faults), DIP_OK);
        assert_int_equal(dip_faults_record(faults, path, n_kept, 4), DIP_OK);
        for (int i = 0; i < 50; i++) add_sample(faults, DIP_FAULT_LABEL, "k", 0);
        for (int i = 0; i < 50; i++) add_sample(faults, DIP_FAULT_LABEL, NULL, i);
        assert_int_equal(dip_faults_total(faults), 51);
        n_kept = dip_faults_recorded(faults);
        assert_int_equal(n_kept, 5);
        dip_faults_close(faults);
        char *text = lines_of(path);
        int n_lines = 0;
        for (const char *p = text; (p = strchr(p, '\n')); p++) n_lines++;
        assert_int_equal(n_lines, 5);
        assert_non_null(strstr(text, "further faults are counted, not named\"}\n"));
        free(text);
    }
}

/* What a killed machine or an editor may leave. */
static void a_file_that_is_not_what_it_was(void **state)
{
    (void)state;
    static const char path[] = TEST_BINARY_DIR "/scratch/spoiled.jsonl";
    static const char text[] = "not JSON\n{\"shard\":5}\n{\"shard\":\"s\",\"offset\":null,\"key\":"
                               "\"k\",\"reason\":\"empty caption\",\"detail\":\"\"}\n{\"half";
    dip_faults *faults;
    assert_int_equal(dip_file_write(path, text, strlen(text)), DIP_OK);
    assert_int_equal(dip_faults_open(&faults), DIP_OK);
    assert_int_equal(dip_faults_record(faults, path, 9, 100), DIP_OK);
    assert_int_equal(dip_faults_recorded(faults), 3);
    assert_int_equal(dip_faults_count(faults, DIP_FAULT_CAPTION_EMPTY), 1);
    const dip_fault_place known = {"s", "k", 7};
    dip_faults_add_at(faults, DIP_FAULT_CAPTION_EMPTY, &known, "");
    assert_int_equal(dip_faults_total(faults), 1);
    add_sample(faults, DIP_FAULT_LABEL, "new", 1);
    dip_faults_close(faults);
    char *now = lines_of(path);
    assert_memory_equal(now, text, strlen(text) - 6);
    assert_non_null(strstr(now, "\n{\"shard\":\"d/0.tar\",\"offset\":1,\"key\":\"new\""));
    assert_null(strstr(now, "half"));
    free(now);
}

/* Only the lines that are kept are read, whatever is behind them. */
static void a_file_larger_than_memory(void **state)
{
    (void)state;
    static const char path[] = TEST_BINARY_DIR "/scratch/large.jsonl";
    static const char line[] = "{\"shard\":\"s\",\"offset\":null,\"key\":\"k\","
                               "\"reason\":\"empty caption\",\"detail\":\"\"}\n";
    dip_faults *faults;
    assert_int_equal(dip_file_write(path, line, strlen(line)), DIP_OK);
    assert_int_equal(truncate(path, (off_t)1 << 36), 0); /* a hole */
    assert_int_equal(dip_faults_open(&faults), DIP_OK);
    assert_int_equal(dip_faults_record(faults, path, 1, 100), DIP_OK);
    assert_int_equal(dip_faults_count(faults, DIP_FAULT_CAPTION_EMPTY), 1);
    dip_faults_close(faults);
    char *now = lines_of(path);
    assert_string_equal(now, line);
    free(now);
}

static void a_thousand_of_a_thousand_are_named(void **state)
{
    (void)state;
    static const char path[] = TEST_BINARY_DIR "/scratch/thousand.jsonl";
    dip_faults *faults;
    pthread_t threads[N_THREADS];
    assert_int_equal(dip_faults_open(&faults), DIP_OK);
    assert_int_equal(dip_faults_record(faults, path, 0, 100000), DIP_OK);
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, add_many, faults), 0);
    for (int i = 0; i < N_THREADS; i++) pthread_join(threads[i], NULL);
    assert_int_equal(dip_faults_recorded(faults), N_NAMES);
    dip_faults_close(faults);
    char *text = lines_of(path), name[64];
    for (int i = 0; i < N_NAMES; i++) {
        snprintf(name, sizeof name, "{\"shard\":\"shard: %d\",", i);
        assert_non_null(strstr(text, name));
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_by_kind_once),
        cmocka_unit_test(names_are_made_printable),
        cmocka_unit_test(threads_add_the_same_names),
        cmocka_unit_test(first_twenty_are_logged),
        cmocka_unit_test(every_fault_is_a_line),
        cmocka_unit_test(a_resumed_file_is_that_of_an_uninterrupted_run),
        cmocka_unit_test(the_file_is_bounded),
        cmocka_unit_test(a_file_that_is_not_what_it_was),
        cmocka_unit_test(a_file_larger_than_memory),
        cmocka_unit_test(a_thousand_of_a_thousand_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
