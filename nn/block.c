#include "nn/block.h"

#include <math.h>
#include <stdio.h>

/* ---- parameters ------------------------------------------------------------------------ */

void dip_block_init(dip_block *block, dip_param_table *table, const char *prefix, int index,
                    int width, int n_heads, int mlp_width, bool causal, dip_activation activation,
                    double norm_eps, dip_block_init_rule rule, int n_layers)
{
    const double w = width, f = mlp_width;
    const int64_t by_c[1] = {width}, by_3c[1] = {3 * width}, by_f[1] = {mlp_width};
    const int64_t qkv[2] = {3 * width, width}, out[2] = {width, width};
    const int64_t fc[2] = {mlp_width, width}, proj[2] = {width, mlp_width};

    /* open_clip initialises the text tower as OpenAI did and leaves the image tower to torch's
     * defaults: Xavier for the packed in_proj, U(fan_in^-1/2) for every other Linear. */
    const bool text = rule == DIP_BLOCK_INIT_TEXT;
    const dip_init matrix = text ? DIP_INIT_NORMAL : DIP_INIT_UNIFORM;
    const double narrow = pow(w, -0.5) * pow(2.0 * n_layers, -0.5);
    const double qkv_value = text ? pow(w, -0.5) : sqrt(6.0 / (4.0 * w));
    const double out_value = text ? narrow : pow(w, -0.5);
    const double fc_value = text ? pow(2.0 * w, -0.5) : pow(w, -0.5);
    const double proj_value = text ? narrow : pow(f, -0.5);

    *block = (dip_block){.width = width,
                         .n_heads = n_heads,
                         .mlp_width = mlp_width,
                         .causal = causal,
                         .activation = activation,
                         .norm_eps = (float)norm_eps};
#define ADD(field, init, value, decay, n_dims, shape, name)                                        \
    block->field = dip_param_add(table, init, value, decay, n_dims, shape,                         \
                                 "%s.resblocks.%d." name, prefix, index)
    ADD(ln_1_w, DIP_INIT_CONSTANT, 1, false, 1, by_c, "ln_1.weight");
    ADD(ln_1_b, DIP_INIT_CONSTANT, 0, false, 1, by_c, "ln_1.bias");
    ADD(qkv_w, matrix, qkv_value, true, 2, qkv, "attn.in_proj_weight");
    ADD(qkv_b, DIP_INIT_CONSTANT, 0, false, 1, by_3c, "attn.in_proj_bias");
    ADD(out_w, matrix, out_value, true, 2, out, "attn.out_proj.weight");
    ADD(out_b, DIP_INIT_CONSTANT, 0, false, 1, by_c, "attn.out_proj.bias");
    ADD(ln_2_w, DIP_INIT_CONSTANT, 1, false, 1, by_c, "ln_2.weight");
    ADD(ln_2_b, DIP_INIT_CONSTANT, 0, false, 1, by_c, "ln_2.bias");
    ADD(fc_w, matrix, fc_value, true, 2, fc, "mlp.c_fc.weight");
    ADD(fc_b, DIP_INIT_UNIFORM, pow(w, -0.5), false, 1, by_f, "mlp.c_fc.bias");
    ADD(proj_w, matrix, proj_value, true, 2, proj, "mlp.c_proj.weight");
    ADD(proj_b, DIP_INIT_UNIFORM, pow(f, -0.5), false, 1, by_c, "mlp.c_proj.bias");
#undef ADD
}

/* ---- memory ---------------------------------------------------------------------------- */

static dip_region book(dip_plan *plan, const char *name, const char *what, dip_space space,
                       int64_t rows, int64_t columns, size_t element_bytes)
{
    char label[128];
    snprintf(label, sizeof label, "%s.%s", name, what);
    return dip_plan_book(plan, label, space, (size_t)rows * (size_t)columns * element_bytes);
}

void dip_block_plan_rows(dip_block_saved *saved, const dip_block *block, dip_plan *plan,
                         dip_dtype dtype, dip_block_extent extent, const char *name)
{
    const dip_space space = dip_block_is_shared(extent) ? DIP_SPACE_SCRATCH : DIP_SPACE_SAVED;
    const size_t t = dip_dtype_bytes(dtype);
    const int64_t m = extent.max_out_rows, c = block->width;
    saved->x_rows_region = book(plan, name, "x_rows", space, m, c, t);
    saved->attn_rows_region = book(plan, name, "attention_rows", space, m, c, t);
}

