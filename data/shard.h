/* shard.h - read the members of one tar shard, in place.
 *
 * Reads ustar (with prefix), GNU long names ('L', 'K'), base-256 sizes, PAX 'x' and 'g'
 * records (path, size). Members that are no files (links, devices, folders) are skipped and
 * counted; a sparse file is a fault. Names are text, never used as paths.
 *
 * Usage:   dip_shard_open, dip_shard_next until DIP_END, dip_shard_close.
 * Owns:    a read-only mapping of the file. A member's bytes are valid until close; its
 *          name until the next call.
 * Threads: one reader per thread; the mapped bytes may be read by all.
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

#include "core/file.h"
#include "core/status.h"

typedef struct dip_member {
    const char *name; /* as stored, NUL-terminated */
    const uint8_t *data;
    size_t n_bytes;
    uint64_t offset; /* of data in the file */
} dip_member;

typedef struct dip_shard dip_shard;

dip_status dip_shard_open(dip_shard **shard, const char *path);
dip_status dip_shard_next(dip_shard *shard, dip_member *member);
void dip_shard_close(dip_shard *shard); /* accepts NULL */
const char *dip_shard_path(const dip_shard *shard);
dip_map dip_shard_map(const dip_shard *shard); /* the whole file, valid until close */

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
