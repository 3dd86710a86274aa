/* The step itself: what padding, forgotten activations, recording and steps on their way may not
 * change; and memory that is not there. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "train/devices.h"
#include "train/memory.h"
#include "train/options.h"

enum { BATCH = 12, SIZE = 8, CONTEXT = 9, VOCAB = 13, N_BATCHES = 7 };

/* Pairs of different lengths: every batch has another number of tokens. */
typedef struct pairs {
    uint8_t images[BATCH * SIZE * SIZE * 3];
    int32_t tokens[BATCH * CONTEXT], offsets[BATCH + 1], group[BATCH];
    dip_batch batch;
} pairs;

typedef struct world {
    dip_clip clip;
    pairs of[N_BATCHES];
} world;

static void make_pairs(pairs *p, int number)
{
    dip_rng rng;
    dip_rng_init(&rng, 17, dip_rng_stream(DIP_RNG_TEST, 0, (uint64_t)number));
    for (size_t i = 0; i < sizeof p->images; i++) p->images[i] = (uint8_t)dip_rng_below(&rng, 256);
    for (int i = 0; i < BATCH; i++) {
        /* batches 0, 2, ... of short texts, the others of long ones; the last as long as can be */
        int length = 1 + (int)dip_rng_below(&rng, 4) + (number % 2 ? CONTEXT - 4 : 0);
        if (number == N_BATCHES - 1) length = CONTEXT;
        for (int j = 0; j < length - 1; j++)
            p->tokens[p->offsets[i] + j] = (int32_t)dip_rng_below(&rng, VOCAB - 1);
        p->tokens[p->offsets[i] + length - 1] = VOCAB - 1;
        p->offsets[i + 1] = p->offsets[i] + length;
        p->group[i] = i;
    }
    p->group[7] = 3;
    p->batch = (dip_batch){.n = BATCH,
                           .images = p->images,
                           .tokens = p->tokens,
                           .offsets = p->offsets,
                           .group = p->group};
}

static world *open_world(void)
{
    static world w;
    dip_model_config config = {.embed_dim = 16, .init_logit_scale = 2};
    config.vision = (dip_vision_config){.image_size = SIZE,
                                        .patch_size = 4,
                                        .width = 32,
                                        .layers = 2,
                                        .head_width = 16,
                                        .mlp_ratio = 2,
                                        .norm_eps = 1e-5,
                                        .activation = DIP_ACT_GELU};
    config.text = (dip_text_config){.context_length = CONTEXT,
                                    .vocab_size = VOCAB,
                                    .width = 32,
                                    .heads = 2,
                                    .layers = 2,
                                    .mlp_ratio = 2,
                                    .eos_id = -1,
                                    .norm_eps = 1e-5,
                                    .activation = DIP_ACT_GELU};
    for (int i = 0; i < 3; i++) config.preprocess.std[i] = 0.3f;
    memset(&w, 0, sizeof w);
    assert_int_equal(dip_clip_init(&w.clip, &config), DIP_OK);
    for (int i = 0; i < N_BATCHES; i++) make_pairs(&w.of[i], i);
    return &w;
}

static dip_step_options usual(const char *device, dip_dtype dtype)
{
    return (dip_step_options){
        .device = device,
        .dtype = dtype,
        .n_threads = 2,
        .micro_batch = BATCH,
        .n_micro = 1,
        .loss = dip_loss_find("infonce"),
        .duplicates = DIP_DUP_POSITIVE,
        .optimizer = {
            .beta1 = 0.9, .beta2 = 0.98, .eps = 1e-3, .weight_decay = 0.1, .ema_decay = 0.5}};
}

static void open_step(dip_step *step, const world *w, const dip_step_options *options)
{
    if (dip_step_open(step, &w->clip, options) != DIP_OK) fail_msg("%s", dip_error());
    assert_int_equal(dip_step_init_weights(step, 3), DIP_OK);
}

/* |a - b| / |b| over all parameters. */
static double distance(const float *a, const float *b, int64_t n)
{
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        size += (double)b[i] * (double)b[i];
    }
    return sqrt(difference / size);
}

/* What one step on batch `number` finds; free the gradients. */
typedef struct found {
    double loss;
    float u[BATCH * 16], v[BATCH * 16], *grads;
} found;

