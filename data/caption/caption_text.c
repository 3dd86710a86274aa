#include "data/caption/caption_text.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "core/utf8.h"

/* Blanks and words. */

static bool is_blank(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

/* The next word at or after `at`: its start, and *word_end behind it. NULL: none. */
static const char *next_word(const char *at, const char *end, const char **word_end)
{
    const char *start = NULL;
    while (at < end) {
        const char *here = at;
        bool blank = is_blank(dip_utf8_take(&at));
        if (!blank && !start) start = here;
        if (blank && start) {
            *word_end = here;
            return start;
        }
    }
    *word_end = end;
    return start;
}

static char *append_word(char *out, const char *text, const char *word, const char *word_end)
{
    if (out > text) *out++ = ' ';
    memmove(out, word, (size_t)(word_end - word));
    return out + (word_end - word);
}

size_t dip_caption_join_blanks(char *text, size_t n_bytes)
{
    char *out = text;
    const char *at = text, *end = text + n_bytes, *word;
    while ((word = next_word(at, end, &at)) != NULL) out = append_word(out, text, word, at);
    return (size_t)(out - text);
}

size_t dip_caption_drop_words(char *text, size_t n_bytes, double probability, dip_rng *rng)
{
    const dip_rng before = *rng;
    const char *at = text, *end = text + n_bytes, *word;
    uint64_t n_words = 0, n_kept = 0;
    for (; next_word(at, end, &at); n_words++) n_kept += dip_rng_uniform(rng) >= probability;
    if (n_words == 0) return 0;
    const bool none_kept = n_kept == 0;
    const uint64_t stays = none_kept ? dip_rng_below(rng, n_words) : 0;
    dip_rng again = before; /* the same draws once more, instead of a list of them */
    char *out = text;
    at = text;
    for (uint64_t i = 0; (word = next_word(at, end, &at)) != NULL; i++) {
        bool keep = dip_rng_uniform(&again) >= probability;
        if (none_kept ? i == stays : keep) out = append_word(out, text, word, at);
    }
    return (size_t)(out - text);
}

/* Single characters. */

static const char *ligature(uint32_t c)
{
    static const char *const latin[] = {"ff", "fi", "fl", "ffi", "ffl", "\xc5\xbft", "st"};
    if (c >= 0xfb00 && c <= 0xfb06) return latin[c - 0xfb00];
    return c == 0x132 ? "IJ" : c == 0x133 ? "ij" : c == 0x149 ? "'n" : NULL;
}

static bool is_control(uint32_t c)
{
    return c < 0x09 || c == 0x0b || (c >= 0x0e && c <= 0x1f) || c == 0x7f ||
           (c >= 0x206a && c <= 0x206f) || c == 0xfeff || (c >= 0xfff9 && c <= 0xfffc);
}

static uint32_t plain(uint32_t c)
{
    if (c == 0x2bc || (c >= 0x2018 && c <= 0x201b)) return '\'';
    if (c >= 0x201c && c <= 0x201f) return '"';
    if (c >= 0xff01 && c <= 0xff5e) return c - 0xff01 + '!';
    return c == 0x3000 ? ' ' : c;
}

size_t dip_caption_plain(char *text, size_t n_bytes)
{
    char *out = text;
    const char *at = text, *end = text + n_bytes;
    while (at < end) {
        const uint32_t c = dip_utf8_take(&at);
        const char *letters = ligature(c);
        if (letters)
            while (*letters) *out++ = *letters++;
        else if (!is_control(c))
            out = dip_utf8_put(out, plain(c));
    }
    return (size_t)(out - text);
}

size_t dip_caption_punctuation(char *text, size_t n_bytes, int delete_others)
{
    size_t n = 0;
    for (size_t i = 0; i < n_bytes; i++) {
        const char c = text[i];
        const bool mark = (c >= '!' && c <= '/') || (c >= ':' && c <= '@') ||
                          (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
        if (c == '_')
            text[n++] = ' ';
        else if (!mark || !delete_others)
            text[n++] = c;
    }
    return n;
}
