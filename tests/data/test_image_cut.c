/* Decoding and resizing in one go: the bytes of decoding all and resizing that, for every kind of
 * file, every set of kernels, and the ways that rows can take. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "data/image/resize_kernels.h"
#include "image_jpeg.h"

enum { MOST = 320 };

static uint8_t out[MOST * MOST * 3], expected[MOST * MOST * 3];

typedef struct desk {
    dip_image_decoder *decoder;
    dip_resizer *resizer;
} desk;

static desk open_desk(const dip_decode_options *options)
{
    desk d;
    assert_int_equal(dip_image_decoder_open_with(&d.decoder, options), DIP_OK);
    assert_int_equal(dip_resizer_open(&d.resizer), DIP_OK);
    return d;
}

static void close_desk(desk d)
{
    dip_image_decoder_close(d.decoder);
    dip_resizer_close(d.resizer);
}

/* One set of kernels after the other, of those that this machine has. */
static const dip_resize_kernels *next_kernels(void)
{
    const dip_resize_kernels *(*const sets[])(void) = {
        dip_resize_kernels_c, dip_resize_kernels_avx2, dip_resize_kernels_avx512,
        dip_resize_kernels_vbmi};
    static unsigned i;
    const dip_resize_kernels *set = NULL;
    while (!set) set = sets[i++ % 4]();
    return set;
}

static void start(desk d, bytes file, const char *name)
{
    int width, height;
    dip_fault_kind kind;
    if (dip_image_start(d.decoder, &width, &height, &kind, file.data, file.n) != DIP_OK)
        fail_msg("%s: %s", name, dip_error());
}

/* What finish and resize give, kept. */
static void expect_cut(desk d, bytes file, dip_box box, int w, int h, dip_filter filter, int flip,
                       const char *name)
{
    dip_image part;
    dip_rect where;
    dip_fault_kind kind;
    start(d, file, name);
    if (dip_image_finish(d.decoder, &part, &where, &kind, box, w, h) != DIP_OK ||
        dip_resize_region(d.resizer, expected, w, h, &part, where, filter, flip) != DIP_OK)
        fail_msg("%s: %s", name, dip_error());
}

static void check_cut(desk d, bytes file, dip_box box, int w, int h, const char *name)
{
    const dip_filter filter = (box.x + w) % 3 ? DIP_BICUBIC : DIP_BILINEAR;
    const int flip = box.y % 2;
    const dip_resize_kernels *kernels = next_kernels();
    dip_fault_kind kind;
    dip_resizer_set_kernels(d.resizer, dip_resize_kernels_c());
    expect_cut(d, file, box, w, h, filter, flip, name);
    dip_resizer_set_kernels(d.resizer, kernels);
    memset(out, 0x5a, sizeof out);
    start(d, file, name);
    if (dip_image_cut(d.decoder, d.resizer, out, w, h, &kind, box, filter, flip) != DIP_OK)
        fail_msg("%s: %s", name, dip_error());
    if (memcmp(out, expected, (size_t)w * (size_t)h * 3) != 0)
        fail_msg("%s, %d x %d at (%d, %d) to %d x %d by %s", name, box.width, box.height, box.x,
                 box.y, w, h, kernels->name);
}

/* Sizes that a lot of rows divides or not, wide ones whose lots are small, and outputs larger and
 * smaller than the box, of one side unchanged, and so flat that the height goes first. */
static void cuts_of_jpegs(void **state)
{
    (void)state;
    static const int sizes[][2] = {{500, 375}, {64, 64}, {97, 193}, {9001, 21}, {31, 700}};
    const dip_decode_options options = dip_decode_defaults();
    desk d = open_desk(&options);
    unsigned random = 41;
    for (int r = 0; r < N_JPEG_RECIPES; r++)
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
            bytes file = make_jpeg(&jpeg_recipes[r], sizes[s][0], sizes[s][1], random);
            for (int i = 0; i < 7; i++) { /* each by every set in turn */
                const dip_box box = random_box(&random, sizes[s][0], sizes[s][1]);
                int w = 1 + (int)below(&random, 300), h = 1 + (int)below(&random, 300);
                if (i == 1 && box.width <= MOST) w = box.width;
                if (i == 2 && box.height <= MOST) h = box.height;
                if (i == 3) h = 1;
                check_cut(d, file, box, w, h, jpeg_recipes[r].name);
            }
            free(file.data);
        }
    close_desk(d);
}

