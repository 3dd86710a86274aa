/* plan.h - memory of a run, booked by name before anything is computed.
 *
 * Usage:   dip_plan_init; every module books its regions with dip_plan_book and keeps the
 *          returned handle; dip_plan_allocate makes one allocation a space; the modules
 *          then fetch their pointers with dip_plan_ptr ("bind").
 * Scratch: regions in DIP_SPACE_SCRATCH that are never alive together share memory:
 *          dip_plan_mark before booking, dip_plan_release(mark) once the last of them
 *          is no longer needed, as on a stack.
 * Layout:  [region][gap][region]..., every region 64-byte aligned (256 on a device). In an
 *          ASan build the gaps are poisoned.
 * Errors:  DIP_NOMEM naming the space, the bytes and the largest region.                */
#ifndef DIP_CORE_PLAN_H
#define DIP_CORE_PLAN_H

#include <stddef.h>
#include <stdio.h>

#include "core/status.h"

typedef enum dip_space {
    DIP_SPACE_PARAM,   /* parameters in the activation dtype, and fp32 masters */
    DIP_SPACE_GRAD,    /* parameter gradients */
    DIP_SPACE_STATE,   /* optimizer moments, EMA */
    DIP_SPACE_SAVED,   /* activations kept from forward to backward */
    DIP_SPACE_SCRATCH, /* everything that lives shorter */
    DIP_N_SPACES
} dip_space;

typedef int dip_region; /* handle; -1 = none */

/* How a plan obtains memory: malloc on the host, cudaMalloc on a device. `allocate` returns
 * NULL when there is none. */
typedef struct dip_memory_source {
    void *(*allocate)(void *context, size_t n_bytes);
    void (*release)(void *context, void *pointer);
    void *context;
    size_t alignment; /* a power of two */
    int is_host;      /* host memory is zeroed and may be poisoned */
} dip_memory_source;

typedef struct dip_plan dip_plan;

/* `source` NULL = host memory. */
dip_status dip_plan_init(dip_plan **plan, const dip_memory_source *source);
void dip_plan_free(dip_plan *plan); /* releases everything; accepts NULL */

/* Book n_bytes (0 is allowed). `name` is copied. Returns -1 only when out of memory; that is
 * remembered and reported by dip_plan_allocate. */
dip_region dip_plan_book(dip_plan *plan, const char *name, dip_space space, size_t n_bytes);

/* Scratch scoping. */
size_t dip_plan_mark(const dip_plan *plan);
void dip_plan_release(dip_plan *plan, size_t mark);

/* One allocation a space. Host memory is zero afterwards. */
dip_status dip_plan_allocate(dip_plan *plan);

/* NULL for -1. Only after dip_plan_allocate. */
void *dip_plan_ptr(const dip_plan *plan, dip_region region);

size_t dip_plan_bytes(const dip_plan *plan, dip_space space); /* peak of the space */
size_t dip_plan_total_bytes(const dip_plan *plan);

/* The table behind --print-memory: a row a region, largest first within its space. */
void dip_plan_print(const dip_plan *plan, FILE *out);

const char *dip_space_name(dip_space space);

#endif
