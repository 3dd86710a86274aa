/* faults_internal.h - what faults.c (the ledger) and faults_file.c (its file) share. */
#ifndef DIP_DATA_FAULTS_INTERNAL_H
#define DIP_DATA_FAULTS_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "data/faults.h"

/* 128 bits of a (kind, where): two different samples meet with a chance below 1e-20 even for
 * a billion faults, and some tens of bytes a fault are what a bad data set costs. */
typedef struct dip_digest {
    uint64_t low, high;
} dip_digest;

typedef struct dip_digest_set {
    dip_digest *slots; /* open addressing; {0, 0} is empty */
    size_t n, n_slots;
} dip_digest_set;

/* False if it was there. Without memory to remember it, it counts as new: a sample counted twice is
 * better than one not counted. */
bool dip_digest_set_add(dip_digest_set *set, dip_digest digest);
bool dip_digest_set_has(const dip_digest_set *set, dip_digest digest);

/* A fault in words that can be printed. */
typedef struct dip_fault {
    dip_fault_kind kind;
    dip_digest digest;
    int64_t offset;
    char *shard, *key, *detail; /* malloc'd; key may be NULL */
} dip_fault;

/* "shard: key", "shard: at byte N" or "shard", into buf. What a fault is known by. */
enum { DIP_FAULT_WHERE_BYTES = 1280 };
const char *dip_fault_where(char buf[DIP_FAULT_WHERE_BYTES], const char *shard, const char *key,
                            int64_t offset);
dip_digest dip_fault_digest(dip_fault_kind kind, const char *where);

/* The open file of dip_faults_record. */
typedef struct dip_faults_file {
    int fd;
    char *path; /* NULL: there is none */
    int64_t n_lines, max_lines;
    bool failed; /* a line could not be written, and that was said */
} dip_faults_file;

struct dip_faults {
    pthread_mutex_t lock;
    int64_t counts[DIP_N_FAULT_KINDS];
    dip_fault *kept;
    size_t n_kept, capacity;
    dip_digest_set seen;
    dip_faults_file file;
};

/* With the lock held. */
void dip_faults_file_add(dip_faults_file *file, const dip_fault *fault);
void dip_faults_file_close(dip_faults_file *file);

#endif
