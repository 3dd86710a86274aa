#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/contact_sheet.h"
#include "tools/encoding.h"
#include "tools/inspect.h"
#include "tools/inspect_view.h"

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

/* ---- captions and labels --------------------------------------------------------------- */

typedef struct survey {
    int64_t n_formats[DIP_N_VIEW_FORMATS];
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

/* A sample's caption, NULL if it has none. */
typedef struct caption {
    const char *text;
    size_t n_bytes;
} caption;

static void show_sample(survey *s, const dip_sample *sample, const dip_view *image,
                        const caption *words)
{
    cJSON *row = cJSON_CreateObject();
    cJSON_AddStringToObject(row, "key", sample->key);
    if (sample->has_image) {
        cJSON_AddStringToObject(row, "format", dip_view_format_name(image->format));
        cJSON_AddNumberToObject(row, "bytes", (double)sample->image_bytes);
        if (image->width) cJSON_AddNumberToObject(row, "width", image->width);
        if (image->width) cJSON_AddNumberToObject(row, "height", image->height);
    }
    excerpt e = {""};
    if (words->text && dip_caption_lines(words->text, words->n_bytes, take_excerpt, &e) > 0)
        cJSON_AddStringToObject(row, "caption", e.text);
    if (sample->label >= 0) cJSON_AddNumberToObject(row, "label", (double)sample->label);
    if (!cJSON_AddItemToArray(s->first, row)) cJSON_Delete(row);
}

static void count_sample(survey *s, const dip_sample *sample, const dip_view *image,
                         const caption *words, dip_faults *faults)
{
    const dip_fault_place place = {sample->shard, sample->key, sample->offset};
    if (sample->has_image) {
        s->n_images++;
        s->n_formats[image->format]++;
        range_add(&s->image_bytes, (int64_t)sample->image_bytes);
    }
    if (image->width) {
        range_add(&s->width, image->width);
        range_add(&s->height, image->height);
    }
    if (image->status != DIP_OK)
        dip_faults_add_at(faults, image->kind, &place, image->reason ? image->reason : "");
    if (words->text) {
        int n = dip_caption_lines(words->text, words->n_bytes, measure_line, s);
        if (n < 0) dip_faults_add_at(faults, DIP_FAULT_CAPTION_UTF8, &place, "not UTF-8");
        if (n == 0) dip_faults_add_at(faults, DIP_FAULT_CAPTION_EMPTY, &place, "no line with text");
        if (n > 0) {
            s->n_captions++;
            if (sample->has_image && image->status == DIP_OK) s->n_pairs++;
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
    for (int i = 0; i < DIP_N_VIEW_FORMATS; i++)
        if (s->n_formats[i])
            cJSON_AddNumberToObject(formats, dip_view_format_name(i), (double)s->n_formats[i]);
    range_report(report, "image_bytes", &s->image_bytes);
    range_report(report, "image_width", &s->width);
    range_report(report, "image_height", &s->height);
    range_report(report, "captions_per_sample", &s->lines);
    range_report(report, "caption_characters", &s->characters);
    report_labels(report, s);
    cJSON_AddItemToObject(report, "first_samples", s->first);
    s->first = NULL;
}

static void report_faults(cJSON *report, const dip_faults *faults)
{
    cJSON *object = cJSON_AddObjectToObject(report, "faults");
    for (dip_fault_kind kind = 0; kind < DIP_N_FAULT_KINDS; kind++)
        if (dip_faults_count(faults, kind) > 0)
            cJSON_AddNumberToObject(object, dip_fault_text(kind),
                                    (double)dip_faults_count(faults, kind));
}

static dip_status add_contact(dip_contact_sheet *sheet, const dip_sample *sample,
                              const dip_view *image, const caption *words)
{
    const dip_contact contact = {
        .shard = sample->shard,
        .key = sample->key,
        .format = sample->has_image ? dip_view_format_name(image->format) : NULL,
        .image_bytes = sample->image_bytes,
        .width = image->width,
        .height = image->height,
        .thumbnail = image->thumbnail,
        .thumbnail_bytes = image->thumbnail_bytes,
        .thumbnail_width = image->thumbnail_width,
        .thumbnail_height = image->thumbnail_height,
        .caption = words->text,
        .caption_bytes = words->n_bytes,
        .label = sample->label,
        .fault = image->reason,
    };
    return dip_contact_sheet_add(sheet, &contact);
}

/* One look at all samples, and where it is told. */
typedef struct inspection {
    const dip_inspect_flags *flags;
    dip_data data;
    dip_contact_sheet *sheet; /* NULL: no page is wanted */
    survey survey;
} inspection;

static dip_status count_view(inspection *in, const dip_view *image, int64_t index)
{
    const dip_sample sample = dip_samples_get(in->data.samples, index);
    caption words = {0};
    if (image->status != DIP_OK && image->status != DIP_FORMAT)
        return dip_fail(image->status, "%s", image->reason ? image->reason : sample.key);
    if (sample.has_caption) {
        dip_status status = dip_data_caption(&in->data, &words.text, &words.n_bytes, index);
        if (status == DIP_FORMAT)
            words.text = NULL; /* it is in the ledger */
        else
            DIP_TRY(status);
    }
    count_sample(&in->survey, &sample, image, &words, in->data.faults);
    if (index < in->flags->first) show_sample(&in->survey, &sample, image, &words);
    if (in->sheet &&
        dip_views_shows(index, dip_samples_count(in->data.samples), in->flags->html_samples))
        return add_contact(in->sheet, &sample, image, &words);
    return DIP_OK;
}

static dip_status look_at_all(inspection *in)
{
    int64_t n = dip_samples_count(in->data.samples);
    int64_t n_shown = in->sheet ? in->flags->html_samples : 0;
    dip_views *views = NULL;
    dip_status status;
    dip_view *view = calloc(CHUNK, sizeof *view);
    in->survey.first = cJSON_CreateArray();
    in->survey.labels = malloc((size_t)n * sizeof *in->survey.labels);
    if (!view || !in->survey.first || !in->survey.labels) {
        status = dip_fail(DIP_NOMEM, "no memory to look at %lld samples", (long long)n);
        goto fail;
    }
    DIP_TRY_GOTO(dip_views_open(&views, in->data.samples, in->flags->decode));
    for (int64_t first = 0; first < n && status == DIP_OK; first += CHUNK) {
        int64_t count = n - first < CHUNK ? n - first : CHUNK;
        dip_views_look(views, view, first, count, n_shown);
        for (int64_t i = 0; i < count; i++) {
            if (status == DIP_OK) status = count_view(in, &view[i], first + i);
            dip_view_clear(&view[i]);
        }
    }
fail:
    dip_views_close(views);
    free(view);
    return status;
}

static dip_status check_flags(const dip_inspect_flags *flags)
{
    if (!flags->decode && (flags->verify || flags->html))
        return dip_fail(DIP_CONFIG, "--no-decode does not go with --%s, which needs the pictures",
                        flags->verify ? "verify" : "html");
    return DIP_OK;
}

/* Before the work, and a mistake in the command if it cannot be written. */
static dip_status open_sheet(inspection *in)
{
    if (!in->flags->html) return DIP_OK;
    dip_status status = dip_contact_sheet_open(&in->sheet, in->flags->html);
    return status == DIP_IO ? DIP_CONFIG : status;
}

static dip_status close_sheet(inspection *in, const cJSON *report)
{
    if (!in->sheet) return DIP_OK;
    dip_contact_sheet *sheet = in->sheet;
    in->sheet = NULL;
    return dip_contact_sheet_close(sheet, in->flags->shards, report, in->data.faults);
}

dip_status dip_inspect_shards(cJSON *report, const dip_inspect_flags *flags)
{
    inspection in = {.flags = flags};
    dip_status status;
    DIP_TRY_GOTO(check_flags(flags));
    DIP_TRY_GOTO(open_sheet(&in));
    DIP_TRY_GOTO(
        dip_data_open(&in.data, flags->shards, DIP_NAMES_INCOMPLETE, flags->json_text_key));
    if (flags->faults) DIP_TRY_GOTO(dip_faults_record(in.data.faults, flags->faults, 0, INT64_MAX));
    cJSON_AddStringToObject(report, "shards", flags->shards);
    if (flags->verify) DIP_TRY_GOTO(dip_inspect_verify(report, in.data.samples, in.data.faults));
    DIP_TRY_GOTO(look_at_all(&in));
    report_survey(report, &in.survey, &in.data);
    if (flags->verify) report_faults(report, in.data.faults);
    DIP_TRY_GOTO(close_sheet(&in, report));
fail:
    dip_contact_sheet_abort(in.sheet);
    free(in.survey.labels);
    cJSON_Delete(in.survey.first);
    dip_data_close(&in.data);
    return status;
}
