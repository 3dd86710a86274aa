/* diptych bench data: how fast shards become batches, beside the bare decoder.
 *
 * Everything is measured in turn, round after round, so that a machine that is busy for a while is
 * busy for all; the figures are medians over the rounds, the ratios medians of each round's own. */
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/rng.h"
#include "core/threads.h"
#include "data/fill.h"
#include "data/loader.h"
#include "data/pattern.h"
#include "tools/bench.h"
#include "tools/bench_bare.h"

enum { BATCH = 64, PREFETCH = 5, MAX_RATES = 32, MAX_ROUNDS = 101, PEER_BYTES = 1 << 16 };

typedef struct data_bench {
    char *shards, *peer, *augmentations;
    int64_t size, workers, repeat, max_images;
    bool scale_in_dct, json;
} data_bench;

#define AT(field) offsetof(data_bench, field)
static const dip_option rows[] = {
    {"shards", DIP_OPT_STRING, AT(shards), NULL, 0, 0, NULL, true, "PATTERN",
     "Shards to read; may be given as the first word."},
    {"size", DIP_OPT_INT, AT(size), "224", 1, 4096, NULL, false, "PIXELS", "Side of the output."},
    {"workers", DIP_OPT_INT, AT(workers), "0", 0, 1024, NULL, false, "N",
     "Measure 1, 2, 4, ... and N decoding threads. 0: one a core."},
    {"repeat", DIP_OPT_INT, AT(repeat), "5", 1, MAX_ROUNDS, NULL, false, "N", "Rounds."},
    {"max-images", DIP_OPT_INT, AT(max_images), "2000", 1, 1000000, NULL, false, "N",
     "Use only so many images. They are kept in memory for the bare decoder."},
    {"augmentations", DIP_OPT_STRING, AT(augmentations), "random_resized_crop(0.9..1)", 0, 0, NULL,
     false, "LIST", "As pretrain's."},
    {"scale-in-dct", DIP_OPT_BOOL, AT(scale_in_dct), "false", 0, 0, NULL, false, NULL,
     "As pretrain's: JPEGs much larger than the output are decoded smaller."},
    {"peer", DIP_OPT_STRING, AT(peer), NULL, 0, 0, NULL, false, "COMMAND",
     "Another loader to measure in every round: words separated by blanks, run without a shell as "
     "COMMAND --size PIXELS --workers 1 --repeat 1 SHARD...; its last line must be JSON with "
     "images_s_core."},
    {"json", DIP_OPT_BOOL, AT(json), "false", 0, 0, NULL, false, NULL,
     "One JSON object on stdout."},
};
#undef AT
const dip_option_table dip_bench_data_table = {rows, sizeof rows / sizeof rows[0], false};

/* ---- our stages, one thread -------------------------------------------------------------- */

enum { READ, DECODE, RESIZE, N_STAGES };

/* Seconds an image of each stage. Rows are resized while others are still to be decoded: the resize
 * is what the two together take longer than the decode alone. The clock is read around every stage
 * of every image: some tens of nanoseconds. */
static dip_status stage_seconds(double seconds[N_STAGES], const dip_pictures *all,
                                const dip_samples *samples, const data_bench *o)
{
    dip_sample_reader *reader = NULL;
    dip_image_decoder *decoder = NULL;
    dip_resizer *resizer = NULL;
    dip_decode_options decode = dip_decode_defaults();
    dip_status status;
    const int size = (int)o->size;
    uint8_t *out = malloc((size_t)size * (size_t)size * 3);
    double total[N_STAGES] = {0};
    if (!out) return dip_fail(DIP_NOMEM, "no memory for an image of %d pixels", size);
    decode.scale_in_dct = o->scale_in_dct;
    decode.is_padded = true;
    DIP_TRY_GOTO(dip_sample_reader_open(&reader, samples));
    DIP_TRY_GOTO(dip_image_decoder_open_with(&decoder, &decode));
    DIP_TRY_GOTO(dip_resizer_open(&resizer));
    for (int64_t i = 0; i < all->n; i++) {
        const dip_picture *p = &all->items[i];
        dip_sample sample;
        dip_image image;
        dip_rect region;
        dip_fault_kind kind;
        int width, height;
        const double t0 = dip_bench_now();
        DIP_TRY_GOTO(dip_sample_read(reader, &sample, p->index, DIP_NEEDS_IMAGE, &kind));
        const double t1 = dip_bench_now();
        DIP_TRY_GOTO(
            dip_image_start(decoder, &width, &height, &kind, sample.image, sample.image_bytes));
        DIP_TRY_GOTO(dip_image_finish(decoder, &image, &region, &kind, p->box, size, size));
        const double t2 = dip_bench_now();
        DIP_TRY_GOTO(
            dip_image_start(decoder, &width, &height, &kind, sample.image, sample.image_bytes));
        DIP_TRY_GOTO(
            dip_image_cut(decoder, resizer, out, size, size, &kind, p->box, DIP_BICUBIC, 0));
        const double t3 = dip_bench_now();
        total[READ] += t1 - t0;
        total[DECODE] += t2 - t1;
        total[RESIZE] += (t3 - t2) - (t2 - t1);
    }
    for (int k = 0; k < N_STAGES; k++) seconds[k] = total[k] / (double)all->n;
    status = DIP_OK;
fail:
    dip_resizer_close(resizer);
    dip_image_decoder_close(decoder);
    dip_sample_reader_close(reader);
    free(out);
    return status;
}

