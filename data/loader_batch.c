/* The consumer's side of the loader: a window of the order becomes a batch. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "data/loader_internal.h"

enum { SEEN_BEFORE_JUDGING = 100 /* samples, before max_bad_fraction is looked at */ };

/* A window on its way to a batch. */
typedef struct window {
    int64_t begin, n;            /* positions of the order, of all ranks */
    int64_t local;               /* this rank's first slot */
    int64_t n_mine;              /* slots of this rank that have a position */
    int64_t n_needs;             /* loader->needs: slots that lack a sample */
    int64_t n_bad;               /* found since the ranks agreed last */
    int64_t n_lacking, n_before; /* of all ranks, and of those before this one */
} window;

static dip_status remember_failure(dip_loader *loader, dip_status status)
{
    free(loader->failed_detail);
    loader->failed_detail = strdup(dip_error());
    loader->failed = status;
    return status;
}

static dip_status judge_bad_fraction(dip_loader *loader, bool at_end)
{
    if (!at_end && loader->n_seen < SEEN_BEFORE_JUDGING) return DIP_OK;
    double limit = loader->options.max_bad_fraction;
    if ((double)loader->n_bad <= limit * (double)loader->n_seen) return DIP_OK;
    return dip_fail(DIP_FORMAT,
                    "%" PRId64 " of %" PRId64 " samples of epoch %" PRId64
                    " could not be used; the limit is a fraction of %g (max_bad_fraction)",
                    loader->n_bad, loader->n_seen, loader->epoch, limit);
}

/* ---- bad samples --------------------------------------------------------------------------- */

/* A slot without a usable sample: into the ledger, or the end of the run. */
static dip_status pass_by(dip_loader *loader, dip_slot *slot)
{
    const char *detail = slot->detail ? slot->detail : "no memory for the reason";
    if (slot->status != DIP_FORMAT) return dip_fail(slot->status, "%s", detail);
    const dip_sample sample = dip_samples_get(loader->options.samples, slot->index);
    const dip_fault_place place = {sample.shard, sample.key, sample.offset};
    dip_faults_add_at(loader->options.faults, slot->filled.fault, &place, detail);
    pthread_mutex_lock(&loader->lock);
    loader->account.shards[sample.shard_index].dropped[slot->filled.fault]++;
    slot->done = false;
    slot->position = slot->index = -1;
    pthread_mutex_unlock(&loader->lock);
    return DIP_OK;
}

/* Tell the others how many slots lack a sample and how many samples were bad, and hear theirs. */
static dip_status agree(dip_loader *loader, window *w, dip_status mine)
{
    const dip_loader_options *o = &loader->options;
    const int64_t numbers[3] = {w->n_needs, w->n_bad, mine};
    if (o->n_ranks > 1) {
        char *sentence = mine == DIP_OK ? NULL : strdup(dip_error());
        const dip_status status = o->agree(o->agree_context, numbers, loader->agreed, 3);
        if (mine != DIP_OK && status == DIP_OK)
            dip_fail(mine, "%s", sentence ? sentence : "no memory for the reason");
        free(sentence);
        DIP_TRY(status);
    } else {
        memcpy(loader->agreed, numbers, sizeof numbers);
    }
    DIP_TRY(mine);
    w->n_lacking = w->n_before = w->n_bad = 0;
    for (int rank = 0; rank < o->n_ranks || rank < 1; rank++) {
        const int64_t *said = loader->agreed + 3 * rank;
        if (said[2] != DIP_OK)
            return dip_fail((dip_status)said[2],
                            "rank %d could not load its part of the batch; its "
                            "own message says why",
                            rank);
        if (rank < o->rank) w->n_before += said[0];
        w->n_lacking += said[0];
        loader->n_bad += said[1];
    }
    return DIP_OK;
}

/* What the workers made of this rank's part. */
static dip_status look_through(dip_loader *loader, window *w)
{
    dip_ring_wait(loader, w->local + w->n_mine, w->local + loader->options.batch_size);
    for (int64_t j = 0; j < loader->options.batch_size; j++) {
        dip_slot *slot = dip_loader_slot(loader, w->local + j);
        if (j < w->n_mine && slot->status == DIP_OK) continue;
        if (j < w->n_mine) {
            DIP_TRY(pass_by(loader, slot));
            w->n_bad++;
        }
        if (j < w->n_mine || loader->fills) loader->needs[w->n_needs++] = j;
    }
    return DIP_OK;
}

