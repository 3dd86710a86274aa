/* The ops that see parameters as one long row of numbers. */
#include "check.h"

#include <math.h>

static const int64_t lengths[] = {0, 1, 2, 7, 15, 16, 17, 63, 64, 65, 129, 1000, 4097, 70001};

typedef struct elements {
    int64_t n;
    double *sum;
    float *master, *m, *v, *average, *to_float;
    void *param;
    const float *grad, *x, *source;
    const void *typed;
    float decay;
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

/* ---- adamw ------------------------------------------------------------------------------ */

static dip_status call_adamw(dip_exec *exec, void *context)
{
    elements *a = context;
    return exec->ops->adamw(exec, a->master, a->param, a->m, a->v, a->grad, a->hyper, a->n);
}

static void oracle_adamw(double *master, double *m, double *v, const double *grad,
                         dip_adamw_hyper hyper, int64_t n, check_precision p)
{
    const double b1 = (double)hyper.beta1, b2 = (double)hyper.beta2, lr = (double)hyper.lr;
    const double keep = rounded(p, 1.0 - rounded(p, lr * (double)hyper.weight_decay));
    for (int64_t i = 0; i < n; i++) {
        double g = rounded(p, grad[i] * (double)hyper.grad_scale);
        m[i] = rounded(p, rounded(p, b1 * m[i]) + rounded(p, rounded(p, 1.0 - b1) * g));
        v[i] = rounded(p, rounded(p, b2 * v[i]) +
                              rounded(p, rounded(p, rounded(p, 1.0 - b2) * g) * g));
        double above = rounded(p, m[i] / (double)hyper.bias_correction1);
        double below = rounded(p, sqrt(rounded(p, v[i] / (double)hyper.bias_correction2)));
        below = rounded(p, below + (double)hyper.eps);
        master[i] =
            rounded(p, rounded(p, master[i] * keep) - rounded(p, lr * rounded(p, above / below)));
    }
}

static void adamw_case(check_target *target, int64_t n, dip_adamw_hyper hyper, int alias)
{
    check_case c;
    check_begin(&c, target, "n %lld, lr %g, decay %g, grad_scale %g, alias %d", (long long)n,
                (double)hyper.lr, (double)hyper.weight_decay, (double)hyper.grad_scale, alias);
    check_tensor *master = check_updated(&c, "master", CHECK_F32, n, 0.0, 0.05);
    check_tensor *m = check_updated(&c, "m", CHECK_F32, n, 0.0, 1e-3);
    double *squares = check_array(&c, n), *gradients = check_array(&c, n);
    for (int64_t i = 0; i < n; i++) {
        squares[i] = pow(1e-3 * dip_rng_normal(&c.rng), 2.0);
        gradients[i] = 1e-3 * dip_rng_normal(&c.rng);
        if (i % 11 == 3) squares[i] = gradients[i] = 0.0; /* a parameter that was not used */
    }
    check_tensor *v = check_input_values(&c, "v", CHECK_F32, n, squares);
    v->is_output = 1;
    check_tensor *grad = check_input_values(&c, "grad", CHECK_F32, n, gradients);
    for (int64_t i = 3; i < n; i += 11) { /* never used: its momentum is 0 as well */
        m->values[i] = 0.0;
        ((float *)m->before)[i] = 0.0f;
    }
    check_tensor *param =
        alias ? master : check_output(&c, "param", check_activation_type(target), n);
    elements a = {.n = n,
                  .master = master->data,
                  .param = param->data,
                  .m = m->data,
                  .v = v->data,
                  .grad = grad->data,
                  .hyper = hyper};
    check_run(&c, call_adamw, NULL, &a);

    double *results[2][3];
    for (int p = CHECK_EXACT; p <= CHECK_NAIVE; p++) {
        for (int k = 0; k < 3; k++) results[p][k] = check_array(&c, n);
        for (int64_t i = 0; i < n; i++) {
            results[p][0][i] = master->values[i];
            results[p][1][i] = m->values[i];
            results[p][2][i] = v->values[i];
        }
        oracle_adamw(results[p][0], results[p][1], results[p][2], grad->values, hyper, n,
                     (check_precision)p);
    }
    /* 1 - beta is known to half a unit of beta, which is a larger part of the small difference. */
    double slip1 = 0x1p-24 * 1e-2, slip2 = 0x1p-24 * 1e-5;
    check_close(&c, m, results[CHECK_EXACT][1], results[CHECK_NAIVE][1], slip1);
    check_close(&c, v, results[CHECK_EXACT][2], results[CHECK_NAIVE][2], slip2);
    check_close(&c, master, results[CHECK_EXACT][0], results[CHECK_NAIVE][0],
                0x1p-24 * (double)hyper.lr);
    /* param is master rounded, nothing else. */
    double *expected = check_array(&c, n);
    for (int64_t i = 0; i < n; i++) {
        float x = (float)check_get(master, i);
        expected[i] = target->dtype == DIP_BF16 ? (double)dip_bf16_to_float(dip_bf16_from_float(x))
                                                : (double)x;
    }
    check_equal(&c, param, expected);
    check_end(&c);
}

static void check_adamw(check_target *target)
{
    static const dip_adamw_hyper hypers[] = {
        {5e-4f, 0.9f, 0.98f, 1e-6f, 0.2f, 1.0f, 0.1f, 0.02f},    /* CLIP's, first step */
        {1e-3f, 0.9f, 0.999f, 1e-8f, 0.0f, 0.37f, 0.99f, 0.51f}, /* clipped, no decay */
        {0.0f, 0.9f, 0.98f, 1e-6f, 0.2f, 1.0f, 1.0f, 1.0f},      /* the moments move alone */
    };
    for (int i = 0; i < COUNT(lengths); i++)
        for (int j = 0; j < COUNT(hypers); j++)
            for (int alias = 0; alias <= (target->dtype == DIP_F32); alias++)
                adamw_case(target, lengths[i], hypers[j], alias);
}

/* ---- ema -------------------------------------------------------------------------------- */

static dip_status call_ema(dip_exec *exec, void *context)
{
    elements *a = context;
    return exec->ops->ema(exec, a->average, a->source, a->decay, a->n);
}

static void check_ema(check_target *target)
{
    static const float decays[] = {0.9998f, 0.5f, 0.0f, 1.0f};
    for (int i = 0; i < COUNT(lengths) * COUNT(decays); i++) {
        check_case c;
        const int64_t n = lengths[i / COUNT(decays)];
        const float decay = decays[i % COUNT(decays)];
        check_begin(&c, target, "n %lld, decay %g", (long long)n, (double)decay);
        check_tensor *average = check_updated(&c, "average", CHECK_F32, n, 0.0, 1.0);
        check_tensor *master = check_input(&c, "master", CHECK_F32, n, 0.0, 1.0);
        elements a = {.n = n, .average = average->data, .source = master->data, .decay = decay};
        check_run(&c, call_ema, NULL, &a);
        double *results[2];
        for (int p = CHECK_EXACT; p <= CHECK_NAIVE; p++) {
            const check_precision q = (check_precision)p;
            const double share = rounded(q, 1.0 - (double)decay);
            results[p] = check_array(&c, n);
            for (int64_t j = 0; j < n; j++)
                results[p][j] = rounded(q, rounded(q, (double)decay * average->values[j]) +
                                               rounded(q, share * master->values[j]));
        }
        check_close(&c, average, results[CHECK_EXACT], results[CHECK_NAIVE], 0x1p-24);
        check_end(&c);
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
    static const check_row rows[] = {CHECK(sum_of_squares), CHECK(adamw), CHECK(ema),
                                     CHECK(cast_from_float), CHECK(cast_to_float)};
    return check_main(rows, COUNT(rows));
}
