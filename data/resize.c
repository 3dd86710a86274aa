/* Antialiased resizing that gives Pillow's bytes. Each axis is a table of taps (resize_axis.h). The
 * first pass is rounded to 8 bits; a pass whose size does not change is skipped. Only the asked-for
 * part of the result is computed.                                                            */
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "data/image.h"
#include "data/resize_axis.h"
#include "data/resize_kernels.h"

struct dip_resizer {
    const dip_resize_kernels *kernels;
    dip_axis x, y;
    dip_columns columns; /* of the x axis, for the kernels */
    size_t plan_capacity;
    bool has_plan;
    uint8_t *temp; /* rows between the passes */
    uint8_t *edge; /* padded copies of rows at the image's end */
    size_t temp_capacity, edge_capacity;
};

/* What is computed: the part (x, y, w, h) of `region` resized to full_w x full_h. Pixels of `box`,
 * the smallest one around the region, count; the region's place is on the box. */
typedef struct request {
    dip_box box;
    dip_rect region;
    dip_filter filter;
    int64_t full_w, full_h, x, y;
    int w, h;
    bool flip;
} request;

dip_status dip_resizer_open(dip_resizer **resizer)
{
    *resizer = calloc(1, sizeof **resizer);
    if (!*resizer) return dip_fail(DIP_NOMEM, "not enough memory for a resizer");
    const dip_resize_kernels *best = dip_resize_kernels_vbmi();
    if (!best) best = dip_resize_kernels_avx512();
    if (!best) best = dip_resize_kernels_avx2();
    if (!best) best = dip_resize_kernels_c();
    (*resizer)->kernels = best;
    return DIP_OK;
}

void dip_resizer_set_kernels(dip_resizer *resizer, const dip_resize_kernels *kernels)
{
    resizer->kernels = kernels;
    resizer->has_plan = false;
}

void dip_resizer_close(dip_resizer *resizer)
{
    if (!resizer) return;
    dip_axis_free(&resizer->x);
    dip_axis_free(&resizer->y);
    free(resizer->columns.plan);
    free(resizer->temp);
    free(resizer->edge);
    free(resizer);
}

static dip_status no_memory(void)
{
    return dip_fail(DIP_NOMEM, "not enough memory to resize an image");
}

