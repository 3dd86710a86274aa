/* Captions that go wrong in the wild, each on its way through a shard and the filler: dropped with
 * a reason, or used as they are. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>

#include "core/scratch.h"
#include "data/fill_shard.h"
#include "sanitizers.h"
#include "text/tokenizer.h"

/* Sanitizers keep what is freed: the peak of memory says nothing under them. */
enum { SIZE = 8, CONTEXT = 77 };

static fill_shard shard;
static char *json_keys[] = {"caption"};
static dip_tokenizer *tokenizer;

/* What the filler gave to the tokenizer last. */
static char *seen;
static size_t n_seen;

static int keep(void *context, int32_t *ids, int max_ids, const char *text, size_t n)
{
    (void)context;
    seen = realloc(seen, n + 1);
    memcpy(seen, text, n);
    seen[n] = '\0';
    n_seen = n;
    return dip_tokenizer_encode_caption(tokenizer, ids, max_ids, text, n);
}

/* Fill the one sample of a new shard whose caption is this member. */
static dip_filled fill(const char *extension, const char *text, size_t n, dip_caption_clean clean,
                       dip_status expected)
{
    uint8_t *png, pixels[SIZE * SIZE * 3] = {0}, image[SIZE * SIZE * 3];
    size_t n_png;
    int32_t ids[CONTEXT];
    dip_filled filled;
    must(dip_png_encode(&png, &n_png, pixels, SIZE, SIZE, 3));
    shard_start(&shard, scratch_init("caption_catalogue"));
    shard_add(&shard, "png", png, n_png, extension, text, n);
    const bool is_json = strcmp(extension, "json") == 0;
    shard_open(&shard, DIP_NEEDS_IMAGE | DIP_NEEDS_CAPTION | (is_json ? DIP_CAPTION_JSON : 0),
               SIZE);
    free(png);
    shard.options.encode = keep;
    shard.options.context_length = CONTEXT;
    shard.options.caption = (dip_caption_options){.json_keys = {json_keys, 1}, .clean = clean};
    must(dip_filler_open(&shard.filler, &shard.options));
    n_seen = 0;
    dip_status status = dip_filler_sample(shard.filler, image, ids, &filled, 0, 0, 0);
    if (status != expected)
        fail_msg("%.40s: %s (%s)", text, dip_status_text(status), status ? dip_error() : "used");
    shard_close(&shard);
    return filled;
}

static void used(const char *text, const char *as)
{
    dip_filled filled = fill("txt", text, strlen(text), DIP_CLEAN_NONE, DIP_OK);
    assert_string_equal(seen, as);
    assert_in_range(filled.n_tokens, 2, CONTEXT);
}

static void dropped(const char *extension, const char *text, size_t n, dip_caption_clean clean,
                    dip_fault_kind kind, const char *why)
{
    dip_filled filled = fill(extension, text, n, clean, DIP_FORMAT);
    if (filled.fault != kind || !strstr(dip_error(), why))
        fail_msg("%.40s: %s: %s", text, dip_fault_text(filled.fault), dip_error());
    assert_int_equal(n_seen, 0);
}

static void caption_51_blank(void **state)
{
    (void)state;
    static const char *const blank[] = {
        "", " ", "\n\n", " \t\r\n \r\n", "\xef\xbb\xbf", "\xef\xbb\xbf \n"};
    for (int i = 0; i < 6; i++)
        dropped("txt", blank[i], strlen(blank[i]), DIP_CLEAN_NONE, DIP_FAULT_CAPTION_EMPTY,
                "nothing but blanks");
    static const char *const unicode[] = {"\xc2\xa0", "&nbsp;", "\xe2\x80\x83\xe3\x80\x80", "\x01"};
    for (int i = 0; i < 4; i++)
        dropped("txt", unicode[i], strlen(unicode[i]), DIP_CLEAN_WHITESPACE,
                DIP_FAULT_CAPTION_EMPTY, "nothing is left of it after cleaning");
}

