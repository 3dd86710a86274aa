/* A shard: its members lie inside the file, one after the other, and are what stands there. */
#include "fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "data/samples.h"
#include "data/shard/shard.h"

enum { BLOCK = 512, CHECKSUM_AT = 148, SIZE_AT = 124 };

/* The checksum of every header that a chain of sizes from the start leads to. */
void fuzz_repair(uint8_t *data, size_t n)
{
    size_t at = 0;
    while (at + BLOCK <= n) {
        uint8_t *header = data + at;
        unsigned sum = 0;
        for (size_t i = 0; i < BLOCK; i++)
            sum += i >= CHECKSUM_AT && i < CHECKSUM_AT + 8 ? ' ' : header[i];
        for (int digit = 5; digit >= 0; digit--, sum /= 8)
            header[CHECKSUM_AT + digit] = (uint8_t)('0' + sum % 8);
        header[CHECKSUM_AT + 6] = 0;
        char size[13] = {0};
        memcpy(size, header + SIZE_AT, 12);
        size_t n_bytes = strtoul(size, NULL, 8);
        if (n_bytes > n) return;
        at += BLOCK + (n_bytes + BLOCK - 1) / BLOCK * BLOCK;
        while (at + BLOCK <= n && data[at] == 0) at += BLOCK; /* an end, then perhaps more */
    }
}

static void check_member(const dip_shard *shard, const dip_member *member, const uint8_t *data,
                         size_t n)
{
    size_t key_bytes;
    const char *extension;
    FUZZ_CHECK(member->offset <= n && member->n_bytes <= n - member->offset);
    uint8_t first[64];
    size_t n_first = member->n_bytes < sizeof first ? member->n_bytes : sizeof first;
    FUZZ_CHECK(dip_shard_read(shard, first, member->offset, n_first) == DIP_OK);
    FUZZ_CHECK(memcmp(first, data + member->offset, n_first) == 0);
    if (dip_member_split(member->name, &key_bytes, &extension)) {
        FUZZ_CHECK(key_bytes > 0 && key_bytes < strlen(member->name));
        FUZZ_CHECK(extension > member->name && extension <= member->name + strlen(member->name));
    }
    fuzz_canary(member->name, strlen(member->name));
}

static void read_members(const char *path, const uint8_t *data, size_t n)
{
    dip_shard *shard;
    if (dip_shard_open(&shard, path) != DIP_OK) return;
    dip_member member;
    uint64_t end = 0;
    size_t n_steps = 0;
    for (dip_status status; (status = dip_shard_next(shard, &member)) != DIP_END;) {
        FUZZ_CHECK(n_steps++ <= n / BLOCK); /* every step goes on by a header at least */
        FUZZ_CHECK(status == DIP_OK || status == DIP_FORMAT);
        if (status != DIP_OK) continue;
        FUZZ_CHECK(member.offset >= end);
        end = member.offset + member.n_bytes;
        check_member(shard, &member, data, n);
    }
    dip_shard_close(shard);
}

/* The same file as samples: what the index says is there can be read. */
static void read_samples(const char *path, size_t n)
{
    dip_faults *faults;
    dip_samples *samples;
    dip_sample_reader *reader;
    char *paths[] = {(char *)path};
    const dip_string_list shards = {.items = paths, .n_items = 1};
    const dip_samples_options options = {.needs = DIP_NAMES_INCOMPLETE, .n_threads = 1};
    FUZZ_CHECK(dip_faults_open(&faults) == DIP_OK);
    if (dip_samples_open(&samples, &shards, &options, faults) == DIP_OK) {
        FUZZ_CHECK(dip_sample_reader_open(&reader, samples) == DIP_OK);
        for (int64_t i = 0; i < dip_samples_count(samples); i++) {
            dip_sample sample;
            dip_fault_kind kind;
            FUZZ_CHECK(dip_sample_read(reader, &sample, i, DIP_NEEDS_IMAGE | DIP_NEEDS_CAPTION,
                                       &kind) == DIP_OK);
            FUZZ_CHECK(sample.key[0] && sample.has_image == (sample.image != NULL));
            FUZZ_CHECK(sample.image_bytes <= n && sample.caption_bytes <= n);
        }
        dip_sample_reader_close(reader);
        dip_samples_close(samples);
    }
    dip_faults_close(faults);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const char *path = fuzz_file("shard.tar", data, n);
    read_members(path, data, n);
    read_samples(path, n);
    return 0;
}
