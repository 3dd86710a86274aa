/* The loader: the order belongs to (seed, epoch), never to the workers; bad samples are passed by
 * and named; it goes on from any position; it ends at any time. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "loader_world.h"

static void workers_change_nothing(void **state)
{
    (void)state;
    dip_loader_options one = usual(1);
    record truth = run_once(&one, 3);
    assert_int_equal(truth.n_batches, (N_SAMPLES - 43) / 8);
    static const int workers[] = {1, 2, 4, 7};
    for (int i = 0; i < 4; i++) {
        dip_loader_options many = usual(workers[i]);
        many.n_prefetch = 2 + i;
        record r = run_once(&many, 3);
        assert_same(&truth, &r);
        free(r.bytes);
    }
    record other = run_once(&one, 4); /* another epoch is another order */
    assert_int_not_equal(memcmp(other.index, truth.index, 20 * sizeof(int64_t)), 0);
    free(other.bytes);
    one.seed++;
    other = run_once(&one, 3);
    assert_int_not_equal(memcmp(other.index, truth.index, 20 * sizeof(int64_t)), 0);
    free(other.bytes);
    free(truth.bytes);
}

static void every_good_sample_once(void **state)
{
    (void)state;
    dip_loader_options options = usual(2);
    options.last_batch = DIP_LAST_KEEP;
    dip_loader *loader;
    assert_int_equal(dip_loader_open(&loader, &options), DIP_OK);
    assert_int_equal(dip_loader_batches_per_epoch(loader), (N_SAMPLES + 7) / 8);
    for (int64_t epoch = 0; epoch < 5; epoch++) {
        record r = run(loader, epoch, 0, 0);
        int seen[N_SAMPLES] = {0};
        for (int64_t i = 0; i < r.n_samples; i++) seen[r.index[i]]++;
        for (int i = 0; i < N_SAMPLES; i++) assert_int_equal(seen[i], !is_bad(i));
        record rest = run(loader, epoch, dip_loader_position(loader), 0);
        assert_int_equal(rest.n_batches, 0);
        free(r.bytes);
    }
    dip_loader_close(loader);
    /* Each bad one by its reason, once, however many epochs. */
    int wanted[4] = {0};
    for (int i = 0; i < N_SAMPLES; i++) wanted[i % 4] += is_bad(i);
    for (int k = 0; k < 4; k++) assert_int_equal(dip_faults_count(faults, bad_kinds[k]), wanted[k]);
}

static void it_goes_on_from_any_position(void **state)
{
    (void)state;
    dip_loader_options options = usual(2);
    dip_loader *loader;
    assert_int_equal(dip_loader_open(&loader, &options), DIP_OK);
    record whole = run(loader, 1, 0, 0);
    size_t batch_end = 0;
    for (int64_t k = 1; k < whole.n_batches; k++) {
        /* Bytes of the first k batches, by running them again. */
        dip_batch batch;
        record head = {0};
        assert_int_equal(dip_loader_start(loader, 1, 0, 0), DIP_OK);
        for (int64_t i = 0; i < k; i++) {
            assert_int_equal(dip_loader_next(loader, &batch), DIP_OK);
            put_batch(&head, &batch);
        }
        assert_int_equal(dip_loader_position(loader), whole.positions[k]);
        assert_int_equal(dip_loader_n_spares(loader), whole.n_spares[k]);
        assert_int_equal(dip_loader_batches_left(loader),
                         (N_SAMPLES - whole.positions[k] - whole.n_spares[k]) / 8);
        assert_true(head.n > batch_end);
        batch_end = head.n;
        record rest = run(loader, 1, whole.positions[k], whole.n_spares[k]);
        assert_int_equal(head.n + rest.n, whole.n);
        assert_memory_equal(whole.bytes, head.bytes, head.n);
        assert_memory_equal(whole.bytes + head.n, rest.bytes, rest.n);
        free(head.bytes);
        free(rest.bytes);
    }
    dip_batch batch;
    assert_int_equal(dip_loader_start(loader, 1, N_SAMPLES - 5, 5), DIP_OK);
    assert_int_equal(dip_loader_next(loader, &batch), DIP_END);
    assert_int_equal(dip_loader_start(loader, 1, N_SAMPLES - 5, 6), DIP_CONFIG);
    assert_int_equal(dip_loader_start(loader, -1, 0, 0), DIP_CONFIG);
    dip_loader_close(loader);
    free(whole.bytes);
}

