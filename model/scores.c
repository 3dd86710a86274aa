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

#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE void one_row(float *scores, const float *row, const float *packed, int embed_dim)
{
    const lanes *columns = (const lanes *)(const void *)packed;
    lanes *out = (lanes *)(void *)scores;
    lanes s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
    for (int e = 0; e < embed_dim; e++, columns += 4) {
        s0 += row[e] * columns[0];
        s1 += row[e] * columns[1];
        s2 += row[e] * columns[2];
        s3 += row[e] * columns[3];
    }
    out[0] = s0;
    out[1] = s1;
    out[2] = s2;
    out[3] = s3;
}

#if defined(__x86_64__)
/* Four rows and half a tile: eight sums in registers, a column loaded once for four rows. */
ALWAYS_INLINE void four_rows_half_tile(float *scores, const float *rows, const float *packed,
                                       int embed_dim)
{
    const lanes *columns = (const lanes *)(const void *)packed;
    const float *a = rows, *b = a + embed_dim, *c = b + embed_dim, *d = c + embed_dim;
    lanes a0 = {0}, a1 = {0}, b0 = {0}, b1 = {0}, c0 = {0}, c1 = {0}, d0 = {0}, d1 = {0};
    for (int e = 0; e < embed_dim; e++, columns += 4) {
        const lanes x = columns[0], y = columns[1];
        a0 += a[e] * x;
        a1 += a[e] * y;
        b0 += b[e] * x;
        b1 += b[e] * y;
        c0 += c[e] * x;
        c1 += c[e] * y;
        d0 += d[e] * x;
        d1 += d[e] * y;
    }
    lanes *out = (lanes *)(void *)scores;
    out[0] = a0;
    out[1] = a1;
    out[4] = b0;
    out[5] = b1;
    out[8] = c0;
    out[9] = c1;
    out[12] = d0;
    out[13] = d1;
}

__attribute__((target("avx512f"))) static void
tile_avx512(float *scores, const float *rows, int64_t n, const float *packed, int embed_dim)
{
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        float *out = scores + i * DIP_SCORE_TILE;
        const float *four = rows + i * embed_dim;
        four_rows_half_tile(out, four, packed, embed_dim);
        four_rows_half_tile(out + DIP_SCORE_TILE / 2, four, packed + DIP_SCORE_TILE / 2, embed_dim);
    }
    for (; i < n; i++)
        one_row(scores + i * DIP_SCORE_TILE, rows + i * embed_dim, packed, embed_dim);
}

/* Four rows' sums would not fit into sixteen registers of half the width. */
__attribute__((target("avx2"))) static void tile_avx2(float *scores, const float *rows, int64_t n,
                                                      const float *packed, int embed_dim)
{
    for (int64_t i = 0; i < n; i++)
        one_row(scores + i * DIP_SCORE_TILE, rows + i * embed_dim, packed, embed_dim);
}
#endif

void dip_scores_tile(float *scores, const float *rows, int64_t n, const float *packed,
                     int embed_dim)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) {
        tile_avx512(scores, rows, n, packed, embed_dim);
        return;
    }
    if (__builtin_cpu_supports("avx2")) {
        tile_avx2(scores, rows, n, packed, embed_dim);
        return;
    }
#endif
    for (int64_t i = 0; i < n; i++)
        one_row(scores + i * DIP_SCORE_TILE, rows + i * embed_dim, packed, embed_dim);
}
