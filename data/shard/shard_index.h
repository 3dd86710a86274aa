/* shard_index.h - SHARD.tar.idx: what SHARD.tar holds, and the checksums of it (FORMAT.md).
 *
 * A shard with an index is opened by reading its first header alone, and damage inside its members
 * is found. A shard without one is as good as before.
 *
 * Usage:   dip_shard_index_read, dip_shard_index_next until DIP_END, dip_shard_index_close.
 *          To write: dip_index_builder_open, dip_index_builder_add a member, in the order of the
 *          file, dip_index_builder_write once the shard is in place, dip_index_builder_close.
 * Owns:    a read index lies in memory whole; an entry's name is valid until close.
 * Errors:  dip_shard_index_read: DIP_END when there is none; DIP_FORMAT when it is damaged, of
 *          another maker, or made for a shard of another size; DIP_NOMEM. A builder: DIP_CONFIG
 *          when a shard is too large for an index, or a name longer than readers take; DIP_IO.
 * See also shard_index_fit.h: whether an index belongs to the shard that is there.        */
#ifndef DIP_DATA_SHARD_INDEX_H
#define DIP_DATA_SHARD_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

typedef struct dip_member_entry {
    const char *name;
    uint64_t offset, n_bytes; /* of its data in the shard */
    uint32_t crc;             /* CRC-32C of its data */
} dip_member_entry;

typedef struct dip_shard_index dip_shard_index;

dip_status dip_shard_index_read(dip_shard_index **index, const char *shard_path);
/* The same, but the shard's size is not looked at. */
dip_status dip_shard_index_read_any(dip_shard_index **index, const char *shard_path);
dip_status dip_shard_index_next(dip_shard_index *index, dip_member_entry *entry);
void dip_shard_index_rewind(dip_shard_index *index);
void dip_shard_index_close(dip_shard_index *index); /* accepts NULL */

uint64_t dip_shard_index_shard_bytes(const dip_shard_index *index); /* that it was made for */
int64_t dip_shard_index_members(const dip_shard_index *index);

/* SHARD.tar.idx, malloc'd; NULL only when out of memory. */
char *dip_shard_index_path(const char *shard_path);
/* Does SHARD.tar.idx begin as an index, whatever follows? false also when it cannot be read: other
 * software has files of that name too, and they are not to be replaced. */
bool dip_shard_index_is_ours(const char *shard_path);

typedef struct dip_index_builder dip_index_builder;

dip_status dip_index_builder_open(dip_index_builder **builder);
dip_status dip_index_builder_add(dip_index_builder *builder, const dip_member_entry *entry);
/* Writes the file atomically and empties the builder for the next shard. */
dip_status dip_index_builder_write(dip_index_builder *builder, const char *shard_path,
                                   uint64_t shard_bytes);
void dip_index_builder_clear(dip_index_builder *builder);
void dip_index_builder_close(dip_index_builder *builder); /* accepts NULL */

#endif
