/* Shards are looked through by several threads, each shard by one; what they found is taken into
 * the index and the ledger in the order of the list. */
#include "data/samples.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/threads.h"
#include "data/samples_internal.h"
#include "data/shard/tar.h"
#include "core/utf8.h"

enum {
    MIN_THREADS = 16,
    MAX_THREADS = 64,
    WHERE_KEY_BYTES = 512,
    MAX_WARNINGS = 20 /* of indexes that were not used */
};

static void free_faults(dip_shard_samples *shard)
{
    for (size_t i = 0; i < shard->n_faults; i++) {
        free(shard->faults[i].key);
        free(shard->faults[i].detail);
    }
    free(shard->faults);
    shard->faults = NULL;
    shard->n_faults = shard->faults_capacity = 0;
}

/* All shards. */

typedef struct search {
    dip_samples *samples;
    pthread_mutex_t lock;
    pthread_cond_t one_done;
    size_t next; /* shard to be looked through */
    bool *done;
    size_t failed; /* the first shard that failed; n_shards: none */
    dip_status status;
    char *why;
} search;

static void remember_failure(search *s, size_t shard, dip_status status)
{
    if (shard >= s->failed) return;
    s->failed = shard;
    s->status = status;
    free(s->why);
    s->why = strdup(dip_error());
}

static void *look_for_samples(void *argument)
{
    search *s = argument;
    dip_grouper grouper;
    dip_grouper_init(&grouper, s->samples->needs);
    pthread_mutex_lock(&s->lock);
    while (s->next < s->failed) { /* shards after a failure do not matter */
        size_t shard = s->next++;
        pthread_mutex_unlock(&s->lock);
        dip_status status =
            dip_shard_samples_find(&s->samples->shards[shard], &grouper, s->samples->ignore_index);
        pthread_mutex_lock(&s->lock);
        if (status != DIP_OK) remember_failure(s, shard, status);
        s->done[shard] = true;
        pthread_cond_signal(&s->one_done);
    }
    pthread_mutex_unlock(&s->lock);
    dip_grouper_free(&grouper);
    return NULL;
}

/* The shard's lines into the ledger, its samples into the numbering. */
static void take(dip_samples *samples, dip_shard_samples *shard, dip_faults *faults)
{
    if (shard->warning && samples->n_warnings++ < MAX_WARNINGS)
        dip_warn("%s; the shard is read without it, and its bytes cannot be checked",
                 shard->warning);
    for (size_t i = 0; i < shard->n_faults; i++) {
        const dip_found_fault *fault = &shard->faults[i];
        const dip_fault_place place = {shard->path, fault->key, fault->offset};
        dip_faults_add_at(faults, fault->kind, &place, fault->detail);
    }
    free_faults(shard);
    shard->first = samples->n_samples;
    samples->n_samples += (int64_t)shard->n;
}

static void take_in_order(search *s, dip_faults *faults)
{
    dip_samples *samples = s->samples;
    for (size_t i = 0; i < samples->n_shards; i++) {
        pthread_mutex_lock(&s->lock);
        while (!s->done[i] && i < s->failed) pthread_cond_wait(&s->one_done, &s->lock);
        bool failed = i >= s->failed;
        pthread_mutex_unlock(&s->lock);
        if (failed) break;
        take(samples, &samples->shards[i], faults);
    }
    if (samples->n_warnings > MAX_WARNINGS)
        dip_warn("%lld more shards are read without their index, which cannot be used",
                 (long long)(samples->n_warnings - MAX_WARNINGS));
}

/* They wait for the disk more than they compute. */
static int usual_threads(void)
{
    const int n_cores = dip_core_count();
    return n_cores > MIN_THREADS ? n_cores : MIN_THREADS;
}

static dip_status find_samples(dip_samples *samples, int n_threads, dip_faults *faults)
{
    pthread_t threads[MAX_THREADS];
    search s = {.samples = samples, .failed = samples->n_shards};
    s.done = calloc(samples->n_shards + 1, sizeof *s.done);
    if (!s.done) return dip_fail(DIP_NOMEM, "no memory for the sample index");
    pthread_mutex_init(&s.lock, NULL);
    pthread_cond_init(&s.one_done, NULL);
    if (n_threads < 1) n_threads = usual_threads();
    if (n_threads > MAX_THREADS) n_threads = MAX_THREADS;
    if ((size_t)n_threads > samples->n_shards) n_threads = (int)samples->n_shards;
    int n_started = 0;
    while (n_threads > 1 && n_started < n_threads &&
           pthread_create(&threads[n_started], NULL, look_for_samples, &s) == 0)
        n_started++;
    if (n_started == 0) look_for_samples(&s);
    take_in_order(&s, faults);
    for (int i = 0; i < n_started; i++) pthread_join(threads[i], NULL);
    dip_status status = s.status;
    if (status != DIP_OK) dip_fail(status, "%s", s.why ? s.why : "no memory for the reason");
    pthread_cond_destroy(&s.one_done);
    pthread_mutex_destroy(&s.lock);
    free(s.done);
    free(s.why);
    return status;
}

