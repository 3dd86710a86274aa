#include "data/faults.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "data/faults_internal.h"
#include "core/utf8.h"

enum {
    LOGGED_PER_KIND = 20,
    MAX_KEPT = 10000,
    PRINTED_PER_KIND = 3,
    LINE_BYTES = 600, /* of a name or a detail, made printable */
    CUT_BYTES = 16    /* "..." and what tells cut names apart */
};

const char *dip_fault_text(dip_fault_kind kind)
{
    static const char *const texts[] = {
#define FAULT_TEXT(name, text) [DIP_FAULT_##name] = text,
        DIP_FAULT_KINDS(FAULT_TEXT)
#undef FAULT_TEXT
    };
    return (unsigned)kind < DIP_N_FAULT_KINDS ? texts[kind] : "unknown fault";
}

dip_status dip_faults_open(dip_faults **faults)
{
    *faults = calloc(1, sizeof **faults);
    if (!*faults) return dip_fail(DIP_NOMEM, "not enough memory for the ledger of bad samples");
    pthread_mutex_init(&(*faults)->lock, NULL);
    return DIP_OK;
}

static void free_fault(dip_fault *fault)
{
    free(fault->shard);
    free(fault->key);
    free(fault->detail);
}

void dip_faults_close(dip_faults *faults)
{
    if (!faults) return;
    dip_faults_file_close(&faults->file);
    for (size_t i = 0; i < faults->n_kept; i++) free_fault(&faults->kept[i]);
    free(faults->kept);
    free(faults->seen.slots);
    pthread_mutex_destroy(&faults->lock);
    free(faults);
}

/* Digests. */

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93ull;
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93ull;
    return x ^ (x >> 32);
}

static bool is_empty(dip_digest d)
{
    return d.low == 0 && d.high == 0;
}

dip_digest dip_fault_digest(dip_fault_kind kind, const char *where)
{
    dip_digest d = {mix((uint64_t)kind + 1), mix((uint64_t)kind + 0x9e3779b97f4a7c15ull)};
    for (const char *p = where; *p; p++) {
        d.low = mix(d.low + (unsigned char)*p);
        d.high = (d.high ^ (unsigned char)*p) * 0x100000001b3ull;
    }
    d.high = mix(d.high);
    if (is_empty(d)) d.low = 1;
    return d;
}

/* The slot where d is or belongs; at least one slot is empty. */
static dip_digest *slot_of(dip_digest *slots, size_t n_slots, dip_digest d)
{
    size_t i = (size_t)d.low & (n_slots - 1);
    while (!is_empty(slots[i]) && (slots[i].low != d.low || slots[i].high != d.high))
        i = (i + 1) & (n_slots - 1);
    return &slots[i];
}

static void grow(dip_digest_set *set)
{
    size_t n_slots = set->n_slots ? set->n_slots * 2 : 64;
    dip_digest *slots = calloc(n_slots, sizeof *slots);
    if (!slots) return;
    for (size_t i = 0; i < set->n_slots; i++)
        if (!is_empty(set->slots[i])) *slot_of(slots, n_slots, set->slots[i]) = set->slots[i];
    free(set->slots);
    set->slots = slots;
    set->n_slots = n_slots;
}

bool dip_digest_set_add(dip_digest_set *set, dip_digest d)
{
    if (set->n * 2 >= set->n_slots) grow(set);
    if (set->n_slots == 0) return true;
    dip_digest *slot = slot_of(set->slots, set->n_slots, d);
    if (!is_empty(*slot)) return false;
    if (set->n + 1 < set->n_slots) {
        *slot = d;
        set->n++;
    }
    return true;
}

bool dip_digest_set_has(const dip_digest_set *set, dip_digest d)
{
    return set->n_slots > 0 && !is_empty(*slot_of(set->slots, set->n_slots, d));
}

/* Names come from archives: control bytes are written \xNN so that a name cannot forge a line of
 * the log or move the cursor, and so are bytes of a text that is not UTF-8. A backslash of a key is
 * one too, or two keys could look the same. */

static size_t escape(char *out, size_t n_out, const char *text, bool utf8)
{
    size_t n = 0;
    for (; *text && n + 4 < n_out; text++) {
        unsigned char c = (unsigned char)*text;
        if (c >= 0x20 && c != 0x7f && (utf8 || c < 0x80))
            out[n++] = (char)c;
        else
            n += (size_t)snprintf(out + n, n_out - n, "\\x%02x", c);
    }
    while (utf8 && *text && n > 0 && ((unsigned char)*text & 0xc0) == 0x80) {
        n--; /* the cut is inside a character: leave out its first bytes too */
        text--;
    }
    out[n] = '\0';
    return n;
}

/* What is too long ends in "..." and a checksum of the whole, so that two names stay two. */
static void make_printable(char out[LINE_BYTES], const char *text, bool key)
{
    char longer[LINE_BYTES + 8];
    bool utf8 = dip_utf8_valid(text, strlen(text));
    if (key)
        dip_text_quote(longer, sizeof longer, text);
    else
        escape(longer, sizeof longer, text, utf8);
    if (strlen(longer) < LINE_BYTES) {
        memcpy(out, longer, strlen(longer) + 1);
        return;
    }
    if (key)
        dip_text_quote(out, LINE_BYTES - CUT_BYTES, text);
    else
        escape(out, LINE_BYTES - CUT_BYTES, text, utf8);
    size_t n = strlen(out);
    snprintf(out + n, LINE_BYTES - n, "...%08" PRIx32, dip_crc32c(0, text, strlen(text)));
}