static void caption_52_invalid_utf8(void **state)
{
    (void)state;
    static const char *const wrong[] = {"caf\xe9", "good\n\xe2\x82", "\xc0\xaf", "\xed\xa0\x80",
                                        "\xf4\x90\x80\x80"};
    for (int i = 0; i < 5; i++)
        dropped("txt", wrong[i], strlen(wrong[i]), DIP_CLEAN_LOWER, DIP_FAULT_CAPTION_UTF8,
                "bytes that are not UTF-8");
    const char *json = "{\"caption\": \"caf\xe9\"}";
    dropped("json", json, strlen(json), DIP_CLEAN_NONE, DIP_FAULT_CAPTION_UTF8, "is not UTF-8");
}

static void caption_53_nul_never_cuts(void **state)
{
    (void)state;
    fill("txt", "a\0b red dress", 13, DIP_CLEAN_NONE, DIP_OK);
    assert_int_equal(n_seen, 13);
    assert_memory_equal(seen, "a\0b red dress", 13);
    fill("txt", "a\0b red dress", 13, DIP_CLEAN_WHITESPACE, DIP_OK); /* a control: left out */
    assert_string_equal(seen, "ab red dress");
    const char *json = "{\"caption\": \"a\\u0000b\"}";
    dropped("json", json, strlen(json), DIP_CLEAN_NONE, DIP_FAULT_NO_CAPTION, "NUL character");
}

static void caption_54_bom_and_crlf(void **state)
{
    (void)state;
    used("\xef\xbb\xbf"
         "a red dress\r\n",
         "a red dress");
    used("\r\n a red dress \r\nanother\r\n", "a red dress");
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* `piece` over and over, n_bytes of it. */
static char *repeated(const char *piece, size_t n_bytes)
{
    char *text = malloc(n_bytes + 1);
    const size_t n = strlen(piece);
    for (size_t i = 0; i < n_bytes; i++) text[i] = piece[i % n];
    text[n_bytes] = '\0';
    return text;
}

static void caption_55_long_line_is_cut_in_bounded_time(void **state)
{
    (void)state;
    static const char *const pieces[] = {"a red dress ", "dressdress", "\xe2\x98\x83", "\xc3\xa9 "};
    for (int i = 0; i < 4; i++) {
        char *text = repeated(pieces[i], 102400 / strlen(pieces[i]) * strlen(pieces[i]));
        double start = seconds();
        dip_filled filled = fill("txt", text, strlen(text), DIP_CLEAN_NONE, DIP_OK);
        assert_true(seconds() - start < 2);
        assert_in_range(n_seen, 102390, 102400);
        assert_in_range(filled.n_tokens, 2, CONTEXT);
        free(text);
    }
}

/* A longer one than 1 MB is not even read ... */
static void caption_56_ten_megabytes(void **state)
{
    (void)state;
    static const uint8_t pixels[3] = {0};
    uint8_t *png;
    size_t n_png;
    char *text = repeated("a red dress ", 10 << 20);
    must(dip_png_encode(&png, &n_png, pixels, 1, 1, 3));
    shard_start(&shard, scratch_init("caption_catalogue"));
    shard_add(&shard, "png", png, n_png, "txt", text, 10 << 20);
    shard_add(&shard, "png", png, n_png, "txt", "a red dress", 11);
    shard_open(&shard, DIP_NEEDS_IMAGE | DIP_NEEDS_CAPTION, SIZE);
    assert_int_equal(dip_samples_count(shard.samples), 1);
    assert_int_equal(dip_faults_count(shard.faults, DIP_FAULT_NO_CAPTION), 1);
    shard_close(&shard);
    free(png);
    free(text);
    text = repeated("a", 2 << 20);
    memcpy(text, "{\"caption\":\"", 12);
    memcpy(text + (2 << 20) - 2, "\"}", 2);
    dropped("json", text, 2 << 20, DIP_CLEAN_NONE, DIP_FAULT_NO_CAPTION,
            "has more than 1048576 bytes");
    free(text);
}

/* ... and the longest that is read costs little, whatever it holds. */
static void caption_56_one_megabyte_is_bounded(void **state)
{
    (void)state;
    char *text;
    static const char *const pieces[] = {"a red dress ",
                                         "&",
                                         "&amp;",
                                         "&#1",
                                         "&#38;",
                                         "&aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                                         "\n",
                                         "\xce\xa3",
                                         "\xce\xa3''",
                                         "'",
                                         " \xc2\xa0",
                                         "\xc8\xba",
                                         "_",
                                         "<",
                                         "\x01 ",
                                         "{",
                                         "a\n"};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        const size_t n = DIP_CAPTION_MAX_BYTES / strlen(pieces[i]) * strlen(pieces[i]);
        text = repeated(pieces[i], n);
        dip_caption_options options = {
            .clean = DIP_CLEAN_CANONICALIZE, .word_dropout = 0.5, .random_line = true};
        dip_captioner *captioner;
        must(dip_captioner_open(&captioner, &options));
        const dip_sample sample = {.caption = text, .caption_bytes = n};
        const char *out;
        size_t n_out;
        dip_fault_kind fault;
        dip_rng rng;
        dip_rng_init(&rng, 1, 1);
        double start = seconds();
        dip_captioner_choose(captioner, &out, &n_out, &fault, &sample, &rng);
        if (seconds() - start > 2) fail_msg("%s: %g s", pieces[i], seconds() - start);
        dip_captioner_close(captioner);
        free(text);
    }
    text = repeated("0,", 1 << 20); /* half a million values */
    memcpy(text, "{\"caption\":[", 12);
    memcpy(text + (1 << 20) - 4, "0]} ", 4);
    dropped("json", text, 1 << 20, DIP_CLEAN_NONE, DIP_FAULT_NO_CAPTION, "is not a string");
    free(text);
#if !UNDER_SANITIZER
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    assert_true(usage.ru_maxrss < 256 * 1024);
#endif
}

