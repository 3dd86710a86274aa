#include "model/model.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/plan.h"
#include "data/image/image.h"
#include "model/folder.h"

enum { DEFAULT_BATCH = 64, MAX_BATCH = 1 << 16, MAX_THREADS = 4096 };

/* What one thread needs to turn a file into pixels. */
typedef struct eye {
    dip_image_decoder *decoder;
    dip_resizer *resizer;
} eye;

struct dip_model {
    char *folder;
    dip_clip clip;
    dip_tokenizer *tokenizer;
    float logit_scale; /* exp of the parameter */
    bool is_ema;

    dip_exec exec;
    dip_plan *plan;
    dip_vision_pass *vision;
    dip_text_pass *text;
    dip_param_set params;
    uint8_t *images; /* device, [max_batch][S][S][3] */
    float *features; /* device, [max_batch][E] */

    size_t max_batch;
    uint8_t *pixels;           /* host, as images */
    int32_t *tokens, *offsets; /* host, [max_batch * context], [max_batch + 1] */
    eye *eyes;                 /* [exec.n_threads] */
};

/* ---- open ------------------------------------------------------------------------------ */

dip_status dip_precision_resolve(dip_dtype *dtype, const char *precision, const char *device)
{
    if (!precision || strcmp(precision, "auto") == 0)
        *dtype = dip_device_has_fast_bf16(device ? device : "auto") ? DIP_BF16 : DIP_F32;
    else if (strcmp(precision, "bf16") == 0)
        *dtype = DIP_BF16;
    else if (strcmp(precision, "fp32") == 0)
        *dtype = DIP_F32;
    else
        return dip_fail(DIP_CONFIG, "precision '%s' is none of auto, bf16, fp32", precision);
    return DIP_OK;
}

static dip_status check_options(const dip_model_options *options)
{
    if (options->max_batch < 0 || options->max_batch > MAX_BATCH)
        return dip_fail(DIP_CONFIG, "max_batch is %d; it may be 0 to %d", options->max_batch,
                        MAX_BATCH);
    if (options->n_threads < 0 || options->n_threads > MAX_THREADS)
        return dip_fail(DIP_CONFIG, "n_threads is %d; it may be 0 to %d", options->n_threads,
                        MAX_THREADS);
    return options->device ? dip_device_check_name(options->device) : DIP_OK;
}

static void *device_allocate(void *context, size_t n_bytes)
{
    const dip_device *device = context;
    void *pointer = NULL;
    return device->allocate(device, &pointer, n_bytes) == DIP_OK ? pointer : NULL;
}

static void device_release(void *context, void *pointer)
{
    const dip_device *device = context;
    device->release(device, pointer);
}

/* All memory of the device, in one plan. The towers never run at the same time: they share their
 * scratch. */
static dip_status plan_memory(dip_model *model, size_t *workspace_bytes)
{
    const dip_clip *clip = &model->clip;
    const dip_device *device = model->exec.device;
    const dip_memory_source source = {device_allocate, device_release, (void *)device,
                                      device->alignment, device->is_host};
    size_t size = (size_t)clip->config.vision.image_size;
    int64_t n = (int64_t)model->max_batch;
    DIP_TRY(dip_plan_init(&model->plan, &source));
    dip_region values =
        dip_plan_book(model->plan, "parameters", DIP_SPACE_PARAM,
                      (size_t)clip->table.n_values * dip_dtype_bytes(model->params.dtype));
    dip_region images =
        dip_plan_book(model->plan, "images", DIP_SPACE_SAVED, model->max_batch * size * size * 3);
    dip_region features =
        dip_plan_book(model->plan, "features", DIP_SPACE_SAVED,
                      model->max_batch * (size_t)clip->config.embed_dim * sizeof(float));
    size_t mark = dip_plan_mark(model->plan);
    DIP_TRY(dip_vision_plan(&model->vision, &clip->vision, model->plan, &model->exec, n,
                            (dip_pass_options){0}, workspace_bytes));
    dip_plan_release(model->plan, mark);
    DIP_TRY(dip_text_plan(&model->text, &clip->text, model->plan, &model->exec, n,
                          (dip_text_options){0}, workspace_bytes));
    DIP_TRY(dip_plan_allocate(model->plan));
    DIP_TRY(dip_vision_bind(&model->exec, model->vision, model->plan));
    DIP_TRY(dip_text_bind(&model->exec, model->text, model->plan));
    model->params.table = &clip->table;
    model->params.values = dip_plan_ptr(model->plan, values);
    model->images = dip_plan_ptr(model->plan, images);
    model->features = dip_plan_ptr(model->plan, features);
    return dip_exec_reserve(&model->exec, *workspace_bytes);
}

