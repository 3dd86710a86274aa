/* The emulated runtime: memory that is watched, streams that are lazy, graphs, devices as the
 * environment wants them. */
#include "test_support.h"

#include "kernels/cuda/launch.cuh"

namespace
{

__global__ void add(int *to, const int *value, int times)
{
    *to += *value * times;
}

__global__ void write_at(unsigned char *to, long at)
{
    to[at] = 1;
}

/* A stream that only its own waits run. */
class stream
{
  public:
    stream() { CHECK_CUDA(cudaStreamCreateWithFlags(&at, cudaStreamNonBlocking)); }
    ~stream() { cudaStreamDestroy(at); }
    stream(const stream &) = delete;
    stream &operator=(const stream &) = delete;
    operator cudaStream_t() const { return at; }

  private:
    cudaStream_t at;
};

class event
{
  public:
    event() { CHECK_CUDA(cudaEventCreate(&at)); }
    ~event() { cudaEventDestroy(at); }
    event(const event &) = delete;
    event &operator=(const event &) = delete;
    operator cudaEvent_t() const { return at; }

  private:
    cudaEvent_t at;
};

/* One int on the device. */
class number
{
  public:
    explicit number(int value) : memory(1) { set(value); }
    void set(int value)
    {
        memory.host[0] = value;
        memory.upload();
    }
    int get()
    {
        memory.download();
        return memory.host[0];
    }
    int *at() { return memory.at; }

