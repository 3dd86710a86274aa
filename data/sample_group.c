/* Members into samples: what belongs together, what is missing, and how that is said. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/file.h"
#include "data/samples_internal.h"
#include "data/shard/tar.h"

enum {
    MAX_IMAGE_BYTES = 256 << 20,
    MAX_CAPTION_BYTES = 1 << 20,
    MAX_JSON_BYTES = 16 << 20,
    MAX_LABEL_BYTES = 64,
    DETAIL_BYTES = 256,
    MAX_REMEMBERED = 4096 /* keys of a shard's incomplete samples; half of the slots */
};

static const char *const part_extensions[DIP_N_PARTS] = {"jpg", "png",  "jpeg", "webp",
                                                         "txt", "json", "cls"};

static dip_status no_memory(void)
{
    return dip_fail(DIP_NOMEM, "no memory for the sample index");
}

static dip_status grow(void **data, size_t *capacity, size_t needed, size_t item_bytes)
{
    if (needed <= *capacity) return DIP_OK;
    size_t n = *capacity ? *capacity : 64;
    while (n < needed) {
        if (n > SIZE_MAX / 2 / item_bytes) return no_memory();
        n += n / 2;
    }
    void *bigger = realloc(*data, n * item_bytes);
    if (!bigger) return no_memory();
    *data = bigger;
    *capacity = n;
    return DIP_OK;
}

dip_status dip_shard_samples_fault(dip_shard_samples *shard, dip_fault_kind kind, const char *key,
                                   int64_t offset, const char *detail)
{
    void *faults = shard->faults;
    DIP_TRY(grow(&faults, &shard->faults_capacity, shard->n_faults + 1, sizeof *shard->faults));
    shard->faults = faults;
    dip_found_fault fault = {.kind = kind, .offset = offset, .detail = strdup(detail)};
    if (key) fault.key = strdup(key);
    if (!fault.detail || (key && !fault.key)) {
        free(fault.detail);
        free(fault.key);
        return no_memory();
    }
    shard->faults[shard->n_faults++] = fault;
    return DIP_OK;
}

/* Samples that lack a member. */

/* Whether an incomplete sample of this key was seen before in this shard; remembers it. It only
 * words a message: two keys of one hash, no memory, or more keys than are kept do no harm. */
static bool seen_incomplete(dip_grouper *g)
{
    const size_t n_slots = 2 * (size_t)MAX_REMEMBERED;
    if (!g->incomplete) g->incomplete = calloc(n_slots, sizeof *g->incomplete);
    if (!g->used) g->used = malloc(MAX_REMEMBERED * sizeof *g->used);
    if (!g->incomplete || !g->used) return false;
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < g->key_bytes; i++)
        hash = (hash ^ (unsigned char)g->key[i]) * 0x100000001b3u;
    if (hash == 0) hash = 1;
    size_t slot = (size_t)(hash ^ hash >> 32) & (n_slots - 1);
    while (g->incomplete[slot] != 0 && g->incomplete[slot] != hash)
        slot = (slot + 1) & (n_slots - 1);
    if (g->incomplete[slot] == hash) return true;
    if (g->n_used < MAX_REMEMBERED) {
        g->incomplete[slot] = hash;
        g->used[g->n_used++] = (uint32_t)slot;
    }
    return false;
}

static void forget_incomplete(dip_grouper *g)
{
    while (g->n_used > 0) g->incomplete[g->used[--g->n_used]] = 0;
}

/* Where the sample's first member lies. */
static int64_t offset_of(const dip_grouper *g)
{
    int64_t first = -1;
    for (int i = 0; i < DIP_N_PARTS; i++)
        if (g->has[i] && (first < 0 || (int64_t)g->parts[i].member.offset < first))
            first = (int64_t)g->parts[i].member.offset;
    return first;
}

static dip_status lose(dip_grouper *g, dip_fault_kind kind, const char *detail)
{
    return dip_shard_samples_fault(g->into, kind, g->key, offset_of(g), detail);
}

/* A member is missing: name the sample, and the usual cause if this is it. */
static dip_status lose_incomplete(dip_grouper *g, dip_fault_kind kind, const char *missing,
                                  bool apart)
{
    char detail[DETAIL_BYTES];
    snprintf(detail, sizeof detail, "%s%s", missing,
             apart ? ", but there are others of its key earlier in the shard; the members of a "
                     "sample must follow each other: pack with tar --sort=name"
                   : "");
    return lose(g, kind, detail);
}

/* Parts. Each sets *keep to false when the sample is lost (and named). */

static bool parse_label(int32_t *label, const char *text, size_t n_bytes)
{
    const char *at = text + strspn(text, " \t\r\n");
    size_t digits = strspn(at, "0123456789");
    size_t used = digits + strspn(at + digits, " \t\r\n");
    if (digits == 0 || digits > 18 || at[used] != '\0' || strlen(text) != n_bytes) return false;
    long long value = strtoll(at, NULL, 10);
    if (value > INT32_MAX) return false;
    *label = (int32_t)value;
    return true;
}

