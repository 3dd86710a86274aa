/* bench_cuda.c - the ops of a GPU at the shapes of CLIP training, beside the same run's limits.
 *
 * Usage:   bench_cuda [--json] [--quick] [--device NAME] [--only TEXT]
 *          --quick takes tiny shapes, to see that everything runs; --only TEXT times the ops whose
 *          name contains TEXT. Exit status 1 if an op failed, 2 if there is no such device.
 *
 * Limits:  copying 1 GiB on the device (bytes read and written), a bf16 product of 8192 cubed; the
 *          best of several each.
 * Ops:     bf16, at the towers of ViT-B-32, ViT-B-16 and ViT-L-14 with 256 pairs and all 77 tokens
 *          of a text (ViT-B-16's text tower is ViT-B-32's), the optimizer on ViT-B-32's parameters,
 *          and the contrastive loss. Left out: what works on a single value (update_begin, clamp),
 *          and what these models do not use (mean_pool_*).
 * Figures: A time is that of one call among many that were enqueued together: the median of several
 *          such measurements, smallest and largest beside it; below a few microseconds it is the
 *          host's time to launch. Inputs are random, and buffers change from call to call, so that
 *          no cache holds them. Bytes are compulsory traffic, each operand once; FLOPs are useful
 *          work: a causal token sees (L + 1) / 2 others, and attention backward is 5 products.
 *          "share" is the time that the limits allow, the longer of copying the bytes and
 *          multiplying the FLOPs, over the time taken.                                         */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "job.h"
#include "tower_jobs.h"

/* ---- the contrastive loss ----------------------------------------------------------------------
 */

/* Random features of unit length; the gradients' memory holds what they are made of. */
static dip_status contrastive_features(dip_exec *exec, const job *j, char *const t[])
{
    const int64_t n = j->contrastive.batch, e = j->contrastive.embed;
    DIP_TRY(exec->ops->l2norm_forward(exec, (float *)t[0], (float *)t[4], t[2], n, e));
    return exec->ops->l2norm_forward(exec, (float *)t[1], (float *)t[4], t[3], n, e);
}

static dip_contrastive_shape contrastive_shape(const job *j, char *const t[])
{
    dip_contrastive_shape shape = j->contrastive;
    shape.log_scale = (const float *)t[9];
    return shape;
}

static dip_status contrastive_forward(dip_exec *exec, const job *j, char *const t[])
{
    return exec->ops->contrastive_forward(exec, (float *)t[4], (float *)t[5], (float *)t[6],
                                          (float *)t[0], (float *)t[1], contrastive_shape(j, t));
}

static dip_status contrastive_backward(dip_exec *exec, const job *j, char *const t[])
{
    return exec->ops->contrastive_backward(exec, (float *)t[2], (float *)t[3], (float *)t[7],
                                           (float *)t[0], (float *)t[1], (float *)t[4],
                                           (float *)t[5], contrastive_shape(j, t));
}

static dip_status contrastive_saved(dip_exec *exec, const job *j, char *const t[])
{
    DIP_TRY(contrastive_features(exec, j, t));
    return contrastive_forward(exec, j, t);
}

static dip_status contrastive(dip_exec *exec, const job *j, char *const t[])
{
    DIP_TRY(contrastive_forward(exec, j, t));
    DIP_TRY(contrastive_backward(exec, j, t));
    return exec->ops->contrastive_loss(exec, (double *)t[8], (float *)t[4], (float *)t[5],
                                       (float *)t[6], j->contrastive.batch);
}

/* Products: 2 N^2 D forward, 6 N^2 D backward, which makes the tiles again. */
static const struct contrastive_part {
    const char *name;
    call_fn *call, *prepare;
    double flops;
    int reads, writes; /* of features and gradients */
} contrastive_parts[] = {
    {"contrastive_forward", contrastive_forward, contrastive_features, 2, 2, 0},
    {"contrastive_backward", contrastive_backward, contrastive_saved, 6, 2, 2},
    {"contrastive", contrastive, contrastive_features, 8, 4, 2},
};

