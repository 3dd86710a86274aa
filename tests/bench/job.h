/* job.h - timing ops on a device: what bench_cuda.c is written with.
 *
 * Usage:   open bench.exec and make_patterns; measure_limits; then for every op and shape
 *          make_job, add its tensors in the order its call takes them, run_job; bench_close.
 * Owns:    the device's memory: one arena that holds the sets of tensors of the job being timed,
 *          and patterns of random values that they are filled from. Host contents of a tensor
 *          (reads_host) are borrowed until run_job has returned.
 * Errors:  run_job tells them on stderr and counts them in bench.failures.                  */
#ifndef DIP_BENCH_JOB_H
#define DIP_BENCH_JOB_H

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/device.h"
#include "kernels/ops.h"

enum { T = sizeof(dip_bf16), F = sizeof(float) };
enum { ALIGNMENT = 256, MAX_TENSORS = 10, MAX_SETS = 256, MAX_REPEATS = 9, MAX_CALLS = 200 };
static const double repeat_s = 0.01; /* one measurement */

/* What a tensor holds at first. */
typedef enum fill {
    NOTHING,  /* an output */
    UNIT,     /* normal, deviation 1 */
    SMALL,    /* normal, deviation 0.02: weights and gradients */
    POSITIVE, /* second moments */
    BYTES,    /* pixels */
    N_FILLS
} fill;

static struct {
    dip_exec exec;
    bool json, quick;
    const char *only;
    double copy_rate, matmul_rate; /* the limits: bytes/s, FLOP/s; 0 while they are measured */
    void *patterns[N_FILLS];       /* random values on the device, what tensors are filled from */
    size_t pattern_bytes, pattern_at;
    char *arena; /* the tensors of the job being timed */
    size_t arena_bytes, most_arena_bytes;
    int failures;
} bench;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A size of a real run, or one that an emulator can bear. */
static int64_t sized(int64_t full, int64_t quick)
{
    return bench.quick ? quick : full;
}

/* ---- random contents ------------------------------------------------------------------------ */

