#include <stdio.h>
#include <stdlib.h>

#include "data/pattern.h"
#include "model/evaluate.h"
#include "tools/command.h"
#include "tools/encoding.h"

typedef struct zeroshot_flags {
    dip_encoding_flags encoding;
    char *data, *classnames, *templates;
} zeroshot_flags;

static const dip_option options[] = {
    DIP_ENCODING_OPTIONS(zeroshot_flags, encoding),
    {"data", DIP_OPT_STRING, offsetof(zeroshot_flags, data), NULL, 0, 0, NULL, true, "PATTERN",
     "Shards whose samples hold an image and a class label (.cls)."},
    {"classnames", DIP_OPT_STRING, offsetof(zeroshot_flags, classnames), NULL, 0, 0, NULL, true,
     "FILE", "Class names, one a line; the first is class 0."},
    {"templates", DIP_OPT_STRING, offsetof(zeroshot_flags, templates), NULL, 0, 0, NULL, true,
     "FILE", "Prompt templates, one a line; {c} stands for the class name."},
};
static const dip_option_table table = {options, sizeof options / sizeof *options, false};

/* Before anything is computed: does every label name a class? */
static dip_status check_labels(const dip_samples *samples, int64_t n_classes)
{
    int64_t n = dip_samples_count(samples), n_outside = 0, first_label = 0;
    char where[1024] = "";
    for (int64_t i = 0; i < n; i++) {
        dip_sample sample = dip_samples_get(samples, i);
        if (sample.label >= 0 && sample.label < n_classes) continue;
        if (n_outside++ == 0) {
            first_label = sample.label;
            dip_sample_where(&sample, where, sizeof where);
        }
    }
    if (n_outside == 0) return DIP_OK;
    return dip_fail(DIP_CONFIG,
                    "%lld of %lld samples have a label outside 0..%lld, the %lld class names; the "
                    "first is %s with %lld",
                    (long long)n_outside, (long long)n, (long long)n_classes - 1,
                    (long long)n_classes, where, (long long)first_label);
}

static dip_status encode_prompts(void *model, float *features, const char *const *texts, size_t n)
{
    return dip_model_encode_texts(model, features, texts, n);
}

typedef struct tally {
    dip_accuracy accuracy;
    int n_threads;
} tally;

static dip_status count_batch(void *context, const dip_batch *batch, const float *features)
{
    tally *t = context;
    return dip_accuracy_add(&t->accuracy, features, batch->labels, batch->n, t->n_threads);
}

static dip_status print_report(const dip_model *model, const dip_data *data, const tally *t,
                               const zeroshot_flags *flags, size_t n_templates, double seconds)
{
    dip_accuracy_scores scores = dip_accuracy_read(&t->accuracy);
    cJSON *report = dip_report_new(model);
    if (report) {
        cJSON_AddStringToObject(report, "data", flags->data);
        cJSON_AddNumberToObject(report, "acc1", scores.acc1);
        cJSON_AddNumberToObject(report, "acc5", scores.acc5);
        cJSON_AddNumberToObject(report, "mean_per_class_recall", scores.mean_per_class_recall);
        cJSON_AddNumberToObject(report, "n", (double)scores.n);
        cJSON_AddNumberToObject(report, "dropped", (double)dip_faults_total(data->faults));
        cJSON_AddNumberToObject(report, "n_classes", (double)t->accuracy.n_classes);
        cJSON_AddNumberToObject(report, "n_templates", (double)n_templates);
        cJSON_AddNumberToObject(report, "images_per_second", (double)scores.n / seconds);
    }
    dip_status status = dip_report_print(report, flags->encoding.json);
    cJSON_Delete(report);
    return status;
}

static dip_status evaluate(const zeroshot_flags *flags, const dip_string_list *classnames,
                           const dip_string_list *templates)
{
    dip_data data = {0};
    dip_model *model = NULL;
    tally t = {.n_threads = (int)flags->encoding.threads};
    float *classifier = NULL;
    double seconds;
    dip_status status;
    int64_t n_classes = (int64_t)classnames->n_items;
    DIP_TRY_GOTO(dip_data_open(&data, flags->data, DIP_NEEDS_IMAGE | DIP_NEEDS_LABEL, NULL));
    DIP_TRY_GOTO(check_labels(data.samples, n_classes));
    DIP_TRY_GOTO(dip_encoding_open(&model, &flags->encoding));
    int embed_dim = dip_model_embed_dim(model);
    classifier = malloc(classnames->n_items * (size_t)embed_dim * sizeof *classifier);
    if (!classifier) {
        status =
            dip_fail(DIP_NOMEM, "no memory for a classifier of %lld classes", (long long)n_classes);
        goto fail;
    }
    DIP_TRY_GOTO(
        dip_classifier_build(classifier, classnames, templates, encode_prompts, model, embed_dim));
    DIP_TRY_GOTO(dip_accuracy_init(&t.accuracy, classifier, n_classes, embed_dim));
    DIP_TRY_GOTO(dip_data_encode_images(&data, model, &flags->encoding, count_batch, &t, &seconds));
    status = print_report(model, &data, &t, flags, templates->n_items, seconds);
fail:
    dip_accuracy_free(&t.accuracy);
    free(classifier);
    dip_model_close(model);
    dip_data_close(&data);
    return status;
}

static dip_status run(int argc, char **argv)
{
    zeroshot_flags flags = {0};
    dip_string_list classnames = {0}, templates = {0};
    dip_status status;
    DIP_TRY_GOTO(dip_config_defaults(&table, &flags));
    DIP_TRY_GOTO(dip_config_parse(&table, &flags, argc, argv));
    DIP_TRY_GOTO(dip_input_check(flags.classnames));
    DIP_TRY_GOTO(dip_input_check(flags.templates));
    DIP_TRY_GOTO(dip_classnames_read(&classnames, flags.classnames));
    DIP_TRY_GOTO(dip_templates_read(&templates, flags.templates));
    status = evaluate(&flags, &classnames, &templates);
fail:
    dip_string_list_free(&templates);
    dip_string_list_free(&classnames);
    dip_config_free(&table, &flags);
    return status;
}

const dip_command dip_command_zeroshot = {
    .name = "zeroshot",
    .summary = "classify images by prompts: top-1 and top-5 accuracy",
    .usage = "diptych zeroshot --model FOLDER --data 'SHARDS' --classnames FILE --templates FILE",
    .description = "Measures zero-shot classification. The features of all prompts of a class\n"
                   "(every template with the class name in place of {c}) are scaled to unit\n"
                   "length, averaged and scaled again; an image belongs to the class whose vector\n"
                   "is nearest in angle. Ties go to the class named first.\n"
                   "\n"
                   "acc1 and acc5 are the shares of images whose class is the nearest, or among\n"
                   "the nearest five; mean_per_class_recall averages acc1 over the classes that\n"
                   "occur. Samples that cannot be used are named on stderr and counted as\n"
                   "\"dropped\".\n"
                   "\n"
                   "A text file is UTF-8; a byte order mark and CR are ignored, and so are empty\n"
                   "lines.",
    .options = &table,
    .run = run,
};
