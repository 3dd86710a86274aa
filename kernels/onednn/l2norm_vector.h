dip_status OP(l2norm_forward)(dip_exec *exec, float *y, float *inv_norm, const void *x,
                              int64_t n_rows, int64_t e)
{
    const int64_t whole = e / LANES * LANES, tail = e - whole;
#pragma omp parallel for num_threads(threads_for(exec, n_rows *e))
    for (int64_t n = 0; n < n_rows; n++) {
        const T *x_row = (const T *)x + n * e;
        float *y_row = y + n * e;
        vec squares = vec_zero();
        for (int64_t i = 0; i < whole; i += LANES)
            squares = vec_fma(LOAD(x_row + i), LOAD(x_row + i), squares);
        if (tail) {
            vec last = LOAD_N(x_row + whole, tail);
            squares = vec_fma(last, last, squares);
        }
        const float norm = sqrtf(vec_sum(squares));
        inv_norm[n] = 1.0f / (norm < 1e-12f ? 1e-12f : norm);
        const vec inverse = vec_all(inv_norm[n]);
        for (int64_t i = 0; i < whole; i += LANES)
            vec_store(y_row + i, vec_mul(LOAD(x_row + i), inverse));
        if (tail) vec_store_n(y_row + whole, vec_mul(LOAD_N(x_row + whole, tail), inverse), tail);
    }
    return DIP_OK;
}

dip_status OP(l2norm_backward)(dip_exec *exec, void *d_x, const float *d_y, const float *y,
                               const float *inv_norm, int64_t n_rows, int64_t e)
{
    const int64_t whole = e / LANES * LANES, tail = e - whole;
#pragma omp parallel for num_threads(threads_for(exec, n_rows *e))
    for (int64_t n = 0; n < n_rows; n++) {
        const float *y_row = y + n * e, *d_y_row = d_y + n * e;
        T *d_x_row = (T *)d_x + n * e;
        vec product = vec_zero();
        for (int64_t i = 0; i < whole; i += LANES)
            product = vec_fma(vec_load(y_row + i), vec_load(d_y_row + i), product);
        if (tail)
            product = vec_fma(vec_load_n(y_row + whole, tail), vec_load_n(d_y_row + whole, tail),
                              product);
        const vec along = vec_all(vec_sum(product)), inverse = vec_all(inv_norm[n]);
        for (int64_t i = 0; i < whole; i += LANES) {
            vec across = vec_sub(vec_load(d_y_row + i), vec_mul(vec_load(y_row + i), along));
            STORE(d_x_row + i, vec_mul(across, inverse));
        }
        if (tail) {
            vec y_last = vec_load_n(y_row + whole, tail);
            vec across = vec_sub(vec_load_n(d_y_row + whole, tail), vec_mul(y_last, along));
            STORE_N(d_x_row + whole, vec_mul(across, inverse), tail);
        }
    }
    return DIP_OK;
}
