/* fp8_bench.h - what the tests of products in 8-bit floats share: the formats in float64, a device
 * that has them, its memory, and a weight with all that its products take.
 *
 * Usage:   if (!opens()) skip(); bench_open; put, forward, get; bench_close. When the group of
 *          tests ends, close_all. */
#ifndef DIP_TESTS_KERNELS_FP8_BENCH_H
#define DIP_TESTS_KERNELS_FP8_BENCH_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/rng.h"
#include "kernels/ops.h"

/* ---- 8-bit floats ------------------------------------------------------------------------- */

typedef struct format {
    int mantissa, smallest; /* bits; exponent of the smallest normal number */
    double largest;
} format;

static const format e4m3 = {3, -6, 448}, e5m2 = {2, -14, 57344};

/* The nearest number of the format, the largest for what is beyond it. */
static inline double nearest(double x, format f)
{
    if (x == 0 || isnan(x)) return x;
    if (fabs(x) >= f.largest) return copysign(f.largest, x);
    const int exponent = ilogb(x) > f.smallest ? ilogb(x) : f.smallest;
    const double unit = ldexp(1, exponent - f.mantissa);
    const double rounded = nearbyint(x / unit) * unit;
    return fabs(rounded) > f.largest ? copysign(f.largest, x) : rounded;
}

static inline double scale_for(double maximum, format f)
{
    return maximum > 0 ? exp2(floor(log2(f.largest / maximum))) : 1;
}

static inline double largest_of(const double *x, int64_t n)
{
    double largest = 0;
    for (int64_t i = 0; i < n; i++)
        if (isfinite(x[i])) largest = fmax(largest, fabs(x[i]));
    return largest;
}

/* What the copy of x stands for. */
static inline double *dequantised(const double *x, int64_t n, double scale, format f)
{
    double *out = malloc((size_t)n * sizeof *out);
    assert_non_null(out);
    for (int64_t i = 0; i < n; i++) out[i] = nearest(x[i] * scale, f) / scale;
    return out;
}

/* With the scale of its own maximum. */
static inline double *first_copy(const double *x, int64_t n, format f)
{
    return dequantised(x, n, scale_for(largest_of(x, n), f), f);
}

/* ---- memory ------------------------------------------------------------------------------- */

static dip_exec exec;

static inline int opens(void)
{
    if (exec.ops) return 1;
    if (dip_exec_open(&exec, "cuda", DIP_BF16, 1) != DIP_OK ||
        dip_exec_use_fp8(&exec, NULL, 0, 0) != DIP_OK) {
        print_message("SKIPPED: %s\n", dip_error());
        dip_exec_close(&exec);
        return 0;
    }
    return 1;
}

static inline void *book(size_t n_bytes)
{
    void *out;
    assert_int_equal(exec.device->allocate(exec.device, &out, n_bytes), DIP_OK);
    return out;
}

static inline void drop(void *memory)
{
    exec.device->release(exec.device, memory);
}

static inline void put(void *device, const double *x, int64_t n)
{
    dip_bf16 *host = malloc((size_t)n * sizeof *host);
    for (int64_t i = 0; i < n; i++) host[i] = dip_bf16_from_float((float)x[i]);
    assert_int_equal(exec.device->upload(&exec, device, host, (size_t)n * sizeof *host), DIP_OK);
    free(host);
}

static inline void put_float(void *device, const double *x, int64_t n)
{
    float *host = malloc((size_t)n * sizeof *host);
    for (int64_t i = 0; i < n; i++) host[i] = (float)x[i];
    assert_int_equal(exec.device->upload(&exec, device, host, (size_t)n * sizeof *host), DIP_OK);
    free(host);
}

static inline double *get(const void *device, int64_t n)
{
    dip_bf16 *host = malloc((size_t)n * sizeof *host);
    double *out = malloc((size_t)n * sizeof *out);
    assert_int_equal(exec.device->download(&exec, host, device, (size_t)n * sizeof *host), DIP_OK);
    for (int64_t i = 0; i < n; i++) out[i] = (double)dip_bf16_to_float(host[i]);
    free(host);
    return out;
}

