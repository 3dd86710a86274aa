#include "model/evaluate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/threads.h"
#include "data/pattern.h"
#include "data/samples.h"
#include "model/scores.h"

/* ---- text files ------------------------------------------------------------------------ */

enum { MAX_TEXT_FILE_BYTES = 64 << 20, MAX_SHOWN_BYTES = 80 };

typedef struct line_sink {
    dip_string_list *list;
    size_t capacity;
    bool out_of_memory, has_nul;
} line_sink;

static int keep_line(void *context, const char *line, size_t n)
{
    line_sink *sink = context;
    dip_string_list *list = sink->list;
    if (memchr(line, 0, n)) {
        sink->has_nul = true;
        return 1;
    }
    if (list->n_items == sink->capacity) {
        size_t capacity = sink->capacity ? 2 * sink->capacity : 64;
        char **items = realloc(list->items, capacity * sizeof *items);
        if (!items) goto nomem;
        list->items = items;
        sink->capacity = capacity;
    }
    char *copy = strndup(line, n);
    if (!copy) goto nomem;
    list->items[list->n_items++] = copy;
    return 0;
nomem:
    sink->out_of_memory = true;
    return 1;
}

/* Lines one by one, so that a complaint can say which. */
static dip_status read_lines(dip_string_list *list, const char *path, const char *needs)
{
    *list = (dip_string_list){0};
    char *text = NULL;
    size_t n_bytes = 0;
    DIP_TRY(dip_file_read(&text, &n_bytes, path, MAX_TEXT_FILE_BYTES));

    line_sink sink = {list, 0, false, false};
    dip_status status = DIP_OK;
    long number = 0;
    for (const char *line = text, *end = text + n_bytes; line < end;) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        const char *stop = newline ? newline : end;
        size_t n_before = list->n_items;
        number++;
        if (dip_caption_lines(line, (size_t)(stop - line), keep_line, &sink) < 0)
            status = dip_fail(DIP_CONFIG, "%s, line %ld: not UTF-8", path, number);
        else if (sink.has_nul)
            status = dip_fail(DIP_CONFIG, "%s, line %ld: holds a NUL byte", path, number);
        else if (sink.out_of_memory)
            status = dip_fail(DIP_NOMEM, "no memory for the lines of %s", path);
        else if (needs && list->n_items > n_before &&
                 !strstr(list->items[list->n_items - 1], needs))
            status = dip_fail(DIP_CONFIG, "%s, line %ld: '%.*s' has no %s", path, number,
                              MAX_SHOWN_BYTES, list->items[list->n_items - 1], needs);
        if (status != DIP_OK) break;
        line = stop + 1;
    }
    free(text);
    if (status == DIP_OK && list->n_items == 0)
        status = dip_fail(DIP_CONFIG, "%s holds no line of text", path);
    if (status != DIP_OK) {
        dip_string_list_free(list);
        *list = (dip_string_list){0};
    }
    return status;
}

dip_status dip_classnames_read(dip_string_list *names, const char *path)
{
    return read_lines(names, path, NULL);
}

dip_status dip_templates_read(dip_string_list *templates, const char *path)
{
    return read_lines(templates, path, "{c}");
}

/* ---- classifier ------------------------------------------------------------------------ */

enum { PROMPTS_AT_ONCE = 256 }; /* at least one class's worth, about this many */

/* `template` with every {c} replaced; malloc'd, NULL out of memory. */
static char *fill_template(const char *template, const char *name)
{
    size_t n_places = 0, n_name = strlen(name);
    for (const char *p = template; (p = strstr(p, "{c}")); p += 3) n_places++;
    char *prompt = malloc(strlen(template) + n_places * n_name + 1);
    if (!prompt) return NULL;
    char *out = prompt;
    for (const char *p = template, *place;; p = place + 3) {
        place = strstr(p, "{c}");
        size_t n = place ? (size_t)(place - p) : strlen(p);
        memcpy(out, p, n);
        out += n;
        if (!place) break;
        memcpy(out, name, n_name);
        out += n_name;
    }
    *out = '\0';
    return prompt;
}

