/* cuda_bf16.h of the emulated GPU: bf16 as CUDA's conversions make it (round to nearest even, one
 * NaN). */
#ifndef EMULATED_GPU_CUDA_BF16_H
#define EMULATED_GPU_CUDA_BF16_H

#include <cstdint>
#include <cstring>

#include "vector_types.h"

struct __nv_bfloat16 {
    uint16_t bits;
};
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};
typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;

inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits)
{
    return __nv_bfloat16{bits};
}

inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x)
{
    return x.bits;
}

inline float __bfloat162float(__nv_bfloat16 x)
{
    const uint32_t bits = (uint32_t)x.bits << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline __nv_bfloat16 __float2bfloat16_rn(float value)
{
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return __nv_bfloat16{0x7fff};
    bits += 0x7fffu + (bits >> 16 & 1u);
    return __nv_bfloat16{(uint16_t)(bits >> 16)};
}

inline __nv_bfloat16 __float2bfloat16(float value)
{
    return __float2bfloat16_rn(value);
}

inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y)
{
    return __nv_bfloat162{__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}

inline __nv_bfloat162 __float22bfloat162_rn(float2 value)
{
    return __floats2bfloat162_rn(value.x, value.y);
}

inline float2 __bfloat1622float2(__nv_bfloat162 value)
{
    return make_float2(__bfloat162float(value.x), __bfloat162float(value.y));
}

inline float __low2float(__nv_bfloat162 value)
{
    return __bfloat162float(value.x);
}

inline float __high2float(__nv_bfloat162 value)
{
    return __bfloat162float(value.y);
}

#endif
