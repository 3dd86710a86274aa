#include "kernels/cuda/matmul_plan.h"

#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "kernels/cuda/fp8.h"

enum {
    N_CANDIDATES = 8,
    BIAS_ALIGNMENT = 16,
    MAX_PLANS = DIP_CUDA_PLAN_SLOTS * 3 / 4, /* then the table is emptied */
};

dip_status dip_cuda_blas_check(const dip_cuda_matmul *matmul, cublasStatus_t blas_status,
                               const dip_cuda_product *product, const char *call)
{
    if (blas_status == CUBLAS_STATUS_SUCCESS) return DIP_OK;
    return dip_fail(blas_status == CUBLAS_STATUS_ALLOC_FAILED ? DIP_NOMEM : DIP_DEVICE,
                    "%s: %s, for the product [%lld, %lld] x [%lld, %lld], %s to %s", call,
                    matmul->blas->cublasLtGetStatusString(blas_status), (long long)product->m,
                    (long long)product->k, (long long)product->k, (long long)product->n,
                    dip_cuda_product_inputs(product), product->outputs_bf16 ? "bf16" : "fp32");
}

/* ---- making a plan ---------------------------------------------------------------------- */

static void plan_free(const dip_cublaslt *blas, dip_cuda_plan *plan)
{
    if (!plan) return;
    if (plan->operation) blas->cublasLtMatmulDescDestroy(plan->operation);
    if (plan->a) blas->cublasLtMatrixLayoutDestroy(plan->a);
    if (plan->b) blas->cublasLtMatrixLayoutDestroy(plan->b);
    if (plan->d) blas->cublasLtMatrixLayoutDestroy(plan->d);
    free(plan);
}

/* A dense column-major matrix [rows, columns]. */
static cublasStatus_t make_layout(const dip_cublaslt *blas, cublasLtMatrixLayout_t *layout,
                                  cudaDataType_t type, int64_t rows, int64_t columns)
{
    return blas->cublasLtMatrixLayoutCreate(layout, type, (uint64_t)rows, (uint64_t)columns, rows);
}

static cudaDataType_t type_of(dip_fp8_format fp8, bool is_bf16)
{
    if (fp8 != DIP_FP8_NONE) return fp8 == DIP_FP8_E4M3 ? CUDA_R_8F_E4M3 : CUDA_R_8F_E5M2;
    return is_bf16 ? CUDA_R_16BF : CUDA_R_32F;
}

#define TRY_BLAS(call)                                                                             \
    do {                                                                                           \
        cublasStatus_t try_status_ = (call);                                                       \
        if (try_status_ != CUBLAS_STATUS_SUCCESS) return try_status_;                              \
    } while (0)

static cublasStatus_t describe(const dip_cublaslt *blas, dip_cuda_plan *plan)
{
    const dip_cuda_product *p = &plan->product;
    const cublasOperation_t op_a = p->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t op_b = p->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasLtEpilogue_t epilogue =
        p->has_bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    /* Sums of e4m3 may stay in the tensor cores' own accumulators, which are shorter than float and
     * twice as fast on Hopper; those of gradients are carried to float as they go. */
    const int8_t fast_sums = p->a_fp8 == DIP_FP8_E4M3 && p->b_fp8 == DIP_FP8_E4M3;
    /* 32F without TF32: fp32 products keep their precision. */
    TRY_BLAS(blas->cublasLtMatmulDescCreate(&plan->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    TRY_BLAS(blas->cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_TRANSA,
                                                  &op_a, sizeof op_a));
    TRY_BLAS(blas->cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_TRANSB,
                                                  &op_b, sizeof op_b));
    TRY_BLAS(blas->cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_EPILOGUE,
                                                  &epilogue, sizeof epilogue));
    if (fast_sums)
        TRY_BLAS(blas->cublasLtMatmulDescSetAttribute(
            plan->operation, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &fast_sums, sizeof fast_sums));
    TRY_BLAS(make_layout(blas, &plan->a, type_of(p->a_fp8, p->inputs_bf16),
                         p->transpose_a ? p->k : p->m, p->transpose_a ? p->m : p->k));
    TRY_BLAS(make_layout(blas, &plan->b, type_of(p->b_fp8, p->inputs_bf16),
                         p->transpose_b ? p->n : p->k, p->transpose_b ? p->k : p->n));
    return make_layout(blas, &plan->d, type_of(DIP_FP8_NONE, p->outputs_bf16), p->m, p->n);
}

