#include "train/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "core/json.h"
#include "model/safetensors.h"
#include "train/ledger.h"

#define OPTIMIZER_FILE "optimizer.safetensors"
#define TRAINER_FILE   "trainer.json"
#define UNFINISHED     ".tmp-"

enum {
    FORMAT_VERSION = 2, /* 1 had no spares, dropped lines and ledger */
    TRAINER_MAX_BYTES = 1 << 20,
    MOMENT_NAME_BYTES = DIP_PARAM_NAME_BYTES + 16
};

/* The progress fields once, for writing and reading; 0 where an older version has none. */
static const struct {
    const char *key;
    size_t offset;
    int since_version;
} progress_fields[] = {
    {"epoch", offsetof(dip_progress, epoch), 1},
    {"position", offsetof(dip_progress, position), 1},
    {"n_spares", offsetof(dip_progress, n_spares), 2},
    {"n_bad", offsetof(dip_progress, n_bad), 2},
    {"n_dropped", offsetof(dip_progress, n_dropped), 2},
    {"step", offsetof(dip_progress, step), 1},
    {"n_updates", offsetof(dip_progress, n_updates), 1},
    {"n_skipped", offsetof(dip_progress, n_skipped), 1},
    {"samples_seen", offsetof(dip_progress, samples_seen), 1},
    {"total_steps", offsetof(dip_progress, total_steps), 1},
    {"n_samples", offsetof(dip_progress, n_samples), 1},
};
enum { N_PROGRESS_FIELDS = sizeof progress_fields / sizeof progress_fields[0] };

/* ---- moments: two tensors a parameter -------------------------------------------------- */

/* Names "exp_avg.NAME" and "exp_avg_sq.NAME", in one malloc'd block with the tensor rows. */
typedef struct moments {
    dip_tensor *tensors;
    char (*names)[MOMENT_NAME_BYTES];
    size_t n;
} moments;

static void moments_free(moments *m)
{
    free(m->tensors);
    free(m->names);
    *m = (moments){0};
}

static dip_status moments_describe(moments *m, const dip_param_table *table, const float *first,
                                   const float *second)
{
    const size_t n = 2 * (size_t)table->n_params;
    *m = (moments){
        .tensors = calloc(n, sizeof *m->tensors), .names = calloc(n, sizeof *m->names), .n = n};
    if (!m->tensors || !m->names) {
        moments_free(m);
        return dip_fail(DIP_NOMEM, "no memory to describe %zu optimizer tensors", n);
    }
    for (size_t i = 0; i < n; i++) {
        const dip_param *param = &table->params[i / 2];
        snprintf(m->names[i], sizeof m->names[i], "%s.%s", i % 2 ? "exp_avg_sq" : "exp_avg",
                 param->name);
        m->tensors[i] = (dip_tensor){.name = m->names[i],
                                     .dtype = DIP_ST_F32,
                                     .n_dims = param->n_dims,
                                     .data = (i % 2 ? second : first) + param->offset,
                                     .n_bytes = (size_t)param->n_elements * sizeof(float)};
        memcpy(m->tensors[i].shape, param->shape, sizeof param->shape);
    }
    return DIP_OK;
}

static dip_status write_moments(const char *path, const dip_param_table *table, const float *first,
                                const float *second)
{
    moments m;
    DIP_TRY(moments_describe(&m, table, first, second));
    dip_status status = dip_safetensors_write(path, m.tensors, m.n);
    moments_free(&m);
    return status;
}

static dip_status read_moments(float *first, float *second, const dip_param_table *table,
                               const char *path)
{
    dip_safetensors *file = NULL;
    moments m;
    dip_status status;
    DIP_TRY(moments_describe(&m, table, first, second));
    DIP_TRY_GOTO(dip_safetensors_open(&file, path));
    for (size_t i = 0; i < m.n; i++) {
        const dip_tensor *want = &m.tensors[i], *have = dip_safetensors_find(file, want->name);
        if (!have || have->dtype != DIP_ST_F32 || have->n_bytes != want->n_bytes) {
            status = dip_fail(DIP_FORMAT, "%s: tensor %s is %s", path, want->name,
                              have ? "of another size or type" : "missing");
            goto fail;
        }
        memcpy((i % 2 ? second : first) + table->params[i / 2].offset, have->data, have->n_bytes);
    }
    status = DIP_OK;
fail:
    dip_safetensors_close(file);
    moments_free(&m);
    return status;
}

