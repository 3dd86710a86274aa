#include "data/image/image.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/image/image_codec.h"

enum { KEPT_BYTES = 32 << 20 }; /* a rare huge image must not hold its memory for ever */

typedef enum image_format { FORMAT_NONE, FORMAT_JPEG, FORMAT_PNG, FORMAT_WEBP } image_format;

struct dip_image_decoder {
    dip_decode_options options;
    dip_jpeg *jpeg;
    dip_pixels pixels, turned;
    /* between start and finish */
    image_format format;
    const uint8_t *data;
    size_t n_bytes;
    int width, height; /* as stored */
    int orientation;   /* 1: as stored */
};

dip_decode_options dip_decode_defaults(void)
{
    return (dip_decode_options){.max_bytes = 256 << 20,
                                .max_pixels = 25000000,
                                .max_side = 65535,
                                .max_scans = 100,
                                .alpha_over = {-1, -1, -1}};
}

static dip_status check_options(const dip_decode_options *o)
{
    const struct {
        const char *name;
        int64_t value;
    } limits[] = {{"byte", o->max_bytes},
                  {"pixel", o->max_pixels},
                  {"side", o->max_side},
                  {"scan", o->max_scans}};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++)
        if (limits[i].value < 1)
            return dip_fail(DIP_CONFIG, "the %s limit is %" PRId64 "; it must be at least 1",
                            limits[i].name, limits[i].value);
    if (o->max_pixels > (int64_t)1 << 40)
        return dip_fail(DIP_CONFIG, "the pixel limit is %" PRId64 "; it may be at most 2^40",
                        o->max_pixels);
    for (int i = 0; o->alpha_over[0] >= 0 && i < 3; i++)
        if (o->alpha_over[i] < 0 || o->alpha_over[i] > 255)
            return dip_fail(DIP_CONFIG, "a colour value is %d; it must be 0 to 255",
                            o->alpha_over[i]);
    return DIP_OK;
}

dip_status dip_image_decoder_open_with(dip_image_decoder **decoder,
                                       const dip_decode_options *options)
{
    *decoder = NULL;
    DIP_TRY(check_options(options));
    dip_image_decoder *fresh = calloc(1, sizeof *fresh);
    if (!fresh) return dip_fail(DIP_NOMEM, "not enough memory for an image decoder");
    fresh->options = *options;
    dip_status status = dip_jpeg_open(&fresh->jpeg);
    if (status != DIP_OK) {
        free(fresh);
        return status;
    }
    *decoder = fresh;
    return DIP_OK;
}

dip_status dip_image_decoder_open(dip_image_decoder **decoder, int64_t max_pixels)
{
    dip_decode_options options = dip_decode_defaults();
    options.max_pixels = max_pixels;
    return dip_image_decoder_open_with(decoder, &options);
}

void dip_image_decoder_close(dip_image_decoder *decoder)
{
    if (!decoder) return;
    dip_jpeg_close(decoder->jpeg);
    free(decoder->pixels.bytes);
    free(decoder->turned.bytes);
    free(decoder);
}

dip_status dip_pixels_reserve(dip_pixels *pixels, size_t n_bytes)
{
    if (n_bytes <= pixels->capacity) return DIP_OK;
    free(pixels->bytes);
    pixels->bytes = malloc(n_bytes);
    pixels->capacity = pixels->bytes ? n_bytes : 0;
    if (!pixels->bytes)
        return dip_fail(DIP_NOMEM, "not enough memory for an image of %zu bytes", n_bytes);
    return DIP_OK;
}

static void let_go(dip_pixels *pixels)
{
    free(pixels->bytes);
    *pixels = (dip_pixels){0};
}

dip_status dip_image_check_size(dip_fault_kind *kind, int64_t width, int64_t height,
                                const dip_decode_options *options)
{
    if (width <= 0 || height <= 0) {
        *kind = DIP_FAULT_IMAGE_BROKEN;
        return dip_fail(DIP_FORMAT, "an image of %" PRId64 " x %" PRId64 " pixels", width, height);
    }
    *kind = DIP_FAULT_IMAGE_TOO_LARGE;
    if (width > options->max_pixels / height)
        return dip_fail(DIP_FORMAT,
                        "%" PRId64 " x %" PRId64 " pixels; at most %" PRId64 " are allowed", width,
                        height, options->max_pixels);
    if (width > options->max_side || height > options->max_side)
        return dip_fail(DIP_FORMAT,
                        "%" PRId64 " x %" PRId64 " pixels; at most %d a side are allowed", width,
                        height, options->max_side);
    *kind = DIP_FAULT_IMAGE_BROKEN; /* whatever fails from now on */
    return DIP_OK;
}

void dip_alpha_over(uint8_t *rgb, const uint8_t *rgba, size_t n_pixels, const int over[3])
{
    for (size_t i = 0; i < n_pixels; i++, rgb += 3, rgba += 4) {
        int alpha = rgba[3];
        for (int c = 0; c < 3; c++)
            rgb[c] = (uint8_t)((rgba[c] * alpha + over[c] * (255 - alpha) + 127) / 255);
    }
}

