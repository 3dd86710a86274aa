#include "tools/encoding.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/file.h"
#include "core/log.h"
#include "core/threads.h"
#include "data/caption/caption.h"
#include "data/pattern.h"

enum { SECONDS_BETWEEN_LINES = 10 };

double dip_seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

dip_status dip_encoding_open(dip_model **model, const dip_encoding_flags *flags)
{
    const dip_model_options options = {.device = flags->device,
                                       .precision = flags->precision,
                                       .n_threads = (int)flags->threads,
                                       .max_batch = (int)flags->batch_size,
                                       .use_ema = flags->use_ema};
    return dip_model_open(model, flags->model, &options);
}

dip_status dip_input_check(const char *path)
{
    dip_map map;
    dip_status status = dip_file_map(&map, path);
    dip_file_unmap(&map);
    return status == DIP_IO ? DIP_CONFIG : status;
}

/* ---- data ------------------------------------------------------------------------------ */

dip_status dip_data_open(dip_data *data, const char *pattern, int needs, const char *json_text_key)
{
    *data = (dip_data){0};
    dip_string_list shards = {0};
    DIP_TRY(dip_faults_open(&data->faults));
    dip_status status = dip_pattern_expand_files(&shards, pattern);
    if (status != DIP_OK) return status;
    const dip_samples_options options = {.needs = needs | (json_text_key ? DIP_CAPTION_JSON : 0)};
    status = dip_samples_open(&data->samples, &shards, &options, data->faults);
    dip_string_list_free(&shards);
    if (status != DIP_OK) return status;
    if (json_text_key && !(data->json_text_key = strdup(json_text_key)))
        return dip_fail(DIP_NOMEM, "no memory to read shards");
    return dip_sample_reader_open(&data->reader, data->samples);
}

static dip_status read_caption(dip_data *data, const char **text, size_t *n_bytes,
                               dip_fault_kind *kind, int64_t index)
{
    dip_sample sample;
    DIP_TRY(dip_sample_read(data->reader, &sample, index, DIP_NEEDS_CAPTION, kind));
    *kind = DIP_FAULT_NO_CAPTION;
    if (!sample.caption) return dip_fail(DIP_FORMAT, "no caption member");
    *text = sample.caption;
    *n_bytes = sample.caption_bytes;
    if (!sample.caption_is_json) return DIP_OK;
    free(data->json_text);
    DIP_TRY(dip_caption_from_json(&data->json_text, n_bytes, sample.caption, sample.caption_bytes,
                                  data->json_text_key));
    *text = data->json_text;
    return DIP_OK;
}

dip_status dip_data_caption(dip_data *data, const char **text, size_t *n_bytes, int64_t index)
{
    dip_fault_kind kind;
    dip_status status = read_caption(data, text, n_bytes, &kind, index);
    if (status == DIP_FORMAT) {
        const dip_sample sample = dip_samples_get(data->samples, index);
        const dip_fault_place place = {sample.shard, sample.key, sample.offset};
        dip_faults_add_at(data->faults, kind, &place, dip_error());
    }
    return status;
}

void dip_data_close(dip_data *data)
{
    if (data->faults) dip_faults_print(data->faults, stderr);
    dip_sample_reader_close(data->reader);
    dip_samples_close(data->samples);
    dip_faults_close(data->faults);
    free(data->json_text_key);
    free(data->json_text);
    *data = (dip_data){0};
}

static dip_loader_options loader_options(const dip_data *data, const dip_model *model,
                                         const dip_encoding_flags *flags)
{
    const dip_model_config *config = &dip_model_clip(model)->config;
    return (dip_loader_options){
        .samples = data->samples,
        .faults = data->faults,
        .batch_size = flags->batch_size,
        .image_size = config->vision.image_size,
        .n_workers = flags->workers ? (int)flags->workers : dip_core_count(),
        .n_prefetch = 4,
        .decode = dip_decode_defaults(),
        .max_bad_fraction = 1,
        .filter = config->preprocess.bilinear ? DIP_BILINEAR : DIP_BICUBIC,
        .resize_mode = config->preprocess.squash ? DIP_RESIZE_SQUASH : DIP_RESIZE_SHORTEST,
    };
}

