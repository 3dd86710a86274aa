/* What an augmentation costs: microseconds an image of 224 x 224, one thread.
 *
 *   bench_augment [LIST]...
 *
 * The best of many rounds, so that what else the machine does counts little. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "data/augment/augment_ops.h"

enum { SIZE = 224, N_BYTES = SIZE * SIZE * 3, N_ROUNDS = 20, N_IMAGES = 10 };

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static double time_op(const dip_augment_op *op, uint8_t *image, const uint8_t *other,
                      uint8_t *scratch)
{
    double best = 1e30;
    dip_rng rng;
    dip_rng_init(&rng, 1, 1);
    for (int round = 0; round < N_ROUNDS; round++) {
        double us = 0;
        for (int i = 0; i < N_IMAGES; i++) {
            memcpy(image, other + 3 * i, N_BYTES); /* what it left of the last would be too easy */
            double start = now_us();
            if (dip_augment_is_mix(op->kind))
                dip_augment_mix(op, image, other, SIZE, &rng);
            else
                dip_augment_apply(op, image, SIZE, scratch, &rng);
            us += (now_us() - start) / N_IMAGES;
        }
        if (us < best) best = us;
    }
    return best;
}

int main(int argc, char **argv)
{
    static const char *const all[] = {"flip(1)",
                                      "color_jitter(brightness=0.4)",
                                      "color_jitter(contrast=0.4)",
                                      "color_jitter(saturation=0.4)",
                                      "color_jitter(hue=0.1)",
                                      "color_jitter(0.4, 0.4, 0.4, 0.1)",
                                      "grayscale(1)",
                                      "gaussian_blur(0.1..2)",
                                      "rotate(30)",
                                      "rotate(30, filter=bilinear)",
                                      "noise(0.1)",
                                      "cutout(112)",
                                      "random_erasing(1)",
                                      "random_erasing(1, value=random)",
                                      "solarize(p=1)",
                                      "mixup(0.2)",
                                      "cutmix(1)"};
    uint8_t *image = malloc(N_BYTES), *other = malloc(N_BYTES + 3 * N_IMAGES);
    uint8_t *scratch = malloc(dip_augment_scratch_bytes(SIZE));
    if (!image || !other || !scratch) return 1;
    const int n = argc > 1 ? argc - 1 : (int)(sizeof all / sizeof *all);
    for (int k = 0; k < n; k++) {
        const char *text = argc > 1 ? argv[k + 1] : all[k];
        dip_augmentation *list;
        if (dip_augmentation_parse(&list, text) != DIP_OK || list->views[0].n_ops != 1) {
            fprintf(stderr, "bench_augment: \"%s\" is not one operation: %s\n", text, dip_error());
            return 2;
        }
        for (unsigned i = 0; i < N_BYTES + 3 * N_IMAGES; i++) other[i] = (uint8_t)(i * 40503u >> 7);
        printf("%8.0f us  %s\n", time_op(&list->views[0].ops[0], image, other, scratch), text);
        dip_augmentation_free(list);
    }
    free(image);
    free(other);
    free(scratch);
    return 0;
}
