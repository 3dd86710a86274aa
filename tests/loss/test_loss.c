/* The objective against its formula, written out in double with whole B x B matrices: value and
 * every gradient, for each meaning of identical captions; and what must not matter.            */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "loss/loss.h"
#include "train/devices.h"

enum { MAX_B = 70, MAX_E = 40 };

typedef struct problem {
    int64_t b, e;
    float u[MAX_B * MAX_E], v[MAX_B * MAX_E], log_scale;
    int32_t group[MAX_B];
} problem;

typedef struct answer {
    double loss, d_log_scale;
    double d_u[MAX_B * MAX_E], d_v[MAX_B * MAX_E];
} answer;

/* Unit rows, v near u as after some training; every third caption is one of two. */
static void make_problem(problem *p, int64_t b, int64_t e, float log_scale, uint64_t seed)
{
    dip_rng rng;
    dip_rng_init(&rng, seed, dip_rng_stream(DIP_RNG_TEST, 0, 0));
    p->b = b;
    p->e = e;
    p->log_scale = log_scale;
    for (int64_t i = 0; i < b; i++) {
        double nu = 0, nv = 0, u[MAX_E], v[MAX_E];
        for (int64_t j = 0; j < e; j++) {
            u[j] = dip_rng_normal(&rng);
            v[j] = 0.5 * u[j] + dip_rng_normal(&rng);
            nu += u[j] * u[j];
            nv += v[j] * v[j];
        }
        for (int64_t j = 0; j < e; j++) {
            p->u[i * e + j] = (float)(u[j] / sqrt(nu));
            p->v[i * e + j] = (float)(v[j] / sqrt(nv));
        }
        p->group[i] = i % 3 == 2 ? (i % 2 ? 2 : 5) : (int32_t)i;
        if (p->group[i] > i) p->group[i] = (int32_t)i;
    }
}

/* loss = (CE of rows + CE of columns) / 2 with targets T; entries outside `counts` do not exist. */
static void solve(answer *a, const problem *p, dip_duplicates duplicates)
{
    static double logits[MAX_B][MAX_B], t[MAX_B][MAX_B], g[MAX_B][MAX_B];
    static int counts[MAX_B][MAX_B];
    const int64_t b = p->b, e = p->e;
    const double scale = exp((double)p->log_scale);
    memset(a, 0, sizeof *a);
    for (int64_t i = 0; i < b; i++) {
        int same = 0;
        for (int64_t j = 0; j < b; j++) same += p->group[j] == p->group[i];
        for (int64_t j = 0; j < b; j++) {
            const int twin = p->group[i] == p->group[j];
            double dot = 0;
            for (int64_t k = 0; k < e; k++)
                dot += (double)p->u[i * e + k] * (double)p->v[j * e + k];
            logits[i][j] = scale * dot;
            counts[i][j] = !(duplicates == DIP_DUP_MASK && twin && i != j);
            t[i][j] = duplicates == DIP_DUP_POSITIVE ? (twin ? 1.0 / same : 0) : i == j;
            g[i][j] = 0;
        }
    }
    for (int64_t i = 0; i < b; i++) {
        double row = 0, column = 0;
        for (int64_t j = 0; j < b; j++) {
            row += counts[i][j] ? exp(logits[i][j]) : 0;
            column += counts[j][i] ? exp(logits[j][i]) : 0;
        }
        for (int64_t j = 0; j < b; j++) {
            if (counts[i][j]) {
                a->loss -= t[i][j] * (logits[i][j] - log(row)) / (2.0 * (double)b);
                g[i][j] += (exp(logits[i][j]) / row - t[i][j]) / (2.0 * (double)b);
            }
            if (counts[j][i]) {
                a->loss -= t[j][i] * (logits[j][i] - log(column)) / (2.0 * (double)b);
                g[j][i] += (exp(logits[j][i]) / column - t[j][i]) / (2.0 * (double)b);
            }
        }
    }
    for (int64_t i = 0; i < b; i++)
        for (int64_t j = 0; j < b; j++) {
            a->d_log_scale += g[i][j] * logits[i][j];
            for (int64_t k = 0; k < e; k++) {
                a->d_u[i * e + k] += scale * g[i][j] * (double)p->v[j * e + k];
                a->d_v[j * e + k] += scale * g[i][j] * (double)p->u[i * e + k];
            }
        }
}

