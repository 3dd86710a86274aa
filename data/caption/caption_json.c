#include "data/caption/caption_json.h"

#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "core/utf8.h"

static bool is_blank_text(const char *text)
{
    return text[strspn(text, " \t\n\v\f\r")] == '\0';
}

static bool is_list_of_strings(const cJSON *value)
{
    if (!cJSON_IsArray(value)) return false;
    const cJSON *item;
    cJSON_ArrayForEach(item, value) if (!cJSON_IsString(item)) return false;
    return true;
}

/* One caption a line: line ends inside an item become spaces. */
static char *join_items(const cJSON *list)
{
    size_t n = 1;
    const cJSON *item;
    cJSON_ArrayForEach(item, list) n += strlen(item->valuestring) + 1;
    char *text = malloc(n), *out = text;
    if (!text) return NULL;
    cJSON_ArrayForEach(item, list)
    {
        for (const char *c = item->valuestring; *c; c++) *out++ = *c == '\n' ? ' ' : *c;
        *out++ = '\n';
    }
    *out = '\0';
    return text;
}

/* DIP_FORMAT: this key has none. */
static dip_status take_value(char **text, dip_fault_kind *fault, const cJSON *object,
                             const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    *fault = DIP_FAULT_NO_CAPTION;
    if (!value) return dip_fail(DIP_FORMAT, "its .json has no key '%s'", key);
    if (!cJSON_IsString(value) && !is_list_of_strings(value))
        return dip_fail(DIP_FORMAT, "'%s' in its .json is not a string", key);
    *text = cJSON_IsString(value) ? strdup(value->valuestring) : join_items(value);
    if (!*text) return dip_fail(DIP_NOMEM, "no memory for a caption");
    const bool too_long = strlen(*text) > DIP_CAPTION_MAX_BYTES;
    if (!too_long && !is_blank_text(*text)) return DIP_OK;
    free(*text);
    *text = NULL;
    if (too_long)
        return dip_fail(DIP_FORMAT, "'%s' in its .json has more than %d bytes", key,
                        (int)DIP_CAPTION_MAX_BYTES);
    *fault = DIP_FAULT_CAPTION_EMPTY;
    return dip_fail(DIP_FORMAT, "'%s' in its .json is empty", key);
}

dip_status dip_caption_read_json(char **text, size_t *n_bytes, dip_fault_kind *fault,
                                 const char *json, size_t json_bytes, const char *const *keys,
                                 size_t n_keys)
{
    *text = NULL;
    *n_bytes = 0;
    *fault = DIP_FAULT_CAPTION_UTF8;
    if (!dip_utf8_valid(json, json_bytes)) return dip_fail(DIP_FORMAT, "its .json is not UTF-8");
    *fault = DIP_FAULT_NO_CAPTION;
    cJSON *object = NULL;
    DIP_TRY(dip_json_parse(&object, json, json_bytes, "its .json"));
    dip_status status = dip_fail(DIP_FORMAT, "no key is named for its .json");
    for (size_t i = 0; i < n_keys && status == DIP_FORMAT; i++)
        status = take_value(text, fault, object, keys[i]);
    cJSON_Delete(object);
    if (status == DIP_OK) *n_bytes = strlen(*text);
    return status;
}

dip_status dip_caption_from_json(char **text, size_t *n_bytes, const char *json, size_t json_bytes,
                                 const char *key)
{
    dip_fault_kind fault;
    return dip_caption_read_json(text, n_bytes, &fault, json, json_bytes, &key, 1);
}
