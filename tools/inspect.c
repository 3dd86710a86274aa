#include "tools/inspect.h"

#include <stddef.h>
#include <stdio.h>

#include "tools/command.h"
#include "tools/encoding.h"

static const dip_option options[] = {
    {"model", DIP_OPT_STRING, offsetof(dip_inspect_flags, model), NULL, 0, 0, NULL, false,
     "FOLDER|NAME|FILE", "A checkpoint or exported model, a built-in model, or a JSON file."},
    {"checkpoint", DIP_OPT_STRING, offsetof(dip_inspect_flags, checkpoint), NULL, 0, 0, NULL, false,
     "FOLDER", "A training checkpoint or a run folder."},
    {"shards", DIP_OPT_STRING, offsetof(dip_inspect_flags, shards), NULL, 0, 0, NULL, false,
     "PATTERN", "Shards: samples, images, captions, labels, and what cannot be used."},
    {"parameters", DIP_OPT_BOOL, offsetof(dip_inspect_flags, parameters), "false", 0, 0, NULL,
     false, NULL, "With --model or --checkpoint: list every parameter or tensor."},
    {"batch-size", DIP_OPT_INT, offsetof(dip_inspect_flags, batch_size), "64", 1, 1 << 20, NULL,
     false, "N", "With --model: plan memory for so many images and texts at once."},
    {"device", DIP_OPT_STRING, offsetof(dip_inspect_flags, device), "auto", 0, 0, NULL, false,
     "NAME", "With --model: plan memory for this device (auto, cpu, cuda, cuda:N, reference)."},
    {"precision", DIP_OPT_CHOICE, offsetof(dip_inspect_flags, precision), "auto", 0, 0,
     "auto|bf16|fp32", false, NULL, "With --model: plan memory for this number format."},
    {"decode", DIP_OPT_BOOL, offsetof(dip_inspect_flags, decode), "true", 0, 0, NULL, false, NULL,
     "With --shards: decode every image. --no-decode looks at the first bytes only."},
    {"first", DIP_OPT_INT, offsetof(dip_inspect_flags, first), "5", 0, 1000, NULL, false, "N",
     "With --shards: show the first N samples."},
    {"verify", DIP_OPT_BOOL, offsetof(dip_inspect_flags, verify), "false", 0, 0, NULL, false, NULL,
     "With --shards: also compare the tar headers and all bytes with the index of each shard that "
     "has one. Exit status 2 when anything is wrong."},
    {"faults", DIP_OPT_STRING, offsetof(dip_inspect_flags, faults), NULL, 0, 0, NULL, false, "FILE",
     "With --shards: write every fault as a line of JSON. Standard error names the first ones."},
    {"html", DIP_OPT_STRING, offsetof(dip_inspect_flags, html), NULL, 0, 0, NULL, false, "FILE",
     "With --shards: write a page with pictures, captions, figures and faults."},
    {"html-samples", DIP_OPT_INT, offsetof(dip_inspect_flags, html_samples), "200", 1, 10000, NULL,
     false, "N", "With --html: show N samples, spread evenly over all."},
    {"json-text-key", DIP_OPT_STRING, offsetof(dip_inspect_flags, json_text_key), NULL, 0, 0, NULL,
     false, "KEY", "With --shards: take captions from this key of the .json members."},
    {"json", DIP_OPT_BOOL, offsetof(dip_inspect_flags, json), "false", 0, 0, NULL, false, NULL,
     "Print exactly one JSON object on stdout."},
};
static const dip_option_table table = {options, sizeof options / sizeof *options, false};

static dip_status fill(cJSON *report, const dip_inspect_flags *flags)
{
    int n_sources = (flags->model != NULL) + (flags->checkpoint != NULL) + (flags->shards != NULL);
    if (n_sources > 1)
        return dip_fail(DIP_CONFIG,
                        "give one of --model, --checkpoint and --shards, not %d of them",
                        n_sources);
    if (!flags->shards && (flags->verify || flags->html || flags->faults))
        return dip_fail(DIP_CONFIG, "--%s is about shards: give them with --shards",
                        flags->verify ? "verify"
                        : flags->html ? "html"
                                      : "faults");
    if (flags->model) return dip_inspect_model(report, flags);
    if (flags->checkpoint) return dip_inspect_checkpoint(report, flags);
    if (flags->shards) return dip_inspect_shards(report, flags);
    return dip_inspect_builtin(report);
}

/* The report is printed whatever it says; the status says whether all is well. */
static dip_status verdict(const cJSON *report, const dip_inspect_flags *flags)
{
    double n = cJSON_GetNumberValue(cJSON_GetObjectItem(report, "dropped"));
    if (n == 0) return DIP_OK;
    return dip_fail(DIP_FORMAT, "%.0f fault%s in %s", n, n == 1 ? "" : "s", flags->shards);
}

static dip_status run(int argc, char **argv)
{
    dip_inspect_flags flags = {0};
    cJSON *report = cJSON_CreateObject();
    dip_status status;
    DIP_TRY_GOTO(dip_config_defaults(&table, &flags));
    DIP_TRY_GOTO(dip_config_parse(&table, &flags, argc, argv));
    DIP_TRY_GOTO(fill(report, &flags));
    DIP_TRY_GOTO(dip_report_print(report, flags.json));
    status = flags.verify ? verdict(report, &flags) : DIP_OK;
fail:
    cJSON_Delete(report);
    dip_config_free(&table, &flags);
    return status;
}

const dip_command dip_command_inspect = {
    .name = "inspect",
    .summary = "show what a model, a checkpoint or shards are made of",
    .usage = "diptych inspect [--model FOLDER|NAME|FILE | --checkpoint FOLDER | --shards PATTERN]\n"
             "                [--json]",
    .description =
        "--model shows the configuration, the parameters (counted as open_clip counts\n"
        "them), the operations of one image and one text, and the memory that encoding\n"
        "a batch takes. The weights of a folder are read and checked.\n"
        "\n"
        "--checkpoint shows where a run stands and the tensors of its files.\n"
        "\n"
        "--shards reads every sample: formats and sizes of the images, number and\n"
        "length of the captions, labels, and n_pairs, the samples with a good image and\n"
        "a caption. What cannot be used is named on stderr and counted as \"dropped\".\n"
        "With --verify all bytes are read and compared with the index that lies beside a\n"
        "shard, faults are counted by kind, and any fault gives exit status 2. A file\n"
        "that is no tar file is a fault like others, unless there is nothing else.\n"
        "--html writes a page for the eye that needs no other file and asks for none.\n"
        "\n"
        "Without any of them the built-in models are listed.",
    .options = &table,
    .run = run,
};
