#include "tools/index.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/file.h"
#include "data/shard/shard.h"
#include "data/shard/shard_index.h"
#include "data/shard/shard_index_fit.h"

enum { READ_BYTES = 1 << 20 };

struct index_maker {
    index_maker_options options;
    dip_index_builder *builder;
    uint8_t *buffer; /* [READ_BYTES] */
};

dip_status index_maker_open(index_maker **out, const index_maker_options *options)
{
    *out = NULL;
    dip_status status = DIP_OK;
    index_maker *maker = calloc(1, sizeof *maker);
    if (maker) maker->buffer = malloc(READ_BYTES);
    if (!maker || !maker->buffer) {
        status = dip_fail(DIP_NOMEM, "no memory to read shards");
        goto fail;
    }
    maker->options = *options;
    DIP_TRY_GOTO(dip_index_builder_open(&maker->builder));
    *out = maker;
    return DIP_OK;
fail:
    index_maker_close(maker);
    return status;
}

void index_maker_close(index_maker *maker)
{
    if (!maker) return;
    dip_index_builder_close(maker->builder);
    free(maker->buffer);
    free(maker);
}

void index_result_free(index_result *result)
{
    free(result->note);
}

/* A shard, and the index that it had. */
typedef struct work {
    index_maker *maker;
    index_result *result;
    dip_shard *shard;
    dip_shard_index *old; /* it fits, as far as the shard goes; NULL: none does */
    bool there;           /* a file of the index's name */
    bool faulty;
    int64_t n_changed; /* members that are not as `old` says */
} work;

static void refuse(work *w, dip_fault_kind kind, int64_t at, const char *detail)
{
    w->faulty = true;
    dip_faults_add_at(w->maker->options.faults, kind,
                      &(dip_fault_place){dip_shard_path(w->shard), NULL, at}, detail);
}

/* Members. */

static void compare_with_old(work *w, const dip_member_entry *entry)
{
    dip_member_entry old;
    if (!w->old) return;
    const bool same = dip_shard_index_next(w->old, &old) == DIP_OK && old.offset == entry->offset &&
                      old.n_bytes == entry->n_bytes && old.crc == entry->crc &&
                      strcmp(old.name, entry->name) == 0;
    w->n_changed += !same;
}

/* Of a shard that is known to be faulty the headers alone are of interest. */
static dip_status take_member(work *w, const dip_member *member)
{
    dip_member_entry entry = {
        .name = member->name, .offset = member->offset, .n_bytes = member->n_bytes};
    w->result->n_members++;
    if (w->faulty) return DIP_OK;
    dip_status status = dip_shard_crc(&entry.crc, w->shard, entry.offset, entry.n_bytes,
                                      w->maker->buffer, READ_BYTES);
    if (status == DIP_OK) status = dip_index_builder_add(w->maker->builder, &entry);
    if (status == DIP_FORMAT || status == DIP_CONFIG) { /* it became shorter; it is too large */
        refuse(w, DIP_FAULT_TAR, (int64_t)entry.offset, dip_error());
        return DIP_OK;
    }
    DIP_TRY(status);
    compare_with_old(w, &entry);
    return w->maker->options.advance(w->maker->options.context, entry.n_bytes);
}

static dip_status read_members(work *w)
{
    dip_member member;
    dip_status status;
    dip_member_entry lost;
    while ((status = dip_shard_next(w->shard, &member)) != DIP_END) {
        if (status == DIP_FORMAT)
            refuse(w, DIP_FAULT_TAR, (int64_t)dip_shard_damage_at(w->shard),
                   dip_shard_damage(w->shard));
        else
            DIP_TRY(status == DIP_OK ? take_member(w, &member) : status);
    }
    while (w->old && dip_shard_index_next(w->old, &lost) == DIP_OK) w->n_changed++;
    w->result->n_skipped = dip_shard_skipped(w->shard);
    if (dip_shard_unfinished(w->shard))
        refuse(w, DIP_FAULT_TAR, -1,
               "no end-of-archive block: the file may have been cut between two members");
    else if (!w->faulty && w->result->n_members == 0)
        refuse(w, DIP_FAULT_TAR, -1, "no file is in it");
    return DIP_OK;
}

/* A download that goes on, or a shard that is written again: the checksums are of no one state. */
static bool has_changed(const dip_shard *shard)
{
    struct stat info;
    return stat(dip_shard_path(shard), &info) != 0 ||
           (uint64_t)info.st_size != dip_shard_bytes(shard) ||
           (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec !=
               dip_shard_changed_ns(shard);
}

static dip_status read_shard(work *w)
{
    dip_index_builder_clear(w->maker->builder);
    dip_status status = dip_shard_check(w->shard);
    if (status == DIP_FORMAT) {
        refuse(w, DIP_FAULT_TAR, -1, dip_error());
        return DIP_OK;
    }
    DIP_TRY(status);
    DIP_TRY(read_members(w));
    if (!w->faulty && has_changed(w->shard))
        refuse(w, DIP_FAULT_UNREADABLE, -1, "it was changed while it was read");
    return DIP_OK;
}

/* The index that is there. */

/* *keep: nothing need be done. One that speaks of a longer shard is not kept: if the file was cut,
 * reading it will tell. */
static dip_status look_at_old(work *w, bool *keep)
{
    const bool force = w->maker->options.force;
    dip_status status = dip_shard_index_open(&w->old, w->shard);
    w->there = status == DIP_OK || status == DIP_FORMAT;
    *keep = false;
    if (status == DIP_OK)
        *keep = !force && dip_shard_index_shard_bytes(w->old) == dip_shard_bytes(w->shard);
    if (status != DIP_FORMAT) return status == DIP_END ? DIP_OK : status;
    w->result->note = dip_format("%s; it was replaced", dip_error());
    if (!w->result->note) return dip_fail(DIP_NOMEM, "no memory to look at an index");
    if (force || dip_shard_index_is_ours(dip_shard_path(w->shard))) return DIP_OK;
    refuse(w, DIP_FAULT_CHECKSUM, -1,
           "its .idx cannot be read or is of other software: move it, or replace it with --force");
    return DIP_OK;
}

static dip_status note_changes(work *w)
{
    if (w->n_changed == 0) return DIP_OK;
    w->result->note =
        dip_format("%s.idx: it was replaced, though it said otherwise of %lld of its members",
                   dip_shard_path(w->shard), (long long)w->n_changed);
    return w->result->note ? DIP_OK : dip_fail(DIP_NOMEM, "no memory to look at an index");
}

static dip_status write_index(work *w)
{
    DIP_TRY(dip_index_builder_write(w->maker->builder, dip_shard_path(w->shard),
                                    dip_shard_bytes(w->shard)));
    w->result->outcome = w->there ? INDEX_REPLACED : INDEX_WRITTEN;
    return note_changes(w);
}

static dip_status make(work *w)
{
    bool keep;
    DIP_TRY(look_at_old(w, &keep));
    w->result->outcome = keep ? INDEX_KEPT : INDEX_REFUSED;
    if (keep || w->faulty) return DIP_OK;
    DIP_TRY(read_shard(w));
    return w->faulty ? DIP_OK : write_index(w);
}

dip_status index_make(index_maker *maker, index_result *result, const char *path)
{
    work w = {.maker = maker, .result = result};
    *result = (index_result){.outcome = INDEX_REFUSED};
    DIP_TRY(dip_shard_open_unread(&w.shard, path));
    dip_status status = make(&w);
    dip_shard_index_close(w.old);
    dip_shard_close(w.shard);
    return status;
}
