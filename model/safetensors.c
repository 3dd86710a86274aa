/* Reading. The layout of a file (integers little-endian, as on every host this is built for):
 *     u64 N | N bytes of JSON, blanks allowed at both ends | tensor data to the end of the file */
#include "model/safetensors.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/file.h"
#include "core/json.h"
#include "model/safetensors_internal.h"

enum { MAX_HEADER_BYTES = 100000000 };

struct dip_safetensors {
    dip_map map;
    cJSON *header;       /* owns the names */
    dip_tensor *tensors; /* by name */
    size_t n_tensors;
};

typedef struct span {
    uint64_t begin, end;
    const char *name;
} span;

const dip_dtype_row dip_dtype_rows[] = {
    {"BOOL", 8, DIP_ST_OTHER},
    {"F4", 4, DIP_ST_OTHER},
    {"F6_E2M3", 6, DIP_ST_OTHER},
    {"F6_E3M2", 6, DIP_ST_OTHER},
    {"U8", 8, DIP_ST_U8},
    {"I8", 8, DIP_ST_OTHER},
    {"F8_E5M2", 8, DIP_ST_OTHER},
    {"F8_E4M3", 8, DIP_ST_OTHER},
    {"F8_E8M0", 8, DIP_ST_OTHER},
    {"F8_E4M3FNUZ", 8, DIP_ST_OTHER},
    {"F8_E5M2FNUZ", 8, DIP_ST_OTHER},
    {"I16", 16, DIP_ST_OTHER},
    {"U16", 16, DIP_ST_OTHER},
    {"F16", 16, DIP_ST_F16},
    {"BF16", 16, DIP_ST_BF16},
    {"I32", 32, DIP_ST_I32},
    {"U32", 32, DIP_ST_OTHER},
    {"F32", 32, DIP_ST_F32},
    {"C64", 64, DIP_ST_OTHER},
    {"F64", 64, DIP_ST_F64},
    {"I64", 64, DIP_ST_I64},
    {"U64", 64, DIP_ST_OTHER},
};
const size_t dip_n_dtype_rows = sizeof dip_dtype_rows / sizeof dip_dtype_rows[0];

/* ---- one tensor of the header -----------------------------------------------------------------
 */

/* JSON numbers arrive as double, exact for integers up to 2^53; no file is larger. */
static bool is_count(const cJSON *item, uint64_t *out)
{
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble <= 0x1p53))
        return false;
    *out = (uint64_t)item->valuedouble;
    return (double)*out == item->valuedouble;
}

/* *n_elements starts at 1: the product of no dimensions. */
static dip_status read_shape(dip_tensor *tensor, uint64_t *n_elements, const cJSON *shape,
                             const char *path)
{
    const char *name = tensor->name;
    if (!cJSON_IsArray(shape))
        return dip_fail(DIP_FORMAT, "%s: tensor '%.200s' has no \"shape\" array", path, name);
    const cJSON *item;
    cJSON_ArrayForEach(item, shape)
    {
        uint64_t extent;
        if (tensor->n_dims == DIP_TENSOR_MAX_DIMS)
            return dip_fail(DIP_FORMAT, "%s: tensor '%.200s' has more than %d dimensions", path,
                            name, DIP_TENSOR_MAX_DIMS);
        if (!is_count(item, &extent))
            return dip_fail(DIP_FORMAT, "%s: dimension %d of tensor '%.200s' is not a whole number",
                            path, tensor->n_dims, name);
        if (__builtin_mul_overflow(*n_elements, extent, n_elements))
            return dip_fail(DIP_FORMAT, "%s: the shape of tensor '%.200s' overflows 64 bits", path,
                            name);
        tensor->shape[tensor->n_dims++] = (int64_t)extent;
    }
    return DIP_OK;
}

