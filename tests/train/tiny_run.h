/* tiny_run.h - a small world to train in: 32 drawings with captions, a tokenizer, a model of 37,000
 * parameters, and runs of it that differ from run.json in what a test says. */
#ifndef DIP_TESTS_TRAIN_TINY_RUN_H
#define DIP_TESTS_TRAIN_TINY_RUN_H

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "core/log.h"
#include "core/scratch.h"
#include "data/image/image.h"
#include "data/shard/shard_writer.h"
#include "text/tokenizer.h"
#include "train/devices.h"
#include "train/trainer.h"

enum { TINY_SIDE = 16, TINY_COLOURS = 8, TINY_SHAPES = 4, TINY_PAIRS = TINY_COLOURS * TINY_SHAPES };

static const char *tiny_dir;

static const struct {
    const char *name;
    uint8_t rgb[3];
} tiny_colours[TINY_COLOURS] = {
    {"red", {220, 30, 30}},     {"green", {30, 180, 40}},   {"blue", {40, 60, 230}},
    {"white", {250, 250, 250}}, {"black", {10, 10, 10}},    {"yellow", {240, 230, 40}},
    {"orange", {250, 140, 20}}, {"violet", {150, 40, 200}},
};
static const char *const tiny_shapes[TINY_SHAPES] = {"square", "disc", "cross", "stripe"};

static inline int tiny_inside(int shape, int x, int y)
{
    const int dx = 2 * x - (TINY_SIDE - 1), dy = 2 * y - (TINY_SIDE - 1);
    switch (shape) {
    case 0:
        return abs(dx) < 10 && abs(dy) < 10;
    case 1:
        return dx * dx + dy * dy < 150;
    case 2:
        return abs(dx) < 4 || abs(dy) < 4;
    default:
        return (x + y) % 8 < 4;
    }
}

/* The last n_bad of them have a blank caption or half an image. */
static inline void tiny_write_shards(const char *pattern, int n_bad)
{
    dip_shard_writer *writer;
    assert_int_equal(dip_shard_writer_open(&writer, pattern, 12), DIP_OK);
    for (int i = 0; i < TINY_PAIRS; i++) {
        static const uint8_t ground[3] = {120, 120, 110};
        const int colour = i % TINY_COLOURS, shape = i / TINY_COLOURS;
        uint8_t pixels[TINY_SIDE][TINY_SIDE][3], *png;
        size_t n_bytes;
        for (int y = 0; y < TINY_SIDE; y++)
            for (int x = 0; x < TINY_SIDE; x++)
                memcpy(pixels[y][x], tiny_inside(shape, x, y) ? tiny_colours[colour].rgb : ground,
                       3);
        assert_int_equal(dip_png_encode(&png, &n_bytes, pixels[0][0], TINY_SIDE, TINY_SIDE, 3),
                         DIP_OK);
        char *text = dip_format("a %s %s\nthe %s one: %s\n", tiny_colours[colour].name,
                                tiny_shapes[shape], tiny_shapes[shape], tiny_colours[colour].name);
        const bool is_bad = i >= TINY_PAIRS - n_bad, half = is_bad && i % 2;
        const dip_shard_part parts[2] = {{"png", png, half ? n_bytes / 2 : n_bytes},
                                         {"txt", text, is_bad && !half ? 0 : strlen(text)}};
        assert_int_equal(dip_shard_writer_add(writer, parts, 2), DIP_OK);
        free(text);
        free(png);
    }
    assert_int_equal(dip_shard_writer_close(writer), DIP_OK);
}

static inline int tiny_next_caption(void *context, const char **line, size_t *n_bytes)
{
    static char text[64];
    int *i = context;
    if (*i >= TINY_PAIRS) return 0;
    *n_bytes =
        (size_t)snprintf(text, sizeof text, "the %s one: a %s %s", tiny_shapes[*i / TINY_COLOURS],
                         tiny_colours[*i % TINY_COLOURS].name, tiny_shapes[*i / TINY_COLOURS]);
    *line = text;
    (*i)++;
    return 1;
}

static inline void tiny_write_text(const char *path, const char *text)
{
    assert_int_equal(dip_file_write(path, text, strlen(text)), DIP_OK);
}

