/* Two images in one: mixup (Zhang et al. 2018) and cutmix (Yun et al. 2019). */
#include <math.h>
#include <string.h>

#include "data/augment/augment_ops.h"

/* Gamma(shape), shape >= 1 (Marsaglia and Tsang 2000). */
static double draw_gamma(dip_rng *rng, double shape)
{
    const double d = shape - 1.0 / 3, c = 1 / sqrt(9 * d);
    for (;;) {
        double x = dip_rng_normal(rng), v = 1 + c * x;
        if (v <= 0) continue;
        v = v * v * v;
        double u = 1 - dip_rng_uniform(rng); /* (0, 1] */
        if (log(u) < 0.5 * x * x + d - d * v + d * log(v)) return d * v;
    }
}

/* The logarithm: for a small shape the number itself is often below every double. */
static double draw_log_gamma(dip_rng *rng, double shape)
{
    if (shape >= 1) return log(draw_gamma(rng, shape));
    double boost = log(1 - dip_rng_uniform(rng)) / shape;
    return log(draw_gamma(rng, shape + 1)) + boost;
}

double dip_augment_draw_beta(dip_rng *rng, double alpha)
{
    double a = draw_log_gamma(rng, alpha), b = draw_log_gamma(rng, alpha);
    return 1 / (1 + exp(b - a));
}

void dip_augment_mixup(uint8_t *image, const uint8_t *other, size_t n_bytes, float share)
{
    for (size_t i = 0; i < n_bytes; i++)
        image[i] = (uint8_t)(share * (float)image[i] + (1 - share) * (float)other[i] + 0.5f);
}

float dip_augment_cutmix(uint8_t *image, const uint8_t *other, int size, double share, int x, int y)
{
    const dip_rectangle r = dip_augment_square_at(size, x, y, (int)(size * sqrt(1 - share)));
    for (int row = r.y; row < r.y + r.height; row++) {
        const size_t at = ((size_t)row * (size_t)size + (size_t)r.x) * 3;
        memcpy(image + at, other + at, (size_t)r.width * 3);
    }
    const double cut = (double)r.width * r.height;
    return (float)(1 - cut / ((double)size * size));
}

float dip_augment_mix(const dip_augment_op *op, uint8_t *image, const uint8_t *other, int size,
                      dip_rng *rng)
{
    const double share = dip_augment_draw_beta(rng, op->args[DIP_FIRST_ARG].low);
    if (op->kind == DIP_AUGMENT_MIXUP) {
        dip_augment_mixup(image, other, (size_t)size * (size_t)size * 3, (float)share);
        return (float)share;
    }
    const int x = (int)dip_rng_below(rng, (uint64_t)size);
    const int y = (int)dip_rng_below(rng, (uint64_t)size);
    return dip_augment_cutmix(image, other, size, share, x, y);
}
