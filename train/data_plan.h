/* data_plan.h - what the options say about the training data, in the terms of the loader: factors
 * of the patterns, decoding, augmentation, captions.
 *
 * Usage:   dip_data_plan_open; dip_data_plan_sources when the samples are known;
 *          dip_data_plan_close.
 * Owns:    everything in the plan; loaders borrow from it.
 * Errors:  DIP_CONFIG with every mistake, one a line; DIP_NOMEM.                               */
#ifndef DIP_TRAIN_DATA_PLAN_H
#define DIP_TRAIN_DATA_PLAN_H

#include "data/loader.h"
#include "train/options.h"

typedef struct dip_data_plan {
    dip_decode_options decode;
    dip_augmentation *augmentation; /* NULL: as for evaluation */
    dip_caption_options caption;    /* with the memory behind its pointers */
    dip_order_source *sources;      /* NULL: all samples, once */
    int n_sources;
} dip_data_plan;

dip_status dip_data_plan_open(dip_data_plan *plan, const dip_train_options *options);
void dip_data_plan_close(dip_data_plan *plan); /* a zeroed struct is fine */

/* Find where the samples of each pattern of --train-data lie. */
dip_status dip_data_plan_sources(dip_data_plan *plan, const dip_samples *samples,
                                 const char *train_data);

#endif
