#include "data/pairs/table.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"

enum { MAX_COLUMNS = 4096 };
static const size_t max_bytes = (size_t)1 << 32;

struct dip_table {
    char *path;
    char *text, *at, *end; /* fields are unquoted in place */
    char separator;
    size_t n_columns;
    char **names, **fields; /* [n_columns] */
    int64_t line, next_line;
};

static dip_status no_memory(const char *path)
{
    return dip_fail(DIP_NOMEM, "%s: no memory to read it", path);
}

/* Take one field at table->at; *last when it ends its row. False: a quote is never closed. */
static bool take_field(dip_table *table, char **field, bool *last)
{
    char *in = table->at, *out = table->at;
    *field = out;
    if (in < table->end && *in == '"') {
        in++;
        for (;;) {
            if (in >= table->end) return false;
            if (*in == '"' && in[1] != '"') break; /* the text ends in a NUL */
            if (*in == '"') in++;
            if (*in == '\n') table->next_line++;
            *out++ = *in++;
        }
        in++;
    }
    while (in < table->end && *in != table->separator && *in != '\n') *out++ = *in++;
    *last = in >= table->end || *in == '\n';
    if (in < table->end && *in == '\n') table->next_line++;
    if (*last && out > *field && out[-1] == '\r') out--;
    table->at = in < table->end ? in + 1 : table->end;
    *out = '\0';
    return true;
}

static void skip_empty_lines(dip_table *table)
{
    for (;;) {
        char *at = table->at;
        if (at < table->end && *at == '\r') at++;
        if (at >= table->end || *at != '\n') return;
        table->at = at + 1;
        table->next_line++;
    }
}

static dip_status read_names(dip_table *table)
{
    skip_empty_lines(table);
    if (table->at >= table->end)
        return dip_fail(DIP_FORMAT, "%s: empty; a header line with column names must come first",
                        table->path);
    size_t capacity = 0;
    bool last = false;
    while (!last) {
        if (table->n_columns == capacity) {
            capacity = capacity ? 2 * capacity : 16;
            char **names =
                capacity <= MAX_COLUMNS ? realloc(table->names, capacity * sizeof *names) : NULL;
            if (!names)
                return dip_fail(DIP_FORMAT, "%s: a header of more than %d columns", table->path,
                                MAX_COLUMNS);
            table->names = names;
        }
        if (!take_field(table, &table->names[table->n_columns++], &last))
            return dip_fail(DIP_FORMAT, "%s: a quote in the header line is never closed",
                            table->path);
    }
    table->fields = malloc(table->n_columns * sizeof *table->fields);
    return table->fields ? DIP_OK : no_memory(table->path);
}

dip_status dip_table_open(dip_table **out, const char *path, char separator)
{
    *out = NULL;
    dip_status status = DIP_OK;
    dip_table *table = calloc(1, sizeof *table);
    size_t n_bytes;
    if (!table || !(table->path = strdup(path))) {
        status = no_memory(path);
        goto fail;
    }
    table->separator = separator;
    DIP_TRY_GOTO(dip_file_read(&table->text, &n_bytes, path, max_bytes));
    if (memchr(table->text, 0, n_bytes)) {
        status = dip_fail(DIP_FORMAT, "%s: not a text table: it holds NUL bytes", path);
        goto fail;
    }
    table->at = table->text;
    table->end = table->text + n_bytes;
    table->next_line = 1;
    if (n_bytes >= 3 && memcmp(table->text, "\xef\xbb\xbf", 3) == 0) table->at += 3;
    DIP_TRY_GOTO(read_names(table));
    *out = table;
    return DIP_OK;
fail:
    dip_table_close(table);
    return status;
}

void dip_table_close(dip_table *table)
{
    if (!table) return;
    free(table->path);
    free(table->text);
    free(table->names);
    free(table->fields);
    free(table);
}

dip_status dip_table_column(const dip_table *table, size_t *column, const char *name)
{
    for (size_t i = 0; i < table->n_columns; i++) {
        if (strcmp(table->names[i], name) != 0) continue;
        *column = i;
        return DIP_OK;
    }
    char list[512];
    size_t used = 0;
    list[0] = '\0';
    for (size_t i = 0; i < table->n_columns && used < sizeof list - 1; i++) {
        int n = snprintf(list + used, sizeof list - used, "%s'%s'", i ? ", " : "", table->names[i]);
        used += n > 0 ? (size_t)n : 0;
    }
    return dip_fail(DIP_CONFIG, "%s: no column '%s'; its columns are %s", table->path, name, list);
}

dip_status dip_table_next(dip_table *table, char *const **fields)
{
    skip_empty_lines(table);
    table->line = table->next_line;
    if (table->at >= table->end) return DIP_END;
    size_t n = 0;
    bool last = false;
    while (!last) {
        char *field;
        if (!take_field(table, &field, &last)) {
            table->at = table->end;
            return dip_fail(DIP_FORMAT,
                            "%s: line %" PRId64 ": a quote is never closed; the rest is not read",
                            table->path, table->line);
        }
        if (n < table->n_columns) table->fields[n] = field;
        n++;
    }
    if (n != table->n_columns)
        return dip_fail(DIP_FORMAT, "%s: line %" PRId64 ": %zu fields, the header has %zu",
                        table->path, table->line, n, table->n_columns);
    *fields = table->fields;
    return DIP_OK;
}

int64_t dip_table_line(const dip_table *table)
{
    return table->line;
}