/* What the operation is told of its operands. */
static cublasStatus_t set_pointers(const dip_cublaslt *blas, const dip_cuda_plan *plan,
                                   const dip_cuda_operands *operands)
{
    const struct {
        bool is_set;
        cublasLtMatmulDescAttributes_t name;
        const void *pointer;
    } pointers[] = {
        {plan->product.has_bias, CUBLASLT_MATMUL_DESC_BIAS_POINTER, operands->bias},
        {operands->a_scale, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, operands->a_scale},
        {operands->b_scale, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, operands->b_scale},
    };
    for (size_t i = 0; i < sizeof pointers / sizeof pointers[0]; i++)
        if (pointers[i].is_set)
            TRY_BLAS(blas->cublasLtMatmulDescSetAttribute(plan->operation, pointers[i].name,
                                                          &pointers[i].pointer,
                                                          sizeof pointers[i].pointer));
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t set_preferences(const dip_cuda_matmul *matmul,
                                      cublasLtMatmulPreference_t preference,
                                      const dip_cuda_product *p)
{
    const uint64_t max_bytes = matmul->workspace_bytes;
    /* A split product is added up in float, in a pass of its own: the same order every time. */
    const uint32_t schemes =
        CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const uint32_t a = p->align_a, b = p->align_b, c = p->align_c, d = p->align_d;
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t n_bytes;
    } attributes[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &max_bytes, sizeof max_bytes},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &a, sizeof a},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &b, sizeof b},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &c, sizeof c},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &d, sizeof d},
    };
    for (size_t i = 0; i < sizeof attributes / sizeof attributes[0]; i++)
        TRY_BLAS(matmul->blas->cublasLtMatmulPreferenceSetAttribute(
            preference, attributes[i].name, attributes[i].value, attributes[i].n_bytes));
    return CUBLAS_STATUS_SUCCESS;
}

