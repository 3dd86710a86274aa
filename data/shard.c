#include "data/shard.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "data/utf8.h"

/* Layout of a header block (POSIX ustar). */
enum {
    BLOCK_BYTES = 512,
    NAME_AT = 0,
    NAME_BYTES = 100,
    SIZE_AT = 124,
    NUMBER_BYTES = 12,
    CHECKSUM_AT = 148,
    CHECKSUM_BYTES = 8,
    TYPE_AT = 156,
    MAGIC_AT = 257,
    PREFIX_AT = 345,
    PREFIX_BYTES = 155
};

enum {
    MAX_NAME_BYTES = 64 * 1024,
    QUOTED_BYTES = 320 /* of a name in a message */
};

/* What extended headers say about a member. A PAX record is stronger than a GNU long name, and
 * either is stronger than the ustar field: a reader that mixes them up reads another archive. */
typedef struct overrides {
    const char *long_name, *path; /* into the mapping; NULL = not given */
    size_t long_name_bytes, path_bytes;
    bool has_size;
    uint64_t size;
} overrides;

struct dip_shard {
    char *path;
    dip_map map;
    size_t position;  /* of the next header */
    overrides global; /* PAX 'g' */
    bool skip_member; /* the next member's name is unknown: its extended header was broken */
    bool ended;
    bool unfinished;
    int64_t n_skipped;
    char name[MAX_NAME_BYTES + 1];
};

