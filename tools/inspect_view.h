/* inspect_view.h - look at the images of many samples at once, for `diptych inspect --shards`.
 *
 * Usage:   dip_views_open; dip_views_look for one stretch of samples after the other;
 *          dip_views_close. dip_view_clear each view before the stretch after.
 * Owns:    a reader, a decoder and a resizer a thread. A view owns its reason and thumbnail.
 * Threads: dip_views_look uses one a core; the views lie in the order of the samples, so that a
 *          ledger filled from them reads the same every time.
 * Errors:  DIP_NOMEM, DIP_IO. What is wrong with an image is in its view.                */
#ifndef DIP_TOOLS_INSPECT_VIEW_H
#define DIP_TOOLS_INSPECT_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/status.h"
#include "data/faults.h"
#include "data/samples.h"

typedef enum dip_view_format {
    DIP_VIEW_JPEG,
    DIP_VIEW_PNG,
    DIP_VIEW_GIF,
    DIP_VIEW_WEBP,
    DIP_VIEW_OTHER,
    DIP_N_VIEW_FORMATS
} dip_view_format;
const char *dip_view_format_name(dip_view_format format);

/* What looking at one image gave. */
typedef struct dip_view {
    dip_view_format format;
    int width, height;   /* 0: not decoded */
    dip_status status;   /* DIP_FORMAT is the image's failure, any other the machine's */
    dip_fault_kind kind; /* of an image's failure */
    char *reason;        /* of a failure */
    uint8_t *thumbnail;  /* a PNG file, NULL if none was wanted or possible */
    size_t thumbnail_bytes;
    int thumbnail_width, thumbnail_height;
} dip_view;
void dip_view_clear(dip_view *view);

typedef struct dip_views dip_views;

/* decode: false: the first bytes of an image are enough. */
dip_status dip_views_open(dip_views **views, const dip_samples *samples, bool decode);
void dip_views_close(dip_views *views); /* accepts NULL */

/* Which of the samples get a thumbnail: `n_shown` of all of them, spread evenly. */
bool dip_views_shows(int64_t index, int64_t n_samples, int64_t n_shown);

/* view[i] is of sample first + i. */
void dip_views_look(dip_views *views, dip_view *view, int64_t first, int64_t n, int64_t n_shown);

#endif
