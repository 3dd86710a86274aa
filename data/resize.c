/* Antialiased resizing that gives Pillow's bytes. Each axis is a table of taps: the filter is
 * stretched by the reduction, its weights are computed in double, normalised, and rounded to 22
 * fraction bits. The first pass is rounded to 8 bits; a pass whose size does not change is
 * skipped. Only the asked-for part of the result is computed.                                */
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "data/image.h"
#include "data/resize_kernels.h"

/* Taps of one axis for the outputs [first, first + n) of `out`; kept while the key is the same. */
typedef struct axis {
    dip_filter filter;
    int64_t in, out, first;
    int n; /* 0: nothing kept */
    dip_taps *taps;
    int32_t *weights;
    int16_t *packed;
    double *exact; /* weights of one output before rounding */
    size_t taps_capacity, weights_capacity, packed_capacity, exact_capacity;
} axis;

struct dip_resizer {
    const dip_resize_kernels *kernels;
    axis x, y;
    uint8_t *temp; /* rows between the passes */
    uint8_t *edge; /* four padded copies of rows at the image's end */
    size_t temp_capacity, edge_capacity;
};

/* What is computed: the part (x, y, w, h) of `box` resized to full_w x full_h. */
typedef struct request {
    dip_box box;
    dip_filter filter;
    int64_t full_w, full_h, x, y;
    int w, h;
    bool flip;
} request;

dip_status dip_resizer_open(dip_resizer **resizer)
{
    *resizer = calloc(1, sizeof **resizer);
    if (!*resizer) return dip_fail(DIP_NOMEM, "not enough memory for a resizer");
    const dip_resize_kernels *best = dip_resize_kernels_avx512();
    if (!best) best = dip_resize_kernels_avx2();
    if (!best) best = dip_resize_kernels_c();
    (*resizer)->kernels = best;
    return DIP_OK;
}

void dip_resizer_set_kernels(dip_resizer *resizer, const dip_resize_kernels *kernels)
{
    resizer->kernels = kernels;
}

static void axis_free(axis *a)
{
    free(a->taps);
    free(a->weights);
    free(a->packed);
    free(a->exact);
}

void dip_resizer_close(dip_resizer *resizer)
{
    if (!resizer) return;
    axis_free(&resizer->x);
    axis_free(&resizer->y);
    free(resizer->temp);
    free(resizer->edge);
    free(resizer);
}

/* Memory for n items: the old one if it is large enough, else new (what was there is lost). NULL
 * when there is none. */
static void *room_for(void *old, size_t *capacity, size_t n, size_t item_bytes)
{
    if (old && n <= *capacity) return old;
    free(old);
    void *fresh = calloc(n, item_bytes);
    *capacity = fresh ? n : 0;
    return fresh;
}

static dip_status no_memory(void)
{
    return dip_fail(DIP_NOMEM, "not enough memory to resize an image");
}

/* Keys' cubic convolution with a = -1/2, and the triangle. */
static double kernel_value(dip_filter filter, double t)
{
    t = fabs(t);
    if (filter == DIP_BILINEAR) return t < 1.0 ? 1.0 - t : 0.0;
    if (t < 1.0) return (1.5 * t - 2.5) * t * t + 1.0;
    if (t < 2.0) return (((t - 5.0) * t + 8.0) * t - 4.0) * -0.5;
    return 0.0;
}

/* The weights of one output, whose centre lies at `centre` on the source axis. */
static void fill_taps(axis *a, int i, size_t stride, double scale, double stretch, double support)
{
    dip_taps *taps = &a->taps[i];
    int32_t *weights = a->weights + stride * (size_t)i;
    int16_t *packed = a->packed + 2 * stride * (size_t)i;
    taps->weights = weights;
    taps->packed = packed;
    double centre = ((double)(a->first + i) + 0.5) * scale, total = 0.0;
    int64_t low = (int64_t)(centre - support + 0.5), high = (int64_t)(centre + support + 0.5);
    if (low < 0) low = 0;
    if (high > a->in) high = a->in;
    taps->first = (int)low;
    taps->n = (int)(high - low);
    for (int k = 0; k < taps->n; k++) {
        a->exact[k] = kernel_value(a->filter, ((double)(k + low) - centre + 0.5) * stretch);
        total += a->exact[k];
    }
    int n_padded = (taps->n + DIP_RESIZE_GROUP - 1) / DIP_RESIZE_GROUP * DIP_RESIZE_GROUP;
    for (int k = 0; k < n_padded; k++) {
        double w = k < taps->n ? a->exact[k] / total * (1 << DIP_RESIZE_BITS) : 0.0;
        weights[k] = (int32_t)(w < 0.0 ? w - 0.5 : w + 0.5);
        int16_t *group = packed + k / DIP_RESIZE_GROUP * 2 * DIP_RESIZE_GROUP;
        group[k % DIP_RESIZE_GROUP] = (int16_t)(weights[k] & ((1 << DIP_RESIZE_LOW_BITS) - 1));
        group[DIP_RESIZE_GROUP + k % DIP_RESIZE_GROUP] =
            (int16_t)(weights[k] >> DIP_RESIZE_LOW_BITS);
    }
}

