#include "kernels/cuda/contrastive.cuh"

namespace contrastive
{
/* ---- before both passes ----------------------------------------------------------------- */

enum { COPY_THREADS = 256, LARGEST = 1 << 23 };

/* u (blockIdx.y 0) or v (1) to rows of T of `stride` elements, a pack a thread; the first block
 * makes the factors. ALIGNED: four floats of a row may be loaded at once. */
template <typename T, bool ALIGNED>
static __global__ void __launch_bounds__(COPY_THREADS)
    copy_features(T *__restrict__ u_out, T *__restrict__ v_out, float *__restrict__ factors,
                  const float *__restrict__ u, const float *__restrict__ v,
                  const float *__restrict__ log_scale, unsigned n_packs, int embed, int stride)
{
    constexpr int N = pack_length<T>();
    if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0) {
        const double scale = exp((double)log_scale[0]);
        factors[0] = (float)scale;
        factors[1] = (float)(scale * exp_base<T>::UNITS);
    }
    const unsigned index = blockIdx.x * COPY_THREADS + threadIdx.x, a_row = (unsigned)(stride / N);
    if (index >= n_packs) return;
    const int column = (int)(index % a_row) * N;
    const float *in = (blockIdx.y == 0 ? u : v) + (int64_t)(index / a_row) * embed + column;
    float x[N];
    if (ALIGNED && column + N <= embed) {
#pragma unroll
        for (int i = 0; i < N; i += 4) {
            const pack<float, 4> four = load_pack<float, 4>(in + i);
#pragma unroll
            for (int k = 0; k < 4; k++) x[i + k] = four.at[k];
        }
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) x[i] = column + i < embed ? in[i] : 0.0f;
    }
    store_floats((blockIdx.y == 0 ? u_out : v_out) + (int64_t)index * N, x);
}

enum { COUNT_THREADS = 128 };

/* 1 / |group of i|. */
static __global__ void __launch_bounds__(COUNT_THREADS)
    count_groups(float *__restrict__ inv_counts, const int32_t *__restrict__ group, int batch)
{
    __shared__ int32_t others[COUNT_THREADS];
    const int i = (int)blockIdx.x * COUNT_THREADS + (int)threadIdx.x;
    const int32_t own = i < batch ? group[i] : 0;
    int count = 0;
    for (int first = 0; first < batch; first += COUNT_THREADS) {
        const int n = batch - first < COUNT_THREADS ? batch - first : COUNT_THREADS;
        if ((int)threadIdx.x < n) others[threadIdx.x] = group[first + (int)threadIdx.x];
        __syncthreads();
        for (int j = 0; j < n; j++) count += others[j] == own;
        __syncthreads();
    }
    if (i < batch) inv_counts[i] = 1.0f / (float)count;
}

bool uses_large_tiles(const dip_exec *exec, int64_t batch)
{
    enum { OTHER_SHARED = 16 << 10 }; /* kernels have besides the tiles' */
    return exec->ops->dtype == DIP_BF16 && batch > SMALL &&
           dip_cuda_of(exec)->max_shared_bytes >= large_tile::SHARED_BYTES + OTHER_SHARED;
}

template <typename T> static int64_t padded_embed(int64_t embed)
{
    return padded(embed, STEP_BYTES / (int64_t)sizeof(T));
}

template <typename T>
static workspace<T> workspace_of(const dip_exec *exec, dip_contrastive_shape shape)
{
    const bool large = uses_large_tiles(exec, shape.batch);
    const int64_t tile_m = large ? (int64_t)large_tile::M : (int64_t)small_tile::M;
    const int64_t tile_n = large ? (int64_t)large_tile::N : (int64_t)small_tile::N;
    const int64_t batch = padded(shape.batch, PADDING);
    const int64_t band = batch < BAND ? batch : (int64_t)BAND;
    const int64_t side = batch < SIDE ? batch : (int64_t)SIDE;
    char *base = (char *)exec->workspace;
    size_t used = 0;
    const auto take = [&](int64_t n, size_t element_bytes) {
        char *at = base ? base + used : NULL;
        used += (size_t)padded(n * (int64_t)element_bytes, 128);
        return (void *)at;
    };

    workspace<T> out;
    out.stride = (int)padded_embed<T>(shape.embed);
    out.factors = (float *)take(2, sizeof(float));
    out.u = (T *)take(shape.batch * out.stride, sizeof(T));
    out.v = (T *)take(shape.batch * out.stride, sizeof(T));
    out.inv_counts = (float *)take(shape.batch, sizeof(float));
    const size_t common = used;
    out.running = (float2 *)take(batch, sizeof(float2));
    out.row_partials = (float2 *)take(batch / tile_n * band, sizeof(float2));
    out.column_partials = (float2 *)take(band / tile_m * batch, sizeof(float2));
    out.positives = (float *)take(batch / tile_n * band, sizeof(float));
    const size_t forward = used;
    used = common;
    out.gradients = (T *)take(side * side, sizeof(T));
    out.n_bytes = used > forward ? used : forward;
    return out;
}

