/* Damage: flip every byte and cut at every block of small shards without an index. Whatever is lost
 * must be in the ledger, and no image may ever stand beside another sample's caption. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <unistd.h>

#include "data/quiet.h"
#include "data/shard_truth.h"

static const char *folder;

static int check(const truth *t, char *path)
{
    dip_faults *faults;
    int n_found = check_with(t, path, &faults);
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
    truth t;
    write_own(&t, folder);
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

int main(void)
{
    folder = scratch_init("test_shard_damage");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(our_own_shard, silence, speak),
        cmocka_unit_test_setup_teardown(golden_shards, silence, speak),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
