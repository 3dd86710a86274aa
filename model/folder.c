#include "model/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "core/json.h"

#define LATEST       "checkpoints/epoch_latest"
#define TRAINER_FILE "trainer.json" /* only training checkpoints have it */

static dip_status no_memory(const char *path)
{
    return dip_fail(DIP_NOMEM, "no memory for the paths of %s", path);
}

/* ---- find ------------------------------------------------------------------------------ */

static bool has_file(const char *folder, const char *name)
{
    char *path = dip_path_join(folder, name);
    bool there = path && dip_path_exists(path);
    free(path);
    return there;
}

dip_status dip_folder_find(char **folder, const char *path)
{
    *folder = NULL;
    struct stat info;
    if (!path || !*path) return dip_fail(DIP_CONFIG, "no model folder is named");
    if (stat(path, &info) != 0)
        return dip_fail(DIP_CONFIG, "cannot open the model folder %s: %s", path, strerror(errno));
    if (!S_ISDIR(info.st_mode))
        return dip_fail(DIP_CONFIG, "%s is a file; a model is a folder with %s in it", path,
                        DIP_CONFIG_FILE);
    if (has_file(path, DIP_CONFIG_FILE)) {
        *folder = strdup(path);
        return *folder ? DIP_OK : no_memory(path);
    }
    char *latest = dip_path_join(path, LATEST);
    if (!latest) return no_memory(path);
    if (has_file(latest, DIP_CONFIG_FILE)) {
        *folder = latest;
        return DIP_OK;
    }
    free(latest);
    return dip_fail(DIP_CONFIG, "%s holds no model: neither %s nor %s/%s is there", path,
                    DIP_CONFIG_FILE, LATEST, DIP_CONFIG_FILE);
}

/* ---- read ------------------------------------------------------------------------------ */

static dip_status check_files(const char *folder)
{
    static const char *const names[] = {DIP_CONFIG_FILE, DIP_WEIGHTS_FILE, DIP_TOKENIZER_FILE};
    char missing[128] = "";
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (has_file(folder, names[i])) continue;
        if (*missing) strcat(missing, ", ");
        strcat(missing, names[i]);
    }
    if (*missing) return dip_fail(DIP_CONFIG, "%s lacks %s", folder, missing);
    return DIP_OK;
}

dip_status dip_folder_read(dip_clip *clip, float **values, const char *folder, bool use_ema)
{
    *clip = (dip_clip){0};
    *values = NULL;
    dip_model_config config;
    dip_status status;
    DIP_TRY(check_files(folder));
    /* Taking the other weights instead would give figures under the wrong name. */
    if (use_ema && !has_file(folder, DIP_EMA_FILE))
        return dip_fail(DIP_CONFIG, "%s has no average of the weights (%s)", folder, DIP_EMA_FILE);
    const char *weights = use_ema ? DIP_EMA_FILE : DIP_WEIGHTS_FILE;
    char *config_path = dip_path_join(folder, DIP_CONFIG_FILE);
    char *weights_path = dip_path_join(folder, weights);
    if (!config_path || !weights_path) {
        status = no_memory(folder);
        goto fail;
    }
    DIP_TRY_GOTO(dip_model_config_open(&config, config_path));
    DIP_TRY_GOTO(dip_clip_init(clip, &config));
    /* dip_weights_read fills every element. */
    *values = malloc((size_t)clip->table.n_values * sizeof **values);
    if (!*values) {
        status = dip_fail(DIP_NOMEM, "no memory for the %lld parameters of %s",
                          (long long)clip->table.n_counted, folder);
        goto fail;
    }
    DIP_TRY_GOTO(dip_weights_read(*values, &clip->table, weights_path));
    free(config_path);
    free(weights_path);
    return DIP_OK;
fail:
    free(config_path);
    free(weights_path);
    free(*values);
    *values = NULL;
    dip_clip_free(clip);
    *clip = (dip_clip){0};
    return status;
}

dip_status dip_folder_tokenizer(dip_tokenizer **tokenizer, const dip_clip *clip, const char *folder)
{
    *tokenizer = NULL;
    const dip_text_config *text = &clip->config.text;
    char *path = dip_path_join(folder, DIP_TOKENIZER_FILE);
    if (!path) return no_memory(folder);
    dip_status status = dip_tokenizer_open(tokenizer, path);
    free(path);
    if (status != DIP_OK) return status;

    int n_pieces = dip_tokenizer_vocab_size(*tokenizer), eos = dip_tokenizer_eos(*tokenizer);
    /* eos_id -1: the tower takes the largest id for the end of the text. */
    int expected = text->eos_id < 0 ? n_pieces - 1 : text->eos_id;
    if (n_pieces != text->vocab_size)
        status =
            dip_fail(DIP_FORMAT, "%s: the tokenizer has %d pieces, the model %d token embeddings",
                     folder, n_pieces, text->vocab_size);
    else if (eos != expected)
        status = dip_fail(DIP_FORMAT,
                          "%s: the tokenizer ends a text with id %d, the model looks for %d (%s)",
                          folder, eos, expected,
                          text->eos_id < 0 ? "the largest id" : "eos_id of its configuration");
    if (status != DIP_OK) {
        dip_tokenizer_close(*tokenizer);
        *tokenizer = NULL;
    }
    return status;
}

