/* Runs on data of which some is bad: what is dropped is counted and named in the run's folder, the
 * same whether the run went through or was stopped at every step; and the options of the data.  */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "train/tiny_run.h"

enum { N_BAD = 7, N_GOOD = TINY_PAIRS - N_BAD };

static char *data_flags; /* shards with bad pairs */

static char *read_file(const char *name, const char *rest)
{
    char *path = dip_format("%s/logs/%s/%s", tiny_dir, name, rest), *text;
    size_t n;
    if (dip_file_read(&text, &n, path, 1 << 20) != DIP_OK) fail_msg("%s", dip_error());
    free(path);
    return text;
}

static void assert_same_file(const char *name, const char *other, const char *rest)
{
    char *a = read_file(name, rest), *b = read_file(other, rest);
    assert_string_equal(a, b);
    free(a);
    free(b);
}

static double number(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(item) ? item->valuedouble : -1;
}

static void run_ok(const char *name, const char *flags)
{
    char *all = dip_format("%s%s%s", data_flags, *flags ? " " : "", flags);
    tiny_run_ok(name, all);
    free(all);
}

/* Three epochs of 25 good pairs: 3 batches of 8, one pair left, 7 bad ones each. */
static void test_what_is_dropped_is_counted_and_named(void **state)
{
    (void)state;
    run_ok("counted", "");
    char *text = read_file("counted", "ledger.json");
    cJSON *ledger;
    assert_int_equal(dip_json_parse(&ledger, text, strlen(text), "ledger.json"), DIP_OK);
    const cJSON *reasons = cJSON_GetObjectItemCaseSensitive(ledger, "reasons"), *shard;
    assert_true(number(ledger, "read") == 3 * TINY_PAIRS);
    assert_true(number(ledger, "trained") == 3 * (N_GOOD / 8 * 8));
    assert_true(number(ledger, "dropped") == 3 * (N_BAD + N_GOOD % 8));
    assert_true(number(reasons, "empty caption") == 3 * 3);
    assert_true(number(reasons, "broken or truncated image") == 3 * 4);
    assert_true(number(reasons, "last batch not full") == 3 * (N_GOOD % 8));
    double read = 0;
    int n_shards = 0;
    cJSON_ArrayForEach(shard, cJSON_GetObjectItemCaseSensitive(ledger, "shards"))
    {
        assert_true(number(shard, "read") == number(shard, "trained") + number(shard, "dropped"));
        assert_true(number(shard, "number") == n_shards++);
        read += number(shard, "read");
    }
    assert_int_equal(n_shards, 3);
    assert_true(read == 3 * TINY_PAIRS);
    cJSON_Delete(ledger);
    free(text);
    assert_same_file("counted", "counted/checkpoints/epoch_3", "ledger.json");

    /* Each bad pair once, by name, with the place in its shard. */
    text = read_file("counted", "dropped.jsonl");
    int n_lines = 0;
    for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1, n_lines++) {
        cJSON *row;
        assert_int_equal(dip_json_parse(&row, line, (size_t)(end - line), "line"), DIP_OK);
        const char *key = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row, "key"));
        assert_non_null(key);
        assert_true(atoi(key) >= N_GOOD);
        assert_true(number(row, "offset") >= 512);
        assert_non_null(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(row, "reason")));
        cJSON_Delete(row);
    }
    assert_int_equal(n_lines, N_BAD);
    free(text);
    text = read_file("counted", "out.log");
    assert_non_null(strstr(text, "Data: 96 read = 72 trained + 0 buffered + 24 dropped"));
    free(text);
}

/* The weights, the account and the list of the dropped, however often a run was interrupted, and
 * with whatever workers it goes on. */
