/* Reading, paths and directories. Atomic output is in file_write.c. */
#include "core/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Open a regular file. O_NONBLOCK so that a FIFO nobody writes to is refused, not waited for;
 * it means nothing on regular files. */
static dip_status open_regular(int *out, size_t *size, const char *path)
{
    int fd;
    do fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    while (fd < 0 && errno == EINTR);
    if (fd < 0) return dip_fail(DIP_IO, "cannot open %s: %s", path, strerror(errno));
    struct stat info;
    if (fstat(fd, &info) != 0) {
        int reason = errno;
        close(fd);
        return dip_fail(DIP_IO, "cannot examine %s: %s", path, strerror(reason));
    }
    if (!S_ISREG(info.st_mode)) {
        close(fd);
        return dip_fail(DIP_IO, "cannot read %s: it is %s, not a regular file", path,
                        S_ISDIR(info.st_mode) ? "a directory" : "a device, pipe or socket");
    }
    *out = fd;
    *size = (size_t)info.st_size;
    return DIP_OK;
}

dip_status dip_file_read(char **out, size_t *n, const char *path, size_t max_bytes)
{
    *out = NULL;
    *n = 0;
    int fd;
    size_t size;
    DIP_TRY(open_regular(&fd, &size, path));
    dip_status status = DIP_OK;
    char *text = NULL;
    size_t used = 0, capacity = 0;
    /* The size is a hint only: the file may grow, and files of /proc say 0. One byte more than
     * the limit is asked for, so that "too big" is seen and not guessed. */
    for (;;) {
        if (size > max_bytes || used > max_bytes) {
            status = dip_fail(DIP_FORMAT, "%s has %zu bytes or more, the limit is %zu", path,
                              size > used ? size : used, max_bytes);
            goto fail;
        }
        if (used == capacity) {
            size_t wanted = capacity == 0 ? size + 1 : capacity * 2;
            if (wanted < 4096) wanted = 4096;
            if (wanted > max_bytes + 1 && max_bytes < SIZE_MAX - 1) wanted = max_bytes + 1;
            char *grown = wanted < SIZE_MAX ? realloc(text, wanted + 1) : NULL;
            if (!grown) {
                status = dip_fail(DIP_NOMEM, "no memory for the %zu bytes of %s", wanted, path);
                goto fail;
            }
            text = grown;
            capacity = wanted;
        }
        ssize_t done = read(fd, text + used, capacity - used);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) {
            status = dip_fail(DIP_IO, "cannot read %s: %s", path, strerror(errno));
            goto fail;
        }
        if (done == 0) break;
        used += (size_t)done;
    }
    close(fd);
    text[used] = '\0';
    *out = text;
    *n = used;
    return DIP_OK;
fail:
    close(fd);
    free(text);
    return status;
}

dip_status dip_file_map(dip_map *map, const char *path)
{
    *map = (dip_map){0};
    int fd;
    size_t size;
    DIP_TRY(open_regular(&fd, &size, path));
    if (size == 0) {
        close(fd);
        return DIP_OK;
    }
    void *data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    int reason = errno;
    close(fd);
    if (data == MAP_FAILED)
        return dip_fail(reason == ENOMEM ? DIP_NOMEM : DIP_IO, "cannot map the %zu bytes of %s: %s",
                        size, path, strerror(reason));
    map->data = data;
    map->n_bytes = size;
    return DIP_OK;
}

void dip_file_unmap(dip_map *map)
{
    if (map->data) munmap((void *)(uintptr_t)map->data, map->n_bytes);
    *map = (dip_map){0};
}

bool dip_path_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

bool dip_path_is_dir(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

dip_status dip_make_dirs(const char *path)
{
    char *partial = strdup(path);
    if (!partial) return dip_fail(DIP_NOMEM, "no memory for the path %s", path);
    dip_status status = DIP_OK;
    /* Every prefix that ends at a slash, then the whole. */
    for (char *end = partial + (partial[0] != '\0');; end++) {
        if (*end != '/' && *end != '\0') continue;
        char kept = *end;
        *end = '\0';
        if (mkdir(partial, 0777) != 0) {
            int reason = errno;
            if (!dip_path_is_dir(partial)) {
                status = dip_fail(DIP_IO, "cannot make the directory %s: %s", partial,
                                  reason == EEXIST ? "a file has that name" : strerror(reason));
                break;
            }
        }
        *end = kept;
        if (kept == '\0') break;
    }
    free(partial);
    return status;
}

/* Empty the directory open as `fd` (closed here). Works on open directories and never follows a
 * link, so that nothing outside the tree can be reached even if it changes meanwhile. */
static dip_status empty_dir(int fd, const char *shown)
{
    DIR *dir = fdopendir(fd);
    if (!dir) {
        int reason = errno;
        close(fd);
        return dip_fail(DIP_IO, "cannot list %s: %s", shown, strerror(reason));
    }
    dip_status status = DIP_OK;
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (!entry) {
            if (errno != 0) status = dip_fail(DIP_IO, "cannot list %s: %s", shown, strerror(errno));
            break;
        }
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) continue;
        if (unlinkat(dirfd(dir), name, 0) == 0 || errno == ENOENT) continue;
        int reason = errno;
        int child = -1;
        if (reason == EISDIR || reason == EPERM)
            child = openat(dirfd(dir), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (child < 0) {
            status = dip_fail(DIP_IO, "cannot remove %s/%s: %s", shown, name,
                              strerror(reason == EISDIR ? errno : reason));
            break;
        }
        char *child_shown = dip_path_join(shown, name);
        status = empty_dir(child, child_shown ? child_shown : shown);
        free(child_shown);
        if (status != DIP_OK) break;
        if (unlinkat(dirfd(dir), name, AT_REMOVEDIR) != 0) {
            status = dip_fail(DIP_IO, "cannot remove %s/%s: %s", shown, name, strerror(errno));
            break;
        }
    }
    closedir(dir);
    return status;
}

dip_status dip_remove_tree(const char *path)
{
    struct stat info;
    if (lstat(path, &info) != 0) {
        if (errno == ENOENT) return DIP_OK;
        return dip_fail(DIP_IO, "cannot examine %s: %s", path, strerror(errno));
    }
    if (S_ISDIR(info.st_mode)) {
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0) return dip_fail(DIP_IO, "cannot open %s: %s", path, strerror(errno));
        DIP_TRY(empty_dir(fd, path));
    }
    if ((S_ISDIR(info.st_mode) ? rmdir(path) : unlink(path)) != 0 && errno != ENOENT)
        return dip_fail(DIP_IO, "cannot remove %s: %s", path, strerror(errno));
    return DIP_OK;
}

char *dip_path_join(const char *dir, const char *name)
{
    size_t n = strlen(dir);
    return dip_format(n == 0 || dir[n - 1] == '/' ? "%s%s" : "%s/%s", dir, name);
}

char *dip_format(const char *format, ...)
{
    char *text;
    va_list args;
    va_start(args, format);
    int n = vasprintf(&text, format, args);
    va_end(args);
    return n < 0 ? NULL : text;
}
