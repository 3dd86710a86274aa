/* Several ranks, here threads of one process with a loader each: together they give the batches
 * that one rank gives, bad samples included, and go on where any other number of ranks and workers
 * stood. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>

#include "data/pair_shards.h"

enum { N_PAIRS = 300, PER_SHARD = 77, N_SHARDS = 4, GLOBAL = 16, MAX_RANKS = 4, MAX_BATCHES = 60 };

static const char *folder;
static dip_augmentation *augmentation;

static dip_fault_kind kind_of(int i)
{
    static const dip_fault_kind bad[] = {DIP_FAULT_IMAGE_BROKEN, DIP_FAULT_CAPTION_EMPTY,
                                         DIP_FAULT_CAPTION_UTF8, DIP_FAULT_IMAGE_FORMAT};
    return i % 7 == 3 || (i > 150 && i < 190) ? bad[i % 4] : DIP_N_FAULT_KINDS;
}

/* ---- agreeing ------------------------------------------------------------------------------ */

typedef struct meeting {
    int n_ranks;
    pthread_barrier_t barrier;
    int64_t numbers[MAX_RANKS][8];
} meeting;

typedef struct seat {
    meeting *meeting;
    int rank;
} seat;

static dip_status agree(void *context, const int64_t *mine, int64_t *all, int n)
{
    const seat *s = context;
    meeting *m = s->meeting;
    memcpy(m->numbers[s->rank], mine, (size_t)n * sizeof *mine);
    pthread_barrier_wait(&m->barrier);
    for (int r = 0; r < m->n_ranks; r++)
        memcpy(all + r * n, m->numbers[r], (size_t)n * sizeof *all);
    pthread_barrier_wait(&m->barrier);
    return DIP_OK;
}

/* ---- an epoch, or a part of it ------------------------------------------------------------- */

/* What one rank's batches hold; `n` batches and where the loader stood behind each. */
typedef struct part {
    int64_t n, n_samples[MAX_BATCHES], position[MAX_BATCHES], n_spares[MAX_BATCHES];
    int64_t index[MAX_BATCHES][GLOBAL];
    int32_t n_ids[MAX_BATCHES][GLOBAL], ids[MAX_BATCHES][GLOBAL][PAIR_CONTEXT];
    uint8_t images[MAX_BATCHES][GLOBAL][PAIR_IMAGE_BYTES];
    dip_status status;
    int64_t n_faults;
} part;

typedef struct job {
    dip_loader_options options;
    seat seat;
    int64_t epoch, position, n_spares, max_batches;
    part *part;
    pthread_t thread;
} job;

static void keep(part *p, const dip_batch *batch, const dip_loader *loader)
{
    const int64_t k = p->n++;
    p->n_samples[k] = batch->n;
    p->position[k] = dip_loader_position(loader);
    p->n_spares[k] = dip_loader_n_spares(loader);
    memcpy(p->images[k], batch->images, (size_t)batch->n * PAIR_IMAGE_BYTES);
    memcpy(p->index[k], batch->index, (size_t)batch->n * sizeof(int64_t));
    for (int64_t i = 0; i < batch->n; i++) {
        p->n_ids[k][i] = batch->offsets[i + 1] - batch->offsets[i];
        memcpy(p->ids[k][i], batch->tokens + batch->offsets[i],
               (size_t)p->n_ids[k][i] * sizeof(int32_t));
    }
}

static void *run_rank(void *argument)
{
    job *j = argument;
    dip_samples *samples;
    dip_faults *faults;
    dip_loader *loader;
    dip_batch batch;
    assert_int_equal(dip_faults_open(&faults), DIP_OK);
    pair_shards_open(&samples, folder, N_SHARDS, faults);
    j->options.samples = samples;
    j->options.faults = faults;
    j->options.agree_context = &j->seat;
    if (dip_loader_open(&loader, &j->options) != DIP_OK) fail_msg("%s", dip_error());
    dip_status status = dip_loader_start(loader, j->epoch, j->position, j->n_spares);
    while (status == DIP_OK && j->part->n < j->max_batches) {
        status = dip_loader_next(loader, &batch);
        if (status == DIP_OK) keep(j->part, &batch, loader);
    }
    j->part->status = status;
    j->part->n_faults = dip_faults_total(faults);
    dip_loader_close(loader);
    dip_samples_close(samples);
    dip_faults_close(faults);
    return NULL;
}

