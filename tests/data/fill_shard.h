/* fill_shard.h - a shard of given images and captions, and a filler that reads it. */
#ifndef DIP_TESTS_DATA_FILL_SHARD_H
#define DIP_TESTS_DATA_FILL_SHARD_H

#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "data/fill.h"
#include "data/shard/shard_writer.h"

typedef struct fill_shard {
    dip_shard_writer *writer;
    char *pattern;
    dip_faults *faults;
    dip_samples *samples;
    dip_loader_options options;
    dip_filler *filler;
} fill_shard;

static inline void must(dip_status status)
{
    if (status != DIP_OK) fail_msg("%s: %s", dip_status_text(status), dip_error());
}

static inline void shard_start(fill_shard *shard, const char *folder)
{
    *shard = (fill_shard){.pattern = dip_format("%s/{00000..}.tar", folder)};
    must(dip_shard_writer_open(&shard->writer, shard->pattern, 10000));
}

static inline void shard_add(fill_shard *shard, const char *image_extension, const void *image,
                             size_t image_bytes, const char *text_extension, const void *text,
                             size_t text_bytes)
{
    const dip_shard_part parts[] = {{image_extension, image, image_bytes},
                                    {text_extension, text, text_bytes}};
    must(dip_shard_writer_add(shard->writer, parts, 2));
}

/* Finish the shard and find its samples; options are then as evaluation would have them. */
static inline void shard_open(fill_shard *shard, int needs, int image_size)
{
    must(dip_shard_writer_close(shard->writer));
    must(dip_faults_open(&shard->faults));
    char *path = strdup(shard->pattern), *brace = strchr(path, '{');
    memcpy(brace, "00000.tar", 10);
    const dip_string_list paths = {&path, 1};
    const dip_samples_options options = {.needs = needs};
    must(dip_samples_open(&shard->samples, &paths, &options, shard->faults));
    free(path);
    shard->options = (dip_loader_options){.samples = shard->samples,
                                          .faults = shard->faults,
                                          .image_size = image_size,
                                          .seed = 42,
                                          .decode = dip_decode_defaults()};
}

static inline void shard_close(fill_shard *shard)
{
    dip_filler_close(shard->filler);
    dip_samples_close(shard->samples);
    dip_faults_close(shard->faults);
    free(shard->pattern);
}

#endif
