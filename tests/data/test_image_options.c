/* The decoder's options: EXIF orientation, alpha over a colour, scaling while decoding; and WebP.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "image_jpeg.h"

static dip_image_decoder *open_with(const dip_decode_options *options)
{
    dip_image_decoder *decoder;
    assert_int_equal(dip_image_decoder_open_with(&decoder, options), DIP_OK);
    return decoder;
}

static bool is_skipped(const char *name)
{
#ifdef DIPTYCH_WEBP
    (void)name;
    return false;
#else
    return strstr(name, ".webp") != NULL;
#endif
}

static void check_file(const dip_decode_options *options, const char *name, int width, int height,
                       unsigned long crc)
{
    if (is_skipped(name)) return;
    dip_image_decoder *decoder = open_with(options);
    bytes file = read_corpus(name);
    dip_image image;
    dip_fault_kind kind;
    if (dip_image_decode(decoder, &image, &kind, file.data, file.n) != DIP_OK)
        fail_msg("%s: %s", name, dip_error());
    if (image.width != width || image.height != height || image_crc(&image) != crc)
        fail_msg("%s: %d x %d, other pixels than Pillow's", name, image.width, image.height);
    free(file.data);
    dip_image_decoder_close(decoder);
}

static void files_equal_pillow(void **state)
{
    (void)state;
    FILE *list = fopen(TEST_SOURCE_DIR "/tests/golden/image_options_expected.txt", "r");
    assert_non_null(list);
    char line[200], name[64];
    int width, height, n_plain = 0, n_turned = 0, n_over = 0;
    unsigned long crc;
    while (fgets(line, sizeof line, list)) {
        dip_decode_options options = dip_decode_defaults();
        int *over = options.alpha_over;
        if (sscanf(line, "plain %63s %d %d %lu", name, &width, &height, &crc) == 4) {
            n_plain++;
        } else if (sscanf(line, "turned %63s %d %d %lu", name, &width, &height, &crc) == 4) {
            options.exif_rotate = true;
            n_turned++;
        } else {
            assert_int_equal(sscanf(line, "over %d %d %d %63s %d %d %lu", &over[0], &over[1],
                                    &over[2], name, &width, &height, &crc),
                             7);
            n_over++;
        }
        check_file(&options, name, width, height, crc);
    }
    assert_int_equal(n_plain, 18);
    assert_int_equal(n_turned, 15);
    assert_int_equal(n_over, 54);
    fclose(list);
}

/* Boxes are on the turned image, and hold its pixels. */
static void crops_of_turned_images(void **state)
{
    (void)state;
    dip_decode_options options = dip_decode_defaults();
    options.exif_rotate = true;
    dip_image_decoder *decoder = open_with(&options);
    for (int o = 1; o <= 8; o++) {
        char name[32];
        snprintf(name, sizeof name, "turned_%d.jpg", o);
        bytes file = read_corpus(name);
        dip_image image;
        dip_fault_kind kind;
        assert_int_equal(dip_image_decode(decoder, &image, &kind, file.data, file.n), DIP_OK);
        dip_image whole = copy_image(&image);
        for (int i = 0; i < 200; i++) {
            dip_box box = {.x = i % whole.width, .y = i * 7 % whole.height};
            box.width = 1 + i * 5 % (whole.width - box.x);
            box.height = 1 + i * 3 % (whole.height - box.y);
            int width, height;
            dip_rect where;
            assert_int_equal(dip_image_start(decoder, &width, &height, &kind, file.data, file.n),
                             DIP_OK);
            assert_int_equal(width, whole.width);
            assert_int_equal(height, whole.height);
            assert_int_equal(dip_image_finish(decoder, &image, &where, &kind, box, 9, 9), DIP_OK);
            check_pixels(&image, where, &whole, box, name);
        }
        const dip_box outside = {0, 0, whole.width + 1, 1};
        dip_rect where;
        int width, height;
        assert_int_equal(dip_image_start(decoder, &width, &height, &kind, file.data, file.n),
                         DIP_OK);
        assert_int_equal(dip_image_finish(decoder, &image, &where, &kind, outside, 9, 9),
                         DIP_CONFIG);
        free(whole.rgb);
        free(file.data);
    }
    dip_image_decoder_close(decoder);
}

/* Every byte of the EXIF segment changed, and the file cut inside it: read or ignored, never a
 * fault, and never a read beyond the file. */
static void damaged_exif_is_ignored(void **state)
{
    (void)state;
    const char *names[] = {"turned_6.jpg", "turned_7.jpg", "turned_6.png", "turned_5.webp"};
    dip_decode_options options = dip_decode_defaults();
    options.exif_rotate = true;
    dip_image_decoder *decoder = open_with(&options), *plain = open_decoder(25000000);
    for (size_t n = 0; n < 4; n++) {
        if (is_skipped(names[n])) continue;
        bytes file = read_corpus(names[n]);
        const uint8_t *tiff = memmem(file.data, file.n, "II*\0", 4);
        if (!tiff) tiff = memmem(file.data, file.n, "MM\0*", 4);
        assert_non_null(tiff);
        size_t begin = (size_t)(tiff - file.data);
        for (size_t at = begin; at < begin + 50; at++)
            for (int flip = 1; flip < 256; flip += 5) {
                dip_image image;
                dip_fault_kind kind;
                file.data[at] ^= (uint8_t)flip;
                assert_int_equal(dip_image_decode(plain, &image, &kind, file.data, file.n), DIP_OK);
                if (dip_image_decode(decoder, &image, &kind, file.data, file.n) != DIP_OK)
                    fail_msg("%s, byte %zu: %s", names[n], at, dip_error());
                file.data[at] ^= (uint8_t)flip;
            }
        free(file.data);
    }
    dip_image_decoder_close(plain);
    dip_image_decoder_close(decoder);
}