#ifdef DIPTYCH_WEBP
#define SUPPORTED "JPEG, PNG and WebP"
#else
#define SUPPORTED "JPEG and PNG (this build is without libwebp)"
#endif

static dip_status refuse_format(const char *name, const uint8_t *data, size_t n_bytes)
{
    if (name) return dip_fail(DIP_FORMAT, "this is %s; supported are " SUPPORTED, name);
    if (n_bytes == 0) return dip_fail(DIP_FORMAT, "the image has no bytes");
    char first[8 * 3 + 1] = "";
    for (size_t i = 0; i < n_bytes && i < 8; i++)
        snprintf(first + 3 * i, sizeof first - 3 * i, " %02x", data[i]);
    return dip_fail(DIP_FORMAT, "none of " SUPPORTED ": %zu bytes that begin with%s", n_bytes,
                    first);
}

/* The stored size, and which format it is. */
static dip_status start_format(dip_image_decoder *decoder, dip_fault_kind *kind)
{
    const dip_decode_options *options = &decoder->options;
    const uint8_t *data = decoder->data;
    size_t n_bytes = decoder->n_bytes;
    int *width = &decoder->width, *height = &decoder->height;
    const char *name = dip_image_format_name(data, n_bytes);
    *kind = DIP_FAULT_IMAGE_BROKEN;
    if (name && strcmp(name, "JPEG") == 0) {
        DIP_TRY(dip_jpeg_start(decoder->jpeg, width, height, kind, data, n_bytes, options));
        decoder->format = FORMAT_JPEG;
        if (options->exif_rotate) decoder->orientation = dip_exif_of_jpeg(data, n_bytes);
    } else if (name && strcmp(name, "PNG") == 0) {
        DIP_TRY(dip_png_size(width, height, kind, data, n_bytes, options));
        decoder->format = FORMAT_PNG;
        if (options->exif_rotate) decoder->orientation = dip_exif_of_png(data, n_bytes);
    } else if (name && strcmp(name, "WebP") == 0) {
        DIP_TRY(dip_webp_size(width, height, kind, data, n_bytes, options));
        decoder->format = FORMAT_WEBP;
        if (options->exif_rotate) decoder->orientation = dip_exif_of_webp(data, n_bytes);
    } else {
        *kind = DIP_FAULT_IMAGE_FORMAT;
        return refuse_format(name, data, n_bytes);
    }
    return DIP_OK;
}

dip_status dip_image_start(dip_image_decoder *decoder, int *width, int *height,
                           dip_fault_kind *kind, const uint8_t *data, size_t n_bytes)
{
    *width = *height = 0;
    dip_jpeg_reset(decoder->jpeg);
    if (decoder->pixels.capacity > KEPT_BYTES) let_go(&decoder->pixels);
    if (decoder->turned.capacity > KEPT_BYTES) let_go(&decoder->turned);
    decoder->format = FORMAT_NONE;
    decoder->orientation = 1;
    decoder->data = data;
    decoder->n_bytes = n_bytes;
    if (n_bytes > (uint64_t)decoder->options.max_bytes) {
        *kind = DIP_FAULT_IMAGE_TOO_LARGE;
        return dip_fail(DIP_FORMAT, "an image file of %zu bytes; at most %" PRId64 " are allowed",
                        n_bytes, decoder->options.max_bytes);
    }
    DIP_TRY(start_format(decoder, kind));
    /* What is kept must not add to what a large image takes. */
    if (3 * (int64_t)decoder->width * decoder->height > KEPT_BYTES) let_go(&decoder->turned);
    bool swapped = dip_exif_swaps(decoder->orientation);
    *width = swapped ? decoder->height : decoder->width;
    *height = swapped ? decoder->width : decoder->height;
    return DIP_OK;
}

/* The strongest reduction that leaves the box at least as large as the output. */
static int choose_shrink(dip_box box, int out_w, int out_h)
{
    int shrink = 8;
    while (shrink > 1 && (box.width / shrink < out_w || box.height / shrink < out_h)) shrink /= 2;
    return shrink;
}

/* The rows that a begun JPEG has left, which are all of the part. */
static dip_status read_jpeg(dip_image_decoder *decoder, dip_image *part, dip_fault_kind *kind)
{
    const size_t n_bytes = 3 * (size_t)part->width * (size_t)part->height;
    DIP_TRY(dip_pixels_reserve(&decoder->pixels, n_bytes));
    DIP_TRY(dip_jpeg_read(decoder->jpeg, decoder->pixels.bytes, kind, part->height));
    part->rgb = decoder->pixels.bytes;
    return dip_jpeg_end(decoder->jpeg, kind);
}

