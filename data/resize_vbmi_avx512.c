/* AVX-512 with VBMI and VNNI: several columns of four rows at a time; see resize_kernels.h.
 *
 * A block is up to five neighbouring output columns, whose channels are the 32-bit lanes of a
 * register. Their taps lie close together in the source row: a load and a permutation of bytes
 * bring four taps to every lane, and a weight, cut into three signed bytes, takes three dot
 * products. The weights of a block are laid out as the lanes need them, once an image. Between the
 * passes four rows lie together, so that four taps of the vertical pass are again the bytes of a
 * lane. */
#include "data/resize_kernels.h"

#if defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__x86_64__)

#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni")))

enum {
    BLOCK_COLUMNS = 5, /* 15 lanes of 16 */
    LOAD_PIXELS = 21,
    TAPS = 4, /* a lane's bytes */
    REACH =
        LOAD_PIXELS - TAPS, /* from the first tap of a block's first column to that of its last */
    DIGITS = 3,
    MAX_HELD = 4 /* steps whose pixels stay in registers */
};

typedef struct block {
    int first; /* source index of its first tap */
    int at;    /* byte of the output row */
    int n_columns;
    int n_steps;       /* of four taps */
    bool is_narrow;    /* all its taps lie in one load, and the steps are few */
    size_t orders_at;  /* which byte of a load goes where: [n_steps][64] if narrow, else [64] */
    size_t weights_at; /* [DIGITS, the highest first][n_steps][64] */
} block;

/* In the caller's memory: the head, then blocks, then vectors of 64 bytes. */
typedef struct plan {
    int n_blocks;
    block *blocks;
    uint8_t *vectors;
} plan;

/* How many columns from x on fit into one load. */
static int block_columns(const dip_taps *taps, int n_left)
{
    int n = 1;
    while (n < n_left && n < BLOCK_COLUMNS && taps[n].first - taps[0].first <= REACH) n++;
    return n;
}

static int block_steps(const dip_taps *taps, int n_columns)
{
    int most = 0;
    for (int i = 0; i < n_columns; i++)
        if (taps[i].n > most) most = taps[i].n;
    return (most + TAPS - 1) / TAPS;
}

static bool block_is_narrow(const dip_taps *taps, int n_columns, int n_steps)
{
    const dip_taps *last = &taps[n_columns - 1];
    return n_steps <= MAX_HELD && last->first - taps->first + TAPS * n_steps <= LOAD_PIXELS;
}

static size_t plan_bytes(const dip_columns *columns)
{
    size_t n_blocks = 0, n_vectors = 1;
    for (int x = 0; x < columns->n;) {
        int n = block_columns(columns->taps + x, columns->n - x);
        n_vectors += (DIGITS + 1) * (size_t)block_steps(columns->taps + x, n);
        n_blocks++;
        x += n;
    }
    return sizeof(plan) + n_blocks * sizeof(block) + n_vectors * 64;
}

/* w = d[2] + 2^8 d[1] + 2^16 d[0], each a signed byte. */
static inline void split(int8_t digits[DIGITS], int32_t weight)
{
    for (int d = DIGITS - 1; d >= 0; d--) {
        digits[d] = (int8_t)(weight & 255);
        weight = (weight + 128) >> 8;
    }
}

/* The same word in the three lanes of a column. */
static void put_lanes(uint8_t *lanes, uint32_t red, uint32_t green, uint32_t blue)
{
    const uint32_t words[3] = {red, green, blue};
    memcpy(lanes, words, sizeof words);
}

/* Each digit of four weights as a word. */
static void split_four(uint32_t words[DIGITS], const int32_t weights[TAPS])
{
    for (int d = 0; d < DIGITS; d++) words[d] = 0;
    for (int t = 0; t < TAPS; t++) {
        int8_t digits[DIGITS];
        split(digits, weights[t]);
        for (int d = 0; d < DIGITS; d++) words[d] |= (uint32_t)(uint8_t)digits[d] << 8 * t;
    }
}

