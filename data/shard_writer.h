/* shard_writer.h - write WebDataset shards: OUT/{00000..}.tar, each atomically.
 *
 * Members are ustar (PAX 'x' for names over the limits), mode 0444, mtime 0, owner 0, so that
 * the same input gives the same bytes. A sample's members share a key and are consecutive.
 *
 * Usage:   dip_shard_writer_open, dip_shard_writer_add per sample, dip_shard_writer_close.
 * Errors:  DIP_IO, DIP_CONFIG (output pattern), DIP_NOMEM.                               */
#ifndef DIP_DATA_SHARD_WRITER_H
#define DIP_DATA_SHARD_WRITER_H

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
/* The key is the sample's number, zero-padded to 9 digits or more (img2dataset's habit). */
dip_status dip_shard_writer_add(dip_shard_writer *writer, const dip_shard_part *parts,
                                size_t n_parts);
dip_status dip_shard_writer_close(dip_shard_writer *writer); /* finishes the last shard; frees */
/* Frees, and removes the shards this writer had finished: all or nothing. Accepts NULL. */
void dip_shard_writer_abort(dip_shard_writer *writer);

int64_t dip_shard_writer_samples(const dip_shard_writer *writer);
int64_t dip_shard_writer_shards(const dip_shard_writer *writer);

#endif
