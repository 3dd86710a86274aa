/* options.h - everything a pretraining run can be told; the rows are in options.c.
 *
 * Names are open_clip's where it has one. Every row is a flag, a JSON key and a line of help. */
#ifndef DIP_TRAIN_OPTIONS_H
#define DIP_TRAIN_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/config.h"

typedef struct dip_train_options {
    /* data */
    char *train_data, *val_data;
    char *train_data_upsampling_factors; /* one for each of --train-data's patterns */
    bool dataset_resampled;
    int64_t train_num_samples; /* 0: all */
    char *last_batch;          /* drop|wrap */
    int64_t workers, prefetch, max_dropped_lines;
    double max_bad_fraction;
    /* images */
    int64_t max_image_pixels, max_image_side, max_image_scans, max_image_bytes, max_caption_bytes;
    bool exif_rotate, scale_in_dct;
    char *alpha_over;    /* "R,G,B" */
    char *augmentations; /* NULL: from the four below */
    double crop_scale_min, crop_scale_max, crop_ratio, flip;
    /* captions */
    char *json_text_key, *json_text_key_weights; /* KEY,KEY,... and X,X,... */
    char *caption_clean;
    double word_dropout;
    char *caption_lines;      /* first|random */
    char *caption_duplicates; /* negative|positive|mask */
    /* model */
    char *model, *tokenizer, *loss;
    double image_mean, image_std; /* NaN-free: < 0 = the model's own */
    /* optimisation */
    int64_t batch_size, accum_freq, epochs, warmup, max_steps;
    double lr, wd, beta1, beta2, eps, grad_clip_norm, ema_decay;
    char *lr_scheduler;
    int64_t seed;
    int64_t max_skipped_steps;
    /* machine */
    char *device, *precision;
    int64_t threads;
    char *memory;    /* dip_memory_parse */
    char *recompute; /* auto|none|mlp|block */
    bool print_memory, pad_captions, all_rows, cuda_graphs;
    /* run folder */
    char *logs, *name, *resume;
    dip_string_list resume_changes;
    int64_t save_frequency, log_every_n_steps, val_frequency, zeroshot_frequency;
    bool save_most_recent, json;
    /* zero-shot while training */
    char *zeroshot_data, *classnames, *templates;
} dip_train_options;

extern const dip_option_table dip_train_option_table;

/* What the table's rows cannot say: things that depend on one another (warm-up within the run,
 * class names for zero-shot, ...). All mistakes at once. DIP_CONFIG. */
dip_status dip_train_options_check(const dip_train_options *options);

/* "40G", "512M", "1.5T", "65536": bytes, K M G T being powers of 1024. DIP_CONFIG. */
dip_status dip_memory_parse(size_t *n_bytes, const char *text);

#endif
