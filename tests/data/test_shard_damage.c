/* Damage: flip every byte and cut at every block of small shards. Whatever is lost must be in the
 * ledger, and no image may ever stand beside another sample's caption. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <unistd.h>

#include "data/samples.h"
#include "data/shard_writer.h"
#include "data/tar_build.h"

enum { MAX_SAMPLES = 16 };
static const char *folder;

/* What the undamaged shard holds. */
typedef struct truth {
    char *path;
    char *keys[MAX_SAMPLES], *images[MAX_SAMPLES], *captions[MAX_SAMPLES];
    size_t image_bytes[MAX_SAMPLES], caption_bytes[MAX_SAMPLES];
    int n;
} truth;

static char *copy(const void *data, size_t n)
{
    char *out = malloc(n + 1);
    assert_non_null(out);
    memcpy(out, data, n);
    out[n] = '\0';
    return out;
}

static dip_status open_samples(dip_samples **samples, dip_faults **faults, char *path)
{
    dip_string_list shards = {.items = &path, .n_items = 1};
    assert_int_equal(dip_faults_open(faults), DIP_OK);
    return dip_samples_open(samples, &shards, DIP_NEEDS_IMAGE | DIP_NEEDS_CAPTION, NULL, *faults);
}

static void learn(truth *t, char *path)
{
    *t = (truth){.path = path};
    dip_samples *samples;
    dip_faults *faults;
    assert_int_equal(open_samples(&samples, &faults, path), DIP_OK);
    assert_int_equal(dip_faults_total(faults), 0);
    for (; t->n < dip_samples_count(samples); t->n++) {
        dip_sample s = dip_samples_get(samples, t->n);
        t->keys[t->n] = strdup(s.key);
        t->images[t->n] = copy(s.image, t->image_bytes[t->n] = s.image_bytes);
        t->captions[t->n] = copy(s.caption, t->caption_bytes[t->n] = s.caption_bytes);
    }
    dip_samples_close(samples);
    dip_faults_close(faults);
}

static void forget(truth *t)
{
    for (int i = 0; i < t->n; i++) {
        free(t->keys[i]);
        free(t->images[i]);
        free(t->captions[i]);
    }
    free(t->path);
}

/* Bytes that differ; one at most may, and only after a flip in the payload. */
static int differing(const void *a, size_t n, const char *b, size_t m)
{
    if (n != m) return 1000;
    int count = 0;
    for (size_t i = 0; i < n; i++) count += ((const char *)a)[i] != b[i];
    return count;
}

static int check(const truth *t, char *path)
{
    dip_samples *samples;
    dip_faults *faults;
    dip_status status = open_samples(&samples, &faults, path);
    int n_found = 0;
    int64_t n = status == DIP_OK ? dip_samples_count(samples) : 0;
    for (int64_t i = 0; i < n; i++) {
        dip_sample s = dip_samples_get(samples, i);
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
    if (status == DIP_OK) dip_samples_close(samples);
    dip_faults_close(faults);
    return n_found;
}

static void flip_every_byte(const truth *t)
{
    char *bytes;
    size_t n;
    assert_int_equal(dip_file_read(&bytes, &n, t->path, 1 << 20), DIP_OK);
    char *path = put_file(folder, "flipped.tar", bytes, n);
    int file = open(path, O_WRONLY);
    assert_true(file >= 0);
    static const char masks[] = {0x01, 0x10, (char)0x80};
    int worst = t->n;
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < sizeof masks; k++) {
            if (k != i % 2 && bytes[i] == 0) continue; /* padding: one mask is enough */
            char flipped = bytes[i] ^ masks[k];
            assert_int_equal(pwrite(file, &flipped, 1, (off_t)i), 1);
            int n_found = check(t, path);
            if (n_found < worst) worst = n_found;
        }
        assert_int_equal(pwrite(file, &bytes[i], 1, (off_t)i), 1);
    }
    assert_true(worst < t->n);      /* the flips did reach something */
    assert_true(worst >= t->n - 1); /* and one byte costs one sample */
    close(file);
    free(path);
    free(bytes);
}

static void cut_everywhere(const truth *t)
{
    char *bytes;
    size_t n;
    assert_int_equal(dip_file_read(&bytes, &n, t->path, 1 << 20), DIP_OK);
    for (size_t i = 0; i <= n; i += 512) {
        for (int odd = 0; odd < 2; odd++) {
            char *path = put_file(folder, "cut.tar", bytes, odd && i >= 100 ? i - 100 : i);
            int n_found = check(t, path);
            if (i == n) assert_int_equal(n_found, t->n);
            free(path);
        }
    }
    free(bytes);
}

static void our_own_shard(void **state)
{
    (void)state;
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
    truth t;
    learn(&t, dip_format("%s/own/00000.tar", folder));
    assert_int_equal(t.n, 8);
    flip_every_byte(&t);
    cut_everywhere(&t);
    forget(&t);
}

static void golden_shards(void **state)
{
    (void)state;
    static const char *const names[] = {"webdataset", "pax", "gnu", "ustar"};
    for (int i = 0; i < 4; i++) {
        truth t;
        learn(&t, dip_format("%s/tests/golden/shard_%s.tar", TEST_SOURCE_DIR, names[i]));
        flip_every_byte(&t);
        cut_everywhere(&t);
        forget(&t);
    }
}

/* The ledger warns of each loss, here tens of thousands of times: not while a test runs. */
static int real_stderr;

static int silence(void **state)
{
    (void)state;
    int nowhere = open("/dev/null", O_WRONLY);
    real_stderr = dup(STDERR_FILENO);
    int failed = nowhere < 0 || real_stderr < 0 || dup2(nowhere, STDERR_FILENO) < 0;
    close(nowhere);
    return failed;
}

static int speak(void **state)
{
    (void)state;
    int failed = dup2(real_stderr, STDERR_FILENO) < 0;
    close(real_stderr);
    return failed;
}

int main(void)
{
    folder = scratch_init("test_shard_damage");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(our_own_shard, silence, speak),
        cmocka_unit_test_setup_teardown(golden_shards, silence, speak),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
