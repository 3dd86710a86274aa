#include "train/step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- life cycle ------------------------------------------------------------------------ */

enum {
    MASTER,
    VALUES,
    GRADS, /* [n_values]: float, T, float */
    U,
    V,
    D_U,
    D_V,
    D_SCALE,
    STATS,  /* float [B, E] four times, [1], the loss's own */
    GROUP,  /* int32 [B] */
    IMAGES, /* u8 [micro_batch, size, size, 3] */
    N_REGIONS = DIP_STEP_REGIONS
};

static void *allocate_on(void *context, size_t n_bytes)
{
    const dip_device *device = context;
    void *pointer;
    return device->allocate(device, &pointer, n_bytes) == DIP_OK ? pointer : NULL;
}

static void release_on(void *context, void *pointer)
{
    const dip_device *device = context;
    device->release(device, pointer);
}

/* Everything a step needs, booked by name. */
static dip_status plan_step(dip_step *step)
{
    const dip_clip *clip = step->clip;
    const dip_exec *exec = &step->exec;
    const dip_step_options *options = &step->options;
    const size_t n = (size_t)clip->table.n_values, t = dip_dtype_bytes(options->dtype);
    const size_t micro = (size_t)options->micro_batch, b = micro * (size_t)options->n_micro;
    const size_t e = (size_t)clip->config.embed_dim, f = sizeof(float);
    const size_t side = (size_t)clip->config.vision.image_size;
    size_t workspace = options->loss->workspace(exec, (int64_t)b, (int64_t)e);
    for (int i = 0; i < N_REGIONS; i++) step->regions[i] = -1;
#define BOOK(which, space, bytes)                                                                  \
    step->regions[which] = dip_plan_book(step->plan, #which, space, bytes)
    BOOK(MASTER, DIP_SPACE_PARAM, n * f);
    if (options->dtype != DIP_F32) BOOK(VALUES, DIP_SPACE_PARAM, n * t);
    BOOK(GRADS, DIP_SPACE_GRAD, n * f);
    dip_optimizer_plan(&step->optimizer, step->plan, &clip->table);
    BOOK(U, DIP_SPACE_SAVED, b * e * f);
    BOOK(V, DIP_SPACE_SAVED, b * e * f);
    BOOK(D_U, DIP_SPACE_SAVED, b * e * f);
    BOOK(D_V, DIP_SPACE_SAVED, b * e * f);
    BOOK(D_SCALE, DIP_SPACE_SAVED, f);
    BOOK(STATS, DIP_SPACE_SAVED, (size_t)options->loss->stats_floats((int64_t)b) * f);
    BOOK(GROUP, DIP_SPACE_SAVED, b * sizeof(int32_t));
    BOOK(IMAGES, DIP_SPACE_SAVED, micro * side * side * 3);
#undef BOOK
    /* The towers never compute at the same time: their scratch is the same memory. */
    const size_t mark = dip_plan_mark(step->plan);
    DIP_TRY(dip_vision_plan(&step->vision_pass, &clip->vision, step->plan, exec,
                            options->micro_batch, true, &workspace));
    dip_plan_release(step->plan, mark);
    DIP_TRY(dip_text_plan(&step->text_pass, &clip->text, step->plan, exec, options->micro_batch,
                          true, &workspace));
    dip_plan_release(step->plan, mark);
    DIP_TRY(dip_plan_allocate(step->plan));
    return dip_exec_reserve(&step->exec, workspace);
}

static void bind_step(dip_step *step)
{
    void *at[N_REGIONS];
    for (int i = 0; i < N_REGIONS; i++) at[i] = dip_plan_ptr(step->plan, step->regions[i]);
    step->params = (dip_param_set){.table = &step->clip->table,
                                   .dtype = step->options.dtype,
                                   .master = at[MASTER],
                                   .grads = at[GRADS],
                                   .values = at[VALUES] ? at[VALUES] : at[MASTER]};
    step->u = at[U];
    step->v = at[V];
    step->d_u = at[D_U];
    step->d_v = at[D_V];
    step->d_logit_scale = at[D_SCALE];
    step->loss_stats = at[STATS];
    step->group = at[GROUP];
    step->images = at[IMAGES];
    dip_optimizer_bind(&step->optimizer, step->plan);
    dip_vision_bind(step->vision_pass, step->plan);
    dip_text_bind(step->text_pass, step->plan);
}

dip_status dip_step_open(dip_step *step, const dip_clip *clip, const dip_step_options *options)
{
    dip_status status;
    *step = (dip_step){.clip = clip, .options = *options, .optimizer = options->optimizer};
    DIP_TRY_GOTO(dip_exec_open(&step->exec, options->device, options->dtype, options->n_threads));
    const dip_memory_source source = {allocate_on, release_on, (void *)step->exec.device,
                                      step->exec.device->alignment, step->exec.device->is_host};
    DIP_TRY_GOTO(dip_plan_init(&step->plan, &source));
    DIP_TRY_GOTO(plan_step(step));
    step->micro_offsets = malloc(((size_t)options->micro_batch + 1) * sizeof(int32_t));
    if (!step->micro_offsets) {
        status = dip_fail(DIP_NOMEM, "no memory for %lld offsets", (long long)options->micro_batch);
        goto fail;
    }
    bind_step(step);
    return DIP_OK;
fail:
    dip_step_close(step);
    return status;
}

void dip_step_close(dip_step *step)
{
    dip_vision_pass_free(step->vision_pass);
    dip_text_pass_free(step->text_pass);
    dip_plan_free(step->plan);
    dip_exec_close(&step->exec);
    free(step->micro_offsets);
    *step = (dip_step){0};
}

dip_status dip_step_upload(dip_step *step, const float *master, const float *ema)
{
    dip_exec *exec = &step->exec;
    const int64_t n = step->clip->table.n_values;
    const size_t bytes = (size_t)n * sizeof(float);
    DIP_TRY(exec->device->upload(exec, step->params.master, master, bytes));
    if (step->options.dtype != DIP_F32)
        DIP_TRY(exec->ops->cast_from_float(exec, step->params.values, step->params.master, n));
    if (!step->optimizer.ema) return DIP_OK;
    return exec->device->upload(exec, step->optimizer.ema, ema ? ema : master, bytes);
}

dip_status dip_step_init_weights(dip_step *step, uint64_t seed)
{
    float *master = malloc((size_t)step->clip->table.n_values * sizeof *master);
    if (!master) return dip_fail(DIP_NOMEM, "no memory for initial weights");
    dip_param_table_init_values(&step->clip->table, master, seed);
    dip_status status = dip_step_upload(step, master, NULL);
    free(master);
    return status;
}

/* ---- parts of a step ------------------------------------------------------------------- */

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* Milliseconds since *mark, which moves to now. */
static double lap(double *mark)
{
    const double now = now_ms(), passed = now - *mark;
    *mark = now;
    return passed;
}

/* Image features of pairs first .. first + n - 1 of the batch, saved for backward. */
static dip_status image_features(dip_step *step, const dip_batch *batch, int64_t first, int64_t n)
{
    const dip_preprocess *pre = &step->clip->config.preprocess;
    const int64_t side = step->clip->config.vision.image_size, pixels = side * side * 3;
    dip_exec *exec = &step->exec;
    DIP_TRY(exec->device->upload(exec, step->images, batch->images + first * pixels,
                                 (size_t)(n * pixels)));
    return dip_vision_forward(exec, &step->clip->vision, &step->params, step->vision_pass,
                              step->u + first * step->clip->config.embed_dim, step->images, n,
                              pre->mean, pre->std);
}

static dip_status text_features(dip_step *step, const dip_batch *batch, int64_t first, int64_t n)
{
    const int32_t begin = batch->offsets[first];
    for (int64_t i = 0; i <= n; i++) step->micro_offsets[i] = batch->offsets[first + i] - begin;
    return dip_text_forward(&step->exec, &step->clip->text, &step->params, step->text_pass,
                            step->v + first * step->clip->config.embed_dim, batch->tokens + begin,
                            step->micro_offsets, n);
}

dip_status dip_step_logit_scale(dip_step *step, float *log_scale)
{
    const int64_t at = step->clip->table.params[step->clip->logit_scale].offset;
    return step->exec.device->download(&step->exec, log_scale, step->params.master + at,
                                       sizeof *log_scale);
}

/* Features of the whole batch -> loss and d_u, d_v, d_logit_scale. */
static dip_status loss_and_gradients(dip_step *step, const dip_batch *batch, double *loss)
{
    dip_exec *exec = &step->exec;
    const int64_t b = batch->n;
    dip_loss_input in = {.u = step->u,
                         .v = step->v,
                         .batch = b,
                         .embed = step->clip->config.embed_dim,
                         .duplicates = step->options.duplicates};
    dip_loss_output out = {.d_u = step->d_u,
                           .d_v = step->d_v,
                           .stats = step->loss_stats,
                           .d_logit_scale = step->d_logit_scale};
    DIP_TRY(dip_step_logit_scale(step, &in.logit_scale));
    if (step->options.duplicates != DIP_DUP_NEGATIVE) {
        DIP_TRY(exec->device->upload(exec, step->group, batch->group, (size_t)b * sizeof(int32_t)));
        in.group = step->group;
    }
    DIP_TRY(step->options.loss->forward_backward(exec, &out, &in));
    *loss = out.loss;
    return DIP_OK;
}

static dip_status backward(dip_step *step, int64_t first)
{
    const int64_t at = first * step->clip->config.embed_dim;
    dip_exec *exec = &step->exec;
    DIP_TRY(dip_vision_backward(exec, &step->clip->vision, &step->params, step->vision_pass,
                                step->d_u + at));
    return dip_text_backward(exec, &step->clip->text, &step->params, step->text_pass,
                             step->d_v + at);
}

/* open_clip clamps the parameter to [0, ln 100] after every step. */
static dip_status clamp_logit_scale(dip_step *step, float *log_scale)
{
    dip_exec *exec = &step->exec;
    const int64_t at = step->clip->table.params[step->clip->logit_scale].offset;
    const float limit = 4.6051702f; /* ln 100 */
    DIP_TRY(dip_step_logit_scale(step, log_scale));
    const float clamped = fminf(fmaxf(*log_scale, 0.0f), limit);
    if (clamped == *log_scale) return DIP_OK;
    *log_scale = clamped;
    DIP_TRY(exec->device->upload(exec, step->params.master + at, log_scale, sizeof clamped));
    if (step->options.dtype == DIP_F32) return DIP_OK;
    return exec->ops->cast_from_float(exec, (dip_bf16 *)step->params.values + at,
                                      step->params.master + at, 1);
}

/* ---- the step -------------------------------------------------------------------------- */

dip_status dip_step_run(dip_step *step, dip_step_result *result, const dip_batch *batch, double lr)
{
    const int64_t micro = step->options.micro_batch, n_micro = step->options.n_micro;
    dip_exec *exec = &step->exec;
    dip_step_times *times = &result->times;
    double mark = now_ms();
    *result = (dip_step_result){0};
    if (batch->n != micro * n_micro)
        return dip_fail(DIP_CONFIG, "a step planned for %lld pairs was given %lld",
                        (long long)(micro * n_micro), (long long)batch->n);

    /* features of every micro-batch; those of the last stay ready for backward */
    for (int64_t i = 0; i < n_micro; i++) {
        DIP_TRY(image_features(step, batch, i * micro, micro));
        times->image_ms += lap(&mark);
        DIP_TRY(text_features(step, batch, i * micro, micro));
        times->text_ms += lap(&mark);
    }

    DIP_TRY(loss_and_gradients(step, batch, &result->loss));
    times->loss_ms = lap(&mark);

    DIP_TRY(exec->device->zero(exec, step->params.grads,
                               (size_t)step->clip->table.n_values * sizeof(float)));
    for (int64_t i = n_micro - 1; i >= 0; i--) {
        if (i < n_micro - 1) {
            DIP_TRY(image_features(step, batch, i * micro, micro));
            DIP_TRY(text_features(step, batch, i * micro, micro));
        }
        DIP_TRY(backward(step, i * micro));
    }
    DIP_TRY(exec->device->copy(exec, dip_param_grad(&step->params, step->clip->logit_scale),
                               step->d_logit_scale, sizeof(float)));
    times->backward_ms = lap(&mark);

    float log_scale;
    if (isfinite(result->loss)) {
        DIP_TRY(dip_optimizer_step(exec, &step->optimizer, &step->params, lr, &result->grad_norm,
                                   &result->applied));
    } else {
        result->grad_norm = NAN;
    }
    DIP_TRY(clamp_logit_scale(step, &log_scale));
    if (result->applied) DIP_TRY(dip_optimizer_average(exec, &step->optimizer, &step->params));
    result->logit_scale = exp((double)log_scale);
    times->optimizer_ms = lap(&mark);
    return DIP_OK;
}

/* ---- evaluation and figures ------------------------------------------------------------ */

dip_status dip_step_encode(dip_step *step, float *u, float *v, const dip_batch *batch)
{
    const size_t bytes = (size_t)(batch->n * step->clip->config.embed_dim) * sizeof(float);
    dip_exec *exec = &step->exec;
    if (u) {
        DIP_TRY(image_features(step, batch, 0, batch->n));
        DIP_TRY(exec->device->download(exec, u, step->u, bytes));
    }
    if (v) {
        DIP_TRY(text_features(step, batch, 0, batch->n));
        DIP_TRY(exec->device->download(exec, v, step->v, bytes));
    }
    return DIP_OK;
}

double dip_step_flops(const dip_step *step, double mean_length)
{
    const double pairs = (double)(step->options.micro_batch * step->options.n_micro);
    return 3.0 * pairs *
           (dip_vision_flops(&step->clip->vision) + dip_text_flops(&step->clip->text, mean_length));
}
