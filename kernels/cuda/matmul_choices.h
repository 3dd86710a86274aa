/* matmul_choices.h - which algorithm was measured to be the fastest for which product, remembered
 * on disk for each device and version of cuBLASLt.
 *
 * The file: one line a product: its sizes, its kind, the time in nanoseconds, the algorithm's bytes
 * in hexadecimal, and a checksum. Lines that are damaged or of another format are passed over.
 *
 * Usage:   dip_cuda_choices_read, find and add while running, dip_cuda_choices_write, free.
 * Threads: one thread at a time. Several processes may write: each adds what it knows to what it
 *          finds, the file is replaced as a whole, and of two at the same moment one's news is
 * lost.
 */
#ifndef DIP_KERNELS_CUDA_MATMUL_CHOICES_H
#define DIP_KERNELS_CUDA_MATMUL_CHOICES_H

#include <cublasLt.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/status.h"

/* 8-bit formats (fp8.h). */
typedef enum dip_fp8_format { DIP_FP8_NONE, DIP_FP8_E4M3, DIP_FP8_E5M2 } dip_fp8_format;

/* D = op(A) op(B) + C + bias, all column-major: D and C [m, n], op(A) [m, k], op(B) [k, n], bias
 * [m] for every column. */
typedef struct dip_cuda_product {
    int64_t m, n, k;
    dip_fp8_format a_fp8, b_fp8;    /* both or none; at most one of them e5m2 */
    bool inputs_bf16, outputs_bf16; /* else 8-bit or float; C and bias are as D */
    bool transpose_a, transpose_b;
    bool has_bias, has_c;
    uint16_t align_a, align_b, align_c, align_d; /* bytes: 256, 16, 8, 4 or 2 */
} dip_cuda_product;

bool dip_cuda_product_equal(const dip_cuda_product *a, const dip_cuda_product *b);
/* "bf16", "fp32", or for 8-bit formats of a and b "e4e5" and the like. */
const char *dip_cuda_product_inputs(const dip_cuda_product *product);

typedef struct dip_cuda_choice {
    dip_cuda_product product;
    int64_t nanoseconds;
    cublasLtMatmulAlgo_t algo;
} dip_cuda_choice;

typedef struct dip_cuda_choices { /* zeroed: empty */
    dip_cuda_choice *at;
    int n, capacity;
    bool is_new; /* something was added since the file was read */
} dip_cuda_choices;

/* Where the choices for this device and version are kept:
 * ($XDG_CACHE_HOME or ~/.cache)/diptych/cublaslt-DEVICE-VERSION.txt, malloc'd; NULL when there is
 * no home. */
char *dip_cuda_choices_path(const char *device_name, size_t version);

/* Add what the file holds; no file, no choices. Never fails but for DIP_NOMEM. */
dip_status dip_cuda_choices_read(dip_cuda_choices *choices, const char *path);
const dip_cuda_choice *dip_cuda_choices_find(const dip_cuda_choices *choices,
                                             const dip_cuda_product *product);
/* A later choice for the same product replaces the earlier one. DIP_NOMEM. */
dip_status dip_cuda_choices_add(dip_cuda_choices *choices, const dip_cuda_choice *choice);
/* Replace the file by these and by what others wrote to it; nothing when nothing was added. */
dip_status dip_cuda_choices_write(dip_cuda_choices *choices, const char *path);
void dip_cuda_choices_free(dip_cuda_choices *choices);

#endif
