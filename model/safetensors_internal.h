/* safetensors_internal.h - what the reader and the writer of safetensors files share. */
#ifndef DIP_MODEL_SAFETENSORS_INTERNAL_H
#define DIP_MODEL_SAFETENSORS_INTERNAL_H

#include "model/safetensors.h"

/* The format's dtypes in its own order, which is also the order of writing, backwards. */
typedef struct dip_dtype_row {
    const char *name;
    int bits;
    dip_tensor_dtype dtype;
} dip_dtype_row;

extern const dip_dtype_row dip_dtype_rows[];
extern const size_t dip_n_dtype_rows;

/* "diptych_crc32c": CRC-32C of the whole file in lower-case hexadecimal, taken with zeros in the
 * place of the eight digits. "writer" says that there must be one. */
#define DIP_CRC_KEY     "diptych_crc32c"
#define DIP_CRC_ZEROS   "00000000"
#define DIP_WRITER_KEY  "writer"
#define DIP_WRITER_NAME "diptych"
enum { DIP_CRC_DIGITS = 8 };

#endif
