/* One option, one value: finding the row, checking, setting the field. */
#include "core/config_internal.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "core/number.h"

/* Beyond it a JSON number can come out as its neighbour. */
#define MAX_EXACT_INT 9007199254740991 /* 2^53 - 1 */

void dip_mistakes_add(dip_mistakes *mistakes, const char *format, ...)
{
    char line[700];
    va_list args;
    va_start(args, format);
    int wanted = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (wanted < 0) return;
    size_t n = strlen(line);
    if ((size_t)wanted > n) memcpy(line + n - 3, "...", 3);
    mistakes->n++;
    if (mistakes->used + n + 2 > sizeof mistakes->text) {
        mistakes->n_left_out++;
        return;
    }
    if (mistakes->used > 0) mistakes->text[mistakes->used++] = '\n';
    memcpy(mistakes->text + mistakes->used, line, n + 1);
    mistakes->used += n;
}

dip_status dip_mistakes_status(const dip_mistakes *mistakes)
{
    if (mistakes->out_of_memory) return dip_fail(DIP_NOMEM, "no memory for the configuration");
    if (mistakes->n == 0) return DIP_OK;
    if (mistakes->n_left_out > 0)
        return dip_fail(DIP_CONFIG, "%s\nand %zu more mistakes", mistakes->text,
                        mistakes->n_left_out);
    return dip_fail(DIP_CONFIG, "%s", mistakes->text);
}

static char fold(char c)
{
    return c == '_' ? '-' : (char)tolower((unsigned char)c);
}

const dip_option *dip_option_find(const dip_option_table *table, const char *key, size_t n)
{
    for (size_t i = 0; i < table->n_options; i++) {
        const char *own = table->options[i].key;
        size_t k = 0;
        while (k < n && own[k] != '\0' && own[k] == (key[k] == '_' ? '-' : key[k])) k++;
        if (k == n && own[k] == '\0') return &table->options[i];
    }
    return NULL;
}

