/* shard.h - inside `diptych shard`: input -> plan -> jobs -> writers, with a journal beside.
 *
 *   shard.c          the loop, its beginning and its end
 *   shard_options.c  the options
 *   shard_input.c    opens the input as pairs
 *   shard_plan.c     which pairs, in which order, to which output
 *   shard_sample.c   one pair: read, check, decode, resize, encode (any thread)
 *   shard_jobs.c     threads that do so ahead, results in order
 *   shard_journal.c  what is finished, so that a killed run can go on
 *   shard_report.c   what was left out; progress; the result
 */
#ifndef DIP_TOOLS_SHARD_H
#define DIP_TOOLS_SHARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "core/config.h"
#include "core/status.h"
#include "data/dedup/dedup.h"
#include "data/faults.h"
#include "data/pairs/pairs.h"
#include "data/shard/shard_writer.h"

typedef struct shard_options {
    char *input, *input_format, *images, *output;
    int64_t samples_per_shard, max_shard_bytes;
    int64_t seed;
    bool shuffle, overwrite, json;
    double holdout;
    char *holdout_output, *split, *sample;
    char *caption_line;
    char *csv_img_key, *csv_caption_key, *csv_separator;
    char *image_key, *caption_key, *karpathy_split;
    char *labels, *classnames, *templates;
    int64_t captions_per_image;
    int64_t min_caption, max_caption; /* characters; 0: no limit */
    int64_t min_size;                 /* pixels; 0: none */
    double max_aspect;                /* 0: none */
    bool check_images;
    int64_t resize; /* pixels; 0: images stay as they are */
    char *resize_mode;
    bool resize_only_if_bigger;
    int64_t quality;
    char *dedup;
    int64_t dedup_distance;
    int64_t jobs; /* 0: one a core */
} shard_options;

extern const dip_option_table shard_option_table;

/* What was left out: counted and logged by the ledger, the names kept for --json. */
typedef struct shard_losses {
    dip_faults *ledger;
    cJSON *named; /* [{"where", "reason", "detail"}] */
} shard_losses;
dip_pairs_lost_fn shard_lose; /* context: shard_losses */

/* The plan. */

enum { SHARD_MAX_OUTPUTS = 16 };

typedef struct shard_output {
    char *name; /* of the split; NULL: it has none */
    char *pattern;
    double from, to; /* it takes the names whose number in [0, 1) is at least from, below to */
    dip_shard_writer *writer;
    int64_t done; /* positions before it are in finished shards */
} shard_output;

/* A position is a place in the order. */
typedef struct shard_plan {
    shard_output outputs[SHARD_MAX_OUTPUTS];
    int n_outputs;
    int64_t n;
    int64_t *index;     /* [n] of the pair */
    uint8_t *output_of; /* [n] */
} shard_plan;

/* Outputs alone: refuses what does not go together. */
dip_status shard_plan_outputs(shard_plan *plan, const shard_options *o);
/* The order of all pairs that are wanted. */
dip_status shard_plan_order(shard_plan *plan, const shard_options *o, const dip_pairs *pairs);
void shard_plan_free(shard_plan *plan); /* a zeroed struct is fine; writers are the caller's */

/* The input. */

/* Refuses shards that one of the plan's outputs would write over. */
dip_status shard_open_input(dip_pairs **pairs, const shard_options *o, const shard_plan *plan,
                            shard_losses *lost);
/* Do both paths lead to one file or folder? */
bool shard_same_file(const char *a, const char *b);

/* One pair. */

typedef struct shard_sample {
    dip_status status; /* DIP_FORMAT: left out, for `kind` and `detail`; others stop the run */
    dip_fault_kind kind;
    char detail[600];
    dip_pair pair;
    dip_dedup_sign sign;
} shard_sample;

typedef struct shard_checker shard_checker; /* a thread's decoder and buffers */
dip_status shard_checker_open(shard_checker **checker, const shard_options *o,
                              const dip_pairs *pairs);
void shard_checker_close(shard_checker *checker); /* accepts NULL */
/* Read pair `index` and make it what goes into the shard; the caller frees sample->pair. */
void shard_check(shard_checker *checker, shard_sample *sample, int64_t index);

/* Threads. */

typedef struct shard_jobs shard_jobs;
/* Positions whose output has them done are passed over. */
dip_status shard_jobs_open(shard_jobs **jobs, const shard_options *o, const shard_plan *plan,
                           const dip_pairs *pairs);
void shard_jobs_close(shard_jobs *jobs); /* waits for the threads; accepts NULL */
/* The next position in order; *sample is valid until the next call. DIP_END: that was the last. */
dip_status shard_jobs_next(shard_jobs *jobs, int64_t *position, shard_sample **sample);

/* The journal. */

typedef struct shard_journal shard_journal;

/* What an earlier run left, in the order in which it was written. */
typedef struct shard_journal_reader {
    void *context;
    dip_status (*lost)(void *context, int64_t position, dip_fault_kind kind, const char *detail);
    dip_status (*kept)(void *context, int64_t position, const dip_dedup_sign *sign);
    dip_status (*shard)(void *context, int output, const dip_finished_shard *shard,
                        int64_t position);
} shard_journal_reader;

/* PATH of the journal beside the shards of `pattern`; malloc'd. */
char *shard_journal_path(const char *pattern);
/* Is there one to go on from? */
bool shard_journal_exists(const char *path);
/* Begin one, or take up the one that is there. DIP_CONFIG: it is of other options or input, or
 * another run holds it. `replace` (from --overwrite) begins anew; the value of the run that began
 * it comes back. */
dip_status shard_journal_open(shard_journal **journal, const char *path, const shard_options *o,
                              const dip_digest *input, int64_t n_pairs, bool *replace,
                              const shard_journal_reader *reader);
/* What happened to a position of an output since its last finished shard. */
dip_status shard_journal_lost(shard_journal *journal, int output, int64_t position,
                              dip_fault_kind kind, const char *detail);
dip_status shard_journal_kept(shard_journal *journal, int output, int64_t position,
                              const dip_dedup_sign *sign);
/* The shard is on disk, with all of the output's positions before `position`. Durable on return. */
dip_status shard_journal_shard(shard_journal *journal, int output, const dip_finished_shard *shard,
                               int64_t position);
int64_t shard_journal_n_shards(const shard_journal *journal);
/* Closes; removes the file when the work is done or nothing is in it. Accepts NULL. */
void shard_journal_close(shard_journal *journal, bool remove);

/* Reports. */

typedef struct shard_progress {
    bool terminal;
    int64_t first, total; /* positions; `first` was there at the start */
    double started_s, shown_s;
} shard_progress;
void shard_progress_start(shard_progress *progress, int64_t total);
void shard_progress_show(shard_progress *progress, int64_t position, int64_t n_shards);
void shard_progress_end(shard_progress *progress);

dip_status shard_print_result(const shard_options *o, const shard_plan *plan,
                              const shard_losses *lost);

#endif
