/* 10,000 random shards, their members shuffled, doubled and left out, against a list of what the
 * rule makes of them: every sample that is found is the right image beside the right caption, and
 * every one that is not is counted. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "core/rng.h"
#include "data/quiet.h"
#include "data/samples.h"
#include "data/shard/shard_index.h"
#include "data/tar_build.h"

enum {
    N_ROUNDS = 500,
    N_SHARDS = 20, /* a round */
    MAX_MEMBERS = 14,
    N_KEYS = 4,
    INDEXED_EVERY = 50 /* rounds */
};

static const char *const extensions[] = {"jpg", "txt",  "png", "JPEG",
                                         "cls", "json", "Txt", "other"};
enum { N_EXTENSIONS = 8 };
/* What each of them is: 0 jpg, 1 png, 2 jpeg, 3 txt, 4 cls, 5 json, -1 nothing. */
static const int parts[N_EXTENSIONS] = {0, 3, 1, 2, 4, 5, 3, -1};

static const char *folder;
static tar_build tar;

typedef struct member {
    int key, extension;
    char text[32]; /* its data: a name that no other member has */
} member;

typedef struct expected {
    int key;
    char image[32], caption[32];
} expected;

static int draw_members(member *members, dip_rng *rng, int shard)
{
    const bool orderly = dip_rng_below(rng, 2);
    int n = 0, key = 0;
    while (n < MAX_MEMBERS && dip_rng_below(rng, 12) > 0) {
        member *m = &members[n];
        /* keys one after the other with some going back, or any at any time */
        if (!orderly)
            key = (int)dip_rng_below(rng, N_KEYS);
        else if (n % 2 == 0 || dip_rng_below(rng, 8) == 0)
            key = (key + 1) % N_KEYS;
        m->key = key;
        m->extension = (int)dip_rng_below(rng, dip_rng_below(rng, 3) ? 2 : N_EXTENSIONS);
        snprintf(m->text, sizeof m->text, "%d", (int)dip_rng_below(rng, 1000));
        if (parts[m->extension] != 4) /* labels are numbers, the rest is told apart */
            snprintf(m->text, sizeof m->text, "s%d m%d", shard, n);
        n++;
    }
    return n;
}

static char *write_shard(const member *members, int n, int shard, bool indexed)
{
    char name[32];
    dip_index_builder *builder = NULL;
    if (indexed) assert_int_equal(dip_index_builder_open(&builder), DIP_OK);
    tar.n = 0;
    for (int i = 0; i < n; i++) {
        const size_t n_bytes = strlen(members[i].text);
        snprintf(name, sizeof name, "k%d.%s", members[i].key, extensions[members[i].extension]);
        tar_member(&tar, name, members[i].text);
        const dip_member_entry entry = {name, tar.n - 512, n_bytes,
                                        dip_crc32c(0, members[i].text, n_bytes)};
        if (indexed) assert_int_equal(dip_index_builder_add(builder, &entry), DIP_OK);
    }
    tar_end(&tar);
    snprintf(name, sizeof name, "%02d.tar", shard);
    char *path = put_file(folder, name, tar.bytes, tar.n), *index_path = dip_shard_index_path(path);
    remove(index_path);
    if (indexed) assert_int_equal(dip_index_builder_write(builder, path, tar.n), DIP_OK);
    dip_index_builder_close(builder);
    free(index_path);
    return path;
}

/* One run of members with one key: a sample, or -1 if one is lost, or 0 if there is nothing in it.
 */
static int judge(expected *out, const member *run, int n)
{
    const member *found[6] = {0};
    bool twice = false;
    for (int i = 0; i < n; i++) {
        int part = parts[run[i].extension];
        if (part < 0) continue;
        twice = twice || found[part];
        found[part] = &run[i];
    }
    const member *image = found[0] ? found[0] : found[1] ? found[1] : found[2];
    if (twice) return -1;
    if (!image && !found[3] && !found[4]) return 0;
    if (!image || !found[3]) return -1;
    out->key = run->key;
    strcpy(out->image, image->text);
    strcpy(out->caption, found[3]->text);
    return 1;
}

/* What a shard should give: *n_lost more that are counted. */
static int expect(expected *out, int *n_lost, const member *members, int n)
{
    int n_found = 0;
    for (int first = 0, end; first < n; first = end) {
        for (end = first + 1; end < n && members[end].key == members[first].key;) end++;
        int verdict = judge(&out[n_found], members + first, end - first);
        n_found += verdict > 0;
        *n_lost += verdict < 0;
    }
    return n_found;
}

/* The same key may lose a sample twice in a shard, which counts once a kind: so compare the places.
 */
static void check_round(char **paths, const expected *wanted, int n_wanted, int n_lost)
{
    const dip_string_list shards = {.items = paths, .n_items = N_SHARDS};
    const dip_samples_options pairs = {.needs = DIP_NEEDS_IMAGE | DIP_NEEDS_CAPTION,
                                       .n_threads = 2};
    dip_samples *samples;
    dip_sample_reader *reader;
    dip_faults *faults;
    assert_int_equal(dip_faults_open(&faults), DIP_OK);
    dip_status status = dip_samples_open(&samples, &shards, &pairs, faults);
    assert_int_equal(status, n_wanted ? DIP_OK : DIP_CONFIG);
    assert_int_equal(dip_faults_total(faults) > 0, n_lost > 0);
    assert_true(dip_faults_total(faults) <= n_lost);
    if (status == DIP_OK) {
        assert_int_equal(dip_samples_count(samples), n_wanted);
        assert_int_equal(dip_sample_reader_open(&reader, samples), DIP_OK);
        for (int i = 0; i < n_wanted; i++) {
            dip_sample s;
            dip_fault_kind kind;
            char key[8];
            assert_int_equal(dip_sample_read(reader, &s, i, pairs.needs, &kind), DIP_OK);
            snprintf(key, sizeof key, "k%d", wanted[i].key);
            assert_string_equal(s.key, key);
            assert_int_equal(s.image_bytes, strlen(wanted[i].image));
            assert_memory_equal(s.image, wanted[i].image, s.image_bytes);
            assert_int_equal(s.caption_bytes, strlen(wanted[i].caption));
            assert_memory_equal(s.caption, wanted[i].caption, s.caption_bytes);
        }
        dip_sample_reader_close(reader);
        dip_samples_close(samples);
    }
    dip_faults_close(faults);
}

static void ten_thousand_random_shards(void **state)
{
    (void)state;
    dip_rng rng;
    dip_rng_init(&rng, 11, 11);
    int64_t n_samples = 0, n_all_lost = 0;
    for (int round = 0; round < N_ROUNDS; round++) {
        static expected wanted[N_SHARDS * MAX_MEMBERS];
        char *paths[N_SHARDS];
        int n_wanted = 0, n_lost = 0;
        for (int i = 0; i < N_SHARDS; i++) {
            member members[MAX_MEMBERS];
            int n = draw_members(members, &rng, i);
            paths[i] = write_shard(members, n, i, round % INDEXED_EVERY == 0);
            n_wanted += expect(wanted + n_wanted, &n_lost, members, n);
        }
        check_round(paths, wanted, n_wanted, n_lost);
        n_samples += n_wanted;
        n_all_lost += n_lost;
        for (int i = 0; i < N_SHARDS; i++) {
            remove(paths[i]); /* written anew is quicker than written over */
            free(paths[i]);
        }
    }
    assert_true(n_samples > 5000 && n_all_lost > 5000); /* both kinds were there */
}

int main(void)
{
    folder = scratch_init("test_samples_oracle");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(ten_thousand_random_shards, silence, speak),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
