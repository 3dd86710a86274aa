/* layernorm_layout.h - partial sums of d_gamma and d_beta, one row [gamma | beta] per block of
 * rows, each half padded to whole cache lines. The block size is fixed: it decides the order of
 * the additions, whatever the number of threads.                                          */
#ifndef DIP_KERNELS_ONEDNN_LAYERNORM_LAYOUT_H
#define DIP_KERNELS_ONEDNN_LAYERNORM_LAYOUT_H

#include <stdint.h>

enum { BLOCK_ROWS = 128 };

/* Floats from one block's sums to the next's. */
static inline int64_t partials_stride(int64_t c)
{
    return 2 * ((c + 15) / 16 * 16);
}

#endif