static void cuts_that_are_scaled_or_turned(void **state)
{
    (void)state;
    const char *const names[] = {"turned_1.jpg", "turned_3.jpg", "turned_6.jpg", "turned_8.jpg",
                                 "colour2_depth8.png"};
    unsigned random = 43;
    for (int i = 0; i < 4; i++) {
        dip_decode_options options = dip_decode_defaults();
        options.scale_in_dct = i % 2;
        options.exif_rotate = i / 2;
        desk d = open_desk(&options);
        for (size_t n = 0; n < sizeof names / sizeof names[0]; n++) {
            bytes file = read_corpus(names[n]);
            int width, height;
            dip_fault_kind kind;
            assert_int_equal(dip_image_start(d.decoder, &width, &height, &kind, file.data, file.n),
                             DIP_OK);
            for (int k = 0; k < 20; k++)
                check_cut(d, file, random_box(&random, width, height), 1 + (int)below(&random, 20),
                          1 + (int)below(&random, 20), names[n]);
            free(file.data);
        }
        bytes large = make_jpeg(&jpeg_recipes[2], 700, 500, 3);
        for (int k = 0; k < 20; k++)
            check_cut(d, large, random_box(&random, 700, 500), 1 + (int)below(&random, 90),
                      1 + (int)below(&random, 90), "a large one");
        free(large.data);
        close_desk(d);
    }
}

static void cuts_for_evaluation(void **state)
{
    (void)state;
    static const int sizes[][2] = {{500, 375}, {375, 500}, {224, 300}, {90, 91}, {600, 40}};
    const dip_decode_options options = dip_decode_defaults();
    desk d = open_desk(&options);
    for (int r = 0; r < N_JPEG_RECIPES; r++)
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
            for (int mode = 0; mode < 2; mode++) {
                enum { SIDE = 224 };
                const dip_resize_mode how = mode ? DIP_RESIZE_SQUASH : DIP_RESIZE_SHORTEST;
                bytes file = make_jpeg(&jpeg_recipes[r], sizes[s][0], sizes[s][1], 1);
                dip_image image;
                dip_fault_kind kind;
                assert_int_equal(dip_image_decode(d.decoder, &image, &kind, file.data, file.n),
                                 DIP_OK);
                assert_int_equal(
                    dip_resize_for_eval(d.resizer, expected, SIDE, &image, how, DIP_BICUBIC),
                    DIP_OK);
                start(d, file, jpeg_recipes[r].name);
                assert_int_equal(dip_image_cut_for_eval(d.decoder, d.resizer, out, SIDE, &kind, how,
                                                        DIP_BICUBIC),
                                 DIP_OK);
                assert_memory_equal(out, expected, SIDE * SIDE * 3);
                free(file.data);
            }
    close_desk(d);
}

/* Damage behind the rows that were wanted, and amid them: refused as by finish, and the next file
 * is well. */
static void damage_is_found_by_a_cut_too(void **state)
{
    (void)state;
    enum { N_CHANGES = 200 };
    const dip_decode_options options = dip_decode_defaults();
    desk d = open_desk(&options);
    unsigned random = 47;
    int n_refused = 0;
    for (int r = 0; r < N_JPEG_RECIPES; r++) {
        bytes file = make_jpeg(&jpeg_recipes[r], 131, 97, 1);
        const dip_box box = {5, 7, 60, 40};
        for (int i = 0; i < N_CHANGES; i++) {
            const size_t at = 2 + below(&random, (int)file.n - 2);
            const bytes damaged = {file.data, i % 4 ? file.n : at};
            const uint8_t flip = (uint8_t)(1u << below(&random, 8));
            int width, height;
            dip_image part;
            dip_rect where;
            dip_fault_kind kind[2] = {0};
            dip_status status[2];
            file.data[at] ^= flip;
            for (int k = 0; k < 2; k++) {
                status[k] =
                    dip_image_start(d.decoder, &width, &height, &kind[k], damaged.data, damaged.n);
                if (status[k] != DIP_OK) continue;
                if (width < 65 || height < 47) break;
                status[k] = k ? dip_image_cut(d.decoder, d.resizer, out, 24, 24, &kind[k], box,
                                              DIP_BICUBIC, 0)
                              : dip_image_finish(d.decoder, &part, &where, &kind[k], box, 24, 24);
            }
            file.data[at] ^= flip;
            if (width < 65 || height < 47) continue;
            assert_int_equal(status[1], status[0]);
            if (status[0] != DIP_OK) assert_int_equal(kind[1], kind[0]);
            n_refused += status[0] != DIP_OK;
        }
        check_cut(d, file, box, 24, 24, jpeg_recipes[r].name);
        free(file.data);
    }
    assert_true(n_refused > 500);
    close_desk(d);
}

