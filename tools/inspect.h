/* inspect.h - the parts of `diptych inspect`: each fills a report from one kind of source. */
#ifndef DIP_TOOLS_INSPECT_H
#define DIP_TOOLS_INSPECT_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "core/status.h"
#include "data/samples.h"

typedef struct dip_inspect_flags {
    char *model, *checkpoint, *shards;
    char *device, *precision, *json_text_key, *faults, *html;
    int64_t batch_size, first, html_samples;
    bool parameters, decode, verify, json;
} dip_inspect_flags;

/* A folder with a model, a built-in name, or a JSON file. */
dip_status dip_inspect_model(cJSON *report, const dip_inspect_flags *flags);
/* The built-in models. */
dip_status dip_inspect_builtin(cJSON *report);
/* A training checkpoint: where the run stands, and the tensors of its files. */
dip_status dip_inspect_checkpoint(cJSON *report, const dip_inspect_flags *flags);
/* Samples of shards; the ledger goes to stderr. */
dip_status dip_inspect_shards(cJSON *report, const dip_inspect_flags *flags);
/* The part of --verify that looks at files: the tar headers of a shard against its index, and the
 * checksum of every member. What differs goes to the ledger. */
dip_status dip_inspect_verify(cJSON *report, const dip_samples *samples, dip_faults *faults);

#endif
