/* Colours. An enhancement is a blend, degenerate + factor * (image - degenerate), in float and cut
 * to whole numbers towards zero. */
#include <string.h>

#include "data/augment/augment_ops.h"

/* All pixels through one table: what a blend with one colour is, and solarize. */
static void look_up(uint8_t *image, size_t n_pixels, const uint8_t table[256])
{
    for (size_t i = 0; i < 3 * n_pixels; i++) image[i] = table[image[i]];
}

static void blend_with_gray(uint8_t *image, size_t n_pixels, int gray, float factor)
{
    uint8_t table[256];
    for (int value = 0; value < 256; value++) table[value] = dip_blend(gray, value, factor);
    look_up(image, n_pixels, table);
}

void dip_augment_brightness(uint8_t *image, size_t n_pixels, double factor)
{
    blend_with_gray(image, n_pixels, 0, (float)factor);
}

void dip_augment_contrast(uint8_t *image, size_t n_pixels, double factor)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n_pixels; i++) sum += dip_luma(image + 3 * i);
    blend_with_gray(image, n_pixels, (int)((double)sum / (double)n_pixels + 0.5), (float)factor);
}

void dip_augment_saturation_by(const dip_augment_kernels *kernels, uint8_t *image, size_t n_pixels,
                               double factor)
{
    kernels->saturate(image, n_pixels, (float)factor);
}

void dip_augment_saturation(uint8_t *image, size_t n_pixels, double factor)
{
    dip_augment_saturation_by(dip_augment_best_kernels(), image, n_pixels, factor);
}

void dip_augment_grayscale(uint8_t *image, size_t n_pixels)
{
    for (uint8_t *pixel = image; pixel < image + 3 * n_pixels; pixel += 3)
        pixel[0] = pixel[1] = pixel[2] = dip_luma(pixel);
}

void dip_augment_solarize(uint8_t *image, size_t n_pixels, int threshold)
{
    uint8_t table[256];
    for (int value = 0; value < 256; value++)
        table[value] = (uint8_t)(value < threshold ? value : 255 - value);
    look_up(image, n_pixels, table);
}

/* Hue. Pillow's HSV has eight bits for each of its three, so a hue is one of 256 turns. */
void dip_augment_hue_by(const dip_augment_kernels *kernels, uint8_t *image, size_t n_pixels,
                        double shift)
{
    enum { V = DIP_HUE_VALUE, F = DIP_HUE_FALLING, L = DIP_HUE_LOW, R = DIP_HUE_RISING };
    static const uint8_t sixths[6][3] = {{V, R, L}, {F, V, L}, {L, V, R},
                                         {L, F, V}, {R, L, V}, {V, L, F}};
    const int turn = (int)(shift * 255);
    dip_hue_table table;
    for (int i = 0; i < 256; i++) {
        const double at = (uint8_t)(i + turn) * 6.0 / 255.0;
        const int whole = (int)at;
        table.along[i] = (float)(at - whole);
        table.saturation[i] = (float)(i / 255.0);
        memcpy(table.channels[i], sixths[whole % 6], 3);
    }
    kernels->turn_hue(image, n_pixels, &table);
}

void dip_augment_hue(uint8_t *image, size_t n_pixels, double shift)
{
    dip_augment_hue_by(dip_augment_best_kernels(), image, n_pixels, shift);
}
