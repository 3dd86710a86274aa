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

#include "data/augment/augment_ops.h"

/* The images of tests/golden/augment_make.py. The memory ends with the last pixel, so that a
 * sanitizer sees every read beyond it. */
static uint8_t *make_image(uint32_t seed, int size)
{
    const size_t n_pixels = (size_t)size * (size_t)size;
    uint8_t *rgb = malloc(3 * n_pixels);
    assert_non_null(rgb);
    if (size == 4096) {
        for (size_t i = 0; i < n_pixels; i++)
            for (int c = 0; c < 3; c++) rgb[3 * i + (size_t)c] = (uint8_t)(i >> 8 * c);
        return rgb;
    }
    uint32_t s = seed;
    for (size_t i = 0; i < 3 * n_pixels; i++) {
        s = s * 1664525u + 1013904223u;
        rgb[i] = (uint8_t)(seed % 2 ? (s >> 31 ? 255 : 0) : s >> 24);
    }
    return rgb;
}

typedef struct golden {
    char name[32];
    int size;
    unsigned seed, other_seed;
    double a, b, c;
    unsigned long crc;
    double share;
} golden;

/* The operation of a line on `image`; returns the share that mixing leaves. */
static double apply_golden(const golden *g, uint8_t *image, const dip_augment_kernels *kernels)
{
    const size_t n = (size_t)g->size * (size_t)g->size;
    uint8_t *scratch = malloc(dip_augment_scratch_bytes(g->size));
    uint8_t *other = make_image(g->other_seed, strstr(g->name, "mix") ? g->size : 1);
    double share = 1;
    dip_rng rng;
    dip_rng_init(&rng, 1, 1);
    if (strcmp(g->name, "brightness") == 0)
        dip_augment_brightness(image, n, g->a);
    else if (strcmp(g->name, "contrast") == 0)
        dip_augment_contrast(image, n, g->a);
    else if (strcmp(g->name, "saturation") == 0)
        dip_augment_saturation_by(kernels, image, n, g->a);
    else if (strcmp(g->name, "hue") == 0)
        dip_augment_hue_by(kernels, image, n, g->a);
    else if (strcmp(g->name, "grayscale") == 0)
        dip_augment_grayscale(image, n);
    else if (strcmp(g->name, "solarize") == 0)
        dip_augment_solarize(image, n, (int)g->a);
    else if (strcmp(g->name, "flip") == 0)
        dip_augment_flip(image, g->size);
    else if (strcmp(g->name, "gaussian_blur") == 0)
        dip_augment_gaussian_blur_by(kernels, image, g->size, g->a, scratch);
    else if (strcmp(g->name, "rotate") == 0)
        dip_augment_rotate(image, g->size, g->a, (int)g->b, g->c != 0, scratch);
    else if (strcmp(g->name, "cutout") == 0)
        dip_augment_erase(image, g->size,
                          dip_augment_square_at(g->size, (int)g->a, (int)g->b, (int)g->c), 0, &rng);
    else if (strcmp(g->name, "mixup") == 0)
        dip_augment_mixup(image, other, 3 * n, (float)g->a);
    else if (strcmp(g->name, "cutmix") == 0)
        share = (double)dip_augment_cutmix(image, other, g->size, g->a, (int)g->b, (int)g->c);
    else
        fail_msg("unknown operation %s", g->name);
    free(other);
    free(scratch);
    return share;
}

static void check_golden(const char *line, const dip_augment_kernels *kernels)
{
    golden g;
    assert_int_equal(sscanf(line, "%31s %d %u %u %lf %lf %lf %lu %lf", g.name, &g.size, &g.seed,
                            &g.other_seed, &g.a, &g.b, &g.c, &g.crc, &g.share),
                     9);
    uint8_t *image = make_image(g.seed, g.size);
    double share = apply_golden(&g, image, kernels);
    if (crc32(0, image, (unsigned)g.size * (unsigned)g.size * 3) != g.crc)
        fail_msg("other pixels than the reference's in: %s", line);
    if (fabs(share - g.share) > 1e-7) fail_msg("a share of %.9g in: %s", share, line);
    free(image);
}

