/* The index file by itself: what is written is read, and nothing that is not an index is. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/stat.h>
#include <unistd.h>

#include "core/rng.h"
#include "data/shard/shard.h"
#include "data/shard/shard_index.h"
#include "data/shard/shard_writer.h"
#include "data/tar_build.h"

static const char *folder;

static const dip_member_entry entries[] = {
    {"a/b.jpg", 512, 1000, 0x12345678},
    {"a/b.txt", 2048, 0, 0},
    {"caf\xe9\n.txt", 2048, 511, 0xffffffff},
    {"", 4096, 0x123456789, 1}, /* a name may be anything that has no NUL */
};
enum { N_ENTRIES = 4 };
static const uint64_t shard_bytes = 0x200000000;

static dip_status write_entries(const char *shard_path)
{
    dip_index_builder *builder;
    assert_int_equal(dip_index_builder_open(&builder), DIP_OK);
    for (int i = 0; i < N_ENTRIES; i++)
        assert_int_equal(dip_index_builder_add(builder, &entries[i]), DIP_OK);
    dip_status status = dip_index_builder_write(builder, shard_path, shard_bytes);
    dip_index_builder_close(builder);
    return status;
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    char *path = dip_path_join(folder, "s.tar");
    dip_shard_index *index;
    dip_member_entry entry;
    assert_int_equal(dip_shard_index_read(&index, path), DIP_END);
    assert_int_equal(write_entries(path), DIP_OK);
    assert_int_equal(dip_shard_index_read(&index, path), DIP_FORMAT); /* there is no shard */
    assert_null(index);
    free(put_file(folder, "s.tar", "", 0));
    assert_int_equal(truncate(path, (off_t)shard_bytes), 0); /* a hole */
    assert_int_equal(dip_shard_index_read(&index, path), DIP_OK);
    assert_int_equal(dip_shard_index_shard_bytes(index), shard_bytes);
    assert_int_equal(dip_shard_index_members(index), N_ENTRIES);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < N_ENTRIES; i++) {
            assert_int_equal(dip_shard_index_next(index, &entry), DIP_OK);
            assert_string_equal(entry.name, entries[i].name);
            assert_int_equal(entry.offset, entries[i].offset);
            assert_int_equal(entry.n_bytes, entries[i].n_bytes);
            assert_int_equal(entry.crc, entries[i].crc);
        }
        assert_int_equal(dip_shard_index_next(index, &entry), DIP_END);
        assert_int_equal(dip_shard_index_next(index, &entry), DIP_END);
        dip_shard_index_rewind(index);
    }
    dip_shard_index_close(index);
    assert_int_equal(truncate(path, (off_t)shard_bytes - 1), 0);
    assert_int_equal(dip_shard_index_read(&index, path), DIP_FORMAT);
    assert_non_null(strstr(dip_error(), "another size"));
    assert_int_equal(dip_shard_index_read_any(&index, path), DIP_OK);
    dip_shard_index_close(index);
    remove(path);
    free(path);
}

/* The layout that FORMAT.md promises, byte by byte. */
static void the_layout(void **state)
{
    (void)state;
    static const uint8_t wanted[] = {
        'D',  'I',  'P',  'I',  'D', 'X', '\r', '\n', /* magic */
        1,    0,    0,    0,                          /* version */
        1,    0,    0,    0,                          /* members */
        0,    8,    0,    0,    0,   0,   0,    0,    /* bytes of the shard */
        0,    2,    0,    0,    0,   0,   0,    0,    /* at 512 */
        9,    0,    0,    0,    0,   0,   0,    0,    /* 9 bytes */
        0x83, 0x92, 0x06, 0xe3,                       /* CRC-32C */
        5,    0,    0,    0,                          /* of the name */
        'k',  '.',  't',  'x',  't', 0,
    };
    char *path = dip_path_join(folder, "l.tar"), *index_path = dip_shard_index_path(path);
    dip_index_builder *builder;
    const dip_member_entry entry = {"k.txt", 512, 9, dip_crc32c(0, "123456789", 9)};
    assert_int_equal(dip_index_builder_open(&builder), DIP_OK);
    assert_int_equal(dip_index_builder_add(builder, &entry), DIP_OK);
    assert_int_equal(dip_index_builder_write(builder, path, 2048), DIP_OK);
    char *bytes;
    size_t n;
    assert_int_equal(dip_file_read(&bytes, &n, index_path, 1000), DIP_OK);
    assert_int_equal(n, sizeof wanted + 4);
    assert_memory_equal(bytes, wanted, sizeof wanted);
    uint32_t crc = dip_crc32c(0, wanted, sizeof wanted);
    for (int i = 0; i < 4; i++)
        assert_int_equal((uint8_t)bytes[sizeof wanted + (size_t)i], crc >> 8 * i & 0xff);
    free(bytes);

    /* the builder is empty again */
    assert_int_equal(dip_index_builder_write(builder, path, 1024), DIP_OK);
    assert_int_equal(dip_file_read(&bytes, &n, index_path, 1000), DIP_OK);
    assert_int_equal(n, 28);
    free(bytes);
    dip_index_builder_close(builder);
    free(index_path);
    free(path);
}

/* A name that a reader would refuse is not written. */
static void a_name_too_long(void **state)
{
    (void)state;
    static char name[65538];
    dip_index_builder *builder;
    dip_shard_index *index;
    char *path = dip_path_join(folder, "n.tar");
    memset(name, 'n', sizeof name - 1);
    const dip_member_entry entry = {name, 512, 9, 0};
    assert_int_equal(dip_index_builder_open(&builder), DIP_OK);
    assert_int_equal(dip_index_builder_add(builder, &entry), DIP_CONFIG);
    name[sizeof name - 2] = '\0';
    assert_int_equal(dip_index_builder_add(builder, &entry), DIP_OK);
    assert_int_equal(dip_index_builder_write(builder, path, 2048), DIP_OK);
    assert_int_equal(dip_shard_index_read_any(&index, path), DIP_OK);
    assert_int_equal(dip_shard_index_members(index), 1);
    dip_shard_index_close(index);
    dip_index_builder_close(builder);
    free(path);
}

