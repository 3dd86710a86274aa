/* Whole runs of a tiny model: that it learns, that the result depends on nothing but the
 * configuration, and what happens to steps that are not finite. And the parts of a run whose
 * formula is known: schedule, average, accumulation.                                            */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <unistd.h>

#include "model/safetensors.h"
#include "train/schedule.h"
#include "train/step.h"
#include "train/tiny_run.h"

static double figure(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!cJSON_IsNumber(item)) fail_msg("no figure %s", key);
    return item->valuedouble;
}

static void assert_same_checkpoint(const char *name, const char *other, const char *folder)
{
    static const char *const files[] = {"open_clip_model.safetensors", "ema_model.safetensors",
                                        "optimizer.safetensors", "open_clip_config.json",
                                        "spiece.model"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char *rest = dip_format("%s/%s", folder, files[i]);
        if (!tiny_same(name, other, rest))
            fail_msg("%s differs between runs %s and %s", rest, name, other);
        free(rest);
    }
}

/* ---- learning -------------------------------------------------------------------------- */

static void check_overfits(const char *name, const char *precision)
{
    const int n_epochs = DEVICE_IS_SLOW ? 30 : 150;
    char *flags = dip_format("--precision %s --batch-size 32 --epochs %d --save-frequency 0 "
                             "--warmup 10 --val-data %s/shards --val-frequency 1000000 "
                             "--crop-scale-min 1 --crop-ratio 1 --flip 0 --caption-lines first "
                             "--ema-decay 0",
                             precision, n_epochs, tiny_dir);
    cJSON *summary;
    if (tiny_run(name, flags, NULL, &summary) != DIP_OK) fail_msg("%s", dip_error());
    const cJSON *metrics = cJSON_GetObjectItemCaseSensitive(summary, "metrics");
    /* ln 32 = 3.47 at the start */
    const double loss = DEVICE_IS_SLOW ? 2 : 0.05, recall = DEVICE_IS_SLOW ? 0.25 : 1;
    assert_true(figure(summary, "loss") < loss);
    assert_true(figure(metrics, "clip_val_loss") < loss);
    assert_true(figure(metrics, "image_to_text_R@1") >= recall);
    assert_true(figure(metrics, "text_to_image_R@1") >= recall);
    assert_true(figure(metrics, "num_samples") == TINY_PAIRS);
    assert_true(figure(summary, "step") == n_epochs);
    assert_true(figure(summary, "samples_seen") == n_epochs * TINY_PAIRS);
    char *last = dip_format("epoch_%d", n_epochs);
    assert_true(tiny_has(name, last));
    assert_true(tiny_has(name, "results.jsonl"));
    cJSON_Delete(summary);
    free(last);
    free(flags);
}

static void test_overfits_fp32(void **state)
{
    (void)state;
    check_overfits("overfit_fp32", "fp32");
}

static void test_overfits_bf16(void **state)
{
    (void)state;
    check_overfits("overfit_bf16", "bf16");
}

/* ---- the same bits --------------------------------------------------------------------- */

static void check_same_bits(const char *precision)
{
    static const char *const machines[] = {"--workers 1 --threads 1", "--workers 2 --threads 2",
                                           "--workers 4 --threads 2 --prefetch 5",
                                           "--workers 1 --threads 3"};
    char *first = dip_format("same_%s_0", precision);
    for (int i = 0; i < (DEVICE_IS_SLOW ? 2 : 4); i++) {
        char *name = dip_format("same_%s_%d", precision, i);
        char *flags = dip_format("--precision %s %s", precision, machines[i]);
        tiny_run_ok(name, flags);
        if (i > 0) assert_same_checkpoint(first, name, "epoch_3");
        free(flags);
        free(name);
    }
    /* The comparison can fail: another seed is another run. */
    char *name = dip_format("seed_%s", precision),
         *flags = dip_format("--precision %s --seed 6", precision);
    tiny_run_ok(name, flags);
    assert_false(tiny_same(first, name, "epoch_3/open_clip_model.safetensors"));
    free(flags);
    free(name);
    free(first);
}

static void test_same_bits_fp32(void **state)
{
    (void)state;
    check_same_bits("fp32");
}

static void test_same_bits_bf16(void **state)
{
    (void)state;
    check_same_bits("bf16");
}

/* Activations computed again are the same activations. */
static void test_recomputed_run(void **state)
{
    (void)state;
    tiny_run_ok("kept", "--recompute none");
    tiny_run_ok("recomputed", "--recompute block");
    assert_same_checkpoint("kept", "recomputed", "epoch_3");
}

