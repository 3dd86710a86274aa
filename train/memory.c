#include "train/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/fp8.h"

enum {
    MASTER,
    VALUES,
    GRADS, /* [n_values]: float, T, float */
    U,
    V,
    D_U,
    D_V, /* float [B, E] */
    D_SCALE,
    STATS,
    LOSS, /* float [1], the loss's own, double [1] */
    N_BUFFERS
};
/* And in every slot: */
enum { IMAGES, GROUP, RATE, AFTER, N_SLOT_BUFFERS };

_Static_assert((int)N_BUFFERS == DIP_STEP_BUFFERS, "dip_step.regions has room for all");
_Static_assert((int)N_BUFFERS + (int)N_SLOT_BUFFERS * DIP_N_SLOTS == DIP_STEP_REGIONS, "the same");

enum { N_RECOMPUTES = DIP_RECOMPUTE_BLOCK + 1 };

/* A GPU's libraries take memory of their own while algorithms are chosen and steps recorded. */
enum { RESERVED_SHARE = 32 };

static const char *const recompute_names[N_RECOMPUTES] = {"none", "mlp", "block"};

const char *dip_recompute_name(dip_recompute recompute)
{
    return recompute_names[recompute];
}

dip_recompute dip_recompute_named(const char *name)
{
    for (int i = 0; i < N_RECOMPUTES; i++)
        if (strcmp(name, recompute_names[i]) == 0) return (dip_recompute)i;
    return DIP_RECOMPUTE_NONE;
}

/* ---- booking --------------------------------------------------------------------------- */

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

static void book_inputs(dip_step *step, int slot)
{
    static const char *const names[N_SLOT_BUFFERS] = {"IMAGES", "GROUP", "RATE", "AFTER"};
    const dip_step_options *options = &step->options;
    const size_t side = (size_t)step->clip->config.vision.image_size;
    const size_t micro = (size_t)options->micro_batch;
    const size_t bytes[N_SLOT_BUFFERS] = {
        [IMAGES] = micro * side * side * 3,
        [GROUP] = micro * (size_t)options->n_micro * sizeof(int32_t),
        [RATE] = sizeof(double),
        [AFTER] = sizeof(dip_step_outcome),
    };
    for (int i = 0; i < N_SLOT_BUFFERS; i++)
        step->regions[N_BUFFERS + slot * N_SLOT_BUFFERS + i] =
            dip_plan_book(step->plan, names[i], DIP_SPACE_SAVED, bytes[i]);
}

/* Everything a step needs, by name. */
static dip_status book(dip_step *step, size_t *workspace)
{
    const dip_clip *clip = step->clip;
    const dip_exec *exec = &step->exec;
    const dip_step_options *options = &step->options;
    const size_t n = (size_t)clip->table.n_values, t = dip_dtype_bytes(options->dtype);
    const size_t micro = (size_t)options->micro_batch, b = micro * (size_t)options->n_micro;
    const size_t e = (size_t)clip->config.embed_dim, f = sizeof(float);
    const dip_pass_options pass = {
        .save = true, .recompute = options->recompute, .all_rows = options->all_rows};
    *workspace = options->loss->workspace(exec, (int64_t)b, (int64_t)e, options->duplicates);
    if (options->fp8) {
        const size_t fp8 = dip_step_fp8_workspace(step);
        if (fp8 > *workspace) *workspace = fp8;
    }
    for (int i = 0; i < DIP_STEP_REGIONS; i++) step->regions[i] = -1;
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
    BOOK(LOSS, DIP_SPACE_SAVED, sizeof(double));
#undef BOOK
    for (int slot = 0; slot < step->n_slots; slot++) book_inputs(step, slot);
    /* The towers never compute at the same time: their scratch is the same memory. */
    const size_t mark = dip_plan_mark(step->plan);
    DIP_TRY(dip_vision_plan(&step->vision_pass, &clip->vision, step->plan, exec,
                            options->micro_batch, pass, workspace));
    dip_plan_release(step->plan, mark);
    DIP_TRY(dip_text_plan(&step->text_pass, &clip->text, step->plan, exec, options->micro_batch,
                          (dip_text_options){pass, options->padding, step->n_slots}, workspace));
    dip_plan_release(step->plan, mark);
    return DIP_OK;
}

static dip_status open_plan(dip_step *step)
{
    const dip_device *device = step->exec.device;
    const dip_memory_source source = {allocate_on, release_on, (void *)device, device->alignment,
                                      device->is_host};
    return dip_plan_init(&step->plan, &source);
}

dip_status dip_step_bytes(size_t *n_bytes, const dip_step *step, int64_t micro_batch,
                          dip_recompute recompute)
{
    size_t workspace = 0;
    dip_step trial = {.clip = step->clip,
                      .options = step->options,
                      .exec = step->exec,
                      .optimizer = step->optimizer,
                      .n_slots = step->n_slots};
    trial.options.micro_batch = micro_batch;
    trial.options.recompute = recompute;
    dip_status status;
    DIP_TRY_GOTO(open_plan(&trial));
    DIP_TRY_GOTO(book(&trial, &workspace));
    *n_bytes = dip_plan_total_bytes(trial.plan) + workspace;
fail:
    dip_vision_pass_free(trial.vision_pass);
    dip_text_pass_free(trial.text_pass);
    dip_plan_free(trial.plan);
    return status;
}

/* ---- does it fit? ---------------------------------------------------------------------- */

