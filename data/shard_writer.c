#include "data/shard_writer.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "core/json.h"
#include "data/pattern.h"

enum {
    BLOCK_BYTES = 512,
    NAME_BYTES = 100,
    MAX_WIDTH = 18,
    MIN_KEY_DIGITS = 9,
    MAX_EXTENSION_BYTES = 4096
};

static const uint64_t max_ustar_bytes = 077777777777; /* 11 octal digits: 8 GiB - 1 */

/* A pattern taken apart: FOLDER/PREFIX{START..}SUFFIX. */
typedef struct shard_names {
    char *folder, *prefix, *suffix;
    int width;
    int64_t start;
} shard_names;

struct dip_shard_writer {
    char *pattern;
    shard_names names;
    bool replace;
    int64_t samples_per_shard;
    int64_t n_samples, n_shards;
    int64_t n_in_shard; /* samples of the shard being written */
    dip_writer *file;   /* NULL between shards */
    cJSON *sizes;       /* {"00000.tar": n} of the finished shards */
};

static dip_status no_memory(void)
{
    return dip_fail(DIP_NOMEM, "no memory to write shards");
}

/* Patterns. */

static void free_names(shard_names *names)
{
    free(names->folder);
    free(names->prefix);
    free(names->suffix);
}

static dip_status parse_pattern(shard_names *names, const char *pattern)
{
    *names = (shard_names){0};
    const char *slash = strrchr(pattern, '/');
    const char *base = slash ? slash + 1 : pattern;
    const char *open = strchr(base, '{');
    const char *digits = open ? open + 1 : base;
    size_t width = strspn(digits, "0123456789");
    const char *after = digits + width;
    if (!open || width == 0 || width > MAX_WIDTH || strncmp(after, "..}", 3) != 0 ||
        after[3] == '\0' || strpbrk(after + 3, "{}") ||
        memchr(pattern, '{', (size_t)(base - pattern)))
        return dip_fail(DIP_CONFIG,
                        "output pattern '%s' must end in a file name with one open range, "
                        "as in 'OUT/{00000..}.tar'",
                        pattern);
    names->width = (int)width;
    names->start = strtoll(digits, NULL, 10);
    names->folder = slash == pattern ? strdup("/")
                    : slash          ? strndup(pattern, (size_t)(slash - pattern))
                                     : strdup(".");
    names->prefix = strndup(base, (size_t)(open - base));
    names->suffix = strdup(after + 3);
    if (names->folder && names->prefix && names->suffix) return DIP_OK;
    free_names(names);
    *names = (shard_names){0};
    return no_memory();
}

static char *shard_name(const shard_names *names, int64_t shard)
{
    return dip_format("%s%0*" PRId64 "%s", names->prefix, names->width, names->start + shard,
                      names->suffix);
}

static char *shard_path(const shard_names *names, int64_t shard)
{
    char *name = shard_name(names, shard);
    char *path = name ? dip_path_join(names->folder, name) : NULL;
    free(name);
    return path;
}

