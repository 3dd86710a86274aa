/* diptych shard - turn a folder, a table or an IDX array into WebDataset shards. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/file.h"
#include "core/rng.h"
#include "data/pairs.h"
#include "data/pattern.h"
#include "data/samples.h"
#include "data/shard_writer.h"
#include "data/utf8.h"
#include "tools/command.h"

enum { MAX_NAMED = 1000, TEXT_BYTES = 600 };

typedef struct shard_options {
    char *input, *output;
    int64_t samples_per_shard;
    int64_t seed;
    bool shuffle, overwrite, json;
    double holdout;
    char *holdout_output;
    char *caption_line;
    char *csv_img_key, *csv_caption_key, *csv_separator;
    char *labels, *classnames, *templates;
    int64_t captions_per_image;
} shard_options;

#define FIELD(name) offsetof(shard_options, name)
static const dip_option options[] = {
    {.key = "input",
     .type = DIP_OPT_STRING,
     .offset = FIELD(input),
     .required = true,
     .value_name = "PATH",
     .help = "A folder (searched to the bottom for JPEG and PNG images with a .txt of the same "
             "name), a table (.tsv or .csv), or an IDX image file of the MNIST family, plain or "
             "gzipped."},
    {.key = "output",
     .type = DIP_OPT_STRING,
     .offset = FIELD(output),
     .required = true,
     .value_name = "PATTERN",
     .help = "Shards to write, with one open range: 'OUT/{00000..}.tar'. The folder is made and "
             "also gets sizes.json."},
    {.key = "samples-per-shard",
     .type = DIP_OPT_INT,
     .offset = FIELD(samples_per_shard),
     .default_text = "10000",
     .min = 1,
     .max = 1e9,
     .value_name = "N",
     .help = "Samples in each shard but the last."},
    {.key = "shuffle",
     .type = DIP_OPT_BOOL,
     .offset = FIELD(shuffle),
     .default_text = "false",
     .help = "Write the samples in an order drawn from the seed instead of the input's."},
    {.key = "seed",
     .type = DIP_OPT_INT,
     .offset = FIELD(seed),
     .default_text = "0",
     .min = 0,
     .max = 9007199254740991.0,
     .value_name = "S",
     .help = "For --shuffle, --holdout and the choice of templates."},
    {.key = "holdout",
     .type = DIP_OPT_FLOAT,
     .offset = FIELD(holdout),
     .default_text = "0",
     .min = 0,
     .max = 0.999,
     .value_name = "FRACTION",
     .help = "Write about this fraction to --holdout-output instead. Whether a sample is held out "
             "depends on its name and the seed alone; 0 with --holdout-output is refused."},
    {.key = "holdout-output",
     .type = DIP_OPT_STRING,
     .offset = FIELD(holdout_output),
     .value_name = "PATTERN",
     .help = "Shards for the held-out samples, in another folder."},
    {.key = "overwrite",
     .type = DIP_OPT_BOOL,
     .offset = FIELD(overwrite),
     .default_text = "false",
     .help = "Replace shards of the pattern's form that are there already, and remove what killed "
             "runs left of such shards; without it shards are a refusal."},
    {.key = "caption-line",
     .type = DIP_OPT_CHOICE,
     .offset = FIELD(caption_line),
     .default_text = "all",
     .choices = "first|all",
     .value_name = "WHICH",
     .help = "Store captions as they are, or the first line that is not empty."},
    {.key = "csv-img-key",
     .type = DIP_OPT_STRING,
     .offset = FIELD(csv_img_key),
     .default_text = "filepath",
     .value_name = "NAME",
     .help = "Column of the image paths. A relative path is taken from the table's folder."},
    {.key = "csv-caption-key",
     .type = DIP_OPT_STRING,
     .offset = FIELD(csv_caption_key),
     .default_text = "title",
     .value_name = "NAME",
     .help = "Column of the captions."},
    {.key = "csv-separator",
     .type = DIP_OPT_STRING,
     .offset = FIELD(csv_separator),
     .value_name = "CHAR",
     .help = "One character between columns, or 'tab'. Default: a comma for .csv, else a tab."},
    {.key = "labels",
     .type = DIP_OPT_STRING,
     .offset = FIELD(labels),
     .value_name = "FILE",
     .help = "IDX input: the IDX file with the class numbers."},
    {.key = "classnames",
     .type = DIP_OPT_STRING,
     .offset = FIELD(classnames),
     .value_name = "FILE",
     .help = "IDX input: class names, one a line, class 0 first."},
    {.key = "templates",
     .type = DIP_OPT_STRING,
     .offset = FIELD(templates),
     .value_name = "FILE",
     .help = "IDX input: caption templates, one a line, {c} standing for the class name. Default: "
             "'a photo of a {c}.'"},
    {.key = "captions-per-image",
     .type = DIP_OPT_INT,
     .offset = FIELD(captions_per_image),
     .default_text = "1",
     .min = 1,
     .max = 1000,
     .value_name = "N",
     .help = "IDX input: how many different templates each image gets, drawn by the seed."},
    {.key = "json",
     .type = DIP_OPT_BOOL,
     .offset = FIELD(json),
     .default_text = "false",
     .help = "Print the result as one JSON object."},
};
#undef FIELD

static const dip_option_table table = {options, sizeof options / sizeof options[0], true};

/* What was left out: counted and logged by the ledger, the names kept for --json. */
typedef struct losses {
    dip_faults *ledger;
    cJSON *named; /* [{"where", "reason", "detail"}] */
} losses;

