/* trainer_internal.h - what the files of the trainer share: trainer_prepare.c makes a run ready,
 * trainer.c takes its steps, trainer_save.c writes and measures.                              */
#ifndef DIP_TRAIN_TRAINER_INTERNAL_H
#define DIP_TRAIN_TRAINER_INTERNAL_H

#include <signal.h>
#include <stdbool.h>

#include <cjson/cJSON.h>

#include "train/checkpoint.h"
#include "train/inputs.h"
#include "train/progress_line.h"
#include "train/run_folder.h"
#include "train/schedule.h"
#include "train/step.h"

/* What belongs to a step between handing it in and its result. */
typedef struct dip_pending_step {
    double lr, waited; /* seconds, for the batch */
    int64_t n_pairs;
    int64_t position, n_spares, n_bad; /* the loader's, behind the batch */
} dip_pending_step;

typedef struct dip_trainer {
    const dip_train_options *o;
    const volatile sig_atomic_t *stop;
    dip_inputs inputs;
    dip_dtype dtype;
    /* the run */
    dip_run_folder folder;
    cJSON *configuration;
    dip_clip clip;
    dip_step step;
    dip_memory_source batches; /* of the loader: memory that the device reads fast */
    dip_loader *loader;
    dip_account account; /* what became of the training data */
    dip_schedule schedule;
    dip_progress progress; /* of the steps whose results are known */
    int64_t steps_per_epoch;
    /* the epoch */
    dip_pending_step pending[DIP_N_SLOTS]; /* oldest first */
    int64_t step_of_epoch;
    dip_progress_window window;
    /* figures */
    double started, train_seconds, last_loss;
    double mark; /* up to where train_seconds counts */
    int64_t pairs_trained, skipped_in_a_row;
    char last_checkpoint[256]; /* name; "" before the first */
    char last_good[256];       /* the same, of one saved while steps were being applied */
    cJSON *metrics;            /* of the last evaluation */
} dip_trainer;

/* trainer_prepare.c */

/* Everything up to the first step. What is wrong with the options leaves no run folder behind. */
dip_status dip_trainer_prepare(dip_trainer *t);
const char *dip_trainer_precision(const dip_trainer *t);

/* trainer_save.c */

/* A checkpoint of that name, and the ledger beside it. No step may be on its way. */
dip_status dip_trainer_save(dip_trainer *t, const char *name);
/* What became of the data up to here, for the log and the run's folder. */
dip_status dip_trainer_tell_ledger(dip_trainer *t);
/* The measurements that are due after `done` epochs; all of them after the last. */
dip_status dip_trainer_evaluate(dip_trainer *t, int64_t done, bool last);

#endif
