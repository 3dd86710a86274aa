#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "core/number.h"
#include "text/tokenizer.h"
#include "tools/command.h"
#include "tools/encoding.h"

#define N_OPTIONS(options) (sizeof(options) / sizeof(options)[0])

/* ---- lines of text ----------------------------------------------------------------------------
 */

typedef dip_status text_fn(void *context, const char *text, size_t n_bytes);

/* Every word of the list or, when there is none, every line of standard input. */
static dip_status for_each_text(const dip_string_list *words, text_fn *each, void *context)
{
    for (size_t i = 0; i < words->n_items; i++)
        DIP_TRY(each(context, words->items[i], strlen(words->items[i])));
    if (words->n_items > 0) return DIP_OK;
    char *line = NULL;
    size_t capacity = 0;
    ssize_t n;
    dip_status status = DIP_OK;
    errno = 0;
    while (status == DIP_OK && (n = getline(&line, &capacity, stdin)) >= 0) {
        if (n > 0 && line[n - 1] == '\n') n--;
        if (n > 0 && line[n - 1] == '\r') n--;
        line[n] = '\0';
        status = each(context, line, (size_t)n);
        errno = 0;
    }
    if (status == DIP_OK && (ferror(stdin) || errno == ENOMEM))
        status = dip_fail(errno == ENOMEM ? DIP_NOMEM : DIP_IO, "cannot read standard input: %s",
                          strerror(errno));
    free(line);
    return status;
}

/* A JSON string of bytes from a file or a model: what is not UTF-8 becomes U+FFFD. */
static cJSON *json_text(const char *text)
{
    size_t n = strlen(text), used = 0;
    char *clean = malloc(3 * n + 1);
    if (!clean) return NULL;
    for (size_t at = 0; at < n;) {
        size_t length = dip_utf8_length(text + at, n - at);
        memcpy(clean + used, length ? text + at : "\xef\xbf\xbd", length ? length : 3);
        used += length ? length : 3;
        at += length ? length : 1;
    }
    clean[used] = '\0';
    cJSON *out = cJSON_CreateString(clean);
    free(clean);
    return out;
}

/* Print one object on one line and free it. */
static dip_status print_line(cJSON *object)
{
    char *text = object ? cJSON_PrintUnformatted(object) : NULL;
    if (text) printf("%s\n", text);
    cJSON_free(text);
    cJSON_Delete(object);
    return text ? DIP_OK : dip_fail(DIP_NOMEM, "no memory for a line of output");
}

/* ---- train ------------------------------------------------------------------------------------
 */

typedef struct train_flags {
    char *input, *input_shards, *json_text_key, *output, *model_type;
    int64_t vocab_size, seed;
    double character_coverage;
    bool byte_fallback, json;
} train_flags;

#define AT(member) offsetof(train_flags, member)
static const dip_option train_options[] = {
    {"input", DIP_OPT_STRING, AT(input), NULL, 0, 0, NULL, false, "FILE",
     "Text file with one caption a line."},
    {"input-shards", DIP_OPT_STRING, AT(input_shards), NULL, 0, 0, NULL, false, "PATTERN",
     "Instead of --input: every caption of these shards."},
    {"json-text-key", DIP_OPT_STRING, AT(json_text_key), NULL, 0, 0, NULL, false, "KEY",
     "With --input-shards: take captions from this key of the .json members, not from .txt."},
    {"output", DIP_OPT_STRING, AT(output), NULL, 0, 0, NULL, true, "FILE",
     "The model; it replaces an older file only when it is complete."},
    {"vocab-size", DIP_OPT_INT, AT(vocab_size), "8000", 8, 1 << 20, NULL, false, "N",
     "Most pieces the model may have, special ones included. A small corpus gives fewer."},
    {"model-type", DIP_OPT_CHOICE, AT(model_type), "bpe", 0, 0, "unigram|bpe", false, NULL,
     "bpe merges frequent pairs and suits a corpus of any size; unigram keeps the pieces that "
     "explain the corpus best and needs thousands of different words."},
    {"character-coverage", DIP_OPT_FLOAT, AT(character_coverage), "0.9995", 0.98, 1, NULL, false,
     "SHARE", "Share of all characters that get a piece of their own; the rest is unknown."},
    {"byte-fallback", DIP_OPT_BOOL, AT(byte_fallback), "false", 0, 0, NULL, false, NULL,
     "Spell what has no piece in bytes (256 more pieces), so that nothing is unknown."},
    {"seed", DIP_OPT_INT, AT(seed), "0", 0, 9007199254740992.0, NULL, false, "N",
     "Matters beyond 2,000,000 captions: which of them are used."},
    {"json", DIP_OPT_BOOL, AT(json), "false", 0, 0, NULL, false, NULL,
     "Print exactly one JSON object on stdout."},
};
#undef AT
static const dip_option_table train_table = {train_options, N_OPTIONS(train_options), false};