static void lose(void *context, dip_fault_kind kind, const char *where, const char *detail)
{
    losses *lost = context;
    int64_t before = dip_faults_total(lost->ledger);
    dip_faults_add(lost->ledger, kind, where, detail);
    if (dip_faults_total(lost->ledger) == before || before >= MAX_NAMED) return;
    char text[TEXT_BYTES];
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "where", dip_text_quote(text, sizeof text, where));
    cJSON_AddStringToObject(item, "reason", dip_fault_text(kind));
    cJSON_AddStringToObject(item, "detail", dip_text_quote(text, sizeof text, detail));
    cJSON_AddItemToArray(lost->named, item);
}

/* The input. */

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcasecmp(text + n - m, end) == 0;
}

static dip_status open_table(dip_pairs **pairs, const shard_options *o, losses *lost)
{
    char separator = ends_with(o->input, ".csv") ? ',' : '\t';
    const char *given = o->csv_separator;
    if (given && (strcasecmp(given, "tab") == 0 || strcmp(given, "\\t") == 0))
        separator = '\t';
    else if (given && strlen(given) == 1 && !strchr("\"\n\r", given[0]))
        separator = given[0];
    else if (given)
        return dip_fail(DIP_CONFIG, "--csv-separator: '%s' is not one character (or 'tab')", given);
    return dip_pairs_open_table(pairs, o->input, separator, o->csv_img_key, o->csv_caption_key,
                                lose, lost);
}

static dip_status open_input(dip_pairs **pairs, const shard_options *o, losses *lost)
{
    bool is_folder = dip_path_is_dir(o->input);
    bool is_table = !is_folder && (ends_with(o->input, ".tsv") || ends_with(o->input, ".csv"));
    if ((is_folder || is_table) && (o->labels || o->classnames || o->templates))
        return dip_fail(DIP_CONFIG,
                        "--labels, --classnames and --templates go with IDX input; %s "
                        "is a %s",
                        o->input, is_folder ? "folder" : "table");
    if (is_folder) return dip_pairs_open_folder(pairs, o->input, lose, lost);
    if (is_table) return open_table(pairs, o, lost);
    if (!o->labels || !o->classnames)
        return dip_fail(DIP_CONFIG,
                        "%s is no folder, .tsv or .csv; to read it as IDX images --labels and "
                        "--classnames are needed",
                        o->input);
    return dip_pairs_open_idx(pairs, &(dip_idx_options){
                                         .images = o->input,
                                         .labels = o->labels,
                                         .class_names = o->classnames,
                                         .templates = o->templates,
                                         .captions_per_image = (int)o->captions_per_image,
                                         .seed = (uint64_t)o->seed,
                                     });
}

/* Outputs. */

