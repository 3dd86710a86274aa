/* ops.h - every operation's contract, and nothing else.
 *
 * Rules for all ops
 *   Layout       Tensors are dense, row-major. Activations are rows [N, C]: N = all tokens of
 *                all sequences, packed; `offsets [B+1]` (int32, offsets[0] == 0) says where each
 *                sequence begins. Only attention, embedding and pooling look at offsets.
 *   dtype        `T` below is the table's activation dtype (float or bf16): activations,
 *                activation gradients and parameters are T. Statistics, features, losses,
 *                parameter gradients and optimizer state are float.
 *   Arithmetic   Sums are accumulated in float (or wider), from T inputs taken exactly, and
 *                rounded to T once, on the way out. One exception, allowed and not required: a
 *                backend may round an operand of a matrix product inside attention or the
 *                contrastive loss to T first (probabilities, their gradients, features).
 *   Writing      Activation gradients are overwritten (=). Parameter gradients accumulate (+=).
 *                Every element of an output is written; nothing outside it is.
 *   Aliasing     No output may overlap an input unless the contract says so.
 *   Determinism  The same inputs give the same bits, also for another n_threads. No reduction
 *                may be split differently because of the thread count.
 *   Memory       Ops never allocate, print or exit. Scratch comes from exec->workspace; the
 *                *_workspace queries say how many bytes a call needs (0 if none). Building a
 *                cached primitive on the first call of a shape is not an allocation of a step.
 *   Pointers     Every pointer is the device's, but for the three-float arrays of patchify. An op
 *                may return before it has run: ops of one executor run in the order of the calls,
 *                and device.h says how to wait. What changes from step to step (a learning rate, a
 *                logit scale) is read from device memory, so that a step can be recorded once and
 *                replayed.
 *   Empty        N == 0 or B == 0 is legal: outputs of that extent are empty, accumulated
 *                gradients unchanged. Attention and embedding accept sequences of no rows.
 *   Errors       DIP_UNSUPPORTED, DIP_DEVICE, DIP_NOMEM (workspace too small), each with a
 *                sentence.
 *
 * Dimension letters: B sequences (batch), N tokens (rows), C width, H heads, D head size,
 * E embedding, P patch side, V vocabulary.
 *
 * An op is added by one row in DIP_OPS, one function type below, cpu/, and a check in
 * tests/kernels; an op without its reference or its check does not link.                  */
#ifndef DIP_KERNELS_OPS_H
#define DIP_KERNELS_OPS_H

#include <stddef.h>
#include <stdint.h>

#include "core/dtype.h"
#include "core/status.h"
#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

#define DIP_OPS(X)                                                                                 \
    X(matmul_forward)                                                                              \
    X(matmul_backward_input)                                                                       \
    X(matmul_backward_weight)                                                                      \
    X(activation_forward)                                                                          \
    X(attention_forward)                                                                           \
    X(attention_backward)                                                                          \
    X(layernorm_forward)                                                                           \
    X(layernorm_backward)                                                                          \
    X(patchify)                                                                                    \
    X(image_embed_forward)                                                                         \
    X(image_embed_backward)                                                                        \
    X(text_embed_forward)                                                                          \
    X(text_embed_backward)                                                                         \
    X(rows_gather)                                                                                 \
    X(rows_scatter)                                                                                \
    X(mean_pool_forward)                                                                           \
    X(mean_pool_backward)                                                                          \
    X(l2norm_forward)                                                                              \
    X(l2norm_backward)                                                                             \
    X(contrastive_forward)                                                                         \
    X(contrastive_loss)                                                                            \
    X(contrastive_backward)                                                                        \
    X(sum_of_squares)                                                                              \
    X(update_begin)                                                                                \
    X(adamw)                                                                                       \
    X(clamp)                                                                                       \
    X(ema)                                                                                         \
    X(cast_from_float)                                                                             \
    X(cast_to_float)

/* ---- matrix products ------------------------------------------------------------------- */

