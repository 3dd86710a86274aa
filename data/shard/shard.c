#include "data/shard/shard.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/shard/shard_source.h"
#include "data/shard/tar.h"
#include "core/utf8.h"

enum {
    MAX_NAME_BYTES = 64 * 1024,
    MAX_EXTENDED_BYTES = 1024 * 1024, /* of an extended header's data */
    QUOTED_BYTES = 320,               /* of a name in a message */
    DAMAGE_BYTES = QUOTED_BYTES + 256
};

/* A name or an extended header's data, as long as it may come. */
typedef struct text {
    char *data; /* NULL until it is first used */
    size_t n_bytes, capacity;
} text;

/* What extended headers say about a member. A PAX record is stronger than a GNU long name, and
 * either is stronger than the ustar field: a reader that mixes them up reads another archive. */
typedef struct overrides {
    bool has_long_name, has_path, has_size;
    uint64_t size;
    text long_name, path;
} overrides;

static void forget_overrides(overrides *over)
{
    over->has_long_name = over->has_path = over->has_size = false;
}

struct dip_shard {
    uint64_t position;       /* of the next header */
    overrides global, local; /* PAX 'g'; what precedes one member */
    bool skip_member;        /* the next member's name is unknown: its extended header was broken */
    bool ended;
    bool unfinished;
    int64_t n_skipped;
    text name, body;
    uint64_t damage_at;
    char damage[DAMAGE_BYTES];
    dip_shard_source file; /* last, since its window need not be cleared */
};

static dip_status no_memory(const dip_shard *shard)
{
    return dip_fail(DIP_NOMEM, "%s: no memory to read it", shard->file.path);
}

static dip_status make_room(const dip_shard *shard, text *to, size_t n_bytes)
{
    if (n_bytes <= to->capacity) return DIP_OK;
    size_t capacity = n_bytes < 512 ? 512 : n_bytes;
    char *bigger = realloc(to->data, capacity);
    if (!bigger) return no_memory(shard);
    to->data = bigger;
    to->capacity = capacity;
    return DIP_OK;
}

static dip_status set_text(const dip_shard *shard, text *to, const char *bytes, size_t n_bytes)
{
    DIP_TRY(make_room(shard, to, n_bytes + 1));
    memcpy(to->data, bytes, n_bytes);
    to->data[n_bytes] = '\0';
    to->n_bytes = n_bytes;
    return DIP_OK;
}

DIP_PRINTF(3, 4)
static dip_status damaged(dip_shard *shard, uint64_t offset, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(shard->damage, sizeof shard->damage, format, args);
    va_end(args);
    shard->damage_at = offset;
    return dip_fail(DIP_FORMAT, "%s: at byte %llu: %s", shard->file.path,
                    (unsigned long long)offset, shard->damage);
}

static dip_status became_shorter(dip_shard *shard, uint64_t at)
{
    shard->ended = true;
    return damaged(shard, at, "the file ended while it was read; it had %llu bytes",
                   (unsigned long long)shard->file.n_bytes);
}

/* Bring a block (or less) at `at` into the window. If the file is shorter now, it ends here. */
static dip_status look(dip_shard *shard, const uint8_t **bytes, uint64_t at, size_t n)
{
    uint64_t ends_at;
    dip_status status = dip_shard_source_look(&shard->file, bytes, &ends_at, at, n);
    return status == DIP_END ? became_shorter(shard, ends_at) : status;
}

static size_t up_to_block(const dip_shard *shard, uint64_t at)
{
    uint64_t left = shard->file.n_bytes - at;
    return left < DIP_TAR_BLOCK_BYTES ? (size_t)left : DIP_TAR_BLOCK_BYTES;
}

static bool all_zero(const uint8_t *data, size_t n_bytes)
{
    return n_bytes == 0 || (data[0] == 0 && memcmp(data, data + 1, n_bytes - 1) == 0);
}

