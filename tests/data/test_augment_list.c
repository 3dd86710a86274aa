#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "data/augment/augment_list.h"

static dip_augmentation *parse(const char *text)
{
    dip_augmentation *list;
    if (dip_augmentation_parse(&list, text) != DIP_OK) fail_msg("%s: %s", text, dip_error());
    return list;
}

static void arguments(void **state)
{
    (void)state;
    dip_augmentation *list =
        parse("decode, random_resized_crop(0.9..1), flip(0.5),\n"
              "\tcolor_jitter(0.4, 0.2..3, saturation=2, hue=0.1, p=0.8), grayscale(0.2)");
    const dip_augment_view *view = &list->views[0];
    assert_int_equal(dip_augmentation_views(list), 1);
    assert_int_equal(view->n_ops, 4);
    const dip_augment_op *crop = &view->ops[0], *jitter = &view->ops[2];
    assert_int_equal(crop->kind, DIP_AUGMENT_RANDOM_RESIZED_CROP);
    assert_true(crop->args[DIP_CROP_SIZE].low == 0);
    assert_true(crop->args[DIP_CROP_SCALE].low == 0.9 && crop->args[DIP_CROP_SCALE].high == 1);
    assert_true(crop->args[DIP_CROP_RATIO].low == 3.0 / 4);
    assert_true(crop->args[DIP_CROP_RATIO].high == 4.0 / 3);
    assert_true(crop->p == 1);
    assert_true(view->ops[1].kind == DIP_AUGMENT_FLIP && view->ops[1].p == 0.5);
    assert_true(jitter->args[DIP_JITTER_BRIGHTNESS].low == 0.6);
    assert_true(jitter->args[DIP_JITTER_BRIGHTNESS].high == 1.4);
    assert_true(jitter->args[DIP_JITTER_CONTRAST].low == 0.2);
    assert_true(jitter->args[DIP_JITTER_CONTRAST].high == 3);
    assert_true(jitter->args[DIP_JITTER_SATURATION].low == 0); /* 1 - 2, not below 0 */
    assert_true(jitter->args[DIP_JITTER_SATURATION].high == 3);
    assert_true(jitter->args[DIP_JITTER_HUE].low == -0.1 && jitter->p == 0.8);
    assert_true(view->ops[3].kind == DIP_AUGMENT_GRAYSCALE && view->ops[3].p == 0.2);
    dip_augmentation_free(list);

    list = parse("random_resized_crop(224, 0.08..1, 0.5..2), rotate(10, fill=7, filter=bilinear),"
                 "random_erasing(0.25, value=random), cutout(16, value=128)");
    view = &list->views[0];
    assert_true(view->ops[0].args[DIP_CROP_SIZE].low == 224);
    assert_true(view->ops[0].args[DIP_CROP_RATIO].high == 2);
    assert_true(view->ops[1].args[DIP_ROTATE_DEGREES].low == -10);
    assert_true(view->ops[1].args[DIP_ROTATE_FILL].low == 7);
    assert_true(view->ops[1].args[DIP_ROTATE_BILINEAR].low == 1);
    assert_true(view->ops[2].p == 0.25);
    assert_true(view->ops[2].args[DIP_ERASING_VALUE].low == DIP_AUGMENT_VALUE_RANDOM);
    assert_true(view->ops[3].args[DIP_CUTOUT_VALUE].low == 128);
    dip_augmentation_free(list);

    list = parse("random_erasing(0.02..0.4)"); /* a range passes by a place for one number */
    assert_true(list->views[0].ops[0].p == 0.5);
    assert_true(list->views[0].ops[0].args[DIP_ERASING_SCALE].high == 0.4);
    dip_augmentation_free(list);
    list = parse("decode"); /* alone: evaluation's way */
    assert_int_equal(list->views[0].n_ops, 0);
    dip_augmentation_free(list);
    list = parse(" flip ( ) "); /* the same as flip */
    assert_int_equal(list->views[0].n_ops, 1);
    dip_augmentation_free(list);
    dip_augmentation_free(NULL);
}

static void views(void **state)
{
    (void)state;
    dip_augmentation *list = parse("2 x random_resized_crop(0.4..1), flip | center_crop");
    assert_int_equal(dip_augmentation_views(list), 3);
    assert_memory_equal(&list->views[0], &list->views[1], sizeof list->views[0]);
    assert_int_equal(list->views[2].n_ops, 1);
    assert_false(dip_augmentation_mixes(list));
    dip_augmentation_free(list);
    list = parse("flip, mixup(0.2)");
    assert_true(dip_augmentation_mixes(list));
    dip_augmentation_free(list);
    list = parse("flip, cutmix(alpha=1, p=0.5)");
    assert_true(dip_augmentation_mixes(list));
    dip_augmentation_free(list);
    list = parse("16 x flip");
    assert_int_equal(dip_augmentation_views(list), 16);
    dip_augmentation_free(list);
}

