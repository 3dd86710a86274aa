/* step_world.h - a small model and batches of pairs for tests of the step itself. */
#ifndef DIP_TESTS_TRAIN_STEP_WORLD_H
#define DIP_TESTS_TRAIN_STEP_WORLD_H

#include <string.h>

#include "core/rng.h"
#include "train/devices.h"
#include "train/step.h"

enum { BATCH = 12, SIZE = 8, CONTEXT = 9, VOCAB = 13, N_BATCHES = 7 };

/* Pairs of different lengths: every batch has another number of tokens. */
typedef struct pairs {
    uint8_t images[BATCH * SIZE * SIZE * 3];
    int32_t tokens[BATCH * CONTEXT], offsets[BATCH + 1], group[BATCH];
    dip_batch batch;
} pairs;

typedef struct world {
    dip_clip clip;
    pairs of[N_BATCHES];
} world;

static inline void make_pairs(pairs *p, int number)
{
    dip_rng rng;
    dip_rng_init(&rng, 17, dip_rng_stream(DIP_RNG_TEST, 0, (uint64_t)number));
    for (size_t i = 0; i < sizeof p->images; i++) p->images[i] = (uint8_t)dip_rng_below(&rng, 256);
    for (int i = 0; i < BATCH; i++) {
        /* batches 0, 2, ... of short texts, the others of long ones; the last as long as can be */
        int length = 1 + (int)dip_rng_below(&rng, 4) + (number % 2 ? CONTEXT - 4 : 0);
        if (number == N_BATCHES - 1) length = CONTEXT;
        for (int j = 0; j < length - 1; j++)
            p->tokens[p->offsets[i] + j] = (int32_t)dip_rng_below(&rng, VOCAB - 1);
        p->tokens[p->offsets[i] + length - 1] = VOCAB - 1;
        p->offsets[i + 1] = p->offsets[i] + length;
        p->group[i] = i;
    }
    p->group[7] = 3;
    p->batch = (dip_batch){.n = BATCH,
                           .images = p->images,
                           .tokens = p->tokens,
                           .offsets = p->offsets,
                           .group = p->group};
}

static inline world *open_world(void)
{
    static world w;
    dip_model_config config = {.embed_dim = 16, .init_logit_scale = 2};
    config.vision = (dip_vision_config){.image_size = SIZE,
                                        .patch_size = 4,
                                        .width = 32,
                                        .layers = 2,
                                        .head_width = 16,
                                        .mlp_ratio = 2,
                                        .norm_eps = 1e-5,
                                        .activation = DIP_ACT_GELU};
    config.text = (dip_text_config){.context_length = CONTEXT,
                                    .vocab_size = VOCAB,
                                    .width = 32,
                                    .heads = 2,
                                    .layers = 2,
                                    .mlp_ratio = 2,
                                    .eos_id = -1,
                                    .norm_eps = 1e-5,
                                    .activation = DIP_ACT_GELU};
    for (int i = 0; i < 3; i++) config.preprocess.std[i] = 0.3f;
    memset(&w, 0, sizeof w);
    assert_int_equal(dip_clip_init(&w.clip, &config), DIP_OK);
    for (int i = 0; i < N_BATCHES; i++) make_pairs(&w.of[i], i);
    return &w;
}

static inline dip_step_options usual(const char *device, dip_dtype dtype)
{
    return (dip_step_options){
        .device = device,
        .dtype = dtype,
        .n_threads = 2,
        .micro_batch = BATCH,
        .n_micro = 1,
        .loss = dip_loss_find("infonce"),
        .duplicates = DIP_DUP_POSITIVE,
        .optimizer = {
            .beta1 = 0.9, .beta2 = 0.98, .eps = 1e-3, .weight_decay = 0.1, .ema_decay = 0.5}};
}

static inline void open_step(dip_step *step, const world *w, const dip_step_options *options)
{
    if (dip_step_open(step, &w->clip, options) != DIP_OK) fail_msg("%s", dip_error());
    assert_int_equal(dip_step_init_weights(step, 3), DIP_OK);
}

#endif
