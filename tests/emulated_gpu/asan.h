/* asan.h - EMULATED_ASAN is defined where this is compiled for AddressSanitizer: clang says so by a
 * feature, gcc by a macro. */
#ifndef EMULATED_GPU_ASAN_H
#define EMULATED_GPU_ASAN_H

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMULATED_ASAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define EMULATED_ASAN 1
#endif

#endif
