/* resume.h - may a checkpoint be gone on from, and would it be the same run?
 *
 * Compared: every option that changes the data, the schedule or the arithmetic, the number of
 * training pairs, the model, and the tokenizer's bytes. What may differ is named by the user
 * (--resume-changes).
 *
 * Errors:  DIP_CONFIG naming every difference with both values; what reading reports.          */
#ifndef DIP_TRAIN_RESUME_H
#define DIP_TRAIN_RESUME_H

#include <cjson/cJSON.h>

#include "train/checkpoint.h"
#include "train/options.h"

typedef struct dip_resume_run {
    const dip_train_options *options;
    const cJSON *configuration; /* resolved: what the checkpoints of this run will hold */
    const dip_model_config *model;
    const dip_tokenizer *tokenizer;
    int64_t n_samples; /* training pairs */
} dip_resume_run;

/* `saved` receives where the run in `dir` stands. */
dip_status dip_resume_check(dip_progress *saved, const dip_resume_run *run, const char *dir);

#endif
