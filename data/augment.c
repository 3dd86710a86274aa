#include <math.h>

#include "data/image.h"

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
