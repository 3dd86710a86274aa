#include "model/evaluate.h"

#include <math.h>
#include <stdlib.h>

#include "core/threads.h"
#include "model/scores.h"

const int dip_recall_ks[DIP_N_RECALL_KS] = {1, 5, 10};

/* What a query's candidates are measured against: the score and the index of its answer. */
typedef struct mark {
    float score;
    int64_t index;
} mark;

typedef struct sweep {
    const float *images, *texts;
    int64_t n_images, n_texts;
    int embed_dim;
    mark *text_marks;     /* [n_texts] score of the text's own image */
    mark *image_marks;    /* [n_images] the image's best text */
    int64_t *text_ahead;  /* [n_texts] candidates in front of the answer */
    int64_t *image_ahead; /* [n_images] */
    float *packed;        /* [E][DIP_SCORE_TILE] */
} sweep;

static dip_status check_finite(const float *rows, int64_t n_rows, int embed_dim, const char *what)
{
    for (int64_t i = 0; i < n_rows * embed_dim; i++)
        if (!isfinite(rows[i]))
            return dip_fail(DIP_NUMERIC, "the feature of %s %lld is not finite (element %lld)",
                            what, (long long)(i / embed_dim), (long long)(i % embed_dim));
    return DIP_OK;
}

/* The answers' own scores. Of an image's texts the best one counts; of two equal, the first. */
static dip_status set_marks(sweep *s, const int64_t *text_image)
{
    for (int64_t i = 0; i < s->n_images; i++) s->image_marks[i].index = -1;
    for (int64_t t = 0; t < s->n_texts; t++) {
        int64_t i = text_image[t];
        if (i < 0 || i >= s->n_images)
            return dip_fail(DIP_CONFIG, "text %lld belongs to image %lld, but images are 0..%lld",
                            (long long)t, (long long)i, (long long)s->n_images - 1);
        float score =
            dip_scores_dot(s->texts + t * s->embed_dim, s->images + i * s->embed_dim, s->embed_dim);
        s->text_marks[t] = (mark){score, i};
        mark *best = &s->image_marks[i];
        if (best->index < 0 || score > best->score) *best = (mark){score, t};
    }
    for (int64_t i = 0; i < s->n_images; i++)
        if (s->image_marks[i].index < 0)
            return dip_fail(DIP_CONFIG, "image %lld has no text", (long long)i);
    return DIP_OK;
}

static inline int is_ahead(float score, int64_t index, mark answer)
{
    return score > answer.score || (score == answer.score && index < answer.index);
}

enum { TEXTS_AT_ONCE = 4 };

/* A few texts from `text` on against the tile of n images from `image` on. */
static void count_texts(sweep *s, int64_t column_ahead[DIP_SCORE_TILE], int64_t text, int64_t image,
                        int n)
{
    _Alignas(DIP_SCORE_ALIGN) float scores[TEXTS_AT_ONCE][DIP_SCORE_TILE];
    int64_t left = s->n_texts - text, n_rows = left < TEXTS_AT_ONCE ? left : TEXTS_AT_ONCE;
    dip_scores_tile(scores[0], s->texts + text * s->embed_dim, n_rows, s->packed, s->embed_dim);
    for (int64_t i = 0; i < n_rows; i++) {
        mark answer = s->text_marks[text + i];
        int64_t ahead = 0;
        for (int j = 0; j < n; j++) {
            ahead += is_ahead(scores[i][j], image + j, answer);
            column_ahead[j] += is_ahead(scores[i][j], text + i, s->image_marks[image + j]);
        }
        s->text_ahead[text + i] += ahead;
    }
}