/* Before anything is made: what is needed, what is there, what would fit. */
static void test_too_little_memory(void **state)
{
    (void)state;
    cJSON *summary;
    assert_int_equal(tiny_run("tight", "--memory 300K", NULL, &summary), DIP_NOMEM);
    assert_non_null(strstr(dip_error(), "--batch-size 8 (--accum-freq 1) needs "));
    assert_non_null(strstr(dip_error(), "--memory allows 0.29 MiB"));
    assert_non_null(strstr(dip_error(), "0 with block"));
    assert_null(summary);
    char *folder = dip_format("%s/logs/tight", tiny_dir);
    assert_false(dip_path_exists(folder));
    free(folder);
}

/* Every figure of trainer.json but the configuration (which has the other name in it). */
static void assert_same_progress(const char *name, const char *other, const char *folder)
{
    cJSON *progress[2];
    const char *const names[2] = {name, other};
    for (int i = 0; i < 2; i++) {
        char *rest = dip_format("%s/trainer.json", folder), *path = tiny_path(names[i], rest);
        assert_int_equal(dip_json_read(&progress[i], path), DIP_OK);
        cJSON_DeleteItemFromObjectCaseSensitive(progress[i], "configuration");
        cJSON_DeleteItemFromObjectCaseSensitive(progress[i], "crc32c");
        free(path);
        free(rest);
    }
    if (!cJSON_Compare(progress[0], progress[1], 1)) fail_msg("%s and %s differ", name, other);
    for (int i = 0; i < 2; i++) cJSON_Delete(progress[i]);
}

/* Stopped after every single step and resumed each time: 12 steps, 4 an epoch. */
static void test_resumed_at_every_step(void **state)
{
    (void)state;
    static const volatile sig_atomic_t always = 1;
    tiny_run_ok("whole", "");
    int n_sessions = 0;
    dip_status status;
    do {
        status = tiny_run("pieces", n_sessions ? "--resume latest" : "", &always, NULL);
        n_sessions++;
    } while (status == DIP_INTERRUPTED && n_sessions < 20);
    if (status != DIP_OK) fail_msg("session %d: %s", n_sessions, dip_error());
    assert_int_equal(n_sessions, 12);
    assert_same_checkpoint("whole", "pieces", "epoch_3");
    assert_same_progress("whole", "pieces", "epoch_3");
    /* A finished run that is resumed has nothing to do, and harms nothing. */
    tiny_run_ok("pieces", "--resume latest");
    assert_same_checkpoint("whole", "pieces", "epoch_3");
}

static void *raise_stop(void *stop)
{
    usleep(40000);
    *(volatile sig_atomic_t *)stop = 1;
    return NULL;
}

/* Stopped at some time by another thread, with accumulation and in bf16. */
static void test_resumed_after_a_stop(void **state)
{
    (void)state;
    const char *flags = DEVICE_IS_SLOW
                            ? "--precision bf16 --batch-size 4 --accum-freq 2 --epochs 5 "
                              "--save-frequency 0 --caption-duplicates positive"
                            : "--precision bf16 --batch-size 4 --accum-freq 2 --epochs 30 "
                              "--save-frequency 0 --caption-duplicates positive";
    volatile sig_atomic_t stop = 0;
    pthread_t thread;
    tiny_run_ok("straight", flags);
    assert_int_equal(pthread_create(&thread, NULL, raise_stop, (void *)(uintptr_t)&stop), 0);
    cJSON *summary;
    dip_status status = tiny_run("stopped", flags, &stop, &summary);
    pthread_join(thread, NULL);
    if (status == DIP_INTERRUPTED) {
        assert_non_null(strstr(dip_error(), "--resume latest"));
        assert_non_null(cJSON_GetObjectItemCaseSensitive(summary, "checkpoint"));
        char *more = dip_format("%s --resume latest", flags);
        tiny_run_ok("stopped", more);
        free(more);
    } else {
        assert_int_equal(status, DIP_OK); /* a fast machine */
    }
    cJSON_Delete(summary);
    assert_same_checkpoint("straight", "stopped", DEVICE_IS_SLOW ? "epoch_5" : "epoch_30");
}

/* ---- figures with a formula ------------------------------------------------------------ */

