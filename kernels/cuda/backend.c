/* Finding GPUs, opening and closing executors, errors, and the op tables. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.h"

/* The oldest GPU there is code for: Ampere. */
enum { OLDEST_CAPABILITY = 80 };

/* ---- errors ----------------------------------------------------------------------------- */

/* A path of the source tree, however the compiler was given it. */
static const char *source_name(const char *file)
{
    const char *name = file, *at = file;
    while ((at = strstr(at, "kernels/"))) name = at++;
    return name;
}

dip_status dip_cuda_check(cudaError_t error, const char *call, const char *file, int line)
{
    if (error == cudaSuccess) return DIP_OK;
    cudaGetLastError(); /* it is told here: the next launch is not to find it again */
    return dip_fail(error == cudaErrorMemoryAllocation ? DIP_NOMEM : DIP_DEVICE,
                    "CUDA: %s: %s (%s:%d, %s)", call, cudaGetErrorString(error), source_name(file),
                    line, cudaGetErrorName(error));
}

dip_status dip_cuda_launched(dip_exec *exec, const char *op, const char *file, int line,
                             const char *sizes, ...)
{
    const dip_cuda *cuda = dip_cuda_of(exec);
    cudaError_t error = cudaGetLastError();
    if (error == cudaSuccess && cuda->sync_each_op && !cuda->capturing)
        error = cudaStreamSynchronize(cuda->stream);
    if (error == cudaSuccess) return DIP_OK;
    char text[256], call[384];
    va_list args;
    va_start(args, sizes);
    vsnprintf(text, sizeof text, sizes, args);
    va_end(args);
    snprintf(call, sizeof call, "%s %s %s", op, dip_dtype_name(exec->ops->dtype), text);
    return dip_cuda_check(error, call, file, line);
}

/* ---- which GPUs there are --------------------------------------------------------------- */

/* CUDA's 12020 is version 12.2. */
static const char *version_text(char text[16], int version)
{
    snprintf(text, 16, "%d.%d", version / 1000, version % 1000 / 10);
    return text;
}

static dip_status tell_driver(void)
{
    int driver = 0, runtime = 0;
    char has[16], needs[16];
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    version_text(needs, runtime);
    if (driver == 0)
        return dip_fail(DIP_UNSUPPORTED,
                        "no NVIDIA driver is installed (this program needs one for CUDA %s or "
                        "newer)",
                        needs);
    return dip_fail(DIP_UNSUPPORTED,
                    "the NVIDIA driver is too old: it is for CUDA %s, and this program needs CUDA "
                    "%s",
                    version_text(has, driver), needs);
}

static dip_status tell_no_device(void)
{
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    if (visible)
        return dip_fail(DIP_UNSUPPORTED,
                        "no NVIDIA GPU is visible (the driver is there, and CUDA_VISIBLE_DEVICES "
                        "is \"%.64s\")",
                        visible);
    return dip_fail(DIP_UNSUPPORTED, "no NVIDIA GPU was found (the driver is there)");
}

static dip_status count_devices(int *n)
{
    *n = 0;
    cudaError_t error = cudaGetDeviceCount(n);
    if (error == cudaSuccess && *n > 0) {
        if (*n > DIP_CUDA_MAX_DEVICES) *n = DIP_CUDA_MAX_DEVICES;
        return DIP_OK;
    }
    *n = 0;
    cudaGetLastError();
    if (error == cudaErrorInsufficientDriver) return tell_driver();
    if (error == cudaErrorNoDevice || error == cudaSuccess) return tell_no_device();
    return dip_cuda_check(error, "cudaGetDeviceCount", __FILE__, __LINE__);
}

static dip_status capability(int *out, int ordinal)
{
    int major = 0, minor = 0;
    DIP_TRY_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, ordinal));
    DIP_TRY_CUDA(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, ordinal));
    *out = 10 * major + minor;
    return DIP_OK;
}

static dip_status check_device(int ordinal)
{
    int capable = 0;
    DIP_TRY(capability(&capable, ordinal));
    if (capable >= OLDEST_CAPABILITY) return DIP_OK;
    struct cudaDeviceProp properties;
    DIP_TRY_CUDA(cudaGetDeviceProperties(&properties, ordinal));
    return dip_fail(DIP_UNSUPPORTED,
                    "device cuda:%d, %s, has compute capability %d.%d: %d.%d or newer is needed",
                    ordinal, properties.name, capable / 10, capable % 10, OLDEST_CAPABILITY / 10,
                    OLDEST_CAPABILITY % 10);
}

int dip_cuda_device_count(void)
{
    int n;
    if (count_devices(&n) != DIP_OK) return 0;
    /* The sentence about the first one stands when none can be used. */
    for (int i = n - 1; i >= 0; i--)
        if (check_device(i) == DIP_OK) return n;
    return 0;
}

const dip_device *dip_cuda_device(int ordinal)
{
    int n;
    if (count_devices(&n) != DIP_OK) return NULL;
    if (ordinal < 0 || ordinal >= n) {
        dip_fail(DIP_UNSUPPORTED, "no device cuda:%d: this machine has %d, counted from cuda:0",
                 ordinal, n);
        return NULL;
    }
    return check_device(ordinal) == DIP_OK ? dip_cuda_device_table(ordinal) : NULL;
}