void dip_block_plan(dip_block_saved *saved, const dip_block *block, dip_plan *plan, dip_dtype dtype,
                    dip_block_extent extent, const dip_block_scratch *scratch, const char *name)
{
    const dip_space space = dip_block_is_shared(extent) ? DIP_SPACE_SCRATCH : DIP_SPACE_SAVED;
    const size_t t = dip_dtype_bytes(dtype);
    const int64_t c = block->width, f = block->mlp_width;
    const int64_t n = extent.max_rows, m = extent.max_out_rows;
    const dip_recompute recompute = extent.save ? extent.recompute : DIP_RECOMPUTE_NONE;
    *saved = (dip_block_saved){
        .recompute = recompute, .x_rows_region = -1, .attn_rows_region = -1, .pre_region = -1};
    saved->qkv_region = book(plan, name, "qkv", space, n, 3 * c, t);
    saved->attn_region = book(plan, name, "attention", space, n, c, t);
    saved->lse_region = book(plan, name, "lse", space, n, block->n_heads, sizeof(float));
    if (extent.rows_only) dip_block_plan_rows(saved, block, plan, dtype, extent, name);
    saved->mid_region = book(plan, name, "residual", space, m, c, t);
    saved->stats_region = book(plan, name, "ln_stats", space, 2 * n + 2 * m, 1, sizeof(float));
    if (recompute == DIP_RECOMPUTE_BLOCK)
        saved->pre_region = scratch->d_qkv_region;
    else if (extent.save)
        saved->pre_region = book(plan, name, "mlp_pre", space, m, f, t);
    if (recompute != DIP_RECOMPUTE_NONE) {
        saved->h_region = scratch->d_rows_region;
        saved->g_region = scratch->d_attn_region;
        saved->act_region = scratch->d_wide_region;
    } else {
        saved->h_region = book(plan, name, "ln_1", space, n, c, t);
        saved->g_region = book(plan, name, "ln_2", space, m, c, t);
        saved->act_region = book(plan, name, "mlp_act", space, m, f, t);
    }
}

void dip_block_bind(dip_block_saved *saved, const dip_plan *plan, dip_block_extent extent)
{
    saved->h = dip_plan_ptr(plan, saved->h_region);
    saved->qkv = dip_plan_ptr(plan, saved->qkv_region);
    saved->attn = dip_plan_ptr(plan, saved->attn_region);
    saved->lse = dip_plan_ptr(plan, saved->lse_region);
    saved->x_rows = dip_plan_ptr(plan, saved->x_rows_region);
    saved->attn_rows = dip_plan_ptr(plan, saved->attn_rows_region);
    saved->mid = dip_plan_ptr(plan, saved->mid_region);
    saved->g = dip_plan_ptr(plan, saved->g_region);
    saved->pre = dip_plan_ptr(plan, saved->pre_region);
    saved->act = dip_plan_ptr(plan, saved->act_region);
    saved->mean_1 = dip_plan_ptr(plan, saved->stats_region);
    saved->rstd_1 = saved->mean_1 + extent.max_rows;
    saved->mean_2 = saved->rstd_1 + extent.max_rows;
    saved->rstd_2 = saved->mean_2 + extent.max_out_rows;
}

void dip_block_scratch_plan(dip_block_scratch *scratch, const dip_block *block, dip_plan *plan,
                            dip_dtype dtype, int64_t max_rows, dip_recompute recompute)
{
    const size_t t = dip_dtype_bytes(dtype);
    const int64_t f = block->mlp_width;
    int64_t qkv = 3 * (int64_t)block->width;
    if (recompute == DIP_RECOMPUTE_BLOCK && f > qkv) qkv = f; /* `pre` lies there too */
    *scratch = (dip_block_scratch){0};
    scratch->d_wide_region = book(plan, "backward", "d_mlp", DIP_SPACE_SCRATCH, max_rows, f, t);
    scratch->d_qkv_region = book(plan, "backward", "d_qkv", DIP_SPACE_SCRATCH, max_rows, qkv, t);
    scratch->d_attn_region =
        book(plan, "backward", "d_attention", DIP_SPACE_SCRATCH, max_rows, block->width, t);
    scratch->d_rows_region =
        book(plan, "backward", "d_rows", DIP_SPACE_SCRATCH, max_rows, block->width, t);
}

