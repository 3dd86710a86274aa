#include "core/threads.h"

#include <sched.h>
#include <stddef.h>
#include <unistd.h>

int dip_core_count(void)
{
    /* The kernel refuses a mask smaller than its own with EINVAL, so grow until it fits. */
    for (int n_cpus = 1024; n_cpus <= 1 << 16; n_cpus *= 2) {
        cpu_set_t *set = CPU_ALLOC((size_t)n_cpus);
        if (!set) break;
        size_t n_bytes = CPU_ALLOC_SIZE((size_t)n_cpus);
        int count = 0;
        if (sched_getaffinity(0, n_bytes, set) == 0) count = CPU_COUNT_S(n_bytes, set);
        CPU_FREE(set);
        if (count > 0) return count;
    }
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online >= 1 ? (int)online : 1;
}
