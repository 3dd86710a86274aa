/* tokenizer.h - text to token ids. SentencePiece models (unigram or BPE).
 *
 * Framing: pieces... eos. eos is always there, also after truncation; bos is never added (neither
 * open_clip's SentencePiece models nor ours were trained with one). A caption has no padding:
 * sequences are packed.
 * Bounds:  only the first DIP_TOKENIZER_MAX_TEXT_BYTES of a text are encoded, cut back to a whole
 *          character (the library's time grows with the square of a run of unknown characters).
 *          A model file may have 64 MiB, 1,048,576 pieces, 1,024 bytes a piece.
 *
 * Usage:   dip_tokenizer_open (file) or _open_bytes; dip_tokenizer_encode; _close.
 * Threads: a tokenizer may be used by any number of threads at once.
 * Errors:  DIP_IO; DIP_FORMAT (not a SentencePiece model: says what it looks like, e.g. HTML or
 *          a Git LFS pointer; no eos piece); DIP_UNSUPPORTED (word and char models); DIP_NOMEM. */
#ifndef DIP_TEXT_TOKENIZER_H
#define DIP_TEXT_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { DIP_TOKENIZER_MAX_TEXT_BYTES = 16 * 1024 };

typedef struct dip_tokenizer dip_tokenizer;

dip_status dip_tokenizer_open(dip_tokenizer **tokenizer, const char *path);
dip_status dip_tokenizer_open_bytes(dip_tokenizer **tokenizer, const void *model, size_t n_bytes,
                                    const char *name);
void dip_tokenizer_close(dip_tokenizer *tokenizer); /* accepts NULL */

/* Write at most max_ids ids (max_ids >= 1), eos last; returns how many were written. *n_unknown,
 * if not NULL, receives the number of unknown pieces among them. Text may hold any bytes (invalid
 * UTF-8 counts as U+FFFD); special-token spellings in it are plain text. */
int dip_tokenizer_encode(const dip_tokenizer *tokenizer, int32_t *ids, int max_ids,
                         const char *text, size_t n_bytes, int *n_unknown);
/* The same as the loader's callback: context is the dip_tokenizer. */
int dip_tokenizer_encode_caption(void *tokenizer, int32_t *ids, int max_ids, const char *text,
                                 size_t n_bytes);

/* Ids to text: control ids are left out, an unknown id reads " \u2047 ", a NUL that byte pieces
 * spell becomes U+FFFD. *out is malloc'd. DIP_CONFIG for an id out of range. */
dip_status dip_tokenizer_decode(const dip_tokenizer *tokenizer, char **out, const int32_t *ids,
                                int n_ids);

int dip_tokenizer_vocab_size(const dip_tokenizer *tokenizer);
int dip_tokenizer_eos(const dip_tokenizer *tokenizer);
int dip_tokenizer_bos(const dip_tokenizer *tokenizer); /* -1 if none */
int dip_tokenizer_pad(const dip_tokenizer *tokenizer); /* -1 if none */
int dip_tokenizer_unk(const dip_tokenizer *tokenizer);
const char *dip_tokenizer_model_type(const dip_tokenizer *tokenizer); /* "unigram", "bpe", ... */
/* Piece of an id; "" out of range. Valid while the tokenizer is open. */
const char *dip_tokenizer_piece(const dip_tokenizer *tokenizer, int id);
/* The serialized model, for writing it beside a checkpoint. */
const void *dip_tokenizer_bytes(const dip_tokenizer *tokenizer, size_t *n_bytes);

typedef struct dip_tokenizer_train_options {
    const char *input;         /* text file, one caption a line; or NULL and `next` */
    const char *output;        /* model file, written atomically */
    int vocab_size;            /* upper limit: a small corpus may give fewer pieces */
    const char *model_type;    /* "unigram" or "bpe" */
    double character_coverage; /* [0.98, 1]: share of all characters that get a piece */
    int byte_fallback;         /* nonzero: 256 byte pieces, so that nothing is unknown */
    uint64_t seed;             /* matters beyond 2,000,000 captions: which of them are used */
    /* One caption after another; 0 at the end. The bytes are copied at once. */
    int (*next)(void *context, const char **line, size_t *n_bytes);
    void *next_context;
} dip_tokenizer_train_options;

/* Train a model whose pieces are pad = 0, unk = 1, no bos, and eos = the last id: the end of a
 * caption is then the largest id, which open_clip's "argmax" pooling expects. The same captions,
 * options and library give the same bytes on any machine. *vocab_size, if not NULL, receives the
 * number of pieces. A caption counts up to its first 4,096 bytes. DIP_CONFIG, DIP_IO, DIP_FORMAT
 * (no caption), DIP_NOMEM. */
dip_status dip_tokenizer_train(const dip_tokenizer_train_options *options, int *vocab_size);

#ifdef __cplusplus
}
#endif
#endif
