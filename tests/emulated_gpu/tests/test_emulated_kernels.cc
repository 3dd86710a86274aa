/* The emulated threads, warps and instructions: right programs get right results in every order of
 * the threads, wrong ones are found out. */
#include "test_support.h"

#include "kernels/cuda/kernel.cuh"
#include "kernels/cuda/ptx.cuh"

namespace
{

enum { N_TRIES = 20 }; /* launches in which a race has to show once */
const char *const orders[] = {"forward", "reverse", "shuffle"};

void synchronize()
{
    CHECK_CUDA(cudaGetLastError());
    CHECK_CUDA(cudaDeviceSynchronize());
}

/* ---- where threads are ------------------------------------------------------------------ */

__global__ void positions(unsigned *out)
{
    const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    out[block * (blockDim.x * blockDim.y * blockDim.z) + thread] = block * 1000 + thread;
}

void test_positions(void **)
{
    for (const char *order : orders) {
        environment set("DIPTYCH_EMULATED_ORDER", order);
        device_array<unsigned> out(24 * 105);
        DIP_LAUNCH(positions, dim3(2, 3, 4), dim3(5, 7, 3), 0, 0)(out.at);
        synchronize();
        out.download();
        for (unsigned i = 0; i < 24 * 105; i++)
            assert_int_equal(out.host[i], i / 105 * 1000 + i % 105);
    }
}

/* ---- warps ------------------------------------------------------------------------------ */

struct shuffled {
    float up, down, index, across;
    double wide;
    unsigned ballot;
    int any, all;
};

__global__ void shuffles(shuffled *out, int width)
{
    const int lane = (int)threadIdx.x % WARP;
    const float x = (float)(threadIdx.x + 100);
    shuffled s;
    s.up = __shfl_up_sync(ALL_LANES, x, 3, width);
    s.down = __shfl_down_sync(ALL_LANES, x, 5, width);
    s.index = __shfl_sync(ALL_LANES, x, lane * 7 + 1, width);
    s.across = __shfl_xor_sync(ALL_LANES, x, 6, width);
    s.wide = __shfl_xor_sync(ALL_LANES, (double)x + 0.125, 1);
    s.ballot = __ballot_sync(ALL_LANES, lane % 3 == 0);
    s.any = __any_sync(ALL_LANES, lane == 31);
    s.all = __all_sync(ALL_LANES, lane < 31);
    out[threadIdx.x] = s;
}

void test_shuffles(void **)
{
    for (const char *order : orders) {
        for (int width = 1; width <= 32; width *= 2) {
            environment set("DIPTYCH_EMULATED_ORDER", order);
            device_array<shuffled> out(96);
            DIP_LAUNCH(shuffles, 1, 96, 0, 0)(out.at, width);
            synchronize();
            out.download();
            for (int i = 0; i < 96; i++) {
                const shuffled &s = out.host[(size_t)i];
                /* The segment of `width` lanes that i is in, and i's place there. */
                const int at = i % width, first = i - at;
                assert_float_equal(s.up, 100 + (at >= 3 ? i - 3 : i), 0);
                assert_float_equal(s.down, 100 + (at + 5 < width ? i + 5 : i), 0);
                assert_float_equal(s.index, 100 + first + (i % 32 * 7 + 1) % width, 0);
                /* Lanes of an earlier segment may be read, as the PTX ISA has it. */
                assert_float_equal(s.across, 100 + ((i ^ 6) < first + width ? i ^ 6 : i), 0);
                assert_float_equal(s.wide, 100.125 + (i ^ 1), 0);
                assert_int_equal(s.ballot, 0x49249249u);
                assert_int_equal(s.any, 1);
                assert_int_equal(s.all, 0);
            }
        }
    }
}

__global__ void diverged_lines()
{
    float x = 1;
    if (threadIdx.x < 7)
        x = __shfl_xor_sync(ALL_LANES, x, 1);
    else
        x = __shfl_xor_sync(ALL_LANES, x, 1);
    if (x == 0) __syncwarp();
}

__global__ void diverged_kinds()
{
    if (threadIdx.x % 2 == 0)
        __syncwarp();
    else
        __syncthreads();
}

__global__ void left_early()
{
    if (threadIdx.x == 40) return;
    __syncwarp();
}

__global__ void partial_mask()
{
    if (threadIdx.x < 16) __syncwarp(0xffffu);
}

__global__ void part_of_a_warp()
{
    __syncwarp();
}

__global__ void diverged_barrier()
{
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
}

void test_divergence_is_reported(void **)
{
    const char *const lanes = "the lanes of a warp are not at the same warp-wide call";
    for (const char *order : orders) {
        environment set("DIPTYCH_EMULATED_ORDER", order);
        expect_death(lanes, [] { DIP_LAUNCH(diverged_lines, 1, 32, 0, 0)(); });
        expect_death(lanes, [] { DIP_LAUNCH(diverged_kinds, 1, 32, 0, 0)(); });
        expect_death("threads 40 to 40: returned", [] { DIP_LAUNCH(left_early, 3, 64, 0, 0)(); });
        expect_death("mask 0xffff", [] { DIP_LAUNCH(partial_mask, 1, 32, 0, 0)(); });
        expect_death("a warp of 8 threads", [] { DIP_LAUNCH(part_of_a_warp, 1, 40, 0, 0)(); });
        expect_death("threads 32 to 63: at __syncthreads", [] {
            DIP_LAUNCH(diverged_barrier, 1, 64, 0, 0)();
        });
        expect_death("not at the same __syncthreads", [] {
            DIP_LAUNCH(diverged_barrier, 1, 64, 0, 0)();
        });
    }
}

__global__ void exchange_by_shared(int *out, bool wait)
{
    __shared__ int values[WARP];
    const int lane = (int)threadIdx.x;
    values[lane] = -1;
    __syncwarp();
    values[lane] = lane;
    if (wait) __syncwarp();
    out[lane] = values[WARP - 1 - lane];
}

/* Does it give the right result every time? */
bool exchange_works(bool wait)
{
    device_array<int> out(32);
    for (int i = 0; i < N_TRIES; i++) {
        DIP_LAUNCH(exchange_by_shared, 1, 32, 0, 0)(out.at, wait);
        synchronize();
        out.download();
        for (int lane = 0; lane < 32; lane++)
            if (out.host[(size_t)lane] != 31 - lane) return false;
    }
    return true;
}

void test_missing_syncwarp_shows(void **)
{
    for (const char *order : orders) {
        environment set("DIPTYCH_EMULATED_ORDER", order);
        assert_true(exchange_works(true));
        assert_false(exchange_works(false));
    }
}

/* ---- blocks ----------------------------------------------------------------------------- */

/* Each warp reads what another one has written; then all is overwritten. Some threads have left. */
__global__ void exchange_by_block(int *out, bool before, bool after)
{
    DIP_DYNAMIC_SHARED(bytes);
    int *values = reinterpret_cast<int *>(bytes);
    const int i = (int)threadIdx.x, n = (int)blockDim.x - WARP;
    if (i >= n) return;
    int sum = 0;
    for (int round = 0; round < 3; round++) {
        values[i] = round * 1000 + i;
        if (before) __syncthreads();
        sum += values[(i + WARP) % n];
        if (after) __syncthreads();
    }
    out[blockIdx.x * (unsigned)n + (unsigned)i] = sum;
}

bool block_exchange_works(bool before, bool after)
{
    enum { N = 128 };
    device_array<int> out(2 * N);
    for (int t = 0; t < N_TRIES; t++) {
        DIP_LAUNCH(exchange_by_block, 2, N + 32, N * 4, 0)(out.at, before, after);
        synchronize();
        out.download();
        for (int i = 0; i < 2 * N; i++)
            if (out.host[(size_t)i] != 3000 + 3 * ((i + 32) % N)) return false;
    }
    return true;
}

void test_missing_barrier_shows(void **)
{
    for (const char *order : orders) {
        environment set("DIPTYCH_EMULATED_ORDER", order);
        assert_true(block_exchange_works(true, true));
        assert_false(block_exchange_works(false, true));
        assert_false(block_exchange_works(true, false));
    }
}

__global__ void block_order(unsigned *order, unsigned *n)
{
    order[atomicAdd(n, 1u)] = blockIdx.x;
}

void test_orders(void **)
{
    enum { N = 50 };
    int n_ascending = 0, n_descending = 0;
    for (const char *order : orders) {
        environment set("DIPTYCH_EMULATED_ORDER", order);
        device_array<unsigned> blocks(N), n(1);
        DIP_LAUNCH(block_order, N, 1, 0, 0)(blocks.at, n.at);
        synchronize();
        blocks.download();
        bool ascending = true, descending = true;
        unsigned sum = 0;
        for (unsigned i = 0; i < N; i++) {
            ascending = ascending && blocks.host[i] == i;
            descending = descending && blocks.host[i] == N - 1 - i;
            sum += blocks.host[i];
        }
        assert_int_equal(sum, N * (N - 1) / 2);
        n_ascending += ascending;
        n_descending += descending;
    }
    assert_int_equal(n_ascending, 1);
    assert_int_equal(n_descending, 1);
}

/* ---- shared memory ---------------------------------------------------------------------- */

__global__ void touch_shared(float *out, size_t at, bool write)
{
    DIP_DYNAMIC_SHARED(bytes);
    float *values = reinterpret_cast<float *>(bytes);
    if (write) values[at] = 1;
    out[0] = values[0];
}

void test_shared_memory(void **)
{
    device_array<float> out(1);
    DIP_LAUNCH(touch_shared, 1, 1, 64, 0)(out.at, 0, false);
    synchronize();
    out.download();
    assert_true(std::isnan(out.host[0]));
    DIP_LAUNCH(touch_shared, 1, 1, 64, 0)(out.at, 15, true);
    synchronize();
    for (size_t n_bytes : {(size_t)4, (size_t)64, (size_t)(48 << 10)}) {
        /* The pattern without AddressSanitizer, its own words with it. */
        expect_death("emulated", [&] {
            DIP_LAUNCH(touch_shared, 1, 1, n_bytes, 0)(out.at, n_bytes / 4, true);
            cudaDeviceSynchronize();
        });
    }
}

void test_shared_memory_limits(void **)
{
    enum { MOST = 227 << 10 };
    device_array<float> out(1);
    DIP_LAUNCH(touch_shared, 1, 1, (48 << 10) + 4, 0)(out.at, 0, true);
    CHECK_CUDA_IS(cudaErrorInvalidValue, cudaGetLastError());
    CHECK_CUDA_IS(cudaErrorInvalidValue, DIP_ALLOW_SHARED(touch_shared, MOST + 1));
    CHECK_CUDA_IS(cudaErrorInvalidValue, cudaGetLastError());
    CHECK_CUDA(DIP_ALLOW_SHARED(touch_shared, MOST));
    DIP_LAUNCH(touch_shared, 1, 1, MOST, 0)(out.at, MOST / 4 - 1, true);
    synchronize();
    environment ampere("DIPTYCH_EMULATED_CAPABILITY", "80");
    CHECK_CUDA_IS(cudaErrorInvalidValue, DIP_ALLOW_SHARED(touch_shared, (163 << 10) + 1));
    CHECK_CUDA_IS(cudaErrorInvalidValue, cudaGetLastError());
    CHECK_CUDA(DIP_ALLOW_SHARED(touch_shared, 48 << 10));
}

void test_launch_errors(void **)
{
    device_array<unsigned> out(2048);
    const dim3 grids[] = {dim3(0), dim3(1, 65536), dim3(1, 1, 65536), dim3(1), dim3(1),
                          dim3(1), dim3(1)};
    const dim3 blocks[] = {dim3(1),    dim3(1),      dim3(1),       dim3(0),
                           dim3(1025), dim3(64, 32), dim3(1, 1, 65)};
    for (int i = 0; i < 7; i++) {
        DIP_LAUNCH(positions, grids[i], blocks[i], 0, 0)(out.at);
        CHECK_CUDA_IS(cudaErrorInvalidConfiguration, cudaGetLastError());
    }
    DIP_LAUNCH(positions, ((int64_t)1 << 32) + 1, 1, 0, 0)(out.at);
    CHECK_CUDA_IS(cudaErrorInvalidConfiguration, cudaGetLastError());
    DIP_LAUNCH(positions, 1, 1, 0, (cudaStream_t)&out)(out.at);
    CHECK_CUDA_IS(cudaErrorInvalidResourceHandle, cudaGetLastError());
    CHECK_CUDA(cudaGetLastError());
}

/* ---- cp.async --------------------------------------------------------------------------- */

enum async_mistake { NO_MISTAKE, NO_WAIT, WAIT_FOR_TOO_FEW, NO_COMMIT, OVERWRITTEN_TOO_EARLY };

/* A pipeline of two buffers: out[i] = in[i], zeros from n_valid on. One warp. */
__global__ void pipeline(float *out, const float *in, int n_tiles, int n_valid,
                         async_mistake mistake)
{
    DIP_DYNAMIC_SHARED(bytes);
    float *tiles = reinterpret_cast<float *>(bytes);
    const int lane = (int)threadIdx.x, width = 4 * WARP;
    for (int t = 0; t <= n_tiles; t++) {
        const int at = t * width + 4 * lane;
        if (t < n_tiles) {
            cp_async_16(tiles + t % 2 * width + 4 * lane, in + at, at < n_valid);
            if (mistake != NO_COMMIT) cp_async_commit();
        }
        if (t == 0) continue;
        if (mistake == WAIT_FOR_TOO_FEW)
            cp_async_wait<2>();
        else if (mistake != NO_WAIT && t < n_tiles)
            cp_async_wait<1>();
        else if (mistake != NO_WAIT)
            cp_async_wait<0>();
        __syncwarp();
        const float *tile = tiles + (t - 1) % 2 * width;
        for (int i = lane; i < width; i += WARP) out[(t - 1) * width + i] = tile[i];
        if (mistake != OVERWRITTEN_TOO_EARLY) __syncwarp();
    }
}

bool pipeline_works(async_mistake mistake)
{
    enum { N_TILES = 5, N = N_TILES * 128, N_VALID = 4 * 128 + 20 };
    device_array<float> in(N), out(N);
    for (int i = 0; i < N; i++) in.host[(size_t)i] = (float)(i + 1);
    in.upload();
    bool works = true;
    for (int t = 0; t < N_TRIES; t++) {
        DIP_LAUNCH(pipeline, 1, 32, 2 * 128 * 4, 0)(out.at, in.at, N_TILES, N_VALID, mistake);
        synchronize();
        out.download();
        for (int i = 0; i < N; i++)
            works = works && out.host[(size_t)i] == (i < N_VALID ? (float)(i + 1) : 0.0f);
    }
    return works;
}

/* Three groups and a copy of none, one waited for after the other; out [4] after each wait. */
__global__ void one_by_one(float *out, const float *in)
{
    DIP_DYNAMIC_SHARED(bytes);
    float *to = reinterpret_cast<float *>(bytes);
    auto look = [&](int time) {
        for (int i = 0; i < 4; i++) out[4 * time + i] = to[4 * i];
    };
    for (int i = 0; i < 4; i++) {
        cp_async_16(to + 4 * i, in, true);
        if (i < 3) cp_async_commit();
    }
    cp_async_wait<3>();
    look(0);
    cp_async_wait<2>();
    look(1);
    cp_async_wait<0>();
    look(2);
    cp_async_commit();
    cp_async_wait<0>();
    look(3);
}

void test_cp_async_groups(void **)
{
    const int n_there[] = {0, 1, 3, 4};
    device_array<float> in(4), out(16);
    in.host[0] = 1;
    in.upload();
    DIP_LAUNCH(one_by_one, 1, 1, 64, 0)(out.at, in.at);
    synchronize();
    out.download();
    for (int time = 0; time < 4; time++)
        for (int i = 0; i < 4; i++)
            assert_int_equal(out.host[(size_t)(4 * time + i)] == 1, i < n_there[time]);
}

__global__ void misaligned_copy(const float *in, int to, int from)
{
    DIP_DYNAMIC_SHARED(bytes);
    cp_async_16(bytes + to, reinterpret_cast<const unsigned char *>(in) + from, true);
}

void test_cp_async(void **)
{
    for (const char *order : orders) {
        environment set("DIPTYCH_EMULATED_ORDER", order);
        assert_true(pipeline_works(NO_MISTAKE));
        assert_false(pipeline_works(NO_WAIT));
        assert_false(pipeline_works(WAIT_FOR_TOO_FEW));
        assert_false(pipeline_works(NO_COMMIT));
        assert_false(pipeline_works(OVERWRITTEN_TOO_EARLY));
    }
    device_array<float> in(64);
    expect_death("cp.async to", [&] { DIP_LAUNCH(misaligned_copy, 1, 1, 64, 0)(in.at, 8, 0); });
    expect_death("cp.async from", [&] { DIP_LAUNCH(misaligned_copy, 1, 1, 64, 0)(in.at, 16, 4); });
}

/* ---- tensor cores ----------------------------------------------------------------------- */

/* The fragments as ptx.cuh describes them, loaded by hand. a [16][16], b [16][8], d [16][8]. */
__global__ void product_by_hand(float *d, const __nv_bfloat16 *a, const __nv_bfloat16 *b)
{
    const int lane = (int)threadIdx.x, g = lane / 4, t = lane % 4;
    auto two = [](__nv_bfloat16 low, __nv_bfloat16 high) {
        return (uint32_t)__bfloat16_as_ushort(low) | (uint32_t)__bfloat16_as_ushort(high) << 16;
    };
    auto of_a = [&](int row, int column) {
        return two(a[row * 16 + column], a[row * 16 + column + 1]);
    };
    auto of_b = [&](int row, int column) {
        return two(b[row * 8 + column], b[(row + 1) * 8 + column]);
    };
    const uint32_t fa[4] = {of_a(g, 2 * t), of_a(g + 8, 2 * t), of_a(g, 2 * t + 8),
                            of_a(g + 8, 2 * t + 8)};
    const uint32_t fb[2] = {of_b(2 * t, g), of_b(2 * t + 8, g)};
    float *at[4] = {&d[g * 8 + 2 * t], &d[g * 8 + 2 * t + 1], &d[(g + 8) * 8 + 2 * t],
                    &d[(g + 8) * 8 + 2 * t + 1]};
    float fd[4] = {*at[0], *at[1], *at[2], *at[3]};
    mma_bf16_16x8x16(fd, fa, fb);
    for (int i = 0; i < 4; i++) *at[i] = fd[i];
}

/* The same by ldmatrix: A as it lies; B transposed from its rows [16][8]. */
__global__ void product_by_ldmatrix(float *d, const __nv_bfloat16 *a, const __nv_bfloat16 *b)
{
    __shared__ __align__(16) __nv_bfloat16 sa[16][24], sb[16][8];
    const int lane = (int)threadIdx.x, g = lane / 4, t = lane % 4;
    for (int i = lane; i < 256; i += WARP) sa[i / 16][i % 16] = a[i];
    for (int i = lane; i < 128; i += WARP) sb[i / 8][i % 8] = b[i];
    __syncwarp();
    uint32_t fa[4], fb[2];
    /* Matrices (0,0), (8,0), (0,8), (8,8). */
    ldmatrix_x4(fa, &sa[lane % 16][lane / 16 * 8]);
    ldmatrix_x2_transposed(fb, sb[lane % 16]);
    float fd[4] = {d[g * 8 + 2 * t], d[g * 8 + 2 * t + 1], d[(g + 8) * 8 + 2 * t],
                   d[(g + 8) * 8 + 2 * t + 1]};
    mma_bf16_16x8x16(fd, fa, fb);
    d[g * 8 + 2 * t] = fd[0];
    d[g * 8 + 2 * t + 1] = fd[1];
    d[(g + 8) * 8 + 2 * t] = fd[2];
    d[(g + 8) * 8 + 2 * t + 1] = fd[3];
}

void test_mma(void **)
{
    for (int by_ldmatrix = 0; by_ldmatrix < 2; by_ldmatrix++) {
        device_array<__nv_bfloat16> a(256), b(128);
        device_array<float> d(128);
        uint32_t x = 12345;
        auto next = [&x] { /* small whole numbers: every sum is exact */
                           x = x * 1664525u + 1013904223u;
                           return (float)((int)(x >> 24) - 128);
        };
        for (auto &value : a.host) value = __float2bfloat16_rn(next());
        for (auto &value : b.host) value = __float2bfloat16_rn(next());
        for (auto &value : d.host) value = next();
        const std::vector<float> before = d.host;
        a.upload();
        b.upload();
        d.upload();
        if (by_ldmatrix)
            DIP_LAUNCH(product_by_ldmatrix, 1, 32, 0, 0)(d.at, a.at, b.at);
        else
            DIP_LAUNCH(product_by_hand, 1, 32, 0, 0)(d.at, a.at, b.at);
        synchronize();
        d.download();
        for (size_t i = 0; i < 16; i++)
            for (size_t j = 0; j < 8; j++) {
                float sum = before[i * 8 + j];
                for (size_t k = 0; k < 16; k++)
                    sum +=
                        __bfloat162float(a.host[i * 16 + k]) * __bfloat162float(b.host[k * 8 + j]);
                assert_float_equal(d.host[i * 8 + j], sum, 0);
            }
    }
}

/* Element (row, column) of matrix m is 64 m + 8 row + column. out [4 kinds][32][4]. */
__global__ void load_matrices(uint32_t *out)
{
    __shared__ __align__(16) uint16_t matrices[4][8][8];
    const int lane = (int)threadIdx.x;
    for (int i = lane; i < 256; i += WARP) matrices[i / 64][i / 8 % 8][i % 8] = (uint16_t)i;
    __syncwarp();
    const void *row = matrices[lane / 8][lane % 8];
    const void *row_of_two = lane < 16 ? row : nullptr; /* the others' addresses do not count */
    ldmatrix_x4(out + (0 * 32 + lane) * 4, row);
    ldmatrix_x4_transposed(out + (1 * 32 + lane) * 4, row);
    ldmatrix_x2(out + (2 * 32 + lane) * 4, row_of_two);
    ldmatrix_x2_transposed(out + (3 * 32 + lane) * 4, row_of_two);
}

__global__ void misaligned_matrices(uint32_t *out)
{
    DIP_DYNAMIC_SHARED(bytes);
    ldmatrix_x4(out + 4 * threadIdx.x, bytes + 8 * threadIdx.x);
}

void test_ldmatrix(void **)
{
    device_array<uint32_t> out(4 * 32 * 4);
    DIP_LAUNCH(load_matrices, 1, 32, 0, 0)(out.at);
    synchronize();
    out.download();
    for (unsigned kind = 0; kind < 4; kind++)
        for (unsigned lane = 0; lane < 32; lane++)
            for (unsigned m = 0; m < (kind < 2 ? 4u : 2u); m++) {
                const unsigned line = lane / 4, pair = lane % 4 * 2;
                const unsigned low = kind % 2 == 0 ? 8 * line + pair : 8 * pair + line;
                const unsigned high = kind % 2 == 0 ? low + 1 : low + 8;
                assert_int_equal(out.host[(kind * 32 + lane) * 4 + m],
                                 (64 * m + low) | (64 * m + high) << 16);
            }
    expect_death("not a multiple of 16 bytes", [&] {
        DIP_LAUNCH(misaligned_matrices, 1, 32, 1024, 0)(out.at);
    });
}

/* ---- numbers ---------------------------------------------------------------------------- */

void test_bf16(void **)
{
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        const float x = __bfloat162float(__ushort_as_bfloat16((unsigned short)bits));
        const unsigned short back = __bfloat16_as_ushort(__float2bfloat16_rn(x));
        assert_int_equal(back, std::isnan(x) ? 0x7fff : bits);
    }
    assert_int_equal(__bfloat16_as_ushort(__float2bfloat16_rn(1.00390625f)),
                     0x3f80); /* tie, even */
    assert_int_equal(__bfloat16_as_ushort(__float2bfloat16_rn(1.01171875f)), 0x3f82);
    const __nv_bfloat162 pair = __floats2bfloat162_rn(1, -2);
    assert_float_equal(__bfloat1622float2(pair).x, 1, 0);
    assert_float_equal(__bfloat1622float2(pair).y, -2, 0);
}

} // namespace

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(test_positions),
        cmocka_unit_test(test_shuffles),
        cmocka_unit_test(test_divergence_is_reported),
        cmocka_unit_test(test_missing_syncwarp_shows),
        cmocka_unit_test(test_missing_barrier_shows),
        cmocka_unit_test(test_orders),
        cmocka_unit_test(test_shared_memory),
        cmocka_unit_test(test_shared_memory_limits),
        cmocka_unit_test(test_launch_errors),
        cmocka_unit_test(test_cp_async),
        cmocka_unit_test(test_cp_async_groups),
        cmocka_unit_test(test_mma),
        cmocka_unit_test(test_ldmatrix),
        cmocka_unit_test(test_bf16),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
