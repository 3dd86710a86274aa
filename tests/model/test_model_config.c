/* model/config.h: built-in models, open_clip's JSON in and out, every refusal by name. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "model/builtin.h"
#include "model/config.h"

static void must(dip_status status)
{
    if (status != DIP_OK) fail_msg("%s: %s", dip_status_text(status), dip_error());
}

static dip_status read_text(dip_model_config *config, const char *text)
{
    cJSON *json;
    must(dip_json_parse(&json, text, strlen(text), "test"));
    dip_status status = dip_model_config_from_json(config, json, "test.json");
    cJSON_Delete(json);
    return status;
}

/* Single quotes for double ones, as in every JSON text below. */
static char *quoted(const char *format, const char *part)
{
    static char text[8192];
    snprintf(text, sizeof text, format, part);
    for (char *p = text; *p; p++)
        if (*p == '\'') *p = '"';
    return text;
}

static void expect(const char *words)
{
    if (!strstr(dip_error(), words)) fail_msg("'%s' does not say '%s'", dip_error(), words);
}

/* `part` is spliced into a good configuration at the place that `format` marks. */
#define TOP    "{'embed_dim': 64, %s, 'vision_cfg': {}, 'text_cfg': {}}"
#define VISION "{'embed_dim': 64, 'vision_cfg': {%s}, 'text_cfg': {}}"
#define TEXT   "{'embed_dim': 64, 'vision_cfg': {}, 'text_cfg': {%s}}"
#define PREPRO                                                                                     \
    "{'model_cfg': {'embed_dim': 64, 'vision_cfg': {}, 'text_cfg': {}}, 'preprocess_cfg': {%s}}"

static void accept(dip_model_config *config, const char *format, const char *part)
{
    must(read_text(config, quoted(format, part)));
}

static void refuse(const char *format, const char *part, const char *words)
{
    dip_model_config config;
    if (read_text(&config, quoted(format, part)) != DIP_CONFIG) fail_msg("accepted: %s", part);
    expect(words);
}

static void builtin_models(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int embed, image, patch, v_width, v_layers, head_width, context, vocab, t_width, heads,
            t_layers, quick;
    } rows[] = {
        {"tiny", 128, 28, 4, 192, 6, 64, 16, 1000, 192, 3, 4, 0},
        {"small", 256, 64, 8, 384, 6, 64, 32, 8000, 256, 4, 6, 0},
        {"ViT-S-32", 384, 224, 32, 384, 12, 64, 77, 49408, 384, 6, 12, 0},
        {"ViT-S-16", 384, 224, 16, 384, 12, 64, 77, 49408, 384, 6, 12, 0},
        {"ViT-B-32", 512, 224, 32, 768, 12, 64, 77, 49408, 512, 8, 12, 0},
        {"ViT-B-32-quickgelu", 512, 224, 32, 768, 12, 64, 77, 49408, 512, 8, 12, 1},
        {"ViT-B-16", 512, 224, 16, 768, 12, 64, 77, 49408, 512, 8, 12, 0},
        {"ViT-L-14", 768, 224, 14, 1024, 24, 64, 77, 49408, 768, 12, 12, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        dip_model_config c;
        must(dip_model_config_named(&c, rows[i].name));
        assert_string_equal(c.name, rows[i].name);
        assert_int_equal(c.embed_dim, rows[i].embed);
        assert_int_equal(c.vision.image_size, rows[i].image);
        assert_int_equal(c.vision.patch_size, rows[i].patch);
        assert_int_equal(c.vision.width, rows[i].v_width);
        assert_int_equal(c.vision.layers, rows[i].v_layers);
        assert_int_equal(c.vision.head_width, rows[i].head_width);
        assert_int_equal(c.text.context_length, rows[i].context);
        assert_int_equal(c.text.vocab_size, rows[i].vocab);
        assert_int_equal(c.text.width, rows[i].t_width);
        assert_int_equal(c.text.heads, rows[i].heads);
        assert_int_equal(c.text.layers, rows[i].t_layers);
        assert_int_equal(c.vision.activation, rows[i].quick ? DIP_ACT_QUICKGELU : DIP_ACT_GELU);
        assert_int_equal(c.text.activation, c.vision.activation);
        assert_true(c.vision.mlp_ratio == 4 && c.text.mlp_ratio == 4);
        assert_true(c.vision.norm_eps == 1e-5 && c.text.norm_eps == 1e-5);
        assert_int_equal(c.text.eos_id, -1);
        assert_true(fabs(c.init_logit_scale - 2.6592600369) < 1e-9);
        assert_true(c.preprocess.mean[0] == 0.48145466f && c.preprocess.std[2] == 0.27577711f);
        assert_false(c.preprocess.bilinear || c.preprocess.squash);
    }
    size_t n;
    const char *const *names = dip_model_names(&n);
    assert_int_equal(n, dip_n_builtin_models);
    assert_true(n >= 10);
    for (size_t i = 0; i < n; i++) {
        dip_model_config c;
        must(dip_model_config_open(&c, names[i]));
    }
}

