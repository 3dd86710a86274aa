/* Images that must be refused, each for its reason, and damage that must not crash. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "image_files.h"

static void cut_files_are_refused(void **state)
{
    (void)state;
    const char *names[] = {
        "ycc_420.jpg",        "ycc_444_progressive.jpg",
        "grey.jpg",           "cmyk.jpg",
        "arithmetic.jpg",     "ycc_410_restart.jpg",
        "colour2_depth8.png", "colour3_depth4_adam7_trns.png",
#ifdef DIPTYCH_WEBP
        "lossy.webp",         "lossless_alpha.webp",
        "turned_5.webp",
#endif
    };
    dip_image_decoder *decoder = open_decoder(25000000);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        bytes file = read_corpus(names[i]);
        for (size_t n = 3; n<file.n; n += file.n - n> 70 ? 7 : 1) {
            dip_image image;
            dip_fault_kind kind;
            uint8_t *part = malloc(n);
            assert_non_null(part);
            memcpy(part, file.data, n);
            if (dip_image_decode(decoder, &image, &kind, part, n) != DIP_FORMAT)
                fail_msg("%s cut to %zu of %zu bytes was accepted", names[i], n, file.n);
            free(part);
        }
        free(file.data);
    }
    dip_image_decoder_close(decoder);
}

/* No damage of one byte may crash, hang, or give an image beyond the limit. */
static void flipped_bytes_do_no_harm(void **state)
{
    (void)state;
    const char *names[] = {
        "ycc_420.jpg",
        "ycc_420_progressive.jpg",
        "cmyk.jpg",
        "arithmetic.jpg",
        "ycc_410_restart.jpg",
        "colour2_depth8.png",
        "colour0_depth16.png",
        "colour3_depth4_adam7_trns.png",
        "colour6_depth16.png",
#ifdef DIPTYCH_WEBP
        "lossy.webp",
        "lossy_alpha.webp",
        "lossless.webp",
        "lossless_alpha.webp",
        "animated.webp",
#endif
    };
    enum { LIMIT = 1000000 };
    dip_image_decoder *decoder = open_decoder(LIMIT);
    int n_refused = 0, n_flips = 0;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        bytes file = read_corpus(names[i]);
        for (size_t at = 0; at < file.n; at++) {
            static const uint8_t flips[] = {0x01, 0x80, 0xff};
            for (size_t f = 0; f < sizeof flips; f++) {
                dip_image image;
                dip_fault_kind kind = DIP_N_FAULT_KINDS;
                file.data[at] ^= flips[f];
                dip_status status = dip_image_decode(decoder, &image, &kind, file.data, file.n);
                file.data[at] ^= flips[f];
                n_flips++;
                if (status == DIP_OK) {
                    assert_true(image.width > 0 && image.height > 0);
                    assert_true((int64_t)image.width * image.height <= LIMIT);
                } else {
                    assert_int_equal(status, DIP_FORMAT);
                    assert_true(kind < DIP_N_FAULT_KINDS && strlen(dip_error()) > 5);
                    n_refused++;
                }
            }
        }
        free(file.data);
    }
    assert_true(n_refused > n_flips / 4); /* the loop did reach the decoders */
    dip_image_decoder_close(decoder);
}

