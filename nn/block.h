/* block.h - one pre-LN Transformer block, forward and backward, shared by both towers.
 *
 *   h = ln_1(x);  a = attention(h Wqkv + b);  m = x + a Wo + b
 *   g = ln_2(m);  y = m + act(g W1 + b) W2 + b
 *
 * The last block may be asked for a few rows only (`rows`): everything after attention then runs
 * on those rows, exactly the same numbers for less work, since no other row is ever read.
 *
 * Usage:   dip_block_init; dip_block_plan books, dip_block_bind fetches; forward; backward.
 * Memory:  a pass that saves may forget what backward computes again (dip_recompute). The forgotten
 *          tensors lie in buffers of backward that are not yet in use when they are read: h in
 *          d_rows, g in d_attn, act in d_wide, and pre, when it is forgotten too, in d_qkv. */
#ifndef DIP_NN_BLOCK_H
#define DIP_NN_BLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "core/plan.h"
#include "kernels/ops.h"
#include "nn/params.h"

typedef struct dip_block {
    int width, n_heads, mlp_width;
    bool causal;
    dip_activation activation;
    float norm_eps;
    int ln_1_w, ln_1_b, qkv_w, qkv_b, out_w, out_b, ln_2_w, ln_2_b, fc_w, fc_b, proj_w, proj_b;
} dip_block;

/* How a tower wants its blocks initialised (formats: open_clip's init_parameters; the vision tower
 * keeps torch's defaults). */
typedef enum dip_block_init_rule { DIP_BLOCK_INIT_TORCH, DIP_BLOCK_INIT_TEXT } dip_block_init_rule;

/* Add the block's twelve parameters under "PREFIX.resblocks.I.". `n_layers` enters the text rule.
 */
void dip_block_init(dip_block *block, dip_param_table *table, const char *prefix, int index,
                    int width, int n_heads, int mlp_width, bool causal, dip_activation activation,
                    double norm_eps, dip_block_init_rule rule, int n_layers);

/* Which sequences a pass is about; offsets and rows on the device. */
typedef struct dip_sequences {
    const int32_t *offsets; /* [B + 1] */
    int64_t n_sequences;    /* B */
    int64_t n_rows;         /* N = offsets[B] */
    int64_t max_length;
    int64_t n_pooled; /* how many `rows` there are; 0: one a sequence */
} dip_sequences;

static inline int64_t dip_sequences_n_pooled(dip_sequences sequences)
{
    return sequences.n_pooled > 0 ? sequences.n_pooled : sequences.n_sequences;
}

/* What a pass forgets after forward and computes again in backward. The gradients are those of a
 * pass that forgets nothing, bit for bit, with one exception: DIP_RECOMPUTE_MLP takes the
 * activation of the saved, rounded `pre`. Where matmul_forward activates the unrounded value (the
 * CPU's backends in bf16), the gradient of mlp.c_proj.weight then differs by that rounding. */
typedef enum dip_recompute {
    DIP_RECOMPUTE_NONE,
    DIP_RECOMPUTE_MLP,  /* both layer norms' outputs and the activation: a third of the memory for
                           no product */
    DIP_RECOMPUTE_BLOCK /* all but the block's input: one more forward, less its last product */
} dip_recompute;

/* Saved activations of one block, and scratch shared by all blocks of a pass. All T unless float.
 * N rows up to attention, M rows after it: M = N, or n_pooled when the block runs on `rows` only.
 */
typedef struct dip_block_saved {
    dip_recompute recompute;
    dip_region h_region, qkv_region, attn_region, lse_region, mid_region, g_region, pre_region,
        act_region, stats_region, x_rows_region, attn_rows_region;
    void *h, *qkv, *attn;      /* [N, C], [N, 3C], [N, C] */
    float *lse;                /* [N, H] */
    void *x_rows, *attn_rows;  /* [M, C] when `rows`, else NULL */
    void *mid, *g, *pre, *act; /* [M, C], [M, C], [M, F], [M, F]; pre NULL when not saving */
    float *mean_1, *rstd_1, *mean_2, *rstd_2;
} dip_block_saved;

typedef struct dip_block_scratch {
    dip_region d_wide_region, d_qkv_region, d_attn_region, d_rows_region;
    void *d_wide; /* [N, F]: gradient of the MLP's hidden layer */
    void *d_qkv;  /* [N, 3C], and before that the gradient of attn_rows */
    void *d_attn; /* [N, C]: of the MLP's input, then of attn */
    void *d_rows; /* [N, C]: of h */
} dip_block_scratch;

/* What one pass books: at most max_rows rows (max_out_rows after attention, fewer when only `rows`
 * are wanted). What dip_block_is_shared is scratch: one set serves all blocks of a pass. */
typedef struct dip_block_extent {
    int64_t max_rows, max_out_rows;
    bool rows_only, save;
    dip_recompute recompute; /* of a pass that saves */
} dip_block_extent;

static inline bool dip_block_is_shared(dip_block_extent extent)
{
    return !extent.save || extent.recompute == DIP_RECOMPUTE_BLOCK;
}

/* `scratch` as planned for the same pass; unused when not saving. */
void dip_block_plan(dip_block_saved *saved, const dip_block *block, dip_plan *plan, dip_dtype dtype,
                    dip_block_extent extent, const dip_block_scratch *scratch, const char *name);
/* The two tensors that only a block on `rows` has. dip_block_plan books them when extent.rows_only;
 * this adds them to a copy of a set that was planned without. */
void dip_block_plan_rows(dip_block_saved *saved, const dip_block *block, dip_plan *plan,
                         dip_dtype dtype, dip_block_extent extent, const char *name);
void dip_block_bind(dip_block_saved *saved, const dip_plan *plan, dip_block_extent extent);

void dip_block_scratch_plan(dip_block_scratch *scratch, const dip_block *block, dip_plan *plan,
                            dip_dtype dtype, int64_t max_rows, dip_recompute recompute);
void dip_block_scratch_bind(dip_block_scratch *scratch, const dip_plan *plan);

/* Workspace the block's ops may need for these extents. */
size_t dip_block_workspace(const dip_block *block, const dip_exec *exec, int64_t max_rows,
                           int64_t n_sequences, int64_t max_length);

/* y [M, C] = block(x [N, C]); y must not be x. rows [n_pooled] (device) or NULL for all.
 * y NULL: everything that backward needs, and no more. */
dip_status dip_block_forward(dip_exec *exec, const dip_block *block, const dip_param_set *params,
                             const dip_block_saved *saved, void *y, const void *x,
                             dip_sequences sequences, const int32_t *rows);

/* d_x [N, C] = gradient of x from d_y [M, C]; d_y is overwritten on the way; d_x is not d_y. x as
 * in forward. */
dip_status dip_block_backward(dip_exec *exec, const dip_block *block, const dip_param_set *params,
                              const dip_block_saved *saved, const dip_block_scratch *scratch,
                              void *d_x, void *d_y, const void *x, dip_sequences sequences,
                              const int32_t *rows);

#endif
