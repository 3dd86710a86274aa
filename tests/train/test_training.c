/* Whole runs of a tiny model: that it learns, and that the result depends on nothing but the
 * configuration. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <unistd.h>

#include "model/safetensors.h"
#include "train/tiny_run.h"

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
    assert_true(tiny_figure(summary, "loss") < loss);
    assert_true(tiny_figure(metrics, "clip_val_loss") < loss);
    assert_true(tiny_figure(metrics, "image_to_text_R@1") >= recall);
    assert_true(tiny_figure(metrics, "text_to_image_R@1") >= recall);
    assert_true(tiny_figure(metrics, "num_samples") == TINY_PAIRS);
    assert_true(tiny_figure(summary, "step") == n_epochs);
    assert_true(tiny_figure(summary, "samples_seen") == n_epochs * TINY_PAIRS);
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

static int set_up(void **state)
{
    (void)state;
    tiny_init("test_training");
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accumulation),         cmocka_unit_test(test_overfits_fp32),
        cmocka_unit_test(test_overfits_bf16),        cmocka_unit_test(test_same_bits_fp32),
        cmocka_unit_test(test_same_bits_bf16),       cmocka_unit_test(test_recomputed_run),
        cmocka_unit_test(test_too_little_memory),    cmocka_unit_test(test_resumed_at_every_step),
        cmocka_unit_test(test_resumed_after_a_stop),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
