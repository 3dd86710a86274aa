/* Speed of the CPU matrix products on the shapes of CLIP training.
 *
 *   bench_gemm [N_THREADS [SECONDS_PER_CASE]]
 *
 * A row is one product with everything that is fused into it; the best of many runs counts,
 * because other programs can only slow a run down. Two peers are measured in the same run: the
 * AMX units fed from registers alone (the limit), and oneDNN's sgemm. "eff" of an fp32 product
 * is its own 2 N C_in C_out operations, however many it really needs.                        */
#include "kernels/onednn/gemm.h"
#include "kernels/onednn/onednn.h"

#include <dnnl.h>
#include <immintrin.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- the limit ------------------------------------------------------------------------- */

static _Alignas(64) uint16_t operands[4][512];

__attribute__((target("amx-tile,amx-bf16"))) static void tile_products(int n)
{
    static const struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t n_rows[16];
    } config = {
        .palette = 1,
        .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
        .n_rows = {16, 16, 16, 16, 16, 16, 16, 16},
    };
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, operands[0], 64);
    _tile_loadd(5, operands[1], 64);
    _tile_loadd(6, operands[2], 64);
    _tile_loadd(7, operands[3], 64);
    for (int i = 0; i < n; i++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
}

/* FLOP/s of n_threads tile units together, 0 without AMX. */
static double measure_peak(int n_threads)
{
    enum { N = 200000 };
    double best = 0;
    if (dip_cpu_isa() < DIP_ISA_AMX) return 0;
    /* Ragged like real numbers: products of zeros cost less power, so they would run faster. */
    for (unsigned i = 0; i < 4 * 512; i++)
        operands[i / 512][i % 512] =
            dip_bf16_from_float((float)(i * 40503u % 4096) / 2048.0f - 1.0f);
    for (int run = 0; run < 10; run++) {
        double begin = now_s();
#pragma omp parallel num_threads(n_threads)
        tile_products(N);
        double rate = (double)n_threads * N * 4 * 16 * 16 * 32 * 2 / (now_s() - begin);
        if (rate > best) best = rate;
    }
    return best;
}

/* ---- one case -------------------------------------------------------------------------- */

typedef struct buffers {
    void *x, *w, *bias, *residual, *out, *pre, *d_out, *d_x;
    float *d_w, *d_bias;
} buffers;

typedef struct bench_case {
    dip_exec exec;
    dip_dtype dtype;
    dip_matmul_shape shape;
    buffers b;
} bench_case;

typedef void case_fn(bench_case *c);

static void run_forward(bench_case *c)
{
    (c->dtype == DIP_F32 ? dip_onednn_matmul_forward_f32 : dip_onednn_matmul_forward_bf16)(
        &c->exec, c->b.out, NULL, c->b.x, c->b.w, c->b.bias, NULL, DIP_ACT_NONE, c->shape);
}

static void run_forward_gelu(bench_case *c)
{
    (c->dtype == DIP_F32 ? dip_onednn_matmul_forward_f32 : dip_onednn_matmul_forward_bf16)(
        &c->exec, c->b.out, c->b.pre, c->b.x, c->b.w, c->b.bias, NULL, DIP_ACT_GELU, c->shape);
}

static void run_forward_residual(bench_case *c)
{
    (c->dtype == DIP_F32 ? dip_onednn_matmul_forward_f32 : dip_onednn_matmul_forward_bf16)(
        &c->exec, c->b.out, NULL, c->b.x, c->b.w, c->b.bias, c->b.residual, DIP_ACT_NONE, c->shape);
}

static void run_backward_input(bench_case *c)
{
    (c->dtype == DIP_F32 ? dip_onednn_matmul_backward_input_f32
                         : dip_onednn_matmul_backward_input_bf16)(
        &c->exec, c->b.d_x, c->b.d_out, c->b.w, NULL, DIP_ACT_NONE, c->shape);
}

static void run_backward_input_gelu(bench_case *c)
{
    (c->dtype == DIP_F32 ? dip_onednn_matmul_backward_input_f32
                         : dip_onednn_matmul_backward_input_bf16)(
        &c->exec, c->b.d_x, c->b.d_out, c->b.w, c->b.x, DIP_ACT_GELU, c->shape);
}

static void run_backward_weight(bench_case *c)
{
    (c->dtype == DIP_F32 ? dip_onednn_matmul_backward_weight_f32
                         : dip_onednn_matmul_backward_weight_bf16)(&c->exec, c->b.d_w, c->b.d_bias,
                                                                   c->b.d_out, c->b.x, c->shape);
}

static void run_sgemm(bench_case *c)
{
    dip_matmul_shape s = c->shape;
    dnnl_sgemm('N', 'T', s.n_rows, s.c_out, s.c_in, 1, c->b.x, s.c_in, c->b.w, s.c_in, 0, c->b.out,
               s.c_out);
}

