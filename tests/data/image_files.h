/* image_files.h - what the image tests share: files of tests/golden/image_corpus in memory,
 * and PNG chunks to put into them. */
#ifndef DIP_TESTS_IMAGE_FILES_H
#define DIP_TESTS_IMAGE_FILES_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "core/file.h"
#include "data/image.h"

typedef struct bytes {
    uint8_t *data;
    size_t n;
} bytes;

static inline bytes read_corpus(const char *name)
{
    char *path = dip_format("%s/tests/golden/image_corpus/%s", TEST_SOURCE_DIR, name), *data;
    bytes file;
    assert_non_null(path);
    assert_int_equal(dip_file_read(&data, &file.n, path, 1 << 20), DIP_OK);
    /* exactly n bytes, so that a sanitizer sees a read beyond them */
    file.data = malloc(file.n);
    assert_non_null(file.data);
    memcpy(file.data, data, file.n);
    free(data);
    free(path);
    return file;
}

/* Put n_new bytes in place of n_old at `at`. */
static inline void splice(bytes *file, size_t at, size_t n_old, const void *new, size_t n_new)
{
    assert_true(at + n_old <= file->n);
    uint8_t *data = malloc(file->n - n_old + n_new);
    assert_non_null(data);
    memcpy(data, file->data, at);
    if (n_new) memcpy(data + at, new, n_new);
    memcpy(data + at + n_new, file->data + at + n_old, file->n - at - n_old);
    free(file->data);
    file->data = data;
    file->n = file->n - n_old + n_new;
}

static inline void put_u32(uint8_t *p, uint32_t x)
{
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(x >> (24 - 8 * i));
}

/* Where a chunk of a PNG begins (its length field). */
static inline size_t find_chunk(const bytes *file, const char *name, size_t *n_data)
{
    size_t at = 8;
    *n_data = 0;
    while (at + 12 <= file->n) {
        const uint8_t *p = file->data + at;
        *n_data = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
        if (memcmp(p + 4, name, 4) == 0) return at;
        at += 12 + *n_data;
    }
    fail_msg("no chunk %s", name);
    return 0;
}

/* Insert a chunk at `at`, in place of n_old bytes. */
static inline void put_chunk(bytes *file, size_t at, size_t n_old, const char *name,
                             const void *data, size_t n)
{
    uint8_t *chunk = malloc(n + 12);
    assert_non_null(chunk);
    put_u32(chunk, (uint32_t)n);
    memcpy(chunk + 4, name, 4);
    if (n) memcpy(chunk + 8, data, n);
    put_u32(chunk + 8 + n, (uint32_t)crc32(0, chunk + 4, (unsigned)n + 4));
    splice(file, at, n_old, chunk, n + 12);
    free(chunk);
}

static inline dip_image_decoder *open_decoder(int64_t max_pixels)
{
    dip_image_decoder *decoder;
    assert_int_equal(dip_image_decoder_open(&decoder, max_pixels), DIP_OK);
    return decoder;
}

static inline unsigned long image_crc(const dip_image *image)
{
    return crc32(0, image->rgb, (unsigned)(image->width * image->height * 3));
}

#endif
