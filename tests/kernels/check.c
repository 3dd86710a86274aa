#include "check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sanitizers.h"
#if UNDER_ASAN
#include <sanitizer/asan_interface.h>
#endif

enum { GUARD_BYTES = 128, POISON = 0xff }; /* 0xff bytes are a NaN in every float format */

static const int thread_counts[CHECK_MAX_EXECS] = {1, 2, 4};

/* ---- programs --------------------------------------------------------------------------- */

typedef struct program_test {
    check_row row;
    const char *backend;
    dip_dtype dtype;
    char name[80];
} program_test;

/* Members of the op table: names and places. */
static const struct {
    const char *name;
    size_t place;
} members[] = {
#define MEMBER(name) {#name, offsetof(dip_ops, name)},
    DIP_OPS(MEMBER) MEMBER(matmul_workspace) MEMBER(attention_workspace) MEMBER(layernorm_workspace)
        MEMBER(contrastive_workspace)
#undef MEMBER
};

void check_needs(const check_target *target, const char *op)
{
    for (int i = 0; i < COUNT(members); i++) {
        void (*function)(void);
        if (strcmp(members[i].name, op) != 0) continue;
        memcpy(&function, (const char *)target->execs[0].ops + members[i].place, sizeof function);
        if (function) return;
    }
    fail_msg("the %s table of backend %s has no %s", dip_dtype_name(target->dtype), target->backend,
             op);
}

/* The op and, when its family has one, the query for its workspace. */
static void check_table(const check_target *target)
{
    static const char *const queries[] = {"matmul_workspace", "attention_workspace",
                                          "layernorm_workspace", "contrastive_workspace"};
    check_needs(target, target->op);
    for (int i = 0; i < COUNT(queries); i++) {
        const size_t n = (size_t)(strchr(queries[i], '_') - queries[i]) + 1;
        if (strncmp(target->op, queries[i], n) == 0) check_needs(target, queries[i]);
    }
}

static void run_on_target(void **state)
{
    const program_test *test = *state;
    check_target target = {.backend = test->backend, .dtype = test->dtype, .op = test->row.op};
    do {
        const int n_threads = thread_counts[target.n_execs];
        dip_exec *exec = &target.execs[target.n_execs];
        dip_status status = dip_exec_open(exec, test->backend, test->dtype, n_threads);
        if (status == DIP_UNSUPPORTED) {
            print_message("SKIPPED %s: %s\n", test->name, dip_error());
            skip();
        }
        if (status != DIP_OK) fail_msg("%s: %s", test->name, dip_error());
        target.n_execs++;
        /* A GPU has no thread count to vary. */
    } while (target.execs[0].device->is_host && target.n_execs < CHECK_MAX_EXECS);
#ifdef DIPTYCH_EMULATED_GPU
    const int slow_device = 1;
#else
    const int slow_device = getenv("CHECK_SMALL") != NULL;
#endif
    target.is_slow = slow_device && !target.execs[0].device->is_host;
    check_table(&target);
    test->row.run(&target);
    if (target.scratch) target.execs[0].device->release(target.execs[0].device, target.scratch);
    free(target.poison);
    for (int i = 0; i < target.n_execs; i++) dip_exec_close(&target.execs[i]);
}

int check_main(const check_row *rows, int n_rows)
{
    static const char *const backends[] = {"reference", "cpu", "cuda"};
    enum { N_TARGETS = 2 * COUNT(backends), MAX_ROWS = 16 };
    static program_test tests[MAX_ROWS * N_TARGETS];
    struct CMUnitTest group[MAX_ROWS * N_TARGETS] = {0};
    const char *only = getenv("CHECK_BACKEND");
    int n_tests = 0;
    if (n_rows > MAX_ROWS) {
        print_error("%d checks in one program, %d fit\n", n_rows, MAX_ROWS);
        return 1;
    }
    for (int row = 0; row < n_rows; row++) {
        for (int i = 0; i < N_TARGETS; i++) {
            if (only && strcmp(only, backends[i / 2]) != 0) continue;
            program_test *test = &tests[n_tests];
            *test = (program_test){
                .row = rows[row], .backend = backends[i / 2], .dtype = i % 2 ? DIP_BF16 : DIP_F32};
            snprintf(test->name, sizeof test->name, "%s %s %s", test->row.op, test->backend,
                     dip_dtype_name(test->dtype));
            group[n_tests++] = (struct CMUnitTest){
                .name = test->name, .test_func = run_on_target, .initial_state = test};
        }
    }
    if (n_tests == 0) {
        print_error("CHECK_BACKEND is \"%s\": reference, cpu or cuda\n", only);
        return 1;
    }
    /* The macro counts an array's elements; this one is as long as the rows make it. */
    return _cmocka_run_group_tests("kernels", group, (size_t)n_tests, NULL, NULL);
}

