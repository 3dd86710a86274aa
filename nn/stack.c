#include "nn/stack.h"

#include <stdio.h>
#include <stdlib.h>

dip_status dip_stack_plan(dip_stack_pass *pass, const dip_block *blocks, int n_blocks,
                          dip_plan *plan, const dip_exec *exec, int64_t max_rows,
                          int64_t max_out_rows, bool save, const char *name)
{
    const dip_dtype dtype = exec->ops->dtype;
    const size_t t = dip_dtype_bytes(dtype);
    const size_t row_bytes = (size_t)blocks[0].width * t;
    const dip_space space = save ? DIP_SPACE_SAVED : DIP_SPACE_SCRATCH;
    *pass = (dip_stack_pass){.blocks = blocks, .n_blocks = n_blocks, .d_regions = {-1, -1}};
    pass->extent = (dip_block_extent){max_rows, max_rows, false, save};
    pass->last =
        max_out_rows ? (dip_block_extent){max_rows, max_out_rows, true, save} : pass->extent;
    pass->saved = calloc((size_t)n_blocks, sizeof *pass->saved);
    pass->x_regions = calloc((size_t)n_blocks + 1, sizeof *pass->x_regions);
    pass->x = calloc((size_t)n_blocks + 1, sizeof *pass->x);
    if (!pass->saved || !pass->x_regions || !pass->x) {
        dip_stack_free(pass);
        return dip_fail(DIP_NOMEM, "no memory for the description of %d blocks", n_blocks);
    }

    char label[96];
    for (int i = 0; i <= n_blocks; i++) {
        if (!save && i >= 2) {
            pass->x_regions[i] = pass->x_regions[i - 2];
            continue;
        }
        snprintf(label, sizeof label, "%s.x.%d", name, i);
        pass->x_regions[i] = dip_plan_book(plan, label, space, (size_t)max_rows * row_bytes);
    }
    for (int i = 0; i < n_blocks; i++) {
        const bool is_last = i == n_blocks - 1;
        if (!save && i > 0 && !(is_last && pass->last.rows_only)) {
            pass->saved[i] = pass->saved[i - 1];
            continue;
        }
        snprintf(label, sizeof label, "%s.block.%d", name, i);
        dip_block_plan(&pass->saved[i], &blocks[i], plan, dtype,
                       is_last ? pass->last : pass->extent, label);
    }
    if (save) {
        for (int i = 0; i < 2; i++) {
            snprintf(label, sizeof label, "backward.%s.d_x.%d", name, i);
            pass->d_regions[i] =
                dip_plan_book(plan, label, DIP_SPACE_SCRATCH, (size_t)max_rows * row_bytes);
        }
        dip_block_scratch_plan(&pass->scratch, &blocks[0], plan, dtype, max_rows);
    }
    return DIP_OK;
}

void dip_stack_bind(dip_stack_pass *pass, const dip_plan *plan)
{
    for (int i = 0; i <= pass->n_blocks; i++) pass->x[i] = dip_plan_ptr(plan, pass->x_regions[i]);
    for (int i = 0; i < pass->n_blocks; i++)
        dip_block_bind(&pass->saved[i], plan, i == pass->n_blocks - 1 ? pass->last : pass->extent);
    if (pass->extent.save) {
        for (int i = 0; i < 2; i++) pass->d[i] = dip_plan_ptr(plan, pass->d_regions[i]);
        dip_block_scratch_bind(&pass->scratch, plan);
    }
}

void dip_stack_free(dip_stack_pass *pass)
{
    free(pass->saved);
    free(pass->x_regions);
    free(pass->x);
    *pass = (dip_stack_pass){0};
}

dip_status dip_stack_forward(dip_exec *exec, const dip_stack_pass *pass,
                             const dip_param_set *params, dip_sequences sequences,
                             const int32_t *rows)
{
    for (int i = 0; i < pass->n_blocks; i++)
        DIP_TRY(dip_block_forward(exec, &pass->blocks[i], params, &pass->saved[i], pass->x[i + 1],
                                  pass->x[i], sequences, i == pass->n_blocks - 1 ? rows : NULL));
    return DIP_OK;
}

dip_status dip_stack_backward(dip_exec *exec, const dip_stack_pass *pass,
                              const dip_param_set *params, dip_sequences sequences,
                              const int32_t *rows, void **d_x)
{
    void *d_out = pass->d[0], *d_in = pass->d[1];
    for (int i = pass->n_blocks - 1; i >= 0; i--) {
        DIP_TRY(dip_block_backward(exec, &pass->blocks[i], params, &pass->saved[i], &pass->scratch,
                                   d_in, d_out, pass->x[i], sequences,
                                   i == pass->n_blocks - 1 ? rows : NULL));
        void *swap = d_out;
        d_out = d_in;
        d_in = swap;
    }
    *d_x = d_out;
    return DIP_OK;
}
