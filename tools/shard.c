/* diptych shard - turn images and captions of many kinds into WebDataset shards. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "data/pattern.h"
#include "tools/command.h"
#include "tools/interrupt.h"
#include "tools/shard.h"

/* A run. */

/* A position that an earlier run left out. */
typedef struct remembered {
    int64_t position;
    dip_fault_kind kind;
    char *detail;
} remembered;

typedef struct shard_run {
    const shard_options *o;
    shard_losses *lost;
    shard_plan plan;
    dip_pairs *pairs;
    dip_dedup *dedup;
    char *journal_path;
    shard_journal *journal;
    remembered *remembered; /* what the journal names, by position; the first n_told are told */
    size_t n_remembered, n_told, remembered_capacity;
    bool worthless; /* what was written is of no use and goes */
} shard_run;

static dip_status check_output(const char *pattern)
{
    dip_string_list there;
    DIP_TRY(dip_shard_writer_existing(&there, pattern));
    dip_status status = DIP_OK;
    if (there.n_items > 0)
        status = there.n_items == 1
                     ? dip_fail(DIP_CONFIG, "%s exists (--overwrite replaces it)", there.items[0])
                     : dip_fail(DIP_CONFIG,
                                "%s exists, as do%s %zu more shard%s of '%s' (--overwrite replaces "
                                "them)",
                                there.items[0], there.n_items == 2 ? "es" : "", there.n_items - 1,
                                there.n_items == 2 ? "" : "s", pattern);
    dip_string_list_free(&there);
    return status;
}

/* Everything that can be refused, before anything is written. */
static dip_status prepare(shard_run *run)
{
    const shard_options *o = run->o;
    DIP_TRY(shard_plan_outputs(&run->plan, o));
    run->journal_path = shard_journal_path(o->output);
    if (!run->journal_path) return dip_fail(DIP_NOMEM, "no memory to start");
    bool goes_on = !o->overwrite && shard_journal_exists(run->journal_path);
    for (int i = 0; i < run->plan.n_outputs && !o->overwrite && !goes_on; i++)
        DIP_TRY(check_output(run->plan.outputs[i].pattern));
    DIP_TRY(shard_open_input(&run->pairs, o, &run->plan, run->lost));
    return shard_plan_order(&run->plan, o, run->pairs);
}

/* A position into the ledger. */
static dip_status lose_position(shard_run *run, int64_t position, dip_fault_kind kind,
                                const char *detail)
{
    char *name = dip_pairs_name(run->pairs, run->plan.index[position]);
    char *where = name ? dip_format("%s: %s", run->o->input, name) : NULL;
    if (where) shard_lose(run->lost, kind, where, detail);
    free(name);
    free(where);
    return where ? DIP_OK : dip_fail(DIP_NOMEM, "no memory for a name");
}

/* What the journal of an earlier run tells. */

static dip_status check_place(const shard_run *run, int64_t position, int64_t end)
{
    if (position >= 0 && position < end) return DIP_OK;
    return dip_fail(DIP_FORMAT,
                    "%s: a position that the input does not have (--overwrite starts "
                    "anew)",
                    run->journal_path);
}

static dip_status restore_lost(void *context, int64_t position, dip_fault_kind kind,
                               const char *detail)
{
    shard_run *run = context;
    DIP_TRY(check_place(run, position, run->plan.n));
    if (run->n_remembered == run->remembered_capacity) {
        size_t capacity = run->remembered_capacity ? 2 * run->remembered_capacity : 64;
        remembered *grown = realloc(run->remembered, capacity * sizeof *grown);
        if (!grown) return dip_fail(DIP_NOMEM, "no memory for the journal");
        run->remembered = grown;
        run->remembered_capacity = capacity;
    }
    char *copy = strdup(detail);
    if (!copy) return dip_fail(DIP_NOMEM, "no memory for the journal");
    run->remembered[run->n_remembered++] = (remembered){position, kind, copy};
    return DIP_OK;
}

static int by_position(const void *a, const void *b)
{
    const remembered *x = a, *y = b;
    return (x->position > y->position) - (x->position < y->position);
}

/* The ledger hears of all positions in their order, whichever run left them out. */
static dip_status tell_remembered(shard_run *run, int64_t before)
{
    for (; run->n_told < run->n_remembered; run->n_told++) {
        const remembered *r = &run->remembered[run->n_told];
        if (r->position >= before) break;
        DIP_TRY(lose_position(run, r->position, r->kind, r->detail));
    }
    return DIP_OK;
}

