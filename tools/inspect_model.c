#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "core/plan.h"
#include "model/folder.h"
#include "model/model.h"
#include "model/safetensors.h"
#include "tools/inspect.h"

#define TRAINER_FILE "trainer.json"

/* ---- parameters ------------------------------------------------------------------------ */

static cJSON *shape_to_json(const int64_t *shape, int n_dims)
{
    cJSON *array = cJSON_CreateArray();
    for (int i = 0; i < n_dims; i++)
        cJSON_AddItemToArray(array, cJSON_CreateNumber((double)shape[i]));
    return array;
}

/* {name: {"shape", ...}}: a line each in a report for people. */
static void add_parameters(cJSON *report, const dip_param_table *table)
{
    cJSON *rows = cJSON_AddObjectToObject(report, "parameters");
    for (int i = 0; i < table->n_params; i++) {
        const dip_param *param = &table->params[i];
        cJSON *row = cJSON_AddObjectToObject(rows, param->name);
        cJSON_AddItemToObject(row, "shape", shape_to_json(param->shape, param->n_dims));
        cJSON_AddBoolToObject(row, "decay", param->decay);
    }
}

static void add_counts(cJSON *report, const dip_clip *clip)
{
    int64_t n_image = 0;
    for (int i = 0; i < clip->table.n_params; i++)
        if (strncmp(clip->table.params[i].name, "visual.", 7) == 0)
            n_image += clip->table.params[i].n_elements;
    int64_t n_scale = clip->table.params[clip->logit_scale].n_elements;
    cJSON_AddNumberToObject(report, "n_parameters", (double)clip->table.n_counted);
    cJSON_AddNumberToObject(report, "n_parameters_image", (double)n_image);
    cJSON_AddNumberToObject(report, "n_parameters_text",
                            (double)(clip->table.n_counted - n_image - n_scale));
    cJSON_AddNumberToObject(report, "n_tensors", clip->table.n_params);
    cJSON_AddNumberToObject(report, "gflops_per_image", dip_vision_flops(&clip->vision) / 1e9);
    cJSON_AddNumberToObject(report, "gflops_per_longest_text",
                            dip_text_flops(&clip->text, clip->config.text.context_length) / 1e9);
}

/* ---- memory ---------------------------------------------------------------------------- */

static void add_bytes(cJSON *object, const char *name, size_t n_bytes)
{
    cJSON_AddNumberToObject(object, name, (double)n_bytes);
}

/* Plan both towers; nothing is allocated. With save, both keep what backward needs. */
static dip_status plan_towers(const dip_clip *clip, const dip_exec *exec, dip_plan *plan,
                              int64_t batch_size, bool save, size_t *workspace_bytes)
{
    dip_vision_pass *vision = NULL;
    dip_text_pass *text = NULL;
    size_t mark = dip_plan_mark(plan);
    const dip_pass_options pass = {.save = save};
    dip_status status =
        dip_vision_plan(&vision, &clip->vision, plan, exec, batch_size, pass, workspace_bytes);
    dip_plan_release(plan, mark);
    if (status == DIP_OK)
        status = dip_text_plan(&text, &clip->text, plan, exec, batch_size,
                               (dip_text_options){.pass = pass}, workspace_bytes);
    dip_text_pass_free(text);
    dip_vision_pass_free(vision);
    return status;
}