static void find(found *f, const world *w, int number, const dip_step_options *options)
{
    const int64_t n = w->clip.table.n_values;
    dip_step step;
    dip_step_result result;
    dip_batch part = w->of[number].batch;
    open_step(&step, w, options);
    if (part.n > options->micro_batch) part.n = options->micro_batch;
    assert_int_equal(dip_step_encode(&step, f->u, f->v, &part), DIP_OK);
    assert_int_equal(dip_step_run(&step, &result, &w->of[number].batch, 1e-3), DIP_OK);
    assert_true(result.applied);
    f->loss = result.loss;
    f->grads = copy_from_device(&step.exec, step.params.grads, (size_t)n * sizeof(float));
    dip_step_close(&step);
}

/* ---- what must not matter -------------------------------------------------------------- */

/* `options` differ from the usual in something that may change the gradient by no more than `bound`
 * of its size, and the features by no more than that. */
static void check_same(const world *w, const dip_step_options *options, double bound,
                       const char *what)
{
    const dip_step_options plain = usual(options->device, options->dtype);
    for (int number = 0; number < N_BATCHES; number += DEVICE_IS_SLOW ? N_BATCHES - 1 : 1) {
        found want, got;
        find(&want, w, number, &plain);
        find(&got, w, number, options);
        const size_t n = (size_t)options->micro_batch * 16;
        const double u = distance(got.u, want.u, (int64_t)n),
                     v = distance(got.v, want.v, (int64_t)n);
        const double grads = distance(got.grads, want.grads, w->clip.table.n_values);
        if (!(fabs(got.loss - want.loss) <= bound * want.loss && u <= bound && v <= bound &&
              grads <= bound))
            fail_msg("%s, batch %d on %s: loss %.9g for %.9g, features off by %.3g and %.3g, "
                     "gradients by %.3g",
                     what, number, options->device, got.loss, want.loss, u, v, grads);
        free(want.grads);
        free(got.grads);
    }
}

static void check_everywhere(void (*change)(dip_step_options *options), double fp32_bound,
                             double bf16_bound, const char *what)
{
    world *w = open_world();
    const char *devices[2];
    const int n_devices = devices_under_test(devices);
    for (int d = 0; d < n_devices; d++)
        for (int bf16 = 0; bf16 < 2; bf16++) {
            dip_step_options options = usual(devices[d], bf16 ? DIP_BF16 : DIP_F32);
            change(&options);
            check_same(w, &options, bf16 ? bf16_bound : fp32_bound, what);
        }
    dip_clip_free(&w->clip);
}

static void packed(dip_step_options *options)
{
    options->padding = DIP_TEXT_PAD_NONE;
}
static void in_buckets(dip_step_options *options)
{
    options->padding = DIP_TEXT_PAD_BUCKETS;
}
static void in_full(dip_step_options *options)
{
    options->padding = DIP_TEXT_PAD_FULL;
}
static void in_full_with_all_rows(dip_step_options *options)
{
    options->padding = DIP_TEXT_PAD_FULL;
    options->all_rows = true;
}
static void forget_mlp(dip_step_options *options)
{
    options->recompute = DIP_RECOMPUTE_MLP;
}
static void forget_block(dip_step_options *options)
{
    options->recompute = DIP_RECOMPUTE_BLOCK;
    options->padding = DIP_TEXT_PAD_BUCKETS;
}
static void in_parts(dip_step_options *options)
{
    options->micro_batch = BATCH / 4;
    options->n_micro = 4;
    options->padding = DIP_TEXT_PAD_BUCKETS;
}
static void timed_in_parts(dip_step_options *options)
{
    options->time_parts = true;
}

/* Sums over rows may be cut into blocks elsewhere when there are more rows: rounding. */
static void test_padding(void **state)
{
    (void)state;
    check_everywhere(packed, 1e-6, 4e-3, "packed");
    check_everywhere(in_buckets, 1e-6, 4e-3, "padded to buckets");
    check_everywhere(in_full, 1e-6, 4e-3, "padded to the context");
    check_everywhere(in_full_with_all_rows, 1e-6, 1e-2, "padded to the context, with all rows");
}

/* The CPU's bf16 products activate before they round: see nn/block.h. */
static void test_recompute(void **state)
{
    (void)state;
    check_everywhere(forget_mlp, 1e-6, 1e-2, "mlp computed again");
    check_everywhere(forget_block, 1e-6, 4e-3, "blocks computed again");
}

static void test_parts(void **state)
{
    (void)state;
    check_everywhere(in_parts, 1e-6, 1e-2, "four micro-batches");
    check_everywhere(timed_in_parts, 0, 0, "part by part");
}

/* ---- steps on their way ---------------------------------------------------------------- */

enum { N_STEPS = DEVICE_IS_SLOW ? N_BATCHES + 5 : 2 * N_BATCHES + 3 };

static int batch_of_step(int s)
{
    return s < N_BATCHES ? s : (5 * s) % N_BATCHES;
}

