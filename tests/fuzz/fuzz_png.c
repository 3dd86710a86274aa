/* PNG. */
#include <zlib.h>

#include "fuzz/image.h"

static uint32_t load_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void store_u32(uint8_t *p, uint32_t x)
{
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(x >> (24 - 8 * i));
}

/* The CRC of every chunk. */
void fuzz_repair(uint8_t *data, size_t n)
{
    size_t at = 8;
    while (at + 12 <= n) {
        uint32_t n_data = load_u32(data + at);
        if (n_data > n - at - 12) return;
        store_u32(data + at + 8 + n_data, (uint32_t)crc32(0, data + at + 4, n_data + 4));
        at += 12 + n_data;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n >= 8 && data[0] == 0x89) fuzz_image(data, n);
    return 0;
}
