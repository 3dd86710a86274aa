/* resize_axis.h - inside resize.c: the weights of one axis. The filter is stretched by the
 * reduction.
 *
 * Usage:   a zeroed dip_axis; dip_axis_prepare; read taps; dip_axis_free.
 * Owns:    all it points to; it grows and is kept from image to image.
 * Errors:  DIP_NOMEM.                                                                    */
#ifndef DIP_DATA_RESIZE_AXIS_H
#define DIP_DATA_RESIZE_AXIS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data/image/image.h"
#include "data/image/resize_kernels.h"

/* What an axis is resized from and to: the stretch [from, from + length) of `in` samples to `out`,
 * of which [first, first + n) are computed. */
typedef struct dip_axis_key {
    dip_filter filter;
    int64_t in, out, first;
    double from, length;
    int n;
} dip_axis_key;

typedef struct dip_axis {
    dip_axis_key key; /* of what is kept; n == 0: nothing */
    bool is_packed;
    dip_taps *taps;   /* [n] */
    int32_t *weights; /* [n][stride], stride a multiple of DIP_RESIZE_GROUP, padded with zeros */
    int16_t *packed;  /* [n][2 * stride]; only if is_packed */
    double *scratch;  /* [DIP_RESIZE_LANES][stride] */
    size_t stride, taps_capacity, weights_capacity, packed_capacity, scratch_capacity;
} dip_axis;

/* Fill the axis, `packed` if its reader asks for that. Nothing is done when it has the key already,
 * which *is_new tells. */
dip_status dip_axis_prepare(dip_axis *axis, const dip_axis_key *key,
                            const dip_resize_kernels *kernels, bool packed, bool *is_new);
void dip_axis_free(dip_axis *axis);

/* Memory for n items: the old one if it is large enough, else new (what was there is lost). NULL
 * when there is none. */
void *dip_resize_room(void *old, size_t *capacity, size_t n, size_t item_bytes);

#endif
