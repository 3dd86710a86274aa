#include "train/schedule.h"

#include <math.h>

double dip_schedule_lr(const dip_schedule *schedule, int64_t step)
{
    if (step < schedule->warmup)
        return schedule->lr * (double)(step + 1) / (double)schedule->warmup;
    if (schedule->kind == DIP_SCHEDULE_CONST || schedule->total <= schedule->warmup)
        return schedule->lr;
    const double done =
        (double)(step - schedule->warmup) / (double)(schedule->total - schedule->warmup);
    return 0.5 * (1.0 + cos(3.14159265358979323846 * (done < 1.0 ? done : 1.0))) * schedule->lr;
}
