/* contact_sheet.h - one HTML page with pictures, captions and figures, for the eyes of a person.
 *
 * The page needs nothing but itself: the pictures lie in it, and a policy in its head forbids
 * scripts and every request. Captions and names are whatever somebody wrote: all of them are
 * escaped, control characters shown as \xHH.
 *
 * Usage:   dip_contact_sheet_open, dip_contact_sheet_add a sample, then dip_contact_sheet_close; or
 *          dip_contact_sheet_abort.
 * Owns:    the page until it is closed: it appears whole or not at all.
 * Errors:  DIP_IO, DIP_NOMEM.                                                            */
#ifndef DIP_TOOLS_CONTACT_SHEET_H
#define DIP_TOOLS_CONTACT_SHEET_H

#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "core/status.h"
#include "data/faults.h"

/* One sample; all borrowed. */
typedef struct dip_contact {
    const char *shard, *key;
    const char *format; /* of the image; NULL: there is none */
    size_t image_bytes;
    int width, height;        /* 0: not decoded */
    const uint8_t *thumbnail; /* a PNG file; NULL: none */
    size_t thumbnail_bytes;
    int thumbnail_width, thumbnail_height;
    const char *caption; /* one a line; NULL: none */
    size_t caption_bytes;
    int64_t label;     /* -1: none */
    const char *fault; /* what is wrong with the image; NULL: nothing */
} dip_contact;

typedef struct dip_contact_sheet dip_contact_sheet;

dip_status dip_contact_sheet_open(dip_contact_sheet **sheet, const char *path);
dip_status dip_contact_sheet_add(dip_contact_sheet *sheet, const dip_contact *contact);
/* The figures of a report (those that fit on a line) and the ledger come before the pictures. Frees
 * the sheet in every case. */
dip_status dip_contact_sheet_close(dip_contact_sheet *sheet, const char *title, const cJSON *report,
                                   const dip_faults *faults);
void dip_contact_sheet_abort(dip_contact_sheet *sheet); /* accepts NULL */

#endif