static void sizes(void **state)
{
    (void)state;
    static const char *const texts[] = {"random_resized_crop(224)", "resize(224)",
                                        "center_crop(size=224)", "flip | resize(224)"};
    for (int i = 0; i < 4; i++) {
        dip_augmentation *list = parse(texts[i]);
        assert_int_equal(dip_augmentation_check_size(list, 224), DIP_OK);
        assert_int_equal(dip_augmentation_check_size(list, 256), DIP_CONFIG);
        assert_non_null(strstr(dip_error(), "(224), but the model's images are 256 x 256"));
        dip_augmentation_free(list);
    }
    dip_augmentation *list = parse("random_resized_crop(0.9..1), cutout(16)");
    assert_int_equal(dip_augmentation_check_size(list, 256), DIP_OK);
    dip_augmentation_free(list);
}

typedef struct mistake {
    const char *text;
    int character;
    const char *what;
} mistake;

static void mistakes(void **state)
{
    (void)state;
    static const mistake mistakes[] = {
        {"", 1, "an augmentation is missing here"},
        {"decode,", 8, "an augmentation is missing here"},
        {"flip |", 7, "an augmentation is missing here"},
        {"flip, , flip", 7, "an augmentation is missing here"},
        {"flip, fliip(0.5)", 7,
         "\"fliip\" is no augmentation (did you mean flip?); known: decode, "},
        {"random_resize_crop", 1, "(did you mean random_resized_crop?)"},
        {"Flip", 1, "(did you mean flip?)"},
        {"zzz", 1, "\"zzz\" is no augmentation; known: "},
        {"\x1b[31m", 1, "\"\\x1b[31m\" is no augmentation"},
        {"\xc3\xa9\xc3\xa9, x", 1, "is no augmentation"},
        {"flip(p=0.5), \xc3\xa9, x", 14, "is no augmentation"},
        {"flip(1.5)", 6, "p must lie in 0..1"},
        {"flip(-0.1)", 6, "p must lie in 0..1"},
        {"flip(p=)", 8, "a value is missing here"},
        {"flip(0.5", 9, "')' is missing here"},
        {"flip(0.5 0.6)", 10, "',' or ')' is missing here"},
        {"flip 0.5", 6, "',' or '|' is missing here"},
        {"flip(0.5))", 10, "',' or '|' is missing here"},
        {"flip(0.5,)", 10, "an argument is missing here"},
        {"flip(,0.5)", 6, "an argument is missing here"},
        {"flip(0.5, 0.5)", 11, "flip takes no further argument without a name here"},
        {"flip(p=0.5, 0.5)", 13, "flip takes no further argument without a name here"},
        {"flip(p=0.5, p=0.5)", 15, "p is given twice"},
        {"flip(0.2..0.5)", 6, "flip takes no further argument"},
        {"flip(p=0.2..0.5)", 8, "p is one number, not a range"},
        {"flip(often)", 6, "p must be a number, got \"often\""},
        {"flip(q=1)", 6, "\"q\" is no argument of flip"},
        {"color_jitter(brigtness=1)", 14, "(did you mean brightness?)"},
        {"color_jitter(0.4, -1)", 19, "contrast as one number must not be below 0"},
        {"color_jitter(hue=0.6)", 18, "hue must lie in -0.5..0.5"},
        {"color_jitter(1e999)", 14, "brightness is too large"},
        {"color_jitter(nan)", 14, "brightness must be a number or a range a..b, got \"nan\""},
        {"color_jitter(1..0.5)", 14, "brightness: a range rises"},
        {"color_jitter(1..)", 14, "brightness must be a number or a range a..b, got \"\""},
        {"color_jitter(0..1..2)", 14, "brightness must be a number or a range a..b, got \"1..2\""},
        {"decode(3)", 8, "decode takes no argument here"},
        {"flip, decode", 7, "decode can only be the first"},
        {"decode, decode", 9, "decode can only be the first"},
        {"flip, random_resized_crop(0.9..1)", 7, "random_resized_crop must stand before flip"},
        {"resize, center_crop", 9, "resize and center_crop: one cut is enough"},
        {"random_resized_crop(0.9)", 21, "size must lie in 1..65535"},
        {"random_resized_crop(22.5)", 21, "size must be a whole number"},
        {"random_resized_crop(scale=0..1)", 27, "scale must lie in 1e-06..1"},
        {"random_resized_crop(ratio=0..1)", 27, "ratio must lie in 0.01..100"},
        {"rotate", 1, "rotate needs its degrees"},
        {"rotate(400)", 8, "degrees must lie in -360..360"},
        {"rotate(9, fill=300)", 16, "fill must lie in 0..255"},
        {"rotate(9, filter=cubic)", 18, "filter must be nearest or bilinear, got \"cubic\""},
        {"rotate(9, filter=1)", 18, "filter must be nearest or bilinear"},
        {"rotate(9, filter=0..1)", 18, "filter is one word, not a range"},
        {"noise()", 1, "noise needs its sigma"},
        {"noise(1.5)", 7, "sigma must lie in 0..1"},
        {"gaussian_blur(-1)", 15, "sigma must lie in 0..1000"},
        {"cutout", 1, "cutout needs its size"},
        {"cutout(1)", 8, "size must lie in 2..65535"},
        {"cutout(8, value=-1)", 17, "value must lie in 0..255"},
        {"cutout(8, value=randon)", 17, "value must be a number or random, got \"randon\""},
        {"random_erasing(scale=0.5..1.5)", 22, "scale must lie in 0..1"},
        {"solarize(0.5)", 10, "threshold must be a whole number"},
        {"solarize(300)", 10, "threshold must lie in 0..256"},
        {"mixup", 1, "mixup needs its alpha"},
        {"mixup(0)", 7, "alpha must lie in 0.001..1000"},
        {"mixup(1) | flip", 1, "mixup and cutmix need a list of one view, this has 2"},
        {"2 x cutmix(1)", 1, "mixup and cutmix need a list of one view, this has 2"},
        {"2 flip", 1, "a number here is a number of views: \"2 x LIST\""},
        {"2 xflip", 1, "a number here is a number of views"},
        {"0 x flip", 1, "there can be 1 to 16 views"},
        {"17 x flip", 1, "there can be 1 to 16 views"},
        {"99999999999999999999 x flip", 1, "there can be 1 to 16 views"},
        {"9 x flip | 8 x flip", 15, "there can be 1 to 16 views"},
        {"flip, 2 x flip", 7, "\"2\" is no augmentation"},
    };
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
        const mistake *m = &mistakes[i];
        dip_augmentation *list = NULL;
        char place[64];
        snprintf(place, sizeof place, "augmentations, character %d: ", m->character);
        if (dip_augmentation_parse(&list, m->text) != DIP_CONFIG) fail_msg("taken: %s", m->text);
        assert_null(list);
        if (strncmp(dip_error(), place, strlen(place)) != 0 || !strstr(dip_error(), m->what))
            fail_msg("%s\n  says:   %s\n  not:    %s%s", m->text, dip_error(), place, m->what);
    }
}

