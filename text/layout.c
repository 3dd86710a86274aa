#include "text/layout.h"

#include <string.h>

enum { LEAST_BUCKET = 64, SIGNIFICANT_BITS = 5, FILLER_TOKEN = 0 };

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* ---- buckets --------------------------------------------------------------------------- */

/* Between numbers of SIGNIFICANT_BITS bits as large as n (> 0) lie so many. */
static int64_t spacing(int64_t n)
{
    int64_t unit = 1;
    while (n >> SIGNIFICANT_BITS >= unit) unit *= 2;
    return unit;
}

int64_t dip_text_bucket(int64_t n_rows, int64_t max_rows)
{
    if (n_rows == 0) return 0;
    if (n_rows <= LEAST_BUCKET) return smaller(LEAST_BUCKET, max_rows);
    const int64_t unit = spacing(n_rows);
    return smaller(ceil_div(n_rows, unit) * unit, max_rows);
}

int64_t dip_text_fillers(int64_t bucket, int context_length)
{
    if (bucket == 0) return 0;
    /* The smallest batch of the bucket is one row more than fits the bucket before. */
    const int64_t least = bucket <= LEAST_BUCKET ? 1 : bucket - spacing(bucket - 1) + 1;
    return ceil_div(bucket - least, context_length);
}

/* ---- layout ---------------------------------------------------------------------------- */

static size_t take(size_t *end, int64_t n)
{
    const size_t begin = *end, align = DIP_TEXT_PART_ALIGN;
    *end = (begin + (size_t)n + align - 1) / align * align;
    return begin;
}

static void place_parts(dip_text_layout *l, bool ordered)
{
    l->n_values = 0;
    l->tokens = take(&l->n_values, l->n_rows);
    l->offsets = take(&l->n_values, l->n_sequences + 1);
    l->end_rows = take(&l->n_values, l->n_texts);
    l->order = take(&l->n_values, ordered ? l->n_rows : 0);
}

dip_text_layout dip_text_layout_of(int64_t n_texts, int64_t n_tokens, int64_t max_rows,
                                   int context_length, dip_text_padding padding, bool ordered)
{
    dip_text_layout l = {.n_texts = n_texts, .n_sequences = n_texts, .n_rows = n_tokens};
    if (padding == DIP_TEXT_PAD_FULL) {
        l.n_rows = n_texts * context_length;
    } else if (padding == DIP_TEXT_PAD_BUCKETS) {
        l.n_rows = dip_text_bucket(n_tokens, max_rows);
        l.n_sequences = n_texts + dip_text_fillers(l.n_rows, context_length);
    }
    place_parts(&l, ordered);
    return l;
}

dip_text_layout dip_text_layout_largest(int64_t max_texts, int64_t max_rows, int context_length,
                                        dip_text_padding padding, bool ordered)
{
    dip_text_layout l = {.n_texts = max_texts, .n_sequences = max_texts, .n_rows = max_rows};
    if (padding == DIP_TEXT_PAD_BUCKETS) {
        /* Fillers grow with the bucket, but for the first, which has room for many. */
        const int64_t first = dip_text_fillers(smaller(LEAST_BUCKET, max_rows), context_length);
        const int64_t last = dip_text_fillers(max_rows, context_length);
        l.n_sequences += first > last ? first : last;
    }
    place_parts(&l, ordered);
    return l;
}

/* A stable counting sort of the rows that count by their tokens. */
static void sort_rows(int32_t *order, const dip_text_layout *l, const int32_t *tokens,
                      const int32_t *offsets, const int32_t *end_rows, int32_t *counts, int vocab)
{
    memset(counts, 0, ((size_t)vocab + 1) * sizeof *counts);
    for (int64_t i = 0; i < l->n_texts; i++)
        for (int32_t row = offsets[i]; row <= end_rows[i]; row++) counts[tokens[row] + 1]++;
    for (int token = 0; token < vocab; token++) counts[token + 1] += counts[token];
    const int32_t n = counts[vocab];
    for (int64_t i = 0; i < l->n_texts; i++)
        for (int32_t row = offsets[i]; row <= end_rows[i]; row++)
            order[counts[tokens[row]]++] = row;
    for (int64_t i = n; i < l->n_rows; i++) order[i] = -1;
}

void dip_text_lay_out(int32_t *block, const dip_text_layout *l, const int32_t *tokens,
                      const int32_t *offsets, int context_length, dip_text_padding padding,
                      int32_t *counts, int vocab)
{
    int32_t *to = block + l->tokens, *starts = block + l->offsets, *ends = block + l->end_rows;
    int64_t row = 0;
    for (int64_t i = 0; i < l->n_texts; i++) {
        const int64_t length = offsets[i + 1] - offsets[i];
        memcpy(to + row, tokens + offsets[i], (size_t)length * sizeof *to);
        starts[i] = (int32_t)row;
        ends[i] = (int32_t)(row + length - 1);
        row += length;
        if (padding != DIP_TEXT_PAD_FULL) continue;
        for (int64_t j = length; j < context_length; j++) to[row++] = FILLER_TOKEN;
    }
    for (int64_t i = l->n_texts; i < l->n_sequences; i++) {
        const int64_t next = smaller(row + context_length, l->n_rows);
        starts[i] = (int32_t)row;
        while (row < next) to[row++] = FILLER_TOKEN;
    }
    starts[l->n_sequences] = (int32_t)row;
    if (l->n_values > l->order) sort_rows(block + l->order, l, to, starts, ends, counts, vocab);
}
