#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "core/scratch.h"

static void refuse(const char *text, size_t n, const char *where, const char *why)
{
    cJSON *value;
    assert_int_equal(dip_json_parse(&value, text, n, "x.json"), DIP_FORMAT);
    assert_null(value);
    if (!strstr(dip_error(), where) || !strstr(dip_error(), why))
        fail_msg("\"%s\" does not say \"%s\" and \"%s\"", dip_error(), where, why);
}

static void good_texts(void **state)
{
    (void)state;
    const char *const rows[] = {
        "{}",
        "[]",
        "0",
        "-0",
        "-0.5e+3",
        " \t\r\n\"\" ",
        "true",
        "false",
        "null",
        "{\"a\": [1, 2.5, {\"b\": null}], \"A\": \"\\u00e9\\n\\ud83d\\ude00\"}",
        "\"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80\"",
        "{\"a\": {\"a\": 1}, \"b\": {\"a\": 1}}",
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        cJSON *value;
        assert_int_equal(dip_json_parse(&value, rows[i], strlen(rows[i]), "x.json"), DIP_OK);
        assert_non_null(value);
        cJSON_Delete(value);
    }
    cJSON *value;
    assert_int_equal(dip_json_parse(&value, rows[9], strlen(rows[9]), "x.json"), DIP_OK);
    assert_string_equal(cJSON_GetObjectItemCaseSensitive(value, "A")->valuestring,
                        "\xc3\xa9\n\xf0\x9f\x98\x80");
    cJSON_Delete(value);
    /* The text need not end in NUL, and nothing behind it is read. */
    char *exact = malloc(3);
    memcpy(exact, "123", 3);
    assert_int_equal(dip_json_parse(&value, exact, 3, "x.json"), DIP_OK);
    assert_true(value->valuedouble == 123);
    cJSON_Delete(value);
    free(exact);
}

