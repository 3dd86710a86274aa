/* rng.h, dtype.h, number.h and status.h: small things that everything rests on. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/number.h"
#include "core/rng.h"
#include "core/status.h"

/* Known answers published with Random123 for philox4x32-10. */
static void philox_known_answers(void **state)
{
    (void)state;
    const struct {
        uint64_t seed, stream, block;
        uint32_t out[4];
    } rows[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822,
         0x0370734413198a2e,
         0x85a308d3243f6a88,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        dip_rng rng;
        dip_rng_init(&rng, rows[i].seed, rows[i].stream);
        rng.block = rows[i].block;
        for (int k = 0; k < 4; k++) assert_int_equal(dip_rng_u32(&rng), rows[i].out[k]);
    }
}

static void streams_do_not_meet(void **state)
{
    (void)state;
    uint64_t a = dip_rng_stream(DIP_RNG_ORDER, 0, 1), b = dip_rng_stream(DIP_RNG_ORDER, 1, 0);
    uint64_t c = dip_rng_stream(DIP_RNG_AUGMENT, 0, 1);
    uint64_t d = dip_rng_stream(DIP_RNG_ORDER, 0, 0xfffffffffull);
    assert_true(a != b && a != c && a != d && b != c && b != d && c != d);
}

static void random_values_have_their_moments(void **state)
{
    (void)state;
    enum { N = 200000 };
    dip_rng rng;
    dip_rng_init(&rng, 1, dip_rng_stream(DIP_RNG_TEST, 0, 0));
    double sum = 0, sum_of_normal = 0, squares = 0;
    int counts[7] = {0};
    for (int i = 0; i < N; i++) {
        double u = dip_rng_uniform(&rng), z = dip_rng_normal(&rng);
        assert_true(u >= 0 && u < 1);
        sum += u;
        sum_of_normal += z;
        squares += z * z;
        counts[dip_rng_below(&rng, 7)]++;
    }
    /* Five standard deviations of the mean. */
    assert_true(fabs(sum / N - 0.5) < 5 * sqrt(1.0 / 12 / N));
    assert_true(fabs(sum_of_normal / N) < 5 / sqrt(N));
    assert_true(fabs(squares / N - 1) < 5 * sqrt(2.0 / N));
    for (int i = 0; i < 7; i++)
        assert_true(fabs(counts[i] - N / 7.0) < 5 * sqrt(N * (1 / 7.0) * (6 / 7.0)));
    assert_int_equal(dip_rng_below(&rng, 1), 0);
}

