/* Normal noise. A byte is a whole number, so its noise can be rounded before it is added: 511 steps
 * matter, from -255 to 255. They are drawn by inversion from 32 random bits. The upper 16 nearly
 * always tell the step, by one look into a table; the others are drawn only where they do not. So
 * the distribution is exact to 2^-32 for the price of 16 bits. */
#include <math.h>

#include "data/augment/augment_ops.h"

enum { MAX_STEP = 255, N_STEPS = 2 * MAX_STEP + 1, GUIDE_BITS = 14 };
enum { CHUNK = 512 }; /* bytes: two a draw of 32 bits, eight a block of the generator */

typedef struct steps {
    uint64_t ends[N_STEPS]; /* a draw below ends[i], not below ends[i - 1], is step i */
    /* Of all draws with these upper bits: their step; or, when they have several, ~ the first. */
    int16_t guide[1 << GUIDE_BITS];
} steps;

static void make_steps(steps *s, double deviation)
{
    const uint64_t bucket_size = UINT64_C(1) << (32 - GUIDE_BITS);
    uint64_t bucket = 0;
    for (int i = 0; i < N_STEPS; i++) {
        const double edge = (i - MAX_STEP + 0.5) / deviation;
        const double share = i < N_STEPS - 1 ? 0.5 * erfc(-edge * 0.70710678118654752440) : 1;
        s->ends[i] = (uint64_t)rint(share * 0x1p32);
        const uint64_t last = s->ends[i] / bucket_size;
        for (; bucket < last; bucket++) s->guide[bucket] = (int16_t)i;
        if (bucket == last && s->ends[i] % bucket_size != 0) s->guide[bucket++] = (int16_t)~i;
    }
}

/* From `step` on, with more bits where 16 are not enough. */
static int find_step(const steps *s, int step, uint32_t upper, dip_rng *rng)
{
    uint64_t draw = (uint64_t)upper << 16;
    while (draw >= s->ends[step]) step++;
    if (s->ends[step] - draw >= 1 << 16) return step;
    draw |= dip_rng_u32(rng) >> 16;
    while (draw >= s->ends[step]) step++;
    return step;
}

static inline int16_t noise_of(const steps *s, uint32_t upper, dip_rng *rng)
{
    const int16_t step = s->guide[upper >> (16 - GUIDE_BITS)];
    return (int16_t)((step >= 0 ? step : find_step(s, ~step, upper, rng)) - MAX_STEP);
}

void dip_augment_noise_by(const dip_augment_kernels *kernels, uint8_t *image, size_t n_bytes,
                          double sigma, dip_rng *rng)
{
    if (sigma == 0) return;
    steps s;
    make_steps(&s, 255 * sigma);
    for (size_t done = 0; done < n_bytes; done += CHUNK) {
        uint32_t draws[CHUNK / 2];
        int16_t noise[CHUNK];
        kernels->draw_blocks(draws, rng, CHUNK / 8);
        for (size_t i = 0; i < CHUNK / 2; i++) {
            noise[2 * i] = noise_of(&s, draws[i] >> 16, rng);
            noise[2 * i + 1] = noise_of(&s, draws[i] & 0xffff, rng);
        }
        uint8_t *const bytes = image + done;
        const size_t n = n_bytes - done < CHUNK ? n_bytes - done : CHUNK;
        for (size_t i = 0; i < n; i++) {
            const int value = bytes[i] + noise[i];
            bytes[i] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
        }
    }
}

void dip_augment_noise(uint8_t *image, size_t n_bytes, double sigma, dip_rng *rng)
{
    dip_augment_noise_by(dip_augment_best_kernels(), image, n_bytes, sigma, rng);
}
