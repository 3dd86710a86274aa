/* config.h - what a model is: open_clip's model_cfg and preprocess_cfg.
 *
 * Usage:   dip_model_config_named (built in: configs/model/NAME.json), or _read from a JSON file
 *          (a bare model_cfg, or open_clip_config.json), then _check.
 * Errors:  DIP_CONFIG listing every mistake at once: unknown keys with the nearest known one,
 *          wrong types, widths that heads do not divide, features this program has not
 *          (timm or Hugging Face towers, attentional pooling, ...), by name.               */
#ifndef DIP_MODEL_CONFIG_H
#define DIP_MODEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include <cjson/cJSON.h>

#include "core/status.h"
#include "text/text.h"
#include "vision/vision.h"

typedef struct dip_preprocess {
    float mean[3], std[3];
    bool bilinear; /* else bicubic */
    bool squash;   /* resize_mode "squash"; else "shortest" */
} dip_preprocess;

typedef struct dip_model_config {
    char name[64];
    int embed_dim;
    bool quick_gelu;
    double init_logit_scale;        /* log */
    dip_vision_config vision;
    dip_text_config text;
    dip_preprocess preprocess;
} dip_model_config;

/* Names of the built-in models, and one of them by name (DIP_CONFIG with the nearest name). */
const char *const *dip_model_names(size_t *n);
dip_status dip_model_config_named(dip_model_config *config, const char *name);

/* A name or the path of a JSON file. */
dip_status dip_model_config_open(dip_model_config *config, const char *name_or_path);
dip_status dip_model_config_from_json(dip_model_config *config, const cJSON *json,
                                      const char *source);

/* {"model_cfg": ..., "preprocess_cfg": ...} as open_clip writes it. NULL out of memory. */
cJSON *dip_model_config_to_json(const dip_model_config *config);

#endif
