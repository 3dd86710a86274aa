#include "kernels/cuda/fp8.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/matmul_plan.h"

enum { OLDEST_CAPABILITY = 89, ALIGNMENT = 256 };

/* A weight's scalings. */
enum { INPUT, WEIGHT, GRADIENT, N_TENSORS };

struct dip_cuda_fp8 {
    dip_fp8_weight *weights;
    int n_weights;
    bool paused;
    dip_fp8_scaling *scalings; /* on the device: [n_weights][N_TENSORS] */
};

static struct dip_cuda_fp8 *fp8_of(const dip_exec *exec)
{
    return dip_cuda_of(exec)->matmul->fp8;
}

/* ---- choosing weights --------------------------------------------------------------------- */

static dip_status check(const dip_exec *exec)
{
    const dip_cuda *cuda = dip_cuda_of(exec);
    if (exec->ops->dtype != DIP_BF16)
        return dip_fail(DIP_UNSUPPORTED, "products in fp8 are for an executor of bf16, not of %s",
                        dip_dtype_name(exec->ops->dtype));
    if (cuda->compute_capability >= OLDEST_CAPABILITY) return DIP_OK;
    return dip_fail(DIP_UNSUPPORTED,
                    "products in fp8 need compute capability %d.%d (Ada, Hopper or newer): %s, %s, "
                    "has %d.%d",
                    OLDEST_CAPABILITY / 10, OLDEST_CAPABILITY % 10, exec->device->name, cuda->name,
                    cuda->compute_capability / 10, cuda->compute_capability % 10);
}

static dip_status upload_scalings(dip_exec *exec, struct dip_cuda_fp8 *fp8)
{
    const int n = fp8->n_weights * N_TENSORS;
    const size_t n_bytes = (size_t)n * sizeof *fp8->scalings;
    void *device;
    DIP_TRY(exec->device->allocate(exec->device, &device, n_bytes));
    fp8->scalings = device;
    dip_fp8_scaling *host = calloc((size_t)n + 1, sizeof *host);
    if (!host) return dip_fail(DIP_NOMEM, "no memory for %d scales", n);
    for (int i = 0; i < n; i++)
        host[i].largest = i % N_TENSORS == GRADIENT ? DIP_E5M2_LARGEST : DIP_E4M3_LARGEST;
    const dip_status status = exec->device->upload(exec, device, host, n_bytes);
    free(host);
    return status;
}

dip_status dip_cuda_use_fp8(dip_exec *exec, const dip_fp8_weight *weights, int n_weights,
                            int64_t max_rows)
{
    dip_status status;
    DIP_TRY(check(exec));
    DIP_TRY(dip_exec_reserve(exec, dip_fp8_workspace(weights, n_weights, max_rows)));
    struct dip_cuda_fp8 *fp8 = calloc(1, sizeof *fp8);
    if (!fp8) return dip_fail(DIP_NOMEM, "no memory for %d weights", n_weights);
    fp8->n_weights = n_weights;
    fp8->weights = calloc((size_t)n_weights + 1, sizeof *weights);
    if (!fp8->weights) {
        status = dip_fail(DIP_NOMEM, "no memory for %d weights", n_weights);
        goto fail;
    }
    if (n_weights > 0) memcpy(fp8->weights, weights, (size_t)n_weights * sizeof *weights);
    DIP_TRY_GOTO(upload_scalings(exec, fp8));
    DIP_TRY_GOTO(exec->device->synchronize(exec)); /* products may still use the old scales */
    dip_cuda_fp8_close(fp8_of(exec), exec->device);
    dip_cuda_of(exec)->matmul->fp8 = fp8;
    return DIP_OK;
fail:
    dip_cuda_fp8_close(fp8, exec->device);
    return status;
}

void dip_cuda_pause_fp8(dip_exec *exec, int paused)
{
    if (fp8_of(exec)) fp8_of(exec)->paused = paused != 0;
}

