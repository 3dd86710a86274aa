#include "model/npy.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "core/file.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "'<f4' is written as it lies in memory: little-endian machines only"
#endif

/* numpy.save leaves room in the padding for the first dimension to grow to this many digits. */
enum { GROWTH_DIGITS = 21, HEADER_ALIGN = 64, PREFIX_BYTES = 10 };

/* The header of a matrix; returns its length. 256 bytes are enough for any two sizes. */
static size_t make_header(char header[256], size_t n_rows, size_t n_columns)
{
    char *dict = header + PREFIX_BYTES;
    int n = snprintf(dict, 256 - PREFIX_BYTES,
                     "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %zu), }", n_rows,
                     n_columns);
    int n_digits = snprintf(NULL, 0, "%zu", n_rows);
    size_t text = (size_t)(n + GROWTH_DIGITS - n_digits);
    memset(dict + n, ' ', text - (size_t)n);
    /* One to 64 bytes of padding, never none: a full header gets another 64. */
    size_t total = ((PREFIX_BYTES + text + 1) / HEADER_ALIGN + 1) * HEADER_ALIGN;
    memset(dict + text, ' ', total - PREFIX_BYTES - text);
    header[total - 1] = '\n';
    uint16_t n_bytes = (uint16_t)(total - PREFIX_BYTES);
    memcpy(header, "\x93NUMPY\x01\x00", 8);
    memcpy(header + 8, &n_bytes, sizeof n_bytes);
    return total;
}

dip_status dip_npy_write(const char *path, const float *values, size_t n_rows, size_t n_columns)
{
    char header[256];
    size_t n_header = make_header(header, n_rows, n_columns);
    dip_writer *writer = NULL;
    DIP_TRY(dip_writer_open(&writer, path));
    dip_status status;
    DIP_TRY_GOTO(dip_writer_write(writer, header, n_header));
    DIP_TRY_GOTO(dip_writer_write(writer, values, n_rows * n_columns * sizeof *values));
    return dip_writer_commit(writer);
fail:
    dip_writer_abort(writer);
    return status;
}