/* `unfinished`: also of the form that dip_writer gives a file until it is complete. */
static bool has_form(const shard_names *names, const char *name, bool unfinished)
{
    size_t prefix = strlen(names->prefix);
    if (strncmp(name, names->prefix, prefix) != 0) return false;
    size_t digits = strspn(name + prefix, "0123456789");
    if (digits < (size_t)names->width) return false;
    const char *after = name + prefix + digits;
    size_t suffix = strlen(names->suffix);
    if (strncmp(after, names->suffix, suffix) != 0) return false;
    after += suffix;
    return after[0] == '\0' || (unfinished && strncmp(after, ".tmp-", 5) == 0);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static dip_status list_files(dip_string_list *paths, const char *pattern, bool unfinished)
{
    *paths = (dip_string_list){0};
    shard_names names;
    DIP_TRY(parse_pattern(&names, pattern));
    dip_status status = DIP_OK;
    DIR *folder = opendir(names.folder);
    if (!folder) {
        if (errno != ENOENT)
            status = dip_fail(DIP_IO, "%s: cannot be listed: %s", names.folder, strerror(errno));
        free_names(&names);
        return status;
    }
    const struct dirent *item;
    while ((item = readdir(folder))) {
        if (!has_form(&names, item->d_name, unfinished)) continue;
        char **items = realloc(paths->items, (paths->n_items + 1) * sizeof *items);
        if (items) paths->items = items;
        char *path = items ? dip_path_join(names.folder, item->d_name) : NULL;
        if (!path) {
            status = no_memory();
            break;
        }
        items[paths->n_items++] = path;
    }
    closedir(folder);
    free_names(&names);
    if (status != DIP_OK) dip_string_list_free(paths);
    if (paths->n_items > 1) qsort(paths->items, paths->n_items, sizeof *paths->items, by_name);
    return status;
}

dip_status dip_shard_writer_existing(dip_string_list *paths, const char *pattern)
{
    return list_files(paths, pattern, false);
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

static dip_status write_padded(dip_writer *file, const void *data, size_t n_bytes)
{
    static const uint8_t zeros[BLOCK_BYTES];
    if (n_bytes > 0) DIP_TRY(dip_writer_write(file, data, n_bytes));
    size_t tail = n_bytes % BLOCK_BYTES;
    return tail ? dip_writer_write(file, zeros, BLOCK_BYTES - tail) : DIP_OK;
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

static dip_status write_member(dip_writer *file, const char *name, const void *data, size_t n_bytes)
{
    uint8_t header[BLOCK_BYTES];
    bool long_name = strlen(name) > NAME_BYTES, large = n_bytes > max_ustar_bytes;
    if (long_name || large) {
        char records[MAX_EXTENSION_BYTES + 256], size[24];
        size_t n = 0;
        if (long_name) n += pax_record(records, sizeof records, "path", name);
        snprintf(size, sizeof size, "%zu", n_bytes);
        if (large) n += pax_record(records + n, sizeof records - n, "size", size);
        make_header(header, "PaxHeader", n, 'x');
        DIP_TRY(dip_writer_write(file, header, sizeof header));
        DIP_TRY(write_padded(file, records, n));
    }
    make_header(header, name, n_bytes, '0');
    DIP_TRY(dip_writer_write(file, header, sizeof header));
    return write_padded(file, data, n_bytes);
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
    DIP_TRY_GOTO(parse_pattern(&writer->names, pattern));
    writer->pattern = strdup(pattern);
    writer->sizes = cJSON_CreateObject();
    if (!writer->pattern || !writer->sizes) {
        status = no_memory();
        goto fail;
    }
    DIP_TRY_GOTO(dip_make_dirs(writer->names.folder));
    *out = writer;
    return DIP_OK;
fail:
    dip_shard_writer_abort(writer);
    return status;
}

static dip_status begin_shard(dip_shard_writer *writer)
{
    char *path = shard_path(&writer->names, writer->n_shards);
    if (!path) return no_memory();
    dip_status status = dip_writer_open(&writer->file, path);
    if (status != DIP_OK) writer->file = NULL;
    free(path);
    return status;
}

static dip_status finish_shard(dip_shard_writer *writer)
{
    static const uint8_t end[2 * BLOCK_BYTES];
    DIP_TRY(dip_writer_write(writer->file, end, sizeof end));
    dip_status status = dip_writer_commit(writer->file);
    writer->file = NULL;
    DIP_TRY(status);
    char *name = shard_name(&writer->names, writer->n_shards);
    writer->n_shards++;
    bool added = name && cJSON_AddNumberToObject(writer->sizes, name, (double)writer->n_in_shard);
    free(name);
    writer->n_in_shard = 0;
    return added ? DIP_OK : no_memory();
}

dip_status dip_shard_writer_add(dip_shard_writer *writer, const dip_shard_part *parts,
                                size_t n_parts)
{
    if (!writer->file) DIP_TRY(begin_shard(writer));
    for (size_t i = 0; i < n_parts; i++) {
        if (strlen(parts[i].extension) > MAX_EXTENSION_BYTES)
            return dip_fail(DIP_CONFIG, "an extension of %zu bytes, at most %d",
                            strlen(parts[i].extension), MAX_EXTENSION_BYTES);
        char name[MAX_EXTENSION_BYTES + 32];
        snprintf(name, sizeof name, "%0*" PRId64 ".%s", MIN_KEY_DIGITS, writer->n_samples,
                 parts[i].extension);
        DIP_TRY(write_member(writer->file, name, parts[i].data, parts[i].n_bytes));
    }
    writer->n_samples++;
    writer->n_in_shard++;
    return writer->n_in_shard == writer->samples_per_shard ? finish_shard(writer) : DIP_OK;
}

static void free_writer(dip_shard_writer *writer)
{
    dip_writer_abort(writer->file);
    cJSON_Delete(writer->sizes);
    free_names(&writer->names);
    free(writer->pattern);
    free(writer);
}

void dip_shard_writer_replace(dip_shard_writer *writer)
{
    writer->replace = true;
}

static dip_status remove_leftovers(const dip_shard_writer *writer)
{
    dip_string_list files;
    DIP_TRY(list_files(&files, writer->pattern, true));
    dip_status status = DIP_OK;
    for (size_t i = 0; i < files.n_items && status == DIP_OK; i++) {
        const char *name = strrchr(files.items[i], '/') + 1; /* joined, so there is one */
        if (cJSON_GetObjectItemCaseSensitive(writer->sizes, name)) continue;
        if (unlink(files.items[i]) != 0)
            status = dip_fail(DIP_IO, "%s: cannot be removed: %s", files.items[i], strerror(errno));
    }
    dip_string_list_free(&files);
    return status;
}

dip_status dip_shard_writer_close(dip_shard_writer *writer)
{
    dip_status status = DIP_OK;
    if (writer->file) status = finish_shard(writer);
    if (status == DIP_OK) {
        char *path = dip_path_join(writer->names.folder, "sizes.json");
        status = path ? dip_json_write(path, writer->sizes) : no_memory();
        free(path);
    }
    if (status == DIP_OK && writer->replace) status = remove_leftovers(writer);
    if (status == DIP_OK)
        free_writer(writer);
    else
        dip_shard_writer_abort(writer);
    return status;
}

void dip_shard_writer_abort(dip_shard_writer *writer)
{
    if (!writer) return;
    for (int64_t i = 0; i < writer->n_shards; i++) {
        char *path = shard_path(&writer->names, i);
        if (path) unlink(path);
        free(path);
    }
    free_writer(writer);
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
