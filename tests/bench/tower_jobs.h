/* tower_jobs.h - the ops of the towers of ViT-B-32, ViT-B-16 and ViT-L-14, as jobs.
 *
 * Usage:   bench_tower for every row of `towers`; the parts of it that bench_cuda.c uses besides:
 *          product, matmul_forward_job, sized_job, bench_l2norm.                            */
#ifndef DIP_BENCH_TOWER_JOBS_H
#define DIP_BENCH_TOWER_JOBS_H

#include "job.h"

/* ---- matrix products ------------------------------------------------------------------------ */

static dip_status matmul_forward(dip_exec *exec, const job *j, char *const t[])
{
    return exec->ops->matmul_forward(exec, t[0], t[1], t[2], t[3], t[4], t[5], j->activation,
                                     j->matmul);
}

static dip_status matmul_backward_input(dip_exec *exec, const job *j, char *const t[])
{
    return exec->ops->matmul_backward_input(exec, t[0], t[1], t[2], t[3], j->activation, j->matmul);
}

static dip_status matmul_backward_weight(dip_exec *exec, const job *j, char *const t[])
{
    return exec->ops->matmul_backward_weight(exec, (float *)t[0], (float *)t[1], t[2], t[3],
                                             j->matmul);
}

typedef struct product {
    const char *name;
    dip_matmul_shape shape;
    bool bias, residual;
    bool activates, activated; /* the output, the input; in backward through the input's `pre` */
    bool first;                /* no gradient goes further */
} product;

static job matmul_job(const char *name, const char *config, call_fn *call, const product *p)
{
    const dip_matmul_shape s = p->shape;
    job j = make_job(name, config, call, s.n_rows);
    j.matmul = s;
    j.flops = 2.0 * (double)s.n_rows * (double)s.c_in * (double)s.c_out;
    j.workspace = bench.exec.ops->matmul_workspace(&bench.exec, s);
    snprintf(j.shape, sizeof j.shape, "%s %lldx%lldx%lld", p->name, (long long)s.n_rows,
             (long long)s.c_in, (long long)s.c_out);
    return j;
}

static job matmul_forward_job(const char *name, const char *config, const product *p)
{
    const int64_t in = p->shape.n_rows * p->shape.c_in, out = p->shape.n_rows * p->shape.c_out;
    job j = matmul_job(name, config, matmul_forward, p);
    j.activation = p->activates ? DIP_ACT_GELU : DIP_ACT_NONE;
    writes(&j, out, T);
    writes(&j, p->activates ? out : 0, T);
    reads(&j, in, T, UNIT);
    reads(&j, p->shape.c_in * p->shape.c_out, T, SMALL);
    reads(&j, p->bias ? p->shape.c_out : 0, T, SMALL);
    reads(&j, p->residual ? out : 0, T, UNIT);
    return j;
}

static void bench_product(const char *config, const product *p)
{
    const int64_t in = p->shape.n_rows * p->shape.c_in, out = p->shape.n_rows * p->shape.c_out;
    const int64_t weight = p->shape.c_in * p->shape.c_out;
    const job forward = matmul_forward_job("matmul_forward", config, p);
    run_job(&forward);
    if (!p->first) {
        job j = matmul_job("matmul_backward_input", config, matmul_backward_input, p);
        j.activation = p->activated ? DIP_ACT_GELU : DIP_ACT_NONE;
        writes(&j, in, T);
        reads(&j, out, T, SMALL);
        reads(&j, weight, T, SMALL);
        reads(&j, p->activated ? in : 0, T, UNIT);
        run_job(&j);
    }
    job j = matmul_job("matmul_backward_weight", config, matmul_backward_weight, p);
    updates(&j, weight, F, SMALL);
    updates(&j, p->bias ? p->shape.c_out : 0, F, SMALL);
    reads(&j, out, T, SMALL);
    reads(&j, in, T, UNIT);
    run_job(&j);
}