/* The batches of all ranks put together, slots in the order of ranks. */
static part *run(const dip_loader_options *options, int n_ranks, int64_t position, int64_t n_spares,
                 int64_t max_batches)
{
    meeting m = {.n_ranks = n_ranks};
    job jobs[MAX_RANKS];
    part *whole = calloc(1, sizeof *whole);
    assert_int_equal(pthread_barrier_init(&m.barrier, NULL, (unsigned)n_ranks), 0);
    for (int r = 0; r < n_ranks; r++) {
        jobs[r] = (job){.options = *options,
                        .seat = {&m, r},
                        .epoch = 2,
                        .position = position,
                        .n_spares = n_spares,
                        .max_batches = max_batches,
                        .part = calloc(1, sizeof(part))};
        jobs[r].options.rank = r;
        jobs[r].options.n_ranks = n_ranks;
        jobs[r].options.batch_size = GLOBAL / n_ranks;
        jobs[r].options.agree = n_ranks > 1 ? agree : NULL;
        assert_int_equal(pthread_create(&jobs[r].thread, NULL, run_rank, &jobs[r]), 0);
    }
    for (int r = 0; r < n_ranks; r++) pthread_join(jobs[r].thread, NULL);
    for (int r = 0; r < n_ranks; r++) {
        const part *p = jobs[r].part;
        assert_int_equal(p->status, jobs[0].part->status);
        assert_int_equal(p->n, jobs[0].part->n);
        for (int64_t k = 0; k < p->n; k++) {
            const int64_t at = whole->n_samples[k];
            const size_t n = (size_t)p->n_samples[k];
            memcpy(whole->index[k] + at, p->index[k], n * sizeof(int64_t));
            memcpy(whole->n_ids[k] + at, p->n_ids[k], n * sizeof(int32_t));
            memcpy(whole->ids[k] + at, p->ids[k], n * sizeof p->ids[k][0]);
            memcpy(whole->images[k] + at, p->images[k], n * PAIR_IMAGE_BYTES);
            whole->n_samples[k] += p->n_samples[k];
            assert_int_equal(p->position[k], jobs[0].part->position[k]);
            assert_int_equal(p->n_spares[k], jobs[0].part->n_spares[k]);
            whole->position[k] = p->position[k];
            whole->n_spares[k] = p->n_spares[k];
        }
        whole->n = p->n;
        whole->status = p->status;
        whole->n_faults += p->n_faults;
    }
    for (int r = 0; r < n_ranks; r++) free(jobs[r].part);
    pthread_barrier_destroy(&m.barrier);
    return whole;
}

/* Batches first, first + 1, ... of `whole` are those of `rest`. */
static void assert_same(const part *whole, int64_t first, const part *rest)
{
    for (int64_t k = 0; k < rest->n; k++) {
        assert_int_equal(whole->n_samples[first + k], rest->n_samples[k]);
        assert_int_equal(whole->position[first + k], rest->position[k]);
        assert_int_equal(whole->n_spares[first + k], rest->n_spares[k]);
        assert_memory_equal(whole->index[first + k], rest->index[k], sizeof rest->index[k]);
        assert_memory_equal(whole->n_ids[first + k], rest->n_ids[k], sizeof rest->n_ids[k]);
        assert_memory_equal(whole->ids[first + k], rest->ids[k], sizeof rest->ids[k]);
        assert_memory_equal(whole->images[first + k], rest->images[k], sizeof rest->images[k]);
    }
}

static dip_loader_options options_with(int n_workers)
{
    dip_loader_options options = pair_loader(NULL, NULL);
    options.augmentation = augmentation;
    options.caption.random_line = true;
    options.n_workers = n_workers;
    return options;
}