/* ---- checksums -------------------------------------------------------------------------- */

/* trainer.json holds {"crc32c": {FILE: "%08x", ...}}: of every file of the checkpoint and of
 * itself, its own taken with "00000000" in its place. */
static const char *const summed_files[] = {DIP_CONFIG_FILE, DIP_TOKENIZER_FILE, DIP_WEIGHTS_FILE,
                                           DIP_EMA_FILE,    OPTIMIZER_FILE,     DIP_LEDGER_FILE};
enum { N_SUMMED_FILES = sizeof summed_files / sizeof summed_files[0], SUM_DIGITS = 8 };

static const char own_sum_label[] = "\"" TRAINER_FILE "\":";

static dip_status file_sum(char out[SUM_DIGITS + 1], const char *path)
{
    dip_map map;
    DIP_TRY(dip_file_map(&map, path));
    snprintf(out, SUM_DIGITS + 1, "%08x", dip_crc32c(0, map.data, map.n_bytes));
    dip_file_unmap(&map);
    return DIP_OK;
}

/* The digits of trainer.json's own sum in its text, NULL if there are none. */
static char *own_sum_digits(char *text)
{
    char *label = strstr(text, own_sum_label);
    char *quote = label ? strchr(label + sizeof own_sum_label - 1, '"') : NULL;
    return quote && strlen(quote) > SUM_DIGITS + 1 ? quote + 1 : NULL;
}

static void text_sum(char out[SUM_DIGITS + 1], char *text, size_t n_bytes)
{
    char kept[SUM_DIGITS], *digits = own_sum_digits(text);
    memcpy(kept, digits, SUM_DIGITS);
    memset(digits, '0', SUM_DIGITS);
    snprintf(out, SUM_DIGITS + 1, "%08x", dip_crc32c(0, text, n_bytes));
    memcpy(digits, kept, SUM_DIGITS);
}

/* Is each file what was written? */
static dip_status check_sums(const cJSON *root, char *text, size_t n_bytes, const char *dir)
{
    char path[4352], sum[SUM_DIGITS + 1];
    const cJSON *sums = cJSON_GetObjectItemCaseSensitive(root, "crc32c");
    char *digits = own_sum_digits(text);
    snprintf(path, sizeof path, "%s/%s", dir, TRAINER_FILE);
    if (!cJSON_IsObject(sums) || !digits) return dip_fail(DIP_FORMAT, "%s has no checksums", path);
    text_sum(sum, text, n_bytes);
    if (memcmp(sum, digits, SUM_DIGITS) != 0)
        return dip_fail(DIP_FORMAT, "%s is damaged: its checksum is %s, it says %.8s", path, sum,
                        digits);
    for (int i = 0; i < N_SUMMED_FILES; i++) {
        const cJSON *said = cJSON_GetObjectItemCaseSensitive(sums, summed_files[i]);
        snprintf(path, sizeof path, "%s/%s", dir, summed_files[i]);
        if (!said && !dip_path_exists(path))
            continue; /* there need not be an average or a ledger */
        if (!dip_path_exists(path))
            return dip_fail(DIP_FORMAT, "%s is missing from the checkpoint", path);
        DIP_TRY(file_sum(sum, path));
        if (!cJSON_IsString(said) || strcmp(said->valuestring, sum) != 0)
            return dip_fail(DIP_FORMAT,
                            "%s is damaged, or not the file that was saved: its "
                            "checksum is %s, %s says %s",
                            path, sum, TRAINER_FILE,
                            cJSON_IsString(said) ? said->valuestring : "nothing");
    }
    return DIP_OK;
}

/* ---- writing --------------------------------------------------------------------------- */

