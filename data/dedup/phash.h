/* phash.h - a perceptual hash: pictures that look alike get hashes that differ in few bits.
 *
 * The DCT hash known as pHash: the picture is brought to 32 x 32 grey pixels, transformed by a
 * two-dimensional DCT-II, and each of the 8 x 8 lowest frequencies gives one bit: is it above
 * their median? It outlives resizing and re-encoding, not cropping, turning or mirroring. Pictures
 * without any structure share one hash, so the mean colour goes with it.
 *
 * Owns:    nothing. All arithmetic is on integers: the same on every machine.            */
#ifndef DIP_DATA_PHASH_H
#define DIP_DATA_PHASH_H

#include <stdint.h>

#include "core/status.h"
#include "data/image/image.h"

enum { DIP_PHASH_SIDE = 32 }; /* pixels that the picture is brought to */

typedef struct dip_phash {
    uint64_t bits;   /* bit 8 v + u: vertical frequency v, horizontal u */
    uint8_t mean[3]; /* of R, G, B */
} dip_phash;

dip_status dip_phash_of(dip_phash *hash, dip_resizer *resizer, const dip_image *image);

/* Bits that differ, 0 to 64. */
int dip_phash_distance(uint64_t a, uint64_t b);

#endif
