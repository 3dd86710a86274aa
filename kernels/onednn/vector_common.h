/* vector_common.h - what follows from the vector operations of either instruction set. */
#ifndef DIP_KERNELS_ONEDNN_VECTOR_COMMON_H
#define DIP_KERNELS_ONEDNN_VECTOR_COMMON_H

#include <math.h>
#include <omp.h>
#include <string.h>

#include "kernels/onednn/vector.h"

#define OP(name)            OP_EXPANDED(ISA(name))
#define OP_EXPANDED(symbol) OP_(symbol)

static inline int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}
static inline int64_t round_up(int64_t x, int64_t step)
{
    return (x + step - 1) / step * step;
}

/* Threads worth waking for this many values; results do not depend on it. */
static inline int threads_for(const dip_exec *exec, int64_t n_values)
{
    int64_t useful = 1 + n_values / 16384;
    return useful < exec->n_threads ? (int)useful : exec->n_threads;
}

/* e^x to about one unit in the last place: x = n ln 2 + r, e^r by a polynomial fitted to the
 * least relative error on |r| <= ln 2 / 2, ln 2 in two parts so that r is exact. */
static inline vec vec_exp(vec x)
{
    x = vec_max(vec_all(-200.0f), x); /* a NaN stays: it is the second operand */
    vec n = vec_round(vec_mul(x, vec_all(0x1.715476p+0f)));
    vec r = vec_fma(n, vec_all(-0x1.62e400p-1f), x);
    r = vec_fma(n, vec_all(-0x1.7f7d1cp-20f), r);
    vec p = vec_all(0x1.6a23c8p-10f);
    p = vec_fma(p, r, vec_all(0x1.123a20p-7f));
    p = vec_fma(p, r, vec_all(0x1.5558f4p-5f));
    p = vec_fma(p, r, vec_all(0x1.555492p-3f));
    p = vec_fma(p, r, vec_all(0x1.fffffcp-2f));
    p = vec_fma(vec_mul(p, r), r, r);
    p = vec_add(p, vec_all(1.0f));
    return vec_times_power_of_2(p, n);
}

/* DIP_NOMEM, with a sentence, when the executor has less than n_bytes of workspace. */
static inline dip_status need_workspace(const dip_exec *exec, const char *op, size_t n_bytes)
{
    if (n_bytes <= exec->workspace_bytes) return DIP_OK;
    return dip_fail(DIP_NOMEM, "%s needs %zu bytes of workspace, the executor has %zu", op, n_bytes,
                    exec->workspace_bytes);
}

#endif