static void bench_contrastive(int64_t n, int64_t e, bool once)
{
    static const float log_scale = 4.6051702f; /* 100, the largest in use */
    for (size_t i = once ? 2 : 0; i < 3; i++) {
        const struct contrastive_part *part = &contrastive_parts[i];
        job j = sized_job(part->name, "loss", part->call, n, e);
        j.prepare = part->prepare;
        j.once = once;
        j.contrastive = (dip_contrastive_shape){.batch = n, .embed = e, .log_scale = &log_scale};
        j.workspace = bench.exec.ops->contrastive_workspace(&bench.exec, j.contrastive);
        j.flops = part->flops * (double)n * (double)n * (double)e;
        j.features_bytes = 2.0 * (double)n * (double)e * F;
        add(&j, n * e, F, NOTHING, 0.5 * part->reads);
        add(&j, n * e, F, NOTHING, 0.5 * part->reads);
        add(&j, n * e, F, UNIT, 0.5 * part->writes);
        add(&j, n * e, F, UNIT, 0.5 * part->writes);
        for (int k = 0; k < 3; k++) writes(&j, n, F); /* both lse, the targets */
        writes(&j, 1, F);                             /* d_log_scale */
        writes(&j, 1, sizeof(double));                /* the loss */
        reads_host(&j, &log_scale, 1, F);
        double loss = 0;
        if (!run_job(&j) || part->call != contrastive) continue;
        const dip_status status = bench.exec.device->download(
            &bench.exec, &loss, bench.arena + j.tensors[8].offset, sizeof loss);
        if (status == DIP_OK && !isfinite(loss)) dip_fail(DIP_NUMERIC, "the loss is %f", loss);
        if (status != DIP_OK || !isfinite(loss)) failed(&j);
    }
}

/* ---- the optimizer ----------------------------------------------------------------------------
 */

static const dip_adamw_hyper hyper = {.beta1 = 0.9,
                                      .beta2 = 0.98,
                                      .eps = 1e-6,
                                      .weight_decay = 0.2,
                                      .clip_norm = 1,
                                      .ema_decay = 0.999};
static const dip_update update = {.n_updates = 100,
                                  .loss = 5,
                                  .grad_norm = 1,
                                  .lr = 1e-4f,
                                  .grad_scale = 1,
                                  .bias_correction1 = 1,
                                  .bias_correction2 = 0.87f,
                                  .applied = 1};

static dip_status adamw(dip_exec *exec, const job *j, char *const t[])
{
    return exec->ops->adamw(exec, (float *)t[0], t[1], (float *)t[2], (float *)t[3], (float *)t[4],
                            (float *)t[5], (const dip_update *)t[6], hyper, j->n);
}

static dip_status ema(dip_exec *exec, const job *j, char *const t[])
{
    return exec->ops->ema(exec, (float *)t[0], (float *)t[1], (const dip_update *)t[2], 0.999f,
                          j->n);
}

static dip_status sum_of_squares(dip_exec *exec, const job *j, char *const t[])
{
    return exec->ops->sum_of_squares(exec, (double *)t[0], (float *)t[1], j->n);
}

static dip_status cast_from_float(dip_exec *exec, const job *j, char *const t[])
{
    return exec->ops->cast_from_float(exec, t[0], (float *)t[1], j->n);
}

static dip_status cast_to_float(dip_exec *exec, const job *j, char *const t[])
{
    return exec->ops->cast_to_float(exec, (float *)t[0], t[1], j->n);
}

static job parameters_job(const char *name, call_fn *call, int64_t n)
{
    job j = make_job(name, "ViT-B-32", call, n);
    j.n = n;
    snprintf(j.shape, sizeof j.shape, "%lld", (long long)n);
    return j;
}

