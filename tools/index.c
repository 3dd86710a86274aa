/* diptych index - checksums beside shards that other software wrote. Each shard is one thread's. */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "core/threads.h"
#include "data/pattern.h"
#include "tools/command.h"
#include "tools/encoding.h"
#include "tools/index.h"
#include "tools/interrupt.h"

enum { MAX_JOBS = 1024, MAX_NOTES = 20, MAX_NAMED = 1000, PROGRESS_SECONDS = 10 };

typedef struct index_flags {
    dip_string_list shards;
    int64_t jobs;
    char *faults;
    bool force, json;
} index_flags;

static const dip_option options[] = {
    {"shards", DIP_OPT_LIST, offsetof(index_flags, shards), NULL, 0, 0, NULL, true, "PATTERN",
     "The shards: names, patterns with braces, folders of .tar files. The word itself may be left "
     "out where they come first."},
    {"force", DIP_OPT_BOOL, offsetof(index_flags, force), "false", 0, 0, NULL, false, NULL,
     "Also read shards whose index fits, and replace it; what it said otherwise is named. Also "
     "replace files of an index's name that are of other software."},
    {"jobs", DIP_OPT_INT, offsetof(index_flags, jobs), "0", 0, MAX_JOBS, NULL, false, "N",
     "Threads, each with a shard of its own; 0: one a core. The indexes are the same for any "
     "number."},
    {"faults", DIP_OPT_STRING, offsetof(index_flags, faults), NULL, 0, 0, NULL, false, "FILE",
     "Write every fault as a line of JSON. Standard error names the first ones."},
    {"json", DIP_OPT_BOOL, offsetof(index_flags, json), "false", 0, 0, NULL, false, NULL,
     "Print exactly one JSON object on stdout."},
};
static const dip_option_table table = {options, sizeof options / sizeof *options, false};

typedef struct index_run {
    dip_string_list shards;
    index_maker_options maker;
    index_result *result; /* [shards.n_items], those that are done */
    pthread_mutex_t lock;
    size_t next, n_done;
    size_t failed; /* the first shard that failed; n_items: none */
    dip_status status;
    char *why;
    int n_notes;
    uint64_t n_bytes;
    double started_s, shown_s;
} index_run;

/* Progress. */

static dip_status advance(void *context, uint64_t n_bytes)
{
    index_run *run = context;
    const double now = dip_seconds_now();
    pthread_mutex_lock(&run->lock);
    run->n_bytes += n_bytes;
    if (now - run->shown_s >= PROGRESS_SECONDS) {
        const double mb = (double)run->n_bytes * 1e-6;
        run->shown_s = now;
        dip_info("%zu of %zu shards, %.0f MB read, %.0f MB/s", run->n_done, run->shards.n_items, mb,
                 mb / (now - run->started_s));
    }
    pthread_mutex_unlock(&run->lock);
    return dip_interrupt_requested() ? DIP_INTERRUPTED : DIP_OK;
}

/* With the lock held. */
static void count_shard(index_run *run, const index_result *result)
{
    run->n_done++;
    if (result->outcome == INDEX_REPLACED && result->note && run->n_notes++ < MAX_NOTES)
        dip_warn("%s", result->note);
}

/* Threads. */

/* With the lock held. */
static void remember_failure(index_run *run, size_t shard, dip_status status)
{
    if (shard >= run->failed) return;
    run->failed = shard;
    run->status = status;
    free(run->why);
    run->why = strdup(dip_error());
}

static void *index_shards(void *argument)
{
    index_run *run = argument;
    index_maker *maker;
    const dip_status opened = index_maker_open(&maker, &run->maker);
    pthread_mutex_lock(&run->lock);
    while (run->next < run->failed && !dip_interrupt_requested()) {
        const size_t shard = run->next++;
        pthread_mutex_unlock(&run->lock);
        dip_status status = opened;
        if (maker) status = index_make(maker, &run->result[shard], run->shards.items[shard]);
        pthread_mutex_lock(&run->lock);
        if (status == DIP_OK)
            count_shard(run, &run->result[shard]);
        else
            remember_failure(run, shard, status);
    }
    pthread_mutex_unlock(&run->lock);
    index_maker_close(maker);
    return NULL;
}

