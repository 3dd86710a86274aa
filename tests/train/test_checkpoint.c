/* What a run leaves on disk: every damage is found before anything is resumed from it, a write that
 * fails leaves what was there, and a run that would not be the same run is refused.             */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/clip.h"
#include "train/checkpoint.h"
#include "train/tiny_run.h"

static const char *const files[] = {
    "trainer.json",          "open_clip_config.json", "spiece.model", "open_clip_model.safetensors",
    "ema_model.safetensors", "optimizer.safetensors", "ledger.json"};
enum { N_FILES = sizeof files / sizeof files[0] };

/* Copy epoch_3 of run "base" to the scratch folder NAME; its path, to be freed. */
static char *copy_checkpoint(const char *name)
{
    char *to_dir = dip_path_join(tiny_dir, name);
    assert_int_equal(dip_remove_tree(to_dir), DIP_OK);
    assert_int_equal(dip_make_dirs(to_dir), DIP_OK);
    for (int i = 0; i < N_FILES; i++) {
        char *rest = dip_format("epoch_3/%s", files[i]), *from = tiny_path("base", rest);
        char *to = dip_path_join(to_dir, files[i]), *data;
        size_t n;
        assert_int_equal(dip_file_read(&data, &n, from, 1 << 26), DIP_OK);
        assert_int_equal(dip_file_write(to, data, n), DIP_OK);
        free(data);
        free(to);
        free(from);
        free(rest);
    }
    return to_dir;
}

static dip_status examine(const char *dir)
{
    dip_progress progress;
    cJSON *configuration;
    dip_status status = dip_checkpoint_read_progress(&progress, &configuration, dir);
    cJSON_Delete(configuration);
    return status;
}

static void assert_says(const char *part)
{
    if (!strstr(dip_error(), part)) fail_msg("'%s' is not in: %s", part, dip_error());
}

/* tiny_run, refused in a sentence that holds `part`. */
static void assert_refused(const char *name, const char *flags, const char *part)
{
    const dip_status status = tiny_run(name, flags, NULL, NULL);
    if (status != DIP_CONFIG && status != DIP_FORMAT)
        fail_msg("%s: status %d, not a refusal: %s", flags, status, dip_error());
    assert_says(part);
}

/* ---- damage ---------------------------------------------------------------------------- */

static void test_every_flip_is_found(void **state)
{
    (void)state;
    char *dir = copy_checkpoint("flipped");
    assert_int_equal(examine(dir), DIP_OK);
    int n_flips = 0;
    for (int i = 0; i < N_FILES; i++) {
        char *path = dip_path_join(dir, files[i]);
        const int fd = open(path, O_RDWR);
        struct stat info;
        assert_int_equal(fstat(fd, &info), 0);
        /* All of the small files and of the headers' beginnings, then a byte here and there. */
        const int64_t step = info.st_size > 40000 ? 1499 : 1;
        for (int64_t at = 0; at < info.st_size; at += at < 300 && step > 1 ? 7 : step) {
            uint8_t byte, flipped;
            assert_int_equal(pread(fd, &byte, 1, at), 1);
            flipped = (uint8_t)(byte ^ (1u << (n_flips % 8)));
            assert_int_equal(pwrite(fd, &flipped, 1, at), 1);
            const dip_status status = examine(dir);
            if (status != DIP_FORMAT && status != DIP_CONFIG)
                fail_msg("byte %lld of %s is %d for %d: status %d", (long long)at, files[i],
                         flipped, byte, status);
            assert_non_null(strstr(dip_error(), files[i]));
            assert_int_equal(pwrite(fd, &byte, 1, at), 1);
            n_flips++;
        }
        close(fd);
        free(path);
    }
    assert_true(n_flips > 3000);
    assert_int_equal(examine(dir), DIP_OK);
    free(dir);
}

