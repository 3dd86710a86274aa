/* kernel.cuh - what every .cu file includes: types, launching, and the two-type frame.
 *
 * A file writes its kernels as templates over T (float or __nv_bfloat16), a host function template
 * `static dip_status foo(dip_exec *exec, ...)`, and ends with the extern "C" functions
 * dip_cuda_foo_f32 and dip_cuda_foo_bf16 that call it.
 *
 * Kernels keep to plain CUDA C++ and to ptx.cuh: no cooperative groups, no libraries, no dynamic
 * parallelism. Shared memory whose size is known is `__shared__`; else DIP_DYNAMIC_SHARED.      */
#ifndef DIP_KERNELS_CUDA_KERNEL_CUH
#define DIP_KERNELS_CUDA_KERNEL_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/launch.cuh"

enum { WARP = 32 };
#define ALL_LANES 0xffffffffu

static inline int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* ---- numbers ---------------------------------------------------------------------------- */

__device__ __forceinline__ float to_float(float x)
{
    return x;
}
__device__ __forceinline__ float to_float(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}

template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x)
{
    return x;
}
template <> __device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x)
{
    return __float2bfloat16_rn(x);
}

/* N elements that are loaded and stored at once: 16 bytes where N * sizeof(T) is 16. The address
 * must be a multiple of the size. */
template <typename T, int N> struct __align__(sizeof(T) * N) pack
{
    T at[N];
};

/* How many T a 16-byte access holds. */
template <typename T> __host__ __device__ constexpr int pack_length()
{
    return 16 / (int)sizeof(T);
}

/* ---- a warp's sums: every lane gets the result, added in the same order in every lane ------- */

__device__ __forceinline__ float warp_sum(float x)
{
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) x += __shfl_xor_sync(ALL_LANES, x, step);
    return x;
}

__device__ __forceinline__ double warp_sum(double x)
{
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) x += __shfl_xor_sync(ALL_LANES, x, step);
    return x;
}

__device__ __forceinline__ float warp_max(float x)
{
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2)
        x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, step));
    return x;
}

#endif
