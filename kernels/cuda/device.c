/* GPUs as devices: memory, copies, the slots of steps in flight, recorded graphs. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.h"

enum { ALIGNMENT = 256 }; /* what cudaMalloc promises */

struct dip_graph {
    cudaGraphExec_t exec;
};

dip_status dip_cuda_use(int ordinal)
{
    static _Thread_local int current = -1;
    if (ordinal == current) return DIP_OK;
    DIP_TRY_CUDA(cudaSetDevice(ordinal));
    current = ordinal;
    return DIP_OK;
}

/* What dip_cuda_of does too, with a sentence when it cannot be done. */
static dip_status use(const dip_exec *exec)
{
    return dip_cuda_use(exec->device->ordinal);
}

/* ---- memory ----------------------------------------------------------------------------- */

static dip_status memory(const dip_device *device, size_t *available, size_t *total)
{
    DIP_TRY(dip_cuda_use(device->ordinal));
    DIP_TRY_CUDA(cudaMemGetInfo(available, total));
    return DIP_OK;
}

static dip_status allocate(const dip_device *device, void **out, size_t n_bytes)
{
    *out = NULL;
    DIP_TRY(dip_cuda_use(device->ordinal));
    /* Nothing is booked as one byte, so that NULL always means failure. */
    cudaError_t error = cudaMalloc(out, n_bytes > 0 ? n_bytes : 1);
    if (error != cudaErrorMemoryAllocation)
        return dip_cuda_check(error, "cudaMalloc", __FILE__, __LINE__);
    cudaGetLastError(); /* it has been seen: the next launch is not to find it */
    *out = NULL;
    size_t available = 0, total = 0;
    DIP_TRY(memory(device, &available, &total));
    return dip_fail(DIP_NOMEM,
                    "cannot allocate %zu bytes on device %s: %zu of its %zu bytes are free",
                    n_bytes, device->name, available, total);
}

static void release(const dip_device *device, void *pointer)
{
    if (!pointer || dip_cuda_use(device->ordinal) != DIP_OK) return;
    cudaFree(pointer);
}

static dip_status allocate_host(const dip_device *device, void **out, size_t n_bytes)
{
    *out = NULL;
    DIP_TRY(dip_cuda_use(device->ordinal));
    cudaError_t error = cudaMallocHost(out, n_bytes > 0 ? n_bytes : 1);
    if (error != cudaErrorMemoryAllocation)
        return dip_cuda_check(error, "cudaMallocHost", __FILE__, __LINE__);
    cudaGetLastError();
    *out = NULL;
    return dip_fail(DIP_NOMEM, "cannot allocate %zu bytes of page-locked host memory", n_bytes);
}

static void release_host(const dip_device *device, void *pointer)
{
    if (!pointer || dip_cuda_use(device->ordinal) != DIP_OK) return;
    cudaFreeHost(pointer);
}

/* ---- copies in the order of the ops ------------------------------------------------------- */

static dip_status synchronize(dip_exec *exec)
{
    DIP_TRY(use(exec));
    DIP_TRY_CUDA(cudaStreamSynchronize(dip_cuda_of(exec)->stream));
    return DIP_OK;
}

static dip_status upload(dip_exec *exec, void *device_dst, const void *host_src, size_t n_bytes)
{
    if (n_bytes == 0) return DIP_OK;
    cudaStream_t stream = dip_cuda_of(exec)->stream;
    DIP_TRY(use(exec));
    DIP_TRY_CUDA(cudaMemcpyAsync(device_dst, host_src, n_bytes, cudaMemcpyHostToDevice, stream));
    return synchronize(exec);
}

static dip_status download(dip_exec *exec, void *host_dst, const void *device_src, size_t n_bytes)
{
    if (n_bytes == 0) return DIP_OK;
    cudaStream_t stream = dip_cuda_of(exec)->stream;
    DIP_TRY(use(exec));
    DIP_TRY_CUDA(cudaMemcpyAsync(host_dst, device_src, n_bytes, cudaMemcpyDeviceToHost, stream));
    return synchronize(exec);
}

static dip_status copy(dip_exec *exec, void *dst, const void *src, size_t n_bytes)
{
    if (n_bytes == 0) return DIP_OK;
    cudaStream_t stream = dip_cuda_of(exec)->stream;
    DIP_TRY(use(exec));
    DIP_TRY_CUDA(cudaMemcpyAsync(dst, src, n_bytes, cudaMemcpyDeviceToDevice, stream));
    return DIP_OK;
}

static dip_status zero(dip_exec *exec, void *dst, size_t n_bytes)
{
    if (n_bytes == 0) return DIP_OK;
    DIP_TRY(use(exec));
    DIP_TRY_CUDA(cudaMemsetAsync(dst, 0, n_bytes, dip_cuda_of(exec)->stream));
    return DIP_OK;
}

/* ---- slots ------------------------------------------------------------------------------ */

/* An event that was never recorded counts as past, so the first step of a slot waits for nothing.
 * A slot's inputs are overwritten only after `ended`. What is enqueued once stage_end has seen
 * `staged` reads them. */