/* Every score is computed once, tile by tile, and counted for both directions. */
static void count_ahead(sweep *s, int n_threads)
{
#pragma omp parallel num_threads(n_threads)
    for (int64_t first = 0; first < s->n_images; first += DIP_SCORE_TILE) {
        int64_t left = s->n_images - first;
        int n = left < DIP_SCORE_TILE ? (int)left : DIP_SCORE_TILE;
        int64_t column_ahead[DIP_SCORE_TILE] = {0};
#pragma omp single
        dip_scores_pack(s->packed, s->images + first * s->embed_dim, n, s->embed_dim);
#pragma omp for schedule(static)
        for (int64_t t = 0; t < s->n_texts; t += TEXTS_AT_ONCE)
            count_texts(s, column_ahead, t, first, n);
#pragma omp critical(dip_recall_columns) /* counts are integers: the order cannot matter */
        for (int j = 0; j < n; j++) s->image_ahead[first + j] += column_ahead[j];
    }
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Sorts `ahead`. */
static void summarise(dip_recall_side *side, int64_t *ahead, int64_t n)
{
    qsort(ahead, (size_t)n, sizeof *ahead, by_value);
    double sum = 0;
    int64_t hits[DIP_N_RECALL_KS] = {0};
    for (int64_t i = 0; i < n; i++) {
        sum += (double)ahead[i] + 1;
        for (int k = 0; k < DIP_N_RECALL_KS; k++) hits[k] += ahead[i] < dip_recall_ks[k];
    }
    for (int k = 0; k < DIP_N_RECALL_KS; k++) side->recall[k] = (double)hits[k] / (double)n;
    side->mean_rank = sum / (double)n;
    side->median_rank = (ahead[(n - 1) / 2] + ahead[n / 2]) / 2 + 1;
}

/* Of n candidates in random order, m of them right: the probability that one is among the first
 * k. Summed over where the first right one stands, which loses no digits when it is small. */
static double chance_of_hit(int64_t n, int64_t m, int k)
{
    double hit = 0, miss = 1;
    for (int j = 0; j < k && j <= n - m; j++) {
        hit += miss * (double)m / (double)(n - j);
        miss *= (double)(n - m - j) / (double)(n - j);
    }
    return hit < 1 ? hit : 1;
}

static void set_chances(dip_recall *recall, int64_t *texts_of_image, const int64_t *text_image)
{
    for (int64_t i = 0; i < recall->n_images; i++) texts_of_image[i] = 0;
    for (int64_t t = 0; t < recall->n_texts; t++) texts_of_image[text_image[t]]++;
    for (int k = 0; k < DIP_N_RECALL_KS; k++) {
        double sum = 0;
        for (int64_t i = 0; i < recall->n_images; i++)
            sum += chance_of_hit(recall->n_texts, texts_of_image[i], dip_recall_ks[k]);
        recall->image_to_text.chance[k] = sum / (double)recall->n_images;
        recall->text_to_image.chance[k] = chance_of_hit(recall->n_images, 1, dip_recall_ks[k]);
    }
}

dip_status dip_recall_compute(dip_recall *recall, const float *images, int64_t n_images,
                              const float *texts, const int64_t *text_image, int64_t n_texts,
                              int embed_dim, int n_threads)
{
    *recall = (dip_recall){.n_images = n_images, .n_texts = n_texts};
    if (n_images < 1 || n_texts < 1)
        return dip_fail(DIP_CONFIG,
                        "recall needs at least one image and one text, not %lld and %lld",
                        (long long)n_images, (long long)n_texts);
    DIP_TRY(check_finite(images, n_images, embed_dim, "image"));
    DIP_TRY(check_finite(texts, n_texts, embed_dim, "text"));

    size_t n_i = (size_t)n_images, n_t = (size_t)n_texts;
    sweep s = {images, texts, n_images, n_texts, embed_dim, NULL, NULL, NULL, NULL, NULL};
    dip_status status = DIP_OK;
    s.text_marks = malloc(n_t * sizeof *s.text_marks);
    s.image_marks = malloc(n_i * sizeof *s.image_marks);
    s.text_ahead = calloc(n_t, sizeof *s.text_ahead);
    s.image_ahead = calloc(n_i, sizeof *s.image_ahead);
    s.packed =
        aligned_alloc(DIP_SCORE_ALIGN, sizeof *s.packed * DIP_SCORE_TILE * (size_t)embed_dim);
    if (!s.text_marks || !s.image_marks || !s.text_ahead || !s.image_ahead || !s.packed) {
        status = dip_fail(DIP_NOMEM, "no memory to rank %lld images and %lld texts",
                          (long long)n_images, (long long)n_texts);
        goto fail;
    }
    DIP_TRY_GOTO(set_marks(&s, text_image));
    count_ahead(&s, n_threads > 0 ? n_threads : dip_core_count());
    summarise(&recall->text_to_image, s.text_ahead, n_texts);
    summarise(&recall->image_to_text, s.image_ahead, n_images);
    set_chances(recall, s.image_ahead, text_image);
fail:
    free(s.packed);
    free(s.image_ahead);
    free(s.text_ahead);
    free(s.image_marks);
    free(s.text_marks);
    return status;
}
