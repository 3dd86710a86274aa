#include "data/image/jpeg_encode.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>

typedef struct encoder {
    struct jpeg_compress_struct codec;
    struct jpeg_error_mgr errors;
    jmp_buf escape;
    char reason[JMSG_LENGTH_MAX];
    unsigned char *out; /* libjpeg's own buffer, by malloc */
    unsigned long n_bytes;
} encoder;

static void escape(j_common_ptr codec)
{
    encoder *e = codec->client_data;
    codec->err->format_message(codec, e->reason);
    longjmp(e->escape, 1);
}

static void encode(encoder *e, const uint8_t *rgb, int width, int height, int quality)
{
    struct jpeg_compress_struct *codec = &e->codec;
    jpeg_create_compress(codec);
    jpeg_mem_dest(codec, &e->out, &e->n_bytes);
    codec->image_width = (JDIMENSION)width;
    codec->image_height = (JDIMENSION)height;
    codec->input_components = 3;
    codec->in_color_space = JCS_RGB;
    jpeg_set_defaults(codec);
    jpeg_set_quality(codec, quality, TRUE);
    jpeg_start_compress(codec, TRUE);
    while (codec->next_scanline < codec->image_height) {
        /* libjpeg only reads the row. */
        JSAMPROW row =
            (JSAMPROW)(uintptr_t)(rgb + (size_t)codec->next_scanline * (size_t)width * 3);
        jpeg_write_scanlines(codec, &row, 1);
    }
    jpeg_finish_compress(codec);
}

dip_status dip_jpeg_encode(uint8_t **out, size_t *n_bytes, const uint8_t *rgb, int width,
                           int height, int quality)
{
    *out = NULL;
    *n_bytes = 0;
    if (quality < 1 || quality > 100)
        return dip_fail(DIP_CONFIG, "JPEG quality %d, it must be 1 to 100", quality);
    if (width < 1 || height < 1 || width > JPEG_MAX_DIMENSION || height > JPEG_MAX_DIMENSION)
        return dip_fail(DIP_CONFIG, "%d x %d pixels for a JPEG, at most %ld a side", width, height,
                        (long)JPEG_MAX_DIMENSION);
    encoder *e = calloc(1, sizeof *e);
    if (!e) return dip_fail(DIP_NOMEM, "no memory for a JPEG encoder");
    e->codec.err = jpeg_std_error(&e->errors);
    e->errors.error_exit = escape;
    e->codec.client_data = e;
    dip_status status = DIP_OK;
    if (setjmp(e->escape))
        status = dip_fail(DIP_NOMEM, "a JPEG cannot be written: %s", e->reason);
    else
        encode(e, rgb, width, height, quality);
    jpeg_destroy_compress(&e->codec);
    /* On failure libjpeg may have freed e->out while growing it, and keeps the new one to itself:
     * out of memory, one buffer is lost. */
    if (status == DIP_OK) {
        *out = e->out;
        *n_bytes = e->n_bytes;
    }
    free(e);
    return status;
}