static void fill_block(uint8_t *vectors, const block *k, const dip_taps *taps, int flip)
{
    const uint32_t each_byte = 0x01010101u, four_pixels = 0x09060300u;
    const int n_orders = k->is_narrow ? k->n_steps : 1;
    uint8_t *orders = vectors + k->orders_at, *weights = vectors + k->weights_at;
    memset(orders, 0, 64 * (size_t)n_orders);
    memset(weights, 0, 64 * (size_t)(DIGITS * k->n_steps));
    for (int i = 0; i < k->n_columns; i++) {
        const int at = 3 * TAPS * (flip ? k->n_columns - 1 - i : i); /* of the column's lanes */
        for (int s = 0; s < n_orders; s++) {
            uint32_t from = 3 * (uint32_t)(taps[i].first - k->first + TAPS * s);
            uint32_t red = from * each_byte + four_pixels;
            put_lanes(orders + 64 * s + at, red, red + each_byte, red + 2 * each_byte);
        }
        for (int s = 0; TAPS * s < taps[i].n; s++) { /* weights are padded with zeros */
            uint32_t words[DIGITS];
            split_four(words, taps[i].weights + TAPS * s);
            for (int d = 0; d < DIGITS; d++)
                put_lanes(weights + 64 * (d * k->n_steps + s) + at, words[d], words[d], words[d]);
        }
    }
}

static void make_plan(void *memory, const dip_columns *columns)
{
    plan *p = memory;
    p->blocks = (block *)(p + 1);
    p->n_blocks = 0;
    for (int x = 0; x < columns->n; p->n_blocks++) {
        const dip_taps *taps = columns->taps + x;
        int n = block_columns(taps, columns->n - x), n_steps = block_steps(taps, n);
        p->blocks[p->n_blocks] = (block){.first = taps->first,
                                         .at = 3 * (columns->flip ? columns->n - x - n : x),
                                         .n_columns = n,
                                         .n_steps = n_steps,
                                         .is_narrow = block_is_narrow(taps, n, n_steps)};
        x += n;
    }
    uintptr_t end = (uintptr_t)(p->blocks + p->n_blocks);
    p->vectors = (uint8_t *)((end + 63) / 64 * 64);
    const dip_taps *taps = columns->taps;
    size_t at = 0;
    for (int b = 0; b < p->n_blocks; b++) {
        block *k = &p->blocks[b];
        k->orders_at = at;
        k->weights_at = at + 64 * (size_t)(k->is_narrow ? k->n_steps : 1);
        at = k->weights_at + 64 * (size_t)(DIGITS * k->n_steps);
        fill_block(p->vectors, k, taps, columns->flip);
        taps += k->n_columns;
    }
}

/* One half, where the sum of the highest digits begins. */
TARGET static inline __m512i half(void)
{
    return _mm512_set1_epi32(1 << (DIP_RESIZE_BITS - 1 - 16));
}

/* Times 2^8. A shuffle, not a shift: shifts compete with the dot products for one port. */
TARGET static inline __m512i byte_up(__m512i sum)
{
    const __m512i up = _mm512_broadcast_i32x4(
        _mm_setr_epi8(-1, 0, 1, 2, -1, 4, 5, 6, -1, 8, 9, 10, -1, 12, 13, 14));
    return _mm512_shuffle_epi8(sum, up);
}

/* Four rows of a narrow block, with n_steps known to the compiler: each pixel vector is made once.
 */
TARGET static inline void narrow_sums(__m512i sums[4], const uint8_t *const *rows,
                                      const uint8_t *vectors, const block *k, const int n_steps)
{
    const size_t at = 3 * (size_t)k->first;
    const uint8_t *orders = vectors + k->orders_at, *weights = vectors + k->weights_at;
    __m512i pixels[4][MAX_HELD];
    for (int r = 0; r < 4; r++) {
        const __m512i load = _mm512_loadu_si512(rows[r] + at);
        for (int s = 0; s < n_steps; s++)
            pixels[r][s] = _mm512_permutexvar_epi8(_mm512_load_si512(orders + 64 * s), load);
        sums[r] = half();
    }
    for (int d = 0; d < DIGITS; d++) {
        for (int s = 0; s < n_steps; s++, weights += 64)
            for (int r = 0; r < 4; r++)
                sums[r] = _mm512_dpbusd_epi32(sums[r], pixels[r][s], _mm512_load_si512(weights));
        if (d < DIGITS - 1)
            for (int r = 0; r < 4; r++) sums[r] = byte_up(sums[r]);
    }
}

