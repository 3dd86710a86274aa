#include "data/dedup/phash.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>

enum { SIDE = DIP_PHASH_SIDE, LOW = 8, N_PIXELS = SIDE * SIDE, SCALE = 1 << 13 };

static int32_t cosines[LOW][SIDE]; /* cos(pi (2 i + 1) k / 64), times SCALE */
static pthread_once_t cosines_once = PTHREAD_ONCE_INIT;

static void fill_cosines(void)
{
    const double pi = 3.14159265358979323846;
    for (int k = 0; k < LOW; k++)
        for (int i = 0; i < SIDE; i++)
            cosines[k][i] = (int32_t)lround(cos(pi * (2 * i + 1) * k / (2 * SIDE)) * SCALE);
}

/* low[v][u]: the lowest frequencies of the grey picture. At most 2^8 2^5 2^13 2^5 2^13 = 2^44. */
static void transform(int64_t low[LOW * LOW], const uint8_t *grey)
{
    int64_t rows[SIDE][LOW];
    for (int y = 0; y < SIDE; y++)
        for (int u = 0; u < LOW; u++) {
            rows[y][u] = 0;
            for (int x = 0; x < SIDE; x++)
                rows[y][u] += (int64_t)cosines[u][x] * grey[y * SIDE + x];
        }
    for (int v = 0; v < LOW; v++)
        for (int u = 0; u < LOW; u++) {
            int64_t sum = 0;
            for (int y = 0; y < SIDE; y++) sum += cosines[v][y] * rows[y][u];
            low[v * LOW + u] = sum;
        }
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

dip_status dip_phash_of(dip_phash *hash, dip_resizer *resizer, const dip_image *image)
{
    pthread_once(&cosines_once, fill_cosines);
    uint8_t rgb[N_PIXELS * 3], grey[N_PIXELS];
    dip_box whole = {0, 0, image->width, image->height};
    DIP_TRY(dip_resize(resizer, rgb, SIDE, SIDE, image, whole, DIP_BICUBIC, 0));
    int sums[3] = {0};
    for (int i = 0; i < N_PIXELS; i++) {
        const uint8_t *p = rgb + 3 * i;
        grey[i] = (uint8_t)((p[0] * 19595 + p[1] * 38470 + p[2] * 7471 + 0x8000) >> 16);
        for (int c = 0; c < 3; c++) sums[c] += p[c];
    }
    for (int c = 0; c < 3; c++) hash->mean[c] = (uint8_t)((sums[c] + N_PIXELS / 2) / N_PIXELS);

    int64_t low[LOW * LOW], sorted[LOW * LOW];
    transform(low, grey);
    for (int i = 0; i < LOW * LOW; i++) sorted[i] = low[i];
    qsort(sorted, LOW * LOW, sizeof *sorted, by_value);
    /* The median of an even number lies between the middle two. */
    int64_t twice_median = sorted[LOW * LOW / 2 - 1] + sorted[LOW * LOW / 2];
    hash->bits = 0;
    for (int i = 0; i < LOW * LOW; i++)
        if (2 * low[i] > twice_median) hash->bits |= (uint64_t)1 << i;
    return DIP_OK;
}

int dip_phash_distance(uint64_t a, uint64_t b)
{
    /* Sums of 1, 2, 4, then all bits of the difference, side by side. */
    uint64_t x = a ^ b;
    x -= x >> 1 & 0x5555555555555555u;
    x = (x & 0x3333333333333333u) + (x >> 2 & 0x3333333333333333u);
    x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    return (int)(x * 0x0101010101010101u >> 56);
}
