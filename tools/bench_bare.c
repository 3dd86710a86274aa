#include "tools/bench_bare.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include "core/rng.h"
#include "tools/bench.h"

dip_status dip_pictures_read(dip_pictures *all, const dip_samples *samples, int64_t most)
{
    static const double scale[2] = {0.9, 1}, ratio[2] = {0.75, 4.0 / 3};
    dip_sample_reader *reader = NULL;
    dip_image_decoder *decoder = NULL;
    const dip_decode_options decode = dip_decode_defaults();
    dip_status status;
    int64_t n = dip_samples_count(samples);
    if (n > most) n = most;
    all->items = calloc((size_t)n + 1, sizeof *all->items);
    if (!all->items) return dip_fail(DIP_NOMEM, "no memory for %lld images", (long long)n);
    DIP_TRY_GOTO(dip_sample_reader_open(&reader, samples));
    DIP_TRY_GOTO(dip_image_decoder_open_with(&decoder, &decode));
    for (int64_t i = 0; i < n; i++) {
        dip_sample sample;
        dip_fault_kind kind;
        dip_image image;
        if (dip_sample_read(reader, &sample, i, DIP_NEEDS_IMAGE, &kind) != DIP_OK) continue;
        if (dip_image_decode(decoder, &image, &kind, sample.image, sample.image_bytes) != DIP_OK)
            continue;
        dip_picture *p = &all->items[all->n];
        dip_rng rng;
        dip_rng_init(&rng, 0, dip_rng_stream(DIP_RNG_TEST, 0, (uint64_t)i));
        *p = (dip_picture){.index = i,
                           .bytes = malloc(sample.image_bytes),
                           .n_bytes = sample.image_bytes,
                           .width = image.width,
                           .height = image.height,
                           .box = dip_random_crop(&rng, image.width, image.height, scale, ratio)};
        if (!p->bytes) {
            status = dip_fail(DIP_NOMEM, "no memory for image %lld", (long long)i);
            goto fail;
        }
        memcpy(p->bytes, sample.image, sample.image_bytes);
        all->n_bytes += (double)sample.image_bytes;
        all->n_pixels += (double)image.width * image.height;
        all->n++;
    }
    status = all->n > 0 ? DIP_OK : dip_fail(DIP_CONFIG, "no image to measure with");
fail:
    dip_image_decoder_close(decoder);
    dip_sample_reader_close(reader);
    return status;
}

void dip_pictures_free(dip_pictures *all)
{
    for (int64_t i = 0; i < all->n; i++) free(all->items[i].bytes);
    free(all->items);
}

/* ---- the bare decoder -------------------------------------------------------------------- */

typedef struct bare_error {
    struct jpeg_error_mgr manager;
    jmp_buf escape;
} bare_error;

static void bare_escape(j_common_ptr codec)
{
    longjmp(((bare_error *)codec->err)->escape, 1);
}

typedef struct bare_job {
    const dip_pictures *all;
    int64_t first, step;
    uint8_t *rows;              /* room for any of the pictures */
    dip_image_decoder *decoder; /* of what is no JPEG */
} bare_job;

/* Every `step`th picture from `first` on. */
static void *decode_bare(void *argument)
{
    const bare_job *job = argument;
    struct jpeg_decompress_struct codec;
    bare_error error;
    codec.err = jpeg_std_error(&error.manager);
    error.manager.error_exit = bare_escape;
    if (setjmp(error.escape) == 0) { /* these files were decoded before: nothing should fail */
        jpeg_create_decompress(&codec);
        for (int64_t i = job->first; i < job->all->n; i += job->step) {
            const dip_picture *p = &job->all->items[i];
            if (memcmp(p->bytes, "\xff\xd8\xff", 3) != 0) {
                dip_image image;
                dip_fault_kind kind;
                (void)dip_image_decode(job->decoder, &image, &kind, p->bytes, p->n_bytes);
                continue;
            }
            jpeg_mem_src(&codec, p->bytes, p->n_bytes);
            jpeg_read_header(&codec, TRUE);
            if (codec.num_components != 4) codec.out_color_space = JCS_RGB;
            jpeg_start_decompress(&codec);
            const size_t row_bytes = (size_t)codec.output_width * (size_t)codec.output_components;
            while (codec.output_scanline < codec.output_height) {
                JSAMPROW row = job->rows + row_bytes * codec.output_scanline;
                jpeg_read_scanlines(&codec, &row, 1);
            }
            jpeg_finish_decompress(&codec);
        }
    }
    jpeg_destroy_decompress(&codec);
    return NULL;
}

dip_status dip_bare_rate(double *rate, const dip_pictures *all, int n_threads)
{
    const dip_decode_options decode = dip_decode_defaults();
    size_t most = 0;
    for (int64_t i = 0; i < all->n; i++) {
        const size_t n = (size_t)all->items[i].width * (size_t)all->items[i].height * 4;
        if (n > most) most = n;
    }
    bare_job *jobs = calloc((size_t)n_threads, sizeof *jobs);
    pthread_t *threads = calloc((size_t)n_threads, sizeof *threads);
    dip_status status = jobs && threads ? DIP_OK : dip_fail(DIP_NOMEM, "no memory for threads");
    for (int i = 0; i < n_threads && status == DIP_OK; i++) {
        jobs[i] = (bare_job){.all = all, .first = i, .step = n_threads, .rows = malloc(most)};
        if (!jobs[i].rows) status = dip_fail(DIP_NOMEM, "no memory for %zu bytes", most);
        if (status == DIP_OK) status = dip_image_decoder_open_with(&jobs[i].decoder, &decode);
    }
    int n_started = 0;
    const double start = dip_bench_now();
    while (status == DIP_OK && n_started < n_threads)
        if (pthread_create(&threads[n_started], NULL, decode_bare, &jobs[n_started]) == 0)
            n_started++;
        else
            status = dip_fail(DIP_NOMEM, "thread %d cannot start", n_started);
    for (int i = 0; i < n_started; i++) pthread_join(threads[i], NULL);
    *rate = (double)all->n / (dip_bench_now() - start);
    for (int i = 0; jobs && i < n_threads; i++) {
        dip_image_decoder_close(jobs[i].decoder);
        free(jobs[i].rows);
    }
    free(jobs);
    free(threads);
    return status;
}
