/* A stack of blocks with every way to keep or forget activations: the same numbers, and the memory
 * that was promised. Scratch is filled with NaN before forward and again before backward, as
 * another tower would. DIPTYCH_TEST_DEVICE names the device. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/plan.h"
#include "core/rng.h"
#include "nn/stack.h"

enum { C = 64, H = 2, F = 256, MAX_BLOCKS = 3, MAX_ROWS = 48, MAX_POOLED = 6, MAX_SEQUENCES = 8 };

static const char *const mode_names[] = {"none", "mlp", "block"};

/* One batch: sequence lengths, and which rows are pooled. */
typedef struct batch {
    int lengths[MAX_SEQUENCES];
    int n_sequences;
    int32_t rows[MAX_POOLED];
    int n_pooled; /* given as such, unless it is one a sequence */
} batch;

static const batch even = {{5, 5, 5, 5}, 4, {4, 9, 14, 19}, 4};
/* Rows of some sequences are not wanted, and some sequences have none. */
static const batch uneven = {{5, 0, 17, 1, 0, 9, 3}, 7, {4, 21, 31}, 3};
static const batch nothing = {{0, 0}, 2, {0}, 0};

typedef struct setting {
    dip_dtype dtype;
    int n_blocks;
    bool causal, rows_only;
    dip_pass_options options;
} setting;

/* What a run computed, on the host. */
typedef struct result {
    int64_t n_out, n_rows;
    unsigned char output[MAX_ROWS * C * sizeof(float)], d_x[MAX_ROWS * C * sizeof(float)]; /* T */
    dip_param_table table;
    dip_block blocks[MAX_BLOCKS];
    float *grads; /* [table.n_values] */
    size_t bytes[DIP_N_SPACES], alignment;
} result;

static void ok(dip_status status)
{
    if (status != DIP_OK) print_error("%s\n", dip_error());
    assert_int_equal(status, DIP_OK);
}

static void free_result(result *r)
{
    dip_param_table_free(&r->table);
    free(r->grads);
    free(r);
}

static void *allocate_on(void *context, size_t n_bytes)
{
    const dip_device *device = context;
    void *pointer;
    return device->allocate(device, &pointer, n_bytes) == DIP_OK ? pointer : NULL;
}
static void release_on(void *context, void *pointer)
{
    const dip_device *device = context;
    device->release(device, pointer);
}

/* n numbers of type T around 0, the same for the same `item`. */
static void upload_random(dip_exec *exec, void *out, int64_t n, uint64_t item)
{
    const dip_dtype dtype = exec->ops->dtype;
    unsigned char *host = malloc((size_t)n * sizeof(float) + 1);
    assert_non_null(host);
    dip_rng rng;
    dip_rng_init(&rng, 7, dip_rng_stream(DIP_RNG_TEST, 0, item));
    for (int64_t i = 0; i < n; i++) {
        const float x = (float)dip_rng_normal(&rng);
        const dip_bf16 half = dip_bf16_from_float(x);
        if (dtype == DIP_BF16)
            memcpy(host + (size_t)i * sizeof half, &half, sizeof half);
        else
            memcpy(host + (size_t)i * sizeof x, &x, sizeof x);
    }
    ok(exec->device->upload(exec, out, host, (size_t)n * dip_dtype_bytes(dtype)));
    free(host);
}

/* Initial weights, and all biases and norms moved off 0 and 1. */
static void upload_weights(dip_exec *exec, const result *r, void *values, float *master)
{
    const int64_t n = r->table.n_values;
    float *host = malloc((size_t)n * sizeof *host);
    assert_non_null(host);
    dip_param_table_init_values(&r->table, host, 11);
    dip_rng rng;
    dip_rng_init(&rng, 8, dip_rng_stream(DIP_RNG_TEST, 0, 0));
    for (int64_t i = 0; i < n; i++) host[i] += (float)dip_rng_range(&rng, -0.05, 0.05);
    ok(exec->device->upload(exec, master, host, (size_t)n * sizeof *host));
    if (values != master) ok(exec->ops->cast_from_float(exec, values, master, n));
    free(host);
}

static void fill_with_nan(dip_exec *exec, void *out, size_t n_bytes)
{
    void *host = malloc(n_bytes + 1);
    assert_non_null(host);
    memset(host, 0xff, n_bytes);
    ok(exec->device->upload(exec, out, host, n_bytes));
    free(host);
}

