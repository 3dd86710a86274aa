/* scores.h - many dot products of feature rows, in exact float, a tile of columns at a time.
 *
 * Every score is the sum x[0] y[0] + x[1] y[1] + ... added in that order in float, on every
 * machine and for every tile, so equal pairs of rows have equal scores, bit for bit: ranks made
 * of comparisons need that.
 *
 * Usage:   dip_scores_pack up to DIP_SCORE_TILE rows, then dip_scores_tile per few rows against
 *          them.
 * Threads: pure functions.                                                                 */
#ifndef DIP_MODEL_SCORES_H
#define DIP_MODEL_SCORES_H

#include <stdint.h>

enum { DIP_SCORE_TILE = 64, DIP_SCORE_ALIGN = 64 };

/* packed [E][DIP_SCORE_TILE], aligned to DIP_SCORE_ALIGN bytes = rows [n][E] transposed; columns
 * from n on are zero. */
void dip_scores_pack(float *packed, const float *rows, int64_t n, int embed_dim);

/* scores [n][DIP_SCORE_TILE] = rows [n][E] times the columns of packed; aligned as packed is. Four
 * rows at a time are quickest. */
void dip_scores_tile(float *scores, const float *rows, int64_t n, const float *packed,
                     int embed_dim);

/* One score, the same bits as in a tile. */
float dip_scores_dot(const float *a, const float *b, int embed_dim);

#endif
