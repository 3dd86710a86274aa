#include "data/dedup/digest.h"

#include <string.h>

typedef struct sip {
    uint64_t v0, v1, v2, v3;
} sip;

static uint64_t rotate(uint64_t x, int n)
{
    return x << n | x >> (64 - n);
}

static void rounds(sip *s, int n)
{
    for (int i = 0; i < n; i++) {
        s->v0 += s->v1;
        s->v2 += s->v3;
        s->v1 = rotate(s->v1, 13) ^ s->v0;
        s->v3 = rotate(s->v3, 16) ^ s->v2;
        s->v0 = rotate(s->v0, 32);
        s->v2 += s->v1;
        s->v0 += s->v3;
        s->v1 = rotate(s->v1, 17) ^ s->v2;
        s->v3 = rotate(s->v3, 21) ^ s->v0;
        s->v2 = rotate(s->v2, 32);
    }
}

static void take_word(sip *s, uint64_t word)
{
    s->v3 ^= word;
    rounds(s, 2);
    s->v0 ^= word;
}

static uint64_t little_endian(const uint8_t *p, size_t n)
{
    uint64_t word = 0;
    for (size_t i = 0; i < n; i++) word |= (uint64_t)p[i] << (8 * i);
    return word;
}

dip_digest dip_digest_of(dip_digest start, const void *data, size_t n_bytes)
{
    sip s = {0x736f6d6570736575u ^ start.low, 0x646f72616e646f6du ^ start.high ^ 0xee,
             0x6c7967656e657261u ^ start.low, 0x7465646279746573u ^ start.high};
    const uint8_t *p = data;
    size_t left = n_bytes;
    for (; left >= 8; left -= 8, p += 8) take_word(&s, little_endian(p, 8));
    take_word(&s, (left ? little_endian(p, left) : 0) | (uint64_t)n_bytes << 56);
    s.v2 ^= 0xee;
    rounds(&s, 4);
    dip_digest digest = {.low = s.v0 ^ s.v1 ^ s.v2 ^ s.v3};
    s.v1 ^= 0xdd;
    rounds(&s, 4);
    digest.high = s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
    return digest;
}

dip_digest dip_digest_text(dip_digest start, const char *text)
{
    return dip_digest_of(start, text, strlen(text) + 1);
}

dip_digest dip_digest_number(dip_digest start, int64_t number)
{
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)((uint64_t)number >> (8 * i));
    return dip_digest_of(start, bytes, sizeof bytes);
}

bool dip_digest_equal(dip_digest a, dip_digest b)
{
    return a.low == b.low && a.high == b.high;
}
