/* diptych bench: how fast this machine trains, loads and multiplies. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "core/json.h"
#include "core/rng.h"
#include "core/threads.h"
#include "data/loader.h"
#include "data/pattern.h"
#include "tools/command.h"
#include "train/step.h"

static double now_seconds(void)
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

static double median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, ascending);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static double peak_rss_bytes(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss * 1024;
}

/* Print the figures: one JSON object, or a line a figure. Frees them. */
static dip_status report(cJSON *figures, bool json)
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
            else
                printf("%-24s %.6g\n", item->string, item->valuedouble);
        }
    }
    free(text);
    cJSON_Delete(figures);
    return status;
}

/* ---- matmul: the rate everything else is a share of -------------------------------------- */

enum { RATE_ROWS = 4096, RATE_WIDTH = 1024, RATE_TRIES = 5 };

/* Best FLOP/s of a product big enough to be limited by nothing but arithmetic. */
static dip_status matmul_rate(double *flops_per_second, dip_exec *exec)
{
    const dip_matmul_shape shape = {RATE_ROWS, RATE_WIDTH, RATE_WIDTH, DIP_OUT_IN};
    const size_t t = dip_dtype_bytes(exec->ops->dtype);
    const int64_t n = (int64_t)RATE_ROWS * RATE_WIDTH, w = (int64_t)RATE_WIDTH * RATE_WIDTH;
    float *source = malloc((size_t)n * sizeof *source);
    void *x = malloc((size_t)n * t), *weight = malloc((size_t)w * t), *out = malloc((size_t)n * t);
    dip_status status;
    dip_rng rng;
    if (!source || !x || !weight || !out) {
        status = dip_fail(DIP_NOMEM, "no memory for a product of %d x %d", RATE_ROWS, RATE_WIDTH);
        goto fail;
    }
    dip_rng_init(&rng, 0, dip_rng_stream(DIP_RNG_TEST, 0, 0));
    for (int64_t i = 0; i < n; i++) source[i] = (float)dip_rng_range(&rng, -1, 1);
    DIP_TRY_GOTO(dip_exec_reserve(exec, exec->ops->matmul_workspace(exec, shape)));
    DIP_TRY_GOTO(exec->ops->cast_from_float(exec, x, source, n));
    DIP_TRY_GOTO(exec->ops->cast_from_float(exec, weight, source, w));
    double best = INFINITY;
    for (int i = 0; i < RATE_TRIES; i++) {
        const double start = now_seconds();
        DIP_TRY_GOTO(
            exec->ops->matmul_forward(exec, out, NULL, x, weight, NULL, NULL, DIP_ACT_NONE, shape));
        best = fmin(best, now_seconds() - start);
    }
    *flops_per_second = 2.0 * RATE_ROWS * RATE_WIDTH * RATE_WIDTH / best;
fail:
    free(source);
    free(x);
    free(weight);
    free(out);
    return status;
}

/* ---- bench train ------------------------------------------------------------------------- */

typedef struct train_bench {
    char *model, *precision, *device, *text_lengths;
    int64_t batch, accum_freq, steps, warmup_steps, threads;
    bool json;
} train_bench;

#define AT(field) offsetof(train_bench, field)
static const dip_option train_rows[] = {
    {"config", DIP_OPT_STRING, AT(model), "tiny", 0, 0, NULL, false, "NAME|FILE",
     "A built-in model or a model_cfg JSON file."},
    {"batch", DIP_OPT_INT, AT(batch), "256", 1, 1 << 20, NULL, false, "N",
     "Pairs computed at once."},
    {"accum-freq", DIP_OPT_INT, AT(accum_freq), "1", 1, 1 << 12, NULL, false, "N",
     "Parts of the batch of a step."},
    {"precision", DIP_OPT_CHOICE, AT(precision), "bf16", 0, 0, "bf16|fp32", false, "KIND",
     "Activation type."},
    {"text-lengths", DIP_OPT_STRING, AT(text_lengths), "full", 0, 0, NULL, false, "full|N",
     "full: every caption fills the context. N: lengths spread evenly over N/2 .. 3N/2 tokens."},
    {"steps", DIP_OPT_INT, AT(steps), "10", 1, 1 << 20, NULL, false, "N", "Steps timed (median)."},
    {"warmup-steps", DIP_OPT_INT, AT(warmup_steps), "2", 1, 1 << 10, NULL, false, "N",
     "Steps before timing."},
    {"device", DIP_OPT_CHOICE, AT(device), "auto", 0, 0, "auto|cpu|reference", false, "NAME",
     "Backend."},
    {"threads", DIP_OPT_INT, AT(threads), "0", 0, 4096, NULL, false, "N", "0: one a core."},
    {"json", DIP_OPT_BOOL, AT(json), "false", 0, 0, NULL, false, NULL,
     "One JSON object on stdout."},
};
#undef AT
static const dip_option_table train_table = {train_rows, sizeof train_rows / sizeof train_rows[0],
                                             false};

