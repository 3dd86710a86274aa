#include "kernels/cuda/access.cuh"
#include "kernels/cuda/ptx.cuh"

/* Up to WIDEST columns a warp keeps its row in registers: K columns a lane, in packs of 16 bytes
 * that lie a warp apart. Other rows are read again for each pass over them. */
enum { WIDEST = 1280 };

/* The sums over rows. Their blocks are a function of the sizes, not of the device: four on each
 * multiprocessor of the largest Hopper, which is as many as it holds. */
enum {
    N_WARPS = 4,
    BACKWARD_THREADS = N_WARPS * WARP,
    MAX_BLOCKS = 528,
    N_STAGES = 2, /* rows of a warp: the one it works on and the next */
    N_STAGED = 3  /* of d_out, x, d_residual */
};

static int64_t n_backward_blocks(int64_t n_rows)
{
    const int64_t n_blocks = ceil_div(n_rows, N_WARPS);
    return n_blocks < (int64_t)MAX_BLOCKS ? n_blocks : (int64_t)MAX_BLOCKS;
}

size_t dip_cuda_layernorm_workspace(const dip_exec *exec, int64_t n_rows, int64_t c)
{
    (void)exec;
    return (size_t)(n_backward_blocks(n_rows) * 2 * c) * sizeof(float);
}

/* ---- forward ---------------------------------------------------------------------------- */

template <typename T, int K>
__global__ void __launch_bounds__(ROW_THREADS)
    forward_in_registers(T *__restrict__ out, float *__restrict__ mean, float *__restrict__ rstd,
                         const T *__restrict__ x, const T *__restrict__ gamma,
                         const T *__restrict__ beta, float eps, int64_t n_rows, int c)
{
    constexpr int N = pack_length<T>(), PACKS = K / N;
    const int lane = threadIdx.x % WARP;
    const int64_t row = (int64_t)blockIdx.x * ROWS_A_BLOCK + threadIdx.x / WARP;
    if (row >= n_rows) return;
    x += row * c;
    out += row * c;

    pack<T, N> values[PACKS];
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        const int column = (p * WARP + lane) * N;
        values[p] = column < c ? load_pack<T, N>(x + column) : zero_pack<T, N>();
    }
    float sum = 0.0f;
#pragma unroll
    for (int p = 0; p < PACKS; p++)
#pragma unroll
        for (int i = 0; i < N; i++) sum += to_float(values[p].at[i]);
    const float row_mean = warp_sum(sum) / (float)c;

    float squares = 0.0f;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        if ((p * WARP + lane) * N >= c) continue;
#pragma unroll
        for (int i = 0; i < N; i++) {
            const float centred = to_float(values[p].at[i]) - row_mean;
            squares += centred * centred;
        }
    }
    const float row_rstd = 1.0f / sqrtf(warp_sum(squares) / (float)c + eps);

    if (lane == 0) {
        mean[row] = row_mean;
        rstd[row] = row_rstd;
    }
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        const int column = (p * WARP + lane) * N;
        if (column >= c) continue;
        float scale[N], shift[N], result[N];
        load_floats(scale, gamma + column);
        load_floats(shift, beta + column);
#pragma unroll
        for (int i = 0; i < N; i++)
            result[i] = (to_float(values[p].at[i]) - row_mean) * row_rstd * scale[i] + shift[i];
        store_floats(out + column, result);
    }
}

