/* Devices as the environment wants them, errors, and the checks of a launch. */
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "grid.h"
#include "poison.h"
#include "runtime.h"

namespace
{

using emulated::current_device;
using emulated::lock;
using emulated::result;
using emulated::usable;

constexpr int static_shared_bytes = 48 << 10;
constexpr int n_multiprocessors = 6; /* few, and not a power of two */

thread_local int device_of_thread;
thread_local cudaError_t last_error;

/* (device, kernel) -> what cudaFuncSetAttribute allowed. */
std::map<std::pair<int, const void *>, int> &allowed()
{
    static auto &all = *new std::map<std::pair<int, const void *>, int>();
    return all;
}

int driver_version()
{
    return (int)emulated::setting("DIPTYCH_EMULATED_DRIVER", CUDART_VERSION);
}

int n_devices()
{
    const long long n = emulated::setting("DIPTYCH_EMULATED_DEVICES", emulated::MAX_DEVICES);
    if (n < 0 || n > emulated::MAX_DEVICES) emulated::stop("DIPTYCH_EMULATED_DEVICES=%lld", n);
    return (int)n;
}

int compute_capability()
{
    return (int)emulated::setting("DIPTYCH_EMULATED_CAPABILITY", 90);
}

const struct {
    cudaError_t error;
    const char *name, *words;
} errors[] = {
#define EMULATED_ERROR(name, words)                                                                \
    {                                                                                              \
        name, #name, words                                                                         \
    }
    EMULATED_ERROR(cudaSuccess, "no error"),
    EMULATED_ERROR(cudaErrorInvalidValue, "invalid argument"),
    EMULATED_ERROR(cudaErrorMemoryAllocation, "out of memory"),
    EMULATED_ERROR(cudaErrorInitializationError, "initialization error"),
    EMULATED_ERROR(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    EMULATED_ERROR(cudaErrorInvalidDevicePointer, "invalid device pointer"),
    EMULATED_ERROR(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"),
    EMULATED_ERROR(cudaErrorInsufficientDriver,
                   "CUDA driver version is insufficient for CUDA runtime version"),
    EMULATED_ERROR(cudaErrorInvalidDeviceFunction, "invalid device function"),
    EMULATED_ERROR(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    EMULATED_ERROR(cudaErrorInvalidDevice, "invalid device ordinal"),
    EMULATED_ERROR(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    EMULATED_ERROR(cudaErrorNotReady, "device not ready"),
    EMULATED_ERROR(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    EMULATED_ERROR(cudaErrorLaunchFailure, "unspecified launch failure"),
    EMULATED_ERROR(cudaErrorStreamCaptureUnsupported,
                   "operation not permitted when stream is capturing"),
    EMULATED_ERROR(cudaErrorStreamCaptureInvalidated,
                   "operation failed due to a previous error during capture"),
    EMULATED_ERROR(cudaErrorStreamCaptureUnmatched, "capture was not initiated in this stream"),
    EMULATED_ERROR(cudaErrorStreamCaptureIsolation,
                   "dependency created on uncaptured work in another stream"),
    EMULATED_ERROR(cudaErrorStreamCaptureImplicit,
                   "operation would make the legacy stream depend on a capturing blocking stream"),
    EMULATED_ERROR(cudaErrorStreamCaptureWrongThread,
                   "attempt to terminate a thread-local capture sequence from another thread"),
    EMULATED_ERROR(cudaErrorUnknown, "unknown error"),
#undef EMULATED_ERROR
};

} // namespace

namespace emulated
{

std::unique_lock<std::recursive_mutex> lock()
{
    static std::recursive_mutex &mutex = *new std::recursive_mutex();
    return std::unique_lock<std::recursive_mutex>(mutex);
}

cudaError_t result(cudaError_t error)
{
    if (error != cudaSuccess && error != cudaErrorNotReady) last_error = error;
    return error;
}

long long setting(const char *name, long long otherwise)
{
    const char *text = std::getenv(name);
    if (!text || !*text) return otherwise;
    char *end;
    const long long value = std::strtoll(text, &end, 10);
    if (*end) stop("%s=%s is not a number", name, text);
    return value;
}

cudaError_t usable()
{
    if (driver_version() / 1000 < CUDART_VERSION / 1000) return cudaErrorInsufficientDriver;
    if (n_devices() == 0) return cudaErrorNoDevice;
    return cudaSuccess;
}

int current_device()
{
    return device_of_thread;
}

int max_shared_bytes_of(int)
{
    const int capability = compute_capability();
    if (capability >= 90) return (int)max_shared_bytes;
    if (capability == 80 || capability == 87) return 163 << 10;
    return capability >= 86 ? 99 << 10 : 64 << 10;
}

int allowed_shared_bytes(int device, const void *kernel)
{
    const auto found = allowed().find({device, kernel});
    return found == allowed().end() ? static_shared_bytes : found->second;
}

void launch(const char *name, const void *kernel, const geometry &shape,
            std::function<void()> thread)
{
    static uint64_t n_launches;
    const auto held = lock();
    const dim3 &grid = shape.grid, &block = shape.block;
    if (cudaError_t error = usable()) {
        result(error);
        return;
    }
    const uint64_t n_threads = (uint64_t)block.x * block.y * block.z;
    const uint64_t n_blocks = (uint64_t)grid.x * grid.y * grid.z;
    if (n_threads == 0 || n_threads > 1024 || block.x > 1024 || block.y > 1024 || block.z > 64 ||
        n_blocks == 0 || grid.x >= 1u << 31 || grid.y > 65535 || grid.z > 65535) {
        result(cudaErrorInvalidConfiguration);
        return;
    }
    if (n_blocks > UINT32_MAX) stop("kernel %s: a grid too large to emulate", name);
    /* Asked again when a recorded launch is replayed: the limit may have been lowered since. */
    const auto check = [device = current_device(), kernel, n_bytes = shape.shared_bytes] {
        return n_bytes > (size_t)allowed_shared_bytes(device, kernel) ? cudaErrorInvalidValue
                                                                      : cudaSuccess;
    };
    if (cudaError_t error = check()) {
        result(error);
        return;
    }
    kernel_launch made = {name, shape, std::move(thread), n_launches++};
    result(enqueue(
        shape.stream,
        [made] {
            run_grid(made);
            check_memory(made.name.c_str());
        },
        check));
}

} // namespace emulated

cudaError_t cudaFuncSetAttribute(const void *function, cudaFuncAttribute attribute, int value)
{
    const auto held = lock();
    if (cudaError_t error = usable()) return result(error);
    if (!function) return result(cudaErrorInvalidDeviceFunction);
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
        value > emulated::max_shared_bytes_of(current_device()))
        return result(cudaErrorInvalidValue);
    allowed()[{current_device(), function}] = value;
    return result(cudaSuccess);
}

/* ---- errors ----------------------------------------------------------------------------- */

cudaError_t cudaGetLastError(void)
{
    const cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError(void)
{
    return last_error;
}

const char *cudaGetErrorName(cudaError_t error)
{
    for (const auto &row : errors)
        if (row.error == error) return row.name;
    return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error)
{
    for (const auto &row : errors)
        if (row.error == error) return row.words;
    return "unrecognized error code";
}

/* ---- devices ---------------------------------------------------------------------------- */

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = driver_version();
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = 0;
    if (cudaError_t error = usable()) return result(error);
    *count = n_devices();
    return result(cudaSuccess);
}

cudaError_t cudaGetDevice(int *device)
{
    if (cudaError_t error = usable()) return result(error);
    *device = device_of_thread;
    return result(cudaSuccess);
}

cudaError_t cudaSetDevice(int device)
{
    if (cudaError_t error = usable()) return result(error);
    if (device < 0 || device >= n_devices()) return result(cudaErrorInvalidDevice);
    device_of_thread = device;
    return result(cudaSuccess);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device)
{
    if (cudaError_t error = usable()) return result(error);
    if (device < 0 || device >= n_devices()) return result(cudaErrorInvalidDevice);
    const int before = device_of_thread;
    size_t available, total;
    device_of_thread = device;
    const cudaError_t error = cudaMemGetInfo(&available, &total);
    device_of_thread = before;
    if (error != cudaSuccess) return error;
    *properties = {};
    std::snprintf(properties->name, sizeof properties->name, "emulated GPU");
    properties->totalGlobalMem = total;
    properties->sharedMemPerBlock = (size_t)static_shared_bytes;
    properties->sharedMemPerBlockOptin = (size_t)emulated::max_shared_bytes_of(device);
    properties->sharedMemPerMultiprocessor = properties->sharedMemPerBlockOptin + 1024;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = 1024;
    properties->maxThreadsPerMultiProcessor = 2048;
    properties->major = compute_capability() / 10;
    properties->minor = compute_capability() % 10;
    properties->multiProcessorCount = n_multiprocessors;
    properties->l2CacheSize = 50 << 20;
    return result(cudaSuccess);
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device)
{
    cudaDeviceProp properties;
    if (cudaError_t error = cudaGetDeviceProperties(&properties, device)) return error;
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
        *value = properties.maxThreadsPerBlock;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *value = (int)properties.sharedMemPerBlock;
        break;
    case cudaDevAttrWarpSize:
        *value = properties.warpSize;
        break;
    case cudaDevAttrMultiProcessorCount:
        *value = properties.multiProcessorCount;
        break;
    case cudaDevAttrL2CacheSize:
        *value = properties.l2CacheSize;
        break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
        *value = properties.maxThreadsPerMultiProcessor;
        break;
    case cudaDevAttrComputeCapabilityMajor:
        *value = properties.major;
        break;
    case cudaDevAttrComputeCapabilityMinor:
        *value = properties.minor;
        break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        *value = (int)properties.sharedMemPerMultiprocessor;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = (int)properties.sharedMemPerBlockOptin;
        break;
    default:
        return result(cudaErrorInvalidValue);
    }
    return result(cudaSuccess);
}
