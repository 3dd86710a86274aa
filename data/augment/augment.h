/* augment.h - the list of augmentations: what happens to an image between its file and the batch.
 *
 *   decode, random_resized_crop(0.9..1), flip(0.5), color_jitter(0.4, 0.4, 0.4, 0.1, p=0.8)
 *
 * Text:    NAME(ARGUMENTS), separated by commas. An argument is a number, a range LOW..HIGH or a
 *          word, in the order below or as KEY=VALUE; an argument left out has the value below, and
 *          so has p, the probability that the operation is done. A range in a place that takes one
 *          number goes to the next place that takes a range. "LIST | LIST" makes two views of each
 *          image, "2 x LIST" two independent ones of the same list.
 *
 * - `decode` is what always comes first, and may be left out.
 *
 * The cut of the file's image, one at most, before all others (none: the run's way of evaluation):
 * - `random_resized_crop(size, scale=0.9..1, ratio=0.75..1.3333333333333333)`
 * - `resize(size)`: both sides to the model's, whatever the shape
 * - `center_crop(size)`: the shortest side to the model's, the middle cut out
 *
 * On size x size pixels, in any order:
 * - `flip(p=0.5)`: left and right
 * - `color_jitter(brightness=0, contrast=0, saturation=0, hue=0, p=1)`: in random order; x is
 *   1-x..1+x (hue: -x..x of the circle, x <= 0.5)
 * - `grayscale(p=0.1)`
 * - `gaussian_blur(sigma=0.1..2, p=1)`: in pixels
 * - `rotate(degrees, p=1, fill=0, filter=nearest)`: x is -x..x, counterclockwise; or `bilinear`
 * - `noise(sigma, p=1)`: normal, a share of the range: 0.1 is 25.5 of 255
 * - `cutout(size, p=1, value=0)`: a square with sides of that many pixels; 0..255 or `random`
 * - `random_erasing(p=0.5, scale=0.02..0.33, ratio=0.3..3.3, value=0)`
 * - `solarize(threshold=128, p=0.5)`
 *
 * In a list of one view: another sample, cut and changed by the list up to here, is mixed in; a
 * mixed sample is not mixed a second time:
 * - `mixup(alpha, p=1)`
 * - `cutmix(alpha, p=1)`
 *
 * Formulas are those of Pillow 13 (byte for byte), of torchvision for what is drawn, and of the
 * papers for cutout, mixup and cutmix; augment_ops.h has them. The size of a cut, if given, must be
 * the model's.
 *
 * Usage:   dip_augmentation_parse, dip_augmentation_check_size; free.
 * Threads: read-only after parse.
 * Errors:  DIP_CONFIG naming the character of the text; DIP_NOMEM. */
#ifndef DIP_DATA_AUGMENT_H
#define DIP_DATA_AUGMENT_H

#include <stdbool.h>

#include "core/status.h"

typedef struct dip_augmentation dip_augmentation;

dip_status dip_augmentation_parse(dip_augmentation **augmentation, const char *text);
void dip_augmentation_free(dip_augmentation *augmentation); /* accepts NULL */

int dip_augmentation_views(const dip_augmentation *augmentation);
bool dip_augmentation_mixes(const dip_augmentation *augmentation); /* has mixup or cutmix */

/* DIP_CONFIG when an operation names a size that is not the model's. */
dip_status dip_augmentation_check_size(const dip_augmentation *augmentation, int image_size);

/* The list with every argument spelled out; reads back as the same list. *text is malloc'd. */
dip_status dip_augmentation_print(char **text, const dip_augmentation *augmentation);

#endif
