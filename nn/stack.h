/* stack.h - a tower's blocks in a row, and the memory of one pass through them.
 *
 * Usage:   dip_stack_plan, dip_stack_bind; write the stack's input to dip_stack_input; forward;
 *          and, when planned with save, write the gradient of the output to dip_stack_d_output and
 *          call backward, which returns where the gradient of the input lies.
 * Memory:  saving, every block keeps its input and those of its intermediates that dip_recompute
 *          leaves (DIP_SPACE_SAVED); not saving, all blocks share one set and two row buffers
 *          (DIP_SPACE_SCRATCH). Between forward and backward scratch may hold anything else.     */
#ifndef DIP_NN_STACK_H
#define DIP_NN_STACK_H

#include "nn/block.h"

typedef struct dip_pass_options {
    bool save;               /* for backward */
    dip_recompute recompute; /* of a pass that saves */
    bool all_rows; /* the last block computes rows that nobody reads, as other programs do: for
                      comparisons on equal work. The same numbers up to the order of sums */
} dip_pass_options;

typedef struct dip_stack_pass {
    const dip_block *blocks;
    int n_blocks;
    dip_block_extent extent; /* of every block but the last, when that runs on pooled rows only */
    dip_block_extent last;
    dip_block_saved *saved; /* [n_blocks] */
    dip_region *x_regions;
    void **x;   /* [n_blocks + 1]: the input of each block, then the output of the last */
    bool pools; /* all rows are computed, then `rows` gathered */
    dip_region pooled_region;
    void *pooled; /* [max_out_rows, C] when it pools, else NULL */
    dip_block_scratch scratch;
    dip_region d_regions[2];
    void *d[2]; /* [max_rows, C] gradients of the rows, used in turn */
} dip_stack_pass;

/* max_out_rows > 0: the output is that many pooled rows at most (`rows` in forward and backward),
 * and unless options.all_rows the last block runs on them alone; 0: the output is all rows. */
dip_status dip_stack_plan(dip_stack_pass *pass, const dip_block *blocks, int n_blocks,
                          dip_plan *plan, const dip_exec *exec, int64_t max_rows,
                          int64_t max_out_rows, dip_pass_options options, const char *name);
void dip_stack_bind(dip_stack_pass *pass, const dip_plan *plan);
void dip_stack_free(dip_stack_pass *pass); /* a zeroed struct is fine */

static inline void *dip_stack_input(const dip_stack_pass *pass)
{
    return pass->x[0];
}
static inline void *dip_stack_output(const dip_stack_pass *pass)
{
    return pass->pooled ? pass->pooled : pass->x[pass->n_blocks];
}
static inline void *dip_stack_d_output(const dip_stack_pass *pass)
{
    return pass->d[0];
}

dip_status dip_stack_forward(dip_exec *exec, const dip_stack_pass *pass,
                             const dip_param_set *params, dip_sequences sequences,
                             const int32_t *rows);

/* *d_x: gradient of the input, [N, C], in one of the pass's buffers. */
dip_status dip_stack_backward(dip_exec *exec, const dip_stack_pass *pass,
                              const dip_param_set *params, dip_sequences sequences,
                              const int32_t *rows, void **d_x);

#endif