/* The captions of all samples, one at a time. */
typedef struct shard_captions {
    dip_data *data;
    int64_t next_sample;
    dip_string_list lines; /* of the sample before; items point into its caption */
    size_t *lengths, capacity, at;
    bool out_of_memory;
    dip_status failed; /* what else ended it */
} shard_captions;

static int add_line(void *context, const char *line, size_t n)
{
    shard_captions *c = context;
    if (c->lines.n_items == c->capacity) {
        size_t capacity = c->capacity ? 2 * c->capacity : 16;
        char **items = realloc(c->lines.items, capacity * sizeof *items);
        if (items) c->lines.items = items;
        size_t *lengths = realloc(c->lengths, capacity * sizeof *lengths);
        if (lengths) c->lengths = lengths;
        if (!items || !lengths) {
            c->out_of_memory = true;
            return 1;
        }
        c->capacity = capacity;
    }
    c->lengths[c->lines.n_items] = n;
    c->lines.items[c->lines.n_items++] = (char *)(uintptr_t)line; /* only ever read */
    return 0;
}

static int next_caption(void *context, const char **line, size_t *n_bytes)
{
    shard_captions *c = context;
    while (c->at == c->lines.n_items) {
        if (c->out_of_memory || c->next_sample == dip_samples_count(c->data->samples)) return 0;
        const int64_t index = c->next_sample++;
        const char *text;
        size_t text_bytes;
        c->lines.n_items = c->at = 0;
        dip_status status = dip_data_caption(c->data, &text, &text_bytes, index);
        if (status != DIP_OK && status != DIP_FORMAT) c->failed = status;
        if (c->failed != DIP_OK) return 0;
        if (status != DIP_OK || dip_caption_lines(text, text_bytes, add_line, c) >= 0) continue;
        const dip_sample sample = dip_samples_get(c->data->samples, index);
        char where[1024];
        c->lines.n_items = 0;
        dip_faults_add(c->data->faults, DIP_FAULT_CAPTION_UTF8,
                       dip_sample_where(&sample, where, sizeof where), "not used for training");
    }
    *line = c->lines.items[c->at];
    *n_bytes = c->lengths[c->at++];
    return 1;
}

static dip_status train_on_shards(dip_tokenizer_train_options *options, const train_flags *flags,
                                  int *n_pieces)
{
    dip_data data;
    shard_captions captions = {.data = &data};
    dip_status status =
        dip_data_open(&data, flags->input_shards, DIP_NEEDS_CAPTION, flags->json_text_key);
    if (status == DIP_OK) {
        options->next = next_caption;
        options->next_context = &captions;
        status = dip_tokenizer_train(options, n_pieces);
        if (captions.out_of_memory) status = dip_fail(DIP_NOMEM, "no memory for the captions");
        if (captions.failed != DIP_OK)
            status =
                dip_fail(captions.failed, "%s: the captions cannot be read", flags->input_shards);
    }
    free(captions.lines.items);
    free(captions.lengths);
    dip_data_close(&data);
    return status;
}

static dip_status report_training(const train_flags *flags, int n_pieces)
{
    cJSON *report = cJSON_CreateObject();
    cJSON_AddStringToObject(report, "output", flags->output);
    cJSON_AddStringToObject(report, "model_type", flags->model_type);
    cJSON_AddNumberToObject(report, "vocab_size", n_pieces);
    cJSON_AddNumberToObject(report, "vocab_size_asked", (double)flags->vocab_size);
    cJSON_AddNumberToObject(report, "pad_id", 0);
    cJSON_AddNumberToObject(report, "unk_id", 1);
    cJSON_AddNumberToObject(report, "eos_id", n_pieces - 1);
    dip_status status = dip_report_print(report, flags->json);
    cJSON_Delete(report);
    return status;
}