/* ---- executors -------------------------------------------------------------------------- */

static dip_status describe_device(dip_cuda *cuda)
{
    const int ordinal = cuda->ordinal;
    struct cudaDeviceProp properties;
    DIP_TRY(dip_cuda_use(ordinal));
    DIP_TRY(capability(&cuda->compute_capability, ordinal));
    DIP_TRY_CUDA(
        cudaDeviceGetAttribute(&cuda->n_multiprocessors, cudaDevAttrMultiProcessorCount, ordinal));
    DIP_TRY_CUDA(cudaDeviceGetAttribute(&cuda->max_shared_bytes,
                                        cudaDevAttrMaxSharedMemoryPerBlockOptin, ordinal));
    DIP_TRY_CUDA(cudaGetDeviceProperties(&properties, ordinal));
    snprintf(cuda->name, sizeof cuda->name, "%s", properties.name);
    return DIP_OK;
}

/* Waiting threads sleep: the cores belong to the loader. */
static dip_status create_event(cudaEvent_t *event)
{
    DIP_TRY_CUDA(cudaEventCreateWithFlags(event, cudaEventDisableTiming | cudaEventBlockingSync));
    return DIP_OK;
}

static dip_status create_streams(dip_cuda *cuda)
{
    DIP_TRY_CUDA(cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking));
    DIP_TRY_CUDA(cudaStreamCreateWithFlags(&cuda->copy_stream, cudaStreamNonBlocking));
    for (int i = 0; i < DIP_N_SLOTS; i++) {
        DIP_TRY(create_event(&cuda->staged[i]));
        DIP_TRY(create_event(&cuda->ended[i]));
    }
    return DIP_OK;
}

dip_status dip_cuda_exec_init(dip_exec *exec)
{
    dip_status status;
    const char *sync = getenv("DIPTYCH_CUDA_SYNC");
    dip_cuda *cuda = calloc(1, sizeof *cuda);
    if (!cuda) return dip_fail(DIP_NOMEM, "no memory for an executor");
    exec->state = cuda;
    cuda->ordinal = exec->device->ordinal;
    cuda->sync_each_op = sync && strcmp(sync, "0") != 0;
    DIP_TRY_GOTO(describe_device(cuda));
    DIP_TRY_GOTO(create_streams(cuda));
    DIP_TRY_GOTO(exec->device->allocate(exec->device, &cuda->partials, DIP_CUDA_PARTIALS_BYTES));
    DIP_TRY_GOTO(dip_cuda_matmul_open(&cuda->matmul, cuda));
    return DIP_OK;
fail:
    dip_cuda_exec_free(exec);
    return status;
}

void dip_cuda_exec_free(dip_exec *exec)
{
    dip_cuda *cuda = exec->state;
    if (!cuda) return;
    if (dip_cuda_use(cuda->ordinal) == DIP_OK) {
        if (cuda->stream) cudaStreamSynchronize(cuda->stream);
        if (cuda->copy_stream) cudaStreamSynchronize(cuda->copy_stream);
        dip_cuda_matmul_close(cuda->matmul);
        exec->device->release(exec->device, cuda->partials);
        for (int i = 0; i < DIP_N_SLOTS; i++) {
            if (cuda->staged[i]) cudaEventDestroy(cuda->staged[i]);
            if (cuda->ended[i]) cudaEventDestroy(cuda->ended[i]);
        }
        if (cuda->copy_stream) cudaStreamDestroy(cuda->copy_stream);
        if (cuda->stream) cudaStreamDestroy(cuda->stream);
    }
    free(cuda);
    exec->state = NULL;
}

const char *dip_cuda_describe(const dip_exec *exec)
{
    return dip_cuda_of(exec)->name;
}

/* ---- the tables ------------------------------------------------------------------------- */

#define WORKSPACE_QUERIES                                                                          \
    .matmul_workspace = dip_cuda_matmul_workspace,                                                 \
    .attention_workspace = dip_cuda_attention_workspace,                                           \
    .layernorm_workspace = dip_cuda_layernorm_workspace,                                           \
    .contrastive_workspace = dip_cuda_contrastive_workspace

static const dip_ops ops_f32 = {
    .backend = "cuda",
    .dtype = DIP_F32,
#define ENTRY(name) .name = dip_cuda_##name##_f32,
    DIP_OPS(ENTRY)
#undef ENTRY
        WORKSPACE_QUERIES,
};

static const dip_ops ops_bf16 = {
    .backend = "cuda",
    .dtype = DIP_BF16,
#define ENTRY(name) .name = dip_cuda_##name##_bf16,
    DIP_OPS(ENTRY)
#undef ENTRY
        WORKSPACE_QUERIES,
};

const dip_ops *dip_cuda_ops(dip_dtype dtype)
{
    if (dtype == DIP_F32) return &ops_f32;
    return dtype == DIP_BF16 ? &ops_bf16 : NULL;
}
