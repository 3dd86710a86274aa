/* COCO captions and Karpathy's splits: one JSON object with an array of images. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "data/pairs/json_items.h"
#include "data/pairs/pairs_internal.h"
#include "data/pattern.h"

typedef struct coco_image {
    char *id;
    const char *name;
    int64_t number; /* its place in "images" */
    bool captioned;
} coco_image;

typedef struct coco {
    dip_json_file json;
    dip_pair_rows rows;
    coco_image *images; /* COCO's, sorted by id */
    size_t n_images, capacity;
    dip_string_list wanted, there; /* Karpathy's splits */
    dip_pairs_lost_fn *lost;
    void *context;
} coco;

static const char *string_of(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsString(item) && item->valuestring[0] ? item->valuestring : NULL;
}

/* A number or a string under `key` as text; malloc'd, NULL when it is neither. Numbers so large
 * that two of them may look the same are none. */
static char *id_of(const cJSON *object, const char *key)
{
    const double max_exact = 9007199254740991.0; /* 2^53 - 1 */
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (cJSON_IsNumber(item))
        return item->valuedouble >= -max_exact && item->valuedouble <= max_exact
                   ? dip_format("%.17g", item->valuedouble)
                   : NULL;
    return cJSON_IsString(item) ? dip_format("\"%s", item->valuestring) : NULL;
}

static dip_status lose(const coco *s, dip_fault_kind kind, const char *key, int64_t number,
                       const char *detail)
{
    char *where = dip_format("%s: %s[%" PRId64 "]", s->json.path, key, number);
    if (!where) return dip_pairs_no_memory(s->json.path);
    s->lost(s->context, kind, where, detail);
    free(where);
    return DIP_OK;
}

/* A caption of image number `image`, its `caption`th; `key[number]` is what messages call it. */
static dip_status add_caption(coco *s, const char *image_name, const char *caption, int64_t image,
                              int64_t nth, const char *key, int64_t number)
{
    if (!caption) return lose(s, DIP_FAULT_CAPTION_EMPTY, key, number, "no caption in it");
    char *where = dip_format("%s: %s[%" PRId64 "]", s->json.path, key, number);
    char *text = dip_pair_rows_keep(&s->rows, caption);
    dip_status status = where && text
                            ? dip_pair_rows_add(&s->rows, image_name, text, image << 32 | nth, 0,
                                                where, s->lost, s->context)
                            : dip_pairs_no_memory(s->json.path);
    free(where);
    return status;
}

typedef dip_status item_fn(coco *s, const cJSON *item, int64_t number);

static dip_status for_each(coco *s, const char *key, item_fn *each)
{
    dip_json_items items;
    dip_status status = dip_json_file_array(&items, &s->json, key);
    if (status == DIP_END) return dip_fail(DIP_FORMAT, "%s: it has no \"%s\"", s->json.path, key);
    DIP_TRY(status);
    cJSON *item;
    while ((status = dip_json_items_next(&items, &item)) == DIP_OK) {
        int64_t number = items.number - 1;
        status =
            item ? each(s, item, number) : lose(s, DIP_FAULT_UNREADABLE, key, number, dip_error());
        cJSON_Delete(item);
        DIP_TRY(status);
    }
    return status == DIP_END ? DIP_OK : status;
}

static void close_coco(coco *s)
{
    for (size_t i = 0; i < s->n_images; i++) free(s->images[i].id);
    free(s->images);
    dip_pair_rows_free(&s->rows);
    dip_json_file_close(&s->json);
    dip_string_list_free(&s->wanted);
    dip_string_list_free(&s->there);
}

/* COCO. */

static dip_status add_image(coco *s, const cJSON *item, int64_t number)
{
    const char *name = string_of(item, "file_name");
    char *id = id_of(item, "id");
    if (!name || !id) {
        free(id);
        return lose(s, DIP_FAULT_NO_IMAGE, "images", number,
                    "no id (text, or a whole number below 2^53) or no file_name");
    }
    if (s->n_images == s->capacity) {
        size_t capacity = s->capacity ? 2 * s->capacity : 1024;
        coco_image *images = realloc(s->images, capacity * sizeof *images);
        if (images) {
            s->images = images;
            s->capacity = capacity;
        }
    }
    const char *kept = s->n_images < s->capacity ? dip_pair_rows_keep(&s->rows, name) : NULL;
    if (!kept) {
        free(id);
        return dip_pairs_no_memory(s->json.path);
    }
    s->images[s->n_images++] = (coco_image){.id = id, .name = kept, .number = number};
    return DIP_OK;
}