/* Random pixels and captions; *mean_length receives the tokens a caption has on average. */
static dip_status random_batch(dip_batch *batch, double *mean_length,
                               const dip_model_config *config, const train_bench *o)
{
    const int64_t n = o->batch * o->accum_freq, side = config->vision.image_size;
    const int context = config->text.context_length, eos = config->text.vocab_size - 1;
    char *end;
    const long mean = strcmp(o->text_lengths, "full") == 0 ? 0 : strtol(o->text_lengths, &end, 10);
    if (strcmp(o->text_lengths, "full") != 0 && (*end || mean < 2 || mean > context))
        return dip_fail(DIP_CONFIG,
                        "--text-lengths '%s' must be full or a number from 2 to the "
                        "context length %d",
                        o->text_lengths, context);
    if (n > INT32_MAX / context)
        return dip_fail(DIP_CONFIG,
                        "--batch %lld x --accum-freq %lld: captions of %d tokens are too "
                        "many",
                        (long long)o->batch, (long long)o->accum_freq, context);
    uint8_t *images = malloc((size_t)(n * side * side * 3));
    int32_t *tokens = malloc((size_t)(n * context) * sizeof *tokens);
    int32_t *offsets = malloc((size_t)(n + 1) * sizeof *offsets);
    int32_t *group = malloc((size_t)n * sizeof *group);
    *batch =
        (dip_batch){.n = n, .images = images, .tokens = tokens, .offsets = offsets, .group = group};
    if (!images || !tokens || !offsets || !group)
        return dip_fail(DIP_NOMEM, "no memory for a batch of %lld pairs", (long long)n);
    dip_rng rng;
    dip_rng_init(&rng, 1, dip_rng_stream(DIP_RNG_TEST, 0, 1));
    for (int64_t i = 0; i < n * side * side * 3; i++) images[i] = (uint8_t)dip_rng_u32(&rng);
    offsets[0] = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t length = context;
        if (mean) length = mean / 2 + (int64_t)dip_rng_below(&rng, (uint64_t)mean + 1);
        if (length > context) length = context;
        if (length < 1) length = 1;
        for (int64_t j = 0; j < length; j++)
            tokens[offsets[i] + j] =
                j == length - 1 ? eos : (int32_t)dip_rng_below(&rng, (uint64_t)eos);
        offsets[i + 1] = offsets[i] + (int32_t)length;
        group[i] = (int32_t)i;
    }
    *mean_length = (double)offsets[n] / (double)n;
    return DIP_OK;
}

static void free_batch(dip_batch *batch)
{
    free((void *)batch->images);
    free((void *)batch->tokens);
    free((void *)batch->offsets);
    free((void *)batch->group);
}

static dip_status time_steps(cJSON **out, dip_step *step, const dip_batch *batch,
                             const train_bench *o, double mean_length)
{
    enum { N_PARTS = 5 };
    static const char *const parts[N_PARTS] = {"image_forward_ms", "text_forward_ms", "loss_ms",
                                               "backward_ms", "optimizer_ms"};
    const size_t n = (size_t)o->steps;
    double *times = malloc((N_PARTS + 1) * n * sizeof *times);
    dip_step_result result;
    dip_status status;
    double rate = 0;
    if (!times) return dip_fail(DIP_NOMEM, "no memory for %zu timings", n);
    for (int64_t i = -o->warmup_steps; i < o->steps; i++) {
        const double start = now_seconds();
        DIP_TRY_GOTO(dip_step_run(step, &result, batch, 1e-4));
        if (i < 0) continue;
        const double part[N_PARTS] = {result.times.image_ms, result.times.text_ms,
                                      result.times.loss_ms, result.times.backward_ms,
                                      result.times.optimizer_ms};
        times[i] = (now_seconds() - start) * 1e3;
        for (int p = 0; p < N_PARTS; p++) times[(size_t)(p + 1) * n + (size_t)i] = part[p];
    }
    const double peak = peak_rss_bytes();
    DIP_TRY_GOTO(matmul_rate(&rate, &step->exec));
    const double ms = median(times, n), pairs = (double)batch->n;
    const double flops = dip_step_flops(step, mean_length);
    const double full = dip_step_flops(step, step->clip->config.text.context_length);
    cJSON *f = *out = cJSON_CreateObject();
    cJSON_AddStringToObject(f, "config", step->clip->config.name);
    cJSON_AddStringToObject(f, "precision", o->precision);
    cJSON_AddStringToObject(f, "backend", step->exec.ops->backend);
    cJSON_AddStringToObject(f, "isa", dip_cpu_isa_name());
    cJSON_AddNumberToObject(f, "threads", step->exec.n_threads);
    cJSON_AddNumberToObject(f, "batch", pairs);
    cJSON_AddNumberToObject(f, "mean_text_length", mean_length);
    cJSON_AddNumberToObject(f, "ms_step", ms);
    cJSON_AddNumberToObject(f, "pairs_s", pairs / ms * 1e3);
    cJSON_AddNumberToObject(f, "model_gflops_s", flops / ms * 1e-6);
    cJSON_AddNumberToObject(f, "model_gflops_s_padded", full / ms * 1e-6);
    cJSON_AddNumberToObject(f, "matmul_gflops_s", rate * 1e-9);
    cJSON_AddNumberToObject(f, "share_of_matmul_rate", flops / ms * 1e3 / rate);
    for (int p = 0; p < N_PARTS; p++)
        cJSON_AddNumberToObject(f, parts[p], median(times + (size_t)(p + 1) * n, n));
    cJSON_AddNumberToObject(f, "plan_bytes", (double)dip_plan_total_bytes(step->plan));
    cJSON_AddNumberToObject(f, "peak_rss_bytes", peak);
    cJSON_AddNumberToObject(f, "loss", result.loss);
fail:
    free(times);
    return status;
}

