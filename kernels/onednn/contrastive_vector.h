/* The loss in float for either activation dtype; contrastive_layout.h says how it is cut up. */
#ifndef VECTOR_ONCE

#include <float.h>

#include "kernels/onednn/contrastive_layout.h"
#include "kernels/onednn/vector_product.h"

enum { EMBED_BLOCK = 128 }; /* of v_t: EMBED_BLOCK x TILE floats stay in L1 */

/* One call's arguments and workspace, bound. */
typedef struct contrastive {
    const float *u, *v;
    dip_contrastive_shape shape;
    contrastive_layout at;
    float scale;
    float *logits, *u_panels, *col_max, *inv_group;
    double *col_sum, *tile_sum;
    char *threads;
    int positive, mask; /* what `duplicates` asks for, given that there are groups */
} contrastive;

static contrastive contrastive_bind(const dip_exec *exec, const float *u, const float *v,
                                    dip_contrastive_shape shape)
{
    contrastive x = {.u = u, .v = v, .shape = shape, .at = contrastive_layout_of(shape)};
    x.scale = expf(*shape.log_scale);
    char *base = exec->workspace;
    x.logits = (float *)(void *)(base + x.at.logits);
    x.u_panels = (float *)(void *)(base + x.at.u_panels);
    x.col_max = (float *)(void *)(base + x.at.col_max);
    x.col_sum = (double *)(void *)(base + x.at.col_sum);
    x.tile_sum = (double *)(void *)(base + x.at.tile_sum);
    x.inv_group = (float *)(void *)(base + x.at.inv_group);
    x.threads = base + x.at.threads;
    x.positive = shape.group != NULL && shape.duplicates == DIP_DUP_POSITIVE;
    x.mask = shape.group != NULL && shape.duplicates == DIP_DUP_MASK;
    return x;
}

static float *thread_part(const contrastive *x, size_t offset)
{
    size_t mine = (size_t)omp_get_thread_num() * x->at.thread_bytes;
    return (float *)(void *)(x->threads + mine + offset);
}

static int contrastive_threads(const dip_exec *exec, dip_contrastive_shape shape)
{
    return threads_for(exec, shape.batch * shape.batch * (shape.embed / 16 + 1));
}

/* out [e, TILE] = rows first.. of v, transposed; columns past the batch are zero. */
static void transpose_tile(float *out, const contrastive *x, int64_t first)
{
    const int64_t embed = x->shape.embed, n_rows = smaller(TILE, x->shape.batch - first);
    for (int64_t i = 0; i < TILE; i += LANES)
        for (int64_t e = 0; e < embed; e += LANES) {
            vec rows[LANES];
            for (int64_t l = 0; l < LANES; l++) {
                const float *p = x->v + (first + i + l) * embed + e;
                if (i + l >= n_rows)
                    rows[l] = vec_zero();
                else
                    rows[l] = embed - e >= LANES ? vec_load(p) : vec_load_n(p, embed - e);
            }
            vec_transpose(rows);
            for (int64_t l = 0; l < LANES; l++) vec_store(out + (e + l) * TILE + i, rows[l]);
        }
}

/* out [n_rows, TILE] = columns first.. of in [n_rows, embed], zero past the last. */
static void copy_panel(float *out, const float *in, int64_t n_rows, int64_t embed, int64_t first)
{
    const int64_t n = smaller(TILE, embed - first);
    for (int64_t i = 0; i < n_rows; i++, out += TILE, in += embed)
        for (int64_t j = 0; j < TILE; j += LANES) {
            const float *p = in + first + j;
            vec value = vec_zero();
            if (n - j >= LANES)
                value = vec_load(p);
            else if (n > j)
                value = vec_load_n(p, n - j);
            vec_store(out + j, value);
        }
}

