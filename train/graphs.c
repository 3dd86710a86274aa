#include "train/graphs.h"

static void free_size(dip_graph_size *size, dip_exec *exec)
{
    for (int i = 0; i < DIP_N_SLOTS; i++)
        if (size->graphs[i]) exec->device->graph_free(exec, size->graphs[i]);
    *size = (dip_graph_size){0};
}

/* A free row of the table. */
static dip_status make_room(dip_graphs *graphs, dip_exec *exec, dip_graph_size **out)
{
    dip_graph_size *oldest = &graphs->sizes[0];
    if (graphs->n_sizes < DIP_MAX_GRAPH_SIZES) {
        *out = &graphs->sizes[graphs->n_sizes++];
        return DIP_OK;
    }
    for (int i = 1; i < graphs->n_sizes; i++)
        if (graphs->sizes[i].last_used < oldest->last_used) oldest = &graphs->sizes[i];
    DIP_TRY(exec->device->synchronize(exec)); /* it may be running */
    free_size(oldest, exec);
    *out = oldest;
    return DIP_OK;
}

dip_status dip_graphs_find(dip_graphs *graphs, dip_exec *exec, dip_graph ***place, int64_t n_rows,
                           int slot)
{
    dip_graph_size *size = NULL;
    *place = NULL;
    for (int i = 0; i < graphs->n_sizes; i++)
        if (graphs->sizes[i].n_rows == n_rows) size = &graphs->sizes[i];
    if (size) {
        *place = &size->graphs[slot];
    } else {
        DIP_TRY(make_room(graphs, exec, &size));
        size->n_rows = n_rows;
    }
    size->last_used = ++graphs->n_finds;
    return DIP_OK;
}

void dip_graphs_free(dip_graphs *graphs, dip_exec *exec)
{
    for (int i = 0; i < graphs->n_sizes; i++) free_size(&graphs->sizes[i], exec);
    *graphs = (dip_graphs){0};
}
