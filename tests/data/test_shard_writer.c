/* The shard writer: what it writes is read back, is the same bytes every time, and appears whole
 * or not at all. That tarfile and webdataset read it too is checked by hand (they are Python). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/json.h"
#include "data/pattern.h"
#include "data/shard/shard.h"
#include "data/shard/shard_writer.h"
#include "data/tar_build.h"

static const char *folder;

static dip_shard_writer *open_writer(const char *name, int64_t per_shard)
{
    char *pattern = dip_format("%s/%s/{00007..}.tar", folder, name);
    dip_shard_writer *writer;
    assert_int_equal(dip_shard_writer_open(&writer, pattern, per_shard), DIP_OK);
    free(pattern);
    return writer;
}

static void add(dip_shard_writer *writer, int i)
{
    char text[700];
    memset(text, 'a' + i % 26, sizeof text);
    dip_shard_part parts[] = {{"jpg", text, (size_t)(i * 171 % 700)}, {"txt", text, 5}};
    assert_int_equal(dip_shard_writer_add(writer, parts, 2), DIP_OK);
}

static char *read_bytes(const char *folder_name, const char *name, size_t *n)
{
    char *path = dip_format("%s/%s/%s", folder, folder_name, name), *bytes;
    assert_int_equal(dip_file_read(&bytes, n, path, 1 << 24), DIP_OK);
    free(path);
    return bytes;
}

static void what_goes_in_comes_out(void **state)
{
    (void)state;
    dip_shard_writer *writer = open_writer("plain", 3);
    for (int i = 0; i < 8; i++) add(writer, i);
    assert_int_equal(dip_shard_writer_samples(writer), 8);
    assert_int_equal(dip_shard_writer_shards(writer), 3);
    assert_int_equal(dip_shard_writer_close(writer), DIP_OK);

    int sample = 0;
    for (int shard = 7; shard < 10; shard++) {
        char *path = dip_format("%s/plain/%05d.tar", folder, shard);
        dip_shard *reader;
        dip_member member;
        assert_int_equal(dip_shard_open(&reader, path), DIP_OK);
        while (dip_shard_next(reader, &member) == DIP_OK) {
            char name[32];
            snprintf(name, sizeof name, "%09d.jpg", sample);
            assert_string_equal(member.name, name);
            assert_int_equal(member.n_bytes, sample * 171 % 700);
            char data[700];
            assert_int_equal(dip_shard_read(reader, data, member.offset, member.n_bytes), DIP_OK);
            for (size_t i = 0; i < member.n_bytes; i++) assert_int_equal(data[i], 'a' + sample);
            assert_int_equal(dip_shard_next(reader, &member), DIP_OK);
            snprintf(name, sizeof name, "%09d.txt", sample++);
            assert_string_equal(member.name, name);
            assert_int_equal(member.n_bytes, 5);
        }
        assert_false(dip_shard_unfinished(reader));
        dip_shard_close(reader);
        free(path);
    }
    assert_int_equal(sample, 8);

    size_t n;
    char *text = read_bytes("plain", "sizes.json", &n);
    cJSON *sizes;
    assert_int_equal(dip_json_parse(&sizes, text, n, "sizes.json"), DIP_OK);
    assert_int_equal(cJSON_GetArraySize(sizes), 3);
    assert_int_equal(cJSON_GetObjectItem(sizes, "00008.tar")->valueint, 3);
    assert_int_equal(cJSON_GetObjectItem(sizes, "00009.tar")->valueint, 2);
    cJSON_Delete(sizes);
    free(text);
}

static void the_same_input_gives_the_same_bytes(void **state)
{
    (void)state;
    static const char *const names[] = {"again", "and-again"};
    char *bytes[2];
    size_t n[2];
    for (int k = 0; k < 2; k++) {
        dip_shard_writer *writer = open_writer(names[k], 10);
        for (int i = 0; i < 8; i++) add(writer, i);
        assert_int_equal(dip_shard_writer_close(writer), DIP_OK);
        bytes[k] = read_bytes(names[k], "00007.tar", &n[k]);
    }
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(bytes[0], bytes[1], n[0]);
    assert_memory_equal(bytes[0] + 100,
                        "0000444\0"
                        "0000000\0"
                        "0000000\0",
                        24);
    assert_memory_equal(bytes[0] + 136, "00000000000", 12); /* no time */
    free(bytes[0]);
    free(bytes[1]);
}