template <typename T, int N>
__global__ void __launch_bounds__(ROW_THREADS)
    forward_any(T *__restrict__ out, float *__restrict__ mean, float *__restrict__ rstd,
                const T *__restrict__ x, const T *__restrict__ gamma, const T *__restrict__ beta,
                float eps, int64_t n_rows, int64_t c)
{
    const int lane = threadIdx.x % WARP;
    const int64_t row = (int64_t)blockIdx.x * ROWS_A_BLOCK + threadIdx.x / WARP;
    if (row >= n_rows) return;
    x += row * c;
    out += row * c;

    float sum = 0.0f, squares = 0.0f;
    for (int64_t column = lane * N; column < c; column += WARP * N) {
        float value[N];
        load_floats(value, x + column);
#pragma unroll
        for (int i = 0; i < N; i++) sum += value[i];
    }
    const float row_mean = warp_sum(sum) / (float)c;
    for (int64_t column = lane * N; column < c; column += WARP * N) {
        float value[N];
        load_floats(value, x + column);
#pragma unroll
        for (int i = 0; i < N; i++) squares += (value[i] - row_mean) * (value[i] - row_mean);
    }
    const float row_rstd = 1.0f / sqrtf(warp_sum(squares) / (float)c + eps);

    if (lane == 0) {
        mean[row] = row_mean;
        rstd[row] = row_rstd;
    }
    for (int64_t column = lane * N; column < c; column += WARP * N) {
        float value[N], scale[N], shift[N], result[N];
        load_floats(value, x + column);
        load_floats(scale, gamma + column);
        load_floats(shift, beta + column);
#pragma unroll
        for (int i = 0; i < N; i++)
            result[i] = (value[i] - row_mean) * row_rstd * scale[i] + shift[i];
        store_floats(out + column, result);
    }
}

template <typename T>
static dip_status forward(dip_exec *exec, void *out, float *mean, float *rstd, const void *x,
                          const void *gamma, const void *beta, float eps, int64_t n_rows, int64_t c)
{
    constexpr int N = pack_length<T>();
    const cudaStream_t stream = dip_cuda_of(exec)->stream;
    const unsigned n_blocks = (unsigned)ceil_div(n_rows, ROWS_A_BLOCK);
    T *const to = static_cast<T *>(out);
    const T *const from = static_cast<const T *>(x);
    const T *const scale = static_cast<const T *>(gamma), *const shift =
                                                              static_cast<const T *>(beta);
    if (n_rows == 0) return DIP_OK;

#define FORWARD_CASE(K)                                                                            \
    case K:                                                                                        \
        DIP_LAUNCH((forward_in_registers<T, K>), n_blocks, ROW_THREADS, 0, stream)                 \
        (to, mean, rstd, from, scale, shift, eps, n_rows, (int)c);                                 \
        break

    if (!rows_fit<N>(c, out, x, gamma, beta)) {
        DIP_LAUNCH((forward_any<T, 1>), n_blocks, ROW_THREADS, 0, stream)
        (to, mean, rstd, from, scale, shift, eps, n_rows, c);
    } else {
        switch (ceil_div(c, 8 * WARP) * 8) {
            FORWARD_CASE(8);
            FORWARD_CASE(16);
            FORWARD_CASE(24);
            FORWARD_CASE(32);
            FORWARD_CASE(40);
        default:
            DIP_LAUNCH((forward_any<T, N>), n_blocks, ROW_THREADS, 0, stream)
            (to, mean, rstd, from, scale, shift, eps, n_rows, c);
        }
    }
#undef FORWARD_CASE
    return DIP_CUDA_LAUNCHED(exec, "layernorm_forward", "[%lld, %lld]", (long long)n_rows,
                             (long long)c);
}

/* ---- backward --------------------------------------------------------------------------- */

/* With g = d_out * gamma and y = (x - mean) rstd:
 *   d_x = rstd (g - mean(g) - y mean(g y)), means over the row;
 *   d_gamma = sum of d_out y and d_beta = sum of d_out over the rows. Each block sums its rows, and
 *   add_partials adds the blocks: partials [blocks, 2, C].
 * d_x and d_residual may be the same memory: a lane reads what it then writes.
 *
 * The staged kernel touches memory once. A warp takes a row; while it works on one, the next is on
 * its way to shared memory. Registers hold the sums for d_gamma and d_beta alone, so that enough
 * warps are at work: the row and gamma are read from shared memory twice. */