static void opening(void **state)
{
    (void)state;
    dip_model_config c;
    assert_int_equal(dip_model_config_open(&c, "ViT-B-23"), DIP_CONFIG);
    expect("did you mean ViT-B-32?");
    expect("tiny");
    assert_int_equal(dip_model_config_named(&c, "zzzzzzzz"), DIP_CONFIG);
    assert_int_equal(dip_model_config_open(&c, "no/such.json"), DIP_IO);
    assert_int_equal(dip_model_config_open(&c, "such.json"), DIP_IO);
    must(dip_model_config_open(&c, TEST_SOURCE_DIR "/configs/model/tiny.json"));
    assert_string_equal(c.name, "tiny");

    must(dip_make_dirs(TEST_BINARY_DIR "/test_model_config/run-7"));
    const char *folder = TEST_BINARY_DIR "/test_model_config/run-7";
    const char *file = TEST_BINARY_DIR "/test_model_config/run-7/open_clip_config.json";
    const char *text = quoted(PREPRO, "'mean': [0.5, 0.5, 0.5]");
    must(dip_file_write(file, text, strlen(text)));
    must(dip_model_config_open(&c, folder));
    assert_string_equal(c.name, "run-7");
    assert_true(c.preprocess.mean[1] == 0.5f);
    must(dip_file_write(file, "{\"embed_dim\": 5,}", 17));
    assert_int_equal(dip_model_config_open(&c, file), DIP_FORMAT);
    must(dip_remove_tree(TEST_BINARY_DIR "/test_model_config"));
}

static void values_arrive(void **state)
{
    (void)state;
    dip_model_config c;
    accept(&c, VISION,
           "'image_size': 96, 'patch_size': 12, 'width': 96, 'layers': 3, 'head_width': 24, "
           "'mlp_ratio': 2.5, 'no_ln_pre': true, 'final_ln_after_pool': true, 'pool_type': 'avg', "
           "'norm_kwargs': {'eps': 1e-6}");
    assert_int_equal(c.vision.image_size, 96);
    assert_int_equal(c.vision.head_width, 24);
    assert_true(c.vision.mlp_ratio == 2.5 && c.vision.norm_eps == 1e-6);
    assert_true(c.vision.no_ln_pre && c.vision.final_ln_after_pool);
    assert_int_equal(c.vision.pool, DIP_POOL_AVG);
    accept(&c, TEXT, "'pool_type': 'eos', 'eos_id': 1, 'vocab_size': 32000, 'norm_kwargs': null");
    assert_int_equal(c.text.eos_id, 1);
    accept(&c, TEXT, "'pool_type': 'argmax', 'eos_id': 1");
    assert_int_equal(c.text.eos_id, -1);
    accept(&c, TOP, "'quick_gelu': true, 'init_logit_scale': 2.302585");
    assert_true(c.quick_gelu && c.init_logit_scale == 2.302585);
    accept(&c, PREPRO,
           "'mean': [0, 0.25, 0.5], 'std': [1, 2, 3], 'interpolation': 'bilinear', "
           "'resize_mode': 'squash', 'size': [224, 224], 'mode': 'RGB', 'fill_color': 0");
    assert_true(c.preprocess.mean[1] == 0.25f && c.preprocess.std[2] == 3);
    assert_true(c.preprocess.bilinear && c.preprocess.squash);
}

