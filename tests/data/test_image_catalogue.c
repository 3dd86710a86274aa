/* The image part of the catalogue of bad inputs, a case each: what must be refused (and by which
 * name), and what must decode in spite of its looks. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include <jpeglib.h>

#include "image_files.h"

static const char JPEG_NAME[] = "ycc_420.jpg";       /* 41 x 27 */
static const char PNG_NAME[] = "colour2_depth8.png"; /* 13 x 9 */

/* The file of the corpus decodes to Pillow's pixels. */
static void equals_pillow(const char *name)
{
    FILE *list = fopen(TEST_SOURCE_DIR "/tests/golden/image_expected.txt", "r");
    assert_non_null(list);
    char line_name[64];
    int width, height;
    unsigned long crc;
    do {
        if (fscanf(list, "%63s %d %d %lu", line_name, &width, &height, &crc) != 4)
            fail_msg("%s is not in the list", name);
    } while (strcmp(line_name, name) != 0);
    fclose(list);
    dip_image_decoder *decoder = open_decoder(25000000);
    bytes file = read_corpus(name);
    dip_image image;
    dip_fault_kind kind;
    if (dip_image_decode(decoder, &image, &kind, file.data, file.n) != DIP_OK)
        fail_msg("%s: %s", name, dip_error());
    if (image.width != width || image.height != height || image_crc(&image) != crc)
        fail_msg("%s: other pixels than Pillow's", name);
    free(file.data);
    dip_image_decoder_close(decoder);
}

static void all_equal_pillow(const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++) equals_pillow(names[i]);
}

#define ALL_EQUAL_PILLOW(...)                                                                      \
    do {                                                                                           \
        const char *const names_[] = {__VA_ARGS__};                                                \
        all_equal_pillow(names_, sizeof names_ / sizeof names_[0]);                                \
    } while (0)

static void refused_text(const char *text, const char *part)
{
    refused(text, strlen(text), DIP_FAULT_IMAGE_FORMAT, part);
}

static void image_28_html_as_jpg(void **state)
{
    (void)state;
    refused_text("<!DOCTYPE html><html>404</html>", "this is HTML or XML");
    refused_text("\xef\xbb\xbf\r\n <svg/>", "this is HTML or XML");
    refused_text("version https://git-lfs.github.com/spec/v1", "this is Git LFS pointer");
    refused_text("hello world", "begin with 68 65 6c 6c 6f 20 77 6f");
    refused("", 0, DIP_FAULT_IMAGE_FORMAT, "no bytes");
    refused("\xff\xd8", 2, DIP_FAULT_IMAGE_FORMAT, "begin with ff d8");
}

/* The decoder sees no file names: the bytes alone decide. */
static void image_29_the_signature_decides(void **state)
{
    (void)state;
    ALL_EQUAL_PILLOW("colour2_depth8.png", "ycc_420.jpg");
}

static void image_30_truncated_jpeg(void **state)
{
    (void)state;
    const char *names[] = {"ycc_420.jpg", "ycc_420_progressive.jpg", "arithmetic.jpg"};
    for (int i = 0; i < 3; i++)
        for (size_t cut = 1; cut < 40; cut++) {
            bytes file = read_corpus(names[i]);
            splice(&file, file.n - cut, cut, NULL, 0);
            refused_file(file, DIP_FAULT_IMAGE_BROKEN, "JPEG: ");
        }
    bytes file = read_corpus(JPEG_NAME); /* all pixels are there, but no end mark */
    splice(&file, file.n - 2, 2, "\xff\xfe\0\x40 a comment that is cut", 26);
    refused_file(file, DIP_FAULT_IMAGE_BROKEN, "JPEG: ");
}

/* libjpeg warns and goes on with invented pixels; here a warning is a fault with its sentence. */
static void image_31_a_jpeg_warning_is_a_fault(void **state)
{
    (void)state;
    bytes file = read_corpus(JPEG_NAME);
    splice(&file, 20, 0, "stray", 5); /* between two markers */
    refused_file(file, DIP_FAULT_IMAGE_BROKEN, "extraneous bytes");
    file = read_corpus(JPEG_NAME);
    splice(&file, file.n - 40, 1, "\xff\xd3", 2); /* a restart mark where none belongs */
    refused_file(file, DIP_FAULT_IMAGE_BROKEN, "JPEG: ");
}

