#include "check.h"

#include <math.h>

typedef struct contrastive {
    dip_contrastive_shape shape;
    float *row_lse, *col_lse, *target, *d_u, *d_v, *d_log_scale;
    const float *u, *v, *saved_row_lse, *saved_col_lse;
} contrastive;

static int same_group(dip_contrastive_shape s, int64_t i, int64_t j)
{
    return i == j || (s.group && s.group[i] == s.group[j]);
}

static int is_masked(dip_contrastive_shape s, int64_t i, int64_t j)
{
    return i != j && s.duplicates == DIP_DUP_MASK && same_group(s, i, j);
}

/* T_ij of ops.h. */
static double target_share(dip_contrastive_shape s, int64_t i, int64_t j)
{
    int64_t n = 0;
    if (s.duplicates != DIP_DUP_POSITIVE || !s.group) return i == j;
    if (!same_group(s, i, j)) return 0.0;
    for (int64_t k = 0; k < s.batch; k++) n += same_group(s, i, k);
    return 1.0 / (double)n;
}

static void oracle_logits(double *l, const double *u, const double *v, dip_contrastive_shape s,
                          double scale, check_precision p)
{
    for (int64_t i = 0; i < s.batch; i++) {
        for (int64_t j = 0; j < s.batch; j++) {
            double sum = 0.0;
            for (int64_t e = 0; e < s.embed; e++)
                sum = rounded(p, sum + rounded(p, operand(p, u[i * s.embed + e]) *
                                                      operand(p, v[j * s.embed + e])));
            l[i * s.batch + j] = rounded(p, scale * sum);
        }
    }
}

static void oracle_forward(double *row_lse, double *col_lse, double *target, const double *l,
                           dip_contrastive_shape s, check_precision p)
{
    const int64_t n = s.batch;
    for (int64_t i = 0; i < n; i++) {
        double largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0, 0.0}, positives = 0.0;
        for (int pass = 0; pass < 2; pass++) {
            for (int64_t j = 0; j < n; j++) {
                if (is_masked(s, i, j)) continue;
                const double both[2] = {l[i * n + j], l[j * n + i]};
                for (int side = 0; side < 2; side++) {
                    if (pass == 0)
                        largest[side] = fmax(largest[side], both[side]);
                    else
                        sum[side] = rounded(
                            p, sum[side] + rounded(p, exp(rounded(p, both[side] - largest[side]))));
                }
                if (pass == 0) continue;
                double share = rounded(p, target_share(s, i, j));
                positives = rounded(p, positives + rounded(p, share * both[0]));
            }
        }
        row_lse[i] = rounded(p, largest[0] + rounded(p, log(sum[0])));
        col_lse[i] = rounded(p, largest[1] + rounded(p, log(sum[1])));
        target[i] = positives;
    }
}

static void oracle_backward(double *d_u, double *d_v, double *d_log_scale, const double *u,
                            const double *v, const double *row_lse, const double *col_lse,
                            const double *l, dip_contrastive_shape s, check_precision p)
{
    const int64_t n = s.batch;
    *d_log_scale = 0.0;
    for (int64_t i = 0; i < n * s.embed; i++) d_u[i] = d_v[i] = 0.0;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < n; j++) {
            if (is_masked(s, i, j)) continue;
            const double logit = l[i * n + j];
            double g = rounded(p, rounded(p, exp(rounded(p, logit - row_lse[i]))) +
                                      rounded(p, exp(rounded(p, logit - col_lse[j]))));
            g = rounded(p, g - 2.0 * target_share(s, i, j));
            g = rounded(p, g / (2.0 * (double)n));
            *d_log_scale += g * logit;
            g = operand(p, g);
            for (int64_t e = 0; e < s.embed; e++) {
                double *to_u = &d_u[i * s.embed + e], *to_v = &d_v[j * s.embed + e];
                *to_u = rounded(p, *to_u + rounded(p, g * operand(p, v[j * s.embed + e])));
                *to_v = rounded(p, *to_v + rounded(p, g * operand(p, u[i * s.embed + e])));
            }
        }
    }
    for (int64_t i = 0; i < n * s.embed; i++) {
        d_u[i] = rounded(p, d_u[i] * (double)s.scale);
        d_v[i] = rounded(p, d_v[i] * (double)s.scale);
    }
}

