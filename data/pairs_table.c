#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "data/pairs_internal.h"
#include "data/table.h"
#include "data/utf8.h"

/* Both texts lie in the open table. */
typedef struct row {
    const char *image, *caption;
    int64_t line;
} row;

typedef struct row_list {
    row *items;
    size_t n, capacity;
} row_list;

static int by_image(const void *a, const void *b)
{
    const row *x = a, *y = b;
    int order = strcmp(x->image, y->image);
    return order ? order : (x->line > y->line) - (x->line < y->line);
}

static dip_status add_row(row_list *rows, row item)
{
    if (rows->n == rows->capacity) {
        size_t capacity = rows->capacity ? 2 * rows->capacity : 1024;
        row *items = realloc(rows->items, capacity * sizeof *items);
        if (!items) return dip_pairs_no_memory("table");
        rows->items = items;
        rows->capacity = capacity;
    }
    rows->items[rows->n++] = item;
    return DIP_OK;
}

/* Blanks at both ends go; a newline inside would make two captions of one. */
static const char *clean_caption(char *text)
{
    for (char *c = text; *c; c++)
        if (*c == '\n' || *c == '\r') *c = ' ';
    text += strspn(text, " \t\v\f");
    size_t n = strlen(text);
    while (n > 0 && strchr(" \t\v\f", text[n - 1])) text[--n] = '\0';
    return text;
}

static dip_status read_rows(row_list *rows, dip_table *table, const char *path, size_t image_column,
                            size_t caption_column, dip_pairs_lost_fn *lost, void *context)
{
    char *const *fields;
    dip_status status;
    while ((status = dip_table_next(table, &fields)) != DIP_END) {
        char *where = dip_format("%s: line %" PRId64, path, dip_table_line(table));
        if (!where) return dip_pairs_no_memory(path);
        if (status == DIP_FORMAT) {
            lost(context, DIP_FAULT_UNREADABLE, where, dip_error());
            free(where);
            continue;
        }
        row item = {.image = fields[image_column],
                    .caption = clean_caption(fields[caption_column]),
                    .line = dip_table_line(table)};
        size_t caption_bytes = strlen(item.caption);
        status = DIP_OK;
        if (item.image[0] == '\0')
            lost(context, DIP_FAULT_NO_IMAGE, where, "no image path");
        else if (caption_bytes == 0)
            lost(context, DIP_FAULT_CAPTION_EMPTY, where, item.image);
        else if (!dip_utf8_valid(item.caption, caption_bytes))
            lost(context, DIP_FAULT_CAPTION_UTF8, where, item.image);
        else
            status = add_row(rows, item);
        free(where);
        DIP_TRY(status);
    }
    return DIP_OK;
}

/* rows[0..n) of one image -> its captions, one a line. */
static dip_status make_file(dip_pair_file *file, const row *rows, size_t n, const char *folder)
{
    size_t n_bytes = 1;
    file->line = rows[0].line;
    for (size_t i = 0; i < n; i++) n_bytes += strlen(rows[i].caption) + 1;
    file->image_path =
        rows[0].image[0] == '/' ? strdup(rows[0].image) : dip_path_join(folder, rows[0].image);
    file->text = malloc(n_bytes);
    if (!file->image_path || !file->text) return dip_pairs_no_memory(rows[0].image);
    char *at = file->text;
    for (size_t i = 0; i < n; i++) {
        size_t bytes = strlen(rows[i].caption);
        memcpy(at, rows[i].caption, bytes);
        at += bytes;
        *at++ = '\n';
    }
    at[-1] = '\0'; /* no newline after the last */
    return DIP_OK;
}

typedef struct span {
    size_t first, n;
    int64_t line;
} span;

static int by_line(const void *a, const void *b)
{
    const span *x = a, *y = b;
    return (x->line > y->line) - (x->line < y->line);
}

/* Group the rows by image, keep the groups in the order of their first lines. */
static dip_status make_files(dip_pair_file **files, size_t *n_files, const row_list *rows,
                             const char *folder)
{
    span *spans = malloc((rows->n + 1) * sizeof *spans);
    *files = calloc(rows->n + 1, sizeof **files);
    *n_files = 0;
    dip_status status = spans && *files ? DIP_OK : dip_pairs_no_memory("table");
    if (status == DIP_OK) {
        size_t n_spans = 0;
        if (rows->n > 1) qsort(rows->items, rows->n, sizeof *rows->items, by_image);
        for (size_t i = 0; i < rows->n; i++) {
            if (i > 0 && strcmp(rows->items[i].image, rows->items[i - 1].image) == 0)
                spans[n_spans - 1].n++;
            else
                spans[n_spans++] = (span){.first = i, .n = 1, .line = rows->items[i].line};
        }
        if (n_spans > 1) qsort(spans, n_spans, sizeof *spans, by_line);
        for (size_t i = 0; i < n_spans && status == DIP_OK; i++)
            status = make_file(&(*files)[(*n_files)++], rows->items + spans[i].first, spans[i].n,
                               folder);
    }
    free(spans);
    return status;
}

dip_status dip_pairs_open_table(dip_pairs **out, const char *path, char separator,
                                const char *image_column, const char *caption_column,
                                dip_pairs_lost_fn *lost, void *context)
{
    *out = NULL;
    dip_status status = DIP_OK;
    row_list rows = {0};
    dip_pair_file *files = NULL;
    size_t n_files = 0, image_at, caption_at;
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    dip_table *table = NULL;
    if (!folder) {
        status = dip_pairs_no_memory(path);
        goto fail;
    }
    DIP_TRY_GOTO(dip_table_open(&table, path, separator));
    DIP_TRY_GOTO(dip_table_column(table, &image_at, image_column));
    DIP_TRY_GOTO(dip_table_column(table, &caption_at, caption_column));
    DIP_TRY_GOTO(read_rows(&rows, table, path, image_at, caption_at, lost, context));
    DIP_TRY_GOTO(make_files(&files, &n_files, &rows, folder));
    status = dip_pairs_from_files(out, files, n_files, 0);
    files = NULL;
    n_files = 0;
fail:
    if (files) dip_pair_files_free(files, n_files);
    dip_table_close(table);
    free(rows.items);
    free(folder);
    return status;
}