/* The parts of a loss on a device. */
enum { P_U, P_V, P_GROUP, P_SCALE, P_D_U, P_D_V, P_D_SCALE, P_STATS, P_LOSS, N_PARTS };

/* The same by the loss under test. group NULL: without. */
static void run_loss(answer *a, const problem *p, dip_duplicates duplicates, const int32_t *group,
                     const char *device, dip_dtype dtype, int n_threads)
{
    const dip_loss *loss = dip_loss_find("infonce");
    const size_t n = (size_t)(p->b * p->e), features = n * sizeof(float);
    static float d_u[MAX_B * MAX_E], d_v[MAX_B * MAX_E];
    void *at[N_PARTS];
    dip_exec exec;
    assert_non_null(loss);
    const size_t bytes[N_PARTS] = {[P_U] = features,
                                   [P_V] = features,
                                   [P_GROUP] = (size_t)p->b * sizeof(int32_t),
                                   [P_SCALE] = sizeof(float),
                                   [P_D_U] = features,
                                   [P_D_V] = features,
                                   [P_D_SCALE] = sizeof(float),
                                   [P_STATS] = (size_t)loss->stats_floats(p->b) * sizeof(float),
                                   [P_LOSS] = sizeof(double)};
    assert_int_equal(dip_exec_open(&exec, device, dtype, n_threads), DIP_OK);
    assert_int_equal(dip_exec_reserve(&exec, loss->workspace(&exec, p->b, p->e, duplicates)),
                     DIP_OK);
    for (int i = 0; i < N_PARTS; i++)
        assert_int_equal(exec.device->allocate(exec.device, &at[i], bytes[i]), DIP_OK);
    to_device(&exec, at[P_U], p->u, features);
    to_device(&exec, at[P_V], p->v, features);
    to_device(&exec, at[P_SCALE], &p->log_scale, sizeof p->log_scale);
    if (group) to_device(&exec, at[P_GROUP], group, bytes[P_GROUP]);
    for (size_t i = 0; i < n; i++) d_u[i] = NAN;
    to_device(&exec, at[P_D_U], d_u, features);
    to_device(&exec, at[P_D_V], d_u, features);

    const dip_loss_input in = {.u = at[P_U],
                               .v = at[P_V],
                               .group = group ? at[P_GROUP] : NULL,
                               .duplicates = duplicates,
                               .batch = p->b,
                               .embed = p->e,
                               .log_scale = at[P_SCALE]};
    dip_loss_output out = {.d_u = at[P_D_U],
                           .d_v = at[P_D_V],
                           .d_logit_scale = at[P_D_SCALE],
                           .stats = at[P_STATS],
                           .loss = at[P_LOSS]};
    float d_scale;
    assert_int_equal(loss->forward_backward(&exec, &out, &in), DIP_OK);
    from_device(&exec, d_u, at[P_D_U], features);
    from_device(&exec, d_v, at[P_D_V], features);
    from_device(&exec, &d_scale, at[P_D_SCALE], sizeof d_scale);
    from_device(&exec, &a->loss, at[P_LOSS], sizeof a->loss);
    a->d_log_scale = (double)d_scale;
    for (size_t i = 0; i < n; i++) {
        a->d_u[i] = (double)d_u[i];
        a->d_v[i] = (double)d_v[i];
    }
    /* the value alone is the same value */
    double value = NAN;
    to_device(&exec, at[P_LOSS], &value, sizeof value);
    dip_loss_output alone = {.stats = at[P_STATS], .loss = at[P_LOSS]};
    assert_int_equal(loss->forward_backward(&exec, &alone, &in), DIP_OK);
    from_device(&exec, &value, at[P_LOSS], sizeof value);
    assert_true(value == a->loss);
    for (int i = 0; i < N_PARTS; i++) exec.device->release(exec.device, at[i]);
    dip_exec_close(&exec);
}

