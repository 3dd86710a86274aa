/* JPEG through libjpeg-turbo's classic interface. libjpeg reports trouble by a callback that must
 * not return, so every call into it is made below a setjmp. Any warning about the data ends the
 * decoding: libjpeg would go on with invented pixels.
 *
 * For a crop, the rows above and below and the columns beside it are entropy-decoded and left at
 * that: no transform, no colours. The bytes stay those of a full decode because libjpeg-turbo skips
 * rows with the context that its upsampling needs, and because two columns more are asked for on
 * either side. Not so for a progressive file that ends before its last bits: there libjpeg smooths
 * over block borders, further than that, and everything is decoded.                         */
#include <inttypes.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

#include "data/image/image_codec.h"

enum {
    UNALIGNED = 8,          /* where a strip's rows begin, in 64 bytes: libjpeg-turbo writes aligned
                             * rows past the cache, from which they are to be read next */
    MARGIN = 2,             /* columns beside a crop from which upsampling takes colour */
    SCANS_AT_LIMIT = 30,    /* of an image of max_pixels; smaller ones may have more */
    SMALL_BYTES = 16 << 20, /* never too much, however low max_pixels */
    KEPT_BYTES = 16 << 20,  /* of a file's copy, from image to image */
    OTHER_BYTES = 32 << 20  /* libjpeg's rows and tables */
};

struct dip_jpeg {
    struct jpeg_decompress_struct codec;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf escape;
    char reason[JMSG_LENGTH_MAX]; /* of the failure that jumped, with its kind and status */
    dip_fault_kind kind;
    dip_status status;
    int max_scans;      /* for this image */
    dip_pixels input;   /* a file that came without padding */
    const uint8_t *end; /* of the file, where padding begins */
    dip_pixels cmyk;    /* one row */
    dip_pixels strip;   /* the rows that were taken last */
    uint8_t *strip_rows;
    size_t strip_row; /* bytes from one to the next */
    JDIMENSION top;   /* the output's row that is the part's first */
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
    const struct jpeg_source_mgr *src = jpeg->codec.src; /* NULL: no memory for it */
    /* What is wrong with the padding is that it was reached. */
    if (src && src->next_input_byte > jpeg->end) codec->err->msg_code = JWRN_JPEG_EOF;
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
    if (jpeg->codec.input_scan_number <= jpeg->max_scans) return;
    snprintf(jpeg->reason, sizeof jpeg->reason, "more than %d scans", jpeg->max_scans);
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
    free(jpeg->strip.bytes);
    free(jpeg->input.bytes);
    free(jpeg);
}

