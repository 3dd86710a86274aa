/* utf8.h - is this text, its characters, and how is it shown in one line of a log? */
#ifndef DIP_DATA_UTF8_H
#define DIP_DATA_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Well-formed UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF. NUL is allowed. */
bool dip_utf8_valid(const char *text, size_t n_bytes);

/* The character that *at points to, in well-formed text; *at moves behind it. */
uint32_t dip_utf8_take(const char **at);
/* Write one character (1 to 4 bytes); returns where the next goes. */
char *dip_utf8_put(char *out, uint32_t character);

/* Python's str.lower() of well-formed text (Unicode 14), but that only letters with both cases
 * count as letters around a final sigma. A character of two bytes may become three: `out` has room
 * for n_bytes + n_bytes / 2. Returns the bytes written. */
size_t dip_utf8_lower(char *out, const char *text, size_t n_bytes);

/* Copy a name for a message: control characters (also U+0080..U+009F), backslashes and (when the
 * whole is not UTF-8) bytes above 126 become \xNN, so that a name cannot forge or break lines or
 * steer a terminal. Always terminated; cut between characters to fit into n bytes. Returns buf. */
const char *dip_text_quote(char *buf, size_t n, const char *text);

#endif