static void test_stopped_after_every_step(void **state)
{
    (void)state;
    static const volatile sig_atomic_t always = 1;
    int n_sessions = 0;
    dip_status status;
    run_ok("whole", "");
    do {
        char *flags = dip_format("%s --workers %d --prefetch %d%s", data_flags, 1 + n_sessions % 4,
                                 2 + n_sessions % 3, n_sessions ? " --resume latest" : "");
        status = tiny_run("pieces", flags, &always, NULL);
        free(flags);
        n_sessions++;
    } while (status == DIP_INTERRUPTED && n_sessions < 20);
    if (status != DIP_OK) fail_msg("session %d: %s", n_sessions, dip_error());
    assert_int_equal(n_sessions,
                     10); /* the last finds no batch left of the 12 that might have been */
    assert_true(tiny_same("whole", "pieces", "epoch_3/open_clip_model.safetensors"));
    assert_true(tiny_same("whole", "pieces", "epoch_3/optimizer.safetensors"));
    assert_same_file("whole", "pieces", "ledger.json");
    assert_same_file("whole", "pieces", "dropped.jsonl");
    assert_same_file("whole", "pieces", "checkpoints/epoch_3/ledger.json");
}

/* Each pair twice an epoch: what a spare is passed over for is not bad, stopped or not. 14 of 64
 * pairs of an epoch are. */
static void test_stopped_where_pairs_repeat(void **state)
{
    (void)state;
    static const volatile sig_atomic_t always = 1;
    char *twice = dip_format("--train-data %s/bad --train-data-upsampling-factors 2 "
                             "--batch-size 16 --max-bad-fraction 0.25",
                             tiny_dir);
    int n_sessions = 0;
    dip_status status;
    tiny_run_ok("twice", twice);
    do {
        char *flags = dip_format("%s%s", twice, n_sessions ? " --resume latest" : "");
        status = tiny_run("twice_pieces", flags, &always, NULL);
        free(flags);
        n_sessions++;
    } while (status == DIP_INTERRUPTED && n_sessions < 20);
    free(twice);
    if (status != DIP_OK) fail_msg("session %d: %s", n_sessions, dip_error());
    assert_true(tiny_same("twice", "twice_pieces", "epoch_3/open_clip_model.safetensors"));
    assert_same_file("twice", "twice_pieces", "ledger.json");
}

/* A run that is killed later than its last checkpoint has named more than the checkpoint knows. */
static void test_killed_after_a_checkpoint(void **state)
{
    (void)state;
    static const volatile sig_atomic_t always = 1;
    char *path = dip_format("%s/logs/killed/dropped.jsonl", tiny_dir);
    run_ok("straight", "");
    assert_int_equal(tiny_run("killed", data_flags, &always, NULL), DIP_INTERRUPTED);
    FILE *file = fopen(path, "a");
    assert_non_null(file);
    fputs("{\"shard\":\"x\",\"offset\":1,\"key\":\"y\",\"reason\":\"empty "
          "caption\",\"detail\":\"\"}\n"
          "{\"shard\":\"cut",
          file);
    fclose(file);
    run_ok("killed", "--resume latest");
    assert_same_file("straight", "killed", "dropped.jsonl");
    assert_same_file("straight", "killed", "ledger.json");
    free(path);
}

static void test_too_many_bad_ones_stop_the_run(void **state)
{
    (void)state;
    char *flags = dip_format("--train-data %s/bad --max-bad-fraction 0.05", tiny_dir);
    assert_int_equal(tiny_run("stopped", flags, NULL, NULL), DIP_FORMAT);
    assert_non_null(strstr(dip_error(), "max_bad_fraction"));
    free(flags);
}

/* ---- the options of the data --------------------------------------------------------------- */

static void assert_log_has(const char *name, const char *part)
{
    char *text = read_file(name, "out.log");
    if (!strstr(text, part)) fail_msg("'%s' is not in the log of %s: %s", part, name, text);
    free(text);
}

static double trained(const char *name)
{
    char *text = read_file(name, "ledger.json");
    cJSON *ledger;
    assert_int_equal(dip_json_parse(&ledger, text, strlen(text), "ledger.json"), DIP_OK);
    const double n = number(ledger, "trained");
    cJSON_Delete(ledger);
    free(text);
    return n;
}

