#include "kernels/cuda/access.cuh"
#include "kernels/cuda/fp8.h"

/* ---- sum_of_squares ----------------------------------------------------------------------- */

/* As many blocks as can be at work, and never a number that depends on the device; each leaves its
 * sum in partials, and one block adds them. A thread takes the same elements whether its accesses
 * are wide or not. */
enum { MAX_SUMS = 1024, QUADS_AT_ONCE = 4, SUM_WARPS = ARRAY_THREADS / WARP };

/* The sum over the block, in thread 0; every thread of the block calls. */
__device__ __forceinline__ double block_sum(double sum)
{
    __shared__ double sums[SUM_WARPS];
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) sums[threadIdx.x / WARP] = sum;
    __syncthreads();
    double total = 0.0;
    for (int warp = 0; warp < SUM_WARPS; warp++) total += sums[warp];
    return total;
}

template <bool ALIGNED>
__global__ void __launch_bounds__(ARRAY_THREADS)
    squares_of_blocks(double *__restrict__ partials, const float *__restrict__ x, int64_t n)
{
    const int64_t step = (int64_t)gridDim.x * ARRAY_THREADS * QUAD;
    double sum = 0.0;
    for (int64_t i = array_index(); i < n; i += step * QUADS_AT_ONCE) {
        float value[QUADS_AT_ONCE][QUAD];
#pragma unroll
        for (int k = 0; k < QUADS_AT_ONCE; k++) load_quad<ALIGNED>(value[k], x, i + k * step, n);
#pragma unroll
        for (int k = 0; k < QUADS_AT_ONCE; k++)
#pragma unroll
            for (int j = 0; j < QUAD; j++) sum += (double)value[k][j] * (double)value[k][j];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

static __global__ void __launch_bounds__(ARRAY_THREADS)
    add_squares(double *__restrict__ out, const double *__restrict__ partials, int n_partials)
{
    double sum = 0.0;
    for (int i = threadIdx.x; i < n_partials; i += ARRAY_THREADS) sum += partials[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) out[0] = sum;
}

static dip_status sum_of_squares(dip_exec *exec, double *out, const float *x, int64_t n)
{
    dip_cuda *const cuda = dip_cuda_of(exec);
    double *const partials = static_cast<double *>(cuda->partials);
    const int64_t most = ceil_div(n, (int64_t)ARRAY_THREADS * QUAD * QUADS_AT_ONCE);
    const unsigned n_blocks = (unsigned)(most < (int64_t)MAX_SUMS ? most : (int64_t)MAX_SUMS);
    if (n > 0 && aligned(x))
        DIP_LAUNCH((squares_of_blocks<true>), n_blocks, ARRAY_THREADS, 0, cuda->stream)
    (partials, x, n);
    else if (n > 0) DIP_LAUNCH((squares_of_blocks<false>), n_blocks, ARRAY_THREADS, 0,
                               cuda->stream)(partials, x, n);
    DIP_LAUNCH(add_squares, 1, ARRAY_THREADS, 0, cuda->stream)(out, partials, (int)n_blocks);
    return DIP_CUDA_LAUNCHED(exec, "sum_of_squares", "[%lld]", (long long)n);
}

/* ---- update_begin ------------------------------------------------------------------------- */

static __global__ void fill_update(dip_update *update, const double *lr, const double *loss,
                                   const double *sum, dip_adamw_hyper hyper)
{
    if (threadIdx.x != 0) return;
    const double norm = sqrt(*sum);
    const bool applied = isfinite(*sum) && isfinite(*loss);
    const bool clip = applied && hyper.clip_norm > 0.0 && norm > hyper.clip_norm;
    const int64_t t = update->n_updates + applied;
    update->n_updates = t;
    update->loss = *loss;
    update->grad_norm = norm;
    update->lr = (float)*lr;
    update->grad_scale = clip ? (float)(hyper.clip_norm / (norm + 1e-6)) : 1.0f;
    update->bias_correction1 = (float)(1.0 - pow(hyper.beta1, (double)t));
    update->bias_correction2 = (float)(1.0 - pow(hyper.beta2, (double)t));
    update->applied = applied;
    update->padding = 0;
}

static dip_status update_begin(dip_exec *exec, dip_update *update, const double *lr,
                               const double *loss, const double *sum, dip_adamw_hyper hyper)
{
    DIP_LAUNCH(fill_update, 1, WARP, 0, dip_cuda_of(exec)->stream)(update, lr, loss, sum, hyper);
    dip_cuda_fp8_step(exec);
    return DIP_CUDA_LAUNCHED(exec, "update_begin", "[1]");
}

/* ---- adamw -------------------------------------------------------------------------------- */

/* The constants as the arithmetic takes them. */
typedef struct rates {
    float beta1, beta2, eps, weight_decay, ema_decay;
} rates;

template <typename T, bool ALIGNED>
__global__ void __launch_bounds__(ARRAY_THREADS)
    adamw_quads(float *master, T *param, float *__restrict__ m, float *__restrict__ v,
                float *__restrict__ average, const float *__restrict__ grad,
                const dip_update *__restrict__ update, rates by, int64_t n)
{
    const int64_t i = array_index();
    if (!update->applied || i >= n) return;
    float weight[QUAD], first[QUAD], second[QUAD], g[QUAD], mean[QUAD];
    load_quad<ALIGNED>(weight, master, i, n);
    load_quad<ALIGNED>(first, m, i, n);
    load_quad<ALIGNED>(second, v, i, n);
    load_quad<ALIGNED>(g, grad, i, n);
    if (average) load_quad<ALIGNED>(mean, average, i, n);

    const float lr = update->lr, keep = 1.0f - lr * by.weight_decay;
    const float correction1 = update->bias_correction1, correction2 = update->bias_correction2;
#pragma unroll
    for (int j = 0; j < QUAD; j++) {
        const float scaled = g[j] * update->grad_scale;
        first[j] = by.beta1 * first[j] + (1.0f - by.beta1) * scaled;
        second[j] = by.beta2 * second[j] + (1.0f - by.beta2) * scaled * scaled;
        const float step = first[j] / correction1 / (sqrtf(second[j] / correction2) + by.eps);
        weight[j] = weight[j] * keep - lr * step;
    }
    store_quad<ALIGNED>(m, first, i, n);
    store_quad<ALIGNED>(v, second, i, n);
    store_quad<ALIGNED>(master, weight, i, n);
    store_quad<ALIGNED>(param, weight, i, n);
    if (average) {
#pragma unroll
        for (int j = 0; j < QUAD; j++)
            mean[j] = by.ema_decay * mean[j] + (1.0f - by.ema_decay) * weight[j];
        store_quad<ALIGNED>(average, mean, i, n);
    }
}

template <typename T>
static dip_status adamw(dip_exec *exec, float *master, void *param, float *m, float *v,
                        float *average, const float *grad, const dip_update *update,
                        dip_adamw_hyper hyper, int64_t n)
{
    const rates by = {(float)hyper.beta1, (float)hyper.beta2, (float)hyper.eps,
                      (float)hyper.weight_decay, (float)hyper.ema_decay};
    const cudaStream_t stream = dip_cuda_of(exec)->stream;
    T *const rounded = static_cast<T *>(param);
    if (n == 0) return DIP_OK;
    if (aligned(master, rounded, m, v, average, grad))
        DIP_LAUNCH((adamw_quads<T, true>), array_blocks(n), ARRAY_THREADS, 0, stream)
    (master, rounded, m, v, average, grad, update, by, n);
    else DIP_LAUNCH((adamw_quads<T, false>), array_blocks(n), ARRAY_THREADS, 0,
                    stream)(master, rounded, m, v, average, grad, update, by, n);
    return DIP_CUDA_LAUNCHED(exec, "adamw", "[%lld]", (long long)n);
}

/* ---- clamp, ema ---------------------------------------------------------------------------- */

template <typename T>
__global__ void __launch_bounds__(ARRAY_THREADS)
    clamp_elements(float *master, T *param, const dip_update *__restrict__ update, float low,
                   float high, int64_t n)
{
    const int64_t i = (int64_t)blockIdx.x * ARRAY_THREADS + threadIdx.x;
    if (!update->applied || i >= n) return;
    float x = master[i];
    if (x < low) x = low;
    if (x > high) x = high; /* a NaN stays a NaN */
    master[i] = x;
    param[i] = from_float<T>(x);
}

template <typename T>
static dip_status clamp(dip_exec *exec, float *master, void *param, const dip_update *update,
                        float low, float high, int64_t n)
{
    if (n == 0) return DIP_OK;
    DIP_LAUNCH((clamp_elements<T>), (unsigned)ceil_div(n, ARRAY_THREADS), ARRAY_THREADS, 0,
               dip_cuda_of(exec)->stream)
    (master, static_cast<T *>(param), update, low, high, n);
    return DIP_CUDA_LAUNCHED(exec, "clamp", "[%lld]", (long long)n);
}

template <bool ALIGNED>
__global__ void __launch_bounds__(ARRAY_THREADS)
    ema_quads(float *__restrict__ average, const float *__restrict__ master,
              const dip_update *__restrict__ update, float decay, int64_t n)
{
    const int64_t i = array_index();
    if (!update->applied || i >= n) return;
    float mean[QUAD], weight[QUAD];
    load_quad<ALIGNED>(mean, average, i, n);
    load_quad<ALIGNED>(weight, master, i, n);
#pragma unroll
    for (int j = 0; j < QUAD; j++) mean[j] = decay * mean[j] + (1.0f - decay) * weight[j];
    store_quad<ALIGNED>(average, mean, i, n);
}

static dip_status ema(dip_exec *exec, float *average, const float *master, const dip_update *update,
                      float decay, int64_t n)
{
    const cudaStream_t stream = dip_cuda_of(exec)->stream;
    if (n == 0) return DIP_OK;
    if (aligned(average, master))
        DIP_LAUNCH((ema_quads<true>), array_blocks(n), ARRAY_THREADS, 0, stream)
    (average, master, update, decay, n);
    else DIP_LAUNCH((ema_quads<false>), array_blocks(n), ARRAY_THREADS, 0,
                    stream)(average, master, update, decay, n);
    return DIP_CUDA_LAUNCHED(exec, "ema", "[%lld]", (long long)n);
}

/* ---- in both types ------------------------------------------------------------------------ */

#define OPTIMIZER(suffix, T)                                                                       \
    dip_status dip_cuda_sum_of_squares_##suffix(dip_exec *exec, double *out, const float *x,       \
                                                int64_t n)                                         \
    {                                                                                              \
        return sum_of_squares(exec, out, x, n);                                                    \
    }                                                                                              \
    dip_status dip_cuda_update_begin_##suffix(dip_exec *exec, dip_update *update,                  \
                                              const double *lr, const double *loss,                \
                                              const double *sum, dip_adamw_hyper hyper)            \
    {                                                                                              \
        return update_begin(exec, update, lr, loss, sum, hyper);                                   \
    }                                                                                              \
    dip_status dip_cuda_adamw_##suffix(dip_exec *exec, float *master, void *param, float *m,       \
                                       float *v, float *average, const float *grad,                \
                                       const dip_update *update, dip_adamw_hyper hyper, int64_t n) \
    {                                                                                              \
        return adamw<T>(exec, master, param, m, v, average, grad, update, hyper, n);               \
    }                                                                                              \
    dip_status dip_cuda_clamp_##suffix(dip_exec *exec, float *master, void *param,                 \
                                       const dip_update *update, float low, float high, int64_t n) \
    {                                                                                              \
        return clamp<T>(exec, master, param, update, low, high, n);                                \
    }                                                                                              \
    dip_status dip_cuda_ema_##suffix(dip_exec *exec, float *average, const float *master,          \
                                     const dip_update *update, float decay, int64_t n)             \
    {                                                                                              \
        return ema(exec, average, master, update, decay, n);                                       \
    }
OPTIMIZER(f32, float)
OPTIMIZER(bf16, __nv_bfloat16)