/* N_STEPS steps, as many on their way as may be (or one), and what is left of them. */
static void run_all(dip_step_result *results, float *master, const world *w,
                    const dip_step_options *options, bool overlapping)
{
    const int64_t n = w->clip.table.n_values;
    dip_step step;
    int submitted = 0;
    open_step(&step, w, options);
    const int limit = overlapping ? dip_step_in_flight_limit(&step) : 1;
    assert_true(limit >= 1 && limit <= DIP_N_SLOTS);
    for (int s = 0; s < N_STEPS; s++) {
        while (submitted < N_STEPS && dip_step_in_flight(&step) < limit) {
            /* The batch may go when submit returns. */
            pairs *lent = malloc(sizeof *lent);
            const pairs *from = &w->of[batch_of_step(submitted)];
            *lent = *from;
            lent->batch = (dip_batch){.n = BATCH,
                                      .images = lent->images,
                                      .tokens = lent->tokens,
                                      .offsets = lent->offsets,
                                      .group = lent->group};
            const double lr = 1e-3 * (1 + submitted % 5);
            if (dip_step_submit(&step, &lent->batch, lr) != DIP_OK) fail_msg("%s", dip_error());
            memset(lent, 0xff, sizeof *lent);
            free(lent);
            submitted++;
        }
        assert_int_equal(dip_step_in_flight(&step), submitted - s);
        assert_int_equal(dip_step_collect(&step, &results[s]), DIP_OK);
        assert_true(results[s].applied);
        assert_true(results[s].times.step_ms > 0);
    }
    from_device(&step.exec, master, step.params.master, (size_t)n * sizeof *master);
    /* Where steps are recorded, they were. */
    const bool records = step.exec.device->capture_begin && options->graphs &&
                         options->n_micro == 1 && !options->time_parts;
    int n_graphs = 0;
    for (int i = 0; i < step.graphs.n_sizes; i++)
        for (int slot = 0; slot < DIP_N_SLOTS; slot++)
            n_graphs += step.graphs.sizes[i].graphs[slot] != NULL;
    assert_int_equal(n_graphs > 0, records);
    dip_step_close(&step);
}

static void check_overlap(dip_dtype dtype, int64_t n_micro)
{
    world *w = open_world();
    const int64_t n = w->clip.table.n_values;
    dip_step_options options = usual(device_under_test(), dtype);
    options.micro_batch = BATCH / n_micro;
    options.n_micro = n_micro;
    dip_step_result want[N_STEPS], got[N_STEPS];
    float *alone = malloc((size_t)n * sizeof *alone), *master = malloc((size_t)n * sizeof *master);
    run_all(want, alone, w, &options, false);
    for (int way = 0; way < 3; way++) {
        options.graphs = way > 0;
        run_all(got, master, w, &options, way < 2);
        for (int s = 0; s < N_STEPS; s++)
            if (want[s].loss != got[s].loss || want[s].grad_norm != got[s].grad_norm ||
                want[s].logit_scale != got[s].logit_scale)
                fail_msg("way %d, step %d: loss %.17g for %.17g, norm %.17g for %.17g", way, s,
                         got[s].loss, want[s].loss, got[s].grad_norm, want[s].grad_norm);
        assert_memory_equal(alone, master, (size_t)n * sizeof *master);
    }
    free(alone);
    free(master);
    dip_clip_free(&w->clip);
}

static void test_overlap_fp32(void **state)
{
    (void)state;
    check_overlap(DIP_F32, 1);
}

static void test_overlap_bf16(void **state)
{
    (void)state;
    check_overlap(DIP_BF16, 1);
}

static void test_overlap_of_parts(void **state)
{
    (void)state;
    check_overlap(DIP_F32, 3);
}

/* Evaluation between steps leaves nothing behind that a recorded step would trip over. */
static void test_encode_between_steps(void **state)
{
    (void)state;
    world *w = open_world();
    dip_step_options options = usual(device_under_test(), DIP_F32);
    options.graphs = true;
    dip_step step;
    dip_step_result result;
    double losses[2][4];
    float u[BATCH * 16], v[BATCH * 16];
    for (int way = 0; way < 2; way++) {
        open_step(&step, w, &options);
        for (int s = 0; s < 4; s++) {
            dip_batch few = w->of[1].batch;
            few.n = 5;
            if (way == 1) assert_int_equal(dip_step_encode(&step, u, v, &few), DIP_OK);
            assert_int_equal(dip_step_run(&step, &result, &w->of[0].batch, 1e-3), DIP_OK);
            losses[way][s] = result.loss;
        }
        dip_step_close(&step);
    }
    assert_memory_equal(losses[0], losses[1], sizeof losses[0]);
    dip_clip_free(&w->clip);
}

