#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/threads.h"
#include "data/image.h"
#include "tools/encoding.h"
#include "tools/inspect.h"

enum { CHUNK = 4096, MAX_LABELS_SHOWN = 1000, MAX_CAPTION_SHOWN = 200 };

/* Smallest, largest and mean of what was added. */
typedef struct range {
    int64_t n, min, max;
    double sum;
} range;

static void range_add(range *r, int64_t value)
{
    if (r->n == 0 || value < r->min) r->min = value;
    if (r->n == 0 || value > r->max) r->max = value;
    r->sum += (double)value;
    r->n++;
}

static void range_report(cJSON *report, const char *name, const range *r)
{
    if (r->n == 0) return;
    cJSON *object = cJSON_AddObjectToObject(report, name);
    cJSON_AddNumberToObject(object, "min", (double)r->min);
    cJSON_AddNumberToObject(object, "mean", r->sum / (double)r->n);
    cJSON_AddNumberToObject(object, "max", (double)r->max);
}

/* ---- images ---------------------------------------------------------------------------- */

typedef enum format { JPEG, PNG, GIF, WEBP, OTHER, N_FORMATS } format;
static const char *const format_names[N_FORMATS] = {"JPEG", "PNG", "GIF", "WebP", "other"};

static format format_of(const dip_sample *sample)
{
    const uint8_t *p = sample->image;
    size_t n = sample->image_bytes;
    if (n >= 3 && memcmp(p, "\xff\xd8\xff", 3) == 0) return JPEG;
    if (n >= 8 && memcmp(p, "\x89PNG\r\n\x1a\n", 8) == 0) return PNG;
    if (n >= 4 && memcmp(p, "GIF8", 4) == 0) return GIF;
    if (n >= 12 && memcmp(p, "RIFF", 4) == 0 && memcmp(p + 8, "WEBP", 4) == 0) return WEBP;
    return OTHER;
}

/* What decoding one image gave. */
typedef struct outcome {
    int width, height; /* 0: not decoded */
    dip_status status; /* DIP_FORMAT is the image's failure, any other the machine's */
    dip_fault_kind kind;
    char *reason; /* of a failure; malloc'd */
} outcome;

static void decode(outcome *out, dip_image_decoder *decoder, const dip_sample *sample)
{
    dip_image image;
    *out = (outcome){0};
    out->status = dip_image_decode(decoder, &image, &out->kind, sample->image, sample->image_bytes);
    if (out->status == DIP_OK) {
        out->width = image.width;
        out->height = image.height;
    } else {
        out->reason = strdup(dip_error());
    }
}

/* Decode samples first .. first + n - 1, whoever is free taking the next; the results lie in
 * order, so that the ledger reads the same every time. */
static void decode_chunk(outcome *outcomes, dip_image_decoder *const *decoders, int n_threads,
                         const dip_samples *samples, int64_t first, int64_t n)
{
#pragma omp parallel for schedule(dynamic, 16) num_threads(n_threads)
    for (int64_t i = 0; i < n; i++) {
        dip_sample sample = dip_samples_get(samples, first + i);
        outcomes[i] = (outcome){0};
        if (sample.image) decode(&outcomes[i], decoders[omp_get_thread_num()], &sample);
    }
}

/* ---- captions and labels --------------------------------------------------------------- */

typedef struct survey {
    int64_t n_formats[N_FORMATS];
    int64_t n_images, n_captions, n_labels, n_pairs;
    range image_bytes, width, height, lines, characters;
    int64_t *labels;
    cJSON *first;
    int64_t n_first;
} survey;

static int measure_line(void *context, const char *line, size_t n)
{
    survey *s = context;
    int64_t n_characters = 0;
    for (size_t i = 0; i < n; i++) n_characters += ((unsigned char)line[i] & 0xc0) != 0x80;
    range_add(&s->characters, n_characters);
    return 0;
}

typedef struct excerpt {
    char text[4 * MAX_CAPTION_SHOWN + 1];
} excerpt;

