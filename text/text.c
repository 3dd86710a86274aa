#include "text/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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
    POST,        /* [B, C]: ln_final of the end-of-text rows */
    POST_STATS,  /* float [2, B] */
    PROJECTED,   /* [B, E] */
    FEATURES,    /* float [B, E] */
    INV_NORM,    /* float [B] */
    D_PROJECTED, /* [B, E] */
    D_POST,      /* [B, C] */
    INDEX,       /* the layout's block of int32, one a slot: a batch is on the device before the
                    other tower has used the scratch */
    N_BUFFERS = INDEX + DIP_N_SLOTS
};

struct dip_text_pass {
    dip_stack_pass stack;
    int64_t max_texts, max_rows;
    size_t max_index; /* values of the largest block */
    size_t n_counts;  /* to sort with: vocab + 1 when saving */
    bool save;
    dip_text_padding padding;
    int n_slots;
    dip_region regions[N_BUFFERS];
    void *buffer[N_BUFFERS];
    const dip_device *device; /* of host_index */
    int32_t *host_index;      /* [max_index], then [n_counts] */
};

dip_status dip_text_plan(dip_text_pass **out, const dip_text *tower, dip_plan *plan,
                         const dip_exec *exec, int64_t max_texts, dip_text_options options,
                         size_t *workspace_bytes)
{
    dip_text_pass *pass = calloc(1, sizeof *pass);
    *out = pass;
    if (!pass) return dip_fail(DIP_NOMEM, "no memory for a pass of the text tower");
    const dip_text_config *config = &tower->config;
    const size_t t = dip_dtype_bytes(exec->ops->dtype);
    const size_t b = (size_t)max_texts, c = (size_t)config->width, e = (size_t)tower->embed_dim;
    const size_t rows = b * (size_t)config->context_length;
    const bool save = options.pass.save;
    const dip_space space = save ? DIP_SPACE_SAVED : DIP_SPACE_SCRATCH;
    dip_status status = DIP_OK;
    pass->max_texts = max_texts;
    pass->max_rows = (int64_t)rows;
    pass->save = save;
    pass->n_slots = options.n_slots > 0 ? options.n_slots : 1;
    pass->padding = options.padding;
    if (pass->padding == DIP_TEXT_PAD_AUTO)
        pass->padding = exec->device->is_host ? DIP_TEXT_PAD_NONE : DIP_TEXT_PAD_BUCKETS;
    for (int i = 0; i < N_BUFFERS; i++) pass->regions[i] = -1;
    if (rows > INT32_MAX) {
        status = dip_fail(DIP_CONFIG, "%lld texts of %d tokens at once are too many",
                          (long long)max_texts, config->context_length);
        goto fail;
    }
    const dip_text_layout largest = dip_text_layout_largest(
        max_texts, pass->max_rows, config->context_length, pass->padding, save);
    pass->max_index = largest.n_values;
    pass->n_counts = save ? (size_t)config->vocab_size + 1 : 0;

#define BOOK(which, space_, bytes)                                                                 \
    pass->regions[which] = dip_plan_book(plan, "text." #which, space_, bytes)
    for (int i = 0; i < pass->n_slots; i++)
        pass->regions[INDEX + i] =
            dip_plan_book(plan, "text.INDEX", DIP_SPACE_SAVED, pass->max_index * sizeof(int32_t));
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
                                (int64_t)rows, max_texts, options.pass, "text"));

    size_t need = dip_block_workspace(&tower->blocks[0], exec, (int64_t)rows, largest.n_sequences,
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

dip_status dip_text_bind(dip_exec *exec, dip_text_pass *pass, const dip_plan *plan)
{
    void *host;
    for (int i = 0; i < N_BUFFERS; i++) pass->buffer[i] = dip_plan_ptr(plan, pass->regions[i]);
    dip_stack_bind(&pass->stack, plan);
    DIP_TRY(exec->device->allocate_host(exec->device, &host,
                                        (pass->max_index + pass->n_counts) * sizeof(int32_t)));
    memset(host, 0, pass->max_index * sizeof(int32_t)); /* the gaps between parts */
    pass->device = exec->device;
    pass->host_index = host;
    return DIP_OK;
}

void dip_text_pass_free(dip_text_pass *pass)
{
    if (!pass) return;
    dip_stack_free(&pass->stack);
    if (pass->host_index) pass->device->release_host(pass->device, pass->host_index);
    free(pass);
}

/* ---- a batch --------------------------------------------------------------------------- */

static dip_status check_batch(const dip_text_config *config, const dip_text_pass *pass,
                              const int32_t *tokens, const int32_t *offsets, int64_t n_texts)
{
    if (n_texts > pass->max_texts)
        return dip_fail(DIP_CONFIG, "%lld texts in a pass planned for %lld", (long long)n_texts,
                        (long long)pass->max_texts);
    for (int64_t i = 0; i < n_texts; i++) {
        const int32_t length = offsets[i + 1] - offsets[i];
        if (length < 1 || length > config->context_length)
            return dip_fail(DIP_FORMAT, "text %lld has %d tokens; the model takes 1 to %d",
                            (long long)i, (int)length, config->context_length);
    }
    /* No text is too long, so all of it fits. */
    for (int64_t i = 0; i < offsets[n_texts]; i++)
        if (tokens[i] < 0 || tokens[i] >= config->vocab_size)
            return dip_fail(DIP_FORMAT, "token id %d is outside the model's vocabulary of %d",
                            (int)tokens[i], config->vocab_size);
    return DIP_OK;
}

/* What attention has to be ready for: padded, the same for every batch of a size. */
static int64_t longest(const dip_text_config *config, dip_text_padding padding,
                       const int32_t *offsets, int64_t n_texts)
{
    int64_t length = 0;
    if (padding != DIP_TEXT_PAD_NONE) return config->context_length;
    for (int64_t i = 0; i < n_texts; i++)
        if (offsets[i + 1] - offsets[i] > length) length = offsets[i + 1] - offsets[i];
    return length;
}

dip_status dip_text_stage(dip_exec *exec, const dip_text *tower, dip_text_pass *pass,
                          dip_text_input *input, int slot, const int32_t *tokens,
                          const int32_t *offsets, int64_t n_texts, dip_text_copy_fn *copy)
{
    const dip_text_config *config = &tower->config;
    const int context = config->context_length;
    const int32_t *index = pass->buffer[INDEX + slot];
    DIP_TRY(check_batch(config, pass, tokens, offsets, n_texts));
    const dip_text_layout layout = dip_text_layout_of(n_texts, offsets[n_texts], pass->max_rows,
                                                      context, pass->padding, pass->save);
    dip_text_lay_out(pass->host_index, &layout, tokens, offsets, context, pass->padding,
                     pass->host_index + pass->max_index, config->vocab_size);
    *input = (dip_text_input){
        .sequences = {.offsets = index + layout.offsets,
                      .n_sequences = layout.n_sequences,
                      .n_rows = layout.n_rows,
                      .max_length = longest(config, pass->padding, offsets, n_texts),
                      .n_pooled = n_texts},
        .tokens = index + layout.tokens,
        .end_rows = index + layout.end_rows,
        .order = pass->save ? index + layout.order : NULL,
    };
    return copy(exec, pass->buffer[INDEX + slot], pass->host_index,
                layout.n_values * sizeof(int32_t));
}

/* ---- forward --------------------------------------------------------------------------- */

dip_status dip_text_forward(dip_exec *exec, const dip_text *tower, const dip_param_set *params,
                            dip_text_pass *pass, float *features, const dip_text_input *input)
{
    const dip_ops *ops = exec->ops;
    const dip_sequences sequences = input->sequences;
    const int64_t b = sequences.n_pooled, c = tower->config.width, e = tower->embed_dim;
    void *const *buffer = pass->buffer;
#define P(field) dip_param_value(params, tower->field)
    DIP_TRY(ops->text_embed_forward(exec, dip_stack_input(&pass->stack), input->tokens,
                                    sequences.offsets, P(token_embedding), P(positional_embedding),
                                    sequences.n_sequences, sequences.n_rows, c));
    DIP_TRY(dip_stack_forward(exec, &pass->stack, params, sequences, input->end_rows));
    float *stats = buffer[POST_STATS];
    DIP_TRY(ops->layernorm_forward(exec, buffer[POST], stats, stats + b,
                                   dip_stack_output(&pass->stack), P(ln_final_w), P(ln_final_b),
                                   (float)tower->config.norm_eps, b, c));
    DIP_TRY(ops->matmul_forward(exec, buffer[PROJECTED], NULL, buffer[POST], P(text_projection),
                                NULL, NULL, DIP_ACT_NONE, (dip_matmul_shape){b, c, e, DIP_IN_OUT}));
    DIP_TRY(ops->l2norm_forward(exec, features, buffer[INV_NORM], buffer[PROJECTED], b, e));
    if (pass->save)
        DIP_TRY(
            exec->device->copy(exec, buffer[FEATURES], features, (size_t)(b * e) * sizeof(float)));
    return DIP_OK;
}

/* ---- backward -------------------------------------------------------------------------- */

dip_status dip_text_backward(dip_exec *exec, const dip_text *tower, const dip_param_set *params,
                             dip_text_pass *pass, const float *d_features,
                             const dip_text_input *input)
{
    const dip_ops *ops = exec->ops;
    const dip_sequences sequences = input->sequences;
    const int64_t b = sequences.n_pooled, c = tower->config.width, e = tower->embed_dim;
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
    DIP_TRY(dip_stack_backward(exec, &pass->stack, params, sequences, input->end_rows, &d_x));
    return ops->text_embed_backward(
        exec, G(token_embedding), G(positional_embedding), d_x, input->tokens, sequences.offsets,
        input->order, sequences.n_sequences, sequences.n_rows, tower->config.vocab_size, c);
#undef G
#undef P
}
