#include "check.h"

#include <math.h>

/* ---- patchify --------------------------------------------------------------------------- */

static const float pixel_mean[3] = {0.48145466f, 0.4578275f, 0.40821073f};
static const float pixel_std[3] = {0.26862954f, 0.26130258f, 0.27577711f};

typedef struct patchify {
    dip_image_shape shape;
    void *out;
    const uint8_t *images;
} patchify;

static void oracle_patchify(double *out, const double *images, dip_image_shape s, check_precision p)
{
    const int64_t across = s.width / s.patch, down = s.height / s.patch;
    for (int64_t b = 0; b < s.n_images; b++)
        for (int64_t y = 0; y < s.height; y++)
            for (int64_t x = 0; x < s.width; x++)
                for (int64_t c = 0; c < 3; c++) {
                    int64_t token = (b * down + y / s.patch) * across + x / s.patch;
                    int64_t place = (c * s.patch + y % s.patch) * s.patch + x % s.patch;
                    double pixel = images[((b * s.height + y) * s.width + x) * 3 + c];
                    double value = rounded(p, rounded(p, pixel / 255.0) - (double)pixel_mean[c]);
                    out[token * 3 * s.patch * s.patch + place] =
                        rounded(p, value / (double)pixel_std[c]);
                }
}

static dip_status call_patchify(dip_exec *exec, void *context)
{
    patchify *a = context;
    return exec->ops->patchify(exec, a->out, a->images, pixel_mean, pixel_std, a->shape);
}

static void check_patchify(check_target *target)
{
    static const dip_image_shape shapes[] = {
        {1, 1, 1, 1},    {0, 32, 32, 16}, {2, 32, 48, 16},   {3, 14, 28, 7},
        {1, 64, 32, 32}, {5, 42, 14, 14}, {1, 224, 224, 16}, {2, 3, 5, 1},
    };
    for (int i = 0; i < COUNT(shapes); i++) {
        check_case c;
        const dip_image_shape s = shapes[i];
        const int64_t n = s.n_images * s.height * s.width * 3;
        check_begin(&c, target, "%lld images of %dx%d, patch %d", (long long)s.n_images, s.height,
                    s.width, s.patch);
        double *pixels = check_array(&c, n);
        for (int64_t k = 0; k < n; k++) pixels[k] = (double)dip_rng_below(&c.rng, 256);
        check_tensor *images = check_input_values(&c, "images", CHECK_U8, n, pixels);
        check_tensor *out = check_output(&c, "out", check_activation_type(target), n);
        patchify a = {.shape = s, .out = out->data, .images = images->data};
        check_run(&c, call_patchify, NULL, &a);
        double *exact = check_array(&c, n), *naive = check_array(&c, n);
        oracle_patchify(exact, pixels, s, CHECK_EXACT);
        oracle_patchify(naive, pixels, s, CHECK_NAIVE);
        check_close(&c, out, exact, naive, 0x1p-24 / 0.26);
        check_end(&c);
    }
}

/* ---- image_embed ------------------------------------------------------------------------ */

typedef struct image_embed {
    int64_t n_images, n_patches, c;
    void *out, *d_patches;
    float *d_cls, *d_pos;
    const void *patches, *cls, *pos, *d_out;
} image_embed;

static const int64_t image_sizes[][3] = {/* B, n, C */
                                         {1, 1, 1},   {0, 4, 8},   {2, 4, 7},   {3, 9, 64},
                                         {5, 49, 33}, {7, 1, 130}, {33, 4, 192}};

static dip_status call_image_forward(dip_exec *exec, void *context)
{
    image_embed *a = context;
    return exec->ops->image_embed_forward(exec, a->out, a->patches, a->cls, a->pos, a->n_images,
                                          a->n_patches, a->c);
}

