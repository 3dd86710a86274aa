/* fp8.h - products of chosen weights in 8-bit floats, with delayed scaling (dip_exec_use_fp8).
 *
 * Formats: e4m3 for activations and weights, e5m2 for gradients of activations. A product of
 *          sizes that are multiples of 16, of matrices that are multiples of 16 bytes, is computed
 *          from 8-bit copies of its operands, which lie in the executor's workspace; any other one
 *          in bf16. Results, biases and what is added are as in bf16.
 * Layout:  cuBLASLt multiplies 8-bit matrices only where the summed index runs along memory in
 *          both, so the gradient of the input needs the weight turned, that of the weight both
 *          operands. A copy is made straight or turned, in one read of the original.
 * Scales:  each of a weight's three tensors (its input, itself, the gradient of its output) has
 *          one, a power of two, so that multiplying by it rounds nothing: the largest that keeps
 *          the largest magnitude of the last DIP_FP8_HISTORY steps in range. What is larger than
 *          ever before saturates, once. A tensor without a history, in its first step, takes the
 *          scale of its own maximum, for which it is read twice. An infinity or a NaN becomes a
 *          NaN, which reaches loss and gradient norm; it does not count for the scale.
 * Cost:    every use makes its copies anew: a product reads its operands once more in bf16 and
 *          writes half of that. A layer norm or an activation that wrote the copy of its output
 *          would save that read, and one that wrote the turned copy too would save backward's; a
 *          gradient is read by two products and could be copied both ways at once.           */
#ifndef DIP_KERNELS_CUDA_FP8_H
#define DIP_KERNELS_CUDA_FP8_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { DIP_FP8_HISTORY = 16, DIP_FP8_MULTIPLE = 16 };

#define DIP_E4M3_LARGEST 448.0f
#define DIP_E5M2_LARGEST 57344.0f

/* Of one tensor, on the device. */
typedef struct dip_fp8_scaling {
    float history[DIP_FP8_HISTORY]; /* largest magnitudes of past steps; 0: none yet */
    uint32_t n_steps;               /* the next one's place is n_steps % DIP_FP8_HISTORY */
    uint32_t max_bits;              /* bits of the largest finite magnitude of this step so far */
    float largest;                  /* number of the format */
    float scale;                    /* what copies are multiplied by; 0: no history */
    float inverse;                  /* of the scale of the last copy: the product's */
} dip_fp8_scaling;

/* A copy to be made. */
typedef struct dip_fp8_copy {
    const void *in; /* [rows, columns] bf16, both multiples of DIP_FP8_MULTIPLE */
    int64_t rows, columns;
    uint8_t *straight, *turned; /* [rows, columns] and [columns, rows]; either may be NULL */
    dip_fp8_scaling *scaling;
    int is_e5m2; /* else e4m3 */
} dip_fp8_copy;

/* Two copies of tensors that do not share a scaling, and their scalings' inverse. Enqueued. */
void dip_cuda_fp8_make_copies(dip_exec *exec, const dip_fp8_copy copies[2]);

/* This step's maxima become history, and scales follow. Enqueued. */
void dip_cuda_fp8_push_maxima(dip_exec *exec, dip_fp8_scaling *scalings, int n_scalings);

/* ---- fp8.c ------------------------------------------------------------------------------ */

struct dip_cuda_fp8;
struct dip_cuda_product;
struct dip_cuda_operands;

typedef enum dip_fp8_pass {
    DIP_FP8_FORWARD,        /* a: the weight, b: its input */
    DIP_FP8_INPUT_GRADIENT, /* a: the weight, b: the gradient of its output */
    DIP_FP8_WEIGHT_GRADIENT /* a: the input, b: the gradient of the output */
} dip_fp8_pass;

/* A bf16 product of one of the chosen weights, `weight` (in the last pass its gradient), whose
 * operands are as the pass says: make it one of 8-bit copies. Others are left as they are. */
void dip_cuda_fp8_take(dip_exec *exec, dip_fp8_pass pass, const void *weight,
                       dip_weight_layout layout, struct dip_cuda_product *product,
                       struct dip_cuda_operands *operands);

/* A step ends: nothing without chosen weights. Enqueued, so that a recorded step does it too. */
void dip_cuda_fp8_step(dip_exec *exec);

/* dip_exec_use_fp8, dip_exec_pause_fp8 of this backend. */
dip_status dip_cuda_use_fp8(dip_exec *exec, const dip_fp8_weight *weights, int n_weights,
                            int64_t max_rows);
void dip_cuda_pause_fp8(dip_exec *exec, int paused);
void dip_cuda_fp8_close(struct dip_cuda_fp8 *fp8, const dip_device *device); /* accepts NULL */

#ifdef __cplusplus
}
#endif
#endif