static void test_every_cut_is_found(void **state)
{
    (void)state;
    for (int i = 0; i < N_FILES; i++) {
        char *dir = copy_checkpoint("cut"), *path = dip_path_join(dir, files[i]);
        struct stat info;
        assert_int_equal(stat(path, &info), 0);
        for (int64_t length = info.st_size - 1; length >= 0; length -= 1 + length / 9) {
            assert_int_equal(truncate(path, length), 0);
            if (examine(dir) != DIP_FORMAT)
                fail_msg("%s cut to %lld bytes is not found", files[i], (long long)length);
        }
        assert_int_equal(unlink(path), 0);
        assert_int_equal(examine(dir), i == 0 ? DIP_CONFIG : DIP_FORMAT);
        assert_says(files[i]);
        free(path);
        free(dir);
    }
}

/* A file of another checkpoint, whole in itself. */
static void test_mixed_checkpoints_are_found(void **state)
{
    (void)state;
    char *dir = copy_checkpoint("mixed"),
         *from = tiny_path("base", "epoch_1/optimizer.safetensors");
    char *to = dip_path_join(dir, "optimizer.safetensors"), *data;
    size_t n;
    assert_int_equal(dip_file_read(&data, &n, from, 1 << 26), DIP_OK);
    assert_int_equal(dip_file_write(to, data, n), DIP_OK);
    assert_int_equal(examine(dir), DIP_FORMAT);
    assert_says("optimizer.safetensors");
    free(data);
    free(to);
    free(from);
    free(dir);
}

static void test_a_later_format_is_refused(void **state)
{
    (void)state;
    char *dir = copy_checkpoint("later"), *path = dip_path_join(dir, "trainer.json"), *text;
    size_t n;
    assert_int_equal(dip_file_read(&text, &n, path, 1 << 20), DIP_OK);
    *strchr(text, '2') = '7'; /* the first figure is format_version */
    assert_int_equal(dip_file_write(path, text, n), DIP_OK);
    assert_int_equal(examine(dir), DIP_FORMAT);
    assert_says("format_version is 7; this program reads 1 and 2");
    free(text);
    free(path);
    free(dir);
}

/* ---- what cannot be resumed from ------------------------------------------------------- */

static void test_refused_before_anything_is_written(void **state)
{
    (void)state;
    char *dir = copy_checkpoint("weights"), *flags = dip_format("--resume %s", dir);
    char *trainer = dip_path_join(dir, "trainer.json");
    char *weights = dip_path_join(dir, "open_clip_model.safetensors");
    char *logs = dip_format("%s/logs/fresh", tiny_dir);
    assert_int_equal(truncate(weights, 1000), 0);
    assert_refused("fresh", flags, "open_clip_model.safetensors is damaged");
    assert_int_equal(unlink(trainer), 0);
    assert_refused("fresh", flags, "weights at most");
    assert_int_equal(dip_remove_tree(dir), DIP_OK);
    assert_refused("fresh", flags, "no such checkpoint folder");
    assert_false(dip_path_exists(logs));
    /* With every other mistake of the command line. */
    char *more = dip_format("%s --loss siglip --tokenizer %s/none.model", flags, tiny_dir);
    assert_refused("fresh", more, "no such checkpoint folder");
    assert_says("siglip");
    assert_says("none.model");
    free(more);
    free(logs);
    free(weights);
    free(trainer);
    free(flags);
    free(dir);
}

