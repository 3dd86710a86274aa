/* The catalogue of bad shards, a case each: D drop, count, name; E an error of the shard: earlier
 * samples stay, reading goes on, the offset is named; R refused; OK must work. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <unistd.h>

#include "core/log.h"
#include "data/pattern.h"
#include "data/samples.h"
#include "data/tar_build.h"

static const char *folder;
static tar_build tar;
static dip_samples *samples;
static dip_faults *faults;
static char *said; /* the log and the ledger */

/* A good sample a, then what the case adds, then (unless it ends the file) a good sample z. */
static void start(void)
{
    tar.n = 0;
    tar_member(&tar, "a.jpg", "1");
    tar_member(&tar, "a.txt", "a");
}

static void finish(void)
{
    tar_member(&tar, "z.jpg", "1");
    tar_member(&tar, "z.txt", "z");
    tar_end(&tar);
}

static void pair(const char *key)
{
    char name[128];
    snprintf(name, sizeof name, "%s.jpg", key);
    tar_member(&tar, name, "1");
    snprintf(name, sizeof name, "%s.txt", key);
    tar_member(&tar, name, key);
}

static dip_status open_paths(char **paths, size_t n)
{
    char *log_path = dip_path_join(folder, "log.txt");
    const dip_string_list shards = {.items = paths, .n_items = n};
    const dip_samples_options pairs = {.needs = DIP_NEEDS_IMAGE | DIP_NEEDS_CAPTION,
                                       .n_threads = 1};
    assert_int_equal(dip_file_write(log_path, "", 0), DIP_OK);
    assert_int_equal(dip_log_open_file(log_path), DIP_OK);
    assert_int_equal(dip_faults_open(&faults), DIP_OK);
    dip_status status = dip_samples_open(&samples, &shards, &pairs, faults);
    dip_log_close_file();
    size_t n_bytes;
    free(said);
    assert_int_equal(dip_file_read(&said, &n_bytes, log_path, 1 << 20), DIP_OK);
    free(log_path);
    return status;
}

static void done(void)
{
    dip_samples_close(samples);
    dip_faults_close(faults);
    samples = NULL;
}

/* The built tar holds these samples (keys, each with a blank), and so many faults of the kind. */
static void holds(const char *keys, dip_fault_kind kind, int n_faults)
{
    char *path = put_file(folder, "case.tar", tar.bytes, tar.n), found[1024] = "";
    assert_int_equal(open_paths(&path, 1), DIP_OK);
    for (int64_t i = 0; i < dip_samples_count(samples); i++) {
        strcat(found, dip_samples_get(samples, i).key);
        strcat(found, " ");
    }
    assert_string_equal(found, keys);
    assert_int_equal(dip_faults_count(faults, kind), n_faults);
    free(path);
}

/* E: a and z are kept, and the place is named. */
static void is_error_at(size_t offset)
{
    char place[64];
    finish();
    holds("a z ", DIP_FAULT_TAR, 1);
    assert_int_equal(dip_faults_total(faults), 1);
    snprintf(place, sizeof place, "case.tar: at byte %zu", offset);
    assert_non_null(strstr(said, place));
    done();
}

static void shard_01_zero_bytes(void **state)
{
    (void)state;
    start();
    finish();
    char *paths[] = {put_file(folder, "empty.tar", "", 0),
                     put_file(folder, "good.tar", tar.bytes, tar.n)};
    assert_int_equal(open_paths(paths, 2), DIP_OK);
    assert_int_equal(dip_samples_count(samples), 2);
    assert_non_null(strstr(said, "empty.tar: at byte 0 (the file is empty)"));
    done();
    free(paths[0]);
    free(paths[1]);
}

static void shard_02_cut_at_a_block(void **state)
{
    (void)state;
    start();
    const size_t cut = tar.n + 512;
    pair("b");
    tar.n = cut; /* the header of b.jpg is there, its data is not */
    holds("a ", DIP_FAULT_TAR, 1);
    assert_non_null(strstr(said, "member 'b.jpg' has 1 bytes, but the file has 0 left"));
    done();
}