static void test_schedule(void **state)
{
    (void)state;
    FILE *file = fopen(TEST_SOURCE_DIR "/tests/golden/open_clip_schedule.txt", "r");
    char kind[16];
    double lr, value;
    long long warmup, total, step;
    int n = 0;
    assert_non_null(file);
    while (fscanf(file, "%15s %lf %lld %lld %lld %lf", kind, &lr, &warmup, &total, &step, &value) ==
           6) {
        const dip_schedule schedule = {.kind = strcmp(kind, "const") == 0 ? DIP_SCHEDULE_CONST
                                                                          : DIP_SCHEDULE_COSINE,
                                       .lr = lr,
                                       .warmup = warmup,
                                       .total = total};
        const double got = dip_schedule_lr(&schedule, step);
        if (!(fabs(got - value) <= 1e-12 * lr))
            fail_msg("%s lr %g warmup %lld total %lld: step %lld gives %.17g, not %.17g", kind, lr,
                     warmup, total, step, got, value);
        n++;
    }
    fclose(file);
    assert_int_equal(n, 54);
}

/* A step over 8 random pairs of a small model, for what dip_train_run does not show. */
typedef struct bench {
    dip_clip clip;
    dip_step step;
    uint8_t images[8 * 8 * 8 * 3];
    int32_t tokens[8 * 3], offsets[9], group[8];
    dip_batch batch;
} bench;

static void bench_open(bench *b, dip_dtype dtype, double ema_decay)
{
    dip_rng rng;
    dip_model_config config = {.embed_dim = 16, .init_logit_scale = 2};
    config.vision = (dip_vision_config){.image_size = 8,
                                        .patch_size = 4,
                                        .width = 16,
                                        .layers = 1,
                                        .head_width = 16,
                                        .mlp_ratio = 2,
                                        .norm_eps = 1e-5,
                                        .activation = DIP_ACT_GELU};
    config.text = (dip_text_config){.context_length = 4,
                                    .vocab_size = 9,
                                    .width = 16,
                                    .heads = 1,
                                    .layers = 1,
                                    .mlp_ratio = 2,
                                    .eos_id = -1,
                                    .norm_eps = 1e-5,
                                    .activation = DIP_ACT_GELU};
    for (int i = 0; i < 3; i++) config.preprocess.std[i] = 0.3f;
    const dip_step_options options = {
        .device = device_under_test(),
        .dtype = dtype,
        .n_threads = 2,
        .micro_batch = 8,
        .n_micro = 1,
        .loss = dip_loss_find("infonce"),
        .optimizer = {
            .beta1 = 0.9, .beta2 = 0.98, .eps = 1e-6, .weight_decay = 0.1, .ema_decay = ema_decay}};
    dip_rng_init(&rng, 1, dip_rng_stream(DIP_RNG_TEST, 0, 0));
    for (size_t i = 0; i < sizeof b->images; i++) b->images[i] = (uint8_t)dip_rng_u32(&rng);
    for (int i = 0; i < 8; i++) {
        for (int j = 0; j < 2; j++) b->tokens[3 * i + j] = (int32_t)dip_rng_below(&rng, 8);
        b->tokens[3 * i + 2] = 8;
        b->offsets[i + 1] = 3 * (i + 1);
        b->group[i] = i;
    }
    b->offsets[0] = 0;
    b->batch = (dip_batch){
        .n = 8, .images = b->images, .tokens = b->tokens, .offsets = b->offsets, .group = b->group};
    assert_int_equal(dip_clip_init(&b->clip, &config), DIP_OK);
    assert_int_equal(dip_step_open(&b->step, &b->clip, &options), DIP_OK);
    assert_int_equal(dip_step_init_weights(&b->step, 3), DIP_OK);
}

static void bench_close(bench *b)
{
    dip_step_close(&b->step);
    dip_clip_free(&b->clip);
}

static float *read_values(bench *b, const float *device_values)
{
    return copy_from_device(&b->step.exec, device_values,
                            (size_t)b->clip.table.n_values * sizeof(float));
}

static int64_t n_updates(bench *b)
{
    int64_t n;
    assert_int_equal(dip_optimizer_n_updates(&b->step.exec, &b->step.optimizer, &n), DIP_OK);
    return n;
}

