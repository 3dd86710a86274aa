/* The filler: what the default list draws, views, mixing, repetitions, and what it refuses. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>

#include "core/scratch.h"
#include "data/augment/augment_ops.h"
#include "data/fill_shard.h"

enum { SIZE = 32, N_BYTES = SIZE * SIZE * 3, CONTEXT = 16, N_SAMPLES = 6, BROKEN = 4 };

static fill_shard shard;

/* The bytes of the caption as ids. */
static int encode(void *context, int32_t *ids, int max_ids, const char *text, size_t n)
{
    (void)context;
    int count = 0;
    for (size_t i = 0; i < n && count < max_ids; i++) ids[count++] = (unsigned char)text[i];
    return count;
}

/* Pictures that differ in size and stripes. */
static uint8_t *make_png(size_t *n, int number, dip_image *image)
{
    const int width = 40 + 9 * number, height = 71 - 6 * number;
    *image = (dip_image){width, height, malloc((size_t)(width * height * 3))};
    for (int i = 0; i < width * height * 3; i++)
        image->rgb[i] = (uint8_t)(i * (number + 2) / 5 + i / (3 * width) * 7);
    uint8_t *png;
    must(dip_png_encode(&png, n, image->rgb, width, height, 3));
    return png;
}

static int setup(void **state)
{
    (void)state;
    shard_start(&shard, scratch_init("fill"));
    for (int i = 0; i < N_SAMPLES; i++) {
        char text[64];
        dip_image image;
        size_t n;
        uint8_t *png = make_png(&n, i, &image);
        snprintf(text, sizeof text, "first %d\nsecond %d\nthird %d\n", i, i, i);
        shard_add(&shard, "png", png, i == BROKEN ? n / 2 : n, "txt", text, strlen(text));
        free(png);
        free(image.rgb);
    }
    shard_open(&shard, DIP_NEEDS_IMAGE | DIP_NEEDS_CAPTION, SIZE);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    shard_close(&shard);
    return 0;
}

typedef struct filled {
    uint8_t images[3 * N_BYTES];
    int32_t tokens[CONTEXT];
    dip_filled result;
    dip_status status;
} filled;

/* A filler for the list; NULL: evaluation. */
static dip_augmentation *open_filler(const char *list, bool text)
{
    dip_augmentation *augmentation = NULL;
    if (list) must(dip_augmentation_parse(&augmentation, list));
    shard.options.augmentation = augmentation;
    shard.options.encode = text ? encode : NULL;
    shard.options.context_length = CONTEXT;
    must(dip_filler_open(&shard.filler, &shard.options));
    return augmentation;
}

static void close_filler(dip_augmentation *augmentation)
{
    dip_filler_close(shard.filler);
    shard.filler = NULL;
    shard.options.augmentation = NULL;
    dip_augmentation_free(augmentation);
}

static filled fill(int64_t epoch, int64_t index, int repeat)
{
    filled f;
    memset(&f, 0x5a, sizeof f);
    f.status = dip_filler_sample(shard.filler, f.images, f.tokens, &f.result, epoch, index, repeat);
    return f;
}

/* The pixels of a plain cut, by dip_resize on the picture itself. */
static void expect(uint8_t *out, int64_t index, const dip_box *box, int flip)
{
    dip_image image;
    size_t n;
    dip_resizer *resizer;
    must(dip_resizer_open(&resizer));
    free(make_png(&n, (int)index, &image));
    if (box)
        must(dip_resize(resizer, out, SIZE, SIZE, &image, *box, DIP_BICUBIC, flip));
    else
        must(dip_resize_for_eval(resizer, out, SIZE, &image, DIP_RESIZE_SQUASH, DIP_BICUBIC));
    dip_resizer_close(resizer);
    free(image.rgb);
}

