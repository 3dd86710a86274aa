#include "data/shard/shard_names.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "data/pattern.h"

enum { MAX_WIDTH = 18 };

static dip_status no_memory(void)
{
    return dip_fail(DIP_NOMEM, "no memory for the names of shards");
}

void dip_shard_names_free(dip_shard_names *names)
{
    free(names->folder);
    free(names->prefix);
    free(names->suffix);
}

dip_status dip_shard_names_parse(dip_shard_names *names, const char *pattern)
{
    *names = (dip_shard_names){0};
    const char *slash = strrchr(pattern, '/');
    const char *base = slash ? slash + 1 : pattern;
    const char *open = strchr(base, '{');
    const char *digits = open ? open + 1 : base;
    size_t width = strspn(digits, "0123456789");
    const char *after = digits + width;
    if (!open || width == 0 || width > MAX_WIDTH || strncmp(after, "..}", 3) != 0 ||
        after[3] == '\0' || strpbrk(after + 3, "{}") ||
        memchr(pattern, '{', (size_t)(base - pattern)))
        return dip_fail(DIP_CONFIG,
                        "output pattern '%s' must end in a file name with one open range, "
                        "as in 'OUT/{00000..}.tar'",
                        pattern);
    names->width = (int)width;
    names->start = strtoll(digits, NULL, 10);
    names->folder = slash == pattern ? strdup("/")
                    : slash          ? strndup(pattern, (size_t)(slash - pattern))
                                     : strdup(".");
    names->prefix = strndup(base, (size_t)(open - base));
    names->suffix = strdup(after + 3);
    if (names->folder && names->prefix && names->suffix) return DIP_OK;
    dip_shard_names_free(names);
    *names = (dip_shard_names){0};
    return no_memory();
}

char *dip_shard_name(const dip_shard_names *names, int64_t shard)
{
    return dip_format("%s%0*" PRId64 "%s", names->prefix, names->width, names->start + shard,
                      names->suffix);
}

char *dip_shard_path_of(const dip_shard_names *names, int64_t shard)
{
    char *name = dip_shard_name(names, shard);
    char *path = name ? dip_path_join(names->folder, name) : NULL;
    free(name);
    return path;
}

/* What lies beside shards, until it is complete. */
static bool is_unfinished_sidecar(size_t *name_bytes, const char *name)
{
    static const char *const sidecars[] = {"sizes.json", "classnames.txt"};
    for (size_t i = 0; i < sizeof sidecars / sizeof sidecars[0]; i++) {
        *name_bytes = strlen(sidecars[i]);
        if (strncmp(name, sidecars[i], *name_bytes) == 0 &&
            strncmp(name + *name_bytes, ".tmp-", 5) == 0)
            return true;
    }
    return false;
}

bool dip_shard_names_match(const dip_shard_names *names, size_t *name_bytes, const char *name,
                           bool belongings)
{
    if (belongings && is_unfinished_sidecar(name_bytes, name)) return true;
    size_t prefix = strlen(names->prefix);
    if (strncmp(name, names->prefix, prefix) != 0) return false;
    size_t digits = strspn(name + prefix, "0123456789");
    if (digits < (size_t)names->width) return false;
    const char *after = name + prefix + digits;
    size_t suffix = strlen(names->suffix);
    if (strncmp(after, names->suffix, suffix) != 0) return false;
    after += suffix;
    *name_bytes = (size_t)(after - name);
    if (belongings && strncmp(after, ".idx", 4) == 0) after += 4;
    return after[0] == '\0' || (belongings && strncmp(after, ".tmp-", 5) == 0);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

dip_status dip_shard_names_list(dip_string_list *paths, const char *pattern, bool belongings)
{
    *paths = (dip_string_list){0};
    dip_shard_names names;
    DIP_TRY(dip_shard_names_parse(&names, pattern));
    dip_status status = DIP_OK;
    DIR *folder = opendir(names.folder);
    if (!folder) {
        if (errno != ENOENT)
            status = dip_fail(DIP_IO, "%s: cannot be listed: %s", names.folder, strerror(errno));
        dip_shard_names_free(&names);
        return status;
    }
    const struct dirent *item;
    while (status == DIP_OK && (errno = 0, item = readdir(folder))) {
        size_t name_bytes;
        if (!dip_shard_names_match(&names, &name_bytes, item->d_name, belongings)) continue;
        char **items = realloc(paths->items, (paths->n_items + 1) * sizeof *items);
        if (items) paths->items = items;
        char *path = items ? dip_path_join(names.folder, item->d_name) : NULL;
        if (!path) {
            status = no_memory();
            continue;
        }
        items[paths->n_items++] = path;
    }
    if (status == DIP_OK && errno != 0)
        status = dip_fail(DIP_IO, "%s: cannot be listed: %s", names.folder, strerror(errno));
    closedir(folder);
    dip_shard_names_free(&names);
    if (status != DIP_OK) dip_string_list_free(paths);
    if (paths->n_items > 1) qsort(paths->items, paths->n_items, sizeof *paths->items, by_name);
    return status;
}
