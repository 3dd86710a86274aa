/* Which pairs go where. A sample's output and whether it is in the drawn part depend on its name
 * and the seed alone, whatever else is in the input. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/rng.h"
#include "tools/shard.h"

static size_t folder_bytes(const char *pattern)
{
    const char *slash = strrchr(pattern, '/');
    return slash ? (size_t)(slash - pattern) : 0;
}

static dip_status add_output(shard_plan *plan, const char *name, size_t name_bytes, char *pattern,
                             double from, double to)
{
    shard_output *output = &plan->outputs[plan->n_outputs];
    *output = (shard_output){.pattern = pattern, .from = from, .to = to};
    if (name) output->name = strndup(name, name_bytes);
    plan->n_outputs++;
    if (!pattern || (name && !output->name)) return dip_fail(DIP_NOMEM, "no memory for a plan");
    return DIP_OK;
}

/* --holdout is the split {main, held out} with a pattern of its own for the second. */
static dip_status add_holdout(shard_plan *plan, const shard_options *o)
{
    DIP_TRY(add_output(plan, NULL, 0, strdup(o->output), o->holdout, 1));
    if (!o->holdout_output) return DIP_OK;
    /* sizes.json describes a folder, so two sets of shards need two folders. */
    size_t n = folder_bytes(o->output);
    if (n == folder_bytes(o->holdout_output) && memcmp(o->output, o->holdout_output, n) == 0)
        return dip_fail(DIP_CONFIG, "--output and --holdout-output must be in different folders");
    return add_output(plan, NULL, 0, strdup(o->holdout_output), 0, o->holdout);
}

static bool is_taken(const shard_plan *plan, const char *name, size_t n_bytes)
{
    for (int i = 0; i < plan->n_outputs; i++)
        if (strlen(plan->outputs[i].name) == n_bytes &&
            memcmp(plan->outputs[i].name, name, n_bytes) == 0)
            return true;
    return false;
}

static dip_status refuse_split(const char *text, const char *why)
{
    return dip_fail(DIP_CONFIG, "--split '%s': %s; write it as train=0.9,test=0.1", text, why);
}

static dip_status add_split(shard_plan *plan, const shard_options *o)
{
    const char *at = o->split, *base = o->output + folder_bytes(o->output);
    double from = 0;
    if (*base == '/') base++;
    while (*at) {
        size_t n = strspn(at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-");
        if (n == 0 || at[n] != '=') return refuse_split(o->split, "a NAME=FRACTION is missing");
        if (is_taken(plan, at, n)) return refuse_split(o->split, "a name is there twice");
        if (plan->n_outputs == SHARD_MAX_OUTPUTS)
            return refuse_split(o->split, "more than 16 parts");
        char *end;
        double fraction = strtod(at + n + 1, &end);
        if (end == at + n + 1 || !(fraction > 0 && fraction <= 1) || (*end && *end != ','))
            return refuse_split(o->split, "a fraction is not in (0, 1]");
        char *pattern =
            dip_format("%.*s%.*s/%s", (int)(base - o->output), o->output, (int)n, at, base);
        DIP_TRY(add_output(plan, at, n, pattern, from, from + fraction));
        from += fraction;
        at = *end ? end + 1 : end;
    }
    if (fabs(from - 1) > 1e-6) return refuse_split(o->split, "the fractions do not sum to 1");
    plan->outputs[plan->n_outputs - 1].to = 1; /* whatever was rounded */
    return DIP_OK;
}

dip_status shard_plan_outputs(shard_plan *plan, const shard_options *o)
{
    if ((o->holdout > 0) != (o->holdout_output != NULL))
        return dip_fail(DIP_CONFIG, "--holdout and --holdout-output go together");
    if (o->split && o->holdout_output)
        return dip_fail(DIP_CONFIG, "--split and --holdout do not go together");
    return o->split ? add_split(plan, o) : add_holdout(plan, o);
}

void shard_plan_free(shard_plan *plan)
{
    for (int i = 0; i < plan->n_outputs; i++) {
        free(plan->outputs[i].name);
        free(plan->outputs[i].pattern);
    }
    free(plan->index);
    free(plan->output_of);
    *plan = (shard_plan){0};
}

/* Numbers in [0, 1) that belong to a name: one a use. */
typedef enum name_use { NAME_OUTPUT = 0, NAME_SAMPLE = 3 } name_use;

static double number_of(const shard_options *o, const char *name, name_use use)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (const char *c = name; *c; c++) hash = (hash ^ (unsigned char)*c) * 0x100000001b3u;
    dip_rng rng;
    dip_rng_init(&rng, (uint64_t)o->seed ^ (hash & 0xfffffff000000000u),
                 dip_rng_stream(DIP_RNG_SHARD, (uint64_t)use, hash));
    return dip_rng_uniform(&rng);
}

