/* image.h - compressed bytes to RGB pixels, and resizing that equals Pillow's.
 *
 * Pixels are u8, interleaved RGB, rows without padding.
 *
 * Usage:   one dip_image_decoder per thread (it keeps its buffers); dip_image_decode, then
 *          dip_resize_crop into the batch.
 * Limits:  checked from the header before any pixel memory is taken.
 * Errors:  DIP_FORMAT (broken, truncated, too large, unsupported), DIP_NOMEM. A JPEG that the
 *          decoder had to repair (a warning, e.g. premature end) is DIP_FORMAT too.        */
#ifndef DIP_DATA_IMAGE_H
#define DIP_DATA_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "core/rng.h"
#include "core/status.h"
#include "data/faults.h"

typedef struct dip_image {
    int width, height;
    uint8_t *rgb; /* [height][width][3] */
} dip_image;

typedef struct dip_image_decoder dip_image_decoder;

/* max_pixels: width * height above it is refused (open_clip's default 25,000,000). */
dip_status dip_image_decoder_open(dip_image_decoder **decoder, int64_t max_pixels);
void dip_image_decoder_close(dip_image_decoder *decoder); /* accepts NULL */

/* Decode JPEG (grey, YCbCr, CMYK/YCCK as Pillow converts them) or PNG (all kinds; alpha
 * dropped, 16 bit as Pillow) by content, as Image.open(...).convert("RGB") does. *image borrows
 * the decoder's memory until the next call. *kind says which ledger line a failure belongs to. */
dip_status dip_image_decode(dip_image_decoder *decoder, dip_image *image, dip_fault_kind *kind,
                            const uint8_t *data, size_t n_bytes);

typedef enum dip_filter { DIP_BICUBIC, DIP_BILINEAR } dip_filter;

/* A rectangle of a source image, in pixels. */
typedef struct dip_box {
    int x, y, width, height;
} dip_box;

/* Scratch memory for resizing; grows, one per thread. */
typedef struct dip_resizer dip_resizer;
dip_status dip_resizer_open(dip_resizer **resizer);
void dip_resizer_close(dip_resizer *resizer); /* accepts NULL */

/* out [out_h][out_w][3] = the crop `box` of `image` resized: byte for byte what Pillow 13's
 * image.crop(box).resize((out_w, out_h)) gives (older releases may differ by one step of 255
 * where the height shrinks by over twice as many pixels as the width: they run the passes the
 * other way round). flip: mirror left-right afterwards. DIP_CONFIG: box not inside the image. */
dip_status dip_resize(dip_resizer *resizer, uint8_t *out, int out_w, int out_h,
                      const dip_image *image, dip_box box, dip_filter filter, int flip);

/* Evaluation: shortest side to `size` (torchvision's rounding), centre crop size x size; or, for
 * squash, both sides to size. out [size][size][3]. */
typedef enum dip_resize_mode { DIP_RESIZE_SHORTEST, DIP_RESIZE_SQUASH } dip_resize_mode;
dip_status dip_resize_for_eval(dip_resizer *resizer, uint8_t *out, int size, const dip_image *image,
                               dip_resize_mode mode, dip_filter filter);

/* RandomResizedCrop's box (torchvision: at most ten tries, then a centre crop), drawn from rng. */
dip_box dip_random_crop(dip_rng *rng, int width, int height, const double scale[2],
                        const double ratio[2]);

/* Encode to PNG in memory (grey when channels == 1, RGB when 3); *out is malloc'd. */
dip_status dip_png_encode(uint8_t **out, size_t *n_bytes, const uint8_t *pixels, int width,
                          int height, int channels);

#endif