static dip_status add_sums(cJSON *root, const char *dir)
{
    char path[4352], sum[SUM_DIGITS + 1];
    cJSON *sums = cJSON_AddObjectToObject(root, "crc32c");
    for (int i = 0; sums && i < N_SUMMED_FILES; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, summed_files[i]);
        if (!dip_path_exists(path)) continue; /* there need not be an average or a ledger */
        DIP_TRY(file_sum(sum, path));
        if (!cJSON_AddStringToObject(sums, summed_files[i], sum)) sums = NULL;
    }
    return sums && cJSON_AddStringToObject(sums, TRAINER_FILE, "00000000")
               ? DIP_OK
               : dip_fail(DIP_NOMEM, "no memory for the checksums of %s", dir);
}

/* The last file: the others of `dir` are there. */
static dip_status write_trainer_json(const char *dir, const dip_progress *progress,
                                     const cJSON *configuration)
{
    char path[4352], sum[SUM_DIGITS + 1], *text = NULL;
    cJSON *root = cJSON_CreateObject();
    dip_status status = DIP_OK;
    snprintf(path, sizeof path, "%s/%s", dir, TRAINER_FILE);
    if (!root || !cJSON_AddNumberToObject(root, "format_version", FORMAT_VERSION)) goto memory;
    for (size_t i = 0; i < N_PROGRESS_FIELDS; i++) {
        const int64_t value =
            *(const int64_t *)((const char *)progress + progress_fields[i].offset);
        if (!cJSON_AddNumberToObject(root, progress_fields[i].key, (double)value)) goto memory;
    }
    DIP_TRY_GOTO(add_sums(root, dir));
    if (configuration) {
        cJSON *copy = cJSON_Duplicate(configuration, 1);
        if (!copy || !cJSON_AddItemToObject(root, "configuration", copy)) goto memory;
    }
    DIP_TRY_GOTO(dip_json_print(&text, root, true));
    text_sum(sum, text, strlen(text));
    memcpy(own_sum_digits(text), sum, SUM_DIGITS);
    status = dip_file_write(path, text, strlen(text));
    goto fail;
memory:
    status = dip_fail(DIP_NOMEM, "no memory to write %s", path);
fail:
    free(text);
    cJSON_Delete(root);
    return status;
}

/* Every file of the checkpoint into `dir`. host [2 n_values] is scratch. */
static dip_status write_files(dip_step *step, const dip_tokenizer *tokenizer,
                              const dip_progress *progress, const dip_checkpoint_extras *extras,
                              const char *dir, float *host)
{
    const dip_param_table *table = &step->clip->table;
    const size_t bytes = (size_t)table->n_values * sizeof(float);
    float *second = host + table->n_values;
    dip_exec *exec = &step->exec;
    size_t tokenizer_bytes;
    char path[4352];
#define FILE_IN_DIR(name) (snprintf(path, sizeof path, "%s/%s", dir, name), path)
    cJSON *model = dip_model_config_to_json(&step->clip->config);
    if (!model) return dip_fail(DIP_NOMEM, "no memory to write the model configuration");
    dip_status status = dip_json_write(FILE_IN_DIR(DIP_CONFIG_FILE), model);
    cJSON_Delete(model);
    DIP_TRY(status);

    const void *tokenizer_model = dip_tokenizer_bytes(tokenizer, &tokenizer_bytes);
    DIP_TRY(dip_file_write(FILE_IN_DIR(DIP_TOKENIZER_FILE), tokenizer_model, tokenizer_bytes));

    DIP_TRY(exec->device->download(exec, host, step->params.master, bytes));
    DIP_TRY(dip_weights_write(FILE_IN_DIR(DIP_WEIGHTS_FILE), table, host));
    if (step->optimizer.ema) {
        DIP_TRY(exec->device->download(exec, host, step->optimizer.ema, bytes));
        DIP_TRY(dip_weights_write(FILE_IN_DIR(DIP_EMA_FILE), table, host));
    }
    DIP_TRY(exec->device->download(exec, host, step->optimizer.m, bytes));
    DIP_TRY(exec->device->download(exec, second, step->optimizer.v, bytes));
    DIP_TRY(write_moments(FILE_IN_DIR(OPTIMIZER_FILE), table, host, second));
    if (extras->ledger) DIP_TRY(dip_json_write(FILE_IN_DIR(DIP_LEDGER_FILE), extras->ledger));
    dip_progress now = *progress;
    DIP_TRY(dip_optimizer_n_updates(exec, &step->optimizer, &now.n_updates));
    return write_trainer_json(dir, &now, extras->configuration);
#undef FILE_IN_DIR
}

