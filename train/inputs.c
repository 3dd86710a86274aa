#include "train/inputs.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/log.h"
#include "model/evaluate.h"
#include "train/run_folder.h"

enum { MISTAKES_BYTES = 4096 };

/* ---- checking: every mistake at once, before any work ------------------------------------ */

/* Add the current error sentence to the list if `status` is a failure. */
static void collect(char *mistakes, dip_status status)
{
    const size_t used = strlen(mistakes);
    if (status != DIP_OK)
        snprintf(mistakes + used, MISTAKES_BYTES - used, "%s%s", used ? "\n" : "", dip_error());
}

static dip_status open_model(dip_inputs *inputs)
{
    const dip_train_options *o = inputs->options;
    dip_model_config *config = &inputs->config;
    DIP_TRY(dip_model_config_open(config, o->model));
    config->init_logit_scale = fmin(config->init_logit_scale, log(100.0));
    for (int i = 0; i < 3; i++) {
        if (o->image_mean >= 0) config->preprocess.mean[i] = (float)o->image_mean;
        if (o->image_std > 0) config->preprocess.std[i] = (float)o->image_std;
    }
    return DIP_OK;
}

static const char *pattern_of(const dip_train_options *o, dip_input_set set)
{
    switch (set) {
    case DIP_INPUT_TRAIN:
        return o->train_data;
    case DIP_INPUT_VAL:
        return o->val_data;
    default:
        return o->zeroshot_data;
    }
}

dip_status dip_inputs_check(dip_inputs *inputs, const dip_train_options *o)
{
    char mistakes[MISTAKES_BYTES] = "";
    *inputs = (dip_inputs){.options = o};
    collect(mistakes, dip_train_options_check(o));
    collect(mistakes, open_model(inputs));
    if (o->tokenizer) collect(mistakes, dip_tokenizer_open(&inputs->tokenizer, o->tokenizer));
    for (int set = 0; set < DIP_N_INPUT_SETS; set++) {
        const char *pattern = pattern_of(o, (dip_input_set)set);
        if (pattern) collect(mistakes, dip_pattern_expand_files(&inputs->shards[set], pattern));
    }
    if (o->classnames) collect(mistakes, dip_classnames_read(&inputs->classnames, o->classnames));
    if (o->templates) collect(mistakes, dip_templates_read(&inputs->templates, o->templates));
    collect(mistakes, dip_run_folder_check(o));
    return mistakes[0] ? dip_fail(DIP_CONFIG, "%s", mistakes) : DIP_OK;
}

void dip_inputs_close(dip_inputs *inputs)
{
    dip_tokenizer_close(inputs->tokenizer);
    for (int set = 0; set < DIP_N_INPUT_SETS; set++) {
        dip_samples_close(inputs->samples[set]);
        dip_string_list_free(&inputs->shards[set]);
    }
    dip_string_list_free(&inputs->classnames);
    dip_string_list_free(&inputs->templates);
    dip_faults_close(inputs->faults);
    *inputs = (dip_inputs){0};
}

/* ---- reading ----------------------------------------------------------------------------- */

static void fit_text_tower(dip_inputs *inputs)
{
    dip_text_config *text = &inputs->config.text;
    const int vocab = dip_tokenizer_vocab_size(inputs->tokenizer);
    const int eos = dip_tokenizer_eos(inputs->tokenizer);
    if (text->vocab_size != vocab)
        dip_info("vocab_size %d of model %s becomes %d, the tokenizer's", text->vocab_size,
                 inputs->options->model, vocab);
    text->vocab_size = vocab;
    text->eos_id = eos == vocab - 1 ? -1 : eos;
}

