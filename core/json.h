/* json.h - strict JSON on top of cJSON.
 *
 * Refuses, with the line and column: anything after the value, duplicate keys, nesting
 * deeper than 64, numbers that are not finite, invalid UTF-8, NUL in a string, more than
 * 4,000,000 values. The tree is cJSON's own; free it with cJSON_Delete.                 */
#ifndef DIP_CORE_JSON_H
#define DIP_CORE_JSON_H

#include <stdbool.h>
#include <stddef.h>

#include <cjson/cJSON.h>

#include "core/status.h"

/* Parse n bytes; `name` is what messages call the text. DIP_FORMAT, DIP_NOMEM. */
dip_status dip_json_parse(cJSON **out, const char *text, size_t n_bytes, const char *name);

/* Parse a file of at most 64 MiB. DIP_IO, DIP_FORMAT, DIP_NOMEM. */
dip_status dip_json_read(cJSON **out, const char *path);

/* Print into a malloc'd string, on many lines (two blanks a level) or on one. Every number reads
 * back as the same double. DIP_NUMERIC if one is not finite, DIP_NOMEM. */
dip_status dip_json_print(char **out, const cJSON *value, bool pretty);

/* Write pretty-printed JSON with a final newline, atomically. Also DIP_IO. */
dip_status dip_json_write(const char *path, const cJSON *value);

/* Length in bytes of the UTF-8 sequence at `text` (n >= 1 bytes are there), 0 if it is none. */
size_t dip_utf8_length(const void *text, size_t n);

#endif
