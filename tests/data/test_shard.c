/* The tar reader: every kind of member that Python's tarfile and webdataset write, and the bad
 * files of the catalogue. What damage costs a whole sample list is in test_shard_damage.c. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <zlib.h>

#include "data/shard/shard.h"
#include "data/tar_build.h"

static const char *folder;

/* Read a file to its end: "name=data;" for every member, "!" for every fault. */
static char *read_all(const char *path, int *n_faults, bool *unfinished, int64_t *n_skipped)
{
    static char text[1 << 16];
    size_t used = 0;
    text[0] = '\0';
    *n_faults = 0;
    dip_shard *shard;
    assert_int_equal(dip_shard_open(&shard, path), DIP_OK);
    dip_member member;
    dip_status status;
    while ((status = dip_shard_next(shard, &member)) != DIP_END) {
        if (status == DIP_OK) {
            char data[4096] = "";
            assert_true(member.n_bytes < sizeof data);
            assert_int_equal(dip_shard_read(shard, data, member.offset, member.n_bytes), DIP_OK);
            used += (size_t)snprintf(text + used, sizeof text - used, "%s=%s;", member.name, data);
            continue;
        }
        assert_int_equal(status, DIP_FORMAT);
        assert_non_null(strstr(dip_error(), path));
        assert_non_null(strstr(dip_error(), "at byte "));
        used += (size_t)snprintf(text + used, sizeof text - used, "!");
        ++*n_faults;
    }
    assert_int_equal(dip_shard_next(shard, &member), DIP_END); /* and stays there */
    if (unfinished) *unfinished = dip_shard_unfinished(shard);
    if (n_skipped) *n_skipped = dip_shard_skipped(shard);
    dip_shard_close(shard);
    return text;
}

static void expect(const tar_build *tar, const char *wanted)
{
    char *path = put_file(folder, "case.tar", tar->bytes, tar->n);
    int n_faults;
    assert_string_equal(read_all(path, &n_faults, NULL, NULL), wanted);
    free(path);
}

static tar_build tar;

static void start(void)
{
    tar.n = 0;
}

static void golden_files_read_as_tarfile_reads_them(void **state)
{
    (void)state;
    char *text;
    size_t n;
    assert_int_equal(
        dip_file_read(&text, &n, TEST_SOURCE_DIR "/tests/golden/shard_expected.txt", 1 << 20),
        DIP_OK);
    dip_shard *shard = NULL;
    dip_member member;
    char open_file[64] = "";
    int n_members = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        char file[64], name[512];
        unsigned long size, crc;
        assert_int_equal(sscanf(line, "%63[^\t]\t%511[^\t]\t%lu\t%lx", file, name, &size, &crc), 4);
        if (strcmp(file, open_file) != 0) {
            if (shard) assert_int_equal(dip_shard_next(shard, &member), DIP_END);
            dip_shard_close(shard);
            snprintf(open_file, sizeof open_file, "%s", file);
            char *path = dip_path_join(TEST_SOURCE_DIR "/tests/golden", file);
            assert_int_equal(dip_shard_open(&shard, path), DIP_OK);
            free(path);
        }
        assert_int_equal(dip_shard_next(shard, &member), DIP_OK);
        assert_string_equal(member.name, name);
        assert_int_equal(member.n_bytes, size);
        uint8_t *data = malloc(member.n_bytes + 1);
        assert_int_equal(dip_shard_read(shard, data, member.offset, member.n_bytes), DIP_OK);
        assert_int_equal(crc32(0, data, (unsigned)member.n_bytes), crc);
        free(data);
        n_members++;
    }
    assert_int_equal(dip_shard_next(shard, &member), DIP_END);
    assert_false(dip_shard_unfinished(shard));
    dip_shard_close(shard);
    free(text);
    assert_int_equal(n_members, 37);
}

static void not_a_tar_is_refused_by_what_it_is(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *word;
    } cases[] = {
        {"\x1f\x8b\x08more", "gzip"},    {"BZh91AY", "bzip2"},
        {"PK\x03\x04zip", "zip"},        {"\n <!DOCTYPE html><html>", "web page"},
        {"<HTML><body>404", "web page"}, {"version https://git-lfs.github.com/spec/v1\n", "LFS"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *path = put_file(folder, "other.tar", cases[i].bytes, strlen(cases[i].bytes));
        dip_shard *shard = (dip_shard *)&tar;
        assert_int_equal(dip_shard_open(&shard, path), DIP_FORMAT);
        assert_null(shard);
        assert_non_null(strstr(dip_error(), cases[i].word));
        assert_non_null(strstr(dip_error(), path));
        free(path);
    }
    dip_shard *shard;
    assert_int_equal(dip_shard_open(&shard, "/nonexistent/x.tar"), DIP_IO);
}