/* An image of a class without a name would end the run at its first measurement. */
static dip_status check_labels(const dip_inputs *inputs)
{
    const dip_samples *samples = inputs->samples[DIP_INPUT_ZEROSHOT];
    const size_t n_classes = inputs->classnames.n_items;
    for (int64_t i = 0; i < dip_samples_count(samples); i++) {
        const dip_sample sample = dip_samples_get(samples, i);
        char where[512];
        if (sample.label >= 0 && (size_t)sample.label < n_classes) continue;
        return dip_fail(DIP_CONFIG,
                        "--zeroshot-data %s: label %lld is not one of 0..%zu, the classes "
                        "of --classnames %s",
                        dip_sample_where(&sample, where, sizeof where), (long long)sample.label,
                        n_classes - 1, inputs->options->classnames);
    }
    return DIP_OK;
}

dip_status dip_inputs_index(dip_inputs *inputs)
{
    const dip_train_options *o = inputs->options;
    fit_text_tower(inputs);
    DIP_TRY(dip_faults_open(&inputs->faults));
    for (int set = 0; set < DIP_N_INPUT_SETS; set++) {
        if (!pattern_of(o, (dip_input_set)set)) continue;
        const int second = set == DIP_INPUT_ZEROSHOT ? DIP_NEEDS_LABEL : DIP_NEEDS_CAPTION;
        DIP_TRY(dip_samples_open(&inputs->samples[set], &inputs->shards[set],
                                 DIP_NEEDS_IMAGE | second, o->json_text_key, inputs->faults));
    }
    return inputs->samples[DIP_INPUT_ZEROSHOT] ? check_labels(inputs) : DIP_OK;
}

dip_loader_options dip_inputs_loader(const dip_inputs *inputs, dip_input_set set)
{
    const dip_train_options *o = inputs->options;
    const dip_model_config *config = &inputs->config;
    const bool crop = o->crop_scale_min < 1 || o->crop_ratio > 1;
    const bool training = set == DIP_INPUT_TRAIN;
    return (dip_loader_options){
        .samples = inputs->samples[set],
        .faults = inputs->faults,
        .batch_size = training ? o->batch_size * o->accum_freq : o->batch_size,
        .image_size = config->vision.image_size,
        .n_workers = (int)o->workers,
        .n_prefetch = (int)o->prefetch,
        .shuffle = training,
        .drop_last = training,
        .seed = (uint64_t)o->seed,
        .max_pixels = o->max_image_pixels,
        .max_bad_fraction = o->max_bad_fraction,
        .random_crop = training && crop,
        .crop_scale = {o->crop_scale_min, o->crop_scale_max},
        .crop_ratio = {1 / o->crop_ratio, o->crop_ratio},
        .flip_probability = training ? o->flip : 0,
        .filter = config->preprocess.bilinear ? DIP_BILINEAR : DIP_BICUBIC,
        .resize_mode = config->preprocess.squash ? DIP_RESIZE_SQUASH : DIP_RESIZE_SHORTEST,
        .encode = set == DIP_INPUT_ZEROSHOT ? NULL : dip_tokenizer_encode_caption,
        .encode_context = inputs->tokenizer,
        .context_length = config->text.context_length,
        .random_caption_line = training && strcmp(o->caption_lines, "random") == 0,
    };
}

void dip_inputs_mention_captions(const dip_inputs *inputs)
{
    enum { LOOKED_AT = 1000 };
    const dip_samples *samples = inputs->samples[DIP_INPUT_TRAIN];
    int64_t n = dip_samples_count(samples), n_lines = 0;
    if (n > LOOKED_AT) n = LOOKED_AT;
    for (int64_t i = 0; i < n; i++) {
        const dip_sample sample = dip_samples_get(samples, i);
        const int lines = dip_caption_lines(sample.caption, sample.caption_bytes, NULL, NULL);
        n_lines += lines > 1 ? lines : 1;
    }
    if (n_lines == n || strcmp(inputs->options->caption_lines, "random") == 0) return;
    dip_info("the first %lld pairs hold %lld caption lines; the first line of each is used "
             "(--caption-lines random draws one each epoch)",
             (long long)n, (long long)n_lines);
}