/* Read only for those who ask for labels: it is one more read a sample. */
static dip_status take_label(dip_grouper *g, dip_sample_entry *e, bool *keep)
{
    const dip_found_member *cls = &g->parts[DIP_PART_CLS];
    const bool has = g->has[DIP_PART_CLS], needed = g->needs & DIP_NEEDS_LABEL;
    const size_t n = (size_t)cls->member.n_bytes;
    dip_fault_kind kind = DIP_FAULT_LABEL;
    const char *why = has ? "its .cls is not a whole number below 2^31" : "no cls member";
    if (!needed && !(has && (g->needs & DIP_NAMES_INCOMPLETE))) return DIP_OK;
    if (has && cls->member.n_bytes < MAX_LABEL_BYTES) {
        char text[MAX_LABEL_BYTES];
        const dip_status status = dip_shard_read(g->shard, text, cls->member.offset, n);
        if (status != DIP_OK && status != DIP_FORMAT) return status;
        text[n] = '\0';
        if (status == DIP_FORMAT) { /* the file has become shorter */
            kind = DIP_FAULT_UNREADABLE;
            why = "its .cls is no longer in the file";
        } else if (g->into->has_crcs && dip_crc32c(0, text, n) != cls->crc) {
            kind = DIP_FAULT_CHECKSUM;
            why = "the .cls member";
        } else if (parse_label(&e->label, text, n)) {
            return DIP_OK;
        }
    }
    if (needed) *keep = false;
    return lose(g, kind, why);
}

static dip_status take_image(dip_grouper *g, dip_sample_entry *e, dip_sample_crcs *crcs, bool *keep)
{
    int i = DIP_PART_JPG;
    while (i <= DIP_PART_WEBP && !g->has[i]) i++;
    if (i > DIP_PART_WEBP) return DIP_OK;
    const dip_found_member *image = &g->parts[i];
    if (image->member.n_bytes > MAX_IMAGE_BYTES) {
        char detail[DETAIL_BYTES];
        snprintf(detail, sizeof detail, "its .%s has %llu bytes, at most %d are read",
                 part_extensions[i], (unsigned long long)image->member.n_bytes, MAX_IMAGE_BYTES);
        *keep = false;
        return lose(g, DIP_FAULT_IMAGE_TOO_LARGE, detail);
    }
    e->image_block = (uint32_t)(image->member.offset / DIP_TAR_BLOCK_BYTES);
    e->image_bytes = (uint32_t)image->member.n_bytes;
    crcs->image = image->crc;
    return DIP_OK;
}

static dip_status take_caption(dip_grouper *g, dip_sample_entry *e, dip_sample_crcs *crcs,
                               bool *keep)
{
    const dip_part part = g->needs & DIP_CAPTION_JSON ? DIP_PART_JSON : DIP_PART_TXT;
    const int limit = part == DIP_PART_JSON ? MAX_JSON_BYTES : MAX_CAPTION_BYTES;
    const dip_found_member *caption = &g->parts[part];
    if (!g->has[part]) return DIP_OK;
    if (caption->member.n_bytes > (uint64_t)limit) {
        char detail[DETAIL_BYTES];
        snprintf(detail, sizeof detail, "its .%s has %llu bytes, at most %d are read",
                 part_extensions[part], (unsigned long long)caption->member.n_bytes, limit);
        *keep = false;
        return lose(g, DIP_FAULT_NO_CAPTION, detail);
    }
    e->caption_block = (uint32_t)(caption->member.offset / DIP_TAR_BLOCK_BYTES);
    e->caption_bytes = (uint32_t)caption->member.n_bytes;
    crcs->caption = caption->crc;
    return DIP_OK;
}

static dip_status check_complete(dip_grouper *g, const dip_sample_entry *e, bool *keep)
{
    const int needs = g->needs;
    const bool names = needs & DIP_NAMES_INCOMPLETE;
    const bool apart = (!e->image_block || !e->caption_block) && seen_incomplete(g);
    if (!e->image_block && (names || (needs & DIP_NEEDS_IMAGE))) {
        if (needs & DIP_NEEDS_IMAGE) *keep = false;
        DIP_TRY(lose_incomplete(g, DIP_FAULT_NO_IMAGE, "no jpg, jpeg, png or webp member", apart));
    }
    const bool nothing_said = e->image_block && !e->caption_block && !g->has[DIP_PART_CLS];
    if (*keep && !e->caption_block && ((names && nothing_said) || (needs & DIP_NEEDS_CAPTION))) {
        if (needs & DIP_NEEDS_CAPTION) *keep = false;
        return lose_incomplete(g, DIP_FAULT_NO_CAPTION,
                               needs & DIP_CAPTION_JSON ? "no json member" : "no txt member",
                               apart);
    }
    return DIP_OK;
}

