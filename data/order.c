#include "data/order.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "data/order_pass.h"

/* Stream of an epoch that is drawn with replacement; data/order_pass.c has those below. */
static const uint64_t DRAWS = UINT64_C(2) << 32;

enum {
    MAX_DRAWS = 1000, /* a slot, before giving up on one that the batch has not */
    MAX_FACTOR = 1000
};

struct dip_order {
    dip_order_options options;
    dip_order_source *sources;
    dip_pass_plan plan;      /* without replacement */
    int64_t length, n_extra; /* positions of an epoch; behind them: what `wrap` may add */
    uint32_t *items;         /* [length + n_extra] */
    uint32_t *repeat;        /* the same; NULL: no sample comes twice */
    /* With `repeat`. While an epoch is made: a pass behind the last batch before it, or counts;
     * then: number of the window that has a sample, [n_samples]. */
    uint32_t *scratch;
    /* the window */
    int64_t begin, end, n_spares, n_extra_used;
    bool listed; /* is what it has noted in scratch? */
    uint32_t number;
};

/* ---- opening: what can be laid out at all ------------------------------------------------ */

static dip_status check_sources(const dip_order_options *o)
{
    for (int s = 0; s < o->n_sources; s++) {
        const dip_order_source *source = &o->sources[s];
        if (!(source->factor > 0 && source->factor <= MAX_FACTOR))
            return dip_fail(DIP_CONFIG,
                            "the factor of source %d is %g; it must be above 0 and at most %d",
                            s + 1, source->factor, MAX_FACTOR);
        if (source->n < 1) return dip_fail(DIP_CONFIG, "source %d has no samples", s + 1);
        if (source->first < 0 || source->n > o->n_samples ||
            source->first > o->n_samples - source->n)
            return dip_fail(DIP_CONFIG,
                            "source %d, %" PRId64 " samples from %" PRId64
                            " on, goes beyond the %" PRId64 " there are",
                            s + 1, source->n, source->first, o->n_samples);
    }
    return DIP_OK;
}

static dip_status round_epoch(dip_order *order)
{
    const dip_order_options *o = &order->options;
    const int64_t up = o->wrap ? o->batch - 1 : 0;
    const int64_t most = (int64_t)1 << 48;
    if (o->epoch_samples > most || o->batch > most)
        return dip_fail(DIP_CONFIG,
                        "an epoch of %" PRId64 " samples in batches of %" PRId64
                        " is too long: neither may be above %" PRId64,
                        o->epoch_samples, o->batch, most);
    order->length = (o->epoch_samples + up) / o->batch * o->batch;
    if (order->length > 0) return DIP_OK;
    return dip_fail(DIP_CONFIG,
                    "an epoch of %" PRId64 " samples is less than one batch of %" PRId64,
                    o->epoch_samples, o->batch);
}

static dip_status plan_draws(dip_order *order)
{
    const dip_order_options *o = &order->options;
    int64_t n = 0;
    for (int s = 0; s < o->n_sources; s++) n += o->sources[s].n;
    if (o->epoch_samples == 0)
        return dip_fail(DIP_CONFIG,
                        "sampling with replacement has no end: the number of samples of "
                        "an epoch must be given");
    if (o->batch > n / 2)
        return dip_fail(DIP_CONFIG,
                        "a batch of %" PRId64 " cannot be drawn from %" PRId64
                        " samples: at most half of them fit, as no batch has one twice",
                        o->batch, n);
    order->n_extra = o->wrap ? 2 * o->batch : 0;
    return round_epoch(order);
}

static dip_status plan_passes(dip_order *order)
{
    const dip_order_options *o = &order->options;
    const dip_pass_plan *plan = &order->plan;
    DIP_TRY(dip_pass_open(&order->plan, o));
    if (plan->n == 0) return dip_fail(DIP_CONFIG, "the factors leave a pass without samples");
    /* Where parts meet in a batch, each must have enough that the other has not. */
    const bool meet = plan->n_parts > 1 || o->epoch_samples || o->wrap;
    const int64_t most = plan->n_parts > 1 ? plan->n / plan->n_parts / 2 : plan->n;
    if (meet && o->batch > most)
        return dip_fail(DIP_CONFIG,
                        "a batch of %" PRId64
                        " is too large: no batch may have a sample twice, and "
                        "of a pass of %" PRId64 " samples, each of them there up to %d times, at "
                        "most %" PRId64 " are sure to differ",
                        o->batch, plan->n, plan->n_parts, most);
    order->length = plan->n;
    order->n_extra = o->wrap ? 2 * o->batch : 0;
    if (o->epoch_samples) return round_epoch(order);
    if (order->n_extra > plan->n) order->n_extra = plan->n;
    return DIP_OK;
}

