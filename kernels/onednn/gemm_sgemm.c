/* The products on CPUs without bf16 instructions: oneDNN's sgemm on blocks of fixed size, then
 * gemm_finish.h. bf16 operands are widened to float first.
 *
 * sgemm may split a sum over its threads, so every call runs on one thread and the blocks are
 * shared out here: results do not depend on the thread count.
 *
 * Workspace, rows:   [bf16: B as float][per thread: C rows, bf16: A rows as float]
 * Workspace, weight: [bf16: 256 rows of l and r as float] */
#include "kernels/onednn/gemm_blocks.h"
#include "kernels/onednn/onednn.h"

#include <omp.h>
#ifdef DIPTYCH_ONEDNN
#include <dnnl.h>
#else
#include "kernels/onednn/plain_sgemm.h"
#endif

enum { ROW_BLOCK = 128, WEIGHT_BLOCK = 64 };

dip_gemm_finish_fn *dip_gemm_finish_for_cpu(void)
{
    const dip_cpu_isa_level isa = dip_cpu_isa();
    return isa >= DIP_ISA_AVX512 ? dip_gemm_finish_avx512
           : isa >= DIP_ISA_AVX2 ? dip_gemm_finish_avx2
                                 : dip_gemm_finish_base;
}

static size_t floats(int64_t a, int64_t b)
{
    return dip_gemm_round_up((size_t)a * (size_t)b * sizeof(float));
}

static size_t thread_bytes(dip_dtype dtype, int64_t n, int64_t k)
{
    return floats(ROW_BLOCK, n) + (dtype == DIP_BF16 ? floats(ROW_BLOCK, k) : 0);
}

size_t dip_gemm_sgemm_rows_bytes(dip_dtype dtype, int64_t n, int64_t k, int n_threads)
{
    return (dtype == DIP_BF16 ? floats(n, k) : 0) + (size_t)n_threads * thread_bytes(dtype, n, k);
}

size_t dip_gemm_sgemm_weight_bytes(dip_dtype dtype, int64_t p, int64_t q)
{
    return dtype == DIP_BF16 ? floats(GEMM_WEIGHT_ROWS, p) + floats(GEMM_WEIGHT_ROWS, q) : 0;
}

/* Inside a parallel region of one thread oneDNN would use all cores: tell it not to. The
 * setting belongs to the region's implicit task and ends with it. */
static void keep_to_one_thread(void)
{
    omp_set_num_threads(1);
}

static void widen(float *out, const dip_bf16 *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) out[i] = dip_bf16_to_float(x[i]);
}

static dip_status refused(dnnl_status_t status, int64_t m, int64_t n, int64_t k)
{
    if (status == dnnl_success) return DIP_OK;
    return dip_fail(status == dnnl_out_of_memory ? DIP_NOMEM : DIP_UNSUPPORTED,
                    "oneDNN's sgemm of %lld x %lld x %lld failed with status %d", (long long)m,
                    (long long)n, (long long)k, (int)status);
}

dip_status dip_gemm_sgemm_rows(dip_dtype dtype, const dip_gemm_rows_job *job)
{
    dip_gemm_finish_fn *finish = dip_gemm_finish_for_cpu();
    const float *b = job->b;
    char *threads = job->workspace;
    if (dtype == DIP_BF16) {
        float *wide = job->workspace;
        threads += floats(job->n, job->k);
        widen(wide, job->b, job->n * job->k);
        b = wide;
    }
    const size_t one_thread = thread_bytes(dtype, job->n, job->k);
    dnnl_status_t failed = dnnl_success;
#pragma omp parallel num_threads(job->n_threads)
    {
        float *c = (float *)(void *)(threads + (size_t)omp_get_thread_num() * one_thread);
        float *wide = c + floats(ROW_BLOCK, job->n) / sizeof *c;
        keep_to_one_thread();
#pragma omp for schedule(dynamic)
        for (int64_t row = 0; row < job->m; row += ROW_BLOCK) {
            int64_t n_rows = job->m - row < ROW_BLOCK ? job->m - row : ROW_BLOCK;
            const float *a = wide;
            if (dtype == DIP_BF16)
                widen(wide, (const dip_bf16 *)job->a + row * job->k, n_rows * job->k);
            else
                a = (const float *)job->a + row * job->k;
            dnnl_status_t status =
                dnnl_sgemm('N', job->b_transposed ? 'T' : 'N', n_rows, job->n, job->k, 1, a, job->k,
                           b, job->b_transposed ? job->k : job->n, 0, c, job->n);
            if (status == dnnl_success) {
                for (int64_t i = 0; i < n_rows; i++) finish(job, dtype, c + i * job->n, row + i);
            } else {
#pragma omp atomic write
                failed = status;
            }
        }
    }
    return refused(failed, job->m, job->n, job->k);
}

/* d_bias[j] += sum over rows of x[i][j], rows in order, for up to WEIGHT_BLOCK columns. */
static void add_bias(float *d_bias, const float *x, int64_t n_rows, int64_t width, int64_t first)
{
    int64_t n = width - first < WEIGHT_BLOCK ? width - first : WEIGHT_BLOCK;
    float sums[WEIGHT_BLOCK] = {0};
    for (int64_t i = 0; i < n_rows; i++)
        for (int64_t j = 0; j < n; j++) sums[j] += x[i * width + first + j];
    for (int64_t j = 0; j < n; j++) d_bias[first + j] += sums[j];
}

dip_status dip_gemm_sgemm_weight(dip_dtype dtype, const dip_gemm_weight_job *job)
{
    const int64_t width = job->bias_from_l ? job->p : job->q;
    dnnl_status_t failed = dnnl_success;
#pragma omp parallel num_threads(job->n_threads)
    {
        float *wide_l = job->workspace;
        float *wide_r = wide_l + floats(GEMM_WEIGHT_ROWS, job->p) / sizeof *wide_l;
        keep_to_one_thread();
        for (int64_t row = 0; row < job->n; row += GEMM_WEIGHT_ROWS) {
            int64_t n_rows = job->n - row < GEMM_WEIGHT_ROWS ? job->n - row : GEMM_WEIGHT_ROWS;
            const float *l = wide_l, *r = wide_r;
            if (dtype == DIP_F32) {
                l = (const float *)job->l + row * job->p;
                r = (const float *)job->r + row * job->q;
            } else {
#pragma omp for schedule(static)
                for (int64_t i = 0; i < n_rows; i++) {
                    widen(wide_l + i * job->p, (const dip_bf16 *)job->l + (row + i) * job->p,
                          job->p);
                    widen(wide_r + i * job->q, (const dip_bf16 *)job->r + (row + i) * job->q,
                          job->q);
                }
            }
#pragma omp for schedule(static) nowait
            for (int64_t p = 0; p < job->p; p += WEIGHT_BLOCK) {
                int64_t block = job->p - p < WEIGHT_BLOCK ? job->p - p : WEIGHT_BLOCK;
                dnnl_status_t status = dnnl_sgemm('T', 'N', block, job->q, n_rows, 1, l + p, job->p,
                                                  r, job->q, 1, job->d_w + p * job->q, job->q);
                if (status != dnnl_success) {
#pragma omp atomic write
                    failed = status;
                }
            }
            if (job->d_bias != NULL) {
#pragma omp for schedule(static) nowait
                for (int64_t first = 0; first < width; first += WEIGHT_BLOCK)
                    add_bias(job->d_bias, job->bias_from_l ? l : r, n_rows, width, first);
            }
            /* The next rows are widened where these are still being read. */
#pragma omp barrier
        }
    }
    return refused(failed, job->p, job->q, job->n);
}
