/* cuBLASLt: D = alpha op(A) op(B) + beta C (+ bias), column-major, in float, k ascending.
 *
 * Refused as the library would: layouts that do not fit, leading dimensions and alignments that are
 * too small, types that do not go together, epilogues other than BIAS. Of the algorithms that the
 * heuristic offers, some need workspace, which they fill with NaN, some need aligned matrices, and
 * one adds in place, which is why it does not give the same bits twice. */
#include <cublasLt.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "cuda_bf16.h"
#include "cuda_fp8.h"
#include "grid.h"
#include "poison.h"
#include "runtime.h"

struct cublasLtContext {
    int device;
};

struct cublasLtMatmulDescOpaque {
    cublasComputeType_t compute_type;
    cudaDataType_t scale_type;
    cublasOperation_t trans_a, trans_b;
    uint32_t epilogue;
    const void *bias;
    int32_t bias_type; /* -1: D's */
    const float *a_scale, *b_scale;
};

struct cublasLtMatrixLayoutOpaque {
    cudaDataType_t type;
    uint64_t rows, cols;
    int64_t ld;
};

struct cublasLtMatmulPreferenceOpaque {
    uint64_t workspace_bytes;
    uint32_t reduction_mask;
    uint32_t alignment[4]; /* A, B, C, D */
};

