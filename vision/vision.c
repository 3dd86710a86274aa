#include "vision/vision.h"

#include <math.h>
#include <stdlib.h>

/* ---- description ----------------------------------------------------------------------- */

dip_status dip_vision_init(dip_vision *tower, const dip_vision_config *config, int embed_dim,
                           dip_param_table *table)
{
    const int side = config->image_size / config->patch_size;
    const int64_t w = config->width, p = config->patch_size, e = embed_dim;
    const double scale = pow((double)w, -0.5);
    *tower = (dip_vision){.config = *config,
                          .embed_dim = embed_dim,
                          .n_patches = side * side,
                          .ln_pre_w = -1,
                          .ln_pre_b = -1};
    tower->blocks = calloc((size_t)config->layers, sizeof *tower->blocks);
    if (!tower->blocks) return dip_fail(DIP_NOMEM, "no memory for the image tower's description");

    const int64_t by_w[1] = {w}, pos[2] = {tower->n_patches + 1, w}, proj[2] = {w, e};
    const int64_t conv[4] = {w, 3, p, p};
    tower->class_embedding =
        dip_param_add(table, DIP_INIT_NORMAL, scale, false, 1, by_w, "visual.class_embedding");
    tower->positional_embedding =
        dip_param_add(table, DIP_INIT_NORMAL, scale, false, 2, pos, "visual.positional_embedding");
    tower->proj = dip_param_add(table, DIP_INIT_NORMAL, scale, true, 2, proj, "visual.proj");
    tower->conv1 = dip_param_add(table, DIP_INIT_UNIFORM, pow(3.0 * (double)(p * p), -0.5), true, 4,
                                 conv, "visual.conv1.weight");
    if (!config->no_ln_pre) {
        tower->ln_pre_w =
            dip_param_add(table, DIP_INIT_CONSTANT, 1, false, 1, by_w, "visual.ln_pre.weight");
        tower->ln_pre_b =
            dip_param_add(table, DIP_INIT_CONSTANT, 0, false, 1, by_w, "visual.ln_pre.bias");
    }
    for (int i = 0; i < config->layers; i++)
        dip_block_init(&tower->blocks[i], table, "visual.transformer", i, config->width,
                       config->width / config->head_width, (int)(config->width * config->mlp_ratio),
                       false, config->activation, config->norm_eps, DIP_BLOCK_INIT_TORCH,
                       config->layers);
    tower->ln_post_w =
        dip_param_add(table, DIP_INIT_CONSTANT, 1, false, 1, by_w, "visual.ln_post.weight");
    tower->ln_post_b =
        dip_param_add(table, DIP_INIT_CONSTANT, 0, false, 1, by_w, "visual.ln_post.bias");
    return DIP_OK;
}

void dip_vision_free(dip_vision *tower)
{
    free(tower->blocks);
    *tower = (dip_vision){0};
}

/* One image through the tower; a multiply-add counts two. */
double dip_vision_flops(const dip_vision *tower)
{
    const dip_vision_config *c = &tower->config;
    const double n = tower->n_patches, t = n + 1, w = c->width, f = w * c->mlp_ratio;
    const double block = 2 * t * w * (4 * w + 2 * f) + 4 * t * t * w;
    return 2 * n * w * 3 * c->patch_size * c->patch_size + c->layers * block +
           2 * w * tower->embed_dim;
}

/* ---- memory of a pass ------------------------------------------------------------------ */

/* Regions by name; `buffer` below is where each lies once bound. The comment gives the shape. */
enum {
    OFFSETS,      /* int32 [B + 1] */
    CLASS_ROWS,   /* int32 [B]: row of each class token */
    PATCHES,      /* [B n, 3 P P] */
    PATCH_TOKENS, /* [B n, C]: conv1's output */
    EMBEDDED,     /* [B (n + 1), C]: before ln_pre */
    PRE_STATS,    /* float [2, B (n + 1)] */
    POST_ALL,     /* [B (n + 1), C]: ln_post of all tokens (average pooling before projection) */
    POOLED,       /* [B, C] */
    POST,         /* [B, C]: ln_post of the pooled rows */
    POST_STATS,   /* float [2, rows of ln_post] */
    PROJECTED,    /* [B, E] */
    FEATURES,     /* float [B, E] */
    INV_NORM,     /* float [B] */
    D_PROJECTED,  /* [B, E] */
    D_POOLED,     /* [B, C] */
    D_POST,       /* [B, C] or, for average pooling before ln_post's rows, [B (n + 1), C] */
    D_PATCHES,    /* [B n, C] */
    N_BUFFERS
};

