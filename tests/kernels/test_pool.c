/* Picking, averaging and normalising rows: what lies between a tower and its features. */
#include "check.h"

#include <math.h>

typedef struct pooling {
    int64_t n_rows, n_out, c, skip;
    void *out, *d_x;
    float *y, *inv_norm;
    const void *x, *d_out;
    const float *d_y, *saved_y, *saved_inv_norm;
    const int32_t *index; /* rows of gather and scatter, or offsets */
} pooling;

/* ---- rows_gather, rows_scatter ---------------------------------------------------------- */

static const int64_t row_sizes[][3] = {/* N, rows picked, C */
                                       {1, 1, 1},   {5, 0, 8},     {0, 0, 8},   {9, 4, 33},
                                       {64, 64, 7}, {150, 3, 512}, {77, 20, 65}};

/* Distinct rows in random order: the beginning of a shuffle. */
static void pick_rows(double *index, check_case *c, int64_t n_rows, int64_t n_out)
{
    double *all = check_array(c, n_rows);
    for (int64_t i = 0; i < n_rows; i++) all[i] = (double)i;
    for (int64_t i = 0; i < n_out; i++) {
        int64_t other = i + (int64_t)dip_rng_below(&c->rng, (uint64_t)(n_rows - i));
        index[i] = all[other];
        all[other] = all[i];
    }
}

static dip_status call_gather(dip_exec *exec, void *context)
{
    pooling *a = context;
    return exec->ops->rows_gather(exec, a->out, a->x, a->index, a->n_out, a->c);
}

static dip_status call_scatter(dip_exec *exec, void *context)
{
    pooling *a = context;
    return exec->ops->rows_scatter(exec, a->d_x, a->d_out, a->index, a->n_out, a->n_rows, a->c);
}

static void rows_case(check_target *target, const int64_t size[3], int scatter)
{
    check_case k;
    const check_type type = check_activation_type(target);
    const int64_t n_rows = size[0], n_out = size[1], c = size[2];
    check_begin(&k, target, "N %lld, picked %lld, C %lld", (long long)n_rows, (long long)n_out,
                (long long)c);
    double *rows = check_array(&k, n_out);
    pick_rows(rows, &k, n_rows, n_out);
    check_tensor *index = check_input_values(&k, "index", CHECK_I32, n_out, rows);
    check_tensor *from =
        check_input(&k, scatter ? "d_out" : "x", type, scatter ? n_out * c : n_rows * c, 0.0, 1.0);
    check_tensor *to =
        check_output(&k, scatter ? "d_x" : "out", type, scatter ? n_rows * c : n_out * c);
    pooling a = {.n_rows = n_rows,
                 .n_out = n_out,
                 .c = c,
                 .out = to->data,
                 .d_x = to->data,
                 .x = from->data,
                 .d_out = from->data,
                 .index = index->data};
    check_run(&k, scatter ? call_scatter : call_gather, NULL, &a);
    double *expected = check_array(&k, to->n);
    for (int64_t i = 0; i < n_out * c; i++) {
        int64_t far = (int64_t)rows[i / c] * c + i % c;
        expected[scatter ? far : i] = from->values[scatter ? i : far];
    }
    check_equal(&k, to, expected);
    check_end(&k);
}

static void check_rows_gather(check_target *target)
{
    for (int i = 0; i < COUNT(row_sizes); i++) rows_case(target, row_sizes[i], 0);
}

static void check_rows_scatter(check_target *target)
{
    for (int i = 0; i < COUNT(row_sizes); i++) rows_case(target, row_sizes[i], 1);
}

/* ---- mean_pool -------------------------------------------------------------------------- */

enum { MAX_SEQUENCES = 5 };

typedef struct pool_size {
    int64_t c, skip;
    int n_sequences;
    int lengths[MAX_SEQUENCES];
} pool_size;

static const pool_size pool_sizes[] = {
    {1, 0, 1, {1}},          {8, 1, 0, {0}},
    {64, 1, 3, {2, 50, 17}}, {33, 0, 4, {1, 2, 3, 77}},
    {130, 1, 2, {197, 257}}, {512, 3, 5, {4, 5, 6, 7, 8}},
};

static dip_status call_mean_forward(dip_exec *exec, void *context)
{
    pooling *a = context;
    return exec->ops->mean_pool_forward(exec, a->out, a->x, a->index, a->skip, a->n_out, a->c);
}

static dip_status call_mean_backward(dip_exec *exec, void *context)
{
    pooling *a = context;
    return exec->ops->mean_pool_backward(exec, a->d_x, a->d_out, a->index, a->skip, a->n_out, a->c);
}

