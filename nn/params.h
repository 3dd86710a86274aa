/* params.h - one table of parameters: names, shapes, initialisation, decay, offsets.
 *
 * Each module adds its rows once; the table then feeds initialisation, the checkpoint's tensor
 * names, the optimizer's groups and the tests. A parameter set is the memory behind a table:
 * the same tower runs on any set of the same table (online weights, an EMA copy).
 *
 * Usage:   dip_param_add per parameter (returns its number), dip_param_table_layout once, then
 *          dip_param_value / dip_param_grad with a set.
 * Owns:    the table owns its rows. Sets are filled in by whoever planned the memory.      */
#ifndef DIP_NN_PARAMS_H
#define DIP_NN_PARAMS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/dtype.h"
#include "core/status.h"

enum { DIP_PARAM_MAX_DIMS = 4, DIP_PARAM_NAME_BYTES = 96, DIP_PARAM_ALIGN = 32 };

typedef enum dip_init {
    DIP_INIT_CONSTANT, /* value */
    DIP_INIT_NORMAL,   /* standard deviation = value */
    DIP_INIT_UNIFORM   /* in [-value, value) */
} dip_init;

typedef struct dip_param {
    char name[DIP_PARAM_NAME_BYTES]; /* open_clip's state-dict name */
    int n_dims;                      /* 0 = a scalar */
    int64_t shape[DIP_PARAM_MAX_DIMS];
    int64_t n_elements;
    int64_t offset; /* elements, in every array of a set */
    dip_init init;
    double init_value;
    bool decay; /* weight decay applies */
} dip_param;

typedef struct dip_param_table {
    dip_param *params;
    int n_params, capacity;
    int64_t n_values;  /* length of the arrays of a set, padding included */
    int64_t n_decayed; /* the first n_decayed elements are the decayed ones */
    int64_t n_counted; /* parameters without padding: what a paper would quote */
} dip_param_table;

typedef struct dip_param_set {
    const dip_param_table *table;
    dip_dtype dtype;
    void *values;  /* T [n_values]; == master when T is float */
    float *master; /* [n_values] */
    float *grads;  /* [n_values], NULL when not training */
} dip_param_set;

/* Add a row. `decay` is open_clip 4.x's rule as applied by the caller. Returns the number, or -1
 * out of memory (remembered; dip_param_table_layout reports it). */
int dip_param_add(dip_param_table *table, dip_init init, double init_value, bool decay, int n_dims,
                  const int64_t *shape, const char *name_format, ...) DIP_PRINTF(7, 8);

/* Give every row its offset: decayed rows first, each aligned to DIP_PARAM_ALIGN elements. */
dip_status dip_param_table_layout(dip_param_table *table);
void dip_param_table_free(dip_param_table *table);

/* Fill host memory `master` [n_values] (padding 0) as a function of (seed, row name). */
void dip_param_table_init_values(const dip_param_table *table, float *master, uint64_t seed);

/* Row number by name, -1 if absent. */
int dip_param_find(const dip_param_table *table, const char *name);

static inline const void *dip_param_value(const dip_param_set *set, int param)
{
    return (const char *)set->values +
           (size_t)set->table->params[param].offset * dip_dtype_bytes(set->dtype);
}

static inline float *dip_param_grad(const dip_param_set *set, int param)
{
    return set->grads + set->table->params[param].offset;
}

#endif