static void test_average_of_the_weights(void **state)
{
    (void)state;
    bench b;
    dip_step_result result;
    bench_open(&b, DIP_BF16, 0.75);
    const int64_t n = b.clip.table.n_values;
    double *average = malloc((size_t)n * sizeof *average);
    double moved = 0;
    float *master = read_values(&b, b.step.params.master);
    for (int64_t i = 0; i < n; i++) average[i] = (double)master[i];
    for (int s = 0; s < 5; s++) {
        assert_int_equal(dip_step_run(&b.step, &result, &b.batch, 1e-2), DIP_OK);
        assert_true(result.applied);
        free(master);
        master = read_values(&b, b.step.params.master);
        for (int64_t i = 0; i < n; i++) average[i] = 0.75 * average[i] + 0.25 * (double)master[i];
    }
    float *ema = read_values(&b, b.step.optimizer.ema);
    for (int64_t i = 0; i < n; i++) {
        const double got = (double)ema[i];
        if (!(fabs(got - average[i]) <= 1e-6 * (1 + fabs(average[i]))))
            fail_msg("value %lld: average %.9g, not %.9g", (long long)i, got, average[i]);
        moved = fmax(moved, fabs(average[i] - (double)master[i]));
    }
    assert_true(moved > 1e-3);
    free(ema);
    free(master);
    free(average);
    bench_close(&b);
}

/* ln 100 is where the logit scale stops, for the average too. */
static void test_clamp_of_the_logit_scale(void **state)
{
    (void)state;
    static const double starts[2] = {4.6, 0.01};
    for (int i = 0; i < 2; i++) {
        bench b;
        dip_step_result result;
        bench_open(&b, DIP_BF16, 0.5);
        const int64_t at = b.clip.table.params[b.clip.logit_scale].offset;
        const float limit = i == 0 ? 4.6051702f : 0;
        float *values = read_values(&b, b.step.params.master), *ema;
        values[at] = (float)starts[i];
        assert_int_equal(dip_step_upload(&b.step, values, NULL), DIP_OK);
        double average = (double)values[at];
        /* Which way the loss pulls is the pairs' business: take the other end if need be. */
        bool clamped = false;
        for (int s = 0; s < 3; s++) {
            assert_int_equal(dip_step_run(&b.step, &result, &b.batch, 0.5), DIP_OK);
            free(values);
            values = read_values(&b, b.step.params.master);
            assert_true(values[at] >= 0 && values[at] <= 4.6051702f);
            assert_true(fabs(result.logit_scale - exp((double)values[at])) < 1e-9);
            average = 0.5 * average + 0.5 * (double)values[at];
            clamped = clamped || values[at] == limit;
        }
        ema = read_values(&b, b.step.optimizer.ema);
        assert_true(fabs((double)ema[at] - average) < 1e-6);
        print_message("from %g: %g\n", starts[i], (double)values[at]);
        free(ema);
        free(values);
        bench_close(&b);
        if (clamped) return;
    }
    fail_msg("no step reached an end of the range");
}

static void test_accumulation(void **state)
{
    (void)state;
    /* A large eps: with the usual one the sign of a gradient that is next to nothing, rounding, is
     * a whole step. */
    const char *flags = "--caption-duplicates positive --epochs 6 --warmup 0 --eps 1e-3";
    char *one = dip_format("--batch-size 32 %s", flags);
    char *four = dip_format("--batch-size 8 --accum-freq 4 %s", flags);
    tiny_run_ok("one_of_32", one);
    tiny_run_ok("four_of_8", four);
    dip_safetensors *files[2];
    const char *const names[2] = {"one_of_32", "four_of_8"};
    for (int i = 0; i < 2; i++) {
        char *path = tiny_path(names[i], "epoch_6/open_clip_model.safetensors");
        assert_int_equal(dip_safetensors_open(&files[i], path), DIP_OK);
        free(path);
    }
    size_t n;
    double difference = 0;
    const dip_tensor *tensors = dip_safetensors_tensors(files[0], &n);
    for (size_t i = 0; i < n; i++) {
        const dip_tensor *other = dip_safetensors_find(files[1], tensors[i].name);
        const size_t count = other->n_bytes / sizeof(float);
        float *values[2] = {malloc(other->n_bytes), malloc(other->n_bytes)};
        assert_int_equal(dip_tensor_to_float(values[0], &tensors[i]), DIP_OK);
        assert_int_equal(dip_tensor_to_float(values[1], other), DIP_OK);
        for (size_t j = 0; j < count; j++)
            difference = fmax(difference, fabs((double)values[0][j] - (double)values[1][j]));
        free(values[0]);
        free(values[1]);
    }
    if (!(difference < 1e-5)) fail_msg("weights differ by %g", difference);
    print_message("weights differ by %g\n", difference);
    for (int i = 0; i < 2; i++) dip_safetensors_close(files[i]);
    free(one);
    free(four);
}

