#include "data/utf8.h"

#include <stdio.h>
#include <string.h>

/* Bytes of the character at text (of n left), 0 if it is malformed. */
static size_t character_bytes(const unsigned char *text, size_t n)
{
    unsigned char first = text[0];
    if (first < 0x80) return 1;
    size_t length = first >= 0xc2 && first <= 0xdf   ? 2
                    : first >= 0xe0 && first <= 0xef ? 3
                    : first >= 0xf0 && first <= 0xf4 ? 4
                                                     : 0;
    if (length == 0 || length > n) return 0;
    for (size_t i = 1; i < length; i++)
        if ((text[i] & 0xc0) != 0x80) return 0;
    unsigned char second = text[1];
    if (first == 0xe0 && second < 0xa0) return 0; /* overlong */
    if (first == 0xed && second > 0x9f) return 0; /* surrogate */
    if (first == 0xf0 && second < 0x90) return 0; /* overlong */
    if (first == 0xf4 && second > 0x8f) return 0; /* above U+10FFFF */
    return length;
}

bool dip_utf8_valid(const char *text, size_t n_bytes)
{
    const unsigned char *at = (const unsigned char *)text;
    while (n_bytes > 0) {
        size_t length = character_bytes(at, n_bytes);
        if (length == 0) return false;
        at += length;
        n_bytes -= length;
    }
    return true;
}

const char *dip_text_quote(char *buf, size_t n, const char *text)
{
    if (n == 0) return buf;
    size_t used = 0, left = strlen(text);
    bool utf8 = dip_utf8_valid(text, left);
    while (left > 0) {
        size_t length = utf8 ? character_bytes((const unsigned char *)text, left) : 1;
        unsigned char c = (unsigned char)*text;
        bool escape = c < 0x20 || c == 0x7f || c == '\\' || (c >= 0x80 && !utf8);
        if (used + (escape ? 4 : length) >= n) break;
        if (escape)
            used += (size_t)snprintf(buf + used, n - used, "\\x%02x", c);
        else
            for (size_t i = 0; i < length; i++) buf[used++] = text[i];
        text += length;
        left -= length;
    }
    buf[used] = '\0';
    return buf;
}