/* ---- what a block does besides ----------------------------------------------------------------
 */

static dip_status activation_forward(dip_exec *exec, const job *j, char *const t[])
{
    return exec->ops->activation_forward(exec, t[0], t[1], DIP_ACT_GELU, j->n);
}

static dip_status attention_forward(dip_exec *exec, const job *j, char *const t[])
{
    return exec->ops->attention_forward(exec, t[0], (float *)t[1], t[2], (const int32_t *)t[3],
                                        j->attention);
}

static dip_status attention_saved(dip_exec *exec, const job *j, char *const t[])
{
    return exec->ops->attention_forward(exec, t[3], (float *)t[4], t[2], (const int32_t *)t[5],
                                        j->attention);
}

static dip_status attention_backward(dip_exec *exec, const job *j, char *const t[])
{
    return exec->ops->attention_backward(exec, t[0], t[1], t[2], t[3], (float *)t[4],
                                         (const int32_t *)t[5], j->attention);
}

static void bench_attention(const char *config, dip_attention_shape shape, const int32_t *offsets)
{
    const int64_t n = shape.n_rows, c = (int64_t)shape.n_heads * shape.head_size;
    const double length = (double)shape.max_length;
    const double flops = 2.0 * (double)n * (double)c * (shape.causal ? 0.5 * (length + 1) : length);
    job forward = make_job("attention_forward", config, attention_forward, n), *j = &forward;
    snprintf(j->shape, sizeof j->shape, "B%lld L%lld H%d D%d%s", (long long)shape.n_sequences,
             (long long)shape.max_length, shape.n_heads, shape.head_size,
             shape.causal ? " causal" : "");
    j->attention = shape;
    j->workspace = bench.exec.ops->attention_workspace(&bench.exec, shape);
    job backward = *j;
    j->flops = 2 * flops;
    writes(j, n * c, T);
    writes(j, n * shape.n_heads, F);
    reads(j, n * 3 * c, T, UNIT);
    reads_host(j, offsets, shape.n_sequences + 1, F);
    run_job(j);
    j = &backward;
    j->bench = "attention_backward";
    j->call = attention_backward;
    j->prepare = attention_saved;
    j->flops = 5 * flops;
    writes(j, n * 3 * c, T);
    reads(j, n * c, T, SMALL);
    reads(j, n * 3 * c, T, UNIT);
    reads(j, n * c, T, NOTHING);
    reads(j, n * shape.n_heads, F, NOTHING);
    reads_host(j, offsets, shape.n_sequences + 1, F);
    run_job(j);
}

static dip_status layernorm_forward(dip_exec *exec, const job *j, char *const t[])
{
    return exec->ops->layernorm_forward(exec, t[0], (float *)t[1], (float *)t[2], t[3], t[4], t[5],
                                        1e-5f, j->n, j->c);
}

static dip_status layernorm_saved(dip_exec *exec, const job *j, char *const t[])
{
    return exec->ops->layernorm_forward(exec, t[0], (float *)t[5], (float *)t[6], t[4], t[7], t[7],
                                        1e-5f, j->n, j->c);
}

/* As a block calls it: d_x holds the residual's gradient. */
static dip_status layernorm_backward(dip_exec *exec, const job *j, char *const t[])
{
    return exec->ops->layernorm_backward(exec, t[0], (float *)t[1], (float *)t[2], t[3], t[4],
                                         (float *)t[5], (float *)t[6], t[7], t[0], j->n, j->c);
}

static job sized_job(const char *name, const char *config, call_fn *call, int64_t n, int64_t c)
{
    job j = make_job(name, config, call, n);
    j.n = n;
    j.c = c;
    snprintf(j.shape, sizeof j.shape, "%lldx%lld", (long long)n, (long long)c);
    return j;
}

