/* spm.h - what text/tokenizer.c needs of SentencePiece, as C. Private to text/.
 *
 * text/spm.cc is the only C++ file: no exception leaves it. text/spm_model.c knows the bytes of a
 * model file, so that nothing unchecked reaches the library.                                   */
#ifndef DIP_TEXT_SPM_H
#define DIP_TEXT_SPM_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- spm_model.c: the serialized model ------------------------------------------------------ */

typedef struct dip_spm_facts {
    int n_pieces;
    const char *model_type; /* "unigram" or "bpe" */
} dip_spm_facts;

/* Check everything that the library would trust: field lengths, piece count and length, scores,
 * types, and every transition of the normalizer's trie. `name` is what messages call the bytes. */
dip_status dip_spm_check(dip_spm_facts *facts, const void *model, size_t n_bytes, const char *name);

/* A copy of a freshly trained model with piece `eos` moved behind all others. *out is malloc'd. */
dip_status dip_spm_move_last(uint8_t **out, size_t *n_out, const void *model, size_t n_bytes,
                             int eos);

/* ---- spm.cc: the library -------------------------------------------------------------------- */

typedef struct dip_spm dip_spm;

typedef struct dip_spm_ids {
    int pad, unk, bos, eos; /* -1: none */
} dip_spm_ids;

/* `model` must have passed dip_spm_check. */
dip_status dip_spm_open(dip_spm **spm, dip_spm_ids *ids, const void *model, size_t n_bytes,
                        const char *name);
void dip_spm_close(dip_spm *spm); /* accepts NULL */

/* At most max_ids ids without framing; *n_unknown counts the unknown ones among them. Returns how
 * many; none when the library gives up. */
int dip_spm_encode(const dip_spm *spm, int32_t *ids, int max_ids, const char *text, size_t n_bytes,
                   int *n_unknown);

/* All ids must be in range. *out is malloc'd, *n_out bytes and a NUL. */
dip_status dip_spm_decode(const dip_spm *spm, char **out, size_t *n_out, const int32_t *ids,
                          int n_ids);

const char *dip_spm_piece(const dip_spm *spm, int id); /* id in range */

typedef struct dip_spm_train_options {
    int (*next)(void *context, const char **line, size_t *n_bytes); /* 0 at the end */
    void *context;
    int vocab_size;
    const char *model_type;
    double character_coverage;
    int byte_fallback;
    uint64_t seed;
} dip_spm_train_options;

/* Train in memory: pad = 0, unk = 1, eos = 2, no bos. *out is malloc'd. */
dip_status dip_spm_train(uint8_t **out, size_t *n_out, const dip_spm_train_options *options);

#ifdef __cplusplus
}
#endif
#endif
