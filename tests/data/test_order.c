/* The order of an epoch: every sample as often as asked for, none twice in a batch, the same from
 * wherever it is looked at; and what takes the place of bad samples. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "data/order.h"

static dip_order *opened(const dip_order_options *options)
{
    dip_order *order;
    if (dip_order_open(&order, options) != DIP_OK) fail_msg("%s", dip_error());
    return order;
}

static void make(dip_order *order, int64_t epoch)
{
    if (dip_order_make(order, epoch) != DIP_OK) fail_msg("epoch %d: %s", (int)epoch, dip_error());
}

/* A plain epoch draws what the first version drew: runs of then can be repeated. */
static void plain_order_is_for_ever(void **state)
{
    (void)state;
    static const int first[12] = {196, 160, 165, 154, 97, 3, 155, 101, 27, 90, 39, 145};
    const dip_order_source halves[2] = {{0, 100, 1}, {100, 103, 1}};
    for (int i = 0; i < 2; i++) {
        const dip_order_options options = {.n_samples = 203,
                                           .sources = i ? halves : NULL,
                                           .n_sources = 2,
                                           .batch = 8,
                                           .shuffle = true,
                                           .seed = 42};
        dip_order *order = opened(&options);
        make(order, 3);
        assert_int_equal(dip_order_length(order), 203);
        for (int k = 0; k < 12; k++) assert_int_equal(dip_order_sample(order, k), first[k]);
        assert_int_equal(dip_order_sample(order, 202), 142);
        dip_order_close(order);
    }
    const dip_order_options storage = {.n_samples = 5, .batch = 8};
    dip_order *order = opened(&storage);
    make(order, 7);
    for (int k = 0; k < 5; k++) assert_int_equal(dip_order_sample(order, k), k);
    dip_order_close(order);
    dip_order_close(NULL);
}

/* No window holds a sample twice. */
static void assert_windows_differ(const dip_order *order, int64_t batch)
{
    const int64_t n = dip_order_length(order);
    for (int64_t begin = 0; begin < n; begin += batch)
        for (int64_t i = begin; i < begin + batch && i < n; i++)
            for (int64_t j = begin; j < i; j++)
                if (dip_order_sample(order, i) == dip_order_sample(order, j))
                    fail_msg("sample %d at %d and %d", (int)dip_order_sample(order, i), (int)j,
                             (int)i);
}

static void factors_say_how_often(void **state)
{
    (void)state;
    enum { N = 400, BATCH = 25 };
    static const double factors[4] = {2, 1, 0.5, 3.25};
    dip_order_source sources[4];
    for (int s = 0; s < 4; s++) sources[s] = (dip_order_source){100 * s, 100, factors[s]};
    const dip_order_options options = {.n_samples = N,
                                       .sources = sources,
                                       .n_sources = 4,
                                       .batch = BATCH,
                                       .shuffle = true,
                                       .seed = 1};
    dip_order *order = opened(&options);
    assert_int_equal(dip_order_length(order), 200 + 100 + 50 + 325);
    assert_int_equal(dip_order_batches(order, false), 27);
    assert_int_equal(dip_order_batches(order, true), 27);
    int ever[N] = {0}, early = 0;
    for (int64_t epoch = 0; epoch < 20; epoch++) {
        int times[N] = {0}, more = 0;
        make(order, epoch);
        assert_windows_differ(order, BATCH);
        for (int64_t p = 0; p < 675; p++) {
            const int64_t sample = dip_order_sample(order, p);
            assert_int_equal(dip_order_repeat(order, p), times[sample]);
            times[sample]++;
            early += p < 337 && sample >= 100 && sample < 200;
        }
        for (int i = 0; i < N; i++) {
            const int whole = (int)factors[i / 100];
            const int extra = times[i] - whole;
            assert_true(extra == 0 || (extra == 1 && factors[i / 100] != whole));
            more += extra;
            ever[i] += extra;
        }
        assert_int_equal(more, 50 + 25);
    }
    assert_true(early > 850 && early < 1150); /* a source that comes once comes everywhere */
    for (int i = 200; i < 300; i++) assert_true(ever[i] >= 2 && ever[i] <= 18); /* 10, sd 2.2 */
    dip_order_close(order);
}

/* Epochs of any length go through the passes: each pass has every sample, each epoch is the same
 * whether the ones before it were made or not. */
