/* The bytes of samples: one pread a sample where its members lie close together. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "data/image/image.h"
#include "data/samples_internal.h"
#include "data/shard/tar.h"

enum {
    N_FILES = 4,          /* open at once; 10,000 shards need no 10,000 descriptors */
    MAX_GAP_BYTES = 4096, /* between two members, to be read in one piece all the same */
    BUFFER_STEP_BYTES = 1 << 16,
    KEPT_BYTES = 16 << 20 /* of the buffer, from sample to sample */
};

typedef struct open_file {
    const dip_shard_samples *shard; /* NULL: not used */
    int fd;
    uint64_t last_used;
} open_file;

struct dip_sample_reader {
    const dip_samples *samples;
    open_file files[N_FILES];
    uint64_t n_uses;
    uint8_t *buffer;
    size_t capacity;
};

dip_status dip_sample_reader_open(dip_sample_reader **out, const dip_samples *samples)
{
    *out = calloc(1, sizeof **out);
    if (!*out) return dip_fail(DIP_NOMEM, "no memory to read samples");
    (*out)->samples = samples;
    return DIP_OK;
}

static void close_file(open_file *file)
{
    if (file->shard) close(file->fd);
    file->shard = NULL;
}

void dip_sample_reader_close(dip_sample_reader *reader)
{
    if (!reader) return;
    for (int i = 0; i < N_FILES; i++) close_file(&reader->files[i]);
    free(reader->buffer);
    free(reader);
}

/* Files. */

static int open_once(const char *path)
{
    int fd;
    do fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not hold up the run */
    while (fd < 0 && errno == EINTR);
    return fd;
}

/* Where there are no descriptors left, the reader gives up its own. */
static int open_shard(dip_sample_reader *reader, const char *path)
{
    int fd = open_once(path);
    if (fd >= 0 || (errno != EMFILE && errno != ENFILE)) return fd;
    for (int i = 0; i < N_FILES; i++) close_file(&reader->files[i]);
    return open_once(path);
}

/* Where no checksum tells good bytes from others, a file that is not what was looked through is not
 * read at all: its samples may lie elsewhere, and an image would stand beside another's caption. */
static dip_status check_unchanged(const dip_shard_samples *shard, int fd)
{
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode))
        return dip_fail(DIP_FORMAT, "%s is no longer a regular file", shard->path);
    const int64_t changed_ns = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec;
    if (shard->crcs ||
        ((uint64_t)info.st_size == shard->file_bytes && changed_ns == shard->changed_ns))
        return DIP_OK;
    return dip_fail(
        DIP_FORMAT, "%s was changed after it had been looked through: it had %llu bytes, now %llu",
        shard->path, (unsigned long long)shard->file_bytes, (unsigned long long)info.st_size);
}

/* DIP_FORMAT: this shard cannot be opened; DIP_IO: none can. */
static dip_status file_of(dip_sample_reader *reader, int *fd, const dip_shard_samples *shard)
{
    open_file *oldest = &reader->files[0];
    for (int i = 0; i < N_FILES; i++) {
        open_file *file = &reader->files[i];
        if (file->shard == shard) {
            file->last_used = ++reader->n_uses;
            *fd = file->fd;
            return DIP_OK;
        }
        if (!file->shard || (oldest->shard && file->last_used < oldest->last_used)) oldest = file;
    }
    close_file(oldest);
    *fd = open_shard(reader, shard->path);
    if (*fd < 0) {
        const bool no_more = errno == EMFILE || errno == ENFILE;
        return dip_fail(no_more ? DIP_IO : DIP_FORMAT, "cannot open %s: %s", shard->path,
                        strerror(errno));
    }
    dip_status status = check_unchanged(shard, *fd);
    if (status != DIP_OK) {
        close(*fd);
        return status;
    }
    *oldest = (open_file){.shard = shard, .fd = *fd, .last_used = ++reader->n_uses};
    return DIP_OK;
}

/* Bytes. */

/* A member's place in the shard and in the buffer. n_bytes 0: nothing to read. */
typedef struct span {
    const char *what; /* "image" */
    uint64_t offset;
    size_t n_bytes, at;
} span;

static dip_status make_room(dip_sample_reader *reader, size_t n_bytes)
{
    const bool is_huge = reader->capacity > KEPT_BYTES && n_bytes <= KEPT_BYTES;
    if (n_bytes <= reader->capacity && !is_huge) return DIP_OK;
    size_t capacity = (n_bytes + BUFFER_STEP_BYTES - 1) / BUFFER_STEP_BYTES * BUFFER_STEP_BYTES;
    free(reader->buffer); /* nothing in it is still wanted */
    reader->buffer = malloc(capacity);
    reader->capacity = reader->buffer ? capacity : 0;
    if (reader->buffer) return DIP_OK;
    return dip_fail(DIP_NOMEM, "no memory for a sample of %zu bytes", n_bytes);
}

static dip_status read_bytes(int fd, uint8_t *out, uint64_t offset, size_t n_bytes,
                             const char *what)
{
    for (size_t n_read = 0; n_read < n_bytes;) {
        ssize_t done = pread(fd, out + n_read, n_bytes - n_read, (off_t)(offset + n_read));
        if (done < 0 && errno == EINTR) continue;
        if (done < 0)
            return dip_fail(DIP_FORMAT, "its %s cannot be read: %s", what, strerror(errno));
        if (done == 0)
            return dip_fail(DIP_FORMAT, "its %s should reach byte %llu, the file ends at %llu",
                            what, (unsigned long long)(offset + n_bytes),
                            (unsigned long long)(offset + n_read));
        n_read += (size_t)done;
    }
    return DIP_OK;
}