struct dip_vision_pass {
    dip_stack_pass stack;
    int64_t max_images, n_images;
    int32_t length; /* rows of an image */
    bool save;
    dip_region regions[N_BUFFERS];
    void *buffer[N_BUFFERS];
};

/* Class-token pooling reads one row of the last block; averaging reads them all. */
static bool pools_class_token(const dip_vision *tower)
{
    return tower->config.pool == DIP_POOL_TOK;
}

/* Averaging with ln_post before the pool normalises every token. */
static bool norms_all_tokens(const dip_vision *tower)
{
    return tower->config.pool == DIP_POOL_AVG && !tower->config.final_ln_after_pool;
}

dip_status dip_vision_plan(dip_vision_pass **out, const dip_vision *tower, dip_plan *plan,
                           const dip_exec *exec, int64_t max_images, dip_pass_options options,
                           size_t *workspace_bytes)
{
    dip_vision_pass *pass = calloc(1, sizeof *pass);
    *out = pass;
    if (!pass) return dip_fail(DIP_NOMEM, "no memory for a pass of the image tower");
    const dip_vision_config *config = &tower->config;
    const size_t t = dip_dtype_bytes(exec->ops->dtype);
    const size_t b = (size_t)max_images, n = (size_t)tower->n_patches, c = (size_t)config->width;
    const size_t e = (size_t)tower->embed_dim,
                 patch = 3 * (size_t)(config->patch_size * config->patch_size);
    const size_t rows = b * (n + 1), norm_rows = norms_all_tokens(tower) ? rows : b;
    const bool save = options.save;
    const dip_space space = save ? DIP_SPACE_SAVED : DIP_SPACE_SCRATCH;
    pass->max_images = max_images;
    pass->length = tower->n_patches + 1;
    pass->save = save;
    for (int i = 0; i < N_BUFFERS; i++) pass->regions[i] = -1;
    if (rows > INT32_MAX) {
        dip_vision_pass_free(pass);
        *out = NULL;
        return dip_fail(DIP_CONFIG, "%lld images of %d patches at once are too many",
                        (long long)max_images, tower->n_patches);
    }

#define BOOK(which, space_, bytes)                                                                 \
    pass->regions[which] = dip_plan_book(plan, "vision." #which, space_, bytes)
    BOOK(OFFSETS, DIP_SPACE_SAVED, (b + 1) * sizeof(int32_t));
    BOOK(CLASS_ROWS, DIP_SPACE_SAVED, b * sizeof(int32_t));
    BOOK(PATCHES, space, b * n * patch * t);
    BOOK(PATCH_TOKENS, DIP_SPACE_SCRATCH, b * n * c * t);
    if (!config->no_ln_pre) {
        BOOK(EMBEDDED, space, rows * c * t);
        BOOK(PRE_STATS, space, 2 * rows * sizeof(float));
    }
    BOOK(POOLED, space, b * c * t);
    BOOK(POST, space, b * c * t);
    if (norms_all_tokens(tower)) BOOK(POST_ALL, DIP_SPACE_SCRATCH, rows * c * t);
    BOOK(POST_STATS, space, 2 * norm_rows * sizeof(float));
    BOOK(PROJECTED, DIP_SPACE_SCRATCH, b * e * t);
    BOOK(FEATURES, space, b * e * sizeof(float));
    BOOK(INV_NORM, space, b * sizeof(float));
    if (save) {
        BOOK(D_PROJECTED, DIP_SPACE_SCRATCH, b * e * t);
        BOOK(D_POOLED, DIP_SPACE_SCRATCH, b * c * t);
        BOOK(D_POST, DIP_SPACE_SCRATCH, norm_rows * c * t);
        BOOK(D_PATCHES, DIP_SPACE_SCRATCH, b * n * c * t);
    }
#undef BOOK
    dip_status status =
        dip_stack_plan(&pass->stack, tower->blocks, config->layers, plan, exec, (int64_t)rows,
                       pools_class_token(tower) ? max_images : 0, options, "vision");
    if (status != DIP_OK) {
        dip_vision_pass_free(pass);
        *out = NULL;
        return status;
    }

    size_t need =
        dip_block_workspace(&tower->blocks[0], exec, (int64_t)rows, max_images, (int64_t)n + 1);
    const dip_matmul_shape conv = {(int64_t)(b * n), (int64_t)patch, (int64_t)c, DIP_OUT_IN};
    const dip_matmul_shape proj = {max_images, (int64_t)c, (int64_t)e, DIP_IN_OUT};
    const size_t conv_need = exec->ops->matmul_workspace(exec, conv);
    const size_t proj_need = exec->ops->matmul_workspace(exec, proj);
    if (conv_need > need) need = conv_need;
    if (proj_need > need) need = proj_need;
    if (need > *workspace_bytes) *workspace_bytes = need;
    return DIP_OK;
}

/* Offsets and class rows are the same for every batch: a shorter batch uses their beginning. */
static dip_status upload_index(dip_exec *exec, dip_vision_pass *pass)
{
    const size_t n = (size_t)pass->max_images;
    int32_t *starts = malloc((n + 1) * sizeof *starts);
    dip_status status;
    if (!starts) return dip_fail(DIP_NOMEM, "no memory for the offsets of %zu images", n);
    for (size_t i = 0; i <= n; i++) starts[i] = (int32_t)i * pass->length;
    DIP_TRY_GOTO(
        exec->device->upload(exec, pass->buffer[OFFSETS], starts, (n + 1) * sizeof *starts));
    DIP_TRY_GOTO(exec->device->upload(exec, pass->buffer[CLASS_ROWS], starts, n * sizeof *starts));
fail:
    free(starts);
    return status;
}

dip_status dip_vision_bind(dip_exec *exec, dip_vision_pass *pass, const dip_plan *plan)
{
    for (int i = 0; i < N_BUFFERS; i++) pass->buffer[i] = dip_plan_ptr(plan, pass->regions[i]);
    dip_stack_bind(&pass->stack, plan);
    return upload_index(exec, pass);
}

void dip_vision_pass_free(dip_vision_pass *pass)
{
    if (!pass) return;
    dip_stack_free(&pass->stack);
    free(pass);
}

/* ---- forward --------------------------------------------------------------------------- */

static dip_sequences sequences_of(const dip_vision_pass *pass)
{
    return (dip_sequences){.offsets = pass->buffer[OFFSETS],
                           .n_sequences = pass->n_images,
                           .n_rows = pass->n_images * pass->length,
                           .max_length = pass->length};
}

dip_status dip_vision_forward(dip_exec *exec, const dip_vision *tower, const dip_param_set *params,
                              dip_vision_pass *pass, float *features, const uint8_t *images,
                              int64_t n_images, const float mean[3], const float std[3])
{
    const dip_ops *ops = exec->ops;
    const dip_vision_config *config = &tower->config;
    const int64_t n = tower->n_patches, c = config->width, e = tower->embed_dim;
    const int64_t rows = n_images * (n + 1), patch = 3 * config->patch_size * config->patch_size;
    void *const *buffer = pass->buffer;
    if (n_images > pass->max_images)
        return dip_fail(DIP_CONFIG, "%lld images in a pass planned for %lld", (long long)n_images,
                        (long long)pass->max_images);
    pass->n_images = n_images;
    const dip_sequences sequences = sequences_of(pass);
#define P(field) dip_param_value(params, tower->field)

    const dip_image_shape shape = {n_images, config->image_size, config->image_size,
                                   config->patch_size};
    DIP_TRY(ops->patchify(exec, buffer[PATCHES], images, mean, std, shape));
    DIP_TRY(ops->matmul_forward(exec, buffer[PATCH_TOKENS], NULL, buffer[PATCHES], P(conv1), NULL,
                                NULL, DIP_ACT_NONE,
                                (dip_matmul_shape){n_images * n, patch, c, DIP_OUT_IN}));
    void *x = dip_stack_input(&pass->stack);
    void *embedded = config->no_ln_pre ? x : buffer[EMBEDDED];
    DIP_TRY(ops->image_embed_forward(exec, embedded, buffer[PATCH_TOKENS], P(class_embedding),
                                     P(positional_embedding), n_images, n, c));
    if (!config->no_ln_pre) {
        float *stats = buffer[PRE_STATS];
        DIP_TRY(ops->layernorm_forward(exec, x, stats, stats + rows, embedded, P(ln_pre_w),
                                       P(ln_pre_b), (float)config->norm_eps, rows, c));
    }

    DIP_TRY(dip_stack_forward(exec, &pass->stack, params, sequences,
                              pools_class_token(tower) ? buffer[CLASS_ROWS] : NULL));

    /* Pool and normalise: the stack's output is already the class rows for "tok". */
    const void *y = dip_stack_output(&pass->stack);
    float *stats = buffer[POST_STATS];
    if (norms_all_tokens(tower)) {
        DIP_TRY(ops->layernorm_forward(exec, buffer[POST_ALL], stats, stats + rows, y, P(ln_post_w),
                                       P(ln_post_b), (float)config->norm_eps, rows, c));
        DIP_TRY(ops->mean_pool_forward(exec, buffer[POST], buffer[POST_ALL], sequences.offsets, 1,
                                       n_images, c));
    } else {
        const void *pooled = y;
        if (!pools_class_token(tower)) {
            DIP_TRY(
                ops->mean_pool_forward(exec, buffer[POOLED], y, sequences.offsets, 1, n_images, c));
            pooled = buffer[POOLED];
        }
        DIP_TRY(ops->layernorm_forward(exec, buffer[POST], stats, stats + n_images, pooled,
                                       P(ln_post_w), P(ln_post_b), (float)config->norm_eps,
                                       n_images, c));
    }
    DIP_TRY(ops->matmul_forward(exec, buffer[PROJECTED], NULL, buffer[POST], P(proj), NULL, NULL,
                                DIP_ACT_NONE, (dip_matmul_shape){n_images, c, e, DIP_IN_OUT}));
    DIP_TRY(ops->l2norm_forward(exec, features, buffer[INV_NORM], buffer[PROJECTED], n_images, e));
    if (pass->save)
        DIP_TRY(exec->device->copy(exec, buffer[FEATURES], features,
                                   (size_t)(n_images * e) * sizeof(float)));
    return DIP_OK;
}

/* ---- backward -------------------------------------------------------------------------- */

dip_status dip_vision_backward(dip_exec *exec, const dip_vision *tower, const dip_param_set *params,
                               dip_vision_pass *pass, const float *d_features)
{
    const dip_ops *ops = exec->ops;
    const dip_vision_config *config = &tower->config;
    const int64_t b = pass->n_images, n = tower->n_patches, c = config->width, e = tower->embed_dim;
    const int64_t rows = b * (n + 1), patch = 3 * config->patch_size * config->patch_size;
    const dip_sequences sequences = sequences_of(pass);
    const dip_matmul_shape proj = {b, c, e, DIP_IN_OUT};
    void *const *buffer = pass->buffer;
#define G(field) dip_param_grad(params, tower->field)

    DIP_TRY(ops->l2norm_backward(exec, buffer[D_PROJECTED], d_features, buffer[FEATURES],
                                 buffer[INV_NORM], b, e));
    DIP_TRY(
        ops->matmul_backward_weight(exec, G(proj), NULL, buffer[D_PROJECTED], buffer[POST], proj));
    DIP_TRY(ops->matmul_backward_input(exec, buffer[D_POOLED], buffer[D_PROJECTED], P(proj), NULL,
                                       DIP_ACT_NONE, proj));

    const void *y = dip_stack_output(&pass->stack);
    void *d_y = dip_stack_d_output(&pass->stack);
    float *stats = buffer[POST_STATS];
    if (norms_all_tokens(tower)) {
        DIP_TRY(ops->mean_pool_backward(exec, buffer[D_POST], buffer[D_POOLED], sequences.offsets,
                                        1, b, c));
        DIP_TRY(ops->layernorm_backward(exec, d_y, G(ln_post_w), G(ln_post_b), buffer[D_POST], y,
                                        stats, stats + rows, P(ln_post_w), NULL, rows, c));
    } else if (pools_class_token(tower)) {
        DIP_TRY(ops->layernorm_backward(exec, d_y, G(ln_post_w), G(ln_post_b), buffer[D_POOLED], y,
                                        stats, stats + b, P(ln_post_w), NULL, b, c));
    } else {
        DIP_TRY(ops->layernorm_backward(exec, buffer[D_POST], G(ln_post_w), G(ln_post_b),
                                        buffer[D_POOLED], buffer[POOLED], stats, stats + b,
                                        P(ln_post_w), NULL, b, c));
        DIP_TRY(ops->mean_pool_backward(exec, d_y, buffer[D_POST], sequences.offsets, 1, b, c));
    }

    void *d_x;
    DIP_TRY(dip_stack_backward(exec, &pass->stack, params, sequences,
                               pools_class_token(tower) ? buffer[CLASS_ROWS] : NULL, &d_x));
    if (!config->no_ln_pre) {
        const float *pre = buffer[PRE_STATS];
        /* d_residual is NULL and every row depends on itself alone, but outputs may not overlap
         * inputs: use the other row buffer. */
        void *other = d_x == pass->stack.d[0] ? pass->stack.d[1] : pass->stack.d[0];
        DIP_TRY(ops->layernorm_backward(exec, other, G(ln_pre_w), G(ln_pre_b), d_x,
                                        buffer[EMBEDDED], pre, pre + rows, P(ln_pre_w), NULL, rows,
                                        c));
        d_x = other;
    }
    DIP_TRY(ops->image_embed_backward(exec, buffer[D_PATCHES], G(class_embedding),
                                      G(positional_embedding), d_x, b, n, c));
    return ops->matmul_backward_weight(exec, G(conv1), NULL, buffer[D_PATCHES], buffer[PATCHES],
                                       (dip_matmul_shape){b * n, patch, c, DIP_OUT_IN});
#undef G
#undef P
}
