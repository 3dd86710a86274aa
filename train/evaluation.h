/* evaluation.h - measuring the model at hand between epochs, with the trainer's own towers.
 *
 * Metric names are open_clip's: image_to_text_R@1, clip_val_loss, zeroshot-val-top1, ...
 * Errors:  what loaders, towers and model/evaluate.h report.                                */
#ifndef DIP_TRAIN_EVALUATION_H
#define DIP_TRAIN_EVALUATION_H

#include <cjson/cJSON.h>

#include "data/loader.h"
#include "text/tokenizer.h"
#include "train/step.h"

/* Loss and recall over the held-out pairs (each image with its first caption, as open_clip measures
 * while training), added to `metrics`. `options` is an evaluation loader's. */
dip_status dip_evaluate_pairs(dip_step *step, cJSON *metrics, const dip_loader_options *options);

/* Zero-shot accuracy over labelled images, added to `metrics`. */
dip_status dip_evaluate_zeroshot(dip_step *step, cJSON *metrics, const dip_loader_options *options,
                                 const dip_tokenizer *tokenizer, const dip_string_list *classnames,
                                 const dip_string_list *templates);

#endif
