#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "core/scratch.h"
#include "core/threads.h"

static void the_core_count_respects_affinity(void **state)
{
    (void)state;
    cpu_set_t all, one;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    assert_int_equal(dip_core_count(), CPU_COUNT(&all));
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all)) {
            CPU_SET(cpu, &one);
            break;
        }
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    int count = dip_core_count();
    sched_setaffinity(0, sizeof all, &all);
    assert_int_equal(count, 1);
}

static void *log_lines(void *argument)
{
    for (int i = 0; i < 200; i++) dip_info("thread %d line %d", *(int *)argument, i);
    return NULL;
}

static void log_lines_stay_whole(void **state)
{
    (void)state;
    char *path = dip_path_join(scratch_init("test_threads"), "out.log"), *text;
    size_t n;
    int numbers[] = {0, 1, 2};
    pthread_t threads[3];
    dip_log_set_quiet(true);
    assert_int_equal(dip_log_open_file(path), DIP_OK);
    for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, log_lines, &numbers[i]);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    dip_info("a name\nwith \x1b[31m bytes \xc3\xa9\n");
    dip_log_close_file();
    dip_info("not in the file");
    dip_log_set_quiet(false);
    assert_int_equal(dip_file_read(&text, &n, path, 1 << 20), DIP_OK);
    int n_lines = 0, next[3] = {0};
    for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1, n_lines++) {
        int year, month, day, hour, minute, second, used = 0, thread, number;
        *end = '\0';
        assert_int_equal(sscanf(line, "%4d-%2d-%2d,%2d:%2d:%2d | INFO | %n", &year, &month, &day,
                                &hour, &minute, &second, &used),
                         6);
        assert_int_equal(used, 29);
        if (n_lines == 600) {
            assert_string_equal(line + used, "a name\\nwith \\x1b[31m bytes \xc3\xa9");
            continue;
        }
        assert_int_equal(sscanf(line + used, "thread %d line %d", &thread, &number), 2);
        assert_int_equal(number, next[thread]++);
    }
    assert_int_equal(n_lines, 601);
    assert_int_equal(dip_log_open_file("/no/such/dir/out.log"), DIP_IO);
    free(text);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_core_count_respects_affinity),
        cmocka_unit_test(log_lines_stay_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
