/* Reading samples while their shards are cut, replaced or removed, with few descriptors, and by
 * several threads: named samples, never a signal, never another sample's bytes. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/rng.h"
#include "data/image/image.h"
#include "data/samples.h"
#include "data/shard/shard_writer.h"
#include "data/tar_build.h"

enum { PAIR = DIP_NEEDS_IMAGE | DIP_NEEDS_CAPTION, IMAGE_BYTES = 6000 };
static const char *folder;
static dip_faults *faults;

/* n samples, per_shard in each shard; an image and its caption both begin with the same text. */
static dip_string_list write_shards(const char *name, int n, int per_shard, char mark)
{
    static char image[IMAGE_BYTES];
    char *pattern = dip_format("%s/%s/{00000..}.tar", folder, name), caption[64];
    dip_shard_writer *writer;
    assert_int_equal(dip_shard_writer_open(&writer, pattern, per_shard), DIP_OK);
    for (int i = 0; i < n; i++) {
        memset(image, mark, sizeof image);
        snprintf(image, sizeof image, "%c %d", mark, i);
        snprintf(caption, sizeof caption, "%c %d", mark, i);
        const dip_shard_part parts[] = {{"jpg", image, sizeof image},
                                        {"txt", caption, strlen(caption) + 1}};
        assert_int_equal(dip_shard_writer_add(writer, parts, 2), DIP_OK);
    }
    assert_int_equal(dip_shard_writer_close(writer), DIP_OK);
    dip_string_list paths;
    assert_int_equal(dip_shard_writer_existing(&paths, pattern), DIP_OK);
    free(pattern);
    return paths;
}

static void free_list(dip_string_list *list)
{
    for (size_t i = 0; i < list->n_items; i++) free(list->items[i]);
    free(list->items);
}

static dip_samples *open_shards(const dip_string_list *paths, bool ignore_index, int n_threads)
{
    dip_samples *samples;
    const dip_samples_options options = {
        .needs = PAIR, .ignore_index = ignore_index, .n_threads = n_threads};
    if (dip_samples_open(&samples, paths, &options, faults) != DIP_OK) {
        fprintf(stderr, "%s\n", dip_error());
        return NULL;
    }
    return samples;
}

/* DIP_OK: the sample is whole and its own. */
static dip_status read_pair(dip_sample_reader *reader, int64_t index, char mark,
                            dip_fault_kind *kind)
{
    dip_sample sample;
    char wanted[64];
    dip_status status = dip_sample_read(reader, &sample, index, PAIR, kind);
    if (status != DIP_OK) {
        assert_null(sample.image);
        assert_null(sample.caption);
        assert_non_null(sample.key);
        return status;
    }
    snprintf(wanted, sizeof wanted, "%c %d", mark, (int)index);
    assert_int_equal(sample.image_bytes, IMAGE_BYTES);
    assert_string_equal((const char *)sample.image, wanted);
    for (int i = 0; i < DIP_IMAGE_PADDING; i++) assert_true(sample.image[IMAGE_BYTES + i] == 0);
    assert_string_equal(sample.caption, wanted);
    return DIP_OK;
}

static void a_shard_cut_while_it_is_read(void **state)
{
    (void)state;
    for (int ignore_index = 0; ignore_index < 2; ignore_index++) {
        dip_string_list paths = write_shards("cut", 10, 10, 'c');
        dip_samples *samples = open_shards(&paths, ignore_index, 1);
        dip_sample_reader *reader, *late;
        dip_fault_kind kind;
        assert_non_null(samples);
        assert_int_equal(dip_sample_reader_open(&reader, samples), DIP_OK);
        assert_int_equal(dip_sample_reader_open(&late, samples), DIP_OK);
        assert_int_equal(read_pair(reader, 9, 'c', &kind), DIP_OK);
        /* inside the image of sample 5 */
        assert_int_equal(truncate(paths.items[0], dip_samples_get(samples, 5).offset + 100), 0);
        for (int i = 0; i < 10; i++) {
            dip_status status = read_pair(reader, i, 'c', &kind);
            assert_int_equal(status, i < 5 ? DIP_OK : DIP_FORMAT);
            if (i < 5) continue;
            assert_int_equal(kind, DIP_FAULT_UNREADABLE);
            assert_non_null(strstr(dip_error(), "the file ends at "));
        }
        /* Opened after the cut: where there are checksums the good samples are still good. */
        for (int i = 0; i < 10; i++) {
            dip_status status = read_pair(late, i, 'c', &kind);
            assert_int_equal(status, i < 5 && !ignore_index ? DIP_OK : DIP_FORMAT);
            if (status != DIP_OK) assert_int_equal(kind, DIP_FAULT_UNREADABLE);
        }
        dip_sample_reader_close(late);
        dip_sample_reader_close(reader);
        dip_samples_close(samples);
        free_list(&paths);
    }
}