static double best_time_s(case_fn *run, bench_case *c, double budget_s)
{
    double best = 1e30, begin = now_s();
    run(c);
    for (int n = 0; n < 3 || now_s() - begin < budget_s; n++) {
        double t0 = now_s();
        run(c);
        double t = now_s() - t0;
        if (t < best) best = t;
    }
    return best;
}

static void *filled(int64_t n, dip_dtype dtype)
{
    size_t n_bytes = ((size_t)n * dip_dtype_bytes(dtype) + 63) / 64 * 64;
    void *p = aligned_alloc(64, n_bytes);
    if (p == NULL) {
        fprintf(stderr, "bench_gemm: no memory for %zu bytes\n", n_bytes);
        exit(1);
    }
    uint32_t state = 1;
    for (int64_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        float x = (float)(state >> 8) * 0x1p-23f - 1.0f;
        if (dtype == DIP_F32)
            ((float *)p)[i] = x;
        else
            ((dip_bf16 *)p)[i] = dip_bf16_from_float(x);
    }
    return p;
}

static void bench_shape(dip_matmul_shape s, dip_dtype dtype, int n_threads, double budget_s,
                        double peak)
{
    static const struct {
        const char *name;
        case_fn *run;
        int f32_only;
    } cases[] = {
        {"forward bias", run_forward, 0},
        {"forward gelu+pre", run_forward_gelu, 0},
        {"forward residual", run_forward_residual, 0},
        {"backward input", run_backward_input, 0},
        {"backward in gelu'", run_backward_input_gelu, 0},
        {"backward weight", run_backward_weight, 0},
        {"oneDNN sgemm", run_sgemm, 1},
    };
    bench_case c = {.exec = {.n_threads = n_threads}, .dtype = dtype, .shape = s};
    c.exec.workspace_bytes = dtype == DIP_F32 ? dip_onednn_matmul_workspace_f32(&c.exec, s)
                                              : dip_onednn_matmul_workspace_bf16(&c.exec, s);
    c.exec.workspace = filled((int64_t)c.exec.workspace_bytes / 4 + 16, DIP_F32);
    c.b = (buffers){
        .x = filled(s.n_rows * s.c_in, dtype),
        .w = filled(s.c_in * s.c_out, dtype),
        .bias = filled(s.c_out, dtype),
        .residual = filled(s.n_rows * s.c_out, dtype),
        .out = filled(s.n_rows * s.c_out, dtype),
        .pre = filled(s.n_rows * s.c_out, dtype),
        .d_out = filled(s.n_rows * s.c_out, dtype),
        .d_x = filled(s.n_rows * s.c_in, dtype),
        .d_w = filled(s.c_in * s.c_out, DIP_F32),
        .d_bias = filled(s.c_out, DIP_F32),
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (cases[i].f32_only && dtype != DIP_F32) continue;
        double t = best_time_s(cases[i].run, &c, budget_s);
        double rate = 2.0 * (double)s.n_rows * (double)s.c_in * (double)s.c_out / t;
        printf("%s %6lld %5lld %5lld  %-18s %9.3f ms %7.3f TFLOP/s", dip_dtype_name(dtype),
               (long long)s.n_rows, (long long)s.c_in, (long long)s.c_out, cases[i].name, t * 1e3,
               rate * 1e-12);
        if (peak > 0) printf(" %5.1f%% of AMX", 100 * rate / peak);
        printf("\n");
        fflush(stdout);
    }
    void *all[] = {c.exec.workspace, c.b.x,     c.b.w,   c.b.bias, c.b.residual, c.b.out,
                   c.b.pre,          c.b.d_out, c.b.d_x, c.b.d_w,  c.b.d_bias};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
}

int main(int argc, char **argv)
{
    static const dip_matmul_shape shapes[] = {
        {256, 192, 192, DIP_OUT_IN},    {12800, 192, 576, DIP_OUT_IN},
        {12800, 192, 768, DIP_OUT_IN},  {12800, 768, 192, DIP_OUT_IN},
        {16640, 384, 1536, DIP_OUT_IN}, {3200, 768, 3072, DIP_OUT_IN},
    };
    int n_threads = argc > 1 ? atoi(argv[1]) : omp_get_num_procs();
    double budget_s = argc > 2 ? atof(argv[2]) : 0.5;
    if (n_threads < 1) n_threads = 1;
    omp_set_num_threads(n_threads); /* for sgemm */
    double peak = measure_peak(n_threads);
    printf("%s, %d threads, AMX from registers %.2f TFLOP/s\n", dip_cpu_isa_name(), n_threads,
           peak * 1e-12);
    for (int dtype = DIP_BF16; dtype >= DIP_F32; dtype--)
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
            bench_shape(shapes[i], (dip_dtype)dtype, n_threads, budget_s, peak);
    return 0;
}
