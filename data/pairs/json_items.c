#include "data/pairs/json_items.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"

static const size_t max_bytes = (size_t)1 << 32;

static const char *skip_space(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r')) at++;
    return at;
}

/* At the opening quote -> after the closing one; NULL: there is none. */
static const char *skip_string(const char *at, const char *end)
{
    for (at++; at < end; at++) {
        if (*at == '\\')
            at++;
        else if (*at == '"')
            return at + 1;
    }
    return NULL;
}

/* After the value that begins at `at`; NULL: it does not end. */
static const char *skip_value(const char *at, const char *end)
{
    int64_t depth = 0;
    while (at < end) {
        char c = *at;
        if (c == '"') {
            at = skip_string(at, end);
            if (!at || depth == 0) return at;
            continue;
        }
        if (depth == 0 && c != '{' && c != '[') {
            while (at < end && !strchr(",]} \t\r\n", *at)) at++;
            return at;
        }
        at++;
        if (c == '{' || c == '[') depth++;
        if ((c == '}' || c == ']') && --depth == 0) return at;
    }
    return NULL;
}

dip_status dip_json_file_open(dip_json_file *file, const char *path)
{
    *file = (dip_json_file){.path = path};
    size_t n_bytes;
    DIP_TRY(dip_file_read(&file->text, &n_bytes, path, max_bytes));
    const char *end = file->text + n_bytes, *start = file->text;
    if (n_bytes >= 3 && memcmp(start, "\xef\xbb\xbf", 3) == 0) start += 3;
    file->start = skip_space(start, end);
    file->end = file->start < end && *file->start == '{' ? skip_value(file->start, end) : NULL;
    if (file->end && skip_space(file->end, end) == end) return DIP_OK;
    dip_status status =
        dip_fail(DIP_FORMAT, "%s: not one whole JSON object%s", path,
                 file->end ? ": there is more text after it" : " (cut, or something else)");
    dip_json_file_close(file);
    return status;
}

void dip_json_file_close(dip_json_file *file)
{
    free(file->text);
    *file = (dip_json_file){0};
}

static dip_status refuse(const dip_json_file *file, const char *at, const char *what)
{
    return dip_fail(DIP_FORMAT, "%s: byte %td: %s", file->path, at - file->text, what);
}

dip_status dip_json_file_array(dip_json_items *items, const dip_json_file *file, const char *key)
{
    const char *at = skip_space(file->start + 1, file->end), *end = file->end - 1;
    size_t key_bytes = strlen(key);
    while (at < end) {
        const char *name = at, *value;
        if (*name != '"' || !(at = skip_string(name, end)))
            return refuse(file, name, "a key in double quotes is missing here");
        size_t name_bytes = (size_t)(at - name) - 2;
        at = skip_space(at, end);
        if (at >= end || *at != ':') return refuse(file, at, "':' is missing after the key");
        value = skip_space(at + 1, end);
        at = skip_value(value, end);
        if (!at || at == value) return refuse(file, value, "a value is missing here");
        if (name_bytes == key_bytes && memcmp(name + 1, key, key_bytes) == 0) {
            if (*value != '[' || at[-1] != ']')
                return refuse(file, value, "an array is missing here");
            *items = (dip_json_items){file, key, skip_space(value + 1, at), at - 1, 0};
            return DIP_OK;
        }
        at = skip_space(at, end);
        if (at < end && *at != ',') return refuse(file, at, "',' is missing here");
        if (at < end) at = skip_space(at + 1, end);
    }
    return DIP_END;
}

dip_status dip_json_items_next(dip_json_items *items, cJSON **item)
{
    *item = NULL;
    if (items->at >= items->end) return DIP_END;
    const char *start = items->at, *after = skip_value(start, items->end);
    if (!after) return refuse(items->file, start, "this item has no end");
    const char *next = skip_space(after, items->end);
    if (next < items->end && *next != ',') return refuse(items->file, next, "',' is missing here");
    items->at = next < items->end ? skip_space(next + 1, items->end) : items->end;
    char name[256];
    snprintf(name, sizeof name, "%s[%" PRId64 "]", items->key, items->number++);
    dip_status status = dip_json_parse(item, start, (size_t)(after - start), name);
    return status == DIP_FORMAT ? DIP_OK : status;
}
