/* The samples of one shard, by its index where that can be believed, else by its headers. */
#include <stdlib.h>
#include <string.h>

#include "data/samples_internal.h"
#include "data/shard/shard_index_fit.h"
#include "data/shard/tar.h"

static const uint64_t max_shard_bytes = (uint64_t)UINT32_MAX * DIP_TAR_BLOCK_BYTES; /* 2 TiB */

/* By its headers. */

static dip_status read_headers(dip_grouper *grouper, dip_shard *shard, dip_shard_samples *into)
{
    dip_found_member found = {0};
    dip_status status;
    DIP_TRY(dip_shard_check(shard));
    dip_grouper_begin(grouper, shard, into);
    while ((status = dip_shard_next(shard, &found.member)) != DIP_END) {
        if (status == DIP_OK) {
            DIP_TRY(dip_grouper_add(grouper, &found));
            continue;
        }
        if (status != DIP_FORMAT) return status;
        /* What was lost between may be the rest of this sample and the start of a namesake. */
        DIP_TRY(dip_shard_samples_fault(into, DIP_FAULT_TAR, NULL,
                                        (int64_t)dip_shard_damage_at(shard),
                                        dip_shard_damage(shard)));
        DIP_TRY(dip_grouper_cut(grouper));
    }
    DIP_TRY(dip_grouper_end(grouper));
    into->n_skipped = dip_shard_skipped(shard);
    if (!dip_shard_unfinished(shard)) return DIP_OK;
    return dip_shard_samples_fault(into, DIP_FAULT_TAR, NULL, -1,
                                   "no end-of-archive block: all members found are used, but the "
                                   "file may have been cut between two of them");
}

/* By its index. */

/* *index is NULL when there is none that can be used; into->warning says why. */
static dip_status open_index(dip_shard_index **index, dip_shard *shard, dip_shard_samples *into)
{
    dip_status status = dip_shard_index_open(index, shard);
    if (status == DIP_END) return DIP_OK;
    if (status != DIP_FORMAT) return status;
    into->warning = strdup(dip_error());
    return into->warning ? DIP_OK : dip_fail(DIP_NOMEM, "no memory for the sample index");
}

static dip_status read_index(dip_grouper *grouper, dip_shard_index *index, const dip_shard *shard,
                             dip_shard_samples *into)
{
    dip_member_entry entry;
    into->has_crcs = true;
    dip_grouper_begin(grouper, shard, into);
    while (dip_shard_index_next(index, &entry) == DIP_OK) {
        const dip_found_member found = {
            .member = {.name = entry.name, .n_bytes = entry.n_bytes, .offset = entry.offset},
            .lost = entry.offset + entry.n_bytes > into->file_bytes,
            .crc = entry.crc};
        DIP_TRY(dip_grouper_add(grouper, &found));
    }
    return dip_grouper_end(grouper);
}

static dip_status read_shard(dip_grouper *grouper, dip_shard *shard, dip_shard_samples *into,
                             bool ignore_index)
{
    dip_shard_index *index = NULL;
    if (into->file_bytes > max_shard_bytes)
        return dip_fail(DIP_FORMAT, "%s has %llu bytes, a shard may have %llu", into->path,
                        (unsigned long long)into->file_bytes, (unsigned long long)max_shard_bytes);
    if (!ignore_index) DIP_TRY(open_index(&index, shard, into));
    dip_status status =
        index ? read_index(grouper, index, shard, into) : read_headers(grouper, shard, into);
    dip_shard_index_close(index);
    return status;
}

/* Give back what growing left over. */
static void trim(dip_shard_samples *shard)
{
    if (shard->n == 0) return;
    void *keys = realloc(shard->keys, shard->keys_bytes);
    if (keys) shard->keys = keys;
    void *entries = realloc(shard->entries, shard->n * sizeof *shard->entries);
    if (entries) shard->entries = entries;
    void *crcs = shard->crcs ? realloc(shard->crcs, shard->n * sizeof *shard->crcs) : NULL;
    if (crcs) shard->crcs = crcs;
}

dip_status dip_shard_samples_find(dip_shard_samples *into, dip_grouper *grouper, bool ignore_index)
{
    dip_shard *shard;
    DIP_TRY(dip_shard_open_unread(&shard, into->path));
    into->file_bytes = dip_shard_bytes(shard);
    into->changed_ns = dip_shard_changed_ns(shard);
    dip_status status = read_shard(grouper, shard, into, ignore_index);
    if (status == DIP_FORMAT && (grouper->needs & DIP_NAMES_INCOMPLETE))
        status = dip_shard_samples_fault(into, DIP_FAULT_TAR, NULL, -1, dip_error());
    dip_shard_close(shard);
    trim(into);
    return status;
}
