/* One ring of slots, one lock. Position p of the epoch's order lives in slot (p - base) % n_slots:
 *
 *     base ... held ... scanned ... ready ... claimed ... held + n_slots
 *              |  given  |  decoded  |  at work |  free
 *              to the consumer       (with gaps)
 *
 * Workers claim positions one by one and may finish in any order; `ready` is the end of the part
 * without gaps, and only the consumer waits for it. Slots before `held` may be filled again. */
#include "data/loader.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "data/fill.h"

enum {
    SEEN_BEFORE_JUDGING = 100, /* samples, before max_bad_fraction is looked at */
    WHERE_BYTES = 1024,
    MAX_WORKERS = 4096
};

/* One decoded sample, or why there is none. Its image lies in the ring. */
typedef struct slot {
    int64_t index;
    int32_t *tokens; /* [context_length] */
    int32_t n_tokens;
    bool done;
    dip_status status;    /* DIP_OK; DIP_FORMAT: a bad sample; others stop the run */
    dip_fault_kind fault; /* of a bad sample */
    char *detail;         /* malloc'd sentence unless DIP_OK; NULL when there was no memory */
} slot;

typedef struct worker {
    dip_loader *loader;
    pthread_t thread;
    dip_filler *filler;
} worker;

struct dip_loader {
    dip_loader_options options;
    int64_t n_samples;
    size_t image_bytes;
    uint32_t *order; /* [n_samples] of this epoch */
    int64_t epoch;

    slot *slots;
    uint8_t *images;      /* [n_slots][image_bytes] */
    int32_t *slot_tokens; /* [n_slots][context_length] */
    int64_t n_slots;

    worker *workers;
    int n_workers; /* started */
    pthread_mutex_t lock;
    pthread_cond_t may_claim, may_consume, may_start;
    /* under the lock */
    bool stop;    /* threads end */
    bool running; /* an epoch is on */
    int n_busy;   /* workers that hold a claimed slot */
    int64_t base, held, ready, claimed;
    int64_t wanted; /* the consumer sleeps until ready reaches it */

    /* the consumer's own */
    int64_t scanned; /* = position of the last batch's end, once it is out */
    int64_t position;
    int64_t n_seen, n_bad;
    dip_status failed;
    char *failed_detail;
    uint8_t *gathered; /* [batch_size][image_bytes]: for batches that are not in one piece */
    int32_t *tokens, *offsets, *group, *table;
    int64_t *index, *labels;
    size_t n_table;
};

static slot *slot_at(dip_loader *loader, int64_t position)
{
    return &loader->slots[(position - loader->base) % loader->n_slots];
}

static uint8_t *image_at(const dip_loader *loader, int64_t position)
{
    return loader->images +
           (size_t)((position - loader->base) % loader->n_slots) * loader->image_bytes;
}

/* Workers. */

static void fill(worker *w, slot *s, uint8_t *image, int64_t index)
{
    s->index = index;
    s->status = dip_filler_sample(w->filler, image, s->tokens, &s->n_tokens, &s->fault,
                                  w->loader->epoch, index);
    s->detail = s->status == DIP_OK ? NULL : strdup(dip_error());
}

static void *work(void *argument)
{
    worker *w = argument;
    dip_loader *loader = w->loader;
    pthread_mutex_lock(&loader->lock);
    for (;;) {
        while (!loader->stop && (!loader->running || loader->claimed >= loader->n_samples ||
                                 loader->claimed >= loader->held + loader->n_slots))
            pthread_cond_wait(&loader->may_claim, &loader->lock);
        if (loader->stop) break;
        int64_t position = loader->claimed++;
        slot *s = slot_at(loader, position);
        uint8_t *image = image_at(loader, position);
        loader->n_busy++;
        pthread_mutex_unlock(&loader->lock);

        fill(w, s, image, loader->order[position]);

        pthread_mutex_lock(&loader->lock);
        s->done = true;
        while (loader->ready < loader->claimed && slot_at(loader, loader->ready)->done)
            loader->ready++;
        if (loader->ready >= loader->wanted) pthread_cond_signal(&loader->may_consume);
        if (--loader->n_busy == 0) pthread_cond_signal(&loader->may_start);
    }
    pthread_mutex_unlock(&loader->lock);
    return NULL;
}

/* Life cycle. */