static void the_end_of_a_file(void **state)
{
    (void)state;
    start();
    expect(&tar, "!"); /* zero bytes */
    tar_end(&tar);
    expect(&tar, ""); /* an empty archive is one */

    start();
    tar_member(&tar, "a.txt", "A");
    bool unfinished;
    int n_faults;
    char *path = put_file(folder, "open.tar", tar.bytes, tar.n);
    assert_string_equal(read_all(path, &n_faults, &unfinished, NULL), "a.txt=A;");
    assert_true(unfinished);
    free(path);
    path = put_file(folder, "nopad.tar", tar.bytes, tar.n - 511);
    assert_string_equal(read_all(path, &n_faults, &unfinished, NULL), "a.txt=A;");
    assert_true(unfinished);
    free(path);
    path = put_file(folder, "cut.tar", tar.bytes, 512); /* the data is gone */
    assert_string_equal(read_all(path, &n_faults, &unfinished, NULL), "!");
    free(path);
    path = put_file(folder, "cut.tar", tar.bytes, 300);
    assert_string_equal(read_all(path, &n_faults, &unfinished, NULL), "!");
    free(path);

    start();
    tar_member(&tar, "a.txt", "A");
    memset(tar.bytes + tar.n, 0, 512); /* one zero block, then more */
    tar.n += 512;
    tar_member(&tar, "b.txt", "B");
    tar_end(&tar);
    expect(&tar, "a.txt=A;!b.txt=B;");
    tar_member(&tar, "c.txt", "C"); /* and after a whole end: an archive put behind another */
    tar_end(&tar);
    expect(&tar, "a.txt=A;!b.txt=B;!c.txt=C;");
}

static void a_reader_can_begin_again(void **state)
{
    (void)state;
    start();
    tar_member(&tar, "a.txt", "A");
    tar_header(&tar, "link", 0, '2');
    tar_header(&tar, "g", 15, 'g');
    tar_data(&tar, "15 path=global\n", 15);
    tar_header(&tar, "PaxHeader", 3, 'x'); /* broken: the next member goes too */
    tar_data(&tar, "abc", 3);
    char *path = put_file(folder, "again.tar", tar.bytes, tar.n);
    dip_shard *shard;
    dip_member member;
    assert_int_equal(dip_shard_open(&shard, path), DIP_OK);
    for (int pass = 0; pass < 3; pass++) {
        assert_int_equal(dip_shard_next(shard, &member), DIP_OK);
        assert_string_equal(member.name, "a.txt");
        assert_int_equal(dip_shard_next(shard, &member), DIP_FORMAT);
        if (pass < 2) assert_int_equal(dip_shard_next(shard, &member), DIP_END);
        assert_int_equal(dip_shard_skipped(shard), 1);
        dip_shard_rewind(shard);
        assert_int_equal(dip_shard_skipped(shard), 0);
        assert_false(dip_shard_unfinished(shard));
    }
    dip_shard_close(shard);
    free(path);
}

static void bad_headers_cost_their_member_only(void **state)
{
    (void)state;
    static const struct {
        const char *size;
        size_t n;
    } sizes[] = {
        {"0000000000x", 12},                                      /* not octal */
        {"00000\0junk00", 12},                                    /* ends early: this one is fine */
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12}, /* base-256, -1 */
        {"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", 12},       /* base-256, 2^64 - 1 */
        {"\x80\0\0\0\0\0\0\x02\0\0\0\0", 12},                     /* base-256, 8 GiB */
        {"77777777777", 12},                                      /* 8 GiB - 1 */
        {"00000002001", 12},                                      /* a little more than the file */
    };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        start();
        tar_member(&tar, "a.txt", "A");
        uint8_t *header = tar_header(&tar, "bad.txt", 0, '0');
        memcpy(header + 124, sizes[i].size, sizes[i].n);
        tar_checksum(header);
        if (i != 6) tar_member(&tar, "b.txt", "B");
        if (i != 6) tar_end(&tar);
        expect(&tar, i == 1   ? "a.txt=A;bad.txt=;b.txt=B;"
                     : i == 6 ? "a.txt=A;!"
                              : "a.txt=A;!b.txt=B;");
    }
    start();
    tar_member(&tar, "a.txt", "A");
    tar_header(&tar, "bad.txt", 0, '0')[3] ^= 1; /* the checksum no longer fits */
    tar_member(&tar, "b.txt", "B");
    tar_end(&tar);
    expect(&tar, "a.txt=A;!b.txt=B;");
}

