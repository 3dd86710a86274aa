#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "core/scratch.h"

static const char *dir;

static void expect_content(const char *path, const char *expected)
{
    char *text;
    size_t n;
    assert_int_equal(dip_file_read(&text, &n, path, 1 << 20), DIP_OK);
    assert_string_equal(text, expected);
    assert_int_equal(n, strlen(expected));
    free(text);
}

static char *in_dir(const char *name)
{
    char *path = dip_path_join(dir, name);
    assert_non_null(path);
    return path;
}

static int setup(void **state)
{
    (void)state;
    dir = scratch_init("test_file");
    return 0;
}

static void writes_appear_whole(void **state)
{
    (void)state;
    char *path = in_dir("a.txt");
    assert_int_equal(dip_file_write(path, "old", 3), DIP_OK);
    expect_content(path, "old");
    dip_writer *writer;
    assert_int_equal(dip_writer_open(&writer, path), DIP_OK);
    assert_int_equal(dip_writer_write(writer, "new", 3), DIP_OK);
    expect_content(path, "old"); /* nothing is visible before the commit */
    assert_int_equal(dip_writer_write(writer, "", 0), DIP_OK);
    assert_int_equal(dip_writer_write(writer, "er", 2), DIP_OK);
    assert_int_equal(dip_writer_commit(writer), DIP_OK);
    expect_content(path, "newer");
    assert_int_equal(scratch_count(dir), 1);
    free(path);
}

static void abort_leaves_nothing(void **state)
{
    (void)state;
    char *path = in_dir("a.txt");
    dip_writer *writer;
    assert_int_equal(dip_writer_open(&writer, path), DIP_OK);
    assert_int_equal(dip_writer_write(writer, "half", 4), DIP_OK);
    assert_int_equal(scratch_count(dir), 1); /* the temporary file */
    dip_writer_abort(writer);
    assert_int_equal(scratch_count(dir), 0);
    dip_writer_abort(NULL);
    free(path);
}

static void large_and_small_writes_keep_their_order(void **state)
{
    (void)state;
    enum { N = 700001 };
    char *path = in_dir("big"), *data = malloc(N), *back;
    for (size_t i = 0; i < N; i++) data[i] = (char)(i * 2654435761u >> 13);
    dip_writer *writer;
    assert_int_equal(dip_writer_open(&writer, path), DIP_OK);
    size_t at = 0;
    for (size_t step = 1; at < N; step = step * 3 + 1) {
        size_t n = step < N - at ? step : N - at;
        assert_int_equal(dip_writer_write(writer, data + at, n), DIP_OK);
        at += n;
    }
    assert_int_equal(dip_writer_commit(writer), DIP_OK);
    size_t n;
    assert_int_equal(dip_file_read(&back, &n, path, N), DIP_OK);
    assert_int_equal(n, N);
    assert_memory_equal(back, data, N);
    free(back);
    free(data);
    free(path);
}

/* The file size limit makes the kernel write short once and then refuse, as a full disk does. */
static void refused_writes_keep_the_old_file(void **state)
{
    (void)state;
    char *path = in_dir("a.txt"), *data = calloc(1, 1 << 20);
    assert_int_equal(dip_file_write(path, "old", 3), DIP_OK);
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit, small;
    getrlimit(RLIMIT_FSIZE, &limit);
    small = limit;
    small.rlim_cur = 100000;
    setrlimit(RLIMIT_FSIZE, &small);
    dip_status whole = dip_file_write(path, data, 1 << 20);
    char *sentence = strdup(dip_error());
    dip_writer *writer;
    dip_status opened = dip_writer_open(&writer, path);
    dip_status first = dip_writer_write(writer, data, 1 << 20);
    dip_status second = dip_writer_write(writer, data, 1);
    dip_status committed = dip_writer_commit(writer);
    setrlimit(RLIMIT_FSIZE, &limit);
    assert_int_equal(whole, DIP_IO);
    assert_non_null(strstr(sentence, path));
    assert_non_null(strstr(sentence, "100000 bytes: File too large"));
    assert_int_equal(opened, DIP_OK);
    assert_int_equal(first, DIP_IO);
    assert_int_equal(second, DIP_IO); /* a hole in the middle must not pass */
    assert_int_equal(committed, DIP_IO);
    expect_content(path, "old");
    assert_int_equal(scratch_count(dir), 1);
    free(sentence);
    free(data);
    free(path);
}