static dip_status take_memory(dip_order *order)
{
    const dip_order_options *o = &order->options;
    const int64_t n = order->length + order->n_extra;
    const bool repeats =
        o->shuffle && (o->resample || o->epoch_samples || o->wrap || order->plan.n_parts > 1);
    int64_t n_scratch = o->resample ? 0 : o->batch + order->plan.n;
    if (n_scratch < o->n_samples) n_scratch = o->n_samples;
    order->items = malloc((size_t)n * sizeof *order->items + 1);
    if (repeats) {
        order->repeat = malloc((size_t)n * sizeof *order->repeat);
        order->scratch = calloc((size_t)n_scratch, sizeof *order->scratch);
    }
    if (!order->items || (repeats && (!order->repeat || !order->scratch)))
        return dip_fail(DIP_NOMEM, "no memory for the order of %" PRId64 " samples", n);
    return DIP_OK;
}

dip_status dip_order_open(dip_order **out, const dip_order_options *options)
{
    *out = NULL;
    if (options->batch < 1 || options->n_samples > UINT32_MAX || options->epoch_samples < 0)
        return dip_fail(DIP_CONFIG,
                        "order: a batch of %" PRId64 " must be at least 1, %" PRId64
                        " samples at most %" PRIu32 " and an epoch of %" PRId64 " at least 0",
                        options->batch, options->n_samples, UINT32_MAX, options->epoch_samples);
    const bool all = !options->sources || !options->shuffle;
    const int n_sources = all ? 1 : options->n_sources;
    dip_order *order = calloc(1, sizeof *order);
    if (order) order->sources = calloc((size_t)n_sources, sizeof *order->sources);
    if (!order || !order->sources) {
        free(order);
        return dip_fail(DIP_NOMEM, "no memory for %d sources", n_sources);
    }
    order->options = *options;
    order->options.sources = order->sources;
    order->options.n_sources = n_sources;
    if (all)
        order->sources[0] = (dip_order_source){0, options->n_samples, 1};
    else
        memcpy(order->sources, options->sources, (size_t)n_sources * sizeof *order->sources);
    const bool plain = !options->shuffle || options->n_samples == 0;
    dip_status status = plain ? DIP_OK : check_sources(&order->options);
    if (plain)
        order->length = options->n_samples;
    else if (status == DIP_OK)
        status = options->resample ? plan_draws(order) : plan_passes(order);
    if (status == DIP_OK) status = take_memory(order);
    if (status == DIP_OK)
        *out = order;
    else
        dip_order_close(order);
    return status;
}

void dip_order_close(dip_order *order)
{
    if (!order) return;
    dip_pass_close(&order->plan);
    free(order->sources);
    free(order->items);
    free(order->repeat);
    free(order->scratch);
    free(order);
}

int64_t dip_order_length(const dip_order *order)
{
    return order->length;
}

int64_t dip_order_batches(const dip_order *order, bool partial)
{
    const int64_t batch = order->options.batch;
    return (order->length + (partial || order->options.wrap ? batch - 1 : 0)) / batch;
}

/* ---- an epoch --------------------------------------------------------------------------- */

/* The epoch is a pass, and the next one may lend its beginning. */
static dip_status make_pass(dip_order *order, int64_t epoch)
{
    DIP_TRY(dip_pass_make(&order->plan, order->items, epoch, 0, false));
    if (order->n_extra == 0) return DIP_OK;
    DIP_TRY(dip_pass_make(&order->plan, order->scratch, epoch + 1, 0, false));
    memcpy(order->items + order->length, order->scratch,
           (size_t)order->n_extra * sizeof *order->items);
    return DIP_OK;
}

/* The last batch of a pass goes in front of the next one. */
static void move_end(dip_order *order)
{
    const size_t batch = (size_t)order->options.batch;
    memmove(order->scratch, order->scratch + order->plan.n, batch * sizeof *order->scratch);
}

/* The epoch is the next part of all passes in a row. What a pass begins with depends on how the one
 * before ends, but not on more than that as long as its last part is so long that its own beginning
 * is not in its end: from there on it is the same wherever one begins. */
static dip_status make_stretch(dip_order *order, int64_t epoch)
{
    dip_pass_plan *plan = &order->plan;
    const int64_t batch = order->options.batch, n = plan->n;
    const int64_t begin = epoch * order->length, end = begin + order->length + order->n_extra;
    uint32_t *items = order->scratch + batch;
    int64_t pass = begin / n;
    for (; pass > 0; pass--) {
        DIP_TRY(dip_pass_make(plan, items, pass - 1, (pass - 1) * n, false));
        if (plan->parts[plan->n_parts - 1] < 2 * batch) continue;
        move_end(order);
        break;
    }
    for (; pass * n < end; pass++) {
        const int64_t from = begin > pass * n ? begin - pass * n : 0;
        const int64_t to = end < (pass + 1) * n ? end - pass * n : n;
        DIP_TRY(dip_pass_make(plan, items, pass, pass * n, pass > 0));
        if (from < to)
            memcpy(order->items + pass * n + from - begin, items + from,
                   (size_t)(to - from) * sizeof *items);
        move_end(order);
    }
    return DIP_OK;
}

