/* Ranks and accuracies against values worked out by hand and against brute force over the full
 * matrix of scores. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/rng.h"
#include "data/pattern.h"
#include "model/evaluate.h"
#include "model/scores.h"

#define SCRATCH TEST_BINARY_DIR "/scratch/test_evaluate"

/* ---- scores ---------------------------------------------------------------------------- */

static void test_scores_are_the_same_bits(void **state)
{
    (void)state;
    enum { E = 77, N = 61, M = 7 };
    static float columns[N][E], rows[M][E];
    _Alignas(DIP_SCORE_ALIGN) static float packed[E * DIP_SCORE_TILE], scores[M][DIP_SCORE_TILE];
    dip_rng rng;
    dip_rng_init(&rng, 1, dip_rng_stream(DIP_RNG_TEST, 0, 0));
    for (int e = 0; e < E; e++) {
        for (int i = 0; i < M; i++) rows[i][e] = (float)dip_rng_normal(&rng);
        for (int i = 0; i < N; i++) columns[i][e] = (float)dip_rng_normal(&rng);
    }
    dip_scores_pack(packed, columns[0], N, E);
    for (int m = 1; m <= M; m++) {
        memset(scores, 0x7f, sizeof scores);
        dip_scores_tile(scores[0], rows[0], m, packed, E);
        for (int r = 0; r < m; r++) {
            for (int i = 0; i < N; i++) {
                float naive = 0;
                for (int e = 0; e < E; e++) naive += rows[r][e] * columns[i][e];
                assert_memory_equal(&scores[r][i], &naive, sizeof naive);
                float one = dip_scores_dot(rows[r], columns[i], E);
                assert_memory_equal(&one, &naive, sizeof naive);
            }
            for (int i = N; i < DIP_SCORE_TILE; i++) assert_true(scores[r][i] == 0);
        }
    }
}

/* ---- recall ---------------------------------------------------------------------------- */

/* Three images on the axes of the plane, five texts; the scores are the texts' coordinates.
 *            image 0 (1,0)  image 1 (0,1)  image 2 (-1,0)
 *   t0 -> 0        0.9            0.1           -0.9      rank of its image 1
 *   t1 -> 0        0.2            0.5           -0.2      2
 *   t2 -> 1        0.4            0.3           -0.4      2
 *   t3 -> 2       -0.3            0.6            0.3      2
 *   t4 -> 1        0.6            0.6           -0.6      2: equal to image 0, which comes first
 * Best text of image 0: t0 (0.9), nothing above: rank 1.
 * Of image 1: t4 (0.6), and t3 has 0.6 with a lower index: rank 2.
 * Of image 2: t3 (0.3), nothing above: rank 1. */
static void test_recall_by_hand(void **state)
{
    (void)state;
    const float images[3][2] = {{1, 0}, {0, 1}, {-1, 0}};
    const float texts[5][2] = {
        {0.9f, 0.1f}, {0.2f, 0.5f}, {0.4f, 0.3f}, {-0.3f, 0.6f}, {0.6f, 0.6f}};
    const int64_t owner[5] = {0, 0, 1, 2, 1};
    for (int n_threads = 1; n_threads <= 3; n_threads++) {
        dip_recall r;
        assert_int_equal(dip_recall_compute(&r, images[0], 3, texts[0], owner, 5, 2, n_threads),
                         DIP_OK);
        assert_int_equal(r.n_images, 3);
        assert_int_equal(r.n_texts, 5);
        assert_true(r.text_to_image.recall[0] == 1.0 / 5);
        assert_true(r.text_to_image.recall[1] == 1);
        assert_true(r.text_to_image.recall[2] == 1);
        assert_true(r.text_to_image.mean_rank == 9.0 / 5);
        assert_int_equal(r.text_to_image.median_rank, 2);
        assert_true(r.image_to_text.recall[0] == 2.0 / 3);
        assert_true(r.image_to_text.recall[1] == 1);
        assert_true(r.image_to_text.mean_rank == 4.0 / 3);
        assert_int_equal(r.image_to_text.median_rank, 1);
        /* Chance: an image has 2, 2 and 1 of the 5 texts. */
        assert_true(fabs(r.text_to_image.chance[0] - 1.0 / 3) < 1e-15);
        assert_true(r.text_to_image.chance[1] == 1);
        assert_true(fabs(r.image_to_text.chance[0] - (0.4 + 0.4 + 0.2) / 3) < 1e-15);
        assert_true(r.image_to_text.chance[1] == 1);
    }
}

