#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/caption/caption.h"
#include "data/caption/caption_text.h"
#include "core/utf8.h"

static dip_rng rng_of(uint64_t item)
{
    dip_rng rng;
    dip_rng_init(&rng, 3, dip_rng_stream(DIP_RNG_TEST, 0, item));
    return rng;
}

static dip_sample sample_of(const char *text, bool is_json)
{
    return (dip_sample){.caption = text, .caption_bytes = strlen(text), .caption_is_json = is_json};
}

static dip_captioner *open_captioner(const dip_caption_options *options)
{
    dip_captioner *captioner;
    if (dip_captioner_open(&captioner, options) != DIP_OK) fail_msg("%s", dip_error());
    return captioner;
}

/* The caption as a string; the caller's until the next call. */
static const char *choose(dip_captioner *captioner, const dip_sample *sample, uint64_t item)
{
    static char out[4096];
    const char *text;
    size_t n;
    dip_fault_kind fault;
    dip_rng rng = rng_of(item);
    if (dip_captioner_choose(captioner, &text, &n, &fault, sample, &rng) != DIP_OK)
        fail_msg("%s", dip_error());
    assert_true(n < sizeof out);
    memcpy(out, text, n);
    out[n] = '\0';
    return out;
}

static void check_refused(dip_captioner *captioner, const dip_sample *sample, dip_fault_kind kind,
                          const char *why)
{
    const char *text;
    size_t n;
    dip_fault_kind fault;
    dip_rng rng = rng_of(0);
    assert_int_equal(dip_captioner_choose(captioner, &text, &n, &fault, sample, &rng), DIP_FORMAT);
    if (fault != kind || !strstr(dip_error(), why))
        fail_msg("%s: %s", dip_fault_text(fault), dip_error());
}

/* Cleaning. */

static size_t read_hex(char *out, const char *hex)
{
    size_t n = 0;
    for (hex++; hex[0] && hex[1]; hex += 2) {
        unsigned byte;
        assert_int_equal(sscanf(hex, "%2x", &byte), 1);
        out[n++] = (char)byte;
    }
    return n;
}

static void cleaning_equals_open_clip(void **state)
{
    (void)state;
    FILE *file = fopen(TEST_SOURCE_DIR "/tests/golden/caption_expected.txt", "r");
    assert_non_null(file);
    static char in_hex[4096], out_hex[4096], in[2048], expected[2048];
    char mode[32];
    int n_lines = 0;
    for (; fscanf(file, "%31s %4095s %4095s", mode, in_hex, out_hex) == 3; n_lines++) {
        dip_caption_options options = {0};
        assert_int_equal(dip_caption_clean_find(&options.clean, mode), DIP_OK);
        dip_captioner *captioner = open_captioner(&options);
        const dip_sample sample = {.caption = in, .caption_bytes = read_hex(in, in_hex)};
        const size_t n_expected = read_hex(expected, out_hex);
        const char *text = NULL;
        size_t n = 0;
        dip_fault_kind fault;
        dip_rng rng = rng_of(0);
        dip_status status = dip_captioner_choose(captioner, &text, &n, &fault, &sample, &rng);
        if (n_expected == 0) {
            if (status != DIP_FORMAT || fault != DIP_FAULT_CAPTION_EMPTY)
                fail_msg("not empty: %s %s", mode, in_hex);
        } else if (status != DIP_OK || n != n_expected || memcmp(text, expected, n) != 0) {
            fail_msg("%s %s\n  gives %.*s\n  not   %.*s", mode, in_hex, (int)n, text,
                     (int)n_expected, expected);
        }
        dip_captioner_close(captioner);
    }
    fclose(file);
    assert_in_range(n_lines, 3000, 4000);
}

