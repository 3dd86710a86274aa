/* image_files.h - what the image tests share: files of tests/golden/image_corpus in memory,
 * and PNG chunks to put into them. */
#ifndef DIP_TESTS_IMAGE_FILES_H
#define DIP_TESTS_IMAGE_FILES_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "core/file.h"
#include "data/image/image.h"

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
    if (at) memcpy(data, file->data, at);
    if (n_new) memcpy(data + at, new, n_new);
    size_t n_after = file->n - at - n_old;
    if (n_after) memcpy(data + at + n_new, file->data + at + n_old, n_after);
    free(file->data);
    file->data = data;
    file->n = at + n_new + n_after;
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

/* The caller frees rgb. */
static inline dip_image copy_image(const dip_image *image)
{
    size_t n = (size_t)image->width * (size_t)image->height * 3;
    dip_image copy = {image->width, image->height, malloc(n)};
    assert_non_null(copy.rgb);
    memcpy(copy.rgb, image->rgb, n);
    return copy;
}

/* The decoded part holds the box's pixels as `whole` does. */
static inline void check_pixels(const dip_image *part, dip_rect where, const dip_image *whole,
                                dip_box box, const char *name)
{
    assert_true(where.x == floor(where.x) && where.y == floor(where.y));
    assert_true(where.width == box.width && where.height == box.height);
    assert_true(where.x >= 0 && where.x + where.width <= part->width);
    assert_true(where.y >= 0 && where.y + where.height <= part->height);
    size_t n = 3 * (size_t)box.width;
    for (int y = 0; y < box.height; y++) {
        size_t at = ((size_t)where.y + (size_t)y) * (size_t)part->width + (size_t)where.x;
        size_t whole_at = (size_t)(box.y + y) * (size_t)whole->width + (size_t)box.x;
        if (memcmp(part->rgb + 3 * at, whole->rgb + 3 * whole_at, n) != 0)
            fail_msg("%s, %d x %d: box %d x %d at (%d, %d): other pixels in its row %d", name,
                     whole->width, whole->height, box.width, box.height, box.x, box.y, y);
    }
}

static inline unsigned below(unsigned *state, int n)
{
    *state = *state * 1664525u + 1013904223u;
    return (*state >> 8) % (unsigned)n;
}

/* Boxes of every size and place; often touching a border or a block's edge. */
static inline dip_box random_box(unsigned *state, int width, int height)
{
    dip_box box;
    box.x = (int)below(state, width);
    box.y = (int)below(state, height);
    if (below(state, 4) == 0) box.x = box.x / 8 * 8;
    if (below(state, 4) == 0) box.y = box.y / 8 * 8;
    if (below(state, 8) == 0) box.x = 0;
    if (below(state, 8) == 0) box.y = 0;
    box.width = 1 + (int)below(state, width - box.x);
    box.height = 1 + (int)below(state, height - box.y);
    if (below(state, 8) == 0) box.width = width - box.x;
    if (below(state, 8) == 0) box.height = height - box.y;
    return box;
}

/* The file is refused for that reason, and the decoder not harmed. */
static inline void refused(const void *data, size_t n, dip_fault_kind expected, const char *part)
{
    dip_image_decoder *decoder = open_decoder(25000000);
    dip_image image;
    dip_fault_kind kind = DIP_FAULT_TAR;
    assert_int_equal(dip_image_decode(decoder, &image, &kind, data, n), DIP_FORMAT);
    assert_null(image.rgb);
    if (!strstr(dip_error(), part)) fail_msg("'%s' not in: %s", part, dip_error());
    assert_int_equal(kind, expected);
    bytes good = read_corpus("ycc_420.jpg");
    assert_int_equal(dip_image_decode(decoder, &image, &kind, good.data, good.n), DIP_OK);
    free(good.data);
    dip_image_decoder_close(decoder);
}

static inline void refused_file(bytes file, dip_fault_kind expected, const char *part)
{
    refused(file.data, file.n, expected, part);
    free(file.data);
}

/* The file must still decode to what the unchanged file gives. */
static inline void expect_same_pixels(bytes changed, const char *name)
{
    dip_image_decoder *decoder = open_decoder(25000000);
    bytes file = read_corpus(name);
    dip_image image;
    dip_fault_kind kind;
    assert_int_equal(dip_image_decode(decoder, &image, &kind, file.data, file.n), DIP_OK);
    unsigned long crc = image_crc(&image);
    if (dip_image_decode(decoder, &image, &kind, changed.data, changed.n) != DIP_OK)
        fail_msg("%s changed: %s", name, dip_error());
    assert_int_equal(image_crc(&image), crc);
    free(file.data);
    free(changed.data);
    dip_image_decoder_close(decoder);
}

/* The frame header: marker, length, precision, height, width, components. */
static inline size_t find_frame(const bytes *file)
{
    for (size_t i = 0; i + 10 < file->n; i++)
        if (file->data[i] == 0xff && file->data[i + 1] >= 0xc0 && file->data[i + 1] <= 0xc2)
            return i;
    fail_msg("no frame header");
    return 0;
}

#endif
