/* One table for every JSON object: what a key sets, or why it must have the value it has. A row
 * also exists for each feature of open_clip that this program has not, so that a configuration is
 * refused by the feature's name, while the same key at its resting value is fine. */
#include "model/config.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/config.h"

typedef enum row_kind {
    ROW_INT,     /* into an int, min..max */
    ROW_FLOAT,   /* into a double, min..max */
    ROW_BOOL,    /* into a bool */
    ROW_FIXED,   /* nothing but one of `allowed`; `what` says what anything else would ask for */
    ROW_IGNORED, /* has no meaning without a feature that is refused elsewhere */
    ROW_READ     /* by the caller */
} row_kind;

typedef struct row {
    const char *key;
    row_kind kind;
    size_t offset; /* in dip_model_config */
    double min, max;
    const char *allowed; /* JSON values, split by '|' */
    const char *what;
} row;

#define FIELD(member) offsetof(dip_model_config, member)
#define INT(key, member, min, max)                                                                 \
    {                                                                                              \
        key, ROW_INT, FIELD(member), min, max, NULL, NULL                                          \
    }
#define FLOAT(key, member, min, max)                                                               \
    {                                                                                              \
        key, ROW_FLOAT, FIELD(member), min, max, NULL, NULL                                        \
    }
#define BOOL(key, member)                                                                          \
    {                                                                                              \
        key, ROW_BOOL, FIELD(member), 0, 0, NULL, NULL                                             \
    }
#define FIXED(key, allowed, what)                                                                  \
    {                                                                                              \
        key, ROW_FIXED, 0, 0, 0, allowed, what                                                     \
    }
#define IGNORED(key)                                                                               \
    {                                                                                              \
        key, ROW_IGNORED, 0, 0, 0, NULL, NULL                                                      \
    }
#define READ(key)                                                                                  \
    {                                                                                              \
        key, ROW_READ, 0, 0, 0, NULL, NULL                                                         \
    }

static const row file_rows[] = {READ("model_cfg"), READ("preprocess_cfg")};

static const row model_rows[] = {
    INT("embed_dim", embed_dim, 1, 65536),
    BOOL("quick_gelu", quick_gelu),
    FLOAT("init_logit_scale", init_logit_scale, -10, 10),
    READ("vision_cfg"),
    READ("text_cfg"),
    FIXED("init_logit_bias", "null", "a logit bias (SigLIP)"),
    FIXED("nonscalar_logit_scale", "false|null", "a logit scale that is not a scalar"),
    FIXED("custom_text", "false|null", "a custom text tower"),
    FIXED("multimodal_cfg", "null", "a multimodal decoder (CoCa)"),
    FIXED("audio_cfg", "null", "an audio tower (CLAP)"),
    IGNORED("output_dict"),
};

/* What both towers may say about their attention blocks. */
#define BLOCK_ROWS                                                                                 \
    FIXED("ls_init_value", "null", "layer scale"),                                                 \
        FIXED("block_type", "null|\"default\"", "another kind of block"),                          \
        FIXED("qk_norm", "false|null", "normalized queries and keys"),                             \
        FIXED("scaled_cosine_attn", "false|null", "scaled cosine attention"),                      \
        FIXED("scale_heads", "false|null", "scaled heads"),                                        \
        FIXED("scale_attn_inner", "false|null", "a norm inside attention"),                        \
        FIXED("scale_attn", "false|null", "a norm behind attention"),                              \
        FIXED("scale_fc", "false|null", "a norm inside the MLP"),                                  \
        FIXED("act_kwargs", "null|{}|{\"approximate\":\"none\"}", "another activation"),           \
        READ("norm_kwargs"), READ("pool_type"), IGNORED("output_tokens")