static dip_status read_entry(dip_tensor *tensor, span *where, const cJSON *entry, const char *path)
{
    const char *name = tensor->name = entry->string;
    const cJSON *dtype = NULL, *shape = NULL, *offsets = NULL, *item;
    if (!cJSON_IsObject(entry))
        return dip_fail(DIP_FORMAT, "%s: the entry of tensor '%.200s' is not an object", path,
                        name);
    cJSON_ArrayForEach(item, entry)
    {
        if (strcmp(item->string, "dtype") == 0)
            dtype = item;
        else if (strcmp(item->string, "shape") == 0)
            shape = item;
        else if (strcmp(item->string, "data_offsets") == 0)
            offsets = item;
        else
            return dip_fail(DIP_FORMAT, "%s: tensor '%.200s' has the unknown key '%.100s'", path,
                            name, item->string);
    }
    const dip_dtype_row *row = NULL;
    for (size_t i = 0; cJSON_IsString(dtype) && i < dip_n_dtype_rows; i++)
        if (strcmp(dip_dtype_rows[i].name, dtype->valuestring) == 0) row = &dip_dtype_rows[i];
    if (!row)
        return dip_fail(DIP_FORMAT, "%s: tensor '%.200s' has the unknown dtype '%.100s'", path,
                        name, cJSON_IsString(dtype) ? dtype->valuestring : "");
    tensor->dtype = row->dtype;

    uint64_t n_elements = 1, n_bits;
    DIP_TRY(read_shape(tensor, &n_elements, shape, path));
    if (__builtin_mul_overflow(n_elements, (uint64_t)row->bits, &n_bits) || n_bits % 8 != 0)
        return dip_fail(DIP_FORMAT,
                        "%s: tensor '%.200s' with %" PRIu64 " elements of %s is not a whole number "
                        "of bytes below 2^61",
                        path, name, n_elements, row->name);
    if (cJSON_GetArraySize(offsets) != 2 || !cJSON_IsArray(offsets) ||
        !is_count(cJSON_GetArrayItem(offsets, 0), &where->begin) ||
        !is_count(cJSON_GetArrayItem(offsets, 1), &where->end) || where->end < where->begin)
        return dip_fail(DIP_FORMAT, "%s: \"data_offsets\" of tensor '%.200s' is not [begin, end]",
                        path, name);
    if (where->end - where->begin != n_bits / 8)
        return dip_fail(DIP_FORMAT,
                        "%s: tensor '%.200s' needs %" PRIu64 " bytes by its shape and %s, but has "
                        "%" PRIu64,
                        path, name, n_bits / 8, row->name, where->end - where->begin);
    where->name = name;
    tensor->n_bytes = (size_t)(n_bits / 8);
    return DIP_OK;
}

static dip_status check_metadata(const cJSON *metadata, const char *path)
{
    if (!cJSON_IsObject(metadata))
        return dip_fail(DIP_FORMAT, "%s: \"__metadata__\" is not an object", path);
    const cJSON *item;
    cJSON_ArrayForEach(item, metadata) if (!cJSON_IsString(item)) return dip_fail(
        DIP_FORMAT, "%s: the metadata '%.100s' is not a string", path, item->string);
    return DIP_OK;
}

/* ---- the whole header -------------------------------------------------------------------------
 */

static int compare_spans(const void *a, const void *b)
{
    const span *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const dip_tensor *)a)->name, ((const dip_tensor *)b)->name);
}

/* In data order every tensor begins where the one before ended, and the last ends the file. */
static dip_status check_layout(span *spans, size_t n, uint64_t n_data_bytes, const char *path)
{
    qsort(spans, n, sizeof *spans, compare_spans);
    uint64_t at = 0;
    for (size_t i = 0; i < n; i++) {
        if (spans[i].begin != at)
            return dip_fail(DIP_FORMAT,
                            "%s: tensor '%.200s' begins at byte %" PRIu64 " of the data, %s byte "
                            "%" PRIu64 " where the one before ends",
                            path, spans[i].name, spans[i].begin,
                            spans[i].begin < at ? "before" : "behind", at);
        at = spans[i].end;
    }
    if (at != n_data_bytes)
        return dip_fail(DIP_FORMAT,
                        "%s: the tensors end at byte %" PRIu64 " of the data, the file at %" PRIu64,
                        path, at, n_data_bytes);
    return DIP_OK;
}