static void check_image_embed_forward(check_target *target)
{
    for (int i = 0; i < COUNT(image_sizes); i++) {
        check_case k;
        const check_type type = check_activation_type(target);
        const int64_t b = image_sizes[i][0], n = image_sizes[i][1], c = image_sizes[i][2];
        check_begin(&k, target, "B %lld, n %lld, C %lld", (long long)b, (long long)n, (long long)c);
        check_tensor *patches = check_input(&k, "patches", type, b * n * c, 0.0, 1.0);
        check_tensor *cls = check_input(&k, "cls", type, c, 0.0, 1.0);
        check_tensor *pos = check_input(&k, "pos", type, (n + 1) * c, 0.0, 0.3);
        check_tensor *out = check_output(&k, "out", type, b * (n + 1) * c);
        image_embed a = {.n_images = b,
                         .n_patches = n,
                         .c = c,
                         .out = out->data,
                         .patches = patches->data,
                         .cls = cls->data,
                         .pos = pos->data};
        check_run(&k, call_image_forward, NULL, &a);
        double *exact = check_array(&k, out->n), *naive = check_array(&k, out->n);
        for (int64_t j = 0; j < out->n; j++) {
            int64_t column = j % c, token = j / c % (n + 1), image = j / c / (n + 1);
            double x = token == 0 ? cls->values[column]
                                  : patches->values[(image * n + token - 1) * c + column];
            exact[j] = x + pos->values[token * c + column];
            naive[j] = rounded(CHECK_NAIVE, exact[j]);
        }
        check_close(&k, out, exact, naive, 0.0);
        check_end(&k);
    }
}

static dip_status call_image_backward(dip_exec *exec, void *context)
{
    image_embed *a = context;
    return exec->ops->image_embed_backward(exec, a->d_patches, a->d_cls, a->d_pos, a->d_out,
                                           a->n_images, a->n_patches, a->c);
}

/* The forward pass only adds, so each gradient is a sum of the d_out it went to: no finite
 * differences are needed to see that this is right. */
static void check_image_embed_backward(check_target *target)
{
    for (int i = 0; i < COUNT(image_sizes); i++) {
        check_case k;
        const check_type type = check_activation_type(target);
        const int64_t b = image_sizes[i][0], n = image_sizes[i][1], c = image_sizes[i][2];
        check_begin(&k, target, "B %lld, n %lld, C %lld", (long long)b, (long long)n, (long long)c);
        check_tensor *d_out = check_input(&k, "d_out", type, b * (n + 1) * c, 0.0, 1.0);
        check_tensor *d_patches = check_output(&k, "d_patches", type, b * n * c);
        check_tensor *d_cls = check_updated(&k, "d_cls", CHECK_F32, c, 0.0, 1.0);
        check_tensor *d_pos = check_updated(&k, "d_pos", CHECK_F32, (n + 1) * c, 0.0, 1.0);
        image_embed a = {.n_images = b,
                         .n_patches = n,
                         .c = c,
                         .d_patches = d_patches->data,
                         .d_cls = d_cls->data,
                         .d_pos = d_pos->data,
                         .d_out = d_out->data};
        check_run(&k, call_image_backward, NULL, &a);
        double *expected = check_array(&k, b * n * c), *results[2][2];
        for (int64_t j = 0; j < b * n * c; j++)
            expected[j] = d_out->values[j + (j / (n * c) + 1) * c];
        check_equal(&k, d_patches, expected);
        for (int p = CHECK_EXACT; p <= CHECK_NAIVE; p++) {
            double *to_cls = results[p][0] = check_array(&k, c);
            double *to_pos = results[p][1] = check_array(&k, (n + 1) * c);
            for (int64_t j = 0; j < (n + 1) * c; j++) {
                double sum = 0.0;
                for (int64_t image = 0; image < b; image++)
                    sum = rounded((check_precision)p, sum + d_out->values[image * (n + 1) * c + j]);
                to_pos[j] = rounded((check_precision)p, d_pos->values[j] + sum);
                if (j < c) to_cls[j] = rounded((check_precision)p, d_cls->values[j] + sum);
            }
        }
        check_close(&k, d_cls, results[CHECK_EXACT][0], results[CHECK_NAIVE][0], 0.0);
        check_close(&k, d_pos, results[CHECK_EXACT][1], results[CHECK_NAIVE][1], 0.0);
        check_end(&k);
    }
}

/* ---- text_embed ------------------------------------------------------------------------- */

typedef struct text_embed {
    int64_t n_sequences, n_rows, vocab, c;
    void *out;
    float *d_table, *d_pos;
    const int32_t *tokens, *offsets, *order;
    const void *table, *pos, *d_out;
} text_embed;

enum { MAX_SEQUENCES = 40 };

/* The last n_padding sequences count for nothing: rows that make a batch as long as others. */
typedef struct captions {
    int64_t vocab, c;
    int n_sequences, n_padding;
    int lengths[MAX_SEQUENCES];
} captions;

