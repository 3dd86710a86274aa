/* There are only 256 pixel values: the arithmetic of ops.h is done once for each and channel, and
 * the pixels are looked up. Every value is exactly that of the formula. */
dip_status OP(patchify)(dip_exec *exec, void *out, const uint8_t *images, const float mean[3],
                        const float std[3], dip_image_shape shape)
{
    const int64_t p = shape.patch, across = shape.width / p, down = shape.height / p;
    const int64_t plane = p * p, row_bytes = (int64_t)shape.width * 3;
    const int64_t n_strips = shape.n_images * down;
    T values[3][256];
    for (int channel = 0; channel < 3; channel++)
        for (int i = 0; i < 256; i += LANES) {
            float level[LANES];
            for (int l = 0; l < LANES; l++) level[l] = (float)(i + l);
            vec x = vec_div(vec_load(level), vec_all(255.0f));
            x = vec_div(vec_sub(x, vec_all(mean[channel])), vec_all(std[channel]));
            STORE(values[channel] + i, x);
        }
#pragma omp parallel for num_threads(threads_for(exec, n_strips *p *row_bytes))
    for (int64_t strip = 0; strip < n_strips; strip++) { /* a row of patches of one image */
        T *strip_out = (T *)out + strip * across * 3 * plane;
        for (int64_t py = 0; py < p; py++) {
            const uint8_t *in = images + (strip * p + py) * row_bytes;
            for (int64_t patch = 0; patch < across; patch++) {
                T *red = strip_out + patch * 3 * plane + py * p;
                T *green = red + plane, *blue = green + plane;
                for (int64_t px = 0; px < p; px++, in += 3) {
                    red[px] = values[0][in[0]];
                    green[px] = values[1][in[1]];
                    blue[px] = values[2][in[2]];
                }
            }
        }
    }
    return DIP_OK;
}
