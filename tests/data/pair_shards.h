/* pair_shards.h - shards of small pairs, some of them bad, and what the loader's tests make of
 * them. */
#ifndef DIP_TESTS_DATA_PAIR_SHARDS_H
#define DIP_TESTS_DATA_PAIR_SHARDS_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/scratch.h"
#include "data/loader.h"
#include "data/shard/shard_writer.h"

/* What pair i is: DIP_N_FAULT_KINDS, good, or IMAGE_BROKEN, IMAGE_FORMAT, CAPTION_EMPTY,
 * CAPTION_UTF8. */
typedef dip_fault_kind pair_kind_fn(int i);

/* FOLDER/00000.tar, 00001.tar, ... with n pairs, so many a shard: pixels and captions are functions
 * of i. */
static inline void pair_shards_write(const char *folder, int n, int per_shard,
                                     pair_kind_fn *kind_of)
{
    char *pattern = dip_format("%s/{00000..}.tar", folder);
    dip_shard_writer *writer;
    assert_int_equal(dip_shard_writer_open(&writer, pattern, per_shard), DIP_OK);
    free(pattern);
    for (int i = 0; i < n; i++) {
        enum { WIDTH = 12, HEIGHT = 10 };
        uint8_t pixels[WIDTH * HEIGHT * 3], *png;
        for (size_t k = 0; k < sizeof pixels; k++) pixels[k] = (uint8_t)(k * (size_t)(i + 3) / 7);
        size_t n_bytes;
        assert_int_equal(dip_png_encode(&png, &n_bytes, pixels, WIDTH, HEIGHT, 3), DIP_OK);
        char text[64];
        snprintf(text, sizeof text, "caption %d\nanother\n", i);
        dip_shard_part parts[] = {{"png", png, n_bytes}, {"txt", text, strlen(text)}};
        switch (kind_of(i)) {
        case DIP_FAULT_IMAGE_BROKEN:
            parts[0].n_bytes = n_bytes / 2;
            break;
        case DIP_FAULT_IMAGE_FORMAT:
            memcpy(png, "<html>no", 8);
            break;
        case DIP_FAULT_CAPTION_EMPTY:
            parts[1] = (dip_shard_part){"txt", " \n", 2};
            break;
        case DIP_FAULT_CAPTION_UTF8:
            parts[1] = (dip_shard_part){"txt", "\xff", 1};
            break;
        default:
            break;
        }
        assert_int_equal(dip_shard_writer_add(writer, parts, 2), DIP_OK);
        free(png);
    }
    assert_int_equal(dip_shard_writer_close(writer), DIP_OK);
}

static inline void pair_shards_open(dip_samples **samples, const char *folder, int n_shards,
                                    dip_faults *faults)
{
    char **paths = calloc((size_t)n_shards, sizeof *paths);
    for (int i = 0; i < n_shards; i++) paths[i] = dip_format("%s/%05d.tar", folder, i);
    const dip_string_list shards = {paths, (size_t)n_shards};
    const dip_samples_options options = {.needs = DIP_NEEDS_IMAGE | DIP_NEEDS_CAPTION};
    if (dip_samples_open(samples, &shards, &options, faults) != DIP_OK) fail_msg("%s", dip_error());
    for (int i = 0; i < n_shards; i++) free(paths[i]);
    free(paths);
}

/* Bytes of the line as ids, an end after them. */
static inline int pair_encode(void *context, int32_t *ids, int max_ids, const char *text, size_t n)
{
    (void)context;
    int count = 0;
    for (size_t i = 0; i < n && count < max_ids - 1; i++) ids[count++] = (unsigned char)text[i];
    ids[count++] = 256;
    return count;
}

enum { PAIR_SIZE = 8, PAIR_IMAGE_BYTES = PAIR_SIZE * PAIR_SIZE * 3, PAIR_CONTEXT = 14 };

/* A training loader. */
static inline dip_loader_options pair_loader(const dip_samples *samples, dip_faults *faults)
{
    return (dip_loader_options){
        .samples = samples,
        .faults = faults,
        .batch_size = 8,
        .image_size = PAIR_SIZE,
        .n_workers = 2,
        .n_prefetch = 4,
        .shuffle = 1,
        .last_batch = DIP_LAST_DROP,
        .seed = 42,
        .max_bad_fraction = 1,
        .decode = dip_decode_defaults(),
        .encode = pair_encode,
        .context_length = PAIR_CONTEXT,
    };
}

#endif