/* Rename `made` to `final`. A checkpoint of that name exists when a resumed run reaches the same
 * point again: the two are exchanged, so that there is one at any time; where the file system
 * cannot, it goes out of the way first. */
static dip_status put_in_place(const char *made, const char *final, const char *replaced)
{
    const bool exists = dip_path_exists(final);
    if (exists && renameat2(AT_FDCWD, made, AT_FDCWD, final, RENAME_EXCHANGE) == 0) return DIP_OK;
    if (exists && rename(final, replaced) != 0)
        return dip_fail(DIP_IO, "cannot rename %s: %s", final, strerror(errno));
    if (rename(made, final) == 0) return DIP_OK;
    dip_status status =
        dip_fail(DIP_IO, "cannot rename %s to %s: %s", made, final, strerror(errno));
    if (exists && rename(replaced, final) != 0)
        status = dip_fail_prefix(DIP_IO, "the older checkpoint is left in %s; ", replaced);
    return status;
}

/* What an interrupted save left, under this name or another; the run's lock makes it ours. */
static dip_status remove_unfinished(const char *checkpoints_dir)
{
    DIR *dir = opendir(checkpoints_dir);
    if (!dir) return dip_fail(DIP_IO, "cannot read %s: %s", checkpoints_dir, strerror(errno));
    dip_status status = DIP_OK;
    for (struct dirent *entry; status == DIP_OK && (entry = readdir(dir));) {
        if (strncmp(entry->d_name, UNFINISHED, sizeof UNFINISHED - 1) != 0) continue;
        char *path = dip_path_join(checkpoints_dir, entry->d_name);
        status = path ? dip_remove_tree(path) : dip_fail(DIP_NOMEM, "no memory for a path");
        free(path);
    }
    closedir(dir);
    return status;
}

dip_status dip_checkpoint_write(dip_step *step, const dip_tokenizer *tokenizer,
                                const dip_progress *progress, const dip_checkpoint_extras *extras,
                                const char *checkpoints_dir, const char *name)
{
    const size_t n = (size_t)step->clip->table.n_values;
    float *host = malloc(2 * n * sizeof *host);
    char *temporary = dip_format("%s/" UNFINISHED "%s", checkpoints_dir, name);
    char *replaced = dip_format("%s/.old-%s", checkpoints_dir, name);
    char *final = dip_path_join(checkpoints_dir, name);
    char *latest = dip_path_join(checkpoints_dir, "epoch_latest");
    dip_status status;
    if (!host || !temporary || !replaced || !final || !latest) {
        status = dip_fail(DIP_NOMEM, "no memory to write checkpoint %s", name);
        goto fail;
    }
    DIP_TRY_GOTO(dip_make_dirs(checkpoints_dir));
    DIP_TRY_GOTO(remove_unfinished(checkpoints_dir));
    DIP_TRY_GOTO(dip_remove_tree(replaced));
    DIP_TRY_GOTO(dip_make_dirs(temporary));
    DIP_TRY_GOTO(write_files(step, tokenizer, progress, extras, temporary, host));
    DIP_TRY_GOTO(dip_sync_dir(temporary));
    DIP_TRY_GOTO(put_in_place(temporary, final, replaced));
    DIP_TRY_GOTO(dip_sync_dir(checkpoints_dir));
    DIP_TRY_GOTO(dip_symlink_replace(name, latest));
    DIP_TRY_GOTO(dip_remove_tree(replaced));
    DIP_TRY_GOTO(dip_remove_tree(temporary)); /* the older one, if they were exchanged */
fail:
    free(host);
    free(temporary);
    free(replaced);
    free(final);
    free(latest);
    return status;
}

