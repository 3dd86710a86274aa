/* text.h - the text tower: open_clip's causal Transformer, on packed sequences.
 *
 * token and position embeddings -> causal pre-LN blocks -> the end-of-text token -> ln_final ->
 * text_projection -> L2 norm. A sequence is [ids..., eos] with nothing after it: with a causal
 * tower, what follows the end of text cannot matter.
 *
 * Usage and errors as vision.h, with one step more: dip_text_stage checks a batch, lays it out and
 * brings it to the device; forward and backward then only call ops. */
#ifndef DIP_TEXT_TEXT_H
#define DIP_TEXT_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#include "core/plan.h"
#include "kernels/ops.h"
#include "nn/block.h"
#include "nn/params.h"
#include "nn/stack.h"
#include "text/layout.h"

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

typedef struct dip_text_options {
    dip_pass_options pass;
    dip_text_padding padding; /* text/layout.h */
    int n_slots;              /* batches on the device at once, up to DIP_N_SLOTS; 0 is 1 */
} dip_text_options;

/* At most max_texts sequences of at most context_length tokens each. */
dip_status dip_text_plan(dip_text_pass **pass, const dip_text *tower, dip_plan *plan,
                         const dip_exec *exec, int64_t max_texts, dip_text_options options,
                         size_t *workspace_bytes);
dip_status dip_text_bind(dip_exec *exec, dip_text_pass *pass, const dip_plan *plan);
void dip_text_pass_free(dip_text_pass *pass); /* accepts NULL */

/* A batch on the device. Every size and address here is a function of the slot, the number of texts
 * and sequences.n_rows: what is recorded for one batch serves all that share the three. */
typedef struct dip_text_input {
    dip_sequences sequences; /* texts, then fillers; n_pooled texts */
    const int32_t *tokens;   /* [n_rows] */
    const int32_t *end_rows; /* [n_pooled] */
    const int32_t *order;    /* [n_rows] as text_embed_backward wants it; NULL unless saving */
} dip_text_input;

/* How bytes get to the device: dip_device's upload, or stage within stage_begin and stage_end. */
typedef dip_status dip_text_copy_fn(dip_exec *exec, void *device_dst, const void *host_src,
                                    size_t n_bytes);

/* tokens [offsets[n]], offsets [n + 1] in host memory, offsets[0] == 0. The slot's batch before is
 * overwritten; after stage, not to be called again before stage_end. DIP_FORMAT for an id out of
 * range, an empty or too long sequence. */
dip_status dip_text_stage(dip_exec *exec, const dip_text *tower, dip_text_pass *pass,
                          dip_text_input *input, int slot, const int32_t *tokens,
                          const int32_t *offsets, int64_t n_texts, dip_text_copy_fn *copy);

/* features [n, E] float, unit length. */
dip_status dip_text_forward(dip_exec *exec, const dip_text *tower, const dip_param_set *params,
                            dip_text_pass *pass, float *features, const dip_text_input *input);

/* After forward of the same input: d_features [n, E] float -> parameter gradients, accumulated. */
dip_status dip_text_backward(dip_exec *exec, const dip_text *tower, const dip_param_set *params,
                             dip_text_pass *pass, const float *d_features,
                             const dip_text_input *input);

/* Floating point operations of one forward pass over one text of `length` tokens. */
double dip_text_flops(const dip_text *tower, double length);

#endif
