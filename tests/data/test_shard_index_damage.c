/* Damage of shards that have an index, and of the index: what is lost is named, and an index that
 * is spoiled, or another shard's, is noticed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <unistd.h>

#include "core/log.h"
#include "data/quiet.h"
#include "data/shard/shard_index.h"
#include "data/shard_truth.h"

static const char *folder;

static char *read_all(const char *path, size_t *n)
{
    char *bytes;
    assert_int_equal(dip_file_read(&bytes, n, path, 1 << 20), DIP_OK);
    return bytes;
}

/* Copies of the shard and its index, to be spoiled. */
static char *copy_own(const truth *t, const char *name)
{
    size_t n;
    char *index_path = dip_shard_index_path(t->path), *index_name = dip_format("%s.idx", name);
    char *bytes = read_all(index_path, &n);
    free(put_file(folder, index_name, bytes, n));
    free(bytes);
    bytes = read_all(t->path, &n);
    char *path = put_file(folder, name, bytes, n);
    free(bytes);
    free(index_path);
    free(index_name);
    return path;
}

static bool is_data(const char *shard_path, uint64_t byte)
{
    dip_shard_index *index;
    dip_member_entry entry;
    bool found = false;
    assert_int_equal(dip_shard_index_read(&index, shard_path), DIP_OK);
    while (!found && dip_shard_index_next(index, &entry) == DIP_OK)
        found = byte >= entry.offset && byte < entry.offset + entry.n_bytes;
    dip_shard_index_close(index);
    return found;
}

static void every_flip_of_data_is_named_by_the_index(void **state)
{
    (void)state;
    truth t;
    write_own(&t, folder);
    size_t n;
    char *bytes = read_all(t.path, &n), *path = copy_own(&t, "indexed.tar");
    int file = open(path, O_WRONLY), n_in_data = 0;
    assert_true(file >= 0);
    for (size_t i = 0; i < n; i++) {
        dip_faults *faults;
        char flipped = (char)(bytes[i] ^ (1 << i % 8));
        assert_int_equal(pwrite(file, &flipped, 1, (off_t)i), 1);
        const bool data = is_data(t.path, i);
        n_in_data += data;
        assert_int_equal(check_with(&t, path, &faults), data ? 7 : 8);
        assert_int_equal(dip_faults_count(faults, DIP_FAULT_CHECKSUM), data);
        assert_int_equal(dip_faults_total(faults), data); /* a header is not even looked at */
        dip_faults_close(faults);
        assert_int_equal(pwrite(file, &bytes[i], 1, (off_t)i), 1);
    }
    assert_true(n_in_data > 8 * 40);
    close(file);
    free(bytes);
    free(path);
    forget(&t);
}

static void every_sample_cut_off_is_named_by_the_index(void **state)
{
    (void)state;
    truth t;
    write_own(&t, folder);
    size_t n;
    free(read_all(t.path, &n));
    char *path = copy_own(&t, "shorter.tar");
    const char *ledger_path = TEST_BINARY_DIR "/scratch/test_shard_index_damage/lost.jsonl";
    for (size_t cut = n; cut <= n; cut -= 256) {
        dip_faults *faults;
        assert_int_equal(truncate(path, (off_t)cut), 0);
        int n_found = check_with(&t, path, &faults);
        assert_int_equal(dip_faults_total(faults), 8 - n_found);
        assert_int_equal(dip_faults_count(faults, DIP_FAULT_TAR), 8 - n_found); /* when opened */
        assert_int_equal(dip_faults_record(faults, ledger_path, 0, 100), DIP_OK);
        size_t n_bytes;
        char *lines = read_all(ledger_path, &n_bytes), key[32];
        for (int i = n_found; i < 8; i++) {
            snprintf(key, sizeof key, "\"key\":\"%s\"", t.keys[i]);
            assert_non_null(strstr(lines, key));
        }
        free(lines);
        dip_faults_close(faults);
        if (cut < 256) break;
    }
    free(path);
    forget(&t);
}

/* Spoil the index: all samples are found by the headers, and it is said. */
static void check_without(const truth *t, char *path, const char *log_path)
{
    dip_faults *faults;
    dip_shard_index *index;
    size_t n;
    assert_int_equal(dip_file_write(log_path, "", 0), DIP_OK);
    assert_int_equal(dip_log_open_file(log_path), DIP_OK);
    assert_int_equal(dip_shard_index_read(&index, path), DIP_FORMAT);
    assert_int_equal(check_with(t, path, &faults), t->n);
    assert_int_equal(dip_faults_total(faults), 0);
    dip_faults_close(faults);
    dip_log_close_file();
    char *said = read_all(log_path, &n);
    assert_non_null(strstr(said, ".tar.idx: "));
    free(said);
}