/* Line, crop, flip: what runs before there was a list have drawn. */
static void the_usual_list_draws_as_ever(void **state)
{
    (void)state;
    shard.options.caption.random_line = true;
    dip_augmentation *list =
        open_filler("decode, random_resized_crop(0.3..1, 0.75..1.3333), flip(0.5)", true);
    const double scale[2] = {0.3, 1}, ratio[2] = {0.75, 1.3333};
    for (int64_t epoch = 0; epoch < 20; epoch++) {
        for (int64_t index = 0; index < BROKEN; index++) {
            dip_rng rng;
            dip_rng_init(&rng, 42,
                         dip_rng_stream(DIP_RNG_AUGMENT, (uint64_t)epoch, (uint64_t)index));
            const char first = "fst"[dip_rng_below(&rng, 3)];
            dip_box box =
                dip_random_crop(&rng, 40 + 9 * (int)index, 71 - 6 * (int)index, scale, ratio);
            const int flip = dip_rng_uniform(&rng) < 0.5;
            uint8_t expected[N_BYTES];
            expect(expected, index, &box, flip);
            filled f = fill(epoch, index, 0);
            must(f.status);
            assert_int_equal(f.tokens[0], first);
            assert_int_equal(f.result.n_tokens, first == 's' ? 8 : 7);
            assert_memory_equal(f.images, expected, N_BYTES);
            assert_true(f.result.mixed_with == -1 && f.result.mix_share == 1);
        }
    }
    close_filler(list);
    shard.options.caption.random_line = false;
}

static void other_cuts(void **state)
{
    (void)state;
    uint8_t expected[N_BYTES], flipped[N_BYTES];
    expect(expected, 1, NULL, 0);
    memcpy(flipped, expected, N_BYTES);
    dip_augment_flip(flipped, SIZE);
    static const struct {
        const char *list;
        dip_resize_mode mode;
        bool squashed, flipped;
    } cases[] = {{NULL, DIP_RESIZE_SQUASH, true, false},
                 {NULL, DIP_RESIZE_SHORTEST, false, false},
                 {"decode", DIP_RESIZE_SQUASH, true, false},
                 {"resize", DIP_RESIZE_SHORTEST, true, false},
                 {"resize(32), flip(1)", DIP_RESIZE_SHORTEST, true, true},
                 {"flip(1)", DIP_RESIZE_SQUASH, true, true},
                 {"center_crop", DIP_RESIZE_SQUASH, false, false}};
    uint8_t center[N_BYTES];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        shard.options.resize_mode = cases[i].mode;
        dip_augmentation *list = open_filler(cases[i].list, false);
        filled f = fill(0, 1, 0);
        must(f.status);
        assert_int_equal(f.result.n_tokens, 0);
        if (i == 1) memcpy(center, f.images, N_BYTES);
        assert_memory_equal(f.images,
                            cases[i].flipped    ? flipped
                            : cases[i].squashed ? expected
                                                : center,
                            N_BYTES);
        close_filler(list);
    }
    assert_memory_not_equal(center, expected, N_BYTES);
    dip_augmentation *list;
    must(dip_augmentation_parse(&list, "resize(64)"));
    shard.options.augmentation = list;
    assert_int_equal(dip_filler_open(&shard.filler, &shard.options), DIP_CONFIG);
    assert_null(shard.filler);
    dip_augmentation_free(list);
}

static void views_are_independent(void **state)
{
    (void)state;
    filled one, three;
    dip_augmentation *list = open_filler("random_resized_crop(0.3..1), flip, noise(0.02)", true);
    one = fill(7, 2, 0);
    close_filler(list);
    list = open_filler("2 x random_resized_crop(0.3..1), flip, noise(0.02) | resize", true);
    three = fill(7, 2, 0);
    must(one.status);
    must(three.status);
    assert_memory_equal(one.images, three.images, N_BYTES); /* the first is drawn first */
    assert_memory_not_equal(three.images, three.images + N_BYTES, N_BYTES);
    uint8_t squashed[N_BYTES];
    expect(squashed, 2, NULL, 0);
    assert_memory_equal(three.images + 2 * N_BYTES, squashed, N_BYTES);
    assert_int_equal(fill(7, BROKEN, 0).status, DIP_FORMAT);
    filled again = fill(7, 2, 0); /* what came between leaves no trace */
    assert_memory_equal(again.images, three.images, sizeof again.images);
    close_filler(list);
}

static void streams_differ(void **state)
{
    (void)state;
    dip_augmentation *list = open_filler("random_resized_crop(0.1..1), flip", true);
    const filled base = fill(3, 1, 0), same = fill(3, 1, 0);
    assert_memory_equal(base.images, same.images, N_BYTES);
    assert_memory_not_equal(base.images, fill(4, 1, 0).images, N_BYTES);
    assert_memory_not_equal(base.images, fill(3, 1, 1).images, N_BYTES);
    assert_memory_not_equal(fill(3, 1, 1).images, fill(3, 1, 2).images, N_BYTES);
    assert_memory_equal(fill(3, 1, 2).images, fill(3, 1, 2).images, N_BYTES);
    close_filler(list);
}