static void take_spare(dip_loader *loader, dip_slot *to, dip_slot *spare)
{
    int32_t *tokens = to->tokens;
    memcpy(to->image, spare->image, loader->image_bytes);
    to->tokens = spare->tokens;
    spare->tokens = tokens;
    to->index = spare->index;
    to->filled = spare->filled;
    to->status = DIP_OK;
    to->done = true;
}

/* Put spares, the candidates, into the first n slots that lack a sample. Those whose spare is bad
 * too, and those beyond n, go on lacking one. */
static dip_status fill_slots(dip_loader *loader, window *w, int64_t n)
{
    int64_t n_left = 0;
    for (int64_t first = 0; first < n; first += loader->n_reserve) {
        dip_slot *spares[DIP_MAX_RESERVE];
        const int count = n - first < loader->n_reserve ? (int)(n - first) : loader->n_reserve;
        dip_reserve_wait(loader, spares, loader->candidates + first, count);
        for (int i = 0; i < count; i++) {
            const int64_t j = loader->needs[first + i];
            if (spares[i]->status == DIP_OK) {
                take_spare(loader, dip_loader_slot(loader, w->local + j), spares[i]);
            } else {
                DIP_TRY(pass_by(loader, spares[i]));
                loader->needs[n_left++] = j;
                w->n_bad++;
            }
            dip_reserve_free(loader, spares[i]);
        }
    }
    memmove(loader->needs + n_left, loader->needs + n, (size_t)(w->n_needs - n) * sizeof(int64_t));
    w->n_needs += n_left - n;
    return DIP_OK;
}

/* Spares for the slots of all ranks that lack a sample, in their order, until none does or no spare
 * is left: which one a slot gets does not depend on the number of ranks. */
static dip_status fill_up(dip_loader *loader, window *w)
{
    for (;;) {
        int64_t n_given = 0, n_mine = 0;
        for (; n_given < w->n_lacking; n_given++) {
            const int64_t position = dip_order_spare(loader->order);
            if (position < 0) break;
            if (n_given < w->n_before || n_mine == w->n_needs) continue;
            loader->candidates[n_mine++] = position;
        }
        if (n_given == 0) return DIP_OK;
        loader->n_seen += n_given;
        DIP_TRY(agree(loader, w, fill_slots(loader, w, n_mine)));
    }
}

/* ---- the batch --------------------------------------------------------------------------- */

/* The window is done with: its samples were trained on, or dropped for want of others. */
static void settle(dip_loader *loader, const window *w, bool trained)
{
    const int64_t end = w->local + loader->options.batch_size;
    pthread_mutex_lock(&loader->lock);
    for (int64_t p = w->local; p < end; p++) {
        dip_slot *slot = dip_loader_slot(loader, p);
        if (slot->index < 0) continue;
        dip_account_row *row = dip_loader_row(loader, slot->index);
        slot->done = false;
        if (trained)
            row->trained++;
        else
            row->dropped[DIP_DROP_UNFINISHED]++;
    }
    loader->given = end;
    pthread_mutex_unlock(&loader->lock);
}

/* Gather all but the images, which stay where they are; only gaps are closed. Returns the number of
 * samples. */
static int64_t gather(dip_loader *loader, const window *w)
{
    uint8_t *to = dip_loader_slot(loader, w->local)->image;
    int64_t n = 0;
    for (int64_t j = 0; j < loader->options.batch_size; j++) {
        const dip_slot *slot = dip_loader_slot(loader, w->local + j);
        if (slot->index < 0) continue;
        if (n < j) memcpy(to + (size_t)n * loader->image_bytes, slot->image, loader->image_bytes);
        loader->index[n] = slot->index;
        loader->labels[n] = dip_samples_get(loader->options.samples, slot->index).label;
        if (loader->mixed_with) {
            loader->mixed_with[n] = slot->filled.mixed_with;
            loader->mix_share[n] = slot->filled.mix_share;
        }
        memcpy(loader->tokens + loader->offsets[n], slot->tokens,
               (size_t)slot->filled.n_tokens * sizeof(int32_t));
        loader->offsets[n + 1] = loader->offsets[n] + slot->filled.n_tokens;
        n++;
    }
    return n;
}