/* out [E] = the mean of n unit rows, scaled to unit length. */
static dip_status average(float *out, const float *rows, size_t n, int embed_dim, const char *name)
{
    double square = 0;
    for (int e = 0; e < embed_dim; e++) {
        double sum = 0;
        for (size_t i = 0; i < n; i++) sum += rows[i * (size_t)embed_dim + (size_t)e];
        out[e] = (float)(sum / (double)n);
        square += (double)out[e] * out[e];
    }
    if (!isfinite(square))
        return dip_fail(DIP_NUMERIC, "the text feature of class '%s' is not finite", name);
    double norm = fmax(sqrt(square), 1e-12);
    for (int e = 0; e < embed_dim; e++) out[e] = (float)(out[e] / norm);
    return DIP_OK;
}

dip_status dip_classifier_build(float *classifier, const dip_string_list *classnames,
                                const dip_string_list *templates, dip_encode_texts_fn *encode,
                                void *context, int embed_dim)
{
    size_t n_classes = classnames->n_items, n_templates = templates->n_items;
    if (n_classes == 0 || n_templates == 0)
        return dip_fail(DIP_CONFIG, "a classifier needs a class and a template, not %zu and %zu",
                        n_classes, n_templates);
    size_t group = n_templates < PROMPTS_AT_ONCE ? PROMPTS_AT_ONCE / n_templates : 1;
    size_t n_prompts = group * n_templates, row = (size_t)embed_dim;

    dip_status status = DIP_OK;
    char **prompts = calloc(n_prompts, sizeof *prompts);
    float *features = malloc(n_prompts * row * sizeof *features);
    if (!prompts || !features) goto nomem;
    for (size_t first = 0; first < n_classes; first += group) {
        size_t n = n_classes - first < group ? n_classes - first : group;
        for (size_t i = 0; i < n * n_templates; i++) {
            free(prompts[i]);
            prompts[i] = fill_template(templates->items[i % n_templates],
                                       classnames->items[first + i / n_templates]);
            if (!prompts[i]) goto nomem;
        }
        DIP_TRY_GOTO(encode(context, features, (const char *const *)prompts, n * n_templates));
        for (size_t c = 0; c < n; c++)
            DIP_TRY_GOTO(average(classifier + (first + c) * row, features + c * n_templates * row,
                                 n_templates, embed_dim, classnames->items[first + c]));
    }
    goto fail;
nomem:
    status = dip_fail(DIP_NOMEM, "no memory for %zu prompts of %d numbers", n_prompts, embed_dim);
fail:
    for (size_t i = 0; prompts && i < n_prompts; i++) free(prompts[i]);
    free(prompts);
    free(features);
    return status;
}

/* ---- accuracy -------------------------------------------------------------------------- */

static int64_t n_tiles(int64_t n)
{
    return (n + DIP_SCORE_TILE - 1) / DIP_SCORE_TILE;
}

dip_status dip_accuracy_init(dip_accuracy *accuracy, const float *classifier, int64_t n_classes,
                             int embed_dim)
{
    *accuracy = (dip_accuracy){.n_classes = n_classes, .embed_dim = embed_dim};
    size_t tile = (size_t)DIP_SCORE_TILE * (size_t)embed_dim;
    accuracy->packed =
        aligned_alloc(DIP_SCORE_ALIGN, sizeof(float) * tile * (size_t)n_tiles(n_classes));
    accuracy->class_n = calloc((size_t)n_classes, sizeof *accuracy->class_n);
    accuracy->class_top1 = calloc((size_t)n_classes, sizeof *accuracy->class_top1);
    if (!accuracy->packed || !accuracy->class_n || !accuracy->class_top1) {
        dip_accuracy_free(accuracy);
        return dip_fail(DIP_NOMEM, "no memory for a classifier of %lld classes",
                        (long long)n_classes);
    }
    for (int64_t i = 0; i < n_tiles(n_classes); i++) {
        int64_t first = i * DIP_SCORE_TILE, left = n_classes - first;
        dip_scores_pack(accuracy->packed + (size_t)i * tile, classifier + first * embed_dim,
                        left < DIP_SCORE_TILE ? left : DIP_SCORE_TILE, embed_dim);
    }
    return DIP_OK;
}

