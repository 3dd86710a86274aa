/* Whole-model gradients: every parameter tensor against finite differences of the double model.
 *
 * fp32: relative error under 1e-4 for every tensor. bf16: no worse than twice the plain-C
 * reference in bf16, whose own error is bounded too.                                          */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/rng.h"
#include "model/double_clip.h"
#include "train/devices.h"
#include "train/step.h"

enum { BATCH = 6, SIZE = 8, CONTEXT = 7, VOCAB = 13 };

typedef struct fixture {
    dip_clip clip;
    uint8_t images[BATCH * SIZE * SIZE * 3];
    int32_t tokens[BATCH * CONTEXT], offsets[BATCH + 1], group[BATCH];
    dip_batch batch;
} fixture;

static dip_model_config small_config(dip_vision_pool pool, bool ln_after_pool, bool no_ln_pre,
                                     dip_activation act)
{
    dip_model_config config = {.embed_dim = 12, .init_logit_scale = 2.0};
    config.vision = (dip_vision_config){.image_size = SIZE,
                                        .patch_size = 4,
                                        .width = 32,
                                        .layers = 2,
                                        .head_width = 16,
                                        .mlp_ratio = 2,
                                        .pool = pool,
                                        .final_ln_after_pool = ln_after_pool,
                                        .no_ln_pre = no_ln_pre,
                                        .norm_eps = 1e-5,
                                        .activation = act};
    config.text = (dip_text_config){.context_length = CONTEXT,
                                    .vocab_size = VOCAB,
                                    .width = 24,
                                    .heads = 2,
                                    .layers = 2,
                                    .mlp_ratio = 4,
                                    .eos_id = -1,
                                    .norm_eps = 1e-5,
                                    .activation = act};
    for (int i = 0; i < 3; i++) {
        config.preprocess.mean[i] = 0.4f + 0.05f * (float)i;
        config.preprocess.std[i] = 0.25f + 0.01f * (float)i;
    }
    return config;
}

/* Random pairs; pairs 1 and 4 share one caption. */
static void make_fixture(fixture *f, const dip_model_config *config)
{
    dip_rng rng;
    assert_int_equal(dip_clip_init(&f->clip, config), DIP_OK);
    dip_rng_init(&rng, 7, dip_rng_stream(DIP_RNG_TEST, 0, 0));
    for (size_t i = 0; i < sizeof f->images; i++) f->images[i] = (uint8_t)dip_rng_below(&rng, 256);
    f->offsets[0] = 0;
    for (int i = 0; i < BATCH; i++) {
        int length = 1 + (int)dip_rng_below(&rng, CONTEXT);
        int32_t *text = f->tokens + f->offsets[i];
        f->group[i] = i;
        for (int j = 0; j < length; j++) text[j] = (int32_t)dip_rng_below(&rng, VOCAB - 1);
        if (i == 4) {
            length = f->offsets[2] - f->offsets[1];
            memcpy(text, f->tokens + f->offsets[1], (size_t)length * sizeof *text);
            f->group[4] = 1;
        }
        text[length - 1] = VOCAB - 1;
        f->offsets[i + 1] = f->offsets[i] + length;
    }
    f->batch = (dip_batch){.n = BATCH,
                           .images = f->images,
                           .tokens = f->tokens,
                           .offsets = f->offsets,
                           .group = f->group};
}

static void read_gradients(dip_step *step, double *grads)
{
    const int64_t n = step->clip->table.n_values;
    float *host = copy_from_device(&step->exec, step->params.grads, (size_t)n * sizeof *host);
    for (int64_t i = 0; i < n; i++) grads[i] = (double)host[i];
    free(host);
}

/* The weights as the ops see them. */
static void read_values(dip_step *step, double *values)
{
    const dip_param_table *table = &step->clip->table;
    const int64_t n = table->n_values, at = table->params[step->clip->logit_scale].offset;
    const size_t element = dip_dtype_bytes(step->options.dtype);
    void *host = copy_from_device(&step->exec, step->params.values, (size_t)n * element);
    for (int64_t i = 0; i < n; i++)
        values[i] = step->options.dtype == DIP_BF16
                        ? (double)dip_bf16_to_float(((const dip_bf16 *)host)[i])
                        : (double)((const float *)host)[i];
    free(host);
    /* The scale is used from its fp32 master. */
    float scale;
    from_device(&step->exec, &scale, step->params.master + at, sizeof scale);
    values[at] = (double)scale;
}

