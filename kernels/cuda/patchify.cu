#include "kernels/cuda/access.cuh"

/* One row of patches of one image. A thread takes GROUP neighbouring pixels of a patch's row, which
 * are 3 GROUP bytes in a row, and writes GROUP values to each of the three channels' planes.
 * Threads go along the patches as they lie in `out`, so writes are coalesced; the bytes are few,
 * and what a warp leaves of a sector the next one finds in the cache. A byte has few values: a
 * block normalises each once. */

enum { N_BYTES = 256, PATCHIFY_THREADS = N_BYTES, N_CHANNELS = 3, BLOCKS_A_MULTIPROCESSOR = 8 };

typedef struct normalisation {
    float mean[N_CHANNELS], std[N_CHANNELS];
} normalisation;

template <typename T, int GROUP>
__global__ void __launch_bounds__(PATCHIFY_THREADS)
    patchify_rows(T *__restrict__ out, const uint8_t *__restrict__ images, normalisation by,
                  int64_t n_patch_rows, int width, int patch)
{
    __shared__ T normal[N_CHANNELS][N_BYTES];
    const float unit = (float)threadIdx.x / 255.0f; /* a thread a byte */
#pragma unroll
    for (int channel = 0; channel < N_CHANNELS; channel++)
        normal[channel][threadIdx.x] = from_float<T>((unit - by.mean[channel]) / by.std[channel]);
    __syncthreads();

    const int groups_across = patch / GROUP, groups_of_patch = groups_across * patch;
    const int n_groups = width / patch * groups_of_patch;
    const int64_t plane = (int64_t)patch * patch;
    for (int64_t patch_row = blockIdx.x; patch_row < n_patch_rows; patch_row += gridDim.x) {
        const uint8_t *const from = images + patch_row * patch * width * N_CHANNELS;
        T *const to = out + patch_row * patch * width * N_CHANNELS;
#pragma unroll 2
        for (int group = threadIdx.x; group < n_groups; group += PATCHIFY_THREADS) {
            const int column = group / groups_of_patch, inside = group % groups_of_patch;
            const int y = inside / groups_across, x = inside % groups_across * GROUP;
            const uint8_t *const pixels =
                from + ((int64_t)y * width + column * patch + x) * N_CHANNELS;
            uint8_t bytes[N_CHANNELS * GROUP];
#pragma unroll
            for (int part = 0; part < N_CHANNELS; part++) {
                const pack<uint8_t, GROUP> some = load_pack<uint8_t, GROUP>(pixels + part * GROUP);
#pragma unroll
                for (int i = 0; i < GROUP; i++) bytes[part * GROUP + i] = some.at[i];
            }
#pragma unroll
            for (int channel = 0; channel < N_CHANNELS; channel++) {
                T *const row = to + (column * N_CHANNELS + channel) * plane + y * patch + x;
                constexpr int STORED = GROUP < pack_length<T>() ? GROUP : pack_length<T>();
#pragma unroll
                for (int first = 0; first < GROUP; first += STORED) {
                    pack<T, STORED> values;
#pragma unroll
                    for (int i = 0; i < STORED; i++)
                        values.at[i] = normal[channel][bytes[(first + i) * N_CHANNELS + channel]];
                    store_pack(row + first, values);
                }
            }
        }
    }
}

template <typename T, int GROUP>
static void launch(dip_exec *exec, void *out, const uint8_t *images, const normalisation &by,
                   dip_image_shape shape)
{
    const int64_t n_patch_rows = shape.n_images * (shape.height / shape.patch);
    const int64_t resident =
        (int64_t)dip_cuda_of(exec)->n_multiprocessors * BLOCKS_A_MULTIPROCESSOR;
    const unsigned n_blocks = (unsigned)(n_patch_rows < resident ? n_patch_rows : resident);
    DIP_LAUNCH((patchify_rows<T, GROUP>), n_blocks, PATCHIFY_THREADS, 0, dip_cuda_of(exec)->stream)
    (static_cast<T *>(out), images, by, n_patch_rows, shape.width, shape.patch);
}

template <typename T>
static dip_status patchify(dip_exec *exec, void *out, const uint8_t *images, const float mean[3],
                           const float std[3], dip_image_shape shape)
{
    normalisation by;
    for (int i = 0; i < N_CHANNELS; i++) {
        by.mean[i] = mean[i];
        by.std[i] = std[i];
    }
    if (shape.n_images == 0 || shape.height == 0 || shape.width == 0) return DIP_OK;
    if (shape.patch % 8 == 0 && aligned(out, images))
        launch<T, 8>(exec, out, images, by, shape);
    else if (shape.patch % 2 == 0 && aligned(out, images))
        launch<T, 2>(exec, out, images, by, shape);
    else
        launch<T, 1>(exec, out, images, by, shape);
    return DIP_CUDA_LAUNCHED(exec, "patchify", "%lld images of %d x %d, patches of %d",
                             (long long)shape.n_images, shape.height, shape.width, shape.patch);
}

/* ---- in both types ------------------------------------------------------------------------ */

#define PATCHIFY(suffix, T)                                                                        \
    dip_status dip_cuda_patchify_##suffix(dip_exec *exec, void *out, const uint8_t *images,        \
                                          const float mean[3], const float std[3],                 \
                                          dip_image_shape shape)                                   \
    {                                                                                              \
        return patchify<T>(exec, out, images, mean, std, shape);                                   \
    }
PATCHIFY(f32, float)
PATCHIFY(bf16, __nv_bfloat16)
