#include "data/fill.h"

#include <stdbool.h>
#include <stdlib.h>

#include "core/rng.h"
#include "data/augment/augment_ops.h"
#include "data/caption/caption.h"

struct dip_filler {
    const dip_loader_options *options;
    dip_sample_reader *reader;
    dip_captioner *captioner;
    dip_image_decoder *decoder;
    dip_resizer *resizer;
    uint8_t *scratch; /* of the operations; NULL without a list */
    uint8_t *other;   /* the image that is mixed in; NULL without mixing */
};

static size_t image_bytes(const dip_loader_options *o)
{
    return (size_t)o->image_size * (size_t)o->image_size * 3;
}

static dip_status reserve(uint8_t **out, size_t n_bytes)
{
    *out = malloc(n_bytes);
    return *out ? DIP_OK : dip_fail(DIP_NOMEM, "no memory to augment images");
}

dip_status dip_filler_open(dip_filler **out, const dip_loader_options *options)
{
    const dip_augmentation *list = options->augmentation;
    dip_status status = DIP_OK;
    *out = NULL;
    if (list) DIP_TRY(dip_augmentation_check_size(list, options->image_size));
    dip_filler *filler = calloc(1, sizeof *filler);
    if (!filler) return dip_fail(DIP_NOMEM, "no memory for a decoder");
    filler->options = options;
    DIP_TRY_GOTO(dip_sample_reader_open(&filler->reader, options->samples));
    DIP_TRY_GOTO(dip_captioner_open(&filler->captioner, &options->caption));
    dip_decode_options decode = options->decode;
    decode.is_padded = true; /* by the sample reader */
    DIP_TRY_GOTO(dip_image_decoder_open_with(&filler->decoder, &decode));
    DIP_TRY_GOTO(dip_resizer_open(&filler->resizer));
    if (list)
        DIP_TRY_GOTO(reserve(&filler->scratch, dip_augment_scratch_bytes(options->image_size)));
    if (list && dip_augmentation_mixes(list))
        DIP_TRY_GOTO(reserve(&filler->other, image_bytes(options)));
    *out = filler;
    return DIP_OK;
fail:
    dip_filler_close(filler);
    return status;
}

void dip_filler_close(dip_filler *filler)
{
    if (!filler) return;
    dip_sample_reader_close(filler->reader);
    dip_captioner_close(filler->captioner);
    dip_image_decoder_close(filler->decoder);
    dip_resizer_close(filler->resizer);
    free(filler->scratch);
    free(filler->other);
    free(filler);
}

/* The caption. */

static dip_status fill_tokens(dip_filler *filler, int32_t *tokens, dip_filled *filled,
                              const dip_sample *sample, dip_rng *rng)
{
    const dip_loader_options *o = filler->options;
    const char *text;
    size_t n_bytes;
    DIP_TRY(dip_captioner_choose(filler->captioner, &text, &n_bytes, &filled->fault, sample, rng));
    filled->n_tokens = o->encode(o->encode_context, tokens, o->context_length, text, n_bytes);
    if (filled->n_tokens >= 1 && filled->n_tokens <= o->context_length) return DIP_OK;
    filled->fault = DIP_FAULT_CAPTION_EMPTY;
    return dip_fail(DIP_FORMAT, "the tokenizer found nothing in it");
}

/* The image. */

typedef struct source {
    int64_t index;
    const dip_sample *sample;
    const dip_image *whole; /* NULL: decode what the cut needs */
} source;

static dip_status check_image(dip_fault_kind *fault, const dip_sample *sample)
{
    *fault = DIP_FAULT_NO_IMAGE;
    return sample->image ? DIP_OK : dip_fail(DIP_FORMAT, "no image member");
}

static dip_status start_image(dip_filler *filler, int *width, int *height, dip_fault_kind *fault,
                              const source *from)
{
    if (from->whole) {
        *width = from->whole->width;
        *height = from->whole->height;
        return DIP_OK;
    }
    DIP_TRY(check_image(fault, from->sample));
    return dip_image_start(filler->decoder, width, height, fault, from->sample->image,
                           from->sample->image_bytes);
}

/* `flip` may be NULL. */
static dip_status cut_randomly(dip_filler *filler, uint8_t *out, dip_fault_kind *fault,
                               const source *from, const dip_augment_op *cut,
                               const dip_augment_op *flip, dip_rng *rng)
{
    const dip_augment_arg scale = cut->args[DIP_CROP_SCALE], ratio = cut->args[DIP_CROP_RATIO];
    const int size = filler->options->image_size;
    int width, height;
    DIP_TRY(start_image(filler, &width, &height, fault, from));
    const dip_box box = dip_random_crop(rng, width, height, (double[]){scale.low, scale.high},
                                        (double[]){ratio.low, ratio.high});
    const bool flipped = flip && dip_augment_happens(flip, rng);
    const dip_filter filter = filler->options->filter;
    if (from->whole)
        return dip_resize(filler->resizer, out, size, size, from->whole, box, filter, flipped);
    return dip_image_cut(filler->decoder, filler->resizer, out, size, size, fault, box, filter,
                         flipped);
}

static dip_status cut_for_eval(dip_filler *filler, uint8_t *out, dip_fault_kind *fault,
                               const source *from, dip_resize_mode mode)
{
    const int size = filler->options->image_size;
    const dip_filter filter = filler->options->filter;
    int width, height;
    if (from->whole)
        return dip_resize_for_eval(filler->resizer, out, size, from->whole, mode, filter);
    DIP_TRY(start_image(filler, &width, &height, fault, from));
    return dip_image_cut_for_eval(filler->decoder, filler->resizer, out, size, fault, mode, filter);
}