static void bad_texts(void **state)
{
    (void)state;
    const struct {
        const char *text, *where, *why;
    } rows[] = {
        {"", "line 1, column 1", "ends where a value"},
        {"{\"a\": 1,\n \"b\": 2,\n \"a\": 3}", "line 3, column 2", "\"a\" is there twice"},
        {"{\"ab\": 1, \"\\u0061b\": 2}", "column 11", "\"ab\" is there twice"},
        {"{\"a\": {\"c\": 1, \"c\": 2}}", "column 16", "\"c\" is there twice"},
        {"{\"a\": 1,\n}", "line 1, column 8", "comma with nothing after"},
        {"[1, 2, ]", "column 6", "comma with nothing after"},
        {"[,]", "column 2", "does not begin a JSON value"},
        {"{\"a\": 1} x", "column 10", "more text after the end"},
        {"1 2", "column 3", "more text after the end"},
        {"{\"a\" 1}", "column 6", "':' is missing"},
        {"{a: 1}", "column 2", "key in double quotes"},
        {"{'a': 1}", "column 2", "key in double quotes"},
        {"[1 2]", "column 4", "',' is missing"},
        {"[1", "column 1", "'[' is never closed"},
        {"{\"a\": 1", "column 1", "'{' is never closed"},
        {"[1}", "column 3", "',' is missing"},
        {"[1e999]", "column 2", "too large to be finite"},
        {"[-1e999]", "column 2", "too large to be finite"},
        {"[NaN]", "column 2", "does not begin a JSON value"},
        {"[Infinity]", "column 2", "does not begin a JSON value"},
        {"[-Infinity]", "column 2", "does not begin a JSON value"},
        {"[01]", "column 2", "may not start with 0"},
        {"[1.]", "column 2", "decimal point"},
        {"[1e]", "column 2", "exponent"},
        {"[+1]", "column 2", "does not begin a JSON value"},
        {"[.5]", "column 2", "does not begin a JSON value"},
        {"[0x10]", "column 3", "',' is missing"},
        {"[1000000000000000000000000000000000000000000000000000000000000000]", "column 2",
         "more than 63 characters"},
        {"[tru]", "column 2", "does not begin a JSON value"},
        {"\"abc", "column 1", "no closing quote"},
        {"\"abc\\", "column 5", "unknown escape"},
        {"\"\\x41\"", "column 2", "unknown escape"},
        {"\"\\u12\"", "column 2", "unknown escape"},
        {"\"a\\u0000b\"", "column 3", "NUL"},
        {"\"\\ud800\"", "column 2", "half of a surrogate pair"},
        {"\"\\ud800\\u0041\"", "column 2", "half of a surrogate pair"},
        {"\"\\udc00\"", "column 2", "half of a surrogate pair"},
        {"\"a\nb\"", "line 1, column 3", "control byte"},
        {"\"a\tb\"", "column 3", "control byte"},
        {"\"a\xff\"", "column 3", "invalid UTF-8"},
        {"\"\xc0\x80\"", "column 2", "invalid UTF-8"},     /* overlong */
        {"\"\xed\xa0\x80\"", "column 2", "invalid UTF-8"}, /* a surrogate */
        {"\"\xf4\x90\x80\x80\"", "column 2", "invalid UTF-8"},
        {"\"\xe2\x82\"", "column 2", "invalid UTF-8"},
        {"// c\n1", "line 1, column 1", "does not begin a JSON value"},
        {"\xef\xbb\xbf{}", "line 1, column 1", "does not begin a JSON value"},
        {"<!DOCTYPE html>", "line 1, column 1", "does not begin a JSON value"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t n = strlen(rows[i].text);
        char *exact = malloc(n + 1); /* so that the address sanitizer sees a step beyond */
        char *tight = n ? realloc(exact, n) : exact;
        memcpy(tight, rows[i].text, n);
        refuse(tight, n, rows[i].where, rows[i].why);
        free(tight);
    }
    refuse("[1\0]", 4, "column 3", "',' is missing");
    refuse("\"a\0b\"", 5, "column 3", "control byte");
}

static void nesting(void **state)
{
    (void)state;
    char deep[129];
    cJSON *value;
    memset(deep, '[', 64);
    memset(deep + 64, ']', 64);
    assert_int_equal(dip_json_parse(&value, deep, 128, "x.json"), DIP_OK);
    cJSON_Delete(value);
    size_t n = 100000;
    char *deeper = malloc(n);
    memset(deeper, '[', n);
    refuse(deeper, n, "column 65", "deeper than 64");
    for (size_t i = 0; i + 5 <= n; i += 5) memcpy(deeper + i, "{\"a\":", 5);
    refuse(deeper, n, "column 321", "deeper than 64");
    free(deeper);
}

static void many_values_are_bounded(void **state)
{
    (void)state;
    size_t n = 9000001;
    char *text = malloc(n);
    text[0] = '[';
    for (size_t i = 1; i < n; i += 2) memcpy(text + i, "1,", 2 < n - i ? 2 : n - i);
    refuse(text, n, "line 1", "more than 4000000 values");
    free(text);
}

/* Many keys take n log n steps, not n squared. */
static void many_keys_are_quick(void **state)
{
    (void)state;
    enum { N = 200000 };
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);
    fputc('{', out);
    for (int i = 0; i < N; i++) fprintf(out, "\"key%d\":%d,", i, i);
    fputs("\"key77777\":0}", out);
    fclose(out);
    refuse(text, n, "line 1", "\"key77777\" is there twice");
    free(text);
}

/* Whatever is done to a text, the scanner says yes or no with a place; and what it lets through
 * cJSON can read too (DIP_NOMEM would mean that they disagree). */
