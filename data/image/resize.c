/* Antialiased resizing that gives Pillow's bytes. Each axis is a table of taps (resize_axis.h). The
 * first pass is rounded to 8 bits; a pass whose size does not change is skipped. Only the asked-for
 * part of the result is computed.                                                            */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "data/image/image_rows.h"
#include "data/image/resize_axis.h"
#include "data/image/resize_kernels.h"

enum { BETWEEN_OVERREAD = 256 }; /* what vertical_fours may read too many */

struct dip_resizer {
    const dip_resize_kernels *kernels;
    dip_axis x, y;
    dip_columns columns; /* of the x axis, for the kernels */
    size_t plan_capacity;
    bool has_plan;
    uint8_t *between; /* rows between the passes */
    uint8_t *edge;    /* padded copies of rows at the image's end */
    size_t between_capacity, edge_capacity;
};

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
    free(resizer->between);
    free(resizer->edge);
    free(resizer);
}

static bool changes_width(const dip_resize_request *q)
{
    return q->full_w != q->box.width || q->region.x != 0.0 || q->region.width != (double)q->full_w;
}

static bool changes_height(const dip_resize_request *q)
{
    return q->full_h != q->box.height || q->region.y != 0.0 ||
           q->region.height != (double)q->full_h;
}

/* Pillow 13's rule; older releases always begin with the horizontal pass. It also keeps the rows
 * between the passes few, however tall the image. */