static uint64_t next_random(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Nearly normal: the sum of four uniform numbers. */
static float next_normal(uint64_t *state)
{
    const uint64_t r = next_random(state);
    const int sum =
        (int)(r & 0xffff) + (int)(r >> 16 & 0xffff) + (int)(r >> 32 & 0xffff) + (int)(r >> 48);
    return (float)(sum - 131070) / 37837.0f;
}

/* Patterns are pairs of bf16. Read as float they are the second of each pair, to three digits, so
 * one pattern serves both types. Their length is no multiple of a row: rows do not repeat. */
static dip_status make_patterns(void)
{
    const dip_device *device = bench.exec.device;
    bench.pattern_bytes = (size_t)sized(65521, 1021) * ALIGNMENT;
    uint16_t *host = malloc(bench.pattern_bytes);
    dip_status status = DIP_OK;
    if (!host) return dip_fail(DIP_NOMEM, "no %zu bytes for random values", bench.pattern_bytes);
    for (int f = UNIT; f < N_FILLS; f++) {
        uint64_t state = (uint64_t)f;
        for (size_t i = 0; i < bench.pattern_bytes / T; i++) {
            const float x = f == BYTES ? 0.0f : next_normal(&state);
            host[i] = f == BYTES      ? (uint16_t)next_random(&state)
                      : f == POSITIVE ? dip_bf16_from_float(4e-4f * x * x)
                                      : dip_bf16_from_float(f == SMALL ? 0.02f * x : x);
        }
        DIP_TRY_GOTO(device->allocate(device, &bench.patterns[f], bench.pattern_bytes));
        DIP_TRY_GOTO(device->upload(&bench.exec, bench.patterns[f], host, bench.pattern_bytes));
    }
fail:
    free(host);
    return status;
}

/* Every tensor begins somewhere else in the pattern, so that no two are equal. */
static dip_status fill_tensor(char *tensor, size_t n_bytes, fill with)
{
    const char *pattern = bench.patterns[with];
    size_t at = bench.pattern_at = (bench.pattern_at + 1009 * ALIGNMENT) % bench.pattern_bytes;
    for (size_t done = 0, n; done < n_bytes; done += n, at = 0) {
        n = bench.pattern_bytes - at;
        if (n > n_bytes - done) n = n_bytes - done;
        DIP_TRY(bench.exec.device->copy(&bench.exec, tensor + done, pattern + at, n));
    }
    return DIP_OK;
}

/* ---- jobs ----------------------------------------------------------------------------------- */

/* One op, or a few, at one shape. `t` is a set of its tensors, in the order they were added. */
typedef struct job job;
typedef dip_status call_fn(dip_exec *exec, const job *j, char *const t[]);

struct job {
    const char *bench, *config;
    char shape[64];
    int64_t rows;
    call_fn *call,
        *prepare; /* prepare: computes, once a set, inputs that are not random; or NULL */
    bool once;    /* it takes long */
    double flops, bytes, features_bytes;
    size_t workspace;
    struct {
        size_t offset, n_bytes;
        fill with;
        const void *host; /* its contents, or NULL: `with` */
    } tensors[MAX_TENSORS];
    int n_tensors;
    size_t set_bytes;
    /* What the call needs besides tensors. */
    dip_activation activation;
    dip_matmul_shape matmul;
    dip_attention_shape attention;
    dip_image_shape image;
    dip_contrastive_shape contrastive;
    int64_t n, c, vocab;
};

static job make_job(const char *name, const char *config, call_fn *call, int64_t rows)
{
    return (job){.bench = name, .config = config, .call = call, .rows = rows};
}

/* The next tensor: n elements, of which `passes` times as many bytes are read or written. None
 * (NULL) when n is 0. */
static void add(job *j, int64_t n, int element_bytes, fill with, double passes)
{
    const size_t n_bytes = (size_t)n * (size_t)element_bytes;
    j->tensors[j->n_tensors].offset = j->set_bytes;
    j->tensors[j->n_tensors].n_bytes = n_bytes;
    j->tensors[j->n_tensors++].with = with;
    j->set_bytes += (n_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    j->bytes += passes * (double)n_bytes;
}

static void reads(job *j, int64_t n, int element_bytes, fill with)
{
    add(j, n, element_bytes, with, 1);
}
static void writes(job *j, int64_t n, int element_bytes)
{
    add(j, n, element_bytes, NOTHING, 1);
}
static void updates(job *j, int64_t n, int element_bytes, fill with)
{
    add(j, n, element_bytes, with, 2);
}
static void reads_host(job *j, const void *host, int64_t n, int element_bytes)
{
    j->tensors[j->n_tensors].host = host;
    add(j, n, element_bytes, NOTHING, 1);
}

/* ---- timing --------------------------------------------------------------------------------- */

typedef struct spread {
    double median, least, most; /* seconds a call */
    int n_calls, n_repeats;
} spread;

static void set_of(char *t[MAX_TENSORS], const job *j, int64_t set)
{
    char *base = bench.arena + (size_t)set * j->set_bytes;
    for (int i = 0; i < j->n_tensors; i++)
        t[i] = j->tensors[i].n_bytes > 0 ? base + j->tensors[i].offset : NULL;
}

static dip_status need_arena(size_t n_bytes)
{
    const dip_device *device = bench.exec.device;
    if (n_bytes <= bench.arena_bytes) return DIP_OK;
    DIP_TRY(device->synchronize(&bench.exec));
    device->release(device, bench.arena);
    bench.arena = NULL;
    bench.arena_bytes = 0;
    DIP_TRY(device->allocate(device, (void **)&bench.arena, n_bytes));
    bench.arena_bytes = n_bytes;
    if (n_bytes > bench.most_arena_bytes) bench.most_arena_bytes = n_bytes;
    return DIP_OK;
}

static dip_status fill_set(const job *j, int64_t set)
{
    char *t[MAX_TENSORS];
    set_of(t, j, set);
    for (int i = 0; i < j->n_tensors; i++) {
        const size_t n_bytes = j->tensors[i].n_bytes;
        if (j->tensors[i].host)
            DIP_TRY(bench.exec.device->upload(&bench.exec, t[i], j->tensors[i].host, n_bytes));
        else if (t[i] && j->tensors[i].with != NOTHING)
            DIP_TRY(fill_tensor(t[i], n_bytes, j->tensors[i].with));
    }
    return j->prepare ? j->prepare(&bench.exec, j, t) : DIP_OK;
}

/* Seconds a call of n_calls calls, each on another set than the one before. */
static dip_status time_calls(double *seconds, const job *j, int n_calls, int64_t n_sets)
{
    static int64_t set;
    char *t[MAX_TENSORS];
    const double begin = now();
    for (int i = 0; i < n_calls; i++) {
        set_of(t, j, ++set % n_sets);
        DIP_TRY(j->call(&bench.exec, j, t));
    }
    DIP_TRY(bench.exec.device->synchronize(&bench.exec));
    *seconds = (now() - begin) / n_calls;
    return DIP_OK;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static dip_status measure(spread *out, const job *j)
{
    /* More than a cache holds: 126 MB on the largest GPU. */
    const size_t rotation = (size_t)sized((int64_t)256 << 20, 16 << 10);
    int64_t n_sets = (int64_t)((rotation + j->set_bytes - 1) / j->set_bytes);
    double seconds[MAX_REPEATS];
    if (n_sets > MAX_SETS) n_sets = MAX_SETS;
    DIP_TRY(dip_exec_reserve(&bench.exec, j->workspace));
    DIP_TRY(need_arena((size_t)n_sets * j->set_bytes));
    for (int64_t set = 0; set < n_sets; set++) DIP_TRY(fill_set(j, set));
    DIP_TRY(bench.exec.device->synchronize(&bench.exec));
    *out = (spread){.n_calls = 1, .n_repeats = 1};
    DIP_TRY(time_calls(&seconds[0], j, 1, n_sets)); /* the first call also chooses and loads code */
    if (!j->once) {
        DIP_TRY(time_calls(&seconds[0], j, 1, n_sets));
        const double calls = bench.quick ? 1.0 : ceil(repeat_s / fmax(seconds[0], 1e-9));
        out->n_calls = (int)fmin(calls, MAX_CALLS);
        out->n_repeats = bench.quick ? 2 : seconds[0] < 10 * repeat_s ? MAX_REPEATS : 3;
        for (int i = 0; i < out->n_repeats; i++)
            DIP_TRY(time_calls(&seconds[i], j, out->n_calls, n_sets));
        qsort(seconds, (size_t)out->n_repeats, sizeof *seconds, ascending);
    }
    out->least = seconds[0];
    out->median = seconds[out->n_repeats / 2];
    out->most = seconds[out->n_repeats - 1];
    return DIP_OK;
}

/* ---- figures -------------------------------------------------------------------------------- */

static void print_figures(const job *j, spread s)
{
    const double floor_s = fmax(j->bytes / bench.copy_rate, j->flops / bench.matmul_rate);
    const double share = floor_s / s.median;
    if (bench.json) {
        printf("{\"bench\":\"%s\",\"config\":\"%s\",\"shape\":\"%s\",\"rows\":%lld,\"ms\":%.6g,"
               "\"ms_least\":%.6g,\"ms_most\":%.6g,\"calls\":%d,\"repeats\":%d,\"bytes\":%.0f,"
               "\"flops\":%.0f,\"gb_s\":%.6g,\"tflop_s\":%.6g,\"floor_ms\":%.6g,\"share\":%.4f,"
               "\"tensor_bytes\":%zu,\"workspace_bytes\":%zu",
               j->bench, j->config, j->shape, (long long)j->rows, s.median * 1e3, s.least * 1e3,
               s.most * 1e3, s.n_calls, s.n_repeats, j->bytes, j->flops, j->bytes / s.median * 1e-9,
               j->flops / s.median * 1e-12, floor_s * 1e3, share, j->set_bytes, j->workspace);
        if (j->features_bytes > 0) /* gradients have the features' shape */
            printf(",\"features_bytes\":%.0f,\"gradients_bytes\":%.0f,\"extra_bytes\":%.0f",
                   j->features_bytes, j->features_bytes,
                   2 * j->features_bytes + (double)j->workspace);
        puts("}");
    } else {
        char times[48];
        snprintf(times, sizeof times, "%.4f (%.4f..%.4f)", s.median * 1e3, s.least * 1e3,
                 s.most * 1e3);
        printf("%-22s %-15s %-30s %-28s %7.0f %7.1f %6.1f%% %8.1f\n", j->bench, j->config, j->shape,
               times, j->bytes / s.median * 1e-9, j->flops / s.median * 1e-12, 100 * share,
               (double)j->workspace * 0x1p-20);
    }
    fflush(stdout);
}

static void print_begin(void)
{
    const char *name = dip_exec_describe(&bench.exec);
    if (bench.json)
        printf("{\"bench\":\"device\",\"config\":\"%s\",\"dtype\":\"bf16\",\"quick\":%s}\n", name,
               bench.quick ? "true" : "false");
    else
        printf("%s, bf16%s\n%-22s %-15s %-30s %-28s %7s %7s %7s %8s\n", name,
               bench.quick ? ", tiny shapes" : "", "op", "of", "shape", "ms (least..most)", "GB/s",
               "TFLOP/s", "share", "MiB work");
}

/* All that was on the device at once is no more than the largest arena and workspace. */
static void print_end(double seconds)
{
    const size_t n_bytes = bench.most_arena_bytes + bench.exec.workspace_bytes +
                           (N_FILLS - UNIT) * bench.pattern_bytes;
    if (bench.json)
        printf("{\"bench\":\"total\",\"config\":\"all\",\"seconds\":%.1f,\"device_bytes\":%zu,"
               "\"failures\":%d}\n",
               seconds, n_bytes, bench.failures);
    else
        printf("%.1f s, %.1f GiB of the device, %d failed\n", seconds, (double)n_bytes * 0x1p-30,
               bench.failures);
}

static void failed(const job *j)
{
    bench.failures++;
    fprintf(stderr, "bench_cuda: %s, %s, %s: %s\n", j->bench, j->config, j->shape, dip_error());
}

/* Time it and print the figures; a failure is told, and the next job is tried. Not 0: done. */
static int run_job(const job *j)
{
    spread s;
    if (!strstr(j->bench, bench.only)) return 0;
    const dip_status status = measure(&s, j);
    if (status == DIP_OK)
        print_figures(j, s);
    else
        failed(j);
    return status == DIP_OK;
}

static void bench_close(void)
{
    const dip_device *device = bench.exec.device;
    device->release(device, bench.arena);
    for (int f = UNIT; f < N_FILLS; f++) device->release(device, bench.patterns[f]);
    dip_exec_close(&bench.exec);
}

#endif
