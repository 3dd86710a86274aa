/* image.h - compressed bytes to RGB pixels, and resizing that equals Pillow's.
 *
 * Pixels are u8, interleaved RGB, rows without padding. JPEG, PNG and, where the build has
 * libwebp, WebP are told apart by content. An animated PNG is its first picture, an animated
 * WebP is refused by name. Gamma and colour profiles are ignored, as by Pillow's convert("RGB").
 *
 * Usage:   one dip_image_decoder and one dip_resizer per thread (they keep their buffers).
 *          A whole image: dip_image_decode, then dip_resize.
 *          A crop: dip_image_start for the size, then dip_image_cut. It gives the bytes of
 *          dip_image_decode and dip_resize, without the work for pixels outside the box, and with
 *          the rows resized while they are in the cache. They are checked all the same: the same
 *          files are refused whatever the crop. dip_image_finish and dip_resize_region are its two
 *          halves, for those who want the pixels in between.
 * Limits:  of dip_decode_options, checked from the header before any pixel memory is taken. With
 *          the defaults a file of up to 1 MB costs at most 256 MB and 2 s.
 * Owns:    the decoder keeps buffers of up to 32 MB; larger ones are let go at the next image.
 * Errors:  DIP_FORMAT (broken, truncated, too large, unsupported), DIP_CONFIG, DIP_NOMEM. A JPEG
 *          that its decoder had to repair (a warning, e.g. premature end) is DIP_FORMAT too.
 *
 * Two more limits follow from max_pixels. A JPEG whose coefficients must be kept to its end
 * (progressive, or one component a scan) may take 9.5 bytes of coefficients and pixels for each
 * allowed pixel: only CMYK above 21 megapixels exceeds that. Its scans may cover 30 times
 * the allowed pixels: at 25 megapixels 30 scans, below 7.5 megapixels max_scans.               */
#ifndef DIP_DATA_IMAGE_H
#define DIP_DATA_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/rng.h"
#include "core/status.h"
#include "data/faults.h"

typedef struct dip_image {
    int width, height;
    uint8_t *rgb; /* [height][width][3] */
} dip_image;

/* A rectangle of an image, in pixels. */
typedef struct dip_box {
    int x, y, width, height;
} dip_box;

/* The same with fractions: what a box is on an image decoded at a smaller scale. */
typedef struct dip_rect {
    double x, y, width, height;
} dip_rect;

/* Close to the end of its input libjpeg-turbo decodes more slowly, on its guard at every
 * byte. Zeros behind a file put that off; where there are none, it is copied. No mark is found
 * among them: a file without its end is found out as before. */
enum { DIP_IMAGE_PADDING = 5120 };

typedef struct dip_decode_options {
    int64_t max_bytes;  /* of the file; 256 MB */
    int64_t max_pixels; /* width * height; 25,000,000, open_clip's limit */
    int max_side;       /* pixels; 65535 */
    int max_scans;      /* of a JPEG; 100 (real ones have about 10) */
    bool is_padded;     /* data has DIP_IMAGE_PADDING zeros behind it: a JPEG need not be copied */
    bool exif_rotate;   /* turn as the EXIF orientation says; false: ignored, as by Pillow's open */
    bool scale_in_dct;  /* decode a JPEG whose crop is at least 2, 4 or 8 times the output in both
                         * axes at 1/2, 1/4 or 1/8; see below */
    int alpha_over[3]; /* colour that shows through alpha; [0] < 0: alpha is dropped, as by Pillow's
                        * convert("RGB"). A colour is (c * a + over * (255 - a)) / 255, rounded to
                        * the nearest, as Pillow's paste. */
} dip_decode_options;

/* scale_in_dct is no longer Pillow's resize, but an average over blocks first. On 152 photos of
 * about 500 x 375 pixels reduced to 40 to 180, the bytes differ from the exact ones by 0.7 to 2.3
 * in the mean and by more than 26 in one of a thousand; where the decoded size meets the output's
 * (to 112) by 0.7, 7 in one of a thousand. Uneven sampling (4:2:2, 4:1:1) is scaled less, for the
 * colours' sake. */

