#include "kernels/cuda/access.cuh"

/* ---- images: forward ----------------------------------------------------------------------- */

/* A warp a row of out. */
template <typename T, int N>
__global__ void __launch_bounds__(ROW_THREADS)
    image_forward_rows(T *__restrict__ out, const T *__restrict__ patches,
                       const T *__restrict__ cls, const T *__restrict__ pos, int64_t n_rows,
                       int64_t n_tokens, int64_t c)
{
    const int lane = threadIdx.x % WARP;
    const int64_t row = (int64_t)blockIdx.x * ROWS_A_BLOCK + threadIdx.x / WARP;
    if (row >= n_rows) return;
    const int64_t image = row / n_tokens, token = row % n_tokens;
    const T *const first = token == 0 ? cls : patches + (row - image - 1) * c;
    const T *const second = pos + token * c;
    out += row * c;
#pragma unroll 4
    for (int64_t column = lane * N; column < c; column += WARP * N) {
        float a[N], b[N];
        load_floats(a, first + column);
        load_floats(b, second + column);
#pragma unroll
        for (int i = 0; i < N; i++) a[i] += b[i];
        store_floats(out + column, a);
    }
}

template <typename T>
static dip_status image_forward(dip_exec *exec, void *out, const void *patches, const void *cls,
                                const void *pos, int64_t n_images, int64_t n_patches, int64_t c)
{
    constexpr int N = pack_length<T>();
    const int64_t n_tokens = n_patches + 1, n_rows = n_images * n_tokens;
    const unsigned n_blocks = (unsigned)ceil_div(n_rows, ROWS_A_BLOCK);
    const cudaStream_t stream = dip_cuda_of(exec)->stream;
    T *const to = static_cast<T *>(out);
    const T *const from = static_cast<const T *>(patches);
    const T *const first = static_cast<const T *>(cls), *const add = static_cast<const T *>(pos);
    if (n_rows == 0) return DIP_OK;
    if (rows_fit<N>(c, out, patches, cls, pos))
        DIP_LAUNCH((image_forward_rows<T, N>), n_blocks, ROW_THREADS, 0, stream)
    (to, from, first, add, n_rows, n_tokens, c);
    else DIP_LAUNCH((image_forward_rows<T, 1>), n_blocks, ROW_THREADS, 0,
                    stream)(to, from, first, add, n_rows, n_tokens, c);
    return DIP_CUDA_LAUNCHED(exec, "image_embed_forward", "%lld images, [%lld, %lld]",
                             (long long)n_images, (long long)n_tokens, (long long)c);
}

/* ---- images: backward ---------------------------------------------------------------------- */

enum { SHARES = 16, SHARED_THREADS = SHARES * WARP };

/* The sum of a block's shares for column i of its span, in order. */
template <int SPAN>
__device__ __forceinline__ float add_shares(const float (&shares)[SHARES][SPAN], int i)
{
    float total = 0.0f;
#pragma unroll
    for (int share = 0; share < SHARES; share++) total += shares[share][i];
    return total;
}