static dip_status bench_train(int argc, char **argv)
{
    train_bench o = {0};
    dip_model_config config;
    dip_clip clip = {0};
    dip_step step = {0};
    dip_batch batch = {0};
    dip_status status;
    double mean_length = 0;
    cJSON *figures = NULL;
    DIP_TRY_GOTO(dip_config_defaults(&train_table, &o));
    DIP_TRY_GOTO(dip_config_parse(&train_table, &o, argc, argv));
    DIP_TRY_GOTO(dip_model_config_open(&config, o.model));
    DIP_TRY_GOTO(random_batch(&batch, &mean_length, &config, &o));
    DIP_TRY_GOTO(dip_clip_init(&clip, &config));
    const dip_step_options options = {
        .device = o.device,
        .dtype = strcmp(o.precision, "bf16") == 0 ? DIP_BF16 : DIP_F32,
        .n_threads = (int)o.threads,
        .micro_batch = o.batch,
        .n_micro = o.accum_freq,
        .loss = dip_loss_find("infonce"),
        .optimizer = {.beta1 = 0.9, .beta2 = 0.98, .eps = 1e-6, .weight_decay = 0.2},
    };
    DIP_TRY_GOTO(dip_step_open(&step, &clip, &options));
    DIP_TRY_GOTO(dip_step_init_weights(&step, 0));
    DIP_TRY_GOTO(time_steps(&figures, &step, &batch, &o, mean_length));
    status = report(figures, o.json);
fail:
    dip_step_close(&step);
    dip_clip_free(&clip);
    free_batch(&batch);
    dip_config_free(&train_table, &o);
    return status;
}

/* ---- bench data -------------------------------------------------------------------------- */

typedef struct data_bench {
    char *shards;
    int64_t size, workers, repeat, max_images;
    bool json;
} data_bench;

#define AT(field) offsetof(data_bench, field)
static const dip_option data_rows[] = {
    {"shards", DIP_OPT_STRING, AT(shards), NULL, 0, 0, NULL, true, "PATTERN",
     "Shards to read; may be given as the first word."},
    {"size", DIP_OPT_INT, AT(size), "224", 1, 4096, NULL, false, "PIXELS", "Side of the output."},
    {"workers", DIP_OPT_INT, AT(workers), "1", 1, 1024, NULL, false, "N", "Decoding threads."},
    {"repeat", DIP_OPT_INT, AT(repeat), "3", 1, 1000, NULL, false, "N",
     "Passes over the data; the best counts, as in the peer."},
    {"max-images", DIP_OPT_INT, AT(max_images), "0", 0, 1e15, NULL, false, "N",
     "Stop a pass after about N images. 0: all."},
    {"json", DIP_OPT_BOOL, AT(json), "false", 0, 0, NULL, false, NULL,
     "One JSON object on stdout."},
};
#undef AT
static const dip_option_table data_table = {data_rows, sizeof data_rows / sizeof data_rows[0],
                                            false};

