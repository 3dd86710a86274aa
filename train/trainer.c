#include "train/trainer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/file.h"
#include "core/json.h"
#include "core/log.h"
#include "train/checkpoint.h"
#include "train/evaluation.h"
#include "train/inputs.h"
#include "train/memory.h"
#include "train/progress_line.h"
#include "train/resume.h"
#include "train/run_folder.h"
#include "train/schedule.h"
#include "train/step.h"

/* What belongs to a step between handing it in and its result. */
typedef struct pending {
    double lr, waited; /* seconds, for the batch */
    int64_t n_pairs;
    int64_t position; /* the loader's, behind the batch */
} pending;

typedef struct trainer {
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
    dip_schedule schedule;
    dip_progress progress; /* of the steps whose results are known */
    int64_t steps_per_epoch;
    /* the epoch */
    pending pending[DIP_N_SLOTS]; /* oldest first */
    int64_t step_of_epoch;
    dip_progress_window window;
    /* figures */
    double started, train_seconds, last_loss;
    double mark; /* up to where train_seconds counts */
    int64_t pairs_trained, skipped_in_a_row;
    char last_checkpoint[256]; /* name; "" before the first */
    char last_good[256];       /* the same, of one saved while steps were being applied */
    cJSON *metrics;            /* of the last evaluation */
} trainer;

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- preparing --------------------------------------------------------------------------- */

static dip_status lay_out_schedule(trainer *t)
{
    const dip_train_options *o = t->o;
    const int64_t n = dip_samples_count(t->inputs.samples[DIP_INPUT_TRAIN]);
    const int64_t b = o->batch_size * o->accum_freq;
    t->steps_per_epoch = n / b;
    const int64_t all_steps = t->steps_per_epoch * o->epochs;
    if (t->steps_per_epoch == 0)
        return dip_fail(DIP_CONFIG,
                        "--train-data has %lld pairs, fewer than one batch of %lld "
                        "(--batch-size %lld x --accum-freq %lld)",
                        (long long)n, (long long)b, (long long)o->batch_size,
                        (long long)o->accum_freq);
    t->schedule = (dip_schedule){
        .kind = strcmp(o->lr_scheduler, "const") == 0 ? DIP_SCHEDULE_CONST : DIP_SCHEDULE_COSINE,
        .lr = o->lr,
        .warmup = o->warmup,
        .total = o->max_steps && o->max_steps < all_steps ? o->max_steps : all_steps,
    };
    if (o->warmup > t->schedule.total)
        return dip_fail(DIP_CONFIG,
                        "--warmup %lld is more than the run's %lld steps "
                        "(%lld pairs / %lld a step x %lld epochs)",
                        (long long)o->warmup, (long long)t->schedule.total, (long long)n,
                        (long long)b, (long long)o->epochs);
    t->progress.total_steps = t->schedule.total;
    t->progress.n_samples = n;
    return DIP_OK;
}

static bool is_fp8(const trainer *t)
{
    return strcmp(t->o->precision, "fp8") == 0;
}

static const char *precision_name(const trainer *t)
{
    return is_fp8(t) ? "fp8" : dip_dtype_name(t->dtype);
}

static dip_status open_step(trainer *t)
{
    const dip_train_options *o = t->o;
    dip_step_options options = {
        .device = o->device,
        .dtype = t->dtype,
        .fp8 = is_fp8(t),
        .n_threads = (int)o->threads,
        .micro_batch = o->batch_size,
        .n_micro = o->accum_freq,
        .loss = dip_loss_find(o->loss),
        .duplicates = strcmp(o->caption_duplicates, "positive") == 0 ? DIP_DUP_POSITIVE
                      : strcmp(o->caption_duplicates, "mask") == 0   ? DIP_DUP_MASK
                                                                     : DIP_DUP_NEGATIVE,
        .optimizer = {.beta1 = o->beta1,
                      .beta2 = o->beta2,
                      .eps = o->eps,
                      .weight_decay = o->wd,
                      .clip_norm = o->grad_clip_norm,
                      .ema_decay = o->ema_decay},
        .recompute = dip_recompute_named(o->recompute),
        .choose_recompute = strcmp(o->recompute, "auto") == 0,
        .all_rows = o->all_rows,
        .padding = o->pad_captions ? DIP_TEXT_PAD_FULL : DIP_TEXT_PAD_AUTO,
        .graphs = o->cuda_graphs,
    };
    DIP_TRY(dip_memory_parse(&options.memory_bytes, o->memory));
    DIP_TRY(dip_clip_init(&t->clip, &t->inputs.config));
    DIP_TRY(dip_step_open(&t->step, &t->clip, &options));
    if (o->print_memory) dip_plan_print(t->step.plan, stderr);
    return DIP_OK;
}