/* Activation functions fused into products. */
typedef enum dip_activation {
    DIP_ACT_NONE,
    DIP_ACT_GELU,     /* x * Phi(x), exact (erf) */
    DIP_ACT_QUICKGELU /* x * sigmoid(1.702 x) */
} dip_activation;

/* How a weight lies in memory. torch.nn.Linear: [C_out, C_in]; open_clip's `proj` and
 * `text_projection`: [C_in, C_out]. */
typedef enum dip_weight_layout { DIP_OUT_IN, DIP_IN_OUT } dip_weight_layout;

typedef struct dip_matmul_shape {
    int64_t n_rows; /* N */
    int64_t c_in, c_out;
    dip_weight_layout layout;
} dip_matmul_shape;

/* out = act(x W + bias) + residual
 *   x [N, C_in], W as `layout` says, bias [C_out] T or NULL, residual [N, C_out] T or NULL
 *   out [N, C_out] T; may be the same pointer as residual
 *   pre [N, C_out] T or NULL: x W + bias, rounded to T, saved for backward when act != NONE.
 *   act is applied to the unrounded float value, or, where a backend cannot fuse it, to `pre`;
 *   residual is added in float. */
typedef dip_status dip_matmul_forward_fn(dip_exec *exec, void *out, void *pre, const void *x,
                                         const void *w, const void *bias, const void *residual,
                                         dip_activation act, dip_matmul_shape shape);

/* d_x = (d_out W^T) * act'(pre)          (act' is 1 for DIP_ACT_NONE, then pre is NULL)
 *   d_out [N, C_out], W as in forward, pre [N, C_in] T: the saved pre-activation whose activated
 *   value was this product's x;  d_x [N, C_in] T. A backend that cannot fuse act' may round the
 *   product to T before. */
typedef dip_status dip_matmul_backward_input_fn(dip_exec *exec, void *d_x, const void *d_out,
                                                const void *w, const void *pre, dip_activation act,
                                                dip_matmul_shape shape);

/* d_W += x^T d_out (laid out as W), d_bias[c] += sum_n d_out[n, c]
 *   x [N, C_in], d_out [N, C_out], d_w float, d_bias float [C_out] or NULL. */
typedef dip_status dip_matmul_backward_weight_fn(dip_exec *exec, float *d_w, float *d_bias,
                                                 const void *d_out, const void *x,
                                                 dip_matmul_shape shape);

/* out = act(pre), elementwise   pre, out [n] T: what matmul_forward made of a saved `pre`, for
 * backward passes that did not keep it. The bits are those of matmul_forward when it applies act to
 * `pre`. */
typedef dip_status dip_activation_forward_fn(dip_exec *exec, void *out, const void *pre,
                                             dip_activation act, int64_t n);

/* ---- attention ------------------------------------------------------------------------- */

typedef struct dip_attention_shape {
    int64_t n_sequences, n_rows; /* B, N */
    int64_t max_length;          /* longest sequence */
    int n_heads, head_size;      /* H, D; C = H D */
    int causal;                  /* token i sees tokens 0..i of its sequence */
} dip_attention_shape;

/* out[i] = sum_j softmax_j(q_i . k_j / sqrt(D)) v_j, per sequence and head.
 *   qkv [N, 3C] T: a row is q (H x D), k (H x D), v (H x D);  out [N, C] T
 *   lse [N, H] float: log sum_j exp(q_i . k_j / sqrt(D)), saved for backward. */
typedef dip_status dip_attention_forward_fn(dip_exec *exec, void *out, float *lse, const void *qkv,
                                            const int32_t *offsets, dip_attention_shape shape);

/* d_qkv [N, 3C] T from d_out, out [N, C] T and what forward saved. Probabilities are recomputed
 * from lse. */
typedef dip_status dip_attention_backward_fn(dip_exec *exec, void *d_qkv, const void *d_out,
                                             const void *qkv, const void *out, const float *lse,
                                             const int32_t *offsets, dip_attention_shape shape);

/* ---- layer norm ------------------------------------------------------------------------ */

/* out = (x - mean) * rstd * gamma + beta per row, variance biased, rstd = 1/sqrt(var + eps)
 *   x, out [N, C] T; gamma, beta [C] T; mean, rstd [N] float, saved for backward. */
