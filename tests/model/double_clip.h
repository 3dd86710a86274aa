/* double_clip.h - the whole model once more, in double, from the formulas: the independent truth
 * that gradient and parity tests hold the real one against.
 *
 * It shares nothing with nn/, vision/, text/ and kernels/ but the parameter table's names and
 * offsets. Forward only; gradients come from finite differences of dbl_loss.                   */
#ifndef DIP_TESTS_DOUBLE_CLIP_H
#define DIP_TESTS_DOUBLE_CLIP_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/loader.h"
#include "model/clip.h"

typedef struct dbl_model {
    const dip_clip *clip;
    const double *values; /* [n_values], laid out as the table says */
} dbl_model;

static inline const double *dbl_param(const dbl_model *m, const char *name)
{
    const int i = dip_param_find(&m->clip->table, name);
    if (i < 0) {
        fprintf(stderr, "no parameter %s\n", name);
        abort();
    }
    return m->values + m->clip->table.params[i].offset;
}

static inline double *dbl_zeros(int64_t n)
{
    return calloc((size_t)(n > 0 ? n : 1), sizeof(double));
}

/* out [n, o] = x [n, i] w^T + b (+ out); w [o, i], or [i, o] when `right`. */
static inline void dbl_linear(double *out, const double *x, const double *w, const double *b,
                              int64_t n, int64_t i, int64_t o, bool right)
{
    for (int64_t r = 0; r < n; r++)
        for (int64_t c = 0; c < o; c++) {
            double sum = b ? b[c] : 0;
            for (int64_t k = 0; k < i; k++)
                sum += x[r * i + k] * (right ? w[k * o + c] : w[c * i + k]);
            out[r * o + c] += sum;
        }
}

static inline void dbl_layernorm(double *out, const double *x, const double *w, const double *b,
                                 double eps, int64_t n, int64_t c)
{
    for (int64_t r = 0; r < n; r++) {
        double mean = 0, var = 0;
        for (int64_t k = 0; k < c; k++) mean += x[r * c + k] / (double)c;
        for (int64_t k = 0; k < c; k++) var += pow(x[r * c + k] - mean, 2) / (double)c;
        for (int64_t k = 0; k < c; k++)
            out[r * c + k] = (x[r * c + k] - mean) / sqrt(var + eps) * w[k] + b[k];
    }
}

static inline double dbl_act(double x, dip_activation act)
{
    return act == DIP_ACT_QUICKGELU ? x / (1 + exp(-1.702 * x))
                                    : 0.5 * x * (1 + erf(x / sqrt(2.0)));
}

/* One sequence [t, c] through one block, in place. */
static inline void dbl_block(const dbl_model *m, double *x, const char *prefix, int index,
                             int64_t t, int64_t c, int64_t h, int64_t f, bool causal, double eps,
                             dip_activation act)
{
    const int64_t d = c / h;
    double *n = dbl_zeros(t * c), *qkv = dbl_zeros(t * 3 * c), *a = dbl_zeros(t * c);
    double *hidden = dbl_zeros(t * f), *p = dbl_zeros(t);
    char name[128];
#define DBL_P(suffix)                                                                              \
    (snprintf(name, sizeof name, "%s.resblocks.%d." suffix, prefix, index), dbl_param(m, name))
    dbl_layernorm(n, x, DBL_P("ln_1.weight"), DBL_P("ln_1.bias"), eps, t, c);
    dbl_linear(qkv, n, DBL_P("attn.in_proj_weight"), DBL_P("attn.in_proj_bias"), t, c, 3 * c,
               false);
    for (int64_t head = 0; head < h; head++)
        for (int64_t i = 0; i < t; i++) {
            const int64_t n_keys = causal ? i + 1 : t;
            double total = 0;
            for (int64_t j = 0; j < n_keys; j++) {
                double s = 0;
                for (int64_t k = 0; k < d; k++)
                    s += qkv[i * 3 * c + head * d + k] * qkv[j * 3 * c + c + head * d + k];
                total += p[j] = exp(s / sqrt((double)d));
            }
            for (int64_t j = 0; j < n_keys; j++)
                for (int64_t k = 0; k < d; k++)
                    a[i * c + head * d + k] += p[j] / total * qkv[j * 3 * c + 2 * c + head * d + k];
        }
    dbl_linear(x, a, DBL_P("attn.out_proj.weight"), DBL_P("attn.out_proj.bias"), t, c, c, false);
    dbl_layernorm(n, x, DBL_P("ln_2.weight"), DBL_P("ln_2.bias"), eps, t, c);
    dbl_linear(hidden, n, DBL_P("mlp.c_fc.weight"), DBL_P("mlp.c_fc.bias"), t, c, f, false);
    for (int64_t i = 0; i < t * f; i++) hidden[i] = dbl_act(hidden[i], act);
    dbl_linear(x, hidden, DBL_P("mlp.c_proj.weight"), DBL_P("mlp.c_proj.bias"), t, f, c, false);
#undef DBL_P
    free(n);
    free(qkv);
    free(a);
    free(hidden);
    free(p);
}

static inline void dbl_normalise(double *x, int64_t e)
{
    double sum = 0;
    for (int64_t k = 0; k < e; k++) sum += x[k] * x[k];
    for (int64_t k = 0; k < e; k++) x[k] /= fmax(sqrt(sum), 1e-12);
}

