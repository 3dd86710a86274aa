/* Opening executors, the CPU as a device, and that no op goes unchecked. */
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

static void opens_by_name(void **state)
{
    (void)state;
    static const char *const names[] = {"auto", "cpu", "reference"};
    for (int i = 0; i < 6; i++) {
        dip_exec exec;
        const dip_dtype dtype = i % 2 ? DIP_BF16 : DIP_F32;
        dip_status status = dip_exec_open(&exec, names[i / 2], dtype, 3);
        if (status == DIP_UNSUPPORTED && i / 2 == 1) continue; /* not on this machine */
        assert_int_equal(status, DIP_OK);
        assert_int_equal(exec.n_threads, 3);
        assert_int_equal(exec.ops->dtype, dtype);
        assert_true(exec.device->is_host);
        if (i / 2 == 2) assert_string_equal(exec.ops->backend, "reference");
        dip_exec_close(&exec);
        assert_null(exec.ops);
        dip_exec_close(&exec); /* again, on the zeroed struct */
    }
}

static void refuses_bad_configuration(void **state)
{
    (void)state;
    dip_exec exec;
    assert_int_equal(dip_exec_open(&exec, "gpu7", DIP_F32, 1), DIP_CONFIG);
    assert_non_null(strstr(dip_error(), "gpu7"));
    dip_exec_close(&exec); /* a failed open leaves something closable */
    assert_int_equal(dip_exec_open(&exec, "", DIP_F32, 1), DIP_CONFIG);
    assert_int_equal(dip_exec_open(&exec, "reference", DIP_F32, -1), DIP_CONFIG);
    assert_int_equal(dip_exec_open(&exec, "reference", DIP_F32, 1000000), DIP_CONFIG);
    assert_int_equal(dip_exec_open(&exec, "reference", (dip_dtype)7, 1), DIP_CONFIG);
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
    const dip_contrastive_shape shape = {.batch = 2, .embed = 4, .scale = 1.0f};
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
    dip_exec exec;
    assert_int_equal(dip_exec_open(&exec, "reference", DIP_F32, 1), DIP_OK);
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

static void every_table_is_complete(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        dip_exec exec;
        const char *name = i / 2 ? "cpu" : "reference";
        dip_status status = dip_exec_open(&exec, name, i % 2 ? DIP_BF16 : DIP_F32, 1);
        if (status == DIP_UNSUPPORTED) continue;
        assert_int_equal(status, DIP_OK);
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
        cmocka_unit_test(refuses_bad_configuration),
        cmocka_unit_test(zero_threads_means_all_cores),
        cmocka_unit_test(reserves_workspace),
        cmocka_unit_test(refuses_too_little_workspace),
        cmocka_unit_test(device_moves_bytes),
        cmocka_unit_test(every_table_is_complete),
        cmocka_unit_test(every_op_has_a_check),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
