/* Activation functions and their derivatives, element by element, at the speed of memory. */
#include "kernels/cuda/kernel.cuh"
#include "kernels/cuda/matmul_kernels.h"

enum { THREADS = 256, PACKS = 2 }; /* of a block; a thread's, under way at once */

/* ---- one number ------------------------------------------------------------------------- */

/* Phi(x), the normal distribution function, and bell = exp(-x^2 / 2); for T as the activation
 * dtype: float as exactly as the library can, bf16 as fast as memory.
 *
 * bf16: 1 - Phi(|x|) = bell * t * P(1 - t), t = 1 / (1 + 0.34 |x|), where the polynomial P was
 * fitted (by Remez exchange, for the largest relative error) to the scaled complementary error
 * function on 0 <= |x| <= 13: 2e-8 off before rounding. Tails keep their relative precision, the
 * bell serves the derivative too, and it takes a quarter of the instructions of erfcf. */
template <typename T> __device__ __forceinline__ float normal_cdf(float x, float &bell)
{
    bell = __expf(-0.5f * x * x);
    const float t = __fdividef(1.0f, fmaf(0.34f, fabsf(x), 1.0f)), s = 1.0f - t;
    float p = -0.02662629396f;
    p = fmaf(p, s, 0.07113312075f);
    p = fmaf(p, s, -0.03026006107f);
    p = fmaf(p, s, -0.02853588073f);
    p = fmaf(p, s, -0.07737871507f);
    p = fmaf(p, s, 0.08474502590f);
    p = fmaf(p, s, 0.31590098981f);
    p = fmaf(p, s, -0.67336010295f);
    p = fmaf(p, s, 0.50000001145f);
    const float tail = bell * (p * t);
    return x < 0.0f ? tail : 1.0f - tail;
}

template <> __device__ __forceinline__ float normal_cdf<float>(float x, float &bell)
{
    bell = expf(-0.5f * x * x);
    return 0.5f * erfcf(-0.70710678118654752f * x);
}

template <typename T> __device__ __forceinline__ float sigmoid(float x)
{
    return __fdividef(1.0f, 1.0f + __expf(-x));
}