static void bench_layernorm(const char *config, int64_t n, int64_t c)
{
    job j = sized_job("layernorm_forward", config, layernorm_forward, n, c);
    j.workspace = bench.exec.ops->layernorm_workspace(&bench.exec, n, c);
    writes(&j, n * c, T);
    writes(&j, n, F);
    writes(&j, n, F);
    reads(&j, n * c, T, UNIT);
    reads(&j, c, T, UNIT);
    reads(&j, c, T, UNIT);
    run_job(&j);
    j = sized_job("layernorm_backward", config, layernorm_backward, n, c);
    j.workspace = bench.exec.ops->layernorm_workspace(&bench.exec, n, c);
    j.prepare = layernorm_saved;
    updates(&j, n * c, T, NOTHING); /* after prepare: a normalised x */
    updates(&j, c, F, SMALL);
    updates(&j, c, F, SMALL);
    reads(&j, n * c, T, SMALL);
    reads(&j, n * c, T, UNIT);
    reads(&j, n, F, NOTHING);
    reads(&j, n, F, NOTHING);
    reads(&j, c, T, UNIT);
    run_job(&j);
}

/* ---- entry and pooling ------------------------------------------------------------------------
 */

static dip_status patchify(dip_exec *exec, const job *j, char *const t[])
{
    static const float mean[3] = {0.48f, 0.46f, 0.41f}, std[3] = {0.27f, 0.26f, 0.28f};
    return exec->ops->patchify(exec, t[0], (const uint8_t *)t[1], mean, std, j->image);
}

static dip_status image_embed_forward(dip_exec *exec, const job *j, char *const t[])
{
    return exec->ops->image_embed_forward(exec, t[0], t[1], t[2], t[3], j->image.n_images, j->n,
                                          j->c);
}

static dip_status image_embed_backward(dip_exec *exec, const job *j, char *const t[])
{
    return exec->ops->image_embed_backward(exec, t[0], (float *)t[1], (float *)t[2], t[3],
                                           j->image.n_images, j->n, j->c);
}

static void bench_image_entry(const char *config, dip_image_shape image, int64_t n_patches,
                              int64_t c)
{
    const int64_t pixels = image.n_images * image.height * image.width;
    const int64_t patches = image.n_images * n_patches, rows = image.n_images * (n_patches + 1);
    job j = sized_job("patchify", config, patchify, patches, 3 * image.patch * image.patch);
    j.image = image;
    writes(&j, 3 * pixels, T);
    reads(&j, 3 * pixels, 1, BYTES);
    run_job(&j);
    const product p = {
        "conv1", {patches, 3 * image.patch * image.patch, c, DIP_OUT_IN}, .first = true};
    bench_product(config, &p);

    j = sized_job("image_embed_forward", config, image_embed_forward, rows, c);
    j.image = image;
    j.n = n_patches;
    writes(&j, rows * c, T);
    reads(&j, patches * c, T, UNIT);
    reads(&j, c, T, SMALL);
    reads(&j, (n_patches + 1) * c, T, SMALL);
    run_job(&j);
    j = sized_job("image_embed_backward", config, image_embed_backward, rows, c);
    j.image = image;
    j.n = n_patches;
    writes(&j, patches * c, T);
    updates(&j, c, F, SMALL);
    updates(&j, (n_patches + 1) * c, F, SMALL);
    reads(&j, rows * c, T, SMALL);
    run_job(&j);
}

static dip_status text_embed_forward(dip_exec *exec, const job *j, char *const t[])
{
    return exec->ops->text_embed_forward(exec, t[0], (const int32_t *)t[3], (const int32_t *)t[4],
                                         t[1], t[2], j->n, j->rows, j->c);
}

static dip_status text_embed_backward(dip_exec *exec, const job *j, char *const t[])
{
    return exec->ops->text_embed_backward(exec, (float *)t[0], (float *)t[1], t[2],
                                          (const int32_t *)t[3], (const int32_t *)t[4],
                                          (const int32_t *)t[5], j->n, j->rows, j->vocab, j->c);
}

