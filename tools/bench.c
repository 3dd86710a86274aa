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
#include "train/memory.h"
#include "train/options.h"
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

/* ---- matmul: the rate everything else is a share of -------------------------------------- */

/* A product big enough to be limited by nothing but arithmetic. */
typedef struct rate_job {
    dip_matmul_shape shape;
    int n_tries, n_products; /* products between two looks at the clock */
} rate_job;

static const rate_job on_cpu = {{4096, 1024, 1024, DIP_OUT_IN}, 5, 1};
static const rate_job on_gpu = {{8192, 8192, 8192, DIP_OUT_IN}, 5, 10};

enum { X, WEIGHT, OUT, SOURCE, N_RATE_BUFFERS };

/* Random numbers of T in x and the weight. */
static dip_status fill_operands(dip_exec *exec, void *const *buffers, const int64_t *sizes)
{
    const int64_t n = sizes[X] > sizes[WEIGHT] ? sizes[X] : sizes[WEIGHT];
    float *host = malloc((size_t)n * sizeof *host);
    if (!host) return dip_fail(DIP_NOMEM, "no memory for %lld numbers", (long long)n);
    dip_rng rng;
    dip_rng_init(&rng, 0, dip_rng_stream(DIP_RNG_TEST, 0, 0));
    for (int64_t i = 0; i < n; i++) host[i] = (float)dip_rng_range(&rng, -1, 1);
    dip_status status = exec->device->upload(exec, buffers[SOURCE], host, (size_t)n * sizeof *host);
    free(host);
    DIP_TRY(status);
    DIP_TRY(exec->ops->cast_from_float(exec, buffers[X], buffers[SOURCE], sizes[X]));
    return exec->ops->cast_from_float(exec, buffers[WEIGHT], buffers[SOURCE], sizes[WEIGHT]);
}

/* Best FLOP/s. */
static dip_status time_products(double *flops_per_second, dip_exec *exec, const rate_job *job,
                                void *const *buffers)
{
    const dip_matmul_shape s = job->shape;
    double best = INFINITY;
    for (int i = -1; i < job->n_tries; i++) { /* the first chooses algorithms */
        DIP_TRY(exec->device->synchronize(exec));
        const double start = now_seconds();
        for (int j = 0; j < job->n_products; j++)
            DIP_TRY(exec->ops->matmul_forward(exec, buffers[OUT], NULL, buffers[X], buffers[WEIGHT],
                                              NULL, NULL, DIP_ACT_NONE, s));
        DIP_TRY(exec->device->synchronize(exec));
        if (i >= 0) best = fmin(best, (now_seconds() - start) / job->n_products);
    }
    *flops_per_second = 2.0 * (double)s.n_rows * (double)s.c_in * (double)s.c_out / best;
    return DIP_OK;
}

/* With an executor of its own, so that the job of before has left the memory. */
static dip_status matmul_rate(double *flops_per_second, const char *device_name, dip_dtype dtype,
                              int n_threads)
{
    void *buffers[N_RATE_BUFFERS] = {0};
    dip_exec exec;
    dip_status status;
    DIP_TRY(dip_exec_open(&exec, device_name, dtype, n_threads));
    const dip_device *device = exec.device;
    const rate_job *job = device->is_host ? &on_cpu : &on_gpu;
    const dip_matmul_shape s = job->shape;
    const int64_t sizes[N_RATE_BUFFERS] = {[X] = s.n_rows * s.c_in,
                                           [WEIGHT] = s.c_in * s.c_out,
                                           [OUT] = s.n_rows * s.c_out,
                                           [SOURCE] = s.n_rows > s.c_out ? s.n_rows * s.c_in
                                                                         : s.c_in * s.c_out};
    for (int i = 0; i < N_RATE_BUFFERS; i++) {
        const size_t element = i == SOURCE ? sizeof(float) : dip_dtype_bytes(dtype);
        DIP_TRY_GOTO(device->allocate(device, &buffers[i], (size_t)sizes[i] * element));
    }
    DIP_TRY_GOTO(dip_exec_reserve(&exec, exec.ops->matmul_workspace(&exec, s)));
    DIP_TRY_GOTO(fill_operands(&exec, buffers, sizes));
    DIP_TRY_GOTO(time_products(flops_per_second, &exec, job, buffers));
fail:
    for (int i = 0; i < N_RATE_BUFFERS; i++)
        if (buffers[i]) device->release(device, buffers[i]);
    dip_exec_close(&exec);
    return status;
}