/* Go to the first block at or after `from` that can only be a header; else to the end. */
static dip_status resynchronise(dip_shard *shard, uint64_t from)
{
    const uint8_t *block = shard->file.window;
    uint64_t at = dip_tar_padded(from);
    for (; at < shard->file.n_bytes && shard->file.n_bytes - at >= DIP_TAR_BLOCK_BYTES;
         at += DIP_TAR_BLOCK_BYTES) {
        dip_status status = look(shard, &block, at, DIP_TAR_BLOCK_BYTES);
        if (status == DIP_FORMAT) break; /* the file has become shorter: this is its end */
        DIP_TRY(status);
        if (!dip_tar_has_magic(block) || !dip_tar_checksum_matches(block)) continue;
        shard->position = at;
        return DIP_OK;
    }
    shard->position = shard->file.n_bytes;
    shard->ended = true;
    return DIP_OK;
}

/* Opening. */

dip_status dip_shard_open_unread(dip_shard **out, const char *path)
{
    *out = NULL;
    dip_shard *shard = malloc(sizeof *shard);
    if (!shard) return dip_fail(DIP_NOMEM, "%s: no memory to open it", path);
    memset(shard, 0, offsetof(dip_shard, file));
    dip_status status = dip_shard_source_open(&shard->file, path);
    if (status == DIP_OK)
        *out = shard;
    else
        dip_shard_close(shard);
    return status;
}

dip_status dip_shard_check(dip_shard *shard)
{
    return dip_shard_source_check(&shard->file);
}

dip_status dip_shard_open(dip_shard **out, const char *path)
{
    DIP_TRY(dip_shard_open_unread(out, path));
    dip_status status = dip_shard_check(*out);
    if (status == DIP_OK) return DIP_OK;
    dip_shard_close(*out);
    *out = NULL;
    return status;
}

void dip_shard_rewind(dip_shard *shard)
{
    forget_overrides(&shard->local);
    forget_overrides(&shard->global);
    shard->skip_member = shard->ended = shard->unfinished = false;
    shard->n_skipped = 0;
    shard->position = 0;
}

void dip_shard_close(dip_shard *shard)
{
    if (!shard) return;
    dip_shard_source_close(&shard->file);
    free(shard->name.data);
    free(shard->body.data);
    free(shard->global.path.data);
    free(shard->local.path.data);
    free(shard->local.long_name.data);
    free(shard);
}

dip_status dip_shard_read(const dip_shard *shard, void *out, uint64_t offset, size_t n_bytes)
{
    return dip_shard_source_read(&shard->file, out, offset, n_bytes);
}

const char *dip_shard_path(const dip_shard *shard)
{
    return shard->file.path;
}
uint64_t dip_shard_bytes(const dip_shard *shard)
{
    return shard->file.n_bytes;
}
int64_t dip_shard_changed_ns(const dip_shard *shard)
{
    return shard->file.changed_ns;
}
uint64_t dip_shard_damage_at(const dip_shard *shard)
{
    return shard->damage_at;
}
const char *dip_shard_damage(const dip_shard *shard)
{
    return shard->damage;
}
bool dip_shard_unfinished(const dip_shard *shard)
{
    return shard->unfinished;
}
int64_t dip_shard_skipped(const dip_shard *shard)
{
    return shard->n_skipped;
}

/* Extended headers and names. */

/* The data of an extended header, in shard->body. */
static dip_status read_body(dip_shard *shard, const char **wrong, uint64_t at, uint64_t n_bytes)
{
    if (n_bytes > MAX_EXTENDED_BYTES) {
        *wrong = "an extended header of over 1048576 bytes";
        return DIP_OK;
    }
    DIP_TRY(make_room(shard, &shard->body, (size_t)n_bytes + 1));
    shard->body.n_bytes = (size_t)n_bytes;
    dip_status status = dip_shard_read(shard, shard->body.data, at, (size_t)n_bytes);
    return status == DIP_FORMAT ? became_shorter(shard, at) : status;
}

