#include "data/shard/shard_index.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/file.h"
#include "data/shard/tar.h"

/* Layout, all numbers little-endian: a head, a record a member, the CRC-32C of all before it. */
enum {
    MAGIC_BYTES = 8,
    VERSION = 1,
    VERSION_AT = 8,
    MEMBERS_AT = 12,
    SHARD_BYTES_AT = 16,
    HEAD_BYTES = 24,
    OFFSET_AT = 0,
    SIZE_AT = 8,
    CRC_AT = 16,
    NAME_BYTES_AT = 20,
    RECORD_BYTES = 24, /* then the name and a NUL */
    TAIL_BYTES = 4,
    MAX_NAME_BYTES = 64 * 1024,
    MAX_INDEX_BYTES = 1 << 30
};

/* As in PNG: a file that went through a change of line ends no longer begins like this. */
static const char magic[MAGIC_BYTES] = {'D', 'I', 'P', 'I', 'D', 'X', '\r', '\n'};

struct dip_shard_index {
    char *bytes;
    size_t n_bytes;
    size_t at; /* of the next record */
};

struct dip_index_builder {
    char *bytes;
    size_t n_bytes, capacity;
    uint32_t n_members;
};

/* Numbers. */

static uint64_t get(const char *bytes, int n)
{
    uint64_t value = 0;
    while (n > 0) value = value << 8 | (unsigned char)bytes[--n];
    return value;
}

static void put(char *bytes, uint64_t value, int n)
{
    for (int i = 0; i < n; i++, value >>= 8) bytes[i] = (char)(value & 0xff);
}

char *dip_shard_index_path(const char *shard_path)
{
    return dip_format("%s.idx", shard_path);
}

/* Reading. */

static dip_status bad(const char *shard_path, const char *what)
{
    return dip_fail(DIP_FORMAT, "%s.idx: %s", shard_path, what);
}

/* Walk over all records, so that dip_shard_index_next need not look again. */
static const char *check_records(const dip_shard_index *index)
{
    const size_t end = index->n_bytes - TAIL_BYTES;
    const uint64_t n_members = get(index->bytes + MEMBERS_AT, 4);
    const uint64_t shard_bytes = get(index->bytes + SHARD_BYTES_AT, 8);
    uint64_t data_end = 0;
    size_t at = HEAD_BYTES;
    for (uint64_t i = 0; i < n_members; i++) {
        if (end - at < RECORD_BYTES) return "it ends before its last record";
        const char *record = index->bytes + at;
        const uint64_t offset = get(record + OFFSET_AT, 8), size = get(record + SIZE_AT, 8);
        const uint64_t name_bytes = get(record + NAME_BYTES_AT, 4);
        at += RECORD_BYTES;
        if (name_bytes > MAX_NAME_BYTES || name_bytes >= end - at)
            return "a name is longer than it can be";
        if (memchr(index->bytes + at, 0, (size_t)name_bytes + 1) != index->bytes + at + name_bytes)
            return "a name does not end where it should";
        if (offset < data_end || offset < DIP_TAR_BLOCK_BYTES ||
            offset % DIP_TAR_BLOCK_BYTES != 0 || offset > shard_bytes ||
            size > shard_bytes - offset)
            return "a member lies where none can lie";
        data_end = offset + size;
        at += (size_t)name_bytes + 1;
    }
    return at == end ? NULL : "it goes on after its last record";
}

static bool has_magic(const char *bytes, size_t n_bytes)
{
    return n_bytes >= MAGIC_BYTES && memcmp(bytes, magic, MAGIC_BYTES) == 0;
}

bool dip_shard_index_is_ours(const char *shard_path)
{
    char *bytes = NULL, *path = dip_shard_index_path(shard_path);
    size_t n_bytes;
    const bool ours = path && dip_file_read(&bytes, &n_bytes, path, MAX_INDEX_BYTES) == DIP_OK &&
                      has_magic(bytes, n_bytes);
    free(bytes);
    free(path);
    return ours;
}

static const char *check(const dip_shard_index *index)
{
    if (!has_magic(index->bytes, index->n_bytes)) return "it is not an index of Diptych's";
    if (index->n_bytes < HEAD_BYTES + TAIL_BYTES) return "it is cut off";
    if (get(index->bytes + VERSION_AT, 4) != VERSION) return "its version is not 1";
    const size_t end = index->n_bytes - TAIL_BYTES;
    if (dip_crc32c(0, index->bytes, end) != get(index->bytes + end, 4))
        return "its own checksum is wrong";
    return check_records(index);
}

dip_status dip_shard_index_read_any(dip_shard_index **out, const char *shard_path)
{
    *out = NULL;
    char *path = dip_shard_index_path(shard_path);
    struct stat info;
    if (path && stat(path, &info) != 0 && (errno == ENOENT || errno == ENOTDIR)) {
        free(path);
        return DIP_END;
    }
    dip_shard_index *index = calloc(1, sizeof *index);
    dip_status status = DIP_OK;
    if (!path || !index) {
        status = dip_fail(DIP_NOMEM, "%s.idx: no memory to read it", shard_path);
        goto fail;
    }
    DIP_TRY_GOTO(dip_file_read(&index->bytes, &index->n_bytes, path, MAX_INDEX_BYTES));
    const char *wrong = check(index);
    if (wrong) {
        status = bad(shard_path, wrong);
        goto fail;
    }
    free(path);
    dip_shard_index_rewind(index);
    *out = index;
    return DIP_OK;
fail:
    free(path);
    dip_shard_index_close(index);
    return status == DIP_IO ? DIP_FORMAT : status;
}