TARGET static inline void wide_sums(__m512i sums[4], const uint8_t *const *rows,
                                    const uint8_t *vectors, const block *k)
{
    const __m512i order = _mm512_load_si512(vectors + k->orders_at);
    const uint8_t *weights = vectors + k->weights_at;
    const size_t next_digit = 64 * (size_t)k->n_steps;
    size_t at = 3 * (size_t)k->first;
    __m512i parts[4][DIGITS];
    for (int r = 0; r < 4; r++) {
        parts[r][0] = half();
        parts[r][1] = parts[r][2] = _mm512_setzero_si512();
    }
    for (int s = 0; s < k->n_steps; s++, at += 3 * TAPS, weights += 64)
        for (int r = 0; r < 4; r++) {
            __m512i pixels = _mm512_permutexvar_epi8(order, _mm512_loadu_si512(rows[r] + at));
            for (int d = 0; d < DIGITS; d++)
                parts[r][d] = _mm512_dpbusd_epi32(
                    parts[r][d], pixels, _mm512_load_si512(weights + (size_t)d * next_digit));
        }
    for (int r = 0; r < 4; r++) {
        __m512i high = _mm512_add_epi32(byte_up(parts[r][0]), parts[r][1]);
        sums[r] = _mm512_add_epi32(byte_up(high), parts[r][2]);
    }
}

/* Without the fractions, clipped to bytes: in every 128-bit lane, four bytes of each sum. */
TARGET static inline __m512i to_bytes(const __m512i sums[4])
{
    __m512i whole[4];
    for (int i = 0; i < 4; i++) whole[i] = _mm512_srai_epi32(sums[i], DIP_RESIZE_BITS);
    return _mm512_packus_epi16(_mm512_packs_epi32(whole[0], whole[1]),
                               _mm512_packs_epi32(whole[2], whole[3]));
}

/* One block of all rows. Inlined with a constant n_steps (0: a wide block). */
TARGET static inline void block_fours(uint8_t *dst, size_t fours_stride, const uint8_t *const *rows,
                                      int n_fours, const uint8_t *vectors, const block *k,
                                      const int n_steps)
{
    const __m512i rows_together =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __mmask16 mask = (__mmask16)((1u << (3 * k->n_columns)) - 1);
    dst += 4 * (size_t)k->at;
    for (int f = 0; f < n_fours; f++, rows += 4, dst += fours_stride) {
        __m512i sums[4];
        if (n_steps == 0)
            wide_sums(sums, rows, vectors, k);
        else
            narrow_sums(sums, rows, vectors, k, n_steps);
        _mm512_mask_storeu_epi32(dst, mask, _mm512_shuffle_epi8(to_bytes(sums), rows_together));
    }
}

TARGET static void horizontal_fours(uint8_t *dst, size_t fours_stride, const uint8_t *const *rows,
                                    int n_fours, const dip_columns *columns)
{
    const plan *p = columns->plan;
    for (int b = 0; b < p->n_blocks; b++) {
        const block *k = &p->blocks[b];
        if (!k->is_narrow)
            block_fours(dst, fours_stride, rows, n_fours, p->vectors, k, 0);
        else if (k->n_steps == 1)
            block_fours(dst, fours_stride, rows, n_fours, p->vectors, k, 1);
        else if (k->n_steps == 2)
            block_fours(dst, fours_stride, rows, n_fours, p->vectors, k, 2);
        else if (k->n_steps == 3)
            block_fours(dst, fours_stride, rows, n_fours, p->vectors, k, 3);
        else
            block_fours(dst, fours_stride, rows, n_fours, p->vectors, k, 4);
    }
}

