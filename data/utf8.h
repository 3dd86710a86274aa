/* utf8.h - is this text, and how is it shown in one line of a log? */
#ifndef DIP_DATA_UTF8_H
#define DIP_DATA_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Well-formed UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF. NUL is allowed. */
bool dip_utf8_valid(const char *text, size_t n_bytes);

/* Copy a name for a message: control characters, backslashes and (when the whole is not UTF-8)
 * bytes above 126 become \xNN, so that a name cannot forge or break lines. Always terminated;
 * cut to n, also when longer. Returns buf. */
const char *dip_text_quote(char *buf, size_t n, const char *text);

#endif
