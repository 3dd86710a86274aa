/* JPEG. */
#include "fuzz/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n >= 2 && data[0] == 0xff && data[1] == 0xd8) fuzz_image(data, n);
    return 0;
}