/* ---- reading --------------------------------------------------------------------------- */

static dip_status read_fields(dip_progress *progress, const cJSON *root, const char *path)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, "format_version");
    const double version = cJSON_IsNumber(item) ? item->valuedouble : 0;
    if (version != 1 && version != FORMAT_VERSION)
        return dip_fail(DIP_FORMAT, "%s: format_version is %g; this program reads 1 and %d", path,
                        version, FORMAT_VERSION);
    *progress = (dip_progress){0};
    for (size_t i = 0; i < N_PROGRESS_FIELDS; i++) {
        if (version < progress_fields[i].since_version) continue;
        item = cJSON_GetObjectItemCaseSensitive(root, progress_fields[i].key);
        if (!cJSON_IsNumber(item) || item->valuedouble < 0 || item->valuedouble > 9e15)
            return dip_fail(DIP_FORMAT, "%s: '%s' must be a number of at least 0", path,
                            progress_fields[i].key);
        *(int64_t *)((char *)progress + progress_fields[i].offset) = (int64_t)item->valuedouble;
    }
    return DIP_OK;
}

dip_status dip_checkpoint_read_progress(dip_progress *progress, cJSON **configuration,
                                        const char *dir)
{
    char path[4352], *text = NULL;
    cJSON *root = NULL;
    size_t n_bytes;
    dip_status status;
    snprintf(path, sizeof path, "%s/%s", dir, TRAINER_FILE);
    *configuration = NULL;
    if (!dip_path_exists(path))
        return dip_fail(DIP_CONFIG,
                        "%s holds no %s: it has weights at most, which cannot be "
                        "resumed from",
                        dir, TRAINER_FILE);
    DIP_TRY(dip_file_read(&text, &n_bytes, path, TRAINER_MAX_BYTES));
    DIP_TRY_GOTO(dip_json_parse(&root, text, n_bytes, path));
    DIP_TRY_GOTO(read_fields(progress, root, path));
    DIP_TRY_GOTO(check_sums(root, text, n_bytes, dir));
    *configuration = cJSON_DetachItemFromObjectCaseSensitive(root, "configuration");
fail:
    cJSON_Delete(root);
    free(text);
    return status;
}

dip_status dip_checkpoint_read(dip_step *step, const dip_progress *progress, const char *dir)
{
    const dip_param_table *table = &step->clip->table;
    const size_t n = (size_t)table->n_values, bytes = n * sizeof(float);
    dip_exec *exec = &step->exec;
    dip_status status;
    char path[4352];
    float *host = calloc(2 * n, sizeof *host);
    if (!host) return dip_fail(DIP_NOMEM, "no memory to read checkpoint %s", dir);
    snprintf(path, sizeof path, "%s/%s", dir, DIP_WEIGHTS_FILE);
    DIP_TRY_GOTO(dip_weights_read(host, table, path));
    const float *ema = NULL;
    snprintf(path, sizeof path, "%s/%s", dir, DIP_EMA_FILE);
    if (step->optimizer.ema && dip_path_exists(path)) {
        DIP_TRY_GOTO(dip_weights_read(host + n, table, path));
        ema = host + n;
    }
    DIP_TRY_GOTO(dip_step_upload(step, host, ema));
    memset(host, 0, 2 * bytes);
    snprintf(path, sizeof path, "%s/%s", dir, OPTIMIZER_FILE);
    DIP_TRY_GOTO(read_moments(host, host + n, table, path));
    DIP_TRY_GOTO(exec->device->upload(exec, step->optimizer.m, host, bytes));
    DIP_TRY_GOTO(exec->device->upload(exec, step->optimizer.v, host + n, bytes));
    DIP_TRY_GOTO(dip_optimizer_set_n_updates(exec, &step->optimizer, progress->n_updates));
fail:
    free(host);
    return status;
}
