#include "data/shard/shard_writer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "core/json.h"
#include "data/pattern.h"
#include "data/shard/shard_index.h"
#include "data/shard/shard_names.h"
#include "data/shard/tar.h"

enum {
    BLOCK_BYTES = DIP_TAR_BLOCK_BYTES,
    NAME_BYTES = DIP_TAR_NAME_BYTES,
    END_BYTES = 2 * BLOCK_BYTES, /* zeros after the last member */
    MIN_KEY_DIGITS = 9,
    MAX_EXTENSION_BYTES = 4096,
    MAX_NAME_BYTES = MAX_EXTENSION_BYTES + 32,
    MAX_RECORDS_BYTES = MAX_NAME_BYTES + 256
};

static const uint64_t max_ustar_bytes = 077777777777; /* 11 octal digits: 8 GiB - 1 */

struct dip_shard_writer {
    char *pattern;
    dip_shard_names names;
    bool replace;
    int64_t samples_per_shard;
    uint64_t max_shard_bytes; /* 0: no limit */
    int64_t n_samples, n_shards;
    dip_writer *file;   /* the shard being written; NULL between shards */
    int64_t n_in_shard; /* samples of it */
    uint64_t n_bytes;   /* written of it */
    dip_index_builder *index;
    cJSON *sizes; /* {"00000.tar": n} of the finished shards */
};

static dip_status no_memory(void)
{
    return dip_fail(DIP_NOMEM, "no memory to write shards");
}

dip_status dip_shard_writer_existing(dip_string_list *paths, const char *pattern)
{
    return dip_shard_names_list(paths, pattern, false);
}

/* Headers. Every field is fixed, so that the same samples give the same bytes. */

static void make_header(uint8_t header[BLOCK_BYTES], const char *name, uint64_t n_bytes, char type)
{
    memset(header, 0, BLOCK_BYTES);
    size_t name_bytes = strlen(name);
    memcpy(header, name, name_bytes < NAME_BYTES ? name_bytes : NAME_BYTES);
    char *text = (char *)header;
    memcpy(text + 100, "0000444", 7);      /* mode */
    memcpy(text + 108, "0000000", 7);      /* owner */
    memcpy(text + 116, "0000000", 7);      /* group */
    memcpy(text + 136, "00000000000", 11); /* time */
    snprintf(text + 124, 12, "%011" PRIo64, n_bytes <= max_ustar_bytes ? n_bytes : 0);
    memset(text + 148, ' ', 8);
    text[156] = type;
    memcpy(text + 257,
           "ustar\0"
           "00",
           8);
    unsigned sum = 0;
    for (int i = 0; i < BLOCK_BYTES; i++) sum += header[i];
    snprintf(text + 148, 7, "%06o", sum);
}

static dip_status write_bytes(dip_shard_writer *writer, const void *data, size_t n_bytes)
{
    writer->n_bytes += n_bytes;
    return dip_writer_write(writer->file, data, n_bytes);
}

static dip_status write_padded(dip_shard_writer *writer, const void *data, size_t n_bytes)
{
    static const uint8_t zeros[BLOCK_BYTES];
    if (n_bytes > 0) DIP_TRY(write_bytes(writer, data, n_bytes));
    size_t tail = n_bytes % BLOCK_BYTES;
    return tail ? write_bytes(writer, zeros, BLOCK_BYTES - tail) : DIP_OK;
}

/* "LENGTH KEY=VALUE\n" whose LENGTH counts its own digits. */
static size_t pax_record(char *out, size_t n, const char *key, const char *value)
{
    size_t rest = strlen(key) + strlen(value) + 3, length = rest + 1;
    for (size_t limit = 10; length >= limit; limit *= 10)
        length = rest + (size_t)snprintf(NULL, 0, "%zu", length);
    snprintf(out, n, "%zu %s=%s\n", length, key, value);
    return length;
}

