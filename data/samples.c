#include "data/samples.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/json.h"
#include "core/log.h"
#include "data/shard.h"
#include "data/utf8.h"

enum {
    MAX_CAPTION_BYTES = 1 << 20,
    MAX_JSON_BYTES = 16 << 20,
    MAX_LABEL_BYTES = 64,
    WHERE_BYTES = 1024,
    MAX_REMEMBERED = 1 << 16 /* keys of a shard's incomplete samples; half of the slots */
};

/* The members a sample may have. Of several images the first of this order is taken, which is
 * open_clip's order. */
typedef enum part {
    PART_JPG,
    PART_PNG,
    PART_JPEG,
    PART_WEBP,
    PART_TXT,
    PART_JSON,
    PART_CLS,
    N_PARTS
} part;

static const char *const part_extensions[N_PARTS] = {"jpg", "png",  "jpeg", "webp",
                                                     "txt", "json", "cls"};

/* One sample of the index: 48 bytes. Offsets count from the start of the shard's mapping, except
 * that a caption out of a .json lies, unescaped, in the text arena. */
typedef struct entry {
    uint64_t image_at, caption_at, key_at;
    int64_t label;
    uint32_t image_bytes;
    uint32_t caption_bytes;
    uint32_t shard;
    uint8_t has_image, has_caption, caption_in_arena;
} entry;

typedef struct arena {
    char *data;
    size_t n_bytes, capacity;
} arena;

struct dip_samples {
    entry *entries;
    size_t n_entries, capacity;
    arena keys;  /* NUL-terminated, one a sample */
    arena texts; /* captions from .json */
    dip_shard **shards;
    dip_map *maps;
    size_t n_shards;
    int needs;
    char *json_text_key;
    dip_faults *faults;
    int64_t n_skipped; /* members that are no files */
    /* Hashes of the keys that came without all their members, in the shard being indexed: a later
     * member of such a key was packed apart from them. Open addressing, 0 is empty. */
    uint64_t *incomplete;
    size_t n_incomplete;
};

/* The sample being collected. */
typedef struct group {
    char *key; /* in its own buffer: a member's name lives until the next one only */
    size_t key_bytes, capacity;
    bool open, duplicate;
    bool has[N_PARTS];
    dip_member parts[N_PARTS];
} group;

static dip_status no_memory(const char *what)
{
    return dip_fail(DIP_NOMEM, "no memory for the sample index (%s)", what);
}

static dip_status grow(void **data, size_t *capacity, size_t needed, size_t item_bytes)
{
    if (needed <= *capacity) return DIP_OK;
    size_t n = *capacity ? *capacity : 256;
    while (n < needed) {
        if (n > SIZE_MAX / 2 / item_bytes) return no_memory("too many samples");
        n *= 2;
    }
    void *bigger = realloc(*data, n * item_bytes);
    if (!bigger) return no_memory("entries");
    *data = bigger;
    *capacity = n;
    return DIP_OK;
}

static dip_status arena_add(arena *to, uint64_t *at, const char *text, size_t n_bytes)
{
    void *data = to->data;
    DIP_TRY(grow(&data, &to->capacity, to->n_bytes + n_bytes + 1, 1));
    to->data = data;
    *at = to->n_bytes;
    memcpy(to->data + to->n_bytes, text, n_bytes);
    to->n_bytes += n_bytes;
    to->data[to->n_bytes++] = '\0';
    return DIP_OK;
}

static void lose(dip_samples *samples, size_t shard, const char *key, dip_fault_kind kind,
                 const char *detail)
{
    char where[WHERE_BYTES];
    dip_sample sample = {.shard = dip_shard_path(samples->shards[shard]), .key = key};
    dip_faults_add(samples->faults, kind, dip_sample_where(&sample, where, sizeof where), detail);
}

/* Whether an incomplete sample of this key was seen before in this shard; remembers it. It only
 * words a message: two keys of one hash, no memory, or more keys than are kept do no harm. */
static bool seen_incomplete(dip_samples *samples, const group *g)
{
    const size_t n_slots = 2 * (size_t)MAX_REMEMBERED;
    if (!samples->incomplete) samples->incomplete = calloc(n_slots, sizeof *samples->incomplete);
    if (!samples->incomplete) return false;
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < g->key_bytes; i++)
        hash = (hash ^ (unsigned char)g->key[i]) * 0x100000001b3u;
    if (hash == 0) hash = 1;
    size_t slot = (size_t)(hash ^ hash >> 32) & (n_slots - 1);
    while (samples->incomplete[slot] != 0 && samples->incomplete[slot] != hash)
        slot = (slot + 1) & (n_slots - 1);
    if (samples->incomplete[slot] == hash) return true;
    if (samples->n_incomplete < MAX_REMEMBERED) {
        samples->incomplete[slot] = hash;
        samples->n_incomplete++;
    }
    return false;
}

