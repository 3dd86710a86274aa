/* dedup.h - has an image like this been seen before?
 *
 * Exact: by 128 bits of its bytes, in a hash table. Near: by perceptual hash within a Hamming
 * radius and by mean colour, found by multi-index hashing (Norouzi, Punjani, Fleet 2012): the 64
 * bits are cut into four parts, and two hashes within distance d agree in at least one part up to
 * d / 4 bits, so only what lies under such parts is compared. Of several matches the one with the
 * smallest number is named, so the answer depends on the order of numbers alone.
 *
 * Usage:   dip_dedup_open; for each image in order: find, and if it is new, keep.
 * Owns:    48 to 96 bytes (exact) or 40 to 80 (near) an image that was kept, half as much again
 *          while growing; near at most 2^32 - 2 images.
 * Costs:   near, N evenly spread hashes kept, distance 4 to 7: N / 963 of them are compared with
 *          each new one, so the time for all grows with N^2.
 * Threads: one at a time.
 * Errors:  DIP_NOMEM.                                                                    */
#ifndef DIP_DATA_DEDUP_H
#define DIP_DATA_DEDUP_H

#include <stdint.h>

#include "core/status.h"
#include "data/dedup/digest.h"
#include "data/dedup/phash.h"

enum { DIP_DEDUP_MAX_DISTANCE = 15 };

typedef enum dip_dedup_kind { DIP_DEDUP_EXACT, DIP_DEDUP_NEAR } dip_dedup_kind;

/* What an image is known by: the half that the kind needs. */
typedef struct dip_dedup_sign {
    dip_digest digest;
    dip_phash phash;
} dip_dedup_sign;

typedef struct dip_dedup dip_dedup;

/* distance: of a near match, 0 to DIP_DEDUP_MAX_DISTANCE. */
dip_status dip_dedup_open(dip_dedup **dedup, dip_dedup_kind kind, int distance);
void dip_dedup_close(dip_dedup *dedup); /* accepts NULL */

/* The number of the first image like this one, -1 if there is none; *distance in bits. */
int64_t dip_dedup_find(const dip_dedup *dedup, const dip_dedup_sign *sign, int *distance);
/* Numbers need not come in order. */
dip_status dip_dedup_keep(dip_dedup *dedup, const dip_dedup_sign *sign, int64_t number);

#endif