/* How it ended, once all threads have. */
static dip_status ending(const index_run *run)
{
    if (run->n_notes > MAX_NOTES)
        dip_warn("%d more indexes that were not right were replaced", run->n_notes - MAX_NOTES);
    if (run->n_done == run->shards.n_items) return DIP_OK;
    if (run->status == DIP_OK || run->status == DIP_INTERRUPTED)
        return dip_fail(DIP_INTERRUPTED,
                        "stopped on request; %zu of %zu shards are done: run the same command "
                        "again to go on",
                        run->n_done, run->shards.n_items);
    return dip_fail(run->status, "%s", run->why ? run->why : "no memory for the reason");
}

static dip_status index_all(index_run *run, int64_t jobs)
{
    pthread_t threads[MAX_JOBS];
    dip_interrupt interrupt;
    int n_threads = jobs > 0 ? (int)jobs : dip_core_count(), n_started = 0;
    if (n_threads > MAX_JOBS) n_threads = MAX_JOBS;
    if ((size_t)n_threads > run->shards.n_items) n_threads = (int)run->shards.n_items;
    dip_interrupt_catch(&interrupt);
    while (n_threads > 1 && n_started < n_threads &&
           pthread_create(&threads[n_started], NULL, index_shards, run) == 0)
        n_started++;
    if (n_started == 0) index_shards(run);
    for (int i = 0; i < n_started; i++) pthread_join(threads[i], NULL);
    dip_interrupt_release(&interrupt);
    return ending(run);
}

/* The result. */

static dip_status print_result(const index_run *run, bool json)
{
    int64_t n[INDEX_N_OUTCOMES] = {0}, n_members = 0, n_skipped = 0;
    cJSON *report = cJSON_CreateObject(), *refused = cJSON_CreateArray();
    for (size_t i = 0; i < run->shards.n_items; i++) {
        const index_result *result = &run->result[i];
        n[result->outcome]++;
        n_members += result->n_members;
        n_skipped += result->n_skipped;
        if (result->outcome == INDEX_REFUSED && n[INDEX_REFUSED] <= MAX_NAMED)
            cJSON_AddItemToArray(refused, cJSON_CreateString(run->shards.items[i]));
    }
    cJSON_AddNumberToObject(report, "n_shards", (double)run->shards.n_items);
    cJSON_AddNumberToObject(report, "n_written", (double)n[INDEX_WRITTEN]);
    cJSON_AddNumberToObject(report, "n_replaced", (double)n[INDEX_REPLACED]);
    cJSON_AddNumberToObject(report, "n_kept", (double)n[INDEX_KEPT]);
    cJSON_AddNumberToObject(report, "n_refused", (double)n[INDEX_REFUSED]);
    cJSON_AddNumberToObject(report, "n_faults", (double)dip_faults_total(run->maker.faults));
    cJSON_AddNumberToObject(report, "n_members", (double)n_members);
    cJSON_AddNumberToObject(report, "n_bytes", (double)run->n_bytes);
    cJSON_AddItemToObject(report, "refused", refused);
    dip_status status = dip_report_print(report, json);
    cJSON_Delete(report);
    DIP_TRY(status);
    if (n_skipped > 0)
        dip_warn("no index lists the links and devices of the shards, of which there are %" PRId64,
                 n_skipped);
    if (n[INDEX_REFUSED] == 0) return DIP_OK;
    return dip_fail(DIP_FORMAT, "no index was written for %" PRId64 " of %zu shard%s",
                    n[INDEX_REFUSED], run->shards.n_items, run->shards.n_items == 1 ? "" : "s");
}

/* A run. */

