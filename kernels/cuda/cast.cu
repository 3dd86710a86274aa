#include "kernels/cuda/access.cuh"

template <bool ALIGNED, typename To, typename From>
__global__ void __launch_bounds__(ARRAY_THREADS)
    cast_quads(To *__restrict__ out, const From *__restrict__ x, int64_t n)
{
    const int64_t i = array_index();
    float value[QUAD];
    load_quad<ALIGNED>(value, x, i, n);
    store_quad<ALIGNED>(out, value, i, n);
}

template <typename To, typename From>
static dip_status cast(dip_exec *exec, const char *op, void *out, const void *x, int64_t n)
{
    To *const to = static_cast<To *>(out);
    const From *const from = static_cast<const From *>(x);
    const cudaStream_t stream = dip_cuda_of(exec)->stream;
    if (n == 0) return DIP_OK;
    if (aligned(out, x))
        DIP_LAUNCH((cast_quads<true, To, From>), array_blocks(n), ARRAY_THREADS, 0, stream)
    (to, from, n);
    else DIP_LAUNCH((cast_quads<false, To, From>), array_blocks(n), ARRAY_THREADS, 0,
                    stream)(to, from, n);
    return DIP_CUDA_LAUNCHED(exec, op, "[%lld]", (long long)n);
}

/* ---- in both types ------------------------------------------------------------------------ */

#define CAST(suffix, T)                                                                            \
    dip_status dip_cuda_cast_from_float_##suffix(dip_exec *exec, void *out, const float *x,        \
                                                 int64_t n)                                        \
    {                                                                                              \
        return cast<T, float>(exec, "cast_from_float", out, x, n);                                 \
    }                                                                                              \
    dip_status dip_cuda_cast_to_float_##suffix(dip_exec *exec, float *out, const void *x,          \
                                               int64_t n)                                          \
    {                                                                                              \
        return cast<float, T>(exec, "cast_to_float", out, x, n);                                   \
    }
CAST(f32, float)
CAST(bf16, __nv_bfloat16)