static void damaged_texts_never_confuse(void **state)
{
    (void)state;
    static const char good[] =
        "{\"a_b\": [1, -2.5e-3, true, null], \"c\\u00e9\": \"x\\\\ \xc3\xa9\","
        " \"d\": {\"e\": \"\\ud83d\\ude00\", \"f\": false}}";
    static const char bytes[] = {'"', '\\', '{', '}', '[', ']', ',',  ':',        '0',
                                 'e', '.',  '-', 'u', ' ', 0,   '\n', (char)0x80, (char)0xff};
    size_t n = sizeof good - 1;
    int n_accepted = 0, n_refused = 0;
    for (size_t at = 0; at < n; at++)
        for (size_t b = 0; b <= sizeof bytes; b++) {
            size_t length = b == sizeof bytes ? at : n; /* last: cut here */
            char *text = malloc(length + 1);
            char *tight = length ? realloc(text, length) : text;
            memcpy(tight, good, length);
            if (b < sizeof bytes) tight[at] = bytes[b];
            cJSON *value;
            dip_status status = dip_json_parse(&value, tight, length, "x.json");
            assert_true(status == DIP_OK || status == DIP_FORMAT);
            if (status == DIP_OK)
                n_accepted++;
            else
                n_refused++;
            cJSON_Delete(value);
            free(tight);
        }
    assert_true(n_accepted > 100 && n_refused > 1000);
}

static void printing_is_exact(void **state)
{
    (void)state;
    const char *const rows[][2] = {
        {"[1, -0, 0.1, 1e300, 5e-324, 0.30000000000000004, 9007199254740993]",
         "[1,-0,0.1,1e+300,4.94066e-324,0.30000000000000004,9007199254740992]"},
        {"{\"a\": {}, \"b\": [], \"c\": [true, false, null]}",
         "{\"a\":{},\"b\":[],\"c\":[true,false,null]}"},
        {"\"\\u0001\\b\\f\\n\\r\\t\\\"\\\\/\\u00e9\\u007f\"",
         "\"\\u0001\\b\\f\\n\\r\\t\\\"\\\\/\xc3\xa9\x7f\""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        cJSON *value;
        char *text;
        assert_int_equal(dip_json_parse(&value, rows[i][0], strlen(rows[i][0]), "x"), DIP_OK);
        assert_int_equal(dip_json_print(&text, value, false), DIP_OK);
        assert_string_equal(text, rows[i][1]);
        cJSON_Delete(value);
        free(text);
    }
}

static void files(void **state)
{
    (void)state;
    char *path = dip_path_join(scratch_init("test_json"), "a.json");
    cJSON *value = cJSON_CreateObject(), *back;
    cJSON_AddNumberToObject(value, "lr", 0.1);
    cJSON_AddNumberToObject(value, "third", 1.0 / 3);
    cJSON_AddNumberToObject(value, "exact", 9007199254740991.0);
    assert_int_equal(dip_json_write(path, value), DIP_OK);
    char *text;
    size_t n;
    assert_int_equal(dip_file_read(&text, &n, path, 1000), DIP_OK);
    assert_string_equal(text, "{\n  \"lr\": 0.1,\n  \"third\": 0.3333333333333333,\n"
                              "  \"exact\": 9007199254740991\n}\n");
    free(text);
    assert_int_equal(dip_json_read(&back, path), DIP_OK);
    assert_true(cJSON_Compare(value, back, 1));
    assert_true(cJSON_GetObjectItem(back, "third")->valuedouble == 1.0 / 3);
    assert_true(cJSON_GetObjectItem(back, "exact")->valuedouble == 9007199254740991.0);
    cJSON_Delete(back);
    cJSON_AddNumberToObject(value, "loss", NAN);
    assert_int_equal(dip_json_write(path, value), DIP_NUMERIC);
    assert_non_null(strstr(dip_error(), "\"loss\""));
    assert_int_equal(dip_json_read(&back, path), DIP_OK); /* the old file is still there */
    cJSON_Delete(back);
    cJSON_Delete(value);
    assert_int_equal(dip_file_write(path, "{\n oops", 7), DIP_OK);
    assert_int_equal(dip_json_read(&back, path), DIP_FORMAT);
    assert_non_null(strstr(dip_error(), "a.json, line 2, column 2"));
    assert_int_equal(dip_json_read(&back, "/no/such/file.json"), DIP_IO);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_texts),
        cmocka_unit_test(bad_texts),
        cmocka_unit_test(nesting),
        cmocka_unit_test(many_values_are_bounded),
        cmocka_unit_test(many_keys_are_quick),
        cmocka_unit_test(damaged_texts_never_confuse),
        cmocka_unit_test(printing_is_exact),
        cmocka_unit_test(files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