static dip_status train(const train_flags *flags)
{
    if (!flags->input == !flags->input_shards)
        return dip_fail(DIP_CONFIG, "give either --input FILE or --input-shards PATTERN");
    if (flags->json_text_key && !flags->input_shards)
        return dip_fail(DIP_CONFIG, "--json-text-key belongs to --input-shards");
    dip_tokenizer_train_options options = {
        .input = flags->input,
        .output = flags->output,
        .vocab_size = (int)flags->vocab_size,
        .model_type = flags->model_type,
        .character_coverage = flags->character_coverage,
        .byte_fallback = flags->byte_fallback,
        .seed = (uint64_t)flags->seed,
    };
    if (flags->input) DIP_TRY(dip_input_check(flags->input));
    int n_pieces = 0;
    if (flags->input)
        DIP_TRY(dip_tokenizer_train(&options, &n_pieces));
    else
        DIP_TRY(train_on_shards(&options, flags, &n_pieces));
    if (n_pieces < flags->vocab_size)
        fprintf(stderr,
                "The corpus gives %d pieces, not %lld; pretrain takes the size of the vocabulary "
                "from the tokenizer.\n",
                n_pieces, (long long)flags->vocab_size);
    return report_training(flags, n_pieces);
}

static dip_status run_train(int argc, char **argv)
{
    train_flags flags = {0};
    dip_status status;
    DIP_TRY_GOTO(dip_config_defaults(&train_table, &flags));
    DIP_TRY_GOTO(dip_config_parse(&train_table, &flags, argc, argv));
    status = train(&flags);
fail:
    dip_config_free(&train_table, &flags);
    return status;
}

/* ---- encode, decode, info ---------------------------------------------------------------------
 */

typedef struct use_flags {
    char *model;
    dip_string_list texts, ids;
    int64_t context_length;
    bool pieces, json;
} use_flags;

#define AT(member) offsetof(use_flags, member)
#define MODEL_OPTION                                                                               \
    {                                                                                              \
        "model", DIP_OPT_STRING, AT(model), NULL, 0, 0, NULL, true, "FILE",                        \
            "A SentencePiece model."                                                               \
    }

static const dip_option encode_options[] = {
    MODEL_OPTION,
    {"texts", DIP_OPT_LIST, AT(texts), NULL, 0, 0, NULL, false, "TEXT...",
     "Texts to encode; without them, the lines of standard input."},
    {"context-length", DIP_OPT_INT, AT(context_length), "77", 1, 65536, NULL, false, "N",
     "Most ids of one text; the last one is always eos."},
    {"pieces", DIP_OPT_BOOL, AT(pieces), "false", 0, 0, NULL, false, NULL,
     "Print the pieces instead of their ids."},
    {"json", DIP_OPT_BOOL, AT(json), "false", 0, 0, NULL, false, NULL,
     "Print one JSON object a text, a line each: ids, pieces, unknown."},
};
static const dip_option_table encode_table = {encode_options, N_OPTIONS(encode_options), false};

static const dip_option decode_options[] = {
    MODEL_OPTION,
    {"ids", DIP_OPT_LIST, AT(ids), NULL, 0, 0, NULL, false, "ID...",
     "The ids of one text; without them, every line of standard input is one."},
    {"json", DIP_OPT_BOOL, AT(json), "false", 0, 0, NULL, false, NULL,
     "Print one JSON object a text, a line each."},
};
static const dip_option_table decode_table = {decode_options, N_OPTIONS(decode_options), false};

static const dip_option info_options[] = {
    MODEL_OPTION,
    {"json", DIP_OPT_BOOL, AT(json), "false", 0, 0, NULL, false, NULL,
     "Print exactly one JSON object on stdout."},
};
static const dip_option_table info_table = {info_options, N_OPTIONS(info_options), false};
#undef AT

typedef struct user {
    const use_flags *flags;
    dip_tokenizer *tokenizer;
    int32_t *ids; /* [context_length] */
} user;

