#include "check.h"

#include <math.h>

typedef struct attention {
    dip_attention_shape shape;
    void *out, *d_qkv;
    float *lse;
    const void *qkv, *d_out, *saved_out;
    const int32_t *offsets;
} attention;

/* Position of (token, head) 0 of part 0 (q), 1 (k) or 2 (v) in qkv. */
static int64_t part(dip_attention_shape s, int which, int64_t token, int head)
{
    int64_t c = (int64_t)s.n_heads * s.head_size;
    return token * 3 * c + which * c + (int64_t)head * s.head_size;
}

static double dot(check_precision p, const double *a, const double *b, int n)
{
    double sum = 0.0;
    for (int i = 0; i < n; i++) sum = rounded(p, sum + rounded(p, a[i] * b[i]));
    return sum;
}

static double score(check_precision p, const double *qkv, dip_attention_shape s, int64_t i,
                    int64_t j, int head)
{
    double scale = rounded(p, 1.0 / sqrt((double)s.head_size));
    return rounded(
        p, scale * dot(p, qkv + part(s, 0, i, head), qkv + part(s, 1, j, head), s.head_size));
}

/* Rounds probabilities, relative to the largest, as a tiled implementation would. */
static void oracle_forward(double *out, double *lse, const double *qkv, const double *offsets,
                           dip_attention_shape s, check_precision p)
{
    const int d_head = s.head_size;
    double scores[1024];
    for (int64_t b = 0; b < s.n_sequences; b++) {
        const int64_t first = (int64_t)offsets[b], end = (int64_t)offsets[b + 1];
        for (int head = 0; head < s.n_heads; head++) {
            for (int64_t i = first; i < end; i++) {
                const int64_t stop = s.causal ? i + 1 : end;
                double largest = -INFINITY, sum = 0.0;
                double *row = out + (i * s.n_heads + head) * d_head;
                for (int64_t j = first; j < stop; j++) {
                    scores[j - first] = score(p, qkv, s, i, j, head);
                    largest = fmax(largest, scores[j - first]);
                }
                for (int d = 0; d < d_head; d++) row[d] = 0.0;
                for (int64_t j = first; j < stop; j++) {
                    double e = rounded(p, exp(rounded(p, scores[j - first] - largest)));
                    const double *v = qkv + part(s, 2, j, head);
                    sum = rounded(p, sum + e);
                    for (int d = 0; d < d_head; d++)
                        row[d] = rounded(p, row[d] + rounded(p, operand(p, e) * v[d]));
                }
                for (int d = 0; d < d_head; d++) row[d] = rounded(p, row[d] / sum);
                lse[i * s.n_heads + head] = rounded(p, largest + rounded(p, log(sum)));
            }
        }
    }
}

/* `out` and `lse` are what forward saved: exact for CHECK_EXACT, as rounded as the op gets them
 * otherwise, so that what their rounding costs counts as naive error. */
static void oracle_backward(double *d_qkv, const double *d_out, const double *qkv,
                            const double *out, const double *lse, const double *offsets,
                            dip_attention_shape s, check_precision p)
{
    const int d_head = s.head_size;
    const double scale = rounded(p, 1.0 / sqrt((double)d_head));
    for (int64_t i = 0; i < s.n_rows * 3 * s.n_heads * d_head; i++) d_qkv[i] = 0.0;
    for (int64_t b = 0; b < s.n_sequences; b++) {
        const int64_t first = (int64_t)offsets[b], end = (int64_t)offsets[b + 1];
        for (int head = 0; head < s.n_heads; head++) {
            for (int64_t i = first; i < end; i++) {
                const int64_t row = (i * s.n_heads + head) * d_head;
                const double mean = dot(p, d_out + row, out + row, d_head);
                double *d_q = d_qkv + part(s, 0, i, head);
                const double *q = qkv + part(s, 0, i, head);
                for (int64_t j = first; j < (s.causal ? i + 1 : end); j++) {
                    double *d_k = d_qkv + part(s, 1, j, head), *d_v = d_qkv + part(s, 2, j, head);
                    const double *k = qkv + part(s, 1, j, head), *v = qkv + part(s, 2, j, head);
                    double distance =
                        rounded(p, score(p, qkv, s, i, j, head) - lse[i * s.n_heads + head]);
                    double probability = rounded(p, exp(distance));
                    double d_p = rounded(p, dot(p, d_out + row, v, d_head) - mean);
                    double d_s = operand(p, rounded(p, probability * d_p));
                    probability = operand(p, probability);
                    for (int d = 0; d < d_head; d++) {
                        d_q[d] = rounded(p, d_q[d] + rounded(p, d_s * k[d]));
                        d_k[d] = rounded(p, d_k[d] + rounded(p, d_s * q[d]));
                        d_v[d] = rounded(p, d_v[d] + rounded(p, probability * d_out[row + d]));
                    }
                }
            }
        }
    }
    for (int64_t i = 0; i < s.n_rows; i++)
        for (int head = 0; head < s.n_heads; head++)
            for (int d = 0; d < d_head; d++)
                for (int which = 0; which < 2; which++) {
                    double *slot = &d_qkv[part(s, which, i, head) + d];
                    *slot = rounded(p, scale * *slot);
                }
}

