#include "check.h"

#include <math.h>

typedef struct contrastive {
    dip_contrastive_shape shape;
    float *row_lse, *col_lse, *target, *d_u, *d_v, *d_log_scale;
    double *loss;
    const float *u, *v, *saved_row_lse, *saved_col_lse, *saved_target;
} contrastive;

/* What the oracles need to know of a case. */
typedef struct problem {
    int64_t batch, embed;
    const double *group; /* or NULL */
    dip_duplicates duplicates;
    double scale;
} problem;

static int same_group(problem s, int64_t i, int64_t j)
{
    return i == j || (s.group && s.group[i] == s.group[j]);
}

static int is_masked(problem s, int64_t i, int64_t j)
{
    return i != j && s.duplicates == DIP_DUP_MASK && same_group(s, i, j);
}

/* T_ij of ops.h. */
static double target_share(problem s, int64_t i, int64_t j)
{
    int64_t n = 0;
    if (s.duplicates != DIP_DUP_POSITIVE || !s.group) return i == j;
    if (!same_group(s, i, j)) return 0.0;
    for (int64_t k = 0; k < s.batch; k++) n += same_group(s, i, k);
    return 1.0 / (double)n;
}

static void oracle_logits(double *l, const double *u, const double *v, problem s, check_precision p)
{
    for (int64_t i = 0; i < s.batch; i++) {
        for (int64_t j = 0; j < s.batch; j++) {
            double sum = 0.0;
            for (int64_t e = 0; e < s.embed; e++)
                sum = rounded(p, sum + rounded(p, operand(p, u[i * s.embed + e]) *
                                                      operand(p, v[j * s.embed + e])));
            l[i * s.batch + j] = rounded(p, s.scale * sum);
        }
    }
}

static void oracle_forward(double *row_lse, double *col_lse, double *target, const double *l,
                           problem s, check_precision p)
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
                            const double *l, problem s, check_precision p)
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
        d_u[i] = rounded(p, d_u[i] * s.scale);
        d_v[i] = rounded(p, d_v[i] * s.scale);
    }
}

/* ---- cases ------------------------------------------------------------------------------ */

static const int64_t sizes[][2] = {
    /* B, E */
    {0, 8},   {1, 1},  {1, 33},  {2, 8},   {2, 768},  {3, 17},    {3, 512},  {17, 64},  {63, 64},
    {64, 20}, {64, 8}, {65, 48}, {65, 33}, {65, 768}, {130, 100}, {300, 32}, {300, 64}, {130, 256},
};
static const float scales[] = {1.0f, 14.285714f, 100.0f};
enum { NO_GROUPS = 3, N_MODES = 4 }; /* the three of dip_duplicates, and group == NULL */

typedef enum direction {
    ALIKE,       /* rows of v lean towards the same row of u, as in training */
    OPPOSED,     /* v = -u: a pair's own logit is the smallest possible */
    ALL_OPPOSED, /* all u nearly the same and v = -u: every logit of a row is near -scale */
    N_DIRECTIONS
} direction;

typedef struct contrastive_case {
    int64_t batch, embed;
    int mode;
    float scale;
    direction direction;
} contrastive_case;

typedef struct setup {
    check_case c;
    check_tensor *u, *v, *group, *log_scale;
    dip_contrastive_shape shape; /* the op's: its pointers are the device's */
    problem problem;
    double floor; /* of a logit */
} setup;

static void normalise(double *row, int64_t n)
{
    double squares = 0.0;
    for (int64_t e = 0; e < n; e++) squares += row[e] * row[e];
    for (int64_t e = 0; e < n; e++) row[e] /= sqrt(squares);
}

static void make_features(setup *a, contrastive_case k)
{
    const int64_t n = k.batch * k.embed;
    double *u = check_array(&a->c, n), *v = check_array(&a->c, n);
    for (int64_t i = 0; i < n; i++) {
        u[i] = dip_rng_normal(&a->c.rng);
        v[i] = 0.5 * u[i] + dip_rng_normal(&a->c.rng);
        if (k.direction == ALL_OPPOSED && i >= k.embed) u[i] = u[i % k.embed] + 0.05 * u[i];
        if (k.direction != ALIKE) v[i] = -u[i];
    }
    for (int64_t i = 0; i < n; i += k.embed) {
        normalise(u + i, k.embed);
        normalise(v + i, k.embed);
    }
    a->u = check_input_values(&a->c, "u", CHECK_F32, n, u);
    a->v = check_input_values(&a->c, "v", CHECK_F32, n, v);
}