static uint64_t padded(uint64_t n_bytes)
{
    return (n_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
}

static bool all_zero(const uint8_t *data, size_t n_bytes)
{
    return n_bytes == 0 || (data[0] == 0 && memcmp(data, data + 1, n_bytes - 1) == 0);
}

/* Octal digits between optional blanks and a NUL or blank; an empty field is 0, as in other
 * readers. */
static bool parse_octal(uint64_t *value, const uint8_t *field, size_t n)
{
    size_t i = 0;
    while (i < n && field[i] == ' ') i++;
    uint64_t v = 0;
    for (; i < n && field[i] >= '0' && field[i] <= '7'; i++) {
        if (v >> 60) return false;
        v = v * 8 + (uint64_t)(field[i] - '0');
    }
    for (; i < n && field[i] != '\0'; i++)
        if (field[i] != ' ') return false;
    *value = v;
    return true;
}

/* Octal, or base-256 (first bit set; the second is the sign). NULL, or what is wrong. */
static const char *parse_number(uint64_t *value, const uint8_t *field)
{
    if ((field[0] & 0x80) == 0)
        return parse_octal(value, field, NUMBER_BYTES) ? NULL : "is not an octal number";
    if (field[0] & 0x40) return "is a negative base-256 number";
    uint64_t v = field[0] & 0x3f;
    for (size_t i = 1; i < NUMBER_BYTES; i++) {
        if (v >> 55) return "is a base-256 number over 2^63";
        v = v << 8 | field[i];
    }
    *value = v;
    return NULL;
}

/* The checksum counts its own field as blanks; historic writers summed signed bytes. */
static bool checksum_matches(const uint8_t *header)
{
    uint64_t stored;
    if (!parse_octal(&stored, header + CHECKSUM_AT, CHECKSUM_BYTES)) return false;
    uint32_t sum = 0, n_high = 0;
    for (size_t i = 0; i < BLOCK_BYTES; i++) {
        sum += header[i];
        n_high += header[i] >> 7;
    }
    for (size_t i = CHECKSUM_AT; i < CHECKSUM_AT + CHECKSUM_BYTES; i++) {
        sum -= header[i];
        n_high -= header[i] >> 7;
    }
    sum += CHECKSUM_BYTES * ' ';
    return stored == sum || (int64_t)stored == (int64_t)sum - 256 * (int64_t)n_high;
}

static bool has_magic(const uint8_t *header)
{
    return memcmp(header + MAGIC_AT, "ustar", 5) == 0;
}

/* Go to the first block at or after `from` that can only be a header; else to the end. */
static void resynchronise(dip_shard *shard, size_t from)
{
    size_t at = (size_t)padded(from);
    while (at < shard->map.n_bytes && shard->map.n_bytes - at >= BLOCK_BYTES) {
        const uint8_t *header = shard->map.data + at;
        if (has_magic(header) && checksum_matches(header)) {
            shard->position = at;
            return;
        }
        at += BLOCK_BYTES;
    }
    shard->position = shard->map.n_bytes;
    shard->ended = true;
}

DIP_PRINTF(3, 4)
static dip_status damaged(const dip_shard *shard, size_t offset, const char *format, ...)
{
    char what[QUOTED_BYTES + 256];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return dip_fail(DIP_FORMAT, "%s: at byte %zu: %s", shard->path, offset, what);
}

/* Opening: a file that is plainly something else is refused by what it is. */

static const char *looks_like(const uint8_t *data, size_t n_bytes)
{
    static const struct {
        const char *start;
        size_t n;
        const char *what;
    } kinds[] = {
        {"\x1f\x8b", 2, "gzip-compressed (unpack it first: gzip -d)"},
        {"BZh", 3, "bzip2-compressed (unpack it first: bzip2 -d)"},
        {"\xfd"
         "7zXZ",
         5, "xz-compressed (unpack it first: xz -d)"},
        {"\x28\xb5\x2f\xfd", 4, "zstd-compressed (unpack it first: zstd -d)"},
        {"PK\x03\x04", 4, "a zip archive"},
        {"PAR1", 4, "a Parquet table"},
        {"version https://git-lfs", 23,
         "a Git LFS pointer (the file was not fetched: git lfs pull)"},
        {"\xff\xd8\xff", 3, "a JPEG image"},
        {"\x89PNG", 4, "a PNG image"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (n_bytes >= kinds[i].n && memcmp(data, kinds[i].start, kinds[i].n) == 0)
            return kinds[i].what;
    while (n_bytes > 0 && (*data == ' ' || (*data >= '\t' && *data <= '\r'))) {
        data++;
        n_bytes--;
    }
    static const char *const html[] = {"<!doctype html", "<html", "<?xml", "<head"};
    for (size_t i = 0; i < sizeof html / sizeof html[0]; i++) {
        size_t n = strlen(html[i]);
        if (n_bytes >= n && strncasecmp((const char *)data, html[i], n) == 0)
            return "a web page (the download failed)";
    }
    return NULL;
}

dip_status dip_shard_open(dip_shard **out, const char *path)
{
    *out = NULL;
    dip_status status = DIP_OK;
    dip_shard *shard = calloc(1, sizeof *shard);
    if (!shard || !(shard->path = strdup(path))) {
        status = dip_fail(DIP_NOMEM, "%s: no memory to open it", path);
        goto fail;
    }
    DIP_TRY_GOTO(dip_file_map(&shard->map, path));
    const uint8_t *data = shard->map.data;
    size_t n_bytes = shard->map.n_bytes;
    if (n_bytes < BLOCK_BYTES || !checksum_matches(data)) {
        const char *what = looks_like(data, n_bytes);
        if (what) {
            status = dip_fail(DIP_FORMAT, "%s: not a tar file: it looks like %s", path, what);
            goto fail;
        }
    }
    *out = shard;
    return DIP_OK;
fail:
    dip_shard_close(shard);
    return status;
}

void dip_shard_close(dip_shard *shard)
{
    if (!shard) return;
    dip_file_unmap(&shard->map);
    free(shard->path);
    free(shard);
}

const char *dip_shard_path(const dip_shard *shard)
{
    return shard->path;
}
dip_map dip_shard_map(const dip_shard *shard)
{
    return shard->map;
}
bool dip_shard_unfinished(const dip_shard *shard)
{
    return shard->unfinished;
}
int64_t dip_shard_skipped(const dip_shard *shard)
{
    return shard->n_skipped;
}

/* Extended headers. */

/* One PAX body: records "LENGTH KEY=VALUE\n", LENGTH counting all of it. NULL, or what is
 * wrong; *result is then untouched. */
static const char *parse_pax(overrides *result, const char *body, size_t n_bytes)
{
    overrides fresh = *result, *into = &fresh;
    while (n_bytes > 0) {
        size_t length = 0, digits = 0;
        while (digits < n_bytes && body[digits] >= '0' && body[digits] <= '9') {
            if (digits == 9) return "a PAX record of over a billion bytes";
            length = length * 10 + (size_t)(body[digits++] - '0');
        }
        if (digits == 0 || digits >= n_bytes || body[digits] != ' ')
            return "a PAX record without a length";
        if (length > n_bytes || length < digits + 3 || body[length - 1] != '\n')
            return "a PAX record whose length is wrong";
        const char *key = body + digits + 1;
        const char *value = memchr(key, '=', length - digits - 2);
        if (!value) return "a PAX record without '='";
        size_t key_bytes = (size_t)(value++ - key);
        size_t value_bytes = (size_t)(body + length - 1 - value);
        if (key_bytes == 4 && memcmp(key, "path", 4) == 0) {
            into->path = value_bytes ? value : NULL; /* an empty value withdraws the record */
            into->path_bytes = value_bytes;
        } else if (key_bytes == 4 && memcmp(key, "size", 4) == 0) {
            into->has_size = value_bytes > 0;
            into->size = 0;
            for (size_t i = 0; i < value_bytes; i++) {
                if (value[i] < '0' || value[i] > '9' || into->size > (UINT64_MAX >> 1) / 10 - 1)
                    return "a PAX size that is not a number below 2^63";
                into->size = into->size * 10 + (uint64_t)(value[i] - '0');
            }
        } else if (key_bytes > 11 && memcmp(key, "GNU.sparse.", 11) == 0) {
            return "a sparse file (only whole files can be samples)";
        }
        body += length;
        n_bytes -= length;
    }
    *result = fresh;
    return NULL;
}

/* Names. */

static size_t field_bytes(const uint8_t *field, size_t n)
{
    const uint8_t *end = memchr(field, 0, n);
    return end ? (size_t)(end - field) : n;
}

/* Compose the member's name into shard->name. NULL, or what is wrong. */
static const char *take_name(dip_shard *shard, const overrides *local, const uint8_t *header)
{
    const overrides *over = local->path || !shard->global.path ? local : &shard->global;
    const char *given = over->path ? over->path : over->long_name;
    size_t n = over->path ? over->path_bytes : over->long_name_bytes;
    if (given) {
        if (n > MAX_NAME_BYTES) return "a name of over 65536 bytes";
        memcpy(shard->name, given, n);
        shard->name[n] = '\0';
        if (strlen(shard->name) != n) return "a NUL byte inside a name";
        return NULL;
    }
    size_t at = 0;
    /* Only POSIX ustar has a prefix; old GNU headers keep times in that place. */
    if (memcmp(header + MAGIC_AT, "ustar\0", 6) == 0 && header[PREFIX_AT] != 0) {
        at = field_bytes(header + PREFIX_AT, PREFIX_BYTES);
        memcpy(shard->name, header + PREFIX_AT, at);
        shard->name[at++] = '/';
    }
    n = field_bytes(header + NAME_AT, NAME_BYTES);
    memcpy(shard->name + at, header + NAME_AT, n);
    shard->name[at + n] = '\0';
    return NULL;
}

/* Reading. */

typedef enum member_kind {
    KIND_FILE,
    KIND_LONG_NAME,
    KIND_PAX,
    KIND_PAX_GLOBAL,
    KIND_SPARSE,
    KIND_WITHOUT_DATA, /* links, devices, folders: the size field means nothing */
    KIND_OTHER         /* has data, holds no file */
} member_kind;

static member_kind kind_of(uint8_t type)
{
    switch (type) {
    case '0':
    case '\0':
    case '7':
        return KIND_FILE;
    case 'L':
        return KIND_LONG_NAME;
    case 'x':
    case 'X':
        return KIND_PAX;
    case 'g':
        return KIND_PAX_GLOBAL;
    case 'S':
        return KIND_SPARSE;
    case '1':
    case '2':
    case '3':
    case '4':
    case '5':
    case '6':
        return KIND_WITHOUT_DATA;
    default:
        return KIND_OTHER;
    }
}

/* No header here: the end, or a fault. */
static dip_status read_zero_block(dip_shard *shard)
{
    size_t at = shard->position;
    if (all_zero(shard->map.data + at, shard->map.n_bytes - at)) {
        shard->ended = true;
        return DIP_END;
    }
    resynchronise(shard, at + BLOCK_BYTES);
    return damaged(shard, at, "an end-of-archive block, but more data after it");
}

dip_status dip_shard_next(dip_shard *shard, dip_member *member)
{
    const uint8_t *data = shard->map.data;
    const size_t file_bytes = shard->map.n_bytes;
    overrides over = {0};

    while (!shard->ended) {
        const size_t at = shard->position;
        if (file_bytes == 0) {
            shard->ended = true;
            return damaged(shard, 0, "the file is empty");
        }
        if (file_bytes - at < BLOCK_BYTES && all_zero(data + at, file_bytes - at)) {
            shard->ended = shard->unfinished = true;
            break;
        }
        if (file_bytes - at < BLOCK_BYTES) {
            shard->ended = true;
            return damaged(shard, at, "the file ends inside a header (%zu of 512 bytes)",
                           file_bytes - at);
        }
        const uint8_t *header = data + at;
        if (header[0] == 0 && all_zero(header, BLOCK_BYTES)) return read_zero_block(shard);
        if (!checksum_matches(header)) {
            resynchronise(shard, at + BLOCK_BYTES);
            return damaged(shard, at, "a header whose checksum is wrong");
        }

        member_kind kind = kind_of(header[TYPE_AT]);
        uint64_t size = 0;
        const char *wrong = NULL;
        if (kind == KIND_FILE && (over.has_size || shard->global.has_size))
            size = over.has_size ? over.size : shard->global.size;
        else if (kind != KIND_WITHOUT_DATA)
            wrong = parse_number(&size, header + SIZE_AT);
        char quoted[QUOTED_BYTES];
        if (wrong) {
            const char *name_wrong = take_name(shard, &over, header);
            dip_text_quote(quoted, sizeof quoted, name_wrong ? name_wrong : shard->name);
            resynchronise(shard, at + BLOCK_BYTES);
            return damaged(shard, at, "the size of member '%s' %s", quoted, wrong);
        }
        const size_t data_at = at + BLOCK_BYTES;
        if (size > file_bytes - data_at) {
            const char *name_wrong = take_name(shard, &over, header);
            dip_text_quote(quoted, sizeof quoted, name_wrong ? name_wrong : shard->name);
            shard->skip_member = kind == KIND_LONG_NAME || kind == KIND_PAX;
            resynchronise(shard, data_at);
            return damaged(shard, at, "member '%s' has %llu bytes, but the file has %zu left",
                           quoted, (unsigned long long)size, file_bytes - data_at);
        }
        uint64_t next = data_at + padded(size);
        shard->position = next < file_bytes ? (size_t)next : file_bytes;
        const char *body = (const char *)data + data_at;

        switch (kind) {
        case KIND_LONG_NAME:
            over.long_name = body;
            over.long_name_bytes = field_bytes(data + data_at, (size_t)size);
            if (over.long_name_bytes == 0) wrong = "an empty long name";
            break;
        case KIND_PAX:
            wrong = parse_pax(&over, body, (size_t)size);
            break;
        case KIND_PAX_GLOBAL:
            wrong = parse_pax(&shard->global, body, (size_t)size);
            break;
        case KIND_SPARSE:
            wrong = take_name(shard, &over, header);
            dip_text_quote(quoted, sizeof quoted, wrong ? wrong : shard->name);
            return damaged(shard, at, "member '%s' is a sparse file", quoted);
        case KIND_WITHOUT_DATA:
        case KIND_OTHER:
            if (header[TYPE_AT] == 'K') break; /* a link's target: says nothing about names */
            shard->n_skipped += header[TYPE_AT] != '5';
            over = (overrides){0};
            shard->skip_member = false;
            break;
        case KIND_FILE: {
            bool skip = shard->skip_member;
            shard->skip_member = false;
            if (!skip) wrong = take_name(shard, &over, header);
            if (wrong) return damaged(shard, at, "%s", wrong);
            over = (overrides){0};
            size_t n = skip ? 0 : strlen(shard->name);
            if (skip || (n > 0 && shard->name[n - 1] == '/')) break; /* V7's way of a folder */
            *member = (dip_member){.name = shard->name,
                                   .data = data + data_at,
                                   .n_bytes = (size_t)size,
                                   .offset = data_at};
            return DIP_OK;
        }
        }
        if (wrong) {
            shard->skip_member = true;
            return damaged(shard, at, "%s", wrong);
        }
    }
    return DIP_END;
}

int dip_member_split(const char *name, size_t *key_bytes, const char **extension)
{
    const char *slash = strrchr(name, '/');
    const char *base = slash ? slash + 1 : name;
    const char *dot = strchr(base, '.');
    if (!dot || dot == base || dot[1] == '\0') return 0;
    if (name[0] == '_' && name[1] == '_') { /* __name__ or __name__/...: WebDataset's own */
        size_t first = strcspn(name, "/");
        if (first >= 4 && name[first - 1] == '_' && name[first - 2] == '_') return 0;
    }
    *key_bytes = (size_t)(dot - name);
    *extension = dot + 1;
    return 1;
}
