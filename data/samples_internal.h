/* samples_internal.h - what samples.c, sample_shard.c, sample_group.c and sample_reader.c share:
 * the samples of one shard, found by one thread, and its part of the ledger, which waits until its
 * turn comes.
 *
 * Usage:   dip_grouper_init; for each shard dip_grouper_begin, then dip_grouper_add a member or
 *          dip_grouper_cut where members are missing, dip_grouper_end; dip_grouper_free.   */
#ifndef DIP_DATA_SAMPLES_INTERNAL_H
#define DIP_DATA_SAMPLES_INTERNAL_H

#include "data/samples.h"
#include "data/shard/shard.h"

/* Where a member's bytes lie. Data in a tar begins at a multiple of 512 bytes, and never at 0. */
typedef struct dip_sample_entry {
    uint32_t image_block, caption_block; /* 0: none */
    uint32_t image_bytes, caption_bytes;
    uint32_t key_at; /* in the shard's keys */
    int32_t label;
} dip_sample_entry;

typedef struct dip_sample_crcs {
    uint32_t image, caption;
} dip_sample_crcs;

/* A line for the ledger. */
typedef struct dip_found_fault {
    dip_fault_kind kind;
    int64_t offset; /* -1: unknown */
    char *key;      /* NULL: the shard's own */
    char *detail;
} dip_found_fault;

typedef struct dip_shard_samples {
    char *path;
    uint64_t file_bytes; /* when it was looked through, and its last change */
    int64_t changed_ns;
    int64_t first; /* number of its first sample */
    dip_sample_entry *entries;
    dip_sample_crcs *crcs; /* NULL: not known */
    size_t n, capacity, crcs_capacity;
    char *keys; /* NUL-terminated, one a sample */
    size_t keys_bytes, keys_capacity;
    dip_found_fault *faults; /* until the ledger has them */
    size_t n_faults, faults_capacity;
    int64_t n_skipped; /* members that are no files */
    bool has_crcs;     /* its members come from an index */
    char *warning;     /* why its index was not used; NULL: nothing to say */
} dip_shard_samples;

struct dip_samples {
    dip_shard_samples *shards;
    size_t n_shards;
    int64_t n_samples, n_warnings;
    int needs;
    bool ignore_index;
};

/* The members a sample may have. Of several images the first of this order is taken, which is
 * open_clip's order. */
typedef enum dip_part {
    DIP_PART_JPG,
    DIP_PART_PNG,
    DIP_PART_JPEG,
    DIP_PART_WEBP,
    DIP_PART_TXT,
    DIP_PART_JSON,
    DIP_PART_CLS,
    DIP_N_PARTS
} dip_part;

/* A member, and what an index knows about it. */
typedef struct dip_found_member {
    dip_member member;
    bool lost;    /* the file ends before its data does */
    uint32_t crc; /* when the shard has_crcs */
} dip_found_member;

/* Collects the members of one sample after the other. */
typedef struct dip_grouper {
    int needs;
    const dip_shard *shard; /* being looked through */
    dip_shard_samples *into;
    char *key; /* of the sample being collected: a copy, since a member's name is short-lived */
    size_t key_bytes, key_capacity;
    bool open, duplicate;
    bool has[DIP_N_PARTS];
    dip_found_member parts[DIP_N_PARTS];
    /* Hashes of the keys that came without all their members, in this shard: a later member of such
     * a key was packed apart from them. Open addressing, 0 is empty. */
    uint64_t *incomplete;
    uint32_t *used; /* slots that are not empty */
    size_t n_used;
} dip_grouper;

void dip_grouper_init(dip_grouper *grouper, int needs);
void dip_grouper_free(dip_grouper *grouper);
void dip_grouper_begin(dip_grouper *grouper, const dip_shard *shard, dip_shard_samples *into);
dip_status dip_grouper_add(dip_grouper *grouper, const dip_found_member *member);
/* Members are missing here: what comes is not joined to what came. */
dip_status dip_grouper_cut(dip_grouper *grouper);
dip_status dip_grouper_end(dip_grouper *grouper);

dip_status dip_shard_samples_fault(dip_shard_samples *shard, dip_fault_kind kind, const char *key,
                                   int64_t offset, const char *detail);

/* Fill in `into`, of which the path is given. */
dip_status dip_shard_samples_find(dip_shard_samples *into, dip_grouper *grouper, bool ignore_index);

/* The shard that holds sample `index`. */
const dip_shard_samples *dip_samples_shard_of(const dip_samples *samples, int64_t index);

#endif
