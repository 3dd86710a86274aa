#include "core/plan.h"

#include <assert.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define HAS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_ASAN 1
#endif
#endif
#ifdef HAS_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(pointer, n_bytes)   ASAN_POISON_MEMORY_REGION(pointer, n_bytes)
#define UNPOISON(pointer, n_bytes) ASAN_UNPOISON_MEMORY_REGION(pointer, n_bytes)
#else
#define POISON(pointer, n_bytes)   ((void)(pointer), (void)(n_bytes))
#define UNPOISON(pointer, n_bytes) ((void)(pointer), (void)(n_bytes))
#endif

/* Far above any machine, far below the overflow of a sum of two. */
#define MAX_SPACE_BYTES (SIZE_MAX / 16)

enum { HOST_ALIGNMENT = 64 };

typedef struct region {
    char *name;
    dip_space space;
    size_t offset, n_bytes;
} region;

struct dip_plan {
    dip_memory_source source;
    region *regions;
    size_t n_regions, capacity;
    size_t top[DIP_N_SPACES];  /* where the next region goes */
    size_t peak[DIP_N_SPACES]; /* the bytes to allocate */
    unsigned char *memory[DIP_N_SPACES];
    bool allocated;
    bool out_of_memory;   /* while booking */
    dip_region too_large; /* a region beyond any address range, -1 if none */
};

static void *host_allocate(void *context, size_t n_bytes)
{
    (void)context;
    void *pointer;
    return posix_memalign(&pointer, HOST_ALIGNMENT, n_bytes) == 0 ? pointer : NULL;
}

static void host_release(void *context, void *pointer)
{
    (void)context;
    free(pointer);
}

dip_status dip_plan_init(dip_plan **out, const dip_memory_source *source)
{
    static const dip_memory_source host = {host_allocate, host_release, NULL, HOST_ALIGNMENT, 1};
    if (!source) source = &host;
    assert(source->alignment > 0 && (source->alignment & (source->alignment - 1)) == 0);
    dip_plan *plan = calloc(1, sizeof *plan);
    *out = plan;
    if (!plan) return dip_fail(DIP_NOMEM, "no memory for a memory plan");
    plan->source = *source;
    plan->too_large = -1;
    return DIP_OK;
}

void dip_plan_free(dip_plan *plan)
{
    if (!plan) return;
    for (int space = 0; space < DIP_N_SPACES; space++) {
        if (!plan->memory[space]) continue;
        if (plan->source.is_host) UNPOISON(plan->memory[space], plan->peak[space]);
        plan->source.release(plan->source.context, plan->memory[space]);
    }
    for (size_t i = 0; i < plan->n_regions; i++) free(plan->regions[i].name);
    free(plan->regions);
    free(plan);
}

dip_region dip_plan_book(dip_plan *plan, const char *name, dip_space space, size_t n_bytes)
{
    assert(!plan->allocated && (unsigned)space < DIP_N_SPACES);
    if (plan->n_regions == plan->capacity) {
        size_t capacity = plan->capacity ? 2 * plan->capacity : 64;
        region *grown = capacity <= INT_MAX / sizeof *grown
                            ? realloc(plan->regions, capacity * sizeof *grown)
                            : NULL;
        if (!grown) {
            plan->out_of_memory = true;
            return -1;
        }
        plan->regions = grown;
        plan->capacity = capacity;
    }
    char *copy = strdup(name);
    if (!copy) {
        plan->out_of_memory = true;
        return -1;
    }
    /* The gap is there in every build, so that all builds have the same layout. */
    size_t alignment = plan->source.alignment, offset = plan->top[space], with_gap = 0;
    if (n_bytes <= MAX_SPACE_BYTES && offset <= MAX_SPACE_BYTES)
        with_gap = (n_bytes + alignment - 1) / alignment * alignment + alignment;
    else if (plan->too_large < 0)
        plan->too_large = (dip_region)plan->n_regions;
    plan->regions[plan->n_regions] = (region){copy, space, offset, n_bytes};
    plan->top[space] = offset + with_gap;
    if (plan->top[space] > plan->peak[space]) plan->peak[space] = plan->top[space];
    return (dip_region)plan->n_regions++;
}

size_t dip_plan_mark(const dip_plan *plan)
{
    return plan->top[DIP_SPACE_SCRATCH];
}

void dip_plan_release(dip_plan *plan, size_t mark)
{
    assert(mark <= plan->top[DIP_SPACE_SCRATCH]);
    plan->top[DIP_SPACE_SCRATCH] = mark;
}

