/* clip.h - the two towers together, and their weights on disk.
 *
 * A dip_clip is a description: configuration, parameter table, two towers and the number of the
 * logit_scale parameter. It owns no tensor memory.
 *
 * A checkpoint folder, as open_clip's conventions have it:
 *     open_clip_config.json        {"model_cfg", "preprocess_cfg"}
 *     open_clip_model.safetensors  the weights, fp32, open_clip's names
 *     spiece.model                 the SentencePiece tokenizer
 * A training checkpoint adds ema_model.safetensors (when there is an average),
 * optimizer.safetensors and trainer.json (train/checkpoint.h).
 *
 * Usage:   dip_clip_init from a checked configuration; dip_clip_free.
 * Errors:  DIP_NOMEM; reading weights: DIP_IO, DIP_FORMAT listing every tensor that is missing,
 *          unknown or of another shape.                                                       */
#ifndef DIP_MODEL_CLIP_H
#define DIP_MODEL_CLIP_H

#include "model/config.h"
#include "nn/params.h"
#include "text/text.h"
#include "vision/vision.h"

#define DIP_CONFIG_FILE    "open_clip_config.json"
#define DIP_WEIGHTS_FILE   "open_clip_model.safetensors"
#define DIP_EMA_FILE       "ema_model.safetensors"
#define DIP_TOKENIZER_FILE "spiece.model"

typedef struct dip_clip {
    dip_model_config config;
    dip_param_table table;
    dip_vision vision;
    dip_text text;
    int logit_scale; /* parameter number; a scalar, stored as its log */
} dip_clip;

dip_status dip_clip_init(dip_clip *clip, const dip_model_config *config);
void dip_clip_free(dip_clip *clip); /* a zeroed struct is fine */

/* Rows of the table as an fp32 safetensors file, atomically; `values` [n_values] on the host. */
dip_status dip_weights_write(const char *path, const dip_param_table *table, const float *values);

/* The reverse: every row must be there in its shape, nothing else may be; values must be finite. */
dip_status dip_weights_read(float *values, const dip_param_table *table, const char *path);

#endif