static void evaluation_is_storage_order_and_first_lines(void **state)
{
    (void)state;
    dip_loader_options options = usual(3);
    options.shuffle = 0;
    options.last_batch = DIP_LAST_KEEP;
    options.augmentation = NULL;
    options.caption.random_line = false;
    options.n_prefetch = 2;
    dip_loader *loader;
    dip_batch batch;
    assert_int_equal(dip_loader_open(&loader, &options), DIP_OK);
    assert_int_equal(dip_loader_start(loader, 0, 0, 0), DIP_OK);
    dip_sample_reader *reader;
    dip_image_decoder *decoder;
    dip_resizer *resizer;
    assert_int_equal(dip_sample_reader_open(&reader, samples), DIP_OK);
    assert_int_equal(dip_image_decoder_open(&decoder, 1000000), DIP_OK);
    assert_int_equal(dip_resizer_open(&resizer), DIP_OK);
    int64_t expected = 0;
    while (dip_loader_next(loader, &batch) == DIP_OK) {
        for (int64_t i = 0; i < batch.n; i++) {
            while (is_bad(expected)) expected++;
            assert_int_equal(batch.index[i], expected);
            assert_int_equal(batch.labels[i], -1);
            char text[32];
            int32_t ids[CONTEXT];
            int n = snprintf(text, sizeof text, "caption %d", (int)(expected % 50));
            n = encode(NULL, ids, CONTEXT, text, (size_t)n);
            assert_int_equal(batch.offsets[i + 1] - batch.offsets[i], n);
            assert_memory_equal(batch.tokens + batch.offsets[i], ids, (size_t)n * 4);

            dip_sample sample;
            dip_image image;
            dip_fault_kind kind;
            assert_int_equal(dip_sample_read(reader, &sample, expected, DIP_NEEDS_IMAGE, &kind),
                             DIP_OK);
            uint8_t pixels[IMAGE_BYTES];
            assert_int_equal(
                dip_image_decode(decoder, &image, &kind, sample.image, sample.image_bytes), DIP_OK);
            assert_int_equal(dip_resize_for_eval(resizer, pixels, SIZE, &image, options.resize_mode,
                                                 options.filter),
                             DIP_OK);
            assert_memory_equal(batch.images + i * IMAGE_BYTES, pixels, IMAGE_BYTES);
            expected++;
        }
    }
    assert_int_equal(expected, N_SAMPLES);
    dip_sample_reader_close(reader);
    dip_image_decoder_close(decoder);
    dip_resizer_close(resizer);
    dip_loader_close(loader);
}

static void groups_are_equal_captions(void **state)
{
    (void)state;
    dip_loader_options options = usual(2);
    options.batch_size = 120;
    options.caption.random_line = false; /* 50 different first lines */
    dip_loader *loader;
    dip_batch b;
    assert_int_equal(dip_loader_open(&loader, &options), DIP_OK);
    assert_int_equal(dip_loader_start(loader, 0, 0, 0), DIP_OK);
    assert_int_equal(dip_loader_next(loader, &b), DIP_OK);
    for (int64_t i = 0; i < b.n; i++) {
        int64_t first = 0;
        while (b.index[first] % 50 != b.index[i] % 50) first++;
        assert_int_equal(b.group[i], first);
    }
    dip_loader_close(loader);
}

static void without_a_tokenizer_there_are_images_only(void **state)
{
    (void)state;
    dip_loader_options options = usual(2);
    options.encode = NULL;
    record r = run_once(&options, 0);
    assert_true(r.n_samples > N_SAMPLES - 43); /* bad captions do not matter */
    free(r.bytes);
}

