/* augment_list.h - inside data/: a parsed list, made by augment_parse.c, followed by fill.c. */
#ifndef DIP_DATA_AUGMENT_LIST_H
#define DIP_DATA_AUGMENT_LIST_H

#include "data/augment/augment.h"

typedef enum dip_augment_kind {
    DIP_AUGMENT_DECODE,
    DIP_AUGMENT_RANDOM_RESIZED_CROP,
    DIP_AUGMENT_RESIZE,
    DIP_AUGMENT_CENTER_CROP,
    DIP_AUGMENT_FLIP,
    DIP_AUGMENT_COLOR_JITTER,
    DIP_AUGMENT_GRAYSCALE,
    DIP_AUGMENT_GAUSSIAN_BLUR,
    DIP_AUGMENT_ROTATE,
    DIP_AUGMENT_NOISE,
    DIP_AUGMENT_CUTOUT,
    DIP_AUGMENT_RANDOM_ERASING,
    DIP_AUGMENT_SOLARIZE,
    DIP_AUGMENT_MIXUP,
    DIP_AUGMENT_CUTMIX,
    DIP_N_AUGMENT_KINDS
} dip_augment_kind;

enum { DIP_AUGMENT_MAX_ARGS = 5, DIP_AUGMENT_MAX_OPS = 32, DIP_AUGMENT_MAX_VIEWS = 16 };

/* A number has low == high. */
typedef struct dip_augment_arg {
    double low, high;
} dip_augment_arg;

/* The places of the arguments in dip_augment_op.args, by operation. */
enum { DIP_CROP_SIZE, DIP_CROP_SCALE, DIP_CROP_RATIO };
enum { DIP_JITTER_BRIGHTNESS, DIP_JITTER_CONTRAST, DIP_JITTER_SATURATION, DIP_JITTER_HUE };
enum { DIP_ROTATE_DEGREES, DIP_ROTATE_P, DIP_ROTATE_FILL, DIP_ROTATE_BILINEAR };
enum { DIP_CUTOUT_SIZE, DIP_CUTOUT_P, DIP_CUTOUT_VALUE };
enum { DIP_ERASING_P, DIP_ERASING_SCALE, DIP_ERASING_RATIO, DIP_ERASING_VALUE };
enum { DIP_FIRST_ARG }; /* of gaussian_blur, noise, solarize, mixup, cutmix */

enum { DIP_AUGMENT_VALUE_RANDOM = -1 }; /* the word "random" */

typedef struct dip_augment_op {
    dip_augment_kind kind;
    double p; /* 1 for those that have none */
    dip_augment_arg args[DIP_AUGMENT_MAX_ARGS];
} dip_augment_op;

/* `decode` is not kept; ops[0] is the cut if there is one. */
typedef struct dip_augment_view {
    dip_augment_op ops[DIP_AUGMENT_MAX_OPS];
    int n_ops;
} dip_augment_view;

struct dip_augmentation {
    int n_views;
    dip_augment_view views[];
};

static inline bool dip_augment_is_cut(dip_augment_kind kind)
{
    return kind >= DIP_AUGMENT_RANDOM_RESIZED_CROP && kind <= DIP_AUGMENT_CENTER_CROP;
}

static inline bool dip_augment_is_mix(dip_augment_kind kind)
{
    return kind == DIP_AUGMENT_MIXUP || kind == DIP_AUGMENT_CUTMIX;
}

#endif