/* The first line, cut between characters. A NUL would end it and other control characters, of
 * one byte or of U+0080..U+009F, could move the cursor: their bytes are written \xHH. */
static int take_excerpt(void *context, const char *line, size_t n)
{
    excerpt *e = context;
    size_t keep = n < MAX_CAPTION_SHOWN ? n : MAX_CAPTION_SHOWN;
    while (keep < n && keep > 0 && ((unsigned char)line[keep] & 0xc0) == 0x80) keep--;
    size_t at = 0;
    bool second = false; /* of a control character of two bytes */
    for (size_t i = 0; i < keep; i++) {
        unsigned char c = (unsigned char)line[i];
        bool first = c == 0xc2 && i + 1 < keep && (unsigned char)line[i + 1] < 0xa0;
        if (c < 0x20 || c == 0x7f || first || second)
            at += (size_t)snprintf(e->text + at, sizeof e->text - at, "\\x%02x", c);
        else
            e->text[at++] = (char)c;
        second = first;
    }
    e->text[at] = '\0';
    return 1;
}

static void show_sample(survey *s, const dip_sample *sample, const outcome *image)
{
    cJSON *row = cJSON_CreateObject();
    cJSON_AddStringToObject(row, "key", sample->key);
    if (sample->image) {
        cJSON_AddStringToObject(row, "format", format_names[format_of(sample)]);
        cJSON_AddNumberToObject(row, "bytes", (double)sample->image_bytes);
        if (image->width) cJSON_AddNumberToObject(row, "width", image->width);
        if (image->width) cJSON_AddNumberToObject(row, "height", image->height);
    }
    excerpt e = {""};
    if (sample->caption &&
        dip_caption_lines(sample->caption, sample->caption_bytes, take_excerpt, &e) > 0)
        cJSON_AddStringToObject(row, "caption", e.text);
    if (sample->label >= 0) cJSON_AddNumberToObject(row, "label", (double)sample->label);
    if (!cJSON_AddItemToArray(s->first, row)) cJSON_Delete(row);
}