/* ---- shapes ----------------------------------------------------------------------------- */

enum { MAX_SEQUENCES = 8 };

typedef struct batch {
    int n_heads, head_size, n_sequences;
    double spread; /* of q, k and v: 4 makes softmax nearly one-hot */
    int lengths[MAX_SEQUENCES];
    int bound; /* what the op is told no sequence is longer than; 0: the longest */
} batch;

static const batch batches[] = {
    {2, 64, 0, 1.0, {0}, 0},
    {1, 64, 1, 1.0, {0}, 0},
    {2, 32, 3, 1.0, {0, 0, 0}, 77},
    {2, 64, 5, 1.0, {0, 5, 0, 0, 33}, 0},
    {1, 16, 1, 1.0, {1}, 0},
    {3, 16, 1, 1.0, {2}, 0},
    {2, 64, 2, 1.0, {16, 16}, 0},
    {1, 64, 2, 1.0, {50, 50}, 0},
    {2, 64, 6, 1.0, {77, 1, 50, 2, 65, 16}, 0},
    {1, 64, 4, 1.0, {15, 17, 64, 80}, 0},
    {1, 64, 3, 1.0, {9, 20, 14}, 77},
    {2, 32, 3, 4.0, {33, 8, 77}, 0},
    {1, 32, 2, 1.0, {80, 64}, 0},
    {1, 80, 2, 1.0, {50, 31}, 0},
    {1, 80, 3, 1.0, {77, 17, 2}, 100},
    {2, 96, 2, 1.0, {5, 65}, 0},
    {1, 96, 2, 1.0, {77, 16}, 0},
    {1, 128, 3, 1.0, {17, 32, 3}, 0},
    {1, 128, 2, 1.0, {80, 50}, 0},
    {2, 16, 5, 1.0, {7, 15, 17, 48, 1}, 0},
    {1, 1, 2, 1.0, {5, 18}, 0},
    {3, 33, 2, 1.0, {19, 40}, 0},
    {2, 24, 3, 1.0, {16, 0, 21}, 0},
    {1, 72, 1, 1.0, {50}, 0},
    {1, 120, 1, 1.0, {35}, 0},
    {1, 64, 1, 1.0, {197}, 0},
    {1, 64, 1, 2.0, {257}, 0},
    {1, 64, 1, 1.0, {321}, 0},
    {1, 128, 1, 1.0, {265}, 0},
    {12, 64, 2, 1.0, {9, 4}, 0},
};

/* Too much for an emulated device; every other one is causal. */
static const batch large_batches[] = {
    {1, 32, 1, 1.0, {257}, 0},     {1, 80, 1, 1.0, {197}, 0},     {1, 96, 1, 1.0, {257}, 0},
    {1, 128, 1, 1.0, {197}, 0},    {1, 64, 2, 1.0, {417, 77}, 0}, {1, 64, 1, 1.0, {413}, 0},
    {2, 64, 2, 3.0, {197, 50}, 0},
};

static dip_attention_shape shape_of(const batch *b, int causal, double *offsets)
{
    dip_attention_shape s = {.n_sequences = b->n_sequences,
                             .n_heads = b->n_heads,
                             .head_size = b->head_size,
                             .causal = causal};
    offsets[0] = 0.0;
    for (int i = 0; i < b->n_sequences; i++) {
        s.n_rows += b->lengths[i];
        if (b->lengths[i] > s.max_length) s.max_length = b->lengths[i];
        offsets[i + 1] = (double)s.n_rows;
    }
    if (b->bound > 0) s.max_length = b->bound;
    return s;
}

static void begin(check_case *c, check_target *target, const batch *b, dip_attention_shape s)
{
    check_begin(c, target, "%d sequences, %lld tokens, at most %lld, H %d, D %d, causal %d",
                b->n_sequences, (long long)s.n_rows, (long long)s.max_length, s.n_heads,
                s.head_size, s.causal);
}

static void each_batch(check_target *target, void (*run)(check_target *, const batch *, int))
{
    for (int i = 0; i < 2 * COUNT(batches); i++) run(target, &batches[i / 2], i % 2);
    for (int i = 0; i < COUNT(large_batches) && !target->is_slow; i++)
        run(target, &large_batches[i], i % 2);
}

static size_t workspace(const dip_exec *exec, void *context)
{
    return exec->ops->attention_workspace(exec, ((attention *)context)->shape);
}

/* ---- checks ----------------------------------------------------------------------------- */

static dip_status call_forward(dip_exec *exec, void *context)
{
    attention *a = context;
    return exec->ops->attention_forward(exec, a->out, a->lse, a->qkv, a->offsets, a->shape);
}

