/* The ops that see parameters as one long row of numbers. */
#include "check.h"

#include <math.h>
#include <string.h>

static const int64_t lengths[] = {0, 1, 2, 7, 15, 16, 17, 63, 64, 65, 129, 1000, 4097, 70001};
enum { MAX_LENGTH = 70001 };

typedef struct elements {
    int64_t n;
    double *sum;
    float *master, *m, *v, *average, *to_float;
    void *param;
    const float *grad, *x, *source;
    const void *typed;
    dip_update *update;
    const double *lr, *loss, *sum_of_squares;
    float decay, low, high;
    dip_adamw_hyper hyper;
} elements;

/* ---- sum_of_squares --------------------------------------------------------------------- */

static dip_status call_sum(dip_exec *exec, void *context)
{
    elements *a = context;
    return exec->ops->sum_of_squares(exec, a->sum, a->x, a->n);
}

static double sum_of(check_case *c, const check_tensor *x)
{
    check_tensor *sum = check_output(c, "out", CHECK_F64, 1);
    elements a = {.n = x->n, .sum = sum->data, .x = x->data};
    check_run(c, call_sum, NULL, &a);
    return check_get(sum, 0);
}

static void check_sum_of_squares(check_target *target)
{
    static const double bad_values[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < COUNT(lengths); i++) {
        check_case c;
        const int64_t n = lengths[i];
        long double exact = 0.0L;
        check_begin(&c, target, "n %lld", (long long)n);
        check_tensor *x = check_input(&c, "x", CHECK_F32, n, 0.1, 3.0);
        for (int64_t j = 0; j < n; j++) exact += (long double)x->values[j] * x->values[j];
        double got = sum_of(&c, x);
        /* Doubles: the square is exact, each of n additions may round by half a unit. */
        double allowed = 0x1p-53 * (double)(n + 1) * (double)exact;
        if (!(fabs(got - (double)exact) <= allowed))
            fail_msg("%s: %.17g, not %.17g (allowed %.2g)", c.label, got, (double)exact, allowed);
        check_end(&c);

        /* Anywhere, one value that is not finite shows. */
        for (int64_t place = 0; place < n; place += 1 + n / 3) {
            for (int bad = 0; bad < COUNT(bad_values); bad++) {
                check_begin(&c, target, "n %lld with %g at %lld", (long long)n, bad_values[bad],
                            (long long)place);
                double *values = check_array(&c, n);
                values[place] = bad_values[bad];
                got = sum_of(&c, check_input_values(&c, "x", CHECK_F32, n, values));
                if (isfinite(got)) fail_msg("%s: the sum is %g", c.label, got);
                check_end(&c);
            }
        }
    }

    /* Finite values never become infinite, nor vanish: squares are taken in double. */
    check_case c;
    const double extremes[] = {3e38, -3e38, 1e30, 1e-30};
    check_begin(&c, target, "extremes");
    double got = sum_of(&c, check_input_values(&c, "x", CHECK_F32, 4, extremes));
    assert_true(got > 1.79e77 && got < 1.81e77);
    check_end(&c);
    check_begin(&c, target, "tiny");
    got = sum_of(&c, check_input_values(&c, "x", CHECK_F32, 1, &extremes[3]));
    assert_true(got > 0.999e-60 && got < 1.001e-60);
    check_end(&c);
}

/* ---- update_begin ----------------------------------------------------------------------- */

static dip_status call_update_begin(dip_exec *exec, void *context)
{
    elements *a = context;
    return exec->ops->update_begin(exec, a->update, a->lr, a->loss, a->sum_of_squares, a->hyper);
}

typedef struct begin_case {
    int64_t n_updates; /* before */
    double lr, loss, sum;
    dip_adamw_hyper hyper;
} begin_case;

static int nearly(double got, double exact)
{
    return got == exact || fabs(got - exact) <= 1e-14 * fabs(exact);
}

/* Floats made of doubles: half a unit, and a little for pow. */
static int nearly_float(float got, double exact)
{
    return fabs((double)got - exact) <= (0x1p-24 + 1e-11) * fabs(exact);
}

