#include "check.h"

#include <math.h>

typedef struct products {
    dip_matmul_shape shape;
    dip_activation act;
    void *out, *again, *pre, *d_x;
    int64_t n;
    const void *x, *w, *bias, *residual, *d_out;
    float *d_w, *d_bias;
} products;

static int64_t weight_index(dip_matmul_shape s, int64_t i, int64_t o)
{
    return s.layout == DIP_OUT_IN ? o * s.c_in + i : i * s.c_out + o;
}

static double normal_cdf(double x)
{
    return 0.5 * erfc(-x * sqrt(0.5));
}

static double activate(check_precision p, dip_activation act, double x)
{
    if (act == DIP_ACT_GELU) return rounded(p, x * rounded(p, normal_cdf(x)));
    if (act == DIP_ACT_QUICKGELU)
        return rounded(p, x / rounded(p, 1.0 + exp(rounded(p, -1.702 * x))));
    return x;
}

static double activate_slope(check_precision p, dip_activation act, double x)
{
    if (act == DIP_ACT_GELU) {
        double density = rounded(p, exp(-0.5 * x * x) / sqrt(2.0 * acos(-1.0)));
        return rounded(p, rounded(p, normal_cdf(x)) + rounded(p, x * density));
    }
    if (act == DIP_ACT_QUICKGELU) {
        double s = rounded(p, 1.0 / (1.0 + exp(rounded(p, -1.702 * x))));
        return rounded(p, s + rounded(p, 1.702 * x * s * (1.0 - s)));
    }
    return 1.0;
}

/* A product whose activation comes in a pass of its own is rounded to T in between, which ops.h
 * allows and GPUs do: with CHECK_NAIVE_OPERANDS so does the oracle. */
static check_precision naive_products(const check_target *target)
{
    const int fused = target->execs[0].device->is_host;
    return fused ? CHECK_NAIVE : check_naive_operands(target);
}

/* bias and residual may be NULL; pre may be NULL. */
static void oracle_forward(double *out, double *pre, const double *x, const double *w,
                           const double *bias, const double *residual, dip_activation act,
                           dip_matmul_shape s, check_precision p)
{
    for (int64_t n = 0; n < s.n_rows; n++) {
        for (int64_t o = 0; o < s.c_out; o++) {
            double sum = 0.0;
            for (int64_t i = 0; i < s.c_in; i++)
                sum = rounded(p, sum + rounded(p, x[n * s.c_in + i] * w[weight_index(s, i, o)]));
            if (bias) sum = rounded(p, sum + bias[o]);
            if (pre) pre[n * s.c_out + o] = sum;
            if (act != DIP_ACT_NONE) sum = activate(p, act, operand(p, sum));
            if (residual) sum = rounded(p, sum + residual[n * s.c_out + o]);
            out[n * s.c_out + o] = sum;
        }
    }
}

static void oracle_backward_input(double *d_x, const double *d_out, const double *w,
                                  const double *pre, dip_activation act, dip_matmul_shape s,
                                  check_precision p)
{
    for (int64_t n = 0; n < s.n_rows; n++) {
        for (int64_t i = 0; i < s.c_in; i++) {
            double sum = 0.0;
            for (int64_t o = 0; o < s.c_out; o++)
                sum =
                    rounded(p, sum + rounded(p, d_out[n * s.c_out + o] * w[weight_index(s, i, o)]));
            if (act != DIP_ACT_NONE)
                sum = rounded(p, operand(p, sum) * activate_slope(p, act, pre[n * s.c_in + i]));
            d_x[n * s.c_in + i] = sum;
        }
    }
}

