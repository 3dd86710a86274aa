/* AVX-512 with VBMI and VNNI: several columns of four rows at a time; see resize_kernels.h.
 *
 * A block is up to five neighbouring output columns, whose channels are the 32-bit lanes of a
 * register. Their taps lie close together in the source row: a load and a permutation of bytes
 * bring four taps to every lane, and a weight, cut into three signed bytes, takes three dot
 * products. The weights of a block are laid out as the lanes need them, once an image. Between the
 * passes four rows lie together, so that four taps of the vertical pass are again the bytes of a
 * lane. */
#include "data/image/resize_kernels.h"

#if defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__x86_64__)

#include <immintrin.h>
#include <stdbool.h>
#include <stdlib.h>
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
    bool has_rest;     /* narrow, and a column may have one tap more than the steps hold */
    size_t orders_at;  /* which byte of a load goes where: [n_steps + has_rest][64] if narrow, else
                        * [64] */
    size_t weights_at; /* [DIGITS, the highest first][n_steps][64], then [has_rest][64] */
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

static int most_taps(const dip_taps *taps, int n_columns)
{
    int most = 0;
    for (int i = 0; i < n_columns; i++)
        if (taps[i].n > most) most = taps[i].n;
    return most;
}

/* Of a column with one tap more than a whole number of steps, the one that is left for the rest:
 * the lighter one of the two outermost. */
static int rest_tap(const dip_taps *taps)
{
    const int last = taps->n - 1;
    return abs(taps->weights[0]) < abs(taps->weights[last]) ? 0 : last;
}

/* Whether what is left of the steps is at most one light tap a column. */
static bool block_has_rest(const dip_taps *taps, int n_columns, int n_whole)
{
    if (n_whole == 0) return false;
    for (int i = 0; i < n_columns; i++)
        if (taps[i].n > n_whole &&
            (taps[i].n > n_whole + 1 || abs(taps[i].weights[rest_tap(&taps[i])]) > 2 * INT16_MAX))
            return false;
    return true;
}

static block block_of(const dip_taps *taps, int n_columns)
{
    const int most = most_taps(taps, n_columns), reach = taps[n_columns - 1].first - taps->first;
    block k = {.first = taps->first, .n_columns = n_columns, .n_steps = (most + TAPS - 1) / TAPS};
    k.is_narrow = k.n_steps <= MAX_HELD && reach + TAPS * k.n_steps <= LOAD_PIXELS;
    const int n_whole = most / TAPS * TAPS;
    k.has_rest = k.is_narrow && most > n_whole && block_has_rest(taps, n_columns, n_whole);
    if (k.has_rest) k.n_steps--;
    return k;
}

static size_t block_vectors(const block *k)
{
    const size_t n_steps = (size_t)k->n_steps;
    return (k->is_narrow ? n_steps : 1) + DIGITS * n_steps + 2 * k->has_rest;
}

static size_t plan_bytes(const dip_columns *columns)
{
    size_t n_blocks = 0, n_vectors = 1;
    for (int x = 0; x < columns->n;) {
        int n = block_columns(columns->taps + x, columns->n - x);
        block k = block_of(columns->taps + x, n);
        n_vectors += block_vectors(&k);
        n_blocks++;
        x += n;
    }
    return sizeof(plan) + n_blocks * sizeof(block) + n_vectors * 64;
}

/* The digits of four weights, a word of four bytes each: w = d[2] + 2^8 d[1] + 2^16 d[0], where a
 * digit is a signed byte. Adding 128 to every digit makes them the bytes of w + 0x808080. */
TARGET static inline __m128i split_four(const int32_t *weights)
{
    const __m128i up = _mm_set1_epi32(0x808080);
    const __m128i by_digit = _mm_setr_epi8(2, 6, 10, 14, 1, 5, 9, 13, 0, 4, 8, 12, -1, -1, -1, -1);
    const __m128i bytes = _mm_add_epi32(_mm_loadu_si128((const __m128i *)weights), up);
    return _mm_shuffle_epi8(_mm_xor_si128(bytes, up), by_digit);
}