static void image_32_header_of_65500_squared(void **state)
{
    (void)state;
    const uint8_t sides[] = {0xff, 0xdc, 0xff, 0xdc};
    bytes file = read_corpus(JPEG_NAME);
    memcpy(file.data + find_frame(&file) + 5, sides, 4);
    refused_file(file, DIP_FAULT_IMAGE_TOO_LARGE, "65500 x 65500 pixels; at most 25000000");
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

static void image_33_80000_scans(void **state)
{
    (void)state;
    dip_image_decoder *decoder = open_decoder(25000000);
    bytes file = make_scans(20);
    dip_image image;
    dip_fault_kind kind;
    assert_int_equal(dip_image_decode(decoder, &image, &kind, file.data, file.n), DIP_OK);
    free(file.data);
    dip_image_decoder_close(decoder);

    file = make_scans(63); /* then its last scan again and again */
    size_t last = file.n - 2;
    while (last > 0 && memcmp(file.data + last, "\xff\xda", 2) != 0) last--;
    assert_true(last > 0);
    size_t n = file.n - 2 - last;
    bytes many = {malloc(last + 80000 * n + 2), last};
    assert_non_null(many.data);
    memcpy(many.data, file.data, last);
    for (int i = 0; i < 80000; i++, many.n += n) memcpy(many.data + many.n, file.data + last, n);
    memcpy(many.data + many.n, "\xff\xd9", 2);
    many.n += 2;
    free(file.data);
    refused_file(many, DIP_FAULT_IMAGE_BROKEN, "more than 100 scans");
}

static void image_34_progressive(void **state)
{
    (void)state;
    ALL_EQUAL_PILLOW("ycc_444_progressive.jpg", "ycc_422_progressive.jpg",
                     "ycc_420_progressive.jpg");
}

static void image_35_arithmetic(void **state)
{
    (void)state;
    equals_pillow("arithmetic.jpg");
}

static void image_36_12_bit_and_lossless(void **state)
{
    (void)state;
    bytes file = read_corpus(JPEG_NAME);
    file.data[find_frame(&file) + 1] = 0xc3;
    refused_file(file, DIP_FAULT_IMAGE_FORMAT, "SOF type 0xc3"); /* lossless */
    file = read_corpus(JPEG_NAME);
    file.data[find_frame(&file) + 4] = 12;
    refused_file(file, DIP_FAULT_IMAGE_FORMAT, "precision 12");
}

static void image_37_cmyk(void **state)
{
    (void)state;
    ALL_EQUAL_PILLOW("cmyk.jpg", "cmyk_no_adobe.jpg", "ycck.jpg");
}

static void image_38_grey(void **state)
{
    (void)state;
    ALL_EQUAL_PILLOW("grey.jpg", "colour0_depth8.png");
}

/* Not applied unless asked for (test_image_options.c), and never a fault. */
static void image_39_exif(void **state)
{
    (void)state;
    ALL_EQUAL_PILLOW("exif_rotated.jpg", "exif_broken.jpg");
}

/* A PNG with another size in its header. */
static bytes png_of_size(uint32_t width, uint32_t height)
{
    uint8_t header[13];
    bytes file = read_corpus(PNG_NAME);
    memcpy(header, file.data + 16, 13);
    put_u32(header, width);
    put_u32(header + 4, height);
    put_chunk(&file, 8, 25, "IHDR", header, 13);
    return file;
}

static void long_png(int width, int height)
{
    uint8_t *pixels = calloc(20000, 3), *file;
    size_t n;
    dip_image image;
    dip_fault_kind kind;
    assert_non_null(pixels);
    dip_image_decoder *decoder = open_decoder(25000000);
    assert_int_equal(dip_png_encode(&file, &n, pixels, width, height, 3), DIP_OK);
    assert_int_equal(dip_image_decode(decoder, &image, &kind, file, n), DIP_OK);
    assert_int_equal(image.width, width);
    assert_int_equal(image.height, height);
    dip_image_decoder_close(decoder);
    free(file);
    free(pixels);
}

static void image_40_extreme_sides(void **state)
{
    (void)state;
    refused_file(png_of_size(0, 9), DIP_FAULT_IMAGE_BROKEN, "an image of 0 x 9 pixels");
    refused_file(png_of_size(13, 0), DIP_FAULT_IMAGE_BROKEN, "an image of 13 x 0 pixels");
    bytes file = read_corpus(JPEG_NAME);
    memset(file.data + find_frame(&file) + 7, 0, 2);
    refused_file(file, DIP_FAULT_IMAGE_BROKEN, "Empty JPEG");
    ALL_EQUAL_PILLOW("one_pixel.jpg", "one_pixel.png", "line.jpg", "line.png");
    long_png(1, 20000);
    long_png(20000, 1);
}

/* Grey of 16 bits is clipped to white, as by Pillow; colours lose their low byte. */
static void image_41_png_of_16_bits(void **state)
{
    (void)state;
    ALL_EQUAL_PILLOW("colour0_depth16.png", "colour2_depth16.png", "colour4_depth16.png",
                     "colour6_depth16.png");
}

static void image_42_palette(void **state)
{
    (void)state;
    ALL_EQUAL_PILLOW("colour3_depth1.png", "colour3_depth8.png", "colour3_depth8_adam7_trns.png");
    bytes file = read_corpus("colour3_depth8.png"); /* colours that are not in the palette */
    size_t n, at = find_chunk(&file, "PLTE", &n);
    put_chunk(&file, at, n + 12, "PLTE", "abcdef", 6);
    refused_file(file, DIP_FAULT_IMAGE_BROKEN, "a pixel's colour is not in the palette");
}

static void image_43_adam7(void **state)
{
    (void)state;
    ALL_EQUAL_PILLOW("colour2_depth8_adam7_trns.png", "colour6_depth8_adam7.png",
                     "one_pixel_adam7.png");
}

/* Ignored in every format, as image.h says. */
static void image_44_gamma_and_profiles(void **state)
{
    (void)state;
    bytes file = read_corpus(PNG_NAME);
    size_t n, at = find_chunk(&file, "gAMA", &n);
    put_chunk(&file, at, n + 12, "gAMA", "\0\0\x10\0", 4);
    expect_same_pixels(file, PNG_NAME);
    file = read_corpus(JPEG_NAME);
    splice(&file, 2, 0, "\xff\xe2\0\x16ICC_PROFILE\0\1\1nonsense", 24);
    expect_same_pixels(file, JPEG_NAME);
}

static void image_45_checksums(void **state)
{
    (void)state;
    bytes file = read_corpus(PNG_NAME);
    size_t n, at = find_chunk(&file, "IDAT", &n);
    file.data[at + 8 + n] ^= 1;
    refused_file(file, DIP_FAULT_IMAGE_BROKEN, "CRC");
    file = read_corpus(PNG_NAME);
    at = find_chunk(&file, "tEXt", &n);
    file.data[at + 8 + n] ^= 1;
    expect_same_pixels(file, PNG_NAME);
}

static void image_46_text_bomb(void **state)
{
    (void)state;
    enum { BOMB = 20000000 };
    uLongf n = compressBound(BOMB);
    uint8_t *zeros = calloc(1, BOMB), *text = malloc(n + 7);
    assert_true(zeros && text);
    memcpy(text, "bomb\0\0", 6); /* keyword, NUL, method */
    assert_int_equal(compress(text + 6, &n, zeros, BOMB), Z_OK);
    bytes file = read_corpus(PNG_NAME);
    size_t ignored, at = find_chunk(&file, "IDAT", &ignored);
    put_chunk(&file, at, 0, "zTXt", text, n + 6);
    expect_same_pixels(file, PNG_NAME);
    free(zeros);
    free(text);
}

static void image_47_header_of_1000000_squared(void **state)
{
    (void)state;
    refused_file(png_of_size(1000000, 1000000), DIP_FAULT_IMAGE_TOO_LARGE,
                 "1000000 x 1000000 pixels; at most 25000000");
}

/* Fewer, then more compressed rows than the header promises. */
static void image_48_data_of_another_length(void **state)
{
    (void)state;
    refused_file(png_of_size(13, 10), DIP_FAULT_IMAGE_BROKEN, "PNG: ");
    bytes file = read_corpus(PNG_NAME);
    size_t n, at = find_chunk(&file, "IDAT", &n);
    uint8_t raw[4000] = {0}, packed[5000];
    uLongf n_raw = sizeof raw, n_packed = sizeof packed;
    assert_int_equal(uncompress(raw, &n_raw, file.data + at + 8, n), Z_OK);
    assert_int_equal(n_raw, 9 * (13 * 3 + 1));
    assert_int_equal(compress(packed, &n_packed, raw, n_raw + 400), Z_OK);
    put_chunk(&file, at, n + 12, "IDAT", packed, n_packed);
    expect_same_pixels(file, PNG_NAME);
}

static void image_49_animated_png(void **state)
{
    (void)state;
    const uint8_t actl[8] = {0, 0, 0, 2, 0, 0, 0, 0};
    const uint8_t fctl[26] = {0, 0, 0, 0, 0, 0, 0, 13, 0, 0, 0, 9};
    bytes file = read_corpus(PNG_NAME);
    size_t n, at = find_chunk(&file, "IDAT", &n);
    put_chunk(&file, at, 0, "fcTL", fctl, sizeof fctl);
    put_chunk(&file, at, 0, "acTL", actl, sizeof actl);
    at = find_chunk(&file, "IEND", &n);
    put_chunk(&file, at, 0, "fdAT", "\0\0\0\2nonsense", 12);
    expect_same_pixels(file, PNG_NAME);
}

static void image_50_other_formats_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        const char *name;
    } cases[] = {
        {"GIF89a\1\0\1\0", 10, "this is GIF"},
        {"\0\0\0\x20"
         "ftypavif",
         12, "this is AVIF"},
        {"\0\0\0\x20"
         "ftypheic",
         12, "this is HEIF"},
        {"\0\0\0\x0cJXL \r\n\x87\n", 12, "this is JPEG XL"},
        {"BM\0\0\0\0", 6, "this is BMP"},
        {"II*\0\x08\0\0\0", 8, "this is TIFF"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        refused(cases[i].bytes, cases[i].n, DIP_FAULT_IMAGE_FORMAT, cases[i].name);
#ifdef DIPTYCH_WEBP
    refused_file(read_corpus("animated.webp"), DIP_FAULT_IMAGE_FORMAT, "an animated WebP");
    bytes file = read_corpus("lossy.webp");
    splice(&file, file.n / 2, file.n - file.n / 2, NULL, 0);
    refused_file(file, DIP_FAULT_IMAGE_BROKEN, "WebP: the file ends too early");
#else
    refused_file(read_corpus("lossy.webp"), DIP_FAULT_IMAGE_FORMAT, "this is WebP");
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(image_28_html_as_jpg),
        cmocka_unit_test(image_29_the_signature_decides),
        cmocka_unit_test(image_30_truncated_jpeg),
        cmocka_unit_test(image_31_a_jpeg_warning_is_a_fault),
        cmocka_unit_test(image_32_header_of_65500_squared),
        cmocka_unit_test(image_33_80000_scans),
        cmocka_unit_test(image_34_progressive),
        cmocka_unit_test(image_35_arithmetic),
        cmocka_unit_test(image_36_12_bit_and_lossless),
        cmocka_unit_test(image_37_cmyk),
        cmocka_unit_test(image_38_grey),
        cmocka_unit_test(image_39_exif),
        cmocka_unit_test(image_40_extreme_sides),
        cmocka_unit_test(image_41_png_of_16_bits),
        cmocka_unit_test(image_42_palette),
        cmocka_unit_test(image_43_adam7),
        cmocka_unit_test(image_44_gamma_and_profiles),
        cmocka_unit_test(image_45_checksums),
        cmocka_unit_test(image_46_text_bomb),
        cmocka_unit_test(image_47_header_of_1000000_squared),
        cmocka_unit_test(image_48_data_of_another_length),
        cmocka_unit_test(image_49_animated_png),
        cmocka_unit_test(image_50_other_formats_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