  private:
    device_array<int> memory;
};

/* ---- memory ----------------------------------------------------------------------------- */

void test_memory_limit(void **)
{
    environment limit("DIPTYCH_EMULATED_MEMORY", "1048576");
    size_t available, total;
    void *most, *more;
    CHECK_CUDA(cudaMemGetInfo(&available, &total));
    assert_int_equal(total, 1048576);
    assert_int_equal(available, 1048576);
    CHECK_CUDA_IS(cudaErrorMemoryAllocation, cudaMalloc(&more, 1048577));
    CHECK_CUDA_IS(cudaErrorMemoryAllocation, cudaMalloc(&more, (size_t)-1));
    assert_null(more);
    CHECK_CUDA(cudaMalloc(&most, 1048576 - 512));
    CHECK_CUDA_IS(cudaErrorMemoryAllocation, cudaMalloc(&more, 513));
    CHECK_CUDA(cudaMemGetInfo(&available, &total));
    assert_int_equal(available, 512);
    CHECK_CUDA(cudaMalloc(&more, 512));
    CHECK_CUDA(cudaFree(most));
    CHECK_CUDA(cudaFree(more));
    CHECK_CUDA(cudaMemGetInfo(&available, &total));
    assert_int_equal(available, 1048576);
    cudaGetLastError();
}

void test_new_memory_is_nan(void **)
{
    for (int i = 0; i < 3; i++) { /* also where something has lain before */
        float *memory, host[100], *locked;
        CHECK_CUDA(cudaMalloc(&memory, sizeof host));
        CHECK_CUDA(cudaMallocHost(&locked, sizeof host));
        CHECK_CUDA(cudaMemcpy(host, memory, sizeof host, cudaMemcpyDeviceToHost));
        for (int j = 0; j < 100; j++) assert_true(std::isnan(host[j]) && std::isnan(locked[j]));
        assert_int_equal((uintptr_t)memory % 256, 0);
        CHECK_CUDA(cudaMemset(memory, 0, sizeof host));
        CHECK_CUDA(cudaMemcpy(host, memory, sizeof host, cudaMemcpyDeviceToHost));
        for (float x : host) assert_float_equal(x, 0, 0);
        CHECK_CUDA(cudaFree(memory));
        CHECK_CUDA(cudaFreeHost(locked));
    }
}

void test_guards(void **)
{
    device_array<unsigned char> before(1000), bytes(1000), after(1000);
    DIP_LAUNCH(write_at, 1, 1, 0, 0)(bytes.at, 999);
    CHECK_CUDA(cudaDeviceSynchronize());
    for (long at : {-1L, -8L, 1000L, 1007L, 1024L}) {
        expect_death("write_at", [&] { DIP_LAUNCH(write_at, 1, 1, 0, 0)(bytes.at, at); });
    }
}

void test_freed_memory(void **)
{
    unsigned char *freed;
    CHECK_CUDA(cudaMalloc(&freed, 100));
    CHECK_CUDA(cudaFree(freed));
    CHECK_CUDA_IS(cudaErrorInvalidValue, cudaFree(freed));
    CHECK_CUDA_IS(cudaErrorInvalidValue, cudaFreeHost(freed));
    CHECK_CUDA_IS(cudaErrorInvalidValue, cudaMemset(freed, 0, 1));
    CHECK_CUDA(cudaFree(nullptr));
    CHECK_CUDA(cudaFreeHost(nullptr));
    cudaGetLastError();
    stream s;
    int *locked, source = 1;
    CHECK_CUDA(cudaMallocHost(&locked, 4));
    /* Freeing waits for what is under way, as CUDA does. */
    number to(5);
    CHECK_CUDA(cudaMemcpyAsync(locked, to.at(), 4, cudaMemcpyDeviceToHost, s));
    CHECK_CUDA(cudaFreeHost(locked));
    device_array<int> *memory = new device_array<int>(1);
    CHECK_CUDA(cudaMemcpyAsync(memory->at, &source, 4, cudaMemcpyHostToDevice, s));
    delete memory;
    CHECK_CUDA(cudaStreamSynchronize(s));
}

void test_leaks_are_told(void **)
{
    expect_death("1 allocations were never freed", [] {
        void *memory;
        cudaMalloc(&memory, 100);
        exit(0);
    });
}

void test_copies_are_checked(void **)
{
    device_array<unsigned char> a(100), b(100);
    unsigned char host[200] = {0};
    const auto bad = cudaErrorInvalidValue;
    assert_int_equal(cudaMemcpy(a.at, host, 101, cudaMemcpyHostToDevice), bad);
    assert_int_equal(cudaMemcpy(a.at + 50, host, 51, cudaMemcpyHostToDevice), bad);
    assert_int_equal(cudaMemcpy(host, a.at - 1, 2, cudaMemcpyDeviceToHost), bad);
    assert_int_equal(cudaMemcpy(a.at, host, 1, cudaMemcpyDeviceToHost), bad);
    assert_int_equal(cudaMemcpy(host, a.at, 1, cudaMemcpyHostToDevice), bad);
    assert_int_equal(cudaMemcpy(host, host + 50, 1, cudaMemcpyDeviceToDevice), bad);
    assert_int_equal(cudaMemset(a.at, 0, 101), bad);
    assert_int_equal(cudaMemset(host, 0, 1), bad);
    CHECK_CUDA_IS(cudaErrorInvalidValue, cudaGetLastError());
    host[3] = 7;
    CHECK_CUDA(cudaMemcpy(a.at, host, 100, cudaMemcpyDefault));
    CHECK_CUDA(cudaMemcpy(b.at + 50, a.at, 50, cudaMemcpyDeviceToDevice));
    b.download();
    assert_int_equal(b.host[53], 7);
    expect_death("overlap", [&] { cudaMemcpy(a.at, a.at + 10, 50, cudaMemcpyDeviceToDevice); });
}

void test_host_code_may_not_look(void **)
{
    number x(1);
    expect_death("", [&] {
        volatile int *at = x.at();
        std::printf("%d", *at);
    });
    /* ... also after work has run. */
    DIP_LAUNCH(add, 1, 1, 0, 0)(x.at(), x.at(), 1);
    expect_death("", [&] {
        volatile int *at = x.at();
        *at = 1;
    });
    assert_int_equal(x.get(), 2);
}

/* ---- streams ---------------------------------------------------------------------------- */

void test_streams_are_lazy(void **)
{
    number sum(0), one(1);
    stream s;
    int seen = -1;
    DIP_LAUNCH(add, 1, 1, 0, s)(sum.at(), one.at(), 5);
    CHECK_CUDA(cudaGetLastError());
    assert_int_equal(sum.get(), 0);
    CHECK_CUDA(cudaMemcpyAsync(&seen, sum.at(), 4, cudaMemcpyDeviceToHost, s));
    assert_int_equal(seen, -1);
    CHECK_CUDA(cudaStreamSynchronize(s));
    assert_int_equal(seen, 5);
    CHECK_CUDA(cudaMemsetAsync(sum.at(), 0, 4, s));
    assert_int_equal(sum.get(), 5);
    CHECK_CUDA(cudaStreamQuery(s));
    assert_int_equal(sum.get(), 0);
    DIP_LAUNCH(add, 1, 1, 0, s)(sum.at(), one.at(), 5);
    CHECK_CUDA(cudaDeviceSynchronize());
    assert_int_equal(sum.get(), 5);
}

void test_default_stream_waits_for_blocking_ones(void **)
{
    number sum(0), one(1);
    cudaStream_t blocking;
    CHECK_CUDA(cudaStreamCreate(&blocking));
    DIP_LAUNCH(add, 1, 1, 0, blocking)(sum.at(), one.at(), 5);
    assert_int_equal(sum.get(), 5);
    DIP_LAUNCH(add, 1, 1, 0, blocking)(sum.at(), one.at(), 5);
    CHECK_CUDA(cudaStreamDestroy(blocking));
    assert_int_equal(sum.get(), 10);
}

void test_copies_read_host_memory_late(void **)
{
    number x(0);
    stream s;
    int source = 1;
    CHECK_CUDA(cudaMemcpyAsync(x.at(), &source, 4, cudaMemcpyHostToDevice, s));
    source = 2; /* the mistake */
    CHECK_CUDA(cudaStreamSynchronize(s));
    assert_int_equal(x.get(), 2);
}

void test_events_order_streams(void **)
{
    number sum(0), one(1), ten(10);
    stream a, b;
    event done;
    /* Never recorded: no wait. */
    CHECK_CUDA(cudaStreamWaitEvent(b, done));
    CHECK_CUDA(cudaEventSynchronize(done));
    DIP_LAUNCH(add, 1, 1, 0, a)(sum.at(), one.at(), 1);
    CHECK_CUDA(cudaEventRecord(done, a));
    DIP_LAUNCH(add, 1, 1, 0, a)(sum.at(), one.at(), 2);
    CHECK_CUDA(cudaStreamWaitEvent(b, done));
    CHECK_CUDA(cudaEventRecord(done, a)); /* waits are for the record that was */
    DIP_LAUNCH(add, 1, 1, 0, b)(sum.at(), ten.at(), 1);
    CHECK_CUDA(cudaStreamSynchronize(b));
    assert_int_equal(sum.get(), 11); /* what stood before the first record, no more */
    CHECK_CUDA(cudaEventQuery(done));
    assert_int_equal(sum.get(), 13);
    /* Without the wait, b does not see what a does. */
    DIP_LAUNCH(add, 1, 1, 0, a)(sum.at(), one.at(), 1);
    int seen = -1;
    CHECK_CUDA(cudaMemcpyAsync(&seen, sum.at(), 4, cudaMemcpyDeviceToHost, b));
    CHECK_CUDA(cudaStreamSynchronize(b));
    assert_int_equal(seen, 13);
}

void test_event_times(void **)
{
    stream s;
    event start, end;
    cudaEvent_t timeless;
    float ms;
    CHECK_CUDA_IS(cudaErrorInvalidResourceHandle, cudaEventElapsedTime(&ms, start, end));
    CHECK_CUDA(cudaEventRecord(start, s));
    CHECK_CUDA(cudaEventRecord(end, s));
    CHECK_CUDA_IS(cudaErrorNotReady, cudaEventElapsedTime(&ms, start, end));
    CHECK_CUDA(cudaEventSynchronize(end));
    CHECK_CUDA(cudaEventElapsedTime(&ms, start, end));
    assert_true(ms >= 0 && ms < 60000);
    CHECK_CUDA(cudaEventCreateWithFlags(&timeless, cudaEventDisableTiming));
    CHECK_CUDA(cudaEventRecord(timeless, s));
    CHECK_CUDA(cudaEventSynchronize(timeless));
    CHECK_CUDA_IS(cudaErrorInvalidResourceHandle, cudaEventElapsedTime(&ms, start, timeless));
    CHECK_CUDA(cudaEventDestroy(timeless));
    CHECK_CUDA_IS(cudaErrorInvalidResourceHandle, cudaEventDestroy(timeless));
    cudaGetLastError();
}

/* ---- graphs ----------------------------------------------------------------------------- */

void test_graph_replays(void **)
{
    number sum(0), value(1);
    stream s;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaStreamCaptureStatus status;
    CHECK_CUDA(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
    CHECK_CUDA(cudaStreamIsCapturing(s, &status));
    assert_int_equal(status, cudaStreamCaptureStatusActive);
    DIP_LAUNCH(add, 1, 1, 0, s)(sum.at(), value.at(), 2);
    CHECK_CUDA(cudaMemsetAsync(value.at(), 0, 4, s));
    CHECK_CUDA(cudaGetLastError());
    CHECK_CUDA(cudaStreamEndCapture(s, &graph));
    CHECK_CUDA(cudaStreamIsCapturing(s, &status));
    assert_int_equal(status, cudaStreamCaptureStatusNone);
    CHECK_CUDA(cudaGraphInstantiate(&exec, graph));
    CHECK_CUDA(cudaGraphDestroy(graph));
    CHECK_CUDA(cudaStreamSynchronize(s));
    assert_int_equal(sum.get(), 0); /* recording runs nothing */
    for (int i = 1; i <= 3; i++) {
        value.set(i); /* what is read from device memory may change, the arguments may not */
        CHECK_CUDA(cudaGraphLaunch(exec, s));
        if (i == 1) assert_int_equal(sum.get(), 0);
        CHECK_CUDA(cudaStreamSynchronize(s));
        assert_int_equal(sum.get(), i * (i + 1));
        assert_int_equal(value.get(), 0);
    }
    CHECK_CUDA(cudaGraphLaunch(exec, s));
    CHECK_CUDA(cudaGraphExecDestroy(exec)); /* what was launched still runs */
    CHECK_CUDA(cudaStreamSynchronize(s));
    CHECK_CUDA_IS(cudaErrorInvalidResourceHandle, cudaGraphLaunch(exec, s));
    cudaGetLastError();
}

/* The limit is the kernel's on a device, not the launch's: who lowers it breaks recorded launches.
 */
void test_graphs_need_the_limit_of_now(void **)
{
    enum { NEEDED = 60 << 10, LESS = 50 << 10, USUAL = 48 << 10 };
    number sum(0), one(1);
    stream s;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    CHECK_CUDA(DIP_ALLOW_SHARED(add, NEEDED));
    CHECK_CUDA(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
    DIP_LAUNCH(add, 1, 1, NEEDED, s)(sum.at(), one.at(), 1);
    CHECK_CUDA(cudaStreamEndCapture(s, &graph));
    CHECK_CUDA(cudaGraphInstantiate(&exec, graph));
    CHECK_CUDA(cudaGraphDestroy(graph));
    CHECK_CUDA(cudaGraphLaunch(exec, s));
    DIP_LAUNCH(add, 1, 1, NEEDED, s)(sum.at(), one.at(), 10);
    CHECK_CUDA(DIP_ALLOW_SHARED(add, LESS));
    CHECK_CUDA_IS(cudaErrorInvalidValue, cudaGraphLaunch(exec, s));
    CHECK_CUDA_IS(cudaErrorInvalidValue, cudaGetLastError());
    CHECK_CUDA(cudaStreamSynchronize(s));
    assert_int_equal(sum.get(), 11); /* what had been accepted has run */
    CHECK_CUDA(DIP_ALLOW_SHARED(add, NEEDED));
    CHECK_CUDA(cudaSetDevice(1));
    CHECK_CUDA(DIP_ALLOW_SHARED(add, USUAL)); /* another device's is another limit */
    CHECK_CUDA(cudaSetDevice(0));
    CHECK_CUDA(cudaGraphLaunch(exec, s));
    CHECK_CUDA(cudaStreamSynchronize(s));
    assert_int_equal(sum.get(), 12);
    CHECK_CUDA(cudaGraphExecDestroy(exec));
    CHECK_CUDA(DIP_ALLOW_SHARED(add, USUAL));
}

/* Recording must break at `call`, with `error`. */
template <typename F> void expect_broken(const char *error, F call)
{
    number one(1);
    stream s;
    cudaGraph_t graph;
    CHECK_CUDA(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
    assert_string_equal(cudaGetErrorName(call(s)), error);
    CHECK_CUDA_IS(cudaErrorStreamCaptureInvalidated, cudaMemsetAsync(one.at(), 0, 4, s));
    CHECK_CUDA_IS(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(s, &graph));
    assert_null(graph);
    cudaGetLastError();
    CHECK_CUDA(cudaMemsetAsync(one.at(), 0, 4, s)); /* and then all is as before */
    CHECK_CUDA(cudaStreamSynchronize(s));
    assert_int_equal(one.get(), 0);
}

void test_graph_refusals(void **)
{
    const char *const unsupported = "cudaErrorStreamCaptureUnsupported";
    number one(1);
    stream other;
    event e;
    int host = 0;
    void *memory = nullptr;
    expect_broken(unsupported, [](cudaStream_t s) { return cudaStreamSynchronize(s); });
    expect_broken(unsupported, [](cudaStream_t s) { return cudaStreamQuery(s); });
    expect_broken(unsupported, [&](cudaStream_t) { return cudaStreamSynchronize(other); });
    expect_broken(unsupported, [](cudaStream_t) { return cudaDeviceSynchronize(); });
    expect_broken(unsupported, [&](cudaStream_t) { return cudaMalloc(&memory, 4); });
    expect_broken(unsupported, [&](cudaStream_t) { return cudaMallocHost(&memory, 4); });
    expect_broken(unsupported, [&](cudaStream_t) { return cudaFree(one.at()); });
    expect_broken(unsupported, [&](cudaStream_t) { return cudaEventSynchronize(e); });
    expect_broken(unsupported, [&](cudaStream_t) { return cudaEventQuery(e); });
    expect_broken(unsupported, [&](cudaStream_t s) { return cudaEventRecord(e, s); });
    expect_broken(unsupported, [&](cudaStream_t) {
        return cudaMemcpy(&host, one.at(), 4, cudaMemcpyDeviceToHost);
    });
    expect_broken("cudaErrorStreamCaptureImplicit",
                  [&](cudaStream_t) { return cudaMemsetAsync(one.at(), 0, 4, nullptr); });
    expect_broken("cudaErrorStreamCaptureIsolation",
                  [&](cudaStream_t s) { return cudaStreamWaitEvent(s, e); });
    cudaGraph_t graph;
    CHECK_CUDA_IS(cudaErrorStreamCaptureUnmatched, cudaStreamEndCapture(other, &graph));
    CHECK_CUDA_IS(cudaErrorStreamCaptureUnsupported,
                  cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeThreadLocal));
    cudaGetLastError();
    assert_int_equal(one.get(), 1);
}

/* ---- devices ---------------------------------------------------------------------------- */

void test_device_counts(void **)
{
    int n;
    void *memory;
    CHECK_CUDA(cudaGetDeviceCount(&n));
    assert_int_equal(n, 2);
    CHECK_CUDA_IS(cudaErrorInvalidDevice, cudaSetDevice(2));
    {
        environment one("DIPTYCH_EMULATED_DEVICES", "1");
        CHECK_CUDA(cudaGetDeviceCount(&n));
        assert_int_equal(n, 1);
        CHECK_CUDA_IS(cudaErrorInvalidDevice, cudaSetDevice(1));
    }
    {
        environment none("DIPTYCH_EMULATED_DEVICES", "0");
        CHECK_CUDA_IS(cudaErrorNoDevice, cudaGetDeviceCount(&n));
        assert_int_equal(n, 0);
        CHECK_CUDA_IS(cudaErrorNoDevice, cudaSetDevice(0));
        CHECK_CUDA_IS(cudaErrorNoDevice, cudaMalloc(&memory, 4));
    }
    for (const char *version : {"0", "12090"}) {
        environment old("DIPTYCH_EMULATED_DRIVER", version);
        CHECK_CUDA_IS(cudaErrorInsufficientDriver, cudaGetDeviceCount(&n));
        CHECK_CUDA(cudaDriverGetVersion(&n));
        assert_int_equal(n, atoi(version));
    }
    cudaGetLastError();
}

void test_device_properties(void **)
{
    environment turing("DIPTYCH_EMULATED_CAPABILITY", "75");
    cudaDeviceProp properties;
    int value;
    CHECK_CUDA(cudaGetDeviceProperties(&properties, 1));
    assert_string_equal(properties.name, "emulated GPU");
    assert_int_equal(properties.major, 7);
    assert_int_equal(properties.minor, 5);
    CHECK_CUDA(cudaDeviceGetAttribute(&value, cudaDevAttrComputeCapabilityMinor, 0));
    assert_int_equal(value, 5);
    CHECK_CUDA(cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
    assert_int_equal(value, 64 << 10);
    CHECK_CUDA_IS(cudaErrorInvalidDevice, cudaGetDeviceProperties(&properties, 2));
    cudaGetLastError();
}

void test_devices_are_apart(void **)
{
    number on_first(1);
    stream of_first;
    void *memory;
    size_t available, total;
    CHECK_CUDA(cudaSetDevice(1));
    CHECK_CUDA(cudaMalloc(&memory, 4096));
    CHECK_CUDA(cudaMemGetInfo(&available, &total));
    assert_int_equal(available, total - 4096);
    DIP_LAUNCH(add, 1, 1, 0, of_first)(on_first.at(), on_first.at(), 1);
    CHECK_CUDA_IS(cudaErrorInvalidResourceHandle, cudaGetLastError());
    CHECK_CUDA(cudaFree(memory));
    CHECK_CUDA(cudaSetDevice(0));
    DIP_LAUNCH(add, 1, 1, 0, of_first)(on_first.at(), on_first.at(), 1);
    CHECK_CUDA(cudaGetLastError());
    CHECK_CUDA(cudaStreamSynchronize(of_first));
    assert_int_equal(on_first.get(), 2);
}

void test_errors_are_remembered(void **)
{
    CHECK_CUDA(cudaGetLastError());
    int not_device_memory;
    cudaFree(&not_device_memory);
    CHECK_CUDA_IS(cudaErrorInvalidValue, cudaPeekAtLastError());
    CHECK_CUDA_IS(cudaErrorInvalidValue, cudaGetLastError());
    CHECK_CUDA(cudaGetLastError());
    assert_string_equal(cudaGetErrorString(cudaErrorMemoryAllocation), "out of memory");
}

} // namespace

int main()
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_limit),
        cmocka_unit_test(test_new_memory_is_nan),
        cmocka_unit_test(test_guards),
        cmocka_unit_test(test_freed_memory),
        cmocka_unit_test(test_leaks_are_told),
        cmocka_unit_test(test_copies_are_checked),
        cmocka_unit_test(test_host_code_may_not_look),
        cmocka_unit_test(test_streams_are_lazy),
        cmocka_unit_test(test_default_stream_waits_for_blocking_ones),
        cmocka_unit_test(test_copies_read_host_memory_late),
        cmocka_unit_test(test_events_order_streams),
        cmocka_unit_test(test_event_times),
        cmocka_unit_test(test_graph_replays),
        cmocka_unit_test(test_graphs_need_the_limit_of_now),
        cmocka_unit_test(test_graph_refusals),
        cmocka_unit_test(test_device_counts),
        cmocka_unit_test(test_device_properties),
        cmocka_unit_test(test_devices_are_apart),
        cmocka_unit_test(test_errors_are_remembered),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
