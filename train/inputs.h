/* inputs.h - what a run is given: model configuration, tokenizer, shards, class names.
 *
 * Usage:   dip_inputs_check opens everything that can be wrong before any work and collects all
 *          mistakes; dip_inputs_index then reads the shards; dip_inputs_loader says how to load one
 *          of the three data sets; dip_inputs_close.
 * Errors:  DIP_CONFIG with every mistake of the options; reading: what samples report.          */
#ifndef DIP_TRAIN_INPUTS_H
#define DIP_TRAIN_INPUTS_H

#include "data/loader.h"
#include "data/pattern.h"
#include "data/samples.h"
#include "model/config.h"
#include "text/tokenizer.h"
#include "train/data_plan.h"
#include "train/options.h"

typedef enum dip_input_set { DIP_INPUT_TRAIN, DIP_INPUT_VAL, DIP_INPUT_ZEROSHOT } dip_input_set;
enum { DIP_N_INPUT_SETS = DIP_INPUT_ZEROSHOT + 1 };

typedef struct dip_inputs {
    const dip_train_options *options;
    dip_model_config config;
    dip_tokenizer *tokenizer;
    dip_string_list shards[DIP_N_INPUT_SETS];
    dip_samples *samples[DIP_N_INPUT_SETS]; /* NULL: not given */
    dip_string_list classnames, templates;
    dip_data_plan plan;
    dip_faults *faults[DIP_N_INPUT_SETS]; /* NULL: not given */
} dip_inputs;

/* Options that are missing are not looked at. */
dip_status dip_inputs_check(dip_inputs *inputs, const dip_train_options *options);
void dip_inputs_close(dip_inputs *inputs); /* a zeroed struct is fine */

/* Fit the text tower to the tokenizer, which decides the vocabulary and where a text ends, and find
 * every sample. */
dip_status dip_inputs_index(dip_inputs *inputs);

/* Only training shuffles, augments and has nothing but full batches. */
dip_loader_options dip_inputs_loader(const dip_inputs *inputs, dip_input_set set);

/* Training batches of an epoch, if no sample is bad: at least one. */
dip_status dip_inputs_epoch(const dip_inputs *inputs, int64_t *n_batches);

/* Log how an epoch is made of the pairs if it is not just all of them. */
void dip_inputs_mention_epoch(const dip_inputs *inputs);

/* What is done to training images, every argument spelled out. DIP_NOMEM. */
dip_status dip_inputs_mention_augmentations(const dip_inputs *inputs);

/* Captions that training does not use should not go unmentioned: log a line about them. */
void dip_inputs_mention_captions(const dip_inputs *inputs);

#endif
