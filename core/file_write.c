/* Output that appears complete or not at all: write to a temporary name, fsync, rename, fsync
 * the directory. The rename is the moment the file exists. */
#include "core/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 18, MAX_NAME_TRIES = 100 };

struct dip_writer {
    char *path, *tmp_path;
    int fd;
    char *buffer;
    size_t n_buffered;
    uint64_t n_written;
    bool failed; /* a write was lost: commit must refuse */
};

static dip_status no_memory(const char *path)
{
    return dip_fail(DIP_NOMEM, "no memory to write %s", path);
}

static dip_status fail_write(const dip_writer *writer, const char *what, int reason)
{
    return dip_fail(DIP_IO, "cannot %s %s after %llu bytes: %s", what, writer->path,
                    (unsigned long long)writer->n_written, strerror(reason));
}

/* A free name beside `path`: PATH.tmp-PID, then PATH.tmp-PID-1 ... when another thread, or a dead
 * process that had the same number, holds it. */
static int open_tmp(char **tmp_path, const char *path)
{
    for (int i = 0; i < MAX_NAME_TRIES; i++) {
        *tmp_path = i == 0 ? dip_format("%s.tmp-%ld", path, (long)getpid())
                           : dip_format("%s.tmp-%ld-%d", path, (long)getpid(), i);
        if (!*tmp_path) {
            errno = ENOMEM;
            return -1;
        }
        int fd;
        do fd = open(*tmp_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        while (fd < 0 && errno == EINTR);
        if (fd >= 0) return fd;
        int reason = errno;
        free(*tmp_path);
        *tmp_path = NULL;
        errno = reason;
        if (reason != EEXIST) return -1;
    }
    return -1;
}

static void free_writer(dip_writer *writer)
{
    free(writer->path);
    free(writer->tmp_path);
    free(writer->buffer);
    free(writer);
}

dip_status dip_writer_open(dip_writer **out, const char *path)
{
    *out = NULL;
    struct stat info;
    bool exists = stat(path, &info) == 0;
    /* Renaming over a device or a directory is never what was meant. */
    if (exists && !S_ISREG(info.st_mode))
        return dip_fail(DIP_IO, "cannot write %s: it is %s, not a regular file", path,
                        S_ISDIR(info.st_mode) ? "a directory" : "a device, pipe or socket");
    dip_writer *writer = calloc(1, sizeof *writer);
    if (!writer) return no_memory(path);
    writer->fd = -1;
    /* Through a symbolic link the file it names is replaced, not the link. */
    writer->path = exists ? realpath(path, NULL) : strdup(path);
    writer->buffer = malloc(BUFFER_BYTES);
    if (!writer->path || !writer->buffer) {
        int reason = errno;
        free_writer(writer);
        return reason == ENOMEM ? no_memory(path)
                                : dip_fail(DIP_IO, "cannot write %s: %s", path, strerror(reason));
    }
    writer->fd = open_tmp(&writer->tmp_path, writer->path);
    if (writer->fd < 0) {
        int reason = errno;
        free_writer(writer);
        return dip_fail(reason == ENOMEM ? DIP_NOMEM : DIP_IO, "cannot create %s: %s", path,
                        strerror(reason));
    }
    *out = writer;
    return DIP_OK;
}

static dip_status write_out(dip_writer *writer, const char *data, size_t n_bytes)
{
    while (n_bytes > 0) {
        ssize_t done = write(writer->fd, data, n_bytes);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) {
            writer->failed = true;
            return fail_write(writer, "write", done < 0 ? errno : EIO);
        }
        data += done;
        n_bytes -= (size_t)done;
        writer->n_written += (uint64_t)done;
    }
    return DIP_OK;
}

static dip_status flush(dip_writer *writer)
{
    size_t n = writer->n_buffered;
    writer->n_buffered = 0;
    return write_out(writer, writer->buffer, n);
}

