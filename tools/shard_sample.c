/* One pair on its way into a shard: captions checked, image measured, resized, encoded, signed. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/image/image.h"
#include "data/image/jpeg_encode.h"
#include "data/samples.h"
#include "tools/shard.h"

static const int64_t max_out_pixels = 25000000;

/* What --resize makes of an image: the picture lies at (x, y) of a canvas. */
typedef struct layout {
    dip_box crop;      /* of the source */
    int width, height; /* of the resized crop */
    int canvas_width, canvas_height;
    int x, y;
} layout;

typedef enum resize_mode { KEEP_RATIO, KEEP_RATIO_LARGEST, CENTER_CROP, BORDER } resize_mode;

struct shard_checker {
    const shard_options *options;
    const dip_pairs *pairs;
    dip_image_decoder *decoder; /* exact */
    dip_image_decoder *coarse;  /* scales while decoding: good enough for a perceptual hash */
    dip_resizer *resizer;
    resize_mode mode;
    bool first_line, exact, near;
    uint8_t *rgb, *canvas; /* scratch, grown */
    size_t rgb_capacity, canvas_capacity;
};

dip_status shard_checker_open(shard_checker **out, const shard_options *o, const dip_pairs *pairs)
{
    static const char *const modes[] = {"keep_ratio", "keep_ratio_largest", "center_crop",
                                        "border"};
    *out = NULL;
    shard_checker *checker = calloc(1, sizeof *checker);
    if (!checker) return dip_fail(DIP_NOMEM, "no memory to check pairs");
    *checker = (shard_checker){.options = o,
                               .pairs = pairs,
                               .first_line = strcmp(o->caption_line, "first") == 0,
                               .exact = strcmp(o->dedup, "exact") == 0,
                               .near = strcmp(o->dedup, "near") == 0};
    while (strcmp(modes[checker->mode], o->resize_mode) != 0) checker->mode++;
    /* A picture that is encoded again, or compared, is taken as it is seen: upright, on white. */
    dip_decode_options decode = dip_decode_defaults();
    decode.exif_rotate = true;
    for (int c = 0; c < 3; c++) decode.alpha_over[c] = 255;
    dip_status status = dip_image_decoder_open_with(&checker->decoder, &decode);
    decode.scale_in_dct = true;
    if (status == DIP_OK) status = dip_image_decoder_open_with(&checker->coarse, &decode);
    if (status == DIP_OK) status = dip_resizer_open(&checker->resizer);
    if (status != DIP_OK) {
        shard_checker_close(checker);
        return status;
    }
    *out = checker;
    return DIP_OK;
}

void shard_checker_close(shard_checker *checker)
{
    if (!checker) return;
    dip_image_decoder_close(checker->decoder);
    dip_image_decoder_close(checker->coarse);
    dip_resizer_close(checker->resizer);
    free(checker->rgb);
    free(checker->canvas);
    free(checker);
}

/* Captions. */

typedef struct caption_filter {
    int64_t min, max; /* characters; max 0: no limit */
    bool first_only;
    char *out; /* the lines that stay, one after the other; may lie on the text itself */
    size_t n_bytes;
    int64_t n_kept;
} caption_filter;

static int keep_line(void *context, const char *line, size_t n)
{
    caption_filter *f = context;
    int64_t characters = 0;
    for (size_t i = 0; i < n; i++) characters += ((unsigned char)line[i] & 0xc0) != 0x80;
    if (characters < f->min || (f->max > 0 && characters > f->max)) return 0;
    if (f->n_kept++ > 0) f->out[f->n_bytes++] = '\n';
    memmove(f->out + f->n_bytes, line, n);
    f->n_bytes += n;
    return f->first_only;
}