static dip_status store(dip_grouper *g, dip_sample_entry *e, const dip_sample_crcs *crcs)
{
    dip_shard_samples *into = g->into;
    if (into->keys_bytes + g->key_bytes + 1 > UINT32_MAX) return no_memory();
    void *keys = into->keys, *entries = into->entries, *sums = into->crcs;
    DIP_TRY(grow(&keys, &into->keys_capacity, into->keys_bytes + g->key_bytes + 1, 1));
    into->keys = keys;
    DIP_TRY(grow(&entries, &into->capacity, into->n + 1, sizeof *into->entries));
    into->entries = entries;
    if (into->has_crcs) {
        DIP_TRY(grow(&sums, &into->crcs_capacity, into->n + 1, sizeof *into->crcs));
        into->crcs = sums;
        into->crcs[into->n] = *crcs;
    }
    e->key_at = (uint32_t)into->keys_bytes;
    memcpy(into->keys + into->keys_bytes, g->key, g->key_bytes + 1);
    into->keys_bytes += g->key_bytes + 1;
    into->entries[into->n++] = *e;
    return DIP_OK;
}

/* A member's data that the file no longer holds. */
static const dip_found_member *lost_member(const dip_grouper *g, const char **extension)
{
    for (int i = 0; i < DIP_N_PARTS; i++) {
        *extension = part_extensions[i];
        if (g->has[i] && g->parts[i].lost) return &g->parts[i];
    }
    return NULL;
}

/* Take the collected sample into the index, or name it in the ledger. */
static dip_status close_group(dip_grouper *g)
{
    if (!g->open) return DIP_OK;
    g->open = false;
    if (g->duplicate)
        return lose(g, DIP_FAULT_DUPLICATE_MEMBER,
                    "which of them belongs to the sample cannot be known");
    const char *extension;
    const dip_found_member *lost = lost_member(g, &extension);
    if (lost) {
        char detail[DETAIL_BYTES];
        snprintf(detail, sizeof detail, "its .%s should reach byte %llu, the file ends at %llu",
                 extension, (unsigned long long)(lost->member.offset + lost->member.n_bytes),
                 (unsigned long long)dip_shard_bytes(g->shard));
        return lose(g, DIP_FAULT_TAR, detail);
    }
    dip_sample_entry e = {.label = -1};
    dip_sample_crcs crcs = {0};
    bool keep = true;
    DIP_TRY(take_image(g, &e, &crcs, &keep));
    if (keep) DIP_TRY(take_caption(g, &e, &crcs, &keep));
    const bool any = e.image_block || e.caption_block || g->has[DIP_PART_CLS];
    if (!any || !keep) return DIP_OK; /* without any: members of other kinds, e.g. a README.md */
    DIP_TRY(check_complete(g, &e, &keep));
    if (keep) DIP_TRY(take_label(g, &e, &keep));
    return keep ? store(g, &e, &crcs) : DIP_OK;
}

static dip_status begin_group(dip_grouper *g, const char *name, size_t key_bytes)
{
    void *key = g->key;
    DIP_TRY(grow(&key, &g->key_capacity, key_bytes + 1, 1));
    g->key = key;
    memcpy(g->key, name, key_bytes);
    g->key[key_bytes] = '\0';
    g->key_bytes = key_bytes;
    g->open = true;
    g->duplicate = false;
    memset(g->has, 0, sizeof g->has);
    return DIP_OK;
}

dip_status dip_grouper_add(dip_grouper *g, const dip_found_member *found)
{
    size_t key_bytes;
    const char *extension, *name = found->member.name;
    if (!dip_member_split(name, &key_bytes, &extension)) return DIP_OK;
    if (!g->open || key_bytes != g->key_bytes || memcmp(g->key, name, key_bytes) != 0) {
        DIP_TRY(close_group(g));
        DIP_TRY(begin_group(g, name, key_bytes));
    }
    for (int i = 0; i < DIP_N_PARTS; i++) {
        if (strcasecmp(extension, part_extensions[i]) != 0) continue;
        if (g->has[i]) g->duplicate = true;
        g->has[i] = true;
        g->parts[i] = *found;
        break;
    }
    return DIP_OK;
}

dip_status dip_grouper_cut(dip_grouper *g)
{
    DIP_TRY(close_group(g));
    forget_incomplete(g); /* nor is it known what was packed apart */
    return DIP_OK;
}

dip_status dip_grouper_end(dip_grouper *g)
{
    return dip_grouper_cut(g);
}

void dip_grouper_init(dip_grouper *g, int needs)
{
    *g = (dip_grouper){.needs = needs};
}

void dip_grouper_begin(dip_grouper *g, const dip_shard *shard, dip_shard_samples *into)
{
    g->shard = shard;
    g->into = into;
    g->open = false;
    forget_incomplete(g);
}

void dip_grouper_free(dip_grouper *g)
{
    free(g->key);
    free(g->incomplete);
    free(g->used);
}