/* A PNG of two pixels, 16 bits deep, of which the key names the first in full. */
static void a_key_of_16_bits_is_compared_in_full(void **state)
{
    (void)state;
    static const uint8_t header[13] = {0, 0, 0, 2, 0, 0, 0, 1, 16, 2};
    static const uint8_t row[13] = {
        0,    0x10, 1,    0x20, 2,    0x30, 3, /* filter, a pixel */
        0x10, 1,    0x20, 2,    0x30, 4};      /* the next: low byte differs */
    uint8_t packed[64];
    uLongf n_packed = sizeof packed;
    assert_int_equal(compress(packed, &n_packed, row, sizeof row), Z_OK);
    bytes file = {malloc(8), 8};
    memcpy(file.data, "\x89PNG\r\n\x1a\n", 8);
    put_chunk(&file, file.n, 0, "IHDR", header, 13);
    put_chunk(&file, file.n, 0, "tRNS", row + 1, 6);
    put_chunk(&file, file.n, 0, "IDAT", packed, n_packed);
    put_chunk(&file, file.n, 0, "IEND", NULL, 0);
    dip_decode_options options = dip_decode_defaults();
    options.alpha_over[0] = options.alpha_over[1] = options.alpha_over[2] = 200;
    dip_image_decoder *decoder = open_with(&options);
    dip_image image;
    dip_fault_kind kind;
    if (dip_image_decode(decoder, &image, &kind, file.data, file.n) != DIP_OK)
        fail_msg("%s", dip_error());
    static const uint8_t expected[6] = {200, 200, 200, 0x10, 0x20, 0x30};
    assert_memory_equal(image.rgb, expected, 6);
    free(file.data);
    dip_image_decoder_close(decoder);
}

/* How much coarser a component is in one axis than in the other. */
static int unevenness(const jpeg_recipe *recipe)
{
    int max_h = 1, max_v = 1, uneven = 1;
    for (int c = 0; c < recipe->n_components; c++) {
        if (recipe->h[c] > max_h) max_h = recipe->h[c];
        if (recipe->v[c] > max_v) max_v = recipe->v[c];
    }
    for (int c = 0; c < recipe->n_components; c++) {
        int across = max_h / recipe->h[c], down = max_v / recipe->v[c];
        int ratio = across > down ? across / down : down / across;
        if (ratio > uneven) uneven = ratio;
    }
    return uneven;
}

/* Mean and largest difference of crops made with and without scaling. */
static void compare_scaled(bytes file, dip_box box, int side, int uneven, double *mean,
                           int *largest)
{
    dip_decode_options options = dip_decode_defaults();
    dip_image_decoder *exact = open_with(&options);
    options.scale_in_dct = true;
    dip_image_decoder *scaling = open_with(&options), *decoders[2] = {exact, scaling};
    dip_resizer *resizer;
    assert_int_equal(dip_resizer_open(&resizer), DIP_OK);
    size_t n = (size_t)side * (size_t)side * 3;
    uint8_t *out[2] = {malloc(n), malloc(n)};
    bool is_scaled = false;
    for (int i = 0; i < 2; i++) {
        int width, height;
        dip_image image;
        dip_rect where;
        dip_fault_kind kind;
        assert_int_equal(dip_image_start(decoders[i], &width, &height, &kind, file.data, file.n),
                         DIP_OK);
        assert_int_equal(dip_image_finish(decoders[i], &image, &where, &kind, box, side, side),
                         DIP_OK);
        is_scaled = where.width < box.width;
        assert_true(where.width >= side && where.height >= side);
        assert_int_equal(
            dip_resize_region(resizer, out[i], side, side, &image, where, DIP_BICUBIC, 0), DIP_OK);
    }
    assert_int_equal(is_scaled, box.width >= 2 * uneven * side && box.height >= 2 * uneven * side);
    double sum = 0;
    *largest = 0;
    for (size_t i = 0; i < n; i++) {
        int d = abs(out[0][i] - out[1][i]);
        sum += d;
        if (d > *largest) *largest = d;
    }
    *mean = sum / (double)n;
    free(out[0]);
    free(out[1]);
    dip_resizer_close(resizer);
    dip_image_decoder_close(exact);
    dip_image_decoder_close(scaling);
}