/* d_w and d_bias hold what is added to. */
static void oracle_backward_weight(double *d_w, double *d_bias, const double *d_out,
                                   const double *x, dip_matmul_shape s, check_precision p)
{
    for (int64_t o = 0; o < s.c_out; o++) {
        double sum_bias = 0.0;
        for (int64_t n = 0; n < s.n_rows; n++)
            sum_bias = rounded(p, sum_bias + d_out[n * s.c_out + o]);
        if (d_bias) d_bias[o] = rounded(p, d_bias[o] + sum_bias);
        for (int64_t i = 0; i < s.c_in; i++) {
            double sum = 0.0;
            for (int64_t n = 0; n < s.n_rows; n++)
                sum = rounded(p, sum + rounded(p, x[n * s.c_in + i] * d_out[n * s.c_out + o]));
            double *slot = &d_w[weight_index(s, i, o)];
            *slot = rounded(p, *slot + sum);
        }
    }
}

/* ---- shapes ----------------------------------------------------------------------------- */

/* N, C_in, C_out */
static const int64_t sizes[][3] = {
    {1, 1, 1},   {0, 16, 24},   {7, 13, 5},  {1, 64, 64},   {50, 48, 192}, {129, 192, 576},
    {33, 47, 1}, {2, 2048, 17}, {3, 1, 100}, {260, 33, 31}, {16, 32, 64},  {5, 100, 8},
};
enum { N_RANDOM = 6, N_SHAPES = COUNT(sizes) + N_RANDOM };

static dip_matmul_shape shape_number(int i, dip_weight_layout layout)
{
    if (i < COUNT(sizes)) return (dip_matmul_shape){sizes[i][0], sizes[i][1], sizes[i][2], layout};
    dip_rng rng;
    dip_rng_init(&rng, 1, dip_rng_stream(DIP_RNG_TEST, 0, (uint64_t)i));
    int64_t n_rows = check_edge_size(&rng, 70), c_in = check_edge_size(&rng, 150);
    return (dip_matmul_shape){n_rows, c_in, check_edge_size(&rng, 150), layout};
}

static int is_large(dip_matmul_shape s)
{
    return s.n_rows * s.c_in * s.c_out > 500000;
}

static const char *layout_name(dip_matmul_shape s)
{
    return s.layout == DIP_OUT_IN ? "[out, in]" : "[in, out]";
}

/* What a naive sum of n products of unit normal numbers is typically off by: the partial sums grow
 * like sqrt(k), each addition rounds by a part of their last bit. Shapes with a handful of outputs
 * need it, because there the naive errors at hand may all happen to be small. */
static double sum_floor(int64_t n)
{
    return 0x1p-24 * (1.0 + (double)n / 6.0);
}

static size_t workspace(const dip_exec *exec, void *context)
{
    return exec->ops->matmul_workspace(exec, ((products *)context)->shape);
}

/* ---- checks ----------------------------------------------------------------------------- */

static dip_status call_forward(dip_exec *exec, void *context)
{
    products *a = context;
    return exec->ops->matmul_forward(exec, a->out, a->pre, a->x, a->w, a->bias, a->residual, a->act,
                                     a->shape);
}

enum { RESIDUAL_NONE, RESIDUAL_OTHER, RESIDUAL_IN_PLACE, N_RESIDUALS };

