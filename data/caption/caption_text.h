/* caption_text.h - inside data/: what is done to the text of one caption.
 *
 * Text is well-formed UTF-8, may hold NUL, and is changed in place: none of these makes it longer.
 * Each returns the new length in bytes. Time grows with the length alone.                 */
#ifndef DIP_DATA_CAPTION_TEXT_H
#define DIP_DATA_CAPTION_TEXT_H

#include <stddef.h>

#include "core/rng.h"

/* Python's html.unescape for numbers and for HTML 4's names (and &apos;), also its names that need
 * no semicolon. */
size_t dip_caption_unescape(char *text, size_t n_bytes);

/* Some of ftfy 6.3's repairs: typographic quotes, the ligatures ff to st, IJ and 'n, full-width
 * ASCII and space become plain ones; control characters that are no blanks are left out. */
size_t dip_caption_plain(char *text, size_t n_bytes);

/* What Python's split() takes for blanks: runs become one space, none at the ends. */
size_t dip_caption_join_blanks(char *text, size_t n_bytes);

/* '_' to a space; with delete_others the other ASCII punctuation is left out. */
size_t dip_caption_punctuation(char *text, size_t n_bytes, int delete_others);

/* Each word (between blanks) is left out with this probability, never all of them: then one drawn
 * word stays. Blanks are joined. Draws one number a word. */
size_t dip_caption_drop_words(char *text, size_t n_bytes, double probability, dip_rng *rng);

#endif