check_precision check_naive_operands(const check_target *target)
{
    return target->dtype == DIP_BF16 ? CHECK_NAIVE_OPERANDS : CHECK_NAIVE;
}

/* ---- cases ------------------------------------------------------------------------------ */

static void *must_allocate(size_t n_bytes)
{
    void *memory = calloc(n_bytes > 0 ? n_bytes : 1, 1);
    if (!memory) fail_msg("the test needs %zu bytes", n_bytes);
    return memory;
}

static const dip_device *device_of(const check_case *c)
{
    return c->target->execs[0].device;
}

static void must(const check_case *c, dip_status status)
{
    if (status != DIP_OK) fail_msg("%s: %s", c->label, dip_error());
}

void check_begin(check_case *c, check_target *target, const char *label, ...)
{
    va_list arguments;
    memset(c, 0, sizeof *c);
    c->target = target;
    int used = snprintf(c->label, sizeof c->label, "%s %s %s ", target->op, target->backend,
                        dip_dtype_name(target->dtype));
    va_start(arguments, label);
    vsnprintf(c->label + used, sizeof c->label - (size_t)used, label, arguments);
    va_end(arguments);
    uint64_t seed = 14695981039346656037u; /* FNV-1a of the label */
    for (const char *s = c->label + used; *s; s++)
        seed = (seed ^ (unsigned char)*s) * 1099511628211u;
    dip_rng_init(&c->rng, seed, dip_rng_stream(DIP_RNG_TEST, 0, 0));
}

void check_end(check_case *c)
{
    for (int i = 0; i < c->n_tensors; i++) {
        device_of(c)->release(device_of(c), c->tensors[i].block);
        free(c->tensors[i].image);
        free(c->tensors[i].before);
        free(c->tensors[i].first_result);
    }
    for (int i = 0; i < c->n_arrays; i++) free(c->arrays[i]);
    memset(c, 0, sizeof *c);
}

double *check_array(check_case *c, int64_t n)
{
    assert_true(c->n_arrays < CHECK_MAX_ARRAYS);
    return c->arrays[c->n_arrays++] = must_allocate((size_t)n * sizeof(double));
}

static size_t type_bytes(check_type type)
{
    static const size_t bytes[] = {
        [CHECK_F32] = 4, [CHECK_BF16] = 2, [CHECK_F64] = 8, [CHECK_I32] = 4, [CHECK_U8] = 1};
    return bytes[type];
}

static double get_value(check_type type, const void *data, int64_t i)
{
    switch (type) {
    case CHECK_F32:
        return (double)((const float *)data)[i];
    case CHECK_BF16:
        return (double)dip_bf16_to_float(((const dip_bf16 *)data)[i]);
    case CHECK_F64:
        return ((const double *)data)[i];
    case CHECK_I32:
        return (double)((const int32_t *)data)[i];
    case CHECK_U8:
        return (double)((const uint8_t *)data)[i];
    }
    return 0.0;
}

static void set_value(check_type type, void *data, int64_t i, double x)
{
    switch (type) {
    case CHECK_F32:
        ((float *)data)[i] = (float)x;
        break;
    case CHECK_BF16:
        ((dip_bf16 *)data)[i] = dip_bf16_from_float((float)x);
        break;
    case CHECK_F64:
        ((double *)data)[i] = x;
        break;
    case CHECK_I32:
        ((int32_t *)data)[i] = (int32_t)x;
        break;
    case CHECK_U8:
        ((uint8_t *)data)[i] = (uint8_t)x;
        break;
    }
}

double check_get(const check_tensor *tensor, int64_t i)
{
    return get_value(tensor->type, tensor->result, i);
}

static size_t block_bytes(size_t n_bytes)
{
    return (2 * GUARD_BYTES + n_bytes + 63) / 64 * 64;
}

static size_t guard_bytes_after(size_t n_bytes)
{
    return block_bytes(n_bytes) - GUARD_BYTES - n_bytes;
}

static unsigned char *new_block(const check_case *c, size_t n_bytes)
{
    void *block;
    must(c, device_of(c)->allocate(device_of(c), &block, block_bytes(n_bytes)));
    return block;
}