template <typename T, int K> static constexpr int staged_bytes()
{
    return WARP * K * (int)sizeof(T) * (1 + N_WARPS * N_STAGES * N_STAGED);
}

/* How many a multiprocessor with 227 KB of shared memory holds. */
template <typename T, int K> static constexpr int resident_blocks()
{
    return sizeof(T) > 2 ? 2 : K <= 32 ? 4 : 3;
}

template <typename T, int K>
__global__ void __launch_bounds__(BACKWARD_THREADS, resident_blocks<T, K>())
    backward_staged(T *d_x, float *__restrict__ partials, const T *__restrict__ d_out,
                    const T *__restrict__ x, const float *__restrict__ mean,
                    const float *__restrict__ rstd, const T *__restrict__ gamma,
                    const T *d_residual, int64_t n_rows, int c)
{
    constexpr int N = pack_length<T>(), PACKS = K / N, SPAN = WARP * N, WIDTH = WARP * K;
    DIP_DYNAMIC_SHARED(memory);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    T *const weights = reinterpret_cast<T *>(memory); /* [WIDTH], zeros past C */
    T *const rows = weights + WIDTH + warp * N_STAGES * N_STAGED * WIDTH; /* of this warp */

    for (int column = threadIdx.x * N; column < WIDTH; column += BACKWARD_THREADS * N)
        *reinterpret_cast<pack<T, N> *>(weights + column) =
            column < c ? load_pack<T, N>(gamma + column) : zero_pack<T, N>();
    __syncthreads();

    /* A lane copies what it will read itself; no other lane has to wait for it. */
    const auto fetch = [&](int stage, int64_t row) {
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            const int column = p * SPAN + lane * N;
            const bool inside = row < n_rows && column < c;
            const int64_t at = inside ? row * c + column : 0;
            T *const to = rows + stage * N_STAGED * WIDTH + column;
            cp_async_16(to, d_out + at, inside);
            cp_async_16(to + WIDTH, x + at, inside);
            if (d_residual) cp_async_16(to + 2 * WIDTH, d_residual + at, inside);
        }
        cp_async_commit();
    };

    float sum_gamma[K], sum_beta[K];
    set_zero(sum_gamma);
    set_zero(sum_beta);
    const int64_t step = (int64_t)gridDim.x * N_WARPS;
    int64_t row = (int64_t)blockIdx.x * N_WARPS + warp;
    float next_mean = row < n_rows ? mean[row] : 0.0f, next_rstd = row < n_rows ? rstd[row] : 0.0f;
    fetch(0, row);
    for (int stage = 0; row < n_rows; row += step, stage ^= 1) {
        const int64_t next = row + step;
        const float row_mean = next_mean, row_rstd = next_rstd;
        fetch(stage ^ 1, next);
        if (next < n_rows) {
            next_mean = mean[next];
            next_rstd = rstd[next];
        }
        cp_async_wait<1>();
        const T *const staged = rows + stage * N_STAGED * WIDTH + lane * N;
        const T *const weight = weights + lane * N;

        float sum_g = 0.0f, sum_gy = 0.0f;
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            float d[N], value[N], scale[N];
            load_floats(d, staged + p * SPAN);
            load_floats(value, staged + WIDTH + p * SPAN);
            load_floats(scale, weight + p * SPAN);
#pragma unroll
            for (int i = 0; i < N; i++) {
                const float y = (value[i] - row_mean) * row_rstd, g = d[i] * scale[i];
                sum_g += g;
                sum_gy += g * y;
                sum_gamma[p * N + i] += d[i] * y;
                sum_beta[p * N + i] += d[i];
            }
        }
        const float mean_g = warp_sum(sum_g) / (float)c, mean_gy = warp_sum(sum_gy) / (float)c;
        __syncwarp(); /* what was read is read again, rather than kept in registers */
