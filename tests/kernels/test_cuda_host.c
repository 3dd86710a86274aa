/* The host's side of the CUDA backend: what is said when something is missing, memory and its
 * limit, that steps overlap, recorded graphs, errors. On the emulated GPU, where the environment
 * says what there is; the graphs and attention also on a real one. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "kernels/ops.h"

/* The environment's word for the emulation; NULL takes it away. */
static void set(const char *name, const char *value)
{
    assert_int_equal(value ? setenv(name, value, 1) : unsetenv(name), 0);
}

static int opens_cuda(dip_exec *exec, dip_dtype dtype)
{
    dip_status status = dip_exec_open(exec, "cuda", dtype, 1);
    if (status == DIP_OK) return 1;
    assert_int_equal(status, DIP_UNSUPPORTED);
    print_message("SKIPPED: %s\n", dip_error());
    return 0;
}

/* ---- graphs ----------------------------------------------------------------------------- */

enum { N = 96, C = 64 }; /* of a product [N, C] x [C, C] */

typedef struct step_memory {
    void *x, *w, *bias, *pre, *out, *again;
    float *d_w, *d_bias;
} step_memory;

static void *copy_to_device(dip_exec *exec, const void *host, size_t n_bytes)
{
    void *device;
    assert_int_equal(exec->device->allocate(exec->device, &device, n_bytes), DIP_OK);
    assert_int_equal(exec->device->upload(exec, device, host, n_bytes), DIP_OK);
    return device;
}

static void *to_device(dip_exec *exec, int64_t n, float (*value)(int64_t i))
{
    float *host = malloc((size_t)n * sizeof *host);
    assert_non_null(host);
    for (int64_t i = 0; i < n; i++) host[i] = value(i);
    void *device = copy_to_device(exec, host, (size_t)n * sizeof *host);
    free(host);
    return device;
}

static void *bf16_to_device(dip_exec *exec, int64_t n, float (*value)(int64_t i))
{
    dip_bf16 *host = malloc((size_t)n * sizeof *host);
    assert_non_null(host);
    for (int64_t i = 0; i < n; i++) host[i] = dip_bf16_from_float(value(i));
    void *device = copy_to_device(exec, host, (size_t)n * sizeof *host);
    free(host);
    return device;
}

static float none(int64_t i)
{
    (void)i;
    return 0.0f;
}

static float wave(int64_t i)
{
    return (float)(i * 37 % 101 - 50) / 32.0f;
}

static float other_wave(int64_t i)
{
    return (float)(i * 53 % 89 - 44) / 64.0f;
}

static void fill(dip_exec *exec, step_memory *m)
{
    m->x = to_device(exec, (int64_t)N * C, wave);
    m->w = to_device(exec, (int64_t)C * C, other_wave);
    m->bias = to_device(exec, C, wave);
    m->pre = to_device(exec, (int64_t)N * C, none);
    m->out = to_device(exec, (int64_t)N * C, none);
    m->again = to_device(exec, (int64_t)N * C, none);
    m->d_w = to_device(exec, (int64_t)C * C, none);
    m->d_bias = to_device(exec, C, none);
}

static void empty(dip_exec *exec, step_memory *m)
{
    void *all[] = {m->x, m->w, m->bias, m->pre, m->out, m->again, m->d_w, m->d_bias};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        exec->device->release(exec->device, all[i]);
}

static dip_status clear_results(dip_exec *exec, const step_memory *m)
{
    const dip_device *device = exec->device;
    DIP_TRY(device->zero(exec, m->out, (size_t)N * C * sizeof(float)));
    DIP_TRY(device->zero(exec, m->again, (size_t)N * C * sizeof(float)));
    DIP_TRY(device->zero(exec, m->d_w, (size_t)C * C * sizeof(float)));
    return device->zero(exec, m->d_bias, C * sizeof(float));
}

enum { N_OPS = 3 };

