/* Command lines. An iterator cuts argv into arguments; parse and given walk it. */
#include "core/config_internal.h"

#include <stdlib.h>
#include <string.h>

#include "core/json.h"

typedef enum argument_kind {
    ARG_OPTION,  /* option, with value or items */
    ARG_CONFIG,  /* --config, with value */
    ARG_MISSING, /* option or --config that lacks its value */
    ARG_UNKNOWN, /* a flag that is in no row */
    ARG_STRAY    /* a word that is no flag */
} argument_kind;

typedef struct argument {
    argument_kind kind;
    const char *word;         /* as typed */
    int name_length;          /* of the part of `word` before '=' */
    const dip_option *option; /* NULL for --config, unknown and stray ones */
    const char *value;        /* NULL for a bare bool and for a list in words */
    char **items;             /* a list in words */
    int n_items;
    bool negated; /* --no-KEY */
} argument;

typedef struct cursor {
    const dip_option_table *table;
    int argc, at;
    char **argv;
} cursor;

static bool is_flag(const char *word)
{
    return word[0] == '-' && word[1] == '-';
}

static const dip_option *find_negated(const dip_option_table *table, const char *name, size_t n)
{
    if (n < 4 || strncmp(name, "no", 2) != 0 || (name[2] != '-' && name[2] != '_')) return NULL;
    const dip_option *option = dip_option_find(table, name + 3, n - 3);
    return option && option->type == DIP_OPT_BOOL ? option : NULL;
}

static void take_words_to_next_flag(cursor *c, argument *arg)
{
    arg->items = c->argv + c->at;
    while (c->at < c->argc && !is_flag(c->argv[c->at])) c->at++;
    arg->n_items = (int)(c->argv + c->at - arg->items);
}

static bool next_argument(cursor *c, argument *arg)
{
    if (c->at >= c->argc) return false;
    const char *word = c->argv[c->at++];
    *arg = (argument){.kind = ARG_STRAY, .word = word, .name_length = (int)strlen(word)};
    if (!is_flag(word)) return true;
    const char *name = word + 2, *equals = strchr(name, '=');
    size_t n = equals ? (size_t)(equals - name) : strlen(name);
    arg->name_length = (int)n + 2;
    arg->value = equals ? equals + 1 : NULL;
    arg->option = dip_option_find(c->table, name, n);
    if (!arg->option) {
        arg->option = find_negated(c->table, name, n);
        arg->negated = arg->option != NULL;
    }
    arg->kind = ARG_OPTION;
    if (!arg->option) {
        bool is_config = c->table->takes_config_file && n == 6 && memcmp(name, "config", 6) == 0;
        arg->kind = is_config ? ARG_CONFIG : ARG_UNKNOWN;
        /* What follows an unknown flag was meant for it: one mistake, not two. */
        if (!is_config && !equals) take_words_to_next_flag(c, arg);
        if (!is_config) return true;
    }
    if (equals) return true;
    if (arg->option && arg->option->type == DIP_OPT_BOOL) return true;
    if (arg->option && arg->option->type == DIP_OPT_LIST) {
        take_words_to_next_flag(c, arg);
        if (arg->n_items == 0) arg->kind = ARG_MISSING;
    } else if (c->at < c->argc && !is_flag(c->argv[c->at])) {
        arg->value = c->argv[c->at++];
    } else {
        arg->kind = ARG_MISSING;
    }
    return true;
}

/* The path of --config, NULL if it is not there. */
static const char *find_config(const dip_option_table *table, int argc, char **argv,
                               dip_mistakes *mistakes)
{
    cursor c = {table, argc, 0, argv};
    argument arg;
    const char *path = NULL;
    while (next_argument(&c, &arg)) {
        if (arg.kind != ARG_CONFIG) continue;
        if (path && mistakes) dip_mistakes_add(mistakes, "--config: given twice");
        if (!path) path = arg.value;
    }
    return path;
}

static void apply_file(const dip_option_table *table, void *fields, const char *path, bool *given,
                       dip_mistakes *mistakes)
{
    cJSON *object;
    dip_status status = dip_json_read(&object, path);
    if (status == DIP_NOMEM) mistakes->out_of_memory = true;
    if (status == DIP_OK)
        dip_config_apply_json(table, fields, object, path, given, mistakes);
    else
        dip_mistakes_add(mistakes, "--config: %s", dip_error());
    cJSON_Delete(object);
}