static dip_status axis_prepare(axis *a, dip_filter filter, int64_t in, int64_t out, int64_t first,
                               int n)
{
    if (a->n == n && a->filter == filter && a->in == in && a->out == out && a->first == first)
        return DIP_OK;
    double scale = (double)in / (double)out;
    double reduction = scale < 1.0 ? 1.0 : scale;
    double support = (filter == DIP_BILINEAR ? 1.0 : 2.0) * reduction;
    size_t n_taps = (size_t)ceil(support) * 2 + 1;
    if (n_taps > (size_t)in) n_taps = (size_t)in;
    size_t stride = (n_taps + DIP_RESIZE_GROUP - 1) / DIP_RESIZE_GROUP * DIP_RESIZE_GROUP;
    size_t n_weights = stride * (size_t)n;
    a->n = 0;
    a->taps = room_for(a->taps, &a->taps_capacity, (size_t)n, sizeof *a->taps);
    a->weights = room_for(a->weights, &a->weights_capacity, n_weights, sizeof *a->weights);
    a->packed = room_for(a->packed, &a->packed_capacity, 2 * n_weights, sizeof *a->packed);
    a->exact = room_for(a->exact, &a->exact_capacity, n_taps, sizeof *a->exact);
    if (!a->taps || !a->weights || !a->packed || !a->exact) return no_memory();
    a->filter = filter;
    a->in = in;
    a->out = out;
    a->first = first;
    for (int i = 0; i < n; i++) fill_taps(a, i, stride, scale, 1.0 / reduction, support);
    a->n = n;
    return DIP_OK;
}

static void mirror(uint8_t *row, int width)
{
    for (uint8_t *a = row, *b = row + 3 * (size_t)(width - 1); a < b; a += 3, b -= 3)
        for (int c = 0; c < 3; c++) {
            uint8_t swap = a[c];
            a[c] = b[c];
            b[c] = swap;
        }
}

/* The width does not change: vertical pass straight from the image, or a copy. */
static void resize_rows(const dip_resizer *resizer, uint8_t *out, const uint8_t *src,
                        size_t src_stride, const request *q, bool need_y)
{
    size_t out_stride = 3 * (size_t)q->w;
    src += 3 * (size_t)q->x;
    for (int y = 0; y < q->h; y++, out += out_stride) {
        if (need_y)
            resizer->kernels->vertical(out, src, src_stride, out_stride, &resizer->y.taps[y]);
        else
            memcpy(out, src + (size_t)(q->y + y) * src_stride, out_stride);
        if (q->flip) mirror(out, q->w);
    }
}

/* n_rows of src through the horizontal pass. Its loops may read a little past a row; a row too
 * near `end` is copied to where they may. */
static void resize_columns(const dip_resizer *resizer, uint8_t *dst, const uint8_t *src,
                           size_t src_stride, const uint8_t *end, const request *q, int n_rows)
{
    size_t row_bytes = 3 * (size_t)q->box.width, dst_stride = 3 * (size_t)q->w;
    for (int y = 0; y < n_rows; y += 4) {
        const uint8_t *rows[4];
        uint8_t *outs[4];
        for (int r = 0; r < 4; r++) {
            int at = y + r < n_rows ? y + r : n_rows - 1; /* repeat the last row */
            rows[r] = src + (size_t)at * src_stride;
            outs[r] = dst + (size_t)at * dst_stride;
            if ((size_t)(end - rows[r]) >= row_bytes + DIP_RESIZE_OVERREAD) continue;
            uint8_t *copy = resizer->edge + (size_t)r * (row_bytes + DIP_RESIZE_OVERREAD);
            memcpy(copy, rows[r], row_bytes);
            rows[r] = copy;
        }
        resizer->kernels->horizontal(outs, rows, resizer->x.taps, q->w, q->flip);
    }
}

/* Pillow 13's rule; older releases always begin with the horizontal pass. It also keeps the rows
 * between the passes few, however tall the image. */
static bool vertical_first(const request *q)
{
    int64_t lost_height = q->box.height - q->full_h, lost_width = q->box.width - q->full_w;
    return lost_height > 0 && lost_height > 2 * lost_width;
}

