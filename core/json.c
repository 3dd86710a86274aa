/* JSON in. cJSON is lenient where files from strangers call for strictness: it takes the first of
 * two equal keys, 1e999, control bytes, broken UTF-8 and a thousand levels. So a text is first
 * walked by the scanner below, which follows RFC 8259 to the letter, and only then given to cJSON.
 */
#include "core/json.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/number.h"

enum {
    MAX_DEPTH = 64,
    MAX_VALUES = 4000000,  /* a cJSON node costs 64 bytes and more: 300 MB at most */
    MAX_NUMBER_CHARS = 63, /* cJSON looks at no more */
    MAX_FILE_BYTES = 64 << 20
};

/* A key of an object that is still open: its bytes, decoded, and where it stood. */
typedef struct key {
    size_t start, text_offset; /* NUL-terminated at scanner.decoded + start */
} key;

typedef struct scanner {
    const unsigned char *text;
    size_t n, at;
    const char *name;
    size_t n_values;
    key *keys; /* a stack: every open object owns the top part */
    size_t n_keys, keys_capacity;
    char *decoded;
    size_t n_decoded, decoded_capacity;
} scanner;

static dip_status refuse(const scanner *s, size_t where, const char *what)
{
    size_t line = 1, column = 1;
    for (size_t i = 0; i < where && i < s->n; i++) {
        column++;
        if (s->text[i] == '\n') {
            line++;
            column = 1;
        }
    }
    return dip_fail(DIP_FORMAT, "%s, line %zu, column %zu: %s", s->name, line, column, what);
}

static dip_status no_memory(const scanner *s)
{
    return dip_fail(DIP_NOMEM, "no memory for the JSON of %s", s->name);
}

/* The byte here, or 0 at the end: NUL is not legal anywhere in JSON. */
static unsigned char peek(const scanner *s)
{
    return s->at < s->n ? s->text[s->at] : 0;
}

static void skip_space(scanner *s)
{
    while (peek(s) == ' ' || peek(s) == '\t' || peek(s) == '\n' || peek(s) == '\r') s->at++;
}

static dip_status append_decoded(scanner *s, unsigned char byte)
{
    if (s->n_decoded == s->decoded_capacity) {
        size_t capacity = s->decoded_capacity ? 2 * s->decoded_capacity : 256;
        char *grown = realloc(s->decoded, capacity);
        if (!grown) return no_memory(s);
        s->decoded = grown;
        s->decoded_capacity = capacity;
    }
    s->decoded[s->n_decoded++] = (char)byte;
    return DIP_OK;
}

static dip_status append_code_point(scanner *s, uint32_t c)
{
    if (c < 0x80) return append_decoded(s, (unsigned char)c);
    int n_more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const unsigned char lead[] = {0, 0xc0, 0xe0, 0xf0};
    DIP_TRY(append_decoded(s, (unsigned char)(lead[n_more] | c >> (6 * n_more))));
    while (n_more-- > 0)
        DIP_TRY(append_decoded(s, (unsigned char)(0x80 | (c >> (6 * n_more) & 0x3f))));
    return DIP_OK;
}

