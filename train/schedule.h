/* schedule.h - the learning rate of a step (open_clip's formulas).
 *
 * Warm-up:  lr (step + 1) / warmup.
 * cosine:   lr (1 + cos(pi (step - warmup) / (total - warmup))) / 2, to zero.
 * const:    lr.                                                                              */
#ifndef DIP_TRAIN_SCHEDULE_H
#define DIP_TRAIN_SCHEDULE_H

#include <stdint.h>

typedef enum dip_schedule_kind { DIP_SCHEDULE_COSINE, DIP_SCHEDULE_CONST } dip_schedule_kind;

typedef struct dip_schedule {
    dip_schedule_kind kind;
    double lr;
    int64_t warmup, total; /* steps */
} dip_schedule;

double dip_schedule_lr(const dip_schedule *schedule, int64_t step);

#endif
