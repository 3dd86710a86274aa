#include "nn/params.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"

int dip_param_add(dip_param_table *table, dip_init init, double init_value, bool decay, int n_dims,
                  const int64_t *shape, const char *name_format, ...)
{
    if (table->n_params < 0) return -1;
    if (table->n_params == table->capacity) {
        int capacity = table->capacity ? 2 * table->capacity : 64;
        dip_param *grown = realloc(table->params, (size_t)capacity * sizeof *grown);
        if (!grown) {
            free(table->params);
            *table = (dip_param_table){.n_params = -1};
            return -1;
        }
        table->params = grown;
        table->capacity = capacity;
    }
    dip_param *param = &table->params[table->n_params];
    *param = (dip_param){
        .n_dims = n_dims, .n_elements = 1, .init = init, .init_value = init_value, .decay = decay};
    va_list args;
    va_start(args, name_format);
    vsnprintf(param->name, sizeof param->name, name_format, args);
    va_end(args);
    for (int i = 0; i < n_dims; i++) {
        param->shape[i] = shape[i];
        param->n_elements *= shape[i];
    }
    return table->n_params++;
}

dip_status dip_param_table_layout(dip_param_table *table)
{
    if (table->n_params < 0) return dip_fail(DIP_NOMEM, "no memory for the table of parameters");
    int64_t offset = 0;
    table->n_counted = 0;
    for (int decayed = 1; decayed >= 0; decayed--) {
        for (int i = 0; i < table->n_params; i++) {
            dip_param *param = &table->params[i];
            if (param->decay != decayed) continue;
            param->offset = offset;
            offset += (param->n_elements + DIP_PARAM_ALIGN - 1) / DIP_PARAM_ALIGN * DIP_PARAM_ALIGN;
            table->n_counted += param->n_elements;
        }
        if (decayed) table->n_decayed = offset;
    }
    table->n_values = offset;
    return DIP_OK;
}

void dip_param_table_free(dip_param_table *table)
{
    free(table->params);
    *table = (dip_param_table){0};
}

/* FNV-1a: a parameter's stream depends on its name, not on its place in the table, so adding one
 * leaves the others' initial values alone. */
static uint64_t name_hash(const char *name)
{
    uint64_t hash = 14695981039346656037u;
    for (const char *p = name; *p; p++) hash = (hash ^ (unsigned char)*p) * 1099511628211u;
    return hash;
}

void dip_param_table_init_values(const dip_param_table *table, float *master, uint64_t seed)
{
    memset(master, 0, (size_t)table->n_values * sizeof *master);
    for (int i = 0; i < table->n_params; i++) {
        const dip_param *param = &table->params[i];
        float *values = master + param->offset;
        dip_rng rng;
        dip_rng_init(&rng, seed, dip_rng_stream(DIP_RNG_INIT, 0, name_hash(param->name)));
        for (int64_t j = 0; j < param->n_elements; j++) {
            switch (param->init) {
            case DIP_INIT_CONSTANT:
                values[j] = (float)param->init_value;
                break;
            case DIP_INIT_NORMAL:
                values[j] = (float)(param->init_value * dip_rng_normal(&rng));
                break;
            case DIP_INIT_UNIFORM:
                values[j] = (float)dip_rng_range(&rng, -param->init_value, param->init_value);
                break;
            }
        }
    }
}

int dip_param_find(const dip_param_table *table, const char *name)
{
    for (int i = 0; i < table->n_params; i++)
        if (strcmp(table->params[i].name, name) == 0) return i;
    return -1;
}
