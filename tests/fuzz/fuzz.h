/* fuzz.h - what the fuzz targets share. A target, fuzz_NAME.c, defines libFuzzer's entry; what must
 * hold for any input it says with FUZZ_CHECK, what may not be read or written the sanitizers see.
 *
 * Usage:   linked with run_seeds.c a target is a test (CMakeLists.txt), with libFuzzer it searches
 *          (../fuzz.sh).
 * Canary:  a planted mistake. Every target hands fuzz_canary some of what its real work gave. No
 * seed leads to what it looks for, so a search that finds it can find a mistake there too. */
#ifndef DIP_TESTS_FUZZ_H
#define DIP_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* A target whose format has checksums defines this: make them right again after a mutation, so
 * that what lies behind them is reached. */
__attribute__((weak)) void fuzz_repair(uint8_t *data, size_t n);

/* The path of a file of this name with these bytes, in a folder of this process that is removed at
 * its end; valid until the next call. */
const char *fuzz_file(const char *name, const void *data, size_t n);

/* Standard error as it was at the start. */
int fuzz_report_descriptor(void);

_Noreturn void fuzz_fail(const char *file, int line, const char *what);
#define FUZZ_CHECK(condition)                                                                      \
    do {                                                                                           \
        if (!(condition)) fuzz_fail(__FILE__, __LINE__, #condition);                               \
    } while (0)

/* In a canary's build, fail when a ` is among the n bytes. */
#ifdef FUZZ_CANARY
void fuzz_canary(const void *bytes, size_t n);
#else
static inline void fuzz_canary(const void *bytes, size_t n)
{
    (void)bytes, (void)n;
}
#endif

#endif
