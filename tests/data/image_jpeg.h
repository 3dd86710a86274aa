/* image_jpeg.h - JPEGs of every kind for the image tests, made by libjpeg. Include after
 * image_files.h. */
#ifndef DIP_TESTS_IMAGE_JPEG_H
#define DIP_TESTS_IMAGE_JPEG_H

#include <stdio.h>

#include <jpeglib.h>

#include "image_files.h"

typedef enum jpeg_scans {
    SCANS_ONE,         /* baseline, one scan */
    SCANS_PROGRESSIVE, /* libjpeg's usual script */
    SCANS_EACH,        /* baseline, a scan per component */
    SCANS_DC_ONLY      /* progressive without the fine coefficients: libjpeg smooths it */
} jpeg_scans;

typedef struct jpeg_recipe {
    const char *name;
    int n_components; /* of the file */
    J_COLOR_SPACE stored;
    int h[4], v[4]; /* sampling; 0: 1 */
    jpeg_scans scans;
    int restart_rows, restart_blocks;
    bool arithmetic;
} jpeg_recipe;

/* Every sampling there is in the wild, and some that are not. */
static const jpeg_recipe jpeg_recipes[] = {
    {"444", 3, JCS_YCbCr, {1, 1, 1}, {1, 1, 1}, .scans = SCANS_ONE},
    {"422", 3, JCS_YCbCr, {2, 1, 1}, {1, 1, 1}, .scans = SCANS_ONE},
    {"420", 3, JCS_YCbCr, {2, 1, 1}, {2, 1, 1}, .scans = SCANS_ONE},
    {"440", 3, JCS_YCbCr, {1, 1, 1}, {2, 1, 1}, .scans = SCANS_ONE},
    {"411", 3, JCS_YCbCr, {4, 1, 1}, {1, 1, 1}, .scans = SCANS_ONE},
    {"410", 3, JCS_YCbCr, {4, 1, 1}, {2, 1, 1}, .scans = SCANS_ONE},
    {"mixed", 3, JCS_YCbCr, {2, 1, 2}, {2, 2, 1}, .scans = SCANS_ONE},
    {"coarse luma", 3, JCS_YCbCr, {1, 2, 2}, {1, 2, 2}, .scans = SCANS_ONE},
    {"444 progressive", 3, JCS_YCbCr, {1, 1, 1}, {1, 1, 1}, .scans = SCANS_PROGRESSIVE},
    {"422 progressive", 3, JCS_YCbCr, {2, 1, 1}, {1, 1, 1}, .scans = SCANS_PROGRESSIVE},
    {"420 progressive", 3, JCS_YCbCr, {2, 1, 1}, {2, 1, 1}, .scans = SCANS_PROGRESSIVE},
    {"440 progressive", 3, JCS_YCbCr, {1, 1, 1}, {2, 1, 1}, .scans = SCANS_PROGRESSIVE},
    {"411 progressive", 3, JCS_YCbCr, {4, 1, 1}, {1, 1, 1}, .scans = SCANS_PROGRESSIVE},
    {"420 a scan each", 3, JCS_YCbCr, {2, 1, 1}, {2, 1, 1}, .scans = SCANS_EACH},
    {"420 coarse only", 3, JCS_YCbCr, {2, 1, 1}, {2, 1, 1}, .scans = SCANS_DC_ONLY},
    {"444 coarse only", 3, JCS_YCbCr, {1, 1, 1}, {1, 1, 1}, .scans = SCANS_DC_ONLY},
    {"420 restarts", 3, JCS_YCbCr, {2, 1, 1}, {2, 1, 1}, .restart_blocks = 3},
    {"422 restart rows", 3, JCS_YCbCr, {2, 1, 1}, {1, 1, 1}, .restart_rows = 1},
    {"420 arithmetic", 3, JCS_YCbCr, {2, 1, 1}, {2, 1, 1}, .arithmetic = true},
    {"grey", 1, JCS_GRAYSCALE, {1}, {1}, .scans = SCANS_ONE},
    {"grey 2x2", 1, JCS_GRAYSCALE, {2}, {2}, .scans = SCANS_ONE},
    {"grey progressive", 1, JCS_GRAYSCALE, {1}, {1}, .scans = SCANS_PROGRESSIVE},
    {"rgb", 3, JCS_RGB, {1, 1, 1}, {1, 1, 1}, .scans = SCANS_ONE},
    {"cmyk", 4, JCS_CMYK, {1, 1, 1, 1}, {1, 1, 1, 1}, .scans = SCANS_ONE},
    {"ycck 420", 4, JCS_YCCK, {2, 1, 1, 2}, {2, 1, 1, 2}, .scans = SCANS_ONE},
    {"ycck progressive", 4, JCS_YCCK, {2, 1, 1, 2}, {2, 1, 1, 2}, .scans = SCANS_PROGRESSIVE},
};