static void too_many_bad_samples_stop_it(void **state)
{
    (void)state;
    dip_loader_options options = usual(2);
    options.max_bad_fraction = 0.1;
    dip_loader *loader;
    dip_batch batch;
    assert_int_equal(dip_loader_open(&loader, &options), DIP_OK);
    assert_int_equal(dip_loader_start(loader, 0, 0, 0), DIP_OK);
    dip_status status;
    int64_t n = 0;
    while ((status = dip_loader_next(loader, &batch)) == DIP_OK) n += batch.n;
    assert_int_equal(status, DIP_FORMAT);
    assert_non_null(strstr(dip_error(), "0.1"));
    assert_true(n >= 70 && n < 120); /* judged from the hundredth on */
    assert_int_equal(dip_loader_next(loader, &batch), DIP_FORMAT); /* and it stays so */
    dip_loader_close(loader);
    options.max_bad_fraction = 0.25; /* 43 of 203 are below that */
    record r = run_once(&options, 0);
    free(r.bytes);
    /* and none of them too many because a run that goes on meets them among few others */
    assert_int_equal(dip_loader_open(&loader, &options), DIP_OK);
    for (int64_t position = 100; position <= N_SAMPLES; position++) {
        assert_int_equal(dip_loader_start(loader, 0, position, 0), DIP_OK);
        while ((status = dip_loader_next(loader, &batch)) == DIP_OK) continue;
        assert_int_equal(status, DIP_END);
    }
    dip_loader_close(loader);
    options.max_bad_fraction = 0;
    options.shuffle = 0; /* a short epoch is judged at its end */
    assert_int_equal(dip_loader_open(&loader, &options), DIP_OK);
    assert_int_equal(dip_loader_start(loader, 0, 145, 0), DIP_OK);
    n = 0;
    while ((status = dip_loader_next(loader, &batch)) == DIP_OK) n++;
    assert_int_equal(status, DIP_FORMAT);
    dip_loader_close(loader);
}

/* The verdict on an epoch is the same for a run that goes on as for one that went through. */
static void going_on_forgives_nothing(void **state)
{
    (void)state;
    dip_loader_options options = usual(2);
    options.max_bad_fraction = 0.2; /* 43 of 203 are more */
    options.seed = 1;               /* where that shows late */
    dip_loader *loader;
    dip_batch batch;
    int64_t positions[30] = {0}, n_spares[30] = {0}, n = 0;
    dip_status status;
    assert_int_equal(dip_loader_open(&loader, &options), DIP_OK);
    assert_int_equal(dip_loader_start(loader, 0, 0, 0), DIP_OK);
    while ((status = dip_loader_next(loader, &batch)) == DIP_OK) {
        positions[++n] = dip_loader_position(loader);
        n_spares[n] = dip_loader_n_spares(loader);
    }
    assert_int_equal(status, DIP_FORMAT);
    assert_true(n > 10);
    for (int64_t k = 1; k <= n; k++) {
        assert_int_equal(dip_loader_start(loader, 0, positions[k], n_spares[k]), DIP_OK);
        for (int64_t i = k; i < n; i++) assert_int_equal(dip_loader_next(loader, &batch), DIP_OK);
        assert_int_equal(dip_loader_next(loader, &batch), DIP_FORMAT);
    }
    dip_loader_close(loader);
}