static void a_name_over_the_limit_becomes_a_pax_record(void **state)
{
    (void)state;
    /* Record lengths around the places where the length gets another digit. */
    static const int lengths[] = {90, 91, 92, 100, 200, 970, 975, 976, 977, 978, 979, 980, 2000};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        char extension[4096];
        memset(extension, 'e', sizeof extension);
        extension[lengths[i]] = '\0';
        dip_shard_writer *writer = open_writer("long", 10);
        dip_shard_part part = {extension, "data", 4};
        assert_int_equal(dip_shard_writer_add(writer, &part, 1), DIP_OK);
        assert_int_equal(dip_shard_writer_close(writer), DIP_OK);
        char *path = dip_format("%s/long/00007.tar", folder);
        dip_shard *reader;
        dip_member member;
        assert_int_equal(dip_shard_open(&reader, path), DIP_OK);
        assert_int_equal(dip_shard_next(reader, &member), DIP_OK);
        assert_string_equal(member.name + 10, extension);
        char data[4];
        assert_int_equal(dip_shard_read(reader, data, member.offset, 4), DIP_OK);
        assert_memory_equal(data, "data", 4);
        assert_int_equal(dip_shard_next(reader, &member), DIP_END);
        dip_shard_close(reader);
        free(path);
    }
}

static void aborting_leaves_nothing(void **state)
{
    (void)state;
    char *path = dip_format("%s/aborted", folder);
    dip_shard_writer *writer = open_writer("aborted", 2);
    for (int i = 0; i < 5; i++) add(writer, i);
    assert_true(scratch_count(path) >= 2);
    dip_shard_writer_abort(writer);
    assert_int_equal(scratch_count(path), 0);
    dip_shard_writer_abort(NULL);
    free(path);
}

static int64_t file_bytes(const char *folder_name, const char *name)
{
    size_t n;
    free(read_bytes(folder_name, name, &n));
    return (int64_t)n;
}

/* A limit on bytes holds for every shard of more than one sample; what counts is known before. */
static void shards_stay_below_the_limit(void **state)
{
    (void)state;
    static const int64_t limits[] = {1, 4096, 4608, 8192, 10000};
    for (size_t k = 0; k < sizeof limits / sizeof limits[0]; k++) {
        char name[16];
        snprintf(name, sizeof name, "limit%zu", k);
        dip_shard_writer *writer = open_writer(name, 5);
        dip_shard_writer_limit(writer, limits[k]);
        dip_finished_shard finished;
        assert_int_equal(dip_shard_writer_finish(writer, &finished), DIP_END);
        int64_t n_samples = 0;
        for (int i = 0; i < 30; i++) {
            char text[700];
            memset(text, 'x', sizeof text);
            dip_shard_part parts[] = {{"jpg", text, (size_t)(i * 171 % 700)}, {"txt", text, 5}};
            if (dip_shard_writer_full(writer, parts, 2)) {
                assert_int_equal(dip_shard_writer_finish(writer, &finished), DIP_OK);
                char shard[16];
                snprintf(shard, sizeof shard, "%05d.tar", (int)finished.number + 7);
                assert_int_equal(file_bytes(name, shard), finished.n_bytes);
                assert_true(finished.n_bytes <= limits[k] || finished.n_samples == 1);
                assert_true(finished.n_samples <= 5);
                n_samples += finished.n_samples;
            }
            assert_int_equal(dip_shard_writer_add(writer, parts, 2), DIP_OK);
            assert_int_equal(dip_shard_writer_samples(writer), i + 1);
        }
        assert_int_equal(dip_shard_writer_finish(writer, &finished), DIP_OK);
        assert_int_equal(n_samples + finished.n_samples, 30);
        assert_int_equal(dip_shard_writer_close(writer), DIP_OK);
    }
}

