/* What `diptych shard` says: what was left out, how far it is, what came of it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "core/log.h"
#include "core/utf8.h"
#include "tools/shard.h"

enum { MAX_NAMED = 1000, TEXT_BYTES = 600 };

void shard_lose(void *context, dip_fault_kind kind, const char *where, const char *detail)
{
    shard_losses *lost = context;
    int64_t before = dip_faults_total(lost->ledger);
    dip_faults_add(lost->ledger, kind, where, detail);
    if (dip_faults_total(lost->ledger) == before || before >= MAX_NAMED) return;
    char text[TEXT_BYTES];
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "where", dip_text_quote(text, sizeof text, where));
    cJSON_AddStringToObject(item, "reason", dip_fault_text(kind));
    cJSON_AddStringToObject(item, "detail", dip_text_quote(text, sizeof text, detail));
    cJSON_AddItemToArray(lost->named, item);
}

/* Progress. */

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void shard_progress_start(shard_progress *progress, int64_t total)
{
    double now = now_s();
    *progress = (shard_progress){.terminal = isatty(STDERR_FILENO),
                                 .first = -1,
                                 .total = total,
                                 .started_s = now,
                                 .shown_s = now};
}

void shard_progress_show(shard_progress *p, int64_t position, int64_t n_shards)
{
    if (p->first < 0) p->first = position;
    double now = now_s(), every_s = p->terminal ? 0.5 : 10;
    if (now - p->shown_s < every_s) return;
    p->shown_s = now;
    double rate = (double)(position - p->first) / (now - p->started_s);
    int64_t left_s = rate > 0 ? (int64_t)((double)(p->total - position) / rate + 0.5) : 0;
    char line[160];
    snprintf(line, sizeof line,
             "%" PRId64 " of %" PRId64 " pairs, %" PRId64 " shard%s, %.0f pairs/s, %" PRId64
             ":%02d:%02d left",
             position, p->total, n_shards, n_shards == 1 ? "" : "s", rate, left_s / 3600,
             (int)(left_s / 60 % 60), (int)(left_s % 60));
    if (p->terminal)
        fprintf(stderr, "\r%-78s", line);
    else
        dip_info("%s", line);
}

void shard_progress_end(shard_progress *p)
{
    if (p->terminal && p->shown_s > p->started_s) fprintf(stderr, "\r%-78s\r", "");
}

/* The result. */

static void add_quoted(cJSON *object, const char *key, const char *text)
{
    char quoted[TEXT_BYTES];
    cJSON_AddStringToObject(object, key, dip_text_quote(quoted, sizeof quoted, text));
}

static void add_outputs(cJSON *root, const shard_options *o, const shard_plan *plan)
{
    const shard_output *outputs = plan->outputs;
    if (!o->split) {
        cJSON_AddNumberToObject(root, "samples",
                                (double)dip_shard_writer_samples(outputs[0].writer));
        cJSON_AddNumberToObject(root, "shards", (double)dip_shard_writer_shards(outputs[0].writer));
        if (!o->holdout_output) return;
        add_quoted(root, "holdout_output", o->holdout_output);
        cJSON_AddNumberToObject(root, "holdout_samples",
                                (double)dip_shard_writer_samples(outputs[1].writer));
        cJSON_AddNumberToObject(root, "holdout_shards",
                                (double)dip_shard_writer_shards(outputs[1].writer));
        return;
    }
    cJSON *splits = cJSON_AddObjectToObject(root, "splits");
    for (int i = 0; i < plan->n_outputs; i++) {
        cJSON *split = cJSON_AddObjectToObject(splits, outputs[i].name);
        add_quoted(split, "output", outputs[i].pattern);
        cJSON_AddNumberToObject(split, "samples",
                                (double)dip_shard_writer_samples(outputs[i].writer));
        cJSON_AddNumberToObject(split, "shards",
                                (double)dip_shard_writer_shards(outputs[i].writer));
    }
}

static dip_status print_json(const shard_options *o, const shard_plan *plan,
                             const shard_losses *lost)
{
    int64_t left_out = dip_faults_total(lost->ledger), samples = 0;
    for (int i = 0; i < plan->n_outputs; i++)
        samples += dip_shard_writer_samples(plan->outputs[i].writer);
    cJSON *root = cJSON_CreateObject();
    add_quoted(root, "input", o->input);
    add_quoted(root, "output", o->output);
    cJSON_AddNumberToObject(root, "found", (double)(samples + left_out));
    add_outputs(root, o, plan);
    cJSON_AddNumberToObject(root, "left_out", (double)left_out);
    cJSON *reasons = cJSON_AddObjectToObject(root, "left_out_reasons");
    for (int kind = 0; kind < DIP_N_FAULT_KINDS; kind++) {
        int64_t n = dip_faults_count(lost->ledger, (dip_fault_kind)kind);
        if (n > 0)
            cJSON_AddNumberToObject(reasons, dip_fault_text((dip_fault_kind)kind), (double)n);
    }
    cJSON_AddItemReferenceToObject(root, "left_out_names", lost->named);
    char *printed = cJSON_Print(root);
    cJSON_Delete(root);
    if (!printed) return dip_fail(DIP_NOMEM, "no memory to print the result");
    puts(printed);
    cJSON_free(printed);
    return DIP_OK;
}

dip_status shard_print_result(const shard_options *o, const shard_plan *plan,
                              const shard_losses *lost)
{
    if (o->json) return print_json(o, plan, lost);
    for (int i = 0; i < plan->n_outputs; i++) {
        const shard_output *output = &plan->outputs[i];
        int64_t samples = dip_shard_writer_samples(output->writer);
        int64_t shards = dip_shard_writer_shards(output->writer);
        printf("%s %" PRId64 " pair%s in %" PRId64 " shard%s: %s\n",
               i > 0 && !o->split ? "held out" : "wrote", samples, samples == 1 ? "" : "s", shards,
               shards == 1 ? "" : "s", output->pattern);
    }
    printf("left out %" PRId64 "\n", dip_faults_total(lost->ledger));
    dip_faults_print(lost->ledger, stdout);
    return DIP_OK;
}
