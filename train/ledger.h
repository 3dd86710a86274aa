/* ledger.h - the account of a run's training data as JSON, as a line of the log, and back.
 *
 *     {"read": N, "trained": N, "dropped": N, "reasons": {REASON: N, ...}, "shards": [...]}
 *
 * The elements of "shards" have "number" and "shard", its path, before the same four. Numbers count
 * over all epochs; shards nothing was read of are left out. What workers have decoded ahead is no
 * part of it: a run that goes on reads it again.
 *
 * Errors:  DIP_NOMEM; reading: DIP_FORMAT.                                                    */
#ifndef DIP_TRAIN_LEDGER_H
#define DIP_TRAIN_LEDGER_H

#include <cjson/cJSON.h>

#include "data/account.h"
#include "data/samples.h"

/* The name of the file in a run folder and in a checkpoint. */
#define DIP_LEDGER_FILE "ledger.json"

dip_status dip_ledger_to_json(cJSON **ledger, const dip_account *account,
                              const dip_samples *samples);

/* `account` is open for the samples' shards. Shards that have other names now make it begin anew,
 * which is logged. */
dip_status dip_ledger_read(dip_account *account, const dip_samples *samples, const char *path);

/* A line with the totals, and one for each shard of which something was dropped, the first few. */
void dip_ledger_log(const dip_account *account, const dip_samples *samples);

#endif