static int by_id(const void *a, const void *b)
{
    const coco_image *x = a, *y = b;
    int order = strcmp(x->id, y->id);
    return order ? order : (x->number > y->number) - (x->number < y->number);
}

static int compare_id(const void *id, const void *image)
{
    return strcmp(id, ((const coco_image *)image)->id);
}

static int by_number(const void *a, const void *b)
{
    const coco_image *x = a, *y = b;
    return (x->number > y->number) - (x->number < y->number);
}

/* Sort by id; of several with one id the first stays. */
static dip_status index_images(coco *s)
{
    if (s->n_images > 1) qsort(s->images, s->n_images, sizeof *s->images, by_id);
    size_t n = 0;
    dip_status status = DIP_OK;
    for (size_t i = 0; i < s->n_images; i++) {
        if (n > 0 && strcmp(s->images[n - 1].id, s->images[i].id) == 0) {
            if (status == DIP_OK)
                status = lose(s, DIP_FAULT_UNREADABLE, "images", s->images[i].number,
                              "an earlier image has the same id");
            free(s->images[i].id);
        } else {
            s->images[n++] = s->images[i];
        }
    }
    s->n_images = n;
    return status;
}

static dip_status add_annotation(coco *s, const cJSON *item, int64_t number)
{
    char *id = id_of(item, "image_id");
    coco_image *image = id && s->n_images > 0
                            ? bsearch(id, s->images, s->n_images, sizeof *s->images, compare_id)
                            : NULL;
    free(id);
    if (!image)
        return lose(s, DIP_FAULT_NO_IMAGE, "annotations", number,
                    "its image_id is no id of an image");
    image->captioned = true;
    return add_caption(s, image->name, string_of(item, "caption"), image->number, number,
                       "annotations", number);
}

static dip_status name_uncaptioned(coco *s)
{
    if (s->n_images > 1) qsort(s->images, s->n_images, sizeof *s->images, by_number);
    for (size_t i = 0; i < s->n_images; i++)
        if (!s->images[i].captioned)
            DIP_TRY(
                lose(s, DIP_FAULT_NO_CAPTION, "images", s->images[i].number, s->images[i].name));
    return DIP_OK;
}

static dip_status finish(dip_pairs **out, coco *s, const char *path, const char *images)
{
    char *folder;
    dip_pair_files files;
    DIP_TRY(dip_images_folder(&folder, path, images));
    dip_status status = dip_pair_rows_group(&files, &s->rows, folder, true);
    free(folder);
    DIP_TRY(status);
    return dip_pairs_from_files(out, &files);
}

dip_status dip_pairs_open_coco(dip_pairs **out, const char *path, const char *images,
                               dip_pairs_lost_fn *lost, void *context)
{
    *out = NULL;
    coco s = {.lost = lost, .context = context};
    dip_status status = dip_json_file_open(&s.json, path);
    if (status == DIP_OK) status = for_each(&s, "images", add_image);
    if (status == DIP_OK) status = index_images(&s);
    if (status == DIP_OK) status = for_each(&s, "annotations", add_annotation);
    if (status == DIP_OK) status = name_uncaptioned(&s);
    if (status == DIP_OK) status = finish(out, &s, path, images);
    close_coco(&s);
    return status;
}

/* Karpathy. */

static dip_status add_word(dip_string_list *list, const char *word, size_t n_bytes)
{
    for (size_t i = 0; i < list->n_items; i++)
        if (strlen(list->items[i]) == n_bytes && memcmp(list->items[i], word, n_bytes) == 0)
            return DIP_OK;
    char **items = realloc(list->items, (list->n_items + 1) * sizeof *items);
    if (items) list->items = items;
    char *copy = items ? strndup(word, n_bytes) : NULL;
    if (!copy) return dip_pairs_no_memory("splits");
    items[list->n_items++] = copy;
    return DIP_OK;
}

