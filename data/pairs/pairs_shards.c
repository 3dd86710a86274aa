/* Samples of shards that are there already: their members go over as they are. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/file.h"
#include "core/log.h"
#include "data/pairs/pairs_internal.h"
#include "data/pattern.h"
#include "data/shard/shard_files.h"
#include "data/shard/shard_index_fit.h"

/* Texts are offsets into shards.texts, which moves while it grows. */
typedef struct shard_member {
    uint64_t offset, n_bytes; /* in the shard */
    uint64_t extension_at;
    uint32_t crc; /* where the shard has_crcs */
} shard_member;

typedef struct shard_sample {
    uint64_t key_at;
    uint64_t first; /* member */
    uint32_t n_members, shard;
    uint32_t image, caption; /* of its members: which; n_members: none */
} shard_sample;

/* A shard as it was when it was looked through. */
typedef struct shard_place {
    uint64_t n_bytes;
    int64_t changed_ns;
    bool has_crcs; /* its members come from an index */
} shard_place;

typedef struct shards {
    dip_string_list paths; /* the caller's strings, copied */
    shard_place *places;   /* [paths.n_items] */
    dip_shard_files *files;
    shard_sample *samples;
    shard_member *members;
    char *texts;
    size_t n_samples, n_members, n_text_bytes;
    size_t samples_capacity, members_capacity, texts_capacity;
    dip_pairs_lost_fn *lost;
    void *context;
} shards;

static void close_shards(void *state)
{
    shards *s = state;
    if (!s) return;
    dip_string_list_free(&s->paths);
    free(s->places);
    dip_shard_files_close(s->files);
    free(s->samples);
    free(s->members);
    free(s->texts);
    free(s);
}

/* Make room for `more` items of `size` bytes. */
static dip_status reserve(void **items, size_t *capacity, size_t n, size_t more, size_t size)
{
    if (n + more <= *capacity) return DIP_OK;
    size_t wanted = *capacity ? *capacity * 2 : 4096;
    while (wanted < n + more) wanted *= 2;
    void *grown = realloc(*items, wanted * size);
    if (!grown) return dip_pairs_no_memory("shards");
    *items = grown;
    *capacity = wanted;
    return DIP_OK;
}

static dip_status add_text(shards *s, uint64_t *at, const char *text, size_t n_bytes)
{
    void *texts = s->texts;
    dip_status status = reserve(&texts, &s->texts_capacity, s->n_text_bytes, n_bytes + 1, 1);
    s->texts = texts;
    DIP_TRY(status);
    *at = s->n_text_bytes;
    memcpy(s->texts + *at, text, n_bytes);
    s->texts[*at + n_bytes] = '\0';
    s->n_text_bytes += n_bytes + 1;
    return DIP_OK;
}

static dip_status lose(const shards *s, uint32_t shard, const char *key, dip_fault_kind kind,
                       const char *detail)
{
    char *where = dip_format("%s: %s", s->paths.items[shard], key);
    if (!where) return dip_pairs_no_memory("shards");
    s->lost(s->context, kind, where, detail);
    free(where);
    return DIP_OK;
}

/* Grouping: consecutive members with one key. */

static const char *extension_of(const shards *s, const shard_sample *sample, uint32_t member)
{
    return s->texts + s->members[sample->first + member].extension_at;
}

static uint32_t find_member(const shards *s, const shard_sample *sample, const char *extension)
{
    for (uint32_t i = 0; i < sample->n_members; i++)
        if (strcasecmp(extension_of(s, sample, i), extension) == 0) return i;
    return sample->n_members;
}

static uint32_t find_first(const shards *s, const shard_sample *sample,
                           const char *const *extensions, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t found = find_member(s, sample, extensions[i]);
        if (found < sample->n_members) return found;
    }
    return sample->n_members;
}

static bool has_twins(const shards *s, const shard_sample *sample)
{
    for (uint32_t i = 0; i < sample->n_members; i++)
        if (find_member(s, sample, extension_of(s, sample, i)) != i) return true;
    return false;
}

/* Does the file end before the sample does? `detail` says where. */
static bool is_cut(char *detail, size_t n, const shards *s, const shard_sample *sample)
{
    const uint64_t end = s->places[sample->shard].n_bytes;
    for (uint32_t i = 0; i < sample->n_members; i++) {
        const shard_member *member = &s->members[sample->first + i];
        if (member->offset <= end && member->n_bytes <= end - member->offset) continue;
        snprintf(detail, n, "its .%s should reach byte %" PRIu64 ", the file ends at %" PRIu64,
                 extension_of(s, sample, i), member->offset + member->n_bytes, end);
        return true;
    }
    return false;
}

