#include "nn/stack.h"

#include <stdio.h>
#include <stdlib.h>

/* Where x[i], the input of block i or the last output, lies. */
static dip_region book_rows(const dip_stack_pass *pass, dip_plan *plan, int i, size_t row_bytes,
                            const char *name)
{
    const bool save = pass->extent.save, is_output = i == pass->n_blocks;
    if (!save && i >= 2) return pass->x_regions[i - 2];
    /* Only the pooled rows of it are read again: it may end with forward. */
    if (save && is_output && pass->pools) return pass->d_regions[1];
    const int64_t n = save && is_output ? pass->last.max_out_rows : pass->extent.max_rows;
    char label[96];
    snprintf(label, sizeof label, "%s.x.%d", name, i);
    return dip_plan_book(plan, label, save ? DIP_SPACE_SAVED : DIP_SPACE_SCRATCH,
                         (size_t)n * row_bytes);
}

dip_status dip_stack_plan(dip_stack_pass *pass, const dip_block *blocks, int n_blocks,
                          dip_plan *plan, const dip_exec *exec, int64_t max_rows,
                          int64_t max_out_rows, dip_pass_options options, const char *name)
{
    const dip_dtype dtype = exec->ops->dtype;
    const size_t row_bytes = (size_t)blocks[0].width * dip_dtype_bytes(dtype);
    *pass = (dip_stack_pass){
        .blocks = blocks, .n_blocks = n_blocks, .pooled_region = -1, .d_regions = {-1, -1}};
    pass->extent = (dip_block_extent){max_rows, max_rows, false, options.save, options.recompute};
    pass->last = pass->extent;
    pass->pools = max_out_rows > 0 && options.all_rows;
    if (max_out_rows > 0 && !options.all_rows) {
        pass->last.max_out_rows = max_out_rows;
        pass->last.rows_only = true;
    }
    pass->saved = calloc((size_t)n_blocks, sizeof *pass->saved);
    pass->x_regions = calloc((size_t)n_blocks + 1, sizeof *pass->x_regions);
    pass->x = calloc((size_t)n_blocks + 1, sizeof *pass->x);
    if (!pass->saved || !pass->x_regions || !pass->x) {
        dip_stack_free(pass);
        return dip_fail(DIP_NOMEM, "no memory for the description of %d blocks", n_blocks);
    }

    char label[96];
    if (options.save) {
        for (int i = 0; i < 2; i++) {
            snprintf(label, sizeof label, "backward.%s.d_x.%d", name, i);
            pass->d_regions[i] =
                dip_plan_book(plan, label, DIP_SPACE_SCRATCH, (size_t)max_rows * row_bytes);
        }
        dip_block_scratch_plan(&pass->scratch, &blocks[0], plan, dtype, max_rows,
                               options.recompute);
    }
    for (int i = 0; i <= n_blocks; i++)
        pass->x_regions[i] = book_rows(pass, plan, i, row_bytes, name);
    if (pass->pools) {
        snprintf(label, sizeof label, "%s.pooled", name);
        pass->pooled_region =
            dip_plan_book(plan, label, options.save ? DIP_SPACE_SAVED : DIP_SPACE_SCRATCH,
                          (size_t)max_out_rows * row_bytes);
    }
    for (int i = 0; i < n_blocks; i++) {
        const dip_block_extent extent = i == n_blocks - 1 ? pass->last : pass->extent;
        snprintf(label, sizeof label, "%s.block.%d", name, i);
        if (i > 0 && dip_block_is_shared(extent)) {
            pass->saved[i] = pass->saved[i - 1];
            if (extent.rows_only)
                dip_block_plan_rows(&pass->saved[i], &blocks[i], plan, dtype, extent, label);
        } else {
            dip_block_plan(&pass->saved[i], &blocks[i], plan, dtype, extent, &pass->scratch, label);
        }
    }
    return DIP_OK;
}

void dip_stack_bind(dip_stack_pass *pass, const dip_plan *plan)
{
    for (int i = 0; i <= pass->n_blocks; i++) pass->x[i] = dip_plan_ptr(plan, pass->x_regions[i]);
    pass->pooled = dip_plan_ptr(plan, pass->pooled_region);
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

/* Which rows block i runs on. */
static const int32_t *rows_of(const dip_stack_pass *pass, int i, const int32_t *rows)
{
    return i == pass->n_blocks - 1 && pass->last.rows_only ? rows : NULL;
}

dip_status dip_stack_forward(dip_exec *exec, const dip_stack_pass *pass,
                             const dip_param_set *params, dip_sequences sequences,
                             const int32_t *rows)
{
    for (int i = 0; i < pass->n_blocks; i++)
        DIP_TRY(dip_block_forward(exec, &pass->blocks[i], params, &pass->saved[i], pass->x[i + 1],
                                  pass->x[i], sequences, rows_of(pass, i, rows)));
    if (!pass->pools) return DIP_OK;
    return exec->ops->rows_gather(exec, pass->pooled, pass->x[pass->n_blocks], rows,
                                  dip_sequences_n_pooled(sequences), pass->blocks[0].width);
}

dip_status dip_stack_backward(dip_exec *exec, const dip_stack_pass *pass,
                              const dip_param_set *params, dip_sequences sequences,
                              const int32_t *rows, void **d_x)
{
    void *d_out = pass->d[0], *d_in = pass->d[1];
    if (pass->pools) {
        DIP_TRY(exec->ops->rows_scatter(exec, d_in, d_out, rows, dip_sequences_n_pooled(sequences),
                                        sequences.n_rows, pass->blocks[0].width));
        d_out = pass->d[1];
        d_in = pass->d[0];
    }
    for (int i = pass->n_blocks - 1; i >= 0; i--) {
        DIP_TRY(dip_block_backward(exec, &pass->blocks[i], params, &pass->saved[i], &pass->scratch,
                                   d_in, d_out, pass->x[i], sequences, rows_of(pass, i, rows)));
        void *swap = d_out;
        d_out = d_in;
        d_in = swap;
    }
    *d_x = d_out;
    return DIP_OK;
}