/* Edit distance in which a swap of neighbours counts once (optimal string alignment). */
static size_t edit_distance(const char *a, size_t n_a, const char *b, size_t n_b)
{
    enum { MAX_CHARS = 64 };
    size_t rows[3][MAX_CHARS + 1];
    if (n_a > MAX_CHARS || n_b > MAX_CHARS) return SIZE_MAX;
    size_t *before = rows[0], *last = rows[1], *now = rows[2];
    for (size_t j = 0; j <= n_b; j++) last[j] = j;
    for (size_t i = 1; i <= n_a; i++) {
        now[0] = i;
        for (size_t j = 1; j <= n_b; j++) {
            char x = fold(a[i - 1]), y = fold(b[j - 1]);
            size_t best = last[j - 1] + (x != y);
            if (last[j] + 1 < best) best = last[j] + 1;
            if (now[j - 1] + 1 < best) best = now[j - 1] + 1;
            if (i > 1 && j > 1 && x == fold(b[j - 2]) && fold(a[i - 2]) == y &&
                before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
        size_t *oldest = before;
        before = last;
        last = now;
        now = oldest;
    }
    return last[n_b];
}

const char *dip_nearest_word(const char *word, const char *const *words, size_t n_words)
{
    const char *nearest = NULL;
    size_t n = strlen(word), best = SIZE_MAX;
    for (size_t i = 0; i < n_words; i++) {
        size_t length = strlen(words[i]);
        size_t distance = edit_distance(word, n, words[i], length);
        size_t allowed = (n > length ? n : length) / 3;
        if (allowed < 1) allowed = 1;
        size_t common = 0;
        while (common < n && common < length && fold(word[common]) == fold(words[i][common]))
            common++;
        /* One begins with the other: --batch for --batch-size, --epochs-total for --epochs. */
        if (common >= 3 && (common == n || common == length) && distance > 1)
            distance = 2;
        else if (distance > allowed)
            continue;
        if (distance < best) {
            best = distance;
            nearest = words[i];
        }
    }
    return nearest;
}

void dip_option_suggest(char *out, size_t capacity, const dip_option_table *table,
                        const char *prefix, const char *key)
{
    out[0] = '\0';
    const char **words = malloc((table->n_options + 1) * sizeof *words);
    if (!words) return; /* a message without its suggestion is still a message */
    size_t n = 0;
    for (size_t i = 0; i < table->n_options; i++) words[n++] = table->options[i].key;
    if (table->takes_config_file && prefix[0] != '\0') words[n++] = "config";
    const char *nearest = dip_nearest_word(key, words, n);
    if (nearest) {
        snprintf(out, capacity, ", did you mean %s%s?", prefix, nearest);
        if (prefix[0] == '\0')
            for (char *c = out; *c; c++)
                if (*c == '-') *c = '_';
    }
    free(words);
}

static const char *limit_text(char out[DIP_NUMBER_TEXT_BYTES], double limit)
{
    if (limit == floor(limit) && fabs(limit) <= 1e15)
        snprintf(out, DIP_NUMBER_TEXT_BYTES, "%.0f", limit);
    else
        dip_number_write_double(out, limit);
    return out;
}

void dip_option_allowed(char *out, size_t capacity, const dip_option *option)
{
    static const char *const kinds[] = {
        [DIP_OPT_BOOL] = "true or false", [DIP_OPT_INT] = "an integer",
        [DIP_OPT_FLOAT] = "a number",     [DIP_OPT_STRING] = "a text",
        [DIP_OPT_CHOICE] = "one of ",     [DIP_OPT_LIST] = "a list of texts"};
    const char *kind = kinds[option->type];
    char low[DIP_NUMBER_TEXT_BYTES], high[DIP_NUMBER_TEXT_BYTES];
    if (option->type == DIP_OPT_CHOICE)
        snprintf(out, capacity, "%s%s", kind, option->choices);
    else if ((option->type != DIP_OPT_INT && option->type != DIP_OPT_FLOAT) ||
             (option->min == 0 && option->max == 0))
        snprintf(out, capacity, "%s", kind);
    else if (isinf(option->max))
        snprintf(out, capacity, "%s of at least %s", kind, limit_text(low, option->min));
    else
        snprintf(out, capacity, "%s from %s to %s", kind, limit_text(low, option->min),
                 limit_text(high, option->max));
}

static bool refuse(const dip_option *option, const char *shown, const char *value,
                   dip_mistakes *mistakes)
{
    char allowed[400];
    dip_option_allowed(allowed, sizeof allowed, option);
    dip_mistakes_add(mistakes, "%s: %.80s%s is not allowed, give %s", shown, value,
                     strlen(value) > 80 ? "..." : "", allowed);
    return false;
}

static bool in_range(const dip_option *option, double value)
{
    if (option->min == 0 && option->max == 0) return true;
    return value >= option->min && value <= option->max;
}

static bool is_choice(const dip_option *option, const char *text)
{
    size_t n = strlen(text);
    for (const char *word = option->choices; word;) {
        size_t length = strcspn(word, "|");
        if (length == n && memcmp(word, text, n) == 0) return true;
        word = word[length] == '|' ? word + length + 1 : NULL;
    }
    return false;
}

void dip_option_clear(const dip_option *option, void *fields)
{
    if (option->type == DIP_OPT_STRING || option->type == DIP_OPT_CHOICE) {
        char **field = dip_option_field(option, fields);
        free(*field);
        *field = NULL;
    } else if (option->type == DIP_OPT_LIST) {
        dip_string_list *list = dip_option_field(option, fields);
        for (size_t i = 0; i < list->n_items; i++) free(list->items[i]);
        free(list->items);
        *list = (dip_string_list){0};
    }
}

static bool set_owned(const dip_option *option, void *fields, const char *text,
                      dip_mistakes *mistakes)
{
    char *copy = strdup(text);
    if (copy && option->type == DIP_OPT_LIST) {
        dip_string_list *list = dip_option_field(option, fields);
        char **grown = realloc(list->items, (list->n_items + 1) * sizeof *grown);
        if (grown) {
            list->items = grown;
            list->items[list->n_items++] = copy;
            return true;
        }
        free(copy);
        copy = NULL;
    }
    if (!copy) {
        mistakes->out_of_memory = true;
        return false;
    }
    dip_option_clear(option, fields);
    *(char **)dip_option_field(option, fields) = copy;
    return true;
}

bool dip_option_set_text(const dip_option *option, void *fields, const char *text,
                         const char *shown, dip_mistakes *mistakes)
{
    char quoted[128];
    snprintf(quoted, sizeof quoted, "\"%.80s%s\"", text, strlen(text) > 80 ? "..." : "");
    switch (option->type) {
    case DIP_OPT_BOOL: {
        bool on = strcmp(text, "true") == 0;
        if (!on && strcmp(text, "false") != 0) return refuse(option, shown, quoted, mistakes);
        *(bool *)dip_option_field(option, fields) = on;
        return true;
    }
    case DIP_OPT_INT: {
        int64_t value;
        if (dip_number_read_int(&value, text) != DIP_NUMBER_OK || value > MAX_EXACT_INT ||
            value < -MAX_EXACT_INT || !in_range(option, (double)value))
            return refuse(option, shown, quoted, mistakes);
        *(int64_t *)dip_option_field(option, fields) = value;
        return true;
    }
    case DIP_OPT_FLOAT: {
        double value;
        if (dip_number_read_double(&value, text) != DIP_NUMBER_OK || !in_range(option, value))
            return refuse(option, shown, quoted, mistakes);
        *(double *)dip_option_field(option, fields) = value;
        return true;
    }
    case DIP_OPT_CHOICE:
        if (!is_choice(option, text)) return refuse(option, shown, quoted, mistakes);
        return set_owned(option, fields, text, mistakes);
    case DIP_OPT_STRING:
    case DIP_OPT_LIST:
        /* An empty word is nearly always a shell variable that was not set. */
        if (text[0] == '\0' && (!option->default_text || option->default_text[0] != '\0')) {
            dip_mistakes_add(mistakes, "%s: an empty text is not allowed", shown);
            return false;
        }
        return set_owned(option, fields, text, mistakes);
    }
    return false;
}

static bool refuse_json(const dip_option *option, const char *shown, const cJSON *value,
                        dip_mistakes *mistakes)
{
    char *text;
    if (dip_json_print(&text, value, false) != DIP_OK) text = NULL;
    refuse(option, shown, text ? text : "this value", mistakes);
    free(text);
    return false;
}

bool dip_option_set_json(const dip_option *option, void *fields, const cJSON *value,
                         const char *shown, dip_mistakes *mistakes)
{
    double number = value->valuedouble;
    switch (option->type) {
    case DIP_OPT_BOOL:
        if (!cJSON_IsBool(value)) return refuse_json(option, shown, value, mistakes);
        *(bool *)dip_option_field(option, fields) = cJSON_IsTrue(value);
        return true;
    case DIP_OPT_INT:
        if (!cJSON_IsNumber(value) || number != floor(number) ||
            fabs(number) > (double)MAX_EXACT_INT || !in_range(option, number))
            return refuse_json(option, shown, value, mistakes);
        *(int64_t *)dip_option_field(option, fields) = (int64_t)number;
        return true;
    case DIP_OPT_FLOAT:
        if (!cJSON_IsNumber(value) || !isfinite(number) || !in_range(option, number))
            return refuse_json(option, shown, value, mistakes);
        *(double *)dip_option_field(option, fields) = number;
        return true;
    case DIP_OPT_STRING:
    case DIP_OPT_CHOICE:
        if (cJSON_IsNull(value)) {
            dip_option_clear(option, fields);
            return true;
        }
        if (!cJSON_IsString(value)) return refuse_json(option, shown, value, mistakes);
        return dip_option_set_text(option, fields, value->valuestring, shown, mistakes);
    case DIP_OPT_LIST: {
        if (!cJSON_IsArray(value) && !cJSON_IsNull(value))
            return refuse_json(option, shown, value, mistakes);
        dip_option_clear(option, fields);
        const cJSON *item;
        cJSON_ArrayForEach(item, value)
        {
            if (!cJSON_IsString(item)) return refuse_json(option, shown, item, mistakes);
            if (!dip_option_set_text(option, fields, item->valuestring, shown, mistakes))
                return false;
        }
        return true;
    }
    }
    return false;
}
