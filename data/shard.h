/* shard.h - read the members of one tar shard, in place.
 *
 * Reads ustar (with prefix), GNU long names ('L', 'K'), base-256 sizes, PAX 'x' and 'g'
 * records (path, size). Other kinds of members (links, devices, folders, sparse files) are
 * skipped. Names are text, never used as paths.
 *
 * Usage:   dip_shard_open, dip_shard_next until DIP_END, dip_shard_close.
 * Owns:    a read-only mapping of the file. A member's bytes are valid until close; its
 *          name until the next call.
 * Threads: one reader per thread; the mapped bytes may be read by all.
 * Errors:  DIP_IO; DIP_FORMAT with the byte offset. After DIP_FORMAT from dip_shard_next the
 *          reader has moved to the next believable header (or the end), so the caller may
 *          count the fault and go on.                                                    */
#ifndef DIP_DATA_SHARD_H
#define DIP_DATA_SHARD_H

#include <stddef.h>
#include <stdint.h>

#include "core/file.h"
#include "core/status.h"

typedef struct dip_member {
    const char *name;      /* as stored, NUL-terminated */
    const uint8_t *data;
    size_t n_bytes;
    uint64_t offset;       /* of data in the file */
} dip_member;

typedef struct dip_shard dip_shard;

dip_status dip_shard_open(dip_shard **shard, const char *path);
dip_status dip_shard_next(dip_shard *shard, dip_member *member);
void dip_shard_close(dip_shard *shard); /* accepts NULL */
const char *dip_shard_path(const dip_shard *shard);

/* WebDataset's key rule: key = folder + basename up to its first dot; extension = the rest,
 * lower-cased by the caller's buffer. Returns 0 when the name has no key or no extension.
 * key_bytes is the length of the key inside name; *extension points after the dot. */
int dip_member_split(const char *name, size_t *key_bytes, const char **extension);

#endif