static void test_chance_of_several_texts(void **state)
{
    (void)state;
    /* 20 images with 2 texts each: a random first five of 40 misses both with probability
     * (35 * 34) / (40 * 39). */
    enum { N = 20 };
    float rows[2 * N] = {0};
    int64_t owner[2 * N];
    for (int i = 0; i < 2 * N; i++) owner[i] = i / 2;
    dip_recall r;
    assert_int_equal(dip_recall_compute(&r, rows, N, rows, owner, 2 * N, 1, 1), DIP_OK);
    assert_true(fabs(r.image_to_text.chance[1] - (1 - 35.0 * 34 / (40.0 * 39))) < 1e-12);
    assert_true(fabs(r.text_to_image.chance[1] - 5.0 / N) < 1e-12);
}

static void test_one_image(void **state)
{
    (void)state;
    const float row[2] = {0.6f, 0.8f};
    const int64_t owner = 0;
    dip_recall r;
    assert_int_equal(dip_recall_compute(&r, row, 1, row, &owner, 1, 2, 1), DIP_OK);
    for (int k = 0; k < DIP_N_RECALL_KS; k++) {
        assert_true(r.text_to_image.recall[k] == 1 && r.image_to_text.recall[k] == 1);
        assert_true(r.text_to_image.chance[k] == 1 && r.image_to_text.chance[k] == 1);
    }
    assert_int_equal(r.text_to_image.median_rank, 1);
    assert_true(r.image_to_text.mean_rank == 1);
}

/* All features equal: only the order decides, and the median of 1, 2, 3, 4 is 2.5, rounded down. */
static void test_all_tied(void **state)
{
    (void)state;
    const float rows[4] = {1, 1, 1, 1};
    const int64_t owner[4] = {0, 1, 2, 3};
    dip_recall r;
    assert_int_equal(dip_recall_compute(&r, rows, 4, rows, owner, 4, 1, 2), DIP_OK);
    assert_true(r.text_to_image.recall[0] == 0.25 && r.image_to_text.recall[0] == 0.25);
    assert_true(r.text_to_image.mean_rank == 2.5 && r.image_to_text.mean_rank == 2.5);
    assert_int_equal(r.text_to_image.median_rank, 2);
    assert_int_equal(r.image_to_text.median_rank, 2);
}

typedef struct brute {
    double t2i_hits[3], i2t_hits[3], t2i_sum, i2t_sum;
} brute;

static brute brute_force(const float *images, int64_t n_images, const float *texts,
                         const int64_t *owner, int64_t n_texts, int embed_dim)
{
    brute b = {{0}, {0}, 0, 0};
    float *scores = malloc((size_t)(n_images * n_texts) * sizeof *scores);
    for (int64_t t = 0; t < n_texts; t++)
        for (int64_t i = 0; i < n_images; i++) {
            float sum = 0;
            for (int e = 0; e < embed_dim; e++)
                sum += texts[t * embed_dim + e] * images[i * embed_dim + e];
            scores[t * n_images + i] = sum;
        }
    for (int64_t t = 0; t < n_texts; t++) {
        int64_t rank = 1;
        float own = scores[t * n_images + owner[t]];
        for (int64_t i = 0; i < n_images; i++) {
            float s = scores[t * n_images + i];
            rank += s > own || (s == own && i < owner[t]);
        }
        b.t2i_sum += (double)rank;
        for (int k = 0; k < 3; k++) b.t2i_hits[k] += rank <= dip_recall_ks[k];
    }
    for (int64_t i = 0; i < n_images; i++) {
        int64_t best = n_texts;
        for (int64_t t = 0; t < n_texts; t++) {
            if (owner[t] != i) continue;
            int64_t rank = 1;
            float own = scores[t * n_images + i];
            for (int64_t o = 0; o < n_texts; o++) {
                float s = scores[o * n_images + i];
                rank += s > own || (s == own && o < t);
            }
            if (rank < best) best = rank;
        }
        b.i2t_sum += (double)best;
        for (int k = 0; k < 3; k++) b.i2t_hits[k] += best <= dip_recall_ks[k];
    }
    free(scores);
    return b;
}

