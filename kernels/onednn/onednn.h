/* onednn.h - the optimised CPU backend.
 *
 * The table starts as the plain-C reference and every op that has something faster for this
 * CPU replaces its entry: matrix products from gemm.h, the others from vector.h (written once
 * over a few vector operations, compiled for AVX2 and AVX-512) and the *_amx.c files. Which is
 * decided once, from what the CPU and the kernel allow.
 *
 * Usage:   dip_onednn_exec_init, run ops, dip_onednn_exec_free; the tables are constants.
 * Threads: everything here is safe; an executor belongs to one thread at a time.
 * AMX:     tile configuration is state of a thread. An op that uses tiles loads its own
 *          configuration on each of its threads when it begins and releases it at the end;
 *          none may rely on what an earlier op left.                                      */
#ifndef DIP_KERNELS_ONEDNN_ONEDNN_H
#define DIP_KERNELS_ONEDNN_ONEDNN_H

#include "kernels/device.h"
#include "kernels/ops.h"

/* What the code may use, each level including the ones before it. */
typedef enum {
    DIP_ISA_BASE,        /* x86-64 */
    DIP_ISA_AVX2,        /* AVX2, FMA, F16C */
    DIP_ISA_AVX512,      /* AVX-512 F, BW, DQ, VL */
    DIP_ISA_AVX512_BF16, /* and its bf16 products */
    DIP_ISA_AMX          /* and bf16 tiles, permitted by the kernel */
} dip_cpu_isa_level;

/* The level of this CPU, lowered by the environment variable DIPTYCH_CPU_ISA =
 * amx | avx512bf16 | avx512 | avx2 | base. Both are looked at once, on the first call. */
dip_cpu_isa_level dip_cpu_isa(void);

const dip_ops *dip_onednn_ops(dip_dtype dtype);

/* DIP_CONFIG: DIPTYCH_CPU_ISA is not one of its words. */
dip_status dip_onednn_exec_init(dip_exec *exec);
void dip_onednn_exec_free(dip_exec *exec);

#endif