/* The tile of the strip at row `top`, column `left`: L, with -inf where the pair is masked. */
static void make_logits(const contrastive *x, int64_t top, int64_t n_rows, int64_t left)
{
    const int64_t embed = x->shape.embed, width = x->at.width;
    float *v_t = thread_part(x, x->at.v_t), *tile = x->logits + left;
    const vec scale = vec_all(x->scale);
    transpose_tile(v_t, x, left);
    for (int64_t e = 0; e < embed; e += EMBED_BLOCK)
        product(tile, width, (strided){x->u + top * embed + e, embed, 1}, v_t + e * TILE, TILE,
                n_rows, TILE, smaller(EMBED_BLOCK, embed - e), e > 0);
    const int64_t n_columns = smaller(TILE, x->shape.batch - left);
    for (int64_t i = 0; i < n_rows; i++) {
        float *row = tile + i * width;
        for (int64_t j = 0; j < TILE; j += LANES)
            vec_store(row + j, vec_mul(vec_load(row + j), scale));
        if (!x->mask) continue;
        const int32_t *group = x->shape.group;
        for (int64_t j = 0; j < n_columns; j++)
            if (group[left + j] == group[top + i] && left + j != top + i) row[j] = -INFINITY;
    }
}

/* Add the strip's part of columns left.. to their running sums, kept as max and sum of
 * exp(L - max): however small all of a column's logits are, its sum is not. */
static void add_to_columns(const contrastive *x, int64_t n_rows, int64_t left)
{
    const int64_t width = x->at.width;
    for (int64_t j = left; j < left + TILE; j += LANES) {
        vec most = vec_all(-FLT_MAX), sum = vec_zero();
        for (int64_t i = 0; i < n_rows; i++)
            most = vec_max(most, vec_load(x->logits + i * width + j));
        for (int64_t i = 0; i < n_rows; i++)
            sum = vec_add(sum, vec_exp(vec_sub(vec_load(x->logits + i * width + j), most)));
        float strip_max[LANES], strip_sum[LANES];
        vec_store(strip_max, most);
        vec_store(strip_sum, sum);
        for (int64_t l = 0; l < LANES; l++) {
            const double before = x->col_max[j + l], now = strip_max[l];
            const double both = now > before ? now : before;
            x->col_sum[j + l] =
                x->col_sum[j + l] * exp(before - both) + (double)strip_sum[l] * exp(now - both);
            x->col_max[j + l] = (float)both;
        }
    }
}

static float row_log_sum_exp(const float *row, int64_t n)
{
    const int64_t whole = n / LANES * LANES, tail = n - whole;
    vec most = vec_all(-FLT_MAX), sum = vec_zero();
    for (int64_t j = 0; j < whole; j += LANES) most = vec_max(most, vec_load(row + j));
    float largest = vec_largest(most);
    for (int64_t j = whole; j < n; j++) largest = row[j] > largest ? row[j] : largest;
    const vec shift = vec_all(largest);
    for (int64_t j = 0; j < whole; j += LANES)
        sum = vec_add(sum, vec_exp(vec_sub(vec_load(row + j), shift)));
    if (tail) {
        vec p = vec_exp(vec_sub(vec_load_n(row + whole, tail), shift));
        sum = vec_add(sum, vec_keep_n(p, tail));
    }
    return largest + logf(vec_sum(sum));
}

static float mean_over_group(const contrastive *x, const float *row, int64_t i)
{
    const int32_t *group = x->shape.group;
    double sum = 0.0;
    int64_t n = 0;
    for (int64_t j = 0; j < x->shape.batch; j++)
        if (group[j] == group[i]) {
            sum += (double)row[j];
            n++;
        }
    return (float)(sum / (double)n);
}

static dip_status forward(dip_exec *exec, float *row_lse, float *col_lse, float *target,
                          const float *u, const float *v, dip_contrastive_shape shape)
{
    DIP_TRY(
        need_workspace(exec, "contrastive_forward", dip_vector_contrastive_workspace(exec, shape)));
    const contrastive x = contrastive_bind(exec, u, v, shape);
    const int64_t batch = shape.batch;
    for (int64_t j = 0; j < x.at.width; j++) {
        x.col_max[j] = -FLT_MAX;
        x.col_sum[j] = 0.0;
    }
#pragma omp parallel num_threads(contrastive_threads(exec, shape))
    for (int64_t top = 0; top < batch; top += STRIP_ROWS) {
        const int64_t n_rows = smaller(STRIP_ROWS, batch - top);
#pragma omp for
        for (int64_t t = 0; t < x.at.n_tiles; t++) {
            make_logits(&x, top, n_rows, t * TILE);
            add_to_columns(&x, n_rows, t * TILE);
        }
#pragma omp for
        for (int64_t i = 0; i < n_rows; i++) {
            const float *row = x.logits + i * x.at.width;
            row_lse[top + i] = row_log_sum_exp(row, batch);
            target[top + i] = x.positive ? mean_over_group(&x, row, top + i) : row[top + i];
        }
    }
    for (int64_t j = 0; j < batch; j++)
        col_lse[j] = (float)((double)x.col_max[j] + log(x.col_sum[j]));
    return DIP_OK;
}