/* Another shard under the same name, of the same size, with other samples in the same places. */
static void a_shard_replaced_while_it_is_read(void **state)
{
    (void)state;
    dip_string_list other = write_shards("other", 10, 10, 'o');
    for (int ignore_index = 0; ignore_index < 2; ignore_index++) {
        dip_string_list paths = write_shards("replaced", 10, 10, 'r');
        dip_samples *samples = open_shards(&paths, ignore_index, 1);
        dip_sample_reader *reader;
        dip_fault_kind kind;
        assert_non_null(samples);
        assert_int_equal(dip_sample_reader_open(&reader, samples), DIP_OK);
        char *copy = dip_format("%s/copy.tar", folder), *bytes;
        size_t n;
        assert_int_equal(dip_file_read(&bytes, &n, other.items[0], 1 << 20), DIP_OK);
        usleep(20000); /* file systems count time in steps of some milliseconds */
        assert_int_equal(dip_file_write(copy, bytes, n), DIP_OK);
        assert_int_equal(rename(copy, paths.items[0]), 0);
        for (int i = 0; i < 10; i++) {
            assert_int_equal(read_pair(reader, i, 'r', &kind), DIP_FORMAT);
            assert_int_equal(kind, ignore_index ? DIP_FAULT_UNREADABLE : DIP_FAULT_CHECKSUM);
        }
        free(bytes);
        free(copy);
        dip_sample_reader_close(reader);
        dip_samples_close(samples);
        free_list(&paths);
    }
    free_list(&other);
}

static void the_head_of_an_image(void **state)
{
    (void)state;
    dip_string_list paths = write_shards("head", 2, 2, 'h');
    dip_samples *samples = open_shards(&paths, false, 1);
    dip_sample_reader *reader;
    dip_sample sample;
    dip_fault_kind kind;
    assert_non_null(samples);
    assert_int_equal(dip_sample_reader_open(&reader, samples), DIP_OK);
    dip_sample_prefetch(reader, 1);
    assert_int_equal(dip_sample_read(reader, &sample, 1, DIP_IMAGE_HEAD, &kind), DIP_OK);
    assert_string_equal((const char *)sample.image, "h 1");
    assert_int_equal(sample.image_bytes, IMAGE_BYTES);
    assert_null(sample.caption);
    assert_int_equal(dip_sample_read(reader, &sample, 0, DIP_NEEDS_CAPTION, &kind), DIP_OK);
    assert_null(sample.image);
    assert_string_equal(sample.caption, "h 0");
    dip_sample_reader_close(reader);
    assert_int_equal(dip_sample_reader_open(&reader, samples), DIP_OK);
    remove(paths.items[0]);
    dip_sample_prefetch(reader, 1); /* nothing to be had: nothing happens */
    dip_sample_reader_close(reader);
    dip_samples_close(samples);
    free_list(&paths);
}

