/* The dearest shards of 1 MB: opened and read in a process of its own, each must cost at most 256
 * MB and 2 s. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define TAR_BUILD_BYTES (1 << 20)
#include "data/quiet.h"
#include "data/samples.h"
#include "data/shard/shard_index.h"
#include "data/tar_build.h"
#include "sanitizers.h"

enum { MAX_MB = 256, MAX_SECONDS = 2, LONG_NAME_BYTES = 65536 };

/* The sanitizers' own memory and time are not what is measured. */
static const char *folder;
static tar_build tar;

static bool room(size_t n_bytes)
{
    return tar.n + n_bytes + 1024 <= TAR_BUILD_BYTES;
}

/* The child: open, read every sample there is. */
static int open_and_read(char *path, int needs)
{
    const dip_string_list shards = {.items = &path, .n_items = 1};
    const dip_samples_options options = {.needs = needs, .n_threads = 1};
    dip_samples *samples;
    dip_sample_reader *reader;
    dip_faults *faults;
    if (dip_faults_open(&faults) != DIP_OK) return 1;
    dip_status status = dip_samples_open(&samples, &shards, &options, faults);
    if (status != DIP_OK) return status != DIP_CONFIG && status != DIP_FORMAT;
    if (dip_sample_reader_open(&reader, samples) != DIP_OK) return 1;
    for (int64_t i = 0; i < dip_samples_count(samples); i++) {
        dip_sample s;
        dip_fault_kind kind;
        status = dip_sample_read(reader, &s, i, DIP_NEEDS_IMAGE | DIP_NEEDS_CAPTION, &kind);
        if (status != DIP_OK && status != DIP_FORMAT) return 1;
    }
    return 0;
}

static void costs_little_at(char *path, int needs)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) _exit(open_and_read(path, needs));
    int ended;
    struct rusage usage;
    assert_int_equal(wait4(child, &ended, 0, &usage), child);
    assert_true(WIFEXITED(ended));
    assert_int_equal(WEXITSTATUS(ended), 0);
    const double seconds = (double)usage.ru_utime.tv_sec + (double)usage.ru_stime.tv_sec +
                           1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
    const long mb = usage.ru_maxrss / 1024;
    print_message("%.3f s, %ld MB\n", seconds, mb);
    if (!UNDER_SANITIZER) assert_true(seconds <= MAX_SECONDS && mb <= MAX_MB);
}

/* Of the tar that was built. */
static void costs_little(int needs)
{
    char *path = put_file(folder, "dear.tar", tar.bytes, tar.n);
    costs_little_at(path, needs);
    free(path);
}

static void thousands_of_empty_members(void **state)
{
    (void)state;
    char name[32];
    tar.n = 0;
    for (int i = 0; room(512); i++) {
        snprintf(name, sizeof name, "%d.jpg", i);
        tar_header(&tar, name, 0, '0');
    }
    costs_little(DIP_NEEDS_IMAGE);
    costs_little(DIP_NEEDS_CAPTION); /* each a line of the ledger */
    costs_little(DIP_NAMES_INCOMPLETE);
}

/* One name of 64 KiB for the whole archive, and samples that differ from it between. */
static void a_long_name_for_all(void **state)
{
    (void)state;
    enum { LENGTH = LONG_NAME_BYTES + 12 }; /* "65548 path=" and the newline */
    char *record = malloc(LENGTH + 1);
    memset(record, 'k', LENGTH);
    memcpy(record, "65548 path=", 11);
    memcpy(record + LENGTH - 5, ".jpg\n", 5);
    tar.n = 0;
    tar_header(&tar, "g", LENGTH, 'g');
    tar_data(&tar, record, LENGTH);
    for (int i = 0; room(4 * 512); i++) {
        tar_header(&tar, "PaxHeader", 14, 'x');
        tar_data(&tar, "14 path=b.jpg\n", 14);
        tar_header(&tar, "any", 0, '0');
        tar_header(&tar, "any", 0, '0'); /* the long name */
    }
    free(record);
    costs_little(DIP_NEEDS_IMAGE);
    costs_little(DIP_NEEDS_CAPTION);
}

