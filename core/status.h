/* status.h - one status type, and the sentence that goes with a failure.
 *
 * Usage:   functions return dip_status; DIP_TRY(call) forwards a failure; the place that
 *          fails calls dip_fail(code, "sentence that names the thing, the value, the limit").
 * Owns:    one sentence per thread, overwritten by the next failure of that thread.
 * Threads: safe; a failure that crosses threads is carried by its owner as a string.    */
#ifndef DIP_CORE_STATUS_H
#define DIP_CORE_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

/* Every status once: name and what the command line says in general about it. */
#define DIP_STATUSES(X)                                                                            \
    X(OK, "success")                                                                               \
    X(END, "no more items")                                                                        \
    X(IO, "the system refused a read or write")                                                    \
    X(FORMAT, "the data is not what its format promises")                                          \
    X(CONFIG, "the configuration or the command line is wrong")                                    \
    X(NOMEM, "not enough memory")                                                                  \
    X(UNSUPPORTED, "this build or machine cannot do that")                                         \
    X(NUMERIC, "a value is not finite")                                                            \
    X(INTERRUPTED, "stopped on request")                                                           \
    X(DEVICE, "a device failed")

typedef enum dip_status {
#define DIP_STATUS_ENUM(name, text) DIP_##name,
    DIP_STATUSES(DIP_STATUS_ENUM)
#undef DIP_STATUS_ENUM
} dip_status;

#if defined(__GNUC__)
#define DIP_PRINTF(fmt_index, args_index) __attribute__((format(printf, fmt_index, args_index)))
#else
#define DIP_PRINTF(fmt_index, args_index)
#endif

/* Forward any status but DIP_OK (DIP_END too: it is the caller's loop that knows it). */
#define DIP_TRY(expression)                                                                        \
    do {                                                                                           \
        dip_status dip_try_status_ = (expression);                                                 \
        if (dip_try_status_ != DIP_OK) return dip_try_status_;                                     \
    } while (0)

/* The same inside a function with one `fail:` label and a local `dip_status status`. */
#define DIP_TRY_GOTO(expression)                                                                   \
    do {                                                                                           \
        status = (expression);                                                                     \
        if (status != DIP_OK) goto fail;                                                           \
    } while (0)

/* Record the sentence for this thread and return `code`, so `return dip_fail(...)` works. */
dip_status dip_fail(dip_status code, const char *format, ...) DIP_PRINTF(2, 3);

/* Put words in front of the recorded sentence: "while reading FILE: " + old. Returns code. */
dip_status dip_fail_prefix(dip_status code, const char *format, ...) DIP_PRINTF(2, 3);

/* The last sentence recorded by this thread ("" if none). Valid until its next failure. */
const char *dip_error(void);

/* The general text of a status. */
const char *dip_status_text(dip_status status);

#ifdef __cplusplus
}
#endif
#endif