void dip_jpeg_reset(dip_jpeg *jpeg)
{
    jpeg_abort_decompress(&jpeg->codec);
    if (jpeg->input.capacity <= KEPT_BYTES) return;
    free(jpeg->input.bytes);
    jpeg->input = (dip_pixels){0};
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

/* After a jump: what went wrong; the codec is ready for the next image. */
static dip_status refuse(dip_jpeg *jpeg, dip_fault_kind *kind)
{
    jpeg_abort_decompress(&jpeg->codec);
    *kind = jpeg->kind;
    return dip_fail(jpeg->status, "JPEG: %s", jpeg->reason);
}

/* Bytes of the coefficients that a file of several scans must keep until its end. */
static int64_t kept_bytes(const struct jpeg_decompress_struct *codec)
{
    int64_t n_blocks = 0;
    if (!jpeg_has_multiple_scans((j_decompress_ptr)codec)) return 0;
    for (int c = 0; c < codec->num_components; c++) {
        const jpeg_component_info *part = &codec->comp_info[c];
        int64_t across = part->width_in_blocks, down = part->height_in_blocks;
        across = (across + part->h_samp_factor - 1) / part->h_samp_factor * part->h_samp_factor;
        down = (down + part->v_samp_factor - 1) / part->v_samp_factor * part->v_samp_factor;
        n_blocks += across * down;
    }
    return n_blocks * (int64_t)sizeof(JBLOCK);
}

/* The header is read: what it asks for, against the limits. */
static dip_status check_header(dip_jpeg *jpeg, dip_fault_kind *kind,
                               const dip_decode_options *options)
{
    struct jpeg_decompress_struct *codec = &jpeg->codec;
    DIP_TRY(dip_image_check_size(kind, codec->image_width, codec->image_height, options));
    if (codec->num_components != 1 && codec->num_components != 3 && codec->num_components != 4) {
        *kind = DIP_FAULT_IMAGE_FORMAT;
        return dip_fail(DIP_FORMAT, "a JPEG of %d components; 1, 3 or 4 are supported",
                        codec->num_components);
    }
    int64_t n_pixels = (int64_t)codec->image_width * codec->image_height;
    int64_t kept = kept_bytes(codec), n_bytes = kept + 3 * n_pixels;
    int64_t limit = options->max_pixels / 2 * 19;
    if (kept > 0 && n_bytes > limit && n_bytes > SMALL_BYTES) {
        *kind = DIP_FAULT_IMAGE_TOO_LARGE;
        return dip_fail(DIP_FORMAT,
                        "JPEG: %" PRId64 " bytes to decode its several scans; at most %" PRId64
                        " are allowed",
                        n_bytes, limit);
    }
    int64_t scans = options->max_pixels * SCANS_AT_LIMIT / n_pixels;
    jpeg->max_scans = scans < options->max_scans ? (int)scans : options->max_scans;
    codec->mem->max_memory_to_use = (long)(n_bytes + OTHER_BYTES);
    return DIP_OK;
}

/* A copy with zeros behind it. */
static dip_status pad(dip_jpeg *jpeg, const uint8_t *data, size_t n_bytes)
{
    DIP_TRY(dip_pixels_reserve(&jpeg->input, n_bytes + DIP_IMAGE_PADDING));
    memcpy(jpeg->input.bytes, data, n_bytes);
    memset(jpeg->input.bytes + n_bytes, 0, DIP_IMAGE_PADDING);
    return DIP_OK;
}

/* `data` is padded. */
static dip_status read_header(dip_jpeg *jpeg, dip_fault_kind *kind, const uint8_t *data,
                              size_t n_bytes, const dip_decode_options *options)
{
    struct jpeg_decompress_struct *codec = &jpeg->codec;
    jpeg->end = data + n_bytes;
    if (setjmp(jpeg->escape)) return refuse(jpeg, kind);
    jpeg_mem_src(codec, data, n_bytes + DIP_IMAGE_PADDING);
    jpeg_read_header(codec, TRUE);
    dip_status status = check_header(jpeg, kind, options);
    if (status != DIP_OK) jpeg_abort_decompress(codec);
    return status;
}

dip_status dip_jpeg_start(dip_jpeg *jpeg, int *width, int *height, dip_fault_kind *kind,
                          const uint8_t *data, size_t n_bytes, const dip_decode_options *options)
{
    jpeg->max_scans = options->max_scans;
    if (!options->is_padded) DIP_TRY(pad(jpeg, data, n_bytes));
    DIP_TRY(
        read_header(jpeg, kind, options->is_padded ? data : jpeg->input.bytes, n_bytes, options));
    *width = (int)jpeg->codec.image_width;
    *height = (int)jpeg->codec.image_height;
    return DIP_OK;
}

/* A progressive file that leaves low coefficients inexact is smoothed over its block borders. */
static bool is_smoothed(const struct jpeg_decompress_struct *codec)
{
    if (!codec->progressive_mode || !codec->coef_bits) return false;
    for (int c = 0; c < codec->num_components; c++)
        for (int k = 0; k < DCTSIZE2; k++)
            if (codec->coef_bits[c][k] != 0) return true;
    return false;
}

/* libjpeg scales coarse components less, and its cropping of columns (of 2.1) then takes the width
 * of those that are still widened afterwards (4:1:0) for another. */
static bool columns_can_be_cropped(const struct jpeg_decompress_struct *codec)
{
    int full_width = codec->max_h_samp_factor * codec->min_DCT_scaled_size;
    for (int c = 0; c < codec->num_components; c++) {
        const jpeg_component_info *part = &codec->comp_info[c];
        if (part->DCT_scaled_size != codec->min_DCT_scaled_size &&
            part->h_samp_factor * part->DCT_scaled_size != full_width)
            return false;
    }
    return true;
}

/* Which part is decoded: rows [top, bottom) in full, columns from left on. */
typedef struct extent {
    JDIMENSION left, width, top, bottom;
} extent;

/* The rows and columns of the codec's output that hold the box. */
static extent choose_extent(const struct jpeg_decompress_struct *codec, dip_box box, int shrink)
{
    const JDIMENSION width = codec->output_width, height = codec->output_height;
    if (is_smoothed(codec)) return (extent){0, width, 0, height};
    JDIMENSION n = (JDIMENSION)shrink, left = (JDIMENSION)box.x / n, top = (JDIMENSION)box.y / n;
    JDIMENSION right = ((JDIMENSION)(box.x + box.width) + n - 1) / n;
    JDIMENSION bottom = ((JDIMENSION)(box.y + box.height) + n - 1) / n;
    left = left > MARGIN ? left - MARGIN : 0;
    right = width - right > MARGIN ? right + MARGIN : width;
    if (!columns_can_be_cropped(codec)) {
        left = 0;
        right = width;
    }
    return (extent){left, right - left, top, bottom};
}

/* n rows to rgb, `stride` bytes from one to the next. */
static void read_rows(dip_jpeg *jpeg, uint8_t *rgb, size_t stride, JDIMENSION n)
{
    struct jpeg_decompress_struct *codec = &jpeg->codec;
    while (n > 0) {
        JSAMPROW rows[DIP_ROWS_AT_ONCE];
        JDIMENSION n_read = 1;
        if (codec->out_color_space == JCS_CMYK) {
            jpeg_read_scanlines(codec, &jpeg->cmyk.bytes, 1);
            cmyk_row(rgb, jpeg->cmyk.bytes, (int)codec->output_width);
        } else {
            JDIMENSION n_room = n < DIP_ROWS_AT_ONCE ? n : DIP_ROWS_AT_ONCE;
            for (JDIMENSION i = 0; i < n_room; i++) rows[i] = rgb + i * stride;
            n_read = jpeg_read_scanlines(codec, rows, n_room);
        }
        rgb += stride * n_read;
        n -= n_read;
    }
}

/* A component sampled more coarsely in one axis than in the other (4:2:2, 4:1:1) would, in that
 * axis, be left with fewer samples than the output has: shrink by that much less. */
static int even_shrink(const struct jpeg_decompress_struct *codec, int shrink)
{
    int uneven = 1;
    for (int c = 0; c < codec->num_components; c++) {
        int across = codec->max_h_samp_factor * codec->comp_info[c].v_samp_factor;
        int down = codec->max_v_samp_factor * codec->comp_info[c].h_samp_factor;
        int ratio = across > down ? (across + down - 1) / down : (down + across - 1) / across;
        if (ratio > uneven) uneven = ratio;
    }
    for (; uneven > 1 && shrink > 1; uneven = (uneven + 1) / 2) shrink /= 2;
    return shrink;
}

/* Decide what is decoded, and come to its first row. */
static dip_status begin_part(dip_jpeg *jpeg, int *width, int *n_rows, dip_rect *where, dip_box box,
                             int shrink)
{
    struct jpeg_decompress_struct *codec = &jpeg->codec;
    codec->out_color_space = codec->num_components == 4 ? JCS_CMYK : JCS_RGB;
    shrink = even_shrink(codec, shrink);
    codec->scale_num = 8 / (unsigned)shrink;
    codec->scale_denom = 8;
    jpeg_start_decompress(codec);
    extent e = choose_extent(codec, box, shrink);
    jpeg_crop_scanline(codec, &e.left, &e.width); /* moves left to a block's border */
    jpeg->strip_row = ((size_t)e.width * 3 + DIP_ROWS_OVERREAD + 63) / 64 * 64;
    DIP_TRY(dip_pixels_reserve(
        &jpeg->strip, jpeg->strip_row * (size_t)dip_rows_at_once((int)e.width) + 64 + UNALIGNED));
    jpeg->strip_rows =
        jpeg->strip.bytes + (64 - (uintptr_t)jpeg->strip.bytes % 64) % 64 + UNALIGNED;
    DIP_TRY(dip_pixels_reserve(&jpeg->cmyk, (size_t)e.width * 4));
    if (e.top > 0) jpeg_skip_scanlines(codec, e.top);
    jpeg->top = e.top;
    *width = (int)e.width;
    *n_rows = (int)(e.bottom - e.top);
    *where = (dip_rect){(double)box.x / shrink - e.left, (double)box.y / shrink - e.top,
                        (double)box.width / shrink, (double)box.height / shrink};
    return DIP_OK;
}

dip_status dip_jpeg_begin(dip_jpeg *jpeg, int *width, int *n_rows, dip_rect *where,
                          dip_fault_kind *kind, dip_box box, int shrink)
{
    if (setjmp(jpeg->escape)) return refuse(jpeg, kind);
    dip_status status = begin_part(jpeg, width, n_rows, where, box, shrink);
    if (status != DIP_OK) jpeg_abort_decompress(&jpeg->codec);
    return status;
}

dip_status dip_jpeg_take(dip_jpeg *jpeg, const uint8_t **rows, dip_fault_kind *kind, int first,
                         int n)
{
    const struct jpeg_decompress_struct *codec = &jpeg->codec;
    const JDIMENSION at = jpeg->top + (JDIMENSION)first;
    if (setjmp(jpeg->escape)) return refuse(jpeg, kind);
    while (codec->output_scanline < at) read_rows(jpeg, jpeg->strip_rows, jpeg->strip_row, 1);
    read_rows(jpeg, jpeg->strip_rows, jpeg->strip_row, (JDIMENSION)n);
    for (int i = 0; i < n; i++) rows[i] = jpeg->strip_rows + (size_t)i * jpeg->strip_row;
    return DIP_OK;
}

dip_status dip_jpeg_read(dip_jpeg *jpeg, uint8_t *rgb, dip_fault_kind *kind, int n)
{
    if (setjmp(jpeg->escape)) return refuse(jpeg, kind);
    read_rows(jpeg, rgb, (size_t)jpeg->codec.output_width * 3, (JDIMENSION)n);
    return DIP_OK;
}

dip_status dip_jpeg_end(dip_jpeg *jpeg, dip_fault_kind *kind)
{
    struct jpeg_decompress_struct *codec = &jpeg->codec;
    if (setjmp(jpeg->escape)) return refuse(jpeg, kind);
    /* The last row is read, not skipped: libjpeg takes a skip to the end for leave to ignore the
     * rest of the file, damage and all. */
    JDIMENSION left = codec->output_height - codec->output_scanline;
    if (left > 1) jpeg_skip_scanlines(codec, left - 1);
    if (left > 0) read_rows(jpeg, jpeg->strip_rows, jpeg->strip_row, 1);
    jpeg_finish_decompress(codec); /* reads to the end mark: a cut file is noticed */
    return DIP_OK;
}