static void *allocate_batches(void *device, size_t n_bytes)
{
    const dip_device *d = device;
    void *pointer;
    return d->allocate_host(d, &pointer, n_bytes) == DIP_OK ? pointer : NULL;
}

static void release_batches(void *device, void *pointer)
{
    const dip_device *d = device;
    d->release_host(d, pointer);
}

static dip_status open_loader(trainer *t)
{
    dip_loader_options options = dip_inputs_loader(&t->inputs, DIP_INPUT_TRAIN);
    const dip_device *device = t->step.exec.device;
    t->batches = (dip_memory_source){allocate_batches, release_batches, (void *)device,
                                     device->alignment, 1};
    if (!device->is_host) options.memory = &t->batches;
    return dip_loader_open(&t->loader, &options);
}

static dip_status check_resumed(const trainer *t, dip_progress *saved, const char *dir)
{
    const dip_resume_run run = {t->o, t->configuration, &t->inputs.config, t->inputs.tokenizer,
                                t->progress.n_samples};
    return dip_resume_check(saved, &run, dir);
}

/* What --resume latest stands for is this run's own checkpoint, and its newest. */
static void remember_latest(trainer *t)
{
    char name[sizeof t->last_checkpoint];
    const ssize_t n = readlink(t->folder.resume, name, sizeof name - 1);
    if (n <= 0 || name[0] == '.' || memchr(name, '/', (size_t)n)) return; /* not as we made it */
    name[n] = '\0';
    memcpy(t->last_checkpoint, name, (size_t)n + 1);
    memcpy(t->last_good, name, (size_t)n + 1);
}

static dip_status start_or_resume(trainer *t)
{
    dip_progress saved;
    if (!t->folder.resume) return dip_step_init_weights(&t->step, (uint64_t)t->o->seed);
    DIP_TRY(check_resumed(t, &saved, t->folder.resume));
    DIP_TRY(dip_checkpoint_read(&t->step, &saved, t->folder.resume));
    saved.total_steps = t->progress.total_steps;
    t->progress = saved;
    if (strcmp(t->o->resume, "latest") == 0) remember_latest(t);
    dip_info("resumed from %s: epoch %lld, step %lld", t->folder.resume, (long long)saved.epoch,
             (long long)saved.step);
    return DIP_OK;
}

/* The options as they were given, but for what `auto` stands for on this machine: a run that began
 * in bf16 is not the same run in fp32. */
static dip_status resolve_configuration(trainer *t)
{
    t->configuration = dip_config_to_json(&dip_train_option_table, t->o);
    cJSON *precision = cJSON_CreateString(precision_name(t));
    if (t->configuration && precision &&
        cJSON_ReplaceItemInObjectCaseSensitive(t->configuration, "precision", precision))
        return DIP_OK;
    cJSON_Delete(precision);
    return dip_fail(DIP_NOMEM, "no memory for the configuration");
}

