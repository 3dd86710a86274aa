/* CRC-32C, reflected polynomial 0x82F63B78: by the SSE4.2 instruction where the processor has it,
 * else eight table look-ups a step ("slicing by eight").
 *
 * The instruction takes three cycles and one can begin in each: long data goes through three at a
 * time, a third of a block each. Zero bytes behind a part change its state by a linear map, which
 * brings the three together. */
#include "core/file.h"

#include <pthread.h>
#include <string.h>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

enum { PART_BYTES = 1024 };

static uint32_t tables[8][256];
static uint32_t part_of_zeros[4][256]; /* a state's byte, behind PART_BYTES zeros */
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static void fill_tables(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (0x82F63B78u & (0u - (crc & 1)));
        tables[0][byte] = crc;
    }
    for (uint32_t byte = 0; byte < 256; byte++)
        for (int k = 1; k < 8; k++)
            tables[k][byte] = (tables[k - 1][byte] >> 8) ^ tables[0][tables[k - 1][byte] & 0xff];
    for (int bit = 0; bit < 32; bit++) {
        uint32_t crc = 1u << bit;
        for (int i = 0; i < PART_BYTES; i++) crc = (crc >> 8) ^ tables[0][crc & 0xff];
        for (uint32_t byte = 0; byte < 256; byte++)
            if (byte >> bit % 8 & 1) part_of_zeros[bit / 8][byte] ^= crc;
    }
}

uint32_t dip_crc32c_portable(uint32_t crc, const void *data, size_t n_bytes)
{
    pthread_once(&tables_once, fill_tables);
    const uint8_t *p = data;
    crc = ~crc;
    for (; n_bytes >= 8; n_bytes -= 8, p += 8) {
        uint32_t low = crc ^ ((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
                              (uint32_t)p[3] << 24);
        crc = tables[7][low & 0xff] ^ tables[6][low >> 8 & 0xff] ^ tables[5][low >> 16 & 0xff] ^
              tables[4][low >> 24] ^ tables[3][p[4]] ^ tables[2][p[5]] ^ tables[1][p[6]] ^
              tables[0][p[7]];
    }
    for (; n_bytes > 0; n_bytes--) crc = (crc >> 8) ^ tables[0][(crc ^ *p++) & 0xff];
    return ~crc;
}

#if defined(__x86_64__)
#define SSE42 __attribute__((target("sse4.2")))

static uint64_t behind_zeros(uint64_t state)
{
    return part_of_zeros[0][state & 0xff] ^ part_of_zeros[1][state >> 8 & 0xff] ^
           part_of_zeros[2][state >> 16 & 0xff] ^ part_of_zeros[3][state >> 24];
}

SSE42 static inline uint64_t add_word(uint64_t state, const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return _mm_crc32_u64(state, word);
}

SSE42 static uint32_t crc32c_sse42(uint32_t crc, const uint8_t *p, size_t n_bytes)
{
    uint64_t state = (uint32_t)~crc;
    if (n_bytes >= 3 * PART_BYTES) pthread_once(&tables_once, fill_tables);
    for (; n_bytes >= 3 * PART_BYTES; n_bytes -= 3 * PART_BYTES, p += 3 * PART_BYTES) {
        uint64_t second = 0, third = 0;
        for (int i = 0; i < PART_BYTES; i += 8) {
            state = add_word(state, p + i);
            second = add_word(second, p + PART_BYTES + i);
            third = add_word(third, p + 2 * PART_BYTES + i);
        }
        state = behind_zeros(behind_zeros(state) ^ second) ^ third;
    }
    for (; n_bytes >= 8; n_bytes -= 8, p += 8) state = add_word(state, p);
    uint32_t narrow = (uint32_t)state;
    for (; n_bytes > 0; n_bytes--) narrow = _mm_crc32_u8(narrow, *p++);
    return ~narrow;
}
#endif

uint32_t dip_crc32c(uint32_t crc, const void *data, size_t n_bytes)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) return crc32c_sse42(crc, data, n_bytes);
#endif
    return dip_crc32c_portable(crc, data, n_bytes);
}