static void forward_case(check_target *target, dip_matmul_shape s, int has_bias, int has_pre,
                         int residual, dip_activation act)
{
    check_case c;
    const check_type type = check_activation_type(target);
    const int64_t n_out = s.n_rows * s.c_out;
    check_begin(&c, target, "%lldx%lldx%lld %s bias %d pre %d residual %d act %d",
                (long long)s.n_rows, (long long)s.c_in, (long long)s.c_out, layout_name(s),
                has_bias, has_pre, residual, (int)act);
    check_tensor *x = check_input(&c, "x", type, s.n_rows * s.c_in, 0.0, 1.0);
    check_tensor *w = check_input(&c, "w", type, s.c_in * s.c_out, 0.0, 1.0);
    check_tensor *bias = has_bias ? check_input(&c, "bias", type, s.c_out, 0.0, 1.0) : NULL;
    check_tensor *pre = has_pre ? check_output(&c, "pre", type, n_out) : NULL;
    check_tensor *other = NULL, *out;
    if (residual == RESIDUAL_OTHER) other = check_input(&c, "residual", type, n_out, 0.0, 2.0);
    if (residual == RESIDUAL_IN_PLACE)
        other = out = check_updated(&c, "out", type, n_out, 0.0, 2.0);
    else
        out = check_output(&c, "out", type, n_out);
    products a = {.shape = s,
                  .act = act,
                  .out = out->data,
                  .pre = pre ? pre->data : NULL,
                  .x = x->data,
                  .w = w->data,
                  .bias = bias ? bias->data : NULL,
                  .residual = other ? other->data : NULL};
    check_run(&c, call_forward, workspace, &a);

    double *results[2][2];
    for (int i = 0; i < 2; i++) {
        results[i][0] = check_array(&c, n_out);
        results[i][1] = check_array(&c, n_out);
        oracle_forward(results[i][0], results[i][1], x->values, w->values,
                       bias ? bias->values : NULL, other ? other->values : NULL, act, s,
                       i == 0 ? CHECK_EXACT : naive_products(target));
    }
    check_close(&c, out, results[0][0], results[1][0], sum_floor(s.c_in));
    if (pre) check_close(&c, pre, results[0][1], results[1][1], sum_floor(s.c_in));
    check_end(&c);
}

static void check_matmul_forward(check_target *target)
{
    for (int i = 0; i < N_SHAPES; i++) {
        for (int combination = 0; combination < 2 * 2 * 2 * N_RESIDUALS * 3; combination++) {
            int rest = combination;
            dip_weight_layout layout = rest % 2 ? DIP_IN_OUT : DIP_OUT_IN;
            int has_bias = (rest /= 2) % 2, has_pre = (rest /= 2) % 2;
            int residual = (rest /= 2) % N_RESIDUALS;
            dip_activation act = (dip_activation)(rest / N_RESIDUALS);
            dip_matmul_shape s = shape_number(i, layout);
            if (has_pre && act == DIP_ACT_NONE) continue;
            if (is_large(s) && combination % 17 != i % 17) continue;
            forward_case(target, s, has_bias, has_pre, residual, act);
        }
    }
}

static dip_status call_backward_input(dip_exec *exec, void *context)
{
    products *a = context;
    return exec->ops->matmul_backward_input(exec, a->d_x, a->d_out, a->w, a->pre, a->act, a->shape);
}

typedef struct input_objective {
    const double *d_out, *w;
    double *z, *x, *out;
    dip_activation act;
    dip_matmul_shape shape;
} input_objective;

/* sum d_out * (act(z) W), whose derivative by z is backward_input's d_x with pre = z. */
static double objective_of_input(void *context)
{
    input_objective *o = context;
    double sum = 0.0;
    for (int64_t i = 0; i < o->shape.n_rows * o->shape.c_in; i++)
        o->x[i] = activate(CHECK_EXACT, o->act, o->z[i]);
    oracle_forward(o->out, NULL, o->x, o->w, NULL, NULL, DIP_ACT_NONE, o->shape, CHECK_EXACT);
    for (int64_t i = 0; i < o->shape.n_rows * o->shape.c_out; i++) sum += o->d_out[i] * o->out[i];
    return sum;
}