static void test_epochs_of_every_kind(void **state)
{
    (void)state;
    tiny_run_ok("numbered", "--train-num-samples 50 --epochs 2");
    assert_true(trained("numbered") == 2 * 48);
    assert_log_has("numbered",
                   "an epoch is 48 pairs: --train-num-samples 50 in whole batches of 8");
    tiny_run_ok("wrapped", "--batch-size 12 --last-batch wrap --epochs 2");
    assert_true(trained("wrapped") == 2 * 36);
    assert_log_has("wrapped", "the first 4 of the next");
    tiny_run_ok("cropped", "--batch-size 12 --epochs 2");
    assert_true(trained("cropped") == 2 * 24);
    assert_log_has("cropped", "of which 8, others each time, are left out");
    char *two = dip_format("--train-data %s/shards/00.tar::%s/shards/{01..02}.tar "
                           "--train-data-upsampling-factors 2::0.5 --batch-size 4",
                           tiny_dir, tiny_dir);
    char *drawn = dip_format("%s --dataset-resampled --train-num-samples 40", two);
    tiny_run_ok("mixed", two); /* 12 twice, and 10 of 20 */
    assert_true(trained("mixed") == 3 * (34 / 4 * 4));
    tiny_run_ok("drawn", drawn);
    assert_true(trained("drawn") == 3 * 40);
    free(two);
    free(drawn);
}

static void test_a_list_of_augmentations(void **state)
{
    (void)state;
    /* The four options are a list; another list is another run. */
    tiny_run_ok("options", "");
    char *run = dip_format("%s/run.json", tiny_dir);
    cJSON *object;
    assert_int_equal(dip_json_read(&object, run), DIP_OK);
    cJSON_DeleteItemFromObjectCaseSensitive(object, "crop_scale_min");
    cJSON_DeleteItemFromObjectCaseSensitive(object, "flip");
    assert_int_equal(dip_json_write(run, object), DIP_OK);
    tiny_run_ok("listed",
                "--augmentations random_resized_crop(0.6..1,ratio=0.75..1.3333333333333333),"
                "flip(0.5)");
    tiny_run_ok("other",
                "--augmentations random_resized_crop(0.6..1),flip(0.5),color_jitter(0.4,0.4)");
    assert_true(tiny_same("options", "listed", "epoch_3/open_clip_model.safetensors"));
    assert_false(tiny_same("options", "other", "epoch_3/open_clip_model.safetensors"));
    cJSON_Delete(object);
    free(run);
}

