/* What becomes of every sample: read = trained + buffered + dropped at any moment, every bad sample
 * named, nothing used twice, no more memory, files or threads than said, after any number of
 * epochs. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/resource.h>
#include <unistd.h>

#include "data/pair_shards.h"
#include "sanitizers.h"

enum { N_PAIRS = 10000, N_BAD = 1000, PER_SHARD = 700, N_SHARDS = 15 };

static const char *folder;
static dip_samples *samples;
static dip_faults *faults;

/* A thousand of ten thousand, of four kinds: some single, some in a row. */
static dip_fault_kind kind_of(int i)
{
    static const dip_fault_kind bad[] = {DIP_FAULT_IMAGE_BROKEN, DIP_FAULT_CAPTION_EMPTY,
                                         DIP_FAULT_CAPTION_UTF8, DIP_FAULT_IMAGE_FORMAT};
    const bool is_bad = i % 20 == 7 || (i >= 4000 && i < 4500) || (i >= 9000 && i < 9026);
    return is_bad ? bad[i % 4] : DIP_N_FAULT_KINDS;
}

static int setup(void **state)
{
    (void)state;
    if (dip_faults_open(&faults) != DIP_OK) return 1;
    pair_shards_open(&samples, folder, N_SHARDS, faults);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    dip_samples_close(samples);
    dip_faults_close(faults);
    return 0;
}

static void assert_balanced(const dip_account *account)
{
    for (int64_t s = -1; s < account->n_shards; s++) {
        const dip_account_row *row = s < 0 ? &account->total : &account->shards[s];
        if (row->read != row->trained + row->buffered + dip_account_dropped(row))
            fail_msg("shard %d: %d read, %d trained, %d buffered, %d dropped", (int)s,
                     (int)row->read, (int)row->trained, (int)row->buffered,
                     (int)dip_account_dropped(row));
    }
}

static void a_thousand_bad_ones_are_named(void **state)
{
    (void)state;
    dip_loader_options options = pair_loader(samples, faults);
    dip_loader *loader;
    dip_batch batch;
    dip_account account;
    dip_status status;
    char *used = calloc(N_PAIRS, 1);
    options.batch_size = 64;
    assert_int_equal(dip_samples_count(samples), N_PAIRS);
    assert_int_equal(dip_loader_open(&loader, &options), DIP_OK);
    assert_int_equal(dip_account_open(&account, dip_samples_n_shards(samples)), DIP_OK);
    assert_int_equal(dip_loader_start(loader, 0, 0, 0), DIP_OK);
    int64_t n = 0;
    while ((status = dip_loader_next(loader, &batch)) == DIP_OK) {
        assert_int_equal(batch.n, 64);
        for (int64_t i = 0; i < batch.n; i++) {
            assert_false(used[batch.index[i]]);
            assert_int_equal(kind_of((int)batch.index[i]), DIP_N_FAULT_KINDS);
            used[batch.index[i]] = 1;
        }
        n += batch.n;
        dip_loader_account(loader, &account);
        assert_balanced(&account);
        assert_int_equal(account.total.trained, n);
        assert_int_equal(account.total.dropped[DIP_FAULT_IMAGE_BROKEN],
                         dip_faults_count(faults, DIP_FAULT_IMAGE_BROKEN));
        assert_true(account.total.buffered <= 2 * 64 + 6);
    }
    assert_int_equal(status, DIP_END);
    assert_int_equal(n, (N_PAIRS - N_BAD) / 64 * 64);
    assert_int_equal(dip_faults_total(faults), N_BAD);

    dip_loader_account(loader, &account);
    assert_balanced(&account);
    assert_int_equal(account.total.read, N_PAIRS);
    assert_int_equal(account.total.buffered, 0);
    assert_int_equal(account.total.dropped[DIP_DROP_UNFINISHED], (N_PAIRS - N_BAD) % 64);
    for (int s = 0; s < N_SHARDS; s++) {
        dip_account_row expected = {0};
        for (int i = s * PER_SHARD; i < (s + 1) * PER_SHARD && i < N_PAIRS; i++) {
            expected.read++;
            expected.trained += used[i];
            expected.dropped[kind_of(i)] += !used[i]; /* a good one is DIP_DROP_UNFINISHED */
        }
        assert_memory_equal(&account.shards[s], &expected, sizeof expected);
    }
    dip_account_close(&account);
    dip_loader_close(loader);
    free(used);
}

/* A run in pieces: the account goes on, and ends as that of a run in one go. */
static void it_goes_on_counting(void **state)
{
    (void)state;
    dip_loader_options options = pair_loader(samples, faults);
    dip_account whole, account;
    dip_loader *loader;
    dip_batch batch;
    options.batch_size = 512;
    assert_int_equal(dip_account_open(&whole, N_SHARDS), DIP_OK);
    assert_int_equal(dip_account_open(&account, N_SHARDS), DIP_OK);
    assert_int_equal(dip_loader_open(&loader, &options), DIP_OK);
    for (int64_t epoch = 0; epoch < 2; epoch++) {
        assert_int_equal(dip_loader_start(loader, epoch, 0, 0), DIP_OK);
        while (dip_loader_next(loader, &batch) == DIP_OK) continue;
    }
    dip_loader_account(loader, &whole);
    assert_int_equal(whole.total.read, 2 * N_PAIRS);
    dip_loader_close(loader);

    int64_t position = 0, n_spares = 0, epoch = 0;
    while (epoch < 2) {
        options.n_workers = 1 + (int)(position / 512 % 3);
        assert_int_equal(dip_loader_open(&loader, &options), DIP_OK);
        dip_loader_resume_account(loader, &account);
        assert_int_equal(dip_loader_start(loader, epoch, position, n_spares), DIP_OK);
        dip_status status = DIP_OK;
        for (int i = 0; i < 4 && status == DIP_OK; i++) status = dip_loader_next(loader, &batch);
        position = dip_loader_position(loader);
        n_spares = dip_loader_n_spares(loader);
        if (status == DIP_END) epoch++, position = n_spares = 0;
        dip_loader_account(loader, &account);
        assert_balanced(&account);
        dip_loader_close(loader);
    }
    assert_memory_equal(account.shards, whole.shards, N_SHARDS * sizeof *whole.shards);
    dip_account_close(&whole);
    dip_account_close(&account);
}

