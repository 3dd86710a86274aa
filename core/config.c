/* Whole tables: defaults, JSON in and out, freeing. Flags are in config_parse.c. */
#include "core/config_internal.h"

#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "core/number.h"

/* A default list is typed as words between blanks. */
static bool set_default_list(const dip_option *option, void *fields, const char *shown,
                             dip_mistakes *mistakes)
{
    char *words = strdup(option->default_text), *rest = NULL;
    mistakes->out_of_memory |= !words;
    bool fine = words;
    for (char *word = words ? strtok_r(words, " ", &rest) : NULL; word && fine;
         word = strtok_r(NULL, " ", &rest))
        fine = dip_option_set_text(option, fields, word, shown, mistakes);
    free(words);
    return fine;
}

dip_status dip_config_defaults(const dip_option_table *table, void *fields)
{
    dip_mistakes mistakes = {0};
    for (size_t i = 0; i < table->n_options; i++) { /* all, so that free is safe from here on */
        const dip_option *option = &table->options[i];
        void *field = dip_option_field(option, fields);
        switch (option->type) {
        case DIP_OPT_BOOL:
            *(bool *)field = false;
            break;
        case DIP_OPT_INT:
            *(int64_t *)field = 0;
            break;
        case DIP_OPT_FLOAT:
            *(double *)field = 0;
            break;
        case DIP_OPT_STRING:
        case DIP_OPT_CHOICE:
            *(char **)field = NULL;
            break;
        case DIP_OPT_LIST:
            *(dip_string_list *)field = (dip_string_list){0};
            break;
        }
    }
    for (size_t i = 0; i < table->n_options; i++) {
        const dip_option *option = &table->options[i];
        if (!option->default_text) continue;
        char shown[128];
        snprintf(shown, sizeof shown, "the default of --%s", option->key);
        if (option->type == DIP_OPT_LIST)
            set_default_list(option, fields, shown, &mistakes);
        else
            dip_option_set_text(option, fields, option->default_text, shown, &mistakes);
    }
    return dip_mistakes_status(&mistakes);
}

void dip_config_free(const dip_option_table *table, void *fields)
{
    for (size_t i = 0; i < table->n_options; i++) dip_option_clear(&table->options[i], fields);
}

void dip_config_apply_json(const dip_option_table *table, void *fields, const cJSON *object,
                           const char *name, bool *given, dip_mistakes *mistakes)
{
    if (!cJSON_IsObject(object)) {
        dip_mistakes_add(mistakes, "%s: a JSON object of options is needed", name);
        return;
    }
    bool *seen = calloc(table->n_options + 1, sizeof *seen);
    if (!seen) {
        mistakes->out_of_memory = true;
        return;
    }
    const cJSON *value;
    cJSON_ArrayForEach(value, object)
    {
        char shown[300], suggestion[120];
        snprintf(shown, sizeof shown, "%.180s: %.80s", name, value->string);
        const dip_option *option = dip_option_find(table, value->string, strlen(value->string));
        if (!option) {
            dip_option_suggest(suggestion, sizeof suggestion, table, "", value->string);
            dip_mistakes_add(mistakes, "%s: no such key%s", shown, suggestion);
            continue;
        }
        size_t i = (size_t)(option - table->options);
        if (seen[i])
            dip_mistakes_add(mistakes, "%s: given twice ('_' and '-' are the same)", shown);
        seen[i] = true;
        dip_option_set_json(option, fields, value, shown, mistakes);
        if (given && !cJSON_IsNull(value)) given[i] = true;
    }
    free(seen);
}

dip_status dip_config_from_json(const dip_option_table *table, void *fields, const cJSON *object,
                                const char *name)
{
    dip_mistakes mistakes = {0};
    dip_config_apply_json(table, fields, object, name, NULL, &mistakes);
    return dip_mistakes_status(&mistakes);
}

