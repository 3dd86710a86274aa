/* samples.h - all samples of all shards, found once, addressed by number.
 *
 * Consecutive members with one key are a sample: an image (jpg, jpeg, png; recognised by
 * content later), captions (txt: one a line for evaluation sets, see below; or json with a
 * caption key), and a class label (cls). The index keeps byte ranges into the mapped shards.
 *
 * Usage:   dip_samples_open, dip_samples_get, dip_samples_close.
 * Threads: read-only after open.
 * Faults:  members that make no sample go to the ledger: image without caption (when
 *          `needs` has CAPTION), caption without image (IMAGE), no readable label (LABEL),
 *          duplicate member, damaged tar. With NAMES (for a look at what shards hold) a sample
 *          without image, or with neither caption nor label, or with a label that cannot be
 *          read, is named but stays in the index. Samples never join over a damaged place. What a
 *          caption or an image holds is not looked at here.
 * Errors:  DIP_IO, DIP_NOMEM; DIP_FORMAT when a shard is no tar file at all; DIP_CONFIG when
 *          no sample is left.                                                             */
#ifndef DIP_DATA_SAMPLES_H
#define DIP_DATA_SAMPLES_H

#include <stdint.h>

#include "core/config.h"
#include "core/status.h"
#include "data/faults.h"

enum { DIP_NEEDS_IMAGE = 1, DIP_NEEDS_CAPTION = 2, DIP_NEEDS_LABEL = 4, DIP_NAMES_INCOMPLETE = 8 };

typedef struct dip_sample {
    const char *shard;    /* path */
    const char *key;      /* NUL-terminated, owned by the index */
    const uint8_t *image; /* NULL if none */
    size_t image_bytes;
    const char *caption; /* the txt member's bytes, not NUL-terminated; NULL if none */
    size_t caption_bytes;
    int64_t label; /* from cls; -1 if none */
} dip_sample;

typedef struct dip_samples dip_samples;

/* `json_text_key` NULL: captions come from .txt; otherwise from that key of .json (the string is
 * copied into the index). Several images under one key: jpg before png, jpeg, webp. */
dip_status dip_samples_open(dip_samples **samples, const dip_string_list *shards, int needs,
                            const char *json_text_key, dip_faults *faults);
void dip_samples_close(dip_samples *samples); /* accepts NULL */

int64_t dip_samples_count(const dip_samples *samples);
dip_sample dip_samples_get(const dip_samples *samples, int64_t index);

/* "shard.tar: key", into buf; for messages. */
const char *dip_sample_where(const dip_sample *sample, char *buf, size_t n);

/* Split a caption member into its non-empty lines, BOM, CR and outer blanks removed. Calls
 * `each` for every line; stops when it returns non-zero. Returns the number of lines, or -1
 * when the bytes are not UTF-8. `each` may be NULL. Training uses the first line or a random one
 * (--caption-lines first|random); retrieval uses all. */
int dip_caption_lines(const char *text, size_t n_bytes,
                      int (*each)(void *context, const char *line, size_t n), void *context);

#endif