static void test_mistakes_come_together(void **state)
{
    (void)state;
    static const char *const parts[] = {"--dataset-resampled", "has 2 numbers", "colr_jitter",
                                        "--alpha-over: 256", "--json-text-key-weights"};
    const char *flags = "--dataset-resampled --train-data-upsampling-factors 1::2 --augmentations "
                        "colr_jitter --alpha-over 1,2,256 --json-text-key-weights 1";
    assert_int_equal(tiny_run("mistakes", flags, NULL, NULL), DIP_CONFIG);
    for (int i = 0; i < 5; i++)
        if (!strstr(dip_error(), parts[i])) fail_msg("'%s' is not in: %s", parts[i], dip_error());
    static const struct {
        const char *flags, *part;
    } cases[] = {
        {"--augmentations flip|flip", "2 views"},
        {"--augmentations mixup(0.2)", "mixes images"},
        {"--augmentations flip --crop-ratio 1", "--augmentations replaces"},
        {"--train-data-upsampling-factors 0", "above 0"},
        {"--train-data-upsampling-factors x", "'x' is not a number"},
        {"--train-num-samples 7", "less than one batch"},
        {"--alpha-over 1,2", "2 numbers"},
        {"--alpha-over 1,2,2.5", "2.5"},
        {"--json-text-key a,,b", "empty key"},
        {"--json-text-key a,b --json-text-key-weights 0,0", "all 0"},
        {"--json-text-key a,b --json-text-key-weights 1", "1 numbers"},
        {"--train-num-samples 30 --batch-size 31", "less than one batch"},
        {"--train-num-samples 40 --batch-size 33", "too large"},
        {"--train-num-samples 1000000000000000", "too long"},
        {"--batch-size 16777216 --accum-freq 65536", "fewer than one batch of 1099511627776"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(tiny_run("mistakes", cases[i].flags, NULL, NULL), DIP_CONFIG);
        if (!strstr(dip_error(), cases[i].part))
            fail_msg("%s: '%s' is not in: %s", cases[i].flags, cases[i].part, dip_error());
    }
    char *folder = dip_format("%s/logs/mistakes", tiny_dir);
    assert_false(dip_path_exists(folder));
    free(folder);
}

/* A checkpoint as version 1 wrote it: no spares, no ledger, no newer options. */
static void test_older_checkpoints_go_on(void **state)
{
    (void)state;
    static const volatile sig_atomic_t always = 1;
    tiny_run_ok("newer", "");
    assert_int_equal(tiny_run("older", "", &always, NULL), DIP_INTERRUPTED);
    char *trainer = tiny_path("older", "epoch_latest/trainer.json");
    char *ledger = tiny_path("older", "epoch_latest/ledger.json");
    cJSON *object;
    assert_int_equal(dip_json_read(&object, trainer), DIP_OK);
    cJSON_ReplaceItemInObjectCaseSensitive(object, "format_version", cJSON_CreateNumber(1));
    cJSON_DeleteItemFromObjectCaseSensitive(object, "n_spares");
    cJSON_DeleteItemFromObjectCaseSensitive(object, "n_bad");
    cJSON_DeleteItemFromObjectCaseSensitive(object, "n_dropped");
    cJSON *configuration = cJSON_GetObjectItemCaseSensitive(object, "configuration");
    static const char *const newer[] = {"last_batch",    "train_num_samples", "word_dropout",
                                        "caption_clean", "augmentations",     "max_image_side"};
    for (size_t i = 0; i < sizeof newer / sizeof newer[0]; i++)
        cJSON_DeleteItemFromObjectCaseSensitive(configuration, newer[i]);
    cJSON *sums = cJSON_GetObjectItemCaseSensitive(object, "crc32c");
    cJSON_DeleteItemFromObjectCaseSensitive(sums, "ledger.json");
    cJSON_ReplaceItemInObjectCaseSensitive(sums, "trainer.json", cJSON_CreateString("00000000"));
    char *text;
    assert_int_equal(dip_json_print(&text, object, true), DIP_OK);
    char sum[9];
    snprintf(sum, sizeof sum, "%08x", dip_crc32c(0, text, strlen(text)));
    memcpy(strstr(text, "00000000"), sum, 8);
    assert_int_equal(dip_file_write(trainer, text, strlen(text)), DIP_OK);
    assert_int_equal(remove(ledger), 0);
    tiny_run_ok("older", "--resume latest");
    assert_true(tiny_same("newer", "older", "epoch_3/open_clip_model.safetensors"));
    cJSON_Delete(object);
    free(text);
    free(trainer);
    free(ledger);
}

/* What changes the order or the pixels is part of a run. */
static void test_other_data_is_another_run(void **state)
{
    (void)state;
    static const volatile sig_atomic_t always = 1;
    static const char *const changes[] = {"--last-batch wrap",    "--train-num-samples 16",
                                          "--word-dropout 0.1",   "--caption-clean lower",
                                          "--max-image-side 100", "--exif-rotate",
                                          "--max-image-scans 9",  "--max-caption-bytes 99"};
    assert_int_equal(tiny_run("resumed", "", &always, NULL), DIP_INTERRUPTED);
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        char *flags = dip_format("--resume latest %s", changes[i]);
        assert_int_equal(tiny_run("resumed", flags, NULL, NULL), DIP_CONFIG);
        assert_non_null(strstr(dip_error(), "would not be the same run"));
        free(flags);
    }
    tiny_run_ok("resumed", "--resume latest --workers 3 --prefetch 4 --max-dropped-lines 5");
}

static int set_up(void **state)
{
    (void)state;
    tiny_init("test_dropped");
    char *pattern = dip_format("%s/bad/{00..}.tar", tiny_dir);
    tiny_write_shards(pattern, N_BAD);
    free(pattern);
    data_flags = dip_format("--train-data %s/bad --max-bad-fraction 1", tiny_dir);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    free(data_flags);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_dropped_is_counted_and_named),
        cmocka_unit_test(test_stopped_after_every_step),
        cmocka_unit_test(test_stopped_where_pairs_repeat),
        cmocka_unit_test(test_killed_after_a_checkpoint),
        cmocka_unit_test(test_too_many_bad_ones_stop_the_run),
        cmocka_unit_test(test_epochs_of_every_kind),
        cmocka_unit_test(test_mistakes_come_together),
        cmocka_unit_test(test_older_checkpoints_go_on),
        cmocka_unit_test(test_other_data_is_another_run),
        cmocka_unit_test(test_a_list_of_augmentations),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