/* No more members of the last sample come: it stays, or it is named and taken back. */
static dip_status finish_sample(shards *s)
{
    static const char *const images[] = {"jpg", "png", "jpeg", "webp"};
    static const char *const others[] = {"json", "cls"};
    shard_sample *sample = &s->samples[s->n_samples - 1];
    sample->image = find_first(s, sample, images, 4);
    sample->caption = find_member(s, sample, "txt");
    const char *key = s->texts + sample->key_at;
    char detail[400];
    dip_status status;
    if (has_twins(s, sample))
        status = lose(s, sample->shard, key, DIP_FAULT_DUPLICATE_MEMBER,
                      "which of them belongs to the sample cannot be known");
    else if (is_cut(detail, sizeof detail, s, sample))
        status = lose(s, sample->shard, key, DIP_FAULT_TAR, detail);
    else if (sample->image == sample->n_members)
        status = lose(s, sample->shard, key, DIP_FAULT_NO_IMAGE, "no jpg, png, jpeg or webp");
    else if (sample->caption == sample->n_members &&
             find_first(s, sample, others, 2) == sample->n_members)
        status = lose(s, sample->shard, key, DIP_FAULT_NO_CAPTION, "no txt, json or cls");
    else
        return DIP_OK;
    s->n_members = sample->first;
    s->n_text_bytes = sample->key_at;
    s->n_samples--;
    return status;
}

static dip_status begin_sample(shards *s, uint32_t shard, const char *key, size_t key_bytes)
{
    void *samples = s->samples;
    dip_status status =
        reserve(&samples, &s->samples_capacity, s->n_samples, 1, sizeof *s->samples);
    s->samples = samples;
    DIP_TRY(status);
    shard_sample *sample = &s->samples[s->n_samples++];
    *sample = (shard_sample){.first = s->n_members, .shard = shard};
    return add_text(s, &sample->key_at, key, key_bytes);
}

static dip_status add_member(shards *s, const shard_member *member, const char *extension)
{
    enum { MAX_MEMBERS = 1000, MAX_EXTENSION_BYTES = 255 };
    shard_sample *sample = &s->samples[s->n_samples - 1];
    if (sample->n_members == MAX_MEMBERS || strlen(extension) > MAX_EXTENSION_BYTES)
        return lose(s, sample->shard, s->texts + sample->key_at, DIP_FAULT_UNREADABLE,
                    sample->n_members == MAX_MEMBERS ? "more than 1000 members with one key"
                                                     : "an extension of more than 255 bytes");
    void *members = s->members;
    dip_status status =
        reserve(&members, &s->members_capacity, s->n_members, 1, sizeof *s->members);
    s->members = members;
    DIP_TRY(status);
    shard_member *added = &s->members[s->n_members];
    *added = *member;
    DIP_TRY(add_text(s, &added->extension_at, extension, strlen(extension)));
    s->n_members++;
    sample->n_members++;
    return DIP_OK;
}

/* The next member of a shard. *open: the last sample may get further members. */
static dip_status take_member(shards *s, bool *open, uint32_t shard, const char *name,
                              const shard_member *member)
{
    size_t key_bytes;
    const char *extension;
    if (!dip_member_split(name, &key_bytes, &extension)) return DIP_OK;
    const char *key = *open ? s->texts + s->samples[s->n_samples - 1].key_at : NULL;
    if (key && (strlen(key) != key_bytes || memcmp(key, name, key_bytes) != 0)) {
        DIP_TRY(finish_sample(s));
        *open = false;
    }
    if (!*open) DIP_TRY(begin_sample(s, shard, name, key_bytes));
    *open = true;
    return add_member(s, member, extension);
}

static dip_status name_damage(const shards *s, const dip_shard *shard)
{
    char *where =
        dip_format("%s: at byte %" PRIu64, dip_shard_path(shard), dip_shard_damage_at(shard));
    if (!where) return dip_pairs_no_memory("shards");
    s->lost(s->context, DIP_FAULT_TAR, where, dip_shard_damage(shard));
    free(where);
    return DIP_OK;
}

