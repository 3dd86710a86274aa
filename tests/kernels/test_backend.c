/* Opening executors, devices moving bytes, and that no op goes unchecked. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/threads.h"
#include "kernels/ops.h"

enum { N_NAMES = 3 };
static const char *const names[N_NAMES] = {"reference", "cpu", "cuda"};

/* False, with a message, when this machine cannot. */
static int opens(dip_exec *exec, const char *name, dip_dtype dtype)
{
    dip_status status = dip_exec_open(exec, name, dtype, 3);
    if (status == DIP_UNSUPPORTED) {
        assert_true(strlen(dip_error()) > 20); /* what exactly is missing */
        print_message("SKIPPED %s %s: %s\n", name, dip_dtype_name(dtype), dip_error());
        return 0;
    }
    assert_int_equal(status, DIP_OK);
    return 1;
}

static void opens_by_name(void **state)
{
    (void)state;
    for (int i = 0; i < 2 * N_NAMES; i++) {
        dip_exec exec;
        const char *name = names[i / 2];
        const dip_dtype dtype = i % 2 ? DIP_BF16 : DIP_F32;
        if (!opens(&exec, name, dtype)) continue;
        assert_int_equal(exec.ops->dtype, dtype);
        assert_string_equal(exec.ops->backend, name);
        assert_true(dip_exec_describe(&exec)[0] != '\0');
        if (strcmp(name, "cuda") == 0) {
            assert_false(exec.device->is_host);
            assert_string_equal(exec.device->name, "cuda:0");
        } else {
            assert_true(exec.device->is_host);
            assert_int_equal(exec.n_threads, 3);
        }
        dip_exec_close(&exec);
        assert_null(exec.ops);
        dip_exec_close(&exec); /* again, on the zeroed struct */
    }
}

static void automatic_takes_what_there_is(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        dip_exec exec, gpu;
        const dip_dtype dtype = i ? DIP_BF16 : DIP_F32;
        assert_int_equal(dip_exec_open(&exec, "auto", dtype, 3), DIP_OK);
        const int has_gpu = dip_exec_open(&gpu, "cuda", dtype, 3) == DIP_OK;
        assert_string_equal(exec.ops->backend, has_gpu ? "cuda" : "cpu");
        if (has_gpu) dip_exec_close(&gpu);
        dip_exec_close(&exec);
    }
}

static void refuses_bad_configuration(void **state)
{
    (void)state;
    dip_exec exec;
    static const char *const bad[] = {"gpu7", "", "cuda:", "cuda:x", "cuda:-1", "cuda0", "cpu:1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        /* whatever begins with cuda may be refused because the build has no such backend */
        dip_status status = dip_device_check_name(bad[i]);
        assert_true(status == DIP_CONFIG ||
                    (status == DIP_UNSUPPORTED && strncmp(bad[i], "cuda:", 5) == 0));
        assert_int_equal(dip_exec_open(&exec, bad[i], DIP_F32, 1), status);
        assert_non_null(strstr(dip_error(), bad[i]));
        dip_exec_close(&exec); /* a failed open leaves something closable */
    }
    assert_int_equal(dip_exec_open(&exec, "reference", DIP_F32, -1), DIP_CONFIG);
    assert_int_equal(dip_exec_open(&exec, "reference", DIP_F32, 1000000), DIP_CONFIG);
    assert_int_equal(dip_exec_open(&exec, "reference", (dip_dtype)7, 1), DIP_CONFIG);
    assert_int_equal(dip_device_check_name("auto"), DIP_OK);
    assert_int_equal(dip_device_check_name("cpu"), DIP_OK);
    assert_int_equal(dip_device_check_name("reference"), DIP_OK);
    assert_int_not_equal(dip_device_check_name("cuda:1"), DIP_CONFIG); /* known, perhaps not here */
    assert_false(dip_device_has_fast_bf16("reference"));
    assert_int_equal(dip_device_has_fast_bf16("cpu"), dip_cpu_has_fast_bf16());
}

static void zero_threads_means_all_cores(void **state)
{
    (void)state;
    dip_exec exec;
    assert_int_equal(dip_exec_open(&exec, "reference", DIP_F32, 0), DIP_OK);
    assert_int_equal(exec.n_threads, dip_core_count());
    dip_exec_close(&exec);
}

static void reserves_workspace(void **state)
{
    (void)state;
    dip_exec exec;
    assert_int_equal(dip_exec_open(&exec, "reference", DIP_F32, 1), DIP_OK);
    assert_int_equal(dip_exec_reserve(&exec, 0), DIP_OK);
    assert_int_equal(dip_exec_reserve(&exec, 1000), DIP_OK);
    assert_true(exec.workspace_bytes >= 1000 && (uintptr_t)exec.workspace % 64 == 0);
    memset(exec.workspace, 1, 1000);
    void *before = exec.workspace;
    assert_int_equal(dip_exec_reserve(&exec, 10), DIP_OK); /* smaller: nothing moves */
    assert_ptr_equal(exec.workspace, before);
    assert_int_equal(dip_exec_reserve(&exec, SIZE_MAX), DIP_NOMEM); /* and what was there stays */
    assert_ptr_equal(exec.workspace, before);
    assert_int_equal(dip_exec_reserve(&exec, 5000), DIP_OK);
    memset(exec.workspace, 1, 5000);
    dip_exec_close(&exec);
}