/* Logits to 2 B G = softmax over rows + softmax over columns - 2 T; returns sum 2 B G L. */
static double make_gradients(const contrastive *x, const float *row_lse, const float *col_lse,
                             int64_t top, int64_t n_rows, int64_t left)
{
    const int64_t n_columns = smaller(TILE, x->shape.batch - left);
    const int32_t *group = x->shape.group;
    float columns[TILE];
    for (int64_t j = 0; j < TILE; j++) columns[j] = j < n_columns ? col_lse[left + j] : 0.0f;
    wide sum = wide_zero();
    double targets = 0.0;
    for (int64_t i = top; i < top + n_rows; i++) {
        float *row = x->logits + (i - top) * x->at.width + left;
        float g[TILE];
        const vec row_shift = vec_all(row_lse[i]);
        for (int64_t j = 0; j < TILE; j += LANES) {
            vec l = vec_load(row + j);
            vec p =
                vec_add(vec_exp(vec_sub(l, row_shift)), vec_exp(vec_sub(l, vec_load(columns + j))));
            if (n_columns - j < LANES) p = vec_keep_n(p, n_columns > j ? n_columns - j : 0);
            sum = wide_add_product(sum, p, vec_max(vec_all(-FLT_MAX), l));
            vec_store(g + j, p);
        }
        if (x->positive) {
            const float twice = 2.0f * x->inv_group[i];
            for (int64_t j = 0; j < n_columns; j++)
                if (group[left + j] == group[i]) {
                    targets += (double)twice * (double)row[j];
                    g[j] -= twice;
                }
        } else if (i >= left && i < left + n_columns) {
            targets += 2.0 * (double)row[i - left];
            g[i - left] -= 2.0f;
        }
        memcpy(row, g, sizeof g);
    }
    return wide_sum(sum) - targets;
}

/* out [n_rows, embed], columns first..: = or += factor * the product in `part`. */
static void put_product(float *out, const float *part, float factor, int64_t n_rows, int64_t embed,
                        int64_t first, int add)
{
    const int64_t n = smaller(TILE, embed - first);
    const vec by = vec_all(factor);
    for (int64_t i = 0; i < n_rows; i++, part += TILE) {
        float *row = out + i * embed + first;
        for (int64_t j = 0; j < n; j += LANES) {
            vec value = vec_mul(vec_load(part + j), by);
            if (n - j >= LANES) {
                if (add) value = vec_add(value, vec_load(row + j));
                vec_store(row + j, value);
            } else {
                if (add) value = vec_add(value, vec_load_n(row + j, n - j));
                vec_store_n(row + j, value, n - j);
            }
        }
    }
}

static void add_to_d_v(const contrastive *x, float *d_v, float factor, int64_t top, int64_t n_rows,
                       int64_t left)
{
    const int64_t embed = x->shape.embed, n_columns = smaller(TILE, x->shape.batch - left);
    float *part = thread_part(x, x->at.product);
    for (int64_t panel = 0; panel < x->at.n_panels; panel++) {
        product(part, TILE, (strided){x->logits + left, 1, x->at.width},
                x->u_panels + panel * STRIP_ROWS * TILE, TILE, n_columns, TILE, n_rows, 0);
        put_product(d_v + left * embed, part, factor, n_columns, embed, panel * TILE, top > 0);
    }
}

