/* idx.h - the MNIST family's array files: u8 arrays of 1 to 4 dimensions, plain or gzipped.
 *
 * Usage:   dip_idx_read, dip_idx_free.
 * Errors:  DIP_IO, DIP_NOMEM; DIP_FORMAT when it is no IDX file, not u8, larger than 4 GiB, or
 *          when its length is not what its dimensions promise. Memory grows with what is read,
 *          never with what the header claims.                                             */
#ifndef DIP_DATA_IDX_H
#define DIP_DATA_IDX_H

#include <stdint.h>

#include "core/status.h"

enum { DIP_IDX_MAX_DIMS = 4 };

typedef struct dip_idx {
    int n_dims;
    int64_t dims[DIP_IDX_MAX_DIMS]; /* outermost first */
    uint8_t *data;
    int64_t n_bytes; /* the product of dims */
} dip_idx;

dip_status dip_idx_read(dip_idx *idx, const char *path);
void dip_idx_free(dip_idx *idx); /* a zeroed struct is fine */

#endif
