/* Still WebP through libwebp. The size is known, and checked, before libwebp takes memory. */
#include "data/image/image_codec.h"

#ifdef DIPTYCH_WEBP

#include <webp/decode.h>

static const char *status_text(VP8StatusCode status)
{
    switch (status) {
    case VP8_STATUS_NOT_ENOUGH_DATA:
    case VP8_STATUS_SUSPENDED:
        return "the file ends too early";
    case VP8_STATUS_UNSUPPORTED_FEATURE:
        return "a feature this build does not read";
    default:
        return "damaged data";
    }
}

dip_status dip_webp_size(int *width, int *height, dip_fault_kind *kind, const uint8_t *data,
                         size_t n_bytes, const dip_decode_options *options)
{
    WebPBitstreamFeatures features;
    VP8StatusCode status = WebPGetFeatures(data, n_bytes, &features);
    if (status != VP8_STATUS_OK) return dip_fail(DIP_FORMAT, "WebP: %s", status_text(status));
    if (features.has_animation) {
        *kind = DIP_FAULT_IMAGE_FORMAT;
        return dip_fail(DIP_FORMAT, "this is an animated WebP; still ones are supported");
    }
    DIP_TRY(dip_image_check_size(kind, features.width, features.height, options));
    *width = features.width;
    *height = features.height;
    return DIP_OK;
}

dip_status dip_webp_decode(dip_image *image, dip_pixels *pixels, const uint8_t *data,
                           size_t n_bytes, const dip_decode_options *options)
{
    WebPDecoderConfig config;
    if (!WebPInitDecoderConfig(&config))
        return dip_fail(DIP_UNSUPPORTED, "libwebp is of another version than its header");
    VP8StatusCode status = WebPGetFeatures(data, n_bytes, &config.input);
    if (status != VP8_STATUS_OK) return dip_fail(DIP_FORMAT, "WebP: %s", status_text(status));
    size_t width = (size_t)config.input.width, height = (size_t)config.input.height;
    bool blend = config.input.has_alpha && options->alpha_over[0] >= 0;
    size_t stride = width * (blend ? 4 : 3);
    DIP_TRY(dip_pixels_reserve(pixels, stride * height));
    config.output.colorspace = blend ? MODE_RGBA : MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = pixels->bytes;
    config.output.u.RGBA.stride = (int)stride;
    config.output.u.RGBA.size = stride * height;
    status = WebPDecode(data, n_bytes, &config);
    WebPFreeDecBuffer(&config.output);
    if (status == VP8_STATUS_OUT_OF_MEMORY)
        return dip_fail(DIP_NOMEM, "not enough memory for a WebP image");
    if (status != VP8_STATUS_OK) return dip_fail(DIP_FORMAT, "WebP: %s", status_text(status));
    if (blend) dip_alpha_over(pixels->bytes, pixels->bytes, width * height, options->alpha_over);
    *image = (dip_image){(int)width, (int)height, pixels->bytes};
    return DIP_OK;
}

#else

static dip_status refuse(void)
{
    return dip_fail(DIP_FORMAT, "this is WebP, and this build is without libwebp");
}

dip_status dip_webp_size(int *width, int *height, dip_fault_kind *kind, const uint8_t *data,
                         size_t n_bytes, const dip_decode_options *options)
{
    (void)width, (void)height, (void)data, (void)n_bytes, (void)options;
    *kind = DIP_FAULT_IMAGE_FORMAT;
    return refuse();
}

dip_status dip_webp_decode(dip_image *image, dip_pixels *pixels, const uint8_t *data,
                           size_t n_bytes, const dip_decode_options *options)
{
    (void)image, (void)pixels, (void)data, (void)n_bytes, (void)options;
    return refuse();
}

#endif