/* Make everything below TEST_BINARY_DIR/scratch/NAME_DEVICE. */
static inline void tiny_init(const char *name)
{
    int i = 0;
    char *folder = dip_format("%s_%s", name, device_under_test());
    tiny_dir = scratch_init(folder);
    free(folder);
    dip_log_set_quiet(true);
    char *shards = dip_format("%s/shards/{00..}.tar", tiny_dir);
    char *tokenizer = dip_format("%s/spm.model", tiny_dir);
    char *model = dip_format("%s/model.json", tiny_dir);
    char *run = dip_format("%s/run.json", tiny_dir);
    tiny_write_shards(shards, 0);
    const dip_tokenizer_train_options options = {.output = tokenizer,
                                                 .vocab_size = 60,
                                                 .model_type = "bpe",
                                                 .character_coverage = 1,
                                                 .next = tiny_next_caption,
                                                 .next_context = &i};
    if (dip_tokenizer_train(&options, NULL) != DIP_OK) fail_msg("%s", dip_error());
    tiny_write_text(model,
                    "{\"embed_dim\": 32,"
                    " \"vision_cfg\": {\"image_size\": 16, \"patch_size\": 4, \"width\": 32,"
                    "  \"head_width\": 16, \"layers\": 2, \"mlp_ratio\": 2},"
                    " \"text_cfg\": {\"context_length\": 12, \"vocab_size\": 60, \"width\": 32,"
                    "  \"heads\": 2, \"layers\": 1}}\n");
    char *text = dip_format(
        "{\"train_data\": \"%s/shards\", \"tokenizer\": \"%s\", \"model\": \"%s\","
        " \"logs\": \"%s/logs\", \"batch_size\": 8, \"epochs\": 3, \"warmup\": 4, \"lr\": 2e-3,"
        " \"wd\": 0.1, \"workers\": 2, \"threads\": 2, \"precision\": \"fp32\","
        " \"ema_decay\": 0.9, \"crop_scale_min\": 0.6, \"flip\": 0.5,"
        " \"caption_lines\": \"random\", \"max_skipped_steps\": 3, \"val_frequency\": 0,"
        " \"seed\": 5, \"device\": \"%s\"}\n",
        tiny_dir, tokenizer, model, tiny_dir, device_under_test());
    tiny_write_text(run, text);
    free(text);
    free(run);
    free(model);
    free(tokenizer);
    free(shards);
}

/* A run called NAME, with `flags` (words between single blanks) on top of run.json. The summary may
 * be NULL when it does not matter. */
static inline dip_status tiny_run(const char *name, const char *flags,
                                  const volatile sig_atomic_t *stop, cJSON **summary)
{
    static const volatile sig_atomic_t never = 0;
    enum { MAX_WORDS = 40 };
    char *words[MAX_WORDS], *copy = dip_format("--config %s/run.json --name %s%s%s", tiny_dir, name,
                                               *flags ? " " : "", flags);
    int n = 0;
    cJSON *ignored = NULL;
    dip_train_options options = {0};
    for (char *word = copy, *end; word && n < MAX_WORDS; word = end) {
        end = strchr(word, ' ');
        if (end) *end++ = '\0';
        words[n++] = word;
    }
    dip_status status = dip_config_defaults(&dip_train_option_table, &options);
    if (status == DIP_OK) status = dip_config_parse(&dip_train_option_table, &options, n, words);
    if (status == DIP_OK)
        status = dip_train_run(&options, stop ? stop : &never, summary ? summary : &ignored);
    cJSON_Delete(ignored);
    dip_config_free(&dip_train_option_table, &options);
    free(copy);
    return status;
}

static inline void tiny_run_ok(const char *name, const char *flags)
{
    if (tiny_run(name, flags, NULL, NULL) != DIP_OK) fail_msg("run %s: %s", name, dip_error());
}

/* LOGS/NAME/checkpoints/REST, to be freed. */
static inline char *tiny_path(const char *name, const char *rest)
{
    return dip_format("%s/logs/%s/checkpoints/%s", tiny_dir, name, rest);
}

static inline int tiny_has(const char *name, const char *rest)
{
    char *path = tiny_path(name, rest);
    const int has = dip_path_exists(path);
    free(path);
    return has;
}

/* Is a file of two checkpoints the same, byte for byte? */
static inline int tiny_same(const char *name, const char *other, const char *rest)
{
    char *paths[2] = {tiny_path(name, rest), tiny_path(other, rest)}, *data[2];
    size_t n[2];
    for (int i = 0; i < 2; i++)
        if (dip_file_read(&data[i], &n[i], paths[i], 1 << 26) != DIP_OK)
            fail_msg("%s", dip_error());
    const int same = n[0] == n[1] && memcmp(data[0], data[1], n[0]) == 0;
    for (int i = 0; i < 2; i++) {
        free(paths[i]);
        free(data[i]);
    }
    return same;
}

/* A number of a run's summary, metrics or trainer.json. */
static inline double tiny_figure(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!cJSON_IsNumber(item)) fail_msg("no figure %s", key);
    return item->valuedouble;
}

#endif