/* ---- the whole path ---------------------------------------------------------------------- */

typedef struct path {
    const dip_samples *samples;
    dip_faults *faults;
    dip_augmentation *augmentation;
    const data_bench *o;
    double opened, first_batch_seconds; /* of the first loader */
} path;

static dip_loader_options loader_options(const path *p, int n_workers)
{
    dip_loader_options options = {
        .samples = p->samples,
        .faults = p->faults,
        .batch_size = BATCH,
        .image_size = (int)p->o->size,
        .n_workers = n_workers,
        .n_prefetch = PREFETCH,
        .shuffle = 1,
        .last_batch = DIP_LAST_KEEP, /* all images, and none decoded for nothing */
        .decode = dip_decode_defaults(),
        .max_bad_fraction = 1,
        .augmentation = p->augmentation,
        .filter = DIP_BICUBIC,
    };
    options.decode.scale_in_dct = p->o->scale_in_dct;
    return options;
}

/* One epoch, or as much of it as is asked for: how many images, in how many seconds. */
static dip_status run_epoch(dip_loader *loader, path *p, int64_t epoch, int64_t *n, double *seconds)
{
    dip_batch batch;
    dip_status status = DIP_OK;
    const double start = dip_bench_now();
    *n = 0;
    DIP_TRY(dip_loader_start(loader, epoch, 0, 0));
    while (*n < p->o->max_images && (status = dip_loader_next(loader, &batch)) == DIP_OK) {
        if (p->first_batch_seconds == 0) p->first_batch_seconds = dip_bench_now() - p->opened;
        *n += batch.n;
    }
    *seconds = dip_bench_now() - start;
    return status == DIP_END ? DIP_OK : status;
}

/* Images a second with so many workers, as in a long run: a first epoch, in which the loader's
 * memory is touched for the first time, is not counted. */
static dip_status path_rate(double *rate, path *p, int n_workers, int64_t epoch)
{
    const dip_loader_options options = loader_options(p, n_workers);
    dip_loader *loader = NULL;
    dip_status status;
    int64_t n;
    double seconds;
    p->opened = dip_bench_now();
    DIP_TRY(dip_loader_open(&loader, &options));
    DIP_TRY_GOTO(run_epoch(loader, p, 2 * epoch, &n, &seconds));
    DIP_TRY_GOTO(run_epoch(loader, p, 2 * epoch + 1, &n, &seconds));
    *rate = (double)n / seconds;
fail:
    dip_loader_close(loader);
    return status;
}

/* ---- the peer ---------------------------------------------------------------------------- */

/* Split at blanks, in place. */
static size_t split_words(char **words, size_t max, char *text)
{
    size_t n = 0;
    for (char *word = strtok(text, " "); word && n < max; word = strtok(NULL, " "))
        words[n++] = word;
    return n;
}