/* Both members in one piece when they lie close together, `first` before `second`. */
static dip_status read_spans(dip_sample_reader *reader, int fd, span *first, span *second)
{
    const uint64_t end = first->offset + first->n_bytes;
    const uint64_t gap = second->n_bytes > 0 ? second->offset - end : 0;
    const bool together = first->n_bytes > 0 && second->n_bytes > 0 && gap <= MAX_GAP_BYTES;
    first->at = 0;
    second->at = first->n_bytes + (together ? (size_t)gap : 0);
    DIP_TRY(make_room(reader, second->at + second->n_bytes + DIP_IMAGE_PADDING));
    if (together && read_bytes(fd, reader->buffer, first->offset, second->at + second->n_bytes,
                               "data") == DIP_OK)
        return DIP_OK;
    DIP_TRY(read_bytes(fd, reader->buffer, first->offset, first->n_bytes, first->what));
    return read_bytes(fd, reader->buffer + second->at, second->offset, second->n_bytes,
                      second->what);
}

/* Zeros behind the image; a caption that begins there moves away. make_room has counted them. */
static void pad_image(dip_sample_reader *reader, const span *image, span *caption)
{
    const size_t end = image->at + image->n_bytes;
    if (caption->at >= image->at) {
        memmove(reader->buffer + end + DIP_IMAGE_PADDING, reader->buffer + caption->at,
                caption->n_bytes);
        caption->at = end + DIP_IMAGE_PADDING;
    }
    memset(reader->buffer + end, 0, DIP_IMAGE_PADDING);
}

static dip_status check_crc(const dip_sample_reader *reader, const span *part, uint32_t crc)
{
    if (dip_crc32c(0, reader->buffer + part->at, part->n_bytes) == crc) return DIP_OK;
    return dip_fail(DIP_FORMAT, "its %s, %zu bytes at byte %llu, are not those that were written",
                    part->what, part->n_bytes, (unsigned long long)part->offset);
}

dip_status dip_sample_read(dip_sample_reader *reader, dip_sample *sample, int64_t index, int parts,
                           dip_fault_kind *kind)
{
    const dip_shard_samples *shard = dip_samples_shard_of(reader->samples, index);
    const dip_sample_entry *e = &shard->entries[index - shard->first];
    *sample = dip_samples_get(reader->samples, index);
    *kind = DIP_FAULT_UNREADABLE;
    span image = {.what = "image", .offset = (uint64_t)e->image_block * DIP_TAR_BLOCK_BYTES};
    span caption = {.what = "caption", .offset = (uint64_t)e->caption_block * DIP_TAR_BLOCK_BYTES};
    const bool head = !(parts & DIP_NEEDS_IMAGE);
    if (parts & (DIP_NEEDS_IMAGE | DIP_IMAGE_HEAD)) image.n_bytes = e->image_bytes;
    if (head && image.n_bytes > DIP_IMAGE_HEAD_BYTES) image.n_bytes = DIP_IMAGE_HEAD_BYTES;
    if (parts & DIP_NEEDS_CAPTION) caption.n_bytes = e->caption_bytes;

    int fd;
    DIP_TRY(file_of(reader, &fd, shard));
    const bool image_first = image.offset <= caption.offset;
    DIP_TRY(
        read_spans(reader, fd, image_first ? &image : &caption, image_first ? &caption : &image));
    if (shard->crcs) {
        const dip_sample_crcs *crcs = &shard->crcs[index - shard->first];
        *kind = DIP_FAULT_CHECKSUM;
        if ((parts & DIP_NEEDS_IMAGE) && e->image_block)
            DIP_TRY(check_crc(reader, &image, crcs->image));
        if ((parts & DIP_NEEDS_CAPTION) && e->caption_block)
            DIP_TRY(check_crc(reader, &caption, crcs->caption));
    }
    if (image.n_bytes > 0) pad_image(reader, &image, &caption);
    if ((parts & (DIP_NEEDS_IMAGE | DIP_IMAGE_HEAD)) && e->image_block)
        sample->image = reader->buffer + image.at;
    if ((parts & DIP_NEEDS_CAPTION) && e->caption_block)
        sample->caption = (const char *)reader->buffer + caption.at;
    return DIP_OK;
}

void dip_sample_prefetch(dip_sample_reader *reader, int64_t index)
{
    const dip_shard_samples *shard = dip_samples_shard_of(reader->samples, index);
    const dip_sample_entry *e = &shard->entries[index - shard->first];
    int fd;
    if (file_of(reader, &fd, shard) != DIP_OK) return;
    if (e->image_block)
        posix_fadvise(fd, (off_t)e->image_block * DIP_TAR_BLOCK_BYTES, e->image_bytes,
                      POSIX_FADV_WILLNEED);
    if (e->caption_block)
        posix_fadvise(fd, (off_t)e->caption_block * DIP_TAR_BLOCK_BYTES, e->caption_bytes,
                      POSIX_FADV_WILLNEED);
}
