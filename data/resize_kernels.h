/* resize_kernels.h - inside resize.c: the two inner loops, in plain C and for AVX2 and AVX-512.
 *
 * All versions give the same bytes: the sums are integers modulo 2^32, so their order does not
 * matter, and a weight w is exactly high * 2^15 + low.                                     */
#ifndef DIP_DATA_RESIZE_KERNELS_H
#define DIP_DATA_RESIZE_KERNELS_H

#include "data/image.h"

enum {
    DIP_RESIZE_BITS = 22, /* fraction bits of a weight */
    DIP_RESIZE_GROUP = 4, /* taps handled together; rows of weights are padded with zeros */
    DIP_RESIZE_LOW_BITS = 15,
    DIP_RESIZE_OVERREAD = 32 /* bytes after a row that the horizontal loop may read */
};

/* One output pixel's (or row's) share of an axis. */
typedef struct dip_taps {
    int first;              /* source index of the first tap */
    int n;                  /* taps, >= 1 */
    const int32_t *weights; /* [n rounded up to 4], fixed point */
    const int16_t *packed;  /* the same, a group of 4 as low[4], high[4] */
} dip_taps;

typedef struct dip_resize_kernels {
    const char *name;
    /* Four rows at a time: for each column x in [0, n_cols), rows[r] resampled by taps[x] into
     * the pixel at dst[r] + 3 * x, or 3 * (n_cols - 1 - x) if flip. rows and dst may repeat. */
    void (*horizontal)(uint8_t *const dst[4], const uint8_t *const rows[4], const dip_taps *taps,
                       int n_cols, int flip);
    /* dst[i] = the column i of rows first.. first+n-1 of src, weighted. Reads no other byte. */
    void (*vertical)(uint8_t *dst, const uint8_t *src, size_t src_stride, size_t n_bytes,
                     const dip_taps *taps);
} dip_resize_kernels;

/* NULL where the compiler or the processor does not have them. */
const dip_resize_kernels *dip_resize_kernels_c(void); /* never NULL */
const dip_resize_kernels *dip_resize_kernels_avx2(void);
const dip_resize_kernels *dip_resize_kernels_avx512(void);

/* Use other kernels than the best ones, for tests and measurements. */
void dip_resizer_set_kernels(dip_resizer *resizer, const dip_resize_kernels *kernels);

#endif