static dip_status run_peer(char *answer, char *const *words)
{
    extern char **environ;
    posix_spawn_file_actions_t actions;
    int ends[2], exit_status = -1;
    pid_t child;
    if (pipe(ends) != 0) return dip_fail(DIP_IO, "no pipe for --peer");
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    posix_spawn_file_actions_addclose(&actions, ends[1]);
    const int error = posix_spawnp(&child, words[0], &actions, NULL, words, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    size_t used = 0;
    for (ssize_t n; !error && used + 1 < PEER_BYTES &&
                    (n = read(ends[0], answer + used, PEER_BYTES - 1 - used)) > 0;)
        used += (size_t)n;
    answer[used] = '\0';
    close(ends[0]);
    if (error) return dip_fail(DIP_CONFIG, "--peer: %s: %s", words[0], strerror(error));
    waitpid(child, &exit_status, 0);
    if (exit_status != 0)
        return dip_fail(DIP_CONFIG, "--peer: %s ended with status %d", words[0], exit_status);
    return DIP_OK;
}

/* Images a second a core, as the peer says. */
static dip_status peer_rate(double *rate, const data_bench *o, const dip_string_list *shards)
{
    enum { MOST = 32 };
    char size[24], *answer = malloc(PEER_BYTES), *command = strdup(o->peer);
    char **words = calloc(MOST + 8 + shards->n_items, sizeof *words);
    dip_status status = DIP_NOMEM;
    if (!answer || !command || !words) {
        dip_fail(DIP_NOMEM, "no memory to run --peer");
        goto fail;
    }
    size_t n = split_words(words, MOST, command);
    snprintf(size, sizeof size, "%lld", (long long)o->size);
    char *const options[] = {"--size", size, "--workers", "1", "--repeat", "1"};
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) words[n++] = options[i];
    for (size_t i = 0; i < shards->n_items; i++) words[n++] = shards->items[i];
    DIP_TRY_GOTO(run_peer(answer, words));
    const char *line = strstr(answer, "\"images_s_core\"");
    const char *colon = line ? strchr(line, ':') : NULL;
    *rate = colon ? strtod(colon + 1, NULL) : 0;
    if (*rate <= 0)
        status =
            dip_fail(DIP_CONFIG, "--peer: %s printed no images_s_core: %.200s", words[0], answer);
fail:
    free(words);
    free(command);
    free(answer);
    return status;
}

/* ---- rounds ------------------------------------------------------------------------------ */

/* One value a round, of each thing measured. */
typedef struct rounds {
    int n_rates, workers[MAX_RATES]; /* 1, 2, 4, ..., the most */
    double stage[N_STAGES][MAX_ROUNDS], bare[MAX_ROUNDS], bare_all[MAX_ROUNDS];
    double path[MAX_RATES][MAX_ROUNDS], peer[MAX_ROUNDS];
} rounds;

static void choose_workers(rounds *r, int most)
{
    for (int n = 1; n < most && r->n_rates < MAX_RATES - 1; n *= 2) r->workers[r->n_rates++] = n;
    r->workers[r->n_rates++] = most;
}

/* The path with so many workers between two bare rates on so many threads, whose mean counts: a
 * machine that changes its speed does so for both. */
static dip_status measure_between(double *bare, double *rate, path *p, const dip_pictures *all,
                                  int n_threads, int n_workers, int64_t epoch)
{
    double before, after;
    DIP_TRY(dip_bare_rate(&before, all, n_threads));
    DIP_TRY(path_rate(rate, p, n_workers, epoch));
    DIP_TRY(dip_bare_rate(&after, all, n_threads));
    *bare = 2 / (1 / before + 1 / after);
    return DIP_OK;
}

static dip_status measure(rounds *r, path *p, const dip_pictures *all,
                          const dip_string_list *shards)
{
    const int n_cores = dip_core_count(), last = r->n_rates - 1;
    for (int64_t i = -1; i < p->o->repeat; i++) { /* the first warms caches */
        const int64_t at = i < 0 ? 0 : i;
        double seconds[N_STAGES] = {0};
        DIP_TRY(stage_seconds(seconds, all, p->samples, p->o));
        for (int k = 0; k < N_STAGES; k++) r->stage[k][at] = seconds[k];
        DIP_TRY(measure_between(&r->bare[at], &r->path[0][at], p, all, 1, 1, at));
        for (int k = 1; k < last; k++) DIP_TRY(path_rate(&r->path[k][at], p, r->workers[k], at));
        if (last > 0)
            DIP_TRY(measure_between(&r->bare_all[at], &r->path[last][at], p, all, n_cores,
                                    r->workers[last], at));
        else
            r->bare_all[at] = r->bare[at];
        if (p->o->peer) DIP_TRY(peer_rate(&r->peer[at], p->o, shards));
    }
    return DIP_OK;
}

static double median_of(const double *values, int64_t n)
{
    double copy[MAX_ROUNDS];
    memcpy(copy, values, (size_t)n * sizeof *copy);
    return dip_bench_median(copy, (size_t)n);
}

static double median_ratio(const double *a, const double *b, int64_t n)
{
    double ratios[MAX_ROUNDS];
    for (int64_t i = 0; i < n; i++) ratios[i] = a[i] / b[i];
    return dip_bench_median(ratios, (size_t)n);
}

static void figure(cJSON *f, const char *name, double value)
{
    cJSON_AddNumberToObject(f, name, value);
}

