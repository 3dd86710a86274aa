#include "train/fp8.h"

#include <stdlib.h>

#include "core/log.h"

enum { MATRICES = 4 }; /* of a block */

typedef struct matrix {
    int param;
    int64_t c_out, c_in;
} matrix;

static void matrices_of(matrix out[MATRICES], const dip_block *block)
{
    const int64_t c = block->width, hidden = block->mlp_width;
    out[0] = (matrix){block->qkv_w, 3 * c, c};
    out[1] = (matrix){block->out_w, c, c};
    out[2] = (matrix){block->fc_w, hidden, c};
    out[3] = (matrix){block->proj_w, c, hidden};
}

/* The most rows that a block computes at once. */
static int64_t max_rows(const dip_step *step)
{
    const int64_t image = step->clip->vision.n_patches + 1;
    const int64_t text = step->clip->config.text.context_length;
    return step->options.micro_batch * (image > text ? image : text);
}

size_t dip_step_fp8_workspace(const dip_step *step)
{
    const dip_clip *clip = step->clip;
    size_t most = 0;
    for (int tower = 0; tower < 2; tower++) {
        matrix matrices[MATRICES];
        matrices_of(matrices, tower == 0 ? &clip->vision.blocks[0] : &clip->text.blocks[0]);
        for (int i = 0; i < MATRICES; i++) {
            const dip_fp8_weight weight = {.c_out = matrices[i].c_out, .c_in = matrices[i].c_in};
            const size_t n_bytes = dip_fp8_workspace(&weight, 1, max_rows(step));
            if (n_bytes > most) most = n_bytes;
        }
    }
    return most;
}

static int add_blocks(dip_fp8_weight *weights, int n, const dip_param_set *params,
                      const dip_block *blocks, int n_blocks)
{
    for (int b = 0; b < n_blocks; b++) {
        matrix matrices[MATRICES];
        matrices_of(matrices, &blocks[b]);
        for (int i = 0; i < MATRICES; i++)
            weights[n++] = (dip_fp8_weight){.w = dip_param_value(params, matrices[i].param),
                                            .d_w = dip_param_grad(params, matrices[i].param),
                                            .c_out = matrices[i].c_out,
                                            .c_in = matrices[i].c_in};
    }
    return n;
}

dip_status dip_step_use_fp8(dip_step *step)
{
    const dip_clip *clip = step->clip;
    if (step->options.micro_batch % 16 != 0)
        dip_warn("fp8: products of row counts that are not multiples of 16 are computed in bf16; a "
                 "batch size that is a multiple of 16 avoids most of them");
    const int n_vision = clip->config.vision.layers, n_text = clip->config.text.layers;
    dip_fp8_weight *weights = calloc((size_t)((n_vision + n_text) * MATRICES), sizeof *weights);
    if (!weights)
        return dip_fail(DIP_NOMEM, "no memory for the weights of %d blocks", n_vision + n_text);
    int n = add_blocks(weights, 0, &step->params, clip->vision.blocks, n_vision);
    n = add_blocks(weights, n, &step->params, clip->text.blocks, n_text);
    const dip_status status = dip_exec_use_fp8(&step->exec, weights, n, max_rows(step));
    free(weights);
    return status;
}