/* ---- bench train ------------------------------------------------------------------------- */

typedef struct train_bench {
    char *model, *precision, *device, *text_lengths, *memory, *recompute;
    int64_t batch, accum_freq, steps, warmup_steps, threads;
    bool pad_captions, all_rows, cuda_graphs, time_parts, json;
} train_bench;

#define AT(field) offsetof(train_bench, field)
static const dip_option train_rows[] = {
    {"config", DIP_OPT_STRING, AT(model), "tiny", 0, 0, NULL, false, "NAME|FILE",
     "A built-in model or a model_cfg JSON file."},
    {"batch", DIP_OPT_INT, AT(batch), "256", 1, 1 << 20, NULL, false, "N",
     "Pairs computed at once."},
    {"accum-freq", DIP_OPT_INT, AT(accum_freq), "1", 1, 1 << 12, NULL, false, "N",
     "Parts of the batch of a step."},
    {"precision", DIP_OPT_CHOICE, AT(precision), "bf16", 0, 0, "bf16|fp8|fp32", false, "KIND",
     "Activation type; fp8 (experimental) is bf16 but for the products of the blocks."},
    {"text-lengths", DIP_OPT_STRING, AT(text_lengths), "full", 0, 0, NULL, false, "full|N",
     "full: every caption fills the context. N: lengths spread evenly over N/2 .. 3N/2 tokens."},
    {"steps", DIP_OPT_INT, AT(steps), "10", 1, 1 << 20, NULL, false, "N", "Steps timed (median)."},
    {"warmup-steps", DIP_OPT_INT, AT(warmup_steps), "2", 1, 1 << 10, NULL, false, "N",
     "Steps before timing; on a GPU never fewer than the four in which algorithms are chosen and "
     "steps recorded."},
    {"device", DIP_OPT_STRING, AT(device), "auto", 0, 0, NULL, false, "NAME",
     "cpu, cuda (the first GPU), cuda:N, reference, or auto, a GPU if there is one."},
    {"threads", DIP_OPT_INT, AT(threads), "0", 0, 4096, NULL, false, "N", "0: one a core."},
    {"memory", DIP_OPT_STRING, AT(memory), "0", 0, 0, NULL, false, "SIZE",
     "As pretrain's: what may be used of the device's memory."},
    {"recompute", DIP_OPT_CHOICE, AT(recompute), "auto", 0, 0, "auto|none|mlp|block", false, "WHAT",
     "As pretrain's: activations that backward computes again."},
    {"pad-captions", DIP_OPT_BOOL, AT(pad_captions), "false", 0, 0, NULL, false, NULL,
     "Compute every caption at the full context length."},
    {"all-rows", DIP_OPT_BOOL, AT(all_rows), "false", 0, 0, NULL, false, NULL,
     "Compute rows of the last layer that nobody reads."},
    {"cuda-graphs", DIP_OPT_BOOL, AT(cuda_graphs), "true", 0, 0, NULL, false, NULL,
     "On a GPU: record a step once and replay it."},
    {"time-parts", DIP_OPT_BOOL, AT(time_parts), "false", 0, 0, NULL, false, NULL,
     "On a GPU: wait after every part of a step and give their times; the step takes longer. A "
     "CPU's are always given."},
    {"json", DIP_OPT_BOOL, AT(json), "false", 0, 0, NULL, false, NULL,
     "One JSON object on stdout."},
};
#undef AT
static const dip_option_table train_table = {train_rows, sizeof train_rows / sizeof train_rows[0],
                                             false};

/* *mean: of --text-lengths; 0 is full. */
static dip_status check_lengths(long *mean, const dip_model_config *config, const train_bench *o)
{
    const int context = config->text.context_length;
    char *end = "";
    *mean = strcmp(o->text_lengths, "full") == 0 ? 0 : strtol(o->text_lengths, &end, 10);
    if (strcmp(o->text_lengths, "full") != 0 && (*end || *mean < 2 || *mean > context))
        return dip_fail(DIP_CONFIG,
                        "--text-lengths '%s' must be full or a number from 2 to the "
                        "context length %d",
                        o->text_lengths, context);
    if (o->batch * o->accum_freq > INT32_MAX / context)
        return dip_fail(DIP_CONFIG,
                        "--batch %lld x --accum-freq %lld: captions of %d tokens are too "
                        "many",
                        (long long)o->batch, (long long)o->accum_freq, context);
    return DIP_OK;
}

