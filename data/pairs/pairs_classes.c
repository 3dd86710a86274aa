#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/file.h"
#include "data/pairs/pairs_internal.h"

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static dip_status add_class(dip_string_list *classes, const char *name)
{
    char **items = realloc(classes->items, (classes->n_items + 1) * sizeof *items);
    if (items) classes->items = items;
    char *copy = items ? strdup(name) : NULL;
    if (!copy) return dip_pairs_no_memory("classes");
    items[classes->n_items++] = copy;
    return DIP_OK;
}

/* The folders right in `root`, sorted: an empty one is a class too, so that numbers do not change
 * when its images come. */
static dip_status list_classes(dip_string_list *classes, const char *root)
{
    DIR *dir = opendir(root);
    if (!dir) return dip_fail(DIP_IO, "%s: cannot be listed: %s", root, strerror(errno));
    dip_status status = DIP_OK;
    const struct dirent *item;
    while (status == DIP_OK && (errno = 0, item = readdir(dir))) {
        if (item->d_name[0] == '.') continue;
        if (strchr(item->d_name, '\n')) {
            status = dip_fail(DIP_CONFIG, "%s: a class's name has a line break in it", root);
            continue;
        }
        char *path = dip_path_join(root, item->d_name);
        struct stat info;
        if (!path)
            status = dip_pairs_no_memory(root);
        else if (lstat(path, &info) == 0 && S_ISDIR(info.st_mode))
            status = add_class(classes, item->d_name);
        free(path);
    }
    if (status == DIP_OK && errno != 0)
        status = dip_fail(DIP_IO, "%s: cannot be listed: %s", root, strerror(errno));
    closedir(dir);
    if (status == DIP_OK && classes->n_items == 0)
        status = dip_fail(DIP_CONFIG, "%s: no folder in it to be a class", root);
    if (classes->n_items > 1)
        qsort(classes->items, classes->n_items, sizeof *classes->items, by_name);
    return status;
}

/* `inner`: a path below the root. -1: the file lies in no class's folder. */
static dip_status class_of(int64_t *label, const dip_string_list *classes, const char *inner)
{
    *label = -1;
    const char *slash = strchr(inner, '/');
    if (!slash) return DIP_OK;
    char *name = strndup(inner, (size_t)(slash - inner));
    if (!name) return dip_pairs_no_memory(inner);
    char **found =
        bsearch(&name, classes->items, classes->n_items, sizeof *classes->items, by_name);
    if (found) *label = found - classes->items;
    free(name);
    return DIP_OK;
}

static dip_status add_images(dip_pair_files *pairs, const dip_path_list *files, size_t root_bytes,
                             dip_pairs_lost_fn *lost, void *context)
{
    for (size_t i = 0; i < files->n; i++) {
        const char *path = files->items[i];
        size_t name_at = root_bytes + (path[root_bytes] == '/');
        if (dip_path_is_other_image(path))
            lost(context, DIP_FAULT_IMAGE_FORMAT, path, "only JPEG, PNG and WebP are taken");
        if (!dip_path_is_image(path)) continue;
        int64_t label;
        DIP_TRY(class_of(&label, &pairs->classes, path + name_at));
        if (label < 0) {
            lost(context, DIP_FAULT_LABEL, path, "it lies in no class's folder");
            continue;
        }
        dip_pair_file *pair = &pairs->items[pairs->n++];
        *pair = (dip_pair_file){.image_path = strdup(path), .name_at = name_at, .label = label};
        if (!pair->image_path) return dip_pairs_no_memory(path);
    }
    return DIP_OK;
}

dip_status dip_pairs_open_classes(dip_pairs **out, const char *folder,
                                  const dip_template_options *templates, dip_pairs_lost_fn *lost,
                                  void *context)
{
    *out = NULL;
    dip_path_list files;
    dip_pair_files pairs = {0};
    char *root;
    DIP_TRY(dip_paths_find(&files, &root, folder));
    dip_status status = DIP_OK;
    pairs.items = calloc(files.n + 1, sizeof *pairs.items);
    if (!pairs.items) DIP_TRY_GOTO(dip_pairs_no_memory(folder));
    DIP_TRY_GOTO(list_classes(&pairs.classes, root));
    DIP_TRY_GOTO(dip_templates_open(&pairs.templates, templates, NULL));
    DIP_TRY_GOTO(add_images(&pairs, &files, strlen(root), lost, context));
    if (pairs.n == 0)
        DIP_TRY_GOTO(
            dip_fail(DIP_CONFIG, "%s: no jpg, jpeg, png or webp file in a class's folder", folder));
    status = dip_pairs_from_files(out, &pairs);
fail:
    dip_pair_files_free(&pairs);
    dip_paths_free(&files);
    free(root);
    return status;
}