static void limits(void **state)
{
    (void)state;
    dip_augmentation *list = NULL;
    char *text = malloc(300000);
    memset(text, ' ', 300000);
    text[299999] = '\0';
    assert_int_equal(dip_augmentation_parse(&list, text), DIP_CONFIG);
    assert_non_null(strstr(dip_error(), "more than 262144 bytes"));
    memset(text, 'a', 16000); /* one endless word */
    text[16000] = '\0';
    assert_int_equal(dip_augmentation_parse(&list, text), DIP_CONFIG);
    assert_true(strlen(dip_error()) < 500);
    /* A number is not cut before its exponent: this is no 0.1. */
    snprintf(text, 300000, "flip, noise(0.1%063de-3)", 0);
    assert_int_equal(dip_augmentation_parse(&list, text), DIP_CONFIG);
    assert_non_null(strstr(dip_error(), "character 13: a word or number of more than 63 bytes"));
    text[0] = '\0';
    for (int i = 0; i < 33; i++) strcat(text, i ? ",flip" : "flip");
    assert_int_equal(dip_augmentation_parse(&list, text), DIP_CONFIG);
    assert_non_null(strstr(dip_error(), "character 161: more than 32 augmentations"));
    text[strlen(text) - 5] = '\0';
    assert_int_equal(dip_augmentation_parse(&list, text), DIP_OK);
    dip_augmentation_free(list);
    free(text);
}

static bool same_lists(const dip_augmentation *a, const dip_augmentation *b)
{
    if (a->n_views != b->n_views) return false;
    for (int v = 0; v < a->n_views; v++) {
        if (a->views[v].n_ops != b->views[v].n_ops) return false;
        for (int i = 0; i < a->views[v].n_ops; i++) {
            const dip_augment_op *x = &a->views[v].ops[i], *y = &b->views[v].ops[i];
            if (x->kind != y->kind || x->p != y->p) return false;
            for (int k = 0; k < DIP_AUGMENT_MAX_ARGS; k++)
                if (x->args[k].low != y->args[k].low || x->args[k].high != y->args[k].high)
                    return false;
        }
    }
    return true;
}

