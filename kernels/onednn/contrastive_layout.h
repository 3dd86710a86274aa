/* contrastive_layout.h - the workspace of the contrastive loss.
 *
 * The B x B logits exist a strip of STRIP_ROWS rows at a time, so memory is O(B): for each caption
 * STRIP_ROWS floats and its running column sums. A strip is made in tiles of TILE columns; a
 * thread owns whole tiles, hence columns, and in a second pass whole rows or outputs. Strips go
 * in order: no sum is split by the number of threads.
 *
 *   [logits STRIP_ROWS x B][u of the strip, in panels of TILE columns]
 *   [column maxima B][column sums B, double][tile sums B / TILE, double][1 / |group| B]
 *   per thread: [v of a tile, transposed, E x TILE][product PRODUCT_ROWS x TILE][v panel]  */
#ifndef DIP_KERNELS_ONEDNN_CONTRASTIVE_LAYOUT_H
#define DIP_KERNELS_ONEDNN_CONTRASTIVE_LAYOUT_H

#include "kernels/onednn/vector.h"

enum { STRIP_ROWS = 192, TILE = 64, PRODUCT_ROWS = 96 };

typedef struct contrastive_layout {
    int64_t width, embed; /* B and E rounded up to TILE */
    int64_t n_tiles, n_panels;
    size_t logits, u_panels, col_max, col_sum, tile_sum, inv_group; /* bytes from the start */
    size_t threads, v_t, product, v_panel, thread_bytes;            /* v_t.. from a thread's own */
} contrastive_layout;

static inline contrastive_layout contrastive_layout_of(dip_contrastive_shape shape)
{
    contrastive_layout at = {.width = (shape.batch + TILE - 1) / TILE * TILE,
                             .embed = (shape.embed + TILE - 1) / TILE * TILE};
    at.n_tiles = at.width / TILE;
    at.n_panels = at.embed / TILE;
    const size_t width = (size_t)at.width, embed = (size_t)at.embed;
    at.u_panels = at.logits + STRIP_ROWS * width * sizeof(float);
    at.col_max = at.u_panels + STRIP_ROWS * embed * sizeof(float);
    at.col_sum = at.col_max + width * sizeof(float);
    at.tile_sum = at.col_sum + width * sizeof(double);
    at.inv_group = at.tile_sum + ((size_t)at.n_tiles + 7) / 8 * 8 * sizeof(double);
    at.threads = at.inv_group + width * sizeof(float);
    at.product = at.v_t + TILE * embed * sizeof(float);
    at.v_panel = at.product + PRODUCT_ROWS * TILE * sizeof(float);
    at.thread_bytes = at.v_panel + STRIP_ROWS * TILE * sizeof(float);
    return at;
}

#endif
