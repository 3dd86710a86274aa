/* rng.h - counter-based random numbers: Philox4x32-10 (Salmon et al., SC11).
 *
 * A generator is a pure function of (seed, stream, counter): the same three numbers give
 * the same value on any thread, in any order. Streams keep uses apart, e.g. one stream
 * per sample of an epoch; see dip_rng_stream.
 *
 * Usage:   dip_rng_init, then dip_rng_u32 / uniform / below / normal.
 * Owns:    nothing; copy the struct freely.                                             */
#ifndef DIP_CORE_RNG_H
#define DIP_CORE_RNG_H

#include <math.h>
#include <stdint.h>

typedef struct dip_rng {
    uint32_t key[2]; /* seed */
    uint64_t stream; /* upper half of the counter */
    uint64_t block;  /* lower half of the counter: next block of four */
    uint32_t out[4];
    int n_left; /* unused values in out */
} dip_rng;

/* Purposes of random numbers; mixed into the stream so that no two uses share one. */
typedef enum dip_rng_use {
    DIP_RNG_INIT = 1,    /* parameter initialisation; item = hash of its name */
    DIP_RNG_ORDER = 2,   /* sample order; item = epoch */
    DIP_RNG_AUGMENT = 3, /* augmentation and caption choice; item = sample index */
    DIP_RNG_SHARD = 4,   /* writing shards */
    DIP_RNG_TEST = 5
} dip_rng_use;

/* A stream number for (use, epoch, item): item up to 2^36, epoch up to 2^20. */
static inline uint64_t dip_rng_stream(dip_rng_use use, uint64_t epoch, uint64_t item)
{
    return ((uint64_t)use << 56) | ((epoch & 0xfffffu) << 36) | (item & 0xfffffffffull);
}

static inline void dip_rng_init(dip_rng *rng, uint64_t seed, uint64_t stream)
{
    rng->key[0] = (uint32_t)seed;
    rng->key[1] = (uint32_t)(seed >> 32);
    rng->stream = stream;
    rng->block = 0;
    rng->n_left = 0;
}

static inline void dip_rng_refill(dip_rng *rng)
{
    uint32_t c0 = (uint32_t)rng->block, c1 = (uint32_t)(rng->block >> 32);
    uint32_t c2 = (uint32_t)rng->stream, c3 = (uint32_t)(rng->stream >> 32);
    uint32_t k0 = rng->key[0], k1 = rng->key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    rng->out[0] = c0;
    rng->out[1] = c1;
    rng->out[2] = c2;
    rng->out[3] = c3;
    rng->block++;
    rng->n_left = 4;
}

static inline uint32_t dip_rng_u32(dip_rng *rng)
{
    if (rng->n_left == 0) dip_rng_refill(rng);
    return rng->out[4 - rng->n_left--];
}

static inline uint64_t dip_rng_u64(dip_rng *rng)
{
    uint64_t high = dip_rng_u32(rng);
    return high << 32 | dip_rng_u32(rng);
}

/* Uniform in [0, 1), 53 random bits. */
static inline double dip_rng_uniform(dip_rng *rng)
{
    return (double)(dip_rng_u64(rng) >> 11) * 0x1p-53;
}

static inline double dip_rng_range(dip_rng *rng, double low, double high)
{
    return low + (high - low) * dip_rng_uniform(rng);
}

/* Uniform integer in [0, n), n >= 1, without modulo bias (Lemire's rejection). */
static inline uint64_t dip_rng_below(dip_rng *rng, uint64_t n)
{
    uint64_t limit = UINT64_MAX - (UINT64_MAX % n + 1) % n; /* largest multiple of n, -1 */
    uint64_t x;
    do x = dip_rng_u64(rng);
    while (x > limit);
    return x % n;
}

/* Standard normal by Box-Muller (one value a call). */
static inline double dip_rng_normal(dip_rng *rng)
{
    double u = 1.0 - dip_rng_uniform(rng); /* (0, 1] */
    double v = dip_rng_uniform(rng);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586476925 * v);
}

#endif
