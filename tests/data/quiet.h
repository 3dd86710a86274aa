/* quiet.h - cmocka's setup and teardown for tests that lose samples by the thousand: the ledger
 * warns of each. */
#ifndef DIP_TESTS_DATA_QUIET_H
#define DIP_TESTS_DATA_QUIET_H

#include <fcntl.h>
#include <unistd.h>

static int quiet_stderr;

static inline int silence(void **state)
{
    (void)state;
    int nowhere = open("/dev/null", O_WRONLY);
    quiet_stderr = dup(STDERR_FILENO);
    int failed = nowhere < 0 || quiet_stderr < 0 || dup2(nowhere, STDERR_FILENO) < 0;
    close(nowhere);
    return failed;
}

static inline int speak(void **state)
{
    (void)state;
    int failed = dup2(quiet_stderr, STDERR_FILENO) < 0;
    close(quiet_stderr);
    return failed;
}

#endif