static void begin(setup *a, check_target *target, contrastive_case k)
{
    const int64_t batch = k.batch, embed = k.embed;
    check_begin(&a->c, target, "B %lld, E %lld, scale %g, %s, %s", (long long)batch,
                (long long)embed, (double)k.scale,
                (const char *[]){"negative", "positive", "mask", "no groups"}[k.mode],
                (const char *[]){"alike", "opposed", "all opposed"}[k.direction]);
    make_features(a, k);
    double *groups = check_array(&a->c, batch);
    for (int64_t i = 0; i < batch; i++) /* a third of the batch repeats a few captions */
        groups[i] =
            dip_rng_below(&a->c.rng, 3) ? (double)(i + 1000) : (double)dip_rng_below(&a->c.rng, 3);
    const double log_scale = log((double)k.scale);
    a->group = check_input_values(&a->c, "group", CHECK_I32, batch, groups);
    a->log_scale = check_input_values(&a->c, "log_scale", CHECK_F32, 1, &log_scale);
    const int has_groups = k.mode != NO_GROUPS;
    /* without groups, to be ignored */
    const dip_duplicates duplicates = has_groups ? (dip_duplicates)k.mode : DIP_DUP_MASK;
    a->shape = (dip_contrastive_shape){.batch = batch,
                                       .embed = embed,
                                       .group = has_groups ? a->group->data : NULL,
                                       .duplicates = duplicates,
                                       .log_scale = a->log_scale->data};
    a->problem = (problem){.batch = batch,
                           .embed = embed,
                           .group = has_groups ? groups : NULL,
                           .duplicates = duplicates,
                           .scale = exp(a->log_scale->values[0])};
    /* A dot product of unit vectors whose elements were rounded to `unit`. */
    double unit = target->dtype == DIP_BF16 ? 0x1p-9 : 0x1p-24;
    a->floor = (double)k.scale * fmax(unit / sqrt((double)embed), 0x1p-24);
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

static void forward_case(check_target *target, contrastive_case k)
{
    setup a;
    begin(&a, target, k);
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
        for (int out = 0; out < 3; out++) results[i][out] = check_array(c, n);
        oracle_logits(l, a.u->values, a.v->values, a.problem, p);
        oracle_forward(results[i][0], results[i][1], results[i][2], l, a.problem, p);
    }
    check_close(c, row_lse, results[0][0], results[1][0], a.floor);
    check_close(c, col_lse, results[0][1], results[1][1], a.floor);
    check_close(c, positives, results[0][2], results[1][2], a.floor);
    check_end(c);
}

/* Every size with every mode and scale; where that takes long, with a few of them. */
static void each_case(check_target *target, void (*run)(check_target *, contrastive_case))
{
    for (int size = 0; size < COUNT(sizes); size++) {
        const int64_t batch = sizes[size][0], embed = sizes[size][1];
        const int every = batch > 100 || embed > 500 ? 5 : target->is_slow ? 3 : 1;
        for (int i = 0; i < N_MODES * COUNT(scales); i++)
            if ((i + 7 * size) % every == 0)
                run(target,
                    (contrastive_case){batch, embed, i % N_MODES, scales[i / N_MODES], ALIKE});
    }
    for (int size = 0; size < 2; size++)
        for (int mode = DIP_DUP_POSITIVE; mode <= NO_GROUPS; mode++)
            for (int d = OPPOSED; d < N_DIRECTIONS; d++)
                run(target, (contrastive_case){size ? 65 : 5, 40, mode, 100.0f, (direction)d});
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
    problem problem;
} loss_objective;

static double objective(void *context)
{
    loss_objective *o = context;
    const int64_t n = o->problem.batch;
    double sum = 0.0;
    o->problem.scale = exp(o->log_scale);
    oracle_logits(o->l, o->u, o->v, o->problem, CHECK_EXACT);
    oracle_forward(o->row_lse, o->col_lse, o->target, o->l, o->problem, CHECK_EXACT);
    for (int64_t i = 0; i < n; i++) sum += 0.5 * (o->row_lse[i] + o->col_lse[i]) - o->target[i];
    return sum / (double)n;
}

/* A backward pass follows the forward pass of the same backend: what that one makes of the same
 * features. The naive oracle likewise follows its own. */
