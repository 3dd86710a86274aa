#include "train/options.h"

#include <ctype.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/caption/caption.h"
#include "kernels/device.h"
#include "loss/loss.h"

#define AT(field) offsetof(dip_train_options, field)
#define BIG       9007199254740992.0 /* 2^53: integers that JSON numbers hold exactly */

static const dip_option options[] = {
    {"train-data", DIP_OPT_STRING, AT(train_data), NULL, 0, 0, NULL, true, "PATTERN",
     "Shards to train on: 'shards/{00000..00059}.tar', several patterns joined by '::', or a "
     "folder "
     "of .tar files."},
    {"val-data", DIP_OPT_STRING, AT(val_data), NULL, 0, 0, NULL, false, "PATTERN",
     "Shards held out: loss and cross-modal recall are measured on them."},
    {"train-data-upsampling-factors", DIP_OPT_STRING, AT(train_data_upsampling_factors), NULL, 0, 0,
     NULL, false, "X::X",
     "One number for each pattern of --train-data: 2 gives each of its samples twice an epoch, 1.5 "
     "once and a random half twice, 0.5 a random half. With --dataset-resampled, weights."},
    {"dataset-resampled", DIP_OPT_BOOL, AT(dataset_resampled), "false", 0, 0, NULL, false, NULL,
     "Draw samples with replacement, each with a probability in proportion to its pattern's "
     "factor. Needs --train-num-samples."},
    {"train-num-samples", DIP_OPT_INT, AT(train_num_samples), "0", 0, BIG, NULL, false, "N",
     "Samples of an epoch, rounded to whole batches. Epochs go on where the one before ended; "
     "every sample comes once before one comes again. 0: an epoch is all samples."},
    {"last-batch", DIP_OPT_CHOICE, AT(last_batch), "drop", 0, 0, "drop|wrap", false, "WHAT",
     "An epoch's last batch if samples are too few for it: left out, or filled up from the "
     "beginning of the next epoch's."},
    {"caption-duplicates", DIP_OPT_CHOICE, AT(caption_duplicates), "negative", 0, 0,
     "negative|positive|mask", false, "WHAT",
     "What identical captions in a batch are to each other: negatives (as in open_clip), "
     "positives, "
     "or masked out of the softmax."},
    {"workers", DIP_OPT_INT, AT(workers), "2", 1, 1024, NULL, false, "N",
     "Threads that read and decode. Changes the speed, never the result."},
    {"prefetch", DIP_OPT_INT, AT(prefetch), "4", 2, 64, NULL, false, "N",
     "Batches of images held at most: the one that is trained on, spares, and, from 3 on, those "
     "decoded ahead."},
    {"max-bad-fraction", DIP_OPT_FLOAT, AT(max_bad_fraction), "0.1", 0, 1, NULL, false, "F",
     "Stop when more than this share of the samples of an epoch cannot be used."},
    {"max-dropped-lines", DIP_OPT_INT, AT(max_dropped_lines), "100000", 0, 1 << 30, NULL, false,
     "N",
     "Samples that cannot be used are named in the run's dropped.jsonl, at most N; all are counted "
     "in its ledger.json."},

    {"max-image-pixels", DIP_OPT_INT, AT(max_image_pixels), "25000000", 1, 1e12, NULL, false, "N",
     "Larger images are left out, counted and named."},
    {"max-image-side", DIP_OPT_INT, AT(max_image_side), "65535", 1, 65535, NULL, false, "N",
     "So are images that are wider or higher than this."},
    {"max-image-scans", DIP_OPT_INT, AT(max_image_scans), "100", 1, 10000, NULL, false, "N",
     "So are JPEG files of more scans; real ones have about 10, large images may have fewer than "
     "N (30 at 25 million pixels)."},
    {"max-image-bytes", DIP_OPT_INT, AT(max_image_bytes), "268435456", 1, 1 << 28, NULL, false, "N",
     "So are larger files."},
    {"max-caption-bytes", DIP_OPT_INT, AT(max_caption_bytes), "1048576", 1, 1 << 20, NULL, false,
     "N", "Longer captions cost their sample, counted and named."},
    {"exif-rotate", DIP_OPT_BOOL, AT(exif_rotate), "false", 0, 0, NULL, false, NULL,
     "Turn images as their EXIF orientation says."},
    {"scale-in-dct", DIP_OPT_BOOL, AT(scale_in_dct), "false", 0, 0, NULL, false, NULL,
     "Decode JPEG files at 1/2, 1/4 or 1/8 where the crop is so much larger than the model's "
     "input. A little faster; not the pixels that other programs get."},
    {"alpha-over", DIP_OPT_STRING, AT(alpha_over), NULL, 0, 0, NULL, false, "R,G,B",
     "Colour (0..255) behind transparent images. Default: transparency is ignored, as in "
     "open_clip."},
    {"augmentations", DIP_OPT_STRING, AT(augmentations), NULL, 0, 0, NULL, false, "LIST",
     "What is done to images in training, in order, as \"random_resized_crop(0.9..1), flip(0.5), "
     "color_jitter(0.4, 0.4, 0.4, 0.1, p=0.8)\". Also resize, center_crop, grayscale, "
     "gaussian_blur, rotate, noise, cutout, random_erasing, solarize. In place of "
     "--crop-scale-min, --crop-scale-max, --crop-ratio and --flip."},
    {"crop-scale-min", DIP_OPT_FLOAT, AT(crop_scale_min), "0.9", 0.01, 1, NULL, false, "F",
     "Random resized crop: least share of the image's area. 1 with --crop-ratio 1 turns random "
     "cropping off."},
    {"crop-scale-max", DIP_OPT_FLOAT, AT(crop_scale_max), "1", 0.01, 1, NULL, false, "F",
     "Random resized crop: largest share of the image's area."},
    {"crop-ratio", DIP_OPT_FLOAT, AT(crop_ratio), "1.3333333333333333", 1, 10, NULL, false, "R",
     "Random resized crop: aspect ratios from 1/R to R."},
    {"flip", DIP_OPT_FLOAT, AT(flip), "0", 0, 1, NULL, false, "P",
     "Probability of mirroring an image left-right (open_clip: 0)."},

    {"json-text-key", DIP_OPT_STRING, AT(json_text_key), NULL, 0, 0, NULL, false, "KEY,...",
     "Take captions from this key of the .json member instead of the .txt member; of several, from "
     "the first that is there."},
    {"json-text-key-weights", DIP_OPT_STRING, AT(json_text_key_weights), NULL, 0, 0, NULL, false,
     "X,...", "Draw one of the keys by weight instead; of those that are not there, another."},
    {"caption-lines", DIP_OPT_CHOICE, AT(caption_lines), "first", 0, 0, "first|random", false,
     "WHICH", "Of several captions of an image: the first, or one drawn anew each epoch."},
    {"caption-clean", DIP_OPT_CHOICE, AT(caption_clean), "none", 0, 0, DIP_CAPTION_CLEANS, false,
     "HOW", "Clean captions before they become tokens, as open_clip's tokenizers of that name do."},
    {"word-dropout", DIP_OPT_FLOAT, AT(word_dropout), "0", 0, 1, NULL, false, "P",
     "Probability of leaving out a word of a caption (never all of them)."},

    {"model", DIP_OPT_STRING, AT(model), "ViT-B-32", 0, 0, NULL, false, "NAME|FILE",
     "A built-in model (diptych inspect lists them) or an open_clip model_cfg JSON file."},
    {"tokenizer", DIP_OPT_STRING, AT(tokenizer), NULL, 0, 0, NULL, true, "FILE",
     "SentencePiece model (diptych tokenizer train). Its size becomes the model's vocab_size."},
    {"loss", DIP_OPT_STRING, AT(loss), "infonce", 0, 0, NULL, false, "NAME", "The objective."},
    {"image-mean", DIP_OPT_FLOAT, AT(image_mean), "-1", -1, 1, NULL, false, "X",
     "Subtracted from every channel (values in 0..1). Negative: the model configuration's own."},
    {"image-std", DIP_OPT_FLOAT, AT(image_std), "-1", -1, 10, NULL, false, "X",
     "Divides every channel afterwards. Negative: the model configuration's own."},

    {"batch-size", DIP_OPT_INT, AT(batch_size), "64", 1, 1 << 24, NULL, false, "N",
     "Pairs computed at once."},
    {"accum-freq", DIP_OPT_INT, AT(accum_freq), "1", 1, 1 << 16, NULL, false, "N",
     "Compute the loss over N x batch-size pairs by running each part twice. Exact."},
    {"epochs", DIP_OPT_INT, AT(epochs), "32", 1, 1 << 20, NULL, false, "N",
     "Passes over the data."},
    {"max-steps", DIP_OPT_INT, AT(max_steps), "0", 0, BIG, NULL, false, "N",
     "Stop after N steps; the schedule is laid out for them. 0: run all epochs."},
    {"lr", DIP_OPT_FLOAT, AT(lr), "5e-4", 0, 1000, NULL, false, "X", "Peak learning rate."},
    {"lr-scheduler", DIP_OPT_CHOICE, AT(lr_scheduler), "cosine", 0, 0, "cosine|const", false,
     "KIND", "Learning rate after warm-up."},
    {"warmup", DIP_OPT_INT, AT(warmup), "10000", 0, BIG, NULL, false, "N", "Warm-up steps."},
    {"wd", DIP_OPT_FLOAT, AT(wd), "0.2", 0, 100, NULL, false, "X",
     "Decoupled weight decay. Not applied to parameters of one dimension or less, nor to class and "
     "positional embeddings."},
    {"beta1", DIP_OPT_FLOAT, AT(beta1), "0.9", 0, 0.999999, NULL, false, "X", "AdamW."},
    {"beta2", DIP_OPT_FLOAT, AT(beta2), "0.98", 0, 0.999999, NULL, false, "X", "AdamW."},
    {"eps", DIP_OPT_FLOAT, AT(eps), "1e-6", 1e-12, 1, NULL, false, "X", "AdamW."},
    {"grad-clip-norm", DIP_OPT_FLOAT, AT(grad_clip_norm), "0", 0, 1e9, NULL, false, "X",
     "Scale gradients down to this norm. 0: off."},
    {"ema-decay", DIP_OPT_FLOAT, AT(ema_decay), "0", 0, 0.9999999, NULL, false, "X",
     "Keep an exponential moving average of the weights, saved beside them. 0: off."},
    {"max-skipped-steps", DIP_OPT_INT, AT(max_skipped_steps), "10", 1, BIG, NULL, false, "N",
     "A step whose loss or gradient is not finite changes nothing and is counted; so many in a row "
     "stop the run."},
    {"seed", DIP_OPT_INT, AT(seed), "0", 0, BIG, NULL, false, "N",
     "Decides initial weights, sample order and augmentation."},

    {"device", DIP_OPT_STRING, AT(device), "auto", 0, 0, NULL, false, "NAME",
     "Where to compute: cpu, cuda (the first GPU), cuda:N, or auto, a GPU if there is one. "
     "reference: plain C, slow, for checking."},
    {"precision", DIP_OPT_CHOICE, AT(precision), "auto", 0, 0, "auto|bf16|amp_bf16|fp8|fp32", false,
     "KIND",
     "bf16 keeps fp32 master weights (amp_bf16 is another name for it); auto takes bf16 where the "
     "device is fast at it. fp8 (experimental; on Ada, Hopper or newer) is bf16 but for the "
     "products of the blocks."},
    {"threads", DIP_OPT_INT, AT(threads), "0", 0, 4096, NULL, false, "N",
     "Threads that compute; 0: one a core. Changes the speed, never the result."},
    {"memory", DIP_OPT_STRING, AT(memory), "0", 0, 0, NULL, false, "SIZE",
     "What training may use of the device's memory, as 40G or 512M; 0: what a GPU has, on a CPU no "
     "limit."},
    {"recompute", DIP_OPT_CHOICE, AT(recompute), "auto", 0, 0, "auto|none|mlp|block", false, "WHAT",
     "Activations that backward computes again instead of keeping them: mlp forgets what is cheap, "
     "block all but each layer's input. auto: the first of none, mlp, block that fits into "
     "--memory."},
    {"pad-captions", DIP_OPT_BOOL, AT(pad_captions), "false", 0, 0, NULL, false, NULL,
     "Compute every caption at the full context length, as other programs do. For comparisons: the "
     "result is the same."},
    {"all-rows", DIP_OPT_BOOL, AT(all_rows), "false", 0, 0, NULL, false, NULL,
     "Compute rows of the last layer that nobody reads, as other programs do. For comparisons: the "
     "result is the same."},
    {"cuda-graphs", DIP_OPT_BOOL, AT(cuda_graphs), "true", 0, 0, NULL, false, NULL,
     "On a GPU: record a step once and replay it. --no-cuda-graphs launches every operation."},
    {"print-memory", DIP_OPT_BOOL, AT(print_memory), "false", 0, 0, NULL, false, NULL,
     "Print the memory plan, a row a region, before training."},

    {"logs", DIP_OPT_STRING, AT(logs), "./logs", 0, 0, NULL, false, "DIR", "Where run folders go."},
    {"name", DIP_OPT_STRING, AT(name), NULL, 0, 0, NULL, false, "NAME",
     "The run's folder; default: time, model, lr, batch, workers, precision."},
    {"resume", DIP_OPT_STRING, AT(resume), NULL, 0, 0, NULL, false, "latest|DIR",
     "Go on from a checkpoint. latest: the newest of the run --name, or a fresh start if there is "
     "none."},
    {"resume-changes", DIP_OPT_LIST, AT(resume_changes), NULL, 0, 0, NULL, false, "KEY ...",
     "Options that may differ from the resumed run's (epochs, lr, train-data, ...)."},
    {"save-frequency", DIP_OPT_INT, AT(save_frequency), "1", 0, 1 << 20, NULL, false, "N",
     "Keep a checkpoint every N epochs (the last one always). 0: only the last."},
    {"save-most-recent", DIP_OPT_BOOL, AT(save_most_recent), "false", 0, 0, NULL, false, NULL,
     "Keep only the newest checkpoint."},
    {"log-every-n-steps", DIP_OPT_INT, AT(log_every_n_steps), "100", 1, BIG, NULL, false, "N",
     "Steps between progress lines."},
    {"val-frequency", DIP_OPT_INT, AT(val_frequency), "1", 0, 1 << 20, NULL, false, "N",
     "Epochs between measurements on --val-data. 0: never."},
    {"zeroshot-data", DIP_OPT_STRING, AT(zeroshot_data), NULL, 0, 0, NULL, false, "PATTERN",
     "Shards with .cls members: zero-shot accuracy is measured on them."},
    {"classnames", DIP_OPT_STRING, AT(classnames), NULL, 0, 0, NULL, false, "FILE",
     "Class names for --zeroshot-data, one a line."},
    {"templates", DIP_OPT_STRING, AT(templates), NULL, 0, 0, NULL, false, "FILE",
     "Prompt templates for --zeroshot-data, one a line, {c} for the class name."},
    {"zeroshot-frequency", DIP_OPT_INT, AT(zeroshot_frequency), "1", 0, 1 << 20, NULL, false, "N",
     "Epochs between zero-shot measurements. 0: never."},
    {"json", DIP_OPT_BOOL, AT(json), "false", 0, 0, NULL, false, NULL,
     "Print one JSON object with the run's figures on stdout at the end."},
};

