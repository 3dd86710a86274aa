#include "train/trainer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/file.h"
#include "core/log.h"
#include "train/trainer_internal.h"

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- training ---------------------------------------------------------------------------- */

static void log_step(dip_trainer *t, const dip_step_result *result, double lr)
{
    const dip_progress_place place = {
        .progress = &t->progress,
        .schedule = &t->schedule,
        .pairs_per_step = t->o->batch_size * t->o->accum_freq,
        .steps_per_epoch = t->steps_per_epoch,
        .step_of_epoch = t->step_of_epoch,
    };
    dip_progress_line(&t->window, &place, result, lr, now_seconds());
}

/* CHECKPOINTS/NAME, or "none" for "". */
static const char *checkpoint_path(const dip_trainer *t, const char *name, char *out,
                                   size_t capacity)
{
    snprintf(out, capacity, "%s%s%s", name[0] ? t->folder.checkpoints : "none", name[0] ? "/" : "",
             name);
    return out;
}

/* Steps that change nothing are counted; too many in a row end the run. */
static dip_status count_skipped(dip_trainer *t, const dip_step_result *result)
{
    if (result->applied) {
        t->skipped_in_a_row = 0;
        return DIP_OK;
    }
    t->progress.n_skipped++;
    t->skipped_in_a_row++;
    dip_warn("step %lld changed nothing: loss %g, gradient norm %g", (long long)t->progress.step,
             dip_plain(result->loss), dip_plain(result->grad_norm));
    if (t->skipped_in_a_row < t->o->max_skipped_steps) return DIP_OK;
    char path[4352];
    return dip_fail(DIP_NUMERIC,
                    "%lld steps in a row had a loss or gradient that is not finite; the last good "
                    "checkpoint is %s",
                    (long long)t->skipped_in_a_row,
                    checkpoint_path(t, t->last_good, path, sizeof path));
}

/* A run that ends on skipped steps has weights that give no finite loss, however few they were. */
static dip_status check_end(const dip_trainer *t)
{
    char path[4352];
    if (t->skipped_in_a_row == 0) return DIP_OK;
    return dip_fail(
        DIP_NUMERIC,
        "the run ended on %lld steps whose loss or gradient was not finite; the last good "
        "checkpoint is %s",
        (long long)t->skipped_in_a_row, checkpoint_path(t, t->last_good, path, sizeof path));
}

/* Hand in the step on the batch that the loader just gave. */
static dip_status submit(dip_trainer *t, const dip_batch *batch, double waited)
{
    const int n_pending = dip_step_in_flight(&t->step);
    dip_pending_step *p = &t->pending[n_pending];
    *p = (dip_pending_step){.lr = dip_schedule_lr(&t->schedule, t->progress.step + n_pending),
                            .waited = waited,
                            .n_pairs = batch->n,
                            .position = dip_loader_position(t->loader),
                            .n_spares = dip_loader_n_spares(t->loader),
                            .n_bad = dip_loader_n_bad(t->loader)};
    return dip_step_submit(&t->step, batch, p->lr);
}

/* The result of the oldest step that was handed in. */
static dip_status collect(dip_trainer *t)
{
    const dip_pending_step p = t->pending[0];
    dip_step_result result;
    DIP_TRY(dip_step_collect(&t->step, &result));
    memmove(t->pending, t->pending + 1, sizeof t->pending - sizeof t->pending[0]);
    const double now = now_seconds();
    t->progress.step++;
    t->progress.samples_seen += p.n_pairs;
    t->progress.position = p.position;
    t->progress.n_spares = p.n_spares;
    t->progress.n_bad = p.n_bad;
    t->step_of_epoch++;
    t->pairs_trained += p.n_pairs;
    t->train_seconds += now - t->mark;
    t->mark = now;
    t->last_loss = result.loss;
    t->window.waited += p.waited;
    t->window.loss_sum += result.loss;
    t->window.n_steps++;
    DIP_TRY(count_skipped(t, &result));
    if (t->progress.step % t->o->log_every_n_steps == 0 || t->step_of_epoch == t->steps_per_epoch ||
        t->progress.step == t->schedule.total)
        log_step(t, &result, p.lr);
    return DIP_OK;
}

