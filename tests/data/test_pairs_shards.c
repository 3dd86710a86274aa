/* Shards as a source of pairs, while their files change: every sample that is lost is named, none
 * gets another's bytes, and threads share a few open files. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <unistd.h>

#include "data/pairs/pairs.h"
#include "data/shard/shard_files.h"
#include "data/shard/shard_writer.h"
#include "data/tar_build.h"

enum { PER_SHARD = 4, IMAGE_BYTES = 1000 };

static const char *folder;

typedef struct losses {
    int n;
    char text[4000]; /* "kind where: detail" one after the other */
} losses;

static void lose(void *context, dip_fault_kind kind, const char *where, const char *detail)
{
    losses *lost = context;
    size_t used = strlen(lost->text);
    snprintf(lost->text + used, sizeof lost->text - used, "%d %s: %s\n", (int)kind, where, detail);
    lost->n++;
}

/* FOLDER/NAME/0.tar, 1.tar, ... of PER_SHARD samples each, image and caption with the number. */
static dip_string_list write_shards(const char *name, int n_shards, bool with_index)
{
    dip_string_list paths = {.items = calloc((size_t)n_shards, sizeof *paths.items)};
    char *pattern = dip_format("%s/%s/{0..}.tar", folder, name);
    dip_shard_writer *writer;
    assert_int_equal(dip_shard_writer_open(&writer, pattern, PER_SHARD), DIP_OK);
    for (int i = 0; i < n_shards * PER_SHARD; i++) {
        char image[IMAGE_BYTES] = "\xff\xd8\xff", caption[32];
        snprintf(image + 3, sizeof image - 3, "%d", i);
        snprintf(caption, sizeof caption, "%d", i);
        dip_shard_part parts[] = {{"jpg", image, sizeof image}, {"txt", caption, strlen(caption)}};
        assert_int_equal(dip_shard_writer_add(writer, parts, 2), DIP_OK);
    }
    assert_int_equal(dip_shard_writer_close(writer), DIP_OK);
    for (int i = 0; i < n_shards; i++) {
        paths.items[paths.n_items++] = dip_format("%s/%s/%d.tar", folder, name, i);
        char *index = dip_format("%s/%s/%d.tar.idx", folder, name, i);
        if (!with_index) assert_int_equal(unlink(index), 0);
        free(index);
    }
    free(pattern);
    return paths;
}

static void free_paths(dip_string_list *paths)
{
    for (size_t i = 0; i < paths->n_items; i++) free(paths->items[i]);
    free(paths->items);
}

/* Does pair `index` hold sample `number`? */
static bool is_sample(const dip_pairs *pairs, int64_t index, int64_t number)
{
    dip_pair pair;
    dip_fault_kind kind;
    char wanted[32];
    snprintf(wanted, sizeof wanted, "%lld", (long long)number);
    bool same = dip_pairs_load(pairs, &pair, index, &kind) == DIP_OK &&
                strcmp((const char *)pair.image + 3, wanted) == 0 && strcmp(pair.text, wanted) == 0;
    dip_pair_free(&pair);
    return same;
}

/* A sample is 5 blocks: two headers, two of an image, one of a caption. */
static void a_cut_shard_names_every_lost_sample(void **state)
{
    (void)state;
    dip_string_list paths = write_shards("cut", 2, true);
    for (int blocks = 0; blocks <= 5 * PER_SHARD; blocks++) {
        assert_int_equal(truncate(paths.items[0], (5 * PER_SHARD - blocks) * 512), 0);
        losses lost = {0};
        dip_pairs *pairs;
        assert_int_equal(dip_pairs_open_shards(&pairs, &paths, lose, &lost), DIP_OK);
        int n_lost = (blocks + 4) / 5;
        assert_int_equal(dip_pairs_count(pairs), 2 * PER_SHARD - n_lost);
        assert_int_equal(lost.n, n_lost);
        for (int i = PER_SHARD - n_lost; i < PER_SHARD; i++) {
            char *name = dip_format("0.tar: %09d: its .", i);
            assert_non_null(strstr(lost.text, name));
            free(name);
        }
        for (int i = 0; i < dip_pairs_count(pairs); i++)
            assert_true(is_sample(pairs, i, i + (i < PER_SHARD - n_lost ? 0 : n_lost)));
        dip_pairs_close(pairs);
    }
    free_paths(&paths);
}

/* A shorter and a longer shard under the name of one that has an index. */
static void an_index_of_another_shard_is_not_used(void **state)
{
    (void)state;
    char *other = dip_format("%s/strange", folder);
    for (int n_more = 0; n_more <= 40; n_more += 40) {
        dip_string_list paths = write_shards("strange", 1, true);
        tar_build tar = {0};
        tar_member(&tar, "a.jpg",
                   "\xff\xd8\xff"
                   "7");
        tar_member(&tar, "a.txt", "7");
        for (int i = 0; i < n_more; i++) tar_member(&tar, "README.md", "no part of a sample");
        tar_end(&tar);
        free(put_file(other, "0.tar", tar.bytes, tar.n));
        losses lost = {0};
        dip_pairs *pairs;
        assert_int_equal(dip_pairs_open_shards(&pairs, &paths, lose, &lost), DIP_OK);
        assert_int_equal(dip_pairs_count(pairs), 1);
        assert_true(is_sample(pairs, 0, 7));
        dip_pairs_close(pairs);
        free_paths(&paths);
    }
    free(other);
}

