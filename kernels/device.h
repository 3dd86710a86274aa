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
#include <stdint.h>

#include "core/dtype.h"
#include "core/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dip_ops dip_ops;
typedef struct dip_exec dip_exec;

typedef struct dip_graph dip_graph; /* a recorded sequence of ops */

/* Steps overlap: while one is computed, the inputs of the next are uploaded and the results of the
 * one before are read. Each step in flight has a slot. */
enum { DIP_N_SLOTS = 2 };

typedef struct dip_device {
    const char *name; /* "cpu", "cuda:0" */
    size_t alignment; /* of allocations, bytes */
    int is_host; /* host code may dereference its pointers, and ops have run when they return */
    int ordinal; /* which device of its kind */

    dip_status (*allocate)(const struct dip_device *device, void **out, size_t n_bytes);
    void (*release)(const struct dip_device *device, void *pointer);
    /* Host memory that uploads and downloads are fast from (page-locked). */
    dip_status (*allocate_host)(const struct dip_device *device, void **out, size_t n_bytes);
    void (*release_host)(const struct dip_device *device, void *pointer);
    /* Memory of the device; `available` is what a new allocation could get. */
    dip_status (*memory)(const struct dip_device *device, size_t *available, size_t *total);

    /* Copies and fills are ordered with the ops of `exec`; upload and download return when
     * the host side may be reused or read. */
    dip_status (*upload)(dip_exec *exec, void *device_dst, const void *host_src, size_t n_bytes);
    dip_status (*download)(dip_exec *exec, void *host_dst, const void *device_src, size_t n_bytes);
    dip_status (*copy)(dip_exec *exec, void *dst, const void *src, size_t n_bytes);
    dip_status (*zero)(dip_exec *exec, void *dst, size_t n_bytes);
    dip_status (*synchronize)(dip_exec *exec); /* every op so far has run, or why it could not */

    /* Inputs of a step, uploaded beside the step before. stage_begin waits, on the device, until
     * the last step that used `slot` has ended; stage copies; stage_end returns when the host
     * side of all copies may be reused, and later ops see them. */
    dip_status (*stage_begin)(dip_exec *exec, int slot);
    dip_status (*stage)(dip_exec *exec, void *device_dst, const void *host_src, size_t n_bytes);
    dip_status (*stage_end)(dip_exec *exec, int slot);
    /* The ops of the step in `slot` have all been called: bring n_bytes of results to the host
     * (allocate_host memory); step_wait returns when they are there. */
    dip_status (*step_end)(dip_exec *exec, int slot, void *host_dst, const void *device_src,
                           size_t n_bytes);
    dip_status (*step_wait)(dip_exec *exec, int slot);

    /* Recording. Between capture_begin and capture_end ops are noted and not run; uploads,
     * downloads and waits are not allowed. All four are NULL where launching costs nothing. */
    dip_status (*capture_begin)(dip_exec *exec);
    dip_status (*capture_end)(dip_exec *exec, dip_graph **graph);
    dip_status (*graph_launch)(dip_exec *exec, dip_graph *graph);
    void (*graph_free)(dip_exec *exec, dip_graph *graph); /* accepts NULL */
} dip_device;

struct dip_exec {
    const dip_ops *ops;
    const dip_device *device;
    int n_threads;   /* compute threads of a CPU backend; results do not depend on it */
    void *workspace; /* on the device; at least what the ops were planned to need */
    size_t workspace_bytes;
    void *state; /* the backend's own */
};

/* Backends in the order `auto` tries them are known to backend.c alone. `name`: "auto" (a GPU if
 * there is one), "cuda" (device 0), "cuda:N", "cpu" (the fastest CPU backend), "reference" (plain
 * C). n_threads 0 = all cores.
 * DIP_CONFIG: unknown name; DIP_UNSUPPORTED: not in this build or not on this machine, and what
 * exactly is missing. */
dip_status dip_exec_open(dip_exec *exec, const char *name, dip_dtype dtype, int n_threads);
/* Give the executor at least n_bytes of workspace (call again to grow; never inside a step). */
dip_status dip_exec_reserve(dip_exec *exec, size_t n_bytes);
void dip_exec_close(dip_exec *exec); /* a zeroed struct is fine */

/* Products in 8-bit floats, experimental: on a GPU of compute capability 8.9 or newer, with an
 * executor of bf16. From dip_exec_use_fp8 on, what matmul_forward and matmul_backward_input compute
 * with `w`, and what matmul_backward_weight adds to `d_w`, of layout DIP_OUT_IN and of sizes that
 * are multiples of 16, is made from 8-bit copies of the operands, of at most max_rows rows.
 * Everything else stays as it is. The range of values is learned from one update_begin to the next.
 * DIP_UNSUPPORTED with the reason; a second call replaces the first, and its history. */
typedef struct dip_fp8_weight {
    const void *w;
    const float *d_w;
    int64_t c_out, c_in;
} dip_fp8_weight;

dip_status dip_exec_use_fp8(dip_exec *exec, const dip_fp8_weight *weights, int n_weights,
                            int64_t max_rows);
/* Workspace for the copies, which dip_exec_use_fp8 reserves. */
size_t dip_fp8_workspace(const dip_fp8_weight *weights, int n_weights, int64_t max_rows);
/* While paused, all products are computed as without, and leave no trace in what is learned. */
void dip_exec_pause_fp8(dip_exec *exec, int paused);

/* DIP_CONFIG with the names that exist unless dip_exec_open knows `name`; looks for no device. */
dip_status dip_device_check_name(const char *name);
/* Can matrix products in bf16 be expected to beat fp32 on the device that `name` opens?
 * (--precision auto) */
int dip_device_has_fast_bf16(const char *name);
/* Words on what an executor computes with: "amx-bf16", "avx2", "NVIDIA H100 80GB HBM3". */
const char *dip_exec_describe(const dip_exec *exec);

/* Can matrix products in bf16 be expected to beat fp32 on this CPU? */
int dip_cpu_has_fast_bf16(void);
/* Words on what the CPU backend will use, e.g. "amx-bf16", "avx512-bf16", "avx2". */
const char *dip_cpu_isa_name(void);

#ifdef __cplusplus
}
#endif
#endif