/* Whole images without other changes: the result must be what the shares say. */
static void mixed_images(void **state)
{
    (void)state;
    uint8_t own[N_BYTES], other[N_BYTES];
    bool seen[N_SAMPLES] = {false};
    dip_augmentation *list = open_filler("resize, solarize(100, 1), mixup(1)", true);
    expect(own, 1, NULL, 0);
    dip_augment_solarize(own, SIZE * SIZE, 100);
    int n_plain = 0;
    for (int64_t epoch = 0; epoch < 200; epoch++) {
        filled f = fill(epoch, 1, 0);
        must(f.status);
        assert_int_equal(f.result.n_tokens, 7); /* the caption stays its own */
        if (f.result.mixed_with < 0) {
            n_plain++;
            assert_true(f.result.mix_share == 1);
            assert_memory_equal(f.images, own, N_BYTES);
            continue;
        }
        assert_in_range(f.result.mixed_with, 0, N_SAMPLES - 1);
        seen[f.result.mixed_with] = true;
        expect(other, f.result.mixed_with, NULL, 0);
        dip_augment_solarize(other, SIZE * SIZE, 100);
        uint8_t expected[N_BYTES];
        memcpy(expected, own, N_BYTES);
        dip_augment_mixup(expected, other, N_BYTES, f.result.mix_share);
        assert_memory_equal(f.images, expected, N_BYTES);
        filled again = fill(epoch, 1, 0);
        assert_memory_equal(again.images, f.images, N_BYTES);
    }
    for (int i = 0; i < N_SAMPLES; i++) assert_int_equal(seen[i], i != 1 && i != BROKEN);
    assert_in_range(n_plain, 20, 65);                    /* one in five would be the broken one */
    assert_int_equal(dip_faults_total(shard.faults), 0); /* its own turn names it */
    close_filler(list);
}

static void mixing_twice_is_mixing_once(void **state)
{
    (void)state;
    dip_augmentation *list =
        open_filler("resize, cutmix(1, p=0.5), mixup(1, p=0.5), solarize(0, 1)", false);
    int n_mixed = 0;
    uint8_t own[N_BYTES], other[N_BYTES];
    expect(own, 0, NULL, 0);
    dip_augment_solarize(own, SIZE * SIZE, 0);
    for (int64_t epoch = 0; epoch < 400; epoch++) {
        filled f = fill(epoch, 0, 0);
        must(f.status);
        if (f.result.mixed_with < 0) continue;
        n_mixed++;
        expect(other, f.result.mixed_with, NULL, 0);
        dip_augment_solarize(other, SIZE * SIZE, 0); /* what comes after the mix is done to all */
        int n_own = 0, n_between = 0;
        for (int i = 0; i < N_BYTES; i += 3) {
            const bool is_own = memcmp(f.images + i, own + i, 3) == 0;
            n_own += is_own;
            n_between += !is_own && memcmp(f.images + i, other + i, 3) != 0;
        }
        /* Either rectangles of both, or nearly all between: never a mix of a cut. */
        const double share = (double)f.result.mix_share;
        if (n_between == 0)
            assert_true(fabs(n_own / (double)(SIZE * SIZE) - share) < 0.05);
        else
            assert_true(n_between > SIZE * SIZE / 2 || share > 0.95 || share < 0.05);
    }
    assert_in_range(n_mixed, 190, 290); /* 3/4, less the broken one in five */
    close_filler(list);
}

static void refused(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        dip_augmentation *list = open_filler(i ? "2 x resize" : NULL, true);
        filled f = fill(0, BROKEN, 0);
        assert_int_equal(f.status, DIP_FORMAT);
        assert_int_equal(f.result.fault, DIP_FAULT_IMAGE_BROKEN);
        close_filler(list);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_usual_list_draws_as_ever),
        cmocka_unit_test(other_cuts),
        cmocka_unit_test(views_are_independent),
        cmocka_unit_test(streams_differ),
        cmocka_unit_test(mixed_images),
        cmocka_unit_test(mixing_twice_is_mixing_once),
        cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
