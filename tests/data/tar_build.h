/* tar_build.h - make tar files by hand, right and wrong ones, and write them for a test. */
#ifndef DIP_TESTS_DATA_TAR_BUILD_H
#define DIP_TESTS_DATA_TAR_BUILD_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/scratch.h"

#ifndef TAR_BUILD_BYTES
#define TAR_BUILD_BYTES (1 << 16)
#endif

typedef struct tar_build {
    uint8_t bytes[TAR_BUILD_BYTES];
    size_t n;
} tar_build;

static inline void tar_checksum(uint8_t *header)
{
    memset(header + 148, ' ', 8);
    unsigned sum = 0;
    for (int i = 0; i < 512; i++) sum += header[i];
    snprintf((char *)header + 148, 7, "%06o", sum);
}

static inline uint8_t *tar_header(tar_build *tar, const char *name, size_t n_bytes, char type)
{
    uint8_t *header = tar->bytes + tar->n;
    memset(header, 0, 512);
    memcpy(header, name, strlen(name) < 100 ? strlen(name) : 100);
    snprintf((char *)header + 124, 12, "%011o", (unsigned)n_bytes);
    header[156] = (uint8_t)type;
    memcpy(header + 257, "ustar", 6);
    memcpy(header + 263, "00", 2);
    tar_checksum(header);
    tar->n += 512;
    return header;
}

static inline void tar_data(tar_build *tar, const void *data, size_t n_bytes)
{
    size_t padded = (n_bytes + 511) / 512 * 512;
    memset(tar->bytes + tar->n, 0, padded);
    memcpy(tar->bytes + tar->n, data, n_bytes);
    tar->n += padded;
}

static inline void tar_member(tar_build *tar, const char *name, const char *text)
{
    tar_header(tar, name, strlen(text), '0');
    tar_data(tar, text, strlen(text));
}

static inline void tar_end(tar_build *tar)
{
    memset(tar->bytes + tar->n, 0, 1024);
    tar->n += 1024;
}

/* Write bytes to FOLDER/NAME; the path is malloc'd. A file that is there goes first: file systems
 * write out at once what is written over. */
static inline char *put_file(const char *folder, const char *name, const void *data, size_t n)
{
    char *path = dip_path_join(folder, name);
    if (path) remove(path);
    FILE *file = path ? fopen(path, "wb") : NULL;
    if (!file || fwrite(data, 1, n, file) != n || fclose(file) != 0) exit(99);
    return path;
}

#endif
