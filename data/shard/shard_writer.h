/* shard_writer.h - write WebDataset shards: OUT/{00000..}.tar, each atomically, and the index of
 * each beside it (OUT/00000.tar.idx, shard_index.h), as soon as the shard is in place.
 *
 * Members are ustar (PAX 'x' for names over the limits), mode 0444, mtime 0, owner 0, so that
 * the same input gives the same bytes. A sample's members share a key and are consecutive.
 *
 * Usage:   dip_shard_writer_open, dip_shard_writer_add per sample, dip_shard_writer_close.
 *          To go on after being killed: call dip_shard_writer_finish where dip_shard_writer_full
 *          says so, write down what is finished, hand that to dip_shard_writer_resume next time.
 * Errors:  DIP_IO, DIP_CONFIG (output pattern), DIP_NOMEM.                               */
#ifndef DIP_DATA_SHARD_WRITER_H
#define DIP_DATA_SHARD_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/config.h" /* dip_string_list */
#include "core/status.h"

typedef struct dip_shard_part {
    const char *extension; /* "jpg", "png", "txt", "cls", "json" */
    const void *data;
    size_t n_bytes;
} dip_shard_part;

typedef struct dip_shard_writer dip_shard_writer;

/* The files in the pattern's folder that have the pattern's form, whatever their number, sorted.
 * A missing folder has none. A shard list must not mix two runs: refuse, or remove them. Free
 * with dip_string_list_free (pattern.h). */
dip_status dip_shard_writer_existing(dip_string_list *paths, const char *pattern);

/* `pattern` holds one open brace range: 'out/{00000..}.tar' (start number and width), in its last
 * part. The folder is made. After a successful close it also holds sizes.json:
 * {"00000.tar": n, ...}. */
dip_status dip_shard_writer_open(dip_shard_writer **writer, const char *pattern,
                                 int64_t samples_per_shard);
/* At close, remove files of the pattern's form that this writer did not write: what an earlier,
 * longer run left, with the unfinished files (NAME.tmp-...) of runs that were killed. Nothing is
 * removed when anything fails. */
void dip_shard_writer_replace(dip_shard_writer *writer);
/* Begin the next shard, too, where this one would become larger; 0: no limit. A sample that is
 * larger by itself gets a shard of its own. */
void dip_shard_writer_limit(dip_shard_writer *writer, int64_t max_shard_bytes);

typedef struct dip_finished_shard {
    int64_t number; /* from 0, whatever the pattern begins with */
    int64_t n_samples, n_bytes;
} dip_finished_shard;

/* Count a shard of an earlier run as finished; in the order of their numbers, before any sample is
 * added. DIP_CONFIG: it is not there as it was. */
dip_status dip_shard_writer_resume(dip_shard_writer *writer, const dip_finished_shard *shard);
/* Remove the unfinished files (NAME.tmp-...) of runs that were killed. */
dip_status dip_shard_writer_clean(dip_shard_writer *writer);

/* The key is the sample's number, zero-padded to 9 digits or more (img2dataset's habit). The shard
 * before is finished first if this sample has no room in it. */
dip_status dip_shard_writer_add(dip_shard_writer *writer, const dip_shard_part *parts,
                                size_t n_parts);
/* Has this sample no room in the shard being written? */
bool dip_shard_writer_full(const dip_shard_writer *writer, const dip_shard_part *parts,
                           size_t n_parts);
/* The shard being written is on disk after it, and `finished` (unless NULL) says which. DIP_END:
 * there is none. */
dip_status dip_shard_writer_finish(dip_shard_writer *writer, dip_finished_shard *finished);
/* Finish the last shard, write sizes.json, remove what dip_shard_writer_replace asks for. */
dip_status dip_shard_writer_complete(dip_shard_writer *writer);

dip_status dip_shard_writer_close(dip_shard_writer *writer); /* complete, or else abort; frees */
/* Frees; finished shards stay, the one being written goes. Accepts NULL. */
void dip_shard_writer_leave(dip_shard_writer *writer);
/* Frees, and removes the shards this writer had finished: all or nothing. Accepts NULL. */
void dip_shard_writer_abort(dip_shard_writer *writer);

const char *dip_shard_writer_folder(const dip_shard_writer *writer);
int64_t dip_shard_writer_samples(const dip_shard_writer *writer);
int64_t dip_shard_writer_shards(const dip_shard_writer *writer);

#endif