template <typename T>
static size_t workspace_bytes(const dip_exec *exec, dip_contrastive_shape shape)
{
    /* A smaller batch may have smaller tiles, and more of them. */
    dip_contrastive_shape small = shape;
    small.batch = shape.batch < SMALL ? shape.batch : (int64_t)SMALL;
    const size_t bytes = workspace_of<T>(exec, shape).n_bytes;
    const size_t small_bytes = workspace_of<T>(exec, small).n_bytes;
    return bytes > small_bytes ? bytes : small_bytes;
}

template <typename T, bool ALIGNED>
static void launch_copy(cudaStream_t stream, const workspace<T> &out, const float *u,
                        const float *v, const float *log_scale, int64_t n_packs, int embed)
{
    const dim3 grid((unsigned)ceil_div(n_packs, COPY_THREADS), 2);
    DIP_LAUNCH((copy_features<T, ALIGNED>), grid, COPY_THREADS, 0, stream)
    (out.u, out.v, out.factors, u, v, log_scale, (unsigned)n_packs, embed, out.stride);
}

template <typename T>
dip_status prepare(dip_exec *exec, const char *op, workspace<T> *out, pair_rules *rules,
                   const float *u, const float *v, dip_contrastive_shape shape)
{
    const cudaStream_t stream = dip_cuda_of(exec)->stream;
    /* Indices are 32-bit. */
    const int64_t n_packs = shape.batch * ceil_div(padded_embed<T>(shape.embed), pack_length<T>());
    if (shape.batch > LARGEST || shape.embed > LARGEST || n_packs > UINT32_MAX)
        return dip_fail(DIP_UNSUPPORTED, "%s: a batch of %lld features of %lld is too large", op,
                        (long long)shape.batch, (long long)shape.embed);
    *out = workspace_of<T>(exec, shape);
    if (out->n_bytes > exec->workspace_bytes)
        return dip_fail(DIP_NOMEM, "%s needs %zu bytes of workspace, the executor has %zu", op,
                        out->n_bytes, exec->workspace_bytes);
    if (rows_fit<4>(shape.embed, u, v))
        launch_copy<T, true>(stream, *out, u, v, shape.log_scale, n_packs, (int)shape.embed);
    else
        launch_copy<T, false>(stream, *out, u, v, shape.log_scale, n_packs, (int)shape.embed);

    const bool grouped = shape.group && shape.duplicates != DIP_DUP_NEGATIVE;
    *rules = pair_rules{grouped ? shape.group : NULL,
                        grouped && shape.duplicates == DIP_DUP_POSITIVE, NULL, (int)shape.batch};
    if (!rules->positive) return DIP_OK;
    DIP_LAUNCH(count_groups, (unsigned)ceil_div(shape.batch, COUNT_THREADS), COUNT_THREADS, 0,
               stream)
    (out->inv_counts, shape.group, (int)shape.batch);
    rules->inv_counts = out->inv_counts;
    return DIP_OK;
}

template dip_status prepare<float>(dip_exec *, const char *, workspace<float> *, pair_rules *,
                                   const float *, const float *, dip_contrastive_shape);
template dip_status prepare<__nv_bfloat16>(dip_exec *, const char *, workspace<__nv_bfloat16> *,
                                           pair_rules *, const float *, const float *,
                                           dip_contrastive_shape);

/* ---- loss ------------------------------------------------------------------------------- */

static __global__ void __launch_bounds__(SUM_THREADS)
    mean_loss(double *__restrict__ loss, const float *__restrict__ row_lse,
              const float *__restrict__ col_lse, const float *__restrict__ target, int64_t batch)
{
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < batch; i += SUM_THREADS)
        sum += 0.5 * ((double)row_lse[i] + (double)col_lse[i]) - (double)target[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) loss[0] = batch > 0 ? sum / (double)batch : 0.0;
}

static dip_status mean(dip_exec *exec, double *loss, const float *row_lse, const float *col_lse,
                       const float *target, int64_t batch)
{
    DIP_LAUNCH(mean_loss, 1, SUM_THREADS, 0, dip_cuda_of(exec)->stream)
    (loss, row_lse, col_lse, target, batch);
    return DIP_CUDA_LAUNCHED(exec, "contrastive_loss", "[%lld]", (long long)batch);
}

} // namespace contrastive

/* ---- the ops ---------------------------------------------------------------------------- */

extern "C" {

size_t dip_cuda_contrastive_workspace(const dip_exec *exec, dip_contrastive_shape shape)
{
    return exec->ops->dtype == DIP_BF16 ? contrastive::workspace_bytes<__nv_bfloat16>(exec, shape)
                                        : contrastive::workspace_bytes<float>(exec, shape);
}

dip_status dip_cuda_contrastive_loss_f32(dip_exec *exec, double *loss, const float *row_lse,
                                         const float *col_lse, const float *target, int64_t batch)
{
    return contrastive::mean(exec, loss, row_lse, col_lse, target, batch);
}

dip_status dip_cuda_contrastive_loss_bf16(dip_exec *exec, double *loss, const float *row_lse,
                                          const float *col_lse, const float *target, int64_t batch)
{
    return contrastive::mean(exec, loss, row_lse, col_lse, target, batch);
}

} /* extern "C" */
