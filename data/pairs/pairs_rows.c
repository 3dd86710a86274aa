/* (image, caption) rows of a table or JSON file become a list of image files with captions. */
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "data/pairs/pairs_internal.h"
#include "core/utf8.h"

enum { BLOCK_BYTES = 1 << 16 };

/* Copied texts lie one after the other in blocks, which never move. */
struct text_block {
    struct text_block *next;
    size_t used, capacity;
    char bytes[];
};

char *dip_pair_rows_keep(dip_pair_rows *rows, const char *text)
{
    size_t n = strlen(text) + 1;
    struct text_block *block = rows->texts;
    if (!block || block->capacity - block->used < n) {
        size_t capacity = n > BLOCK_BYTES ? n : BLOCK_BYTES;
        block = malloc(sizeof *block + capacity);
        if (!block) return NULL;
        *block = (struct text_block){.next = rows->texts, .capacity = capacity};
        rows->texts = block;
    }
    char *copy = block->bytes + block->used;
    memcpy(copy, text, n);
    block->used += n;
    return copy;
}

void dip_pair_rows_free(dip_pair_rows *rows)
{
    while (rows->texts) {
        struct text_block *next = rows->texts->next;
        free(rows->texts);
        rows->texts = next;
    }
    free(rows->items);
    *rows = (dip_pair_rows){0};
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

static dip_status push(dip_pair_rows *rows, dip_pair_row item)
{
    if (rows->n == rows->capacity) {
        size_t capacity = rows->capacity ? 2 * rows->capacity : 1024;
        dip_pair_row *items = realloc(rows->items, capacity * sizeof *items);
        if (!items) return dip_pairs_no_memory("rows");
        rows->items = items;
        rows->capacity = capacity;
    }
    rows->items[rows->n++] = item;
    return DIP_OK;
}

dip_status dip_pair_rows_add(dip_pair_rows *rows, const char *image, char *caption, int64_t place,
                             int64_t line, const char *where, dip_pairs_lost_fn *lost,
                             void *context)
{
    dip_pair_row row = {image, clean_caption(caption), place, line};
    size_t caption_bytes = strlen(row.caption);
    if (image[0] == '\0')
        lost(context, DIP_FAULT_NO_IMAGE, where, "no image path");
    else if (caption_bytes == 0)
        lost(context, DIP_FAULT_CAPTION_EMPTY, where, image);
    else if (!dip_utf8_valid(row.caption, caption_bytes))
        lost(context, DIP_FAULT_CAPTION_UTF8, where, image);
    else
        return push(rows, row);
    return DIP_OK;
}

static int by_image(const void *a, const void *b)
{
    const dip_pair_row *x = a, *y = b;
    int order = strcmp(x->image, y->image);
    return order ? order : (x->place > y->place) - (x->place < y->place);
}

/* Rows of one image. */
typedef struct span {
    size_t first, n;
    int64_t place;
} span;

static int by_place(const void *a, const void *b)
{
    const span *x = a, *y = b;
    return (x->place > y->place) - (x->place < y->place);
}

/* rows[0..n) of one image -> its captions, one a line. */
static dip_status make_file(dip_pair_file *file, const dip_pair_row *rows, size_t n,
                            const char *folder, bool short_names)
{
    const char *image = rows[0].image;
    size_t n_bytes = 1;
    *file = (dip_pair_file){.line = rows[0].line, .label = -1};
    for (size_t i = 0; i < n; i++) n_bytes += strlen(rows[i].caption) + 1;
    file->image_path = image[0] == '/' ? strdup(image) : dip_path_join(folder, image);
    file->text = malloc(n_bytes);
    if (!file->image_path || !file->text) return dip_pairs_no_memory(image);
    if (short_names) file->name_at = strlen(file->image_path) - strlen(image);
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

dip_status dip_pair_rows_group(dip_pair_files *files, dip_pair_rows *rows, const char *folder,
                               bool short_names)
{
    *files = (dip_pair_files){0};
    span *spans = malloc((rows->n + 1) * sizeof *spans);
    files->items = calloc(rows->n + 1, sizeof *files->items);
    dip_status status = spans && files->items ? DIP_OK : dip_pairs_no_memory("rows");
    if (status == DIP_OK) {
        size_t n_spans = 0;
        if (rows->n > 1) qsort(rows->items, rows->n, sizeof *rows->items, by_image);
        for (size_t i = 0; i < rows->n; i++) {
            if (i > 0 && strcmp(rows->items[i].image, rows->items[i - 1].image) == 0)
                spans[n_spans - 1].n++;
            else
                spans[n_spans++] = (span){.first = i, .n = 1, .place = rows->items[i].place};
        }
        if (n_spans > 1) qsort(spans, n_spans, sizeof *spans, by_place);
        for (size_t i = 0; i < n_spans && status == DIP_OK; i++)
            status = make_file(&files->items[files->n++], rows->items + spans[i].first, spans[i].n,
                               folder, short_names);
    }
    free(spans);
    if (status != DIP_OK) dip_pair_files_free(files);
    return status;
}

dip_status dip_images_folder(char **folder, const char *path, const char *images)
{
    const char *slash = strrchr(path, '/');
    if (images)
        *folder = strdup(images);
    else if (slash)
        *folder = strndup(path, slash == path ? 1 : (size_t)(slash - path));
    else
        *folder = strdup(".");
    return *folder ? DIP_OK : dip_pairs_no_memory(path);
}
