/* A program somebody else would write: it knows the installed header and nothing else.
 * Usage: example MODEL IMAGE TEXT...    prints every text with its probability for the image. */
#include <diptych/diptych.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static int failed(void)
{
    fprintf(stderr, "example: %s\n", dip_error());
    return 1;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: example MODEL IMAGE TEXT...\n");
        return 2;
    }
    dip_model *model;
    if (dip_model_open(&model, argv[1], NULL) != DIP_OK) return failed();

    size_t n = (size_t)argc - 3, row = (size_t)dip_model_embed_dim(model);
    const char *const *texts = (const char *const *)argv + 3;
    const char *image = argv[2];
    float *features = malloc((n + 1) * row * sizeof *features);
    double *weights = malloc(n * sizeof *weights), sum = 0;
    if (!features || !weights) return 1;
    if (dip_model_encode_image_files(model, features, &image, 1) != DIP_OK) return failed();
    if (dip_model_encode_texts(model, features + row, texts, n) != DIP_OK) return failed();

    for (size_t i = 0; i < n; i++) {
        double cosine = 0;
        for (size_t e = 0; e < row; e++) cosine += features[e] * features[(i + 1) * row + e];
        sum += weights[i] = exp(dip_model_logit_scale(model) * (cosine - 1));
    }
    for (size_t i = 0; i < n; i++) printf("%.4f  %s\n", weights[i] / sum, texts[i]);
    free(weights);
    free(features);
    dip_model_close(model);
    return 0;
}
