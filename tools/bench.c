/* diptych bench: how fast this machine trains, loads and multiplies. */
#include "tools/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "tools/command.h"

double dip_bench_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double dip_bench_median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, ascending);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

double dip_bench_peak_bytes(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss * 1024;
}

dip_status dip_bench_report(cJSON *figures, bool json)
{
    if (!figures) return dip_fail(DIP_NOMEM, "no memory for the figures");
    const cJSON *item;
    char *text = NULL;
    dip_status status = json ? dip_json_print(&text, figures, false) : DIP_OK;
    if (text) printf("%s\n", text);
    if (!json) {
        cJSON_ArrayForEach(item, figures)
        {
            if (cJSON_IsString(item))
                printf("%-24s %s\n", item->string, item->valuestring);
            else if (cJSON_IsBool(item))
                printf("%-24s %s\n", item->string, cJSON_IsTrue(item) ? "yes" : "no");
            else
                printf("%-24s %.6g\n", item->string, item->valuedouble);
        }
    }
    free(text);
    cJSON_Delete(figures);
    return status;
}

/* ---- the command ------------------------------------------------------------------------- */

static void help(void)
{
    printf("\nOPTIONS OF bench train\n");
    dip_config_print_help(&dip_bench_train_table, stdout);
    printf("\nOPTIONS OF bench data\n");
    dip_config_print_help(&dip_bench_data_table, stdout);
}

static dip_status run(int argc, char **argv)
{
    if (argc > 0 && strcmp(argv[0], "train") == 0) return dip_bench_train(argc - 1, argv + 1);
    if (argc > 0 && strcmp(argv[0], "data") == 0) return dip_bench_data(argc - 1, argv + 1);
    return dip_fail(DIP_CONFIG, "%s%s%s; known: train, data",
                    argc > 0 ? "'" : "what to measure is missing", argc > 0 ? argv[0] : "",
                    argc > 0 ? "' is nothing bench can measure" : "");
}

const dip_command dip_command_bench = {
    .name = "bench",
    .summary = "measure training steps and data loading on this machine",
    .usage =
        "diptych bench train --config tiny|small|ViT-B-32|... --batch N --precision bf16|fp8|fp32 "
        "[--json]\n"
        "diptych bench data SHARDS [--size PIXELS] [--workers N] [--peer COMMAND] [--json]",
    .description =
        "bench train runs whole training steps on random pairs: pairs a second, floating point "
        "operations a second of the model as open_clip counts it (three times forward), the share "
        "of the rate a large matrix product reaches in the same run, memory, and milliseconds by "
        "part.\n\n"
        "bench data turns shards into batches as training does, in rounds with what limits it: "
        "libjpeg-turbo alone on one core and on all, each stage of the path, the whole path with "
        "1, 2, 4, ... workers, and another program's loader. Figures are medians of the rounds; "
        "shares and ratios are medians of each round's own.",
    .options = NULL,
    .run = run,
    .help = help,
};