static void shard_03_cut_inside_a_block(void **state)
{
    (void)state;
    start();
    const size_t cut = tar.n + 300;
    pair("b");
    tar.n = cut;
    holds("a ", DIP_FAULT_TAR, 1);
    assert_non_null(strstr(said, "the file ends inside a header (300 of 512 bytes)"));
    done();
}

static void shard_04_no_end_blocks(void **state)
{
    (void)state;
    start();
    pair("b");
    holds("a b ", DIP_FAULT_TAR, 1);
    assert_non_null(strstr(said, "no end-of-archive block: all members found are used"));
    done();
}

static void shard_05_one_zero_block_then_data(void **state)
{
    (void)state;
    start();
    const size_t at = tar.n;
    memset(tar.bytes + tar.n, 0, 512);
    tar.n += 512;
    is_error_at(at);
}

static void shard_06_bad_header_checksum(void **state)
{
    (void)state;
    start();
    const size_t at = tar.n;
    tar_header(&tar, "b.txt", 0, '0')[0] ^= 1;
    is_error_at(at);
}

static void bad_size(const char *size)
{
    start();
    const size_t at = tar.n;
    uint8_t *header = tar_header(&tar, "b.txt", 0, '0');
    memcpy(header + 124, size, 12);
    tar_checksum(header);
    is_error_at(at);
}

static void shard_07_size_is_not_octal(void **state)
{
    (void)state;
    bad_size("0000000009z");
}

static void shard_08_size_is_negative(void **state)
{
    (void)state;
    bad_size("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    assert_non_null(strstr(said, "the size of member 'b.txt' is a negative base-256 number"));
}

static void shard_09_size_beyond_the_file(void **state)
{
    (void)state;
    bad_size("00077777777");
}

/* A member of 8 GiB that is really there (the file has a hole) is over what is read of an image. */
static void shard_10_size_of_8_gib(void **state)
{
    (void)state;
    const uint64_t size = (uint64_t)8 << 30;
    start();
    uint8_t *header = tar_header(&tar, "b.jpg", 0, '0');
    memcpy(header + 124, "\x80\0\0\0\0\0\0\x02\0\0\0\0", 12);
    tar_checksum(header);
    char *path = put_file(folder, "large.tar", tar.bytes, tar.n);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseeko(file, (off_t)(tar.n + size), SEEK_SET), 0);
    tar.n = 0;
    tar_member(&tar, "b.txt", "b");
    finish();
    assert_int_equal(fwrite(tar.bytes, 1, tar.n, file), tar.n);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(open_paths(&path, 1), DIP_OK);
    assert_int_equal(dip_samples_count(samples), 2);
    assert_string_equal(dip_samples_get(samples, 1).key, "z");
    assert_int_equal(dip_faults_count(faults, DIP_FAULT_IMAGE_TOO_LARGE), 1);
    assert_non_null(strstr(said, "large.tar: b (its .jpg has 8589934592 bytes"));
    done();
    remove(path);
    free(path);
}

static void shard_11_pax_size_wins(void **state)
{
    (void)state;
    start();
    tar_header(&tar, "PaxHeader", 9, 'x');
    tar_data(&tar, "9 size=3\n", 9);
    tar_header(&tar, "b.jpg", 2000, '0'); /* which says another */
    tar_data(&tar, "123", 3);
    tar_member(&tar, "b.txt", "b");
    finish();
    holds("a b z ", DIP_FAULT_TAR, 0);
    assert_int_equal(dip_samples_get(samples, 1).image_bytes, 3);
    done();
}

static void shard_12_malformed_pax(void **state)
{
    (void)state;
    start();
    const size_t at = tar.n;
    tar_header(&tar, "PaxHeader", 12, 'x');
    tar_data(&tar, "99 path=b.x\n", 12);
    tar_member(&tar, "cut-off-name.txt", "whose it is cannot be known");
    is_error_at(at);
}

