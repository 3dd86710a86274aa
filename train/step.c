#include "train/step.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "train/fp8.h"
#include "train/memory.h"

/* ---- life cycle ------------------------------------------------------------------------ */

/* What the device writes to and reads from beside the host. */
static dip_status allocate_host(dip_step *step)
{
    const dip_device *device = step->exec.device;
    const size_t outcomes = DIP_N_SLOTS * sizeof *step->outcomes;
    void *host;
    step->micro_offsets =
        malloc(((size_t)step->options.micro_batch + 1) * sizeof *step->micro_offsets);
    if (!step->micro_offsets)
        return dip_fail(DIP_NOMEM, "no memory for %lld offsets",
                        (long long)step->options.micro_batch);
    DIP_TRY(device->allocate_host(device, &host, outcomes + DIP_N_SLOTS * sizeof *step->rates));
    step->outcomes = host;
    step->rates = (double *)((char *)host + outcomes);
    return DIP_OK;
}

dip_status dip_step_open(dip_step *step, const dip_clip *clip, const dip_step_options *options)
{
    dip_status status;
    *step = (dip_step){
        .clip = clip,
        .options = *options,
        .optimizer = {.hyper = options->optimizer, .logit_scale = clip->logit_scale},
    };
    DIP_TRY_GOTO(dip_exec_open(&step->exec, options->device, options->dtype, options->n_threads));
    step->n_slots = step->exec.device->is_host ? 1 : DIP_N_SLOTS;
    DIP_TRY_GOTO(dip_step_allocate(step));
    if (options->fp8) DIP_TRY_GOTO(dip_step_use_fp8(step));
    DIP_TRY_GOTO(allocate_host(step));
    DIP_TRY_GOTO(dip_optimizer_reset(&step->exec, &step->optimizer, &clip->table));
    return DIP_OK;
fail:
    dip_step_close(step);
    return status;
}

