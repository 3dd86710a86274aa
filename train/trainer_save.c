/* What a run leaves behind: checkpoints, its ledger, measurements. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "core/log.h"
#include "train/evaluation.h"
#include "train/ledger.h"
#include "train/trainer_internal.h"

dip_status dip_trainer_save(dip_trainer *t, const char *name)
{
    char before[sizeof t->last_checkpoint];
    cJSON *ledger;
    memcpy(before, t->last_checkpoint, sizeof before);
    dip_loader_account(t->loader, &t->account);
    t->progress.n_dropped = dip_faults_recorded(t->inputs.faults[DIP_INPUT_TRAIN]);
    DIP_TRY(dip_ledger_to_json(&ledger, &t->account, t->inputs.samples[DIP_INPUT_TRAIN]));
    const dip_checkpoint_extras extras = {t->configuration, ledger};
    dip_status written = dip_checkpoint_write(&t->step, t->inputs.tokenizer, &t->progress, &extras,
                                              t->folder.checkpoints, name);
    if (written == DIP_OK) written = dip_run_folder_write_ledger(&t->folder, ledger);
    cJSON_Delete(ledger);
    DIP_TRY(written);
    snprintf(t->last_checkpoint, sizeof t->last_checkpoint, "%s", name);
    if (t->skipped_in_a_row == 0) snprintf(t->last_good, sizeof t->last_good, "%s", name);
    dip_info("saved %s/%s", t->folder.checkpoints, name);
    if (!t->o->save_most_recent || !before[0] || strcmp(before, name) == 0) return DIP_OK;
    char *old = dip_path_join(t->folder.checkpoints, before);
    if (!old) return dip_fail(DIP_NOMEM, "no memory for a path");
    dip_status status = dip_remove_tree(old);
    free(old);
    return status;
}

dip_status dip_trainer_tell_ledger(dip_trainer *t)
{
    const dip_samples *samples = t->inputs.samples[DIP_INPUT_TRAIN];
    cJSON *ledger;
    dip_loader_account(t->loader, &t->account);
    dip_ledger_log(&t->account, samples);
    DIP_TRY(dip_ledger_to_json(&ledger, &t->account, samples));
    dip_status status = dip_run_folder_write_ledger(&t->folder, ledger);
    cJSON_Delete(ledger);
    return status;
}

static dip_status log_metrics(const dip_trainer *t, int64_t done)
{
    const cJSON *item;
    char line[1024] = "";
    cJSON_ArrayForEach(item, t->metrics)
    {
        const size_t used = strlen(line);
        if (cJSON_IsNumber(item) && strcmp(item->string, "epoch") != 0)
            snprintf(line + used, sizeof line - used, " %s: %.4f", item->string, item->valuedouble);
    }
    dip_info("Eval Epoch: %lld%s", (long long)done, line);
    char *text;
    DIP_TRY(dip_json_print(&text, t->metrics, false));
    dip_status status = dip_run_folder_add_result(&t->folder, text);
    free(text);
    return status;
}

dip_status dip_trainer_evaluate(dip_trainer *t, int64_t done, bool last)
{
    const dip_train_options *o = t->o;
    const dip_inputs *in = &t->inputs;
    const bool pairs =
        in->samples[DIP_INPUT_VAL] && o->val_frequency && (done % o->val_frequency == 0 || last);
    const bool zeroshot = in->samples[DIP_INPUT_ZEROSHOT] && o->zeroshot_frequency &&
                          (done % o->zeroshot_frequency == 0 || last);
    if (!pairs && !zeroshot) return DIP_OK;
    cJSON_Delete(t->metrics);
    t->metrics = cJSON_CreateObject();
    if (!t->metrics || !cJSON_AddNumberToObject(t->metrics, "epoch", (double)done))
        return dip_fail(DIP_NOMEM, "no memory for metrics");
    if (pairs) {
        const dip_loader_options options = dip_inputs_loader(in, DIP_INPUT_VAL);
        DIP_TRY(dip_evaluate_pairs(&t->step, t->metrics, &options));
    }
    if (zeroshot) {
        const dip_loader_options options = dip_inputs_loader(in, DIP_INPUT_ZEROSHOT);
        DIP_TRY(dip_evaluate_zeroshot(&t->step, t->metrics, &options, in->tokenizer,
                                      &in->classnames, &in->templates));
    }
    return log_metrics(t, done);
}