static void backward_input_case(check_target *target, dip_matmul_shape s, dip_activation act)
{
    check_case c;
    const check_type type = check_activation_type(target);
    const int64_t n_x = s.n_rows * s.c_in, n_out = s.n_rows * s.c_out;
    check_begin(&c, target, "%lldx%lldx%lld %s act %d", (long long)s.n_rows, (long long)s.c_in,
                (long long)s.c_out, layout_name(s), (int)act);
    check_tensor *d_out = check_input(&c, "d_out", type, n_out, 0.0, 1.0);
    check_tensor *w = check_input(&c, "w", type, s.c_in * s.c_out, 0.0, 1.0);
    check_tensor *pre = act != DIP_ACT_NONE ? check_input(&c, "pre", type, n_x, 0.0, 2.0) : NULL;
    check_tensor *d_x = check_output(&c, "d_x", type, n_x);
    products a = {.shape = s,
                  .act = act,
                  .d_x = d_x->data,
                  .d_out = d_out->data,
                  .w = w->data,
                  .pre = pre ? pre->data : NULL};
    check_run(&c, call_backward_input, workspace, &a);

    double *z = pre ? pre->values : check_array(&c, n_x);
    double *exact = check_array(&c, n_x), *naive = check_array(&c, n_x);
    oracle_backward_input(exact, d_out->values, w->values, z, act, s, CHECK_EXACT);
    oracle_backward_input(naive, d_out->values, w->values, z, act, s, naive_products(target));
    check_close(&c, d_x, exact, naive, sum_floor(s.c_out));
    if (!is_large(s)) {
        input_objective o = {.d_out = d_out->values,
                             .w = w->values,
                             .z = z,
                             .x = check_array(&c, n_x),
                             .out = check_array(&c, n_out),
                             .act = act,
                             .shape = s};
        if (n_out < 2000) check_gradient(&c, "d_x", z, exact, n_x, objective_of_input, &o);
    }
    check_end(&c);
}

static void check_matmul_backward_input(check_target *target)
{
    for (int i = 0; i < N_SHAPES; i++) {
        for (int combination = 0; combination < 6; combination++) {
            dip_matmul_shape s = shape_number(i, combination % 2 ? DIP_IN_OUT : DIP_OUT_IN);
            if (is_large(s) && combination % 3 != i % 3) continue;
            backward_input_case(target, s, (dip_activation)(combination / 2));
        }
    }
}

static dip_status call_backward_weight(dip_exec *exec, void *context)
{
    products *a = context;
    return exec->ops->matmul_backward_weight(exec, a->d_w, a->d_bias, a->d_out, a->x, a->shape);
}

typedef struct weight_objective {
    const double *d_out, *x;
    double *w, *bias, *out;
    dip_matmul_shape shape;
} weight_objective;

static double objective_of_weight(void *context)
{
    weight_objective *o = context;
    double sum = 0.0;
    oracle_forward(o->out, NULL, o->x, o->w, o->bias, NULL, DIP_ACT_NONE, o->shape, CHECK_EXACT);
    for (int64_t i = 0; i < o->shape.n_rows * o->shape.c_out; i++) sum += o->d_out[i] * o->out[i];
    return sum;
}