/* Results until no more than n steps are on their way. */
static dip_status collect_until(dip_trainer *t, int n)
{
    while (dip_step_in_flight(&t->step) > n) DIP_TRY(collect(t));
    return DIP_OK;
}

static dip_status stop_here(dip_trainer *t)
{
    char name[64];
    snprintf(name, sizeof name, "epoch_%lld_step_%lld", (long long)t->progress.epoch,
             (long long)t->progress.step);
    DIP_TRY(dip_trainer_save(t, name));
    return dip_fail(DIP_INTERRUPTED,
                    "stopped on request after step %lld; go on with "
                    "--name %s --resume latest",
                    (long long)t->progress.step, t->folder.name);
}

/* The rest of the epoch at hand. DIP_END when it is done, DIP_OK when the run is. Either way no
 * step is on its way any more. */
static dip_status train_epoch(dip_trainer *t)
{
    const int limit = dip_step_in_flight_limit(&t->step);
    t->step_of_epoch = t->progress.position / (t->o->batch_size * t->o->accum_freq);
    t->window = (dip_progress_window){.started = now_seconds()};
    t->mark = t->window.started;
    DIP_TRY(
        dip_loader_start(t->loader, t->progress.epoch, t->progress.position, t->progress.n_spares));
    dip_loader_resume_bad(t->loader, t->progress.n_bad);
    dip_batch batch;
    while (t->progress.step + dip_step_in_flight(&t->step) < t->schedule.total) {
        const double asked = now_seconds();
        const dip_status status = dip_loader_next(t->loader, &batch);
        if (status != DIP_OK) {
            DIP_TRY(collect_until(t, 0)); /* the steps before the data ended, or went bad */
            return status;
        }
        DIP_TRY(submit(t, &batch, now_seconds() - asked));
        const bool stop = *t->stop;
        DIP_TRY(collect_until(t, stop ? 0 : limit - 1));
        if (stop && t->progress.step < t->schedule.total) return stop_here(t);
    }
    DIP_TRY(collect_until(t, 0));
    /* --max-steps can end amid an epoch: a run that is given more goes on from there. */
    return dip_loader_batches_left(t->loader) ? DIP_OK : dip_loader_next(t->loader, &batch);
}

static dip_status train(dip_trainer *t)
{
    const dip_train_options *o = t->o;
    if (t->progress.step >= t->schedule.total || t->progress.epoch >= o->epochs)
        dip_info("nothing left to do: %lld of %lld steps are done; more with --epochs N "
                 "--resume-changes epochs",
                 (long long)t->progress.step, (long long)t->schedule.total);
    /* Bad samples can cost an epoch a step, so either may come first. */
    while (t->progress.step < t->schedule.total && t->progress.epoch < o->epochs) {
        dip_status status = train_epoch(t);
        if (status != DIP_OK && status != DIP_END) return status;
        const int64_t done = t->progress.epoch + 1;
        const bool last = t->progress.step >= t->schedule.total || done >= o->epochs;
        if (status == DIP_END) {
            t->progress.epoch = done;
            t->progress.position = t->progress.n_spares = t->progress.n_bad = 0;
        }
        DIP_TRY(dip_trainer_tell_ledger(t));
        if (last || o->save_most_recent || (o->save_frequency && done % o->save_frequency == 0)) {
            char name[32];
            snprintf(name, sizeof name, "epoch_%lld", (long long)done);
            DIP_TRY(dip_trainer_save(t, name));
        }
        DIP_TRY(
            dip_trainer_evaluate(t, done, last)); /* whatever becomes of it, the weights are safe */
        if (last) break;
    }
    return check_end(t);
}

/* ---- the run ----------------------------------------------------------------------------- */