static dip_status check_captions(const shard_checker *checker, dip_pair *pair, dip_fault_kind *kind)
{
    const shard_options *o = checker->options;
    if (!pair->text) return DIP_OK;
    int n_lines = dip_caption_lines(pair->text, pair->text_bytes, NULL, NULL);
    if (n_lines < 1) {
        *kind = n_lines < 0 ? DIP_FAULT_CAPTION_UTF8 : DIP_FAULT_CAPTION_EMPTY;
        return dip_fail(DIP_FORMAT,
                        n_lines < 0 ? "bytes that are not UTF-8" : "nothing but blanks");
    }
    /* Without a reason to touch it the text stays byte for byte. */
    if (!checker->first_line && o->min_caption == 0 && o->max_caption == 0) return DIP_OK;
    caption_filter filter = {.min = o->min_caption,
                             .max = o->max_caption,
                             .first_only = checker->first_line,
                             .out = pair->text};
    dip_caption_lines(pair->text, pair->text_bytes, keep_line, &filter);
    pair->text_bytes = filter.n_bytes;
    if (filter.n_kept > 0) return DIP_OK;
    *kind = DIP_FAULT_FILTERED;
    return dip_fail(DIP_FORMAT, "no caption of the length asked for");
}

/* Images. */

static dip_status reserve(uint8_t **buffer, size_t *capacity, size_t n_bytes)
{
    if (n_bytes <= *capacity) return DIP_OK;
    uint8_t *grown = realloc(*buffer, n_bytes);
    if (!grown) return dip_fail(DIP_NOMEM, "no memory for an image of %zu bytes", n_bytes);
    *buffer = grown;
    *capacity = n_bytes;
    return DIP_OK;
}

static dip_status check_size(const shard_options *o, int width, int height, dip_fault_kind *kind)
{
    int small = width < height ? width : height, large = width < height ? height : width;
    *kind = DIP_FAULT_FILTERED;
    if (small < o->min_size)
        return dip_fail(DIP_FORMAT, "%d x %d pixels, --min-size is %" PRId64, width, height,
                        o->min_size);
    if (o->max_aspect > 0 && large > o->max_aspect * small)
        return dip_fail(DIP_FORMAT, "%d x %d pixels, --max-aspect is %g", width, height,
                        o->max_aspect);
    return DIP_OK;
}

static int scaled(int side, int64_t to, int from)
{
    double exact = floor((double)side * (double)to / from + 0.5);
    return exact < 1 ? 1 : exact > INT32_MAX ? INT32_MAX : (int)exact;
}

/* False: the image stays as it is. */
static bool plan_resize(layout *l, const shard_checker *checker, int width, int height)
{
    int side = (int)checker->options->resize;
    int small = width < height ? width : height, large = width < height ? height : width;
    bool by_small = checker->mode == KEEP_RATIO || checker->mode == CENTER_CROP;
    int ruler = by_small ? small : large;
    if (side == 0 || (checker->options->resize_only_if_bigger && ruler <= side)) return false;
    *l = (layout){.crop = {0, 0, width, height}, .width = side, .height = side};
    if (checker->mode == CENTER_CROP) {
        l->crop = (dip_box){(width - small) / 2, (height - small) / 2, small, small};
    } else {
        l->width = scaled(width, side, ruler);
        l->height = scaled(height, side, ruler);
    }
    l->canvas_width = l->width;
    l->canvas_height = l->height;
    if (checker->mode == BORDER) {
        l->canvas_width = l->canvas_height = side;
        l->x = (side - l->width) / 2;
        l->y = (side - l->height) / 2;
    }
    return true;
}

/* Put the resized picture on a white canvas. */
static dip_status add_border(shard_checker *checker, const layout *l)
{
    size_t row_bytes = (size_t)l->canvas_width * 3, n_bytes = row_bytes * (size_t)l->canvas_height;
    DIP_TRY(reserve(&checker->canvas, &checker->canvas_capacity, n_bytes));
    memset(checker->canvas, 255, n_bytes);
    for (int y = 0; y < l->height; y++)
        memcpy(checker->canvas + (size_t)(l->y + y) * row_bytes + (size_t)l->x * 3,
               checker->rgb + (size_t)y * (size_t)l->width * 3, (size_t)l->width * 3);
    return DIP_OK;
}

