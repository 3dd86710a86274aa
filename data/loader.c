/* Opening, starting and closing a loader. */
#include "data/loader.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "data/loader_internal.h"

enum { MAX_WORKERS = 4096, MAX_RANKS = 1 << 16 };

static int n_ranks_of(const dip_loader_options *o)
{
    return o->n_ranks ? o->n_ranks : 1;
}

static dip_status check(const dip_loader_options *o)
{
    const int n_ranks = n_ranks_of(o);
    if (o->batch_size < 1 || o->image_size < 1 || o->n_workers < 1 || o->n_workers > MAX_WORKERS ||
        o->n_prefetch < 2 || (o->encode && o->context_length < 1))
        return dip_fail(DIP_CONFIG,
                        "loader: batch size %" PRId64
                        ", image size %d and context length %d must be "
                        "at least 1, batches held (%d) 2, and workers 1 to %d (here %d)",
                        o->batch_size, o->image_size, o->context_length, o->n_prefetch, MAX_WORKERS,
                        o->n_workers);
    if (o->image_size > 16384 || o->batch_size > INT32_MAX / o->n_prefetch / 4 ||
        (o->encode && o->batch_size > INT32_MAX / o->context_length))
        return dip_fail(DIP_CONFIG,
                        "loader: a batch of %" PRId64 " at %d pixels and %d tokens, %d held, "
                        "is too large",
                        o->batch_size, o->image_size, o->context_length, o->n_prefetch);
    if (n_ranks < 1 || n_ranks > MAX_RANKS || o->rank < 0 || o->rank >= n_ranks ||
        (n_ranks > 1 && !o->agree))
        return dip_fail(DIP_CONFIG,
                        "loader: rank %d must be one of %d (at most %d), and several need a way to "
                        "agree",
                        o->rank, n_ranks, MAX_RANKS);
    if (dip_samples_count(o->samples) > UINT32_MAX)
        return dip_fail(DIP_UNSUPPORTED, "loader: %" PRId64 " samples, at most %" PRIu32,
                        dip_samples_count(o->samples), UINT32_MAX);
    return o->augmentation ? dip_augmentation_check_size(o->augmentation, o->image_size) : DIP_OK;
}

dip_order_options dip_loader_order(const dip_loader_options *o)
{
    return (dip_order_options){.n_samples = dip_samples_count(o->samples),
                               .sources = o->sources,
                               .n_sources = o->n_sources,
                               .batch = o->batch_size * n_ranks_of(o),
                               .epoch_samples = o->epoch_samples,
                               .shuffle = o->shuffle,
                               .resample = o->resample,
                               .wrap = o->last_batch == DIP_LAST_WRAP,
                               .seed = o->seed};
}

/* What a batch shows of images and groups may be read beside the host: whoever does gives memory
 * for that. */
static void *take(const dip_loader *loader, size_t n_bytes)
{
    const dip_memory_source *memory = loader->options.memory;
    return memory ? memory->allocate(memory->context, n_bytes) : malloc(n_bytes);
}

static void give_back(const dip_loader *loader, void *pointer)
{
    const dip_memory_source *memory = loader->options.memory;
    if (!memory)
        free(pointer);
    else if (pointer)
        memory->release(memory->context, pointer);
}

static dip_status take_batch(dip_loader *loader, size_t batch, size_t context)
{
    const dip_augmentation *augmentation = loader->options.augmentation;
    loader->n_table = 4;
    while (loader->n_table < 2 * batch) loader->n_table *= 2;
    loader->tokens = malloc(batch * context * sizeof(int32_t) + 1);
    loader->offsets = calloc(batch + 1, sizeof(int32_t));
    loader->group = take(loader, batch * sizeof(int32_t));
    loader->table = malloc(loader->n_table * sizeof(int32_t));
    loader->index = malloc(batch * sizeof(int64_t));
    loader->labels = malloc(batch * sizeof(int64_t));
    loader->needs = malloc(batch * sizeof(int64_t));
    loader->candidates = malloc(batch * sizeof(int64_t));
    loader->agreed = malloc((size_t)n_ranks_of(&loader->options) * 3 * sizeof(int64_t));
    bool all = loader->tokens && loader->offsets && loader->group && loader->table &&
               loader->index && loader->labels && loader->needs && loader->candidates &&
               loader->agreed;
    if (all && augmentation && dip_augmentation_mixes(augmentation)) {
        loader->mixed_with = malloc(batch * sizeof(int64_t));
        loader->mix_share = malloc(batch * sizeof(float));
        all = loader->mixed_with && loader->mix_share;
    }
    return all ? DIP_OK : dip_fail(DIP_NOMEM, "loader: no memory for a batch of %zu", batch);
}