/* 600 shards with 40 descriptors: for looking through by 8 threads and for 4 readers. */
static void few_descriptors(void **state)
{
    (void)state;
    enum { N_SHARDS = 600, N_READERS = 4 };
    dip_string_list paths = {.items = malloc(N_SHARDS * sizeof(char *)), .n_items = N_SHARDS};
    dip_string_list one = write_shards("few", 1, 1, 'f');
    char *bytes;
    size_t n;
    assert_int_equal(dip_file_read(&bytes, &n, one.items[0], 1 << 20), DIP_OK);
    for (int i = 0; i < N_SHARDS; i++) {
        char name[32];
        snprintf(name, sizeof name, "few-%03d.tar", i);
        paths.items[i] = put_file(folder, name, bytes, n);
    }
    free(bytes);
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    const struct rlimit few = {40, before.rlim_max};
    const int n_before = scratch_count("/proc/self/fd");
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    dip_samples *samples = open_shards(&paths, false, 8);
    assert_non_null(samples);
    assert_int_equal(dip_samples_count(samples), N_SHARDS);
    assert_int_equal(dip_samples_n_shards(samples), N_SHARDS);
    assert_string_equal(dip_samples_shard_path(samples, 7), paths.items[7]);
    dip_sample_reader *readers[N_READERS];
    dip_sample sample;
    dip_fault_kind kind;
    for (int r = 0; r < N_READERS; r++)
        assert_int_equal(dip_sample_reader_open(&readers[r], samples), DIP_OK);
    for (int i = 0; i < 4 * N_SHARDS; i++)
        assert_int_equal(
            dip_sample_read(readers[i % N_READERS], &sample, i * 7 % N_SHARDS, PAIR, &kind),
            DIP_OK);

    assert_true(scratch_count("/proc/self/fd") <= n_before + 4 * N_READERS);

    /* None left: a reader gives up its own and goes on; one that has none says so, and that is
     * not the sample's fault. */
    dip_sample_reader *fresh;
    assert_int_equal(dip_sample_reader_open(&fresh, samples), DIP_OK);
    assert_int_equal(dip_sample_read(fresh, &sample, 0, PAIR, &kind), DIP_OK); /* has one */
    int taken[64], n_taken = 0;
    while ((taken[n_taken] = open("/dev/null", O_RDONLY)) >= 0) n_taken++;
    assert_int_equal(errno, EMFILE);
    assert_int_equal(dip_sample_read(fresh, &sample, 333, PAIR, &kind), DIP_OK);
    dip_sample_reader_close(fresh);
    while ((taken[n_taken] = open("/dev/null", O_RDONLY)) >= 0) n_taken++;
    assert_int_equal(dip_sample_reader_open(&fresh, samples), DIP_OK);
    assert_int_equal(dip_sample_read(fresh, &sample, 1, PAIR, &kind), DIP_IO);
    dip_sample_reader_close(fresh);
    while (n_taken > 0) close(taken[--n_taken]);
    for (int r = 0; r < N_READERS; r++) dip_sample_reader_close(readers[r]);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    dip_samples_close(samples);
    free_list(&one);
    free_list(&paths);
}

enum { N_THREADS = 4, N_SAMPLES = 60 };
typedef struct job {
    const dip_samples *samples;
    int number, n_read, n_lost;
} job;

static void *read_all(void *argument)
{
    job *j = argument;
    dip_sample_reader *reader;
    dip_fault_kind kind;
    dip_rng rng;
    dip_rng_init(&rng, 1, (uint64_t)j->number);
    if (dip_sample_reader_open(&reader, j->samples) != DIP_OK) return NULL;
    for (int i = 0; i < 2000; i++) {
        int64_t index = (int64_t)dip_rng_below(&rng, N_SAMPLES);
        if (read_pair(reader, index, 't', &kind) == DIP_OK)
            j->n_read++;
        else
            j->n_lost++;
    }
    dip_sample_reader_close(reader);
    return NULL;
}

static void threads_read_shards_that_go_away(void **state)
{
    (void)state;
    dip_string_list paths = write_shards("threads", N_SAMPLES, 6, 't');
    dip_samples *samples = open_shards(&paths, false, N_THREADS);
    pthread_t threads[N_THREADS];
    job jobs[N_THREADS];
    assert_non_null(samples);
    for (int i = 0; i < N_THREADS; i++) {
        jobs[i] = (job){.samples = samples, .number = i};
        assert_int_equal(pthread_create(&threads[i], NULL, read_all, &jobs[i]), 0);
    }
    for (int i = 0; i < 10; i++) {
        usleep(2000);
        if (i % 3 == 0) remove(paths.items[i]);
        if (i % 3 == 1) assert_int_equal(truncate(paths.items[i], 10000), 0);
    }
    for (int i = 0; i < N_THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(jobs[i].n_read + jobs[i].n_lost, 2000);
        assert_true(jobs[i].n_read > 0);
    }
    dip_samples_close(samples);
    free_list(&paths);
}

