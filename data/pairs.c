#include "data/pairs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "data/pairs_internal.h"

static const size_t max_image_bytes = (size_t)256 << 20;

typedef struct file_list {
    dip_pair_file *files;
    size_t n_files, prefix_bytes;
    char *image, *text; /* of the last load */
    char *name;         /* of the last name */
} file_list;

dip_status dip_pairs_no_memory(const char *path)
{
    return dip_fail(DIP_NOMEM, "%s: no memory for the list of pairs", path);
}

void dip_pair_files_free(dip_pair_file *files, size_t n_files)
{
    for (size_t i = 0; i < n_files; i++) {
        free(files[i].image_path);
        free(files[i].text_path);
        free(files[i].text);
    }
    free(files);
}

static void drop_loaded(file_list *list)
{
    free(list->image);
    free(list->text);
    list->image = list->text = NULL;
}

static void close_files(void *state)
{
    file_list *list = state;
    if (!list) return;
    dip_pair_files_free(list->files, list->n_files);
    drop_loaded(list);
    free(list->name);
    free(list);
}

static const char *file_name(void *state, int64_t index)
{
    file_list *list = state;
    const char *path = list->files[index].image_path + list->prefix_bytes;
    const char *slash = strrchr(path, '/'), *dot = strrchr(path, '.');
    size_t n = dot && (!slash || dot > slash) ? (size_t)(dot - path) : strlen(path);
    free(list->name);
    list->name = strndup(path, n);
    return list->name ? list->name : path;
}

/* A file that cannot be read costs one pair; only memory stops the run. */
static dip_status read_file(char **out, size_t *n, const char *path, size_t max_bytes,
                            dip_fault_kind *kind)
{
    *kind = DIP_FAULT_UNREADABLE;
    if (dip_path_is_dir(path)) return dip_fail(DIP_FORMAT, "%s: is a folder", path);
    dip_status status = dip_file_read(out, n, path, max_bytes);
    return status == DIP_IO ? DIP_FORMAT : status;
}

static dip_status load_parts(file_list *list, dip_pair *pair, const dip_pair_file *file,
                             dip_fault_kind *kind)
{
    *pair = (dip_pair){.label = -1};
    drop_loaded(list);
    DIP_TRY(read_file(&list->image, &pair->image_bytes, file->image_path, max_image_bytes, kind));
    pair->image = list->image;
    if (pair->image_bytes >= 3 && memcmp(pair->image, "\xff\xd8\xff", 3) == 0) {
        pair->extension = "jpg";
    } else if (pair->image_bytes >= 8 && memcmp(pair->image, "\x89PNG\r\n\x1a\n", 8) == 0) {
        pair->extension = "png";
    } else {
        *kind = DIP_FAULT_IMAGE_FORMAT;
        return dip_fail(DIP_FORMAT, "its first bytes are neither JPEG's nor PNG's");
    }
    if (file->text) {
        pair->text = file->text;
        pair->text_bytes = strlen(file->text);
        return DIP_OK;
    }
    DIP_TRY(
        read_file(&list->text, &pair->text_bytes, file->text_path, DIP_PAIR_MAX_TEXT_BYTES, kind));
    pair->text = list->text;
    return DIP_OK;
}

static dip_status load_file(void *state, dip_pair *pair, int64_t index, dip_fault_kind *kind)
{
    file_list *list = state;
    const dip_pair_file *file = &list->files[index];
    dip_status status = load_parts(list, pair, file, kind);
    if (status == DIP_FORMAT && file->line > 0)
        return dip_fail_prefix(status, "line %" PRId64 ": ", file->line);
    return status;
}

dip_status dip_pairs_from_files(dip_pairs **pairs, dip_pair_file *files, size_t n_files,
                                size_t prefix_bytes)
{
    file_list *list = calloc(1, sizeof *list);
    *pairs = calloc(1, sizeof **pairs);
    if (!list || !*pairs) {
        dip_pair_files_free(files, n_files);
        free(list);
        free(*pairs);
        *pairs = NULL;
        return dip_pairs_no_memory("pairs");
    }
    *list = (file_list){.files = files, .n_files = n_files, .prefix_bytes = prefix_bytes};
    **pairs = (dip_pairs){.n = (int64_t)n_files,
                          .state = list,
                          .name = file_name,
                          .load = load_file,
                          .close = close_files};
    return DIP_OK;
}

void dip_pairs_close(dip_pairs *pairs)
{
    if (!pairs) return;
    pairs->close(pairs->state);
    free(pairs);
}

int64_t dip_pairs_count(const dip_pairs *pairs)
{
    return pairs->n;
}

const char *dip_pairs_name(dip_pairs *pairs, int64_t index)
{
    return pairs->name(pairs->state, index);
}

dip_status dip_pairs_load(dip_pairs *pairs, dip_pair *pair, int64_t index, dip_fault_kind *kind)
{
    return pairs->load(pairs->state, pair, index, kind);
}