/* A crop decoded at a smaller scale holds the pixels of the whole image at that scale. */
static void scaled_crops_equal_the_whole(void **state)
{
    (void)state;
    dip_decode_options options = dip_decode_defaults();
    options.scale_in_dct = true;
    dip_image_decoder *decoder = open_with(&options);
    enum { W = 203, H = 155 };
    unsigned random = 9;
    for (int r = 0; r < N_JPEG_RECIPES; r++) {
        bytes file = make_jpeg(&jpeg_recipes[r], W, H, 1);
        for (int shrink = 2; shrink <= 8; shrink *= 2) {
            int width, height;
            dip_image image;
            dip_rect where;
            dip_fault_kind kind;
            dip_box box = {0, 0, W, H};
            dip_image whole = {0};
            for (int i = -1; i < 40; i++) { /* -1: the whole */
                if (i >= 0) box = random_box(&random, W, H);
                if (box.width < shrink || box.height < shrink) continue;
                assert_int_equal(
                    dip_image_start(decoder, &width, &height, &kind, file.data, file.n), DIP_OK);
                assert_int_equal(dip_image_finish(decoder, &image, &where, &kind, box,
                                                  box.width / shrink, box.height / shrink),
                                 DIP_OK);
                int used = (int)lround(box.width / where.width);
                if (i < 0) {
                    whole = copy_image(&image);
                    assert_int_equal(whole.width, (W + used - 1) / used);
                    continue;
                }
                if (whole.width != (W + used - 1) / used) continue; /* scaled less than the whole */
                dip_box part = {.x = (int)lround((double)box.x / used - where.x),
                                .y = (int)lround((double)box.y / used - where.y),
                                .width = image.width,
                                .height = image.height};
                int x = box.x / used - part.x,
                    y = box.y / used - part.y; /* of its first whole pixel */
                dip_box inside = {box.x / used, box.y / used, (box.x + box.width + used - 1) / used,
                                  (box.y + box.height + used - 1) / used};
                inside.width -= inside.x;
                inside.height -= inside.y;
                check_pixels(&image, (dip_rect){x, y, inside.width, inside.height}, &whole, inside,
                             jpeg_recipes[r].name);
            }
            free(whole.rgb);
        }
        free(file.data);
    }
    dip_image_decoder_close(decoder);
}

/* On pictures without fine detail, which is where the two ways differ. */
static void scaling_changes_little(void **state)
{
    (void)state;
    static const dip_box boxes[] = {
        {0, 0, 400, 304}, {13, 7, 301, 290}, {100, 90, 299, 213}, {399 - 256, 304 - 256, 256, 256}};
    static const int sides[] = {128, 96, 64, 37, 32};
    for (int r = 0; r < N_JPEG_RECIPES; r++) {
        bytes file = make_smooth_jpeg(&jpeg_recipes[r], 400, 304);
        for (size_t b = 0; b < 4; b++)
            for (size_t s = 0; s < 5; s++) {
                double mean;
                int largest;
                compare_scaled(file, boxes[b], sides[s], unevenness(&jpeg_recipes[r]), &mean,
                               &largest);
                if (mean > 2.0 || largest > 12)
                    fail_msg("%s, box %zu to %d: mean %.3f, largest %d", jpeg_recipes[r].name, b,
                             sides[s], mean, largest);
            }
        free(file.data);
    }
}

static void bad_options_are_refused(void **state)
{
    (void)state;
    dip_image_decoder *decoder;
    for (int i = 0; i < 6; i++) {
        dip_decode_options options = dip_decode_defaults();
        if (i == 0) options.max_pixels = 0;
        if (i == 1) options.max_side = 0;
        if (i == 2) options.max_scans = -1;
        if (i == 3) options.max_bytes = 0;
        if (i == 4) options.alpha_over[0] = 256;
        if (i == 5) options.alpha_over[0] = 255; /* and the others are below 0 */
        assert_int_equal(dip_image_decoder_open_with(&decoder, &options), DIP_CONFIG);
        assert_null(decoder);
    }
}

static void limits_are_exact(void **state)
{
    (void)state;
    bytes file = read_corpus("ycc_420.jpg"); /* 41 x 27 */
    for (int below = 0; below < 2; below++)
        for (int i = 0; i < 2; i++) {
            dip_decode_options options = dip_decode_defaults();
            if (i == 0) options.max_side = 41 - below;
            if (i == 1) options.max_bytes = (int64_t)file.n - below;
            dip_image_decoder *decoder = open_with(&options);
            dip_image image;
            dip_fault_kind kind;
            assert_int_equal(dip_image_decode(decoder, &image, &kind, file.data, file.n),
                             below ? DIP_FORMAT : DIP_OK);
            if (below) assert_int_equal(kind, DIP_FAULT_IMAGE_TOO_LARGE);
            dip_image_decoder_close(decoder);
        }
    free(file.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_equal_pillow),
        cmocka_unit_test(crops_of_turned_images),
        cmocka_unit_test(damaged_exif_is_ignored),
        cmocka_unit_test(a_key_of_16_bits_is_compared_in_full),
        cmocka_unit_test(scaled_crops_equal_the_whole),
        cmocka_unit_test(scaling_changes_little),
        cmocka_unit_test(bad_options_are_refused),
        cmocka_unit_test(limits_are_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