static dip_status run_op(dip_exec *exec, const step_memory *m, int which)
{
    const dip_ops *ops = exec->ops;
    const dip_matmul_shape shape = {N, C, C, DIP_OUT_IN};
    if (which == 0)
        return ops->matmul_forward(exec, m->out, m->pre, m->x, m->w, m->bias, NULL, DIP_ACT_GELU,
                                   shape);
    if (which == 1)
        return ops->activation_forward(exec, m->again, m->pre, DIP_ACT_GELU, (int64_t)N * C);
    return ops->matmul_backward_weight(exec, m->d_w, m->d_bias, m->out, m->x, shape);
}

static dip_status run_ops(dip_exec *exec, const step_memory *m)
{
    DIP_TRY(clear_results(exec, m));
    for (int op = 0; op < N_OPS; op++) DIP_TRY(run_op(exec, m, op));
    return DIP_OK;
}

enum { RESULT_FLOATS = 2 * N * C + C * C + C };

static void read_results(dip_exec *exec, const step_memory *m, float *results)
{
    const dip_device *device = exec->device;
    const size_t rows = (size_t)N * C, squares = (size_t)C * C;
    assert_int_equal(device->download(exec, results, m->out, rows * 4), DIP_OK);
    assert_int_equal(device->download(exec, results + rows, m->again, rows * 4), DIP_OK);
    assert_int_equal(device->download(exec, results + 2 * rows, m->d_w, squares * 4), DIP_OK);
    assert_int_equal(device->download(exec, results + 2 * rows + squares, m->d_bias, C * 4),
                     DIP_OK);
}

static float results[4][RESULT_FLOATS];

static void graphs_replay_what_was_recorded(void **state)
{
    (void)state;
    dip_exec exec;
    step_memory m;
    dip_graph *graph;
    if (!opens_cuda(&exec, DIP_F32)) skip();
    const dip_device *device = exec.device;
    const size_t rows_bytes = (size_t)N * C * sizeof(float);
    fill(&exec, &m);
    assert_int_equal(run_ops(&exec, &m), DIP_OK);
    read_results(&exec, &m, results[0]);
    assert_memory_equal(results[0], results[0] + (size_t)N * C, rows_bytes); /* out, again */

    assert_int_equal(device->zero(&exec, m.out, rows_bytes), DIP_OK);
    assert_int_equal(device->synchronize(&exec), DIP_OK);
    assert_int_equal(device->capture_begin(&exec), DIP_OK);
    assert_int_equal(run_ops(&exec, &m), DIP_OK);
    assert_int_equal(device->capture_end(&exec, &graph), DIP_OK);
    assert_non_null(graph);
    read_results(&exec, &m, results[1]); /* recording runs nothing */
    for (int i = 0; i < N * C; i++) assert_true(results[1][i] == 0.0f);

    for (int replay = 0; replay < 2; replay++) {
        assert_int_equal(device->graph_launch(&exec, graph), DIP_OK);
        read_results(&exec, &m, results[1]);
        assert_memory_equal(results[1], results[0], sizeof results[0]);
    }
    /* Other inputs in the same places: what the ops themselves make of them. */
    assert_int_equal(device->copy(&exec, m.x, m.again, rows_bytes), DIP_OK);
    assert_int_equal(device->graph_launch(&exec, graph), DIP_OK);
    read_results(&exec, &m, results[2]);
    assert_int_equal(run_ops(&exec, &m), DIP_OK);
    read_results(&exec, &m, results[3]);
    assert_memory_equal(results[2], results[3], sizeof results[3]);
    assert_memory_not_equal(results[2], results[0], sizeof results[0]);

    device->graph_free(&exec, graph);
    device->graph_free(&exec, NULL);
    empty(&exec, &m);
    dip_exec_close(&exec);
}

