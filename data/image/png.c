/* PNG through libpng's low-level interface. All ancillary chunks are skipped unread (no text,
 * profile or gamma can cost memory or change a pixel); a damaged critical chunk ends the
 * decoding. Rows arrive at the tail of their place in the buffer and become RGB forwards, so no
 * second buffer is needed.                                                                  */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <png.h>

#include "data/image/image_codec.h"

enum { MAX_SIDE = 1000000 }; /* libpng's own limit, for what we write */

typedef struct session {
    png_structp png;
    png_infop info;
    jmp_buf escape;
    char reason[128];
    const uint8_t *data; /* reading: what is left */
    size_t n_bytes;
    uint8_t *out; /* writing: what there is */
    size_t n_out, capacity;
} session;

static void on_error(png_structp png, png_const_charp message)
{
    session *s = png_get_error_ptr(png);
    snprintf(s->reason, sizeof s->reason, "%s", message);
    longjmp(s->escape, 1);
}

static void on_warning(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message;
}

static void read_bytes(png_structp png, png_bytep out, size_t n)
{
    session *s = png_get_io_ptr(png);
    if (n > s->n_bytes) png_error(png, "the file ends too early");
    memcpy(out, s->data, n);
    s->data += n;
    s->n_bytes -= n;
}

/* How a row arrives from libpng. */
typedef enum row_kind { ROW_RGB, ROW_RGBA, ROW_GREY, ROW_GREY16, ROW_PALETTE } row_kind;

/* Ask libpng for 8-bit samples, with alpha if it is wanted and there, else without; 16-bit grey and
 * palette stay as they are. */
static row_kind set_transforms(session *s, bool want_alpha)
{
    int type = png_get_color_type(s->png, s->info);
    int depth = png_get_bit_depth(s->png, s->info);
    bool has_key = png_get_valid(s->png, s->info, PNG_INFO_tRNS) != 0;
    if (type == PNG_COLOR_TYPE_PALETTE) {
        png_set_packing(s->png);
        return ROW_PALETTE;
    }
    if (want_alpha && (has_key || type & PNG_COLOR_MASK_ALPHA)) {
        png_set_expand(s->png); /* the key is compared before depths are reduced */
        png_set_gray_to_rgb(s->png);
        if (depth == 16) png_set_strip_16(s->png);
        return ROW_RGBA;
    }
    if (type == PNG_COLOR_TYPE_GRAY) {
        if (depth == 16) return ROW_GREY16;
        png_set_expand_gray_1_2_4_to_8(s->png);
        return ROW_GREY;
    }
    if (depth == 16) png_set_strip_16(s->png);
    if (type & PNG_COLOR_MASK_ALPHA) png_set_strip_alpha(s->png);
    return type & PNG_COLOR_MASK_COLOR ? ROW_RGB : ROW_GREY;
}

static void widen_grey(uint8_t *rgb, const uint8_t *grey, int width)
{
    for (int i = 0; i < width; i++, rgb += 3) rgb[0] = rgb[1] = rgb[2] = grey[i];
}

/* Pillow clips 16-bit grey to 255 rather than scaling it. */
static void widen_grey16(uint8_t *rgb, const uint8_t *grey, int width)
{
    for (int i = 0; i < width; i++, rgb += 3)
        rgb[0] = rgb[1] = rgb[2] = grey[2 * i] ? 255 : grey[2 * i + 1];
}

static void widen_palette(session *s, uint8_t *rgb, const uint8_t *index, int width,
                          const int over[3])
{
    png_colorp palette = NULL;
    png_bytep alpha = NULL;
    int n_colours = 0, n_alpha = 0;
    png_get_PLTE(s->png, s->info, &palette, &n_colours);
    if (over[0] >= 0) png_get_tRNS(s->png, s->info, &alpha, &n_alpha, NULL);
    for (int i = 0; i < width; i++, rgb += 3) {
        int at = index[i];
        if (at >= n_colours) png_error(s->png, "a pixel's colour is not in the palette");
        png_color colour = palette[at];
        const uint8_t rgba[4] = {colour.red, colour.green, colour.blue,
                                 at < n_alpha ? alpha[at] : 255};
        if (rgba[3] < 255)
            dip_alpha_over(rgb, rgba, 1, over);
        else
            memcpy(rgb, rgba, 3);
    }
}

static void widen_rows(session *s, uint8_t *rgb, const uint8_t *rows, size_t stride, row_kind kind,
                       const dip_image *image, const int over[3])
{
    int width = image->width;
    for (int y = 0; y < image->height; y++, rgb += 3 * (size_t)width, rows += stride) {
        if (kind == ROW_RGBA) dip_alpha_over(rgb, rows, (size_t)width, over);
        if (kind == ROW_GREY) widen_grey(rgb, rows, width);
        if (kind == ROW_GREY16) widen_grey16(rgb, rows, width);
        if (kind == ROW_PALETTE) widen_palette(s, rgb, rows, width, over);
    }
}

/* Fill pixels; image holds the size. */
static dip_status read_image(session *s, dip_pixels *pixels, const dip_image *image,
                             const int over[3])
{
    static const size_t arriving[] = {
        [ROW_RGB] = 3, [ROW_RGBA] = 4, [ROW_GREY] = 1, [ROW_GREY16] = 2, [ROW_PALETTE] = 1};
    row_kind kind = set_transforms(s, over[0] >= 0);
    int n_passes = png_set_interlace_handling(s->png);
    png_read_update_info(s->png, s->info);
    size_t row_bytes = (size_t)image->width * arriving[kind];
    size_t stride = (size_t)image->width * (kind == ROW_RGBA ? 4 : 3);
    if (png_get_rowbytes(s->png, s->info) != row_bytes) png_error(s->png, "unexpected row length");
    DIP_TRY(dip_pixels_reserve(pixels, stride * (size_t)image->height));
    uint8_t *rows = pixels->bytes + stride - row_bytes;
    for (int pass = 0; pass < n_passes; pass++)
        for (int y = 0; y < image->height; y++)
            png_read_row(s->png, rows + (size_t)y * stride, NULL);
    widen_rows(s, pixels->bytes, rows, stride, kind, image, over);
    png_read_end(s->png, NULL);
    return DIP_OK;
}

