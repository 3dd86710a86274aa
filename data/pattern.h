/* pattern.h - 'shards/{00000..00059}.tar' to a list of paths.
 *
 * Understands bash-like braces as braceexpand does (ranges with zero padding, steps,
 * descending, lists, nesting, cross products), '::' between patterns, and a plain folder
 * (every *.tar in it, sorted by name).                                                  */
#ifndef DIP_DATA_PATTERN_H
#define DIP_DATA_PATTERN_H

#include <stddef.h>

#include "core/config.h" /* dip_string_list */
#include "core/status.h"

/* Expand; DIP_CONFIG for malformed text or more than 10,000,000 paths. Does not touch files
 * except to see whether a brace-free pattern is a folder. */
dip_status dip_pattern_expand(dip_string_list *paths, const char *pattern);

/* Expand and require every path to be a readable regular file; the refusal lists all that
 * are not (the first 20, and how many more). A path listed twice is a warning. */
dip_status dip_pattern_expand_files(dip_string_list *paths, const char *pattern);

void dip_string_list_free(dip_string_list *list); /* a zeroed struct is fine */

#endif
