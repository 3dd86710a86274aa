/* What a loader takes: memory that is lent to it, no more images than it may hold, and no
 * impossible options. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "loader_world.h"

/* Memory that a caller lends: a list of what was taken and not given back. */
typedef struct lender {
    struct {
        uint8_t *begin;
        size_t n_bytes;
    } taken[8];
    int n_taken, n_left; /* of allocations that succeed */
} lender;

static void *lend(void *context, size_t n_bytes)
{
    lender *l = context;
    if (l->n_left-- <= 0) return NULL;
    assert_true(l->n_taken < 8);
    l->taken[l->n_taken].begin = malloc(n_bytes);
    l->taken[l->n_taken].n_bytes = n_bytes;
    return l->taken[l->n_taken++].begin;
}

static void take_back(void *context, void *pointer)
{
    lender *l = context;
    for (int i = 0; i < l->n_taken; i++) {
        if (l->taken[i].begin != pointer) continue;
        l->taken[i] = l->taken[--l->n_taken];
        free(pointer);
        return;
    }
    fail_msg("memory given back that was not lent");
}

static bool is_lent(const lender *l, const void *begin, size_t n_bytes)
{
    const uint8_t *at = begin;
    for (int i = 0; i < l->n_taken; i++)
        if (at >= l->taken[i].begin && at + n_bytes <= l->taken[i].begin + l->taken[i].n_bytes)
            return true;
    return false;
}

/* Whole batches or gathered ones: images and groups lie in the caller's memory and are the same. */
static void batches_lie_in_lent_memory(void **state)
{
    (void)state;
    lender l = {.n_left = 100};
    const dip_memory_source source = {lend, take_back, &l, 64, 1};
    dip_loader_options options = usual(2);
    record truth = run_once(&options, 1);
    options.memory = &source;
    record r = run_once(&options, 1);
    assert_same(&truth, &r);
    free(truth.bytes);
    free(r.bytes);
    assert_int_equal(l.n_taken, 0);

    dip_loader *loader;
    dip_batch batch;
    dip_status status;
    assert_int_equal(dip_loader_open(&loader, &options), DIP_OK);
    assert_int_equal(dip_loader_start(loader, 1, 0, 0), DIP_OK);
    while ((status = dip_loader_next(loader, &batch)) == DIP_OK) {
        assert_true(is_lent(&l, batch.images, (size_t)batch.n * IMAGE_BYTES));
        assert_true(is_lent(&l, batch.group, (size_t)batch.n * sizeof *batch.group));
    }
    assert_int_equal(status, DIP_END);
    dip_loader_close(loader);
    assert_int_equal(l.n_taken, 0);

    for (int n = 0; n < 2; n++) { /* none left: refused, and nothing kept */
        l.n_left = n;
        assert_int_equal(dip_loader_open(&loader, &options), DIP_NOMEM);
        assert_int_equal(l.n_taken, 0);
    }
}

/* Slots and spares together. */
static void images_held_are_bounded(void **state)
{
    (void)state;
    for (int64_t batch = 1; batch < 3000; batch = batch * 2 + batch % 3)
        for (int n = 2; n < 6; n += 3) {
            dip_loader_options options = usual(1);
            options.batch_size = batch;
            options.n_prefetch = n;
            dip_loader *loader;
            assert_int_equal(dip_loader_open(&loader, &options), DIP_OK);
            assert_true(loader->n_reserve > 0);
            assert_true(loader->n_slots + loader->n_reserve <= n * batch);
            dip_loader_close(loader);
        }
}

static void impossible_options_are_refused(void **state)
{
    (void)state;
    for (int i = 0; i < 6; i++) {
        dip_loader_options options = usual(1);
        if (i == 0) options.batch_size = 0;
        if (i == 1) options.image_size = 0;
        if (i == 2) options.n_workers = 0;
        if (i == 3) options.n_prefetch = 1;
        if (i == 4) options.context_length = 0;
        if (i == 5) options.batch_size = INT64_MAX / 2;
        dip_loader *loader;
        assert_int_equal(dip_loader_open(&loader, &options), DIP_CONFIG);
        assert_null(loader);
    }
}

int main(void)
{
    folder = scratch_init("test_loader_memory");
    write_samples();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(batches_lie_in_lent_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(images_held_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(impossible_options_are_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
