#include "text/text.h"

#include <math.h>
#include <stdlib.h>

#include "nn/stack.h"

/* ---- description ----------------------------------------------------------------------- */

dip_status dip_text_init(dip_text *tower, const dip_text_config *config, int embed_dim,
                         dip_param_table *table)
{
    const int64_t w = config->width;
    const int64_t by_w[1] = {w}, pos[2] = {config->context_length, w};
    const int64_t vocab[2] = {config->vocab_size, w}, proj[2] = {w, embed_dim};
    *tower = (dip_text){.config = *config, .embed_dim = embed_dim};
    tower->blocks = calloc((size_t)config->layers, sizeof *tower->blocks);
    if (!tower->blocks) return dip_fail(DIP_NOMEM, "no memory for the text tower's description");
    tower->positional_embedding =
        dip_param_add(table, DIP_INIT_NORMAL, 0.01, false, 2, pos, "positional_embedding");
    tower->text_projection = dip_param_add(table, DIP_INIT_NORMAL, pow((double)w, -0.5), true, 2,
                                           proj, "text_projection");
    tower->token_embedding =
        dip_param_add(table, DIP_INIT_NORMAL, 0.02, true, 2, vocab, "token_embedding.weight");
    for (int i = 0; i < config->layers; i++)
        dip_block_init(&tower->blocks[i], table, "transformer", i, config->width, config->heads,
                       (int)(config->width * config->mlp_ratio), true, config->activation,
                       config->norm_eps, DIP_BLOCK_INIT_TEXT, config->layers);
    tower->ln_final_w =
        dip_param_add(table, DIP_INIT_CONSTANT, 1, false, 1, by_w, "ln_final.weight");
    tower->ln_final_b = dip_param_add(table, DIP_INIT_CONSTANT, 0, false, 1, by_w, "ln_final.bias");
    return DIP_OK;
}

void dip_text_free(dip_text *tower)
{
    free(tower->blocks);
    *tower = (dip_text){0};
}

double dip_text_flops(const dip_text *tower, double length)
{
    const dip_text_config *c = &tower->config;
    const double t = length, w = c->width, f = w * c->mlp_ratio;
    return c->layers * (2 * t * w * (4 * w + 2 * f) + 4 * t * t * w) + 2 * w * tower->embed_dim;
}

/* ---- memory of a pass ------------------------------------------------------------------ */

enum {
    INDEX,       /* int32 [N + 2 B + 1]: tokens, offsets, end rows; one upload a batch */
    POST,        /* [B, C]: ln_final of the end-of-text rows */
    POST_STATS,  /* float [2, B] */
    PROJECTED,   /* [B, E] */
    FEATURES,    /* float [B, E] */
    INV_NORM,    /* float [B] */
    D_PROJECTED, /* [B, E] */
    D_POST,      /* [B, C] */
    N_BUFFERS
};

struct dip_text_pass {
    dip_stack_pass stack;
    int64_t max_texts, max_rows;
    int64_t n_texts, n_rows, max_length; /* of the batch at hand */
    bool save;
    dip_region regions[N_BUFFERS];
    void *buffer[N_BUFFERS];
    int32_t *host_index;
};

