#ifndef T
#define EACH_TYPE_FILE "kernels/cpu/patchify.c"
#include "kernels/cpu/each_type.h"
#else

dip_status OP(patchify)(dip_exec *exec, void *out, const uint8_t *images, const float mean[3],
                        const float std[3], dip_image_shape shape)
{
    const int64_t side = shape.patch, width = shape.width;
    const int64_t n_across = width / side, n_down = shape.height / side;
    const int64_t n_patches = shape.n_images * n_down * n_across;

    T normal[3][256]; /* a byte has few values: normalise each once */
    for (int channel = 0; channel < 3; channel++)
        for (int byte = 0; byte < 256; byte++)
            normal[channel][byte] = ROUND(((float)byte / 255.0f - mean[channel]) / std[channel]);

    const int n_threads = threads_for(exec, n_patches * 3 * side * side);
#pragma omp parallel for num_threads(n_threads)
    for (int64_t patch = 0; patch < n_patches; patch++) {
        const int64_t column = patch % n_across;
        const int64_t row = patch / n_across; /* of all images' patch rows */
        const uint8_t *corner = images + (row * side * width + column * side) * 3;
        T *out_row = (T *)out + patch * 3 * side * side;
        for (int channel = 0; channel < 3; channel++)
            for (int64_t y = 0; y < side; y++)
                for (int64_t x = 0; x < side; x++)
                    *out_row++ = normal[channel][corner[(y * width + x) * 3 + channel]];
    }
    return DIP_OK;
}

#endif