static const captions batches[] = {
    {1, 1, 1, 0, {1}},
    {10, 8, 0, 0, {0}},
    {10, 8, 3, 0, {0, 0, 0}},
    {3, 7, 2, 0, {4, 9}},
    {3, 33, 3, 1, {4, 9, 6}},
    {50, 64, 3, 0, {1, 77, 20}},
    {50, 40, 6, 2, {0, 17, 0, 1, 77, 30}},
    {20, 16, 4, 4, {3, 1, 0, 8}},
    {500, 130, 5, 0, {3, 3, 8, 1, 2}},
    {2, 512, 2, 0, {16, 77}},
    {1, 65, 9, 0, {77, 77, 77, 77, 77, 77, 77, 77, 77}},
    {300, 768, 5, 1, {20, 77, 1, 50, 12}},
    /* many sequences, one token in most rows: what padding to a fixed length looks like */
    {4, 36, 40, 3, {31, 77, 7, 12, 50, 1, 22, 64, 9, 10, 11, 77, 8,  30, 2,  16, 17, 3,  40, 21,
                    6,  77, 5, 13, 18, 1, 20, 33, 4, 15, 19, 70, 14, 32, 23, 10, 9,  77, 77, 12}},
};

typedef struct text_setup {
    check_case c;
    int64_t n_rows, n_counted, longest; /* rows: all, those before the padding */
    double offsets[MAX_SEQUENCES + 1];
    double *position; /* of each row in its sequence */
    check_tensor *tokens, *offset_tensor;
} text_setup;

static void begin_text(text_setup *t, check_target *target, const captions *batch)
{
    t->n_rows = t->longest = 0;
    t->offsets[0] = 0.0;
    for (int b = 0; b < batch->n_sequences; b++) {
        const int length = batch->lengths[b];
        t->n_rows += length;
        if (length > t->longest) t->longest = length;
        t->offsets[b + 1] = (double)t->n_rows;
    }
    t->n_counted = (int64_t)t->offsets[batch->n_sequences - batch->n_padding];
    check_begin(&t->c, target, "%d sequences, %d of them padding, %lld tokens, V %lld, C %lld",
                batch->n_sequences, batch->n_padding, (long long)t->n_rows, (long long)batch->vocab,
                (long long)batch->c);
    double *tokens = check_array(&t->c, t->n_rows);
    t->position = check_array(&t->c, t->n_rows);
    for (int b = 0; b < batch->n_sequences; b++)
        for (int i = 0; i < batch->lengths[b]; i++)
            t->position[(int64_t)t->offsets[b] + i] = (double)i;
    for (int64_t i = 0; i < t->n_rows; i++) {
        tokens[i] = (double)dip_rng_below(&t->c.rng, (uint64_t)batch->vocab);
        if (batch->vocab == 4 && i % 8) tokens[i] = 2.0;
    }
    t->tokens = check_input_values(&t->c, "tokens", CHECK_I32, t->n_rows, tokens);
    t->offset_tensor =
        check_input_values(&t->c, "offsets", CHECK_I32, batch->n_sequences + 1, t->offsets);
}

static dip_status call_text_forward(dip_exec *exec, void *context)
{
    text_embed *a = context;
    return exec->ops->text_embed_forward(exec, a->out, a->tokens, a->offsets, a->table, a->pos,
                                         a->n_sequences, a->n_rows, a->c);
}

static void check_text_embed_forward(check_target *target)
{
    for (int i = 0; i < COUNT(batches); i++) {
        text_setup t;
        const check_type type = check_activation_type(target);
        const int64_t c = batches[i].c, vocab = batches[i].vocab;
        begin_text(&t, target, &batches[i]);
        check_tensor *table = check_input(&t.c, "table", type, vocab * c, 0.0, 1.0);
        check_tensor *pos = check_input(&t.c, "pos", type, t.longest * c, 0.0, 0.3);
        check_tensor *out = check_output(&t.c, "out", type, t.n_rows * c);
        text_embed a = {.n_sequences = batches[i].n_sequences,
                        .n_rows = t.n_rows,
                        .vocab = vocab,
                        .c = c,
                        .out = out->data,
                        .tokens = t.tokens->data,
                        .offsets = t.offset_tensor->data,
                        .table = table->data,
                        .pos = pos->data};
        check_run(&t.c, call_text_forward, NULL, &a);
        double *exact = check_array(&t.c, out->n), *naive = check_array(&t.c, out->n);
        for (int64_t j = 0; j < out->n; j++) {
            int64_t row = j / c, token = (int64_t)t.tokens->values[row];
            exact[j] = table->values[token * c + j % c] +
                       pos->values[(int64_t)t.position[row] * c + j % c];
            naive[j] = rounded(CHECK_NAIVE, exact[j]);
        }
        check_close(&t.c, out, exact, naive, 0.0);
        check_end(&t.c);
    }
}