static dip_status prepare(trainer *t)
{
    const dip_train_options *o = t->o;
    DIP_TRY(dip_inputs_check(&t->inputs, o));
    const bool bf16 = strcmp(o->precision, "auto") == 0 ? dip_device_has_fast_bf16(o->device)
                                                        : strcmp(o->precision, "fp32") != 0;
    t->dtype = bf16 ? DIP_BF16 : DIP_F32;
    DIP_TRY(dip_inputs_index(&t->inputs));
    DIP_TRY(lay_out_schedule(t));
    DIP_TRY(resolve_configuration(t));
    if (o->resume && strcmp(o->resume, "latest") != 0) {
        dip_progress saved; /* a refusal leaves no run folder behind */
        DIP_TRY(check_resumed(t, &saved, o->resume));
    }
    DIP_TRY(open_step(t)); /* nor does one for want of memory */
    DIP_TRY(dip_run_folder_open(&t->folder, o, precision_name(t)));
    DIP_TRY(start_or_resume(t));
    DIP_TRY(dip_run_folder_write_params(&t->folder, o));
    DIP_TRY(open_loader(t));
    dip_inputs_mention_captions(&t->inputs);
    dip_info("%s: %.2fM parameters, %s on %s (%s, %d threads), %lld pairs, %lld steps of %lld",
             t->folder.path, (double)t->clip.table.n_counted * 1e-6, precision_name(t),
             t->step.exec.ops->backend, dip_exec_describe(&t->step.exec), t->step.exec.n_threads,
             (long long)t->progress.n_samples, (long long)t->schedule.total,
             (long long)(o->batch_size * o->accum_freq));
    if (t->step.options.recompute != DIP_RECOMPUTE_NONE)
        dip_info("backward computes activations again (--recompute %s)",
                 dip_recompute_name(t->step.options.recompute));
    return DIP_OK;
}

/* ---- saving and measuring ---------------------------------------------------------------- */