static dip_status check(const dip_loader_options *o)
{
    if (o->batch_size < 1 || o->image_size < 1 || o->n_workers < 1 || o->n_workers > MAX_WORKERS ||
        o->n_prefetch < 1 || (o->encode && o->context_length < 1))
        return dip_fail(DIP_CONFIG,
                        "loader: batch size %" PRId64 ", image size %d, context length %d and "
                        "%d batches ahead must be at least 1, and workers 1 to %d (here %d)",
                        o->batch_size, o->image_size, o->context_length, o->n_prefetch, MAX_WORKERS,
                        o->n_workers);
    if (o->image_size > 16384 || o->batch_size > INT32_MAX / (1 + (int64_t)o->n_prefetch) / 4 ||
        (o->encode && o->batch_size > INT32_MAX / o->context_length))
        return dip_fail(DIP_CONFIG,
                        "loader: a batch of %" PRId64 " at %d pixels and %d tokens, %d batches "
                        "ahead, is too large",
                        o->batch_size, o->image_size, o->context_length, o->n_prefetch);
    if (dip_samples_count(o->samples) > UINT32_MAX)
        return dip_fail(DIP_UNSUPPORTED, "loader: %" PRId64 " samples, at most %" PRIu32,
                        dip_samples_count(o->samples), UINT32_MAX);
    return DIP_OK;
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

static dip_status take_memory(dip_loader *loader)
{
    const dip_loader_options *o = &loader->options;
    size_t batch = (size_t)o->batch_size, n_slots = (size_t)loader->n_slots;
    size_t context = o->encode ? (size_t)o->context_length : 0;
    loader->n_table = 4;
    while (loader->n_table < 2 * batch) loader->n_table *= 2;
    if (loader->image_bytes > SIZE_MAX / n_slots)
        return dip_fail(DIP_NOMEM, "loader: %zu images of %zu bytes", n_slots, loader->image_bytes);
    loader->order = malloc((size_t)loader->n_samples * sizeof *loader->order);
    loader->slots = calloc(n_slots, sizeof *loader->slots);
    loader->images = take(loader, n_slots * loader->image_bytes);
    loader->slot_tokens = malloc(n_slots * context * sizeof(int32_t) + 1);
    loader->workers = calloc((size_t)o->n_workers, sizeof *loader->workers);
    loader->gathered = take(loader, batch * loader->image_bytes);
    loader->tokens = malloc(batch * context * sizeof(int32_t) + 1);
    loader->offsets = calloc(batch + 1, sizeof(int32_t));
    loader->group = take(loader, batch * sizeof(int32_t));
    loader->table = malloc(loader->n_table * sizeof(int32_t));
    loader->index = malloc(batch * sizeof(int64_t));
    loader->labels = malloc(batch * sizeof(int64_t));
    if (!loader->order || !loader->slots || !loader->images || !loader->slot_tokens ||
        !loader->workers || !loader->gathered || !loader->tokens || !loader->offsets ||
        !loader->group || !loader->table || !loader->index || !loader->labels)
        return dip_fail(DIP_NOMEM, "loader: no memory for %zu images of %zu bytes", n_slots,
                        loader->image_bytes);
    for (size_t i = 0; i < n_slots; i++)
        loader->slots[i].tokens = loader->slot_tokens + i * context;
    return DIP_OK;
}

static dip_status start_workers(dip_loader *loader)
{
    /* Signals are the main thread's business. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    dip_status status = DIP_OK;
    for (int i = 0; i < loader->options.n_workers && status == DIP_OK; i++) {
        worker *w = &loader->workers[i];
        w->loader = loader;
        status = dip_filler_open(&w->filler, &loader->options);
        if (status != DIP_OK) break;
        int error = pthread_create(&w->thread, NULL, work, w);
        if (error)
            status = dip_fail(DIP_NOMEM, "loader: worker %d of %d cannot start: %s", i + 1,
                              loader->options.n_workers, strerror(error));
        else
            loader->n_workers++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return status;
}

dip_status dip_loader_open(dip_loader **out, const dip_loader_options *options)
{
    *out = NULL;
    DIP_TRY(check(options));
    dip_loader *loader = calloc(1, sizeof *loader);
    if (!loader) return dip_fail(DIP_NOMEM, "loader: no memory");
    loader->options = *options;
    loader->n_samples = dip_samples_count(options->samples);
    loader->image_bytes = (size_t)options->image_size * (size_t)options->image_size * 3;
    loader->n_slots = options->batch_size * (1 + (int64_t)options->n_prefetch);
    pthread_mutex_init(&loader->lock, NULL);
    pthread_cond_init(&loader->may_claim, NULL);
    pthread_cond_init(&loader->may_consume, NULL);
    pthread_cond_init(&loader->may_start, NULL);
    dip_status status = take_memory(loader);
    if (status == DIP_OK) status = start_workers(loader);
    if (status == DIP_OK)
        *out = loader;
    else
        dip_loader_close(loader);
    return status;
}

void dip_loader_close(dip_loader *loader)
{
    if (!loader) return;
    pthread_mutex_lock(&loader->lock);
    loader->stop = true;
    pthread_cond_broadcast(&loader->may_claim);
    pthread_mutex_unlock(&loader->lock);
    for (int i = 0; i < loader->n_workers; i++) pthread_join(loader->workers[i].thread, NULL);
    if (loader->workers) {
        for (int i = 0; i < loader->options.n_workers; i++) {
            dip_filler_close(loader->workers[i].filler);
        }
    }
    pthread_mutex_destroy(&loader->lock);
    pthread_cond_destroy(&loader->may_claim);
    pthread_cond_destroy(&loader->may_consume);
    pthread_cond_destroy(&loader->may_start);
    if (loader->slots)
        for (int64_t i = 0; i < loader->n_slots; i++) free(loader->slots[i].detail);
    free(loader->order);
    free(loader->slots);
    give_back(loader, loader->images);
    free(loader->slot_tokens);
    free(loader->workers);
    free(loader->failed_detail);
    give_back(loader, loader->gathered);
    free(loader->tokens);
    free(loader->offsets);
    give_back(loader, loader->group);
    free(loader->table);
    free(loader->index);
    free(loader->labels);
    free(loader);
}

static void make_order(dip_loader *loader, int64_t epoch)
{
    const dip_loader_options *o = &loader->options;
    for (int64_t i = 0; i < loader->n_samples; i++) loader->order[i] = (uint32_t)i;
    if (!o->shuffle) return;
    dip_rng rng;
    dip_rng_init(&rng, o->seed, dip_rng_stream(DIP_RNG_ORDER, (uint64_t)epoch, 0));
    for (int64_t i = loader->n_samples - 1; i > 0; i--) { /* Fisher and Yates */
        int64_t j = (int64_t)dip_rng_below(&rng, (uint64_t)i + 1);
        uint32_t swap = loader->order[i];
        loader->order[i] = loader->order[j];
        loader->order[j] = swap;
    }
}

