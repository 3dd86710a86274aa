"""Print learning rates of open_clip_torch 3.3.0's schedules: kind lr warmup total step value.

Usage: python open_clip_schedule.py > open_clip_schedule.txt
"""
from open_clip_train.scheduler import const_lr, cosine_lr


class Optimizer:
    def __init__(self):
        self.param_groups = [{"lr": None}]


for lr, warmup, total in ((5e-4, 10, 100), (1e-3, 0, 7), (0.5, 2000, 32000), (3e-4, 5, 6)):
    for kind, make in (("cosine", cosine_lr), ("const", const_lr)):
        schedule = make(Optimizer(), lr, warmup, total)
        steps = {0, 1, warmup - 1, warmup, warmup + 1, total // 3, total // 2, total - 1}
        for step in sorted(s for s in steps if 0 <= s < total):
            print(kind, repr(lr), warmup, total, step, repr(float(schedule(step))))
