/* The only file that knows which backends were compiled in, and the CPU as a device. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/log.h"
#include "core/threads.h"
#include "kernels/cpu/reference.h"
#include "kernels/device.h"
#include "kernels/onednn/onednn.h"
#include "kernels/ops.h"

#ifdef DIPTYCH_CUDA
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/fp8.h"
#endif

enum { CPU_ALIGNMENT = 64, HUGE_PAGE_BYTES = 2 << 20, MAX_THREADS = 4096 };

/* ---- the CPU as a device ---------------------------------------------------------------- */

/* Large blocks start on a huge page: training walks gigabytes, and 4 KiB pages cost it TLB
 * misses. */
static dip_status cpu_allocate(const dip_device *device, void **out, size_t n_bytes)
{
    const bool large = n_bytes >= 2 * (size_t)HUGE_PAGE_BYTES;
    const size_t alignment = large ? HUGE_PAGE_BYTES : device->alignment;
    *out = NULL;
    if (n_bytes <= PTRDIFF_MAX - (alignment - 1)) {
        size_t rounded = (n_bytes + alignment - 1) & ~(alignment - 1);
        /* Nothing is booked as one line, so that NULL always means failure. */
        *out = aligned_alloc(alignment, rounded > 0 ? rounded : alignment);
        if (*out && large) madvise(*out, rounded, MADV_HUGEPAGE);
    }
    if (*out) return DIP_OK;
    return dip_fail(DIP_NOMEM, "cannot allocate %zu bytes on device %s", n_bytes, device->name);
}

static void cpu_release(const dip_device *device, void *pointer)
{
    (void)device;
    free(pointer);
}

static dip_status cpu_copy(dip_exec *exec, void *dst, const void *src, size_t n_bytes)
{
    (void)exec;
    if (n_bytes > 0) memmove(dst, src, n_bytes);
    return DIP_OK;
}

static dip_status cpu_zero(dip_exec *exec, void *dst, size_t n_bytes)
{
    (void)exec;
    if (n_bytes > 0) memset(dst, 0, n_bytes);
    return DIP_OK;
}

static dip_status cpu_allocate_host(const dip_device *device, void **out, size_t n_bytes)
{
    return cpu_allocate(device, out, n_bytes);
}

/* What the system says can be had without swapping. */
static dip_status cpu_memory(const dip_device *device, size_t *available, size_t *total)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char line[128];
    unsigned long long kib;
    (void)device;
    *total = (size_t)sysconf(_SC_PHYS_PAGES) * page;
    *available = (size_t)sysconf(_SC_AVPHYS_PAGES) * page;
    FILE *file = fopen("/proc/meminfo", "r");
    if (!file) return DIP_OK;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1) *available = (size_t)kib * 1024;
    fclose(file);
    return DIP_OK;
}

static dip_status cpu_synchronize(dip_exec *exec)
{
    (void)exec;
    return DIP_OK;
}

/* Steps do not overlap here: a slot is always free. */
static dip_status cpu_slot(dip_exec *exec, int slot)
{
    (void)exec, (void)slot;
    return DIP_OK;
}

static dip_status cpu_step_end(dip_exec *exec, int slot, void *host_dst, const void *device_src,
                               size_t n_bytes)
{
    (void)slot;
    return cpu_copy(exec, host_dst, device_src, n_bytes);
}

static const dip_device cpu_device = {
    .name = "cpu",
    .alignment = CPU_ALIGNMENT,
    .is_host = 1,
    .allocate = cpu_allocate,
    .release = cpu_release,
    .allocate_host = cpu_allocate_host,
    .release_host = cpu_release,
    .memory = cpu_memory,
    .upload = cpu_copy,
    .download = cpu_copy,
    .copy = cpu_copy,
    .zero = cpu_zero,
    .synchronize = cpu_synchronize,
    .stage_begin = cpu_slot,
    .stage = cpu_copy,
    .stage_end = cpu_slot,
    .step_end = cpu_step_end,
    .step_wait = cpu_slot,
};

/* ---- the backends ----------------------------------------------------------------------- */

static const dip_ops *reference_ops(dip_dtype dtype)
{
    return dtype == DIP_BF16 ? &dip_ops_reference_bf16 : &dip_ops_reference_f32;
}

