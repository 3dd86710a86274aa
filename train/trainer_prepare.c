/* From options to a run that can take its first step. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "core/log.h"
#include "train/ledger.h"
#include "train/memory.h"
#include "train/resume.h"
#include "train/trainer_internal.h"

static dip_status lay_out_schedule(dip_trainer *t)
{
    const dip_train_options *o = t->o;
    const int64_t n = dip_samples_count(t->inputs.samples[DIP_INPUT_TRAIN]);
    const int64_t b = o->batch_size * o->accum_freq;
    DIP_TRY(dip_inputs_epoch(&t->inputs, &t->steps_per_epoch));
    const int64_t all_steps = t->steps_per_epoch * o->epochs;
    t->schedule = (dip_schedule){
        .kind = strcmp(o->lr_scheduler, "const") == 0 ? DIP_SCHEDULE_CONST : DIP_SCHEDULE_COSINE,
        .lr = o->lr,
        .warmup = o->warmup,
        .total = o->max_steps && o->max_steps < all_steps ? o->max_steps : all_steps,
    };
    if (o->warmup > t->schedule.total)
        return dip_fail(DIP_CONFIG,
                        "--warmup %lld is more than the run's %lld steps "
                        "(%lld steps of %lld pairs x %lld epochs)",
                        (long long)o->warmup, (long long)t->schedule.total,
                        (long long)t->steps_per_epoch, (long long)b, (long long)o->epochs);
    t->progress.total_steps = t->schedule.total;
    t->progress.n_samples = n;
    return DIP_OK;
}

static bool is_fp8(const dip_trainer *t)
{
    return strcmp(t->o->precision, "fp8") == 0;
}

const char *dip_trainer_precision(const dip_trainer *t)
{
    return is_fp8(t) ? "fp8" : dip_dtype_name(t->dtype);
}

static dip_status open_step(dip_trainer *t)
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

static dip_status open_loader(dip_trainer *t)
{
    dip_loader_options options = dip_inputs_loader(&t->inputs, DIP_INPUT_TRAIN);
    const dip_device *device = t->step.exec.device;
    t->batches = (dip_memory_source){allocate_batches, release_batches, (void *)device,
                                     device->alignment, 1};
    if (!device->is_host) options.memory = &t->batches;
    DIP_TRY(dip_account_open(&t->account, dip_samples_n_shards(options.samples)));
    return dip_loader_open(&t->loader, &options);
}

static dip_status check_resumed(const dip_trainer *t, dip_progress *saved, const char *dir)
{
    const dip_resume_run run = {t->o, t->configuration, &t->inputs.config, t->inputs.tokenizer,
                                t->progress.n_samples};
    return dip_resume_check(saved, &run, dir);
}

/* What --resume latest stands for is this run's own checkpoint, and its newest. */
static void remember_latest(dip_trainer *t)
{
    char name[sizeof t->last_checkpoint];
    const ssize_t n = readlink(t->folder.resume, name, sizeof name - 1);
    if (n <= 0 || name[0] == '.' || memchr(name, '/', (size_t)n)) return; /* not as we made it */
    name[n] = '\0';
    memcpy(t->last_checkpoint, name, (size_t)n + 1);
    memcpy(t->last_good, name, (size_t)n + 1);
}

/* Go on counting what became of the data. Older checkpoints have no ledger. */
static dip_status resume_ledger(dip_trainer *t)
{
    char *path = dip_path_join(t->folder.resume, DIP_LEDGER_FILE);
    if (!path) return dip_fail(DIP_NOMEM, "no memory for a path");
    dip_status status = DIP_OK;
    if (dip_path_exists(path))
        status = dip_ledger_read(&t->account, t->inputs.samples[DIP_INPUT_TRAIN], path);
    free(path);
    if (status == DIP_OK) dip_loader_resume_account(t->loader, &t->account);
    return status;
}

static dip_status start_or_resume(dip_trainer *t)
{
    dip_progress saved;
    if (!t->folder.resume) return dip_step_init_weights(&t->step, (uint64_t)t->o->seed);
    DIP_TRY(check_resumed(t, &saved, t->folder.resume));
    DIP_TRY(dip_checkpoint_read(&t->step, &saved, t->folder.resume));
    DIP_TRY(resume_ledger(t));
    saved.total_steps = t->progress.total_steps;
    t->progress = saved;
    if (strcmp(t->o->resume, "latest") == 0)
        remember_latest(t);
    else
        t->progress.n_dropped = 0; /* its dropped.jsonl stays where it is */
    dip_info("resumed from %s: epoch %lld, step %lld", t->folder.resume, (long long)saved.epoch,
             (long long)saved.step);
    return DIP_OK;
}

/* The options as they were given, but for what `auto` stands for on this machine: a run that began
 * in bf16 is not the same run in fp32. */
static dip_status resolve_configuration(dip_trainer *t)
{
    t->configuration = dip_config_to_json(&dip_train_option_table, t->o);
    cJSON *precision = cJSON_CreateString(dip_trainer_precision(t));
    if (t->configuration && precision &&
        cJSON_ReplaceItemInObjectCaseSensitive(t->configuration, "precision", precision))
        return DIP_OK;
    cJSON_Delete(precision);
    return dip_fail(DIP_NOMEM, "no memory for the configuration");
}

dip_status dip_trainer_prepare(dip_trainer *t)
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
    DIP_TRY(open_loader(t));
    DIP_TRY(dip_run_folder_open(&t->folder, o, dip_trainer_precision(t)));
    DIP_TRY(start_or_resume(t));
    DIP_TRY(dip_run_folder_write_params(&t->folder, o));
    DIP_TRY(dip_run_folder_record_faults(&t->folder, t->inputs.faults[DIP_INPUT_TRAIN],
                                         t->progress.n_dropped, o->max_dropped_lines));
    dip_inputs_mention_captions(&t->inputs);
    dip_inputs_mention_epoch(&t->inputs);
    dip_info("%s: %.2fM parameters, %s on %s (%s, %d threads), %lld pairs, %lld steps of %lld",
             t->folder.path, (double)t->clip.table.n_counted * 1e-6, dip_trainer_precision(t),
             t->step.exec.ops->backend, dip_exec_describe(&t->step.exec), t->step.exec.n_threads,
             (long long)t->progress.n_samples, (long long)t->schedule.total,
             (long long)(o->batch_size * o->accum_freq));
    DIP_TRY(dip_inputs_mention_augmentations(&t->inputs));
    if (t->step.options.recompute != DIP_RECOMPUTE_NONE)
        dip_info("backward computes activations again (--recompute %s)",
                 dip_recompute_name(t->step.options.recompute));
    return DIP_OK;
}