/* The words are one pattern, so that all that cannot be read is refused at once. */
static dip_status find_shards(dip_string_list *shards, const dip_string_list *words)
{
    char *pattern = strdup(words->items[0]);
    for (size_t i = 1; pattern && i < words->n_items; i++) {
        char *longer = dip_format("%s::%s", pattern, words->items[i]);
        free(pattern);
        pattern = longer;
    }
    dip_status status = pattern ? dip_pattern_expand_files(shards, pattern)
                                : dip_fail(DIP_NOMEM, "no memory for the names of shards");
    free(pattern);
    return status;
}

static dip_status run_flags(const index_flags *flags)
{
    const double now = dip_seconds_now();
    index_run run = {.started_s = now, .shown_s = now};
    dip_status status;
    pthread_mutex_init(&run.lock, NULL);
    run.maker = (index_maker_options){.force = flags->force, .advance = advance, .context = &run};
    DIP_TRY_GOTO(find_shards(&run.shards, &flags->shards));
    run.failed = run.shards.n_items;
    run.result = calloc(run.shards.n_items + 1, sizeof *run.result);
    if (!run.result) {
        status = dip_fail(DIP_NOMEM, "no memory for %zu shards", run.shards.n_items);
        goto fail;
    }
    DIP_TRY_GOTO(dip_faults_open(&run.maker.faults));
    if (flags->faults)
        DIP_TRY_GOTO(dip_faults_record(run.maker.faults, flags->faults, 0, INT64_MAX));
    DIP_TRY_GOTO(index_all(&run, flags->jobs));
    status = print_result(&run, flags->json);
fail:
    for (size_t i = 0; run.result && i < run.shards.n_items; i++) index_result_free(&run.result[i]);
    free(run.result);
    free(run.why);
    dip_faults_close(run.maker.faults);
    dip_string_list_free(&run.shards);
    pthread_mutex_destroy(&run.lock);
    return status;
}

/* Words before the first option are --shards' own. */
static dip_status parse(index_flags *flags, int argc, char **argv)
{
    if (argc == 0 || strncmp(argv[0], "--", 2) == 0)
        return dip_config_parse(&table, flags, argc, argv);
    static char shards[] = "--shards";
    char **words = malloc(((size_t)argc + 1) * sizeof *words);
    if (!words) return dip_fail(DIP_NOMEM, "no memory to start");
    words[0] = shards;
    memcpy(words + 1, argv, (size_t)argc * sizeof *words);
    dip_status status = dip_config_parse(&table, flags, argc + 1, words);
    free(words);
    return status;
}

static dip_status run(int argc, char **argv)
{
    index_flags flags = {0};
    dip_status status;
    DIP_TRY_GOTO(dip_config_defaults(&table, &flags));
    DIP_TRY_GOTO(parse(&flags, argc, argv));
    status = run_flags(&flags);
fail:
    dip_config_free(&table, &flags);
    return status;
}

const dip_command dip_command_index = {
    .name = "index",
    .summary = "write the checksums of shards that you already have beside them",
    .usage = "diptych index SHARDS... [--force] [--jobs N] [--faults FILE] [--json]",
    .description =
        "Reads every shard once and writes SHARD.tar.idx beside it: where each member lies, and a "
        "checksum of its bytes, as `diptych shard` does for its own. With it a shard is opened "
        "without reading all of it, and damage that comes later is named. The shards themselves "
        "are not changed.\n\n"
        "A shard whose headers are damaged, that is cut off, empty or no tar file, or that changes "
        "while it is read, is named and gets no index; the others do, and the exit status is 2. A "
        "checksum is of the bytes as they are now: whether images decode and captions can be read "
        "is what `diptych inspect --shards` tells.\n\n"
        "An index that fits its shard (size and first member) is left alone, without reading the "
        "shard; one that does not, or is damaged, is replaced, and that is said. Nothing is ever "
        "removed. Each index appears complete or not at all; after an interruption the same "
        "command goes on.",
    .options = &table,
    .run = run,
};