/* The same names and sizes, other bytes. */
static void a_shard_that_changed_is_not_read(void **state)
{
    (void)state;
    for (int with_index = 0; with_index < 2; with_index++) {
        dip_string_list paths = write_shards("changed", 1, with_index);
        losses lost = {0};
        dip_pairs *pairs;
        assert_int_equal(dip_pairs_open_shards(&pairs, &paths, lose, &lost), DIP_OK);
        usleep(20000); /* a change in the same moment cannot be told */
        FILE *file = fopen(paths.items[0], "r+b");
        assert_non_null(file);
        assert_int_equal(fseek(file, 512 + 3, SEEK_SET), 0);
        assert_int_equal(fputc('9', file), '9');
        assert_int_equal(fclose(file), 0);
        dip_pair pair;
        dip_fault_kind kind;
        assert_int_equal(dip_pairs_load(pairs, &pair, 0, &kind), DIP_FORMAT);
        assert_int_equal(kind, with_index ? DIP_FAULT_CHECKSUM : DIP_FAULT_UNREADABLE);
        /* With checksums the others are known to be good. */
        assert_int_equal(is_sample(pairs, 1, 1), with_index);
        dip_pairs_close(pairs);
        free_paths(&paths);
    }
}

/* Threads. */

enum { N_SHARDS = 40, N_THREADS = 24, N_READS = 400 };

typedef struct reading {
    const dip_pairs *pairs;
    int number, n_wrong;
} reading;

static void *read_pairs(void *argument)
{
    reading *r = argument;
    for (int i = 0; i < N_READS; i++) {
        int64_t index = (int64_t)(i / 3 * 7 + r->number * 11) % (N_SHARDS * PER_SHARD);
        if (!is_sample(r->pairs, index, index)) r->n_wrong++;
    }
    return NULL;
}

static int open_files(void)
{
    int n = 0;
    for (int fd = 0; fd < 256; fd++) n += lseek(fd, 0, SEEK_CUR) >= 0;
    return n;
}

/* More threads than files are kept, more shards than threads. */
static void threads_share_a_few_files(void **state)
{
    (void)state;
    dip_string_list paths = write_shards("many", N_SHARDS, false);
    losses lost = {0};
    dip_pairs *pairs;
    assert_int_equal(dip_pairs_open_shards(&pairs, &paths, lose, &lost), DIP_OK);
    int before = open_files();
    pthread_t threads[N_THREADS];
    reading readings[N_THREADS];
    for (int i = 0; i < N_THREADS; i++) {
        readings[i] = (reading){.pairs = pairs, .number = i};
        assert_int_equal(pthread_create(&threads[i], NULL, read_pairs, &readings[i]), 0);
    }
    for (int i = 0; i < N_THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(readings[i].n_wrong, 0);
    }
    int kept = open_files() - before;
    assert_in_range(kept, 1, 16);
    /* A kept file is read although its name is gone. */
    assert_true(is_sample(pairs, 0, 0));
    assert_int_equal(unlink(paths.items[0]), 0);
    assert_true(is_sample(pairs, 1, 1));
    dip_pairs_close(pairs);
    assert_int_equal(open_files(), before);
    free_paths(&paths);
}

/* What is borrowed stays open, however much else is. */
static void borrowed_files_stay_open(void **state)
{
    (void)state;
    dip_string_list paths = write_shards("borrowed", N_SHARDS, true);
    dip_shard_files *files;
    const dip_shard *shards[N_SHARDS];
    int before = open_files();
    assert_int_equal(dip_shard_files_open(&files), DIP_OK);
    for (uint32_t i = 0; i < N_SHARDS; i++)
        assert_int_equal(dip_shard_files_borrow(files, &shards[i], i, paths.items[i]), DIP_OK);
    for (int i = 0; i < N_SHARDS; i++) {
        char got[8], wanted[8];
        snprintf(wanted, sizeof wanted, "%d", i * PER_SHARD);
        assert_int_equal(dip_shard_read(shards[i], got, 512 + 3, sizeof got), DIP_OK);
        assert_string_equal(got, wanted);
        dip_shard_files_return(files, shards[i]);
    }
    assert_int_equal(open_files() - before, 16);
    dip_shard_files_close(files);
    assert_int_equal(open_files(), before);
    free_paths(&paths);
}

int main(void)
{
    folder = scratch_init("test_pairs_shards");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cut_shard_names_every_lost_sample),
        cmocka_unit_test(an_index_of_another_shard_is_not_used),
        cmocka_unit_test(a_shard_that_changed_is_not_read),
        cmocka_unit_test(threads_share_a_few_files),
        cmocka_unit_test(borrowed_files_stay_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
