/* tar.h - the fields of a tar header block and the records of a PAX extended header.
 *
 * Usage:   a block that dip_tar_checksum_matches is a header; dip_tar_kind_of says of what,
 *          dip_tar_size and dip_tar_name read its fields; dip_pax_parse the body of an 'x' or 'g'.
 * Errors:  functions that can find something wrong return what it is, in words, or NULL.  */
#ifndef DIP_DATA_TAR_H
#define DIP_DATA_TAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    DIP_TAR_BLOCK_BYTES = 512,
    DIP_TAR_NAME_BYTES = 100,     /* of the name field */
    DIP_TAR_FULL_NAME_BYTES = 257 /* prefix, '/', name, NUL */
};

typedef enum dip_tar_kind {
    DIP_TAR_FILE,
    DIP_TAR_LONG_NAME,  /* 'L': its data is the next member's name */
    DIP_TAR_LONG_LINK,  /* 'K': a link's target, says nothing about names */
    DIP_TAR_PAX,        /* 'x' */
    DIP_TAR_PAX_GLOBAL, /* 'g' */
    DIP_TAR_SPARSE,
    DIP_TAR_FOLDER,
    DIP_TAR_WITHOUT_DATA, /* links, devices: the size field means nothing */
    DIP_TAR_OTHER         /* has data, holds no file */
} dip_tar_kind;

/* A header's checksum, unsigned or (historic writers) signed. */
bool dip_tar_checksum_matches(const uint8_t *header);
bool dip_tar_has_magic(const uint8_t *header);
dip_tar_kind dip_tar_kind_of(const uint8_t *header);

/* Octal or base-256; an empty field is 0, as in other readers. */
const char *dip_tar_size(uint64_t *n_bytes, const uint8_t *header);

/* PREFIX/NAME, NUL-terminated. */
void dip_tar_name(char name[DIP_TAR_FULL_NAME_BYTES], const uint8_t *header);

/* What the records of one extended header say about a member. An empty value (path_bytes 0, no
 * has_size) withdraws what an earlier header said. */
typedef struct dip_pax {
    bool names_path, names_size; /* there is such a record */
    bool has_size;
    uint64_t size;
    const char *path; /* into the body, not NUL-terminated */
    size_t path_bytes;
} dip_pax;

const char *dip_pax_parse(dip_pax *pax, const char *body, size_t n_bytes);

/* n_bytes up to whole blocks. */
uint64_t dip_tar_padded(uint64_t n_bytes);

#endif
