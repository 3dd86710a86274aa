#include "train/evaluation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/evaluate.h"

static dip_status add_number(cJSON *metrics, const char *name, double value)
{
    return cJSON_AddNumberToObject(metrics, name, value)
               ? DIP_OK
               : dip_fail(DIP_NOMEM, "no memory for the metric %s", name);
}

static dip_status add_side(cJSON *metrics, const char *direction, const dip_recall_side *side)
{
    char name[64];
    for (int i = 0; i < DIP_N_RECALL_KS; i++) {
        snprintf(name, sizeof name, "%s_R@%d", direction, dip_recall_ks[i]);
        DIP_TRY(add_number(metrics, name, side->recall[i]));
    }
    snprintf(name, sizeof name, "%s_mean_rank", direction);
    DIP_TRY(add_number(metrics, name, side->mean_rank));
    snprintf(name, sizeof name, "%s_median_rank", direction);
    return add_number(metrics, name, (double)side->median_rank);
}

/* Of the n pairs that dip_step_encode left on the device. */
static dip_status loss_of_features(double *loss, dip_step *step, int64_t n)
{
    const dip_loss_input in = {.u = step->u,
                               .v = step->v,
                               .batch = n,
                               .embed = step->clip->config.embed_dim,
                               .log_scale = step->log_scale};
    dip_loss_output out = {.stats = step->loss_stats, .loss = step->loss};
    DIP_TRY(step->options.loss->forward_backward(&step->exec, &out, &in));
    return step->exec.device->download(&step->exec, loss, step->loss, sizeof *loss);
}

dip_status dip_evaluate_pairs(dip_step *step, cJSON *metrics, const dip_loader_options *options)
{
    const int e = step->clip->config.embed_dim;
    const size_t room = (size_t)dip_samples_count(options->samples);
    dip_loader *loader = NULL;
    dip_status status;
    dip_batch batch;
    dip_recall recall;
    double loss = 0, batch_loss;
    int64_t n = 0;
    float *images = malloc(room * (size_t)e * sizeof *images);
    float *texts = malloc(room * (size_t)e * sizeof *texts);
    int64_t *own = malloc(room * sizeof *own);
    if (!images || !texts || !own) {
        status = dip_fail(DIP_NOMEM, "no memory for the features of %zu held-out pairs", room);
        goto fail;
    }
    DIP_TRY_GOTO(dip_loader_open(&loader, options));
    DIP_TRY_GOTO(dip_loader_start(loader, 0, 0, 0));
    while ((status = dip_loader_next(loader, &batch)) == DIP_OK) {
        DIP_TRY_GOTO(dip_step_encode(step, images + n * e, texts + n * e, &batch));
        DIP_TRY_GOTO(loss_of_features(&batch_loss, step, batch.n));
        loss += batch_loss * (double)batch.n;
        n += batch.n;
    }
    if (status != DIP_END) goto fail;
    if (n == 0) {
        status = dip_fail(DIP_FORMAT, "not one of the %zu held-out pairs can be used", room);
        goto fail;
    }
    for (int64_t i = 0; i < n; i++) own[i] = i;
    DIP_TRY_GOTO(dip_recall_compute(&recall, images, n, texts, own, n, e, step->options.n_threads));
    DIP_TRY_GOTO(add_side(metrics, "image_to_text", &recall.image_to_text));
    DIP_TRY_GOTO(add_side(metrics, "text_to_image", &recall.text_to_image));
    DIP_TRY_GOTO(add_number(metrics, "clip_val_loss", loss / (double)n));
    DIP_TRY_GOTO(add_number(metrics, "num_samples", (double)n));
fail:
    dip_loader_close(loader);
    free(images);
    free(texts);
    free(own);
    return status;
}

/* dip_encode_texts_fn over the step's text tower, a micro-batch at a time. */
typedef struct text_encoder {
    dip_step *step;
    const dip_tokenizer *tokenizer;
} text_encoder;

static dip_status encode_texts(void *context, float *features, const char *const *texts, size_t n)
{
    const text_encoder *encoder = context;
    dip_step *step = encoder->step;
    const int length = step->clip->config.text.context_length, e = step->clip->config.embed_dim;
    const size_t micro = (size_t)step->options.micro_batch;
    int32_t *tokens = malloc(micro * (size_t)length * sizeof *tokens);
    int32_t *offsets = malloc((micro + 1) * sizeof *offsets);
    dip_status status = DIP_OK;
    if (!tokens || !offsets) {
        status = dip_fail(DIP_NOMEM, "no memory for the tokens of %zu prompts", micro);
        goto fail;
    }
    for (size_t first = 0; first < n; first += micro) {
        const size_t count = n - first < micro ? n - first : micro;
        offsets[0] = 0;
        for (size_t i = 0; i < count; i++) {
            const char *text = texts[first + i];
            offsets[i + 1] =
                offsets[i] + dip_tokenizer_encode(encoder->tokenizer, tokens + offsets[i], length,
                                                  text, strlen(text), NULL);
        }
        const dip_batch batch = {.n = (int64_t)count, .tokens = tokens, .offsets = offsets};
        DIP_TRY_GOTO(dip_step_encode(step, NULL, features + first * (size_t)e, &batch));
    }
fail:
    free(tokens);
    free(offsets);
    return status;
}

dip_status dip_evaluate_zeroshot(dip_step *step, cJSON *metrics, const dip_loader_options *options,
                                 const dip_tokenizer *tokenizer, const dip_string_list *classnames,
                                 const dip_string_list *templates)
{
    const int e = step->clip->config.embed_dim;
    text_encoder encoder = {step, tokenizer};
    dip_accuracy accuracy = {0};
    dip_loader *loader = NULL;
    dip_status status;
    dip_batch batch;
    float *classifier = malloc(classnames->n_items * (size_t)e * sizeof *classifier);
    float *features = malloc((size_t)step->options.micro_batch * (size_t)e * sizeof *features);
    if (!classifier || !features) {
        status =
            dip_fail(DIP_NOMEM, "no memory for a classifier of %zu classes", classnames->n_items);
        goto fail;
    }
    DIP_TRY_GOTO(
        dip_classifier_build(classifier, classnames, templates, encode_texts, &encoder, e));
    DIP_TRY_GOTO(dip_accuracy_init(&accuracy, classifier, (int64_t)classnames->n_items, e));
    DIP_TRY_GOTO(dip_loader_open(&loader, options));
    DIP_TRY_GOTO(dip_loader_start(loader, 0, 0, 0));
    while ((status = dip_loader_next(loader, &batch)) == DIP_OK) {
        DIP_TRY_GOTO(dip_step_encode(step, features, NULL, &batch));
        DIP_TRY_GOTO(
            dip_accuracy_add(&accuracy, features, batch.labels, batch.n, step->options.n_threads));
    }
    if (status != DIP_END) goto fail;
    const dip_accuracy_scores scores = dip_accuracy_read(&accuracy);
    DIP_TRY_GOTO(add_number(metrics, "zeroshot-val-top1", scores.acc1));
    DIP_TRY_GOTO(add_number(metrics, "zeroshot-val-top5", scores.acc5));
fail:
    dip_loader_close(loader);
    dip_accuracy_free(&accuracy);
    free(classifier);
    free(features);
    return status;
}