static void equals_pillow(void **state)
{
    (void)state;
    FILE *file = fopen(TEST_SOURCE_DIR "/tests/golden/augment_expected.txt", "r");
    assert_non_null(file);
    const dip_augment_kernels *avx2 = dip_augment_kernels_avx2();
    if (!avx2) print_message("no AVX2 here: its kernels are not checked\n");
    char line[400];
    int n = 0;
    for (; fgets(line, sizeof line, file); n++) {
        check_golden(line, dip_augment_kernels_c());
        if (avx2 && (strncmp(line, "hue", 3) == 0 || strncmp(line, "gaussian", 8) == 0 ||
                     strncmp(line, "saturation", 10) == 0))
            check_golden(line, avx2);
    }
    fclose(file);
    assert_int_equal(n, 678);
}

/* One operation of a list. */
static dip_augment_op op_of(const char *text)
{
    dip_augmentation *list;
    if (dip_augmentation_parse(&list, text) != DIP_OK) fail_msg("%s", dip_error());
    dip_augment_op op = list->views[0].ops[0];
    dip_augmentation_free(list);
    return op;
}

enum { SIDE = 24, N_BYTES = SIDE * SIDE * 3, N_DRAWS = 4000 };

static dip_rng rng_of(uint64_t item)
{
    dip_rng rng;
    dip_rng_init(&rng, 11, dip_rng_stream(DIP_RNG_TEST, 0, item));
    return rng;
}

static void apply_to(uint8_t *image, const dip_augment_op *op, uint8_t start, uint64_t item)
{
    static uint8_t scratch[SIDE * 3 * 4 + 2 * N_BYTES];
    assert_true(dip_augment_scratch_bytes(SIDE) <= sizeof scratch);
    dip_rng rng = rng_of(item);
    memset(image, start, N_BYTES);
    dip_augment_apply(op, image, SIDE, scratch, &rng);
}

/* Every operation is done as often as its p says. */
static void happens_with_p(void **state)
{
    (void)state;
    static const char *const lists[] = {"solarize(0, p=0.3)",
                                        "noise(0.5, p=0.3)",
                                        "cutout(48, p=0.3)",
                                        "rotate(45..50, 0.3)",
                                        "random_erasing(0.3)",
                                        "color_jitter(0.1..0.2, p=0.3)",
                                        "gaussian_blur(9, 0.3)",
                                        "rotate(90, p=0.3)",
                                        "random_erasing(p=0.3, value=random)",
                                        "flip(0.3)",
                                        "grayscale(0.3)"};
    uint8_t image[N_BYTES], before[N_BYTES];
    for (size_t k = 0; k < sizeof lists / sizeof *lists; k++) {
        dip_augment_op op = op_of(lists[k]);
        int n_done = 0;
        for (uint64_t i = 0; i < N_DRAWS; i++) {
            uint8_t *start = make_image(2, SIDE);
            memcpy(before, start, N_BYTES);
            memcpy(image, start, N_BYTES);
            free(start);
            uint8_t *scratch = malloc(dip_augment_scratch_bytes(SIDE));
            dip_rng rng = rng_of(i);
            dip_augment_apply(&op, image, SIDE, scratch, &rng);
            free(scratch);
            n_done += memcmp(image, before, N_BYTES) != 0;
        }
        if (fabs(n_done / (double)N_DRAWS - 0.3) > 0.03)
            fail_msg("%s is done %d times of %d", lists[k], n_done, N_DRAWS);
    }
    dip_augment_op never = op_of("noise(0.5, p=0)"), always = op_of("solarize(0, p=1)");
    dip_rng rng = rng_of(1), untouched = rng;
    memset(image, 7, N_BYTES);
    dip_augment_apply(&never, image, SIDE, NULL, &rng);
    assert_memory_equal(&rng, &untouched, sizeof rng); /* not even drawn */
    apply_to(image, &always, 7, 1);
    assert_int_equal(image[0], 248);
}