typedef struct backend {
    const char *name;
    /* The device `ordinal`; NULL with a sentence when this machine has none. */
    const dip_device *(*device)(int ordinal);
    const dip_ops *(*ops)(dip_dtype dtype); /* NULL: this machine cannot run it */
    dip_status (*init)(dip_exec *exec);     /* or NULL: keeps no state */
    void (*free)(dip_exec *exec);
    const char *(*describe)(const dip_exec *exec);
    bool numbered; /* NAME:N names one of several devices */
    bool automatic;
} backend;

static const dip_device *the_cpu(int ordinal)
{
    (void)ordinal;
    return &cpu_device;
}

static const char *describe_cpu(const dip_exec *exec)
{
    (void)exec;
    return dip_cpu_isa_name();
}

static const char *describe_reference(const dip_exec *exec)
{
    (void)exec;
    return "plain C";
}

/* In the order `auto` tries them. */
static const backend backends[] = {
#ifdef DIPTYCH_CUDA
    {"cuda", dip_cuda_device, dip_cuda_ops, dip_cuda_exec_init, dip_cuda_exec_free,
     dip_cuda_describe, true, true},
#endif
    {"cpu", the_cpu, dip_onednn_ops, dip_onednn_exec_init, dip_onednn_exec_free, describe_cpu,
     false, true},
    {"reference", the_cpu, reference_ops, NULL, NULL, describe_reference, false, false},
};
enum { N_BACKENDS = sizeof backends / sizeof backends[0], MAX_ORDINAL = 999 };

/* The backend that `name` means, "auto" excepted, and its device's number. NULL with a sentence. */
static const backend *find_backend(dip_status *status, const char *name, int *ordinal)
{
    *ordinal = 0;
    for (int i = 0; i < N_BACKENDS; i++) {
        const size_t n = strlen(backends[i].name);
        if (strncmp(name, backends[i].name, n) != 0) continue;
        if (name[n] == '\0') return &backends[i];
        if (name[n] != ':' || !backends[i].numbered) continue;
        char *end;
        const long number = strtol(name + n + 1, &end, 10);
        if (name[n + 1] < '0' || name[n + 1] > '9' || *end || number > MAX_ORDINAL) break;
        *ordinal = (int)number;
        return &backends[i];
    }
#ifndef DIPTYCH_CUDA
    if (strncmp(name, "cuda", 4) == 0 && (name[4] == '\0' || name[4] == ':')) {
        *status = dip_fail(DIP_UNSUPPORTED,
                           "device \"%.64s\": this program was built without CUDA "
                           "(no nvcc was found when it was configured)",
                           name);
        return NULL;
    }
#endif
    *status =
        dip_fail(DIP_CONFIG,
                 "unknown device \"%.64s\": auto, cpu, cuda, cuda:N (N from 0) or reference", name);
    return NULL;
}

static dip_status open_backend(dip_exec *exec, const backend *found, int ordinal, dip_dtype dtype,
                               int n_threads)
{
    memset(exec, 0, sizeof *exec);
    exec->device = found->device(ordinal);
    if (!exec->device) return DIP_UNSUPPORTED;
    exec->ops = found->ops(dtype);
    exec->n_threads = n_threads > 0 ? n_threads : dip_core_count();
    dip_status status = DIP_OK;
    if (!exec->ops)
        status = dip_fail(DIP_UNSUPPORTED, "backend %s has no %s operations on this machine",
                          found->name, dip_dtype_name(dtype));
    else if (found->init)
        status = found->init(exec);
    if (status != DIP_OK) memset(exec, 0, sizeof *exec);
    return status;
}

