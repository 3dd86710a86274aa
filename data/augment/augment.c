/* What an operation draws: the cut's box, a factor, an angle, an order. */
#include <math.h>

#include "data/augment/augment_ops.h"
#include "data/image/image.h"

dip_box dip_random_crop(dip_rng *rng, int width, int height, const double scale[2],
                        const double ratio[2])
{
    double area = (double)width * height;
    double log_low = log(ratio[0]), log_high = log(ratio[1]);
    for (int i = 0; i < 10; i++) {
        double target = area * dip_rng_range(rng, scale[0], scale[1]);
        double aspect = exp(dip_rng_range(rng, log_low, log_high));
        double w = rint(sqrt(target * aspect)), h = rint(sqrt(target / aspect));
        if (!(w >= 1 && w <= width && h >= 1 && h <= height)) continue;
        dip_box box = {.width = (int)w, .height = (int)h};
        box.y = (int)dip_rng_below(rng, (uint64_t)(height - box.height) + 1);
        box.x = (int)dip_rng_below(rng, (uint64_t)(width - box.width) + 1);
        return box;
    }
    /* The largest centred crop whose ratio is allowed. */
    dip_box box = {.width = width, .height = height};
    double aspect = (double)width / height;
    if (aspect < ratio[0]) box.height = (int)fmax(1, rint(width / ratio[0]));
    if (aspect > ratio[1]) box.width = (int)fmax(1, rint(height * ratio[1]));
    if (box.height > height) box.height = height;
    if (box.width > width) box.width = width;
    box.x = (width - box.width) / 2;
    box.y = (height - box.height) / 2;
    return box;
}

static double draw(dip_augment_arg arg, dip_rng *rng)
{
    return arg.low == arg.high ? arg.low : dip_rng_range(rng, arg.low, arg.high);
}

/* All factors are drawn, then applied in random order. A factor that can only be the neutral one
 * is not applied at all: as a blend it would change nothing, but a hue of 0 turns through HSV. */
static void jitter(const dip_augment_op *op, uint8_t *image, size_t n_pixels, dip_rng *rng)
{
    int order[] = {DIP_JITTER_BRIGHTNESS, DIP_JITTER_CONTRAST, DIP_JITTER_SATURATION,
                   DIP_JITTER_HUE};
    for (int i = 3; i > 0; i--) {
        int other = (int)dip_rng_below(rng, (uint64_t)i + 1), moved = order[i];
        order[i] = order[other];
        order[other] = moved;
    }
    double factor[4];
    for (int i = 0; i < 4; i++) factor[i] = draw(op->args[i], rng);
    for (int i = 0; i < 4; i++) {
        const dip_augment_arg arg = op->args[order[i]];
        const double f = factor[order[i]];
        if (arg.low == arg.high && f == (order[i] == DIP_JITTER_HUE ? 0 : 1)) continue;
        switch (order[i]) {
        case DIP_JITTER_BRIGHTNESS:
            dip_augment_brightness(image, n_pixels, f);
            break;
        case DIP_JITTER_CONTRAST:
            dip_augment_contrast(image, n_pixels, f);
            break;
        case DIP_JITTER_SATURATION:
            dip_augment_saturation(image, n_pixels, f);
            break;
        default:
            dip_augment_hue(image, n_pixels, f);
            break;
        }
    }
}

static void cut_out(const dip_augment_op *op, uint8_t *image, int size, dip_rng *rng)
{
    const int y = (int)dip_rng_below(rng, (uint64_t)size);
    const int x = (int)dip_rng_below(rng, (uint64_t)size);
    const int side = (int)op->args[DIP_CUTOUT_SIZE].low;
    dip_augment_erase(image, size, dip_augment_square_at(size, x, y, side),
                      (int)op->args[DIP_CUTOUT_VALUE].low, rng);
}

void dip_augment_apply(const dip_augment_op *op, uint8_t *image, int size, uint8_t *scratch,
                       dip_rng *rng)
{
    const size_t n_pixels = (size_t)size * (size_t)size;
    const dip_augment_arg *args = op->args;
    if (!dip_augment_happens(op, rng)) return;
    switch (op->kind) {
    case DIP_AUGMENT_FLIP:
        dip_augment_flip(image, size);
        break;
    case DIP_AUGMENT_COLOR_JITTER:
        jitter(op, image, n_pixels, rng);
        break;
    case DIP_AUGMENT_GRAYSCALE:
        dip_augment_grayscale(image, n_pixels);
        break;
    case DIP_AUGMENT_GAUSSIAN_BLUR:
        dip_augment_gaussian_blur(image, size, draw(args[DIP_FIRST_ARG], rng), scratch);
        break;
    case DIP_AUGMENT_ROTATE:
        dip_augment_rotate(image, size, draw(args[DIP_ROTATE_DEGREES], rng),
                           (int)args[DIP_ROTATE_FILL].low, args[DIP_ROTATE_BILINEAR].low != 0,
                           scratch);
        break;
    case DIP_AUGMENT_NOISE:
        dip_augment_noise(image, 3 * n_pixels, draw(args[DIP_FIRST_ARG], rng), rng);
        break;
    case DIP_AUGMENT_CUTOUT:
        cut_out(op, image, size, rng);
        break;
    case DIP_AUGMENT_RANDOM_ERASING:
        dip_augment_erase(
            image, size,
            dip_augment_draw_erasing(rng, size, args[DIP_ERASING_SCALE], args[DIP_ERASING_RATIO]),
            (int)args[DIP_ERASING_VALUE].low, rng);
        break;
    case DIP_AUGMENT_SOLARIZE:
        dip_augment_solarize(image, n_pixels, (int)args[DIP_FIRST_ARG].low);
        break;
    case DIP_AUGMENT_DECODE:
    case DIP_AUGMENT_RANDOM_RESIZED_CROP:
    case DIP_AUGMENT_RESIZE:
    case DIP_AUGMENT_CENTER_CROP:
    case DIP_AUGMENT_MIXUP:
    case DIP_AUGMENT_CUTMIX:
    case DIP_N_AUGMENT_KINDS:
        break; /* fill.c's */
    }
}