#pragma unroll
        for (int p = 0; p < PACKS; p++) {
            const int column = p * SPAN + lane * N;
            float d[N], value[N], scale[N], residual[N], result[N];
            if (column >= c) continue;
            load_floats(d, staged + p * SPAN);
            load_floats(value, staged + WIDTH + p * SPAN);
            load_floats(scale, weight + p * SPAN);
            set_zero(residual);
            if (d_residual) load_floats(residual, staged + 2 * WIDTH + p * SPAN);
#pragma unroll
            for (int i = 0; i < N; i++) {
                const float y = (value[i] - row_mean) * row_rstd, g = d[i] * scale[i];
                result[i] = row_rstd * (g - mean_g - y * mean_gy) + residual[i];
            }
            store_floats(d_x + row * c + column, result);
        }
    }
    cp_async_wait<0>();
    __syncthreads();

    /* The block's warps, in order; the rows are no longer needed. */
    float *const merged = reinterpret_cast<float *>(memory); /* [N_WARPS, 2, SPAN] */
    float *const mine = merged + warp * 2 * SPAN + lane * N;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
#pragma unroll
        for (int i = 0; i < N; i += 4) {
            const float *const g = sum_gamma + p * N + i, *const b = sum_beta + p * N + i;
            *reinterpret_cast<float4 *>(mine + i) = make_float4(g[0], g[1], g[2], g[3]);
            *reinterpret_cast<float4 *>(mine + SPAN + i) = make_float4(b[0], b[1], b[2], b[3]);
        }
        __syncthreads();
        for (int i = threadIdx.x; i < 2 * SPAN; i += BACKWARD_THREADS) {
            const int which = i / SPAN, column = p * SPAN + i % SPAN;
            float sum = 0.0f;
#pragma unroll
            for (int w = 0; w < N_WARPS; w++) sum += merged[w * 2 * SPAN + i];
            if (column < c) partials[((int64_t)blockIdx.x * 2 + which) * c + column] = sum;
        }
        __syncthreads();
    }
}

template <typename T, int N>
__global__ void __launch_bounds__(ROW_THREADS)
    backward_rows_any(T *d_x, const T *__restrict__ d_out, const T *__restrict__ x,
                      const float *__restrict__ mean, const float *__restrict__ rstd,
                      const T *__restrict__ gamma, const T *d_residual, int64_t n_rows, int64_t c)
{
    const int lane = threadIdx.x % WARP;
    const int64_t row = (int64_t)blockIdx.x * ROWS_A_BLOCK + threadIdx.x / WARP;
    if (row >= n_rows) return;
    const float row_mean = mean[row], row_rstd = rstd[row];
    float sum_g = 0.0f, sum_gy = 0.0f;
#pragma unroll 2
    for (int64_t column = lane * N; column < c; column += WARP * N) {
        float value[N], d[N], weight[N];
        load_floats(value, x + row * c + column);
        load_floats(d, d_out + row * c + column);
        load_floats(weight, gamma + column);
#pragma unroll
        for (int i = 0; i < N; i++) {
            const float g = d[i] * weight[i];
            sum_g += g;
            sum_gy += g * ((value[i] - row_mean) * row_rstd);
        }
    }
    const float mean_g = warp_sum(sum_g) / (float)c, mean_gy = warp_sum(sum_gy) / (float)c;
#pragma unroll 2
    for (int64_t column = lane * N; column < c; column += WARP * N) {
        float value[N], d[N], weight[N], residual[N], result[N];
        load_floats(value, x + row * c + column);
        load_floats(d, d_out + row * c + column);
        load_floats(weight, gamma + column);
        set_zero(residual);
        if (d_residual) load_floats(residual, d_residual + row * c + column);
#pragma unroll
        for (int i = 0; i < N; i++) {
            const float y = (value[i] - row_mean) * row_rstd;
            result[i] = row_rstd * (d[i] * weight[i] - mean_g - y * mean_gy) + residual[i];
        }
        store_floats(d_x + row * c + column, result);
    }
}