/* "batch-size" -> "batch_size", malloc'd. */
static char *json_key(const char *key)
{
    char *copy = strdup(key);
    for (char *c = copy; c && *c; c++)
        if (*c == '-') *c = '_';
    return copy;
}

/* A path may hold any bytes, JSON only UTF-8: the others become U+FFFD. */
static cJSON *json_string(const char *text)
{
    size_t n = strlen(text), used = 0;
    char *valid = n < SIZE_MAX / 3 ? malloc(3 * n + 1) : NULL;
    if (!valid) return NULL;
    for (size_t i = 0; i < n;) {
        size_t length = dip_utf8_length(text + i, n - i);
        memcpy(valid + used, length ? text + i : "\xef\xbf\xbd", length ? length : 3);
        used += length ? length : 3;
        i += length ? length : 1;
    }
    valid[used] = '\0';
    cJSON *string = cJSON_CreateString(valid);
    free(valid);
    return string;
}

static cJSON *field_to_json(const dip_option *option, const void *fields)
{
    const void *field = dip_option_field(option, fields);
    switch (option->type) {
    case DIP_OPT_BOOL:
        return cJSON_CreateBool(*(const bool *)field);
    case DIP_OPT_INT:
        return cJSON_CreateNumber((double)*(const int64_t *)field);
    case DIP_OPT_FLOAT:
        return cJSON_CreateNumber(*(const double *)field);
    case DIP_OPT_STRING:
    case DIP_OPT_CHOICE: {
        const char *text = *(char *const *)field;
        return text ? json_string(text) : cJSON_CreateNull();
    }
    case DIP_OPT_LIST: {
        const dip_string_list *list = field;
        cJSON *array = cJSON_CreateArray();
        for (size_t i = 0; array && i < list->n_items; i++) {
            cJSON *item = json_string(list->items[i]);
            if (!item || !cJSON_AddItemToArray(array, item)) {
                cJSON_Delete(item);
                cJSON_Delete(array);
                array = NULL;
            }
        }
        return array;
    }
    }
    return NULL;
}

cJSON *dip_config_to_json(const dip_option_table *table, const void *fields)
{
    cJSON *object = cJSON_CreateObject();
    for (size_t i = 0; object && i < table->n_options; i++) {
        char *key = json_key(table->options[i].key);
        cJSON *value = key ? field_to_json(&table->options[i], fields) : NULL;
        if (!value || !cJSON_AddItemToObject(object, key, value)) {
            cJSON_Delete(value);
            cJSON_Delete(object);
            object = NULL;
        }
        free(key);
    }
    return object;
}

void dip_config_print(const dip_option_table *table, const void *fields, FILE *out)
{
    for (size_t i = 0; i < table->n_options; i++) {
        const dip_option *option = &table->options[i];
        const void *field = dip_option_field(option, fields);
        for (const char *c = option->key; *c; c++) fputc(*c == '-' ? '_' : *c, out);
        fputc(':', out);
        switch (option->type) {
        case DIP_OPT_BOOL:
            fputs(*(const bool *)field ? " true" : " false", out);
            break;
        case DIP_OPT_INT:
            fprintf(out, " %lld", (long long)*(const int64_t *)field);
            break;
        case DIP_OPT_FLOAT: {
            char text[DIP_NUMBER_TEXT_BYTES];
            dip_number_write_double(text, *(const double *)field);
            fprintf(out, " %s", text);
            break;
        }
        case DIP_OPT_STRING:
        case DIP_OPT_CHOICE: {
            const char *text = *(char *const *)field;
            fprintf(out, " %s", text ? text : "none");
            break;
        }
        case DIP_OPT_LIST: {
            const dip_string_list *list = field;
            if (list->n_items == 0) fputs(" none", out);
            for (size_t k = 0; k < list->n_items; k++) fprintf(out, " %s", list->items[k]);
            break;
        }
        }
        fputc('\n', out);
    }
}
