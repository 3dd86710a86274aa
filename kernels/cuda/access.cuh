/* access.cuh - how kernels that are bound by memory reach it: 16 bytes at a time where the
 * addresses allow.
 *
 * Rows:    a kernel is a template over N, the elements a lane takes at once; its launcher asks
 *          rows_fit and falls back to N = 1.
 * Arrays:  a thread takes QUAD neighbours; at an odd address its accesses are narrower, its sums
 *          the same.                                                                         */
#ifndef DIP_KERNELS_CUDA_ACCESS_CUH
#define DIP_KERNELS_CUDA_ACCESS_CUH

#include <string.h>

#include "kernels/cuda/kernel.cuh"

/* Is every pointer a multiple of 16 bytes? NULL is. */
template <typename... Pointers> static inline bool aligned(Pointers... pointers)
{
    return ((reinterpret_cast<uintptr_t>(pointers) | ...) % 16) == 0;
}

/* ---- rows: N elements of a row, all inside it ---------------------------------------------- */

/* May rows of c elements that begin at these pointers be taken N at a time? */
template <int N, typename... Pointers> static inline bool rows_fit(int64_t c, Pointers... pointers)
{
    return c % N == 0 && aligned(pointers...);
}

/* The unsigned integer with the bits of x. */
template <typename T> __device__ __forceinline__ uint32_t bits_of(const T &x)
{
    static_assert(sizeof(T) == 2 || sizeof(T) == 4, "halves or words");
    if constexpr (sizeof(T) == 4) {
        uint32_t bits;
        memcpy(&bits, &x, sizeof bits);
        return bits;
    } else {
        uint16_t bits;
        memcpy(&bits, &x, sizeof bits);
        return bits;
    }
}

template <int BYTES> struct word_of;
template <> struct word_of<16> {
    typedef uint4 type;
};
template <> struct word_of<8> {
    typedef uint2 type;
};
template <> struct word_of<4> {
    typedef uint32_t type;
};
template <> struct word_of<2> {
    typedef uint16_t type;
};
template <> struct word_of<1> {
    typedef uint8_t type;
};

template <typename T, int N> __device__ __forceinline__ pack<T, N> load_pack(const T *in)
{
    typedef typename word_of<sizeof(T) * N>::type word;
    const word bits = *reinterpret_cast<const word *>(in);
    pack<T, N> out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

/* One store. Left to itself the compiler takes a vector's members apart, and does not always find
 * them together again. */
template <typename W> __device__ __forceinline__ void store_global(W *out, W value)
{
#ifdef __CUDA_ARCH__
    __stwb(out, value);
#else
    *out = value;
#endif
}

/* To global memory. */
template <typename T, int N> __device__ __forceinline__ void store_pack(T *out, const pack<T, N> &x)
{
    constexpr int BYTES = (int)sizeof(T) * N;
    if constexpr (N == 1) {
        *out = x.at[0];
    } else {
        constexpr int WORDS = BYTES / 4, PER_WORD = 4 / (int)sizeof(T);
        uint32_t words[WORDS];
#pragma unroll
        for (int word = 0; word < WORDS; word++) {
            words[word] = 0;
#pragma unroll
            for (int i = 0; i < PER_WORD; i++)
                words[word] |= bits_of(x.at[word * PER_WORD + i]) << (8 * (int)sizeof(T) * i);
        }
        if constexpr (BYTES == 16)
            store_global(reinterpret_cast<uint4 *>(out),
                         make_uint4(words[0], words[1], words[2], words[3]));
        else if constexpr (BYTES == 8)
            store_global(reinterpret_cast<uint2 *>(out), make_uint2(words[0], words[1]));
        else
            *reinterpret_cast<uint32_t *>(out) = words[0];
    }
}

template <typename T, int N>
__device__ __forceinline__ void unpack(float (&out)[N], const pack<T, N> &in)
{
#pragma unroll
    for (int i = 0; i < N; i++) out[i] = to_float(in.at[i]);
}

template <typename T, int N> __device__ __forceinline__ pack<T, N> round_pack(const float (&in)[N])
{
    pack<T, N> out;
    if constexpr (sizeof(T) == 2 && N % 2 == 0) { /* one instruction rounds two */
#pragma unroll
        for (int i = 0; i < N; i += 2) {
            const __nv_bfloat162 pair = __floats2bfloat162_rn(in[i], in[i + 1]);
            out.at[i] = pair.x;
            out.at[i + 1] = pair.y;
        }
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) out.at[i] = from_float<T>(in[i]);
    }
    return out;
}

template <typename T, int N> __device__ __forceinline__ pack<T, N> zero_pack()
{
    pack<T, N> out;
#pragma unroll
    for (int i = 0; i < N; i++) out.at[i] = from_float<T>(0.0f);
    return out;
}

template <int N> __device__ __forceinline__ void set_zero(float (&out)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++) out[i] = 0.0f;
}

template <typename T, int N>
__device__ __forceinline__ void load_floats(float (&out)[N], const T *in)
{
    unpack(out, load_pack<T, N>(in));
}

template <typename T, int N>
__device__ __forceinline__ void store_floats(T *out, const float (&in)[N])
{
    store_pack(out, round_pack<T>(in));
}

/* A warp a row: a block of ROW_THREADS takes ROWS_A_BLOCK of them. */
enum { ROW_THREADS = 256, ROWS_A_BLOCK = ROW_THREADS / WARP };

/* ---- arrays: elements i .. i + QUAD - 1 of n ----------------------------------------------- */

enum { QUAD = 4, ARRAY_THREADS = 256 };

static inline unsigned array_blocks(int64_t n)
{
    return (unsigned)ceil_div(n, (int64_t)QUAD * ARRAY_THREADS);
}

/* The first of this thread's elements. */
__device__ __forceinline__ int64_t array_index()
{
    return ((int64_t)blockIdx.x * ARRAY_THREADS + threadIdx.x) * QUAD;
}

/* Elements past the end are 0. */
template <bool ALIGNED, typename T>
__device__ __forceinline__ void load_quad(float (&out)[QUAD], const T *in, int64_t i, int64_t n)
{
    if (ALIGNED && i + QUAD <= n) {
        load_floats(out, in + i);
        return;
    }
#pragma unroll
    for (int j = 0; j < QUAD; j++) out[j] = i + j < n ? to_float(in[i + j]) : 0.0f;
}

template <bool ALIGNED, typename T>
__device__ __forceinline__ void store_quad(T *out, const float (&in)[QUAD], int64_t i, int64_t n)
{
    if (ALIGNED && i + QUAD <= n) {
        store_floats(out + i, in);
        return;
    }
#pragma unroll
    for (int j = 0; j < QUAD; j++)
        if (i + j < n) out[i + j] = from_float<T>(in[j]);
}

#endif
