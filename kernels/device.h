/* device.h - where tensors live and how bytes get there.
 *
 * A device is a table of functions; the CPU's are malloc and memcpy. Nothing above kernels/
 * dereferences a tensor: it calls ops, or downloads first.
 *
 * An executor (dip_exec) is one stream of work on a device: the op table it runs, scratch
 * memory booked in advance, and whatever the backend keeps (thread count, handles, cached
 * primitives). Several executors may share a device. One thread at a time per executor.   */
#ifndef DIP_KERNELS_DEVICE_H
#define DIP_KERNELS_DEVICE_H

#include <stddef.h>

#include "core/dtype.h"
#include "core/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dip_ops dip_ops;
typedef struct dip_exec dip_exec;

typedef struct dip_device {
    const char *name; /* "cpu", "cuda" */
    size_t alignment; /* of allocations, bytes */
    int is_host;      /* host code may dereference its pointers */
    dip_status (*allocate)(const struct dip_device *device, void **out, size_t n_bytes);
    void (*release)(const struct dip_device *device, void *pointer);
    /* Copies and fills are ordered with the ops of `exec`; upload and download return when
     * the host side may be reused or read. */
    dip_status (*upload)(dip_exec *exec, void *device_dst, const void *host_src, size_t n_bytes);
    dip_status (*download)(dip_exec *exec, void *host_dst, const void *device_src, size_t n_bytes);
    dip_status (*copy)(dip_exec *exec, void *dst, const void *src, size_t n_bytes);
    dip_status (*zero)(dip_exec *exec, void *dst, size_t n_bytes);
} dip_device;

struct dip_exec {
    const dip_ops *ops;
    const dip_device *device;
    int n_threads;   /* compute threads of a CPU backend; results do not depend on it */
    void *workspace; /* on the device; at least what the ops were planned to need */
    size_t workspace_bytes;
    void *state; /* the backend's own */
};

/* Backends in the order `auto` tries them are known to backend.c alone. `name`: "auto", "cpu"
 * (the fastest CPU backend), "reference" (plain C). n_threads 0 = all cores.
 * DIP_CONFIG: unknown name; DIP_UNSUPPORTED: not in this build or not on this machine. */
dip_status dip_exec_open(dip_exec *exec, const char *name, dip_dtype dtype, int n_threads);
/* Give the executor at least n_bytes of workspace (call again to grow; never inside a step). */
dip_status dip_exec_reserve(dip_exec *exec, size_t n_bytes);
void dip_exec_close(dip_exec *exec); /* a zeroed struct is fine */

/* Can matrix products in bf16 be expected to beat fp32 on this CPU? (--precision auto) */
int dip_cpu_has_fast_bf16(void);
/* Words on what the CPU backend will use, e.g. "amx-bf16", "avx512-bf16", "avx2". */
const char *dip_cpu_isa_name(void);

#ifdef __cplusplus
}
#endif
#endif
