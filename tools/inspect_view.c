#include "tools/inspect_view.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "core/threads.h"
#include "data/image/image.h"
#include "model/model.h"

enum { THUMBNAIL_SIDE = 128 }; /* pixels of the longer side */

typedef struct viewer {
    dip_sample_reader *reader;
    dip_image_decoder *decoder; /* NULL: only the first bytes are read */
    dip_resizer *resizer;
    uint8_t pixels[THUMBNAIL_SIDE * THUMBNAIL_SIDE * 3];
} viewer;

struct dip_views {
    const dip_samples *samples;
    int n_threads;
    viewer *viewers; /* [n_threads] */
};

const char *dip_view_format_name(dip_view_format format)
{
    static const char *const names[DIP_N_VIEW_FORMATS] = {"JPEG", "PNG", "GIF", "WebP", "other"};
    return names[format];
}

static dip_view_format format_of(const uint8_t *p, size_t n)
{
    if (n >= 3 && memcmp(p, "\xff\xd8\xff", 3) == 0) return DIP_VIEW_JPEG;
    if (n >= 8 && memcmp(p, "\x89PNG\r\n\x1a\n", 8) == 0) return DIP_VIEW_PNG;
    if (n >= 4 && memcmp(p, "GIF8", 4) == 0) return DIP_VIEW_GIF;
    if (n >= 12 && memcmp(p, "RIFF", 4) == 0 && memcmp(p + 8, "WEBP", 4) == 0) return DIP_VIEW_WEBP;
    return DIP_VIEW_OTHER;
}

void dip_view_clear(dip_view *view)
{
    free(view->reason);
    free(view->thumbnail);
    *view = (dip_view){0};
}

static int scaled(int side, int longer)
{
    int n = (int)((int64_t)side * THUMBNAIL_SIDE / longer);
    return n > 0 ? n : 1;
}

/* Never larger than the image itself. */
static dip_status take_thumbnail(dip_view *view, viewer *v, const dip_image *image)
{
    int longer = image->width > image->height ? image->width : image->height;
    bool fits = longer <= THUMBNAIL_SIDE;
    view->thumbnail_width = fits ? image->width : scaled(image->width, longer);
    view->thumbnail_height = fits ? image->height : scaled(image->height, longer);
    DIP_TRY(dip_resize(v->resizer, v->pixels, view->thumbnail_width, view->thumbnail_height, image,
                       (dip_box){0, 0, image->width, image->height}, DIP_BICUBIC, 0));
    return dip_png_encode(&view->thumbnail, &view->thumbnail_bytes, v->pixels,
                          view->thumbnail_width, view->thumbnail_height, 3);
}

static dip_status look(dip_view *view, viewer *v, int64_t index, bool shown)
{
    dip_sample sample;
    dip_image image = {0};
    DIP_TRY(dip_sample_read(v->reader, &sample, index,
                            v->decoder ? DIP_NEEDS_IMAGE : DIP_IMAGE_HEAD, &view->kind));
    if (!sample.image) return DIP_OK;
    view->format = format_of(sample.image, sample.image_bytes);
    if (!v->decoder) return DIP_OK;
    DIP_TRY(dip_image_decode(v->decoder, &image, &view->kind, sample.image, sample.image_bytes));
    view->width = image.width;
    view->height = image.height;
    return shown ? take_thumbnail(view, v, &image) : DIP_OK;
}

bool dip_views_shows(int64_t index, int64_t n_samples, int64_t n_shown)
{
    if (n_shown >= n_samples) return true;
    return (index + 1) * n_shown / n_samples > index * n_shown / n_samples;
}

void dip_views_look(dip_views *views, dip_view *view, int64_t first, int64_t n, int64_t n_shown)
{
    int64_t n_samples = dip_samples_count(views->samples);
#pragma omp parallel for schedule(dynamic, 16) num_threads(views->n_threads)
    for (int64_t i = 0; i < n; i++) {
        view[i] = (dip_view){.format = DIP_VIEW_OTHER};
        view[i].status = look(&view[i], &views->viewers[omp_get_thread_num()], first + i,
                              dip_views_shows(first + i, n_samples, n_shown));
        if (view[i].status != DIP_OK) view[i].reason = strdup(dip_error());
    }
}

static dip_status open_viewer(viewer *v, const dip_samples *samples, bool decode)
{
    DIP_TRY(dip_sample_reader_open(&v->reader, samples));
    if (!decode) return DIP_OK;
    DIP_TRY(dip_image_decoder_open(&v->decoder, DIP_MAX_IMAGE_PIXELS));
    return dip_resizer_open(&v->resizer);
}

dip_status dip_views_open(dip_views **out, const dip_samples *samples, bool decode)
{
    dip_status status = DIP_OK;
    int n_threads = dip_core_count();
    dip_views *views = calloc(1, sizeof *views);
    *out = NULL;
    if (!views || !(views->viewers = calloc((size_t)n_threads, sizeof *views->viewers))) {
        status = dip_fail(DIP_NOMEM, "no memory to look at images with %d threads", n_threads);
        goto fail;
    }
    views->samples = samples;
    views->n_threads = n_threads;
    for (int i = 0; i < n_threads; i++)
        DIP_TRY_GOTO(open_viewer(&views->viewers[i], samples, decode));
    *out = views;
    return DIP_OK;
fail:
    dip_views_close(views);
    return status;
}

void dip_views_close(dip_views *views)
{
    if (!views) return;
    for (int i = 0; i < views->n_threads; i++) {
        dip_sample_reader_close(views->viewers[i].reader);
        dip_image_decoder_close(views->viewers[i].decoder);
        dip_resizer_close(views->viewers[i].resizer);
    }
    free(views->viewers);
    free(views);
}