static int n_bad_pairs(void)
{
    int n = 0;
    for (int i = 0; i < N_PAIRS; i++) n += kind_of(i) != DIP_N_FAULT_KINDS;
    return n;
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void ranks_and_workers_change_nothing(void **state)
{
    (void)state;
    for (int mode = 0; mode < 4; mode++) {
        const dip_order_source sources[2] = {{0, 100, 2}, {100, 200, 1}};
        dip_loader_options options = options_with(1);
        if (mode == 1) options.last_batch = DIP_LAST_WRAP;
        if (mode == 2) options.sources = sources, options.n_sources = 2;
        if (mode == 3) options.last_batch = DIP_LAST_KEEP, options.shuffle = 0;
        part *one = run(&options, 1, 0, 0, MAX_BATCHES);
        assert_int_equal(one->status, DIP_END);
        assert_true(one->n >= (N_PAIRS - n_bad_pairs()) / GLOBAL);
        for (int n_ranks = 1; n_ranks <= MAX_RANKS; n_ranks *= 2) {
            options.n_workers = n_ranks == 2 ? 8 : 3;
            part *many = run(&options, n_ranks, 0, 0, MAX_BATCHES);
            assert_int_equal(many->n, one->n);
            assert_int_equal(many->status, DIP_END);
            assert_same(one, 0, many);
            /* Two ranks may each meet a bad sample that comes twice. */
            assert_true(many->n_faults == one->n_faults || (mode == 2 && n_ranks > 1));
            free(many);
        }
        assert_int_equal(one->n_faults, n_bad_pairs());
        free(one);
    }
}

static void any_number_of_ranks_goes_on(void **state)
{
    (void)state;
    dip_loader_options options = options_with(2);
    part *whole = run(&options, 2, 0, 0, MAX_BATCHES);
    assert_true(whole->n > 5);
    for (int64_t k = 1; k < whole->n; k++) {
        const int n_ranks = 1 << (k % 3);
        options.n_workers = 1 + (int)(k % 4);
        part *rest =
            run(&options, n_ranks, whole->position[k - 1], whole->n_spares[k - 1], MAX_BATCHES);
        assert_int_equal(k + rest->n, whole->n);
        assert_same(whole, k, rest);
        free(rest);
    }
    free(whole);
}

/* Too many bad samples, all of them in the part of one rank: all ranks stop at the same batch. */
static void an_error_is_everybodys(void **state)
{
    (void)state;
    dip_loader_options options = options_with(2);
    options.max_bad_fraction = 0.1;
    options.shuffle = 0; /* 151 ... 189 are bad */
    part *one = run(&options, 1, 0, 0, MAX_BATCHES);
    part *four = run(&options, 4, 0, 0, MAX_BATCHES);
    assert_int_equal(one->status, DIP_FORMAT);
    assert_int_equal(four->status, DIP_FORMAT);
    assert_int_equal(one->n, four->n);
    assert_same(one, 0, four);
    free(one);
    free(four);
}

static void options_of_ranks_are_checked(void **state)
{
    (void)state;
    dip_samples *samples;
    dip_faults *faults;
    dip_loader *loader;
    assert_int_equal(dip_faults_open(&faults), DIP_OK);
    pair_shards_open(&samples, folder, N_SHARDS, faults);
    for (int i = 0; i < 4; i++) {
        dip_loader_options options = pair_loader(samples, faults);
        if (i == 0) options.rank = 1;
        if (i == 1) options.n_ranks = 2, options.rank = 2, options.agree = agree;
        if (i == 2) options.n_ranks = 2;
        if (i == 3) options.n_ranks = -1;
        assert_int_equal(dip_loader_open(&loader, &options), DIP_CONFIG);
    }
    dip_samples_close(samples);
    dip_faults_close(faults);
}

int main(void)
{
    folder = scratch_init("test_loader_ranks");
    dip_log_set_quiet(true);
    pair_shards_write(folder, N_PAIRS, PER_SHARD, kind_of);
    if (dip_augmentation_parse(&augmentation, "random_resized_crop(0.5..1), flip(0.5)") != DIP_OK)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_and_workers_change_nothing),
        cmocka_unit_test(any_number_of_ranks_goes_on),
        cmocka_unit_test(an_error_is_everybodys),
        cmocka_unit_test(options_of_ranks_are_checked),
    };
    const int n_failed = cmocka_run_group_tests(tests, NULL, NULL);
    dip_augmentation_free(augmentation);
    return n_failed;
}
