#include "data/pairs/idx.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

static const int64_t max_bytes = (int64_t)1 << 32;
enum { FIRST_BYTES = 1 << 20, READ_BYTES = 1 << 20, TYPE_U8 = 8 };

/* Read exactly n bytes, or say which way it failed. */
static dip_status read_exactly(gzFile file, void *out, unsigned n, const char *path)
{
    int got = gzread(file, out, n);
    if (got == (int)n) return DIP_OK;
    int code;
    gzerror(file, &code);
    if (code == Z_ERRNO) return dip_fail(DIP_IO, "%s: cannot be read: %s", path, strerror(errno));
    return dip_fail(DIP_FORMAT, "%s: %s", path,
                    code == Z_OK || code == Z_BUF_ERROR ? "too short for its dimensions"
                                                        : "its gzip data is damaged");
}

static dip_status read_header(dip_idx *idx, gzFile file, const char *path)
{
    uint8_t head[4];
    if (read_exactly(file, head, sizeof head, path) != DIP_OK || head[0] != 0 || head[1] != 0)
        return dip_fail(DIP_FORMAT, "%s: not an IDX file (it must start with two zero bytes)",
                        path);
    if (head[2] != TYPE_U8)
        return dip_fail(DIP_FORMAT, "%s: IDX elements of type 0x%02x; only 0x08 (u8) can be read",
                        path, head[2]);
    if (head[3] < 1 || head[3] > DIP_IDX_MAX_DIMS)
        return dip_fail(DIP_FORMAT, "%s: an IDX array of %d dimensions; 1 to %d can be read", path,
                        head[3], DIP_IDX_MAX_DIMS);
    idx->n_dims = head[3];
    idx->n_bytes = 1;
    for (int i = 0; i < idx->n_dims; i++) {
        uint8_t d[4];
        DIP_TRY(read_exactly(file, d, sizeof d, path));
        idx->dims[i] = (int64_t)d[0] << 24 | d[1] << 16 | d[2] << 8 | d[3];
        if (idx->dims[i] == 0)
            return dip_fail(DIP_FORMAT, "%s: dimension %d of the IDX array is 0", path, i);
        if (idx->n_bytes > max_bytes / idx->dims[i])
            return dip_fail(DIP_FORMAT, "%s: an IDX array of more than 4 GiB", path);
        idx->n_bytes *= idx->dims[i];
    }
    return DIP_OK;
}

static dip_status read_data(dip_idx *idx, gzFile file, const char *path)
{
    int64_t capacity = 0, at = 0;
    while (at < idx->n_bytes) {
        if (at == capacity) {
            capacity = capacity ? capacity * 2 : FIRST_BYTES;
            if (capacity > idx->n_bytes) capacity = idx->n_bytes;
            uint8_t *bigger = realloc(idx->data, (size_t)capacity);
            if (!bigger) return dip_fail(DIP_NOMEM, "%s: no memory for its data", path);
            idx->data = bigger;
        }
        int64_t n = capacity - at < READ_BYTES ? capacity - at : READ_BYTES;
        DIP_TRY(read_exactly(file, idx->data + at, (unsigned)n, path));
        at += n;
    }
    uint8_t extra;
    int got = gzread(file, &extra, 1); /* reaching the end verifies the checksum */
    if (got == 0) return DIP_OK;
    return dip_fail(DIP_FORMAT, "%s: %s", path,
                    got > 0 ? "more data than its dimensions say" : "its gzip data is damaged");
}

dip_status dip_idx_read(dip_idx *idx, const char *path)
{
    *idx = (dip_idx){0};
    gzFile file = gzopen(path, "rb"); /* reads what is not gzipped as it is */
    if (!file) return dip_fail(DIP_IO, "%s: cannot be opened: %s", path, strerror(errno));
    dip_status status = read_header(idx, file, path);
    if (status == DIP_OK) status = read_data(idx, file, path);
    int code = gzclose(file);
    if (status == DIP_OK && code != Z_OK)
        status = dip_fail(DIP_FORMAT, "%s: its gzip data is cut", path);
    if (status != DIP_OK) dip_idx_free(idx);
    return status;
}

void dip_idx_free(dip_idx *idx)
{
    free(idx->data);
    *idx = (dip_idx){0};
}
