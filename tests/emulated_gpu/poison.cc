#include "poison.h"

#include <cstring>

#include "asan.h"
#ifdef EMULATED_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace emulated
{

constexpr unsigned char guard_byte = 0xd7;

void fill_poison(void *memory, size_t n_bytes)
{
    if (n_bytes > 0) std::memset(memory, 0xff, n_bytes);
}

void make_guard(void *memory, size_t n_bytes)
{
#ifdef EMULATED_ASAN
    __asan_poison_memory_region(memory, n_bytes);
    (void)guard_byte;
#else
    std::memset(memory, guard_byte, n_bytes);
#endif
}

void remove_guard([[maybe_unused]] void *memory, [[maybe_unused]] size_t n_bytes)
{
#ifdef EMULATED_ASAN
    __asan_unpoison_memory_region(memory, n_bytes);
#endif
}

long damage([[maybe_unused]] const void *memory, [[maybe_unused]] size_t n_bytes)
{
#ifndef EMULATED_ASAN
    const unsigned char *bytes = static_cast<const unsigned char *>(memory);
    for (size_t i = 0; i < n_bytes; i++)
        if (bytes[i] != guard_byte) return (long)i;
#endif
    return -1;
}

} // namespace emulated