/* All guards and poison. */
static unsigned char *new_image(size_t n_bytes)
{
    unsigned char *image = must_allocate(n_bytes);
    memset(image, POISON, n_bytes);
    return image;
}

static check_tensor *new_tensor(check_case *c, const char *name, check_type type, int64_t n)
{
    assert_true(c->n_tensors < CHECK_MAX_TENSORS);
    check_tensor *tensor = &c->tensors[c->n_tensors++];
    *tensor = (check_tensor){.name = name, .type = type, .n = n};
    tensor->n_bytes = (size_t)n * type_bytes(type);
    tensor->block = new_block(c, tensor->n_bytes);
    tensor->image = new_image(block_bytes(tensor->n_bytes));
    tensor->data = tensor->block + GUARD_BYTES;
    tensor->result = tensor->image + GUARD_BYTES;
    tensor->before = must_allocate(tensor->n_bytes);
    memset(tensor->before, POISON, tensor->n_bytes);
    tensor->first_result = must_allocate(tensor->n_bytes);
    return tensor;
}

check_tensor *check_input_values(check_case *c, const char *name, check_type type, int64_t n,
                                 const double *values)
{
    check_tensor *tensor = new_tensor(c, name, type, n);
    tensor->is_input = 1;
    tensor->values = check_array(c, n);
    for (int64_t i = 0; i < n; i++) {
        set_value(type, tensor->before, i, values[i]);
        tensor->values[i] = get_value(type, tensor->before, i);
    }
    return tensor;
}

check_tensor *check_input(check_case *c, const char *name, check_type type, int64_t n, double mean,
                          double spread)
{
    double *values = check_array(c, n);
    for (int64_t i = 0; i < n; i++) values[i] = mean + spread * dip_rng_normal(&c->rng);
    return check_input_values(c, name, type, n, values);
}

check_tensor *check_output(check_case *c, const char *name, check_type type, int64_t n)
{
    check_tensor *tensor = new_tensor(c, name, type, n);
    tensor->is_output = 1;
    return tensor;
}

check_tensor *check_updated(check_case *c, const char *name, check_type type, int64_t n,
                            double mean, double spread)
{
    check_tensor *tensor = check_input(c, name, type, n, mean, spread);
    tensor->is_output = 1;
    return tensor;
}

check_tensor *check_bytes(check_case *c, const char *name, const void *bytes, size_t n_bytes)
{
    const unsigned char *byte = bytes;
    double *values = check_array(c, (int64_t)n_bytes);
    for (size_t i = 0; i < n_bytes; i++) values[i] = (double)byte[i];
    return check_input_values(c, name, CHECK_U8, (int64_t)n_bytes, values);
}

/* ---- calls ------------------------------------------------------------------------------ */

/* In an ASan build the guard bands, GUARD_BYTES before and `after` bytes after the data, may not
 * even be read while an op of the host runs. */
static void fence(const check_case *c, unsigned char *block, size_t n_bytes, size_t after,
                  int closed)
{
    if (!device_of(c)->is_host) return;
#if UNDER_ASAN
    if (closed) {
        ASAN_POISON_MEMORY_REGION(block, GUARD_BYTES);
        ASAN_POISON_MEMORY_REGION(block + GUARD_BYTES + n_bytes, after);
    } else {
        ASAN_UNPOISON_MEMORY_REGION(block, GUARD_BYTES);
        ASAN_UNPOISON_MEMORY_REGION(block + GUARD_BYTES + n_bytes, after);
    }
#else
    (void)block, (void)n_bytes, (void)after, (void)closed;
#endif
}

static void fence_tensors(const check_case *c, int closed)
{
    for (int i = 0; i < c->n_tensors; i++) {
        const check_tensor *tensor = &c->tensors[i];
        fence(c, tensor->block, tensor->n_bytes, guard_bytes_after(tensor->n_bytes), closed);
    }
}

static void check_guards(const check_case *c, const char *name, const unsigned char *before,
                         const unsigned char *after, size_t n_after)
{
    for (size_t i = 0; i < GUARD_BYTES; i++)
        if (before[i] != POISON)
            fail_msg("%s: %s: wrote %zu bytes before its beginning", c->label, name,
                     GUARD_BYTES - i);
    for (size_t i = 0; i < n_after; i++)
        if (after[i] != POISON)
            fail_msg("%s: %s: wrote %zu bytes past its end", c->label, name, i + 1);
}