static void backward_weight_case(check_target *target, dip_matmul_shape s, int has_bias)
{
    check_case c;
    const check_type type = check_activation_type(target);
    const int64_t n_w = s.c_in * s.c_out, n_out = s.n_rows * s.c_out;
    check_begin(&c, target, "%lldx%lldx%lld %s bias %d", (long long)s.n_rows, (long long)s.c_in,
                (long long)s.c_out, layout_name(s), has_bias);
    check_tensor *d_out = check_input(&c, "d_out", type, n_out, 0.0, 1.0);
    check_tensor *x = check_input(&c, "x", type, s.n_rows * s.c_in, 0.0, 1.0);
    check_tensor *d_w = check_updated(&c, "d_w", CHECK_F32, n_w, 0.0, 1.0);
    check_tensor *d_bias =
        has_bias ? check_updated(&c, "d_bias", CHECK_F32, s.c_out, 0.0, 1.0) : NULL;
    products a = {.shape = s,
                  .d_out = d_out->data,
                  .x = x->data,
                  .d_w = d_w->data,
                  .d_bias = has_bias ? d_bias->data : NULL};
    check_run(&c, call_backward_weight, workspace, &a);

    double *results[2][2];
    for (int p = CHECK_EXACT; p <= CHECK_NAIVE; p++) {
        results[p][0] = check_array(&c, n_w);
        results[p][1] = has_bias ? check_array(&c, s.c_out) : NULL;
        for (int64_t i = 0; i < n_w; i++) results[p][0][i] = d_w->values[i];
        for (int64_t i = 0; has_bias && i < s.c_out; i++) results[p][1][i] = d_bias->values[i];
        oracle_backward_weight(results[p][0], results[p][1], d_out->values, x->values, s,
                               (check_precision)p);
    }
    check_close(&c, d_w, results[CHECK_EXACT][0], results[CHECK_NAIVE][0], sum_floor(s.n_rows));
    if (has_bias)
        check_close(&c, d_bias, results[CHECK_EXACT][1], results[CHECK_NAIVE][1],
                    sum_floor(s.n_rows));

    if (has_bias && n_out < 2000 && !is_large(s)) {
        double *gradient = check_array(&c, n_w), *d_b = check_array(&c, s.c_out);
        oracle_backward_weight(gradient, d_b, d_out->values, x->values, s, CHECK_EXACT);
        weight_objective o = {.d_out = d_out->values,
                              .x = x->values,
                              .w = check_array(&c, n_w),
                              .bias = check_array(&c, s.c_out),
                              .out = check_array(&c, n_out),
                              .shape = s};
        check_gradient(&c, "d_w", o.w, gradient, n_w, objective_of_weight, &o);
        check_gradient(&c, "d_bias", o.bias, d_b, s.c_out, objective_of_weight, &o);
    }
    check_end(&c);
}

static void check_matmul_backward_weight(check_target *target)
{
    for (int i = 0; i < N_SHAPES; i++) {
        for (int combination = 0; combination < 4; combination++) {
            dip_matmul_shape s = shape_number(i, combination % 2 ? DIP_IN_OUT : DIP_OUT_IN);
            if (is_large(s) && combination / 2 != i % 2) continue;
            backward_weight_case(target, s, combination / 2);
        }
    }
}

/* ---- the activation alone --------------------------------------------------------------- */

static dip_status call_activation(dip_exec *exec, void *context)
{
    products *a = context;
    return exec->ops->activation_forward(exec, a->out, a->pre, a->act, a->n);
}

static void activation_case(check_target *target, int64_t n, dip_activation act)
{
    check_case c;
    const check_type type = check_activation_type(target);
    check_begin(&c, target, "n %lld, act %d", (long long)n, (int)act);
    check_tensor *pre = check_input(&c, "pre", type, n, 0.0, 3.0);
    check_tensor *out = check_output(&c, "out", type, n);
    products a = {.act = act, .out = out->data, .pre = pre->data, .n = n};
    check_run(&c, call_activation, NULL, &a);
    double *results[2];
    for (int p = CHECK_EXACT; p <= CHECK_NAIVE; p++) {
        results[p] = check_array(&c, n);
        for (int64_t i = 0; i < n; i++)
            results[p][i] = activate((check_precision)p, act, pre->values[i]);
    }
    if (act == DIP_ACT_NONE) check_equal(&c, out, pre->values);
    check_close(&c, out, results[CHECK_EXACT], results[CHECK_NAIVE], 0x1p-24);
    check_end(&c);
}

/* Far out both functions are the identity or zero; near zero they are half the identity. */
static void check_activation_extremes(check_target *target, dip_activation act)
{
    static const double values[] = {0.0,   1e-30, -1e-30, 1e-6, -1e-6, 14.0,  -14.0,  50.0,
                                    -50.0, 1e4,   -1e4,   1e30, -1e30, 200.0, -200.0, (double)NAN};
    const int64_t n = COUNT(values);
    check_case c;
    const check_type type = check_activation_type(target);
    check_begin(&c, target, "extremes, act %d", (int)act);
    check_tensor *pre = check_input_values(&c, "pre", type, n, values);
    check_tensor *out = check_output(&c, "out", type, n);
    products a = {.act = act, .out = out->data, .pre = pre->data, .n = n};
    check_run(&c, call_activation, NULL, &a);
    const double unit = type == CHECK_BF16 ? 0x1p-8 : 0x1p-21;
    for (int64_t i = 0; i < n; i++) {
        const double z = pre->values[i], got = check_get(out, i);
        const double exact = activate(CHECK_EXACT, act, z);
        /* 1e-6: a probability of 1e-36, where it should be 0, times the largest value */
        if (fabs(got - exact) <= unit * fabs(exact) + (fabs(z) > 10.0 ? 1e-6 : 0.0)) continue;
        if (isnan(got) && isnan(z)) continue;
        fail_msg("%s: act(%g) is %g, not %g", c.label, z, got, exact);
    }
    check_end(&c);
}