static void make_d_u(const contrastive *x, float *d_u, float factor, int64_t top, int64_t first_row,
                     int64_t n_rows, int64_t panel)
{
    const int64_t embed = x->shape.embed, batch = x->shape.batch, width = x->at.width;
    float *part = thread_part(x, x->at.product), *v_panel = thread_part(x, x->at.v_panel);
    for (int64_t j = 0; j < batch; j += STRIP_ROWS) {
        const int64_t n = smaller(STRIP_ROWS, batch - j);
        copy_panel(v_panel, x->v + j * embed, n, embed, panel * TILE);
        product(part, TILE, (strided){x->logits + first_row * width + j, width, 1}, v_panel, TILE,
                n_rows, TILE, n, j > 0);
    }
    put_product(d_u + (top + first_row) * embed, part, factor, n_rows, embed, panel * TILE, 0);
}

static void count_groups(const contrastive *x)
{
    const int32_t *group = x->shape.group;
#pragma omp for
    for (int64_t i = 0; i < x->shape.batch; i++) {
        int64_t n = 0;
        for (int64_t j = 0; j < x->shape.batch; j++) n += group[j] == group[i];
        x->inv_group[i] = 1.0f / (float)n;
    }
}

static dip_status backward(dip_exec *exec, float *d_u, float *d_v, float *d_log_scale,
                           const float *u, const float *v, const float *row_lse,
                           const float *col_lse, dip_contrastive_shape shape)
{
    DIP_TRY(need_workspace(exec, "contrastive_backward",
                           dip_vector_contrastive_workspace(exec, shape)));
    const contrastive x = contrastive_bind(exec, u, v, shape);
    const int64_t batch = shape.batch, embed = shape.embed, n_panels = x.at.n_panels;
    const float factor = (float)((double)x.scale / (2.0 * (double)batch));
    for (int64_t t = 0; t < x.at.n_tiles; t++) x.tile_sum[t] = 0.0;
#pragma omp parallel num_threads(contrastive_threads(exec, shape))
    {
        if (x.positive) count_groups(&x);
        for (int64_t top = 0; top < batch; top += STRIP_ROWS) {
            const int64_t n_rows = smaller(STRIP_ROWS, batch - top);
            const int64_t n_parts = (n_rows + PRODUCT_ROWS - 1) / PRODUCT_ROWS;
#pragma omp for
            for (int64_t panel = 0; panel < n_panels; panel++)
                copy_panel(x.u_panels + panel * STRIP_ROWS * TILE, u + top * embed, n_rows, embed,
                           panel * TILE);
#pragma omp for
            for (int64_t t = 0; t < x.at.n_tiles; t++) {
                make_logits(&x, top, n_rows, t * TILE);
                x.tile_sum[t] += make_gradients(&x, row_lse, col_lse, top, n_rows, t * TILE);
                add_to_d_v(&x, d_v, factor, top, n_rows, t * TILE);
            }
#pragma omp for collapse(2)
            for (int64_t panel = 0; panel < n_panels; panel++)
                for (int64_t part = 0; part < n_parts; part++) {
                    const int64_t row = part * PRODUCT_ROWS;
                    make_d_u(&x, d_u, factor, top, row, smaller(PRODUCT_ROWS, n_rows - row), panel);
                }
        }
    }
    double total = 0.0;
    for (int64_t t = 0; t < x.at.n_tiles; t++) total += x.tile_sum[t];
    *d_log_scale = batch > 0 ? (float)(total / (2.0 * (double)batch)) : 0.0f;
    return DIP_OK;
}

#endif

dip_status OP(contrastive_forward)(dip_exec *exec, float *row_lse, float *col_lse, float *target,
                                   const float *u, const float *v, dip_contrastive_shape shape)
{
    return forward(exec, row_lse, col_lse, target, u, v, shape);
}

dip_status OP(contrastive_backward)(dip_exec *exec, float *d_u, float *d_v, float *d_log_scale,
                                    const float *u, const float *v, const float *row_lse,
                                    const float *col_lse, dip_contrastive_shape shape)
{
    return backward(exec, d_u, d_v, d_log_scale, u, v, row_lse, col_lse, shape);
}