/* A factor's range and its mean, read back from a gray image. */
static void jitter_draws_its_range(void **state)
{
    (void)state;
    dip_augment_op op = op_of("color_jitter(0.5)");
    uint8_t image[N_BYTES];
    double sum = 0;
    int min = 255, max = 0;
    for (uint64_t i = 0; i < N_DRAWS; i++) {
        apply_to(image, &op, 100, i);
        sum += image[0];
        if (image[0] < min) min = image[0];
        if (image[0] > max) max = image[0];
    }
    assert_in_range(min, 50, 51); /* floor(100 f), f in 0.5..1.5 */
    assert_in_range(max, 148, 150);
    assert_true(fabs(sum / N_DRAWS - 99.5) < 1.5);
    op = op_of("color_jitter(hue=0)"); /* the neutral hue does not even round through HSV */
    uint8_t *colours = make_image(2, SIDE), *same = make_image(2, SIDE);
    dip_rng rng = rng_of(0);
    dip_augment_apply(&op, colours, SIDE, NULL, &rng);
    assert_memory_equal(colours, same, N_BYTES);
    free(colours);
    free(same);
}

/* All 24 orders of the four come up. Two that do not commute tell them apart. */
static void jitter_order_is_random(void **state)
{
    (void)state;
    dip_augment_op op = op_of("color_jitter(1.7..1.7, 0.3..0.3, 0.2..0.2, 0.21..0.21)");
    uint32_t seen[64];
    int n_seen = 0;
    for (uint64_t i = 0; i < 1000; i++) {
        uint8_t *image = make_image(2, SIDE);
        dip_rng rng = rng_of(i);
        dip_augment_apply(&op, image, SIDE, NULL, &rng);
        uint32_t crc = (uint32_t)crc32(0, image, N_BYTES);
        int k = 0;
        while (k < n_seen && seen[k] != crc) k++;
        if (k == n_seen) {
            assert_true(n_seen < 24);
            seen[n_seen++] = crc;
        }
        free(image);
    }
    assert_int_equal(n_seen, 24);
}

/* Rounded, cut normal noise: mean, deviation and the share beyond two deviations. */
static void noise_is_normal(void **state)
{
    (void)state;
    enum { N = 300000 };
    uint8_t *bytes = malloc(N);
    static const double sigmas[] = {0.002, 0.02, 0.1};
    for (int k = 0; k < 3; k++) {
        const double deviation = 255 * sigmas[k];
        memset(bytes, 128, N);
        dip_rng rng = rng_of((uint64_t)k);
        dip_augment_noise(bytes, N, sigmas[k], &rng);
        double sum = 0, squares = 0;
        int beyond = 0;
        for (int i = 0; i < N; i++) {
            double d = bytes[i] - 128.0;
            sum += d;
            squares += d * d;
            beyond += fabs(d) >= floor(2 * deviation) + 0.5;
        }
        /* The variance of a rounded normal: its own and 1/12, when it is not tiny. */
        double expected = 0, tail = erfc((floor(2 * deviation) + 0.5) / deviation / sqrt(2));
        for (int s = 1; s < 128; s++)
            expected +=
                s * s *
                (erfc((s - 0.5) / deviation / sqrt(2)) - erfc((s + 0.5) / deviation / sqrt(2)));
        assert_true(fabs(sum / N) < 5 * deviation / sqrt(N));
        assert_true(fabs(squares / N / expected - 1) < 0.03);
        assert_true(fabs(beyond / (double)N - tail) < 0.002);
    }
    memset(bytes, 3, N); /* cut at the ends, never wrapped */
    dip_rng rng = rng_of(9);
    dip_augment_noise(bytes, N, 0.01, &rng);
    int n_zero = 0;
    for (int i = 0; i < N; i++) {
        assert_true(bytes[i] < 40);
        n_zero += bytes[i] == 0;
    }
    assert_true(fabs(n_zero / (double)N - 0.5 * erfc(2.5 / 2.55 / sqrt(2))) < 0.005);
    memset(bytes, 252, N);
    dip_augment_noise(bytes, N, 0.01, &rng);
    for (int i = 0; i < N; i++) assert_true(bytes[i] > 215);
    free(bytes);
}

