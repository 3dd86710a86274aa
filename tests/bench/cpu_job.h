/* cpu_job.h - timing ops on the CPU: what bench_ops.c is written with.
 *
 * Usage:   measure_limits once; for each dtype open bench.cpu and bench.reference; for an op that
 *          is wanted make its operands (tensor, floats), reserve, report.
 * Owns:    the buffers that tensor and floats hand out, until the end of the program; the next one
 *          of the same number takes its place.
 * Errors:  check tells them on stderr and ends the program. */
#ifndef DIP_BENCH_CPU_JOB_H
#define DIP_BENCH_CPU_JOB_H

#include <immintrin.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/device.h"
#include "kernels/onednn/onednn.h"
#include "kernels/ops.h"

enum { N_BUFFERS = 8 };
#define REFERENCE_MAX_FLOPS 4e9
typedef enum limit { COPY, FMA, TILES } limit;
static const char *const limit_names[] = {"copy", "fma", "tiles"};

static struct {
    const char *filter;
    dip_dtype dtype;
    dip_exec cpu, reference; /* of dtype */
    double limits[3];        /* bytes/s, FLOP/s, FLOP/s */
    void *buffers[N_BUFFERS];
    size_t capacities[N_BUFFERS];
} bench;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void check(dip_status status, const char *what)
{
    if (status == DIP_OK) return;
    fprintf(stderr, "%s: %s\n", what, dip_error());
    exit(1);
}

/* ---- limits ------------------------------------------------------------------------------- */

static double copy_rate(int n_threads)
{
    const size_t n_bytes = (size_t)128 << 20;
    char *from = malloc(n_bytes), *to = malloc(n_bytes);
    double best = INFINITY;
    if (from == NULL || to == NULL) check(dip_fail(DIP_NOMEM, "256 MiB to copy"), "copy_rate");
    memset(from, 1, n_bytes);
    memset(to, 2, n_bytes);
    for (int i = 0; i < 5; i++) {
        double start = now();
#pragma omp parallel for num_threads(n_threads)
        for (size_t block = 0; block < n_bytes >> 20; block++)
            memcpy(to + (block << 20), from + (block << 20), (size_t)1 << 20);
        double seconds = now() - start;
        if (seconds < best) best = seconds;
    }
    free(from);
    free(to);
    return 2.0 * (double)n_bytes / best;
}

enum { PEAK_ROUNDS = 2000000 };

__attribute__((target("avx2,fma"))) static double fma_flops_avx2(void)
{
    __m256 x[10], a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.001f);
    for (int j = 0; j < 10; j++) x[j] = _mm256_set1_ps((float)j);
    for (int i = 0; i < PEAK_ROUNDS; i++)
        for (int j = 0; j < 10; j++) x[j] = _mm256_fmadd_ps(x[j], a, b);
    volatile float sink = 0.0f;
    for (int j = 0; j < 10; j++) sink = sink + _mm256_cvtss_f32(x[j]);
    return 10.0 * 8.0 * 2.0 * PEAK_ROUNDS;
}

__attribute__((target("avx512f"))) static double fma_flops_avx512(void)
{
    __m512 x[10], a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(0.001f);
    for (int j = 0; j < 10; j++) x[j] = _mm512_set1_ps((float)j);
    for (int i = 0; i < PEAK_ROUNDS; i++)
        for (int j = 0; j < 10; j++) x[j] = _mm512_fmadd_ps(x[j], a, b);
    volatile float sink = 0.0f;
    for (int j = 0; j < 10; j++) sink = sink + _mm512_cvtss_f32(x[j]);
    return 10.0 * 16.0 * 2.0 * PEAK_ROUNDS;
}

__attribute__((target("amx-tile,amx-bf16"))) static double tile_flops(void)
{
    static const struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {
        .palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16}};
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    for (int i = 0; i < PEAK_ROUNDS / 4; i++) {
        _tile_dpbf16ps(0, 4, 5);
        _tile_dpbf16ps(1, 4, 5);
        _tile_dpbf16ps(2, 4, 5);
        _tile_dpbf16ps(3, 4, 5);
    }
    _tile_release();
    return 4.0 * 16.0 * 16.0 * 32.0 * 2.0 * (PEAK_ROUNDS / 4);
}

