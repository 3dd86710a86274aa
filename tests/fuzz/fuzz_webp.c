/* WebP; refused by name where the build has no decoder for it. */
#include "fuzz/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n >= 12 && memcmp(data, "RIFF", 4) == 0) fuzz_image(data, n);
    return 0;
}