static void count_sample(survey *s, const dip_sample *sample, const outcome *image,
                         dip_faults *faults)
{
    char where[1024];
    dip_sample_where(sample, where, sizeof where);
    if (sample->image) {
        s->n_images++;
        s->n_formats[format_of(sample)]++;
        range_add(&s->image_bytes, (int64_t)sample->image_bytes);
    }
    if (image->width) {
        range_add(&s->width, image->width);
        range_add(&s->height, image->height);
    }
    if (image->status != DIP_OK)
        dip_faults_add(faults, image->kind, where, image->reason ? image->reason : "");
    if (sample->caption) {
        int n = dip_caption_lines(sample->caption, sample->caption_bytes, measure_line, s);
        if (n < 0) dip_faults_add(faults, DIP_FAULT_CAPTION_UTF8, where, "not UTF-8");
        if (n == 0) dip_faults_add(faults, DIP_FAULT_CAPTION_EMPTY, where, "no line with text");
        if (n > 0) {
            s->n_captions++;
            if (sample->image && image->status == DIP_OK) s->n_pairs++;
            range_add(&s->lines, n);
        }
    }
    if (sample->label >= 0) s->labels[s->n_labels++] = sample->label;
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void report_labels(cJSON *report, survey *s)
{
    if (s->n_labels == 0) return;
    qsort(s->labels, (size_t)s->n_labels, sizeof *s->labels, by_value);
    cJSON *object = cJSON_AddObjectToObject(report, "labels");
    int64_t n_distinct = 0;
    for (int64_t i = 0, next; i < s->n_labels; i = next) {
        for (next = i; next < s->n_labels && s->labels[next] == s->labels[i];) next++;
        if (n_distinct++ >= MAX_LABELS_SHOWN) continue;
        char name[32];
        snprintf(name, sizeof name, "%lld", (long long)s->labels[i]);
        cJSON_AddNumberToObject(object, name, (double)(next - i));
    }
    cJSON_AddNumberToObject(report, "n_labels", (double)n_distinct);
}

static void report_survey(cJSON *report, survey *s, const dip_data *data)
{
    cJSON_AddNumberToObject(report, "n_samples", (double)dip_samples_count(data->samples));
    cJSON_AddNumberToObject(report, "n_images", (double)s->n_images);
    cJSON_AddNumberToObject(report, "n_captioned", (double)s->n_captions);
    cJSON_AddNumberToObject(report, "n_pairs", (double)s->n_pairs);
    cJSON_AddNumberToObject(report, "n_labelled", (double)s->n_labels);
    cJSON_AddNumberToObject(report, "dropped", (double)dip_faults_total(data->faults));
    cJSON *formats = cJSON_AddObjectToObject(report, "image_formats");
    for (int i = 0; i < N_FORMATS; i++)
        if (s->n_formats[i])
            cJSON_AddNumberToObject(formats, format_names[i], (double)s->n_formats[i]);
    range_report(report, "image_bytes", &s->image_bytes);
    range_report(report, "image_width", &s->width);
    range_report(report, "image_height", &s->height);
    range_report(report, "captions_per_sample", &s->lines);
    range_report(report, "caption_characters", &s->characters);
    report_labels(report, s);
    cJSON_AddItemToObject(report, "first_samples", s->first);
    s->first = NULL;
}

/* Count the decoded samples first .. first + n - 1; takes the outcomes' reasons. */
static dip_status count_chunk(survey *s, outcome *outcomes, const dip_data *data, int64_t first,
                              int64_t n, int64_t n_shown)
{
    dip_status status = DIP_OK;
    for (int64_t i = 0; i < n; i++) {
        outcome *image = &outcomes[i];
        dip_sample sample = dip_samples_get(data->samples, first + i);
        if (image->status != DIP_OK && image->status != DIP_FORMAT && status == DIP_OK)
            status = dip_fail(image->status, "%s", image->reason ? image->reason : sample.key);
        if (status == DIP_OK) count_sample(s, &sample, image, data->faults);
        if (status == DIP_OK && first + i < n_shown) show_sample(s, &sample, image);
        free(image->reason);
        *image = (outcome){0};
    }
    return status;
}

dip_status dip_inspect_shards(cJSON *report, const dip_inspect_flags *flags)
{
    int n_threads = dip_core_count();
    dip_data data = {0};
    survey s = {.first = cJSON_CreateArray()};
    dip_status status;
    dip_image_decoder **decoders = calloc((size_t)n_threads, sizeof *decoders);
    outcome *outcomes = calloc(CHUNK, sizeof *outcomes);
    if (!decoders || !outcomes || !s.first) goto nomem;
    DIP_TRY_GOTO(dip_data_open(&data, flags->shards, DIP_NAMES_INCOMPLETE, flags->json_text_key));
    for (int i = 0; i < n_threads; i++)
        DIP_TRY_GOTO(dip_image_decoder_open(&decoders[i], DIP_MAX_IMAGE_PIXELS));
    int64_t n = dip_samples_count(data.samples);
    s.labels = malloc((size_t)n * sizeof *s.labels);
    if (!s.labels) goto nomem;
    for (int64_t first = 0; first < n; first += CHUNK) {
        int64_t count = n - first < CHUNK ? n - first : CHUNK;
        if (flags->decode) decode_chunk(outcomes, decoders, n_threads, data.samples, first, count);
        DIP_TRY_GOTO(count_chunk(&s, outcomes, &data, first, count, flags->first));
    }
    cJSON_AddStringToObject(report, "shards", flags->shards);
    report_survey(report, &s, &data);
    status = DIP_OK;
    goto fail;
nomem:
    status = dip_fail(DIP_NOMEM, "no memory to look at %s", flags->shards);
fail:
    for (int i = 0; decoders && i < n_threads; i++) dip_image_decoder_close(decoders[i]);
    free(decoders);
    free(outcomes);
    free(s.labels);
    cJSON_Delete(s.first);
    dip_data_close(&data);
    return status;
}