static double peak(double (*flops)(void), int n_threads)
{
    double best = 0.0;
    for (int i = 0; i < 3; i++) {
        double total = 0.0, start = now();
#pragma omp parallel num_threads(n_threads) reduction(+ : total)
        total += flops();
        double rate = total / (now() - start);
        if (rate > best) best = rate;
    }
    return best;
}

static void measure_limits(int n_threads)
{
    const dip_cpu_isa_level isa = dip_cpu_isa();
    bench.limits[COPY] = copy_rate(n_threads);
    if (isa >= DIP_ISA_AVX2)
        bench.limits[FMA] =
            peak(isa >= DIP_ISA_AVX512 ? fma_flops_avx512 : fma_flops_avx2, n_threads);
    if (isa >= DIP_ISA_AMX) bench.limits[TILES] = peak(tile_flops, n_threads);
    printf("%s, %d threads: copy %.1f GB/s, fma %.0f GFLOP/s, tiles %.0f GFLOP/s\n",
           dip_cpu_isa_name(), n_threads, bench.limits[COPY] * 1e-9, bench.limits[FMA] * 1e-9,
           bench.limits[TILES] * 1e-9);
}

/* ---- running ------------------------------------------------------------------------------ */

/* Buffer `i` with at least n values, floats (or what the table's dtype is) around 0. */
static void *buffer(int i, int64_t n, dip_dtype dtype)
{
    const size_t n_bytes = (size_t)n * dip_dtype_bytes(dtype) + 64;
    if (bench.capacities[i] < n_bytes) {
        free(bench.buffers[i]);
        bench.buffers[i] = aligned_alloc(64, (n_bytes + 63) / 64 * 64);
        bench.capacities[i] = bench.buffers[i] ? n_bytes : 0;
        if (bench.buffers[i] == NULL)
            check(dip_fail(DIP_NOMEM, "no %zu bytes for a tensor", n_bytes), "bench");
    }
    uint32_t state = 12345u + (uint32_t)i;
    for (int64_t j = 0; j < n; j++) {
        state = state * 1664525u + 1013904223u;
        float x = (float)(int32_t)state * 0x1p-31f;
        if (dtype == DIP_F32)
            ((float *)bench.buffers[i])[j] = x;
        else
            ((dip_bf16 *)bench.buffers[i])[j] = dip_bf16_from_float(x);
    }
    return bench.buffers[i];
}

static void *tensor(int i, int64_t n)
{
    return buffer(i, n, bench.dtype);
}
static float *floats(int i, int64_t n)
{
    return buffer(i, n, DIP_F32);
}

typedef dip_status call_fn(dip_exec *exec, const void *args);

static double best_seconds(dip_exec *exec, call_fn *call, const void *args, const char *op,
                           double budget_s)
{
    double best = INFINITY, begin = now();
    for (int i = 0; i < 200 && (i < 2 || now() - begin < budget_s); i++) {
        double start = now();
        check(call(exec, args), op);
        double seconds = now() - start;
        if (seconds < best) best = seconds;
        if (seconds > budget_s) break;
    }
    return best;
}

static int wanted(const char *op)
{
    return strstr(op, bench.filter) != NULL;
}

/* `work` is bytes or FLOPs, as the limit says. */
static void report(const char *op, const char *shape, call_fn *call, const void *args, double work,
                   limit by)
{
    double ours = best_seconds(&bench.cpu, call, args, op, 0.3);
    printf("%-22s %-26s %-5s %9.3f ms %8.1f %-7s", op, shape, dip_dtype_name(bench.dtype),
           ours * 1e3, work / ours * 1e-9, by == COPY ? "GB/s" : "GFLOP/s");
    if (by == COPY || work < REFERENCE_MAX_FLOPS) /* else it takes too long to wait for */
        printf(" %7.1fx", best_seconds(&bench.reference, call, args, op, 0.2) / ours);
    else
        printf(" %7s ", "-");
    if (bench.limits[by] > 0.0)
        printf(" %5.1f%% of %s", 100.0 * work / ours / bench.limits[by], limit_names[by]);
    putchar('\n');
    fflush(stdout);
}

static void reserve(size_t cpu_bytes, size_t reference_bytes)
{
    check(dip_exec_reserve(&bench.cpu, cpu_bytes), "reserve");
    check(dip_exec_reserve(&bench.reference, reference_bytes), "reserve");
}

#endif
