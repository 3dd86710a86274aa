#include "kernels/cuda/access.cuh"

/* A warp a row. Four elements a lane: 16 bytes of the float rows, which are the larger part. */
enum { WIDE = 4 };

template <typename T, int N>
__global__ void __launch_bounds__(ROW_THREADS)
    forward_rows(float *__restrict__ y, float *__restrict__ inv_norm, const T *__restrict__ x,
                 int64_t n_rows, int64_t e)
{
    const int lane = threadIdx.x % WARP;
    const int64_t row = (int64_t)blockIdx.x * ROWS_A_BLOCK + threadIdx.x / WARP;
    if (row >= n_rows) return;
    float squares = 0.0f;
#pragma unroll 4
    for (int64_t column = lane * N; column < e; column += WARP * N) {
        float value[N];
        load_floats(value, x + row * e + column);
#pragma unroll
        for (int i = 0; i < N; i++) squares += value[i] * value[i];
    }
    float norm = sqrtf(warp_sum(squares));
    if (norm < 1e-12f) norm = 1e-12f; /* a NaN stays a NaN */
    if (lane == 0) inv_norm[row] = 1.0f / norm;
#pragma unroll 4
    for (int64_t column = lane * N; column < e; column += WARP * N) {
        float value[N];
        load_floats(value, x + row * e + column);
#pragma unroll
        for (int i = 0; i < N; i++) value[i] /= norm;
        store_floats(y + row * e + column, value);
    }
}

template <typename T, int N>
__global__ void __launch_bounds__(ROW_THREADS)
    backward_rows(T *__restrict__ d_x, const float *__restrict__ d_y, const float *__restrict__ y,
                  const float *__restrict__ inv_norm, int64_t n_rows, int64_t e)
{
    const int lane = threadIdx.x % WARP;
    const int64_t row = (int64_t)blockIdx.x * ROWS_A_BLOCK + threadIdx.x / WARP;
    if (row >= n_rows) return;
    float along = 0.0f; /* the part of d_y along y does not change a unit vector */
#pragma unroll 4
    for (int64_t column = lane * N; column < e; column += WARP * N) {
        float a[N], b[N];
        load_floats(a, y + row * e + column);
        load_floats(b, d_y + row * e + column);
#pragma unroll
        for (int i = 0; i < N; i++) along += a[i] * b[i];
    }
    along = warp_sum(along);
    const float scale = inv_norm[row];
#pragma unroll 4
    for (int64_t column = lane * N; column < e; column += WARP * N) {
        float a[N], b[N];
        load_floats(a, y + row * e + column);
        load_floats(b, d_y + row * e + column);
#pragma unroll
        for (int i = 0; i < N; i++) b[i] = (b[i] - a[i] * along) * scale;
        store_floats(d_x + row * e + column, b);
    }
}

template <typename T>
static dip_status forward(dip_exec *exec, float *y, float *inv_norm, const void *x, int64_t n_rows,
                          int64_t e)
{
    const unsigned n_blocks = (unsigned)ceil_div(n_rows, ROWS_A_BLOCK);
    const T *const from = static_cast<const T *>(x);
    const cudaStream_t stream = dip_cuda_of(exec)->stream;
    if (n_rows == 0) return DIP_OK;
    if (rows_fit<WIDE>(e, y, x))
        DIP_LAUNCH((forward_rows<T, WIDE>), n_blocks, ROW_THREADS, 0, stream)
    (y, inv_norm, from, n_rows, e);
    else DIP_LAUNCH((forward_rows<T, 1>), n_blocks, ROW_THREADS, 0, stream)(y, inv_norm, from,
                                                                            n_rows, e);
    return DIP_CUDA_LAUNCHED(exec, "l2norm_forward", "[%lld, %lld]", (long long)n_rows,
                             (long long)e);
}

template <typename T>
static dip_status backward(dip_exec *exec, void *d_x, const float *d_y, const float *y,
                           const float *inv_norm, int64_t n_rows, int64_t e)
{
    const unsigned n_blocks = (unsigned)ceil_div(n_rows, ROWS_A_BLOCK);
    T *const to = static_cast<T *>(d_x);
    const cudaStream_t stream = dip_cuda_of(exec)->stream;
    if (n_rows == 0) return DIP_OK;
    if (rows_fit<WIDE>(e, d_x, d_y, y))
        DIP_LAUNCH((backward_rows<T, WIDE>), n_blocks, ROW_THREADS, 0, stream)
    (to, d_y, y, inv_norm, n_rows, e);
    else DIP_LAUNCH((backward_rows<T, 1>), n_blocks, ROW_THREADS, 0, stream)(to, d_y, y, inv_norm,
                                                                             n_rows, e);
    return DIP_CUDA_LAUNCHED(exec, "l2norm_backward", "[%lld, %lld]", (long long)n_rows,
                             (long long)e);
}

/* ---- in both types ------------------------------------------------------------------------ */

#define L2NORM(suffix, T)                                                                          \
    dip_status dip_cuda_l2norm_forward_##suffix(dip_exec *exec, float *y, float *inv_norm,         \
                                                const void *x, int64_t n_rows, int64_t e)          \
    {                                                                                              \
        return forward<T>(exec, y, inv_norm, x, n_rows, e);                                        \
    }                                                                                              \
    dip_status dip_cuda_l2norm_backward_##suffix(dip_exec *exec, void *d_x, const float *d_y,      \
                                                 const float *y, const float *inv_norm,            \
                                                 int64_t n_rows, int64_t e)                        \
    {                                                                                              \
        return backward<T>(exec, d_x, d_y, y, inv_norm, n_rows, e);                                \
    }
L2NORM(f32, float)
L2NORM(bf16, __nv_bfloat16)
