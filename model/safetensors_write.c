/* Writing, byte for byte as the reference writer lays a file out: tensors by dtype (the format's
 * order, backwards), then name; no blanks in the header but the padding to a multiple of 8. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "model/safetensors_internal.h"

typedef struct text {
    char *bytes;
    size_t n, capacity;
    int failed;
} text;

static void append(text *t, const void *bytes, size_t n)
{
    if (t->failed) return;
    if (n > t->capacity - t->n) {
        size_t capacity = 2 * (t->n + n) + 1024;
        char *grown = realloc(t->bytes, capacity);
        if (!grown) {
            t->failed = 1;
            return;
        }
        t->bytes = grown;
        t->capacity = capacity;
    }
    memcpy(t->bytes + t->n, bytes, n);
    t->n += n;
}

static void append_text(text *t, const char *words)
{
    append(t, words, strlen(words));
}

static void append_number(text *t, uint64_t value)
{
    char digits[24];
    append(t, digits, (size_t)snprintf(digits, sizeof digits, "%" PRIu64, value));
}

/* A JSON string: the two-letter escapes, \u00xx for other control bytes, all else as it is. */
static void append_string(text *t, const char *string)
{
    static const char letters[] = "\"\\bfnrt", bytes[] = "\"\\\b\f\n\r\t";
    append_text(t, "\"");
    for (const char *p = string; *p; p++) {
        const char *found = strchr(bytes, *p);
        char escape[8];
        if (found)
            append(t, escape, (size_t)snprintf(escape, 8, "\\%c", letters[found - bytes]));
        else if ((unsigned char)*p < 0x20)
            append(t, escape, (size_t)snprintf(escape, 8, "\\u%04x", (unsigned char)*p));
        else
            append(t, p, 1);
    }
    append_text(t, "\"");
}

static size_t dtype_rank(dip_tensor_dtype dtype)
{
    for (size_t i = 0; i < dip_n_dtype_rows; i++)
        if (dip_dtype_rows[i].dtype == dtype && dtype != DIP_ST_OTHER) return i;
    return dip_n_dtype_rows;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp((*(const dip_tensor *const *)a)->name, (*(const dip_tensor *const *)b)->name);
}

static int compare_for_writing(const void *a, const void *b)
{
    const dip_tensor *x = *(const dip_tensor *const *)a, *y = *(const dip_tensor *const *)b;
    size_t rank_x = dtype_rank(x->dtype), rank_y = dtype_rank(y->dtype);
    if (rank_x != rank_y) return rank_x > rank_y ? -1 : 1;
    return strcmp(x->name, y->name);
}

static dip_status check_tensor(const dip_tensor *tensor, const char *path)
{
    size_t rank = dtype_rank(tensor->dtype);
    if (!tensor->name || strcmp(tensor->name, "__metadata__") == 0)
        return dip_fail(DIP_CONFIG, "cannot write %s: a tensor needs a name of its own", path);
    for (size_t at = 0, n = strlen(tensor->name); at < n;) {
        size_t length = dip_utf8_length(tensor->name + at, n - at);
        if (length == 0)
            return dip_fail(DIP_CONFIG, "cannot write %s: a tensor name is not UTF-8", path);
        at += length;
    }
    if (rank == dip_n_dtype_rows || tensor->n_dims < 0 || tensor->n_dims > DIP_TENSOR_MAX_DIMS)
        return dip_fail(DIP_CONFIG, "cannot write %s: tensor '%.200s' has no writable type or rank",
                        path, tensor->name);
    uint64_t n_bytes = (uint64_t)dip_dtype_rows[rank].bits / 8;
    for (int i = 0; i < tensor->n_dims; i++)
        if (tensor->shape[i] < 0 ||
            __builtin_mul_overflow(n_bytes, (uint64_t)tensor->shape[i], &n_bytes))
            return dip_fail(DIP_CONFIG, "cannot write %s: bad shape of tensor '%.200s'", path,
                            tensor->name);
    if (n_bytes != tensor->n_bytes)
        return dip_fail(DIP_CONFIG,
                        "cannot write %s: tensor '%.200s' has %zu bytes, its shape needs %" PRIu64,
                        path, tensor->name, tensor->n_bytes, n_bytes);
    return DIP_OK;
}

