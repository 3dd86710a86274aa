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
#include "train/ledger.h"

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

/* Append "OPTION 'NAME': WHY" to a list of sentences; a long name is cut. */
static void mistake(char *list, size_t n, const char *option, const char *name, const char *why)
{
    const size_t used = strlen(list);
    snprintf(list + used, n - used, "%s%s '%.200s'%s", used ? "\n" : "", option, name, why);
}

bool dip_same_key(const char *a, const char *b)
{
    while (*a && (*a == '-' ? '_' : *a) == (*b == '-' ? '_' : *b)) a++, b++;
    return *a == *b;
}

/* Words of --resume-changes that are no option would allow nothing. */
static void check_changes(char *list, size_t n, const dip_train_options *o)
{
    enum { MAX_KEYS = 128 };
    const char *keys[MAX_KEYS];
    size_t n_keys = 0;
    for (; n_keys < dip_train_option_table.n_options && n_keys < MAX_KEYS; n_keys++)
        keys[n_keys] = dip_train_option_table.options[n_keys].key;
    for (size_t i = 0; i < o->resume_changes.n_items; i++) {
        const char *word = o->resume_changes.items[i];
        size_t k = 0;
        while (k < n_keys && !dip_same_key(word, keys[k])) k++;
        if (k < n_keys) continue;
        const char *nearest = dip_nearest_word(word, keys, n_keys);
        char why[128];
        snprintf(why, sizeof why, " is not an option%s%s%s", nearest ? ", did you mean " : "",
                 nearest ? nearest : "", nearest ? "?" : "");
        mistake(list, n, "--resume-changes", word, why);
    }
}

static bool is_no_folder(const char *path)
{
    return dip_path_exists(path) && !dip_path_is_dir(path);
}

dip_status dip_run_folder_check(const dip_train_options *o)
{
    /* What is made below LOGS/NAME adds no more than this. */
    enum { LONGEST_LOGS = 3500, LONGEST_NAME = 200 };
    char list[2048] = "";
    const char *name = o->name ? o->name : "";
    char *path = dip_path_join(o->logs, name);
    if (!path) return dip_fail(DIP_NOMEM, "no memory for the run's path");
    if (strlen(o->logs) > LONGEST_LOGS)
        mistake(list, sizeof list, "--logs", o->logs, "... is longer than 3500 bytes");
    else if (is_no_folder(o->logs))
        mistake(list, sizeof list, "--logs", o->logs, " is a file, not a folder");
    else if (strlen(name) > LONGEST_NAME)
        mistake(list, sizeof list, "--name", name, "... is longer than 200 bytes");
    else if (is_no_folder(path))
        mistake(list, sizeof list, "--name", name, ": a file has the name of the run's folder");
    if (o->resume && strcmp(o->resume, "latest") != 0 && !dip_path_is_dir(o->resume))
        mistake(list, sizeof list, "--resume", o->resume, ": there is no such checkpoint folder");
    if (o->resume && strcmp(o->resume, "latest") == 0 && !o->name)
        mistake(list, sizeof list, "--resume", "latest", " needs the run's --name");
    check_changes(list, sizeof list, o);
    free(path);
    return list[0] ? dip_fail(DIP_CONFIG, "%s", list) : DIP_OK;
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
        status = dip_fail(DIP_CONFIG,
                          "%s points at a checkpoint that is not there; name one that "
                          "is with --resume DIR, or start a new run",
                          latest);
    } else if (!o->resume && has_latest) {
        status =
            dip_fail(DIP_CONFIG, "%s already holds a run; give another --name, or --resume latest",
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
    folder->name =
        options->name ? dip_format("%s", options->name) : default_name(options, precision);
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

dip_status dip_run_folder_write_ledger(const dip_run_folder *folder, const cJSON *ledger)
{
    char *path = dip_path_join(folder->path, DIP_LEDGER_FILE);
    if (!path) return dip_fail(DIP_NOMEM, "no memory for a path");
    dip_status status = dip_json_write(path, ledger);
    free(path);
    return status;
}

dip_status dip_run_folder_record_faults(const dip_run_folder *folder, dip_faults *faults,
                                        int64_t n_kept, int64_t max_lines)
{
    char *path = dip_path_join(folder->path, "dropped.jsonl");
    if (!path) return dip_fail(DIP_NOMEM, "no memory for a path");
    dip_status status = dip_faults_record(faults, path, n_kept, max_lines);
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