static cJSON *figures_of(const rounds *r, const path *p, const dip_pictures *all,
                         double index_seconds)
{
    const int64_t n = p->o->repeat;
    const int last = r->n_rates - 1, n_cores = dip_core_count();
    const int n_used = r->workers[last] < n_cores ? r->workers[last] : n_cores;
    cJSON *f = cJSON_CreateObject();
    char name[48];
    figure(f, "size", (double)p->o->size);
    figure(f, "cores", n_cores);
    figure(f, "images", (double)all->n);
    figure(f, "mean_pixels", all->n_pixels / (double)all->n);
    figure(f, "mean_bytes", all->n_bytes / (double)all->n);
    figure(f, "index_s", index_seconds);
    figure(f, "first_batch_s", p->first_batch_seconds);
    figure(f, "read_us", 1e6 * median_of(r->stage[READ], n));
    figure(f, "decode_us", 1e6 * median_of(r->stage[DECODE], n));
    figure(f, "resize_us", 1e6 * median_of(r->stage[RESIZE], n));
    figure(f, "bare_decode_images_s_core", median_of(r->bare, n));
    figure(f, "bare_decode_images_s", median_of(r->bare_all, n));
    for (int k = 0; k < r->n_rates; k++) {
        snprintf(name, sizeof name, "images_s_%d", r->workers[k]);
        figure(f, name, median_of(r->path[k], n));
    }
    figure(f, "workers", r->workers[last]);
    figure(f, "images_s", median_of(r->path[last], n));
    figure(f, "images_s_core", median_of(r->path[last], n) / n_used);
    figure(f, "share_of_bare_one_core", median_ratio(r->path[0], r->bare, n));
    figure(f, "share_of_bare_all_cores", median_ratio(r->path[last], r->bare_all, n));
    figure(f, "scaling", median_ratio(r->path[last], r->path[0], n) / n_used);
    if (p->o->peer) {
        figure(f, "peer_images_s_core", median_of(r->peer, n));
        figure(f, "ratio_to_peer", median_ratio(r->path[0], r->peer, n));
    }
    figure(f, "dropped", (double)dip_faults_total(p->faults));
    figure(f, "peak_rss_bytes", dip_bench_peak_bytes());
    return f;
}

/* ---- the command ------------------------------------------------------------------------- */

/* `bench data SHARDS ...` is `bench data --shards SHARDS ...`. */
static dip_status parse(data_bench *o, int argc, char **argv)
{
    char *flag = "--shards", **words = malloc(((size_t)argc + 1) * sizeof *words);
    if (!words) return dip_fail(DIP_NOMEM, "no memory for %d words", argc);
    const int bare = argc > 0 && argv[0][0] != '-';
    if (bare) words[0] = flag;
    for (int i = 0; i < argc; i++) words[i + bare] = argv[i];
    dip_status status = dip_config_defaults(&dip_bench_data_table, o);
    if (status == DIP_OK) status = dip_config_parse(&dip_bench_data_table, o, argc + bare, words);
    free(words);
    return status;
}

dip_status dip_bench_data(int argc, char **argv)
{
    data_bench o = {0};
    dip_string_list shards = {0};
    dip_samples *samples = NULL;
    dip_pictures all = {0};
    path p = {.o = &o};
    dip_status status;
    rounds *r = calloc(1, sizeof *r);
    if (!r) return dip_fail(DIP_NOMEM, "no memory for the timings");
    DIP_TRY_GOTO(parse(&o, argc, argv));
    DIP_TRY_GOTO(dip_augmentation_parse(&p.augmentation, o.augmentations));
    DIP_TRY_GOTO(dip_pattern_expand_files(&shards, o.shards));
    DIP_TRY_GOTO(dip_faults_open(&p.faults));
    const double start = dip_bench_now();
    const dip_samples_options images = {.needs = DIP_NEEDS_IMAGE};
    DIP_TRY_GOTO(dip_samples_open(&samples, &shards, &images, p.faults));
    const double index_seconds = dip_bench_now() - start;
    p.samples = samples;
    DIP_TRY_GOTO(dip_pictures_read(&all, samples, o.max_images));
    choose_workers(r, o.workers ? (int)o.workers : dip_core_count());
    DIP_TRY_GOTO(measure(r, &p, &all, &shards));
    dip_faults_print(p.faults, stderr);
    status = dip_bench_report(figures_of(r, &p, &all, index_seconds), o.json);
fail:
    dip_pictures_free(&all);
    dip_samples_close(samples);
    dip_faults_close(p.faults);
    dip_augmentation_free(p.augmentation);
    dip_string_list_free(&shards);
    dip_config_free(&dip_bench_data_table, &o);
    free(r);
    return status;
}