static void test_another_run_is_refused(void **state)
{
    (void)state;
    char *path = tiny_path("base", "epoch_1"), *flags = dip_format("--resume %s", path), *more;
    more = dip_format("%s --lr 3e-3 --epochs 4", flags);
    assert_refused("fresh", more, "lr was 0.002, is 0.003");
    assert_says("epochs was 3, is 4");
    free(more);
    more = dip_format("%s --lr 3e-3 --epochs 4 --resume-changes lr", flags);
    assert_refused("fresh", more, "epochs was 3, is 4");
    assert_null(strstr(dip_error(), "lr was"));
    free(more);

    /* other data: another pattern, then another number of pairs */
    more = dip_format("%s --train-data %s/shards/{00..01}.tar", flags, tiny_dir);
    assert_refused("fresh", more, "train_data was");
    free(more);
    more = dip_format("%s --train-data %s/shards/{00..01}.tar --resume-changes train_data", flags,
                      tiny_dir);
    assert_refused("fresh", more, "had 32 training pairs, --train-data has 24");
    free(more);

    /* the same names, but other files behind them */
    char *model = dip_path_join(tiny_dir, "model.json"), *text, *place;
    size_t n;
    assert_int_equal(dip_file_read(&text, &n, model, 1 << 20), DIP_OK);
    place = strstr(text, "\"heads\": 2");
    assert_non_null(place);
    place[9] = '1';
    assert_int_equal(dip_file_write(model, text, n), DIP_OK);
    assert_refused("fresh", flags, "is not what --model");
    place[9] = '2';
    assert_int_equal(dip_file_write(model, text, n), DIP_OK);
    free(text);

    char *tokenizer = dip_path_join(tiny_dir, "spm.model");
    assert_int_equal(dip_file_read(&text, &n, tokenizer, 1 << 20), DIP_OK);
    /* The same number of pieces, learnt from all captions but a few. */
    const dip_tokenizer_train_options other = {.output = tokenizer,
                                               .vocab_size = 60,
                                               .model_type = "bpe",
                                               .character_coverage = 1,
                                               .next = tiny_next_caption,
                                               .next_context = &(int){4}};
    assert_int_equal(dip_tokenizer_train(&other, NULL), DIP_OK);
    assert_refused("fresh", flags, "--resume-changes tokenizer");
    assert_int_equal(dip_file_write(tokenizer, text, n), DIP_OK);
    free(text);

    char *logs = dip_format("%s/logs/fresh", tiny_dir);
    assert_false(dip_path_exists(logs));
    tiny_run_ok("fresh", flags); /* and the same run goes on, in another folder */
    assert_true(tiny_same("base", "fresh", "epoch_3/open_clip_model.safetensors"));
    assert_int_equal(dip_remove_tree(logs), DIP_OK);
    free(logs);
    free(tokenizer);
    free(model);
    free(flags);
    free(path);
}

static void test_run_folders(void **state)
{
    (void)state;
    assert_refused("base", "", "already holds a run");

    char *lock = dip_format("%s/logs/base/.lock", tiny_dir);
    const int fd = open(lock, O_RDWR);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    assert_refused("base", "--resume latest", "another process is training in");
    close(fd);
    free(lock);

    tiny_run_ok("linked", "--epochs 1");
    char *latest = tiny_path("linked", "epoch_latest"), *epoch = tiny_path("linked", "epoch_1");
    assert_int_equal(dip_remove_tree(epoch), DIP_OK);
    assert_refused("linked", "--epochs 1 --resume latest", "points at a checkpoint that is not");
    assert_refused("linked", "--epochs 1", "points at a checkpoint that is not");
    assert_int_equal(dip_symlink_replace("epoch_latest", latest), DIP_OK); /* a loop */
    assert_refused("linked", "--epochs 1 --resume latest", "points at a checkpoint that is not");
    free(epoch);
    free(latest);

    /* latest where there is nothing is a start, so that one command line serves both */
    tiny_run_ok("young", "--epochs 1 --resume latest");
    assert_true(tiny_has("young", "epoch_1"));
}

/* ---- writes that fail ------------------------------------------------------------------ */

static void limit_file_size(rlim_t n_bytes)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = n_bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* A step that has the model of run.json, and what else a checkpoint wants. */
typedef struct writer {
    dip_clip clip;
    dip_step step;
    dip_tokenizer *tokenizer;
    dip_progress progress;
    char *dir;
} writer;