void dip_step_close(dip_step *step)
{
    const dip_device *device = step->exec.device;
    if (device) {
        if (step->n_passes > 0) device->synchronize(&step->exec); /* who knows where it stopped */
        dip_graphs_free(&step->graphs, &step->exec);
        if (step->outcomes) device->release_host(device, step->outcomes);
    }
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

/* ---- time ------------------------------------------------------------------------------ */

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* A part of a step has been called. Where that means that it has run, or somebody wants to know
 * enough to wait: add the milliseconds since the part before. */
static dip_status lap(dip_step *step, dip_flight *flight, double *part_ms)
{
    const dip_device *device = step->exec.device;
    if (!device->is_host && !step->options.time_parts) return DIP_OK;
    DIP_TRY(device->synchronize(&step->exec));
    const double now = now_ms();
    *part_ms += now - flight->mark_ms;
    flight->mark_ms = now;
    return DIP_OK;
}

/* ---- inputs ---------------------------------------------------------------------------- */

/* Pairs first .. first + n - 1 of the batch, images or texts or both, into a slot's buffers. */
static dip_status bring_images(dip_step *step, int slot, const dip_batch *batch, int64_t first,
                               int64_t n, dip_text_copy_fn *copy)
{
    const int64_t side = step->clip->config.vision.image_size, pixels = side * side * 3;
    return copy(&step->exec, step->inputs[slot].images, batch->images + first * pixels,
                (size_t)(n * pixels));
}

static dip_status bring_texts(dip_step *step, int slot, const dip_batch *batch, int64_t first,
                              int64_t n, dip_text_copy_fn *copy)
{
    const int32_t begin = batch->offsets[first];
    for (int64_t i = 0; i <= n; i++) step->micro_offsets[i] = batch->offsets[first + i] - begin;
    return dip_text_stage(&step->exec, &step->clip->text, step->text_pass, &step->inputs[slot].text,
                          slot, batch->tokens + begin, step->micro_offsets, n, copy);
}

/* What the whole step needs lies in the slot of its first micro-batch. */
static dip_status stage_step(dip_step *step, int slot, const dip_batch *batch, double lr)
{
    const dip_device *device = step->exec.device;
    step->rates[slot] = lr;
    DIP_TRY(device->stage(&step->exec, step->inputs[slot].lr, &step->rates[slot], sizeof lr));
    if (step->options.duplicates == DIP_DUP_NEGATIVE) return DIP_OK;
    return device->stage(&step->exec, step->inputs[slot].group, batch->group,
                         (size_t)batch->n * sizeof(int32_t));
}

/* Bring micro-batch i to the next slot, while what was called before is computed. With `lr`: and
 * what the whole step needs. */
static dip_status stage(dip_step *step, int *slot, const dip_batch *batch, int64_t i,
                        const double *lr)
{
    const dip_device *device = step->exec.device;
    const int64_t micro = step->options.micro_batch;
    *slot = (int)(step->n_passes++ % step->n_slots);
    DIP_TRY(device->stage_begin(&step->exec, *slot));
    DIP_TRY(bring_images(step, *slot, batch, i * micro, micro, device->stage));
    DIP_TRY(bring_texts(step, *slot, batch, i * micro, micro, device->stage));
    if (lr) DIP_TRY(stage_step(step, *slot, batch, *lr));
    return device->stage_end(&step->exec, *slot);
}

/* The micro-batch in *slot has been called; go on with micro-batch i. */
static dip_status next(dip_step *step, int *slot, const dip_batch *batch, int64_t i)
{
    DIP_TRY(step->exec.device->step_end(&step->exec, *slot, NULL, NULL, 0));
    return stage(step, slot, batch, i, NULL);
}

/* ---- parts of a step ------------------------------------------------------------------- */

/* Features of n pairs in a slot, which are pairs first .. first + n - 1 of the batch. */
static dip_status image_features(dip_step *step, int slot, int64_t first, int64_t n)
{
    const dip_preprocess *pre = &step->clip->config.preprocess;
    return dip_vision_forward(&step->exec, &step->clip->vision, &step->params, step->vision_pass,
                              step->u + first * step->clip->config.embed_dim,
                              step->inputs[slot].images, n, pre->mean, pre->std);
}

static dip_status text_features(dip_step *step, int slot, int64_t first)
{
    return dip_text_forward(&step->exec, &step->clip->text, &step->params, step->text_pass,
                            step->v + first * step->clip->config.embed_dim,
                            &step->inputs[slot].text);
}

/* Features of the whole batch -> loss and d_u, d_v, d_logit_scale. */
static dip_status loss_and_gradients(dip_step *step, int slot)
{
    const dip_step_options *options = &step->options;
    const bool grouped = options->duplicates != DIP_DUP_NEGATIVE;
    const dip_loss_input in = {.u = step->u,
                               .v = step->v,
                               .batch = options->micro_batch * options->n_micro,
                               .embed = step->clip->config.embed_dim,
                               .group = grouped ? step->inputs[slot].group : NULL,
                               .duplicates = options->duplicates,
                               .log_scale = step->log_scale};
    dip_loss_output out = {.d_u = step->d_u,
                           .d_v = step->d_v,
                           .d_logit_scale = step->d_logit_scale,
                           .stats = step->loss_stats,
                           .loss = step->loss};
    return options->loss->forward_backward(&step->exec, &out, &in);
}

static dip_status backward(dip_step *step, int slot, int64_t first)
{
    const int64_t at = first * step->clip->config.embed_dim;
    dip_exec *exec = &step->exec;
    DIP_TRY(dip_vision_backward(exec, &step->clip->vision, &step->params, step->vision_pass,
                                step->d_u + at));
    return dip_text_backward(exec, &step->clip->text, &step->params, step->text_pass,
                             step->d_v + at, &step->inputs[slot].text);
}

/* Gradients -> parameters; and what is to be said about the step, for step_end to fetch. */
static dip_status update(dip_step *step, int first_slot, int last_slot)
{
    const dip_device *device = step->exec.device;
    dip_exec *exec = &step->exec;
    dip_step_outcome *after = step->inputs[last_slot].after;
    DIP_TRY(dip_optimizer_step(exec, &step->optimizer, &step->params, step->inputs[first_slot].lr,
                               step->loss));
    DIP_TRY(device->copy(exec, &after->update, step->optimizer.update, sizeof after->update));
    return device->copy(exec, &after->log_scale, step->log_scale, sizeof after->log_scale);
}

/* ---- the step -------------------------------------------------------------------------- */

/* From micro-batch 0 in flight->slot to the outcome, which is left in flight->slot. With one
 * micro-batch nothing here but calls of ops, so that they can be recorded. */
static dip_status compute(dip_step *step, dip_flight *flight, const dip_batch *batch)
{
    const int64_t micro = step->options.micro_batch, n_micro = step->options.n_micro;
    const dip_device *device = step->exec.device;
    dip_exec *exec = &step->exec;
    dip_step_times *times = &flight->times;
    int *slot = &flight->slot;
    const int first_slot = *slot;

    /* features of every micro-batch; those of the last stay ready for backward */
    for (int64_t i = 0; i < n_micro; i++) {
        if (i > 0) DIP_TRY(next(step, slot, batch, i));
        DIP_TRY(image_features(step, *slot, i * micro, micro));
        DIP_TRY(lap(step, flight, &times->image_ms));
        DIP_TRY(text_features(step, *slot, i * micro));
        DIP_TRY(lap(step, flight, &times->text_ms));
    }

    DIP_TRY(loss_and_gradients(step, first_slot));
    DIP_TRY(lap(step, flight, &times->loss_ms));

    DIP_TRY(
        device->zero(exec, step->params.grads, (size_t)step->clip->table.n_values * sizeof(float)));
    for (int64_t i = n_micro - 1; i >= 0; i--) {
        if (i < n_micro - 1) {
            DIP_TRY(next(step, slot, batch, i));
            DIP_TRY(image_features(step, *slot, i * micro, micro));
            DIP_TRY(text_features(step, *slot, i * micro));
        }
        DIP_TRY(backward(step, *slot, i * micro));
    }
    DIP_TRY(device->copy(exec, dip_param_grad(&step->params, step->clip->logit_scale),
                         step->d_logit_scale, sizeof(float)));
    DIP_TRY(lap(step, flight, &times->backward_ms));

    DIP_TRY(update(step, first_slot, *slot));
    return lap(step, flight, &times->optimizer_ms);
}

/* Record `compute` of what lies in the flight's slot. */
static dip_status record(dip_step *step, dip_graph **graph, const dip_flight *flight)
{
    const dip_device *device = step->exec.device;
    dip_exec *exec = &step->exec;
    dip_flight recorded = *flight;
    char sentence[1024];
    DIP_TRY(device->capture_begin(exec));
    const dip_status status = compute(step, &recorded, NULL);
    if (status == DIP_OK) return device->capture_end(exec, graph);
    /* Recording has to end all the same, and the first mistake is the one to tell. */
    snprintf(sentence, sizeof sentence, "%s", dip_error());
    if (device->capture_end(exec, graph) == DIP_OK) device->graph_free(exec, *graph);
    *graph = NULL;
    return dip_fail(status, "%s", sentence);
}

static dip_status compute_or_replay(dip_step *step, dip_flight *flight, const dip_batch *batch)
{
    const dip_step_options *options = &step->options;
    const dip_device *device = step->exec.device;
    const int slot = flight->slot;
    dip_graph **graph = NULL;
    if (options->graphs && !options->time_parts && options->n_micro == 1 && device->capture_begin)
        DIP_TRY(dip_graphs_find(&step->graphs, &step->exec, &graph,
                                step->inputs[slot].text.sequences.n_rows, slot));
    if (!graph) return compute(step, flight, batch);
    if (!*graph) DIP_TRY(record(step, graph, flight));
    return device->graph_launch(&step->exec, *graph);
}

dip_status dip_step_submit(dip_step *step, const dip_batch *batch, double lr)
{
    const int64_t pairs = step->options.micro_batch * step->options.n_micro;
    dip_flight flight = {.began_ms = now_ms()};
    if (batch->n != pairs)
        return dip_fail(DIP_CONFIG, "a step planned for %lld pairs was given %lld",
                        (long long)pairs, (long long)batch->n);
    if (dip_step_in_flight(step) >= dip_step_in_flight_limit(step))
        return dip_fail(DIP_CONFIG, "%d steps are on their way; no more can be",
                        dip_step_in_flight(step));
    DIP_TRY(stage(step, &flight.slot, batch, 0, &lr));
    flight.mark_ms = step->exec.device->is_host ? flight.began_ms : now_ms();
    DIP_TRY(compute_or_replay(step, &flight, batch));
    DIP_TRY(step->exec.device->step_end(&step->exec, flight.slot, &step->outcomes[flight.slot],
                                        step->inputs[flight.slot].after, sizeof *step->outcomes));
    step->flights[step->n_submitted++ % DIP_N_SLOTS] = flight;
    return DIP_OK;
}

dip_status dip_step_collect(dip_step *step, dip_step_result *result)
{
    const dip_flight *flight = &step->flights[step->n_collected % DIP_N_SLOTS];
    if (dip_step_in_flight(step) == 0) return dip_fail(DIP_CONFIG, "no step is on its way");
    DIP_TRY(step->exec.device->step_wait(&step->exec, flight->slot));
    const dip_step_outcome *outcome = &step->outcomes[flight->slot];
    const dip_update *applied = &outcome->update;
    const double now = now_ms();
    *result = (dip_step_result){.loss = applied->loss,
                                .grad_norm = isfinite(applied->loss) ? applied->grad_norm : NAN,
                                .logit_scale = exp((double)outcome->log_scale),
                                .applied = applied->applied != 0,
                                .times = flight->times};
    result->times.step_ms = now - fmax(flight->began_ms, step->collected_ms);
    step->collected_ms = now;
    step->n_collected++;
    return DIP_OK;
}

int dip_step_in_flight(const dip_step *step)
{
    return (int)(step->n_submitted - step->n_collected);
}

int dip_step_in_flight_limit(const dip_step *step)
{
    return step->options.time_parts ? 1 : step->n_slots;
}

dip_status dip_step_run(dip_step *step, dip_step_result *result, const dip_batch *batch, double lr)
{
    DIP_TRY(dip_step_submit(step, batch, lr));
    return dip_step_collect(step, result);
}

/* ---- evaluation and figures ------------------------------------------------------------ */

static dip_status encode(dip_step *step, float *u, float *v, const dip_batch *batch)
{
    const size_t bytes = (size_t)(batch->n * step->clip->config.embed_dim) * sizeof(float);
    const dip_device *device = step->exec.device;
    dip_exec *exec = &step->exec;
    if (u) {
        DIP_TRY(bring_images(step, 0, batch, 0, batch->n, device->upload));
        DIP_TRY(image_features(step, 0, 0, batch->n));
        DIP_TRY(device->download(exec, u, step->u, bytes));
    }
    if (v) {
        DIP_TRY(bring_texts(step, 0, batch, 0, batch->n, device->upload));
        DIP_TRY(text_features(step, 0, 0));
        DIP_TRY(device->download(exec, v, step->v, bytes));
    }
    return DIP_OK;
}

dip_status dip_step_encode(dip_step *step, float *u, float *v, const dip_batch *batch)
{
    dip_exec_pause_fp8(&step->exec, true);
    const dip_status status = encode(step, u, v, batch);
    dip_exec_pause_fp8(&step->exec, false);
    return status;
}

double dip_step_flops(const dip_step *step, double mean_length)
{
    const double pairs = (double)(step->options.micro_batch * step->options.n_micro);
    return 3.0 * pairs *
           (dip_vision_flops(&step->clip->vision) + dip_text_flops(&step->clip->text, mean_length));
}