static void check_update_begin(check_target *target)
{
    static const dip_adamw_hyper clip = {0.9, 0.98, 1e-6, 0.2, 1.0, 0.0};
    static const dip_adamw_hyper free_norm = {0.9, 0.999, 1e-8, 0.0, 0.0, 0.999};
    const begin_case cases[] = {
        {0, 5e-4, 4.0, 0.25, clip},
        {0, 5e-4, 4.0, 9.0, free_norm},
        {41, 1e-3, -0.5, 9.0, clip},
        {41, 0.0, 0.0, 0.0, clip},
        {99999, 3e-5, 2.0, 1e-300, clip},
        {5000000000, 1e-4, 1e30, 1e40, clip},
        {7, 1e-3, 1.0, 1.0, clip},
        {7, 1e-3, 1.0, 1.0000001, clip},
        {12, 1e-3, (double)NAN, 4.0, clip},
        {12, 1e-3, 1.0, (double)NAN, clip},
        {12, 1e-3, (double)INFINITY, 4.0, clip},
        {12, 1e-3, 1.0, (double)INFINITY, free_norm},
        {0, 1e-3, (double)NAN, (double)NAN, clip},
    };
    for (int i = 0; i < COUNT(cases); i++) {
        check_case c;
        const begin_case *k = &cases[i];
        const dip_adamw_hyper h = k->hyper;
        check_begin(&c, target, "%lld updates, loss %g, sum %g, clip %g", (long long)k->n_updates,
                    k->loss, k->sum, h.clip_norm);
        dip_update before, after;
        memset(&before, 0xff, sizeof before);
        before.n_updates = k->n_updates;
        check_tensor *update = check_bytes(&c, "update", &before, sizeof before);
        update->is_output = 1;
        elements a = {
            .update = update->data,
            .lr = check_input_values(&c, "lr", CHECK_F64, 1, &k->lr)->data,
            .loss = check_input_values(&c, "loss", CHECK_F64, 1, &k->loss)->data,
            .sum_of_squares = check_input_values(&c, "sum", CHECK_F64, 1, &k->sum)->data,
            .hyper = h,
        };
        check_run(&c, call_update_begin, NULL, &a);
        memcpy(&after, update->result, sizeof after);

        const int applied = isfinite(k->loss) && isfinite(k->sum);
        const double norm = sqrt(k->sum);
        if (!after.applied != !applied) fail_msg("%s: applied is %d", c.label, after.applied);
        if (after.n_updates != k->n_updates + applied)
            fail_msg("%s: n_updates is %lld", c.label, (long long)after.n_updates);
        if (after.loss != k->loss && !(isnan(after.loss) && isnan(k->loss)))
            fail_msg("%s: the loss is %g", c.label, after.loss);
        if (!nearly(after.grad_norm, norm) && !(isnan(after.grad_norm) && isnan(norm)))
            fail_msg("%s: grad_norm is %g, not %g", c.label, after.grad_norm, norm);
        if (applied) {
            const double t = (double)after.n_updates;
            const int clipped = h.clip_norm > 0.0 && norm > h.clip_norm;
            const double expected[4] = {k->lr, clipped ? h.clip_norm / (norm + 1e-6) : 1.0,
                                        1.0 - pow(h.beta1, t), 1.0 - pow(h.beta2, t)};
            const float got[4] = {after.lr, after.grad_scale, after.bias_correction1,
                                  after.bias_correction2};
            static const char *const names[4] = {"lr", "grad_scale", "bias_correction1",
                                                 "bias_correction2"};
            for (int j = 0; j < 4; j++)
                if (!nearly_float(got[j], expected[j]))
                    fail_msg("%s: %s is %.9g, not %.9g", c.label, names[j], (double)got[j],
                             expected[j]);
        }
        check_end(&c);
    }
}

/* ---- adamw ------------------------------------------------------------------------------ */

static dip_status call_adamw(dip_exec *exec, void *context)
{
    elements *a = context;
    return exec->ops->adamw(exec, a->master, a->param, a->m, a->v, a->average, a->grad, a->update,
                            a->hyper, a->n);
}

/* Adam's constants as floats, in double. */
typedef struct adam {
    double beta1, beta2, eps, weight_decay, ema_decay;
    double lr, grad_scale, correction1, correction2;
} adam;

