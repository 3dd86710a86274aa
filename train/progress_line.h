/* progress_line.h - the line a person reads while training: epoch, step, waiting and step time,
 * pairs a second, learning rate, logit scale, loss (and its mean since the last line), time left.
 */
#ifndef DIP_TRAIN_PROGRESS_LINE_H
#define DIP_TRAIN_PROGRESS_LINE_H

#include <stdint.h>

#include "train/checkpoint.h"
#include "train/schedule.h"

/* Sums since the last line. */
typedef struct dip_progress_window {
    double started, waited, loss_sum; /* seconds, seconds, sum over steps */
    int64_t n_steps;
} dip_progress_window;

typedef struct dip_progress_place {
    const dip_progress *progress;
    const dip_schedule *schedule;
    int64_t pairs_per_step, steps_per_epoch, step_of_epoch;
} dip_progress_place;

/* Log the line at time `now` (seconds) and begin a new window. */
void dip_progress_line(dip_progress_window *window, const dip_progress_place *place,
                       const dip_step_result *result, double lr, double now);

/* The number without the sign printf would show of a NaN. */
double dip_plain(double x);

#endif
