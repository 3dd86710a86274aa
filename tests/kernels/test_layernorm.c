#include "check.h"

#include <math.h>

static const float eps = 1e-5f;

typedef struct layernorm {
    int64_t n_rows, c;
    void *out, *d_x;
    float *mean, *rstd, *d_gamma, *d_beta;
    const float *saved_mean, *saved_rstd;
    const void *x, *gamma, *beta, *d_out, *d_residual;
} layernorm;

static void oracle_forward(double *out, double *mean, double *rstd, const double *x,
                           const double *gamma, const double *beta, int64_t n_rows, int64_t c,
                           check_precision p)
{
    for (int64_t n = 0; n < n_rows; n++) {
        const double *row = x + n * c;
        double sum = 0.0, squares = 0.0;
        for (int64_t i = 0; i < c; i++) sum = rounded(p, sum + row[i]);
        mean[n] = rounded(p, sum / (double)c);
        for (int64_t i = 0; i < c; i++) {
            double centred = rounded(p, row[i] - mean[n]);
            squares = rounded(p, squares + rounded(p, centred * centred));
        }
        double variance = rounded(p, rounded(p, squares / (double)c) + (double)eps);
        rstd[n] = rounded(p, 1.0 / rounded(p, sqrt(variance)));
        for (int64_t i = 0; i < c; i++) {
            double normal = rounded(p, rounded(p, row[i] - mean[n]) * rstd[n]);
            out[n * c + i] = rounded(p, rounded(p, normal * gamma[i]) + beta[i]);
        }
    }
}

/* d_gamma and d_beta hold what is added to; d_residual may be NULL. */
static void oracle_backward(double *d_x, double *d_gamma, double *d_beta, const double *d_out,
                            const double *x, const double *mean, const double *rstd,
                            const double *gamma, const double *d_residual, int64_t n_rows,
                            int64_t c, check_precision p)
{
    for (int64_t n = 0; n < n_rows; n++) {
        double sum_g = 0.0, sum_gy = 0.0;
        for (int64_t i = 0; i < c; i++) {
            double g = rounded(p, d_out[n * c + i] * gamma[i]);
            double y = rounded(p, rounded(p, x[n * c + i] - mean[n]) * rstd[n]);
            sum_g = rounded(p, sum_g + g);
            sum_gy = rounded(p, sum_gy + rounded(p, g * y));
        }
        for (int64_t i = 0; i < c; i++) {
            double g = rounded(p, d_out[n * c + i] * gamma[i]);
            double y = rounded(p, rounded(p, x[n * c + i] - mean[n]) * rstd[n]);
            double inner = rounded(p, g - rounded(p, sum_g / (double)c));
            inner = rounded(p, inner - rounded(p, y * rounded(p, sum_gy / (double)c)));
            inner = rounded(p, inner * rstd[n]);
            d_x[n * c + i] = d_residual ? rounded(p, inner + d_residual[n * c + i]) : inner;
        }
    }
    for (int64_t i = 0; i < c; i++) {
        double sum_gamma = 0.0, sum_beta = 0.0;
        for (int64_t n = 0; n < n_rows; n++) {
            double y = rounded(p, rounded(p, x[n * c + i] - mean[n]) * rstd[n]);
            sum_gamma = rounded(p, sum_gamma + rounded(p, d_out[n * c + i] * y));
            sum_beta = rounded(p, sum_beta + d_out[n * c + i]);
        }
        d_gamma[i] = rounded(p, d_gamma[i] + sum_gamma);
        d_beta[i] = rounded(p, d_beta[i] + sum_beta);
    }
}

/* ---- shapes ----------------------------------------------------------------------------- */

static const int64_t widths[] = {97,  100, 127, 128,  129,  191,  192,  256,  257,  383,  384,
                                 512, 513, 768, 1000, 1023, 1024, 1280, 1600, 2047, 2048, 3001};
static const int64_t row_counts[] = {1, 3, 0, 50, 131};
/* More rows than any kernel has threads or blocks for at once. */
static const int64_t tall[][2] = {{1100, 1}, {9001, 64}, {5003, 33}, {2500, 768}};
enum {
    N_SMALL = 66,
    N_WIDE = N_SMALL + COUNT(widths) * COUNT(row_counts),
    N_CASES = N_WIDE + COUNT(tall)
};

/* Every width from 1 to N_SMALL, then the listed ones with all row counts, then the tall ones. */
static void size_number(int i, int64_t *n_rows, int64_t *c)
{
    if (i >= N_WIDE) {
        *n_rows = tall[i - N_WIDE][0];
        *c = tall[i - N_WIDE][1];
        return;
    }
    *n_rows = i < N_SMALL ? 1 + i % 4 : row_counts[(i - N_SMALL) % COUNT(row_counts)];
    *c = i < N_SMALL ? i + 1 : widths[(i - N_SMALL) / COUNT(row_counts)];
    if (*n_rows > 50 && *c > 600) *n_rows = 7;
}