/* Forward, and backward when saving, of one batch. */
static result *run(const setting *s, const batch *b)
{
    const char *device_name = getenv("DIPTYCH_TEST_DEVICE");
    dip_exec exec;
    ok(dip_exec_open(&exec, device_name ? device_name : "cpu", s->dtype, 2));
    const dip_device *device = exec.device;
    const size_t t = dip_dtype_bytes(s->dtype), row_bytes = C * t;
    result *r = calloc(1, sizeof *r);
    assert_non_null(r);
    for (int i = 0; i < s->n_blocks; i++)
        dip_block_init(&r->blocks[i], &r->table, "test", i, C, H, F, s->causal,
                       i % 2 ? DIP_ACT_GELU : DIP_ACT_QUICKGELU, 1e-5, DIP_BLOCK_INIT_TORCH,
                       s->n_blocks);
    ok(dip_param_table_layout(&r->table));
    const size_t n = (size_t)r->table.n_values;

    dip_plan *plan;
    const dip_memory_source source = {allocate_on, release_on, (void *)device, device->alignment,
                                      device->is_host};
    ok(dip_plan_init(&plan, &source));
    dip_region master = dip_plan_book(plan, "master", DIP_SPACE_PARAM, n * sizeof(float));
    dip_region values =
        s->dtype == DIP_F32 ? master : dip_plan_book(plan, "values", DIP_SPACE_PARAM, n * t);
    dip_region grads = dip_plan_book(plan, "grads", DIP_SPACE_GRAD, n * sizeof(float));
    dip_region offsets =
        dip_plan_book(plan, "offsets", DIP_SPACE_STATE, (MAX_SEQUENCES + 1) * sizeof(int32_t));
    dip_region rows = dip_plan_book(plan, "rows", DIP_SPACE_STATE, sizeof b->rows);
    dip_stack_pass pass;
    ok(dip_stack_plan(&pass, r->blocks, s->n_blocks, plan, &exec, MAX_ROWS,
                      s->rows_only ? MAX_POOLED : 0, s->options, "test"));
    for (int space = 0; space < DIP_N_SPACES; space++)
        r->bytes[space] = dip_plan_bytes(plan, (dip_space)space);
    r->alignment = device->alignment;
    dip_plan_release(plan, 0);
    dip_region other = dip_plan_book(plan, "other", DIP_SPACE_SCRATCH, r->bytes[DIP_SPACE_SCRATCH]);
    ok(dip_plan_allocate(plan));
    dip_stack_bind(&pass, plan);
    void *others = dip_plan_ptr(plan, other);

    int32_t host_offsets[MAX_SEQUENCES + 1] = {0};
    int max_length = 0;
    for (int i = 0; i < b->n_sequences; i++) {
        host_offsets[i + 1] = host_offsets[i] + b->lengths[i];
        if (b->lengths[i] > max_length) max_length = b->lengths[i];
    }
    const dip_sequences sequences = {
        .offsets = dip_plan_ptr(plan, offsets),
        .n_sequences = b->n_sequences,
        .n_rows = host_offsets[b->n_sequences],
        .max_length = max_length,
        .n_pooled = b->n_pooled == b->n_sequences ? 0 : b->n_pooled,
    };
    const dip_param_set params = {&r->table, s->dtype, dip_plan_ptr(plan, values),
                                  dip_plan_ptr(plan, master), dip_plan_ptr(plan, grads)};
    r->n_rows = sequences.n_rows;
    r->n_out = s->rows_only ? b->n_pooled : r->n_rows;
    ok(dip_exec_reserve(
        &exec, dip_block_workspace(&r->blocks[0], &exec, MAX_ROWS, MAX_SEQUENCES, max_length)));
    upload_weights(&exec, r, params.values, params.master);
    ok(device->zero(&exec, params.grads, n * sizeof(float)));
    ok(device->upload(&exec, dip_plan_ptr(plan, offsets), host_offsets, sizeof host_offsets));
    ok(device->upload(&exec, dip_plan_ptr(plan, rows), b->rows, sizeof b->rows));
    const int32_t *pooled_rows = s->rows_only ? dip_plan_ptr(plan, rows) : NULL;

    fill_with_nan(&exec, others, r->bytes[DIP_SPACE_SCRATCH]);
    upload_random(&exec, dip_stack_input(&pass), r->n_rows * C, 1);
    ok(dip_stack_forward(&exec, &pass, &params, sequences, pooled_rows));
    if (s->options.save) fill_with_nan(&exec, others, r->bytes[DIP_SPACE_SCRATCH]);
    ok(device->download(&exec, r->output, dip_stack_output(&pass), (size_t)r->n_out * row_bytes));
    if (s->options.save) {
        void *d_x = NULL;
        upload_random(&exec, dip_stack_d_output(&pass), r->n_out * C, 2);
        ok(dip_stack_backward(&exec, &pass, &params, sequences, pooled_rows, &d_x));
        assert_true(d_x == pass.d[0] || d_x == pass.d[1]);
        ok(device->download(&exec, r->d_x, d_x, (size_t)r->n_rows * row_bytes));
        r->grads = malloc(n * sizeof *r->grads);
        assert_non_null(r->grads);
        ok(device->download(&exec, r->grads, params.grads, n * sizeof *r->grads));
    }
    dip_stack_free(&pass);
    dip_plan_free(plan);
    dip_exec_close(&exec);
    return r;
}

