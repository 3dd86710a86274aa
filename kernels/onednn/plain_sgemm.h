/* plain_sgemm.h - oneDNN's sgemm by loops, for builds without oneDNN (DIPTYCH_ONEDNN=OFF).
 *
 * Such a program is meant for a machine that computes on its GPU: the CPU's part there is data, and
 * what needs a product on a CPU without AMX is slow but right.                                  */
#ifndef DIP_KERNELS_ONEDNN_PLAIN_SGEMM_H
#define DIP_KERNELS_ONEDNN_PLAIN_SGEMM_H

#include <stdint.h>

typedef int dnnl_status_t;
enum { dnnl_success = 0, dnnl_out_of_memory = 1 };

/* C = alpha op(A) op(B) + beta C, row-major, op(A) [m, k], op(B) [k, n]; 'N' as it lies, 'T'
 * transposed. */
static dnnl_status_t dnnl_sgemm(char transpose_a, char transpose_b, int64_t m, int64_t n, int64_t k,
                                float alpha, const float *a, int64_t lda, const float *b,
                                int64_t ldb, float beta, float *c, int64_t ldc)
{
    const int64_t a_row = transpose_a == 'T' ? 1 : lda, a_column = transpose_a == 'T' ? lda : 1;
    const int64_t b_row = transpose_b == 'T' ? 1 : ldb, b_column = transpose_b == 'T' ? ldb : 1;
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            float sum = 0;
            for (int64_t p = 0; p < k; p++)
                sum += a[i * a_row + p * a_column] * b[p * b_row + j * b_column];
            c[i * ldc + j] = alpha * sum + (beta == 0 ? 0 : beta * c[i * ldc + j]);
        }
    }
    return dnnl_success;
}

#endif
