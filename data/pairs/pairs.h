/* pairs.h - what can be made into shards: folders, tables, JSON, an IDX array, other shards.
 *
 * Usage:   one of dip_pairs_open_*; dip_pairs_load and dip_pair_free for each number;
 *          dip_pairs_close.
 * Owns:    a loaded pair owns its bytes.
 * Threads: after open everything may be called from any thread.
 * Limits:  an image 256 MiB, a caption file 1 MiB, a table or JSON file 4 GiB (its text is held in
 *          memory, record by record of it is parsed).
 * Faults:  what cannot become a pair is told to `lost` (at open, or as DIP_FORMAT at load).
 * Errors:  DIP_IO, DIP_FORMAT, DIP_CONFIG, DIP_NOMEM.                                    */
#ifndef DIP_DATA_PAIRS_H
#define DIP_DATA_PAIRS_H

#include <stddef.h>
#include <stdint.h>

#include "core/config.h" /* dip_string_list */
#include "core/status.h"
#include "data/dedup/digest.h"
#include "data/faults.h"

/* A member of a sample that is neither its image nor its .txt, carried over byte for byte. */
typedef struct dip_pair_member {
    char *extension;
    uint8_t *data;
    size_t n_bytes;
} dip_pair_member;

typedef struct dip_pair {
    char *extension; /* of the image: "jpg" or "png" by its first bytes; a shard's as it was */
    uint8_t *image;
    size_t image_bytes;
    char *text; /* one caption a line, unchecked; NULL: none (only where a label is) */
    size_t text_bytes;
    int64_t label;            /* -1: none */
    dip_pair_member *members; /* the others, as they lay in a shard */
    size_t n_members;
} dip_pair;

typedef void dip_pairs_lost_fn(void *context, dip_fault_kind kind, const char *where,
                               const char *detail);

typedef struct dip_pairs dip_pairs;

/* Every image file under `folder` with a .txt of the same stem, sorted by path. Hidden files are
 * passed over, links to folders not followed. */
dip_status dip_pairs_open_folder(dip_pairs **pairs, const char *folder, dip_pairs_lost_fn *lost,
                                 void *context);

/* Caption templates, one a line, {c} = class name. */
typedef struct dip_template_options {
    const char *path;       /* NULL: the source's default */
    int captions_per_image; /* different templates, drawn by (seed, image number) */
    uint64_t seed;
} dip_template_options;

/* Every image file under `folder`, labelled by the first folder on its way: the class number is the
 * folder's place in the sorted list. Captions from the templates; without a file, none. */
dip_status dip_pairs_open_classes(dip_pairs **pairs, const char *folder,
                                  const dip_template_options *templates, dip_pairs_lost_fn *lost,
                                  void *context);

/* Rows of a table: image paths (relative to the table's folder, or to `images` if given) and
 * captions. Rows of one path are one pair with several captions, in the place of the first. */
dip_status dip_pairs_open_table(dip_pairs **pairs, const char *path, char separator,
                                const char *image_column, const char *caption_column,
                                const char *images, dip_pairs_lost_fn *lost, void *context);

/* The same from JSON lines: an object a line; the caption is a string or a list of strings. */
dip_status dip_pairs_open_jsonl(dip_pairs **pairs, const char *path, const char *image_key,
                                const char *caption_key, const char *images,
                                dip_pairs_lost_fn *lost, void *context);

/* COCO captions: {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}, in
 * the order of the images. */
dip_status dip_pairs_open_coco(dip_pairs **pairs, const char *path, const char *images,
                               dip_pairs_lost_fn *lost, void *context);

/* Karpathy's: {"images": [{"filepath", "filename", "split", "sentences": [{"raw"}]}]}. `splits`
 * "train,restval" takes those only; NULL all. */
dip_status dip_pairs_open_karpathy(dip_pairs **pairs, const char *path, const char *images,
                                   const char *splits, dip_pairs_lost_fn *lost, void *context);

/* Which of the two a JSON file is, by its keys. DIP_CONFIG: neither. */
typedef enum dip_json_kind { DIP_JSON_COCO, DIP_JSON_KARPATHY } dip_json_kind;
dip_status dip_pairs_json_kind(dip_json_kind *kind, const char *path);

/* The samples of shards, in their order: an image, captions (.txt or .json) or a label (.cls), and
 * whatever else has the key. */
dip_status dip_pairs_open_shards(dip_pairs **pairs, const dip_string_list *shards,
                                 dip_pairs_lost_fn *lost, void *context);

typedef struct dip_idx_options {
    const char *images, *labels;    /* IDX files */
    const char *class_names;        /* one a line, in the order of the labels */
    dip_template_options templates; /* no file: "a photo of a {c}." */
} dip_idx_options;

/* Grey images out of an IDX array; each becomes a PNG. */
dip_status dip_pairs_open_idx(dip_pairs **pairs, const dip_idx_options *options);

void dip_pairs_close(dip_pairs *pairs); /* accepts NULL */

int64_t dip_pairs_count(const dip_pairs *pairs);

/* Names a pair: a path without extension, or a number; malloc'd, NULL only without memory. Stays
 * the same when other pairs come or go. */
char *dip_pairs_name(const dip_pairs *pairs, int64_t index);

/* Of the whole list: names, captions in memory, places in shards; not of the image files' bytes. */
dip_status dip_pairs_digest(dip_digest *digest, const dip_pairs *pairs);

/* The class names of a folder of classes; NULL for other sources. */
const dip_string_list *dip_pairs_classes(const dip_pairs *pairs);

/* DIP_FORMAT: this pair cannot be used; *kind is the ledger's line, dip_error() the detail. *pair
 * is zeroed then. */
dip_status dip_pairs_load(const dip_pairs *pairs, dip_pair *pair, int64_t index,
                          dip_fault_kind *kind);
void dip_pair_free(dip_pair *pair); /* a zeroed struct is fine */

#endif
