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

/* One paragraph: the n bytes at `text`, in which a newline is a blank like any other. */
static void print_paragraph(FILE *out, int indent, int hang, const char *text, size_t n)
{
    int column = 0;
    for (size_t at = 0; at < n;) {
        size_t length = 0;
        while (at + length < n && text[at + length] != ' ' && text[at + length] != '\n') length++;
        int width = columns(text + at, length);
        if (width > 0) {
            bool first = column == 0;
            if (!first && column + 1 + width > PAGE_COLUMNS) {
                fputc('\n', out);
                column = 0;
            }
            if (column > 0)
                column += fprintf(out, " ");
            else
                column = fprintf(out, "%*s", first ? indent : indent + hang, "");
            fwrite(text + at, 1, length, out);
            column += width;
        }
        at += length + 1;
    }
    fputc('\n', out);
}

/* Bytes up to the end of the paragraph: an empty line, or one that begins with a blank. */
static size_t paragraph_length(const char *text)
{
    size_t n = strcspn(text, "\n");
    while (n > 0 && text[n] == '\n' && text[n + 1] != '\n' && text[n + 1] != ' ' &&
           text[n + 1] != '\0')
        n += 1 + strcspn(text + n + 1, "\n");
    return n;
}

void dip_print_wrapped(FILE *out, int indent, const char *text)
{
    while (*text != '\0') {
        bool as_it_is = *text == ' ';
        size_t n = as_it_is ? strcspn(text, "\n") : paragraph_length(text);
        if (n == 0)
            fputc('\n', out);
        else if (as_it_is)
            fprintf(out, "%*s%.*s\n", indent, "", (int)n, text);
        else
            print_paragraph(out, indent, 0, text, n);
        text += n + (text[n] == '\n');
    }
}

void dip_print_lines(FILE *out, int indent, const char *text)
{
    while (*text != '\0') {
        size_t n = strcspn(text, "\n");
        size_t blanks = strspn(text, " ");
        if (blanks > n) blanks = n;
        print_paragraph(out, indent + (int)blanks, 4, text, n);
        text += n + (text[n] == '\n');
    }
}

static void print_flag(const dip_option *option, FILE *out)
{
    if (option->type == DIP_OPT_BOOL) {
        fprintf(out, "  --%s, --no-%s\n", option->key, option->key);
        return;
    }
    static const char *const value_names[] = {[DIP_OPT_INT] = "N",
                                              [DIP_OPT_FLOAT] = "X",
                                              [DIP_OPT_STRING] = "TEXT",
                                              [DIP_OPT_CHOICE] = "WORD",
                                              [DIP_OPT_LIST] = "TEXT"};
    const char *value_name = option->value_name ? option->value_name : value_names[option->type];
    bool says_more = strstr(value_name, "...") != NULL;
    fprintf(out, "  --%s %s%s\n", option->key, value_name,
            option->type == DIP_OPT_LIST && !says_more ? " ..." : "");
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