static void a_broken_recording_is_survived(void **state)
{
    (void)state;
    dip_exec exec;
    step_memory m;
    dip_graph *graph;
    float value = 1.0f;
    if (!opens_cuda(&exec, DIP_F32)) skip();
    const dip_device *device = exec.device;
    fill(&exec, &m);
    assert_int_equal(device->capture_begin(&exec), DIP_OK);
    assert_int_equal(run_ops(&exec, &m), DIP_OK);
    assert_int_not_equal(device->upload(&exec, m.x, &value, sizeof value), DIP_OK); /* waits */
    assert_non_null(strstr(dip_error(), "kernels/cuda/device.c"));
    assert_int_not_equal(device->capture_end(&exec, &graph), DIP_OK);
    assert_null(graph);
    assert_int_equal(run_ops(&exec, &m), DIP_OK);
    assert_int_equal(device->upload(&exec, m.x, &value, sizeof value), DIP_OK);
    assert_int_equal(device->synchronize(&exec), DIP_OK);
    empty(&exec, &m);
    dip_exec_close(&exec);
}

/* ---- attention of both towers ------------------------------------------------------------- */

enum { HEAD_SIZE = 64, MOST_TOKENS = 197 };

typedef struct attention_memory {
    dip_attention_shape shape;
    void *qkv, *d_out, *out, *d_qkv;
    float *lse;
    int32_t *offsets;
    size_t row_bytes; /* of all tokens, of out and d_out; those of qkv are three times as wide */
} attention_memory;

static void fill_attention(dip_exec *exec, attention_memory *m, int n_tokens)
{
    const int32_t offsets[] = {0, n_tokens};
    const int64_t n = (int64_t)n_tokens * HEAD_SIZE;
    m->shape = (dip_attention_shape){.n_sequences = 1,
                                     .n_rows = n_tokens,
                                     .max_length = n_tokens,
                                     .n_heads = 1,
                                     .head_size = HEAD_SIZE};
    m->row_bytes = (size_t)n * sizeof(dip_bf16);
    m->qkv = bf16_to_device(exec, 3 * n, other_wave);
    m->d_out = bf16_to_device(exec, n, wave);
    m->out = bf16_to_device(exec, n, none);
    m->d_qkv = bf16_to_device(exec, 3 * n, none);
    m->lse = to_device(exec, n_tokens, none);
    m->offsets = copy_to_device(exec, offsets, sizeof offsets);
}

static void empty_attention(dip_exec *exec, attention_memory *m)
{
    void *all[] = {m->qkv, m->d_out, m->out, m->d_qkv, m->lse, m->offsets};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        exec->device->release(exec->device, all[i]);
}

static dip_status run_attention(dip_exec *exec, const attention_memory *m)
{
    const dip_ops *ops = exec->ops;
    DIP_TRY(ops->attention_forward(exec, m->out, m->lse, m->qkv, m->offsets, m->shape));
    return ops->attention_backward(exec, m->d_qkv, m->d_out, m->qkv, m->out, m->lse, m->offsets,
                                   m->shape);
}

typedef struct attention_results {
    dip_bf16 out[MOST_TOKENS * HEAD_SIZE], d_qkv[3 * MOST_TOKENS * HEAD_SIZE];
} attention_results;

/* Reads the results, and wipes them on the device. */
static void take_attention(dip_exec *exec, const attention_memory *m, attention_results *got)
{
    const dip_device *device = exec->device;
    memset(got, 0, sizeof *got);
    assert_int_equal(device->download(exec, got->out, m->out, m->row_bytes), DIP_OK);
    assert_int_equal(device->download(exec, got->d_qkv, m->d_qkv, 3 * m->row_bytes), DIP_OK);
    assert_int_equal(device->zero(exec, m->out, m->row_bytes), DIP_OK);
    assert_int_equal(device->zero(exec, m->d_qkv, 3 * m->row_bytes), DIP_OK);
}

/* The same kernels serve images and shorter texts, with more and with less shared memory. What the
 * second graph asked for when it was recorded must leave the first one able to run. */
