/* The loader: the order belongs to (seed, epoch), never to the workers; bad samples are passed by
 * and named; it goes on from any position; it ends at any time. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>

#include "data/loader_internal.h"
#include "data/shard/shard_writer.h"
#include "data/tar_build.h"

enum {
    N_SAMPLES = 203,
    SIZE = 16,
    IMAGE_BYTES = SIZE * SIZE * 3,
    CONTEXT = 12,
    BAD_FROM = 60, /* a run of bad samples longer than the ring of the small loaders */
    BAD_TO = 100
};

static const char *folder;
static dip_samples *samples;
static dip_faults *faults;
static dip_augmentation *augmentation;

static int is_bad(int64_t index)
{
    return (index >= BAD_FROM && index < BAD_TO) || index == 0 || index == 150 || index == 151;
}

static const dip_fault_kind bad_kinds[] = {DIP_FAULT_IMAGE_BROKEN, DIP_FAULT_CAPTION_EMPTY,
                                           DIP_FAULT_CAPTION_UTF8, DIP_FAULT_IMAGE_FORMAT};

static void write_samples(void)
{
    char *pattern = dip_format("%s/{00000..}.tar", folder);
    dip_shard_writer *writer;
    assert_int_equal(dip_shard_writer_open(&writer, pattern, 90), DIP_OK);
    free(pattern);
    for (int i = 0; i < N_SAMPLES; i++) {
        uint8_t pixels[24 * 20 * 3];
        for (size_t k = 0; k < sizeof pixels; k++) pixels[k] = (uint8_t)(k * (size_t)(i + 3) / 7);
        uint8_t *png;
        size_t n;
        assert_int_equal(dip_png_encode(&png, &n, pixels, 24, 20, 3), DIP_OK);
        char text[128];
        snprintf(text, sizeof text, "caption %d\nanother for %d\r\n a third\n", i % 50, i);
        dip_shard_part parts[] = {{"png", png, n}, {"txt", text, strlen(text)}};
        if (is_bad(i)) {
            dip_fault_kind kind = bad_kinds[i % 4];
            if (kind == DIP_FAULT_IMAGE_BROKEN) parts[0].n_bytes = n / 2;
            if (kind == DIP_FAULT_IMAGE_FORMAT) memcpy(png, "<html>no", 8);
            if (kind == DIP_FAULT_CAPTION_EMPTY) parts[1].data = " \n", parts[1].n_bytes = 2;
            if (kind == DIP_FAULT_CAPTION_UTF8) parts[1].data = "\xff", parts[1].n_bytes = 1;
        }
        assert_int_equal(dip_shard_writer_add(writer, parts, 2), DIP_OK);
        free(png);
    }
    assert_int_equal(dip_shard_writer_close(writer), DIP_OK);
}

static dip_status open_samples(dip_samples **out)
{
    char *paths[3];
    for (int i = 0; i < 3; i++) paths[i] = dip_format("%s/%05d.tar", folder, i);
    dip_string_list shards = {.items = paths, .n_items = 3};
    const dip_samples_options pairs = {.needs = DIP_NEEDS_IMAGE | DIP_NEEDS_CAPTION};
    dip_status status = dip_samples_open(out, &shards, &pairs, faults);
    for (int i = 0; i < 3; i++) free(paths[i]);
    return status;
}

static int setup(void **state)
{
    (void)state;
    if (dip_faults_open(&faults) != DIP_OK) return 1;
    if (dip_augmentation_parse(&augmentation, "random_resized_crop(0.5..1), flip(0.5)") != DIP_OK)
        return 1;
    return open_samples(&samples) != DIP_OK;
}

static int teardown(void **state)
{
    (void)state;
    dip_samples_close(samples);
    dip_faults_close(faults);
    dip_augmentation_free(augmentation);
    return 0;
}

/* Bytes of the line as ids, an end after them. */
static int encode(void *context, int32_t *ids, int max_ids, const char *text, size_t n)
{
    (void)context;
    int count = 0;
    for (size_t i = 0; i < n && count < max_ids - 1; i++) ids[count++] = (unsigned char)text[i];
    ids[count++] = 256;
    return count;
}

static dip_loader_options usual(int n_workers)
{
    return (dip_loader_options){
        .samples = samples,
        .faults = faults,
        .batch_size = 8,
        .image_size = SIZE,
        .n_workers = n_workers,
        .n_prefetch = 4,
        .shuffle = 1,
        .last_batch = DIP_LAST_DROP,
        .seed = 42,
        .max_bad_fraction = 1,
        .decode = dip_decode_defaults(),
        .augmentation = augmentation,
        .encode = encode,
        .context_length = CONTEXT,
        .caption.random_line = true,
    };
}

/* Everything an epoch's batches hold, in one piece. */
typedef struct record {
    uint8_t *bytes;
    size_t n, capacity;
    int64_t n_batches, n_samples;
    int64_t index[N_SAMPLES + 1], positions[N_SAMPLES + 1], n_spares[N_SAMPLES + 1];
} record;

static void put(record *r, const void *data, size_t n)
{
    if (r->n + n > r->capacity) {
        r->capacity = 2 * (r->n + n);
        r->bytes = realloc(r->bytes, r->capacity);
        assert_non_null(r->bytes);
    }
    memcpy(r->bytes + r->n, data, n);
    r->n += n;
}

static void put_batch(record *r, const dip_batch *b)
{
    size_t n = (size_t)b->n;
    put(r, &b->n, sizeof b->n);
    put(r, b->images, n * IMAGE_BYTES);
    put(r, b->offsets, (n + 1) * sizeof(int32_t));
    put(r, b->tokens, (size_t)b->offsets[n] * sizeof(int32_t));
    put(r, b->group, n * sizeof(int32_t));
    put(r, b->index, n * sizeof(int64_t));
    put(r, b->labels, n * sizeof(int64_t));
    for (size_t i = 0; i < n; i++) r->index[r->n_samples++] = b->index[i];
    r->n_batches++;
}

static record run(dip_loader *loader, int64_t epoch, int64_t position, int64_t n_spares)
{
    record r = {0};
    dip_batch batch;
    dip_status status;
    assert_int_equal(dip_loader_start(loader, epoch, position, n_spares), DIP_OK);
    while ((status = dip_loader_next(loader, &batch)) == DIP_OK) {
        put_batch(&r, &batch);
        r.positions[r.n_batches] = dip_loader_position(loader);
        r.n_spares[r.n_batches] = dip_loader_n_spares(loader);
    }
    assert_int_equal(status, DIP_END);
    return r;
}

static record run_once(const dip_loader_options *options, int64_t epoch)
{
    dip_loader *loader;
    assert_int_equal(dip_loader_open(&loader, options), DIP_OK);
    record r = run(loader, epoch, 0, 0);
    dip_loader_close(loader);
    return r;
}

static void assert_same(const record *a, const record *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->bytes, b->bytes, a->n);
}

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
        cmocka_unit_test_setup_teardown(batches_lie_in_lent_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(images_held_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(impossible_options_are_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
