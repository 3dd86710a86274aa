/* attention_amx.h - a thread's workspace in the tile attention, in bytes, and tile products.
 *
 * Tiles multiply rows of bf16 (A) by pairs of rows interleaved (B: one 32-bit value holds a column
 * of rows 2k and 2k + 1). "rows" below is the first form, "pairs" the second, "across" the pairs
 * of the transposed matrix. Lengths are rounded up to 32, padded with zeros.
 *
 * A sequence of up to MAX_BLOCK tokens is one block of queries; longer ones are cut into blocks of
 * 64, so the workspace of a thread grows with the length, not with its square.            */
#ifndef DIP_KERNELS_ONEDNN_ATTENTION_AMX_H
#define DIP_KERNELS_ONEDNN_ATTENTION_AMX_H

#include "kernels/onednn/vector.h"

enum { MAX_BLOCK = 96, STRIP = 32 };

/* Element offsets are bytes from the start of a thread's part. */
typedef struct tile_layout {
    int64_t d, keys;                   /* D and L rounded up to 32 */
    size_t q, k, v, k_pairs, d_k, d_v; /* all keys */
    size_t d_o, q_across, d_o_across, q_pairs, d_o_pairs, d_q, d_s_rows; /* a block of queries */
    size_t s, d_p, p, d_s;                                               /* a strip */
    size_t n_bytes;
} tile_layout;

static inline tile_layout tile_layout_of(dip_attention_shape shape)
{
    tile_layout at = {.d = (shape.head_size + 31) / 32 * 32,
                      .keys = (shape.max_length + 31) / 32 * 32};
    const size_t rows = (size_t)(at.keys * at.d) * sizeof(dip_bf16);
    const size_t block = (size_t)(MAX_BLOCK * at.d) * sizeof(dip_bf16);
    /* Forward makes a strip of queries by all keys, backward a strip of keys by a block. */
    const int64_t strip_width = at.keys > MAX_BLOCK ? at.keys : MAX_BLOCK;
    const size_t strip = (size_t)(STRIP * strip_width) * sizeof(dip_bf16);
    at.k = at.q + rows;
    at.v = at.k + rows;
    at.k_pairs = at.v + rows;
    at.d_k = at.k_pairs + rows;
    at.d_v = at.d_k + 2 * rows;
    at.d_o = at.d_v + 2 * rows;
    at.q_across = at.d_o + block;
    at.d_o_across = at.q_across + block;
    at.q_pairs = at.d_o_across + block;
    at.d_o_pairs = at.q_pairs + block;
    at.d_q = at.d_o_pairs + block;
    at.d_s_rows = at.d_q + 2 * block;
    at.s = at.d_s_rows + (size_t)(MAX_BLOCK * at.keys) * sizeof(dip_bf16);
    at.d_p = at.s + 2 * strip;
    at.p = at.d_p + 2 * strip;
    at.d_s = at.p + strip;
    at.n_bytes = at.d_s + strip;
    return at;
}

#endif
