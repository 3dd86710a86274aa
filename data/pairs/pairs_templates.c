/* Captions for labelled images: templates with {c} for the class name. */
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/rng.h"
#include "data/pairs/pairs_internal.h"
#include "core/utf8.h"

enum { MAX_LINES = 1000000 };
static const char placeholder[] = "{c}";

static dip_status split_lines(dip_line_list *list, const char *path)
{
    size_t capacity = 0;
    char *at = list->text;
    if (strncmp(at, "\xef\xbb\xbf", 3) == 0) at += 3;
    while (*at) {
        char *end = at + strcspn(at, "\n"), *next = *end ? end + 1 : end;
        while (end > at && strchr(" \t\r\v\f", end[-1])) end--;
        *end = '\0';
        at += strspn(at, " \t\v\f");
        if (*at) {
            if (list->n == MAX_LINES)
                return dip_fail(DIP_FORMAT, "%s: more than %d lines", path, MAX_LINES);
            if (list->n == capacity) {
                capacity = capacity ? 2 * capacity : 64;
                char **items = realloc(list->items, capacity * sizeof *items);
                if (!items) return dip_pairs_no_memory(path);
                list->items = items;
            }
            list->items[list->n++] = at;
        }
        at = next;
    }
    if (list->n == 0) return dip_fail(DIP_FORMAT, "%s: no lines in it", path);
    return DIP_OK;
}

dip_status dip_lines_read(dip_line_list *list, const char *path)
{
    size_t n_bytes;
    DIP_TRY(dip_file_read(&list->text, &n_bytes, path, DIP_PAIR_MAX_TEXT_BYTES));
    if (strlen(list->text) != n_bytes || !dip_utf8_valid(list->text, n_bytes))
        return dip_fail(DIP_FORMAT, "%s: not UTF-8 text", path);
    return split_lines(list, path);
}

void dip_lines_free(dip_line_list *list)
{
    free(list->text);
    free(list->items);
    *list = (dip_line_list){0};
}

static dip_status open_templates(dip_templates *templates, const dip_template_options *o,
                                 const char *fallback)
{
    dip_line_list *lines = &templates->lines;
    if (o->path) {
        DIP_TRY(dip_lines_read(lines, o->path));
    } else if (fallback) {
        lines->text = strdup(fallback);
        if (!lines->text) return dip_pairs_no_memory("template");
        DIP_TRY(split_lines(lines, "template"));
    } else {
        return DIP_OK;
    }
    for (size_t i = 0; i < lines->n; i++)
        if (!strstr(lines->items[i], placeholder))
            return dip_fail(DIP_FORMAT, "%s: template '%.80s' has no {c} for the class name",
                            o->path, lines->items[i]);
    if (o->captions_per_image < 1 || (size_t)o->captions_per_image > lines->n)
        return dip_fail(DIP_CONFIG, "%d captions per image, but there are %zu templates",
                        o->captions_per_image, lines->n);
    templates->captions_per_image = o->captions_per_image;
    templates->seed = o->seed;
    return DIP_OK;
}

dip_status dip_templates_open(dip_templates *templates, const dip_template_options *options,
                              const char *fallback)
{
    *templates = (dip_templates){0};
    dip_status status = open_templates(templates, options, fallback);
    if (status != DIP_OK) dip_templates_free(templates);
    return status;
}

void dip_templates_free(dip_templates *templates)
{
    dip_lines_free(&templates->lines);
}

/* Put the template with every {c} replaced; returns the bytes, writes when out is not NULL. */
static size_t fill_template(char *out, const char *template, const char *class_name)
{
    size_t n = 0, class_bytes = strlen(class_name);
    while (*template) {
        if (strncmp(template, placeholder, sizeof placeholder - 1) == 0) {
            if (out) memcpy(out + n, class_name, class_bytes);
            n += class_bytes;
            template += sizeof placeholder - 1;
        } else {
            if (out) out[n] = *template;
            n++;
            template ++;
        }
    }
    return n;
}

/* Draw different templates: the first captions_per_image steps of a shuffle. */
static void draw(size_t *drawn, const dip_templates *t, int64_t index)
{
    dip_rng rng;
    dip_rng_init(&rng, t->seed, dip_rng_stream(DIP_RNG_SHARD, 2, (uint64_t)index));
    for (size_t i = 0; i < t->lines.n; i++) drawn[i] = i;
    for (size_t i = 0; i < (size_t)t->captions_per_image; i++) {
        size_t j = i + (size_t)dip_rng_below(&rng, t->lines.n - i), swap = drawn[i];
        drawn[i] = drawn[j];
        drawn[j] = swap;
    }
}

dip_status dip_templates_fill(char **text, size_t *n_bytes, const dip_templates *t,
                              const char *class_name, int64_t index)
{
    *text = NULL;
    size_t *drawn = malloc(t->lines.n * sizeof *drawn), needed = 0, at = 0;
    if (drawn) {
        draw(drawn, t, index);
        for (int i = 0; i < t->captions_per_image; i++)
            needed += fill_template(NULL, t->lines.items[drawn[i]], class_name) + 1;
        *text = malloc(needed);
    }
    for (int i = 0; *text && i < t->captions_per_image; i++) {
        if (i > 0) (*text)[at++] = '\n';
        at += fill_template(*text + at, t->lines.items[drawn[i]], class_name);
    }
    free(drawn);
    *n_bytes = at;
    return *text ? DIP_OK : dip_pairs_no_memory("caption");
}
