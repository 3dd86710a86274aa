/* augment_kernels.h - inside data/: the loops of the augmentations where most time goes.
 *
 * Once for any CPU and once for AVX2, most from the same source, augment_loops.h. All give the same
 * bytes. */
#ifndef DIP_DATA_AUGMENT_KERNELS_H
#define DIP_DATA_AUGMENT_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "core/rng.h"

/* A box whose ends count in part; weights in 2^-24. */
typedef struct dip_blur_box {
    int radius;
    uint32_t whole, ends; /* of a pixel inside, of the two just outside */
} dip_blur_box;

/* What a shift makes of each of the 256 hues: in which sixth of the circle it lies (which of value,
 * falling, low and rising level each channel has) and how far along; and each saturation. */
typedef struct dip_hue_table {
    uint8_t channels[256][3];
    float along[256], saturation[256];
} dip_hue_table;
enum { DIP_HUE_VALUE, DIP_HUE_FALLING, DIP_HUE_LOW, DIP_HUE_RISING };

typedef struct dip_augment_kernels {
    /* The box moves a row down: `enters` comes into it, `leaves` goes out and is then the row just
     * above, `below` the one just below. sums [n] are the sums of the box. */
    void (*blur_row)(uint8_t *out, uint32_t *sums, const uint8_t *leaves, const uint8_t *enters,
                     const uint8_t *below, size_t n, dip_blur_box box);
    /* Every pixel to its gray + factor * (pixel - gray), cut to 0..255 and towards zero. */
    void (*saturate)(uint8_t *image, size_t n_pixels, float factor);
    void (*turn_hue)(uint8_t *image, size_t n_pixels, const dip_hue_table *table);
    /* The next n_blocks blocks of four numbers, a multiple of DIP_DRAW_BLOCKS, into out
     * [4 n_blocks]. What is left of rng's block before them stays for dip_rng_u32. */
    void (*draw_blocks)(uint32_t *out, dip_rng *rng, size_t n_blocks);
} dip_augment_kernels;

enum { DIP_DRAW_BLOCKS = 16 };

const dip_augment_kernels *dip_augment_kernels_c(void);
const dip_augment_kernels *dip_augment_kernels_avx2(void); /* NULL where they cannot run */

/* Pillow's gray of a pixel. */
static inline uint8_t dip_luma(const uint8_t *rgb)
{
    return (uint8_t)((19595u * rgb[0] + 38470u * rgb[1] + 7471u * rgb[2] + 32768u) >> 16);
}

/* Pillow's Image.blend of two bytes: in float, cut towards zero. */
static inline uint8_t dip_blend(int from, int to, float factor)
{
    const float sum = (float)from + factor * (float)(to - from);
    return (uint8_t)(int)(sum <= 0 ? 0 : sum >= 255 ? 255 : sum);
}

static inline const dip_augment_kernels *dip_augment_best_kernels(void)
{
    const dip_augment_kernels *avx2 = dip_augment_kernels_avx2();
    return avx2 ? avx2 : dip_augment_kernels_c();
}

#endif
