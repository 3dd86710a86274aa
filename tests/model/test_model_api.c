/* The public API against features computed by open_clip (tests/golden/model_make.py), and every
 * way a folder can be wrong. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/json.h"
#include "data/image/image.h"
#include "golden_model.h"
#include "model/folder.h"
#include "model/model.h"
#include "model/safetensors.h"
#include "train/devices.h"

#define SCRATCH TEST_BINARY_DIR "/scratch/test_model_api"
#define COPY    SCRATCH "/copy"

enum { E = 16, N_IMAGES = 3, N_TEXTS = 6, MAX_TOKENS = 10 * N_TEXTS };

/* tests/golden/model/expected.json */
static struct {
    char *paths[N_IMAGES];
    float images[N_IMAGES][E];
    char *texts[N_TEXTS];
    float features[N_TEXTS][E];
    int32_t tokens[MAX_TOKENS], offsets[N_TEXTS + 1];
} expected;

static void read_floats(float out[E], const cJSON *object)
{
    const cJSON *array = cJSON_GetObjectItem(object, "features");
    assert_int_equal(cJSON_GetArraySize(array), E);
    for (int i = 0; i < E; i++) out[i] = (float)cJSON_GetArrayItem(array, i)->valuedouble;
}

static int set_up(void **state)
{
    (void)state;
    cJSON *root;
    if (dip_remove_tree(SCRATCH) != DIP_OK || dip_make_dirs(SCRATCH) != DIP_OK) return -1;
    if (dip_json_read(&root, GOLDEN "/expected.json") != DIP_OK) return -1;
    for (int i = 0; i < N_IMAGES; i++) {
        const cJSON *row = cJSON_GetArrayItem(cJSON_GetObjectItem(root, "images"), i);
        expected.paths[i] = dip_path_join(GOLDEN, cJSON_GetObjectItem(row, "file")->valuestring);
        read_floats(expected.images[i], row);
    }
    for (int i = 0; i < N_TEXTS; i++) {
        const cJSON *row = cJSON_GetArrayItem(cJSON_GetObjectItem(root, "texts"), i), *id;
        expected.texts[i] = strdup(cJSON_GetObjectItem(row, "text")->valuestring);
        read_floats(expected.features[i], row);
        expected.offsets[i + 1] = expected.offsets[i];
        cJSON_ArrayForEach(id, cJSON_GetObjectItem(row, "ids"))
            expected.tokens[expected.offsets[i + 1]++] = id->valueint;
    }
    cJSON_Delete(root);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (int i = 0; i < N_IMAGES; i++) free(expected.paths[i]);
    for (int i = 0; i < N_TEXTS; i++) free(expected.texts[i]);
    return 0;
}

static dip_model *open_golden(dip_model_options options)
{
    dip_model *model;
    if (!options.device) options.device = device_under_test();
    dip_status status = dip_model_open(&model, GOLDEN, &options);
    if (status != DIP_OK) print_error("%s\n", dip_error());
    assert_int_equal(status, DIP_OK);
    return model;
}

static void assert_close(const float *rows, const float *golden, int n, float tolerance)
{
    for (int i = 0; i < n; i++) {
        double square = 0;
        for (int e = 0; e < E; e++) {
            float x = rows[i * E + e];
            if (!(fabsf(x - golden[i * E + e]) <= tolerance))
                fail_msg("row %d element %d: %g, expected %g within %g", i, e, (double)x,
                         (double)golden[i * E + e], (double)tolerance);
            square += (double)x * x;
        }
        assert_true(fabs(square - 1) < 1e-5);
    }
}

/* All five ways in, on every backend and in both formats. fp32: a few roundings of sums of this
 * size. bf16: features have a spread of 1/4, a bf16 value 8 bits, and errors of five layers of
 * them add up; a wrong model is off by ten times as much. */