static void passes_follow_one_another(void **state)
{
    (void)state;
    enum { N = 100, EPOCHS = 60 };
    static const struct {
        int64_t batch, samples, length;
    } cases[] = {{5, 37, 35},  {7, 250, 245},  {30, 30, 30},
                 {60, 61, 60}, {90, 200, 180}, {100, 100, 100}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        const dip_order_options options = {.n_samples = N,
                                           .batch = cases[c].batch,
                                           .epoch_samples = cases[c].samples,
                                           .shuffle = true,
                                           .seed = 9};
        dip_order *order = opened(&options);
        const int64_t length = dip_order_length(order);
        assert_int_equal(length, cases[c].length);
        int seen[EPOCHS * 245 / N + 1][N] = {{0}};
        int64_t n = 0;
        for (int64_t epoch = 0; epoch < EPOCHS; epoch++) {
            make(order, epoch);
            assert_windows_differ(order, cases[c].batch);
            dip_order *alone = opened(&options);
            make(alone, epoch);
            for (int64_t p = 0; p < length; p++, n++) {
                seen[n / N][dip_order_sample(order, p)]++;
                assert_int_equal(dip_order_sample(order, p), dip_order_sample(alone, p));
                assert_int_equal(dip_order_repeat(order, p), dip_order_repeat(alone, p));
            }
            dip_order_close(alone);
        }
        for (int64_t pass = 0; pass < n / N; pass++)
            for (int i = 0; i < N; i++)
                if (seen[pass][i] != 1)
                    fail_msg("case %d: pass %d has sample %d %d times", (int)c, (int)pass, i,
                             seen[pass][i]);
        dip_order_close(order);
    }
}

static void with_replacement_by_weight_and_size(void **state)
{
    (void)state;
    const dip_order_source sources[2] = {{0, 300, 2}, {300, 900, 1}}; /* 600 to 900 */
    dip_order_options options = {.n_samples = 1200,
                                 .sources = sources,
                                 .n_sources = 2,
                                 .batch = 50,
                                 .epoch_samples = 100020,
                                 .shuffle = true,
                                 .resample = true,
                                 .seed = 3};
    dip_order *order = opened(&options);
    assert_int_equal(dip_order_length(order), 100000);
    int64_t times[1200] = {0}, first = 0;
    make(order, 0);
    assert_windows_differ(order, 50);
    for (int64_t p = 0; p < 100000; p++) {
        const int64_t sample = dip_order_sample(order, p);
        assert_int_equal(dip_order_repeat(order, p), times[sample]);
        times[sample]++;
        first += sample < 300;
    }
    assert_true(llabs(first - 40000) < 5 * 155); /* drawing again within a batch costs 0.5 % */
    for (int i = 0; i < 1200; i++) assert_true(times[i] > 0);
    dip_order_close(order);

    options.epoch_samples = 0;
    assert_int_equal(dip_order_open(&order, &options), DIP_CONFIG);
    options.epoch_samples = 40;
    assert_int_equal(dip_order_open(&order, &options), DIP_CONFIG);
    options.epoch_samples = 6000;
    options.batch = 601;
    assert_int_equal(dip_order_open(&order, &options), DIP_CONFIG);
    assert_non_null(strstr(dip_error(), "1200 samples"));
    const dip_order_source lopsided[2] = {{0, 20, 1000}, {20, 1180, 1e-7}};
    options.batch = 50;
    options.sources = lopsided;
    order = opened(&options);
    assert_int_equal(dip_order_make(order, 0), DIP_CONFIG);
    dip_order_close(order);
}

/* Windows as a loader takes them, a random share of the samples being bad: every good sample once
 * (as often as its factor), nothing twice in a batch, at most an unfinished batch left over. */
static void check_spares(const dip_order_options *options, uint64_t seed, bool repeats)
{
    dip_order *order = opened(options);
    const int64_t n = dip_order_length(order), batch = options->batch;
    const int64_t epoch = (int64_t)seed;
    int64_t begin = 0, n_spares = 0, n_used = 0, n_good = 0;
    int *times = calloc((size_t)options->n_samples, sizeof *times);
    int64_t *in_batch = calloc((size_t)options->n_samples, sizeof *in_batch);
    dip_rng rng;
    dip_rng_init(&rng, seed, dip_rng_stream(DIP_RNG_TEST, 0, 0));
    bool *bad = calloc((size_t)options->n_samples, sizeof *bad);
    const double share = (double)(seed % 4) * 0.15;
    for (int64_t i = 0; i < options->n_samples; i++) bad[i] = dip_rng_uniform(&rng) < share;
    make(order, epoch);
    for (int64_t p = 0; p < n; p++) n_good += !bad[dip_order_sample(order, p)];
    for (int64_t window, k = 1; (window = dip_order_window(order, begin, n_spares)) > 0; k++) {
        int64_t n_filled = 0;
        for (int64_t j = 0; j < batch; j++) {
            int64_t position = j < window ? begin + j : dip_order_spare(order);
            while (position >= 0 && bad[dip_order_sample(order, position)]) {
                const int64_t expected = dip_order_spare_ahead(order, 0);
                position = dip_order_spare(order);
                if (!repeats && !options->wrap) assert_int_equal(position, expected);
            }
            if (position < 0) continue;
            const int64_t sample = dip_order_sample(order, position);
            assert_int_not_equal(in_batch[sample], k);
            in_batch[sample] = k;
            times[sample]++;
            n_filled++;
        }
        n_spares = dip_order_n_spares(order);
        begin += batch;
        n_used += n_filled;
        if (n_filled < batch) break;
        assert_true(!options->wrap || n_filled == batch);
    }
    assert_int_equal(dip_order_window(order, begin, n_spares), 0);
    if (!repeats && !options->wrap) {
        assert_int_equal(n_used, n_good);
        for (int64_t i = 0; i < options->n_samples; i++) assert_int_equal(times[i], !bad[i]);
    }
    assert_true(n_used >= n_good - n_good / 4 && (options->wrap || n_used <= n_good));
    free(times);
    free(in_batch);
    free(bad);
    dip_order_close(order);
}

