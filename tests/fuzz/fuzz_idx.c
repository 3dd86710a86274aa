/* IDX arrays, plain or gzipped: as many bytes as the dimensions say. */
#include "fuzz/fuzz.h"

#include "core/file.h"
#include "data/pairs/idx.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    dip_idx idx;
    if (dip_idx_read(&idx, fuzz_file("array.idx", data, n)) != DIP_OK) {
        FUZZ_CHECK(!idx.data);
        return 0;
    }
    int64_t n_bytes = 1;
    FUZZ_CHECK(idx.n_dims >= 1 && idx.n_dims <= DIP_IDX_MAX_DIMS);
    for (int i = 0; i < idx.n_dims; i++) n_bytes *= idx.dims[i];
    FUZZ_CHECK(n_bytes == idx.n_bytes);
    volatile uint32_t sum = dip_crc32c(0, idx.data, (size_t)idx.n_bytes); /* all of it is there */
    (void)sum;
    fuzz_canary(idx.data, (size_t)idx.n_bytes);
    dip_idx_free(&idx);
    return 0;
}
