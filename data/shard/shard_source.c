#include "data/shard/shard_source.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/shard/tar.h"

/* Opening. */

dip_status dip_shard_source_open(dip_shard_source *file, const char *path)
{
    memset(file, 0, offsetof(dip_shard_source, window));
    file->fd = -1;
    file->path = strdup(path);
    if (!file->path) return dip_fail(DIP_NOMEM, "%s: no memory to open it", path);
    /* Not blocking: a pipe that nobody writes to would hold up the run before it could be refused.
     */
    do file->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    while (file->fd < 0 && errno == EINTR);
    struct stat info;
    if (file->fd < 0 || fstat(file->fd, &info) != 0)
        return dip_fail(DIP_IO, "cannot open %s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return dip_fail(DIP_IO, "%s is %s, not a regular file", path,
                        S_ISDIR(info.st_mode) ? "a directory" : "a device, pipe or socket");
    file->n_bytes = (uint64_t)info.st_size;
    file->changed_ns = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec;
    return DIP_OK;
}

void dip_shard_source_close(dip_shard_source *file)
{
    if (file->fd >= 0) close(file->fd);
    free(file->path);
}

/* Reading. */

/* Up to n bytes; fewer when the file ends. */
static dip_status read_at(const dip_shard_source *file, size_t *n_read, void *out, uint64_t offset,
                          size_t n)
{
    for (*n_read = 0; *n_read < n;) {
        ssize_t done =
            pread(file->fd, (char *)out + *n_read, n - *n_read, (off_t)(offset + *n_read));
        if (done < 0 && errno == EINTR) continue;
        if (done < 0)
            return dip_fail(DIP_IO, "cannot read %s at byte %llu: %s", file->path,
                            (unsigned long long)offset, strerror(errno));
        if (done == 0) break;
        *n_read += (size_t)done;
    }
    return DIP_OK;
}

dip_status dip_shard_source_read(const dip_shard_source *file, void *out, uint64_t offset,
                                 size_t n_bytes)
{
    size_t in_window = (size_t)(offset - file->window_at);
    if (offset >= file->window_at && in_window <= file->window_bytes &&
        n_bytes <= file->window_bytes - in_window) {
        memcpy(out, file->window + in_window, n_bytes);
        return DIP_OK;
    }
    size_t n_read;
    DIP_TRY(read_at(file, &n_read, out, offset, n_bytes));
    if (n_read == n_bytes) return DIP_OK;
    return dip_fail(DIP_FORMAT, "%s: the file ends at byte %llu, these bytes reach %llu",
                    file->path, (unsigned long long)(offset + n_read),
                    (unsigned long long)(offset + n_bytes));
}

dip_status dip_shard_source_look(dip_shard_source *file, const uint8_t **bytes, uint64_t *ends_at,
                                 uint64_t at, size_t n)
{
    if (at < file->window_at || at - file->window_at > file->window_bytes ||
        n > file->window_bytes - (size_t)(at - file->window_at)) {
        file->window_at = at;
        file->window_bytes = 0;
        DIP_TRY(read_at(file, &file->window_bytes, file->window, at, sizeof file->window));
        if (n > file->window_bytes) {
            *ends_at = at + file->window_bytes;
            return DIP_END;
        }
    }
    *bytes = file->window + (at - file->window_at);
    return DIP_OK;
}

/* What it plainly is, when it is no tar file. */

static const char *looks_like(const uint8_t *data, size_t n_bytes)
{
    static const struct {
        const char *start;
        size_t n;
        const char *what;
    } kinds[] = {
        {"\x1f\x8b", 2, "gzip-compressed (unpack it first: gzip -d)"},
        {"BZh", 3, "bzip2-compressed (unpack it first: bzip2 -d)"},
        {"\xfd"
         "7zXZ",
         5, "xz-compressed (unpack it first: xz -d)"},
        {"\x28\xb5\x2f\xfd", 4, "zstd-compressed (unpack it first: zstd -d)"},
        {"PK\x03\x04", 4, "a zip archive"},
        {"PAR1", 4, "a Parquet table"},
        {"version https://git-lfs", 23,
         "a Git LFS pointer (the file was not fetched: git lfs pull)"},
        {"\xff\xd8\xff", 3, "a JPEG image"},
        {"\x89PNG", 4, "a PNG image"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (n_bytes >= kinds[i].n && memcmp(data, kinds[i].start, kinds[i].n) == 0)
            return kinds[i].what;
    while (n_bytes > 0 && (*data == ' ' || (*data >= '\t' && *data <= '\r'))) {
        data++;
        n_bytes--;
    }
    static const char *const html[] = {"<!doctype html", "<html", "<?xml", "<head"};
    for (size_t i = 0; i < sizeof html / sizeof html[0]; i++) {
        size_t n = strlen(html[i]);
        if (n_bytes >= n && strncasecmp((const char *)data, html[i], n) == 0)
            return "a web page (the download failed)";
    }
    return NULL;
}

dip_status dip_shard_source_check(dip_shard_source *file)
{
    file->window_at = 0;
    DIP_TRY(read_at(file, &file->window_bytes, file->window, 0, sizeof file->window));
    const size_t n = file->window_bytes;
    if (n >= DIP_TAR_BLOCK_BYTES && dip_tar_checksum_matches(file->window)) return DIP_OK;
    const char *what = looks_like(file->window, n);
    if (!what) return DIP_OK;
    return dip_fail(DIP_FORMAT, "%s: not a tar file: it looks like %s", file->path, what);
}
