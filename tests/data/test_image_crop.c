/* Decoding for a crop: the pixels of a full decode, the same files refused. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "image_jpeg.h"

static dip_image decode_whole(dip_image_decoder *decoder, bytes file, const char *name)
{
    dip_image image;
    dip_fault_kind kind;
    if (dip_image_decode(decoder, &image, &kind, file.data, file.n) != DIP_OK)
        fail_msg("%s: %s", name, dip_error());
    return copy_image(&image);
}

static void check_crop(dip_image_decoder *decoder, dip_resizer *resizer, bytes file,
                       const dip_image *whole, dip_box box, const char *name)
{
    enum { SIDE = 24 };
    static uint8_t out[SIDE * SIDE * 3], cut[SIDE * SIDE * 3], expected[SIDE * SIDE * 3];
    int width, height;
    dip_image part;
    dip_rect where;
    dip_fault_kind kind;
    assert_int_equal(dip_image_start(decoder, &width, &height, &kind, file.data, file.n), DIP_OK);
    assert_int_equal(width, whole->width);
    assert_int_equal(height, whole->height);
    if (dip_image_finish(decoder, &part, &where, &kind, box, SIDE, SIDE) != DIP_OK)
        fail_msg("%s: %s", name, dip_error());
    check_pixels(&part, where, whole, box, name);
    int flip = box.x % 2;
    assert_int_equal(dip_resize_region(resizer, out, SIDE, SIDE, &part, where, DIP_BICUBIC, flip),
                     DIP_OK);
    assert_int_equal(dip_resize(resizer, expected, SIDE, SIDE, whole, box, DIP_BICUBIC, flip),
                     DIP_OK);
    assert_memory_equal(out, expected, sizeof out);
    assert_int_equal(dip_image_start(decoder, &width, &height, &kind, file.data, file.n), DIP_OK);
    if (dip_image_cut(decoder, resizer, cut, SIDE, SIDE, &kind, box, DIP_BICUBIC, flip) != DIP_OK)
        fail_msg("%s: %s", name, dip_error());
    assert_memory_equal(cut, expected, sizeof cut);
}

static void jpeg_crops_equal_full_decoding(void **state)
{
    (void)state;
    static const int sizes[][2] = {{97, 71}, {64, 48}, {33, 130}, {131, 17}, {1, 40},
                                   {40, 1},  {7, 7},   {16, 16},  {17, 33},  {200, 150}};
    enum { N_BOXES = 30 };
    dip_image_decoder *decoder = open_decoder(25000000);
    dip_resizer *resizer;
    assert_int_equal(dip_resizer_open(&resizer), DIP_OK);
    unsigned random = 7;
    for (int r = 0; r < N_JPEG_RECIPES; r++)
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
            const char *name = jpeg_recipes[r].name;
            bytes file = make_jpeg(&jpeg_recipes[r], sizes[s][0], sizes[s][1], random);
            dip_image whole = decode_whole(decoder, file, name);
            for (int i = 0; i < N_BOXES; i++)
                check_crop(decoder, resizer, file, &whole,
                           random_box(&random, whole.width, whole.height), name);
            free(whole.rgb);
            free(file.data);
        }
    dip_resizer_close(resizer);
    dip_image_decoder_close(decoder);
}

/* The real thing: a large picture, a box that leaves little away, each row and column of it. */
static void jpeg_crops_of_a_large_image(void **state)
{
    (void)state;
    dip_image_decoder *decoder = open_decoder(25000000);
    dip_resizer *resizer;
    assert_int_equal(dip_resizer_open(&resizer), DIP_OK);
    unsigned random = 11;
    for (int r = 0; r < N_JPEG_RECIPES; r++) {
        bytes file = make_jpeg(&jpeg_recipes[r], 509, 387, random);
        dip_image whole = decode_whole(decoder, file, jpeg_recipes[r].name);
        for (int i = 0; i < 2; i++) {
            dip_box box = {.x = (int)below(&random, 40), .y = (int)below(&random, 40)};
            box.width = 509 - box.x - (int)below(&random, 40);
            box.height = 387 - box.y - (int)below(&random, 40);
            check_crop(decoder, resizer, file, &whole, box, jpeg_recipes[r].name);
        }
        free(whole.rgb);
        free(file.data);
    }
    dip_resizer_close(resizer);
    dip_image_decoder_close(decoder);
}

static void png_and_webp_crops_equal_full_decoding(void **state)
{
    (void)state;
    const char *names[] = {"colour2_depth8.png", "colour3_depth4_adam7_trns.png",
                           "colour0_depth16.png",
#ifdef DIPTYCH_WEBP
                           "lossy.webp", "lossless_alpha.webp"
#endif
    };
    dip_image_decoder *decoder = open_decoder(25000000);
    dip_resizer *resizer;
    assert_int_equal(dip_resizer_open(&resizer), DIP_OK);
    unsigned random = 3;
    for (size_t n = 0; n < sizeof names / sizeof names[0]; n++) {
        bytes file = read_corpus(names[n]);
        dip_image whole = decode_whole(decoder, file, names[n]);
        for (int i = 0; i < 50; i++)
            check_crop(decoder, resizer, file, &whole,
                       random_box(&random, whole.width, whole.height), names[n]);
        free(whole.rgb);
        free(file.data);
    }
    dip_resizer_close(resizer);
    dip_image_decoder_close(decoder);
}

