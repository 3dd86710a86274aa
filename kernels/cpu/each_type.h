/* each_type.h - compile the including file once for each activation dtype.
 *
 * Usage, around the whole of an op's file:
 *     #ifndef T
 *     ... includes and helpers that do not depend on T ...
 *     #define EACH_TYPE_FILE "kernels/cpu/foo.c"
 *     #include "kernels/cpu/each_type.h"
 *     #else
 *     ... the ops, written with the words below ...
 *     #endif
 *
 *   T          the activation dtype: float, then dip_bf16
 *   LOAD(x)    the float a T stands for, exactly
 *   ROUND(x)   the T nearest to a float
 *   OP(name)   the op's symbol, dip_reference_<name>_f32 or _bf16
 *   LOCAL(name) a symbol for a file-local function that sees T; `#define foo LOCAL(foo)` before
 *              it lets the rest of the file call it foo                                   */
#ifndef EACH_TYPE_FILE
#error "define EACH_TYPE_FILE before including each_type.h"
#endif

#include <assert.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "kernels/cpu/activation.h"
#include "kernels/cpu/reference.h"

/* Width of a strip of columns that is summed over rows at once: sums fit in registers or L1. */
enum { STRIP = 64 };

/* Threads worth waking for this many values (or multiply-adds); results do not depend on it. */
static inline int threads_for(const dip_exec *exec, int64_t n_values)
{
    int64_t useful = 1 + n_values / 16384;
    return useful < exec->n_threads ? (int)useful : exec->n_threads;
}

static inline int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

#define T           float
#define LOAD(x)     (x)
#define ROUND(x)    (x)
#define OP(name)    dip_reference_##name##_f32
#define LOCAL(name) name##_f32
#include EACH_TYPE_FILE
#undef T
#undef LOAD
#undef ROUND
#undef OP
#undef LOCAL

#define T           dip_bf16
#define LOAD(x)     dip_bf16_to_float(x)
#define ROUND(x)    dip_bf16_from_float(x)
#define OP(name)    dip_reference_##name##_bf16
#define LOCAL(name) name##_bf16
#include EACH_TYPE_FILE
