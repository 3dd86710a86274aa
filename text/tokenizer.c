#include "text/tokenizer.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "text/spm.h"

enum {
    MAX_MODEL_BYTES = 64 << 20,
    MAX_TRAINING_LINE_BYTES = 4096,
    MIN_VOCAB = 8,
    MAX_VOCAB = 1 << 20
};

struct dip_tokenizer {
    dip_spm *spm;
    dip_spm_ids special;
    dip_spm_facts facts;
    uint8_t *model; /* as read or trained */
    size_t n_model_bytes;
};

/* The longest prefix of at most `limit` bytes that does not end inside a UTF-8 character. */
static size_t cut_text(const char *text, size_t n_bytes, size_t limit)
{
    if (n_bytes <= limit) return n_bytes;
    size_t cut = limit;
    while (cut > limit - 3 && ((unsigned char)text[cut] & 0xc0) == 0x80) cut--;
    return cut;
}

/* ---- life cycle -------------------------------------------------------------------------------
 */

dip_status dip_tokenizer_open_bytes(dip_tokenizer **tokenizer, const void *model, size_t n_bytes,
                                    const char *name)
{
    *tokenizer = NULL;
    dip_tokenizer *fresh = calloc(1, sizeof *fresh);
    if (!fresh) return dip_fail(DIP_NOMEM, "no memory for a tokenizer");
    dip_status status;
    DIP_TRY_GOTO(dip_spm_check(&fresh->facts, model, n_bytes, name));
    DIP_TRY_GOTO(dip_spm_open(&fresh->spm, &fresh->special, model, n_bytes, name));
    if (fresh->special.eos < 0) {
        status = dip_fail(
            DIP_FORMAT, "%s has no end-of-text piece (eos); every caption must end with one", name);
        goto fail;
    }
    fresh->model = malloc(n_bytes);
    if (!fresh->model) {
        status = dip_fail(DIP_NOMEM, "no memory for the %zu bytes of %s", n_bytes, name);
        goto fail;
    }
    memcpy(fresh->model, model, n_bytes);
    fresh->n_model_bytes = n_bytes;
    *tokenizer = fresh;
    return DIP_OK;
fail:
    dip_tokenizer_close(fresh);
    return status;
}

dip_status dip_tokenizer_open(dip_tokenizer **tokenizer, const char *path)
{
    *tokenizer = NULL;
    char *bytes;
    size_t n_bytes;
    DIP_TRY(dip_file_read(&bytes, &n_bytes, path, MAX_MODEL_BYTES));
    dip_status status = dip_tokenizer_open_bytes(tokenizer, bytes, n_bytes, path);
    free(bytes);
    return status;
}

void dip_tokenizer_close(dip_tokenizer *tokenizer)
{
    if (!tokenizer) return;
    dip_spm_close(tokenizer->spm);
    free(tokenizer->model);
    free(tokenizer);
}

/* ---- text <-> ids -----------------------------------------------------------------------------
 */

int dip_tokenizer_encode(const dip_tokenizer *tokenizer, int32_t *ids, int max_ids,
                         const char *text, size_t n_bytes, int *n_unknown)
{
    int unknown;
    n_bytes = cut_text(text, n_bytes, DIP_TOKENIZER_MAX_TEXT_BYTES);
    int n_ids = dip_spm_encode(tokenizer->spm, ids, max_ids - 1, text, n_bytes, &unknown);
    ids[n_ids++] = tokenizer->special.eos;
    if (n_unknown) *n_unknown = unknown;
    return n_ids;
}

int dip_tokenizer_encode_caption(void *tokenizer, int32_t *ids, int max_ids, const char *text,
                                 size_t n_bytes)
{
    return dip_tokenizer_encode(tokenizer, ids, max_ids, text, n_bytes, NULL);
}

/* The text ends at its first NUL for the caller, so a NUL inside becomes U+FFFD. */
static dip_status replace_nuls(char **text, size_t n_bytes)
{
    size_t n_nuls = 0;
    for (size_t i = 0; i < n_bytes; i++) n_nuls += (*text)[i] == '\0';
    if (n_nuls == 0) return DIP_OK;
    char *out = malloc(n_bytes + 2 * n_nuls + 1);
    if (!out) return dip_fail(DIP_NOMEM, "no memory for %zu bytes of text", n_bytes);
    size_t n = 0;
    for (size_t i = 0; i < n_bytes; i++) {
        if ((*text)[i] != '\0') {
            out[n++] = (*text)[i];
        } else {
            memcpy(out + n, "\xef\xbf\xbd", 3);
            n += 3;
        }
    }
    out[n] = '\0';
    free(*text);
    *text = out;
    return DIP_OK;
}

dip_status dip_tokenizer_decode(const dip_tokenizer *tokenizer, char **out, const int32_t *ids,
                                int n_ids)
{
    *out = NULL;
    int n_pieces = tokenizer->facts.n_pieces;
    for (int i = 0; i < n_ids; i++)
        if (ids[i] < 0 || ids[i] >= n_pieces)
            return dip_fail(DIP_CONFIG, "id %d at position %d is not in 0..%d", (int)ids[i], i,
                            n_pieces - 1);
    size_t n_bytes;
    DIP_TRY(dip_spm_decode(tokenizer->spm, out, &n_bytes, ids, n_ids));
    dip_status status = replace_nuls(out, n_bytes);
    if (status != DIP_OK) {
        free(*out);
        *out = NULL;
    }
    return status;
}

/* ---- queries ----------------------------------------------------------------------------------
 */