static void test_against_brute_force(void **state)
{
    (void)state;
    enum { MAX_IMAGES = 200, MAX_TEXTS = 800, E = 5 };
    float *images = malloc(sizeof(float) * MAX_IMAGES * E);
    float *texts = malloc(sizeof(float) * MAX_TEXTS * E);
    int64_t *owner = malloc(sizeof(int64_t) * MAX_TEXTS);
    dip_rng rng;
    dip_rng_init(&rng, 7, dip_rng_stream(DIP_RNG_TEST, 0, 1));
    const int64_t sizes[] = {1, 2, 63, 64, 65, 128, 129, 200};
    for (size_t c = 0; c < sizeof sizes / sizeof *sizes; c++) {
        int64_t n = sizes[c], n_texts = 0;
        /* Coarse values: many ties. One to four texts an image, in mixed order. */
        for (int64_t i = 0; i < n * E; i++) images[i] = (float)dip_rng_below(&rng, 3) - 1;
        for (int64_t i = 0; i < n; i++)
            for (int64_t left = 1 + (int64_t)dip_rng_below(&rng, 4); left > 0; left--)
                owner[n_texts++] = i;
        for (int64_t t = n_texts - 1; t > 0; t--) {
            int64_t other = (int64_t)dip_rng_below(&rng, (uint64_t)t + 1), kept = owner[t];
            owner[t] = owner[other];
            owner[other] = kept;
        }
        for (int64_t t = 0; t < n_texts * E; t++) texts[t] = (float)dip_rng_below(&rng, 3) - 1;
        brute b = brute_force(images, n, texts, owner, n_texts, E);
        for (int n_threads = 1; n_threads <= 4; n_threads++) {
            dip_recall r;
            assert_int_equal(dip_recall_compute(&r, images, n, texts, owner, n_texts, E, n_threads),
                             DIP_OK);
            for (int k = 0; k < 3; k++) {
                assert_true(r.text_to_image.recall[k] == b.t2i_hits[k] / (double)n_texts);
                assert_true(r.image_to_text.recall[k] == b.i2t_hits[k] / (double)n);
            }
            assert_true(r.text_to_image.mean_rank == b.t2i_sum / (double)n_texts);
            assert_true(r.image_to_text.mean_rank == b.i2t_sum / (double)n);
        }
    }
    free(owner);
    free(texts);
    free(images);
}

static void test_recall_refusals(void **state)
{
    (void)state;
    float images[2] = {1, 2}, texts[2] = {1, 2};
    int64_t owner[2] = {0, 0};
    dip_recall r;
    assert_int_equal(dip_recall_compute(&r, images, 2, texts, owner, 2, 1, 1), DIP_CONFIG);
    assert_non_null(strstr(dip_error(), "image 1 has no text"));
    owner[1] = 2;
    assert_int_equal(dip_recall_compute(&r, images, 2, texts, owner, 2, 1, 1), DIP_CONFIG);
    owner[1] = 1;
    assert_int_equal(dip_recall_compute(&r, images, 0, texts, owner, 2, 1, 1), DIP_CONFIG);
    texts[1] = NAN;
    assert_int_equal(dip_recall_compute(&r, images, 2, texts, owner, 2, 1, 1), DIP_NUMERIC);
    assert_non_null(strstr(dip_error(), "text 1"));
    images[0] = INFINITY;
    assert_int_equal(dip_recall_compute(&r, images, 2, texts, owner, 2, 1, 1), DIP_NUMERIC);
}

/* ---- zero-shot ------------------------------------------------------------------------- */

/* A stand-in for a text tower: the feature of a prompt is made from its letters. */
static dip_status letters(void *context, float *features, const char *const *texts, size_t n)
{
    int *n_calls = context;
    if (n_calls) ++*n_calls;
    for (size_t i = 0; i < n; i++) {
        float a = 1 + (float)(strchr(texts[i], 'a') != NULL), b = (float)strlen(texts[i]) - 4;
        float norm = sqrtf(a * a + b * b);
        features[2 * i] = a / norm;
        features[2 * i + 1] = b / norm;
    }
    return DIP_OK;
}

