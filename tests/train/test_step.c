/* The step itself: what padding, forgotten activations, recording and steps on their way may not
 * change. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/step_world.h"

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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
