/* Without libFuzzer: every seed, and of each the same few mutations every time.
 *
 *     fuzz_NAME FOLDER N   runs the files of FOLDER and N mutations of each
 *     fuzz_NAME FILE       runs one file, to look at what a search has found
 *
 * An input that ends the program is kept as fuzz_NAME.failed beside it. */
#include "fuzz/fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "core/rng.h"

static struct {
    const char *program, *seed;
    int mutation; /* -1: the seed itself */
    const uint8_t *data;
    size_t n;
} current;

/* The process dies: say of what, and keep it for `fuzz_NAME FILE`. */
static void keep_input(void)
{
    char path[1024];
    if (!current.data) return;
    snprintf(path, sizeof path, "%s.failed", current.program);
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    bool kept = file >= 0 && write(file, current.data, current.n) == (ssize_t)current.n;
    dprintf(fuzz_report_descriptor(), "seed %s, mutation %d: input %s %s\n", current.seed,
            current.mutation, kept ? "kept as" : "cannot be kept as", path);
}

static void on_signal(int number)
{
    signal(number, SIG_DFL);
    keep_input();
    raise(number);
}

enum { MAX_EDITS = 6, MAX_SEED_BYTES = 1 << 20 };

/* Memory of exactly n bytes, so that a sanitizer sees a read beyond them. */
static void run_exactly(const uint8_t *data, size_t n)
{
    uint8_t *copy = malloc(n ? n : 1);
    FUZZ_CHECK(copy);
    memcpy(copy, data, n);
    current.data = copy;
    current.n = n;
    LLVMFuzzerTestOneInput(copy, n);
    current.data = NULL;
    free(copy);
}

/* data has room for 2 n bytes. Returns the new size, never more than that. */
static size_t edit(uint8_t *data, size_t n, size_t room, dip_rng *rng)
{
    static const uint8_t telling[] = {0, 1, 0x7f, 0x80, 0xff, '"', ',', '\n', '-', '9'};
    size_t at = dip_rng_below(rng, (uint32_t)n);
    size_t length = 1 + dip_rng_below(rng, (uint32_t)(n - at < 64 ? n - at : 64));
    switch (dip_rng_below(rng, 5)) {
    case 0:
        data[at] ^= (uint8_t)(1u << dip_rng_below(rng, 8));
        return n;
    case 1:
        data[at] = telling[dip_rng_below(rng, sizeof telling)];
        return n;
    case 2: /* take a part out */
        if (length >= n) return n;
        memmove(data + at, data + at + length, n - at - length);
        return n - length;
    case 3: /* say a part twice */
        if (n + length > room) return n;
        memmove(data + at + length, data + at, n - at);
        return n + length;
    default: /* cut the end off */
        return dip_rng_below(rng, 4) == 0 ? at + 1 : n;
    }
}

static void run_mutations(const uint8_t *seed, size_t n_seed, const char *name, int n_mutations)
{
    uint8_t *data = malloc(2 * n_seed);
    FUZZ_CHECK(data);
    for (int i = 0; i < n_mutations; i++) {
        dip_rng rng;
        dip_rng_init(&rng, dip_crc32c(0, name, strlen(name)),
                     dip_rng_stream(DIP_RNG_TEST, 0, (uint64_t)i));
        memcpy(data, seed, n_seed);
        size_t n = n_seed;
        for (uint32_t edits = 1 + dip_rng_below(&rng, MAX_EDITS); edits > 0; edits--)
            n = edit(data, n, 2 * n_seed, &rng);
        if (fuzz_repair && i % 2) fuzz_repair(data, n);
        current.mutation = i;
        run_exactly(data, n);
    }
    free(data);
}

static void run_file(const char *path, const char *name, int n_mutations)
{
    char *data;
    size_t n;
    if (dip_file_read(&data, &n, path, MAX_SEED_BYTES) != DIP_OK)
        fuzz_fail(__FILE__, __LINE__, dip_error());
    current.seed = name;
    current.mutation = -1;
    run_exactly((const uint8_t *)data, n);
    if (n > 0) run_mutations((const uint8_t *)data, n, name, n_mutations);
    free(data);
}

static int is_file(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static int run_folder(const char *path, int n_mutations)
{
    struct dirent **entries;
    int n = scandir(path, &entries, is_file, alphasort);
    for (int i = 0; i < n; i++) {
        char *file = dip_path_join(path, entries[i]->d_name);
        FUZZ_CHECK(file);
        run_file(file, entries[i]->d_name, n_mutations);
        free(file);
        free(entries[i]);
    }
    if (n >= 0) free(entries);
    return n;
}

/* Of the sanitizers' runtime, if the program has one. */
__attribute__((weak)) void __sanitizer_set_report_fd(void *descriptor);
__attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)(void));

/* A sanitizer sees to the signals it knows; an abort is left to the program. */
static void watch_for_death(const char *program)
{
    current.program = program;
    signal(SIGABRT, on_signal);
    if (__sanitizer_set_death_callback) {
        __sanitizer_set_death_callback(keep_input);
        return;
    }
    signal(SIGSEGV, on_signal);
    signal(SIGBUS, on_signal);
    signal(SIGFPE, on_signal);
}

/* The log goes to /dev/null, the reports of the sanitizers do not. */
static void silence_log(void)
{
    int nowhere = open("/dev/null", O_WRONLY);
    FUZZ_CHECK(nowhere >= 0);
    if (__sanitizer_set_report_fd)
        __sanitizer_set_report_fd((void *)(intptr_t)fuzz_report_descriptor());
    dup2(nowhere, STDERR_FILENO);
    close(nowhere);
}

int main(int argc, char **argv)
{
    if (argc < 2 || LLVMFuzzerInitialize(&argc, &argv) != 0) {
        dprintf(STDERR_FILENO, "usage: %s FOLDER N | FILE\n", argv[0]);
        return 2;
    }
    silence_log();
    watch_for_death(argv[0]);
    int n = 1, n_mutations = argc > 2 ? atoi(argv[2]) : 0;
    if (dip_path_is_dir(argv[1]))
        n = run_folder(argv[1], n_mutations);
    else
        run_file(argv[1], argv[1], n_mutations);
    printf("%d seeds, %d mutations of each\n", n, n_mutations);
    return n > 0 ? 0 : 1;
}
