/* log.h - lines for people: "%Y-%m-%d,%H:%M:%S | INFO | text" on stderr and in a file.
 *
 * Usage:   dip_log_open_file once a run has a folder; dip_info / dip_warn anywhere. ERROR lines go
 *          to the file alone: on stderr the program itself says what a command ended with.
 * Owns:    the log file, closed by dip_log_close_file.
 * Threads: safe; one line is written at a time.                                         */
#ifndef DIP_CORE_LOG_H
#define DIP_CORE_LOG_H

#include <stdbool.h>

#include "core/status.h"

typedef enum dip_log_level { DIP_LOG_INFO, DIP_LOG_WARNING, DIP_LOG_ERROR } dip_log_level;

void dip_log(dip_log_level level, const char *format, ...) DIP_PRINTF(2, 3);
#define dip_info(...) dip_log(DIP_LOG_INFO, __VA_ARGS__)
#define dip_warn(...) dip_log(DIP_LOG_WARNING, __VA_ARGS__)

/* Quiet hides INFO lines on stderr (the file still gets them). */
void dip_log_set_quiet(bool quiet);

/* Append every line to this file too. DIP_IO. */
dip_status dip_log_open_file(const char *path);
void dip_log_close_file(void);

#endif
