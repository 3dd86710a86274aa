/* samples.h - all samples of all shards, found once, addressed by number; their bytes, read when
 * needed.
 *
 * Consecutive members with one key are a sample: an image (jpg, jpeg, png, webp; recognised by
 * content later), a caption (txt: one a line for evaluation sets, see below; or json), and a
 * class label (cls). The index keeps where they lie, 24 bytes and the key a sample (8 more where
 * there are checksums), and no file open.
 *
 * Usage:   dip_samples_open; dip_samples_get says what a sample has; a dip_sample_reader reads it;
 *          dip_samples_close.
 * Owns:    keys and paths, valid until close. A reader owns its buffer and at most 4 open files.
 * Threads: dip_samples is read-only after open; one reader per thread.
 * Faults:  members that make no sample go to the ledger: image without caption (when
 *          `needs` has CAPTION), caption without image (IMAGE), no readable label (LABEL),
 *          duplicate member, damaged tar. With NAMES_INCOMPLETE (for a look at what shards hold) a
 *          sample without image, or with neither caption nor label, or with a label that cannot be
 *          read, is named but stays in the index; a shard that is no tar file is named and holds
 *          nothing. Samples never join over a damaged place. What a caption or an image holds is
 *          not looked at here.
 * Errors:  DIP_IO, DIP_NOMEM; DIP_FORMAT when a shard is no tar file at all, but with
 *          NAMES_INCOMPLETE; DIP_CONFIG when no sample is left.                           */
#ifndef DIP_DATA_SAMPLES_H
#define DIP_DATA_SAMPLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/config.h"
#include "core/status.h"
#include "data/faults.h"

enum {
    DIP_NEEDS_IMAGE = 1,
    DIP_NEEDS_CAPTION = 2,
    DIP_NEEDS_LABEL = 4,
    DIP_NAMES_INCOMPLETE = 8,
    DIP_CAPTION_JSON = 16, /* captions are .json members, not .txt */
    DIP_IMAGE_HEAD = 32 /* of dip_sample_read: only the first DIP_IMAGE_HEAD_BYTES of the image */
};
enum { DIP_IMAGE_HEAD_BYTES = 32 };

typedef struct dip_sample {
    const char *shard;   /* path */
    const char *key;     /* NUL-terminated, owned by the index */
    int64_t shard_index; /* in the list given to open */
    int64_t offset; /* in the shard, of its image or caption, whichever comes first; -1: neither */
    bool has_image, has_caption, caption_is_json;
    size_t image_bytes, caption_bytes;
    int64_t label; /* from cls, at most 2^31 - 1; -1: none, or not asked for (LABEL, NAMES_...) */
    /* after dip_sample_read, valid until the reader's next call; else NULL: */
    const uint8_t *image; /* with DIP_IMAGE_PADDING zeros behind it */
    const char *caption;  /* not NUL-terminated: the bytes of the txt or json member */
} dip_sample;

typedef struct dip_samples dip_samples;

/* How the shards are opened; zero-initialised defaults are fine. */
typedef struct dip_samples_options {
    int needs;
    int n_threads;     /* that look through shards; 0: one a core, at least 16; never over 64 */
    bool ignore_index; /* read the tar headers even where there is a SHARD.idx */
} dip_samples_options;

/* The samples and the ledger are the same for any number of threads. Several images under one key:
 * jpg before png, jpeg, webp. */
dip_status dip_samples_open(dip_samples **samples, const dip_string_list *shards,
                            const dip_samples_options *options, dip_faults *faults);
void dip_samples_close(dip_samples *samples); /* accepts NULL */

int64_t dip_samples_count(const dip_samples *samples);
int64_t dip_samples_n_shards(const dip_samples *samples);
const char *dip_samples_shard_path(const dip_samples *samples, int64_t shard_index);

/* Samples of one shard are consecutive: [first, first + n). */
void dip_samples_of_shard(const dip_samples *samples, int64_t shard_index, int64_t *first,
                          int64_t *n);

/* Without bytes: image and caption are NULL. */
dip_sample dip_samples_get(const dip_samples *samples, int64_t index);

/* A reader reads with pread and never maps: a shard that is cut, replaced or removed while it is
 * used costs named samples. */
typedef struct dip_sample_reader dip_sample_reader;
dip_status dip_sample_reader_open(dip_sample_reader **reader, const dip_samples *samples);
void dip_sample_reader_close(dip_sample_reader *reader); /* accepts NULL */

/* `parts`: DIP_NEEDS_IMAGE or DIP_IMAGE_HEAD, DIP_NEEDS_CAPTION; what a sample does not have stays
 * NULL. Whole members are compared with the index's checksum where there is one. DIP_FORMAT: this
 * sample cannot be read; *kind is the ledger's line (UNREADABLE, CHECKSUM), dip_error() why; the
 * sample is filled in without bytes. */
dip_status dip_sample_read(dip_sample_reader *reader, dip_sample *sample, int64_t index, int parts,
                           dip_fault_kind *kind);

/* Ask the system to read it ahead; costs nothing if that fails. */
void dip_sample_prefetch(dip_sample_reader *reader, int64_t index);

/* "shard.tar: key", into buf; for messages. */
const char *dip_sample_where(const dip_sample *sample, char *buf, size_t n);

/* Split a caption member into its non-empty lines, BOM, CR and outer blanks removed. Calls
 * `each` for every line; stops when it returns non-zero. Returns the number of lines, or -1
 * when the bytes are not UTF-8. `each` may be NULL. Training uses the first line or a random one
 * (--caption-lines first|random); retrieval uses all. */
int dip_caption_lines(const char *text, size_t n_bytes,
                      int (*each)(void *context, const char *line, size_t n), void *context);

#endif
