/* config.h - what a model is: open_clip's model_cfg and preprocess_cfg.
 *
 * Usage:   dip_model_config_open with a built-in name (configs/model/NAME.json), the path of a JSON
 *          file (a bare model_cfg, or open_clip_config.json) or of a folder that holds the latter.
 *          A configuration that was read has passed every check.
 * Errors:  DIP_CONFIG listing every mistake at once: unknown keys with the nearest known one,
 *          wrong types, widths that heads do not divide, features this program has not
 *          (timm or Hugging Face towers, attentional pooling, ...), by name. DIP_IO, DIP_FORMAT
 *          (not JSON), DIP_NOMEM.                                                               */
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
    double init_logit_scale; /* log */
    dip_vision_config vision;
    dip_text_config text;
    dip_preprocess preprocess;
} dip_model_config;

/* Names of the built-in models, and one of them by name (DIP_CONFIG with the nearest name). */
const char *const *dip_model_names(size_t *n);
dip_status dip_model_config_named(dip_model_config *config, const char *name);

/* A name, or the path of a JSON file or of a checkpoint folder. */
dip_status dip_model_config_open(dip_model_config *config, const char *name_or_path);
/* `source` is what messages call the JSON; its last word becomes the model's name. Keys that are
 * missing have open_clip's defaults; without preprocess_cfg, OpenAI's mean and std, bicubic,
 * shortest. */
dip_status dip_model_config_from_json(dip_model_config *config, const cJSON *json,
                                      const char *source);

/* {"model_cfg": ..., "preprocess_cfg": ...} as open_clip writes it, for dip_model_config_from_json
 * and open_clip itself. NULL out of memory. */
cJSON *dip_model_config_to_json(const dip_model_config *config);

#endif