static adam adam_of(dip_update u, dip_adamw_hyper h)
{
    return (adam){
        (double)(float)h.beta1,        (double)(float)h.beta2,     (double)(float)h.eps,
        (double)(float)h.weight_decay, (double)(float)h.ema_decay, (double)u.lr,
        (double)u.grad_scale,          (double)u.bias_correction1, (double)u.bias_correction2};
}

static double averaged(double average, double x, double decay, check_precision p)
{
    const double share = rounded(p, 1.0 - decay);
    return rounded(p, rounded(p, decay * average) + rounded(p, share * x));
}

static void oracle_adamw(double *master, double *m, double *v, double *average, const double *grad,
                         adam a, int64_t n, check_precision p)
{
    const double keep = rounded(p, 1.0 - rounded(p, a.lr * a.weight_decay));
    for (int64_t i = 0; i < n; i++) {
        double g = rounded(p, grad[i] * a.grad_scale);
        m[i] = rounded(p, rounded(p, a.beta1 * m[i]) + rounded(p, rounded(p, 1.0 - a.beta1) * g));
        v[i] = rounded(p, rounded(p, a.beta2 * v[i]) +
                              rounded(p, rounded(p, rounded(p, 1.0 - a.beta2) * g) * g));
        double above = rounded(p, m[i] / a.correction1);
        double below = rounded(p, sqrt(rounded(p, v[i] / a.correction2)));
        below = rounded(p, below + a.eps);
        master[i] =
            rounded(p, rounded(p, master[i] * keep) - rounded(p, a.lr * rounded(p, above / below)));
        average[i] = averaged(average[i], master[i], a.ema_decay, p);
    }
}

static double as_param(const check_target *target, double x)
{
    if (target->dtype == DIP_F32) return x;
    return (double)dip_bf16_to_float(dip_bf16_from_float((float)x));
}

static void zero_value(check_tensor *tensor, int64_t i)
{
    tensor->values[i] = 0.0;
    ((float *)tensor->before)[i] = 0.0f;
}

enum { ALIAS = 1, AVERAGE = 2, NOT_APPLIED = 4, N_VARIANTS = 8 };

static void adamw_case(check_target *target, int64_t n, dip_adamw_hyper hyper, dip_update state,
                       int variant)
{
    check_case c;
    const int has_average = (variant & AVERAGE) != 0, applied = !(variant & NOT_APPLIED);
    check_begin(&c, target, "n %lld, lr %g, decay %g, grad_scale %g, variant %d", (long long)n,
                (double)state.lr, hyper.weight_decay, (double)state.grad_scale, variant);
    check_tensor *master = check_updated(&c, "master", CHECK_F32, n, 0.0, 0.05);
    check_tensor *m = check_updated(&c, "m", CHECK_F32, n, 0.0, 1e-3);
    check_tensor *average = check_updated(&c, "average", CHECK_F32, n, 0.0, 0.05);
    double *squares = check_array(&c, n), *gradients = check_array(&c, n);
    for (int64_t i = 0; i < n; i++) {
        squares[i] = pow(1e-3 * dip_rng_normal(&c.rng), 2.0);
        gradients[i] = 1e-3 * dip_rng_normal(&c.rng);
        if (i % 11 == 3) squares[i] = gradients[i] = 0.0; /* a parameter that was not used */
    }
    if (!applied) /* what makes a step be left out */
        for (int64_t i = 0; i < n; i += 3) gradients[i] = (double)NAN;
    check_tensor *v = check_input_values(&c, "v", CHECK_F32, n, squares);
    v->is_output = 1;
    check_tensor *grad = check_input_values(&c, "grad", CHECK_F32, n, gradients);
    for (int64_t i = 3; i < n; i += 11) zero_value(m, i); /* never used: no momentum either */
    check_tensor *param =
        variant & ALIAS ? master
                        : check_updated(&c, "param", check_activation_type(target), n, 0.0, 0.05);
    state.applied = applied;
    check_tensor *update = check_bytes(&c, "update", &state, sizeof state);
    elements a = {.n = n,
                  .master = master->data,
                  .param = param->data,
                  .m = m->data,
                  .v = v->data,
                  .average = has_average ? average->data : NULL,
                  .grad = grad->data,
                  .update = update->data,
                  .hyper = hyper};
    check_run(&c, call_adamw, NULL, &a);

    if (!has_average) check_equal(&c, average, average->values);
    if (!applied) {
        check_tensor *untouched[] = {master, m, v, average, param};
        for (int i = 0; i < COUNT(untouched); i++)
            check_equal(&c, untouched[i], untouched[i]->values);
        check_end(&c);
        return;
    }
    double *results[2][4];
    for (int p = CHECK_EXACT; p <= CHECK_NAIVE; p++) {
        for (int k = 0; k < 4; k++) results[p][k] = check_array(&c, n);
        for (int64_t i = 0; i < n; i++) {
            results[p][0][i] = master->values[i];
            results[p][1][i] = m->values[i];
            results[p][2][i] = v->values[i];
            results[p][3][i] = average->values[i];
        }
        oracle_adamw(results[p][0], results[p][1], results[p][2], results[p][3], grad->values,
                     adam_of(state, hyper), n, (check_precision)p);
    }
    /* 1 - beta is known to half a unit of beta, which is a larger part of the small difference. */
    double slip1 = 0x1p-24 * 1e-2, slip2 = 0x1p-24 * 1e-5;
    check_close(&c, m, results[CHECK_EXACT][1], results[CHECK_NAIVE][1], slip1);
    check_close(&c, v, results[CHECK_EXACT][2], results[CHECK_NAIVE][2], slip2);
    check_close(&c, master, results[CHECK_EXACT][0], results[CHECK_NAIVE][0],
                0x1p-24 * (double)state.lr);
    if (has_average)
        check_close(&c, average, results[CHECK_EXACT][3], results[CHECK_NAIVE][3], 0x1p-24 * 0.05);
    /* param is master rounded, nothing else. */
    double *expected = check_array(&c, n);
    for (int64_t i = 0; i < n; i++) expected[i] = as_param(target, check_get(master, i));
    check_equal(&c, param, expected);
    check_end(&c);
}

