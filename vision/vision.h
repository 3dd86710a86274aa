/* vision.h - the image tower: open_clip's ViT.
 *
 * patches -> conv1 (a matrix product) -> class token and positions -> ln_pre -> pre-LN blocks ->
 * pool -> ln_post -> projection -> L2 norm.
 *
 * A tower is a description. Parameters (a set), activations (a plan's regions) and gradients are
 * handed in, so one tower serves the online weights, an EMA copy and any number of views.
 *
 * Usage:   dip_vision_init adds the parameters to a table; dip_vision_plan books the memory of
 *          one pass; dip_vision_bind after the plan is allocated; then forward, and backward if
 *          the pass was planned to save. Both only call ops: they can be recorded.
 * Errors:  DIP_NOMEM, and whatever an op reports.                                          */
#ifndef DIP_VISION_VISION_H
#define DIP_VISION_VISION_H

#include <stdbool.h>
#include <stdint.h>

#include "core/plan.h"
#include "kernels/ops.h"
#include "nn/params.h"
#include "nn/stack.h"

typedef enum dip_vision_pool { DIP_POOL_TOK, DIP_POOL_AVG } dip_vision_pool;

typedef struct dip_vision_config {
    int image_size, patch_size; /* pixels */
    int width, layers, head_width;
    double mlp_ratio;
    dip_vision_pool pool;
    bool no_ln_pre;
    bool final_ln_after_pool; /* matters for avg: pool, then ln_post */
    double norm_eps;
    dip_activation activation;
} dip_vision_config;

typedef struct dip_vision {
    dip_vision_config config;
    int embed_dim;
    int n_patches; /* (image_size / patch_size)^2 */
    int conv1, class_embedding, positional_embedding, ln_pre_w, ln_pre_b, ln_post_w, ln_post_b,
        proj;
    dip_block *blocks; /* [layers] */
} dip_vision;

dip_status dip_vision_init(dip_vision *tower, const dip_vision_config *config, int embed_dim,
                           dip_param_table *table);
void dip_vision_free(dip_vision *tower); /* a zeroed struct is fine */

/* Activations of one pass over at most max_images images. */
typedef struct dip_vision_pass dip_vision_pass;

dip_status dip_vision_plan(dip_vision_pass **pass, const dip_vision *tower, dip_plan *plan,
                           const dip_exec *exec, int64_t max_images, dip_pass_options options,
                           size_t *workspace_bytes);
dip_status dip_vision_bind(dip_exec *exec, dip_vision_pass *pass, const dip_plan *plan);
void dip_vision_pass_free(dip_vision_pass *pass); /* accepts NULL */

/* images u8 [n, size, size, 3] on the device -> features [n, E] float, unit length. */
dip_status dip_vision_forward(dip_exec *exec, const dip_vision *tower, const dip_param_set *params,
                              dip_vision_pass *pass, float *features, const uint8_t *images,
                              int64_t n_images, const float mean[3], const float std[3]);

/* d_features [n, E] float -> parameter gradients of `params`, accumulated. */
dip_status dip_vision_backward(dip_exec *exec, const dip_vision *tower, const dip_param_set *params,
                               dip_vision_pass *pass, const float *d_features);

/* Floating point operations of one forward pass over one image (a multiply-add counts two), as
 * open_clip counts them: every token through every layer. */
double dip_vision_flops(const dip_vision *tower);

#endif
