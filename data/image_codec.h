/* image_codec.h - inside image.c: one decoder per file format, all writing to one pixel buffer.
 *
 * A decoder checks the size a header states with dip_image_check_size, reserves the pixels,
 * and fills image->rgb. On failure *kind says which line of the ledger it belongs to.      */
#ifndef DIP_DATA_IMAGE_CODEC_H
#define DIP_DATA_IMAGE_CODEC_H

#include "data/image.h"

/* Memory that grows and is kept from image to image. */
typedef struct dip_pixels {
    uint8_t *bytes;
    size_t capacity;
} dip_pixels;

/* The old contents are lost when the buffer grows. DIP_NOMEM. */
dip_status dip_pixels_reserve(dip_pixels *pixels, size_t n_bytes);

/* DIP_FORMAT (kind IMAGE_TOO_LARGE) when width * height is above the limit. */
dip_status dip_image_check_size(dip_fault_kind *kind, int64_t width, int64_t height,
                                int64_t max_pixels);

typedef struct dip_jpeg dip_jpeg;
dip_status dip_jpeg_open(dip_jpeg **jpeg);
void dip_jpeg_close(dip_jpeg *jpeg); /* accepts NULL */
dip_status dip_jpeg_decode(dip_jpeg *jpeg, dip_image *image, dip_pixels *pixels,
                           dip_fault_kind *kind, const uint8_t *data, size_t n_bytes,
                           int64_t max_pixels);

dip_status dip_png_decode(dip_image *image, dip_pixels *pixels, dip_fault_kind *kind,
                          const uint8_t *data, size_t n_bytes, int64_t max_pixels);

#endif
