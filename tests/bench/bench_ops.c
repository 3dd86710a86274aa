/* bench_ops.c - the optimised CPU ops, apart from matrix products, at training shapes.
 *
 * Usage:   bench_ops [OP [THREADS]]      only ops whose name contains OP
 * Prints, for each op, shape and dtype: the best time of several, GB/s (compulsory traffic: each
 * operand once) or GFLOP/s, how many times the reference backend's speed, and the share of a
 * limit measured in the same run: copying memory, float multiply-adds in registers, or bf16 tile
 * products in registers. Small operands stay in cache, so a share may exceed 100 %.        */
#include <stdio.h>
#include <stdlib.h>

#include "core/threads.h"

#include "cpu_job.h"

typedef struct attention_args {
    void *out, *d_qkv;
    const void *qkv, *d_out;
    float *lse;
    const int32_t *offsets;
    dip_attention_shape shape;
} attention_args;

static dip_status attention_forward(dip_exec *exec, const void *args)
{
    const attention_args *a = args;
    return exec->ops->attention_forward(exec, a->out, a->lse, a->qkv, a->offsets, a->shape);
}

static dip_status attention_backward(dip_exec *exec, const void *args)
{
    const attention_args *a = args;
    return exec->ops->attention_backward(exec, a->d_qkv, a->d_out, a->qkv, a->out, a->lse,
                                         a->offsets, a->shape);
}

static void bench_attention(int64_t batch, int64_t length, int heads, int causal)
{
    enum { D = 64, MAX_BATCH = 1024 };
    if (!wanted("attention_forward") && !wanted("attention_backward")) return;
    const int64_t rows = batch * length, c = (int64_t)heads * D;
    static int32_t offsets[MAX_BATCH + 1];
    for (int64_t b = 0; b <= batch; b++) offsets[b] = (int32_t)(b * length);
    attention_args a = {tensor(0, rows * c),
                        tensor(1, rows * 3 * c),
                        tensor(2, rows * 3 * c),
                        tensor(3, rows * c),
                        floats(4, rows * heads),
                        offsets,
                        {batch, rows, length, heads, D, causal}};
    reserve(bench.cpu.ops->attention_workspace(&bench.cpu, a.shape),
            bench.reference.ops->attention_workspace(&bench.reference, a.shape));
    check(attention_forward(&bench.cpu, &a), "attention_forward"); /* out and lse, for backward */
    /* Useful work: a causal token sees (L + 1) / 2 others. */
    const double seen = causal ? 0.5 * (double)(length + 1) : (double)length;
    const double product = 2.0 * (double)rows * seen * (double)c;
    const limit by = bench.dtype == DIP_BF16 && bench.limits[TILES] > 0.0 ? TILES : FMA;
    char shape[64];
    snprintf(shape, sizeof shape, "B%d L%d H%d D64%s", (int)batch, (int)length, heads,
             causal ? " causal" : "");
    if (wanted("attention_forward"))
        report("attention_forward", shape, attention_forward, &a, 2.0 * product, by);
    if (wanted("attention_backward"))
        report("attention_backward", shape, attention_backward, &a, 5.0 * product, by);
}

typedef struct rows_args { /* layernorm, l2norm, gather, scatter */
    void *y, *x, *gamma, *beta, *d_y;
    float *mean, *rstd, *d_gamma, *d_beta;
    int32_t *index;
    int64_t n, c;
} rows_args;

static dip_status layernorm_forward(dip_exec *exec, const void *args)
{
    const rows_args *a = args;
    return exec->ops->layernorm_forward(exec, a->y, a->mean, a->rstd, a->x, a->gamma, a->beta,
                                        1e-5f, a->n, a->c);
}

static dip_status layernorm_backward(dip_exec *exec, const void *args)
{
    const rows_args *a = args;
    return exec->ops->layernorm_backward(exec, a->y, a->d_gamma, a->d_beta, a->d_y, a->x, a->mean,
                                         a->rstd, a->gamma, a->y, a->n, a->c);
}

