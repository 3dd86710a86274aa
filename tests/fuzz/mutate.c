/* libFuzzer's mutations, and after most of them the checksums of the format made right again. */
#include "fuzz/fuzz.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t n, size_t max_n);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t max_n, unsigned seed);

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t max_n, unsigned seed)
{
    n = LLVMFuzzerMutate(data, n, max_n);
    if (fuzz_repair && seed % 4) fuzz_repair(data, n);
    return n;
}
