#include "core/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { SENTENCE_BYTES = 4096 };

static _Thread_local char sentence[SENTENCE_BYTES];

dip_status dip_fail(dip_status code, const char *format, ...)
{
    char fresh[SENTENCE_BYTES]; /* the arguments may point into the old sentence */
    va_list args;
    va_start(args, format);
    vsnprintf(fresh, sizeof fresh, format, args);
    va_end(args);
    memcpy(sentence, fresh, sizeof fresh);
    return code;
}

dip_status dip_fail_prefix(dip_status code, const char *format, ...)
{
    char fresh[SENTENCE_BYTES];
    va_list args;
    va_start(args, format);
    int used = vsnprintf(fresh, sizeof fresh, format, args);
    va_end(args);
    if (used >= 0 && used < SENTENCE_BYTES)
        snprintf(fresh + used, sizeof fresh - (size_t)used, "%s", sentence);
    memcpy(sentence, fresh, sizeof fresh);
    return code;
}

const char *dip_error(void)
{
    return sentence;
}

const char *dip_status_text(dip_status status)
{
    static const char *const texts[] = {
#define STATUS_TEXT(name, text) [DIP_##name] = text,
        DIP_STATUSES(STATUS_TEXT)
#undef STATUS_TEXT
    };
    if ((unsigned)status >= sizeof texts / sizeof texts[0]) return "unknown status";
    return texts[status];
}