static double relative(const double *got, const double *want, int64_t n)
{
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += (got[i] - want[i]) * (got[i] - want[i]);
        size += want[i] * want[i];
    }
    return sqrt(difference / size);
}

/* d_log_scale is a sum of terms that cancel: its error is judged by its largest term's size. */
static void compare(const answer *got, const answer *want, const problem *p, double bound,
                    const char *what)
{
    const int64_t n = p->b * p->e;
    const double loss = fabs(got->loss - want->loss) / fmax(1, fabs(want->loss));
    const double d_scale = fabs(got->d_log_scale - want->d_log_scale) /
                           fmax(exp((double)p->log_scale) / 10, fabs(want->d_log_scale));
    const double d_u = relative(got->d_u, want->d_u, n), d_v = relative(got->d_v, want->d_v, n);
    if (!(loss <= bound && d_scale <= bound && d_u <= bound && d_v <= bound))
        fail_msg("%s, %lld x %lld, scale %g: loss is off by %.3g, d_u %.3g, d_v %.3g, d_scale %.3g",
                 what, (long long)p->b, (long long)p->e, exp((double)p->log_scale), loss, d_u, d_v,
                 d_scale);
}

static const struct {
    dip_duplicates mode;
    const char *name;
} modes[] = {
    {DIP_DUP_NEGATIVE, "negative"}, {DIP_DUP_POSITIVE, "positive"}, {DIP_DUP_MASK, "mask"}};

/* Features that bf16 holds exactly: what a backend may round first is then no error. */
static void round_features(problem *p)
{
    for (int64_t i = 0; i < p->b * p->e; i++) {
        p->u[i] = dip_bf16_to_float(dip_bf16_from_float(p->u[i]));
        p->v[i] = dip_bf16_to_float(dip_bf16_from_float(p->v[i]));
    }
}

static void check_formula(dip_dtype dtype, bool rounded, double bound)
{
    static const struct {
        int64_t b, e;
        float log_scale;
    } shapes[] = {{2, 3, 0}, {7, 16, 2.66f}, {32, 32, 2.66f}, {65, 40, 4.6051702f}, {70, 1, 1}};
    const char *devices[2];
    const int n_devices = devices_under_test(devices);
    static problem p;
    static answer want, got;
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
        for (int m = 0; m < 3; m++)
            for (int d = 0; d < n_devices; d++) {
                make_problem(&p, shapes[s].b, shapes[s].e, shapes[s].log_scale, s);
                if (rounded) round_features(&p);
                solve(&want, &p, modes[m].mode);
                run_loss(&got, &p, modes[m].mode, p.group, devices[d], dtype, 2);
                compare(&got, &want, &p, bound, modes[m].name);
            }
}

static void test_formula_fp32(void **state)
{
    (void)state;
    check_formula(DIP_F32, false, 5e-6);
}

/* Features are float whatever the activations are, and no backend of the CPU rounds them. A GPU's
 * multiplies rounded features, and rounds the gradient of the logits, 2^-9 of it, on the way. */
static void test_formula_bf16(void **state)
{
    (void)state;
    const bool is_cpu = strcmp(device_under_test(), "cpu") == 0;
    check_formula(DIP_BF16, !is_cpu, is_cpu ? 5e-6 : 0x1p-8);
}

