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
#include "data/loader.h"
#include "data/pattern.h"
#include "model/evaluate.h"
#include "text/tokenizer.h"
#include "train/checkpoint.h"
#include "train/evaluation.h"
#include "train/progress_line.h"
#include "train/resume.h"
#include "train/run_folder.h"
#include "train/schedule.h"
#include "train/step.h"

enum { MISTAKES_BYTES = 4096 };

/* One set of shards, opened. */
typedef struct source {
    dip_string_list shards;
    dip_samples *samples;
} source;

typedef struct trainer {
    const dip_train_options *o;
    const volatile sig_atomic_t *stop;
    /* inputs, opened while checking */
    dip_model_config config;
    dip_tokenizer *tokenizer;
    dip_dtype dtype;
    source train, val, zeroshot;
    dip_string_list classnames, templates;
    dip_faults *faults;
    /* the run */
    dip_run_folder folder;
    cJSON *configuration;
    dip_clip clip;
    dip_step step;
    dip_loader *loader;
    dip_schedule schedule;
    dip_progress progress;
    int64_t steps_per_epoch;
    /* figures */
    double started, train_seconds, last_loss;
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

/* ---- checking: every mistake at once, before any work ------------------------------------ */

/* Add the current error sentence to the list if `status` is a failure. */
static void collect(char *mistakes, dip_status status)
{
    const size_t used = strlen(mistakes);
    if (status != DIP_OK)
        snprintf(mistakes + used, MISTAKES_BYTES - used, "%s%s", used ? "\n" : "", dip_error());
}

static dip_status open_model(trainer *t)
{
    const dip_train_options *o = t->o;
    DIP_TRY(dip_model_config_open(&t->config, o->model));
    t->config.init_logit_scale = fmin(t->config.init_logit_scale, log(100.0));
    for (int i = 0; i < 3; i++) {
        if (o->image_mean >= 0) t->config.preprocess.mean[i] = (float)o->image_mean;
        if (o->image_std > 0) t->config.preprocess.std[i] = (float)o->image_std;
    }
    return DIP_OK;
}

static dip_status check(trainer *t)
{
    const dip_train_options *o = t->o;
    char mistakes[MISTAKES_BYTES] = "";
    collect(mistakes, dip_train_options_check(o));
    collect(mistakes, open_model(t));
    if (o->tokenizer) collect(mistakes, dip_tokenizer_open(&t->tokenizer, o->tokenizer));
    if (o->train_data) collect(mistakes, dip_pattern_expand_files(&t->train.shards, o->train_data));
    if (o->val_data) collect(mistakes, dip_pattern_expand_files(&t->val.shards, o->val_data));
    if (o->zeroshot_data)
        collect(mistakes, dip_pattern_expand_files(&t->zeroshot.shards, o->zeroshot_data));
    if (o->classnames) collect(mistakes, dip_classnames_read(&t->classnames, o->classnames));
    if (o->templates) collect(mistakes, dip_templates_read(&t->templates, o->templates));
    collect(mistakes, dip_run_folder_check(o));
    return mistakes[0] ? dip_fail(DIP_CONFIG, "%s", mistakes) : DIP_OK;
}

/* The tokenizer decides the vocabulary and where a text ends. */
static void fit_text_tower(trainer *t)
{
    dip_text_config *text = &t->config.text;
    const int vocab = dip_tokenizer_vocab_size(t->tokenizer), eos = dip_tokenizer_eos(t->tokenizer);
    if (text->vocab_size != vocab)
        dip_info("vocab_size %d of model %s becomes %d, the tokenizer's", text->vocab_size,
                 t->o->model, vocab);
    text->vocab_size = vocab;
    text->eos_id = eos == vocab - 1 ? -1 : eos;
}

/* ---- preparing --------------------------------------------------------------------------- */

/* An image of a class without a name would end the run at its first measurement. */
static dip_status check_labels(const trainer *t)
{
    const dip_samples *samples = t->zeroshot.samples;
    const size_t n_classes = t->classnames.n_items;
    for (int64_t i = 0; i < dip_samples_count(samples); i++) {
        const dip_sample sample = dip_samples_get(samples, i);
        char where[512];
        if (sample.label >= 0 && (size_t)sample.label < n_classes) continue;
        return dip_fail(DIP_CONFIG,
                        "--zeroshot-data %s: label %lld is not one of 0..%zu, the classes "
                        "of --classnames %s",
                        dip_sample_where(&sample, where, sizeof where), (long long)sample.label,
                        n_classes - 1, t->o->classnames);
    }
    return DIP_OK;
}

static dip_status index_data(trainer *t)
{
    const char *key = t->o->json_text_key;
    DIP_TRY(dip_faults_open(&t->faults));
    DIP_TRY(dip_samples_open(&t->train.samples, &t->train.shards,
                             DIP_NEEDS_IMAGE | DIP_NEEDS_CAPTION, key, t->faults));
    if (t->o->val_data)
        DIP_TRY(dip_samples_open(&t->val.samples, &t->val.shards,
                                 DIP_NEEDS_IMAGE | DIP_NEEDS_CAPTION, key, t->faults));
    if (!t->o->zeroshot_data) return DIP_OK;
    DIP_TRY(dip_samples_open(&t->zeroshot.samples, &t->zeroshot.shards,
                             DIP_NEEDS_IMAGE | DIP_NEEDS_LABEL, key, t->faults));
    return check_labels(t);
}

static dip_loader_options loader_options(trainer *t, const source *from, bool training)
{
    const dip_train_options *o = t->o;
    const bool crop = o->crop_scale_min < 1 || o->crop_ratio > 1;
    return (dip_loader_options){
        .samples = from->samples,
        .faults = t->faults,
        .batch_size = training ? o->batch_size * o->accum_freq : o->batch_size,
        .image_size = t->config.vision.image_size,
        .n_workers = (int)o->workers,
        .n_prefetch = (int)o->prefetch,
        .shuffle = training,
        .drop_last = training,
        .seed = (uint64_t)o->seed,
        .max_pixels = o->max_image_pixels,
        .max_bad_fraction = o->max_bad_fraction,
        .random_crop = training && crop,
        .crop_scale = {o->crop_scale_min, o->crop_scale_max},
        .crop_ratio = {1 / o->crop_ratio, o->crop_ratio},
        .flip_probability = training ? o->flip : 0,
        .filter = t->config.preprocess.bilinear ? DIP_BILINEAR : DIP_BICUBIC,
        .resize_mode = t->config.preprocess.squash ? DIP_RESIZE_SQUASH : DIP_RESIZE_SHORTEST,
        .encode = from == &t->zeroshot ? NULL : dip_tokenizer_encode_caption,
        .encode_context = t->tokenizer,
        .context_length = t->config.text.context_length,
        .random_caption_line = training && strcmp(o->caption_lines, "random") == 0,
    };
}

static dip_status lay_out_schedule(trainer *t)
{
    const dip_train_options *o = t->o;
    const int64_t n = dip_samples_count(t->train.samples), b = o->batch_size * o->accum_freq;
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

static dip_status open_step(trainer *t)
{
    const dip_train_options *o = t->o;
    const dip_step_options options = {
        .device = o->device,
        .dtype = t->dtype,
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
    };
    DIP_TRY(dip_clip_init(&t->clip, &t->config));
    DIP_TRY(dip_step_open(&t->step, &t->clip, &options));
    if (o->print_memory) dip_plan_print(t->step.plan, stderr);
    return DIP_OK;
}

static dip_status check_resumed(const trainer *t, dip_progress *saved, const char *dir)
{
    const dip_resume_run run = {t->o, t->configuration, &t->config, t->tokenizer,
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

/* Captions that training does not use should not go unmentioned. */
static void mention_caption_lines(const trainer *t)
{
    enum { LOOKED_AT = 1000 };
    int64_t n = dip_samples_count(t->train.samples), n_lines = 0;
    if (n > LOOKED_AT) n = LOOKED_AT;
    for (int64_t i = 0; i < n; i++) {
        const dip_sample sample = dip_samples_get(t->train.samples, i);
        const int lines = dip_caption_lines(sample.caption, sample.caption_bytes, NULL, NULL);
        n_lines += lines > 1 ? lines : 1;
    }
    if (n_lines == n || strcmp(t->o->caption_lines, "random") == 0) return;
    dip_info("the first %lld pairs hold %lld caption lines; the first line of each is used "
             "(--caption-lines random draws one each epoch)",
             (long long)n, (long long)n_lines);
}

/* The options as they were given, but for what `auto` stands for on this machine: a run that began
 * in bf16 is not the same run in fp32. */
static dip_status resolve_configuration(trainer *t)
{
    t->configuration = dip_config_to_json(&dip_train_option_table, t->o);
    cJSON *precision = cJSON_CreateString(dip_dtype_name(t->dtype));
    if (t->configuration && precision &&
        cJSON_ReplaceItemInObjectCaseSensitive(t->configuration, "precision", precision))
        return DIP_OK;
    cJSON_Delete(precision);
    return dip_fail(DIP_NOMEM, "no memory for the configuration");
}

static dip_status prepare(trainer *t)
{
    const dip_train_options *o = t->o;
    const bool bf16 = strcmp(o->precision, "auto") == 0 ? dip_cpu_has_fast_bf16()
                                                        : strcmp(o->precision, "fp32") != 0;
    t->dtype = bf16 ? DIP_BF16 : DIP_F32;
    DIP_TRY(check(t));
    fit_text_tower(t);
    DIP_TRY(index_data(t));
    DIP_TRY(lay_out_schedule(t));
    DIP_TRY(resolve_configuration(t));
    if (o->resume && strcmp(o->resume, "latest") != 0) {
        dip_progress saved; /* a refusal leaves no run folder behind */
        DIP_TRY(check_resumed(t, &saved, o->resume));
    }
    DIP_TRY(dip_run_folder_open(&t->folder, o, dip_dtype_name(t->dtype)));
    DIP_TRY(open_step(t));
    DIP_TRY(start_or_resume(t));
    DIP_TRY(dip_run_folder_write_params(&t->folder, o));
    const dip_loader_options loading = loader_options(t, &t->train, true);
    DIP_TRY(dip_loader_open(&t->loader, &loading));
    mention_caption_lines(t);
    dip_info("%s: %.2fM parameters, %s on %s (%s, %d threads), %lld pairs, %lld steps of %lld",
             t->folder.path, (double)t->clip.table.n_counted * 1e-6, dip_dtype_name(t->dtype),
             t->step.exec.ops->backend, dip_cpu_isa_name(), t->step.exec.n_threads,
             (long long)t->progress.n_samples, (long long)t->schedule.total,
             (long long)(o->batch_size * o->accum_freq));
    return DIP_OK;
}

/* ---- saving and measuring ---------------------------------------------------------------- */

static dip_status save(trainer *t, const char *name)
{
    char before[sizeof t->last_checkpoint];
    memcpy(before, t->last_checkpoint, sizeof before);
    t->progress.n_updates = t->step.optimizer.n_updates;
    DIP_TRY(dip_checkpoint_write(&t->step, t->tokenizer, &t->progress, t->configuration,
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
    const bool pairs = t->val.samples && o->val_frequency && (done % o->val_frequency == 0 || last);
    const bool zeroshot =
        t->zeroshot.samples && o->zeroshot_frequency && (done % o->zeroshot_frequency == 0 || last);
    if (!pairs && !zeroshot) return DIP_OK;
    cJSON_Delete(t->metrics);
    t->metrics = cJSON_CreateObject();
    if (!t->metrics || !cJSON_AddNumberToObject(t->metrics, "epoch", (double)done))
        return dip_fail(DIP_NOMEM, "no memory for metrics");
    if (pairs) {
        const dip_loader_options options = loader_options(t, &t->val, false);
        DIP_TRY(dip_evaluate_pairs(&t->step, t->metrics, &options));
    }
    if (zeroshot) {
        const dip_loader_options options = loader_options(t, &t->zeroshot, false);
        DIP_TRY(dip_evaluate_zeroshot(&t->step, t->metrics, &options, t->tokenizer, &t->classnames,
                                      &t->templates));
    }
    return log_metrics(t, done);
}

/* ---- training ---------------------------------------------------------------------------- */

static void log_step(const trainer *t, dip_progress_window *w, const dip_step_result *result,
                     double lr, int64_t step_of_epoch)
{
    const dip_progress_place place = {
        .progress = &t->progress,
        .schedule = &t->schedule,
        .pairs_per_step = t->o->batch_size * t->o->accum_freq,
        .steps_per_epoch = t->steps_per_epoch,
        .step_of_epoch = step_of_epoch,
    };
    dip_progress_line(w, &place, result, lr, now_seconds());
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
    return dip_fail(DIP_NUMERIC,
                    "%lld steps in a row had a loss or gradient that is not finite; the last good "
                    "checkpoint is %s%s%s",
                    (long long)t->skipped_in_a_row,
                    t->last_good[0] ? t->folder.checkpoints : "none", t->last_good[0] ? "/" : "",
                    t->last_good);
}

/* A run that ends on skipped steps has weights that give no finite loss, however few they were. */
static dip_status check_end(const trainer *t)
{
    if (t->skipped_in_a_row == 0) return DIP_OK;
    return dip_fail(
        DIP_NUMERIC,
        "the run ended on %lld steps whose loss or gradient was not finite; the last good "
        "checkpoint is %s%s%s",
        (long long)t->skipped_in_a_row, t->last_good[0] ? t->folder.checkpoints : "none",
        t->last_good[0] ? "/" : "", t->last_good);
}

/* The rest of the epoch at hand. DIP_END when it is done, DIP_OK when the run is. */
static dip_status train_epoch(trainer *t)
{
    const int64_t pairs = t->o->batch_size * t->o->accum_freq;
    int64_t step_of_epoch = t->progress.position / pairs;
    dip_progress_window w = {.started = now_seconds()};
    DIP_TRY(dip_loader_start(t->loader, t->progress.epoch, t->progress.position));
    while (t->progress.step < t->schedule.total) {
        dip_step_result result;
        dip_batch batch;
        const double asked = now_seconds();
        DIP_TRY(dip_loader_next(t->loader, &batch));
        const double got = now_seconds();
        const double lr = dip_schedule_lr(&t->schedule, t->progress.step);
        DIP_TRY(dip_step_run(&t->step, &result, &batch, lr));

        t->progress.step++;
        t->progress.samples_seen += batch.n;
        t->progress.position = dip_loader_position(t->loader);
        step_of_epoch++;
        t->pairs_trained += batch.n;
        t->train_seconds += now_seconds() - asked;
        t->last_loss = result.loss;
        w.waited += got - asked;
        w.loss_sum += result.loss;
        w.n_steps++;
        DIP_TRY(count_skipped(t, &result));
        if (t->progress.step % t->o->log_every_n_steps == 0 ||
            step_of_epoch == t->steps_per_epoch || t->progress.step == t->schedule.total)
            log_step(t, &w, &result, lr, step_of_epoch);
        if (*t->stop && t->progress.step < t->schedule.total) { /* else it ends by itself */
            char name[64];
            snprintf(name, sizeof name, "epoch_%lld_step_%lld", (long long)t->progress.epoch,
                     (long long)t->progress.step);
            DIP_TRY(save(t, name));
            return dip_fail(DIP_INTERRUPTED,
                            "stopped on request after step %lld; go on with "
                            "--name %s --resume latest",
                            (long long)t->progress.step, t->folder.name);
        }
    }
    return DIP_OK;
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

static cJSON *summarise(const trainer *t)
{
    cJSON *s = cJSON_CreateObject();
    if (!s) return NULL;
    char *checkpoint = dip_path_join(t->folder.checkpoints, t->last_checkpoint);
    cJSON_AddStringToObject(s, "name", t->folder.name);
    if (t->last_checkpoint[0]) cJSON_AddStringToObject(s, "checkpoint", checkpoint);
    cJSON_AddStringToObject(s, "precision", dip_dtype_name(t->dtype));
    cJSON_AddNumberToObject(s, "epoch", (double)t->progress.epoch);
    cJSON_AddNumberToObject(s, "step", (double)t->progress.step);
    cJSON_AddNumberToObject(s, "samples_seen", (double)t->progress.samples_seen);
    cJSON_AddNumberToObject(s, "skipped_steps", (double)t->progress.n_skipped);
    cJSON_AddNumberToObject(s, "dropped_samples", (double)dip_faults_total(t->faults));
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
    dip_tokenizer_close(t->tokenizer);
    source *sources[3] = {&t->train, &t->val, &t->zeroshot};
    for (int i = 0; i < 3; i++) {
        dip_samples_close(sources[i]->samples);
        dip_string_list_free(&sources[i]->shards);
    }
    dip_string_list_free(&t->classnames);
    dip_string_list_free(&t->templates);
    dip_faults_close(t->faults);
    cJSON_Delete(t->configuration);
    cJSON_Delete(t->metrics);
    dip_run_folder_close(&t->folder);
}

dip_status dip_train_check(const dip_train_options *options)
{
    trainer t = {.o = options, .folder = {.lock = -1}};
    const dip_status status = check(&t);
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
        status = train(&t);
        if (t.progress.n_skipped)
            dip_warn("%lld steps were skipped because a loss or gradient was not finite",
                     (long long)t.progress.n_skipped);
        if (status != DIP_OK) dip_log(DIP_LOG_ERROR, "%s", dip_error());
        *summary = summarise(&t);
    }
    if (t.faults) dip_faults_print(t.faults, stderr);
    close_trainer(&t);
    return status;
}
