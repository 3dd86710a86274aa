#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "model/npy.h"
#include "tools/command.h"
#include "tools/encoding.h"

typedef struct embed_flags {
    dip_encoding_flags encoding;
    dip_string_list images, texts;
    char *data, *data_kind, *json_text_key, *output;
} embed_flags;

static const dip_option options[] = {
    DIP_ENCODING_OPTIONS(embed_flags, encoding),
    {"images", DIP_OPT_LIST, offsetof(embed_flags, images), NULL, 0, 0, NULL, false, "FILE",
     "Image files (JPEG or PNG)."},
    {"texts", DIP_OPT_LIST, offsetof(embed_flags, texts), NULL, 0, 0, NULL, false, "TEXT",
     "Texts."},
    {"data", DIP_OPT_STRING, offsetof(embed_flags, data), NULL, 0, 0, NULL, false, "PATTERN",
     "Shards."},
    {"data-kind", DIP_OPT_CHOICE, offsetof(embed_flags, data_kind), "image", 0, 0, "image|text",
     false, NULL, "What of the shards: their images, or every caption line."},
    {"json-text-key", DIP_OPT_STRING, offsetof(embed_flags, json_text_key), NULL, 0, 0, NULL, false,
     "KEY", "Take captions from this key of the .json members, not from .txt."},
    {"output", DIP_OPT_STRING, offsetof(embed_flags, output), NULL, 0, 0, NULL, true, "FILE.npy",
     "The features: float32, a row each, of unit length."},
};
static const dip_option_table table = {options, sizeof options / sizeof *options, false};

/* Rows as they come, and the key of each when they come from shards. */
typedef struct rows {
    dip_model *model;
    dip_data data;
    size_t row; /* E */
    float *features;
    size_t n, capacity;
    char *keys; /* lines */
    size_t keys_bytes, keys_capacity;
} rows;

static dip_status no_memory(const rows *r)
{
    return dip_fail(DIP_NOMEM, "no memory for more than %zu features of %zu numbers", r->n, r->row);
}

static dip_status make_room(rows *r, size_t n)
{
    if (r->n + n <= r->capacity) return DIP_OK;
    size_t capacity = 2 * r->capacity + n;
    float *features = realloc(r->features, capacity * r->row * sizeof *features);
    if (!features) return no_memory(r);
    r->features = features;
    r->capacity = capacity;
    return DIP_OK;
}

/* A line with the key, control bytes and backslashes as \xHH so that it stays one line. */
static dip_status add_key(rows *r, const char *key)
{
    size_t most = 4 * strlen(key) + 2;
    if (r->keys_bytes + most > r->keys_capacity) {
        size_t capacity = 2 * r->keys_capacity + most;
        char *keys = realloc(r->keys, capacity);
        if (!keys) return no_memory(r);
        r->keys = keys;
        r->keys_capacity = capacity;
    }
    char *out = r->keys + r->keys_bytes;
    for (const unsigned char *p = (const unsigned char *)key; *p; p++) {
        if (*p < 0x20 || *p == 0x7f || *p == '\\')
            out += snprintf(out, 5, "\\x%02X", *p);
        else
            *out++ = (char)*p;
    }
    *out++ = '\n';
    r->keys_bytes = (size_t)(out - r->keys);
    return DIP_OK;
}

static dip_status keep_images(void *context, const dip_batch *batch, const float *features)
{
    rows *r = context;
    DIP_TRY(make_room(r, (size_t)batch->n));
    memcpy(r->features + r->n * r->row, features, (size_t)batch->n * r->row * sizeof *features);
    r->n += (size_t)batch->n;
    for (int64_t i = 0; i < batch->n; i++)
        DIP_TRY(add_key(r, dip_samples_get(r->data.samples, batch->index[i]).key));
    return DIP_OK;
}

/* Caption lines waiting to be computed together: copies, malloc'd. */
enum { LINES_AT_ONCE = 1024 };
typedef struct pending {
    rows *r;
    const char *key;
    char *lines[LINES_AT_ONCE];
    size_t lengths[LINES_AT_ONCE];
    size_t n;
    dip_status status;
} pending;

static void drop_lines(pending *p)
{
    while (p->n > 0) free(p->lines[--p->n]);
}

static dip_status flush_lines(pending *p)
{
    rows *r = p->r;
    if (p->n == 0) return DIP_OK;
    DIP_TRY(make_room(r, p->n));
    DIP_TRY(dip_model_encode_captions(r->model, r->features + r->n * r->row,
                                      (const char *const *)p->lines, p->lengths, p->n));
    r->n += p->n;
    drop_lines(p);
    return DIP_OK;
}

static int add_line(void *context, const char *line, size_t n)
{
    pending *p = context;
    char *copy = malloc(n + 1);
    if (!copy) {
        p->status = no_memory(p->r);
        return 1;
    }
    memcpy(copy, line, n);
    p->lines[p->n] = copy;
    p->lengths[p->n++] = n;
    p->status = add_key(p->r, p->key);
    if (p->status == DIP_OK && p->n == LINES_AT_ONCE) p->status = flush_lines(p);
    return p->status != DIP_OK;
}