static const row vision_rows[] = {
    INT("image_size", vision.image_size, 1, 4096),
    INT("patch_size", vision.patch_size, 1, 4096),
    INT("width", vision.width, 1, 16384),
    INT("layers", vision.layers, 1, 256),
    INT("head_width", vision.head_width, 1, 1024),
    FLOAT("mlp_ratio", vision.mlp_ratio, 0.01, 64),
    BOOL("no_ln_pre", vision.no_ln_pre),
    BOOL("final_ln_after_pool", vision.final_ln_after_pool),
    BLOCK_ROWS,
    FIXED("patch_dropout", "0|null", "patch dropout"),
    FIXED("attentional_pool", "false|null", "attentional pooling"),
    IGNORED("attn_pooler_queries"),
    IGNORED("attn_pooler_heads"),
    FIXED("pos_embed_type", "\"learnable\"", "positions that are not learned"),
    FIXED("image_seq_len", "null", "a variable number of patches"),
    FIXED("timm_model_name", "null|\"\"", "an image tower of timm"),
    IGNORED("timm_model_pretrained"),
    IGNORED("timm_pool"),
    IGNORED("timm_proj"),
    IGNORED("timm_proj_bias"),
    IGNORED("timm_drop"),
    IGNORED("timm_drop_path"),
    IGNORED("timm_model_kwargs"),
};

static const row text_rows[] = {
    INT("context_length", text.context_length, 2, 4096),
    INT("vocab_size", text.vocab_size, 2, 1 << 20),
    INT("width", text.width, 1, 16384),
    INT("heads", text.heads, 1, 1024),
    INT("layers", text.layers, 1, 256),
    FLOAT("mlp_ratio", text.mlp_ratio, 0.01, 64),
    READ("eos_id"),
    BLOCK_ROWS,
    IGNORED("pad_id"), /* sequences are packed: there is no padding */
    IGNORED("bos_id"),
    IGNORED("final_ln_after_pool"), /* the norm is per token, so the order changes nothing */
    FIXED("embed_cls", "false|null", "a class token in the text tower"),
    FIXED("no_causal_mask", "false|null", "a text tower that is not causal"),
    FIXED("proj_type", "\"linear\"", "another text projection"),
    FIXED("proj_bias", "false|null", "a text projection with a bias"),
    FIXED("text_arch", "\"clip\"|null", "another text architecture"),
    FIXED("variable_text", "false|null", "padded text of variable length"),
    FIXED("hf_model_name", "null|\"\"", "a text tower of Hugging Face"),
    IGNORED("hf_model_pretrained"),
    IGNORED("hf_model_config"),
    IGNORED("hf_proj_type"),
    IGNORED("hf_pooler_type"),
    IGNORED("hf_tokenizer_name"), /* the tokenizer is a file beside the weights */
    IGNORED("tokenizer_mode"),
    IGNORED("tokenizer_kwargs"),
    IGNORED("tokenizer_type"),
    IGNORED("tiktoken_name"),
};

static const row preprocess_rows[] = {
    READ("mean"),
    READ("std"),
    READ("interpolation"),
    READ("resize_mode"),
    FIXED("mode", "\"RGB\"|null", "images that are not RGB"),
    IGNORED("size"),       /* the model's image_size counts, as in open_clip */
    IGNORED("fill_color"), /* of a resize mode that is refused */
};

#define N_ROWS(rows) (sizeof(rows) / sizeof((rows)[0]))

/* ---- mistakes ---------------------------------------------------------------------------------
 */

/* One a line, as many as a sentence of dip_fail holds. */
typedef struct mistakes {
    char text[3600];
    size_t used;
    int n, n_written;
} mistakes;

static void add(mistakes *list, const char *format, ...) DIP_PRINTF(2, 3);

static void add(mistakes *list, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    list->n++;
    size_t n = strlen(line);
    if (list->used + n + 4 > sizeof list->text) return;
    list->used += (size_t)snprintf(list->text + list->used, n + 4, "\n  %s", line);
    list->n_written++;
}

/* The value as JSON, cut to a readable length; "" when there is no memory to print it. */
static const char *show(char out[64], const cJSON *value)
{
    char *text = cJSON_PrintUnformatted(value);
    snprintf(out, 64, "%.50s%s", text ? text : "", text && strlen(text) > 50 ? "..." : "");
    cJSON_free(text);
    return out;
}

/* ---- one object -------------------------------------------------------------------------------
 */

static bool is_allowed(const row *r, const cJSON *item)
{
    char *text = cJSON_PrintUnformatted(item);
    size_t n = text ? strlen(text) : 0;
    bool found = false;
    for (const char *word = r->allowed; text && word && !found;) {
        const char *bar = strchr(word, '|');
        size_t length = bar ? (size_t)(bar - word) : strlen(word);
        found = length == n && memcmp(word, text, n) == 0;
        word = bar ? bar + 1 : NULL;
    }
    cJSON_free(text);
    return found;
}