static void test_equals_open_clip(void **state)
{
    (void)state;
    const struct {
        const char *device, *precision;
        float tolerance;
    } ways[] = {
        {"reference", "fp32", 5e-6f},
        {device_under_test(), "fp32", 5e-6f},
        {"reference", "bf16", 3e-2f},
        {device_under_test(), "bf16", 3e-2f},
    };
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        float tolerance = ways[w].tolerance, rows[N_TEXTS][E];
        dip_model *model = open_golden(
            (dip_model_options){.device = ways[w].device, .precision = ways[w].precision});
        assert_string_equal(dip_model_precision(model), ways[w].precision);

        const char *const *paths = (const char *const *)expected.paths;
        assert_int_equal(dip_model_encode_image_files(model, rows[0], paths, N_IMAGES), DIP_OK);
        assert_close(rows[0], expected.images[0], N_IMAGES, tolerance);

        char *data[N_IMAGES];
        size_t n_bytes[N_IMAGES];
        for (int i = 0; i < N_IMAGES; i++)
            assert_int_equal(dip_file_read(&data[i], &n_bytes[i], paths[i], 1 << 20), DIP_OK);
        memset(rows, 0, sizeof rows);
        assert_int_equal(
            dip_model_encode_images(model, rows[0], (const void *const *)data, n_bytes, N_IMAGES),
            DIP_OK);
        assert_close(rows[0], expected.images[0], N_IMAGES, tolerance);

        dip_image_decoder *decoder; /* the first image has the model's size */
        dip_image image;
        dip_fault_kind kind;
        assert_int_equal(dip_image_decoder_open(&decoder, 1 << 20), DIP_OK);
        assert_int_equal(dip_image_decode(decoder, &image, &kind, (uint8_t *)data[0], n_bytes[0]),
                         DIP_OK);
        memset(rows, 0, sizeof rows);
        assert_int_equal(dip_model_encode_pixels(model, rows[0], image.rgb, 1), DIP_OK);
        assert_close(rows[0], expected.images[0], 1, tolerance);
        dip_image_decoder_close(decoder);
        for (int i = 0; i < N_IMAGES; i++) free(data[i]);

        const char *const *texts = (const char *const *)expected.texts;
        assert_int_equal(dip_model_encode_texts(model, rows[0], texts, N_TEXTS), DIP_OK);
        assert_close(rows[0], expected.features[0], N_TEXTS, tolerance);
        memset(rows, 0, sizeof rows);
        assert_int_equal(
            dip_model_encode_tokens(model, rows[0], expected.tokens, expected.offsets, N_TEXTS),
            DIP_OK);
        assert_close(rows[0], expected.features[0], N_TEXTS, tolerance);
        dip_model_close(model);
    }
}

static void test_queries(void **state)
{
    (void)state;
    dip_model *model;
    assert_int_equal(dip_model_open(&model, GOLDEN, NULL), DIP_OK);
    assert_int_equal(dip_model_embed_dim(model), E);
    assert_int_equal(dip_model_image_size(model), 16);
    assert_int_equal(dip_model_context_length(model), 10);
    assert_true(fabsf(dip_model_logit_scale(model) - 20) < 1e-4f);
    assert_string_equal(dip_model_precision(model),
                        dip_device_has_fast_bf16("auto") ? "bf16" : "fp32");
    dip_model_close(model);
    model = open_golden((dip_model_options){.device = "reference"});
    assert_string_equal(dip_model_precision(model), "fp32");
    dip_model_close(model);
    dip_model_close(NULL);
}

/* Small batches and other thread counts give the same features; so does taking nothing. */
static void test_chunks_and_threads(void **state)
{
    (void)state;
    const char *const *paths = (const char *const *)expected.paths;
    const char *const *texts = (const char *const *)expected.texts;
    for (int max_batch = 1; max_batch <= 4; max_batch++)
        for (int n_threads = 1; n_threads <= 3; n_threads++) {
            float rows[N_TEXTS][E];
            dip_model *model = open_golden((dip_model_options){
                .precision = "fp32", .max_batch = max_batch, .n_threads = n_threads});
            assert_int_equal(dip_model_encode_image_files(model, rows[0], paths, N_IMAGES), DIP_OK);
            assert_close(rows[0], expected.images[0], N_IMAGES, 5e-6f);
            assert_int_equal(dip_model_encode_texts(model, rows[0], texts, N_TEXTS), DIP_OK);
            assert_close(rows[0], expected.features[0], N_TEXTS, 5e-6f);
            memset(rows, 0, sizeof rows);
            assert_int_equal(
                dip_model_encode_tokens(model, rows[0], expected.tokens, expected.offsets, N_TEXTS),
                DIP_OK);
            assert_close(rows[0], expected.features[0], N_TEXTS, 5e-6f);
            assert_int_equal(dip_model_encode_image_files(model, NULL, NULL, 0), DIP_OK);
            assert_int_equal(dip_model_encode_images(model, NULL, NULL, NULL, 0), DIP_OK);
            assert_int_equal(dip_model_encode_pixels(model, NULL, NULL, 0), DIP_OK);
            assert_int_equal(dip_model_encode_texts(model, NULL, NULL, 0), DIP_OK);
            assert_int_equal(dip_model_encode_tokens(model, NULL, NULL, NULL, 0), DIP_OK);
            dip_model_close(model);
        }
}

