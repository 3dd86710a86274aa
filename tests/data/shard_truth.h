/* shard_truth.h - what an undamaged shard holds, and a damaged copy compared with it: whatever is
 * lost is in the ledger, and no image stands beside another sample's caption. */
#ifndef DIP_TESTS_DATA_SHARD_TRUTH_H
#define DIP_TESTS_DATA_SHARD_TRUTH_H

#include "data/samples.h"
#include "data/shard/shard_writer.h"
#include "data/tar_build.h"

enum { MAX_SAMPLES = 16 };

/* What the undamaged shard holds. */
typedef struct truth {
    char *path;
    char *keys[MAX_SAMPLES], *images[MAX_SAMPLES], *captions[MAX_SAMPLES];
    size_t image_bytes[MAX_SAMPLES], caption_bytes[MAX_SAMPLES];
    int n;
} truth;

static inline char *copy(const void *data, size_t n)
{
    char *out = malloc(n + 1);
    assert_non_null(out);
    memcpy(out, data, n);
    out[n] = '\0';
    return out;
}

static inline dip_status open_samples(dip_samples **samples, dip_faults **faults, char *path)
{
    dip_string_list shards = {.items = &path, .n_items = 1};
    assert_int_equal(dip_faults_open(faults), DIP_OK);
    const dip_samples_options pairs = {.needs = DIP_NEEDS_IMAGE | DIP_NEEDS_CAPTION,
                                       .n_threads = 1};
    return dip_samples_open(samples, &shards, &pairs, *faults);
}

/* Its bytes; what cannot be read goes into the ledger, as in training. */
static inline bool read_pair(dip_sample_reader *reader, dip_sample *s, int64_t index,
                             dip_faults *faults)
{
    dip_fault_kind kind;
    dip_status status =
        dip_sample_read(reader, s, index, DIP_NEEDS_IMAGE | DIP_NEEDS_CAPTION, &kind);
    if (status == DIP_OK) return true;
    assert_int_equal(status, DIP_FORMAT);
    const dip_fault_place place = {s->shard, s->key, s->offset};
    dip_faults_add_at(faults, kind, &place, dip_error());
    return false;
}

static inline void learn(truth *t, char *path)
{
    *t = (truth){.path = path};
    dip_samples *samples;
    dip_faults *faults;
    assert_int_equal(open_samples(&samples, &faults, path), DIP_OK);
    assert_int_equal(dip_faults_total(faults), 0);
    dip_sample_reader *reader;
    assert_int_equal(dip_sample_reader_open(&reader, samples), DIP_OK);
    for (; t->n < dip_samples_count(samples); t->n++) {
        dip_sample s;
        assert_true(read_pair(reader, &s, t->n, faults));
        t->keys[t->n] = strdup(s.key);
        t->images[t->n] = copy(s.image, t->image_bytes[t->n] = s.image_bytes);
        t->captions[t->n] = copy(s.caption, t->caption_bytes[t->n] = s.caption_bytes);
    }
    dip_sample_reader_close(reader);
    dip_samples_close(samples);
    dip_faults_close(faults);
}

static inline void forget(truth *t)
{
    for (int i = 0; i < t->n; i++) {
        free(t->keys[i]);
        free(t->images[i]);
        free(t->captions[i]);
    }
    free(t->path);
}

/* Bytes that differ; one at most may, and only after a flip in the payload. */
static inline int differing(const void *a, size_t n, const char *b, size_t m)
{
    if (n != m) return 1000;
    int count = 0;
    for (size_t i = 0; i < n; i++) count += ((const char *)a)[i] != b[i];
    return count;
}

/* The samples of `path` that can be read, compared with the truth. */
static inline int check_with(const truth *t, char *path, dip_faults **ledger)
{
    dip_samples *samples;
    dip_faults *faults;
    dip_status status = open_samples(&samples, &faults, path);
    dip_sample_reader *reader = NULL;
    int n_found = 0;
    int64_t n = status == DIP_OK ? dip_samples_count(samples) : 0;
    if (n > 0) assert_int_equal(dip_sample_reader_open(&reader, samples), DIP_OK);
    for (int64_t i = 0; i < n; i++) {
        dip_sample s;
        if (!read_pair(reader, &s, i, faults)) continue;
        int at = 0;
        while (at < t->n && strcmp(t->keys[at], s.key) != 0) at++;
        assert_true(at < t->n); /* no sample out of nothing */
        assert_true(
            differing(s.image, s.image_bytes, t->images[at], t->image_bytes[at]) +
                differing(s.caption, s.caption_bytes, t->captions[at], t->caption_bytes[at]) <=
            1);
        n_found++;
    }
    if (status != DIP_OK) assert_true(status == DIP_CONFIG || status == DIP_FORMAT);
    /* A refusal is heard; of the rest, every loss has a line. */
    if (status != DIP_FORMAT && n_found < t->n) assert_true(dip_faults_total(faults) > 0);
    dip_sample_reader_close(reader);
    if (status == DIP_OK) dip_samples_close(samples);
    *ledger = faults;
    return n_found;
}

/* A shard of 8 samples and its index, by our own writer. */
static inline void write_own(truth *t, const char *folder)
{
    char *pattern = dip_format("%s/own/{00000..}.tar", folder);
    dip_shard_writer *writer;
    assert_int_equal(dip_shard_writer_open(&writer, pattern, 100), DIP_OK);
    for (int i = 0; i < 8; i++) {
        char image[128], caption[64];
        snprintf(image, sizeof image, "the image of sample %d, and bytes", i);
        snprintf(caption, sizeof caption, "the caption of sample %d", i);
        dip_shard_part parts[] = {{"jpg", image, strlen(image)}, {"txt", caption, strlen(caption)}};
        assert_int_equal(dip_shard_writer_add(writer, parts, 2), DIP_OK);
    }
    assert_int_equal(dip_shard_writer_close(writer), DIP_OK);
    free(pattern);
    learn(t, dip_format("%s/own/00000.tar", folder));
    assert_int_equal(t->n, 8);
}

#endif