static void check_bits(const check_case *c, const check_tensor *tensor, const void *expected,
                       const char *complaint, int n_threads)
{
    if (tensor->n_bytes == 0 || memcmp(tensor->result, expected, tensor->n_bytes) == 0) return;
    for (int64_t i = 0; i < tensor->n; i++) {
        double now = check_get(tensor, i), then = get_value(tensor->type, expected, i);
        if (memcmp(&now, &then, sizeof now) == 0) continue;
        fail_msg("%s: %s[%lld] %s: %.9g, before %.9g (%d threads)", c->label, tensor->name,
                 (long long)i, complaint, now, then, n_threads);
    }
}

/* The target's scratch block with room for n_bytes between guards, poisoned. */
static void poison_scratch(check_case *c, dip_exec *exec, size_t n_bytes)
{
    check_target *target = c->target;
    const size_t n_block = block_bytes(n_bytes);
    if (target->scratch_bytes < n_block) {
        if (target->scratch) device_of(c)->release(device_of(c), target->scratch);
        free(target->poison);
        target->scratch = new_block(c, n_bytes);
        target->poison = device_of(c)->is_host ? NULL : new_image(n_block);
        target->scratch_bytes = n_block;
    }
    if (device_of(c)->is_host)
        memset(target->scratch, POISON, n_block); /* workspaces are large, this is quicker */
    else
        must(c, exec->device->upload(exec, target->scratch, target->poison, n_block));
}

/* One call with fresh tensors and a poisoned workspace; everything it left is brought back. */
static void run_once(check_case *c, dip_exec *exec, check_call *call, check_workspace *workspace,
                     void *context)
{
    const dip_device *device = exec->device;
    const size_t n_workspace = workspace ? workspace(exec, context) : 0;
    unsigned char guards[2][GUARD_BYTES];
    poison_scratch(c, exec, n_workspace);
    for (int i = 0; i < c->n_tensors; i++) {
        check_tensor *tensor = &c->tensors[i];
        memset(tensor->image, POISON, block_bytes(tensor->n_bytes));
        memcpy(tensor->image + GUARD_BYTES, tensor->before, tensor->n_bytes);
        must(c, device->upload(exec, tensor->block, tensor->image, block_bytes(tensor->n_bytes)));
    }
    unsigned char *scratch = c->target->scratch;
    const size_t n_beyond = c->target->scratch_bytes - GUARD_BYTES - n_workspace;
    void *own_workspace = exec->workspace;
    size_t own_bytes = exec->workspace_bytes;
    exec->workspace = scratch + GUARD_BYTES;
    exec->workspace_bytes = n_workspace;
    fence(c, scratch, n_workspace, n_beyond, 1);
    fence_tensors(c, 1);
    dip_status status = call(exec, context);
    if (status == DIP_OK) status = device->synchronize(exec);
    fence(c, scratch, n_workspace, n_beyond, 0);
    fence_tensors(c, 0);
    exec->workspace = own_workspace;
    exec->workspace_bytes = own_bytes;
    must(c, status);
    must(c, device->download(exec, guards[0], scratch, GUARD_BYTES));
    must(c, device->download(exec, guards[1], scratch + GUARD_BYTES + n_workspace, GUARD_BYTES));
    check_guards(c, "workspace", guards[0], guards[1], GUARD_BYTES);
    for (int i = 0; i < c->n_tensors; i++) {
        check_tensor *tensor = &c->tensors[i];
        must(c, device->download(exec, tensor->image, tensor->block, block_bytes(tensor->n_bytes)));
        check_guards(c, tensor->name, tensor->image, tensor->image + GUARD_BYTES + tensor->n_bytes,
                     guard_bytes_after(tensor->n_bytes));
    }
}

void check_run(check_case *c, check_call *call, check_workspace *workspace, void *context)
{
    for (int round = 0; round < 2 * c->target->n_execs; round++) {
        const int n_threads = thread_counts[round / 2];
        run_once(c, &c->target->execs[round / 2], call, workspace, context);
        for (int i = 0; i < c->n_tensors; i++) {
            check_tensor *tensor = &c->tensors[i];
            if (!tensor->is_output)
                check_bits(c, tensor, tensor->before, "is an input and changed", n_threads);
            else if (round == 0)
                memcpy(tensor->first_result, tensor->result, tensor->n_bytes);
            else
                check_bits(c, tensor, tensor->first_result, "differs between calls", n_threads);
        }
    }
}

