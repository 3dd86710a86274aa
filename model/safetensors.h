/* safetensors.h - named tensors in one file, as the Hugging Face format defines them.
 *
 * Reading maps the file and enforces every validity rule of the reference reader (header size,
 * UTF-8, no duplicate names, no holes, no overlaps, no trailing bytes, shape product). Writing is
 * atomic, tensors sorted as the reference writer sorts them (dtype descending, then name), header
 * padded to 8 bytes, metadata {"diptych_crc32c":"%08x","format":"pt","writer":"diptych"}.
 *
 * The checksum is the CRC-32C of the whole file, taken with "00000000" in its own place. A file
 * that carries one is checked when it is opened; files of other programs carry none.
 *
 * Usage:   dip_safetensors_open, _find or _tensors, _close; or fill dip_tensor rows and call
 *          dip_safetensors_write.
 * Owns:    the mapping; tensor names and data are valid until close.
 * Errors:  DIP_IO, DIP_FORMAT with what is wrong and where, DIP_NOMEM.                     */
#ifndef DIP_MODEL_SAFETENSORS_H
#define DIP_MODEL_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "core/status.h"

enum { DIP_TENSOR_MAX_DIMS = 8 };

typedef enum dip_tensor_dtype {
    DIP_ST_F32,
    DIP_ST_BF16,
    DIP_ST_F16,
    DIP_ST_F64,
    DIP_ST_I64,
    DIP_ST_I32,
    DIP_ST_U8,
    DIP_ST_OTHER /* valid, but nothing here computes with it */
} dip_tensor_dtype;

typedef struct dip_tensor {
    const char *name;
    dip_tensor_dtype dtype;
    int n_dims;
    int64_t shape[DIP_TENSOR_MAX_DIMS];
    const void *data;
    size_t n_bytes;
} dip_tensor;

typedef struct dip_safetensors dip_safetensors;

dip_status dip_safetensors_open(dip_safetensors **file, const char *path);
void dip_safetensors_close(dip_safetensors *file); /* accepts NULL */
/* All tensors, sorted by name. Their data may lie at any address: copy, do not cast. */
const dip_tensor *dip_safetensors_tensors(const dip_safetensors *file, size_t *n);
const dip_tensor *dip_safetensors_find(const dip_safetensors *file, const char *name); /* or NULL */

/* Element i of a floating-point tensor (F32, BF16, F16, F64) as float, into out [n_elements]. */
dip_status dip_tensor_to_float(float *out, const dip_tensor *tensor);

/* All data must be there at once; names must differ. DIP_CONFIG for tensors that cannot be written,
 * DIP_IO, DIP_NOMEM. */
dip_status dip_safetensors_write(const char *path, const dip_tensor *tensors, size_t n_tensors);

#endif