static void caption_57_rtl_bidi_and_joiners(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "\xd9\x85\xd8\xb1\xd8\xad\xd8\xa8\xd8\xa7 \xd7\xa9\xd7\x9c\xd7\x95\xd7\x9d",
        "\xe2\x80\xab the dress\xe2\x80\xac \xe2\x80\x8f!",
        "\xf0\x9f\x91\xa8\xe2\x80\x8d\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa7"};
    for (int i = 0; i < 3; i++) {
        used(texts[i], texts[i]);
        fill("txt", texts[i], strlen(texts[i]), DIP_CLEAN_LOWER, DIP_OK);
        assert_string_equal(seen, texts[i]);
    }
}

static void caption_58_lone_surrogate_in_json(void **state)
{
    (void)state;
    static const char *const wrong[] = {"{\"caption\": \"a\\ud800\"}",
                                        "{\"caption\": \"\\udc00b\"}",
                                        "{\"caption\": \"\\ud83d\\u0041\"}"};
    for (int i = 0; i < 3; i++)
        dropped("json", wrong[i], strlen(wrong[i]), DIP_CLEAN_NONE, DIP_FAULT_NO_CAPTION,
                "half of a surrogate pair");
    const char *pair = "{\"caption\": \"\\ud83d\\ude00\"}";
    fill("json", pair, strlen(pair), DIP_CLEAN_NONE, DIP_OK);
    assert_string_equal(seen, "\xf0\x9f\x98\x80");
}