int dip_tokenizer_vocab_size(const dip_tokenizer *tokenizer)
{
    return tokenizer->facts.n_pieces;
}
int dip_tokenizer_eos(const dip_tokenizer *tokenizer)
{
    return tokenizer->special.eos;
}
int dip_tokenizer_bos(const dip_tokenizer *tokenizer)
{
    return tokenizer->special.bos;
}
int dip_tokenizer_pad(const dip_tokenizer *tokenizer)
{
    return tokenizer->special.pad;
}
int dip_tokenizer_unk(const dip_tokenizer *tokenizer)
{
    return tokenizer->special.unk;
}

const char *dip_tokenizer_model_type(const dip_tokenizer *tokenizer)
{
    return tokenizer->facts.model_type;
}

const char *dip_tokenizer_piece(const dip_tokenizer *tokenizer, int id)
{
    if (id < 0 || id >= tokenizer->facts.n_pieces) return "";
    return dip_spm_piece(tokenizer->spm, id);
}

const void *dip_tokenizer_bytes(const dip_tokenizer *tokenizer, size_t *n_bytes)
{
    *n_bytes = tokenizer->n_model_bytes;
    return tokenizer->model;
}

/* ---- training ---------------------------------------------------------------------------------
 */

typedef struct line_source {
    dip_map map;
    size_t at;
    int (*next)(void *context, const char **line, size_t *n_bytes); /* else the map */
    void *context;
} line_source;

static int next_mapped_line(line_source *source, const char **line, size_t *n_bytes)
{
    if (source->at >= source->map.n_bytes) return 0;
    const char *start = (const char *)source->map.data + source->at;
    size_t left = source->map.n_bytes - source->at;
    const char *end = memchr(start, '\n', left);
    size_t n = end ? (size_t)(end - start) : left;
    source->at += n + 1;
    if (n > 0 && start[n - 1] == '\r') n--;
    *line = start;
    *n_bytes = n;
    return 1;
}

/* The next line that is not empty, cut to the length the trainer accepts. */
static int next_line(void *context, const char **line, size_t *n_bytes)
{
    line_source *source = context;
    while (source->next ? source->next(source->context, line, n_bytes)
                        : next_mapped_line(source, line, n_bytes)) {
        if (*n_bytes >= 3 && memcmp(*line, "\xef\xbb\xbf", 3) == 0) { /* byte order mark */
            *line += 3;
            *n_bytes -= 3;
        }
        *n_bytes = cut_text(*line, *n_bytes, MAX_TRAINING_LINE_BYTES);
        if (*n_bytes > 0) return 1;
    }
    return 0;
}

static dip_status check_train_options(const dip_tokenizer_train_options *options)
{
    if (options->vocab_size < MIN_VOCAB || options->vocab_size > MAX_VOCAB)
        return dip_fail(DIP_CONFIG, "vocab-size %d is not in %d..%d", options->vocab_size,
                        MIN_VOCAB, MAX_VOCAB);
    if (strcmp(options->model_type, "unigram") != 0 && strcmp(options->model_type, "bpe") != 0)
        return dip_fail(DIP_CONFIG, "model-type '%s' is not unigram or bpe", options->model_type);
    if (!(options->character_coverage >= 0.98 && options->character_coverage <= 1))
        return dip_fail(DIP_CONFIG, "character-coverage %g is not in 0.98..1",
                        options->character_coverage);
    return DIP_OK;
}

dip_status dip_tokenizer_train(const dip_tokenizer_train_options *options, int *vocab_size)
{
    DIP_TRY(check_train_options(options));
    const char *input = options->input ? options->input : "the captions";
    line_source source = {.next = options->next, .context = options->next_context};
    if (options->input) {
        DIP_TRY(dip_file_map(&source.map, options->input));
        source.next = NULL;
    }
    uint8_t *trained = NULL, *model = NULL;
    size_t n_trained, n_model;
    dip_tokenizer *tokenizer = NULL;
    dip_status status = dip_spm_train(&trained, &n_trained,
                                      &(dip_spm_train_options){
                                          .next = next_line,
                                          .context = &source,
                                          .vocab_size = options->vocab_size,
                                          .model_type = options->model_type,
                                          .character_coverage = options->character_coverage,
                                          .byte_fallback = options->byte_fallback,
                                          .seed = options->seed,
                                      });
    if (status != DIP_OK) {
        dip_fail_prefix(status, "cannot train a tokenizer on %s: ", input);
        goto fail;
    }
    DIP_TRY_GOTO(dip_spm_move_last(&model, &n_model, trained, n_trained, 2));
    DIP_TRY_GOTO(dip_tokenizer_open_bytes(&tokenizer, model, n_model, "the trained model"));
    int n_pieces = tokenizer->facts.n_pieces;
    if (tokenizer->special.pad != 0 || tokenizer->special.unk != 1 ||
        tokenizer->special.bos != -1 || tokenizer->special.eos != n_pieces - 1) {
        status = dip_fail(DIP_FORMAT, "the trained model has pad %d, unk %d, bos %d, eos %d of %d",
                          tokenizer->special.pad, tokenizer->special.unk, tokenizer->special.bos,
                          tokenizer->special.eos, n_pieces);
        goto fail;
    }
    DIP_TRY_GOTO(dip_file_write(options->output, model, n_model));
    if (vocab_size) *vocab_size = n_pieces;
fail:
    dip_tokenizer_close(tokenizer);
    free(model);
    free(trained);
    dip_file_unmap(&source.map);
    return status;
}