static bool has_word(const dip_string_list *list, const char *word)
{
    for (size_t i = 0; i < list->n_items; i++)
        if (strcmp(list->items[i], word) == 0) return true;
    return false;
}

static dip_status add_karpathy(coco *s, const cJSON *item, int64_t number)
{
    enum { MAX_SHOWN = 20 };
    const char *split = string_of(item, "split"), *folder = string_of(item, "filepath");
    const char *file = string_of(item, "filename");
    if (split && s->there.n_items < MAX_SHOWN) DIP_TRY(add_word(&s->there, split, strlen(split)));
    if (s->wanted.n_items > 0 && !(split && has_word(&s->wanted, split))) return DIP_OK;
    if (!file) return lose(s, DIP_FAULT_NO_IMAGE, "images", number, "no filename");
    char *path = folder ? dip_path_join(folder, file) : strdup(file);
    const char *name = path ? dip_pair_rows_keep(&s->rows, path) : NULL;
    free(path);
    if (!name) return dip_pairs_no_memory(s->json.path);
    const cJSON *sentences = cJSON_GetObjectItemCaseSensitive(item, "sentences");
    if (!cJSON_IsArray(sentences) || !sentences->child)
        return lose(s, DIP_FAULT_NO_CAPTION, "images", number, name);
    const cJSON *sentence;
    int64_t nth = 0;
    cJSON_ArrayForEach(sentence, sentences)
        DIP_TRY(add_caption(s, name, string_of(sentence, "raw"), number, nth++, "images", number));
    return DIP_OK;
}

static dip_status parse_splits(coco *s, const char *splits)
{
    while (splits && *splits) {
        size_t n = strcspn(splits, ",");
        if (n > 0) DIP_TRY(add_word(&s->wanted, splits, n));
        splits += n + (splits[n] == ',');
    }
    return DIP_OK;
}

static dip_status check_splits(const coco *s)
{
    for (size_t i = 0; i < s->wanted.n_items; i++) {
        if (has_word(&s->there, s->wanted.items[i])) continue;
        char list[256] = "";
        size_t used = 0;
        for (size_t k = 0; k < s->there.n_items && used < sizeof list - 1; k++)
            used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", k ? ", " : "",
                                     s->there.items[k]);
        return dip_fail(DIP_CONFIG, "%s: no image is of the split '%s'; the splits are %s",
                        s->json.path, s->wanted.items[i], list);
    }
    return DIP_OK;
}

dip_status dip_pairs_open_karpathy(dip_pairs **out, const char *path, const char *images,
                                   const char *splits, dip_pairs_lost_fn *lost, void *context)
{
    *out = NULL;
    coco s = {.lost = lost, .context = context};
    dip_status status = parse_splits(&s, splits);
    if (status == DIP_OK) status = dip_json_file_open(&s.json, path);
    if (status == DIP_OK) status = for_each(&s, "images", add_karpathy);
    if (status == DIP_OK) status = check_splits(&s);
    if (status == DIP_OK) status = finish(out, &s, path, images);
    close_coco(&s);
    return status;
}

dip_status dip_pairs_json_kind(dip_json_kind *kind, const char *path)
{
    dip_json_file json;
    dip_json_items items;
    DIP_TRY(dip_json_file_open(&json, path));
    dip_status status = dip_json_file_array(&items, &json, "images");
    if (status == DIP_OK) {
        status = dip_json_file_array(&items, &json, "annotations");
        *kind = status == DIP_OK ? DIP_JSON_COCO : DIP_JSON_KARPATHY;
        if (status == DIP_END) status = DIP_OK;
    } else if (status == DIP_END) {
        status = dip_fail(DIP_CONFIG,
                          "%s: a JSON file without \"images\" is neither COCO's nor "
                          "Karpathy's",
                          path);
    }
    dip_json_file_close(&json);
    return status;
}
