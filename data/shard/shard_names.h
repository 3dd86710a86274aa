/* shard_names.h - the output pattern FOLDER/PREFIX{START..}SUFFIX and the files of its form.
 *
 * Usage:   dip_shard_names_parse, dip_shard_names_free.
 * Errors:  DIP_CONFIG (the pattern), DIP_IO (the folder), DIP_NOMEM.                     */
#ifndef DIP_DATA_SHARD_NAMES_H
#define DIP_DATA_SHARD_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/config.h" /* dip_string_list */
#include "core/status.h"

typedef struct dip_shard_names {
    char *folder, *prefix, *suffix;
    int width; /* digits at least */
    int64_t start;
} dip_shard_names;

dip_status dip_shard_names_parse(dip_shard_names *names, const char *pattern);
void dip_shard_names_free(dip_shard_names *names);

/* Of shard 0, 1, ...: its name, and with the folder its path; malloc'd, NULL without memory. */
char *dip_shard_name(const dip_shard_names *names, int64_t shard);
char *dip_shard_path_of(const dip_shard_names *names, int64_t shard);

/* Is this file name that of a shard? With `belongings` also of its index, and of what dip_writer
 * calls either of them, sizes.json and classnames.txt until they are complete. *name_bytes of the
 * name are the finished file's, without .idx. */
bool dip_shard_names_match(const dip_shard_names *names, size_t *name_bytes, const char *name,
                           bool belongings);

/* The paths of all such files in the pattern's folder, sorted; a missing folder has none. */
dip_status dip_shard_names_list(dip_string_list *paths, const char *pattern, bool belongings);

#endif