static void bench_layernorm(int64_t n, int64_t c)
{
    if (!wanted("layernorm_forward") && !wanted("layernorm_backward")) return;
    float *statistics = floats(5, 2 * n), *d_params = floats(6, 2 * c);
    void *params = tensor(4, 2 * c);
    const size_t t = dip_dtype_bytes(bench.dtype);
    rows_args a = {.y = tensor(0, n * c),
                   .x = tensor(1, n * c),
                   .gamma = params,
                   .beta = (char *)params + (size_t)c * t,
                   .d_y = tensor(2, n * c),
                   .mean = statistics,
                   .rstd = statistics + n,
                   .d_gamma = d_params,
                   .d_beta = d_params + c,
                   .n = n,
                   .c = c};
    reserve(bench.cpu.ops->layernorm_workspace(&bench.cpu, n, c),
            bench.reference.ops->layernorm_workspace(&bench.reference, n, c));
    const double pass = (double)n * (double)c * (double)t;
    char shape[64];
    snprintf(shape, sizeof shape, "N%d C%d", (int)n, (int)c);
    check(layernorm_forward(&bench.cpu, &a), "layernorm_forward");
    if (wanted("layernorm_forward"))
        report("layernorm_forward", shape, layernorm_forward, &a, 2.0 * pass, COPY);
    if (wanted("layernorm_backward"))
        report("layernorm_backward", shape, layernorm_backward, &a, 4.0 * pass, COPY);
}

static dip_status l2norm_forward(dip_exec *exec, const void *args)
{
    const rows_args *a = args;
    return exec->ops->l2norm_forward(exec, a->mean, a->rstd, a->x, a->n, a->c);
}

static dip_status l2norm_backward(dip_exec *exec, const void *args)
{
    const rows_args *a = args;
    return exec->ops->l2norm_backward(exec, a->y, a->d_gamma, a->mean, a->rstd, a->n, a->c);
}

static dip_status rows_gather(dip_exec *exec, const void *args)
{
    const rows_args *a = args;
    return exec->ops->rows_gather(exec, a->y, a->x, a->index, a->n / 50, a->c);
}

static dip_status rows_scatter(dip_exec *exec, const void *args)
{
    const rows_args *a = args;
    return exec->ops->rows_scatter(exec, a->x, a->y, a->index, a->n / 50, a->n, a->c);
}

static void bench_small(void)
{
    const int64_t n = 4096, e = 512, rows = 12800, c = 384;
    const double t = (double)dip_dtype_bytes(bench.dtype);
    rows_args a = {.x = tensor(1, n * e),
                   .y = tensor(0, n * e),
                   .mean = floats(2, n * e),
                   .rstd = floats(3, n),
                   .d_gamma = floats(4, n * e),
                   .n = n,
                   .c = e};
    if (wanted("l2norm_forward"))
        report("l2norm_forward", "B4096 E512", l2norm_forward, &a, (double)(n * e) * (t + 4), COPY);
    if (wanted("l2norm_backward"))
        report("l2norm_backward", "B4096 E512", l2norm_backward, &a, (double)(n * e) * (8 + t),
               COPY);
    static int32_t index[256];
    for (int i = 0; i < 256; i++) index[i] = i * 50;
    rows_args r = {
        .x = tensor(1, rows * c), .y = tensor(0, rows / 50 * c), .index = index, .n = rows, .c = c};
    if (wanted("rows_gather"))
        report("rows_gather", "N12800 B256 C384", rows_gather, &r, (double)(rows / 50 * c) * 2 * t,
               COPY);
    if (wanted("rows_scatter"))
        report("rows_scatter", "N12800 B256 C384", rows_scatter, &r, (double)(rows * c) * t, COPY);
}

typedef struct contrastive_args {
    float *u, *v, *d_u, *d_v, *row_lse, *col_lse, *target;
    dip_contrastive_shape shape;
} contrastive_args;

static dip_status contrastive_forward(dip_exec *exec, const void *args)
{
    const contrastive_args *a = args;
    return exec->ops->contrastive_forward(exec, a->row_lse, a->col_lse, a->target, a->u, a->v,
                                          a->shape);
}

static dip_status contrastive_backward(dip_exec *exec, const void *args)
{
    const contrastive_args *a = args;
    return exec->ops->contrastive_backward(exec, a->d_u, a->d_v, a->target, a->u, a->v, a->row_lse,
                                           a->col_lse, a->shape);
}

static void bench_contrastive(int64_t batch, int64_t embed)
{
    if (!wanted("contrastive_forward") && !wanted("contrastive_backward")) return;
    static const float log_scale = 4.6051702f; /* of 100 */
    float *each = floats(4, 3 * batch);
    contrastive_args a = {floats(0, batch * embed),
                          floats(1, batch * embed),
                          floats(2, batch * embed),
                          floats(3, batch * embed),
                          each,
                          each + batch,
                          each + 2 * batch,
                          {batch, embed, NULL, DIP_DUP_NEGATIVE, &log_scale}};
    const float unit = sqrtf(3.0f / (float)embed); /* uniform in -1..1 has a variance of 1/3 */
    for (int64_t i = 0; i < batch * embed; i++) {
        a.u[i] *= unit;
        a.v[i] *= unit;
    }
    reserve(bench.cpu.ops->contrastive_workspace(&bench.cpu, a.shape),
            bench.reference.ops->contrastive_workspace(&bench.reference, a.shape));
    const double product = 2.0 * (double)batch * (double)batch * (double)embed;
    const limit by = bench.dtype == DIP_BF16 && bench.limits[TILES] > 0.0 ? TILES : FMA;
    char shape[64];
    snprintf(shape, sizeof shape, "B%d E%d", (int)batch, (int)embed);
    check(contrastive_forward(&bench.cpu, &a), "contrastive_forward");
    if (wanted("contrastive_forward"))
        report("contrastive_forward", shape, contrastive_forward, &a, product, by);
    if (wanted("contrastive_backward"))
        report("contrastive_backward", shape, contrastive_backward, &a, 3.0 * product, by);
}