const dip_option_table dip_train_option_table = {options, sizeof options / sizeof options[0], true};

/* Append one mistake to the list. */
static void mistake(char *list, size_t n, const char *text)
{
    const size_t used = strlen(list);
    snprintf(list + used, n - used, "%s%s", used ? "\n" : "", text);
}

dip_status dip_memory_parse(size_t *n_bytes, const char *text)
{
    static const char units[] = "KMGT";
    char *end = "";
    double value = text[0] >= '0' && text[0] <= '9' ? strtod(text, &end) : -1;
    if (value >= 0 && *end) {
        const char *unit = strchr(units, toupper((unsigned char)*end));
        for (const char *at = units; unit && at <= unit; at++) value *= 1024;
        if (!unit || end[1]) value = -1;
    }
    if (!(value >= 0 && value <= BIG))
        return dip_fail(DIP_CONFIG, "--memory '%s' is not a size such as 40G, 512M or 0", text);
    *n_bytes = (size_t)value;
    return DIP_OK;
}

/* An option that the list of augmentations replaces, and was changed. */
static void refuse_replaced(char *list, size_t n, const dip_train_options *o)
{
    dip_train_options unchanged;
    if (!o->augmentations || dip_config_defaults(&dip_train_option_table, &unchanged) != DIP_OK)
        return;
    if (o->crop_scale_min != unchanged.crop_scale_min ||
        o->crop_scale_max != unchanged.crop_scale_max || o->crop_ratio != unchanged.crop_ratio ||
        o->flip != unchanged.flip)
        mistake(
            list, n,
            "--augmentations replaces --crop-scale-min, --crop-scale-max, --crop-ratio and --flip: "
            "put random_resized_crop and flip into the list");
    dip_config_free(&dip_train_option_table, &unchanged);
}