/* Where samples repeat, spares that a batch had already are passed over: they are not bad. */
static void spares_passed_over_are_not_bad(void **state)
{
    (void)state;
    const dip_order_source twice = {0, N_SAMPLES, 2};
    dip_loader_options options = usual(2);
    options.sources = &twice;
    options.n_sources = 1;
    options.batch_size = 50;
    options.max_bad_fraction = 0.235; /* 86 of 406 are fewer */
    dip_loader *loader;
    dip_batch batch;
    int64_t positions[10] = {0}, n_spares[10] = {0}, n_bad[10] = {0}, n = 0;
    dip_status status;
    assert_int_equal(dip_loader_open(&loader, &options), DIP_OK);
    assert_int_equal(dip_loader_start(loader, 0, 0, 0), DIP_OK);
    while ((status = dip_loader_next(loader, &batch)) == DIP_OK) {
        positions[++n] = dip_loader_position(loader);
        n_spares[n] = dip_loader_n_spares(loader);
        n_bad[n] = dip_loader_n_bad(loader);
    }
    assert_int_equal(status, DIP_END);
    assert_int_equal(n, (406 - 86) / 50);
    assert_true(n_spares[n] > n_bad[n] + 10);
    for (int64_t k = 1; k <= n; k++) {
        assert_int_equal(dip_loader_start(loader, 0, positions[k], n_spares[k]), DIP_OK);
        dip_loader_resume_bad(loader, n_bad[k]);
        for (int64_t i = k + 1; (status = dip_loader_next(loader, &batch)) == DIP_OK; i++)
            assert_int_equal(dip_loader_n_bad(loader), n_bad[i]);
        assert_int_equal(status, DIP_END);
    }
    dip_loader_close(loader);
}

/* Seven samples have nearly all the weight and a batch needs eight: now and then none can be drawn.
 * What was before is over then. */
static void an_epoch_without_an_order_is_none(void **state)
{
    (void)state;
    const dip_order_source sources[2] = {{1, 7, 1000}, {8, 52, 0.2}};
    dip_loader_options options = usual(2);
    options.sources = sources;
    options.n_sources = 2;
    options.resample = 1;
    options.epoch_samples = 40;
    dip_loader *loader;
    dip_batch batch;
    int n_made = 0, n_failed = 0;
    assert_int_equal(dip_loader_open(&loader, &options), DIP_OK);
    for (int64_t epoch = 0; epoch < 40; epoch++) {
        dip_status status = dip_loader_start(loader, epoch, 0, 0);
        if (status == DIP_OK) {
            assert_int_equal(dip_loader_next(loader, &batch), DIP_OK);
            n_made++;
        } else {
            assert_int_equal(status, DIP_CONFIG);
            assert_int_equal(dip_loader_next(loader, &batch), DIP_END);
            assert_int_equal(dip_loader_batches_left(loader), 0);
            n_failed++;
        }
    }
    assert_true(n_made > 3 && n_failed > 3);
    dip_loader_close(loader);
}

static void it_ends_at_any_time(void **state)
{
    (void)state;
    for (int n_batches = 0; n_batches < 12; n_batches++) {
        for (int n_workers = 1; n_workers <= 4; n_workers += 3) {
            dip_loader_options options = usual(n_workers);
            dip_loader *loader;
            dip_batch batch;
            assert_int_equal(dip_loader_open(&loader, &options), DIP_OK);
            if (n_batches > 0) {
                assert_int_equal(dip_loader_start(loader, n_batches, 0, 0), DIP_OK);
                for (int i = 1; i < n_batches; i++)
                    assert_int_equal(dip_loader_next(loader, &batch), DIP_OK);
            }
            dip_loader_close(loader);
        }
    }
    dip_loader_close(NULL);
}

int main(void)
{
    folder = scratch_init("test_loader");
    write_samples();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(workers_change_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(every_good_sample_once, setup, teardown),
        cmocka_unit_test_setup_teardown(it_goes_on_from_any_position, setup, teardown),
        cmocka_unit_test_setup_teardown(evaluation_is_storage_order_and_first_lines, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(groups_are_equal_captions, setup, teardown),
        cmocka_unit_test_setup_teardown(without_a_tokenizer_there_are_images_only, setup, teardown),
        cmocka_unit_test_setup_teardown(too_many_bad_samples_stop_it, setup, teardown),
        cmocka_unit_test_setup_teardown(going_on_forgives_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(spares_passed_over_are_not_bad, setup, teardown),
        cmocka_unit_test_setup_teardown(an_epoch_without_an_order_is_none, setup, teardown),
        cmocka_unit_test_setup_teardown(it_ends_at_any_time, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
