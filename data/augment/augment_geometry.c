/* Places in an image: the mirror, rotation, rectangles. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/augment/augment_ops.h"

void dip_augment_flip(uint8_t *image, int size)
{
    for (int y = 0; y < size; y++) {
        uint8_t *left = image + (size_t)y * (size_t)size * 3;
        uint8_t *right = left + (size_t)(size - 1) * 3;
        for (; left < right; left += 3, right -= 3) {
            for (int c = 0; c < 3; c++) {
                uint8_t value = left[c];
                left[c] = right[c];
                right[c] = value;
            }
        }
    }
}

/* Rotation. */

typedef struct affine {
    double x_x, x_y, x_0, y_x, y_y, y_0; /* place in the source: x_x x + x_y y + x_0, ... */
} affine;

/* Python's round(x, 15): to the nearest decimal, through its digits. */
static double rounded(double x)
{
    char digits[32];
    snprintf(digits, sizeof digits, "%.15f", x);
    return strtod(digits, NULL);
}

static affine affine_of(int size, double degrees)
{
    const double angle = -(degrees * (3.14159265358979323846 / 180.0)), center = size / 2.0;
    affine a = {.x_x = rounded(cos(angle)), .x_y = rounded(sin(angle))};
    a.y_x = rounded(-sin(angle));
    a.y_y = a.x_x;
    a.x_0 = a.x_x * -center + a.x_y * -center + center;
    a.y_0 = a.y_x * -center + a.y_y * -center + center;
    return a;
}

static int64_t fixed(double x) /* 16 bits after the point */
{
    return (int64_t)floor(x * 65536.0 + 0.5);
}

static void rotate_nearest(uint8_t *out, const uint8_t *in, int size, const affine *a)
{
    const int64_t x_x = fixed(a->x_x), x_y = fixed(a->x_y), y_x = fixed(a->y_x);
    const int64_t y_y = fixed(a->y_y);
    const int64_t x_0 = fixed(a->x_0 + a->x_x * 0.5 + a->x_y * 0.5);
    const int64_t y_0 = fixed(a->y_0 + a->y_x * 0.5 + a->y_y * 0.5);
    for (int y = 0; y < size; y++) {
        for (int x = 0; x < size; x++, out += 3) {
            const int64_t from_x = (x_0 + y * x_y + x * x_x) >> 16;
            const int64_t from_y = (y_0 + y * y_y + x * y_x) >> 16;
            if (from_x < 0 || from_x >= size || from_y < 0 || from_y >= size) continue;
            memcpy(out, in + (from_y * size + from_x) * 3, 3);
        }
    }
}

static void rotate_bilinear(uint8_t *out, const uint8_t *in, int size, const affine *a)
{
    for (int y = 0; y < size; y++) {
        for (int x = 0; x < size; x++, out += 3) {
            double from_x = a->x_x * (x + 0.5) + a->x_y * (y + 0.5) + a->x_0;
            double from_y = a->y_x * (x + 0.5) + a->y_y * (y + 0.5) + a->y_0;
            if (!(from_x >= 0 && from_x < size && from_y >= 0 && from_y < size)) continue;
            from_x -= 0.5;
            from_y -= 0.5;
            const int left = from_x < 0 ? -1 : (int)from_x, top = from_y < 0 ? -1 : (int)from_y;
            const double dx = from_x - left, dy = from_y - top;
            const int x0 = left < 0 ? 0 : left, x1 = left + 1 < size ? left + 1 : size - 1;
            const int y0 = top < 0 ? 0 : top, y1 = top + 1 < size ? top + 1 : y0;
            const uint8_t *row0 = in + (size_t)y0 * (size_t)size * 3;
            const uint8_t *row1 = in + (size_t)y1 * (size_t)size * 3;
            for (int c = 0; c < 3; c++) {
                double v0 = row0[3 * x0 + c] + (row0[3 * x1 + c] - row0[3 * x0 + c]) * dx;
                double v1 = row1[3 * x0 + c] + (row1[3 * x1 + c] - row1[3 * x0 + c]) * dx;
                out[c] = (uint8_t)(v0 + (v1 - v0) * dy);
            }
        }
    }
}

/* A quarter turn left: what was in the last column comes first. */
static void rotate_quarter(uint8_t *out, const uint8_t *in, int size)
{
    for (int y = 0; y < size; y++)
        for (int x = 0; x < size; x++, out += 3)
            memcpy(out, in + ((size_t)x * (size_t)size + (size_t)(size - 1 - y)) * 3, 3);
}

void dip_augment_rotate(uint8_t *image, int size, double degrees, int fill, bool bilinear,
                        uint8_t *scratch)
{
    const size_t n_bytes = (size_t)size * (size_t)size * 3;
    double angle = fmod(degrees, 360);
    if (angle < 0) angle += 360;
    const affine a = affine_of(size, angle);
    if (a.x_y == 0 || angle == 90 || angle == 270) { /* whole quarters move pixels, exactly */
        const int n_quarters = a.x_y == 0 ? (a.x_x < 0 ? 2 : 0) : angle == 90 ? 1 : 3;
        for (int i = 0; i < n_quarters; i++) {
            memcpy(scratch, image, n_bytes);
            rotate_quarter(image, scratch, size);
        }
        return;
    }
    memcpy(scratch, image, n_bytes);
    memset(image, fill, n_bytes);
    if (bilinear)
        rotate_bilinear(image, scratch, size, &a);
    else
        rotate_nearest(image, scratch, size, &a);
}

/* Rectangles. */

void dip_augment_erase(uint8_t *image, int size, dip_rectangle place, int value, dip_rng *rng)
{
    for (int y = place.y; y < place.y + place.height; y++) {
        uint8_t *row = image + ((size_t)y * (size_t)size + (size_t)place.x) * 3;
        const size_t n_bytes = (size_t)place.width * 3;
        if (value != DIP_AUGMENT_VALUE_RANDOM)
            memset(row, value, n_bytes);
        else
            for (size_t i = 0; i < n_bytes; i++) row[i] = (uint8_t)(dip_rng_u32(rng) >> 24);
    }
}

dip_rectangle dip_augment_draw_erasing(dip_rng *rng, int size, dip_augment_arg scale,
                                       dip_augment_arg ratio)
{
    const double log_low = log(ratio.low), log_high = log(ratio.high);
    for (int i = 0; i < 10; i++) {
        double area = (double)size * size * dip_rng_range(rng, scale.low, scale.high);
        double aspect = exp(dip_rng_range(rng, log_low, log_high));
        double height = rint(sqrt(area * aspect)), width = rint(sqrt(area / aspect));
        if (!(height < size && width < size)) continue;
        dip_rectangle r = {.width = (int)width, .height = (int)height};
        r.y = (int)dip_rng_below(rng, (uint64_t)(size - r.height) + 1);
        r.x = (int)dip_rng_below(rng, (uint64_t)(size - r.width) + 1);
        return r;
    }
    return (dip_rectangle){0};
}

dip_rectangle dip_augment_square_at(int size, int x, int y, int side)
{
    const int half = side / 2;
    dip_rectangle r = {.x = x > half ? x - half : 0, .y = y > half ? y - half : 0};
    r.width = (x + half < size ? x + half : size) - r.x;
    r.height = (y + half < size ? y + half : size) - r.y;
    return r;
}
