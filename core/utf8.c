#include "core/utf8.h"

#include <stdio.h>
#include <string.h>

#include "core/json.h" /* dip_utf8_length */

bool dip_utf8_valid(const char *text, size_t n_bytes)
{
    while (n_bytes > 0) {
        size_t length = dip_utf8_length(text, n_bytes);
        if (length == 0) return false;
        text += length;
        n_bytes -= length;
    }
    return true;
}

uint32_t dip_utf8_take(const char **at)
{
    const unsigned char *bytes = (const unsigned char *)*at;
    const int n_more = bytes[0] < 0x80 ? 0 : bytes[0] < 0xe0 ? 1 : bytes[0] < 0xf0 ? 2 : 3;
    static const uint8_t lead_bits[] = {0x7f, 0x1f, 0x0f, 0x07};
    uint32_t character = bytes[0] & lead_bits[n_more];
    for (int i = 1; i <= n_more; i++) character = character << 6 | (bytes[i] & 0x3f);
    *at += 1 + n_more;
    return character;
}

char *dip_utf8_put(char *out, uint32_t character)
{
    const int n_more = character < 0x80 ? 0 : character < 0x800 ? 1 : character < 0x10000 ? 2 : 3;
    static const uint8_t lead[] = {0, 0xc0, 0xe0, 0xf0};
    *out++ = (char)(lead[n_more] | character >> (6 * n_more));
    for (int i = n_more - 1; i >= 0; i--) *out++ = (char)(0x80 | (character >> (6 * i) & 0x3f));
    return out;
}

const char *dip_text_quote(char *buf, size_t n, const char *text)
{
    if (n == 0) return buf;
    size_t used = 0, left = strlen(text);
    bool utf8 = dip_utf8_valid(text, left);
    while (left > 0) {
        size_t length = utf8 ? dip_utf8_length(text, left) : 1;
        unsigned char c = (unsigned char)*text;
        bool c1 = utf8 && c == 0xc2 && (unsigned char)text[1] < 0xa0; /* U+0080..U+009F */
        bool escape = c < 0x20 || c == 0x7f || c == '\\' || (c >= 0x80 && !utf8) || c1;
        if (used + (escape ? 4 * length : length) >= n) break;
        for (size_t i = 0; i < length; i++) {
            if (escape)
                used += (size_t)snprintf(buf + used, n - used, "\\x%02x", (unsigned char)text[i]);
            else
                buf[used++] = text[i];
        }
        text += length;
        left -= length;
    }
    buf[used] = '\0';
    return buf;
}