/* The ranges are those of the Unicode standard, table 3-7. */
size_t dip_utf8_length(const void *text, size_t n)
{
    const unsigned char *p = text;
    unsigned char low = 0x80, high = 0xbf;
    size_t length;
    if (p[0] < 0x80) return 1;
    if (p[0] >= 0xc2 && p[0] <= 0xdf)
        length = 2;
    else if (p[0] >= 0xe0 && p[0] <= 0xef)
        length = 3;
    else if (p[0] >= 0xf0 && p[0] <= 0xf4)
        length = 4;
    else
        return 0;
    if (p[0] == 0xe0) low = 0xa0;
    if (p[0] == 0xed) high = 0x9f;
    if (p[0] == 0xf0) low = 0x90;
    if (p[0] == 0xf4) high = 0x8f;
    if (length > n || p[1] < low || p[1] > high) return 0;
    for (size_t i = 2; i < length; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    return length;
}

static bool hex4(const scanner *s, size_t at, uint32_t *out)
{
    uint32_t value = 0;
    if (s->n < 4 || at > s->n - 4) return false;
    for (size_t i = at; i < at + 4; i++) {
        unsigned char c = s->text[i];
        if (!isxdigit(c)) return false;
        value = value << 4 | (uint32_t)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    *out = value;
    return true;
}

/* After a backslash. */
static dip_status scan_escape(scanner *s, bool keep)
{
    size_t start = s->at - 1;
    unsigned char c = peek(s);
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    const char *letter = c ? strchr(letters, c) : NULL;
    if (letter) {
        s->at++;
        return keep ? append_decoded(s, (unsigned char)meanings[letter - letters]) : DIP_OK;
    }
    uint32_t unit, second;
    if (c != 'u' || !hex4(s, s->at + 1, &unit)) return refuse(s, start, "unknown escape");
    s->at += 5;
    if (unit == 0) return refuse(s, start, "a string may not hold the NUL character");
    if (unit >= 0xdc00 && unit <= 0xdfff) return refuse(s, start, "half of a surrogate pair");
    if (unit >= 0xd800 && unit <= 0xdbff) {
        if (s->n - s->at < 6 || s->text[s->at] != '\\' || s->text[s->at + 1] != 'u' ||
            !hex4(s, s->at + 2, &second) || second < 0xdc00 || second > 0xdfff)
            return refuse(s, start, "half of a surrogate pair");
        s->at += 6;
        unit = 0x10000 + ((unit - 0xd800) << 10) + (second - 0xdc00);
    }
    return keep ? append_code_point(s, unit) : DIP_OK;
}

/* At the opening quote. The decoded bytes and a NUL are appended to s->decoded if `keep`. */
static dip_status scan_string(scanner *s, bool keep)
{
    size_t start = s->at++;
    for (;;) {
        if (s->at >= s->n) return refuse(s, start, "this string has no closing quote");
        unsigned char c = s->text[s->at];
        if (c == '"') break;
        if (c == '\\') {
            s->at++;
            DIP_TRY(scan_escape(s, keep));
            continue;
        }
        if (c < 0x20) return refuse(s, s->at, "control byte in a string (write it as an escape)");
        size_t length = dip_utf8_length(s->text + s->at, s->n - s->at);
        if (length == 0) return refuse(s, s->at, "invalid UTF-8");
        for (; length > 0; length--, s->at++)
            if (keep) DIP_TRY(append_decoded(s, s->text[s->at]));
    }
    s->at++;
    return keep ? append_decoded(s, '\0') : DIP_OK;
}

static dip_status scan_number(scanner *s)
{
    size_t start = s->at;
    if (peek(s) == '-') s->at++;
    if (!isdigit(peek(s))) return refuse(s, start, "this does not begin a JSON value");
    if (peek(s) == '0')
        s->at++;
    else
        while (isdigit(peek(s))) s->at++;
    if (isdigit(peek(s))) return refuse(s, start, "a number may not start with 0");
    if (peek(s) == '.') {
        s->at++;
        if (!isdigit(peek(s))) return refuse(s, start, "a digit must follow the decimal point");
        while (isdigit(peek(s))) s->at++;
    }
    if (peek(s) == 'e' || peek(s) == 'E') {
        s->at++;
        if (peek(s) == '+' || peek(s) == '-') s->at++;
        if (!isdigit(peek(s))) return refuse(s, start, "a digit must follow the exponent sign");
        while (isdigit(peek(s))) s->at++;
    }
    char copy[MAX_NUMBER_CHARS + 1];
    size_t length = s->at - start;
    if (length > MAX_NUMBER_CHARS) return refuse(s, start, "a number of more than 63 characters");
    memcpy(copy, s->text + start, length);
    copy[length] = '\0';
    double value;
    if (dip_number_read_double(&value, copy) != DIP_NUMBER_OK)
        return refuse(s, start, "this number is too large to be finite");
    return DIP_OK;
}

static int compare_keys(const void *a, const void *b, void *decoded)
{
    const key *x = a, *y = b;
    int order = strcmp((const char *)decoded + x->start, (const char *)decoded + y->start);
    if (order != 0) return order;
    return x->text_offset < y->text_offset ? -1 : x->text_offset > y->text_offset;
}

/* Close an object: no two of its keys may be equal. */
static dip_status close_object(scanner *s, size_t first_key)
{
    size_t n = s->n_keys - first_key;
    if (n == 0) return DIP_OK; /* s->keys may still be NULL */
    key *keys = s->keys + first_key;
    if (n > 1) qsort_r(keys, n, sizeof *keys, compare_keys, s->decoded);
    for (size_t i = 1; i < n; i++) {
        const char *word = s->decoded + keys[i].start;
        if (strcmp(s->decoded + keys[i - 1].start, word) != 0) continue;
        char what[160];
        snprintf(what, sizeof what, "the key \"%.100s\" is there twice", word);
        return refuse(s, keys[i].text_offset, what);
    }
    return DIP_OK;
}

static dip_status push_key(scanner *s)
{
    if (s->n_keys == s->keys_capacity) {
        size_t capacity = s->keys_capacity ? 2 * s->keys_capacity : 32;
        key *grown = realloc(s->keys, capacity * sizeof *grown);
        if (!grown) return no_memory(s);
        s->keys = grown;
        s->keys_capacity = capacity;
    }
    s->keys[s->n_keys++] = (key){s->n_decoded, s->at};
    return scan_string(s, true);
}

static dip_status scan_value(scanner *s, int depth);

/* At '{' or '['. */
static dip_status scan_container(scanner *s, int depth)
{
    if (depth >= MAX_DEPTH) return refuse(s, s->at, "nested deeper than 64 levels");
    bool is_object = peek(s) == '{';
    unsigned char closing = is_object ? '}' : ']';
    size_t start = s->at++, first_key = s->n_keys, first_decoded = s->n_decoded;
    skip_space(s);
    while (peek(s) != closing) {
        if (is_object) {
            if (peek(s) != '"') return refuse(s, s->at, "a key in double quotes is missing here");
            DIP_TRY(push_key(s));
            skip_space(s);
            if (peek(s) != ':') return refuse(s, s->at, "':' is missing after the key");
            s->at++;
        }
        DIP_TRY(scan_value(s, depth + 1));
        skip_space(s);
        if (peek(s) == closing) break;
        if (s->at >= s->n)
            return refuse(s, start,
                          is_object ? "this '{' is never closed" : "this '[' is never closed");
        if (peek(s) != ',') return refuse(s, s->at, "',' is missing here");
        size_t comma = s->at++;
        skip_space(s);
        if (peek(s) == closing) return refuse(s, comma, "a comma with nothing after it");
    }
    s->at++;
    if (is_object) DIP_TRY(close_object(s, first_key));
    s->n_keys = first_key;
    s->n_decoded = first_decoded;
    return DIP_OK;
}

static dip_status scan_value(scanner *s, int depth)
{
    skip_space(s);
    if (++s->n_values > MAX_VALUES) return refuse(s, s->at, "more than 4000000 values");
    if (s->at >= s->n) return refuse(s, s->at, "the text ends where a value should be");
    unsigned char c = peek(s);
    if (c == '{' || c == '[') return scan_container(s, depth);
    if (c == '"') return scan_string(s, false);
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < 3; i++) {
        size_t length = strlen(words[i]);
        if (s->n - s->at >= length && memcmp(s->text + s->at, words[i], length) == 0) {
            s->at += length;
            return DIP_OK;
        }
    }
    return scan_number(s);
}

static dip_status scan_document(const char *text, size_t n_bytes, const char *name)
{
    scanner s = {.text = (const unsigned char *)text, .n = n_bytes, .name = name};
    dip_status status = scan_value(&s, 0);
    if (status == DIP_OK) {
        skip_space(&s);
        if (s.at < s.n) status = refuse(&s, s.at, "more text after the end of the value");
    }
    free(s.keys);
    free(s.decoded);
    return status;
}

dip_status dip_json_parse(cJSON **out, const char *text, size_t n_bytes, const char *name)
{
    *out = NULL;
    DIP_TRY(scan_document(text, n_bytes, name));
    /* The text is valid now, so the one thing cJSON can still lack is memory. */
    *out = cJSON_ParseWithLength(text, n_bytes);
    if (!*out) return dip_fail(DIP_NOMEM, "no memory for the JSON of %s", name);
    return DIP_OK;
}

dip_status dip_json_read(cJSON **out, const char *path)
{
    *out = NULL;
    char *text;
    size_t n_bytes;
    DIP_TRY(dip_file_read(&text, &n_bytes, path, MAX_FILE_BYTES));
    dip_status status = dip_json_parse(out, text, n_bytes, path);
    free(text);
    return status;
}