static dip_status usable_bytes(size_t *n_bytes, const dip_step *step)
{
    const dip_device *device = step->exec.device;
    size_t available, total;
    *n_bytes = step->options.memory_bytes ? step->options.memory_bytes : SIZE_MAX;
    if (device->is_host) return DIP_OK;
    DIP_TRY(device->memory(device, &available, &total));
    available -= available / RESERVED_SHARE;
    if (available < *n_bytes) *n_bytes = available;
    return DIP_OK;
}

static bool fits(const dip_step *step, int64_t micro_batch, dip_recompute recompute, size_t usable)
{
    size_t bytes;
    return dip_step_bytes(&bytes, step, micro_batch, recompute) == DIP_OK && bytes <= usable;
}

/* The largest micro-batch under that of the options, which does not fit; 0: not even one pair. */
static int64_t largest_that_fits(const dip_step *step, dip_recompute recompute, size_t usable)
{
    int64_t good = 0, bad = step->options.micro_batch;
    if (fits(step, bad, recompute, usable)) return bad; /* other modes are tried too */
    while (bad - good > 1) {
        const int64_t middle = good + (bad - good) / 2;
        if (fits(step, middle, recompute, usable))
            good = middle;
        else
            bad = middle;
    }
    return good;
}

static const char *human(char out[32], size_t n_bytes)
{
    const double mib = (double)n_bytes / (1 << 20);
    snprintf(out, 32, mib < 1024 ? "%.2f MiB" : "%.2f GiB", mib < 1024 ? mib : mib / 1024);
    return out;
}

/* Whose limit `usable` is: the option's, or what the device has. */
static const char *limit_words(char out[96], const dip_step *step, size_t usable)
{
    char size[32];
    human(size, usable);
    if (step->options.memory_bytes && usable == step->options.memory_bytes)
        snprintf(out, 96, "--memory allows %s", size);
    else
        snprintf(out, 96, "device %s has %s for it", step->exec.device->name, size);
    return out;
}

static dip_status refuse(const dip_step *step, size_t needed, size_t usable)
{
    char needs[32], limit[96];
    const dip_step_options *options = &step->options;
    char sizes[N_RECOMPUTES][64];
    for (int i = 0; i < N_RECOMPUTES; i++) {
        const int64_t n = largest_that_fits(step, (dip_recompute)i, usable);
        snprintf(sizes[i], sizeof sizes[i], "%s%lld", n == options->micro_batch ? "at least " : "",
                 (long long)n);
    }
    return dip_fail(DIP_NOMEM,
                    "--batch-size %lld (--accum-freq %lld) needs %s with --recompute %s; %s. The "
                    "largest --batch-size that fits: %s with --recompute none, %s with mlp, %s "
                    "with block",
                    (long long)options->micro_batch, (long long)options->n_micro,
                    human(needs, needed), dip_recompute_name(options->recompute),
                    limit_words(limit, step, usable), sizes[DIP_RECOMPUTE_NONE],
                    sizes[DIP_RECOMPUTE_MLP], sizes[DIP_RECOMPUTE_BLOCK]);
}

static dip_status choose_recompute(dip_step *step)
{
    dip_step_options *options = &step->options;
    size_t usable, needed;
    DIP_TRY(usable_bytes(&usable, step));
    const int first = options->choose_recompute ? DIP_RECOMPUTE_NONE : (int)options->recompute;
    const int last = options->choose_recompute ? DIP_RECOMPUTE_BLOCK : (int)options->recompute;
    for (int i = first; i <= last; i++) {
        options->recompute = (dip_recompute)i;
        DIP_TRY(dip_step_bytes(&needed, step, options->micro_batch, options->recompute));
        if (needed <= usable) return DIP_OK;
    }
    return refuse(step, needed, usable);
}

/* ---- binding --------------------------------------------------------------------------- */

static void bind_inputs(dip_step *step, void *const *at, int slot)
{
    void *const *buffers = at + N_BUFFERS + slot * N_SLOT_BUFFERS;
    step->inputs[slot] = (dip_step_inputs){.images = buffers[IMAGES],
                                           .group = buffers[GROUP],
                                           .lr = buffers[RATE],
                                           .after = buffers[AFTER]};
}

static dip_status bind(dip_step *step)
{
    const dip_param_table *table = &step->clip->table;
    void *at[DIP_STEP_REGIONS];
    for (int i = 0; i < DIP_STEP_REGIONS; i++) at[i] = dip_plan_ptr(step->plan, step->regions[i]);
    step->params = (dip_param_set){.table = table,
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
    step->loss = at[LOSS];
    step->log_scale = step->params.master + table->params[step->clip->logit_scale].offset;
    for (int slot = 0; slot < step->n_slots; slot++) bind_inputs(step, at, slot);
    dip_optimizer_bind(&step->optimizer, step->plan);
    DIP_TRY(dip_vision_bind(&step->exec, step->vision_pass, step->plan));
    return dip_text_bind(&step->exec, step->text_pass, step->plan);
}

dip_status dip_step_allocate(dip_step *step)
{
    size_t workspace;
    DIP_TRY(choose_recompute(step));
    DIP_TRY(open_plan(step));
    DIP_TRY(book(step, &workspace));
    DIP_TRY(dip_plan_allocate(step->plan));
    DIP_TRY(dip_exec_reserve(&step->exec, workspace));
    return bind(step);
}