enum { N_JPEG_RECIPES = sizeof jpeg_recipes / sizeof jpeg_recipes[0] };

/* A row with smooth parts, edges and noise in every channel. */
static inline void fill_scene_row(uint8_t *row, int y, int width, int n_channels, unsigned seed)
{
    unsigned noise = seed * 2654435761u + (unsigned)y * 40503u;
    for (int x = 0; x < width; x++)
        for (int c = 0; c < n_channels; c++) {
            noise = noise * 1664525u + 1013904223u;
            int value = 3 * x * (c + 1) + 2 * y * (3 - c) + (int)(noise >> 27);
            if ((x / 9 + y / 7 + c) % 5 == 0) value += 120;
            row[x * n_channels + c] = (uint8_t)value;
        }
}

/* The same for a picture that survives being made smaller: waves of 20 pixels and more. */
static inline void fill_smooth_row(uint8_t *row, int y, int width, int n_channels, unsigned seed)
{
    for (int x = 0; x < width; x++)
        for (int c = 0; c < n_channels; c++) {
            double wave = sin(0.11 * x + c) + sin(0.07 * y - 0.05 * x) + sin(0.013 * x * (c + 1));
            unsigned noise = (seed + (unsigned)(x * 31 + y * 17 + c)) * 2654435761u;
            row[x * n_channels + c] = (uint8_t)(128 + 38 * wave + (noise >> 30));
        }
}

typedef void fill_row_fn(uint8_t *row, int y, int width, int n_channels, unsigned seed);

static inline int set_scans(jpeg_scan_info *scans, const jpeg_recipe *recipe)
{
    int n = recipe->n_components;
    if (recipe->scans == SCANS_EACH) {
        for (int c = 0; c < n; c++)
            scans[c] = (jpeg_scan_info){.comps_in_scan = 1, .component_index = {c}, .Se = 63};
        return n;
    }
    scans[0] = (jpeg_scan_info){.comps_in_scan = n, .component_index = {0, 1, 2, 3}};
    return 1;
}

static inline bytes make_jpeg_of(const jpeg_recipe *recipe, int width, int height, unsigned seed,
                                 fill_row_fn *fill)
{
    struct jpeg_compress_struct codec;
    struct jpeg_error_mgr errors;
    jpeg_scan_info scans[4];
    unsigned long n = 0;
    unsigned char *data = NULL;
    codec.err = jpeg_std_error(&errors);
    jpeg_create_compress(&codec);
    jpeg_mem_dest(&codec, &data, &n);
    codec.image_width = (JDIMENSION)width;
    codec.image_height = (JDIMENSION)height;
    codec.input_components = recipe->n_components;
    codec.in_color_space = recipe->n_components == 1   ? JCS_GRAYSCALE
                           : recipe->n_components == 3 ? JCS_RGB
                                                       : JCS_CMYK;
    jpeg_set_defaults(&codec);
    jpeg_set_colorspace(&codec, recipe->stored);
    jpeg_set_quality(&codec, 85, TRUE);
    for (int c = 0; c < recipe->n_components; c++) {
        codec.comp_info[c].h_samp_factor = recipe->h[c];
        codec.comp_info[c].v_samp_factor = recipe->v[c];
    }
    if (recipe->scans == SCANS_PROGRESSIVE) jpeg_simple_progression(&codec);
    if (recipe->scans == SCANS_EACH || recipe->scans == SCANS_DC_ONLY) {
        codec.num_scans = set_scans(scans, recipe);
        codec.scan_info = scans;
    }
    codec.restart_in_rows = recipe->restart_rows;
    codec.restart_interval = (unsigned)recipe->restart_blocks;
    codec.arith_code = recipe->arithmetic;
    jpeg_start_compress(&codec, TRUE);
    uint8_t *row = malloc((size_t)width * 4);
    assert_non_null(row);
    JSAMPROW rows[1] = {row};
    while (codec.next_scanline < codec.image_height) {
        fill(row, (int)codec.next_scanline, width, recipe->n_components, seed);
        jpeg_write_scanlines(&codec, rows, 1);
    }
    jpeg_finish_compress(&codec);
    jpeg_destroy_compress(&codec);
    free(row);
    return (bytes){data, n};
}

/* The caller frees data. */
static inline bytes make_jpeg(const jpeg_recipe *recipe, int width, int height, unsigned seed)
{
    return make_jpeg_of(recipe, width, height, seed, fill_scene_row);
}

static inline bytes make_smooth_jpeg(const jpeg_recipe *recipe, int width, int height)
{
    return make_jpeg_of(recipe, width, height, 0, fill_smooth_row);
}

#endif