static void read_number(mistakes *list, dip_model_config *config, const row *r, const cJSON *item,
                        const char *place)
{
    char shown[64];
    double value = item->valuedouble;
    bool whole = r->kind == ROW_INT;
    if (!cJSON_IsNumber(item) || !(value >= r->min && value <= r->max) ||
        (whole && value != floor(value))) {
        add(list, "%s%s: %s is not a %s from %g to %.9g%s", place, r->key, show(shown, item),
            whole ? "whole number" : "number", r->min, r->max,
            cJSON_IsArray(item) && strcmp(r->key, "layers") == 0 ? " (a list means a ResNet)" : "");
        return;
    }
    char *field = (char *)config + r->offset;
    if (whole)
        *(int *)field = (int)value;
    else
        *(double *)field = value;
}

static void suggest(mistakes *list, const row *rows, size_t n_rows, const char *key,
                    const char *place)
{
    const char *words[64];
    size_t n = 0;
    for (; n < n_rows && n < N_ROWS(words); n++) words[n] = rows[n].key;
    const char *near = dip_nearest_word(key, words, n);
    add(list, "%s%.100s: unknown key%s%s%s", place, key, near ? "; did you mean " : "",
        near ? near : "", near ? "?" : "");
}

/* Every key of an object by its row; READ rows are left to the caller. */
static void read_object(mistakes *list, dip_model_config *config, const row *rows, size_t n_rows,
                        const cJSON *object, const char *place)
{
    char shown[64];
    const cJSON *item;
    cJSON_ArrayForEach(item, object)
    {
        const row *r = NULL;
        for (size_t i = 0; i < n_rows; i++)
            if (strcmp(rows[i].key, item->string) == 0) r = &rows[i];
        if (!r) {
            suggest(list, rows, n_rows, item->string, place);
            continue;
        }
        switch (r->kind) {
        case ROW_INT:
        case ROW_FLOAT:
            read_number(list, config, r, item, place);
            break;
        case ROW_BOOL:
            if (cJSON_IsBool(item))
                *(bool *)((char *)config + r->offset) = cJSON_IsTrue(item);
            else
                add(list, "%s%s: %s is not true or false", place, r->key, show(shown, item));
            break;
        case ROW_FIXED:
            if (!is_allowed(r, item))
                add(list, "%s%s: %s asks for %s, which this program has not", place, r->key,
                    show(shown, item), r->what);
            break;
        case ROW_IGNORED:
        case ROW_READ:
            break;
        }
    }
}

/* The object under `key`, or NULL with a mistake when it is no object or missing. */
static const cJSON *need_object(mistakes *list, const cJSON *parent, const char *key)
{
    char shown[64];
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(parent, key);
    if (cJSON_IsObject(item)) return item;
    if (!item)
        add(list, "%s: missing", key);
    else
        add(list, "%s: %s is not an object", key, show(shown, item));
    return NULL;
}

/* The index of a string among n words; `otherwise` when the key is not there; -1 and a mistake. */
static int read_choice(mistakes *list, const cJSON *object, const char *place, const char *key,
                       const char *const *words, int n, int otherwise)
{
    char shown[64], known[128] = "";
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!item) return otherwise;
    for (int i = 0; i < n; i++) {
        if (cJSON_IsString(item) && strcmp(item->valuestring, words[i]) == 0) return i;
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s\"%s\"", i ? " or " : "", words[i]);
    }
    add(list, "%s%s: %s is not %s; this program has no other", place, key, show(shown, item),
        known);
    return -1;
}

static void read_norm(mistakes *list, double *eps, const cJSON *object, const char *place)
{
    char shown[64];
    const cJSON *norm = cJSON_GetObjectItemCaseSensitive(object, "norm_kwargs");
    if (!norm || cJSON_IsNull(norm)) return;
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(norm, "eps");
    if (cJSON_IsObject(norm) && cJSON_GetArraySize(norm) == 0) return;
    if (!cJSON_IsObject(norm) || cJSON_GetArraySize(norm) != 1 || !cJSON_IsNumber(item) ||
        !(item->valuedouble >= 1e-12 && item->valuedouble <= 0.1)) {
        add(list, "%snorm_kwargs: %s is not {\"eps\": number from 1e-12 to 0.1}", place,
            show(shown, norm));
        return;
    }
    *eps = item->valuedouble;
}

