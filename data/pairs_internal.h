/* pairs_internal.h - what the sources of pairs share: one small table of functions each. */
#ifndef DIP_DATA_PAIRS_INTERNAL_H
#define DIP_DATA_PAIRS_INTERNAL_H

#include "data/pairs.h"

struct dip_pairs {
    int64_t n;
    void *state;
    const char *(*name)(void *state, int64_t index);
    dip_status (*load)(void *state, dip_pair *pair, int64_t index, dip_fault_kind *kind);
    void (*close)(void *state); /* accepts any half-open state */
};

enum { DIP_PAIR_MAX_TEXT_BYTES = 1 << 20 };

/* An image file and its captions, in a file or in memory. */
typedef struct dip_pair_file {
    char *image_path;
    char *text_path; /* NULL: text */
    char *text;
    int64_t line; /* of the table that names the image; 0: there is none */
} dip_pair_file;

/* A list of such files as a source; takes ownership of files (malloc'd), also when it fails.
 * Names are image paths without their first `prefix_bytes` and without extension. */
dip_status dip_pairs_from_files(dip_pairs **pairs, dip_pair_file *files, size_t n_files,
                                size_t prefix_bytes);
void dip_pair_files_free(dip_pair_file *files, size_t n_files);

dip_status dip_pairs_no_memory(const char *path);

#endif