static dip_status take_long_name(dip_shard *shard, const char **wrong, uint64_t at,
                                 uint64_t n_bytes)
{
    DIP_TRY(read_body(shard, wrong, at, n_bytes));
    if (*wrong) return DIP_OK;
    size_t n = strnlen(shard->body.data, shard->body.n_bytes);
    if (n == 0) *wrong = "an empty long name";
    if (n > MAX_NAME_BYTES) *wrong = "a name of over 65536 bytes";
    if (*wrong) return DIP_OK;
    shard->local.has_long_name = true;
    return set_text(shard, &shard->local.long_name, shard->body.data, n);
}

/* What the records say goes into `into`; nothing does if anything is wrong. */
static dip_status take_pax(dip_shard *shard, overrides *into, const char **wrong, uint64_t at,
                           uint64_t n_bytes)
{
    DIP_TRY(read_body(shard, wrong, at, n_bytes));
    if (*wrong) return DIP_OK;
    dip_pax pax;
    *wrong = dip_pax_parse(&pax, shard->body.data, shard->body.n_bytes);
    if (!*wrong && pax.path_bytes > MAX_NAME_BYTES) *wrong = "a name of over 65536 bytes";
    if (!*wrong && pax.path_bytes > 0 && memchr(pax.path, 0, pax.path_bytes))
        *wrong = "a NUL byte inside a name";
    if (*wrong) return DIP_OK;
    if (pax.names_size) {
        into->has_size = pax.has_size;
        into->size = pax.size;
    }
    if (!pax.names_path) return DIP_OK;
    into->has_path = pax.path_bytes > 0;
    return into->has_path ? set_text(shard, &into->path, pax.path, pax.path_bytes) : DIP_OK;
}

/* Compose the member's name in shard->name. */
static dip_status take_name(dip_shard *shard, const uint8_t *header)
{
    const overrides *over =
        shard->local.has_path || !shard->global.has_path ? &shard->local : &shard->global;
    const text *given = over->has_path ? &over->path : &over->long_name;
    if (over->has_path || over->has_long_name)
        return set_text(shard, &shard->name, given->data, given->n_bytes);
    char name[DIP_TAR_FULL_NAME_BYTES];
    dip_tar_name(name, header);
    return set_text(shard, &shard->name, name, strlen(name));
}

/* Reading. */

/* No header here: the end, or a fault. */
static dip_status read_zero_block(dip_shard *shard)
{
    const uint64_t first = shard->position;
    const uint8_t *block;
    for (uint64_t at = first; at < shard->file.n_bytes; at += DIP_TAR_BLOCK_BYTES) {
        size_t n = up_to_block(shard, at);
        DIP_TRY(look(shard, &block, at, n));
        if (all_zero(block, n)) continue;
        DIP_TRY(resynchronise(shard, at));
        return damaged(shard, first, "an end-of-archive block, but more data after it");
    }
    shard->ended = true;
    return DIP_END;
}

/* DIP_END also where no whole header is left. */
static dip_status read_header(dip_shard *shard, const uint8_t **header)
{
    const uint64_t at = shard->position;
    if (shard->file.n_bytes == 0) {
        shard->ended = true;
        return damaged(shard, 0, "the file is empty");
    }
    const size_t n = up_to_block(shard, at);
    DIP_TRY(look(shard, header, at, n));
    if (n < DIP_TAR_BLOCK_BYTES) {
        shard->ended = true;
        shard->unfinished = all_zero(*header, n);
        if (shard->unfinished) return DIP_END;
        return damaged(shard, at, "the file ends inside a header (%zu of 512 bytes)", n);
    }
    if (all_zero(*header, n)) return read_zero_block(shard);
    if (dip_tar_checksum_matches(*header)) return DIP_OK;
    DIP_TRY(resynchronise(shard, at + DIP_TAR_BLOCK_BYTES));
    return damaged(shard, at, "a header whose checksum is wrong");
}

