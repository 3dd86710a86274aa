/* cuda_choices.h - an empty cache for the file in which the CUDA backend remembers algorithms of
 * matrix products. Each program has one of its own: they run at the same time. */
#ifndef DIP_TESTS_KERNELS_CUDA_CHOICES_H
#define DIP_TESTS_KERNELS_CUDA_CHOICES_H

#include <stdlib.h>

#include "core/scratch.h"
#include "kernels/cuda/matmul_choices.h"

static const char *cache; /* XDG_CACHE_HOME */
static char *choices_file;

/* Empties TEST_BINARY_DIR/scratch/NAME. */
static inline int choices_set_up(const char *name)
{
    cache = scratch_init(name);
    setenv("XDG_CACHE_HOME", cache, 1);
    setenv("DIPTYCH_CUDA_TUNE", "1", 1);
    free(choices_file);
    choices_file = dip_cuda_choices_path("emulated GPU", 130000);
    return choices_file ? 0 : -1;
}

static inline int choices_tear_down(void **state)
{
    (void)state;
    free(choices_file);
    choices_file = NULL;
    return 0;
}

#endif