static dip_status read_entries(dip_safetensors *file, const uint8_t *data, uint64_t n_data_bytes,
                               const char *path)
{
    size_t n = (size_t)cJSON_GetArraySize(file->header);
    span *spans = calloc(n + 1, sizeof *spans);
    file->tensors = calloc(n + 1, sizeof *file->tensors);
    dip_status status = DIP_OK;
    if (!spans || !file->tensors) {
        status = dip_fail(DIP_NOMEM, "no memory for the %zu tensors of %s", n, path);
        goto fail;
    }
    const cJSON *entry;
    cJSON_ArrayForEach(entry, file->header)
    {
        if (strcmp(entry->string, "__metadata__") == 0) {
            DIP_TRY_GOTO(check_metadata(entry, path));
            continue;
        }
        dip_tensor *tensor = &file->tensors[file->n_tensors];
        span *where = &spans[file->n_tensors];
        DIP_TRY_GOTO(read_entry(tensor, where, entry, path));
        if (where->end > n_data_bytes) {
            status = dip_fail(DIP_FORMAT,
                              "%s: tensor '%.200s' ends at byte %" PRIu64 " of the data, which has "
                              "%" PRIu64 ": the file is cut short or damaged",
                              path, tensor->name, where->end, n_data_bytes);
            goto fail;
        }
        tensor->data = data + where->begin;
        file->n_tensors++;
    }
    DIP_TRY_GOTO(check_layout(spans, file->n_tensors, n_data_bytes, path));
    qsort(file->tensors, file->n_tensors, sizeof *file->tensors, compare_names);
fail:
    free(spans);
    return status;
}

/* ---- checksum ---------------------------------------------------------------------------------
 */

/* Only files of our own writer carry one. Its key and the writer's mark are two separate words of
 * the header: damage to either still leaves the other, so no single error can hide the check. */
static dip_status check_crc(const dip_safetensors *file, size_t n_header_bytes, const char *path)
{
    const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(file->header, "__metadata__");
    const cJSON *crc = cJSON_GetObjectItemCaseSensitive(metadata, DIP_CRC_KEY);
    const cJSON *writer = cJSON_GetObjectItemCaseSensitive(metadata, DIP_WRITER_KEY);
    if (!crc) {
        if (writer && strcmp(writer->valuestring, DIP_WRITER_NAME) == 0)
            return dip_fail(DIP_FORMAT, "%s: the checksum " DIP_CRC_KEY " is missing", path);
        return DIP_OK;
    }
    static const char mark[] = "\"" DIP_CRC_KEY "\":\"";
    const uint8_t *start = file->map.data;
    const uint8_t *digits = memmem(start + 8, n_header_bytes, mark, sizeof mark - 1);
    if (!digits || strlen(crc->valuestring) != DIP_CRC_DIGITS)
        return dip_fail(DIP_FORMAT, "%s: the checksum " DIP_CRC_KEY " is not eight digits", path);
    digits += sizeof mark - 1;
    const uint8_t *rest = digits + DIP_CRC_DIGITS;
    uint32_t sum = dip_crc32c(0, start, (size_t)(digits - start));
    sum = dip_crc32c(sum, DIP_CRC_ZEROS, DIP_CRC_DIGITS);
    sum = dip_crc32c(sum, rest, file->map.n_bytes - (size_t)(rest - start));
    char text[DIP_CRC_DIGITS + 1];
    snprintf(text, sizeof text, "%08" PRIx32, sum);
    if (memcmp(text, digits, DIP_CRC_DIGITS) != 0)
        return dip_fail(DIP_FORMAT,
                        "%s: the checksum is %s, the file says %.8s: it is damaged, or another "
                        "program rewrote it and kept the old " DIP_CRC_KEY,
                        path, text, (const char *)digits);
    return DIP_OK;
}

/* ---- life cycle -------------------------------------------------------------------------------
 */

static const char *hint(const uint8_t *data, size_t n_bytes)
{
    static const struct {
        const char *start, *text;
    } strangers[] = {
        {"version https://git-lfs",
         " (it is a Git LFS pointer: the file itself was never fetched)"},
        {"PK\x03\x04", " (it is a zip archive, perhaps a PyTorch checkpoint)"},
        {"<", " (it looks like an HTML page)"},
        {"{", " (it looks like JSON)"},
    };
    for (size_t i = 0; i < sizeof strangers / sizeof strangers[0]; i++) {
        size_t n = strlen(strangers[i].start);
        if (n_bytes >= n && memcmp(data, strangers[i].start, n) == 0) return strangers[i].text;
    }
    return "";
}

