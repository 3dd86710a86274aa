/* bench.h - what the parts of `diptych bench` share. */
#ifndef DIP_TOOLS_BENCH_H
#define DIP_TOOLS_BENCH_H

#include <stdbool.h>
#include <stddef.h>

#include "core/config.h"
#include "core/json.h"
#include "core/status.h"

double dip_bench_now(void); /* seconds of a clock that only goes forward */

/* Sorts values. */
double dip_bench_median(double *values, size_t n);

double dip_bench_peak_bytes(void); /* resident memory, the most there ever was */

/* Print the figures: one JSON object, or a line a figure. Frees them. DIP_NOMEM when NULL. */
dip_status dip_bench_report(cJSON *figures, bool json);

dip_status dip_bench_train(int argc, char **argv);
dip_status dip_bench_data(int argc, char **argv);
extern const dip_option_table dip_bench_train_table, dip_bench_data_table;

#endif