static dip_status take_slots(dip_loader *loader, size_t context)
{
    const dip_loader_options *o = &loader->options;
    const size_t n_slots = (size_t)loader->n_slots, n_reserve = (size_t)loader->n_reserve;
    if (loader->image_bytes > SIZE_MAX / (n_slots + n_reserve))
        return dip_fail(DIP_NOMEM, "loader: %zu images of %zu bytes", n_slots, loader->image_bytes);
    loader->slots = calloc(n_slots + n_reserve, sizeof *loader->slots);
    loader->images = take(loader, n_slots * loader->image_bytes);
    loader->spares = malloc(n_reserve * loader->image_bytes + 1);
    loader->slot_tokens = malloc((n_slots + n_reserve) * context * sizeof(int32_t) + 1);
    loader->workers = calloc((size_t)o->n_workers, sizeof *loader->workers);
    if (!loader->slots || !loader->images || !loader->spares || !loader->slot_tokens ||
        !loader->workers)
        return dip_fail(DIP_NOMEM, "loader: no memory for %zu images of %zu bytes", n_slots,
                        loader->image_bytes);
    loader->reserve = loader->slots + n_slots;
    for (size_t i = 0; i < n_slots + n_reserve; i++) {
        dip_slot *slot = &loader->slots[i];
        slot->position = slot->index = -1;
        slot->tokens = loader->slot_tokens + i * context;
        slot->image = i < n_slots ? loader->images + i * loader->image_bytes
                                  : loader->spares + (i - n_slots) * loader->image_bytes;
    }
    return DIP_OK;
}

/* Everything but the locks; what a failure leaves is closed by dip_loader_close. */
static dip_status prepare(dip_loader *loader)
{
    const dip_loader_options *o = &loader->options;
    const size_t context = o->encode ? (size_t)o->context_length : 0;
    const dip_order_options order = dip_loader_order(o);
    loader->global_batch = order.batch;
    loader->n_views = o->augmentation ? dip_augmentation_views(o->augmentation) : 1;
    loader->image_bytes =
        (size_t)loader->n_views * (size_t)o->image_size * (size_t)o->image_size * 3;
    loader->fills = o->last_batch != DIP_LAST_KEEP;
    loader->n_slots = o->batch_size * ((int64_t)o->n_prefetch - 1);
    if (loader->fills) { /* never more than the one batch that the slots leave */
        const int64_t share = o->batch_size < 5 ? o->batch_size : 4 + o->batch_size / 32;
        loader->n_reserve = share < DIP_MAX_RESERVE ? (int)share : DIP_MAX_RESERVE;
    }
    loader->ended = true;
    DIP_TRY(dip_order_open(&loader->order, &order));
    loader->options.sources = NULL; /* the order has a copy */
    DIP_TRY(dip_account_open(&loader->account, dip_samples_n_shards(o->samples)));
    DIP_TRY(take_slots(loader, context));
    DIP_TRY(take_batch(loader, (size_t)o->batch_size, context));
    return dip_workers_start(loader);
}

dip_status dip_loader_open(dip_loader **out, const dip_loader_options *options)
{
    *out = NULL;
    DIP_TRY(check(options));
    dip_loader *loader = calloc(1, sizeof *loader);
    if (!loader) return dip_fail(DIP_NOMEM, "loader: no memory");
    loader->options = *options;
    pthread_mutex_init(&loader->lock, NULL);
    pthread_cond_init(&loader->may_claim, NULL);
    pthread_cond_init(&loader->may_consume, NULL);
    pthread_cond_init(&loader->may_start, NULL);
    dip_status status = prepare(loader);
    if (status == DIP_OK)
        *out = loader;
    else
        dip_loader_close(loader);
    return status;
}