dip_status dip_writer_write(dip_writer *writer, const void *data, size_t n_bytes)
{
    if (writer->failed)
        return dip_fail(DIP_IO, "cannot write %s: an earlier write failed", writer->path);
    if (n_bytes == 0) return DIP_OK;
    if (n_bytes > BUFFER_BYTES - writer->n_buffered) DIP_TRY(flush(writer));
    if (n_bytes >= BUFFER_BYTES) return write_out(writer, data, n_bytes);
    memcpy(writer->buffer + writer->n_buffered, data, n_bytes);
    writer->n_buffered += n_bytes;
    return DIP_OK;
}

static dip_status sync_fd(int fd, const char *path)
{
    int result;
    do result = fsync(fd);
    while (result != 0 && errno == EINTR);
    /* Some file systems have nothing to sync for a directory and say EINVAL. */
    if (result != 0 && errno != EINVAL)
        return dip_fail(DIP_IO, "cannot make %s durable: %s", path, strerror(errno));
    return DIP_OK;
}

dip_status dip_sync_dir(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return dip_fail(DIP_IO, "cannot open directory %s: %s", path, strerror(errno));
    dip_status status = sync_fd(fd, path);
    close(fd);
    return status;
}

static dip_status sync_parent(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash) return dip_sync_dir(".");
    char *dir = slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
    if (!dir) return no_memory(path);
    dip_status status = dip_sync_dir(dir);
    free(dir);
    return status;
}

dip_status dip_writer_commit(dip_writer *writer)
{
    dip_status status = DIP_OK;
    if (writer->failed)
        DIP_TRY_GOTO(dip_fail(DIP_IO, "cannot write %s: an earlier write failed", writer->path));
    DIP_TRY_GOTO(flush(writer));
    DIP_TRY_GOTO(sync_fd(writer->fd, writer->path));
    int fd = writer->fd;
    writer->fd = -1; /* close releases the number even when it reports an error */
    if (close(fd) != 0 && errno != EINTR) DIP_TRY_GOTO(fail_write(writer, "close", errno));
    if (rename(writer->tmp_path, writer->path) != 0)
        DIP_TRY_GOTO(fail_write(writer, "rename the new", errno));
    /* From here the new file is in place; a failure only says that it may not survive a power
     * loss. */
    status = sync_parent(writer->path);
    free_writer(writer);
    return status;
fail:
    dip_writer_abort(writer);
    return status;
}

void dip_writer_abort(dip_writer *writer)
{
    if (!writer) return;
    if (writer->fd >= 0) close(writer->fd);
    unlink(writer->tmp_path);
    free_writer(writer);
}

dip_status dip_file_write(const char *path, const void *data, size_t n_bytes)
{
    dip_writer *writer;
    DIP_TRY(dip_writer_open(&writer, path));
    dip_status status = dip_writer_write(writer, data, n_bytes);
    if (status != DIP_OK) {
        dip_writer_abort(writer);
        return status;
    }
    return dip_writer_commit(writer);
}

dip_status dip_symlink_replace(const char *target, const char *link_path)
{
    struct stat info;
    if (lstat(link_path, &info) == 0 && !S_ISLNK(info.st_mode))
        return dip_fail(DIP_IO, "cannot make the link %s: something else has that name", link_path);
    char *tmp_path = dip_format("%s.tmp-%ld", link_path, (long)getpid());
    if (!tmp_path) return no_memory(link_path);
    dip_status status = DIP_OK;
    unlink(tmp_path); /* of a dead process that had the same number */
    if (symlink(target, tmp_path) != 0)
        DIP_TRY_GOTO(dip_fail(DIP_IO, "cannot make the link %s: %s", link_path, strerror(errno)));
    if (rename(tmp_path, link_path) != 0) {
        status = dip_fail(DIP_IO, "cannot make the link %s: %s", link_path, strerror(errno));
        unlink(tmp_path);
        goto fail;
    }
    status = sync_parent(link_path);
fail:
    free(tmp_path);
    return status;
}