static void extended_headers(void **state)
{
    (void)state;
    static const char *const broken[] = {
        "11 path=x.y",       /* no newline */
        "99 path=x.txt\n",   /* longer than the body */
        "path=x.txt\n",      /* no length */
        "13 path:x.txt\n",   /* no '=' */
        "99999999999 a=b\n", /* a huge length */
        "19 size=1234567x9\n", "30 size=99999999999999999999\n", "24 GNU.sparse.major=1\n\n", "3\n",
    };
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        start();
        tar_member(&tar, "a.txt", "A");
        tar_header(&tar, "PaxHeader", strlen(broken[i]), 'x');
        tar_data(&tar, broken[i], strlen(broken[i]));
        tar_member(&tar, "cut-off-name.txt", "its name is not known"); /* goes too */
        tar_member(&tar, "b.txt", "B");
        tar_end(&tar);
        expect(&tar, "a.txt=A;!b.txt=B;");
    }

    start(); /* the member that goes with it is itself a fault; the next is none */
    tar_header(&tar, "PaxHeader", 12, 'x');
    tar_data(&tar, "99 path=b.x\n", 12);
    tar_header(&tar, "sparse.txt", 3, 'S');
    tar_data(&tar, "abc", 3);
    tar_member(&tar, "b.txt", "B");
    tar_end(&tar);
    expect(&tar, "!!b.txt=B;");

    start(); /* a NUL in a name would cut it */
    tar_header(&tar, "PaxHeader", 15, 'x');
    tar_data(&tar, "15 path=x.\0txt\n", 15);
    tar_member(&tar, "x.txt", "X");
    tar_member(&tar, "b.txt", "B");
    tar_end(&tar);
    expect(&tar, "!b.txt=B;");

    start(); /* a long name that claims 4 GB */
    uint8_t *header = tar_header(&tar, "././@LongLink", 0, 'L');
    memcpy(header + 124, "40000000000", 11);
    tar_checksum(header);
    tar_member(&tar, "x.txt", "X");
    tar_member(&tar, "b.txt", "B");
    tar_end(&tar);
    expect(&tar, "!b.txt=B;");

    start(); /* PAX beats a long name, a member's record beats the archive's */
    tar_header(&tar, "g", 15, 'g');
    tar_data(&tar, "15 path=global\n", 15);
    tar_header(&tar, "././@LongLink", 5, 'L');
    tar_data(&tar, "l.txt", 5);
    tar_header(&tar, "PaxHeader", 14, 'x');
    tar_data(&tar, "14 path=p.txt\n", 14);
    tar_member(&tar, "x.txt", "X");
    tar_member(&tar, "b.txt", "B");
    tar_end(&tar);
    expect(&tar, "p.txt=X;global=B;");
}

static void members_that_are_no_files(void **state)
{
    (void)state;
    start();
    tar_header(&tar, "hard.txt", 77777, '1'); /* a link's size means nothing */
    tar_header(&tar, "soft.txt", 0, '2');
    tar_header(&tar, "device", 0, '3');
    tar_header(&tar, "folder/", 0, '5');
    tar_header(&tar, "old-folder/", 0, '\0');
    tar_header(&tar, "volume", 3, 'V');
    tar_data(&tar, "abc", 3);
    tar_header(&tar, "old.txt", 3, '\0');
    tar_data(&tar, "old", 3);
    tar_header(&tar, "sparse.txt", 3, 'S');
    tar_data(&tar, "abc", 3);
    tar_member(&tar, "../../etc/x.txt", "a key, not a path");
    tar_end(&tar);
    char *path = put_file(folder, "kinds.tar", tar.bytes, tar.n);
    int n_faults;
    int64_t n_skipped;
    assert_string_equal(read_all(path, &n_faults, NULL, &n_skipped),
                        "old.txt=old;!../../etc/x.txt=a key, not a path;");
    assert_int_equal(n_skipped, 4);
    free(path);
}

static void keys_and_extensions(void **state)
{
    (void)state;
    static const struct {
        const char *name, *key, *extension;
    } cases[] = {
        {"a.jpg", "a", "jpg"},
        {"d.x/e.y/a.seg.PNG", "d.x/e.y/a", "seg.PNG"},
        {"../x.txt", "../x", "txt"},
        {"a", NULL, NULL},
        {"a.", NULL, NULL},
        {".hidden", NULL, NULL},
        {"d/.jpg", NULL, NULL},
        {"d.x/a", NULL, NULL},
        {"__meta__.json", "__meta__", "json"},
        {"__dir__/a.txt", NULL, NULL},
        {"", NULL, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t key_bytes;
        const char *extension;
        int is_sample = dip_member_split(cases[i].name, &key_bytes, &extension);
        assert_int_equal(is_sample, cases[i].key != NULL);
        if (!is_sample) continue;
        assert_int_equal(key_bytes, strlen(cases[i].key));
        assert_memory_equal(cases[i].name, cases[i].key, key_bytes);
        assert_string_equal(extension, cases[i].extension);
    }
}

int main(void)
{
    folder = scratch_init("test_shard");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_files_read_as_tarfile_reads_them),
        cmocka_unit_test(not_a_tar_is_refused_by_what_it_is),
        cmocka_unit_test(the_end_of_a_file),
        cmocka_unit_test(a_reader_can_begin_again),
        cmocka_unit_test(bad_headers_cost_their_member_only),
        cmocka_unit_test(extended_headers),
        cmocka_unit_test(members_that_are_no_files),
        cmocka_unit_test(keys_and_extensions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
