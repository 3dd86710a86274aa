/* caption.h - from the member that holds a sample's captions to the text that is learned from.
 *
 * A .txt member holds a caption a line. A .json member holds them under a key: a string (lines, as
 * in a .txt) or a list of strings (each one caption, whatever line ends it holds).
 *
 * Cleaning is open_clip's, under its names; all but "none" first repair the text:
 *   none                   as it is
 *   whitespace             blanks (Unicode's too) joined to one space
 *   whitespace_underscore  the same, '_' a space
 *   lower                  the same as whitespace, then lower case of all scripts (Unicode 14)
 *   canonicalize           '_' a space, other ASCII punctuation left out, lower case, blanks joined
 * Repair: HTML entities are resolved, also where they are nested two deep (three if no '<' is in
 * the caption): numbers, HTML 4's names and &apos;. Of ftfy's: typographic quotes, Latin ligatures,
 * full-width ASCII and space become plain, control characters are left out. Not done of ftfy's:
 * mojibake, C1 controls, NFC, half-width forms, the ligatures of Croatian, ANSI escapes.
 *
 * Usage:   one dip_captioner per thread: dip_captioner_open, dip_captioner_choose, close.
 * Owns:    the text, until the captioner's next call; borrows the options.
 * Limits:  DIP_CAPTION_MAX_BYTES under a JSON key (data/samples.h has those of the members); time
 *          and memory grow with the length.
 * Errors:  DIP_FORMAT: there is no usable caption, dip_error() says why; DIP_NOMEM. */
#ifndef DIP_DATA_CAPTION_H
#define DIP_DATA_CAPTION_H

#include <stdbool.h>
#include <stddef.h>

#include "core/config.h" /* dip_string_list */
#include "core/rng.h"
#include "core/status.h"
#include "data/faults.h"
#include "data/samples.h"

enum { DIP_CAPTION_MAX_BYTES = 1 << 20 };

/* For a table of options, in the order of the enumeration. */
#define DIP_CAPTION_CLEANS "none|whitespace|whitespace_underscore|lower|canonicalize"

typedef enum dip_caption_clean {
    DIP_CLEAN_NONE,
    DIP_CLEAN_WHITESPACE,
    DIP_CLEAN_WHITESPACE_UNDERSCORE,
    DIP_CLEAN_LOWER,
    DIP_CLEAN_CANONICALIZE
} dip_caption_clean;

/* DIP_CONFIG: no such name. */
dip_status dip_caption_clean_find(dip_caption_clean *clean, const char *name);

typedef struct dip_caption_options {
    dip_string_list json_keys;  /* of .json members: the first with a usable text is taken ... */
    const double *json_weights; /* ... after the keys have been put in a random order: one drawn by
                                   weight after the other, those of weight 0 last in their order, as
                                   open_clip does. json_keys.n_items of them; NULL: in order */
    bool random_line;           /* of several captions: one drawn, else the first */
    dip_caption_clean clean;
    double word_dropout; /* probability that a word is left out; never all of a caption */
    size_t max_bytes;    /* of the one that is chosen, before cleaning; 0: no limit of its own */
} dip_caption_options;

typedef struct dip_captioner dip_captioner;

/* DIP_CONFIG: weights that are below 0 or not finite, a word_dropout outside 0..1. */
dip_status dip_captioner_open(dip_captioner **captioner, const dip_caption_options *options);
void dip_captioner_close(dip_captioner *captioner); /* accepts NULL */

/* One caption of a sample that has been read. Numbers are drawn for the keys (with weights), for
 * the line (if there are several), for words (with word_dropout), in this order. DIP_FORMAT: *fault
 * is the ledger's line. */
dip_status dip_captioner_choose(dip_captioner *captioner, const char **text, size_t *n_bytes,
                                dip_fault_kind *fault, const dip_sample *sample, dip_rng *rng);

/* All captions under `key` of a .json member, one a line. *text is malloc'd. */
dip_status dip_caption_from_json(char **text, size_t *n_bytes, const char *json, size_t json_bytes,
                                 const char *key);

#endif