void dip_loader_close(dip_loader *loader)
{
    if (!loader) return;
    dip_workers_stop(loader);
    pthread_mutex_destroy(&loader->lock);
    pthread_cond_destroy(&loader->may_claim);
    pthread_cond_destroy(&loader->may_consume);
    pthread_cond_destroy(&loader->may_start);
    for (int64_t i = 0; loader->slots && i < loader->n_slots + loader->n_reserve; i++)
        free(loader->slots[i].detail);
    dip_order_close(loader->order);
    dip_account_close(&loader->account);
    free(loader->slots);
    give_back(loader, loader->images);
    free(loader->spares);
    free(loader->slot_tokens);
    free(loader->workers);
    free(loader->failed_detail);
    free(loader->tokens);
    free(loader->offsets);
    give_back(loader, loader->group);
    free(loader->table);
    free(loader->index);
    free(loader->labels);
    free(loader->mixed_with);
    free(loader->mix_share);
    free(loader->needs);
    free(loader->candidates);
    free(loader->agreed);
    free(loader);
}

dip_status dip_loader_start(dip_loader *loader, int64_t epoch, int64_t position, int64_t n_spares)
{
    const int64_t length = dip_order_length(loader->order);
    if (epoch < 0 || position < 0 || n_spares < 0 || position > length - n_spares)
        return dip_fail(DIP_CONFIG,
                        "loader: cannot start at epoch %" PRId64 ", position %" PRId64
                        " with %" PRId64 " spares used of %" PRId64,
                        epoch, position, n_spares, length);
    dip_workers_halt(loader);
    /* Nobody else looks at these while no epoch runs, and none is on if there is no order. */
    loader->ended = true;
    loader->failed = DIP_OK;
    DIP_TRY(dip_order_make(loader->order, epoch));
    loader->epoch = epoch;
    loader->start = loader->position = position;
    loader->n_spares = n_spares;
    /* What came before was judged when it was read, but the few that are left of an epoch must not
     * be held to a share of themselves alone. */
    dip_loader_resume_bad(loader, n_spares);
    loader->ended = false;
    dip_workers_run(loader);
    return DIP_OK;
}

void dip_loader_resume_bad(dip_loader *loader, int64_t n_bad)
{
    /* A spare was looked at for each of them; evaluation has none. */
    loader->n_seen = loader->position + (loader->fills ? n_bad : 0);
    loader->n_bad = loader->n_bad_behind = n_bad;
}

int64_t dip_loader_position(const dip_loader *loader)
{
    return loader->position;
}

int64_t dip_loader_n_spares(const dip_loader *loader)
{
    return loader->n_spares;
}

int64_t dip_loader_n_bad(const dip_loader *loader)
{
    return loader->n_bad_behind;
}

int64_t dip_loader_batches_per_epoch(const dip_loader *loader)
{
    return dip_order_batches(loader->order, !loader->fills);
}

int64_t dip_loader_batches_left(const dip_loader *loader)
{
    const int64_t left = dip_order_length(loader->order) - loader->n_spares - loader->position;
    const int64_t up = loader->options.last_batch == DIP_LAST_DROP ? 0 : loader->global_batch - 1;
    return loader->ended ? 0 : (left + up) / loader->global_batch;
}

void dip_loader_account(dip_loader *loader, dip_account *account)
{
    pthread_mutex_lock(&loader->lock);
    memcpy(account->shards, loader->account.shards,
           (size_t)loader->account.n_shards * sizeof *account->shards);
    for (int64_t i = 0; i < loader->n_slots + loader->n_reserve; i++) {
        const dip_slot *slot = &loader->slots[i];
        if (!slot->done) continue;
        account->shards[dip_samples_get(loader->options.samples, slot->index).shard_index]
            .buffered++;
    }
    pthread_mutex_unlock(&loader->lock);
    dip_account_add_up(account);
}

void dip_loader_resume_account(dip_loader *loader, const dip_account *account)
{
    pthread_mutex_lock(&loader->lock);
    for (int64_t s = 0; s < loader->account.n_shards; s++) {
        dip_account_row row = account->shards[s];
        row.buffered = 0;
        row.read = row.trained + dip_account_dropped(&row);
        loader->account.shards[s] = row;
    }
    pthread_mutex_unlock(&loader->lock);
}