static dip_status restore_kept(void *context, int64_t position, const dip_dedup_sign *sign)
{
    shard_run *run = context;
    DIP_TRY(check_place(run, position, run->plan.n));
    return run->dedup ? dip_dedup_keep(run->dedup, sign, position) : DIP_OK;
}

static dip_status restore_shard(void *context, int output, const dip_finished_shard *shard,
                                int64_t position)
{
    shard_run *run = context;
    DIP_TRY(check_place(run, position, run->plan.n + 1));
    DIP_TRY(check_place(run, output, run->plan.n_outputs));
    run->plan.outputs[output].done = position;
    return dip_shard_writer_resume(run->plan.outputs[output].writer, shard);
}

static dip_status open_dedup(shard_run *run)
{
    const shard_options *o = run->o;
    if (strcmp(o->dedup, "none") == 0) return DIP_OK;
    dip_dedup_kind kind = strcmp(o->dedup, "near") == 0 ? DIP_DEDUP_NEAR : DIP_DEDUP_EXACT;
    return dip_dedup_open(&run->dedup, kind, (int)o->dedup_distance);
}

/* The folders are there now; two ways to write one path are known only by that. */
static dip_status check_folders(const shard_plan *plan)
{
    for (int i = 1; i < plan->n_outputs; i++)
        for (int k = 0; k < i; k++) {
            const char *a = dip_shard_writer_folder(plan->outputs[k].writer);
            const char *b = dip_shard_writer_folder(plan->outputs[i].writer);
            if (shard_same_file(a, b))
                return dip_fail(DIP_CONFIG, "%s and %s are one folder; each output needs its own",
                                a, b);
        }
    return DIP_OK;
}

static dip_status begin(shard_run *run)
{
    const shard_options *o = run->o;
    DIP_TRY(open_dedup(run));
    for (int i = 0; i < run->plan.n_outputs; i++) {
        shard_output *output = &run->plan.outputs[i];
        DIP_TRY(dip_shard_writer_open(&output->writer, output->pattern, o->samples_per_shard));
        dip_shard_writer_limit(output->writer, o->max_shard_bytes);
    }
    DIP_TRY(check_folders(&run->plan));
    dip_digest input;
    DIP_TRY(dip_pairs_digest(&input, run->pairs));
    bool replace = o->overwrite;
    shard_journal_reader reader = {run, restore_lost, restore_kept, restore_shard};
    DIP_TRY(shard_journal_open(&run->journal, run->journal_path, o, &input,
                               dip_pairs_count(run->pairs), &replace, &reader));
    if (run->n_remembered > 1)
        qsort(run->remembered, run->n_remembered, sizeof *run->remembered, by_position);
    int64_t n = shard_journal_n_shards(run->journal);
    if (n > 0)
        dip_info("going on after %" PRId64 " finished shard%s of an earlier run", n,
                 n == 1 ? "" : "s");
    for (int i = 0; i < run->plan.n_outputs; i++) {
        dip_shard_writer *writer = run->plan.outputs[i].writer;
        DIP_TRY(dip_shard_writer_clean(writer));
        if (replace) dip_shard_writer_replace(writer);
    }
    return DIP_OK;
}

/* Writing. */

/* The output's shard is complete: all of its positions before this one are in it or in earlier. */
static dip_status finish_shard(shard_run *run, int output, int64_t position)
{
    dip_finished_shard shard;
    dip_status status = dip_shard_writer_finish(run->plan.outputs[output].writer, &shard);
    if (status == DIP_END) return DIP_OK;
    DIP_TRY(status);
    return shard_journal_shard(run->journal, output, &shard, position);
}

static dip_status write_pair(shard_run *run, int output, int64_t position, const dip_pair *pair)
{
    dip_shard_writer *writer = run->plan.outputs[output].writer;
    char label[24];
    snprintf(label, sizeof label, "%" PRId64, pair->label);
    dip_shard_part *parts = malloc((3 + pair->n_members) * sizeof *parts);
    if (!parts) return dip_fail(DIP_NOMEM, "no memory for a sample");
    size_t n = 0;
    parts[n++] = (dip_shard_part){pair->extension, pair->image, pair->image_bytes};
    if (pair->text) parts[n++] = (dip_shard_part){"txt", pair->text, pair->text_bytes};
    if (pair->label >= 0) parts[n++] = (dip_shard_part){"cls", label, strlen(label)};
    for (size_t i = 0; i < pair->n_members; i++)
        parts[n++] = (dip_shard_part){pair->members[i].extension, pair->members[i].data,
                                      pair->members[i].n_bytes};
    dip_status status = DIP_OK;
    if (dip_shard_writer_full(writer, parts, n)) status = finish_shard(run, output, position);
    if (status == DIP_OK) status = dip_shard_writer_add(writer, parts, n);
    free(parts);
    return status;
}