static void test_modes_differ_only_by_twins(void **state)
{
    (void)state;
    static problem p;
    static answer answers[3], plain;
    make_problem(&p, 32, 16, 2.66f, 9);
    for (int m = 0; m < 3; m++)
        run_loss(&answers[m], &p, modes[m].mode, p.group, device_under_test(), DIP_F32, 2);
    for (int m = 1; m < 3; m++) assert_true(fabs(answers[m].loss - answers[0].loss) > 1e-3);
    /* No group is no twins, for all; so is a group each. */
    run_loss(&plain, &p, DIP_DUP_NEGATIVE, NULL, device_under_test(), DIP_F32, 2);
    assert_true(plain.loss == answers[0].loss);
    for (int i = 0; i < 32; i++) p.group[i] = i;
    for (int m = 0; m < 3; m++) {
        run_loss(&answers[m], &p, modes[m].mode, p.group, device_under_test(), DIP_F32, 2);
        assert_true(fabs(answers[m].loss - plain.loss) < 1e-6);
        assert_true(relative(answers[m].d_u, plain.d_u, 32 * 16) < 1e-6);
    }
}

/* All captions the same: nothing to learn from positives, and nothing left when masked. */
static void test_one_caption(void **state)
{
    (void)state;
    static problem p;
    static answer got;
    make_problem(&p, 12, 8, 2.0f, 4);
    memset(p.group, 0, sizeof p.group);
    run_loss(&got, &p, DIP_DUP_MASK, p.group, device_under_test(), DIP_F32, 1);
    assert_true(fabs(got.loss) < 1e-6);
    for (int i = 0; i < 12 * 8; i++) assert_true(fabs(got.d_u[i]) < 1e-6);
    for (int i = 0; i < 12 * 8; i++) p.v[i] = p.v[i % 8];
    for (int i = 0; i < 12 * 8; i++) p.u[i] = p.u[i % 8];
    run_loss(&got, &p, DIP_DUP_POSITIVE, p.group, device_under_test(), DIP_F32, 1);
    assert_true(fabs(got.loss - log(12)) < 1e-5);
    for (int i = 0; i < 12 * 8; i++) assert_true(fabs(got.d_u[i]) < 1e-6);
}

/* Pairs in another order: the same loss, gradients in that order. More threads: the same bits. */
static void test_order_and_threads(void **state)
{
    (void)state;
    static problem p, q;
    static answer a, b, c;
    make_problem(&p, 66, 24, 3.0f, 5);
    q = p;
    for (int64_t i = 0; i < p.b; i++) { /* 25 and 66 have no common divisor */
        const int64_t from = i * 25 % p.b;
        memcpy(q.u + i * p.e, p.u + from * p.e, (size_t)p.e * sizeof(float));
        memcpy(q.v + i * p.e, p.v + from * p.e, (size_t)p.e * sizeof(float));
        q.group[i] = p.group[from];
    }
    for (int m = 0; m < 3; m++) {
        run_loss(&a, &p, modes[m].mode, p.group, device_under_test(), DIP_F32, 1);
        run_loss(&b, &p, modes[m].mode, p.group, device_under_test(), DIP_F32, 3);
        assert_memory_equal(&a, &b, sizeof a);
        run_loss(&c, &q, modes[m].mode, q.group, device_under_test(), DIP_F32, 1);
        assert_true(fabs(a.loss - c.loss) < 1e-6);
        for (int64_t i = 0; i < p.b; i++)
            assert_true(relative(c.d_u + i * p.e, a.d_u + i * 25 % p.b * p.e, p.e) < 1e-4);
    }
}

static void test_registry(void **state)
{
    (void)state;
    size_t n;
    const dip_loss *const *all = dip_loss_all(&n);
    assert_true(n >= 1);
    for (size_t i = 0; i < n; i++) assert_ptr_equal(dip_loss_find(all[i]->name), all[i]);
    assert_null(dip_loss_find("no such loss"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formula_fp32),
        cmocka_unit_test(test_formula_bf16),
        cmocka_unit_test(test_modes_differ_only_by_twins),
        cmocka_unit_test(test_one_caption),
        cmocka_unit_test(test_order_and_threads),
        cmocka_unit_test(test_registry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