dip_status dip_loader_start(dip_loader *loader, int64_t epoch, int64_t position)
{
    if (epoch < 0 || position < 0 || position > loader->n_samples)
        return dip_fail(DIP_CONFIG,
                        "loader: cannot start at epoch %" PRId64 ", position %" PRId64
                        " of %" PRId64,
                        epoch, position, loader->n_samples);
    pthread_mutex_lock(&loader->lock);
    loader->running = false;
    while (loader->n_busy > 0) pthread_cond_wait(&loader->may_start, &loader->lock);
    pthread_mutex_unlock(&loader->lock);

    /* Nobody else looks at these while no epoch runs. */
    make_order(loader, epoch);
    for (int64_t i = 0; i < loader->n_slots; i++) {
        loader->slots[i].done = false;
        free(loader->slots[i].detail);
        loader->slots[i].detail = NULL;
    }
    loader->epoch = epoch;
    loader->scanned = loader->position = position;
    /* What came before was judged when it was read; the few that are left of an epoch must not be
     * held to a share of themselves alone. */
    loader->n_seen = position;
    loader->n_bad = 0;
    loader->failed = DIP_OK;

    pthread_mutex_lock(&loader->lock);
    loader->base = loader->held = loader->ready = loader->claimed = position;
    loader->running = true;
    pthread_cond_broadcast(&loader->may_claim);
    pthread_mutex_unlock(&loader->lock);
    return DIP_OK;
}

/* The consumer. */

static void release_until(dip_loader *loader, int64_t position)
{
    pthread_mutex_lock(&loader->lock);
    for (int64_t p = loader->held; p < position; p++) slot_at(loader, p)->done = false;
    loader->held = position;
    pthread_cond_broadcast(&loader->may_claim);
    pthread_mutex_unlock(&loader->lock);
}

