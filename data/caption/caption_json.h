/* caption_json.h - inside data/: the captions of a .json member.
 *
 * Errors:  DIP_FORMAT: no key has a usable text, dip_error() says why of the last one tried, and
 *          *fault is the ledger's line; DIP_NOMEM.                                         */
#ifndef DIP_DATA_CAPTION_JSON_H
#define DIP_DATA_CAPTION_JSON_H

#include "data/caption/caption.h"

/* The captions under the first of n_keys keys that has any, one a line. *text is malloc'd. */
dip_status dip_caption_read_json(char **text, size_t *n_bytes, dip_fault_kind *fault,
                                 const char *json, size_t json_bytes, const char *const *keys,
                                 size_t n_keys);

#endif