static void caption_59_json_that_is_no_string(void **state)
{
    (void)state;
    static const struct {
        const char *json, *why;
    } cases[] = {{"{\"caption\": null}", "is not a string"},
                 {"{\"caption\": 7}", "is not a string"},
                 {"{\"caption\": true}", "is not a string"},
                 {"{\"caption\": {\"en\": \"a\"}}", "is not a string"},
                 {"{\"caption\": [1, 2]}", "is not a string"},
                 {"{\"caption\": [\"a\", null]}", "is not a string"},
                 {"{\"title\": \"a\"}", "has no key 'caption'"},
                 {"[\"caption\"]", "has no key 'caption'"},
                 {"\"caption\"", "has no key 'caption'"},
                 {"", "line 1, column 1"},
                 {"{\"caption\": \"a\"", "is never closed"},
                 {"{\"caption\": \"a\", \"caption\": \"b\"}", "is there twice"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        dropped("json", cases[i].json, strlen(cases[i].json), DIP_CLEAN_NONE, DIP_FAULT_NO_CAPTION,
                cases[i].why);
    dropped("json", "{\"caption\": []}", 15, DIP_CLEAN_NONE, DIP_FAULT_CAPTION_EMPTY, "is empty");
}

static void caption_60_special_tokens_are_plain_text(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "</s>", "<pad>", "<unk>", "a</s>dress<pad>", "<s>", "<|endoftext|>", "<start_of_text>"};
    static const char *const models[] = {"spm_t5.model", "spm_bpe.model"};
    for (int m = 0; m < 2; m++) {
        dip_tokenizer *model;
        char *path = dip_format(TEST_SOURCE_DIR "/tests/golden/%s", models[m]);
        must(dip_tokenizer_open(&model, path));
        for (int i = 0; i < 7; i++) {
            int32_t ids[CONTEXT];
            int n = dip_tokenizer_encode_caption(model, ids, CONTEXT, texts[i], strlen(texts[i]));
            assert_true(n > 2); /* letter by letter, not one id */
            assert_int_equal(ids[n - 1], dip_tokenizer_eos(model));
            for (int k = 0; k < n - 1; k++) {
                assert_int_not_equal(ids[k], dip_tokenizer_eos(model));
                assert_int_not_equal(ids[k], dip_tokenizer_pad(model));
                assert_int_not_equal(ids[k], dip_tokenizer_bos(model));
            }
        }
        dip_tokenizer_close(model);
        free(path);
    }
}

static void caption_61_unknown_tokens_are_counted(void **state)
{
    (void)state;
    int32_t ids[CONTEXT];
    int n_unknown = -1;
    int n =
        dip_tokenizer_encode(tokenizer, ids, CONTEXT, "\xe2\x98\x83 \xe2\x98\x82", 7, &n_unknown);
    assert_true(n_unknown >= 1);
    int n_found = 0;
    for (int i = 0; i < n; i++) n_found += ids[i] == dip_tokenizer_unk(tokenizer);
    assert_int_equal(n_unknown, n_found);
    assert_int_equal(ids[n - 1], dip_tokenizer_eos(tokenizer));
    dip_tokenizer_encode(tokenizer, ids, CONTEXT, "a red dress", 11, &n_unknown);
    assert_int_equal(n_unknown, 0);
    used("\xe2\x98\x83", "\xe2\x98\x83"); /* used all the same */
}

static int setup(void **state)
{
    (void)state;
    return dip_tokenizer_open(&tokenizer, TEST_SOURCE_DIR "/tests/golden/spm_t5.model") != DIP_OK;
}

static int teardown(void **state)
{
    (void)state;
    dip_tokenizer_close(tokenizer);
    free(seen);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(caption_51_blank),
        cmocka_unit_test(caption_52_invalid_utf8),
        cmocka_unit_test(caption_53_nul_never_cuts),
        cmocka_unit_test(caption_54_bom_and_crlf),
        cmocka_unit_test(caption_55_long_line_is_cut_in_bounded_time),
        cmocka_unit_test(caption_56_ten_megabytes),
        cmocka_unit_test(caption_56_one_megabyte_is_bounded),
        cmocka_unit_test(caption_57_rtl_bidi_and_joiners),
        cmocka_unit_test(caption_58_lone_surrogate_in_json),
        cmocka_unit_test(caption_59_json_that_is_no_string),
        cmocka_unit_test(caption_60_special_tokens_are_plain_text),
        cmocka_unit_test(caption_61_unknown_tokens_are_counted),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