/* On a CPU the average that adamw makes has the bits of ema afterwards. */
static dip_status call_adamw_then_ema(dip_exec *exec, void *context)
{
    elements *a = context;
    DIP_TRY(exec->ops->adamw(exec, a->master, a->param, a->m, a->v, NULL, a->grad, a->update,
                             a->hyper, a->n));
    return exec->ops->ema(exec, a->average, a->master, a->update, (float)a->hyper.ema_decay, a->n);
}

static void fused_average_case(check_target *target, int64_t n, dip_adamw_hyper hyper,
                               dip_update state)
{
    static double apart[MAX_LENGTH];
    for (int fused = 0; fused < 2; fused++) {
        check_case c;
        check_begin(&c, target, "n %lld, average in the same pass", (long long)n);
        check_tensor *master = check_updated(&c, "master", CHECK_F32, n, 0.0, 0.05);
        check_tensor *param = check_output(&c, "param", check_activation_type(target), n);
        check_tensor *m = check_updated(&c, "m", CHECK_F32, n, 0.0, 1e-3);
        check_tensor *v = check_updated(&c, "v", CHECK_F32, n, 1e-6, 1e-7);
        check_tensor *average = check_updated(&c, "average", CHECK_F32, n, 0.0, 0.05);
        elements a = {.n = n,
                      .master = master->data,
                      .param = param->data,
                      .m = m->data,
                      .v = v->data,
                      .average = average->data,
                      .grad = check_input(&c, "grad", CHECK_F32, n, 0.0, 1e-3)->data,
                      .update = check_bytes(&c, "update", &state, sizeof state)->data,
                      .hyper = hyper};
        check_run(&c, fused ? call_adamw : call_adamw_then_ema, NULL, &a);
        if (fused) check_equal(&c, average, apart);
        for (int64_t i = 0; i < n; i++) apart[i] = check_get(average, i);
        check_end(&c);
    }
}