static dip_status encode_text(void *context, const char *text, size_t n_bytes)
{
    user *u = context;
    int unknown;
    int n = dip_tokenizer_encode(u->tokenizer, u->ids, (int)u->flags->context_length, text, n_bytes,
                                 &unknown);
    if (u->flags->json) {
        cJSON *line = cJSON_CreateObject();
        cJSON *ids = cJSON_AddArrayToObject(line, "ids");
        cJSON *pieces = cJSON_AddArrayToObject(line, "pieces");
        for (int i = 0; i < n; i++) {
            cJSON_AddItemToArray(ids, cJSON_CreateNumber(u->ids[i]));
            cJSON_AddItemToArray(pieces, json_text(dip_tokenizer_piece(u->tokenizer, u->ids[i])));
        }
        cJSON_AddNumberToObject(line, "unknown", unknown);
        return print_line(line);
    }
    for (int i = 0; i < n; i++) {
        if (i > 0) putchar(' ');
        if (u->flags->pieces)
            fputs(dip_tokenizer_piece(u->tokenizer, u->ids[i]), stdout);
        else
            printf("%d", (int)u->ids[i]);
    }
    putchar('\n');
    return DIP_OK;
}

static dip_status encode(user *u)
{
    u->ids = calloc((size_t)u->flags->context_length, sizeof *u->ids);
    if (!u->ids) return dip_fail(DIP_NOMEM, "no memory for the ids");
    return for_each_text(&u->flags->texts, encode_text, u);
}

/* A line of ids, split by blanks or commas. */
static dip_status decode_line(void *context, const char *text, size_t n_bytes)
{
    user *u = context;
    int32_t *ids = malloc((n_bytes / 2 + 1) * sizeof *ids);
    char *copy = strdup(text), *rest = copy, *out = NULL;
    dip_status status = DIP_OK;
    int n = 0;
    if (!ids || !copy) {
        status = dip_fail(DIP_NOMEM, "no memory for a line of %zu bytes", n_bytes);
        goto fail;
    }
    for (char *word; (word = strsep(&rest, " ,\t"));) {
        int64_t id;
        if (*word == '\0') continue;
        if (dip_number_read_int(&id, word) != DIP_NUMBER_OK || id < 0 || id > INT32_MAX) {
            status = dip_fail(DIP_CONFIG, "'%.40s' is not an id", word);
            goto fail;
        }
        ids[n++] = (int32_t)id;
    }
    DIP_TRY_GOTO(dip_tokenizer_decode(u->tokenizer, &out, ids, n));
    if (u->flags->json) {
        cJSON *line = cJSON_CreateObject();
        cJSON_AddItemToObject(line, "text", json_text(out));
        status = print_line(line);
    } else {
        printf("%s\n", out);
    }
fail:
    free(out);
    free(copy);
    free(ids);
    return status;
}

/* The words after --ids are one text. */
static dip_status decode(user *u)
{
    const dip_string_list *words = &u->flags->ids;
    if (words->n_items == 0) return for_each_text(words, decode_line, u);
    size_t n_bytes = 1;
    for (size_t i = 0; i < words->n_items; i++) n_bytes += strlen(words->items[i]) + 1;
    char *line = calloc(n_bytes, 1), *end = line;
    if (!line) return dip_fail(DIP_NOMEM, "no memory for the ids");
    for (size_t i = 0; i < words->n_items; i++) {
        end = stpcpy(end, words->items[i]);
        *end++ = ' ';
    }
    dip_status status = decode_line(u, line, strlen(line));
    free(line);
    return status;
}

