#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/evaluate.h"
#include "tools/command.h"
#include "tools/encoding.h"

typedef struct recall_flags {
    dip_encoding_flags encoding;
    char *data, *json_text_key;
} recall_flags;

static const dip_option options[] = {
    DIP_ENCODING_OPTIONS(recall_flags, encoding),
    {"data", DIP_OPT_STRING, offsetof(recall_flags, data), NULL, 0, 0, NULL, true, "PATTERN",
     "Shards of images and captions. Every non-empty line of a caption is one caption."},
    {"json-text-key", DIP_OPT_STRING, offsetof(recall_flags, json_text_key), NULL, 0, 0, NULL,
     false, "KEY", "Take captions from this key of the .json members, not from .txt."},
};
static const dip_option_table table = {options, sizeof options / sizeof *options, false};

/* Features of all images and captions, and the captions themselves (malloc'd), as they come. */
typedef struct gathering {
    dip_model *model;
    dip_data *data;
    size_t row; /* E */
    float *images;
    int64_t n_images, images_capacity;
    float *texts;
    char **lines;
    size_t *lengths;
    int64_t *text_image;
    int64_t n_texts, texts_capacity;
    bool out_of_memory;
} gathering;

static bool grow_texts(gathering *g)
{
    size_t n = g->texts_capacity ? 2 * (size_t)g->texts_capacity : 1024;
    float *texts = realloc(g->texts, n * g->row * sizeof *texts);
    if (texts) g->texts = texts;
    char **lines = realloc(g->lines, n * sizeof *lines);
    if (lines) g->lines = lines;
    size_t *lengths = realloc(g->lengths, n * sizeof *lengths);
    if (lengths) g->lengths = lengths;
    int64_t *text_image = realloc(g->text_image, n * sizeof *text_image);
    if (text_image) g->text_image = text_image;
    if (!texts || !lines || !lengths || !text_image) return false;
    g->texts_capacity = (int64_t)n;
    return true;
}

static int add_line(void *context, const char *line, size_t n)
{
    gathering *g = context;
    bool room = g->n_texts < g->texts_capacity || grow_texts(g);
    char *copy = room ? malloc(n + 1) : NULL;
    if (!copy) {
        g->out_of_memory = true;
        return 1;
    }
    memcpy(copy, line, n);
    g->lines[g->n_texts] = copy;
    g->lengths[g->n_texts] = n;
    g->text_image[g->n_texts++] = g->n_images;
    return 0;
}

/* The captions of one sample. DIP_FORMAT: it has none and is no part of the test. */
static dip_status add_captions(gathering *g, int64_t index)
{
    const char *text;
    size_t n_bytes;
    DIP_TRY(dip_data_caption(g->data, &text, &n_bytes, index));
    int n = dip_caption_lines(text, n_bytes, add_line, g);
    if (g->out_of_memory) return DIP_NOMEM;
    if (n > 0) return DIP_OK;
    const dip_sample sample = dip_samples_get(g->data->samples, index);
    char where[1024];
    dip_sample_where(&sample, where, sizeof where);
    if (n < 0)
        dip_faults_add(g->data->faults, DIP_FAULT_CAPTION_UTF8, where, "no text of it is used");
    else
        dip_faults_add(g->data->faults, DIP_FAULT_CAPTION_EMPTY, where, "no line with text");
    return DIP_FORMAT;
}

static dip_status gather(void *context, const dip_batch *batch, const float *features)
{
    gathering *g = context;
    if (g->images_capacity < g->n_images + batch->n) {
        int64_t capacity = 2 * g->images_capacity + batch->n;
        float *images = realloc(g->images, (size_t)capacity * g->row * sizeof *images);
        if (!images) goto nomem;
        g->images = images;
        g->images_capacity = capacity;
    }
    int64_t first_text = g->n_texts;
    for (int64_t i = 0; i < batch->n; i++) {
        dip_status status = add_captions(g, batch->index[i]);
        if (g->out_of_memory) goto nomem;
        if (status == DIP_FORMAT) continue;
        if (status != DIP_OK) return status;
        memcpy(g->images + (size_t)g->n_images * g->row, features + (size_t)i * g->row,
               g->row * sizeof *features);
        g->n_images++;
    }
    if (g->n_texts == first_text) return DIP_OK;
    return dip_model_encode_captions(g->model, g->texts + (size_t)first_text * g->row,
                                     (const char *const *)g->lines + first_text,
                                     g->lengths + first_text, (size_t)(g->n_texts - first_text));
nomem:
    return dip_fail(DIP_NOMEM, "no memory for the features of %lld images and %lld captions",
                    (long long)g->n_images, (long long)g->n_texts);
}

/* ---- report ---------------------------------------------------------------------------- */

typedef struct slice {
    const char *text;
    size_t n;
} slice;

static int by_text(const void *a, const void *b)
{
    const slice *x = a, *y = b;
    int order = memcmp(x->text, y->text, x->n < y->n ? x->n : y->n);
    return order ? order : (x->n > y->n) - (x->n < y->n);
}

