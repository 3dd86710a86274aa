/* graphs.h - steps recorded once and replayed.
 *
 * A recorded step is good for one slot and one number of text rows, for those decide every address
 * and size in it. The first step of a size is run as it is (backends choose algorithms then, which
 * they cannot while recording); the next of each slot is recorded. The sizes used least recently
 * leave.
 *
 * Usage:   a zeroed struct; dip_graphs_find a step; dip_graphs_free before the executor closes.  */
#ifndef DIP_TRAIN_GRAPHS_H
#define DIP_TRAIN_GRAPHS_H

#include <stdint.h>

#include "kernels/device.h"

enum { DIP_MAX_GRAPH_SIZES = 16 };

typedef struct dip_graph_size {
    int64_t n_rows;    /* of text */
    int64_t last_used; /* a count of finds */
    dip_graph *graphs[DIP_N_SLOTS];
} dip_graph_size;

typedef struct dip_graphs {
    dip_graph_size sizes[DIP_MAX_GRAPH_SIZES];
    int n_sizes;
    int64_t n_finds;
} dip_graphs;

/* *place: where the graph is, or NULL in it where the caller shall put one. place itself is NULL
 * the first time a size is seen. Making room waits for the device. */
dip_status dip_graphs_find(dip_graphs *graphs, dip_exec *exec, dip_graph ***place, int64_t n_rows,
                           int slot);
void dip_graphs_free(dip_graphs *graphs, dip_exec *exec);

#endif
