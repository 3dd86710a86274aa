/* trainer.h - a whole pretraining run: check, prepare, train, measure, save.
 *
 * Everything a user can get wrong is checked first and refused together; only then are the run's
 * folder and memory made. The steps themselves are train/step.c.
 *
 * Usage:   dip_train_run with parsed options. `stop` is raised by a signal handler: the run then
 *          saves a checkpoint and returns DIP_INTERRUPTED.
 * Errors:  DIP_CONFIG (refused, nothing was done), DIP_FORMAT (too many bad samples), DIP_NUMERIC
 *          (steps keep failing; the last checkpoint is named), DIP_NOMEM, DIP_IO.              */
#ifndef DIP_TRAIN_TRAINER_H
#define DIP_TRAIN_TRAINER_H

#include <signal.h>

#include <cjson/cJSON.h>

#include "train/options.h"

/* What dip_train_run checks before anything else: files, model, run folder, options that depend on
 * one another. Options that are missing are not looked at: it also serves to complete the list of
 * mistakes of a command line that is refused already. DIP_CONFIG with all mistakes. */
dip_status dip_train_check(const dip_train_options *options);

/* *summary: the run's figures, for --json; NULL unless the run began. The caller frees it. */
dip_status dip_train_run(const dip_train_options *options, const volatile sig_atomic_t *stop,
                         cJSON **summary);

#endif
