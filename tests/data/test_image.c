/* Images that must decode, to the very pixels. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "image_files.h"

static void corpus_equals_pillow(void **state)
{
    (void)state;
    FILE *list = fopen(TEST_SOURCE_DIR "/tests/golden/image_expected.txt", "r");
    assert_non_null(list);
    dip_image_decoder *decoder = open_decoder(25000000);
    char name[64];
    int width, height, n = 0;
    unsigned long crc;
    while (fscanf(list, "%63s %d %d %lu", name, &width, &height, &crc) == 4) {
        bytes file = read_corpus(name);
        dip_image image;
        dip_fault_kind kind;
        if (dip_image_decode(decoder, &image, &kind, file.data, file.n) != DIP_OK)
            fail_msg("%s: %s", name, dip_error());
        assert_int_equal(image.width, width);
        assert_int_equal(image.height, height);
        if (image_crc(&image) != crc) fail_msg("%s: other pixels than Pillow's", name);
        free(file.data);
        n++;
    }
    assert_int_equal(n, 53);
    fclose(list);
    dip_image_decoder_close(decoder);
    dip_image_decoder_close(NULL);
}

static const char PNG_NAME[] = "colour2_depth8.png";

static void long_ancillary_chunk_is_ignored(void **state)
{
    (void)state;
    uint8_t *data = calloc(1, 9000000); /* beyond libpng's own limit for a chunk */
    assert_non_null(data);
    bytes file = read_corpus(PNG_NAME);
    size_t ignored, at = find_chunk(&file, "IDAT", &ignored);
    put_chunk(&file, at, 0, "eXIf", data, 9000000);
    expect_same_pixels(file, PNG_NAME);
    free(data);
}

static void bytes_after_the_end_are_ignored(void **state)
{
    (void)state;
    const char *names[] = {PNG_NAME, "ycc_420.jpg", "ycc_420_progressive.jpg"};
    for (int i = 0; i < 3; i++) {
        bytes file = read_corpus(names[i]);
        splice(&file, file.n, 0, "trailing bytes \xff\xd8\xff", 18);
        expect_same_pixels(file, names[i]);
    }
}

static void encoded_png_decodes_to_itself(void **state)
{
    (void)state;
    enum { W = 37, H = 23 };
    uint8_t pixels[W * H * 3];
    for (int i = 0; i < W * H * 3; i++) pixels[i] = (uint8_t)(i * i / 7);
    dip_image_decoder *decoder = open_decoder(W * H);
    for (int channels = 1; channels <= 3; channels += 2) {
        uint8_t *file;
        size_t n;
        dip_image image;
        dip_fault_kind kind;
        assert_int_equal(dip_png_encode(&file, &n, pixels, W, H, channels), DIP_OK);
        assert_int_equal(dip_image_decode(decoder, &image, &kind, file, n), DIP_OK);
        assert_int_equal(image.width, W);
        assert_int_equal(image.height, H);
        for (int i = 0; i < W * H * 3; i++)
            assert_int_equal(image.rgb[i], pixels[channels == 3 ? i : i / 3]);
        free(file);
    }
    dip_image_decoder_close(decoder);

    uint8_t *file;
    size_t n;
    assert_int_equal(dip_png_encode(&file, &n, pixels, W, H, 2), DIP_CONFIG);
    assert_int_equal(dip_png_encode(&file, &n, pixels, 0, H, 3), DIP_CONFIG);
    assert_int_equal(dip_png_encode(&file, &n, pixels, W, -1, 3), DIP_CONFIG);
    assert_null(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(corpus_equals_pillow),
        cmocka_unit_test(long_ancillary_chunk_is_ignored),
        cmocka_unit_test(bytes_after_the_end_are_ignored),
        cmocka_unit_test(encoded_png_decodes_to_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