/* A lane owns N columns, a block's warps share its rows out. */
template <typename T, int N>
__global__ void __launch_bounds__(BACKWARD_THREADS)
    backward_columns_any(float *__restrict__ partials, const T *__restrict__ d_out,
                         const T *__restrict__ x, const float *__restrict__ mean,
                         const float *__restrict__ rstd, int64_t n_rows, int64_t c)
{
    constexpr int SPAN = WARP * N;
    __shared__ __align__(16) float merged[N_WARPS][2][SPAN];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int64_t first = (int64_t)blockIdx.y * SPAN, column = first + lane * N;
    float sum_gamma[N], sum_beta[N];
    set_zero(sum_gamma);
    set_zero(sum_beta);
    if (column < c) {
        for (int64_t row = (int64_t)blockIdx.x * N_WARPS + warp; row < n_rows;
             row += (int64_t)gridDim.x * N_WARPS) {
            float value[N], d[N];
            load_floats(value, x + row * c + column);
            load_floats(d, d_out + row * c + column);
#pragma unroll
            for (int i = 0; i < N; i++) {
                sum_gamma[i] += d[i] * ((value[i] - mean[row]) * rstd[row]);
                sum_beta[i] += d[i];
            }
        }
    }
#pragma unroll
    for (int i = 0; i < N; i++) {
        merged[warp][0][lane * N + i] = sum_gamma[i];
        merged[warp][1][lane * N + i] = sum_beta[i];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 2 * SPAN; i += BACKWARD_THREADS) {
        const int which = i / SPAN;
        float sum = 0.0f;
        for (int w = 0; w < N_WARPS; w++) sum += merged[w][which][i % SPAN];
        if (first + i % SPAN < c)
            partials[((int64_t)blockIdx.x * 2 + which) * c + first + i % SPAN] = sum;
    }
}

/* d_gamma and d_beta, side by side as 2 C columns: a lane owns a column, SHARES warps share the
 * blocks' partial sums out. */
enum { SHARES = 32 };

static __global__ void __launch_bounds__(SHARES *WARP)
    add_partials(float *__restrict__ d_gamma, float *__restrict__ d_beta,
                 const float *__restrict__ partials, int n_partials, int64_t c)
{
    __shared__ float shares[SHARES][WARP];
    const int lane = threadIdx.x % WARP, share = threadIdx.x / WARP;
    const int64_t column = (int64_t)blockIdx.x * WARP + lane;
    float sum = 0.0f;
    if (column < 2 * c) {
#pragma unroll 8
        for (int i = share; i < n_partials; i += SHARES) sum += partials[i * 2 * c + column];
    }
    shares[share][lane] = sum;
    __syncthreads();
    if (share != 0 || column >= 2 * c) return;
    float total = 0.0f;
#pragma unroll
    for (int i = 0; i < SHARES; i++) total += shares[i][lane];
    if (column < c)
        d_gamma[column] += total;
    else
        d_beta[column - c] += total;
}

