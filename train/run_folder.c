#include "train/run_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/file.h"
#include "core/json.h"
#include "core/log.h"

/* open_clip's default name, with the characters it replaces in model names. */
static char *default_name(const dip_train_options *o, const char *precision)
{
    char stamp[32], *name;
    const char *slash = strrchr(o->model, '/');
    time_t now = time(NULL);
    struct tm local;
    localtime_r(&now, &local);
    strftime(stamp, sizeof stamp, "%Y_%m_%d-%H_%M_%S", &local);
    name = dip_format("%s-model_%s-lr_%g-b_%lld-j_%lld-p_%s", stamp, slash ? slash + 1 : o->model,
                      o->lr, (long long)o->batch_size, (long long)o->workers, precision);
    return name;
}

static dip_status lock_folder(dip_run_folder *folder)
{
    char *path = dip_path_join(folder->path, ".lock");
    if (!path) return dip_fail(DIP_NOMEM, "no memory for a path");
    folder->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    dip_status status = DIP_OK;
    if (folder->lock < 0)
        status = dip_fail(DIP_IO, "cannot open %s: %s", path, strerror(errno));
    else if (flock(folder->lock, LOCK_EX | LOCK_NB) != 0)
        status = errno == EWOULDBLOCK
                     ? dip_fail(DIP_CONFIG, "another process is training in %s", folder->path)
                     : dip_fail(DIP_IO, "cannot lock %s: %s", path, strerror(errno));
    free(path);
    return status;
}

/* What --resume means here. */
static dip_status find_resume(dip_run_folder *folder, const dip_train_options *o)
{
    char *latest = dip_path_join(folder->checkpoints, "epoch_latest");
    if (!latest) return dip_fail(DIP_NOMEM, "no memory for a path");
    struct stat info;
    const bool has_latest = lstat(latest, &info) == 0;
    dip_status status = DIP_OK;
    if (has_latest && !dip_path_exists(latest) &&
        (!o->resume || strcmp(o->resume, "latest") == 0)) {
        status = dip_fail(DIP_CONFIG, "%s points at a checkpoint that is not there; name one that "
                                      "is with --resume DIR, or start a new run", latest);
    } else if (!o->resume && has_latest) {
        status = dip_fail(DIP_CONFIG, "%s already holds a run; give another --name, or --resume latest",
                          folder->path);
    } else if (o->resume && strcmp(o->resume, "latest") == 0) {
        if (has_latest) {
            folder->resume = latest;
            return DIP_OK;
        }
        dip_info("nothing to resume in %s: starting afresh", folder->path);
    } else if (o->resume) {
        folder->resume = dip_format("%s", o->resume);
        if (!folder->resume) status = dip_fail(DIP_NOMEM, "no memory for a path");
    }
    free(latest);
    return status;
}

dip_status dip_run_folder_open(dip_run_folder *folder, const dip_train_options *options,
                               const char *precision)
{
    dip_status status;
    char *log = NULL;
    *folder = (dip_run_folder){.lock = -1};
    folder->name = options->name ? dip_format("%s", options->name)
                                 : default_name(options, precision);
    if (folder->name) folder->path = dip_path_join(options->logs, folder->name);
    if (folder->path) folder->checkpoints = dip_path_join(folder->path, "checkpoints");
    if (folder->path) log = dip_path_join(folder->path, "out.log");
    if (!folder->checkpoints || !log) {
        status = dip_fail(DIP_NOMEM, "no memory for the run's paths");
        goto fail;
    }
    DIP_TRY_GOTO(dip_make_dirs(folder->checkpoints));
    DIP_TRY_GOTO(lock_folder(folder));
    DIP_TRY_GOTO(find_resume(folder, options));
    DIP_TRY_GOTO(dip_log_open_file(log));
    free(log);
    return DIP_OK;
fail:
    free(log);
    dip_run_folder_close(folder);
    return status;
}

void dip_run_folder_close(dip_run_folder *folder)
{
    if (!folder->name) return;
    dip_log_close_file();
    if (folder->lock >= 0) close(folder->lock);
    free(folder->name);
    free(folder->path);
    free(folder->checkpoints);
    free(folder->resume);
    *folder = (dip_run_folder){.lock = -1};
}

dip_status dip_run_folder_write_params(const dip_run_folder *folder,
                                       const dip_train_options *options)
{
    char *text = NULL, *path = dip_path_join(folder->path, "params.txt");
    size_t n = 0;
    FILE *memory = path ? open_memstream(&text, &n) : NULL;
    if (!memory) {
        free(path);
        return dip_fail(DIP_NOMEM, "no memory for params.txt");
    }
    dip_config_print(&dip_train_option_table, options, memory);
    fclose(memory);
    dip_status status = dip_file_write(path, text, n);
    free(text);
    free(path);
    return status;
}

dip_status dip_run_folder_add_result(const dip_run_folder *folder, const char *json_line)
{
    char *path = dip_path_join(folder->checkpoints, "results.jsonl");
    if (!path) return dip_fail(DIP_NOMEM, "no memory for a path");
    FILE *file = fopen(path, "a");
    dip_status status = DIP_OK;
    if (!file || fprintf(file, "%s\n", json_line) < 0 || fflush(file) != 0 ||
        fsync(fileno(file)) != 0)
        status = dip_fail(DIP_IO, "cannot write %s: %s", path, strerror(errno));
    if (file && fclose(file) != 0 && status == DIP_OK)
        status = dip_fail(DIP_IO, "cannot write %s: %s", path, strerror(errno));
    free(path);
    return status;
}

dip_status dip_run_folder_check_resumed(const dip_train_options *now, const cJSON *saved)
{
    static const char *const decisive[] = {
        "train_data", "json_text_key", "caption_lines", "caption_duplicates", "model", "loss",
        "batch_size", "accum_freq", "epochs", "max_steps", "warmup", "lr", "lr_scheduler", "wd",
        "beta1", "beta2", "eps", "grad_clip_norm", "ema_decay", "seed", "crop_scale_min",
        "crop_scale_max", "crop_ratio", "flip", "image_mean", "image_std",
    };
    char list[2048] = "";
    cJSON *current = dip_config_to_json(&dip_train_option_table, now);
    if (!current) return dip_fail(DIP_NOMEM, "no memory to compare configurations");
    for (size_t i = 0; i < sizeof decisive / sizeof decisive[0]; i++) {
        const cJSON *a = cJSON_GetObjectItemCaseSensitive(saved, decisive[i]);
        const cJSON *b = cJSON_GetObjectItemCaseSensitive(current, decisive[i]);
        bool allowed = (!a && !b) || (a && b && cJSON_Compare(a, b, 1));
        for (size_t j = 0; j < now->resume_changes.n_items && !allowed; j++)
            allowed = strcmp(now->resume_changes.items[j], decisive[i]) == 0;
        if (allowed) continue;
        char *was = NULL, *is = NULL;
        if ((a && dip_json_print(&was, a, false) != DIP_OK) ||
            (b && dip_json_print(&is, b, false) != DIP_OK)) {
            free(was);
            cJSON_Delete(current);
            return DIP_NOMEM;
        }
        const size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "\n  %s was %s, is %s", decisive[i],
                 was ? was : "not set", is ? is : "not set");
        free(was);
        free(is);
    }
    cJSON_Delete(current);
    if (!list[0]) return DIP_OK;
    return dip_fail(DIP_CONFIG,
                    "the resumed run would not be the same run:%s\nname what may change with "
                    "--resume-changes KEY ..., or start a new run", list);
}
