#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "data/pairs/pairs_internal.h"

static const size_t max_bytes = (size_t)1 << 32;

typedef struct jsonl {
    dip_pair_rows rows;
    int64_t n_captions; /* seen so far: a row's place */
    const char *image_key, *caption_key;
    dip_pairs_lost_fn *lost;
    void *context;
} jsonl;

static dip_status add_caption(jsonl *s, const char *image, const cJSON *caption, int64_t line,
                              const char *where)
{
    if (!cJSON_IsString(caption)) {
        s->lost(s->context, DIP_FAULT_NO_CAPTION, where,
                "the caption is neither a string nor a list of strings");
        return DIP_OK;
    }
    char *text = dip_pair_rows_keep(&s->rows, caption->valuestring);
    if (!text) return dip_pairs_no_memory(where);
    return dip_pair_rows_add(&s->rows, image, text, s->n_captions++, line, where, s->lost,
                             s->context);
}

static dip_status add_object(jsonl *s, const cJSON *object, int64_t line, const char *where)
{
    const cJSON *image = cJSON_GetObjectItemCaseSensitive(object, s->image_key);
    const cJSON *caption = cJSON_GetObjectItemCaseSensitive(object, s->caption_key);
    if (!cJSON_IsString(image) || !caption || (cJSON_IsArray(caption) && !caption->child)) {
        bool no_image = !cJSON_IsString(image);
        char detail[200];
        snprintf(detail, sizeof detail,
                 no_image ? "no string under the key '%.100s'" : "nothing under the key '%.100s'",
                 no_image ? s->image_key : s->caption_key);
        s->lost(s->context, no_image ? DIP_FAULT_NO_IMAGE : DIP_FAULT_NO_CAPTION, where, detail);
        return DIP_OK;
    }
    const char *path = dip_pair_rows_keep(&s->rows, image->valuestring);
    if (!path) return dip_pairs_no_memory(where);
    if (!cJSON_IsArray(caption)) return add_caption(s, path, caption, line, where);
    const cJSON *item;
    cJSON_ArrayForEach(item, caption) DIP_TRY(add_caption(s, path, item, line, where));
    return DIP_OK;
}

static bool is_blank(const char *text, size_t n_bytes)
{
    size_t n = 0;
    while (n < n_bytes && (text[n] == ' ' || text[n] == '\t' || text[n] == '\r')) n++;
    return n == n_bytes;
}

static dip_status add_line(jsonl *s, const char *text, size_t n_bytes, int64_t line,
                           const char *path)
{
    if (is_blank(text, n_bytes)) return DIP_OK;
    char *where = dip_format("%s: line %" PRId64, path, line);
    if (!where) return dip_pairs_no_memory(path);
    cJSON *object;
    dip_status status = dip_json_parse(&object, text, n_bytes, "this line");
    if (status == DIP_OK && cJSON_IsObject(object))
        status = add_object(s, object, line, where);
    else if (status == DIP_OK || status == DIP_FORMAT) {
        s->lost(s->context, DIP_FAULT_UNREADABLE, where,
                status == DIP_OK ? "not a JSON object" : dip_error());
        status = DIP_OK;
    }
    cJSON_Delete(object);
    free(where);
    return status;
}

dip_status dip_pairs_open_jsonl(dip_pairs **out, const char *path, const char *image_key,
                                const char *caption_key, const char *images,
                                dip_pairs_lost_fn *lost, void *context)
{
    *out = NULL;
    dip_status status = DIP_OK;
    jsonl s = {
        .image_key = image_key, .caption_key = caption_key, .lost = lost, .context = context};
    dip_pair_files files;
    char *folder = NULL, *text = NULL;
    size_t n_bytes;
    DIP_TRY_GOTO(dip_images_folder(&folder, path, images));
    DIP_TRY_GOTO(dip_file_read(&text, &n_bytes, path, max_bytes));
    const char *at = text, *end = text + n_bytes;
    if (n_bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) at += 3;
    for (int64_t line = 1; at < end; line++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const char *stop = newline ? newline : end;
        DIP_TRY_GOTO(add_line(&s, at, (size_t)(stop - at), line, path));
        at = stop + 1;
    }
    DIP_TRY_GOTO(dip_pair_rows_group(&files, &s.rows, folder, true));
    status = dip_pairs_from_files(out, &files);
fail:
    dip_pair_rows_free(&s.rows);
    free(text);
    free(folder);
    return status;
}