/* DIP_FORMAT with the sentence for the ledger: it was there before. */
static dip_status check_duplicate(const shard_run *run, const dip_dedup_sign *sign)
{
    int distance;
    int64_t first = run->dedup ? dip_dedup_find(run->dedup, sign, &distance) : -1;
    if (first < 0) return DIP_OK;
    char *name = dip_pairs_name(run->pairs, run->plan.index[first]);
    if (!name) return dip_fail(DIP_NOMEM, "no memory for a name");
    dip_status status =
        strcmp(run->o->dedup, "exact") == 0
            ? dip_fail(DIP_FORMAT, "the same bytes as %.400s", name)
            : dip_fail(DIP_FORMAT, "looks like %.400s, %d bits apart", name, distance);
    free(name);
    return status;
}

/* One position, in order: into its output or into the ledger. */
static dip_status take(shard_run *run, int64_t position, const shard_sample *sample)
{
    int output = run->plan.output_of[position];
    dip_status status = sample->status;
    dip_fault_kind kind = sample->kind;
    const char *detail = sample->detail;
    if (status == DIP_OK && (status = check_duplicate(run, &sample->sign)) == DIP_FORMAT) {
        kind = DIP_FAULT_DUPLICATE;
        detail = dip_error();
    }
    if (status == DIP_FORMAT) {
        DIP_TRY(shard_journal_lost(run->journal, output, position, kind, detail));
        return lose_position(run, position, kind, detail);
    }
    if (status != DIP_OK) return sample->status ? dip_fail(status, "%s", detail) : status;
    DIP_TRY(write_pair(run, output, position, &sample->pair));
    if (!run->dedup) return DIP_OK;
    DIP_TRY(shard_journal_kept(run->journal, output, position, &sample->sign));
    return dip_dedup_keep(run->dedup, &sample->sign, position);
}

static dip_status check_stop(const shard_run *run)
{
    if (!dip_interrupt_requested()) return DIP_OK;
    int64_t n = shard_journal_n_shards(run->journal);
    if (n == 0) return dip_fail(DIP_INTERRUPTED, "stopped on request; no shard was finished");
    return dip_fail(DIP_INTERRUPTED,
                    "stopped on request; %" PRId64 " finished shard%s: run the same command "
                    "again to go on",
                    n, n == 1 ? " stays" : "s stay");
}

static dip_status write_all(shard_run *run)
{
    shard_jobs *jobs;
    DIP_TRY(shard_jobs_open(&jobs, run->o, &run->plan, run->pairs));
    shard_progress progress;
    shard_progress_start(&progress, run->plan.n);
    int64_t position;
    shard_sample *sample;
    dip_status status;
    while ((status = shard_jobs_next(jobs, &position, &sample)) == DIP_OK) {
        shard_progress_show(&progress, position, shard_journal_n_shards(run->journal));
        status = check_stop(run);
        if (status == DIP_OK) status = tell_remembered(run, position);
        if (status == DIP_OK) status = take(run, position, sample);
        if (status != DIP_OK) break;
    }
    shard_progress_end(&progress);
    shard_jobs_close(jobs);
    if (status != DIP_END) return status;
    DIP_TRY(tell_remembered(run, run->plan.n));
    for (int i = 0; i < run->plan.n_outputs; i++) DIP_TRY(finish_shard(run, i, run->plan.n));
    return DIP_OK;
}

/* The end. */

static dip_status check_used(shard_run *run)
{
    for (int i = 0; i < run->plan.n_outputs; i++) {
        const shard_output *output = &run->plan.outputs[i];
        if (dip_shard_writer_samples(output->writer) > 0) continue;
        run->worthless = true;
        dip_faults_print(run->lost->ledger, stderr);
        return dip_fail(DIP_CONFIG, "no usable pair of %s for %s; %" PRId64 " left out",
                        run->o->input, output->pattern, dip_faults_total(run->lost->ledger));
    }
    return DIP_OK;
}

/* classnames.txt beside the shards, one a line, class 0 first. */
static dip_status write_classes(const dip_string_list *classes, const char *pattern)
{
    const char *slash = strrchr(pattern, '/');
    char *path = dip_format("%.*sclassnames.txt", slash ? (int)(slash + 1 - pattern) : 0, pattern);
    dip_writer *file = NULL;
    dip_status status =
        path ? dip_writer_open(&file, path) : dip_fail(DIP_NOMEM, "no memory for a path");
    for (size_t i = 0; status == DIP_OK && i < classes->n_items; i++) {
        status = dip_writer_write(file, classes->items[i], strlen(classes->items[i]));
        if (status == DIP_OK) status = dip_writer_write(file, "\n", 1);
    }
    if (status == DIP_OK)
        status = dip_writer_commit(file);
    else
        dip_writer_abort(file);
    free(path);
    return status;
}

