/* Lower case of all scripts that have one. */
#include "core/utf8.h"

enum {
    SIGMA = 0x3a3,
    SMALL_SIGMA = 0x3c3,
    FINAL_SIGMA = 0x3c2,
    DOTTED_I = 0x130,
    DOT_ABOVE = 0x307
};

/* Every `step`-th character of first..last has its small letter `add` further on. */
typedef struct run {
    uint32_t first, last, step;
    int32_t add;
} run;

static const run runs[] = {
#include "core/utf8_lower.inc"
};
enum { N_RUNS = sizeof runs / sizeof *runs };

static uint32_t lower(uint32_t c)
{
    size_t low = 0, high = N_RUNS; /* the first run that ends at c or after it */
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (runs[middle].last < c)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == N_RUNS || c < runs[low].first || (c - runs[low].first) % runs[low].step) return c;
    return (uint32_t)((int32_t)c + runs[low].add);
}

/* A letter that has two cases: it is a capital, or the small letter of one. */
static bool is_cased(uint32_t c)
{
    if (lower(c) != c || c == DOTTED_I) return true;
    for (size_t i = 0; i < N_RUNS; i++) {
        uint32_t capital = (uint32_t)((int32_t)c - runs[i].add);
        if (capital >= runs[i].first && capital <= runs[i].last &&
            (capital - runs[i].first) % runs[i].step == 0)
            return true;
    }
    return false;
}

/* What may stand inside a word without ending it: accents, apostrophes, dots. */
static bool is_ignorable(uint32_t c)
{
    return c == '\'' || c == '.' || c == ':' || c == '^' || c == '`' || c == 0xa8 || c == 0xad ||
           c == 0xaf || c == 0xb4 || c == 0xb7 || c == 0xb8 || (c >= 0x2b0 && c <= 0x36f) ||
           (c >= 0x200b && c <= 0x200f) || c == 0x2018 || c == 0x2019 || c == 0x2024 || c == 0x2027;
}

static bool letter_follows(const char *at, const char *end)
{
    while (at < end) {
        uint32_t c = dip_utf8_take(&at);
        if (!is_ignorable(c)) return is_cased(c);
    }
    return false;
}

size_t dip_utf8_lower(char *out, const char *text, size_t n_bytes)
{
    char *const start = out;
    const char *const end = text + n_bytes;
    uint32_t before = 0; /* the last character that a word cannot ignore */
    while (text < end) {
        if ((unsigned char)*text < 0x80) { /* nearly all of them */
            const char c = *text++;
            *out++ = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
            if (!is_ignorable((uint32_t)c)) before = (uint32_t)c;
            continue;
        }
        const uint32_t c = dip_utf8_take(&text);
        if (c == DOTTED_I)
            out = dip_utf8_put(dip_utf8_put(out, 'i'), DOT_ABOVE);
        else if (c == SIGMA)
            out = dip_utf8_put(out, is_cased(before) && !letter_follows(text, end) ? FINAL_SIGMA
                                                                                   : SMALL_SIGMA);
        else
            out = dip_utf8_put(out, lower(c));
        if (!is_ignorable(c)) before = c;
    }
    return (size_t)(out - start);
}