static void shard_13_gnu_long_name(void **state)
{
    (void)state;
    char name[301], keys[400];
    start();
    memset(name, 'n', sizeof name);
    for (int i = 0; i < 2; i++) {
        memcpy(name + 296, i ? ".txt" : ".jpg", 5);
        tar_header(&tar, "././@LongLink", 301, 'L');
        tar_data(&tar, name, 301);
        tar_member(&tar, "cut.txt", "1");
    }
    finish();
    name[296] = '\0';
    snprintf(keys, sizeof keys, "a %s z ", name);
    holds(keys, DIP_FAULT_TAR, 0);
    assert_int_equal(dip_faults_total(faults), 0);
    done();
}

static void shard_14_long_name_of_4_gb(void **state)
{
    (void)state;
    start();
    const size_t at = tar.n;
    uint8_t *header = tar_header(&tar, "././@LongLink", 0, 'L');
    memcpy(header + 124, "40000000000", 11);
    tar_checksum(header);
    tar_member(&tar, "b.txt", "its name is not known");
    is_error_at(at);
}

static void shard_15_sparse(void **state)
{
    (void)state;
    start();
    const size_t at = tar.n;
    tar_header(&tar, "b.jpg", 3, 'S');
    tar_data(&tar, "abc", 3);
    is_error_at(at);
    assert_non_null(strstr(said, "member 'b.jpg' is a sparse file"));
}

static void shard_16_links_devices_folders(void **state)
{
    (void)state;
    start();
    tar_header(&tar, "a.json", 0, '1');
    tar_header(&tar, "b.jpg", 0, '2');
    tar_header(&tar, "c.jpg", 0, '3');
    tar_header(&tar, "folder/", 0, '5');
    finish();
    holds("a z ", DIP_FAULT_TAR, 0);
    assert_int_equal(dip_faults_total(faults), 0);
    assert_non_null(strstr(said, "3 members of the shards are links or devices"));
    done();
}

static void shard_17_names_are_not_paths(void **state)
{
    (void)state;
    start();
    pair("../../x");
    pair("/etc/passwd");
    finish();
    holds("a ../../x /etc/passwd z ", DIP_FAULT_TAR, 0);
    assert_int_equal(dip_faults_total(faults), 0);
    done();
}

static void shard_18_control_characters_in_names(void **state)
{
    (void)state;
    start();
    tar_member(&tar, "b\n2026 | INFO | all is well\x1b[2J\x7f.jpg", "1"); /* no caption: is named */
    finish();
    holds("a z ", DIP_FAULT_NO_CAPTION, 1);
    assert_non_null(strstr(said, "case.tar: b\\x0a2026 | INFO | all is well\\x1b[2J\\x7f ("));
    assert_null(strchr(said, '\x1b'));
    done();

    start(); /* a NUL would cut a name */
    const size_t at = tar.n;
    tar_header(&tar, "PaxHeader", 14, 'x');
    tar_data(&tar, "14 path=b\0txt\n", 14);
    tar_member(&tar, "b.txt", "b");
    is_error_at(at);
}

static void shard_19_duplicate_member(void **state)
{
    (void)state;
    start();
    tar_member(&tar, "b.jpg", "1");
    tar_member(&tar, "b.txt", "first");
    tar_member(&tar, "b.txt", "second");
    finish();
    holds("a z ", DIP_FAULT_DUPLICATE_MEMBER, 1);
    assert_non_null(strstr(said, "case.tar: b (which of them"));
    done();
}

