#include "kernels/cuda/access.cuh"

/* A block a sequence and SPAN columns: a lane owns N neighbouring columns, the warps share the rows
 * out. */
template <typename T, int N>
__global__ void __launch_bounds__(ROW_THREADS)
    forward_columns(T *__restrict__ out, const T *__restrict__ x,
                    const int32_t *__restrict__ offsets, int64_t skip, int64_t c)
{
    constexpr int SPAN = WARP * N;
    __shared__ __align__(16) float shares[ROWS_A_BLOCK][SPAN];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int64_t sequence = blockIdx.x, first = (int64_t)blockIdx.y * SPAN;
    const int64_t begin = offsets[sequence] + skip, end = offsets[sequence + 1];
    float sum[N];
    set_zero(sum);
    if (first + lane * N < c) {
#pragma unroll 4
        for (int64_t row = begin + warp; row < end; row += ROWS_A_BLOCK) {
            float value[N];
            load_floats(value, x + row * c + first + lane * N);
#pragma unroll
            for (int i = 0; i < N; i++) sum[i] += value[i];
        }
    }
#pragma unroll
    for (int i = 0; i < N; i++) shares[warp][lane * N + i] = sum[i];
    __syncthreads();
    for (int i = threadIdx.x; i < SPAN; i += ROW_THREADS) {
        float total = 0.0f;
        for (int w = 0; w < ROWS_A_BLOCK; w++) total += shares[w][i];
        if (first + i < c)
            out[sequence * c + first + i] = from_float<T>(total / (float)(end - begin));
    }
}

template <typename T, int N>
__global__ void __launch_bounds__(ROW_THREADS)
    backward_columns(T *__restrict__ d_x, const T *__restrict__ d_out,
                     const int32_t *__restrict__ offsets, int64_t skip, int64_t c)
{
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int64_t sequence = blockIdx.x;
    const int64_t column = ((int64_t)blockIdx.y * WARP + lane) * N;
    const int64_t begin = offsets[sequence], end = offsets[sequence + 1];
    if (column >= c) return;
    float share[N];
    load_floats(share, d_out + sequence * c + column);
#pragma unroll
    for (int i = 0; i < N; i++) share[i] /= (float)(end - begin - skip);
    const pack<T, N> each = round_pack<T>(share);
    for (int64_t row = begin + warp; row < end; row += ROWS_A_BLOCK)
        store_pack(d_x + row * c + column, row < begin + skip ? zero_pack<T, N>() : each);
}

template <typename T, int N>
static void launch_forward(dip_exec *exec, void *out, const void *x, const int32_t *offsets,
                           int64_t skip, int64_t n_sequences, int64_t c)
{
    const dim3 grid((unsigned)n_sequences, (unsigned)ceil_div(c, WARP * N));
    DIP_LAUNCH((forward_columns<T, N>), grid, ROW_THREADS, 0, dip_cuda_of(exec)->stream)
    (static_cast<T *>(out), static_cast<const T *>(x), offsets, skip, c);
}

template <typename T, int N>
static void launch_backward(dip_exec *exec, void *d_x, const void *d_out, const int32_t *offsets,
                            int64_t skip, int64_t n_sequences, int64_t c)
{
    const dim3 grid((unsigned)n_sequences, (unsigned)ceil_div(c, WARP * N));
    DIP_LAUNCH((backward_columns<T, N>), grid, ROW_THREADS, 0, dip_cuda_of(exec)->stream)
    (static_cast<T *>(d_x), static_cast<const T *>(d_out), offsets, skip, c);
}

template <typename T>
static dip_status forward(dip_exec *exec, void *out, const void *x, const int32_t *offsets,
                          int64_t skip, int64_t n_sequences, int64_t c)
{
    constexpr int N = pack_length<T>();
    if (n_sequences == 0) return DIP_OK;
    if (rows_fit<N>(c, x))
        launch_forward<T, N>(exec, out, x, offsets, skip, n_sequences, c);
    else
        launch_forward<T, 1>(exec, out, x, offsets, skip, n_sequences, c);
    return DIP_CUDA_LAUNCHED(exec, "mean_pool_forward", "[%lld, %lld]", (long long)n_sequences,
                             (long long)c);
}

template <typename T>
static dip_status backward(dip_exec *exec, void *d_x, const void *d_out, const int32_t *offsets,
                           int64_t skip, int64_t n_sequences, int64_t c)
{
    constexpr int N = pack_length<T>();
    if (n_sequences == 0) return DIP_OK;
    if (rows_fit<N>(c, d_x, d_out))
        launch_backward<T, N>(exec, d_x, d_out, offsets, skip, n_sequences, c);
    else
        launch_backward<T, 1>(exec, d_x, d_out, offsets, skip, n_sequences, c);
    return DIP_CUDA_LAUNCHED(exec, "mean_pool_backward", "[%lld, %lld]", (long long)n_sequences,
                             (long long)c);
}

/* ---- in both types ------------------------------------------------------------------------ */

#define POOL(suffix, T)                                                                            \
    dip_status dip_cuda_mean_pool_forward_##suffix(dip_exec *exec, void *out, const void *x,       \
                                                   const int32_t *offsets, int64_t skip,           \
                                                   int64_t n_sequences, int64_t c)                 \
    {                                                                                              \
        return forward<T>(exec, out, x, offsets, skip, n_sequences, c);                            \
    }                                                                                              \
    dip_status dip_cuda_mean_pool_backward_##suffix(dip_exec *exec, void *d_x, const void *d_out,  \
                                                    const int32_t *offsets, int64_t skip,          \
                                                    int64_t n_sequences, int64_t c)                \
    {                                                                                              \
        return backward<T>(exec, d_x, d_out, offsets, skip, n_sequences, c);                       \
    }
POOL(f32, float)
POOL(bf16, __nv_bfloat16)