static void forward_case(check_target *target, const batch *b, int causal)
{
    check_case c;
    double offsets[MAX_SEQUENCES + 1];
    const dip_attention_shape s = shape_of(b, causal, offsets);
    const check_type type = check_activation_type(target);
    const int64_t n_out = s.n_rows * s.n_heads * s.head_size, n_lse = s.n_rows * s.n_heads;
    begin(&c, target, b, s);
    check_tensor *qkv = check_input(&c, "qkv", type, 3 * n_out, 0.0, b->spread);
    check_tensor *index = check_input_values(&c, "offsets", CHECK_I32, s.n_sequences + 1, offsets);
    check_tensor *out = check_output(&c, "out", type, n_out);
    check_tensor *lse = check_output(&c, "lse", CHECK_F32, n_lse);
    attention a = {
        .shape = s, .out = out->data, .lse = lse->data, .qkv = qkv->data, .offsets = index->data};
    check_run(&c, call_forward, workspace, &a);

    double *exact = check_array(&c, n_out), *exact_lse = check_array(&c, n_lse);
    double *naive = check_array(&c, n_out), *naive_lse = check_array(&c, n_lse);
    oracle_forward(exact, exact_lse, qkv->values, offsets, s, CHECK_EXACT);
    oracle_forward(naive, naive_lse, qkv->values, offsets, s, check_naive_operands(target));
    check_close(&c, out, exact, naive, 0.0);
    check_close(&c, lse, exact_lse, naive_lse, 0x1p-24 * b->spread * b->spread);
    check_end(&c);
}

static void check_attention_forward(check_target *target)
{
    each_batch(target, forward_case);
}

static dip_status call_backward(dip_exec *exec, void *context)
{
    attention *a = context;
    return exec->ops->attention_backward(exec, a->d_qkv, a->d_out, a->qkv, a->saved_out, a->lse,
                                         a->offsets, a->shape);
}

typedef struct attention_objective {
    const double *qkv, *d_out, *offsets;
    double *out, *lse;
    dip_attention_shape shape;
} attention_objective;

static double objective(void *context)
{
    attention_objective *o = context;
    double sum = 0.0;
    oracle_forward(o->out, o->lse, o->qkv, o->offsets, o->shape, CHECK_EXACT);
    for (int64_t i = 0; i < o->shape.n_rows * o->shape.n_heads * o->shape.head_size; i++)
        sum += o->d_out[i] * o->out[i];
    return sum;
}

static void backward_case(check_target *target, const batch *b, int causal)
{
    check_case c;
    double offsets[MAX_SEQUENCES + 1];
    const dip_attention_shape s = shape_of(b, causal, offsets);
    const check_type type = check_activation_type(target);
    const int64_t n_out = s.n_rows * s.n_heads * s.head_size, n_lse = s.n_rows * s.n_heads;
    begin(&c, target, b, s);
    check_tensor *qkv = check_input(&c, "qkv", type, 3 * n_out, 0.0, b->spread);
    check_tensor *d_out = check_input(&c, "d_out", type, n_out, 0.0, 1.0);
    check_tensor *index = check_input_values(&c, "offsets", CHECK_I32, s.n_sequences + 1, offsets);
    double *exact_out = check_array(&c, n_out), *exact_lse = check_array(&c, n_lse);
    oracle_forward(exact_out, exact_lse, qkv->values, offsets, s, CHECK_EXACT);
    check_tensor *out = check_input_values(&c, "out", type, n_out, exact_out);
    check_tensor *lse = check_input_values(&c, "lse", CHECK_F32, n_lse, exact_lse);
    check_tensor *d_qkv = check_output(&c, "d_qkv", type, 3 * n_out);
    attention a = {.shape = s,
                   .d_qkv = d_qkv->data,
                   .lse = lse->data,
                   .qkv = qkv->data,
                   .d_out = d_out->data,
                   .saved_out = out->data,
                   .offsets = index->data};
    check_run(&c, call_backward, workspace, &a);

    double *exact = check_array(&c, 3 * n_out), *naive = check_array(&c, 3 * n_out);
    oracle_backward(exact, d_out->values, qkv->values, exact_out, exact_lse, offsets, s,
                    CHECK_EXACT);
    oracle_backward(naive, d_out->values, qkv->values, out->values, lse->values, offsets, s,
                    check_naive_operands(target));
    /* d_p - mean loses what its terms, of size sqrt(D), were rounded by. */
    check_close(&c, d_qkv, exact, naive, 0x1p-24 * s.head_size);
    if (s.n_rows > 0 && s.n_rows < 100) {
        attention_objective o = {.qkv = qkv->values,
                                 .d_out = d_out->values,
                                 .offsets = offsets,
                                 .out = check_array(&c, n_out),
                                 .lse = check_array(&c, n_lse),
                                 .shape = s};
        check_gradient(&c, "d_qkv", qkv->values, exact, 3 * n_out, objective, &o);
    }
    check_end(&c);
}

static void check_attention_backward(check_target *target)
{
    each_batch(target, backward_case);
}

int main(void)
{
    static const check_row rows[] = {CHECK(attention_forward), CHECK(attention_backward)};
    return check_main(rows, COUNT(rows));
}