static void a_spoiled_index_is_noticed(void **state)
{
    (void)state;
    truth t;
    write_own(&t, folder);
    char *path = copy_own(&t, "doubtful.tar"), *index_path = dip_shard_index_path(path);
    char *log_path = dip_path_join(folder, "log.txt");
    size_t n;
    char *bytes = read_all(index_path, &n);
    for (size_t i = 0; i < n; i++) {
        bytes[i] = (char)(bytes[i] ^ (1 << i % 8));
        free(put_file(folder, "doubtful.tar.idx", bytes, n));
        check_without(&t, path, log_path);
        bytes[i] = (char)(bytes[i] ^ (1 << i % 8));
        free(put_file(folder, "doubtful.tar.idx", bytes, i)); /* cut */
        check_without(&t, path, log_path);
    }
    free(put_file(folder, "doubtful.tar.idx", bytes, n));
    int file = open(path, O_WRONLY | O_APPEND); /* the shard has grown: it is another */
    assert_int_equal(write(file, (char[512]){0}, 512), 512);
    close(file);
    check_without(&t, path, log_path);
    free(bytes);
    free(log_path);
    free(index_path);
    free(path);
    forget(&t);
}

/* One sample of the given name and bytes, and its index; always of one size. */
static void write_one(truth *t, const char *name, const char *image, size_t image_bytes)
{
    static tar_build tar;
    char member[16];
    dip_index_builder *builder;
    tar.n = 0;
    assert_int_equal(dip_index_builder_open(&builder), DIP_OK);
    for (int i = 0; i < 2; i++) {
        const char *data = i == 0 ? image : "a caption";
        const size_t n_bytes = i == 0 ? image_bytes : strlen(data);
        snprintf(member, sizeof member, "%s.%s", name, i == 0 ? "jpg" : "txt");
        tar_header(&tar, member, n_bytes, '0');
        tar_data(&tar, data, n_bytes);
        const dip_member_entry entry = {member, tar.n - 512, n_bytes, dip_crc32c(0, data, n_bytes)};
        assert_int_equal(dip_index_builder_add(builder, &entry), DIP_OK);
    }
    tar_end(&tar);
    char *file_name = dip_format("%s.tar", name);
    char *path = put_file(folder, file_name, tar.bytes, tar.n);
    assert_int_equal(dip_index_builder_write(builder, path, tar.n), DIP_OK);
    dip_index_builder_close(builder);
    free(file_name);
    learn(t, path);
    assert_int_equal(t->n, 1);
}

/* A shard that was packed anew while its old index stayed: as long as the old one, or shorter. */
static void the_index_of_another_shard_is_noticed(void **state)
{
    (void)state;
    static const struct {
        const char *name, *image;
        size_t image_bytes;
    } others[] = {
        {"other", "an image!", 9}, /* another name, the same size, other bytes */
        {"shard", "another image", 13},
        {"shard", "an image\0", 9}, /* the same with the zeros behind it */
    };
    char *log_path = dip_path_join(folder, "log.txt");
    for (int i = 0; i < 3; i++) {
        truth t, other;
        size_t n;
        write_one(&other, others[i].name, others[i].image, others[i].image_bytes);
        char *index_path = dip_shard_index_path(other.path), *index = read_all(index_path, &n);
        write_one(&t, "shard", i == 0 ? "an image?" : "an image", i == 0 ? 9 : 8);
        free(put_file(folder, "shard.tar.idx", index, n));
        dip_faults *faults;
        assert_int_equal(dip_file_write(log_path, "", 0), DIP_OK);
        assert_int_equal(dip_log_open_file(log_path), DIP_OK);
        for (int cut = 0; cut < 2; cut++) {
            if (cut) assert_int_equal(truncate(t.path, 4 * 512 + 1023), 0);
            assert_int_equal(check_with(&t, t.path, &faults), 1);
            assert_int_equal(dip_faults_total(faults), 0);
            dip_faults_close(faults);
        }
        dip_log_close_file();
        char *said = read_all(log_path, &n);
        int n_said = 0;
        for (const char *p = said; (p = strstr(p, "made for another shard of this name")); p++)
            n_said++;
        assert_int_equal(n_said, 2);
        free(said);
        free(index);
        free(index_path);
        forget(&other);
        forget(&t);
    }
    free(log_path);
}

