#include <stdlib.h>
#include <string.h>

#include "data/shard/shard.h"
#include "data/shard/shard_index_fit.h"
#include "tools/inspect.h"

enum { READ_BYTES = 1 << 20 };

/* A shard beside its index; both go through the file once, in the same order. */
typedef struct comparison {
    dip_shard *shard;
    dip_shard_index *index;
    dip_faults *faults;
    uint8_t *buffer; /* [READ_BYTES] */
    dip_member member;
    dip_member_entry entry;
    bool has_member, has_entry; /* one is there that was not compared yet */
    int64_t n_members;
} comparison;

/* A fault of a member is named by its sample, so that it counts once however it is found. */
static dip_status add_fault(comparison *c, dip_fault_kind kind, const char *name, uint64_t offset,
                            const char *detail)
{
    size_t key_bytes;
    const char *extension;
    if (!dip_member_split(name, &key_bytes, &extension)) key_bytes = strlen(name);
    char *key = strndup(name, key_bytes);
    if (!key) return dip_fail(DIP_NOMEM, "no memory for the name of a member");
    dip_faults_add_at(c->faults, kind,
                      &(dip_fault_place){dip_shard_path(c->shard), key, (int64_t)offset}, detail);
    free(key);
    return DIP_OK;
}

/* Damaged headers are named and passed by. */
static dip_status next_member(comparison *c)
{
    dip_status status;
    while ((status = dip_shard_next(c->shard, &c->member)) == DIP_FORMAT)
        dip_faults_add_at(c->faults, DIP_FAULT_TAR,
                          &(dip_fault_place){dip_shard_path(c->shard), NULL,
                                             (int64_t)dip_shard_damage_at(c->shard)},
                          dip_shard_damage(c->shard));
    c->has_member = status == DIP_OK;
    return status == DIP_END ? DIP_OK : status;
}

static dip_status next_entry(comparison *c)
{
    dip_status status = dip_shard_index_next(c->index, &c->entry);
    c->has_entry = status == DIP_OK;
    return status == DIP_END ? DIP_OK : status;
}

static dip_status check_data(comparison *c)
{
    uint32_t crc;
    dip_status status =
        dip_shard_crc(&crc, c->shard, c->entry.offset, c->entry.n_bytes, c->buffer, READ_BYTES);
    c->n_members++;
    if (status == DIP_FORMAT)
        return add_fault(c, DIP_FAULT_CHECKSUM, c->entry.name, c->entry.offset, dip_error());
    DIP_TRY(status);
    if (crc == c->entry.crc) return DIP_OK;
    return add_fault(c, DIP_FAULT_CHECKSUM, c->entry.name, c->entry.offset,
                     "the checksum of its bytes is another");
}

/* Both name a member at the same place. */
static dip_status check_both(comparison *c)
{
    bool same_name = strcmp(c->member.name, c->entry.name) == 0;
    if (!same_name || c->member.n_bytes != c->entry.n_bytes)
        DIP_TRY(add_fault(c, DIP_FAULT_TAR, c->entry.name, c->entry.offset,
                          same_name ? "its header gives another size than the index"
                                    : "its header gives another name than the index"));
    DIP_TRY(check_data(c));
    DIP_TRY(next_member(c));
    return next_entry(c);
}

static dip_status check_step(comparison *c)
{
    if (c->has_member && c->has_entry && c->member.offset == c->entry.offset) return check_both(c);
    if (c->has_member && (!c->has_entry || c->member.offset < c->entry.offset)) {
        DIP_TRY(add_fault(c, DIP_FAULT_TAR, c->member.name, c->member.offset,
                          "the index does not have it"));
        return next_member(c);
    }
    DIP_TRY(add_fault(c, DIP_FAULT_TAR, c->entry.name, c->entry.offset,
                      "the index has it, no header leads to it"));
    DIP_TRY(check_data(c));
    return next_entry(c);
}

/* What is no tar file has no headers to follow; the index alone leads to its data. */
static dip_status check_without_headers(comparison *c)
{
    dip_faults_add_at(c->faults, DIP_FAULT_TAR,
                      &(dip_fault_place){dip_shard_path(c->shard), NULL, -1}, dip_error());
    while (c->has_entry) {
        DIP_TRY(check_data(c));
        DIP_TRY(next_entry(c));
    }
    return DIP_OK;
}

static dip_status compare(comparison *c, const char *path)
{
    DIP_TRY(dip_shard_open_unread(&c->shard, path));
    DIP_TRY(next_entry(c));
    dip_status status = dip_shard_check(c->shard);
    if (status == DIP_FORMAT) return check_without_headers(c);
    DIP_TRY(status);
    DIP_TRY(next_member(c));
    while (c->has_member || c->has_entry) DIP_TRY(check_step(c));
    return DIP_OK;
}

/* A shard without an index has nothing to be compared with: what its headers and members say is
 * looked at with the samples. */
static dip_status verify_shard(comparison *c, bool *has_index, const char *path)
{
    dip_status status = dip_shard_index_read(&c->index, path);
    *has_index = status != DIP_END;
    if (status == DIP_END) return DIP_OK;
    if (status == DIP_FORMAT) {
        dip_faults_add_at(c->faults, DIP_FAULT_CHECKSUM, &(dip_fault_place){path, NULL, -1},
                          dip_error());
        return DIP_OK;
    }
    if (status == DIP_OK) status = compare(c, path);
    dip_shard_close(c->shard);
    dip_shard_index_close(c->index);
    c->shard = NULL;
    c->index = NULL;
    return status;
}

dip_status dip_inspect_verify(cJSON *report, const dip_samples *samples, dip_faults *faults)
{
    comparison c = {.faults = faults, .buffer = malloc(READ_BYTES)};
    int64_t n_indexed = 0;
    dip_status status = DIP_OK;
    if (!c.buffer) return dip_fail(DIP_NOMEM, "no memory to read shards");
    for (int64_t i = 0; i < dip_samples_n_shards(samples) && status == DIP_OK; i++) {
        bool has_index = false;
        status = verify_shard(&c, &has_index, dip_samples_shard_path(samples, i));
        n_indexed += has_index;
    }
    free(c.buffer);
    cJSON_AddNumberToObject(report, "n_shards", (double)dip_samples_n_shards(samples));
    cJSON_AddNumberToObject(report, "n_indexed_shards", (double)n_indexed);
    cJSON_AddNumberToObject(report, "n_compared_members", (double)c.n_members);
    return status;
}
