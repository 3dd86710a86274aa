/* For any CPU. */
#include "data/augment/augment_loops.h"

#include <string.h>

static void draw_blocks(uint32_t *out, dip_rng *rng, size_t n_blocks)
{
    dip_rng blocks = *rng; /* apart, so that what is left of rng's last block stays */
    for (size_t i = 0; i < n_blocks; i++) {
        dip_rng_refill(&blocks);
        memcpy(out + 4 * i, blocks.out, sizeof blocks.out);
    }
    rng->block = blocks.block;
}

const dip_augment_kernels *dip_augment_kernels_c(void)
{
    static const dip_augment_kernels kernels = {blur_row, saturate, turn_hue, draw_blocks};
    return &kernels;
}
