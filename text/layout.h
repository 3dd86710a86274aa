/* layout.h - a batch of texts as rows: how many, which of them count, and the arrays the tower's
 * ops read. Host memory only.
 *
 * Padding: a text costs its own tokens. Where sizes must be few, because each is prepared once and
 *          then reused (recorded steps, chosen algorithms), rows are added up to dip_text_bucket,
 * in sequences of their own that are never pooled. Where work must equal other programs', each text
 * is as long as the context. Added rows count for nothing, exactly: attention is causal, and no
 * gradient reaches them.                                              */
#ifndef DIP_TEXT_LAYOUT_H
#define DIP_TEXT_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum dip_text_padding {
    DIP_TEXT_PAD_AUTO,    /* BUCKETS on a device that runs beside the host, else NONE */
    DIP_TEXT_PAD_NONE,    /* packed */
    DIP_TEXT_PAD_BUCKETS, /* packed, then rows up to the bucket */
    DIP_TEXT_PAD_FULL     /* every text has the context's length */
} dip_text_padding;

/* n_rows rounded up to a number of five significant bits, 64 at least, but never beyond max_rows
 * (>= n_rows). 0 stays 0. */
int64_t dip_text_bucket(int64_t n_rows, int64_t max_rows);

/* How many sequences of at most context_length rows fill any batch up to this bucket. */
int64_t dip_text_fillers(int64_t bucket, int context_length);

/* One block of int32, each part beginning on a multiple of DIP_TEXT_PART_ALIGN: a function of
 * n_texts, n_sequences and n_rows. */
enum { DIP_TEXT_PART_ALIGN = 64 };

typedef struct dip_text_layout {
    int64_t n_texts;
    int64_t n_sequences; /* texts, then fillers, which may be empty */
    int64_t n_rows;
    size_t tokens;   /* [n_rows] */
    size_t offsets;  /* [n_sequences + 1] */
    size_t end_rows; /* [n_texts] */
    size_t order;    /* [n_rows]: rows by token, those of one token ascending; -1 at the end for
                        rows that count for nothing */
    size_t n_values; /* of the block */
} dip_text_layout;

/* Of n_texts texts with n_tokens tokens in all, none longer than the context. `padding` is not
 * AUTO; without `ordered` there is no `order`. */
dip_text_layout dip_text_layout_of(int64_t n_texts, int64_t n_tokens, int64_t max_rows,
                                   int context_length, dip_text_padding padding, bool ordered);

/* Room for every layout of at most so many texts. */
dip_text_layout dip_text_layout_largest(int64_t max_texts, int64_t max_rows, int context_length,
                                        dip_text_padding padding, bool ordered);

/* Fill the block. offsets [n_texts + 1] from 0; tokens are in [0, vocab); counts [vocab + 1] is
 * scratch, needed for an order. */
void dip_text_lay_out(int32_t *block, const dip_text_layout *layout, const int32_t *tokens,
                      const int32_t *offsets, int context_length, dip_text_padding padding,
                      int32_t *counts, int vocab);

#endif