template <> __device__ __forceinline__ float sigmoid<float>(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

template <typename T, dip_activation ACT> __device__ __forceinline__ float activated(float x)
{
    if (ACT == DIP_ACT_QUICKGELU) return x * sigmoid<T>(1.702f * x);
    float bell;
    return x * normal_cdf<T>(x, bell);
}

template <typename T, dip_activation ACT> __device__ __forceinline__ float slope(float x)
{
    if (ACT == DIP_ACT_QUICKGELU) {
        const float s = sigmoid<T>(1.702f * x);
        return s + 1.702f * x * s * (1.0f - s);
    }
    float bell;
    const float cdf = normal_cdf<T>(x, bell);
    return cdf + x * 0.39894228040143268f * bell;
}

/* ---- kernels ---------------------------------------------------------------------------- */

/* Pack number i of this thread is at first + i * THREADS: neighbours read neighbours. */
__device__ __forceinline__ int64_t first_pack()
{
    return (int64_t)blockIdx.x * (THREADS * PACKS) + threadIdx.x;
}

template <typename T, dip_activation ACT, int V>
__global__ void __launch_bounds__(THREADS)
    activate_kernel(pack<T, V> *out, const pack<T, V> *pre, const pack<T, V> *residual,
                    int64_t n_packs)
{
    const int64_t first = first_pack();
    pack<T, V> in[PACKS], added[PACKS];
#pragma unroll
    for (int i = 0; i < PACKS; i++) {
        const int64_t at = first + i * THREADS;
        if (at >= n_packs) break;
        in[i] = pre[at];
        if (residual) added[i] = residual[at];
    }
#pragma unroll
    for (int i = 0; i < PACKS; i++) {
        const int64_t at = first + i * THREADS;
        if (at >= n_packs) break;
        pack<T, V> result;
#pragma unroll
        for (int j = 0; j < V; j++) {
            float value = activated<T, ACT>(to_float(in[i].at[j]));
            if (residual) value += to_float(added[i].at[j]);
            result.at[j] = from_float<T>(value);
        }
        out[at] = result;
    }
}

template <typename T, dip_activation ACT, int V>
__global__ void __launch_bounds__(THREADS)
    activate_backward_kernel(pack<T, V> *d_x, const pack<T, V> *pre, int64_t n_packs)
{
    const int64_t first = first_pack();
    pack<T, V> in[PACKS], d[PACKS];
#pragma unroll
    for (int i = 0; i < PACKS; i++) {
        const int64_t at = first + i * THREADS;
        if (at >= n_packs) break;
        in[i] = pre[at];
        d[i] = d_x[at];
    }
#pragma unroll
    for (int i = 0; i < PACKS; i++) {
        const int64_t at = first + i * THREADS;
        if (at >= n_packs) break;
#pragma unroll
        for (int j = 0; j < V; j++)
            d[i].at[j] = from_float<T>(to_float(d[i].at[j]) * slope<T, ACT>(to_float(in[i].at[j])));
        d_x[at] = d[i];
    }
}

/* ---- launching -------------------------------------------------------------------------- */

/* Can n elements at these addresses be walked in packs of 16 bytes? NULL can. */
template <typename T> static bool packs_fit(const void *a, const void *b, const void *c, int64_t n)
{
    return (((uintptr_t)a | (uintptr_t)b | (uintptr_t)c) % 16 == 0) && n % pack_length<T>() == 0;
}

template <typename T, dip_activation ACT, int V>
static void launch_forward(dip_exec *exec, void *out, const void *pre, const void *residual,
                           int64_t n)
{
    typedef pack<T, V> P;
    const int64_t n_packs = n / V;
    DIP_LAUNCH((activate_kernel<T, ACT, V>), (unsigned)ceil_div(n_packs, THREADS * PACKS), THREADS,
               0, dip_cuda_of(exec)->stream)
    ((P *)out, (const P *)pre, (const P *)residual, n_packs);
}

template <typename T, dip_activation ACT, int V>
static void launch_backward(dip_exec *exec, void *d_x, const void *pre, int64_t n)
{
    typedef pack<T, V> P;
    const int64_t n_packs = n / V;
    DIP_LAUNCH((activate_backward_kernel<T, ACT, V>), (unsigned)ceil_div(n_packs, THREADS * PACKS),
               THREADS, 0, dip_cuda_of(exec)->stream)
    ((P *)d_x, (const P *)pre, n_packs);
}

template <typename T, dip_activation ACT>
static void forward(dip_exec *exec, void *out, const void *pre, const void *residual, int64_t n)
{
    if (packs_fit<T>(out, pre, residual, n))
        launch_forward<T, ACT, pack_length<T>()>(exec, out, pre, residual, n);
    else
        launch_forward<T, ACT, 1>(exec, out, pre, residual, n);
}

template <typename T, dip_activation ACT>
static void backward(dip_exec *exec, void *d_x, const void *pre, int64_t n)
{
    if (packs_fit<T>(d_x, pre, NULL, n))
        launch_backward<T, ACT, pack_length<T>()>(exec, d_x, pre, n);
    else
        launch_backward<T, ACT, 1>(exec, d_x, pre, n);
}

template <typename T>
static void forward_by(dip_exec *exec, void *out, const void *pre, const void *residual,
                       dip_activation act, int64_t n)
{
    if (act == DIP_ACT_GELU)
        forward<T, DIP_ACT_GELU>(exec, out, pre, residual, n);
    else
        forward<T, DIP_ACT_QUICKGELU>(exec, out, pre, residual, n);
}

template <typename T>
static void backward_by(dip_exec *exec, void *d_x, const void *pre, dip_activation act, int64_t n)
{
    if (act == DIP_ACT_GELU)
        backward<T, DIP_ACT_GELU>(exec, d_x, pre, n);
    else
        backward<T, DIP_ACT_QUICKGELU>(exec, d_x, pre, n);
}

extern "C" void dip_cuda_activate(dip_exec *exec, dip_dtype dtype, void *out, const void *pre,
                                  const void *residual, dip_activation act, int64_t n)
{
    if (n == 0) return;
    if (dtype == DIP_BF16)
        forward_by<__nv_bfloat16>(exec, out, pre, residual, act, n);
    else
        forward_by<float>(exec, out, pre, residual, act, n);
}

extern "C" void dip_cuda_activate_backward(dip_exec *exec, dip_dtype dtype, void *d_x,
                                           const void *pre, dip_activation act, int64_t n)
{
    if (n == 0) return;
    if (dtype == DIP_BF16)
        backward_by<__nv_bfloat16>(exec, d_x, pre, act, n);
    else
        backward_by<float>(exec, d_x, pre, act, n);
}

/* ---- the op ----------------------------------------------------------------------------- */

static dip_status activation_forward(dip_exec *exec, dip_dtype dtype, void *out, const void *pre,
                                     dip_activation act, int64_t n)
{
    if (act != DIP_ACT_NONE)
        dip_cuda_activate(exec, dtype, out, pre, NULL, act, n);
    else if (n > 0)
        DIP_TRY_CUDA(cudaMemcpyAsync(out, pre, (size_t)n * dip_dtype_bytes(dtype),
                                     cudaMemcpyDeviceToDevice, dip_cuda_of(exec)->stream));
    return DIP_CUDA_LAUNCHED(exec, "activation_forward", "[%lld] act %d", (long long)n, (int)act);
}

extern "C" dip_status dip_cuda_activation_forward_f32(dip_exec *exec, void *out, const void *pre,
                                                      dip_activation act, int64_t n)
{
    return activation_forward(exec, DIP_F32, out, pre, act, n);
}

extern "C" dip_status dip_cuda_activation_forward_bf16(dip_exec *exec, void *out, const void *pre,
                                                       dip_activation act, int64_t n)
{
    return activation_forward(exec, DIP_BF16, out, pre, act, n);
}