/* Do the cut of the list and the flip behind it; *n_done is how many operations that were. */
static dip_status cut_image(dip_filler *filler, uint8_t *out, int *n_done, dip_fault_kind *fault,
                            const source *from, const dip_augment_view *view, int n_ops,
                            dip_rng *rng)
{
    const dip_augment_op *ops = view->ops;
    *n_done = n_ops > 0 && dip_augment_is_cut(ops[0].kind);
    if (*n_done == 0) return cut_for_eval(filler, out, fault, from, filler->options->resize_mode);
    if (ops[0].kind != DIP_AUGMENT_RANDOM_RESIZED_CROP)
        return cut_for_eval(filler, out, fault, from,
                            ops[0].kind == DIP_AUGMENT_RESIZE ? DIP_RESIZE_SQUASH
                                                              : DIP_RESIZE_SHORTEST);
    const bool flips = n_ops > 1 && ops[1].kind == DIP_AUGMENT_FLIP;
    *n_done += flips;
    return cut_randomly(filler, out, fault, from, &ops[0], flips ? &ops[1] : NULL, rng);
}

static dip_status mix(dip_filler *filler, uint8_t *out, dip_filled *filled, int64_t index,
                      const dip_augment_view *view, int at, dip_rng *rng);

/* The first n_ops operations of a view. */
static dip_status fill_view(dip_filler *filler, uint8_t *out, dip_filled *filled,
                            const source *from, const dip_augment_view *view, int n_ops,
                            dip_rng *rng)
{
    int at;
    DIP_TRY(cut_image(filler, out, &at, &filled->fault, from, view, n_ops, rng));
    for (; at < n_ops; at++) {
        const dip_augment_op *op = &view->ops[at];
        if (dip_augment_is_mix(op->kind))
            DIP_TRY(mix(filler, out, filled, from->index, view, at, rng));
        else
            dip_augment_apply(op, out, filler->options->image_size, filler->scratch, rng);
    }
    return DIP_OK;
}

/* Operation `at`: the ones before it on another sample, which is then mixed in. Its bytes take the
 * place of this sample's in the reader. */
static dip_status mix(dip_filler *filler, uint8_t *out, dip_filled *filled, int64_t index,
                      const dip_augment_view *view, int at, dip_rng *rng)
{
    const dip_augment_op *op = &view->ops[at];
    const int64_t n = dip_samples_count(filler->options->samples);
    if (filled->mixed_with >= 0 || n < 2 || !dip_augment_happens(op, rng)) return DIP_OK;
    int64_t other = (int64_t)dip_rng_below(rng, (uint64_t)n - 1);
    if (other >= index) other++;
    dip_sample sample;
    dip_filled unmixed = {.mixed_with = index}; /* what is mixed in is not mixed itself */
    dip_status status =
        dip_sample_read(filler->reader, &sample, other, DIP_NEEDS_IMAGE, &unmixed.fault);
    const source from = {.index = other, .sample = &sample};
    if (status == DIP_OK) status = fill_view(filler, filler->other, &unmixed, &from, view, at, rng);
    if (status == DIP_NOMEM || status == DIP_IO) return status;
    if (status != DIP_OK) return DIP_OK; /* its own turn names it */
    filled->mixed_with = other;
    filled->mix_share = dip_augment_mix(op, out, filler->other, filler->options->image_size, rng);
    return DIP_OK;
}

static dip_status fill_views(dip_filler *filler, uint8_t *images, dip_filled *filled,
                             const dip_sample *sample, int64_t index, dip_rng *rng)
{
    const dip_augmentation *list = filler->options->augmentation;
    const size_t n_bytes = image_bytes(filler->options);
    source from = {.index = index, .sample = sample};
    if (!list)
        return cut_for_eval(filler, images, &filled->fault, &from, filler->options->resize_mode);
    dip_image whole;
    if (list->n_views > 1) {
        DIP_TRY(check_image(&filled->fault, sample));
        DIP_TRY(dip_image_decode(filler->decoder, &whole, &filled->fault, sample->image,
                                 sample->image_bytes));
        from.whole = &whole;
    }
    for (int i = 0; i < list->n_views; i++)
        DIP_TRY(fill_view(filler, images + (size_t)i * n_bytes, filled, &from, &list->views[i],
                          list->views[i].n_ops, rng));
    return DIP_OK;
}

/* Both. */

dip_status dip_filler_sample(dip_filler *filler, uint8_t *images, int32_t *tokens,
                             dip_filled *filled, int64_t epoch, int64_t index, int repeat)
{
    const dip_loader_options *o = filler->options;
    *filled = (dip_filled){.mixed_with = -1, .mix_share = 1};
    dip_sample sample;
    const int parts = DIP_NEEDS_IMAGE | (o->encode ? DIP_NEEDS_CAPTION : 0);
    DIP_TRY(dip_sample_read(filler->reader, &sample, index, parts, &filled->fault));
    dip_rng rng; /* a repetition has its own seed: a sample's stream has no room for it */
    dip_rng_init(&rng, o->seed + (uint64_t)repeat * 0x9e3779b97f4a7c15u,
                 dip_rng_stream(DIP_RNG_AUGMENT, (uint64_t)epoch, (uint64_t)index));
    dip_status status = DIP_OK;
    if (o->encode) status = fill_tokens(filler, tokens, filled, &sample, &rng);
    if (status == DIP_OK) status = fill_views(filler, images, filled, &sample, index, &rng);
    return status == DIP_OK || status == DIP_NOMEM || status == DIP_IO ? status : DIP_FORMAT;
}

void dip_filler_prefetch(dip_filler *filler, int64_t index)
{
    dip_sample_prefetch(filler->reader, index);
}