static void wait_until_ready(dip_loader *loader, int64_t position)
{
    pthread_mutex_lock(&loader->lock);
    loader->wanted = position;
    while (loader->ready < position) pthread_cond_wait(&loader->may_consume, &loader->lock);
    pthread_mutex_unlock(&loader->lock);
}

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
    dip_fail(DIP_FORMAT,
             "%" PRId64 " of %" PRId64 " samples of epoch %" PRId64
             " could not be used; the limit is a fraction of %g (max_bad_fraction)",
             loader->n_bad, loader->n_seen, loader->epoch, limit);
    return remember_failure(loader, DIP_FORMAT);
}

/* A slot without a sample: into the ledger, or the end of the run. */
static dip_status pass_by(dip_loader *loader, slot *s)
{
    const char *detail = s->detail ? s->detail : "no memory for the reason";
    dip_status status = s->status;
    if (status == DIP_FORMAT) {
        dip_sample sample = dip_samples_get(loader->options.samples, s->index);
        char where[WHERE_BYTES];
        dip_faults_add(loader->options.faults, s->fault,
                       dip_sample_where(&sample, where, sizeof where), detail);
        loader->n_bad++;
        status = DIP_OK;
    } else {
        dip_fail(status, "%s", detail);
        remember_failure(loader, status);
    }
    free(s->detail);
    s->detail = NULL;
    return status;
}

static void take_all_but_image(dip_loader *loader, const slot *s, int64_t at)
{
    loader->index[at] = s->index;
    loader->labels[at] = dip_samples_get(loader->options.samples, s->index).label;
    memcpy(loader->tokens + loader->offsets[at], s->tokens, (size_t)s->n_tokens * sizeof(int32_t));
    loader->offsets[at + 1] = loader->offsets[at] + s->n_tokens;
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

dip_status dip_loader_next(dip_loader *loader, dip_batch *batch)
{
    if (loader->failed != DIP_OK)
        return dip_fail(loader->failed, "%s", loader->failed_detail ? loader->failed_detail : "");
    const int64_t batch_size = loader->options.batch_size, n_samples = loader->n_samples;
    const size_t image_bytes = loader->image_bytes;
    release_until(loader, loader->scanned);

    /* While the batch lies in one piece of the ring it stays there; from the first gap on it is
     * copied together, and slots are given back at once, so that no run of bad samples can fill
     * the ring. */
    const int64_t first = loader->scanned;
    bool in_one_piece = (first - loader->base) % loader->n_slots + batch_size <= loader->n_slots;
    int64_t n = 0;
    while (n < batch_size && loader->scanned < n_samples) {
        int64_t end = loader->scanned + batch_size - n;
        if (end > n_samples) end = n_samples;
        wait_until_ready(loader, end);
        for (; loader->scanned < end; loader->scanned++) {
            slot *s = slot_at(loader, loader->scanned);
            loader->n_seen++;
            if (s->status != DIP_OK) {
                DIP_TRY(pass_by(loader, s));
                if (in_one_piece)
                    memcpy(loader->gathered, image_at(loader, first), (size_t)n * image_bytes);
                in_one_piece = false;
                continue;
            }
            if (!in_one_piece)
                memcpy(loader->gathered + (size_t)n * image_bytes,
                       image_at(loader, loader->scanned), image_bytes);
            take_all_but_image(loader, s, n++);
        }
        if (!in_one_piece) release_until(loader, loader->scanned);
        DIP_TRY(judge_bad_fraction(loader, loader->scanned == n_samples));
    }
    if (n == 0 || (n < batch_size && loader->options.drop_last)) return DIP_END;
    number_groups(loader, n);
    loader->position = loader->scanned;
    *batch = (dip_batch){.n = n,
                         .images = in_one_piece ? image_at(loader, first) : loader->gathered,
                         .tokens = loader->tokens,
                         .offsets = loader->offsets,
                         .group = loader->group,
                         .index = loader->index,
                         .labels = loader->labels};
    return DIP_OK;
}

int64_t dip_loader_position(const dip_loader *loader)
{
    return loader->position;
}

int64_t dip_loader_batches_per_epoch(const dip_loader *loader)
{
    int64_t extra = loader->options.drop_last ? 0 : loader->options.batch_size - 1;
    return (loader->n_samples + extra) / loader->options.batch_size;
}