/* Everything that may longjmp; *s is the caller's, so it is whole after a jump. */
static dip_status read_guarded(session *s, dip_pixels *pixels, const dip_image *image,
                               const int over[3])
{
    if (setjmp(s->escape)) return dip_fail(DIP_FORMAT, "PNG: %s", s->reason);
    s->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, s, on_error, on_warning);
    if (s->png) s->info = png_create_info_struct(s->png);
    if (!s->info) return dip_fail(DIP_NOMEM, "not enough memory for a PNG decoder");
    png_set_read_fn(s->png, s, read_bytes);
    png_set_user_limits(s->png, MAX_SIDE, MAX_SIDE);
    png_set_chunk_malloc_max(s->png, 0); /* ancillary chunks are skipped, whatever their length */
    png_set_crc_action(s->png, PNG_CRC_ERROR_QUIT, PNG_CRC_WARN_DISCARD);
    png_set_keep_unknown_chunks(s->png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    if (over[0] < 0)
        png_set_keep_unknown_chunks(s->png, PNG_HANDLE_CHUNK_NEVER, (png_const_bytep) "tRNS", 1);
    png_read_info(s->png, s->info);
    return read_image(s, pixels, image, over);
}

static uint32_t big_endian(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

dip_status dip_png_size(int *width, int *height, dip_fault_kind *kind, const uint8_t *data,
                        size_t n_bytes, const dip_decode_options *options)
{
    /* 8 bytes of signature, then the header chunk: length, "IHDR", width, height. */
    if (n_bytes < 24 || memcmp(data + 12, "IHDR", 4) != 0)
        return dip_fail(DIP_FORMAT, "PNG: no header in its %zu bytes", n_bytes);
    uint32_t w = big_endian(data + 16), h = big_endian(data + 20);
    DIP_TRY(dip_image_check_size(kind, w, h, options));
    *width = (int)w;
    *height = (int)h;
    return DIP_OK;
}

dip_status dip_png_decode(dip_image *image, dip_pixels *pixels, const uint8_t *data, size_t n_bytes,
                          const dip_decode_options *options)
{
    session s = {.data = data, .n_bytes = n_bytes};
    dip_image size = {.width = (int)big_endian(data + 16), .height = (int)big_endian(data + 20)};
    dip_status status = read_guarded(&s, pixels, &size, options->alpha_over);
    png_destroy_read_struct(&s.png, &s.info, NULL);
    if (status == DIP_OK) *image = (dip_image){size.width, size.height, pixels->bytes};
    return status;
}

static void write_bytes(png_structp png, png_bytep bytes, size_t n)
{
    session *s = png_get_io_ptr(png);
    if (n > s->capacity - s->n_out) {
        size_t capacity = s->capacity + s->capacity / 2 + n + 4096;
        uint8_t *out = realloc(s->out, capacity);
        if (!out) png_error(png, "not enough memory");
        s->out = out;
        s->capacity = capacity;
    }
    memcpy(s->out + s->n_out, bytes, n);
    s->n_out += n;
}

static void flush_bytes(png_structp png)
{
    (void)png;
}

static dip_status write_guarded(session *s, const uint8_t *pixels, int width, int height,
                                int channels)
{
    if (setjmp(s->escape)) return dip_fail(DIP_NOMEM, "cannot write a PNG: %s", s->reason);
    s->png = png_create_write_struct(PNG_LIBPNG_VER_STRING, s, on_error, on_warning);
    if (s->png) s->info = png_create_info_struct(s->png);
    if (!s->info) return dip_fail(DIP_NOMEM, "not enough memory for a PNG encoder");
    png_set_write_fn(s->png, s, write_bytes, flush_bytes);
    png_set_IHDR(s->png, s->info, (png_uint_32)width, (png_uint_32)height, 8,
                 channels == 3 ? PNG_COLOR_TYPE_RGB : PNG_COLOR_TYPE_GRAY, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(s->png, s->info);
    for (int y = 0; y < height; y++)
        png_write_row(s->png, pixels + (size_t)y * (size_t)width * (size_t)channels);
    png_write_end(s->png, s->info);
    return DIP_OK;
}

dip_status dip_png_encode(uint8_t **out, size_t *n_bytes, const uint8_t *pixels, int width,
                          int height, int channels)
{
    *out = NULL;
    *n_bytes = 0;
    if (width < 1 || height < 1 || width > MAX_SIDE || height > MAX_SIDE ||
        (channels != 1 && channels != 3))
        return dip_fail(DIP_CONFIG,
                        "cannot write a PNG of %d x %d pixels and %d channels; sides are 1 to %d, "
                        "channels 1 or 3",
                        width, height, channels, MAX_SIDE);
    session s = {0};
    dip_status status = write_guarded(&s, pixels, width, height, channels);
    png_destroy_write_struct(&s.png, &s.info);
    if (status != DIP_OK) {
        free(s.out);
        return status;
    }
    *out = s.out;
    *n_bytes = s.n_out;
    return DIP_OK;
}
