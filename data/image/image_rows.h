/* image_rows.h - inside data: the rows of an image on their way from a decoder to the resizer, a
 * few at a time, so that they are still in the nearest cache when they are read.
 *
 * image.c brings the two together. What it gives is what a decode of the whole image and a
 * resize of that give. */
#ifndef DIP_DATA_IMAGE_ROWS_H
#define DIP_DATA_IMAGE_ROWS_H

#include "data/image/image.h"

enum {
    DIP_ROWS_AT_ONCE = 64,     /* at most; a multiple of 4 */
    DIP_ROWS_BYTES = 96 << 10, /* about as many: they must stay in a core's own cache */
    DIP_ROWS_OVERREAD = 64     /* bytes behind a row that its reader may read too */
};

/* A source of rows. */
typedef struct dip_rows {
    int width, height; /* pixels */
    /* rows[i] = row first + i, valid until the next call. 1 to dip_rows_at_once of them, all inside
     * the image, none before one that was taken already. */
    dip_status (*take)(void *context, const uint8_t **rows, int first, int n);
    void *context;
} dip_rows;

/* How many rows of an image are worth taking at a time, a multiple of 4. Fewer: the resizer reads
 * its weights again for each lot. */
static inline int dip_rows_at_once(int width)
{
    const int n = DIP_ROWS_BYTES / 3 / width / 4 * 4;
    return n < 4 ? 4 : n > DIP_ROWS_AT_ONCE ? DIP_ROWS_AT_ONCE : n;
}

/* What is computed: the part (x, y, w, h) of `region` resized to full_w x full_h. Pixels of `box`,
 * the smallest one around the region, count; the region's place is on the box. */
typedef struct dip_resize_request {
    dip_box box;
    dip_rect region;
    dip_filter filter;
    int64_t full_w, full_h, x, y;
    int w, h;
    bool flip;
} dip_resize_request;

/* What dip_resize_region and dip_resize_for_eval ask for. DIP_CONFIG as there. */
dip_status dip_resize_request_region(dip_resize_request *request, int out_w, int out_h, int width,
                                     int height, dip_rect region, dip_filter filter, int flip);
dip_resize_request dip_resize_request_for_eval(int size, int width, int height,
                                               dip_resize_mode mode, dip_filter filter);

/* Whether it can be made from rows in order: both axes change, the width first. */
bool dip_resize_is_in_order(const dip_resize_request *request);

/* out [h][w][3]. DIP_CONFIG: the box is not inside the image, or there is nothing to make. */
dip_status dip_resize_image(dip_resizer *resizer, uint8_t *out, const dip_image *image,
                            const dip_resize_request *request);
/* The same, in order. Errors of `rows` too. */
dip_status dip_resize_rows(dip_resizer *resizer, uint8_t *out, const dip_rows *rows,
                           const dip_resize_request *request);

#endif
