/* Sums over rows, for bias gradients: x is read once, at the speed of memory.
 *
 * Stage 1: block (i, j) sums column block i of row chunk j, a warp every WARPS-th row of the chunk,
 * a lane V neighbouring columns; the warps' sums are added in shared memory. Stage 2 adds the
 * chunks. The shape of both depends on the sizes alone.                                       */
#include "kernels/cuda/kernel.cuh"
#include "kernels/cuda/matmul_kernels.h"

enum {
    WARPS = 8,          /* of a block of stage 1 */
    ROWS_AT_ONCE = 4,   /* loads of a lane under way */
    TOTAL_WARPS = 16,   /* of a block of stage 2 */
    MANY_BLOCKS = 1024, /* enough to fill every GPU */
    PARTIAL_FLOATS = DIP_CUDA_PARTIALS_BYTES / 4
};

template <typename T, int V>
__global__ void __launch_bounds__(WARPS *WARP)
    chunk_sums_kernel(float *out, const T *x, int64_t n_rows, int64_t c, int64_t chunk_rows,
                      int add)
{
    __shared__ float of_warp[WARPS][WARP * V];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int64_t column = ((int64_t)blockIdx.x * WARP + lane) * V;
    const int64_t begin = blockIdx.y * chunk_rows;
    const int64_t end = begin + chunk_rows < n_rows ? begin + chunk_rows : n_rows;
    float sums[V];
#pragma unroll
    for (int j = 0; j < V; j++) sums[j] = 0.0f;
    if (column < c) {
        const T *at = x + column;
        int64_t row = begin + warp;
        for (; row + (ROWS_AT_ONCE - 1) * WARPS < end; row += ROWS_AT_ONCE * WARPS) {
            pack<T, V> in[ROWS_AT_ONCE];
#pragma unroll
            for (int i = 0; i < ROWS_AT_ONCE; i++)
                in[i] = *(const pack<T, V> *)(at + (row + i * WARPS) * c);
#pragma unroll
            for (int i = 0; i < ROWS_AT_ONCE; i++)
#pragma unroll
                for (int j = 0; j < V; j++) sums[j] += to_float(in[i].at[j]);
        }
        for (; row < end; row += WARPS) {
            const pack<T, V> in = *(const pack<T, V> *)(at + row * c);
#pragma unroll
            for (int j = 0; j < V; j++) sums[j] += to_float(in.at[j]);
        }
    }
#pragma unroll
    for (int j = 0; j < V; j++) of_warp[warp][lane * V + j] = sums[j];
    __syncthreads();
    const int64_t mine = (int64_t)blockIdx.x * (WARP * V) + threadIdx.x;
    if (threadIdx.x >= WARP * V || mine >= c) return;
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < WARPS; i++) sum += of_warp[i][threadIdx.x];
    if (add)
        out[mine] += sum;
    else
        out[blockIdx.y * c + mine] = sum;
}

__global__ void __launch_bounds__(TOTAL_WARPS *WARP)
    add_chunks_kernel(float *sums, const float *partials, int n_chunks, int64_t c)
{
    __shared__ float of_warp[TOTAL_WARPS][WARP];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int64_t column = (int64_t)blockIdx.x * WARP + lane;
    float sum = 0.0f;
    if (column < c)
#pragma unroll 4
        for (int chunk = warp; chunk < n_chunks; chunk += TOTAL_WARPS)
            sum += partials[chunk * c + column];
    of_warp[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || column >= c) return;
    sum = 0.0f;
#pragma unroll
    for (int i = 0; i < TOTAL_WARPS; i++) sum += of_warp[i][lane];
    sums[column] += sum;
}

template <typename T, int V>
static void column_sums(dip_exec *exec, float *sums, const T *x, int64_t n_rows, int64_t c)
{
    const dip_cuda *cuda = dip_cuda_of(exec);
    const int64_t column_blocks = ceil_div(c, WARP * V);
    int64_t n_chunks = ceil_div(n_rows, WARPS * ROWS_AT_ONCE);
    if (n_chunks > ceil_div(MANY_BLOCKS, column_blocks))
        n_chunks = ceil_div(MANY_BLOCKS, column_blocks);
    if (n_chunks > PARTIAL_FLOATS / c) n_chunks = PARTIAL_FLOATS / c;
    if (n_chunks < 1) n_chunks = 1;
    const int64_t chunk_rows = ceil_div(n_rows, n_chunks);
    n_chunks = ceil_div(n_rows, chunk_rows);

    float *partials = n_chunks > 1 ? (float *)cuda->partials : sums;
    DIP_LAUNCH((chunk_sums_kernel<T, V>), dim3((unsigned)column_blocks, (unsigned)n_chunks),
               WARPS * WARP, 0, cuda->stream)
    (partials, x, n_rows, c, chunk_rows, n_chunks == 1);
    if (n_chunks == 1) return;
    DIP_LAUNCH(add_chunks_kernel, (unsigned)ceil_div(c, WARP), TOTAL_WARPS * WARP, 0, cuda->stream)
    (sums, partials, (int)n_chunks, c);
}

template <typename T>
static void column_sums_of(dip_exec *exec, float *sums, const T *x, int64_t n_rows, int64_t c)
{
    if (c % pack_length<T>() == 0 && (uintptr_t)x % 16 == 0)
        column_sums<T, pack_length<T>()>(exec, sums, x, n_rows, c);
    else
        column_sums<T, 1>(exec, sums, x, n_rows, c);
}

extern "C" void dip_cuda_column_sums(dip_exec *exec, dip_dtype dtype, float *sums, const void *x,
                                     int64_t n_rows, int64_t c)
{
    if (n_rows == 0 || c == 0) return;
    if (dtype == DIP_BF16)
        column_sums_of(exec, sums, (const __nv_bfloat16 *)x, n_rows, c);
    else
        column_sums_of(exec, sums, (const float *)x, n_rows, c);
}