static void shard_20_interleaved_keys(void **state)
{
    (void)state;
    start();
    tar_member(&tar, "x.jpg", "1");
    tar_member(&tar, "y.jpg", "1");
    tar_member(&tar, "x.txt", "x");
    tar_member(&tar, "y.txt", "y");
    finish();
    holds("a z ", DIP_FAULT_NO_CAPTION, 2);
    assert_int_equal(dip_faults_count(faults, DIP_FAULT_NO_IMAGE), 2);
    assert_non_null(strstr(said, "pack with tar --sort=name"));
    done();
}

static void shard_21_same_key_in_two_shards(void **state)
{
    (void)state;
    start();
    tar_member(&tar, "k.jpg", "1");
    tar_end(&tar);
    char *paths[2] = {put_file(folder, "first.tar", tar.bytes, tar.n)};
    tar.n = 0;
    tar_member(&tar, "k.txt", "of another image");
    pair("a");
    tar_end(&tar);
    paths[1] = put_file(folder, "second.tar", tar.bytes, tar.n);
    assert_int_equal(open_paths(paths, 2), DIP_OK);
    assert_int_equal(dip_samples_count(samples), 2); /* both a */
    assert_int_equal(dip_samples_get(samples, 0).shard_index, 0);
    assert_int_equal(dip_samples_get(samples, 1).shard_index, 1);
    assert_non_null(strstr(said, "first.tar: k (no txt member)"));
    assert_non_null(strstr(said, "second.tar: k (no jpg"));
    done();
    free(paths[0]);
    free(paths[1]);
}

static void shard_22_one_half_is_missing(void **state)
{
    (void)state;
    start();
    tar_member(&tar, "b.jpg", "1");
    tar_member(&tar, "c.txt", "c");
    finish();
    holds("a z ", DIP_FAULT_NO_CAPTION, 1);
    assert_int_equal(dip_faults_count(faults, DIP_FAULT_NO_IMAGE), 1);
    assert_non_null(strstr(said, "case.tar: b (no txt member)"));
    assert_non_null(strstr(said, "case.tar: c (no jpg"));
    done();
}

/* The key ends at the first dot of the basename; extensions in any case; no extension, no member.
 */
static void shard_23_keys_and_extensions(void **state)
{
    (void)state;
    start();
    tar_member(&tar, "README", "no extension");
    tar_member(&tar, "d.x/b.JPG", "1");
    tar_member(&tar, "d.x/b.seg.jpg", "another member of d.x/b, not its image");
    tar_member(&tar, "d.x/b.TXT", "b");
    finish();
    holds("a d.x/b z ", DIP_FAULT_TAR, 0);
    assert_int_equal(dip_faults_total(faults), 0);
    assert_int_equal(dip_samples_get(samples, 1).image_bytes, 1);
    done();
}

static void shard_24_something_else_named_tar(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *word;
    } cases[] = {{"\x1f\x8b\x08", "gzip -d"}, {"<!DOCTYPE html>", "a web page"}};
    for (int i = 0; i < 2; i++) {
        char *path = put_file(folder, "else.tar", cases[i].bytes, strlen(cases[i].bytes));
        assert_int_equal(open_paths(&path, 1), DIP_FORMAT);
        assert_non_null(strstr(dip_error(), cases[i].word));
        assert_non_null(strstr(dip_error(), path));
        assert_null(samples);
        done();
        free(path);
    }
}

static void shard_25_vanishes_while_it_is_used(void **state)
{
    (void)state;
    start();
    finish();
    char *paths[] = {put_file(folder, "gone.tar", tar.bytes, tar.n),
                     put_file(folder, "stays.tar", tar.bytes, tar.n)};
    assert_int_equal(open_paths(paths, 2), DIP_OK);
    assert_int_equal(remove(paths[0]), 0);
    dip_sample_reader *reader;
    dip_sample sample;
    dip_fault_kind kind;
    assert_int_equal(dip_sample_reader_open(&reader, samples), DIP_OK);
    for (int i = 0; i < 4; i++) {
        dip_status status = dip_sample_read(reader, &sample, i, DIP_NEEDS_IMAGE, &kind);
        assert_int_equal(status, i < 2 ? DIP_FORMAT : DIP_OK);
        if (status == DIP_OK) continue;
        assert_int_equal(kind, DIP_FAULT_UNREADABLE);
        assert_non_null(strstr(dip_error(), "gone.tar: No such file"));
        assert_string_equal(sample.key, i ? "z" : "a");
    }
    dip_sample_reader_close(reader);
    done();
    free(paths[0]);
    free(paths[1]);
}

