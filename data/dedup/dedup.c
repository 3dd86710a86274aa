#include "data/dedup/dedup.h"

#include <stdbool.h>
#include <stdlib.h>

enum {
    N_PARTS = 4,
    PART_BITS = 16,
    N_HEADS = 1 << PART_BITS,
    MAX_MEAN_STEPS = 16, /* of 255: re-encoding moves a mean by one or two */
    FIRST_CAPACITY = 1024
};

typedef struct exact_entry {
    dip_digest digest;
    int64_t number; /* -1: free */
} exact_entry;

typedef struct near_entry {
    dip_phash phash;
    int64_t number;
    uint32_t next[N_PARTS]; /* entry + 1 in the same chain; 0: the last */
} near_entry;

struct dip_dedup {
    dip_dedup_kind kind;
    int distance;
    exact_entry *slots; /* open addressing, at most half full */
    near_entry *entries;
    uint32_t *heads; /* [N_PARTS][N_HEADS] entry + 1 */
    size_t n, capacity;
};

static dip_status no_memory(void)
{
    return dip_fail(DIP_NOMEM, "no memory to remember the images for --dedup");
}

static exact_entry *make_slots(size_t n)
{
    exact_entry *slots = malloc(n * sizeof *slots);
    for (size_t i = 0; slots && i < n; i++) slots[i].number = -1;
    return slots;
}

dip_status dip_dedup_open(dip_dedup **out, dip_dedup_kind kind, int distance)
{
    *out = NULL;
    if (distance < 0 || distance > DIP_DEDUP_MAX_DISTANCE)
        return dip_fail(DIP_CONFIG, "a distance of %d bits, it must be 0 to %d", distance,
                        DIP_DEDUP_MAX_DISTANCE);
    dip_dedup *dedup = calloc(1, sizeof *dedup);
    if (!dedup) return no_memory();
    *dedup = (dip_dedup){.kind = kind, .distance = distance, .capacity = FIRST_CAPACITY};
    if (kind == DIP_DEDUP_EXACT) {
        dedup->slots = make_slots(dedup->capacity);
    } else {
        dedup->entries = malloc(dedup->capacity * sizeof *dedup->entries);
        dedup->heads = calloc((size_t)N_PARTS * N_HEADS, sizeof *dedup->heads);
    }
    if (!dedup->slots && (!dedup->entries || !dedup->heads)) {
        dip_dedup_close(dedup);
        return no_memory();
    }
    *out = dedup;
    return DIP_OK;
}

void dip_dedup_close(dip_dedup *dedup)
{
    if (!dedup) return;
    free(dedup->slots);
    free(dedup->entries);
    free(dedup->heads);
    free(dedup);
}

/* Exact. */

/* The slot where the digest is or belongs. */
static exact_entry *slot_of(exact_entry *slots, size_t capacity, dip_digest digest)
{
    size_t at = (size_t)digest.low & (capacity - 1);
    while (slots[at].number >= 0 && !dip_digest_equal(slots[at].digest, digest))
        at = (at + 1) & (capacity - 1);
    return &slots[at];
}

static dip_status keep_exact(dip_dedup *dedup, dip_digest digest, int64_t number)
{
    if (dedup->n * 2 >= dedup->capacity) {
        exact_entry *slots = make_slots(dedup->capacity * 2);
        if (!slots) return no_memory();
        for (size_t i = 0; i < dedup->capacity; i++)
            if (dedup->slots[i].number >= 0)
                *slot_of(slots, dedup->capacity * 2, dedup->slots[i].digest) = dedup->slots[i];
        free(dedup->slots);
        dedup->slots = slots;
        dedup->capacity *= 2;
    }
    exact_entry *slot = slot_of(dedup->slots, dedup->capacity, digest);
    if (slot->number < 0) {
        *slot = (exact_entry){digest, number};
        dedup->n++;
    } else if (number < slot->number) {
        slot->number = number;
    }
    return DIP_OK;
}

/* Near. */

static uint32_t part_of(uint64_t bits, int part)
{
    return (uint32_t)(bits >> (part * PART_BITS)) & (N_HEADS - 1);
}

static bool same_colour(const dip_phash *a, const dip_phash *b)
{
    for (int c = 0; c < 3; c++)
        if (abs(a->mean[c] - b->mean[c]) > MAX_MEAN_STEPS) return false;
    return true;
}

typedef struct search {
    const dip_dedup *dedup;
    const dip_phash *phash;
    int64_t found; /* -1: none yet */
    int distance;
} search;

static void search_chain(search *s, int part, uint32_t value)
{
    uint32_t at = s->dedup->heads[(size_t)part * N_HEADS + value];
    while (at) {
        const near_entry *entry = &s->dedup->entries[at - 1];
        int distance = dip_phash_distance(entry->phash.bits, s->phash->bits);
        if (distance <= s->dedup->distance && (s->found < 0 || entry->number < s->found) &&
            same_colour(&entry->phash, s->phash)) {
            s->found = entry->number;
            s->distance = distance;
        }
        at = entry->next[part];
    }
}

/* All values that differ from this one in at most n_flips of the bits from `bit` on. */
static void search_around(search *s, int part, uint32_t value, int bit, int n_flips)
{
    search_chain(s, part, value);
    for (int b = bit; n_flips > 0 && b < PART_BITS; b++)
        search_around(s, part, value ^ (1u << b), b + 1, n_flips - 1);
}

static dip_status keep_near(dip_dedup *dedup, const dip_phash *phash, int64_t number)
{
    if (dedup->n == UINT32_MAX - 1)
        return dip_fail(DIP_CONFIG, "more than %zu images for --dedup near", dedup->n);
    if (dedup->n == dedup->capacity) {
        near_entry *entries = realloc(dedup->entries, dedup->capacity * 2 * sizeof *dedup->entries);
        if (!entries) return no_memory();
        dedup->entries = entries;
        dedup->capacity *= 2;
    }
    near_entry *entry = &dedup->entries[dedup->n++];
    *entry = (near_entry){.phash = *phash, .number = number};
    for (int part = 0; part < N_PARTS; part++) {
        uint32_t *head = &dedup->heads[(size_t)part * N_HEADS + part_of(phash->bits, part)];
        entry->next[part] = *head;
        *head = (uint32_t)dedup->n;
    }
    return DIP_OK;
}

int64_t dip_dedup_find(const dip_dedup *dedup, const dip_dedup_sign *sign, int *distance)
{
    *distance = 0;
    if (dedup->kind == DIP_DEDUP_EXACT)
        return slot_of(dedup->slots, dedup->capacity, sign->digest)->number;
    search s = {.dedup = dedup, .phash = &sign->phash, .found = -1};
    for (int part = 0; part < N_PARTS; part++)
        search_around(&s, part, part_of(sign->phash.bits, part), 0, dedup->distance / N_PARTS);
    *distance = s.distance;
    return s.found;
}

dip_status dip_dedup_keep(dip_dedup *dedup, const dip_dedup_sign *sign, int64_t number)
{
    return dedup->kind == DIP_DEDUP_EXACT ? keep_exact(dedup, sign->digest, number)
                                          : keep_near(dedup, &sign->phash, number);
}