typedef struct stream_args { /* optimizer and casts */
    float *master, *m, *v, *grad, *average;
    void *param;
    int64_t n;
} stream_args;

static const dip_adamw_hyper hyper = {0.9, 0.98, 1e-6, 0.2, 1.0, 0.999};
static const dip_update update = {1, 1.0, 1.0, 1e-3f, 1.0f, 0.1f, 0.02f, 1, 0};

static dip_status adamw(dip_exec *exec, const void *args)
{
    const stream_args *a = args;
    return exec->ops->adamw(exec, a->master, a->param, a->m, a->v, NULL, a->grad, &update, hyper,
                            a->n);
}

static dip_status adamw_average(dip_exec *exec, const void *args)
{
    const stream_args *a = args;
    return exec->ops->adamw(exec, a->master, a->param, a->m, a->v, a->average, a->grad, &update,
                            hyper, a->n);
}

static dip_status ema(dip_exec *exec, const void *args)
{
    const stream_args *a = args;
    return exec->ops->ema(exec, a->m, a->master, &update, 0.999f, a->n);
}

static dip_status sum_of_squares(dip_exec *exec, const void *args)
{
    const stream_args *a = args;
    double sum;
    return exec->ops->sum_of_squares(exec, &sum, a->grad, a->n);
}

static dip_status cast_from_float(dip_exec *exec, const void *args)
{
    const stream_args *a = args;
    return exec->ops->cast_from_float(exec, a->param, a->grad, a->n);
}

static dip_status cast_to_float(dip_exec *exec, const void *args)
{
    const stream_args *a = args;
    return exec->ops->cast_to_float(exec, a->grad, a->param, a->n);
}

static dip_status activation(dip_exec *exec, const void *args)
{
    const stream_args *a = args;
    return exec->ops->activation_forward(exec, a->m, a->param, DIP_ACT_GELU, a->n);
}

static void bench_streams(void)
{
    static const struct {
        const char *op;
        call_fn *call;
        double float_passes, t_passes;
    } rows[] = {{"adamw", adamw, 7.0, 1.0},
                {"adamw with average", adamw_average, 9.0, 1.0},
                {"ema", ema, 3.0, 0.0},
                {"sum_of_squares", sum_of_squares, 1.0, 0.0},
                {"cast_from_float", cast_from_float, 1.0, 1.0},
                {"cast_to_float", cast_to_float, 1.0, 1.0},
                {"activation_forward", activation, 0.0, 2.0}};
    const int64_t n = 12 << 20;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (!wanted(rows[i].op)) continue;
        stream_args a = {.master = floats(0, n),
                         .m = floats(1, n),
                         .v = floats(2, n),
                         .grad = floats(3, n),
                         .average = floats(5, n),
                         .param = tensor(4, n),
                         .n = n};
        for (int64_t j = 0; j < n; j++) a.v[j] = fabsf(a.v[j]);
        double t_bytes = rows[i].t_passes * (double)dip_dtype_bytes(bench.dtype);
        double work = (double)n * (4.0 * rows[i].float_passes + t_bytes);
        report(rows[i].op, "n12582912", rows[i].call, &a, work, COPY);
    }
}

typedef struct entry_args {
    void *out, *in, *row, *pos;
    float *d_row, *d_pos;
    const uint8_t *images;
    int32_t *tokens;
    const int32_t *offsets, *order;
    int64_t batch, n, c;
    dip_image_shape shape;
} entry_args;

static dip_status patchify(dip_exec *exec, const void *args)
{
    const entry_args *a = args;
    const float mean[3] = {0.48f, 0.46f, 0.41f}, std[3] = {0.27f, 0.26f, 0.28f};
    return exec->ops->patchify(exec, a->out, a->images, mean, std, a->shape);
}

static dip_status image_embed_forward(dip_exec *exec, const void *args)
{
    const entry_args *a = args;
    return exec->ops->image_embed_forward(exec, a->out, a->in, a->row, a->pos, a->batch, a->n,
                                          a->c);
}

