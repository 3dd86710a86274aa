#include "train/ledger.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "core/log.h"

enum { LOGGED_SHARDS = 10, REASONS_BYTES = 512 };

/* JSON holds UTF-8 and a path may hold anything. */
static const char *shard_name(const dip_samples *samples, int64_t shard)
{
    const char *path = dip_samples_shard_path(samples, shard);
    const size_t n = strlen(path);
    for (size_t i = 0, length; i < n; i += length)
        if ((length = dip_utf8_length(path + i, n - i)) == 0) return "(its path is not UTF-8)";
    return path;
}

/* ---- writing ----------------------------------------------------------------------------- */

static bool add_row(cJSON *object, const dip_account_row *row)
{
    const int64_t n_dropped = dip_account_dropped(row);
    if (!cJSON_AddNumberToObject(object, "read", (double)(row->trained + n_dropped)) ||
        !cJSON_AddNumberToObject(object, "trained", (double)row->trained) ||
        !cJSON_AddNumberToObject(object, "dropped", (double)n_dropped))
        return false;
    cJSON *reasons = cJSON_AddObjectToObject(object, "reasons");
    for (int kind = 0; reasons && kind < DIP_N_DROP_KINDS; kind++)
        if (row->dropped[kind] &&
            !cJSON_AddNumberToObject(reasons, dip_drop_text(kind), (double)row->dropped[kind]))
            return false;
    return reasons != NULL;
}

static bool add_shard(cJSON *shards, const dip_account_row *row, int64_t number, const char *name)
{
    cJSON *object = cJSON_CreateObject();
    if (object && cJSON_AddNumberToObject(object, "number", (double)number) &&
        cJSON_AddStringToObject(object, "shard", name) && add_row(object, row) &&
        cJSON_AddItemToArray(shards, object))
        return true;
    cJSON_Delete(object);
    return false;
}

dip_status dip_ledger_to_json(cJSON **ledger, const dip_account *account,
                              const dip_samples *samples)
{
    cJSON *root = cJSON_CreateObject(), *shards = NULL;
    bool all = root && add_row(root, &account->total) &&
               (shards = cJSON_AddArrayToObject(root, "shards")) != NULL;
    for (int64_t s = 0; all && s < account->n_shards; s++) {
        const dip_account_row *row = &account->shards[s];
        if (row->trained + dip_account_dropped(row) > 0)
            all = add_shard(shards, row, s, shard_name(samples, s));
    }
    *ledger = root;
    if (all) return DIP_OK;
    cJSON_Delete(root);
    *ledger = NULL;
    return dip_fail(DIP_NOMEM, "no memory for the ledger of %lld shards",
                    (long long)account->n_shards);
}

/* ---- reading ------------------------------------------------------------------------------ */

static bool read_count(int64_t *count, const cJSON *item)
{
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble <= 9e15))
        return false;
    *count = (int64_t)item->valuedouble;
    return true;
}

static bool read_row(dip_account_row *row, const cJSON *object)
{
    const cJSON *reasons = cJSON_GetObjectItemCaseSensitive(object, "reasons");
    if (!read_count(&row->trained, cJSON_GetObjectItemCaseSensitive(object, "trained")))
        return false;
    for (int kind = 0; kind < DIP_N_DROP_KINDS; kind++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(reasons, dip_drop_text(kind));
        if (item && !read_count(&row->dropped[kind], item)) return false;
    }
    return true;
}

dip_status dip_ledger_read(dip_account *account, const dip_samples *samples, const char *path)
{
    cJSON *root;
    const cJSON *item;
    DIP_TRY(dip_json_read(&root, path));
    dip_status status = DIP_OK;
    bool same = true;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(root, "shards"))
    {
        int64_t number;
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "shard"));
        if (!name || !read_count(&number, cJSON_GetObjectItemCaseSensitive(item, "number"))) {
            status = dip_fail(DIP_FORMAT, "%s: a shard without a number or a name", path);
            break;
        }
        same = number < account->n_shards && strcmp(name, shard_name(samples, number)) == 0;
        if (!same) break;
        if (!read_row(&account->shards[number], item)) {
            status = dip_fail(DIP_FORMAT, "%s: the counts of shard %lld cannot be read", path,
                              (long long)number);
            break;
        }
    }
    cJSON_Delete(root);
    if (!same) {
        dip_info("%s is of other shards: the ledger begins anew", path);
        memset(account->shards, 0, (size_t)account->n_shards * sizeof *account->shards);
    }
    dip_account_add_up(account);
    return status;
}

/* ---- telling ------------------------------------------------------------------------------ */

/* " (3 empty caption, 1 ...)", "" if nothing was dropped. */
static const char *reasons_of(char out[REASONS_BYTES], const dip_account_row *row)
{
    size_t used = 0;
    out[0] = '\0';
    for (int kind = 0; kind < DIP_N_DROP_KINDS && used < REASONS_BYTES - 1; kind++) {
        if (row->dropped[kind] == 0) continue;
        snprintf(out + used, REASONS_BYTES - used, "%s%lld %s", used ? ", " : " (",
                 (long long)row->dropped[kind], dip_drop_text(kind));
        used = strlen(out);
    }
    if (used) snprintf(out + used, REASONS_BYTES - used, ")");
    return out;
}

void dip_ledger_log(const dip_account *account, const dip_samples *samples)
{
    char reasons[REASONS_BYTES];
    const dip_account_row *total = &account->total;
    int64_t n_shown = 0, n_hidden = 0;
    dip_info("Data: %lld read = %lld trained + %lld buffered + %lld dropped%s",
             (long long)total->read, (long long)total->trained, (long long)total->buffered,
             (long long)dip_account_dropped(total), reasons_of(reasons, total));
    for (int64_t s = 0; s < account->n_shards; s++) {
        const dip_account_row *row = &account->shards[s];
        const int64_t n_dropped = dip_account_dropped(row) - row->dropped[DIP_DROP_UNFINISHED];
        if (n_dropped == 0) continue;
        if (n_shown++ < LOGGED_SHARDS)
            dip_info("Data: %s: %lld read, dropped%s", shard_name(samples, s), (long long)row->read,
                     reasons_of(reasons, row));
        else
            n_hidden++;
    }
    if (n_hidden)
        dip_info("Data: %lld more shards with dropped samples are in %s", (long long)n_hidden,
                 DIP_LEDGER_FILE);
}
