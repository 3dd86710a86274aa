#include "data/image.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/image_codec.h"

struct dip_image_decoder {
    int64_t max_pixels;
    dip_jpeg *jpeg;
    dip_pixels pixels;
};

dip_status dip_image_decoder_open(dip_image_decoder **decoder, int64_t max_pixels)
{
    *decoder = NULL;
    if (max_pixels < 1)
        return dip_fail(DIP_CONFIG, "the pixel limit is %" PRId64 "; it must be at least 1",
                        max_pixels);
    dip_image_decoder *fresh = calloc(1, sizeof *fresh);
    if (!fresh) return dip_fail(DIP_NOMEM, "not enough memory for an image decoder");
    fresh->max_pixels = max_pixels;
    dip_status status = dip_jpeg_open(&fresh->jpeg);
    if (status != DIP_OK) {
        free(fresh);
        return status;
    }
    *decoder = fresh;
    return DIP_OK;
}

void dip_image_decoder_close(dip_image_decoder *decoder)
{
    if (!decoder) return;
    dip_jpeg_close(decoder->jpeg);
    free(decoder->pixels.bytes);
    free(decoder);
}

dip_status dip_pixels_reserve(dip_pixels *pixels, size_t n_bytes)
{
    if (n_bytes <= pixels->capacity) return DIP_OK;
    free(pixels->bytes);
    pixels->bytes = malloc(n_bytes);
    pixels->capacity = pixels->bytes ? n_bytes : 0;
    if (!pixels->bytes)
        return dip_fail(DIP_NOMEM, "not enough memory for an image of %zu bytes", n_bytes);
    return DIP_OK;
}

dip_status dip_image_check_size(dip_fault_kind *kind, int64_t width, int64_t height,
                                int64_t max_pixels)
{
    if (width <= 0 || height <= 0 || width <= max_pixels / height) return DIP_OK;
    *kind = DIP_FAULT_IMAGE_TOO_LARGE;
    return dip_fail(DIP_FORMAT, "%" PRId64 " x %" PRId64 " pixels; at most %" PRId64 " are allowed",
                    width, height, max_pixels);
}

/* Formats that turn up under image names. Bytes at `offset` decide; the first match counts. */
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

static const char *format_name(const uint8_t *data, size_t n_bytes)
{
    for (size_t i = 0; i < sizeof signatures / sizeof signatures[0]; i++) {
        const struct signature *s = &signatures[i];
        if (n_bytes >= s->offset + s->n_bytes &&
            memcmp(data + s->offset, s->bytes, s->n_bytes) == 0)
            return s->name;
    }
    return looks_like_markup(data, n_bytes) ? "HTML or XML" : NULL;
}

static dip_status refuse_format(const char *name, const uint8_t *data, size_t n_bytes)
{
    if (name) return dip_fail(DIP_FORMAT, "this is %s; JPEG and PNG are supported", name);
    if (n_bytes == 0) return dip_fail(DIP_FORMAT, "the image has no bytes");
    char first[8 * 3 + 1] = "";
    for (size_t i = 0; i < n_bytes && i < 8; i++)
        snprintf(first + 3 * i, sizeof first - 3 * i, " %02x", data[i]);
    return dip_fail(DIP_FORMAT, "neither JPEG nor PNG: %zu bytes that begin with%s", n_bytes,
                    first);
}

dip_status dip_image_decode(dip_image_decoder *decoder, dip_image *image, dip_fault_kind *kind,
                            const uint8_t *data, size_t n_bytes)
{
    *image = (dip_image){0};
    const char *name = format_name(data, n_bytes);
    *kind = DIP_FAULT_IMAGE_BROKEN;
    if (name && strcmp(name, "JPEG") == 0)
        return dip_jpeg_decode(decoder->jpeg, image, &decoder->pixels, kind, data, n_bytes,
                               decoder->max_pixels);
    if (name && strcmp(name, "PNG") == 0)
        return dip_png_decode(image, &decoder->pixels, kind, data, n_bytes, decoder->max_pixels);
    *kind = DIP_FAULT_IMAGE_FORMAT;
    return refuse_format(name, data, n_bytes);
}
