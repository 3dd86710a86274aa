/* shard.h - find the members of one tar shard.
 *
 * Reads ustar (with prefix), GNU long names ('L', 'K'), base-256 sizes, PAX 'x' and 'g'
 * records (path, size). Members that are no files (links, devices, folders) are skipped and
 * counted; a sparse file is a fault. Names are text, never used as paths.
 *
 * Usage:   dip_shard_open, dip_shard_next until DIP_END, dip_shard_read for the bytes of a member,
 *          dip_shard_close.
 * Owns:    the open file, read through a small window and never mapped: a file that becomes
 *          shorter is a fault, not a signal. A member's name is valid until the next call.
 * Threads: one reader per thread.
 * Errors:  DIP_IO; DIP_NOMEM; DIP_FORMAT from dip_shard_open for a file that is something else
 *          (compressed, HTML, a Git LFS pointer: the sentence says what). DIP_FORMAT from
 *          dip_shard_next names the byte offset; the reader has moved to the next believable
 *          header (or the end), so the caller may count the fault and go on. What comes after
 *          a fault must not be joined to what came before it: members are missing between. */
#ifndef DIP_DATA_SHARD_H
#define DIP_DATA_SHARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

typedef struct dip_member {
    const char *name; /* as stored, NUL-terminated */
    uint64_t n_bytes;
    uint64_t offset; /* of its data in the file */
} dip_member;

typedef struct dip_shard dip_shard;

dip_status dip_shard_open(dip_shard **shard, const char *path);
/* The same in two steps: the first reads not a byte of it, dip_shard_check refuses what is
 * something else. */
dip_status dip_shard_open_unread(dip_shard **shard, const char *path);
dip_status dip_shard_check(dip_shard *shard);
dip_status dip_shard_next(dip_shard *shard, dip_member *member);
/* dip_shard_next begins again with the first member. */
void dip_shard_rewind(dip_shard *shard);
/* n_bytes from `offset` of the file into `out`. DIP_FORMAT: the file ends before them. */
dip_status dip_shard_read(const dip_shard *shard, void *out, uint64_t offset, size_t n_bytes);
void dip_shard_close(dip_shard *shard); /* accepts NULL */

const char *dip_shard_path(const dip_shard *shard);
/* Size and time of the last change, as they were when it was opened. */
uint64_t dip_shard_bytes(const dip_shard *shard);
int64_t dip_shard_changed_ns(const dip_shard *shard);

/* Of the last DIP_FORMAT of dip_shard_next: where the damage was found, and the sentence without
 * path and place. */
uint64_t dip_shard_damage_at(const dip_shard *shard);
const char *dip_shard_damage(const dip_shard *shard);

/* After DIP_END: the file had no end-of-archive block, so it may have been cut exactly between
 * two members; everything before was read. */
bool dip_shard_unfinished(const dip_shard *shard);
/* Links and devices skipped so far (folders are not counted: they hold nothing). */
int64_t dip_shard_skipped(const dip_shard *shard);

/* WebDataset's key rule: key = folder + basename up to its first dot; extension = the rest,
 * as stored (compare it without regard to case). Returns 0 when the name has no key or no
 * extension, or is WebDataset's own (__name__). key_bytes is the length of the key inside
 * name; *extension points after the dot. */
int dip_member_split(const char *name, size_t *key_bytes, const char **extension);

#endif