/* Whatever the bytes are: refused, or entries that lie in the shard. */
static void read_bytes(const char *path, const char *bytes, size_t n)
{
    free(put_file(folder, "m.tar.idx", bytes, n));
    dip_shard_index *index;
    dip_member_entry entry;
    dip_status status = dip_shard_index_read_any(&index, path);
    if (status == DIP_FORMAT) return;
    assert_int_equal(status, DIP_OK);
    const uint64_t size = dip_shard_index_shard_bytes(index);
    uint64_t end = 0;
    int64_t n_members = 0;
    while (dip_shard_index_next(index, &entry) == DIP_OK) {
        assert_true(entry.offset >= end && entry.offset <= size);
        assert_true(entry.n_bytes <= size - entry.offset);
        assert_true(strlen(entry.name) < n);
        end = entry.offset + entry.n_bytes;
        n_members++;
    }
    assert_int_equal(n_members, dip_shard_index_members(index));
    dip_shard_index_close(index);
}

/* A checksum that is right again after the bytes were changed: only the bounds are left. */
static void put_crc(char *bytes, size_t n)
{
    uint32_t crc = dip_crc32c(0, bytes, n - 4);
    for (size_t i = 0; i < 4; i++) bytes[n - 4 + i] = (char)(crc >> 8 * i & 0xff);
}

static void hostile_bytes(void **state)
{
    (void)state;
    char *path = dip_path_join(folder, "m.tar"), *index_path = dip_shard_index_path(path);
    char *bytes, *changed;
    size_t n;
    assert_int_equal(write_entries(path), DIP_OK);
    assert_int_equal(dip_file_read(&bytes, &n, index_path, 1000), DIP_OK);
    changed = malloc(n);
    for (size_t i = 0; i < n - 4; i++) {
        for (int mask = 1; mask < 256; mask <<= 1) {
            memcpy(changed, bytes, n);
            changed[i] = (char)(changed[i] ^ mask);
            put_crc(changed, n);
            read_bytes(path, changed, n);
        }
        if (i < 28) continue;
        memcpy(changed, bytes, n);
        put_crc(changed, i); /* cut, with a good checksum */
        read_bytes(path, changed, i);
    }
    dip_rng rng;
    dip_rng_init(&rng, 7, 7);
    for (int i = 0; i < 3000; i++) { /* random words in the records */
        memcpy(changed, bytes, n);
        for (size_t k = 0; k < 8; k++)
            changed[12 + dip_rng_below(&rng, n - 16)] = (char)dip_rng_below(&rng, 256);
        put_crc(changed, n);
        read_bytes(path, changed, n);
    }
    read_bytes(path, "", 0);
    free(changed);
    free(bytes);
    remove(index_path);
    assert_int_equal(mkdir(index_path, 0777), 0);
    dip_shard_index *index;
    assert_int_equal(dip_shard_index_read_any(&index, path), DIP_FORMAT); /* there, not readable */
    free(index_path);
    free(path);
}

/* What our writer says of its shards is what the headers say. */
static void the_writers_index(void **state)
{
    (void)state;
    char *pattern = dip_format("%s/written/{00000..}.tar", folder), name[300];
    dip_shard_writer *writer;
    assert_int_equal(dip_shard_writer_open(&writer, pattern, 3), DIP_OK);
    memset(name, 'e', sizeof name); /* an extension that needs a PAX record */
    name[sizeof name - 1] = '\0';
    for (int i = 0; i < 8; i++) {
        char data[2000];
        memset(data, 'a' + i, sizeof data);
        const dip_shard_part parts[] = {{"jpg", data, (size_t)i * 250}, {name, "x", (size_t)i % 2}};
        assert_int_equal(dip_shard_writer_add(writer, parts, 2), DIP_OK);
    }
    assert_int_equal(dip_shard_writer_close(writer), DIP_OK);
    for (int i = 0; i < 3; i++) {
        char *path = dip_format("%s/written/%05d.tar", folder, i);
        dip_shard *shard;
        dip_shard_index *index;
        dip_member member;
        dip_member_entry entry;
        assert_int_equal(dip_shard_open(&shard, path), DIP_OK);
        assert_int_equal(dip_shard_index_read(&index, path), DIP_OK);
        while (dip_shard_next(shard, &member) == DIP_OK) {
            char data[2000];
            assert_int_equal(dip_shard_index_next(index, &entry), DIP_OK);
            assert_string_equal(entry.name, member.name);
            assert_int_equal(entry.offset, member.offset);
            assert_int_equal(entry.n_bytes, member.n_bytes);
            assert_int_equal(dip_shard_read(shard, data, member.offset, member.n_bytes), DIP_OK);
            assert_int_equal(entry.crc, dip_crc32c(0, data, member.n_bytes));
        }
        assert_int_equal(dip_shard_index_next(index, &entry), DIP_END);
        dip_shard_index_close(index);
        dip_shard_close(shard);
        free(path);
    }
    free(pattern);
}

int main(void)
{
    folder = scratch_init("test_shard_index");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read), cmocka_unit_test(the_layout),
        cmocka_unit_test(a_name_too_long),         cmocka_unit_test(hostile_bytes),
        cmocka_unit_test(the_writers_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