/* ---- comparing --------------------------------------------------------------------------- */

static bool on_host(void)
{
    const char *name = getenv("DIPTYCH_TEST_DEVICE");
    dip_exec exec;
    ok(dip_exec_open(&exec, name ? name : "cpu", DIP_F32, 1));
    const bool is_host = exec.device->is_host;
    dip_exec_close(&exec);
    return is_host;
}

static double value_at(const void *tensor, dip_dtype dtype, int64_t i)
{
    float x;
    dip_bf16 half;
    if (dtype == DIP_F32) {
        memcpy(&x, (const char *)tensor + (size_t)i * sizeof x, sizeof x);
        return (double)x;
    }
    memcpy(&half, (const char *)tensor + (size_t)i * sizeof half, sizeof half);
    return (double)dip_bf16_to_float(half);
}

/* |a - b| / |b| in the Euclidean norm; NaN is far. */
static double distance(const void *a, const void *b, dip_dtype dtype, int64_t n)
{
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        const double x = value_at(a, dtype, i), y = value_at(b, dtype, i);
        difference += (x - y) * (x - y);
        size += y * y;
    }
    if (isnan(difference) || isnan(size)) return INFINITY;
    if (difference == 0) return 0;
    return size > 0 ? sqrt(difference / size) : INFINITY;
}

/* tolerance 0: the same bits. */
static void check_tensor(const char *what, const void *a, const void *b, dip_dtype dtype, int64_t n,
                         double tolerance)
{
    const double far = distance(a, b, dtype, n);
    const bool same = memcmp(a, b, (size_t)n * dip_dtype_bytes(dtype)) == 0;
    if (far <= tolerance && (same || tolerance > 0)) return;
    fail_msg("%s: relative distance %g, allowed %g", what, far, tolerance);
}

static void check_grads(const char *what, const result *a, const result *b, double tolerance,
                        const char *looser, double looser_tolerance)
{
    for (int i = 0; i < a->table.n_params; i++) {
        const dip_param *param = &a->table.params[i];
        char label[256];
        snprintf(label, sizeof label, "%s: gradient of %s", what, param->name);
        check_tensor(label, a->grads + param->offset, b->grads + param->offset, DIP_F32,
                     param->n_elements,
                     looser && strstr(param->name, looser) ? looser_tolerance : tolerance);
    }
}

/* Something was computed at all. */
static void check_moves(const result *r, dip_dtype dtype)
{
    const char zero[sizeof r->output] = {0};
    assert_true(isinf(distance(r->output, zero, dtype, r->n_out * C)));
    if (!r->grads) return;
    assert_true(isinf(distance(r->d_x, zero, dtype, r->n_rows * C)));
    for (int i = 0; i < r->table.n_params; i++) {
        double sum = 0;
        for (int64_t j = 0; j < r->table.params[i].n_elements; j++)
            sum += fabs((double)r->grads[r->table.params[i].offset + j]);
        assert_true(sum > 0 && isfinite(sum));
    }
}

static void each_setting(void (*check)(const setting *, const batch *))
{
    for (int dtype = DIP_F32; dtype <= DIP_BF16; dtype++)
        for (int n_blocks = 1; n_blocks <= MAX_BLOCKS; n_blocks += 2)
            for (int rows_only = 0; rows_only <= 1; rows_only++) {
                const setting s = {.dtype = (dip_dtype)dtype,
                                   .n_blocks = n_blocks,
                                   .causal = rows_only,
                                   .rows_only = rows_only,
                                   .options = {.save = true}};
                check(&s, n_blocks == 1 ? &even : &uneven);
            }
}

/* ---- recomputation ----------------------------------------------------------------------- */