static dip_status add_memory(cJSON *report, const dip_clip *clip, const dip_inspect_flags *flags)
{
    dip_dtype dtype;
    dip_exec exec = {0};
    dip_plan *encode = NULL, *train = NULL;
    size_t encode_workspace = 0, train_workspace = 0;
    dip_status status;
    DIP_TRY(dip_device_check_name(flags->device));
    DIP_TRY(dip_precision_resolve(&dtype, flags->precision, flags->device));
    DIP_TRY_GOTO(dip_exec_open(&exec, flags->device, dtype, 0));
    DIP_TRY_GOTO(dip_plan_init(&encode, NULL));
    DIP_TRY_GOTO(dip_plan_init(&train, NULL));
    DIP_TRY_GOTO(plan_towers(clip, &exec, encode, flags->batch_size, false, &encode_workspace));
    DIP_TRY_GOTO(plan_towers(clip, &exec, train, flags->batch_size, true, &train_workspace));
    cJSON *memory = cJSON_AddObjectToObject(report, "memory");
    cJSON_AddStringToObject(memory, "precision", dip_dtype_name(dtype));
    cJSON_AddNumberToObject(memory, "batch_size", (double)flags->batch_size);
    add_bytes(memory, "weights_bytes", (size_t)clip->table.n_values * dip_dtype_bytes(dtype));
    add_bytes(memory, "encode_activation_bytes", dip_plan_total_bytes(encode));
    add_bytes(memory, "encode_workspace_bytes", encode_workspace);
    add_bytes(memory, "train_saved_bytes", dip_plan_bytes(train, DIP_SPACE_SAVED));
    add_bytes(memory, "train_scratch_bytes", dip_plan_bytes(train, DIP_SPACE_SCRATCH));
    add_bytes(memory, "train_workspace_bytes", train_workspace);
fail:
    dip_plan_free(train);
    dip_plan_free(encode);
    dip_exec_close(&exec);
    return status;
}

/* ---- model ----------------------------------------------------------------------------- */

static dip_status add_config(cJSON *report, const dip_model_config *config)
{
    cJSON *json = dip_model_config_to_json(config);
    if (!json) return dip_fail(DIP_NOMEM, "no memory for the configuration");
    for (cJSON *item; (item = json->child);) {
        cJSON_DetachItemViaPointer(json, item);
        if (!cJSON_AddItemToObject(report, item->string, item)) {
            cJSON_Delete(item);
            break;
        }
    }
    cJSON_Delete(json);
    return DIP_OK;
}

/* Everything in a folder is read, so that it is also checked. */
static dip_status read_folder(cJSON *report, dip_clip *clip, const char *path)
{
    char *folder = NULL;
    float *values = NULL;
    dip_tokenizer *tokenizer = NULL;
    dip_status status;
    DIP_TRY_GOTO(dip_folder_find(&folder, path));
    DIP_TRY_GOTO(dip_folder_read(clip, &values, folder, false));
    DIP_TRY_GOTO(dip_folder_tokenizer(&tokenizer, clip, folder));
    cJSON_AddStringToObject(report, "folder", folder);
    cJSON_AddNumberToObject(report, "logit_scale",
                            exp(values[clip->table.params[clip->logit_scale].offset]));
    cJSON_AddStringToObject(report, "tokenizer", dip_tokenizer_model_type(tokenizer));
fail:
    dip_tokenizer_close(tokenizer);
    free(values);
    free(folder);
    return status;
}

dip_status dip_inspect_model(cJSON *report, const dip_inspect_flags *flags)
{
    dip_clip clip = {0};
    dip_status status;
    if (dip_path_is_dir(flags->model)) {
        DIP_TRY_GOTO(read_folder(report, &clip, flags->model));
    } else {
        dip_model_config config;
        DIP_TRY_GOTO(dip_model_config_open(&config, flags->model));
        DIP_TRY_GOTO(dip_clip_init(&clip, &config));
    }
    DIP_TRY_GOTO(add_config(report, &clip.config));
    add_counts(report, &clip);
    DIP_TRY_GOTO(add_memory(report, &clip, flags));
    if (flags->parameters) add_parameters(report, &clip.table);
fail:
    dip_clip_free(&clip);
    return status;
}

dip_status dip_inspect_builtin(cJSON *report)
{
    size_t n;
    const char *const *names = dip_model_names(&n);
    cJSON *models = cJSON_AddObjectToObject(report, "models");
    for (size_t i = 0; i < n; i++) {
        dip_model_config config;
        dip_clip clip;
        DIP_TRY(dip_model_config_named(&config, names[i]));
        DIP_TRY(dip_clip_init(&clip, &config));
        cJSON *row = cJSON_AddObjectToObject(models, names[i]);
        cJSON_AddNumberToObject(row, "n_parameters", (double)clip.table.n_counted);
        cJSON_AddNumberToObject(row, "image_size", config.vision.image_size);
        cJSON_AddNumberToObject(row, "patch_size", config.vision.patch_size);
        cJSON_AddNumberToObject(row, "embed_dim", config.embed_dim);
        dip_clip_free(&clip);
    }
    return DIP_OK;
}

