/* Training with products in 8-bit floats: the loss goes where it goes in bf16, the same bits every
 * time, whether or not it is evaluated on the way; and --precision fp8. On a GPU, or the emulated
 * one: elsewhere, that it is refused. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "train/step.h"
#include "train/tiny_run.h"

enum {
    BITS = 5,
    PAIRS = 1 << BITS,
    SIDE = 16,
    LENGTH = 8,
    EMBED = 32,
    STEPS = DEVICE_IS_SLOW ? 40 : 200,
    FEW = 10
};

/* How far the two losses may be apart, in the mean over any ten steps; it starts at ln 32 = 3.47.
 */
static const double tolerance = 0.15;

static int has_fp8(void)
{
    dip_exec exec;
    if (dip_exec_open(&exec, device_under_test(), DIP_BF16, 1) != DIP_OK)
        fail_msg("%s", dip_error());
    const dip_status status = dip_exec_use_fp8(&exec, NULL, 0, 0);
    dip_exec_close(&exec);
    return status == DIP_OK;
}

/* Pair i is number i: its five bits are stripes of the image, and words. */
static struct {
    uint8_t images[PAIRS * SIDE * SIDE * 3];
    int32_t tokens[PAIRS * LENGTH], offsets[PAIRS + 1], group[PAIRS];
} pairs;

static dip_batch make_batch(void)
{
    for (int i = 0; i < PAIRS; i++) {
        for (int y = 0; y < SIDE; y++)
            memset(&pairs.images[(i * SIDE + y) * SIDE * 3], i >> y % BITS & 1 ? 230 : 30,
                   SIDE * 3);
        for (int j = 0; j < LENGTH; j++)
            pairs.tokens[LENGTH * i + j] = j < BITS ? 2 * j + (i >> j & 1) : j + BITS;
        pairs.offsets[i + 1] = LENGTH * (i + 1);
        pairs.group[i] = i;
    }
    return (dip_batch){.n = PAIRS,
                       .images = pairs.images,
                       .tokens = pairs.tokens,
                       .offsets = pairs.offsets,
                       .group = pairs.group};
}

static dip_model_config make_config(void)
{
    dip_model_config config = {.embed_dim = EMBED, .init_logit_scale = 2.6592};
    config.vision = (dip_vision_config){.image_size = SIDE,
                                        .patch_size = 4,
                                        .width = 32,
                                        .layers = 2,
                                        .head_width = 16,
                                        .mlp_ratio = 2,
                                        .norm_eps = 1e-5,
                                        .activation = DIP_ACT_GELU};
    config.text = (dip_text_config){.context_length = LENGTH,
                                    .vocab_size = 13,
                                    .width = 32,
                                    .heads = 2,
                                    .layers = 2,
                                    .mlp_ratio = 2,
                                    .eos_id = -1,
                                    .norm_eps = 1e-5,
                                    .activation = DIP_ACT_GELU};
    for (int i = 0; i < 3; i++) config.preprocess.std[i] = 0.3f;
    return config;
}

/* loss [n_steps]; images, texts [PAIRS * EMBED], or NULL: encode before every step. */
static void train(double *loss, int n_steps, bool fp8, float *images, float *texts)
{
    const dip_step_options options = {
        .device = device_under_test(),
        .dtype = DIP_BF16,
        .fp8 = fp8,
        .micro_batch = PAIRS,
        .n_micro = 1,
        .loss = dip_loss_find("infonce"),
        .graphs = true,
        .optimizer = {.beta1 = 0.9, .beta2 = 0.98, .eps = 1e-6, .weight_decay = 0.1},
    };
    const dip_batch batch = make_batch();
    const dip_model_config config = make_config();
    dip_clip clip;
    dip_step step;
    assert_int_equal(dip_clip_init(&clip, &config), DIP_OK);
    if (dip_step_open(&step, &clip, &options) != DIP_OK) fail_msg("%s", dip_error());
    assert_int_equal(dip_step_init_weights(&step, 3), DIP_OK);
    for (int i = 0; i < n_steps; i++) {
        dip_step_result result;
        if (images) assert_int_equal(dip_step_encode(&step, images, texts, &batch), DIP_OK);
        const double lr = i < 4 ? 2.5e-4 * (i + 1) : 1e-3;
        if (dip_step_run(&step, &result, &batch, lr) != DIP_OK) fail_msg("%s", dip_error());
        assert_true(result.applied);
        loss[i] = result.loss;
    }
    dip_step_close(&step);
    dip_clip_free(&clip);
}

static void test_curve(void **state)
{
    (void)state;
    if (!has_fp8()) {
        print_message("SKIPPED: %s\n", dip_error());
        skip();
    }
    double bf16[STEPS], fp8[STEPS], again[FEW], distance = 0;
    static float features[2][PAIRS * EMBED];
    train(bf16, STEPS, false, NULL, NULL);
    train(fp8, STEPS, true, NULL, NULL);
    train(again, FEW, true, features[0], features[1]);
    print_message("step   bf16    fp8\n");
    for (int i = 0; i < STEPS; i += i < STEPS - 4 ? 3 : 1)
        print_message("%4d  %.4f  %.4f\n", i + 1, bf16[i], fp8[i]);
    for (int i = 0; i + 10 <= STEPS; i++) {
        double sum = 0;
        for (int j = i; j < i + 10; j++) sum += fp8[j] - bf16[j];
        distance = fmax(distance, fabs(sum / 10));
    }
    print_message("apart by %.4f at most (mean of ten steps), %.4f allowed\n", distance, tolerance);
    assert_true(bf16[STEPS - 1] < 0.7 * bf16[0]);
    assert_true(distance < tolerance);
    assert_memory_not_equal(fp8, bf16, sizeof fp8); /* they are not the same products */
    assert_memory_equal(fp8, again, sizeof again);
}

/* Features for evaluation are those of bf16. */
static void test_evaluation(void **state)
{
    (void)state;
    if (!has_fp8()) skip();
    static float features[2][2][PAIRS * EMBED];
    double loss[1];
    for (int fp8 = 0; fp8 < 2; fp8++) train(loss, 1, fp8, features[fp8][0], features[fp8][1]);
    assert_memory_equal(features[0], features[1], sizeof features[0]);
}

static void test_option(void **state)
{
    (void)state;
    cJSON *summary;
    tiny_init("test_fp8_training");
    const dip_status status = tiny_run("fp8", "--precision fp8 --batch-size 16", NULL, &summary);
    if (!has_fp8()) {
        assert_int_equal(status, DIP_UNSUPPORTED);
        return;
    }
    if (status != DIP_OK) fail_msg("%s", dip_error());
    assert_string_equal(cJSON_GetObjectItemCaseSensitive(summary, "precision")->valuestring, "fp8");
    cJSON_Delete(summary);
    /* It is another run than one in bf16, and goes on as itself. */
    char *from = tiny_path("fp8", "epoch_2");
    char *flags = dip_format("--precision %s --batch-size 16 --resume %s", "bf16", from);
    assert_int_equal(tiny_run("other", flags, NULL, NULL), DIP_CONFIG);
    assert_non_null(strstr(dip_error(), "precision was \"fp8\", is \"bf16\""));
    free(flags);
    flags = dip_format("--precision %s --batch-size 16 --resume %s", "fp8", from);
    tiny_run_ok("resumed", flags);
    free(flags);
    free(from);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_evaluation),
        cmocka_unit_test(test_curve),
        cmocka_unit_test(test_option),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
