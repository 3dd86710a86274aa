/* config_internal.h - what the config_*.c files share: mistakes, and setting one field.
 *
 * Mistakes are collected, not returned one by one: a person corrects them all before the next
 * try.                                                                                     */
#ifndef DIP_CORE_CONFIG_INTERNAL_H
#define DIP_CORE_CONFIG_INTERNAL_H

#include "core/config.h"

typedef struct dip_mistakes {
    char text[3500]; /* fits into dip_error() with room for a prefix */
    size_t used;
    size_t n, n_left_out;
    bool out_of_memory;
} dip_mistakes;

void dip_mistakes_add(dip_mistakes *mistakes, const char *format, ...) DIP_PRINTF(2, 3);
dip_status dip_mistakes_status(const dip_mistakes *mistakes); /* DIP_OK if there is none */

static inline void *dip_option_field(const dip_option *option, const void *fields)
{
    return (char *)(uintptr_t)fields + option->offset;
}

/* The option called key[0..n), '_' being '-'; NULL if there is none. */
const dip_option *dip_option_find(const dip_option_table *table, const char *key, size_t n);

/* ", did you mean --batch-size?" or "". `prefix` is "--" or "". */
void dip_option_suggest(char *out, size_t capacity, const dip_option_table *table,
                        const char *prefix, const char *key);

/* What may be given: "an integer from 1 to 8". */
void dip_option_allowed(char *out, size_t capacity, const dip_option *option);

/* Set a field from text (a bool from "true" or "false"; a list gets one item more). `shown` is
 * what a message calls the option: "--lr" or "run.json: lr". False if a mistake was added. */
bool dip_option_set_text(const dip_option *option, void *fields, const char *text,
                         const char *shown, dip_mistakes *mistakes);
bool dip_option_set_json(const dip_option *option, void *fields, const cJSON *value,
                         const char *shown, dip_mistakes *mistakes);

/* Free what a string or list field owns and make it "not given". */
void dip_option_clear(const dip_option *option, void *fields);

/* dip_config_from_json that only collects. given[i] is set for option i if not NULL. */
void dip_config_apply_json(const dip_option_table *table, void *fields, const cJSON *object,
                           const char *name, bool *given, dip_mistakes *mistakes);

#endif
