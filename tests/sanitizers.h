/* sanitizers.h - UNDER_ASAN and UNDER_SANITIZER (that or TSan) are 1 where this is compiled for
 * them, else 0: clang says so by a feature, gcc by a macro. Under them time and memory are others.
 */
#ifndef TESTS_SANITIZERS_H
#define TESTS_SANITIZERS_H

#ifdef __has_feature
#define SANITIZER_FEATURE(name) __has_feature(name)
#else
#define SANITIZER_FEATURE(name) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || SANITIZER_FEATURE(address_sanitizer)
#define UNDER_ASAN 1
#else
#define UNDER_ASAN 0
#endif
#if UNDER_ASAN || defined(__SANITIZE_THREAD__) || SANITIZER_FEATURE(thread_sanitizer)
#define UNDER_SANITIZER 1
#else
#define UNDER_SANITIZER 0
#endif

#endif
