/* evaluate.h - zero-shot accuracy and retrieval recall, from features of unit length.
 *
 * Everything here works on plain float rows, so the trainer and the tools share it: the trainer
 * brings its own towers, the tools a dip_model. Scores are exact float sums (model/scores.h); a
 * tie goes to the lower index, so the same features give the same figures on every machine and
 * for every number of threads. A feature that is not finite is refused: comparisons with NaN are
 * all false and would pass for a perfect rank.
 *
 * Usage:   zero-shot: dip_classnames_read, dip_templates_read, dip_classifier_build, then
 *          dip_accuracy_init, _add per batch, _read, _free. Retrieval: dip_recall_compute.
 * Memory:  no image x text matrix; O(images + texts) and one tile per thread.
 * Errors:  DIP_IO, DIP_CONFIG (text files: file, line and reason), DIP_NUMERIC, DIP_NOMEM. */
#ifndef DIP_MODEL_EVALUATE_H
#define DIP_MODEL_EVALUATE_H

#include <stddef.h>
#include <stdint.h>

#include "core/config.h" /* dip_string_list */
#include "core/status.h"

/* ---- text files ------------------------------------------------------------------------ */

/* UTF-8, one name a line; a byte order mark, CR and outer blanks are removed, empty lines
 * ignored. A template must hold {c}, which stands for the class name. Free the list with
 * dip_string_list_free (data/pattern.h). */
dip_status dip_classnames_read(dip_string_list *names, const char *path);
dip_status dip_templates_read(dip_string_list *templates, const char *path);

/* ---- zero-shot classification ---------------------------------------------------------- */

/* features [n][E], unit length, from n NUL-terminated texts. */
typedef dip_status dip_encode_texts_fn(void *context, float *features, const char *const *texts,
                                       size_t n);

/* classifier [C][E]: for every class the features of all its prompts, each of unit length,
 * averaged and scaled to unit length again (Radford et al. 2021, section 3.1.4). */
dip_status dip_classifier_build(float *classifier, const dip_string_list *classnames,
                                const dip_string_list *templates, dip_encode_texts_fn *encode,
                                void *context, int embed_dim);

/* Counts of right answers so far. */
typedef struct dip_accuracy {
    int64_t n_classes;
    int embed_dim;
    float *packed; /* the classifier, in tiles */
    int64_t n, n_top1, n_top5;
    int64_t *class_n;    /* [C] samples of each class */
    int64_t *class_top1; /* [C] of them answered right */
} dip_accuracy;

dip_status dip_accuracy_init(dip_accuracy *accuracy, const float *classifier, int64_t n_classes,
                             int embed_dim);
void dip_accuracy_free(dip_accuracy *accuracy); /* a zeroed struct is fine */

/* features [n][E], labels [n] in [0, C): DIP_CONFIG names the first label that is not. */
dip_status dip_accuracy_add(dip_accuracy *accuracy, const float *features, const int64_t *labels,
                            int64_t n, int n_threads);

typedef struct dip_accuracy_scores {
    int64_t n;
    double acc1, acc5;            /* acc5: among the first min(5, C) answers */
    double mean_per_class_recall; /* over the classes that occur */
} dip_accuracy_scores;

/* All zero when n is 0. */
dip_accuracy_scores dip_accuracy_read(const dip_accuracy *accuracy);

/* ---- retrieval ------------------------------------------------------------------------- */

enum { DIP_N_RECALL_KS = 3 };
extern const int dip_recall_ks[DIP_N_RECALL_KS]; /* 1, 5, 10 */

/* One direction. A rank is 1 + the number of candidates with a higher score, or the same score
 * and a lower index. */
typedef struct dip_recall_side {
    double recall[DIP_N_RECALL_KS]; /* share of queries whose answer is among the first k */
    double chance[DIP_N_RECALL_KS]; /* the same if the order were random */
    double mean_rank;
    int64_t median_rank; /* of an even number: the mean of the middle two, rounded down */
} dip_recall_side;

typedef struct dip_recall {
    int64_t n_images, n_texts;
    dip_recall_side text_to_image; /* query: a text; answer: its image */
    dip_recall_side image_to_text; /* query: an image; answer: the best ranked of its texts */
} dip_recall;

/* images [n_images][E], texts [n_texts][E]; text t belongs to image text_image[t]. Every image
 * needs a text (DIP_CONFIG). n_threads 0 = all cores. */
dip_status dip_recall_compute(dip_recall *recall, const float *images, int64_t n_images,
                              const float *texts, const int64_t *text_image, int64_t n_texts,
                              int embed_dim, int n_threads);

#endif
