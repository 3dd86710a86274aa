/* augment_loops.h - inside augment_c.c and augment_avx2.c: see augment_kernels.h. Plain loops that
 * a compiler turns into whatever vectors it may use. */
#ifndef DIP_DATA_AUGMENT_LOOPS_H
#define DIP_DATA_AUGMENT_LOOPS_H

#include <stdbool.h>

#include "data/augment/augment_kernels.h"

static void blur_row(uint8_t *restrict out, uint32_t *restrict sums, const uint8_t *leaves,
                     const uint8_t *enters, const uint8_t *below, size_t n, dip_blur_box box)
{
    for (size_t x = 0; x < n; x++) {
        sums[x] += (uint32_t)enters[x] - leaves[x];
        const uint32_t ends = (uint32_t)leaves[x] + below[x];
        out[x] = (uint8_t)((sums[x] * box.whole + ends * box.ends + (1u << 23)) >> 24);
    }
}

enum { CHUNK = 64 }; /* pixels */

static void saturate(uint8_t *image, size_t n_pixels, float factor)
{
    for (size_t done = 0; done < n_pixels; done += CHUNK) {
        const size_t n = n_pixels - done < CHUNK ? n_pixels - done : CHUNK;
        uint8_t *const rgb = image + 3 * done;
        uint8_t gray[3 * CHUNK];
        for (size_t i = 0; i < n; i++)
            gray[3 * i] = gray[3 * i + 1] = gray[3 * i + 2] = dip_luma(rgb + 3 * i);
        for (size_t i = 0; i < 3 * n; i++) rgb[i] = dip_blend(gray[i], rgb[i], factor);
    }
}

/* Hue (before the shift), saturation and value of CHUNK pixels. Of a gray, the first two are 0. */
typedef struct hsv {
    int32_t hue[CHUNK], saturation[CHUNK], value[CHUNK];
} hsv;

static void to_hsv(hsv *out, const uint8_t *rgb, size_t n)
{
    int32_t range[CHUNK], plus[CHUNK], minus[CHUNK], sixths[CHUNK];
    for (size_t i = 0; i < n; i++) {
        const int r = rgb[3 * i], g = rgb[3 * i + 1], b = rgb[3 * i + 2];
        const int rg_max = r > g ? r : g, rg_min = r < g ? r : g;
        const int max = rg_max > b ? rg_max : b, min = rg_min < b ? rg_min : b;
        const bool from_r = r == max, from_g = g == max;
        out->value[i] = max;
        range[i] = max - min;
        plus[i] = max - (from_r ? b : from_g ? r : g);
        minus[i] = max - (from_r ? g : from_g ? b : r);
        sixths[i] = from_r ? 0 : from_g ? 2 : 4;
    }
    for (size_t i = 0; i < n; i++) {
        const float scale = (float)(range[i] + (range[i] == 0));
        const float max = (float)(out->value[i] + (out->value[i] == 0));
        const float h = (float)((double)sixths[i] + (double)((float)plus[i] / scale) -
                                (double)((float)minus[i] / scale));
        const double turn = (double)h / 6.0 + 1.0; /* 5/6 .. 11/6: its whole part is 0 or 1 */
        const float along = (float)(turn - (double)(int)turn);
        out->hue[i] = (int)((double)along * 255.0);
        out->saturation[i] = (int)((double)((float)range[i] / max) * 255.0);
    }
}

static void put_rgb(uint8_t *rgb, const hsv *in, size_t n, const dip_hue_table *table)
{
    float along[CHUNK], saturation[CHUNK];
    int32_t falling[CHUNK], low[CHUNK], rising[CHUNK];
    for (size_t i = 0; i < n; i++) {
        along[i] = table->along[in->hue[i]];
        saturation[i] = table->saturation[in->saturation[i]];
    }
    for (size_t i = 0; i < n; i++) {
        const double s = (double)saturation[i], value = (double)in->value[i];
        falling[i] = (int)(value * (1.0 - (double)(saturation[i] * along[i])) + 0.5);
        low[i] = (int)(value * (1.0 - s) + 0.5);
        rising[i] = (int)(value * (1.0 - s * (1.0 - (double)along[i])) + 0.5);
    }
    for (size_t i = 0; i < n; i++) {
        const uint8_t levels[] = {[DIP_HUE_VALUE] = (uint8_t)in->value[i],
                                  [DIP_HUE_FALLING] = (uint8_t)falling[i],
                                  [DIP_HUE_LOW] = (uint8_t)low[i],
                                  [DIP_HUE_RISING] = (uint8_t)rising[i]};
        const uint8_t *channels = table->channels[in->hue[i]];
        for (int c = 0; c < 3; c++) rgb[3 * i + (size_t)c] = levels[channels[c]];
    }
}

static void turn_hue(uint8_t *image, size_t n_pixels, const dip_hue_table *table)
{
    for (size_t done = 0; done < n_pixels; done += CHUNK) {
        const size_t n = n_pixels - done < CHUNK ? n_pixels - done : CHUNK;
        hsv chunk;
        to_hsv(&chunk, image + 3 * done, n);
        put_rgb(image + 3 * done, &chunk, n, table);
    }
}

#endif
