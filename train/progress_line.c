#include "train/progress_line.h"

#include <math.h>

#include "core/log.h"

double dip_plain(double x)
{
    return isnan(x) ? (double)NAN : x;
}

void dip_progress_line(dip_progress_window *window, const dip_progress_place *place,
                       const dip_step_result *result, double lr, double now)
{
    const dip_progress *progress = place->progress;
    const int64_t pairs = place->pairs_per_step, total = place->schedule->total;
    const double steps = (double)window->n_steps, per_step = (now - window->started) / steps;
    const int64_t left = (int64_t)(per_step * (double)(total - progress->step) + 0.5);
    dip_info("Train Epoch: %lld [%8lld/%lld (%.0f%%)] Step: %lld/%lld Data (t): %.3f "
             "Batch (t): %.3f, %.0f/s LR: %.6f Logit Scale: %.3f Loss: %.4f (%.4f) "
             "Left: %02lld:%02lld:%02lld",
             (long long)progress->epoch, (long long)(place->step_of_epoch * pairs),
             (long long)(place->steps_per_epoch * pairs),
             100.0 * (double)place->step_of_epoch / (double)place->steps_per_epoch,
             (long long)progress->step, (long long)total, window->waited / steps, per_step,
             (double)pairs / per_step, lr, result->logit_scale, dip_plain(result->loss),
             dip_plain(window->loss_sum / steps), (long long)(left / 3600),
             (long long)(left / 60 % 60), (long long)(left % 60));
    *window = (dip_progress_window){.started = now};
}