static void shard_26_missing_number_of_a_range(void **state)
{
    (void)state;
    start();
    finish();
    free(put_file(folder, "r0.tar", tar.bytes, tar.n));
    free(put_file(folder, "r2.tar", tar.bytes, tar.n));
    char *pattern = dip_path_join(folder, "r{0..3}.tar");
    dip_string_list paths;
    assert_int_equal(dip_pattern_expand_files(&paths, pattern), DIP_CONFIG);
    assert_non_null(strstr(dip_error(), "r1.tar"));
    assert_non_null(strstr(dip_error(), "r3.tar"));
    assert_null(strstr(dip_error(), "r2.tar"));
    free(pattern);
}

static void shard_27_the_same_shard_twice(void **state)
{
    (void)state;
    start();
    finish();
    char *path = put_file(folder, "twice.tar", tar.bytes, tar.n);
    char *pattern = dip_format("%s::%s", path, path), *log_path = dip_path_join(folder, "log.txt");
    assert_int_equal(dip_file_write(log_path, "", 0), DIP_OK);
    assert_int_equal(dip_log_open_file(log_path), DIP_OK);
    dip_string_list paths;
    assert_int_equal(dip_pattern_expand_files(&paths, pattern), DIP_OK);
    dip_log_close_file();
    assert_int_equal(paths.n_items, 2);
    dip_string_list_free(&paths);
    char *text;
    size_t n;
    assert_int_equal(dip_file_read(&text, &n, log_path, 1 << 20), DIP_OK);
    assert_non_null(strstr(text, "twice.tar is listed more than once"));
    free(text);
    free(log_path);
    free(pattern);
    free(path);
}

int main(void)
{
    folder = scratch_init("test_shard_catalogue");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shard_01_zero_bytes),
        cmocka_unit_test(shard_02_cut_at_a_block),
        cmocka_unit_test(shard_03_cut_inside_a_block),
        cmocka_unit_test(shard_04_no_end_blocks),
        cmocka_unit_test(shard_05_one_zero_block_then_data),
        cmocka_unit_test(shard_06_bad_header_checksum),
        cmocka_unit_test(shard_07_size_is_not_octal),
        cmocka_unit_test(shard_08_size_is_negative),
        cmocka_unit_test(shard_09_size_beyond_the_file),
        cmocka_unit_test(shard_10_size_of_8_gib),
        cmocka_unit_test(shard_11_pax_size_wins),
        cmocka_unit_test(shard_12_malformed_pax),
        cmocka_unit_test(shard_13_gnu_long_name),
        cmocka_unit_test(shard_14_long_name_of_4_gb),
        cmocka_unit_test(shard_15_sparse),
        cmocka_unit_test(shard_16_links_devices_folders),
        cmocka_unit_test(shard_17_names_are_not_paths),
        cmocka_unit_test(shard_18_control_characters_in_names),
        cmocka_unit_test(shard_19_duplicate_member),
        cmocka_unit_test(shard_20_interleaved_keys),
        cmocka_unit_test(shard_21_same_key_in_two_shards),
        cmocka_unit_test(shard_22_one_half_is_missing),
        cmocka_unit_test(shard_23_keys_and_extensions),
        cmocka_unit_test(shard_24_something_else_named_tar),
        cmocka_unit_test(shard_25_vanishes_while_it_is_used),
        cmocka_unit_test(shard_26_missing_number_of_a_range),
        cmocka_unit_test(shard_27_the_same_shard_twice),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(said);
    return failed;
}
