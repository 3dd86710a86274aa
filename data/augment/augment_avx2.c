/* For CPUs with AVX2. */
#include "data/augment/augment_kernels.h"

#if defined(__AVX2__) && defined(__x86_64__)

#include <immintrin.h>

#include "data/augment/augment_loops.h"

/* Philox (core/rng.h) on 16 blocks at a time, so that one's latency hides behind the others'. A
 * 64-bit element holds a 32-bit word of one block: the multiplication reads its lower half, and
 * what is left in the upper half is never looked at. */
enum { N_VECTORS = DIP_DRAW_BLOCKS / 4 };

typedef struct counters {
    __m256i word[4][N_VECTORS];
} counters;

static inline __m256i each(uint64_t x)
{
    return _mm256_set1_epi64x((long long)x);
}

static inline __m256i xor3(__m256i a, __m256i b, __m256i c)
{
    return _mm256_xor_si256(_mm256_xor_si256(a, b), c);
}

static inline void do_round(counters *c, uint32_t key0, uint32_t key1)
{
    for (int i = 0; i < N_VECTORS; i++) {
        const __m256i p0 = _mm256_mul_epu32(c->word[0][i], each(0xD2511F53u));
        const __m256i p1 = _mm256_mul_epu32(c->word[2][i], each(0xCD9E8D57u));
        c->word[0][i] = xor3(_mm256_srli_epi64(p1, 32), c->word[1][i], each(key0));
        c->word[2][i] = xor3(_mm256_srli_epi64(p0, 32), c->word[3][i], each(key1));
        c->word[1][i] = p1;
        c->word[3][i] = p0;
    }
}

/* Four blocks of four words, one block after the other. */
static inline void store_blocks(uint32_t *out, const counters *c, int i)
{
    const __m256i words01 =
        _mm256_blend_epi32(c->word[0][i], _mm256_slli_epi64(c->word[1][i], 32), 0xaa);
    const __m256i words23 =
        _mm256_blend_epi32(c->word[2][i], _mm256_slli_epi64(c->word[3][i], 32), 0xaa);
    const __m256i blocks02 = _mm256_unpacklo_epi64(words01, words23);
    const __m256i blocks13 = _mm256_unpackhi_epi64(words01, words23);
    _mm256_storeu_si256((__m256i *)(void *)out,
                        _mm256_permute2x128_si256(blocks02, blocks13, 0x20));
    _mm256_storeu_si256((__m256i *)(void *)(out + 8),
                        _mm256_permute2x128_si256(blocks02, blocks13, 0x31));
}

static void draw_blocks(uint32_t *out, dip_rng *rng, size_t n_blocks)
{
    for (size_t done = 0; done < n_blocks; done += DIP_DRAW_BLOCKS) {
        counters c;
        for (int i = 0; i < N_VECTORS; i++) {
            c.word[0][i] =
                _mm256_add_epi64(each(rng->block + 4 * (uint64_t)i), _mm256_set_epi64x(3, 2, 1, 0));
            c.word[1][i] = _mm256_srli_epi64(c.word[0][i], 32);
            c.word[2][i] = each(rng->stream);
            c.word[3][i] = each(rng->stream >> 32);
        }
        uint32_t key0 = rng->key[0], key1 = rng->key[1];
        for (int round = 0; round < 10; round++, key0 += 0x9E3779B9u, key1 += 0xBB67AE85u)
            do_round(&c, key0, key1);
        for (int i = 0; i < N_VECTORS; i++) store_blocks(out + 4 * (done + 4 * (size_t)i), &c, i);
        rng->block += DIP_DRAW_BLOCKS;
    }
}

const dip_augment_kernels *dip_augment_kernels_avx2(void)
{
    static const dip_augment_kernels kernels = {blur_row, saturate, turn_hue, draw_blocks};
    return __builtin_cpu_supports("avx2") ? &kernels : NULL;
}

#else

const dip_augment_kernels *dip_augment_kernels_avx2(void)
{
    return NULL;
}

#endif