/* The columns of the x axis, which is filled, and for rows in fours their plan. */
static dip_status columns_prepare(dip_resizer *resizer, bool is_new, bool in_fours, int flip)
{
    const dip_resize_kernels *kernels = resizer->kernels;
    dip_columns *columns = &resizer->columns;
    if (!is_new && columns->n > 0 && columns->flip == flip && (!in_fours || resizer->has_plan))
        return DIP_OK;
    columns->taps = resizer->x.taps;
    columns->n = resizer->x.key.n;
    columns->flip = flip;
    resizer->has_plan = false;
    if (!in_fours) return DIP_OK;
    columns->plan =
        dip_resize_room(columns->plan, &resizer->plan_capacity, kernels->plan_bytes(columns), 1);
    if (!columns->plan) return no_memory();
    kernels->make_plan(columns->plan, columns);
    resizer->has_plan = true;
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

enum { ROWS_AT_ONCE = 4 * DIP_RESIZE_FOURS };

/* n (at most ROWS_AT_ONCE) rows of src from y on, the last one of n_rows repeated. The horizontal
 * loops may read a little past a row: one too near `end` is copied to where they may. */
static void take_rows(const dip_resizer *resizer, const uint8_t **rows, int n, const uint8_t *src,
                      size_t src_stride, const uint8_t *end, size_t row_bytes, int y, int n_rows)
{
    for (int r = 0; r < n; r++) {
        int at = y + r < n_rows ? y + r : n_rows - 1;
        rows[r] = src + (size_t)at * src_stride;
        if ((size_t)(end - rows[r]) >= row_bytes + DIP_RESIZE_OVERREAD) continue;
        uint8_t *copy = resizer->edge + (size_t)r * (row_bytes + DIP_RESIZE_OVERREAD);
        memcpy(copy, rows[r], row_bytes);
        rows[r] = copy;
    }
}

/* n_rows of src through the horizontal pass. */
static void resize_columns(const dip_resizer *resizer, uint8_t *dst, const uint8_t *src,
                           size_t src_stride, const uint8_t *end, const request *q, int n_rows)
{
    size_t dst_stride = 3 * (size_t)q->w;
    for (int y = 0; y < n_rows; y += 4) {
        const uint8_t *rows[4];
        uint8_t *outs[4];
        take_rows(resizer, rows, 4, src, src_stride, end, 3 * (size_t)q->box.width, y, n_rows);
        for (int r = 0; r < 4; r++)
            outs[r] = dst + (size_t)(y + r < n_rows ? y + r : n_rows - 1) * dst_stride;
        resizer->kernels->horizontal(outs, rows, &resizer->columns);
    }
}

/* Both passes with rows in fours. A row of the output is made as soon as its taps are there: what
 * it reads is still in the nearest cache. temp has room for all fours and 256 bytes. */
static void resize_in_fours(const dip_resizer *resizer, uint8_t *out, const uint8_t *src,
                            size_t src_stride, const uint8_t *end, const request *q, int first_row,
                            int n_rows)
{
    size_t out_stride = 3 * (size_t)q->w, fours_stride = 4 * out_stride;
    uint8_t *fours = resizer->temp + (64 - (uintptr_t)resizer->temp % 64) % 64;
    int done = 0;
    for (int y = 0; y < n_rows; y += ROWS_AT_ONCE) {
        const uint8_t *rows[ROWS_AT_ONCE];
        int n_fours = (n_rows - y + 3) / 4;
        if (n_fours > DIP_RESIZE_FOURS) n_fours = DIP_RESIZE_FOURS;
        take_rows(resizer, rows, 4 * n_fours, src, src_stride, end, 3 * (size_t)q->box.width, y,
                  n_rows);
        resizer->kernels->horizontal_fours(fours + (size_t)(y / 4) * fours_stride, fours_stride,
                                           rows, n_fours, &resizer->columns);
        for (; done < q->h; done++) {
            dip_taps taps = resizer->y.taps[done];
            taps.first -= first_row;
            if (taps.first + taps.n > y + 4 * n_fours) break;
            resizer->kernels->vertical_fours(out + (size_t)done * out_stride, fours, fours_stride,
                                             out_stride, &taps);
        }
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
                              size_t src_stride, const uint8_t *end, const request *q, bool need_y,
                              bool in_fours)
{
    const dip_axis *y_axis = &resizer->y;
    size_t out_stride = 3 * (size_t)q->w, row_bytes = 3 * (size_t)q->box.width;
    resizer->edge = dip_resize_room(resizer->edge, &resizer->edge_capacity,
                                    ROWS_AT_ONCE * (row_bytes + DIP_RESIZE_OVERREAD), 1);
    if (!resizer->edge) return no_memory();
    if (vertical_first(q)) {
        size_t stride = row_bytes + DIP_RESIZE_OVERREAD, n_bytes = stride * (size_t)q->h;
        resizer->temp = dip_resize_room(resizer->temp, &resizer->temp_capacity, n_bytes, 1);
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
    size_t n_bytes = out_stride * (size_t)((n_rows + 3) / 4 * 4) + 256 + 64;
    resizer->temp = dip_resize_room(resizer->temp, &resizer->temp_capacity, n_bytes, 1);
    if (!resizer->temp) return no_memory();
    src += (size_t)first_row * src_stride;
    if (in_fours) {
        resize_in_fours(resizer, out, src, src_stride, end, q, first_row, n_rows);
        return DIP_OK;
    }
    resize_columns(resizer, resizer->temp, src, src_stride, end, q, n_rows);
    for (int y = 0; y < q->h; y++) {
        dip_taps taps = y_axis->taps[y];
        taps.first -= first_row;
        resizer->kernels->vertical(out + (size_t)y * out_stride, resizer->temp, out_stride,
                                   out_stride, &taps);
    }
    return DIP_OK;
}

/* Whether both passes can keep rows in fours: the horizontal one comes first, and the vertical one
 * has few taps. */
static bool goes_in_fours(const dip_resizer *resizer, const request *q, bool need_y)
{
    double reduction = q->region.height / (double)q->full_h;
    double support = (q->filter == DIP_BILINEAR ? 1.0 : 2.0) * (reduction < 1.0 ? 1.0 : reduction);
    return resizer->kernels->horizontal_fours && need_y && !vertical_first(q) &&
           2.0 * support + 1.0 <= DIP_RESIZE_FOURS_TAPS;
}

static dip_status resize(dip_resizer *resizer, uint8_t *out, const dip_image *image,
                         const request *q)
{
    dip_box box = q->box;
    dip_rect part = q->region;
    if (box.x < 0 || box.y < 0 || box.width < 1 || box.height < 1 ||
        box.width > image->width - box.x || box.height > image->height - box.y)
        return dip_fail(DIP_CONFIG,
                        "the crop %d x %d at (%d, %d) is not inside an image of %d x %d", box.width,
                        box.height, box.x, box.y, image->width, image->height);
    if (q->w < 1 || q->h < 1)
        return dip_fail(DIP_CONFIG, "cannot resize to %d x %d pixels", q->w, q->h);
    size_t row_stride = 3 * (size_t)image->width;
    const uint8_t *src = image->rgb + (size_t)box.y * row_stride + 3 * (size_t)box.x;
    const uint8_t *end = image->rgb + row_stride * (size_t)image->height;
    const dip_axis_key x = {q->filter, box.width, q->full_w, q->x, part.x, part.width, q->w};
    const dip_axis_key y = {q->filter, box.height, q->full_h, q->y, part.y, part.height, q->h};
    bool need_x = q->full_w != box.width || part.x != 0.0 || part.width != (double)q->full_w;
    bool need_y = q->full_h != box.height || part.y != 0.0 || part.height != (double)q->full_h;
    bool is_new, in_fours = goes_in_fours(resizer, q, need_y);
    if (need_y) DIP_TRY(dip_axis_prepare(&resizer->y, &y, &is_new));
    if (!need_x) {
        resize_rows(resizer, out, src, row_stride, q, need_y);
        return DIP_OK;
    }
    DIP_TRY(dip_axis_prepare(&resizer->x, &x, &is_new));
    DIP_TRY(columns_prepare(resizer, is_new, in_fours, q->flip));
    return resize_both(resizer, out, src, row_stride, end, q, need_y, in_fours);
}

static dip_rect whole_box(dip_box box)
{
    return (dip_rect){0.0, 0.0, box.width, box.height};
}

dip_status dip_resize(dip_resizer *resizer, uint8_t *out, int out_w, int out_h,
                      const dip_image *image, dip_box box, dip_filter filter, int flip)
{
    request q = {.box = box,
                 .region = whole_box(box),
                 .filter = filter,
                 .full_w = out_w,
                 .full_h = out_h,
                 .w = out_w,
                 .h = out_h,
                 .flip = flip != 0};
    return resize(resizer, out, image, &q);
}

dip_status dip_resize_region(dip_resizer *resizer, uint8_t *out, int out_w, int out_h,
                             const dip_image *image, dip_rect region, dip_filter filter, int flip)
{
    double right = region.x + region.width, bottom = region.y + region.height;
    if (!(region.x >= 0 && region.y >= 0 && region.width > 0 && region.height > 0 &&
          right <= image->width && bottom <= image->height))
        return dip_fail(
            DIP_CONFIG, "the region %g x %g at (%g, %g) is not inside an image of %d x %d",
            region.width, region.height, region.x, region.y, image->width, image->height);
    dip_box cover = {.x = (int)region.x, .y = (int)region.y};
    cover.width = (int)ceil(right) - cover.x;
    cover.height = (int)ceil(bottom) - cover.y;
    request q = {.box = cover,
                 .region = {region.x - cover.x, region.y - cover.y, region.width, region.height},
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
    const dip_box whole = {0, 0, image->width, image->height};
    request q = {.box = whole,
                 .region = whole_box(whole),
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