dip_status dip_text_plan(dip_text_pass **out, const dip_text *tower, dip_plan *plan,
                         const dip_exec *exec, int64_t max_texts, bool save,
                         size_t *workspace_bytes)
{
    dip_text_pass *pass = calloc(1, sizeof *pass);
    *out = pass;
    if (!pass) return dip_fail(DIP_NOMEM, "no memory for a pass of the text tower");
    const dip_text_config *config = &tower->config;
    const size_t t = dip_dtype_bytes(exec->ops->dtype);
    const size_t b = (size_t)max_texts, c = (size_t)config->width, e = (size_t)tower->embed_dim;
    const size_t rows = b * (size_t)config->context_length;
    const dip_space space = save ? DIP_SPACE_SAVED : DIP_SPACE_SCRATCH;
    pass->max_texts = max_texts;
    pass->max_rows = (int64_t)rows;
    pass->save = save;
    for (int i = 0; i < N_BUFFERS; i++) pass->regions[i] = -1;
    dip_status status = DIP_OK;
    if (rows > INT32_MAX) {
        status = dip_fail(DIP_CONFIG, "%lld texts of %d tokens at once are too many",
                          (long long)max_texts, config->context_length);
        goto fail;
    }
    pass->host_index = malloc((rows + 2 * b + 1) * sizeof *pass->host_index);
    if (!pass->host_index) {
        status = dip_fail(DIP_NOMEM, "no memory for a pass of the text tower");
        goto fail;
    }

#define BOOK(which, space_, bytes)                                                                 \
    pass->regions[which] = dip_plan_book(plan, "text." #which, space_, bytes)
    BOOK(INDEX, space, (rows + 2 * b + 1) * sizeof(int32_t));
    BOOK(POST, space, b * c * t);
    BOOK(POST_STATS, space, 2 * b * sizeof(float));
    BOOK(PROJECTED, DIP_SPACE_SCRATCH, b * e * t);
    BOOK(FEATURES, space, b * e * sizeof(float));
    BOOK(INV_NORM, space, b * sizeof(float));
    if (save) {
        BOOK(D_PROJECTED, DIP_SPACE_SCRATCH, b * e * t);
        BOOK(D_POST, DIP_SPACE_SCRATCH, b * c * t);
    }
#undef BOOK
    DIP_TRY_GOTO(dip_stack_plan(&pass->stack, tower->blocks, config->layers, plan, exec,
                                (int64_t)rows, max_texts, save, "text"));

    size_t need = dip_block_workspace(&tower->blocks[0], exec, (int64_t)rows, max_texts,
                                      config->context_length);
    const dip_matmul_shape proj = {max_texts, (int64_t)c, (int64_t)e, DIP_IN_OUT};
    const size_t proj_need = exec->ops->matmul_workspace(exec, proj);
    if (proj_need > need) need = proj_need;
    if (need > *workspace_bytes) *workspace_bytes = need;
    return DIP_OK;
fail:
    dip_text_pass_free(pass);
    *out = NULL;
    return status;
}

void dip_text_bind(dip_text_pass *pass, const dip_plan *plan)
{
    for (int i = 0; i < N_BUFFERS; i++) pass->buffer[i] = dip_plan_ptr(plan, pass->regions[i]);
    dip_stack_bind(&pass->stack, plan);
}

void dip_text_pass_free(dip_text_pass *pass)
{
    if (!pass) return;
    dip_stack_free(&pass->stack);
    free(pass->host_index);
    free(pass);
}

/* ---- forward --------------------------------------------------------------------------- */

/* The parts of INDEX, on the device. */
static const int32_t *index_tokens(const dip_text_pass *pass)
{
    return pass->buffer[INDEX];
}
static const int32_t *index_offsets(const dip_text_pass *pass)
{
    return index_tokens(pass) + pass->n_rows;
}
static const int32_t *index_end_rows(const dip_text_pass *pass)
{
    return index_offsets(pass) + pass->n_texts + 1;
}

static dip_sequences sequences_of(const dip_text_pass *pass)
{
    return (dip_sequences){.offsets = index_offsets(pass),
                           .n_sequences = pass->n_texts,
                           .n_rows = pass->n_rows,
                           .max_length = pass->max_length};
}

/* Check the batch and lay out its index on the host. */
static dip_status check_batch(const dip_text *tower, dip_text_pass *pass, const int32_t *tokens,
                              const int32_t *offsets, int64_t n_texts)
{
    const dip_text_config *config = &tower->config;
    if (n_texts > pass->max_texts)
        return dip_fail(DIP_CONFIG, "%lld texts in a pass planned for %lld", (long long)n_texts,
                        (long long)pass->max_texts);
    pass->n_texts = n_texts;
    pass->n_rows = offsets[n_texts];
    pass->max_length = 0;
    int32_t *host = pass->host_index;
    for (int64_t i = 0; i < n_texts; i++) {
        const int32_t length = offsets[i + 1] - offsets[i];
        if (length < 1 || length > config->context_length)
            return dip_fail(DIP_FORMAT, "text %lld has %d tokens; the model takes 1 to %d",
                            (long long)i, (int)length, config->context_length);
        if (length > pass->max_length) pass->max_length = length;
    }
    /* No text is too long, so all of it fits. */
    for (int64_t i = 0; i < n_texts; i++) {
        host[pass->n_rows + i] = offsets[i];
        host[pass->n_rows + n_texts + 1 + i] = offsets[i + 1] - 1;
    }
    host[pass->n_rows + n_texts] = offsets[n_texts];
    for (int64_t i = 0; i < pass->n_rows; i++) {
        if (tokens[i] < 0 || tokens[i] >= config->vocab_size)
            return dip_fail(DIP_FORMAT, "token id %d is outside the model's vocabulary of %d",
                            (int)tokens[i], config->vocab_size);
        host[i] = tokens[i];
    }
    return DIP_OK;
}

dip_status dip_text_forward(dip_exec *exec, const dip_text *tower, const dip_param_set *params,
                            dip_text_pass *pass, float *features, const int32_t *tokens,
                            const int32_t *offsets, int64_t n_texts)
{
    const dip_ops *ops = exec->ops;
    const int64_t c = tower->config.width, e = tower->embed_dim;
    void *const *buffer = pass->buffer;
    DIP_TRY(check_batch(tower, pass, tokens, offsets, n_texts));
    DIP_TRY(exec->device->upload(exec, buffer[INDEX], pass->host_index,
                                 (size_t)(pass->n_rows + 2 * n_texts + 1) * sizeof(int32_t)));
    const dip_sequences sequences = sequences_of(pass);
#define P(field) dip_param_value(params, tower->field)
    DIP_TRY(ops->text_embed_forward(exec, dip_stack_input(&pass->stack), index_tokens(pass),
                                    sequences.offsets, P(token_embedding), P(positional_embedding),
                                    n_texts, pass->n_rows, c));
    DIP_TRY(dip_stack_forward(exec, &pass->stack, params, sequences, index_end_rows(pass)));
    float *stats = buffer[POST_STATS];
    DIP_TRY(ops->layernorm_forward(exec, buffer[POST], stats, stats + n_texts,
                                   dip_stack_output(&pass->stack), P(ln_final_w), P(ln_final_b),
                                   (float)tower->config.norm_eps, n_texts, c));
    DIP_TRY(ops->matmul_forward(exec, buffer[PROJECTED], NULL, buffer[POST], P(text_projection),
                                NULL, NULL, DIP_ACT_NONE,
                                (dip_matmul_shape){n_texts, c, e, DIP_IN_OUT}));
    DIP_TRY(ops->l2norm_forward(exec, features, buffer[INV_NORM], buffer[PROJECTED], n_texts, e));
    if (pass->save)
        DIP_TRY(exec->device->copy(exec, buffer[FEATURES], features,
                                   (size_t)(n_texts * e) * sizeof(float)));
    return DIP_OK;
}

/* ---- backward -------------------------------------------------------------------------- */

dip_status dip_text_backward(dip_exec *exec, const dip_text *tower, const dip_param_set *params,
                             dip_text_pass *pass, const float *d_features)
{
    const dip_ops *ops = exec->ops;
    const int64_t b = pass->n_texts, c = tower->config.width, e = tower->embed_dim;
    const dip_sequences sequences = sequences_of(pass);
    const dip_matmul_shape proj = {b, c, e, DIP_IN_OUT};
    void *const *buffer = pass->buffer;
#define G(field) dip_param_grad(params, tower->field)
    DIP_TRY(ops->l2norm_backward(exec, buffer[D_PROJECTED], d_features, buffer[FEATURES],
                                 buffer[INV_NORM], b, e));
    DIP_TRY(ops->matmul_backward_weight(exec, G(text_projection), NULL, buffer[D_PROJECTED],
                                        buffer[POST], proj));
    DIP_TRY(ops->matmul_backward_input(exec, buffer[D_POST], buffer[D_PROJECTED],
                                       P(text_projection), NULL, DIP_ACT_NONE, proj));
    const float *stats = buffer[POST_STATS];
    DIP_TRY(ops->layernorm_backward(exec, dip_stack_d_output(&pass->stack), G(ln_final_w),
                                    G(ln_final_b), buffer[D_POST], dip_stack_output(&pass->stack),
                                    stats, stats + b, P(ln_final_w), NULL, b, c));
    void *d_x;
    DIP_TRY(dip_stack_backward(exec, &pass->stack, params, sequences, index_end_rows(pass), &d_x));
    return ops->text_embed_backward(exec, G(token_embedding), G(positional_embedding), d_x,
                                    index_tokens(pass), sequences.offsets, b, pass->n_rows,
                                    tower->config.vocab_size, c);
#undef G
#undef P
}
