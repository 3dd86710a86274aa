/* json_items.h - go through the arrays of a JSON object that is too large for one tree.
 *
 * Only the outermost object and the extent of its values are looked at; each item of an array is
 * parsed strictly (core/json.h) when its turn comes. A value that is never asked for is only
 * checked for brackets and quotes.
 *
 * Usage:   dip_json_file_open; dip_json_file_array for a key; dip_json_items_next until DIP_END;
 *          dip_json_file_close.
 * Owns:    the text; an array borrows it.
 * Errors:  DIP_IO, DIP_NOMEM; DIP_FORMAT: over 4 GiB, or the outermost object is not whole.  */
#ifndef DIP_DATA_JSON_ITEMS_H
#define DIP_DATA_JSON_ITEMS_H

#include <stddef.h>
#include <stdint.h>

#include "core/json.h"

typedef struct dip_json_file {
    const char *path;
    char *text;
    const char *start, *end; /* the object's '{', and the byte after its '}' */
} dip_json_file;

typedef struct dip_json_items {
    const dip_json_file *file;
    const char *key;
    const char *at, *end;
    int64_t number; /* of the next item */
} dip_json_items;

/* `path` and the keys asked for must live as long as the file. */
dip_status dip_json_file_open(dip_json_file *file, const char *path);
void dip_json_file_close(dip_json_file *file); /* a zeroed struct is fine */

/* DIP_END: the object has no such key; DIP_FORMAT: it is no array. */
dip_status dip_json_file_array(dip_json_items *items, const dip_json_file *file, const char *key);

/* *item is the caller's to delete; NULL: this item is no valid JSON, dip_error() says why, and the
 * next call goes on after it. DIP_FORMAT: what follows cannot be told apart. */
dip_status dip_json_items_next(dip_json_items *items, cJSON **item);

#endif