static void cleaning_names(void **state)
{
    (void)state;
    dip_caption_clean clean;
    assert_int_equal(dip_caption_clean_find(&clean, "none"), DIP_OK);
    assert_int_equal(clean, DIP_CLEAN_NONE);
    assert_int_equal(dip_caption_clean_find(&clean, "whitespace_underscore"), DIP_OK);
    assert_int_equal(clean, DIP_CLEAN_WHITESPACE_UNDERSCORE);
    assert_int_equal(dip_caption_clean_find(&clean, "canonicalize"), DIP_OK);
    assert_int_equal(clean, DIP_CLEAN_CANONICALIZE);
    assert_int_equal(dip_caption_clean_find(&clean, "white"), DIP_CONFIG);
    assert_int_equal(dip_caption_clean_find(&clean, ""), DIP_CONFIG);
    assert_non_null(strstr(dip_error(), DIP_CAPTION_CLEANS));
}

static void none_leaves_the_line_alone(void **state)
{
    (void)state;
    dip_captioner *captioner = open_captioner(&(dip_caption_options){0});
    const dip_sample sample = sample_of("  Two  spaces &amp; _\xe2\x80\x9c \r\nnext\n", false);
    assert_string_equal(choose(captioner, &sample, 0), "Two  spaces &amp; _\xe2\x80\x9c");
    dip_captioner_close(captioner);
}

/* Which caption. */

static void lines(void **state)
{
    (void)state;
    dip_caption_options options = {0};
    const dip_sample sample = sample_of("one\n\n two \nthree", false);
    dip_captioner *captioner = open_captioner(&options);
    for (uint64_t i = 0; i < 20; i++) assert_string_equal(choose(captioner, &sample, i), "one");
    options.random_line = true;
    int n[3] = {0};
    for (uint64_t i = 0; i < 3000; i++) {
        const char *text = choose(captioner, &sample, i);
        n[text[0] == 'o' ? 0 : text[1] == 'w' ? 1 : 2]++;
    }
    for (int i = 0; i < 3; i++) assert_in_range(n[i], 900, 1100);
    const dip_sample one = sample_of("one", false);
    dip_rng rng = rng_of(0), untouched = rng;
    const char *text;
    size_t n_bytes;
    dip_fault_kind fault;
    assert_int_equal(dip_captioner_choose(captioner, &text, &n_bytes, &fault, &one, &rng), DIP_OK);
    assert_memory_equal(&rng, &untouched, sizeof rng); /* one line: nothing to draw */
    dip_captioner_close(captioner);
}

