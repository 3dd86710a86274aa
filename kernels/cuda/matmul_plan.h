/* matmul_plan.h - products by cuBLASLt: descriptors made once, an algorithm chosen once.
 *
 * A plan is made when a product of its sizes, kinds and alignments is first asked for, and serves
 * until the executor is closed. Its algorithm is, in this order: what an earlier run measured on
 * this device (matmul_choices.h); the fastest of the heuristic's candidates, measured now; or,
 * while a graph is being recorded or with DIPTYCH_CUDA_TUNE=0, the heuristic's first. Measuring
 * waits for the device and may allocate; the outputs of a product are what one run gives.
 *
 * Determinism: no algorithm that reduces in another precision or order than a fixed one is asked
 * for, and the workspace is the executor's own. But different algorithms round differently, so
 * runs give the same bits as long as they find the same file of choices, or with
 * DIPTYCH_CUDA_TUNE=0.                                                                         */
#ifndef DIP_KERNELS_CUDA_MATMUL_PLAN_H
#define DIP_KERNELS_CUDA_MATMUL_PLAN_H

#include "kernels/cuda/cublaslt.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/matmul_choices.h"

/* bias and c may be NULL; c may be d. bias is a multiple of 16: cuBLASLt does not ask for its
 * alignment, and some of its kernels rely on it. 8-bit a and b are multiplied by one number each,
 * on the device. */
typedef struct dip_cuda_operands {
    const void *a, *b, *c, *bias;
    void *d;
    const float *a_scale, *b_scale;
} dip_cuda_operands;

typedef struct dip_cuda_plan {
    dip_cuda_product product;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t a, b, d; /* C is laid out as D */
    cublasLtMatmulAlgo_t algo;
} dip_cuda_plan;

enum { DIP_CUDA_PLAN_SLOTS = 1024 };

typedef struct dip_cuda_matmul {
    const dip_cuda *cuda;
    const dip_cublaslt *blas;
    cublasLtHandle_t handle;
    void *workspace;
    size_t workspace_bytes;
    bool tune;
    char *choices_path; /* NULL: not kept */
    dip_cuda_choices choices;
    dip_cuda_plan *plans[DIP_CUDA_PLAN_SLOTS]; /* a hash table; a collision takes the next slot */
    int n_plans;
    struct dip_cuda_fp8 *fp8; /* fp8.c; NULL: no products in fp8 */
} dip_cuda_matmul;

/* d = op(a) op(b) + c + bias; sets product's has_* and align_* from the operands. Enqueued. */
dip_status dip_cuda_product_run(dip_cuda_matmul *matmul, dip_cuda_product product,
                                dip_cuda_operands operands);

/* One run of a plan with the algorithm that is in it. CUBLAS's own status. */
cublasStatus_t dip_cuda_plan_enqueue(const dip_cuda_matmul *matmul, const dip_cuda_plan *plan,
                                     const dip_cuda_operands *operands);

/* matmul_tune.c: put into plan->algo the fastest of the candidates, and its time into
 * *nanoseconds; 0 if they could not be measured, and plan->algo is then the first. */
dip_status dip_cuda_tune(const dip_cuda_matmul *matmul, dip_cuda_plan *plan, int64_t *nanoseconds,
                         const dip_cuda_operands *operands,
                         const cublasLtMatmulHeuristicResult_t *candidates, int n_candidates);

/* DIP_OK for CUBLAS_STATUS_SUCCESS, else a sentence with the product's sizes. */
dip_status dip_cuda_blas_check(const dip_cuda_matmul *matmul, cublasStatus_t blas_status,
                               const dip_cuda_product *product, const char *call);

#endif