static void writer_open(writer *w)
{
    char *model = dip_path_join(tiny_dir, "model.json");
    char *tokenizer = dip_path_join(tiny_dir, "spm.model");
    dip_model_config config;
    const dip_step_options options = {
        .device = device_under_test(),
        .dtype = DIP_F32,
        .n_threads = 1,
        .micro_batch = 2,
        .n_micro = 1,
        .loss = dip_loss_find("infonce"),
        .optimizer = {.beta1 = 0.9, .beta2 = 0.98, .eps = 1e-6, .ema_decay = 0.9}};
    *w = (writer){.progress = {.step = 7}, .dir = dip_path_join(tiny_dir, "written")};
    assert_int_equal(dip_remove_tree(w->dir), DIP_OK);
    assert_int_equal(dip_make_dirs(w->dir), DIP_OK);
    assert_int_equal(dip_tokenizer_open(&w->tokenizer, tokenizer), DIP_OK);
    assert_int_equal(dip_model_config_open(&config, model), DIP_OK);
    config.text.vocab_size = dip_tokenizer_vocab_size(w->tokenizer);
    assert_int_equal(dip_clip_init(&w->clip, &config), DIP_OK);
    assert_int_equal(dip_step_open(&w->step, &w->clip, &options), DIP_OK);
    assert_int_equal(dip_step_init_weights(&w->step, 1), DIP_OK);
    free(tokenizer);
    free(model);
}

static void writer_close(writer *w)
{
    dip_step_close(&w->step);
    dip_clip_free(&w->clip);
    dip_tokenizer_close(w->tokenizer);
    free(w->dir);
}

static dip_status write_as(writer *w, const char *name)
{
    const dip_checkpoint_extras extras = {0};
    return dip_checkpoint_write(&w->step, w->tokenizer, &w->progress, &extras, w->dir, name);
}

static void assert_latest_is(writer *w, const char *name, int64_t step)
{
    char *path = dip_path_join(w->dir, "epoch_latest"), target[64] = "";
    dip_progress progress;
    cJSON *configuration;
    assert_true(readlink(path, target, sizeof target - 1) > 0);
    assert_string_equal(target, name);
    assert_int_equal(dip_checkpoint_read_progress(&progress, &configuration, path), DIP_OK);
    assert_int_equal(dip_checkpoint_read(&w->step, &progress, path), DIP_OK);
    assert_int_equal(progress.step, step);
    cJSON_Delete(configuration);
    free(path);
}

static void test_a_full_disk_leaves_the_old_one(void **state)
{
    (void)state;
    /* Room for no file, for the first, ... for all but the last large one. */
    static const rlim_t limits[] = {0, 700, 100000, 240000, 300000};
    static const char *const names[] = {"epoch_1", "epoch_2"}; /* over itself, and beside it */
    writer w;
    writer_open(&w);
    assert_int_equal(write_as(&w, "epoch_1"), DIP_OK);
    assert_latest_is(&w, "epoch_1", 7);
    w.progress.step = 8;
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++)
        for (int n = 0; n < 2; n++) {
            limit_file_size(limits[i]);
            const dip_status status = write_as(&w, names[n]);
            limit_file_size(RLIM_INFINITY);
            if (status != DIP_IO)
                fail_msg("%s with files of at most %lld bytes: status %d", names[n],
                         (long long)limits[i], status);
            assert_says("File too large");
            assert_latest_is(&w, "epoch_1", 7);
            char *second = dip_path_join(w.dir, "epoch_2");
            assert_false(dip_path_exists(second));
            free(second);
        }
    /* Room again: what was left over is gone, and nothing but the checkpoints is there. */
    assert_int_equal(write_as(&w, "epoch_1"), DIP_OK);
    assert_latest_is(&w, "epoch_1", 8);
    w.progress.step = 9;
    assert_int_equal(write_as(&w, "epoch_2"), DIP_OK);
    assert_latest_is(&w, "epoch_2", 9);
    assert_int_equal(scratch_count(w.dir), 3);
    writer_close(&w);
}

static void test_no_place_to_write(void **state)
{
    (void)state;
    writer w;
    writer_open(&w);
    char *file = dip_path_join(w.dir, "file"), *kept = w.dir;
    assert_int_equal(dip_file_write(file, "x", 1), DIP_OK);
    w.dir = file;
    assert_int_equal(write_as(&w, "epoch_1"), DIP_IO);
    w.dir = kept;
    free(file);
    if (geteuid() != 0) { /* root may write anywhere */
        assert_int_equal(chmod(w.dir, 0500), 0);
        assert_int_equal(write_as(&w, "epoch_1"), DIP_IO);
        assert_int_equal(chmod(w.dir, 0700), 0);
    }
    assert_int_equal(write_as(&w, "epoch_1"), DIP_OK);
    writer_close(&w);
}

