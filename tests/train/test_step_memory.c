/* Memory that is not there: what a step needs, what fits, what a refusal says; and the options that
 * ask for it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/memory.h"
#include "train/options.h"
#include "train/step_world.h"

static size_t bytes_of(const world *w, dip_step_options options, int64_t micro_batch,
                       dip_recompute recompute)
{
    size_t n_bytes;
    dip_step step;
    options.memory_bytes = 0;
    open_step(&step, w, &options);
    assert_int_equal(dip_step_bytes(&n_bytes, &step, micro_batch, recompute), DIP_OK);
    if (micro_batch == options.micro_batch && recompute == step.options.recompute)
        assert_true(n_bytes == dip_plan_total_bytes(step.plan) + step.exec.workspace_bytes);
    dip_step_close(&step);
    return n_bytes;
}

static void test_least_that_fits(void **state)
{
    (void)state;
    world *w = open_world();
    dip_step_options options = usual(device_under_test(), DIP_F32);
    size_t bytes[3];
    for (int i = 0; i < 3; i++) bytes[i] = bytes_of(w, options, BATCH, (dip_recompute)i);
    assert_true(bytes[0] > bytes[1] && bytes[1] > bytes[2]);
    options.choose_recompute = true;
    for (int i = 0; i < 3; i++) {
        dip_step step;
        options.memory_bytes = bytes[i]; /* just enough for this one */
        open_step(&step, w, &options);
        assert_int_equal(step.options.recompute, i);
        dip_step_close(&step);
    }
    options.memory_bytes = 0;
    dip_step step;
    open_step(&step, w, &options);
    assert_int_equal(step.options.recompute, DIP_RECOMPUTE_NONE);
    dip_step_close(&step);
    dip_clip_free(&w->clip);
}

/* The refusal's figures are true: each named batch fits, and one pair more does not. */
static void test_refusal(void **state)
{
    (void)state;
    world *w = open_world();
    dip_step_options options = usual(device_under_test(), DIP_F32);
    dip_step step;
    const size_t block = bytes_of(w, options, BATCH, DIP_RECOMPUTE_BLOCK);
    options.choose_recompute = true;
    options.memory_bytes = block - 1;
    assert_int_equal(dip_step_open(&step, &w->clip, &options), DIP_NOMEM);
    long long named[3], asked, parts;
    char mode[8];
    double needs, allowed;
    if (sscanf(dip_error(),
               "--batch-size %lld (--accum-freq %lld) needs %lf MiB with --recompute %7s --memory "
               "allows %lf MiB. The largest --batch-size that fits: %lld with --recompute none, "
               "%lld with mlp, %lld with block",
               &asked, &parts, &needs, mode, &allowed, &named[0], &named[1], &named[2]) != 8)
        fail_msg("not the sentence: %s", dip_error());
    assert_int_equal(asked, BATCH);
    assert_int_equal(parts, 1);
    for (int i = 0; i < 3; i++) {
        assert_true(named[i] > 0 && named[i] < BATCH);
        assert_true(bytes_of(w, options, named[i], (dip_recompute)i) <= options.memory_bytes);
        assert_true(bytes_of(w, options, named[i] + 1, (dip_recompute)i) > options.memory_bytes);
    }
    /* Asked for one way, it does not take another, but says that there is one. */
    options.choose_recompute = false;
    options.recompute = DIP_RECOMPUTE_NONE;
    options.memory_bytes = block;
    assert_int_equal(dip_step_open(&step, &w->clip, &options), DIP_NOMEM);
    assert_non_null(strstr(dip_error(), "with --recompute none; --memory allows"));
    assert_non_null(strstr(dip_error(), "at least 12 with block"));
    options.memory_bytes = 1;
    assert_int_equal(dip_step_open(&step, &w->clip, &options), DIP_NOMEM);
    assert_non_null(strstr(dip_error(), "0 with --recompute none, 0 with mlp, 0 with block"));
    dip_clip_free(&w->clip);
}

#ifdef DIPTYCH_EMULATED_GPU
/* The device is named when it is what has too little, whatever the option would allow. */
static void test_refusal_names_the_device(void **state)
{
    (void)state;
    world *w = open_world();
    dip_step_options options = usual("cuda", DIP_F32);
    dip_step step;
    /* Of which the executor alone takes 33 MiB. */
    assert_int_equal(setenv("DIPTYCH_EMULATED_MEMORY", "35000000", 1), 0);
    for (int i = 0; i < 2; i++) {
        options.memory_bytes = i == 0 ? 0 : (size_t)1 << 30;
        assert_int_equal(dip_step_open(&step, &w->clip, &options), DIP_NOMEM);
        if (!strstr(dip_error(), "; device cuda:0 has ")) fail_msg("not named: %s", dip_error());
    }
    assert_int_equal(unsetenv("DIPTYCH_EMULATED_MEMORY"), 0);
    dip_clip_free(&w->clip);
}
#endif

static void test_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t n_bytes;
    } good[] = {{"0", 0},          {"65536", 65536},    {"1K", 1024}, {"512M", 512u << 20},
                {"3g", 3ul << 30}, {"1.5T", 3ul << 39}, {"0.5k", 512}};
    static const char *const bad[] = {"",    "G",   "-1",   "+1", "40GB", "40 G", "4X", "1e",
                                      "nan", "inf", "1e30", "0x", ".5G",  "8G8",  "G8", "99999T"};
    size_t n_bytes;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        if (dip_memory_parse(&n_bytes, good[i].text) != DIP_OK) fail_msg("%s", dip_error());
        if (n_bytes != good[i].n_bytes) fail_msg("%s is %zu bytes", good[i].text, n_bytes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (dip_memory_parse(&n_bytes, bad[i]) != DIP_CONFIG) fail_msg("'%s' is a size", bad[i]);
        assert_non_null(strstr(dip_error(), bad[i]));
    }
}

static void test_options(void **state)
{
    (void)state;
    static const struct {
        const char *words[2];
        const char *says; /* NULL: accepted */
    } cases[] = {
        {{"--recompute", "mlp"}, NULL},     {{"--recompute", "all"}, "all"},
        {{"--memory", "40G"}, NULL},        {{"--memory", "forty"}, "--memory 'forty'"},
        {{"--device", "reference"}, NULL},  {{"--device", "abacus"}, "unknown device \"abacus\""},
        {{"--device", "cuda:x"}, "cuda:x"}, {{"--no-cuda-graphs", "--pad-captions"}, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *words[2] = {(char *)cases[i].words[0], (char *)cases[i].words[1]};
        dip_train_options o = {0};
        assert_int_equal(dip_config_defaults(&dip_train_option_table, &o), DIP_OK);
        dip_config_parse(&dip_train_option_table, &o, 2, words); /* --train-data is missing */
        char *before = strdup(dip_error());
        const dip_status status = dip_train_options_check(&o);
        const bool said =
            cases[i].says && (strstr(before, cases[i].says) ||
                              (status != DIP_OK && strstr(dip_error(), cases[i].says)));
        if (cases[i].says ? !said : status != DIP_OK)
            fail_msg("%s %s: %s; %s", words[0], words[1], before, dip_error());
        free(before);
        dip_config_free(&dip_train_option_table, &o);
    }
    assert_int_equal(dip_recompute_named("block"), DIP_RECOMPUTE_BLOCK);
    assert_string_equal(dip_recompute_name(DIP_RECOMPUTE_MLP), "mlp");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_least_that_fits),
        cmocka_unit_test(test_refusal),
#ifdef DIPTYCH_EMULATED_GPU
        cmocka_unit_test(test_refusal_names_the_device),
#endif
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
