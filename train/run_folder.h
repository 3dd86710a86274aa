/* run_folder.h - LOGS/NAME: out.log, params.txt, ledger.json, dropped.jsonl, checkpoints/, one run
 * at a time.
 *
 * Usage:   dip_run_folder_check while checking; dip_run_folder_open decides the name, makes the
 *          folders, takes the lock and opens out.log; dip_run_folder_close gives all back.
 * Errors:  DIP_CONFIG: a run of that name exists and --resume is not given, another process is
 *          running in it, nothing to resume from; DIP_IO.                                      */
#ifndef DIP_TRAIN_RUN_FOLDER_H
#define DIP_TRAIN_RUN_FOLDER_H

#include <cjson/cJSON.h>

#include "core/status.h"
#include "data/faults.h"
#include "train/options.h"

typedef struct dip_run_folder {
    char *name;
    char *path;        /* LOGS/NAME */
    char *checkpoints; /* LOGS/NAME/checkpoints */
    char *resume;      /* checkpoint folder to go on from, NULL: a fresh start */
    int lock;          /* descriptor of LOGS/NAME/.lock */
} dip_run_folder;

/* What can be said without making anything: --logs and the run's folder are no files, their names
 * not too long, --resume DIR is a folder, --resume latest has a --name, --resume-changes names
 * options. All mistakes at once. DIP_CONFIG. */
dip_status dip_run_folder_check(const dip_train_options *options);

/* `precision` is the resolved one; it is part of the default name. */
dip_status dip_run_folder_open(dip_run_folder *folder, const dip_train_options *options,
                               const char *precision);
void dip_run_folder_close(dip_run_folder *folder); /* a zeroed struct is fine */

/* The resolved configuration as params.txt, "key: value" a line. */
dip_status dip_run_folder_write_params(const dip_run_folder *folder,
                                       const dip_train_options *options);

/* ledger.json, as in the checkpoints but of the last epoch's end. */
dip_status dip_run_folder_write_ledger(const dip_run_folder *folder, const cJSON *ledger);

/* Name bad samples in dropped.jsonl; `n_kept` lines of it are of the run that is resumed. */
dip_status dip_run_folder_record_faults(const dip_run_folder *folder, dip_faults *faults,
                                        int64_t n_kept, int64_t max_lines);

/* Append one line to checkpoints/results.jsonl, durably. */
dip_status dip_run_folder_add_result(const dip_run_folder *folder, const char *json_line);

/* Are the two words the same key, '-' and '_' being the same letter? */
bool dip_same_key(const char *a, const char *b);

#endif