/* In front of the first member: no flip makes the index another's, not even one of the name that
 * no checksum of tar's covers. */
static void a_flip_before_the_first_member_costs_nothing(void **state)
{
    (void)state;
    static tar_build tar;
    dip_index_builder *builder;
    const dip_member_entry image = {"key.jpg", 1536, 1, dip_crc32c(0, "1", 1)},
                           caption = {"key.txt", 2560, 1, dip_crc32c(0, "2", 1)};
    tar.n = 0;
    tar_header(&tar, "PaxHeader", 16, 'x');
    tar_data(&tar, "16 path=key.jpg\n", 16);
    tar_member(&tar, "cut", "1");
    tar_member(&tar, "key.txt", "2");
    tar_end(&tar);
    char *path = put_file(folder, "pax.tar", tar.bytes, tar.n);
    assert_int_equal(dip_index_builder_open(&builder), DIP_OK);
    assert_int_equal(dip_index_builder_add(builder, &image), DIP_OK);
    assert_int_equal(dip_index_builder_add(builder, &caption), DIP_OK);
    assert_int_equal(dip_index_builder_write(builder, path, tar.n), DIP_OK);
    dip_index_builder_close(builder);
    truth t;
    learn(&t, path);
    assert_int_equal(t.n, 1);
    int file = open(path, O_WRONLY);
    for (size_t i = 0; i < image.offset; i++) {
        dip_faults *faults;
        for (int bit = 0; bit < 8; bit++) {
            uint8_t flipped = (uint8_t)(tar.bytes[i] ^ 1 << bit);
            assert_int_equal(pwrite(file, &flipped, 1, (off_t)i), 1);
            assert_int_equal(check_with(&t, path, &faults), 1);
            assert_int_equal(dip_faults_total(faults), 0);
            dip_faults_close(faults);
        }
        assert_int_equal(pwrite(file, &tar.bytes[i], 1, (off_t)i), 1);
    }
    close(file);
    forget(&t);
}

/* Of many indexes that cannot be used a few are named, and how many more there are. */
static void many_spoiled_indexes_are_a_few_lines(void **state)
{
    (void)state;
    enum { N_SHARDS = 30 };
    truth t;
    write_one(&t, "model", "an image", 8);
    size_t n;
    char *bytes = read_all(t.path, &n), *paths[N_SHARDS], name[32];
    for (int i = 0; i < N_SHARDS; i++) {
        snprintf(name, sizeof name, "many-%02d.tar.idx", i);
        free(put_file(folder, name, "DIPIDX", 6));
        name[strlen(name) - 4] = '\0';
        paths[i] = put_file(folder, name, bytes, n);
    }
    char *log_path = dip_path_join(folder, "log.txt");
    assert_int_equal(dip_file_write(log_path, "", 0), DIP_OK);
    assert_int_equal(dip_log_open_file(log_path), DIP_OK);
    const dip_string_list shards = {paths, N_SHARDS};
    const dip_samples_options pairs = {.needs = DIP_NEEDS_IMAGE | DIP_NEEDS_CAPTION};
    dip_samples *samples;
    dip_faults *faults;
    assert_int_equal(dip_faults_open(&faults), DIP_OK);
    assert_int_equal(dip_samples_open(&samples, &shards, &pairs, faults), DIP_OK);
    assert_int_equal(dip_samples_count(samples), N_SHARDS);
    dip_samples_close(samples);
    dip_faults_close(faults);
    dip_log_close_file();
    char *said = read_all(log_path, &n);
    assert_non_null(strstr(said, "many-19.tar.idx"));
    assert_null(strstr(said, "many-20.tar.idx"));
    assert_non_null(strstr(said, "10 more shards are read without their index"));
    free(said);
    free(log_path);
    free(bytes);
    for (int i = 0; i < N_SHARDS; i++) free(paths[i]);
    forget(&t);
}

int main(void)
{
    folder = scratch_init("test_shard_index_damage");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(every_flip_of_data_is_named_by_the_index, silence, speak),
        cmocka_unit_test_setup_teardown(every_sample_cut_off_is_named_by_the_index, silence, speak),
        cmocka_unit_test_setup_teardown(a_spoiled_index_is_noticed, silence, speak),
        cmocka_unit_test_setup_teardown(the_index_of_another_shard_is_noticed, silence, speak),
        cmocka_unit_test_setup_teardown(a_flip_before_the_first_member_costs_nothing, silence,
                                        speak),
        cmocka_unit_test_setup_teardown(many_spoiled_indexes_are_a_few_lines, silence, speak),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
