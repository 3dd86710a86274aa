/* file.h - whole files in, whole files out, and nothing in between.
 *
 * Usage:   dip_file_read for small files; dip_file_map for shards and weights;
 *          dip_writer_* for output that appears complete or not at all: it writes
 *          PATH.tmp-PID in the same directory, fsyncs, renames, fsyncs the directory.
 * Errors:  DIP_IO with the path and the system's reason, DIP_NOMEM, DIP_FORMAT (too big).*/
#ifndef DIP_CORE_FILE_H
#define DIP_CORE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

/* Read a whole file of at most max_bytes. *out is malloc'd, NUL-terminated after *n bytes
 * (the NUL not counted); the caller frees it. */
dip_status dip_file_read(char **out, size_t *n, const char *path, size_t max_bytes);

/* A read-only mapping of a whole file. An empty file maps to data == NULL, n_bytes == 0. */
typedef struct dip_map {
    const uint8_t *data;
    size_t n_bytes;
} dip_map;
dip_status dip_file_map(dip_map *map, const char *path);
void dip_file_unmap(dip_map *map); /* accepts a zeroed struct */

/* Atomic output. After dip_writer_commit the file is there, durable; dip_writer_abort (or
 * a failed commit) leaves nothing behind and an old file untouched. */
typedef struct dip_writer dip_writer;
dip_status dip_writer_open(dip_writer **writer, const char *path);
dip_status dip_writer_write(dip_writer *writer, const void *data, size_t n_bytes);
dip_status dip_writer_commit(dip_writer *writer); /* frees the writer in every case */
void dip_writer_abort(dip_writer *writer);        /* frees the writer; accepts NULL */

/* Write a small file atomically in one call. */
dip_status dip_file_write(const char *path, const void *data, size_t n_bytes);

bool dip_path_exists(const char *path);
bool dip_path_is_dir(const char *path);

/* mkdir -p. */
dip_status dip_make_dirs(const char *path);

/* rm -r of a directory tree; symbolic links are removed, not followed. Missing is fine. */
dip_status dip_remove_tree(const char *path);

/* fsync a directory (so that renames inside it are durable). */
dip_status dip_sync_dir(const char *path);

/* Make `link_path` a symbolic link to `target`, replacing an older link atomically. */
dip_status dip_symlink_replace(const char *target, const char *link_path);

/* Join with '/' into a malloc'd string; NULL only when out of memory. */
char *dip_path_join(const char *dir, const char *name);
/* printf into a malloc'd string; NULL only when out of memory. */
char *dip_format(const char *format, ...) DIP_PRINTF(1, 2);

/* CRC-32C (Castagnoli) of data, continuing from `crc` (start with 0). */
uint32_t dip_crc32c(uint32_t crc, const void *data, size_t n_bytes);
/* The same from tables alone, for processors without the instruction. */
uint32_t dip_crc32c_portable(uint32_t crc, const void *data, size_t n_bytes);

#endif