/* The part that holds the box; rgb is NULL if its rows are still to come from the JPEG decoder. */
static dip_status begin(dip_image_decoder *decoder, dip_image *part, dip_rect *where,
                        dip_fault_kind *kind, dip_box box, int out_w, int out_h)
{
    *part = (dip_image){0};
    *kind = DIP_FAULT_IMAGE_BROKEN;
    const image_format format = decoder->format;
    decoder->format = FORMAT_NONE;
    if (format == FORMAT_NONE) return dip_fail(DIP_CONFIG, "no image was started");
    const int turn = decoder->orientation;
    const dip_box stored = dip_exif_stored_box(turn, box, decoder->width, decoder->height);
    if (stored.x < 0 || stored.y < 0 || stored.width < 1 || stored.height < 1 ||
        stored.width > decoder->width - stored.x || stored.height > decoder->height - stored.y)
        return dip_fail(DIP_CONFIG, "the box %d x %d at (%d, %d) is not inside the image",
                        box.width, box.height, box.x, box.y);
    *where = (dip_rect){stored.x, stored.y, stored.width, stored.height};
    if (format == FORMAT_JPEG) {
        const int shrink = decoder->options.scale_in_dct ? choose_shrink(box, out_w, out_h) : 1;
        DIP_TRY(dip_jpeg_begin(decoder->jpeg, &part->width, &part->height, where, kind, stored,
                               shrink));
        if (turn == 1) return DIP_OK;
        DIP_TRY(read_jpeg(decoder, part, kind));
    } else if (format == FORMAT_PNG) {
        DIP_TRY(dip_png_decode(part, &decoder->pixels, decoder->data, decoder->n_bytes,
                               &decoder->options));
    } else {
        DIP_TRY(dip_webp_decode(part, &decoder->pixels, decoder->data, decoder->n_bytes,
                                &decoder->options));
    }
    if (turn == 1) return DIP_OK;
    const dip_image upright = *part;
    *where = dip_exif_turned_region(turn, *where, &upright);
    return dip_exif_turn(part, &decoder->turned, &upright, turn);
}

dip_status dip_image_finish(dip_image_decoder *decoder, dip_image *image, dip_rect *where,
                            dip_fault_kind *kind, dip_box box, int out_w, int out_h)
{
    dip_status status = begin(decoder, image, where, kind, box, out_w, out_h);
    if (status == DIP_OK && !image->rgb) status = read_jpeg(decoder, image, kind);
    if (status != DIP_OK) *image = (dip_image){0};
    return status;
}

typedef struct jpeg_rows {
    dip_jpeg *jpeg;
    dip_fault_kind *kind;
} jpeg_rows;

static dip_status take_jpeg_rows(void *context, const uint8_t **rows, int first, int n)
{
    const jpeg_rows *from = context;
    return dip_jpeg_take(from->jpeg, rows, from->kind, first, n);
}

/* A part that was begun, resized: row by row where that is possible. */
static dip_status resize_part(dip_image_decoder *decoder, dip_resizer *resizer, uint8_t *out,
                              dip_fault_kind *kind, dip_image *part,
                              const dip_resize_request *request)
{
    if (part->rgb) return dip_resize_image(resizer, out, part, request);
    if (!dip_resize_is_in_order(request)) {
        DIP_TRY(read_jpeg(decoder, part, kind));
        return dip_resize_image(resizer, out, part, request);
    }
    jpeg_rows from = {decoder->jpeg, kind};
    const dip_rows rows = {part->width, part->height, take_jpeg_rows, &from};
    DIP_TRY(dip_resize_rows(resizer, out, &rows, request));
    return dip_jpeg_end(decoder->jpeg, kind);
}

dip_status dip_image_cut(dip_image_decoder *decoder, dip_resizer *resizer, uint8_t *out, int out_w,
                         int out_h, dip_fault_kind *kind, dip_box box, dip_filter filter, int flip)
{
    dip_image part;
    dip_rect where;
    dip_resize_request request;
    DIP_TRY(begin(decoder, &part, &where, kind, box, out_w, out_h));
    DIP_TRY(dip_resize_request_region(&request, out_w, out_h, part.width, part.height, where,
                                      filter, flip));
    return resize_part(decoder, resizer, out, kind, &part, &request);
}

dip_status dip_image_cut_for_eval(dip_image_decoder *decoder, dip_resizer *resizer, uint8_t *out,
                                  int size, dip_fault_kind *kind, dip_resize_mode mode,
                                  dip_filter filter)
{
    const bool swapped = dip_exif_swaps(decoder->orientation);
    const dip_box all = {.width = swapped ? decoder->height : decoder->width,
                         .height = swapped ? decoder->width : decoder->height};
    dip_image part;
    dip_rect where;
    DIP_TRY(begin(decoder, &part, &where, kind, all, all.width, all.height));
    const dip_resize_request request =
        dip_resize_request_for_eval(size, part.width, part.height, mode, filter);
    return resize_part(decoder, resizer, out, kind, &part, &request);
}

dip_status dip_image_decode(dip_image_decoder *decoder, dip_image *image, dip_fault_kind *kind,
                            const uint8_t *data, size_t n_bytes)
{
    *image = (dip_image){0};
    int width, height;
    dip_rect whole;
    DIP_TRY(dip_image_start(decoder, &width, &height, kind, data, n_bytes));
    dip_box box = {0, 0, width, height};
    return dip_image_finish(decoder, image, &whole, kind, box, width, height);
}