/* Whoever pads a file, the verdict is the same; a file without its end is said to have none. */
static void padding_changes_nothing(void **state)
{
    (void)state;
    enum { N_CHANGES = 300, SIDE = 24 };
    dip_decode_options options = dip_decode_defaults();
    desk plain = open_desk(&options);
    options.is_padded = true;
    desk padded = open_desk(&options);
    unsigned random = 53;
    int n_refused = 0, n_premature = 0;
    for (int r = 0; r < N_JPEG_RECIPES; r++) {
        bytes file = make_jpeg(&jpeg_recipes[r], 131, 97, 1);
        uint8_t *room = malloc(file.n + DIP_IMAGE_PADDING);
        assert_non_null(room);
        for (int i = 0; i < N_CHANGES; i++) {
            const size_t at = 2 + below(&random, (int)file.n - 2), n = i % 3 ? file.n : at;
            const uint8_t flip = (uint8_t)(i % 3 ? 1u << below(&random, 8) : 0);
            dip_status status[2];
            dip_fault_kind kind[2] = {0};
            file.data[at] ^= flip;
            memcpy(room, file.data, n);
            memset(room + n, 0, DIP_IMAGE_PADDING);
            for (int k = 0; k < 2; k++) {
                const desk d = k ? padded : plain;
                int width, height;
                status[k] =
                    dip_image_start(d.decoder, &width, &height, &kind[k], k ? room : file.data, n);
                if (status[k] != DIP_OK) continue;
                const dip_box all = {0, 0, width, height};
                status[k] = dip_image_cut(d.decoder, d.resizer, k ? out : expected, SIDE, SIDE,
                                          &kind[k], all, DIP_BICUBIC, 0);
            }
            file.data[at] ^= flip;
            assert_int_equal(status[1], status[0]);
            if (status[0] == DIP_OK)
                assert_memory_equal(out, expected, SIDE * SIDE * 3);
            else
                assert_int_equal(kind[1], kind[0]);
            n_refused += status[0] != DIP_OK;
            if (n == file.n) continue;
            assert_int_not_equal(status[0], DIP_OK);
            n_premature += strstr(dip_error(), "Premature end") != NULL;
        }
        free(room);
        free(file.data);
    }
    assert_true(n_refused > 3000 && n_refused < N_CHANGES * N_JPEG_RECIPES);
    assert_true(n_premature > N_CHANGES / 3 * N_JPEG_RECIPES * 9 / 10); /* others lack a header */
    close_desk(plain);
    close_desk(padded);
}

static void cuts_out_of_order_are_refused(void **state)
{
    (void)state;
    const dip_decode_options options = dip_decode_defaults();
    desk d = open_desk(&options);
    bytes file = read_corpus("ycc_420.jpg");
    const dip_box whole = {0, 0, 41, 27}, outside = {1, 0, 41, 27};
    dip_fault_kind kind;
    for (int i = 0; i < 3; i++) {
        if (i > 0) start(d, file, "ycc_420.jpg");
        const dip_status status = dip_image_cut(d.decoder, d.resizer, out, i == 1 ? 0 : 8, 8, &kind,
                                                i == 2 ? outside : whole, DIP_BICUBIC, 0);
        assert_int_equal(status, DIP_CONFIG);
    }
    assert_int_equal(dip_image_cut_for_eval(d.decoder, d.resizer, out, 8, &kind,
                                            DIP_RESIZE_SHORTEST, DIP_BICUBIC),
                     DIP_CONFIG);
    check_cut(d, file, whole, 8, 8, "ycc_420.jpg");
    free(file.data);
    close_desk(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuts_of_jpegs),           cmocka_unit_test(cuts_that_are_scaled_or_turned),
        cmocka_unit_test(cuts_for_evaluation),     cmocka_unit_test(damage_is_found_by_a_cut_too),
        cmocka_unit_test(padding_changes_nothing), cmocka_unit_test(cuts_out_of_order_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