/* A product that saves pre, then the activation of what it saved. */
static dip_status call_product_and_activation(dip_exec *exec, void *context)
{
    products *a = context;
    DIP_TRY(exec->ops->matmul_forward(exec, a->out, a->pre, a->x, a->w, a->bias, NULL, a->act,
                                      a->shape));
    return exec->ops->activation_forward(exec, a->again, a->pre, a->act, a->n);
}

/* In float, pre is what the product's activation saw: the bits are the same. */
static void same_bits_case(check_target *target, dip_matmul_shape s, dip_activation act)
{
    check_case c;
    const check_type type = check_activation_type(target);
    const int64_t n = s.n_rows * s.c_out;
    check_begin(&c, target, "%lldx%lldx%lld act %d", (long long)s.n_rows, (long long)s.c_in,
                (long long)s.c_out, (int)act);
    check_tensor *x = check_input(&c, "x", type, s.n_rows * s.c_in, 0.0, 1.0);
    check_tensor *w = check_input(&c, "w", type, s.c_in * s.c_out, 0.0, 0.4);
    check_tensor *bias = check_input(&c, "bias", type, s.c_out, 0.0, 1.0);
    check_tensor *pre = check_output(&c, "pre", type, n), *out = check_output(&c, "out", type, n);
    check_tensor *again = check_output(&c, "again", type, n);
    products a = {.shape = s,
                  .act = act,
                  .out = out->data,
                  .again = again->data,
                  .pre = pre->data,
                  .x = x->data,
                  .w = w->data,
                  .bias = bias->data,
                  .n = n};
    check_run(&c, call_product_and_activation, workspace, &a);
    double *expected = check_array(&c, n);
    for (int64_t i = 0; i < n; i++) expected[i] = check_get(out, i);
    check_equal(&c, again, expected);
    check_end(&c);
}

static void check_activation_forward(check_target *target)
{
    static const int64_t lengths[] = {0,   1,   3,   16,  31,   32,   33,   63,   64,   65,
                                      127, 129, 255, 256, 1000, 2047, 2048, 2049, 4097, 30001};
    for (int i = 0; i < COUNT(lengths); i++)
        for (int act = DIP_ACT_NONE; act <= DIP_ACT_QUICKGELU; act++)
            activation_case(target, lengths[i], (dip_activation)act);
    check_activation_extremes(target, DIP_ACT_GELU);
    check_activation_extremes(target, DIP_ACT_QUICKGELU);
    if (target->dtype != DIP_F32) return;
    check_needs(target, "matmul_forward");
    check_needs(target, "matmul_workspace");
    for (int act = DIP_ACT_GELU; act <= DIP_ACT_QUICKGELU; act++) {
        same_bits_case(target, (dip_matmul_shape){37, 19, 61, DIP_OUT_IN}, (dip_activation)act);
        same_bits_case(target, (dip_matmul_shape){64, 32, 128, DIP_IN_OUT}, (dip_activation)act);
    }
}

int main(void)
{
    static const check_row rows[] = {CHECK(matmul_forward), CHECK(matmul_backward_input),
                                     CHECK(matmul_backward_weight), CHECK(activation_forward)};
    return check_main(rows, COUNT(rows));
}
