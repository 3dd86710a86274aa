/* emulated_gpu.h - what the emulated CUDA headers call: threads of a block as fibers. */
#ifndef EMULATED_GPU_H
#define EMULATED_GPU_H

#include <cstddef>
#include <cstdint>
#include <functional>
#include <type_traits>

#include "cuda_runtime_api.h"
#include "vector_types.h"

namespace emulated
{

/* Say what is wrong and where (kernel, block, thread), what each lane of the warp is doing, and
 * abort. */
[[noreturn]] void stop(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A warp-wide call. Lanes that meet must be at the same one, with the same detail. */
struct call {
    const char *name, *file;
    int line, detail;
};

int lane_index();

/* Give `value` and return all lanes' values, until this lane's next warp-wide call. */
const uint64_t *exchange(const call &where, unsigned mask, uint64_t value);

/* Wait until all lanes have come, each with its operands; then `combine` has been run once on all
 * of them. */
void together(const call &where, void *operands, void (*combine)(void *const operands[32]));

void block_barrier(const char *file, int line);

/* cp.async: from the call until the wait that covers it the destination holds NaN. */
void copy_async(void *shared, const void *global, size_t n_bytes, bool valid, const char *file,
                int line);
void copy_commit();
void copy_wait(int n_groups_left);

unsigned char *dynamic_shared();

/* ---- launching -------------------------------------------------------------------------- */

struct geometry {
    dim3 grid, block;
    size_t shared_bytes;
    cudaStream_t stream;
};

/* A thread's body is `thread`. Enqueued; mistakes in the geometry are the thread's last error. */
void launch(const char *name, const void *kernel, const geometry &shape,
            std::function<void()> thread);

/* A number as a dim3; what does not fit becomes 0, which no launch accepts. */
inline dim3 extent(dim3 size)
{
    return size;
}
template <typename T> typename std::enable_if<std::is_integral<T>::value, dim3>::type extent(T size)
{
    return dim3(size > T(0) && (unsigned long long)size < (1ull << 31) ? (unsigned)size : 0u);
}

template <typename... P> struct launcher {
    const char *name;
    void (*kernel)(P...);
    geometry shape;
    void operator()(P... arguments) const
    {
        auto function = kernel;
        launch(name, reinterpret_cast<const void *>(kernel), shape,
               [function, arguments...]() { function(arguments...); });
    }
};

template <typename... P, typename G, typename B>
launcher<P...> prepare(const char *name, void (*kernel)(P...), G grid, B block, size_t shared_bytes,
                       cudaStream_t stream)
{
    return {name, kernel, {extent(grid), extent(block), shared_bytes, stream}};
}

} // namespace emulated

#endif
