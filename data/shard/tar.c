#include "data/shard/tar.h"

#include <string.h>

/* Layout of a header block (POSIX ustar). */
enum {
    NAME_AT = 0,
    SIZE_AT = 124,
    NUMBER_BYTES = 12,
    CHECKSUM_AT = 148,
    CHECKSUM_BYTES = 8,
    TYPE_AT = 156,
    MAGIC_AT = 257,
    PREFIX_AT = 345,
    PREFIX_BYTES = 155
};

uint64_t dip_tar_padded(uint64_t n_bytes)
{
    return (n_bytes + DIP_TAR_BLOCK_BYTES - 1) / DIP_TAR_BLOCK_BYTES * DIP_TAR_BLOCK_BYTES;
}

/* Octal digits between optional blanks and a NUL or blank. */
static bool parse_octal(uint64_t *value, const uint8_t *field, size_t n)
{
    size_t i = 0;
    while (i < n && field[i] == ' ') i++;
    uint64_t v = 0;
    for (; i < n && field[i] >= '0' && field[i] <= '7'; i++) {
        if (v >> 60) return false;
        v = v * 8 + (uint64_t)(field[i] - '0');
    }
    for (; i < n && field[i] != '\0'; i++)
        if (field[i] != ' ') return false;
    *value = v;
    return true;
}

/* In base-256 the first bit is set; the second is the sign. */
const char *dip_tar_size(uint64_t *n_bytes, const uint8_t *header)
{
    const uint8_t *field = header + SIZE_AT;
    if ((field[0] & 0x80) == 0)
        return parse_octal(n_bytes, field, NUMBER_BYTES) ? NULL : "is not an octal number";
    if (field[0] & 0x40) return "is a negative base-256 number";
    uint64_t v = field[0] & 0x3f;
    for (size_t i = 1; i < NUMBER_BYTES; i++) {
        if (v >> 55) return "is a base-256 number over 2^63";
        v = v << 8 | field[i];
    }
    *n_bytes = v;
    return NULL;
}

bool dip_tar_checksum_matches(const uint8_t *header)
{
    uint64_t stored;
    if (!parse_octal(&stored, header + CHECKSUM_AT, CHECKSUM_BYTES)) return false;
    uint32_t sum = 0, n_high = 0;
    for (size_t i = 0; i < DIP_TAR_BLOCK_BYTES; i++) {
        sum += header[i];
        n_high += header[i] >> 7;
    }
    for (size_t i = CHECKSUM_AT; i < CHECKSUM_AT + CHECKSUM_BYTES; i++) {
        sum -= header[i];
        n_high -= header[i] >> 7;
    }
    sum += CHECKSUM_BYTES * ' '; /* the checksum counts its own field as blanks */
    return stored == sum || (int64_t)stored == (int64_t)sum - 256 * (int64_t)n_high;
}

bool dip_tar_has_magic(const uint8_t *header)
{
    return memcmp(header + MAGIC_AT, "ustar", 5) == 0;
}

dip_tar_kind dip_tar_kind_of(const uint8_t *header)
{
    switch (header[TYPE_AT]) {
    case '0':
    case '\0':
    case '7':
        return DIP_TAR_FILE;
    case 'L':
        return DIP_TAR_LONG_NAME;
    case 'K':
        return DIP_TAR_LONG_LINK;
    case 'x':
    case 'X':
        return DIP_TAR_PAX;
    case 'g':
        return DIP_TAR_PAX_GLOBAL;
    case 'S':
        return DIP_TAR_SPARSE;
    case '5':
        return DIP_TAR_FOLDER;
    case '1':
    case '2':
    case '3':
    case '4':
    case '6':
        return DIP_TAR_WITHOUT_DATA;
    default:
        return DIP_TAR_OTHER;
    }
}

void dip_tar_name(char name[DIP_TAR_FULL_NAME_BYTES], const uint8_t *header)
{
    size_t at = 0;
    /* Only POSIX ustar has a prefix; old GNU headers keep times in that place. */
    if (memcmp(header + MAGIC_AT, "ustar\0", 6) == 0 && header[PREFIX_AT] != 0) {
        at = strnlen((const char *)header + PREFIX_AT, PREFIX_BYTES);
        memcpy(name, header + PREFIX_AT, at);
        name[at++] = '/';
    }
    size_t n = strnlen((const char *)header + NAME_AT, DIP_TAR_NAME_BYTES);
    memcpy(name + at, header + NAME_AT, n);
    name[at + n] = '\0';
}

static bool parse_pax_size(uint64_t *size, const char *digits, size_t n)
{
    *size = 0;
    for (size_t i = 0; i < n; i++) {
        if (digits[i] < '0' || digits[i] > '9' || *size > (UINT64_MAX >> 1) / 10 - 1) return false;
        *size = *size * 10 + (uint64_t)(digits[i] - '0');
    }
    return true;
}

/* Records "LENGTH KEY=VALUE\n", LENGTH counting all of it. */
const char *dip_pax_parse(dip_pax *pax, const char *body, size_t n_bytes)
{
    *pax = (dip_pax){0};
    while (n_bytes > 0) {
        size_t length = 0, digits = 0;
        while (digits < n_bytes && body[digits] >= '0' && body[digits] <= '9') {
            if (digits == 9) return "a PAX record of over a billion bytes";
            length = length * 10 + (size_t)(body[digits++] - '0');
        }
        if (digits == 0 || digits >= n_bytes || body[digits] != ' ')
            return "a PAX record without a length";
        if (length > n_bytes || length < digits + 3 || body[length - 1] != '\n')
            return "a PAX record whose length is wrong";
        const char *key = body + digits + 1;
        const char *value = memchr(key, '=', length - digits - 2);
        if (!value) return "a PAX record without '='";
        size_t key_bytes = (size_t)(value++ - key);
        size_t value_bytes = (size_t)(body + length - 1 - value);
        if (key_bytes == 4 && memcmp(key, "path", 4) == 0) {
            pax->names_path = true;
            pax->path = value;
            pax->path_bytes = value_bytes;
        } else if (key_bytes == 4 && memcmp(key, "size", 4) == 0) {
            pax->names_size = true;
            pax->has_size = value_bytes > 0;
            if (!parse_pax_size(&pax->size, value, value_bytes))
                return "a PAX size that is not a number below 2^63";
        } else if (key_bytes > 11 && memcmp(key, "GNU.sparse.", 11) == 0) {
            return "a sparse file (only whole files can be samples)";
        }
        body += length;
        n_bytes -= length;
    }
    return NULL;
}
