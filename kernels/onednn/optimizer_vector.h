/* Everything that streams over parameters once: AdamW, the gradient norm, the average, casts. */
#ifndef VECTOR_ONCE

enum {
    CHUNK = 16384,   /* values a thread takes at a time */
    MAX_PARTS = 256, /* of a sum of squares: parts depend on n alone, and are added in order */
    PART_VALUES = 4096
};

static double part_of_squares(const float *x, int64_t n)
{
    wide sum[4] = {wide_zero(), wide_zero(), wide_zero(), wide_zero()};
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (int j = 0; j < 4; j++) {
            vec x_i = vec_load(x + i + j * LANES);
            sum[j] = wide_add_product(sum[j], x_i, x_i);
        }
    double total = 0.0;
    for (int j = 0; j < 4; j++) total += wide_sum(sum[j]);
    for (; i < n; i++) total += (double)x[i] * (double)x[i];
    return total;
}

/* AdamW's constants, divisions by them made into products where torch's own order allows. */
typedef struct adamw_factors {
    vec grad_scale, keep, beta1, beta2, rest1, rest2, step, inv_root2, eps;
    vec old_share, new_share; /* of the average */
} adamw_factors;

static adamw_factors adamw_factors_of(const dip_update *u, dip_adamw_hyper h)
{
    const float beta1 = (float)h.beta1, beta2 = (float)h.beta2, decay = (float)h.ema_decay;
    return (adamw_factors){
        .grad_scale = vec_all(u->grad_scale),
        .keep = vec_all((float)(1.0 - (double)u->lr * (double)(float)h.weight_decay)),
        .beta1 = vec_all(beta1),
        .beta2 = vec_all(beta2),
        .rest1 = vec_all((float)(1.0 - (double)beta1)),
        .rest2 = vec_all((float)(1.0 - (double)beta2)),
        .step = vec_all((float)((double)u->lr / (double)u->bias_correction1)),
        .inv_root2 = vec_all((float)(1.0 / sqrt((double)u->bias_correction2))),
        .eps = vec_all((float)h.eps),
        .old_share = vec_all(decay),
        .new_share = vec_all((float)(1.0 - (double)decay)),
    };
}

static inline vec adamw_vec(vec master, vec *m, vec *v, vec grad, const adamw_factors *f)
{
    vec g = vec_mul(grad, f->grad_scale);
    *m = vec_fma(f->beta1, *m, vec_mul(f->rest1, g));
    *v = vec_fma(f->beta2, *v, vec_mul(vec_mul(f->rest2, g), g));
    vec root = vec_fma(vec_sqrt(*v), f->inv_root2, f->eps);
    return vec_sub(vec_mul(master, f->keep), vec_div(vec_mul(f->step, *m), root));
}

static inline vec ema_vec(vec average, vec master, vec old_share, vec new_share)
{
    return vec_fma(new_share, master, vec_mul(old_share, average));
}

#endif

dip_status OP(sum_of_squares)(dip_exec *exec, double *out, const float *x, int64_t n)
{
    const int64_t part = round_up((n + MAX_PARTS - 1) / MAX_PARTS, PART_VALUES);
    const int64_t n_parts = n == 0 ? 0 : (n + part - 1) / part;
    double parts[MAX_PARTS];
#pragma omp parallel for num_threads(threads_for(exec, n))
    for (int64_t i = 0; i < n_parts; i++)
        parts[i] = part_of_squares(x + i * part, smaller(part, n - i * part));
    *out = 0.0;
    for (int64_t i = 0; i < n_parts; i++) *out += parts[i];
    return DIP_OK;
}

dip_status OP(adamw)(dip_exec *exec, float *master, void *param, float *m, float *v, float *average,
                     const float *grad, const dip_update *update, dip_adamw_hyper hyper, int64_t n)
{
    const int write_param = !T_IS_FLOAT || param != (void *)master;
    if (!update->applied) return DIP_OK;
    const adamw_factors f = adamw_factors_of(update, hyper);
    const int64_t whole = n / LANES * LANES, tail = n - whole;
    T *rounded = param;
#pragma omp parallel for num_threads(threads_for(exec, n))
    for (int64_t first = 0; first < whole; first += CHUNK)
        for (int64_t i = first; i < smaller(whole, first + CHUNK); i += LANES) {
            vec m_i = vec_load(m + i), v_i = vec_load(v + i);
            vec w = adamw_vec(vec_load(master + i), &m_i, &v_i, vec_load(grad + i), &f);
            vec_store(master + i, w);
            vec_store(m + i, m_i);
            vec_store(v + i, v_i);
            if (write_param) STORE(rounded + i, w);
            if (average)
                vec_store(average + i, ema_vec(vec_load(average + i), w, f.old_share, f.new_share));
        }
    if (tail) {
        const int64_t i = whole;
        vec m_i = vec_load_n(m + i, tail), v_i = vec_load_n(v + i, tail);
        vec w = vec_load_n(master + i, tail);
        w = adamw_vec(w, &m_i, &v_i, vec_load_n(grad + i, tail), &f);
        vec_store_n(master + i, w, tail);
        vec_store_n(m + i, m_i, tail);
        vec_store_n(v + i, v_i, tail);
        if (write_param) STORE_N(rounded + i, w, tail);
        if (average) {
            vec a = ema_vec(vec_load_n(average + i, tail), w, f.old_share, f.new_share);
            vec_store_n(average + i, a, tail);
        }
    }
    return DIP_OK;
}

dip_status OP(ema)(dip_exec *exec, float *average, const float *master, const dip_update *update,
                   float decay, int64_t n)
{
    const vec keep = vec_all(decay), rest = vec_all((float)(1.0 - (double)decay));
    if (!update->applied) return DIP_OK;
#pragma omp parallel for num_threads(threads_for(exec, n))
    for (int64_t first = 0; first < n; first += CHUNK) {
        const int64_t end = smaller(n, first + CHUNK);
        int64_t i = first;
        for (; i + LANES <= end; i += LANES)
            vec_store(average + i,
                      ema_vec(vec_load(average + i), vec_load(master + i), keep, rest));
        if (i < end) {
            vec a = ema_vec(vec_load_n(average + i, end - i), vec_load_n(master + i, end - i), keep,
                            rest);
            vec_store_n(average + i, a, end - i);
        }
    }
    return DIP_OK;
}

dip_status OP(cast_from_float)(dip_exec *exec, void *out, const float *x, int64_t n)
{
    T *rounded = out;
#pragma omp parallel for num_threads(threads_for(exec, n))
    for (int64_t first = 0; first < n; first += CHUNK) {
        const int64_t end = smaller(n, first + CHUNK);
        int64_t i = first;
        for (; i + LANES <= end; i += LANES) STORE(rounded + i, vec_load(x + i));
        if (i < end) STORE_N(rounded + i, vec_load_n(x + i, end - i), end - i);
    }
    return DIP_OK;
}

dip_status OP(cast_to_float)(dip_exec *exec, float *out, const void *x, int64_t n)
{
    const T *values = x;
#pragma omp parallel for num_threads(threads_for(exec, n))
    for (int64_t first = 0; first < n; first += CHUNK) {
        const int64_t end = smaller(n, first + CHUNK);
        int64_t i = first;
        for (; i + LANES <= end; i += LANES) vec_store(out + i, LOAD(values + i));
        if (i < end) vec_store_n(out + i, LOAD_N(values + i, end - i), end - i);
    }
    return DIP_OK;
}
