/* Help pages: wrapping, and the OPTIONS part. */
#include "core/config_internal.h"

#include <string.h>

enum { PAGE_COLUMNS = 80 };

/* Columns of a word: code points, not bytes. */
static int columns(const char *word, size_t n)
{
    int count = 0;
    for (size_t i = 0; i < n; i++) count += ((unsigned char)word[i] & 0xc0) != 0x80;
    return count;
}

static void print_line_wrapped(FILE *out, int indent, const char *line, size_t n)
{
    int column = 0;
    for (size_t at = 0; at < n;) {
        size_t length = 0;
        while (at + length < n && line[at + length] != ' ') length++;
        int width = columns(line + at, length);
        if (width > 0) {
            if (column > indent && column + 1 + width > PAGE_COLUMNS) {
                fputc('\n', out);
                column = 0;
            }
            if (column == 0) column = fprintf(out, "%*s", indent, "");
            else {
                fputc(' ', out);
                column++;
            }
            fwrite(line + at, 1, length, out);
            column += width;
        }
        at += length + 1;
    }
    fputc('\n', out);
}

void dip_print_wrapped(FILE *out, int indent, const char *text)
{
    while (*text != '\0') {
        size_t n = strcspn(text, "\n");
        if (n == 0) fputc('\n', out);
        else if (text[0] == ' ') fprintf(out, "%*s%.*s\n", indent, "", (int)n, text);
        else print_line_wrapped(out, indent, text, n);
        text += n + (text[n] == '\n');
    }
}

static void print_flag(const dip_option *option, FILE *out)
{
    if (option->type == DIP_OPT_BOOL) {
        fprintf(out, "  --%s, --no-%s\n", option->key, option->key);
        return;
    }
    static const char *const value_names[] = {
        [DIP_OPT_INT] = "N", [DIP_OPT_FLOAT] = "X", [DIP_OPT_STRING] = "TEXT",
        [DIP_OPT_CHOICE] = "WORD", [DIP_OPT_LIST] = "TEXT"};
    const char *value_name = option->value_name ? option->value_name : value_names[option->type];
    fprintf(out, "  --%s %s%s\n", option->key, value_name,
            option->type == DIP_OPT_LIST ? " ..." : "");
}

/* "One of a|b. Required. Default: 64." */
static void describe(char *out, size_t capacity, const dip_option *option)
{
    char allowed[400] = "";
    bool limited = (option->type == DIP_OPT_INT || option->type == DIP_OPT_FLOAT) &&
                   (option->min != 0 || option->max != 0);
    if (limited || option->type == DIP_OPT_CHOICE) {
        dip_option_allowed(allowed, sizeof allowed, option);
        if (allowed[0] >= 'a' && allowed[0] <= 'z') allowed[0] = (char)(allowed[0] - 'a' + 'A');
    }
    const char *fallback = option->default_text;
    if (option->type == DIP_OPT_BOOL && !fallback) fallback = "false";
    if (fallback && fallback[0] == '\0') fallback = NULL;
    snprintf(out, capacity, "%s%s%s%s%s%s", allowed, allowed[0] ? ". " : "",
             option->required ? "Required. " : "", fallback ? "Default: " : "",
             fallback ? fallback : "", fallback ? "." : "");
}

void dip_config_print_help(const dip_option_table *table, FILE *out)
{
    if (table->takes_config_file) {
        fputs("  --config FILE\n", out);
        dip_print_wrapped(out, 8,
                          "Read options from a JSON object first; flags win over it. A key is the "
                          "name of an option without its dashes in front: {\"batch_size\": 64}.");
    }
    for (size_t i = 0; i < table->n_options; i++) {
        const dip_option *option = &table->options[i];
        print_flag(option, out);
        if (option->help) dip_print_wrapped(out, 8, option->help);
        char facts[700];
        describe(facts, sizeof facts, option);
        if (facts[0] != '\0') dip_print_wrapped(out, 8, facts);
    }
}