/* 16 bits tell the common steps; the rare ones need the bits behind them. */
static void noise_has_its_tails(void **state)
{
    (void)state;
    enum { N = 4000000 };
    uint8_t *bytes = malloc(N);
    const double deviation = 1.02; /* beyond 4.5: one in 200,000, a third of 2^-16, each side */
    memset(bytes, 128, N);
    dip_rng rng = rng_of(0);
    dip_augment_noise(bytes, N, deviation / 255, &rng);
    int n_low = 0, n_high = 0, histogram[5] = {0};
    for (int i = 0; i < N; i++) {
        const int step = bytes[i] - 128;
        assert_in_range(step + 7, 0, 14); /* 6.4 deviations */
        n_low += step < -4;
        n_high += step > 4;
        if (step >= 0 && step < 5) histogram[step]++;
    }
    assert_in_range(n_low, 5, 45); /* 20.5 */
    assert_in_range(n_high, 5, 45);
    for (int step = 0; step < 5; step++) {
        const double expected =
            N * 0.5 *
            (erfc((step - 0.5) / deviation / sqrt(2)) - erfc((step + 0.5) / deviation / sqrt(2)));
        if (fabs(histogram[step] - expected) > 5 * sqrt(expected))
            fail_msg("step %d: %d times, not %.0f", step, histogram[step], expected);
    }
    free(bytes);
}

/* The blocks are what dip_rng_u32 gives from the next block on, and noise is the same by all. */
static void kernels_draw_alike(void **state)
{
    (void)state;
    const dip_augment_kernels *all[] = {dip_augment_kernels_c(), dip_augment_kernels_avx2()};
    uint8_t noisy[2][4099]; /* not a multiple of what is drawn at a time */
    for (int k = 0; k < 2 && all[k]; k++) {
        dip_rng rng = rng_of(0), one_by_one;
        rng.key[1] = 0xfedcba98u;
        rng.stream = 0xfedcba9876543210u;
        rng.block = 0xfffffffbu; /* the count goes over 32 bits within */
        const uint32_t first = dip_rng_u32(&rng);
        one_by_one = rng;
        one_by_one.n_left = 0;
        uint32_t out[8 * DIP_DRAW_BLOCKS];
        all[k]->draw_blocks(out, &rng, 2 * DIP_DRAW_BLOCKS);
        for (int i = 0; i < 8 * DIP_DRAW_BLOCKS; i++)
            assert_int_equal(out[i], dip_rng_u32(&one_by_one));
        assert_int_not_equal(dip_rng_u32(&rng), first); /* what was left comes first ... */
        dip_rng_u32(&rng);
        dip_rng_u32(&rng);
        assert_int_equal(dip_rng_u32(&rng), dip_rng_u32(&one_by_one)); /* ... then what follows */
        memset(noisy[k], 100, sizeof noisy[k]);
        dip_augment_noise_by(all[k], noisy[k], sizeof noisy[k], 0.3, &rng);
        if (k > 0) assert_memory_equal(noisy[k], noisy[0], sizeof noisy[k]);
    }
}

static void erasing_draws_its_range(void **state)
{
    (void)state;
    dip_augment_arg scale = {0.1, 0.2}, ratio = {0.5, 2};
    int n_tall = 0;
    for (uint64_t i = 0; i < N_DRAWS; i++) {
        dip_rng rng = rng_of(i);
        dip_rectangle r = dip_augment_draw_erasing(&rng, 224, scale, ratio);
        assert_true(r.x >= 0 && r.y >= 0 && r.x + r.width <= 224 && r.y + r.height <= 224);
        double share = r.width * r.height / (224.0 * 224), aspect = r.height / (double)r.width;
        assert_true(share > 0.095 && share < 0.205 && aspect > 0.48 && aspect < 2.08);
        n_tall += r.height > r.width;
    }
    assert_in_range(n_tall, N_DRAWS / 2 - 150, N_DRAWS / 2 + 150); /* uniform in the logarithm */
    dip_rng rng = rng_of(0);
    scale = (dip_augment_arg){1, 1};
    ratio = (dip_augment_arg){1, 1};
    dip_rectangle none = dip_augment_draw_erasing(&rng, 224, scale, ratio);
    assert_int_equal(none.width, 0); /* the whole image is never erased, as in torchvision */
}

static void erased_values(void **state)
{
    (void)state;
    uint8_t image[N_BYTES];
    dip_augment_op op = op_of("cutout(10, value=9)");
    int n_whole = 0;
    for (uint64_t i = 0; i < 200; i++) {
        apply_to(image, &op, 100, i);
        int n = 0;
        for (int b = 0; b < N_BYTES; b++) n += image[b] == 9;
        assert_true(n >= 5 * 5 * 3 && n <= 10 * 10 * 3); /* half of it may lie outside */
        n_whole += n == 300;
    }
    assert_in_range(n_whole, 40, 120); /* (15/24)^2 of 200 = 78 */
    op = op_of("random_erasing(1, 0.9..0.9, 1, random)");
    apply_to(image, &op, 100, 3);
    int histogram[4] = {0}, n_other = 0;
    for (int b = 0; b < N_BYTES; b++) {
        n_other += image[b] != 100;
        histogram[image[b] / 64]++;
    }
    assert_true(n_other > N_BYTES * 0.8);
    for (int k = 0; k < 4; k++) assert_true(histogram[k] > N_BYTES / 8);
}

