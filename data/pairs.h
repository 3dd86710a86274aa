/* pairs.h - image-caption pairs that are not in shards yet: a folder, a table, an IDX array.
 *
 * Usage:   one of dip_pairs_open_*; dip_pairs_load for each number; dip_pairs_close.
 * Owns:    what dip_pairs_load returns is valid until its next call.
 * Faults:  what cannot become a pair is told to `lost` (at open, or as DIP_FORMAT at load).
 * Errors:  DIP_IO, DIP_FORMAT, DIP_CONFIG, DIP_NOMEM.                                    */
#ifndef DIP_DATA_PAIRS_H
#define DIP_DATA_PAIRS_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"
#include "data/faults.h"

typedef struct dip_pair {
    const char *extension; /* by the image's first bytes: "jpg" or "png" */
    const void *image;
    size_t image_bytes;
    const char *text; /* one caption a line, unchecked */
    size_t text_bytes;
    int64_t label; /* -1: none */
} dip_pair;

typedef void dip_pairs_lost_fn(void *context, dip_fault_kind kind, const char *where,
                               const char *detail);

typedef struct dip_pairs dip_pairs;

/* Every image file under `folder` with a .txt of the same stem, sorted by path. Hidden files are
 * passed over, links to folders not followed. */
dip_status dip_pairs_open_folder(dip_pairs **pairs, const char *folder, dip_pairs_lost_fn *lost,
                                 void *context);

/* Rows of a table: image paths (relative to the table's folder) and captions. Rows of one path
 * are one pair with several captions, in the place of the first. */
dip_status dip_pairs_open_table(dip_pairs **pairs, const char *path, char separator,
                                const char *image_column, const char *caption_column,
                                dip_pairs_lost_fn *lost, void *context);

typedef struct dip_idx_options {
    const char *images, *labels; /* IDX files */
    const char *class_names;     /* one a line, in the order of the labels */
    const char *templates;       /* one a line, {c} = class name; NULL: "a photo of a {c}." */
    int captions_per_image;      /* different templates, drawn by (seed, image number) */
    uint64_t seed;
} dip_idx_options;

/* Grey images out of an IDX array; each becomes a PNG. */
dip_status dip_pairs_open_idx(dip_pairs **pairs, const dip_idx_options *options);

void dip_pairs_close(dip_pairs *pairs); /* accepts NULL */

int64_t dip_pairs_count(const dip_pairs *pairs);

/* Names a pair: a path without extension, or a number. Stays the same when other pairs come or
 * go. Valid until the next call. */
const char *dip_pairs_name(dip_pairs *pairs, int64_t index);

/* DIP_FORMAT: this pair cannot be used; *kind is the ledger's line, dip_error() the detail. */
dip_status dip_pairs_load(dip_pairs *pairs, dip_pair *pair, int64_t index, dip_fault_kind *kind);

#endif