typedef dip_status dip_layernorm_forward_fn(dip_exec *exec, void *out, float *mean, float *rstd,
                                            const void *x, const void *gamma, const void *beta,
                                            float eps, int64_t n_rows, int64_t c);

/* d_x = layernorm'(d_out) + d_residual
 *   d_residual [N, C] T or NULL: the gradient that reached x by the residual path; it may be the
 *   same pointer as d_x.  d_gamma, d_beta [C] float, accumulated. */
typedef dip_status dip_layernorm_backward_fn(dip_exec *exec, void *d_x, float *d_gamma,
                                             float *d_beta, const void *d_out, const void *x,
                                             const float *mean, const float *rstd,
                                             const void *gamma, const void *d_residual,
                                             int64_t n_rows, int64_t c);

/* ---- image and text entry -------------------------------------------------------------- */

typedef struct dip_image_shape {
    int64_t n_images;  /* B */
    int height, width; /* pixels; multiples of patch */
    int patch;         /* P */
} dip_image_shape;

/* Bytes to normalised patches: out[b * n + y * (W/P) + x][c * P * P + py * P + px] =
 *   (images[b][y P + py][x P + px][c] / 255 - mean[c]) / std[c], all in float, rounded to T
 *   images u8 [B, H, W, 3];  out [B n, 3 P P] T, n = (H/P)(W/P): the order of conv1.weight. */
typedef dip_status dip_patchify_fn(dip_exec *exec, void *out, const uint8_t *images,
                                   const float mean[3], const float std[3], dip_image_shape shape);

/* out[b][0] = cls + pos[0];  out[b][1 + i] = patches[b][i] + pos[1 + i]
 *   patches [B n, C], cls [C], pos [n + 1, C], out [B (n + 1), C], all T. */
typedef dip_status dip_image_embed_forward_fn(dip_exec *exec, void *out, const void *patches,
                                              const void *cls, const void *pos, int64_t n_images,
                                              int64_t n_patches, int64_t c);

/* d_patches [B n, C] T overwritten; d_cls [C], d_pos [n + 1, C] float accumulated. */
typedef dip_status dip_image_embed_backward_fn(dip_exec *exec, void *d_patches, float *d_cls,
                                               float *d_pos, const void *d_out, int64_t n_images,
                                               int64_t n_patches, int64_t c);

/* out[n] = table[tokens[n]] + pos[n - offsets[b]]
 *   tokens [N] int32 in [0, V) (the caller has checked), table [V, C], pos [L, C] T,
 *   no sequence longer than L. */
typedef dip_status dip_text_embed_forward_fn(dip_exec *exec, void *out, const int32_t *tokens,
                                             const int32_t *offsets, const void *table,
                                             const void *pos, int64_t n_sequences, int64_t n_rows,
                                             int64_t c);

/* d_table [V, C], d_pos [L, C] float accumulated, the rows of a token in row order or in fixed
 * groups.
 *   order [N] int32: the rows sorted by token, rows of one token ascending; -1 at the end for rows
 *   that count for nothing (their d_out is zero). */
typedef dip_status dip_text_embed_backward_fn(dip_exec *exec, float *d_table, float *d_pos,
                                              const void *d_out, const int32_t *tokens,
                                              const int32_t *offsets, const int32_t *order,
                                              int64_t n_sequences, int64_t n_rows, int64_t vocab,
                                              int64_t c);

/* ---- pooling and features -------------------------------------------------------------- */

/* out[b] = x[index[b]]     x [N, C], out [B, C], T; index [B] int32 in [0, N). */
typedef dip_status dip_rows_gather_fn(dip_exec *exec, void *out, const void *x,
                                      const int32_t *index, int64_t n_out, int64_t c);

/* d_x = 0, then d_x[index[b]] = d_out[b]     d_x [N, C]; the indices are distinct. */
typedef dip_status dip_rows_scatter_fn(dip_exec *exec, void *d_x, const void *d_out,
                                       const int32_t *index, int64_t n_out, int64_t n_rows,
                                       int64_t c);