dip_decode_options dip_decode_defaults(void);

typedef struct dip_image_decoder dip_image_decoder;

/* DIP_CONFIG: a limit below 1 or a colour above 255. */
dip_status dip_image_decoder_open_with(dip_image_decoder **decoder,
                                       const dip_decode_options *options);
/* The defaults with another pixel limit. */
dip_status dip_image_decoder_open(dip_image_decoder **decoder, int64_t max_pixels);
void dip_image_decoder_close(dip_image_decoder *decoder); /* accepts NULL */

/* Decode as Image.open(...).convert("RGB") does: JPEG (grey, YCbCr, CMYK/YCCK), PNG (all kinds, 16
 * bit as Pillow), still WebP. *image borrows the decoder's memory until the next call. *kind says
 * which ledger line a failure belongs to. */
dip_status dip_image_decode(dip_image_decoder *decoder, dip_image *image, dip_fault_kind *kind,
                            const uint8_t *data, size_t n_bytes);

/* The size, from the header. data is borrowed until the cut or finish has returned. With
 * exif_rotate, this size and the boxes on it are those of the turned image. */
dip_status dip_image_start(dip_image_decoder *decoder, int *width, int *height,
                           dip_fault_kind *kind, const uint8_t *data, size_t n_bytes);

/* Once after each dip_image_start, unless it is cut: the pixels for `box`, which will be resized to
 * out_w x out_h. *image is the part that was decoded (borrowed until the next call), *where is the
 * box on it. */
dip_status dip_image_finish(dip_image_decoder *decoder, dip_image *image, dip_rect *where,
                            dip_fault_kind *kind, dip_box box, int out_w, int out_h);

typedef enum dip_filter { DIP_BICUBIC, DIP_BILINEAR } dip_filter;

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

/* The same for a region; equals dip_resize when it is whole pixels. Else, with `cover` the
 * smallest box around it: image.crop(cover).resize((out_w, out_h), box=the region on that crop). */
dip_status dip_resize_region(dip_resizer *resizer, uint8_t *out, int out_w, int out_h,
                             const dip_image *image, dip_rect region, dip_filter filter, int flip);

/* Evaluation: shortest side to `size` (torchvision's rounding), centre crop size x size; or, for
 * squash, both sides to size. out [size][size][3]. */
typedef enum dip_resize_mode { DIP_RESIZE_SHORTEST, DIP_RESIZE_SQUASH } dip_resize_mode;
dip_status dip_resize_for_eval(dip_resizer *resizer, uint8_t *out, int size, const dip_image *image,
                               dip_resize_mode mode, dip_filter filter);

/* Once after each dip_image_start: `box` of the image resized into out [out_h][out_w][3], as
 * dip_image_finish and dip_resize_region do. On failure what is in out is undefined. */
dip_status dip_image_cut(dip_image_decoder *decoder, dip_resizer *resizer, uint8_t *out, int out_w,
                         int out_h, dip_fault_kind *kind, dip_box box, dip_filter filter, int flip);
/* The same for evaluation: as dip_image_decode and dip_resize_for_eval. */
dip_status dip_image_cut_for_eval(dip_image_decoder *decoder, dip_resizer *resizer, uint8_t *out,
                                  int size, dip_fault_kind *kind, dip_resize_mode mode,
                                  dip_filter filter);

/* RandomResizedCrop's box (torchvision: at most ten tries, then a centre crop), drawn from rng. */
dip_box dip_random_crop(dip_rng *rng, int width, int height, const double scale[2],
                        const double ratio[2]);

/* Encode to PNG in memory (grey when channels == 1, RGB when 3); *out is malloc'd. */
dip_status dip_png_encode(uint8_t **out, size_t *n_bytes, const uint8_t *pixels, int width,
                          int height, int channels);

#endif