dip_status dip_safetensors_open(dip_safetensors **file, const char *path)
{
    *file = NULL;
    dip_safetensors *fresh = calloc(1, sizeof *fresh);
    if (!fresh) return dip_fail(DIP_NOMEM, "no memory to open %s", path);
    dip_status status;
    DIP_TRY_GOTO(dip_file_map(&fresh->map, path));
    const uint8_t *bytes = fresh->map.data;
    size_t n_bytes = fresh->map.n_bytes;
    uint64_t n_header = 0;
    for (size_t i = 0; i < 8 && n_bytes >= 8; i++) n_header |= (uint64_t)bytes[i] << (8 * i);
    if (n_bytes < 8 || n_header > n_bytes - 8) {
        status = dip_fail(DIP_FORMAT,
                          "%s is not a safetensors file, or is cut short: %zu bytes cannot hold a "
                          "header of %" PRIu64 "%s",
                          path, n_bytes, n_header, hint(bytes, n_bytes));
        goto fail;
    }
    if (n_header > MAX_HEADER_BYTES) {
        status = dip_fail(DIP_FORMAT, "%s: the header has %" PRIu64 " bytes; the limit is %d", path,
                          n_header, MAX_HEADER_BYTES);
        goto fail;
    }
    DIP_TRY_GOTO(dip_json_parse(&fresh->header, (const char *)bytes + 8, (size_t)n_header, path));
    if (!cJSON_IsObject(fresh->header)) {
        status = dip_fail(DIP_FORMAT, "%s: the header is not a JSON object", path);
        goto fail;
    }
    DIP_TRY_GOTO(read_entries(fresh, bytes + 8 + n_header, n_bytes - 8 - n_header, path));
    DIP_TRY_GOTO(check_crc(fresh, (size_t)n_header, path));
    *file = fresh;
    return DIP_OK;
fail:
    dip_safetensors_close(fresh);
    return status;
}

void dip_safetensors_close(dip_safetensors *file)
{
    if (!file) return;
    free(file->tensors);
    cJSON_Delete(file->header);
    dip_file_unmap(&file->map);
    free(file);
}

const dip_tensor *dip_safetensors_tensors(const dip_safetensors *file, size_t *n)
{
    *n = file->n_tensors;
    return file->tensors;
}

const dip_tensor *dip_safetensors_find(const dip_safetensors *file, const char *name)
{
    dip_tensor key = {.name = name};
    return bsearch(&key, file->tensors, file->n_tensors, sizeof key, compare_names);
}

/* ---- values -----------------------------------------------------------------------------------
 */

static float half_to_float(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t exponent = half >> 10 & 31, mantissa = half & 0x3ffu, bits;
    if (exponent == 31) {
        bits = sign | 0x7f800000u | mantissa << 13;
    } else if (exponent > 0) {
        bits = sign | (exponent + 112) << 23 | mantissa << 13;
    } else { /* zero and subnormal: mantissa * 2^-24 */
        float value = (float)mantissa * 0x1p-24f;
        return sign ? -value : value;
    }
    float out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

dip_status dip_tensor_to_float(float *out, const dip_tensor *tensor)
{
    const uint8_t *data = tensor->data; /* may lie at any address */
    uint16_t half;
    double wide;
    if (tensor->n_bytes == 0) return DIP_OK;
    switch (tensor->dtype) {
    case DIP_ST_F32:
        memcpy(out, data, tensor->n_bytes);
        return DIP_OK;
    case DIP_ST_BF16:
    case DIP_ST_F16:
        for (size_t i = 0; i < tensor->n_bytes / 2; i++) {
            memcpy(&half, data + 2 * i, 2);
            out[i] = tensor->dtype == DIP_ST_F16 ? half_to_float(half) : dip_bf16_to_float(half);
        }
        return DIP_OK;
    case DIP_ST_F64:
        for (size_t i = 0; i < tensor->n_bytes / 8; i++) {
            memcpy(&wide, data + 8 * i, 8);
            out[i] = (float)wide;
        }
        return DIP_OK;
    default:
        return dip_fail(DIP_FORMAT, "tensor '%.200s' does not hold floating-point numbers",
                        tensor->name);
    }
}