/* ---- cases ------------------------------------------------------------------------------ */

static const int64_t sizes[][2] = {/* B, E */
                                   {0, 8},   {1, 1},   {1, 33},  {2, 8},   {3, 17},
                                   {3, 512}, {17, 64}, {64, 20}, {65, 48}, {300, 32}};
static const float scales[] = {1.0f, 14.285714f, 100.0f};
enum { NO_GROUPS = 3, N_MODES = 4 }; /* the three of dip_duplicates, and group == NULL */

typedef struct setup {
    check_case c;
    check_tensor *u, *v, *group;
    dip_contrastive_shape shape;
    double floor; /* of a logit */
} setup;

/* Rows of v lean towards the same row of u, as in training. */
static void make_features(setup *a, int64_t batch, int64_t embed)
{
    double *u = check_array(&a->c, batch * embed), *v = check_array(&a->c, batch * embed);
    for (int64_t i = 0; i < batch; i++) {
        double squares_u = 0.0, squares_v = 0.0;
        for (int64_t e = i * embed; e < (i + 1) * embed; e++) {
            u[e] = dip_rng_normal(&a->c.rng);
            v[e] = 0.5 * u[e] + dip_rng_normal(&a->c.rng);
            squares_u += u[e] * u[e];
            squares_v += v[e] * v[e];
        }
        for (int64_t e = i * embed; e < (i + 1) * embed; e++) {
            u[e] /= sqrt(squares_u);
            v[e] /= sqrt(squares_v);
        }
    }
    a->u = check_input_values(&a->c, "u", CHECK_F32, batch * embed, u);
    a->v = check_input_values(&a->c, "v", CHECK_F32, batch * embed, v);
}

static void begin(setup *a, check_target *target, int size, int mode, float scale)
{
    const int64_t batch = sizes[size][0], embed = sizes[size][1];
    check_begin(&a->c, target, "B %lld, E %lld, scale %g, %s", (long long)batch, (long long)embed,
                (double)scale, (const char *[]){"negative", "positive", "mask", "no groups"}[mode]);
    make_features(a, batch, embed);
    double *groups = check_array(&a->c, batch);
    for (int64_t i = 0; i < batch; i++) /* a third of the batch repeats a few captions */
        groups[i] =
            dip_rng_below(&a->c.rng, 3) ? (double)(i + 1000) : (double)dip_rng_below(&a->c.rng, 3);
    a->group = check_input_values(&a->c, "group", CHECK_I32, batch, groups);
    a->shape = (dip_contrastive_shape){.batch = batch,
                                       .embed = embed,
                                       .group = mode == NO_GROUPS ? NULL : a->group->data,
                                       .duplicates = (dip_duplicates)mode,
                                       .scale = scale};
    if (mode == NO_GROUPS) a->shape.duplicates = DIP_DUP_MASK; /* to be ignored */
    /* A dot product of unit vectors whose elements were rounded to `unit`. */
    double unit = target->dtype == DIP_BF16 ? 0x1p-9 : 0x1p-24;
    a->floor = (double)scale * fmax(unit / sqrt((double)embed), 0x1p-24);
}

static size_t workspace(const dip_exec *exec, void *context)
{
    return exec->ops->contrastive_workspace(exec, ((contrastive *)context)->shape);
}

static dip_status call_forward(dip_exec *exec, void *context)
{
    contrastive *a = context;
    return exec->ops->contrastive_forward(exec, a->row_lse, a->col_lse, a->target, a->u, a->v,
                                          a->shape);
}