/* The bytes of data that follow the header. DIP_FORMAT if that cannot be. */
static dip_status read_size(dip_shard *shard, uint64_t *size, const uint8_t *header,
                            dip_tar_kind kind)
{
    const uint64_t at = shard->position, data_at = at + DIP_TAR_BLOCK_BYTES;
    const char *wrong = NULL;
    *size = 0;
    if (kind == DIP_TAR_FILE && (shard->local.has_size || shard->global.has_size))
        *size = shard->local.has_size ? shard->local.size : shard->global.size;
    else if (kind != DIP_TAR_WITHOUT_DATA && kind != DIP_TAR_FOLDER)
        wrong = dip_tar_size(size, header);
    const uint64_t left = shard->file.n_bytes - data_at;
    if (!wrong && *size <= left) return DIP_OK;

    char quoted[QUOTED_BYTES];
    DIP_TRY(take_name(shard, header));
    dip_text_quote(quoted, sizeof quoted, shard->name.data);
    if (!wrong) shard->skip_member = kind == DIP_TAR_LONG_NAME || kind == DIP_TAR_PAX;
    DIP_TRY(resynchronise(shard, data_at));
    if (wrong) return damaged(shard, at, "the size of member '%s' %s", quoted, wrong);
    return damaged(shard, at, "member '%s' has %llu bytes, but the file has %llu left", quoted,
                   (unsigned long long)*size, (unsigned long long)left);
}

/* A file's header: DIP_OK with the member, or DIP_END when it is none to report. */
static dip_status take_file(dip_shard *shard, dip_member *member, const uint8_t *header,
                            uint64_t data_at, uint64_t size)
{
    const bool skip = shard->skip_member;
    shard->skip_member = false;
    if (skip) {
        forget_overrides(&shard->local);
        return DIP_END;
    }
    DIP_TRY(take_name(shard, header));
    forget_overrides(&shard->local);
    const text *name = &shard->name;
    if (name->n_bytes > 0 && name->data[name->n_bytes - 1] == '/')
        return DIP_END; /* V7's way of a folder */
    *member = (dip_member){.name = name->data, .n_bytes = size, .offset = data_at};
    return DIP_OK;
}

dip_status dip_shard_next(dip_shard *shard, dip_member *member)
{
    const uint8_t *header;
    forget_overrides(&shard->local);
    while (!shard->ended) {
        const uint64_t at = shard->position, data_at = at + DIP_TAR_BLOCK_BYTES;
        DIP_TRY(read_header(shard, &header));
        const dip_tar_kind kind = dip_tar_kind_of(header);
        uint64_t size;
        DIP_TRY(read_size(shard, &size, header, kind));
        const uint64_t next = data_at + dip_tar_padded(size);
        shard->position = next < shard->file.n_bytes ? next : shard->file.n_bytes;
        const char *wrong = NULL;
        switch (kind) {
        case DIP_TAR_LONG_NAME:
            DIP_TRY(take_long_name(shard, &wrong, data_at, size));
            break;
        case DIP_TAR_PAX:
            DIP_TRY(take_pax(shard, &shard->local, &wrong, data_at, size));
            break;
        case DIP_TAR_PAX_GLOBAL:
            DIP_TRY(take_pax(shard, &shard->global, &wrong, data_at, size));
            break;
        case DIP_TAR_LONG_LINK:
            break;
        case DIP_TAR_SPARSE: {
            char quoted[QUOTED_BYTES];
            DIP_TRY(take_name(shard, header));
            dip_text_quote(quoted, sizeof quoted, shard->name.data);
            shard->skip_member = false; /* this was it */
            return damaged(shard, at, "member '%s' is a sparse file", quoted);
        }
        case DIP_TAR_FOLDER:
        case DIP_TAR_WITHOUT_DATA:
        case DIP_TAR_OTHER:
            shard->n_skipped += kind != DIP_TAR_FOLDER;
            shard->skip_member = false;
            forget_overrides(&shard->local);
            break;
        case DIP_TAR_FILE: {
            dip_status status = take_file(shard, member, header, data_at, size);
            if (status != DIP_END) return status;
            break;
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