static dip_status info(user *u)
{
    enum { FIRST_PIECES = 16 };
    const dip_tokenizer *t = u->tokenizer;
    int n = dip_tokenizer_vocab_size(t);
    char first[1024] = "";
    for (int id = 0; id < n && id < FIRST_PIECES; id++) {
        size_t used = strlen(first);
        snprintf(first + used, sizeof first - used, "%s%.40s", id ? " " : "",
                 dip_tokenizer_piece(t, id));
    }
    cJSON *report = cJSON_CreateObject();
    cJSON_AddItemToObject(report, "model", json_text(u->flags->model));
    cJSON_AddStringToObject(report, "model_type", dip_tokenizer_model_type(t));
    cJSON_AddNumberToObject(report, "vocab_size", n);
    cJSON_AddNumberToObject(report, "pad_id", dip_tokenizer_pad(t));
    cJSON_AddNumberToObject(report, "unk_id", dip_tokenizer_unk(t));
    cJSON_AddNumberToObject(report, "bos_id", dip_tokenizer_bos(t));
    cJSON_AddNumberToObject(report, "eos_id", dip_tokenizer_eos(t));
    cJSON_AddBoolToObject(report, "eos_is_largest_id", dip_tokenizer_eos(t) == n - 1);
    cJSON_AddItemToObject(report, "first_pieces", json_text(first));
    dip_status status = dip_report_print(report, u->flags->json);
    cJSON_Delete(report);
    return status;
}

static dip_status use_model(const dip_option_table *table, dip_status (*use)(user *), int argc,
                            char **argv)
{
    use_flags flags = {0};
    user u = {.flags = &flags};
    dip_status status;
    DIP_TRY_GOTO(dip_config_defaults(table, &flags));
    DIP_TRY_GOTO(dip_config_parse(table, &flags, argc, argv));
    DIP_TRY_GOTO(dip_tokenizer_open(&u.tokenizer, flags.model));
    status = use(&u);
fail:
    dip_tokenizer_close(u.tokenizer);
    free(u.ids);
    dip_config_free(table, &flags);
    return status;
}

static dip_status run_encode(int argc, char **argv)
{
    return use_model(&encode_table, encode, argc, argv);
}

static dip_status run_decode(int argc, char **argv)
{
    return use_model(&decode_table, decode, argc, argv);
}

static dip_status run_info(int argc, char **argv)
{
    return use_model(&info_table, info, argc, argv);
}

/* ---- the command ------------------------------------------------------------------------------
 */

static const struct {
    const char *name;
    const dip_option_table *table;
    dip_status (*run)(int argc, char **argv);
} actions[] = {
    {"train", &train_table, run_train},
    {"encode", &encode_table, run_encode},
    {"decode", &decode_table, run_decode},
    {"info", &info_table, run_info},
};

static dip_status run(int argc, char **argv)
{
    const char *names[N_OPTIONS(actions)];
    for (size_t i = 0; i < N_OPTIONS(actions); i++) {
        names[i] = actions[i].name;
        if (argc > 0 && strcmp(argv[0], names[i]) == 0) return actions[i].run(argc - 1, argv + 1);
    }
    if (argc == 0) return dip_fail(DIP_CONFIG, "say train, encode, decode or info");
    const char *near = dip_nearest_word(argv[0], names, N_OPTIONS(names));
    return dip_fail(DIP_CONFIG, "'%.80s' is not train, encode, decode or info%s%s%s", argv[0],
                    near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

static void help(void)
{
    for (size_t i = 0; i < N_OPTIONS(actions); i++) {
        printf("%sOPTIONS of %s\n", i ? "\n" : "", actions[i].name);
        dip_config_print_help(actions[i].table, stdout);
    }
}

const dip_command dip_command_tokenizer = {
    .name = "tokenizer",
    .summary = "train a SentencePiece model, and turn text into ids and back",
    .usage = "diptych tokenizer train --input CAPTIONS.txt --vocab-size N --output spm.model\n"
             "diptych tokenizer encode --model spm.model [--texts TEXT...]\n"
             "diptych tokenizer decode --model spm.model [--ids ID...]\n"
             "diptych tokenizer info --model spm.model",
    .description =
        "train learns the pieces of a corpus of captions. The model it writes has pad = 0, "
        "unk = 1, no bos, and eos as the last id, so that the end of a text is its largest id, as "
        "open_clip's \"argmax\" pooling expects. The same captions and options give the same bytes "
        "on any machine. A caption counts up to its first 4,096 bytes.\n"
        "\n"
        "encode prints the ids of every text on one line, eos last. Text may hold any bytes; the "
        "spelling of a special token in a text is plain text. Of a text beyond 16 KiB only the "
        "first 16 KiB are encoded.\n"
        "\n"
        "encode, decode and info read any SentencePiece unigram or BPE model that has an "
        "end-of-text piece, also those of T5 and SigLIP.",
    .run = run,
    .help = help,
};