/* Every spare is bad as well, or nothing is good at all: it ends, and everything is named. */
static void nothing_but_bad_ones(void **state)
{
    (void)state;
    enum { FIRST = 3500, BAD_FROM = 4000, END = 4200 }; /* of a shard; its end is bad */
    char *shard = dip_format("%s/%05d.tar", folder, FIRST / PER_SHARD);
    const dip_string_list shards = {&shard, 1};
    const dip_samples_options needs = {.needs = DIP_NEEDS_IMAGE | DIP_NEEDS_CAPTION};
    for (int n_good = 0; n_good < 10; n_good += 3) {
        const dip_order_source end = {BAD_FROM - n_good - FIRST, END - BAD_FROM + n_good, 1};
        dip_faults *own;
        dip_samples *few;
        dip_loader *loader;
        dip_batch batch;
        dip_status status;
        int n = 0;
        assert_int_equal(dip_faults_open(&own), DIP_OK);
        assert_int_equal(dip_samples_open(&few, &shards, &needs, own), DIP_OK);
        dip_loader_options options = pair_loader(few, own);
        options.sources = &end;
        options.n_sources = 1;
        options.batch_size = 2;
        assert_int_equal(dip_loader_open(&loader, &options), DIP_OK);
        assert_int_equal(dip_loader_start(loader, 0, 0, 0), DIP_OK);
        while ((status = dip_loader_next(loader, &batch)) == DIP_OK) n += (int)batch.n;
        assert_int_equal(status, DIP_END);
        assert_int_equal(n, n_good / 2 * 2);
        assert_int_equal(dip_faults_total(own), END - BAD_FROM);
        dip_loader_close(loader);
        dip_samples_close(few);
        dip_faults_close(own);
    }
    free(shard);
}

/* ---- what it costs ------------------------------------------------------------------------- */

static double resident_bytes(void)
{
    long pages = 0, ignored;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%ld %ld", &ignored, &pages), 2);
    fclose(file);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static void fifty_epochs_cost_no_more_than_five(void **state)
{
    (void)state;
    dip_loader_options options = pair_loader(samples, faults);
    const dip_order_source few = {3500, 600, 1}; /* 100 of them bad */
    dip_loader *loader;
    dip_batch batch;
    double after_five = 0;
    int n_files = 0, n_threads = 0;
    const int n_threads_before = scratch_count("/proc/self/task");
    options.sources = &few;
    options.n_sources = 1;
    assert_int_equal(dip_loader_open(&loader, &options), DIP_OK);
    for (int epoch = 1; epoch <= 50; epoch++) {
        assert_int_equal(dip_loader_start(loader, epoch, 0, 0), DIP_OK);
        while (dip_loader_next(loader, &batch) == DIP_OK) continue;
        if (epoch == 5) {
            after_five = resident_bytes();
            n_files = scratch_count("/proc/self/fd");
            n_threads = scratch_count("/proc/self/task");
        }
    }
    const double grown = resident_bytes() - after_five;
    print_message("%.0f bytes more after 50 epochs than the %.0f after 5; %d files, %d threads\n",
                  grown, after_five, n_files, n_threads);
    assert_int_equal(scratch_count("/proc/self/fd"), n_files);
    assert_int_equal(scratch_count("/proc/self/task"), n_threads);
    assert_int_equal(n_threads, n_threads_before + options.n_workers);
#if !UNDER_SANITIZER
    assert_true(grown <= 1e6);
#endif
    dip_loader_close(loader);
}

/* Left alone, the workers decode as many images as data/loader.h says and no more. */
static void no_more_is_held_than_said(void **state)
{
    (void)state;
    dip_loader_options options = pair_loader(samples, faults);
    dip_loader *loader;
    dip_batch batch;
    dip_account account;
    options.batch_size = 64;
    options.n_prefetch = 5;
    assert_int_equal(dip_account_open(&account, N_SHARDS), DIP_OK);
    assert_int_equal(dip_loader_open(&loader, &options), DIP_OK);
    assert_int_equal(dip_loader_start(loader, 0, 0, 0), DIP_OK);
    assert_int_equal(dip_loader_next(loader, &batch), DIP_OK);
    int64_t before = -1;
    for (int quiet = 0; quiet < 20; quiet++) { /* until nothing more comes */
        usleep(10000);
        dip_loader_account(loader, &account);
        if (account.total.buffered != before) quiet = 0;
        before = account.total.buffered;
    }
    assert_int_equal(before, 3 * 64 + 4 + 64 / 32); /* beside the batch in hand */
    dip_account_close(&account);
    dip_loader_close(loader);
}

int main(void)
{
    folder = scratch_init("test_loader_account");
    dip_log_set_quiet(true);
    pair_shards_write(folder, N_PAIRS, PER_SHARD, kind_of);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_thousand_bad_ones_are_named, setup, teardown),
        cmocka_unit_test_setup_teardown(it_goes_on_counting, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_but_bad_ones, setup, teardown),
        cmocka_unit_test_setup_teardown(fifty_epochs_cost_no_more_than_five, setup, teardown),
        cmocka_unit_test_setup_teardown(no_more_is_held_than_said, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