static void bench_optimizer(int64_t n)
{
    for (int averages = 0; averages < 2; averages++) {
        job j = parameters_job(averages ? "adamw_ema" : "adamw", adamw, n);
        updates(&j, n, F, SMALL); /* master */
        writes(&j, n, T);
        updates(&j, n, F, SMALL);
        updates(&j, n, F, POSITIVE);
        updates(&j, averages ? n : 0, F, SMALL);
        reads(&j, n, F, SMALL);
        reads_host(&j, &update, 1, sizeof update);
        run_job(&j);
    }
    job j = parameters_job("ema", ema, n);
    updates(&j, n, F, SMALL);
    reads(&j, n, F, SMALL);
    reads_host(&j, &update, 1, sizeof update);
    run_job(&j);
    j = parameters_job("sum_of_squares", sum_of_squares, n);
    writes(&j, 1, sizeof(double));
    reads(&j, n, F, SMALL);
    run_job(&j);
    j = parameters_job("cast_from_float", cast_from_float, n);
    writes(&j, n, T);
    reads(&j, n, F, SMALL);
    run_job(&j);
    j = parameters_job("cast_to_float", cast_to_float, n);
    writes(&j, n, F);
    reads(&j, n, T, SMALL);
    run_job(&j);
}

/* ---- the limits, and all of it ----------------------------------------------------------------
 */

static dip_status copy(dip_exec *exec, const job *j, char *const t[])
{
    return exec->device->copy(exec, t[0], t[1], j->tensors[1].n_bytes);
}

static dip_status measure_limits(void)
{
    const int64_t n_bytes = sized((int64_t)1 << 30, 1 << 20), side = sized(8192, 128);
    const product square = {.name = "square", .shape = {side, side, side, DIP_OUT_IN}};
    spread s, t;
    job j = make_job("copy", "limit", copy, n_bytes), m;
    writes(&j, n_bytes, 1);
    reads(&j, n_bytes, 1, UNIT);
    DIP_TRY(measure(&s, &j));
    bench.copy_rate = j.bytes / s.least;
    m = matmul_forward_job("matmul_limit", "limit", &square);
    DIP_TRY(measure(&t, &m));
    bench.matmul_rate = m.flops / t.least;
    print_figures(&j, s);
    print_figures(&m, t);
    return DIP_OK;
}

static int usage(void)
{
    fputs("usage: bench_cuda [--json] [--quick] [--device NAME] [--only TEXT]\n", stderr);
    return 2;
}

int main(int argc, char **argv)
{
    static const int64_t batches[] = {1024, 4096, 32768, 262144},
                         quick_batches[] = {1, 65, 96, 130};
    const char *device = "cuda";
    bench.only = "";
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            bench.json = true;
        } else if (strcmp(argv[i], "--quick") == 0) {
            bench.quick = true;
        } else if (i + 1 < argc && strcmp(argv[i], "--device") == 0) {
            device = argv[++i];
        } else if (i + 1 < argc && strcmp(argv[i], "--only") == 0) {
            bench.only = argv[++i];
        } else {
            return usage();
        }
    }
    if (dip_exec_open(&bench.exec, device, DIP_BF16, 0) != DIP_OK) {
        fprintf(stderr, "bench_cuda: %s\n", dip_error());
        return 2;
    }
    const double begin = now();
    print_begin();
    if (make_patterns() != DIP_OK || measure_limits() != DIP_OK) {
        bench.failures++;
        fprintf(stderr, "bench_cuda: the limits: %s\n", dip_error());
    } else {
        for (size_t i = 0; i < sizeof towers / sizeof towers[0]; i++) bench_tower(&towers[i]);
        bench_l2norm("features", sized(32768, 5), sized(512, HEAD_SIZE));
        bench_optimizer(sized(151277313, 10007));
        for (int i = 0; i < 4; i++)
            bench_contrastive(bench.quick ? quick_batches[i] : batches[i], sized(512, HEAD_SIZE),
                              i == 3);
    }
    print_end(now() - begin);
    bench_close();
    return bench.failures > 0;
}