/* Gradients of one step (learning rate 0: the weights stay) and the weights it used, as double. */
static double gradients_of(const fixture *f, const char *device, dip_dtype dtype, int64_t n_micro,
                           dip_duplicates duplicates, double *grads, double *values)
{
    const dip_step_options options = {.device = device,
                                      .dtype = dtype,
                                      .n_threads = 2,
                                      .micro_batch = BATCH / n_micro,
                                      .n_micro = n_micro,
                                      .loss = dip_loss_find("infonce"),
                                      .duplicates = duplicates,
                                      .optimizer = {.beta1 = 0.9, .beta2 = 0.98, .eps = 1e-6}};
    dip_step step;
    dip_step_result result;
    assert_int_equal(dip_step_open(&step, &f->clip, &options), DIP_OK);
    assert_int_equal(dip_step_init_weights(&step, 3), DIP_OK);
    assert_int_equal(dip_step_run(&step, &result, &f->batch, 0.0), DIP_OK);
    assert_true(result.applied);
    read_gradients(&step, grads);
    if (values) read_values(&step, values);
    dip_step_close(&step);
    return result.loss;
}

/* Relative error of one tensor's gradient along a direction that is half the gradient itself, half
 * random: a wrong length, a wrong sign and a stray component all show. */
static double direction_error(const fixture *f, const double *grads, double *values, int param,
                              dip_duplicates duplicates)
{
    const dip_param *p = &f->clip.table.params[param];
    const double *g = grads + p->offset;
    double *direction = dbl_zeros(p->n_elements), *kept = dbl_zeros(p->n_elements);
    double g_norm = 0, r_norm = 0, analytic = 0, d_norm = 0;
    dip_rng rng;
    dip_rng_init(&rng, 11, dip_rng_stream(DIP_RNG_TEST, 1, (uint64_t)param));
    for (int64_t i = 0; i < p->n_elements; i++) {
        direction[i] = dip_rng_normal(&rng);
        g_norm += g[i] * g[i];
        r_norm += direction[i] * direction[i];
    }
    g_norm = sqrt(g_norm);
    r_norm = sqrt(r_norm);
    for (int64_t i = 0; i < p->n_elements; i++) {
        direction[i] = direction[i] / r_norm + (g_norm > 0 ? g[i] / g_norm : 0);
        d_norm += direction[i] * direction[i];
        analytic += direction[i] * g[i];
    }
    d_norm = sqrt(d_norm);

    const dbl_model model = {&f->clip, values};
    const double h = 1e-4;
    double at[4];
    memcpy(kept, values + p->offset, (size_t)p->n_elements * sizeof *kept);
    const double steps[4] = {-2 * h, -h, h, 2 * h};
    for (int s = 0; s < 4; s++) {
        for (int64_t i = 0; i < p->n_elements; i++)
            values[p->offset + i] = kept[i] + steps[s] * direction[i];
        at[s] = dbl_loss(&model, &f->batch, duplicates);
    }
    memcpy(values + p->offset, kept, (size_t)p->n_elements * sizeof *kept);
    free(direction);
    free(kept);
    const double numeric = (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * h);
    /* A key's bias cannot matter (softmax ignores it), so tensors may have a gradient of zero: the
     * floor is what float arithmetic leaves of it. */
    return fabs(numeric - analytic) / (g_norm * d_norm + 1e-6);
}

static void check_fp32(const dip_model_config *config, int64_t n_micro, dip_duplicates duplicates)
{
    const char *devices[2];
    const int n_devices = devices_under_test(devices);
    for (int d = 0; d < n_devices; d++) {
        fixture f;
        make_fixture(&f, config);
        const int64_t n = f.clip.table.n_values;
        double *grads = dbl_zeros(n), *values = dbl_zeros(n);
        const double loss =
            gradients_of(&f, devices[d], DIP_F32, n_micro, duplicates, grads, values);
        const dbl_model model = {&f.clip, values};
        const double want = dbl_loss(&model, &f.batch, duplicates);
        if (!(fabs(loss - want) < 1e-5 * fabs(want)))
            fail_msg("%s: loss %.9g, double model %.9g", devices[d], loss, want);
        for (int i = 0; i < f.clip.table.n_params; i++) {
            const double error = direction_error(&f, grads, values, i, duplicates);
            if (!(error < 1e-4))
                fail_msg("%s: gradient of %s is off by %.3g", devices[d],
                         f.clip.table.params[i].name, error);
        }
        dip_clip_free(&f.clip);
        free(grads);
        free(values);
    }
}

