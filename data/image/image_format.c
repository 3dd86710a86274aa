/* What kind of file the first bytes show: formats that turn up under image names. */
#include <string.h>

#include "data/image/image_codec.h"

/* Bytes at `offset` decide; the first match counts. */
static const struct signature {
    const char *name;
    size_t offset, n_bytes;
    const char *bytes;
} signatures[] = {
    {"JPEG", 0, 3, "\xff\xd8\xff"},
    {"PNG", 0, 8, "\x89PNG\r\n\x1a\n"},
    {"GIF", 0, 4, "GIF8"},
    {"WebP", 8, 4, "WEBP"},
    {"AVIF", 4, 8, "ftypavif"},
    {"AVIF", 4, 8, "ftypavis"},
    {"HEIF", 4, 7, "ftyphei"},
    {"HEIF", 4, 8, "ftypmif1"},
    {"JPEG XL", 0, 2, "\xff\x0a"},
    {"JPEG XL", 4, 4, "JXL "},
    {"JPEG 2000", 4, 4, "jP  "},
    {"JPEG 2000", 0, 4, "\xff\x4f\xff\x51"},
    {"TIFF", 0, 4, "II*\0"},
    {"TIFF", 0, 4, "MM\0*"},
    {"Photoshop", 0, 4, "8BPS"},
    {"BMP", 0, 2, "BM"},
    {"Windows icon", 0, 4, "\0\0\1\0"},
    {"PDF", 0, 5, "%PDF-"},
    {"Git LFS pointer", 0, 15, "version https:/"},
    {"gzip", 0, 2, "\x1f\x8b"},
};

/* HTML, SVG and XML start with '<' after blanks and a byte order mark. */
static int looks_like_markup(const uint8_t *data, size_t n_bytes)
{
    size_t i = n_bytes >= 3 && memcmp(data, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    while (i < n_bytes && i < 256 && strchr(" \t\r\n", data[i]) && data[i]) i++;
    return i < n_bytes && data[i] == '<';
}

const char *dip_image_format_name(const uint8_t *data, size_t n_bytes)
{
    for (size_t i = 0; i < sizeof signatures / sizeof signatures[0]; i++) {
        const struct signature *s = &signatures[i];
        if (n_bytes >= s->offset + s->n_bytes &&
            memcmp(data + s->offset, s->bytes, s->n_bytes) == 0)
            return s->name;
    }
    return looks_like_markup(data, n_bytes) ? "HTML or XML" : NULL;
}
