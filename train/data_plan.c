#include "train/data_plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "data/pattern.h"

enum { MISTAKES_BYTES = 2048 };

/* Add the current error sentence to the list. */
static void mistake(char *mistakes)
{
    const size_t used = strlen(mistakes);
    snprintf(mistakes + used, MISTAKES_BYTES - used, "%s%s", used ? "\n" : "", dip_error());
}

/* ---- lists in an option ------------------------------------------------------------------ */

/* The words of `text` between separators. */
static dip_status split(dip_string_list *words, const char *text, const char *separator)
{
    *words = (dip_string_list){0};
    for (const char *at = text, *end; at; at = end ? end + strlen(separator) : NULL) {
        end = strstr(at, separator);
        char **items = realloc(words->items, (words->n_items + 1) * sizeof *items);
        if (items) {
            words->items = items;
            items[words->n_items] = end ? strndup(at, (size_t)(end - at)) : strdup(at);
        }
        if (!items || !items[words->n_items++]) {
            dip_string_list_free(words);
            return dip_fail(DIP_NOMEM, "no memory for a list of words");
        }
    }
    return DIP_OK;
}

/* Numbers of at least 0 between separators, as many as `n`, each of which goes with `what`. *values
 * is malloc'd. */
static dip_status read_numbers(double **values, size_t n, const char *option, const char *text,
                               const char *separator, const char *what)
{
    dip_string_list words;
    DIP_TRY(split(&words, text, separator));
    dip_status status = DIP_OK;
    *values = calloc(n + 1, sizeof **values);
    if (!*values)
        status = dip_fail(DIP_NOMEM, "no memory for %zu numbers", n);
    else if (words.n_items != n)
        status = dip_fail(DIP_CONFIG, "--%s '%s' has %zu numbers and %s %zu", option, text,
                          words.n_items, what, n);
    for (size_t i = 0; status == DIP_OK && i < n; i++) {
        char *end;
        const double value = strtod(words.items[i], &end);
        (*values)[i] = value;
        if (end == words.items[i] || *end || !(value >= 0 && value < INFINITY))
            status = dip_fail(DIP_CONFIG, "--%s: '%s' is not a number of at least 0", option,
                              words.items[i]);
    }
    dip_string_list_free(&words);
    return status;
}

/* ---- parts of the plan ------------------------------------------------------------------- */

static dip_status plan_sources(dip_data_plan *plan, const dip_train_options *o)
{
    const char *text = o->train_data_upsampling_factors;
    double *factors = NULL;
    if (!text || !o->train_data) return DIP_OK;
    dip_string_list patterns;
    DIP_TRY(split(&patterns, o->train_data, "::"));
    const size_t n = patterns.n_items;
    dip_string_list_free(&patterns);
    dip_status status = read_numbers(&factors, n, "train-data-upsampling-factors", text,
                                     "::", "the patterns of --train-data are");
    plan->sources = status == DIP_OK ? calloc(n, sizeof *plan->sources) : NULL;
    if (status == DIP_OK && !plan->sources)
        status = dip_fail(DIP_NOMEM, "no memory for %zu patterns", n);
    for (size_t i = 0; status == DIP_OK && i < n; i++) {
        plan->sources[i].factor = factors[i];
        if (!(factors[i] > 0 && factors[i] <= 1000))
            status = dip_fail(
                DIP_CONFIG, "--train-data-upsampling-factors: %g must be above 0 and at most 1000",
                factors[i]);
    }
    plan->n_sources = (int)n;
    free(factors);
    return status;
}

static dip_status plan_decoding(dip_data_plan *plan, const dip_train_options *o)
{
    plan->decode = dip_decode_defaults();
    plan->decode.max_pixels = o->max_image_pixels;
    plan->decode.max_side = (int)o->max_image_side;
    plan->decode.max_scans = (int)o->max_image_scans;
    plan->decode.max_bytes = o->max_image_bytes;
    plan->decode.exif_rotate = o->exif_rotate;
    plan->decode.scale_in_dct = o->scale_in_dct;
    if (!o->alpha_over) return DIP_OK;
    double *colour = NULL;
    dip_status status =
        read_numbers(&colour, 3, "alpha-over", o->alpha_over, ",", "the parts of a colour are");
    for (int i = 0; status == DIP_OK && i < 3; i++) {
        if (colour[i] > 255 || colour[i] != floor(colour[i]))
            status = dip_fail(DIP_CONFIG, "--alpha-over: %g is not a whole number of 0 to 255",
                              colour[i]);
        else
            plan->decode.alpha_over[i] = (int)colour[i];
    }
    free(colour);
    return status;
}

/* --crop-scale-min, --crop-scale-max, --crop-ratio and --flip as a list; NULL: out of memory. */
static char *usual_list(const dip_train_options *o)
{
    const bool crop = o->crop_scale_min < 1 || o->crop_ratio > 1;
    char *cut =
        crop ? dip_format(", random_resized_crop(%.17g..%.17g, ratio=%.17g..%.17g)",
                          o->crop_scale_min, o->crop_scale_max, 1 / o->crop_ratio, o->crop_ratio)
             : dip_format("%s", "");
    char *flip = o->flip > 0 ? dip_format(", flip(%.17g)", o->flip) : dip_format("%s", "");
    char *list = cut && flip ? dip_format("decode%s%s", cut, flip) : NULL;
    free(cut);
    free(flip);
    return list;
}