/* Note in scratch that a window has the sample. false: it had it. */
static bool note(dip_order *order, uint32_t window, uint32_t sample)
{
    const bool is_new = order->scratch[sample] != window;
    order->scratch[sample] = window;
    return is_new;
}

static void forget_windows(dip_order *order)
{
    memset(order->scratch, 0, (size_t)order->options.n_samples * sizeof *order->scratch);
    order->number = 0;
}

static uint32_t draw(const dip_order *order, dip_rng *rng, double total)
{
    const dip_order_options *o = &order->options;
    double at = dip_rng_uniform(rng) * total;
    int s = 0;
    while (s + 1 < o->n_sources && at >= o->sources[s].factor * (double)o->sources[s].n) {
        at -= o->sources[s].factor * (double)o->sources[s].n;
        s++;
    }
    return (uint32_t)(o->sources[s].first + (int64_t)dip_rng_below(rng, (uint64_t)o->sources[s].n));
}

static dip_status make_draws(dip_order *order, int64_t epoch)
{
    const dip_order_options *o = &order->options;
    const int64_t n = order->length + order->n_extra;
    double total = 0;
    dip_rng rng;
    dip_rng_init(&rng, o->seed, dip_rng_stream(DIP_RNG_ORDER, (uint64_t)epoch, DRAWS));
    for (int s = 0; s < o->n_sources; s++) total += o->sources[s].factor * (double)o->sources[s].n;
    forget_windows(order);
    for (int64_t i = 0; i < n; i++) {
        int n_draws = 0;
        do {
            if (n_draws++ == MAX_DRAWS)
                return dip_fail(DIP_CONFIG,
                                "no batch of %" PRId64 " different samples could be drawn: too few "
                                "samples have nearly all the weight",
                                o->batch);
            order->items[i] = draw(order, &rng, total);
        } while (!note(order, (uint32_t)(i / o->batch) + 1, order->items[i]));
    }
    return DIP_OK;
}

static void count_repeats(dip_order *order)
{
    const int64_t n = order->length + order->n_extra;
    forget_windows(order);
    for (int64_t i = 0; i < n; i++) order->repeat[i] = order->scratch[order->items[i]]++;
    forget_windows(order);
}

dip_status dip_order_make(dip_order *order, int64_t epoch)
{
    const dip_order_options *o = &order->options;
    order->listed = false;
    if (!o->shuffle || order->length == 0) {
        for (int64_t i = 0; i < order->length; i++) order->items[i] = (uint32_t)i;
        return DIP_OK;
    }
    if (o->resample)
        DIP_TRY(make_draws(order, epoch));
    else if (o->epoch_samples)
        DIP_TRY(make_stretch(order, epoch));
    else
        DIP_TRY(make_pass(order, epoch));
    if (order->repeat) count_repeats(order);
    return DIP_OK;
}

int64_t dip_order_sample(const dip_order *order, int64_t position)
{
    return order->items[position];
}

int64_t dip_order_repeat(const dip_order *order, int64_t position)
{
    return order->repeat ? order->repeat[position] : 0;
}

/* ---- batches and spares ------------------------------------------------------------------ */

int64_t dip_order_window(dip_order *order, int64_t begin, int64_t n_spares)
{
    const int64_t left = order->length - n_spares - begin;
    const int64_t n = left > order->options.batch ? order->options.batch : left > 0 ? left : 0;
    order->begin = begin;
    order->end = begin + n;
    order->n_spares = n_spares;
    order->n_extra_used = 0;
    order->listed = false;
    return n;
}

static void list_window(dip_order *order)
{
    order->number++;
    for (int64_t i = order->begin; i < order->end; i++) note(order, order->number, order->items[i]);
    order->listed = true;
}

int64_t dip_order_spare(dip_order *order)
{
    if (order->repeat && !order->listed) list_window(order);
    for (;;) {
        int64_t position;
        if (order->length - order->n_spares > order->end)
            position = order->length - ++order->n_spares;
        else if (order->n_extra_used < order->n_extra)
            position = order->length + order->n_extra_used++;
        else
            return -1;
        if (!order->repeat || note(order, order->number, order->items[position])) return position;
    }
}

int64_t dip_order_n_spares(const dip_order *order)
{
    return order->n_spares;
}

int64_t dip_order_spare_ahead(const dip_order *order, int64_t i)
{
    const int64_t position = order->length - order->n_spares - 1 - i;
    return position >= order->end ? position : -1;
}
