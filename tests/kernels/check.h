/* check.h - hold every op of every backend against float64.
 *
 * A check is a function that gets a target (one backend, one dtype), and for each shape builds a
 * case: named tensors in the device's memory, one call. check_run makes the call twice for 1, 2 and
 * 4 threads (on a GPU: just twice) and demands: success, the same bits every time, inputs and guard
 * bands untouched, no more workspace than the query asked for. check_close then compares an
 * output.
 *
 * The bound   |got - exact| <= CHECK_K * (naive + floor) + rounding, where exact is float64,
 *             `naive` is the largest error of the same sums done one after the other in float,
 *             `rounding` is half a unit of the output's dtype at that element, and `floor` is
 *             what a test allows besides (a luckily exact naive result of few elements proves
 *             nothing); it is never less than half a float unit of the largest element. The
 *             root mean squares must satisfy the same inequality.
 *
 * The oracles of the tests are written once, in double, with rounded() around each operation:
 * with CHECK_EXACT it does nothing, otherwise it rounds to float, which gives the naive result
 * (a double operation rounded to float is the float operation: 53 >= 2 * 24 + 2 bits).
 * CHECK_NAIVE_OPERANDS also rounds what operand() surrounds to bf16, the exception that ops.h
 * grants to attention and the contrastive loss.                                           */
#ifndef DIP_TESTS_KERNELS_CHECK_H
#define DIP_TESTS_KERNELS_CHECK_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/dtype.h"
#include "core/rng.h"
#include "kernels/ops.h"

#define CHECK_K 3.0

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

/* ---- targets and programs --------------------------------------------------------------- */

enum { CHECK_MAX_EXECS = 3 }; /* 1, 2 and 4 threads */

typedef struct check_target {
    const char *backend;
    dip_dtype dtype;
    const char *op; /* the check being run */
    int is_slow;    /* a GPU emulated or (CHECK_SMALL) watched: not the largest shapes */
    int n_execs;    /* on one device */
    dip_exec execs[CHECK_MAX_EXECS];
    unsigned char *scratch; /* on the device: what calls get as workspace */
    unsigned char *poison;  /* on the host, to fill it from; NULL where that is the device */
    size_t scratch_bytes;
} check_target;

typedef struct check_row {
    const char *op;
    void (*run)(check_target *target);
} check_row;

/* CHECK(foo) is the check of op foo, the function check_foo. test_backend.c looks for one such
 * row for every op in ops.h. */
#define CHECK(op)                                                                                  \
    {                                                                                              \
#op, check_##op                                                                            \
    }

/* main() of a checker: every row for every backend and dtype. A backend that this machine cannot
 * run is skipped, with a message. The environment variable CHECK_BACKEND (reference, cpu or cuda)
 * leaves only the backend of that name. An op that a table lacks fails by name. */
int check_main(const check_row *rows, int n_rows);

/* For a check that calls other ops besides its own: fails unless the table has `op`. */
void check_needs(const check_target *target, const char *op);

/* ---- arithmetic of the oracles ---------------------------------------------------------- */

typedef enum check_precision { CHECK_EXACT, CHECK_NAIVE, CHECK_NAIVE_OPERANDS } check_precision;

static inline double rounded(check_precision p, double x)
{
    return p == CHECK_EXACT ? x : (double)(float)x;
}

static inline double operand(check_precision p, double x)
{
    if (p != CHECK_NAIVE_OPERANDS) return x;
    return (double)dip_bf16_to_float(dip_bf16_from_float((float)x));
}

/* CHECK_NAIVE_OPERANDS for a bf16 table, CHECK_NAIVE for a float one. */
check_precision check_naive_operands(const check_target *target);

/* ---- cases ------------------------------------------------------------------------------ */

typedef enum check_type { CHECK_F32, CHECK_BF16, CHECK_F64, CHECK_I32, CHECK_U8 } check_type;

static inline check_type check_activation_type(const check_target *target)
{
    return target->dtype == DIP_BF16 ? CHECK_BF16 : CHECK_F32;
}

typedef struct check_tensor {
    const char *name;
    check_type type;
    int64_t n;
    int is_output, is_input; /* both: updated in place */
    void *data;              /* what the op is given: device memory */
    double *values;          /* of an input: what it held before the call */
    size_t n_bytes;
    void *before;         /* bytes the op finds */
    const void *result;   /* after check_run: the bytes it left */
    unsigned char *block; /* on the device: guard band, data, guard band */
    unsigned char *image; /* the same on the host */
    void *first_result;
} check_tensor;

enum { CHECK_MAX_TENSORS = 16, CHECK_MAX_ARRAYS = 32 };

typedef struct check_case {
    check_target *target;
    dip_rng rng;
    char label[200];
    check_tensor tensors[CHECK_MAX_TENSORS];
    int n_tensors;
    double *arrays[CHECK_MAX_ARRAYS];
    int n_arrays;
} check_case;

/* The label says the shape; it also seeds the case's random numbers. */
void check_begin(check_case *c, check_target *target, const char *label, ...) DIP_PRINTF(3, 4);
void check_end(check_case *c);

/* Tensors live until check_end. Inputs are normal random numbers (mean, spread) rounded to the
 * type. Outputs are NaN before every call. */
check_tensor *check_input(check_case *c, const char *name, check_type type, int64_t n, double mean,
                          double spread);
check_tensor *check_input_values(check_case *c, const char *name, check_type type, int64_t n,
                                 const double *values);
check_tensor *check_output(check_case *c, const char *name, check_type type, int64_t n);
check_tensor *check_updated(check_case *c, const char *name, check_type type, int64_t n,
                            double mean, double spread);

/* A struct: n_bytes bytes that the op reads, or with is_output set, updates. */
check_tensor *check_bytes(check_case *c, const char *name, const void *bytes, size_t n_bytes);

/* n zeros, freed by check_end. */
double *check_array(check_case *c, int64_t n);

/* Element i of what the last check_run left in a tensor. */
double check_get(const check_tensor *tensor, int64_t i);

typedef dip_status check_call(dip_exec *exec, void *context);
typedef size_t check_workspace(const dip_exec *exec, void *context); /* NULL: the op needs none */

void check_run(check_case *c, check_call *call, check_workspace *workspace, void *context);

/* The bound above; the two arrays hold tensor->n elements. */
void check_close(check_case *c, const check_tensor *tensor, const double *exact,
                 const double *naive, double floor);

/* Every element equals expected[i], exactly (also 0 and -0, NaN and NaN). */
void check_equal(check_case *c, const check_tensor *tensor, const double *expected);

/* d_x against central differences of objective(context), which reads x. Holds the float64
 * oracle of a backward pass to the forward one; at most 40 elements, evenly spread. */
void check_gradient(check_case *c, const char *name, double *x, const double *d_x, int64_t n,
                    double (*objective)(void *context), void *context);

double check_largest(const double *values, int64_t n); /* largest magnitude, 0 if none */

/* A size from 1 to `largest`, often next to a power of two, 1 or `largest`. */
int64_t check_edge_size(dip_rng *rng, int64_t largest);

#endif