static void refuses_too_little_workspace(void **state)
{
    (void)state;
    dip_exec exec;
    float u[8] = {1.0f}, v[8] = {1.0f}, lse[2] = {0.0f}, d_u[8], d_v[8], d_log_scale;
    const float log_scale = 0.0f;
    const dip_contrastive_shape shape = {.batch = 2, .embed = 4, .log_scale = &log_scale};
    const int32_t offsets[] = {0, 2};
    const dip_attention_shape tokens = {
        .n_sequences = 1, .n_rows = 2, .max_length = 2, .n_heads = 1, .head_size = 1};
    assert_int_equal(dip_exec_open(&exec, "reference", DIP_F32, 1), DIP_OK);
    assert_int_equal(
        exec.ops->contrastive_backward(&exec, d_u, d_v, &d_log_scale, u, v, lse, lse, shape),
        DIP_NOMEM);
    assert_non_null(strstr(dip_error(), "contrastive_backward"));
    assert_int_equal(exec.ops->attention_forward(&exec, d_u, d_v, u, offsets, tokens), DIP_NOMEM);
    assert_int_equal(exec.ops->attention_backward(&exec, d_u, v, u, v, lse, offsets, tokens),
                     DIP_NOMEM);
    dip_exec_close(&exec);
}

static void device_moves_bytes(void **state)
{
    (void)state;
    for (int k = 0; k < N_NAMES; k++) {
        dip_exec exec;
        if (!opens(&exec, names[k], DIP_F32)) continue;
        const dip_device *device = exec.device;
        unsigned char host[100], back[100];
        void *a, *b, *nothing;
        for (int i = 0; i < 100; i++) host[i] = (unsigned char)(i + 1);
        assert_int_equal(device->allocate(device, &a, 100), DIP_OK);
        assert_int_equal(device->allocate(device, &b, 100), DIP_OK);
        assert_int_equal(device->allocate(device, &nothing, 0), DIP_OK);
        assert_true((uintptr_t)a % device->alignment == 0 && (uintptr_t)b % device->alignment == 0);
        assert_int_equal(device->upload(&exec, a, host, 100), DIP_OK);
        assert_int_equal(device->copy(&exec, b, a, 100), DIP_OK);
        assert_int_equal(device->zero(&exec, a, 50), DIP_OK);
        assert_int_equal(device->download(&exec, back, b, 100), DIP_OK);
        assert_memory_equal(back, host, 100);
        assert_int_equal(device->download(&exec, back, a, 100), DIP_OK);
        for (int i = 0; i < 100; i++) assert_int_equal(back[i], i < 50 ? 0 : host[i]);
        assert_int_equal(device->copy(&exec, NULL, NULL, 0), DIP_OK);
        assert_int_equal(device->zero(&exec, NULL, 0), DIP_OK);
        assert_int_equal(device->synchronize(&exec), DIP_OK);
        device->release(device, a);
        device->release(device, b);
        device->release(device, nothing);
        device->release(device, NULL);
        for (size_t i = 0; i < 3; i++) {
            assert_int_equal(device->allocate(device, &a, SIZE_MAX - 40 * i), DIP_NOMEM);
            assert_null(a);
        }
        dip_exec_close(&exec);
    }
}