/* out[b] = mean of rows offsets[b] + skip .. offsets[b + 1] - 1 (average pooling without the
 * class token: skip = 1). Every sequence is longer than skip. */
typedef dip_status dip_mean_pool_forward_fn(dip_exec *exec, void *out, const void *x,
                                            const int32_t *offsets, int64_t skip,
                                            int64_t n_sequences, int64_t c);

/* d_x [N, C]: skipped rows 0, others d_out[b] / (length - skip). */
typedef dip_status dip_mean_pool_backward_fn(dip_exec *exec, void *d_x, const void *d_out,
                                             const int32_t *offsets, int64_t skip,
                                             int64_t n_sequences, int64_t c);

/* y = x / max(|x|, 1e-12) per row (torch.nn.functional.normalize)
 *   x [B, E] T; y [B, E] float; inv_norm [B] float = 1 / max(|x|, 1e-12). */
typedef dip_status dip_l2norm_forward_fn(dip_exec *exec, float *y, float *inv_norm, const void *x,
                                         int64_t n_rows, int64_t e);

/* d_x = (d_y - y (y . d_y)) * inv_norm     d_y, y [B, E] float; d_x [B, E] T. */
typedef dip_status dip_l2norm_backward_fn(dip_exec *exec, void *d_x, const float *d_y,
                                          const float *y, const float *inv_norm, int64_t n_rows,
                                          int64_t e);

/* ---- contrastive loss ------------------------------------------------------------------ */

/* What captions of the same group (identical text) are to each other within a batch. */
typedef enum dip_duplicates {
    DIP_DUP_NEGATIVE, /* nothing special: open_clip's behaviour */
    DIP_DUP_POSITIVE, /* all pairs of one group are positives, target 1/|group| each */
    DIP_DUP_MASK      /* pairs of one group, other than the own pair, leave the softmax */
} dip_duplicates;

typedef struct dip_contrastive_shape {
    int64_t batch, embed;      /* B, E */
    const int32_t *group;      /* [B] on the device, or NULL: every caption its own group */
    dip_duplicates duplicates; /* ignored when group is NULL */
    const float *log_scale;    /* [1] on the device: log of the factor on the cosine */
} dip_contrastive_shape;

/* One pass over tiles of L = scale * u v^T, scale = exp(log_scale), B x B never in memory.
 *   u, v [B, E] float, rows of unit length
 *   row_lse[i] = log sum_j exp L_ij, col_lse[j] = log sum_i exp L_ij (masked entries left out)
 *   target[i] = sum_j T_ij L_ij with T the target distribution: identity, or 1/|group| inside a
 *   group for DIP_DUP_POSITIVE. T is symmetric, so it serves rows and columns.
 * The symmetric InfoNCE is then mean_i (row_lse[i] + col_lse[i]) / 2 - mean_i target[i]. */
typedef dip_status dip_contrastive_forward_fn(dip_exec *exec, float *row_lse, float *col_lse,
                                              float *target, const float *u, const float *v,
                                              dip_contrastive_shape shape);

/* loss[0] = mean_i ((row_lse[i] + col_lse[i]) / 2 - target[i]), summed in double in a fixed order;
 * loss double [1], 0 for an empty batch. */
typedef dip_status dip_contrastive_loss_fn(dip_exec *exec, double *loss, const float *row_lse,
                                           const float *col_lse, const float *target,
                                           int64_t batch);

/* With G = (softmax over rows + softmax over columns - 2 T) / (2 B), tiles recomputed:
 *   d_u = scale * G v, d_v = scale * G^T u   [B, E] float, overwritten
 *   d_log_scale [1] float, overwritten: sum_ij G_ij L_ij (accumulated in double). */
typedef dip_status dip_contrastive_backward_fn(dip_exec *exec, float *d_u, float *d_v,
                                               float *d_log_scale, const float *u, const float *v,
                                               const float *row_lse, const float *col_lse,
                                               dip_contrastive_shape shape);

/* ---- optimizer ------------------------------------------------------------------------- */

