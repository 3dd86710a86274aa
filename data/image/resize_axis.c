#include "data/image/resize_axis.h"

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
    free(axis->scratch);
}

/* A group of four weights as low[4], high[4]. */
static dip_status pack(dip_axis *a)
{
    enum { G = DIP_RESIZE_GROUP };
    const size_t n_weights = a->stride * (size_t)a->key.n;
    a->packed = dip_resize_room(a->packed, &a->packed_capacity, 2 * n_weights, sizeof *a->packed);
    if (!a->packed) {
        a->key.n = 0; /* the next one is new: its reader has not seen these taps */
        return dip_fail(DIP_NOMEM, "not enough memory to resize an image");
    }
    int16_t *packed = a->packed;
    for (size_t i = 0; i < n_weights; i += G, packed += 2 * G)
        for (int k = 0; k < G; k++) {
            packed[k] = (int16_t)(a->weights[i + (size_t)k] & ((1 << DIP_RESIZE_LOW_BITS) - 1));
            packed[G + k] = (int16_t)(a->weights[i + (size_t)k] >> DIP_RESIZE_LOW_BITS);
        }
    for (int i = 0; i < a->key.n; i++) a->taps[i].packed = a->packed + 2 * a->stride * (size_t)i;
    a->is_packed = true;
    return DIP_OK;
}

static bool same_key(const dip_axis_key *a, const dip_axis_key *b)
{
    return a->n == b->n && a->filter == b->filter && a->in == b->in && a->out == b->out &&
           a->first == b->first && a->from == b->from && a->length == b->length;
}

static dip_status weigh(dip_axis *a, const dip_axis_key *key, const dip_resize_kernels *kernels)
{
    const double scale = key->length / (double)key->out;
    const double reduction = scale < 1.0 ? 1.0 : scale;
    const double support = (key->filter == DIP_BILINEAR ? 1.0 : 2.0) * reduction;
    size_t n_taps = (size_t)ceil(support) * 2 + 1;
    if (n_taps > (size_t)key->in) n_taps = (size_t)key->in;
    const size_t stride = (n_taps + DIP_RESIZE_GROUP - 1) / DIP_RESIZE_GROUP * DIP_RESIZE_GROUP;
    const size_t n = (size_t)key->n;
    a->key.n = 0;
    a->is_packed = false;
    a->stride = stride;
    a->taps = dip_resize_room(a->taps, &a->taps_capacity, n, sizeof *a->taps);
    a->weights = dip_resize_room(a->weights, &a->weights_capacity, stride * n, sizeof *a->weights);
    a->scratch = dip_resize_room(a->scratch, &a->scratch_capacity, stride * DIP_RESIZE_LANES,
                                 sizeof *a->scratch);
    if (!a->taps || !a->weights || !a->scratch)
        return dip_fail(DIP_NOMEM, "not enough memory to resize an image");
    const dip_outputs outputs = {.first = key->first,
                                 .n = key->n,
                                 .in = (int)key->in,
                                 .from = key->from,
                                 .scale = scale,
                                 .support = support,
                                 .stretch = 1.0 / reduction,
                                 .is_cubic = key->filter != DIP_BILINEAR,
                                 .stride = stride};
    kernels->weigh(a->taps, a->weights, a->scratch, &outputs);
    a->key = *key;
    return DIP_OK;
}

dip_status dip_axis_prepare(dip_axis *a, const dip_axis_key *key, const dip_resize_kernels *kernels,
                            bool packed, bool *is_new)
{
    *is_new = !same_key(&a->key, key);
    if (*is_new) DIP_TRY(weigh(a, key, kernels));
    return packed && !a->is_packed ? pack(a) : DIP_OK;
}