static void two_writers_of_one_path_do_not_meet(void **state)
{
    (void)state;
    char *path = in_dir("a.txt");
    dip_writer *first, *second;
    assert_int_equal(dip_writer_open(&first, path), DIP_OK);
    assert_int_equal(dip_writer_open(&second, path), DIP_OK);
    assert_int_equal(dip_writer_write(first, "first", 5), DIP_OK);
    assert_int_equal(dip_writer_write(second, "second", 6), DIP_OK);
    assert_int_equal(dip_writer_commit(first), DIP_OK);
    expect_content(path, "first");
    assert_int_equal(dip_writer_commit(second), DIP_OK);
    expect_content(path, "second");
    assert_int_equal(scratch_count(dir), 1);
    free(path);
}

static void writers_refuse_what_is_no_file(void **state)
{
    (void)state;
    dip_writer *writer;
    assert_int_equal(dip_writer_open(&writer, dir), DIP_IO);
    assert_non_null(strstr(dip_error(), "a directory"));
    assert_null(writer);
    assert_int_equal(dip_writer_open(&writer, "/dev/null"), DIP_IO);
    assert_int_equal(access("/dev/null", F_OK), 0);
    char *missing = in_dir("no/such/dir/a.txt");
    assert_int_equal(dip_writer_open(&writer, missing), DIP_IO);
    assert_non_null(strstr(dip_error(), "No such file or directory"));
    free(missing);
}

