/* image_codec.h - inside image.c: what a file is, and one decoder per format.
 *
 * A decoder states the size of an image and, later, fills pixels with the stored rows, before
 * any turning. On failure *kind says which line of the ledger it belongs to.                */
#ifndef DIP_DATA_IMAGE_CODEC_H
#define DIP_DATA_IMAGE_CODEC_H

#include "data/image/image_rows.h"

/* Memory that grows and is kept from image to image. */
typedef struct dip_pixels {
    uint8_t *bytes;
    size_t capacity;
} dip_pixels;

/* The old contents are lost when the buffer grows. DIP_NOMEM. */
dip_status dip_pixels_reserve(dip_pixels *pixels, size_t n_bytes);

/* DIP_FORMAT (kind IMAGE_TOO_LARGE) when a side or width * height is above its limit. */
dip_status dip_image_check_size(dip_fault_kind *kind, int64_t width, int64_t height,
                                const dip_decode_options *options);

/* What the first bytes are, e.g. "JPEG", "GIF", "HTML or XML"; NULL: nothing that is known. */
const char *dip_image_format_name(const uint8_t *data, size_t n_bytes);

/* rgb = colour * alpha + over * (1 - alpha), in place or forwards: rgba may begin at rgb or later.
 */
void dip_alpha_over(uint8_t *rgb, const uint8_t *rgba, size_t n_pixels, const int over[3]);

/* JPEG, by libjpeg-turbo: reset, start, begin, rows in order by take or read, end. After any of
 * these there may be the next reset. */
typedef struct dip_jpeg dip_jpeg;
dip_status dip_jpeg_open(dip_jpeg **jpeg);
void dip_jpeg_close(dip_jpeg *jpeg); /* accepts NULL */
/* Let go of the image before, finished or not, and of what is too large to be kept. */
void dip_jpeg_reset(dip_jpeg *jpeg);
dip_status dip_jpeg_start(dip_jpeg *jpeg, int *width, int *height, dip_fault_kind *kind,
                          const uint8_t *data, size_t n_bytes, const dip_decode_options *options);
/* The part that holds the box is width x n_rows pixels, at 1/shrink of the size (1, 2, 4 or 8) or
 * larger; *where is the box on it. */
dip_status dip_jpeg_begin(dip_jpeg *jpeg, int *width, int *n_rows, dip_rect *where,
                          dip_fault_kind *kind, dip_box box, int shrink);
/* As dip_rows takes them. */
dip_status dip_jpeg_take(dip_jpeg *jpeg, const uint8_t **rows, dip_fault_kind *kind, int first,
                         int n);
/* The next n rows to rgb [n][width][3]. */
dip_status dip_jpeg_read(dip_jpeg *jpeg, uint8_t *rgb, dip_fault_kind *kind, int n);
/* The rest of the file is sound. */
dip_status dip_jpeg_end(dip_jpeg *jpeg, dip_fault_kind *kind);

/* PNG, by libpng. */
dip_status dip_png_size(int *width, int *height, dip_fault_kind *kind, const uint8_t *data,
                        size_t n_bytes, const dip_decode_options *options);
dip_status dip_png_decode(dip_image *image, dip_pixels *pixels, const uint8_t *data, size_t n_bytes,
                          const dip_decode_options *options);

/* WebP, by libwebp; without it, both refuse the format by name. */
dip_status dip_webp_size(int *width, int *height, dip_fault_kind *kind, const uint8_t *data,
                         size_t n_bytes, const dip_decode_options *options);
dip_status dip_webp_decode(dip_image *image, dip_pixels *pixels, const uint8_t *data,
                           size_t n_bytes, const dip_decode_options *options);

/* The EXIF orientation, 1 to 8, of a file of each format; 1 where there is none or it is damaged.
 */
int dip_exif_of_jpeg(const uint8_t *data, size_t n_bytes);
int dip_exif_of_png(const uint8_t *data, size_t n_bytes);
int dip_exif_of_webp(const uint8_t *data, size_t n_bytes);

/* Turning by an orientation, as Pillow's exif_transpose: a stored row becomes a column where the
 * orientation swaps the axes. */
bool dip_exif_swaps(int orientation);
/* The box of the stored image (width x height) that `box` of the turned one shows. */
dip_box dip_exif_stored_box(int orientation, dip_box box, int width, int height);
/* Where `region` of `image` lies once the image is turned. */
dip_rect dip_exif_turned_region(int orientation, dip_rect region, const dip_image *image);
dip_status dip_exif_turn(dip_image *turned, dip_pixels *pixels, const dip_image *image,
                         int orientation);

#endif
