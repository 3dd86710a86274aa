/* bench_image.c - what a crop costs against libjpeg-turbo's bare decoding of the same files.
 *
 *     bench_image [FILE.jpg ...]      without files: 32 pictures of 500 x 375, made here
 *
 * A round is, for every file in turn: a bare decode (jpeg_read_scanlines to RGB, one codec for
 * all), start and finish for a random crop of 0.9 to 1 of the area, start and cut of that crop to
 * 224 x 224 bicubic with a flip, and the same crop decoded at a smaller scale where that is
 * possible. What a cut takes longer than a finish is the resize.
 * Rates are medians over the rounds, ratios medians of the ratios within a round. One thread. JSON
 * on stdout. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jpeglib.h>

#include "core/file.h"
#include "data/image/image.h"

enum { N_ROUNDS = 15, SIDE = 224, N_MADE = 32, MADE_W = 500, MADE_H = 375 };

typedef struct picture {
    uint8_t *data;
    size_t n_bytes;
} picture;

typedef struct round_time {
    double bare, decode, cut; /* seconds for all files */
} round_time;

/* Of this thread's own time: what else the machine does counts as little as possible. */
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void die(const char *what)
{
    fprintf(stderr, "bench_image: %s\n", what);
    exit(1);
}

/* Smooth shapes and some noise: about 60 kB at quality 90. */
static picture make_picture(unsigned seed)
{
    struct jpeg_compress_struct codec;
    struct jpeg_error_mgr errors;
    unsigned char *data = NULL;
    unsigned long n = 0;
    static uint8_t row[MADE_W * 3];
    codec.err = jpeg_std_error(&errors);
    jpeg_create_compress(&codec);
    jpeg_mem_dest(&codec, &data, &n);
    codec.image_width = MADE_W;
    codec.image_height = MADE_H;
    codec.input_components = 3;
    codec.in_color_space = JCS_RGB;
    jpeg_set_defaults(&codec);
    jpeg_set_quality(&codec, 90, TRUE);
    jpeg_start_compress(&codec, TRUE);
    unsigned noise = seed;
    while (codec.next_scanline < MADE_H) {
        int y = (int)codec.next_scanline;
        for (int x = 0; x < MADE_W; x++)
            for (int c = 0; c < 3; c++) {
                noise = noise * 1664525u + 1013904223u;
                int bump = ((x + (int)seed) * (y + 3 * c) >> 9) & 127;
                row[3 * x + c] = (uint8_t)(40 + bump + (int)(noise >> 28) + x / (4 + c));
            }
        JSAMPROW rows[1] = {row};
        jpeg_write_scanlines(&codec, rows, 1);
    }
    jpeg_finish_compress(&codec);
    jpeg_destroy_compress(&codec);
    return (picture){data, n};
}

static void bare_decode(struct jpeg_decompress_struct *codec, const picture *p, uint8_t **rgb,
                        size_t *capacity)
{
    jpeg_mem_src(codec, p->data, p->n_bytes);
    jpeg_read_header(codec, TRUE);
    codec->out_color_space = JCS_RGB;
    jpeg_start_decompress(codec);
    size_t row_bytes = (size_t)codec->output_width * 3, n = row_bytes * codec->output_height;
    if (n > *capacity) {
        free(*rgb);
        *rgb = malloc(n);
        *capacity = n;
    }
    while (codec->output_scanline < codec->output_height) {
        JSAMPROW rows[16];
        unsigned left = codec->output_height - codec->output_scanline, k = left < 16 ? left : 16;
        for (unsigned i = 0; i < k; i++) rows[i] = *rgb + (codec->output_scanline + i) * row_bytes;
        jpeg_read_scanlines(codec, rows, k);
    }
    jpeg_finish_decompress(codec);
}

typedef struct tools {
    struct jpeg_decompress_struct bare;
    struct jpeg_error_mgr errors;
    uint8_t *rgb;
    size_t capacity;
    dip_image_decoder *decoder, *scaling;
    dip_resizer *resizer;
} tools;

static void open_tools(tools *t)
{
    memset(t, 0, sizeof *t);
    t->bare.err = jpeg_std_error(&t->errors);
    jpeg_create_decompress(&t->bare);
    dip_decode_options options = dip_decode_defaults();
    if (dip_image_decoder_open_with(&t->decoder, &options) != DIP_OK) die(dip_error());
    options.scale_in_dct = true;
    if (dip_image_decoder_open_with(&t->scaling, &options) != DIP_OK) die(dip_error());
    if (dip_resizer_open(&t->resizer) != DIP_OK) die(dip_error());
}

static void close_tools(tools *t)
{
    jpeg_destroy_decompress(&t->bare);
    free(t->rgb);
    dip_image_decoder_close(t->decoder);
    dip_image_decoder_close(t->scaling);
    dip_resizer_close(t->resizer);
}