/* Up to `wanted` algorithms that can do it, the one that should be fastest first. */
static cublasStatus_t ask_heuristic(const dip_cuda_matmul *matmul, const dip_cuda_plan *plan,
                                    cublasLtMatmulHeuristicResult_t found[N_CANDIDATES],
                                    int *n_found, int wanted)
{
    const dip_cublaslt *blas = matmul->blas;
    cublasLtMatmulPreference_t preference;
    int n = 0;
    *n_found = 0;
    TRY_BLAS(blas->cublasLtMatmulPreferenceCreate(&preference));
    cublasStatus_t status = set_preferences(matmul, preference, &plan->product);
    if (status == CUBLAS_STATUS_SUCCESS)
        status =
            blas->cublasLtMatmulAlgoGetHeuristic(matmul->handle, plan->operation, plan->a, plan->b,
                                                 plan->d, plan->d, preference, wanted, found, &n);
    blas->cublasLtMatmulPreferenceDestroy(preference);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    for (int i = 0; i < n; i++)
        if (found[i].state == CUBLAS_STATUS_SUCCESS) found[(*n_found)++] = found[i];
    return *n_found > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

/* An algorithm from the file, if it can do it here and now. */
static bool recall(const dip_cuda_matmul *matmul, dip_cuda_plan *plan)
{
    cublasLtMatmulHeuristicResult_t result;
    const dip_cuda_choice *choice = dip_cuda_choices_find(&matmul->choices, &plan->product);
    if (!choice) return false;
    if (matmul->blas->cublasLtMatmulAlgoCheck(matmul->handle, plan->operation, plan->a, plan->b,
                                              plan->d, plan->d, &choice->algo,
                                              &result) != CUBLAS_STATUS_SUCCESS)
        return false;
    plan->algo = choice->algo;
    return result.workspaceSize <= matmul->workspace_bytes;
}

static dip_status choose(dip_cuda_matmul *matmul, dip_cuda_plan *plan,
                         const dip_cuda_operands *operands)
{
    cublasLtMatmulHeuristicResult_t found[N_CANDIDATES];
    const bool measure = matmul->tune && !matmul->cuda->capturing;
    int n_found;
    dip_cuda_choice choice = {.product = plan->product};
    if (matmul->tune && recall(matmul, plan)) return DIP_OK;
    DIP_TRY(dip_cuda_blas_check(
        matmul, ask_heuristic(matmul, plan, found, &n_found, measure ? N_CANDIDATES : 1),
        &plan->product, "cublasLtMatmulAlgoGetHeuristic"));
    plan->algo = found[0].algo;
    if (!measure) return DIP_OK;
    DIP_TRY(dip_cuda_tune(matmul, plan, &choice.nanoseconds, operands, found, n_found));
    if (choice.nanoseconds == 0) return DIP_OK;
    choice.algo = plan->algo;
    return dip_cuda_choices_add(&matmul->choices, &choice);
}

/* ---- finding a plan --------------------------------------------------------------------- */

static unsigned hash(const dip_cuda_product *p)
{
    const uint64_t kind = (uint64_t)p->inputs_bf16 | (uint64_t)p->outputs_bf16 << 1 |
                          (uint64_t)p->transpose_a << 2 | (uint64_t)p->transpose_b << 3 |
                          (uint64_t)p->has_bias << 4 | (uint64_t)p->has_c << 5 |
                          (uint64_t)p->a_fp8 << 6 | (uint64_t)p->b_fp8 << 8;
    uint64_t h = kind;
    h = h * 0x9e3779b97f4a7c15u + (uint64_t)p->m;
    h = h * 0x9e3779b97f4a7c15u + (uint64_t)p->n;
    h = h * 0x9e3779b97f4a7c15u + (uint64_t)p->k;
    return (unsigned)((h ^ h >> 32) * 0x9e3779b97f4a7c15u >> 54); /* < DIP_CUDA_PLAN_SLOTS */
}

static void forget_plans(dip_cuda_matmul *matmul)
{
    for (int i = 0; i < DIP_CUDA_PLAN_SLOTS; i++) {
        plan_free(matmul->blas, matmul->plans[i]);
        matmul->plans[i] = NULL;
    }
    matmul->n_plans = 0;
}

/* The slot of the product's plan, or the free one where it belongs. */
static dip_cuda_plan **find_slot(dip_cuda_matmul *matmul, const dip_cuda_product *product)
{
    unsigned at = hash(product);
    while (matmul->plans[at] && !dip_cuda_product_equal(&matmul->plans[at]->product, product))
        at = (at + 1) % DIP_CUDA_PLAN_SLOTS;
    return &matmul->plans[at];
}

static dip_status get_plan(dip_cuda_matmul *matmul, const dip_cuda_plan **out,
                           const dip_cuda_product *product, const dip_cuda_operands *operands)
{
    dip_cuda_plan **slot = find_slot(matmul, product);
    if (!*slot) {
        if (matmul->n_plans == MAX_PLANS) {
            forget_plans(matmul);
            slot = find_slot(matmul, product);
        }
        dip_cuda_plan *plan = calloc(1, sizeof *plan);
        if (!plan) return dip_fail(DIP_NOMEM, "no memory for the plan of a product");
        plan->product = *product;
        cublasStatus_t described = describe(matmul->blas, plan);
        if (described == CUBLAS_STATUS_SUCCESS)
            described = set_pointers(matmul->blas, plan, operands);
        dip_status status =
            dip_cuda_blas_check(matmul, described, product, "describing a product to cuBLASLt");
        if (status == DIP_OK) status = choose(matmul, plan, operands);
        if (status != DIP_OK) {
            plan_free(matmul->blas, plan);
            return status;
        }
        *slot = plan;
        matmul->n_plans++;
    }
    *out = *slot;
    return DIP_OK;
}

/* ---- running ---------------------------------------------------------------------------- */

cublasStatus_t dip_cuda_plan_enqueue(const dip_cuda_matmul *matmul, const dip_cuda_plan *plan,
                                     const dip_cuda_operands *operands)
{
    const float one = 1.0f, zero = 0.0f;
    TRY_BLAS(set_pointers(matmul->blas, plan, operands));
    return matmul->blas->cublasLtMatmul(
        matmul->handle, plan->operation, &one, operands->a, plan->a, operands->b, plan->b,
        operands->c ? &one : &zero, operands->c ? operands->c : operands->d, plan->d, operands->d,
        plan->d, &plan->algo, matmul->workspace, matmul->workspace_bytes, matmul->cuda->stream);
}

/* 16 bytes is the most that a vector access needs; 256 is what whole allocations have. */
static uint16_t alignment_of(const void *pointer)
{
    const uintptr_t address = (uintptr_t)pointer;
    if (address % 256 == 0) return 256;
    uint16_t alignment = 16;
    while (address % alignment != 0) alignment /= 2;
    return alignment;
}

/* A bias that does not lie as the fast kernels want it is copied to the partials, which are free
 * while a product is enqueued. */
static dip_status align_bias(const dip_cuda_matmul *matmul, const void **bias,
                             const dip_cuda_product *product)
{
    const dip_cuda *cuda = matmul->cuda;
    if (!*bias || (uintptr_t)*bias % BIAS_ALIGNMENT == 0) return DIP_OK;
    const size_t n_bytes = (size_t)product->m * (product->outputs_bf16 ? 2 : 4);
    if (n_bytes > DIP_CUDA_PARTIALS_BYTES)
        return dip_fail(DIP_UNSUPPORTED, "a bias of %lld elements must be aligned to %d bytes",
                        (long long)product->m, BIAS_ALIGNMENT);
    DIP_TRY_CUDA(
        cudaMemcpyAsync(cuda->partials, *bias, n_bytes, cudaMemcpyDeviceToDevice, cuda->stream));
    *bias = cuda->partials;
    return DIP_OK;
}

dip_status dip_cuda_product_run(dip_cuda_matmul *matmul, dip_cuda_product product,
                                dip_cuda_operands operands)
{
    const dip_cuda_plan *plan = NULL;
    DIP_TRY(align_bias(matmul, &operands.bias, &product));
    product.has_bias = operands.bias != NULL;
    product.has_c = operands.c != NULL;
    product.align_a = alignment_of(operands.a);
    product.align_b = alignment_of(operands.b);
    product.align_c = alignment_of(operands.c ? operands.c : operands.d);
    product.align_d = alignment_of(operands.d);
    DIP_TRY(get_plan(matmul, &plan, &product, &operands));
    return dip_cuda_blas_check(matmul, dip_cuda_plan_enqueue(matmul, plan, &operands), &product,
                               "cublasLtMatmul");
}

/* ---- opening and closing ---------------------------------------------------------------- */

dip_status dip_cuda_matmul_open(dip_cuda_matmul **out, const dip_cuda *cuda)
{
    const dip_device *device = dip_cuda_device_table(cuda->ordinal);
    const char *tune = getenv("DIPTYCH_CUDA_TUNE");
    const dip_cublaslt *blas;
    dip_status status;
    *out = NULL;
    DIP_TRY(dip_cublaslt_load(&blas));
    dip_cuda_matmul *matmul = calloc(1, sizeof *matmul);
    if (!matmul) return dip_fail(DIP_NOMEM, "no memory for the products of an executor");
    matmul->cuda = cuda;
    matmul->blas = blas;
    matmul->tune = !tune || strcmp(tune, "0") != 0;
    /* What NVIDIA's documentation recommends for Hopper and newer, and twice that for older. */
    matmul->workspace_bytes = (size_t)(cuda->compute_capability >= 90 ? 32 : 8) << 20;
    cublasStatus_t created = blas->cublasLtCreate(&matmul->handle);
    if (created != CUBLAS_STATUS_SUCCESS) {
        matmul->handle = NULL;
        status = dip_fail(DIP_UNSUPPORTED, "cublasLtCreate on device %s: %s", device->name,
                          blas->cublasLtGetStatusString(created));
        goto fail;
    }
    DIP_TRY_GOTO(device->allocate(device, &matmul->workspace, matmul->workspace_bytes));
    if (matmul->tune) {
        matmul->choices_path = dip_cuda_choices_path(cuda->name, blas->cublasLtGetVersion());
        if (matmul->choices_path)
            DIP_TRY_GOTO(dip_cuda_choices_read(&matmul->choices, matmul->choices_path));
    }
    *out = matmul;
    return DIP_OK;
fail:
    dip_cuda_matmul_close(matmul);
    return status;
}

void dip_cuda_matmul_close(dip_cuda_matmul *matmul)
{
    if (!matmul) return;
    const dip_device *device = dip_cuda_device_table(matmul->cuda->ordinal);
    if (matmul->choices_path &&
        dip_cuda_choices_write(&matmul->choices, matmul->choices_path) != DIP_OK)
        dip_warn("the next run measures matrix products again: %s", dip_error());
    forget_plans(matmul);
    dip_cuda_fp8_close(matmul->fp8, device);
    dip_cuda_choices_free(&matmul->choices);
    free(matmul->choices_path);
    device->release(device, matmul->workspace);
    if (matmul->handle) matmul->blas->cublasLtDestroy(matmul->handle);
    free(matmul);
}