static void a_symlink_is_written_through(void **state)
{
    (void)state;
    char *real = in_dir("real"), *link = in_dir("link");
    assert_int_equal(dip_file_write(real, "old", 3), DIP_OK);
    assert_int_equal(symlink("real", link), 0);
    assert_int_equal(dip_file_write(link, "new", 3), DIP_OK);
    expect_content(real, "new");
    struct stat info;
    assert_int_equal(lstat(link, &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    free(link);
    free(real);
}

static void reading_has_limits(void **state)
{
    (void)state;
    char *path = in_dir("a.txt"), *fifo = in_dir("fifo"), *text;
    size_t n;
    assert_int_equal(dip_file_write(path, "12345", 5), DIP_OK);
    assert_int_equal(dip_file_read(&text, &n, path, 4), DIP_FORMAT);
    assert_null(text);
    assert_non_null(strstr(dip_error(), "the limit is 4"));
    assert_int_equal(dip_file_read(&text, &n, path, 5), DIP_OK);
    assert_int_equal(text[5], '\0');
    free(text);
    assert_int_equal(dip_file_read(&text, &n, dir, 100), DIP_IO);
    assert_non_null(strstr(dip_error(), "a directory"));
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_int_equal(dip_file_read(&text, &n, fifo, 100), DIP_IO); /* and does not wait */
    /* A size of 0 that is not true, and a limit met while reading. */
    assert_int_equal(dip_file_read(&text, &n, "/proc/self/status", 1 << 16), DIP_OK);
    assert_true(n > 100);
    free(text);
    assert_int_equal(dip_file_read(&text, &n, "/proc/self/status", 10), DIP_FORMAT);
    assert_int_equal(dip_file_read(&text, &n, "/no/such/file", 10), DIP_IO);
    assert_non_null(strstr(dip_error(), "/no/such/file"));
    free(fifo);
    free(path);
}

static void mapping(void **state)
{
    (void)state;
    char *path = in_dir("a.bin");
    dip_map map;
    assert_int_equal(dip_file_write(path, "", 0), DIP_OK);
    assert_int_equal(dip_file_map(&map, path), DIP_OK);
    assert_null(map.data);
    assert_int_equal(map.n_bytes, 0);
    dip_file_unmap(&map);
    assert_int_equal(dip_file_write(path, "abc", 3), DIP_OK);
    assert_int_equal(dip_file_map(&map, path), DIP_OK);
    assert_int_equal(map.n_bytes, 3);
    assert_memory_equal(map.data, "abc", 3);
    assert_int_equal(unlink(path), 0); /* a mapping outlives the name */
    assert_int_equal(map.data[2], 'c');
    dip_file_unmap(&map);
    assert_null(map.data);
    dip_file_unmap(&map);
    assert_int_equal(dip_file_map(&map, dir), DIP_IO);
    free(path);
}

static void directories(void **state)
{
    (void)state;
    char *deep = in_dir("a//b/c/"), *file = in_dir("a/b/c/f"), *link = in_dir("a/b/out");
    char *kept = in_dir("kept"), *kept_file = in_dir("kept/f"), *top = in_dir("a");
    assert_int_equal(dip_make_dirs(deep), DIP_OK);
    assert_int_equal(dip_make_dirs(deep), DIP_OK);
    assert_true(dip_path_is_dir(deep));
    assert_int_equal(dip_file_write(file, "x", 1), DIP_OK);
    assert_false(dip_path_is_dir(file));
    assert_true(dip_path_exists(file));
    assert_int_equal(dip_make_dirs(file), DIP_IO);
    assert_non_null(strstr(dip_error(), "a file has that name"));
    assert_int_equal(dip_make_dirs(""), DIP_IO);
    assert_int_equal(dip_make_dirs(kept), DIP_OK);
    assert_int_equal(dip_file_write(kept_file, "x", 1), DIP_OK);
    assert_int_equal(symlink(kept, link), 0);
    assert_int_equal(dip_remove_tree(top), DIP_OK);
    assert_false(dip_path_exists(top));
    assert_true(dip_path_exists(kept_file)); /* the link was not followed */
    assert_int_equal(dip_remove_tree(top), DIP_OK);
    assert_int_equal(dip_sync_dir(kept), DIP_OK);
    assert_int_equal(dip_sync_dir(top), DIP_IO);
    free(top);
    free(kept_file);
    free(kept);
    free(link);
    free(file);
    free(deep);
}

static void links_are_replaced(void **state)
{
    (void)state;
    char *link = in_dir("latest"), *file = in_dir("file"), target[32] = {0};
    assert_int_equal(dip_symlink_replace("epoch_1", link), DIP_OK);
    assert_int_equal(dip_symlink_replace("epoch_2", link), DIP_OK);
    assert_int_equal(readlink(link, target, sizeof target - 1), 7);
    assert_string_equal(target, "epoch_2");
    assert_int_equal(dip_file_write(file, "x", 1), DIP_OK);
    assert_int_equal(dip_symlink_replace("epoch_2", file), DIP_IO);
    expect_content(file, "x");
    assert_int_equal(scratch_count(dir), 2);
    free(file);
    free(link);
}

static void paths_join(void **state)
{
    (void)state;
    const char *const rows[][3] = {
        {"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"", "b", "b"}, {"/", "b", "/b"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *joined = dip_path_join(rows[i][0], rows[i][1]);
        assert_string_equal(joined, rows[i][2]);
        free(joined);
    }
}

static void crc32c_vectors(void **state)
{
    (void)state;
    /* "123456789" is the check value of the CRC catalogue; the others are of RFC 3720, B.4. */
    unsigned char zeros[32] = {0}, ones[32], up[32];
    for (int i = 0; i < 32; i++) {
        ones[i] = 0xff;
        up[i] = (unsigned char)i;
    }
    const struct {
        const void *data;
        size_t n;
        uint32_t crc;
    } rows[] = {{"123456789", 9, 0xE3069283u},
                {zeros, 32, 0x8A9136AAu},
                {ones, 32, 0x62A8AB43u},
                {up, 32, 0x46DD794Eu},
                {"", 0, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(dip_crc32c(0, rows[i].data, rows[i].n), rows[i].crc);
        assert_int_equal(dip_crc32c_portable(0, rows[i].data, rows[i].n), rows[i].crc);
    }
}

static void crc32c_continues_at_any_cut(void **state)
{
    (void)state;
    unsigned char data[67];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)(i * i + 7);
    uint32_t whole = dip_crc32c(0, data, sizeof data);
    for (size_t cut = 0; cut <= sizeof data; cut++) {
        uint32_t fast = dip_crc32c(0, data, cut), slow = dip_crc32c_portable(0, data, cut);
        assert_int_equal(fast, slow);
        assert_int_equal(dip_crc32c(fast, data + cut, sizeof data - cut), whole);
        assert_int_equal(dip_crc32c_portable(slow, data + cut, sizeof data - cut), whole);
    }
}

/* Long data is taken in three parts at a time. */
static void crc32c_of_long_data(void **state)
{
    (void)state;
    static unsigned char data[20000];
    uint32_t x = 1;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)((x = x * 1664525u + 1) >> 24);
    for (size_t n = 3000; n + 13 < sizeof data; n += n < 3200 ? 1 : 611) {
        const unsigned char *from = data + n % 13;
        assert_int_equal(dip_crc32c(x, from, n), dip_crc32c_portable(x, from, n));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(writes_appear_whole, setup),
        cmocka_unit_test_setup(abort_leaves_nothing, setup),
        cmocka_unit_test_setup(large_and_small_writes_keep_their_order, setup),
        cmocka_unit_test_setup(refused_writes_keep_the_old_file, setup),
        cmocka_unit_test_setup(two_writers_of_one_path_do_not_meet, setup),
        cmocka_unit_test_setup(writers_refuse_what_is_no_file, setup),
        cmocka_unit_test_setup(a_symlink_is_written_through, setup),
        cmocka_unit_test_setup(reading_has_limits, setup),
        cmocka_unit_test_setup(mapping, setup),
        cmocka_unit_test_setup(directories, setup),
        cmocka_unit_test_setup(links_are_replaced, setup),
        cmocka_unit_test(paths_join),
        cmocka_unit_test(crc32c_vectors),
        cmocka_unit_test(crc32c_continues_at_any_cut),
        cmocka_unit_test(crc32c_of_long_data),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
