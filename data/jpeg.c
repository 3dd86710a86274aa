/* JPEG through libjpeg-turbo's classic interface. libjpeg reports trouble by a callback that must
 * not return, so every call into it is made below a setjmp. Any warning about the data ends the
 * decoding: libjpeg would go on with invented pixels.                                        */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

#include "data/image_codec.h"

enum {
    MAX_SCANS = 100, /* real progressive files have about 10; a bomb has tens of thousands */
    ROWS_AT_ONCE = 16
};

struct dip_jpeg {
    struct jpeg_decompress_struct codec;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf escape;
    char reason[JMSG_LENGTH_MAX]; /* of the failure that jumped, with its kind and status */
    dip_fault_kind kind;
    dip_status status;
    dip_pixels cmyk; /* one row */
};

static dip_fault_kind kind_of_message(int code)
{
    switch (code) {
    case JERR_IMAGE_TOO_BIG:
        return DIP_FAULT_IMAGE_TOO_LARGE;
    case JERR_ARITH_NOTIMPL:
    case JERR_BAD_PRECISION:
    case JERR_SOF_UNSUPPORTED:
        return DIP_FAULT_IMAGE_FORMAT;
    default:
        return DIP_FAULT_IMAGE_BROKEN;
    }
}

static void escape(j_common_ptr codec)
{
    dip_jpeg *jpeg = codec->client_data;
    codec->err->format_message(codec, jpeg->reason);
    jpeg->kind = kind_of_message(codec->err->msg_code);
    jpeg->status = codec->err->msg_code == JERR_OUT_OF_MEMORY ? DIP_NOMEM : DIP_FORMAT;
    longjmp(jpeg->escape, 1);
}

static void on_message(j_common_ptr codec, int level)
{
    if (level >= 0) return; /* a trace */
    int code = codec->err->msg_code;
    /* These two are about a header's version or a number that is guessed correctly. */
    if (code == JWRN_JFIF_MAJOR || code == JWRN_ADOBE_XFORM) return;
    escape(codec);
}

static void on_progress(j_common_ptr codec)
{
    dip_jpeg *jpeg = codec->client_data;
    if (jpeg->codec.input_scan_number <= MAX_SCANS) return;
    snprintf(jpeg->reason, sizeof jpeg->reason, "more than %d scans", MAX_SCANS);
    jpeg->kind = DIP_FAULT_IMAGE_BROKEN;
    jpeg->status = DIP_FORMAT;
    longjmp(jpeg->escape, 1);
}

dip_status dip_jpeg_open(dip_jpeg **out)
{
    *out = NULL;
    dip_jpeg *jpeg = calloc(1, sizeof *jpeg);
    if (!jpeg) return dip_fail(DIP_NOMEM, "not enough memory for a JPEG decoder");
    jpeg->codec.err = jpeg_std_error(&jpeg->errors);
    jpeg->errors.error_exit = escape;
    jpeg->errors.emit_message = on_message;
    jpeg->codec.client_data = jpeg;
    if (setjmp(jpeg->escape)) {
        dip_status status = dip_fail(DIP_NOMEM, "cannot start a JPEG decoder: %s", jpeg->reason);
        dip_jpeg_close(jpeg);
        return status;
    }
    jpeg_create_decompress(&jpeg->codec);
    jpeg->progress.progress_monitor = on_progress;
    jpeg->codec.progress = &jpeg->progress;
    *out = jpeg;
    return DIP_OK;
}

void dip_jpeg_close(dip_jpeg *jpeg)
{
    if (!jpeg) return;
    jpeg_destroy_decompress(&jpeg->codec);
    free(jpeg->cmyk.bytes);
    free(jpeg);
}

/* One row of inverted CMYK (all four-component JPEGs are taken as Adobe's, as Pillow does) to
 * RGB: each ink takes its share of what black leaves. */
