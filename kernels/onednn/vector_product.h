/* vector_product.h - small matrix products of floats in cache, for attention and the loss.
 *
 * A block of up to 6 rows and a few vectors of C stays in registers while k runs; A is read one
 * value at a time and may lie in memory any way, so a transposed A costs nothing.        */
#ifndef DIP_KERNELS_ONEDNN_VECTOR_PRODUCT_H
#define DIP_KERNELS_ONEDNN_VECTOR_PRODUCT_H

#include "kernels/onednn/vector_common.h"

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif
#define ALWAYS_INLINE inline __attribute__((always_inline))

/* Element (m, k) of A is at[m * row + k * column]. */
typedef struct strided {
    const float *at;
    int64_t row, column;
} strided;

static ALWAYS_INLINE void product_block(float *c, int64_t c_row, strided a, const float *b,
                                        int64_t b_row, int64_t k, int accumulate, const int rows,
                                        const int vecs)
{
    vec sum[MAX_BLOCK_ROWS][MAX_BLOCK_VECS];
    UNROLL for (int i = 0; i < rows; i++)
    {
        UNROLL for (int j = 0; j < vecs; j++) sum[i][j] =
            accumulate ? vec_load(c + i * c_row + j * LANES) : vec_zero();
    }
    for (int64_t p = 0; p < k; p++) {
        vec b_p[MAX_BLOCK_VECS];
        UNROLL for (int j = 0; j < vecs; j++) b_p[j] = vec_load(b + p * b_row + j * LANES);
        UNROLL for (int i = 0; i < rows; i++)
        {
            vec a_ip = vec_all(a.at[i * a.row + p * a.column]);
            UNROLL for (int j = 0; j < vecs; j++) sum[i][j] = vec_fma(a_ip, b_p[j], sum[i][j]);
        }
    }
    UNROLL for (int i = 0; i < rows; i++)
    {
        UNROLL for (int j = 0; j < vecs; j++) vec_store(c + i * c_row + j * LANES, sum[i][j]);
    }
}

static ALWAYS_INLINE void product_rows(float *c, int64_t c_row, strided a, const float *b,
                                       int64_t b_row, int64_t m, int64_t k, int accumulate,
                                       const int vecs)
{
    for (; m >= MAX_BLOCK_ROWS; m -= MAX_BLOCK_ROWS) {
        product_block(c, c_row, a, b, b_row, k, accumulate, MAX_BLOCK_ROWS, vecs);
        c += MAX_BLOCK_ROWS * c_row;
        a.at += MAX_BLOCK_ROWS * a.row;
    }
    switch (m) {
    case 5:
        product_block(c, c_row, a, b, b_row, k, accumulate, 5, vecs);
        break;
    case 4:
        product_block(c, c_row, a, b, b_row, k, accumulate, 4, vecs);
        break;
    case 3:
        product_block(c, c_row, a, b, b_row, k, accumulate, 3, vecs);
        break;
    case 2:
        product_block(c, c_row, a, b, b_row, k, accumulate, 2, vecs);
        break;
    case 1:
        product_block(c, c_row, a, b, b_row, k, accumulate, 1, vecs);
        break;
    default:
        break;
    }
}

/* C = A B, or C += A B. C [m, n], A [m, k], B [k, n]; n is a multiple of LANES. */
static void product(float *c, int64_t c_row, strided a, const float *b, int64_t b_row, int64_t m,
                    int64_t n, int64_t k, int accumulate)
{
    while (n > 0) {
        int64_t vecs = smaller(n / LANES, MAX_BLOCK_VECS);
        if (MAX_BLOCK_VECS >= 4 && vecs == 4)
            product_rows(c, c_row, a, b, b_row, m, k, accumulate, smaller(4, MAX_BLOCK_VECS));
        else if (MAX_BLOCK_VECS >= 3 && vecs == 3)
            product_rows(c, c_row, a, b, b_row, m, k, accumulate, smaller(3, MAX_BLOCK_VECS));
        else if (vecs == 2)
            product_rows(c, c_row, a, b, b_row, m, k, accumulate, 2);
        else
            product_rows(c, c_row, a, b, b_row, m, k, accumulate, 1);
        c += vecs * LANES;
        b += vecs * LANES;
        n -= vecs * LANES;
    }
}

#endif
