/* cuda.h - what the files of the CUDA backend share: the executor's state, and how errors are told.
 *
 * Files:   device.c   memory, streams, slots, graphs: the dip_device of every GPU
 *          backend.c  finding GPUs, opening an executor, the op tables
 *          cublaslt.h matrix products' library, loaded when the first GPU is opened
 *          matmul.c   products; matmul_plan.c has a plan for each, matmul_tune.c measures
 *                     algorithms, matmul_choices.c remembers them
 *          fp8.c      products of chosen weights in 8-bit floats
 *          *.cu       one file an op family, the basenames of cpu/; kernel.cuh is what they
 * include, ptx.cuh the tensor cores, access.cuh wide loads and stores
 *
 * Ops:     named dip_cuda_<op>_<f32|bf16>; the tables are made from DIP_OPS, so a missing one does
 *          not link. An op enqueues on state->stream and returns; it does not wait, allocate or
 *          read device memory. Reductions over rows have a fixed shape that depends on the sizes
 *          alone, and there are no floating-point atomics: the same inputs give the same bits.
 * Errors:  DIP_TRY_CUDA(call) for the runtime; an op ends with DIP_CUDA_LAUNCHED, which names the
 *          op, its sizes, the file and the line. A kernel that fails while running is reported by
 *          the next call that waits; DIPTYCH_CUDA_SYNC=1 waits after every op, and then the
 *          sentence names the op that failed.
 * Environment, read when an executor is opened: DIPTYCH_CUDA_SYNC; DIPTYCH_CUDA_TUNE=0 takes
 *          cuBLASLt's word for the best algorithm instead of measuring (matmul_plan.h);
 *          DIPTYCH_CUBLASLT names the library's file (cublaslt.h).                             */
#ifndef DIP_KERNELS_CUDA_CUDA_H
#define DIP_KERNELS_CUDA_CUDA_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#include "kernels/device.h"
#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

struct dip_cublaslt;
struct dip_cuda_matmul;

/* dip_exec.state of a CUDA executor. */
typedef struct dip_cuda {
    int ordinal;
    int compute_capability; /* 10 * major + minor */
    int n_multiprocessors;
    int max_shared_bytes; /* a block may ask for */
    int sync_each_op;     /* DIPTYCH_CUDA_SYNC */
    int capturing;        /* between capture_begin and capture_end: nothing may wait */
    char name[256];
    cudaStream_t stream;             /* ops */
    cudaStream_t copy_stream;        /* uploads ahead */
    cudaEvent_t staged[DIP_N_SLOTS]; /* the slot's inputs are on the device */
    cudaEvent_t ended[DIP_N_SLOTS];  /* the slot's step has run, its results are on the host */
    /* Partial results of two-stage reductions. Ops of a stream follow each other, so one is enough
     * for all; never more than this. */
    void *partials;
    struct dip_cuda_matmul *matmul; /* handle, workspace, chosen algorithms */
} dip_cuda;

enum { DIP_CUDA_PARTIALS_BYTES = 1 << 20 };

/* Make the device current in this thread. It remembers which one is, so that it costs a comparison
 * where nothing changes; nobody else in the thread may call cudaSetDevice. */
dip_status dip_cuda_use(int ordinal);

/* The state of an open executor, whose device becomes current in this thread: streams, events and
 * kernels' attributes belong to a device, and a thread may run executors of several in turn. What
 * is called from outside takes the state by this, or the device by dip_cuda_use, before its first
 * call of CUDA. A device that cannot become current refuses that call with an error. */
static inline dip_cuda *dip_cuda_of(const dip_exec *exec)
{
    dip_cuda *cuda = (dip_cuda *)exec->state;
    (void)dip_cuda_use(cuda->ordinal);
    return cuda;
}

/* DIP_OK for cudaSuccess; else a sentence with the call, CUDA's words for it, file and line.
 * DIP_NOMEM for cudaErrorMemoryAllocation, else DIP_DEVICE. */
dip_status dip_cuda_check(cudaError_t error, const char *call, const char *file, int line);

#define DIP_TRY_CUDA(call) DIP_TRY(dip_cuda_check((call), #call, __FILE__, __LINE__))

/* The end of an op: did its launches succeed? */
dip_status dip_cuda_launched(dip_exec *exec, const char *op, const char *file, int line,
                             const char *sizes, ...) DIP_PRINTF(5, 6);

#define DIP_CUDA_LAUNCHED(exec, op, ...)                                                           \
    dip_cuda_launched(exec, op, __FILE__, __LINE__, __VA_ARGS__)

/* Every op in both types. */
#define DIP_CUDA_DECLARE(op) extern dip_##op##_fn dip_cuda_##op##_f32, dip_cuda_##op##_bf16;
DIP_OPS(DIP_CUDA_DECLARE)
#undef DIP_CUDA_DECLARE

/* The workspace queries of the tables, each in the file of its op. */
size_t dip_cuda_matmul_workspace(const dip_exec *exec, dip_matmul_shape shape);
size_t dip_cuda_attention_workspace(const dip_exec *exec, dip_attention_shape shape);
size_t dip_cuda_layernorm_workspace(const dip_exec *exec, int64_t n_rows, int64_t c);
size_t dip_cuda_contrastive_workspace(const dip_exec *exec, dip_contrastive_shape shape);

/* For backend.c of kernels/: NULL from dip_cuda_ops when `dtype` has no table. */
const dip_ops *dip_cuda_ops(dip_dtype dtype);
/* How many GPUs can be used; 0 with a sentence in dip_error() that says what is missing: the
 * driver, a newer driver (both versions), or a device. */
int dip_cuda_device_count(void);
/* The device `ordinal`, or NULL with a sentence. */
const dip_device *dip_cuda_device(int ordinal);
dip_status dip_cuda_exec_init(dip_exec *exec); /* exec->device is set */
void dip_cuda_exec_free(dip_exec *exec);       /* accepts one without a state */
const char *dip_cuda_describe(const dip_exec *exec);

/* For device.c and backend.c. */
enum { DIP_CUDA_MAX_DEVICES = 64 };
const dip_device *dip_cuda_device_table(int ordinal); /* whether or not there is such a GPU */
dip_status dip_cuda_matmul_open(struct dip_cuda_matmul **matmul, const dip_cuda *cuda);
void dip_cuda_matmul_close(struct dip_cuda_matmul *matmul); /* accepts NULL */

#ifdef __cplusplus
}
#endif
#endif