static void sizes_are_checked_from_the_header(void **state)
{
    (void)state;
    const uint8_t sides[] = {0xff, 0xdc, 0xff, 0xdc}; /* 65,500 x 65,500 */
    bytes file = read_corpus("ycc_420.jpg");
    memcpy(file.data + find_frame(&file) + 5, sides, 4);
    refused_file(file, DIP_FAULT_IMAGE_TOO_LARGE, "65500 x 65500 pixels; at most 25000000");

    file = read_corpus("ycc_420.jpg");
    memset(file.data + find_frame(&file) + 5, 0xff, 4);
    refused_file(file, DIP_FAULT_IMAGE_TOO_LARGE, "65500"); /* libjpeg's own limit */

    file = read_corpus("ycc_420.jpg");
    memset(file.data + find_frame(&file) + 7, 0, 2);
    refused_file(file, DIP_FAULT_IMAGE_BROKEN, "Empty JPEG");

    static const struct {
        uint32_t width, height;
        dip_fault_kind kind;
        const char *part;
    } pngs[] = {
        {1000000, 1000000, DIP_FAULT_IMAGE_TOO_LARGE, "1000000 x 1000000 pixels"},
        {0x7fffffff, 0x7fffffff, DIP_FAULT_IMAGE_TOO_LARGE, "2147483647 x 2147483647"},
        {0xffffffff, 0xffffffff, DIP_FAULT_IMAGE_TOO_LARGE, "4294967295"},
        {5001, 5000, DIP_FAULT_IMAGE_TOO_LARGE, "5001 x 5000"},
        {65536, 1, DIP_FAULT_IMAGE_TOO_LARGE, "at most 65535 a side"},
        {0, 9, DIP_FAULT_IMAGE_BROKEN, "an image of 0 x 9"},
        {13, 0, DIP_FAULT_IMAGE_BROKEN, "an image of 13 x 0"},
        {13, 10, DIP_FAULT_IMAGE_BROKEN, "PNG: "}, /* a row more than there is data */
    };
    for (size_t i = 0; i < sizeof pngs / sizeof pngs[0]; i++) {
        uint8_t header[13];
        file = read_corpus("colour2_depth8.png");
        memcpy(header, file.data + 16, 13);
        put_u32(header, pngs[i].width);
        put_u32(header + 4, pngs[i].height);
        put_chunk(&file, 8, 25, "IHDR", header, 13);
        refused_file(file, pngs[i].kind, pngs[i].part);
    }
}

static void the_pixel_limit_is_exact(void **state)
{
    (void)state;
    const char *names[] = {"ycc_420.jpg", "colour2_depth8.png"};
    const int n_pixels[] = {41 * 27, 13 * 9};
    for (int i = 0; i < 2; i++) {
        for (int below = 0; below < 2; below++) {
            dip_image_decoder *decoder = open_decoder(n_pixels[i] - below);
            bytes file = read_corpus(names[i]);
            dip_image image;
            dip_fault_kind kind;
            assert_int_equal(dip_image_decode(decoder, &image, &kind, file.data, file.n),
                             below ? DIP_FORMAT : DIP_OK);
            if (below) assert_int_equal(kind, DIP_FAULT_IMAGE_TOO_LARGE);
            free(file.data);
            dip_image_decoder_close(decoder);
        }
    }
    dip_image_decoder *decoder;
    assert_int_equal(dip_image_decoder_open(&decoder, 0), DIP_CONFIG);
    assert_null(decoder);
}

static void damaged_png_chunks_are_refused(void **state)
{
    (void)state;
    size_t n, at;
    bytes file = read_corpus("colour2_depth8.png"); /* a critical chunk's checksum */
    at = find_chunk(&file, "IDAT", &n);
    file.data[at + 8 + n] ^= 1;
    refused_file(file, DIP_FAULT_IMAGE_BROKEN, "CRC");

    file = read_corpus("colour3_depth8.png"); /* colours that are not in the palette */
    at = find_chunk(&file, "PLTE", &n);
    put_chunk(&file, at, n + 12, "PLTE", "abcdef", 6);
    refused_file(file, DIP_FAULT_IMAGE_BROKEN, "palette");

    file = read_corpus("colour3_depth8.png"); /* no palette */
    at = find_chunk(&file, "PLTE", &n);
    splice(&file, at, n + 12, NULL, 0);
    refused_file(file, DIP_FAULT_IMAGE_BROKEN, "PNG: ");

    file = read_corpus("colour2_depth8.png"); /* no image data */
    at = find_chunk(&file, "IDAT", &n);
    splice(&file, at, n + 12, NULL, 0);
    refused_file(file, DIP_FAULT_IMAGE_BROKEN, "PNG: ");

    file = read_corpus("colour2_depth8.png"); /* a critical chunk nobody knows */
    at = find_chunk(&file, "IDAT", &n);
    put_chunk(&file, at, 0, "NEWC", "x", 1);
    refused_file(file, DIP_FAULT_IMAGE_BROKEN, "PNG: ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut_files_are_refused),
        cmocka_unit_test(flipped_bytes_do_no_harm),
        cmocka_unit_test(sizes_are_checked_from_the_header),
        cmocka_unit_test(the_pixel_limit_is_exact),
        cmocka_unit_test(damaged_png_chunks_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
