/* diptych bench train: whole training steps on random pairs, beside the rate of a large matrix
 * product. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "tools/bench.h"
#include "train/memory.h"
#include "train/options.h"
#include "train/step.h"

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
        const double start = dip_bench_now();
        for (int j = 0; j < job->n_products; j++)
            DIP_TRY(exec->ops->matmul_forward(exec, buffers[OUT], NULL, buffers[X], buffers[WEIGHT],
                                              NULL, NULL, DIP_ACT_NONE, s));
        DIP_TRY(exec->device->synchronize(exec));
        if (i >= 0) best = fmin(best, (dip_bench_now() - start) / job->n_products);
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
const dip_option_table dip_bench_train_table = {train_rows,
                                                sizeof train_rows / sizeof train_rows[0], false};

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
    for (int k = 0; k < N_TIMES; k++) medians[k] = dip_bench_median(times + k * n, (size_t)n);
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
    cJSON_AddNumberToObject(f, "peak_rss_bytes", dip_bench_peak_bytes());
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

dip_status dip_bench_train(int argc, char **argv)
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
    DIP_TRY_GOTO(dip_config_defaults(&dip_bench_train_table, &o));
    DIP_TRY_GOTO(dip_config_parse(&dip_bench_train_table, &o, argc, argv));
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
    status = dip_bench_report(figures, o.json);
    figures = NULL;
fail:
    cJSON_Delete(figures);
    if (step.exec.device) free_batch(&batch, step.exec.device);
    dip_step_close(&step);
    dip_clip_free(&clip);
    dip_config_free(&dip_bench_train_table, &o);
    return status;
}