static void apply_option(const argument *arg, void *fields, bool first, dip_mistakes *mistakes)
{
    const dip_option *option = arg->option;
    char shown[128];
    snprintf(shown, sizeof shown, "--%.100s", option->key);
    if (option->type == DIP_OPT_LIST) {
        if (first) dip_option_clear(option, fields); /* flags win over the file and the default */
        if (arg->value) dip_option_set_text(option, fields, arg->value, shown, mistakes);
        for (int i = 0; i < arg->n_items; i++)
            dip_option_set_text(option, fields, arg->items[i], shown, mistakes);
        return;
    }
    if (!first) {
        dip_mistakes_add(mistakes, "%s: given twice", shown);
        return;
    }
    const char *value = arg->value;
    if (arg->negated && value) {
        dip_mistakes_add(mistakes, "--no-%s: takes no value", option->key);
        return;
    }
    if (!value) value = arg->negated ? "false" : "true"; /* a bool: the others have one */
    dip_option_set_text(option, fields, value, shown, mistakes);
}

static void apply_flags(const dip_option_table *table, void *fields, int argc, char **argv,
                        bool *given, dip_mistakes *mistakes)
{
    cursor c = {table, argc, 0, argv};
    argument arg;
    const dip_option *last_bool = NULL;
    while (next_argument(&c, &arg)) {
        int shown = arg.name_length < 80 ? arg.name_length : 80;
        const dip_option *bool_before = last_bool;
        last_bool = NULL;
        switch (arg.kind) {
        case ARG_OPTION: {
            size_t i = (size_t)(arg.option - table->options);
            apply_option(&arg, fields, !given[i], mistakes);
            given[i] = true;
            if (arg.option->type == DIP_OPT_BOOL && !arg.value) last_bool = arg.option;
            break;
        }
        case ARG_CONFIG:
            break; /* read before */
        case ARG_MISSING: {
            char allowed[400] = "a file";
            if (arg.option) {
                given[arg.option - table->options] = true; /* not also "required" */
                dip_option_allowed(allowed, sizeof allowed, arg.option);
            }
            dip_mistakes_add(mistakes, "%.*s: the value is missing, give %s", shown, arg.word,
                             allowed);
            break;
        }
        case ARG_UNKNOWN: {
            char suggestion[120], name[84];
            snprintf(name, sizeof name, "%.*s", shown, arg.word);
            dip_option_suggest(suggestion, sizeof suggestion, table, "--", name + 2);
            dip_mistakes_add(mistakes, "%s: no such option%s", name, suggestion);
            break;
        }
        case ARG_STRAY:
            if (bool_before)
                dip_mistakes_add(mistakes, "%.*s: unexpected word (write --%s or --%s=true)", shown,
                                 arg.word, bool_before->key, bool_before->key);
            else
                dip_mistakes_add(mistakes, "%.*s: unexpected word (an option begins with --)",
                                 shown, arg.word);
            break;
        }
    }
}

/* Required options that nobody gave, and required lists given as []. */
static void check_required(const dip_option_table *table, const void *fields, const bool *by_file,
                           const bool *by_flag, dip_mistakes *mistakes)
{
    for (size_t i = 0; i < table->n_options; i++) {
        const dip_option *option = &table->options[i];
        if (!option->required || by_flag[i]) continue;
        const dip_string_list *list = dip_option_field(option, fields);
        bool is_empty_list = option->type == DIP_OPT_LIST && list->n_items == 0;
        if (by_file[i] && !is_empty_list) continue;
        char allowed[400];
        dip_option_allowed(allowed, sizeof allowed, option);
        dip_mistakes_add(mistakes, "--%s: required, give %s", option->key, allowed);
    }
}

dip_status dip_config_parse(const dip_option_table *table, void *fields, int argc, char **argv)
{
    dip_mistakes mistakes = {0};
    bool *given = calloc(2 * table->n_options + 1, sizeof *given);
    if (!given) return dip_fail(DIP_NOMEM, "no memory for the configuration");
    bool *by_file = given, *by_flag = given + table->n_options;
    const char *path = find_config(table, argc, argv, &mistakes);
    if (path) apply_file(table, fields, path, by_file, &mistakes);
    apply_flags(table, fields, argc, argv, by_flag, &mistakes);
    check_required(table, fields, by_file, by_flag, &mistakes);
    free(given);
    return dip_mistakes_status(&mistakes);
}

bool dip_config_given(const dip_option_table *table, int argc, char **argv, const char *key)
{
    const dip_option *wanted = dip_option_find(table, key, strlen(key));
    if (!wanted) return false;
    cursor c = {table, argc, 0, argv};
    argument arg;
    while (next_argument(&c, &arg))
        if (arg.kind == ARG_OPTION && arg.option == wanted) return true;
    const char *path = find_config(table, argc, argv, NULL);
    cJSON *object = NULL;
    bool given = false;
    if (path && dip_json_read(&object, path) == DIP_OK) {
        const cJSON *value;
        cJSON_ArrayForEach(value, object) given |=
            value->string && !cJSON_IsNull(value) &&
            dip_option_find(table, value->string, strlen(value->string)) == wanted;
    }
    cJSON_Delete(object);
    return given;
}
