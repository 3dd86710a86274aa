#include "kernels/cuda/access.cuh"

/* A warp a picked row. */
template <typename T, int N, bool SCATTER>
__global__ void __launch_bounds__(ROW_THREADS)
    move_rows(T *__restrict__ out, const T *__restrict__ x, const int32_t *__restrict__ index,
              int64_t n_picked, int64_t c)
{
    const int lane = threadIdx.x % WARP;
    const int64_t picked = (int64_t)blockIdx.x * ROWS_A_BLOCK + threadIdx.x / WARP;
    if (picked >= n_picked) return;
    const int64_t far = index[picked];
    x += (SCATTER ? picked : far) * c;
    out += (SCATTER ? far : picked) * c;
#pragma unroll 4
    for (int64_t column = lane * N; column < c; column += WARP * N)
        store_pack(out + column, load_pack<T, N>(x + column));
}

template <typename T, bool SCATTER>
static void move(dip_exec *exec, void *out, const void *x, const int32_t *index, int64_t n_picked,
                 int64_t c)
{
    constexpr int N = pack_length<T>();
    const unsigned n_blocks = (unsigned)ceil_div(n_picked, ROWS_A_BLOCK);
    T *const to = static_cast<T *>(out);
    const T *const from = static_cast<const T *>(x);
    const cudaStream_t stream = dip_cuda_of(exec)->stream;
    if (n_picked == 0) return;
    if (rows_fit<N>(c, out, x))
        DIP_LAUNCH((move_rows<T, N, SCATTER>), n_blocks, ROW_THREADS, 0, stream)
    (to, from, index, n_picked, c);
    else DIP_LAUNCH((move_rows<T, 1, SCATTER>), n_blocks, ROW_THREADS, 0, stream)(to, from, index,
                                                                                  n_picked, c);
}

template <typename T>
static dip_status gather(dip_exec *exec, void *out, const void *x, const int32_t *index,
                         int64_t n_out, int64_t c)
{
    move<T, false>(exec, out, x, index, n_out, c);
    return DIP_CUDA_LAUNCHED(exec, "rows_gather", "[%lld, %lld]", (long long)n_out, (long long)c);
}

template <typename T>
static dip_status scatter(dip_exec *exec, void *d_x, const void *d_out, const int32_t *index,
                          int64_t n_out, int64_t n_rows, int64_t c)
{
    if (n_rows > 0)
        DIP_TRY_CUDA(
            cudaMemsetAsync(d_x, 0, (size_t)(n_rows * c) * sizeof(T), dip_cuda_of(exec)->stream));
    move<T, true>(exec, d_x, d_out, index, n_out, c);
    return DIP_CUDA_LAUNCHED(exec, "rows_scatter", "%lld of [%lld, %lld]", (long long)n_out,
                             (long long)n_rows, (long long)c);
}

/* ---- in both types ------------------------------------------------------------------------ */

#define ROWS(suffix, T)                                                                            \
    dip_status dip_cuda_rows_gather_##suffix(dip_exec *exec, void *out, const void *x,             \
                                             const int32_t *index, int64_t n_out, int64_t c)       \
    {                                                                                              \
        return gather<T>(exec, out, x, index, n_out, c);                                           \
    }                                                                                              \
    dip_status dip_cuda_rows_scatter_##suffix(dip_exec *exec, void *d_x, const void *d_out,        \
                                              const int32_t *index, int64_t n_out, int64_t n_rows, \
                                              int64_t c)                                           \
    {                                                                                              \
        return scatter<T>(exec, d_x, d_out, index, n_out, n_rows, c);                              \
    }
ROWS(f32, float)
ROWS(bf16, __nv_bfloat16)
