#include "data/faults.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"

enum {
    LOGGED_PER_KIND = 20,
    MAX_KEPT = 1000,
    PRINTED_PER_KIND = 3,
    LINE_BYTES = 600 /* of a name or a detail, made printable */
};

typedef struct fault {
    dip_fault_kind kind;
    char *text; /* "where (detail)", printable */
} fault;

/* 128 bits of a (kind, where): two different samples meet with a chance below 1e-20 even for
 * a billion faults, and 16 bytes a fault is what a bad data set costs. */
typedef struct digest {
    uint64_t low, high;
} digest;

struct dip_faults {
    pthread_mutex_t lock;
    int64_t counts[DIP_N_FAULT_KINDS];
    fault kept[MAX_KEPT];
    size_t n_kept;
    digest *seen; /* open addressing; {0, 0} is empty */
    size_t n_seen, n_slots;
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

void dip_faults_close(dip_faults *faults)
{
    if (!faults) return;
    for (size_t i = 0; i < faults->n_kept; i++) free(faults->kept[i].text);
    free(faults->seen);
    pthread_mutex_destroy(&faults->lock);
    free(faults);
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93ull;
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93ull;
    return x ^ (x >> 32);
}

static bool is_empty(digest d)
{
    return d.low == 0 && d.high == 0;
}

static digest digest_of(dip_fault_kind kind, const char *where)
{
    digest d = {mix((uint64_t)kind + 1), mix((uint64_t)kind + 0x9e3779b97f4a7c15ull)};
    for (const char *p = where; *p; p++) {
        d.low = mix(d.low + (unsigned char)*p);
        d.high = (d.high ^ (unsigned char)*p) * 0x100000001b3ull;
    }
    d.high = mix(d.high);
    if (is_empty(d)) d.low = 1;
    return d;
}

/* The slot where d is or belongs; at least one slot is empty. */
static digest *slot_of(digest *slots, size_t n_slots, digest d)
{
    size_t i = (size_t)d.low & (n_slots - 1);
    while (!is_empty(slots[i]) && (slots[i].low != d.low || slots[i].high != d.high))
        i = (i + 1) & (n_slots - 1);
    return &slots[i];
}

static void grow(dip_faults *faults)
{
    size_t n_slots = faults->n_slots ? faults->n_slots * 2 : 64;
    digest *seen = calloc(n_slots, sizeof *seen);
    if (!seen) return;
    for (size_t i = 0; i < faults->n_slots; i++)
        if (!is_empty(faults->seen[i])) *slot_of(seen, n_slots, faults->seen[i]) = faults->seen[i];
    free(faults->seen);
    faults->seen = seen;
    faults->n_slots = n_slots;
}

/* Remember d; false if it was known. Without memory to remember it, it counts as new: a
 * sample counted twice is better than one not counted. */
static bool is_new(dip_faults *faults, digest d)
{
    if (faults->n_seen * 2 >= faults->n_slots) grow(faults);
    if (faults->n_slots == 0) return true;
    digest *slot = slot_of(faults->seen, faults->n_slots, d);
    if (!is_empty(*slot)) return false;
    if (faults->n_seen + 1 < faults->n_slots) {
        *slot = d;
        faults->n_seen++;
    }
    return true;
}

/* Names come from archives: control bytes are written \xNN so that a name cannot forge a
 * line of the log or move the cursor. */
static void make_printable(char *out, size_t n_out, const char *text)
{
    static const char hex[] = "0123456789abcdef";
    size_t n = 0;
    for (; *text && n + 8 < n_out; text++) {
        unsigned char c = (unsigned char)*text;
        if (c >= 0x20 && c != 0x7f) {
            out[n++] = (char)c;
        } else {
            out[n++] = '\\';
            out[n++] = 'x';
            out[n++] = hex[c >> 4];
            out[n++] = hex[c & 15];
        }
    }
    if (*text) {
        memcpy(out + n, "...", 3);
        n += 3;
    }
    out[n] = 0;
}

void dip_faults_add(dip_faults *faults, dip_fault_kind kind, const char *where, const char *detail)
{
    char name[LINE_BYTES], reason[LINE_BYTES], text[2 * LINE_BYTES + 4];
    make_printable(name, sizeof name, where);
    make_printable(reason, sizeof reason, detail);
    snprintf(text, sizeof text, reason[0] ? "%s (%s)" : "%s", name, reason);

    pthread_mutex_lock(&faults->lock);
    if (!is_new(faults, digest_of(kind, where))) {
        pthread_mutex_unlock(&faults->lock);
        return;
    }
    int64_t count = ++faults->counts[kind];
    if (faults->n_kept < MAX_KEPT) {
        char *copy = strdup(text);
        if (copy) faults->kept[faults->n_kept++] = (fault){kind, copy};
    }
    pthread_mutex_unlock(&faults->lock);

    if (count <= LOGGED_PER_KIND) dip_warn("%s: %s", dip_fault_text(kind), text);
    if (count == LOGGED_PER_KIND)
        dip_warn("%s: further ones are counted, not shown", dip_fault_text(kind));
}

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
            fprintf(out, "      %s\n", faults->kept[i].text);
            shown++;
        }
        if (faults->counts[kind] > shown && shown > 0)
            fprintf(out, "      and %" PRId64 " more\n", faults->counts[kind] - shown);
    }
    pthread_mutex_unlock(lock_of(faults));
}