/* ---- comparisons ------------------------------------------------------------------------ */

double check_largest(const double *values, int64_t n)
{
    double largest = 0.0;
    for (int64_t i = 0; i < n; i++)
        if (fabs(values[i]) > largest) largest = fabs(values[i]);
    return largest;
}

void check_close(check_case *c, const check_tensor *tensor, const double *exact,
                 const double *naive, double floor)
{
    const double unit = tensor->type == CHECK_BF16 ? 0x1p-8 : 0x1p-24;
    const int64_t n = tensor->n;
    double naive_max = 0.0, naive_squares = 0.0, squares = 0.0, rounding_squares = 0.0;
    floor = fmax(floor, 0x1p-24 * check_largest(exact, n));
    for (int64_t i = 0; i < n; i++) {
        double error = fabs(naive[i] - exact[i]);
        if (!isfinite(exact[i]) || !isfinite(error))
            fail_msg("%s: the oracle of %s[%lld] is %g, naively %g", c->label, tensor->name,
                     (long long)i, exact[i], naive[i]);
        naive_max = fmax(naive_max, error);
        naive_squares += error * error;
    }
    for (int64_t i = 0; i < n; i++) {
        double got = check_get(tensor, i), error = fabs(got - exact[i]);
        double slack = CHECK_K * (naive_max + floor);
        double rounding = unit * (fabs(exact[i]) + slack); /* of a value that far away */
        if (!(error <= slack + rounding))
            fail_msg("%s: %s[%lld] is %.9g, float64 says %.9g: error %.3g > %.3g = %g x (naive "
                     "error %.3g + floor %.3g) + rounding %.3g",
                     c->label, tensor->name, (long long)i, got, exact[i], error, slack + rounding,
                     CHECK_K, naive_max, floor, rounding);
        squares += error * error;
        rounding_squares += rounding * rounding;
    }
    double mean = n > 0 ? 1.0 / (double)n : 0.0, rms = sqrt(squares * mean);
    double naive_rms = sqrt(naive_squares * mean), rounding_rms = sqrt(rounding_squares * mean);
    if (!(rms <= CHECK_K * (naive_rms + floor) + rounding_rms))
        fail_msg("%s: %s: root mean square error %.3g > %g x (naive %.3g + floor %.3g) + rounding "
                 "%.3g",
                 c->label, tensor->name, rms, CHECK_K, naive_rms, floor, rounding_rms);
}

void check_equal(check_case *c, const check_tensor *tensor, const double *expected)
{
    for (int64_t i = 0; i < tensor->n; i++) {
        double got = check_get(tensor, i);
        if (isnan(got) && isnan(expected[i])) continue;
        if (got == expected[i] && signbit(got) == signbit(expected[i])) continue;
        fail_msg("%s: %s[%lld] is %.9g, not %.9g", c->label, tensor->name, (long long)i, got,
                 expected[i]);
    }
}

void check_gradient(check_case *c, const char *name, double *x, const double *d_x, int64_t n,
                    double (*objective)(void *context), void *context)
{
    enum { N_PROBES = 40 };
    const double step = 1e-5, tolerance = 1e-6 * (1e-3 + check_largest(d_x, n));
    for (int64_t i = 0; i < n; i += 1 + n / N_PROBES) {
        const double middle = x[i];
        x[i] = middle + step;
        double above = objective(context);
        x[i] = middle - step;
        double below = objective(context);
        x[i] = middle;
        double slope = (above - below) / (2.0 * step);
        if (!(fabs(slope - d_x[i]) <= tolerance))
            fail_msg("%s: %s[%lld]: the oracle says %.9g, finite differences %.9g (tolerance %.2g)",
                     c->label, name, (long long)i, d_x[i], slope, tolerance);
    }
}

int64_t check_edge_size(dip_rng *rng, int64_t largest)
{
    int64_t size = 1;
    switch (dip_rng_below(rng, 4)) {
    case 0:
        size = 1 + (int64_t)dip_rng_below(rng, 3);
        break;
    case 1:
        size = ((int64_t)1 << dip_rng_below(rng, 12)) - 1 + (int64_t)dip_rng_below(rng, 3);
        break;
    case 2:
        size = largest - (int64_t)dip_rng_below(rng, 2);
        break;
    default:
        size = 1 + (int64_t)dip_rng_below(rng, (uint64_t)largest);
        break;
    }
    return size < 1 ? 1 : size > largest ? 1 + size % largest : size;
}