static dip_status image_embed_backward(dip_exec *exec, const void *args)
{
    const entry_args *a = args;
    return exec->ops->image_embed_backward(exec, a->in, a->d_row, a->d_pos, a->out, a->batch, a->n,
                                           a->c);
}

static dip_status text_embed_forward(dip_exec *exec, const void *args)
{
    const entry_args *a = args;
    return exec->ops->text_embed_forward(exec, a->out, a->tokens, a->offsets, a->in, a->pos,
                                         a->batch, a->batch * a->n, a->c);
}

static dip_status text_embed_backward(dip_exec *exec, const void *args)
{
    const entry_args *a = args;
    return exec->ops->text_embed_backward(exec, a->d_row, a->d_pos, a->out, a->tokens, a->offsets,
                                          a->order, a->batch, a->batch * a->n, 49408, a->c);
}

static void bench_entries(void)
{
    enum { B = 256, C = 384, LENGTH = 16, VOCAB = 49408 };
    static int32_t tokens[B * LENGTH], order[B * LENGTH], offsets[B + 1];
    const double t = (double)dip_dtype_bytes(bench.dtype);
    entry_args a = {.batch = B, .n = 49, .c = C, .shape = {B, 224, 224, 32}};
    if (wanted("patchify")) {
        const int64_t n = (int64_t)B * 224 * 224 * 3;
        a.out = tensor(0, n);
        a.images = (const uint8_t *)floats(1, n / 4);
        report("patchify", "B256 224x224 P32", patchify, &a, (double)n * (1.0 + t), COPY);
    }
    a.out = tensor(0, B * 50 * C);
    a.in = tensor(1, (int64_t)VOCAB * C);
    a.row = tensor(2, C);
    a.pos = tensor(3, 50 * C);
    a.d_row = floats(4, (int64_t)VOCAB * C);
    a.d_pos = floats(5, 50 * C);
    const double pass = (double)(B * 49 * C) * t;
    if (wanted("image_embed_forward"))
        report("image_embed_forward", "B256 n49 C384", image_embed_forward, &a, 2.0 * pass, COPY);
    if (wanted("image_embed_backward"))
        report("image_embed_backward", "B256 n49 C384", image_embed_backward, &a, 3.0 * pass, COPY);
    a.n = LENGTH;
    for (int i = 0; i < B * LENGTH; i++) tokens[i] = (int32_t)((uint32_t)i * 2654435761u % VOCAB);
    for (int i = 0; i <= B; i++) offsets[i] = i * LENGTH;
    for (int token = 0, n = 0; token < VOCAB; token++)
        for (int i = 0; i < B * LENGTH; i++)
            if (tokens[i] == token) order[n++] = i;
    a.tokens = tokens;
    a.order = order;
    a.offsets = offsets;
    const double values = (double)(B * LENGTH * C);
    if (wanted("text_embed_forward"))
        report("text_embed_forward", "B256 L16 C384", text_embed_forward, &a, values * 2.0 * t,
               COPY);
    if (wanted("text_embed_backward"))
        report("text_embed_backward", "B256 L16 C384", text_embed_backward, &a, values * (t + 8.0),
               COPY);
}

int main(int argc, char **argv)
{
    bench.filter = argc > 1 ? argv[1] : "";
    const int n_threads = argc > 2 ? atoi(argv[2]) : dip_core_count();
    if (n_threads < 1) {
        fprintf(stderr, "usage: bench_ops [OP [THREADS]], THREADS at least 1\n");
        return 2;
    }
    measure_limits(n_threads);
    for (int dtype = DIP_F32; dtype <= DIP_BF16; dtype++) {
        bench.dtype = (dip_dtype)dtype;
        check(dip_exec_open(&bench.cpu, "cpu", bench.dtype, n_threads), "cpu");
        check(dip_exec_open(&bench.reference, "reference", bench.dtype, n_threads), "reference");
        bench_attention(256, 50, 3, 0);
        bench_attention(256, 65, 6, 0);
        bench_attention(256, 16, 6, 1);
        bench_attention(256, 32, 8, 1);
        bench_attention(256, 77, 8, 1);
        bench_attention(64, 197, 12, 0);
        bench_attention(4, 1000, 12, 0);
        bench_layernorm(12800, 192);
        bench_layernorm(16640, 384);
        bench_layernorm(12800, 768);
        bench_contrastive(256, 512);
        bench_contrastive(2048, 512);
        bench_entries();
        bench_small();
        bench_streams();
        dip_exec_close(&bench.cpu);
        dip_exec_close(&bench.reference);
    }
    for (int i = 0; i < N_BUFFERS; i++) free(bench.buffers[i]);
    return 0;
}