static void forget_incomplete(dip_samples *samples)
{
    if (samples->n_incomplete > 0)
        memset(samples->incomplete, 0, 2 * sizeof *samples->incomplete * MAX_REMEMBERED);
    samples->n_incomplete = 0;
}

/* A member is missing: name the sample, and the usual cause if this is it. */
static void lose_incomplete(dip_samples *samples, size_t shard, const char *key,
                            dip_fault_kind kind, const char *missing, bool apart)
{
    char detail[256];
    snprintf(detail, sizeof detail, "%s%s", missing,
             apart ? ", but there are others of its key earlier in the shard; the members of a "
                     "sample must follow each other: pack with tar --sort=name"
                   : "");
    lose(samples, shard, key, kind, detail);
}

/* One sample's optional parts. These return false when the sample is lost (and in the ledger). */

static bool parse_label(int64_t *label, const dip_member *member)
{
    if (member->n_bytes >= MAX_LABEL_BYTES) return false;
    char text[MAX_LABEL_BYTES];
    memcpy(text, member->data, member->n_bytes);
    text[member->n_bytes] = '\0';
    char *at = text + strspn(text, " \t\r\n");
    size_t digits = strspn(at, "0123456789");
    size_t used = digits + strspn(at + digits, " \t\r\n");
    if (digits == 0 || digits > 18 || at[used] != '\0' || strlen(text) != member->n_bytes)
        return false;
    *label = strtoll(at, NULL, 10);
    return true;
}

/* The caption out of a .json. DIP_FORMAT: there is none, dip_error() says why. */
static dip_status json_caption(dip_samples *samples, entry *e, const dip_member *member)
{
    if (member->n_bytes > MAX_JSON_BYTES)
        return dip_fail(DIP_FORMAT, "its .json has %zu bytes, at most %d are read", member->n_bytes,
                        MAX_JSON_BYTES);
    cJSON *object = NULL;
    dip_status status =
        dip_json_parse(&object, (const char *)member->data, member->n_bytes, "its .json");
    if (status != DIP_OK) return status;
    const cJSON *text = cJSON_GetObjectItemCaseSensitive(object, samples->json_text_key);
    if (!text) {
        status = dip_fail(DIP_FORMAT, "its .json has no key '%s'", samples->json_text_key);
    } else if (!cJSON_IsString(text)) {
        status = dip_fail(DIP_FORMAT, "'%s' in its .json is not a string", samples->json_text_key);
    } else if (strlen(text->valuestring) > MAX_CAPTION_BYTES) {
        status = dip_fail(DIP_FORMAT, "'%s' in its .json has more than %d bytes",
                          samples->json_text_key, MAX_CAPTION_BYTES);
    } else {
        size_t n = strlen(text->valuestring);
        status = arena_add(&samples->texts, &e->caption_at, text->valuestring, n);
        e->caption_bytes = (uint32_t)n;
        e->has_caption = e->caption_in_arena = 1;
    }
    cJSON_Delete(object);
    return status;
}

