#include "model/scores.h"

#include <string.h>

void dip_scores_pack(float *packed, const float *rows, int64_t n, int embed_dim)
{
    memset(packed, 0, sizeof *packed * DIP_SCORE_TILE * (size_t)embed_dim);
    for (int64_t i = 0; i < n; i++)
        for (int e = 0; e < embed_dim; e++)
            packed[(int64_t)e * DIP_SCORE_TILE + i] = rows[i * embed_dim + e];
}

float dip_scores_dot(const float *a, const float *b, int embed_dim)
{
    float sum = 0;
    for (int e = 0; e < embed_dim; e++) sum += a[e] * b[e];
    return sum;
}

/* Sixteen columns a vector, four vectors a tile. One lane is one score, so the width of the
 * machine's registers cannot change a sum; products and sums stay separate instructions
 * (-ffp-contract=off). */
typedef float lanes __attribute__((vector_size(64), may_alias));
_Static_assert(DIP_SCORE_TILE * sizeof(float) == 4 * sizeof(lanes), "a tile is four vectors");

static inline __attribute__((always_inline)) void tile(float *scores, const float *row,
                                                       const float *packed, int embed_dim)
{
    const lanes *columns = (const lanes *)(const void *)packed;
    lanes s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
    for (int e = 0; e < embed_dim; e++, columns += 4) {
        s0 += row[e] * columns[0];
        s1 += row[e] * columns[1];
        s2 += row[e] * columns[2];
        s3 += row[e] * columns[3];
    }
    lanes *out = (lanes *)(void *)scores;
    out[0] = s0;
    out[1] = s1;
    out[2] = s2;
    out[3] = s3;
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static void tile_avx512(float *scores, const float *row,
                                                           const float *packed, int embed_dim)
{
    tile(scores, row, packed, embed_dim);
}

__attribute__((target("avx2"))) static void tile_avx2(float *scores, const float *row,
                                                      const float *packed, int embed_dim)
{
    tile(scores, row, packed, embed_dim);
}

void dip_scores_tile(float *scores, const float *row, const float *packed, int embed_dim)
{
    if (__builtin_cpu_supports("avx512f"))
        tile_avx512(scores, row, packed, embed_dim);
    else if (__builtin_cpu_supports("avx2"))
        tile_avx2(scores, row, packed, embed_dim);
    else
        tile(scores, row, packed, embed_dim);
}
#else
void dip_scores_tile(float *scores, const float *row, const float *packed, int embed_dim)
{
    tile(scores, row, packed, embed_dim);
}
#endif
