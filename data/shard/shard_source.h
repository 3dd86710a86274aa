/* shard_source.h - the file under a tar reader: opened, refused if it is plainly something else,
 * and read through a small window. Part of shard.c.
 *
 * Usage:   dip_shard_source_open; dip_shard_source_check; dip_shard_source_look for headers,
 *          dip_shard_source_read for data; dip_shard_source_close, also after a failed open.
 * Owns:    the descriptor and the path. Nothing is mapped.
 * Errors:  DIP_IO, DIP_NOMEM; DIP_FORMAT from dip_shard_source_check: what it looks like; from
 *          dip_shard_source_read: the file ends before these bytes.                         */
#ifndef DIP_DATA_SHARD_SOURCE_H
#define DIP_DATA_SHARD_SOURCE_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

enum { DIP_SHARD_WINDOW_BYTES = 16 * 1024 }; /* headers and small members */

typedef struct dip_shard_source {
    char *path;
    int fd;
    uint64_t n_bytes; /* size and last change, when it was opened */
    int64_t changed_ns;
    uint64_t window_at;
    size_t window_bytes;
    uint8_t window[DIP_SHARD_WINDOW_BYTES];
} dip_shard_source;

dip_status dip_shard_source_open(dip_shard_source *file, const char *path);
void dip_shard_source_close(dip_shard_source *file);
dip_status dip_shard_source_check(dip_shard_source *file);

/* n bytes (of a window at most) at `at`, valid until the next look or check. DIP_END: the file,
 * which was measured when it was opened, now ends before them, at *ends_at. */
dip_status dip_shard_source_look(dip_shard_source *file, const uint8_t **bytes, uint64_t *ends_at,
                                 uint64_t at, size_t n);
dip_status dip_shard_source_read(const dip_shard_source *file, void *out, uint64_t offset,
                                 size_t n_bytes);

#endif