static dip_status stage_begin(dip_exec *exec, int slot)
{
    dip_cuda *cuda = dip_cuda_of(exec);
    DIP_TRY(use(exec));
    DIP_TRY_CUDA(cudaStreamWaitEvent(cuda->copy_stream, cuda->ended[slot], 0));
    return DIP_OK;
}

static dip_status stage(dip_exec *exec, void *device_dst, const void *host_src, size_t n_bytes)
{
    if (n_bytes == 0) return DIP_OK;
    cudaStream_t stream = dip_cuda_of(exec)->copy_stream;
    DIP_TRY(use(exec));
    DIP_TRY_CUDA(cudaMemcpyAsync(device_dst, host_src, n_bytes, cudaMemcpyHostToDevice, stream));
    return DIP_OK;
}

static dip_status stage_end(dip_exec *exec, int slot)
{
    dip_cuda *cuda = dip_cuda_of(exec);
    DIP_TRY(use(exec));
    DIP_TRY_CUDA(cudaEventRecord(cuda->staged[slot], cuda->copy_stream));
    DIP_TRY_CUDA(cudaEventSynchronize(cuda->staged[slot]));
    return DIP_OK;
}

static dip_status step_end(dip_exec *exec, int slot, void *host_dst, const void *device_src,
                           size_t n_bytes)
{
    dip_cuda *cuda = dip_cuda_of(exec);
    DIP_TRY(use(exec));
    if (n_bytes > 0)
        DIP_TRY_CUDA(
            cudaMemcpyAsync(host_dst, device_src, n_bytes, cudaMemcpyDeviceToHost, cuda->stream));
    DIP_TRY_CUDA(cudaEventRecord(cuda->ended[slot], cuda->stream));
    return DIP_OK;
}

static dip_status step_wait(dip_exec *exec, int slot)
{
    DIP_TRY(use(exec));
    DIP_TRY_CUDA(cudaEventSynchronize(dip_cuda_of(exec)->ended[slot]));
    return DIP_OK;
}

/* ---- graphs ----------------------------------------------------------------------------- */

static dip_status capture_begin(dip_exec *exec)
{
    dip_cuda *cuda = dip_cuda_of(exec);
    DIP_TRY(use(exec));
    /* Other threads go on allocating page-locked memory meanwhile: only this one is watched. */
    DIP_TRY_CUDA(cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal));
    cuda->capturing = 1;
    return DIP_OK;
}

static dip_status capture_end(dip_exec *exec, dip_graph **graph)
{
    dip_cuda *cuda = dip_cuda_of(exec);
    cudaGraph_t recorded = NULL;
    *graph = NULL;
    DIP_TRY(use(exec));
    cuda->capturing = 0;
    DIP_TRY_CUDA(cudaStreamEndCapture(cuda->stream, &recorded));
    dip_graph *made = calloc(1, sizeof *made);
    dip_status status;
    if (made)
        status = dip_cuda_check(cudaGraphInstantiate(&made->exec, recorded, 0),
                                "cudaGraphInstantiate", __FILE__, __LINE__);
    else
        status = dip_fail(DIP_NOMEM, "no memory for a recorded step");
    cudaGraphDestroy(recorded);
    if (status == DIP_OK)
        *graph = made;
    else
        free(made);
    return status;
}

static dip_status graph_launch(dip_exec *exec, dip_graph *graph)
{
    dip_cuda *cuda = dip_cuda_of(exec);
    DIP_TRY(use(exec));
    DIP_TRY_CUDA(cudaGraphLaunch(graph->exec, cuda->stream));
    return cuda->sync_each_op ? synchronize(exec) : DIP_OK;
}

static void graph_free(dip_exec *exec, dip_graph *graph)
{
    if (!graph) return;
    if (use(exec) == DIP_OK) cudaGraphExecDestroy(graph->exec);
    free(graph);
}

/* ---- the table -------------------------------------------------------------------------- */

static dip_device devices[DIP_CUDA_MAX_DEVICES];
static char names[DIP_CUDA_MAX_DEVICES][16];

static void fill_devices(void)
{
    for (int i = 0; i < DIP_CUDA_MAX_DEVICES; i++) {
        snprintf(names[i], sizeof names[i], "cuda:%d", i);
        devices[i] = (dip_device){
            .name = names[i],
            .alignment = ALIGNMENT,
            .ordinal = i,
            .allocate = allocate,
            .release = release,
            .allocate_host = allocate_host,
            .release_host = release_host,
            .memory = memory,
            .upload = upload,
            .download = download,
            .copy = copy,
            .zero = zero,
            .synchronize = synchronize,
            .stage_begin = stage_begin,
            .stage = stage,
            .stage_end = stage_end,
            .step_end = step_end,
            .step_wait = step_wait,
            .capture_begin = capture_begin,
            .capture_end = capture_end,
            .graph_launch = graph_launch,
            .graph_free = graph_free,
        };
    }
}

const dip_device *dip_cuda_device_table(int ordinal)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill_devices);
    return &devices[ordinal];
}