static void bf16_rounds_to_nearest_even(void **state)
{
    (void)state;
    const struct {
        float in;
        dip_bf16 out;
    } rows[] = {
        {1.0f, 0x3f80},      {0x1.01p0f, 0x3f80}, /* half way, to even: down */
        {0x1.03p0f, 0x3f82}, {0x1.010002p0f, 0x3f81}, {-0.0f, 0x8000},
        {INFINITY, 0x7f80},  {0x1.ffp127f, 0x7f80}, /* beyond the largest */
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_int_equal(dip_bf16_from_float(rows[i].in), rows[i].out);
    assert_true(isnan(dip_bf16_to_float(dip_bf16_from_float(NAN))));
    uint32_t bits = 0x7f800001; /* a NaN whose upper half alone would be infinity */
    float nan;
    memcpy(&nan, &bits, sizeof nan);
    assert_true(isnan(dip_bf16_to_float(dip_bf16_from_float(nan))));
    for (uint32_t i = 0; i < 0x10000; i++) {
        float back = dip_bf16_to_float((dip_bf16)i);
        if (!isnan(back)) assert_int_equal(dip_bf16_from_float(back), i);
    }
}

static void integers_are_strict(void **state)
{
    (void)state;
    int64_t value;
    assert_int_equal(dip_number_read_int(&value, "9223372036854775807"), DIP_NUMBER_OK);
    assert_true(value == INT64_MAX);
    assert_int_equal(dip_number_read_int(&value, "-9223372036854775808"), DIP_NUMBER_OK);
    assert_true(value == INT64_MIN);
    assert_int_equal(dip_number_read_int(&value, "+007"), DIP_NUMBER_OK);
    assert_int_equal(value, 7);
    const char *const large[] = {"9223372036854775808", "-9223372036854775809",
                                 "99999999999999999999999999"};
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(dip_number_read_int(&value, large[i]), DIP_NUMBER_TOO_LARGE);
    const char *const wrong[] = {"", "-", "12x", " 1", "1 ", "1.0", "1e3", "0x10", "--1"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_int_equal(dip_number_read_int(&value, wrong[i]), DIP_NUMBER_NOT_A_NUMBER);
}

static void check_doubles(void)
{
    double value;
    const char *const right[] = {
        "0", "-1.5", "+2.", ".5", "1e-400", "5E+3", "1.7976931348623157e308"};
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++)
        assert_int_equal(dip_number_read_double(&value, right[i]), DIP_NUMBER_OK);
    assert_int_equal(dip_number_read_double(&value, "1.5e2"), DIP_NUMBER_OK);
    assert_true(value == 150);
    const char *const wrong[] = {"",   ".",   "e5",  "1e",    "1e+", "1,5",
                                 "1x", "nan", "inf", "0x1p3", " 1",  "1 "};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_int_equal(dip_number_read_double(&value, wrong[i]), DIP_NUMBER_NOT_A_NUMBER);
    assert_int_equal(dip_number_read_double(&value, "1e999"), DIP_NUMBER_TOO_LARGE);
    assert_int_equal(dip_number_read_double(&value, "-1e999"), DIP_NUMBER_TOO_LARGE);
    char text[DIP_NUMBER_TEXT_BYTES];
    const struct {
        double value;
        const char *text;
    } rows[] = {{0.1, "0.1"}, {5e-4, "0.0005"}, {1e-6, "1e-06"},  {1.0 / 3, "0.3333333333333333"},
                {64, "64"},   {-0.0, "-0"},     {1e300, "1e+300"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        dip_number_write_double(text, rows[i].value);
        assert_string_equal(text, rows[i].text);
    }
}

static void doubles_are_strict_in_every_locale(void **state)
{
    (void)state;
    check_doubles();
    /* Not every machine has a locale with a decimal comma; where there is one, use it. */
    const char *const commas[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "nl_NL.UTF-8"};
    for (size_t i = 0; i < sizeof commas / sizeof commas[0]; i++) {
        if (!setlocale(LC_ALL, commas[i])) continue;
        check_doubles();
        break;
    }
    setlocale(LC_ALL, "C");
}

static void sentences(void **state)
{
    (void)state;
    assert_int_equal(dip_fail(DIP_IO, "%s", "first"), DIP_IO);
    assert_int_equal(dip_fail_prefix(DIP_IO, "while %s: ", "reading"), DIP_IO);
    assert_string_equal(dip_error(), "while reading: first");
    dip_fail(DIP_IO, "again %s", dip_error()); /* the old sentence as an argument */
    assert_string_equal(dip_error(), "again while reading: first");
    char *longer = malloc(10000);
    memset(longer, 'x', 9999);
    longer[9999] = '\0';
    dip_fail(DIP_IO, "%s", longer);
    assert_true(strlen(dip_error()) >= 1000 && strlen(dip_error()) < 10000);
    dip_fail_prefix(DIP_IO, "%s", longer);
    assert_int_equal(dip_error()[0], 'x');
    free(longer);
    assert_string_equal(dip_status_text(DIP_OK), "success");
    assert_string_equal(dip_status_text((dip_status)99), "unknown status");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_known_answers),
        cmocka_unit_test(streams_do_not_meet),
        cmocka_unit_test(random_values_have_their_moments),
        cmocka_unit_test(bf16_rounds_to_nearest_even),
        cmocka_unit_test(integers_are_strict),
        cmocka_unit_test(doubles_are_strict_in_every_locale),
        cmocka_unit_test(sentences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