static void mean_case(check_target *target, const pool_size *size, int backward)
{
    check_case k;
    const check_type type = check_activation_type(target);
    const int64_t c = size->c, skip = size->skip;
    double ends[MAX_SEQUENCES + 1] = {0.0};
    for (int b = 0; b < size->n_sequences; b++) ends[b + 1] = ends[b] + size->lengths[b];
    const int64_t n_rows = (int64_t)ends[size->n_sequences], n_out = size->n_sequences;
    check_begin(&k, target, "%d sequences, %lld rows, skip %lld, C %lld", size->n_sequences,
                (long long)n_rows, (long long)skip, (long long)c);
    check_tensor *offsets = check_input_values(&k, "offsets", CHECK_I32, n_out + 1, ends);
    check_tensor *from =
        check_input(&k, backward ? "d_out" : "x", type, (backward ? n_out : n_rows) * c, 0.5, 1.0);
    check_tensor *to =
        check_output(&k, backward ? "d_x" : "out", type, (backward ? n_rows : n_out) * c);
    pooling a = {.n_rows = n_rows,
                 .n_out = n_out,
                 .c = c,
                 .skip = skip,
                 .out = to->data,
                 .d_x = to->data,
                 .x = from->data,
                 .d_out = from->data,
                 .index = offsets->data};
    check_run(&k, backward ? call_mean_backward : call_mean_forward, NULL, &a);
    double *results[2];
    for (int p = CHECK_EXACT; p <= CHECK_NAIVE; p++) {
        results[p] = check_array(&k, to->n);
        for (int64_t i = 0; i < n_out * c; i++) {
            const int64_t begin = (int64_t)ends[i / c] + skip, end = (int64_t)ends[i / c + 1];
            double sum = 0.0,
                   share = rounded((check_precision)p, from->values[i] / (double)(end - begin));
            for (int64_t n = begin; n < end; n++) {
                if (backward)
                    results[p][n * c + i % c] = share;
                else
                    sum = rounded((check_precision)p, sum + from->values[n * c + i % c]);
            }
            if (!backward) results[p][i] = rounded((check_precision)p, sum / (double)(end - begin));
        }
    }
    check_close(&k, to, results[CHECK_EXACT], results[CHECK_NAIVE], 0.0);
    check_end(&k);
}

static void check_mean_pool_forward(check_target *target)
{
    for (int i = 0; i < COUNT(pool_sizes); i++) mean_case(target, &pool_sizes[i], 0);
}

static void check_mean_pool_backward(check_target *target)
{
    for (int i = 0; i < COUNT(pool_sizes); i++) mean_case(target, &pool_sizes[i], 1);
}

/* ---- l2norm ----------------------------------------------------------------------------- */

static const int64_t norm_sizes[][2] = {/* B, E */
                                        {1, 1},   {0, 8},   {3, 7},    {2, 16},  {5, 64},
                                        {33, 65}, {4, 512}, {50, 100}, {3, 1024}};

static void oracle_l2norm(double *y, double *inv_norm, const double *x, int64_t n_rows, int64_t e,
                          check_precision p)
{
    for (int64_t n = 0; n < n_rows; n++) {
        double squares = 0.0;
        for (int64_t i = n * e; i < (n + 1) * e; i++)
            squares = rounded(p, squares + rounded(p, x[i] * x[i]));
        double norm = fmax(rounded(p, sqrt(squares)), 1e-12);
        inv_norm[n] = rounded(p, 1.0 / norm);
        for (int64_t i = n * e; i < (n + 1) * e; i++) y[i] = rounded(p, x[i] / norm);
    }
}

static void oracle_l2norm_backward(double *d_x, const double *d_y, const double *y,
                                   const double *inv_norm, int64_t n_rows, int64_t e,
                                   check_precision p)
{
    for (int64_t n = 0; n < n_rows; n++) {
        double along = 0.0;
        for (int64_t i = n * e; i < (n + 1) * e; i++)
            along = rounded(p, along + rounded(p, y[i] * d_y[i]));
        for (int64_t i = n * e; i < (n + 1) * e; i++)
            d_x[i] = rounded(p, rounded(p, d_y[i] - rounded(p, y[i] * along)) * inv_norm[n]);
    }
}

static dip_status call_l2norm_forward(dip_exec *exec, void *context)
{
    pooling *a = context;
    return exec->ops->l2norm_forward(exec, a->y, a->inv_norm, a->x, a->n_rows, a->c);
}