/* ---- the four objects -------------------------------------------------------------------------
 */

static void read_vision(mistakes *list, dip_model_config *config, const cJSON *object)
{
    static const char *const pools[] = {"tok", "avg"};
    read_object(list, config, vision_rows, N_ROWS(vision_rows), object, "vision_cfg.");
    read_norm(list, &config->vision.norm_eps, object, "vision_cfg.");
    int pool = read_choice(list, object, "vision_cfg.", "pool_type", pools, 2, 0);
    config->vision.pool = pool == 1 ? DIP_POOL_AVG : DIP_POOL_TOK;
}

static void read_text(mistakes *list, dip_model_config *config, const cJSON *object)
{
    static const char *const pools[] = {"argmax", "eos"};
    char shown[64];
    read_object(list, config, text_rows, N_ROWS(text_rows), object, "text_cfg.");
    read_norm(list, &config->text.norm_eps, object, "text_cfg.");
    if (read_choice(list, object, "text_cfg.", "pool_type", pools, 2, 0) != 1) return;
    const cJSON *eos = cJSON_GetObjectItemCaseSensitive(object, "eos_id");
    if (!eos || cJSON_IsNull(eos))
        add(list,
            "text_cfg.eos_id: missing; pool_type \"eos\" needs the tokenizer's end-of-text id");
    else if (!cJSON_IsNumber(eos) || eos->valuedouble != floor(eos->valuedouble) ||
             !(eos->valuedouble >= 0 && eos->valuedouble < config->text.vocab_size))
        add(list, "text_cfg.eos_id: %s is not an id from 0 to vocab_size - 1 = %d",
            show(shown, eos), config->text.vocab_size - 1);
    else
        config->text.eos_id = (int)eos->valuedouble;
}

static void read_triple(mistakes *list, float out[3], const cJSON *object, const char *key,
                        double min)
{
    char shown[64];
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!item) return;
    bool good = cJSON_IsArray(item) && cJSON_GetArraySize(item) == 3;
    for (int i = 0; i < 3 && good; i++) {
        const cJSON *number = cJSON_GetArrayItem(item, i);
        good = cJSON_IsNumber(number) && number->valuedouble >= min && number->valuedouble <= 1000;
        if (good) out[i] = (float)number->valuedouble;
    }
    if (!good)
        add(list, "preprocess_cfg.%s: %s is not three numbers from %g to 1000", key,
            show(shown, item), min);
}

static void read_preprocess(mistakes *list, dip_model_config *config, const cJSON *object)
{
    static const char *const filters[] = {"bicubic", "bilinear"};
    static const char *const modes[] = {"shortest", "squash"};
    static const char place[] = "preprocess_cfg.";
    read_object(list, config, preprocess_rows, N_ROWS(preprocess_rows), object, place);
    read_triple(list, config->preprocess.mean, object, "mean", -1000);
    read_triple(list, config->preprocess.std, object, "std", 1e-6);
    config->preprocess.bilinear =
        read_choice(list, object, place, "interpolation", filters, 2, 0) == 1;
    config->preprocess.squash = read_choice(list, object, place, "resize_mode", modes, 2, 0) == 1;
}

/* ---- what must fit together -------------------------------------------------------------------
 */

/* All limits together keep this far below 2^63. */
static int64_t block_params(int64_t width, double mlp_ratio)
{
    int64_t mlp = (int64_t)((double)width * mlp_ratio);
    return 4 * width * width + 2 * width * mlp + 9 * width + mlp;
}

static int64_t count_params(const dip_model_config *config)
{
    const dip_vision_config *v = &config->vision;
    const dip_text_config *t = &config->text;
    int64_t side = v->image_size / v->patch_size, w = v->width, p = v->patch_size;
    int64_t vision = 3 * p * p * w + w + (side * side + 1) * w + (v->no_ln_pre ? 2 : 4) * w +
                     v->layers * block_params(w, v->mlp_ratio) + w * config->embed_dim;
    w = t->width;
    int64_t text = (int64_t)t->vocab_size * w + t->context_length * w + 2 * w +
                   t->layers * block_params(w, t->mlp_ratio) + w * config->embed_dim;
    return vision + text + 1;
}

