/* The index of a shard: members lie inside the shard, one after the other; samples found by it can
 * be read or are named. The shard has the size the index speaks of and nothing but zeros in it. */
#include "fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "data/samples.h"
#include "data/shard/shard_index.h"

enum { SHARD_BYTES_AT = 16, TAIL_BYTES = 4, MAX_SHARD_BYTES = 1 << 16 };

/* The index's own checksum, its last four bytes. */
void fuzz_repair(uint8_t *data, size_t n)
{
    if (n < TAIL_BYTES) return;
    uint32_t crc = dip_crc32c(0, data, n - TAIL_BYTES);
    for (size_t i = n - TAIL_BYTES; i < n; i++, crc >>= 8) data[i] = (uint8_t)crc;
}

static const char *put_shard(const uint8_t *data, size_t n)
{
    static const uint8_t zeros[MAX_SHARD_BYTES];
    uint64_t size = 0;
    for (size_t i = 8; i-- > 0;)
        size = size << 8 | (SHARD_BYTES_AT + i < n ? data[SHARD_BYTES_AT + i] : 0);
    fuzz_file("shard.tar.idx", data, n);
    return fuzz_file("shard.tar", zeros, size < MAX_SHARD_BYTES ? (size_t)size : MAX_SHARD_BYTES);
}

static void read_entries(const char *path, size_t n)
{
    dip_shard_index *index;
    dip_member_entry entry;
    uint64_t end = 0;
    int64_t n_entries = 0;
    if (dip_shard_index_read_any(&index, path) != DIP_OK) return;
    uint64_t shard_bytes = dip_shard_index_shard_bytes(index);
    while (dip_shard_index_next(index, &entry) == DIP_OK) {
        FUZZ_CHECK(entry.offset >= end && entry.offset <= shard_bytes);
        FUZZ_CHECK(entry.n_bytes <= shard_bytes - entry.offset);
        FUZZ_CHECK(strlen(entry.name) < n);
        end = entry.offset + entry.n_bytes;
        n_entries++;
        fuzz_canary(entry.name, strlen(entry.name));
    }
    FUZZ_CHECK(n_entries == dip_shard_index_members(index));
    dip_shard_index_close(index);
}

static void read_samples(const dip_samples *samples)
{
    dip_sample_reader *reader;
    FUZZ_CHECK(dip_sample_reader_open(&reader, samples) == DIP_OK);
    for (int64_t i = 0; i < dip_samples_count(samples); i++) {
        dip_sample sample;
        dip_fault_kind kind = DIP_N_FAULT_KINDS;
        dip_status status =
            dip_sample_read(reader, &sample, i, DIP_NEEDS_IMAGE | DIP_NEEDS_CAPTION, &kind);
        FUZZ_CHECK(status == DIP_OK || (status == DIP_FORMAT && kind < DIP_N_FAULT_KINDS));
        FUZZ_CHECK(status != DIP_OK || sample.has_image == (sample.image != NULL));
    }
    dip_sample_reader_close(reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const char *path = put_shard(data, n);
    char *paths[] = {(char *)path};
    const dip_string_list shards = {.items = paths, .n_items = 1};
    const dip_samples_options options = {.needs = DIP_NAMES_INCOMPLETE, .n_threads = 1};
    dip_faults *faults;
    dip_samples *samples;
    read_entries(path, n);
    FUZZ_CHECK(dip_faults_open(&faults) == DIP_OK);
    if (dip_samples_open(&samples, &shards, &options, faults) == DIP_OK) {
        read_samples(samples);
        dip_samples_close(samples);
    }
    dip_faults_close(faults);
    return 0;
}
