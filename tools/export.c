#include <stdlib.h>
#include <string.h>

#include "model/folder.h"
#include "tools/command.h"
#include "tools/encoding.h"

typedef struct export_flags {
    char *model, *output;
    bool use_ema, overwrite, json;
} export_flags;

static const dip_option options[] = {
    {"model", DIP_OPT_STRING, offsetof(export_flags, model), NULL, 0, 0, NULL, true, "FOLDER",
     "A checkpoint or run folder (its newest checkpoint is taken)."},
    {"output", DIP_OPT_STRING, offsetof(export_flags, output), NULL, 0, 0, NULL, true, "FOLDER",
     "The folder to make."},
    {"use-ema", DIP_OPT_BOOL, offsetof(export_flags, use_ema), "false", 0, 0, NULL, false, NULL,
     "Export the averaged weights; refused if the checkpoint has none."},
    {"overwrite", DIP_OPT_BOOL, offsetof(export_flags, overwrite), "false", 0, 0, NULL, false, NULL,
     "Replace an exported model of that name."},
    {"json", DIP_OPT_BOOL, offsetof(export_flags, json), "false", 0, 0, NULL, false, NULL,
     "Print exactly one JSON object on stdout."},
};
static const dip_option_table table = {options, sizeof options / sizeof *options, false};

/* Exporting onto itself would delete what is being read. */
static dip_status check_apart(const char *folder, const char *output)
{
    char *from = realpath(folder, NULL), *to = realpath(output, NULL);
    dip_status status = DIP_OK;
    if (from && to && strcmp(from, to) == 0)
        status = dip_fail(DIP_CONFIG, "--output %s is the model itself", output);
    free(from);
    free(to);
    return status;
}

static dip_status export_model(const export_flags *flags)
{
    char *folder = NULL;
    dip_clip clip = {0};
    float *values = NULL;
    dip_tokenizer *tokenizer = NULL;
    cJSON *report = NULL;
    dip_status status;
    DIP_TRY_GOTO(dip_folder_find(&folder, flags->model));
    DIP_TRY_GOTO(check_apart(folder, flags->output));
    DIP_TRY_GOTO(dip_folder_read(&clip, &values, folder, flags->use_ema));
    DIP_TRY_GOTO(dip_folder_tokenizer(&tokenizer, &clip, folder));
    DIP_TRY_GOTO(dip_folder_write(flags->output, &clip, values, tokenizer, flags->overwrite));
    report = cJSON_CreateObject();
    if (report) {
        cJSON_AddStringToObject(report, "model", folder);
        cJSON_AddStringToObject(report, "output", flags->output);
        cJSON_AddBoolToObject(report, "ema", flags->use_ema);
        cJSON_AddNumberToObject(report, "n_parameters", (double)clip.table.n_counted);
        cJSON_AddNumberToObject(report, "n_tensors", clip.table.n_params);
    }
    status = dip_report_print(report, flags->json);
fail:
    cJSON_Delete(report);
    dip_tokenizer_close(tokenizer);
    free(values);
    dip_clip_free(&clip);
    free(folder);
    return status;
}

static dip_status run(int argc, char **argv)
{
    export_flags flags = {0};
    dip_status status;
    DIP_TRY_GOTO(dip_config_defaults(&table, &flags));
    DIP_TRY_GOTO(dip_config_parse(&table, &flags, argc, argv));
    status = export_model(&flags);
fail:
    dip_config_free(&table, &flags);
    return status;
}

const dip_command dip_command_export = {
    .name = "export",
    .summary = "write a checkpoint as a folder that can be given away",
    .usage = "diptych export --model FOLDER --output FOLDER [--use-ema] [--overwrite]",
    .description = "Writes the three files that make a model and nothing of its training:\n"
                   "open_clip_config.json, open_clip_model.safetensors (float32, open_clip's\n"
                   "names) and spiece.model. Everything is read and checked first; the folder\n"
                   "appears complete or not at all. --overwrite replaces only a folder that holds\n"
                   "an exported model, never a training checkpoint.",
    .options = &table,
    .run = run,
};
