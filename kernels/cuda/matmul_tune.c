/* Measuring algorithms: every candidate runs on the real operands, a few times in turn. */
#include "kernels/cuda/matmul_plan.h"

enum {
    ROUNDS = 3,                     /* of all candidates; the best round of each counts */
    ROUND_NANOSECONDS = 500 * 1000, /* of runs of one candidate in a round, about */
    MAX_RUNS = 20,                  /* in a round */
    PERCENT = 2                     /* faster than an earlier candidate, or the earlier one stays */
};

typedef struct stopwatch {
    cudaEvent_t begin, end;
} stopwatch;

/* Nanoseconds a run, over n_runs; CUBLAS's refusal is a time of 0. */
static dip_status measure(int64_t *nanoseconds, const dip_cuda_matmul *matmul,
                          const dip_cuda_plan *plan, const dip_cuda_operands *operands,
                          stopwatch watch, int n_runs)
{
    const cudaStream_t stream = matmul->cuda->stream;
    float milliseconds = 0.0f;
    *nanoseconds = 0;
    DIP_TRY_CUDA(cudaEventRecord(watch.begin, stream));
    for (int i = 0; i < n_runs; i++)
        if (dip_cuda_plan_enqueue(matmul, plan, operands) != CUBLAS_STATUS_SUCCESS) return DIP_OK;
    DIP_TRY_CUDA(cudaEventRecord(watch.end, stream));
    DIP_TRY_CUDA(cudaEventSynchronize(watch.end));
    DIP_TRY_CUDA(cudaEventElapsedTime(&milliseconds, watch.begin, watch.end));
    *nanoseconds = 1 + (int64_t)(1e6 * (double)milliseconds / n_runs);
    return DIP_OK;
}

static int runs_of(int64_t nanoseconds)
{
    const int64_t n = ROUND_NANOSECONDS / nanoseconds;
    return n < 1 ? 1 : n > MAX_RUNS ? MAX_RUNS : (int)n;
}

static dip_status compare(const dip_cuda_matmul *matmul, dip_cuda_plan *plan, int64_t *nanoseconds,
                          const dip_cuda_operands *operands, stopwatch watch,
                          const cublasLtMatmulHeuristicResult_t *candidates, int n_candidates)
{
    enum { MOST = 32 };
    int64_t best[MOST], time;
    int n_runs[MOST];
    if (n_candidates > MOST) n_candidates = MOST;
    for (int i = 0; i < n_candidates; i++) { /* loads the kernel, and tells how long it takes */
        plan->algo = candidates[i].algo;
        DIP_TRY(measure(&best[i], matmul, plan, operands, watch, 1));
        if (best[i] > 0) DIP_TRY(measure(&best[i], matmul, plan, operands, watch, 1));
        n_runs[i] = best[i] > 0 ? runs_of(best[i]) : 0;
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < n_candidates; i++) {
            if (n_runs[i] == 0) continue;
            plan->algo = candidates[i].algo;
            DIP_TRY(measure(&time, matmul, plan, operands, watch, n_runs[i]));
            if (time > 0 && time < best[i]) best[i] = time;
        }
    }
    int chosen = -1;
    for (int i = 0; i < n_candidates; i++)
        if (best[i] > 0 && (chosen < 0 || best[i] < best[chosen] * (100 - PERCENT) / 100))
            chosen = i;
    plan->algo = candidates[chosen < 0 ? 0 : chosen].algo;
    *nanoseconds = chosen < 0 ? 0 : best[chosen];
    return DIP_OK;
}

dip_status dip_cuda_tune(const dip_cuda_matmul *matmul, dip_cuda_plan *plan, int64_t *nanoseconds,
                         const dip_cuda_operands *operands,
                         const cublasLtMatmulHeuristicResult_t *candidates, int n_candidates)
{
    const dip_device *device = dip_cuda_device_table(matmul->cuda->ordinal);
    const dip_cuda_product *product = &plan->product;
    dip_cuda_operands scratched = *operands;
    stopwatch watch = {NULL, NULL};
    void *scratch = NULL;
    dip_status status = DIP_OK;
    *nanoseconds = 0;
    if (operands->c == operands->d) {
        /* Each run would add to the result: run on zeros elsewhere. Without memory for that, the
         * heuristic's word is taken. */
        const size_t n_bytes =
            (size_t)product->m * (size_t)product->n * (product->outputs_bf16 ? 2 : 4);
        if (device->allocate(device, &scratch, n_bytes) != DIP_OK) return DIP_OK;
        scratched.c = scratched.d = scratch;
        status = dip_cuda_check(cudaMemsetAsync(scratch, 0, n_bytes, matmul->cuda->stream),
                                "cudaMemsetAsync", __FILE__, __LINE__);
    }
    if (status == DIP_OK)
        status =
            dip_cuda_check(cudaEventCreate(&watch.begin), "cudaEventCreate", __FILE__, __LINE__);
    if (status == DIP_OK)
        status = dip_cuda_check(cudaEventCreate(&watch.end), "cudaEventCreate", __FILE__, __LINE__);
    if (status == DIP_OK)
        status = compare(matmul, plan, nanoseconds, &scratched, watch, candidates, n_candidates);
    if (watch.begin) cudaEventDestroy(watch.begin);
    if (watch.end) cudaEventDestroy(watch.end);
    device->release(device, scratch);
    return status;
}