/* Every key that open_clip's configuration classes know, at its default. */
static void resting_values_are_fine(void **state)
{
    (void)state;
    dip_model_config c;
    accept(&c, TOP,
           "'init_logit_bias': null, 'nonscalar_logit_scale': false, 'custom_text': false, "
           "'output_dict': true");
#define BLOCK                                                                                      \
    "'ls_init_value': null, 'output_tokens': false, 'act_kwargs': null, 'norm_kwargs': null, "     \
    "'block_type': null, 'qk_norm': false, 'scaled_cosine_attn': false, 'scale_heads': false, "    \
    "'scale_attn_inner': false, 'scale_attn': false, 'scale_fc': false, "
    accept(&c, VISION,
           BLOCK "'patch_dropout': 0.0, 'attentional_pool': false, 'attn_pooler_queries': 256, "
                 "'attn_pooler_heads': 8, 'no_ln_pre': false, 'pos_embed_type': 'learnable', "
                 "'final_ln_after_pool': false, 'pool_type': 'tok', 'image_seq_len': null, "
                 "'timm_model_name': null, 'timm_model_pretrained': false, 'timm_pool': 'avg', "
                 "'timm_proj': 'linear', 'timm_proj_bias': false, 'timm_drop': 0.0, "
                 "'timm_drop_path': null, 'timm_model_kwargs': null");
    accept(&c, TEXT,
           BLOCK "'hf_tokenizer_name': null, 'tokenizer_mode': null, 'tokenizer_kwargs': null, "
                 "'embed_cls': false, 'pad_id': 0, 'bos_id': null, 'eos_id': 2, "
                 "'no_causal_mask': false, 'final_ln_after_pool': false, 'pool_type': 'argmax', "
                 "'proj_bias': false, 'proj_type': 'linear', 'text_arch': 'clip', "
                 "'variable_text': false, 'tokenizer_type': '', 'tiktoken_name': 'cl100k_base', "
                 "'hf_model_name': null, 'hf_model_pretrained': true, 'hf_proj_type': 'mlp', "
                 "'hf_pooler_type': 'mean_pooler', 'hf_model_config': null");
}

static void features_are_refused_by_name(void **state)
{
    (void)state;
    refuse(TOP, "'init_logit_bias': -10", "init_logit_bias: -10 asks for a logit bias");
    refuse(TOP, "'custom_text': true", "a custom text tower");
    refuse(TOP, "'multimodal_cfg': {}", "CoCa");
    refuse(TOP, "'nonscalar_logit_scale': true", "not a scalar");
    refuse(VISION, "'timm_model_name': 'vit_base_patch16_224'", "an image tower of timm");
    refuse(VISION, "'attentional_pool': true", "attentional pooling");
    refuse(VISION, "'patch_dropout': 0.5", "vision_cfg.patch_dropout: 0.5 asks for patch dropout");
    refuse(VISION, "'ls_init_value': 1e-5", "layer scale");
    refuse(VISION, "'pos_embed_type': 'sin_cos_2d'", "positions that are not learned");
    refuse(VISION, "'pool_type': 'none'", "is not \"tok\" or \"avg\"");
    refuse(VISION, "'layers': [3, 4, 6, 3]", "a list means a ResNet");
    refuse(VISION, "'act_kwargs': {'approximate': 'tanh'}", "another activation");
    refuse(VISION, "'qk_norm': true", "vision_cfg.qk_norm: true");
    refuse(TEXT, "'hf_model_name': 'roberta-base'", "a text tower of Hugging Face");
    refuse(TEXT, "'no_causal_mask': true", "not causal");
    refuse(TEXT, "'embed_cls': true", "a class token");
    refuse(TEXT, "'proj_type': 'none'", "another text projection");
    refuse(TEXT, "'proj_bias': true", "projection with a bias");
    refuse(TEXT, "'pool_type': 'last'", "is not \"argmax\" or \"eos\"");
    refuse(TEXT, "'text_arch': 'modern'", "another text architecture");
    refuse(PREPRO, "'interpolation': 'random'", "is not \"bicubic\" or \"bilinear\"");
    refuse(PREPRO, "'resize_mode': 'longest'", "is not \"shortest\" or \"squash\"");
    refuse(PREPRO, "'mode': 'L'", "not RGB");
}