/* Host floats to the device, in its number format. */
static dip_status upload_weights(dip_model *model, const float *values)
{
    dip_exec *exec = &model->exec;
    const dip_device *device = exec->device;
    int64_t n = model->clip.table.n_values;
    size_t n_bytes = (size_t)n * sizeof *values;
    if (model->params.dtype == DIP_F32) {
        model->params.master = model->params.values;
        return device->upload(exec, model->params.values, values, n_bytes);
    }
    void *master = NULL;
    DIP_TRY(device->allocate(device, &master, n_bytes));
    dip_status status = device->upload(exec, master, values, n_bytes);
    if (status == DIP_OK)
        status = exec->ops->cast_from_float(exec, model->params.values, master, n);
    if (status == DIP_OK) status = device->synchronize(exec); /* before `master` goes */
    device->release(device, master);
    return status;
}

static dip_status allocate_host(dip_model *model)
{
    const dip_model_config *config = &model->clip.config;
    size_t size = (size_t)config->vision.image_size;
    size_t context = (size_t)config->text.context_length;
    if (model->max_batch > INT32_MAX / context)
        return dip_fail(DIP_CONFIG,
                        "max_batch is %zu; with %zu tokens a text it may be at most %zu",
                        model->max_batch, context, INT32_MAX / context);
    model->pixels = malloc(model->max_batch * size * size * 3);
    model->tokens = malloc(model->max_batch * context * sizeof *model->tokens);
    model->offsets = malloc((model->max_batch + 1) * sizeof *model->offsets);
    model->eyes = calloc((size_t)model->exec.n_threads, sizeof *model->eyes);
    if (!model->pixels || !model->tokens || !model->offsets || !model->eyes)
        return dip_fail(DIP_NOMEM, "no memory for batches of %zu images or texts",
                        model->max_batch);
    for (int i = 0; i < model->exec.n_threads; i++) {
        DIP_TRY(dip_image_decoder_open(&model->eyes[i].decoder, DIP_MAX_IMAGE_PIXELS));
        DIP_TRY(dip_resizer_open(&model->eyes[i].resizer));
    }
    return DIP_OK;
}

dip_status dip_model_open(dip_model **out, const char *path, const dip_model_options *options)
{
    static const dip_model_options defaults = {0};
    if (!options) options = &defaults;
    *out = NULL;
    DIP_TRY(check_options(options));

    dip_status status;
    float *values = NULL;
    dip_dtype dtype;
    size_t workspace_bytes = 0;
    dip_model *model = calloc(1, sizeof *model);
    if (!model) return dip_fail(DIP_NOMEM, "no memory for a model");
    model->is_ema = options->use_ema != 0;
    model->max_batch = options->max_batch ? (size_t)options->max_batch : DEFAULT_BATCH;

    DIP_TRY_GOTO(dip_precision_resolve(&dtype, options->precision, options->device));
    model->params.dtype = dtype;
    DIP_TRY_GOTO(dip_folder_find(&model->folder, path));
    DIP_TRY_GOTO(dip_folder_read(&model->clip, &values, model->folder, model->is_ema));
    DIP_TRY_GOTO(dip_folder_tokenizer(&model->tokenizer, &model->clip, model->folder));
    model->logit_scale = expf(values[model->clip.table.params[model->clip.logit_scale].offset]);

    DIP_TRY_GOTO(dip_exec_open(&model->exec, options->device ? options->device : "auto", dtype,
                               options->n_threads));
    DIP_TRY_GOTO(plan_memory(model, &workspace_bytes));
    DIP_TRY_GOTO(upload_weights(model, values));
    DIP_TRY_GOTO(allocate_host(model));
    free(values);
    *out = model;
    return DIP_OK;
fail:
    free(values);
    dip_model_close(model);
    return status;
}

void dip_model_close(dip_model *model)
{
    if (!model) return;
    for (int i = 0; model->eyes && i < model->exec.n_threads; i++) {
        dip_image_decoder_close(model->eyes[i].decoder);
        dip_resizer_close(model->eyes[i].resizer);
    }
    free(model->eyes);
    free(model->offsets);
    free(model->tokens);
    free(model->pixels);
    dip_text_pass_free(model->text);
    dip_vision_pass_free(model->vision);
    dip_plan_free(model->plan);
    dip_exec_close(&model->exec);
    dip_tokenizer_close(model->tokenizer);
    dip_clip_free(&model->clip);
    free(model->folder);
    free(model);
}

/* ---- queries --------------------------------------------------------------------------- */

int dip_model_embed_dim(const dip_model *model)
{
    return model->clip.config.embed_dim;
}
int dip_model_image_size(const dip_model *model)
{
    return model->clip.config.vision.image_size;
}

int dip_model_context_length(const dip_model *model)
{
    return model->clip.config.text.context_length;
}