dip_status dip_data_encode_images(const dip_data *data, dip_model *model,
                                  const dip_encoding_flags *flags, dip_encoded_fn *each,
                                  void *context, double *seconds)
{
    const dip_loader_options options = loader_options(data, model, flags);
    int64_t total = dip_samples_count(data->samples), n_done = 0;
    size_t row = (size_t)dip_model_embed_dim(model);
    dip_loader *loader = NULL;
    dip_batch batch;
    dip_status status = DIP_OK;
    double start = dip_seconds_now(), last_line = start;
    float *features = malloc((size_t)flags->batch_size * row * sizeof *features);
    if (!features) {
        status = dip_fail(DIP_NOMEM, "no memory for the features of %lld images",
                          (long long)flags->batch_size);
        goto fail;
    }
    DIP_TRY_GOTO(dip_loader_open(&loader, &options));
    DIP_TRY_GOTO(dip_loader_start(loader, 0, 0, 0));
    while ((status = dip_loader_next(loader, &batch)) == DIP_OK) {
        DIP_TRY_GOTO(dip_model_encode_pixels(model, features, batch.images, (size_t)batch.n));
        DIP_TRY_GOTO(each(context, &batch, features));
        n_done += batch.n;
        double now = dip_seconds_now();
        if (now - last_line > SECONDS_BETWEEN_LINES) {
            dip_info("%lld of %lld images, %.0f a second", (long long)n_done, (long long)total,
                     (double)n_done / (now - start));
            last_line = now;
        }
    }
    if (status == DIP_END) status = DIP_OK;
    if (status == DIP_OK && n_done == 0)
        status =
            dip_fail(DIP_FORMAT, "none of the %lld samples has a usable image", (long long)total);
fail:
    *seconds = dip_seconds_now() - start;
    dip_loader_close(loader);
    free(features);
    return status;
}

/* ---- reports --------------------------------------------------------------------------- */

cJSON *dip_report_new(const dip_model *model)
{
    cJSON *report = cJSON_CreateObject();
    if (!report) return NULL;
    cJSON_AddStringToObject(report, "model", dip_model_folder(model));
    cJSON_AddStringToObject(report, "precision", dip_model_precision(model));
    cJSON_AddBoolToObject(report, "ema", dip_model_is_ema(model));
    return report;
}

static bool is_nested(const cJSON *item)
{
    return cJSON_IsObject(item) || (cJSON_IsArray(item) && cJSON_IsObject(item->child));
}

static size_t widest_key(const cJSON *object, size_t indent)
{
    size_t widest = 0;
    for (const cJSON *item = object->child; item; item = item->next) {
        size_t n = indent + strlen(item->string ? item->string : "-");
        if (is_nested(item)) {
            size_t inner = widest_key(item, indent + 2);
            if (inner > n) n = inner;
        }
        if (n > widest) widest = n;
    }
    return widest;
}

/* Names and captions come from files: nothing in them may steer the terminal. */
static void print_text(const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        putchar(*p < 0x20 || *p == 0x7f ? '?' : *p);
}

static void print_value(const cJSON *value)
{
    char *text;
    if (cJSON_IsString(value)) {
        print_text(value->valuestring);
    } else if (cJSON_IsNumber(value) && value->valuedouble != (double)(int64_t)value->valuedouble) {
        printf("%.6g", value->valuedouble);
    } else if ((text = cJSON_PrintUnformatted(value))) {
        printf("%s", text);
        cJSON_free(text);
    }
}

static void print_object(const cJSON *object, int indent, int width)
{
    for (const cJSON *item = object->child; item; item = item->next) {
        const char *key = item->string ? item->string : "-";
        if (is_nested(item)) {
            printf("%*s", indent, "");
            print_text(key);
            printf("\n");
            print_object(item, indent + 2, width);
        } else {
            printf("%*s", indent, "");
            print_text(key);
            printf("%*s", width - indent - (int)strlen(key) + 2, "");
            print_value(item);
            printf("\n");
        }
    }
}

dip_status dip_report_print(const cJSON *report, bool json)
{
    if (!report) return dip_fail(DIP_NOMEM, "no memory for the report");
    if (!json) {
        print_object(report, 0, (int)widest_key(report, 0));
        return DIP_OK;
    }
    char *text = cJSON_PrintUnformatted(report);
    if (!text) return dip_fail(DIP_NOMEM, "no memory for the report");
    printf("%s\n", text);
    cJSON_free(text);
    return DIP_OK;
}