/* The same seen from a run: it ends with DIP_IO, and goes on when there is room. */
static void test_a_run_on_a_full_disk(void **state)
{
    (void)state;
    tiny_run_ok("full", "--epochs 1");
    const char *more = "--epochs 3 --resume latest --resume-changes epochs";
    limit_file_size(100000);
    const dip_status status = tiny_run("full", more, NULL, NULL);
    limit_file_size(RLIM_INFINITY);
    assert_int_equal(status, DIP_IO);
    char *latest = tiny_path("full", "epoch_latest"), target[64] = "";
    assert_true(readlink(latest, target, sizeof target - 1) > 0);
    assert_string_equal(target, "epoch_1");
    assert_int_equal(examine(latest), DIP_OK);
    free(latest);
    tiny_run_ok("full", more);
    assert_true(tiny_has("full", "epoch_3"));
    assert_false(tiny_has("full", ".tmp-epoch_2"));
}

/* ---- checkpoints that fit nothing ------------------------------------------------------ */

static void test_wrong_tensors(void **state)
{
    (void)state;
    writer w;
    writer_open(&w);
    const dip_progress progress = {0};
    char *dir = copy_checkpoint("tensors"), *weights = dip_path_join(dir, DIP_WEIGHTS_FILE);
    char *moments = dip_path_join(dir, "optimizer.safetensors"), *data;
    size_t n;
    assert_int_equal(dip_checkpoint_read(&w.step, &progress, dir), DIP_OK);
    assert_int_equal(dip_file_read(&data, &n, weights, 1 << 26), DIP_OK);
    assert_int_equal(dip_file_write(moments, data, n), DIP_OK);
    assert_int_equal(dip_checkpoint_read(&w.step, &progress, dir), DIP_FORMAT);
    assert_says("tensor exp_avg.");
    assert_int_equal(unlink(moments), 0);
    assert_int_equal(dip_checkpoint_read(&w.step, &progress, dir), DIP_IO);
    assert_says("optimizer.safetensors");
    free(data);

    /* a model of another width: every tensor that differs is named */
    dip_clip narrow;
    dip_model_config config = w.clip.config;
    config.text.width = 16;
    assert_int_equal(dip_clip_init(&narrow, &config), DIP_OK);
    dip_step step;
    assert_int_equal(dip_step_open(&step, &narrow, &w.step.options), DIP_OK);
    assert_int_equal(dip_checkpoint_read(&step, &progress, dir), DIP_FORMAT);
    assert_says("does not fit the model");
    assert_says("text_projection has the shape [32, 32], the model has [16, 32]");
    assert_says("ln_final.weight has the shape [32], the model has [16]");
    dip_step_close(&step);
    dip_clip_free(&narrow);
    free(moments);
    free(weights);
    free(dir);
    writer_close(&w);
}

static int set_up(void **state)
{
    (void)state;
    signal(SIGXFSZ, SIG_IGN); /* as the program does: an error of write, not a death */
    tiny_init("test_checkpoint");
    tiny_run_ok("base", "");
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_flip_is_found),
        cmocka_unit_test(test_every_cut_is_found),
        cmocka_unit_test(test_mixed_checkpoints_are_found),
        cmocka_unit_test(test_a_later_format_is_refused),
        cmocka_unit_test(test_refused_before_anything_is_written),
        cmocka_unit_test(test_another_run_is_refused),
        cmocka_unit_test(test_run_folders),
        cmocka_unit_test(test_a_full_disk_leaves_the_old_one),
        cmocka_unit_test(test_no_place_to_write),
        cmocka_unit_test(test_a_run_on_a_full_disk),
        cmocka_unit_test(test_wrong_tensors),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