static dip_status check_output(const shard_options *o, const char *pattern)
{
    dip_string_list there;
    DIP_TRY(dip_shard_writer_existing(&there, pattern));
    dip_status status = DIP_OK;
    if (there.n_items > 0 && !o->overwrite)
        status = there.n_items == 1
                     ? dip_fail(DIP_CONFIG, "%s exists (--overwrite replaces it)", there.items[0])
                     : dip_fail(DIP_CONFIG,
                                "%s exists, as do%s %zu more shard%s of '%s' (--overwrite replaces "
                                "them)",
                                there.items[0], there.n_items == 2 ? "es" : "", there.n_items - 1,
                                there.n_items == 2 ? "" : "s", pattern);
    dip_string_list_free(&there);
    return status;
}

static dip_status open_output(dip_shard_writer **writer, const shard_options *o,
                              const char *pattern)
{
    DIP_TRY(dip_shard_writer_open(writer, pattern, o->samples_per_shard));
    if (o->overwrite) dip_shard_writer_replace(*writer);
    return DIP_OK;
}

static size_t folder_bytes(const char *pattern)
{
    const char *slash = strrchr(pattern, '/');
    return slash ? (size_t)(slash - pattern) : 0;
}

/* sizes.json describes a folder, so two sets of shards need two folders. */
static dip_status check_holdout(const shard_options *o)
{
    if ((o->holdout > 0) != (o->holdout_output != NULL))
        return dip_fail(DIP_CONFIG, "--holdout and --holdout-output go together");
    if (!o->holdout_output) return DIP_OK;
    size_t n = folder_bytes(o->output);
    if (n == folder_bytes(o->holdout_output) && memcmp(o->output, o->holdout_output, n) == 0)
        return dip_fail(DIP_CONFIG, "--output and --holdout-output must be in different folders");
    return DIP_OK;
}

/* The same for a sample whatever else is in the input: it depends on its name and the seed. */
static bool is_held_out(const shard_options *o, const char *name)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (const char *c = name; *c; c++) hash = (hash ^ (unsigned char)*c) * 0x100000001b3u;
    dip_rng rng;
    dip_rng_init(&rng, (uint64_t)o->seed ^ (hash & 0xfffffff000000000u),
                 dip_rng_stream(DIP_RNG_SHARD, 0, hash));
    return dip_rng_uniform(&rng) < o->holdout;
}

/* Writing. */

typedef struct first_line {
    const char *line;
    size_t n_bytes;
} first_line;

static int take_first(void *context, const char *line, size_t n)
{
    *(first_line *)context = (first_line){line, n};
    return 1;
}

/* One pair into its writer, or into the ledger. */
static dip_status write_pair(dip_shard_writer *writer, const shard_options *o, dip_pairs *pairs,
                             int64_t index, losses *lost)
{
    dip_pair pair;
    dip_fault_kind kind = DIP_FAULT_UNREADABLE;
    dip_status status = dip_pairs_load(pairs, &pair, index, &kind);
    const char *detail = dip_error();
    if (status == DIP_OK) {
        first_line first = {0};
        int n_lines = dip_caption_lines(pair.text, pair.text_bytes, take_first, &first);
        if (n_lines > 0 && strcmp(o->caption_line, "first") == 0) {
            pair.text = first.line;
            pair.text_bytes = first.n_bytes;
        }
        if (n_lines < 1) {
            kind = n_lines < 0 ? DIP_FAULT_CAPTION_UTF8 : DIP_FAULT_CAPTION_EMPTY;
            detail = n_lines < 0 ? "bytes that are not UTF-8" : "nothing but blanks";
            status = DIP_FORMAT;
        }
    }
    if (status == DIP_FORMAT) {
        char *where = dip_format("%s: %s", o->input, dip_pairs_name(pairs, index));
        if (!where) return dip_fail(DIP_NOMEM, "no memory for a name");
        lose(lost, kind, where, detail);
        free(where);
        return DIP_OK;
    }
    DIP_TRY(status);
    char label[24];
    snprintf(label, sizeof label, "%" PRId64, pair.label);
    dip_shard_part parts[3] = {
        {pair.extension, pair.image, pair.image_bytes},
        {"txt", pair.text, pair.text_bytes},
        {"cls", label, strlen(label)},
    };
    return dip_shard_writer_add(writer, parts, pair.label >= 0 ? 3 : 2);
}