static void values_are_checked(void **state)
{
    (void)state;
    refuse(VISION, "'patchsize': 16",
           "vision_cfg.patchsize: unknown key; did you mean patch_size?");
    refuse(TEXT, "'qqqqqqqq': 16", "text_cfg.qqqqqqqq: unknown key");
    refuse(TOP, "'vision': {}", "vision: unknown key");
    refuse(PREPRO, "'sdt': [1, 1, 1]", "did you mean std?");
    refuse(VISION, "'image_size': 100", "image_size 100 is not a multiple of patch_size 16");
    refuse(VISION, "'width': 100", "width 100 is not a multiple of head_width 64");
    refuse(TEXT, "'heads': 7", "width 512 is not a multiple of heads 7");
    refuse(TEXT, "'heads': 0", "text_cfg.heads: 0 is not a whole number from 1 to 1024");
    refuse(TEXT, "'heads': '8'", "text_cfg.heads: \"8\" is not a whole number");
    refuse(TEXT, "'width': 512.5", "512.5 is not a whole number");
    refuse(TEXT, "'width': 1e300", "is not a whole number");
    refuse(TEXT, "'vocab_size': -1", "vocab_size: -1");
    refuse(TEXT, "'mlp_ratio': 0", "mlp_ratio: 0");
    refuse(VISION, "'no_ln_pre': 1", "1 is not true or false");
    refuse(VISION, "'norm_kwargs': {'epsilon': 1}", "vision_cfg.norm_kwargs");
    refuse(VISION, "'norm_kwargs': {'eps': 0}", "vision_cfg.norm_kwargs");
    refuse(VISION, "'image_size': 4096, 'patch_size': 1", "more than 65535 patches");
    refuse(VISION, "'width': 16384, 'layers': 256", "the limit is 8589934592");
    refuse(TEXT, "'pool_type': 'eos'", "text_cfg.eos_id: missing");
    refuse(TEXT, "'pool_type': 'eos', 'eos_id': 49408", "49408 is not an id");
    refuse(TOP, "'quick_gelu': 'yes'", "quick_gelu");
    refuse(PREPRO, "'std': [1, 0, 1]", "preprocess_cfg.std");
    refuse(PREPRO, "'mean': [1, 1]", "three numbers");
    refuse("%s", "[]", "is a JSON object");
    refuse("%s", "{}", "embed_dim: missing");
    expect("vision_cfg: missing");
    expect("text_cfg: missing");
    refuse("{'embed_dim': 64, 'vision_cfg': %s, 'text_cfg': {}}", "3",
           "vision_cfg: 3 is not an object");
    refuse("{'model_cfg': %s}", "null", "model_cfg: null is not an object");
}

static void all_mistakes_at_once(void **state)
{
    (void)state;
    dip_model_config c;
    const char *text =
        quoted("%s", "{'embed_dim': 0, 'vision_cfg': {'width': 'x', 'image_size': 90},"
                     " 'text_cfg': {'heads': 5, 'embed_cls': true}, 'wrong': 1}");
    assert_int_equal(read_text(&c, text), DIP_CONFIG);
    expect("test.json: 6 mistakes:");
    expect("\n  embed_dim: 0");
    expect("\n  vision_cfg.width: \"x\"");
    expect("\n  vision_cfg: image_size 90");
    expect("\n  text_cfg: width 512 is not a multiple of heads 5");
    expect("\n  text_cfg.embed_cls: true");
    expect("\n  wrong: unknown key");

    /* More than a message holds: the first ones, and how many there are. */
    char many[8192] = "{\"a\":1";
    for (int i = 0; i < 300; i++) {
        size_t used = strlen(many);
        snprintf(many + used, sizeof many - used, ",\"quite_wrong_%d\":1", i);
    }
    strcat(many, "}");
    assert_int_equal(read_text(&c, many), DIP_CONFIG);
    expect("304 mistakes, the first ");
}