/* Rows centred at 0, at 4 and at 30: a variance as a difference of large numbers shows. */
static double row_offset(int i)
{
    return i % 3 == 0 ? 0.0 : i % 3 == 1 ? 4.0 : 30.0;
}

static size_t workspace(const dip_exec *exec, void *context)
{
    layernorm *a = context;
    return exec->ops->layernorm_workspace(exec, a->n_rows, a->c);
}

/* ---- checks ----------------------------------------------------------------------------- */

static dip_status call_forward(dip_exec *exec, void *context)
{
    layernorm *a = context;
    return exec->ops->layernorm_forward(exec, a->out, a->mean, a->rstd, a->x, a->gamma, a->beta,
                                        eps, a->n_rows, a->c);
}

static void forward_case(check_target *target, int64_t n_rows, int64_t c, double offset)
{
    check_case k;
    const check_type type = check_activation_type(target);
    check_begin(&k, target, "N %lld, C %lld, mean %g", (long long)n_rows, (long long)c, offset);
    check_tensor *x = check_input(&k, "x", type, n_rows * c, offset, 1.0);
    check_tensor *gamma = check_input(&k, "gamma", type, c, 1.0, 0.5);
    check_tensor *beta = check_input(&k, "beta", type, c, 0.0, 0.5);
    check_tensor *out = check_output(&k, "out", type, n_rows * c);
    check_tensor *mean = check_output(&k, "mean", CHECK_F32, n_rows);
    check_tensor *rstd = check_output(&k, "rstd", CHECK_F32, n_rows);
    layernorm a = {.n_rows = n_rows,
                   .c = c,
                   .out = out->data,
                   .mean = mean->data,
                   .rstd = rstd->data,
                   .x = x->data,
                   .gamma = gamma->data,
                   .beta = beta->data};
    check_run(&k, call_forward, workspace, &a);

    double *results[2][3];
    for (int p = CHECK_EXACT; p <= CHECK_NAIVE; p++) {
        results[p][0] = check_array(&k, n_rows * c);
        results[p][1] = check_array(&k, n_rows);
        results[p][2] = check_array(&k, n_rows);
        oracle_forward(results[p][0], results[p][1], results[p][2], x->values, gamma->values,
                       beta->values, n_rows, c, (check_precision)p);
    }
    /* Half a unit of x (the mean's rounding) is multiplied by rstd. */
    double rstd_max = check_largest(results[CHECK_EXACT][2], n_rows);
    double floor = 0x1p-24 * (1.0 + offset * rstd_max);
    check_close(&k, out, results[CHECK_EXACT][0], results[CHECK_NAIVE][0], floor);
    check_close(&k, mean, results[CHECK_EXACT][1], results[CHECK_NAIVE][1],
                0x1p-24 * (1.0 + offset));
    check_close(&k, rstd, results[CHECK_EXACT][2], results[CHECK_NAIVE][2], floor * rstd_max);
    check_end(&k);
}

static void check_layernorm_forward(check_target *target)
{
    for (int i = 0; i < N_CASES; i++) {
        int64_t n_rows, c;
        size_number(i, &n_rows, &c);
        if (target->is_slow && n_rows * c > 1000000) continue;
        forward_case(target, n_rows, c, row_offset(i));
    }
}

static dip_status call_backward(dip_exec *exec, void *context)
{
    layernorm *a = context;
    return exec->ops->layernorm_backward(exec, a->d_x, a->d_gamma, a->d_beta, a->d_out, a->x,
                                         a->saved_mean, a->saved_rstd, a->gamma, a->d_residual,
                                         a->n_rows, a->c);
}

typedef struct layernorm_objective {
    const double *d_out;
    double *x, *gamma, *beta, *out, *mean, *rstd;
    int64_t n_rows, c;
} layernorm_objective;

static double objective(void *context)
{
    layernorm_objective *o = context;
    double sum = 0.0;
    oracle_forward(o->out, o->mean, o->rstd, o->x, o->gamma, o->beta, o->n_rows, o->c, CHECK_EXACT);
    for (int64_t i = 0; i < o->n_rows * o->c; i++) sum += o->d_out[i] * o->out[i];
    return sum;
}

enum { RESIDUAL_NONE, RESIDUAL_OTHER, RESIDUAL_IN_PLACE, N_RESIDUALS };