static void spares_take_the_place_of_bad_ones(void **state)
{
    (void)state;
    const dip_order_source sources[2] = {{0, 150, 2}, {150, 350, 1.5}};
    for (uint64_t seed = 0; seed < 40; seed++) {
        dip_order_options options = {
            .n_samples = 500, .batch = 1 + (int64_t)seed % 33, .shuffle = true, .seed = seed};
        check_spares(&options, seed, false);
        options.wrap = true;
        check_spares(&options, seed, true);
        options.wrap = false;
        options.epoch_samples = 700;
        check_spares(&options, seed, true);
        options.resample = true;
        check_spares(&options, seed, true);
        options.resample = false;
        options.epoch_samples = 0;
        options.sources = sources;
        options.n_sources = 2;
        check_spares(&options, seed, true);
    }
}

static void the_last_batch_is_filled_from_what_comes_next(void **state)
{
    (void)state;
    const dip_order_options options = {
        .n_samples = 100, .batch = 30, .shuffle = true, .wrap = true, .seed = 4};
    dip_order *order = opened(&options);
    assert_int_equal(dip_order_batches(order, false), 4);
    make(order, 1);
    int64_t next[100], window[30];
    for (int i = 0; i < 100; i++) next[i] = dip_order_sample(order, i);
    make(order, 0);
    assert_int_equal(dip_order_window(order, 90, 0), 10);
    for (int i = 0; i < 10; i++) window[i] = dip_order_sample(order, 90 + i);
    for (int i = 10, k = 0; i < 30; i++, k++) {
        for (int j = 0; j < 10; j++)
            if (next[k] == window[j]) k++, j = -1; /* passed over */
        const int64_t spare = dip_order_spare(order);
        assert_true(spare >= 100);
        window[i] = dip_order_sample(order, spare);
        assert_int_equal(window[i], next[k]);
        assert_int_equal(dip_order_repeat(order, spare), 1);
    }
    assert_int_equal(dip_order_window(order, 120, 0), 0);
    dip_order_close(order);

    dip_order_options stretch = options;
    stretch.epoch_samples = 200;
    order = opened(&stretch);
    assert_int_equal(dip_order_length(order), 210);
    dip_order_close(order);
}

static void impossible_orders_are_refused(void **state)
{
    (void)state;
    const dip_order_source good = {0, 10, 1};
    dip_order_source s = good;
    const dip_order_options usual = {
        .n_samples = 10, .sources = &s, .n_sources = 1, .batch = 4, .shuffle = true};
    for (int i = 0; i < 14; i++) {
        dip_order_options o = usual;
        s = good;
        if (i == 0) o.batch = 0;
        if (i == 1) s.factor = 0;
        if (i == 2) s.factor = NAN;
        if (i == 3) s.factor = 1001;
        if (i == 4) s.n = 0;
        if (i == 5) s.factor = 2, o.batch = 6;          /* a part has 10 */
        if (i == 6) o.epoch_samples = 40, o.batch = 11; /* passes meet */
        if (i == 7) o.epoch_samples = 3;
        if (i == 8) s.factor = 0.01;
        if (i == 9) s.first = -1;
        if (i == 10) s.first = 1; /* and 10 from there */
        if (i == 11) s.n = INT64_MAX;
        if (i > 11) o.resample = true, o.epoch_samples = 40;
        if (i == 12) s.factor = NAN;
        if (i == 13) s.n = 0;
        dip_order *order;
        assert_int_equal(dip_order_open(&order, &o), DIP_CONFIG);
        assert_null(order);
    }
    s = good;
    dip_order_options o = usual;
    o.batch = 11; /* no batch, but nothing wrong */
    dip_order *order = opened(&o);
    assert_int_equal(dip_order_batches(order, false), 0);
    make(order, 0);
    dip_order_close(order);
    o.n_samples = 0;
    o.sources = NULL;
    order = opened(&o);
    make(order, 0);
    assert_int_equal(dip_order_window(order, 0, 0), 0);
    dip_order_close(order);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_order_is_for_ever),
        cmocka_unit_test(factors_say_how_often),
        cmocka_unit_test(passes_follow_one_another),
        cmocka_unit_test(with_replacement_by_weight_and_size),
        cmocka_unit_test(spares_take_the_place_of_bad_ones),
        cmocka_unit_test(the_last_batch_is_filled_from_what_comes_next),
        cmocka_unit_test(impossible_orders_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
