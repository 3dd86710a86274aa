/* runtime.h - what the parts of the emulated runtime share.
 *
 * Threads: every entry of the API holds lock(); so one thread at a time runs kernels.
 * Errors:  result(error) notes the calling thread's last error and returns it.               */
#ifndef EMULATED_GPU_RUNTIME_H
#define EMULATED_GPU_RUNTIME_H

#include <functional>
#include <mutex>

#include "cuda_runtime_api.h"

namespace emulated
{

enum { MAX_DEVICES = 2 };

std::unique_lock<std::recursive_mutex> lock();
cudaError_t result(cudaError_t error);

/* An environment variable that holds a number. */
long long setting(const char *name, long long otherwise);

/* ---- devices: device.cc ----------------------------------------------------------------- */

/* cudaSuccess if there is a driver and a device. */
cudaError_t usable();
int current_device(); /* of this thread */
int max_shared_bytes_of(int device);
int allowed_shared_bytes(int device, const void *kernel);

/* ---- memory: memory.cc ------------------------------------------------------------------ */

/* The device whose live allocation contains all of the range; -1 if there is none. */
int device_of(const void *memory, size_t n_bytes);
/* Does any of the range lie where only devices may look? */
bool touches_device(const void *memory, size_t n_bytes);
/* The host may not look at device memory but while work runs. Nests. */
void open_memory();
void close_memory();
/* Fails if something has been written between allocations, and names who ran. */
void check_memory(const char *by);

/* ---- streams: stream.cc ----------------------------------------------------------------- */

/* Append to the stream's queue, or to the graph that it records. Stream 0 runs at once. If it is
 * recorded, every launch of the graph asks `check`, when there is one, and fails with its error. */
cudaError_t enqueue(cudaStream_t stream, std::function<void()> run,
                    std::function<cudaError_t()> check = nullptr);
/* Run all that has been put on the streams of a device; only_blocking: but not on those that were
 * created with cudaStreamNonBlocking. */
void run_device(int device, bool only_blocking);
/* For calls that are not allowed in a thread that is recording: breaks the recording. */
cudaError_t unless_recording();

} // namespace emulated

#endif
