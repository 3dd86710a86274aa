/* checkpoint.h - a training run on disk, complete or not there at all.
 *
 * CHECKPOINTS/NAME/ holds the files of model/clip.h and
 *     optimizer.safetensors   exp_avg.PARAM and exp_avg_sq.PARAM, fp32
 *     ledger.json             what became of the training data (train/ledger.h)
 *     trainer.json            where the run stands: dip_progress, the resolved configuration, and
 *                             the CRC-32C of every file of the folder, its own included
 * The folder is written under another name, synced, and renamed; CHECKPOINTS/epoch_latest is then
 * pointed at it. A crash leaves the old checkpoint or the new one, and at most a folder
 * .tmp-NAME that the next save removes. What is resumed from is checked to the last byte first.
 *
 * Errors:  DIP_IO, DIP_NOMEM; reading: DIP_FORMAT or DIP_CONFIG saying which file and why.    */
#ifndef DIP_TRAIN_CHECKPOINT_H
#define DIP_TRAIN_CHECKPOINT_H

#include <stdint.h>

#include <cjson/cJSON.h>

#include "core/status.h"
#include "text/tokenizer.h"
#include "train/step.h"

/* Where a run stands; position, spares and epoch are the loader's. */
typedef struct dip_progress {
    int64_t epoch;     /* of the next step */
    int64_t position;  /* where its batch begins in that epoch */
    int64_t n_spares;  /* of that epoch that are used */
    int64_t n_bad;     /* samples of that epoch that could not be used */
    int64_t n_dropped; /* lines of the run's dropped.jsonl */
    int64_t step;      /* steps done, skipped ones included */
    int64_t n_updates; /* steps applied; written from the optimizer's own count */
    int64_t n_skipped;
    int64_t samples_seen;
    int64_t total_steps; /* the schedule's length */
    int64_t n_samples;   /* samples in the data set */
} dip_progress;

/* What is stored as it is; each may be NULL. */
typedef struct dip_checkpoint_extras {
    const cJSON *configuration, *ledger;
} dip_checkpoint_extras;

/* No step may be on its way. */
dip_status dip_checkpoint_write(dip_step *step, const dip_tokenizer *tokenizer,
                                const dip_progress *progress, const dip_checkpoint_extras *extras,
                                const char *checkpoints_dir, const char *name);

/* The run's standing and configuration, before anything is built; every file's checksum is checked.
 * Free *configuration. DIP_CONFIG: a folder with weights at most. */
dip_status dip_checkpoint_read_progress(dip_progress *progress, cJSON **configuration,
                                        const char *dir);

/* Weights, moments and average into an open step. */
dip_status dip_checkpoint_read(dip_step *step, const dip_progress *progress, const char *dir);

#endif
