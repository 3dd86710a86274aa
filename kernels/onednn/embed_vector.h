/* Both embeddings. Sums over a batch run in order; threads own positions or columns. */
static void LOCAL(add_rows)(T *out, const T *a, const T *b, int64_t c)
{
    int64_t i = 0;
    for (; i + LANES <= c; i += LANES) STORE(out + i, vec_add(LOAD(a + i), LOAD(b + i)));
    if (i < c) STORE_N(out + i, vec_add(LOAD_N(a + i, c - i), LOAD_N(b + i, c - i)), c - i);
}

dip_status OP(image_embed_forward)(dip_exec *exec, void *out, const void *patches, const void *cls,
                                   const void *pos, int64_t n_images, int64_t n_patches, int64_t c)
{
    const int64_t n_rows = n_images * (n_patches + 1);
#pragma omp parallel for num_threads(threads_for(exec, n_rows *c))
    for (int64_t n = 0; n < n_rows; n++) {
        const int64_t b = n / (n_patches + 1), t = n % (n_patches + 1);
        const T *token = t == 0 ? cls : (const T *)patches + (b * n_patches + t - 1) * c;
        LOCAL(add_rows)((T *)out + n * c, token, (const T *)pos + t * c, c);
    }
    return DIP_OK;
}

/* Gradient of one position: rows `stride` apart, summed in registers, COLUMNS at once. */
enum { LOCAL(COLUMNS) = 4 * LANES };

static void LOCAL(add_sum_over_images)(float *d_pos, float *d_cls, const T *d_out, int64_t stride,
                                       int64_t n_images, int64_t n_columns)
{
    vec sum[4] = {vec_zero(), vec_zero(), vec_zero(), vec_zero()};
    const int64_t whole = n_columns / LANES, tail = n_columns % LANES;
    if (whole == 4) {
        for (int64_t b = 0; b < n_images; b++, d_out += stride)
            for (int64_t j = 0; j < 4; j++) sum[j] = vec_add(sum[j], LOAD(d_out + j * LANES));
    } else {
        for (int64_t b = 0; b < n_images; b++, d_out += stride) {
            for (int64_t j = 0; j < whole; j++) sum[j] = vec_add(sum[j], LOAD(d_out + j * LANES));
            if (tail) sum[whole] = vec_add(sum[whole], LOAD_N(d_out + whole * LANES, tail));
        }
    }
    float sums[4 * LANES];
    for (int64_t j = 0; j < 4; j++) vec_store(sums + j * LANES, sum[j]);
    for (int64_t i = 0; i < n_columns; i++) d_pos[i] += sums[i];
    if (d_cls)
        for (int64_t i = 0; i < n_columns; i++) d_cls[i] += sums[i];
}

dip_status OP(image_embed_backward)(dip_exec *exec, void *d_patches, float *d_cls, float *d_pos,
                                    const void *d_out, int64_t n_images, int64_t n_patches,
                                    int64_t c)
{
    const int64_t n_tokens = n_patches + 1, stride = n_tokens * c;
    if (n_images == 0) return DIP_OK;
    const int n_threads = threads_for(exec, n_images * stride);
#pragma omp parallel for num_threads(n_threads)
    for (int64_t b = 0; b < n_images; b++)
        memcpy((T *)d_patches + b * n_patches * c, (const T *)d_out + b * stride + c,
               (size_t)(n_patches * c) * sizeof(T));
#pragma omp parallel for num_threads(n_threads)
    for (int64_t t = 0; t < n_tokens; t++)
        for (int64_t i = 0; i < c; i += LOCAL(COLUMNS)) LOCAL(add_sum_over_images)
    (d_pos + t * c + i, t == 0 ? d_cls + i : NULL, (const T *)d_out + t * c + i, stride, n_images,
     smaller(LOCAL(COLUMNS), c - i));
    return DIP_OK;
}

dip_status OP(text_embed_forward)(dip_exec *exec, void *out, const int32_t *tokens,
                                  const int32_t *offsets, const void *table, const void *pos,
                                  int64_t n_sequences, int64_t n_rows, int64_t c)
{
#pragma omp parallel for num_threads(threads_for(exec, n_rows *c))
    for (int64_t b = 0; b < n_sequences; b++)
        for (int64_t n = offsets[b]; n < offsets[b + 1]; n++) LOCAL(add_rows)
    ((T *)out + n * c, (const T *)table + tokens[n] * c, (const T *)pos + (n - offsets[b]) * c, c);
    return DIP_OK;
}

/* sum += row, and the same for sum2. */
static void LOCAL(add_to_two)(float *sum, float *sum2, const T *row, int64_t n)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        vec x = LOAD(row + i);
        vec_store(sum + i, vec_add(vec_load(sum + i), x));
        vec_store(sum2 + i, vec_add(vec_load(sum2 + i), x));
    }
    if (i < n) {
        vec x = LOAD_N(row + i, n - i);
        vec_store_n(sum + i, vec_add(vec_load_n(sum + i, n - i), x), n - i);
        vec_store_n(sum2 + i, vec_add(vec_load_n(sum2 + i, n - i), x), n - i);
    }
}

dip_status OP(text_embed_backward)(dip_exec *exec, float *d_table, float *d_pos, const void *d_out,
                                   const int32_t *tokens, const int32_t *offsets,
                                   const int32_t *order, int64_t n_sequences, int64_t n_rows,
                                   int64_t vocab, int64_t c)
{
    (void)order, (void)vocab;
    const int n_threads = threads_for(exec, n_rows * c);
    /* Columns are independent of each other, so how they are shared out does not matter. */
    const int64_t share = round_up((c + n_threads - 1) / n_threads, LANES);
#pragma omp parallel for num_threads(n_threads)
    for (int64_t part = 0; part < n_threads; part++) {
        const int64_t i = part * share, n_columns = smaller(share, c - i);
        for (int64_t b = 0; b < n_sequences && n_columns > 0; b++)
            for (int64_t n = offsets[b]; n < offsets[b + 1]; n++) LOCAL(add_to_two)
        (d_table + tokens[n] * c + i, d_pos + (n - offsets[b]) * c + i,
         (const T *)d_out + n * c + i, n_columns);
    }
    return DIP_OK;
}
