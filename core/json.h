/* json.h - strict JSON on top of cJSON.
 *
 * Refuses, with the line and column: anything after the value, duplicate keys, nesting
 * deeper than 64, numbers that are not finite, invalid UTF-8. The tree is cJSON's own;
 * free it with cJSON_Delete.                                                            */
#ifndef DIP_CORE_JSON_H
#define DIP_CORE_JSON_H

#include <stddef.h>

#include <cjson/cJSON.h>

#include "core/status.h"

/* Parse n bytes; `name` is what messages call the text. DIP_FORMAT, DIP_NOMEM. */
dip_status dip_json_parse(cJSON **out, const char *text, size_t n_bytes, const char *name);

/* Parse a file of at most 64 MiB. DIP_IO, DIP_FORMAT, DIP_NOMEM. */
dip_status dip_json_read(cJSON **out, const char *path);

/* Write pretty-printed JSON with a final newline, atomically. */
dip_status dip_json_write(const char *path, const cJSON *value);

#endif