void dip_cuda_fp8_close(struct dip_cuda_fp8 *fp8, const dip_device *device)
{
    if (!fp8) return;
    device->release(device, fp8->scalings);
    free(fp8->weights);
    free(fp8);
}

void dip_cuda_fp8_step(dip_exec *exec)
{
    const struct dip_cuda_fp8 *fp8 = fp8_of(exec);
    if (fp8) dip_cuda_fp8_push_maxima(exec, fp8->scalings, fp8->n_weights * N_TENSORS);
}

/* ---- products ----------------------------------------------------------------------------- */

/* The scalings of the weight; NULL: it is none of the chosen. */
static dip_fp8_scaling *find(const struct dip_cuda_fp8 *fp8, dip_fp8_pass pass, const void *weight)
{
    for (int i = 0; i < fp8->n_weights; i++) {
        const dip_fp8_weight *at = &fp8->weights[i];
        if ((pass == DIP_FP8_WEIGHT_GRADIENT ? (const void *)at->d_w : at->w) == weight)
            return fp8->scalings + (ptrdiff_t)i * N_TENSORS;
    }
    return NULL;
}

/* What fp8.h says a product must be. */
static bool is_possible(const dip_cuda_product *product, const dip_cuda_operands *operands)
{
    const uintptr_t addresses = (uintptr_t)operands->a | (uintptr_t)operands->b |
                                (uintptr_t)operands->c | (uintptr_t)operands->d;
    const int64_t sizes = product->m | product->n | product->k;
    return product->inputs_bf16 && addresses % 16 == 0 && sizes % DIP_FP8_MULTIPLE == 0;
}

static size_t padded(int64_t n_bytes)
{
    return ((size_t)n_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* The copy of an operand as [rows, columns], or turned into that. */
static dip_fp8_copy copy_of(const void *in, uint8_t *out, int64_t rows, int64_t columns,
                            bool turned)
{
    return (dip_fp8_copy){.in = in,
                          .rows = turned ? columns : rows,
                          .columns = turned ? rows : columns,
                          .straight = turned ? NULL : out,
                          .turned = turned ? out : NULL};
}

void dip_cuda_fp8_take(dip_exec *exec, dip_fp8_pass pass, const void *weight,
                       dip_weight_layout layout, dip_cuda_product *product,
                       dip_cuda_operands *operands)
{
    const struct dip_cuda_fp8 *fp8 = fp8_of(exec);
    if (!fp8 || fp8->paused || layout != DIP_OUT_IN || !is_possible(product, operands)) return;
    dip_fp8_scaling *const scalings = find(fp8, pass, weight);
    const int64_t m = product->m, n = product->n, k = product->k;
    const size_t a_bytes = padded(m * k);
    if (!scalings || a_bytes + padded(n * k) > exec->workspace_bytes) return;

    uint8_t *const a = exec->workspace, *const b = a + a_bytes;
    dip_fp8_copy copies[2] = {
        copy_of(operands->a, a, m, k, pass != DIP_FP8_FORWARD),
        copy_of(operands->b, b, n, k, pass == DIP_FP8_WEIGHT_GRADIENT),
    };
    copies[0].scaling = &scalings[pass == DIP_FP8_WEIGHT_GRADIENT ? INPUT : WEIGHT];
    copies[1].scaling = &scalings[pass == DIP_FP8_FORWARD ? INPUT : GRADIENT];
    copies[1].is_e5m2 = pass != DIP_FP8_FORWARD;
    dip_cuda_fp8_make_copies(exec, copies);

    product->a_fp8 = DIP_FP8_E4M3;
    product->b_fp8 = pass == DIP_FP8_FORWARD ? DIP_FP8_E4M3 : DIP_FP8_E5M2;
    product->inputs_bf16 = false;
    product->transpose_a = true;
    product->transpose_b = false;
    operands->a = a;
    operands->b = b;
    operands->a_scale = &copies[0].scaling->inverse;
    operands->b_scale = &copies[1].scaling->inverse;
}