static void check_print(const dip_augmentation *list, const char *text)
{
    char *printed;
    assert_int_equal(dip_augmentation_print(&printed, list), DIP_OK);
    dip_augmentation *again = parse(printed);
    if (!same_lists(list, again)) fail_msg("\"%s\" is printed as \"%s\"", text, printed);
    dip_augmentation_free(again);
    free(printed);
}

static void prints_back(void **state)
{
    (void)state;
    dip_augmentation *list = parse("resize(9),flip|rotate(90..90,filter=bilinear),color_jitter(1)");
    char *printed;
    assert_int_equal(dip_augmentation_print(&printed, list), DIP_OK);
    assert_string_equal(printed, "decode, resize(size=9), flip(p=0.5) | decode, "
                                 "rotate(degrees=90..90, p=1, fill=0, filter=bilinear), "
                                 "color_jitter(brightness=0..2, contrast=1..1, saturation=1..1, "
                                 "hue=0..0, p=1)");
    free(printed);
    dip_augmentation_free(list);
    static const char *const texts[] = {
        "decode", "random_resized_crop, flip, cutout(3,value=random), random_erasing(value=random)",
        "center_crop, grayscale, gaussian_blur, noise(0.3), solarize, mixup(0.3), cutmix(1.1)",
        "3 x random_resized_crop(0.123456789012345..1), rotate(0.1)"};
    for (int i = 0; i < 4; i++) {
        list = parse(texts[i]);
        check_print(list, texts[i]);
        dip_augmentation_free(list);
    }
    /* The longest numbers, and the longest list. */
    list = parse("rotate(-1.2345678901234567e-101..1.2345678901234567e-101)");
    check_print(list, "the longest numbers");
    dip_augmentation_free(list);
    char most[4000] = "16 x ";
    for (int i = 0; i < 32; i++)
        strcat(strcat(most, i ? "," : ""), "color_jitter(.1234567890123457,.1234567890123457,"
                                           ".1234567890123457,.1234567890123457)");
    list = parse(most);
    assert_int_equal(list->views[15].n_ops, 32);
    check_print(list, "the longest list");
    dip_augmentation_free(list);
}

/* Random texts of pieces that a list is made of: a list that reads back, or a sentence. */
static void any_text_is_a_list_or_a_sentence(void **state)
{
    (void)state;
    static const char *const pieces[] = {"decode",
                                         "random_resized_crop",
                                         "resize",
                                         "center_crop",
                                         "flip",
                                         "color_jitter",
                                         "grayscale",
                                         "gaussian_blur",
                                         "rotate",
                                         "noise",
                                         "cutout",
                                         "random_erasing",
                                         "solarize",
                                         "mixup",
                                         "cutmix",
                                         "(",
                                         ")",
                                         "(",
                                         ")",
                                         ",",
                                         ",",
                                         "|",
                                         "=",
                                         "..",
                                         "0.5",
                                         "1",
                                         "2 x ",
                                         "0",
                                         "-3",
                                         "1e9",
                                         "p",
                                         "p=",
                                         "value=random",
                                         "sigma",
                                         "filter=bilinear",
                                         " ",
                                         "\n",
                                         "x",
                                         "nan",
                                         "\xff",
                                         "\xc3\xa9",
                                         "\x01",
                                         "0.1..0.9",
                                         "(0.5)",
                                         "(p=0.1)",
                                         ", ",
                                         "8"};
    dip_rng rng;
    dip_rng_init(&rng, 5, dip_rng_stream(DIP_RNG_TEST, 0, 0));
    int n_lists = 0;
    for (int i = 0; i < 200000; i++) {
        char text[400] = "";
        int n = (int)dip_rng_below(&rng, 12);
        for (int k = 0; k < n; k++)
            strcat(text, pieces[dip_rng_below(&rng, sizeof pieces / sizeof *pieces)]);
        dip_augmentation *list = NULL;
        dip_status status = dip_augmentation_parse(&list, text);
        if (status == DIP_OK) {
            n_lists++;
            check_print(list, text);
            dip_augmentation_free(list);
        } else {
            assert_int_equal(status, DIP_CONFIG);
            assert_null(list);
            assert_true(strncmp(dip_error(), "augmentations, character ", 25) == 0);
        }
    }
    assert_in_range(n_lists, 1000, 190000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arguments),
        cmocka_unit_test(views),
        cmocka_unit_test(sizes),
        cmocka_unit_test(mistakes),
        cmocka_unit_test(limits),
        cmocka_unit_test(prints_back),
        cmocka_unit_test(any_text_is_a_list_or_a_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
