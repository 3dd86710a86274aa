/* loader_world.h - three shards of samples, some of them bad, and a loader of them. Include after
 * cmocka.h; main() chooses the folder and writes the samples. */
#ifndef DIP_TESTS_LOADER_WORLD_H
#define DIP_TESTS_LOADER_WORLD_H

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

static inline int is_bad(int64_t index)
{
    return (index >= BAD_FROM && index < BAD_TO) || index == 0 || index == 150 || index == 151;
}

static const dip_fault_kind bad_kinds[] = {DIP_FAULT_IMAGE_BROKEN, DIP_FAULT_CAPTION_EMPTY,
                                           DIP_FAULT_CAPTION_UTF8, DIP_FAULT_IMAGE_FORMAT};

static inline void write_samples(void)
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

static inline dip_status open_samples(dip_samples **out)
{
    char *paths[3];
    for (int i = 0; i < 3; i++) paths[i] = dip_format("%s/%05d.tar", folder, i);
    dip_string_list shards = {.items = paths, .n_items = 3};
    const dip_samples_options pairs = {.needs = DIP_NEEDS_IMAGE | DIP_NEEDS_CAPTION};
    dip_status status = dip_samples_open(out, &shards, &pairs, faults);
    for (int i = 0; i < 3; i++) free(paths[i]);
    return status;
}

static inline int setup(void **state)
{
    (void)state;
    if (dip_faults_open(&faults) != DIP_OK) return 1;
    if (dip_augmentation_parse(&augmentation, "random_resized_crop(0.5..1), flip(0.5)") != DIP_OK)
        return 1;
    return open_samples(&samples) != DIP_OK;
}

static inline int teardown(void **state)
{
    (void)state;
    dip_samples_close(samples);
    dip_faults_close(faults);
    dip_augmentation_free(augmentation);
    return 0;
}

/* Bytes of the line as ids, an end after them. */
static inline int encode(void *context, int32_t *ids, int max_ids, const char *text, size_t n)
{
    (void)context;
    int count = 0;
    for (size_t i = 0; i < n && count < max_ids - 1; i++) ids[count++] = (unsigned char)text[i];
    ids[count++] = 256;
    return count;
}

static inline dip_loader_options usual(int n_workers)
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

static inline void put(record *r, const void *data, size_t n)
{
    if (r->n + n > r->capacity) {
        r->capacity = 2 * (r->n + n);
        r->bytes = realloc(r->bytes, r->capacity);
        assert_non_null(r->bytes);
    }
    memcpy(r->bytes + r->n, data, n);
    r->n += n;
}

static inline void put_batch(record *r, const dip_batch *b)
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

static inline record run(dip_loader *loader, int64_t epoch, int64_t position, int64_t n_spares)
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

static inline record run_once(const dip_loader_options *options, int64_t epoch)
{
    dip_loader *loader;
    assert_int_equal(dip_loader_open(&loader, options), DIP_OK);
    record r = run(loader, epoch, 0, 0);
    dip_loader_close(loader);
    return r;
}

static inline void assert_same(const record *a, const record *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->bytes, b->bytes, a->n);
}

#endif