static dip_status time_loading(cJSON **out, const data_bench *o, const dip_samples *samples,
                               dip_faults *faults)
{
    const dip_loader_options options = {
        .samples = samples,
        .faults = faults,
        .batch_size = 64,
        .image_size = (int)o->size,
        .n_workers = (int)o->workers,
        .n_prefetch = 4,
        .shuffle = 1,
        .max_pixels = 25000000,
        .max_bad_fraction = 1,
        .random_crop = 1,
        .crop_scale = {0.9, 1.0},
        .crop_ratio = {0.75, 4.0 / 3.0},
        .filter = DIP_BICUBIC,
    };
    dip_loader *loader;
    dip_batch batch;
    dip_status status = DIP_OK;
    double best = 0;
    int64_t n = 0;
    DIP_TRY(dip_loader_open(&loader, &options));
    for (int64_t pass = 0; pass < o->repeat; pass++) {
        const double start = now_seconds();
        n = 0;
        DIP_TRY_GOTO(dip_loader_start(loader, pass, 0));
        while ((status = dip_loader_next(loader, &batch)) == DIP_OK) {
            n += batch.n;
            if (o->max_images && n >= o->max_images) break;
        }
        if (status != DIP_OK && status != DIP_END) goto fail;
        best = fmax(best, (double)n / (now_seconds() - start));
    }
    cJSON *f = *out = cJSON_CreateObject();
    cJSON_AddNumberToObject(f, "size", (double)o->size);
    cJSON_AddNumberToObject(f, "workers", (double)o->workers);
    cJSON_AddNumberToObject(f, "images", (double)n);
    cJSON_AddNumberToObject(f, "images_s", best);
    cJSON_AddNumberToObject(f, "images_s_core",
                            best / fmin((double)o->workers, (double)dip_core_count()));
    cJSON_AddNumberToObject(f, "dropped", (double)dip_faults_total(faults));
    status = DIP_OK;
fail:
    dip_loader_close(loader);
    return status;
}

static dip_status bench_data(int argc, char **argv)
{
    data_bench o = {0};
    dip_string_list shards = {0};
    dip_samples *samples = NULL;
    dip_faults *faults = NULL;
    cJSON *figures = NULL;
    dip_status status;
    /* `bench data SHARDS ...` is `bench data --shards SHARDS ...` */
    char *flag = "--shards", **words = malloc(((size_t)argc + 1) * sizeof *words);
    if (!words) return dip_fail(DIP_NOMEM, "no memory for %d words", argc);
    const int bare = argc > 0 && argv[0][0] != '-';
    if (bare) words[0] = flag;
    for (int i = 0; i < argc; i++) words[i + bare] = argv[i];
    DIP_TRY_GOTO(dip_config_defaults(&data_table, &o));
    DIP_TRY_GOTO(dip_config_parse(&data_table, &o, argc + bare, words));
    DIP_TRY_GOTO(dip_pattern_expand_files(&shards, o.shards));
    DIP_TRY_GOTO(dip_faults_open(&faults));
    DIP_TRY_GOTO(dip_samples_open(&samples, &shards, DIP_NEEDS_IMAGE, NULL, faults));
    DIP_TRY_GOTO(time_loading(&figures, &o, samples, faults));
    dip_faults_print(faults, stderr);
    status = report(figures, o.json);
fail:
    dip_samples_close(samples);
    dip_faults_close(faults);
    dip_string_list_free(&shards);
    dip_config_free(&data_table, &o);
    free(words);
    return status;
}

/* ---- the command ------------------------------------------------------------------------- */

static void help(void)
{
    printf("\nOPTIONS OF bench train\n");
    dip_config_print_help(&train_table, stdout);
    printf("\nOPTIONS OF bench data\n");
    dip_config_print_help(&data_table, stdout);
}

static dip_status run(int argc, char **argv)
{
    if (argc > 0 && strcmp(argv[0], "train") == 0) return bench_train(argc - 1, argv + 1);
    if (argc > 0 && strcmp(argv[0], "data") == 0) return bench_data(argc - 1, argv + 1);
    return dip_fail(DIP_CONFIG, "%s%s%s; known: train, data",
                    argc > 0 ? "'" : "what to measure is missing", argc > 0 ? argv[0] : "",
                    argc > 0 ? "' is nothing bench can measure" : "");
}

const dip_command dip_command_bench = {
    .name = "bench",
    .summary = "measure training steps and data loading on this machine",
    .usage = "diptych bench train --config tiny|small|ViT-B-32|... --batch N --precision bf16|fp32 "
             "[--json]\n"
             "diptych bench data SHARDS [--size PIXELS] [--workers N] [--json]",
    .description =
        "bench train runs whole training steps on random pairs: pairs a second, floating point "
        "operations a second of the model as open_clip counts it (three times forward), the share "
        "of "
        "the rate a large matrix product reaches in the same run, memory, and milliseconds by "
        "part.\n\n"
        "bench data reads shards, decodes, crops (0.9..1 of the area) and resizes, as training "
        "does: "
        "images a second in all and a core.",
    .options = NULL,
    .run = run,
    .help = help,
};