/* Length and JSON of the header, with zeros for the checksum; *crc_at is where its digits go. */
static dip_status make_header(text *header, size_t *crc_at, const dip_tensor *const *tensors,
                              size_t n_tensors, const char *path)
{
    append(header, "\0\0\0\0\0\0\0\0", 8);
    append_text(header, "{\"__metadata__\":{\"" DIP_CRC_KEY "\":\"");
    *crc_at = header->n;
    append_text(header, DIP_CRC_ZEROS "\",\"format\":\"pt\",\"" DIP_WRITER_KEY
                                      "\":\"" DIP_WRITER_NAME "\"}");
    uint64_t at = 0;
    for (size_t i = 0; i < n_tensors; i++) {
        const dip_tensor *tensor = tensors[i];
        append_text(header, ",");
        append_string(header, tensor->name);
        append_text(header, ":{\"dtype\":\"");
        append_text(header, dip_dtype_rows[dtype_rank(tensor->dtype)].name);
        append_text(header, "\",\"shape\":[");
        for (int d = 0; d < tensor->n_dims; d++) {
            if (d > 0) append_text(header, ",");
            append_number(header, (uint64_t)tensor->shape[d]);
        }
        append_text(header, "],\"data_offsets\":[");
        append_number(header, at);
        append_text(header, ",");
        at += tensor->n_bytes;
        append_number(header, at);
        append_text(header, "]}");
    }
    append_text(header, "}");
    while (!header->failed && header->n % 8 != 0) append_text(header, " ");
    if (header->failed)
        return dip_fail(DIP_NOMEM, "no memory for the header of %s (%zu tensors)", path, n_tensors);
    uint64_t n_json = header->n - 8;
    for (int i = 0; i < 8; i++) header->bytes[i] = (char)(n_json >> (8 * i));
    return DIP_OK;
}

dip_status dip_safetensors_write(const char *path, const dip_tensor *tensors, size_t n_tensors)
{
    dip_status status;
    dip_writer *writer = NULL;
    text header = {0};
    const dip_tensor **order = calloc(n_tensors + 1, sizeof *order);
    if (!order) return dip_fail(DIP_NOMEM, "no memory to write %zu tensors to %s", n_tensors, path);
    for (size_t i = 0; i < n_tensors; i++) {
        DIP_TRY_GOTO(check_tensor(&tensors[i], path));
        order[i] = &tensors[i];
    }
    qsort(order, n_tensors, sizeof *order, compare_names);
    for (size_t i = 1; i < n_tensors; i++)
        if (strcmp(order[i - 1]->name, order[i]->name) == 0) {
            status = dip_fail(DIP_CONFIG, "cannot write %s: two tensors are called '%.200s'", path,
                              order[i]->name);
            goto fail;
        }
    qsort(order, n_tensors, sizeof *order, compare_for_writing);
    size_t crc_at;
    DIP_TRY_GOTO(make_header(&header, &crc_at, order, n_tensors, path));
    uint32_t crc = dip_crc32c(0, header.bytes, header.n);
    for (size_t i = 0; i < n_tensors; i++) crc = dip_crc32c(crc, order[i]->data, order[i]->n_bytes);
    char digits[DIP_CRC_DIGITS + 1];
    snprintf(digits, sizeof digits, "%08" PRIx32, crc);
    memcpy(header.bytes + crc_at, digits, DIP_CRC_DIGITS);

    DIP_TRY_GOTO(dip_writer_open(&writer, path));
    DIP_TRY_GOTO(dip_writer_write(writer, header.bytes, header.n));
    for (size_t i = 0; i < n_tensors; i++)
        DIP_TRY_GOTO(dip_writer_write(writer, order[i]->data, order[i]->n_bytes));
    status = dip_writer_commit(writer);
    writer = NULL;
fail:
    dip_writer_abort(writer);
    free(header.bytes);
    free(order);
    return status;
}