/* feature [E] of one image u8 [size, size, 3]. */
static inline void dbl_image(const dbl_model *m, double *feature, const uint8_t *rgb)
{
    const dip_vision_config *v = &m->clip->config.vision;
    const dip_preprocess *pre = &m->clip->config.preprocess;
    const int64_t s = v->image_size, p = v->patch_size, side = s / p, c = v->width,
                  t = side * side + 1;
    const int64_t patch = 3 * p * p, e = m->clip->config.embed_dim;
    const double *cls = dbl_param(m, "visual.class_embedding");
    const double *pos = dbl_param(m, "visual.positional_embedding");
    double *patches = dbl_zeros(side * side * patch), *x = dbl_zeros(t * c), *y = dbl_zeros(t * c);
    double *pooled = dbl_zeros(c), *post = dbl_zeros(c);
    for (int64_t i = 0; i < side * side; i++)
        for (int64_t ch = 0; ch < 3; ch++)
            for (int64_t py = 0; py < p; py++)
                for (int64_t px = 0; px < p; px++) {
                    const int64_t row = i / side * p + py, column = i % side * p + px;
                    patches[i * patch + ch * p * p + py * p + px] =
                        (rgb[(row * s + column) * 3 + ch] / 255.0 - (double)pre->mean[ch]) /
                        (double)pre->std[ch];
                }
    memcpy(x, cls, (size_t)c * sizeof *x);
    dbl_linear(x + c, patches, dbl_param(m, "visual.conv1.weight"), NULL, side * side, patch, c,
               false);
    for (int64_t i = 0; i < t * c; i++) x[i] += pos[i];
    if (!v->no_ln_pre) {
        dbl_layernorm(y, x, dbl_param(m, "visual.ln_pre.weight"),
                      dbl_param(m, "visual.ln_pre.bias"), v->norm_eps, t, c);
        memcpy(x, y, (size_t)(t * c) * sizeof *x);
    }
    for (int i = 0; i < v->layers; i++)
        dbl_block(m, x, "visual.transformer", i, t, c, c / v->head_width,
                  (int64_t)((double)c * v->mlp_ratio), false, v->norm_eps, v->activation);
    const double *w = dbl_param(m, "visual.ln_post.weight"),
                 *b = dbl_param(m, "visual.ln_post.bias");
    if (v->pool == DIP_POOL_TOK) {
        dbl_layernorm(post, x, w, b, v->norm_eps, 1, c);
    } else if (v->final_ln_after_pool) {
        for (int64_t i = c; i < t * c; i++) pooled[i % c] += x[i] / (double)(t - 1);
        dbl_layernorm(post, pooled, w, b, v->norm_eps, 1, c);
    } else {
        dbl_layernorm(y, x, w, b, v->norm_eps, t, c);
        for (int64_t i = c; i < t * c; i++) post[i % c] += y[i] / (double)(t - 1);
    }
    memset(feature, 0, (size_t)e * sizeof *feature);
    dbl_linear(feature, post, dbl_param(m, "visual.proj"), NULL, 1, c, e, true);
    dbl_normalise(feature, e);
    free(patches);
    free(x);
    free(y);
    free(pooled);
    free(post);
}

/* feature [E] of one text of n tokens, the last being the end of text. */
static inline void dbl_text(const dbl_model *m, double *feature, const int32_t *tokens, int64_t n)
{
    const dip_text_config *g = &m->clip->config.text;
    const int64_t c = g->width, e = m->clip->config.embed_dim;
    const double *table = dbl_param(m, "token_embedding.weight");
    const double *pos = dbl_param(m, "positional_embedding");
    double *x = dbl_zeros(n * c), *post = dbl_zeros(c);
    for (int64_t i = 0; i < n * c; i++) x[i] = table[tokens[i / c] * c + i % c] + pos[i];
    for (int i = 0; i < g->layers; i++)
        dbl_block(m, x, "transformer", i, n, c, g->heads, (int64_t)((double)c * g->mlp_ratio), true,
                  g->norm_eps, g->activation);
    dbl_layernorm(post, x + (n - 1) * c, dbl_param(m, "ln_final.weight"),
                  dbl_param(m, "ln_final.bias"), g->norm_eps, 1, c);
    memset(feature, 0, (size_t)e * sizeof *feature);
    dbl_linear(feature, post, dbl_param(m, "text_projection"), NULL, 1, c, e, true);
    dbl_normalise(feature, e);
    free(x);
    free(post);
}

/* The symmetric InfoNCE of a batch, with its treatment of identical captions. */
static inline double dbl_loss(const dbl_model *m, const dip_batch *batch, dip_duplicates duplicates)
{
    const int64_t b = batch->n, e = m->clip->config.embed_dim,
                  s = m->clip->config.vision.image_size;
    const double scale = exp(*dbl_param(m, "logit_scale"));
    double *u = dbl_zeros(b * e), *v = dbl_zeros(b * e), loss = 0;
    for (int64_t i = 0; i < b; i++) {
        dbl_image(m, u + i * e, batch->images + i * s * s * 3);
        dbl_text(m, v + i * e, batch->tokens + batch->offsets[i],
                 batch->offsets[i + 1] - batch->offsets[i]);
    }
    for (int64_t i = 0; i < b; i++) {
        double row = 0, column = 0, target = 0, n_same = 0;
        for (int64_t j = 0; j < b; j++) {
            const bool same = batch->group[i] == batch->group[j];
            double across = 0, down = 0;
            for (int64_t k = 0; k < e; k++) {
                across += scale * u[i * e + k] * v[j * e + k];
                down += scale * u[j * e + k] * v[i * e + k];
            }
            if (duplicates != DIP_DUP_MASK || !same || i == j) {
                row += exp(across);
                column += exp(down);
            }
            if (duplicates == DIP_DUP_POSITIVE ? same : i == j) {
                target += across + down;
                n_same++;
            }
        }
        loss += (log(row) + log(column) - target / n_same) / (2.0 * (double)b);
    }
    free(u);
    free(v);
    return loss;
}

#endif
