/* bench_bare.h - images in memory, and how fast libjpeg-turbo alone decodes them.
 *
 * Usage:   dip_pictures_read, dip_bare_rate as often as wanted, dip_pictures_free.
 * Errors:  DIP_NOMEM; DIP_CONFIG: no image.                                             */
#ifndef DIP_TOOLS_BENCH_BARE_H
#define DIP_TOOLS_BENCH_BARE_H

#include <stdint.h>

#include "core/status.h"
#include "data/image/image.h"
#include "data/samples.h"

typedef struct dip_picture {
    int64_t index; /* of the sample */
    uint8_t *bytes;
    size_t n_bytes;
    int width, height;
    dip_box box; /* the crop of the stages; the loader draws its own */
} dip_picture;

typedef struct dip_pictures {
    dip_picture *items;
    int64_t n;
    double n_bytes, n_pixels;
} dip_pictures;

/* The first images of the samples that can be decoded, `most` at most. */
dip_status dip_pictures_read(dip_pictures *all, const dip_samples *samples, int64_t most);
void dip_pictures_free(dip_pictures *all);

/* Images a second that n_threads decode whole to RGB, as libjpeg's manual does it. A loader goes
 * beyond that only by what it leaves out for a crop and by zeros behind the file. What is no JPEG
 * goes through data/image/image.h. */
dip_status dip_bare_rate(double *rate, const dip_pictures *all, int n_threads);

#endif