static void backward_case(check_target *target, int64_t n_rows, int64_t c, double offset,
                          int residual)
{
    check_case k;
    const check_type type = check_activation_type(target);
    const int64_t n = n_rows * c;
    check_begin(&k, target, "N %lld, C %lld, mean %g, residual %d", (long long)n_rows, (long long)c,
                offset, residual);
    check_tensor *x = check_input(&k, "x", type, n, offset, 1.0);
    check_tensor *gamma = check_input(&k, "gamma", type, c, 1.0, 0.5);
    check_tensor *d_out = check_input(&k, "d_out", type, n, 0.0, 1.0);
    double *beta = check_array(&k, c), *out = check_array(&k, n);
    double *exact_mean = check_array(&k, n_rows), *exact_rstd = check_array(&k, n_rows);
    oracle_forward(out, exact_mean, exact_rstd, x->values, gamma->values, beta, n_rows, c,
                   CHECK_EXACT);
    check_tensor *mean = check_input_values(&k, "mean", CHECK_F32, n_rows, exact_mean);
    check_tensor *rstd = check_input_values(&k, "rstd", CHECK_F32, n_rows, exact_rstd);
    check_tensor *d_gamma = check_updated(&k, "d_gamma", CHECK_F32, c, 0.0, 1.0);
    check_tensor *d_beta = check_updated(&k, "d_beta", CHECK_F32, c, 0.0, 1.0);
    check_tensor *other = NULL, *d_x;
    if (residual == RESIDUAL_OTHER) other = check_input(&k, "d_residual", type, n, 0.0, 1.0);
    if (residual == RESIDUAL_IN_PLACE)
        other = d_x = check_updated(&k, "d_x", type, n, 0.0, 1.0);
    else
        d_x = check_output(&k, "d_x", type, n);
    layernorm a = {.n_rows = n_rows,
                   .c = c,
                   .d_x = d_x->data,
                   .d_gamma = d_gamma->data,
                   .d_beta = d_beta->data,
                   .saved_mean = mean->data,
                   .saved_rstd = rstd->data,
                   .x = x->data,
                   .gamma = gamma->data,
                   .d_out = d_out->data,
                   .d_residual = other ? other->data : NULL};
    check_run(&k, call_backward, workspace, &a);

    double *results[2][3];
    const double *addend = other ? other->values : NULL;
    for (int p = CHECK_EXACT; p <= CHECK_NAIVE; p++) {
        results[p][0] = check_array(&k, n);
        results[p][1] = check_array(&k, c);
        results[p][2] = check_array(&k, c);
        for (int64_t i = 0; i < c; i++) {
            results[p][1][i] = d_gamma->values[i];
            results[p][2][i] = d_beta->values[i];
        }
        oracle_backward(results[p][0], results[p][1], results[p][2], d_out->values, x->values,
                        p == CHECK_EXACT ? exact_mean : mean->values,
                        p == CHECK_EXACT ? exact_rstd : rstd->values, gamma->values, addend, n_rows,
                        c, (check_precision)p);
    }
    const double rstd_max = check_largest(exact_rstd, n_rows);
    const double term = check_largest(d_out->values, n) * (1.0 + offset * rstd_max);
    check_close(&k, d_x, results[CHECK_EXACT][0], results[CHECK_NAIVE][0],
                0x1p-24 * rstd_max * term);
    check_close(&k, d_gamma, results[CHECK_EXACT][1], results[CHECK_NAIVE][1], 0x1p-24 * term);
    check_close(&k, d_beta, results[CHECK_EXACT][2], results[CHECK_NAIVE][2], 0.0);

    if (n_rows > 0 && n < 500 && !other && rstd_max < 10.0) {
        layernorm_objective o = {.d_out = d_out->values,
                                 .x = x->values,
                                 .gamma = gamma->values,
                                 .beta = beta,
                                 .out = out,
                                 .mean = exact_mean,
                                 .rstd = exact_rstd,
                                 .n_rows = n_rows,
                                 .c = c};
        double *gradient = check_array(&k, c), *gradient_beta = check_array(&k, c);
        oracle_backward(results[0][0], gradient, gradient_beta, d_out->values, x->values,
                        exact_mean, exact_rstd, gamma->values, NULL, n_rows, c, CHECK_EXACT);
        check_gradient(&k, "d_x", x->values, results[0][0], n, objective, &o);
        check_gradient(&k, "d_gamma", gamma->values, gradient, c, objective, &o);
        check_gradient(&k, "d_beta", beta, gradient_beta, c, objective, &o);
    }
    check_end(&k);
}

static void check_layernorm_backward(check_target *target)
{
    for (int i = 0; i < N_CASES; i++) {
        int64_t n_rows, c;
        size_number(i, &n_rows, &c);
        if (target->is_slow && n_rows * c > 1000000) continue;
        backward_case(target, n_rows, c, row_offset(i), (i / 2) % N_RESIDUALS);
    }
}

int main(void)
{
    static const check_row rows[] = {CHECK(layernorm_forward), CHECK(layernorm_backward)};
    return check_main(rows, COUNT(rows));
}