void dip_accuracy_free(dip_accuracy *accuracy)
{
    free(accuracy->packed);
    free(accuracy->class_n);
    free(accuracy->class_top1);
    *accuracy = (dip_accuracy){0};
}

/* How many classes come before `label` in the order of scores. */
static int64_t classes_ahead(const dip_accuracy *accuracy, const float *feature, int64_t label)
{
    _Alignas(DIP_SCORE_ALIGN) float scores[DIP_SCORE_TILE];
    size_t tile = (size_t)DIP_SCORE_TILE * (size_t)accuracy->embed_dim;
    int64_t own = label / DIP_SCORE_TILE, ahead = 0;
    dip_scores_tile(scores, feature, 1, accuracy->packed + (size_t)own * tile, accuracy->embed_dim);
    float target = scores[label % DIP_SCORE_TILE];
    for (int64_t i = 0; i < n_tiles(accuracy->n_classes); i++) {
        dip_scores_tile(scores, feature, 1, accuracy->packed + (size_t)i * tile,
                        accuracy->embed_dim);
        for (int j = 0; j < DIP_SCORE_TILE; j++) {
            int64_t class = i * DIP_SCORE_TILE + j;
            if (class >= accuracy->n_classes) break;
            ahead += scores[j] > target || (scores[j] == target && class < label);
        }
    }
    return ahead;
}

dip_status dip_accuracy_add(dip_accuracy *accuracy, const float *features, const int64_t *labels,
                            int64_t n, int n_threads)
{
    for (int64_t i = 0; i < n; i++) {
        if (labels[i] < 0 || labels[i] >= accuracy->n_classes)
            return dip_fail(DIP_CONFIG, "label %lld is not one of the classes 0..%lld",
                            (long long)labels[i], (long long)accuracy->n_classes - 1);
        for (int e = 0; e < accuracy->embed_dim; e++)
            if (!isfinite(features[i * accuracy->embed_dim + e]))
                return dip_fail(DIP_NUMERIC, "the feature of image %lld is not finite",
                                (long long)(accuracy->n + i));
    }
    int64_t *ahead = malloc((size_t)(n ? n : 1) * sizeof *ahead);
    if (!ahead) return dip_fail(DIP_NOMEM, "no memory to rank %lld images", (long long)n);
#pragma omp parallel for schedule(static) num_threads(n_threads > 0 ? n_threads : dip_core_count())
    for (int64_t i = 0; i < n; i++)
        ahead[i] = classes_ahead(accuracy, features + i * accuracy->embed_dim, labels[i]);
    for (int64_t i = 0; i < n; i++) {
        accuracy->n_top1 += ahead[i] < 1;
        accuracy->n_top5 += ahead[i] < 5;
        accuracy->class_n[labels[i]]++;
        accuracy->class_top1[labels[i]] += ahead[i] < 1;
    }
    accuracy->n += n;
    free(ahead);
    return DIP_OK;
}

dip_accuracy_scores dip_accuracy_read(const dip_accuracy *accuracy)
{
    dip_accuracy_scores scores = {.n = accuracy->n};
    if (accuracy->n == 0) return scores;
    scores.acc1 = (double)accuracy->n_top1 / (double)accuracy->n;
    scores.acc5 = (double)accuracy->n_top5 / (double)accuracy->n;
    double sum = 0;
    int64_t n_seen = 0;
    for (int64_t c = 0; c < accuracy->n_classes; c++) {
        if (accuracy->class_n[c] == 0) continue;
        sum += (double)accuracy->class_top1[c] / (double)accuracy->class_n[c];
        n_seen++;
    }
    scores.mean_per_class_recall = sum / (double)n_seen;
    return scores;
}