const char *dip_fault_where(char buf[DIP_FAULT_WHERE_BYTES], const char *shard, const char *key,
                            int64_t offset)
{
    if (key)
        snprintf(buf, DIP_FAULT_WHERE_BYTES, "%s: %s", shard, key);
    else if (offset >= 0)
        snprintf(buf, DIP_FAULT_WHERE_BYTES, "%s: at byte %" PRId64, shard, offset);
    else
        snprintf(buf, DIP_FAULT_WHERE_BYTES, "%s", shard);
    return buf;
}

/* Adding. */

static void keep(dip_faults *faults, const dip_fault *fault)
{
    if (faults->n_kept == MAX_KEPT) return;
    if (faults->n_kept == faults->capacity) {
        size_t capacity = faults->capacity ? 2 * faults->capacity : 16;
        dip_fault *kept = realloc(faults->kept, capacity * sizeof *kept);
        if (!kept) return;
        faults->kept = kept;
        faults->capacity = capacity;
    }
    dip_fault copy = *fault;
    copy.shard = strdup(fault->shard);
    copy.key = fault->key ? strdup(fault->key) : NULL;
    copy.detail = strdup(fault->detail);
    if (copy.shard && copy.detail && (copy.key || !fault->key))
        faults->kept[faults->n_kept++] = copy;
    else
        free_fault(&copy);
}

void dip_faults_add_at(dip_faults *faults, dip_fault_kind kind, const dip_fault_place *place,
                       const char *detail)
{
    char shard[LINE_BYTES], key[LINE_BYTES], reason[LINE_BYTES], where[DIP_FAULT_WHERE_BYTES];
    make_printable(shard, place->shard, false);
    if (place->key) make_printable(key, place->key, true);
    make_printable(reason, detail, false);
    dip_fault fault = {.kind = kind,
                       .offset = place->offset,
                       .shard = shard,
                       .key = place->key ? key : NULL,
                       .detail = reason};
    dip_fault_where(where, shard, fault.key, place->offset);
    fault.digest = dip_fault_digest(kind, where);

    pthread_mutex_lock(&faults->lock);
    if (!dip_digest_set_add(&faults->seen, fault.digest)) {
        pthread_mutex_unlock(&faults->lock);
        return;
    }
    int64_t count = ++faults->counts[kind];
    keep(faults, &fault);
    dip_faults_file_add(&faults->file, &fault);
    pthread_mutex_unlock(&faults->lock);

    if (count <= LOGGED_PER_KIND)
        dip_warn("%s: %s%s%s%s", dip_fault_text(kind), where, reason[0] ? " (" : "", reason,
                 reason[0] ? ")" : "");
    if (count == LOGGED_PER_KIND)
        dip_warn("%s: further ones are counted, not shown", dip_fault_text(kind));
}

void dip_faults_add(dip_faults *faults, dip_fault_kind kind, const char *where, const char *detail)
{
    const dip_fault_place place = {.shard = where, .offset = -1};
    dip_faults_add_at(faults, kind, &place, detail);
}

/* Reading. */

/* The lock of a const ledger: locking changes nothing a caller can see. */
static pthread_mutex_t *lock_of(const dip_faults *faults)
{
    return (pthread_mutex_t *)&faults->lock;
}

int64_t dip_faults_count(const dip_faults *faults, dip_fault_kind kind)
{
    pthread_mutex_lock(lock_of(faults));
    int64_t count = faults->counts[kind];
    pthread_mutex_unlock(lock_of(faults));
    return count;
}

int64_t dip_faults_total(const dip_faults *faults)
{
    int64_t total = 0;
    pthread_mutex_lock(lock_of(faults));
    for (int kind = 0; kind < DIP_N_FAULT_KINDS; kind++) total += faults->counts[kind];
    pthread_mutex_unlock(lock_of(faults));
    return total;
}

static void print_fault(const dip_fault *fault, FILE *out)
{
    char where[DIP_FAULT_WHERE_BYTES];
    fprintf(out, "      %s", dip_fault_where(where, fault->shard, fault->key, fault->offset));
    fprintf(out, fault->detail[0] ? " (%s)\n" : "%s\n", fault->detail);
}

void dip_faults_print(const dip_faults *faults, FILE *out)
{
    int64_t total = dip_faults_total(faults);
    if (total == 0) return;
    fprintf(out, "%" PRId64 " sample%s could not be used:\n", total, total == 1 ? "" : "s");
    pthread_mutex_lock(lock_of(faults));
    for (int kind = 0; kind < DIP_N_FAULT_KINDS; kind++) {
        if (faults->counts[kind] == 0) continue;
        fprintf(out, "  %" PRId64 " x %s\n", faults->counts[kind],
                dip_fault_text((dip_fault_kind)kind));
        int64_t shown = 0;
        for (size_t i = 0; i < faults->n_kept && shown < PRINTED_PER_KIND; i++) {
            if ((int)faults->kept[i].kind != kind) continue;
            print_fault(&faults->kept[i], out);
            shown++;
        }
        if (faults->counts[kind] > shown && shown > 0)
            fprintf(out, "      and %" PRId64 " more\n", faults->counts[kind] - shown);
    }
    pthread_mutex_unlock(lock_of(faults));
}