/* The same word in the three lanes of a column. */
TARGET static inline void put_lanes(uint8_t *lanes, __m128i word)
{
    _mm_mask_storeu_epi32(lanes, 7, word);
}

/* A column's lanes: orders and weights of its steps. */
TARGET static inline void fill_steps(uint8_t *orders, int n_orders, uint8_t *weights,
                                     const block *k, const int32_t *taps_weights, int n_taps,
                                     int from)
{
    const __m128i channels = _mm_setr_epi32(0x09060300, 0x0a070401, 0x0b080502, 0);
    const size_t digit_bytes = 64 * (size_t)k->n_steps;
    for (int s = 0; s < n_orders; s++) {
        const char at = (char)(3 * (from + TAPS * s));
        put_lanes(orders + 64 * s, _mm_add_epi8(channels, _mm_set1_epi8(at)));
    }
    for (int s = 0; TAPS * s < n_taps; s++, weights += 64) { /* padded with zeros */
        const __m128i words = split_four(taps_weights + TAPS * s);
        put_lanes(weights, _mm_shuffle_epi32(words, 0x00));
        put_lanes(weights + digit_bytes, _mm_shuffle_epi32(words, 0x55));
        put_lanes(weights + 2 * digit_bytes, _mm_shuffle_epi32(words, 0xaa));
    }
}

/* Its rest: the byte twice, as 16-bit numbers, each with half the weight. */
TARGET static inline void fill_rest(uint8_t *order, uint8_t *weights, int32_t weight, int from)
{
    const __m128i channels = _mm_setr_epi32(0, 0x00010001, 0x00020002, 0);
    const int half = weight / 2;
    put_lanes(order, _mm_add_epi8(channels, _mm_set1_epi8((char)(3 * from))));
    put_lanes(weights, _mm_set1_epi32((int)((uint32_t)(weight - half) << 16 | (uint16_t)half)));
}

TARGET static inline void fill_block(uint8_t *vectors, const block *k, const dip_taps *taps,
                                     int flip)
{
    const int n_orders = k->is_narrow ? k->n_steps : 1, n_whole = TAPS * k->n_steps;
    uint8_t *orders = vectors + k->orders_at, *weights = vectors + k->weights_at;
    memset(orders, 0, 64 * block_vectors(k));
    for (int i = 0; i < k->n_columns; i++) {
        const int at = 3 * TAPS * (flip ? k->n_columns - 1 - i : i); /* of the column's lanes */
        const int from = taps[i].first - k->first;
        const bool has_rest = k->has_rest && taps[i].n > n_whole;
        const int rest = has_rest ? rest_tap(&taps[i]) : -1, begin = rest == 0;
        fill_steps(orders + at, n_orders, weights + at, k, taps[i].weights + begin,
                   taps[i].n - has_rest, from + begin);
        if (has_rest)
            fill_rest(orders + 64 * n_orders + at, weights + 64 * (DIGITS * k->n_steps) + at,
                      taps[i].weights[rest], from + rest);
    }
}