/* Samples, their numbers, the ledger and its file: the same for any number of threads. */
static void threads_do_not_change_what_is_found(void **state)
{
    (void)state;
    enum { N_SHARDS = 60 };
    static tar_build tar;
    dip_string_list paths = {.items = malloc(N_SHARDS * sizeof(char *)), .n_items = N_SHARDS};
    dip_rng rng;
    dip_rng_init(&rng, 3, 3);
    for (int i = 0; i < N_SHARDS; i++) {
        tar.n = 0;
        for (int k = 0; k < 12; k++) {
            char name[32];
            snprintf(name, sizeof name, "%d.%s", k / 2, k % 2 ? "txt" : "jpg");
            if (dip_rng_below(&rng, 5) > 0) tar_member(&tar, name, "x");
        }
        tar_end(&tar);
        if (i % 4 == 0) tar.bytes[dip_rng_below(&rng, tar.n)] ^= 4;
        char name[32];
        snprintf(name, sizeof name, "any-%02d.tar", i);
        paths.items[i] = put_file(folder, name, tar.bytes, tar.n);
    }
    char *first = NULL;
    size_t first_bytes = 0;
    for (int n_threads = 1; n_threads <= 8; n_threads *= 2) {
        dip_faults *ledger;
        dip_samples *samples;
        char *path = dip_format("%s/ledger-%d", folder, n_threads), *text = NULL;
        assert_int_equal(dip_faults_open(&ledger), DIP_OK);
        assert_int_equal(dip_faults_record(ledger, path, 0, 1000), DIP_OK);
        const dip_samples_options options = {.needs = PAIR, .n_threads = n_threads};
        assert_int_equal(dip_samples_open(&samples, &paths, &options, ledger), DIP_OK);
        size_t n_bytes = 0;
        FILE *out = open_memstream(&text, &n_bytes);
        for (int64_t i = 0; i < dip_samples_count(samples); i++) {
            dip_sample s = dip_samples_get(samples, i);
            int64_t shard_first, n;
            dip_samples_of_shard(samples, s.shard_index, &shard_first, &n);
            assert_true(i >= shard_first && i < shard_first + n);
            fprintf(out, "%s %s %d\n", s.shard, s.key, (int)s.offset);
        }
        char *lines;
        size_t n_lines;
        assert_int_equal(dip_file_read(&lines, &n_lines, path, 1 << 20), DIP_OK);
        assert_true(dip_faults_recorded(ledger) > 100);
        fwrite(lines, 1, n_lines, out);
        fclose(out);
        if (!first) {
            first = text;
            first_bytes = n_bytes;
        } else {
            assert_int_equal(n_bytes, first_bytes);
            assert_memory_equal(text, first, n_bytes);
            free(text);
        }
        free(lines);
        free(path);
        dip_samples_close(samples);
        dip_faults_close(ledger);
    }
    free(first);

    /* Of several shards that are refused it is the first of the list that is named. */
    for (int i = 1; i < 8; i++) {
        char *name = strrchr(paths.items[i], '/') + 1;
        free(put_file(folder, name, "PK\x03\x04", 4));
    }
    for (int repeat = 0; repeat < 300; repeat++) {
        dip_samples *samples;
        const dip_samples_options options = {.needs = PAIR, .n_threads = 1 + repeat % 8};
        const dip_string_list some = {.items = paths.items, .n_items = 8};
        assert_int_equal(dip_samples_open(&samples, &some, &options, faults), DIP_FORMAT);
        assert_null(samples);
        assert_non_null(strstr(dip_error(), "any-01.tar: not a tar file"));
    }
    free_list(&paths);
}

static int setup(void **state)
{
    (void)state;
    return dip_faults_open(&faults) != DIP_OK;
}

static int teardown(void **state)
{
    (void)state;
    dip_faults_close(faults);
    return 0;
}

int main(void)
{
    folder = scratch_init("test_sample_reader");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_shard_cut_while_it_is_read, setup, teardown),
        cmocka_unit_test_setup_teardown(a_shard_replaced_while_it_is_read, setup, teardown),
        cmocka_unit_test_setup_teardown(the_head_of_an_image, setup, teardown),
        cmocka_unit_test_setup_teardown(few_descriptors, setup, teardown),
        cmocka_unit_test_setup_teardown(threads_read_shards_that_go_away, setup, teardown),
        cmocka_unit_test_setup_teardown(threads_do_not_change_what_is_found, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