/* Random pixels and captions, pixels where the device reads them fast; *mean_length receives the
 * tokens a caption has on average. */
static dip_status random_batch(dip_batch *batch, double *mean_length,
                               const dip_model_config *config, const dip_device *device,
                               const train_bench *o)
{
    const int64_t n = o->batch * o->accum_freq, side = config->vision.image_size;
    const int context = config->text.context_length, eos = config->text.vocab_size - 1;
    void *pixels;
    long mean;
    DIP_TRY(check_lengths(&mean, config, o));
    DIP_TRY(device->allocate_host(device, &pixels, (size_t)(n * side * side * 3)));
    uint8_t *images = pixels;
    int32_t *tokens = malloc((size_t)(n * context) * sizeof *tokens);
    int32_t *offsets = malloc((size_t)(n + 1) * sizeof *offsets);
    int32_t *group = malloc((size_t)n * sizeof *group);
    *batch =
        (dip_batch){.n = n, .images = images, .tokens = tokens, .offsets = offsets, .group = group};
    if (!tokens || !offsets || !group)
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

static void free_batch(dip_batch *batch, const dip_device *device)
{
    if (batch->images) device->release_host(device, (void *)batch->images);
    free((void *)batch->tokens);
    free((void *)batch->offsets);
    free((void *)batch->group);
}

enum { STEP, IMAGE, TEXT, LOSS, BACKWARD, OPTIMIZER, N_TIMES };

/* Medians over o->steps steps, handed in as training does: the next before the last is done. */
static dip_status time_steps(double medians[N_TIMES], dip_step_result *result, dip_step *step,
                             const dip_batch *batch, const train_bench *o)
{
    const int64_t recorded = step->exec.device->is_host ? 0 : 2 * DIP_N_SLOTS;
    const int64_t warm = o->warmup_steps > recorded ? o->warmup_steps : recorded;
    const int64_t n = o->steps, total = warm + n;
    double *times = malloc(N_TIMES * (size_t)n * sizeof *times);
    dip_status status;
    if (!times) return dip_fail(DIP_NOMEM, "no memory for %lld timings", (long long)n);
    int64_t submitted = 0;
    for (int64_t i = -warm; i < n; i++) {
        while (submitted < total && dip_step_in_flight(step) < dip_step_in_flight_limit(step)) {
            DIP_TRY_GOTO(dip_step_submit(step, batch, 1e-4));
            submitted++;
        }
        DIP_TRY_GOTO(dip_step_collect(step, result));
        const dip_step_times *t = &result->times;
        const double row[N_TIMES] = {t->step_ms, t->image_ms,    t->text_ms,
                                     t->loss_ms, t->backward_ms, t->optimizer_ms};
        for (int k = 0; k < N_TIMES && i >= 0; k++) times[k * n + i] = row[k];
    }
    for (int k = 0; k < N_TIMES; k++) medians[k] = median(times + k * n, (size_t)n);
fail:
    free(times);
    return status;
}

/* Everything but the share of the matmul rate. */
static dip_status step_figures(cJSON *f, dip_step *step, const dip_batch *batch,
                               const train_bench *o, double mean_length)
{
    static const char *const names[N_TIMES] = {"ms_step", "image_forward_ms", "text_forward_ms",
                                               "loss_ms", "backward_ms",      "optimizer_ms"};
    const dip_device *device = step->exec.device;
    const double full = dip_step_flops(step, step->clip->config.text.context_length);
    double medians[N_TIMES];
    dip_step_result result;
    DIP_TRY(time_steps(medians, &result, step, batch, o));
    const double ms = medians[STEP], pairs = (double)batch->n;
    cJSON_AddStringToObject(f, "config", step->clip->config.name);
    cJSON_AddStringToObject(f, "precision", o->precision);
    cJSON_AddStringToObject(f, "backend", step->exec.ops->backend);
    cJSON_AddStringToObject(f, "isa", dip_exec_describe(&step->exec));
    cJSON_AddNumberToObject(f, "threads", step->exec.n_threads);
    cJSON_AddNumberToObject(f, "batch", pairs);
    cJSON_AddNumberToObject(f, "mean_text_length", mean_length);
    cJSON_AddStringToObject(f, "recompute", dip_recompute_name(step->options.recompute));
    cJSON_AddBoolToObject(f, "pad_captions", o->pad_captions);
    cJSON_AddBoolToObject(f, "all_rows", o->all_rows);
    cJSON_AddNumberToObject(f, names[STEP], ms);
    cJSON_AddNumberToObject(f, "pairs_s", pairs / ms * 1e3);
    cJSON_AddNumberToObject(f, "model_gflops_s", dip_step_flops(step, mean_length) / ms * 1e-6);
    cJSON_AddNumberToObject(f, "model_gflops_s_padded", full / ms * 1e-6);
    for (int k = IMAGE; k < N_TIMES; k++)
        if (device->is_host || o->time_parts) cJSON_AddNumberToObject(f, names[k], medians[k]);
    cJSON_AddNumberToObject(f, "plan_bytes", (double)dip_plan_total_bytes(step->plan));
    cJSON_AddNumberToObject(f, "workspace_bytes", (double)step->exec.workspace_bytes);
    cJSON_AddNumberToObject(f, "peak_rss_bytes", peak_rss_bytes());
    if (!device->is_host) {
        size_t available, total;
        DIP_TRY(device->memory(device, &available, &total));
        cJSON_AddNumberToObject(f, "device_bytes", (double)(total - available));
    }
    cJSON_AddNumberToObject(f, "loss", result.loss);
    return DIP_OK;
}

static dip_status step_options(dip_step_options *out, const train_bench *o)
{
    *out = (dip_step_options){
        .device = o->device,
        .dtype = strcmp(o->precision, "fp32") == 0 ? DIP_F32 : DIP_BF16,
        .fp8 = strcmp(o->precision, "fp8") == 0,
        .n_threads = (int)o->threads,
        .micro_batch = o->batch,
        .n_micro = o->accum_freq,
        .loss = dip_loss_find("infonce"),
        .optimizer = {.beta1 = 0.9, .beta2 = 0.98, .eps = 1e-6, .weight_decay = 0.2},
        .recompute = dip_recompute_named(o->recompute),
        .choose_recompute = strcmp(o->recompute, "auto") == 0,
        .all_rows = o->all_rows,
        .padding = o->pad_captions ? DIP_TEXT_PAD_FULL : DIP_TEXT_PAD_AUTO,
        .graphs = o->cuda_graphs,
        .time_parts = o->time_parts,
    };
    DIP_TRY(dip_device_check_name(o->device));
    return dip_memory_parse(&out->memory_bytes, o->memory);
}

static dip_status bench_train(int argc, char **argv)
{
    train_bench o = {0};
    dip_model_config config;
    dip_step_options options;
    dip_clip clip = {0};
    dip_step step = {0};
    dip_batch batch = {0};
    dip_status status;
    long mean;
    double mean_length = 0, rate = 0;
    cJSON *figures = cJSON_CreateObject();
    DIP_TRY_GOTO(dip_config_defaults(&train_table, &o));
    DIP_TRY_GOTO(dip_config_parse(&train_table, &o, argc, argv));
    DIP_TRY_GOTO(dip_model_config_open(&config, o.model));
    DIP_TRY_GOTO(check_lengths(&mean, &config, &o));
    DIP_TRY_GOTO(step_options(&options, &o));
    DIP_TRY_GOTO(dip_clip_init(&clip, &config));
    DIP_TRY_GOTO(dip_step_open(&step, &clip, &options));
    DIP_TRY_GOTO(random_batch(&batch, &mean_length, &config, step.exec.device, &o));
    DIP_TRY_GOTO(dip_step_init_weights(&step, 0));
    DIP_TRY_GOTO(step_figures(figures, &step, &batch, &o, mean_length));
    free_batch(&batch, step.exec.device);
    batch = (dip_batch){0};
    dip_step_close(&step);
    DIP_TRY_GOTO(matmul_rate(&rate, o.device, options.dtype, options.n_threads));
    const cJSON *achieved = cJSON_GetObjectItemCaseSensitive(figures, "model_gflops_s");
    cJSON_AddNumberToObject(figures, "matmul_gflops_s", rate * 1e-9);
    cJSON_AddNumberToObject(figures, "share_of_matmul_rate",
                            cJSON_GetNumberValue(achieved) * 1e9 / rate);
    status = report(figures, o.json);
    figures = NULL;
fail:
    cJSON_Delete(figures);
    if (step.exec.device) free_batch(&batch, step.exec.device);
    dip_step_close(&step);
    dip_clip_free(&clip);
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
    .usage =
        "diptych bench train --config tiny|small|ViT-B-32|... --batch N --precision bf16|fp8|fp32 "
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
