#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "core/file.h"
#include "data/pairs/pairs_internal.h"

static const char *const readable[] = {"jpg", "jpeg", "png", "webp"};
/* Images too, but not of a kind this build reads: their captions get that reason. */
static const char *const unreadable[] = {"svg", "gif", "bmp", "tif", "tiff", "avif"};
enum {
    N_READABLE = sizeof readable / sizeof readable[0],
    N_UNREADABLE = sizeof unreadable / sizeof unreadable[0]
};

static dip_status add_path(dip_path_list *list, char *path) /* takes ownership */
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

void dip_paths_free(dip_path_list *list)
{
    for (size_t i = 0; i < list->n; i++) free(list->items[i]);
    free(list->items);
    *list = (dip_path_list){0};
}

/* Files go to `files`, folders to `folders`: a queue instead of recursion, so that no depth of
 * folders can exhaust the stack. */
static dip_status list_folder(dip_path_list *files, dip_path_list *folders, const char *folder)
{
    DIR *dir = opendir(folder);
    if (!dir) return dip_fail(DIP_IO, "%s: cannot be listed: %s", folder, strerror(errno));
    dip_status status = DIP_OK;
    const struct dirent *item;
    while (status == DIP_OK && (errno = 0, item = readdir(dir))) {
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
    if (status == DIP_OK && errno != 0)
        status = dip_fail(DIP_IO, "%s: cannot be listed: %s", folder, strerror(errno));
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

bool dip_path_is_image(const char *path)
{
    return has_extension(path, readable, N_READABLE);
}

bool dip_path_is_other_image(const char *path)
{
    return has_extension(path, unreadable, N_UNREADABLE);
}

dip_status dip_paths_find(dip_path_list *files, char **root, const char *folder)
{
    *files = (dip_path_list){0};
    dip_status status = DIP_OK;
    dip_path_list folders = {0};
    *root = strdup(folder);
    size_t n = *root ? strlen(*root) : 0;
    while (n > 1 && (*root)[n - 1] == '/') (*root)[--n] = '\0';
    DIP_TRY_GOTO(add_path(&folders, *root ? strdup(*root) : NULL));
    for (size_t i = 0; i < folders.n; i++)
        DIP_TRY_GOTO(list_folder(files, &folders, folders.items[i]));
    if (files->n > 1) qsort(files->items, files->n, sizeof *files->items, by_path);
    dip_paths_free(&folders);
    return DIP_OK;
fail:
    dip_paths_free(&folders);
    dip_paths_free(files);
    free(*root);
    *root = NULL;
    return status;
}

/* The place of "path with another extension" in the sorted list, or -1. */
static ptrdiff_t find_sibling(const dip_path_list *files, const char *path, const char *extension)
{
    int stem = (int)(strrchr(path, '.') - path);
    char *sibling = dip_format("%.*s.%s", stem, path, extension);
    if (!sibling) return -1;
    char **found = bsearch(&sibling, files->items, files->n, sizeof *files->items, by_path);
    free(sibling);
    return found ? found - files->items : -1;
}

static void name_lonely_text(const dip_path_list *files, const char *text, dip_pairs_lost_fn *lost,
                             void *context)
{
    for (size_t i = 0; i < N_UNREADABLE; i++) {
        ptrdiff_t image = find_sibling(files, text, unreadable[i]);
        if (image < 0) continue;
        lost(context, DIP_FAULT_IMAGE_FORMAT, files->items[image],
             "only JPEG, PNG and WebP are taken");
        return;
    }
    lost(context, DIP_FAULT_NO_IMAGE, text, "no jpg, jpeg, png or webp file of the same name");
}

/* Pair the files up; what stays alone is told to `lost`. */
static dip_status match(dip_pair_files *pairs, size_t *n_images, const dip_path_list *files,
                        size_t root_bytes, bool *text_used, dip_pairs_lost_fn *lost, void *context)
{
    static const char *const txt[] = {"txt"};
    for (size_t i = 0; i < files->n; i++) {
        const char *path = files->items[i];
        if (!dip_path_is_image(path)) continue;
        ++*n_images;
        ptrdiff_t text = find_sibling(files, path, "txt");
        if (text < 0) {
            lost(context, DIP_FAULT_NO_CAPTION, path, "no txt file of the same name");
            continue;
        }
        text_used[text] = true;
        dip_pair_file *pair = &pairs->items[pairs->n++];
        *pair = (dip_pair_file){.image_path = strdup(path),
                                .name_at = root_bytes + (path[root_bytes] == '/'),
                                .text_path = strdup(files->items[text]),
                                .label = -1};
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
    dip_path_list files;
    dip_pair_files pairs = {0};
    size_t n_images = 0;
    char *root;
    DIP_TRY(dip_paths_find(&files, &root, folder));
    dip_status status = DIP_OK;
    bool *text_used = calloc(files.n + 1, sizeof *text_used);
    pairs.items = calloc(files.n + 1, sizeof *pairs.items);
    if (!pairs.items || !text_used) DIP_TRY_GOTO(dip_pairs_no_memory(folder));
    DIP_TRY_GOTO(match(&pairs, &n_images, &files, strlen(root), text_used, lost, context));
    if (n_images == 0)
        DIP_TRY_GOTO(dip_fail(
            DIP_CONFIG, "%s: no jpg, jpeg, png or webp file in it or the folders below", folder));
    status = dip_pairs_from_files(out, &pairs);
fail:
    dip_pair_files_free(&pairs);
    free(text_used);
    dip_paths_free(&files);
    free(root);
    return status;
}