static dip_status read_headers(shards *s, dip_shard *shard, uint32_t number)
{
    bool open = false;
    dip_member member;
    dip_status status;
    while ((status = dip_shard_next(shard, &member)) != DIP_END) {
        if (status == DIP_FORMAT) {
            /* Members are missing: what follows is not joined to what came before. */
            DIP_TRY(name_damage(s, shard));
            if (open) DIP_TRY(finish_sample(s));
            open = false;
            continue;
        }
        DIP_TRY(status);
        shard_member taken = {.offset = member.offset, .n_bytes = member.n_bytes};
        DIP_TRY(take_member(s, &open, number, member.name, &taken));
    }
    if (dip_shard_unfinished(shard))
        s->lost(s->context, DIP_FAULT_TAR, s->paths.items[number],
                "no end-of-archive block: it may have been cut");
    return open ? finish_sample(s) : DIP_OK;
}

static dip_status read_index(shards *s, dip_shard_index *index, uint32_t number)
{
    bool open = false;
    dip_member_entry entry;
    dip_status status;
    s->places[number].has_crcs = true;
    while ((status = dip_shard_index_next(index, &entry)) == DIP_OK) {
        shard_member taken = {.offset = entry.offset, .n_bytes = entry.n_bytes, .crc = entry.crc};
        DIP_TRY(take_member(s, &open, number, entry.name, &taken));
    }
    if (status != DIP_END) return status;
    return open ? finish_sample(s) : DIP_OK;
}

static dip_status read_members(shards *s, dip_shard *shard, uint32_t number)
{
    const char *path = s->paths.items[number];
    dip_shard_index *index;
    dip_status status = dip_shard_index_open(&index, shard);
    if (status == DIP_OK) {
        status = read_index(s, index, number);
        dip_shard_index_close(index);
        return status;
    }
    if (status != DIP_END && status != DIP_FORMAT) return status;
    if (status == DIP_FORMAT)
        dip_warn("%s; the shard is read without it, and its bytes cannot be checked", dip_error());
    status = dip_shard_check(shard);
    if (status == DIP_FORMAT && s->paths.n_items > 1) {
        s->lost(s->context, DIP_FAULT_TAR, path, dip_error());
        return DIP_OK;
    }
    DIP_TRY(status);
    return read_headers(s, shard, number);
}

static dip_status read_shard(shards *s, uint32_t number)
{
    dip_shard *shard;
    DIP_TRY(dip_shard_open_unread(&shard, s->paths.items[number]));
    s->places[number].n_bytes = dip_shard_bytes(shard);
    s->places[number].changed_ns = dip_shard_changed_ns(shard);
    dip_status status = read_members(s, shard, number);
    dip_shard_close(shard);
    return status;
}

/* A source. */

static char *shard_sample_name(const void *state, int64_t index)
{
    const shards *s = state;
    const shard_sample *sample = &s->samples[index];
    const char *path = s->paths.items[sample->shard], *slash = strrchr(path, '/');
    return dip_format("%s/%s", slash ? slash + 1 : path, s->texts + sample->key_at);
}

static dip_digest digest_shards(const void *state, dip_digest digest)
{
    const shards *s = state;
    for (size_t i = 0; i < s->paths.n_items; i++)
        digest = dip_digest_text(digest, s->paths.items[i]);
    for (size_t i = 0; i < s->n_members; i++) {
        const shard_member *member = &s->members[i];
        digest = dip_digest_text(digest, s->texts + member->extension_at);
        digest = dip_digest_number(digest, (int64_t)member->offset);
        digest = dip_digest_number(digest, (int64_t)member->n_bytes);
        digest = dip_digest_number(digest, member->crc);
    }
    return digest;
}