/* Two steps in flight: inputs staged into a slot of their own, an op, results on the host. */
static void device_overlaps_steps(void **state)
{
    (void)state;
    enum { N = 1000, N_STEPS = 7 };
    for (int k = 0; k < N_NAMES; k++) {
        dip_exec exec;
        if (!opens(&exec, names[k], DIP_F32)) continue;
        const dip_device *device = exec.device;
        const size_t n_bytes = N * sizeof(float);
        void *input[DIP_N_SLOTS], *output, *given[DIP_N_SLOTS], *results[DIP_N_SLOTS];
        assert_int_equal(device->allocate(device, &output, n_bytes), DIP_OK);
        for (int slot = 0; slot < DIP_N_SLOTS; slot++) {
            assert_int_equal(device->allocate(device, &input[slot], n_bytes), DIP_OK);
            assert_int_equal(device->allocate_host(device, &given[slot], n_bytes), DIP_OK);
            assert_int_equal(device->allocate_host(device, &results[slot], n_bytes), DIP_OK);
        }
        for (int step = 0; step < N_STEPS + DIP_N_SLOTS; step++) {
            const int slot = step % DIP_N_SLOTS;
            if (step >= DIP_N_SLOTS) {
                const float *result = results[slot];
                assert_int_equal(device->step_wait(&exec, slot), DIP_OK);
                for (int i = 0; i < N; i++)
                    if (result[i] != (float)(i + 1000 * (step - DIP_N_SLOTS)))
                        fail_msg("%s: step %d: [%d] is %g", names[k], step - DIP_N_SLOTS, i,
                                 (double)result[i]);
            }
            if (step >= N_STEPS) continue;
            for (int i = 0; i < N; i++) ((float *)given[slot])[i] = (float)(i + 1000 * step);
            assert_int_equal(device->stage_begin(&exec, slot), DIP_OK);
            assert_int_equal(device->stage(&exec, input[slot], given[slot], n_bytes), DIP_OK);
            assert_int_equal(device->stage_end(&exec, slot), DIP_OK);
            memset(given[slot], 0xff, n_bytes); /* it may be used again */
            assert_int_equal(exec.ops->cast_from_float(&exec, output, input[slot], N), DIP_OK);
            assert_int_equal(device->step_end(&exec, slot, results[slot], output, n_bytes), DIP_OK);
        }
        assert_int_equal(device->synchronize(&exec), DIP_OK);
        device->release(device, output);
        for (int slot = 0; slot < DIP_N_SLOTS; slot++) {
            device->release(device, input[slot]);
            device->release_host(device, given[slot]);
            device->release_host(device, results[slot]);
        }
        dip_exec_close(&exec);
    }
}

static void device_knows_its_memory(void **state)
{
    (void)state;
    for (int k = 0; k < N_NAMES; k++) {
        dip_exec exec;
        if (!opens(&exec, names[k], DIP_F32)) continue;
        size_t available = 0, total = 0;
        assert_int_equal(exec.device->memory(exec.device, &available, &total), DIP_OK);
        assert_true(available > 0 && available <= total);
        assert_true(total > (size_t)100 << 20 && total < (size_t)1 << 50);
        dip_exec_close(&exec);
    }
}

static void every_table_is_complete(void **state)
{
    (void)state;
    for (int i = 0; i < 2 * N_NAMES; i++) {
        dip_exec exec;
        const char *name = names[i / 2];
        if (!opens(&exec, name, i % 2 ? DIP_BF16 : DIP_F32)) continue;
#define ASSERT_THERE(op)                                                                           \
    if (!exec.ops->op) fail_msg("%s %s has no %s", name, dip_dtype_name(exec.ops->dtype), #op);
        DIP_OPS(ASSERT_THERE)
        ASSERT_THERE(matmul_workspace)
        ASSERT_THERE(attention_workspace)
        ASSERT_THERE(layernorm_workspace)
        ASSERT_THERE(contrastive_workspace)
        dip_exec_close(&exec);
    }
}

/* Everything the checkers' sources say, one after the other. */
static char *read_checkers(void)
{
    const char *folder = TEST_SOURCE_DIR "/tests/kernels";
    size_t used = 0, capacity = 1 << 20;
    char *text = malloc(capacity);
    DIR *listing = opendir(folder);
    assert_non_null(text);
    assert_non_null(listing);
    for (struct dirent *entry = readdir(listing); entry; entry = readdir(listing)) {
        char path[4096];
        if (strncmp(entry->d_name, "test_", 5) != 0 || !strstr(entry->d_name, ".c")) continue;
        snprintf(path, sizeof path, "%s/%.200s", folder, entry->d_name);
        FILE *file = fopen(path, "r");
        assert_non_null(file);
        used += fread(text + used, 1, capacity - 1 - used, file);
        fclose(file);
    }
    closedir(listing);
    assert_true(used < capacity - 1);
    text[used] = '\0';
    return text;
}

static void every_op_has_a_check(void **state)
{
    (void)state;
    char *text = read_checkers();
    static const char *const ops[] = {
#define NAME(op) #op,
        DIP_OPS(NAME)};
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        char wanted[100];
        snprintf(wanted, sizeof wanted, "CHECK(%s)", ops[i]);
        if (!strstr(text, wanted)) fail_msg("no file in tests/kernels has %s", wanted);
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opens_by_name),
        cmocka_unit_test(automatic_takes_what_there_is),
        cmocka_unit_test(refuses_bad_configuration),
        cmocka_unit_test(zero_threads_means_all_cores),
        cmocka_unit_test(reserves_workspace),
        cmocka_unit_test(refuses_too_little_workspace),
        cmocka_unit_test(device_moves_bytes),
        cmocka_unit_test(device_overlaps_steps),
        cmocka_unit_test(device_knows_its_memory),
        cmocka_unit_test(every_table_is_complete),
        cmocka_unit_test(every_op_has_a_check),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
