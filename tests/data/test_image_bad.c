/* Images that must be refused, each for its reason, and damage that must not crash. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include <jpeglib.h>

#include "image_files.h"

static void refused(const void *data, size_t n, dip_fault_kind expected, const char *part)
{
    dip_image_decoder *decoder = open_decoder(25000000);
    dip_image image;
    dip_fault_kind kind = DIP_FAULT_TAR;
    assert_int_equal(dip_image_decode(decoder, &image, &kind, data, n), DIP_FORMAT);
    assert_null(image.rgb);
    if (!strstr(dip_error(), part)) fail_msg("'%s' not in: %s", part, dip_error());
    assert_int_equal(kind, expected);
    /* the decoder is not harmed */
    bytes good = read_corpus("ycc_420.jpg");
    assert_int_equal(dip_image_decode(decoder, &image, &kind, good.data, good.n), DIP_OK);
    free(good.data);
    dip_image_decoder_close(decoder);
}

static void refused_file(bytes file, dip_fault_kind expected, const char *part)
{
    refused(file.data, file.n, expected, part);
    free(file.data);
}

static void other_formats_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        const char *name;
    } cases[] = {
        {"", 0, "no bytes"},
        {"\xff", 1, "begin with ff"},
        {"\xff\xd8", 2, "begin with ff d8"},
        {"hello world", 11, "begin with 68 65 6c 6c 6f 20 77 6f"},
        {"GIF89a\1\0\1\0", 10, "this is GIF"},
        {"RIFF\x10\0\0\0WEBPVP8 ", 16, "this is WebP"},
        {"\0\0\0\x20"
         "ftypavif",
         12, "this is AVIF"},
        {"\0\0\0\x20"
         "ftypheic",
         12, "this is HEIF"},
        {"\0\0\0\x0cJXL \r\n\x87\n", 12, "this is JPEG XL"},
        {"BM\0\0\0\0", 6, "this is BMP"},
        {"II*\0\x08\0\0\0", 8, "this is TIFF"},
        {"<!DOCTYPE html><html>", 21, "this is HTML or XML"},
        {"\xef\xbb\xbf\r\n <svg", 10, "this is HTML or XML"},
        {"version https://git-lfs.github.com/spec/v1", 42, "this is Git LFS pointer"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        refused(cases[i].bytes, cases[i].n, DIP_FAULT_IMAGE_FORMAT, cases[i].name);
}

static void cut_files_are_refused(void **state)
{
    (void)state;
    const char *names[] = {"ycc_420.jpg",        "ycc_444_progressive.jpg",
                           "grey.jpg",           "cmyk.jpg",
                           "arithmetic.jpg",     "ycc_410_restart.jpg",
                           "colour2_depth8.png", "colour3_depth4_adam7_trns.png"};
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
        "ycc_420.jpg",         "ycc_420_progressive.jpg",       "cmyk.jpg",
        "arithmetic.jpg",      "ycc_410_restart.jpg",           "colour2_depth8.png",
        "colour0_depth16.png", "colour3_depth4_adam7_trns.png", "colour6_depth16.png"};
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

/* The frame header: marker, length, precision, height, width, components. */
static size_t find_frame(const bytes *file)
{
    for (size_t i = 0; i + 10 < file->n; i++)
        if (file->data[i] == 0xff && file->data[i + 1] >= 0xc0 && file->data[i + 1] <= 0xc2)
            return i;
    fail_msg("no frame header");
    return 0;
}

static void unsupported_jpegs_are_named(void **state)
{
    (void)state;
    bytes file = read_corpus("ycc_420.jpg");
    file.data[find_frame(&file) + 1] = 0xc3;
    refused_file(file, DIP_FAULT_IMAGE_FORMAT, "SOF type 0xc3"); /* lossless */
    file = read_corpus("ycc_420.jpg");
    file.data[find_frame(&file) + 4] = 12;
    refused_file(file, DIP_FAULT_IMAGE_FORMAT, "precision 12");
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
        {1000001, 1, DIP_FAULT_IMAGE_TOO_LARGE, "at most 1000000 a side"},
        {0, 9, DIP_FAULT_IMAGE_BROKEN, "PNG: "},
        {13, 0, DIP_FAULT_IMAGE_BROKEN, "PNG: "},
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

/* A legal progressive file that sends the coefficients [1, last] one by one, each component by
 * itself: 3 * last + 1 scans. */
static bytes make_scans(int last)
{
    struct jpeg_compress_struct codec;
    struct jpeg_error_mgr errors;
    jpeg_scan_info scans[3 * 63 + 1] = {{.comps_in_scan = 3, .component_index = {0, 1, 2}}};
    int n_scans = 1;
    for (int c = 0; c < 3; c++)
        for (int k = 1; k <= last; k++)
            scans[n_scans++] = (jpeg_scan_info){
                .comps_in_scan = 1, .component_index = {c}, .Ss = k, .Se = k == last ? 63 : k};
    unsigned long n = 0;
    bytes file = {0};
    codec.err = jpeg_std_error(&errors);
    jpeg_create_compress(&codec);
    jpeg_mem_dest(&codec, &file.data, &n);
    codec.image_width = codec.image_height = 16;
    codec.input_components = 3;
    codec.in_color_space = JCS_RGB;
    jpeg_set_defaults(&codec);
    codec.scan_info = scans;
    codec.num_scans = n_scans;
    jpeg_start_compress(&codec, TRUE);
    uint8_t row[16 * 3];
    for (int i = 0; i < 16 * 3; i++) row[i] = (uint8_t)(i * 37);
    JSAMPROW rows[1] = {row};
    while (codec.next_scanline < 16) jpeg_write_scanlines(&codec, rows, 1);
    jpeg_finish_compress(&codec);
    jpeg_destroy_compress(&codec);
    file.n = n;
    return file;
}

static void endless_scans_are_refused(void **state)
{
    (void)state;
    dip_image_decoder *decoder = open_decoder(25000000);
    bytes file = make_scans(20);
    dip_image image;
    dip_fault_kind kind;
    assert_int_equal(dip_image_decode(decoder, &image, &kind, file.data, file.n), DIP_OK);
    free(file.data);
    dip_image_decoder_close(decoder);
    refused_file(make_scans(63), DIP_FAULT_IMAGE_BROKEN, "more than 100 scans");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_formats_are_named),
        cmocka_unit_test(cut_files_are_refused),
        cmocka_unit_test(flipped_bytes_do_no_harm),
        cmocka_unit_test(unsupported_jpegs_are_named),
        cmocka_unit_test(sizes_are_checked_from_the_header),
        cmocka_unit_test(the_pixel_limit_is_exact),
        cmocka_unit_test(damaged_png_chunks_are_refused),
        cmocka_unit_test(endless_scans_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