static dip_status save(trainer *t, const char *name)
{
    char before[sizeof t->last_checkpoint];
    memcpy(before, t->last_checkpoint, sizeof before);
    DIP_TRY(dip_checkpoint_write(&t->step, t->inputs.tokenizer, &t->progress, t->configuration,
                                 t->folder.checkpoints, name));
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

static dip_status log_metrics(const trainer *t, int64_t done)
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

/* After `done` epochs. */
static dip_status evaluate(trainer *t, int64_t done, bool last)
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

/* ---- training ---------------------------------------------------------------------------- */

static void log_step(trainer *t, const dip_step_result *result, double lr)
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
static const char *checkpoint_path(const trainer *t, const char *name, char *out, size_t capacity)
{
    snprintf(out, capacity, "%s%s%s", name[0] ? t->folder.checkpoints : "none", name[0] ? "/" : "",
             name);
    return out;
}

/* Steps that change nothing are counted; too many in a row end the run. */
static dip_status count_skipped(trainer *t, const dip_step_result *result)
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
static dip_status check_end(const trainer *t)
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
static dip_status submit(trainer *t, const dip_batch *batch, double waited)
{
    const int n_pending = dip_step_in_flight(&t->step);
    pending *p = &t->pending[n_pending];
    *p = (pending){.lr = dip_schedule_lr(&t->schedule, t->progress.step + n_pending),
                   .waited = waited,
                   .n_pairs = batch->n,
                   .position = dip_loader_position(t->loader)};
    return dip_step_submit(&t->step, batch, p->lr);
}

/* The result of the oldest step that was handed in. */
static dip_status collect(trainer *t)
{
    const pending p = t->pending[0];
    dip_step_result result;
    DIP_TRY(dip_step_collect(&t->step, &result));
    memmove(t->pending, t->pending + 1, sizeof t->pending - sizeof t->pending[0]);
    const double now = now_seconds();
    t->progress.step++;
    t->progress.samples_seen += p.n_pairs;
    t->progress.position = p.position;
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
static dip_status collect_until(trainer *t, int n)
{
    while (dip_step_in_flight(&t->step) > n) DIP_TRY(collect(t));
    return DIP_OK;
}

static dip_status stop_here(trainer *t)
{
    char name[64];
    snprintf(name, sizeof name, "epoch_%lld_step_%lld", (long long)t->progress.epoch,
             (long long)t->progress.step);
    DIP_TRY(save(t, name));
    return dip_fail(DIP_INTERRUPTED,
                    "stopped on request after step %lld; go on with "
                    "--name %s --resume latest",
                    (long long)t->progress.step, t->folder.name);
}

/* The rest of the epoch at hand. DIP_END when it is done, DIP_OK when the run is. Either way no
 * step is on its way any more. */
static dip_status train_epoch(trainer *t)
{
    const int limit = dip_step_in_flight_limit(&t->step);
    t->step_of_epoch = t->progress.position / (t->o->batch_size * t->o->accum_freq);
    t->window = (dip_progress_window){.started = now_seconds()};
    t->mark = t->window.started;
    DIP_TRY(dip_loader_start(t->loader, t->progress.epoch, t->progress.position));
    while (t->progress.step + dip_step_in_flight(&t->step) < t->schedule.total) {
        dip_batch batch;
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
    return collect_until(t, 0);
}

static dip_status train(trainer *t)
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
        const int64_t left = t->progress.n_samples - t->progress.position;
        /* --max-steps can end amid an epoch: a run that is given more goes on from there. */
        if (status == DIP_END || left < o->batch_size * o->accum_freq) {
            t->progress.epoch = done;
            t->progress.position = 0;
        }
        if (last || o->save_most_recent || (o->save_frequency && done % o->save_frequency == 0)) {
            char name[32];
            snprintf(name, sizeof name, "epoch_%lld", (long long)done);
            DIP_TRY(save(t, name));
        }
        DIP_TRY(evaluate(t, done, last)); /* whatever becomes of it, the weights are safe */
        if (last) break;
    }
    return check_end(t);
}

/* ---- the run ----------------------------------------------------------------------------- */

/* A device that gives up takes the run with it, but not what is on disk. */
static dip_status name_checkpoint(const trainer *t, dip_status status)
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

static cJSON *summarise(const trainer *t)
{
    cJSON *s = cJSON_CreateObject();
    if (!s) return NULL;
    char *checkpoint = dip_path_join(t->folder.checkpoints, t->last_checkpoint);
    cJSON_AddStringToObject(s, "name", t->folder.name);
    if (t->last_checkpoint[0]) cJSON_AddStringToObject(s, "checkpoint", checkpoint);
    cJSON_AddStringToObject(s, "precision", precision_name(t));
    cJSON_AddNumberToObject(s, "epoch", (double)t->progress.epoch);
    cJSON_AddNumberToObject(s, "step", (double)t->progress.step);
    cJSON_AddNumberToObject(s, "samples_seen", (double)t->progress.samples_seen);
    cJSON_AddNumberToObject(s, "skipped_steps", (double)t->progress.n_skipped);
    cJSON_AddNumberToObject(s, "dropped_samples", (double)dip_faults_total(t->inputs.faults));
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

static void close_trainer(trainer *t)
{
    dip_loader_close(t->loader);
    dip_step_close(&t->step);
    dip_clip_free(&t->clip);
    dip_inputs_close(&t->inputs);
    cJSON_Delete(t->configuration);
    cJSON_Delete(t->metrics);
    dip_run_folder_close(&t->folder);
}

dip_status dip_train_check(const dip_train_options *options)
{
    trainer t = {.o = options, .folder = {.lock = -1}};
    const dip_status status = dip_inputs_check(&t.inputs, options);
    close_trainer(&t);
    return status;
}

dip_status dip_train_run(const dip_train_options *options, const volatile sig_atomic_t *stop,
                         cJSON **summary)
{
    trainer t = {.o = options,
                 .stop = stop,
                 .started = now_seconds(),
                 .last_loss = NAN,
                 .folder = {.lock = -1}};
    *summary = NULL;
    dip_status status = prepare(&t);
    if (status == DIP_OK) {
        status = name_checkpoint(&t, train(&t));
        if (t.progress.n_skipped)
            dip_warn("%lld steps were skipped because a loss or gradient was not finite",
                     (long long)t.progress.n_skipped);
        if (status != DIP_OK) dip_log(DIP_LOG_ERROR, "%s", dip_error());
        *summary = summarise(&t);
    }
    if (t.inputs.faults) dip_faults_print(t.inputs.faults, stderr);
    char *sentence = strdup(dip_error()); /* closing a device that failed may fail again */
    close_trainer(&t);
    if (status != DIP_OK && sentence) dip_fail(status, "%s", sentence);
    free(sentence);
    return status;
}
