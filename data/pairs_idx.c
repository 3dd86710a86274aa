#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/rng.h"
#include "data/idx.h"
#include "data/image.h"
#include "data/pairs_internal.h"
#include "data/utf8.h"

enum { MAX_LINES = 1000000 };
static const char placeholder[] = "{c}";
static const char default_template[] = "a photo of a {c}.";

/* Lines of a small text file: blanks at the ends and empty lines gone. */
typedef struct line_list {
    char *text;
    char **items; /* into text */
    size_t n;
} line_list;

typedef struct idx_pairs {
    dip_idx images, labels;
    line_list classes, templates;
    int captions_per_image;
    uint64_t seed;
    size_t *draw;   /* [templates.n] */
    uint8_t *image; /* of the last load */
    char *text;
    char name[24];
} idx_pairs;

static void close_idx(void *state)
{
    idx_pairs *s = state;
    if (!s) return;
    dip_idx_free(&s->images);
    dip_idx_free(&s->labels);
    free(s->classes.text);
    free(s->classes.items);
    free(s->templates.text);
    free(s->templates.items);
    free(s->draw);
    free(s->image);
    free(s->text);
    free(s);
}

static dip_status split_lines(line_list *list, const char *path)
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

static dip_status read_lines(line_list *list, const char *path)
{
    size_t n_bytes;
    DIP_TRY(dip_file_read(&list->text, &n_bytes, path, DIP_PAIR_MAX_TEXT_BYTES));
    if (strlen(list->text) != n_bytes || !dip_utf8_valid(list->text, n_bytes))
        return dip_fail(DIP_FORMAT, "%s: not UTF-8 text", path);
    return split_lines(list, path);
}

static const char *idx_name(void *state, int64_t index)
{
    idx_pairs *s = state;
    snprintf(s->name, sizeof s->name, "%" PRId64, index);
    return s->name;
}

/* Append the template with every {c} replaced; returns the bytes, writes when out is not NULL. */
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
static void draw_templates(idx_pairs *s, int64_t index)
{
    dip_rng rng;
    dip_rng_init(&rng, s->seed, dip_rng_stream(DIP_RNG_SHARD, 2, (uint64_t)index));
    for (size_t i = 0; i < s->templates.n; i++) s->draw[i] = i;
    for (size_t i = 0; i < (size_t)s->captions_per_image; i++) {
        size_t j = i + (size_t)dip_rng_below(&rng, s->templates.n - i), swap = s->draw[i];
        s->draw[i] = s->draw[j];
        s->draw[j] = swap;
    }
}

static dip_status load_idx(void *state, dip_pair *pair, int64_t index, dip_fault_kind *kind)
{
    idx_pairs *s = state;
    uint8_t label = s->labels.data[index];
    *pair = (dip_pair){.extension = "png", .label = label};
    free(s->image);
    free(s->text);
    s->image = NULL;
    s->text = NULL;
    if (label >= s->classes.n) {
        *kind = DIP_FAULT_LABEL;
        return dip_fail(DIP_FORMAT, "label %d, but there are %zu class names", label, s->classes.n);
    }
    draw_templates(s, index);
    const char *class_name = s->classes.items[label];
    size_t n_bytes = 0;
    for (int i = 0; i < s->captions_per_image; i++)
        n_bytes += fill_template(NULL, s->templates.items[s->draw[i]], class_name) + 1;
    s->text = malloc(n_bytes);
    if (!s->text) return dip_pairs_no_memory("caption");
    size_t at = 0;
    for (int i = 0; i < s->captions_per_image; i++) {
        if (i > 0) s->text[at++] = '\n';
        at += fill_template(s->text + at, s->templates.items[s->draw[i]], class_name);
    }
    pair->text = s->text;
    pair->text_bytes = at;
    int height = (int)s->images.dims[1], width = (int)s->images.dims[2];
    DIP_TRY(dip_png_encode(&s->image, &pair->image_bytes,
                           s->images.data + (size_t)index * (size_t)height * (size_t)width, width,
                           height, 1));
    pair->image = s->image;
    return DIP_OK;
}

static dip_status open_idx(idx_pairs *s, const dip_idx_options *o)
{
    DIP_TRY(dip_idx_read(&s->images, o->images));
    DIP_TRY(dip_idx_read(&s->labels, o->labels));
    if (s->images.n_dims != 3 || s->images.dims[1] > 65535 || s->images.dims[2] > 65535)
        return dip_fail(DIP_FORMAT,
                        "%s: images need 3 dimensions (number, height, width, at most 65535 "
                        "pixels a side), it has %d",
                        o->images, s->images.n_dims);
    if (s->labels.n_dims != 1 || s->labels.dims[0] != s->images.dims[0])
        return dip_fail(
            DIP_FORMAT, "%s: %" PRId64 " labels in %d dimensions for the %" PRId64 " images of %s",
            o->labels, s->labels.dims[0], s->labels.n_dims, s->images.dims[0], o->images);
    DIP_TRY(read_lines(&s->classes, o->class_names));
    if (o->templates) {
        DIP_TRY(read_lines(&s->templates, o->templates));
    } else {
        s->templates.text = strdup(default_template);
        if (!s->templates.text) return dip_pairs_no_memory("template");
        DIP_TRY(split_lines(&s->templates, "template"));
    }
    for (size_t i = 0; i < s->templates.n; i++)
        if (!strstr(s->templates.items[i], placeholder))
            return dip_fail(DIP_FORMAT, "%s: template '%.80s' has no {c} for the class name",
                            o->templates, s->templates.items[i]);
    if (o->captions_per_image < 1 || (size_t)o->captions_per_image > s->templates.n)
        return dip_fail(DIP_CONFIG, "%d captions per image, but there are %zu templates",
                        o->captions_per_image, s->templates.n);
    s->captions_per_image = o->captions_per_image;
    s->seed = o->seed;
    s->draw = malloc(s->templates.n * sizeof *s->draw);
    return s->draw ? DIP_OK : dip_pairs_no_memory("templates");
}

dip_status dip_pairs_open_idx(dip_pairs **out, const dip_idx_options *options)
{
    *out = NULL;
    idx_pairs *s = calloc(1, sizeof *s);
    if (!s) return dip_pairs_no_memory(options->images);
    dip_status status = open_idx(s, options);
    if (status == DIP_OK && !(*out = calloc(1, sizeof **out)))
        status = dip_pairs_no_memory(options->images);
    if (status != DIP_OK) {
        close_idx(s);
        return status;
    }
    **out = (dip_pairs){
        .n = s->images.dims[0], .state = s, .name = idx_name, .load = load_idx, .close = close_idx};
    return DIP_OK;
}
