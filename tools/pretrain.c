/* diptych pretrain: train both towers on shards of image-caption pairs. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "tools/command.h"
#include "train/options.h"
#include "train/trainer.h"

static volatile sig_atomic_t stop_requested;

/* The first signal asks for a checkpoint; the second one ends the program as usual. */
static void request_stop(int signal_number)
{
    stop_requested = 1;
    signal(signal_number, SIG_DFL);
}

/* Refused words are one half of what may be wrong; the files and the model the good words name are
 * the other. Say both at once. */
static dip_status complete_refusal(const dip_train_options *options)
{
    char *words = strdup(dip_error());
    if (!words) return DIP_CONFIG;
    if (dip_train_check(options) == DIP_OK)
        dip_fail(DIP_CONFIG, "%s", words);
    else
        dip_fail_prefix(DIP_CONFIG, "%s\n", words);
    free(words);
    return DIP_CONFIG;
}

static dip_status run(int argc, char **argv)
{
    dip_train_options options = {0};
    cJSON *summary = NULL;
    dip_status status;
    DIP_TRY_GOTO(dip_config_defaults(&dip_train_option_table, &options));
    status = dip_config_parse(&dip_train_option_table, &options, argc, argv);
    if (status == DIP_CONFIG) status = complete_refusal(&options);
    if (status != DIP_OK) goto fail;
    signal(SIGINT, request_stop);
    signal(SIGTERM, request_stop);
    status = dip_train_run(&options, &stop_requested, &summary);
    if (options.json && summary) {
        char *text = NULL;
        const dip_status printed = dip_json_print(&text, summary, false);
        if (printed == DIP_OK)
            printf("%s\n", text);
        else if (status == DIP_OK)
            status = printed;
        free(text);
    }
fail:
    cJSON_Delete(summary);
    dip_config_free(&dip_train_option_table, &options);
    return status;
}

const dip_command dip_command_pretrain = {
    .name = "pretrain",
    .summary = "train the two towers on shards of image-caption pairs",
    .usage = "diptych pretrain --config RUN.json [OPTIONS]\n"
             "diptych pretrain --train-data 'shards/{00000..00059}.tar' --tokenizer spm.model "
             "--model NAME [OPTIONS]",
    .description =
        "Trains a ViT and a text Transformer jointly with the symmetric in-batch InfoNCE. The run "
        "lives in LOGS/NAME/: out.log, params.txt, checkpoints/epoch_N/, checkpoints/epoch_latest "
        "and checkpoints/results.jsonl.\n\n"
        "Every option is also a JSON key of the --config file ('-' and '_' are the same); options "
        "on "
        "the command line win. Mistakes are refused before any work, all at once.\n\n"
        "The same seed gives the same weights, bit for bit, for any number of workers and threads. "
        "Interrupt (Ctrl-C) or terminate the program and it saves a checkpoint and leaves; "
        "--resume "
        "latest goes on in the middle of the epoch. A second signal ends it at once.\n\n"
        "A checkpoint folder is what open_clip loads (open_clip_config.json, "
        "open_clip_model.safetensors) with the tokenizer, the optimizer's state and the loader's "
        "position beside it.",
    .options = &dip_train_option_table,
    .run = run,
};