static void test_classifier(void **state)
{
    (void)state;
    char *names[] = {"cat", "dog", "ox"}, *prompts[] = {"{c}", "the {c} {c}"};
    const dip_string_list classes = {names, 3}, templates = {prompts, 2};
    float w[3][2];
    assert_int_equal(dip_classifier_build(w[0], &classes, &templates, letters, NULL, 2), DIP_OK);
    /* By hand: "cat" (2, -1), "the cat cat" (2, 7); "dog" (1, -1), "the dog dog" (1, 7). */
    const double expected[3][4] = {{2, -1, 2, 7}, {1, -1, 1, 7}, {1, -2, 1, 5}};
    for (int c = 0; c < 3; c++) {
        const double *v = expected[c];
        double n0 = hypot(v[0], v[1]), n1 = hypot(v[2], v[3]);
        double x = v[0] / n0 + v[2] / n1, y = v[1] / n0 + v[3] / n1, n = hypot(x, y);
        assert_true(fabs(w[c][0] - x / n) < 1e-6 && fabs(w[c][1] - y / n) < 1e-6);
    }
}

static void test_classifier_in_groups(void **state)
{
    (void)state;
    /* More prompts than are encoded at once: the groups must not show. */
    enum { N = 600 };
    char *names[N];
    for (int i = 0; i < N; i++) names[i] = dip_format("%0*d%s", 1 + i % 40, 1, i % 3 ? "" : "a");
    char *one[] = {"{c}"}, *two[] = {"{c}", "{c}"};
    const dip_string_list classes = {names, N}, templates = {one, 1}, repeated = {two, 2};
    float *single = malloc(sizeof(float) * 2 * N), *grouped = malloc(sizeof(float) * 2 * N);
    int n_calls = 0;
    assert_int_equal(dip_classifier_build(grouped, &classes, &repeated, letters, &n_calls, 2),
                     DIP_OK);
    assert_true(n_calls > 1 && n_calls < N);
    for (int i = 0; i < N; i++) {
        const dip_string_list alone = {&names[i], 1};
        assert_int_equal(dip_classifier_build(&single[2 * i], &alone, &templates, letters, NULL, 2),
                         DIP_OK);
        for (int e = 0; e < 2; e++)
            assert_true(fabsf(single[2 * i + e] - grouped[2 * i + e]) < 1e-6f);
        free(names[i]);
    }
    free(grouped);
    free(single);
}

static void test_accuracy(void **state)
{
    (void)state;
    /* Seven classes along one axis: the score of class c is feature * weight[c]. */
    const float weights[7] = {0.5f, 0.9f, 0.9f, 0.1f, 0.3f, 0.2f, 0.4f};
    const float features[6] = {1, 1, 1, 1, 1, -1};
    /* Order for 1: classes 1, 2, 0, 6, 4, 5, 3. For -1: 3, 5, 4, 6, 0, 1, 2. */
    const int64_t labels[6] = {1, 2, 4, 5, 1, 3};
    for (int n_threads = 1; n_threads <= 3; n_threads++) {
        dip_accuracy a;
        assert_int_equal(dip_accuracy_init(&a, weights, 7, 1), DIP_OK);
        assert_int_equal(dip_accuracy_add(&a, features, labels, 4, n_threads), DIP_OK);
        assert_int_equal(dip_accuracy_add(&a, features + 4, labels + 4, 2, n_threads), DIP_OK);
        dip_accuracy_scores s = dip_accuracy_read(&a);
        assert_int_equal(s.n, 6);
        assert_true(s.acc1 == 3.0 / 6); /* both of class 1, and class 3; 2 loses the tie */
        assert_true(s.acc5 == 5.0 / 6); /* class 5 comes sixth */
        /* Classes 1, 2, 3, 4, 5 occur; all right for 1 and 3. */
        assert_true(fabs(s.mean_per_class_recall - 2.0 / 5) < 1e-15);
        dip_accuracy_free(&a);
    }
}

static void test_accuracy_of_many_classes(void **state)
{
    (void)state;
    enum { C = 150 }; /* three tiles; features pick one class each */
    float *weights = calloc((size_t)C * C, sizeof *weights);
    float *features = calloc((size_t)C * C, sizeof *features);
    int64_t labels[C];
    for (int i = 0; i < C; i++) {
        weights[i * C + i] = features[i * C + i] = 1;
        labels[i] = i;
    }
    labels[149] = 5; /* wrong; class 5 is the sixth of the ties at zero behind class 149 */
    labels[148] = 3; /* wrong; class 3 is the fourth of them, so fifth in all */
    dip_accuracy a;
    assert_int_equal(dip_accuracy_init(&a, weights, C, C), DIP_OK);
    assert_int_equal(dip_accuracy_add(&a, features, labels, C, 2), DIP_OK);
    dip_accuracy_scores s = dip_accuracy_read(&a);
    assert_true(s.acc1 == 148.0 / C);
    assert_true(s.acc5 == 149.0 / C);
    dip_accuracy_free(&a);
    free(features);
    free(weights);
}