dip_status dip_shard_index_read(dip_shard_index **index, const char *shard_path)
{
    DIP_TRY(dip_shard_index_read_any(index, shard_path));
    struct stat info;
    if (stat(shard_path, &info) == 0 &&
        (uint64_t)info.st_size == dip_shard_index_shard_bytes(*index))
        return DIP_OK;
    dip_shard_index_close(*index);
    *index = NULL;
    return bad(shard_path, "it was made for a shard of another size");
}

dip_status dip_shard_index_next(dip_shard_index *index, dip_member_entry *entry)
{
    if (index->at == index->n_bytes - TAIL_BYTES) return DIP_END;
    const char *record = index->bytes + index->at;
    *entry = (dip_member_entry){.name = record + RECORD_BYTES,
                                .offset = get(record + OFFSET_AT, 8),
                                .n_bytes = get(record + SIZE_AT, 8),
                                .crc = (uint32_t)get(record + CRC_AT, 4)};
    index->at += RECORD_BYTES + (size_t)get(record + NAME_BYTES_AT, 4) + 1;
    return DIP_OK;
}

void dip_shard_index_rewind(dip_shard_index *index)
{
    index->at = HEAD_BYTES;
}

void dip_shard_index_close(dip_shard_index *index)
{
    if (!index) return;
    free(index->bytes);
    free(index);
}

uint64_t dip_shard_index_shard_bytes(const dip_shard_index *index)
{
    return get(index->bytes + SHARD_BYTES_AT, 8);
}

int64_t dip_shard_index_members(const dip_shard_index *index)
{
    return (int64_t)get(index->bytes + MEMBERS_AT, 4);
}

/* Writing. */

static dip_status make_room(dip_index_builder *builder, size_t n_bytes)
{
    if (n_bytes > MAX_INDEX_BYTES - builder->n_bytes)
        return dip_fail(DIP_CONFIG, "a shard of over %u members is too large for its index",
                        builder->n_members);
    if (builder->n_bytes + n_bytes <= builder->capacity) return DIP_OK;
    size_t capacity = 2 * (builder->n_bytes + n_bytes);
    char *bytes = realloc(builder->bytes, capacity);
    if (!bytes) return dip_fail(DIP_NOMEM, "no memory for the index of a shard");
    builder->bytes = bytes;
    builder->capacity = capacity;
    return DIP_OK;
}

void dip_index_builder_clear(dip_index_builder *builder)
{
    builder->n_bytes = HEAD_BYTES;
    builder->n_members = 0;
}

dip_status dip_index_builder_open(dip_index_builder **out)
{
    dip_index_builder *builder = calloc(1, sizeof *builder);
    *out = NULL;
    if (!builder) return dip_fail(DIP_NOMEM, "no memory for the index of a shard");
    dip_status status = make_room(builder, HEAD_BYTES);
    dip_index_builder_clear(builder);
    if (status == DIP_OK)
        *out = builder;
    else
        dip_index_builder_close(builder);
    return status;
}

dip_status dip_index_builder_add(dip_index_builder *builder, const dip_member_entry *entry)
{
    const size_t name_bytes = strlen(entry->name);
    if (name_bytes > MAX_NAME_BYTES)
        return dip_fail(DIP_CONFIG, "a member's name has %zu bytes, an index may hold %d",
                        name_bytes, MAX_NAME_BYTES);
    DIP_TRY(make_room(builder, RECORD_BYTES + name_bytes + 1 + TAIL_BYTES));
    char *record = builder->bytes + builder->n_bytes;
    put(record + OFFSET_AT, entry->offset, 8);
    put(record + SIZE_AT, entry->n_bytes, 8);
    put(record + CRC_AT, entry->crc, 4);
    put(record + NAME_BYTES_AT, name_bytes, 4);
    memcpy(record + RECORD_BYTES, entry->name, name_bytes + 1);
    builder->n_bytes += RECORD_BYTES + name_bytes + 1;
    builder->n_members++;
    return DIP_OK;
}

dip_status dip_index_builder_write(dip_index_builder *builder, const char *shard_path,
                                   uint64_t shard_bytes)
{
    DIP_TRY(make_room(builder, TAIL_BYTES));
    memcpy(builder->bytes, magic, MAGIC_BYTES);
    put(builder->bytes + VERSION_AT, VERSION, 4);
    put(builder->bytes + MEMBERS_AT, builder->n_members, 4);
    put(builder->bytes + SHARD_BYTES_AT, shard_bytes, 8);
    put(builder->bytes + builder->n_bytes, dip_crc32c(0, builder->bytes, builder->n_bytes), 4);
    char *path = dip_shard_index_path(shard_path);
    dip_status status = path ? dip_file_write(path, builder->bytes, builder->n_bytes + TAIL_BYTES)
                             : dip_fail(DIP_NOMEM, "no memory for the index of a shard");
    free(path);
    dip_index_builder_clear(builder);
    return status;
}

void dip_index_builder_close(dip_index_builder *builder)
{
    if (!builder) return;
    free(builder->bytes);
    free(builder);
}