static dip_status make_order(int64_t **order, const shard_options *o, int64_t n)
{
    *order = malloc(((size_t)n + 1) * sizeof **order);
    if (!*order) return dip_fail(DIP_NOMEM, "no memory for the order of %" PRId64 " pairs", n);
    for (int64_t i = 0; i < n; i++) (*order)[i] = i;
    if (!o->shuffle) return DIP_OK;
    dip_rng rng;
    dip_rng_init(&rng, (uint64_t)o->seed, dip_rng_stream(DIP_RNG_SHARD, 1, 0));
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = (int64_t)dip_rng_below(&rng, (uint64_t)i + 1), swap = (*order)[i];
        (*order)[i] = (*order)[j];
        (*order)[j] = swap;
    }
    return DIP_OK;
}

/* The result. */

typedef struct result {
    int64_t samples[2], shards[2]; /* output, holdout */
} result;

static dip_status print_json(const shard_options *o, const result *r, const losses *lost)
{
    int64_t left_out = dip_faults_total(lost->ledger);
    char text[TEXT_BYTES];
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "input", dip_text_quote(text, sizeof text, o->input));
    cJSON_AddStringToObject(root, "output", dip_text_quote(text, sizeof text, o->output));
    cJSON_AddNumberToObject(root, "found", (double)(r->samples[0] + r->samples[1] + left_out));
    cJSON_AddNumberToObject(root, "samples", (double)r->samples[0]);
    cJSON_AddNumberToObject(root, "shards", (double)r->shards[0]);
    if (o->holdout_output) {
        cJSON_AddStringToObject(root, "holdout_output",
                                dip_text_quote(text, sizeof text, o->holdout_output));
        cJSON_AddNumberToObject(root, "holdout_samples", (double)r->samples[1]);
        cJSON_AddNumberToObject(root, "holdout_shards", (double)r->shards[1]);
    }
    cJSON_AddNumberToObject(root, "left_out", (double)left_out);
    cJSON *reasons = cJSON_AddObjectToObject(root, "left_out_reasons");
    for (int kind = 0; kind < DIP_N_FAULT_KINDS; kind++) {
        int64_t n = dip_faults_count(lost->ledger, (dip_fault_kind)kind);
        if (n > 0)
            cJSON_AddNumberToObject(reasons, dip_fault_text((dip_fault_kind)kind), (double)n);
    }
    cJSON_AddItemReferenceToObject(root, "left_out_names", lost->named);
    char *printed = cJSON_Print(root);
    cJSON_Delete(root);
    if (!printed) return dip_fail(DIP_NOMEM, "no memory to print the result");
    puts(printed);
    cJSON_free(printed);
    return DIP_OK;
}

static void print_text(const shard_options *o, const result *r, const losses *lost)
{
    const char *const outputs[2] = {o->output, o->holdout_output};
    for (int i = 0; i < 2; i++)
        if (outputs[i])
            printf("%s %" PRId64 " pair%s in %" PRId64 " shard%s: %s\n", i ? "held out" : "wrote",
                   r->samples[i], r->samples[i] == 1 ? "" : "s", r->shards[i],
                   r->shards[i] == 1 ? "" : "s", outputs[i]);
    printf("left out %" PRId64 "\n", dip_faults_total(lost->ledger));
    dip_faults_print(lost->ledger, stdout);
}

/* Interruption. */

static volatile sig_atomic_t stop_requested;
static const int stop_signals[] = {SIGINT, SIGTERM, SIGHUP};
enum { N_STOP_SIGNALS = sizeof stop_signals / sizeof stop_signals[0] };

static void request_stop(int signal_number)
{
    (void)signal_number;
    stop_requested = 1;
}

/* The handler stays for a second signal: timeout(1) sends two at once, and what is left to do, the
 * clean-up, is short. A signal that is ignored (nohup) stays ignored. */
