/* The EXIF orientation of an image, and turning by it. Only this one number is read, by a parser
 * that takes nothing on trust: what is damaged counts as not there. */
#include <string.h>
#include <zlib.h>

#include "data/image/image_codec.h"

enum { TAG_ORIENTATION = 0x0112 };

/* A part of the file, read in one of the two byte orders. */
typedef struct view {
    const uint8_t *data;
    size_t n_bytes;
    bool little;
} view;

/* n (2 or 4) bytes at `at` as a number; 0 where there are none. */
static uint32_t number(const view *v, size_t at, size_t n)
{
    uint32_t value = 0;
    if (at > v->n_bytes || n > v->n_bytes - at) return 0;
    for (size_t i = 0; i < n; i++) value = value << 8 | v->data[at + (v->little ? n - 1 - i : i)];
    return value;
}

/* The value of a directory's entry: tag, type, count, and up to 4 bytes. 0: not one number (one
 * byte is none to Pillow). */
static uint32_t entry_value(const view *v, size_t at)
{
    enum { SHORT = 3, LONG = 4 };
    uint32_t type = number(v, at + 2, 2);
    if (number(v, at + 4, 4) != 1) return 0;
    return type == SHORT ? number(v, at + 8, 2) : type == LONG ? number(v, at + 8, 4) : 0;
}

/* The orientation in TIFF's first directory. */
static int read_orientation(const uint8_t *data, size_t n_bytes)
{
    if (n_bytes >= 6 && memcmp(data, "Exif\0\0", 6) == 0) {
        data += 6;
        n_bytes -= 6;
    }
    view v = {.data = data, .n_bytes = n_bytes};
    if (n_bytes < 8 || (memcmp(data, "II*\0", 4) != 0 && memcmp(data, "MM\0*", 4) != 0)) return 1;
    v.little = data[0] == 'I';
    size_t at = number(&v, 4, 4);
    uint32_t n_entries = number(&v, at, 2), orientation = 1;
    at += 2;
    for (uint32_t i = 0; i < n_entries && at + 12 <= n_bytes; i++, at += 12)
        if (number(&v, at, 2) == TAG_ORIENTATION) orientation = entry_value(&v, at);
    return orientation >= 1 && orientation <= 8 ? (int)orientation : 1;
}

/* Markers before the first scan: 0xff, which, length with its own two bytes. */
int dip_exif_of_jpeg(const uint8_t *data, size_t n_bytes)
{
    const view v = {.data = data, .n_bytes = n_bytes};
    for (size_t at = 2; at + 4 <= n_bytes && data[at] == 0xff;) {
        uint8_t marker = data[at + 1];
        if (marker == 0xff) { /* padding */
            at++;
            continue;
        }
        size_t length = number(&v, at + 2, 2);
        if (marker == 0xda || length < 2 || length > n_bytes - at - 2) break;
        if (marker == 0xe1 && length >= 8 && memcmp(data + at + 4, "Exif\0\0", 6) == 0)
            return read_orientation(data + at + 4, length - 2);
        at += 2 + length;
    }
    return 1;
}

/* Chunks: length, name, data, checksum. */
int dip_exif_of_png(const uint8_t *data, size_t n_bytes)
{
    const view v = {.data = data, .n_bytes = n_bytes};
    for (size_t at = 8; at + 12 <= n_bytes;) {
        size_t length = number(&v, at, 4);
        if (length > n_bytes - at - 12) break;
        if (memcmp(data + at + 4, "eXIf", 4) == 0 &&
            crc32(0, data + at + 4, (uInt)length + 4) == number(&v, at + 8 + length, 4))
            return read_orientation(data + at + 8, length);
        at += 12 + length;
    }
    return 1;
}

/* Chunks: name, length, data, padding to an even length. */
int dip_exif_of_webp(const uint8_t *data, size_t n_bytes)
{
    const view v = {.data = data, .n_bytes = n_bytes, .little = true};
    for (size_t at = 12; at + 8 <= n_bytes;) {
        size_t length = number(&v, at + 4, 4);
        if (length > n_bytes - at - 8) break;
        if (memcmp(data + at, "EXIF", 4) == 0) return read_orientation(data + at + 8, length);
        at += 8 + length + length % 2;
    }
    return 1;
}

/* Each orientation: swap the axes of the stored image, then mirror the result's axes. */
typedef struct turn {
    bool swap, mirror_x, mirror_y;
} turn;

static turn turn_of(int orientation)
{
    static const turn turns[9] = {
        [2] = {.mirror_x = true},
        [3] = {.mirror_x = true, .mirror_y = true},
        [4] = {.mirror_y = true},
        [5] = {.swap = true},
        [6] = {.swap = true, .mirror_x = true},
        [7] = {.swap = true, .mirror_x = true, .mirror_y = true},
        [8] = {.swap = true, .mirror_y = true},
    };
    return turns[orientation];
}

bool dip_exif_swaps(int orientation)
{
    return turn_of(orientation).swap;
}

/* 64-bit: the box is the caller's and may be anything. */
static int mirrored(int64_t side, int64_t at, int64_t n)
{
    int64_t there = side - at - n;
    return there < -1 || there > side ? -1 : (int)there;
}

dip_box dip_exif_stored_box(int orientation, dip_box box, int width, int height)
{
    turn t = turn_of(orientation);
    if (t.mirror_x) box.x = mirrored(t.swap ? height : width, box.x, box.width);
    if (t.mirror_y) box.y = mirrored(t.swap ? width : height, box.y, box.height);
    return t.swap ? (dip_box){box.y, box.x, box.height, box.width} : box;
}

dip_rect dip_exif_turned_region(int orientation, dip_rect region, const dip_image *image)
{
    turn t = turn_of(orientation);
    int width = t.swap ? image->height : image->width;
    int height = t.swap ? image->width : image->height;
    if (t.swap) region = (dip_rect){region.y, region.x, region.height, region.width};
    if (t.mirror_x) region.x = width - region.x - region.width;
    if (t.mirror_y) region.y = height - region.y - region.height;
    return region;
}

dip_status dip_exif_turn(dip_image *turned, dip_pixels *pixels, const dip_image *image,
                         int orientation)
{
    turn t = turn_of(orientation);
    int width = t.swap ? image->height : image->width;
    int height = t.swap ? image->width : image->height;
    DIP_TRY(dip_pixels_reserve(pixels, (size_t)width * (size_t)height * 3));
    /* From pixel to pixel of a stored row, and where the first one goes. */
    ptrdiff_t across = 3 * (ptrdiff_t)(t.mirror_x ? -1 : 1);
    ptrdiff_t down = 3 * (ptrdiff_t)width * (t.mirror_y ? -1 : 1);
    uint8_t *first = pixels->bytes + 3 * (size_t)(t.mirror_x ? width - 1 : 0) +
                     3 * (size_t)width * (size_t)(t.mirror_y ? height - 1 : 0);
    ptrdiff_t step = t.swap ? down : across, next_row = t.swap ? across : down;
    /* A few columns at a time, so that the rows they become stay in the cache. */
    const int n_columns = t.swap ? 16 : image->width;
    for (int from = 0; from < image->width; from += n_columns) {
        int to = from + n_columns < image->width ? from + n_columns : image->width;
        for (int y = 0; y < image->height; y++) {
            const uint8_t *src = image->rgb + 3 * ((size_t)y * (size_t)image->width + (size_t)from);
            uint8_t *dst = first + y * next_row + from * step;
            for (int x = from; x < to; x++, src += 3, dst += step) memcpy(dst, src, 3);
        }
    }
    *turned = (dip_image){width, height, pixels->bytes};
    return DIP_OK;
}