/* ---- checkpoint ------------------------------------------------------------------------ */

static const char *dtype_name(dip_tensor_dtype dtype)
{
    static const char *const names[] = {
        [DIP_ST_F32] = "F32", [DIP_ST_BF16] = "BF16",  [DIP_ST_F16] = "F16",
        [DIP_ST_F64] = "F64", [DIP_ST_I64] = "I64",    [DIP_ST_I32] = "I32",
        [DIP_ST_U8] = "U8",   [DIP_ST_OTHER] = "other"};
    return (unsigned)dtype < sizeof names / sizeof *names ? names[dtype] : "other";
}

static dip_status add_tensors(cJSON *files, const char *folder, const char *name, bool all)
{
    dip_safetensors *file = NULL;
    char *path = dip_path_join(folder, name);
    if (!path) return dip_fail(DIP_NOMEM, "no memory for a path in %s", folder);
    dip_status status = dip_safetensors_open(&file, path);
    free(path);
    if (status != DIP_OK) return status;
    size_t n, n_bytes = 0;
    const dip_tensor *tensors = dip_safetensors_tensors(file, &n);
    for (size_t i = 0; i < n; i++) n_bytes += tensors[i].n_bytes;
    cJSON *row = cJSON_AddObjectToObject(files, name);
    cJSON_AddNumberToObject(row, "n_tensors", (double)n);
    add_bytes(row, "data_bytes", n_bytes);
    cJSON *list = all ? cJSON_AddObjectToObject(row, "tensors") : NULL;
    for (size_t i = 0; list && i < n; i++) {
        cJSON *tensor = cJSON_AddObjectToObject(list, tensors[i].name);
        cJSON_AddStringToObject(tensor, "dtype", dtype_name(tensors[i].dtype));
        cJSON_AddItemToObject(tensor, "shape", shape_to_json(tensors[i].shape, tensors[i].n_dims));
    }
    dip_safetensors_close(file);
    return DIP_OK;
}

static int is_tensor_file(const struct dirent *entry)
{
    size_t n = strlen(entry->d_name);
    return n > 12 && strcmp(entry->d_name + n - 12, ".safetensors") == 0;
}

static dip_status add_files(cJSON *report, const char *folder, bool all)
{
    struct dirent **entries = NULL;
    int n = scandir(folder, &entries, is_tensor_file, alphasort);
    if (n < 0) return dip_fail(DIP_IO, "cannot list %s: %s", folder, strerror(errno));
    cJSON *files = cJSON_AddObjectToObject(report, "files");
    dip_status status = DIP_OK;
    for (int i = 0; i < n; i++) {
        if (status == DIP_OK) status = add_tensors(files, folder, entries[i]->d_name, all);
        free(entries[i]);
    }
    free(entries);
    return status;
}

dip_status dip_inspect_checkpoint(cJSON *report, const dip_inspect_flags *flags)
{
    char *folder = NULL, *path = NULL;
    cJSON *trainer = NULL;
    dip_model_config config;
    dip_status status;
    DIP_TRY_GOTO(dip_folder_find(&folder, flags->checkpoint));
    cJSON_AddStringToObject(report, "folder", folder);
    path = dip_path_join(folder, DIP_CONFIG_FILE);
    if (!path) goto nomem;
    DIP_TRY_GOTO(dip_model_config_open(&config, path));
    free(path);
    path = dip_path_join(folder, TRAINER_FILE);
    if (!path) goto nomem;
    if (dip_path_exists(path)) {
        DIP_TRY_GOTO(dip_json_read(&trainer, path));
        cJSON_AddItemToObject(report, "trainer", trainer);
    }
    DIP_TRY_GOTO(add_config(report, &config));
    status = add_files(report, folder, flags->parameters);
    goto fail;
nomem:
    status = dip_fail(DIP_NOMEM, "no memory for a path in %s", folder);
fail:
    free(path);
    free(folder);
    return status;
}
