/* The only file that knows which backends were compiled in, and the CPU as a device. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/threads.h"
#include "kernels/cpu/reference.h"
#include "kernels/device.h"
#include "kernels/onednn/onednn.h"
#include "kernels/ops.h"

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

static const dip_device cpu_device = {
    .name = "cpu",
    .alignment = CPU_ALIGNMENT,
    .is_host = 1,
    .allocate = cpu_allocate,
    .release = cpu_release,
    .upload = cpu_copy,
    .download = cpu_copy,
    .copy = cpu_copy,
    .zero = cpu_zero,
};

/* ---- the backends ----------------------------------------------------------------------- */

static const dip_ops *reference_ops(dip_dtype dtype)
{
    return dtype == DIP_BF16 ? &dip_ops_reference_bf16 : &dip_ops_reference_f32;
}

typedef struct backend {
    const char *name;
    const dip_device *device;
    const dip_ops *(*ops)(dip_dtype dtype); /* NULL: this machine cannot run it */
    dip_status (*init)(dip_exec *exec);     /* or NULL: keeps no state */
    void (*free)(dip_exec *exec);
} backend;

/* In the order `auto` tries them. */
static const backend backends[] = {
    {"cpu", &cpu_device, dip_onednn_ops, dip_onednn_exec_init, dip_onednn_exec_free},
    {"reference", &cpu_device, reference_ops, NULL, NULL},
};
enum { N_BACKENDS = sizeof backends / sizeof backends[0] };

static dip_status open_backend(dip_exec *exec, const backend *found, dip_dtype dtype, int n_threads)
{
    memset(exec, 0, sizeof *exec);
    exec->ops = found->ops(dtype);
    exec->device = found->device;
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
    const int automatic = strcmp(name, "auto") == 0;
    memset(exec, 0, sizeof *exec);
    if (dtype != DIP_F32 && dtype != DIP_BF16)
        return dip_fail(DIP_CONFIG, "dtype %d is neither fp32 nor bf16", (int)dtype);
    if (n_threads < 0 || n_threads > MAX_THREADS)
        return dip_fail(DIP_CONFIG, "%d compute threads: 0 (all cores) to %d are possible",
                        n_threads, MAX_THREADS);
    for (int i = 0; i < N_BACKENDS; i++) {
        if (!automatic && strcmp(name, backends[i].name) != 0) continue;
        dip_status status = open_backend(exec, &backends[i], dtype, n_threads);
        if (status != DIP_UNSUPPORTED || !automatic || i + 1 == N_BACKENDS) return status;
    }
    return dip_fail(DIP_CONFIG, "unknown backend \"%.64s\": auto, cpu or reference", name);
}

dip_status dip_exec_reserve(dip_exec *exec, size_t n_bytes)
{
    void *workspace;
    if (n_bytes <= exec->workspace_bytes) return DIP_OK;
    DIP_TRY(exec->device->allocate(exec->device, &workspace, n_bytes));
    exec->device->release(exec->device, exec->workspace);
    exec->workspace = workspace;
    exec->workspace_bytes = n_bytes;
    return DIP_OK;
}

void dip_exec_close(dip_exec *exec)
{
    if (!exec->ops) return;
    for (int i = 0; i < N_BACKENDS; i++)
        if (backends[i].free && backends[i].ops(exec->ops->dtype) == exec->ops)
            backends[i].free(exec);
    exec->device->release(exec->device, exec->workspace);
    memset(exec, 0, sizeof *exec);
}