static void check_modes(const setting *s, const batch *b)
{
    result *kept = run(s, b);
    check_moves(kept, s->dtype);
    for (int mode = DIP_RECOMPUTE_MLP; mode <= DIP_RECOMPUTE_BLOCK; mode++) {
        setting forgets = *s;
        char what[128];
        forgets.options.recompute = (dip_recompute)mode;
        snprintf(what, sizeof what, "%s, %s, %d blocks, %s", mode_names[mode],
                 dip_dtype_name(s->dtype), s->n_blocks, s->rows_only ? "pooled rows" : "all rows");
        result *again = run(&forgets, b);
        check_tensor(what, again->output, kept->output, s->dtype, kept->n_out * C, 0);
        check_tensor(what, again->d_x, kept->d_x, s->dtype, kept->n_rows * C, 0);
        /* The only tensor that sees the activation of the rounded value. */
        const bool rounds = mode == DIP_RECOMPUTE_MLP && s->dtype == DIP_BF16;
        check_grads(what, again, kept, 0, rounds ? "mlp.c_proj.weight" : NULL, 0x1p-8);
        free_result(again);
    }
    free_result(kept);
}

static void what_is_forgotten_is_computed_again(void **state)
{
    (void)state;
    each_setting(check_modes);
}

static void check_not_saving(const setting *s, const batch *b)
{
    setting forward_only = *s;
    forward_only.options = (dip_pass_options){.save = false};
    result *a = run(&forward_only, b);
    check_moves(a, s->dtype);
    for (int all_rows = 0; all_rows <= s->rows_only; all_rows++) {
        setting saving = *s;
        saving.options.all_rows = all_rows;
        result *c = run(&saving, b);
        forward_only.options.all_rows = all_rows;
        result *d = run(&forward_only, b);
        /* A backend may take another path when the activation's input is not wanted. */
        const double tolerance = on_host() ? 0 : s->dtype == DIP_BF16 ? 0x1p-7 : 1e-5;
        check_tensor("not saving", a->output, c->output, s->dtype, a->n_out * C, tolerance);
        check_tensor("not saving", d->output, c->output, s->dtype, a->n_out * C, tolerance);
        free_result(c);
        free_result(d);
    }
    free_result(a);
}

static void a_pass_that_does_not_save_computes_the_same(void **state)
{
    (void)state;
    each_setting(check_not_saving);
}

/* ---- rows that nobody reads -------------------------------------------------------------- */

static void check_all_rows(const setting *s, const batch *b)
{
    if (!s->rows_only) return;
    result *few = run(s, b);
    for (int mode = DIP_RECOMPUTE_NONE; mode <= DIP_RECOMPUTE_BLOCK; mode++) {
        setting every = *s;
        char what[128];
        every.options.all_rows = true;
        every.options.recompute = (dip_recompute)mode;
        snprintf(what, sizeof what, "all rows, %s, %s, %d blocks", mode_names[mode],
                 dip_dtype_name(s->dtype), s->n_blocks);
        result *all = run(&every, b);
        const double rounding = s->dtype == DIP_BF16 ? 0x1p-7 : 1e-5;
        /* A GPU may sum a product of other extents in another order. */
        check_tensor(what, all->output, few->output, s->dtype, few->n_out * C,
                     on_host() ? 0 : rounding);
        check_tensor(what, all->d_x, few->d_x, s->dtype, few->n_rows * C, rounding);
        check_grads(what, all, few, rounding, NULL, 0);
        free_result(all);
    }
    free_result(few);
}

static void all_rows_give_the_same(void **state)
{
    (void)state;
    each_setting(check_all_rows);
}

static void check_empty(const setting *s, const batch *b)
{
    (void)b;
    for (int all_rows = 0; all_rows <= s->rows_only; all_rows++)
        for (int mode = DIP_RECOMPUTE_NONE; mode <= DIP_RECOMPUTE_BLOCK; mode++) {
            setting empty = *s;
            empty.options.recompute = (dip_recompute)mode;
            empty.options.all_rows = all_rows;
            /* No sequence, and sequences of no rows (none of which can be pooled). */
            batch none = nothing;
            none.n_sequences = s->rows_only ? 0 : nothing.n_sequences;
            result *r = run(&empty, &none);
            for (int64_t i = 0; i < r->table.n_values; i++) assert_true(r->grads[i] == 0.0f);
            free_result(r);
        }
}

static void an_empty_batch_changes_nothing(void **state)
{
    (void)state;
    each_setting(check_empty);
}

/* ---- memory ------------------------------------------------------------------------------ */

/* What the plan takes for [rows, columns]. */
static size_t region(const result *r, size_t rows, size_t columns, size_t element_bytes)
{
    const size_t a = r->alignment;
    return (rows * columns * element_bytes + a - 1) / a * a + a;
}

/* All but the three tensors that DIP_RECOMPUTE_MLP forgets, of a block with m rows after attention
 * and `pre` of so many columns (0: elsewhere). */