static void test_wrong_use(void **state)
{
    (void)state;
    world *w = open_world();
    dip_step_options options = usual(device_under_test(), DIP_F32);
    dip_step step;
    dip_step_result result;
    open_step(&step, w, &options);
    dip_batch few = w->of[0].batch, bad = w->of[0].batch;
    few.n = BATCH - 1;
    assert_int_equal(dip_step_submit(&step, &few, 1e-3), DIP_CONFIG);
    assert_int_equal(dip_step_collect(&step, &result), DIP_CONFIG);
    for (int i = 0; i < dip_step_in_flight_limit(&step); i++)
        assert_int_equal(dip_step_submit(&step, &w->of[0].batch, 1e-3), DIP_OK);
    assert_int_equal(dip_step_submit(&step, &w->of[0].batch, 1e-3), DIP_CONFIG);
    while (dip_step_in_flight(&step) > 0)
        assert_int_equal(dip_step_collect(&step, &result), DIP_OK);
    int32_t tokens[BATCH * CONTEXT];
    memcpy(tokens, w->of[0].tokens, sizeof tokens);
    tokens[2] = VOCAB;
    bad.tokens = tokens;
    assert_int_equal(dip_step_encode(&step, NULL, (float[BATCH * 16]){0}, &bad), DIP_FORMAT);
    assert_non_null(strstr(dip_error(), "token id 13 is outside"));
    dip_step_close(&step);
    dip_clip_free(&w->clip);
}

/* A device that counts what the table of recorded steps asks of it. */
static int n_freed, n_synchronized;

static void count_freed(dip_exec *exec, dip_graph *graph)
{
    (void)exec;
    assert_non_null(graph);
    n_freed++;
}

static dip_status count_synchronized(dip_exec *exec)
{
    (void)exec;
    n_synchronized++;
    return DIP_OK;
}

static void test_graph_table(void **state)
{
    (void)state;
    const dip_device device = {.graph_free = count_freed, .synchronize = count_synchronized};
    dip_exec exec = {.device = &device};
    dip_graphs graphs = {0};
    dip_graph **place, *const some = (dip_graph *)(uintptr_t)64;
    n_freed = n_synchronized = 0;
    for (int size = 0; size < DIP_MAX_GRAPH_SIZES; size++) {
        assert_int_equal(dip_graphs_find(&graphs, &exec, &place, 100 + size, 0), DIP_OK);
        assert_null(place); /* the first of its size is not recorded */
        for (int slot = 0; slot < DIP_N_SLOTS; slot++) {
            assert_int_equal(dip_graphs_find(&graphs, &exec, &place, 100 + size, slot), DIP_OK);
            assert_non_null(place);
            assert_null(*place);
            *place = some;
        }
    }
    assert_int_equal(dip_graphs_find(&graphs, &exec, &place, 100, 1), DIP_OK);
    assert_ptr_equal(*place, some);
    assert_int_equal(n_freed + n_synchronized, 0);
    /* 101 is now the one that was used longest ago */
    assert_int_equal(dip_graphs_find(&graphs, &exec, &place, 7, 0), DIP_OK);
    assert_null(place);
    assert_int_equal(n_freed, DIP_N_SLOTS);
    assert_int_equal(n_synchronized, 1);
    assert_int_equal(dip_graphs_find(&graphs, &exec, &place, 7, 1), DIP_OK);
    assert_null(*place);
    assert_int_equal(dip_graphs_find(&graphs, &exec, &place, 100, 0), DIP_OK);
    assert_ptr_equal(*place, some);
    assert_int_equal(dip_graphs_find(&graphs, &exec, &place, 101, 0), DIP_OK);
    assert_null(place); /* gone, and 102 with it now */
    assert_int_equal(n_freed, 2 * DIP_N_SLOTS);
    dip_graphs_free(&graphs, &exec);
    assert_int_equal(n_freed, DIP_N_SLOTS * DIP_MAX_GRAPH_SIZES);
    assert_int_equal(graphs.n_sizes, 0);
}

/* ---- memory ---------------------------------------------------------------------------- */

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
        cmocka_unit_test(test_padding),
        cmocka_unit_test(test_recompute),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_overlap_fp32),
        cmocka_unit_test(test_overlap_bf16),
        cmocka_unit_test(test_overlap_of_parts),
        cmocka_unit_test(test_encode_between_steps),
        cmocka_unit_test(test_graph_table),
        cmocka_unit_test(test_wrong_use),
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
