/* activation.h - the activation functions and their derivatives, on one float. */
#ifndef DIP_KERNELS_CPU_ACTIVATION_H
#define DIP_KERNELS_CPU_ACTIVATION_H

#include <math.h>

#include "kernels/ops.h"

/* Phi(x), the normal distribution function. erfc instead of 1 + erf: no cancellation at x < 0. */
static inline float dip_normal_cdf(float x)
{
    return 0.5f * erfcf(-0.70710678118654752f * x);
}

static inline float dip_sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}

static inline float dip_activate(dip_activation act, float x)
{
    switch (act) {
    case DIP_ACT_NONE:
        return x;
    case DIP_ACT_GELU:
        return x * dip_normal_cdf(x);
    case DIP_ACT_QUICKGELU:
        return x * dip_sigmoid(1.702f * x);
    }
    return x;
}

static inline float dip_activate_derivative(dip_activation act, float x)
{
    switch (act) {
    case DIP_ACT_NONE:
        return 1.0f;
    case DIP_ACT_GELU: { /* Phi(x) + x phi(x), phi(x) = exp(-x^2 / 2) / sqrt(2 pi) */
        return dip_normal_cdf(x) + x * 0.39894228040143268f * expf(-0.5f * x * x);
    }
    case DIP_ACT_QUICKGELU: {
        float s = dip_sigmoid(1.702f * x);
        return s + 1.702f * x * s * (1.0f - s);
    }
    }
    return 1.0f;
}

#endif