static size_t block_bytes(const result *r, size_t m, bool rows_only, size_t pre, size_t t)
{
    const size_t n = MAX_ROWS, f = sizeof(float);
    return region(r, n, 3 * C, t) + region(r, n, C, t) + region(r, n, H, f) +
           (rows_only ? 2 * region(r, MAX_POOLED, C, t) : 0) + region(r, m, C, t) +
           (pre ? region(r, m, pre, t) : 0) + region(r, 2 * n + 2 * m, 1, f);
}

static void check_memory(const setting *s, const batch *b)
{
    const size_t t = dip_dtype_bytes(s->dtype), n = MAX_ROWS, m = s->rows_only ? MAX_POOLED : n;
    const size_t before = (size_t)s->n_blocks - 1; /* blocks on all rows */
    size_t saved[3], scratch[3];
    result *r[3];
    for (int mode = 0; mode < 3; mode++) {
        setting with = *s;
        with.options.recompute = (dip_recompute)mode;
        r[mode] = run(&with, b);
        saved[mode] = r[mode]->bytes[DIP_SPACE_SAVED];
        scratch[mode] = r[mode]->bytes[DIP_SPACE_SCRATCH];
    }
    const size_t x = (before + 1) * region(r[0], n, C, t) + region(r[0], m, C, t);
    const size_t mlp =
        x + before * block_bytes(r[0], n, false, F, t) + block_bytes(r[0], m, s->rows_only, F, t);
    const size_t forgotten = before * (2 * region(r[0], n, C, t) + region(r[0], n, F, t)) +
                             region(r[0], n, C, t) + region(r[0], m, C, t) + region(r[0], m, F, t);
    assert_int_equal(saved[DIP_RECOMPUTE_NONE], mlp + forgotten);
    assert_int_equal(saved[DIP_RECOMPUTE_MLP], mlp);
    assert_int_equal(saved[DIP_RECOMPUTE_BLOCK], x);

    const size_t backward = 4 * region(r[0], n, C, t) + region(r[0], n, F, t);
    assert_int_equal(scratch[DIP_RECOMPUTE_NONE], backward + region(r[0], n, 3 * C, t));
    assert_int_equal(scratch[DIP_RECOMPUTE_MLP], scratch[DIP_RECOMPUTE_NONE]);
    /* One set for all blocks; a lone block needs no more rows after attention than it has. */
    assert_true(F > 3 * C);
    assert_int_equal(scratch[DIP_RECOMPUTE_BLOCK],
                     backward + region(r[0], n, F, t) +
                         block_bytes(r[0], before > 0 ? n : m, s->rows_only, 0, t));
    if (before > 0) {
        assert_true(saved[DIP_RECOMPUTE_MLP] < saved[DIP_RECOMPUTE_NONE]);
        assert_true(saved[DIP_RECOMPUTE_BLOCK] + scratch[DIP_RECOMPUTE_BLOCK] <
                    saved[DIP_RECOMPUTE_MLP] + scratch[DIP_RECOMPUTE_MLP]);
    }
    for (int mode = 0; mode < 3; mode++) free_result(r[mode]);

    /* Rows that nobody reads: the last block saves as the others do, and its output is scratch that
     * backward has anyway. */
    if (s->rows_only) {
        setting every = *s;
        every.options.all_rows = true;
        result *a = run(&every, b);
        const size_t whole =
            block_bytes(a, n, false, F, t) + 2 * region(a, n, C, t) + region(a, n, F, t);
        assert_int_equal(a->bytes[DIP_SPACE_SAVED], x + (before + 1) * whole);
        assert_int_equal(a->bytes[DIP_SPACE_SCRATCH], scratch[DIP_RECOMPUTE_NONE]);
        free_result(a);
    }

    /* Not saving: nothing is saved, and more blocks take no more. */
    setting forward_only = *s;
    forward_only.options.save = false;
    result *a = run(&forward_only, b);
    assert_int_equal(a->bytes[DIP_SPACE_SAVED], 0);
    if (before > 0) {
        forward_only.n_blocks--;
        result *one_less = run(&forward_only, b);
        assert_int_equal(a->bytes[DIP_SPACE_SCRATCH], one_less->bytes[DIP_SPACE_SCRATCH]);
        free_result(one_less);
    }
    free_result(a);
}

static void memory_is_as_predicted(void **state)
{
    (void)state;
    each_setting(check_memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_forgotten_is_computed_again),
        cmocka_unit_test(a_pass_that_does_not_save_computes_the_same),
        cmocka_unit_test(all_rows_give_the_same),
        cmocka_unit_test(an_empty_batch_changes_nothing),
        cmocka_unit_test(memory_is_as_predicted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