static void graphs_of_both_towers_replay(void **state)
{
    (void)state;
    enum { N_TOWERS = 2 };
    static const int n_tokens[N_TOWERS] = {MOST_TOKENS, 77};
    static attention_results expected[N_TOWERS], got;
    dip_exec exec;
    attention_memory m[N_TOWERS];
    dip_graph *graphs[N_TOWERS];
    if (!opens_cuda(&exec, DIP_BF16)) skip();
    const dip_device *device = exec.device;
    for (int i = 0; i < N_TOWERS; i++) {
        fill_attention(&exec, &m[i], n_tokens[i]);
        take_attention(&exec, &m[i], &got); /* zeros */
        assert_int_equal(run_attention(&exec, &m[i]), DIP_OK);
        take_attention(&exec, &m[i], &expected[i]);
        assert_memory_not_equal(expected[i].out, got.out, sizeof got.out);
        assert_memory_not_equal(expected[i].d_qkv, got.d_qkv, sizeof got.d_qkv);
        assert_int_equal(device->capture_begin(&exec), DIP_OK);
        assert_int_equal(run_attention(&exec, &m[i]), DIP_OK);
        assert_int_equal(device->capture_end(&exec, &graphs[i]), DIP_OK);
    }
    for (int replay = 0; replay < 2 * N_TOWERS; replay++) {
        const int i = replay % N_TOWERS;
        if (device->graph_launch(&exec, graphs[i]) != DIP_OK)
            fail_msg("%d tokens, replay %d: %s", n_tokens[i], replay / N_TOWERS, dip_error());
        take_attention(&exec, &m[i], &got);
        assert_memory_equal(&got, &expected[i], sizeof got);
    }
    for (int i = 0; i < N_TOWERS; i++) {
        device->graph_free(&exec, graphs[i]);
        empty_attention(&exec, &m[i]);
    }
    dip_exec_close(&exec);
}

/* Rows that belong to no sequence: there is nothing to launch, and nothing is touched. */
static void attention_without_tokens_is_nothing(void **state)
{
    (void)state;
    const dip_attention_shape shape = {
        .n_sequences = 2, .n_rows = 16, .max_length = 0, .n_heads = 1, .head_size = HEAD_SIZE};
    const attention_memory nothing = {.shape = shape};
    for (int dtype = DIP_F32; dtype <= DIP_BF16; dtype++) {
        dip_exec exec;
        if (!opens_cuda(&exec, (dip_dtype)dtype)) skip();
        assert_int_equal(run_attention(&exec, &nothing), DIP_OK);
        assert_int_equal(exec.device->synchronize(&exec), DIP_OK);
        dip_exec_close(&exec);
    }
}

#ifdef DIPTYCH_EMULATED_GPU

#include "kernels/cuda/cuda.h"

/* ---- what is missing -------------------------------------------------------------------- */

static void refused_with(const char *name, const char *words, const char *more_words)
{
    dip_exec exec;
    assert_int_equal(dip_exec_open(&exec, name, DIP_F32, 1), DIP_UNSUPPORTED);
    if (!strstr(dip_error(), words) || !strstr(dip_error(), more_words))
        fail_msg("\"%s\" says neither \"%s\" nor \"%s\"", dip_error(), words, more_words);
    dip_exec_close(&exec);
}

static void says_what_is_missing(void **state)
{
    (void)state;
    dip_exec exec;
    assert_int_equal(dip_cuda_device_count(), 2);

    set("DIPTYCH_EMULATED_DEVICES", "0");
    assert_int_equal(dip_cuda_device_count(), 0);
    refused_with("cuda", "no NVIDIA GPU", "driver is there");
    set("CUDA_VISIBLE_DEVICES", "-1");
    refused_with("cuda:1", "no NVIDIA GPU", "CUDA_VISIBLE_DEVICES is \"-1\"");
    set("CUDA_VISIBLE_DEVICES", NULL);
    assert_int_equal(dip_exec_open(&exec, "auto", DIP_F32, 1), DIP_OK);
    assert_true(exec.device->is_host);
    dip_exec_close(&exec);

    set("DIPTYCH_EMULATED_DRIVER", "0");
    refused_with("cuda", "no NVIDIA driver", "CUDA 13.0");
    set("DIPTYCH_EMULATED_DRIVER", "12020");
    refused_with("cuda", "driver is too old", "for CUDA 12.2, and this program needs CUDA 13.0");
    set("DIPTYCH_EMULATED_DRIVER", NULL);
    set("DIPTYCH_EMULATED_DEVICES", NULL);

    refused_with("cuda:2", "no device cuda:2", "this machine has 2");
    set("DIPTYCH_EMULATED_CAPABILITY", "75");
    refused_with("cuda:1", "cuda:1, emulated GPU, has compute capability 7.5", "8.0 or newer");
    assert_int_equal(dip_cuda_device_count(), 0);
    assert_non_null(strstr(dip_error(), "cuda:0"));
    set("DIPTYCH_EMULATED_CAPABILITY", NULL);
}