/* Seconds of a crop's decode alone and of the whole cut, added to *decode and *cut. */
static void time_crop(tools *t, dip_image_decoder *decoder, const picture *p, dip_rng *rng,
                      const double scale[2], int side, double *decode, double *cut)
{
    static uint8_t out[SIDE * SIDE * 3];
    const double ratio[2] = {3.0 / 4.0, 4.0 / 3.0};
    int width, height;
    dip_image image;
    dip_rect where;
    dip_fault_kind kind;
    double begin = now();
    if (dip_image_start(decoder, &width, &height, &kind, p->data, p->n_bytes) != DIP_OK)
        die(dip_error());
    dip_box box = dip_random_crop(rng, width, height, scale, ratio);
    if (dip_image_finish(decoder, &image, &where, &kind, box, side, side) != DIP_OK)
        die(dip_error());
    int flip = (int)dip_rng_below(rng, 2);
    double middle = now();
    if (dip_image_start(decoder, &width, &height, &kind, p->data, p->n_bytes) != DIP_OK ||
        dip_image_cut(decoder, t->resizer, out, side, side, &kind, box, DIP_BICUBIC, flip) !=
            DIP_OK)
        die(dip_error());
    *decode += middle - begin;
    *cut += now() - middle;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values)
{
    qsort(values, N_ROUNDS, sizeof *values, by_value);
    return values[N_ROUNDS / 2];
}

/* Rounds of (bare, decode, resize) for outputs of one size. */
static void measure(tools *t, round_time *rounds, dip_image_decoder *decoder,
                    const picture *pictures, int n, const double scale[2], int side)
{
    for (int r = -1; r < N_ROUNDS; r++) { /* round -1 warms up */
        round_time sum = {0};
        for (int i = 0; i < n; i++) {
            dip_rng rng;
            dip_rng_init(&rng, 1, dip_rng_stream(DIP_RNG_TEST, (uint64_t)(r + 1), (uint64_t)i));
            double begin = now();
            bare_decode(&t->bare, &pictures[i], &t->rgb, &t->capacity);
            sum.bare += now() - begin;
            time_crop(t, decoder, &pictures[i], &rng, scale, side, &sum.decode, &sum.cut);
        }
        if (r >= 0) rounds[r] = sum;
    }
}

static void print_rates(const char *name, const round_time *rounds, int n, const char *end)
{
    double bare[N_ROUNDS], decode[N_ROUNDS], resize[N_ROUNDS], cut[N_ROUNDS], ratio[N_ROUNDS];
    for (int r = 0; r < N_ROUNDS; r++) {
        const round_time *t = &rounds[r];
        bare[r] = n / t->bare;
        decode[r] = n / t->decode;
        resize[r] = 1e6 * (t->cut - t->decode) / n;
        cut[r] = n / t->cut;
        ratio[r] = t->bare / t->cut;
    }
    printf("  \"%s\": {\"bare_per_s\": %.0f, \"decode_per_s\": %.0f, \"cut_per_s\": %.0f, "
           "\"resize_us\": %.1f, \"ratio\": %.3f}%s\n",
           name, median(bare), median(decode), median(cut), median(resize), median(ratio), end);
}

int main(int argc, char **argv)
{
    int n = argc > 1 ? argc - 1 : N_MADE;
    picture *pictures = calloc((size_t)n, sizeof *pictures);
    if (!pictures) die("not enough memory");
    size_t n_bytes = 0;
    for (int i = 0; i < n; i++) {
        char *data;
        if (argc == 1)
            pictures[i] = make_picture((unsigned)i);
        else if (dip_file_read(&data, &pictures[i].n_bytes, argv[i + 1], 64 << 20) == DIP_OK)
            pictures[i].data = (uint8_t *)data;
        else
            die(dip_error());
        n_bytes += pictures[i].n_bytes;
    }
    const double nearly_all[2] = {0.9, 1.0};
    tools t;
    open_tools(&t);
    round_time exact[N_ROUNDS], exact_small[N_ROUNDS], scaled[N_ROUNDS];
    measure(&t, exact, t.decoder, pictures, n, nearly_all, SIDE);
    measure(&t, exact_small, t.decoder, pictures, n, nearly_all, SIDE / 2);
    measure(&t, scaled, t.scaling, pictures, n, nearly_all, SIDE / 2);
    printf("{\n  \"files\": %d, \"mean_bytes\": %.0f, \"rounds\": %d,\n", n, (double)n_bytes / n,
           N_ROUNDS);
    print_rates("to_224", exact, n, ",");
    print_rates("to_112", exact_small, n, ",");
    print_rates("to_112_scaled_in_dct", scaled, n, "");
    printf("}\n");
    close_tools(&t);
    for (int i = 0; i < n; i++) free(pictures[i].data);
    free(pictures);
    return 0;
}