/* ---- write ----------------------------------------------------------------------------- */

static dip_status write_files(const char *folder, const dip_clip *clip, const float *values,
                              const dip_tokenizer *tokenizer)
{
    dip_status status = DIP_NOMEM;
    size_t n_bytes = 0;
    const void *pieces = dip_tokenizer_bytes(tokenizer, &n_bytes);
    char *config_path = dip_path_join(folder, DIP_CONFIG_FILE);
    char *weights_path = dip_path_join(folder, DIP_WEIGHTS_FILE);
    char *tokenizer_path = dip_path_join(folder, DIP_TOKENIZER_FILE);
    cJSON *json = dip_model_config_to_json(&clip->config);
    if (!config_path || !weights_path || !tokenizer_path || !json) {
        status = no_memory(folder);
        goto fail;
    }
    DIP_TRY_GOTO(dip_json_write(config_path, json));
    DIP_TRY_GOTO(dip_weights_write(weights_path, &clip->table, values));
    DIP_TRY_GOTO(dip_file_write(tokenizer_path, pieces, n_bytes));
fail:
    cJSON_Delete(json);
    free(tokenizer_path);
    free(weights_path);
    free(config_path);
    return status;
}

/* May `folder` be written, and does something make room for it? */
static dip_status check_target(bool *exists, const char *folder, bool overwrite)
{
    struct stat info;
    *exists = lstat(folder, &info) == 0;
    if (!*exists && errno != ENOENT)
        return dip_fail(DIP_CONFIG, "cannot write the folder %s: %s", folder, strerror(errno));
    if (!*exists) return DIP_OK;
    if (!S_ISDIR(info.st_mode))
        return dip_fail(DIP_CONFIG, "%s exists and is not a folder", folder);
    if (!overwrite)
        return dip_fail(DIP_CONFIG, "%s exists; name another folder or allow overwriting", folder);
    /* What is replaced is deleted: only ever something that is plainly a model. */
    if (!has_file(folder, DIP_CONFIG_FILE))
        return dip_fail(DIP_CONFIG, "%s is not replaced: it holds no model (no %s)", folder,
                        DIP_CONFIG_FILE);
    if (has_file(folder, TRAINER_FILE))
        return dip_fail(DIP_CONFIG, "%s is not replaced: it is a training checkpoint (%s)", folder,
                        TRAINER_FILE);
    return DIP_OK;
}

/* Two steps, for file systems that cannot exchange: the old folder out of the way first, and back
 * if the new one cannot follow. */
static int rename_in_steps(const char *made, const char *folder, const char *aside)
{
    if (rename(folder, aside) != 0) return -1;
    if (rename(made, folder) == 0) return rename(aside, made);
    int reason = errno;
    rename(aside, folder);
    errno = reason;
    return -1;
}

/* Put `made` in the place of `folder`; what was there ends up under the name `made`. */
static dip_status put_in_place(const char *made, const char *folder, bool exists)
{
    int failed = exists ? renameat2(AT_FDCWD, made, AT_FDCWD, folder, RENAME_EXCHANGE)
                        : rename(made, folder);
    if (failed && exists && (errno == EINVAL || errno == ENOSYS)) {
        char *aside = dip_format("%s.old-%ld", folder, (long)getpid());
        if (!aside) return no_memory(folder);
        failed = rename_in_steps(made, folder, aside);
        free(aside);
    }
    if (failed) return dip_fail(DIP_IO, "cannot move %s to %s: %s", made, folder, strerror(errno));
    return DIP_OK;
}

dip_status dip_folder_write(const char *path, const dip_clip *clip, const float *values,
                            const dip_tokenizer *tokenizer, bool overwrite)
{
    bool exists = false;
    dip_status status;
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    char *folder = strndup(path, n);
    char *made = dip_format("%.*s.tmp-%ld", (int)n, path, (long)getpid());
    char *parent = NULL;
    if (!folder || !made) {
        status = no_memory(path);
        goto fail;
    }
    DIP_TRY_GOTO(check_target(&exists, folder, overwrite));
    const char *slash = strrchr(folder, '/');
    parent = !slash ? strdup(".") : strndup(folder, slash == folder ? 1 : (size_t)(slash - folder));
    if (!parent) {
        status = no_memory(path);
        goto fail;
    }
    DIP_TRY_GOTO(dip_make_dirs(parent));
    DIP_TRY_GOTO(dip_remove_tree(made)); /* of a dead process that had our number */
    DIP_TRY_GOTO(dip_make_dirs(made));
    status = write_files(made, clip, values, tokenizer);
    if (status == DIP_OK) status = dip_sync_dir(made);
    if (status == DIP_OK) status = put_in_place(made, folder, exists);
    if (status == DIP_OK) {
        DIP_TRY_GOTO(dip_sync_dir(parent));
        if (exists) status = dip_remove_tree(made); /* the old folder, by now */
    } else {
        char reason[2048];
        snprintf(reason, sizeof reason, "%s", dip_error());
        dip_remove_tree(made);
        dip_fail(status, "%s", reason);
    }
fail:
    free(parent);
    free(made);
    free(folder);
    return status;
}
