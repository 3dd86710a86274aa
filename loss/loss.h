/* loss.h - what an objective is: features of the whole batch in, their gradients out.
 *
 * A loss sees features and never a tower. Gradients come back correctly scaled, whatever the number
 * of micro-batches the features were computed in: the trainer adds nothing. It only calls ops: its
 * value lies on the device, and a step with it can be recorded.
 *
 * Usage:   dip_loss_find("infonce"); workspace; forward_backward.
 * Errors:  what its ops report.                                                              */
#ifndef DIP_LOSS_LOSS_H
#define DIP_LOSS_LOSS_H

#include <stdint.h>

#include "kernels/ops.h"

typedef struct dip_loss_input {
    const float *u, *v;        /* [B, E] on the device: image and text features of unit length */
    const int32_t *group;      /* [B] on the device: equal numbers = identical captions; or NULL */
    dip_duplicates duplicates; /* what identical captions are to each other */
    int64_t batch, embed;      /* B, E */
    const float *log_scale;    /* [1] on the device: log of the factor on the cosine */
} dip_loss_input;

/* Device memory for the results. */
typedef struct dip_loss_output {
    float *d_u, *d_v;     /* [B, E] */
    float *d_logit_scale; /* [1], of the log */
    float *stats;         /* scratch of stats_floats(B) floats */
    double *loss;         /* [1]: mean over the batch */
} dip_loss_output;

typedef struct dip_loss {
    const char *name;
    int64_t (*stats_floats)(int64_t batch);
    size_t (*workspace)(const dip_exec *exec, int64_t batch, int64_t embed,
                        dip_duplicates duplicates);
    /* d_u == NULL: the value only. */
    dip_status (*forward_backward)(dip_exec *exec, dip_loss_output *out, const dip_loss_input *in);
} dip_loss;

/* The registry, in loss.c. NULL if there is no such name. */
const dip_loss *dip_loss_find(const char *name);
const dip_loss *const *dip_loss_all(size_t *n);

#endif