template <typename T>
static dip_status backward(dip_exec *exec, void *d_x, float *d_gamma, float *d_beta,
                           const void *d_out, const void *x, const float *mean, const float *rstd,
                           const void *gamma, const void *d_residual, int64_t n_rows, int64_t c)
{
    constexpr int N = pack_length<T>();
    const cudaStream_t stream = dip_cuda_of(exec)->stream;
    const size_t n_bytes = dip_cuda_layernorm_workspace(exec, n_rows, c);
    const unsigned n_blocks = (unsigned)n_backward_blocks(n_rows);
    float *const partials = static_cast<float *>(exec->workspace);
    T *const to = static_cast<T *>(d_x);
    const T *const above = static_cast<const T *>(d_out), *const from = static_cast<const T *>(x);
    const T *const weights = static_cast<const T *>(gamma);
    const T *const residual = static_cast<const T *>(d_residual);
    if (n_rows == 0) return DIP_OK;
    if (n_bytes > exec->workspace_bytes)
        return dip_fail(DIP_NOMEM,
                        "layernorm_backward needs %zu bytes of workspace, the executor "
                        "has %zu",
                        n_bytes, exec->workspace_bytes);

    /* K of the staged kernel, 0 where it does not serve. */
    const int k = (int)ceil_div(c, 8 * WARP) * 8;
    const int64_t row_bytes = (int64_t)k * WARP * (int64_t)sizeof(T);
    const bool staged =
        rows_fit<N>(c, d_x, d_out, x, gamma, d_residual) && c <= WIDEST &&
        row_bytes * (1 + N_WARPS * N_STAGES * N_STAGED) <= dip_cuda_of(exec)->max_shared_bytes;

#define BACKWARD_CASE(K)                                                                           \
    case K:                                                                                        \
        DIP_TRY_CUDA(DIP_ALLOW_SHARED((backward_staged<T, K>), (staged_bytes<T, K>())));           \
        DIP_LAUNCH((backward_staged<T, K>), n_blocks, BACKWARD_THREADS, (staged_bytes<T, K>()),    \
                   stream)                                                                         \
        (to, partials, above, from, mean, rstd, weights, residual, n_rows, (int)c);                \
        break
#define BACKWARD_ANY(N)                                                                            \
    DIP_LAUNCH((backward_columns_any<T, N>), dim3(n_blocks, (unsigned)ceil_div(c, WARP *N)),       \
               BACKWARD_THREADS, 0, stream)                                                        \
    (partials, above, from, mean, rstd, n_rows, c);                                                \
    DIP_LAUNCH((backward_rows_any<T, N>), (unsigned)ceil_div(n_rows, ROWS_A_BLOCK), ROW_THREADS,   \
               0, stream)                                                                          \
    (to, above, from, mean, rstd, weights, residual, n_rows, c)

    switch (staged ? k : 0) {
        BACKWARD_CASE(8);
        BACKWARD_CASE(16);
        BACKWARD_CASE(24);
        BACKWARD_CASE(32);
        BACKWARD_CASE(40);
    default:
        if (rows_fit<N>(c, d_x, d_out, x, gamma, d_residual)) {
            BACKWARD_ANY(N);
        } else {
            BACKWARD_ANY(1);
        }
    }
#undef BACKWARD_CASE
#undef BACKWARD_ANY
    DIP_LAUNCH(add_partials, (unsigned)ceil_div(2 * c, WARP), SHARES * WARP, 0, stream)
    (d_gamma, d_beta, partials, (int)n_blocks, c);
    return DIP_CUDA_LAUNCHED(exec, "layernorm_backward", "[%lld, %lld]", (long long)n_rows,
                             (long long)c);
}

/* ---- in both types ------------------------------------------------------------------------ */

#define LAYERNORM(suffix, T)                                                                       \
    dip_status dip_cuda_layernorm_forward_##suffix(                                                \
        dip_exec *exec, void *out, float *mean, float *rstd, const void *x, const void *gamma,     \
        const void *beta, float eps, int64_t n_rows, int64_t c)                                    \
    {                                                                                              \
        return forward<T>(exec, out, mean, rstd, x, gamma, beta, eps, n_rows, c);                  \
    }                                                                                              \
    dip_status dip_cuda_layernorm_backward_##suffix(                                               \
        dip_exec *exec, void *d_x, float *d_gamma, float *d_beta, const void *d_out,               \
        const void *x, const float *mean, const float *rstd, const void *gamma,                    \
        const void *d_residual, int64_t n_rows, int64_t c)                                         \
    {                                                                                              \
        return backward<T>(exec, d_x, d_gamma, d_beta, d_out, x, mean, rstd, gamma, d_residual,    \
                           n_rows, c);                                                             \
    }
LAYERNORM(f32, float)
LAYERNORM(bf16, __nv_bfloat16)
