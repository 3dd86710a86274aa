/* cuda_fp8.h of the emulated GPU: storage and conversions of the OCP 8-bit floats. */
#ifndef EMULATED_GPU_CUDA_FP8_H
#define EMULATED_GPU_CUDA_FP8_H

#include <cmath>
#include <cstdint>

#include "cuda_bf16.h"

typedef unsigned char __nv_fp8_storage_t;
typedef unsigned short __nv_fp8x2_storage_t;
typedef unsigned int __nv_fp8x4_storage_t;

typedef enum __nv_saturation_t { __NV_NOSAT, __NV_SATFINITE } __nv_saturation_t;
typedef enum __nv_fp8_interpretation_t { __NV_E4M3, __NV_E5M2 } __nv_fp8_interpretation_t;

namespace emulated
{

/* e4m3 has no infinity: 0x7f is its only NaN and 448 (0x7e) its largest. e5m2 is IEEE-like: 57344
 * (0x7b), infinity (0x7c), NaN. */
struct fp8_format {
    int n_mantissa, bias, largest, infinity, nan;
};

inline fp8_format fp8_format_of(__nv_fp8_interpretation_t kind)
{
    return kind == __NV_E4M3 ? fp8_format{3, 7, 0x7e, 0x7f, 0x7f}
                             : fp8_format{2, 15, 0x7b, 0x7c, 0x7f};
}

inline float fp8_to_float(__nv_fp8_storage_t bits, __nv_fp8_interpretation_t kind)
{
    const fp8_format f = fp8_format_of(kind);
    const int magnitude = bits & 0x7f, mantissa = magnitude & ((1 << f.n_mantissa) - 1);
    const int exponent = magnitude >> f.n_mantissa;
    float value;
    if (magnitude > f.largest)
        value = f.infinity != f.nan && magnitude == f.infinity ? INFINITY : NAN;
    else if (exponent == 0)
        value = std::ldexp((float)mantissa, 1 - f.bias - f.n_mantissa);
    else
        value =
            std::ldexp((float)(mantissa + (1 << f.n_mantissa)), exponent - f.bias - f.n_mantissa);
    return bits & 0x80 ? -value : value;
}

/* Round to nearest even. The magnitudes' bit patterns are in the order of their values. */
inline __nv_fp8_storage_t fp8_from_float(float x, __nv_saturation_t saturate,
                                         __nv_fp8_interpretation_t kind)
{
    const fp8_format f = fp8_format_of(kind);
    if (std::isnan(x)) return (__nv_fp8_storage_t)f.nan;
    const int sign = std::signbit(x) ? 0x80 : 0;
    const double magnitude = std::fabs((double)x);
    int exponent = 1 - f.bias;
    if (magnitude > 0 && std::isfinite(magnitude) && std::ilogb(magnitude) > exponent)
        exponent = std::ilogb(magnitude);
    /* In units of the last place; a carry into the next power of two gives the right bits. */
    const double unit = std::ldexp(1.0, exponent - f.n_mantissa);
    const double steps = std::isfinite(magnitude) ? std::nearbyint(magnitude / unit) : 1e9;
    const double code = steps + (double)((exponent + f.bias - 1) << f.n_mantissa);
    if (code > f.largest)
        return (__nv_fp8_storage_t)(sign | (saturate == __NV_SATFINITE ? f.largest : f.infinity));
    return (__nv_fp8_storage_t)(sign | (int)code);
}

} // namespace emulated

inline __nv_fp8_storage_t __nv_cvt_float_to_fp8(float x, __nv_saturation_t saturate,
                                                __nv_fp8_interpretation_t kind)
{
    return emulated::fp8_from_float(x, saturate, kind);
}

inline __nv_fp8x2_storage_t __nv_cvt_float2_to_fp8x2(float2 x, __nv_saturation_t saturate,
                                                     __nv_fp8_interpretation_t kind)
{
    return (__nv_fp8x2_storage_t)(emulated::fp8_from_float(x.x, saturate, kind) |
                                  emulated::fp8_from_float(x.y, saturate, kind) << 8);
}

inline __nv_fp8_storage_t __nv_cvt_bfloat16raw_to_fp8(__nv_bfloat16 x, __nv_saturation_t saturate,
                                                      __nv_fp8_interpretation_t kind)
{
    return emulated::fp8_from_float(__bfloat162float(x), saturate, kind);
}

/* Saturating, as CUDA's constructors are. */
#define EMULATED_FP8(name, kind)                                                                   \
    struct name {                                                                                  \
        __nv_fp8_storage_t __x;                                                                    \
        name() = default;                                                                          \
        explicit name(float x) : __x(emulated::fp8_from_float(x, __NV_SATFINITE, kind)) {}         \
        explicit operator float() const { return emulated::fp8_to_float(__x, kind); }              \
    };
EMULATED_FP8(__nv_fp8_e4m3, __NV_E4M3)
EMULATED_FP8(__nv_fp8_e5m2, __NV_E5M2)
#undef EMULATED_FP8

#endif
