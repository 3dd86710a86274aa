/* jpeg_encode.h - RGB pixels to JPEG bytes.
 *
 * Baseline, YCbCr with chroma at half size (4:2:0) as other tools write by default. The same
 * pixels and quality give the same bytes on one build of libjpeg.
 *
 * Owns:    *out is malloc'd.
 * Errors:  DIP_NOMEM; DIP_CONFIG for a quality outside 1 to 100 or a side over 65,500.   */
#ifndef DIP_DATA_JPEG_ENCODE_H
#define DIP_DATA_JPEG_ENCODE_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

/* rgb [height][width][3]. */
dip_status dip_jpeg_encode(uint8_t **out, size_t *n_bytes, const uint8_t *rgb, int width,
                           int height, int quality);

#endif
