/* Gaussian blur as Pillow does it: three box blurs a direction, with a box whose ends count in part
 * (Gwosdek et al., "Theoretical foundations of Gaussian convolution by extended box filtering").
 * Every pass rounds to eight bits. A pass runs along columns, a row of sums at a time. */
#include <math.h>
#include <string.h>

#include "data/augment/augment_ops.h"

enum { N_PASSES = 3 };

static dip_blur_box box_for(double sigma)
{
    const float s = (float)sigma;
    const float variance = s * s / N_PASSES;
    const float length = (float)sqrt(12.0 * (double)variance + 1.0);
    const float l = (float)floor(((double)length - 1.0) / 2.0);
    float part = (2 * l + 1) * (l * (l + 1) - 3 * variance);
    part /= 6 * (variance - (l + 1) * (l + 1));
    const float radius = l + part;
    dip_blur_box b = {.radius = (int)radius};
    b.whole = (uint32_t)(16777216.0f / (radius * 2 + 1));
    b.ends = (16777216u - ((uint32_t)b.radius * 2 + 1) * b.whole) / 2;
    return b;
}

static const uint8_t *row_of(const uint8_t *image, int y, int n_rows, size_t row_bytes)
{
    return image + (size_t)(y < 0 ? 0 : y >= n_rows ? n_rows - 1 : y) * row_bytes;
}

/* An image's columns, [size][3 size] bytes. */
typedef struct pass {
    const dip_augment_kernels *kernels;
    dip_blur_box box;
    int size;
    uint32_t *sums; /* [3 size] */
} pass;

static void blur_columns(uint8_t *out, const uint8_t *in, const pass *p)
{
    const size_t row_bytes = (size_t)p->size * 3;
    const int radius = p->box.radius;
    /* The box around the row above the first: the rows beyond the border repeat it. */
    memset(p->sums, 0, row_bytes * sizeof *p->sums);
    for (int y = -radius - 1; y < radius; y++) {
        const uint8_t *row = row_of(in, y, p->size, row_bytes);
        for (size_t x = 0; x < row_bytes; x++) p->sums[x] += row[x];
    }
    for (int y = 0; y < p->size; y++)
        p->kernels->blur_row(out + (size_t)y * row_bytes, p->sums,
                             row_of(in, y - radius - 1, p->size, row_bytes),
                             row_of(in, y + radius, p->size, row_bytes),
                             row_of(in, y + radius + 1, p->size, row_bytes), row_bytes, p->box);
}

/* Tile by tile, so that the rows that are written stay in the cache. */
static void transpose(uint8_t *restrict out, const uint8_t *restrict in, int size)
{
    enum { TILE = 16 };
    const size_t n = (size_t)size;
    for (size_t top = 0; top < n; top += TILE)
        for (size_t left = 0; left < n; left += TILE)
            for (size_t x = left; x < n && x < left + TILE; x++)
                for (size_t y = top; y < n && y < top + TILE; y++)
                    memcpy(out + 3 * (x * n + y), in + 3 * (y * n + x), 3);
}

void dip_augment_gaussian_blur_by(const dip_augment_kernels *kernels, uint8_t *image, int size,
                                  double sigma, uint8_t *scratch)
{
    const size_t row_bytes = (size_t)size * 3, n_bytes = row_bytes * (size_t)size;
    const pass p = {kernels, box_for(sigma), size, (uint32_t *)(void *)scratch};
    if (p.box.radius == 0 && p.box.ends == 0) return;
    uint8_t *one = scratch + row_bytes * sizeof *p.sums, *two = one + n_bytes;
    transpose(one, image, size);
    blur_columns(two, one, &p);
    blur_columns(one, two, &p);
    blur_columns(two, one, &p);
    transpose(one, two, size);
    blur_columns(two, one, &p);
    blur_columns(one, two, &p);
    blur_columns(image, one, &p);
}

void dip_augment_gaussian_blur(uint8_t *image, int size, double sigma, uint8_t *scratch)
{
    dip_augment_gaussian_blur_by(dip_augment_best_kernels(), image, size, sigma, scratch);
}

size_t dip_augment_scratch_bytes(int size)
{
    const size_t row_bytes = (size_t)size * 3;
    return row_bytes * sizeof(uint32_t) + 2 * row_bytes * (size_t)size;
}