static void each_device_is_its_own(void **state)
{
    (void)state;
    dip_exec first, second;
    void *pointer;
    size_t before[2], after[2], total;
    assert_int_equal(dip_exec_open(&first, "cuda:0", DIP_BF16, 1), DIP_OK);
    assert_int_equal(dip_exec_open(&second, "cuda:1", DIP_BF16, 1), DIP_OK);
    assert_string_equal(first.device->name, "cuda:0");
    assert_string_equal(second.device->name, "cuda:1");
    assert_string_equal(dip_exec_describe(&second), "emulated GPU");
    const dip_device *devices[] = {first.device, second.device};
    for (int i = 0; i < 2; i++)
        assert_int_equal(devices[i]->memory(devices[i], &before[i], &total), DIP_OK);
    assert_int_equal(second.device->allocate(second.device, &pointer, 1 << 20), DIP_OK);
    for (int i = 0; i < 2; i++)
        assert_int_equal(devices[i]->memory(devices[i], &after[i], &total), DIP_OK);
    assert_int_equal(after[0], before[0]);
    assert_true(after[1] <= before[1] - (1 << 20));
    assert_int_equal(second.device->zero(&second, pointer, 1 << 20), DIP_OK);
    assert_int_equal(first.device->synchronize(&first), DIP_OK);
    second.device->release(second.device, pointer);
    dip_exec_close(&first);
    dip_exec_close(&second);
}

/* A thread that runs two devices' executors in turn: each op goes to its own device, though the
 * last call was for the other. */
static void executors_take_turns(void **state)
{
    (void)state;
    enum { N_DEVICES = 2 };
    static const char *const devices[N_DEVICES] = {"cuda:0", "cuda:1"};
    dip_exec execs[N_DEVICES];
    step_memory m[N_DEVICES];
    for (int i = 0; i < N_DEVICES; i++) {
        assert_int_equal(dip_exec_open(&execs[i], devices[i], DIP_F32, 1), DIP_OK);
        fill(&execs[i], &m[i]);
    }
    assert_int_equal(run_ops(&execs[0], &m[0]), DIP_OK);
    read_results(&execs[0], &m[0], results[0]);
    for (int i = 0; i < N_DEVICES; i++) assert_int_equal(clear_results(&execs[i], &m[i]), DIP_OK);
    for (int op = 0; op < N_OPS; op++)
        for (int i = 0; i < N_DEVICES; i++)
            if (run_op(&execs[i], &m[i], op) != DIP_OK)
                fail_msg("op %d on %s: %s", op, devices[i], dip_error());
    for (int i = 0; i < N_DEVICES; i++) {
        read_results(&execs[i], &m[i], results[1]);
        assert_memory_equal(results[1], results[0], sizeof results[0]);
        empty(&execs[i], &m[i]);
    }
    for (int i = 0; i < N_DEVICES; i++) {
        dip_exec_close(&execs[i]);
        dip_cuda_exec_free(&execs[i]); /* one that is closed has no state */
    }
}

/* ---- memory ----------------------------------------------------------------------------- */