static void catch_signals(struct sigaction before[N_STOP_SIGNALS])
{
    struct sigaction action = {.sa_handler = request_stop, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    stop_requested = 0;
    for (int i = 0; i < N_STOP_SIGNALS; i++) {
        sigaction(stop_signals[i], NULL, &before[i]);
        if (before[i].sa_handler != SIG_IGN) sigaction(stop_signals[i], &action, NULL);
    }
}

static void release_signals(const struct sigaction before[N_STOP_SIGNALS])
{
    for (int i = 0; i < N_STOP_SIGNALS; i++) sigaction(stop_signals[i], &before[i], NULL);
}

static dip_status check_stop(dip_shard_writer *const writers[2])
{
    if (!stop_requested) return DIP_OK;
    int64_t n = 0;
    for (int i = 0; i < 2 && writers[i]; i++) n += dip_shard_writer_shards(writers[i]);
    return dip_fail(DIP_INTERRUPTED,
                    "stopped on request; the %" PRId64 " shard%s written so far %s removed", n,
                    n == 1 ? "" : "s", n == 1 ? "is" : "are");
}

/* The command. */

static dip_status write_shards(const shard_options *o, losses *lost)
{
    dip_status status = DIP_OK;
    dip_pairs *pairs = NULL;
    int64_t *order = NULL;
    dip_shard_writer *writers[2] = {NULL, NULL};
    result r = {0};
    struct sigaction before[N_STOP_SIGNALS];
    bool catching = false;
    DIP_TRY_GOTO(check_holdout(o));
    DIP_TRY_GOTO(check_output(o, o->output));
    if (o->holdout_output) DIP_TRY_GOTO(check_output(o, o->holdout_output));
    DIP_TRY_GOTO(open_input(&pairs, o, lost));
    catch_signals(before); /* until here a signal ends the program at once: nothing is written */
    catching = true;
    DIP_TRY_GOTO(open_output(&writers[0], o, o->output));
    if (o->holdout_output) DIP_TRY_GOTO(open_output(&writers[1], o, o->holdout_output));
    DIP_TRY_GOTO(make_order(&order, o, dip_pairs_count(pairs)));
    for (int64_t i = 0; i < dip_pairs_count(pairs); i++) {
        DIP_TRY_GOTO(check_stop(writers));
        bool held_out = writers[1] && is_held_out(o, dip_pairs_name(pairs, order[i]));
        DIP_TRY_GOTO(write_pair(writers[held_out], o, pairs, order[i], lost));
    }
    for (int i = 0; i < 2 && writers[i]; i++) {
        r.samples[i] = dip_shard_writer_samples(writers[i]);
        r.shards[i] = dip_shard_writer_shards(writers[i]);
        if (r.samples[i] > 0) continue;
        dip_faults_print(lost->ledger, stderr);
        status = dip_fail(DIP_CONFIG, "no usable pair of %s for %s; %" PRId64 " left out", o->input,
                          i ? "--holdout-output" : "--output", dip_faults_total(lost->ledger));
        goto fail;
    }
    DIP_TRY_GOTO(check_stop(writers));
    for (int i = 0; i < 2 && writers[i]; i++) {
        status = dip_shard_writer_close(writers[i]);
        writers[i] = NULL;
        if (status != DIP_OK) goto fail;
    }
    if (o->json)
        status = print_json(o, &r, lost);
    else
        print_text(o, &r, lost);
fail:
    dip_shard_writer_abort(writers[0]);
    dip_shard_writer_abort(writers[1]);
    if (catching) release_signals(before);
    free(order);
    dip_pairs_close(pairs);
    return status;
}

static dip_status run(int argc, char **argv)
{
    shard_options o = {0};
    losses lost = {0};
    dip_status status = dip_config_defaults(&table, &o);
    if (status == DIP_OK) status = dip_config_parse(&table, &o, argc, argv);
    if (status == DIP_OK) status = dip_faults_open(&lost.ledger);
    if (status == DIP_OK && !(lost.named = cJSON_CreateArray()))
        status = dip_fail(DIP_NOMEM, "no memory to start");
    if (status == DIP_OK) status = write_shards(&o, &lost);
    cJSON_Delete(lost.named);
    dip_faults_close(lost.ledger);
    dip_config_free(&table, &o);
    return status;
}

const dip_command dip_command_shard = {
    .name = "shard",
    .summary = "turn a folder, a table or an IDX array into shards",
    .usage = "diptych shard --input PATH --output 'OUT/{00000..}.tar' [OPTIONS]",
    .description =
        "Writes image-caption pairs as WebDataset shards: tar files whose members KEY.jpg (or "
        ".png), KEY.txt and, for labelled images, KEY.cls make a sample. Images are stored byte "
        "for byte; the same input and options give the same bytes.\n\n"
        "A pair is left out, counted and named when its caption is missing, empty or not UTF-8, "
        "or when its image is missing or neither JPEG nor PNG by its first bytes. Shards appear "
        "complete or not at all; when the command fails or is interrupted it removes what it "
        "wrote.",
    .options = &table,
    .run = run,
};
