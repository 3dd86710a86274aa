/* Pictures of one colour, and how many pixels of a colour a picture has; for tests that look at
 * what a browser shows.
 *
 *     pixels make FILE.png WIDTH HEIGHT RRGGBB
 *     pixels count FILE.png RRGGBB        prints the number */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "data/image/image.h"

static int fail(void)
{
    fprintf(stderr, "pixels: %s\n", dip_error());
    return 1;
}

static void parse_colour(uint8_t colour[3], const char *text)
{
    unsigned long value = strtoul(text, NULL, 16);
    for (int i = 0; i < 3; i++) colour[i] = (uint8_t)(value >> (16 - 8 * i));
}

static int make(const char *path, int width, int height, const uint8_t colour[3])
{
    size_t n_pixels = (size_t)width * (size_t)height, n_bytes;
    uint8_t *pixels = malloc(n_pixels * 3), *file = NULL;
    if (!pixels) return 1;
    for (size_t i = 0; i < n_pixels; i++) memcpy(pixels + 3 * i, colour, 3);
    dip_status status = dip_png_encode(&file, &n_bytes, pixels, width, height, 3);
    if (status == DIP_OK) status = dip_file_write(path, file, n_bytes);
    free(pixels);
    free(file);
    return status == DIP_OK ? 0 : fail();
}

static int count(const char *path, const uint8_t colour[3])
{
    char *file;
    size_t n_bytes, n = 0;
    dip_image_decoder *decoder;
    dip_image image;
    dip_fault_kind kind;
    if (dip_file_read(&file, &n_bytes, path, 1 << 26) != DIP_OK) return fail();
    dip_status status = dip_image_decoder_open(&decoder, 25000000);
    if (status == DIP_OK)
        status = dip_image_decode(decoder, &image, &kind, (const uint8_t *)file, n_bytes);
    if (status == DIP_OK)
        for (size_t i = 0; i < (size_t)image.width * (size_t)image.height; i++)
            n += memcmp(image.rgb + 3 * i, colour, 3) == 0;
    dip_image_decoder_close(decoder);
    free(file);
    if (status != DIP_OK) return fail();
    printf("%zu\n", n);
    return 0;
}

int main(int argc, char **argv)
{
    uint8_t colour[3];
    if (argc < 4) return 2;
    parse_colour(colour, argv[argc - 1]);
    if (argc == 6 && strcmp(argv[1], "make") == 0)
        return make(argv[2], atoi(argv[3]), atoi(argv[4]), colour);
    if (argc == 4 && strcmp(argv[1], "count") == 0) return count(argv[2], colour);
    return 2;
}