/* Beta(alpha, alpha): mean 1/2, variance 1 / (4 (2 alpha + 1)), symmetric. */
static void beta_has_its_moments(void **state)
{
    (void)state;
    static const double alphas[] = {0.001, 0.2, 1, 8};
    for (int k = 0; k < 4; k++) {
        double sum = 0, squares = 0;
        dip_rng rng = rng_of((uint64_t)k);
        for (int i = 0; i < 40000; i++) {
            double x = dip_augment_draw_beta(&rng, alphas[k]);
            assert_true(x >= 0 && x <= 1);
            sum += x;
            squares += x * x;
        }
        double mean = sum / 40000, variance = squares / 40000 - mean * mean;
        assert_true(fabs(mean - 0.5) < 0.01);
        assert_true(fabs(variance * 4 * (2 * alphas[k] + 1) - 1) < 0.03);
    }
}

/* What is returned is what the pixels say. */
static void mixing_tells_its_share(void **state)
{
    (void)state;
    static const char *const lists[] = {"mixup(0.5)", "cutmix(1)"};
    uint8_t image[N_BYTES], other[N_BYTES];
    memset(other, 200, N_BYTES);
    for (int k = 0; k < 2; k++) {
        dip_augment_op op = op_of(lists[k]);
        double share_sum = 0;
        for (uint64_t i = 0; i < 2000; i++) {
            dip_rng rng = rng_of(i);
            memset(image, 0, N_BYTES);
            double share = (double)dip_augment_mix(&op, image, other, SIDE, &rng), sum = 0;
            for (int b = 0; b < N_BYTES; b++) sum += image[b];
            double seen = 1 - sum / N_BYTES / 200;
            if (fabs(seen - share) > 0.0026) fail_msg("%s: %g, but %g", lists[k], share, seen);
            share_sum += share;
        }
        if (k == 0) assert_true(fabs(share_sum / 2000 - 0.5) < 0.03);
        if (k == 1) assert_true(share_sum / 2000 > 0.55); /* what lies outside is not cut in */
    }
}

/* The same numbers give the same pixels, other numbers others. */
static void pure_in_its_stream(void **state)
{
    (void)state;
    dip_augmentation *list;
    assert_int_equal(
        dip_augmentation_parse(&list, "flip, color_jitter(0.4, 0.4, 0.4, 0.1), grayscale(0.5), "
                                      "gaussian_blur, rotate(30), noise(0.1), cutout(9), "
                                      "random_erasing(value=random), solarize"),
        DIP_OK);
    uint8_t *scratch = malloc(dip_augment_scratch_bytes(SIDE));
    uint8_t *images[3];
    for (int k = 0; k < 3; k++) {
        images[k] = make_image(2, SIDE);
        memset(scratch, k, dip_augment_scratch_bytes(SIDE)); /* its content does not matter */
        dip_rng rng = rng_of(k == 2);
        for (int i = 0; i < list->views[0].n_ops; i++)
            dip_augment_apply(&list->views[0].ops[i], images[k], SIDE, scratch, &rng);
    }
    assert_memory_equal(images[0], images[1], N_BYTES);
    assert_memory_not_equal(images[0], images[2], N_BYTES);
    for (int k = 0; k < 3; k++) free(images[k]);
    free(scratch);
    dip_augmentation_free(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_pillow),          cmocka_unit_test(happens_with_p),
        cmocka_unit_test(jitter_draws_its_range), cmocka_unit_test(jitter_order_is_random),
        cmocka_unit_test(noise_is_normal),        cmocka_unit_test(noise_has_its_tails),
        cmocka_unit_test(kernels_draw_alike),     cmocka_unit_test(erasing_draws_its_range),
        cmocka_unit_test(erased_values),          cmocka_unit_test(beta_has_its_moments),
        cmocka_unit_test(mixing_tells_its_share), cmocka_unit_test(pure_in_its_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