/* A block a token and SPAN columns: its warps share the images out, copy d_patches and sum. */
template <typename T, int N>
__global__ void __launch_bounds__(SHARED_THREADS)
    image_backward_columns(T *__restrict__ d_patches, float *__restrict__ d_cls,
                           float *__restrict__ d_pos, const T *__restrict__ d_out, int64_t n_images,
                           int64_t n_tokens, int64_t c)
{
    constexpr int SPAN = WARP * N, AT_ONCE = 4;
    __shared__ __align__(16) float shares[SHARES][SPAN];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int64_t token = blockIdx.x, first = (int64_t)blockIdx.y * SPAN;
    const int64_t column = first + lane * N;
    float sum[N];
    set_zero(sum);
    for (int64_t image = warp; column < c && image < n_images; image += SHARES * AT_ONCE) {
        pack<T, N> values[AT_ONCE];
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
            const int64_t b = image + k * SHARES;
            values[k] = b < n_images ? load_pack<T, N>(d_out + (b * n_tokens + token) * c + column)
                                     : zero_pack<T, N>();
        }
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
            const int64_t b = image + k * SHARES;
            if (token > 0 && b < n_images)
                store_pack(d_patches + (b * (n_tokens - 1) + token - 1) * c + column, values[k]);
#pragma unroll
            for (int i = 0; i < N; i++) sum[i] += to_float(values[k].at[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < N; i++) shares[warp][lane * N + i] = sum[i];
    __syncthreads();
    for (int i = threadIdx.x; i < SPAN && first + i < c; i += SHARED_THREADS) {
        const float total = add_shares(shares, i);
        d_pos[token * c + first + i] += total;
        if (token == 0) d_cls[first + i] += total;
    }
}

template <typename T, int N>
static void launch_image_backward(dip_exec *exec, void *d_patches, float *d_cls, float *d_pos,
                                  const void *d_out, int64_t n_images, int64_t n_tokens, int64_t c)
{
    const dim3 grid((unsigned)n_tokens, (unsigned)ceil_div(c, WARP * N));
    DIP_LAUNCH((image_backward_columns<T, N>), grid, SHARED_THREADS, 0, dip_cuda_of(exec)->stream)
    (static_cast<T *>(d_patches), d_cls, d_pos, static_cast<const T *>(d_out), n_images, n_tokens,
     c);
}

template <typename T>
static dip_status image_backward(dip_exec *exec, void *d_patches, float *d_cls, float *d_pos,
                                 const void *d_out, int64_t n_images, int64_t n_patches, int64_t c)
{
    constexpr int N = pack_length<T>();
    const int64_t n_tokens = n_patches + 1;
    if (n_images == 0) return DIP_OK;
    if (rows_fit<N>(c, d_patches, d_out))
        launch_image_backward<T, N>(exec, d_patches, d_cls, d_pos, d_out, n_images, n_tokens, c);
    else
        launch_image_backward<T, 1>(exec, d_patches, d_cls, d_pos, d_out, n_images, n_tokens, c);
    return DIP_CUDA_LAUNCHED(exec, "image_embed_backward", "%lld images, [%lld, %lld]",
                             (long long)n_images, (long long)n_tokens, (long long)c);
}

/* ---- text: forward ------------------------------------------------------------------------- */

/* A block a sequence, a warp a row of it. */
template <typename T, int N>
__global__ void __launch_bounds__(ROW_THREADS)
    text_forward_rows(T *__restrict__ out, const int32_t *__restrict__ tokens,
                      const int32_t *__restrict__ offsets, const T *__restrict__ table,
                      const T *__restrict__ pos, int64_t c)
{
    const int lane = threadIdx.x % WARP;
    const int64_t begin = offsets[blockIdx.x], end = offsets[blockIdx.x + 1];
    for (int64_t row = begin + threadIdx.x / WARP; row < end; row += ROWS_A_BLOCK) {
        const T *const first = table + tokens[row] * c, *const second = pos + (row - begin) * c;
#pragma unroll 2
        for (int64_t column = lane * N; column < c; column += WARP * N) {
            float a[N], b[N];
            load_floats(a, first + column);
            load_floats(b, second + column);
#pragma unroll
            for (int i = 0; i < N; i++) a[i] += b[i];
            store_floats(out + row * c + column, a);
        }
    }
}

template <typename T>
static dip_status text_forward(dip_exec *exec, void *out, const int32_t *tokens,
                               const int32_t *offsets, const void *table, const void *pos,
                               int64_t n_sequences, int64_t n_rows, int64_t c)
{
    constexpr int N = pack_length<T>();
    const cudaStream_t stream = dip_cuda_of(exec)->stream;
    T *const to = static_cast<T *>(out);
    const T *const from = static_cast<const T *>(table), *const add = static_cast<const T *>(pos);
    if (n_sequences == 0 || n_rows == 0) return DIP_OK;
    if (rows_fit<N>(c, out, table, pos))
        DIP_LAUNCH((text_forward_rows<T, N>), (unsigned)n_sequences, ROW_THREADS, 0, stream)
    (to, tokens, offsets, from, add, c);
    else DIP_LAUNCH((text_forward_rows<T, 1>), (unsigned)n_sequences, ROW_THREADS, 0,
                    stream)(to, tokens, offsets, from, add, c);
    return DIP_CUDA_LAUNCHED(exec, "text_embed_forward", "%lld sequences, [%lld, %lld]",
                             (long long)n_sequences, (long long)n_rows, (long long)c);
}

/* ---- text: backward ------------------------------------------------------------------------ */

/* d_table, from rows sorted by token. `order` is cut into chunks of fixed length, a warp each (and
 * SPAN columns). A run of one token that lies in one chunk is added to the table at once. Of a run
 * that goes on, each chunk leaves its part in partials [chunks, 2, C]: [0] where the run came from
 * the chunk before, [1] where it began here. table_runs adds the parts, in order. */

enum { WIDE = 4, ROWS_AT_ONCE = 8 };

__device__ __forceinline__ int token_at(const int32_t *tokens, const int32_t *order, int64_t i)
{
    const int row = order[i];
    return row < 0 ? -1 : tokens[row];
}

template <int N> __device__ __forceinline__ void add_floats(float *to, const float (&x)[N])
{
    float sum[N];
    load_floats(sum, static_cast<const float *>(to));
#pragma unroll
    for (int i = 0; i < N; i++) sum[i] += x[i];
    store_floats(to, sum);
}

template <typename T, int N>
__global__ void __launch_bounds__(WARP)
    table_chunks(float *__restrict__ d_table, float *__restrict__ partials,
                 const T *__restrict__ d_out, const int32_t *__restrict__ tokens,
                 const int32_t *__restrict__ order, int64_t n_rows, int64_t chunk_rows, int64_t c)
{
    const int lane = threadIdx.x;
    const int64_t chunk = blockIdx.x, begin = chunk * chunk_rows;
    const int64_t end = begin + chunk_rows < n_rows ? begin + chunk_rows : n_rows;
    const int64_t column = ((int64_t)blockIdx.y * WARP + lane) * N;
    const bool inside = column < c;

    /* The run before goes on until another token comes. */
    int token = begin > 0 ? token_at(tokens, order, begin - 1) : -1;
    bool came_in = true;
    float sum[N];
    set_zero(sum);
    for (int64_t base = begin; base < end; base += WARP) {
        const int my_row = base + lane < end ? order[base + lane] : -1;
        const int my_token = my_row < 0 ? -1 : tokens[my_row];
        for (int group = 0; group < WARP; group += ROWS_AT_ONCE) {
            float values[ROWS_AT_ONCE][N];
#pragma unroll
            for (int i = 0; i < ROWS_AT_ONCE; i++) {
                const int row = __shfl_sync(ALL_LANES, my_row, group + i);
                set_zero(values[i]);
                if (row >= 0 && inside) load_floats(values[i], d_out + (int64_t)row * c + column);
            }
#pragma unroll
            for (int i = 0; i < ROWS_AT_ONCE; i++) {
                const int next = __shfl_sync(ALL_LANES, my_token, group + i);
                if (next != token) {
                    if (token >= 0 && inside) {
                        if (came_in)
                            store_floats(partials + chunk * 2 * c + column, sum);
                        else
                            add_floats(d_table + (int64_t)token * c + column, sum);
                    }
                    token = next;
                    came_in = false;
                    set_zero(sum);
                }
#pragma unroll
                for (int j = 0; j < N; j++) sum[j] += values[i][j];
            }
        }
    }
    if (token < 0 || !inside) return;
    if (came_in)
        store_floats(partials + chunk * 2 * c + column, sum);
    else if (end < n_rows && token_at(tokens, order, end) == token)
        store_floats(partials + (chunk * 2 + 1) * c + column, sum);
    else
        add_floats(d_table + (int64_t)token * c + column, sum);
}

/* The run that begins in this chunk and goes on, if there is one. */
template <int N>
__global__ void __launch_bounds__(WARP)
    table_runs(float *__restrict__ d_table, const float *__restrict__ partials,
               const int32_t *__restrict__ tokens, const int32_t *__restrict__ order,
               int64_t n_rows, int64_t chunk_rows, int64_t c)
{
    const int lane = threadIdx.x;
    const int64_t chunk = blockIdx.x, begin = chunk * chunk_rows, end = begin + chunk_rows;
    const int64_t column = ((int64_t)blockIdx.y * WARP + lane) * N;
    if (end >= n_rows) return;
    const int token = token_at(tokens, order, end - 1);
    if (token < 0 || token_at(tokens, order, end) != token) return;
    if (begin > 0 && token_at(tokens, order, begin - 1) == token) return;

    float sum[N];
    set_zero(sum);
    if (column < c) load_floats(sum, partials + (chunk * 2 + 1) * c + column);
    const int64_t n_chunks = gridDim.x;
    for (int64_t next = chunk + 1; next < n_chunks; next += WARP) {
        /* The table's chunks from `next` on that begin with the token: all of them in a row. */
        const bool mine =
            next + lane < n_chunks && token_at(tokens, order, (next + lane) * chunk_rows) == token;
        const int n_parts = __popc(__ballot_sync(ALL_LANES, mine));
#pragma unroll 8
        for (int i = 0; i < n_parts; i++) {
            if (column >= c) continue;
            float part[N];
            load_floats(part, partials + (next + i) * 2 * c + column);
#pragma unroll
            for (int j = 0; j < N; j++) sum[j] += part[j];
        }
        if (n_parts < WARP) break;
    }
    if (column < c) add_floats(d_table + (int64_t)token * c + column, sum);
}

/* d_pos: a block a position (and SPAN columns), whose warps share the sequences out. How long the
 * longest sequence is, only the device knows: the grid's blocks take positions in turn until one is
 * in no sequence. */
enum { MAX_POSITION_BLOCKS = 128 };

template <typename T, int N>
__global__ void __launch_bounds__(SHARED_THREADS)
    position_sums(float *__restrict__ d_pos, const T *__restrict__ d_out,
                  const int32_t *__restrict__ offsets, int64_t n_sequences, int64_t c)
{
    constexpr int SPAN = WARP * N;
    __shared__ __align__(16) float shares[SHARES][SPAN];
    __shared__ int counts[SHARES];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const int64_t first = (int64_t)blockIdx.y * SPAN, column = first + lane * N;
    for (int64_t position = blockIdx.x;; position += gridDim.x) {
        int count = 0;
        float sum[N];
        set_zero(sum);
        for (int64_t base = warp * WARP; base < n_sequences; base += SHARED_THREADS) {
            const int64_t sequence = base + lane;
            const int begin = sequence < n_sequences ? offsets[sequence] : 0;
            const int end = sequence < n_sequences ? offsets[sequence + 1] : 0;
            const unsigned there = __ballot_sync(ALL_LANES, end - begin > position);
            count += __popc(there);
            for (int group = 0; group < WARP; group += ROWS_AT_ONCE) {
                if ((there >> group & ((1u << ROWS_AT_ONCE) - 1)) == 0) continue;
                float values[ROWS_AT_ONCE][N];
#pragma unroll
                for (int i = 0; i < ROWS_AT_ONCE; i++) {
                    const int64_t row = __shfl_sync(ALL_LANES, begin, group + i) + position;
                    set_zero(values[i]);
                    if ((there >> (group + i) & 1u) && column < c)
                        load_floats(values[i], d_out + row * c + column);
                }
#pragma unroll
                for (int i = 0; i < ROWS_AT_ONCE; i++)
#pragma unroll
                    for (int j = 0; j < N; j++) sum[j] += values[i][j];
            }
        }
#pragma unroll
        for (int i = 0; i < N; i++) shares[warp][lane * N + i] = sum[i];
        if (lane == 0) counts[warp] = count;
        __syncthreads();
        int total_count = 0;
        for (int share = 0; share < SHARES; share++) total_count += counts[share];
        if (total_count == 0) return;
        for (int i = threadIdx.x; i < SPAN && first + i < c; i += SHARED_THREADS)
            d_pos[position * c + first + i] += add_shares(shares, i);
        __syncthreads();
    }
}

template <typename T, int N>
static dip_status launch_text_backward(dip_exec *exec, float *d_table, float *d_pos,
                                       const void *d_out, const int32_t *tokens,
                                       const int32_t *offsets, const int32_t *order,
                                       int64_t n_sequences, int64_t n_rows, int64_t c)
{
    dip_cuda *const cuda = dip_cuda_of(exec);
    const int64_t most_chunks = DIP_CUDA_PARTIALS_BYTES / (2 * c * (int64_t)sizeof(float));
    const T *const from = static_cast<const T *>(d_out);
    float *const partials = static_cast<float *>(cuda->partials);
    if (most_chunks == 0)
        return dip_fail(DIP_UNSUPPORTED, "text_embed_backward of %lld columns; at most %d",
                        (long long)c, DIP_CUDA_PARTIALS_BYTES / (2 * (int)sizeof(float)));
    const int64_t chunk_rows = ceil_div(ceil_div(n_rows, most_chunks), WARP) * WARP;
    const unsigned n_chunks = (unsigned)ceil_div(n_rows, chunk_rows);
    const unsigned n_spans = (unsigned)ceil_div(c, WARP * N);
    const unsigned n_positions =
        (unsigned)(n_rows < (int64_t)MAX_POSITION_BLOCKS ? n_rows : (int64_t)MAX_POSITION_BLOCKS);
    DIP_LAUNCH((table_chunks<T, N>), dim3(n_chunks, n_spans), WARP, 0, cuda->stream)
    (d_table, partials, from, tokens, order, n_rows, chunk_rows, c);
    DIP_LAUNCH((table_runs<N>), dim3(n_chunks, n_spans), WARP, 0, cuda->stream)
    (d_table, partials, tokens, order, n_rows, chunk_rows, c);
    DIP_LAUNCH((position_sums<T, N>), dim3(n_positions, n_spans), SHARED_THREADS, 0, cuda->stream)
    (d_pos, from, offsets, n_sequences, c);
    return DIP_CUDA_LAUNCHED(exec, "text_embed_backward", "%lld sequences, [%lld, %lld]",
                             (long long)n_sequences, (long long)n_rows, (long long)c);
}

template <typename T>
static dip_status text_backward(dip_exec *exec, float *d_table, float *d_pos, const void *d_out,
                                const int32_t *tokens, const int32_t *offsets, const int32_t *order,
                                int64_t n_sequences, int64_t n_rows, int64_t c)
{
    if (n_sequences == 0 || n_rows == 0) return DIP_OK;
    return rows_fit<WIDE>(c, d_table, d_out)
               ? launch_text_backward<T, WIDE>(exec, d_table, d_pos, d_out, tokens, offsets, order,
                                               n_sequences, n_rows, c)
               : launch_text_backward<T, 1>(exec, d_table, d_pos, d_out, tokens, offsets, order,
                                            n_sequences, n_rows, c);
}

/* ---- in both types ------------------------------------------------------------------------ */

#define EMBED(suffix, T)                                                                           \
    dip_status dip_cuda_image_embed_forward_##suffix(                                              \
        dip_exec *exec, void *out, const void *patches, const void *cls, const void *pos,          \
        int64_t n_images, int64_t n_patches, int64_t c)                                            \
    {                                                                                              \
        return image_forward<T>(exec, out, patches, cls, pos, n_images, n_patches, c);             \
    }                                                                                              \
    dip_status dip_cuda_image_embed_backward_##suffix(                                             \
        dip_exec *exec, void *d_patches, float *d_cls, float *d_pos, const void *d_out,            \
        int64_t n_images, int64_t n_patches, int64_t c)                                            \
    {                                                                                              \
        return image_backward<T>(exec, d_patches, d_cls, d_pos, d_out, n_images, n_patches, c);    \
    }                                                                                              \
    dip_status dip_cuda_text_embed_forward_##suffix(                                               \
        dip_exec *exec, void *out, const int32_t *tokens, const int32_t *offsets,                  \
        const void *table, const void *pos, int64_t n_sequences, int64_t n_rows, int64_t c)        \
    {                                                                                              \
        return text_forward<T>(exec, out, tokens, offsets, table, pos, n_sequences, n_rows, c);    \
    }                                                                                              \
    dip_status dip_cuda_text_embed_backward_##suffix(                                              \
        dip_exec *exec, float *d_table, float *d_pos, const void *d_out, const int32_t *tokens,    \
        const int32_t *offsets, const int32_t *order, int64_t n_sequences, int64_t n_rows,         \
        int64_t vocab, int64_t c)                                                                  \
    {                                                                                              \
        (void)vocab; /* tokens are below it */                                                     \
        return text_backward<T>(exec, d_table, d_pos, d_out, tokens, offsets, order, n_sequences,  \
                                n_rows, c);                                                        \
    }
EMBED(f32, float)
EMBED(bf16, __nv_bfloat16)