/* A crop in two steps. */
static dip_status crop(dip_image_decoder *decoder, dip_image *part, dip_rect *where,
                       dip_fault_kind *kind, bytes file, const dip_box *box)
{
    int width, height;
    DIP_TRY(dip_image_start(decoder, &width, &height, kind, file.data, file.n));
    dip_box inside = *box;
    if (inside.x >= width) inside.x = 0;
    if (inside.y >= height) inside.y = 0;
    if (inside.width > width - inside.x) inside.width = width - inside.x;
    if (inside.height > height - inside.y) inside.height = height - inside.y;
    return dip_image_finish(decoder, part, where, kind, inside, 8, 8);
}

/* Damage, and small boxes by turns: at the top, in the middle and at the bottom. Most is outside.
 */
static void the_crop_does_not_decide_what_is_refused(void **state)
{
    (void)state;
    static const dip_box boxes[] = {{0, 0, 2, 2}, {40, 30, 20, 9}, {90, 66, 7, 5}};
    enum { N_CHANGES = 240 };
    dip_image_decoder *decoder = open_decoder(1000000);
    unsigned random = 5;
    int n_refused = 0, n_accepted = 0;
    for (int r = 0; r < N_JPEG_RECIPES; r++) {
        bytes file = make_jpeg(&jpeg_recipes[r], 97, 71, 1);
        for (int i = 0; i < N_CHANGES; i++) {
            size_t at = 2 + below(&random, (int)file.n - 2), cut = file.n;
            uint8_t flip = (uint8_t)(1u << below(&random, 8));
            if (i % 8 == 0) cut = at;
            if (i % 8 != 0) file.data[at] ^= flip;
            bytes damaged = {file.data, cut};
            const dip_box *box = &boxes[i % 3];
            dip_image image, part;
            dip_rect where;
            dip_fault_kind kind, crop_kind;
            dip_status whole = dip_image_decode(decoder, &image, &kind, damaged.data, damaged.n);
            dip_image kept = {0};
            if (whole == DIP_OK) kept = copy_image(&image);
            dip_status status = crop(decoder, &part, &where, &crop_kind, damaged, box);
            if (status != whole || (whole != DIP_OK && kind != crop_kind))
                fail_msg("%s, byte %zu: whole %d, its crop at (%d, %d) %d: %s",
                         jpeg_recipes[r].name, at, whole, box->x, box->y, status, dip_error());
            if (whole == DIP_OK && kept.width == 97 && kept.height == 71)
                check_pixels(&part, where, &kept, *box, jpeg_recipes[r].name);
            whole == DIP_OK ? n_accepted++ : n_refused++;
            free(kept.rgb);
            if (i % 8 != 0) file.data[at] ^= flip;
        }
        free(file.data);
    }
    assert_true(n_refused > 1000 && n_accepted > 1000);
    dip_image_decoder_close(decoder);
}

static void steps_out_of_order_are_refused(void **state)
{
    (void)state;
    dip_image_decoder *decoder = open_decoder(25000000);
    bytes file = read_corpus("ycc_420.jpg");
    int width, height;
    dip_image image;
    dip_rect where;
    dip_fault_kind kind;
    const dip_box whole = {0, 0, 41, 27};
    const dip_box bad[] = {{-1, 0, 5, 5},         {0, -1, 5, 5},  {0, 0, 0, 5},
                           {0, 0, 5, 0},          {37, 0, 5, 5},  {0, 23, 5, 5},
                           {2147483647, 0, 1, 1}, {0, 0, 42, 27}, {0, 0, 41, 28},
                           {1, 0, 2147483647, 1}};
    assert_int_equal(dip_image_finish(decoder, &image, &where, &kind, whole, 8, 8), DIP_CONFIG);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(dip_image_start(decoder, &width, &height, &kind, file.data, file.n),
                         DIP_OK);
        assert_int_equal(dip_image_finish(decoder, &image, &where, &kind, bad[i], 8, 8),
                         DIP_CONFIG);
    }
    /* a start whose finish never comes harms nothing */
    for (int i = 0; i < 3; i++)
        assert_int_equal(dip_image_start(decoder, &width, &height, &kind, file.data, file.n),
                         DIP_OK);
    assert_int_equal(dip_image_finish(decoder, &image, &where, &kind, whole, 8, 8), DIP_OK);
    assert_int_equal(dip_image_finish(decoder, &image, &where, &kind, whole, 8, 8), DIP_CONFIG);
    free(file.data);
    dip_image_decoder_close(decoder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jpeg_crops_equal_full_decoding),
        cmocka_unit_test(jpeg_crops_of_a_large_image),
        cmocka_unit_test(png_and_webp_crops_equal_full_decoding),
        cmocka_unit_test(the_crop_does_not_decide_what_is_refused),
        cmocka_unit_test(steps_out_of_order_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