static dip_status finish(shard_run *run)
{
    DIP_TRY(check_used(run));
    const dip_string_list *classes = dip_pairs_classes(run->pairs);
    for (int i = 0; i < run->plan.n_outputs; i++) {
        shard_output *output = &run->plan.outputs[i];
        if (classes) DIP_TRY(write_classes(classes, output->pattern));
        DIP_TRY(dip_shard_writer_complete(output->writer));
    }
    DIP_TRY(shard_print_result(run->o, &run->plan, run->lost));
    fflush(stdout); /* a run that is killed now is complete, and has said so */
    shard_journal_close(run->journal, true);
    run->journal = NULL;
    return DIP_OK;
}

static bool is_worth_keeping(const shard_run *run)
{
    return !run->worthless && run->journal && shard_journal_n_shards(run->journal) > 0;
}

/* Finished shards stay, with the journal to go on from; without any, nothing does. Without a
 * journal this run wrote nothing: what is there is an earlier one's. */
static void close_run(shard_run *run)
{
    bool removes = run->worthless || (run->journal && !is_worth_keeping(run));
    for (int i = 0; i < run->plan.n_outputs; i++) {
        if (removes)
            dip_shard_writer_abort(run->plan.outputs[i].writer);
        else
            dip_shard_writer_leave(run->plan.outputs[i].writer);
    }
    shard_journal_close(run->journal, !is_worth_keeping(run));
    for (size_t i = 0; i < run->n_remembered; i++) free(run->remembered[i].detail);
    free(run->remembered);
    dip_dedup_close(run->dedup);
    dip_pairs_close(run->pairs);
    shard_plan_free(&run->plan);
    free(run->journal_path);
}

static dip_status make_shards(const shard_options *o, shard_losses *lost)
{
    shard_run run = {.o = o, .lost = lost};
    dip_interrupt interrupt;
    dip_status status = prepare(&run);
    if (status == DIP_OK) {
        /* Until here a signal ends the program at once: nothing is written. */
        dip_interrupt_catch(&interrupt);
        status = begin(&run);
        if (status == DIP_OK) status = write_all(&run);
        if (status == DIP_OK) status = check_stop(&run);
        if (status == DIP_OK) status = finish(&run);
        dip_interrupt_release(&interrupt);
    }
    if (status != DIP_OK && status != DIP_INTERRUPTED && is_worth_keeping(&run))
        dip_warn("the finished shards stay; the same command goes on after them");
    close_run(&run);
    return status;
}

static dip_status run_shard(int argc, char **argv)
{
    shard_options o = {0};
    shard_losses lost = {0};
    dip_status status = dip_config_defaults(&shard_option_table, &o);
    if (status == DIP_OK) status = dip_config_parse(&shard_option_table, &o, argc, argv);
    if (status == DIP_OK) status = dip_faults_open(&lost.ledger);
    if (status == DIP_OK && !(lost.named = cJSON_CreateArray()))
        status = dip_fail(DIP_NOMEM, "no memory to start");
    if (status == DIP_OK) status = make_shards(&o, &lost);
    cJSON_Delete(lost.named);
    dip_faults_close(lost.ledger);
    dip_config_free(&shard_option_table, &o);
    return status;
}

const dip_command dip_command_shard = {
    .name = "shard",
    .summary = "turn folders, tables, JSON, IDX arrays or shards into shards",
    .usage = "diptych shard --input PATH --output 'OUT/{00000..}.tar' [OPTIONS]",
    .description =
        "Writes image-caption pairs as WebDataset shards: tar files whose members KEY.jpg (.png, "
        ".webp), KEY.txt and, for labelled images, KEY.cls make a sample. Without --resize images "
        "are stored byte for byte; from shards every member is. The same input and options give "
        "the same bytes.\n\n"
        "A pair is left out, counted and named when its caption is missing, empty or not UTF-8, "
        "or when its image is missing or neither JPEG, PNG nor WebP by its first bytes, or for "
        "what the options ask.\n\n"
        "Shards appear complete or not at all. A run that was interrupted, killed or failed leaves "
        "its finished shards and a shards.journal beside them; the same command then goes on after "
        "the last finished shard, and the result is that of a run in one go. Only the list of the "
        "input is compared, not the bytes of image files: leave them alone until it is done.",
    .options = &shard_option_table,
    .run = run_shard,
};