/* pair->image becomes the resized JPEG; *written its pixels before encoding. */
static dip_status resize_image(shard_checker *checker, dip_pair *pair, const layout *l,
                               dip_image *written, dip_fault_kind *kind)
{
    int64_t n_pixels = (int64_t)l->canvas_width * l->canvas_height;
    if (n_pixels > max_out_pixels || l->canvas_width > 65500 || l->canvas_height > 65500) {
        *kind = DIP_FAULT_IMAGE_TOO_LARGE;
        return dip_fail(DIP_FORMAT, "--resize would make it %d x %d pixels", l->canvas_width,
                        l->canvas_height);
    }
    DIP_TRY(
        reserve(&checker->rgb, &checker->rgb_capacity, (size_t)l->width * (size_t)l->height * 3));
    DIP_TRY(dip_image_cut(checker->decoder, checker->resizer, checker->rgb, l->width, l->height,
                          kind, l->crop, DIP_BICUBIC, 0));
    *written = (dip_image){l->canvas_width, l->canvas_height, checker->rgb};
    if (checker->mode == BORDER) {
        DIP_TRY(add_border(checker, l));
        written->rgb = checker->canvas;
    }
    uint8_t *encoded;
    size_t n_bytes;
    DIP_TRY(dip_jpeg_encode(&encoded, &n_bytes, written->rgb, written->width, written->height,
                            (int)checker->options->quality));
    free(pair->image);
    pair->image = encoded;
    pair->image_bytes = n_bytes;
    char *extension = strdup("jpg");
    if (!extension) return dip_fail(DIP_NOMEM, "no memory for a name");
    free(pair->extension);
    pair->extension = extension;
    return DIP_OK;
}

/* Decode only as far as the options need: not at all, the header, or every pixel. */
static dip_status check_image(shard_checker *checker, shard_sample *sample)
{
    const shard_options *o = checker->options;
    dip_pair *pair = &sample->pair;
    dip_fault_kind *kind = &sample->kind;
    if (checker->exact)
        sample->sign.digest = dip_digest_of((dip_digest){0}, pair->image, pair->image_bytes);
    bool measures = o->min_size > 0 || o->max_aspect > 0;
    bool looks = checker->near || o->check_images;
    if (!measures && !looks && o->resize == 0) return DIP_OK;
    int width, height;
    DIP_TRY(
        dip_image_start(checker->decoder, &width, &height, kind, pair->image, pair->image_bytes));
    DIP_TRY(check_size(o, width, height, kind));
    layout l;
    dip_image picture;
    if (plan_resize(&l, checker, width, height)) {
        DIP_TRY(resize_image(checker, pair, &l, &picture, kind));
        return checker->near ? dip_phash_of(&sample->sign.phash, checker->resizer, &picture)
                             : DIP_OK;
    }
    if (!looks) return DIP_OK;
    dip_rect where;
    DIP_TRY(
        dip_image_start(checker->coarse, &width, &height, kind, pair->image, pair->image_bytes));
    DIP_TRY(dip_image_finish(checker->coarse, &picture, &where, kind,
                             (dip_box){0, 0, width, height}, DIP_PHASH_SIDE, DIP_PHASH_SIDE));
    return checker->near ? dip_phash_of(&sample->sign.phash, checker->resizer, &picture) : DIP_OK;
}

void shard_check(shard_checker *checker, shard_sample *sample, int64_t index)
{
    sample->kind = DIP_FAULT_UNREADABLE;
    sample->detail[0] = '\0';
    sample->status = dip_pairs_load(checker->pairs, &sample->pair, index, &sample->kind);
    if (sample->status == DIP_OK)
        sample->status = check_captions(checker, &sample->pair, &sample->kind);
    if (sample->status == DIP_OK) sample->status = check_image(checker, sample);
    if (sample->status == DIP_OK) return;
    snprintf(sample->detail, sizeof sample->detail, "%s", dip_error());
    dip_pair_free(&sample->pair);
}