/* ---- refusals -------------------------------------------------------------------------- */

#define ASSERT_SAYS(text)                                                                          \
    do {                                                                                           \
        if (!strstr(dip_error(), text)) fail_msg("'%s' does not say '%s'", dip_error(), text);     \
    } while (0)

static void assert_refused(const char *path, dip_status status, const char *says)
{
    dip_model *model = (dip_model *)&model;
    assert_int_equal(dip_model_open(&model, path, NULL), status);
    assert_null(model);
    ASSERT_SAYS(says);
}

static void test_bad_inputs(void **state)
{
    (void)state;
    dip_model *model = open_golden((dip_model_options){.max_batch = 2});
    float rows[4][E];
    assert_int_equal(dip_file_write(SCRATCH "/page.jpg", "<html>", 6), DIP_OK);
    assert_int_equal(dip_file_write(SCRATCH "/empty.png", "", 0), DIP_OK);
    const char *paths[] = {expected.paths[0], SCRATCH "/page.jpg", SCRATCH "/empty.png"};
    assert_int_equal(dip_model_encode_image_files(model, rows[0], paths, 3), DIP_FORMAT);
    ASSERT_SAYS("page.jpg");
    assert_int_equal(dip_model_encode_image_files(model, rows[0], paths + 2, 1), DIP_FORMAT);
    ASSERT_SAYS("empty.png");
    paths[1] = SCRATCH "/missing.png";
    assert_int_equal(dip_model_encode_image_files(model, rows[0], paths, 2), DIP_IO);
    ASSERT_SAYS("missing.png");
    paths[1] = NULL;
    assert_int_equal(dip_model_encode_image_files(model, rows[0], paths, 2), DIP_CONFIG);
    const void *data[] = {"GIF89a", NULL};
    const size_t n_bytes[] = {6, 0};
    assert_int_equal(dip_model_encode_images(model, rows[0], data, n_bytes, 2), DIP_FORMAT);
    ASSERT_SAYS("image 0");
    assert_int_equal(dip_model_encode_images(model, rows[0], data + 1, n_bytes + 1, 1), DIP_FORMAT);
    const char *texts[] = {"a", NULL};
    assert_int_equal(dip_model_encode_texts(model, rows[0], texts, 2), DIP_CONFIG);

    const int32_t eos = 27, tokens[] = {3, 4, eos, 5, 6};
    const int32_t fine[] = {0, 3}, open_end[] = {0, 3, 5}, empty[] = {0, 3, 3}, late[] = {1, 3};
    const int32_t twice[] = {eos, 4, eos}, outside[] = {28, eos}, negative[] = {-1, eos};
    const int32_t two[] = {0, 2}, three[] = {0, 3};
    assert_int_equal(dip_model_encode_tokens(model, rows[0], tokens, fine, 1), DIP_OK);
    assert_int_equal(dip_model_encode_tokens(model, rows[0], tokens, open_end, 2), DIP_FORMAT);
    ASSERT_SAYS("sequence 1");
    assert_int_equal(dip_model_encode_tokens(model, rows[0], tokens, empty, 2), DIP_FORMAT);
    assert_int_equal(dip_model_encode_tokens(model, rows[0], tokens, late, 1), DIP_FORMAT);
    assert_int_equal(dip_model_encode_tokens(model, rows[0], twice, three, 1), DIP_FORMAT);
    assert_int_equal(dip_model_encode_tokens(model, rows[0], outside, two, 1), DIP_FORMAT);
    assert_int_equal(dip_model_encode_tokens(model, rows[0], negative, two, 1), DIP_FORMAT);
    int32_t many[11];
    for (int i = 0; i < 11; i++) many[i] = i == 10 ? eos : 3;
    const int32_t eleven[] = {0, 11};
    assert_int_equal(dip_model_encode_tokens(model, rows[0], many, eleven, 1), DIP_FORMAT);
    ASSERT_SAYS("11");
    dip_model_close(model);
}