/* out[0] = sum x_i^2, double [1] on the device, in fixed blocks: the same bits for every thread
 * count. Not finite if any x_i is not. */
typedef dip_status dip_sum_of_squares_fn(dip_exec *exec, double *out, const float *x, int64_t n);

/* What one update does with the gradients. Lives on the device: a step that is not finite is
 * found there and changes nothing, without the host having to look. */
typedef struct dip_update {
    int64_t n_updates;      /* applied so far, this one included: t of the bias correction */
    double loss, grad_norm; /* of this step; the norm before clipping */
    float lr;
    float grad_scale;                         /* multiplies every gradient (clipping) */
    float bias_correction1, bias_correction2; /* 1 - beta^t */
    int32_t applied; /* 0: loss or norm is not finite, adamw, clamp and ema do nothing */
    int32_t padding;
} dip_update;

/* The constants of a run. */
typedef struct dip_adamw_hyper {
    double beta1, beta2, eps;
    double weight_decay; /* of the call's parameters */
    double clip_norm;    /* 0: no clipping */
    double ema_decay;    /* used when adamw is given an average */
} dip_adamw_hyper;

/* Fill `update` (n_updates is kept from the update before) from
 *   lr double [1], loss double [1], sum double [1]: the sum of all squared gradients.
 * applied = loss and sum are finite; then n_updates grows by one, and grad_scale is
 * clip_norm / (grad_norm + 1e-6) where the norm exceeds clip_norm (torch.nn.utils.clip_grad_norm_),
 * else 1. Not applied: loss and grad_norm say why, and only n_updates, kept, means something
 * besides. */
typedef dip_status dip_update_begin_fn(dip_exec *exec, dip_update *update, const double *lr,
                                       const double *loss, const double *sum,
                                       dip_adamw_hyper hyper);

/* torch.optim.AdamW: g = grad * grad_scale; master *= 1 - lr wd; m = b1 m + (1 - b1) g;
 * v = b2 v + (1 - b2) g^2; master -= lr * (m / bc1) / (sqrt(v / bc2) + eps);
 * param = round(master) to T; and in the same pass, unless average is NULL,
 * average = ema_decay * average + (1 - ema_decay) * master. Constants are rounded to float first.
 *   master, m, v, grad, average [n] float; param [n] T, or the same pointer as master when T is
 *   float; update [1]. */
typedef dip_status dip_adamw_fn(dip_exec *exec, float *master, void *param, float *m, float *v,
                                float *average, const float *grad, const dip_update *update,
                                dip_adamw_hyper hyper, int64_t n);

/* master = min(max(master, low), high), param = round(master) to T; nothing when the update was
 * not applied. */
typedef dip_status dip_clamp_fn(dip_exec *exec, float *master, void *param,
                                const dip_update *update, float low, float high, int64_t n);

/* average = decay * average + (1 - decay) * master; nothing when the update was not applied. */
typedef dip_status dip_ema_fn(dip_exec *exec, float *average, const float *master,
                              const dip_update *update, float decay, int64_t n);

typedef dip_status dip_cast_from_float_fn(dip_exec *exec, void *out, const float *x, int64_t n);
typedef dip_status dip_cast_to_float_fn(dip_exec *exec, float *out, const void *x, int64_t n);

/* ---- the table ------------------------------------------------------------------------- */

struct dip_ops {
    const char *backend; /* "reference", "cpu", "cuda" */
    dip_dtype dtype;
#define DIP_OPS_FIELD(name) dip_##name##_fn *name;
    DIP_OPS(DIP_OPS_FIELD)
#undef DIP_OPS_FIELD
    /* Workspace one call may need, forward or backward, for shapes up to this one. */
    size_t (*matmul_workspace)(const dip_exec *exec, dip_matmul_shape shape);
    size_t (*attention_workspace)(const dip_exec *exec, dip_attention_shape shape);
    size_t (*layernorm_workspace)(const dip_exec *exec, int64_t n_rows, int64_t c);
    size_t (*contrastive_workspace)(const dip_exec *exec, dip_contrastive_shape shape);
};

#ifdef __cplusplus
}
#endif
#endif