static inline double *get_float(const void *device, int64_t n)
{
    float *host = malloc((size_t)n * sizeof *host);
    double *out = malloc((size_t)n * sizeof *out);
    assert_int_equal(exec.device->download(&exec, host, device, (size_t)n * sizeof *host), DIP_OK);
    for (int64_t i = 0; i < n; i++) out[i] = (double)host[i];
    free(host);
    return out;
}

/* Numbers of bf16. */
static inline double *random_numbers(uint64_t seed, int64_t n, double spread)
{
    dip_rng rng;
    double *out = malloc((size_t)n * sizeof *out);
    dip_rng_init(&rng, seed, dip_rng_stream(DIP_RNG_TEST, 0, 0));
    for (int64_t i = 0; i < n; i++)
        out[i] = (double)dip_bf16_to_float(
            dip_bf16_from_float((float)(spread * dip_rng_range(&rng, -1, 1))));
    return out;
}

static inline int close_all(void **state)
{
    (void)state;
    dip_exec_close(&exec);
    return 0;
}

/* ---- products ----------------------------------------------------------------------------- */

/* One weight [c_out, c_in] and all that its products take. */
typedef struct bench {
    dip_matmul_shape shape;
    void *w, *x, *out, *pre, *bias, *d_out, *d_x;
    float *d_w, *d_bias;
    dip_update *update;
    double *scalars; /* lr, loss, sum of squares */
} bench;

static inline void bench_open(bench *b, int64_t n_rows, int64_t c_in, int64_t c_out)
{
    const double scalars[3] = {1, 1, 1};
    const dip_update update = {0};
    b->shape = (dip_matmul_shape){n_rows, c_in, c_out, DIP_OUT_IN};
    b->w = book((size_t)(c_in * c_out) * 2);
    b->x = book((size_t)(n_rows * c_in) * 2);
    b->d_x = book((size_t)(n_rows * c_in) * 2);
    b->out = book((size_t)(n_rows * c_out) * 2);
    b->pre = book((size_t)(n_rows * c_out) * 2);
    b->d_out = book((size_t)(n_rows * c_out) * 2);
    b->bias = book((size_t)c_out * 2);
    b->d_w = book((size_t)(c_in * c_out) * sizeof(float));
    b->d_bias = book((size_t)c_out * sizeof(float));
    b->update = book(sizeof *b->update);
    b->scalars = book(sizeof scalars);
    assert_int_equal(exec.device->upload(&exec, b->scalars, scalars, sizeof scalars), DIP_OK);
    assert_int_equal(exec.device->upload(&exec, b->update, &update, sizeof update), DIP_OK);
    const dip_fp8_weight weight = {b->w, b->d_w, c_out, c_in};
    assert_int_equal(dip_exec_use_fp8(&exec, &weight, 1, n_rows), DIP_OK);
}

static inline void bench_close(bench *b)
{
    void *const all[] = {b->w,    b->x,   b->d_x,    b->out,    b->pre,    b->d_out,
                         b->bias, b->d_w, b->d_bias, b->update, b->scalars};
    assert_int_equal(dip_exec_use_fp8(&exec, NULL, 0, 0), DIP_OK);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) drop(all[i]);
}

static inline void forward(const bench *b)
{
    assert_int_equal(exec.ops->matmul_forward(&exec, b->out, NULL, b->x, b->w, NULL, NULL,
                                              DIP_ACT_NONE, b->shape),
                     DIP_OK);
}

static inline void end_step(const bench *b)
{
    assert_int_equal(exec.ops->update_begin(&exec, b->update, b->scalars, b->scalars + 1,
                                            b->scalars + 2, (dip_adamw_hyper){.beta1 = 0.5}),
                     DIP_OK);
}

static inline void assert_same(const double *a, const double *b, int64_t n, bool same)
{
    assert_int_equal(memcmp(a, b, (size_t)n * sizeof *a) == 0, same);
}

#endif