static void test_bad_options(void **state)
{
    (void)state;
    const dip_model_options bad[] = {{.precision = "fp8"},
                                     {.device = "abacus"},
                                     {.max_batch = -1},
                                     {.n_threads = -1},
                                     {.max_batch = 1 << 30}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        dip_model *model;
        assert_int_equal(dip_model_open(&model, GOLDEN, &bad[i]), DIP_CONFIG);
        assert_null(model);
        assert_true(strlen(dip_error()) > 10);
    }
}

static void test_bad_folders(void **state)
{
    (void)state;
    assert_refused(SCRATCH "/nowhere", DIP_CONFIG, "nowhere");
    assert_refused("", DIP_CONFIG, "no model folder");
    assert_refused(NULL, DIP_CONFIG, "no model folder");
    assert_refused(GOLDEN "/" DIP_CONFIG_FILE, DIP_CONFIG, "is a file");
    assert_refused(SCRATCH, DIP_CONFIG, "holds no model");
    char *path = malloc(5001);
    memset(path, 'x', 5000);
    path[5000] = '\0';
    assert_refused(path, DIP_CONFIG, "xxx");
    free(path);

    copy_model(COPY);
    unlink(COPY "/" DIP_WEIGHTS_FILE);
    unlink(COPY "/" DIP_TOKENIZER_FILE);
    assert_refused(COPY, DIP_CONFIG, DIP_WEIGHTS_FILE ", " DIP_TOKENIZER_FILE);

    copy_model(COPY);
    edit_file(COPY, DIP_CONFIG_FILE, "\"vocab_size\": 28", "\"vocab_size\": 29");
    assert_refused(COPY, DIP_FORMAT, "token_embedding.weight");

    /* Weights that agree with the configuration, a tokenizer that does not. */
    dip_clip clip;
    float *values;
    assert_int_equal(dip_folder_read(&clip, &values, GOLDEN, false), DIP_OK);
    free(values);
    dip_model_config config = clip.config;
    dip_clip_free(&clip);
    config.text.vocab_size = 29;
    assert_int_equal(dip_clip_init(&clip, &config), DIP_OK);
    values = calloc((size_t)clip.table.n_values, sizeof *values);
    assert_int_equal(dip_weights_write(COPY "/" DIP_WEIGHTS_FILE, &clip.table, values), DIP_OK);
    free(values);
    dip_clip_free(&clip);
    assert_refused(COPY, DIP_FORMAT, "28 pieces, the model 29");

    copy_model(COPY);
    edit_file(COPY, DIP_CONFIG_FILE, "\"vocab_size\": 28",
              "\"vocab_size\": 28, \"pool_type\": \"eos\", \"eos_id\": 5");
    assert_refused(COPY, DIP_FORMAT, "id 27, the model looks for 5");
    copy_model(COPY);
    edit_file(COPY, DIP_CONFIG_FILE, "\"vocab_size\": 28",
              "\"vocab_size\": 28, \"pool_type\": \"eos\", \"eos_id\": 27");
    dip_model *model;
    assert_int_equal(dip_model_open(&model, COPY, NULL), DIP_OK);
    dip_model_close(model);

    copy_model(COPY);
    edit_file(COPY, DIP_CONFIG_FILE, "\"layers\": 2", "\"layers\": 3");
    assert_refused(COPY, DIP_FORMAT, "visual.transformer.resblocks.2.");
    assert_int_equal(dip_file_write(COPY "/" DIP_TOKENIZER_FILE, "<html>", 6), DIP_OK);
    edit_file(COPY, DIP_CONFIG_FILE, "\"layers\": 3", "\"layers\": 2");
    assert_refused(COPY, DIP_FORMAT, DIP_TOKENIZER_FILE);
}

/* ---- folders --------------------------------------------------------------------------- */

static void encode_one(float *row, const char *path, int use_ema)
{
    dip_model *model;
    const char *text = "a red square";
    const dip_model_options options = {.precision = "fp32", .use_ema = use_ema};
    assert_int_equal(dip_model_open(&model, path, &options), DIP_OK);
    assert_int_equal(dip_model_encode_texts(model, row, &text, 1), DIP_OK);
    dip_model_close(model);
}

