/* "&amp;", "&#39;" and the like, as Python's html.unescape reads them. */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "data/caption/caption_text.h"
#include "core/utf8.h"

enum { MAX_NAME_CHARACTERS = 32, REPLACEMENT = 0xfffd };

typedef struct entity {
    const char *name;
    uint32_t character;
    int bare; /* may stand without its semicolon */
} entity;

static const entity entities[] = {
#include "data/caption/html_entities.inc"
};
enum { N_ENTITIES = sizeof entities / sizeof *entities };

/* What pages that name 0x80..0x9f mean. The five that Windows-1252 lacks stay what they are. */
static uint32_t windows_1252(uint32_t c)
{
    static const uint16_t meant[32] = {
        0x20ac, 0x81,   0x201a, 0x192,  0x201e, 0x2026, 0x2020, 0x2021, 0x2c6,  0x2030, 0x160,
        0x2039, 0x152,  0x8d,   0x17d,  0x8f,   0x90,   0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
        0x2013, 0x2014, 0x2dc,  0x2122, 0x161,  0x203a, 0x153,  0x9d,   0x17e,  0x178};
    return meant[c - 0x80];
}

static const entity *find(const char *name, size_t n)
{
    size_t low = 0, high = N_ENTITIES;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = strncmp(entities[middle].name, name, n);
        if (order == 0 && entities[middle].name[n] != '\0') order = 1;
        if (order == 0) return &entities[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static int digit_of(char c, int base)
{
    int digit = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : 99;
    return digit < base ? digit : -1;
}

/* A code that no text may hold: it is left out. */
static bool is_invalid(uint32_t c)
{
    return (c >= 0x01 && c <= 0x08) || c == 0x0b || (c >= 0x0e && c <= 0x1f) || c == 0x7f ||
           (c >= 0xfdd0 && c <= 0xfdef) || (c & 0xfffe) == 0xfffe;
}

static char *put_code(char *out, uint32_t code)
{
    if (code == 0 || (code >= 0xd800 && code <= 0xdfff) || code > 0x10ffff)
        return dip_utf8_put(out, REPLACEMENT);
    if (code >= 0x80 && code <= 0x9f) return dip_utf8_put(out, windows_1252(code));
    return is_invalid(code) ? out : dip_utf8_put(out, code);
}

/* "#123;" or "#x1f;" at `at`, behind the '&'. Returns behind it, NULL if it is none. */
static const char *read_number(const char *at, const char *end, char **out)
{
    const int base = end - at > 1 && (at[1] == 'x' || at[1] == 'X') ? 16 : 10;
    const char *digits = at + (base == 16 ? 2 : 1);
    uint32_t code = 0;
    at = digits;
    for (int digit; at < end && (digit = digit_of(*at, base)) >= 0; at++)
        if (code <= 0x10ffff) code = code * (uint32_t)base + (uint32_t)digit;
    if (at == digits) return NULL;
    *out = put_code(*out, code);
    return at < end && *at == ';' ? at + 1 : at;
}

/* A name at `at`, the longest that is known: "amp;", or "notit" for "not" and "it". */
static const char *read_name(const char *at, const char *end, char **out)
{
    const char *stop = at;
    for (int i = 0; i < MAX_NAME_CHARACTERS && stop < end && !strchr("\t\n\f <&#;", *stop); i++)
        dip_utf8_take(&stop);
    if (stop == at) return NULL;
    const entity *known = find(at, (size_t)(stop - at));
    if (known && stop < end && *stop == ';') {
        *out = dip_utf8_put(*out, known->character);
        return stop + 1;
    }
    for (; stop > at + 1; stop--) {
        known = find(at, (size_t)(stop - at));
        if (!known || !known->bare) continue;
        *out = dip_utf8_put(*out, known->character);
        return stop;
    }
    return NULL;
}

size_t dip_caption_unescape(char *text, size_t n_bytes)
{
    char *out = memchr(text, '&', n_bytes);
    if (!out) return n_bytes;
    const char *at = out, *end = text + n_bytes;
    while (at < end) {
        const char *after = NULL;
        if (*at == '&' && at + 1 < end)
            after = at[1] == '#' ? read_number(at + 1, end, &out) : read_name(at + 1, end, &out);
        if (after)
            at = after;
        else
            *out++ = *at++;
    }
    return (size_t)(out - text);
}