static int by_token(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Tokens as language has them: one in N log N, so that a few are in many rows; each text begins and
 * ends with its own. Returns how many different ones there are. */
static int64_t make_tokens(int32_t *tokens, int32_t *order, int64_t *keys, int64_t n,
                           int64_t length, int64_t vocab)
{
    uint64_t state = 7;
    int64_t distinct = 0;
    for (int64_t i = 0; i < n; i++) {
        const double uniform = (double)(next_random(&state) >> 11) * 0x1p-53;
        tokens[i] = (int32_t)(exp(uniform * log((double)vocab - 2)) - 1);
        if (i % length == 0) tokens[i] = (int32_t)vocab - 2;
        if (i % length == length - 1) tokens[i] = (int32_t)vocab - 1;
        keys[i] = (int64_t)tokens[i] * n + i;
    }
    qsort(keys, (size_t)n, sizeof *keys, by_token);
    for (int64_t i = 0; i < n; i++) {
        order[i] = (int32_t)(keys[i] % n);
        distinct += i == 0 || keys[i] / n != keys[i - 1] / n;
    }
    return distinct;
}

static void bench_text_entry(const char *config, int64_t batch, int64_t length, int64_t c,
                             const int32_t *offsets)
{
    const int64_t n = batch * length, vocab = sized(49408, 300);
    int32_t *tokens = malloc((size_t)n * sizeof *tokens),
            *order = malloc((size_t)n * sizeof *order);
    int64_t *keys = malloc((size_t)n * sizeof *keys);
    job j = sized_job("text_embed_forward", config, text_embed_forward, n, c);
    if (tokens && order && keys) {
        const int64_t distinct = make_tokens(tokens, order, keys, n, length, vocab);
        const double used = (double)distinct / (double)vocab;
        j.n = batch;
        j.vocab = vocab;
        job backward = j;
        writes(&j, n * c, T);
        add(&j, vocab * c, T, SMALL, used);
        reads(&j, length * c, T, SMALL);
        reads_host(&j, tokens, n, F);
        reads_host(&j, offsets, batch + 1, F);
        run_job(&j);
        backward.bench = "text_embed_backward";
        backward.call = text_embed_backward;
        add(&backward, vocab * c, F, SMALL, 2 * used);
        updates(&backward, length * c, F, SMALL);
        reads(&backward, n * c, T, SMALL);
        reads_host(&backward, tokens, n, F);
        reads_host(&backward, offsets, batch + 1, F);
        reads_host(&backward, order, n, F);
        run_job(&backward);
    } else {
        dip_fail(DIP_NOMEM, "no memory for %lld tokens", (long long)n);
        failed(&j);
    }
    free(tokens);
    free(order);
    free(keys);
}

static dip_status rows_gather(dip_exec *exec, const job *j, char *const t[])
{
    return exec->ops->rows_gather(exec, t[0], t[1], (const int32_t *)t[2], j->n, j->c);
}

static dip_status rows_scatter(dip_exec *exec, const job *j, char *const t[])
{
    return exec->ops->rows_scatter(exec, t[0], t[1], (const int32_t *)t[2], j->n, j->rows, j->c);
}

static dip_status l2norm_forward(dip_exec *exec, const job *j, char *const t[])
{
    return exec->ops->l2norm_forward(exec, (float *)t[0], (float *)t[1], t[2], j->n, j->c);
}

static dip_status l2norm_saved(dip_exec *exec, const job *j, char *const t[])
{
    return exec->ops->l2norm_forward(exec, (float *)t[2], (float *)t[3], t[0], j->n, j->c);
}

static dip_status l2norm_backward(dip_exec *exec, const job *j, char *const t[])
{
    return exec->ops->l2norm_backward(exec, t[0], (float *)t[1], (float *)t[2], (float *)t[3], j->n,
                                      j->c);
}

static void bench_l2norm(const char *config, int64_t n, int64_t e)
{
    job j = sized_job("l2norm_forward", config, l2norm_forward, n, e);
    writes(&j, n * e, F);
    writes(&j, n, F);
    reads(&j, n * e, T, UNIT);
    run_job(&j);
    j = sized_job("l2norm_backward", config, l2norm_backward, n, e);
    j.prepare = l2norm_saved;
    add(&j, n * e, T, UNIT, 1); /* x before, d_x after */
    reads(&j, n * e, F, SMALL);
    reads(&j, n * e, F, NOTHING);
    reads(&j, n, F, NOTHING);
    run_job(&j);
}

static void bench_pooling(const char *config, int64_t batch, int64_t length, int64_t c,
                          const int32_t *first_rows)
{
    const int64_t rows = batch * length;
    job j = sized_job("rows_gather", config, rows_gather, rows, c);
    j.n = batch;
    writes(&j, batch * c, T);
    add(&j, rows * c, T, UNIT, 1.0 / (double)length);
    reads_host(&j, first_rows, batch, F);
    run_job(&j);
    j = sized_job("rows_scatter", config, rows_scatter, rows, c);
    j.n = batch;
    writes(&j, rows * c, T);
    reads(&j, batch * c, T, SMALL);
    reads_host(&j, first_rows, batch, F);
    run_job(&j);
}

/* ---- the towers ----------------------------------------------------------------------------- */

enum { HEAD_SIZE = 64, MAX_BATCH = 256 };

static const struct tower {
    const char *config;
    int64_t width, embed;
    int patch; /* 0: text */
} towers[] = {
    {"ViT-B-32 image", 768, 512, 32},  {"ViT-B-16 image", 768, 512, 16},
    {"ViT-L-14 image", 1024, 768, 14}, {"ViT-B-32 text", 512, 512, 0},
    {"ViT-L-14 text", 768, 768, 0},
};

static void bench_block(const char *config, int64_t n, int64_t c)
{
    const product products[] = {
        {"qkv", {n, c, 3 * c, DIP_OUT_IN}, .bias = true},
        {"out", {n, c, c, DIP_OUT_IN}, .bias = true, .residual = true},
        {"fc", {n, c, 4 * c, DIP_OUT_IN}, .bias = true, .activates = true},
        {"proj", {n, 4 * c, c, DIP_OUT_IN}, .bias = true, .residual = true, .activated = true},
    };
    for (size_t i = 0; i < sizeof products / sizeof products[0]; i++)
        bench_product(config, &products[i]);
    job j = sized_job("activation_forward", config, activation_forward, n, 4 * c);
    j.n = n * 4 * c;
    writes(&j, j.n, T);
    reads(&j, j.n, T, UNIT);
    run_job(&j);
    bench_layernorm(config, n, c);
}

static void bench_tower(const struct tower *tower)
{
    const char *config = tower->config;
    const int64_t batch = sized(MAX_BATCH, 2), c = sized(tower->width, 2 * HEAD_SIZE);
    const int64_t embed = sized(tower->embed, HEAD_SIZE);
    const int side = tower->patch > 0 ? (int)sized(224 / tower->patch, 3) : 0; /* in patches */
    const int64_t length = side > 0 ? side * side + 1 : sized(77, 9);
    const dip_image_shape image = {batch, side * tower->patch, side * tower->patch, tower->patch};
    const dip_attention_shape attention = {batch,     batch * length, length, (int)(c / HEAD_SIZE),
                                           HEAD_SIZE, side == 0};
    const product features = {.name = "features", .shape = {batch, c, embed, DIP_IN_OUT}};
    int32_t offsets[MAX_BATCH + 1];
    for (int64_t b = 0; b <= batch; b++) offsets[b] = (int32_t)(b * length);
    if (side > 0)
        bench_image_entry(config, image, length - 1, c);
    else
        bench_text_entry(config, batch, length, c, offsets);
    bench_block(config, batch * length, c);
    bench_attention(config, attention, offsets);
    bench_pooling(config, batch, length, c, offsets);
    bench_product(config, &features);
    bench_l2norm(config, batch, embed);
}

#endif