float dip_model_logit_scale(const dip_model *model)
{
    return model->logit_scale;
}

const char *dip_model_precision(const dip_model *model)
{
    return dip_dtype_name(model->params.dtype);
}

const dip_clip *dip_model_clip(const dip_model *model)
{
    return &model->clip;
}
const dip_tokenizer *dip_model_tokenizer(const dip_model *model)
{
    return model->tokenizer;
}
const char *dip_model_folder(const dip_model *model)
{
    return model->folder;
}
bool dip_model_is_ema(const dip_model *model)
{
    return model->is_ema;
}

/* ---- images ---------------------------------------------------------------------------- */

/* At most max_batch images of the right size. */
static dip_status encode_pixel_batch(dip_model *model, float *features, const uint8_t *rgb,
                                     size_t n)
{
    const dip_model_config *config = &model->clip.config;
    const dip_device *device = model->exec.device;
    size_t size = (size_t)config->vision.image_size;
    DIP_TRY(device->upload(&model->exec, model->images, rgb, n * size * size * 3));
    DIP_TRY(dip_vision_forward(&model->exec, &model->clip.vision, &model->params, model->vision,
                               model->features, model->images, (int64_t)n, config->preprocess.mean,
                               config->preprocess.std));
    return device->download(&model->exec, features, model->features,
                            n * (size_t)config->embed_dim * sizeof *features);
}

dip_status dip_model_encode_pixels(dip_model *model, float *features, const uint8_t *rgb, size_t n)
{
    size_t size = (size_t)dip_model_image_size(model), row = (size_t)dip_model_embed_dim(model);
    for (size_t first = 0; first < n; first += model->max_batch) {
        size_t count = n - first < model->max_batch ? n - first : model->max_batch;
        DIP_TRY(encode_pixel_batch(model, features + first * row, rgb + first * size * size * 3,
                                   count));
    }
    return DIP_OK;
}

/* Compressed images: files, or bytes in memory when paths is NULL. */
typedef struct pictures {
    const char *const *paths;
    const void *const *data;
    const size_t *n_bytes;
} pictures;

static dip_status decode_bytes(const dip_model *model, const eye *mine, uint8_t *out,
                               const void *data, size_t n_bytes)
{
    const dip_preprocess *how = &model->clip.config.preprocess;
    int width, height;
    dip_fault_kind kind;
    DIP_TRY(dip_image_start(mine->decoder, &width, &height, &kind, data, n_bytes));
    return dip_image_cut_for_eval(mine->decoder, mine->resizer, out,
                                  model->clip.config.vision.image_size, &kind,
                                  how->squash ? DIP_RESIZE_SQUASH : DIP_RESIZE_SHORTEST,
                                  how->bilinear ? DIP_BILINEAR : DIP_BICUBIC);
}

static dip_status decode_picture(const dip_model *model, const eye *mine, uint8_t *out,
                                 const pictures *in, size_t i)
{
    if (!in->paths) {
        dip_status status = in->data[i]
                                ? decode_bytes(model, mine, out, in->data[i], in->n_bytes[i])
                                : dip_fail(DIP_FORMAT, "there is no data");
        return status == DIP_OK ? status : dip_fail_prefix(status, "image %zu: ", i);
    }
    if (!in->paths[i]) return dip_fail(DIP_CONFIG, "image %zu: the path is NULL", i);
    dip_map map;
    DIP_TRY(dip_file_map(&map, in->paths[i]));
    dip_status status = decode_bytes(model, mine, out, map.data, map.n_bytes);
    dip_file_unmap(&map);
    return status == DIP_OK ? status : dip_fail_prefix(status, "%s: ", in->paths[i]);
}

/* Pictures first .. first + n - 1 into the pixel buffer, every thread with its own eye. Of several
 * that fail the first is reported, whichever thread met it when. */
static dip_status decode_batch(dip_model *model, const pictures *in, size_t first, size_t n)
{
    size_t size = (size_t)dip_model_image_size(model), failed_at = n;
    dip_status failure = DIP_OK;
    char reason[2048] = "";
#pragma omp parallel num_threads(model->exec.n_threads)
    {
        const eye *mine = &model->eyes[omp_get_thread_num()];
#pragma omp for schedule(dynamic)
        for (size_t i = 0; i < n; i++) {
            dip_status status =
                decode_picture(model, mine, model->pixels + i * size * size * 3, in, first + i);
            if (status == DIP_OK) continue;
#pragma omp critical(dip_model_failure)
            if (i < failed_at) {
                failed_at = i;
                failure = status;
                snprintf(reason, sizeof reason, "%s", dip_error());
            }
        }
    }
    return failure == DIP_OK ? DIP_OK : dip_fail(failure, "%s", reason);
}

