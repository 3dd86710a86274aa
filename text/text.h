/* text.h - the text tower: open_clip's causal Transformer, on packed sequences.
 *
 * token and position embeddings -> causal pre-LN blocks -> the end-of-text token -> ln_final ->
 * text_projection -> L2 norm. A sequence is [ids..., eos] with nothing after it: with a causal
 * tower, what follows the end of text cannot matter.
 *
 * Usage and errors as vision.h. */
#ifndef DIP_TEXT_TEXT_H
#define DIP_TEXT_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "core/plan.h"
#include "kernels/ops.h"
#include "nn/block.h"
#include "nn/params.h"

typedef struct dip_text_config {
    int context_length, vocab_size;
    int width, heads, layers;
    double mlp_ratio;
    int eos_id; /* -1: the largest id ("pool_type": "argmax"); else "pool_type": "eos" */
    double norm_eps;
    dip_activation activation;
} dip_text_config;

typedef struct dip_text {
    dip_text_config config;
    int embed_dim;
    int token_embedding, positional_embedding, ln_final_w, ln_final_b, text_projection;
    dip_block *blocks; /* [layers] */
} dip_text;

dip_status dip_text_init(dip_text *tower, const dip_text_config *config, int embed_dim,
                         dip_param_table *table);
void dip_text_free(dip_text *tower); /* a zeroed struct is fine */

typedef struct dip_text_pass dip_text_pass;

/* At most max_texts sequences of at most context_length tokens each. */
dip_status dip_text_plan(dip_text_pass **pass, const dip_text *tower, dip_plan *plan,
                         const dip_exec *exec, int64_t max_texts, bool save,
                         size_t *workspace_bytes);
void dip_text_bind(dip_text_pass *pass, const dip_plan *plan);
void dip_text_pass_free(dip_text_pass *pass); /* accepts NULL */

/* tokens [offsets[n]], offsets [n + 1] in host memory (the tower uploads them) -> features [n, E]
 * float, unit length. DIP_FORMAT for an id out of range, an empty or too long sequence. */
dip_status dip_text_forward(dip_exec *exec, const dip_text *tower, const dip_param_set *params,
                            dip_text_pass *pass, float *features, const int32_t *tokens,
                            const int32_t *offsets, int64_t n_texts);

dip_status dip_text_backward(dip_exec *exec, const dip_text *tower, const dip_param_set *params,
                             dip_text_pass *pass, const float *d_features);

/* Floating point operations of one forward pass over one text of `length` tokens. */
double dip_text_flops(const dip_text *tower, double length);

#endif