namespace
{

using emulated::stop;

typedef cublasLtMatmulDescOpaque operation;
typedef cublasLtMatrixLayoutOpaque layout;

/* Plain arithmetic, and most of the time of a test: not instrumented. */
#define UNCHECKED __attribute__((no_sanitize("address", "undefined")))

/* ---- types ------------------------------------------------------------------------------ */

size_t size_of(cudaDataType_t type)
{
    switch (type) {
    case CUDA_R_32F:
        return 4;
    case CUDA_R_16BF:
        return 2;
    case CUDA_R_8F_E4M3:
    case CUDA_R_8F_E5M2:
        return 1;
    default:
        return 0;
    }
}

bool is_fp8(cudaDataType_t type)
{
    return type == CUDA_R_8F_E4M3 || type == CUDA_R_8F_E5M2;
}

UNCHECKED float load(const void *matrix, cudaDataType_t type, size_t at)
{
    if (type == CUDA_R_32F) return static_cast<const float *>(matrix)[at];
    if (type == CUDA_R_16BF)
        return __bfloat162float(static_cast<const __nv_bfloat16 *>(matrix)[at]);
    const unsigned char bits = static_cast<const unsigned char *>(matrix)[at];
    return emulated::fp8_to_float(bits, type == CUDA_R_8F_E4M3 ? __NV_E4M3 : __NV_E5M2);
}

UNCHECKED void store(void *matrix, cudaDataType_t type, size_t at, float value)
{
    if (type == CUDA_R_32F)
        static_cast<float *>(matrix)[at] = value;
    else
        static_cast<__nv_bfloat16 *>(matrix)[at] = __float2bfloat16_rn(value);
}

/* ---- algorithms ------------------------------------------------------------------------- */

const struct algorithm {
    size_t workspace_bytes;
    uint32_t reduction, alignment; /* alignment 1: of an element */
} algorithms[] = {
    {1 << 20, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, 16},
    {0, CUBLASLT_REDUCTION_SCHEME_INPLACE, 16},
    {0, CUBLASLT_REDUCTION_SCHEME_NONE, 16},
    {4096, CUBLASLT_REDUCTION_SCHEME_NONE, 1},
    {0, CUBLASLT_REDUCTION_SCHEME_NONE, 1},
};
enum { N_ALGORITHMS = sizeof algorithms / sizeof algorithms[0] };
constexpr uint64_t algorithm_mark = 0x454d554c41544544;

/* NULL for bytes that are none of ours. */
const algorithm *find_algorithm(const cublasLtMatmulAlgo_t *algo)
{
    if (algo->data[0] != algorithm_mark || algo->data[1] >= N_ALGORITHMS) return nullptr;
    for (int i = 2; i < 8; i++)
        if (algo->data[i] != 0) return nullptr;
    return &algorithms[algo->data[1]];
}

bool is_aligned(const void *matrix, size_t n_bytes)
{
    return (uintptr_t)matrix % n_bytes == 0;
}

/* Do all columns start at a multiple of n_bytes? */
bool has_aligned_columns(const layout &l, size_t n_bytes)
{
    return l.cols <= 1 || (size_t)l.ld * size_of(l.type) % n_bytes == 0;
}

/* ---- a product -------------------------------------------------------------------------- */

struct product {
    operation op;
    layout a, b, c, d;
    size_t m, n, k;
};

bool is_valid(const layout &l)
{
    return size_of(l.type) > 0 && l.rows > 0 && l.cols > 0 && l.ld >= (int64_t)l.rows;
}

bool types_fit(const product &p)
{
    const cudaDataType_t a = p.a.type, b = p.b.type, d = p.d.type;
    if (p.c.type != d || is_fp8(d)) return false;
    if (is_fp8(a) || is_fp8(b)) {
        /* Transposed times not, as Hopper has it; both e5m2 is not there. */
        return is_fp8(a) && is_fp8(b) && !(a == CUDA_R_8F_E5M2 && b == CUDA_R_8F_E5M2) &&
               p.op.trans_a == CUBLAS_OP_T && p.op.trans_b == CUBLAS_OP_N &&
               p.op.compute_type == CUBLAS_COMPUTE_32F && p.m % 16 == 0 && p.n % 16 == 0 &&
               p.k % 16 == 0 && has_aligned_columns(p.a, 16) && has_aligned_columns(p.b, 16) &&
               has_aligned_columns(p.d, 16);
    }
    if (p.op.a_scale || p.op.b_scale || a != b) return false;
    return a == CUDA_R_16BF || (a == CUDA_R_32F && d == CUDA_R_32F);
}

int bias_type(const product &p)
{
    return is_fp8(p.a.type) ? CUDA_R_16BF : p.d.type;
}

cublasStatus_t make_product(product *p, cublasLtMatmulDesc_t op, const layout *a, const layout *b,
                            const layout *c, const layout *d)
{
    if (!op || !a || !b || !c || !d) return CUBLAS_STATUS_INVALID_VALUE;
    *p = {*op, *a, *b, *c, *d, 0, 0, 0};
    if (!is_valid(*a) || !is_valid(*b) || !is_valid(*c) || !is_valid(*d))
        return CUBLAS_STATUS_INVALID_VALUE;
    const bool ta = op->trans_a != CUBLAS_OP_N, tb = op->trans_b != CUBLAS_OP_N;
    p->m = d->rows;
    p->n = d->cols;
    p->k = ta ? a->rows : a->cols;
    if ((ta ? a->cols : a->rows) != p->m || (tb ? b->cols : b->rows) != p->k ||
        (tb ? b->rows : b->cols) != p->n || c->rows != p->m || c->cols != p->n)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (op->scale_type != CUDA_R_32F ||
        (op->compute_type != CUBLAS_COMPUTE_32F && op->compute_type != CUBLAS_COMPUTE_32F_PEDANTIC))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (op->epilogue != CUBLASLT_EPILOGUE_DEFAULT && op->epilogue != CUBLASLT_EPILOGUE_BIAS)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (!types_fit(*p)) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (op->epilogue == CUBLASLT_EPILOGUE_BIAS && op->bias_type != -1 &&
        op->bias_type != bias_type(*p))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- running ---------------------------------------------------------------------------- */

/* op(X) as rows of floats: [rows of op(X)][columns of op(X)]. */
UNCHECKED std::vector<float> unpack(const void *x, const layout &l, bool transpose)
{
    const size_t rows = transpose ? l.cols : l.rows, cols = transpose ? l.rows : l.cols;
    std::vector<float> out(rows * cols);
    float *to = out.data();
    for (size_t j = 0; j < l.cols; j++)
        for (size_t i = 0; i < l.rows; i++)
            to[transpose ? j * cols + i : i * cols + j] = load(x, l.type, j * (size_t)l.ld + i);
    return out;
}

/* c [n] += a b[n], for one k: the sums of a row of D side by side. */
UNCHECKED void add_row(float *c, float a, const float *b, size_t n)
{
    for (size_t j = 0; j < n; j++) c[j] += a * b[j];
}

struct matmul_call {
    product p;
    float alpha, beta;
    const void *a, *b, *c;
    void *d, *workspace;
    const algorithm *by;
};

/* Bytes from the first to behind the last element. */
size_t extent_bytes(const layout &l)
{
    return ((l.cols - 1) * (size_t)l.ld + l.rows) * size_of(l.type);
}

void check_range(const void *x, size_t n_bytes, const char *what)
{
    if (emulated::device_of(x, n_bytes) != emulated::current_device())
        stop("cublasLtMatmul: %s is not %zu bytes of this device's memory", what, n_bytes);
}

bool overlap(const void *x, size_t n_x, const void *y, size_t n_y)
{
    return (uintptr_t)x < (uintptr_t)y + n_y && (uintptr_t)y < (uintptr_t)x + n_x;
}

void check_ranges(const matmul_call &call)
{
    const product &p = call.p;
    const size_t n_d = extent_bytes(p.d);
    check_range(call.a, extent_bytes(p.a), "A");
    check_range(call.b, extent_bytes(p.b), "B");
    check_range(call.d, n_d, "D");
    if (call.beta != 0) check_range(call.c, extent_bytes(p.c), "C");
    if (call.by->workspace_bytes > 0)
        check_range(call.workspace, call.by->workspace_bytes, "the workspace");
    if (p.op.epilogue == CUBLASLT_EPILOGUE_BIAS)
        check_range(p.op.bias, p.m * (bias_type(p) == CUDA_R_32F ? 4 : 2), "the bias");
    if (overlap(call.d, n_d, call.a, extent_bytes(p.a)) ||
        overlap(call.d, n_d, call.b, extent_bytes(p.b)))
        stop("cublasLtMatmul: D overlaps an operand");
    if (call.beta != 0 && (call.c != call.d || p.c.ld != p.d.ld) &&
        overlap(call.d, n_d, call.c, extent_bytes(p.c)))
        stop("cublasLtMatmul: C and D overlap and are not the same matrix");
}

void run_matmul(const matmul_call &call)
{
    static bool backwards; /* the order in which the algorithm that adds in place happens to add */
    const product &p = call.p;
    check_ranges(call);
    if (call.by->reduction == CUBLASLT_REDUCTION_SCHEME_INPLACE) backwards = !backwards;
    const bool reverse = call.by->reduction == CUBLASLT_REDUCTION_SCHEME_INPLACE && backwards;
    emulated::fill_poison(call.workspace, call.by->workspace_bytes);
    const std::vector<float> a = unpack(call.a, p.a, p.op.trans_a != CUBLAS_OP_N);
    const std::vector<float> b = unpack(call.b, p.b, p.op.trans_b != CUBLAS_OP_N);
    float scale = call.alpha;
    if (p.op.a_scale) scale *= *p.op.a_scale;
    if (p.op.b_scale) scale *= *p.op.b_scale;
    std::vector<float> row(p.n);
    for (size_t i = 0; i < p.m; i++) {
        std::fill(row.begin(), row.end(), 0.0f);
        for (size_t k = 0; k < p.k; k++) {
            const size_t at = reverse ? p.k - 1 - k : k;
            add_row(row.data(), a[i * p.k + at], b.data() + at * p.n, p.n);
        }
        const float bias = p.op.epilogue == CUBLASLT_EPILOGUE_BIAS
                               ? load(p.op.bias, (cudaDataType_t)bias_type(p), i)
                               : 0;
        for (size_t j = 0; j < p.n; j++) {
            float value = scale * row[j];
            if (call.beta != 0) value += call.beta * load(call.c, p.c.type, j * (size_t)p.c.ld + i);
            store(call.d, p.d.type, j * (size_t)p.d.ld + i, value + bias);
        }
    }
}

template <typename T> cublasStatus_t set(T *field, const void *value, size_t n_bytes)
{
    if (!value || n_bytes != sizeof *field) return CUBLAS_STATUS_INVALID_VALUE;
    std::memcpy(field, value, n_bytes);
    return CUBLAS_STATUS_SUCCESS;
}

} // namespace

/* ---- the API ---------------------------------------------------------------------------- */

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    *handle = nullptr;
    if (emulated::usable() != cudaSuccess) return CUBLAS_STATUS_NOT_INITIALIZED;
    *handle = new cublasLtContext{emulated::current_device()};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

size_t cublasLtGetVersion(void)
{
    return CUBLAS_VERSION;
}

const char *cublasLtGetStatusName(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "CUBLAS_STATUS_NOT_INITIALIZED";
    default:
        return "CUBLAS_STATUS_EXECUTION_FAILED";
    }
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "success";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "an unsupported value or parameter was passed to the function";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "the requested functionality is not supported";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "the library was not initialized";
    default:
        return "the function failed to launch on the GPU";
    }
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *op, cublasComputeType_t compute_type,
                                        cudaDataType_t scale_type)
{
    *op =
        new operation{compute_type, scale_type, CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT,
                      nullptr,      -1,         nullptr,     nullptr};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t op)
{
    delete op;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t op,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t n_bytes)
{
    int32_t number;
    int8_t byte;
    const void *pointer;
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return set(&op->trans_a, value, n_bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return set(&op->trans_b, value, n_bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return set(&op->epilogue, value, n_bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return set(&op->bias, value, n_bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
        return set(&op->bias_type, value, n_bytes);
    case CUBLASLT_MATMUL_DESC_A_SCALE_POINTER:
        return set(&op->a_scale, value, n_bytes);
    case CUBLASLT_MATMUL_DESC_B_SCALE_POINTER:
        return set(&op->b_scale, value, n_bytes);
    case CUBLASLT_MATMUL_DESC_FAST_ACCUM: /* a matter of speed and of bits that do not exist here */
        return set(&byte, value, n_bytes);
    case CUBLASLT_MATMUL_DESC_POINTER_MODE:
    case CUBLASLT_MATMUL_DESC_TRANSC:
        if (set(&number, value, n_bytes) != CUBLAS_STATUS_SUCCESS)
            return CUBLAS_STATUS_INVALID_VALUE;
        return number == 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
    case CUBLASLT_MATMUL_DESC_C_SCALE_POINTER:
    case CUBLASLT_MATMUL_DESC_D_SCALE_POINTER:
    case CUBLASLT_MATMUL_DESC_AMAX_D_POINTER:
        if (set(&pointer, value, n_bytes) != CUBLAS_STATUS_SUCCESS)
            return CUBLAS_STATUS_INVALID_VALUE;
        return pointer ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS;
    default:
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t ld)
{
    *out = new layout{type, rows, cols, ld};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t destroyed)
{
    delete destroyed;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    *preference =
        new cublasLtMatmulPreferenceOpaque{0, CUBLASLT_REDUCTION_SCHEME_MASK, {256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t n_bytes)
{
    switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return set(&preference->workspace_bytes, value, n_bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
        return set(&preference->reduction_mask, value, n_bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        return set(&preference->alignment[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES],
                   value, n_bytes);
    default:
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t op,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int n_wanted,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int *n_found)
{
    product p;
    if (!handle || !preference || !n_found || n_wanted < 1) return CUBLAS_STATUS_INVALID_VALUE;
    *n_found = 0;
    if (cublasStatus_t status = make_product(&p, op, a, b, c, d)) return status;
    const uint32_t *told = preference->alignment;
    const bool aligned = std::min({told[0], told[1], told[2], told[3]}) >= 16 &&
                         has_aligned_columns(p.a, 16) && has_aligned_columns(p.b, 16) &&
                         has_aligned_columns(p.c, 16) && has_aligned_columns(p.d, 16);
    if (is_fp8(p.a.type) && !aligned) return CUBLAS_STATUS_NOT_SUPPORTED;
    for (int i = 0; i < N_ALGORITHMS && *n_found < n_wanted; i++) {
        const algorithm &one = algorithms[i];
        if (one.workspace_bytes > preference->workspace_bytes || (one.alignment > 1 && !aligned) ||
            (one.reduction & preference->reduction_mask) != one.reduction)
            continue;
        results[*n_found] = {{{algorithm_mark, (uint64_t)i, 0, 0, 0, 0, 0, 0}},
                             one.workspace_bytes,
                             CUBLAS_STATUS_SUCCESS,
                             1.0f,
                             {0, 0, 0, 0}};
        ++*n_found;
    }
    return *n_found > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t op,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algo,
                                       cublasLtMatmulHeuristicResult_t *result)
{
    product p;
    if (!handle || !algo || !result) return CUBLAS_STATUS_INVALID_VALUE;
    if (cublasStatus_t status = make_product(&p, op, a, b, c, d)) return status;
    const algorithm *found = find_algorithm(algo);
    if (!found) return CUBLAS_STATUS_INVALID_VALUE;
    if (found->alignment > 1 && !(has_aligned_columns(p.a, 16) && has_aligned_columns(p.b, 16) &&
                                  has_aligned_columns(p.c, 16) && has_aligned_columns(p.d, 16)))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    *result = {*algo, found->workspace_bytes, CUBLAS_STATUS_SUCCESS, 1.0f, {0, 0, 0, 0}};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t op, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    const auto held = emulated::lock();
    matmul_call call = {};
    if (!handle || !alpha || !beta || !a || !b || !d) return CUBLAS_STATUS_INVALID_VALUE;
    if (handle->device != emulated::current_device()) return CUBLAS_STATUS_INVALID_VALUE;
    if (cublasStatus_t status = make_product(&call.p, op, a_layout, b_layout, c_layout, d_layout))
        return status;
    call.by = algo ? find_algorithm(algo) : &algorithms[N_ALGORITHMS - 1];
    call.alpha = *static_cast<const float *>(alpha);
    call.beta = *static_cast<const float *>(beta);
    call.a = a;
    call.b = b;
    call.c = c;
    call.d = d;
    call.workspace = workspace;
    if (!call.by || call.by->workspace_bytes > workspace_bytes || (call.beta != 0 && !c))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (op->epilogue == CUBLASLT_EPILOGUE_BIAS && !op->bias) return CUBLAS_STATUS_INVALID_VALUE;
    const size_t least = is_fp8(call.p.a.type) ? 16 : call.by->alignment;
    const void *matrices[4] = {a, b, call.beta != 0 ? c : d, d};
    const layout *layouts[4] = {a_layout, b_layout, c_layout, d_layout};
    for (int i = 0; i < 4; i++)
        if (!is_aligned(matrices[i], std::max(least, size_of(layouts[i]->type))) ||
            (least > 1 && !has_aligned_columns(*layouts[i], least)))
            return CUBLAS_STATUS_INVALID_VALUE;
    const cudaError_t error = emulated::enqueue(stream, [call] {
        run_matmul(call);
        emulated::check_memory("cublasLtMatmul");
    });
    return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}