static void forward_case(check_target *target, int size, int mode, float scale)
{
    setup a;
    begin(&a, target, size, mode, scale);
    check_case *c = &a.c;
    const int64_t n = a.shape.batch;
    check_tensor *row_lse = check_output(c, "row_lse", CHECK_F32, n);
    check_tensor *col_lse = check_output(c, "col_lse", CHECK_F32, n);
    check_tensor *positives = check_output(c, "target", CHECK_F32, n);
    contrastive call = {.shape = a.shape,
                        .row_lse = row_lse->data,
                        .col_lse = col_lse->data,
                        .target = positives->data,
                        .u = a.u->data,
                        .v = a.v->data};
    check_run(c, call_forward, workspace, &call);

    double *results[2][3], *l = check_array(c, n * n);
    for (int i = 0; i < 2; i++) {
        check_precision p = i == 0 ? CHECK_EXACT : check_naive_operands(target);
        for (int k = 0; k < 3; k++) results[i][k] = check_array(c, n);
        oracle_logits(l, a.u->values, a.v->values, a.shape, (double)scale, p);
        oracle_forward(results[i][0], results[i][1], results[i][2], l, a.shape, p);
    }
    check_close(c, row_lse, results[0][0], results[1][0], a.floor);
    check_close(c, col_lse, results[0][1], results[1][1], a.floor);
    check_close(c, positives, results[0][2], results[1][2], a.floor);
    check_end(c);
}

static void each_case(check_target *target, void (*run)(check_target *, int, int, float))
{
    for (int size = 0; size < COUNT(sizes); size++)
        for (int mode = 0; mode < N_MODES; mode++)
            for (int i = 0; i < COUNT(scales); i++) {
                if (sizes[size][0] > 100 && (mode + i) % 3 != 2) continue;
                run(target, size, mode, scales[i]);
            }
}

static void check_contrastive_forward(check_target *target)
{
    each_case(target, forward_case);
}

static dip_status call_backward(dip_exec *exec, void *context)
{
    contrastive *a = context;
    return exec->ops->contrastive_backward(exec, a->d_u, a->d_v, a->d_log_scale, a->u, a->v,
                                           a->saved_row_lse, a->saved_col_lse, a->shape);
}

typedef struct loss_objective {
    double *u, *v, *l, *row_lse, *col_lse, *target, log_scale;
    dip_contrastive_shape shape;
} loss_objective;

static double objective(void *context)
{
    loss_objective *o = context;
    const int64_t n = o->shape.batch;
    double sum = 0.0;
    oracle_logits(o->l, o->u, o->v, o->shape, exp(o->log_scale), CHECK_EXACT);
    oracle_forward(o->row_lse, o->col_lse, o->target, o->l, o->shape, CHECK_EXACT);
    for (int64_t i = 0; i < n; i++) sum += 0.5 * (o->row_lse[i] + o->col_lse[i]) - o->target[i];
    return sum / (double)n;
}

/* A backward pass follows the forward pass of the same backend: what that one makes of the same
 * features. The naive oracle likewise follows its own. */
static void run_forward(check_target *target, int size, int mode, float scale, double *row_lse,
                        double *col_lse)
{
    setup a;
    begin(&a, target, size, mode, scale);
    const int64_t n = a.shape.batch;
    check_tensor *rows = check_output(&a.c, "row_lse", CHECK_F32, n);
    check_tensor *cols = check_output(&a.c, "col_lse", CHECK_F32, n);
    check_tensor *positives = check_output(&a.c, "target", CHECK_F32, n);
    contrastive call = {.shape = a.shape,
                        .row_lse = rows->data,
                        .col_lse = cols->data,
                        .target = positives->data,
                        .u = a.u->data,
                        .v = a.v->data};
    check_run(&a.c, call_forward, workspace, &call);
    for (int64_t i = 0; i < n; i++) {
        row_lse[i] = check_get(rows, i);
        col_lse[i] = check_get(cols, i);
    }
    check_end(&a.c);
}