static void run_forward(check_target *target, contrastive_case k, double *row_lse, double *col_lse)
{
    setup a;
    begin(&a, target, k);
    const int64_t n = k.batch;
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

static void backward_case(check_target *target, contrastive_case k)
{
    setup a;
    begin(&a, target, k);
    check_case *c = &a.c;
    const int64_t n = k.batch, n_features = n * k.embed;
    const double scale = a.problem.scale;
    double *l = check_array(c, n * n), *unused = check_array(c, n);
    double *exact_row = check_array(c, n), *exact_col = check_array(c, n);
    double *naive_row = check_array(c, n), *naive_col = check_array(c, n);
    const check_precision naive = check_naive_operands(target);
    double *given_row = check_array(c, n), *given_col = check_array(c, n);
    run_forward(target, k, given_row, given_col);
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
        oracle_logits(l, a.u->values, a.v->values, a.problem, p);
        oracle_forward(rows, cols, unused, l, a.problem, p);
        oracle_backward(results[i][0], results[i][1], results[i][2], a.u->values, a.v->values, rows,
                        cols, l, a.problem, p);
    }
    /* A logit that is off by its floor changes its two probabilities, at most 1 each, by as much.
     */
    const double floor = n > 0 ? a.floor / (double)n * scale : 0.0;
    const double largest =
        fmax(check_largest(a.u->values, n_features), check_largest(a.v->values, n_features));
    check_close(c, d_u, results[0][0], results[1][0], floor * largest);
    check_close(c, d_v, results[0][1], results[1][1], floor * largest);
    check_close(c, d_log_scale, results[0][2], results[1][2],
                a.floor * scale * (n > 0 ? 1.0 / sqrt((double)n) : 0.0));

    if (n > 0 && n < 20) {
        loss_objective o = {.u = a.u->values,
                            .v = a.v->values,
                            .l = l,
                            .row_lse = exact_row,
                            .col_lse = exact_col,
                            .target = unused,
                            .log_scale = a.log_scale->values[0],
                            .problem = a.problem};
        check_gradient(c, "d_u", o.u, results[0][0], n_features, objective, &o);
        check_gradient(c, "d_v", o.v, results[0][1], n_features, objective, &o);
        check_gradient(c, "d_log_scale", &o.log_scale, results[0][2], 1, objective, &o);
    }
    check_end(c);
}

static void check_contrastive_backward(check_target *target)
{
    check_needs(target, "contrastive_forward");
    each_case(target, backward_case);
}

/* ---- the loss itself -------------------------------------------------------------------- */

static dip_status call_loss(dip_exec *exec, void *context)
{
    contrastive *a = context;
    return exec->ops->contrastive_loss(exec, a->loss, a->saved_row_lse, a->saved_col_lse,
                                       a->saved_target, a->shape.batch);
}

static double loss_case(check_case *c, int64_t n, const double *rows, const double *cols,
                        const double *targets)
{
    check_tensor *loss = check_output(c, "loss", CHECK_F64, 1);
    contrastive call = {.shape = {.batch = n},
                        .loss = loss->data,
                        .saved_row_lse = check_input_values(c, "row", CHECK_F32, n, rows)->data,
                        .saved_col_lse = check_input_values(c, "col", CHECK_F32, n, cols)->data,
                        .saved_target =
                            check_input_values(c, "target", CHECK_F32, n, targets)->data};
    check_run(c, call_loss, NULL, &call);
    return check_get(loss, 0);
}

static void check_contrastive_loss(check_target *target)
{
    static const int64_t batches[] = {0, 1, 2, 31, 64, 65, 255, 257, 1000, 1025, 5000, 70001};
    for (int i = 0; i < COUNT(batches); i++) {
        check_case c;
        const int64_t n = batches[i];
        check_begin(&c, target, "B %lld", (long long)n);
        double *values[3];
        long double sum = 0.0L, size = 0.0L;
        for (int k = 0; k < 3; k++) {
            values[k] = check_array(&c, n);
            for (int64_t j = 0; j < n; j++) {
                values[k][j] = (double)(float)(10.0 + 30.0 * dip_rng_normal(&c.rng));
                sum += (k < 2 ? 0.5L : -1.0L) * (long double)values[k][j];
                size += fabsl((long double)values[k][j]);
            }
        }
        const double exact = n > 0 ? (double)(sum / (long double)n) : 0.0;
        double got = loss_case(&c, n, values[0], values[1], values[2]);
        /* Floats added in double: each of n additions may round by half a unit of what is there. */
        double allowed = 0x1p-53 * (double)(size + fabsl(sum)) + 0x1p-52 * fabs(exact);
        if (!(fabs(got - exact) <= allowed))
            fail_msg("%s: %.17g, not %.17g (allowed %.2g)", c.label, got, exact, allowed);
        check_end(&c);

        /* One value that is not finite shows, wherever it is. */
        for (int64_t place = 0; place < n; place += 1 + n / 3) {
            check_begin(&c, target, "B %lld with a NaN at %lld", (long long)n, (long long)place);
            double *rows = check_array(&c, n), *zeros = check_array(&c, n);
            rows[place] = NAN;
            got = loss_case(&c, n, rows, zeros, zeros);
            if (isfinite(got)) fail_msg("%s: the loss is %g", c.label, got);
            got = loss_case(&c, n, zeros, rows, zeros);
            if (isfinite(got)) fail_msg("%s: the loss is %g", c.label, got);
            got = loss_case(&c, n, zeros, zeros, rows);
            if (isfinite(got)) fail_msg("%s: the loss is %g", c.label, got);
            check_end(&c);
        }
    }
}

int main(void)
{
    static const check_row rows[] = {CHECK(contrastive_forward), CHECK(contrastive_loss),
                                     CHECK(contrastive_backward)};
    return check_main(rows, COUNT(rows));
}
