/* How a batch of texts becomes rows: buckets, the sequences that fill them, and every array that
 * the ops read, for each padding. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "text/layout.h"

/* ---- buckets --------------------------------------------------------------------------- */

static const int64_t no_limit = INT64_MAX / 2;

static void test_known_buckets(void **state)
{
    (void)state;
    static const int64_t known[][2] = {
        {0, 0},       {1, 64},        {63, 64},       {64, 64},       {65, 68},      {68, 68},
        {69, 72},     {127, 128},     {128, 128},     {129, 136},     {1000, 1024},  {1024, 1024},
        {1025, 1088}, {20480, 20480}, {20481, 21504}, {78848, 81920}, {65537, 69632}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        const int64_t got = dip_text_bucket(known[i][0], no_limit);
        if (got != known[i][1])
            fail_msg("the bucket of %lld is %lld, not %lld", (long long)known[i][0], (long long)got,
                     (long long)known[i][1]);
    }
    assert_int_equal(dip_text_bucket(20481, 20482), 20482);
    assert_int_equal(dip_text_bucket(20, 32), 32);
    assert_int_equal(dip_text_bucket(32, 32), 32);
    assert_int_equal(dip_text_bucket(70, 71), 71);
}

/* All that a bucket promises, for every number of rows up to what four bits more than a bucket's
 * spacing need. */
static void test_every_bucket(void **state)
{
    (void)state;
    int64_t n_buckets = 0, last = 0;
    for (int64_t n = 1; n <= 40000; n++) {
        const int64_t bucket = dip_text_bucket(n, no_limit);
        int64_t odd = bucket;
        while (odd % 2 == 0) odd /= 2;
        assert_true(odd < 32); /* five significant bits */
        assert_true(bucket >= n && bucket >= 64);
        assert_true(n < 64 || (bucket - n) * 16 < n); /* less than a sixteenth is waste */
        assert_true(bucket >= last);                  /* more rows, no smaller bucket */
        assert_int_equal(dip_text_bucket(bucket, no_limit), bucket);
        n_buckets += bucket != last;
        last = bucket;
    }
    assert_true(n_buckets < 16 * 11); /* few */
}

/* Any batch of the bucket can be filled, and how many fillers there are depends on the bucket
 * alone; under any limit. */
static void test_fillers(void **state)
{
    (void)state;
    static const int contexts[] = {1, 3, 8, 12, 32, 77, 256};
    static const int64_t limits[] = {1, 12, 63, 64, 65, 70, 100, 128, 1000, 5000, 9000};
    for (size_t c = 0; c < sizeof contexts / sizeof contexts[0]; c++)
        for (size_t l = 0; l < sizeof limits / sizeof limits[0]; l++) {
            const dip_text_layout most =
                dip_text_layout_largest(5, limits[l], contexts[c], DIP_TEXT_PAD_BUCKETS, false);
            for (int64_t n = 1; n <= limits[l]; n++) {
                const int64_t bucket = dip_text_bucket(n, limits[l]);
                const int64_t fillers = dip_text_fillers(bucket, contexts[c]);
                assert_true(fillers * contexts[c] >= bucket - n);
                assert_true(fillers <= most.n_sequences - 5);
                /* and no more than the smallest batch of the bucket could need, but for a cut one
                 */
                if (bucket == dip_text_bucket(n, no_limit) && bucket > 64 &&
                    dip_text_bucket(n - 1, no_limit) != bucket)
                    assert_true((fillers - 1) * contexts[c] < bucket - n);
            }
        }
    assert_int_equal(dip_text_fillers(0, 77), 0);
}

/* ---- layouts --------------------------------------------------------------------------- */

enum { CONTEXT = 9, MAX_TEXTS = 40, VOCAB = 23, GUARD = 77777 };

typedef struct batch {
    int64_t n;
    int32_t tokens[MAX_TEXTS * CONTEXT], offsets[MAX_TEXTS + 1];
} batch;

static void make_batch(batch *b, int64_t n, int shortest, int longest, uint64_t seed)
{
    dip_rng rng;
    dip_rng_init(&rng, seed, dip_rng_stream(DIP_RNG_TEST, 0, 0));
    b->n = n;
    b->offsets[0] = 0;
    for (int64_t i = 0; i < n; i++) {
        const int length = shortest + (int)dip_rng_below(&rng, (uint64_t)(longest - shortest) + 1);
        for (int j = 0; j < length; j++)
            b->tokens[b->offsets[i] + j] = 1 + (int32_t)dip_rng_below(&rng, VOCAB - 1);
        b->offsets[i + 1] = b->offsets[i] + length;
    }
}