static dip_status call_text_backward(dip_exec *exec, void *context)
{
    text_embed *a = context;
    return exec->ops->text_embed_backward(exec, a->d_table, a->d_pos, a->d_out, a->tokens,
                                          a->offsets, a->order, a->n_sequences, a->n_rows, a->vocab,
                                          a->c);
}

/* Rows sorted by token, -1 for the padding. */
static check_tensor *order_of(text_setup *t, int64_t vocab)
{
    double *order = check_array(&t->c, t->n_rows);
    int64_t n = 0;
    for (int64_t token = 0; token < vocab; token++)
        for (int64_t row = 0; row < t->n_counted; row++)
            if ((int64_t)t->tokens->values[row] == token) order[n++] = (double)row;
    for (; n < t->n_rows; n++) order[n] = -1.0;
    return check_input_values(&t->c, "order", CHECK_I32, t->n_rows, order);
}

static void check_text_embed_backward(check_target *target)
{
    for (int i = 0; i < COUNT(batches); i++) {
        text_setup t;
        const int64_t c = batches[i].c, vocab = batches[i].vocab;
        begin_text(&t, target, &batches[i]);
        double *gradients = check_array(&t.c, t.n_rows * c);
        for (int64_t j = 0; j < t.n_counted * c; j++) gradients[j] = dip_rng_normal(&t.c.rng);
        check_tensor *d_out = check_input_values(&t.c, "d_out", check_activation_type(target),
                                                 t.n_rows * c, gradients);
        check_tensor *d_table = check_updated(&t.c, "d_table", CHECK_F32, vocab * c, 0.0, 1.0);
        check_tensor *d_pos = check_updated(&t.c, "d_pos", CHECK_F32, t.longest * c, 0.0, 1.0);
        text_embed a = {.n_sequences = batches[i].n_sequences,
                        .n_rows = t.n_rows,
                        .vocab = vocab,
                        .c = c,
                        .d_table = d_table->data,
                        .d_pos = d_pos->data,
                        .tokens = t.tokens->data,
                        .offsets = t.offset_tensor->data,
                        .order = order_of(&t, vocab)->data,
                        .d_out = d_out->data};
        check_run(&t.c, call_text_backward, NULL, &a);
        double *results[2][2];
        for (int p = CHECK_EXACT; p <= CHECK_NAIVE; p++) {
            double *to_table = results[p][0] = check_array(&t.c, d_table->n);
            double *to_pos = results[p][1] = check_array(&t.c, d_pos->n);
            for (int64_t j = 0; j < d_table->n; j++) to_table[j] = d_table->values[j];
            for (int64_t j = 0; j < d_pos->n; j++) to_pos[j] = d_pos->values[j];
            for (int64_t j = 0; j < t.n_rows * c; j++) {
                int64_t row = j / c, token = (int64_t)t.tokens->values[row];
                double *entry = &to_table[token * c + j % c];
                double *place = &to_pos[(int64_t)t.position[row] * c + j % c];
                *entry = rounded((check_precision)p, *entry + d_out->values[j]);
                *place = rounded((check_precision)p, *place + d_out->values[j]);
            }
        }
        check_close(&t.c, d_table, results[CHECK_EXACT][0], results[CHECK_NAIVE][0], 0.0);
        check_close(&t.c, d_pos, results[CHECK_EXACT][1], results[CHECK_NAIVE][1], 0.0);
        check_end(&t.c);
    }
}

int main(void)
{
    static const check_row rows[] = {CHECK(patchify), CHECK(image_embed_forward),
                                     CHECK(image_embed_backward), CHECK(text_embed_forward),
                                     CHECK(text_embed_backward)};
    return check_main(rows, COUNT(rows));
}
