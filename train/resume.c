#include "train/resume.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "train/run_folder.h"

enum { MAX_TOKENIZER_BYTES = 64 << 20 };

/* What an option was that the saved run did not know yet: its default. */
static dip_status default_configuration(cJSON **defaults)
{
    dip_train_options options;
    DIP_TRY(dip_config_defaults(&dip_train_option_table, &options));
    *defaults = dip_config_to_json(&dip_train_option_table, &options);
    dip_config_free(&dip_train_option_table, &options);
    return *defaults ? DIP_OK : dip_fail(DIP_NOMEM, "no memory for the configuration");
}

static dip_status check_options(const cJSON *current, const cJSON *saved, const cJSON *defaults,
                                const dip_string_list *changes)
{
    static const char *const decisive[] = {
        "train_data",
        "train_data_upsampling_factors",
        "dataset_resampled",
        "train_num_samples",
        "last_batch",
        "max_image_pixels",
        "max_image_side",
        "max_image_scans",
        "max_image_bytes",
        "max_caption_bytes",
        "exif_rotate",
        "scale_in_dct",
        "alpha_over",
        "augmentations",
        "json_text_key",
        "json_text_key_weights",
        "caption_lines",
        "caption_clean",
        "word_dropout",
        "caption_duplicates",
        "model",
        "loss",
        "batch_size",
        "accum_freq",
        "epochs",
        "max_steps",
        "warmup",
        "lr",
        "lr_scheduler",
        "wd",
        "beta1",
        "beta2",
        "eps",
        "grad_clip_norm",
        "ema_decay",
        "seed",
        "crop_scale_min",
        "crop_scale_max",
        "crop_ratio",
        "flip",
        "image_mean",
        "image_std",
        "precision",
    };
    char list[2048] = "";
    for (size_t i = 0; i < sizeof decisive / sizeof decisive[0]; i++) {
        const cJSON *a = cJSON_GetObjectItemCaseSensitive(saved, decisive[i]);
        if (!a) a = cJSON_GetObjectItemCaseSensitive(defaults, decisive[i]);
        const cJSON *b = cJSON_GetObjectItemCaseSensitive(current, decisive[i]);
        bool allowed = (!a && !b) || (a && b && cJSON_Compare(a, b, 1));
        for (size_t j = 0; j < changes->n_items && !allowed; j++)
            allowed = dip_same_key(changes->items[j], decisive[i]);
        if (allowed) continue;
        char *was = NULL, *is = NULL;
        if ((a && dip_json_print(&was, a, false) != DIP_OK) ||
            (b && dip_json_print(&is, b, false) != DIP_OK)) {
            free(was);
            return DIP_NOMEM;
        }
        const size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "\n  %s was %s, is %s", decisive[i],
                 was ? was : "not set", is ? is : "not set");
        free(was);
        free(is);
    }
    if (!list[0]) return DIP_OK;
    return dip_fail(DIP_CONFIG,
                    "the resumed run would not be the same run:%s\nname what may change with "
                    "--resume-changes KEY ..., or start a new run",
                    list);
}

/* The model and the tokenizer of a checkpoint are this run's, whatever their files are called. */
static dip_status check_model(const dip_resume_run *run, const char *dir)
{
    char *path = dip_path_join(dir, DIP_CONFIG_FILE);
    dip_model_config config;
    if (!path) return dip_fail(DIP_NOMEM, "no memory for a path");
    dip_status status = dip_model_config_open(&config, path);
    free(path);
    DIP_TRY(status);
    cJSON *saved = dip_model_config_to_json(&config), *now = dip_model_config_to_json(run->model);
    const bool memory = saved && now;
    const bool same =
        memory && cJSON_Compare(cJSON_GetObjectItemCaseSensitive(saved, "model_cfg"),
                                cJSON_GetObjectItemCaseSensitive(now, "model_cfg"), 1);
    cJSON_Delete(saved);
    cJSON_Delete(now);
    if (!memory) return dip_fail(DIP_NOMEM, "no memory to compare models");
    if (same) return DIP_OK;
    return dip_fail(DIP_CONFIG,
                    "the model of %s (%s) is not what --model %s and --tokenizer %s give", dir,
                    DIP_CONFIG_FILE, run->options->model, run->options->tokenizer);
}

static dip_status check_tokenizer(const dip_resume_run *run, const char *dir)
{
    const dip_string_list *changes = &run->options->resume_changes;
    for (size_t i = 0; i < changes->n_items; i++)
        if (dip_same_key(changes->items[i], "tokenizer")) return DIP_OK;
    size_t n, n_saved;
    const void *now = dip_tokenizer_bytes(run->tokenizer, &n);
    char *saved = NULL, *path = dip_path_join(dir, DIP_TOKENIZER_FILE);
    if (!path) return dip_fail(DIP_NOMEM, "no memory for a path");
    dip_status status = dip_file_read(&saved, &n_saved, path, MAX_TOKENIZER_BYTES);
    if (status == DIP_OK && (n_saved != n || memcmp(saved, now, n) != 0))
        status = dip_fail(DIP_CONFIG,
                          "--tokenizer %s is not the one of %s; allow it with --resume-changes "
                          "tokenizer",
                          run->options->tokenizer, dir);
    free(saved);
    free(path);
    return status;
}

dip_status dip_resume_check(dip_progress *saved, const dip_resume_run *run, const char *dir)
{
    cJSON *configuration = NULL, *defaults = NULL;
    DIP_TRY(dip_checkpoint_read_progress(saved, &configuration, dir));
    dip_status status = configuration ? default_configuration(&defaults) : DIP_OK;
    if (status == DIP_OK && configuration)
        status = check_options(run->configuration, configuration, defaults,
                               &run->options->resume_changes);
    cJSON_Delete(configuration);
    cJSON_Delete(defaults);
    DIP_TRY(status);
    if (saved->n_samples != run->n_samples)
        return dip_fail(DIP_CONFIG,
                        "the resumed run had %lld training pairs, --train-data has %lld",
                        (long long)saved->n_samples, (long long)run->n_samples);
    DIP_TRY(check_model(run, dir));
    return check_tokenizer(run, dir);
}
