/* Every image has a crop of its own, so that this is done for each: in passes over all weights of
 * the axis, which the compiler turns into vectors, rather than output by output. */
#include "data/resize_axis.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void *dip_resize_room(void *old, size_t *capacity, size_t n, size_t item_bytes)
{
    if (old && n <= *capacity) return old;
    free(old);
    void *fresh = calloc(n, item_bytes);
    *capacity = fresh ? n : 0;
    return fresh;
}

void dip_axis_free(dip_axis *axis)
{
    free(axis->taps);
    free(axis->weights);
    free(axis->packed);
    free(axis->exact);
}

/* The distance of every tap from its output's centre, in the filter's units. `stride` taps an
 * output; those beyond its own lie outside the filter and become 0. */
static void place_taps(dip_axis *a, size_t stride, double scale, double stretch, double support)
{
    for (int i = 0; i < a->key.n; i++) {
        const double centre = a->key.from + ((double)(a->key.first + i) + 0.5) * scale;
        int64_t low = (int64_t)(centre - support + 0.5), high = (int64_t)(centre + support + 0.5);
        if (low < 0) low = 0;
        if (high > a->key.in) high = a->key.in;
        a->taps[i] = (dip_taps){.first = (int)low,
                                .n = (int)(high - low),
                                .weights = a->weights + stride * (size_t)i,
                                .packed = a->packed + 2 * stride * (size_t)i};
        double *distances = a->exact + stride * (size_t)i;
        const int n = a->taps[i].n, n_all = (int)stride, from = (int)low;
        for (int k = 0; k < n; k++) distances[k] = fabs((k + from - centre + 0.5) * stretch);
        for (int k = n; k < n_all; k++) distances[k] = 2.0;
    }
}

/* Keys' cubic convolution with a = -1/2, and the triangle, of distances. */
static void weigh(double *t, size_t n, dip_filter filter)
{
    if (filter == DIP_BILINEAR) {
        for (size_t i = 0; i < n; i++) t[i] = t[i] < 1.0 ? 1.0 - t[i] : 0.0;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const double x = t[i], near = (1.5 * x - 2.5) * x * x + 1.0;
        const double far = (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5;
        t[i] = x < 1.0 ? near : x < 2.0 ? far : 0.0;
    }
}

static void normalise(dip_axis *a, size_t stride)
{
    for (int i = 0; i < a->key.n; i++) {
        double *exact = a->exact + stride * (size_t)i, total = 0.0;
        for (int k = 0; k < a->taps[i].n; k++) total += exact[k];
        for (size_t k = 0; k < stride; k++) exact[k] = exact[k] / total * (1 << DIP_RESIZE_BITS);
    }
}

static void round_all(int32_t *weights, const double *exact, size_t n)
{
    for (size_t i = 0; i < n; i++) weights[i] = (int32_t)(exact[i] + (exact[i] < 0.0 ? -0.5 : 0.5));
}

/* A group of four weights as low[4], high[4]. */
static void pack(int16_t *packed, const int32_t *weights, size_t n)
{
    enum { G = DIP_RESIZE_GROUP };
    for (size_t i = 0; i < n; i += G, packed += 2 * G)
        for (int k = 0; k < G; k++) {
            packed[k] = (int16_t)(weights[i + (size_t)k] & ((1 << DIP_RESIZE_LOW_BITS) - 1));
            packed[G + k] = (int16_t)(weights[i + (size_t)k] >> DIP_RESIZE_LOW_BITS);
        }
}

static bool same_key(const dip_axis_key *a, const dip_axis_key *b)
{
    return a->n == b->n && a->filter == b->filter && a->in == b->in && a->out == b->out &&
           a->first == b->first && a->from == b->from && a->length == b->length;
}

dip_status dip_axis_prepare(dip_axis *a, const dip_axis_key *key, bool *is_new)
{
    *is_new = !same_key(&a->key, key);
    if (!*is_new) return DIP_OK;
    const double scale = key->length / (double)key->out;
    const double reduction = scale < 1.0 ? 1.0 : scale;
    const double support = (key->filter == DIP_BILINEAR ? 1.0 : 2.0) * reduction;
    size_t n_taps = (size_t)ceil(support) * 2 + 1;
    if (n_taps > (size_t)key->in) n_taps = (size_t)key->in;
    const size_t stride = (n_taps + DIP_RESIZE_GROUP - 1) / DIP_RESIZE_GROUP * DIP_RESIZE_GROUP;
    const size_t n = (size_t)key->n, n_weights = stride * n;
    a->key.n = 0;
    a->taps = dip_resize_room(a->taps, &a->taps_capacity, n, sizeof *a->taps);
    a->weights = dip_resize_room(a->weights, &a->weights_capacity, n_weights, sizeof *a->weights);
    a->packed = dip_resize_room(a->packed, &a->packed_capacity, 2 * n_weights, sizeof *a->packed);
    a->exact = dip_resize_room(a->exact, &a->exact_capacity, n_weights, sizeof *a->exact);
    if (!a->taps || !a->weights || !a->packed || !a->exact)
        return dip_fail(DIP_NOMEM, "not enough memory to resize an image");
    a->key = *key;
    place_taps(a, stride, scale, 1.0 / reduction, support);
    weigh(a->exact, n_weights, key->filter);
    normalise(a, stride);
    round_all(a->weights, a->exact, n_weights);
    pack(a->packed, a->weights, n_weights);
    return DIP_OK;
}
