/* A configuration as open_clip writes it: only keys that open_clip knows, and those that every
 * version of it knows unless a value differs from the default. */
#include <math.h>
#include <stdio.h>

#include "core/number.h"
#include "model/config.h"

/* cJSON_Delete frees everything that was attached, so one flag is enough to notice failure. */
typedef struct writer {
    bool failed;
} writer;

static cJSON *object(writer *w, cJSON *parent, const char *key)
{
    cJSON *child = cJSON_AddObjectToObject(parent, key);
    w->failed |= !child;
    return child;
}

static void number(writer *w, cJSON *parent, const char *key, double value)
{
    w->failed |= !cJSON_AddNumberToObject(parent, key, value);
}

static void word(writer *w, cJSON *parent, const char *key, const char *value)
{
    w->failed |= !cJSON_AddStringToObject(parent, key, value);
}

static void number_unless(writer *w, cJSON *parent, const char *key, double value, double usual)
{
    if (value != usual) number(w, parent, key, value);
}

static void flag(writer *w, cJSON *parent, const char *key, bool value)
{
    if (value) w->failed |= !cJSON_AddTrueToObject(parent, key);
}

static void norm(writer *w, cJSON *parent, double eps)
{
    if (eps != 1e-5) number(w, object(w, parent, "norm_kwargs"), "eps", eps);
}

/* OpenAI's constants as they are printed everywhere, else the shortest decimal that is this float:
 * 0.1f must not become 0.100000001490116. */
static double shortest(float value)
{
    static const double known[] = {0.48145466, 0.4578275,  0.40821073,
                                   0.26862954, 0.26130258, 0.27577711};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if ((float)known[i] == value) return known[i];
    char text[32];
    double out = value;
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)value);
        for (char *p = text; *p; p++)
            if (*p == ',') *p = '.'; /* locales with a decimal comma */
        if (dip_number_read_double(&out, text) == DIP_NUMBER_OK && (float)out == value) break;
    }
    return out;
}

static void triple(writer *w, cJSON *parent, const char *key, const float values[3])
{
    cJSON *array = cJSON_AddArrayToObject(parent, key);
    w->failed |= !array;
    for (int i = 0; i < 3; i++) {
        cJSON *item = cJSON_CreateNumber(shortest(values[i]));
        if (!item || !cJSON_AddItemToArray(array, item)) {
            cJSON_Delete(item);
            w->failed = true;
        }
    }
}

static void write_vision(writer *w, cJSON *out, const dip_vision_config *vision)
{
    number(w, out, "image_size", vision->image_size);
    number(w, out, "layers", vision->layers);
    number(w, out, "width", vision->width);
    number_unless(w, out, "head_width", vision->head_width, 64);
    number_unless(w, out, "mlp_ratio", vision->mlp_ratio, 4);
    number(w, out, "patch_size", vision->patch_size);
    flag(w, out, "no_ln_pre", vision->no_ln_pre);
    if (vision->pool == DIP_POOL_AVG) word(w, out, "pool_type", "avg");
    flag(w, out, "final_ln_after_pool", vision->final_ln_after_pool);
    norm(w, out, vision->norm_eps);
}

static void write_text(writer *w, cJSON *out, const dip_text_config *text)
{
    number(w, out, "context_length", text->context_length);
    number(w, out, "vocab_size", text->vocab_size);
    number(w, out, "width", text->width);
    number(w, out, "heads", text->heads);
    number(w, out, "layers", text->layers);
    number_unless(w, out, "mlp_ratio", text->mlp_ratio, 4);
    if (text->eos_id >= 0) {
        word(w, out, "pool_type", "eos");
        number(w, out, "eos_id", text->eos_id);
    }
    norm(w, out, text->norm_eps);
}

cJSON *dip_model_config_to_json(const dip_model_config *config)
{
    writer w = {false};
    cJSON *out = cJSON_CreateObject();
    cJSON *model = object(&w, out, "model_cfg");
    number(&w, model, "embed_dim", config->embed_dim);
    flag(&w, model, "quick_gelu", config->quick_gelu);
    number_unless(&w, model, "init_logit_scale", config->init_logit_scale, log(1 / 0.07));
    write_vision(&w, object(&w, model, "vision_cfg"), &config->vision);
    write_text(&w, object(&w, model, "text_cfg"), &config->text);
    cJSON *preprocess = object(&w, out, "preprocess_cfg");
    triple(&w, preprocess, "mean", config->preprocess.mean);
    triple(&w, preprocess, "std", config->preprocess.std);
    word(&w, preprocess, "interpolation", config->preprocess.bilinear ? "bilinear" : "bicubic");
    word(&w, preprocess, "resize_mode", config->preprocess.squash ? "squash" : "shortest");
    if (!w.failed) return out;
    cJSON_Delete(out);
    return NULL;
}
