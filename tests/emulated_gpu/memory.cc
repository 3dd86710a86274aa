/* Device memory: for each device a range of addresses of which the host may touch nothing, but for
 * the time in which queued work runs. New memory holds NaN; between allocations are guards.
 *
 * A protection key opens and closes the ranges in a few cycles, and for the running thread alone;
 * where the CPU has none, mprotect does it, slowly and for all threads.                        */
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <sys/mman.h>
#include <unistd.h>

#include "emulated_gpu.h"
#include "grid.h"
#include "poison.h"
#include "runtime.h"

namespace
{

using emulated::stop;

constexpr size_t range_bytes = (size_t)64 << 30, alignment = 256, guard_bytes = 256;
constexpr size_t granularity = 512; /* in which memory is counted */
constexpr size_t max_filled_bytes = 8u
                                    << 20; /* so that a test of limits does not take all memory */
constexpr size_t default_bytes = (size_t)1 << 30;

size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

struct device_memory {
    unsigned char *base;
    size_t open_bytes; /* from base: what has been in use */
    size_t used_bytes;
    std::map<unsigned char *, size_t> blocks;
};

struct all_memory {
    device_memory devices[emulated::MAX_DEVICES];
    std::set<void *> host_blocks;
    int key;    /* protection key, or -1 */
    int n_open; /* depth of open_memory */
};

void report_leaks();

all_memory &memory()
{
    static all_memory *const all = [] {
        all_memory *made = new all_memory();
        made->key = pkey_alloc(0, PKEY_DISABLE_ACCESS);
        for (device_memory &device : made->devices) {
            void *base = mmap(nullptr, range_bytes, PROT_NONE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (base == MAP_FAILED) stop("no address range for device memory");
            device.base = static_cast<unsigned char *>(base);
        }
        std::atexit(report_leaks);
        return made;
    }();
    return *all;
}

void report_leaks()
{
    size_t n_blocks = memory().host_blocks.size();
    for (const device_memory &device : memory().devices) n_blocks += device.blocks.size();
    if (n_blocks == 0) return;
    std::fprintf(stderr, "emulated GPU: %zu allocations were never freed\n", n_blocks);
    std::fflush(nullptr);
    _exit(1);
}

void set_access(bool open)
{
    if (memory().key >= 0) {
        pkey_set(memory().key, open ? 0 : PKEY_DISABLE_ACCESS);
        return;
    }
    for (const device_memory &device : memory().devices)
        if (device.open_bytes > 0 && mprotect(device.base, device.open_bytes,
                                              open ? PROT_READ | PROT_WRITE : PROT_NONE) != 0)
            stop("mprotect of device memory");
}

/* Let the first n_bytes of a device be in use. */
void grow(device_memory &device, size_t n_bytes)
{
    n_bytes = round_up(n_bytes, (size_t)sysconf(_SC_PAGESIZE));
    if (n_bytes <= device.open_bytes) return;
    if (pkey_mprotect(device.base, n_bytes, PROT_READ | PROT_WRITE, memory().key) != 0)
        stop("mprotect of device memory");
    if (device.open_bytes == 0) emulated::make_guard(device.base, guard_bytes);
    device.open_bytes = n_bytes;
}

/* What a block takes up, with the guard behind it. */
size_t spaced(size_t n_bytes)
{
    return round_up(n_bytes + guard_bytes, alignment);
}

size_t total_bytes()
{
    const long long total = emulated::setting("DIPTYCH_EMULATED_MEMORY", default_bytes);
    if (total < 0 || (size_t)total > range_bytes / 2) stop("DIPTYCH_EMULATED_MEMORY=%lld", total);
    return (size_t)total;
}

/* The first gap that is large enough. The first guard lies before the first block. */
unsigned char *place(const device_memory &device, size_t n_bytes)
{
    unsigned char *at = device.base + round_up(guard_bytes, alignment);
    for (const auto &block : device.blocks) {
        if ((size_t)(block.first - at) >= spaced(n_bytes)) return at;
        at = block.first + spaced(block.second);
    }
    return at;
}

} // namespace

namespace emulated
{

int device_of(const void *pointer, size_t n_bytes)
{
    unsigned char *start = static_cast<unsigned char *>(const_cast<void *>(pointer));
    for (int d = 0; d < MAX_DEVICES; d++) {
        const auto &blocks = memory().devices[d].blocks;
        auto after = blocks.upper_bound(start);
        if (after == blocks.begin()) continue;
        const auto &block = *--after;
        const size_t offset = (size_t)(start - block.first);
        if (offset <= block.second && n_bytes <= block.second - offset) return d;
    }
    return -1;
}

bool touches_device(const void *pointer, size_t n_bytes)
{
    const uintptr_t start = (uintptr_t)pointer;
    for (const device_memory &device : memory().devices) {
        const uintptr_t base = (uintptr_t)device.base;
        if (start < base + range_bytes && base < start + n_bytes) return true;
    }
    return false;
}

void open_memory()
{
    if (memory().n_open++ == 0) set_access(true);
}

void close_memory()
{
    if (--memory().n_open == 0) set_access(false);
}

void check_memory(const char *by)
{
    for (const device_memory &device : memory().devices) {
        if (device.open_bytes > 0 && damage(device.base, guard_bytes) >= 0)
            stop("%s has written before all memory", by);
        for (const auto &block : device.blocks) {
            const long at = damage(block.first + block.second, spaced(block.second) - block.second);
            if (at >= 0)
                stop("%s has written %ld bytes beyond the end of an allocation of %zu bytes", by,
                     at, block.second);
        }
    }
}

} // namespace emulated

using namespace emulated;

cudaError_t cudaMalloc(void **pointer, size_t n_bytes)
{
    const auto held = lock();
    if (cudaError_t error = usable()) return result(error);
    if (cudaError_t error = unless_recording()) return result(error);
    device_memory &device = memory().devices[current_device()];
    *pointer = nullptr;
    if (n_bytes == 0) return result(cudaSuccess);
    if (n_bytes > total_bytes() ||
        round_up(n_bytes, granularity) + device.used_bytes > total_bytes())
        return result(cudaErrorMemoryAllocation);
    unsigned char *block = place(device, n_bytes);
    const size_t end = (size_t)(block - device.base) + spaced(n_bytes);
    if (end > range_bytes) return result(cudaErrorMemoryAllocation);
    device.blocks[block] = n_bytes;
    device.used_bytes += round_up(n_bytes, granularity);
    open_memory();
    grow(device, end);
    remove_guard(block, n_bytes);
    fill_poison(block, std::min(n_bytes, max_filled_bytes));
    make_guard(block + n_bytes, spaced(n_bytes) - n_bytes);
    close_memory();
    *pointer = block;
    return result(cudaSuccess);
}

cudaError_t cudaFree(void *pointer)
{
    const auto held = lock();
    if (!pointer) return result(cudaSuccess);
    if (cudaError_t error = unless_recording()) return result(error);
    const int d = device_of(pointer, 0);
    if (d < 0) return result(cudaErrorInvalidValue);
    device_memory &device = memory().devices[d];
    const auto found = device.blocks.find(static_cast<unsigned char *>(pointer));
    if (found == device.blocks.end()) return result(cudaErrorInvalidValue);
    run_device(d, false);
    const size_t n_bytes = found->second, page = (size_t)sysconf(_SC_PAGESIZE);
    device.blocks.erase(found);
    device.used_bytes -= round_up(n_bytes, granularity);
    open_memory();
    const uintptr_t first = round_up((uintptr_t)pointer, page);
    const uintptr_t last = ((uintptr_t)pointer + n_bytes) / page * page;
    if (last > first) madvise(reinterpret_cast<void *>(first), last - first, MADV_DONTNEED);
    make_guard(pointer, std::min(n_bytes, max_filled_bytes));
    close_memory();
    return result(cudaSuccess);
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *total)
{
    const auto held = lock();
    if (cudaError_t error = usable()) return result(error);
    const size_t used = memory().devices[current_device()].used_bytes;
    *total = total_bytes();
    *available = *total > used ? *total - used : 0;
    return result(cudaSuccess);
}

cudaError_t cudaHostAlloc(void **pointer, size_t n_bytes, unsigned flags)
{
    const auto held = lock();
    *pointer = nullptr;
    if (cudaError_t error = usable()) return result(error);
    if (cudaError_t error = unless_recording()) return result(error);
    if (flags > 7) return result(cudaErrorInvalidValue);
    if (n_bytes == 0) return result(cudaSuccess);
    void *block = nullptr;
    if (n_bytes > SIZE_MAX / 2 || posix_memalign(&block, alignment, n_bytes) != 0)
        return result(cudaErrorMemoryAllocation);
    fill_poison(block, std::min(n_bytes, max_filled_bytes));
    memory().host_blocks.insert(block);
    *pointer = block;
    return result(cudaSuccess);
}

cudaError_t cudaMallocHost(void **pointer, size_t n_bytes)
{
    return cudaHostAlloc(pointer, n_bytes, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void *pointer)
{
    const auto held = lock();
    if (!pointer) return result(cudaSuccess);
    if (cudaError_t error = unless_recording()) return result(error);
    if (memory().host_blocks.erase(pointer) == 0) return result(cudaErrorInvalidValue);
    for (int d = 0; d < MAX_DEVICES; d++) run_device(d, false);
    std::free(pointer);
    return result(cudaSuccess);
}

/* ---- copies and fills --------------------------------------------------------------------- */

namespace
{

cudaError_t check_copy(void *dst, const void *src, size_t n_bytes, cudaMemcpyKind kind)
{
    const bool to_device = touches_device(dst, n_bytes), from_device = touches_device(src, n_bytes);
    switch (kind) {
    case cudaMemcpyHostToHost:
    case cudaMemcpyHostToDevice:
    case cudaMemcpyDeviceToHost:
    case cudaMemcpyDeviceToDevice:
        if (to_device != (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice) ||
            from_device != (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice))
            return cudaErrorInvalidValue;
        break;
    case cudaMemcpyDefault:
        break;
    default:
        return cudaErrorInvalidMemcpyDirection;
    }
    if (to_device && device_of(dst, n_bytes) < 0) return cudaErrorInvalidValue;
    if (from_device && device_of(src, n_bytes) < 0) return cudaErrorInvalidValue;
    return cudaSuccess;
}

void run_copy(void *dst, const void *src, size_t n_bytes, cudaMemcpyKind kind)
{
    if (check_copy(dst, src, n_bytes, kind) != cudaSuccess)
        stop("memory was freed before it was copied");
    const uintptr_t to = (uintptr_t)dst, from = (uintptr_t)src;
    if (to < from + n_bytes && from < to + n_bytes) stop("a copy between ranges that overlap");
    std::memcpy(dst, src, n_bytes);
}

void run_fill(void *dst, int value, size_t n_bytes)
{
    if (device_of(dst, n_bytes) < 0) stop("memory was freed before it was filled");
    std::memset(dst, value, n_bytes);
}

} // namespace

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t n_bytes, cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    const auto held = lock();
    if (cudaError_t error = usable()) return result(error);
    if (n_bytes == 0) return result(cudaSuccess);
    if (cudaError_t error = check_copy(dst, src, n_bytes, kind)) return result(error);
    return result(enqueue(stream, [=] { run_copy(dst, src, n_bytes, kind); }));
}

cudaError_t cudaMemsetAsync(void *dst, int value, size_t n_bytes, cudaStream_t stream)
{
    const auto held = lock();
    if (cudaError_t error = usable()) return result(error);
    if (n_bytes == 0) return result(cudaSuccess);
    if (device_of(dst, n_bytes) < 0) return result(cudaErrorInvalidValue);
    return result(enqueue(stream, [=] { run_fill(dst, value, n_bytes); }));
}

cudaError_t cudaMemcpy(void *dst, const void *src, size_t n_bytes, cudaMemcpyKind kind)
{
    const auto held = lock();
    if (cudaError_t error = unless_recording()) return result(error);
    return cudaMemcpyAsync(dst, src, n_bytes, kind, nullptr);
}

cudaError_t cudaMemset(void *dst, int value, size_t n_bytes)
{
    const auto held = lock();
    if (cudaError_t error = unless_recording()) return result(error);
    return cudaMemsetAsync(dst, value, n_bytes, nullptr);
}