typedef struct drawn {
    double number;
    int64_t index;
} drawn;

static int by_number(const void *a, const void *b)
{
    const drawn *x = a, *y = b;
    if (x->number != y->number) return x->number < y->number ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static int by_index(const void *a, const void *b)
{
    const drawn *x = a, *y = b;
    return (x->index > y->index) - (x->index < y->index);
}

/* --sample: a whole number is that many pairs, anything else a fraction. */
static dip_status parse_sample(const char *text, int64_t *count, double *fraction)
{
    char *end;
    errno = 0;
    *count = -1;
    *fraction = 1;
    if (text[0] != '\0' && text[strspn(text, "0123456789")] == '\0') {
        *count = strtoll(text, &end, 10);
        if (errno == 0 && *count > 0) return DIP_OK;
    } else {
        *fraction = strtod(text, &end);
        if (end != text && *end == '\0' && *fraction > 0 && *fraction <= 1) return DIP_OK;
    }
    return dip_fail(DIP_CONFIG,
                    "--sample '%s' is neither a number of pairs nor a fraction in (0, 1]", text);
}

/* Keep in `all` those that --sample draws, in their old order. */
static dip_status draw_sample(drawn *all, int64_t *n, const shard_options *o,
                              const dip_pairs *pairs)
{
    int64_t count;
    double fraction;
    DIP_TRY(parse_sample(o->sample, &count, &fraction));
    for (int64_t i = 0; i < *n; i++) {
        char *name = dip_pairs_name(pairs, i);
        if (!name) return dip_fail(DIP_NOMEM, "no memory for a name");
        all[i].number = number_of(o, name, NAME_SAMPLE);
        free(name);
    }
    if (*n > 1) qsort(all, (size_t)*n, sizeof *all, by_number);
    int64_t kept = 0;
    while (kept < *n && (count >= 0 ? kept < count : all[kept].number < fraction)) kept++;
    *n = kept;
    if (kept > 1) qsort(all, (size_t)kept, sizeof *all, by_index);
    return DIP_OK;
}

static void shuffle(int64_t *index, int64_t n, uint64_t seed)
{
    dip_rng rng;
    dip_rng_init(&rng, seed, dip_rng_stream(DIP_RNG_SHARD, 1, 0));
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = (int64_t)dip_rng_below(&rng, (uint64_t)i + 1), swap = index[i];
        index[i] = index[j];
        index[j] = swap;
    }
}

static dip_status choose_outputs(shard_plan *plan, const shard_options *o, const dip_pairs *pairs)
{
    for (int64_t i = 0; i < plan->n && plan->n_outputs > 1; i++) {
        char *name = dip_pairs_name(pairs, plan->index[i]);
        if (!name) return dip_fail(DIP_NOMEM, "no memory for a name");
        double number = number_of(o, name, NAME_OUTPUT);
        free(name);
        for (int k = 0; k < plan->n_outputs; k++)
            if (number >= plan->outputs[k].from && number < plan->outputs[k].to)
                plan->output_of[i] = (uint8_t)k;
    }
    return DIP_OK;
}

dip_status shard_plan_order(shard_plan *plan, const shard_options *o, const dip_pairs *pairs)
{
    int64_t n = dip_pairs_count(pairs);
    drawn *all = malloc(((size_t)n + 1) * sizeof *all);
    dip_status status = DIP_OK;
    for (int64_t i = 0; all && i < n; i++) all[i] = (drawn){0, i};
    if (all && o->sample) status = draw_sample(all, &n, o, pairs);
    plan->n = n;
    plan->index = malloc(((size_t)n + 1) * sizeof *plan->index);
    plan->output_of = calloc((size_t)n + 1, 1);
    if (!all || !plan->index || !plan->output_of)
        status = dip_fail(DIP_NOMEM, "no memory for the order of %" PRId64 " pairs", n);
    if (status == DIP_OK) {
        for (int64_t i = 0; i < n; i++) plan->index[i] = all[i].index;
        if (o->shuffle) shuffle(plan->index, n, (uint64_t)o->seed);
        status = choose_outputs(plan, o, pairs);
    }
    free(all);
    return status;
}