dip_status dip_exec_open(dip_exec *exec, const char *name, dip_dtype dtype, int n_threads)
{
    dip_status status = DIP_UNSUPPORTED;
    int ordinal;
    memset(exec, 0, sizeof *exec);
    if (dtype != DIP_F32 && dtype != DIP_BF16)
        return dip_fail(DIP_CONFIG, "dtype %d is neither fp32 nor bf16", (int)dtype);
    if (n_threads < 0 || n_threads > MAX_THREADS)
        return dip_fail(DIP_CONFIG, "%d compute threads: 0 (all cores) to %d are possible",
                        n_threads, MAX_THREADS);
    if (strcmp(name, "auto") == 0) {
        for (int i = 0; i < N_BACKENDS && status == DIP_UNSUPPORTED; i++) {
            if (!backends[i].automatic) continue;
            status = open_backend(exec, &backends[i], 0, dtype, n_threads);
#ifdef DIPTYCH_CUDA
            /* A GPU that is there and cannot be used should not go unmentioned. */
            if (status == DIP_UNSUPPORTED && backends[i].numbered) {
                char *reason = strdup(dip_error());
                if (reason && dip_cuda_device_count() > 0)
                    dip_warn("the GPU is not used: %s", reason);
                free(reason);
            }
#endif
        }
        return status;
    }
    const backend *found = find_backend(&status, name, &ordinal);
    return found ? open_backend(exec, found, ordinal, dtype, n_threads) : status;
}

dip_status dip_device_check_name(const char *name)
{
    dip_status status = DIP_OK;
    int ordinal;
    if (strcmp(name, "auto") != 0) find_backend(&status, name, &ordinal);
    return status;
}

int dip_device_has_fast_bf16(const char *name)
{
#ifdef DIPTYCH_CUDA
    /* Every GPU that the backend accepts multiplies bf16 faster. */
    if (strncmp(name, "cuda", 4) == 0) return 1;
    if (strcmp(name, "auto") == 0 && dip_cuda_device_count() > 0) return 1;
#endif
    return strcmp(name, "reference") != 0 && dip_cpu_has_fast_bf16();
}

static const backend *backend_of(const dip_exec *exec)
{
    for (int i = 0; i < N_BACKENDS; i++)
        if (backends[i].ops(exec->ops->dtype) == exec->ops) return &backends[i];
    return NULL;
}

const char *dip_exec_describe(const dip_exec *exec)
{
    const backend *found = backend_of(exec);
    return found ? found->describe(exec) : "";
}

dip_status dip_exec_use_fp8(dip_exec *exec, const dip_fp8_weight *weights, int n_weights,
                            int64_t max_rows)
{
#ifdef DIPTYCH_CUDA
    if (!exec->device->is_host) return dip_cuda_use_fp8(exec, weights, n_weights, max_rows);
#endif
    (void)weights, (void)n_weights, (void)max_rows;
    return dip_fail(DIP_UNSUPPORTED,
                    "products in fp8 need an NVIDIA GPU of compute capability 8.9 or newer, not "
                    "device %s",
                    exec->device->name);
}

void dip_exec_pause_fp8(dip_exec *exec, int paused)
{
#ifdef DIPTYCH_CUDA
    if (!exec->device->is_host) dip_cuda_pause_fp8(exec, paused);
#endif
    (void)exec, (void)paused;
}

/* Two operands at a time: the weight or its input, and its input or the gradient of its output. */
size_t dip_fp8_workspace(const dip_fp8_weight *weights, int n_weights, int64_t max_rows)
{
    enum { ALIGNMENT = 256 };
    size_t most = 0;
    for (int i = 0; i < n_weights; i++) {
        const int64_t in = weights[i].c_in, out = weights[i].c_out;
        const int64_t first = (out > max_rows ? out : max_rows) * in;
        const int64_t second = max_rows * (in > out ? in : out);
        const size_t n_bytes = (size_t)(first + second) + 2 * (size_t)ALIGNMENT;
        if (n_bytes > most) most = n_bytes;
    }
    return most;
}

dip_status dip_exec_reserve(dip_exec *exec, size_t n_bytes)
{
    void *workspace;
    if (n_bytes <= exec->workspace_bytes) return DIP_OK;
    DIP_TRY(exec->device->synchronize(exec)); /* ops may still use the old one */
    DIP_TRY(exec->device->allocate(exec->device, &workspace, n_bytes));
    exec->device->release(exec->device, exec->workspace);
    exec->workspace = workspace;
    exec->workspace_bytes = n_bytes;
    return DIP_OK;
}

void dip_exec_close(dip_exec *exec)
{
    if (!exec->ops) return;
    const backend *found = backend_of(exec);
    exec->device->release(exec->device, exec->workspace);
    if (found && found->free) found->free(exec);
    memset(exec, 0, sizeof *exec);
}