static void test_class_token(void **state)
{
    (void)state;
    const dip_model_config config = small_config(DIP_POOL_TOK, false, false, DIP_ACT_GELU);
    check_fp32(&config, 1, DIP_DUP_NEGATIVE);
}

static void test_average_pool(void **state)
{
    (void)state;
    const dip_model_config config = small_config(DIP_POOL_AVG, false, true, DIP_ACT_QUICKGELU);
    check_fp32(&config, 1, DIP_DUP_POSITIVE);
}

static void test_average_pool_before_norm(void **state)
{
    (void)state;
    const dip_model_config config = small_config(DIP_POOL_AVG, true, false, DIP_ACT_GELU);
    check_fp32(&config, 1, DIP_DUP_MASK);
}

static void test_accumulation_is_the_big_batch(void **state)
{
    (void)state;
    const dip_model_config config = small_config(DIP_POOL_TOK, false, false, DIP_ACT_GELU);
    check_fp32(&config, 3, DIP_DUP_POSITIVE);
}

/* |a - b| / |b| of one tensor. */
static double distance(const dip_param *p, const double *a, const double *b)
{
    double difference = 0, size = 0;
    for (int64_t i = p->offset; i < p->offset + p->n_elements; i++) {
        difference += (a[i] - b[i]) * (a[i] - b[i]);
        size += b[i] * b[i];
    }
    return sqrt(difference) / (sqrt(size) + 1e-4);
}

/* The truth for bf16: fp32 gradients at the same (bf16) weights, taken from the reference backend
 * run on weights that bf16 holds exactly. */
static void test_bf16(void **state)
{
    (void)state;
    const dip_model_config config = small_config(DIP_POOL_TOK, false, false, DIP_ACT_GELU);
    fixture f;
    make_fixture(&f, &config);
    const dip_param_table *table = &f.clip.table;
    const int64_t n = table->n_values;
    double *truth = dbl_zeros(n), *plain = dbl_zeros(n), *fast = dbl_zeros(n);
    float *rounded = malloc((size_t)n * sizeof *rounded);
    dip_param_table_init_values(table, rounded, 3);
    for (int64_t i = 0; i < n; i++)
        if (i != table->params[f.clip.logit_scale].offset)
            rounded[i] = dip_bf16_to_float(dip_bf16_from_float(rounded[i]));
    const dip_step_options options = {.device = "reference",
                                      .dtype = DIP_F32,
                                      .n_threads = 1,
                                      .micro_batch = BATCH,
                                      .n_micro = 1,
                                      .loss = dip_loss_find("infonce"),
                                      .optimizer = {.beta1 = 0.9, .beta2 = 0.98, .eps = 1e-6}};
    dip_step step;
    dip_step_result result;
    assert_int_equal(dip_step_open(&step, &f.clip, &options), DIP_OK);
    assert_int_equal(dip_step_upload(&step, rounded, NULL), DIP_OK);
    assert_int_equal(dip_step_run(&step, &result, &f.batch, 0.0), DIP_OK);
    read_gradients(&step, truth);
    dip_step_close(&step);
    gradients_of(&f, "reference", DIP_BF16, 1, DIP_DUP_NEGATIVE, plain, NULL);
    gradients_of(&f, device_under_test(), DIP_BF16, 1, DIP_DUP_NEGATIVE, fast, NULL);
    for (int i = 0; i < table->n_params; i++) {
        const double allowed = distance(&table->params[i], plain, truth);
        const double error = distance(&table->params[i], fast, truth);
        if (!(allowed < 0.1))
            fail_msg("reference bf16: gradient of %s is off by %.3g", table->params[i].name,
                     allowed);
        /* 2x the naive error, plus one bf16 rounding (2^-8) where the naive one was lucky */
        if (!(error <= 2 * allowed + 0x1p-8))
            fail_msg("%s bf16: gradient of %s is off by %.3g, reference by %.3g",
                     device_under_test(), table->params[i].name, error, allowed);
    }
    dip_clip_free(&f.clip);
    free(truth);
    free(plain);
    free(fast);
    free(rounded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_class_token),
        cmocka_unit_test(test_average_pool),
        cmocka_unit_test(test_average_pool_before_norm),
        cmocka_unit_test(test_accumulation_is_the_big_batch),
        cmocka_unit_test(test_bf16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
