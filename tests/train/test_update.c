/* What a step does to the weights: schedule and average, whose formula is known, and nothing at all
 * when it is not finite. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "train/schedule.h"
#include "train/step.h"
#include "train/tiny_run.h"

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
    const int last = (int)tiny_figure(summary, "step");
    assert_true(tiny_figure(summary, "skipped_steps") == 3);
    assert_true(last > 4 && last < 40);
    assert_true(tiny_figure(summary, "samples_seen") == 8 * last);
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
    assert_true(tiny_figure(summary, "skipped_steps") == 3);
    assert_true(tiny_figure(summary, "step") == 3);
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
    assert_true(tiny_figure(summary, "skipped_steps") == 12);
    cJSON_Delete(summary);
    char *path = tiny_path("patient", "epoch_3/trainer.json");
    cJSON *progress;
    assert_int_equal(dip_json_read(&progress, path), DIP_OK);
    assert_true(tiny_figure(progress, "n_skipped") == 12);
    assert_true(tiny_figure(progress, "n_updates") == 0);
    assert_true(tiny_figure(progress, "step") == 12);
    cJSON_Delete(progress);
    free(path);
}

static int set_up(void **state)
{
    (void)state;
    tiny_init("test_update");
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
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
