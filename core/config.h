/* config.h - options from one table: command-line flag, JSON key, help text, refusals.
 *
 * A row describes a field of a caller's struct. From the table come: the flag --key VALUE
 * (or --key=VALUE; a bool is --key or --no-key, or --key=true/false), the JSON key (the
 * same word; '_' and '-' are the same letter), the lines of `diptych help COMMAND`, the
 * dump in params.txt and the resolved JSON that is saved with a checkpoint.
 *
 * Usage:   dip_config_defaults, then dip_config_parse (it reads --config FILE first, flags
 *          win over it), then dip_config_check happens inside parse; free with
 *          dip_config_free.
 * Owns:    strings and string lists in the struct are malloc'd copies, freed by
 *          dip_config_free.
 * Errors:  DIP_CONFIG with every mistake in one text, one a line: key, value, what is
 *          allowed, the nearest known name.                                             */
#ifndef DIP_CORE_CONFIG_H
#define DIP_CORE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cjson/cJSON.h>

#include "core/status.h"

typedef enum dip_option_type {
    DIP_OPT_BOOL,   /* bool */
    DIP_OPT_INT,    /* int64_t of at most 2^53 - 1 either way, which JSON carries exactly */
    DIP_OPT_FLOAT,  /* double, finite */
    DIP_OPT_STRING, /* char * (NULL = not given) */
    DIP_OPT_CHOICE, /* char *, one of the words in `choices`, split by '|' */
    DIP_OPT_LIST    /* dip_string_list: every following word up to the next --flag */
} dip_option_type;

typedef struct dip_string_list {
    char **items;
    size_t n_items;
} dip_string_list;

typedef struct dip_option {
    const char *key; /* "batch-size" */
    dip_option_type type;
    size_t offset;            /* offsetof(struct, field) */
    const char *default_text; /* as it would be typed; NULL = none (string, list) */
    double min, max;          /* INT, FLOAT: both inclusive; min == max == 0: no limits;
                                 max INFINITY: no upper limit */
    const char *choices;      /* CHOICE: "negative|positive|mask" */
    bool required;
    const char *value_name; /* help: "N", "FILE", "PATTERN" ... */
    const char *help;       /* one or more sentences; the help printer wraps them */
} dip_option;

typedef struct dip_option_table {
    const dip_option *options;
    size_t n_options;
    bool takes_config_file; /* accept --config FILE */
} dip_option_table;

/* Fill `fields` (any content) with the defaults. */
dip_status dip_config_defaults(const dip_option_table *table, void *fields);

/* Parse argv[0..argc) (no program or command name) into `fields`. A word that is not a flag
 * and belongs to no list is a mistake. A value that begins with "--" is written --key=VALUE.
 * An option may be given once; a list's words add up: --key A B --key=C. */
dip_status dip_config_parse(const dip_option_table *table, void *fields, int argc, char **argv);

/* Was the option given by flag or in the --config file (rather than left at its default)?
 * `argc, argv` as passed to parse. */
bool dip_config_given(const dip_option_table *table, int argc, char **argv, const char *key);

/* Read keys of a JSON object into `fields` (used for --config and for saved runs); keys that
 * are not there keep what `fields` has, null means "not given". `name` is what messages call
 * the object. */
dip_status dip_config_from_json(const dip_option_table *table, void *fields, const cJSON *object,
                                const char *name);

/* The resolved configuration, for dip_config_from_json and for people. JSON keys use '_' as
 * open_clip's params do. Bytes that are not UTF-8 (possible in paths) become U+FFFD in JSON.
 * NULL only when out of memory. */
cJSON *dip_config_to_json(const dip_option_table *table, const void *fields);
void dip_config_print(const dip_option_table *table, const void *fields, FILE *out);

/* The OPTIONS part of a help page, wrapped to 80 columns. */
void dip_config_print_help(const dip_option_table *table, FILE *out);

void dip_config_free(const dip_option_table *table, void *fields); /* zeroed struct is fine */

/* Print text wrapped at 80 columns, each line after `indent` blanks. An empty line parts
 * paragraphs, in which line ends are blanks; a line that begins with a blank is printed as it is.
 */
void dip_print_wrapped(FILE *out, int indent, const char *text);

/* The same line by line: what does not fit goes on the next, four blanks further in. */
void dip_print_lines(FILE *out, int indent, const char *text);

/* The nearest of n words to `word` by edit distance, NULL if none is near enough to suggest. */
const char *dip_nearest_word(const char *word, const char *const *words, size_t n_words);

#endif
