/* devices.h - which device a test computes on, and how it looks at memory there: what is not the
 * host's is never dereferenced.
 *
 * DIPTYCH_TEST_DEVICE names one; without it a test runs on the CPU's backends. */
#ifndef DIP_TESTS_TRAIN_DEVICES_H
#define DIP_TESTS_TRAIN_DEVICES_H

#include <stdlib.h>

#include "kernels/device.h"

/* An emulated GPU takes its time: tests that only need to do much of the same do less. */
#ifdef DIPTYCH_EMULATED_GPU
enum { DEVICE_IS_SLOW = 1 };
#else
enum { DEVICE_IS_SLOW = 0 };
#endif

static inline const char *device_under_test(void)
{
    const char *name = getenv("DIPTYCH_TEST_DEVICE");
    return name && *name ? name : "cpu";
}

/* All that a check should be made on; returns how many. */
static inline int devices_under_test(const char *names[2])
{
    const char *name = getenv("DIPTYCH_TEST_DEVICE");
    names[0] = name && *name ? name : "reference";
    names[1] = "cpu";
    return name && *name ? 1 : 2;
}

static inline void from_device(dip_exec *exec, void *host, const void *device, size_t n_bytes)
{
    assert_int_equal(exec->device->download(exec, host, device, n_bytes), DIP_OK);
}

static inline void to_device(dip_exec *exec, void *device, const void *host, size_t n_bytes)
{
    assert_int_equal(exec->device->upload(exec, device, host, n_bytes), DIP_OK);
}

/* malloc'd. */
static inline void *copy_from_device(dip_exec *exec, const void *device, size_t n_bytes)
{
    void *host = malloc(n_bytes);
    assert_non_null(host);
    from_device(exec, host, device, n_bytes);
    return host;
}

#endif
