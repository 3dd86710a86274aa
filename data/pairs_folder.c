#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "core/file.h"
#include "data/pairs_internal.h"

static const char *const readable[] = {"jpg", "jpeg", "png"};
/* Images too, but not of a kind this build reads: their captions get that reason. */
static const char *const unreadable[] = {"svg", "webp", "gif", "bmp", "tif", "tiff", "avif"};
enum {
    N_READABLE = sizeof readable / sizeof readable[0],
    N_UNREADABLE = sizeof unreadable / sizeof unreadable[0]
};

typedef struct path_list {
    char **items;
    size_t n, capacity;
} path_list;

static dip_status add_path(path_list *list, char *path) /* takes ownership */
{
    if (path && list->n == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 256;
        char **items = realloc(list->items, capacity * sizeof *items);
        if (items) {
            list->items = items;
            list->capacity = capacity;
        }
    }
    if (!path || list->n == list->capacity) {
        free(path);
        return dip_pairs_no_memory("folder");
    }
    list->items[list->n++] = path;
    return DIP_OK;
}

static void free_paths(path_list *list)
{
    for (size_t i = 0; i < list->n; i++) free(list->items[i]);
    free(list->items);
}

/* Files go to `files`, folders to `folders`: a queue instead of recursion, so that no depth of
 * folders can exhaust the stack. */
static dip_status list_folder(path_list *files, path_list *folders, const char *folder)
{
    DIR *dir = opendir(folder);
    if (!dir) return dip_fail(DIP_IO, "%s: cannot be listed: %s", folder, strerror(errno));
    dip_status status = DIP_OK;
    const struct dirent *item;
    while (status == DIP_OK && (item = readdir(dir))) {
        if (item->d_name[0] == '.') continue;
        char *path = dip_path_join(folder, item->d_name);
        struct stat own, target;
        bool is_folder = path && lstat(path, &own) == 0 && S_ISDIR(own.st_mode);
        bool is_file = path && !is_folder && stat(path, &target) == 0 && S_ISREG(target.st_mode);
        if (!path || is_folder || is_file)
            status = add_path(is_folder ? folders : files, path);
        else
            free(path);
    }
    closedir(dir);
    return status;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool has_extension(const char *path, const char *const *extensions, size_t n)
{
    const char *slash = strrchr(path, '/'), *dot = strrchr(path, '.');
    if (!dot || (slash && dot < slash)) return false;
    for (size_t i = 0; i < n; i++)
        if (strcasecmp(dot + 1, extensions[i]) == 0) return true;
    return false;
}

/* The place of "path with another extension" in the sorted list, or -1. */
static ptrdiff_t find_sibling(const path_list *files, const char *path, const char *extension)
{
    int stem = (int)(strrchr(path, '.') - path);
    char *sibling = dip_format("%.*s.%s", stem, path, extension);
    if (!sibling) return -1;
    char **found = bsearch(&sibling, files->items, files->n, sizeof *files->items, by_path);
    free(sibling);
    return found ? found - files->items : -1;
}

static void name_lonely_text(const path_list *files, const char *text, dip_pairs_lost_fn *lost,
                             void *context)
{
    for (size_t i = 0; i < N_UNREADABLE; i++) {
        ptrdiff_t image = find_sibling(files, text, unreadable[i]);
        if (image < 0) continue;
        lost(context, DIP_FAULT_IMAGE_FORMAT, files->items[image], "only JPEG and PNG are taken");
        return;
    }
    lost(context, DIP_FAULT_NO_IMAGE, text, "no jpg, jpeg or png file of the same name");
}

/* Pair the files up; what stays alone is told to `lost`. */
static dip_status match(dip_pair_file *pairs, size_t *n_pairs, size_t *n_images,
                        const path_list *files, bool *text_used, dip_pairs_lost_fn *lost,
                        void *context)
{
    static const char *const txt[] = {"txt"};
    for (size_t i = 0; i < files->n; i++) {
        const char *path = files->items[i];
        if (!has_extension(path, readable, N_READABLE)) continue;
        ++*n_images;
        ptrdiff_t text = find_sibling(files, path, "txt");
        if (text < 0) {
            lost(context, DIP_FAULT_NO_CAPTION, path, "no txt file of the same name");
            continue;
        }
        text_used[text] = true;
        dip_pair_file *pair = &pairs[(*n_pairs)++];
        *pair =
            (dip_pair_file){.image_path = strdup(path), .text_path = strdup(files->items[text])};
        if (!pair->image_path || !pair->text_path) return dip_pairs_no_memory(path);
    }
    for (size_t i = 0; i < files->n; i++)
        if (!text_used[i] && has_extension(files->items[i], txt, 1))
            name_lonely_text(files, files->items[i], lost, context);
    return DIP_OK;
}

dip_status dip_pairs_open_folder(dip_pairs **out, const char *folder, dip_pairs_lost_fn *lost,
                                 void *context)
{
    *out = NULL;
    dip_status status = DIP_OK;
    path_list files = {0}, folders = {0};
    dip_pair_file *pairs = NULL;
    bool *text_used = NULL;
    size_t n_pairs = 0, n_images = 0;
    char *root = strdup(folder);
    size_t root_bytes = root ? strlen(root) : 0;
    while (root_bytes > 1 && root[root_bytes - 1] == '/') root[--root_bytes] = '\0';
    DIP_TRY_GOTO(add_path(&folders, root));
    for (size_t i = 0; i < folders.n; i++)
        DIP_TRY_GOTO(list_folder(&files, &folders, folders.items[i]));
    if (files.n > 1) qsort(files.items, files.n, sizeof *files.items, by_path);
    pairs = calloc(files.n + 1, sizeof *pairs);
    text_used = calloc(files.n + 1, sizeof *text_used);
    if (!pairs || !text_used) {
        status = dip_pairs_no_memory(folder);
        goto fail;
    }
    DIP_TRY_GOTO(match(pairs, &n_pairs, &n_images, &files, text_used, lost, context));
    if (n_images == 0) {
        status =
            dip_fail(DIP_CONFIG, "%s: no jpg, jpeg or png file in it or the folders below", folder);
        goto fail;
    }
    status = dip_pairs_from_files(out, pairs, n_pairs, root_bytes + 1);
    pairs = NULL;
    n_pairs = 0;
fail:
    if (pairs) dip_pair_files_free(pairs, n_pairs);
    free(text_used);
    free_paths(&files);
    free_paths(&folders);
    return status;
}