static void check_adamw(check_target *target)
{
    static const dip_adamw_hyper hypers[] = {
        {0.9, 0.98, 1e-6, 0.2, 1.0, 0.9998}, /* CLIP's */
        {0.9, 0.999, 1e-8, 0.0, 1.0, 0.5},   /* no decay */
        {0.9, 0.98, 1e-6, 0.2, 0.0, 0.9999},
    };
    static const dip_update states[] = {
        {1, 3.0, 1.0, 5e-4f, 1.0f, 0.1f, 0.02f, 1, 0},    /* the first step */
        {40, 3.0, 2.7, 1e-3f, 0.37f, 0.99f, 0.51f, 1, 0}, /* clipped */
        {9000, 3.0, 1.0, 0.0f, 1.0f, 1.0f, 1.0f, 1, 0},   /* the moments move alone */
    };
    check_needs(target, "ema");
    for (int i = 0; i < COUNT(lengths); i++)
        for (int j = 0; j < COUNT(hypers); j++) {
            for (int variant = 0; variant < N_VARIANTS; variant++) {
                if ((variant & ALIAS) && target->dtype != DIP_F32) continue;
                adamw_case(target, lengths[i], hypers[j], states[j], variant);
            }
            if (target->execs[0].device->is_host)
                fused_average_case(target, lengths[i], hypers[j], states[j]);
        }
}

/* ---- clamp ------------------------------------------------------------------------------ */

static dip_status call_clamp(dip_exec *exec, void *context)
{
    elements *a = context;
    return exec->ops->clamp(exec, a->master, a->param, a->update, a->low, a->high, a->n);
}

static void check_clamp(check_target *target)
{
    for (int i = 0; i < COUNT(lengths) * N_VARIANTS; i++) {
        check_case c;
        const int variant = i % N_VARIANTS, alias = variant & ALIAS;
        const int64_t n = lengths[i / N_VARIANTS];
        const float low = 0.0f, high = 4.6051702f;
        const dip_update state = {.n_updates = 3, .applied = !(variant & NOT_APPLIED)};
        if ((variant & AVERAGE) || (alias && target->dtype != DIP_F32)) continue;
        check_begin(&c, target, "n %lld, variant %d", (long long)n, variant);
        check_tensor *master = check_updated(&c, "master", CHECK_F32, n, 2.3, 3.0);
        if (n > 2) zero_value(master, 2);
        check_tensor *param =
            alias ? master : check_updated(&c, "param", check_activation_type(target), n, 0.0, 1.0);
        elements a = {.n = n,
                      .master = master->data,
                      .param = param->data,
                      .update = check_bytes(&c, "update", &state, sizeof state)->data,
                      .low = low,
                      .high = high};
        check_run(&c, call_clamp, NULL, &a);
        double *expected = check_array(&c, n), *expected_param = check_array(&c, n);
        for (int64_t j = 0; j < n; j++) {
            expected[j] = master->values[j];
            expected_param[j] = param->values[j];
            if (!state.applied) continue;
            expected[j] = fmin(fmax(expected[j], (double)low), (double)high);
            expected_param[j] = as_param(target, expected[j]);
        }
        check_equal(&c, master, expected);
        check_equal(&c, param, expected_param);
        check_end(&c);
    }
}

/* ---- ema -------------------------------------------------------------------------------- */

static dip_status call_ema(dip_exec *exec, void *context)
{
    elements *a = context;
    return exec->ops->ema(exec, a->average, a->source, a->update, a->decay, a->n);
}

static void ema_case(check_target *target, int64_t n, float decay, int applied)
{
    check_case c;
    const dip_update state = {.n_updates = 3, .applied = applied};
    check_begin(&c, target, "n %lld, decay %g, applied %d", (long long)n, (double)decay, applied);
    check_tensor *average = check_updated(&c, "average", CHECK_F32, n, 0.0, 1.0);
    check_tensor *master = check_input(&c, "master", CHECK_F32, n, 0.0, 1.0);
    elements a = {.n = n,
                  .average = average->data,
                  .source = master->data,
                  .update = check_bytes(&c, "update", &state, sizeof state)->data,
                  .decay = decay};
    check_run(&c, call_ema, NULL, &a);
    double *results[2];
    for (int p = CHECK_EXACT; p <= CHECK_NAIVE; p++) {
        results[p] = check_array(&c, n);
        for (int64_t j = 0; j < n; j++)
            results[p][j] =
                averaged(average->values[j], master->values[j], (double)decay, (check_precision)p);
    }
    if (applied)
        check_close(&c, average, results[CHECK_EXACT], results[CHECK_NAIVE], 0x1p-24);
    else
        check_equal(&c, average, average->values);
    check_end(&c);
}

static void check_ema(check_target *target)
{
    static const float decays[] = {0.9998f, 0.5f, 0.0f, 1.0f};
    for (int i = 0; i < COUNT(lengths); i++) {
        for (int j = 0; j < COUNT(decays); j++) ema_case(target, lengths[i], decays[j], 1);
        ema_case(target, lengths[i], decays[0], 0);
    }
}