static void backward_case(check_target *target, int size, int mode, float scale)
{
    setup a;
    begin(&a, target, size, mode, scale);
    check_case *c = &a.c;
    const int64_t n = a.shape.batch, n_features = n * a.shape.embed;
    double *l = check_array(c, n * n), *unused = check_array(c, n);
    double *exact_row = check_array(c, n), *exact_col = check_array(c, n);
    double *naive_row = check_array(c, n), *naive_col = check_array(c, n);
    const check_precision naive = check_naive_operands(target);
    double *given_row = check_array(c, n), *given_col = check_array(c, n);
    run_forward(target, size, mode, scale, given_row, given_col);
    check_tensor *row_lse = check_input_values(c, "row_lse", CHECK_F32, n, given_row);
    check_tensor *col_lse = check_input_values(c, "col_lse", CHECK_F32, n, given_col);
    check_tensor *d_u = check_output(c, "d_u", CHECK_F32, n_features);
    check_tensor *d_v = check_output(c, "d_v", CHECK_F32, n_features);
    check_tensor *d_log_scale = check_output(c, "d_log_scale", CHECK_F32, 1);
    contrastive call = {.shape = a.shape,
                        .d_u = d_u->data,
                        .d_v = d_v->data,
                        .d_log_scale = d_log_scale->data,
                        .u = a.u->data,
                        .v = a.v->data,
                        .saved_row_lse = row_lse->data,
                        .saved_col_lse = col_lse->data};
    check_run(c, call_backward, workspace, &call);

    double *results[2][3];
    for (int i = 0; i < 2; i++) {
        check_precision p = i == 0 ? CHECK_EXACT : naive;
        double *rows = i == 0 ? exact_row : naive_row, *cols = i == 0 ? exact_col : naive_col;
        results[i][0] = check_array(c, n_features);
        results[i][1] = check_array(c, n_features);
        results[i][2] = check_array(c, 1);
        oracle_logits(l, a.u->values, a.v->values, a.shape, (double)scale, p);
        oracle_forward(rows, cols, unused, l, a.shape, p);
        oracle_backward(results[i][0], results[i][1], results[i][2], a.u->values, a.v->values, rows,
                        cols, l, a.shape, p);
    }
    /* A logit that is off by its floor changes its two probabilities, at most 1 each, by as much.
     */
    const double floor = n > 0 ? a.floor / (double)n * (double)scale : 0.0;
    const double largest =
        fmax(check_largest(a.u->values, n_features), check_largest(a.v->values, n_features));
    check_close(c, d_u, results[0][0], results[1][0], floor * largest);
    check_close(c, d_v, results[0][1], results[1][1], floor * largest);
    check_close(c, d_log_scale, results[0][2], results[1][2],
                a.floor * (double)scale * (n > 0 ? 1.0 / sqrt((double)n) : 0.0));

    if (n > 0 && n < 20) {
        loss_objective o = {.u = a.u->values,
                            .v = a.v->values,
                            .l = l,
                            .row_lse = exact_row,
                            .col_lse = exact_col,
                            .target = unused,
                            .log_scale = log((double)scale),
                            .shape = a.shape};
        check_gradient(c, "d_u", o.u, results[0][0], n_features, objective, &o);
        check_gradient(c, "d_v", o.v, results[0][1], n_features, objective, &o);
        check_gradient(c, "d_log_scale", &o.log_scale, results[0][2], 1, objective, &o);
    }
    check_end(c);
}

static void check_contrastive_backward(check_target *target)
{
    each_case(target, backward_case);
}

int main(void)
{
    static const check_row rows[] = {CHECK(contrastive_forward), CHECK(contrastive_backward)};
    return check_main(rows, COUNT(rows));
}