static void test_accuracy_refusals(void **state)
{
    (void)state;
    const float weights[2] = {1, -1};
    float feature = 1;
    int64_t label = 2;
    dip_accuracy a;
    assert_int_equal(dip_accuracy_init(&a, weights, 2, 1), DIP_OK);
    assert_int_equal(dip_accuracy_read(&a).n, 0);
    assert_true(dip_accuracy_read(&a).acc1 == 0);
    assert_int_equal(dip_accuracy_add(&a, &feature, &label, 1, 1), DIP_CONFIG);
    assert_non_null(strstr(dip_error(), "label 2"));
    label = -1;
    assert_int_equal(dip_accuracy_add(&a, &feature, &label, 1, 1), DIP_CONFIG);
    label = 1;
    feature = NAN;
    assert_int_equal(dip_accuracy_add(&a, &feature, &label, 1, 1), DIP_NUMERIC);
    assert_int_equal(dip_accuracy_add(&a, NULL, NULL, 0, 1), DIP_OK);
    assert_int_equal(dip_accuracy_read(&a).n, 0);
    dip_accuracy_free(&a);
}

/* ---- text files ------------------------------------------------------------------------ */

static dip_status read_names(dip_string_list *list, const char *text, size_t n, bool templates)
{
    const char *path = SCRATCH "/lines.txt";
    assert_int_equal(dip_file_write(path, text, n), DIP_OK);
    return templates ? dip_templates_read(list, path) : dip_classnames_read(list, path);
}
#define READ(list, text, templates) read_names(list, text, sizeof(text) - 1, templates)

static void test_text_files(void **state)
{
    (void)state;
    dip_string_list list;
    assert_int_equal(READ(&list,
                          "\xef\xbb\xbf"
                          "cat\r\n\n  \r\nhot dog\nm\xc3\xb6we",
                          false),
                     DIP_OK);
    assert_int_equal(list.n_items, 3);
    assert_string_equal(list.items[0], "cat");
    assert_string_equal(list.items[1], "hot dog");
    assert_string_equal(list.items[2], "m\xc3\xb6we");
    dip_string_list_free(&list);

    assert_int_equal(READ(&list, "a {c}\n\nno place\n", true), DIP_CONFIG);
    assert_non_null(strstr(dip_error(), "line 3"));
    assert_non_null(strstr(dip_error(), "{c}"));
    assert_int_equal(READ(&list, "a\nb\xff\n", false), DIP_CONFIG);
    assert_non_null(strstr(dip_error(), "line 2"));
    assert_int_equal(READ(&list, "a\0b\n", false), DIP_CONFIG);
    assert_non_null(strstr(dip_error(), "line 1"));
    assert_int_equal(READ(&list, "\n\n", false), DIP_CONFIG);
    assert_int_equal(READ(&list, "", false), DIP_CONFIG);
    assert_int_equal(dip_classnames_read(&list, SCRATCH "/missing.txt"), DIP_IO);

    assert_int_equal(READ(&list, "a {c} and {c}\n", true), DIP_OK);
    assert_int_equal(list.n_items, 1);
    dip_string_list_free(&list);
}

static int set_up(void **state)
{
    (void)state;
    return dip_remove_tree(SCRATCH) != DIP_OK || dip_make_dirs(SCRATCH) != DIP_OK;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scores_are_the_same_bits),
        cmocka_unit_test(test_recall_by_hand),
        cmocka_unit_test(test_chance_of_several_texts),
        cmocka_unit_test(test_one_image),
        cmocka_unit_test(test_all_tied),
        cmocka_unit_test(test_against_brute_force),
        cmocka_unit_test(test_recall_refusals),
        cmocka_unit_test(test_classifier),
        cmocka_unit_test(test_classifier_in_groups),
        cmocka_unit_test(test_accuracy),
        cmocka_unit_test(test_accuracy_of_many_classes),
        cmocka_unit_test(test_accuracy_refusals),
        cmocka_unit_test(test_text_files),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