static bool vertical_first(const dip_resize_request *q)
{
    int64_t lost_height = q->box.height - q->full_h, lost_width = q->box.width - q->full_w;
    return lost_height > 0 && lost_height > 2 * lost_width;
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
static void resize_heights(const dip_resizer *resizer, uint8_t *out, const uint8_t *src,
                           size_t src_stride, const dip_resize_request *q)
{
    size_t out_stride = 3 * (size_t)q->w;
    src += 3 * (size_t)q->x;
    for (int y = 0; y < q->h; y++, out += out_stride) {
        if (changes_height(q))
            resizer->kernels->vertical(out, src, src_stride, out_stride, &resizer->y.taps[y]);
        else
            memcpy(out, src + (size_t)(q->y + y) * src_stride, out_stride);
        if (q->flip) mirror(out, q->w);
    }
}

/* Rows of an image that is all there, from column `left` on. */
typedef struct image_rows {
    const uint8_t *begin, *end; /* the image's first row, and where its memory ends */
    size_t stride;
    uint8_t *edge; /* room for copies of the last rows, with what may be read behind them */
} image_rows;

static dip_status take_image_rows(void *context, const uint8_t **rows, int first, int n)
{
    const image_rows *image = context;
    for (int i = 0; i < n; i++) {
        rows[i] = image->begin + (size_t)(first + i) * image->stride;
        if ((size_t)(image->end - rows[i]) >= image->stride + DIP_ROWS_OVERREAD) continue;
        uint8_t *copy = image->edge + (size_t)i * (image->stride + DIP_ROWS_OVERREAD);
        memcpy(copy, rows[i], image->stride);
        rows[i] = copy;
    }
    return DIP_OK;
}

/* n rows from `first` on, which the horizontal loops take four at a time: the last one repeated. */
static dip_status take_fours(const uint8_t *taken[DIP_ROWS_AT_ONCE], const dip_rows *rows,
                             int first, int n, int left)
{
    DIP_TRY(rows->take(rows->context, taken, first, n));
    for (int i = 0; i < n; i++) taken[i] += 3 * (size_t)left;
    for (int i = n; i % 4 != 0; i++) taken[i] = taken[n - 1];
    return DIP_OK;
}

/* Up to n rows at dst; a row that repeats one is written over it. */
static void resize_columns(const dip_resizer *resizer, uint8_t *dst, size_t dst_stride,
                           const uint8_t *const *rows, int n)
{
    for (int y = 0; y < n; y += 4) {
        uint8_t *outs[4];
        for (int r = 0; r < 4; r++)
            outs[r] = dst + (size_t)(y + r < n ? y + r : n - 1) * dst_stride;
        resizer->kernels->horizontal(outs, rows + y, &resizer->columns);
    }
}

/* The vertical pass comes first: all rows must be there. */
static dip_status resize_height_first(dip_resizer *resizer, uint8_t *out, const uint8_t *src,
                                      size_t src_stride, const dip_resize_request *q)
{
    const size_t row_bytes = 3 * (size_t)q->box.width, stride = row_bytes + DIP_ROWS_OVERREAD;
    resizer->between =
        dip_resize_room(resizer->between, &resizer->between_capacity, stride * (size_t)q->h, 1);
    if (!resizer->between) return no_memory();
    for (int y = 0; y < q->h; y++)
        resizer->kernels->vertical(resizer->between + (size_t)y * stride, src, src_stride,
                                   row_bytes, &resizer->y.taps[y]);
    for (int y = 0; y < q->h; y += 4) {
        const uint8_t *rows[4];
        for (int r = 0; r < 4; r++)
            rows[r] = resizer->between + (size_t)(y + r < q->h ? y + r : q->h - 1) * stride;
        resize_columns(resizer, out + (size_t)y * 3 * (size_t)q->w, 3 * (size_t)q->w, rows,
                       q->h - y < 4 ? q->h - y : 4);
    }
    return DIP_OK;
}

/* The height does not change: the horizontal pass makes the output. */
static dip_status resize_widths(dip_resizer *resizer, uint8_t *out, const dip_rows *rows,
                                const dip_resize_request *q)
{
    const size_t out_stride = 3 * (size_t)q->w;
    const int at_once = dip_rows_at_once(rows->width);
    for (int y = 0; y < q->h; y += at_once) {
        const uint8_t *taken[DIP_ROWS_AT_ONCE];
        const int n = q->h - y < at_once ? q->h - y : at_once;
        DIP_TRY(take_fours(taken, rows, q->box.y + (int)q->y + y, n, q->box.x));
        resize_columns(resizer, out + (size_t)y * out_stride, out_stride, taken, n);
    }
    return DIP_OK;
}

/* Both passes. A row of the output is made as soon as its taps are there: what it reads is still in
 * the nearest cache. Between the passes there are only the rows that are still wanted. */
static dip_status resize_both(dip_resizer *resizer, uint8_t *out, const dip_rows *rows,
                              const dip_resize_request *q, bool in_fours)
{
    const dip_resize_kernels *kernels = resizer->kernels;
    const dip_taps *all = resizer->y.taps, *last = &all[q->h - 1];
    const size_t out_stride = 3 * (size_t)q->w, fours_stride = 4 * out_stride;
    const int at_once = dip_rows_at_once(rows->width), end = last->first + last->n;
    /* up to three rows that share a four with the first wanted one, and three beyond the last */
    const size_t n_between = (size_t)at_once + resizer->y.stride + 8;
    resizer->between = dip_resize_room(resizer->between, &resizer->between_capacity,
                                       n_between * out_stride + BETWEEN_OVERREAD + 64, 1);
    if (!resizer->between) return no_memory();
    uint8_t *between = resizer->between + (64 - (uintptr_t)resizer->between % 64) % 64;
    int kept = all[0].first; /* the row where `between` begins */
    for (int y = kept, done = 0; y < end; y += at_once) {
        const uint8_t *taken[DIP_ROWS_AT_ONCE];
        const int n = end - y < at_once ? end - y : at_once;
        uint8_t *fresh = between + (size_t)(y - kept) * out_stride;
        DIP_TRY(take_fours(taken, rows, q->box.y + y, n, q->box.x));
        if (in_fours)
            kernels->horizontal_fours(fresh, fours_stride, taken, (n + 3) / 4, &resizer->columns);
        else
            resize_columns(resizer, fresh, out_stride, taken, n);
        for (; done < q->h && all[done].first + all[done].n <= y + n; done++) {
            dip_taps taps = all[done];
            taps.first -= kept;
            uint8_t *row = out + (size_t)done * out_stride;
            if (in_fours)
                kernels->vertical_fours(row, between, fours_stride, out_stride, &taps);
            else
                kernels->vertical(row, between, out_stride, out_stride, &taps);
        }
        if (done == q->h) break;
        const int passed = (all[done].first - kept) / 4 * 4;
        kept += passed;
        memmove(between, between + (size_t)passed * out_stride,
                (size_t)(y + n - kept) * out_stride);
    }
    return DIP_OK;
}

/* Whether both passes can keep rows in fours: the vertical one has few taps. */
static bool goes_in_fours(const dip_resizer *resizer, const dip_resize_request *q)
{
    double reduction = q->region.height / (double)q->full_h;
    double support = (q->filter == DIP_BILINEAR ? 1.0 : 2.0) * (reduction < 1.0 ? 1.0 : reduction);
    return resizer->kernels->horizontal_fours && changes_width(q) && changes_height(q) &&
           !vertical_first(q) && 2.0 * support + 1.0 <= DIP_RESIZE_FOURS_TAPS;
}

/* Is it possible, and the axes. */
static dip_status prepare(dip_resizer *resizer, const dip_resize_request *q, int width, int height)
{
    const dip_box box = q->box;
    const dip_rect part = q->region;
    if (box.x < 0 || box.y < 0 || box.width < 1 || box.height < 1 || box.width > width - box.x ||
        box.height > height - box.y)
        return dip_fail(DIP_CONFIG,
                        "the crop %d x %d at (%d, %d) is not inside an image of %d x %d", box.width,
                        box.height, box.x, box.y, width, height);
    if (q->w < 1 || q->h < 1)
        return dip_fail(DIP_CONFIG, "cannot resize to %d x %d pixels", q->w, q->h);
    const dip_axis_key x = {q->filter, box.width, q->full_w, q->x, part.x, part.width, q->w};
    const dip_axis_key y = {q->filter, box.height, q->full_h, q->y, part.y, part.height, q->h};
    const dip_resize_kernels *kernels = resizer->kernels;
    const bool in_fours = goes_in_fours(resizer, q), packed = kernels->reads_packed && !in_fours;
    bool is_new;
    if (changes_height(q)) DIP_TRY(dip_axis_prepare(&resizer->y, &y, kernels, packed, &is_new));
    if (!changes_width(q)) return DIP_OK;
    DIP_TRY(dip_axis_prepare(&resizer->x, &x, kernels, packed, &is_new));
    return columns_prepare(resizer, is_new, in_fours, q->flip);
}

bool dip_resize_is_in_order(const dip_resize_request *q)
{
    return changes_width(q) && !vertical_first(q);
}

/* In order; prepared. */
static dip_status resize_in_order(dip_resizer *resizer, uint8_t *out, const dip_rows *rows,
                                  const dip_resize_request *q)
{
    return changes_height(q) ? resize_both(resizer, out, rows, q, goes_in_fours(resizer, q))
                             : resize_widths(resizer, out, rows, q);
}

dip_status dip_resize_rows(dip_resizer *resizer, uint8_t *out, const dip_rows *rows,
                           const dip_resize_request *q)
{
    DIP_TRY(prepare(resizer, q, rows->width, rows->height));
    return resize_in_order(resizer, out, rows, q);
}

dip_status dip_resize_image(dip_resizer *resizer, uint8_t *out, const dip_image *image,
                            const dip_resize_request *q)
{
    DIP_TRY(prepare(resizer, q, image->width, image->height));
    const size_t stride = 3 * (size_t)image->width;
    const uint8_t *box = image->rgb + (size_t)q->box.y * stride + 3 * (size_t)q->box.x;
    if (!changes_width(q)) {
        resize_heights(resizer, out, box, stride, q);
        return DIP_OK;
    }
    if (vertical_first(q)) return resize_height_first(resizer, out, box, stride, q);
    resizer->edge =
        dip_resize_room(resizer->edge, &resizer->edge_capacity,
                        (size_t)dip_rows_at_once(image->width) * (stride + DIP_ROWS_OVERREAD), 1);
    if (!resizer->edge) return no_memory();
    image_rows context = {image->rgb, image->rgb + stride * (size_t)image->height, stride,
                          resizer->edge};
    const dip_rows rows = {image->width, image->height, take_image_rows, &context};
    return resize_in_order(resizer, out, &rows, q);
}

static dip_rect whole_box(dip_box box)
{
    return (dip_rect){0.0, 0.0, box.width, box.height};
}

dip_status dip_resize(dip_resizer *resizer, uint8_t *out, int out_w, int out_h,
                      const dip_image *image, dip_box box, dip_filter filter, int flip)
{
    const dip_resize_request q = {.box = box,
                                  .region = whole_box(box),
                                  .filter = filter,
                                  .full_w = out_w,
                                  .full_h = out_h,
                                  .w = out_w,
                                  .h = out_h,
                                  .flip = flip != 0};
    return dip_resize_image(resizer, out, image, &q);
}

dip_status dip_resize_request_region(dip_resize_request *q, int out_w, int out_h, int width,
                                     int height, dip_rect region, dip_filter filter, int flip)
{
    double right = region.x + region.width, bottom = region.y + region.height;
    if (!(region.x >= 0 && region.y >= 0 && region.width > 0 && region.height > 0 &&
          right <= width && bottom <= height))
        return dip_fail(DIP_CONFIG,
                        "the region %g x %g at (%g, %g) is not inside an image of %d x %d",
                        region.width, region.height, region.x, region.y, width, height);
    dip_box cover = {.x = (int)region.x, .y = (int)region.y};
    cover.width = (int)ceil(right) - cover.x;
    cover.height = (int)ceil(bottom) - cover.y;
    *q = (dip_resize_request){
        .box = cover,
        .region = {region.x - cover.x, region.y - cover.y, region.width, region.height},
        .filter = filter,
        .full_w = out_w,
        .full_h = out_h,
        .w = out_w,
        .h = out_h,
        .flip = flip != 0};
    return DIP_OK;
}

dip_status dip_resize_region(dip_resizer *resizer, uint8_t *out, int out_w, int out_h,
                             const dip_image *image, dip_rect region, dip_filter filter, int flip)
{
    dip_resize_request q = {0};
    DIP_TRY(dip_resize_request_region(&q, out_w, out_h, image->width, image->height, region, filter,
                                      flip));
    return dip_resize_image(resizer, out, image, &q);
}

/* (whole - part) / 2 rounded to the nearest, a half to the even number. */
static int64_t centre_offset(int64_t whole, int64_t part)
{
    int64_t twice = whole - part, down = twice / 2;
    return down + (twice % 2 && down % 2);
}

dip_resize_request dip_resize_request_for_eval(int size, int width, int height,
                                               dip_resize_mode mode, dip_filter filter)
{
    const dip_box whole = {0, 0, width, height};
    dip_resize_request q = {.box = whole,
                            .region = whole_box(whole),
                            .filter = filter,
                            .full_w = size,
                            .full_h = size,
                            .w = size,
                            .h = size};
    if (mode == DIP_RESIZE_SHORTEST) {
        int64_t w = width, h = height; /* the long side is cut, not rounded */
        if (w < h) q.full_h = (int64_t)((double)(size * h) / (double)w);
        if (h < w) q.full_w = (int64_t)((double)(size * w) / (double)h);
        q.x = centre_offset(q.full_w, size);
        q.y = centre_offset(q.full_h, size);
    }
    return q;
}

dip_status dip_resize_for_eval(dip_resizer *resizer, uint8_t *out, int size, const dip_image *image,
                               dip_resize_mode mode, dip_filter filter)
{
    const dip_resize_request q =
        dip_resize_request_for_eval(size, image->width, image->height, mode, filter);
    return dip_resize_image(resizer, out, image, &q);
}
