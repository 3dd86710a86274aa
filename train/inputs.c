#include "train/inputs.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "data/caption/caption.h"
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
    collect(mistakes, dip_data_plan_open(&inputs->plan, o));
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
        dip_faults_close(inputs->faults[set]);
        dip_string_list_free(&inputs->shards[set]);
    }
    dip_string_list_free(&inputs->classnames);
    dip_string_list_free(&inputs->templates);
    dip_data_plan_close(&inputs->plan);
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
    for (int set = 0; set < DIP_N_INPUT_SETS; set++) {
        if (!pattern_of(o, (dip_input_set)set)) continue;
        const int second = set == DIP_INPUT_ZEROSHOT ? DIP_NEEDS_LABEL : DIP_NEEDS_CAPTION;
        const dip_samples_options options = {.needs = DIP_NEEDS_IMAGE | second |
                                                      (o->json_text_key ? DIP_CAPTION_JSON : 0)};
        DIP_TRY(dip_faults_open(&inputs->faults[set]));
        DIP_TRY(dip_samples_open(&inputs->samples[set], &inputs->shards[set], &options,
                                 inputs->faults[set]));
    }
    DIP_TRY(dip_data_plan_sources(&inputs->plan, inputs->samples[DIP_INPUT_TRAIN], o->train_data));
    return inputs->samples[DIP_INPUT_ZEROSHOT] ? check_labels(inputs) : DIP_OK;
}

dip_loader_options dip_inputs_loader(const dip_inputs *inputs, dip_input_set set)
{
    const dip_train_options *o = inputs->options;
    const dip_model_config *config = &inputs->config;
    const dip_data_plan *plan = &inputs->plan;
    dip_loader_options options = {
        .samples = inputs->samples[set],
        .faults = inputs->faults[set],
        .batch_size = o->batch_size,
        .image_size = config->vision.image_size,
        .n_workers = (int)o->workers,
        .n_prefetch = (int)o->prefetch,
        .seed = (uint64_t)o->seed,
        .max_bad_fraction = o->max_bad_fraction,
        .decode = plan->decode,
        .filter = config->preprocess.bilinear ? DIP_BILINEAR : DIP_BICUBIC,
        .resize_mode = config->preprocess.squash ? DIP_RESIZE_SQUASH : DIP_RESIZE_SHORTEST,
        .encode = set == DIP_INPUT_ZEROSHOT ? NULL : dip_tokenizer_encode_caption,
        .encode_context = inputs->tokenizer,
        .context_length = config->text.context_length,
        .caption = {.json_keys = plan->caption.json_keys, .clean = plan->caption.clean},
    };
    if (set != DIP_INPUT_TRAIN) return options;
    options.batch_size *= o->accum_freq;
    options.shuffle = 1;
    options.last_batch = strcmp(o->last_batch, "wrap") == 0 ? DIP_LAST_WRAP : DIP_LAST_DROP;
    options.sources = plan->sources;
    options.n_sources = plan->n_sources;
    options.resample = o->dataset_resampled;
    options.epoch_samples = o->train_num_samples;
    options.augmentation = plan->augmentation;
    options.caption = plan->caption;
    return options;
}

/* ---- what an epoch is ---------------------------------------------------------------------- */

/* *n: pairs of an epoch. */
static dip_status measure_epoch(const dip_inputs *inputs, int64_t *n, int64_t *n_batches)
{
    const dip_loader_options loader = dip_inputs_loader(inputs, DIP_INPUT_TRAIN);
    const dip_order_options options = dip_loader_order(&loader);
    dip_order *order;
    DIP_TRY(dip_order_open(&order, &options));
    *n = dip_order_length(order);
    *n_batches = dip_order_batches(order, false);
    dip_order_close(order);
    return DIP_OK;
}

dip_status dip_inputs_epoch(const dip_inputs *inputs, int64_t *n_batches)
{
    const dip_train_options *o = inputs->options;
    int64_t n;
    DIP_TRY(measure_epoch(inputs, &n, n_batches));
    if (*n_batches > 0) return DIP_OK;
    return dip_fail(DIP_CONFIG,
                    "--train-data has %lld pairs, fewer than one batch of %lld "
                    "(--batch-size %lld x --accum-freq %lld)",
                    (long long)n, (long long)(o->batch_size * o->accum_freq),
                    (long long)o->batch_size, (long long)o->accum_freq);
}

void dip_inputs_mention_epoch(const dip_inputs *inputs)
{
    const dip_train_options *o = inputs->options;
    const long long wanted = o->train_num_samples, b = o->batch_size * o->accum_freq;
    int64_t n, n_batches;
    if (measure_epoch(inputs, &n, &n_batches) != DIP_OK) return;
    const long long all = n, odd = n % b;
    if (wanted && all != wanted)
        dip_info("an epoch is %lld pairs: --train-num-samples %lld in whole batches of %lld", all,
                 wanted, b);
    if (odd && strcmp(o->last_batch, "wrap") == 0)
        dip_info("an epoch is %lld pairs and the first %lld of the next, which fill up its last "
                 "batch of %lld (--last-batch wrap)",
                 all, b - odd, b);
    else if (odd)
        dip_info(
            "an epoch is %lld pairs, of which %lld, others each time, are left out: they do not "
            "fill a batch of %lld (--last-batch drop)",
            all, odd, b);
}

/* ---- captions that are not used ---------------------------------------------------------- */

/* At least 1, also of a sample that cannot be used. */
static int count_lines(dip_sample_reader *reader, int64_t index, const char *json_text_key)
{
    dip_sample sample;
    dip_fault_kind kind;
    char *text = NULL;
    size_t n_bytes;
    int n = 0;
    if (dip_sample_read(reader, &sample, index, DIP_NEEDS_CAPTION, &kind) != DIP_OK) return 1;
    if (!sample.caption_is_json)
        n = dip_caption_lines(sample.caption, sample.caption_bytes, NULL, NULL);
    else if (dip_caption_from_json(&text, &n_bytes, sample.caption, sample.caption_bytes,
                                   json_text_key) == DIP_OK)
        n = dip_caption_lines(text, n_bytes, NULL, NULL);
    free(text);
    return n > 1 ? n : 1;
}

void dip_inputs_mention_captions(const dip_inputs *inputs)
{
    enum { LOOKED_AT = 1000 };
    const dip_samples *samples = inputs->samples[DIP_INPUT_TRAIN];
    const dip_string_list *keys = &inputs->plan.caption.json_keys;
    int64_t n = dip_samples_count(samples), n_lines = 0;
    dip_sample_reader *reader;
    if (dip_sample_reader_open(&reader, samples) != DIP_OK) return;
    if (n > LOOKED_AT) n = LOOKED_AT;
    for (int64_t i = 0; i < n; i++)
        n_lines += count_lines(reader, i, keys->n_items ? keys->items[0] : NULL);
    dip_sample_reader_close(reader);
    if (n_lines == n || strcmp(inputs->options->caption_lines, "random") == 0) return;
    dip_info("the first %lld pairs hold %lld caption lines; the first line of each is used "
             "(--caption-lines random draws one each epoch)",
             (long long)n, (long long)n_lines);
}

dip_status dip_inputs_mention_augmentations(const dip_inputs *inputs)
{
    char *list;
    DIP_TRY(dip_augmentation_print(&list, inputs->plan.augmentation));
    dip_info("images: %s", list);
    free(list);
    return DIP_OK;
}