static void check_layout(const batch *b, dip_text_padding padding, bool ordered)
{
    const int64_t max_rows = MAX_TEXTS * CONTEXT, n_tokens = b->offsets[b->n];
    const dip_text_layout most =
        dip_text_layout_largest(MAX_TEXTS, max_rows, CONTEXT, padding, ordered);
    const dip_text_layout l =
        dip_text_layout_of(b->n, n_tokens, max_rows, CONTEXT, padding, ordered);
    int32_t counts[VOCAB + 1], *block = malloc((most.n_values + 1) * sizeof *block);
    bool is_seen[MAX_TEXTS * CONTEXT] = {false};
    assert_true(l.n_values <= most.n_values);
    for (size_t i = 0; i <= most.n_values; i++) block[i] = GUARD;
    dip_text_lay_out(block, &l, b->tokens, b->offsets, CONTEXT, padding, ordered ? counts : NULL,
                     VOCAB);
    for (size_t i = l.n_values; i <= most.n_values; i++) assert_int_equal(block[i], GUARD);
    const int32_t *tokens = block + l.tokens, *starts = block + l.offsets;
    const int32_t *ends = block + l.end_rows, *order = block + l.order;

    /* sequences follow each other, none too long, to the last row; all tokens can be looked up */
    assert_int_equal(l.n_texts, b->n);
    assert_int_equal(starts[0], 0);
    assert_int_equal(starts[l.n_sequences], l.n_rows);
    for (int64_t i = 0; i < l.n_sequences; i++) {
        assert_true(starts[i + 1] >= starts[i] && starts[i + 1] - starts[i] <= CONTEXT);
        if (padding == DIP_TEXT_PAD_FULL) assert_int_equal(starts[i + 1] - starts[i], CONTEXT);
    }
    for (int64_t row = 0; row < l.n_rows; row++)
        assert_true(tokens[row] >= 0 && tokens[row] < VOCAB);
    if (padding == DIP_TEXT_PAD_NONE) assert_int_equal(l.n_rows, n_tokens);
    if (padding == DIP_TEXT_PAD_BUCKETS)
        assert_int_equal(l.n_rows, dip_text_bucket(n_tokens, max_rows));

    /* each text is where its sequence begins, and its end is known */
    for (int64_t i = 0; i < b->n; i++) {
        const int32_t length = b->offsets[i + 1] - b->offsets[i];
        assert_memory_equal(tokens + starts[i], b->tokens + b->offsets[i],
                            (size_t)length * sizeof *tokens);
        assert_int_equal(ends[i], starts[i] + length - 1);
    }
    if (!ordered) {
        assert_int_equal(l.order, l.n_values);
        free(block);
        return;
    }
    /* the rows of texts, once each, by token and then by row; then nothing */
    for (int64_t i = 0; i < n_tokens; i++) {
        assert_true(order[i] >= 0 && order[i] < l.n_rows);
        assert_false(is_seen[order[i]]);
        is_seen[order[i]] = true;
        if (i == 0) continue;
        const int32_t a = order[i - 1], c = order[i];
        assert_true(tokens[a] < tokens[c] || (tokens[a] == tokens[c] && a < c));
    }
    for (int64_t i = 0; i < b->n; i++)
        for (int32_t row = starts[i]; row <= ends[i]; row++) assert_true(is_seen[row]);
    for (int64_t i = n_tokens; i < l.n_rows; i++) assert_int_equal(order[i], -1);
    free(block);
}

static void test_layouts(void **state)
{
    (void)state;
    static const struct {
        int64_t n;
        int shortest, longest;
    } cases[] = {{0, 1, 1},
                 {1, 1, 1},
                 {1, CONTEXT, CONTEXT},
                 {2, 1, 9},
                 {7, 9, 9},
                 {8, 8, 8},
                 {9, 1, 9},
                 {MAX_TEXTS, 1, 1},
                 {MAX_TEXTS, 1, 9},
                 {MAX_TEXTS, 5, 9},
                 {MAX_TEXTS, CONTEXT, CONTEXT},
                 {33, 2, 3}};
    static const dip_text_padding paddings[] = {DIP_TEXT_PAD_NONE, DIP_TEXT_PAD_BUCKETS,
                                                DIP_TEXT_PAD_FULL};
    static batch b;
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++)
        for (int p = 0; p < 3; p++)
            for (int ordered = 0; ordered < 2; ordered++)
                for (uint64_t seed = 0; seed < 4; seed++) {
                    make_batch(&b, cases[c].n, cases[c].shortest, cases[c].longest, seed);
                    check_layout(&b, paddings[p], ordered);
                }
}

/* One recorded step serves every batch of a bucket: their layouts differ in nothing. */
static void test_layouts_of_a_bucket(void **state)
{
    (void)state;
    const int64_t max_rows = MAX_TEXTS * CONTEXT;
    for (int64_t n_tokens = MAX_TEXTS + 1; n_tokens <= max_rows; n_tokens++) {
        const dip_text_layout a =
            dip_text_layout_of(MAX_TEXTS, n_tokens, max_rows, CONTEXT, DIP_TEXT_PAD_BUCKETS, true);
        const dip_text_layout b =
            dip_text_layout_of(MAX_TEXTS, a.n_rows, max_rows, CONTEXT, DIP_TEXT_PAD_BUCKETS, true);
        assert_memory_equal(&a, &b, sizeof a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_buckets),
        cmocka_unit_test(test_every_bucket),
        cmocka_unit_test(test_fillers),
        cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_layouts_of_a_bucket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
