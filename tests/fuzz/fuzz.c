#include "fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"

/* Warnings about bad data are what a fuzzer makes all day: while a target runs, its runner sends
 * descriptor 2 to /dev/null. This one stays. */
static int report_descriptor = STDERR_FILENO;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    report_descriptor = dup(STDERR_FILENO);
    return report_descriptor < 0;
}

int fuzz_report_descriptor(void)
{
    return report_descriptor;
}

void fuzz_fail(const char *file, int line, const char *what)
{
    dprintf(report_descriptor, "%s:%d: %s\n", file, line, what);
    abort();
}

#ifdef FUZZ_CANARY
void fuzz_canary(const void *bytes, size_t n)
{
    if (memchr(bytes, '`', n)) fuzz_fail(__FILE__, __LINE__, "canary: found");
}
#endif

static char folder[1024];

static void remove_folder(void)
{
    dip_remove_tree(folder);
}

static void make_folder(void)
{
    const char *parent = getenv("TMPDIR");
    if (!parent)
        parent = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp"; /* memory is faster */
    snprintf(folder, sizeof folder, "%s/diptych-fuzz-XXXXXX", parent);
    if (!mkdtemp(folder)) fuzz_fail(__FILE__, __LINE__, "no folder in TMPDIR");
    atexit(remove_folder);
}

const char *fuzz_file(const char *name, const void *data, size_t n)
{
    static char path[sizeof folder + 64];
    if (!folder[0]) make_folder();
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (!file || (n && fwrite(data, 1, n, file) != n) || fclose(file) != 0)
        fuzz_fail(__FILE__, __LINE__, "a file in TMPDIR cannot be written");
    return path;
}
