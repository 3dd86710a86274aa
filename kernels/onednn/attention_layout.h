/* attention_layout.h - a thread's workspace in the vector attention, in floats.
 *
 * [q L x D][k L x D][k_t D x L][v or v_t][d_o L x D][d_k][d_v][s QUERIES x L][d_p][o QUERIES x D]
 * with L and D rounded up to 16, so that every row is whole vectors and whole cache lines. Forward
 * uses q, k_t, v, s and o; the layout is that of backward.                               */
#ifndef DIP_KERNELS_ONEDNN_ATTENTION_LAYOUT_H
#define DIP_KERNELS_ONEDNN_ATTENTION_LAYOUT_H

#include "kernels/onednn/vector.h"

enum { QUERIES = 48 }; /* rows of scores made at once: whole blocks of 6 */

typedef struct attention_layout {
    int64_t d, keys; /* D and L rounded up */
    size_t q, k, k_t, v, d_o, d_k, d_v, s, d_p, o, n_floats;
} attention_layout;

static inline attention_layout attention_layout_of(dip_attention_shape shape)
{
    attention_layout at = {.d = (shape.head_size + 15) / 16 * 16,
                           .keys = (shape.max_length + 15) / 16 * 16};
    const size_t rows = (size_t)(at.keys * at.d), scores = (size_t)(QUERIES * at.keys);
    at.k = at.q + rows;
    at.k_t = at.k + rows;
    at.v = at.k_t + rows;
    at.d_o = at.v + rows;
    at.d_k = at.d_o + rows;
    at.d_v = at.d_k + rows;
    at.s = at.d_v + rows;
    at.d_p = at.s + scores;
    at.o = at.d_p + scores;
    at.n_floats = at.o + (size_t)(QUERIES * at.d);
    return at;
}

#endif
