/* shard_index_fit.h - the index of a shard, if it can be believed.
 *
 * It is believed when the shard is as long as when it was made and begins with the same member, or
 * when the shard is shorter and all of its headers agree: then it was cut, and each sample that is
 * lost with the rest can be named, since its data reaches beyond the end of the file.
 *
 * Usage:   dip_shard_index_open on a shard from dip_shard_open_unread, then as in shard_index.h.
 * Errors:  DIP_END when there is no index; DIP_FORMAT when it is damaged or was made for another
 *          shard of this name; DIP_IO, DIP_NOMEM. *index is then NULL.                     */
#ifndef DIP_DATA_SHARD_INDEX_FIT_H
#define DIP_DATA_SHARD_INDEX_FIT_H

#include <stddef.h>
#include <stdint.h>

#include "data/shard/shard.h"
#include "data/shard/shard_index.h"

/* Leaves the shard at its beginning. */
dip_status dip_shard_index_open(dip_shard_index **index, dip_shard *shard);

/* The checksum that an index holds, of n_bytes at `offset`, read through `buffer`. DIP_FORMAT: the
 * file ends before them. */
dip_status dip_shard_crc(uint32_t *crc, const dip_shard *shard, uint64_t offset, uint64_t n_bytes,
                         void *buffer, size_t buffer_bytes);

#endif