/* ---- steps that are not finite --------------------------------------------------------- */

/* Everything that a step changes. */
enum { N_LIVE = 4 };

static void read_live(bench *b, float *live[N_LIVE])
{
    const dip_optimizer *o = &b->step.optimizer;
    const float *const at[N_LIVE] = {b->step.params.master, o->m, o->v, o->ema};
    for (int i = 0; i < N_LIVE; i++) live[i] = read_values(b, at[i]);
}

static void free_live(float *live[N_LIVE])
{
    for (int i = 0; i < N_LIVE; i++) free(live[i]);
}

static void assert_untouched(bench *b, float *const kept[N_LIVE])
{
    const size_t bytes = (size_t)b->clip.table.n_values * sizeof(float);
    float *live[N_LIVE];
    read_live(b, live);
    for (int i = 0; i < N_LIVE; i++) assert_memory_equal(kept[i], live[i], bytes);
    free_live(live);
}

/* `poison` in one weight: the step changes nothing at all, and the next good one goes on. */
static void check_skips(float poison, dip_dtype dtype)
{
    bench b;
    dip_step_result result;
    bench_open(&b, dtype, 0.5);
    float *good, *bad, *kept[N_LIVE];
    assert_int_equal(dip_step_run(&b.step, &result, &b.batch, 1e-3), DIP_OK);
    assert_true(result.applied);
    good = read_values(&b, b.step.params.master);
    bad = read_values(&b, b.step.params.master);
    const int at = dip_param_find(&b.clip.table, "visual.conv1.weight");
    bad[b.clip.table.params[at].offset] = poison;
    assert_int_equal(dip_step_upload(&b.step, bad, NULL), DIP_OK);
    read_live(&b, kept);
    assert_int_equal(dip_step_run(&b.step, &result, &b.batch, 1e-3), DIP_OK);
    assert_false(result.applied);
    assert_false(isfinite(result.loss) && isfinite(result.grad_norm));
    assert_int_equal(n_updates(&b), 1);
    assert_untouched(&b, kept);

    assert_int_equal(dip_step_upload(&b.step, good, NULL), DIP_OK);
    assert_int_equal(dip_step_run(&b.step, &result, &b.batch, 1e-3), DIP_OK);
    assert_true(result.applied);
    assert_int_equal(n_updates(&b), 2);
    free_live(kept);
    free(good);
    free(bad);
    bench_close(&b);
}

/* A finite loss does not promise finite gradients. */
static void test_bad_gradient_is_skipped(void **state)
{
    (void)state;
    bench b;
    dip_step_result result;
    bench_open(&b, DIP_F32, 0.5);
    dip_step *step = &b.step;
    const double lr = 1e-3, loss = 1;
    float *kept[N_LIVE];
    assert_int_equal(dip_step_run(step, &result, &b.batch, lr), DIP_OK);
    read_live(&b, kept);
    static const float poisons[2] = {INFINITY, NAN};
    for (int p = 0; p < 2; p++) {
        dip_update update;
        to_device(&step->exec, step->params.grads + b.clip.table.n_values / 2, &poisons[p],
                  sizeof(float));
        to_device(&step->exec, step->inputs[0].lr, &lr, sizeof lr);
        to_device(&step->exec, step->loss, &loss, sizeof loss);
        assert_int_equal(dip_optimizer_step(&step->exec, &step->optimizer, &step->params,
                                            step->inputs[0].lr, step->loss),
                         DIP_OK);
        from_device(&step->exec, &update, step->optimizer.update, sizeof update);
        assert_int_equal(update.applied, 0);
        assert_false(isfinite(update.grad_norm));
        assert_int_equal(n_updates(&b), 1);
        assert_untouched(&b, kept);
    }
    free_live(kept);
    bench_close(&b);
}

static void test_bad_step_is_skipped(void **state)
{
    (void)state;
    check_skips(INFINITY, DIP_F32);
    check_skips(NAN, DIP_F32);
    check_skips(INFINITY, DIP_BF16);
    check_skips(3e38f, DIP_F32); /* finite, but not what is computed from it */
}