static void test_run_folders_and_links(void **state)
{
    (void)state;
    float row[E];
    const char *run = SCRATCH "/run";
    copy_model(SCRATCH "/run/checkpoints/epoch_2");
    assert_refused(run, DIP_CONFIG, "epoch_latest");
    assert_int_equal(symlink("epoch_2", SCRATCH "/run/checkpoints/epoch_latest"), 0);
    encode_one(row, run, 0);
    assert_close(row, expected.features[0], 1, 5e-6f);
    assert_int_equal(symlink("run", SCRATCH "/link"), 0);
    encode_one(row, SCRATCH "/link", 0);
    assert_close(row, expected.features[0], 1, 5e-6f);
    assert_int_equal(symlink("loop", SCRATCH "/loop"), 0);
    assert_refused(SCRATCH "/loop", DIP_CONFIG, "loop");
}

static void test_averaged_weights(void **state)
{
    (void)state;
    float online[E], averaged[E];
    dip_clip clip;
    float *values;
    copy_model(COPY);
    dip_model *model = (dip_model *)&model;
    const dip_model_options use_ema = {.use_ema = 1};
    assert_int_equal(dip_model_open(&model, COPY, &use_ema), DIP_CONFIG);
    assert_null(model);
    ASSERT_SAYS("no average of the weights (" DIP_EMA_FILE ")");
    assert_int_equal(dip_folder_read(&clip, &values, COPY, false), DIP_OK);
    for (int64_t i = 0; i < clip.table.n_values; i++) values[i] *= 0.9f;
    assert_int_equal(dip_weights_write(COPY "/" DIP_EMA_FILE, &clip.table, values), DIP_OK);
    free(values);
    dip_clip_free(&clip);
    encode_one(online, COPY, 0);
    encode_one(averaged, COPY, 1);
    assert_close(online, expected.features[0], 1, 5e-6f);
    assert_true(memcmp(online, averaged, sizeof online) != 0);
}

static void test_write_folder(void **state)
{
    (void)state;
    const char *out = SCRATCH "/exported";
    float row[E], *values;
    dip_clip clip;
    dip_tokenizer *tokenizer;
    assert_int_equal(dip_folder_read(&clip, &values, GOLDEN, false), DIP_OK);
    assert_int_equal(dip_folder_tokenizer(&tokenizer, &clip, GOLDEN), DIP_OK);
    assert_int_equal(dip_folder_write(out, &clip, values, tokenizer, false), DIP_OK);
    encode_one(row, out, 0);
    assert_close(row, expected.features[0], 1, 5e-6f);

    assert_int_equal(dip_folder_write(out, &clip, values, tokenizer, false), DIP_CONFIG);
    ASSERT_SAYS("exists");
    assert_int_equal(dip_file_write(SCRATCH "/exported/stale", "x", 1), DIP_OK);
    assert_int_equal(dip_folder_write(SCRATCH "/exported/", &clip, values, tokenizer, true),
                     DIP_OK);
    assert_false(dip_path_exists(SCRATCH "/exported/stale"));
    encode_one(row, out, 0);
    assert_close(row, expected.features[0], 1, 5e-6f);

    /* Never in the place of something else. */
    assert_int_equal(dip_file_write(SCRATCH "/a_file", "x", 1), DIP_OK);
    assert_int_equal(dip_folder_write(SCRATCH "/a_file", &clip, values, tokenizer, true),
                     DIP_CONFIG);
    assert_int_equal(dip_folder_write(SCRATCH, &clip, values, tokenizer, true), DIP_CONFIG);
    ASSERT_SAYS("holds no model");
    assert_int_equal(dip_file_write(SCRATCH "/exported/trainer.json", "{}", 2), DIP_OK);
    assert_int_equal(dip_folder_write(out, &clip, values, tokenizer, true), DIP_CONFIG);
    ASSERT_SAYS("training checkpoint");
    assert_int_equal(dip_folder_write(SCRATCH "/new/deep/model", &clip, values, tokenizer, false),
                     DIP_OK);
    assert_int_equal(dip_folder_write(SCRATCH "/a_file/model", &clip, values, tokenizer, false),
                     DIP_CONFIG);
    char *leftover = dip_format("%s.tmp-%ld", out, (long)getpid());
    assert_false(dip_path_exists(leftover));
    free(leftover);
    dip_tokenizer_close(tokenizer);
    dip_clip_free(&clip);
    free(values);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equals_open_clip),      cmocka_unit_test(test_queries),
        cmocka_unit_test(test_chunks_and_threads),    cmocka_unit_test(test_bad_inputs),
        cmocka_unit_test(test_bad_options),           cmocka_unit_test(test_bad_folders),
        cmocka_unit_test(test_run_folders_and_links), cmocka_unit_test(test_averaged_weights),
        cmocka_unit_test(test_write_folder),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
