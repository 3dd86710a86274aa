#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "data/image/image.h"
#include "data/image/resize_kernels.h"

/* The images of tests/golden/resize_make.py. The memory ends with the last pixel, so that a
 * sanitizer sees every read beyond it. */
static dip_image make_image(uint32_t seed, int width, int height)
{
    size_t n = (size_t)width * (size_t)height * 3;
    dip_image image = {width, height, malloc(n)};
    assert_non_null(image.rgb);
    uint32_t s = seed;
    for (size_t i = 0; i < n; i++) {
        s = s * 1664525u + 1013904223u;
        image.rgb[i] = (uint8_t)(seed % 2 ? (s >> 31 ? 255 : 0) : s >> 24);
    }
    return image;
}

/* The same resizing by every set of kernels this machine has. */
static const dip_resize_kernels *kernels_of(int i)
{
    return i == 0   ? dip_resize_kernels_c()
           : i == 1 ? dip_resize_kernels_avx2()
           : i == 2 ? dip_resize_kernels_avx512()
                    : dip_resize_kernels_vbmi();
}

static void check_crc(const char *line, const dip_resize_kernels *kernels, const uint8_t *out,
                      int n_pixels, unsigned long expected)
{
    unsigned long crc = crc32(0, out, (unsigned)n_pixels * 3);
    if (crc != expected)
        fail_msg("%s kernels: other pixels than Pillow's in: %s", kernels->name, line);
}

static int check_crop(dip_resizer *resizer, const dip_resize_kernels *kernels, const char *line)
{
    unsigned seed;
    int w, h, out_w, out_h, filter, flip;
    dip_box box;
    unsigned long crc;
    if (sscanf(line, "crop %u %d %d %d %d %d %d %d %d %d %d %lu", &seed, &w, &h, &box.x, &box.y,
               &box.width, &box.height, &out_w, &out_h, &filter, &flip, &crc) != 12)
        return 0;
    dip_image image = make_image(seed, w, h);
    uint8_t *out = malloc((size_t)out_w * (size_t)out_h * 3);
    assert_int_equal(dip_resize(resizer, out, out_w, out_h, &image, box, (dip_filter)filter, flip),
                     DIP_OK);
    check_crc(line, kernels, out, out_w * out_h, crc);
    free(out);
    free(image.rgb);
    return 1;
}

static int check_eval(dip_resizer *resizer, const dip_resize_kernels *kernels, const char *line)
{
    unsigned seed;
    int w, h, size, mode, filter;
    unsigned long crc;
    if (sscanf(line, "eval %u %d %d %d %d %d %lu", &seed, &w, &h, &size, &mode, &filter, &crc) != 7)
        return 0;
    dip_image image = make_image(seed, w, h);
    uint8_t *out = malloc((size_t)size * (size_t)size * 3);
    assert_int_equal(
        dip_resize_for_eval(resizer, out, size, &image, (dip_resize_mode)mode, (dip_filter)filter),
        DIP_OK);
    check_crc(line, kernels, out, size * size, crc);
    free(out);
    free(image.rgb);
    return 1;
}

static void equals_pillow_and_torchvision(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        const dip_resize_kernels *kernels = kernels_of(i);
        if (!kernels) continue;
        FILE *file = fopen(TEST_SOURCE_DIR "/tests/golden/resize_expected.txt", "r");
        assert_non_null(file);
        dip_resizer *resizer;
        assert_int_equal(dip_resizer_open(&resizer), DIP_OK);
        dip_resizer_set_kernels(resizer, kernels);
        char line[200];
        int n_crops = 0, n_evals = 0;
        while (fgets(line, sizeof line, file)) {
            n_crops += check_crop(resizer, kernels, line);
            n_evals += check_eval(resizer, kernels, line);
        }
        assert_int_equal(n_crops, 230);
        assert_int_equal(n_evals, 48);
        dip_resizer_close(resizer);
        fclose(file);
    }
}