/* -1: out of memory. */
static int64_t count_distinct(const gathering *g)
{
    slice *slices = malloc((size_t)g->n_texts * sizeof *slices);
    if (!slices) return -1;
    for (int64_t i = 0; i < g->n_texts; i++) slices[i] = (slice){g->lines[i], g->lengths[i]};
    qsort(slices, (size_t)g->n_texts, sizeof *slices, by_text);
    int64_t n = 0;
    for (int64_t i = 0; i < g->n_texts; i++)
        n += i == 0 || by_text(&slices[i - 1], &slices[i]) != 0;
    free(slices);
    return n;
}

static void add_recalls(cJSON *report, const char *format, const double values[DIP_N_RECALL_KS])
{
    char key[64];
    for (int k = 0; k < DIP_N_RECALL_KS; k++) {
        snprintf(key, sizeof key, format, dip_recall_ks[k]);
        cJSON_AddNumberToObject(report, key, values[k]);
    }
}

static dip_status print_report(const gathering *g, const dip_recall *recall,
                               const recall_flags *flags, double seconds)
{
    const dip_recall_side *t2i = &recall->text_to_image, *i2t = &recall->image_to_text;
    int64_t n_distinct = count_distinct(g);
    cJSON *report = n_distinct < 0 ? NULL : dip_report_new(g->model);
    if (report) {
        cJSON_AddStringToObject(report, "data", flags->data);
        add_recalls(report, "image_retrieval_recall@%d", t2i->recall);
        add_recalls(report, "text_retrieval_recall@%d", i2t->recall);
        add_recalls(report, "chance_image_retrieval_recall@%d", t2i->chance);
        add_recalls(report, "chance_text_retrieval_recall@%d", i2t->chance);
        cJSON_AddNumberToObject(report, "image_to_text_mean_rank", i2t->mean_rank);
        cJSON_AddNumberToObject(report, "image_to_text_median_rank", (double)i2t->median_rank);
        cJSON_AddNumberToObject(report, "text_to_image_mean_rank", t2i->mean_rank);
        cJSON_AddNumberToObject(report, "text_to_image_median_rank", (double)t2i->median_rank);
        cJSON_AddNumberToObject(report, "n_images", (double)recall->n_images);
        cJSON_AddNumberToObject(report, "n_texts", (double)recall->n_texts);
        cJSON_AddNumberToObject(report, "n_distinct_texts", (double)n_distinct);
        cJSON_AddNumberToObject(report, "dropped", (double)dip_faults_total(g->data->faults));
        cJSON_AddNumberToObject(report, "pairs_per_second", (double)recall->n_images / seconds);
    }
    dip_status status = dip_report_print(report, flags->encoding.json);
    cJSON_Delete(report);
    return status;
}

static dip_status evaluate(const recall_flags *flags)
{
    dip_data data = {0};
    gathering g = {.data = &data};
    dip_recall recall;
    double seconds;
    dip_status status;
    DIP_TRY_GOTO(dip_data_open(&data, flags->data, DIP_NEEDS_IMAGE | DIP_NEEDS_CAPTION,
                               flags->json_text_key));
    DIP_TRY_GOTO(dip_encoding_open(&g.model, &flags->encoding));
    g.row = (size_t)dip_model_embed_dim(g.model);
    DIP_TRY_GOTO(dip_data_encode_images(&data, g.model, &flags->encoding, gather, &g, &seconds));
    if (g.n_images == 0) {
        status = dip_fail(DIP_FORMAT, "no image of %s has a usable caption", flags->data);
        goto fail;
    }
    DIP_TRY_GOTO(dip_recall_compute(&recall, g.images, g.n_images, g.texts, g.text_image, g.n_texts,
                                    (int)g.row, (int)flags->encoding.threads));
    status = print_report(&g, &recall, flags, seconds);
fail:
    free(g.images);
    free(g.texts);
    for (int64_t i = 0; i < g.n_texts; i++) free(g.lines[i]);
    free(g.lines);
    free(g.lengths);
    free(g.text_image);
    dip_model_close(g.model);
    dip_data_close(&data);
    return status;
}

static dip_status run(int argc, char **argv)
{
    recall_flags flags = {0};
    dip_status status;
    DIP_TRY_GOTO(dip_config_defaults(&table, &flags));
    DIP_TRY_GOTO(dip_config_parse(&table, &flags, argc, argv));
    status = evaluate(&flags);
fail:
    dip_config_free(&table, &flags);
    return status;
}

const dip_command dip_command_recall = {
    .name = "recall",
    .summary = "retrieve images by text and texts by image: recall@1, 5, 10",
    .usage = "diptych recall --model FOLDER --data 'SHARDS' [--json]",
    .description =
        "Measures retrieval among all images and all captions of the shards.\n"
        "\n"
        "image_retrieval_recall@k is the share of captions whose own image is among the\n"
        "first k images; text_retrieval_recall@k is the share of images with at least\n"
        "one own caption among the first k captions. A caption belongs to its own image\n"
        "alone, also when another image has the same words: n_distinct_texts against\n"
        "n_texts says how often that is so. chance_* is what a random order would\n"
        "reach.\n"
        "\n"
        "A rank is 1 + the number of candidates with a higher score, or the same score\n"
        "and an earlier place in the shards; an image's rank is that of its best\n"
        "caption. Scores are exact float sums and no matrix of all of them is kept.\n"
        "Samples that cannot be used are named on stderr and counted as \"dropped\".",
    .options = &table,
    .run = run,
};