static void cmyk_row(uint8_t *restrict rgb, const uint8_t *restrict cmyk, int width)
{
    for (int i = 0; i < width; i++, rgb += 3, cmyk += 4) {
        int light = cmyk[3];
        for (int c = 0; c < 3; c++) {
            int product = (255 - cmyk[c]) * light + 128;
            int value = light - ((product + (product >> 8)) >> 8); /* product / 255, rounded */
            rgb[c] = (uint8_t)(value < 0 ? 0 : value);
        }
    }
}

/* Read the header and choose what the codec delivers. */
static dip_status start(dip_jpeg *jpeg, dip_pixels *pixels, dip_fault_kind *kind,
                        int64_t max_pixels)
{
    struct jpeg_decompress_struct *codec = &jpeg->codec;
    jpeg_read_header(codec, TRUE);
    int64_t n_pixels = (int64_t)codec->image_width * codec->image_height;
    DIP_TRY(dip_image_check_size(kind, codec->image_width, codec->image_height, max_pixels));
    if (codec->num_components == 1 || codec->num_components == 3) {
        codec->out_color_space = JCS_RGB;
    } else if (codec->num_components == 4) {
        codec->out_color_space = JCS_CMYK;
        DIP_TRY(dip_pixels_reserve(&jpeg->cmyk, (size_t)codec->image_width * 4));
    } else {
        *kind = DIP_FAULT_IMAGE_FORMAT;
        return dip_fail(DIP_FORMAT, "a JPEG of %d components; 1, 3 or 4 are supported",
                        codec->num_components);
    }
    DIP_TRY(dip_pixels_reserve(pixels, (size_t)n_pixels * 3));
    /* Coefficients of a progressive image: 2 bytes, 4 components, and padding to whole blocks. */
    codec->mem->max_memory_to_use = (long)(n_pixels * 8 + (32 << 20));
    jpeg_start_decompress(codec);
    return DIP_OK;
}

static void read_pixels(dip_jpeg *jpeg, uint8_t *rgb)
{
    struct jpeg_decompress_struct *codec = &jpeg->codec;
    size_t row_bytes = (size_t)codec->output_width * 3;
    while (codec->output_scanline < codec->output_height) {
        uint8_t *row = rgb + codec->output_scanline * row_bytes;
        if (codec->out_color_space == JCS_CMYK) {
            jpeg_read_scanlines(codec, &jpeg->cmyk.bytes, 1);
            cmyk_row(row, jpeg->cmyk.bytes, (int)codec->output_width);
            continue;
        }
        JSAMPROW rows[ROWS_AT_ONCE];
        unsigned left = codec->output_height - codec->output_scanline;
        unsigned n = left < ROWS_AT_ONCE ? left : ROWS_AT_ONCE;
        for (unsigned i = 0; i < n; i++) rows[i] = row + i * row_bytes;
        jpeg_read_scanlines(codec, rows, n);
    }
}

dip_status dip_jpeg_decode(dip_jpeg *jpeg, dip_image *image, dip_pixels *pixels,
                           dip_fault_kind *kind, const uint8_t *data, size_t n_bytes,
                           int64_t max_pixels)
{
    if (setjmp(jpeg->escape)) {
        jpeg_abort_decompress(&jpeg->codec);
        *kind = jpeg->kind;
        return dip_fail(jpeg->status, "JPEG: %s", jpeg->reason);
    }
    jpeg_mem_src(&jpeg->codec, data, n_bytes);
    dip_status status = start(jpeg, pixels, kind, max_pixels);
    if (status != DIP_OK) {
        jpeg_abort_decompress(&jpeg->codec);
        return status;
    }
    read_pixels(jpeg, pixels->bytes);
    jpeg_finish_decompress(&jpeg->codec); /* reads to the end mark: a cut file is noticed */
    image->width = (int)jpeg->codec.output_width;
    image->height = (int)jpeg->codec.output_height;
    image->rgb = pixels->bytes;
    return DIP_OK;
}
