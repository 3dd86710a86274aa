/* image.h - the part of the image targets that is the same for every format. */
#ifndef DIP_TESTS_FUZZ_IMAGE_H
#define DIP_TESTS_FUZZ_IMAGE_H

#include <stdbool.h>
#include <string.h>

#include "core/file.h"
#include "core/rng.h"
#include "data/image/image.h"
#include "fuzz/fuzz.h"

/* The work of one input stays far below the time limit. */
enum { FUZZ_MAX_PIXELS = 1 << 20, FUZZ_SIDE = 24 };

/* Kept from input to input: one picture must not leave a trace in the next. */
typedef struct fuzz_images {
    dip_image_decoder *plain, *other; /* the default options; all others */
    dip_resizer *resizer;
    uint8_t whole[FUZZ_SIDE * FUZZ_SIDE * 3], part[FUZZ_SIDE * FUZZ_SIDE * 3];
} fuzz_images;

static inline fuzz_images *fuzz_images_get(void)
{
    static fuzz_images images;
    if (images.plain) return &images;
    dip_decode_options options = dip_decode_defaults();
    options.max_pixels = FUZZ_MAX_PIXELS;
    FUZZ_CHECK(dip_image_decoder_open_with(&images.plain, &options) == DIP_OK);
    options.exif_rotate = options.scale_in_dct = true;
    options.alpha_over[0] = options.alpha_over[1] = options.alpha_over[2] = 200;
    FUZZ_CHECK(dip_image_decoder_open_with(&images.other, &options) == DIP_OK);
    FUZZ_CHECK(dip_resizer_open(&images.resizer) == DIP_OK);
    return &images;
}

static inline dip_box fuzz_box(int width, int height, const uint8_t *data, size_t n)
{
    dip_rng rng;
    dip_rng_init(&rng, dip_crc32c(0, data, n), 0);
    dip_box box;
    box.width = 1 + (int)dip_rng_below(&rng, (uint64_t)width);
    box.height = 1 + (int)dip_rng_below(&rng, (uint64_t)height);
    box.x = (int)dip_rng_below(&rng, (uint64_t)(width - box.width + 1));
    box.y = (int)dip_rng_below(&rng, (uint64_t)(height - box.height + 1));
    return box;
}

/* Decode what a box needs and resize it into out. False: refused. */
static inline bool fuzz_decode_part(uint8_t *out, dip_image_decoder *decoder, dip_resizer *resizer,
                                    const uint8_t *data, size_t n)
{
    int width, height;
    dip_fault_kind kind;
    dip_image image;
    dip_rect where;
    if (dip_image_start(decoder, &width, &height, &kind, data, n) != DIP_OK) return false;
    FUZZ_CHECK(width > 0 && height > 0 && (int64_t)width * height <= FUZZ_MAX_PIXELS);
    dip_box box = fuzz_box(width, height, data, n);
    if (dip_image_finish(decoder, &image, &where, &kind, box, FUZZ_SIDE, FUZZ_SIDE) != DIP_OK) {
        FUZZ_CHECK(dip_image_start(decoder, &width, &height, &kind, data, n) == DIP_OK);
        FUZZ_CHECK(dip_image_cut(decoder, resizer, out, FUZZ_SIDE, FUZZ_SIDE, &kind, box,
                                 DIP_BICUBIC, 0) != DIP_OK);
        return false;
    }
    FUZZ_CHECK(where.x >= 0 && where.x + where.width <= image.width + 1e-6);
    FUZZ_CHECK(where.y >= 0 && where.y + where.height <= image.height + 1e-6);
    FUZZ_CHECK(dip_resize_region(resizer, out, FUZZ_SIDE, FUZZ_SIDE, &image, where, DIP_BICUBIC,
                                 0) == DIP_OK);
    static uint8_t cut[FUZZ_SIDE * FUZZ_SIDE * 3];
    FUZZ_CHECK(dip_image_start(decoder, &width, &height, &kind, data, n) == DIP_OK);
    FUZZ_CHECK(dip_image_cut(decoder, resizer, cut, FUZZ_SIDE, FUZZ_SIDE, &kind, box, DIP_BICUBIC,
                             0) == DIP_OK);
    FUZZ_CHECK(memcmp(cut, out, sizeof cut) == 0);
    return true;
}

/* The same files are refused whether all or a part is decoded, and a part has the same pixels. */
static inline void fuzz_image(const uint8_t *data, size_t n)
{
    fuzz_images *images = fuzz_images_get();
    dip_image image;
    dip_fault_kind kind;
    bool whole = dip_image_decode(images->plain, &image, &kind, data, n) == DIP_OK;
    if (whole) {
        FUZZ_CHECK(image.width > 0 && image.height > 0);
        FUZZ_CHECK(dip_resize(images->resizer, images->whole, FUZZ_SIDE, FUZZ_SIDE, &image,
                              fuzz_box(image.width, image.height, data, n), DIP_BICUBIC,
                              0) == DIP_OK);
        /* One of 512 pictures that can be decoded: to find it takes many of them. */
        uint32_t crc = dip_crc32c(0, images->whole, sizeof images->whole);
        if (crc % 512 == 511) fuzz_canary("`", 1);
    }
    FUZZ_CHECK(fuzz_decode_part(images->part, images->plain, images->resizer, data, n) == whole);
    FUZZ_CHECK(!whole || memcmp(images->part, images->whole, sizeof images->whole) == 0);
    FUZZ_CHECK(fuzz_decode_part(images->part, images->other, images->resizer, data, n) == whole);
}

#endif
