/* shard_files.h - a few shards kept open, for any number of threads that read members of them.
 *
 * Usage:   dip_shard_files_open; dip_shard_files_borrow, dip_shard_read, dip_shard_files_return;
 *          dip_shard_files_close when nothing is borrowed.
 * Owns:    at most 16 open files, and one more for each borrower beyond.
 * Threads: borrow and return from any thread; a shard may be borrowed several times at once.
 * Errors:  DIP_IO, DIP_NOMEM.                                                            */
#ifndef DIP_DATA_SHARD_FILES_H
#define DIP_DATA_SHARD_FILES_H

#include "data/shard/shard.h"

typedef struct dip_shard_files dip_shard_files;

dip_status dip_shard_files_open(dip_shard_files **files);
void dip_shard_files_close(dip_shard_files *files); /* accepts NULL */

/* `number` stands for the path: a shard kept under it is given again. Not a byte of it is read. */
dip_status dip_shard_files_borrow(dip_shard_files *files, const dip_shard **shard, uint32_t number,
                                  const char *path);
void dip_shard_files_return(dip_shard_files *files, const dip_shard *shard);

#endif
