/* digest.h - 128 bits that stand for some bytes: SipHash-2-4 with 128 bits of output (Aumasson,
 * Bernstein 2012). Two different images of a billion meet with a chance below 1e-20.
 *
 * Usage:   dip_digest_of(start, data, n); a list is digested by starting each item with the digest
 *          so far.
 * Owns:    nothing. The same on every machine.                                           */
#ifndef DIP_DATA_DIGEST_H
#define DIP_DATA_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct dip_digest {
    uint64_t low, high;
} dip_digest;

/* `start` is SipHash's key; {0, 0} for a first item. */
dip_digest dip_digest_of(dip_digest start, const void *data, size_t n_bytes);
/* The text with its final NUL, so that "a", "bc" and "ab", "c" differ. */
dip_digest dip_digest_text(dip_digest start, const char *text);
dip_digest dip_digest_number(dip_digest start, int64_t number);

bool dip_digest_equal(dip_digest a, dip_digest b);

#endif