static dip_status resize_both(dip_resizer *resizer, uint8_t *out, const uint8_t *src,
                              size_t src_stride, const uint8_t *end, const request *q, bool need_y)
{
    const axis *y_axis = &resizer->y;
    size_t out_stride = 3 * (size_t)q->w, row_bytes = 3 * (size_t)q->box.width;
    resizer->edge =
        room_for(resizer->edge, &resizer->edge_capacity, 4 * (row_bytes + DIP_RESIZE_OVERREAD), 1);
    if (!resizer->edge) return no_memory();
    if (vertical_first(q)) {
        size_t stride = row_bytes + DIP_RESIZE_OVERREAD, n_bytes = stride * (size_t)q->h;
        resizer->temp = room_for(resizer->temp, &resizer->temp_capacity, n_bytes, 1);
        if (!resizer->temp) return no_memory();
        for (int y = 0; y < q->h; y++)
            resizer->kernels->vertical(resizer->temp + (size_t)y * stride, src, src_stride,
                                       row_bytes, &y_axis->taps[y]);
        resize_columns(resizer, out, resizer->temp, stride, resizer->temp + n_bytes, q, q->h);
        return DIP_OK;
    }
    if (!need_y) {
        resize_columns(resizer, out, src + (size_t)q->y * src_stride, src_stride, end, q, q->h);
        return DIP_OK;
    }
    const dip_taps *last = &y_axis->taps[q->h - 1];
    int first_row = y_axis->taps[0].first, n_rows = last->first + last->n - first_row;
    resizer->temp =
        room_for(resizer->temp, &resizer->temp_capacity, out_stride * (size_t)n_rows, 1);
    if (!resizer->temp) return no_memory();
    resize_columns(resizer, resizer->temp, src + (size_t)first_row * src_stride, src_stride, end, q,
                   n_rows);
    for (int y = 0; y < q->h; y++) {
        dip_taps taps = y_axis->taps[y];
        taps.first -= first_row;
        resizer->kernels->vertical(out + (size_t)y * out_stride, resizer->temp, out_stride,
                                   out_stride, &taps);
    }
    return DIP_OK;
}

static dip_status resize(dip_resizer *resizer, uint8_t *out, const dip_image *image,
                         const request *q)
{
    dip_box box = q->box;
    if (box.x < 0 || box.y < 0 || box.width < 1 || box.height < 1 ||
        box.width > image->width - box.x || box.height > image->height - box.y)
        return dip_fail(DIP_CONFIG,
                        "the crop %d x %d at (%d, %d) is not inside an image of %d x %d", box.width,
                        box.height, box.x, box.y, image->width, image->height);
    if (q->w < 1 || q->h < 1)
        return dip_fail(DIP_CONFIG, "cannot resize to %d x %d pixels", q->w, q->h);
    size_t stride = 3 * (size_t)image->width;
    const uint8_t *src = image->rgb + (size_t)box.y * stride + 3 * (size_t)box.x;
    const uint8_t *end = image->rgb + stride * (size_t)image->height;
    bool need_x = q->full_w != box.width, need_y = q->full_h != box.height;
    if (need_y) DIP_TRY(axis_prepare(&resizer->y, q->filter, box.height, q->full_h, q->y, q->h));
    if (!need_x) {
        resize_rows(resizer, out, src, stride, q, need_y);
        return DIP_OK;
    }
    DIP_TRY(axis_prepare(&resizer->x, q->filter, box.width, q->full_w, q->x, q->w));
    return resize_both(resizer, out, src, stride, end, q, need_y);
}

dip_status dip_resize(dip_resizer *resizer, uint8_t *out, int out_w, int out_h,
                      const dip_image *image, dip_box box, dip_filter filter, int flip)
{
    request q = {.box = box,
                 .filter = filter,
                 .full_w = out_w,
                 .full_h = out_h,
                 .w = out_w,
                 .h = out_h,
                 .flip = flip != 0};
    return resize(resizer, out, image, &q);
}

/* (whole - part) / 2 rounded to the nearest, a half to the even number. */
static int64_t centre_offset(int64_t whole, int64_t part)
{
    int64_t twice = whole - part, down = twice / 2;
    return down + (twice % 2 && down % 2);
}

dip_status dip_resize_for_eval(dip_resizer *resizer, uint8_t *out, int size, const dip_image *image,
                               dip_resize_mode mode, dip_filter filter)
{
    request q = {.box = {0, 0, image->width, image->height},
                 .filter = filter,
                 .full_w = size,
                 .full_h = size,
                 .w = size,
                 .h = size};
    if (mode == DIP_RESIZE_SHORTEST) {
        int64_t w = image->width, h = image->height; /* the long side is cut, not rounded */
        if (w < h) q.full_h = (int64_t)((double)(size * h) / (double)w);
        if (h < w) q.full_w = (int64_t)((double)(size * w) / (double)h);
        q.x = centre_offset(q.full_w, size);
        q.y = centre_offset(q.full_h, size);
    }
    return resize(resizer, out, image, &q);
}