static void says_how_much_memory_is_there(void **state)
{
    (void)state;
    dip_exec exec;
    void *all, *more;
    size_t available, total;
    set("DIPTYCH_EMULATED_MEMORY", "100000000");
    assert_int_equal(dip_exec_open(&exec, "cuda", DIP_F32, 1), DIP_OK);
    const dip_device *device = exec.device;
    assert_int_equal(device->memory(device, &available, &total), DIP_OK);
    assert_int_equal(total, 100000000);
    assert_true(available < total); /* the executor's own */
    assert_int_equal(device->allocate(device, &all, available - 4096), DIP_OK);
    assert_int_equal(device->allocate(device, &more, 1234567), DIP_NOMEM);
    assert_null(more);
    assert_non_null(strstr(dip_error(), "1234567 bytes on device cuda:0"));
    assert_non_null(strstr(dip_error(), "of its 100000000 bytes are free"));
    /* The failure is over: what comes next does not find it again. */
    assert_int_equal(exec.ops->cast_to_float(&exec, all, all, 0), DIP_OK);
    assert_int_equal(dip_exec_reserve(&exec, 1 << 20), DIP_NOMEM);
    device->release(device, all);
    assert_int_equal(dip_exec_reserve(&exec, 1 << 20), DIP_OK);
    dip_exec_close(&exec);

    set("DIPTYCH_EMULATED_MEMORY", "1000000"); /* less than an executor needs */
    assert_int_equal(dip_exec_open(&exec, "cuda", DIP_F32, 1), DIP_NOMEM);
    assert_non_null(strstr(dip_error(), "of its 1000000 bytes"));
    dip_exec_close(&exec);
    set("DIPTYCH_EMULATED_MEMORY", NULL);
}

/* ---- slots ------------------------------------------------------------------------------ */

/* Work runs here when somebody waits for it and not before. So: staging the next step's inputs
 * waits for no step but the one that had this slot. */
static void staging_waits_for_its_slot_alone(void **state)
{
    (void)state;
    enum { FLOATS = 500 };
    const size_t n_bytes = FLOATS * sizeof(float);
    dip_exec exec;
    void *input[DIP_N_SLOTS], *output, *given[DIP_N_SLOTS], *got[DIP_N_SLOTS];
    assert_int_equal(dip_exec_open(&exec, "cuda", DIP_F32, 1), DIP_OK);
    const dip_device *device = exec.device;
    assert_int_equal(device->allocate(device, &output, n_bytes), DIP_OK);
    for (int slot = 0; slot < DIP_N_SLOTS; slot++) {
        assert_int_equal(device->allocate(device, &input[slot], n_bytes), DIP_OK);
        assert_int_equal(device->allocate_host(device, &given[slot], n_bytes), DIP_OK);
        assert_int_equal(device->allocate_host(device, &got[slot], n_bytes), DIP_OK);
        memset(got[slot], 0, n_bytes);
    }
    for (int step = 0; step < 3; step++) {
        const int slot = step % DIP_N_SLOTS;
        for (int i = 0; i < FLOATS; i++) ((float *)given[slot])[i] = (float)(step + 1);
        assert_int_equal(device->stage_begin(&exec, slot), DIP_OK);
        assert_int_equal(device->stage(&exec, input[slot], given[slot], n_bytes), DIP_OK);
        assert_int_equal(device->stage_end(&exec, slot), DIP_OK);
        /* Step 1 was staged while step 0 had not run; step 2 could not be before it had. */
        assert_true(*(float *)got[0] == (step == 2 ? 1.0f : 0.0f));
        assert_true(*(float *)got[1] == 0.0f);
        if (step == 2) break;
        assert_int_equal(device->copy(&exec, output, input[slot], n_bytes), DIP_OK);
        assert_int_equal(device->step_end(&exec, slot, got[slot], output, n_bytes), DIP_OK);
    }
    assert_int_equal(device->step_wait(&exec, 1), DIP_OK);
    for (int i = 0; i < FLOATS; i++) assert_true(((float *)got[1])[i] == 2.0f);
    for (int slot = 0; slot < DIP_N_SLOTS; slot++) {
        device->release(device, input[slot]);
        device->release_host(device, given[slot]);
        device->release_host(device, got[slot]);
    }
    device->release(device, output);
    dip_exec_close(&exec);
}

/* ---- errors ----------------------------------------------------------------------------- */