static void check_together(mistakes *list, const dip_model_config *config)
{
    const dip_vision_config *v = &config->vision;
    const dip_text_config *t = &config->text;
    const int64_t max_params = (int64_t)1 << 33;
    int64_t side = v->image_size / v->patch_size;
    if (v->image_size % v->patch_size != 0)
        add(list, "vision_cfg: image_size %d is not a multiple of patch_size %d", v->image_size,
            v->patch_size);
    if (side * side > 65535)
        add(list, "vision_cfg: image_size %d and patch_size %d make more than 65535 patches",
            v->image_size, v->patch_size);
    if (v->width % v->head_width != 0)
        add(list, "vision_cfg: width %d is not a multiple of head_width %d", v->width,
            v->head_width);
    if (t->width % t->heads != 0)
        add(list, "text_cfg: width %d is not a multiple of heads %d", t->width, t->heads);
    if (v->width * v->mlp_ratio < 1 || t->width * t->mlp_ratio < 1)
        add(list, "mlp_ratio: an MLP would have no units");
    if (count_params(config) > max_params)
        add(list, "the model would have %lld parameters; the limit is %lld",
            (long long)count_params(config), (long long)max_params);
}

/* ---- the whole --------------------------------------------------------------------------------
 */

static void set_defaults(dip_model_config *config)
{
    *config = (dip_model_config){
        .init_logit_scale = log(1 / 0.07),
        .vision = {.image_size = 224,
                   .patch_size = 16,
                   .width = 768,
                   .layers = 12,
                   .head_width = 64,
                   .mlp_ratio = 4,
                   .norm_eps = 1e-5},
        .text = {.context_length = 77,
                 .vocab_size = 49408,
                 .width = 512,
                 .heads = 8,
                 .layers = 12,
                 .mlp_ratio = 4,
                 .eos_id = -1,
                 .norm_eps = 1e-5},
        .preprocess = {.mean = {0.48145466f, 0.4578275f, 0.40821073f},
                       .std = {0.26862954f, 0.26130258f, 0.27577711f}},
    };
}

/* "configs/tiny.json" -> "tiny"; "runs/7/open_clip_config.json" -> "7". */
static void set_name(dip_model_config *config, const char *source)
{
    const char *end = source + strlen(source), *slash = strrchr(source, '/');
    if (slash && strcmp(slash + 1, "open_clip_config.json") == 0)
        end = slash;
    else if (end - source > 5 && strcmp(end - 5, ".json") == 0)
        end -= 5;
    const char *start = end;
    while (start > source && start[-1] != '/') start--;
    snprintf(config->name, sizeof config->name, "%.*s", (int)(end - start), start);
}

dip_status dip_model_config_from_json(dip_model_config *config, const cJSON *json,
                                      const char *source)
{
    mistakes list = {.used = 0};
    const cJSON *model = json, *preprocess = NULL, *tower;
    set_defaults(config);
    set_name(config, source);
    if (!cJSON_IsObject(json))
        return dip_fail(DIP_CONFIG, "%s: a model configuration is a JSON object", source);
    if (cJSON_HasObjectItem(json, "model_cfg")) {
        read_object(&list, config, file_rows, N_ROWS(file_rows), json, "");
        model = need_object(&list, json, "model_cfg");
        if (cJSON_HasObjectItem(json, "preprocess_cfg"))
            preprocess = need_object(&list, json, "preprocess_cfg");
    }
    if (model) {
        read_object(&list, config, model_rows, N_ROWS(model_rows), model, "");
        if (!cJSON_HasObjectItem(model, "embed_dim")) add(&list, "embed_dim: missing");
        if ((tower = need_object(&list, model, "vision_cfg"))) read_vision(&list, config, tower);
        if ((tower = need_object(&list, model, "text_cfg"))) read_text(&list, config, tower);
        check_together(&list, config);
    }
    if (preprocess) read_preprocess(&list, config, preprocess);
    config->vision.activation = config->quick_gelu ? DIP_ACT_QUICKGELU : DIP_ACT_GELU;
    config->text.activation = config->vision.activation;
    if (list.n == 0) return DIP_OK;
    if (list.n > list.n_written)
        return dip_fail(DIP_CONFIG, "%.200s: %d mistakes, the first %d are:%s", source, list.n,
                        list.n_written, list.text);
    return dip_fail(DIP_CONFIG, "%.200s: %d mistake%s:%s", source, list.n, list.n > 1 ? "s" : "",
                    list.text);
}