static void json_keys_in_order(void **state)
{
    (void)state;
    char *keys[] = {"long", "short", "alt"};
    dip_caption_options options = {.json_keys = {keys, 3}};
    dip_captioner *captioner = open_captioner(&options);
    static const struct {
        const char *json, *text;
    } cases[] = {
        {"{\"alt\": \"a\", \"short\": \"s\", \"long\": \"l\"}", "l"},
        {"{\"alt\": \"a\", \"short\": \"s\", \"long\": null}", "s"},
        {"{\"alt\": \"a\", \"short\": \" \\n\"}", "a"},
        {"{\"long\": 7, \"short\": [1, 2], \"alt\": \"a\\u00e9\"}", "a\xc3\xa9"},
        {"{\"long\": [\"one\\ntwo\", \"three\"]}", "one two"},
        {"{\"long\": [], \"short\": [\"\", \" \"], \"alt\": \" last \"}", "last"},
        {"{\"long\": \"one\\ntwo\"}", "one"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const dip_sample sample = sample_of(cases[i].json, true);
        assert_string_equal(choose(captioner, &sample, 0), cases[i].text);
    }
    options.random_line = true; /* items of a list are captions of their own */
    const dip_sample list = sample_of("{\"short\": [\"a\\nb\", \"c\", \"d\"]}", true);
    bool seen[3] = {false};
    for (uint64_t i = 0; i < 100; i++) {
        const char *text = choose(captioner, &list, i);
        assert_true(strcmp(text, "a b") == 0 || strcmp(text, "c") == 0 || strcmp(text, "d") == 0);
        seen[text[0] == 'a' ? 0 : text[0] - 'b'] = true;
    }
    assert_true(seen[0] && seen[1] && seen[2]);
    dip_captioner_close(captioner);
}

static void json_keys_by_weight(void **state)
{
    (void)state;
    char *keys[] = {"z", "a", "y", "b"};
    const double weights[] = {0, 3, 0, 1};
    const dip_caption_options options = {.json_keys = {keys, 4}, .json_weights = weights};
    dip_captioner *captioner = open_captioner(&options);
    const dip_sample all =
        sample_of("{\"a\": \"a\", \"b\": \"b\", \"z\": \"z\", \"y\": \"y\"}", true);
    const dip_sample no_a = sample_of("{\"b\": \"b\", \"z\": \"z\", \"y\": \"y\"}", true);
    const dip_sample rest = sample_of("{\"y\": \"y\", \"z\": \"z\"}", true);
    int n_a = 0;
    for (uint64_t i = 0; i < 4000; i++) {
        const char letter = choose(captioner, &all, i)[0];
        assert_true(letter == 'a' || letter == 'b');
        n_a += letter == 'a';
    }
    assert_in_range(n_a, 2880, 3120);
    for (uint64_t i = 0; i < 100; i++) {
        assert_string_equal(choose(captioner, &no_a, i), "b");
        assert_string_equal(choose(captioner, &rest, i), "z"); /* weight 0: last, in their order */
    }
    dip_captioner_close(captioner);
}

static void refused_options(void **state)
{
    (void)state;
    char *keys[] = {"a"};
    dip_captioner *captioner;
    double weight = -1;
    dip_caption_options options = {.json_keys = {keys, 1}, .json_weights = &weight};
    assert_int_equal(dip_captioner_open(&captioner, &options), DIP_CONFIG);
    weight = INFINITY;
    assert_int_equal(dip_captioner_open(&captioner, &options), DIP_CONFIG);
    assert_non_null(strstr(dip_error(), "'a'"));
    options = (dip_caption_options){.word_dropout = 1.5};
    assert_int_equal(dip_captioner_open(&captioner, &options), DIP_CONFIG);
    assert_null(captioner);
    dip_captioner_close(NULL);
}

/* The limit is of the caption that was chosen, not of its member. */
static void long_captions_are_refused(void **state)
{
    (void)state;
    const dip_caption_options options = {.max_bytes = 5};
    dip_captioner *captioner = open_captioner(&options);
    const dip_sample fits = sample_of("12345\n123456", false), longer = sample_of("123456", false);
    const char *text;
    size_t n;
    dip_fault_kind fault;
    dip_rng rng;
    dip_rng_init(&rng, 0, dip_rng_stream(DIP_RNG_TEST, 0, 0));
    assert_string_equal(choose(captioner, &fits, 0), "12345");
    assert_int_equal(dip_captioner_choose(captioner, &text, &n, &fault, &longer, &rng), DIP_FORMAT);
    assert_int_equal(fault, DIP_FAULT_NO_CAPTION);
    assert_string_equal(dip_error(), "its caption has 6 bytes, at most 5 are allowed");
    dip_captioner_close(captioner);
}

static void json_of_all_captions(void **state)
{
    (void)state;
    char *text;
    size_t n;
    static const char json[] = "{\"c\": [\"one\\n1\", \"two\"]}";
    assert_int_equal(dip_caption_from_json(&text, &n, json, sizeof json - 1, "c"), DIP_OK);
    assert_string_equal(text, "one 1\ntwo\n");
    assert_int_equal(n, 10);
    assert_int_equal(dip_caption_lines(text, n, NULL, NULL), 2);
    free(text);
}

/* Word dropout. */

static void dropout_keeps_some_words(void **state)
{
    (void)state;
    const dip_caption_options options = {.word_dropout = 0.5};
    dip_captioner *captioner = open_captioner(&options);
    const dip_sample sample = sample_of("a  bb\tccc dddd", false), one = sample_of("alone", false);
    int n_kept[5] = {0}, n_words[5] = {0};
    for (uint64_t i = 0; i < 4000; i++) {
        char text[64];
        snprintf(text, sizeof text, "%s", choose(captioner, &sample, i));
        int n = 0;
        size_t last = 0;
        for (char *rest = text, *word; (word = strtok_r(rest, " ", &rest)) != NULL; n++) {
            assert_true(strlen(word) > last); /* whole words, in their order */
            last = strlen(word);
            n_kept[last]++;
        }
        assert_in_range(n, 1, 4);
        n_words[n]++;
        assert_string_equal(choose(captioner, &one, i), "alone");
    }
    /* Half of the time, and a quarter of the sixteenth where none was left. */
    for (int i = 1; i <= 4; i++) assert_in_range(n_kept[i], 1960, 2170);
    assert_in_range(n_words[4], 200, 300);   /* 1/16 */
    assert_in_range(n_words[1], 1150, 1350); /* 4/16 and the 1/16 */
    dip_captioner_close(captioner);
    const dip_caption_options all = {.word_dropout = 1};
    captioner = open_captioner(&all);
    bool seen[5] = {false};
    for (uint64_t i = 0; i < 200; i++) seen[strlen(choose(captioner, &sample, i))] = true;
    assert_true(seen[1] && seen[2] && seen[3] && seen[4]);
    dip_captioner_close(captioner);
}

static void dropout_follows_cleaning(void **state)
{
    (void)state;
    const dip_caption_options options = {.clean = DIP_CLEAN_LOWER, .word_dropout = 0.3};
    dip_captioner *captioner = open_captioner(&options);
    const dip_sample sample = sample_of("A&nbsp;CAT\xe2\x80\x83SAT", false);
    for (uint64_t i = 0; i < 50; i++) {
        const char *text = choose(captioner, &sample, i);
        assert_true(strspn(text, "acst ") == strlen(text) && strlen(text) <= 9);
    }
    dip_captioner_close(captioner);
}

/* Characters. */

static void characters(void **state)
{
    (void)state;
    static const uint32_t all[] = {0, 'a', 0x7f, 0x80, 0x7ff, 0x800, 0xffff, 0x10000, 0x10ffff};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char bytes[4];
        const char *at = bytes, *end = dip_utf8_put(bytes, all[i]);
        assert_int_equal(dip_utf8_take(&at), all[i]);
        assert_ptr_equal(at, end);
        assert_true(dip_utf8_valid(bytes, (size_t)(end - bytes)));
    }
    const char *capital = "\xc8\xba\xc4\xb0"
                          "A"; /* both grow from two bytes to three */
    char lower[16];
    size_t n = dip_utf8_lower(lower, capital, 5);
    assert_int_equal(n, 7);
    assert_memory_equal(lower,
                        "\xe2\xb1\xa5"
                        "i\xcc\x87"
                        "a",
                        7);
}

