/* cuda_runtime.h of the emulated GPU: the language of kernels, as C++ that the host compiler takes.
 * Only the subset that ../README.md lists. */
#ifndef EMULATED_GPU_CUDA_RUNTIME_H
#define EMULATED_GPU_CUDA_RUNTIME_H

#include <cmath>
#include <cstdint>
#include <cstring>
#include <math.h>

#include "cuda_runtime_api.h"
#include "emulated_gpu.h"
#include "vector_types.h"

/* ---- the qualifiers --------------------------------------------------------------------- */

#define __host__
#define __device__
#define __global__
#define __forceinline__ inline
#define __align__(n)    __attribute__((aligned(n)))
#define __launch_bounds__(...)
/* Blocks run one after the other, so a block's shared memory can be any static object. */
#define __shared__ static

/* ---- where a thread is ------------------------------------------------------------------ */

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

/* ---- meeting the other threads ---------------------------------------------------------- */

inline void __syncthreads(const char *file = __builtin_FILE(), int line = __builtin_LINE())
{
    emulated::block_barrier(file, line);
}

inline void __syncwarp(unsigned mask = 0xffffffffu, const char *file = __builtin_FILE(),
                       int line = __builtin_LINE())
{
    emulated::exchange({"__syncwarp", file, line, 0}, mask, 0);
}

inline void __threadfence() {}
inline void __threadfence_block() {}

namespace emulated
{
/* The value of lane `source` where the shuffle reaches it, else the lane's own: PTX ISA, shfl.sync.
 * The bounds follow from the width as CUDA C++ sets them. */
template <typename T>
T shuffle(const char *name, const char *file, int line, unsigned mask, T value, int operand,
          int width, int (*source)(int lane, int b, int segment))
{
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    if (width <= 0 || width > 32 || (width & (width - 1)) != 0)
        stop("%s:%d: %s with width %d", file, line, name, width);
    const int lane = lane_index(), from = source(lane, operand, 32 - width);
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    const uint64_t *all = exchange({name, file, line, (int)sizeof(T) * 64 + width}, mask, bits);
    std::memcpy(&value, &all[from >= 0 && from < 32 ? from : lane], sizeof value);
    return value;
}

inline int shuffle_index(int lane, int b, int segment)
{
    return (lane & segment) | (b & 31 & ~segment);
}
inline int shuffle_up(int lane, int b, int segment)
{
    return lane - b >= (lane & segment) ? lane - b : lane;
}
inline int shuffle_down(int lane, int b, int segment)
{
    return lane + b <= ((lane & segment) | (31 & ~segment)) ? lane + b : lane;
}
inline int shuffle_xor(int lane, int b, int segment)
{
    return (lane ^ b) <= ((lane & segment) | (31 & ~segment)) ? lane ^ b : lane;
}
} // namespace emulated

#define EMULATED_SHUFFLE(name, source)                                                             \
    template <typename T>                                                                          \
    T name(unsigned mask, T value, int operand, int width = 32,                                    \
           const char *file = __builtin_FILE(), int line = __builtin_LINE())                       \
    {                                                                                              \
        return emulated::shuffle<T>(#name, file, line, mask, value, operand, width, source);       \
    }
EMULATED_SHUFFLE(__shfl_sync, emulated::shuffle_index)
EMULATED_SHUFFLE(__shfl_up_sync, emulated::shuffle_up)
EMULATED_SHUFFLE(__shfl_down_sync, emulated::shuffle_down)
EMULATED_SHUFFLE(__shfl_xor_sync, emulated::shuffle_xor)
#undef EMULATED_SHUFFLE

inline unsigned __ballot_sync(unsigned mask, int predicate, const char *file = __builtin_FILE(),
                              int line = __builtin_LINE())
{
    const uint64_t *all =
        emulated::exchange({"__ballot_sync", file, line, 0}, mask, predicate != 0);
    unsigned bits = 0;
    for (int i = 0; i < 32; i++) bits |= (unsigned)all[i] << i;
    return bits;
}

inline int __any_sync(unsigned mask, int predicate, const char *file = __builtin_FILE(),
                      int line = __builtin_LINE())
{
    return __ballot_sync(mask, predicate, file, line) != 0;
}

inline int __all_sync(unsigned mask, int predicate, const char *file = __builtin_FILE(),
                      int line = __builtin_LINE())
{
    return __ballot_sync(mask, predicate, file, line) == 0xffffffffu;
}

inline int atomicAdd(int *address, int value)
{
    const int old = *address;
    *address = (int)((unsigned)old + (unsigned)value);
    return old;
}

inline unsigned atomicAdd(unsigned *address, unsigned value)
{
    const unsigned old = *address;
    *address = old + value;
    return old;
}

inline unsigned atomicMax(unsigned *address, unsigned value)
{
    const unsigned old = *address;
    if (value > old) *address = value;
    return old;
}

/* ---- arithmetic that the C library lacks ------------------------------------------------ */

namespace emulated
{
template <typename To, typename From> To bits_as(From from)
{
    static_assert(sizeof(To) == sizeof(From), "");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}
} // namespace emulated

inline float __uint_as_float(unsigned x)
{
    return emulated::bits_as<float>(x);
}
inline float __int_as_float(int x)
{
    return emulated::bits_as<float>(x);
}
inline unsigned __float_as_uint(float x)
{
    return emulated::bits_as<unsigned>(x);
}
inline int __float_as_int(float x)
{
    return emulated::bits_as<int>(x);
}
inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
inline int __clz(int x)
{
    return x == 0 ? 32 : __builtin_clz((unsigned)x);
}
inline float rsqrtf(float x)
{
    return (float)(1.0 / std::sqrt((double)x));
}
inline double rsqrt(double x)
{
    return 1.0 / std::sqrt(x);
}
inline float __frcp_rn(float x)
{
    return 1.0f / x;
}
inline float __fdividef(float x, float y)
{
    return x / y;
}
/* glibc declares functions of these names. */
#define __expf(x)  expf(x)
#define __logf(x)  logf(x)
#define __log2f(x) log2f(x)

template <typename T> T __ldg(const T *pointer)
{
    return *pointer;
}

#define EMULATED_MIN_MAX(type)                                                                     \
    inline type min(type a, type b)                                                                \
    {                                                                                              \
        return b < a ? b : a;                                                                      \
    }                                                                                              \
    inline type max(type a, type b)                                                                \
    {                                                                                              \
        return a < b ? b : a;                                                                      \
    }
EMULATED_MIN_MAX(int)
EMULATED_MIN_MAX(unsigned)
EMULATED_MIN_MAX(long)
EMULATED_MIN_MAX(unsigned long)
EMULATED_MIN_MAX(long long)
EMULATED_MIN_MAX(unsigned long long)
#undef EMULATED_MIN_MAX
inline float min(float a, float b)
{
    return fminf(a, b);
}
inline float max(float a, float b)
{
    return fmaxf(a, b);
}
inline double min(double a, double b)
{
    return fmin(a, b);
}
inline double max(double a, double b)
{
    return fmax(a, b);
}

/* ---- typed allocation, as CUDA's C++ header has it ---------------------------------------- */

template <typename T> cudaError_t cudaMalloc(T **pointer, size_t n_bytes)
{
    void *p = nullptr;
    const cudaError_t error = cudaMalloc(&p, n_bytes);
    *pointer = static_cast<T *>(p);
    return error;
}

template <typename T> cudaError_t cudaMallocHost(T **pointer, size_t n_bytes)
{
    void *p = nullptr;
    const cudaError_t error = cudaMallocHost(&p, n_bytes);
    *pointer = static_cast<T *>(p);
    return error;
}

#endif