/* Take the collected group into the index, or name it in the ledger. */
static dip_status close_group(dip_samples *samples, group *g, size_t shard)
{
    if (!g->open) return DIP_OK;
    g->open = false;
    const int needs = samples->needs;
    if (g->duplicate) {
        lose(samples, shard, g->key, DIP_FAULT_DUPLICATE_MEMBER,
             "which of them belongs to the sample cannot be known");
        return DIP_OK;
    }
    entry e = {.label = -1, .shard = (uint32_t)shard};
    for (int i = PART_JPG; i <= PART_WEBP && !e.has_image; i++) {
        if (!g->has[i]) continue;
        if (g->parts[i].n_bytes > UINT32_MAX) {
            lose(samples, shard, g->key, DIP_FAULT_IMAGE_TOO_LARGE, "over 4 GiB");
            return DIP_OK;
        }
        e.has_image = 1;
        e.image_at = g->parts[i].offset;
        e.image_bytes = (uint32_t)g->parts[i].n_bytes;
    }
    part caption = samples->json_text_key ? PART_JSON : PART_TXT;
    bool any = e.has_image || g->has[caption] || g->has[PART_CLS];
    if (!any) return DIP_OK; /* members of other kinds, e.g. a README.md */
    bool incomplete = !e.has_image || !g->has[caption];
    bool apart = incomplete && seen_incomplete(samples, g);
    bool names = needs & DIP_NAMES_INCOMPLETE;
    if (!e.has_image && (names || (needs & DIP_NEEDS_IMAGE))) {
        lose_incomplete(samples, shard, g->key, DIP_FAULT_NO_IMAGE, "no jpg, jpeg or png member",
                        apart);
        if (needs & DIP_NEEDS_IMAGE) return DIP_OK;
    }
    bool nothing_said = e.has_image && !g->has[caption] && !g->has[PART_CLS];
    if ((names && nothing_said) || (!g->has[caption] && (needs & DIP_NEEDS_CAPTION))) {
        lose_incomplete(samples, shard, g->key, DIP_FAULT_NO_CAPTION,
                        samples->json_text_key ? "no json member" : "no txt member", apart);
        if (needs & DIP_NEEDS_CAPTION) return DIP_OK;
    }
    if (g->has[caption] && samples->json_text_key) {
        dip_status status = json_caption(samples, &e, &g->parts[PART_JSON]);
        if (status == DIP_NOMEM) return status;
        if (status != DIP_OK && (names || (needs & DIP_NEEDS_CAPTION)))
            lose(samples, shard, g->key, DIP_FAULT_NO_CAPTION, dip_error());
        if (status != DIP_OK && (needs & DIP_NEEDS_CAPTION)) return DIP_OK;
    } else if (g->has[caption]) {
        if (g->parts[PART_TXT].n_bytes > MAX_CAPTION_BYTES) {
            char detail[96];
            snprintf(detail, sizeof detail, "its .txt has %zu bytes, at most %d are read",
                     g->parts[PART_TXT].n_bytes, MAX_CAPTION_BYTES);
            lose(samples, shard, g->key, DIP_FAULT_NO_CAPTION, detail);
            return DIP_OK;
        }
        e.has_caption = 1;
        e.caption_at = g->parts[PART_TXT].offset;
        e.caption_bytes = (uint32_t)g->parts[PART_TXT].n_bytes;
    }
    bool label_read = g->has[PART_CLS] && parse_label(&e.label, &g->parts[PART_CLS]);
    if (!label_read && ((needs & DIP_NEEDS_LABEL) || (names && g->has[PART_CLS]))) {
        lose(samples, shard, g->key, DIP_FAULT_LABEL,
             g->has[PART_CLS] ? "its .cls is not a whole number" : "no cls member");
        if (needs & DIP_NEEDS_LABEL) return DIP_OK;
    }
    DIP_TRY(arena_add(&samples->keys, &e.key_at, g->key, g->key_bytes));
    void *entries = samples->entries;
    DIP_TRY(grow(&entries, &samples->capacity, samples->n_entries + 1, sizeof e));
    samples->entries = entries;
    samples->entries[samples->n_entries++] = e;
    return DIP_OK;
}

static dip_status begin_group(group *g, const char *name, size_t key_bytes)
{
    void *key = g->key;
    DIP_TRY(grow(&key, &g->capacity, key_bytes + 1, 1));
    g->key = key;
    memcpy(g->key, name, key_bytes);
    g->key[key_bytes] = '\0';
    g->key_bytes = key_bytes;
    g->open = true;
    g->duplicate = false;
    memset(g->has, 0, sizeof g->has);
    return DIP_OK;
}

static dip_status add_member(dip_samples *samples, group *g, const dip_member *member, size_t shard)
{
    size_t key_bytes;
    const char *extension;
    if (!dip_member_split(member->name, &key_bytes, &extension)) return DIP_OK;
    if (!g->open || key_bytes != g->key_bytes || memcmp(g->key, member->name, key_bytes) != 0) {
        DIP_TRY(close_group(samples, g, shard));
        DIP_TRY(begin_group(g, member->name, key_bytes));
    }
    for (int i = 0; i < N_PARTS; i++) {
        if (strcasecmp(extension, part_extensions[i]) != 0) continue;
        if (g->has[i]) g->duplicate = true;
        g->has[i] = true;
        g->parts[i] = *member;
        break;
    }
    return DIP_OK;
}

/* Shards. */

static dip_status index_shard(dip_samples *samples, group *g, size_t shard, const char *path)
{
    dip_shard *reader = NULL;
    DIP_TRY(dip_shard_open(&reader, path));
    samples->shards[shard] = reader;
    samples->maps[shard] = dip_shard_map(reader);
    samples->n_shards = shard + 1;
    forget_incomplete(samples);
    dip_member member;
    dip_status status;
    while ((status = dip_shard_next(reader, &member)) != DIP_END) {
        if (status == DIP_OK) {
            DIP_TRY(add_member(samples, g, &member, shard));
            continue;
        }
        if (status != DIP_FORMAT) return status;
        char where[WHERE_BYTES], detail[WHERE_BYTES];
        snprintf(detail, sizeof detail, "%s", dip_error());
        size_t prefix = strlen(path);
        const char *what = detail; /* "PATH: at byte N: what" -> where "PATH: at byte N" */
        if (strncmp(detail, path, prefix) == 0 && detail[prefix] == ':') what += prefix + 2;
        size_t offset = strncmp(what, "at byte ", 8) == 0 ? strcspn(what, ":") : 0;
        snprintf(where, sizeof where, "%s: %.*s", path, (int)offset, what);
        dip_faults_add(samples->faults, DIP_FAULT_TAR, where,
                       what[offset] == ':' ? what + offset + 2 : what);
        /* What was lost between may be the rest of this sample and the start of a namesake. */
        DIP_TRY(close_group(samples, g, shard));
        forget_incomplete(samples); /* nor is it known what was packed apart */
    }
    DIP_TRY(close_group(samples, g, shard));
    if (dip_shard_unfinished(reader))
        dip_faults_add(samples->faults, DIP_FAULT_TAR, path,
                       "no end-of-archive block: all members found are used, but the file may "
                       "have been cut between two of them");
    samples->n_skipped += dip_shard_skipped(reader);
    return DIP_OK;
}