/* Number the distinct token sequences of the batch by their first sample. */
static void number_groups(dip_loader *loader, int64_t n)
{
    if (!loader->options.encode) {
        for (int64_t i = 0; i < n; i++) loader->group[i] = (int32_t)i;
        return;
    }
    memset(loader->table, 0xff, loader->n_table * sizeof *loader->table); /* -1: free */
    for (int64_t i = 0; i < n; i++) {
        const int32_t *ids = loader->tokens + loader->offsets[i];
        size_t n_ids = (size_t)(loader->offsets[i + 1] - loader->offsets[i]);
        uint64_t hash = 0xcbf29ce484222325u;
        for (size_t k = 0; k < n_ids; k++) hash = (hash ^ (uint32_t)ids[k]) * 0x9e3779b97f4a7c15u;
        size_t at = (size_t)(hash >> 20) & (loader->n_table - 1);
        for (;; at = (at + 1) & (loader->n_table - 1)) {
            int32_t other = loader->table[at];
            if (other < 0) {
                loader->table[at] = loader->group[i] = (int32_t)i;
                break;
            }
            const int32_t *other_ids = loader->tokens + loader->offsets[other];
            size_t n_other = (size_t)(loader->offsets[other + 1] - loader->offsets[other]);
            if (n_other == n_ids && memcmp(ids, other_ids, n_ids * sizeof *ids) == 0) {
                loader->group[i] = other;
                break;
            }
        }
    }
}

static void hand_out(dip_loader *loader, const window *w, dip_batch *batch)
{
    const int64_t n = gather(loader, w);
    number_groups(loader, n);
    loader->position = w->begin + w->n;
    loader->n_spares = dip_order_n_spares(loader->order);
    loader->n_bad_behind = loader->n_bad;
    *batch = (dip_batch){.n = n,
                         .n_views = loader->n_views,
                         .images = dip_loader_slot(loader, w->local)->image,
                         .tokens = loader->tokens,
                         .offsets = loader->offsets,
                         .group = loader->group,
                         .index = loader->index,
                         .labels = loader->labels,
                         .mixed_with = loader->mixed_with,
                         .mix_share = loader->mix_share};
}

/* The next window as a batch. *n_good: samples of it, of all ranks; only a window that has some is
 * handed out. DIP_END: none is left, or it cannot be filled. */
static dip_status take_window(dip_loader *loader, dip_batch *batch, int64_t *n_good)
{
    const dip_loader_options *o = &loader->options;
    window w = {.local = loader->given};
    w.begin = loader->start + w.local / o->batch_size * loader->global_batch;
    w.n = dip_order_window(loader->order, w.begin, loader->n_spares);
    w.n_mine = w.n - o->rank * o->batch_size;
    if (w.n_mine < 0) w.n_mine = 0;
    if (w.n_mine > o->batch_size) w.n_mine = o->batch_size;
    if (w.n == 0) return DIP_END;
    loader->n_seen += w.n;
    DIP_TRY(agree(loader, &w, look_through(loader, &w)));
    if (loader->fills) DIP_TRY(fill_up(loader, &w));
    *n_good = loader->fills ? loader->global_batch - w.n_lacking : w.n - w.n_lacking;
    const int64_t used = w.begin + w.n + dip_order_n_spares(loader->order);
    DIP_TRY(judge_bad_fraction(loader, used == dip_order_length(loader->order)));
    const bool is_batch = !loader->fills || w.n_lacking == 0;
    settle(loader, &w, is_batch);
    if (!is_batch) return DIP_END;
    if (*n_good > 0) hand_out(loader, &w, batch);
    if (loader->fills) dip_reserve_look_ahead(loader);
    return DIP_OK;
}

dip_status dip_loader_next(dip_loader *loader, dip_batch *batch)
{
    if (loader->failed != DIP_OK)
        return dip_fail(loader->failed, "%s", loader->failed_detail ? loader->failed_detail : "");
    if (loader->ended) return DIP_END;
    int64_t n_good = 0;
    dip_status status = DIP_OK;
    while (status == DIP_OK && n_good == 0) {
        dip_ring_release(loader, loader->given);
        status = take_window(loader, batch, &n_good);
    }
    if (status == DIP_END) {
        dip_workers_halt(loader);
        loader->ended = true;
    } else if (status != DIP_OK) {
        remember_failure(loader, status);
    }
    return status;
}