static void check_l2norm_forward(check_target *target)
{
    for (int i = 0; i < 2 * COUNT(norm_sizes); i++) {
        check_case k;
        const int64_t n_rows = norm_sizes[i / 2][0], e = norm_sizes[i / 2][1], n = n_rows * e;
        const double spread = i % 2 ? 1e-3 : 2.0;
        check_begin(&k, target, "B %lld, E %lld, spread %g", (long long)n_rows, (long long)e,
                    spread);
        check_tensor *x = check_input(&k, "x", check_activation_type(target), n, 0.0, spread);
        check_tensor *y = check_output(&k, "y", CHECK_F32, n);
        check_tensor *inv_norm = check_output(&k, "inv_norm", CHECK_F32, n_rows);
        pooling a = {
            .n_rows = n_rows, .c = e, .y = y->data, .inv_norm = inv_norm->data, .x = x->data};
        check_run(&k, call_l2norm_forward, NULL, &a);
        double *results[2][2];
        for (int p = CHECK_EXACT; p <= CHECK_NAIVE; p++) {
            results[p][0] = check_array(&k, n);
            results[p][1] = check_array(&k, n_rows);
            oracle_l2norm(results[p][0], results[p][1], x->values, n_rows, e, (check_precision)p);
        }
        check_close(&k, y, results[CHECK_EXACT][0], results[CHECK_NAIVE][0], 0.0);
        check_close(&k, inv_norm, results[CHECK_EXACT][1], results[CHECK_NAIVE][1], 0.0);
        check_end(&k);
    }

    /* A row of zeros stays zeros; a row shorter than 1e-12 is divided by 1e-12. */
    check_case k;
    const double rows[] = {0.0, -0.0, 0.0, 0x1p-50, 0.0, 0.0};
    const double y_rows[] = {0.0, -0.0, 0.0, 0x1p-50 / (double)1e-12f, 0.0, 0.0};
    const double inv_norms[] = {(double)(float)1e12, (double)(float)1e12};
    check_begin(&k, target, "tiny rows");
    check_tensor *x = check_input_values(&k, "x", check_activation_type(target), 6, rows);
    check_tensor *y = check_output(&k, "y", CHECK_F32, 6);
    check_tensor *inv_norm = check_output(&k, "inv_norm", CHECK_F32, 2);
    pooling a = {.n_rows = 2, .c = 3, .y = y->data, .inv_norm = inv_norm->data, .x = x->data};
    check_run(&k, call_l2norm_forward, NULL, &a);
    check_close(&k, y, y_rows, y_rows, 0.0);
    check_close(&k, inv_norm, inv_norms, inv_norms, 0.0);
    check_end(&k);
}

static dip_status call_l2norm_backward(dip_exec *exec, void *context)
{
    pooling *a = context;
    return exec->ops->l2norm_backward(exec, a->d_x, a->d_y, a->saved_y, a->saved_inv_norm,
                                      a->n_rows, a->c);
}

typedef struct norm_objective {
    const double *d_y, *x;
    double *y, *inv_norm;
    int64_t n_rows, e;
} norm_objective;

static double objective(void *context)
{
    norm_objective *o = context;
    double sum = 0.0;
    oracle_l2norm(o->y, o->inv_norm, o->x, o->n_rows, o->e, CHECK_EXACT);
    for (int64_t i = 0; i < o->n_rows * o->e; i++) sum += o->d_y[i] * o->y[i];
    return sum;
}

static void check_l2norm_backward(check_target *target)
{
    for (int i = 0; i < COUNT(norm_sizes); i++) {
        check_case k;
        const int64_t n_rows = norm_sizes[i][0], e = norm_sizes[i][1], n = n_rows * e;
        check_begin(&k, target, "B %lld, E %lld", (long long)n_rows, (long long)e);
        double *x = check_array(&k, n), *exact_y = check_array(&k, n);
        double *exact_inv_norm = check_array(&k, n_rows);
        for (int64_t j = 0; j < n; j++) x[j] = dip_rng_normal(&k.rng);
        oracle_l2norm(exact_y, exact_inv_norm, x, n_rows, e, CHECK_EXACT);
        check_tensor *d_y = check_input(&k, "d_y", CHECK_F32, n, 0.0, 1.0);
        check_tensor *y = check_input_values(&k, "y", CHECK_F32, n, exact_y);
        check_tensor *inv_norm =
            check_input_values(&k, "inv_norm", CHECK_F32, n_rows, exact_inv_norm);
        check_tensor *d_x = check_output(&k, "d_x", check_activation_type(target), n);
        pooling a = {.n_rows = n_rows,
                     .c = e,
                     .d_x = d_x->data,
                     .d_y = d_y->data,
                     .saved_y = y->data,
                     .saved_inv_norm = inv_norm->data};
        check_run(&k, call_l2norm_backward, NULL, &a);
        double *exact = check_array(&k, n), *naive = check_array(&k, n);
        oracle_l2norm_backward(exact, d_y->values, exact_y, exact_inv_norm, n_rows, e, CHECK_EXACT);
        oracle_l2norm_backward(naive, d_y->values, y->values, inv_norm->values, n_rows, e,
                               CHECK_NAIVE);
        /* With E = 1 everything cancels; what is left is the rounding of the terms. */
        double floor =
            0x1p-24 * check_largest(exact_inv_norm, n_rows) * check_largest(d_y->values, n);
        check_close(&k, d_x, exact, naive, floor);
        if (n > 0 && e > 1 && n < 2500) {
            norm_objective o = {.d_y = d_y->values,
                                .x = x,
                                .y = check_array(&k, n),
                                .inv_norm = check_array(&k, n_rows),
                                .n_rows = n_rows,
                                .e = e};
            check_gradient(&k, "d_x", x, exact, n, objective, &o);
        }
        check_end(&k);
    }
}

int main(void)
{
    static const check_row rows[] = {CHECK(rows_gather),       CHECK(rows_scatter),
                                     CHECK(mean_pool_forward), CHECK(mean_pool_backward),
                                     CHECK(l2norm_forward),    CHECK(l2norm_backward)};
    return check_main(rows, COUNT(rows));
}
