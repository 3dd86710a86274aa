/* poison.h - memory that must not be relied on (NaN in every float type) or not be touched. */
#ifndef EMULATED_GPU_POISON_H
#define EMULATED_GPU_POISON_H

#include <cstddef>

namespace emulated
{

void fill_poison(void *memory, size_t n_bytes);

/* A guard is told to AddressSanitizer; without it, it holds a pattern. */
void make_guard(void *memory, size_t n_bytes);
void remove_guard(void *memory, size_t n_bytes);
/* The first byte of the pattern that is not there any more; -1 if all are. */
long damage(const void *memory, size_t n_bytes);

} // namespace emulated

#endif