static void check_region(dip_resizer *resizer, const dip_resize_kernels *kernels, const char *line)
{
    unsigned seed;
    int w, h, x, y, part_w, part_h, out_w, out_h, filter, flip;
    unsigned long crc;
    assert_int_equal(sscanf(line, "%u %d %d %d %d %d %d %d %d %d %d %lu", &seed, &w, &h, &x, &y,
                            &part_w, &part_h, &out_w, &out_h, &filter, &flip, &crc),
                     12);
    dip_image image = make_image(seed, w, h);
    for (uint32_t i = 0, s = seed; i < (uint32_t)(w * h * 3); i++) {
        s = s * 1664525u + 1013904223u;
        image.rgb[i] = (uint8_t)(s >> 24);
    }
    dip_rect region = {x / 8.0, y / 8.0, part_w / 8.0, part_h / 8.0};
    uint8_t *out = malloc((size_t)out_w * (size_t)out_h * 3);
    if (dip_resize_region(resizer, out, out_w, out_h, &image, region, (dip_filter)filter, flip) !=
        DIP_OK)
        fail_msg("%s in: %s", dip_error(), line);
    check_crc(line, kernels, out, out_w * out_h, crc);
    free(out);
    free(image.rgb);
}

static void regions_equal_pillow(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        const dip_resize_kernels *kernels = kernels_of(i);
        if (!kernels) continue;
        FILE *file = fopen(TEST_SOURCE_DIR "/tests/golden/resize_region_expected.txt", "r");
        assert_non_null(file);
        dip_resizer *resizer;
        assert_int_equal(dip_resizer_open(&resizer), DIP_OK);
        dip_resizer_set_kernels(resizer, kernels);
        char line[200];
        int n = 0;
        for (; fgets(line, sizeof line, file); n++) check_region(resizer, kernels, line);
        assert_int_equal(n, 120);
        dip_resizer_close(resizer);
        fclose(file);
    }
}

/* Large reductions, wide and tall: all kernels agree with the plain ones, whatever came before. */
static void kernels_agree(void **state)
{
    (void)state;
    static const int sizes[][2] = {{1500, 40}, {40, 1500}, {700, 690}, {333, 200}, {90, 2500}};
    dip_resizer *resizers[4];
    for (int i = 0; i < 4; i++) assert_int_equal(dip_resizer_open(&resizers[i]), DIP_OK);
    for (int n = 0; n < 60; n++) {
        int w = sizes[n % 5][0], h = sizes[n % 5][1], side = 1 + n * 37 % 130;
        dip_image image = make_image((uint32_t)n, w, h);
        dip_box box = {.x = n % 7, .y = n % 5};
        box.width = w - box.x - n % 3;
        box.height = h - box.y - n % 4;
        int out_h = n % 6 == 0 ? box.height : side; /* one pass alone, too */
        size_t n_bytes = (size_t)side * (size_t)out_h * 3;
        uint8_t *expected = malloc(n_bytes), *out = malloc(n_bytes);
        for (int i = 0; i < 4; i++) {
            if (!kernels_of(i)) continue;
            dip_resizer_set_kernels(resizers[i], kernels_of(i));
            assert_int_equal(dip_resize(resizers[i], i == 0 ? expected : out, side, out_h, &image,
                                        box, (dip_filter)(n % 2), n / 2 % 2),
                             DIP_OK);
            if (i > 0 && memcmp(out, expected, n_bytes) != 0)
                fail_msg("%s kernels, case %d: other pixels", kernels_of(i)->name, n);
        }
        free(expected);
        free(out);
        free(image.rgb);
    }
    for (int i = 0; i < 4; i++) dip_resizer_close(resizers[i]);
}