/* Two writers, the second going on where the first was left, write what one writes. */
static void a_second_writer_goes_on(void **state)
{
    (void)state;
    dip_shard_writer *whole = open_writer("whole", 3);
    for (int i = 0; i < 8; i++) add(whole, i);
    assert_int_equal(dip_shard_writer_close(whole), DIP_OK);

    dip_shard_writer *first = open_writer("parts", 3);
    dip_finished_shard shards[2];
    for (int i = 0; i < 6; i++) {
        add(first, i);
        if (i % 3 == 2) assert_int_equal(dip_shard_writer_finish(first, &shards[i / 3]), DIP_OK);
    }
    add(first, 100); /* of the shard that gets lost */
    dip_shard_writer_leave(first);
    char *parts = dip_format("%s/parts", folder);
    assert_int_equal(scratch_count(parts), 4); /* two shards, two indexes */
    free(put_file(parts, "00009.tar.tmp-1", "half", 4));
    free(put_file(parts, "sizes.json.tmp-1", "half", 4));

    dip_shard_writer *second = open_writer("parts", 3);
    assert_int_equal(dip_shard_writer_resume(second, &shards[1]), DIP_CONFIG); /* not in order */
    dip_finished_shard changed = shards[0];
    changed.n_bytes++;
    assert_int_equal(dip_shard_writer_resume(second, &changed), DIP_CONFIG);
    for (int i = 0; i < 2; i++)
        assert_int_equal(dip_shard_writer_resume(second, &shards[i]), DIP_OK);
    assert_int_equal(dip_shard_writer_clean(second), DIP_OK);
    assert_int_equal(scratch_count(parts), 4);
    for (int i = 6; i < 8; i++) add(second, i);
    assert_int_equal(dip_shard_writer_close(second), DIP_OK);
    static const char *const names[] = {"00007.tar",  "00008.tar",     "00009.tar",
                                        "sizes.json", "00007.tar.idx", "00009.tar.idx"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        size_t a_bytes, b_bytes;
        char *a = read_bytes("whole", names[i], &a_bytes),
             *b = read_bytes("parts", names[i], &b_bytes);
        assert_int_equal(a_bytes, b_bytes);
        assert_memory_equal(a, b, a_bytes);
        free(a);
        free(b);
    }
    assert_int_equal(scratch_count(parts), 7);
    free(parts);
}

static void replacing_removes_the_longer_older_run(void **state)
{
    (void)state;
    char *pattern = dip_format("%s/replaced/{00007..}.tar", folder);
    dip_shard_writer *writer = open_writer("replaced", 1);
    for (int i = 0; i < 4; i++) add(writer, i);
    assert_int_equal(dip_shard_writer_close(writer), DIP_OK);
    char *other = dip_format("%s/replaced", folder);
    free(put_file(other, "x00001.tar", "not ours", 8));
    dip_string_list files;
    assert_int_equal(dip_shard_writer_existing(&files, pattern), DIP_OK);
    assert_int_equal(files.n_items, 4);
    assert_non_null(strstr(files.items[0], "/00007.tar"));
    dip_string_list_free(&files);

    writer = open_writer("replaced", 3);
    dip_shard_writer_replace(writer);
    for (int i = 0; i < 4; i++) add(writer, i);
    assert_int_equal(dip_shard_writer_close(writer), DIP_OK);
    assert_int_equal(dip_shard_writer_existing(&files, pattern), DIP_OK);
    assert_int_equal(files.n_items, 2);
    dip_string_list_free(&files);
    assert_int_equal(scratch_count(other), 6); /* two shards with indexes, sizes.json, the other */
    free(other);
    free(pattern);
}

static void patterns(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "out",
        "out/00000.tar",
        "out/{}.tar",
        "out/{0..}",
        "{0..}/x.tar",
        "o/{00..05}.tar",
        "o/{0..}{0..}.tar",
        "o/{a..}.tar",
        "o/{0..}.tar/",
        "o{1,2}/{0..}.tar",
        "o/{9999999999999999999999..}.tar",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        dip_shard_writer *writer;
        assert_int_equal(dip_shard_writer_open(&writer, bad[i], 10), DIP_CONFIG);
        assert_null(writer);
    }
    dip_shard_writer *writer;
    assert_int_equal(dip_shard_writer_open(&writer, "x/{0..}.tar", 0), DIP_CONFIG);
    dip_string_list files;
    assert_int_equal(dip_shard_writer_existing(&files, "/nonexistent/{0..}.tar"), DIP_OK);
    assert_int_equal(files.n_items, 0);
}

int main(void)
{
    folder = scratch_init("test_shard_writer");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_goes_in_comes_out),
        cmocka_unit_test(the_same_input_gives_the_same_bytes),
        cmocka_unit_test(a_name_over_the_limit_becomes_a_pax_record),
        cmocka_unit_test(aborting_leaves_nothing),
        cmocka_unit_test(shards_stay_below_the_limit),
        cmocka_unit_test(a_second_writer_goes_on),
        cmocka_unit_test(replacing_removes_the_longer_older_run),
        cmocka_unit_test(patterns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