enum { MAX_FOURS = DIP_RESIZE_FOURS_TAPS / TAPS + 1 };

/* The digits of the taps of one output row, four a word, as the source rows lie. Returns how many
 * fours there are. */
static int split_row(uint32_t fours[DIGITS][MAX_FOURS], const dip_taps *taps)
{
    const int skipped = taps->first % TAPS, n_fours = (skipped + taps->n + TAPS - 1) / TAPS;
    for (int d = 0; d < DIGITS; d++)
        for (int f = 0; f < n_fours; f++) fours[d][f] = 0;
    for (int t = 0; t < taps->n; t++) {
        int8_t digits[DIGITS];
        split(digits, taps->weights[t]);
        for (int d = 0; d < DIGITS; d++)
            fours[d][(skipped + t) / TAPS] |= (uint32_t)(uint8_t)digits[d]
                                              << 8 * ((skipped + t) % TAPS);
    }
    return n_fours;
}

/* An output row. Inlined with a constant n_fours, it keeps the weights in registers. */
TARGET static inline void vertical_row(uint8_t *dst, const uint8_t *src, size_t fours_stride,
                                       size_t n_bytes, uint32_t fours[DIGITS][MAX_FOURS],
                                       const int n_fours)
{
    /* After packing, a 128-bit lane holds four bytes of each of the four sums: bring those
     * together. */
    const __m512i by_sum = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    for (size_t i = 0; i < n_bytes; i += 64) {
        __m512i sums[4];
        for (int j = 0; j < 4; j++) sums[j] = half();
        for (int d = 0; d < DIGITS; d++) {
            for (int f = 0; f < n_fours; f++) {
                const uint8_t *from = src + (size_t)f * fours_stride + 4 * i;
                const __m512i weights = _mm512_set1_epi32((int)fours[d][f]);
                for (int j = 0; j < 4; j++)
                    sums[j] =
                        _mm512_dpbusd_epi32(sums[j], _mm512_loadu_si512(from + 64 * j), weights);
            }
            if (d < DIGITS - 1)
                for (int j = 0; j < 4; j++) sums[j] = byte_up(sums[j]);
        }
        const __mmask64 mask = n_bytes - i >= 64 ? ~0ull : (1ull << (n_bytes - i)) - 1;
        _mm512_mask_storeu_epi8(dst + i, mask, _mm512_permutexvar_epi32(by_sum, to_bytes(sums)));
    }
}

TARGET static void vertical_fours(uint8_t *dst, const uint8_t *src, size_t fours_stride,
                                  size_t n_bytes, const dip_taps *taps)
{
    uint32_t fours[DIGITS][MAX_FOURS];
    const int n_fours = split_row(fours, taps);
    src += (size_t)(taps->first / TAPS) * fours_stride;
    if (n_fours == 2)
        vertical_row(dst, src, fours_stride, n_bytes, fours, 2);
    else if (n_fours == 3)
        vertical_row(dst, src, fours_stride, n_bytes, fours, 3);
    else
        vertical_row(dst, src, fours_stride, n_bytes, fours, n_fours);
}

const dip_resize_kernels *dip_resize_kernels_vbmi(void)
{
    static const dip_resize_kernels kernels = {.name = "avx512vbmi",
                                               .horizontal = dip_resize_horizontal_avx512,
                                               .vertical = dip_resize_vertical_avx512,
                                               .horizontal_fours = horizontal_fours,
                                               .vertical_fours = vertical_fours,
                                               .plan_bytes = plan_bytes,
                                               .make_plan = make_plan};
    int has = dip_resize_kernels_avx512() && __builtin_cpu_supports("avx512vbmi");
    return has ? &kernels : NULL;
}

#else

const dip_resize_kernels *dip_resize_kernels_vbmi(void)
{
    return NULL;
}

#endif