dip_status dip_samples_open(dip_samples **out, const dip_string_list *shards, int needs,
                            const char *json_text_key, dip_faults *faults)
{
    *out = NULL;
    dip_status status = DIP_OK;
    group g = {0};
    dip_samples *samples = calloc(1, sizeof *samples);
    if (!samples) return no_memory("start");
    samples->needs = needs;
    samples->faults = faults;
    size_t n = shards->n_items ? shards->n_items : 1;
    samples->shards = calloc(n, sizeof *samples->shards);
    samples->maps = calloc(n, sizeof *samples->maps);
    if (json_text_key) samples->json_text_key = strdup(json_text_key);
    if (!samples->shards || !samples->maps || (json_text_key && !samples->json_text_key)) {
        status = no_memory("shards");
        goto fail;
    }
    for (size_t i = 0; i < shards->n_items; i++)
        DIP_TRY_GOTO(index_shard(samples, &g, i, shards->items[i]));
    free(g.key);
    g.key = NULL;
    if (samples->n_skipped > 0)
        dip_warn("%lld members of the shards are links or devices and were skipped",
                 (long long)samples->n_skipped);
    if (samples->n_entries == 0) {
        status = dip_fail(DIP_CONFIG, "no usable sample in %zu shard%s (first: %s); %lld were lost",
                          shards->n_items, shards->n_items == 1 ? "" : "s",
                          shards->n_items ? shards->items[0] : "none",
                          (long long)dip_faults_total(faults));
        goto fail;
    }
    *out = samples;
    return DIP_OK;
fail:
    free(g.key);
    dip_samples_close(samples);
    return status;
}

void dip_samples_close(dip_samples *samples)
{
    if (!samples) return;
    for (size_t i = 0; i < samples->n_shards; i++) dip_shard_close(samples->shards[i]);
    free(samples->shards);
    free(samples->maps);
    free(samples->entries);
    free(samples->keys.data);
    free(samples->texts.data);
    free(samples->json_text_key);
    free(samples->incomplete);
    free(samples);
}

int64_t dip_samples_count(const dip_samples *samples)
{
    return (int64_t)samples->n_entries;
}

dip_sample dip_samples_get(const dip_samples *samples, int64_t index)
{
    const entry *e = &samples->entries[index];
    const uint8_t *data = samples->maps[e->shard].data;
    dip_sample sample = {.shard = dip_shard_path(samples->shards[e->shard]),
                         .key = samples->keys.data + e->key_at,
                         .label = e->label};
    if (e->has_image) {
        sample.image = data + e->image_at;
        sample.image_bytes = e->image_bytes;
    }
    if (e->has_caption) {
        sample.caption = e->caption_in_arena ? samples->texts.data + e->caption_at
                                             : (const char *)data + e->caption_at;
        sample.caption_bytes = e->caption_bytes;
    }
    return sample;
}

const char *dip_sample_where(const dip_sample *sample, char *buf, size_t n)
{
    char key[WHERE_BYTES / 2];
    dip_text_quote(key, sizeof key, sample->key);
    snprintf(buf, n, "%s: %s", sample->shard, key);
    return buf;
}

/* Captions. */

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

int dip_caption_lines(const char *text, size_t n_bytes,
                      int (*each)(void *context, const char *line, size_t n), void *context)
{
    if (!dip_utf8_valid(text, n_bytes)) return -1;
    if (n_bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3;
        n_bytes -= 3;
    }
    int n_lines = 0;
    const char *end = text + n_bytes;
    while (text < end) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        const char *first = text, *last = newline ? newline : end;
        text = newline ? newline + 1 : end;
        while (first < last && is_blank(*first)) first++;
        while (last > first && is_blank(last[-1])) last--;
        if (first == last) continue;
        n_lines++;
        if (each && each(context, first, (size_t)(last - first))) break;
    }
    return n_lines;
}