/* The PAX records that a member needs beside its header; returns their bytes, 0 for most. */
static size_t make_records(char *records, size_t n, const char *name, size_t n_bytes)
{
    size_t used = 0;
    char size[24];
    if (strlen(name) > NAME_BYTES) used += pax_record(records, n, "path", name);
    snprintf(size, sizeof size, "%zu", n_bytes);
    if (n_bytes > max_ustar_bytes) used += pax_record(records + used, n - used, "size", size);
    return used;
}

static uint64_t padded(uint64_t n_bytes)
{
    return (n_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
}

static dip_status write_member(dip_shard_writer *writer, const char *name, const void *data,
                               size_t n_bytes)
{
    uint8_t header[BLOCK_BYTES];
    char records[MAX_RECORDS_BYTES];
    size_t n_records = make_records(records, sizeof records, name, n_bytes);
    if (n_records > 0) {
        make_header(header, "PaxHeader", n_records, 'x');
        DIP_TRY(write_bytes(writer, header, sizeof header));
        DIP_TRY(write_padded(writer, records, n_records));
    }
    make_header(header, name, n_bytes, '0');
    DIP_TRY(write_bytes(writer, header, sizeof header));
    const dip_member_entry entry = {name, writer->n_bytes, n_bytes, dip_crc32c(0, data, n_bytes)};
    DIP_TRY(dip_index_builder_add(writer->index, &entry));
    return write_padded(writer, data, n_bytes);
}

static uint64_t member_bytes(const char *name, size_t n_bytes)
{
    char records[MAX_RECORDS_BYTES];
    size_t n_records = make_records(records, sizeof records, name, n_bytes);
    return (n_records > 0 ? BLOCK_BYTES + padded(n_records) : 0) + BLOCK_BYTES + padded(n_bytes);
}

/* Life cycle. */

dip_status dip_shard_writer_open(dip_shard_writer **out, const char *pattern,
                                 int64_t samples_per_shard)
{
    *out = NULL;
    if (samples_per_shard < 1)
        return dip_fail(DIP_CONFIG, "samples per shard is %" PRId64 ", it must be at least 1",
                        samples_per_shard);
    dip_status status = DIP_OK;
    dip_shard_writer *writer = calloc(1, sizeof *writer);
    if (!writer) return no_memory();
    writer->samples_per_shard = samples_per_shard;
    DIP_TRY_GOTO(dip_shard_names_parse(&writer->names, pattern));
    writer->pattern = strdup(pattern);
    writer->sizes = cJSON_CreateObject();
    if (!writer->pattern || !writer->sizes) {
        status = no_memory();
        goto fail;
    }
    DIP_TRY_GOTO(dip_index_builder_open(&writer->index));
    DIP_TRY_GOTO(dip_make_dirs(writer->names.folder));
    *out = writer;
    return DIP_OK;
fail:
    dip_shard_writer_abort(writer);
    return status;
}

static dip_status begin_shard(dip_shard_writer *writer)
{
    char *path = dip_shard_path_of(&writer->names, writer->n_shards);
    if (!path) return no_memory();
    dip_status status = dip_writer_open(&writer->file, path);
    if (status != DIP_OK) writer->file = NULL;
    free(path);
    writer->n_bytes = 0;
    dip_index_builder_clear(writer->index);
    return status;
}

static dip_status remove_index(const char *shard)
{
    char *path = dip_shard_index_path(shard);
    if (!path) return no_memory();
    dip_status status = DIP_OK;
    if (unlink(path) != 0 && errno != ENOENT)
        status = dip_fail(DIP_IO, "%s: cannot be removed: %s", path, strerror(errno));
    free(path);
    return status;
}

/* The shard first, then its index: a shard without one is good, and one with the index of an older
 * shard of its name must not be there at any moment. */
static dip_status commit_shard(dip_shard_writer *writer, const char *path)
{
    DIP_TRY(remove_index(path));
    dip_status status = dip_writer_commit(writer->file);
    writer->file = NULL;
    return status;
}

static dip_status count_shard(dip_shard_writer *writer, int64_t n_samples)
{
    char *name = dip_shard_name(&writer->names, writer->n_shards++);
    bool added = name && cJSON_AddNumberToObject(writer->sizes, name, (double)n_samples);
    free(name);
    return added ? DIP_OK : no_memory();
}

dip_status dip_shard_writer_finish(dip_shard_writer *writer, dip_finished_shard *finished)
{
    static const uint8_t end[END_BYTES];
    if (!writer->file) return DIP_END;
    DIP_TRY(write_bytes(writer, end, sizeof end));
    char *path = dip_shard_path_of(&writer->names, writer->n_shards);
    dip_status status = path ? commit_shard(writer, path) : no_memory();
    dip_finished_shard shard = {writer->n_shards, writer->n_in_shard, (int64_t)writer->n_bytes};
    writer->n_in_shard = 0;
    if (status == DIP_OK) status = count_shard(writer, shard.n_samples);
    if (status == DIP_OK) status = dip_index_builder_write(writer->index, path, writer->n_bytes);
    free(path);
    if (finished) *finished = shard;
    return status;
}

dip_status dip_shard_writer_resume(dip_shard_writer *writer, const dip_finished_shard *shard)
{
    char *path = dip_shard_path_of(&writer->names, shard->number);
    if (!path) return no_memory();
    struct stat info;
    bool there = shard->number == writer->n_shards && stat(path, &info) == 0 &&
                 info.st_size == shard->n_bytes;
    dip_status status =
        there ? count_shard(writer, shard->n_samples)
              : dip_fail(DIP_CONFIG,
                         "%s is not there as it was finished, with %" PRId64 " bytes; it cannot be "
                         "gone on from (--overwrite starts anew)",
                         path, shard->n_bytes);
    if (status == DIP_OK) writer->n_samples += shard->n_samples;
    free(path);
    return status;
}

static void member_name(char name[MAX_NAME_BYTES], int64_t sample, const char *extension)
{
    snprintf(name, MAX_NAME_BYTES, "%0*" PRId64 ".%s", MIN_KEY_DIGITS, sample, extension);
}

static uint64_t sample_bytes(const dip_shard_writer *writer, const dip_shard_part *parts,
                             size_t n_parts)
{
    uint64_t n_bytes = 0;
    for (size_t i = 0; i < n_parts; i++) {
        char name[MAX_NAME_BYTES];
        member_name(name, writer->n_samples, parts[i].extension);
        n_bytes += member_bytes(name, parts[i].n_bytes);
    }
    return n_bytes;
}

bool dip_shard_writer_full(const dip_shard_writer *writer, const dip_shard_part *parts,
                           size_t n_parts)
{
    if (writer->n_in_shard == 0) return false;
    if (writer->n_in_shard >= writer->samples_per_shard) return true;
    if (writer->max_shard_bytes == 0) return false;
    uint64_t n_bytes = writer->n_bytes + sample_bytes(writer, parts, n_parts) + END_BYTES;
    return n_bytes > writer->max_shard_bytes;
}

dip_status dip_shard_writer_add(dip_shard_writer *writer, const dip_shard_part *parts,
                                size_t n_parts)
{
    for (size_t i = 0; i < n_parts; i++)
        if (strlen(parts[i].extension) > MAX_EXTENSION_BYTES)
            return dip_fail(DIP_CONFIG, "an extension of %zu bytes, at most %d",
                            strlen(parts[i].extension), MAX_EXTENSION_BYTES);
    if (dip_shard_writer_full(writer, parts, n_parts))
        DIP_TRY(dip_shard_writer_finish(writer, NULL));
    if (!writer->file) DIP_TRY(begin_shard(writer));
    for (size_t i = 0; i < n_parts; i++) {
        char name[MAX_NAME_BYTES];
        member_name(name, writer->n_samples, parts[i].extension);
        DIP_TRY(write_member(writer, name, parts[i].data, parts[i].n_bytes));
    }
    writer->n_samples++;
    writer->n_in_shard++;
    return DIP_OK;
}

static void free_writer(dip_shard_writer *writer)
{
    dip_writer_abort(writer->file);
    dip_index_builder_close(writer->index);
    cJSON_Delete(writer->sizes);
    dip_shard_names_free(&writer->names);
    free(writer->pattern);
    free(writer);
}

void dip_shard_writer_replace(dip_shard_writer *writer)
{
    writer->replace = true;
}

void dip_shard_writer_limit(dip_shard_writer *writer, int64_t max_shard_bytes)
{
    writer->max_shard_bytes = max_shard_bytes > 0 ? (uint64_t)max_shard_bytes : 0;
}

/* Is it the name of a shard that this writer finished? */
static bool is_ours(bool *ours, const dip_shard_writer *writer, const char *name, size_t name_bytes)
{
    /* Too many digits give the largest number, which is no shard's. */
    int64_t shard = strtoll(name + strlen(writer->names.prefix), NULL, 10) - writer->names.start;
    *ours = false;
    if (shard < 0 || shard >= writer->n_shards) return true;
    char *own = dip_shard_name(&writer->names, shard);
    *ours = own && strlen(own) == name_bytes && memcmp(own, name, name_bytes) == 0;
    free(own);
    return own != NULL;
}

/* Files of the pattern's form that this writer did not write: all, or the unfinished ones alone. */
static dip_status remove_leftovers(const dip_shard_writer *writer, bool finished_too)
{
    dip_string_list files;
    DIP_TRY(dip_shard_names_list(&files, writer->pattern, true));
    dip_status status = DIP_OK;
    for (size_t i = 0; i < files.n_items && status == DIP_OK; i++) {
        const char *name = strrchr(files.items[i], '/') + 1; /* joined, so there is one */
        size_t name_bytes = 0;
        dip_shard_names_match(&writer->names, &name_bytes, name, true);
        bool ours, unfinished = strstr(name + name_bytes, ".tmp-") != NULL;
        if (!unfinished && !finished_too) continue;
        if (!unfinished && !is_ours(&ours, writer, name, name_bytes))
            status = no_memory();
        else if ((unfinished || !ours) && unlink(files.items[i]) != 0)
            status = dip_fail(DIP_IO, "%s: cannot be removed: %s", files.items[i], strerror(errno));
    }
    dip_string_list_free(&files);
    return status;
}

dip_status dip_shard_writer_clean(dip_shard_writer *writer)
{
    return remove_leftovers(writer, false);
}

dip_status dip_shard_writer_complete(dip_shard_writer *writer)
{
    if (writer->file) DIP_TRY(dip_shard_writer_finish(writer, NULL));
    char *path = dip_path_join(writer->names.folder, "sizes.json");
    dip_status status = path ? dip_json_write(path, writer->sizes) : no_memory();
    free(path);
    DIP_TRY(status);
    return writer->replace ? remove_leftovers(writer, true) : DIP_OK;
}

dip_status dip_shard_writer_close(dip_shard_writer *writer)
{
    dip_status status = dip_shard_writer_complete(writer);
    if (status == DIP_OK)
        free_writer(writer);
    else
        dip_shard_writer_abort(writer);
    return status;
}

void dip_shard_writer_leave(dip_shard_writer *writer)
{
    if (writer) free_writer(writer);
}

void dip_shard_writer_abort(dip_shard_writer *writer)
{
    if (!writer) return;
    for (int64_t i = 0; i < writer->n_shards; i++) {
        char *path = dip_shard_path_of(&writer->names, i);
        if (path) unlink(path);
        if (path) remove_index(path);
        free(path);
    }
    free_writer(writer);
}

const char *dip_shard_writer_folder(const dip_shard_writer *writer)
{
    return writer->names.folder;
}

int64_t dip_shard_writer_samples(const dip_shard_writer *writer)
{
    return writer->n_samples;
}

/* The one being written counts. */
int64_t dip_shard_writer_shards(const dip_shard_writer *writer)
{
    return writer->n_shards + (writer->file != NULL);
}