static dip_status embed_captions(rows *r)
{
    dip_status status = DIP_OK;
    pending *p = calloc(1, sizeof *p);
    if (!p) return no_memory(r);
    p->r = r;
    for (int64_t i = 0; i < dip_samples_count(r->data.samples) && status == DIP_OK; i++) {
        const dip_sample sample = dip_samples_get(r->data.samples, i);
        const char *text;
        size_t n_bytes;
        status = dip_data_caption(&r->data, &text, &n_bytes, i);
        if (status == DIP_FORMAT) {
            status = DIP_OK; /* it is in the ledger */
            continue;
        }
        if (status != DIP_OK) break;
        p->key = sample.key;
        int n = dip_caption_lines(text, n_bytes, add_line, p);
        status = p->status;
        if (n > 0 || status != DIP_OK) continue;
        char where[1024];
        dip_sample_where(&sample, where, sizeof where);
        dip_faults_add(r->data.faults, n < 0 ? DIP_FAULT_CAPTION_UTF8 : DIP_FAULT_CAPTION_EMPTY,
                       where, "no text of it is used");
    }
    if (status == DIP_OK) status = flush_lines(p);
    drop_lines(p);
    free(p);
    if (status == DIP_OK && r->n == 0)
        status = dip_fail(DIP_FORMAT, "none of the %lld samples has a usable caption",
                          (long long)dip_samples_count(r->data.samples));
    return status;
}

static dip_status embed_data(rows *r, const embed_flags *flags)
{
    bool texts = strcmp(flags->data_kind, "text") == 0;
    double seconds;
    DIP_TRY(dip_data_open(&r->data, flags->data, texts ? DIP_NEEDS_CAPTION : DIP_NEEDS_IMAGE,
                          flags->json_text_key));
    DIP_TRY(dip_encoding_open(&r->model, &flags->encoding));
    r->row = (size_t)dip_model_embed_dim(r->model);
    if (texts) return embed_captions(r);
    return dip_data_encode_images(&r->data, r->model, &flags->encoding, keep_images, r, &seconds);
}

static dip_status embed_words(rows *r, const embed_flags *flags)
{
    const dip_string_list *list = flags->images.n_items ? &flags->images : &flags->texts;
    const char *const *items = (const char *const *)list->items;
    for (size_t i = 0; i < flags->images.n_items; i++) DIP_TRY(dip_input_check(items[i]));
    DIP_TRY(dip_encoding_open(&r->model, &flags->encoding));
    r->row = (size_t)dip_model_embed_dim(r->model);
    DIP_TRY(make_room(r, list->n_items));
    r->n = list->n_items;
    if (list == &flags->images)
        return dip_model_encode_image_files(r->model, r->features, items, r->n);
    return dip_model_encode_texts(r->model, r->features, items, r->n);
}

/* Can the file be written at all? Asked before hours of computing, not after. */
static dip_status check_output(const char *path)
{
    dip_writer *probe;
    DIP_TRY(dip_writer_open(&probe, path));
    dip_writer_abort(probe);
    return DIP_OK;
}

static dip_status write_rows(const rows *r, const embed_flags *flags)
{
    DIP_TRY(dip_npy_write(flags->output, r->features, r->n, r->row));
    if (!flags->data) return DIP_OK;
    char *path = dip_format("%s.keys.txt", flags->output);
    if (!path) return no_memory(r);
    dip_status status = dip_file_write(path, r->keys, r->keys_bytes);
    free(path);
    return status;
}

static dip_status print_report(const rows *r, const embed_flags *flags, double seconds)
{
    cJSON *report = dip_report_new(r->model);
    if (report) {
        cJSON_AddStringToObject(report, "output", flags->output);
        cJSON_AddNumberToObject(report, "n", (double)r->n);
        cJSON_AddNumberToObject(report, "embed_dim", (double)r->row);
        cJSON_AddNumberToObject(report, "dropped",
                                r->data.faults ? (double)dip_faults_total(r->data.faults) : 0);
        cJSON_AddNumberToObject(report, "seconds", seconds);
    }
    dip_status status = dip_report_print(report, flags->encoding.json);
    cJSON_Delete(report);
    return status;
}

static dip_status run(int argc, char **argv)
{
    embed_flags flags = {0};
    rows r = {0};
    dip_status status;
    double start = dip_seconds_now();
    DIP_TRY_GOTO(dip_config_defaults(&table, &flags));
    DIP_TRY_GOTO(dip_config_parse(&table, &flags, argc, argv));
    int n_sources = (flags.images.n_items > 0) + (flags.texts.n_items > 0) + (flags.data != NULL);
    if (n_sources != 1) {
        status = dip_fail(DIP_CONFIG, "give one of --images, --texts and --data, not %d of them",
                          n_sources);
        goto fail;
    }
    DIP_TRY_GOTO(check_output(flags.output));
    DIP_TRY_GOTO(flags.data ? embed_data(&r, &flags) : embed_words(&r, &flags));
    DIP_TRY_GOTO(write_rows(&r, &flags));
    status = print_report(&r, &flags, dip_seconds_now() - start);
fail:
    free(r.features);
    free(r.keys);
    dip_model_close(r.model);
    dip_data_close(&r.data);
    dip_config_free(&table, &flags);
    return status;
}

const dip_command dip_command_embed = {
    .name = "embed",
    .summary = "write features of images or texts as a NumPy file",
    .usage =
        "diptych embed --model FOLDER (--images A B ... | --texts T1 T2 ... | --data 'SHARDS')\n"
        "              --output FILE.npy",
    .description = "Encodes images or texts and writes their features as one NumPy matrix\n"
                   "(float32, C order, rows of unit length): a dot product of two rows is their\n"
                   "cosine similarity. Rows are in the order given.\n"
                   "\n"
                   "With --data, FILE.npy.keys.txt holds the sample's key for every row; control\n"
                   "bytes and backslashes in a key are written as \\xHH. With --data-kind text a\n"
                   "sample has a row for every line of its caption. Samples that cannot be used\n"
                   "have no row; they are named on stderr and counted as \"dropped\". An image\n"
                   "named by --images that cannot be used is refused.\n"
                   "\n"
                   "All features are held in memory until the file is written.",
    .options = &table,
    .run = run,
};
