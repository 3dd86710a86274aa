#ifndef T
#define EACH_TYPE_FILE "kernels/cpu/embed.c"
#include "kernels/cpu/each_type.h"
#else

#define add_rows LOCAL(add_rows)

static void add_rows(T *out, const T *a, const T *b, int64_t c)
{
    for (int64_t i = 0; i < c; i++) out[i] = ROUND(LOAD(a[i]) + LOAD(b[i]));
}

dip_status OP(image_embed_forward)(dip_exec *exec, void *out, const void *patches, const void *cls,
                                   const void *pos, int64_t n_images, int64_t n_patches, int64_t c)
{
    const int n_threads = threads_for(exec, n_images * n_patches * c);
#pragma omp parallel for num_threads(n_threads)
    for (int64_t b = 0; b < n_images; b++) {
        T *out_row = (T *)out + b * (n_patches + 1) * c;
        const T *patch_row = (const T *)patches + b * n_patches * c;
        add_rows(out_row, cls, pos, c);
        for (int64_t i = 0; i < n_patches; i++)
            add_rows(out_row + (1 + i) * c, patch_row + i * c, (const T *)pos + (1 + i) * c, c);
    }
    return DIP_OK;
}

dip_status OP(image_embed_backward)(dip_exec *exec, void *d_patches, float *d_cls, float *d_pos,
                                    const void *d_out, int64_t n_images, int64_t n_patches,
                                    int64_t c)
{
    const int64_t n_tokens = n_patches + 1;
    const int n_threads = threads_for(exec, n_images * n_patches * c);
#pragma omp parallel for num_threads(n_threads)
    for (int64_t b = 0; b < n_images; b++) {
        memcpy((T *)d_patches + b * n_patches * c, (const T *)d_out + (b * n_tokens + 1) * c,
               (size_t)(n_patches * c) * sizeof(T));
    }

    /* A thread owns whole positions and adds images in order. */
#pragma omp parallel for num_threads(n_threads)
    for (int64_t token = 0; token < n_tokens; token++) {
        for (int64_t first = 0; first < c; first += STRIP) {
            float sums[STRIP] = {0};
            const int64_t n_columns = smaller(STRIP, c - first);
            for (int64_t b = 0; b < n_images; b++) {
                const T *row = (const T *)d_out + (b * n_tokens + token) * c + first;
                for (int64_t j = 0; j < n_columns; j++) sums[j] += LOAD(row[j]);
            }
            for (int64_t j = 0; j < n_columns; j++) d_pos[token * c + first + j] += sums[j];
            if (token > 0) continue;
            for (int64_t j = 0; j < n_columns; j++) d_cls[first + j] += sums[j];
        }
    }
    return DIP_OK;
}

dip_status OP(text_embed_forward)(dip_exec *exec, void *out, const int32_t *tokens,
                                  const int32_t *offsets, const void *table, const void *pos,
                                  int64_t n_sequences, int64_t n_rows, int64_t c)
{
    const int n_threads = threads_for(exec, n_rows * c);
#pragma omp parallel for num_threads(n_threads)
    for (int64_t b = 0; b < n_sequences; b++)
        for (int64_t n = offsets[b]; n < offsets[b + 1]; n++)
            add_rows((T *)out + n * c, (const T *)table + tokens[n] * c,
                     (const T *)pos + (n - offsets[b]) * c, c);
    return DIP_OK;
}

dip_status OP(text_embed_backward)(dip_exec *exec, float *d_table, float *d_pos, const void *d_out,
                                   const int32_t *tokens, const int32_t *offsets,
                                   const int32_t *order, int64_t n_sequences, int64_t n_rows,
                                   int64_t vocab, int64_t c)
{
    (void)order, (void)vocab; /* the latter is only asserted */
    const int n_threads = threads_for(exec, n_rows * c);
    /* Tokens repeat, so a thread owns columns, not rows, and adds rows in order. Rows that count
     * for nothing add their zeros. */
#pragma omp parallel for num_threads(n_threads)
    for (int64_t first = 0; first < c; first += STRIP) {
        const int64_t n_columns = smaller(STRIP, c - first);
        for (int64_t b = 0; b < n_sequences; b++) {
            for (int64_t n = offsets[b]; n < offsets[b + 1]; n++) {
                const T *row = (const T *)d_out + n * c + first;
                float *d_table_row = d_table + tokens[n] * c + first;
                float *d_pos_row = d_pos + (n - offsets[b]) * c + first;
                assert(tokens[n] >= 0 && tokens[n] < vocab);
                for (int64_t j = 0; j < n_columns; j++) {
                    d_table_row[j] += LOAD(row[j]);
                    d_pos_row[j] += LOAD(row[j]);
                }
            }
        }
    }
    return DIP_OK;
}

#endif