static dip_status plan_augmentation(dip_data_plan *plan, const dip_train_options *o)
{
    if (!o->augmentations) {
        if (o->crop_scale_min > o->crop_scale_max) return DIP_OK; /* a mistake that is named */
        char *list = usual_list(o);
        if (!list) return dip_fail(DIP_NOMEM, "no memory for a list of augmentations");
        dip_status status = dip_augmentation_parse(&plan->augmentation, list);
        free(list);
        return status;
    }
    dip_status status = dip_augmentation_parse(&plan->augmentation, o->augmentations);
    if (status == DIP_CONFIG) return dip_fail_prefix(DIP_CONFIG, "--augmentations: ");
    DIP_TRY(status);
    const int n_views = dip_augmentation_views(plan->augmentation);
    if (n_views > 1)
        return dip_fail(DIP_CONFIG,
                        "--augmentations makes %d views of an image; --loss %s reads one", n_views,
                        o->loss);
    if (dip_augmentation_mixes(plan->augmentation))
        return dip_fail(
            DIP_CONFIG,
            "--augmentations mixes images (mixup, cutmix); --loss %s takes each image for "
            "its own caption's alone",
            o->loss);
    return DIP_OK;
}

static dip_status plan_captions(dip_data_plan *plan, const dip_train_options *o)
{
    dip_caption_options *caption = &plan->caption;
    caption->random_line = strcmp(o->caption_lines, "random") == 0;
    caption->word_dropout = o->word_dropout;
    caption->max_bytes = (size_t)o->max_caption_bytes;
    DIP_TRY(dip_caption_clean_find(&caption->clean, o->caption_clean));
    if (!o->json_text_key && o->json_text_key_weights)
        return dip_fail(DIP_CONFIG, "--json-text-key-weights belongs to --json-text-key");
    if (!o->json_text_key) return DIP_OK;
    DIP_TRY(split(&caption->json_keys, o->json_text_key, ","));
    for (size_t i = 0; i < caption->json_keys.n_items; i++)
        if (!caption->json_keys.items[i][0])
            return dip_fail(DIP_CONFIG, "--json-text-key '%s' has an empty key", o->json_text_key);
    if (!o->json_text_key_weights) return DIP_OK;
    double *weights = NULL, sum = 0;
    dip_status status = read_numbers(&weights, caption->json_keys.n_items, "json-text-key-weights",
                                     o->json_text_key_weights, ",", "the keys are");
    caption->json_weights = weights;
    DIP_TRY(status);
    for (size_t i = 0; i < caption->json_keys.n_items; i++) sum += weights[i];
    return sum > 0 ? DIP_OK : dip_fail(DIP_CONFIG, "--json-text-key-weights are all 0");
}

dip_status dip_data_plan_open(dip_data_plan *plan, const dip_train_options *options)
{
    typedef dip_status part_fn(dip_data_plan *, const dip_train_options *);
    static part_fn *const parts[] = {plan_sources, plan_decoding, plan_augmentation, plan_captions};
    char mistakes[MISTAKES_BYTES] = "";
    *plan = (dip_data_plan){0};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        const dip_status status = parts[i](plan, options);
        if (status == DIP_CONFIG)
            mistake(mistakes);
        else
            DIP_TRY(status);
    }
    return mistakes[0] ? dip_fail(DIP_CONFIG, "%s", mistakes) : DIP_OK;
}

void dip_data_plan_close(dip_data_plan *plan)
{
    dip_augmentation_free(plan->augmentation);
    dip_string_list_free(&plan->caption.json_keys);
    free((double *)plan->caption.json_weights);
    free(plan->sources);
    *plan = (dip_data_plan){0};
}

dip_status dip_data_plan_sources(dip_data_plan *plan, const dip_samples *samples,
                                 const char *train_data)
{
    dip_string_list patterns;
    int64_t shard = 0;
    if (!plan->sources) return DIP_OK;
    DIP_TRY(split(&patterns, train_data, "::"));
    dip_status status = DIP_OK;
    for (int i = 0; i < plan->n_sources && status == DIP_OK; i++) {
        dip_order_source *source = &plan->sources[i];
        dip_string_list paths;
        status = dip_pattern_expand(&paths, patterns.items[i]);
        if (status != DIP_OK) break;
        const int64_t end = shard + (int64_t)paths.n_items;
        source->n = 0;
        for (; shard < end && shard < dip_samples_n_shards(samples); shard++) {
            int64_t first, n;
            dip_samples_of_shard(samples, shard, &first, &n);
            if (source->n == 0) source->first = first;
            source->n += n;
        }
        dip_string_list_free(&paths);
        if (source->n == 0)
            status = dip_fail(DIP_CONFIG, "--train-data: there is no usable sample in '%s'",
                              patterns.items[i]);
    }
    dip_string_list_free(&patterns);
    if (status == DIP_OK && shard != dip_samples_n_shards(samples))
        status =
            dip_fail(DIP_CONFIG, "--train-data: the shards of '%s' changed while they were read",
                     train_data);
    return status;
}