/* A learning rate that throws the weights out of reach: what follows is skipped. */
static void test_far_too_large_rate(void **state)
{
    (void)state;
    bench b;
    dip_step_result result;
    bench_open(&b, DIP_F32, 0);
    assert_int_equal(dip_step_run(&b.step, &result, &b.batch, 1e30), DIP_OK);
    assert_true(result.applied);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(dip_step_run(&b.step, &result, &b.batch, 1e-3), DIP_OK);
        assert_false(result.applied);
    }
    assert_int_equal(n_updates(&b), 1);
    bench_close(&b);
}

/* Weights that grow a hundred thousand times a step, until nothing is finite: the steps from there
 * on are skipped, each counted as itself, however many were handed in before the first result came.
 */
static void test_skipped_steps_are_counted_in_order(void **state)
{
    (void)state;
    cJSON *summary;
    assert_int_equal(
        tiny_run("thrown", "--lr 1000 --wd 100 --warmup 0 --epochs 10", NULL, &summary),
        DIP_NUMERIC);
    assert_non_null(strstr(dip_error(), "3 steps in a row"));
    const int last = (int)figure(summary, "step");
    assert_true(figure(summary, "skipped_steps") == 3);
    assert_true(last > 4 && last < 40);
    assert_true(figure(summary, "samples_seen") == 8 * last);
    cJSON_Delete(summary);
    char *path = dip_format("%s/logs/thrown/out.log", tiny_dir), *log;
    size_t n;
    assert_int_equal(dip_file_read(&log, &n, path, 1 << 20), DIP_OK);
    const char *at = log;
    for (int step = last - 3; step <= last + 1; step++) {
        char *line = dip_format("step %d changed nothing", step);
        const char *found = strstr(at, line);
        if ((found != NULL) != (step > last - 3 && step <= last))
            fail_msg("'%s' is %s out.log", line, found ? "in" : "not in");
        if (found) at = found;
        free(line);
    }
    free(log);
    free(path);
}

/* Pixels divided by next to nothing: no step of the run is finite. */
static void test_bad_steps_end_the_run(void **state)
{
    (void)state;
    cJSON *summary;
    assert_int_equal(tiny_run("doomed", "--image-std 1e-40", NULL, &summary), DIP_NUMERIC);
    assert_non_null(strstr(dip_error(), "3 steps in a row"));
    assert_non_null(strstr(dip_error(), "none"));
    assert_non_null(summary);
    assert_true(figure(summary, "skipped_steps") == 3);
    assert_true(figure(summary, "step") == 3);
    assert_true(cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(summary, "loss")));
    assert_false(tiny_has("doomed", "epoch_latest"));
    cJSON_Delete(summary);

    /* With more patience than steps: all of them counted, a checkpoint of the first weights, and no
     * pretence that the run went well or that the checkpoint is good. */
    assert_int_equal(
        tiny_run("patient", "--image-std 1e-40 --max-skipped-steps 100", NULL, &summary),
        DIP_NUMERIC);
    assert_non_null(strstr(dip_error(), "ended on 12 steps"));
    assert_non_null(strstr(dip_error(), "none"));
    assert_true(figure(summary, "skipped_steps") == 12);
    cJSON_Delete(summary);
    char *path = tiny_path("patient", "epoch_3/trainer.json");
    cJSON *progress;
    assert_int_equal(dip_json_read(&progress, path), DIP_OK);
    assert_true(figure(progress, "n_skipped") == 12);
    assert_true(figure(progress, "n_updates") == 0);
    assert_true(figure(progress, "step") == 12);
    cJSON_Delete(progress);
    free(path);
}

static int set_up(void **state)
{
    (void)state;
    tiny_init("test_training");
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schedule),
        cmocka_unit_test(test_average_of_the_weights),
        cmocka_unit_test(test_clamp_of_the_logit_scale),
        cmocka_unit_test(test_bad_step_is_skipped),
        cmocka_unit_test(test_bad_gradient_is_skipped),
        cmocka_unit_test(test_far_too_large_rate),
        cmocka_unit_test(test_skipped_steps_are_counted_in_order),
        cmocka_unit_test(test_bad_steps_end_the_run),
        cmocka_unit_test(test_accumulation),
        cmocka_unit_test(test_overfits_fp32),
        cmocka_unit_test(test_overfits_bf16),
        cmocka_unit_test(test_same_bits_fp32),
        cmocka_unit_test(test_same_bits_bf16),
        cmocka_unit_test(test_recomputed_run),
        cmocka_unit_test(test_too_little_memory),
        cmocka_unit_test(test_resumed_at_every_step),
        cmocka_unit_test(test_resumed_after_a_stop),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