/* What a message shows of a name: nothing that a terminal or a log obeys. */
static void quoting(void **state)
{
    (void)state;
    static const struct {
        const char *name, *shown;
    } cases[] = {{"a\nb\x1b[2J\x7f\\", "a\\x0ab\\x1b[2J\\x7f\\x5c"},
                 {"\xc3\xa9\xc2\xa0\xe4\xb8\xad", "\xc3\xa9\xc2\xa0\xe4\xb8\xad"},
                 {"\xc2\x9b"
                  "2J\xc2\x85",
                  "\\xc2\\x9b2J\\xc2\\x85"}, /* CSI and NEL */
                 {"\xc3\xa9\xff", "\\xc3\\xa9\\xff"}};
    char shown[64];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(dip_text_quote(shown, sizeof shown, cases[i].name), cases[i].shown);
    assert_string_equal(dip_text_quote(shown, 4, "ab\xc3\xa9"), "ab"); /* cut between characters */
    assert_string_equal(dip_text_quote(shown, 9, "\xc2\x9b"), "\\xc2\\x9b");
    assert_string_equal(dip_text_quote(shown, 8, "\xc2\x9b"), "");
}

/* Any valid text comes through every mode as valid text that is not longer than half as much. */
static void random_text_stays_text(void **state)
{
    (void)state;
    static const char *const pieces[] = {"&",
                                         "amp;",
                                         "#",
                                         "x",
                                         "8",
                                         "1",
                                         ";",
                                         "lt",
                                         "&#x",
                                         "_",
                                         "\xc8\xba",
                                         "\xce\xa3",
                                         "'",
                                         " ",
                                         "\xc2\xa0",
                                         "\xef\xac\x81",
                                         "\xf0\x90\x90\x80",
                                         "A",
                                         "<",
                                         "&eacute",
                                         "\x01",
                                         "99"};
    for (uint64_t i = 0; i < 40000; i++) {
        dip_rng rng = rng_of(i);
        const dip_caption_options options = {.clean = (dip_caption_clean)dip_rng_below(&rng, 5),
                                             .word_dropout = dip_rng_below(&rng, 2) ? 0.4 : 0};
        dip_captioner *captioner = open_captioner(&options);
        char *in = malloc(256);
        size_t n_in = 0;
        for (uint64_t k = dip_rng_below(&rng, 30); k > 0; k--) {
            const char *piece = pieces[dip_rng_below(&rng, sizeof pieces / sizeof *pieces)];
            memcpy(in + n_in, piece, strlen(piece));
            n_in += strlen(piece);
        }
        in = realloc(in, n_in + 1);
        const dip_sample sample = {.caption = in, .caption_bytes = n_in};
        const char *text;
        size_t n;
        dip_fault_kind fault;
        dip_status status = dip_captioner_choose(captioner, &text, &n, &fault, &sample, &rng);
        if (status == DIP_OK)
            assert_true(n > 0 && n <= n_in + n_in / 2 && dip_utf8_valid(text, n));
        else
            assert_true(status == DIP_FORMAT && fault == DIP_FAULT_CAPTION_EMPTY);
        dip_captioner_close(captioner);
        free(in);
    }
}