static dip_status fail_space(const dip_plan *plan, dip_space space)
{
    const region *largest = NULL;
    for (size_t i = 0; i < plan->n_regions; i++) {
        const region *r = &plan->regions[i];
        if (r->space == space && (!largest || r->n_bytes > largest->n_bytes)) largest = r;
    }
    return dip_fail(DIP_NOMEM,
                    "no memory for the %zu bytes of %s; the largest of it is %s with %zu",
                    plan->peak[space], dip_space_name(space), largest ? largest->name : "(none)",
                    largest ? largest->n_bytes : 0);
}

dip_status dip_plan_allocate(dip_plan *plan)
{
    assert(!plan->allocated);
    if (plan->out_of_memory) return dip_fail(DIP_NOMEM, "no memory to plan the memory of a run");
    if (plan->too_large >= 0) {
        const region *r = &plan->regions[plan->too_large];
        return dip_fail(DIP_NOMEM,
                        "%s asks for %zu bytes after %zu of %s: more than any machine has", r->name,
                        r->n_bytes, r->offset, dip_space_name(r->space));
    }
    for (int space = 0; space < DIP_N_SPACES; space++) {
        size_t n_bytes = plan->peak[space];
        if (n_bytes == 0) continue;
        plan->memory[space] = plan->source.allocate(plan->source.context, n_bytes);
        if (!plan->memory[space]) return fail_space(plan, (dip_space)space);
        if (plan->source.is_host) {
            memset(plan->memory[space], 0, n_bytes);
            POISON(plan->memory[space], n_bytes);
        }
    }
    /* Open the regions last: in scratch one region's gap may lie inside another. */
    if (plan->source.is_host)
        for (size_t i = 0; i < plan->n_regions; i++) {
            const region *r = &plan->regions[i];
            UNPOISON(plan->memory[r->space] + r->offset, r->n_bytes);
        }
    plan->allocated = true;
    return DIP_OK;
}

void *dip_plan_ptr(const dip_plan *plan, dip_region handle)
{
    assert(plan->allocated && handle >= -1 && handle < (dip_region)plan->n_regions);
    if (handle < 0) return NULL;
    const region *r = &plan->regions[handle];
    return plan->memory[r->space] + r->offset;
}

size_t dip_plan_bytes(const dip_plan *plan, dip_space space)
{
    return plan->peak[space];
}

size_t dip_plan_total_bytes(const dip_plan *plan)
{
    size_t total = 0;
    for (int space = 0; space < DIP_N_SPACES; space++) total += plan->peak[space];
    return total;
}

static int larger_first(const void *a, const void *b)
{
    const region *x = *(const region *const *)a, *y = *(const region *const *)b;
    if (x->space != y->space) return x->space < y->space ? -1 : 1;
    if (x->n_bytes != y->n_bytes) return x->n_bytes > y->n_bytes ? -1 : 1;
    return x < y ? -1 : x > y; /* as booked */
}

static const char *human(char *out, size_t capacity, size_t n_bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)n_bytes;
    size_t unit = 0;
    for (; value >= 1024 && unit + 1 < sizeof units / sizeof units[0]; unit++) value /= 1024;
    snprintf(out, capacity, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return out;
}

void dip_plan_print(const dip_plan *plan, FILE *out)
{
    char size[32];
    const region **sorted = malloc((plan->n_regions + 1) * sizeof *sorted);
    for (size_t i = 0; sorted && i < plan->n_regions; i++) sorted[i] = &plan->regions[i];
    if (sorted) qsort(sorted, plan->n_regions, sizeof *sorted, larger_first);
    size_t next = 0;
    for (int space = 0; space < DIP_N_SPACES; space++) {
        if (plan->peak[space] == 0) continue;
        fprintf(out, "%-40s %12s\n", dip_space_name((dip_space)space),
                human(size, sizeof size, plan->peak[space]));
        while (sorted && next < plan->n_regions && (int)sorted[next]->space == space) {
            fprintf(out, "  %-38s %12s\n", sorted[next]->name,
                    human(size, sizeof size, sorted[next]->n_bytes));
            next++;
        }
    }
    fprintf(out, "%-40s %12s\n", "total", human(size, sizeof size, dip_plan_total_bytes(plan)));
    free(sorted);
}

const char *dip_space_name(dip_space space)
{
    static const char *const names[] = {"parameters", "gradients", "optimizer state",
                                        "saved activations", "scratch"};
    return (unsigned)space < DIP_N_SPACES ? names[space] : "unknown space";
}
