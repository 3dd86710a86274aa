/* The reference loops; see resize_kernels.h. */
#include <math.h>

#include "data/image/resize_kernels.h"

static double cubic(double x)
{
    const double near = (1.5 * x - 2.5) * x * x + 1.0;
    const double far = (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5;
    return x < 1.0 ? near : x < 2.0 ? far : 0.0;
}

static double triangle(double x)
{
    return x < 1.0 ? 1.0 - x : 0.0;
}

void dip_resize_weigh_c(dip_taps *taps, int32_t *weights, double *scratch, const dip_outputs *o)
{
    for (int i = 0; i < o->n; i++, weights += o->stride) {
        const double centre = o->from + ((double)(o->first + i) + 0.5) * o->scale;
        int low = (int)(centre - o->support + 0.5), high = (int)(centre + o->support + 0.5);
        if (low < 0) low = 0;
        if (high > o->in) high = o->in;
        const int n = high - low;
        double total = 0.0;
        for (int k = 0; k < n; k++) {
            const double x = fabs((low + k - centre + 0.5) * o->stretch);
            scratch[k] = o->is_cubic ? cubic(x) : triangle(x);
            total += scratch[k];
        }
        for (int k = 0; k < n; k++) {
            const double exact = scratch[k] / total * (1 << DIP_RESIZE_BITS);
            weights[k] = (int32_t)(exact + (exact < 0.0 ? -0.5 : 0.5));
        }
        for (size_t k = (size_t)n; k < o->stride; k++) weights[k] = 0;
        taps[i] = (dip_taps){.first = low, .n = n, .weights = weights};
    }
}

static uint8_t clip(int32_t sum)
{
    int32_t value = sum >> DIP_RESIZE_BITS;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

static void horizontal(uint8_t *const dst[4], const uint8_t *const rows[4],
                       const dip_columns *columns)
{
    const dip_taps *taps = columns->taps;
    const int n_cols = columns->n, flip = columns->flip;
    for (int r = 0; r < 4; r++) {
        if (r > 0 && dst[r] == dst[r - 1]) continue;
        for (int x = 0; x < n_cols; x++) {
            const uint8_t *src = rows[r] + 3 * (size_t)taps[x].first;
            int32_t sum[3];
            for (int c = 0; c < 3; c++) sum[c] = 1 << (DIP_RESIZE_BITS - 1);
            for (int k = 0; k < taps[x].n; k++, src += 3)
                for (int c = 0; c < 3; c++) sum[c] += src[c] * taps[x].weights[k];
            uint8_t *out = dst[r] + 3 * (size_t)(flip ? n_cols - 1 - x : x);
            for (int c = 0; c < 3; c++) out[c] = clip(sum[c]);
        }
    }
}

static void vertical(uint8_t *dst, const uint8_t *src, size_t src_stride, size_t n_bytes,
                     const dip_taps *taps)
{
    src += (size_t)taps->first * src_stride;
    for (size_t i = 0; i < n_bytes; i++) {
        int32_t sum = 1 << (DIP_RESIZE_BITS - 1);
        for (int k = 0; k < taps->n; k++) sum += src[(size_t)k * src_stride + i] * taps->weights[k];
        dst[i] = clip(sum);
    }
}

const dip_resize_kernels *dip_resize_kernels_c(void)
{
    static const dip_resize_kernels kernels = {
        .name = "c", .weigh = dip_resize_weigh_c, .horizontal = horizontal, .vertical = vertical};
    return &kernels;
}