/* Some outputs of an axis from `in` to `out` samples, by every set of kernels. */
static void check_weights(int in, int out, int first, int n, double from, double length,
                          bool is_cubic)
{
    const double scale = length / out, reduction = scale < 1 ? 1 : scale;
    const double support = (is_cubic ? 2 : 1) * reduction;
    const size_t n_most = (size_t)ceil(support) * 2 + 1, stride = (n_most + 3) / 4 * 4;
    const dip_outputs outputs = {.first = first,
                                 .n = n,
                                 .in = in,
                                 .from = from,
                                 .scale = scale,
                                 .support = support,
                                 .stretch = 1 / reduction,
                                 .is_cubic = is_cubic,
                                 .stride = stride};
    const size_t n_bytes = (size_t)n * stride * sizeof(int32_t);
    int32_t *expected = malloc(n_bytes), *weights = malloc(n_bytes);
    double *scratch = malloc(DIP_RESIZE_LANES * stride * sizeof *scratch);
    dip_taps *wanted = malloc((size_t)n * sizeof *wanted), *taps = malloc((size_t)n * sizeof *taps);
    dip_resize_weigh_c(wanted, expected, scratch, &outputs);
    for (int i = 1; i < 4; i++) {
        if (!kernels_of(i)) continue;
        memset(weights, 0x5a, n_bytes);
        kernels_of(i)->weigh(taps, weights, scratch, &outputs);
        for (int k = 0; k < n; k++) {
            assert_int_equal(taps[k].first, wanted[k].first);
            assert_int_equal(taps[k].n, wanted[k].n);
            assert_ptr_equal(taps[k].weights, weights + (size_t)k * stride);
        }
        if (memcmp(weights, expected, n_bytes) != 0)
            fail_msg("%s kernels, %d to %d: other weights", kernels_of(i)->name, in, out);
    }
    free(expected);
    free(weights);
    free(scratch);
    free(wanted);
    free(taps);
}

/* In the first two, a weight is a whole number and a half but for the last bit of its quotient. */
static void weights_agree(void **state)
{
    (void)state;
    check_weights(8, 1, 0, 1, 0x1.2dfb2fe46fca7p+1, 1.5, true);
    check_weights(8, 1, 0, 1, 0x1.246c141864d7dp+1, 1.5, true);
    check_weights(60000, 1, 0, 1, 0, 60000, true);
    check_weights(1, 9, 0, 9, 0, 1, true);
    for (int i = 1; i < 40; i++) {
        check_weights(500, 17 * i, i / 2, i, 0, 500, i % 2);
        check_weights(375, 224, 0, 224, 0.125 * i, 375 - 0.25 * i, i % 2);
    }
}

static void refuses_a_region_outside(void **state)
{
    (void)state;
    dip_resizer *resizer;
    uint8_t out[3];
    dip_image image = make_image(2, 10, 8);
    const dip_rect bad[] = {{-0.1, 0, 5, 5}, {0, -0.1, 5, 5},    {0, 0, 0, 5},
                            {0, 0, 5, -1},   {5.5, 0, 5, 5},     {0, 3, 5, 5.0001},
                            {NAN, 0, 5, 5},  {0, 0, INFINITY, 5}};
    assert_int_equal(dip_resizer_open(&resizer), DIP_OK);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(dip_resize_region(resizer, out, 1, 1, &image, bad[i], DIP_BICUBIC, 0),
                         DIP_CONFIG);
    free(image.rgb);
    dip_resizer_close(resizer);
}

static void refuses_a_box_outside(void **state)
{
    (void)state;
    dip_resizer *resizer;
    uint8_t out[3];
    dip_image image = make_image(2, 10, 8);
    const dip_box bad[] = {{-1, 0, 5, 5},         {0, -1, 5, 5},        {0, 0, 0, 5},
                           {0, 0, 5, 0},          {6, 0, 5, 5},         {0, 4, 5, 5},
                           {2147483647, 0, 1, 1}, {1, 0, 2147483647, 1}};
    assert_int_equal(dip_resizer_open(&resizer), DIP_OK);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(dip_resize(resizer, out, 1, 1, &image, bad[i], DIP_BICUBIC, 0),
                         DIP_CONFIG);
    assert_int_equal(dip_resize(resizer, out, 0, 1, &image, (dip_box){0, 0, 1, 1}, DIP_BICUBIC, 0),
                     DIP_CONFIG);
    dip_image none = {0};
    assert_int_equal(dip_resize_for_eval(resizer, out, 1, &none, DIP_RESIZE_SHORTEST, DIP_BICUBIC),
                     DIP_CONFIG);
    free(image.rgb);
    dip_resizer_close(resizer);
    dip_resizer_close(NULL);
}

