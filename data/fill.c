#include "data/fill.h"

#include <stdbool.h>
#include <stdlib.h>

#include "core/rng.h"

struct dip_filler {
    const dip_loader_options *options;
    dip_image_decoder *decoder;
    dip_resizer *resizer;
};

dip_status dip_filler_open(dip_filler **out, const dip_loader_options *options)
{
    *out = NULL;
    dip_filler *filler = calloc(1, sizeof *filler);
    if (!filler) return dip_fail(DIP_NOMEM, "no memory for a decoder");
    filler->options = options;
    dip_status status = dip_image_decoder_open(&filler->decoder, options->max_pixels);
    if (status == DIP_OK) status = dip_resizer_open(&filler->resizer);
    if (status == DIP_OK)
        *out = filler;
    else
        dip_filler_close(filler);
    return status;
}

void dip_filler_close(dip_filler *filler)
{
    if (!filler) return;
    dip_image_decoder_close(filler->decoder);
    dip_resizer_close(filler->resizer);
    free(filler);
}

static dip_status bad(dip_fault_kind *fault, dip_fault_kind kind, const char *why)
{
    *fault = kind;
    return dip_fail(DIP_FORMAT, "%s", why);
}

/* The caption. */

typedef struct line_choice {
    int64_t wanted, at;
    const char *line;
    size_t n_bytes;
} line_choice;

static int pick_line(void *context, const char *line, size_t n)
{
    line_choice *choice = context;
    if (choice->at++ < choice->wanted) return 0;
    choice->line = line;
    choice->n_bytes = n;
    return 1;
}

static dip_status fill_tokens(const dip_loader_options *o, int32_t *tokens, int32_t *n_tokens,
                              dip_fault_kind *fault, const dip_sample *sample, dip_rng *rng)
{
    if (!sample->caption) return bad(fault, DIP_FAULT_NO_CAPTION, "no caption member");
    line_choice choice = {0};
    if (o->random_caption_line) {
        int n = dip_caption_lines(sample->caption, sample->caption_bytes, NULL, NULL);
        if (n > 1) choice.wanted = (int64_t)dip_rng_below(rng, (uint64_t)n);
    }
    int n_lines = dip_caption_lines(sample->caption, sample->caption_bytes, pick_line, &choice);
    if (n_lines < 0) return bad(fault, DIP_FAULT_CAPTION_UTF8, "bytes that are not UTF-8");
    if (n_lines == 0) return bad(fault, DIP_FAULT_CAPTION_EMPTY, "nothing but blanks");
    *n_tokens =
        o->encode(o->encode_context, tokens, o->context_length, choice.line, choice.n_bytes);
    if (*n_tokens < 1 || *n_tokens > o->context_length)
        return bad(fault, DIP_FAULT_CAPTION_EMPTY, "the tokenizer found nothing in it");
    return DIP_OK;
}

/* The image. */

static void mirror(uint8_t *image, int size)
{
    for (int y = 0; y < size; y++) {
        uint8_t *left = image + (size_t)y * (size_t)size * 3;
        uint8_t *right = left + (size_t)(size - 1) * 3;
        for (; left < right; left += 3, right -= 3) {
            for (int c = 0; c < 3; c++) {
                uint8_t value = left[c];
                left[c] = right[c];
                right[c] = value;
            }
        }
    }
}

static dip_status fill_image(dip_filler *filler, uint8_t *out, dip_fault_kind *fault,
                             const dip_sample *sample, dip_rng *rng)
{
    const dip_loader_options *o = filler->options;
    const int size = o->image_size;
    if (!sample->image) return bad(fault, DIP_FAULT_NO_IMAGE, "no image member");
    dip_image image;
    DIP_TRY(dip_image_decode(filler->decoder, &image, fault, sample->image, sample->image_bytes));
    *fault = DIP_FAULT_IMAGE_BROKEN; /* whatever fails now */
    dip_box box = {0};
    if (o->random_crop)
        box = dip_random_crop(rng, image.width, image.height, o->crop_scale, o->crop_ratio);
    bool flip = o->flip_probability > 0 && dip_rng_uniform(rng) < o->flip_probability;
    if (o->random_crop)
        return dip_resize(filler->resizer, out, size, size, &image, box, o->filter, flip);
    DIP_TRY(dip_resize_for_eval(filler->resizer, out, size, &image, o->resize_mode, o->filter));
    if (flip) mirror(out, size);
    return DIP_OK;
}

dip_status dip_filler_sample(dip_filler *filler, uint8_t *image, int32_t *tokens, int32_t *n_tokens,
                             dip_fault_kind *fault, int64_t epoch, int64_t index)
{
    const dip_loader_options *o = filler->options;
    dip_sample sample = dip_samples_get(o->samples, index);
    dip_rng rng;
    dip_rng_init(&rng, o->seed, dip_rng_stream(DIP_RNG_AUGMENT, (uint64_t)epoch, (uint64_t)index));
    *n_tokens = 0;
    *fault = DIP_FAULT_UNREADABLE;
    dip_status status = DIP_OK;
    if (o->encode) status = fill_tokens(o, tokens, n_tokens, fault, &sample, &rng);
    if (status == DIP_OK) status = fill_image(filler, image, fault, &sample, &rng);
    return status == DIP_OK || status == DIP_NOMEM ? status : DIP_FORMAT;
}
