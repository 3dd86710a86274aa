/* resize_kernels.h - inside resize.c: the weights and the two inner loops, in plain C, for AVX2,
 * AVX-512 and AVX-512 with VBMI.
 *
 * All versions give the same bytes: the sums are integers modulo 2^32, so their order does not
 * matter, and a weight w is exactly high * 2^15 + low, or three signed bytes. */
#ifndef DIP_DATA_RESIZE_KERNELS_H
#define DIP_DATA_RESIZE_KERNELS_H

#include "data/image/image.h"

enum {
    DIP_RESIZE_BITS = 22, /* fraction bits of a weight */
    DIP_RESIZE_GROUP = 4, /* taps handled together; rows of weights are padded with zeros */
    DIP_RESIZE_LOW_BITS = 15,
    DIP_RESIZE_FOURS_TAPS = 60
};

/* One output pixel's (or row's) share of an axis. */
typedef struct dip_taps {
    int first;              /* source index of the first tap */
    int n;                  /* taps, >= 1 */
    const int32_t *weights; /* [n rounded up to 4], fixed point */
    const int16_t *packed;  /* the same, a group of 4 as low[4], high[4]; only for reads_packed */
} dip_taps;

/* The outputs of an axis: number i lies at from + (first + i + 1/2) * scale of `in` samples. */
typedef struct dip_outputs {
    int64_t first;
    int n, in;
    double from, scale;
    double support; /* samples to either side of the centre that the filter reaches */
    double stretch; /* filter units a sample */
    bool is_cubic;  /* Keys' cubic convolution with a = -1/2; else the triangle */
    size_t stride;  /* weights an output, a multiple of DIP_RESIZE_GROUP */
} dip_outputs;

enum { DIP_RESIZE_LANES = 8 }; /* outputs that are weighed together */

/* The columns of an output row, mirrored if flip. */
typedef struct dip_columns {
    const dip_taps *taps; /* [n] */
    int n;
    int flip;
    void *plan; /* what make_plan has made of them */
} dip_columns;

typedef struct dip_resize_kernels {
    const char *name;
    bool reads_packed; /* horizontal and vertical do */
    /* first, n and weights of every output's taps, as Pillow computes them: in double, divided by
     * their sum, rounded. weights [n][stride], padded with zeros; scratch [LANES][stride]. */
    void (*weigh)(dip_taps *taps, int32_t *weights, double *scratch, const dip_outputs *outputs);
    /* Four rows at a time: for each column x in [0, n), rows[r] resampled by taps[x] into the
     * pixel at dst[r] + 3 * x, or 3 * (n - 1 - x) if flip. rows and dst may repeat. May read
     * DIP_ROWS_OVERREAD bytes behind a row. */
    void (*horizontal)(uint8_t *const dst[4], const uint8_t *const rows[4],
                       const dip_columns *columns);
    /* dst[i] = the column i of rows first.. first+n-1 of src, weighted. Reads no other byte. */
    void (*vertical)(uint8_t *dst, const uint8_t *src, size_t src_stride, size_t n_bytes,
                     const dip_taps *taps);

    /* The same two for rows that lie in fours between the passes: byte i of rows 4 k to 4 k + 3 at
     * dst + k * fours_stride + 4 * i. NULL where there are none. horizontal_fours takes n_fours
     * times four rows, and needs the columns' plan; vertical_fours takes at most
     * DIP_RESIZE_FOURS_TAPS taps and may read 256 bytes too many. */
    void (*horizontal_fours)(uint8_t *dst, size_t fours_stride, const uint8_t *const *rows,
                             int n_fours, const dip_columns *columns);
    void (*vertical_fours)(uint8_t *dst, const uint8_t *src, size_t fours_stride, size_t n_bytes,
                           const dip_taps *taps);
    size_t (*plan_bytes)(const dip_columns *columns);
    void (*make_plan)(void *plan, const dip_columns *columns);
} dip_resize_kernels;

/* NULL where the compiler or the processor does not have them. */
const dip_resize_kernels *dip_resize_kernels_c(void); /* never NULL */
const dip_resize_kernels *dip_resize_kernels_avx2(void);
const dip_resize_kernels *dip_resize_kernels_avx512(void);
const dip_resize_kernels *dip_resize_kernels_vbmi(void);

/* The loops that several sets use. */
void dip_resize_weigh_c(dip_taps *taps, int32_t *weights, double *scratch,
                        const dip_outputs *outputs);
void dip_resize_weigh_avx512(dip_taps *taps, int32_t *weights, double *scratch,
                             const dip_outputs *outputs);
void dip_resize_horizontal_avx512(uint8_t *const dst[4], const uint8_t *const rows[4],
                                  const dip_columns *columns);
void dip_resize_vertical_avx512(uint8_t *dst, const uint8_t *src, size_t src_stride, size_t n_bytes,
                                const dip_taps *taps);

/* Use other kernels than the best ones, for tests and measurements. */
void dip_resizer_set_kernels(dip_resizer *resizer, const dip_resize_kernels *kernels);

#endif