/* A plain picture stays plain: the weights of every output sum to one. */
static void keeps_a_constant(void **state)
{
    (void)state;
    dip_resizer *resizer;
    assert_int_equal(dip_resizer_open(&resizer), DIP_OK);
    dip_image image = make_image(2, 61, 47);
    memset(image.rgb, 255, 61 * 47 * 3);
    uint8_t out[40 * 40 * 3];
    for (int size = 1; size <= 40; size++) {
        assert_int_equal(
            dip_resize_for_eval(resizer, out, size, &image, DIP_RESIZE_SHORTEST, DIP_BICUBIC),
            DIP_OK);
        for (int i = 0; i < size * size * 3; i++) assert_int_equal(out[i], 255);
    }
    free(image.rgb);
    dip_resizer_close(resizer);
}

static void random_crops_keep_their_promises(void **state)
{
    (void)state;
    const double scale[2] = {0.3, 0.9}, ratio[2] = {0.75, 4.0 / 3.0};
    const int w = 400, h = 300;
    int lowest_x = w, highest_right = 0, lowest_y = h, highest_bottom = 0;
    double least = 1, most = 0;
    for (uint64_t i = 0; i < 3000; i++) {
        dip_rng rng, again;
        dip_rng_init(&rng, 5, dip_rng_stream(DIP_RNG_TEST, 0, i));
        dip_rng_init(&again, 5, dip_rng_stream(DIP_RNG_TEST, 0, i));
        dip_box box = dip_random_crop(&rng, w, h, scale, ratio);
        dip_box same = dip_random_crop(&again, w, h, scale, ratio);
        assert_memory_equal(&box, &same, sizeof box);
        assert_true(box.x >= 0 && box.y >= 0 && box.width >= 1 && box.height >= 1);
        assert_true(box.x + box.width <= w && box.y + box.height <= h);
        double share = (double)box.width * box.height / (w * h);
        double aspect = (double)box.width / box.height;
        assert_true(share > scale[0] - 0.01 && share < scale[1] + 0.01);
        assert_true(aspect > ratio[0] - 0.01 && aspect < ratio[1] + 0.01);
        if (share < least) least = share;
        if (share > most) most = share;
        if (box.x < lowest_x) lowest_x = box.x;
        if (box.y < lowest_y) lowest_y = box.y;
        if (box.x + box.width > highest_right) highest_right = box.x + box.width;
        if (box.y + box.height > highest_bottom) highest_bottom = box.y + box.height;
    }
    assert_true(least < 0.31 && most > 0.85);
    assert_int_equal(lowest_x, 0);
    assert_int_equal(lowest_y, 0);
    assert_int_equal(highest_right, w);
    assert_int_equal(highest_bottom, h);
}

static void expect_fallback(int width, int height, dip_box expected)
{
    const double scale[2] = {0.9, 1.0}, ratio[2] = {0.75, 4.0 / 3.0};
    dip_rng rng;
    dip_rng_init(&rng, 1, dip_rng_stream(DIP_RNG_TEST, 1, 0));
    dip_box box = dip_random_crop(&rng, width, height, scale, ratio);
    assert_int_equal(box.x, expected.x);
    assert_int_equal(box.y, expected.y);
    assert_int_equal(box.width, expected.width);
    assert_int_equal(box.height, expected.height);
}

/* Values of torchvision's rule: no try can fit 0.9 of so long an image. */
static void random_crops_of_long_images_are_centred(void **state)
{
    (void)state;
    expect_fallback(1000, 100, (dip_box){433, 0, 133, 100});
    expect_fallback(101, 1000, (dip_box){0, 432, 101, 135});
    expect_fallback(1, 1000, (dip_box){0, 499, 1, 1});
    expect_fallback(1000, 1, (dip_box){499, 0, 1, 1});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_pillow_and_torchvision),
        cmocka_unit_test(regions_equal_pillow),
        cmocka_unit_test(kernels_agree),
        cmocka_unit_test(weights_agree),
        cmocka_unit_test(refuses_a_region_outside),
        cmocka_unit_test(refuses_a_box_outside),
        cmocka_unit_test(keeps_a_constant),
        cmocka_unit_test(random_crops_keep_their_promises),
        cmocka_unit_test(random_crops_of_long_images_are_centred),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