static void same_config(const dip_model_config *a, const dip_model_config *b)
{
    assert_int_equal(a->embed_dim, b->embed_dim);
    assert_int_equal(a->quick_gelu, b->quick_gelu);
    assert_true(a->init_logit_scale == b->init_logit_scale);
    assert_memory_equal(&a->preprocess.mean, &b->preprocess.mean, sizeof a->preprocess.mean);
    assert_memory_equal(&a->preprocess.std, &b->preprocess.std, sizeof a->preprocess.std);
    assert_int_equal(a->preprocess.bilinear, b->preprocess.bilinear);
    assert_int_equal(a->preprocess.squash, b->preprocess.squash);
    const dip_vision_config *v = &a->vision, *w = &b->vision;
    assert_true(v->image_size == w->image_size && v->patch_size == w->patch_size &&
                v->width == w->width && v->layers == w->layers && v->head_width == w->head_width &&
                v->mlp_ratio == w->mlp_ratio && v->pool == w->pool &&
                v->no_ln_pre == w->no_ln_pre && v->norm_eps == w->norm_eps &&
                v->final_ln_after_pool == w->final_ln_after_pool && v->activation == w->activation);
    const dip_text_config *t = &a->text, *u = &b->text;
    assert_true(t->context_length == u->context_length && t->vocab_size == u->vocab_size &&
                t->width == u->width && t->heads == u->heads && t->layers == u->layers &&
                t->mlp_ratio == u->mlp_ratio && t->eos_id == u->eos_id &&
                t->norm_eps == u->norm_eps && t->activation == u->activation);
}

/* Also through text, as it happens with checkpoints. */
static void round_trip(const dip_model_config *config)
{
    cJSON *json = dip_model_config_to_json(config);
    assert_non_null(json);
    char *text = cJSON_PrintUnformatted(json);
    dip_model_config back;
    must(read_text(&back, text));
    same_config(config, &back);
    cJSON_free(text);
    cJSON_Delete(json);
}

static void json_round_trips(void **state)
{
    (void)state;
    size_t n;
    const char *const *names = dip_model_names(&n);
    dip_model_config c;
    for (size_t i = 0; i < n; i++) {
        must(dip_model_config_named(&c, names[i]));
        round_trip(&c);
    }
    accept(&c, VISION,
           "'image_size': 96, 'patch_size': 12, 'width': 96, 'layers': 3, 'head_width': 24, "
           "'mlp_ratio': 2.3, 'no_ln_pre': true, 'final_ln_after_pool': true, 'pool_type': 'avg', "
           "'norm_kwargs': {'eps': 1e-6}");
    round_trip(&c);
    accept(&c, TEXT,
           "'pool_type': 'eos', 'eos_id': 1, 'mlp_ratio': 3, 'norm_kwargs': {'eps': 1e-7}");
    round_trip(&c);
    accept(&c, TOP, "'quick_gelu': true, 'init_logit_scale': 2.302585");
    round_trip(&c);
    accept(&c, PREPRO,
           "'mean': [0.1, 0.2, 0.3], 'std': [0.333333333, 2, 3], 'interpolation': 'bilinear', "
           "'resize_mode': 'squash'");
    round_trip(&c);
}

/* What open_clip 3.3.0 and 4.2 load; golden text, because their files look like this. */
static void json_as_open_clip_writes_it(void **state)
{
    (void)state;
    dip_model_config c;
    must(dip_model_config_named(&c, "ViT-B-32-quickgelu"));
    cJSON *json = dip_model_config_to_json(&c);
    char *text = cJSON_PrintUnformatted(json);
    assert_string_equal(
        text, quoted("%s", "{'model_cfg':{'embed_dim':512,'quick_gelu':true,'vision_cfg':{"
                           "'image_size':224,'layers':12,'width':768,'patch_size':32},'text_cfg':{"
                           "'context_length':77,'vocab_size':49408,'width':512,'heads':8,"
                           "'layers':12}},'preprocess_cfg':{'mean':[0.48145466,0.4578275,"
                           "0.40821073],'std':[0.26862954,0.26130258,0.27577711],"
                           "'interpolation':'bicubic','resize_mode':'shortest'}}"));
    cJSON_free(text);
    cJSON_Delete(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(builtin_models),
        cmocka_unit_test(opening),
        cmocka_unit_test(values_arrive),
        cmocka_unit_test(resting_values_are_fine),
        cmocka_unit_test(features_are_refused_by_name),
        cmocka_unit_test(values_are_checked),
        cmocka_unit_test(all_mistakes_at_once),
        cmocka_unit_test(json_round_trips),
        cmocka_unit_test(json_as_open_clip_writes_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
