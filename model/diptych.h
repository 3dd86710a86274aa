/* diptych.h - open a trained model and encode images and texts.
 *
 *     dip_model *model;
 *     if (dip_model_open(&model, "logs/run/checkpoints/epoch_latest", NULL) != DIP_OK)
 *         fprintf(stderr, "%s\n", dip_error());
 *     float features[2 * 512];                      // 2 x dip_model_embed_dim(model)
 *     const char *texts[2] = {"a photo of a cat", "a photo of a dog"};
 *     dip_model_encode_texts(model, features, texts, 2);
 *     dip_model_close(model);
 *
 * Features are float rows of unit length, so a dot product is a cosine similarity.
 *
 * Owns:    a model owns its memory; outputs are the caller's.
 * Threads: one thread at a time per model; any number of models.
 * Errors:  a status and a sentence (dip_error). Nothing is printed, nothing exits.           */
#ifndef DIPTYCH_H
#define DIPTYCH_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dip_model dip_model;

typedef struct dip_model_options {
    const char *device;    /* "auto" (NULL: a GPU if there is one), "cpu", "cuda", "cuda:N",
                              "reference" */
    const char *precision; /* "auto" (NULL: bf16 where the device is fast at it), "bf16", "fp32" */
    int n_threads;         /* 0 = all cores */
    int max_batch;         /* images or texts computed at once; 0 = 64 */
    int use_ema;           /* read a checkpoint's averaged weights; refused if there are none */
} dip_model_options;

/* Open a checkpoint or exported folder. options NULL = defaults. DIP_CONFIG (no such folder or
 * file, no averaged weights), DIP_FORMAT (damaged or not fitting together), DIP_NOMEM. */
dip_status dip_model_open(dip_model **model, const char *path, const dip_model_options *options);
void dip_model_close(dip_model *model); /* accepts NULL */

int dip_model_embed_dim(const dip_model *model);      /* E */
int dip_model_image_size(const dip_model *model);     /* pixels, square */
int dip_model_context_length(const dip_model *model); /* tokens */
float dip_model_logit_scale(const dip_model *model);  /* exp of the parameter */
const char *dip_model_precision(const dip_model *model);

/* features [n][E] from image files / compressed bytes in memory (JPEG or PNG). The first image that
 * cannot be decoded ends the call with DIP_FORMAT and its name (or number). */
dip_status dip_model_encode_image_files(dip_model *model, float *features, const char *const *paths,
                                        size_t n);
dip_status dip_model_encode_images(dip_model *model, float *features, const void *const *data,
                                   const size_t *n_bytes, size_t n);

/* features [n][E] from pixels already resized: u8 [n][size][size][3] RGB. */
dip_status dip_model_encode_pixels(dip_model *model, float *features, const uint8_t *rgb, size_t n);

/* features [n][E] from NUL-terminated UTF-8 texts. */
dip_status dip_model_encode_texts(dip_model *model, float *features, const char *const *texts,
                                  size_t n);

/* The same from token ids, packed: sequence i is tokens[offsets[i]] .. tokens[offsets[i + 1] - 1],
 * its last token the end of text. */
dip_status dip_model_encode_tokens(dip_model *model, float *features, const int32_t *tokens,
                                   const int32_t *offsets, size_t n);

#ifdef __cplusplus
}
#endif
#endif