static dip_status check_any(const dip_samples *samples, dip_faults *faults)
{
    int64_t n_skipped = 0;
    for (size_t i = 0; i < samples->n_shards; i++) n_skipped += samples->shards[i].n_skipped;
    if (n_skipped > 0)
        dip_warn("%lld members of the shards are links or devices and were skipped",
                 (long long)n_skipped);
    if (samples->n_samples > 0) return DIP_OK;
    return dip_fail(DIP_CONFIG, "no usable sample in %zu shard%s (first: %s); %lld were lost",
                    samples->n_shards, samples->n_shards == 1 ? "" : "s",
                    samples->n_shards ? samples->shards[0].path : "none",
                    (long long)dip_faults_total(faults));
}

dip_status dip_samples_open(dip_samples **out, const dip_string_list *shards,
                            const dip_samples_options *options, dip_faults *faults)
{
    *out = NULL;
    dip_status status = DIP_OK;
    dip_samples *samples = calloc(1, sizeof *samples);
    if (samples) samples->shards = calloc(shards->n_items + 1, sizeof *samples->shards);
    if (!samples || !samples->shards) goto nomem;
    samples->needs = options->needs;
    samples->ignore_index = options->ignore_index;
    for (; samples->n_shards < shards->n_items; samples->n_shards++) {
        char *path = strdup(shards->items[samples->n_shards]);
        if (!path) goto nomem;
        samples->shards[samples->n_shards].path = path;
    }
    DIP_TRY_GOTO(find_samples(samples, options->n_threads, faults));
    DIP_TRY_GOTO(check_any(samples, faults));
    *out = samples;
    return DIP_OK;
nomem:
    status = dip_fail(DIP_NOMEM, "no memory for the sample index");
fail:
    dip_samples_close(samples);
    return status;
}

void dip_samples_close(dip_samples *samples)
{
    if (!samples) return;
    for (size_t i = 0; i < samples->n_shards; i++) {
        dip_shard_samples *shard = &samples->shards[i];
        free_faults(shard);
        free(shard->path);
        free(shard->entries);
        free(shard->crcs);
        free(shard->keys);
        free(shard->warning);
    }
    free(samples->shards);
    free(samples);
}

/* Queries. */

int64_t dip_samples_count(const dip_samples *samples)
{
    return samples->n_samples;
}

int64_t dip_samples_n_shards(const dip_samples *samples)
{
    return (int64_t)samples->n_shards;
}

const char *dip_samples_shard_path(const dip_samples *samples, int64_t shard_index)
{
    return samples->shards[shard_index].path;
}

void dip_samples_of_shard(const dip_samples *samples, int64_t shard_index, int64_t *first,
                          int64_t *n)
{
    *first = samples->shards[shard_index].first;
    *n = (int64_t)samples->shards[shard_index].n;
}

const dip_shard_samples *dip_samples_shard_of(const dip_samples *samples, int64_t index)
{
    /* The last shard that begins at or before it: an empty one begins where the next does. */
    size_t low = 0, high = samples->n_shards;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (samples->shards[middle].first <= index)
            low = middle;
        else
            high = middle;
    }
    return &samples->shards[low];
}

static int64_t offset_of(const dip_sample_entry *e)
{
    uint32_t block = e->image_block;
    if (block == 0 || (e->caption_block != 0 && e->caption_block < block)) block = e->caption_block;
    return block == 0 ? -1 : (int64_t)block * DIP_TAR_BLOCK_BYTES;
}

dip_sample dip_samples_get(const dip_samples *samples, int64_t index)
{
    const dip_shard_samples *shard = dip_samples_shard_of(samples, index);
    const dip_sample_entry *e = &shard->entries[index - shard->first];
    return (dip_sample){.shard = shard->path,
                        .key = shard->keys + e->key_at,
                        .shard_index = shard - samples->shards,
                        .offset = offset_of(e),
                        .has_image = e->image_block != 0,
                        .has_caption = e->caption_block != 0,
                        .caption_is_json =
                            e->caption_block != 0 && (samples->needs & DIP_CAPTION_JSON),
                        .image_bytes = e->image_bytes,
                        .caption_bytes = e->caption_bytes,
                        .label = e->label};
}

const char *dip_sample_where(const dip_sample *sample, char *buf, size_t n)
{
    char key[WHERE_KEY_BYTES];
    dip_text_quote(key, sizeof key, sample->key);
    snprintf(buf, n, "%s: %s", sample->shard, key);
    return buf;
}
