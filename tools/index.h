/* index.h - one shard of `diptych index`: read through once, and its index written beside it.
 *
 * An index is written for a shard with which nothing is wrong: with one, headers are no longer
 * read, and what is wrong with them would no longer be said. Nothing is ever removed.
 *
 * Usage:   index_maker_open a thread; index_make a shard; index_result_free; index_maker_close.
 * Threads: a maker is one thread's; the ledger and `advance` are everybody's.
 * Errors:  what is wrong with a shard goes to the ledger and is no error; DIP_IO, DIP_NOMEM, and
 *          what `advance` returns.                                                         */
#ifndef DIP_TOOLS_INDEX_H
#define DIP_TOOLS_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#include "core/status.h"
#include "data/faults.h"

typedef enum index_outcome {
    INDEX_WRITTEN,
    INDEX_REPLACED, /* one was there, and was not right or was not wanted */
    INDEX_KEPT,     /* one was there and fits; the shard was not read */
    INDEX_REFUSED,  /* something is wrong, the ledger says what; a file that was there stays */
    INDEX_N_OUTCOMES
} index_outcome;

typedef struct index_result {
    index_outcome outcome;
    int64_t n_members, n_skipped; /* of a shard that was read: files; links and devices */
    char *note;                   /* why an index was replaced, if it was not right; else NULL */
} index_result;
void index_result_free(index_result *result);

typedef struct index_maker_options {
    bool force; /* write anew what fits, and over files of other software */
    dip_faults *faults;
    dip_status (*advance)(void *context, uint64_t n_bytes); /* so many more were read */
    void *context;
} index_maker_options;

typedef struct index_maker index_maker;

dip_status index_maker_open(index_maker **maker, const index_maker_options *options);
void index_maker_close(index_maker *maker); /* accepts NULL */

dip_status index_make(index_maker *maker, index_result *result, const char *path);

#endif