static void errors_name_call_and_place(void **state)
{
    (void)state;
    assert_int_equal(dip_cuda_check(cudaSuccess, "nothing", "file.c", 1), DIP_OK);
    assert_int_equal(
        dip_cuda_check(cudaErrorIllegalAddress, "cudaFoo(bar)", "/a/b/kernels/cuda/foo.cu", 77),
        DIP_DEVICE);
    assert_string_equal(dip_error(), "CUDA: cudaFoo(bar): an illegal memory access was "
                                     "encountered (kernels/cuda/foo.cu:77, "
                                     "cudaErrorIllegalAddress)");
    assert_int_equal(dip_cuda_check(cudaErrorMemoryAllocation, "cudaFoo", "foo.cu", 77), DIP_NOMEM);
}

static void a_refused_launch_names_the_op(void **state)
{
    (void)state;
    dip_exec exec;
    assert_int_equal(dip_exec_open(&exec, "cuda", DIP_BF16, 1), DIP_OK);
    assert_int_equal(DIP_CUDA_LAUNCHED(&exec, "some_op", "[%d]", 5), DIP_OK);
    assert_int_equal(cudaFuncSetAttribute(NULL, cudaFuncAttributeMaxDynamicSharedMemorySize, 1),
                     cudaErrorInvalidDeviceFunction);
    assert_int_equal(DIP_CUDA_LAUNCHED(&exec, "some_op", "[%d, %d]", 5, 6), DIP_DEVICE);
    assert_non_null(strstr(dip_error(), "some_op bf16 [5, 6]: invalid device function"));
    assert_non_null(strstr(dip_error(), "test_cuda_host.c:"));
    assert_int_equal(DIP_CUDA_LAUNCHED(&exec, "some_op", "[%d]", 5), DIP_OK);
    dip_exec_close(&exec);
}

/* DIPTYCH_CUDA_SYNC=1: an op has run when it returns. Here: what was enqueued before it too. */
static void ops_can_be_waited_for_one_by_one(void **state)
{
    (void)state;
    for (int sync = 0; sync < 2; sync++) {
        dip_exec exec;
        float *got;
        void *x;
        set("DIPTYCH_CUDA_SYNC", sync ? "1" : "0");
        assert_int_equal(dip_exec_open(&exec, "cuda", DIP_F32, 1), DIP_OK);
        const dip_device *device = exec.device;
        assert_int_equal(device->allocate(device, &x, sizeof(float)), DIP_OK);
        assert_int_equal(device->allocate_host(device, (void **)&got, sizeof(float)), DIP_OK);
        *got = 5.0f;
        assert_int_equal(device->zero(&exec, x, sizeof(float)), DIP_OK);
        assert_int_equal(device->step_end(&exec, 0, got, x, sizeof(float)), DIP_OK);
        assert_int_equal(DIP_CUDA_LAUNCHED(&exec, "some_op", "[%d]", 1), DIP_OK);
        assert_true(*got == (sync ? 0.0f : 5.0f));
        assert_int_equal(device->synchronize(&exec), DIP_OK);
        device->release(device, x);
        device->release_host(device, got);
        dip_exec_close(&exec);
    }
    set("DIPTYCH_CUDA_SYNC", NULL);
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(graphs_replay_what_was_recorded),
        cmocka_unit_test(a_broken_recording_is_survived),
        cmocka_unit_test(graphs_of_both_towers_replay),
        cmocka_unit_test(attention_without_tokens_is_nothing),
#ifdef DIPTYCH_EMULATED_GPU
        cmocka_unit_test(says_what_is_missing),
        cmocka_unit_test(each_device_is_its_own),
        cmocka_unit_test(executors_take_turns),
        cmocka_unit_test(says_how_much_memory_is_there),
        cmocka_unit_test(staging_waits_for_its_slot_alone),
        cmocka_unit_test(errors_name_call_and_place),
        cmocka_unit_test(a_refused_launch_names_the_op),
        cmocka_unit_test(ops_can_be_waited_for_one_by_one),
#endif
    };
    set("DIPTYCH_CUDA_TUNE", "0"); /* leaves no file behind */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