/* ---- casts ------------------------------------------------------------------------------ */

static dip_status call_from_float(dip_exec *exec, void *context)
{
    elements *a = context;
    return exec->ops->cast_from_float(exec, a->param, a->x, a->n);
}

static dip_status call_to_float(dip_exec *exec, void *context)
{
    elements *a = context;
    return exec->ops->cast_to_float(exec, a->to_float, a->typed, a->n);
}

/* Floats and what bf16 makes of them: ties go to the even neighbour, too large is infinite,
 * subnormals are numbers like others, NaN stays NaN. */
static const double edges[][2] = {
    {0.0, 0.0},
    {-0.0, -0.0},
    {1.0, 1.0},
    {1.0 + 0x1p-8, 1.0},
    {1.0 + 0x3p-8, 1.0 + 0x1p-6},
    {1.0 + 0x1p-8 + 0x1p-23, 1.0 + 0x1p-7},
    {-1.0 - 0x3p-8, -1.0 - 0x1p-6},
    {0x1.fep127, 0x1.fep127},
    {0x1.fefffep127, 0x1.fep127},
    {0x1.ffp127, INFINITY},
    {-0x1.fffffep127, -INFINITY},
    {INFINITY, INFINITY},
    {-INFINITY, -INFINITY},
    {NAN, NAN},
    {0x1p-133, 0x1p-133},
    {0x3p-134, 0x1p-132},
    {-0x1p-130, -0x1p-130},
    {0x1p-149, 0.0},
    {-0x1p-149, -0.0},
    {0x1p-126, 0x1p-126},
};

static void check_cast_from_float(check_target *target)
{
    const int is_bf16 = target->dtype == DIP_BF16;
    for (int i = 0; i < COUNT(lengths); i++) {
        check_case c;
        const int64_t n = lengths[i];
        check_begin(&c, target, "n %lld", (long long)n);
        double *values = check_array(&c, n), *expected = check_array(&c, n);
        for (int64_t j = 0; j < n; j++) {
            const double *edge = edges[j % COUNT(edges)];
            values[j] = edge[0];
            expected[j] = is_bf16 ? edge[1] : edge[0];
            if (j < 2 * COUNT(edges)) continue;
            /* Exact in bf16 (8 bits), then a quarter of a unit off: rounds back. */
            double whole = (double)(128 + dip_rng_below(&c.rng, 128));
            double off = 0.25 * (double)((int64_t)dip_rng_below(&c.rng, 3) - 1);
            int exponent = (int)dip_rng_below(&c.rng, 200) - 100;
            values[j] = ldexp(whole + off, exponent);
            expected[j] = is_bf16 ? ldexp(whole, exponent) : values[j];
        }
        check_tensor *x = check_input_values(&c, "x", CHECK_F32, n, values);
        check_tensor *out = check_output(&c, "out", check_activation_type(target), n);
        elements a = {.n = n, .param = out->data, .x = x->data};
        check_run(&c, call_from_float, NULL, &a);
        check_equal(&c, out, expected);
        check_end(&c);
    }
}

static void check_cast_to_float(check_target *target)
{
    for (int i = 0; i < COUNT(lengths); i++) {
        check_case c;
        const int64_t n = lengths[i];
        check_begin(&c, target, "n %lld", (long long)n);
        double *values = check_array(&c, n);
        for (int64_t j = 0; j < n; j++)
            values[j] = j < COUNT(edges) ? edges[j][1] : dip_rng_normal(&c.rng);
        check_tensor *x = check_input_values(&c, "x", check_activation_type(target), n, values);
        check_tensor *out = check_output(&c, "out", CHECK_F32, n);
        elements a = {.n = n, .to_float = out->data, .typed = x->data};
        check_run(&c, call_to_float, NULL, &a);
        check_equal(&c, out, x->values);
        check_end(&c);
    }
}

int main(void)
{
    static const check_row rows[] = {
        CHECK(sum_of_squares),  CHECK(update_begin), CHECK(adamw), CHECK(clamp), CHECK(ema),
        CHECK(cast_from_float), CHECK(cast_to_float)};
    return check_main(rows, COUNT(rows));
}