static void long_names(void **state)
{
    (void)state;
    char *name = malloc(LONG_NAME_BYTES);
    memset(name, 'n', LONG_NAME_BYTES);
    memcpy(name + LONG_NAME_BYTES - 5, ".jpg", 5);
    tar.n = 0;
    for (int i = 0; room(LONG_NAME_BYTES + 1024); i++) {
        name[0] = (char)('a' + i);
        tar_header(&tar, "././@LongLink", LONG_NAME_BYTES, 'L');
        tar_data(&tar, name, LONG_NAME_BYTES);
        tar_header(&tar, "cut", 0, '0');
    }
    free(name);
    costs_little(DIP_NEEDS_IMAGE);
    costs_little(DIP_NEEDS_CAPTION);
}

static void a_header_of_a_hundred_thousand_records(void **state)
{
    (void)state;
    static char body[900000];
    size_t n = 0;
    for (; n + 9 <= sizeof body; n += 9) memcpy(body + n, "9 size=3\n", 9);
    tar.n = 0;
    tar_header(&tar, "PaxHeader", n, 'x');
    tar_data(&tar, body, n);
    tar_member(&tar, "a.jpg", "123");
    costs_little(DIP_NEEDS_IMAGE);
}

static void global_headers(void **state)
{
    (void)state;
    tar.n = 0;
    while (room(1024)) {
        tar_header(&tar, "g", 14, 'g');
        tar_data(&tar, "14 path=b.jpg\n", 14);
    }
    costs_little(DIP_NEEDS_IMAGE);
}

/* A fault a header: broken, sparse, too long, an end that is none. */
static void thousands_of_faults(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        tar.n = 0;
        for (int i = 0; room(1536); i++) {
            if (kind == 0) tar_header(&tar, "a.jpg", 0, '0')[0] ^= 1;
            if (kind == 1) tar_header(&tar, "a.jpg", 0, 'S');
            if (kind == 2) tar_header(&tar, "a.jpg", 1 << 30, '0');
            if (kind == 3) {
                memset(tar.bytes + tar.n, 0, 512);
                tar.n += 512;
                tar_header(&tar, "a.jpg", 0, '0');
            }
        }
        costs_little(DIP_NEEDS_IMAGE);
    }
}

/* Not a header in it, but every block is looked at. */
static void noise(void **state)
{
    (void)state;
    tar.n = 0;
    tar_header(&tar, "a.jpg", 0, '0');
    uint32_t x = 1;
    for (; room(1); tar.n++) tar.bytes[tar.n] = (uint8_t)((x = x * 1664525u + 1013904223u) >> 24);
    costs_little(DIP_NEEDS_IMAGE);
}

static void an_index_of_thirty_thousand_members(void **state)
{
    (void)state;
    char *path = put_file(folder, "dear.tar", "", 0), name[8];
    dip_index_builder *builder;
    assert_int_equal(truncate(path, 1 << 30), 0); /* a hole */
    assert_int_equal(dip_index_builder_open(&builder), DIP_OK);
    for (uint64_t i = 0; i < 31000; i++) {
        snprintf(name, sizeof name, "%c%c%c.jpg", 'a' + (int)(i % 26), 'a' + (int)(i / 26 % 26),
                 'a' + (int)(i / 676 % 50));
        const dip_member_entry entry = {name, 512 * (i + 1), i == 30999 ? (1 << 29) : 0, 0};
        assert_int_equal(dip_index_builder_add(builder, &entry), DIP_OK);
    }
    assert_int_equal(dip_index_builder_write(builder, path, 1 << 30), DIP_OK);
    dip_index_builder_close(builder);
    costs_little_at(path, DIP_NEEDS_IMAGE);
    char *index_path = dip_shard_index_path(path);
    remove(index_path);
    free(index_path);
    free(path);
}

int main(void)
{
    folder = scratch_init("test_shard_cost");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(thousands_of_empty_members, silence, speak),
        cmocka_unit_test_setup_teardown(a_long_name_for_all, silence, speak),
        cmocka_unit_test_setup_teardown(long_names, silence, speak),
        cmocka_unit_test_setup_teardown(a_header_of_a_hundred_thousand_records, silence, speak),
        cmocka_unit_test_setup_teardown(global_headers, silence, speak),
        cmocka_unit_test_setup_teardown(thousands_of_faults, silence, speak),
        cmocka_unit_test_setup_teardown(noise, silence, speak),
        cmocka_unit_test_setup_teardown(an_index_of_thirty_thousand_members, silence, speak),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
