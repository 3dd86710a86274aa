/* augment_ops.h - inside data/: the operations of an augmentation list, each in two halves.
 *
 * Those below without a dip_rng are exact functions of what they are given, and equal Pillow 13's
 * or the formula named. dip_augment_apply draws their arguments as torchvision or the paper draws
 * them. Pixels are u8 RGB, [size][size][3], changed in place. A name with _by at its end is the
 * same by a given set of kernels, for tests.
 *
 * Scratch: dip_augment_scratch_bytes, for those that take one; what is in it does not matter.
 * Errors:  none.                                                                          */
#ifndef DIP_DATA_AUGMENT_OPS_H
#define DIP_DATA_AUGMENT_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/rng.h"
#include "data/augment/augment_kernels.h"
#include "data/augment/augment_list.h"

/* Draw, and do the operation if its p says so. Not for cuts and mixes. */
void dip_augment_apply(const dip_augment_op *op, uint8_t *image, int size, uint8_t *scratch,
                       dip_rng *rng);
/* Is it done this time? Draws one number, none when p is 0. */
static inline bool dip_augment_happens(const dip_augment_op *op, dip_rng *rng)
{
    return op->p > 0 && dip_rng_uniform(rng) < op->p;
}

size_t dip_augment_scratch_bytes(int size);

/* Colour (augment_color.c). ImageEnhance.Brightness, Contrast and Color with this factor >= 0. */
void dip_augment_brightness(uint8_t *image, size_t n_pixels, double factor);
void dip_augment_contrast(uint8_t *image, size_t n_pixels, double factor);
void dip_augment_saturation(uint8_t *image, size_t n_pixels, double factor);
void dip_augment_saturation_by(const dip_augment_kernels *kernels, uint8_t *image, size_t n_pixels,
                               double factor);
/* torchvision's adjust_hue on a Pillow image: shift in turns, -0.5..0.5. */
void dip_augment_hue(uint8_t *image, size_t n_pixels, double shift);
void dip_augment_hue_by(const dip_augment_kernels *kernels, uint8_t *image, size_t n_pixels,
                        double shift);
void dip_augment_grayscale(uint8_t *image, size_t n_pixels); /* convert("L"), three times */
void dip_augment_solarize(uint8_t *image, size_t n_pixels, int threshold); /* ImageOps.solarize */

/* ImageFilter.GaussianBlur(sigma) (augment_blur.c). */
void dip_augment_gaussian_blur(uint8_t *image, int size, double sigma, uint8_t *scratch);
void dip_augment_gaussian_blur_by(const dip_augment_kernels *kernels, uint8_t *image, int size,
                                  double sigma, uint8_t *scratch);

/* Places (augment_geometry.c). */
typedef struct dip_rectangle {
    int x, y, width, height;
} dip_rectangle;

void dip_augment_flip(uint8_t *image, int size);
/* Image.rotate(degrees, NEAREST or BILINEAR, fillcolor=(fill, fill, fill)). */
void dip_augment_rotate(uint8_t *image, int size, double degrees, int fill, bool bilinear,
                        uint8_t *scratch);
/* value 0..255, or DIP_AUGMENT_VALUE_RANDOM: a random value for each byte. */
void dip_augment_erase(uint8_t *image, int size, dip_rectangle place, int value, dip_rng *rng);
/* torchvision's RandomErasing: at most ten tries; an empty rectangle when none fits. */
dip_rectangle dip_augment_draw_erasing(dip_rng *rng, int size, dip_augment_arg scale,
                                       dip_augment_arg ratio);
/* A square around pixel (x, y), side / 2 to each side of it, cut off at the borders (the code of
 * cutout's and of cutmix's authors). */
dip_rectangle dip_augment_square_at(int size, int x, int y, int side);

/* Every byte x becomes round(x + N(0, (255 sigma)^2)), cut to 0..255 (augment_noise.c). */
void dip_augment_noise(uint8_t *image, size_t n_bytes, double sigma, dip_rng *rng);
void dip_augment_noise_by(const dip_augment_kernels *kernels, uint8_t *image, size_t n_bytes,
                          double sigma, dip_rng *rng);

/* Mixing (augment_mix.c): draw the share by Beta(alpha, alpha) and mix `other` in; returns the
 * share of the result that is still `image`. mixup: round(share image + (1 - share) other). cutmix:
 * a rectangle of `other` of sqrt(1 - share) of both sides around a random pixel, cut off at the
 * borders; the share is what is left outside of it. */
float dip_augment_mix(const dip_augment_op *op, uint8_t *image, const uint8_t *other, int size,
                      dip_rng *rng);
void dip_augment_mixup(uint8_t *image, const uint8_t *other, size_t n_bytes, float share);
float dip_augment_cutmix(uint8_t *image, const uint8_t *other, int size, double share, int x,
                         int y);
double dip_augment_draw_beta(dip_rng *rng, double alpha);

#endif