static dip_status load_member(const dip_shard *shard, dip_pair_member *out, const shards *s,
                              const shard_sample *sample, uint32_t number, dip_fault_kind *kind)
{
    const shard_member *member = &s->members[sample->first + number];
    const char *extension = extension_of(s, sample, number);
    *kind = DIP_FAULT_UNREADABLE;
    if (member->n_bytes > DIP_PAIR_MAX_IMAGE_BYTES)
        return dip_fail(DIP_FORMAT, "its .%.80s has %" PRIu64 " bytes, the limit is %zu", extension,
                        member->n_bytes, DIP_PAIR_MAX_IMAGE_BYTES);
    out->extension = strdup(extension);
    out->n_bytes = (size_t)member->n_bytes;
    out->data = malloc(out->n_bytes + 1);
    if (!out->extension || !out->data) return dip_pairs_no_memory("shards");
    out->data[out->n_bytes] = '\0';
    DIP_TRY(dip_shard_read(shard, out->data, member->offset, out->n_bytes));
    if (!s->places[sample->shard].has_crcs) return DIP_OK;
    if (dip_crc32c(0, out->data, out->n_bytes) == member->crc) return DIP_OK;
    *kind = DIP_FAULT_CHECKSUM;
    return dip_fail(DIP_FORMAT, "the bytes of its .%s are not those of the index", extension);
}

/* Image, caption and the others, each to its place in the pair. */
static dip_status load_members(const dip_shard *shard, dip_pair *pair, const shards *s,
                               const shard_sample *sample, dip_fault_kind *kind)
{
    pair->members = calloc(sample->n_members, sizeof *pair->members);
    if (!pair->members) return dip_pairs_no_memory("shards");
    for (uint32_t i = 0; i < sample->n_members; i++) {
        dip_pair_member *member = &pair->members[pair->n_members++];
        DIP_TRY(load_member(shard, member, s, sample, i, kind));
        if (i != sample->image && i != sample->caption) continue;
        pair->n_members--;
        if (i == sample->image) {
            pair->extension = member->extension;
            pair->image = member->data;
            pair->image_bytes = member->n_bytes;
        } else {
            free(member->extension);
            pair->text = (char *)member->data;
            pair->text_bytes = member->n_bytes;
        }
        *member = (dip_pair_member){0};
    }
    const char *extension; /* it keeps the one it has */
    return dip_pair_image_kind(&extension, pair, kind);
}

/* Without checksums a file that is not what was looked through is not read: its samples may lie
 * elsewhere, and an image would stand beside another's caption. */
static dip_status check_unchanged(const dip_shard *shard, const shard_place *place)
{
    if (place->has_crcs || (dip_shard_bytes(shard) == place->n_bytes &&
                            dip_shard_changed_ns(shard) == place->changed_ns))
        return DIP_OK;
    return dip_fail(DIP_FORMAT, "%s was changed after it had been looked through",
                    dip_shard_path(shard));
}

static dip_status load_shard_sample(const void *state, dip_pair *pair, int64_t index,
                                    dip_fault_kind *kind)
{
    const shards *s = state;
    const shard_sample *sample = &s->samples[index];
    const dip_shard *shard;
    *kind = DIP_FAULT_UNREADABLE;
    errno = 0;
    dip_status status =
        dip_shard_files_borrow(s->files, &shard, sample->shard, s->paths.items[sample->shard]);
    if (status == DIP_OK) {
        status = check_unchanged(shard, &s->places[sample->shard]);
        if (status == DIP_OK) status = load_members(shard, pair, s, sample, kind);
        dip_shard_files_return(s->files, shard);
    }
    return dip_pair_read_status(status);
}

dip_status dip_pairs_open_shards(dip_pairs **out, const dip_string_list *paths,
                                 dip_pairs_lost_fn *lost, void *context)
{
    *out = NULL;
    shards *s = calloc(1, sizeof *s);
    if (!s) return dip_pairs_no_memory("shards");
    s->lost = lost;
    s->context = context;
    s->paths.items = calloc(paths->n_items + 1, sizeof *s->paths.items);
    s->places = calloc(paths->n_items + 1, sizeof *s->places);
    dip_status status = s->paths.items && s->places ? dip_shard_files_open(&s->files)
                                                    : dip_pairs_no_memory("shards");
    for (size_t i = 0; i < paths->n_items && status == DIP_OK; i++) {
        s->paths.items[i] = strdup(paths->items[i]);
        if (!s->paths.items[i]) status = dip_pairs_no_memory("shards");
        s->paths.n_items++;
    }
    for (size_t i = 0; i < paths->n_items && status == DIP_OK; i++)
        status = read_shard(s, (uint32_t)i);
    if (status != DIP_OK) {
        close_shards(s);
        return status;
    }
    return dip_pairs_make(out, &(dip_pairs){.n = (int64_t)s->n_samples,
                                            .state = s,
                                            .name = shard_sample_name,
                                            .load = load_shard_sample,
                                            .digest = digest_shards,
                                            .close = close_shards});
}