TARGET static void make_plan(void *memory, const dip_columns *columns)
{
    plan *p = memory;
    p->blocks = (block *)(p + 1);
    p->n_blocks = 0;
    for (int x = 0; x < columns->n; p->n_blocks++) {
        const dip_taps *taps = columns->taps + x;
        const int n = block_columns(taps, columns->n - x);
        block *k = &p->blocks[p->n_blocks];
        *k = block_of(taps, n);
        k->at = 3 * (columns->flip ? columns->n - x - n : x);
        x += n;
    }
    uintptr_t end = (uintptr_t)(p->blocks + p->n_blocks);
    p->vectors = (uint8_t *)((end + 63) / 64 * 64);
    const dip_taps *taps = columns->taps;
    size_t at = 0;
    for (int b = 0; b < p->n_blocks; b++) {
        block *k = &p->blocks[b];
        k->orders_at = at;
        k->weights_at = at + 64 * (size_t)(k->is_narrow ? k->n_steps + k->has_rest : 1);
        at += 64 * block_vectors(k);
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

/* Four rows of a narrow block, with n_steps and has_rest known to the compiler: each pixel vector
 * is made once. */
TARGET static inline void narrow_sums(__m512i sums[4], const uint8_t *const *rows,
                                      const uint8_t *vectors, const block *k, const int n_steps,
                                      const bool has_rest)
{
    const __mmask64 low_bytes = 0x5555555555555555;
    const size_t at = 3 * (size_t)k->first;
    const uint8_t *orders = vectors + k->orders_at, *weights = vectors + k->weights_at;
    __m512i pixels[4][MAX_HELD], rest[4];
    for (int r = 0; r < 4; r++) {
        const __m512i load = _mm512_loadu_si512(rows[r] + at);
        if (has_rest)
            rest[r] = _mm512_maskz_permutexvar_epi8(low_bytes,
                                                    _mm512_load_si512(orders + 64 * n_steps), load);
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
    if (has_rest)
        for (int r = 0; r < 4; r++)
            sums[r] = _mm512_dpwssd_epi32(sums[r], rest[r], _mm512_load_si512(weights));
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

/* One block of all rows. Inlined with a constant n_steps (0: a wide block) and has_rest. */
TARGET static inline void block_fours(uint8_t *dst, size_t fours_stride, const uint8_t *const *rows,
                                      int n_fours, const uint8_t *vectors, const block *k,
                                      const int n_steps, const bool has_rest)
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
            narrow_sums(sums, rows, vectors, k, n_steps, has_rest);
        _mm512_mask_storeu_epi32(dst, mask, _mm512_shuffle_epi8(to_bytes(sums), rows_together));
    }
}

TARGET static void horizontal_fours(uint8_t *dst, size_t fours_stride, const uint8_t *const *rows,
                                    int n_fours, const dip_columns *columns)
{
    const plan *p = columns->plan;
    for (int b = 0; b < p->n_blocks; b++) {
        const block *k = &p->blocks[b];
        const int kind = k->is_narrow ? 2 * k->n_steps + k->has_rest : 0;
#define BLOCK_FOURS(n_steps, has_rest)                                                             \
    block_fours(dst, fours_stride, rows, n_fours, p->vectors, k, n_steps, has_rest)
        switch (kind) {
        case 0:
            BLOCK_FOURS(0, false);
            break;
        case 2:
            BLOCK_FOURS(1, false);
            break;
        case 3:
            BLOCK_FOURS(1, true);
            break;
        case 4:
            BLOCK_FOURS(2, false);
            break;
        case 5:
            BLOCK_FOURS(2, true);
            break;
        case 6:
            BLOCK_FOURS(3, false);
            break;
        case 7:
            BLOCK_FOURS(3, true);
            break;
        default:
            BLOCK_FOURS(4, false);
            break;
        }
#undef BLOCK_FOURS
    }
}

enum { MAX_FOURS = DIP_RESIZE_FOURS_TAPS / TAPS + 1 };

/* The digits of the taps of one output row, four a word, as the source rows lie. Returns how many
 * fours there are. */
TARGET static inline int split_row(uint32_t fours[MAX_FOURS][TAPS], const dip_taps *taps)
{
    int32_t weights[TAPS * (MAX_FOURS + 1)];
    const int skipped = taps->first % TAPS, n_fours = (skipped + taps->n + TAPS - 1) / TAPS;
    memset(weights, 0, TAPS * sizeof *weights);
    /* with the zeros behind them */
    memcpy(weights + skipped, taps->weights, (size_t)(taps->n + TAPS - 1) / TAPS * 16);
    memset(weights + skipped + taps->n, 0, TAPS * sizeof *weights);
    for (int f = 0; f < n_fours; f++)
        _mm_storeu_si128((__m128i *)fours[f], split_four(weights + TAPS * f));
    return n_fours;
}

/* An output row. Inlined with a constant n_fours, it keeps the weights in registers. */
TARGET static inline void vertical_row(uint8_t *dst, const uint8_t *src, size_t fours_stride,
                                       size_t n_bytes, uint32_t fours[MAX_FOURS][TAPS],
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
                const __m512i weights = _mm512_set1_epi32((int)fours[f][d]);
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
    uint32_t fours[MAX_FOURS][TAPS];
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
                                               .reads_packed = true,
                                               .weigh = dip_resize_weigh_avx512,
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