static void no_caption(void **state)
{
    (void)state;
    char *keys[] = {"c"};
    const dip_caption_options options = {.json_keys = {keys, 1}};
    dip_captioner *captioner = open_captioner(&options);
    const dip_sample none = {0}, no_key = sample_of("{}", true), broken = sample_of("{\"c\"", true);
    const dip_sample bytes = sample_of("{\"c\": \"\xff\"}", true);
    const dip_sample blank = sample_of("{\"c\": \"\\t \"}", true);
    check_refused(captioner, &none, DIP_FAULT_NO_CAPTION, "no caption member");
    check_refused(captioner, &no_key, DIP_FAULT_NO_CAPTION, "its .json has no key 'c'");
    check_refused(captioner, &broken, DIP_FAULT_NO_CAPTION, "its .json, line 1, column 5");
    check_refused(captioner, &bytes, DIP_FAULT_CAPTION_UTF8, "its .json is not UTF-8");
    check_refused(captioner, &blank, DIP_FAULT_CAPTION_EMPTY, "'c' in its .json is empty");
    dip_captioner_close(captioner);
    captioner = open_captioner(&(dip_caption_options){.clean = DIP_CLEAN_CANONICALIZE});
    const dip_sample dots = sample_of("...!?", false);
    check_refused(captioner, &dots, DIP_FAULT_CAPTION_EMPTY,
                  "nothing is left of it after cleaning");
    dip_captioner_close(captioner);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cleaning_equals_open_clip),
        cmocka_unit_test(cleaning_names),
        cmocka_unit_test(none_leaves_the_line_alone),
        cmocka_unit_test(lines),
        cmocka_unit_test(json_keys_in_order),
        cmocka_unit_test(json_keys_by_weight),
        cmocka_unit_test(refused_options),
        cmocka_unit_test(json_of_all_captions),
        cmocka_unit_test(dropout_keeps_some_words),
        cmocka_unit_test(dropout_follows_cleaning),
        cmocka_unit_test(long_captions_are_refused),
        cmocka_unit_test(characters),
        cmocka_unit_test(quoting),
        cmocka_unit_test(random_text_stays_text),
        cmocka_unit_test(no_caption),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