static dip_status encode_pictures(dip_model *model, float *features, const pictures *in, size_t n)
{
    size_t row = (size_t)dip_model_embed_dim(model);
    for (size_t first = 0; first < n; first += model->max_batch) {
        size_t count = n - first < model->max_batch ? n - first : model->max_batch;
        DIP_TRY(decode_batch(model, in, first, count));
        DIP_TRY(encode_pixel_batch(model, features + first * row, model->pixels, count));
    }
    return DIP_OK;
}

dip_status dip_model_encode_image_files(dip_model *model, float *features, const char *const *paths,
                                        size_t n)
{
    return encode_pictures(model, features, &(pictures){.paths = paths}, n);
}

dip_status dip_model_encode_images(dip_model *model, float *features, const void *const *data,
                                   const size_t *n_bytes, size_t n)
{
    return encode_pictures(model, features, &(pictures){.data = data, .n_bytes = n_bytes}, n);
}

/* ---- texts ----------------------------------------------------------------------------- */

/* At most max_batch sequences; offsets begin at 0. */
static dip_status encode_token_batch(dip_model *model, float *features, const int32_t *tokens,
                                     const int32_t *offsets, size_t n)
{
    const dip_device *device = model->exec.device;
    dip_text_input input;
    DIP_TRY(dip_text_stage(&model->exec, &model->clip.text, model->text, &input, 0, tokens, offsets,
                           (int64_t)n, device->upload));
    DIP_TRY(dip_text_forward(&model->exec, &model->clip.text, &model->params, model->text,
                             model->features, &input));
    return device->download(&model->exec, features, model->features,
                            n * (size_t)dip_model_embed_dim(model) * sizeof *features);
}

dip_status dip_model_encode_captions(dip_model *model, float *features, const char *const *texts,
                                     const size_t *lengths, size_t n)
{
    size_t row = (size_t)dip_model_embed_dim(model);
    int context = dip_model_context_length(model);
    for (size_t first = 0; first < n; first += model->max_batch) {
        size_t count = n - first < model->max_batch ? n - first : model->max_batch;
        model->offsets[0] = 0;
        for (size_t i = 0; i < count; i++) {
            const char *text = texts[first + i];
            if (!text) return dip_fail(DIP_CONFIG, "text %zu is NULL", first + i);
            int32_t *out = model->tokens + model->offsets[i];
            model->offsets[i + 1] =
                model->offsets[i] +
                dip_tokenizer_encode(model->tokenizer, out, context, text,
                                     lengths ? lengths[first + i] : strlen(text), NULL);
        }
        DIP_TRY(encode_token_batch(model, features + first * row, model->tokens, model->offsets,
                                   count));
    }
    return DIP_OK;
}

dip_status dip_model_encode_texts(dip_model *model, float *features, const char *const *texts,
                                  size_t n)
{
    return dip_model_encode_captions(model, features, texts, NULL, n);
}

/* Lengths and the end of text, over the caller's whole batch, before anything is computed; ids
 * and contexts are the tower's to check. */
static dip_status check_sequences(const dip_model *model, const int32_t *tokens,
                                  const int32_t *offsets, size_t n)
{
    int eos = dip_tokenizer_eos(model->tokenizer), context = dip_model_context_length(model);
    if (offsets[0] != 0)
        return dip_fail(DIP_FORMAT, "offsets begin with %d, not 0", (int)offsets[0]);
    for (size_t i = 0; i < n; i++) {
        int64_t length = (int64_t)offsets[i + 1] - offsets[i];
        if (length < 1 || length > context)
            return dip_fail(DIP_FORMAT, "sequence %zu has %lld tokens; the model takes 1 to %d", i,
                            (long long)length, context);
        for (int64_t j = 0; j < length; j++)
            if ((tokens[offsets[i] + j] == eos) != (j == length - 1))
                return dip_fail(DIP_FORMAT,
                                "sequence %zu: token %lld is %d; the end of text, %d, must be the "
                                "last token and no other",
                                i, (long long)j, (int)tokens[offsets[i] + j], eos);
    }
    return DIP_OK;
}

dip_status dip_model_encode_tokens(dip_model *model, float *features, const int32_t *tokens,
                                   const int32_t *offsets, size_t n)
{
    if (n == 0) return DIP_OK;
    DIP_TRY(check_sequences(model, tokens, offsets, n));
    size_t row = (size_t)dip_model_embed_dim(model);
    for (size_t first = 0; first < n; first += model->max_batch) {
        size_t count = n - first < model->max_batch ? n - first : model->max_batch;
        for (size_t i = 0; i <= count; i++) model->offsets[i] = offsets[first + i] - offsets[first];
        DIP_TRY(encode_token_batch(model, features + first * row, tokens + offsets[first],
                                   model->offsets, count));
    }
    return DIP_OK;
}
