#include "data/shard/shard_index_fit.h"

#include <stdbool.h>
#include <string.h>

#include "core/file.h"
#include "data/shard/tar.h"

enum {
    READ_BYTES = 16 * 1024,
    MAX_COMPARED_BYTES = 16 << 20 /* of a member, to tell one shard from another */
};

dip_status dip_shard_crc(uint32_t *crc, const dip_shard *shard, uint64_t offset, uint64_t n_bytes,
                         void *buffer, size_t buffer_bytes)
{
    *crc = 0;
    while (n_bytes > 0) {
        const size_t n = n_bytes < buffer_bytes ? (size_t)n_bytes : buffer_bytes;
        DIP_TRY(dip_shard_read(shard, buffer, offset, n));
        *crc = dip_crc32c(*crc, buffer, n);
        offset += n;
        n_bytes -= n;
    }
    return DIP_OK;
}

/* Do an entry and a header speak of the same bytes? */
static bool same_place(const dip_member_entry *entry, const dip_member *member)
{
    return entry->offset == member->offset && entry->n_bytes == member->n_bytes;
}

static bool same_member(const dip_member_entry *entry, const dip_member *member)
{
    return same_place(entry, member) && strcmp(entry->name, member->name) == 0;
}

/* Of a shard that is shorter than when its index was made: do all of its headers say the same, as
 * far as they go? Then the file was cut; else it is another file. */
static dip_status was_cut(bool *cut, dip_shard_index *index, dip_shard *shard)
{
    dip_member member;
    dip_member_entry entry;
    dip_status status;
    *cut = true;
    while (*cut && (status = dip_shard_next(shard, &member)) == DIP_OK)
        *cut = dip_shard_index_next(index, &entry) == DIP_OK && same_member(&entry, &member);
    return *cut && status != DIP_END && status != DIP_FORMAT ? status : DIP_OK;
}

/* Are the bytes at its place those of this entry? Empty members all look alike. */
static dip_status has_data(bool *has, const dip_shard *shard, const dip_member_entry *entry)
{
    uint8_t buffer[READ_BYTES];
    uint32_t crc;
    *has = false;
    if (entry->n_bytes == 0 || entry->n_bytes > MAX_COMPARED_BYTES) return DIP_OK;
    DIP_TRY(dip_shard_crc(&crc, shard, entry->offset, entry->n_bytes, buffer, sizeof buffer));
    *has = crc == entry->crc;
    return DIP_OK;
}

/* Of a shard that is as long as when its index was made: does it begin with the member the index
 * begins with? Only a whole header at its very beginning is heard against the index (one is not
 * searched for). If it gives but another name, the member's bytes decide: the name in an extended
 * header has no checksum, and damage there does not make it another file. */
static dip_status begins_alike(bool *alike, dip_shard_index *index, dip_shard *shard)
{
    uint8_t header[DIP_TAR_BLOCK_BYTES];
    dip_member member;
    dip_member_entry entry;
    *alike = true;
    if (dip_shard_bytes(shard) < sizeof header) return DIP_OK;
    DIP_TRY(dip_shard_read(shard, header, 0, sizeof header));
    if (!dip_tar_checksum_matches(header)) return DIP_OK;
    const dip_status status = dip_shard_next(shard, &member);
    if (status != DIP_OK) return status == DIP_END ? DIP_OK : status;
    *alike = dip_shard_index_next(index, &entry) == DIP_OK && same_place(&entry, &member);
    if (!*alike || same_member(&entry, &member)) return DIP_OK;
    return has_data(alike, shard, &entry);
}

/* Was the index made for this shard, or for what it was before it was cut? What cannot be read is
 * no reason to doubt the index: it will name the samples that this costs. */
static dip_status check_index(bool *fits, dip_shard_index *index, dip_shard *shard)
{
    const uint64_t made_for = dip_shard_index_shard_bytes(index), n_bytes = dip_shard_bytes(shard);
    *fits = made_for >= n_bytes;
    if (!*fits) return DIP_OK;
    dip_status status = dip_shard_check(shard);
    if (status == DIP_FORMAT && made_for > n_bytes) return status;
    if (status == DIP_OK)
        status =
            made_for > n_bytes ? was_cut(fits, index, shard) : begins_alike(fits, index, shard);
    if (status != DIP_OK) *fits = true;
    dip_shard_rewind(shard);
    dip_shard_index_rewind(index);
    return status == DIP_NOMEM ? status : DIP_OK;
}

dip_status dip_shard_index_open(dip_shard_index **index, dip_shard *shard)
{
    bool fits;
    DIP_TRY(dip_shard_index_read_any(index, dip_shard_path(shard)));
    dip_status status = check_index(&fits, *index, shard);
    if (status == DIP_OK && fits) return DIP_OK;
    dip_shard_index_close(*index);
    *index = NULL;
    if (status != DIP_OK) return status;
    return dip_fail(DIP_FORMAT, "%s.idx: it was made for another shard of this name",
                    dip_shard_path(shard));
}