/* A device that gives up takes the run with it, but not what is on disk. */
static dip_status name_checkpoint(const dip_trainer *t, dip_status status)
{
    char path[4352];
    if (status != DIP_DEVICE && status != DIP_UNSUPPORTED && status != DIP_NOMEM) return status;
    char *sentence = strdup(dip_error());
    const char *what = sentence ? sentence : dip_status_text(status);
    if (t->last_checkpoint[0])
        dip_fail(status, "%s; the last checkpoint is good: %s", what,
                 checkpoint_path(t, t->last_checkpoint, path, sizeof path));
    else
        dip_fail(status, "%s; this run had not saved a checkpoint yet", what);
    free(sentence);
    return status;
}

static cJSON *summarise(const dip_trainer *t)
{
    cJSON *s = cJSON_CreateObject();
    if (!s) return NULL;
    char *checkpoint = dip_path_join(t->folder.checkpoints, t->last_checkpoint);
    cJSON_AddStringToObject(s, "name", t->folder.name);
    if (t->last_checkpoint[0]) cJSON_AddStringToObject(s, "checkpoint", checkpoint);
    cJSON_AddStringToObject(s, "precision", dip_trainer_precision(t));
    cJSON_AddNumberToObject(s, "epoch", (double)t->progress.epoch);
    cJSON_AddNumberToObject(s, "step", (double)t->progress.step);
    cJSON_AddNumberToObject(s, "samples_seen", (double)t->progress.samples_seen);
    cJSON_AddNumberToObject(s, "skipped_steps", (double)t->progress.n_skipped);
    int64_t n_dropped = 0;
    for (int set = 0; set < DIP_N_INPUT_SETS; set++)
        if (t->inputs.faults[set]) n_dropped += dip_faults_total(t->inputs.faults[set]);
    cJSON_AddNumberToObject(s, "dropped_samples", (double)n_dropped);
    if (isfinite(t->last_loss))
        cJSON_AddNumberToObject(s, "loss", t->last_loss);
    else
        cJSON_AddNullToObject(s, "loss");
    cJSON_AddNumberToObject(s, "train_seconds", t->train_seconds);
    cJSON_AddNumberToObject(s, "samples_per_second",
                            t->train_seconds > 0 ? (double)t->pairs_trained / t->train_seconds : 0);
    cJSON_AddNumberToObject(s, "seconds", now_seconds() - t->started);
    if (t->metrics) cJSON_AddItemToObject(s, "metrics", cJSON_Duplicate(t->metrics, 1));
    free(checkpoint);
    return s;
}

static void close_trainer(dip_trainer *t)
{
    dip_loader_close(t->loader);
    dip_account_close(&t->account);
    dip_step_close(&t->step);
    dip_clip_free(&t->clip);
    dip_inputs_close(&t->inputs);
    cJSON_Delete(t->configuration);
    cJSON_Delete(t->metrics);
    dip_run_folder_close(&t->folder);
}

dip_status dip_train_check(const dip_train_options *options)
{
    dip_trainer t = {.o = options, .folder = {.lock = -1}};
    const dip_status status = dip_inputs_check(&t.inputs, options);
    close_trainer(&t);
    return status;
}

dip_status dip_train_run(const dip_train_options *options, const volatile sig_atomic_t *stop,
                         cJSON **summary)
{
    dip_trainer t = {.o = options,
                     .stop = stop,
                     .started = now_seconds(),
                     .last_loss = NAN,
                     .folder = {.lock = -1}};
    *summary = NULL;
    dip_status status = dip_trainer_prepare(&t);
    if (status == DIP_OK) {
        status = name_checkpoint(&t, train(&t));
        if (t.progress.n_skipped)
            dip_warn("%lld steps were skipped because a loss or gradient was not finite",
                     (long long)t.progress.n_skipped);
        if (status != DIP_OK) dip_log(DIP_LOG_ERROR, "%s", dip_error());
        *summary = summarise(&t);
    }
    for (int set = 0; set < DIP_N_INPUT_SETS; set++)
        if (t.inputs.faults[set]) dip_faults_print(t.inputs.faults[set], stderr);
    char *sentence = strdup(dip_error()); /* closing a device that failed may fail again */
    close_trainer(&t);
    if (status != DIP_OK && sentence) dip_fail(status, "%s", sentence);
    free(sentence);
    return status;
}
