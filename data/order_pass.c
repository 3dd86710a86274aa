#include "data/order_pass.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"

static const uint32_t EMPTY = UINT32_MAX;

/* Streams of a pass: its parts' shuffles are items 0, 1, ...; the copies of a source's samples: */
static const uint64_t COPIES = UINT64_C(1) << 32;

/* How often every sample of the source is in a pass, and how many are there once more. */
static int64_t whole_copies(const dip_order_source *source, int64_t *n_more)
{
    const double whole = floor(source->factor);
    *n_more = llround((source->factor - whole) * (double)source->n);
    return (int64_t)whole;
}

dip_status dip_pass_open(dip_pass_plan *plan, const dip_order_options *options)
{
    *plan = (dip_pass_plan){.options = options, .n_parts = 1};
    for (int s = 0; s < options->n_sources; s++) {
        const dip_order_source *source = &options->sources[s];
        int64_t n_more;
        const int64_t copies = whole_copies(source, &n_more);
        plan->n += copies * source->n + n_more;
        const int n_parts = (int)copies + (n_more > 0);
        if (n_parts > plan->n_parts) plan->n_parts = n_parts;
    }
    /* Batches of more than a pass share nothing: they are refused or never full. */
    const int64_t n_held = options->batch < plan->n ? options->batch : plan->n;
    for (plan->n_slots = 4; plan->n_slots < 2 * n_held;) plan->n_slots *= 2;
    plan->parts = calloc((size_t)plan->n_parts, sizeof *plan->parts);
    plan->held = malloc((size_t)plan->n_slots * sizeof *plan->held);
    if (!plan->parts || !plan->held)
        return dip_fail(DIP_NOMEM, "no memory for %d parts of a pass", plan->n_parts);
    return DIP_OK;
}

void dip_pass_close(dip_pass_plan *plan)
{
    free(plan->parts);
    free(plan->held);
    *plan = (dip_pass_plan){0};
}

/* Of `left` things one is looked at: is it among the `wanted` ones that are drawn from them? */
static bool is_drawn(dip_rng *rng, int64_t wanted, int64_t left)
{
    return wanted == left || (wanted > 0 && (int64_t)dip_rng_below(rng, (uint64_t)left) < wanted);
}

/* Put every copy of every sample into a part drawn at random, at `next` of it (counting it up);
 * with items NULL only count. The same numbers are drawn in both cases. */
static void deal_copies(const dip_pass_plan *plan, uint32_t *items, int64_t *next, int64_t pass)
{
    for (int s = 0; s < plan->options->n_sources; s++) {
        const dip_order_source *source = &plan->options->sources[s];
        int64_t n_more;
        const int64_t whole = whole_copies(source, &n_more);
        dip_rng rng;
        dip_rng_init(&rng, plan->options->seed,
                     dip_rng_stream(DIP_RNG_ORDER, (uint64_t)pass, COPIES + (uint64_t)s));
        for (int64_t i = 0; i < source->n; i++) {
            const bool more = is_drawn(&rng, n_more, source->n - i);
            n_more -= more;
            int64_t copies = whole + more;
            for (int part = 0; part < plan->n_parts && copies > 0; part++) {
                if (!is_drawn(&rng, copies, plan->n_parts - part)) continue;
                if (items) items[next[part]] = (uint32_t)(source->first + i);
                next[part]++;
                copies--;
            }
        }
    }
}

static dip_status fill_parts(dip_pass_plan *plan, uint32_t *items, int64_t pass)
{
    int64_t *next = calloc((size_t)plan->n_parts, sizeof *next);
    if (!next) return dip_fail(DIP_NOMEM, "no memory for %d parts of a pass", plan->n_parts);
    memset(plan->parts, 0, (size_t)plan->n_parts * sizeof *plan->parts);
    if (plan->n_parts == 1)
        plan->parts[0] = plan->n;
    else
        deal_copies(plan, NULL, plan->parts, pass);
    for (int part = 1; part < plan->n_parts; part++)
        next[part] = next[part - 1] + plan->parts[part - 1];
    deal_copies(plan, items, next, pass);
    free(next);
    return DIP_OK;
}

/* Fisher and Yates. Numbers are drawn some ahead of their use, so that memory has time to bring
 * what they point at. */
static void shuffle(uint32_t *items, int64_t n, dip_rng *rng)
{
    enum { AHEAD = 32 };
    int64_t drawn[AHEAD];
    for (int64_t i = n - 1; i > 0;) {
        const int64_t count = i < AHEAD ? i : AHEAD;
        for (int64_t k = 0; k < count; k++) {
            drawn[k] = (int64_t)dip_rng_below(rng, (uint64_t)(i - k) + 1);
            __builtin_prefetch(&items[drawn[k]], 1);
        }
        for (int64_t k = 0; k < count; k++, i--) {
            const uint32_t swap = items[i];
            items[i] = items[drawn[k]];
            items[drawn[k]] = swap;
        }
    }
}

/* Where a sample of the set is or belongs. */
static uint32_t *slot_of(const dip_pass_plan *plan, uint32_t sample)
{
    const size_t mask = (size_t)plan->n_slots - 1;
    size_t at = (size_t)((sample * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & mask;
    while (plan->held[at] != EMPTY && plan->held[at] != sample) at = (at + 1) & mask;
    return &plan->held[at];
}

static bool is_held(const dip_pass_plan *plan, uint32_t sample)
{
    return *slot_of(plan, sample) == sample;
}

/* The first n_shared items share a batch with the `before` items in front of them: what they have
 * in common changes places with later items. */
static dip_status keep_apart(dip_pass_plan *plan, uint32_t *items, int64_t n, int64_t before,
                             int64_t n_shared)
{
    if (n_shared > n) n_shared = n;
    int64_t next = n_shared;
    memset(plan->held, 0xff, (size_t)plan->n_slots * sizeof *plan->held);
    for (int64_t i = -before; i < 0; i++) *slot_of(plan, items[i]) = items[i];
    for (int64_t i = 0; i < n_shared; i++) {
        if (!is_held(plan, items[i])) continue;
        while (next < n && is_held(plan, items[next])) next++;
        if (next == n)
            return dip_fail(DIP_CONFIG,
                            "the sources and their factors leave no order in which no batch of "
                            "%lld has a sample twice; a smaller batch would do",
                            (long long)plan->options->batch);
        const uint32_t swap = items[i];
        items[i] = items[next];
        items[next++] = swap;
    }
    return DIP_OK;
}

dip_status dip_pass_make(dip_pass_plan *plan, uint32_t *items, int64_t pass, int64_t offset,
                         bool joined)
{
    const int64_t batch = plan->options->batch;
    int64_t n_done = 0;
    DIP_TRY(fill_parts(plan, items, pass));
    for (int part = 0; part < plan->n_parts; part++) {
        const int64_t n = plan->parts[part], in_batch = (offset + n_done) % batch;
        const int64_t before = joined || in_batch < n_done ? in_batch : n_done;
        dip_rng rng;
        dip_rng_init(&rng, plan->options->seed,
                     dip_rng_stream(DIP_RNG_ORDER, (uint64_t)pass, (uint64_t)part));
        shuffle(items, n, &rng);
        if (before > 0) DIP_TRY(keep_apart(plan, items, n, before, batch - in_batch));
        items += n;
        n_done += n;
    }
    return DIP_OK;
}