dip_status dip_train_options_check(const dip_train_options *o)
{
    char list[2048] = "", line[512];
    if (o->crop_scale_min > o->crop_scale_max) {
        snprintf(line, sizeof line, "--crop-scale-min %g is above --crop-scale-max %g",
                 o->crop_scale_min, o->crop_scale_max);
        mistake(list, sizeof list, line);
    }
    refuse_replaced(list, sizeof list, o);
    if (o->dataset_resampled && o->train_num_samples == 0)
        mistake(list, sizeof list,
                "--dataset-resampled has no end of an epoch: give --train-num-samples");
    if (!dip_loss_find(o->loss)) {
        size_t n;
        const dip_loss *const *all = dip_loss_all(&n);
        snprintf(line, sizeof line, "--loss '%s' is not known; known: %s", o->loss, all[0]->name);
        mistake(list, sizeof list, line);
    }
    size_t n_bytes;
    if (dip_device_check_name(o->device) != DIP_OK) mistake(list, sizeof list, dip_error());
    if (dip_memory_parse(&n_bytes, o->memory) != DIP_OK) mistake(list, sizeof list, dip_error());
    if (o->image_std == 0) mistake(list, sizeof list, "--image-std 0 would divide by zero");
    if (o->zeroshot_data && (!o->classnames || !o->templates))
        mistake(list, sizeof list, "--zeroshot-data needs --classnames FILE and --templates FILE");
    if (!o->zeroshot_data && (o->classnames || o->templates))
        mistake(list, sizeof list,
                "--classnames and --templates are for --zeroshot-data, which is "
                "not given");
    if (o->max_steps && o->warmup > o->max_steps) {
        snprintf(line, sizeof line, "--warmup %lld is more than --max-steps %lld",
                 (long long)o->warmup, (long long)o->max_steps);
        mistake(list, sizeof list, line);
    }
    if (o->name && (strchr(o->name, '/') || o->name[0] == '\0' || strcmp(o->name, ".") == 0 ||
                    strcmp(o->name, "..") == 0)) {
        snprintf(line, sizeof line, "--name '%s' must be a folder name, not a path", o->name);
        mistake(list, sizeof list, line);
    }
    return list[0] ? dip_fail(DIP_CONFIG, "%s", list) : DIP_OK;
}