void dip_block_scratch_bind(dip_block_scratch *scratch, const dip_plan *plan)
{
    scratch->d_wide = dip_plan_ptr(plan, scratch->d_wide_region);
    scratch->d_qkv = dip_plan_ptr(plan, scratch->d_qkv_region);
    scratch->d_attn = dip_plan_ptr(plan, scratch->d_attn_region);
    scratch->d_rows = dip_plan_ptr(plan, scratch->d_rows_region);
}

static dip_matmul_shape linear(int64_t n_rows, int64_t c_in, int64_t c_out)
{
    return (dip_matmul_shape){n_rows, c_in, c_out, DIP_OUT_IN};
}

static dip_attention_shape attention_of(const dip_block *block, int64_t n_sequences, int64_t n_rows,
                                        int64_t max_length)
{
    return (dip_attention_shape){.n_sequences = n_sequences,
                                 .n_rows = n_rows,
                                 .max_length = max_length,
                                 .n_heads = block->n_heads,
                                 .head_size = block->width / block->n_heads,
                                 .causal = block->causal};
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

size_t dip_block_workspace(const dip_block *block, const dip_exec *exec, int64_t max_rows,
                           int64_t n_sequences, int64_t max_length)
{
    const dip_ops *ops = exec->ops;
    const int64_t c = block->width, f = block->mlp_width;
    size_t bytes = ops->matmul_workspace(exec, linear(max_rows, c, 3 * c));
    bytes = larger(bytes, ops->matmul_workspace(exec, linear(max_rows, c, c)));
    bytes = larger(bytes, ops->matmul_workspace(exec, linear(max_rows, c, f)));
    bytes = larger(bytes, ops->matmul_workspace(exec, linear(max_rows, f, c)));
    bytes = larger(bytes, ops->layernorm_workspace(exec, max_rows, c));
    return larger(bytes, ops->attention_workspace(
                             exec, attention_of(block, n_sequences, max_rows, max_length)));
}

/* ---- forward and backward -------------------------------------------------------------- */

dip_status dip_block_forward(dip_exec *exec, const dip_block *block, const dip_param_set *params,
                             const dip_block_saved *saved, void *y, const void *x,
                             dip_sequences sequences, const int32_t *rows)
{
    const dip_ops *ops = exec->ops;
    const int64_t n = sequences.n_rows, c = block->width, f = block->mlp_width;
    const int64_t m = rows ? dip_sequences_n_pooled(sequences) : n;
    const dip_attention_shape attention =
        attention_of(block, sequences.n_sequences, n, sequences.max_length);
#define P(field) dip_param_value(params, block->field)
    DIP_TRY(ops->layernorm_forward(exec, saved->h, saved->mean_1, saved->rstd_1, x, P(ln_1_w),
                                   P(ln_1_b), block->norm_eps, n, c));
    DIP_TRY(ops->matmul_forward(exec, saved->qkv, NULL, saved->h, P(qkv_w), P(qkv_b), NULL,
                                DIP_ACT_NONE, linear(n, c, 3 * c)));
    DIP_TRY(ops->attention_forward(exec, saved->attn, saved->lse, saved->qkv, sequences.offsets,
                                   attention));
    const void *a = saved->attn, *residual = x;
    if (rows) {
        DIP_TRY(ops->rows_gather(exec, saved->attn_rows, saved->attn, rows, m, c));
        DIP_TRY(ops->rows_gather(exec, saved->x_rows, x, rows, m, c));
        a = saved->attn_rows;
        residual = saved->x_rows;
    }
    DIP_TRY(ops->matmul_forward(exec, saved->mid, NULL, a, P(out_w), P(out_b), residual,
                                DIP_ACT_NONE, linear(m, c, c)));
    DIP_TRY(ops->layernorm_forward(exec, saved->g, saved->mean_2, saved->rstd_2, saved->mid,
                                   P(ln_2_w), P(ln_2_b), block->norm_eps, m, c));
    DIP_TRY(ops->matmul_forward(exec, saved->act, saved->pre, saved->g, P(fc_w), P(fc_b), NULL,
                                block->activation, linear(m, c, f)));
    if (!y) return DIP_OK;
    return ops->matmul_forward(exec, y, NULL, saved->act, P(proj_w), P(proj_b), saved->mid,
                               DIP_ACT_NONE, linear(m, f, c));
}

dip_status dip_block_backward(dip_exec *exec, const dip_block *block, const dip_param_set *params,
                              const dip_block_saved *saved, const dip_block_scratch *scratch,
                              void *d_x, void *d_y, const void *x, dip_sequences sequences,
                              const int32_t *rows)
{
    const dip_ops *ops = exec->ops;
    const int64_t n = sequences.n_rows, c = block->width, f = block->mlp_width;
    const int64_t m = rows ? dip_sequences_n_pooled(sequences) : n;
    const dip_attention_shape attention =
        attention_of(block, sequences.n_sequences, n, sequences.max_length);
    const void *a = rows ? saved->attn_rows : saved->attn;
    const bool again = saved->recompute == DIP_RECOMPUTE_MLP;
#define G(field) dip_param_grad(params, block->field)
    if (saved->recompute == DIP_RECOMPUTE_BLOCK)
        DIP_TRY(dip_block_forward(exec, block, params, saved, NULL, x, sequences, rows));
    /* The MLP. d_y stays what it is: it is also the residual's gradient. */
    if (again)
        DIP_TRY(ops->activation_forward(exec, saved->act, saved->pre, block->activation, m * f));
    DIP_TRY(
        ops->matmul_backward_weight(exec, G(proj_w), G(proj_b), d_y, saved->act, linear(m, f, c)));
    DIP_TRY(ops->matmul_backward_input(exec, scratch->d_wide, d_y, P(proj_w), saved->pre,
                                       block->activation, linear(m, f, c)));
    if (again)
        DIP_TRY(ops->layernorm_forward(exec, saved->g, saved->mean_2, saved->rstd_2, saved->mid,
                                       P(ln_2_w), P(ln_2_b), block->norm_eps, m, c));
    DIP_TRY(ops->matmul_backward_weight(exec, G(fc_w), G(fc_b), scratch->d_wide, saved->g,
                                        linear(m, c, f)));
    DIP_TRY(ops->matmul_backward_input(exec, scratch->d_attn, scratch->d_wide, P(fc_w), NULL,
                                       DIP_ACT_NONE, linear(m, c, f)));
    /* d_y becomes the gradient of `mid`, which the attention half and its residual share. */
    DIP_TRY(ops->layernorm_backward(exec, d_y, G(ln_2_w), G(ln_2_b), scratch->d_attn, saved->mid,
                                    saved->mean_2, saved->rstd_2, P(ln_2_w), d_y, m, c));
    DIP_TRY(ops->matmul_backward_weight(exec, G(out_w), G(out_b), d_y, a, linear(m, c, c)));
    const void *d_residual = d_y;
    if (rows) {
        DIP_TRY(ops->matmul_backward_input(exec, scratch->d_qkv, d_y, P(out_w), NULL, DIP_ACT_NONE,
                                           linear(m, c, c)));
        DIP_TRY(ops->rows_scatter(exec, scratch->d_attn, scratch->d_qkv, rows, m, n, c));
        DIP_TRY(ops->rows_scatter(exec, d_x, d_y, rows, m, n, c));
        d_residual = d_x;
    } else {
        DIP_TRY(ops->matmul_backward_input(exec, scratch->d_attn, d_y, P(out_w), NULL, DIP_ACT_NONE,
                                           linear(m, c, c)));
    }
    DIP_TRY(ops->attention_backward(exec, scratch->d_qkv, scratch->d_attn, saved->qkv, saved->attn,
                                    saved->lse, sequences.offsets, attention));
    if (again)
        DIP_TRY(ops->layernorm_forward(exec, saved->h, saved->mean_1, saved->rstd_1, x, P(ln_1_w),
                                       P(ln_1_b), block->norm_eps, n, c));
    DIP_TRY(ops->matmul_backward_weight(exec, G(qkv_w), G(qkv_b), scratch->d_qkv, saved->h,
                                        linear(n, c, 3 * c)));
    DIP_TRY(ops->matmul_backward_input(exec, scratch->d_rows, scratch->d_qkv, P(qkv_w), NULL,
                                       DIP_ACT_NONE, linear(n, c, 3 * c)));
    return ops->layernorm_backward(exec, d_x, G(ln_1_w), G(ln_1_b), scratch->d_rows, x,
                                   saved->mean_1, saved->rstd_1, P(ln_1_w), d_residual, n, c);
#undef P
#undef G
}
