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

static void items_come_out_in_order(void **state)
{
    (void)state;
    dip_queue *queue;
    int items[7];
    void *out;
    assert_int_equal(dip_queue_open(&queue, 3), DIP_OK);
    for (int round = 0; round < 5; round++) { /* around the ring */
        for (int i = 0; i < 3; i++) assert_int_equal(dip_queue_push(queue, &items[i]), DIP_OK);
        for (int i = 0; i < 3; i++) {
            assert_int_equal(dip_queue_pop(queue, &out), DIP_OK);
            assert_ptr_equal(out, &items[i]);
        }
    }
    assert_int_equal(dip_queue_push(queue, &items[6]), DIP_OK);
    dip_queue_shut(queue);
    assert_int_equal(dip_queue_push(queue, &items[0]), DIP_END);
    assert_int_equal(dip_queue_pop(queue, &out), DIP_OK); /* what is left comes out */
    assert_ptr_equal(out, &items[6]);
    assert_int_equal(dip_queue_pop(queue, &out), DIP_END);
    assert_null(out);
    dip_queue_close(queue);
    dip_queue_close(NULL);
}

static void impossible_queues_are_refused(void **state)
{
    (void)state;
    dip_queue *queue;
    assert_int_equal(dip_queue_open(&queue, 0), DIP_CONFIG);
    assert_null(queue);
    assert_int_equal(dip_queue_open(&queue, SIZE_MAX / 4), DIP_NOMEM);
}

enum { N_PRODUCERS = 3, N_CONSUMERS = 3, N_ITEMS = 4000 };

typedef struct worker {
    dip_queue *queue;
    unsigned char *items, *seen;
} worker;

static void *produce(void *argument)
{
    worker *w = argument;
    for (int i = 0; i < N_ITEMS; i++)
        if (dip_queue_push(w->queue, &w->items[i]) != DIP_OK) return argument;
    return NULL;
}

static void *consume(void *argument)
{
    worker *w = argument;
    void *item;
    while (dip_queue_pop(w->queue, &item) == DIP_OK) w->seen[(unsigned char *)item - w->items]++;
    return NULL;
}

static void every_item_arrives_once(void **state)
{
    (void)state;
    static unsigned char items[N_PRODUCERS * N_ITEMS], seen[N_CONSUMERS][N_PRODUCERS * N_ITEMS];
    dip_queue *queue;
    assert_int_equal(dip_queue_open(&queue, 4), DIP_OK);
    pthread_t producers[N_PRODUCERS], consumers[N_CONSUMERS];
    worker in[N_PRODUCERS], out[N_CONSUMERS];
    for (int i = 0; i < N_CONSUMERS; i++) {
        out[i] = (worker){queue, items, seen[i]};
        assert_int_equal(pthread_create(&consumers[i], NULL, consume, &out[i]), 0);
    }
    for (int i = 0; i < N_PRODUCERS; i++) {
        in[i] = (worker){queue, items + i * N_ITEMS, NULL};
        assert_int_equal(pthread_create(&producers[i], NULL, produce, &in[i]), 0);
    }
    for (int i = 0; i < N_PRODUCERS; i++) {
        void *failed;
        pthread_join(producers[i], &failed);
        assert_null(failed);
    }
    dip_queue_shut(queue);
    for (int i = 0; i < N_CONSUMERS; i++) pthread_join(consumers[i], NULL);
    for (int i = 0; i < N_PRODUCERS * N_ITEMS; i++) {
        int n = 0;
        for (int k = 0; k < N_CONSUMERS; k++) n += seen[k][i];
        assert_int_equal(n, 1);
    }
    dip_queue_close(queue);
}

static void *pop_one(void *queue)
{
    void *item;
    return dip_queue_pop(queue, &item) == DIP_END ? queue : NULL;
}
static void *push_one(void *queue)
{
    return dip_queue_push(queue, NULL) == DIP_END ? queue : NULL;
}

static void shutting_wakes_everyone(void **state)
{
    (void)state;
    void *(*const waits[])(void *) = {pop_one, push_one};
    for (int kind = 0; kind < 2; kind++) {
        dip_queue *queue;
        pthread_t threads[3];
        assert_int_equal(dip_queue_open(&queue, 1), DIP_OK);
        if (kind == 1) assert_int_equal(dip_queue_push(queue, NULL), DIP_OK); /* full */
        for (int i = 0; i < 3; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, waits[kind], queue), 0);
        usleep(20000); /* so that they wait; the result is the same if they do not yet */
        dip_queue_shut(queue);
        for (int i = 0; i < 3; i++) {
            void *result;
            pthread_join(threads[i], &result);
            assert_ptr_equal(result, queue);
        }
        dip_queue_close(queue);
    }
}

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
        cmocka_unit_test(items_come_out_in_order),
        cmocka_unit_test(impossible_queues_are_refused),
        cmocka_unit_test(every_item_arrives_once),
        cmocka_unit_test(shutting_wakes_everyone),
        cmocka_unit_test(the_core_count_respects_affinity),
        cmocka_unit_test(log_lines_stay_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
