/* dtype.h - the number formats of activations and parameters.
 *
 * bf16 is the upper half of an IEEE float; conversion from float rounds to nearest even
 * and keeps NaN a NaN.                                                                  */
#ifndef DIP_CORE_DTYPE_H
#define DIP_CORE_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum dip_dtype { DIP_F32, DIP_BF16 } dip_dtype;

typedef uint16_t dip_bf16;

static inline size_t dip_dtype_bytes(dip_dtype dtype)
{
    return dtype == DIP_BF16 ? sizeof(dip_bf16) : sizeof(float);
}

static inline const char *dip_dtype_name(dip_dtype dtype)
{
    return dtype == DIP_BF16 ? "bf16" : "fp32";
}

static inline float dip_bf16_to_float(dip_bf16 x)
{
    uint32_t bits = (uint32_t)x << 16;
    float out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

static inline dip_bf16 dip_bf16_from_float(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (dip_bf16)((bits >> 16) | 0x40u);
    bits += 0x7fffu + ((bits >> 16) & 1u);
    return (dip_bf16)(bits >> 16);
}

#endif
